/* SPDX-License-Identifier: BSD-2-Clause */
/* Rows and the way to them, for readers and the writer alike. */
#include <errno.h>
#include <string.h>

#include "meta/embedded_priv.h"

int db_err(int rc)
{
	if (rc == 0)
		return 0;
	if (rc > 0) /* an errno */
		return rc == EDQUOT ? -ENOSPC : -rc;
	switch (rc) {
	case MDB_NOTFOUND:
		return -ENOENT;
	case MDB_MAP_FULL:
		return -EFBIG;
	case MDB_TXN_FULL:
		return -E2BIG;
	default:
		return -EIO;
	}
}

static int failed(struct db_txn *t, int rc)
{
	int err = db_err(rc);

	if (rc < 0 && err == -EIO)
		errtext_set(t->et, err, "metadata store %s: record of '%s': %s", t->db->dir,
		    t->path, mdb_strerror(rc));
	return err;
}

int db_row_decode(struct db_txn *t, const MDB_val *key, const MDB_val *val, struct meta_row *row)
{
	int err = meta_row_decode(row, val->mv_data, val->mv_size);
	const char *name = (const char *)key->mv_data + 8;
	int len = (int)key->mv_size - 8;

	if (err == 0)
		return 0;
	if (err == -EPROTO)
		errtext_set(t->et, err,
		    "metadata store %s: record of '%.*s' (for '%s') is of version %u, which this "
		    "build does not know: use the batonfs that wrote it",
		    t->db->dir, len, name, t->path, *(const unsigned char *)val->mv_data);
	else
		errtext_set(t->et, err, "metadata store %s: record of '%.*s' (for '%s') is damaged",
		    t->db->dir, len, name, t->path);
	return -EIO;
}

int db_row_get(struct db_txn *t, const struct db_step *at, struct meta_row *row)
{
	unsigned char buf[META_KEY_MAX];
	MDB_val key = db_val(buf, meta_key_encode(buf, at->dir, at->name, at->len)), val;
	int rc = mdb_get(t->txn, t->db->tree, &key, &val);

	return rc != 0 ? failed(t, rc) : db_row_decode(t, &key, &val, row);
}

static int tree_put(struct db_txn *t, MDB_val *key, const struct meta_row *row)
{
	unsigned char buf[META_ROW_MAX];
	MDB_val val = db_val(buf, meta_row_encode(row, buf));

	t->wrote = true;
	return failed(t, mdb_put(t->txn, t->db->tree, key, &val, 0));
}

int db_row_put(struct db_txn *t, const struct db_step *at, const struct meta_row *was,
    const struct meta_row *row)
{
	unsigned char buf[META_KEY_MAX];
	MDB_val key = db_val(buf, meta_key_encode(buf, at->dir, at->name, at->len));
	int err = db_index(t, &key, was, row);

	return err != 0 ? err : tree_put(t, &key, row);
}

int db_row_del(struct db_txn *t, const struct db_step *at, const struct meta_row *was)
{
	unsigned char buf[META_KEY_MAX];
	MDB_val key = db_val(buf, meta_key_encode(buf, at->dir, at->name, at->len));
	int err = db_index(t, &key, was, NULL);

	if (err != 0)
		return err;
	t->wrote = true;
	return failed(t, mdb_del(t->txn, t->db->tree, &key, NULL));
}

int db_row_move(struct db_txn *t, const struct db_step *from, const struct db_step *to,
    const struct meta_row *row)
{
	unsigned char fbuf[META_KEY_MAX], tbuf[META_KEY_MAX];
	MDB_val old = db_val(fbuf, meta_key_encode(fbuf, from->dir, from->name, from->len));
	MDB_val key = db_val(tbuf, meta_key_encode(tbuf, to->dir, to->name, to->len));
	int err = db_index_move(t, &key, row);

	if (err == 0)
		err = tree_put(t, &key, row);
	return err != 0 ? err : failed(t, mdb_del(t->txn, t->db->tree, &old, NULL));
}

int db_dir_empty(struct db_txn *t, uint64_t dir)
{
	unsigned char buf[8];
	MDB_val key = db_val(buf, sizeof(buf)), val;
	MDB_cursor *cur;
	int rc;
	bool none;

	meta_put_be64(buf, dir);
	rc = mdb_cursor_open(t->txn, t->db->tree, &cur);
	if (rc != 0)
		return failed(t, rc);
	rc = mdb_cursor_get(cur, &key, &val, MDB_SET_RANGE);
	none = rc == MDB_NOTFOUND ||
	       (rc == 0 && (key.mv_size < 8 || meta_get_be64(key.mv_data) != dir));
	mdb_cursor_close(cur);
	return rc != 0 && rc != MDB_NOTFOUND ? failed(t, rc) : none;
}

/* The id of the directory that a step of the way leads into. */
static int enter(struct db_txn *t, const struct db_step *at, bool make, uint64_t *dir)
{
	struct meta_row was, row = { .rec.kind = META_PASS };
	int err = db_row_get(t, at, &was);
	bool had = err == 0;

	if (err == -ENOENT && make)
		err = 0;
	if (err != 0)
		return err;
	if (had)
		row = was;
	if (row.rec.kind == META_FILE)
		return -ENOTDIR;
	if (row.dir == META_DIR_NONE) {
		if (!make)
			return -ENOENT;
		row.dir = t->db->next_dir++;
		err = db_row_put(t, at, had ? &was : NULL, &row);
	}
	*dir = row.dir;
	return err;
}

int db_walk(struct db_txn *t, const char *path, bool make, struct db_way *way)
{
	struct db_step *at = &way->step[0];
	int err;

	t->path = path;
	*at = (struct db_step){ .dir = META_DIR_NONE, .name = path, .len = 0 };
	way->n = 1;
	if (*path == '\0')
		return 0;
	at->dir = META_DIR_TOP;
	for (;;) {
		uint64_t dir;

		at->name = path;
		at->len = strcspn(path, "/");
		if (path[at->len] == '\0')
			return 0;
		err = enter(t, at, make, &dir);
		if (err != 0)
			return err;
		path += at->len + 1;
		at = &way->step[way->n++];
		at->dir = dir;
	}
}
