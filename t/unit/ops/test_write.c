/* SPDX-License-Identifier: BSD-2-Clause */
/* Creating and writing through a real mount: what a user sees. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "write_rig.h"

TestSuite(write, .fini = wr_finish);

/* --- Create */

Test(write, create_write_close)
{
	wr_begin();
	cr_assert_eq(wr_run(wr_c_create, "d/new"), 0);
	cr_assert(wr_holds("d/new", "0123456789", 10));
	rig_until(&wr, rig_no_session, NULL);
	cr_assert_eq(wr.ufs.store.count[FAKE_PUT], 1, "one upload");
	cr_assert_eq(statedb_count(wr.db, STATEDB_SESSIONS), 0);
	cr_assert_eq(statedb_count(wr.db, STATEDB_STAGED), 0);
	cr_assert_eq(statedb_count(wr.db, STATEDB_LEDGER), 0);
}

static int c_mode(const struct tmp_mount *tm, void *arg)
{
	struct stat st;

	if (stat(rig_at(tm, arg), &st) != 0)
		return errno;
	return (st.st_mode & 0777) == 0640 ? 0 : WRONG;
}

/* What the storage does not know is remembered, also by the next daemon. */
Test(write, mode_stays)
{
	wr_begin();
	cr_assert_eq(wr_run(wr_c_create, "new"), 0);
	rig_until(&wr, rig_no_session, NULL);
	rig_restart(&wr);
	cr_assert_eq(wr_run(c_mode, "new"), 0);
}

Test(write, an_empty_file_is_made_too)
{
	wr_begin();
	cr_assert_eq(wr_run(wr_c_touch, "empty"), 0);
	rig_until(&wr, rig_no_session, NULL);
	cr_assert(wr_holds("empty", "", 0));
}

static int c_excl(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_CREAT | O_EXCL | O_WRONLY, 0644);

	if (fd < 0)
		return errno;
	return write(fd, "x", 1) == 1 && close(fd) == 0 ? 0 : WRONG;
}

static int c_excl_open(const struct tmp_mount *tm, void *arg)
{
	return open(rig_at(tm, arg), O_CREAT | O_EXCL | O_WRONLY, 0644) >= 0 ? 0 : errno;
}

Test(write, exclusive_create_asks_the_storage)
{
	wr_begin();
	cr_assert_eq(wr_run(c_excl, "one"), 0);
	cr_assert(wr_holds("one", "x", 1));
	cr_assert_eq(wr_run(c_excl, "one"), EEXIST);
	/* Somebody else is quicker, after our kernel has looked. */
	wr.ufs.stall = true;
	pid_t pid = rig_start(&wr, c_excl, (void *)"two");
	rig_until_waiting(&wr, 1); /* LOOKUP */
	fake_release_one(&wr.ufs);
	rig_until_waiting(&wr, 1); /* the empty object */
	fake_add(&wr.ufs, "two", UFS_FILE, 3, "t1");
	fake_release(&wr.ufs);
	cr_assert_eq(rig_wait(&wr, pid), EEXIST);
	cr_assert(wr_holds("two", "ttt", 3));
	/* Killed with the request on the wire, which takes effect: it is ours. */
	wr.ufs.stall = true;
	pid = rig_start(&wr, c_excl_open, (void *)"three");
	rig_until_waiting(&wr, 1);
	fake_release_one(&wr.ufs);
	rig_until_waiting(&wr, 1);
	wr.ufs.late_effects = true;
	rig_crash(&wr);
	fake_release(&wr.ufs);
	cr_assert_eq(rig_wait(&wr, pid), 0);
	cr_assert(wr_holds("three", "", 0));
}

static int c_mknod(const struct tmp_mount *tm, void *arg)
{
	if (mknod(rig_at(tm, "fifo"), S_IFIFO | 0644, 0) == 0 || errno != EPERM)
		return WRONG;
	if (mknod(rig_at(tm, arg), S_IFREG | 0640, 0) != 0)
		return errno;
	if (mknod(rig_at(tm, arg), S_IFREG | 0640, 0) == 0 || errno != EEXIST)
		return WRONG + 1;
	return c_mode(tm, arg);
}

Test(write, mknod)
{
	wr_begin();
	cr_assert_eq(wr_run(c_mknod, "node"), 0);
	cr_assert(wr_holds("node", "", 0));
	rig_restart(&wr);
	cr_assert_eq(wr_run(c_mode, "node"), 0);
}

/* --- Change what is there */

static int c_empty(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_WRONLY | O_TRUNC);

	return fd >= 0 && close(fd) == 0 ? 0 : errno;
}

Test(write, existing_files)
{
	wr_begin();
	cr_assert_eq(wr_run(wr_c_patch, "d/small"), 0);
	cr_assert(wr_holds("d/small", "ssXss", 5));
	cr_assert_eq(wr_run(wr_c_append, "d/small"), 0);
	cr_assert(wr_holds("d/small", "ssXsstail!", 10));
	cr_assert_eq(wr_run(wr_c_overwrite, "d/small"), 0);
	cr_assert(wr_holds("d/small", "new", 3));
	cr_assert_eq(wr_run(c_empty, "d/small"), 0);
	cr_assert(wr_holds("d/small", "", 0));
	rig_until(&wr, rig_no_session, NULL);
}

static int c_truncate(const struct tmp_mount *tm, void *arg)
{
	struct stat st;
	int fd;

	if (truncate(rig_at(tm, arg), 3) != 0)
		return errno;
	if (stat(rig_at(tm, arg), &st) != 0 || st.st_size != 3)
		return WRONG;
	fd = open(rig_at(tm, arg), O_RDWR);
	if (fd < 0)
		return errno;
	if (ftruncate(fd, 5) != 0 || wr_reads(tm, arg, "sss") == 0)
		return WRONG + 1;
	if (fstat(fd, &st) != 0 || st.st_size != 5)
		return WRONG + 2;
	/* By name, while it is open. */
	if (truncate(rig_at(tm, arg), 4) != 0 || fstat(fd, &st) != 0 || st.st_size != 4)
		return WRONG + 3;
	return close(fd) == 0 ? 0 : errno;
}

Test(write, truncation)
{
	wr_begin();
	cr_assert_eq(wr_run(c_truncate, "d/small"), 0);
	cr_assert(wr_holds("d/small", "sss\0", 4));
}

static int c_failed_cut(const struct tmp_mount *tm, void *arg)
{
	char buf[8];
	struct stat st;
	int fd = open(rig_at(tm, arg), O_RDONLY);

	if (fd < 0)
		return errno;
	if (truncate(rig_at(tm, arg), 3) == 0 || errno != EACCES)
		return WRONG;
	if (stat(rig_at(tm, arg), &st) != 0 || st.st_size != 5)
		return WRONG + 1;
	return pread(fd, buf, sizeof(buf), 0) == 5 && memcmp(buf, "sssss", 5) == 0 ? 0 : WRONG + 2;
}

/* Nobody was told that it is shorter, so it is not; also for who has it open. */
Test(write, a_truncation_that_fails)
{
	wr_begin();
	fake_store_fail(&wr.ufs.store, FAKE_PUT, 1, 1, -EACCES, false);
	cr_assert_eq(wr_run(c_failed_cut, "d/small"), 0);
	rig_until(&wr, rig_no_session, NULL);
	cr_assert(wr_holds("d/small", "sssss", 5));
}

static int c_holes(const struct tmp_mount *tm, void *arg)
{
	char buf[8192], zero[8192] = {0};
	int fd = open(rig_at(tm, arg), O_RDWR | O_CREAT, 0644);

	if (fd < 0)
		return errno;
	memset(buf, 'a', sizeof(buf));
	if (pwrite(fd, buf, 8192, 1 << 20) != 8192)
		return WRONG;
	if (lseek(fd, 0, SEEK_DATA) != 1 << 20 || lseek(fd, 1 << 20, SEEK_HOLE) != (1 << 20) + 8192)
		return WRONG + 1;
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, 4096) != 0)
		return errno;
	if (pread(fd, buf, 8192, 1 << 20) != 8192 || memcmp(buf, zero, 4096) != 0 || buf[4096] != 'a')
		return WRONG + 2;
	if (fallocate(fd, 0, 0, (1 << 20) + 16384) != 0)
		return errno;
	if (lseek(fd, 0, SEEK_END) != (1 << 20) + 16384)
		return WRONG + 3;
	if (fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096) == 0 || errno != EOPNOTSUPP)
		return WRONG + 4;
	return close(fd) == 0 ? 0 : errno;
}

Test(write, holes)
{
	wr_begin();
	cr_assert_eq(wr_run(c_holes, "holes"), 0);
	cr_assert_eq(fake_find(&wr.ufs, "holes")->size, (1 << 20) + 16384);
}

static int c_much(const struct tmp_mount *tm, void *arg)
{
	static char buf[1 << 20];
	int i, status, bad = 0;
	char name[32];

	(void)arg;
	for (i = 0; i < 4; i++) {
		if (fork() != 0)
			continue;
		snprintf(name, sizeof(name), "much%d", i);
		memset(buf, 'a' + i, sizeof(buf));
		int fd = open(rig_at(tm, name), O_CREAT | O_WRONLY, 0644), n;

		for (n = 0; n < 4 && fd >= 0; n++)
			if (write(fd, buf, sizeof(buf)) != (ssize_t)sizeof(buf))
				_exit(1);
		_exit(fd < 0 || close(fd) != 0);
	}
	for (i = 0; i < 4; i++)
		bad += wait(&status) < 0 || status != 0;
	return bad == 0 ? 0 : WRONG;
}

/* More than the share of memory that data on its way to the disk may have. */
Test(write, few_at_a_time)
{
	wr_begin();
	wr.fs->write_limit = 64 << 10;
	cr_assert_eq(wr_run(c_much, NULL), 0);
	cr_assert_eq(wr.fs->write_bytes, 0);
	cr_assert(!wr.fs->write_hold);
	cr_assert_eq(fake_find(&wr.ufs, "much3")->size, 4 << 20);
}

static int c_second(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_WRONLY), i;

	if (fd < 0)
		return errno;
	if (open(rig_at(tm, arg), O_WRONLY) >= 0 || errno != EBUSY)
		return WRONG;
	/* A reader is nobody's rival. */
	if (open(rig_at(tm, arg), O_RDONLY) < 0)
		return errno;
	if (close(fd) != 0)
		return errno;
	/* close(2) returns before the RELEASE: an open right behind it waits. */
	for (i = 0; i < 20; i++) {
		fd = open(rig_at(tm, arg), O_WRONLY);
		if (fd < 0)
			return errno;
		if (write(fd, "y", 1) != 1 || close(fd) != 0)
			return WRONG + 1;
	}
	return 0;
}

Test(write, one_writer)
{
	wr_begin();
	cr_assert_eq(wr_run(c_second, "d/small"), 0);
}

static int c_random(const struct tmp_mount *tm, void *arg)
{
	int fd;

	(void)arg;
	if (open(rig_at(tm, "d/small"), O_WRONLY) >= 0 || errno != EOPNOTSUPP)
		return WRONG;
	fd = open(rig_at(tm, "d/small"), O_WRONLY | O_TRUNC);
	if (fd < 0 || write(fd, "abc", 3) != 3)
		return WRONG + 1;
	if (pwrite(fd, "x", 1, 1) >= 0 || errno != EOPNOTSUPP)
		return WRONG + 2;
	return write(fd, "d", 1) == 1 && close(fd) == 0 ? 0 : WRONG + 3;
}

Test(write, in_order_only)
{
	struct errtext et;

	wr_begin();
	cr_assert_eq(config_set(wr.cfg, "user.fuse.random.access.file.stream.enabled", "false", &et),
	    0);
	cr_assert_eq(wr_run(c_random, NULL), 0);
	cr_assert(wr_holds("d/small", "abcd", 4));
}

/* --- When it is uploaded */

static int c_children(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_CREAT | O_WRONLY, 0644), i, status;

	if (fd < 0)
		return errno;
	for (i = 0; i < 20; i++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(write(fd, "line\n", 5) != 5 || close(fd) != 0);
		if (waitpid(pid, &status, 0) != pid || status != 0)
			return WRONG;
	}
	return close(fd) == 0 ? 0 : errno;
}

Test(write, children_do_not_upload)
{
	wr_begin();
	cr_assert_eq(wr_run(c_children, "log"), 0);
	cr_assert_eq(fake_find(&wr.ufs, "log")->size, 100);
	cr_assert_eq(wr.ufs.store.count[FAKE_PUT], 1);
}

static int c_fsync(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_CREAT | O_WRONLY, 0644);

	if (fd < 0)
		return errno;
	if (fsync(fd) != 0 || write(fd, "1", 1) != 1 || fsync(fd) != 0 || write(fd, "2", 1) != 1)
		return errno;
	pause();
	return 0;
}

static bool was_put(struct rig *rig, void *arg)
{
	return rig->ufs.store.count[FAKE_PUT] >= *(unsigned *)arg;
}

Test(write, fsync_uploads)
{
	pid_t pid;

	wr_begin();
	pid = rig_start(&wr, c_fsync, (void *)"sync");
	rig_until(&wr, was_put, &(unsigned){2});
	cr_assert(wr_holds("sync", "1", 1));
	rig_until(&wr, wr_so_long, &(uint64_t){2});
	kill(pid, SIGKILL);
	cr_assert_eq(rig_wait(&wr, pid), -1);
	rig_until(&wr, rig_no_session, NULL);
	cr_assert(wr_holds("sync", "12", 2), "a killed writer's data is not lost");
}

/* --- Failures */

struct retry {
	struct session_wait w;
	bool done;
	int err;
};

static void retried(struct session_wait *w, int err)
{
	struct retry *t = container_of(w, struct retry, w);

	t->done = true;
	t->err = err;
}

static bool retry_over(struct rig *rig, void *arg)
{
	(void)rig;
	return ((struct retry *)arg)->done;
}

static int c_read10(const struct tmp_mount *tm, void *arg)
{
	return wr_reads(tm, arg, "0123456789");
}

Test(write, a_failed_upload_is_kept)
{
	struct retry t = {.done = false};

	wr_begin();
	fake_store_fail(&wr.ufs.store, FAKE_PUT, 1, 2, -EIO, false);
	cr_assert_eq(wr_run(wr_c_create, "lost"), EIO, "close(2) says it");
	rig_until(&wr, wr_failed, NULL);
	cr_assert_null(fake_find(&wr.ufs, "lost"));
	cr_assert_eq(wr_run(c_read10, "lost"), 0);
	cr_assert_eq(wr.fs->sessions->error, -EIO);
	/* Also by the next daemon. */
	rig_restart(&wr);
	cr_assert_eq(wr.fs->sessions->state, SESSION_FAILED);
	cr_assert_eq(wr_run(c_read10, "lost"), 0);
	session_upload(wr.fs->sessions, &t.w, true, retried);
	rig_until(&wr, retry_over, &t);
	cr_assert_eq(t.err, 0);
	rig_until(&wr, rig_no_session, NULL);
	cr_assert(wr_holds("lost", "0123456789", 10));
}

Test(write, a_failed_upload_is_dropped)
{
	wr_begin();
	fake_store_fail(&wr.ufs.store, FAKE_PUT, 1, 2, -EACCES, false);
	cr_assert_eq(wr_run(wr_c_create, "lost"), EACCES);
	rig_until(&wr, wr_failed, NULL);
	cr_assert_eq(session_drop(wr.fs->sessions), 0);
	rig_until(&wr, rig_no_session, NULL);
	cr_assert_eq(wr_run(c_read10, "lost"), ENOENT);
	cr_assert_eq(statedb_count(wr.db, STATEDB_STAGED), 0);
}

/* A failed one is written on by the next who opens it. */
Test(write, a_failed_upload_is_gone_on_with)
{
	wr_begin();
	fake_store_fail(&wr.ufs.store, FAKE_PUT, 1, 2, -EIO, false);
	cr_assert_eq(wr_run(wr_c_create, "lost"), EIO);
	rig_until(&wr, wr_failed, NULL);
	cr_assert_eq(wr_run(wr_c_append, "lost"), 0);
	cr_assert(wr_holds("lost", "0123456789tail!", 15));
	fake_store_fail(&wr.ufs.store, FAKE_PUT, 1, 2, -EIO, false);
	cr_assert_eq(wr_run(wr_c_append, "lost"), EIO);
	rig_until(&wr, wr_failed, NULL);
	cr_assert_eq(wr_run(wr_c_overwrite, "lost"), 0);
	cr_assert(wr_holds("lost", "new", 3));
}

/* --- Killed */

Test(write, killed_while_it_is_written)
{
	uint64_t n;

	wr_begin();
	for (n = 0; n < 10; n++) {
		char name[8];
		pid_t pid;

		snprintf(name, sizeof(name), "f%d", (int)n);
		pid = rig_start(&wr, wr_c_steps, name);
		rig_until(&wr, wr_so_long, &n);
		rig_crash(&wr);
		cr_assert_eq(rig_wait(&wr, pid), 0, "%d", (int)n);
		rig_until(&wr, rig_no_session, NULL);
		cr_assert(wr_holds(name, "0123456789", 10), "%d", (int)n);
	}
	cr_assert_eq(statedb_count(wr.db, STATEDB_LEDGER), 0);
}
