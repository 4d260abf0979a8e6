/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests through a real mount: needs root (or is skipped). */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/units.h"
#include "fs_rig.h"

TestSuite(fs, .fini = fsr_finish);

/* --- Clients: run in a child; 0 or what went wrong. */

static int c_open(const struct tmp_mount *tm, void *arg)
{
	return open(rig_at(tm, arg), O_RDONLY) >= 0 ? 0 : errno;
}

/* --- Names and attributes */

static int c_attrs(const struct tmp_mount *tm, void *arg)
{
	struct statvfs sv;
	struct stat st, dot;

	(void)arg;
	if (stat(rig_at(tm, "d/small"), &st) != 0)
		return errno;
	if (!S_ISREG(st.st_mode) || (st.st_mode & 0777) != 0644 || st.st_size != 5 ||
	    st.st_nlink != 1 || st.st_mtime != 1000 || st.st_uid != geteuid() || st.st_ino <= 1)
		return WRONG;
	if (stat(rig_at(tm, "d"), &st) != 0 || !S_ISDIR(st.st_mode) || (st.st_mode & 0777) != 0755)
		return WRONG + 1;
	if (stat(rig_at(tm, ""), &dot) != 0 || dot.st_ino != 1 || !S_ISDIR(dot.st_mode))
		return WRONG + 2;
	if (stat(rig_at(tm, "d/."), &dot) != 0 || dot.st_ino != st.st_ino)
		return WRONG + 3;
	if (statvfs(tm->mnt, &sv) != 0 || sv.f_blocks * sv.f_frsize != 1 << 30)
		return WRONG + 4;
	return 0;
}

Test(fs, attributes)
{
	fsr_begin(FSR_NO_CACHE);
	cr_assert_eq(rig_run(&fsr, c_attrs, NULL), 0);
}

Test(fs, fresh_rows_do_not_ask_storage)
{
	unsigned stats;

	fsr_begin(FSR_LONG);
	cr_assert_eq(fsr_run_stat("d/small"), 0);
	stats = fsr.ufs.stats;
	cr_assert_eq(fsr_run_stat("d/small"), 0);
	cr_assert_eq(fsr.ufs.stats, stats);
	/* Nor after a restart: the row is the cache. */
	rig_restart(&fsr);
	cr_assert_eq(fsr_run_stat("d/small"), 0);
	cr_assert_eq(fsr.ufs.stats, stats);
	/* Nor does what the listing brought. */
	fsr_add_many(10);
	cr_assert_eq(rig_run(&fsr, fsr_c_list, &(unsigned){10}), 0);
	stats = fsr.ufs.stats;
	cr_assert_eq(fsr_run_stat("many/f7"), 0);
	cr_assert_eq(fsr.ufs.stats, stats);
	cr_assert_eq(fsr_run_stat("nothing"), ENOENT);
	stats = fsr.ufs.stats;
	cr_assert_eq(fsr_run_stat("nothing"), ENOENT);
	cr_assert_eq(fsr.ufs.stats, stats, "negative_timeout");
}

Test(fs, storage_errors_are_never_enoent)
{
	fsr_begin(FSR_NO_CACHE);
	cr_assert_eq(fsr_run_stat("big"), 0);
	fsr.ufs.err = -EIO;
	cr_assert_eq(fsr_run_stat("big"), EIO);
	cr_assert_eq(fsr_run_stat("nothing"), EIO);
	fsr.ufs.err = -EACCES;
	cr_assert_eq(fsr_run_stat("big"), EACCES);
	fsr.ufs.err = 0;
	cr_assert_eq(fsr_run_stat("big"), 0);
	cr_assert_eq(fsr_run_stat("nothing"), ENOENT);
}

/* open(2) is LOOKUP or GETATTR, then OPEN. */
Test(fs, open_says_that_storage_is_silent)
{
	fsr_begin("attr_timeout=0,entry_timeout=600");
	cr_assert_eq(fsr_run_stat("big"), 0);
	fsr.ufs.err = -ETIMEDOUT;
	cr_assert_eq(rig_run(&fsr, c_open, (void *)"big"), ETIMEDOUT);
	cr_assert_eq(rig_run(&fsr, c_open, (void *)"d/small"), ETIMEDOUT);
	fsr.ufs.err = 0;
	cr_assert_eq(rig_run(&fsr, c_open, (void *)"d/small"), 0);
}

/* --- Reading */

Test(fs, reads_whole_files)
{
	struct fsr_want big = {"big", 5 << 20, 'b'}, small = {"d/small", 5, 's'};

	fsr_begin(FSR_NO_CACHE);
	cr_assert_eq(rig_run(&fsr, fsr_c_read, &big), 0);
	cr_assert_eq(rig_run(&fsr, fsr_c_read, &small), 0);
	cr_assert_eq(loop_counters(fsr.loop)->v[CTR_FUSE_REPLY_ERRORS], 0);
}

/* arg: more flags of open(2).  A read that fails; one that fails no more. */
static int c_read_again(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, "big"), O_RDONLY | *(int *)arg);
	void *buf = mmap(NULL, 1 << 17, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (fd < 0 || buf == MAP_FAILED)
		return WRONG;
	if (pread(fd, buf, 1 << 17, 0) >= 0)
		return WRONG + 1;
	if (errno != EIO)
		return WRONG + 2;
	while (pread(fd, buf, 1 << 17, 0) < 0)
		if (errno != EIO || (*(int *)arg & O_DIRECT) != 0)
			return WRONG + 3;
	return 0;
}

/* A read of `big` that the storage has left without an answer for ufs.timeout; whatever
 * is asked from here on it answers. */
static pid_t read_in_vain(void (*begin)(const char *opts), int *flags)
{
	pid_t pid;

	begin("attr_timeout=600,entry_timeout=600");
	cr_assert_eq(fsr_run_stat("big"), 0);
	fsr.ufs.stall = true;
	pid = rig_start(&fsr, c_read_again, flags);
	rig_until_waiting(&fsr, 1);
	fuse_chan_disarm(fsr.chan);
	test_clock_advance(&fsr.clock, fsr.cfg->ufs_timeout);
	fsr.ufs.err = -ETIMEDOUT;
	fake_release(&fsr.ufs);
	while (fs_running(fsr.fs) > 0)
		loop_turn(fsr.loop, true);
	fsr.ufs.err = 0;
	fuse_chan_arm(fsr.chan);
	return pid;
}

/* The kernel repeats a read into its page cache before it says that it failed. */
Test(fs, a_read_waits_for_the_storage_once)
{
	struct fsr_want big = {"big", 5 << 20, 'b'};
	int flags = 0;
	pid_t pid = read_in_vain(fsr_begin_still, &flags);

	cr_assert_eq(rig_run(&fsr, fsr_c_read, &big), 0, "whoever opens it now is not concerned");
	test_clock_advance(&fsr.clock, NS_PER_S);
	cr_assert_eq(rig_wait(&fsr, pid), 0);
}

/* Its bytes are read through the session, whoever reads them. */
Test(fs, a_read_of_what_is_open_for_writing_waits_once)
{
	struct fsr_want big = {"big", 5 << 20, 'b'};
	int flags = O_RDWR;
	pid_t pid = read_in_vain(fsr_begin_writing_still, &flags);

	cr_assert_not_null(fsr.fs->sessions);
	cr_assert_eq(rig_run(&fsr, fsr_c_read, &big), 0, "whoever opens it now is not concerned");
	test_clock_advance(&fsr.clock, NS_PER_S);
	cr_assert_eq(rig_wait(&fsr, pid), 0);
}

/* An O_DIRECT read the kernel does not repeat: a second one is the application's. */
Test(fs, a_direct_read_is_repeated_by_nobody)
{
	int flags = O_DIRECT;

	cr_assert_eq(rig_wait(&fsr, read_in_vain(fsr_begin_still, &flags)), 0);
}

static int c_denied(const struct tmp_mount *tm, void *arg)
{
	(void)arg;
	if (open(rig_at(tm, "big"), O_WRONLY) >= 0 || errno != EROFS)
		return WRONG;
	if (open(rig_at(tm, "big"), O_RDONLY | O_TRUNC) >= 0 || errno != EROFS)
		return WRONG + 1;
	if (open(rig_at(tm, "new"), O_RDWR | O_CREAT, 0600) >= 0 || errno != EROFS)
		return WRONG + 2;
	if (mkdir(rig_at(tm, "new"), 0700) == 0 || errno != EROFS)
		return WRONG + 3;
	if (unlink(rig_at(tm, "big")) == 0 || errno != EROFS)
		return WRONG + 4;
	if (rmdir(rig_at(tm, "d")) == 0 || errno != EROFS)
		return WRONG + 5;
	if (chmod(rig_at(tm, "big"), 0) == 0 || errno != EROFS)
		return WRONG + 6;
	if (truncate(rig_at(tm, "big"), 0) == 0 || errno != EROFS)
		return WRONG + 7;
	if (symlink("x", rig_at(tm, "new")) == 0 || errno != EROFS)
		return WRONG + 8;
	return 0;
}

Test(fs, changes_are_refused)
{
	fsr_begin(FSR_NO_CACHE);
	cr_assert_eq(rig_run(&fsr, c_denied, NULL), 0);
}

/* --- Another version in storage */

static int c_replaced(const struct tmp_mount *tm, void *arg)
{
	struct fsr_want w = {"big", 6 << 20, 'n'};
	struct stat before, after, old;
	char first[8];
	int fd = open(rig_at(tm, "big"), O_RDONLY), err;

	(void)arg;
	if (fd < 0 || fstat(fd, &before) != 0 || pread(fd, first, 8, 0) != 8 || first[0] != 'b')
		return WRONG;
	fsr_child_pause();
	err = fsr_c_read(tm, &w);
	if (err != 0)
		return err;
	if (stat(rig_at(tm, "big"), &after) != 0)
		return errno;
	if (after.st_size != 6 << 20 || after.st_ino != before.st_ino)
		return WRONG + 1;
	/* The old handle: its own attributes, its own bytes or ESTALE. */
	if (fstat(fd, &old) != 0 || old.st_size != 5 << 20 || old.st_ino != before.st_ino)
		return WRONG + 2;
	if (pread(fd, first, 8, 0) != 8 || first[0] != 'b')
		return WRONG + 3;
	if (pread(fd, first, 8, (5 << 20) - 8) == 8)
		return first[0] == 'b' ? 0 : WRONG + 4;
	return errno == ESTALE ? 0 : WRONG + 5;
}

static void replace_under_handle(const char *opts, bool restart)
{
	struct fake_file *ff;
	pid_t pid;

	fsr_begin(opts);
	fsr_make_pipes();
	pid = rig_start(&fsr, c_replaced, NULL);
	fsr_await_child();
	ff = fake_find(&fsr.ufs, "big");
	ff->size = 6 << 20;
	strcpy(ff->version, "new");
	if (restart)
		rig_restart(&fsr);
	fsr_wake_child();
	cr_assert_eq(rig_wait(&fsr, pid), 0);
}

Test(fs, replaced_file)
{
	replace_under_handle(FSR_NO_CACHE, false);
}

Test(fs, replaced_file_and_restart)
{
	replace_under_handle(FSR_NO_CACHE, true);
}

/* The name is still valid in the kernel: OPEN meets the new version. */
Test(fs, replaced_file_with_a_long_entry_timeout)
{
	replace_under_handle("attr_timeout=0,entry_timeout=600", false);
}

static int c_vanished(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, "d/small"), O_RDONLY);
	struct stat st;

	(void)arg;
	if (fd < 0)
		return errno;
	fsr_child_pause();
	if (open(rig_at(tm, "d/small"), O_RDONLY) >= 0 || errno != ENOENT)
		return WRONG;
	if (stat(rig_at(tm, "d/small"), &st) == 0 || errno != ENOENT)
		return WRONG + 1;
	return fstat(fd, &st) == 0 && st.st_size == 5 ? 0 : WRONG + 2;
}

static void vanish(const char *opts)
{
	pid_t pid;

	fsr_begin(opts);
	fsr_make_pipes();
	pid = rig_start(&fsr, c_vanished, NULL);
	fsr_await_child();
	strcpy(fake_find(&fsr.ufs, "d/small")->path, "elsewhere");
	fsr_wake_child();
	cr_assert_eq(rig_wait(&fsr, pid), 0);
}

Test(fs, vanished_file)
{
	vanish(FSR_NO_CACHE);
}

Test(fs, vanished_file_with_a_long_entry_timeout)
{
	vanish("attr_timeout=0,entry_timeout=600");
}

/* --- Directories */

Test(fs, lists_many_pages)
{
	fsr_begin(FSR_NO_CACHE);
	fsr_add_many(500);
	fsr.ufs.page = 33;
	cr_assert_eq(rig_run(&fsr, fsr_c_list, &(unsigned){500}), 0);
	fsr.ufs.empty_first = true;
	cr_assert_eq(rig_run(&fsr, fsr_c_list, &(unsigned){500}), 0);
	fsr.ufs.err = -EIO;
	cr_assert_eq(rig_run(&fsr, fsr_c_list, &(unsigned){500}), EIO);
}

static int c_seek(const struct tmp_mount *tm, void *arg)
{
	static char name[600][32];
	static long pos[600];
	struct dirent *de;
	unsigned n = 0, i;
	DIR *d = opendir(rig_at(tm, "many"));

	(void)arg;
	if (d == NULL)
		return errno;
	for (;;) {
		pos[n] = telldir(d);
		de = readdir(d);
		if (de == NULL)
			break;
		strcpy(name[n++], de->d_name);
	}
	if (n != 402)
		return WRONG;
	fsr_child_pause();
	for (i = 7; i != 0; i = (i + 89) % n) {
		seekdir(d, pos[i]);
		de = readdir(d);
		if (de == NULL || strcmp(de->d_name, name[i]) != 0)
			return WRONG + 1;
	}
	rewinddir(d);
	for (i = 0; readdir(d) != NULL; i++)
		;
	closedir(d);
	return i == n ? 0 : WRONG + 2;
}

static void seek_test(bool restart)
{
	pid_t pid;

	fsr_begin(FSR_NO_CACHE);
	fsr_add_many(400);
	fsr_make_pipes();
	pid = rig_start(&fsr, c_seek, NULL);
	fsr_await_child();
	if (restart)
		rig_restart(&fsr);
	fsr_wake_child();
	cr_assert_eq(rig_wait(&fsr, pid), 0);
	/* RELEASEDIR follows the last close by itself. */
	while (statedb_count(fsr.db, STATEDB_HANDLES) > 0)
		loop_turn(fsr.loop, true);
	cr_assert_eq(statedb_count(fsr.db, STATEDB_COOKIES), 0, "rows go with the handle");
}

Test(fs, seekdir)
{
	seek_test(false);
}

Test(fs, seekdir_after_restart)
{
	seek_test(true);
}
