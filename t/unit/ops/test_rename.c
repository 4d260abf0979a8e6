/* SPDX-License-Identifier: BSD-2-Clause */
/* rename(2) of files through a real mount, and what all renames refuse. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "meta/meta.h"
#include "ops/node.h"
#include "ops/session.h"
#include "ops_rig.h"

#define OPTS "attr_timeout=0,entry_timeout=0"
#define FOREVER "attr_timeout=60,entry_timeout=60"

static struct rig r;

struct names {
	const char *from, *to;
	unsigned flags;
};

static void begin_with(const char *opts)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount_writing(&r, opts);
	fake_add(&r.ufs, "a", UFS_FILE, 5, "a1");
	fake_add(&r.ufs, "b", UFS_FILE, 6, "b1");
	fake_add(&r.ufs, "d", UFS_DIR, 0, "");
	fake_add(&r.ufs, "d/x", UFS_FILE, 5, "x1");
	fake_add(&r.ufs, "e", UFS_DIR, 0, "");
	fake_add(&r.ufs, "e2", UFS_DIR, 0, "");
}

static void begin(void)
{
	begin_with(OPTS);
}

static void native(void)
{
	begin();
	fake_can(&r.ufs, UFS_CAN_RENAME | UFS_CAN_SETATTR);
}

static void finish(void)
{
	rig_free(&r);
}

TestSuite(rename, .fini = finish);

static int c_rename(const struct tmp_mount *tm, void *arg)
{
	const struct names *n = arg;
	int dir = open(tm->mnt, O_RDONLY | O_DIRECTORY);

	if (dir < 0)
		return errno;
	return renameat2(dir, n->from, dir, n->to, n->flags) == 0 ? 0 : errno;
}

static int mv_flags(const char *from, const char *to, unsigned flags)
{
	struct names n = {from, to, flags};

	return rig_run(&r, c_rename, &n);
}

static int mv(const char *from, const char *to)
{
	return mv_flags(from, to, 0);
}

static int run(rig_client *fn, const char *arg)
{
	return rig_run(&r, fn, (void *)(uintptr_t)arg);
}

static bool there(const char *path)
{
	return fake_find(&r.ufs, path) != NULL;
}

static unsigned did(enum fake_op op)
{
	return r.ufs.store.count[op];
}

/* The object is so many bytes of one letter. */
static bool holds(const char *path, char c, size_t len)
{
	struct fake_file *ff = fake_find(&r.ufs, path);
	char buf[64], want[64];

	memset(want, c, sizeof(want));
	return ff != NULL && ff->size == len &&
	       fake_store_bytes(&r.ufs.store, path, ff->version, 0, buf, len) == 0 &&
	       memcmp(buf, want, len) == 0;
}

struct asked {
	struct meta_get get;
	bool done;
	int err;
};

static void asked_done(struct meta_req *rq, int err)
{
	struct asked *a = rq->user;

	a->done = true;
	a->err = err;
}

static int record_of(const char *path, struct meta_record *rec)
{
	struct asked a = {.get.path = path};

	a.get.req.user = &a;
	meta_get(r.meta, &a.get, asked_done);
	while (!a.done)
		loop_turn(r.loop, true);
	if (rec != NULL)
		*rec = a.get.rec;
	return a.err;
}

/* --- What it asks of the storage */

Test(rename, a_file_is_one_copy_and_one_delete)
{
	begin();
	cr_assert_eq(mv("a", "new"), 0);
	cr_assert(holds("new", 'a', 5) && !there("a"));
	cr_assert_eq(did(FAKE_COPY), 1);
	cr_assert_eq(did(FAKE_DELETE), 1);
	cr_assert_eq(did(FAKE_PUT) + did(FAKE_MKDIR) + did(FAKE_RMDIR), 0);
	cr_assert_eq(run(rig_stat, "a"), ENOENT);
	cr_assert_eq(run(rig_stat, "new"), 0);
	rig_check_clean(&r);
}

Test(rename, the_directory_that_it_leaves_stays)
{
	begin();
	fake_add(&r.ufs, "p/q/f", UFS_FILE, 5, "f1");
	cr_assert_eq(mv("p/q/f", "d/f"), 0);
	cr_assert(holds("d/f", 'f', 5));
	cr_assert_eq(did(FAKE_MKDIR), 1);
	cr_assert_eq(run(rig_stat, "p/q"), 0);
	rig_check_clean(&r);
}

Test(rename, native_is_one_request)
{
	native();
	cr_assert_eq(mv("a", "b"), 0);
	cr_assert(holds("b", 'a', 5) && !there("a"));
	cr_assert_eq(mv("d", "e"), 0);
	cr_assert(there("e/x") && !there("d"));
	cr_assert_eq(did(FAKE_RENAME), 2);
	cr_assert_eq(did(FAKE_COPY) + did(FAKE_DELETE) + did(FAKE_MKDIR), 0);
	rig_check_clean(&r);
}

/* --- Refused */

static void refusals(bool dirs_say)
{
	unsigned asked = did(FAKE_COPY) + did(FAKE_DELETE) + did(FAKE_MKDIR) + did(FAKE_RMDIR);

	cr_assert_eq(mv("none", "x"), ENOENT);
	cr_assert_eq(mv("a", "d"), EISDIR);
	cr_assert_eq(mv("d", "a"), ENOTDIR);
	cr_assert_eq(mv("e", "d"), ENOTEMPTY);
	cr_assert_eq(mv("d", "d/x/y"), ENOTDIR);
	cr_assert_eq(mv("d", "d/y"), EINVAL);
	cr_assert_eq(mv("d/x", "d"), ENOTEMPTY);
	cr_assert_eq(mv_flags("a", "b", RENAME_NOREPLACE), EEXIST);
	cr_assert_eq(mv_flags("d", "e", RENAME_NOREPLACE), EEXIST);
	cr_assert_eq(mv_flags("a", "b", RENAME_EXCHANGE), EINVAL);
	cr_assert_eq(mv_flags("a", "b", RENAME_WHITEOUT), EINVAL);
	cr_assert_eq(mv("a", "a"), 0);
	cr_assert_eq(
	    did(FAKE_COPY) + did(FAKE_DELETE) + did(FAKE_MKDIR) + did(FAKE_RMDIR), asked);
	if (!dirs_say)
		cr_assert_eq(did(FAKE_RENAME), 0);
	rig_check_clean(&r);
}

Test(rename, refusals)
{
	begin();
	refusals(false);
}

Test(rename, refusals_native)
{
	native();
	refusals(true);
}

Test(rename, noreplace)
{
	begin();
	cr_assert_eq(mv_flags("a", "n", RENAME_NOREPLACE), 0);
	cr_assert(holds("n", 'a', 5));
	/* Of another client's, which the kernel has not seen. */
	rig_free(&r);
	begin_with(FOREVER);
	cr_assert_eq(run(rig_stat, "new"), ENOENT);
	fake_add(&r.ufs, "new", UFS_FILE, 1, "n1");
	cr_assert_eq(mv_flags("a", "new", RENAME_NOREPLACE), EEXIST);
	cr_assert(there("a") && holds("new", 'n', 1));
}

Test(rename, onto_existing)
{
	begin();
	cr_assert_eq(mv("a", "b"), 0);
	cr_assert(holds("b", 'a', 5) && !there("a"));
	rig_check_clean(&r);
}

Test(rename, names_too_long)
{
	char name[300];

	begin();
	memset(name, 'n', sizeof(name));
	name[256] = '\0';
	cr_assert_eq(mv("a", name), ENAMETOOLONG);
	name[255] = '\0';
	cr_assert_eq(mv("a", name), 0);
}

/* --- Open files, attributes */

static int c_reading_both(const struct tmp_mount *tm, void *arg)
{
	char buf[16], from[256];
	struct stat before, after;
	int fa = open(rig_at(tm, "a"), O_RDONLY), fb = open(rig_at(tm, "b"), O_RDONLY);

	(void)arg;
	snprintf(from, sizeof(from), "%s", rig_at(tm, "a"));
	if (fa < 0 || fb < 0 || fstat(fa, &before) != 0 || rename(from, rig_at(tm, "b")) != 0)
		return errno;
	if (pread(fa, buf, 16, 0) != 5 || memcmp(buf, "aaaaa", 5) != 0)
		return WRONG;
	if (pread(fb, buf, 16, 0) != 6 || memcmp(buf, "bbbbbb", 6) != 0)
		return WRONG + 1;
	if (stat(rig_at(tm, "b"), &after) != 0)
		return errno;
	if (before.st_ino != after.st_ino || before.st_mtim.tv_sec != after.st_mtim.tv_sec)
		return WRONG + 2;
	return 0;
}

Test(rename, who_has_them_open_goes_on)
{
	begin();
	cr_assert_eq(run(c_reading_both, NULL), 0);
	rig_check_clean(&r);
	rig_restart(&r);
}

/* Its time is what it was, also once the storage is asked again. */
static int c_mtime(const struct tmp_mount *tm, void *arg)
{
	struct timespec t[2] = {{.tv_sec = 777}, {.tv_sec = 12345, .tv_nsec = 678}};
	struct stat st;
	char from[256];

	(void)arg;
	snprintf(from, sizeof(from), "%s", rig_at(tm, "a"));
	if (utimensat(AT_FDCWD, from, t, 0) != 0 || chmod(from, 0604) != 0 ||
	    rename(from, rig_at(tm, "new")) != 0 || stat(rig_at(tm, "new"), &st) != 0)
		return errno;
	if (st.st_mtim.tv_sec != 12345 || st.st_mtim.tv_nsec != 678)
		return WRONG;
	return (st.st_mode & 07777) == 0604 ? 0 : WRONG + 1;
}

Test(rename, attributes_move)
{
	struct meta_record rec;
	time_t was;

	begin();
	cr_assert_eq(run(c_mtime, NULL), 0);
	cr_assert_eq(record_of("a", NULL), -ENOENT);
	cr_assert_eq(record_of("new", &rec), 0);
	cr_assert(rec.mode == 0604 && rec.mtime.tv_sec == 12345 && rec.atime.tv_sec == 777);
	cr_assert_str_eq(rec.version, fake_find(&r.ufs, "new")->version);
	/* One that has no record has its time in the end, too. */
	was = fake_find(&r.ufs, "b")->mtime.tv_sec;
	cr_assert_eq(mv("b", "c"), 0);
	cr_assert_eq(record_of("c", &rec), 0);
	cr_assert_eq(rec.mtime.tv_sec, was);
	/* What was under the new name is forgotten. */
	cr_assert_eq(mv("c", "new"), 0);
	cr_assert_eq(record_of("new", &rec), 0);
	cr_assert_eq(rec.has & META_HAS_MODE, 0);
	rig_check_clean(&r);
}

static int c_write_move_write(const struct tmp_mount *tm, void *arg)
{
	char from[256], buf[16];
	int fd;

	snprintf(from, sizeof(from), "%s", rig_at(tm, arg));
	fd = open(from, O_RDWR | O_CREAT, 0644);
	if (fd < 0 || pwrite(fd, "zz", 2, 0) != 2 || rename(from, rig_at(tm, "to")) != 0)
		return errno;
	if (pwrite(fd, "y", 1, 1) != 1 || pread(fd, buf, 16, 0) < 2 || buf[0] != 'z' ||
	    buf[1] != 'y')
		return WRONG;
	return close(fd) == 0 ? 0 : errno;
}

Test(rename, who_writes_goes_on_under_the_new_name)
{
	char buf[6];

	begin();
	cr_assert_eq(run(c_write_move_write, "a"), 0);
	rig_check_clean(&r);
	cr_assert_not(there("a"));
	cr_assert_eq(fake_store_bytes(
			 &r.ufs.store, "to", fake_find(&r.ufs, "to")->version, 0, buf, 5),
	    0);
	cr_assert_arr_eq(buf, "zyaaa", 5);
	/* One that the storage has never had. */
	cr_assert_eq(run(c_write_move_write, "d/new"), 0);
	rig_check_clean(&r);
	cr_assert_not(there("d/new"));
	cr_assert_eq(fake_store_bytes(
			 &r.ufs.store, "to", fake_find(&r.ufs, "to")->version, 0, buf, 2),
	    0);
	cr_assert_arr_eq(buf, "zy", 2);
}

static int c_replaces_written(const struct tmp_mount *tm, void *arg)
{
	char from[256], buf[16];
	int fd = open(rig_at(tm, "b"), O_RDWR);

	(void)arg;
	snprintf(from, sizeof(from), "%s", rig_at(tm, "a"));
	if (fd < 0 || pwrite(fd, "Z", 1, 0) != 1 || rename(from, rig_at(tm, "b")) != 0)
		return errno;
	if (pread(fd, buf, 16, 0) != 6 || memcmp(buf, "Zbbbbb", 6) != 0)
		return WRONG;
	return close(fd) == 0 ? 0 : errno;
}

Test(rename, a_replaced_writer_does_not_come_back)
{
	begin();
	cr_assert_eq(run(c_replaces_written, NULL), 0);
	rig_check_clean(&r);
	cr_assert(holds("b", 'a', 5));
	cr_assert_eq(did(FAKE_PUT), 0);
}

/* A read is on its way while its object moves. */
static int c_read_big(const struct tmp_mount *tm, void *arg)
{
	static char buf[65536];
	/* A page that fails in readahead the kernel asks for once more. */
	int fd = open(rig_at(tm, arg), O_RDONLY | O_DIRECT);

	if (fd < 0)
		return errno;
	if (pread(fd, buf, sizeof(buf), 0) != (ssize_t)sizeof(buf))
		return errno != 0 ? errno : WRONG;
	for (size_t i = 0; i < sizeof(buf); i++)
		if (buf[i] != 'g')
			return WRONG + 1;
	return 0;
}

/* Serves everything but reads until pid has ended. */
static int serve_but_reads(pid_t pid)
{
	for (;;) {
		siginfo_t si = {0};
		bool any = false;

		for (unsigned op = 0; op < FAKE_OPS; op++)
			if (op != FAKE_READ)
				any = fake_release_op(&r.ufs, op) || any;
		loop_turn(r.loop, false);
		if (waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG | WNOWAIT) == 0 &&
		    si.si_pid == pid)
			return rig_wait(&r, pid);
	}
}

static void move_under_a_read(rig_client *fn)
{
	struct names n = {"big", "moved", 0};
	pid_t reader, mover;

	begin_with(FOREVER);
	r.ufs.store.strict = true; /* a key that is gone has no bytes */
	fake_add(&r.ufs, "big", UFS_FILE, 4 << 20, "g1");
	cr_assert_eq(run(rig_stat, "big"), 0);
	r.ufs.stall = true;
	reader = rig_start(&r, fn, (void *)"big");
	while (fake_waiting(&r.ufs) == 0 || r.ufs.reads == 0) {
		if (r.ufs.reads == 0)
			fake_release_one(&r.ufs);
		loop_turn(r.loop, true);
	}
	mover = rig_start(&r, c_rename, &n);
	cr_assert_eq(serve_but_reads(mover), 0);
	cr_assert(there("moved") && !there("big"));
	cr_assert_gt(fake_waiting(&r.ufs), 0);
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, reader), 0);
	rig_check_clean(&r);
}

Test(rename, a_read_that_runs_meanwhile)
{
	move_under_a_read(c_read_big);
}

/* The same, through the session of one who may write. */
static int c_read_session(const struct tmp_mount *tm, void *arg)
{
	static char buf[65536];
	int fd = open(rig_at(tm, arg), O_RDWR | O_DIRECT);

	if (fd < 0)
		return errno;
	if (pread(fd, buf, sizeof(buf), 0) != (ssize_t)sizeof(buf))
		return errno != 0 ? errno : WRONG;
	for (size_t i = 0; i < sizeof(buf); i++)
		if (buf[i] != 'g')
			return WRONG + 1;
	return close(fd) == 0 ? 0 : errno;
}

Test(rename, a_writers_read_that_runs_meanwhile)
{
	move_under_a_read(c_read_session);
}

/* --- Somebody else */

Test(rename, a_source_that_changes_is_looked_at_again)
{
	struct names n = {"a", "new", 0};
	pid_t pid;

	begin_with(FOREVER);
	cr_assert_eq(run(rig_stat, "a"), 0);
	fake_store_remove(&r.ufs.store, fake_find(&r.ufs, "a"));
	fake_add(&r.ufs, "a", UFS_FILE, 7, "q2");
	pid = rig_start(&r, c_rename, &n);
	cr_assert_eq(rig_wait(&r, pid), 0);
	cr_assert(holds("new", 'q', 7) && !there("a"));
	/* One that is gone. */
	cr_assert_eq(run(rig_stat, "b"), 0);
	fake_store_remove(&r.ufs.store, fake_find(&r.ufs, "b"));
	cr_assert_eq(mv("b", "c"), ENOENT);
	rig_check_clean(&r);
}

/* --- Failures */

Test(rename, a_failure_keeps_the_old_name)
{
	static const enum fake_op op[] = {FAKE_COPY, FAKE_MKDIR, FAKE_DELETE};

	begin();
	for (size_t i = 0; i < sizeof(op) / sizeof(op[0]); i++) {
		fake_store_fail(&r.ufs.store, op[i], 1, 1, -EACCES, false);
		cr_assert_eq(mv("d/x", "n"), EACCES, "%zu", i);
		rig_check_clean(&r);
		cr_assert(holds("d/x", 'x', 5));
		cr_assert_eq(run(rig_stat, "d/x"), 0);
		cr_assert_eq(record_of("d/x", NULL), -ENOENT);
	}
	cr_assert_eq(mv("d/x", "n"), 0);
	cr_assert(holds("n", 'x', 5) && !there("d/x"));
	rig_check_clean(&r);
}

Test(rename, a_failing_upload_is_told)
{
	begin();
	fake_store_fail(&r.ufs.store, FAKE_PUT, 1, 1, -EACCES, false);
	cr_assert_eq(run(c_write_move_write, "new"), EACCES);
	rig_until(&r, rig_no_session, NULL);
}

Test(rename, native_failure)
{
	native();
	fake_store_fail(&r.ufs.store, FAKE_RENAME, 1, 1, -EDQUOT, false);
	cr_assert_eq(mv("a", "b"), EDQUOT);
	cr_assert(holds("a", 'a', 5) && holds("b", 'b', 6));
	cr_assert_eq(run(rig_stat, "a"), 0);
	cr_assert_eq(run(rig_stat, "b"), 0);
	rig_check_clean(&r);
}

/* --- Killed */

static bool has_ended(pid_t pid)
{
	siginfo_t si = {0};

	return waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid == pid;
}

/* Serves the first n requests to the storage; true: the client ended before. */
static bool serve(unsigned n, pid_t pid)
{
	for (unsigned i = 0; i <= n; i++) {
		while (fake_waiting(&r.ufs) == 0) {
			if (has_ended(pid))
				return true;
			loop_turn(r.loop, false);
		}
		if (i < n)
			fake_release_one(&r.ufs);
	}
	return false;
}

static void kill_at_each(const char *from, const char *to, bool late)
{
	struct names n = {from, to, 0};
	bool ended = false;
	unsigned i;
	pid_t pid;

	for (i = 0; !ended; i++) {
		if (there(to))
			fake_store_remove(&r.ufs.store, fake_find(&r.ufs, to));
		if (!there(from))
			fake_add(&r.ufs, from, UFS_FILE, 5, "x2");
		rig_restart(&r);
		r.ufs.late_effects = late;
		r.ufs.stall = true;
		pid = rig_start(&r, c_rename, &n);
		ended = serve(i, pid);
		if (!ended)
			rig_crash(&r);
		fake_release(&r.ufs);
		r.ufs.late_effects = false;
		cr_assert_eq(rig_wait(&r, pid), 0, "request %u, late %d", i, late);
		cr_assert(holds(to, 'x', 5) && !there(from), "request %u, late %d", i, late);
		cr_assert_eq(run(rig_stat, from), ENOENT);
		cr_assert_eq(run(rig_stat, to), 0);
		rig_check_clean(&r);
	}
	cr_assert_gt(i, 3);
}

Test(rename, killed_at_each_step)
{
	begin();
	kill_at_each("d/x", "n", false);
	kill_at_each("d/x", "n", true);
}

Test(rename, killed_at_each_step_native)
{
	native();
	kill_at_each("d/x", "n", false);
	kill_at_each("d/x", "n", true);
}

/* --- Out of memory */

Test(rename, no_memory)
{
	struct names n = {"d/x", "n", 0};
	unsigned i, failed = 0;
	bool fired;
	int err;

	begin();
	for (i = 1; i < 600; i++) {
		if (there("n"))
			fake_store_remove(&r.ufs.store, fake_find(&r.ufs, "n"));
		if (!there("d/x"))
			fake_add(&r.ufs, "d/x", UFS_FILE, 5, "x2");
		err = rig_wait_nth(&r, rig_start(&r, c_rename, &n), i, &fired);
		cr_assert(err == 0 || err == ENOMEM || err == EIO, "allocation %u: %d", i, err);
		cr_assert(holds("n", 'x', 5) || holds("d/x", 'x', 5));
		if (!fired)
			break;
		failed += err != 0;
		if (err != 0 && there("d/x"))
			cr_assert_eq(mv("d/x", "n"), 0, "allocation %u: %d", i, err);
		cr_assert(holds("n", 'x', 5));
		rig_until(&r, rig_no_session, NULL);
		cr_assert(TAILQ_EMPTY(&r.fs->locks.list));
	}
	cr_assert_eq(err, 0);
	cr_assert_gt(failed, 3);
}
