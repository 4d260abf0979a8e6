/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/cgroup.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "base/units.h"

static char root[] = "/tmp/test_cgroup.XXXXXX";

static void setup(void)
{
	cr_assert_not_null(mkdtemp(root));
}

static void teardown(void)
{
	char cmd[64];

	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", root);
	cr_assert_eq(system(cmd), 0);
}

TestSuite(cgroup, .init = setup, .fini = teardown);

/* A file below the root, with the folders above it. */
static void put(const char *name, const char *text)
{
	char path[PATH_MAX];
	FILE *f;

	snprintf(path, sizeof(path), "%s%s", root, name);
	for (char *p = path + strlen(root) + 1; (p = strchr(p, '/')) != NULL; p++) {
		*p = '\0';
		mkdir(path, 0700);
		*p = '/';
	}
	f = fopen(path, "w");
	cr_assert_not_null(f, "%s", path);
	fputs(text, f);
	fclose(f);
}

Test(cgroup, nothing_to_read_is_no_limit)
{
	cr_assert_eq(cgroup_memory_limit(root), CGROUP_UNLIMITED);
	put("/proc/self/cgroup", "0::/a/b\n");
	cr_assert_eq(cgroup_memory_limit(root), CGROUP_UNLIMITED);
}

Test(cgroup, version_2_own_limit)
{
	put("/proc/self/cgroup", "0::/a/b\n");
	put("/sys/fs/cgroup/a/b/memory.max", "67108864\n");
	put("/sys/fs/cgroup/a/memory.max", "max\n");
	cr_assert_eq(cgroup_memory_limit(root), 64 * MIB);
}

Test(cgroup, version_2_a_parent_is_tighter)
{
	put("/proc/self/cgroup", "0::/a/b\n");
	put("/sys/fs/cgroup/a/b/memory.max", "67108864\n");
	put("/sys/fs/cgroup/a/memory.max", "33554432\n");
	cr_assert_eq(cgroup_memory_limit(root), 32 * MIB);
}

Test(cgroup, version_2_max_is_no_limit)
{
	put("/proc/self/cgroup", "0::/a\n");
	put("/sys/fs/cgroup/a/memory.max", "max\n");
	cr_assert_eq(cgroup_memory_limit(root), CGROUP_UNLIMITED);
}

Test(cgroup, version_2_in_a_namespace)
{
	put("/proc/self/cgroup", "0::/\n");
	put("/sys/fs/cgroup/memory.max", "16777216\n");
	cr_assert_eq(cgroup_memory_limit(root), 16 * MIB);
}

Test(cgroup, version_1_own_limit)
{
	put("/proc/self/cgroup", "9:cpu,cpuacct:/x\n4:hugetlb,memory:/a/b\n0::/\n");
	put("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "134217728\n");
	put("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "1\n");
	cr_assert_eq(cgroup_memory_limit(root), 128 * MIB);
}

/* A container that sees the host's path, while its own cgroup is mounted as the top. */
Test(cgroup, version_1_foreign_path)
{
	put("/proc/self/cgroup", "4:memory:/docker/0123\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n");
	cr_assert_eq(cgroup_memory_limit(root), 64 * MIB);
}

Test(cgroup, version_1_unlimited_number)
{
	put("/proc/self/cgroup", "4:memory:/\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	cr_assert_eq(cgroup_memory_limit(root), CGROUP_UNLIMITED);
}

Test(cgroup, hybrid_takes_the_tighter)
{
	put("/proc/self/cgroup", "4:memory:/a\n0::/b\n");
	put("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "134217728\n");
	put("/sys/fs/cgroup/unified/b/memory.max", "67108864\n");
	cr_assert_eq(cgroup_memory_limit(root), 64 * MIB);
}

Test(cgroup, nonsense_is_no_limit)
{
	put("/proc/self/cgroup", "\n:\nx\n4:memory\n5:memoryx,xmemory:/a\n0::/a:b\n");
	put("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1\n");
	put("/sys/fs/cgroup/a:b/memory.max", "-5\n");
	put("/sys/fs/cgroup/memory.max", "");
	cr_assert_eq(cgroup_memory_limit(root), CGROUP_UNLIMITED);
}

Test(cgroup, the_machine_can_be_asked)
{
	cr_assert_gt(cgroup_memory_limit(""), 0);
}
