/* SPDX-License-Identifier: BSD-2-Clause */
/* Random reads with random faults: right bytes or a clean error, nothing leaked. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../lib/nth_fault.h"
#include "rig.h"

TestSuite(cache_model);

#define FILES 6
#define READS 12

struct model {
	struct rig g;
	unsigned seed;
	struct blob *b[FILES];
	struct stream s[FILES];
	uint64_t size[FILES];
	struct rig_read rr[READS];
	bool busy[READS];
};

static unsigned rnd(struct model *m, unsigned n)
{
	return (unsigned)rand_r(&m->seed) % n;
}

static void open_file(struct model *m, unsigned i)
{
	char name[16];

	snprintf(name, sizeof(name), "f%u", i);
	m->size[i] = (i * 1234567 + 1) % (3 * MIB);
	m->b[i] = rig_blob(&m->g, name, name, m->size[i]);
	memset(&m->s[i], 0, sizeof(m->s[i]));
}

static void end_read(struct model *m, unsigned k)
{
	struct rig_read *rr = &m->rr[k];

	if (rr->done && rr->err == 0)
		cr_assert(rig_read_right(rr), "wrong bytes");
	else if (rr->done)
		cr_assert(rr->err == -EIO || rr->err == -ESTALE || rr->err == -ECANCELED,
		    "error %d", rr->err);
	rig_read_end(rr);
	m->busy[k] = false;
}

static void damage_something(struct model *m)
{
	char path[256];
	FILE *f;

	if (!rig_find_file(&m->g, path, sizeof(path)) || (f = fopen(path, "r+")) == NULL)
		return;
	if (fseek(f, (long)rnd(m, MIB), SEEK_SET) == 0)
		fputc((int)rnd(m, 256), f);
	fclose(f);
}

static void close_file(struct model *m, unsigned i)
{
	for (unsigned k = 0; k < READS; k++) {
		if (m->busy[k] && m->rr[k].r.blob == m->b[i])
			end_read(m, k);
	}
	cache_stream_end(m->g.cache, &m->s[i]);
	cache_blob_put(&m->b[i]);
}

static void step(struct model *m)
{
	unsigned what = rnd(m, 100), i = rnd(m, FILES), k = rnd(m, READS);

	if (what < 60 && !m->busy[k]) {
		m->busy[k] = true;
		rig_read_start(&m->rr[k], m->b[i], rnd(m, 2) ? &m->s[i] : NULL,
		    rnd(m, (unsigned)m->size[i] + 1000), rnd(m, rnd(m, 2) ? 5000 : READ_MAX));
	} else if (what < 75 && m->busy[k]) {
		if (rnd(m, 3) > 0)
			rig_until(&m->g, rig_read_done, &m->rr[k]);
		end_read(m, k);
	} else if (what < 80) {
		close_file(m, i);
		open_file(m, i);
	} else if (what < 82) {
		damage_something(m);
	} else if (what < 84) {
		rig_close(&m->g, rnd(m, 2));
		cache_index_open(m->g.cache);
	} else if (what < 87) {
		test_loop_pass(m->g.loop, &m->g.clock, rnd(m, 5) * NS_PER_S);
	} else if (what < 90) {
		m->g.ufs->fail = rnd(m, 2) ? -EIO : 0;
		m->g.ufs->fail_one_in = 4;
		m->g.ufs->stop_after = rnd(m, 2) ? rnd(m, 200000) : 0;
	} else {
		fake_step_one(m->g.ufs, rnd(m, 100000));
		loop_turn(m->g.loop, false);
	}
}

static void run(unsigned seed, bool disk, unsigned steps)
{
	static struct model m;
	struct cache_status st;

	memset(&m, 0, sizeof(m));
	m.seed = seed;
	rig_init(&m.g, disk);
	m.g.ufs->chunk = 30000;
	rig_start(&m.g);
	rig_settle(&m.g); /* the pool has read what we change */
	m.g.cache->capacity = 4 * MIB;
	for (unsigned i = 0; i < FILES; i++)
		open_file(&m, i);
	for (unsigned n = 0; n < steps; n++) {
		step(&m);
		cache_status(m.g.cache, &st);
		cr_assert_leq(st.memory_used, 16 * MIB);
		cr_assert_leq(st.used, 4 * MIB);
	}
	for (unsigned k = 0; k < READS; k++) {
		if (!m.busy[k])
			continue;
		cr_assert(rig_until(&m.g, rig_read_done, &m.rr[k]), "a read never ended");
		end_read(&m, k);
	}
	for (unsigned i = 0; i < FILES; i++)
		close_file(&m, i);
	rig_settle(&m.g);
	page_drop_parked(m.g.cache);
	cr_assert_eq(arena_used(m.g.cache->arena), 0);
	cr_assert_eq(m.g.cache->nahead, 0);
	rig_fini(&m.g);
}

Test(cache_model, memory_only)
{
	for (unsigned seed = 1; seed <= 10; seed++)
		run(seed, false, 400);
}

Test(cache_model, with_a_disk)
{
	for (unsigned seed = 1; seed <= 10; seed++)
		run(seed, true, 400);
}

/* --- Every allocation of the loop's thread fails once */

struct once {
	bool right[3], ended[3];
	int blob, read[3];
};

static void rig_once(struct rig *g, unsigned n, struct once *o)
{
	struct blob_id id = {g->ufs, "f", "v1", 3 * MIB};
	struct stream s = {0};
	struct rig_read rr[3];
	struct blob *b;

	memset(o, 0, sizeof(*o));
	nth_arm(n);
	b = cache_blob_get(g->cache, &id);
	for (unsigned i = 0; b != NULL && i < 3; i++) {
		rig_read_start(&rr[i], b, &s, i * 300 * KIB, 256 * KIB);
		o->ended[i] = rig_until(g, rig_read_done, &rr[i]);
		o->read[i] = rr[i].err;
	}
	rig_settle(g);
	nth_disarm();
	o->blob = b == NULL ? -ENOMEM : 0;
	if (b == NULL)
		return;
	for (unsigned i = 0; i < 3; i++) {
		o->right[i] = rr[i].err == 0 && rig_read_right(&rr[i]);
		rig_read_end(&rr[i]);
	}
	cache_stream_end(g->cache, &s);
	cache_blob_put(&b);
}

/* again: the pages are on disk already. */
static void fail_each(bool disk, bool again)
{
	struct once o;
	unsigned n, failed = 0;
	bool fired = true;

	for (n = 1; fired; n++) {
		struct rig g;

		rig_init(&g, disk);
		rig_start(&g);
		rig_settle(&g);
		if (again) {
			rig_once(&g, 0, &o);
			rig_stop(&g);
			rig_start(&g);
			rig_settle(&g);
		}
		rig_once(&g, n, &o);
		fired = nth_fired();
		failed += o.blob != 0;
		for (unsigned i = 0; o.blob == 0 && i < 3; i++) {
			cr_assert(o.ended[i], "read %u never ended, allocation %u failing", i, n);
			cr_assert(o.read[i] == 0 || o.read[i] == -ENOMEM, "error %d", o.read[i]);
			cr_assert(o.read[i] != 0 || o.right[i], "wrong bytes");
			cr_assert(fired || o.read[i] == 0);
			failed += o.read[i] != 0;
		}
		rig_settle(&g);
		page_drop_parked(g.cache);
		cr_assert_eq(arena_used(g.cache->arena), 0);
		rig_fini(&g);
	}
	cr_assert_gt(failed, 2);
	cr_assert_gt(n, 10, "only %u allocations were seen", n);
}

Test(cache_model, each_allocation_fails_once_in_memory)
{
	fail_each(false, false);
}

Test(cache_model, each_allocation_fails_once_with_a_disk)
{
	fail_each(true, false);
}

Test(cache_model, each_allocation_fails_once_with_pages_on_disk)
{
	fail_each(true, true);
}
