/* SPDX-License-Identifier: BSD-2-Clause */
/* The verbs, in an open transaction. */
#include <errno.h>
#include <string.h>

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
		err = db_row_del(t, &way->step[i - 1], &row);
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

static int blob_put(struct db_txn *t, MDB_dbi dbi, uint64_t id, const unsigned char *head,
    size_t head_len, const struct meta_change *ch)
{
	unsigned char buf[8], *to;
	MDB_val key = db_val(buf, sizeof(buf)), val;
	int rc;

	meta_put_be64(buf, id);
	rc = mdb_get(t->txn, dbi, &key, &val);
	if (rc == 0 && val.mv_size == head_len + ch->blob_len) {
		to = val.mv_data;
		if (memcmp(to, head, head_len) == 0 &&
		    (ch->blob_len == 0 || memcmp(to + head_len, ch->blob, ch->blob_len) == 0))
			return 0;
	}
	t->wrote = true;
	val = db_val(NULL, head_len + ch->blob_len);
	rc = mdb_put(t->txn, dbi, &key, &val, MDB_RESERVE);
	if (rc != 0)
		return fail_with(t, "blob", rc);
	to = val.mv_data;
	memcpy(to, head, head_len);
	if (ch->blob_len > 0)
		memcpy(to + head_len, ch->blob, ch->blob_len);
	return 0;
}

static int put_bytes(struct db_txn *t, const struct meta_change *ch)
{
	static const unsigned char head[META_BLOB_HEAD] = { META_BLOB_VERSION };

	if (ch->blob == NULL || ch->rec.content.state == META_STATE_PERSISTED)
		return 0;
	return blob_put(t, t->db->blobs, ch->rec.content.id, head, sizeof(head), ch);
}

static int put(struct db_txn *t, const struct meta_change *ch)
{
	struct meta_row old, row;
	struct db_way way;
	int err = db_walk(t, ch->path, ch->if_content == 0, &way), go;
	bool had;

	if (err == 0)
		err = db_row_get(t, target(&way), &old);
	had = err == 0;
	if (err != 0 && err != -ENOENT)
		return err;
	go = meta_change_guard(ch, had ? &old : NULL);
	if (go <= 0)
		return go;
	if (!had)
		memset(&old, 0, sizeof(old));
	row = old;
	row.rec = ch->rec;
	if (ch->rec.kind == META_FILE && old.dir != META_DIR_NONE) {
		int empty = db_dir_empty(t, old.dir);

		if (empty <= 0)
			return empty < 0 ? empty : -ENOTEMPTY;
		row.dir = META_DIR_NONE;
	}
	if (!had || !meta_row_same(&row, &old))
		err = db_row_put(t, target(&way), had ? &old : NULL, &row);
	else
		err = 0;
	return err != 0 ? err : put_bytes(t, ch);
}

static int drop(struct db_txn *t, const struct db_way *way, const struct meta_row *row)
{
	int err = discard(t, row->dir);

	if (err == 0)
		err = db_row_del(t, target(way), row);
	return err != 0 ? err : prune(t, way);
}

static int del(struct db_txn *t, const struct meta_change *ch)
{
	struct meta_row row;
	struct db_way way;
	int err = find(t, ch->path, &way, &row), go;

	if (err != 0)
		return err == -ENOENT ? 0 : err;
	go = meta_change_guard(ch, &row);
	return go > 0 ? drop(t, &way, &row) : go;
}

/* The source has no record, so the target has none either. */
static int move_nothing(struct db_txn *t, const struct meta_change *ch)
{
	struct meta_row row;
	struct db_way way;
	int err = find(t, ch->to, &way, &row);

	if (err != 0)
		return err == -ENOENT ? 0 : err;
	return row.move == meta_move_id(ch) ? 0 : drop(t, &way, &row);
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
	if (err == 0)
		err = db_row_del(t, target(&to), &gone);
	if (err != 0 && err != -ENOENT)
		return err;
	row.move = meta_move_id(ch);
	err = db_row_move(t, target(&from), target(&to), &row);
	return err != 0 ? err : prune(t, &from);
}

static int intent_put(struct db_txn *t, const struct meta_change *ch)
{
	static const unsigned char head[INTENT_HEAD] = { DB_INTENT_VERSION };

	return blob_put(t, t->db->intents, ch->id, head, sizeof(head), ch);
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

/* Is it this setting already, put from the same version? */
static bool same_setting(const MDB_val *val, const struct meta_change *ch)
{
	return val->mv_size == META_SETTING_HEAD + ch->blob_len &&
	       (ch->blob_len == 0 || memcmp((const char *)val->mv_data + META_SETTING_HEAD, ch->blob,
					 ch->blob_len) == 0);
}

static int setting_put(struct db_txn *t, const struct meta_change *ch)
{
	unsigned char head[META_SETTING_HEAD] = { META_SETTING_VERSION };
	uint64_t now = 0;
	MDB_val val;
	int err = db_blob(t, t->db->settings, ch->id, META_SETTING_VERSION, META_SETTING_HEAD, &val);

	if (err == 0)
		now = meta_get_be64((const unsigned char *)val.mv_data + 1);
	else if (err != -ENOENT)
		return err;
	if (err == 0 && now == ch->if_version + 1 && same_setting(&val, ch))
		return 0;
	if (now != ch->if_version)
		return -EEXIST;
	meta_put_be64(head + 1, now + 1);
	return blob_put(t, t->db->settings, ch->id, head, sizeof(head), ch);
}

int db_apply(struct db_txn *t, const struct meta_call *c)
{
	static int (*const verbs[])(struct db_txn *t, const struct meta_change *ch) = {
		[META_PUT] = put,
		[META_DEL] = del,
		[META_MOVE] = move,
		[META_INTENT_PUT] = intent_put,
		[META_INTENT_DEL] = intent_del,
		[META_SETTING_PUT] = setting_put,
	};
	int err = 0;

	for (unsigned i = 0; err == 0 && i < c->n; i++)
		err = verbs[c->changes[i].verb](t, &c->changes[i]);
	return err;
}

/* --- Sweeping */

/* What hangs on a row of a deleted directory.  One that cannot be read cannot say: that
 * stays, unnamed. */
static int sweep_row(struct db_txn *t, const MDB_val *at, const MDB_val *val)
{
	unsigned char buf[META_KEY_MAX];
	MDB_val key = db_val(buf, at->mv_size);
	struct meta_row row;
	int err;

	if (db_row_decode(t, at, val, &row) != 0)
		return 0;
	memcpy(buf, at->mv_data, at->mv_size);
	err = discard(t, row.dir);
	return err != 0 ? err : db_index(t, &key, &row, NULL);
}

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
		if (*max == 0)
			break;
		(*max)--;
		err = sweep_row(t, &key, &val);
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
