/* SPDX-License-Identifier: BSD-2-Clause */
/* Rows of the metadata store from arbitrary bytes: what is taken is what is written. */
#include <stdlib.h>
#include <string.h>

#include "meta/records.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned char buf[META_ROW_MAX];
	struct meta_row row;
	size_t len;

	if (meta_row_decode(&row, data, size) != 0)
		return 0;
	if (row.rec.kind != META_PASS && meta_record_check(&row.rec) != 0)
		abort();
	len = meta_row_encode(&row, buf);
	if (len != size || memcmp(buf, data, len) != 0)
		abort();
	return 0;
}
