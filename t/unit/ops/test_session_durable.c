/* SPDX-License-Identifier: BSD-2-Clause */
/* Sessions under a policy of the write cache, by themselves: made safe, parked, made again
 * from their records. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "durable_rig.h"

TestSuite(session_durable, .fini = dr_finish);

/* --- Versions */

Test(session_durable, versions_name_the_content)
{
	char v[UFS_VERSION_MAX];
	uint64_t id = META_CONTENT_BIT | 0x1234;

	session_content_version(id, v);
	cr_assert_eq(session_version_content(v), id);
	cr_assert_eq(session_version_content(""), 0);
	cr_assert_eq(session_version_content("~"), 0);
	cr_assert_eq(session_version_content("~0000000000001234"), 0);
	cr_assert_eq(session_version_content("~800000000000123g"), 0);
	cr_assert_eq(session_version_content("d41d8cd98f00b204e9800998ecf8427e"), 0);
}

/* --- Safe, parked, made again */

static void kept_and_made_again(size_t len, bool inlined)
{
	struct meta_record rec;
	struct session *s;

	dr_begin();
	rec = dr_parked("a", META_POLICY_WRITE_BACK, len);
	cr_assert_eq(rec.has & META_HAS_CONTENT, META_HAS_CONTENT);
	cr_assert_eq(rec.content.state, META_STATE_NOT_PERSISTED);
	cr_assert_eq(rec.content.policy, META_POLICY_WRITE_BACK);
	cr_assert_eq(rec.content.size, len);
	cr_assert_neq(rec.content.since_ns, 0);
	cr_assert(!rec.content.rewriting && !rec.content.doubt);
	cr_assert_str_empty(rec.version);
	cr_assert_eq(dr_stored(rec.content.id)->len, inlined ? len : 0);
	s = dr_adopt("a");
	dr_compare(s, len);
	session_pump(s);
	dr_until_gone();
	cr_assert_eq(dr.ufs.store.count[FAKE_PUT], 0);
}

Test(session_durable, a_small_file_is_in_its_record)
{
	kept_and_made_again(10000, true);
}

Test(session_durable, a_larger_one_is_synced)
{
	kept_and_made_again(DR_LARGE, false);
}

Test(session_durable, an_empty_one_is_there_too)
{
	kept_and_made_again(0, false);
}

/* As after a power loss: rows and files are gone, the record has the bytes. */
Test(session_durable, a_small_file_needs_no_staged_file)
{
	struct session *s;
	char cmd[160];

	dr_begin();
	(void)dr_parked("a", META_POLICY_WRITE_BACK, 10000);
	snprintf(cmd, sizeof(cmd), "rm -f %s/staged/*", dr.tm.src);
	cr_assert_eq(system(cmd), 0);
	s = dr_adopt("a");
	dr_compare(s, 10000);
	session_pump(s);
	dr_until_gone();
}

Test(session_durable, adopting_needs_its_version)
{
	struct ufs_attr attr = {.kind = UFS_FILE, .size = 1, .version = "other"};
	struct meta_record rec;
	struct session *s;
	struct node n;

	dr_begin();
	rec = dr_parked("a", META_POLICY_WRITE_BACK, 10000);
	cr_assert_eq(node_find(dr.fs, NODE_ROOT, "a", &n), 0);
	cr_assert_eq(node_set_version(dr.fs, n.id, &attr), 0);
	cr_assert_eq(node_load(dr.fs, n.id, &n), 0);
	cr_assert_eq(session_adopt(dr.fs, &n, &rec, NULL, 0, &s), -ESTALE);
	rec.content.state = META_STATE_PERSISTED;
	session_content_version(rec.content.id, n.version);
	cr_assert_eq(session_adopt(dr.fs, &n, &rec, NULL, 0, &s), -ESTALE);
	cr_assert_null(s);
}

Test(session_durable, what_nobody_made_safe_is_made_so_at_the_last_close)
{
	struct meta_record rec;
	struct session *s;

	dr_begin();
	s = dr_make("a", META_POLICY_TRANSIENT);
	dr_fill(s, DR_LARGE);
	cr_assert_eq(session_add_writer(s, -1), 0);
	dr_until_gone();
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_TRANSIENT);
	cr_assert_eq(rec.content.size, DR_LARGE);
	s = dr_adopt("a");
	dr_compare(s, DR_LARGE);
	cr_assert_eq(dr_wait_for(s, dr_upload_forced), 0);
	dr_until_gone();
	cr_assert_eq(dr.ufs.store.count[FAKE_PUT], 0, "never uploaded");
}

/* --- It cannot be made safe */

static void fault(const char *spec)
{
	struct errtext et;

	cr_assert_eq(fault_init(spec, &et), 0, "%s", et.s);
}

Test(session_durable, what_cannot_be_made_safe_is_tried_again)
{
	struct meta_record rec;
	struct session *s;

	dr_begin();
	s = dr_make("a", META_POLICY_WRITE_BACK);
	dr_fill(s, DR_LARGE);
	fault("secure.synced=errno:28");
	cr_assert_eq(dr_secure(s), -ENOSPC);
	cr_assert(!session_is_safe(s));
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), -ENOENT);
	cr_assert_eq(session_add_writer(s, -1), 0);
	while (s->state != SESSION_FAILED)
		(void)loop_turn(dr.loop, true);
	cr_assert_eq(s->error, -ENOSPC);
	fault("");
	dr_until_gone();
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert_eq(rec.content.size, DR_LARGE);
	dr_compare(dr_adopt("a"), DR_LARGE);
}

/* Nobody who waits for a note, or an upload, waits for ever. */
Test(session_durable, what_may_be_recorded_is_recorded_before_anything_else)
{
	struct session *s;

	dr_begin();
	s = dr_make("a", META_POLICY_WRITE_BACK);
	dr_fill(s, DR_LARGE - 1);
	cr_assert_eq(dr_secure(s), 0);
	dr_put(s, DR_LARGE - 1, dr_content + DR_LARGE - 1, 1);
	s->unsure = true;
	fault("secure.synced=errno:5");
	cr_assert_eq(dr_wait_for(s, session_note), -EIO);
	cr_assert_eq(dr_wait_for(s, dr_upload_forced), -EIO);
	cr_assert_eq(s->content.size, DR_LARGE - 1);
	fault("");
	cr_assert_eq(dr_wait_for(s, session_note), 0);
	cr_assert(session_is_safe(s) && !s->unsure);
	cr_assert(s->noted);
	cr_assert_eq(s->content.size, DR_LARGE);
	cr_assert_eq(session_add_writer(s, -1), 0);
	dr_until_gone();
	dr_compare(dr_adopt("a"), DR_LARGE);
}

Test(session_durable, never_recorded_and_never_uploaded_it_says_why)
{
	struct session *s;

	dr_begin();
	s = dr_make("a", META_POLICY_WRITE_THROUGH);
	dr_fill(s, DR_LARGE);
	fault("secure.synced=errno:5");
	cr_assert_eq(dr_wait_for(s, dr_upload_forced), -EIO);
	fault("");
	cr_assert_eq(dr_wait_for(s, dr_upload_forced), 0);
	dr_check_object("a", DR_LARGE);
	cr_assert_eq(session_add_writer(s, -1), 0);
	dr_until_gone();
}

Test(session_durable, of_a_mount_that_ends_it_is_tried_at_once)
{
	struct meta_record rec;
	struct session *s;

	dr_begin();
	s = dr_make("a", META_POLICY_WRITE_BACK);
	dr_fill(s, DR_LARGE);
	fault("secure.synced=errno:5@1");
	cr_assert_eq(session_add_writer(s, -1), 0);
	while (s->state != SESSION_FAILED)
		(void)loop_turn(dr.loop, true);
	s->unsafe = 100;
	fs_close_writers(dr.fs);
	cr_assert_eq(fs_unsent(dr.fs), 1);
	dr_until_gone();
	cr_assert_eq(fs_unsent(dr.fs), 0);
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_NOT_PERSISTED);
	cr_assert_eq(dr.ufs.store.count[FAKE_PUT], 0);
	fault("");
}

/* --- A daemon ends */

Test(session_durable, a_successor_makes_safe_what_was_written)
{
	struct meta_record rec;
	struct session *s;
	uint64_t node;

	dr_begin();
	s = dr_make("a", META_POLICY_WRITE_BACK);
	node = s->node;
	dr_fill(s, DR_LARGE);
	rig_restart(&dr);
	s = session_of(dr.fs, node);
	cr_assert_not_null(s);
	cr_assert_eq(s->state, SESSION_OPEN);
	cr_assert_eq(s->policy, META_POLICY_WRITE_BACK);
	cr_assert(!session_is_safe(s) && !s->recorded);
	cr_assert_eq(session_add_writer(s, -1), 0);
	dr_until_gone();
	cr_assert_eq(meta_rig_get(&dr, "a", &rec), 0);
	cr_assert_eq(rec.content.size, DR_LARGE);
	s = dr_adopt("a");
	dr_compare(s, DR_LARGE);
	session_pump(s);
	dr_until_gone();
}

Test(session_durable, a_successor_knows_what_is_safe)
{
	struct session *s;
	uint64_t node, id;

	dr_begin();
	s = dr_make("a", META_POLICY_WRITE_BACK);
	node = s->node;
	id = s->content.id;
	dr_fill(s, DR_LARGE);
	cr_assert_eq(dr_secure(s), 0);
	rig_restart(&dr);
	s = session_of(dr.fs, node);
	cr_assert_not_null(s);
	cr_assert(session_is_safe(s));
	cr_assert_eq(s->content.id, id);
	cr_assert_eq(s->content.size, DR_LARGE);
	cr_assert(session_must_note(s, 0));
	dr_put(s, DR_LARGE, dr_content + DR_LARGE, 1);
	cr_assert(!session_is_safe(s));
	cr_assert_eq(session_add_writer(s, -1), 0);
	dr_until_gone();
	dr_compare(dr_adopt("a"), DR_LARGE + 1);
}

/* Rows of programs before there was a write cache are 88 bytes. */
Test(session_durable, rows_without_a_policy_are_as_they_were)
{
	struct fake_file *ff;
	struct statedb_val v;
	struct session *s;
	struct node n;
	uint64_t be;

	dr_begin();
	ff = fake_add(&dr.ufs, "old", UFS_FILE, 5, "o1");
	cr_assert_not_null(ff);
	cr_assert_eq(rig_run(&dr, rig_stat, (void *)(uintptr_t) "old"), 0);
	cr_assert_eq(node_find(dr.fs, NODE_ROOT, "old", &n), 0);
	cr_assert_eq(session_new(dr.fs, &n, "old", true, 0, &s), 0);
	cr_assert_eq(session_add_writer(s, 1), 0);
	be = htobe64(n.id);
	cr_assert_eq(statedb_get(dr.db, STATEDB_SESSIONS, &be, sizeof(be), &v), 0);
	cr_assert_eq(v.len, 88);
	cr_assert_eq(((const unsigned char *)v.data)[0], 1);
	rig_restart(&dr);
	s = session_of(dr.fs, n.id);
	cr_assert_not_null(s);
	cr_assert_eq(s->policy, META_POLICY_NO_CACHE);
	cr_assert_eq(staged_size(s->sf), 5);
	cr_assert_eq(session_add_writer(s, -1), 0);
	dr_until_gone();
}

/* What a row says is believed as a whole or not at all; the files stay. */
Test(session_durable, damaged_rows_are_refused)
{
	static const struct {
		size_t at;
		unsigned char value;
		size_t len;
	} cases[] = {{0, 3, 0}, {0, 1, 0}, {1, 5, 0}, {88, 9, 0}, {88, 0, 0}, {89, 7, 0},
	    {0, 2, 88}, {0, 2, 87}, {0, 2, 100}};
	struct session *s;
	uint64_t node;

	dr_begin();
	s = dr_make("a", META_POLICY_WRITE_BACK);
	node = s->node;
	dr_fill(s, DR_LARGE);
	cr_assert_eq(dr_secure(s), 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct session probe = {.fs = dr.fs, .node = node};

		dr_damage(node, cases[i].at, cases[i].value, cases[i].len);
		cr_assert_eq(session_row_load(&probe), -EPROTO, "case %zu", i);
		cr_assert_eq(session_store(s), 0);
		cr_assert_eq(session_row_load(&probe), 0, "case %zu", i);
	}
	dr_damage(node, 0, 9, 0);
	cr_assert_eq(statedb_commit(dr.db), 0);
	rig_restart(&dr);
	cr_assert_null(session_of(dr.fs, node));
	cr_assert_eq(dr_staged_files(), 2, "the file and its sums");
}
