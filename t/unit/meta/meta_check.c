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

struct check {
	struct meta_check sum;
	const char *dir;
	MDB_txn *txn;
	MDB_dbi meta, tree, intents, garbage, parents, content, queue, blobs, settings;
	uint64_t next_dir, dirs;
};

static uint64_t count(const struct check *c, MDB_dbi dbi)
{
	MDB_stat st;

	cr_assert_eq(mdb_stat(c->txn, dbi, &st), 0);
	return st.ms_entries;
}

static MDB_val val_of(const void *data, size_t len)
{
	return (MDB_val){ .mv_size = len, .mv_data = (void *)(uintptr_t)data };
}

static bool find(const struct check *c, MDB_dbi dbi, const void *key, size_t len, MDB_val *val)
{
	MDB_val k = val_of(key, len);
	int rc = mdb_get(c->txn, dbi, &k, val);

	cr_assert(rc == 0 || rc == MDB_NOTFOUND, "%s: %s", c->dir, mdb_strerror(rc));
	return rc == 0;
}

static bool find_id(const struct check *c, MDB_dbi dbi, uint64_t id, MDB_val *val)
{
	unsigned char buf[8];

	meta_put_be64(buf, id);
	return find(c, dbi, buf, sizeof(buf), val);
}

static bool same(const MDB_val *a, const MDB_val *b)
{
	return a->mv_size == b->mv_size && memcmp(a->mv_data, b->mv_data, a->mv_size) == 0;
}

static void each(struct check *c, MDB_dbi dbi,
    void (*fn)(struct check *c, const MDB_val *key, const MDB_val *val))
{
	MDB_cursor *cur;
	MDB_val key, val;
	int rc;

	cr_assert_eq(mdb_cursor_open(c->txn, dbi, &cur), 0);
	while ((rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT)) == 0)
		fn(c, &key, &val);
	cr_assert_eq(rc, MDB_NOTFOUND, "%s: %s", c->dir, mdb_strerror(rc));
	mdb_cursor_close(cur);
}

static void check_content(struct check *c, const MDB_val *key, const struct meta_content *ct)
{
	unsigned char qkey[META_QUEUE_KEY];
	MDB_val val;

	c->sum.content++;
	meta_tally_add(&c->sum.tally, ct);
	cr_assert(find_id(c, c->content, ct->id, &val) && same(&val, key),
	    "%s: content %llx leads elsewhere", c->dir, (unsigned long long)ct->id);
	meta_queue_key(qkey, ct);
	if (meta_content_queued(ct)) {
		c->sum.queued++;
		cr_assert(find(c, c->queue, qkey, sizeof(qkey), &val), "%s: %llx is not queued",
		    c->dir, (unsigned long long)ct->id);
	}
	if (find_id(c, c->blobs, ct->id, &val)) {
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
	MDB_val up, first;
	MDB_cursor *cur;
	uint64_t dir;

	c->sum.rows++;
	cr_assert_eq(meta_row_decode(&row, val->mv_data, val->mv_size), 0);
	dir = meta_get_be64(key->mv_data);
	/* It hangs on something: a directory that is named, or waits to be deleted. */
	cr_assert(dir == META_DIR_NONE || dir == META_DIR_TOP ||
		      find_id(c, c->parents, dir, &up) || find_id(c, c->garbage, dir, &up),
	    "%s: a row is lost", c->dir);
	ct = meta_content_of(&row.rec);
	if (ct != NULL)
		check_content(c, key, ct);
	if (row.dir == META_DIR_NONE)
		return;
	c->dirs++;
	cr_assert_lt(row.dir, c->next_dir);
	cr_assert(find_id(c, c->parents, row.dir, &up) && same(&up, key),
	    "%s: directory %llu does not lead up", c->dir, (unsigned long long)row.dir);
	if (row.rec.kind != META_PASS)
		return;
	cr_assert_eq(mdb_cursor_open(c->txn, c->tree, &cur), 0);
	{
		unsigned char buf[8];

		meta_put_be64(buf, row.dir);
		first = val_of(buf, sizeof(buf));
		cr_assert(mdb_cursor_get(cur, &first, &up, MDB_SET_RANGE) == 0 &&
			      meta_get_be64(first.mv_data) == row.dir,
		    "%s: a directory that leads nowhere", c->dir);
	}
	mdb_cursor_close(cur);
}

static void check_garbage(struct check *c, const MDB_val *key, const MDB_val *val)
{
	MDB_val up;

	(void)val;
	c->sum.garbage++;
	cr_assert_eq(key->mv_size, 8);
	cr_assert(!find(c, c->parents, key->mv_data, 8, &up), "%s: garbage has a name", c->dir);
}

static void check_setting(struct check *c, const MDB_val *key, const MDB_val *val)
{
	cr_assert_eq(key->mv_size, 8);
	cr_assert_geq(val->mv_size, META_SETTING_HEAD, "%s", c->dir);
	cr_assert_eq(*(unsigned char *)val->mv_data, META_SETTING_VERSION);
}

static void check_tally(struct check *c)
{
	struct meta_tally ta = { .files = { 0 } };
	MDB_val val;

	if (find(c, c->meta, "tally", 5, &val))
		cr_assert_eq(meta_tally_decode(&ta, val.mv_data, val.mv_size), 0);
	for (unsigned i = 0; i < META_STATES; i++)
		cr_assert(ta.files[i] == c->sum.tally.files[i] &&
			      ta.bytes[i] == c->sum.tally.bytes[i],
		    "%s: state %u: tally of %llu files, %llu bytes; there are %llu, %llu", c->dir, i,
		    (unsigned long long)ta.files[i], (unsigned long long)ta.bytes[i],
		    (unsigned long long)c->sum.tally.files[i],
		    (unsigned long long)c->sum.tally.bytes[i]);
}

static void check_all(struct check *c)
{
	MDB_val val;

	cr_assert(find(c, c->meta, "next directory", 14, &val) && val.mv_size == 8);
	c->next_dir = meta_get_be64(val.mv_data);
	each(c, c->tree, check_row);
	each(c, c->garbage, check_garbage);
	each(c, c->settings, check_setting);
	/* What each row has was found; so if there are as many, there are no others. */
	cr_assert_eq(count(c, c->parents), c->dirs, "%s: ways up", c->dir);
	cr_assert_eq(count(c, c->content), c->sum.content, "%s: content", c->dir);
	cr_assert_eq(count(c, c->queue), c->sum.queued, "%s: queue", c->dir);
	cr_assert_eq(count(c, c->blobs), c->sum.blobs, "%s: blobs", c->dir);
	check_tally(c);
}

struct meta_check meta_check(const char *dir)
{
	struct check c = { .dir = dir };
	const struct {
		const char *name;
		MDB_dbi *dbi;
	} tables[] = { { "meta", &c.meta }, { "tree", &c.tree }, { "intents", &c.intents },
		{ "garbage", &c.garbage }, { "parents", &c.parents }, { "content", &c.content },
		{ "queue", &c.queue }, { "blobs", &c.blobs }, { "settings", &c.settings } };
	char path[256];
	MDB_env *env;

	(void)snprintf(path, sizeof(path), "%s/meta.mdb", dir);
	cr_assert_eq(mdb_env_create(&env), 0);
	mdb_env_set_maxdbs(env, 16);
	cr_assert_eq(mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOLOCK | MDB_RDONLY, 0600), 0);
	cr_assert_eq(mdb_txn_begin(env, NULL, MDB_RDONLY, &c.txn), 0);
	for (size_t i = 0; i < ARRAY_LEN(tables); i++)
		cr_assert_eq(mdb_dbi_open(c.txn, tables[i].name, 0, tables[i].dbi), 0, "%s: %s",
		    dir, tables[i].name);
	check_all(&c);
	mdb_txn_abort(c.txn);
	mdb_env_close(env);
	return c.sum;
}
