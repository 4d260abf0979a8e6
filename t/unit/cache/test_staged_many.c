/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Many requests at one time, some given up, over a base that is slow: what is read is
 * what was written before the read was asked for, at all places not written since.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "staged_rig.h"

TestSuite(staged_many);

#define MOST (1024 * 1024)
#define BASE_SIZE 700000
#define SLOTS 12

struct slot {
	struct srig_io si;
	srig_verb verb; /* NULL: free */
	unsigned stamp;
	unsigned char *data;
};

struct many {
	struct staged_rig s;
	unsigned seed, stamp;
	struct staged *sf;
	struct blob *base;
	uint64_t size;	     /* once all has ended */
	unsigned size_stamp; /* when it changed last */
	unsigned char want[MOST];
	unsigned changed[MOST]; /* when the byte did */
	struct slot slot[SLOTS];
};

static struct many m;

static unsigned rnd(unsigned n)
{
	return (unsigned)rand_r(&m.seed) % n;
}

static void change(uint64_t off, uint64_t len, int byte)
{
	memset(m.want + off, byte, len);
	for (uint64_t i = off; i < off + len; i++)
		m.changed[i] = m.stamp;
}

static void resize(uint64_t size)
{
	if (size < m.size)
		change(size, m.size - size, 0);
	if (size != m.size)
		m.size_stamp = m.stamp;
	m.size = size;
}

static void check_read(const struct slot *sl)
{
	const unsigned char *got = sl->si.io.iov.iov_base;
	uint64_t off = sl->si.io.off, n = sl->si.io.got;

	if (m.size_stamp <= sl->stamp)
		cr_assert_eq(n, off >= m.size ? 0 : MIN(sl->si.io.len, m.size - off));
	for (uint64_t i = 0; i < n; i++) {
		if (m.changed[off + i] <= sl->stamp)
			cr_assert_eq(got[i], m.want[off + i], "byte %llu is %u, not %u",
			    (unsigned long long)(off + i), got[i], m.want[off + i]);
	}
}

static void reap(struct slot *sl)
{
	cr_assert_eq(sl->si.err, 0, "error %d", sl->si.err);
	if (sl->verb == staged_read) {
		check_read(sl);
		staged_read_release(&sl->si.io);
	}
	free(sl->data);
	sl->data = NULL;
	sl->verb = NULL;
}

static void begin(struct slot *sl)
{
	uint64_t off = rnd(2) ? rnd(200) * 4096 : rnd(MOST), len = 1 + rnd(rnd(3) ? 9000 : 200000);
	unsigned what = rnd(100);
	int byte = (int)rnd(256);

	m.stamp++;
	len = MIN(len, MOST - off);
	sl->stamp = m.stamp;
	if (what < 35) {
		sl->verb = staged_write;
		sl->data = malloc(len);
		memset(sl->data, byte, len);
		change(off, len, byte);
		resize(MAX(m.size, off + len));
	} else if (what < 42) {
		sl->verb = staged_truncate;
		resize(off);
		len = 0;
	} else if (what < 48) {
		sl->verb = staged_zero;
		change(off, len, 0);
		resize(MAX(m.size, off + len));
	} else if (what < 58) {
		sl->verb = staged_fill;
	} else if (what < 60) {
		sl->verb = staged_sync;
	} else {
		sl->verb = staged_read;
	}
	srig_start(&sl->si, m.sf, sl->verb, off, len, sl->data);
}

static void step(void)
{
	struct slot *sl = &m.slot[rnd(SLOTS)];
	unsigned what = rnd(100);

	if (sl->verb == NULL && what < 70) {
		begin(sl);
	} else if (sl->verb != NULL && sl->si.done) {
		reap(sl);
	} else if (sl->verb != NULL && what < 10) {
		bool can = sl->verb == staged_read || sl->verb == staged_fill;

		if (staged_io_abort(&sl->si.io)) {
			cr_assert(can);
			sl->verb = NULL;
		}
	} else if (what < 60) {
		fake_step_one(m.s.g.ufs, rnd(100000));
	} else if (what < 62) {
		staged_set_base(m.sf, m.base);
	} else {
		loop_turn(m.s.g.loop, false);
	}
}

static bool is_idle(void *sf)
{
	return !staged_busy(sf);
}

/* A chunk whose readers were given up, or have what they want by a write, may still be on its
 * way into the file when the last request has ended. */
static void end_all(void)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		if (m.slot[i].verb == NULL)
			continue;
		cr_assert(rig_until(&m.s.g, srig_done, &m.slot[i].si), "it never ended");
	}
	for (unsigned i = 0; i < SLOTS; i++) {
		if (m.slot[i].verb != NULL)
			reap(&m.slot[i]);
	}
	cr_assert(rig_until(&m.s.g, is_idle, m.sf), "the pool never ended with it");
}

static void run(unsigned seed)
{
	memset(&m, 0, sizeof(m));
	m.seed = seed;
	srig_init(&m.s);
	m.s.g.ufs->chunk = 30000;
	m.size = BASE_SIZE;
	srig_base_bytes("v0", 0, m.want, BASE_SIZE);
	m.base = rig_blob(&m.s.g, "f", "v0", BASE_SIZE);
	m.sf = srig_create(&m.s, 7, m.base);
	for (unsigned n = 0; n < 4000; n++) {
		step();
		if (n % 1000 == 999) {
			end_all();
			cr_assert_eq(staged_size(m.sf), m.size);
			cr_assert_eq(srig_check(&m.s, m.sf, 0, m.want, m.size), 0);
			staged_close(&m.sf);
			rig_settle(&m.s.g);
			srig_restart(&m.s);
			m.sf = srig_open(&m.s, 7, m.base);
			cr_assert_eq(srig_check(&m.s, m.sf, 0, m.want, m.size), 0);
		}
	}
	cr_assert_eq(staged_delete(&m.sf), 0);
	cache_blob_put(&m.base);
	rig_settle(&m.s.g);
	page_drop_parked(m.s.g.cache);
	cr_assert_eq(arena_used(m.s.g.cache->arena), 0);
	srig_fini(&m.s);
}

Test(staged_many, requests_side_by_side)
{
	for (unsigned seed = 1; seed <= 8; seed++)
		run(seed);
}
