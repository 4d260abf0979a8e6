/* SPDX-License-Identifier: BSD-2-Clause */
/* Uploads of which nobody knows whether they took effect: answers that were lost, objects
 * that somebody else replaced, and daemons that end with one on the wire. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "write_rig.h"

TestSuite(write_doubt, .fini = wr_finish);

/* The storage has made an object and nobody was told; more is written before it is tried
 * again.  Somebody else's object is not taken for it. */
static void lost_answer(bool restart)
{
	fake_store_fail(&wr.ufs.store, FAKE_PUT, 1, 2, -EIO, true);
	cr_assert_eq(wr_run(wr_c_create, "lost"), EIO);
	rig_until(&wr, wr_failed, NULL);
	cr_assert(wr_holds("lost", "0123456789", 10));
	if (restart)
		rig_restart(&wr);
	cr_assert_eq(wr_run(wr_c_append, "lost"), 0);
	cr_assert(wr_holds("lost", "0123456789tail!", 15));
	fake_store_fail(&wr.ufs.store, FAKE_PUT, 1, 2, -ETIMEDOUT, true);
	cr_assert_eq(wr_run(wr_c_append, "lost"), EIO);
	rig_until(&wr, wr_failed, NULL);
	cr_assert(wr_holds("lost", "0123456789tail!tail!", 20));
	if (restart)
		rig_restart(&wr);
	cr_assert_eq(wr_run(wr_c_overwrite, "lost"), 0);
	cr_assert(wr_holds("lost", "new", 3));
}

Test(write_doubt, a_lost_answer_and_more_writes)
{
	wr_begin();
	lost_answer(false);
}

Test(write_doubt, a_lost_answer_and_more_writes_by_the_next_daemon)
{
	wr_begin();
	lost_answer(true);
}

/* One byte of each part but the last; c_patch2 changes the second again. */
static int c_patch1(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_RDWR);

	if (fd < 0)
		return errno;
	if (pwrite(fd, "1", 1, 2) != 1)
		return errno;
	return close(fd) == 0 ? 0 : errno;
}

static int c_patch2(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_RDWR);

	if (fd < 0)
		return errno;
	if (pwrite(fd, "2", 1, 6 << 20) != 1)
		return errno;
	return close(fd) == 0 ? 0 : errno;
}

/* What has never been here was in an object that the lost upload has replaced. */
static void lost_parts(bool restart)
{
	const size_t len = 14 << 20;
	char *want = malloc(len);

	wr_begin();
	wr.cfg->write_part_size = 5 << 20;
	wr.ufs.store.strict = true;
	fake_add(&wr.ufs, "large", UFS_FILE, len, "l1");
	cr_assert_eq(fake_store_bytes(&wr.ufs.store, "large", "l1", 0, want, len), 0);
	want[2] = '1';
	want[6 << 20] = '2';
	fake_store_fail(&wr.ufs.store, FAKE_MULTI_END, 1, 2, -EIO, true);
	cr_assert_eq(wr_run(c_patch1, "large"), EIO);
	rig_until(&wr, wr_failed, NULL);
	if (restart)
		rig_restart(&wr);
	cr_assert_eq(wr_run(c_patch2, "large"), 0);
	rig_until(&wr, rig_no_session, NULL);
	cr_assert(wr_holds("large", want, len));
	free(want);
}

Test(write_doubt, a_lost_upload_in_parts_and_more_writes)
{
	lost_parts(false);
}

Test(write_doubt, a_lost_upload_in_parts_and_more_writes_by_the_next_daemon)
{
	lost_parts(true);
}

Test(write_doubt, a_lost_answer_and_another_writer)
{
	wr_begin();
	fake_store_fail(&wr.ufs.store, FAKE_PUT, 1, 2, -EIO, true);
	cr_assert_eq(wr_run(wr_c_create, "lost"), EIO);
	rig_until(&wr, wr_failed, NULL);
	fake_store_remove(&wr.ufs.store, fake_find(&wr.ufs, "lost"));
	fake_add(&wr.ufs, "lost", UFS_FILE, 4, "theirs");
	cr_assert_eq(wr_run(wr_c_append, "lost"), EEXIST);
	rig_until(&wr, wr_failed, NULL);
	cr_assert(wr_holds("lost", "tttt", 4));
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
	const struct fake_store *st = &wr.ufs.store;

	wr.ufs.stall = true;
	for (;;) {
		const struct session *s = wr.fs->sessions;
		bool begun = s != NULL && s->uploading != NULL && s->doubt &&
			     wr.ufs.reads == st->count[FAKE_READ];

		if (begun && fake_waiting(&wr.ufs) > 0)
			return;
		if (!begun)
			fake_release_one(&wr.ufs);
		loop_turn(wr.loop, true);
	}
}

/* Both versions stay: theirs in the storage, ours here. */
Test(write_doubt, a_newer_object_is_not_overwritten)
{
	pid_t pid;

	wr_begin();
	cr_assert_eq(wr_run(rig_stat, "d/small"), 0);
	pid = rig_start(&wr, c_slow_patch, (void *)"d/small");
	until_uploading();
	fake_store_remove(&wr.ufs.store, fake_find(&wr.ufs, "d/small"));
	fake_add(&wr.ufs, "d/small", UFS_FILE, 4, "theirs");
	fake_release(&wr.ufs);
	cr_assert_eq(rig_wait(&wr, pid), ESTALE);
	rig_until(&wr, wr_failed, NULL);
	cr_assert(wr_holds("d/small", "tttt", 4));
	cr_assert_eq(staged_size(wr.fs->sessions->sf), 5);
}

/* --- Killed, or handed over */

/* With the PUT on the wire, which takes effect or does not. */
static void killed_in_upload(bool effect, const char *name, rig_client *fn, const char *want)
{
	pid_t pid = rig_start(&wr, fn, (void *)(uintptr_t)name);

	until_uploading();
	wr.ufs.late_effects = effect;
	rig_crash(&wr);
	wr.ufs.late_effects = false;
	fake_release(&wr.ufs);
	cr_assert_eq(rig_wait(&wr, pid), 0);
	rig_until(&wr, rig_no_session, NULL);
	cr_assert(wr_holds(name, want, strlen(want)), "%s", name);
}

Test(write_doubt, killed_while_it_is_uploaded)
{
	wr_begin();
	killed_in_upload(false, "a", wr_c_steps, "0123456789");
	killed_in_upload(true, "b", wr_c_steps, "0123456789");
	killed_in_upload(false, "empty", wr_c_touch, "");
	killed_in_upload(true, "empty2", wr_c_touch, "");
	killed_in_upload(false, "d/small", wr_c_patch, "ssXss");
}

Test(write_doubt, killed_while_what_was_there_is_uploaded)
{
	wr_begin();
	killed_in_upload(true, "d/small", wr_c_patch, "ssXss");
}

static void quiet_fn(void *arg)
{
	*(bool *)arg = true;
}

/* A hand-over lets an upload end that is on the wire, and does not wait for ever. */
Test(write_doubt, hand_over_waits_for_the_wire)
{
	bool quiet = false;
	struct errtext et;
	pid_t pid;

	wr_begin();
	cr_assert_eq(
	    config_set(wr.cfg, "fuse.migration.mutation.wire.timeout", "10s", &et), 0);
	pid = rig_start(&wr, wr_c_steps, (void *)"a");
	until_uploading();
	fuse_chan_disarm(wr.chan);
	fs_handover_begin(wr.fs, quiet_fn, &quiet);
	for (int i = 0; i < 10; i++)
		loop_turn(wr.loop, false);
	cr_assert(!quiet);
	fake_release(&wr.ufs);
	while (!quiet)
		loop_turn(wr.loop, true);
	cr_assert(wr_holds("a", "0123456789", 10));
	cr_assert(!wr.fs->sessions->fresh);
	fs_handover_undo(wr.fs);
	fuse_chan_arm(wr.chan);
	cr_assert_eq(rig_wait(&wr, pid), 0);
	rig_until(&wr, rig_no_session, NULL);
	cr_assert_eq(wr.ufs.store.count[FAKE_PUT], 1, "not done twice");
}
