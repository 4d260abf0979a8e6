/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The store in FoundationDB: opened, closed, which run goes when, and what it counts.
 *
 * Transactions go side by side, but those that concern the same names, or one above the
 * other, go in the order in which they came: the one that was begun later would otherwise
 * come first when the other has to be repeated.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/options.h"
#include "base/units.h"
#include "meta/fdb_priv.h"

#define STORE_MAGIC 0x3e7afdb0u

/* So many at one time; the others wait, in order. */
#define ACTIVE_MAX 256u
/* What is being committed when the store is closed may go on for so long. */
#define CLOSE_NS (2 * NS_PER_S)
/* A cluster that says nothing for so long is told of. */
#define SILENT_NS (5 * NS_PER_S)

enum store_is { STORE_IS_CLOSED, STORE_IS_OPENING, STORE_IS_OPEN };

/* A commit while the counters are being read. */
struct counted {
	int64_t version, delta[COUNTERS];
};

struct fdb_store {
	struct meta_backend be;
	const struct meta_env *env;
	struct fdb *fdb;
	size_t prefix_len;
	struct fdb_nodes *nodes;
	struct deferred opened, closed, pump;
	struct timer open_timer, close_timer;

	struct fdb_runs waiting, active, parked, covered;
	uint64_t heard; /* when a run ended last, or the first began */

	int64_t counters[COUNTERS];
	int64_t base; /* what is committed later than this is not in them yet */
	int64_t fresh[COUNTERS], fresh_version;
	struct counted *log;
	size_t nlog, log_size;

	uint32_t magic;
	enum store_is is;
	int open_err;
	unsigned nactive;
	bool closing, leaves; /* leaves: the node says so when it is closed */
	bool sweep, sweeping;
	bool unswept;
	bool refreshing, stale; /* stale: nobody waits for it, but it is to be read again */
	bool uncounted;		/* that has failed: when the next call has ended */
	unsigned char prefix[STORE_PREFIX_MAX + 1];
	char name[STORE_PREFIX_MAX + 8];
	char open_words[256];
};

static void pump(struct deferred *d);

struct fdb *fstore_fdb(const struct fdb_store *st)
{
	return st->fdb;
}

const struct fdb_api *fstore_api(const struct fdb_store *st)
{
	return fdb_api(st->fdb);
}

const struct meta_env *fstore_env(const struct fdb_store *st)
{
	return st->env;
}

const char *fstore_name(const struct fdb_store *st)
{
	return st->name;
}

void fstore_prefix(const struct fdb_store *st, const unsigned char **p, size_t *len)
{
	*p = st->prefix;
	*len = st->prefix_len;
}

struct fdb_nodes *fstore_nodes(const struct fdb_store *st)
{
	return st->nodes;
}

struct fdb_runs *fstore_active(struct fdb_store *st)
{
	return &st->active;
}

uint64_t fstore_self(const struct fdb_store *st)
{
	return fnode_self(st->nodes);
}

bool fstore_is_open(const struct fdb_store *st)
{
	return st->is == STORE_IS_OPEN;
}

struct meta *fstore_meta(const struct fdb_store *st)
{
	return st->be.meta;
}

static struct fdb_store *store_of(struct meta_backend *be)
{
	struct fdb_store *st = container_of(be, struct fdb_store, be);

	CHECK_OBJ(st, STORE_MAGIC);
	return st;
}

/* --- The tally */

int64_t fstore_counter(const struct fval *v)
{
	uint64_t n = 0;

	for (size_t i = MIN(v->len, 8); i > 0; i--)
		n = n << 8 | v->data[i - 1];
	return (int64_t)n;
}

/* Their number is the last byte of the key. */
static void take_counters(struct fdb_run *t, const struct frange *r, size_t at)
{
	for (size_t i = 0; i < r->count; i++) {
		const struct fval *key = &r->rows[i].key;

		if (key->len == at + 1 && key->data[at] < COUNTERS)
			t->st->fresh[key->data[at]] = fstore_counter(&r->rows[i].val);
	}
}

/* All counters that are kept here, to st->fresh. */
static int read_counters(struct fdb_run *t)
{
	const uint64_t self = fstore_self(t->st);
	const struct fkey from = fkey_of('c', NULL, 0), end = fkey_of('c' + 1, NULL, 0);
	const struct fkey own = fkey_id('m', self), own_end = fkey_id('m', self + 1);
	const struct frange *all, *mine;
	int err = fkv_range(t, &from, &end, 2 * COUNTERS, false, &all);
	int more = fkv_range(t, &own, &own_end, 2 * COUNTERS, false, &mine);

	if (err != 0 || more != 0)
		return err != 0 ? err : more;
	memset(t->st->fresh, 0, sizeof(t->st->fresh));
	take_counters(t, all, 0);
	take_counters(t, mine, 8);
	return 0;
}

static void add_counters(int64_t *to, const int64_t *delta)
{
	for (unsigned i = 0; i < COUNTERS; i++)
		to[i] += delta[i];
}

void fstore_committed(struct fdb_run *t, int64_t version)
{
	struct fdb_store *st = t->st;
	void *p = st->log;

	COUNT(st->env->loop, META_COMMITS, 1);
	if (t->garbage || st->unswept)
		st->sweep = true;
	st->unswept = false;
	if (version > st->base)
		add_counters(st->counters, t->delta);
	if (!st->refreshing)
		return;
	if (meta_grow(&p, &st->log_size, (st->nlog + 1) * sizeof(*st->log)) != 0) {
		t->doubt = true; /* counted again */
		return;
	}
	st->log = p;
	st->log[st->nlog].version = version;
	memcpy(st->log[st->nlog++].delta, t->delta, sizeof(t->delta));
}

static void run_end(struct fdb_run *t, int err)
{
	struct meta_call *c = t->c;

	t->c = NULL; /* what it got is its own */
	if (c != NULL) {
		c->running = false;
		meta_call_end(c, err);
	}
	frun_free(&t);
}

static void end_all(struct fdb_runs *of)
{
	struct fdb_run *t;

	while ((t = TAILQ_FIRST(of)) != NULL) {
		TAILQ_REMOVE(of, t, link);
		run_end(t, t->err);
	}
}

static int refresh(struct fdb_run *t)
{
	int err = fkv_version(t, &t->st->fresh_version), more = read_counters(t);

	return err != 0 ? err : more;
}

static void refreshed(struct fdb_run *t, int err)
{
	struct fdb_store *st = t->st;

	if (err == 0) {
		st->base = st->fresh_version;
		memcpy(st->counters, st->fresh, sizeof(st->counters));
		for (size_t i = 0; i < st->nlog; i++) {
			if (st->log[i].version > st->base)
				add_counters(st->counters, st->log[i].delta);
		}
	}
	st->uncounted = err != 0;
	st->nlog = 0;
	st->refreshing = false;
	end_all(&st->covered);
}

/* --- Which goes when */

static void begin_run(struct fdb_run *t)
{
	if (t->c != NULL)
		t->c->running = true;
	frun_begin(t);
}

static void admit(struct fdb_store *st, struct fdb_run *t)
{
	struct fdb_run *u;

	if (st->nactive == 0)
		st->heard = loop_now(st->env->loop);
	TAILQ_FOREACH (u, &st->active, link)
		t->blockers += frun_overlap(u, t);
	TAILQ_INSERT_TAIL(&st->active, t, link);
	st->nactive++;
	if (t->blockers == 0)
		begin_run(t);
}

static void leave(struct fdb_store *st, struct fdb_run *t)
{
	struct fdb_run *u = t;

	while ((u = TAILQ_NEXT(u, link)) != NULL) {
		if (frun_overlap(t, u) && --u->blockers == 0)
			begin_run(u);
	}
	TAILQ_REMOVE(&st->active, t, link);
	st->nactive--;
}

bool fstore_own(struct fdb_store *st, int (*fn)(struct fdb_run *t),
    void (*done)(struct fdb_run *t, int err))
{
	struct fdb_run *t = frun_new(st, NULL, fn, done);

	if (t == NULL)
		return false;
	if (fn == refresh)
		t->writes = false;
	admit(st, t);
	return true;
}

void fstore_count_again(struct fdb_store *st)
{
	st->stale = true;
	loop_defer(st->env->loop, &st->pump, pump);
}

static void swept(struct fdb_run *t, int err)
{
	t->st->sweeping = false;
	t->st->unswept = err != 0; /* tried again with the next transaction */
}

static void pump(struct deferred *d)
{
	struct fdb_store *st = container_of(d, struct fdb_store, pump);
	struct fdb_run *t;

	CHECK_OBJ(st, STORE_MAGIC);
	if (st->is != STORE_IS_OPEN || st->closing)
		return;
	while (st->nactive < ACTIVE_MAX && (t = TAILQ_FIRST(&st->waiting)) != NULL) {
		TAILQ_REMOVE(&st->waiting, t, link);
		admit(st, t);
	}
	if (st->sweep && !st->sweeping) {
		st->sweeping = fstore_own(st, fstore_sweep, swept);
		st->sweep = !st->sweeping;
	}
	if ((!TAILQ_EMPTY(&st->parked) || st->stale) && !st->refreshing) {
		st->stale = false;
		TAILQ_CONCAT(&st->covered, &st->parked, link);
		st->nlog = 0;
		st->refreshing = fstore_own(st, refresh, refreshed);
		st->uncounted = !st->refreshing;
		if (!st->refreshing)
			end_all(&st->covered);
	}
}

/* --- The end of a run */

static void closed_now(struct deferred *d)
{
	struct fdb_store *st = container_of(d, struct fdb_store, closed);

	if (!st->closing || st->nactive > 0)
		return;
	timer_cancel(&st->close_timer);
	timer_cancel(&st->open_timer);
	end_all(&st->parked);
	end_all(&st->covered);
	st->closing = false;
	st->is = STORE_IS_CLOSED;
	st->sweep = false;
	meta_closed(st->be.meta);
}

void fstore_ended(struct fdb_run *t, int err)
{
	struct fdb_store *st = t->st;

	leave(st, t);
	st->heard = loop_now(st->env->loop);
	t->err = err;
	if (t->doubt && t->writes)
		st->sweep = true; /* for all that is known it has thrown a directory away */
	if (t->et.s[0] != '\0' && err != -EEXIST && st->is == STORE_IS_OPEN)
		meta_note(st->be.meta, t->et.s);
	if (t->done != NULL)
		t->done(t, err);
	st->stale = st->stale || (t->c != NULL && st->uncounted);
	if (t->c != NULL && t->doubt && !st->closing) {
		t->phase = RUN_PARKED; /* until it is known what it has done to the tally */
		TAILQ_INSERT_TAIL(&st->parked, t, link);
	} else {
		st->stale = st->stale || t->doubt;
		run_end(t, err);
	}
	if (st->closing)
		loop_defer(st->env->loop, &st->closed, closed_now);
	else
		loop_defer(st->env->loop, &st->pump, pump);
}

static void close_fired(struct timer *tm)
{
	struct fdb_store *st = container_of(tm, struct fdb_store, close_timer);
	struct fdb_run *t;

	TAILQ_FOREACH (t, &st->active, link)
		frun_stop(t, true);
}

static void store_close(struct meta_backend *be)
{
	struct fdb_store *st = store_of(be);
	struct fdb_run *t;

	assert(!st->closing);
	st->closing = true;
	loop_undefer(st->env->loop, &st->pump);
	loop_undefer(st->env->loop, &st->opened);
	fnodes_closing(st->nodes);
	TAILQ_FOREACH (t, &st->active, link)
		frun_stop(t, false);
	if (st->leaves && st->is == STORE_IS_OPEN)
		(void)fstore_own(st, fnode_leave, NULL);
	timer_arm(&st->close_timer, CLOSE_NS);
	loop_defer(st->env->loop, &st->closed, closed_now);
}

/* --- Opening */

static int check_format(struct fdb_run *t)
{
	const struct fkey k = fkey_of('F', NULL, 0), all = {.len = 0}, end = {.len = 1, .b = {0xff}};
	unsigned char buf[8];
	const struct frange *r;
	struct fval v;
	int err = fkv_get(t, &k, &v);

	if (err == 0) {
		uint64_t format = v.len == 8 ? meta_get_be64(v.data) : 0;

		if (format == STORE_FORMAT)
			return 0;
		if (format < STORE_FORMAT)
			return errtext_set(&t->et, -EPROTO,
			    "metadata store %s: is of format %llu, which was for one mount only: let "
			    "the batonfs that wrote it persist all, and choose another prefix "
			    "(meta.fdb.prefix)",
			    t->st->name, (unsigned long long)format);
		return errtext_set(&t->et, -EPROTO,
		    "metadata store %s: is of format %llu, this build knows format %u: use the "
		    "batonfs that wrote it",
		    t->st->name, (unsigned long long)format, STORE_FORMAT);
	}
	if (err != -ENOENT)
		return err;
	err = fkv_range(t, &all, &end, 1, false, &r);
	if (err != 0)
		return err;
	if (r->count > 0)
		return errtext_set(&t->et, -EEXIST,
		    "metadata store %s: there are keys below this prefix that are not batonfs's: "
		    "choose another (meta.fdb.prefix)",
		    t->st->name);
	meta_put_be64(buf, STORE_FORMAT);
	return fkv_set(t, &k, NULL, 0, buf, sizeof(buf));
}

static int open_fn(struct fdb_run *t)
{
	const struct fkey from = fkey_of('g', NULL, 0), end = fkey_of('g' + 1, NULL, 0);
	const struct frange *r;
	int err = check_format(t), owner = fnode_take(t), count = read_counters(t);
	int rest = fkv_range(t, &from, &end, 1, true, &r);

	if (err == 0)
		err = owner;
	if (err == 0)
		err = count;
	if (err == 0)
		err = rest;
	if (err == 0)
		t->st->sweep = r->count > 0;
	return err;
}

static void tell_opened(struct deferred *d)
{
	struct fdb_store *st = container_of(d, struct fdb_store, opened);

	meta_opened(st->be.meta, st->open_err, st->open_words);
}

static void open_done(struct fdb_run *t, int err)
{
	struct fdb_store *st = t->st;

	timer_cancel(&st->open_timer);
	if (st->closing)
		return;
	st->open_err = err;
	if (t->et.s[0] != '\0')
		(void)snprintf(st->open_words, sizeof(st->open_words), "%.*s",
		    (int)sizeof(st->open_words) - 1, t->et.s);
	else if (st->open_words[0] == '\0')
		(void)snprintf(st->open_words, sizeof(st->open_words), "metadata store %s: %s",
		    st->name, strerror(-err));
	if (err == 0) {
		memcpy(st->counters, st->fresh, sizeof(st->counters));
		loop_defer(st->env->loop, &st->pump, pump);
	}
	st->is = err == 0 ? STORE_IS_OPEN : STORE_IS_CLOSED;
	if (err == 0)
		fnodes_opened(st->nodes);
	loop_defer(st->env->loop, &st->opened, tell_opened);
}

static void open_fired(struct timer *tm)
{
	struct fdb_store *st = container_of(tm, struct fdb_store, open_timer);
	struct fdb_run *t = TAILQ_FIRST(&st->active);
	bool refuses = t != NULL && t->last != 0;

	(void)snprintf(st->open_words, sizeof(st->open_words), "metadata store %s: the cluster %s%s",
	    st->name, refuses ? "refuses it: " : "does not answer (meta.fdb.cluster.file)",
	    refuses ? fdb_words(st->fdb, t->last) : "");
	if (t != NULL)
		frun_stop(t, true);
}

static void store_open(struct meta_backend *be)
{
	struct fdb_store *st = store_of(be);

	assert(st->is == STORE_IS_CLOSED && !st->closing);
	st->is = STORE_IS_OPENING;
	st->base = 0;
	st->open_words[0] = '\0';
	fnodes_opening(st->nodes);
	if (fstore_own(st, open_fn, open_done)) {
		timer_arm(&st->open_timer, st->env->cfg->meta_timeout);
		return;
	}
	st->is = STORE_IS_CLOSED;
	st->open_err = -ENOMEM;
	(void)snprintf(
	    st->open_words, sizeof(st->open_words), "metadata store %s: out of memory", st->name);
	loop_defer(st->env->loop, &st->opened, tell_opened);
}

/* --- Requests */

static void store_begin(struct meta_backend *be, struct meta_call *c)
{
	struct fdb_store *st = store_of(be);
	bool writes = c->op == META_OP_TXN;
	struct fdb_run *t = frun_new(st, c, writes ? fstore_write : fstore_read, NULL);

	assert(st->is == STORE_IS_OPEN && !st->closing);
	c->running = false;
	if (t == NULL) {
		meta_call_end(c, -ENOMEM); /* which answers later */
		return;
	}
	if (writes)
		COUNT(st->env->loop, META_TXNS, 1);
	else
		COUNT(st->env->loop, META_READS, 1);
	TAILQ_INSERT_TAIL(&st->waiting, t, link);
	loop_defer(st->env->loop, &st->pump, pump);
}

static struct fdb_run *find_run(struct fdb_runs *in, const struct meta_call *c)
{
	struct fdb_run *t;

	TAILQ_FOREACH (t, in, link) {
		if (t->c == c)
			break;
	}
	return t;
}

static bool store_recall(struct meta_backend *be, struct meta_call *c)
{
	struct fdb_store *st = store_of(be);
	struct fdb_run *t;

	if (c->running)
		return false;
	t = find_run(&st->waiting, c);
	if (t != NULL) {
		TAILQ_REMOVE(&st->waiting, t, link);
	} else {
		t = find_run(&st->active, c);
		if (t == NULL) /* parked: it has ended but for the tally */
			return false;
		leave(st, t);
		if (!st->closing)
			loop_defer(st->env->loop, &st->pump, pump);
	}
	frun_free(&t);
	return true;
}

static uint64_t count_of(const struct fdb_store *st, unsigned no)
{
	return st->counters[no] > 0 ? (uint64_t)st->counters[no] : 0;
}

static void store_status(const struct meta_backend *be, struct meta_status *out)
{
	const struct fdb_store *st = container_of(be, const struct fdb_store, be);
	uint64_t now = loop_now(st->env->loop);

	out->shared = true;
	out->records = count_of(st, COUNT_ROWS);
	out->used_bytes = count_of(st, COUNT_SIZE);
	for (unsigned i = 0; i < META_STATES; i++) {
		out->tally.files[i] = count_of(st, COUNT_FILES + i);
		out->tally.bytes[i] = count_of(st, COUNT_BYTES + i);
	}
	out->silent = st->is != STORE_IS_OPEN && out->error[0] != '\0';
	if (st->is != STORE_IS_OPEN || st->nactive == 0 || now - st->heard <= SILENT_NS)
		return;
	out->silent = true;
	(void)snprintf(out->error, sizeof(out->error),
	    "metadata store %s: the cluster has not answered for %llu s", st->name,
	    (unsigned long long)((now - st->heard) / NS_PER_S));
}

/* --- As a node */

static void store_leave(struct meta_backend *be)
{
	store_of(be)->leaves = true;
}

static void store_identity(struct meta_backend *be, const struct meta_identity *id)
{
	fnodes_identity(store_of(be)->nodes, id);
}

static uint64_t store_self(const struct meta_backend *be)
{
	return fstore_self(container_of(be, const struct fdb_store, be));
}

static size_t store_nodes(const struct meta_backend *be, struct meta_node *out, size_t max)
{
	return fnodes_list(container_of(be, const struct fdb_store, be)->nodes, out, max);
}

static void store_free(struct meta_backend *be)
{
	struct fdb_store *st = store_of(be);

	assert(st->is == STORE_IS_CLOSED && !st->closing && st->nactive == 0);
	assert(TAILQ_EMPTY(&st->waiting));
	loop_undefer(st->env->loop, &st->pump);
	loop_undefer(st->env->loop, &st->opened);
	loop_undefer(st->env->loop, &st->closed);
	free(st->log);
	fnodes_free(&st->nodes);
	FREE_OBJ(st);
}

int fdb_store_new(struct meta_backend **out, struct meta *m, const struct meta_env *env)
{
	static const struct meta_backend_ops ops = {
		.free = store_free,
		.open = store_open,
		.close = store_close,
		.begin = store_begin,
		.recall = store_recall,
		.status = store_status,
		.leave = store_leave,
		.identity = store_identity,
		.self = store_self,
		.nodes = store_nodes,
	};
	const char *prefix = env->cfg->meta_fdb_prefix;
	struct fdb_store *st;
	size_t n = strlen(prefix);

	/* The 0 behind it keeps it apart from one that begins the same. */
	if (n == 0 || n > STORE_PREFIX_MAX || (unsigned char)prefix[0] == 0xff)
		return -EINVAL;
	ALLOC_OBJ(st, STORE_MAGIC);
	if (st == NULL)
		return -ENOMEM;
	st->be.ops = &ops;
	st->be.meta = m;
	st->env = env;
	st->fdb = env->fdb;
	(void)snprintf(st->name, sizeof(st->name), "fdb:%s", prefix);
	memcpy(st->prefix, prefix, n + 1);
	st->prefix_len = n + 1;
	TAILQ_INIT(&st->waiting);
	TAILQ_INIT(&st->active);
	TAILQ_INIT(&st->parked);
	TAILQ_INIT(&st->covered);
	timer_init(&st->open_timer, env->loop, open_fired);
	timer_init(&st->close_timer, env->loop, close_fired);
	if (fnodes_new(&st->nodes, st) != 0) {
		FREE_OBJ(st);
		return -ENOMEM;
	}
	*out = &st->be;
	return 0;
}
