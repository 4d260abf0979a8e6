/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Any bytes as a ListObjectsV2 answer, in pieces whose size the first byte says.
 *	clang -g -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -Isrc \
 *	    t/fuzz/fuzz_s3_list.c src/ufs/s3_xml.c src/ufs/s3_text.c src/ufs/s3_enc.c \
 *	    -lexpat -lcurl
 */
#include <stdlib.h>
#include <string.h>

#include "ufs/s3_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int on_object(void *arg, const struct s3_xml_object *o)
{
	++*(size_t *)arg;
	if (strlen(o->key) > o->key_len || strlen(o->version) >= UFS_VERSION_MAX ||
	    o->version[0] == '\0' || o->size > INT64_MAX)
		abort();
	return 0;
}

static int on_prefix(void *arg, const char *key, size_t len)
{
	++*(size_t *)arg;
	if (key[len] != '\0')
		abort();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t count = 0, step;
	struct s3_xml_sink sink = { .arg = &count, .object = on_object, .prefix = on_prefix };
	struct s3_xml *x;
	int err = 0;

	if (size < 1)
		return 0;
	step = data[0] + 1u;
	x = s3_xml_new(&sink);
	if (x == NULL)
		return 0;
	for (size_t i = 1; i < size && err == 0; i += step)
		err = s3_xml_feed(x, data + i, MIN(step, size - i));
	if (s3_xml_end(x) == 0 && count > size)
		abort(); /* more entries than bytes: something was expanded */
	s3_xml_free(&x);
	return 0;
}
