/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random changes of a staged file beside an array of bytes: what is read, what a
 * successor would read, and what lies where must agree at every step.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <criterion/criterion.h>

#include "staged_rig.h"

TestSuite(staged_model);

#define MOST (512 * 1024)

struct model {
	struct staged_rig s;
	unsigned seed;
	struct staged *sf;
	struct blob *base;
	uint64_t size;
	unsigned char data[MOST];
	bool unsent; /* changed since the last upload that ended well */
	/* an upload that runs */
	bool sending;
	unsigned versions;
	uint64_t sent_size;
	unsigned char sent[MOST];
};

static unsigned char scratch[MOST];

static unsigned rnd(struct model *m, unsigned n)
{
	return (unsigned)rand_r(&m->seed) % n;
}

/* Mostly at few places, so that changes meet. */
static uint64_t some_off(struct model *m, uint64_t below)
{
	uint64_t off = rnd(m, 3) ? rnd(m, 128) * 4096 : rnd(m, MOST);

	return off % below;
}

static void do_write(struct model *m)
{
	uint64_t off = some_off(m, MOST), len = 1 + rnd(m, rnd(m, 4) ? 9000 : 70000);

	len = MIN(len, MOST - off);
	memset(scratch, (int)(1 + rnd(m, 255)), len);
	cr_assert_eq(srig_do(&m->s, m->sf, staged_write, off, len, scratch), 0);
	if (off > m->size)
		memset(m->data + m->size, 0, off - m->size);
	memcpy(m->data + off, scratch, len);
	m->size = MAX(m->size, off + len);
	m->unsent = true;
}

static void do_truncate(struct model *m)
{
	uint64_t off = rnd(m, 2) ? some_off(m, MOST) : some_off(m, m->size + 1);

	cr_assert_eq(srig_do(&m->s, m->sf, staged_truncate, off, 0, NULL), 0);
	m->unsent |= off != m->size;
	if (off > m->size)
		memset(m->data + m->size, 0, off - m->size);
	m->size = off;
}

static void do_zero(struct model *m)
{
	uint64_t off = some_off(m, MOST), len = 1 + rnd(m, 50000), to;
	bool keep = rnd(m, 2);

	len = MIN(len, MOST - off);
	to = off + len;
	cr_assert_eq(srig_zero(&m->s, m->sf, off, len, keep), 0);
	m->unsent = true; /* perhaps */
	if (keep)
		to = MIN(to, m->size);
	if (off > m->size && !keep)
		memset(m->data + m->size, 0, off - m->size);
	if (off < to)
		memset(m->data + off, 0, to - off);
	if (!keep)
		m->size = MAX(m->size, to);
}

static void do_read(struct model *m)
{
	uint64_t off = some_off(m, m->size + 1), len = rnd(m, rnd(m, 4) ? 10000 : MOST);

	len = MIN(len, m->size - off);
	cr_assert_eq(srig_check(&m->s, m->sf, off, m->data + off, len), 0, "at %llu, %llu",
	    (unsigned long long)off, (unsigned long long)len);
}

static void begin_upload(struct model *m)
{
	staged_sending(m->sf);
	m->sending = true;
	m->sent_size = m->size;
	memcpy(m->sent, m->data, m->size);
	m->unsent = false;
}

static void end_upload(struct model *m, bool well)
{
	struct blob_id id = {m->s.g.ufs, "f", NULL, m->sent_size};
	struct blob *b;
	char version[16];

	m->sending = false;
	if (!well) {
		staged_not_uploaded(m->sf);
		m->unsent = true;
		return;
	}
	snprintf(version, sizeof(version), "v%u", ++m->versions);
	id.version = version;
	/* The storage has these bytes under that version. */
	fake_store_fini(&m->s.g.ufs->store);
	fake_store_init(&m->s.g.ufs->store);
	fake_store_add(&m->s.g.ufs->store, "f", UFS_FILE, m->sent_size, version,
	    m->sent_size > 0 ? m->sent : NULL);
	b = cache_blob_get(m->s.g.cache, &id);
	cr_assert_eq(staged_uploaded(m->sf, b, m->sent_size), 0);
	if (m->base != NULL)
		cache_blob_put(&m->base);
	m->base = b;
}

/* Nobody called: all is as it was, and what was being sent is dirty. */
static void reopen(struct model *m)
{
	if (m->sending) {
		m->sending = false;
		m->unsent = true;
	}
	staged_close(&m->sf);
	rig_settle(&m->s.g);
	srig_restart(&m->s);
	m->sf = srig_open(&m->s, 7, m->base);
}

/* Kinds, counters and rows. */
static void check_all(struct model *m)
{
	uint64_t off, end = 0, bytes = 0, dirty = 0;
	enum staged_kind kind, last = STAGED_HOLE;
	struct staging_status st;

	cr_assert_eq(staged_size(m->sf), m->size);
	for (off = 0; off < m->size; off = end) {
		kind = staged_map(m->sf, off, &end);
		cr_assert(end > off && end <= m->size);
		cr_assert(off == 0 || kind != last, "neighbours of one kind");
		last = kind;
		if (kind == STAGED_CLEAN || kind == STAGED_DIRTY || kind == STAGED_SENDING)
			bytes += end - off;
		if (kind == STAGED_DIRTY || kind == STAGED_SENDING)
			dirty += end - off;
		cr_assert(m->sending || kind != STAGED_SENDING);
	}
	staging_status(m->s.st, &st);
	cr_assert_eq(st.bytes, bytes);
	cr_assert_eq(st.dirty, dirty);
	cr_assert_eq(st.files, 1);
	cr_assert_eq(srig_rows(&m->s), m->sf->map.n);
	cr_assert(staged_dirty(m->sf) || (!m->unsent && !m->sending) || dirty == 0);
	cr_assert(!m->sf->rows_bad);
}

static void step(struct model *m)
{
	unsigned what = rnd(m, 1000);

	if (what < 350)
		do_write(m);
	else if (what < 420)
		do_truncate(m);
	else if (what < 500)
		do_zero(m);
	else if (what < 880)
		do_read(m);
	else if (what < 900)
		cr_assert_eq(srig_do(&m->s, m->sf, staged_fill, some_off(m, MOST),
		    rnd(m, 100000), NULL), 0);
	else if (what < 910)
		cr_assert_eq(srig_do(&m->s, m->sf, staged_sync, 0, 0, NULL), 0);
	else if (what < 970 && !m->sending)
		begin_upload(m);
	else if (what < 970)
		end_upload(m, rnd(m, 3) > 0);
	else if (what < 975)
		reopen(m);
}

static void run(unsigned seed, unsigned steps)
{
	static struct model m;

	memset(&m, 0, sizeof(m));
	m.seed = seed;
	srig_init(&m.s);
	m.size = seed % 2 ? 300000 : 0;
	srig_base_bytes("v0", 0, m.data, m.size);
	if (m.size > 0)
		m.base = rig_blob(&m.s.g, "f", "v0", m.size);
	m.sf = srig_create(&m.s, 7, m.base);
	for (unsigned n = 0; n < steps; n++) {
		step(&m);
		if (n % 50 == 0)
			check_all(&m);
		if (n % 500 == 0)
			cr_assert_eq(srig_check(&m.s, m.sf, 0, m.data, m.size), 0, "step %u", n);
	}
	reopen(&m);
	cr_assert_eq(srig_check(&m.s, m.sf, 0, m.data, m.size), 0);
	check_all(&m);
	cr_assert_eq(staged_delete(&m.sf), 0);
	cr_assert_eq(statedb_count(m.s.db, STATEDB_STAGED), 0);
	rig_settle(&m.s.g);
	cr_assert_eq(srig_rows(&m.s), 0);
	if (m.base != NULL)
		cache_blob_put(&m.base);
	srig_fini(&m.s);
}

Test(staged_model, random_changes)
{
	const char *rounds = getenv("ROUNDS"); /* more of it */

	for (unsigned seed = 1; seed <= 5; seed++)
		run(seed, rounds != NULL ? (unsigned)atoi(rounds) : 3000);
}
