/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/hash.h"

#include <criterion/criterion.h>

TestSuite(hash);

/* Files in caches are found by these numbers: they must never change. */
Test(hash, published_vectors)
{
	cr_assert_eq(hash64("", 0, 0), UINT64_C(0xef46db3751d8e999));
	cr_assert_eq(hash64(NULL, 0, 0), UINT64_C(0xef46db3751d8e999));
	cr_assert_eq(hash64("", 0, 2654435761u), UINT64_C(0xac75fda2929b17ef));
	cr_assert_eq(hash64("a", 1, 0), UINT64_C(0xd24ec4f1a98c6e5b));
	cr_assert_eq(hash64("abc", 3, 0), UINT64_C(0x44bc2cf5ad770999));
}

Test(hash, depends_on_every_byte_the_length_and_the_seed)
{
	unsigned char b[100] = {0};
	uint64_t h = hash64(b, sizeof(b), 0);

	for (size_t i = 0; i < sizeof(b); i++) {
		b[i] = 1;
		cr_assert_neq(hash64(b, sizeof(b), 0), h, "byte %zu", i);
		b[i] = 0;
	}
	cr_assert_neq(hash64(b, sizeof(b) - 1, 0), h);
	cr_assert_neq(hash64(b, sizeof(b), 1), h);
	cr_assert_eq(hash64(b, sizeof(b), 0), h);
}

Test(hash, does_not_depend_on_alignment)
{
	char b[80];
	uint64_t h = 0;

	for (size_t off = 0; off < 8; off++) {
		for (size_t i = 0; i < 70; i++)
			b[off + i] = (char)i;
		if (off == 0)
			h = hash64(b, 70, 9);
		cr_assert_eq(hash64(b + off, 70, 9), h);
	}
}
