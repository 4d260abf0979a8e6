/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writes, truncations, uploads, failures, crashes and requests that take effect after
 * they were given up, at random: what the storage has after a run that went well and was
 * not disturbed is the file, and no upload is left behind but those whose beginning
 * nobody could hear of.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "upload_rig.h"

/* No time limit: criterion loses memory for those of tests that run long side by side. */
TestSuite(upload_model);

static struct up_rig t;
static struct up_file f;

static unsigned pick(unsigned n)
{
	return (unsigned)rand() % n;
}

static void some_turns(void)
{
	t.g.hold = true;
	for (unsigned n = pick(30); n > 0; n--) {
		if (!loop_turn(t.g.loop, pool_outstanding(t.g.pool) > 0))
			(void)fake_step_one(t.g.ufs, 0);
	}
	t.g.hold = false;
}

static void change(void)
{
	uint64_t off = pick(30 * UP_UNIT), len = pick(2 * UP_UNIT);

	switch (pick(6)) {
	case 0:
		up_truncate(&f, pick(2) ? off : f.size - MIN(f.size, len));
		break;
	case 1:
	case 2:
		up_write(&f, off, 1 + len, pick(4) > 0);
		break;
	default: /* in order */
		off = f.size;
		len = 1 + pick(3 * UP_UNIT);
		if (off + len < UP_ROOM)
			up_write(&f, off, len, true);
		break;
	}
}

static void fail_something(void)
{
	static const enum fake_op ops[] = { FAKE_PUT, FAKE_MULTI_BEGIN, FAKE_PART, FAKE_PART,
		FAKE_MULTI_END, FAKE_MULTI_ABORT };
	static const int errs[] = { -EIO, -ETIMEDOUT, -ENOENT };
	enum fake_op op = ops[pick(6)];

	memset(t.g.ufs->store.fault, 0, sizeof(t.g.ufs->store.fault));
	/* An object that did appear is another base than the one we know. */
	fake_store_fail(&t.g.ufs->store, op, 1 + pick(4), 1 + pick(2),
	    errs[op == FAKE_PART ? pick(3) : pick(2)], op == FAKE_PART && pick(2));
}

/* As a daemon that died; or only this upload's user gives up. */
static void crash(void)
{
	bool all = pick(2);

	if (upload_running(f.up))
		up_abort(&f);
	upload_free(&f.up);
	f.done = false;
	if (all) {
		up_reopen(&f);
		up_rig_again(&t);
		if (pick(2))
			uploads_resume(t.us, &t.g.ufs, 1);
	}
	up_again(&f);
}

static void step(unsigned seed, unsigned i)
{
	int err;

	switch (pick(10)) {
	case 0:
		if (!upload_running(f.up))
			up_start(&f);
		break;
	case 1:
		crash();
		break;
	case 2:
		fail_something();
		break;
	case 3:
		if (upload_running(f.up)) {
			(void)up_wait(&f);
			break;
		}
		memset(t.g.ufs->store.fault, 0, sizeof(t.g.ufs->store.fault));
		err = up_run(&f);
		cr_assert_eq(err, 0, "seed %u step %u: %d", seed, i, err);
		cr_assert(up_right(&f), "seed %u step %u", seed, i);
		break;
	case 4:
		if (!upload_running(f.up))
			pick(2) ? upload_pause(f.up) : upload_drop(f.up);
		break;
	case 5:
		some_turns();
		break;
	default:
		if (f.done || !upload_running(f.up) || pick(3) == 0)
			change();
		break;
	}
	if (f.done && upload_running(f.up))
		cr_assert_fail("done, and runs");
}

/* A run that ended unseen by the steps is taken note of. */
static void note_end(void)
{
	if (f.done) {
		(void)up_wait(&f);
		f.done = false;
	}
}

static void model(unsigned seed, unsigned steps)
{
	srand(seed);
	up_rig_init(&t);
	t.g.cfg->write_upload_parallel = 1 + pick(6);
	t.us->budget = (2 + pick(8)) * UP_UNIT;
	up_open(&f, &t, "f", pick(3) == 0 ? 1 + pick(20 * UP_UNIT) : 0);
	for (unsigned i = 0; i < steps; i++) {
		note_end();
		step(seed, i);
		cr_assert(t.us->charged <= t.us->budget);
	}
	if (upload_running(f.up) || f.done)
		(void)up_wait(&f);
	memset(t.g.ufs->store.fault, 0, sizeof(t.g.ufs->store.fault));
	cr_assert_eq(up_run(&f), 0, "seed %u", seed);
	cr_assert(up_right(&f), "seed %u", seed);
	uploads_resume(t.us, &t.g.ufs, 1);
	up_settle(&t);
	cr_assert_eq(statedb_count(t.db, STATEDB_PARTS), 0, "seed %u", seed);
	up_close(&f);
	up_rig_fini(&t);
}

static unsigned number(const char *name, unsigned otherwise)
{
	const char *text = getenv(name);

	return text != NULL ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

/* MODEL_SEEDS=n for more, MODEL_FROM=seed for that one. */
Test(upload_model, the_object_is_the_file)
{
	unsigned from = number("MODEL_FROM", 1);

	for (unsigned n = 0; n < number("MODEL_SEEDS", 20); n++)
		model(from + n, 150);
}
