/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdio.h>

#include <criterion/criterion.h>

#include "rig.h"

static struct rig g;

static void memory_rig(void)
{
	rig_init(&g, false);
	rig_set(&g, "memory.limit", "64MiB");
	rig_start(&g);
}

static void fini(void)
{
	rig_fini(&g);
}

TestSuite(cache_readahead, .init = memory_rig, .fini = fini);

Test(cache_readahead, several_parts_are_in_flight_soon)
{
	struct blob *b = rig_blob(&g, "f", "v1", 100 * MIB);
	struct stream s = {0};

	g.ufs->chunk = RIG_PAGE;
	for (unsigned i = 0; i < 8; i++)
		cr_assert_eq(rig_read(&g, b, &s, i * 128 * KIB, 128 * KIB), 0);
	cr_assert_geq(g.ufs->most, 4, "%u GETs at a time", g.ufs->most);
	cache_stream_end(g.cache, &s);
	rig_settle(&g);
	cr_assert_leq(g.ufs->bytes, 33 * MIB);
	cache_blob_put(&b);
}

Test(cache_readahead, each_byte_is_fetched_once)
{
	struct blob *b = rig_blob(&g, "f", "v1", 90 * MIB + 17);
	struct stream s = {0};

	for (uint64_t off = 0; off < 90 * MIB + 17; off += 128 * KIB)
		cr_assert_eq(rig_read(&g, b, &s, off, 128 * KIB), 0);
	rig_settle(&g);
	cr_assert_eq(g.ufs->bytes, 90 * MIB + 17);
	cr_assert_leq(g.ufs->started, 90 * 4 + 20);
	cr_assert_gt(rig_counter(&g, CTR_CACHE_AHEAD_BYTES), 80 * MIB);
	cr_assert_eq(rig_counter(&g, CTR_CACHE_AHEAD_USED_BYTES),
	    rig_counter(&g, CTR_CACHE_AHEAD_BYTES));
	cache_stream_end(g.cache, &s);
	cache_blob_put(&b);
}

Test(cache_readahead, random_reads_shut_the_window)
{
	struct blob *b = rig_blob(&g, "f", "v1", 1000 * MIB);
	struct stream s = {0};
	uint64_t before;

	for (unsigned i = 0; i < 8; i++)
		cr_assert_eq(rig_read(&g, b, &s, i * 128 * KIB, 128 * KIB), 0);
	for (unsigned i = 1; i < 20; i++)
		cr_assert_eq(rig_read(&g, b, &s, i * i * 37 * MIB % (990 * MIB), 4096), 0);
	rig_settle(&g);
	before = g.ufs->bytes;
	cr_assert_eq(rig_read(&g, b, &s, 999 * MIB, 4096), 0);
	rig_settle(&g);
	cr_assert_eq(g.ufs->bytes - before, RIG_PAGE);
	cache_stream_end(g.cache, &s);
	cache_blob_put(&b);
}

/* Four readers of one handle, none of which begins at the start of the file. */
Test(cache_readahead, readers_side_by_side_on_one_handle_have_a_window_each)
{
	struct blob *b = rig_blob(&g, "f", "v1", 1000 * MIB);
	struct stream s = {0};
	uint64_t before;

	for (uint64_t off = 0; off < 4 * MIB; off += 128 * KIB) {
		for (uint64_t at = 1; at <= 4; at++)
			cr_assert_eq(rig_read(&g, b, &s, at * 200 * MIB + off, 128 * KIB), 0);
	}
	rig_settle(&g);
	before = rig_counter(&g, CTR_CACHE_MISS_BYTES);
	for (uint64_t at = 1; at <= 4; at++)
		cr_assert_eq(rig_read(&g, b, &s, at * 200 * MIB + 4 * MIB, 128 * KIB), 0);
	cr_assert_eq(rig_counter(&g, CTR_CACHE_MISS_BYTES), before);
	cache_stream_end(g.cache, &s);
	cache_blob_put(&b);
}

static uint64_t waste(void)
{
	return rig_counter(&g, CTR_CACHE_AHEAD_BYTES) -
	       rig_counter(&g, CTR_CACHE_AHEAD_USED_BYTES);
}

/* Reads `reads` pieces of 128 KiB, the next a step away, and asks how many came late. */
static void in_steps(uint64_t at, int64_t step, unsigned reads)
{
	struct blob *b = rig_blob(&g, "f", "v1", 1000 * MIB);
	struct stream s = {0};

	for (unsigned i = 0; i < reads; i++) {
		cr_assert_eq(rig_read(&g, b, &s, at, 128 * KIB), 0);
		rig_settle(&g);
		at = (uint64_t)((int64_t)at + step);
	}
	cr_assert_leq(rig_counter(&g, CTR_CACHE_MISS_BYTES), 4 * 128 * KIB);
	cr_assert_leq(waste(), step < -(int64_t)MIB || step > 0 ? 5 * MIB : 17 * MIB);
	cache_stream_end(g.cache, &s);
	cr_assert_null(s.pattern);
	cache_blob_put(&b);
}

Test(cache_readahead, steps_are_foreseen)
{
	in_steps(0, 3 * MIB, 300);
}

Test(cache_readahead, steps_backwards_are_foreseen)
{
	in_steps(999 * MIB, -(int64_t)(3 * MIB), 300);
}

Test(cache_readahead, backwards_is_foreseen)
{
	in_steps(999 * MIB, -(int64_t)(128 * KIB), 1000);
}

/* Steps larger than the memory that readahead has. */
Test(cache_readahead, long_steps_take_turns_with_the_memory)
{
	struct blob *b = rig_blob(&g, "f", "v1", 4000 * MIB);
	struct stream s = {0};

	for (uint64_t i = 0; i < 12; i++) {
		for (uint64_t in = 0; in < 20 * MIB; in += MIB)
			cr_assert_eq(rig_read(&g, b, &s, i * 300 * MIB + in, MIB), 0);
	}
	rig_settle(&g);
	cr_assert_leq(arena_used(g.cache->arena), 64 * MIB);
	cache_stream_end(g.cache, &s);
	cache_blob_put(&b);
}

/* What one handle had fetched for nothing takes no room from the next. */
Test(cache_readahead, what_was_fetched_in_vain_is_nobodys_burden)
{
	struct blob *b = rig_blob(&g, "f", "v1", 1000 * MIB);
	struct stream s = {0};
	uint64_t used;

	for (uint64_t off = 0; off < 64 * MIB; off += MIB)
		cr_assert_eq(rig_read(&g, b, &s, off, MIB), 0);
	rig_settle(&g);
	cr_assert_gt(g.cache->nahead, 100);
	cache_stream_end(g.cache, &s);
	cr_assert_eq(g.cache->nahead, 0);
	used = rig_counter(&g, CTR_CACHE_AHEAD_USED_BYTES);
	cr_assert_eq(rig_read(&g, b, NULL, 64 * MIB, MIB), 0);
	cr_assert_eq(rig_counter(&g, CTR_CACHE_AHEAD_USED_BYTES), used + MIB);
	cache_blob_put(&b);
}

/* Whatever was read before, reads here and there fetch what they ask for. */
Test(cache_readahead, random_reads_waste_nothing)
{
	struct blob *b = rig_blob(&g, "f", "v1", 10000 * MIB);
	struct stream s = {0};
	uint64_t asked = 0;
	unsigned seed = 7;

	for (unsigned i = 0; i < 300; i++) {
		uint64_t no = (uint64_t)rand_r(&seed) % (10000 * 16);

		asked += RIG_PAGE;
		cr_assert_eq(rig_read(&g, b, &s, no * RIG_PAGE + 4096, 4096), 0);
	}
	rig_settle(&g);
	cr_assert_leq(g.ufs->bytes, asked + asked / 8);
	cache_stream_end(g.cache, &s);
	cache_blob_put(&b);
}

Test(cache_readahead, off_when_told)
{
	struct blob *b = rig_blob(&g, "f", "v1", 10 * MIB);
	struct stream s = {0};

	rig_set(&g, "readahead.max", "0");
	cr_assert_eq(rig_read(&g, b, &s, 0, 4096), 0);
	cr_assert_eq(rig_read(&g, b, &s, 4096, 4096), 0);
	rig_settle(&g);
	cr_assert_eq(g.ufs->bytes, RIG_PAGE);
	cache_stream_end(g.cache, &s);
	cache_blob_put(&b);
}

Test(cache_readahead, the_end_of_the_handle_ends_what_is_ahead)
{
	struct blob *b = rig_blob(&g, "f", "v1", 100 * MIB);
	struct stream s = {0};

	cr_assert_eq(rig_read(&g, b, &s, 0, 128 * KIB), 0);
	cr_assert_eq(rig_read(&g, b, &s, 128 * KIB, 128 * KIB), 0);
	g.hold = true;
	rig_settle(&g);
	cr_assert_gt(g.ufs->now, 0);
	cache_stream_end(g.cache, &s);
	cr_assert_eq(g.ufs->now, 0);
	cr_assert_lt(rig_counter(&g, CTR_CACHE_AHEAD_USED_BYTES),
	    rig_counter(&g, CTR_CACHE_AHEAD_BYTES));
	cr_assert_eq(s.fetches, 0);
	cr_assert_null(s.blob);
	g.hold = false;
	cache_blob_put(&b);
}

Test(cache_readahead, an_aborted_read_of_a_stream_goes_on_as_readahead)
{
	struct blob *b = rig_blob(&g, "f", "v1", 100 * MIB);
	struct stream s = {0};
	struct rig_read rr;

	g.hold = true;
	rig_read_start(&rr, b, &s, 0, 4096);
	cache_read_abort(&rr.r);
	cr_assert_eq(g.ufs->aborted, 0);
	g.hold = false;
	rig_settle(&g);
	cr_assert_eq(rig_read(&g, b, NULL, 0, 4096), 0);
	cache_stream_end(g.cache, &s);
	cache_blob_put(&b);
}

Test(cache_readahead, many_streams_share_the_memory)
{
	enum { STREAMS = 40 };
	struct blob *b[STREAMS];
	struct stream s[STREAMS] = {{0}};
	char name[16];

	g.ufs->chunk = 16 * KIB;
	for (unsigned i = 0; i < STREAMS; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		b[i] = rig_blob(&g, name, name, 5 * MIB);
	}
	for (uint64_t off = 0; off < 5 * MIB; off += 256 * KIB) {
		for (unsigned i = 0; i < STREAMS; i++)
			cr_assert_eq(rig_read(&g, b[i], &s[i], off, 256 * KIB), 0);
	}
	for (unsigned i = 0; i < STREAMS; i++) {
		cache_stream_end(g.cache, &s[i]);
		cache_blob_put(&b[i]);
	}
}

Test(cache_readahead, with_a_disk_memory_is_given_back)
{
	struct blob *b;
	struct stream s = {0};
	struct rig d;

	rig_init(&d, true);
	rig_start(&d);
	d.ufs->chunk = 8 * KIB;
	b = rig_blob(&d, "f", "v1", 60 * MIB);
	for (uint64_t off = 0; off < 60 * MIB; off += MIB)
		cr_assert_eq(rig_read(&d, b, &s, off, MIB), 0);
	rig_settle(&d);
	cr_assert_eq(d.ufs->bytes, 60 * MIB);
	cr_assert_gt(rig_counter(&d, CTR_CACHE_AHEAD_BYTES), 0);
	cr_assert_eq(rig_counter(&d, CTR_CACHE_AHEAD_USED_BYTES),
	    rig_counter(&d, CTR_CACHE_AHEAD_BYTES));
	cr_assert_leq(arena_used(d.cache->arena) + cache_blob_cached(b), 75 * MIB);
	/* Pages that found too many others on their way to the disk stay a while. */
	for (int i = 0; i < 4; i++)
		test_loop_pass(d.loop, &d.clock, 5 * NS_PER_S);
	cr_assert_eq(arena_used(d.cache->arena), 0);
	cr_assert_geq(cache_blob_cached(b), 45 * MIB);
	cache_stream_end(d.cache, &s);
	cache_blob_put(&b);
	rig_fini(&d);
}
