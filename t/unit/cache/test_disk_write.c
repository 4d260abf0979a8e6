/* SPDX-License-Identifier: BSD-2-Clause */
#include <poll.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "rig.h"

#define BLOCKERS 3 /* the rig's pool has so many threads */

static struct rig g;
static int gate[2];

static void disk_rig(void)
{
	rig_init(&g, true);
	rig_set(&g, "memory.limit", "32MiB");
	rig_start(&g);
}

static void fini(void)
{
	rig_fini(&g);
}

TestSuite(cache_disk_write, .init = disk_rig, .fini = fini);

static void wait_for_gate(struct pool_job *job)
{
	struct pollfd p = {.fd = gate[0], .events = POLLIN};

	(void)job;
	while (poll(&p, 1, -1) < 0)
		;
}

static void nothing(struct pool_job *job)
{
	(void)job;
}

/* The pool does nothing until the gate is opened. */
static void shut(struct pool_job blocker[BLOCKERS])
{
	cr_assert_eq(pipe(gate), 0);
	memset(blocker, 0, BLOCKERS * sizeof(*blocker));
	for (unsigned i = 0; i < BLOCKERS; i++)
		pool_submit(g.pool, NULL, &blocker[i], wait_for_gate, nothing);
}

static void open_gate(void)
{
	cr_assert_eq(write(gate[1], "x", 1), 1);
	rig_settle(&g);
	close(gate[0]);
	close(gate[1]);
}

/* Reads without the disk's help: storage answers at once, the pool stands still. */
static void read_fresh(struct blob *b, uint64_t from, uint64_t to)
{
	for (uint64_t off = from; off < to; off += MIB)
		cr_assert_eq(rig_read(&g, b, NULL, off, MIN(MIB, to - off)), 0);
}

Test(cache_disk_write, what_gathers_behind_a_slow_disk_goes_in_few_jobs)
{
	struct blob *b = rig_blob(&g, "f", "v1", 16 * MIB + 777);
	struct pool_job blocker[BLOCKERS];

	rig_settle(&g);
	shut(blocker);
	read_fresh(b, 0, 16 * MIB + 777);
	cr_assert_eq(g.cache->writing, 16 * MIB + ARENA_SMALL_SIZE, "the last page takes a buffer, too");
	cr_assert_leq(pool_outstanding(g.pool), BLOCKERS + BLOB_LANES);
	open_gate();
	cr_assert_eq(g.cache->writing, 0);
	cr_assert_eq(rig_counter(&g, CTR_CACHE_BYPASS), 0);
	cr_assert_eq(b->npresent, 16 * 16 + 1);
	cr_assert_eq(arena_used(g.cache->arena), 0);
	g.ufs->started = 0;
	read_fresh(b, 0, 16 * MIB + 777);
	cr_assert_eq(g.ufs->started, 0);
	cache_blob_put(&b);
}

static void large_pages(void)
{
	rig_init(&g, true);
	rig_set(&g, "memory.limit", "32MiB");
	rig_set(&g, "worker.page.store.page.size", "2MiB");
	rig_start(&g);
}

TestSuite(cache_disk_write_large, .init = large_pages, .fini = fini);

/* One page takes several writes; the last of them and the last page are short. */
Test(cache_disk_write_large, a_page_larger_than_a_write_is_stored_whole)
{
	const uint64_t size = 7 * MIB + 300 * KIB + 777;
	struct blob *b = rig_blob(&g, "f", "v1", size);

	rig_settle(&g);
	read_fresh(b, 0, size);
	rig_settle(&g);
	cr_assert_eq(b->npresent, 4);
	cr_assert_eq(rig_counter(&g, CTR_CACHE_BYPASS), 0);
	page_drop_parked(g.cache);
	g.ufs->started = 0;
	read_fresh(b, 0, size);
	cr_assert_eq(g.ufs->started, 0);
	cr_assert_eq(rig_counter(&g, CTR_CACHE_CHECKSUM_ERRORS), 0);
	cache_blob_put(&b);
}

Test(cache_disk_write, pages_that_are_no_neighbours_find_their_places)
{
	struct blob *b = rig_blob(&g, "f", "v1", 12 * MIB);
	struct pool_job blocker[BLOCKERS];
	unsigned n = 0;

	rig_settle(&g);
	shut(blocker);
	for (uint64_t no = 0; no < 192; no += 1 + no % 5, n++)
		cr_assert_eq(rig_read(&g, b, NULL, (191 - no) * RIG_PAGE + 9, 100), 0);
	open_gate();
	cr_assert_eq(b->npresent, n);
	g.ufs->started = 0;
	for (uint64_t no = 0; no < 192; no += 1 + no % 5)
		cr_assert_eq(rig_read(&g, b, NULL, (191 - no) * RIG_PAGE, RIG_PAGE), 0);
	cr_assert_eq(g.ufs->started, 0);
	cache_blob_put(&b);
}

/* A hand-over does not wait for what has only gathered. */
Test(cache_disk_write, a_close_drops_what_has_gathered)
{
	struct blob *b = rig_blob(&g, "f", "v1", 4 * MIB);
	struct pool_job blocker[BLOCKERS];
	uint64_t used = g.cache->used;
	bool closed = false;

	rig_settle(&g);
	shut(blocker);
	read_fresh(b, 0, 4 * MIB);
	cr_assert_eq(g.cache->used, used + 4 * MIB);
	cache_index_close(g.cache, false, NULL, &closed);
	open_gate();
	cr_assert_eq(g.cache->state, STORE_CLOSED);
	cr_assert_lt(g.cache->used, used + 4 * MIB);
	cr_assert_gt(rig_counter(&g, CTR_CACHE_BYPASS), 0);
	cr_assert_eq(g.cache->writing, 0);
	page_drop_parked(g.cache);
	cache_index_open(g.cache);
	read_fresh(b, 0, 4 * MIB);
	rig_settle(&g);
	cr_assert_eq(b->npresent, 64);
	cr_assert_eq(g.cache->used, used + 4 * MIB);
	cache_blob_put(&b);
}
