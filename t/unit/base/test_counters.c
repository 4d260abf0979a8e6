/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/counters.h"

#include <string.h>

#include <criterion/criterion.h>

TestSuite(counters);

Test(counters, every_row_is_complete)
{
	for (int i = 0; i < CTR_MAX; i++) {
		const struct counter_desc *c = &counter_table[i];

		cr_assert_not_null(c->name, "row %d", i);
		cr_assert_gt(strlen(c->name), 0);
		cr_assert_eq(strspn(c->name, "abcdefghijklmnopqrstuvwxyz."), strlen(c->name),
		    "%s is not lower-case words with dots", c->name);
		cr_assert_not_null(c->help);
		cr_assert_gt(strlen(c->help), 0, "%s has no help", c->name);
		cr_assert(c->kind == CTR_KIND_COUNTER || c->kind == CTR_KIND_GAUGE);
	}
}

Test(counters, names_are_unique)
{
	for (int i = 0; i < CTR_MAX; i++) {
		for (int j = 0; j < i; j++)
			cr_assert_str_neq(counter_table[i].name, counter_table[j].name);
	}
}

Test(counters, rows_stand_at_their_ids)
{
	cr_assert_str_eq(counter_table[CTR_FUSE_REQUESTS].name, "fuse.requests");
	cr_assert_eq(counter_table[CTR_FUSE_REQUESTS].kind, CTR_KIND_COUNTER);
	cr_assert_str_eq(counter_table[CTR_OPEN_FILES].name, "open.files");
	cr_assert_eq(counter_table[CTR_OPEN_FILES].kind, CTR_KIND_GAUGE);
}
