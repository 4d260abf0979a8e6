/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/checksum.h"

#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

TestSuite(checksum);

/* The definition, a bit at a time. */
static uint32_t crc_by_bits(const unsigned char *p, size_t len)
{
	uint32_t crc = 0xffffffffu;

	while (len-- > 0) {
		crc ^= *p++;
		for (int k = 0; k < 8; k++)
			crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

static void fill(unsigned char *p, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++) {
		seed = seed * 1103515245u + 12345u;
		p[i] = (unsigned char)(seed >> 16);
	}
}

Test(checksum, published_vectors)
{
	unsigned char b[32];

	cr_assert_eq(checksum_crc32c("123456789", 9), 0xe3069283u);
	cr_assert_eq(checksum_crc32c("", 0), 0u);
	/* RFC 3720, B.4 */
	memset(b, 0, sizeof(b));
	cr_assert_eq(checksum_crc32c(b, sizeof(b)), 0x8a9136aau);
	memset(b, 0xff, sizeof(b));
	cr_assert_eq(checksum_crc32c(b, sizeof(b)), 0x62a8ab43u);
	for (unsigned i = 0; i < 32; i++)
		b[i] = (unsigned char)i;
	cr_assert_eq(checksum_crc32c(b, sizeof(b)), 0x46dd794eu);
	for (unsigned i = 0; i < 32; i++)
		b[i] = (unsigned char)(31 - i);
	cr_assert_eq(checksum_crc32c(b, sizeof(b)), 0x113fdb5cu);
}

Test(checksum, any_length_and_alignment)
{
	static unsigned char b[5000];

	fill(b, sizeof(b), 1);
	for (size_t off = 0; off < 9; off++) {
		for (size_t len = 0; len < 4200; len = len < 300 ? len + 1 : len + 97)
			cr_assert_eq(checksum_crc32c(b + off, len), crc_by_bits(b + off, len),
			    "offset %zu length %zu", off, len);
	}
}

Test(checksum, blocks_with_a_short_last_one)
{
	static unsigned char b[2 * CHECKSUM_BLOCK + 100];
	uint32_t sums[4] = {1, 1, 1, 0x5a5a5a5a};

	fill(b, sizeof(b), 2);
	checksum_blocks(b, sizeof(b), sums);
	cr_assert_eq(sums[0], crc_by_bits(b, CHECKSUM_BLOCK));
	cr_assert_eq(sums[1], crc_by_bits(b + CHECKSUM_BLOCK, CHECKSUM_BLOCK));
	cr_assert_eq(sums[2], crc_by_bits(b + 2 * CHECKSUM_BLOCK, 100));
	cr_assert_eq(sums[3], 0x5a5a5a5a, "wrote past the last sum");
	cr_assert_eq(checksum_verify(b, sizeof(b), sums), -1);
	cr_assert_eq(checksum_verify(b, 2 * CHECKSUM_BLOCK, sums), -1);
}

Test(checksum, finds_the_first_bad_block)
{
	static unsigned char b[3 * CHECKSUM_BLOCK + 1];
	uint32_t sums[4];

	fill(b, sizeof(b), 3);
	checksum_blocks(b, sizeof(b), sums);
	for (size_t at = 0; at < sizeof(b); at += 511) {
		b[at] ^= 0x10;
		cr_assert_eq(checksum_verify(b, sizeof(b), sums), (long)(at / CHECKSUM_BLOCK));
		b[at] ^= 0x10;
	}
	b[sizeof(b) - 1] ^= 1;
	cr_assert_eq(checksum_verify(b, sizeof(b), sums), 3);
	b[CHECKSUM_BLOCK] ^= 1;
	cr_assert_eq(checksum_verify(b, sizeof(b), sums), 1);
}

Test(checksum, nothing_has_no_blocks)
{
	uint32_t sum = 7;

	checksum_blocks("", 0, &sum);
	cr_assert_eq(sum, 7);
	cr_assert_eq(checksum_verify("", 0, &sum), -1);
}
