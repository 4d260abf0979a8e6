/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Any bytes as the answer to a write.
 *	clang -g -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -Isrc \
 *	    t/fuzz/fuzz_s3_doc.c src/ufs/s3_doc.c src/ufs/s3_enc.c -lexpat -lcurl
 */
#include <stdlib.h>
#include <string.h>

#include "ufs/s3_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void text(const char *s, size_t room)
{
	if (strnlen(s, room) == room)
		abort();
}

static void entry(void *arg, const char *key, const char *code)
{
	size_t *n = arg;

	*n += strlen(key) + strlen(code);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct s3_doc_result *res;
	struct s3_doc *d;
	size_t step, n = 0;
	int err = 0;

	if (size < 1)
		return 0;
	step = data[0] / 2 + 1u;
	d = s3_doc_new(data[0] % 2 == 0 ? entry : NULL, &n);
	if (d == NULL)
		return 0;
	for (size_t i = 1; i < size && err == 0; i += step)
		err = s3_doc_feed(d, data + i, MIN(step, size - i));
	if (err == 0)
		err = s3_doc_end(d);
	res = s3_doc_result(d);
	text(res->root, sizeof(res->root));
	text(res->upload_id, sizeof(res->upload_id));
	text(res->etag, sizeof(res->etag));
	text(res->error.code, sizeof(res->error.code));
	text(res->error.message, sizeof(res->error.message));
	if (err == 0 && strcmp(res->root, "Error") == 0)
		abort();
	s3_doc_free(&d);
	return 0;
}
