/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random transactions from several threads against a model that is a plain array, run
 * one after the other.  Each transaction leaves a mark that holds its versionstamp, so
 * that afterwards the order of those that committed is known, even where a commit's
 * result was not.  Then
 *	- what every transaction read was the state at its read version, with what it had
 *	  itself written before;
 *	- what a committed one read (snapshot reads aside) was still so at its commit: run
 *	  in the order of their stamps they give the same reads;
 *	- what was acknowledged has its mark, what conflicted has none;
 *	- what is there at the end is what that order leaves.
 * STANDIN_SEED and ROUNDS make more of it.
 */
#include "rig.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TestSuite(standin_random, .init = rig_start, .fini = rig_stop);

#define KEYS 10
#define THREADS 4
#define OPS_MAX 8
#define ROWS_MAX KEYS

enum what { GET, RANGE, SELECT, SET, CLEAR, CLEAR_RANGE, ADD, MAX, BYTE_MIN, COMPARE_AND_CLEAR };

struct state {
	bool has[KEYS];
	uint64_t value[KEYS];
};

struct op {
	enum what what;
	int a, b; /* keys: b of ranges; a selector's offset */
	int limit;
	bool snapshot, reverse, or_equal;
	uint64_t value;
	FDBFuture *future;
	/* what was seen; error: nothing was */
	int error, n;
	int key[ROWS_MAX];
	uint64_t seen[ROWS_MAX];
};

struct txn {
	int thread, number, n;
	struct op ops[OPS_MAX];
	int64_t read_version; /* -1: not known */
	int error;	      /* of the commit */
	bool writes, committed;
	uint8_t stamp[10];
	int64_t version;
};

struct client {
	pthread_t thread;
	int index, count;
	uint64_t random;
	struct txn *txns;
};

static unsigned dice(struct client *c, unsigned n)
{
	c->random = c->random * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(c->random >> 33) % n;
}

static struct key name_of(int i)
{
	char name[8];

	snprintf(name, sizeof(name), "k%02d", i);
	return key(name);
}

static struct key mark_of(const struct txn *t)
{
	char name[32];

	snprintf(name, sizeof(name), "m/%02d/%06d", t->thread, t->number);
	return key(name);
}

/* --- the model */

static uint64_t byte_min(uint64_t x, uint64_t y)
{
	return memcmp(&x, &y, 8) < 0 ? x : y;
}

static void apply(struct state *s, const struct op *op)
{
	uint64_t old = s->has[op->a % KEYS] ? s->value[op->a % KEYS] : 0;
	bool has = s->has[op->a % KEYS];
	uint64_t to = op->value;

	switch (op->what) {
	case CLEAR_RANGE:
		for (int i = op->a; i < op->b; i++)
			s->has[i] = false;
		return;
	case CLEAR:
		s->has[op->a] = false;
		return;
	case COMPARE_AND_CLEAR:
		if (has && old == op->value)
			s->has[op->a] = false;
		return;
	case ADD:
		to = old + op->value;
		break;
	case MAX:
		to = old > op->value ? old : op->value;
		break;
	case BYTE_MIN:
		to = has ? byte_min(old, op->value) : op->value;
		break;
	case SET:
		break;
	default:
		return;
	}
	s->has[op->a] = true;
	s->value[op->a] = to;
}

/* The key that a selector finds: -1 before the first, KEYS behind the last. */
static int selected(const struct state *s, const struct op *op)
{
	int at = op->a + (op->or_equal ? 1 : 0), left = op->b;

	for (; left > 0 && at < KEYS; at++) {
		if (s->has[at] && --left == 0)
			return at;
	}
	if (op->b > 0)
		return KEYS;
	for (at--, left = 1 - op->b; at >= 0; at--) {
		if (s->has[at] && --left == 0)
			return at;
	}
	return -1;
}

static bool matches(const struct state *s, const struct op *op)
{
	int n = 0;

	switch (op->what) {
	case GET:
		return s->has[op->a] == (op->n == 1) &&
		    (op->n == 0 || s->value[op->a] == op->seen[0]);
	case SELECT:
		return op->key[0] == selected(s, op);
	case RANGE:
		for (int j = op->a; j < op->b && (op->limit == 0 || n < op->limit); j++) {
			int i = op->reverse ? op->a + op->b - 1 - j : j;

			if (!s->has[i])
				continue;
			if (n >= op->n || op->key[n] != i || op->seen[n] != s->value[i])
				return false;
			n++;
		}
		return n == op->n;
	default:
		return true;
	}
}

/* --- the real thing */

static void read_pick(struct client *c, struct op *op)
{
	op->a = (int)dice(c, KEYS);
	op->snapshot = dice(c, 4) == 0;
	op->what = dice(c, 3);
	if (op->what == RANGE) {
		op->b = op->a + (int)dice(c, (unsigned)(KEYS - op->a + 1));
		op->limit = (int)dice(c, 4);
		op->reverse = dice(c, 2);
	} else if (op->what == SELECT) {
		op->b = (int)dice(c, 7) - 3;
		op->or_equal = dice(c, 2);
	}
}

static void pick(struct client *c, struct op *op, bool may_write)
{
	*op = (struct op){ 0 };
	if (!may_write || dice(c, 2) == 0) {
		read_pick(c, op);
		return;
	}
	op->a = (int)dice(c, KEYS);
	op->value = dice(c, 3) == 0 ? dice(c, 4) : c->random;
	op->what = SET + dice(c, COMPARE_AND_CLEAR - SET + 1);
	if (op->what == CLEAR_RANGE)
		op->b = op->a + (int)dice(c, (unsigned)(KEYS - op->a + 1));
}

static void issue(FDBTransaction *tr, struct op *op)
{
	static const int kinds[] = { [ADD] = 2, [MAX] = 12, [BYTE_MIN] = 16, [COMPARE_AND_CLEAR] = 20 };
	struct key k = name_of(op->a), e = name_of(op->b);
	const uint8_t *value = (const uint8_t *)&op->value;

	switch (op->what) {
	case GET:
		op->future = fdb.fdb_transaction_get(tr, k.at, k.len, op->snapshot);
		break;
	case RANGE:
		op->future = fdb.fdb_transaction_get_range(tr, k.at, k.len, 0, 1, e.at, e.len, 0, 1,
		    op->limit, 0, FDB_MODE_WANT_ALL, 0, op->snapshot, op->reverse);
		break;
	case SELECT:
		op->future = fdb.fdb_transaction_get_key(
		    tr, k.at, k.len, op->or_equal, op->b, op->snapshot);
		break;
	case SET:
		fdb.fdb_transaction_set(tr, k.at, k.len, value, 8);
		break;
	case CLEAR:
		fdb.fdb_transaction_clear(tr, k.at, k.len);
		break;
	case CLEAR_RANGE:
		fdb.fdb_transaction_clear_range(tr, k.at, k.len, e.at, e.len);
		break;
	default:
		fdb.fdb_transaction_atomic_op(tr, k.at, k.len, value, 8, kinds[op->what]);
	}
}

/* The index of a key that was read; one of another's, or a mark, is at an end. */
static int index_of(const uint8_t *at, int len)
{
	struct key first = name_of(0);
	int c = memcmp(at, first.at, (size_t)(len < first.len - 2 ? len : first.len - 2));

	if (c == 0 && len == first.len)
		return (at[len - 2] - '0') * 10 + at[len - 1] - '0';
	return c > 0 ? KEYS : -1;
}

static void collect(struct op *op)
{
	FDBFuture *f = op->future;
	const FDBKeyValue *kv;
	fdb_bool_t flag = 0;
	const uint8_t *at;
	int len;

	if (f == NULL)
		return;
	op->future = NULL;
	op->error = waited(f);
	if (op->error == 0 && op->what == GET) {
		cr_assert_eq(fdb.fdb_future_get_value(f, &flag, &at, &len), 0);
		op->n = flag != 0;
		if (op->n > 0)
			memcpy(op->seen, at, 8);
	} else if (op->error == 0 && op->what == SELECT) {
		cr_assert_eq(fdb.fdb_future_get_key(f, &at, &len), 0);
		op->key[0] = index_of(at, len);
	} else if (op->error == 0) {
		cr_assert_eq(fdb.fdb_future_get_keyvalue_array(f, &kv, &op->n, &flag), 0);
		cr_assert_leq(op->n, ROWS_MAX);
		for (int i = 0; i < op->n; i++) {
			op->key[i] = index_of(kv[i].key, kv[i].key_length);
			memcpy(&op->seen[i], kv[i].value, 8);
		}
	}
	fdb.fdb_future_destroy(f);
}

/* Sets the mark to the transaction's versionstamp. */
static void put_mark(FDBTransaction *tr, const struct txn *t)
{
	uint8_t stamp[14] = { 0 };
	struct key m = mark_of(t);

	fdb.fdb_transaction_atomic_op(tr, m.at, m.len, stamp, 14, 15);
}

static void run(struct client *c, struct txn *t)
{
	FDBTransaction *tr = begin();
	FDBFuture *f = fdb.fdb_transaction_get_read_version(tr);

	t->read_version = -1;
	if (waited(f) == 0)
		fdb.fdb_future_get_int64(f, &t->read_version);
	fdb.fdb_future_destroy(f);
	t->writes = dice(c, 5) > 0;
	t->n = 1 + (int)dice(c, OPS_MAX);
	for (int i = 0; i < t->n; i++) {
		pick(c, &t->ops[i], t->writes);
		issue(tr, &t->ops[i]);
		if (dice(c, 2) == 0)
			collect(&t->ops[i]);
	}
	for (int i = t->n; i-- > 0;) /* not in their order */
		collect(&t->ops[i]);
	if (t->writes)
		put_mark(tr, t);
	t->error = commit(tr);
	end(&tr);
}

static void *client(void *arg)
{
	struct client *c = arg;

	for (int i = 0; i < c->count; i++) {
		c->txns[i].thread = c->index;
		c->txns[i].number = i;
		run(c, &c->txns[i]);
	}
	return NULL;
}

/* --- the verdict */

static void read_mark(struct txn *t)
{
	FDBTransaction *tr = begin();
	struct key m = mark_of(t);
	fdb_bool_t present = 0;
	const uint8_t *at;
	int len, error;

	for (;;) {
		FDBFuture *f = fdb.fdb_transaction_get(tr, m.at, m.len, 0);

		error = waited(f);
		if (error == 0) {
			cr_assert_eq(fdb.fdb_future_get_value(f, &present, &at, &len), 0);
			t->committed = present;
			if (present) {
				cr_assert_eq(len, 10);
				memcpy(t->stamp, at, 10);
			}
		}
		fdb.fdb_future_destroy(f);
		if (error == 0)
			break;
		cr_assert_eq(on_error(tr, error), 0);
	}
	end(&tr);
	for (int i = 0; i < 8; i++)
		t->version = t->version << 8 | t->stamp[i];
	cr_assert(t->error != 0 || t->committed, "%d/%d: acknowledged, but not there", t->thread,
	    t->number);
	cr_assert(t->error == 0 || t->error == 1021 || !t->committed, "%d/%d: error %d, but there",
	    t->thread, t->number, t->error);
}

static int by_stamp(const void *x, const void *y)
{
	const struct txn *const *a = x, *const *b = y;

	return memcmp((*a)->stamp, (*b)->stamp, 10);
}

/* Runs it on a state, as its commit: all but snapshot reads; or as a snapshot: all. */
static void replay(struct state *s, const struct txn *t, bool all, const char *when)
{
	for (int i = 0; i < t->n; i++) {
		const struct op *op = &t->ops[i];

		if (op->what >= SET)
			apply(s, op);
		else if (op->error == 0 && (all || !op->snapshot))
			cr_assert(matches(s, op),
			    "transaction %d/%d, operation %d (kind %d of key %d): not what was there %s",
			    t->thread, t->number, i, op->what, op->a, when);
	}
}

static void check_end(const struct state *want)
{
	FDBTransaction *tr = begin();

	for (int i = 0; i < KEYS; i++) {
		struct op op = { .what = GET, .a = i };
		int error;

		do {
			issue(tr, &op);
			collect(&op);
			error = op.error;
			cr_assert(error == 0 || on_error(tr, error) == 0);
		} while (error != 0);
		cr_assert(matches(want, &op), "at the end, key %d", i);
	}
	end(&tr);
}

static void check(struct client *clients, int count)
{
	struct txn **order = calloc((size_t)(count * THREADS), sizeof(*order));
	struct state *states = calloc((size_t)(count * THREADS + 1), sizeof(*states)), last;
	int n = 0;

	for (int i = 0; i < count * THREADS; i++) {
		struct txn *t = &clients[i / count].txns[i % count];

		if (t->writes)
			read_mark(t);
		if (t->committed)
			order[n++] = t;
	}
	cr_assert_gt(n, count / 4, "hardly anything committed: %d of %d", n, count * THREADS);
	qsort(order, (size_t)n, sizeof(*order), by_stamp);
	for (int i = 0; i < n; i++) {
		states[i + 1] = states[i];
		replay(&states[i + 1], order[i], false, "at its commit");
	}
	for (int i = 0; i < count * THREADS; i++) {
		struct txn *t = &clients[i / count].txns[i % count];
		int at = 0;

		if (t->read_version < 0)
			continue;
		while (at < n && order[at]->version <= t->read_version)
			at++;
		last = states[at];
		replay(&last, t, true, "at its read version");
	}
	check_end(&states[n]);
	free(order);
	free(states);
}

static void race(int count)
{
	const char *seed = getenv("STANDIN_SEED");
	struct client clients[THREADS] = { 0 };

	for (int i = 0; i < THREADS; i++) {
		struct client *c = &clients[i];

		c->index = i;
		c->count = count;
		c->random = (seed != NULL ? strtoull(seed, NULL, 10) : (uint64_t)getpid()) * 31 +
		    (uint64_t)i;
		c->txns = calloc((size_t)count, sizeof(*c->txns));
		cr_assert_eq(pthread_create(&c->thread, NULL, client, c), 0);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(clients[i].thread, NULL);
	if (!standin_real())
		standin_write("faults", "");
	check(clients, count);
	for (int i = 0; i < THREADS; i++)
		free(clients[i].txns);
}

static int rounds(int usual)
{
	const char *n = getenv("ROUNDS");

	return n != NULL ? atoi(n) : usual;
}

Test(standin_random, transactions_are_serializable)
{
	race(rounds(300));
}

Test(standin_random, and_with_faults_too)
{
	if (standin_real())
		cr_skip_test("a real cluster does not fail on demand");
	standin_write("faults", "commit 1021 maybe percent=8\ncommit 1020 percent=3\n"
			    "commit drop maybe percent=1\nread 1007 percent=1\n"
			    "grv 1037 percent=2\nany slow:3 percent=30\n");
	race(rounds(150));
}
