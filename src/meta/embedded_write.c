/* SPDX-License-Identifier: BSD-2-Clause */
/* The verbs, in an open transaction. */
#include <errno.h>
#include <string.h>

#include "base/hash.h"
#include "meta/embedded_priv.h"

/* Of a version-1 intent: the version, then the blob. */
#define INTENT_HEAD 1

static int fail_with(struct db_txn *t, const char *what, int rc)
{
	int err = db_err(rc);

	if (rc < 0 && err == -EIO)
		errtext_set(t->et, err, "metadata store %s: %s: %s", t->db->dir, what,
		    mdb_strerror(rc));
	return err;
}

/* What hangs on the directory is nobody's from now on. */
static int discard(struct db_txn *t, uint64_t dir)
{
	unsigned char buf[8];
	MDB_val key = db_val(buf, sizeof(buf)), none = db_val("", 0);
	int empty;

	if (dir == META_DIR_NONE)
		return 0;
	empty = db_dir_empty(t, dir);
	if (empty != 0)
		return empty < 0 ? empty : 0;
	meta_put_be64(buf, dir);
	t->wrote = true;
	return fail_with(t, "garbage", mdb_put(t->txn, t->db->garbage, &key, &none, 0));
}

/* Directories above the last step that only led there and lead nowhere now. */
static int prune(struct db_txn *t, const struct db_way *way)
{
	for (unsigned i = way->n - 1; i > 0; i--) {
		struct meta_row row;
		int empty = db_dir_empty(t, way->step[i].dir), err;

		if (empty <= 0)
			return empty;
		err = db_row_get(t, &way->step[i - 1], &row);
		if (err != 0 || row.rec.kind != META_PASS)
			return err;
		err = db_row_del(t, &way->step[i - 1]);
		if (err != 0)
			return err;
	}
	return 0;
}

static const struct db_step *target(const struct db_way *way)
{
	return &way->step[way->n - 1];
}

/* The row of a path: -ENOENT also if something on the way lacks or is a file. */
static int find(struct db_txn *t, const char *path, struct db_way *way, struct meta_row *row)
{
	int err = db_walk(t, path, false, way);

	if (err == 0)
		err = db_row_get(t, target(way), row);
	return err == -ENOTDIR ? -ENOENT : err;
}

static int put(struct db_txn *t, const struct meta_change *ch)
{
	struct meta_row old, row;
	struct db_way way;
	unsigned char a[META_ROW_MAX], b[META_ROW_MAX];
	size_t len;
	int err = db_walk(t, ch->path, true, &way);
	bool had;

	if (err != 0)
		return err;
	err = db_row_get(t, target(&way), &old);
	had = err == 0;
	if (err == -ENOENT)
		memset(&old, 0, sizeof(old));
	else if (err != 0)
		return err;
	row = old;
	row.rec = ch->rec;
	if (ch->rec.kind == META_FILE && old.dir != META_DIR_NONE) {
		int empty = db_dir_empty(t, old.dir);

		if (empty <= 0)
			return empty < 0 ? empty : -ENOTEMPTY;
		row.dir = META_DIR_NONE;
	}
	len = meta_row_encode(&row, a);
	if (had && meta_row_encode(&old, b) == len && memcmp(a, b, len) == 0)
		return 0;
	return db_row_put(t, target(&way), &row);
}

static int drop(struct db_txn *t, const struct db_way *way, const struct meta_row *row)
{
	int err = discard(t, row->dir);

	if (err == 0)
		err = db_row_del(t, target(way));
	return err != 0 ? err : prune(t, way);
}

static int del(struct db_txn *t, const struct meta_change *ch)
{
	struct meta_row row;
	struct db_way way;
	int err = find(t, ch->path, &way, &row);

	if (err != 0)
		return err == -ENOENT ? 0 : err;
	return drop(t, &way, &row);
}

/* What the row that came by this move bears, so that its repetition is known. */
static uint64_t move_id(const struct meta_change *ch)
{
	uint64_t id = ch->id != 0 ? ch->id : hash64(ch->path, strlen(ch->path), 0);

	return id != 0 ? id : 1;
}

/* The source has no record, so the target has none either. */
static int move_nothing(struct db_txn *t, const struct meta_change *ch)
{
	struct meta_row row;
	struct db_way way;
	int err = find(t, ch->to, &way, &row);

	if (err != 0)
		return err == -ENOENT ? 0 : err;
	return row.move == move_id(ch) ? 0 : drop(t, &way, &row);
}

static int move(struct db_txn *t, const struct meta_change *ch)
{
	struct meta_row row, gone;
	struct db_way from, to;
	int err;

	if (strcmp(ch->path, ch->to) == 0)
		return 0;
	err = find(t, ch->path, &from, &row);
	if (err == -ENOENT)
		return move_nothing(t, ch);
	if (err == 0)
		err = db_walk(t, ch->to, true, &to);
	if (err != 0)
		return err;
	err = db_row_get(t, target(&to), &gone);
	/* The source is another one by now.  A path cannot tell that. */
	if (err == 0 && ch->id != 0 && gone.move == ch->id)
		return 0;
	if (err == 0)
		err = discard(t, gone.dir);
	if (err != 0 && err != -ENOENT)
		return err;
	row.move = move_id(ch);
	err = db_row_put(t, target(&to), &row);
	if (err == 0)
		err = db_row_del(t, target(&from));
	return err != 0 ? err : prune(t, &from);
}

static int intent_put(struct db_txn *t, const struct meta_change *ch)
{
	unsigned char id[8], *to;
	MDB_val key = db_val(id, sizeof(id)), val;
	int rc;

	meta_put_be64(id, ch->id);
	rc = mdb_get(t->txn, t->db->intents, &key, &val);
	if (rc == 0 && val.mv_size == INTENT_HEAD + ch->blob_len) {
		to = val.mv_data;
		if (to[0] == DB_INTENT_VERSION &&
		    (ch->blob_len == 0 || memcmp(to + INTENT_HEAD, ch->blob, ch->blob_len) == 0))
			return 0;
	}
	t->wrote = true;
	val = db_val(NULL, INTENT_HEAD + ch->blob_len);
	rc = mdb_put(t->txn, t->db->intents, &key, &val, MDB_RESERVE);
	if (rc != 0)
		return fail_with(t, "intent", rc);
	to = val.mv_data;
	to[0] = DB_INTENT_VERSION;
	if (ch->blob_len > 0)
		memcpy(to + INTENT_HEAD, ch->blob, ch->blob_len);
	return 0;
}

static int intent_del(struct db_txn *t, const struct meta_change *ch)
{
	unsigned char id[8];
	MDB_val key = db_val(id, sizeof(id));
	int rc;

	meta_put_be64(id, ch->id);
	rc = mdb_del(t->txn, t->db->intents, &key, NULL);
	if (rc == MDB_NOTFOUND)
		return 0;
	t->wrote = true;
	return fail_with(t, "intent", rc);
}

int db_apply(struct db_txn *t, const struct meta_call *c)
{
	static int (*const verbs[])(struct db_txn *t, const struct meta_change *ch) = {
		[META_PUT] = put,
		[META_DEL] = del,
		[META_MOVE] = move,
		[META_INTENT_PUT] = intent_put,
		[META_INTENT_DEL] = intent_del,
	};
	int err = 0;

	for (unsigned i = 0; err == 0 && i < c->n; i++)
		err = verbs[c->changes[i].verb](t, &c->changes[i]);
	return err;
}

/* --- Sweeping */

/* Deletes the rows of one directory; 1: all of them, 0: `max` were used up. */
static int sweep_dir(struct db_txn *t, uint64_t dir, unsigned *max)
{
	unsigned char buf[8];
	MDB_val key = db_val(buf, sizeof(buf)), val;
	MDB_cursor *cur;
	int rc, err = 0;

	meta_put_be64(buf, dir);
	rc = mdb_cursor_open(t->txn, t->db->tree, &cur);
	if (rc != 0)
		return fail_with(t, "sweep", rc);
	rc = mdb_cursor_get(cur, &key, &val, MDB_SET_RANGE);
	while (rc == 0 && err == 0 && key.mv_size >= 8 && meta_get_be64(key.mv_data) == dir) {
		struct meta_row row;

		if (*max == 0)
			break;
		(*max)--;
		/* One that cannot be read cannot say what hangs on it: that stays, unnamed. */
		if (db_row_decode(t, &key, &val, &row) == 0)
			err = discard(t, row.dir);
		if (err == 0)
			err = fail_with(t, "sweep", mdb_cursor_del(cur, 0));
		t->wrote = true;
		if (err == 0)
			rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT);
	}
	mdb_cursor_close(cur);
	if (err != 0)
		return err;
	if (rc != 0 && rc != MDB_NOTFOUND)
		return fail_with(t, "sweep", rc);
	return *max > 0;
}

int db_sweep(struct db_txn *t, unsigned max)
{
	t->path = "(deleted)";
	while (max > 0) {
		unsigned char id[8];
		MDB_val key, val;
		MDB_cursor *cur;
		int rc, err;

		rc = mdb_cursor_open(t->txn, t->db->garbage, &cur);
		if (rc != 0)
			return fail_with(t, "sweep", rc);
		rc = mdb_cursor_get(cur, &key, &val, MDB_FIRST);
		if (rc == 0 && key.mv_size == sizeof(id))
			memcpy(id, key.mv_data, sizeof(id));
		else if (rc == 0)
			rc = MDB_CORRUPTED;
		mdb_cursor_close(cur);
		t->db->garbage_left = rc == 0;
		if (rc != 0)
			return rc == MDB_NOTFOUND ? 0 : fail_with(t, "sweep", rc);
		err = sweep_dir(t, meta_get_be64(id), &max);
		if (err < 0)
			return err;
		if (err == 0)
			return 0;
		key = db_val(id, sizeof(id));
		t->wrote = true;
		err = fail_with(t, "sweep", mdb_del(t->txn, t->db->garbage, &key, NULL));
		if (err != 0)
			return err;
	}
	return 0;
}
