/* SPDX-License-Identifier: BSD-2-Clause */
/* Renames of directories on storage that cannot rename. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "move_rig.h"
#include "ops/node.h"
#include "ops/session.h"

TestSuite(rename_dir, .fini = mvr_finish);

/* --- It works */

Test(rename_dir, everything_moves)
{
	mvr_begin();
	cr_assert_eq(mvr_mv("p/src", "dst"), 0);
	cr_assert(mvr_whole("dst") && mvr_gone("p/src"));
	cr_assert(mvr_there("p"), "the directory that it left");
	cr_assert_eq(mvr_did(FAKE_COPY), MVR_TREE);
	cr_assert_eq(mvr_did(FAKE_DELETE), 1, "in one batch");
	cr_assert_eq(mvr_run(rig_stat, "p/src"), ENOENT);
	cr_assert_eq(mvr_run(rig_stat, "dst/s/t/i"), 0);
	mvr_check_clean();
}

Test(rename_dir, onto_an_empty_one)
{
	mvr_begin();
	cr_assert_eq(mvr_mv("p/src", "e"), 0);
	cr_assert(mvr_whole("e") && mvr_gone("p/src"));
	mvr_check_clean();
}

Test(rename_dir, page_by_page_one_at_a_time)
{
	mvr_begin();
	mvr_set_parallel("1");
	mvr.ufs.page = 1;
	cr_assert_eq(mvr_mv("p/src", "dst"), 0);
	cr_assert(mvr_whole("dst") && mvr_gone("p/src"));
	mvr_check_clean();
}

Test(rename_dir, many_files)
{
	char path[64];

	mvr_begin();
	fake_add(&mvr.ufs, "m", UFS_DIR, 0, "");
	for (int i = 0; i < 200; i++) {
		snprintf(path, sizeof(path), "m/file%03d", i);
		fake_add(&mvr.ufs, path, UFS_FILE, 3, "m1");
	}
	mvr.ufs.page = 7;
	cr_assert_eq(mvr_mv("m", "n"), 0);
	cr_assert(mvr_gone("m"));
	for (int i = 0; i < 200; i++) {
		snprintf(path, sizeof(path), "n/file%03d", i);
		cr_assert(mvr_there(path));
	}
	cr_assert_eq(mvr_did(FAKE_COPY), 200);
	mvr_check_clean();
}

static int c_open_below(const struct tmp_mount *tm, void *arg)
{
	struct stat before, after, dir, dir2;
	char from[256], buf[16];
	int fd;

	(void)arg;
	if (stat(rig_at(tm, "p/src"), &dir) != 0)
		return errno;
	fd = open(rig_at(tm, "p/src/s/h"), O_RDONLY);
	snprintf(from, sizeof(from), "%s", rig_at(tm, "p/src"));
	if (fd < 0 || fstat(fd, &before) != 0 || rename(from, rig_at(tm, "dst")) != 0)
		return errno;
	if (pread(fd, buf, 16, 0) != 7 || memcmp(buf, "vvvvvvv", 7) != 0)
		return WRONG;
	if (stat(rig_at(tm, "dst/s/h"), &after) != 0 || stat(rig_at(tm, "dst"), &dir2) != 0)
		return errno;
	if (before.st_ino != after.st_ino || dir.st_ino != dir2.st_ino)
		return WRONG + 1;
	return before.st_mtim.tv_sec == after.st_mtim.tv_sec ? 0 : WRONG + 2;
}

Test(rename_dir, who_has_a_file_below_open_goes_on)
{
	mvr_begin();
	cr_assert_eq(mvr_run(c_open_below, NULL), 0);
	cr_assert(mvr_whole("dst"));
	mvr_check_clean();
}

static int c_writes_below(const struct tmp_mount *tm, void *arg)
{
	char from[256], buf[16];
	int fd = open(rig_at(tm, "p/src/f"), O_RDWR);
	int nf = open(rig_at(tm, "p/src/new"), O_RDWR | O_CREAT, 0644);

	(void)arg;
	snprintf(from, sizeof(from), "%s", rig_at(tm, "p/src"));
	if (fd < 0 || nf < 0 || pwrite(fd, "X", 1, 1) != 1 || pwrite(nf, "new", 3, 0) != 3 ||
	    rename(from, rig_at(tm, "dst")) != 0)
		return errno;
	if (pwrite(fd, "Y", 1, 2) != 1 || pread(fd, buf, 16, 0) != 5 ||
	    memcmp(buf, "vXYvv", 5) != 0)
		return WRONG;
	if (pread(nf, buf, 16, 0) != 3 || memcmp(buf, "new", 3) != 0)
		return WRONG + 1;
	return close(fd) == 0 && close(nf) == 0 ? 0 : errno;
}

Test(rename_dir, who_writes_below_goes_on)
{
	char buf[5];

	mvr_begin();
	cr_assert_eq(mvr_run(c_writes_below, NULL), 0);
	mvr_check_clean();
	cr_assert(mvr_gone("p/src"));
	cr_assert_eq(fake_store_bytes(&mvr.ufs.store, "dst/f",
			 fake_find(&mvr.ufs, "dst/f")->version, 0, buf, 5),
	    0);
	cr_assert_arr_eq(buf, "vXYvv", 5);
	cr_assert_eq(fake_find(&mvr.ufs, "dst/new")->size, 3);
}

static int c_attributes(const struct tmp_mount *tm, void *arg)
{
	struct timespec t[2] = {{.tv_sec = 777}, {.tv_sec = 12345}};
	char from[256];

	(void)arg;
	if (utimensat(AT_FDCWD, rig_at(tm, "p/src/g"), t, 0) != 0 ||
	    chmod(rig_at(tm, "p/src/s"), 0711) != 0 || chmod(rig_at(tm, "p/src"), 0701) != 0)
		return errno;
	snprintf(from, sizeof(from), "%s", rig_at(tm, "p/src"));
	return rename(from, rig_at(tm, "dst")) == 0 ? 0 : errno;
}

Test(rename_dir, attributes_move)
{
	struct meta_record rec;
	time_t was;

	mvr_begin();
	was = fake_find(&mvr.ufs, "p/src/z")->mtime.tv_sec;
	cr_assert_eq(mvr_run(c_attributes, NULL), 0);
	cr_assert(mvr_record_of("dst", &rec) == 0 && rec.mode == 0701);
	cr_assert(mvr_record_of("dst/s", &rec) == 0 && rec.mode == 0711);
	cr_assert(mvr_record_of("dst/g", &rec) == 0 && rec.mtime.tv_sec == 12345);
	cr_assert_str_eq(rec.version, fake_find(&mvr.ufs, "dst/g")->version);
	cr_assert(mvr_record_of("dst/z", &rec) == 0 && rec.mtime.tv_sec == was);
	cr_assert_eq(mvr_record_of("p/src", &rec), -ENOENT);
	cr_assert_eq(mvr_record_of("p/src/g", &rec), -ENOENT);
	mvr_check_clean();
}

/* --- Others */

/* A file that another client makes in the old directory after it was listed. */
Test(rename_dir, a_late_file_is_not_lost)
{
	struct mvr_names n = {"p/src", "dst"};
	pid_t pid;

	mvr_begin();
	mvr.ufs.stall = true;
	pid = rig_start(&mvr, mvr_c_rename, &n);
	while (mvr_did(FAKE_DELETE) == 0 && !mvr_there("p/src/late")) {
		rig_until_waiting(&mvr, 1);
		fake_release_one(&mvr.ufs);
		while (fake_waiting(&mvr.ufs) == 0 && loop_turn(mvr.loop, false))
			;
		if (mvr_did(FAKE_COPY) == MVR_TREE)
			fake_add(&mvr.ufs, "p/src/late", UFS_FILE, 4, "l1");
	}
	fake_release(&mvr.ufs);
	cr_assert_eq(rig_wait(&mvr, pid), 0);
	cr_assert(mvr_whole("dst") && mvr_there("dst/late") && mvr_gone("p/src"));
	mvr_check_clean();
}

Test(rename_dir, a_file_that_vanishes_is_no_failure)
{
	struct mvr_names n = {"p/src", "dst"};
	pid_t pid;

	mvr_begin();
	mvr_set_parallel("1");
	mvr.ufs.stall = true;
	pid = rig_start(&mvr, mvr_c_rename, &n);
	while (mvr_did(FAKE_COPY) == 0) {
		rig_until_waiting(&mvr, 1);
		fake_release_one(&mvr.ufs);
		while (fake_waiting(&mvr.ufs) == 0 && loop_turn(mvr.loop, false))
			;
	}
	fake_store_remove(&mvr.ufs.store, fake_find(&mvr.ufs, "p/src/z"));
	fake_release(&mvr.ufs);
	cr_assert_eq(rig_wait(&mvr, pid), 0);
	cr_assert(mvr_there("dst/f") && !mvr_there("dst/z") && mvr_gone("p/src"));
	mvr_check_clean();
}

/* --- Failures while it copies: as before */

Test(rename_dir, a_failing_copy_is_undone)
{
	mvr_begin();
	for (unsigned nth = 1; nth <= MVR_TREE; nth++) {
		fake_store_fail(&mvr.ufs.store, FAKE_COPY, nth, 1, -EACCES, false);
		cr_assert_eq(mvr_mv("p/src", "dst"), EACCES, "copy %u", nth);
		cr_assert(mvr_whole("p/src") && mvr_gone("dst"), "copy %u", nth);
		mvr_check_clean();
		fake_store_fail(&mvr.ufs.store, FAKE_COPY, nth, 1, -EDQUOT, false);
		cr_assert_eq(mvr_mv("p/src", "e"), EDQUOT, "copy %u", nth);
		cr_assert(mvr_whole("p/src") && mvr_there("e") && !fake_store_below(&mvr.ufs.store, "e"),
		    "copy %u", nth);
		mvr_check_clean();
	}
	for (unsigned nth = 1; nth <= 4; nth++) {
		fake_store_fail(&mvr.ufs.store, FAKE_MKDIR, nth, 1, -EACCES, false);
		cr_assert_eq(mvr_mv("p/src", "dst"), EACCES, "mkdir %u", nth);
		cr_assert(mvr_whole("p/src") && mvr_gone("dst"), "mkdir %u", nth);
		mvr_check_clean();
	}
	cr_assert_eq(mvr_run(rig_stat, "p/src/s/t/i"), 0);
	cr_assert_eq(mvr_mv("p/src", "dst"), 0);
	cr_assert(mvr_whole("dst") && mvr_gone("p/src"));
	mvr_check_clean();
}

/* Failures from the switch on: told as done, and gone on with. */
Test(rename_dir, a_failing_delete_is_gone_on_with)
{
	mvr_begin();
	fake_store_fail(&mvr.ufs.store, FAKE_DELETE, 1, 1, -EACCES, false);
	cr_assert_eq(mvr_mv("p/src", "dst"), 0);
	cr_assert(mvr_whole("dst"));
	cr_assert_eq(mvr_run(rig_stat, "dst/s"), 0);
	mvr_check_clean();
	cr_assert(mvr_gone("p/src"));
	fake_store_fail(&mvr.ufs.store, FAKE_RMDIR, 2, 1, -EACCES, false);
	cr_assert_eq(mvr_mv("dst", "p/src"), 0);
	mvr_check_clean();
	cr_assert(mvr_whole("p/src") && mvr_gone("dst"));
}
