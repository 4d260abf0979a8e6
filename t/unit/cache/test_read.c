/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "rig.h"

static struct rig g;

static void memory_rig(void)
{
	rig_init(&g, false);
	rig_start(&g);
}

static void fini(void)
{
	rig_fini(&g);
}

TestSuite(cache_read, .init = memory_rig, .fini = fini);

Test(cache_read, whole_file_in_odd_pieces)
{
	struct blob *b = rig_blob(&g, "f", "v1", 1000001);
	uint64_t off = 0;

	for (size_t len = 1; off < 1000001; off += len, len = len * 3 % 90001 + 1)
		cr_assert_eq(rig_read(&g, b, NULL, off, len), 0);
	cr_assert_eq(rig_read(&g, b, NULL, 0, READ_MAX), 0);
	cache_blob_put(&b);
}

Test(cache_read, end_of_file)
{
	struct blob *b = rig_blob(&g, "f", "v1", 100), *e = rig_blob(&g, "empty", "v", 0);
	struct rig_read rr;

	rig_read_start(&rr, b, NULL, 90, 4096);
	cr_assert(rig_until(&g, rig_read_done, &rr));
	cr_assert_eq(rr.r.got, 10);
	rig_read_end(&rr);
	rig_read_start(&rr, b, NULL, 100, 4096);
	cr_assert(rr.at_once);
	cr_assert_eq(rr.r.got, 0);
	rig_read_end(&rr);
	rig_read_start(&rr, b, NULL, UINT64_MAX - 10, 4096);
	cr_assert(rr.at_once);
	cr_assert_eq(rr.r.got, 0);
	rig_read_end(&rr);
	cr_assert_eq(rig_read(&g, e, NULL, 0, 10), 0);
	cr_assert_eq(g.ufs->started, 1);
	cache_blob_put(&b);
	cache_blob_put(&e);
}

Test(cache_read, single_flight)
{
	struct blob *b = rig_blob(&g, "f", "v1", 10 * RIG_PAGE);
	struct rig_read rr[50];

	for (unsigned i = 0; i < 50; i++)
		rig_read_start(&rr[i], b, NULL, i * 1000, 4096);
	for (unsigned i = 0; i < 50; i++) {
		cr_assert(rig_until(&g, rig_read_done, &rr[i]));
		cr_assert_eq(rr[i].err, 0);
		cr_assert(rig_read_right(&rr[i]));
		rig_read_end(&rr[i]);
	}
	cr_assert_eq(g.ufs->started, 1, "%u requests for one page", g.ufs->started);
	cache_blob_put(&b);
}

Test(cache_read, answered_as_bytes_arrive)
{
	struct blob *b = rig_blob(&g, "f", "v1", RIG_PAGE);
	struct rig_read first, last;

	g.hold = true;
	rig_read_start(&first, b, NULL, 0, 4096);
	rig_read_start(&last, b, NULL, RIG_PAGE - 10, 10);
	fake_step_one(g.ufs, 4095);
	rig_settle(&g);
	cr_assert(!first.done);
	fake_step_one(g.ufs, 1);
	rig_settle(&g);
	cr_assert(first.done && first.err == 0 && rig_read_right(&first));
	cr_assert(!last.done);
	rig_read_end(&first);
	cr_assert_eq(rig_read(&g, b, NULL, 100, 1000), 0, "what is there answers at once");
	fake_step_one(g.ufs, 0);
	rig_settle(&g);
	cr_assert(last.done && rig_read_right(&last));
	rig_read_end(&last);
	g.hold = false;
	cache_blob_put(&b);
}

Test(cache_read, an_error_reaches_every_reader_and_is_not_kept)
{
	struct blob *b = rig_blob(&g, "f", "v1", 4 * RIG_PAGE);
	struct rig_read rr[10];

	g.ufs->fail = -EACCES;
	for (unsigned i = 0; i < 10; i++)
		rig_read_start(&rr[i], b, NULL, i, 2 * RIG_PAGE);
	for (unsigned i = 0; i < 10; i++) {
		cr_assert(rig_until(&g, rig_read_done, &rr[i]));
		cr_assert_eq(rr[i].err, -EACCES);
	}
	g.ufs->fail = 0;
	cr_assert_eq(rig_read(&g, b, NULL, 0, 2 * RIG_PAGE), 0);
	cache_blob_put(&b);
}

Test(cache_read, a_body_that_ends_early_is_an_error_behind_its_bytes)
{
	struct blob *b = rig_blob(&g, "f", "v1", 4 * RIG_PAGE);
	struct rig_read head, tail;

	g.ufs->fail = -EIO;
	g.ufs->stop_after = RIG_PAGE + 10;
	rig_read_start(&tail, b, NULL, 0, 3 * RIG_PAGE);
	rig_read_start(&head, b, NULL, 10, RIG_PAGE);
	cr_assert(rig_until(&g, rig_read_done, &tail));
	cr_assert(rig_until(&g, rig_read_done, &head));
	cr_assert_eq(head.err, 0);
	cr_assert(rig_read_right(&head));
	cr_assert_eq(tail.err, -EIO);
	rig_read_end(&head);
	cache_blob_put(&b);
}

Test(cache_read, gone_is_stale)
{
	struct blob *b = rig_blob(&g, "f", "v1", RIG_PAGE);

	g.ufs->fail = -ENOENT;
	cr_assert_eq(rig_read(&g, b, NULL, 0, 10), -ESTALE);
	cache_blob_put(&b);
}

Test(cache_read, abort_while_filling_ends_the_fetch_that_nobody_wants)
{
	struct blob *b = rig_blob(&g, "f", "v1", 4 * RIG_PAGE);
	struct rig_read a, c;

	g.hold = true;
	rig_read_start(&a, b, NULL, 0, 4096);
	rig_read_start(&c, b, NULL, 8192, 4096);
	cache_read_abort(&a.r);
	cr_assert_eq(g.ufs->aborted, 0, "one still waits");
	cache_read_abort(&c.r);
	cr_assert_eq(g.ufs->aborted, 1);
	rig_settle(&g);
	cr_assert(!a.done && !c.done);
	cr_assert_eq(arena_used(g.cache->arena), 0);
	g.hold = false;
	cr_assert_eq(rig_read(&g, b, NULL, 0, 4096), 0);
	cache_blob_put(&b);
}

Test(cache_read, abort_when_ready)
{
	struct blob *b = rig_blob(&g, "f", "v1", RIG_PAGE);
	struct rig_read a;

	g.hold = true;
	rig_read_start(&a, b, NULL, 0, 4096);
	fake_step_one(g.ufs, 0);
	cache_read_abort(&a.r); /* its end waits in the deferred queue */
	fake_step_one(g.ufs, 0);
	rig_settle(&g);
	cr_assert(!a.done);
	g.hold = false;
	cr_assert_eq(rig_read(&g, b, NULL, 0, 4096), 0);
	cache_blob_put(&b);
}

Test(cache_read, a_served_fetch_goes_on_for_the_page)
{
	struct blob *b = rig_blob(&g, "f", "v1", RIG_PAGE);
	struct rig_read a, c;

	g.hold = true;
	rig_read_start(&a, b, NULL, 0, 10);
	fake_step_one(g.ufs, 10);
	rig_settle(&g);
	cr_assert(a.done);
	rig_read_end(&a);
	rig_read_start(&c, b, NULL, 100, 10);
	cache_read_abort(&c.r);
	cr_assert_eq(g.ufs->aborted, 0);
	g.hold = false;
	rig_settle(&g);
	cr_assert_eq(rig_read(&g, b, NULL, 0, RIG_PAGE), 0);
	cr_assert_eq(g.ufs->started, 1);
	cache_blob_put(&b);
}

Test(cache_read, memory_is_a_ceiling)
{
	enum { READERS = 100 };
	struct blob *b[READERS];
	static struct rig_read rr[READERS];
	uint64_t limit = 16 * MIB;
	char name[16];

	g.ufs->chunk = 10000;
	for (unsigned i = 0; i < READERS; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		b[i] = rig_blob(&g, name, name, 3 * MIB);
		rig_read_start(&rr[i], b[i], NULL, 100, READ_MAX);
	}
	for (unsigned i = 0; i < READERS; i++) {
		struct cache_status st;

		cr_assert(rig_until(&g, rig_read_done, &rr[i]), "read %u starves", i);
		cr_assert_eq(rr[i].err, 0);
		cr_assert(rig_read_right(&rr[i]));
		cache_status(g.cache, &st);
		cr_assert_leq(st.memory_used, limit);
		rig_read_end(&rr[i]);
	}
	cr_assert_gt(rig_counter(&g, CTR_MEMORY_WAITS), 0);
	for (unsigned i = 0; i < READERS; i++)
		cache_blob_put(&b[i]);
}

Test(cache_read, abort_while_waiting_for_memory)
{
	enum { READERS = 60 };
	struct blob *b[READERS];
	static struct rig_read rr[READERS];
	char name[16];

	g.hold = true;
	for (unsigned i = 0; i < READERS; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		b[i] = rig_blob(&g, name, name, 3 * MIB);
		rig_read_start(&rr[i], b[i], NULL, 0, READ_MAX);
	}
	cr_assert(!TAILQ_EMPTY(&g.cache->mem_wait));
	for (unsigned i = READERS; i-- > 0;)
		cache_read_abort(&rr[i].r);
	rig_settle(&g);
	cr_assert_eq(arena_used(g.cache->arena), 0);
	cr_assert_eq(g.ufs->now, 0);
	g.hold = false;
	for (unsigned i = 0; i < READERS; i++)
		cache_blob_put(&b[i]);
}

Test(cache_read, memory_alone_is_a_cache_and_forgets_the_oldest)
{
	struct blob *b = rig_blob(&g, "f", "v1", 40 * MIB);

	cr_assert_eq(rig_read(&g, b, NULL, 0, 1000), 0);
	cr_assert_eq(rig_read(&g, b, NULL, 0, 1000), 0);
	cr_assert_eq(g.ufs->started, 1);
	for (uint64_t off = RIG_PAGE; off < 40 * MIB; off += MIB)
		cr_assert_eq(rig_read(&g, b, NULL, off, MIB - 1), 0);
	cr_assert_eq(rig_read(&g, b, NULL, 0, 1000), 0);
	cr_assert_gt(g.ufs->started, 41);
	cache_blob_put(&b);
}

Test(cache_read, idle_memory_goes_back)
{
	struct blob *b = rig_blob(&g, "f", "v1", 8 * MIB);
	struct cache_status st;

	for (uint64_t off = 0; off < 8 * MIB; off += MIB)
		cr_assert_eq(rig_read(&g, b, NULL, off, MIB), 0);
	cache_blob_put(&b);
	page_drop_parked(g.cache);
	cache_status(g.cache, &st);
	cr_assert_gt(st.memory_used, 4 * MIB);
	for (int i = 0; i < 5; i++)
		test_loop_pass(g.loop, &g.clock, 5 * NS_PER_S);
	cache_status(g.cache, &st);
	cr_assert_lt(st.memory_used, 2 * MIB);
}

Test(cache_read, too_little_memory_for_the_page_size_is_refused)
{
	struct cache_env env = {g.loop, g.pool, g.cfg, &g.epoch, false};
	struct cache *c = NULL;
	struct errtext et;

	rig_set(&g, "worker.page.store.page.size", "8MiB");
	cr_assert_eq(cache_new(&c, &env, -1, &et), -EINVAL);
	cr_assert_not_null(strstr(et.s, "memory.limit"));
	cr_assert_null(c);
}

static void try_limit(struct rig *d, const char *page, const char *limit, struct errtext *et,
    int *err)
{
	struct cache_env env = {d->loop, d->pool, d->cfg, &d->epoch, false};
	struct cache *c = NULL;

	rig_set(d, "worker.page.store.page.size", page);
	rig_set(d, "memory.limit", limit);
	*err = cache_new(&c, &env, -1, et);
	if (*err == 0)
		cache_free(&c);
}

/* The least that the message names must do, and serve reads of the largest size. */
Test(cache_read, the_least_memory_for_each_page_size_works)
{
	static const char *const page[] = {"64KiB", "256KiB", "1MiB", "4MiB", "8MiB"};

	for (unsigned i = 0; i < ARRAY_LEN(page); i++) {
		char need[32] = "16MiB";
		struct stream s = {0};
		struct errtext et;
		struct blob *b;
		struct rig d;
		char *at;
		int err;

		rig_init(&d, i % 2 == 0);
		try_limit(&d, page[i], need, &et, &err);
		if (err != 0) {
			cr_assert_eq(err, -EINVAL);
			at = strstr(et.s, "at least ");
			cr_assert_not_null(at, "%s", et.s);
			snprintf(need, sizeof(need), "%s", at + strlen("at least "));
			try_limit(&d, page[i], need, &et, &err);
			cr_assert_eq(err, 0, "%s", et.s);
		}
		rig_start(&d);
		b = rig_blob(&d, "f", "v1", 40 * MIB + 5);
		for (uint64_t off = 4096 - 1; off < 40 * MIB; off += MIB)
			cr_assert_eq(rig_read(&d, b, &s, off, MIB), 0);
		cache_stream_end(d.cache, &s);
		cache_blob_put(&b);
		rig_fini(&d);
	}
}

Test(cache_read, small_files_take_little_memory)
{
	enum { FILES = 100 };
	struct cache_status st;
	struct blob *b[FILES];
	char name[16];
	struct rig d;

	rig_init(&d, false);
	rig_set(&d, "worker.page.store.page.size", "1MiB");
	rig_set(&d, "memory.limit", "16MiB");
	rig_start(&d);
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		b[i] = rig_blob(&d, name, name, 3000 + i);
		cr_assert_eq(rig_read(&d, b[i], NULL, 0, 4096 * 4), 0);
	}
	cache_status(d.cache, &st);
	cr_assert_leq(st.memory_used, 100 * 64 * KIB + MIB);
	d.ufs->started = 0;
	for (unsigned i = 0; i < FILES; i++) {
		cr_assert_eq(rig_read(&d, b[i], NULL, 0, 4096), 0);
		cache_blob_put(&b[i]);
	}
	cr_assert_eq(d.ufs->started, 0, "%u files were forgotten", d.ufs->started);
	rig_fini(&d);
}
