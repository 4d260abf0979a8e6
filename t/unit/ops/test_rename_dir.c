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

#include "base/fault.h"
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

TestSuite(rename_dir, .fini = finish);

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
static void kill_at_each(bool late, bool recover, unsigned step)
{
	struct names n = {"p/src", "dst"};
	bool ended = false;
	unsigned i;
	pid_t pid;

	begin();
	set_parallel("3");
	for (i = 0; !ended; i += step) {
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
	kill_at_each(false, false, 1);
}

Test(rename_dir, killed_at_each_step_late)
{
	kill_at_each(true, false, 2);
}

Test(rename_dir, killed_at_each_step_recovering)
{
	kill_at_each(false, true, 2);
}

Test(rename_dir, killed_at_each_step_late_recovering)
{
	kill_at_each(true, true, 3);
}

/* --- Given up */

/* The caller is killed while files are copied: as before.  Later: it is done. */
Test(rename_dir, a_killed_caller)
{
	struct names n = {"p/src", "dst"};
	bool undone = false, done = false, ended = false;
	pid_t pid;

	begin();
	set_parallel("2");
	for (unsigned i = 3; !ended; i += 3) {
		clear("dst");
		clear("p/src");
		put_tree("p/src");
		rig_restart(&r);
		r.ufs.stall = true;
		pid = rig_start(&r, c_rename, &n);
		ended = serve(i, pid);
		kill(pid, SIGKILL);
		while (!ended && !TAILQ_EMPTY(&r.fs->ops))
			loop_turn(r.loop, true);
		fake_release(&r.ufs);
		(void)rig_wait(&r, pid);
		check_clean();
		if (whole("p/src")) {
			undone = true;
			cr_assert(gone("dst"), "request %u", i);
		} else {
			done = true;
			cr_assert(whole("dst") && gone("p/src"), "request %u", i);
		}
	}
	cr_assert(undone && done);
}

/* A hand-over that does not come about: the job, and who waits for it, go on. */
static void flag_it(void *arg)
{
	*(bool *)arg = true;
}

Test(rename_dir, a_handover_undone)
{
	struct names n = {"p/src", "dst"};
	bool ended = false;
	pid_t pid;

	begin();
	set_parallel("2");
	for (unsigned i = 1; !ended; i += 2) {
		bool still = false;

		clear("dst");
		clear("p/src");
		put_tree("p/src");
		rig_restart(&r);
		r.ufs.stall = true;
		pid = rig_start(&r, c_rename, &n);
		ended = serve(i, pid);
		if (!ended) {
			fuse_chan_disarm(r.chan);
			fs_handover_begin(r.fs, flag_it, &still);
			while (!still)
				loop_turn(r.loop, true);
			cr_assert(TAILQ_EMPTY(&r.fs->moves));
			fs_handover_undo(r.fs);
			fuse_chan_arm(r.chan);
		}
		fake_release(&r.ufs);
		cr_assert_eq(rig_wait(&r, pid), 0, "request %u", i);
		cr_assert(whole("dst") && gone("p/src"), "request %u", i);
		check_clean();
	}
}

/* --- Found in the store */

static void change(const struct meta_change *ch)
{
	struct asked a = {.done = false};
	struct meta_txn txn = {.changes = ch, .n = 1, .req.user = &a};

	meta_txn(r.meta, &txn, intents_done);
	while (!a.done)
		loop_turn(r.loop, true);
	cr_assert_eq(a.err, 0);
}

static void put_blob(uint64_t id, const void *blob, size_t len)
{
	change(&(struct meta_change){
	    .verb = META_INTENT_PUT, .id = id, .blob = blob, .blob_len = len});
}

static void put_intent(enum move_phase phase, bool dst_was)
{
	static struct move_intent in;
	unsigned char blob[MOVE_BLOB_MAX];

	in = (struct move_intent){
	    .id = 77, .phase = phase, .dst_was = dst_was, .src = "p/src", .dst = "dst"};
	put_blob(in.id, blob, move_encode(&in, blob));
}

/* What a mount of before the power failed left, at any point. */
Test(rename_dir, recovers_copying)
{
	begin();
	put_intent(MOVE_COPY, false);
	cr_assert_eq(run(rig_stat, "p/src/s/h"), 0);
	fs_recover_intents(r.fs);
	check_clean();
	cr_assert(whole("dst") && gone("p/src"));
	cr_assert_eq(run(rig_stat, "p/src"), ENOENT);
	cr_assert_eq(run(rig_stat, "dst/s/h"), 0);
	put_intent(MOVE_COPY, false);
	clear("dst");
	put_tree("p/src");
	fake_add(&r.ufs, "dst", UFS_DIR, 0, "");
	fake_add(&r.ufs, "dst/f", UFS_FILE, 5, "v1"); /* the same: it is not copied again */
	cr_assert_eq(run(rig_stat, "dst/f"), 0);
	memset(r.ufs.store.count, 0, sizeof(r.ufs.store.count));
	fs_recover_intents(r.fs);
	check_clean();
	cr_assert(whole("dst") && gone("p/src"));
	cr_assert_eq(did(FAKE_COPY), TREE - 1);
}

Test(rename_dir, recovers_deleting)
{
	begin();
	put_tree("dst");
	clear("p/src/s");
	put_intent(MOVE_DELETE, false);
	fs_recover_intents(r.fs);
	check_clean();
	cr_assert(whole("dst") && gone("p/src"));
	cr_assert_eq(did(FAKE_COPY), 0);
}

Test(rename_dir, recovers_undoing)
{
	begin();
	fake_add(&r.ufs, "dst", UFS_DIR, 0, "");
	fake_add(&r.ufs, "dst/f", UFS_FILE, 5, "c1");
	fake_add(&r.ufs, "dst/s/h", UFS_FILE, 5, "c1");
	fake_add(&r.ufs, "dst/mine", UFS_FILE, 5, "m1");
	put_intent(MOVE_UNDO, true);
	fs_recover_intents(r.fs);
	check_clean();
	cr_assert(whole("p/src") && there("dst") && there("dst/mine"));
	cr_assert(!there("dst/f") && gone("dst/s"));
}

/* Changes wait until the old ones have their locks. */
Test(rename_dir, changes_wait_for_recovery)
{
	struct names n = {"p/src/f", "p/src/f2"};
	pid_t pid;

	begin();
	put_intent(MOVE_COPY, false);
	r.ufs.stall = true;
	fs_recover_intents(r.fs);
	pid = rig_start(&r, c_rename, &n);
	while (TAILQ_EMPTY(&r.fs->moves))
		loop_turn(r.loop, true);
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, pid), ENOENT, "it is in another directory by now");
	check_clean();
	cr_assert(whole("dst") && gone("p/src"));
}

Test(rename_dir, what_it_does_not_know_is_left_alone)
{
	static const unsigned char other[] = {99, 1, 2, 3};
	static const unsigned char damaged[] = {INTENT_KIND_RENAME, 1, 1, 0, 200, 0, 'a'};
	static const unsigned char newer[] = {INTENT_KIND_RENAME, 9, 1, 0, 0, 1, 'a', 'b'};
	static const unsigned char itself[] = {
	    INTENT_KIND_RENAME, 1, 1, 0, 0, 1, 'a', 'a', '/', 'b'};

	begin();
	put_blob(1, other, sizeof(other));
	put_blob(2, damaged, sizeof(damaged));
	put_blob(3, newer, sizeof(newer));
	put_blob(4, itself, sizeof(itself));
	put_blob(5, NULL, 0);
	put_intent(MOVE_COPY, false);
	fs_recover_intents(r.fs);
	rig_until(&r, quiet, NULL);
	cr_assert(whole("dst") && gone("p/src"));
	cr_assert_eq(intents(), 5);
}

/* --- The metadata store fails */

static void meta_fails(const char *point, unsigned nth)
{
	struct errtext et;
	char spec[64];

	snprintf(spec, sizeof(spec), "%s=errno:5@%u", point, nth);
	cr_assert_eq(fault_init(nth > 0 ? spec : "", &et), 0, "%s", et.s);
}

Test(rename_dir, a_failing_metadata_store)
{
	static const char *const point[] = {"meta.commit", "meta.read"};
	bool failed = false, done = false;

	begin();
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned nth = 1; nth <= 8; nth++) {
			int err;

			clear("dst");
			clear("p/src");
			put_tree("p/src");
			rig_restart(&r);
			/* What looks at the names reads too. */
			cr_assert_eq(run(rig_stat, "p/src"), 0);
			meta_fails(point[i], nth);
			err = mv("p/src", "dst");
			meta_fails(point[i], 0);
			rig_until(&r, quiet, NULL);
			cr_assert(err == 0 || err == EIO, "%s %u: %d", point[i], nth, err);
			check_clean();
			if (err == 0) {
				done = true;
				cr_assert(whole("dst") && gone("p/src"), "%s %u", point[i], nth);
			} else {
				failed = true;
				cr_assert(whole("p/src") && gone("dst"), "%s %u", point[i], nth);
			}
		}
	}
	cr_assert(failed && done);
}

/* --- Out of memory */

Test(rename_dir, no_memory)
{
	struct names n = {"p/src", "dst"};
	unsigned failed = 0;
	bool fired = true;
	int err;

	begin();
	for (unsigned i = 1; fired; i += i < 30 ? 1 : 7) {
		clear("dst");
		clear("p/src");
		put_tree("p/src");
		rig_restart(&r);
		err = rig_wait_nth(&r, rig_start(&r, c_rename, &n), i, &fired);
		rig_until(&r, quiet, NULL);
		cr_assert(err == 0 || err == ENOMEM || err == EIO, "allocation %u: %d", i, err);
		failed += err != 0;
		cr_assert(TAILQ_EMPTY(&r.fs->locks.list));
		cr_assert_eq(intents(), 0, "allocation %u", i);
		if (err == 0)
			cr_assert(whole("dst") && gone("p/src"), "allocation %u", i);
		else
			cr_assert((whole("p/src") && gone("dst")) ||
				      (whole("dst") && gone("p/src")),
			    "allocation %u: %d", i, err);
	}
	cr_assert_eq(err, 0);
	cr_assert_gt(failed, 10);
}
