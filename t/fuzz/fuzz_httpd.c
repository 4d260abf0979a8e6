/* SPDX-License-Identifier: BSD-2-Clause */
/* Heads of requests, and what nodes write in them: no crash, and what was taken lies within
 * what came. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "peer/peer.h"
#include "peer/peer_auth.h"
#include "reactor/httpd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int holds)
{
	if (!holds)
		abort();
}

static void within(const char *text, const char *buf, size_t size)
{
	must(text >= buf && text + strlen(text) < buf + size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *buf = malloc(size != 0 ? size : 1);
	struct httpd_head h;
	uint64_t v, off, len;
	uint32_t crc;
	ssize_t n;

	if (buf == NULL)
		return 0;
	memcpy(buf, data, size);
	n = httpd_parse(buf, size, &h);
	must(n <= (ssize_t)size && n <= (ssize_t)HTTPD_HEAD_MAX);
	if (n > 0) {
		within(h.method, buf, size);
		within(h.target, buf, size);
	}
	for (unsigned i = 0; n > 0 && i < h.nheaders; i++) {
		const char *value = h.header[i].value;

		within(h.header[i].name, buf, size);
		within(value, buf, size);
		(void)peer_u64_parse(value, &v);
		(void)peer_crc_parse(value, &crc);
		(void)peer_id_parse(value, &v);
		if (peer_range_parse(value, &off, &len))
			must(len > 0 && len <= PEER_PIECE && off + len - 1 >= off);
	}
	free(buf);
	return 0;
}
