/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading, in a snapshot. */
#include <errno.h>
#include <string.h>

#include "meta/embedded_priv.h"

static int gather(struct db_gather *g, size_t item, size_t bytes)
{
	int err = meta_grow(&g->items, &g->items_size, (g->count + 1) * item);

	return err != 0 ? err : meta_grow(&g->arena, &g->arena_size, g->used + bytes);
}

static int open_cursor(struct db_txn *t, MDB_dbi dbi)
{
	MDB_stat st;
	/* So that the next call finds the table's root: it owns memory when it looks. */
	int rc = mdb_stat(t->txn, dbi, &st);

	if (rc == 0)
		rc = mdb_cursor_open(t->txn, dbi, &t->cur);
	if (rc != 0)
		t->cur = NULL;
	return rc;
}

static void close_cursor(struct db_txn *t)
{
	mdb_cursor_close(t->cur);
	t->cur = NULL;
}

static int get(struct db_txn *t, struct meta_call *c)
{
	struct meta_row row;
	struct db_way way;
	int err = db_walk(t, c->path, false, &way);

	if (err == 0)
		err = db_row_get(t, &way.step[way.n - 1], &row);
	if (err != 0)
		return err == -ENOTDIR ? -ENOENT : err;
	if (row.rec.kind == META_PASS)
		return -ENOENT;
	c->rec = row.rec;
	return 0;
}

/* --- Scan */

static int scan_dir(struct db_txn *t, const char *path, uint64_t *dir)
{
	struct meta_row row;
	struct db_way way;
	int err;

	*dir = META_DIR_TOP;
	if (*path == '\0')
		return 0;
	err = db_walk(t, path, false, &way);
	if (err == 0)
		err = db_row_get(t, &way.step[way.n - 1], &row);
	if (err != 0)
		return err == -ENOTDIR ? -ENOENT : err;
	*dir = row.dir;
	return row.dir != META_DIR_NONE ? 0 : -ENOENT;
}

static bool inside(const MDB_val *key, uint64_t dir, const MDB_val *last)
{
	size_t n;
	int cmp;

	if (key->mv_size < 8 || meta_get_be64(key->mv_data) != dir)
		return false;
	if (last->mv_size == 0)
		return true;
	n = MIN(key->mv_size, last->mv_size);
	cmp = memcmp(key->mv_data, last->mv_data, n);
	return cmp != 0 ? cmp < 0 : key->mv_size <= last->mv_size;
}

static int scan_add(struct db_gather *g, const MDB_val *key, const struct meta_record *rec)
{
	size_t len = key->mv_size - 8;
	struct meta_entry *e;
	int err = gather(g, sizeof(*e), len + 1);

	if (err != 0)
		return err;
	e = (struct meta_entry *)g->items + g->count++;
	e->rec = *rec;
	memcpy((char *)g->arena + g->used, (const char *)key->mv_data + 8, len);
	((char *)g->arena)[g->used + len] = '\0';
	g->used += len + 1;
	return 0;
}

static int scan_range(
    struct db_txn *t, const struct meta_call *c, uint64_t dir, struct db_gather *g, bool *more)
{
	unsigned char first[META_KEY_MAX], end[META_KEY_MAX];
	const char *after = c->after != NULL ? c->after : "";
	MDB_val key = db_val(first, meta_key_encode(first, dir, after, strlen(after)));
	MDB_val last = db_val(end, 0), val;
	int rc, err = 0;

	if (c->last != NULL)
		last.mv_size = meta_key_encode(end, dir, c->last, strlen(c->last));
	rc = open_cursor(t, t->db->tree);
	if (rc != 0)
		return db_err(rc);
	rc = mdb_cursor_get(t->cur, &key, &val, MDB_SET_RANGE);
	/* The entry `after` itself. */
	if (rc == 0 && key.mv_size == 8 + strlen(after) && inside(&key, dir, &key) &&
	    memcmp((const char *)key.mv_data + 8, after, strlen(after)) == 0)
		rc = mdb_cursor_get(t->cur, &key, &val, MDB_NEXT);
	while (rc == 0 && err == 0 && inside(&key, dir, &last)) {
		struct meta_row row;

		err = db_row_decode(t, &key, &val, &row);
		if (err == 0 && (row.rec.kind != META_PASS || c->pass)) {
			*more = g->count == c->max;
			if (*more)
				break;
			err = scan_add(g, &key, &row.rec);
		}
		if (err == 0)
			rc = mdb_cursor_get(t->cur, &key, &val, MDB_NEXT);
	}
	close_cursor(t);
	return err != 0 || rc == MDB_NOTFOUND ? err : db_err(rc);
}

/* The call gets what was gathered, if err is 0. */
static int take_entries(struct db_txn *t, struct meta_call *c, int err, bool more)
{
	struct db_gather *g = &t->gather;
	const char *name = g->arena;

	if (err != 0) {
		db_txn_drop(t);
		return err;
	}
	c->entries = g->items;
	c->arena = g->arena;
	c->count = g->count;
	c->more = more;
	for (size_t i = 0; i < c->count; i++) {
		c->entries[i].name = name;
		name += strlen(name) + 1;
	}
	memset(g, 0, sizeof(*g));
	return 0;
}

static int scan(struct db_txn *t, struct meta_call *c)
{
	bool more = false;
	uint64_t dir;
	int err;

	t->path = c->path;
	err = scan_dir(t, c->path, &dir);
	if (err == 0)
		err = scan_range(t, c, dir, &t->gather, &more);
	err = take_entries(t, c, err, more);
	return err == -ENOENT ? 0 : err;
}

/* --- Intents */

#define BLOB_ALIGN 16u

static int intent_add(struct db_txn *t, const MDB_val *key, const MDB_val *val)
{
	struct db_gather *g = &t->gather;
	const unsigned char *p = val->mv_data;
	struct meta_intent *in;
	size_t len;
	int err;

	if (key->mv_size != 8 || val->mv_size == 0)
		return errtext_set(t->et, -EIO, "metadata store %s: an intent is damaged",
		    t->db->dir);
	if (p[0] != DB_INTENT_VERSION) {
		errtext_set(t->et, -EIO,
		    "metadata store %s: intent %llx is of version %u, which this build does not "
		    "know: use the batonfs that wrote it",
		    t->db->dir, (unsigned long long)meta_get_be64(key->mv_data), p[0]);
		return -EIO;
	}
	len = val->mv_size - 1;
	err = gather(g, sizeof(*in), len + BLOB_ALIGN);
	if (err != 0)
		return err;
	in = (struct meta_intent *)g->items + g->count++;
	in->id = meta_get_be64(key->mv_data);
	in->len = len;
	memcpy((char *)g->arena + g->used, p + 1, len);
	g->used += (len + BLOB_ALIGN - 1) / BLOB_ALIGN * BLOB_ALIGN;
	return 0;
}

static int intents(struct db_txn *t, struct meta_call *c)
{
	MDB_val key, val;
	char *blob;
	int rc = open_cursor(t, t->db->intents), err = 0;

	if (rc != 0)
		return db_err(rc);
	rc = mdb_cursor_get(t->cur, &key, &val, MDB_FIRST);
	while (rc == 0 && err == 0) {
		err = intent_add(t, &key, &val);
		if (err == 0)
			rc = mdb_cursor_get(t->cur, &key, &val, MDB_NEXT);
	}
	close_cursor(t);
	if (err == 0 && rc != MDB_NOTFOUND)
		err = db_err(rc);
	if (err != 0) {
		db_txn_drop(t);
		return err;
	}
	c->intents = t->gather.items;
	c->arena = t->gather.arena;
	c->count = t->gather.count;
	memset(&t->gather, 0, sizeof(t->gather));
	blob = c->arena;
	for (size_t i = 0; i < c->count; i++) {
		c->intents[i].blob = blob;
		blob += (c->intents[i].len + BLOB_ALIGN - 1) / BLOB_ALIGN * BLOB_ALIGN;
	}
	return 0;
}

/* --- Content */

/* A copy of the bytes and a 0 byte behind it. */
static int copy_blob(struct meta_call *c, const MDB_val *val, size_t head)
{
	c->blob_len = val->mv_size - head;
	c->blob = malloc(c->blob_len + 1);
	if (c->blob == NULL)
		return -ENOMEM;
	memcpy(c->blob, (const char *)val->mv_data + head, c->blob_len);
	((char *)c->blob)[c->blob_len] = '\0';
	return 0;
}

static int content(struct db_txn *t, struct meta_call *c)
{
	unsigned char buf[META_KEY_MAX];
	char pbuf[DB_PATH_SIZE];
	struct meta_row row;
	const char *path;
	MDB_val key, val;
	int err = db_content_find(t, c->id, buf, &key, &row);

	if (err == 0)
		err = db_path_of(t, &key, pbuf, &path);
	if (err != 0)
		return err;
	c->rec = row.rec;
	c->arena = strdup(path);
	if (c->arena == NULL)
		return -ENOMEM;
	err = db_blob(t, t->db->blobs, c->id, META_BLOB_VERSION, META_BLOB_HEAD, &val);
	if (err == 0)
		err = copy_blob(c, &val, META_BLOB_HEAD);
	return err == -ENOENT ? 0 : err;
}

static int setting(struct db_txn *t, struct meta_call *c)
{
	MDB_val val;
	int err = db_blob(
	    t, t->db->settings, c->id, META_SETTING_VERSION, META_SETTING_HEAD, &val);

	if (err != 0)
		return err;
	c->version = meta_get_be64((const unsigned char *)val.mv_data + 1);
	return copy_blob(c, &val, META_SETTING_HEAD);
}

/* --- The queue */

static int queue_add(struct db_txn *t, const struct meta_call *c, uint64_t id, struct db_gather *g,
    bool *more)
{
	unsigned char buf[META_KEY_MAX];
	char pbuf[DB_PATH_SIZE];
	struct meta_entry *e;
	struct meta_row row;
	const char *path;
	size_t len;
	MDB_val key;
	int err = db_content_find(t, id, buf, &key, &row);

	if (err == 0)
		err = db_path_of(t, &key, pbuf, &path);
	/* Garbage; or damage, of which there are words, and which must not stop the others. */
	if (err == -ENOENT || err == -EIO)
		return 0;
	if (err != 0)
		return err;
	*more = g->count == c->max;
	if (*more)
		return 0;
	len = strlen(path) + 1;
	err = gather(g, sizeof(*e), len);
	if (err != 0)
		return err;
	e = (struct meta_entry *)g->items + g->count++;
	e->rec = row.rec;
	memcpy((char *)g->arena + g->used, path, len);
	g->used += len;
	return 0;
}

static int queue_range(struct db_txn *t, const struct meta_call *c, struct db_gather *g, bool *more)
{
	unsigned char after[META_QUEUE_KEY];
	MDB_val key = db_val(after, sizeof(after)), val;
	int rc = open_cursor(t, t->db->queue), err = 0;

	if (rc != 0)
		return db_err(rc);
	meta_put_be64(after, c->after_ns);
	meta_put_be64(after + 8, c->after_id);
	rc = mdb_cursor_get(t->cur, &key, &val, MDB_SET_RANGE);
	if (rc == 0 && key.mv_size == sizeof(after) && memcmp(key.mv_data, after, sizeof(after)) == 0)
		rc = mdb_cursor_get(t->cur, &key, &val, MDB_NEXT);
	while (rc == 0 && err == 0 && !*more) {
		const unsigned char *p = key.mv_data;

		if (key.mv_size != META_QUEUE_KEY)
			err = errtext_set(t->et, -EIO, "metadata store %s: its queue is damaged",
			    t->db->dir);
		else if (meta_get_be64(p) > c->until_ns)
			break;
		else
			err = queue_add(t, c, meta_get_be64(p + 8), g, more);
		if (err == 0)
			rc = mdb_cursor_get(t->cur, &key, &val, MDB_NEXT);
	}
	close_cursor(t);
	return err != 0 || rc == MDB_NOTFOUND ? err : db_err(rc);
}

static int queue(struct db_txn *t, struct meta_call *c)
{
	bool more = false;
	int err = queue_range(t, c, &t->gather, &more);

	return take_entries(t, c, err, more);
}

void db_read_call(struct db_txn *t, struct meta_call *c)
{
	t->path = "";
	switch (c->op) {
	case META_OP_GET:
		c->err = get(t, c);
		break;
	case META_OP_SCAN:
		c->err = scan(t, c);
		break;
	case META_OP_INTENTS:
		c->err = intents(t, c);
		break;
	case META_OP_CONTENT:
		c->err = content(t, c);
		break;
	case META_OP_QUEUE:
		c->err = queue(t, c);
		break;
	case META_OP_SETTING:
		c->err = setting(t, c);
		break;
	case META_OP_TXN:
		c->err = -EINVAL;
		break;
	}
}
