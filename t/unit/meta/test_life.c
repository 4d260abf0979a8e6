/* SPDX-License-Identifier: BSD-2-Clause */
/* Opening, closing, losing the right, a disk that goes and comes back; aborting and timeouts. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/obj.h"
#include "meta_rig.h"

static struct meta_rig g;

static void init(void)
{
	meta_rig_init(&g);
}

static void fini(void)
{
	meta_rig_fini(&g);
}

TestSuite(meta_life, .init = init, .fini = fini);

struct many {
	struct meta_txn rq;
	struct meta_rig_end end;
	struct meta_change ch;
	char path[32];
};

static void put_start(struct many *m, unsigned no)
{
	memset(m, 0, sizeof(*m));
	(void)snprintf(m->path, sizeof(m->path), "d/%u", no);
	m->ch = meta_rig_file(m->path, no);
	m->rq.req.user = &m->end;
	m->rq.changes = &m->ch;
	m->rq.n = 1;
	meta_txn(g.meta, &m->rq, meta_rig_done);
}

static void set_true(void *arg)
{
	*(bool *)arg = true;
}

/* --- Opening and closing */

Test(meta_life, requests_wait_for_the_opening)
{
	struct many m[10];
	bool closed = false;

	meta_rig_new(&g);
	put_start(&m[0], 0);
	meta_rig_settle(&g);
	cr_assert_eq(m[0].end.err, -ECANCELED, "not opened at all");
	meta_open(g.meta);
	cr_assert(!meta_rig_status(&g).open);
	for (unsigned i = 0; i < 10; i++)
		put_start(&m[i], i);
	meta_rig_settle(&g);
	for (unsigned i = 0; i < 10; i++)
		cr_assert(m[i].end.done && m[i].end.err == 0);
	cr_assert(meta_rig_status(&g).open);
	cr_assert_str_eq(meta_rig_status(&g).dir, g.dir);
	cr_assert_str_empty(meta_rig_status(&g).error);
	meta_rig_close(&g);
	cr_assert(!meta_rig_status(&g).open);
	put_start(&m[0], 0);
	meta_rig_settle(&g);
	cr_assert_eq(m[0].end.err, -ECANCELED);
	/* Closed while it is being opened; and opened again. */
	meta_open(g.meta);
	put_start(&m[0], 0);
	meta_close(g.meta, set_true, &closed);
	meta_rig_settle(&g);
	cr_assert(closed && m[0].end.done && m[0].end.err == -ECANCELED);
	meta_rig_open(&g);
	cr_assert_eq(meta_rig_mode(&g, "d/7"), 7);
}

Test(meta_life, closing_while_requests_wait)
{
	static struct many m[64];
	struct meta_get get = { .path = "d/0" };
	struct meta_rig_end end = { .done = false };
	unsigned canceled = 0;
	bool closed = false;

	meta_rig_open(&g);
	for (unsigned turns = 0; turns < 6; turns++) {
		closed = false;
		for (unsigned i = 0; i < ARRAY_LEN(m); i++) {
			put_start(&m[i], turns * 100 + i);
			if (i == 31) { /* these are under way, the others wait */
				for (unsigned t = 0; t < turns; t++)
					(void)loop_turn(g.loop, false);
			}
		}
		memset(&end, 0, sizeof(end));
		get.req.user = &end;
		meta_get(g.meta, &get, meta_rig_done);
		meta_close(g.meta, set_true, &closed);
		cr_assert(!closed);
		while (!closed) {
			(void)loop_turn(g.loop, false);
		}
		cr_assert(end.done && (end.err == 0 || end.err == -ECANCELED || end.err == -ENOENT));
		meta_rig_open(&g);
		for (unsigned i = 0; i < ARRAY_LEN(m); i++) {
			int mode = meta_rig_mode(&g, m[i].path);

			cr_assert(m[i].end.done, "answered before the store is closed");
			cr_assert(m[i].end.err == 0 || m[i].end.err == -ECANCELED);
			cr_assert_eq(mode, m[i].end.err == 0 ? (int)m[i].ch.rec.mode : -ENOENT);
			canceled += m[i].end.err != 0;
		}
	}
	cr_assert_gt(canceled, 32);
}

Test(meta_life, one_at_a_time)
{
	struct meta_rig other;
	struct many m;
	struct meta_status st;

	meta_rig_open(&g);
	meta_rig_join(&other, &g);
	meta_rig_new(&other);
	meta_open(other.meta);
	meta_rig_settle(&other);
	cr_assert(!meta_rig_status(&other).open);
	cr_assert_str_empty(meta_rig_status(&other).error, "a predecessor may be closing");
	meta_rig_free(&g);
	for (int i = 0; i < 3 && !meta_rig_status(&other).open; i++) {
		test_clock_advance(&other.clock, 100 * NS_PER_MS);
		meta_rig_settle(&other);
	}
	cr_assert(meta_rig_status(&other).open);
	/* The other way round: five seconds, then errors, then it is tried again. */
	meta_rig_new(&g);
	meta_open(g.meta);
	put_start(&m, 1);
	for (int i = 0; i < 45; i++) {
		test_clock_advance(&g.clock, 100 * NS_PER_MS);
		meta_rig_settle(&g);
	}
	cr_assert(!m.end.done);
	log_set_level(LOG_LVL_ERROR);
	test_clock_advance(&g.clock, NS_PER_S);
	meta_rig_settle(&g);
	test_clock_advance(&g.clock, NS_PER_S);
	meta_rig_settle(&g);
	cr_assert(m.end.done && m.end.err == -EIO);
	st = meta_rig_status(&g);
	HAS(st.error, "in use by another daemon (pid ");
	HAS(st.error, g.dir);
	put_start(&m, 1);
	meta_rig_settle(&g);
	cr_assert(m.end.done && m.end.err == -EIO, "at once");
	meta_rig_free(&other);
	test_clock_advance(&g.clock, 5 * NS_PER_S);
	meta_rig_settle(&g);
	cr_assert(meta_rig_status(&g).open);
	put_start(&m, 1);
	meta_rig_settle(&g);
	cr_assert_eq(m.end.err, 0);
	meta_rig_fini(&other);
}

Test(meta_life, closing_while_the_lock_is_waited_for)
{
	struct meta_rig other;

	meta_rig_open(&g);
	meta_rig_join(&other, &g);
	meta_rig_new(&other);
	meta_open(other.meta);
	meta_rig_settle(&other);
	meta_rig_free(&other);
	/* And while it is between two attempts. */
	meta_rig_new(&other);
	meta_open(other.meta);
	for (int i = 0; i < 60; i++) {
		test_clock_advance(&other.clock, 100 * NS_PER_MS);
		meta_rig_settle(&other);
	}
	cr_assert(meta_rig_status(&other).error[0] != '\0');
	meta_rig_fini(&other);
}

/* --- The right to write */

Test(meta_life, the_epoch_passes)
{
	struct epoch ep;
	struct many m;

	cr_assert_eq(epoch_create(&ep), 0);
	g.epoch = ep;
	cr_assert_eq(epoch_raise(&g.epoch, 0), 0);
	meta_rig_open(&g);
	cr_assert_eq(meta_rig_put(&g, "a", 1), 0);
	ep.mine = 0;
	cr_assert_eq(epoch_raise(&ep, 1), 0, "another daemon");
	cr_assert_eq(meta_rig_put(&g, "a", 2), -ESTALE);
	cr_assert_eq(meta_rig_mode(&g, "a"), -ESTALE);
	meta_rig_free(&g);
	meta_rig_new(&g);
	meta_open(g.meta);
	put_start(&m, 1);
	meta_rig_settle(&g);
	cr_assert_eq(m.end.err, -EIO);
	HAS(meta_rig_status(&g).error, "another daemon's");
	meta_rig_free(&g);
	g.epoch = ep;
	meta_rig_open(&g);
	cr_assert_eq(meta_rig_mode(&g, "a"), 1);
	meta_rig_free(&g);
	epoch_close(&g.epoch);
}

/* --- Aborting */

struct abort_set {
	struct meta_get get;
	struct meta_scan scan;
	struct meta_intents intents;
	struct meta_txn txn;
	struct meta_queue queue;
	struct meta_content_get content;
	struct meta_setting_get setting;
	struct meta_change ch[2];
	char path[32], other[32];
};

static void never(struct meta_req *r, int err)
{
	cr_assert_fail("done after its abort: %p %d", (void *)r, err);
}

Test(meta_life, aborted_at_any_moment)
{
	static const char blob[5000];

	struct meta_change first[2] = { meta_rig_content("d/c", 1, META_STATE_FAILED, sizeof(blob)),
		{ .verb = META_SETTING_PUT, .id = 1, .blob = blob, .blob_len = sizeof(blob) } };

	first[0].blob = blob;
	first[0].blob_len = sizeof(blob);
	meta_rig_open(&g);
	cr_assert_eq(meta_rig_put(&g, "d/a", 1), 0);
	cr_assert_eq(meta_rig_txn(&g, first, 2), 0);
	for (unsigned n = 0; n < 60; n++) {
		struct abort_set *s = calloc(1, sizeof(*s));

		(void)snprintf(s->path, sizeof(s->path), "d/%u", n);
		(void)snprintf(s->other, sizeof(s->other), "e/%u", n);
		s->get.path = s->scan.path = "d";
		s->ch[0] = meta_rig_file(s->path, n);
		s->ch[1] = (struct meta_change){ .verb = META_INTENT_PUT,
			.id = n + 1,
			.blob = blob,
			.blob_len = sizeof(blob) };
		s->txn.changes = s->ch;
		s->txn.n = 2;
		meta_txn(g.meta, &s->txn, never);
		meta_get(g.meta, &s->get, never);
		meta_scan(g.meta, &s->scan, never);
		meta_intents(g.meta, &s->intents, never);
		s->queue.until_ns = UINT64_MAX;
		meta_queue(g.meta, &s->queue, never);
		s->content.id = META_RIG_ID(1);
		meta_content_get(g.meta, &s->content, never);
		s->setting.id = 1;
		meta_setting_get(g.meta, &s->setting, never);
		/* Not yet begun; in a job; perhaps done there.  One turn begins what came in
		 * it, and only the next could answer. */
		if (n % 4 > 0)
			(void)loop_turn(g.loop, false);
		if (n % 4 > 1)
			(void)usleep((n % 4 - 1) * 200);
		meta_abort(&s->txn.req);
		meta_abort(&s->get.req);
		meta_abort(&s->scan.req);
		meta_abort(&s->intents.req);
		meta_abort(&s->queue.req);
		meta_abort(&s->content.req);
		meta_abort(&s->setting.req);
		meta_abort(&s->get.req); /* no-op */
		meta_scan_free(&s->scan);
		meta_intents_free(&s->intents);
		memset(s, 0xa5, sizeof(*s));
		free(s);
	}
	meta_rig_settle(&g);
	cr_assert_eq(meta_rig_put(&g, "d/b", 2), 0);
	cr_assert_eq(meta_rig_mode(&g, "d/a"), 1);
}

static struct meta_req *victim;

static void abort_other(struct meta_req *r, int err)
{
	meta_rig_done(r, err);
	if (victim != NULL)
		meta_abort(victim);
}

Test(meta_life, aborted_by_another_ones_answer)
{
	struct meta_rig_end end = { .done = false };
	struct meta_get a = { .req.user = &end, .path = "a" }, b = { .path = "b" };

	meta_rig_open(&g);
	victim = &b.req;
	meta_get(g.meta, &a, abort_other);
	meta_get(g.meta, &b, never);
	meta_rig_settle(&g);
	cr_assert(end.done && end.err == -ENOENT);
	/* The same for answers that never came near the store. */
	memset(&end, 0, sizeof(end));
	a.path = b.path = "//";
	meta_get(g.meta, &a, abort_other);
	meta_get(g.meta, &b, never);
	meta_rig_settle(&g);
	cr_assert(end.done && end.err == -EINVAL);
}

/* --- Time */

static sem_t begun, go_on;

static void block_work(struct pool_job *job)
{
	(void)job;
	sem_post(&begun);
	sem_wait(&go_on);
}

static void block_done(struct pool_job *job)
{
	(void)job;
}

Test(meta_life, timeouts)
{
	struct pool_job blocks[5];
	struct many m[3];
	struct meta_rig_end end = { .done = false };
	struct meta_get get = { .req.user = &end, .path = "d/0" };

	meta_rig_open(&g);
	sem_init(&begun, 0, 0);
	sem_init(&go_on, 0, 0);
	memset(blocks, 0, sizeof(blocks));
	for (size_t i = 0; i < ARRAY_LEN(blocks); i++) {
		pool_submit(g.pool, NULL, &blocks[i], block_work, block_done);
		sem_wait(&begun);
	}
	put_start(&m[0], 0);
	meta_get(g.meta, &get, meta_rig_done);
	test_loop_settle(g.loop);
	put_start(&m[1], 1); /* waits for the first one's commit */
	test_loop_settle(g.loop);
	test_clock_advance(&g.clock, 9 * NS_PER_S);
	test_loop_settle(g.loop);
	cr_assert(!m[0].end.done && !m[1].end.done && !end.done);
	meta_rig_set(&g, "meta.timeout", "20s"); /* of later ones */
	put_start(&m[2], 2);
	test_clock_advance(&g.clock, 2 * NS_PER_S);
	test_loop_settle(g.loop);
	cr_assert(m[0].end.done && m[0].end.err == -ETIMEDOUT);
	cr_assert(m[1].end.done && m[1].end.err == -ETIMEDOUT);
	cr_assert(end.done && end.err == -ETIMEDOUT);
	cr_assert(!m[2].end.done);
	for (size_t i = 0; i < ARRAY_LEN(blocks); i++)
		sem_post(&go_on);
	meta_rig_settle(&g);
	cr_assert(m[2].end.done && m[2].end.err == 0);
	cr_assert_eq(meta_rig_mode(&g, "d/0"), 0, "was on its way to the disk");
	cr_assert_eq(meta_rig_mode(&g, "d/1"), -ENOENT, "was not");
	cr_assert_eq(meta_rig_mode(&g, "d/2"), 2);
}

Test(meta_life, timeout_while_the_store_is_opened)
{
	struct many m;
	int fd;
	char path[128];

	meta_rig_open(&g);
	meta_rig_close(&g);
	(void)snprintf(path, sizeof(path), "%s/lock", g.dir);
	fd = open(path, O_RDONLY);
	cr_assert_eq(flock(fd, LOCK_EX), 0);
	meta_rig_set(&g, "meta.timeout", "1s");
	meta_open(g.meta);
	put_start(&m, 1);
	meta_rig_settle(&g);
	test_clock_advance(&g.clock, 2 * NS_PER_S);
	meta_rig_settle(&g);
	cr_assert(m.end.done && m.end.err == -ETIMEDOUT);
	close(fd);
	test_clock_advance(&g.clock, NS_PER_S);
	meta_rig_settle(&g);
	cr_assert(meta_rig_status(&g).open);
	cr_assert_eq(meta_rig_mode(&g, "d/1"), -ENOENT);
}

/* --- A disk that comes back */

/* The store under a name that a disk has when it is not mounted there. */
static void unplug(char store[128], char other[128])
{
	(void)snprintf(store, 128, "%s/meta.mdb", g.dir);
	(void)snprintf(other, 128, "%s/away", g.top);
	cr_assert_eq(rename(store, other), 0);
}

static void copy_file(const char *from, const char *to)
{
	char buf[65536];
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_EXCL, 0600);
	ssize_t n;

	cr_assert(in >= 0 && out >= 0);
	while ((n = read(in, buf, sizeof(buf))) > 0)
		cr_assert_eq(write(out, buf, (size_t)n), n);
	cr_assert_eq(n, 0);
	close(in);
	close(out);
}

static int put_one(unsigned no)
{
	struct many m;

	put_start(&m, no);
	meta_rig_settle(&g);
	cr_assert(m.end.done);
	return m.end.err;
}

Test(meta_life, a_disk_that_was_mounted_again_is_found)
{
	char store[128], other[128];
	struct errtext et;

	meta_rig_open(&g);
	cr_assert_eq(put_one(1), 0);
	unplug(store, other);
	cr_assert_eq(fault_init("meta.commit=errno:5@1", &et), 0);
	cr_assert_eq(put_one(2), -EIO);
	cr_assert(meta_rig_status(&g).open, "what can be read is read still");
	cr_assert_eq(meta_rig_mode(&g, "d/1"), 1);

	copy_file(other, store);
	cr_assert_eq(fault_init("meta.commit=errno:5@1", &et), 0);
	cr_assert_eq(put_one(3), -EIO);
	cr_assert_eq(fault_init("", &et), 0);
	test_clock_advance(&g.clock, 5 * NS_PER_S);
	meta_rig_settle(&g);
	cr_assert(meta_rig_status(&g).open);
	cr_assert_eq(put_one(4), 0);
	cr_assert_eq(unlink(other), 0);
	cr_assert_eq(meta_rig_mode(&g, "d/1"), 1);
	cr_assert_eq(meta_rig_mode(&g, "d/2"), -ENOENT);
	cr_assert_eq(meta_rig_mode(&g, "d/4"), 4);
}

/* An empty or older directory is where no disk is: nothing begins there. */
Test(meta_life, a_store_that_was_open_is_not_made_anew)
{
	char store[128], other[128], old[128];
	struct errtext et;

	meta_rig_open(&g);
	cr_assert_eq(put_one(1), 0);
	unplug(store, other);
	(void)snprintf(old, sizeof(old), "%s/old", g.top);
	copy_file(other, old);
	cr_assert_eq(put_one(2), 0);
	cr_assert_eq(put_one(7), 0);
	copy_file(old, store);
	cr_assert_eq(fault_init("meta.commit=errno:5@1", &et), 0);
	cr_assert_eq(put_one(3), -EIO);
	cr_assert_eq(fault_init("", &et), 0);
	test_clock_advance(&g.clock, 5 * NS_PER_S);
	meta_rig_settle(&g);
	HAS(meta_rig_status(&g).error, "older");
	cr_assert_eq(unlink(store), 0);
	for (unsigned i = 0; i < 3; i++) {
		test_clock_advance(&g.clock, 5 * NS_PER_S);
		meta_rig_settle(&g);
		cr_assert(!meta_rig_status(&g).open);
		HAS(meta_rig_status(&g).error, "is not any more");
		cr_assert_neq(access(store, F_OK), 0);
	}
	cr_assert_eq(rename(other, store), 0);
	cr_assert_eq(unlink(old), 0);
	test_clock_advance(&g.clock, 5 * NS_PER_S);
	meta_rig_settle(&g);
	cr_assert(meta_rig_status(&g).open);
	cr_assert_eq(meta_rig_mode(&g, "d/2"), 2);
	cr_assert_eq(put_one(5), 0);
}
