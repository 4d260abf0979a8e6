/* SPDX-License-Identifier: BSD-2-Clause */
/* unlink(2) and rmdir(2) through a real mount. */
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

static struct rig r;

static void begin_with(const char *opts)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount_writing(&r, opts);
	fake_add(&r.ufs, "d", UFS_DIR, 0, "");
	fake_add(&r.ufs, "d/a", UFS_FILE, 5, "a1");
	fake_add(&r.ufs, "d/b", UFS_FILE, 5, "b1");
	fake_add(&r.ufs, "e", UFS_DIR, 0, "");
	fake_add(&r.ufs, "p/q/f", UFS_FILE, 5, "f1");
	fake_add(&r.ufs, "top", UFS_FILE, 5, "t1");
}

static void begin(void)
{
	begin_with(OPTS);
}

static void finish(void)
{
	rig_free(&r);
}

TestSuite(remove, .fini = finish);

static int run(rig_client *fn, const char *arg)
{
	return rig_run(&r, fn, (void *)(uintptr_t)arg);
}

static pid_t start(rig_client *fn, const char *arg)
{
	return rig_start(&r, fn, (void *)(uintptr_t)arg);
}

static bool there(const char *path)
{
	return fake_find(&r.ufs, path) != NULL;
}

static unsigned did(enum fake_op op)
{
	return r.ufs.store.count[op];
}

static int c_unlink(const struct tmp_mount *tm, void *arg)
{
	return unlink(rig_at(tm, arg)) == 0 ? 0 : errno;
}

static int c_rmdir(const struct tmp_mount *tm, void *arg)
{
	return rmdir(rig_at(tm, arg)) == 0 ? 0 : errno;
}

/* --- What it asks of the storage */

Test(remove, one_delete)
{
	begin();
	cr_assert_eq(run(c_unlink, "top"), 0);
	cr_assert_not(there("top"));
	cr_assert_eq(did(FAKE_DELETE), 1);
	cr_assert_eq(did(FAKE_MKDIR), 0, "the top needs no mark");
	cr_assert_eq(run(rig_stat, "top"), ENOENT);
	rig_check_clean(&r);
}

Test(remove, a_directory_is_marked_once_and_stays)
{
	begin();
	cr_assert_eq(run(c_unlink, "p/q/f"), 0);
	cr_assert_eq(did(FAKE_MKDIR), 1);
	cr_assert_eq(run(rig_stat, "p/q"), 0, "although its last name has gone");
	cr_assert_eq(run(c_unlink, "d/a"), 0);
	cr_assert_eq(run(c_unlink, "d/b"), 0);
	cr_assert_eq(did(FAKE_MKDIR), 2);
	cr_assert_eq(run(c_rmdir, "p/q"), 0);
	cr_assert_eq(run(rig_stat, "p"), 0);
	cr_assert_eq(run(c_rmdir, "p"), 0);
	cr_assert_eq(run(rig_stat, "p"), ENOENT);
	rig_check_clean(&r);
}

Test(remove, a_fresh_node_is_not_asked_for_again)
{
	unsigned n;

	begin_with("attr_timeout=60,entry_timeout=60");
	cr_assert_eq(run(rig_stat, "top"), 0);
	n = did(FAKE_STAT);
	cr_assert_eq(run(c_unlink, "top"), 0);
	cr_assert_eq(did(FAKE_STAT), n);
	cr_assert_eq(did(FAKE_DELETE), 1);
}

/* --- Refused */

Test(remove, refusals)
{
	begin();
	cr_assert_eq(run(c_unlink, "none"), ENOENT);
	cr_assert_eq(run(c_rmdir, "none"), ENOENT);
	cr_assert_eq(run(c_unlink, "d"), EISDIR);
	cr_assert_eq(run(c_rmdir, "top"), ENOTDIR);
	cr_assert_eq(run(c_rmdir, "d"), ENOTEMPTY);
	cr_assert_eq(run(c_rmdir, "p"), ENOTEMPTY);
	cr_assert_eq(did(FAKE_DELETE) + did(FAKE_RMDIR) + did(FAKE_MKDIR), 0);
	rig_check_clean(&r);
}

Test(remove, a_storage_with_directories_says_so_itself)
{
	begin();
	fake_can(&r.ufs, UFS_CAN_RENAME | UFS_CAN_SETATTR);
	cr_assert_eq(run(c_rmdir, "d"), ENOTEMPTY);
	cr_assert_eq(did(FAKE_RMDIR), 1);
	cr_assert_eq(run(c_unlink, "d/a"), 0);
	cr_assert_eq(run(c_unlink, "d/b"), 0);
	cr_assert_eq(run(c_rmdir, "d"), 0);
	cr_assert_eq(did(FAKE_MKDIR), 0);
	rig_check_clean(&r);
}

/* Another client's file, of which the kernel does not know. */
Test(remove, looks_below)
{
	begin_with("attr_timeout=60,entry_timeout=60");
	cr_assert_eq(run(rig_stat, "e"), 0);
	fake_add(&r.ufs, "e/new", UFS_FILE, 1, "n1");
	r.ufs.empty_first = true;
	cr_assert_eq(run(c_rmdir, "e"), ENOTEMPTY);
	cr_assert(there("e/new"));
}

/* --- Open files */

static int c_unlink_written(const struct tmp_mount *tm, void *arg)
{
	char buf[16];
	struct stat st;
	int fd = open(rig_at(tm, arg), O_CREAT | O_RDWR, 0644);

	if (fd < 0)
		return errno;
	if (write(fd, "0123456789", 10) != 10 || unlink(rig_at(tm, arg)) != 0)
		return errno;
	if (stat(rig_at(tm, arg), &st) == 0 || errno != ENOENT)
		return WRONG;
	if (pwrite(fd, "ab", 2, 4) != 2 || pread(fd, buf, 16, 0) != 10)
		return WRONG + 1;
	if (memcmp(buf, "0123ab6789", 10) != 0)
		return WRONG + 2;
	return fsync(fd) == 0 && close(fd) == 0 ? 0 : errno;
}

Test(remove, a_file_that_was_never_uploaded)
{
	begin();
	cr_assert_eq(run(c_unlink_written, "d/new"), 0);
	rig_check_clean(&r);
	cr_assert_not(there("d/new"));
	cr_assert_eq(did(FAKE_PUT) + did(FAKE_DELETE) + did(FAKE_MKDIR), 0, "not a word of it");
}

static int c_unlink_reading(const struct tmp_mount *tm, void *arg)
{
	char buf[16];
	int fd = open(rig_at(tm, arg), O_RDONLY);

	if (fd < 0 || unlink(rig_at(tm, arg)) != 0)
		return errno;
	return pread(fd, buf, 16, 0) == 5 && memcmp(buf, "ttttt", 5) == 0 ? 0 : WRONG;
}

Test(remove, who_reads_goes_on_reading)
{
	begin();
	cr_assert_eq(run(c_unlink_reading, "top"), 0);
	cr_assert_not(there("top"));
	rig_check_clean(&r);
}

static int c_unlink_changed(const struct tmp_mount *tm, void *arg)
{
	char buf[16];
	int fd = open(rig_at(tm, arg), O_RDWR);

	if (fd < 0 || pwrite(fd, "X", 1, 1) != 1 || unlink(rig_at(tm, arg)) != 0)
		return errno;
	if (pread(fd, buf, 16, 0) != 5 || memcmp(buf, "tXttt", 5) != 0)
		return WRONG;
	return close(fd) == 0 ? 0 : errno;
}

Test(remove, who_writes_goes_on_writing)
{
	begin();
	cr_assert_eq(run(c_unlink_changed, "top"), 0);
	rig_check_clean(&r);
	cr_assert_not(there("top"), "nothing brings it back");
	cr_assert_eq(did(FAKE_PUT), 0);
}

static int c_rmdir_of_local(const struct tmp_mount *tm, void *arg)
{
	char path[128];
	int fd, err;

	snprintf(path, sizeof(path), "%s/x", rig_at(tm, arg));
	fd = open(path, O_CREAT | O_WRONLY, 0644);
	if (fd < 0)
		return errno;
	err = rmdir(rig_at(tm, arg)) == 0 ? WRONG : errno;
	unlink(path);
	close(fd);
	return err;
}

Test(remove, a_file_that_only_this_mount_knows)
{
	begin();
	cr_assert_eq(run(c_rmdir_of_local, "e"), ENOTEMPTY);
	cr_assert_eq(run(c_rmdir, "e"), 0);
	fake_add(&r.ufs, "e", UFS_DIR, 0, "");
	fake_can(&r.ufs, UFS_CAN_RENAME | UFS_CAN_SETATTR);
	cr_assert_eq(run(c_rmdir_of_local, "e"), ENOTEMPTY);
	rig_check_clean(&r);
}

static int c_write(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_WRONLY | O_CREAT, 0644);

	if (fd < 0)
		return errno;
	return write(fd, "new", 3) == 3 && close(fd) == 0 ? 0 : errno;
}

static bool uploading(void)
{
	struct session *s = r.fs->sessions;

	return s != NULL && s->uploading != NULL && s->doubt && fake_waiting(&r.ufs) == 1;
}

/* The upload runs, and would bring it back. */
Test(remove, during_an_upload)
{
	pid_t writer, remover;

	begin_with("attr_timeout=60,entry_timeout=60"); /* no LOOKUP waits behind it */
	r.ufs.stall = true;
	writer = start(c_write, "w");
	while (!uploading()) {
		if (fake_waiting(&r.ufs) > 0)
			fake_release_one(&r.ufs);
		loop_turn(r.loop, true);
	}
	remover = start(c_unlink, "w");
	while (r.fs->locks.waiting == 0)
		loop_turn(r.loop, true);
	/* Given up, the object might appear behind the deletion. */
	cr_assert_eq(r.ufs.aborted, 0);
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, remover), 0);
	cr_assert_eq(rig_wait(&r, writer), 0);
	rig_check_clean(&r);
	cr_assert_not(there("w"));
	cr_assert_eq(did(FAKE_DELETE), 1);
}

/* --- Records */

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

static int record_of(const char *path)
{
	struct asked a = {.get.path = path};

	a.get.req.user = &a;
	meta_get(r.meta, &a.get, asked_done);
	while (!a.done)
		loop_turn(r.loop, true);
	return a.err;
}

static int c_chmod(const struct tmp_mount *tm, void *arg)
{
	return chmod(rig_at(tm, arg), 0705) == 0 ? 0 : errno;
}

Test(remove, its_record_goes_too)
{
	begin();
	cr_assert_eq(run(c_chmod, "d/a"), 0);
	cr_assert_eq(run(c_chmod, "e"), 0);
	cr_assert_eq(record_of("d/a"), 0);
	cr_assert_eq(run(c_unlink, "d/a"), 0);
	cr_assert_eq(run(c_rmdir, "e"), 0);
	cr_assert_eq(record_of("d/a"), -ENOENT);
	cr_assert_eq(record_of("e"), -ENOENT);
	rig_check_clean(&r);
}

/* --- Failures */

struct failing {
	enum fake_op op;
	unsigned nth;
	const char *path;
	bool dir;
};

Test(remove, a_failure_changes_nothing)
{
	static const struct failing row[] = {
	    {FAKE_MKDIR, 1, "d/a", false},
	    {FAKE_DELETE, 1, "d/a", false},
	    {FAKE_LIST, 1, "e", true},
	    {FAKE_RMDIR, 1, "e", true},
	};

	begin();
	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		const struct failing *f = &row[i];

		fake_store_fail(&r.ufs.store, f->op, f->nth, 1, -EACCES, false);
		cr_assert_eq(run(f->dir ? c_rmdir : c_unlink, f->path), EACCES, "row %zu", i);
		cr_assert(there(f->path));
		cr_assert_eq(run(rig_stat, f->path), 0);
		rig_check_clean(&r);
		cr_assert_eq(run(f->dir ? c_rmdir : c_unlink, f->path), 0);
		cr_assert_not(there(f->path));
		fake_add(&r.ufs, f->path, f->dir ? UFS_DIR : UFS_FILE, 5, f->dir ? "" : "a2");
		rig_restart(&r);
	}
}

static int c_fail_then_close(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_RDWR), err;

	if (fd < 0 || pwrite(fd, "X", 1, 1) != 1)
		return errno;
	err = unlink(rig_at(tm, arg)) == 0 ? WRONG : errno;
	return close(fd) == 0 ? err : WRONG + 1;
}

Test(remove, what_is_written_survives_a_failure)
{
	struct fake_file *ff;
	char buf[5];

	begin();
	fake_store_fail(&r.ufs.store, FAKE_DELETE, 1, 1, -EIO, false);
	cr_assert_eq(run(c_fail_then_close, "top"), EIO);
	rig_check_clean(&r);
	ff = fake_find(&r.ufs, "top");
	cr_assert_not_null(ff);
	cr_assert_eq(fake_store_bytes(&r.ufs.store, "top", ff->version, 0, buf, 5), 0);
	cr_assert_arr_eq(buf, "tXttt", 5);
}

static bool has_ended(pid_t pid)
{
	siginfo_t si = {0};

	return waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid == pid;
}

/* Killed at each of its requests, which then may or may not take effect. */
static void crash_at_each(rig_client *fn, const char *path, bool late)
{
	unsigned n;
	pid_t pid;

	for (n = 0;; n++) {
		bool ended = false;

		if (!there(path))
			fake_add(&r.ufs, path, fn == c_rmdir ? UFS_DIR : UFS_FILE, 5,
			    fn == c_rmdir ? "" : "a2");
		rig_restart(&r);
		r.ufs.late_effects = late;
		r.ufs.stall = true;
		pid = start(fn, path);
		for (unsigned i = 0; i <= n && !ended; i++) {
			while (fake_waiting(&r.ufs) == 0 && !ended) {
				loop_turn(r.loop, false);
				ended = has_ended(pid);
			}
			if (i < n && !ended)
				fake_release_one(&r.ufs);
		}
		if (!ended)
			rig_crash(&r);
		fake_release(&r.ufs);
		r.ufs.late_effects = false;
		cr_assert_eq(rig_wait(&r, pid), 0, "%s at request %u, late %d", path, n, late);
		cr_assert_not(there(path));
		cr_assert_eq(run(rig_stat, path), ENOENT);
		rig_check_clean(&r);
		if (ended)
			break;
	}
	cr_assert_gt(n, 2);
}

Test(remove, killed_at_each_step)
{
	begin();
	crash_at_each(c_unlink, "p/q/f", false);
	crash_at_each(c_unlink, "p/q/f", true);
	crash_at_each(c_rmdir, "p/e", false);
	crash_at_each(c_rmdir, "p/e", true);
}

/* --- Out of memory */

Test(remove, no_memory)
{
	unsigned n, failed = 0;
	int err, again;
	bool fired;

	begin();
	for (n = 1; n < 400; n++) {
		if (!there("d/a"))
			fake_add(&r.ufs, "d/a", UFS_FILE, 5, "a2");
		err = rig_wait_nth(&r, start(c_unlink, "d/a"), n, &fired);
		if (!fired) {
			cr_assert_eq(err, 0);
			break;
		}
		cr_assert(err == 0 || err == ENOMEM || err == EIO, "allocation %u: %d", n, err);
		failed += err != 0;
		again = run(c_unlink, "d/a");
		cr_assert(again == 0 || again == ENOENT, "allocation %u: %d, %d", n, err, again);
		cr_assert_not(there("d/a"));
		rig_until(&r, rig_no_session, NULL);
		cr_assert(TAILQ_EMPTY(&r.fs->locks.list));
	}
	cr_assert_gt(failed, 3);
}
