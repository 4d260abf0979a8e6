/* SPDX-License-Identifier: BSD-2-Clause */
/* Turns, limits, memory. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../lib/nth_fault.h"
#include "upload_rig.h"

static struct up_rig t;

static void setup(void)
{
	up_rig_init(&t);
	srand(1);
}

static void teardown(void)
{
	up_rig_fini(&t);
}

TestSuite(upload_send, .init = setup, .fini = teardown);

/* Everything but the storage comes to rest. */
static void rest(void)
{
	t.g.hold = true;
	up_settle(&t);
	t.g.hold = false;
}

Test(upload_send, no_more_parts_at_one_time_than_allowed)
{
	struct up_file f[3];
	unsigned most = 0, running;

	t.g.cfg->write_upload_parallel = 5;
	for (unsigned i = 0; i < 3; i++) {
		char name[8];

		(void)snprintf(name, sizeof(name), "f%u", i);
		up_open(&f[i], &t, name, 0);
		up_write(&f[i], 0, 20 * UP_UNIT, false);
		up_start(&f[i]);
	}
	t.g.hold = true;
	do {
		up_settle(&t);
		running = fake_running(t.g.ufs, FAKE_PART);
		most = MAX(most, running);
		cr_assert(running <= 5);
	} while (fake_step_one(t.g.ufs, 0));
	t.g.hold = false;
	cr_assert_eq(most, 5);
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(up_wait(&f[i]), 0);
		cr_assert(up_right(&f[i]));
		up_close(&f[i]);
	}
}

Test(upload_send, a_change_of_the_limit_counts_at_once)
{
	struct up_file f;

	t.g.cfg->write_upload_parallel = 1;
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 20 * UP_UNIT, false);
	up_start(&f);
	rest();
	cr_assert(fake_step_op(t.g.ufs, FAKE_MULTI_BEGIN));
	rest();
	cr_assert_eq(fake_running(t.g.ufs, FAKE_PART), 1);
	t.g.cfg->write_upload_parallel = 4;
	cr_assert(fake_step_op(t.g.ufs, FAKE_PART));
	rest();
	cr_assert_eq(fake_running(t.g.ufs, FAKE_PART), 4);
	cr_assert_eq(up_wait(&f), 0);
	up_close(&f);
}

Test(upload_send, memory_is_bounded_and_a_small_file_gets_its_turn)
{
	struct up_file large, small, other;

	t.us->budget = 3 * UP_UNIT;
	t.g.cfg->write_upload_parallel = 100;
	up_open(&large, &t, "large", 0);
	up_open(&other, &t, "other", 0);
	up_open(&small, &t, "small", 0);
	up_write(&large, 0, 100 * UP_UNIT, false);
	up_write(&other, 0, 20 * UP_UNIT, false);
	up_write(&small, 0, 40000, false);
	up_start(&large);
	rest();
	cr_assert(fake_step_op(t.g.ufs, FAKE_MULTI_BEGIN));
	rest();
	cr_assert_eq(fake_running(t.g.ufs, FAKE_PART), 3);
	up_start(&other);
	rest();
	cr_assert(fake_step_op(t.g.ufs, FAKE_MULTI_BEGIN));
	up_start(&small);
	rest();
	for (unsigned i = 0; i < 4; i++) {
		cr_assert(t.us->charged <= t.us->budget);
		cr_assert(fake_step_op(t.g.ufs, FAKE_PART));
		rest();
	}
	cr_assert_eq(fake_running(t.g.ufs, FAKE_PUT), 1, "the small one waits too long");
	while (!small.done || !other.done || !large.done) {
		cr_assert(t.us->charged + t.us->idle_bytes <= t.us->budget);
		(void)fake_step(t.g.ufs);
		rest();
		cr_assert(other.done || !large.done, "they do not take turns");
	}
	cr_assert_eq(up_wait(&small), 0);
	cr_assert_eq(up_wait(&other), 0);
	cr_assert_eq(up_wait(&large), 0);
	cr_assert(up_right(&large));
	cr_assert_eq(t.us->charged, 0);
	test_clock_advance(&t.g.clock, 60 * NS_PER_S);
	rest();
	cr_assert_eq(t.us->idle_bytes, 0, "memory that nobody needs is kept");
	up_close(&small);
	up_close(&other);
	up_close(&large);
}

Test(upload_send, a_part_larger_than_all_memory_goes_alone)
{
	struct up_file large[2], small;

	/* The last parts of a very large file are such. */
	t.us->part_min = 4 * UP_UNIT;
	t.us->budget = 3 * UP_UNIT;
	up_open(&large[0], &t, "a", 0);
	up_open(&large[1], &t, "b", 0);
	up_open(&small, &t, "small", 0);
	for (unsigned i = 0; i < 2; i++) {
		up_write(&large[i], 0, 16 * UP_UNIT, false);
		up_start(&large[i]);
	}
	rest();
	cr_assert(fake_step_op(t.g.ufs, FAKE_MULTI_BEGIN));
	cr_assert(fake_step_op(t.g.ufs, FAKE_MULTI_BEGIN));
	rest();
	cr_assert_eq(fake_running(t.g.ufs, FAKE_PART), 1);
	up_write(&small, 0, UP_UNIT, false);
	up_start(&small);
	rest();
	cr_assert(fake_step_op(t.g.ufs, FAKE_PART));
	rest();
	cr_assert_eq(fake_running(t.g.ufs, FAKE_PART), 1);
	cr_assert(fake_step_op(t.g.ufs, FAKE_PART));
	rest();
	cr_assert_eq(fake_running(t.g.ufs, FAKE_PUT), 1, "beside a large part");
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(up_wait(&large[i]), 0);
		cr_assert(up_right(&large[i]));
		up_close(&large[i]);
	}
	cr_assert_eq(up_wait(&small), 0);
	up_close(&small);
}

Test(upload_send, bodies_are_used_again)
{
	struct up_body *a = body_new(t.us, UP_UNIT * 8), *b;
	unsigned char *mem = a->mem;

	body_put(t.us, &a);
	b = body_new(t.us, UP_UNIT * 8 - 5);
	cr_assert_eq(b->mem, mem);
	body_put(t.us, &b);
	b = body_new(t.us, UP_UNIT * 4);
	cr_assert_neq(b->mem, mem, "a small one does not take a large one");
	body_put(t.us, &b);
}

/* --- no memory */

Test(upload_send, every_allocation_may_fail)
{
	for (unsigned n = 1, fired = 1; fired; n++) {
		struct up_file f;
		int err;

		up_open(&f, &t, "f", 4 * UP_UNIT);
		up_write(&f, 2 * UP_UNIT, 3 * UP_UNIT, false);
		nth_arm(n);
		up_start(&f);
		while (!f.done) {
			bool ran = fake_step(t.g.ufs);

			(void)loop_turn(t.g.loop, !ran && pool_outstanding(t.g.pool) > 0);
		}
		nth_disarm();
		fired = nth_fired();
		if (statedb_lost(t.db)) {
			(void)loop_turn(t.g.loop, false);
			statedb_recover(t.db);
			up_again(&f);
		}
		err = up_wait(&f);
		cr_assert(err == 0 || err == -ENOMEM || err == -EIO, "%d at %u", err, n);
		if (err != 0)
			cr_assert_eq(up_run(&f), 0, "at %u", n);
		cr_assert(up_right(&f), "at %u", n);
		cr_assert_eq(t.us->charged, 0);
		cr_assert_eq(t.us->flying, 0);
		up_close(&f);
		fake_store_remove(&t.g.ufs->store, fake_store_find(&t.g.ufs->store, "f"));
	}
}
