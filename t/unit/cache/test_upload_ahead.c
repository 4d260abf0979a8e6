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
	up_close(&f);
	up_rig_fini(&t);
}

TestSuite(upload_ahead, .init = setup, .fini = teardown);

static struct fake_store *store(void)
{
	return &t.g.ufs->store;
}

/* In pieces, with time between. */
static void write_on(uint64_t off, uint64_t len, uint64_t piece)
{
	for (uint64_t at = 0; at < len; at += piece) {
		up_write(&f, off + at, MIN(piece, len - at), true);
		up_settle(&t);
	}
}

Test(upload_ahead, what_is_written_in_order_is_sent_meanwhile)
{
	up_open(&f, &t, "f", 0);
	write_on(0, 2 * UP_UNIT - 1, 10000);
	cr_assert_eq(t.g.ufs->started, 0, "too early");
	write_on(2 * UP_UNIT - 1, 8 * UP_UNIT + 2, 10000);
	cr_assert_eq(store()->count[FAKE_PART], 9, "all but the last one");
	cr_assert_eq(upload_sent(f.up), 9 * UP_UNIT);
	cr_assert_eq(up_run(&f), 0);
	cr_assert_eq(store()->part_bytes, f.size);
	cr_assert(up_right(&f));
}

Test(upload_ahead, pages_come_in_about_this_order)
{
	up_open(&f, &t, "f", 0);
	for (unsigned i = 0; i < 10; i++) {
		up_write(&f, i * UP_UNIT + UP_UNIT / 2, UP_UNIT / 2, true);
		up_write(&f, i * UP_UNIT, UP_UNIT / 2, true);
	}
	up_settle(&t);
	cr_assert_eq(store()->count[FAKE_PART], 9);
	cr_assert_eq(up_run(&f), 0);
	cr_assert_eq(store()->part_bytes, f.size);
	cr_assert(up_right(&f));
}

Test(upload_ahead, appending_sends_only_what_is_new)
{
	up_open(&f, &t, "f", 5 * UP_UNIT + 3);
	write_on(f.size, 5 * UP_UNIT, 30000);
	cr_assert_eq(store()->count[FAKE_PART], 3);
	cr_assert_eq(store()->copied_bytes, 0);
	cr_assert_eq(up_run(&f), 0);
	cr_assert_eq(store()->copied_bytes, 5 * UP_UNIT);
	cr_assert_eq(store()->part_bytes, 5 * UP_UNIT + 3);
	cr_assert(up_right(&f));
	/* After fsync it goes on in the same way. */
	write_on(f.size, 4 * UP_UNIT, 30000);
	cr_assert(store()->count[FAKE_PART] > 11);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
}

Test(upload_ahead, random_writes_are_not_sent)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 20 * UP_UNIT, false);
	for (unsigned i = 0; i < 200; i++)
		write_on((uint64_t)rand() % (18 * UP_UNIT), 4096, 4096);
	cr_assert_eq(store()->count[FAKE_PART], 0);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
}

Test(upload_ahead, who_writes_everything_again_and_again_is_not_helped)
{
	up_open(&f, &t, "f", 0);
	for (unsigned i = 0; i < 20; i++)
		write_on(0, 10 * UP_UNIT, UP_UNIT / 2);
	cr_assert(store()->count[FAKE_PART] <= 20, "%u", store()->count[FAKE_PART]);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	write_on(0, 10 * UP_UNIT, UP_UNIT / 2);
	cr_assert_neq(upload_sent(f.up), 0, "a new upload, a new chance");
}

Test(upload_ahead, a_part_written_again_is_sent_again)
{
	up_open(&f, &t, "f", 0);
	write_on(0, 6 * UP_UNIT, UP_UNIT);
	cr_assert_eq(upload_sent(f.up), 5 * UP_UNIT);
	up_write(&f, 10, 1, true); /* the header, at last */
	cr_assert_eq(upload_sent(f.up), 4 * UP_UNIT);
	cr_assert_eq(up_run(&f), 0);
	cr_assert_eq(store()->part_bytes, 7 * UP_UNIT);
	cr_assert(up_right(&f));
}

Test(upload_ahead, a_part_written_while_it_is_sent_is_sent_again)
{
	up_open(&f, &t, "f", 0);
	t.g.hold = true;
	write_on(0, 6 * UP_UNIT, UP_UNIT);
	cr_assert(fake_step_op(t.g.ufs, FAKE_MULTI_BEGIN));
	up_settle(&t);
	cr_assert_eq(fake_running(t.g.ufs, FAKE_PART), 5);
	t.g.ufs->late_effects = true;
	up_write(&f, 10, 1, true);
	up_settle(&t);
	cr_assert_eq(fake_running(t.g.ufs, FAKE_PART), 4);
	t.g.hold = false;
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
}

Test(upload_ahead, a_crash_keeps_what_was_sent)
{
	up_open(&f, &t, "f", 0);
	write_on(0, 6 * UP_UNIT, UP_UNIT);
	up_again(&f);
	cr_assert_eq(upload_sent(f.up), 5 * UP_UNIT);
	up_write(&f, 10, 1, false);
	up_again(&f);
	cr_assert_eq(upload_sent(f.up), 4 * UP_UNIT);
	write_on(f.size, 2 * UP_UNIT, UP_UNIT);
	cr_assert_eq(up_run(&f), 0);
	cr_assert_eq(store()->part_bytes, 9 * UP_UNIT);
	cr_assert(up_right(&f));
}

Test(upload_ahead, failures_are_silent)
{
	static const enum fake_op op[] = { FAKE_MULTI_BEGIN, FAKE_PART };

	for (unsigned i = 0; i < 4; i++) {
		fake_store_fail(store(), op[i % 2], 1, 1, i < 2 ? -EIO : -ENOENT, false);
		up_open(&f, &t, "f", 0);
		write_on(0, 6 * UP_UNIT, UP_UNIT);
		cr_assert_eq(up_run(&f), 0);
		cr_assert(up_right(&f));
		if (i < 3)
			up_close(&f);
	}
}

Test(upload_ahead, pausing_gives_up_what_is_on_the_wire)
{
	up_open(&f, &t, "f", 0);
	t.g.hold = true;
	write_on(0, 6 * UP_UNIT, UP_UNIT);
	cr_assert(fake_step_op(t.g.ufs, FAKE_MULTI_BEGIN));
	up_settle(&t);
	cr_assert_neq(fake_running(t.g.ufs, FAKE_PART), 0);
	upload_pause(f.up);
	cr_assert_eq(t.g.ufs->now, 0);
	up_settle(&t);
	cr_assert_eq(t.g.ufs->now, 0);
	write_on(6 * UP_UNIT, 1, 1);
	cr_assert_neq(t.g.ufs->now, 0);
	t.g.hold = false;
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
}

Test(upload_ahead, cut_off_parts_are_left_out)
{
	up_open(&f, &t, "f", 0);
	write_on(0, 8 * UP_UNIT, UP_UNIT);
	up_truncate(&f, 3 * UP_UNIT + 5);
	cr_assert_eq(upload_sent(f.up), 3 * UP_UNIT);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	cr_assert_eq(store()->part_bytes, 7 * UP_UNIT + 5);
}

Test(upload_ahead, cut_off_to_little_is_a_put)
{
	up_open(&f, &t, "f", 0);
	write_on(0, 8 * UP_UNIT, UP_UNIT);
	up_truncate(&f, 5);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	up_settle(&t);
	cr_assert_eq(store()->count[FAKE_PUT], 1);
	cr_assert_eq(fake_store_uploads(store()), 0);
}

Test(upload_ahead, grown_by_truncate_its_last_part_is_sent_again)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 3 * UP_UNIT + 5, false);
	fake_store_fail(store(), FAKE_MULTI_END, 1, 1, -EIO, false);
	cr_assert_eq(up_run(&f), -EIO);
	up_truncate(&f, 5 * UP_UNIT);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
}

Test(upload_ahead, it_can_be_switched_off)
{
	t.g.cfg->write_ahead_enabled = false;
	up_open(&f, &t, "f", 0);
	write_on(0, 8 * UP_UNIT, UP_UNIT);
	cr_assert_eq(t.g.ufs->started, 0);
}
