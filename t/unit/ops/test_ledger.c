/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "ops/ledger.h"
#include "ops_rig.h"

static struct rig r;

static void teardown(void)
{
	rig_free(&r);
}

static void setup(void)
{
	rig_new(&r);
}

TestSuite(ledger, .init = setup, .fini = teardown);
TestSuite(ledger_mount, .fini = teardown);

static const struct ledger_result some = {.node = 5, .fh = 6, .aux = {7, UINT64_MAX}};

static uint64_t rows(void)
{
	return statedb_count(r.db, STATEDB_LEDGER);
}

Test(ledger, stages)
{
	struct ledger_result got;

	cr_assert_eq(ledger_seen(r.fs, 42, &got), LEDGER_NEW);
	cr_assert_eq(ledger_intent(r.fs, 42, &some), 0);
	cr_assert_eq(ledger_seen(r.fs, 42, &got), LEDGER_INTENT);
	cr_assert_eq(memcmp(&got, &some, sizeof(got)), 0);
	cr_assert_eq(ledger_seen(r.fs, 43, &got), LEDGER_NEW);
	rig_restart(&r);
	cr_assert_eq(ledger_seen(r.fs, 42, &got), LEDGER_INTENT, "a new daemon knows");
	cr_assert_eq(memcmp(&got, &some, sizeof(got)), 0);
	got.node = 9;
	cr_assert_eq(ledger_done(r.fs, 42, &got), 0);
	cr_assert_eq(ledger_seen(r.fs, 42, &got), LEDGER_DONE);
	cr_assert_eq(got.node, 9);
	cr_assert_eq(ledger_seen(r.fs, 42, NULL), LEDGER_DONE);
}

Test(ledger, row_goes_with_the_reply)
{
	cr_assert_eq(ledger_done(r.fs, 1, &some), 0);
	cr_assert_eq(ledger_intent(r.fs, 2, NULL), 0);
	cr_assert_eq(ledger_intent(r.fs, 3, NULL), 0);
	ledger_drop(r.fs, 3);
	cr_assert_eq(rows(), 3, "until the turn ends");
	test_loop_settle(r.loop);
	cr_assert_eq(rows(), 1);
	cr_assert_eq(ledger_seen(r.fs, 2, NULL), LEDGER_INTENT);
	ledger_drop(r.fs, 2);
	ledger_drop(r.fs, 777); /* which has none */
	test_loop_settle(r.loop);
	cr_assert_eq(rows(), 0);
}

Test(ledger, reply_that_did_not_leave_keeps_the_row)
{
	uint64_t id;

	cr_assert_eq(ledger_intent(r.fs, 7, &some), 0);
	test_loop_settle(r.loop);
	/* Killed between the commit and the reply: what the turn's end would do is not. */
	cr_assert_eq(ledger_done(r.fs, 7, &some), 0);
	cr_assert_eq(fs_next_id(r.fs, &id), 0);
	cr_assert_eq(statedb_commit(r.db), 0);
	r.fs->nanswered = 0;
	rig_restart(&r);
	cr_assert_eq(ledger_seen(r.fs, 7, NULL), LEDGER_DONE);
	cr_assert(r.fs->ledger_old);
}

Test(ledger, damaged_row_is_no_row)
{
	uint64_t be = __builtin_bswap64(7);

	cr_assert_eq(statedb_put(r.db, STATEDB_LEDGER, &be, 8, "x", 1), 0);
	cr_assert_eq(ledger_seen(r.fs, 7, NULL), LEDGER_NEW);
}

Test(ledger, format_1_is_upgraded)
{
	uint64_t one = __builtin_bswap64(1), got;
	struct statedb_val v;

	cr_assert_eq(statedb_put(r.db, STATEDB_META, "format", 6, &one, 8), 0);
	rig_restart(&r);
	cr_assert_eq(statedb_get(r.db, STATEDB_META, "format", 6, &v), 0);
	memcpy(&got, v.data, 8);
	cr_assert_eq(__builtin_bswap64(got), 4);
}

/* --- With a kernel */

static int client_stat_two(const struct tmp_mount *tm, void *arg)
{
	int err = rig_stat(tm, "a");

	(void)arg;
	return err != 0 ? err : rig_stat(tm, "b");
}

/* Rows that a daemon left which died between its commit and its reply go with the first
 * request that is new. */
Test(ledger_mount, first_new_request_ends_old_rows)
{
	rig_mount(&r, "attr_timeout=0,entry_timeout=0");
	fake_add(&r.ufs, "a", UFS_FILE, 1, "v");
	fake_add(&r.ufs, "b", UFS_FILE, 1, "v");
	cr_assert_eq(ledger_intent(r.fs, 1ull << 40, &some), 0);
	cr_assert_eq(ledger_intent(r.fs, 1ull << 41, &some), 0);
	rig_restart(&r);
	cr_assert_eq(rows(), 2);
	cr_assert(r.fs->ledger_old);
	cr_assert_eq(rig_run(&r, client_stat_two, NULL), 0);
	cr_assert_eq(rows(), 0);
	cr_assert_not(r.fs->ledger_old);
}

static int client_mkdir(const struct tmp_mount *tm, void *arg)
{
	return mkdir(rig_at(tm, arg), 0755) == 0 ? 0 : errno;
}

static bool makes_directory(struct rig *rig, void *arg)
{
	(void)arg;
	return fake_waits(&rig->ufs, FAKE_MKDIR) || (fake_release_one(&rig->ufs), false);
}

/* An answer that comes when the kernel has put the request back to send it again is not
 * taken: what comes again is answered by what was done. */
Test(ledger_mount, answered_when_it_is_to_be_sent_again)
{
	pid_t pid;

	rig_mount_writing(&r, "attr_timeout=0,entry_timeout=0");
	fake_can(&r.ufs, UFS_CAN_SETATTR | UFS_CAN_RENAME | UFS_CAN_ABSENT);
	r.ufs.stall = true;
	pid = rig_start(&r, client_mkdir, "new");
	rig_until(&r, makes_directory, NULL);
	fuse_chan_disarm(r.chan);
	if (fuse_chan_resend(r.chan) != 0)
		cr_skip_test("needs Linux 6.9");
	fake_release(&r.ufs);
	while (fs_running(r.fs) > 0)
		loop_turn(r.loop, true);
	cr_assert_eq(loop_counters(r.loop)->v[CTR_FUSE_REPLY_ERRORS], 1);
	fuse_chan_arm(r.chan);
	cr_assert_eq(rig_wait(&r, pid), 0);
	cr_assert_eq(rig_run(&r, client_stat_two, NULL), ENOENT);
	cr_assert_eq(rows(), 0, "the first new request ends what is left");
}

/* A request that runs here and is sent again runs once, and is answered. */
Test(ledger_mount, sent_again_while_it_runs)
{
	pid_t pid;

	rig_mount(&r, "attr_timeout=0,entry_timeout=0");
	fake_add(&r.ufs, "a", UFS_FILE, 1, "v");
	r.ufs.stall = true;
	pid = rig_start(&r, rig_stat, "a");
	rig_until_waiting(&r, 1);
	if (fuse_chan_resend(r.chan) == 0)
		while (loop_counters(r.loop)->v[CTR_FUSE_RESENT] == 0)
			loop_turn(r.loop, true);
	cr_assert_eq(fs_running(r.fs), 1);
	cr_assert_eq(r.ufs.stats, 1);
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, pid), 0);
}
