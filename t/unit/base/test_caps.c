/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>

#include "base/caps.h"

#define BIT(cap) (UINT64_C(1) << (cap))

static uint64_t of_kernel(const char *field)
{
	unsigned long long v = 0;
	char line[128];
	FILE *f = fopen("/proc/thread-self/status", "re");

	cr_assert_not_null(f);
	while (fgets(line, sizeof(line), f) != NULL)
		if (strncmp(line, field, strlen(field)) == 0)
			sscanf(line + strlen(field), ": %llx", &v);
	fclose(f);
	return v;
}

Test(caps, what_is_not_kept_is_gone)
{
	uint64_t had = caps_effective(), keep = BIT(CAP_SYS_ADMIN) | BIT(CAP_CHOWN) | BIT(CAP_BPF);

	cr_assert_eq(had, of_kernel("CapEff"));
	cr_assert_eq(caps_keep(~UINT64_C(0)), 0);
	cr_assert_eq(caps_effective(), had);
	cr_assert_eq(caps_keep(keep), 0);
	cr_assert_eq(caps_effective(), had & keep);
	cr_assert_eq(of_kernel("CapEff"), had & keep);
	cr_assert_eq(of_kernel("CapPrm") & ~keep, 0);
	cr_assert_eq(caps_keep(0), 0);
	cr_assert_eq(of_kernel("CapPrm"), 0);
}

Test(caps, names)
{
	uint64_t set = BIT(CAP_CHOWN) | BIT(CAP_SYS_ADMIN) | BIT(CAP_CHECKPOINT_RESTORE) | BIT(63);
	char buf[32];

	cr_assert_str_eq(caps_next(&set, buf, sizeof(buf)), "CAP_CHOWN");
	cr_assert_str_eq(caps_next(&set, buf, sizeof(buf)), "CAP_SYS_ADMIN");
	cr_assert_str_eq(caps_next(&set, buf, sizeof(buf)), "CAP_CHECKPOINT_RESTORE");
	cr_assert_str_eq(caps_next(&set, buf, sizeof(buf)), "CAP_63");
	cr_assert_null(caps_next(&set, buf, sizeof(buf)));
}
