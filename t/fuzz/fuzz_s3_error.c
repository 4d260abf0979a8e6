/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Any bytes as an error document.
 *	clang -g -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -Isrc \
 *	    t/fuzz/fuzz_s3_error.c src/ufs/s3_error.c -lexpat
 */
#include <stdlib.h>
#include <string.h>

#include "ufs/s3_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void printable(const char *s, size_t room)
{
	size_t n = strnlen(s, room);

	if (n == room)
		abort();
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < ' ')
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct s3_error e = { .code = "" };
	struct s3_error_parser *p;
	size_t step;

	if (size < 1)
		return 0;
	step = data[0] + 1u;
	p = s3_error_parser_new(&e);
	if (p == NULL)
		return 0;
	for (size_t i = 1; i < size; i += step)
		s3_error_feed(p, data + i, MIN(step, size - i));
	s3_error_parser_free(&p);
	printable(e.code, sizeof(e.code));
	printable(e.message, sizeof(e.message));
	printable(e.request_id, sizeof(e.request_id));
	printable(e.region, sizeof(e.region));
	return 0;
}
