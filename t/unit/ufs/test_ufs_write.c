/* SPDX-License-Identifier: BSD-2-Clause */
/* The door of writing: what is refused before any storage sees it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "ufs_fix.h"

static struct ufs_fix f;

static void up(void)
{
	ufs_fix_limit();
	ufs_fix_init(&f, NULL);
	cr_assert_eq(ufs_tree_new(&f.ufs, &f.env, NULL, 0), 0);
}

static void down(void)
{
	ufs_fix_fini(&f);
}

TestSuite(ufs_write, .init = up, .fini = down);

#define RUN(kind, ...)                                                                             \
	({                                                                                         \
		struct ufs_##kind rq_ = { .req = { .user = &f }, __VA_ARGS__ };                    \
		ufs_##kind(f.ufs, &rq_, ufs_fix_done);                                             \
		ufs_fix_wait(&f);                                                                  \
		f.err;                                                                             \
	})

Test(ufs_write, a_tree_is_not_written_to)
{
	const struct ufs_part_id parts[] = { { .number = 1, .len = 7, .etag = "x" },
		{ .number = 3, .len = 2, .etag = "y" } };
	const char *const paths[] = { "a" };
	struct ufs_set set = { 0 };
	int errs[1];

	cr_assert_eq(ufs_can(f.ufs), 0);
	cr_assert_eq(RUN(put, .path = "a"), -EROFS);
	cr_assert_eq(RUN(multi_begin, .path = "a"), -EROFS);
	cr_assert_eq(RUN(part, .path = "a", .id = "i", .number = 1, .body = "b", .len = 1), -EROFS);
	cr_assert_eq(RUN(multi_end, .path = "a", .id = "i", .parts = parts, .nparts = 2), -EROFS);
	cr_assert_eq(RUN(multi_abort, .path = "a", .id = "i"), -EROFS);
	cr_assert_eq(RUN(multi_sweep, .path = "a"), -EROFS);
	cr_assert_eq(RUN(copy, .src = "a", .src_version = "v", .dst = "b"), -EROFS);
	cr_assert_eq(RUN(delete, .paths = paths, .n = 1, .errs = errs), -EROFS);
	cr_assert_eq(RUN(mkdir, .path = "a"), -EROFS);
	cr_assert_eq(RUN(rmdir, .path = "a"), -EROFS);
	cr_assert_eq(RUN(rename, .src = "a", .dst = "b"), -EROFS);
	cr_assert_eq(RUN(setattr, .path = "a", .set = &set), -EROFS);
}

Test(ufs_write, paths)
{
	static const char *const bad[] = { "", "/", "a/", "/a", "a//b", ".", "a/../b" };
	struct ufs_set set = { 0 };
	char longname[300];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_assert_eq(RUN(put, .path = bad[i]), -EINVAL, "%s", bad[i]);
		cr_assert_eq(RUN(mkdir, .path = bad[i]), -EINVAL, "%s", bad[i]);
		cr_assert_eq(RUN(rmdir, .path = bad[i]), -EINVAL, "%s", bad[i]);
		cr_assert_eq(RUN(multi_begin, .path = bad[i]), -EINVAL, "%s", bad[i]);
		cr_assert_eq(RUN(copy, .src = bad[i], .src_version = "v", .dst = "b"), -EINVAL);
		cr_assert_eq(RUN(copy, .src = "a", .src_version = "v", .dst = bad[i]), -EINVAL);
		cr_assert_eq(RUN(rename, .src = "a", .dst = bad[i]), -EINVAL);
		cr_assert_eq(
		    RUN(setattr, .path = bad[i], .set = &set), i == 0 ? -EROFS : -EINVAL);
	}
	memset(longname, 'n', sizeof(longname));
	longname[256] = '\0';
	cr_assert_eq(RUN(put, .path = longname), -ENAMETOOLONG);
	longname[255] = '\0';
	cr_assert_eq(RUN(put, .path = longname), -EROFS);
}

Test(ufs_write, each_path_of_a_batch_for_itself)
{
	const char *const paths[] = { "", "a//b" };
	int errs[2] = { 1, 1 };

	cr_assert_eq(RUN(delete, .paths = paths, .n = 2, .errs = errs), -EROFS);
	cr_assert_eq(errs[0], -EINVAL);
	cr_assert_eq(errs[1], -EINVAL);
	cr_assert_eq(RUN(delete, .paths = paths, .n = UFS_DELETE_MAX + 1, .errs = errs), -EINVAL);
}

Test(ufs_write, conditions_and_parts)
{
	struct ufs_part_id parts[] = { { .number = 1, .len = 7, .etag = "x" },
		{ .number = 2, .len = 2, .etag = "y" } };
	char long_version[UFS_VERSION_MAX + 1], long_id[UFS_UPLOAD_MAX + 1];

	memset(long_version, 'v', sizeof(long_version) - 1);
	long_version[sizeof(long_version) - 1] = '\0';
	memset(long_id, 'i', sizeof(long_id) - 1);
	long_id[sizeof(long_id) - 1] = '\0';
	cr_assert_eq(RUN(put, .path = "a", .absent = true, .if_version = "v"), -EINVAL);
	cr_assert_eq(RUN(put, .path = "a", .if_version = ""), -EINVAL);
	cr_assert_eq(RUN(put, .path = "a", .if_version = long_version), -EINVAL);
	cr_assert_eq(RUN(copy, .src = "a", .dst = "b"), -EINVAL);
	cr_assert_eq(RUN(copy, .src = "a", .src_version = "v", .dst = "a"), -EINVAL);
	cr_assert_eq(RUN(multi_abort, .path = "a", .id = ""), -EINVAL);
	cr_assert_eq(RUN(multi_abort, .path = "a", .id = long_id), -EINVAL);

	cr_assert_eq(RUN(part, .path = "a", .id = "i", .number = 0), -EINVAL);
	cr_assert_eq(RUN(part, .path = "a", .id = "i", .number = UFS_PARTS_MAX + 1), -EINVAL);
	cr_assert_eq(RUN(part, .path = "a", .id = "i", .number = 1, .len = 1), -EINVAL);
	cr_assert_eq(RUN(part, .path = "a", .id = "i", .number = 1, .off = UINT64_MAX), -EINVAL);
	cr_assert_eq(RUN(part, .path = "a", .id = "i", .number = 1, .src_path = "a"), -EINVAL);
	cr_assert_eq(RUN(part, .path = "a", .id = "i", .number = 1, .src_path = "a", .len = 1),
	    -EINVAL);
	cr_assert_eq(RUN(part, .path = "a", .id = "i", .number = 1, .src_path = "a", .len = 1,
			 .src_version = "v"),
	    -EROFS);

	cr_assert_eq(RUN(multi_end, .path = "a", .id = "i", .parts = parts), -EINVAL);
	parts[1].number = 1;
	cr_assert_eq(RUN(multi_end, .path = "a", .id = "i", .parts = parts, .nparts = 2), -EINVAL);
	parts[1].number = 2;
	parts[1].etag[0] = '\0';
	cr_assert_eq(RUN(multi_end, .path = "a", .id = "i", .parts = parts, .nparts = 2), -EINVAL);
	cr_assert_eq(RUN(multi_end, .path = "a", .id = "i", .parts = parts, .nparts = 1), -EROFS);
}
