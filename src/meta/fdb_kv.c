/* SPDX-License-Identifier: BSD-2-Clause */
/* What a pass of a run reads and writes. */
#include <errno.h>
#include <string.h>

#include "meta/fdb_priv.h"

/* Rows that are read to find one that is there. */
#define SOME 8

/* --- Keys */

struct fkey fkey_of(char table, const void *data, size_t len)
{
	struct fkey k;

	assert(len < sizeof(k.b));
	k.b[0] = (unsigned char)table;
	if (len > 0)
		memcpy(k.b + 1, data, len);
	k.len = 1 + len;
	return k;
}

struct fkey fkey_id(char table, uint64_t id)
{
	unsigned char buf[8];

	meta_put_be64(buf, id);
	return fkey_of(table, buf, sizeof(buf));
}

struct fkey fkey_node(char table, uint64_t node, const void *data, size_t len)
{
	struct fkey k = fkey_id(table, node);

	assert(len <= sizeof(k.b) - k.len);
	if (len > 0)
		memcpy(k.b + k.len, data, len);
	k.len += len;
	return k;
}

struct fkey fkey_row(uint64_t dir, const char *name, size_t len)
{
	struct fkey k;

	_Static_assert(sizeof(k.b) > META_KEY_MAX, "it holds the table, too");
	k.b[0] = 't';
	k.len = 1 + meta_key_encode(k.b + 1, dir, name, len);
	return k;
}

struct fkey fkey_after(const struct fkey *k)
{
	struct fkey next = *k;

	assert(next.len < sizeof(next.b));
	next.b[next.len++] = 0;
	return next;
}

/* A key as the cluster has it. */
struct whole {
	unsigned char b[STORE_PREFIX_MAX + 1 + STORE_KEY_MAX];
	int len;
};

static struct whole whole_of(const struct fdb_run *t, const unsigned char *key, size_t len)
{
	const unsigned char *prefix;
	struct whole w;
	size_t n;

	fstore_prefix(t->st, &prefix, &n);
	memcpy(w.b, prefix, n);
	memcpy(w.b + n, key, len);
	w.len = (int)(n + len);
	return w;
}

/* --- What is known */

static struct fkv *find(struct fkv *in, const struct fkey *k)
{
	struct fkv *e;

	HASH_FIND(hh, in, k->b, k->len, e);
	return e;
}

/* One more, or NULL. */
static struct fkv *add(struct fdb_run *t, struct fkv **to, const struct fkey *k)
{
	struct fkv *e = calloc(1, sizeof(*e) + k->len);

	if (e == NULL)
		return NULL;
	e->run = t;
	e->klen = (unsigned)k->len;
	memcpy(e->key, k->b, k->len);
	HASH_ADD_KEYPTR(hh, *to, e->key, e->klen, e);
	if (e->hh.tbl == NULL) {
		free(e);
		return NULL;
	}
	return e;
}

static void free_all(struct fkv **of)
{
	struct fkv *e = *of, *next;

	HASH_CLEAR(hh, *of);
	for (; e != NULL; e = next) {
		next = e->hh.next;
		fdb_abort(&e->wait);
		free(e->val);
		free(e);
	}
}

void fkv_forget_pass(struct fdb_run *t)
{
	free_all(&t->over);
	t->nconflicts = 0;
	t->nothers = 0;
	memset(t->delta, 0, sizeof(t->delta));
	t->dirs_used = 0;
	t->garbage = false;
}

static void range_free(struct fdb_run *t, struct frange *r)
{
	TAILQ_REMOVE(&t->ranges, r, link);
	fdb_abort(&r->wait);
	free(r->rows);
	free(r->bytes);
	free(r);
}

void fkv_forget(struct fdb_run *t)
{
	struct frange *r, *next;

	fkv_forget_pass(t);
	free_all(&t->known);
	TAILQ_FOREACH_SAFE (r, &t->ranges, link, next)
		range_free(t, r);
	fdb_abort(&t->version_wait);
	t->version_pending = false;
	t->version = 0;
	t->pending = 0;
	t->code = 0;
}

/* --- Reading */

static void came(struct fdb_run *t, fdb_error_t code)
{
	if (code != 0 && t->code == 0)
		t->code = code;
	assert(t->pending > 0);
	t->pending--;
	if (t->pending == 0)
		frun_go(t);
}

static int asked(struct fdb_run *t, int err)
{
	if (err != 0)
		return err;
	t->pending++;
	return -EAGAIN;
}

static void value_came(struct fdb_wait *w, FDBFuture *future)
{
	struct fkv *e = container_of(w, struct fkv, wait);
	const struct fdb_api *api = fstore_api(e->run->st);
	const uint8_t *val = NULL;
	fdb_bool_t present = 0;
	int len = 0;
	fdb_error_t code = api->future_get_value(future, &present, &val, &len);

	e->pending = false;
	e->present = code == 0 && present != 0;
	if (e->present) {
		e->val = malloc((size_t)len + 1);
		if (e->val != NULL)
			memcpy(e->val, val, (size_t)len);
		else
			e->run->nomem = true;
		e->len = (size_t)len;
	}
	came(e->run, code);
}

static int value_of(const struct fkv *e, struct fval *val)
{
	if (e->pending)
		return -EAGAIN;
	if (!e->present)
		return -ENOENT;
	*val = (struct fval){.data = e->val, .len = e->len};
	return 0;
}

int fkv_get(struct fdb_run *t, const struct fkey *k, struct fval *val)
{
	struct fkv *e = find(t->over, k);
	struct whole w;
	int err;

	if (e == NULL)
		e = find(t->known, k);
	if (e != NULL)
		return value_of(e, val);
	e = add(t, &t->known, k);
	if (e == NULL)
		return -ENOMEM;
	w = whole_of(t, k->b, k->len);
	err = fdb_wait(fstore_fdb(t->st), &e->wait,
	    fstore_api(t->st)->transaction_get(t->tr, w.b, w.len, !t->writes), value_came);
	e->pending = err == 0;
	if (err != 0) { /* or it would be taken for one that is not there */
		HASH_DEL(t->known, e);
		free(e);
	}
	return asked(t, err);
}

static int keep_rows(struct frange *r, const FDBKeyValue *kv, size_t count, size_t skip)
{
	size_t bytes = 1;
	unsigned char *at;

	for (size_t i = 0; i < count; i++)
		bytes += (size_t)kv[i].key_length - skip + (size_t)kv[i].value_length;
	r->rows = calloc(count + 1, sizeof(*r->rows));
	r->bytes = at = malloc(bytes);
	if (r->rows == NULL || at == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		struct frow *row = &r->rows[i];

		row->key = (struct fval){.data = at, .len = (size_t)kv[i].key_length - skip};
		memcpy(at, kv[i].key + skip, row->key.len);
		at += row->key.len;
		row->val = (struct fval){.data = at, .len = (size_t)kv[i].value_length};
		if (row->val.len > 0)
			memcpy(at, kv[i].value, row->val.len);
		at += row->val.len;
	}
	r->count = count;
	return 0;
}

static void range_came(struct fdb_wait *w, FDBFuture *future)
{
	struct frange *r = container_of(w, struct frange, wait);
	const struct fdb_api *api = fstore_api(r->run->st);
	const unsigned char *prefix;
	const FDBKeyValue *kv = NULL;
	fdb_bool_t more = 0;
	size_t skip;
	int count = 0;
	fdb_error_t code = api->future_get_keyvalue_array(future, &kv, &count, &more);

	r->pending = false;
	fstore_prefix(r->run->st, &prefix, &skip);
	if (code == 0) {
		r->more = more != 0;
		if (keep_rows(r, kv, (size_t)count, skip + 1) != 0)
			r->run->nomem = true;
	}
	came(r->run, code);
}

static bool same_key(const struct fkey *a, const struct fkey *b)
{
	return a->len == b->len && memcmp(a->b, b->b, a->len) == 0;
}

static int range_ask(struct fdb_run *t, struct frange *r, bool loose)
{
	struct whole b = whole_of(t, r->begin.b, r->begin.len);
	struct whole e = whole_of(t, r->end.b, r->end.len);

	/* From the first that is not less than begin to the last that is less than end. */
	return fdb_wait(fstore_fdb(t->st), &r->wait,
	    fstore_api(t->st)->transaction_get_range(t->tr, b.b, b.len, 0, 1, e.b, e.len, 0, 1,
		r->limit, 0, FDB_STREAMING_MODE_WANT_ALL, 1, loose || !t->writes, 0),
	    range_came);
}

int fkv_range(struct fdb_run *t, const struct fkey *begin, const struct fkey *end, int limit,
    bool loose, const struct frange **out)
{
	struct frange *r;
	int err;

	TAILQ_FOREACH (r, &t->ranges, link) {
		if (r->limit == limit && same_key(&r->begin, begin) && same_key(&r->end, end)) {
			*out = r;
			return r->pending ? -EAGAIN : 0;
		}
	}
	r = calloc(1, sizeof(*r));
	if (r == NULL)
		return -ENOMEM;
	r->run = t;
	r->begin = *begin;
	r->end = *end;
	r->limit = limit;
	TAILQ_INSERT_TAIL(&t->ranges, r, link);
	err = range_ask(t, r, loose);
	r->pending = err == 0;
	if (err != 0)
		range_free(t, r);
	return asked(t, err);
}

void fkv_drop_ranges(struct fdb_run *t)
{
	struct frange *r, *next;

	TAILQ_FOREACH_SAFE (r, &t->ranges, link, next) {
		if (!r->pending)
			range_free(t, r);
	}
}

static void version_came(struct fdb_wait *w, FDBFuture *future)
{
	struct fdb_run *t = container_of(w, struct fdb_run, version_wait);

	t->version_pending = false;
	came(t, fstore_api(t->st)->future_get_int64(future, &t->version));
}

int fkv_version(struct fdb_run *t, int64_t *version)
{
	int err;

	if (t->version_pending)
		return -EAGAIN;
	if (t->version != 0) {
		*version = t->version;
		return 0;
	}
	err = fdb_wait(fstore_fdb(t->st), &t->version_wait,
	    fstore_api(t->st)->transaction_get_read_version(t->tr), version_came);
	t->version_pending = err == 0;
	return asked(t, err);
}

/* --- Writing */

static int put(struct fdb_run *t, const struct fkey *k, bool present, const void *head,
    size_t head_len, const void *data, size_t len)
{
	struct fkv *e = find(t->over, k);
	unsigned char *val = NULL;

	if (present) {
		val = malloc(head_len + len + 1);
		if (val == NULL)
			return -ENOMEM;
		if (head_len > 0)
			memcpy(val, head, head_len);
		if (len > 0)
			memcpy(val + head_len, data, len);
	}
	if (e == NULL)
		e = add(t, &t->over, k);
	if (e == NULL) {
		free(val);
		return -ENOMEM;
	}
	free(e->val);
	e->val = val;
	e->len = present ? head_len + len : 0;
	e->present = present;
	return 0;
}

int fkv_set(struct fdb_run *t, const struct fkey *k, const void *head, size_t head_len,
    const void *data, size_t len)
{
	return put(t, k, true, head, head_len, data, len);
}

int fkv_force(struct fdb_run *t, const struct fkey *k, const void *data, size_t len)
{
	int err = put(t, k, true, NULL, 0, data, len);

	if (err == 0)
		find(t->over, k)->force = true;
	return err;
}

int fkv_clear(struct fdb_run *t, const struct fkey *k)
{
	return put(t, k, false, NULL, 0, NULL, 0);
}

int fkv_conflict(struct fdb_run *t, const struct fkey *begin, const struct fkey *end)
{
	void *p = t->conflicts;
	int err = meta_grow(&p, &t->conflicts_size, (t->nconflicts + 1) * sizeof(*t->conflicts));

	t->conflicts = p;
	if (err == 0)
		t->conflicts[t->nconflicts++] = (struct fconflict){.begin = *begin, .end = *end};
	return err;
}

int fkv_count(struct fdb_run *t, uint64_t node, unsigned no, int64_t by)
{
	void *p = t->others;
	size_t i = 0;
	int err;

	if (node == fstore_self(t->st)) {
		t->delta[no] += by;
		return 0;
	}
	while (i < t->nothers && (t->others[i].node != node || t->others[i].no != no))
		i++;
	if (i == t->nothers) {
		err = meta_grow(&p, &t->others_size, (i + 1) * sizeof(*t->others));
		if (err != 0)
			return err;
		t->others = p;
		t->others[t->nothers++] = (struct fother){.node = node, .no = no};
	}
	t->others[i].by += by;
	return 0;
}

/* --- Is there anything? */

static bool in_dir(const struct fkv *e, const struct fkey *dir)
{
	return e->klen > dir->len && memcmp(e->key, dir->b, dir->len) == 0;
}

int fkv_dir_empty(struct fdb_run *t, uint64_t dir)
{
	const struct fkey first = fkey_id('t', dir), end = fkey_id('t', dir + 1);
	struct fkey from = first;
	const struct frange *r;
	struct fkv *e, *next;
	int err;

	HASH_ITER (hh, t->over, e, next) {
		if (e->present && in_dir(e, &first))
			return 0;
	}
	for (;;) {
		err = fkv_range(t, &from, &end, SOME, true, &r);
		if (err != 0)
			return err;
		for (size_t i = 0; i < r->count; i++) {
			from = fkey_of('t', r->rows[i].key.data, r->rows[i].key.len);
			e = find(t->over, &from);
			if (e == NULL) { /* it will do */
				const struct fkey after = fkey_after(&from);

				err = fkv_conflict(t, &from, &after);
				return err;
			}
			from = fkey_after(&from);
		}
		if (!r->more)
			break;
	}
	err = fkv_conflict(t, &first, &end);
	return err != 0 ? err : 1;
}

/* --- Into the transaction */

/* Of what was read there is nothing to change. */
static bool as_known(struct fdb_run *t, const struct fkv *e)
{
	struct fkv *was;

	HASH_FIND(hh, t->known, e->key, e->klen, was);
	if (was == NULL || e->force || was->present != e->present)
		return false;
	return !e->present ||
	       (was->len == e->len && (e->len == 0 || memcmp(was->val, e->val, e->len) == 0));
}

static void put_le64(unsigned char *to, uint64_t v)
{
	for (int i = 0; i < 8; i++, v >>= 8)
		to[i] = (unsigned char)v;
}

static bool add_counter(struct fdb_run *t, const struct fkey *k, int64_t by)
{
	struct whole w = whole_of(t, k->b, k->len);
	unsigned char add_it[8];

	if (by == 0)
		return false;
	put_le64(add_it, (uint64_t)by);
	fstore_api(t->st)->transaction_atomic_op(
	    t->tr, w.b, w.len, add_it, sizeof(add_it), FDB_MUTATION_TYPE_ADD);
	return true;
}

static bool flush_counters(struct fdb_run *t)
{
	bool any = false;

	for (unsigned i = 0; i < COUNTERS; i++) {
		const unsigned char no = (unsigned char)i;
		struct fkey k = i < COUNT_ROWS ? fkey_node('m', fstore_self(t->st), &no, 1)
					       : fkey_of('c', &no, 1);

		any = add_counter(t, &k, t->delta[i]) || any;
	}
	for (size_t i = 0; i < t->nothers; i++) {
		const unsigned char no = (unsigned char)t->others[i].no;
		struct fkey k = fkey_node('m', t->others[i].node, &no, 1);

		any = add_counter(t, &k, t->others[i].by) || any;
	}
	return any;
}

int fkv_flush(struct fdb_run *t, bool *any)
{
	const struct fdb_api *api = fstore_api(t->st);
	struct fkv *e, *next;

	*any = false;
	HASH_ITER (hh, t->over, e, next) {
		struct whole w = whole_of(t, e->key, e->klen);

		if (as_known(t, e))
			continue;
		*any = true;
		if (e->present)
			api->transaction_set(t->tr, w.b, w.len, e->val, (int)e->len);
		else
			api->transaction_clear(t->tr, w.b, w.len);
	}
	*any = flush_counters(t) || *any;
	for (size_t i = 0; *any && i < t->nconflicts; i++) {
		const struct fconflict *c = &t->conflicts[i];
		struct whole b = whole_of(t, c->begin.b, c->begin.len);
		struct whole end = whole_of(t, c->end.b, c->end.len);

		if (api->transaction_add_conflict_range(
			t->tr, b.b, b.len, end.b, end.len, FDB_CONFLICT_RANGE_TYPE_READ) != 0)
			return -EIO;
	}
	return 0;
}
