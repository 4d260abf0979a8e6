/* SPDX-License-Identifier: BSD-2-Clause */
/* Renames of directories on storage that cannot rename. */
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
#include "ops/rename.h"
#include "ops/session.h"
#include "ops_rig.h"

#define OPTS "attr_timeout=0,entry_timeout=0"

static struct rig r;

struct names {
	const char *from, *to;
};

/* What is below the directory that is renamed. */
static const char *const tree[] = {"f", "g", "s/h", "s/t/i", "z"};
#define TREE (sizeof(tree) / sizeof(tree[0]))

static void put_tree(const char *dir)
{
	char path[128];

	fake_add(&r.ufs, dir, UFS_DIR, 0, "");
	for (size_t i = 0; i < TREE; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, tree[i]);
		fake_add(&r.ufs, path, UFS_FILE, 5 + i, "v1");
	}
	snprintf(path, sizeof(path), "%s/empty", dir);
	fake_add(&r.ufs, path, UFS_DIR, 0, "");
}

static void begin_with(const char *opts)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount_writing(&r, opts);
	put_tree("p/src");
	fake_add(&r.ufs, "e", UFS_DIR, 0, "");
	fake_add(&r.ufs, "other", UFS_FILE, 5, "o1");
}

static void begin(void)
{
	begin_with(OPTS);
}

static void finish(void)
{
	rig_free(&r);
}

TestSuite(rename_dir, .fini = finish, .timeout = 60);

static int c_rename(const struct tmp_mount *tm, void *arg)
{
	const struct names *n = arg;
	int dir = open(tm->mnt, O_RDONLY | O_DIRECTORY);

	if (dir < 0)
		return errno;
	return renameat(dir, n->from, dir, n->to) == 0 ? 0 : errno;
}

static int mv(const char *from, const char *to)
{
	struct names n = {from, to};

	return rig_run(&r, c_rename, &n);
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

static bool quiet(struct rig *rig, void *arg)
{
	(void)arg;
	return rig->fs->sessions == NULL && rig->fs->nwork == 0 && rig->fs->recovery == NULL;
}

static bool whole(const char *dir)
{
	char path[128], buf[16];

	for (size_t i = 0; i < TREE; i++) {
		struct fake_file *ff;

		snprintf(path, sizeof(path), "%s/%s", dir, tree[i]);
		ff = fake_find(&r.ufs, path);
		if (ff == NULL || ff->size != 5 + i ||
		    fake_store_bytes(&r.ufs.store, path, ff->version, 0, buf, 1) != 0 ||
		    buf[0] != 'v')
			return false;
	}
	snprintf(path, sizeof(path), "%s/empty", dir);
	return there(path);
}

static bool gone(const char *dir)
{
	return !there(dir) && !fake_store_below(&r.ufs.store, dir);
}

struct asked {
	struct meta_intents all;
	struct meta_get get;
	bool done;
	int err;
};

static void intents_done(struct meta_req *rq, int err)
{
	struct asked *a = rq->user;

	a->done = true;
	a->err = err;
}

static size_t intents(void)
{
	struct asked a = {.done = false};
	size_t n;

	a.all.req.user = &a;
	meta_intents(r.meta, &a.all, intents_done);
	while (!a.done)
		loop_turn(r.loop, true);
	cr_assert_eq(a.err, 0);
	n = a.all.count;
	meta_intents_free(&a.all);
	return n;
}

static int record_of(const char *path, struct meta_record *rec)
{
	struct asked a = {.get.path = path};

	a.get.req.user = &a;
	meta_get(r.meta, &a.get, intents_done);
	while (!a.done)
		loop_turn(r.loop, true);
	*rec = a.get.rec;
	return a.err;
}

static unsigned notes(void)
{
	struct statedb_val k, v;

	if (statedb_seek(r.db, STATEDB_META, "moving:", 8, &k, &v) != 0)
		return 0;
	return k.len >= 8 && memcmp(k.data, "moving:", 8) == 0;
}

/* Nothing is left of any request. */
static void check_clean(void)
{
	rig_until(&r, quiet, NULL);
	cr_assert_eq(statedb_count(r.db, STATEDB_LEDGER), 0);
	cr_assert_eq(notes(), 0);
	cr_assert_eq(intents(), 0);
	cr_assert(TAILQ_EMPTY(&r.fs->locks.list));
	cr_assert(TAILQ_EMPTY(&r.fs->moves));
}

/* --- It works */

static void set_parallel(const char *n)
{
	struct errtext et;

	cr_assert_eq(config_set(r.cfg, "rename.parallel", n, &et), 0, "%s", et.s);
}

Test(rename_dir, everything_moves)
{
	begin();
	cr_assert_eq(mv("p/src", "dst"), 0);
	cr_assert(whole("dst") && gone("p/src"));
	cr_assert(there("p"), "the directory that it left");
	cr_assert_eq(did(FAKE_COPY), TREE);
	cr_assert_eq(did(FAKE_DELETE), 1, "in one batch");
	cr_assert_eq(run(rig_stat, "p/src"), ENOENT);
	cr_assert_eq(run(rig_stat, "dst/s/t/i"), 0);
	check_clean();
}

Test(rename_dir, onto_an_empty_one)
{
	begin();
	cr_assert_eq(mv("p/src", "e"), 0);
	cr_assert(whole("e") && gone("p/src"));
	check_clean();
}

Test(rename_dir, page_by_page_one_at_a_time)
{
	begin();
	set_parallel("1");
	r.ufs.page = 1;
	cr_assert_eq(mv("p/src", "dst"), 0);
	cr_assert(whole("dst") && gone("p/src"));
	check_clean();
}

Test(rename_dir, many_files)
{
	char path[64];

	begin();
	fake_add(&r.ufs, "m", UFS_DIR, 0, "");
	for (int i = 0; i < 200; i++) {
		snprintf(path, sizeof(path), "m/file%03d", i);
		fake_add(&r.ufs, path, UFS_FILE, 3, "m1");
	}
	r.ufs.page = 7;
	cr_assert_eq(mv("m", "n"), 0);
	cr_assert(gone("m"));
	for (int i = 0; i < 200; i++) {
		snprintf(path, sizeof(path), "n/file%03d", i);
		cr_assert(there(path));
	}
	cr_assert_eq(did(FAKE_COPY), 200);
	check_clean();
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
	begin();
	cr_assert_eq(run(c_open_below, NULL), 0);
	cr_assert(whole("dst"));
	check_clean();
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

	begin();
	cr_assert_eq(run(c_writes_below, NULL), 0);
	check_clean();
	cr_assert(gone("p/src"));
	cr_assert_eq(fake_store_bytes(&r.ufs.store, "dst/f",
			 fake_find(&r.ufs, "dst/f")->version, 0, buf, 5),
	    0);
	cr_assert_arr_eq(buf, "vXYvv", 5);
	cr_assert_eq(fake_find(&r.ufs, "dst/new")->size, 3);
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

	begin();
	was = fake_find(&r.ufs, "p/src/z")->mtime.tv_sec;
	cr_assert_eq(run(c_attributes, NULL), 0);
	cr_assert(record_of("dst", &rec) == 0 && rec.mode == 0701);
	cr_assert(record_of("dst/s", &rec) == 0 && rec.mode == 0711);
	cr_assert(record_of("dst/g", &rec) == 0 && rec.mtime.tv_sec == 12345);
	cr_assert_str_eq(rec.version, fake_find(&r.ufs, "dst/g")->version);
	cr_assert(record_of("dst/z", &rec) == 0 && rec.mtime.tv_sec == was);
	cr_assert_eq(record_of("p/src", &rec), -ENOENT);
	cr_assert_eq(record_of("p/src/g", &rec), -ENOENT);
	check_clean();
}

/* --- Others */

/* A file that another client makes in the old directory after it was listed. */
Test(rename_dir, a_late_file_is_not_lost)
{
	struct names n = {"p/src", "dst"};
	pid_t pid;

	begin();
	r.ufs.stall = true;
	pid = rig_start(&r, c_rename, &n);
	while (did(FAKE_DELETE) == 0 && !there("p/src/late")) {
		rig_until_waiting(&r, 1);
		fake_release_one(&r.ufs);
		while (fake_waiting(&r.ufs) == 0 && loop_turn(r.loop, false))
			;
		if (did(FAKE_COPY) == TREE)
			fake_add(&r.ufs, "p/src/late", UFS_FILE, 4, "l1");
	}
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, pid), 0);
	cr_assert(whole("dst") && there("dst/late") && gone("p/src"));
	check_clean();
}

Test(rename_dir, a_file_that_vanishes_is_no_failure)
{
	struct names n = {"p/src", "dst"};
	pid_t pid;

	begin();
	set_parallel("1");
	r.ufs.stall = true;
	pid = rig_start(&r, c_rename, &n);
	while (did(FAKE_COPY) == 0) {
		rig_until_waiting(&r, 1);
		fake_release_one(&r.ufs);
		while (fake_waiting(&r.ufs) == 0 && loop_turn(r.loop, false))
			;
	}
	fake_store_remove(&r.ufs.store, fake_find(&r.ufs, "p/src/z"));
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, pid), 0);
	cr_assert(there("dst/f") && !there("dst/z") && gone("p/src"));
	check_clean();
}

/* --- Failures while it copies: as before */

Test(rename_dir, a_failing_copy_is_undone)
{
	begin();
	for (unsigned nth = 1; nth <= TREE; nth++) {
		fake_store_fail(&r.ufs.store, FAKE_COPY, nth, 1, -EACCES, false);
		cr_assert_eq(mv("p/src", "dst"), EACCES, "copy %u", nth);
		cr_assert(whole("p/src") && gone("dst"), "copy %u", nth);
		check_clean();
		fake_store_fail(&r.ufs.store, FAKE_COPY, nth, 1, -EDQUOT, false);
		cr_assert_eq(mv("p/src", "e"), EDQUOT, "copy %u", nth);
		cr_assert(whole("p/src") && there("e") && !fake_store_below(&r.ufs.store, "e"),
		    "copy %u", nth);
		check_clean();
	}
	for (unsigned nth = 1; nth <= 4; nth++) {
		fake_store_fail(&r.ufs.store, FAKE_MKDIR, nth, 1, -EACCES, false);
		cr_assert_eq(mv("p/src", "dst"), EACCES, "mkdir %u", nth);
		cr_assert(whole("p/src") && gone("dst"), "mkdir %u", nth);
		check_clean();
	}
	cr_assert_eq(run(rig_stat, "p/src/s/t/i"), 0);
	cr_assert_eq(mv("p/src", "dst"), 0);
	cr_assert(whole("dst") && gone("p/src"));
	check_clean();
}

/* Failures from the switch on: told as done, and gone on with. */
Test(rename_dir, a_failing_delete_is_gone_on_with)
{
	begin();
	fake_store_fail(&r.ufs.store, FAKE_DELETE, 1, 1, -EACCES, false);
	cr_assert_eq(mv("p/src", "dst"), 0);
	cr_assert(whole("dst"));
	cr_assert_eq(run(rig_stat, "dst/s"), 0);
	check_clean();
	cr_assert(gone("p/src"));
	fake_store_fail(&r.ufs.store, FAKE_RMDIR, 2, 1, -EACCES, false);
	cr_assert_eq(mv("dst", "p/src"), 0);
	check_clean();
	cr_assert(whole("p/src") && gone("dst"));
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

static void clear(const char *dir)
{
	size_t n = strlen(dir);

	for (unsigned i = r.ufs.store.nfiles; i-- > 0;) {
		struct fake_file *ff = &r.ufs.store.file[i];

		if (strncmp(ff->path, dir, n) == 0 && (ff->path[n] == '/' || ff->path[n] == '\0'))
			fake_store_remove(&r.ufs.store, ff);
	}
}

/* recover: what a daemon does when it starts; without, the request alone goes on. */
static void kill_at_each(bool late, bool recover)
{
	struct names n = {"p/src", "dst"};
	bool ended = false;
	unsigned i;
	pid_t pid;

	begin();
	set_parallel("3");
	for (i = 0; !ended; i++) {
		clear("dst");
		clear("p/src");
		put_tree("p/src");
		rig_restart(&r);
		r.ufs.late_effects = late;
		r.ufs.stall = true;
		pid = rig_start(&r, c_rename, &n);
		ended = serve(i, pid);
		if (!ended) {
			rig_crash(&r);
			if (recover)
				fs_recover_intents(r.fs);
		}
		fake_release(&r.ufs);
		r.ufs.late_effects = false;
		cr_assert_eq(rig_wait(&r, pid), 0, "request %u", i);
		cr_assert(whole("dst") && gone("p/src"), "request %u", i);
		cr_assert_eq(run(rig_stat, "p/src"), ENOENT);
		cr_assert_eq(run(rig_stat, "dst/s/t/i"), 0);
		check_clean();
	}
	cr_assert_gt(i, 20);
}

Test(rename_dir, killed_at_each_step)
{
	kill_at_each(false, false);
}

Test(rename_dir, killed_at_each_step_late)
{
	kill_at_each(true, false);
}

Test(rename_dir, killed_at_each_step_recovering)
{
	kill_at_each(false, true);
}

Test(rename_dir, killed_at_each_step_late_recovering)
{
	kill_at_each(true, true);
}
