/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A page of the queue, a content's path, a change, the opening and the status cost the
 * same however much is queued: what LMDB is asked is counted.  ROWS=1000000 makes it many
 * and shows the times.
 */
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <lmdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/obj.h"
#include "meta_check.h"
#include "meta_rig.h"

/* No time limit: ROWS= */
TestSuite(meta_scale);

#define PAGE 100
#define DIR_FILES 1000

static atomic_uint calls;

/* These come before LMDB's own. */
static void *counted(const char *name)
{
	void *sym = dlsym(RTLD_NEXT, name);

	if (sym == NULL)
		abort();
	atomic_fetch_add(&calls, 1);
	return sym;
}

int mdb_get(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *data)
{
	int (*real)(MDB_txn *, MDB_dbi, MDB_val *, MDB_val *) = counted("mdb_get");

	return real(txn, dbi, key, data);
}

int mdb_put(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *data, unsigned flags)
{
	int (*real)(MDB_txn *, MDB_dbi, MDB_val *, MDB_val *, unsigned) = counted("mdb_put");

	return real(txn, dbi, key, data, flags);
}

int mdb_del(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *data)
{
	int (*real)(MDB_txn *, MDB_dbi, MDB_val *, MDB_val *) = counted("mdb_del");

	return real(txn, dbi, key, data);
}

int mdb_cursor_get(MDB_cursor *cur, MDB_val *key, MDB_val *data, MDB_cursor_op op)
{
	int (*real)(MDB_cursor *, MDB_val *, MDB_val *, MDB_cursor_op) = counted("mdb_cursor_get");

	return real(cur, key, data, op);
}

static struct meta_rig g;

static void name(char *path, size_t len, unsigned i)
{
	(void)snprintf(path, len, "files/%u/%u", i / DIR_FILES, i);
}

/* Ids as they are given: anywhere. */
static uint64_t id_of(unsigned i)
{
	return META_CONTENT_BIT | (i * UINT64_C(0x9e3779b97f4a7c15) >> 1);
}

static struct meta_change file(char *path, size_t len, unsigned i)
{
	struct meta_change ch;

	name(path, len, i);
	ch = meta_rig_content(path, 1, META_STATE_NOT_PERSISTED, 10240);
	ch.rec.content.id = id_of(i);
	ch.rec.content.next_ns = 1000 + i / 10;
	return ch;
}

static void fill(unsigned from, unsigned to)
{
	static struct meta_change ch[2000];
	static char path[2000][40];
	unsigned n;

	for (; from < to; from += n) {
		n = MIN(to - from, ARRAY_LEN(ch));
		for (unsigned i = 0; i < n; i++)
			ch[i] = file(path[i], sizeof(path[i]), from + i);
		cr_assert_eq(meta_rig_txn(&g, ch, n), 0);
	}
}

struct cost {
	unsigned page, middle, content, change, open, status;
};

static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static double since;

static void begin(void)
{
	atomic_store(&calls, 0);
	since = now_ms();
}

static unsigned end(const char *what, unsigned rows)
{
	if (getenv("ROWS") != NULL)
		printf("%8u rows: %-8s %6u calls %8.3f ms\n", rows, what, atomic_load(&calls),
		    now_ms() - since);
	return atomic_load(&calls);
}

static unsigned page_cost(unsigned rows, const char *what, uint64_t after_ns)
{
	struct meta_queue q = { .after_ns = after_ns, .until_ns = UINT64_MAX, .max = PAGE };
	unsigned n;

	begin();
	cr_assert_eq(meta_rig_queue(&g, &q), 0);
	n = end(what, rows);
	cr_assert_eq(q.count, PAGE);
	cr_assert(q.more);
	meta_queue_free(&q);
	return n;
}

static struct cost measure(unsigned rows)
{
	struct meta_content_get rq = { .id = id_of(rows / 3) };
	struct meta_status st;
	char path[40], want[40];
	struct meta_change ch = file(path, sizeof(path), rows / 2);
	struct cost c;

	c.page = page_cost(rows, "page", 0);
	c.middle = page_cost(rows, "middle", 1000 + rows / 20);
	begin();
	cr_assert_eq(meta_rig_content_get(&g, &rq), 0);
	c.content = end("content", rows);
	name(want, sizeof(want), rows / 3);
	cr_assert_str_eq(rq.path, want);
	meta_content_free(&rq);
	ch.if_content = ch.rec.content.id;
	ch.rec.content.tries++;
	ch.rec.content.next_ns = 5;
	begin();
	cr_assert_eq(meta_rig_txn(&g, &ch, 1), 0);
	c.change = end("change", rows);
	ch = file(path, sizeof(path), rows / 2);
	cr_assert_eq(meta_rig_txn(&g, &ch, 1), 0);
	begin();
	st = meta_rig_status(&g);
	c.status = end("status", rows);
	cr_assert_eq(st.tally.files[META_STATE_NOT_PERSISTED], rows);
	cr_assert_eq(st.tally.bytes[META_STATE_NOT_PERSISTED], rows * UINT64_C(10240));
	meta_rig_free(&g);
	begin();
	meta_rig_open(&g);
	c.open = end("open", rows);
	cr_assert_eq(meta_rig_status(&g).tally.files[META_STATE_NOT_PERSISTED], rows);
	return c;
}

Test(meta_scale, costs_do_not_grow)
{
	const char *env = getenv("ROWS");
	unsigned many = env != NULL ? (unsigned)atoi(env) : 30000;
	struct cost few, lots;

	meta_rig_init_in(&g, "/dev/shm");
	meta_rig_open(&g);
	fill(0, 2000);
	few = measure(2000);
	begin();
	fill(2000, many);
	(void)end("fill", many);
	if (env != NULL)
		printf("%8u rows: %.0f bytes each\n", many,
		    (double)meta_rig_status(&g).used_bytes / many);
	lots = measure(many);
	cr_assert_eq(lots.page, few.page, "%u, and %u before", lots.page, few.page);
	cr_assert_eq(lots.middle, few.middle, "%u, and %u before", lots.middle, few.middle);
	cr_assert_eq(lots.content, few.content, "%u, and %u before", lots.content, few.content);
	cr_assert_eq(lots.change, few.change, "%u, and %u before", lots.change, few.change);
	cr_assert_eq(lots.open, few.open, "%u, and %u before", lots.open, few.open);
	cr_assert_eq(lots.status, 0);
	cr_assert_lt(lots.page, PAGE * 8);
	if (env == NULL)
		cr_assert_eq(meta_check(g.dir).queued, many);
	meta_rig_fini(&g);
}
