/* SPDX-License-Identifier: BSD-2-Clause */
/* CRC32C (Castagnoli) through ISA-L.  Any thread. */
#ifndef BASE_CHECKSUM_H
#define BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

#define CHECKSUM_BLOCK 4096u

uint32_t checksum_crc32c(const void *buf, size_t len);
/* crc: of what comes before buf (0: nothing does). */
uint32_t checksum_crc32c_more(uint32_t crc, const void *buf, size_t len);

/* One sum a CHECKSUM_BLOCK of buf; the last block may be short. */
void checksum_blocks(const void *buf, size_t len, uint32_t *sums);
/* The index of the first block whose sum differs, or -1 if all agree. */
long checksum_verify(const void *buf, size_t len, const uint32_t *sums);

#endif
