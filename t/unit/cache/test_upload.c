/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "upload_rig.h"

static struct up_rig t;
static struct up_file f;

static void setup(void)
{
	up_rig_init(&t);
	srand(1);
}

static void teardown(void)
{
	up_rig_fini(&t);
}

TestSuite(upload, .init = setup, .fini = teardown);

static struct fake_store *store(void)
{
	return &t.g.ufs->store;
}

static unsigned count(enum fake_op op)
{
	return store()->count[op];
}

Test(upload, an_empty_file_is_a_put_of_nothing)
{
	up_open(&f, &t, "f", 0);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	cr_assert_eq(count(FAKE_PUT), 1);
	cr_assert_eq(f.run.size, 0);
	up_close(&f);
}

Test(upload, a_small_file_is_one_put)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, UP_UNIT, true);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	cr_assert_eq(count(FAKE_PUT), 1);
	cr_assert_eq(count(FAKE_MULTI_BEGIN), 0);
	cr_assert_eq(f.run.size, UP_UNIT);
	cr_assert_eq(f.run.attr.size, UP_UNIT);
	cr_assert_eq(rig_counter(&t.g, CTR_UPLOAD_PUTS), 1);
	cr_assert_eq(rig_counter(&t.g, CTR_UPLOAD_BYTES), UP_UNIT);
	up_close(&f);
}

Test(upload, conditions_reach_the_storage)
{
	up_open(&f, &t, "f", 100);
	up_write(&f, 10, 1, false);
	up_start(&f);
	f.run.absent = true;
	cr_assert_eq(up_wait(&f), -EEXIST);
	up_start(&f);
	f.run.if_version = "other";
	cr_assert_eq(up_wait(&f), -ESTALE);
	up_write(&f, 3 * UP_UNIT, 1, false);
	up_start(&f);
	f.run.if_version = "other";
	cr_assert_eq(up_wait(&f), -ESTALE);
	up_start(&f);
	f.run.if_version = "base";
	cr_assert_eq(up_wait(&f), 0);
	cr_assert(up_right(&f));
	cr_assert_eq(rig_counter(&t.g, CTR_UPLOAD_ERRORS), 3);
	up_close(&f);
}

Test(upload, a_large_file_goes_in_parts)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 10 * UP_UNIT + 1, false);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	cr_assert_eq(count(FAKE_PART), 11);
	cr_assert_eq(store()->part_bytes, f.size);
	cr_assert_eq(fake_store_uploads(store()), 0);
	cr_assert_eq(rig_counter(&t.g, CTR_UPLOAD_PARTS), 11);
	cr_assert_eq(statedb_count(t.db, STATEDB_PARTS), 0);
	cr_assert_str_eq(upload_id(f.up), "");
	up_close(&f);
}

Test(upload, holes_are_sent_as_zeros)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 5 * UP_UNIT, 10, false);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	up_close(&f);
}

Test(upload, appending_to_a_large_file_sends_what_is_new)
{
	up_open(&f, &t, "f", 20 * UP_UNIT);
	up_write(&f, f.size, 100, true);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	cr_assert_eq(store()->part_bytes, 100);
	cr_assert_eq(store()->copied_bytes, 20 * UP_UNIT);
	cr_assert_eq(t.g.ufs->bytes, 0, "nothing is to be fetched");
	up_write(&f, f.size, 100, true);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	cr_assert_eq(store()->part_bytes, 300);
	up_close(&f);
}

Test(upload, a_change_in_a_large_file_sends_its_part)
{
	up_open(&f, &t, "f", 20 * UP_UNIT + 5);
	up_write(&f, 7 * UP_UNIT + 100, 1, true);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	cr_assert_eq(store()->part_bytes, UP_UNIT);
	cr_assert_eq(store()->copied_bytes, 19 * UP_UNIT + 5);
	cr_assert_eq(rig_counter(&t.g, CTR_UPLOAD_COPIED_BYTES), 19 * UP_UNIT + 5);
	up_close(&f);
}

Test(upload, parts_too_small_to_copy_are_sent)
{
	t.us->part_min = UP_UNIT + 4096;
	t.g.cfg->write_part_size = 2 * UP_UNIT;
	up_open(&f, &t, "f", 3 * UP_UNIT);
	up_write(&f, 0, 1, false);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	cr_assert_eq(store()->copied_bytes, UP_UNIT, "the last one may be small");
	up_close(&f);
}

Test(upload, an_object_that_was_replaced_is_not_copied_from)
{
	up_open(&f, &t, "f", 4 * UP_UNIT);
	up_write(&f, 0, 1, false);
	strcpy(fake_store_find(store(), "f")->version, "other");
	cr_assert_eq(up_run(&f), -ESTALE);
	cr_assert_str_eq(fake_store_find(store(), "f")->version, "other");
	upload_drop(f.up);
	up_settle(&t);
	cr_assert_eq(fake_store_uploads(store()), 0);
	up_close(&f);
}

Test(upload, a_storage_that_cannot_copy_is_sent_all)
{
	up_open(&f, &t, "f", 6 * UP_UNIT);
	up_write(&f, 0, 1, false);
	fake_store_fail(store(), FAKE_PART, 2, 1, -EOPNOTSUPP, false);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	up_close(&f);
}

/* --- failures */

static const enum fake_op steps[] = { FAKE_MULTI_BEGIN, FAKE_PART, FAKE_MULTI_END };

Test(upload, every_failure_is_reported_and_the_next_run_goes_on)
{
	for (unsigned i = 0; i < ARRAY_LEN(steps); i++) {
		for (unsigned nth = 1; nth <= (steps[i] == FAKE_PART ? 6 : 1); nth++) {
			for (unsigned effect = 0; effect < 2; effect++) {
				/* A base that our own object has replaced is no base. */
				up_open(&f, &t, "f", effect ? 0 : 4 * UP_UNIT);
				up_write(&f, 3 * UP_UNIT, 2 * UP_UNIT + 1, false);
				fake_store_fail(store(), steps[i], nth, 1, -EIO, effect);
				cr_assert_eq(up_run(&f), -EIO, "%u %u", i, nth);
				cr_assert(!upload_running(f.up));
				cr_assert_eq(up_run(&f), 0, "%u %u", i, nth);
				cr_assert(up_right(&f), "%u %u", i, nth);
				up_settle(&t);
				cr_assert_eq(fake_store_uploads(store()), 0, "%u %u", i, nth);
				cr_assert_eq(statedb_count(t.db, STATEDB_PARTS), 0);
				up_close(&f);
				fake_store_remove(store(), fake_store_find(store(), "f"));
				fake_store_fini(store());
			}
		}
	}
}

Test(upload, a_put_that_fails_is_reported)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 10, false);
	fake_store_fail(store(), FAKE_PUT, 1, 1, -EACCES, false);
	cr_assert_eq(up_run(&f), -EACCES);
	cr_assert_null(fake_store_find(store(), "f"));
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	up_close(&f);
}

Test(upload, sent_parts_are_not_sent_again_after_a_failure)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 10 * UP_UNIT, false);
	t.g.cfg->write_upload_parallel = 1;
	fake_store_fail(store(), FAKE_PART, 8, 1, -EIO, false);
	cr_assert_eq(up_run(&f), -EIO);
	cr_assert_eq(upload_sent(f.up), 7 * UP_UNIT);
	cr_assert_eq(up_run(&f), 0);
	cr_assert_eq(store()->part_bytes, f.size);
	cr_assert(up_right(&f));
	up_close(&f);
}

static void lose_uploads(void)
{
	for (unsigned i = 0; i < FAKE_UPLOADS; i++)
		store()->upload[i].id[0] = '\0';
}

Test(upload, an_upload_that_the_storage_lost_is_begun_anew)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 6 * UP_UNIT, false);
	for (unsigned at = 0; at < 2; at++) {
		/* All parts sent, or one still to be sent. */
		fake_store_fail(store(), at == 0 ? FAKE_MULTI_END : FAKE_PART, 6 - 5 * (at == 0), 1,
		    -EIO, false);
		t.g.cfg->write_upload_parallel = 1;
		cr_assert_eq(up_run(&f), -EIO);
		cr_assert_str_neq(upload_id(f.up), "");
		lose_uploads();
		cr_assert_eq(up_run(&f), 0);
		cr_assert(up_right(&f));
		up_write(&f, 0, f.size, false);
	}
	up_close(&f);
}

Test(upload, it_is_not_begun_anew_for_ever)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 6 * UP_UNIT, false);
	fake_store_fail(store(), FAKE_PART, 1, 1000, -ENOENT, false);
	cr_assert_eq(up_run(&f), -EIO);
	cr_assert_eq(count(FAKE_MULTI_BEGIN), 5);
	up_close(&f);
}

Test(upload, parts_that_are_others_than_we_think_begin_it_anew)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 6 * UP_UNIT, false);
	fake_store_fail(store(), FAKE_MULTI_END, 1, 1, -EIO, false);
	cr_assert_eq(up_run(&f), -EIO);
	strcpy(store()->upload[0].part[2].etag, "late");
	cr_assert_eq(up_run(&f), 0);
	cr_assert_eq(count(FAKE_MULTI_BEGIN), 2);
	cr_assert(up_right(&f));
	up_settle(&t);
	cr_assert_eq(fake_store_uploads(store()), 0);
	up_close(&f);
}

Test(upload, a_base_that_cannot_be_read_is_reported)
{
	up_open(&f, &t, "f", 4 * UP_UNIT);
	up_write(&f, 10, 1, false);
	strcpy(fake_store_find(store(), "f")->version, "other");
	cr_assert_eq(up_run(&f), -ESTALE);
	up_close(&f);
}

/* --- giving up */

Test(upload, it_can_be_given_up_at_every_step_and_done_again)
{
	for (unsigned steps_to = 0, ended = 0; !ended; steps_to++) {
		t.g.ufs->late_effects = steps_to % 2;
		up_open(&f, &t, "f", steps_to % 2 ? 0 : 3 * UP_UNIT);
		t.g.hold = true;
		up_write(&f, 2 * UP_UNIT + 1, 3 * UP_UNIT, false);
		up_start(&f);
		for (unsigned i = 0; i < steps_to; i++) {
			if (!loop_turn(t.g.loop, pool_outstanding(t.g.pool) > 0))
				(void)fake_step_one(t.g.ufs, 0);
		}
		t.g.hold = false;
		ended = f.done;
		if (!f.done) {
			up_abort(&f);
			up_again(&f);
			up_start(&f);
		}
		cr_assert_eq(up_wait(&f), 0, "after %u", steps_to);
		cr_assert(up_right(&f), "after %u", steps_to);
		up_close(&f);
		fake_store_remove(store(), fake_store_find(store(), "f"));
		cr_assert_eq(t.us->charged, 0);
		cr_assert_eq(t.us->flying, 0);
	}
}

Test(upload, another_daemon_goes_on_with_the_parts_that_are_there)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 10 * UP_UNIT + 9, false);
	t.g.hold = true;
	t.g.cfg->write_upload_parallel = 3;
	up_start(&f);
	while (count(FAKE_PART) < 7) {
		if (!loop_turn(t.g.loop, pool_outstanding(t.g.pool) > 0))
			(void)fake_step_one(t.g.ufs, 0);
	}
	(void)loop_turn(t.g.loop, false);
	upload_free(&f.up);
	staged_not_uploaded(f.sf);
	up_rig_again(&t);
	up_again(&f);
	cr_assert_eq(upload_sent(f.up), 7 * UP_UNIT);
	cr_assert_str_neq(upload_id(f.up), "");
	t.g.hold = false;
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	cr_assert_eq(store()->part_bytes, f.size);
	up_close(&f);
}

Test(upload, the_size_of_parts_stays_while_an_upload_lasts)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 10 * UP_UNIT, false);
	fake_store_fail(store(), FAKE_MULTI_END, 1, 1, -EIO, false);
	cr_assert_eq(up_run(&f), -EIO);
	t.g.cfg->write_part_size = 4 * UP_UNIT;
	up_again(&f);
	cr_assert_eq(up_run(&f), 0);
	cr_assert_eq(store()->part_bytes, f.size);
	up_write(&f, 0, f.size, false);
	cr_assert_eq(up_run(&f), 0);
	cr_assert_eq(count(FAKE_PART), 13);
	cr_assert(up_right(&f));
	up_close(&f);
}

Test(upload, rows_that_are_not_understood_are_dropped)
{
	static const unsigned char key[12] = { 0, 0, 0, 0, 0, 0, 0, 1 };

	log_set_level(LOG_LVL_ERROR);
	cr_assert_eq(statedb_put(t.db, STATEDB_PARTS, key, 12, "\x63what", 5), 0);
	up_open(&f, &t, "f", 0);
	cr_assert_eq(statedb_count(t.db, STATEDB_PARTS), 0);
	up_write(&f, 0, 3 * UP_UNIT, false);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	up_close(&f);
}

/* --- changes while it runs */

Test(upload, what_is_written_during_a_run_is_sent_by_the_next)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 8 * UP_UNIT, false);
	t.g.hold = true;
	up_start(&f);
	while (count(FAKE_PART) < 4) {
		if (!loop_turn(t.g.loop, pool_outstanding(t.g.pool) > 0))
			(void)fake_step_one(t.g.ufs, 0);
	}
	up_write(&f, 5, 10, true);
	up_write(&f, 7 * UP_UNIT, 10, true);
	up_write(&f, 8 * UP_UNIT, 10, true);
	t.g.hold = false;
	cr_assert_eq(up_wait(&f), 0);
	cr_assert_eq(f.run.size, 8 * UP_UNIT);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	up_close(&f);
}

Test(upload, what_is_written_during_a_run_that_fails_is_sent_again)
{
	for (unsigned crash = 0; crash < 2; crash++) {
		up_open(&f, &t, crash ? "g" : "f", 0);
		up_write(&f, 0, 8 * UP_UNIT, false);
		fake_store_fail(store(), FAKE_MULTI_END, 1, 1, -EIO, false);
		t.g.hold = true;
		up_start(&f);
		while (fake_running(t.g.ufs, FAKE_MULTI_END) == 0) {
			if (!loop_turn(t.g.loop, pool_outstanding(t.g.pool) > 0))
				(void)fake_step_one(t.g.ufs, 0);
		}
		up_write(&f, 5, 10, true);
		t.g.hold = false;
		cr_assert_eq(up_wait(&f), -EIO);
		cr_assert_eq(upload_sent(f.up), 7 * UP_UNIT);
		if (crash)
			up_again(&f);
		cr_assert_eq(upload_sent(f.up), 7 * UP_UNIT);
		cr_assert_eq(up_run(&f), 0);
		cr_assert(up_right(&f));
		up_close(&f);
	}
}

Test(upload, a_file_may_be_cut_off_at_every_moment)
{
	static const uint64_t sizes[] = { 0, 10, UP_UNIT, 3 * UP_UNIT, 3 * UP_UNIT + 7,
		5 * UP_UNIT };

	for (unsigned s = 0; s < ARRAY_LEN(sizes); s++) {
		for (unsigned at = 0, ended = 0; !ended; at++) {
			up_open(&f, &t, "f", 0);
			up_write(&f, 0, 5 * UP_UNIT + 1, false);
			t.g.hold = true;
			up_start(&f);
			for (unsigned i = 0; i < at && !f.done; i++) {
				if (!loop_turn(t.g.loop, pool_outstanding(t.g.pool) > 0))
					(void)fake_step_one(t.g.ufs, 0);
			}
			t.g.hold = false;
			ended = f.done;
			up_truncate(&f, sizes[s]);
			cr_assert_eq(up_wait(&f), 0, "%u at %u", s, at);
			cr_assert_eq(up_run(&f), 0, "%u at %u", s, at);
			cr_assert(up_right(&f), "%u at %u", s, at);
			up_settle(&t);
			cr_assert_eq(fake_store_uploads(store()), 0);
			up_close(&f);
			fake_store_remove(store(), fake_store_find(store(), "f"));
		}
	}
}

/* --- places, and dropping */

Test(upload, dropping_tells_the_storage)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 6 * UP_UNIT, false);
	fake_store_fail(store(), FAKE_MULTI_END, 1, 1, -EIO, false);
	cr_assert_eq(up_run(&f), -EIO);
	cr_assert_eq(fake_store_uploads(store()), 1);
	upload_drop(f.up);
	cr_assert_str_eq(upload_id(f.up), "");
	cr_assert_eq(upload_sent(f.up), 0);
	up_close(&f);
	up_settle(&t);
	cr_assert_eq(fake_store_uploads(store()), 0);
	cr_assert_eq(statedb_count(t.db, STATEDB_PARTS), 0);
}

Test(upload, what_was_dropped_is_told_by_the_next_daemon)
{
	for (unsigned how = 0; how < 4; how++) {
		up_open(&f, &t, "f", 0);
		up_write(&f, 0, 6 * UP_UNIT, false);
		fake_store_fail(store(), FAKE_MULTI_END, 1, 1, -EIO, false);
		cr_assert_eq(up_run(&f), -EIO);
		if (how >= 2) { /* nobody says where it was */
			upload_free(&f.up);
			cr_assert_eq(upload_new(t.us, f.sf, &f.up), 0);
		}
		if (how == 1)
			fake_store_fail(store(), FAKE_MULTI_ABORT, 1, 1, -EIO, false);
		if (how == 3)
			uploads_resume(t.us, &t.g.ufs, 1);
		t.g.hold = how == 0 || how == 2;
		upload_drop(f.up);
		up_settle(&t);
		up_close(&f);
		cr_assert_eq(fake_store_uploads(store()), how != 3);
		up_rig_again(&t);
		t.g.hold = false;
		uploads_resume(t.us, &t.g.ufs, 1);
		uploads_resume(t.us, &t.g.ufs, 1);
		up_settle(&t);
		cr_assert_eq(fake_store_uploads(store()), 0);
		cr_assert_eq(statedb_count(t.db, STATEDB_PARTS), 0);
	}
	cr_assert_eq(count(FAKE_MULTI_ABORT), 5);
}

Test(upload, another_place_begins_anew)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 6 * UP_UNIT, false);
	fake_store_fail(store(), FAKE_MULTI_END, 1, 1, -EIO, false);
	cr_assert_eq(up_run(&f), -EIO);
	strcpy(f.path, "moved");
	up_again(&f); /* from rows, at another place */
	cr_assert_eq(upload_sent(f.up), 0);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	cr_assert_null(fake_store_find(store(), "f"));
	up_settle(&t);
	cr_assert_eq(fake_store_uploads(store()), 0);
	up_close(&f);
}

Test(upload, a_beginning_that_nobody_waits_for_is_ended)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 6 * UP_UNIT, false);
	t.g.hold = true;
	up_start(&f);
	while (fake_running(t.g.ufs, FAKE_MULTI_BEGIN) == 0)
		(void)loop_turn(t.g.loop, false);
	up_abort(&f);
	upload_free(&f.up);
	t.g.hold = false;
	up_settle(&t);
	cr_assert_eq(count(FAKE_MULTI_BEGIN), 1);
	cr_assert_eq(fake_store_uploads(store()), 0);
	cr_assert_eq(statedb_count(t.db, STATEDB_PARTS), 0);
	up_close(&f);
}

/* --- beginnings whose answer nobody got */

/* The storage has it, and the daemon dies before it hears of that. */
static void die_beginning(struct up_file *file)
{
	t.g.hold = true;
	t.g.ufs->late_effects = true;
	up_start(file);
	while (fake_running(t.g.ufs, FAKE_MULTI_BEGIN) == 0)
		(void)loop_turn(t.g.loop, false);
	upload_free(&file->up);
	staged_not_uploaded(file->sf);
	up_rig_again(&t);
	t.g.ufs->late_effects = false;
	t.g.hold = false;
}

static void pass_time(void)
{
	for (unsigned i = 0; i < 5; i++) {
		up_settle(&t);
		test_clock_advance(&t.g.clock, 60 * NS_PER_S);
	}
	up_settle(&t);
}

Test(upload, what_a_daemon_had_just_begun_is_thrown_away)
{
	for (unsigned how = 0; how < 3; how++) {
		up_open(&f, &t, "f", 0);
		up_write(&f, 0, 6 * UP_UNIT, false);
		die_beginning(&f);
		cr_assert_eq(fake_store_uploads(store()), 1);
		cr_assert_eq(statedb_count(t.db, STATEDB_PARTS), 1);
		if (how == 2)
			fake_store_fail(store(), FAKE_MULTI_SWEEP, 1, 3, -EIO, false);
		uploads_resume(t.us, &t.g.ufs, 1);
		uploads_resume(t.us, &t.g.ufs, 1);
		if (how == 0)
			up_settle(&t);
		up_again(&f); /* begins while that is being looked for, or after */
		cr_assert_eq(up_run(&f), 0);
		cr_assert(up_right(&f));
		pass_time();
		cr_assert_eq(fake_store_uploads(store()), 0, "%u", how);
		cr_assert_eq(statedb_count(t.db, STATEDB_PARTS), 0, "%u", how);
		up_close(&f);
	}
	cr_assert_eq(rig_counter(&t.g, CTR_UPLOAD_SWEPT), 3);
}

Test(upload, uploads_that_are_known_stay)
{
	struct up_file g;

	up_open(&g, &t, "f", 0); /* the same place */
	up_write(&g, 0, 6 * UP_UNIT, false);
	fake_store_fail(store(), FAKE_MULTI_END, 1, 1, -EIO, false);
	cr_assert_eq(up_run(&g), -EIO);
	upload_free(&g.up);
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 6 * UP_UNIT, false);
	die_beginning(&f);
	cr_assert_eq(fake_store_uploads(store()), 2);
	uploads_resume(t.us, &t.g.ufs, 1);
	up_settle(&t);
	cr_assert_eq(fake_store_uploads(store()), 1);
	up_again(&g);
	cr_assert_eq(upload_sent(g.up), 6 * UP_UNIT);
	cr_assert_eq(up_run(&g), 0);
	cr_assert_eq(store()->part_bytes, 6 * UP_UNIT, "none was sent again");
	cr_assert(up_right(&g));
	up_again(&f);
	up_close(&f);
	up_close(&g);
}

Test(upload, a_storage_that_does_not_list_is_let_be)
{
	static const int errs[] = { -EACCES, -EOPNOTSUPP, -EINVAL };

	log_set_level(LOG_LVL_ERROR);
	for (unsigned i = 0; i < ARRAY_LEN(errs); i++) {
		up_open(&f, &t, "f", 0);
		up_write(&f, 0, 6 * UP_UNIT, false);
		die_beginning(&f);
		fake_store_fail(store(), FAKE_MULTI_SWEEP, 1, 1, errs[i], false);
		uploads_resume(t.us, &t.g.ufs, 1);
		up_again(&f);
		cr_assert_eq(up_run(&f), 0);
		cr_assert(up_right(&f));
		up_settle(&t);
		cr_assert_eq(fake_store_uploads(store()), i + 1);
		cr_assert_eq(statedb_count(t.db, STATEDB_PARTS), 0);
		up_close(&f);
	}
	cr_assert_eq(rig_counter(&t.g, CTR_UPLOAD_UNLISTED), 2);
}

Test(upload, a_beginning_that_waits_may_be_given_up)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 6 * UP_UNIT, false);
	die_beginning(&f);
	t.g.hold = true;
	uploads_resume(t.us, &t.g.ufs, 1);
	up_again(&f);
	up_start(&f);
	up_settle(&t);
	cr_assert_eq(fake_running(t.g.ufs, FAKE_MULTI_BEGIN), 0);
	cr_assert_eq(fake_running(t.g.ufs, FAKE_MULTI_SWEEP), 1);
	up_abort(&f);
	upload_drop(f.up);
	cr_assert_eq(statedb_count(t.db, STATEDB_PARTS), 1);
	t.g.hold = false;
	up_settle(&t);
	cr_assert_eq(count(FAKE_MULTI_BEGIN), 1, "the first");
	cr_assert_eq(fake_store_uploads(store()), 0);
	cr_assert_eq(statedb_count(t.db, STATEDB_PARTS), 0);
	up_close(&f);
}

Test(upload, there_is_a_second_look)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 6 * UP_UNIT, false);
	die_beginning(&f);
	t.us->look_again = NS_PER_S;
	uploads_resume(t.us, &t.g.ufs, 1);
	up_again(&f);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	up_settle(&t);
	cr_assert_eq(count(FAKE_MULTI_SWEEP), 1);
	pass_time();
	cr_assert_eq(count(FAKE_MULTI_SWEEP), 2);
	cr_assert_eq(statedb_count(t.db, STATEDB_PARTS), 0);
	up_close(&f);
}

Test(upload, a_directory_that_the_storage_moved_takes_its_uploads_along)
{
	store()->can |= UFS_CAN_RENAME;
	up_open(&f, &t, "a/f", 0);
	up_write(&f, 0, 6 * UP_UNIT, false);
	fake_store_fail(store(), FAKE_MULTI_END, 1, 1, -EIO, false);
	cr_assert_eq(up_run(&f), -EIO);
	strcpy(store()->upload[0].path, "b/f");
	strcpy(f.path, "b/f");
	cr_assert_eq(upload_place(f.up, t.g.ufs, f.path, NULL), 0);
	up_settle(&t);
	cr_assert_eq(fake_store_uploads(store()), 0);
	cr_assert_eq(statedb_count(t.db, STATEDB_PARTS), 0);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	up_close(&f);
}

Test(upload, detached_it_fails)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 6 * UP_UNIT, true);
	uploads_set_db(t.us, NULL);
	cr_assert_eq(up_run(&f), -ESTALE);
	uploads_set_db(t.us, t.db);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	up_close(&f);
}
