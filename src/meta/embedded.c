/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The embedded back end on the loop's side: what waits, and which job takes it.
 *
 * Reads go to up to DB_READERS jobs side by side, each with one snapshot for all that
 * it takes along; writes go to one job at a time, which takes all that wait.
 */
#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "base/options.h"
#include "base/units.h"
#include "meta/embedded_priv.h"
#include "reactor/pool.h"

#define EMBEDDED_MAGIC 0x3e7aeb00u

/* A predecessor may be closing: the lock is tried so often, for so long. */
#define LOCK_TRY_NS (50 * NS_PER_MS)
#define LOCK_WAIT_NS (5 * NS_PER_S)

/* What one job takes along at the most, so that none waits for too many others. */
#define READ_WEIGHT 64
#define SCAN_WEIGHT 16
#define WRITE_CHANGES 8192
#define WRITE_BYTES (8 * MIB)

enum embedded_state { EMBEDDED_CLOSED, EMBEDDED_OPENING, EMBEDDED_OPEN };

struct batch {
	struct pool_job job;
	struct embedded *e;
	struct meta_calls calls;
	struct db_report rep;
	bool busy;
};

struct embedded {
	struct meta_backend be;
	uint32_t magic;
	const struct meta_env *env;
	const char *dir;
	enum embedded_state state;
	bool closing;
	struct batch files; /* opens and closes */
	uint64_t limit;
	struct timer lock_retry;
	uint64_t lock_until;
	struct db *db; /* a job's while one is busy */
	struct db_was was; /* jobs' of `files` */

	struct deferred pump;
	struct meta_calls reads, writes; /* in no job yet */
	struct batch readers[DB_READERS];
	struct batch writer;
	bool sweep; /* deleted directories wait for their end */
	uint64_t records, bytes;
	struct meta_tally tally;
};

static void pump(struct deferred *d);

static struct embedded *embedded_of(struct meta_backend *be)
{
	struct embedded *e = container_of(be, struct embedded, be);

	CHECK_OBJ(e, EMBEDDED_MAGIC);
	return e;
}

static struct batch *batch_of(struct pool_job *job)
{
	return container_of(job, struct batch, job);
}

static void submit(struct batch *b, void (*work)(struct pool_job *job),
    void (*done)(struct pool_job *job))
{
	memset(&b->rep, 0, sizeof(b->rep));
	b->busy = true;
	pool_submit(b->e->env->pool, NULL, &b->job, work, done);
}

/* --- Closing */

static void close_work(struct pool_job *job)
{
	struct embedded *e = batch_of(job)->e;

	if (e->db != NULL)
		e->was.last = e->db->gate.last;
	db_close(&e->db);
}

static void close_done(struct pool_job *job)
{
	struct embedded *e = batch_of(job)->e;

	e->files.busy = false;
	e->closing = false;
	e->state = EMBEDDED_CLOSED;
	meta_closed(e->be.meta);
}

/* Once nothing runs. */
static void close_if_idle(struct embedded *e)
{
	if (e->files.busy || e->writer.busy)
		return;
	for (unsigned i = 0; i < DB_READERS; i++) {
		if (e->readers[i].busy)
			return;
	}
	assert(TAILQ_EMPTY(&e->reads) && TAILQ_EMPTY(&e->writes));
	loop_undefer(e->env->loop, &e->pump);
	submit(&e->files, close_work, close_done);
}

static void embedded_close(struct meta_backend *be)
{
	struct embedded *e = embedded_of(be);

	assert(e->state != EMBEDDED_CLOSED && !e->closing);
	e->closing = true;
	timer_cancel(&e->lock_retry);
	close_if_idle(e);
}

/* --- Opening */

static void open_work(struct pool_job *job)
{
	struct batch *b = batch_of(job);
	struct embedded *e = b->e;
	int err = FAULT("meta.open");

	if (err != 0)
		errtext_set(&b->rep.et, err, "metadata store %s: open: %s", e->dir, strerror(-err));
	else
		err = db_open(&e->db, e->dir, e->limit, e->env->epoch, &e->was, &b->rep.et);
	job->result = err;
	if (job->result == 0) {
		e->was.known = true;
		db_usage(e->db, &b->rep.records, &b->rep.bytes);
		b->rep.tally = e->db->tally;
		b->rep.garbage_left = e->db->garbage_left;
	}
}

static void open_done(struct pool_job *job)
{
	struct batch *b = batch_of(job);
	struct embedded *e = b->e;

	b->busy = false;
	if (e->closing) {
		close_if_idle(e);
		return;
	}
	if (job->result == -EBUSY && loop_now(e->env->loop) < e->lock_until) {
		timer_arm(&e->lock_retry, LOCK_TRY_NS);
		return;
	}
	e->state = job->result == 0 ? EMBEDDED_OPEN : EMBEDDED_CLOSED;
	e->records = b->rep.records;
	e->bytes = b->rep.bytes;
	e->tally = b->rep.tally;
	e->sweep = b->rep.garbage_left;
	if (e->sweep)
		loop_defer(e->env->loop, &e->pump, pump);
	meta_opened(e->be.meta, job->result, b->rep.et.s);
}

static void lock_again(struct timer *t)
{
	struct embedded *e = container_of(t, struct embedded, lock_retry);

	CHECK_OBJ(e, EMBEDDED_MAGIC);
	submit(&e->files, open_work, open_done);
}

static void embedded_open(struct meta_backend *be)
{
	struct embedded *e = embedded_of(be);

	assert(e->state == EMBEDDED_CLOSED && !e->closing);
	e->state = EMBEDDED_OPENING;
	e->limit = e->env->cfg->meta_size;
	e->lock_until = loop_now(e->env->loop) + LOCK_WAIT_NS;
	submit(&e->files, open_work, open_done);
}

/* --- Requests */

/* The batch is done: its calls end, and what went wrong is told. */
static void batch_end(struct batch *b)
{
	struct embedded *e = b->e;
	struct meta_call *c;

	b->busy = false;
	if (b->rep.et.s[0] != '\0' && !b->rep.broken)
		meta_note(e->be.meta, b->rep.et.s);
	while ((c = TAILQ_FIRST(&b->calls)) != NULL) {
		TAILQ_REMOVE(&b->calls, c, link);
		c->running = false;
		meta_call_end(c, c->err);
	}
	if (e->closing)
		close_if_idle(e);
	else
		loop_defer(e->env->loop, &e->pump, pump);
}

static void read_work(struct pool_job *job)
{
	struct batch *b = batch_of(job);

	db_read(b->e->db, &b->calls, &b->rep);
}

static void read_done(struct pool_job *job)
{
	struct batch *b = batch_of(job);

	batch_end(b);
	if (b->rep.broken)
		meta_lost(b->e->be.meta, b->rep.et.s);
}

static void write_work(struct pool_job *job)
{
	struct batch *b = batch_of(job);

	db_write(b->e->db, &b->calls, &b->rep);
}

static void write_done(struct pool_job *job)
{
	struct batch *b = batch_of(job);
	struct embedded *e = b->e;
	bool broken = b->rep.broken;

	COUNT(e->env->loop, META_COMMITS, b->rep.commits);
	e->sweep = b->rep.garbage_left;
	if (!broken) {
		e->records = b->rep.records;
		e->bytes = b->rep.bytes;
		e->tally = b->rep.tally;
	}
	batch_end(b);
	if (broken)
		meta_lost(e->be.meta, b->rep.et.s);
}

static void take(struct batch *b, struct meta_calls *from)
{
	struct meta_call *c = TAILQ_FIRST(from);

	TAILQ_REMOVE(from, c, link);
	TAILQ_INSERT_TAIL(&b->calls, c, link);
	c->running = true;
}

static unsigned weight_of(const struct meta_call *c)
{
	switch (c->op) {
	case META_OP_GET:
	case META_OP_CONTENT:
	case META_OP_SETTING:
		return 1;
	default:
		return SCAN_WEIGHT;
	}
}

static void start_reads(struct embedded *e)
{
	struct meta_call *c;

	for (unsigned i = 0; i < DB_READERS && !TAILQ_EMPTY(&e->reads); i++) {
		struct batch *b = &e->readers[i];
		unsigned weight = 0;

		if (b->busy)
			continue;
		while ((c = TAILQ_FIRST(&e->reads)) != NULL && weight < READ_WEIGHT) {
			weight += weight_of(c);
			take(b, &e->reads);
			COUNT(e->env->loop, META_READS, 1);
		}
		COUNT(e->env->loop, META_SNAPSHOTS, 1);
		submit(b, read_work, read_done);
	}
}

static void start_writes(struct embedded *e)
{
	struct batch *b = &e->writer;
	unsigned changes = 0;
	size_t bytes = 0;
	struct meta_call *c;

	if (b->busy || (TAILQ_EMPTY(&e->writes) && !e->sweep))
		return;
	while ((c = TAILQ_FIRST(&e->writes)) != NULL && changes < WRITE_CHANGES &&
	       bytes < WRITE_BYTES) {
		changes += c->n;
		for (unsigned i = 0; i < c->n; i++)
			bytes += c->changes[i].blob != NULL ? c->changes[i].blob_len : 0;
		take(b, &e->writes);
		COUNT(e->env->loop, META_TXNS, 1);
	}
	e->sweep = false;
	submit(b, write_work, write_done);
}

/* Deferred, so that requests of one turn go together. */
static void pump(struct deferred *d)
{
	struct embedded *e = container_of(d, struct embedded, pump);

	CHECK_OBJ(e, EMBEDDED_MAGIC);
	if (e->state != EMBEDDED_OPEN || e->closing)
		return;
	start_reads(e);
	start_writes(e);
}

static struct meta_calls *queue_of(struct embedded *e, const struct meta_call *c)
{
	return c->op == META_OP_TXN ? &e->writes : &e->reads;
}

static void embedded_begin(struct meta_backend *be, struct meta_call *c)
{
	struct embedded *e = embedded_of(be);

	assert(e->state == EMBEDDED_OPEN && !e->closing);
	TAILQ_INSERT_TAIL(queue_of(e, c), c, link);
	loop_defer(e->env->loop, &e->pump, pump);
}

static bool embedded_recall(struct meta_backend *be, struct meta_call *c)
{
	struct embedded *e = embedded_of(be);

	if (c->running)
		return false;
	TAILQ_REMOVE(queue_of(e, c), c, link);
	return true;
}

static void embedded_status(const struct meta_backend *be, struct meta_status *out)
{
	const struct embedded *e = container_of(be, const struct embedded, be);

	out->records = e->records;
	out->used_bytes = e->bytes;
	out->tally = e->tally;
}

static void embedded_free(struct meta_backend *be)
{
	struct embedded *e = embedded_of(be);

	assert(e->state == EMBEDDED_CLOSED && !e->closing && e->db == NULL);
	loop_undefer(e->env->loop, &e->pump);
	FREE_OBJ(e);
}

static void batch_init(struct batch *b, struct embedded *e)
{
	b->e = e;
	TAILQ_INIT(&b->calls);
}

int embedded_new(struct meta_backend **out, struct meta *m, const struct meta_env *env,
    const char *dir)
{
	static const struct meta_backend_ops ops = {
		.free = embedded_free,
		.open = embedded_open,
		.close = embedded_close,
		.begin = embedded_begin,
		.recall = embedded_recall,
		.status = embedded_status,
	};
	struct embedded *e;

	ALLOC_OBJ(e, EMBEDDED_MAGIC);
	if (e == NULL)
		return -ENOMEM;
	e->be.ops = &ops;
	e->be.meta = m;
	e->env = env;
	e->dir = dir;
	TAILQ_INIT(&e->reads);
	TAILQ_INIT(&e->writes);
	timer_init(&e->lock_retry, env->loop, lock_again);
	batch_init(&e->files, e);
	batch_init(&e->writer, e);
	for (unsigned i = 0; i < DB_READERS; i++)
		batch_init(&e->readers[i], e);
	*out = &e->be;
	return 0;
}
