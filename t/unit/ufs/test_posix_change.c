/* SPDX-License-Identifier: BSD-2-Clause */
/* file://: names and attributes. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "posix_fix.h"
#include "ufs/posix_temp.h"

TestSuite(posix_change, .init = pw_up, .fini = pw_down);

Test(posix_change, delete_many)
{
	static char names[200][32];
	const char *paths[200];
	int errs[200];

	for (unsigned i = 0; i < 200; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "f%u", i);
		paths[i] = names[i];
		if (i % 3 != 0)
			cr_assert_eq(pw_put(names[i], "x", NULL), 0);
	}
	pw_sh("mkdir f0 && ln -s f1 f3 && printf y > x", "");
	strcpy(names[6], "f1/below");
	strcpy(names[9], "a//b");
	strcpy(names[12], "x");
	pw_delete(paths, 200, errs);
	for (unsigned i = 0; i < 200; i++)
		cr_assert_eq(errs[i], i == 0 ? -EISDIR : i == 9 ? -EINVAL : 0, "%u", i);
	pw_sh("test $(ls | wc -l) = 2 && test -d f0 && test -L f3", "");
}

Test(posix_change, directories)
{
	struct ufs_set set = { .what = UFS_SET_MODE, .mode = 0711 };
	char id[UFS_UPLOAD_MAX];
	struct ufs_attr a;

	(void)umask(077);
	cr_assert_eq(pw_mkdir_as("d", NULL, &a), 0);
	cr_assert(a.kind == UFS_DIR && a.mode == 0755);
	pw_same_as_stat("d", &a);
	cr_assert_eq(pw_mkdir_as("d", NULL, &a), -EEXIST);
	cr_assert_eq(pw_mkdir_as("d/e", &set, &a), 0);
	cr_assert_eq(a.mode, 0711);
	cr_assert_eq(pw_mkdir_as("x/e", NULL, &a), -ENOENT);
	cr_assert_eq(pw_rmdir_of("d"), -ENOTEMPTY);
	cr_assert_eq(pw_rmdir_of("x"), -ENOENT);
	pw_sh("touch f && ln -s d l && chmod g+s d", "");
	cr_assert_eq(pw_rmdir_of("f"), -ENOTDIR);
	cr_assert_eq(pw_rmdir_of("l"), -ENOTDIR);
	cr_assert_eq(pw_mkdir_as("f/e", NULL, &a), -ENOTDIR);
	cr_assert_eq(pw_mkdir_as("d/g", NULL, &a), 0);
	cr_assert_eq(a.mode, 02755, "%o", a.mode);
	cr_assert_eq(pw_rmdir_of("d/g"), 0);
	/* What nobody sees does not hold a directory, unless it is not ours. */
	cr_assert_eq(pw_begin("d/e/f", id), 0);
	pw_sh("ln -s x d/e/l", "");
	cr_assert_eq(pw_rmdir_of("d/e"), -ENOTEMPTY);
	cr_assert_eq(pw_temps("d/e"), 1);
	pw_sh("rm d/e/l", "");
	cr_assert_eq(pw_rmdir_of("d/e"), 0);
	cr_assert_eq(pw_rmdir_of("d"), 0);
}

Test(posix_change, rename_as_rename)
{
	char id[UFS_UPLOAD_MAX];
	struct ufs_attr a;

	pw_sh("printf 1 > a && printf 2 > b && mkdir -p d/e full/x empty && ln -s a l", "");
	cr_assert_eq(pw_rename_to("a", "b", true, &a), -EEXIST);
	cr_assert_eq(pw_rename_to("a", "c", true, &a), 0);
	pw_same_as_stat("c", &a);
	cr_assert_eq(pw_rename_to("c", "b", false, &a), 0);
	pw_holds("b", "1", 1);
	cr_assert_eq(pw_rename_to("none", "b", false, &a), -ENOENT);
	cr_assert_eq(pw_rename_to("b", "none/b", false, &a), -ENOENT);
	cr_assert_eq(pw_rename_to("b", "d", false, &a), -EISDIR);
	cr_assert_eq(pw_rename_to("d", "b", false, &a), -ENOTDIR);
	cr_assert_eq(pw_rename_to("d", "full", false, &a), -ENOTEMPTY);
	cr_assert_eq(pw_rename_to("d", "d/e/f", false, &a), -EINVAL);
	cr_assert_eq(pw_rename_to("d", "d/e/f", true, &a), -EINVAL);
	cr_assert_eq(pw_begin("empty/f", id), 0);
	cr_assert_eq(pw_rename_to("d", "empty", false, &a), 0);
	cr_assert_eq(a.kind, UFS_DIR);
	pw_sh("test -d empty/e", "");
	cr_assert_eq(pw_rename_to("l", "m", false, &a), -ENOENT);
	cr_assert_eq(pw_rename_to("b", "l", false, &a), -EEXIST);
	pw_sh("test -L l && test ! -e d", "");
}

Test(posix_change, attributes)
{
	struct ufs_set set = { .what = UFS_SET_MODE | UFS_SET_MTIME,
		.mode = 04711,
		.mtime = { 99, 100 } };
	struct ufs_attr a, b;
	struct stat st;

	pw_sh("printf 1 > a && mkdir d && ln -s a l", "");
	cr_assert_eq(ufs_fix_stat(&pw, "a", &b), 0);
	cr_assert_eq(pw_setattr("a", &set, &a), 0);
	pw_same_as_stat("a", &a);
	cr_assert(a.mode == 04711 && a.mtime.tv_sec == 99 && a.mtime.tv_nsec == 100);
	cr_assert_str_neq(a.version, b.version);
	cr_assert_eq(pw_setattr("d", &set, &a), 0);
	cr_assert_eq(a.mode, 04711);
	cr_assert_eq(pw_setattr("", &(struct ufs_set){ .what = UFS_SET_MODE, .mode = 0750 }, &a), 0);
	cr_assert_eq(stat(pw_root, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0750);
	cr_assert_eq(pw_setattr("l", &set, &a), -ENOENT);
	cr_assert_eq(pw_setattr("none", &set, &a), -ENOENT);
	if (geteuid() != 0)
		return;
	set = (struct ufs_set){ .what = UFS_SET_UID, .uid = 5 };
	cr_assert_eq(pw_setattr("a", &set, &a), 0);
	cr_assert(a.uid == 5 && a.gid == 0 && a.mode == 0711, "as chown(2): set-id bits go");
	set = (struct ufs_set){
		.what = UFS_SET_GID | UFS_SET_MODE | UFS_SET_ATIME, .gid = 6, .mode = 06755
	};
	cr_assert_eq(pw_setattr("a", &set, &a), 0);
	cr_assert(a.uid == 5 && a.gid == 6 && a.mode == 06755);
}
