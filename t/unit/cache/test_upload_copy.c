/* SPDX-License-Identifier: BSD-2-Clause */
/* Copies within the storage: those that have to be made in parts are uploads too. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../lib/nth_fault.h"
#include "upload_rig.h"

#define SIZE (5u * UP_UNIT)

static struct up_rig t;
static struct upload_copy cp;
static bool done;
static int result;

static void setup(void)
{
	up_rig_init(&t);
	t.g.ufs->store.copy_max = UP_UNIT;
	fake_add(t.g.ufs, "from", SIZE, "v1");
}

static void teardown(void)
{
	up_rig_fini(&t);
}

TestSuite(upload_copy, .init = setup, .fini = teardown);

static struct fake_store *store(void)
{
	return &t.g.ufs->store;
}

static unsigned count(enum fake_op op)
{
	return store()->count[op];
}

static void copy_done(struct upload_copy *c, int err)
{
	(void)c;
	cr_assert_not(done, "done twice");
	done = true;
	result = err;
}

static void start(uint64_t size)
{
	memset(&cp, 0, sizeof(cp));
	done = false;
	cp.src = "from";
	cp.src_version = "v1";
	cp.size = size;
	cp.dst = "to";
	cp.done = copy_done;
	upload_copy(t.us, t.g.ufs, &cp);
	cr_assert_not(done, "done came inline");
}

static bool is_done(void *arg)
{
	(void)arg;
	return done;
}

static int wait_end(void)
{
	cr_assert(rig_until(&t.g, is_done, NULL), "the copy never ended");
	return result;
}

static int run(uint64_t size)
{
	start(size);
	return wait_end();
}

/* Nothing is left, neither in the storage nor of rows. */
static void clean(void)
{
	up_settle(&t);
	cr_assert_eq(fake_store_uploads(store()), 0);
	cr_assert_eq(statedb_count(t.db, STATEDB_PARTS), 0);
}

static void pass_time(void)
{
	for (unsigned i = 0; i < 5; i++) {
		up_settle(&t);
		test_clock_advance(&t.g.clock, 60 * NS_PER_S);
	}
	up_settle(&t);
}

static void right(void)
{
	const struct fake_file *ff = fake_store_find(store(), "to");

	cr_assert_not_null(ff);
	cr_assert_eq(ff->size, SIZE);
	cr_assert_str_eq(ff->seed, "v1");
	cr_assert_str_eq(cp.attr.version, ff->version);
}

/* Steps of the copy: 1 it is refused as too large, 2 the upload is there, 3 the object. */
static void steps(unsigned n)
{
	while (n-- > 0) {
		while (!fake_step_op(t.g.ufs, FAKE_COPY))
			(void)loop_turn(t.g.loop, false);
	}
}

Test(upload_copy, a_small_one_is_one_request)
{
	fake_add(t.g.ufs, "small", 10, "v2");
	memset(&cp, 0, sizeof(cp));
	done = false;
	cp = (struct upload_copy){ .src = "small", .src_version = "v2", .size = 10, .dst = "to",
		.done = copy_done };
	upload_copy(t.us, t.g.ufs, &cp);
	cr_assert_eq(wait_end(), 0);
	cr_assert_eq(count(FAKE_COPY), 1);
	cr_assert_eq(cp.attr.size, 10);
	clean();
	upload_copy_abort(&cp); /* has no effect */
}

Test(upload_copy, a_large_one_is_an_upload_that_is_noted)
{
	start(SIZE);
	steps(1);
	cr_assert_eq(statedb_count(t.db, STATEDB_PARTS), 1, "the mark");
	steps(1);
	cr_assert_eq(fake_store_uploads(store()), 1);
	cr_assert_eq(statedb_count(t.db, STATEDB_PARTS), 1, "the id");
	cr_assert_eq(wait_end(), 0);
	right();
	clean();
	cr_assert_eq(count(FAKE_MULTI_ABORT), 0);
	cr_assert_eq(count(FAKE_MULTI_SWEEP), 0);
}

Test(upload_copy, without_uploads_it_is_too_large)
{
	memset(&cp, 0, sizeof(cp));
	cp = (struct upload_copy){ .src = "from", .src_version = "v1", .size = SIZE, .dst = "to",
		.done = copy_done };
	upload_copy(NULL, t.g.ufs, &cp);
	cr_assert_eq(wait_end(), -EIO);
	clean();
}

Test(upload_copy, what_fails_is_thrown_away)
{
	static const int errs[] = { -EIO, -EACCES, -ENOSPC, -ETIMEDOUT, -ESTALE, -ENOENT, -E2BIG };

	for (unsigned i = 0; i < ARRAY_LEN(errs); i++) {
		/* The beginning; then what follows. */
		fake_store_fail(store(), FAKE_COPY, 2, 1, errs[i], false);
		cr_assert_eq(run(SIZE), errs[i]);
		pass_time();
		clean();
		fake_store_fail(store(), FAKE_COPY, 2, 1, errs[i], true); /* the answer is lost */
		cr_assert_eq(run(SIZE), errs[i]);
		pass_time();
		if (errs[i] == -EIO || errs[i] == -ETIMEDOUT)
			clean();
		for (unsigned k = 0; k < FAKE_UPLOADS; k++)
			store()->upload[k].id[0] = '\0'; /* said to be there for certain */
		fake_store_fail(store(), FAKE_COPY, 3, 1, errs[i], false);
		cr_assert_eq(run(SIZE), errs[i]);
		clean();
	}
	cr_assert_null(fake_store_find(store(), "to"));
	cr_assert_eq(count(FAKE_MULTI_ABORT), ARRAY_LEN(errs));
}

Test(upload_copy, one_that_the_storage_loses_is_begun_anew)
{
	for (unsigned lost = 1; lost < 7; lost++) {
		start(SIZE);
		steps(1);
		for (unsigned i = 0; i < lost && !done; i++) {
			steps(1);
			for (unsigned k = 0; k < FAKE_UPLOADS; k++)
				store()->upload[k].id[0] = '\0';
			steps(1);
		}
		cr_assert_eq(wait_end(), lost < 5 ? 0 : -EIO, "%u: %d", lost, result);
		if (lost < 5)
			right();
		clean();
	}
}

Test(upload_copy, given_up_at_any_time)
{
	t.g.ufs->late_effects = true;
	for (unsigned at = 0; at < 3; at++) {
		t.g.hold = true;
		start(SIZE);
		steps(at);
		upload_copy_abort(&cp);
		upload_copy_abort(&cp);
		t.g.hold = false;
		pass_time();
		cr_assert_not(done);
		clean();
	}
	cr_assert_eq(run(SIZE), 0);
	right();
	clean();
}

/* The next daemon looks for what was begun, and the copy is wanted again meanwhile. */
Test(upload_copy, what_a_killed_daemon_had_begun_is_thrown_away)
{
	t.g.ufs->late_effects = true;
	for (unsigned at = 1; at < 3; at++) {
		for (unsigned again = 0; again < 3; again++) {
			t.g.hold = true;
			start(SIZE);
			steps(at);
			/* As if it was killed: its rows stay. */
			uploads_set_db(t.us, NULL);
			ufs_abort(&cp.rq.req);
			upload_copy_abort(&cp);
			up_rig_again(&t);
			cr_assert_eq(statedb_count(t.db, STATEDB_PARTS), 1);
			cr_assert_leq(fake_store_uploads(store()), 1);
			uploads_resume(t.us, &t.g.ufs, 1);
			if (again == 0)
				start(SIZE);
			t.g.hold = false;
			if (again != 0)
				up_settle(&t);
			if (again == 1)
				start(SIZE);
			if (again != 2) {
				cr_assert_eq(wait_end(), 0);
				right();
			}
			pass_time();
			clean();
		}
	}
}

/* Somebody else's mark at the same place. */
Test(upload_copy, a_look_for_others_leaves_it_alone)
{
	struct up_mark mk = { .key = 77, .uri = ufs_uri(t.g.ufs), .path = "to" };
	unsigned row;

	start(SIZE);
	steps(2);
	cr_assert_eq(rows_mark_put(t.us, &mk, &row), 0);
	uploads_resume(t.us, &t.g.ufs, 1);
	t.g.hold = true;
	while (!fake_step_op(t.g.ufs, FAKE_MULTI_SWEEP))
		(void)loop_turn(t.g.loop, false);
	t.g.hold = false;
	cr_assert_eq(fake_store_uploads(store()), 1);
	cr_assert_eq(wait_end(), 0);
	right();
	clean();
}

Test(upload_copy, no_memory)
{
	unsigned n;

	for (n = 1;; n++) {
		bool fired;

		done = false;
		nth_arm(n);
		start(SIZE);
		(void)rig_until(&t.g, is_done, NULL);
		fired = nth_fired();
		cr_assert(done && (result == 0 || result == -ENOMEM || result == -EIO), "%u: %d", n,
		    result);
		if (result == 0)
			right();
		pass_time();
		/* What was not noted is for the next daemon. */
		if (statedb_lost(t.db))
			statedb_recover(t.db);
		up_rig_again(&t);
		uploads_resume(t.us, &t.g.ufs, 1);
		pass_time();
		clean();
		if (!fired)
			break;
	}
	cr_assert_gt(n, 2);
}
