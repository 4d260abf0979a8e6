/* SPDX-License-Identifier: BSD-2-Clause */
#include "meta_check.h"

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "base/obj.h"
#include "base/units.h"
#include "meta/records.h"
#include "reactor/fdb.h"

/* A table in memory, in the order of its keys. */
struct entry {
	MDB_val key, val;
};
struct table {
	struct entry *at;
	size_t n, size;
};

struct check {
	struct meta_check sum;
	const char *dir;
	struct table tree, garbage, parents, content, queue, blobs, settings;
	uint64_t dirs;
	struct meta_tally tally;
};

static MDB_val copy_of(const void *data, size_t len)
{
	void *p = malloc(len + 1);

	cr_assert_not_null(p);
	if (len > 0)
		memcpy(p, data, len);
	return (MDB_val){ .mv_size = len, .mv_data = p };
}

static void table_add(struct table *t, const void *key, size_t key_len, const void *val, size_t len)
{
	if (t->n == t->size) {
		t->size = t->size == 0 ? 64 : 2 * t->size;
		t->at = realloc(t->at, t->size * sizeof(*t->at));
		cr_assert_not_null(t->at);
	}
	t->at[t->n].key = copy_of(key, key_len);
	t->at[t->n++].val = copy_of(val, len);
}

static void table_free(struct table *t)
{
	for (size_t i = 0; i < t->n; i++) {
		free(t->at[i].key.mv_data);
		free(t->at[i].val.mv_data);
	}
	free(t->at);
}

/* The first that is not before the key. */
static size_t seek(const struct table *t, const void *key, size_t len)
{
	size_t from = 0, to = t->n;

	while (from < to) {
		size_t mid = (from + to) / 2;
		const MDB_val *k = &t->at[mid].key;
		int cmp = memcmp(k->mv_data, key, MIN(k->mv_size, len));

		if (cmp < 0 || (cmp == 0 && k->mv_size < len))
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

static bool find(const struct table *t, const void *key, size_t len, MDB_val *val)
{
	size_t i = seek(t, key, len);

	if (i == t->n || t->at[i].key.mv_size != len || memcmp(t->at[i].key.mv_data, key, len) != 0)
		return false;
	*val = t->at[i].val;
	return true;
}

static bool find_id(const struct table *t, uint64_t id, MDB_val *val)
{
	unsigned char buf[8];

	meta_put_be64(buf, id);
	return find(t, buf, sizeof(buf), val);
}

static bool same(const MDB_val *a, const MDB_val *b)
{
	return a->mv_size == b->mv_size && memcmp(a->mv_data, b->mv_data, a->mv_size) == 0;
}

static void each(struct check *c, const struct table *t,
    void (*fn)(struct check *c, const MDB_val *key, const MDB_val *val))
{
	for (size_t i = 0; i < t->n; i++)
		fn(c, &t->at[i].key, &t->at[i].val);
}

static void check_content(struct check *c, const MDB_val *key, const struct meta_content *ct)
{
	unsigned char qkey[META_QUEUE_KEY];
	MDB_val val;

	c->sum.content++;
	meta_tally_add(&c->sum.tally, ct);
	cr_assert(find_id(&c->content, ct->id, &val) && same(&val, key),
	    "%s: content %llx leads elsewhere", c->dir, (unsigned long long)ct->id);
	meta_queue_key(qkey, ct);
	if (meta_content_queued(ct)) {
		c->sum.queued++;
		cr_assert(find(&c->queue, qkey, sizeof(qkey), &val), "%s: %llx is not queued",
		    c->dir, (unsigned long long)ct->id);
	}
	if (find_id(&c->blobs, ct->id, &val)) {
		c->sum.blobs++;
		cr_assert_neq(ct->state, META_STATE_PERSISTED);
		cr_assert_eq(val.mv_size, META_BLOB_HEAD + ct->size);
		cr_assert_eq(*(unsigned char *)val.mv_data, META_BLOB_VERSION);
	}
}

static void check_row(struct check *c, const MDB_val *key, const MDB_val *val)
{
	const struct meta_content *ct;
	struct meta_row row;
	unsigned char buf[8];
	uint64_t dir;
	MDB_val up;
	size_t i;

	c->sum.rows++;
	cr_assert_eq(meta_row_decode(&row, val->mv_data, val->mv_size), 0);
	dir = meta_get_be64(key->mv_data);
	/* It hangs on something: a directory that is named, or waits to be deleted. */
	cr_assert(dir == META_DIR_NONE || dir == META_DIR_TOP ||
		      find_id(&c->parents, dir, &up) || find_id(&c->garbage, dir, &up),
	    "%s: a row is lost", c->dir);
	ct = meta_content_of(&row.rec);
	if (ct != NULL)
		check_content(c, key, ct);
	if (row.dir == META_DIR_NONE)
		return;
	c->dirs++;
	cr_assert(find_id(&c->parents, row.dir, &up) && same(&up, key),
	    "%s: directory %llu does not lead up", c->dir, (unsigned long long)row.dir);
	if (row.rec.kind != META_PASS)
		return;
	meta_put_be64(buf, row.dir);
	i = seek(&c->tree, buf, sizeof(buf));
	cr_assert(i < c->tree.n && memcmp(c->tree.at[i].key.mv_data, buf, sizeof(buf)) == 0,
	    "%s: a directory that leads nowhere", c->dir);
}

static void check_garbage(struct check *c, const MDB_val *key, const MDB_val *val)
{
	MDB_val up;

	(void)val;
	c->sum.garbage++;
	cr_assert_eq(key->mv_size, 8);
	cr_assert(!find(&c->parents, key->mv_data, 8, &up), "%s: garbage has a name", c->dir);
}

static void check_setting(struct check *c, const MDB_val *key, const MDB_val *val)
{
	cr_assert_eq(key->mv_size, 8);
	cr_assert_geq(val->mv_size, META_SETTING_HEAD, "%s", c->dir);
	cr_assert_eq(*(unsigned char *)val->mv_data, META_SETTING_VERSION);
}

static void check_tally(struct check *c)
{
	for (unsigned i = 0; i < META_STATES; i++)
		cr_assert(c->tally.files[i] == c->sum.tally.files[i] &&
			      c->tally.bytes[i] == c->sum.tally.bytes[i],
		    "%s: state %u: tally of %llu files, %llu bytes; there are %llu, %llu", c->dir, i,
		    (unsigned long long)c->tally.files[i], (unsigned long long)c->tally.bytes[i],
		    (unsigned long long)c->sum.tally.files[i],
		    (unsigned long long)c->sum.tally.bytes[i]);
}

static void check_all(struct check *c)
{
	each(c, &c->tree, check_row);
	each(c, &c->garbage, check_garbage);
	each(c, &c->settings, check_setting);
	/* What each row has was found; so if there are as many, there are no others. */
	cr_assert_eq(c->parents.n, c->dirs, "%s: ways up", c->dir);
	cr_assert_eq(c->content.n, c->sum.content, "%s: content", c->dir);
	cr_assert_eq(c->queue.n, c->sum.queued, "%s: queue", c->dir);
	cr_assert_eq(c->blobs.n, c->sum.blobs, "%s: blobs", c->dir);
	check_tally(c);
}

static void check_free(struct check *c)
{
	table_free(&c->tree);
	table_free(&c->garbage);
	table_free(&c->parents);
	table_free(&c->content);
	table_free(&c->queue);
	table_free(&c->blobs);
	table_free(&c->settings);
}

/* --- From LMDB */

static void load(MDB_txn *txn, const char *name, struct table *to)
{
	MDB_cursor *cur;
	MDB_val key, val;
	MDB_dbi dbi;
	int rc;

	cr_assert_eq(mdb_dbi_open(txn, name, 0, &dbi), 0, "%s", name);
	cr_assert_eq(mdb_cursor_open(txn, dbi, &cur), 0);
	while ((rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT)) == 0)
		table_add(to, key.mv_data, key.mv_size, val.mv_data, val.mv_size);
	cr_assert_eq(rc, MDB_NOTFOUND, "%s: %s", name, mdb_strerror(rc));
	mdb_cursor_close(cur);
}

static void check_next(const struct check *c, uint64_t next)
{
	for (size_t i = 0; i < c->parents.n; i++)
		cr_assert_lt(meta_get_be64(c->parents.at[i].key.mv_data), next);
}

struct meta_check meta_check(const char *dir)
{
	struct check c = { .dir = dir };
	const struct {
		const char *name;
		struct table *to;
	} tables[] = { { "tree", &c.tree }, { "garbage", &c.garbage }, { "parents", &c.parents },
		{ "content", &c.content }, { "queue", &c.queue }, { "blobs", &c.blobs },
		{ "settings", &c.settings } };
	struct table meta = { .n = 0 };
	char path[256];
	MDB_env *env;
	MDB_txn *txn;
	MDB_val val;

	(void)snprintf(path, sizeof(path), "%s/meta.mdb", dir);
	cr_assert_eq(mdb_env_create(&env), 0);
	mdb_env_set_maxdbs(env, 16);
	cr_assert_eq(mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOLOCK | MDB_RDONLY, 0600), 0);
	cr_assert_eq(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), 0);
	for (size_t i = 0; i < ARRAY_LEN(tables); i++)
		load(txn, tables[i].name, tables[i].to);
	load(txn, "meta", &meta);
	mdb_txn_abort(txn);
	mdb_env_close(env);
	cr_assert(find(&meta, "next directory", 14, &val) && val.mv_size == 8);
	check_next(&c, meta_get_be64(val.mv_data));
	if (find(&meta, "tally", 5, &val))
		cr_assert_eq(meta_tally_decode(&c.tally, val.mv_data, val.mv_size), 0);
	table_free(&meta);
	check_all(&c);
	check_free(&c);
	return c.sum;
}

/* --- From FoundationDB */

static fdb_error_t await(const struct fdb_api *api, FDBFuture *f)
{
	cr_assert_eq(api->future_block_until_ready(f), 0);
	return api->future_get_error(f);
}

fdb_error_t meta_check_ended(const struct fdb_api *api, FDBTransaction *tr, FDBFuture *f)
{
	fdb_error_t code = await(api, f);

	api->future_destroy(f);
	if (code != 0) {
		f = api->transaction_on_error(tr, code);
		cr_assert_eq(await(api, f), 0, "%s", api->get_error(code));
		api->future_destroy(f);
	}
	return code;
}

static void load_counter(struct check *c, unsigned no, const unsigned char *p)
{
	uint64_t n = 0;

	for (int i = 7; i >= 0; i--)
		n = n << 8 | p[i];
	if (no < META_STATES)
		c->tally.files[no] += n;
	else if (no < 2 * META_STATES)
		c->tally.bytes[no - META_STATES] += n;
}

static void load_key(struct check *c, const FDBKeyValue *kv, int skip)
{
	const unsigned char *key = kv->key + skip;
	size_t len = (size_t)(kv->key_length - skip - 1);
	const struct {
		char letter;
		struct table *to;
	} tables[] = { { 't', &c->tree }, { 'g', &c->garbage }, { 'p', &c->parents },
		{ 'n', &c->content }, { 'b', &c->blobs },
		{ 's', &c->settings } };

	if (*key == 'c')
		cr_assert(len == 1 && kv->value_length == 8);
	if (*key == 'm') { /* a node's */
		cr_assert(len == 9 && kv->value_length == 8);
		load_counter(c, key[9], kv->value);
	}
	if (*key == 'q') { /* of all nodes together */
		table_add(&c->queue, key + 9, len - 8, kv->value, (size_t)kv->value_length);
		return;
	}
	if (*key == 's' && len != 8) /* a piece of one */
		return;
	for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
		if (*key == (unsigned char)tables[i].letter)
			table_add(tables[i].to, key + 1, len, kv->value, (size_t)kv->value_length);
	}
}

struct meta_check meta_check_cluster(struct fdb *fdb, const char *prefix)
{
	const struct fdb_api *api = fdb_api(fdb);
	struct check c = { .dir = prefix };
	FDBTransaction *tr = fdb_transaction(fdb);
	uint8_t from[512], end[256];
	int skip = snprintf((char *)from, 256, "%s", prefix) + 1, len = skip;
	fdb_bool_t more = 1;

	memcpy(end, from, (size_t)skip);
	end[skip - 1] = 1;
	while (more) {
		const FDBKeyValue *kv;
		FDBFuture *f;
		int n;

		f = api->transaction_get_range(tr, from, len, 0, 1, end, skip, 0, 1, 0, 0,
		    FDB_STREAMING_MODE_WANT_ALL, 1, 1, 0);
		if (await(api, f) != 0) {
			(void)meta_check_ended(api, tr, f);
			continue;
		}
		cr_assert_eq(api->future_get_keyvalue_array(f, &kv, &n, &more), 0);
		for (int i = 0; i < n; i++)
			load_key(&c, &kv[i], skip);
		if (n > 0) { /* behind the last */
			len = kv[n - 1].key_length + 1;
			memcpy(from, kv[n - 1].key, (size_t)len - 1);
			from[len - 1] = 0;
		}
		api->future_destroy(f);
	}
	api->transaction_destroy(tr);
	check_all(&c);
	check_free(&c);
	return c.sum;
}
