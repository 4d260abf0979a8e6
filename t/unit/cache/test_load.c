/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>

#include <criterion/criterion.h>

#include "rig.h"

static struct rig g;

static void disk_rig(void)
{
	rig_init(&g, true);
	rig_start(&g);
}

static void fini(void)
{
	rig_fini(&g);
}

TestSuite(cache_load, .init = disk_rig, .fini = fini);

struct outcome {
	struct cache_load load;
	bool done;
	int err;
};

static void load_done(struct cache_load *l, int err)
{
	struct outcome *o = container_of(l, struct outcome, load);

	cr_assert(!o->done, "done twice");
	o->done = true;
	o->err = err;
}

static bool is_done(void *arg)
{
	return ((struct outcome *)arg)->done;
}

static int load(struct rig *r, struct blob *b)
{
	struct outcome o = {.done = false};

	cache_load_start(&o.load, b, load_done);
	cr_assert(!o.done, "a leaf completed inline");
	cr_assert(rig_until(r, is_done, &o), "the load never ended");
	return o.err;
}

Test(cache_load, all_of_it_is_on_disk_and_only_what_lacked_was_fetched)
{
	struct blob *b = rig_blob(&g, "f", "v1", 40 * MIB + 3);

	cr_assert_eq(rig_read(&g, b, NULL, 7 * MIB, MIB), 0);
	rig_settle(&g);
	cr_assert_eq(load(&g, b), 0);
	cr_assert_eq(b->npresent, b->npages);
	cr_assert_eq(g.ufs->bytes, 40 * MIB + 3);
	cr_assert_eq(load(&g, b), 0);
	cr_assert_eq(g.ufs->bytes, 40 * MIB + 3, "a second load fetches nothing");
	rig_settle(&g);
	cr_assert_eq(arena_used(g.cache->arena), 0);
	cache_blob_put(&b);
}

Test(cache_load, pages_larger_than_a_read)
{
	struct blob *b;
	struct rig d;

	rig_init(&d, true);
	rig_set(&d, "worker.page.store.page.size", "8MiB");
	rig_set(&d, "memory.limit", "64MiB");
	rig_start(&d);
	d.ufs->chunk = 64 * KIB;
	b = rig_blob(&d, "f", "v1", 41 * MIB);
	cr_assert_eq(load(&d, b), 0);
	cr_assert_eq(d.ufs->bytes, 41 * MIB);
	cache_blob_put(&b);
	rig_fini(&d);
}

Test(cache_load, an_empty_file_is_loaded)
{
	struct blob *b = rig_blob(&g, "f", "v1", 0);

	cr_assert_eq(load(&g, b), 0);
	cache_blob_put(&b);
}

Test(cache_load, errors_end_it)
{
	struct blob *b = rig_blob(&g, "f", "v1", 4 * MIB);
	struct blob *m;
	struct rig d;

	g.ufs->fail = -EIO;
	cr_assert_eq(load(&g, b), -EIO);
	g.ufs->fail = 0;
	rig_settle(&g);
	g.cache->capacity = MIB;
	cr_assert_eq(load(&g, b), -ENOSPC, "larger than the store");
	cache_blob_put(&b);
	rig_init(&d, false);
	rig_start(&d);
	m = rig_blob(&d, "f", "v1", MIB);
	cr_assert_eq(load(&d, m), -EOPNOTSUPP);
	cache_blob_put(&m);
	rig_fini(&d);
}

Test(cache_load, it_ends_with_the_index_and_by_abort)
{
	struct blob *b = rig_blob(&g, "f", "v1", 30 * MIB);
	struct outcome o = {.done = false}, p = {.done = false};

	g.hold = true;
	cache_load_start(&o.load, b, load_done);
	cache_load_start(&p.load, b, load_done);
	rig_settle(&g);
	cache_load_abort(&p.load);
	cr_assert(!o.done);
	cache_index_close(g.cache, true, NULL, NULL);
	g.hold = false;
	cr_assert(rig_until(&g, is_done, &o));
	cr_assert_eq(o.err, -ECANCELED);
	cr_assert(!p.done);
	rig_settle(&g);
	cache_index_open(g.cache);
	cache_blob_put(&b);
}

Test(cache_load, dropped_pages_give_their_space_back)
{
	struct blob *b = rig_blob(&g, "f", "v1", 6 * MIB);
	uint64_t from = 0;

	cr_assert_eq(load(&g, b), 0);
	cr_assert(cache_blob_drop(b, &from, 10), "there is more");
	while (cache_blob_drop(b, &from, 10))
		;
	rig_settle(&g);
	cr_assert_eq(cache_blob_cached(b), 0);
	cr_assert_eq(g.cache->used, 0);
	cr_assert_leq(rig_disk_bytes(&g), 64 * KIB);
	g.ufs->bytes = 0;
	cr_assert_eq(rig_read(&g, b, NULL, 0, MIB), 0);
	cr_assert_eq(g.ufs->bytes, MIB);
	cache_blob_put(&b);
}

static bool loaded;

static void set_loaded(struct cache_loaded *w)
{
	(void)w;
	loaded = true;
}

static bool is_loaded(void *arg)
{
	(void)arg;
	return loaded;
}

/* Asked for while the index is being opened: rows are read after that. */
Test(cache_load, the_figures_are_right_from_the_start)
{
	struct blob *b = rig_blob(&g, "f", "v1", 3 * MIB);
	struct cache_loaded w;

	cr_assert_eq(load(&g, b), 0);
	cache_blob_put(&b);
	rig_stop(&g);
	rig_start(&g);
	b = rig_blob(&g, "f", "v1", 3 * MIB);
	cr_assert_eq(g.cache->state, STORE_OPENING);
	loaded = false;
	cache_when_loaded(g.cache, &w, set_loaded);
	cr_assert(rig_until(&g, is_loaded, NULL));
	cr_assert_eq(cache_blob_cached(b), 3 * MIB);
	cache_blob_put(&b);
}
