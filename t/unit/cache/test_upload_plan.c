/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>

#include "cache/upload_priv.h"

TestSuite(upload_plan);

static const uint64_t units[] = { 5 * MIB, 5 * MIB + 4096, 8 * MIB, 64 * MIB, 1 * GIB };

Test(upload_plan, parts_cover_the_largest_object_without_gaps)
{
	for (unsigned i = 0; i < ARRAY_LEN(units); i++) {
		uint64_t at = 0, last = 0;

		for (unsigned n = 1; n <= UFS_PARTS_MAX; n++) {
			uint64_t off, len;

			upload_part_range(units[i], n, &off, &len);
			cr_assert_eq(off, at, "part %u", n);
			cr_assert(len >= UFS_PART_MIN && len <= UFS_PART_MAX && len >= last);
			cr_assert(len % 4096 == 0);
			at += len;
			last = len;
		}
		cr_assert(at >= UINT64_C(5) << 40);
	}
}

Test(upload_plan, the_part_of_a_byte)
{
	for (unsigned i = 0; i < ARRAY_LEN(units); i++) {
		uint64_t off, len;

		for (unsigned n = 1; n <= UFS_PARTS_MAX; n++) {
			upload_part_range(units[i], n, &off, &len);
			cr_assert_eq(plan_part_at(units[i], off), n);
			cr_assert_eq(plan_part_at(units[i], off + len - 1), n);
		}
		cr_assert(plan_part_at(units[i], off + len) > UFS_PARTS_MAX);
		cr_assert(plan_part_at(units[i], UINT64_MAX) > UFS_PARTS_MAX);
	}
}

Test(upload_plan, parts_of_files_that_are_common_are_small)
{
	uint64_t off, len;

	upload_part_range(8 * MIB, 2000, &off, &len);
	cr_assert_eq(len, 8 * MIB);
	upload_part_range(8 * MIB, 5000, &off, &len);
	cr_assert_eq(len, 64 * MIB); /* the share of the default memory.limit */
	cr_assert(off > 170 * GIB);
}

Test(upload_plan, the_last_part_ends_with_the_file)
{
	uint64_t off;

	cr_assert_eq(plan_part_len(8 * MIB, 1, 20 * MIB, &off), 8 * MIB);
	cr_assert_eq(plan_part_len(8 * MIB, 3, 20 * MIB, &off), 4 * MIB);
	cr_assert_eq(off, 16 * MIB);
	cr_assert_eq(plan_part_len(8 * MIB, 4, 20 * MIB, &off), 0);
	cr_assert_eq(plan_part_len(8 * MIB, 3, 16 * MIB, &off), 0);
}
