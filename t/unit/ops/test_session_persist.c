/* SPDX-License-Identifier: BSD-2-Clause */
/* Sessions under a policy of the write cache, by themselves: persisted, written again after
 * they were made safe, changed in their attributes, unlinked. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "durable_rig.h"

TestSuite(session_persist, .fini = dr_finish);

/* --- Persisting */

Test(session_persist, persisted_it_is_the_storages)
{
	struct meta_record rec;
	struct session *s;
	struct node n;

	dr_begin();
	(void)dr_parked("a", META_POLICY_WRITE_BACK, DR_LARGE);
	s = dr_adopt("a");
	cr_assert_eq(dr_wait_for(s, dr_upload_forced), 0);
	dr_until_gone();
	dr_check_object("a", DR_LARGE);
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_PERSISTED);
	cr_assert(!rec.content.doubt);
	cr_assert_str_eq(rec.version, fake_find(&dr.ufs, "a")->version);
	cr_assert_eq(node_find(dr.fs, NODE_ROOT, "a", &n), 0);
	cr_assert_str_eq(n.version, rec.version);
	cr_assert_eq(n.size, DR_LARGE);
	dr_until_no_files();
	cr_assert_eq(statedb_count(dr.db, STATEDB_SESSIONS), 0);
}

Test(session_persist, write_through_says_so_at_once)
{
	struct meta_record rec;
	struct session *s;

	dr_begin();
	s = dr_make("a", META_POLICY_WRITE_THROUGH);
	dr_fill(s, 10000);
	cr_assert_eq(dr_secure(s), 0);
	cr_assert_eq(dr_wait_for(s, dr_upload_forced), 0);
	dr_check_object("a", 10000);
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_PERSISTED);
	/* The same descriptor goes on: it is to be persisted again. */
	dr_put(s, 10000, dr_content + 10000, 5000);
	cr_assert_eq(dr_secure(s), 0);
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_NOT_PERSISTED);
	cr_assert_eq(rec.content.size, 15000);
	cr_assert_str_eq(rec.version, fake_find(&dr.ufs, "a")->version);
	cr_assert_eq(dr_wait_for(s, dr_upload_forced), 0);
	cr_assert_eq(session_add_writer(s, -1), 0);
	dr_until_gone();
	dr_check_object("a", 15000);
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_PERSISTED);
	cr_assert_str_eq(rec.version, fake_find(&dr.ufs, "a")->version);
	dr_until_no_files();
}

Test(session_persist, a_failure_is_in_the_record)
{
	struct meta_record rec, again;
	struct session *s;

	dr_begin();
	(void)dr_parked("a", META_POLICY_WRITE_BACK, DR_LARGE);
	dr.ufs.err = -EACCES;
	s = dr_adopt("a");
	cr_assert_eq(dr_wait_for(s, dr_upload_forced), -EACCES);
	dr_until_gone();
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_NOT_PERSISTED);
	cr_assert_eq(rec.content.tries, 1);
	cr_assert_eq(rec.content.error, -EACCES);
	cr_assert_gt(rec.content.next_ns, loop_wall(dr.loop) - 5 * UINT64_C(1000000000));
	s = dr_adopt("a");
	cr_assert_eq(dr_wait_for(s, dr_upload_forced), -EACCES);
	dr_until_gone();
	cr_assert_eq(meta_rig_get(&dr, "a", &again), 0);
	cr_assert_eq(again.content.tries, 2);
	cr_assert_eq(again.content.since_ns, rec.content.since_ns);
	dr.ufs.err = 0;
	s = dr_adopt("a");
	cr_assert_eq(dr_wait_for(s, dr_upload_forced), 0);
	dr_until_gone();
	dr_check_object("a", DR_LARGE);
	cr_assert_eq(meta_rig_get(&dr, "a", &again), 0);
	cr_assert_eq(again.content.state, META_STATE_PERSISTED);
	cr_assert_eq(again.content.tries, 0);
	cr_assert_eq(again.content.error, 0);
}

Test(session_persist, somebody_elses_object_is_not_overwritten)
{
	struct meta_record rec;
	struct session *s;

	dr_begin();
	(void)dr_parked("a", META_POLICY_WRITE_BACK, DR_LARGE);
	fake_add(&dr.ufs, "a", UFS_FILE, DR_LARGE, "x1");
	s = dr_adopt("a");
	cr_assert_eq(dr_wait_for(s, dr_upload_forced), -EEXIST);
	dr_until_gone();
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_FAILED);
	cr_assert_eq(rec.content.error, -EEXIST);
	cr_assert_str_eq(fake_find(&dr.ufs, "a")->version, "x1");
	/* Both versions are kept, and the local one is shown. */
	s = dr_adopt("a");
	dr_compare(s, DR_LARGE);
	session_pump(s);
	dr_until_gone();
}

static bool put_waits(struct rig *rig, void *arg)
{
	(void)arg;
	return fake_waits(&rig->ufs, FAKE_PUT);
}

/* The object is made, but nobody hears of it: the next daemon finds that it is ours. */
Test(session_persist, an_upload_whose_end_nobody_saw_is_looked_at)
{
	struct meta_record rec;
	struct session_wait w = {.user = NULL};
	struct dr_step st = {.over = false};
	struct session *s;
	unsigned puts;

	dr_begin();
	(void)dr_parked("a", META_POLICY_WRITE_BACK, DR_LARGE);
	s = dr_adopt("a");
	dr.ufs.stall = true;
	dr.ufs.late_effects = true;
	w.user = &st;
	session_upload(s, &w, true, dr_wait_over);
	while (!put_waits(&dr, NULL))
		(void)loop_turn(dr.loop, false);
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert(rec.content.doubt, "before the first byte");
	rig_restart(&dr);
	fake_release(&dr.ufs);
	dr_until_gone();
	dr_check_object("a", DR_LARGE);
	s = dr_adopt("a");
	cr_assert_eq(dr_wait_for(s, dr_upload_forced), 0);
	dr_until_gone();
	puts = dr.ufs.store.count[FAKE_PUT];
	dr_check_object("a", DR_LARGE);
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_PERSISTED);
	cr_assert_str_eq(rec.version, fake_find(&dr.ufs, "a")->version);
	cr_assert_leq(puts, 2);
}

Test(session_persist, written_during_its_upload_it_waits_for_the_next)
{
	struct session_wait w = {.user = NULL};
	struct dr_step st = {.over = false};
	struct meta_record rec;
	struct session *s;

	dr_begin();
	s = dr_make("a", META_POLICY_WRITE_THROUGH);
	dr_fill(s, 10000);
	cr_assert_eq(dr_secure(s), 0);
	dr.ufs.stall = true;
	w.user = &st;
	session_upload(s, &w, true, dr_wait_over);
	while (!put_waits(&dr, NULL))
		(void)loop_turn(dr.loop, false);
	dr_put(s, 10000, dr_content + 10000, 100);
	fake_release(&dr.ufs);
	meta_rig_until(&dr, &st.over);
	cr_assert_eq(st.err, 0);
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_NOT_PERSISTED);
	cr_assert_eq(rec.content.size, 10000);
	cr_assert_str_eq(rec.version, fake_find(&dr.ufs, "a")->version);
	cr_assert_eq(dr_secure(s), 0);
	cr_assert_eq(dr_wait_for(s, dr_upload_forced), 0);
	cr_assert_eq(session_add_writer(s, -1), 0);
	dr_until_gone();
	dr_check_object("a", 10100);
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_PERSISTED);
}

/* Killed while it uploads, or before it took note of the end: a successor does not wait for
 * the queue, in which it may be no more. */
Test(session_persist, an_upload_that_ran_is_begun_again)
{
	struct meta_record rec;
	struct session *s;
	uint64_t node;

	dr_begin();
	(void)dr_parked("a", META_POLICY_WRITE_BACK, DR_LARGE);
	s = dr_adopt("a");
	node = s->node;
	dr_damage(node, 90, 1 | 16, 0);
	cr_assert_eq(statedb_commit(dr.db), 0);
	rig_restart(&dr);
	dr_until_gone();
	dr_check_object("a", DR_LARGE);
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_PERSISTED);
}

/* --- Written again after it was made safe */

Test(session_persist, what_is_safe_is_not_overwritten_without_a_note)
{
	struct meta_record rec;
	struct session *s;

	dr_begin();
	s = dr_make("a", META_POLICY_WRITE_BACK);
	dr_fill(s, DR_LARGE);
	cr_assert(!session_must_note(s, 0), "nothing is safe yet");
	cr_assert_eq(dr_secure(s), 0);
	cr_assert(!session_must_note(s, DR_LARGE), "an append");
	cr_assert(session_must_note(s, DR_LARGE - 1));
	cr_assert_eq(dr_wait_for(s, session_note), 0);
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert(rec.content.rewriting);
	cr_assert_eq(rec.content.size, DR_LARGE);
	cr_assert(!session_must_note(s, 0));
	dr_content[5000] ^= 1;
	dr_put(s, 5000, dr_content + 5000, 1);
	cr_assert_eq(dr_secure(s), 0);
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert(!rec.content.rewriting);
	cr_assert(session_must_note(s, 0));
	cr_assert_eq(session_add_writer(s, -1), 0);
	dr_until_gone();
	dr_compare(dr_adopt("a"), DR_LARGE);
}

Test(session_persist, a_change_under_way_is_not_forgotten_by_the_record)
{
	struct meta_record rec;
	struct session *s;

	dr_begin();
	s = dr_make("a", META_POLICY_WRITE_BACK);
	dr_fill(s, DR_LARGE);
	session_rewriter(s, 1);
	cr_assert_eq(dr_secure(s), 0);
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert(rec.content.rewriting);
	session_rewriter(s, -1);
	dr_put(s, DR_LARGE, dr_content + DR_LARGE, 1);
	cr_assert_eq(dr_secure(s), 0);
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert(!rec.content.rewriting);
}

/* Power loss after a cut that the record was told of, but not what came of it. */
Test(session_persist, cut_by_a_power_loss_it_can_still_be_read)
{
	struct meta_record rec;
	struct session *s;
	char path[160];

	dr_begin();
	rec = dr_parked("a", META_POLICY_WRITE_BACK, DR_LARGE);
	snprintf(path, sizeof(path), "%s/staged/%llx", dr.tm.src,
	    (unsigned long long)rec.content.id);
	cr_assert_eq(truncate(path, 5000), 0);
	rec.content.rewriting = true;
	meta_rig_put(&dr, "a", &rec);
	memset(dr_content + 5000, 0, DR_LARGE - 5000);
	s = dr_adopt("a");
	dr_compare(s, DR_LARGE);
	cr_assert_eq(dr_wait_for(s, dr_upload_forced), 0);
	dr_until_gone();
	dr_check_object("a", DR_LARGE);
}

/* The bytes in the store are those of the last secure, whatever the size was meanwhile. */
Test(session_persist, a_small_file_that_is_written_again_needs_no_note)
{
	struct meta_record rec;
	struct session *s;

	dr_begin();
	s = dr_make("a", META_POLICY_WRITE_BACK);
	dr_fill(s, 10000);
	cr_assert_eq(dr_secure(s), 0);
	cr_assert(!session_must_note(s, 0));
	dr.cfg->write_cache_inline = 0;
	dr_content[1] ^= 1;
	dr_put(s, 1, dr_content + 1, 1);
	cr_assert_eq(dr_secure(s), 0);
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert_eq(dr_stored(rec.content.id)->len, 10000);
	cr_assert_eq(memcmp(dr_stored(rec.content.id)->blob, dr_content, 10000), 0);
	cr_assert(!rec.content.rewriting);
}

/* --- Attributes */

Test(session_persist, attributes_of_a_kept_file_go_into_the_record)
{
	struct ufs_set set = {
	    .what = UFS_SET_MODE | UFS_SET_MTIME, .mode = 0601, .mtime = {.tv_sec = 7}};
	struct meta_record rec;
	struct session *s;
	struct node n;

	dr_begin();
	(void)dr_parked("a", META_POLICY_WRITE_BACK, 10000);
	s = dr_adopt("a");
	cr_assert_eq(session_set_attr(s, &set), 0);
	cr_assert(!session_is_safe(s));
	cr_assert_eq(dr_secure(s), 0);
	dr_until_gone();
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert_eq(rec.has & META_HAS_MODE, META_HAS_MODE);
	cr_assert_eq(rec.mode, 0601);
	cr_assert_eq(rec.mtime.tv_sec, 7);
	cr_assert_eq(rec.content.state, META_STATE_NOT_PERSISTED);
	cr_assert_eq(dr_stored(rec.content.id)->len, 10000);
	cr_assert_eq(node_find(dr.fs, NODE_ROOT, "a", &n), 0);
	cr_assert_eq(n.mode & 07777, 0601);
	cr_assert_eq(n.mtime.tv_sec, 7);
	/* Made again from the record it brings them along. */
	s = dr_adopt("a");
	cr_assert_eq(dr_wait_for(s, dr_upload_forced), 0);
	dr_until_gone();
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_PERSISTED);
	cr_assert_eq(rec.mode, 0601);
	cr_assert_eq(rec.mtime.tv_sec, 7);
}

/* --- Unlinked */

static void unlinked(struct session *s)
{
	cr_assert_eq(node_drop_name(dr.fs, s->node), 0);
	cr_assert_eq(session_orphan(s), 0);
}

Test(session_persist, an_orphan_is_never_recorded)
{
	struct meta_record rec;
	struct session *s;

	dr_begin();
	s = dr_make("a", META_POLICY_WRITE_BACK);
	dr_fill(s, DR_LARGE);
	unlinked(s);
	cr_assert_eq(dr.fs->sessions, NULL);
	dr_until_gone();
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), -ENOENT);
	dr_until_no_files();
}

Test(session_persist, an_orphan_while_it_is_made_safe)
{
	struct session_wait w = {.user = NULL};
	struct dr_step st = {.over = false};
	struct session *s;

	dr_begin();
	s = dr_make("a", META_POLICY_WRITE_BACK);
	dr_fill(s, DR_LARGE);
	w.user = &st;
	session_secure(s, &w, dr_wait_over);
	while (s->securing == NULL)
		(void)loop_turn(dr.loop, false);
	unlinked(s);
	meta_rig_until(&dr, &st.over);
	cr_assert_eq(st.err, 0);
	dr_until_gone();
	dr_until_no_files();
}

Test(session_persist, an_orphan_while_it_is_uploaded)
{
	struct session_wait w = {.user = NULL};
	struct dr_step st = {.over = false};
	struct session *s;

	dr_begin();
	(void)dr_parked("a", META_POLICY_WRITE_BACK, DR_LARGE);
	s = dr_adopt("a");
	dr.ufs.stall = true;
	w.user = &st;
	session_upload(s, &w, true, dr_wait_over);
	while (!put_waits(&dr, NULL))
		(void)loop_turn(dr.loop, false);
	unlinked(s);
	fake_release(&dr.ufs);
	meta_rig_until(&dr, &st.over);
	dr_until_gone();
	cr_assert_null(fake_find(&dr.ufs, "a"));
	dr_until_no_files();
}
