/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is kept beside the rows (records.h), changed with each of them in the same
 * transaction: parents, content, queue, blobs, tally.
 */
#include <errno.h>
#include <string.h>

#include "meta/embedded_priv.h"

static int damaged(struct db_txn *t, int rc)
{
	int err = db_err(rc);

	if (rc < 0 && err == -EIO)
		errtext_set(t->et, err, "metadata store %s: beside the record of '%s': %s",
		    t->db->dir, t->path, mdb_strerror(rc));
	return err;
}

static int put(struct db_txn *t, MDB_dbi dbi, MDB_val key, MDB_val val)
{
	t->wrote = true;
	return damaged(t, mdb_put(t->txn, dbi, &key, &val, 0));
}

static int del(struct db_txn *t, MDB_dbi dbi, MDB_val key)
{
	int rc = mdb_del(t->txn, dbi, &key, NULL);

	t->wrote = true;
	return rc == MDB_NOTFOUND ? 0 : damaged(t, rc);
}

static int put_id(struct db_txn *t, MDB_dbi dbi, uint64_t id, const MDB_val *val)
{
	unsigned char buf[8];

	meta_put_be64(buf, id);
	return put(t, dbi, db_val(buf, sizeof(buf)), *val);
}

static int del_id(struct db_txn *t, MDB_dbi dbi, uint64_t id)
{
	unsigned char buf[8];

	meta_put_be64(buf, id);
	return del(t, dbi, db_val(buf, sizeof(buf)));
}

/* A row's key that an id stands for. */
static int key_of(struct db_txn *t, MDB_dbi dbi, uint64_t id, unsigned char buf[META_KEY_MAX])
{
	unsigned char ibuf[8];
	MDB_val key = db_val(ibuf, sizeof(ibuf)), val;
	int rc;

	meta_put_be64(ibuf, id);
	rc = mdb_get(t->txn, dbi, &key, &val);
	if (rc == 0 && (val.mv_size < 8 || val.mv_size > META_KEY_MAX))
		rc = MDB_CORRUPTED;
	if (rc != 0)
		return damaged(t, rc);
	memcpy(buf, val.mv_data, val.mv_size);
	return (int)val.mv_size;
}

int db_parent(struct db_txn *t, uint64_t dir, unsigned char buf[META_KEY_MAX])
{
	return key_of(t, t->db->parents, dir, buf);
}

/* --- Writing */

static int index_dir(struct db_txn *t, const MDB_val *key, uint64_t was, uint64_t dir)
{
	int err = 0;

	if (was == dir)
		return 0;
	if (was != META_DIR_NONE)
		err = del_id(t, t->db->parents, was);
	if (err == 0 && dir != META_DIR_NONE)
		err = put_id(t, t->db->parents, dir, key);
	return err;
}

static int index_queue(
    struct db_txn *t, const struct meta_content *was, const struct meta_content *ct)
{
	unsigned char old[META_QUEUE_KEY], new[META_QUEUE_KEY];
	bool in = was != NULL && meta_content_queued(was);
	bool wants = ct != NULL && meta_content_queued(ct);
	int err = 0;

	if (in)
		meta_queue_key(old, was);
	if (wants)
		meta_queue_key(new, ct);
	if (in && wants && memcmp(old, new, sizeof(old)) == 0)
		return 0;
	if (in)
		err = del(t, t->db->queue, db_val(old, sizeof(old)));
	if (err == 0 && wants)
		err = put(t, t->db->queue, db_val(new, sizeof(new)), db_val("", 0));
	return err;
}

/* Another row may have had the content when its directory was deleted, and wait in the
 * garbage: it waits no longer. */
static int take_content(struct db_txn *t, const MDB_val *key, uint64_t id)
{
	unsigned char buf[META_KEY_MAX];
	char pbuf[DB_PATH_SIZE];
	struct meta_row other;
	struct db_step at;
	const char *path;
	MDB_val holder;
	int err = db_content_find(t, id, buf, &holder, &other);

	if (err != 0)
		return err == -ENOENT ? 0 : err;
	if (holder.mv_size == key->mv_size && memcmp(buf, key->mv_data, key->mv_size) == 0)
		return 0;
	err = db_path_of(t, &holder, pbuf, &path);
	if (err != -ENOENT)
		return err != 0 ? err : -EEXIST;
	at = (struct db_step){ .dir = meta_get_be64(buf),
		.name = (const char *)buf + 8,
		.len = holder.mv_size - 8 };
	return db_row_del(t, &at, &other);
}

static int index_content(struct db_txn *t, const MDB_val *key, const struct meta_content *was,
    const struct meta_content *ct)
{
	bool same = was != NULL && ct != NULL && was->id == ct->id;
	int err = 0;

	if (ct != NULL && !same)
		err = take_content(t, key, ct->id);
	if (err == 0 && was != NULL && !same)
		err = del_id(t, t->db->content, was->id);
	if (err == 0 && ct != NULL && !same)
		err = put_id(t, t->db->content, ct->id, key);
	if (err == 0)
		err = index_queue(t, was, ct);
	if (err == 0 && was != NULL &&
	    (!same || ct->state == META_STATE_PERSISTED || ct->size != was->size))
		err = del_id(t, t->db->blobs, was->id);
	if (err != 0)
		return err;
	if (was != NULL)
		meta_tally_sub(&t->tally, was);
	if (ct != NULL)
		meta_tally_add(&t->tally, ct);
	return 0;
}

int db_index(struct db_txn *t, const MDB_val *key, const struct meta_row *was,
    const struct meta_row *row)
{
	const struct meta_content *old = was != NULL ? meta_content_of(&was->rec) : NULL;
	const struct meta_content *ct = row != NULL ? meta_content_of(&row->rec) : NULL;
	int err = index_dir(t, key, was != NULL ? was->dir : META_DIR_NONE,
	    row != NULL ? row->dir : META_DIR_NONE);

	return err != 0 || (old == NULL && ct == NULL) ? err : index_content(t, key, old, ct);
}

int db_index_move(struct db_txn *t, const MDB_val *key, const struct meta_row *row)
{
	const struct meta_content *ct = meta_content_of(&row->rec);
	int err = 0;

	if (row->dir != META_DIR_NONE)
		err = put_id(t, t->db->parents, row->dir, key);
	if (err == 0 && ct != NULL)
		err = put_id(t, t->db->content, ct->id, key);
	return err;
}

/* --- Reading */

int db_path_of(struct db_txn *t, const MDB_val *key, char buf[DB_PATH_SIZE], const char **path)
{
	unsigned char at[META_KEY_MAX];
	size_t len = key->mv_size, room = DB_PATH_SIZE - 1;

	memcpy(at, key->mv_data, len);
	buf[room] = '\0';
	for (;;) {
		uint64_t dir = meta_get_be64(at);
		int n;

		/* So long that it goes in circles, or might as well. */
		if (room < len - 8 + 1)
			return errtext_set(t->et, -EIO,
			    "metadata store %s: damaged: the way from '%.100s' up does not end",
			    t->db->dir, buf + room);
		room -= len - 8;
		memcpy(buf + room, at + 8, len - 8);
		if (dir == META_DIR_TOP)
			break;
		buf[--room] = '/';
		n = db_parent(t, dir, at);
		if (n < 0)
			return n;
		len = (size_t)n;
	}
	*path = buf + room;
	return 0;
}

int db_content_find(struct db_txn *t, uint64_t id, unsigned char buf[META_KEY_MAX],
    MDB_val *key, struct meta_row *row)
{
	int len = key_of(t, t->db->content, id, buf), rc, err;
	const struct meta_content *ct;
	MDB_val val;

	if (len < 0)
		return len;
	*key = db_val(buf, (size_t)len);
	rc = mdb_get(t->txn, t->db->tree, key, &val);
	err = rc == MDB_NOTFOUND ? 0 : damaged(t, rc);
	if (rc == 0)
		err = db_row_decode(t, key, &val, row);
	if (err != 0)
		return err;
	ct = rc == 0 ? meta_content_of(&row->rec) : NULL;
	if (ct == NULL || ct->id != id)
		return errtext_set(t->et, -EIO,
		    "metadata store %s: damaged: the record of '%.*s' has not content %016llx",
		    t->db->dir, len - 8, (const char *)buf + 8, (unsigned long long)id);
	return 0;
}

int db_blob(struct db_txn *t, MDB_dbi dbi, uint64_t id, unsigned version, size_t head,
    MDB_val *val)
{
	unsigned char buf[8];
	MDB_val key = db_val(buf, sizeof(buf));
	unsigned is;
	int rc;

	meta_put_be64(buf, id);
	rc = mdb_get(t->txn, dbi, &key, val);
	if (rc != 0)
		return damaged(t, rc);
	is = val->mv_size > 0 ? *(const unsigned char *)val->mv_data : version;
	if (is != version)
		return errtext_set(t->et, -EIO,
		    "metadata store %s: %016llx is of version %u, which this build does not know: "
		    "use the batonfs that wrote it",
		    t->db->dir, (unsigned long long)id, is);
	if (val->mv_size < head)
		return errtext_set(t->et, -EIO, "metadata store %s: %016llx is damaged", t->db->dir,
		    (unsigned long long)id);
	return 0;
}
