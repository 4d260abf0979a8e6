/* SPDX-License-Identifier: BSD-2-Clause */
/* What stays when more is read than the store holds. */
#include <stdio.h>

#include <criterion/criterion.h>

#include "rig.h"

static struct rig g;

static void disk_rig(void)
{
	rig_init(&g, true);
	rig_start(&g);
	rig_settle(&g);
	g.cache->capacity = 8 * MIB;
}

static void fini(void)
{
	rig_fini(&g);
}

TestSuite(cache_evict, .init = disk_rig, .fini = fini);

static void later(void)
{
	test_loop_pass(g.loop, &g.clock, 20 * NS_PER_S);
	g.clock.wall_ns += 20 * NS_PER_S;
	rig_settle(&g);
}

static void read_through(struct blob *b, uint64_t size)
{
	for (uint64_t off = 0; off < size; off += 128 * KIB)
		cr_assert_eq(rig_read(&g, b, NULL, off, 128 * KIB), 0);
	rig_settle(&g);
}

/* Opened, read once from start to end, closed. */
static void read_file(const char *name, uint64_t size)
{
	struct blob *b = rig_blob(&g, name, "v1", size);

	read_through(b, size);
	cache_blob_put(&b);
	later();
}

static void scan(unsigned files)
{
	static unsigned no;
	char name[16];

	for (unsigned i = 0; i < files; i++) {
		snprintf(name, sizeof(name), "scan%u", no++);
		read_file(name, MIB);
		cr_assert_leq(g.cache->used, g.cache->capacity);
	}
}

static uint64_t fetched_for(const char *name, uint64_t size)
{
	uint64_t before = g.ufs->bytes;

	read_file(name, size);
	return g.ufs->bytes - before;
}

Test(cache_evict, a_scan_of_many_files_leaves_what_is_read_repeatedly)
{
	read_file("once", MIB);
	read_file("hot", 2 * MIB);
	read_file("hot", 2 * MIB);
	scan(40);
	cr_assert_eq(fetched_for("hot", 2 * MIB), 0);
	cr_assert_gt(fetched_for("once", MIB), 0, "what was read once goes like the rest");
}

Test(cache_evict, a_scan_of_one_large_file_leaves_what_is_read_repeatedly)
{
	struct blob *large = rig_blob(&g, "large", "v1", 40 * MIB);

	read_file("hot", 2 * MIB);
	read_file("hot", 2 * MIB);
	read_through(large, 40 * MIB);
	later();
	cr_assert_eq(fetched_for("hot", 2 * MIB), 0);
	cache_blob_put(&large);
}

Test(cache_evict, pages_of_an_open_file_that_are_read_repeatedly_stay)
{
	struct blob *b = rig_blob(&g, "db", "v1", 40 * MIB);
	uint64_t before;

	read_through(b, MIB);
	later();
	read_through(b, MIB);
	for (uint64_t off = 4 * MIB; off < 40 * MIB; off += 128 * KIB)
		cr_assert_eq(rig_read(&g, b, NULL, off, 128 * KIB), 0);
	rig_settle(&g);
	before = g.ufs->bytes;
	read_through(b, MIB);
	cr_assert_eq(g.ufs->bytes, before);
	cache_blob_put(&b);
}

Test(cache_evict, a_new_favourite_takes_the_place_of_the_old_one)
{
	char name[16];

	rig_stop(&g);
	rig_set(&g, "worker.page.store.size", "64MiB");
	rig_start(&g);
	rig_settle(&g);
	for (unsigned i = 0; i < 7; i++) {
		snprintf(name, sizeof(name), "old%u", i);
		read_file(name, 8 * MIB);
		read_file(name, 8 * MIB);
	}
	for (unsigned i = 0; i < 3; i++)
		read_file("new", 4 * MIB);
	for (unsigned i = 0; i < 6; i++) {
		snprintf(name, sizeof(name), "scan%u", i);
		read_file(name, 8 * MIB);
	}
	cr_assert_eq(fetched_for("new", 4 * MIB), 0);
}

Test(cache_evict, looking_at_what_is_cached_is_no_use_of_it)
{
	struct index_old old[4];
	struct blob *b;
	unsigned n;

	read_file("a", MIB);
	read_file("b", MIB);
	b = rig_blob(&g, "a", "v1", MIB);
	rig_settle(&g);
	cr_assert_eq(cache_blob_cached(b), MIB);
	later();
	cr_assert_eq(index_oldest(g.cache->index, old, 4, &n), 0);
	cr_assert_eq(n, 2);
	cr_assert_eq(memcmp(old[0].hash, b->key.hash, INDEX_HASH), 0);
	cr_assert(!old[0].reused);
	cache_blob_put(&b);
}
