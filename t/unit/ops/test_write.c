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

#include "ops/session.h"
#include "ops_rig.h"

#define OPTS "attr_timeout=0,entry_timeout=0"

static struct rig r;

static void begin(void)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount_writing(&r, OPTS);
	fake_add(&r.ufs, "d", UFS_DIR, 0, "");
	fake_add(&r.ufs, "d/small", UFS_FILE, 5, "s1");
	fake_add(&r.ufs, "big", UFS_FILE, 5 << 20, "b1");
}

static void finish(void)
{
	rig_free(&r);
}

TestSuite(write, .fini = finish);

static bool no_session(struct rig *rig, void *arg)
{
	(void)arg;
	return rig->fs->sessions == NULL && rig->fs->nwork == 0;
}

/* The object is these bytes. */
static bool holds(const char *path, const void *data, size_t len)
{
	struct fake_file *ff = fake_find(&r.ufs, path);
	char *buf = malloc(len + 1);
	bool ok;

	ok = ff != NULL && ff->size == len &&
	     fake_store_bytes(&r.ufs.store, path, ff->version, 0, buf, len) == 0 &&
	     memcmp(buf, data, len) == 0;
	free(buf);
	return ok;
}

static int run(rig_client *fn, const char *arg)
{
	return rig_run(&r, fn, (void *)(uintptr_t)arg);
}

static bool so_long(struct rig *rig, void *arg)
{
	return rig->fs->sessions != NULL && staged_size(rig->fs->sessions->sf) >= *(uint64_t *)arg;
}

/* What a file of the mount holds. */
static int expect_at(const struct tmp_mount *tm, const char *name, const char *want)
{
	char buf[256];
	int fd = open(rig_at(tm, name), O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return errno;
	n = read(fd, buf, sizeof(buf));
	close(fd);
	return n == (ssize_t)strlen(want) && memcmp(buf, want, (size_t)n) == 0 ? 0 : WRONG + 50;
}

/* --- Create */

static int c_create(const struct tmp_mount *tm, void *arg)
{
	struct stat before, after;
	int fd = open(rig_at(tm, arg), O_CREAT | O_WRONLY, 0640);

	if (fd < 0)
		return errno;
	if (write(fd, "0123456789", 10) != 10 || fstat(fd, &before) != 0)
		return WRONG;
	if (expect_at(tm, arg, "0123456789") != 0)
		return WRONG + 1;
	if (close(fd) != 0)
		return errno;
	if (stat(rig_at(tm, arg), &after) != 0)
		return errno;
	if (after.st_size != 10 || (after.st_mode & 0777) != 0640 || after.st_nlink != 1)
		return WRONG + 2;
	if (memcmp(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim)) != 0 ||
	    before.st_ino != after.st_ino)
		return WRONG + 3;
	return expect_at(tm, arg, "0123456789");
}

Test(write, create_write_close)
{
	begin();
	cr_assert_eq(run(c_create, "d/new"), 0);
	cr_assert(holds("d/new", "0123456789", 10));
	rig_until(&r, no_session, NULL);
	cr_assert_eq(r.ufs.store.count[FAKE_PUT], 1, "one upload");
	cr_assert_eq(statedb_count(r.db, STATEDB_SESSIONS), 0);
	cr_assert_eq(statedb_count(r.db, STATEDB_STAGED), 0);
	cr_assert_eq(statedb_count(r.db, STATEDB_LEDGER), 0);
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
	begin();
	cr_assert_eq(run(c_create, "new"), 0);
	rig_until(&r, no_session, NULL);
	rig_restart(&r);
	cr_assert_eq(run(c_mode, "new"), 0);
}

static int c_touch(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_CREAT | O_WRONLY, 0644);

	if (fd < 0)
		return errno;
	return close(fd) == 0 ? 0 : errno;
}

Test(write, an_empty_file_is_made_too)
{
	begin();
	cr_assert_eq(run(c_touch, "empty"), 0);
	rig_until(&r, no_session, NULL);
	cr_assert(holds("empty", "", 0));
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
	begin();
	cr_assert_eq(run(c_excl, "one"), 0);
	cr_assert(holds("one", "x", 1));
	cr_assert_eq(run(c_excl, "one"), EEXIST);
	/* Somebody else is quicker, after our kernel has looked. */
	r.ufs.stall = true;
	pid_t pid = rig_start(&r, c_excl, (void *)"two");
	rig_until_waiting(&r, 1); /* LOOKUP */
	fake_release_one(&r.ufs);
	rig_until_waiting(&r, 1); /* the empty object */
	fake_add(&r.ufs, "two", UFS_FILE, 3, "t1");
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, pid), EEXIST);
	cr_assert(holds("two", "ttt", 3));
	/* Killed with the request on the wire, which takes effect: it is ours. */
	r.ufs.stall = true;
	pid = rig_start(&r, c_excl_open, (void *)"three");
	rig_until_waiting(&r, 1);
	fake_release_one(&r.ufs);
	rig_until_waiting(&r, 1);
	r.ufs.late_effects = true;
	rig_crash(&r);
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, pid), 0);
	cr_assert(holds("three", "", 0));
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
	begin();
	cr_assert_eq(run(c_mknod, "node"), 0);
	cr_assert(holds("node", "", 0));
	rig_restart(&r);
	cr_assert_eq(run(c_mode, "node"), 0);
}

/* --- Change what is there */

static int c_patch(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_RDWR);

	if (fd < 0)
		return errno;
	if (pwrite(fd, "X", 1, 2) != 1)
		return errno;
	if (expect_at(tm, arg, "ssXss") != 0)
		return WRONG;
	return close(fd) == 0 ? 0 : errno;
}

static int c_append(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_WRONLY | O_APPEND);

	if (fd < 0)
		return errno;
	if (write(fd, "tail", 4) != 4 || write(fd, "!", 1) != 1)
		return WRONG;
	return close(fd) == 0 ? 0 : errno;
}

static int c_overwrite(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_WRONLY | O_TRUNC);

	if (fd < 0)
		return errno;
	if (write(fd, "new", 3) != 3)
		return WRONG;
	return close(fd) == 0 ? 0 : errno;
}

static int c_empty(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_WRONLY | O_TRUNC);

	return fd >= 0 && close(fd) == 0 ? 0 : errno;
}

Test(write, existing_files)
{
	begin();
	cr_assert_eq(run(c_patch, "d/small"), 0);
	cr_assert(holds("d/small", "ssXss", 5));
	cr_assert_eq(run(c_append, "d/small"), 0);
	cr_assert(holds("d/small", "ssXsstail!", 10));
	cr_assert_eq(run(c_overwrite, "d/small"), 0);
	cr_assert(holds("d/small", "new", 3));
	cr_assert_eq(run(c_empty, "d/small"), 0);
	cr_assert(holds("d/small", "", 0));
	rig_until(&r, no_session, NULL);
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
	if (ftruncate(fd, 5) != 0 || expect_at(tm, arg, "sss") == 0)
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
	begin();
	cr_assert_eq(run(c_truncate, "d/small"), 0);
	cr_assert(holds("d/small", "sss\0", 4));
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
	begin();
	fake_store_fail(&r.ufs.store, FAKE_PUT, 1, 1, -EACCES, false);
	cr_assert_eq(run(c_failed_cut, "d/small"), 0);
	rig_until(&r, no_session, NULL);
	cr_assert(holds("d/small", "sssss", 5));
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
	begin();
	cr_assert_eq(run(c_holes, "holes"), 0);
	cr_assert_eq(fake_find(&r.ufs, "holes")->size, (1 << 20) + 16384);
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
	begin();
	r.fs->write_limit = 64 << 10;
	cr_assert_eq(run(c_much, NULL), 0);
	cr_assert_eq(r.fs->write_bytes, 0);
	cr_assert(!r.fs->write_hold);
	cr_assert_eq(fake_find(&r.ufs, "much3")->size, 4 << 20);
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
	begin();
	cr_assert_eq(run(c_second, "d/small"), 0);
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

	begin();
	cr_assert_eq(config_set(r.cfg, "user.fuse.random.access.file.stream.enabled", "false", &et),
	    0);
	cr_assert_eq(run(c_random, NULL), 0);
	cr_assert(holds("d/small", "abcd", 4));
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
	begin();
	cr_assert_eq(run(c_children, "log"), 0);
	cr_assert_eq(fake_find(&r.ufs, "log")->size, 100);
	cr_assert_eq(r.ufs.store.count[FAKE_PUT], 1);
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

	begin();
	pid = rig_start(&r, c_fsync, (void *)"sync");
	rig_until(&r, was_put, &(unsigned){2});
	cr_assert(holds("sync", "1", 1));
	rig_until(&r, so_long, &(uint64_t){2});
	kill(pid, SIGKILL);
	cr_assert_eq(rig_wait(&r, pid), -1);
	rig_until(&r, no_session, NULL);
	cr_assert(holds("sync", "12", 2), "a killed writer's data is not lost");
}

/* --- Failures */

static bool failed_session(struct rig *rig, void *arg)
{
	(void)arg;
	return rig->fs->sessions != NULL && rig->fs->sessions->state == SESSION_FAILED;
}

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
	return expect_at(tm, arg, "0123456789");
}

Test(write, a_failed_upload_is_kept)
{
	struct retry t = {.done = false};

	begin();
	fake_store_fail(&r.ufs.store, FAKE_PUT, 1, 2, -EIO, false);
	cr_assert_eq(run(c_create, "lost"), EIO, "close(2) says it");
	rig_until(&r, failed_session, NULL);
	cr_assert_null(fake_find(&r.ufs, "lost"));
	cr_assert_eq(run(c_read10, "lost"), 0);
	cr_assert_eq(r.fs->sessions->error, -EIO);
	/* Also by the next daemon. */
	rig_restart(&r);
	cr_assert_eq(r.fs->sessions->state, SESSION_FAILED);
	cr_assert_eq(run(c_read10, "lost"), 0);
	session_upload(r.fs->sessions, &t.w, true, retried);
	rig_until(&r, retry_over, &t);
	cr_assert_eq(t.err, 0);
	rig_until(&r, no_session, NULL);
	cr_assert(holds("lost", "0123456789", 10));
}

Test(write, a_failed_upload_is_dropped)
{
	begin();
	fake_store_fail(&r.ufs.store, FAKE_PUT, 1, 2, -EACCES, false);
	cr_assert_eq(run(c_create, "lost"), EACCES);
	rig_until(&r, failed_session, NULL);
	cr_assert_eq(session_drop(r.fs->sessions), 0);
	rig_until(&r, no_session, NULL);
	cr_assert_eq(run(c_read10, "lost"), ENOENT);
	cr_assert_eq(statedb_count(r.db, STATEDB_STAGED), 0);
}

/* A failed one is written on by the next who opens it. */
Test(write, a_failed_upload_is_gone_on_with)
{
	begin();
	fake_store_fail(&r.ufs.store, FAKE_PUT, 1, 2, -EIO, false);
	cr_assert_eq(run(c_create, "lost"), EIO);
	rig_until(&r, failed_session, NULL);
	cr_assert_eq(run(c_append, "lost"), 0);
	cr_assert(holds("lost", "0123456789tail!", 15));
	fake_store_fail(&r.ufs.store, FAKE_PUT, 1, 2, -EIO, false);
	cr_assert_eq(run(c_append, "lost"), EIO);
	rig_until(&r, failed_session, NULL);
	cr_assert_eq(run(c_overwrite, "lost"), 0);
	cr_assert(holds("lost", "new", 3));
}

/* The storage has made an object and nobody was told; more is written before it is tried
 * again.  Somebody else's object is not taken for it. */
static void lost_answer(bool restart)
{
	fake_store_fail(&r.ufs.store, FAKE_PUT, 1, 2, -EIO, true);
	cr_assert_eq(run(c_create, "lost"), EIO);
	rig_until(&r, failed_session, NULL);
	cr_assert(holds("lost", "0123456789", 10));
	if (restart)
		rig_restart(&r);
	cr_assert_eq(run(c_append, "lost"), 0);
	cr_assert(holds("lost", "0123456789tail!", 15));
	fake_store_fail(&r.ufs.store, FAKE_PUT, 1, 2, -ETIMEDOUT, true);
	cr_assert_eq(run(c_append, "lost"), EIO);
	rig_until(&r, failed_session, NULL);
	cr_assert(holds("lost", "0123456789tail!tail!", 20));
	if (restart)
		rig_restart(&r);
	cr_assert_eq(run(c_overwrite, "lost"), 0);
	cr_assert(holds("lost", "new", 3));
}

Test(write, a_lost_answer_and_more_writes)
{
	begin();
	lost_answer(false);
}

Test(write, a_lost_answer_and_more_writes_by_the_next_daemon)
{
	begin();
	lost_answer(true);
}

Test(write, a_lost_answer_and_another_writer)
{
	begin();
	fake_store_fail(&r.ufs.store, FAKE_PUT, 1, 2, -EIO, true);
	cr_assert_eq(run(c_create, "lost"), EIO);
	rig_until(&r, failed_session, NULL);
	fake_store_remove(&r.ufs.store, fake_find(&r.ufs, "lost"));
	fake_add(&r.ufs, "lost", UFS_FILE, 4, "theirs");
	cr_assert_eq(run(c_append, "lost"), EEXIST);
	rig_until(&r, failed_session, NULL);
	cr_assert(holds("lost", "tttt", 4));
}

static int c_slow_patch(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_RDWR);

	if (fd < 0)
		return errno;
	if (pwrite(fd, "X", 1, 2) != 1 || fsync(fd) != 0)
		return errno;
	return 0;
}

/* Lets the storage answer until an upload's last request waits for it. */
static void until_uploading(void)
{
	const struct fake_store *st = &r.ufs.store;

	r.ufs.stall = true;
	for (;;) {
		const struct session *s = r.fs->sessions;
		bool begun = s != NULL && s->uploading != NULL && s->doubt &&
			     r.ufs.reads == st->count[FAKE_READ];

		if (begun && fake_waiting(&r.ufs) > 0)
			return;
		if (!begun)
			fake_release_one(&r.ufs);
		loop_turn(r.loop, true);
	}
}

/* Both versions stay: theirs in the storage, ours here. */
Test(write, a_newer_object_is_not_overwritten)
{
	pid_t pid;

	begin();
	cr_assert_eq(run(rig_stat, "d/small"), 0);
	pid = rig_start(&r, c_slow_patch, (void *)"d/small");
	until_uploading();
	fake_store_remove(&r.ufs.store, fake_find(&r.ufs, "d/small"));
	fake_add(&r.ufs, "d/small", UFS_FILE, 4, "theirs");
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, pid), ESTALE);
	rig_until(&r, failed_session, NULL);
	cr_assert(holds("d/small", "tttt", 4));
	cr_assert_eq(staged_size(r.fs->sessions->sf), 5);
}

/* --- Killed */

static int c_steps(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_CREAT | O_WRONLY, 0644), i;
	char c;

	if (fd < 0)
		return errno;
	for (i = 0; i < 10; i++) {
		c = (char)('0' + i);
		if (write(fd, &c, 1) != 1)
			return errno;
	}
	return close(fd) == 0 ? 0 : errno;
}

Test(write, killed_while_it_is_written)
{
	uint64_t n;

	begin();
	for (n = 0; n < 10; n++) {
		char name[8];
		pid_t pid;

		snprintf(name, sizeof(name), "f%d", (int)n);
		pid = rig_start(&r, c_steps, name);
		rig_until(&r, so_long, &n);
		rig_crash(&r);
		cr_assert_eq(rig_wait(&r, pid), 0, "%d", (int)n);
		rig_until(&r, no_session, NULL);
		cr_assert(holds(name, "0123456789", 10), "%d", (int)n);
	}
	cr_assert_eq(statedb_count(r.db, STATEDB_LEDGER), 0);
}

/* With the PUT on the wire, which takes effect or does not. */
static void killed_in_upload(bool effect, const char *name, rig_client *fn, const char *want)
{
	pid_t pid = rig_start(&r, fn, (void *)(uintptr_t)name);

	until_uploading();
	r.ufs.late_effects = effect;
	rig_crash(&r);
	r.ufs.late_effects = false;
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, pid), 0);
	rig_until(&r, no_session, NULL);
	cr_assert(holds(name, want, strlen(want)), "%s", name);
}

Test(write, killed_while_it_is_uploaded)
{
	begin();
	killed_in_upload(false, "a", c_steps, "0123456789");
	killed_in_upload(true, "b", c_steps, "0123456789");
	killed_in_upload(false, "empty", c_touch, "");
	killed_in_upload(true, "empty2", c_touch, "");
	killed_in_upload(false, "d/small", c_patch, "ssXss");
}

Test(write, killed_while_what_was_there_is_uploaded)
{
	begin();
	killed_in_upload(true, "d/small", c_patch, "ssXss");
}

static void quiet_fn(void *arg)
{
	*(bool *)arg = true;
}

/* A hand-over lets an upload end that is on the wire, and does not wait for ever. */
Test(write, hand_over_waits_for_the_wire)
{
	bool quiet = false;
	struct errtext et;
	pid_t pid;

	begin();
	cr_assert_eq(
	    config_set(r.cfg, "fuse.migration.mutation.wire.timeout", "10s", &et), 0);
	pid = rig_start(&r, c_steps, (void *)"a");
	until_uploading();
	fuse_chan_disarm(r.chan);
	fs_handover_begin(r.fs, quiet_fn, &quiet);
	for (int i = 0; i < 10; i++)
		loop_turn(r.loop, false);
	cr_assert(!quiet);
	fake_release(&r.ufs);
	while (!quiet)
		loop_turn(r.loop, true);
	cr_assert(holds("a", "0123456789", 10));
	cr_assert(!r.fs->sessions->fresh);
	fs_handover_undo(r.fs);
	fuse_chan_arm(r.chan);
	cr_assert_eq(rig_wait(&r, pid), 0);
	rig_until(&r, no_session, NULL);
	cr_assert_eq(r.ufs.store.count[FAKE_PUT], 1, "not done twice");
}
