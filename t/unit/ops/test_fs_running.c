/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests that run when the daemon hands over or ends, or when their caller has a signal:
 * needs root (or is skipped). */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "fs_rig.h"

TestSuite(fs_running, .fini = fsr_finish);

/* --- Hand-over */

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

/* Everything held is fed to a new daemon, whose storage goes on as it was or answers. */
static void hand_over_to(bool reads, bool release)
{
	struct held_list held = STAILQ_HEAD_INITIALIZER(held);
	struct held_req *hr;
	bool done = false;

	fuse_chan_disarm(fsr.chan);
	fs_handover_begin(fsr.fs, set_flag, &done);
	cr_assert_not(done, "never inline");
	while (!done)
		loop_turn(fsr.loop, true);
	if (reads)
		fs_handover_end_reads(fsr.fs, true);
	while (fs_running(fsr.fs) > 0)
		loop_turn(fsr.loop, true);
	fs_handover_take(fsr.fs, &held);
	cr_assert(!STAILQ_EMPTY(&held));
	rig_restart(&fsr);
	if (release)
		fake_release(&fsr.ufs);
	while ((hr = STAILQ_FIRST(&held)) != NULL) {
		STAILQ_REMOVE_HEAD(&held, link);
		fuse_chan_feed(fsr.chan, hr->raw, hr->len);
		free(hr);
	}
}

static void hand_over(bool reads)
{
	hand_over_to(reads, true);
}

Test(fs_running, running_lookup_is_handed_over)
{
	pid_t pid;

	fsr_begin(FSR_NO_CACHE);
	fsr.ufs.stall = true;
	pid = rig_start(&fsr, rig_stat, (void *)"big");
	rig_until_waiting(&fsr, 1);
	hand_over(false);
	cr_assert_eq(rig_wait(&fsr, pid), 0);
}

Test(fs_running, running_read_is_handed_over)
{
	struct fsr_want big = {"big", 5 << 20, 'b'};
	pid_t pid;

	fsr_begin(FSR_LONG);
	cr_assert_eq(fsr_run_stat("big"), 0);
	fsr.ufs.stall = true;
	pid = rig_start(&fsr, fsr_c_read, &big);
	rig_until_waiting(&fsr, 1);
	hand_over(true);
	cr_assert_eq(rig_wait(&fsr, pid), 0);
}

Test(fs_running, running_listing_is_handed_over)
{
	pid_t pid;

	fsr_begin(FSR_LONG);
	fsr_add_many(300);
	cr_assert_eq(fsr_run_stat("many"), 0);
	fsr.ufs.page = 50;
	fsr.ufs.stall = true;
	pid = rig_start(&fsr, fsr_c_list, &(unsigned){300});
	rig_until_waiting(&fsr, 1);
	hand_over(false);
	cr_assert_eq(rig_wait(&fsr, pid), 0);
}

/* After the end of an old daemon the kernel sends again what runs here, too, and takes
 * no answer but to what it sent last. */
Test(fs_running, running_listing_is_sent_again)
{
	uint64_t resent;
	pid_t pid;

	fsr_begin(FSR_LONG);
	fsr_add_many(300);
	cr_assert_eq(fsr_run_stat("many"), 0);
	fsr.ufs.page = 50;
	fsr.ufs.stall = true;
	pid = rig_start(&fsr, fsr_c_list, &(unsigned){300});
	rig_until_waiting(&fsr, 1);
	if (fuse_chan_resend(fsr.chan) == 0) {
		resent = loop_counters(fsr.loop)->v[CTR_FUSE_RESENT];
		while (loop_counters(fsr.loop)->v[CTR_FUSE_RESENT] == resent)
			loop_turn(fsr.loop, true);
	}
	fake_release(&fsr.ufs);
	cr_assert_eq(rig_wait(&fsr, pid), 0);
}

/* The successor failed: what was held is done here. */
Test(fs_running, handover_is_undone)
{
	bool done = false;
	pid_t pid;

	fsr_begin(FSR_NO_CACHE);
	fsr.ufs.stall = true;
	pid = rig_start(&fsr, rig_stat, (void *)"big");
	rig_until_waiting(&fsr, 1);
	fuse_chan_disarm(fsr.chan);
	fs_handover_begin(fsr.fs, set_flag, &done);
	while (!done)
		loop_turn(fsr.loop, true);
	cr_assert_eq(fake_waiting(&fsr.ufs), 0, "given up in storage too");
	fake_release(&fsr.ufs);
	fs_handover_undo(fsr.fs);
	fuse_chan_arm(fsr.chan);
	cr_assert_eq(rig_wait(&fsr, pid), 0);
}

static void hold_no_more(void *arg)
{
	if (!fs_holds(fsr.fs))
		return;
	fs_handover_undo(fsr.fs);
	*(bool *)arg = true;
}

/* What was given up, but ends only after the hand-over has failed, is done again although
 * another request runs on all the time. */
Test(fs_running, handover_is_undone_before_all_is_held)
{
	struct fsr_want big = {"big", 5 << 20, 'b'};
	bool done = false, again = false;
	pid_t reader, pid;

	fsr_begin(FSR_LONG);
	fsr_add_many(3);
	cr_assert_eq(fsr_run_stat("big"), 0);
	fsr.ufs.stall = true;
	reader = rig_start(&fsr, fsr_c_read, &big);
	while (fs_running(fsr.fs) < 1)
		loop_turn(fsr.loop, true);
	pid = rig_start(&fsr, rig_stat, (void *)"many");
	while (fs_running(fsr.fs) < 2)
		loop_turn(fsr.loop, true);
	fs_on_idle(fsr.fs, hold_no_more, &again);
	fs_handover_begin(fsr.fs, set_flag, &done);
	fs_handover_undo(fsr.fs);
	while (!again)
		loop_turn(fsr.loop, true);
	cr_assert_gt(fs_running(fsr.fs), 0);
	fs_on_idle(fsr.fs, NULL, NULL);
	fake_release(&fsr.ufs);
	cr_assert_eq(rig_wait(&fsr, pid), 0);
	cr_assert_eq(rig_wait(&fsr, reader), 0);
}

/* Data reads may run on, and are aborted with EIO if so configured. */
Test(fs_running, running_read_is_aborted)
{
	struct fsr_want big = {"big", 5 << 20, 'b'};
	bool done = false;
	pid_t pid;

	fsr_begin(FSR_LONG);
	cr_assert_eq(fsr_run_stat("big"), 0);
	fsr.ufs.stall = true;
	pid = rig_start(&fsr, fsr_c_read, &big);
	rig_until_waiting(&fsr, 1);
	fuse_chan_disarm(fsr.chan);
	fs_handover_begin(fsr.fs, set_flag, &done);
	while (!done)
		loop_turn(fsr.loop, true);
	cr_assert_gt(fs_running(fsr.fs), 0);
	fs_handover_end_reads(fsr.fs, false);
	while (fs_running(fsr.fs) > 0)
		loop_turn(fsr.loop, true);
	fake_release(&fsr.ufs);
	fsr.ufs.err = -EIO;
	fuse_chan_arm(fsr.chan);
	cr_assert_eq(rig_wait(&fsr, pid), EIO);
}

/* --- Signals */

Test(fs_running, killed_caller_is_let_go)
{
	pid_t pid;

	fsr_begin(FSR_NO_CACHE);
	fsr.ufs.stall = true;
	pid = rig_start(&fsr, rig_stat, (void *)"big");
	rig_until_waiting(&fsr, 1);
	kill(pid, SIGKILL);
	cr_assert_eq(rig_wait(&fsr, pid), -1);
	while (fs_running(fsr.fs) > 0)
		loop_turn(fsr.loop, true);
	cr_assert_eq(fake_waiting(&fsr.ufs), 0);
	fake_release(&fsr.ufs);
}

static void on_signal(int signo)
{
	(void)signo;
}

static int c_signalled(const struct tmp_mount *tm, void *arg)
{
	struct sigaction sa = {.sa_handler = on_signal};

	sigaction(SIGUSR1, &sa, NULL);
	fsr_child_pause();
	return rig_stat(tm, arg);
}

/* A handled signal must not show as EINTR, though the kernel sends INTERRUPT. */
Test(fs_running, signalled_caller_sees_no_eintr)
{
	uint64_t requests;
	pid_t pid;

	fsr_begin(FSR_NO_CACHE);
	fsr_make_pipes();
	pid = rig_start(&fsr, c_signalled, (void *)"big");
	fsr_await_child();
	fsr.ufs.stall = true;
	fsr_wake_child();
	rig_until_waiting(&fsr, 1);
	requests = loop_counters(fsr.loop)->v[CTR_FUSE_REQUESTS];
	kill(pid, SIGUSR1);
	while (loop_counters(fsr.loop)->v[CTR_FUSE_REQUESTS] == requests)
		loop_turn(fsr.loop, true);
	cr_assert_eq(fake_waiting(&fsr.ufs), 1);
	fake_release(&fsr.ufs);
	cr_assert_eq(rig_wait(&fsr, pid), 0);
}

/* The kernel tells of a signal once: the daemon before was told. */
Test(fs_running, killed_caller_is_let_go_after_a_hand_over)
{
	uint64_t requests;
	pid_t pid;

	fsr_begin(FSR_NO_CACHE);
	fsr_make_pipes();
	pid = rig_start(&fsr, c_signalled, (void *)"big");
	fsr_await_child();
	fsr.ufs.stall = true;
	fsr_wake_child();
	rig_until_waiting(&fsr, 1);
	requests = loop_counters(fsr.loop)->v[CTR_FUSE_REQUESTS];
	kill(pid, SIGUSR1);
	while (loop_counters(fsr.loop)->v[CTR_FUSE_REQUESTS] == requests)
		loop_turn(fsr.loop, true);
	hand_over_to(false, false);
	rig_until_waiting(&fsr, 1);
	kill(pid, SIGKILL);
	cr_assert_eq(rig_wait(&fsr, pid), -1);
	while (fs_running(fsr.fs) > 0)
		loop_turn(fsr.loop, true);
	cr_assert_eq(fake_waiting(&fsr.ufs), 0);
	fake_release(&fsr.ufs);
}

Test(fs_running, cancel_all_ends_requests)
{
	pid_t pid;

	fsr_begin(FSR_NO_CACHE);
	fsr.ufs.stall = true;
	pid = rig_start(&fsr, rig_stat, (void *)"big");
	rig_until_waiting(&fsr, 1);
	fs_cancel_all(fsr.fs, -ENOTCONN);
	cr_assert_eq(rig_wait(&fsr, pid), ENOTCONN);
	cr_assert_eq(fs_running(fsr.fs), 0);
	fake_release(&fsr.ufs);
}
