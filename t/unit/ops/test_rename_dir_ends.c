/* SPDX-License-Identifier: BSD-2-Clause */
/* Renaming a directory: killed, given up, found half done by the next daemon, without memory. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fault.h"
#include "move_rig.h"
#include "ops/node.h"
#include "ops/session.h"

TestSuite(rename_dir_ends, .fini = mvr_finish);

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
		while (fake_waiting(&mvr.ufs) == 0) {
			if (has_ended(pid))
				return true;
			loop_turn(mvr.loop, false);
		}
		if (i < n)
			fake_release_one(&mvr.ufs);
	}
	return false;
}

static void clear(const char *dir)
{
	size_t n = strlen(dir);

	for (unsigned i = mvr.ufs.store.nfiles; i-- > 0;) {
		struct fake_file *ff = &mvr.ufs.store.file[i];

		if (strncmp(ff->path, dir, n) == 0 && (ff->path[n] == '/' || ff->path[n] == '\0'))
			fake_store_remove(&mvr.ufs.store, ff);
	}
}

/* recover: what a daemon does when it starts; without, the request alone goes on. */
static void kill_at_each(bool late, bool recover, unsigned step)
{
	struct mvr_names n = {"p/src", "dst"};
	bool ended = false;
	unsigned i;
	pid_t pid;

	mvr_begin();
	mvr_set_parallel("3");
	for (i = 0; !ended; i += step) {
		clear("dst");
		clear("p/src");
		mvr_put_tree("p/src");
		rig_restart(&mvr);
		mvr.ufs.late_effects = late;
		mvr.ufs.stall = true;
		pid = rig_start(&mvr, mvr_c_rename, &n);
		ended = serve(i, pid);
		if (!ended) {
			rig_crash(&mvr);
			if (recover)
				fs_recover_intents(mvr.fs);
		}
		fake_release(&mvr.ufs);
		mvr.ufs.late_effects = false;
		cr_assert_eq(rig_wait(&mvr, pid), 0, "request %u", i);
		cr_assert(mvr_whole("dst") && mvr_gone("p/src"), "request %u", i);
		cr_assert_eq(mvr_run(rig_stat, "p/src"), ENOENT);
		cr_assert_eq(mvr_run(rig_stat, "dst/s/t/i"), 0);
		mvr_check_clean();
	}
	cr_assert_gt(i, 20);
}

Test(rename_dir_ends, killed_at_each_step)
{
	kill_at_each(false, false, 1);
}

Test(rename_dir_ends, killed_at_each_step_late)
{
	kill_at_each(true, false, 2);
}

Test(rename_dir_ends, killed_at_each_step_recovering)
{
	kill_at_each(false, true, 2);
}

Test(rename_dir_ends, killed_at_each_step_late_recovering)
{
	kill_at_each(true, true, 3);
}

/* --- Given up */

/* The caller is killed while files are copied: as before.  Later: it is done. */
Test(rename_dir_ends, a_killed_caller)
{
	struct mvr_names n = {"p/src", "dst"};
	bool undone = false, done = false, ended = false;
	pid_t pid;

	mvr_begin();
	mvr_set_parallel("2");
	for (unsigned i = 3; !ended; i += 3) {
		clear("dst");
		clear("p/src");
		mvr_put_tree("p/src");
		rig_restart(&mvr);
		mvr.ufs.stall = true;
		pid = rig_start(&mvr, mvr_c_rename, &n);
		ended = serve(i, pid);
		kill(pid, SIGKILL);
		while (!ended && !TAILQ_EMPTY(&mvr.fs->ops))
			loop_turn(mvr.loop, true);
		fake_release(&mvr.ufs);
		(void)rig_wait(&mvr, pid);
		mvr_check_clean();
		if (mvr_whole("p/src")) {
			undone = true;
			cr_assert(mvr_gone("dst"), "request %u", i);
		} else {
			done = true;
			cr_assert(mvr_whole("dst") && mvr_gone("p/src"), "request %u", i);
		}
	}
	cr_assert(undone && done);
}

/* A hand-over that does not come about: the job, and who waits for it, go on. */
static void flag_it(void *arg)
{
	*(bool *)arg = true;
}

Test(rename_dir_ends, a_handover_undone)
{
	struct mvr_names n = {"p/src", "dst"};
	bool ended = false;
	pid_t pid;

	mvr_begin();
	mvr_set_parallel("2");
	for (unsigned i = 1; !ended; i += 2) {
		bool still = false;

		clear("dst");
		clear("p/src");
		mvr_put_tree("p/src");
		rig_restart(&mvr);
		mvr.ufs.stall = true;
		pid = rig_start(&mvr, mvr_c_rename, &n);
		ended = serve(i, pid);
		if (!ended) {
			fuse_chan_disarm(mvr.chan);
			fs_handover_begin(mvr.fs, flag_it, &still);
			while (!still)
				loop_turn(mvr.loop, true);
			cr_assert(TAILQ_EMPTY(&mvr.fs->moves));
			fs_handover_undo(mvr.fs);
			fuse_chan_arm(mvr.chan);
		}
		fake_release(&mvr.ufs);
		cr_assert_eq(rig_wait(&mvr, pid), 0, "request %u", i);
		cr_assert(mvr_whole("dst") && mvr_gone("p/src"), "request %u", i);
		mvr_check_clean();
	}
}

/* --- Found in the store */

static void change(const struct meta_change *ch)
{
	struct mvr_asked a = {.done = false};
	struct meta_txn txn = {.changes = ch, .n = 1, .req.user = &a};

	meta_txn(mvr.meta, &txn, mvr_intents_done);
	while (!a.done)
		loop_turn(mvr.loop, true);
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
Test(rename_dir_ends, recovers_copying)
{
	mvr_begin();
	put_intent(MOVE_COPY, false);
	cr_assert_eq(mvr_run(rig_stat, "p/src/s/h"), 0);
	fs_recover_intents(mvr.fs);
	mvr_check_clean();
	cr_assert(mvr_whole("dst") && mvr_gone("p/src"));
	cr_assert_eq(mvr_run(rig_stat, "p/src"), ENOENT);
	cr_assert_eq(mvr_run(rig_stat, "dst/s/h"), 0);
	put_intent(MOVE_COPY, false);
	clear("dst");
	mvr_put_tree("p/src");
	fake_add(&mvr.ufs, "dst", UFS_DIR, 0, "");
	fake_add(&mvr.ufs, "dst/f", UFS_FILE, 5, "v1"); /* the same: it is not copied again */
	cr_assert_eq(mvr_run(rig_stat, "dst/f"), 0);
	memset(mvr.ufs.store.count, 0, sizeof(mvr.ufs.store.count));
	fs_recover_intents(mvr.fs);
	mvr_check_clean();
	cr_assert(mvr_whole("dst") && mvr_gone("p/src"));
	cr_assert_eq(mvr_did(FAKE_COPY), MVR_TREE - 1);
}

Test(rename_dir_ends, recovers_deleting)
{
	mvr_begin();
	mvr_put_tree("dst");
	clear("p/src/s");
	put_intent(MOVE_DELETE, false);
	fs_recover_intents(mvr.fs);
	mvr_check_clean();
	cr_assert(mvr_whole("dst") && mvr_gone("p/src"));
	cr_assert_eq(mvr_did(FAKE_COPY), 0);
}

Test(rename_dir_ends, recovers_undoing)
{
	mvr_begin();
	fake_add(&mvr.ufs, "dst", UFS_DIR, 0, "");
	fake_add(&mvr.ufs, "dst/f", UFS_FILE, 5, "c1");
	fake_add(&mvr.ufs, "dst/s/h", UFS_FILE, 5, "c1");
	fake_add(&mvr.ufs, "dst/mine", UFS_FILE, 5, "m1");
	put_intent(MOVE_UNDO, true);
	fs_recover_intents(mvr.fs);
	mvr_check_clean();
	cr_assert(mvr_whole("p/src") && mvr_there("dst") && mvr_there("dst/mine"));
	cr_assert(!mvr_there("dst/f") && mvr_gone("dst/s"));
}

/* Changes wait until the old ones have their locks. */
Test(rename_dir_ends, changes_wait_for_recovery)
{
	struct mvr_names n = {"p/src/f", "p/src/f2"};
	pid_t pid;
	int err;

	mvr_begin();
	put_intent(MOVE_COPY, false);
	mvr.ufs.stall = true;
	fs_recover_intents(mvr.fs);
	pid = rig_start(&mvr, mvr_c_rename, &n);
	while (TAILQ_EMPTY(&mvr.fs->moves))
		loop_turn(mvr.loop, true);
	fake_release(&mvr.ufs);
	err = rig_wait(&mvr, pid);
	/* ESTALE: on its way the kernel has met directories that went, first the node and then
	 * the one in the storage, and looks a path up anew but once. */
	cr_assert(err == ENOENT || err == ESTALE, "it is in another directory by now: %s",
	    strerror(err));
	mvr_check_clean();
	cr_assert(mvr_whole("dst") && mvr_gone("p/src"));
}

Test(rename_dir_ends, what_it_does_not_know_is_left_alone)
{
	static const unsigned char other[] = {99, 1, 2, 3};
	static const unsigned char damaged[] = {INTENT_KIND_RENAME, 1, 1, 0, 200, 0, 'a'};
	static const unsigned char newer[] = {INTENT_KIND_RENAME, 9, 1, 0, 0, 1, 'a', 'b'};
	static const unsigned char itself[] = {
	    INTENT_KIND_RENAME, 1, 1, 0, 0, 1, 'a', 'a', '/', 'b'};

	mvr_begin();
	put_blob(1, other, sizeof(other));
	put_blob(2, damaged, sizeof(damaged));
	put_blob(3, newer, sizeof(newer));
	put_blob(4, itself, sizeof(itself));
	put_blob(5, NULL, 0);
	put_intent(MOVE_COPY, false);
	fs_recover_intents(mvr.fs);
	rig_until(&mvr, mvr_quiet, NULL);
	cr_assert(mvr_whole("dst") && mvr_gone("p/src"));
	cr_assert_eq(mvr_intents(), 5);
}

/* --- The metadata store fails */

static void meta_fails(const char *point, unsigned nth)
{
	struct errtext et;
	char spec[64];

	snprintf(spec, sizeof(spec), "%s=errno:5@%u", point, nth);
	cr_assert_eq(fault_init(nth > 0 ? spec : "", &et), 0, "%s", et.s);
}

Test(rename_dir_ends, a_failing_metadata_store)
{
	static const char *const point[] = {"meta.commit", "meta.read"};
	bool failed = false, done = false;

	mvr_begin();
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned nth = 1; nth <= 8; nth++) {
			int err;

			clear("dst");
			clear("p/src");
			mvr_put_tree("p/src");
			rig_restart(&mvr);
			/* What looks at the names reads too. */
			cr_assert_eq(mvr_run(rig_stat, "p/src"), 0);
			meta_fails(point[i], nth);
			err = mvr_mv("p/src", "dst");
			meta_fails(point[i], 0);
			rig_until(&mvr, mvr_quiet, NULL);
			cr_assert(err == 0 || err == EIO, "%s %u: %d", point[i], nth, err);
			mvr_check_clean();
			if (err == 0) {
				done = true;
				cr_assert(mvr_whole("dst") && mvr_gone("p/src"), "%s %u", point[i], nth);
			} else {
				failed = true;
				cr_assert(mvr_whole("p/src") && mvr_gone("dst"), "%s %u", point[i], nth);
			}
		}
	}
	cr_assert(failed && done);
}

/* --- Out of memory */

Test(rename_dir_ends, no_memory)
{
	struct mvr_names n = {"p/src", "dst"};
	unsigned failed = 0;
	bool fired = true;
	int err;

	mvr_begin();
	for (unsigned i = 1; fired; i += i < 30 ? 1 : 7) {
		clear("dst");
		clear("p/src");
		mvr_put_tree("p/src");
		rig_restart(&mvr);
		err = rig_wait_nth(&mvr, rig_start(&mvr, mvr_c_rename, &n), i, &fired);
		rig_until(&mvr, mvr_quiet, NULL);
		cr_assert(err == 0 || err == ENOMEM || err == EIO, "allocation %u: %d", i, err);
		failed += err != 0;
		cr_assert(TAILQ_EMPTY(&mvr.fs->locks.list));
		cr_assert_eq(mvr_intents(), 0, "allocation %u", i);
		if (err == 0)
			cr_assert(mvr_whole("dst") && mvr_gone("p/src"), "allocation %u", i);
		else
			cr_assert((mvr_whole("p/src") && mvr_gone("dst")) ||
				      (mvr_whole("dst") && mvr_gone("p/src")),
			    "allocation %u: %d", i, err);
	}
	cr_assert_eq(err, 0);
	cr_assert_gt(failed, 10);
}
