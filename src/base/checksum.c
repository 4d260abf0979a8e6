/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/checksum.h"

#include <isa-l/crc.h>

#include "base/obj.h"

/* ISA-L counts in int; larger buffers go in pieces. */
#define CHECKSUM_PIECE ((size_t)1 << 30)

/* ISA-L neither presets nor inverts, so both are done here, as the standard has it. */
uint32_t checksum_crc32c_more(uint32_t crc, const void *buf, size_t len)
{
	const unsigned char *p = buf;

	crc = ~crc;
	while (len > 0) {
		size_t n = MIN(len, CHECKSUM_PIECE);

		/* The library does not write to the buffer; its prototype lacks the const. */
		crc = crc32_iscsi((unsigned char *)(uintptr_t)p, (int)n, crc);
		p += n;
		len -= n;
	}
	return ~crc;
}

uint32_t checksum_crc32c(const void *buf, size_t len)
{
	return checksum_crc32c_more(0, buf, len);
}

void checksum_blocks(const void *buf, size_t len, uint32_t *sums)
{
	const unsigned char *p = buf;

	for (size_t i = 0; len > 0; i++) {
		size_t n = MIN(len, (size_t)CHECKSUM_BLOCK);

		sums[i] = checksum_crc32c(p, n);
		p += n;
		len -= n;
	}
}

long checksum_verify(const void *buf, size_t len, const uint32_t *sums)
{
	const unsigned char *p = buf;

	for (long i = 0; len > 0; i++) {
		size_t n = MIN(len, (size_t)CHECKSUM_BLOCK);

		if (checksum_crc32c(p, n) != sums[i])
			return i;
		p += n;
		len -= n;
	}
	return -1;
}
