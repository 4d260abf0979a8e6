/* SPDX-License-Identifier: BSD-2-Clause */
/* A disk that hangs: what waits for it goes past it, and it is used again. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "base/fault.h"
#include "rig.h"

#define READS 4

static struct rig g;
static char gate[200];

static void answer(bool now)
{
	int fd;

	if (!now) {
		cr_assert_eq(unlink(gate), 0);
		return;
	}
	fd = open(gate, O_CREAT | O_WRONLY, 0600);
	cr_assert_geq(fd, 0);
	close(fd);
}

static void slow_rig(void)
{
	struct errtext et;
	char spec[256];

	rig_init(&g, true);
	rig_set(&g, "worker.page.store.slow.time", "8s");
	rig_set(&g, "pool.threads", "2"); /* the rig's pool has one more */
	snprintf(gate, sizeof(gate), "%s.gate", g.dir);
	snprintf(spec, sizeof(spec), "cache.disk=until:%s", gate);
	answer(true);
	cr_assert_eq(fault_init(spec, &et), 0, "%s", et.s);
	rig_start(&g);
}

static void fini(void)
{
	char here[sizeof(gate) + 8];

	rig_fini(&g);
	snprintf(here, sizeof(here), "%s.here", gate);
	unlink(here);
	unlink(gate);
	cr_assert_eq(fault_init("", &(struct errtext){0}), 0);
}

TestSuite(cache_slow, .init = slow_rig, .fini = fini);

static void pass(unsigned ticks)
{
	while (ticks-- > 0)
		test_loop_pass(g.loop, &g.clock, g.cfg->page_store_slow_time / 8);
}

static enum cache_health health(void)
{
	struct cache_status st;

	cache_status(g.cache, &st);
	return st.health;
}

/* On disk, and nothing of it in memory that would answer. */
static struct blob *stored_blob(uint64_t size)
{
	struct blob *b = rig_blob(&g, "f", "v1", size);

	for (uint64_t off = 0; off < size; off += MIB) {
		cr_assert_eq(rig_read(&g, b, NULL, off, MIB), 0);
		rig_settle(&g);
	}
	cache_blob_put(&b);
	rig_stop(&g);
	rig_start(&g);
	b = rig_blob(&g, "f", "v1", size);
	rig_settle(&g);
	cr_assert_eq(cache_blob_stored(b), size);
	g.ufs->started = 0;
	return b;
}

static void read_ends(struct rig_read *rr)
{
	cr_assert(rig_until(&g, rig_read_done, rr));
	cr_assert_eq(rr->err, 0);
	cr_assert(rig_read_right(rr));
	rig_read_end(rr);
}

/* The disk answers, and after a while it is tried. */
static void recovers(void)
{
	answer(true);
	rig_settle(&g);
	cr_assert_eq(health(), CACHE_SLOW, "not before it was tried");
	test_loop_pass(g.loop, &g.clock, 3 * NS_PER_S);
	rig_settle(&g);
	cr_assert_eq(health(), CACHE_OK);
}

static unsigned ended;

static void loaded(struct cache_loaded *w)
{
	(void)w;
	ended++;
}

static void nothing(struct pool_job *job)
{
	(void)job;
}

static void job_done(struct pool_job *job)
{
	(void)job;
	ended++;
}

static bool have_ended(void *arg)
{
	return ended == *(unsigned *)arg;
}

Test(cache_slow, reads_go_past_a_disk_that_hangs)
{
	struct blob *b = stored_blob(READS * MIB), *n;
	struct rig_read rr[READS];
	struct cache_loaded w;
	struct pool_job other = {.result = 0};

	answer(false);
	for (unsigned i = 0; i < READS; i++)
		rig_read_start(&rr[i], b, NULL, i * MIB, MIB);
	pass(8);
	cr_assert_eq(health(), CACHE_OK, "it has its time");
	for (unsigned i = 0; i < READS; i++)
		cr_assert(!rr[i].done);
	pool_submit(g.pool, NULL, &other, nothing, job_done);
	cr_assert(rig_until(&g, have_ended, &(unsigned){1}), "the disk has all threads");
	cache_when_loaded(g.cache, &w, loaded);

	pass(2);
	cr_assert_eq(health(), CACHE_SLOW);
	for (unsigned i = 0; i < READS; i++)
		read_ends(&rr[i]);
	cr_assert_gt(g.ufs->started, 0);
	cr_assert(rig_until(&g, have_ended, &(unsigned){2}));

	n = rig_blob(&g, "another", "v1", MIB);
	cr_assert_eq(rig_read(&g, n, NULL, 0, MIB), 0);
	cr_assert_eq(rig_read(&g, b, NULL, 0, MIB), 0);
	cr_assert_gt(rig_counter(&g, CTR_CACHE_BEHIND), 0);
	cache_when_loaded(g.cache, &w, loaded);
	cr_assert(rig_until(&g, have_ended, &(unsigned){3}));
	cr_assert_eq(rig_counter(&g, CTR_CACHE_SLOW_OPS), 0, "none has ended");

	recovers();
	cr_assert_eq(rig_counter(&g, CTR_CACHE_SLOW_OPS), READS);
	page_drop_parked(g.cache);
	g.ufs->started = 0;
	for (unsigned i = 0; i < READS; i++)
		cr_assert_eq(rig_read(&g, b, NULL, i * MIB, MIB), 0);
	cr_assert_eq(g.ufs->started, 0, "they are on the disk");
	cache_blob_put(&n);
	cache_blob_put(&b);
}

Test(cache_slow, the_answer_in_time_changes_nothing)
{
	struct blob *b = stored_blob(MIB);
	struct rig_read rr;

	answer(false);
	rig_read_start(&rr, b, NULL, 0, MIB);
	pass(8);
	answer(true);
	read_ends(&rr);
	for (unsigned i = 0; i < 20; i++) {
		pass(1);
		rig_settle(&g); /* the directory is looked at every so often */
	}
	cr_assert_eq(health(), CACHE_OK);
	cr_assert_eq(g.ufs->started, 0);
	cr_assert_eq(rig_counter(&g, CTR_CACHE_SLOW_OPS), 0);
	cache_blob_put(&b);
}

/* A process that was stopped for an hour says nothing about its disk. */
Test(cache_slow, a_loop_that_came_late_is_no_slow_disk)
{
	struct blob *b = stored_blob(MIB);
	struct rig_read rr;

	answer(false);
	rig_read_start(&rr, b, NULL, 0, MIB);
	test_loop_pass(g.loop, &g.clock, 3600 * NS_PER_S);
	cr_assert_eq(health(), CACHE_OK);
	answer(true);
	read_ends(&rr);
	cache_blob_put(&b);
}

Test(cache_slow, an_index_that_is_not_opened_is_not_waited_for)
{
	struct blob *b = stored_blob(MIB);
	struct rig_read rr;

	cache_blob_put(&b);
	rig_stop(&g);
	rig_make(&g);
	answer(false);
	cache_index_open(g.cache);
	b = rig_blob(&g, "f", "v1", MIB);
	rig_read_start(&rr, b, NULL, 0, MIB);
	pass(8);
	cr_assert(!rr.done);
	pass(2);
	read_ends(&rr);
	cr_assert_eq(health(), CACHE_SLOW);
	answer(true);
	rig_settle(&g);
	cr_assert_eq(health(), CACHE_OK);
	page_drop_parked(g.cache);
	g.ufs->started = 0;
	cr_assert_eq(rig_read(&g, b, NULL, 0, MIB), 0);
	cr_assert_eq(g.ufs->started, 0);
	cache_blob_put(&b);
}

/* Rows of a blob that is new to us. */
Test(cache_slow, rows_are_not_waited_for)
{
	struct blob *b = stored_blob(MIB), *n;
	struct rig_read rr;

	answer(false);
	n = rig_blob(&g, "new", "v1", MIB);
	rig_read_start(&rr, n, NULL, 0, MIB);
	cr_assert(!rr.done);
	pass(10);
	read_ends(&rr);
	cr_assert_eq(health(), CACHE_SLOW);
	recovers();
	cache_blob_put(&n);
	cache_blob_put(&b);
}

/* Neither what is to be written nor what is to be read there takes all memory. */
Test(cache_slow, memory_is_left_for_the_storage)
{
	struct blob *b = stored_blob(8 * MIB), *n = rig_blob(&g, "n", "v1", 40 * MIB);
	struct rig_read rr[8];

	rig_settle(&g);
	answer(false);
	for (unsigned i = 0; i < 8; i++)
		rig_read_start(&rr[i], b, NULL, i * MIB, MIB);
	pass(1);
	/* Some of these wait for their turn; the disk's time lets all of them go on. */
	pass(10);
	for (unsigned i = 0; i < 8; i++)
		read_ends(&rr[i]);
	for (uint64_t off = 0; off < 40 * MIB; off += MIB)
		cr_assert_eq(rig_read(&g, n, NULL, off, MIB), 0);
	recovers();
	cr_assert_eq(g.cache->reading + g.cache->writing, 0);
	cache_blob_put(&n);
	cache_blob_put(&b);
}

Test(cache_slow, writes_that_hang_are_bounded)
{
	struct blob *b = rig_blob(&g, "b", "v1", 40 * MIB);

	rig_settle(&g);
	answer(false);
	for (uint64_t off = 0; off < 40 * MIB; off += MIB)
		cr_assert_eq(rig_read(&g, b, NULL, off, MIB), 0);
	cr_assert_gt(rig_counter(&g, CTR_CACHE_BEHIND), 0);
	cr_assert_gt(g.cache->writing, 0);
	cr_assert_leq(g.cache->writing, arena_limit(g.cache->arena) / 4 * 3);
	cr_assert_eq(health(), CACHE_OK);
	pass(10);
	cr_assert_eq(health(), CACHE_SLOW);
	recovers();
	cr_assert_eq(g.cache->writing, 0);
	cache_blob_put(&b);
}

static void note_settled(void *arg)
{
	++*(int *)arg;
}

/* The close that follows would not come to its end. */
Test(cache_slow, no_hand_over_while_it_hangs)
{
	struct blob *b = stored_blob(MIB);
	struct rig_read rr;
	int settled = 0;

	answer(false);
	rig_read_start(&rr, b, NULL, 0, MIB);
	pass(10);
	read_ends(&rr);
	cache_index_settle(g.cache, note_settled, &settled);
	test_loop_settle(g.loop);
	cr_assert_eq(settled, 0);
	recovers();
	cr_assert_eq(settled, 1);
	cache_index_unsettle(g.cache);
	cache_blob_put(&b);
}

/* A hand-over that got so far and gives up. */
Test(cache_slow, a_close_that_hangs_can_be_taken_back)
{
	struct blob *b = stored_blob(4 * MIB), *n;
	struct rig_read rr;
	int closed = 0;

	answer(false);
	rig_read_start(&rr, b, NULL, 0, MIB);
	cache_index_close(g.cache, false, note_settled, &closed);
	pass(3);
	cr_assert_eq(closed, 0);
	cache_index_unclose(g.cache);
	n = rig_blob(&g, "n", "v1", MIB);
	cr_assert_eq(rig_read(&g, n, NULL, 0, MIB), 0);
	cr_assert_eq(rig_read(&g, b, NULL, 2 * MIB, MIB), 0);
	cr_assert_neq(health(), CACHE_OK);
	answer(true);
	read_ends(&rr);
	rig_settle(&g);
	test_loop_pass(g.loop, &g.clock, 3 * NS_PER_S);
	rig_settle(&g);
	cr_assert_eq(health(), CACHE_OK);
	cr_assert_eq(closed, 0);
	page_drop_parked(g.cache);
	g.ufs->started = 0;
	cr_assert_eq(rig_read(&g, b, NULL, 3 * MIB, MIB), 0);
	cr_assert_eq(g.ufs->started, 0, "it is on the disk still");
	/* And one that has ended meanwhile. */
	cache_index_close(g.cache, false, note_settled, &closed);
	cache_index_unclose(g.cache);
	rig_settle(&g);
	cr_assert_eq(closed, 0);
	test_loop_pass(g.loop, &g.clock, 5 * NS_PER_S);
	rig_settle(&g);
	cr_assert_eq(health(), CACHE_OK);
	cache_blob_put(&n);
	cache_blob_put(&b);
}

/* Each trial that hangs makes the next one come later. */
Test(cache_slow, a_trial_that_hangs_brings_nothing_back)
{
	struct blob *b = stored_blob(MIB);
	struct rig_read rr;

	answer(false);
	rig_read_start(&rr, b, NULL, 0, MIB);
	pass(10);
	read_ends(&rr);
	answer(true);
	rig_settle(&g);
	answer(false);
	test_loop_pass(g.loop, &g.clock, 3 * NS_PER_S);
	cr_assert(g.cache->trying);
	pass(20);
	cr_assert_eq(health(), CACHE_SLOW);
	answer(true);
	rig_settle(&g);
	cr_assert_eq(health(), CACHE_SLOW);
	test_loop_pass(g.loop, &g.clock, 3 * NS_PER_S);
	cr_assert_eq(health(), CACHE_SLOW, "later each time");
	test_loop_pass(g.loop, &g.clock, 3 * NS_PER_S);
	rig_settle(&g);
	cr_assert_eq(health(), CACHE_OK);
	cache_blob_put(&b);
}

/* --- The start.  It turns the loop itself, so time must pass by itself. */

static void live_rig(void)
{
	slow_rig();
	rig_stop(&g);
	pool_free(&g.pool);
	loop_free(&g.loop);
	cr_assert_eq(loop_new(&g.loop, &clock_system), 0);
	cr_assert_eq(pool_new(&g.pool, g.loop, 3), 0);
	rig_set(&g, "worker.page.store.slow.time", "100ms");
	answer(false);
}

static bool is_well(void *arg)
{
	(void)arg;
	return health() == CACHE_OK;
}

static bool is_failed(void *arg)
{
	(void)arg;
	return health() == CACHE_FAILED;
}

TestSuite(cache_slow_start, .init = live_rig, .fini = fini, .timeout = 60);

Test(cache_slow_start, is_not_waited_for)
{
	struct cache_status st;
	struct blob *b;
	int fd;

	rig_start(&g);
	cr_assert_eq(health(), CACHE_SLOW);
	cache_status(g.cache, &st);
	cr_assert_str_eq(st.dir, g.dir);
	cr_assert_eq(cache_lock_fd(g.cache), -1);
	fd = open(g.dir, O_RDONLY | O_DIRECTORY);
	cr_assert(cache_same_dir(g.cache, fd), "nobody knows better");
	close(fd);
	b = rig_blob(&g, "f", "v1", MIB);
	cr_assert_eq(rig_read(&g, b, NULL, 0, MIB), 0);
	cr_assert_gt(rig_counter(&g, CTR_CACHE_BEHIND), 0);
	answer(true);
	cr_assert(rig_until(&g, is_well, NULL));
	cr_assert_geq(cache_lock_fd(g.cache), 0);
	page_drop_parked(g.cache);
	cr_assert_eq(rig_read(&g, b, NULL, 0, MIB), 0);
	rig_settle(&g);
	cr_assert_eq(cache_blob_stored(b), MIB, "and it is used");
	cache_blob_put(&b);
}

Test(cache_slow_start, nor_when_it_is_closed_again)
{
	int closed = 0;

	rig_make(&g);
	cr_assert_eq(health(), CACHE_SLOW);
	cache_index_open(g.cache);
	cache_index_close(g.cache, true, note_settled, &closed);
	test_loop_settle(g.loop);
	cr_assert_eq(closed, 0, "it would be used still");
	answer(true);
	rig_settle(&g);
	cr_assert_eq(closed, 1);
	cache_free(&g.cache);
}

/* What it says then is no reason to end any more. */
Test(cache_slow_start, its_errors_come_later)
{
	struct cache_env env = {g.loop, g.pool, g.cfg, &g.epoch, false};
	struct errtext et = {.s = ""};
	struct cache_status st;
	struct cache *other;
	struct blob *b;

	answer(true);
	cr_assert_eq(cache_new(&other, &env, -1, &et), 0, "%s", et.s);
	answer(false);
	rig_start(&g);
	answer(true);
	cr_assert(rig_until(&g, is_failed, NULL));
	cache_status(g.cache, &st);
	cr_assert_not_null(strstr(st.error, "in use by another daemon"), "%s", st.error);
	b = rig_blob(&g, "f", "v1", MIB);
	cr_assert_eq(rig_read(&g, b, NULL, 0, MIB), 0);
	cache_free(&other);
	while (!is_well(NULL)) /* it is tried again and again */
		loop_turn(g.loop, true);
	cache_blob_put(&b);
}
