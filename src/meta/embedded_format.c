/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The store's format: its tables, and making one of an older format one of this.  That
 * is one transaction, and there is no way back: an older build refuses the store then.
 *
 *	1	tree, intents, garbage
 *	2	what is beside the tree (records.h); rows with content
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "meta/embedded_priv.h"

#define FORMAT_FIRST 1u

static const char key_format[] = "format", key_next[] = "next directory", key_tally[] = "tally";

static int put_number(MDB_txn *txn, MDB_dbi dbi, const char *name, uint64_t n)
{
	unsigned char buf[8];
	MDB_val key = db_val(name, strlen(name)), val = db_val(buf, sizeof(buf));

	meta_put_be64(buf, n);
	return mdb_put(txn, dbi, &key, &val, 0);
}

static int get_number(MDB_txn *txn, MDB_dbi dbi, const char *name, uint64_t *n)
{
	MDB_val key = db_val(name, strlen(name)), val;
	int rc = mdb_get(txn, dbi, &key, &val);

	if (rc == 0 && val.mv_size != 8)
		rc = MDB_CORRUPTED;
	if (rc == 0)
		*n = meta_get_be64(val.mv_data);
	return rc;
}

int db_write_next(struct db *db, MDB_txn *txn)
{
	return put_number(txn, db->meta, key_next, db->next_dir);
}

int db_write_tally(struct db *db, MDB_txn *txn, const struct meta_tally *ta)
{
	unsigned char buf[META_TALLY_SIZE];
	MDB_val key = db_val(key_tally, strlen(key_tally)), val = db_val(buf, sizeof(buf));

	meta_tally_encode(ta, buf);
	return mdb_put(txn, db->meta, &key, &val, 0);
}

/* None: nothing has ever been counted. */
static int read_tally(struct db *db, MDB_txn *txn)
{
	MDB_val key = db_val(key_tally, strlen(key_tally)), val;
	int rc = mdb_get(txn, db->meta, &key, &val);

	memset(&db->tally, 0, sizeof(db->tally));
	if (rc == MDB_NOTFOUND)
		return 0;
	if (rc == 0 && meta_tally_decode(&db->tally, val.mv_data, val.mv_size) != 0)
		rc = MDB_CORRUPTED;
	return rc;
}

/* --- Tables */

static int open_first(struct db *db, MDB_txn *txn, unsigned flags)
{
	int rc;

	if ((rc = mdb_dbi_open(txn, "meta", flags, &db->meta)) == 0 &&
	    (rc = mdb_dbi_open(txn, "tree", flags, &db->tree)) == 0 &&
	    (rc = mdb_dbi_open(txn, "intents", flags, &db->intents)) == 0)
		rc = mdb_dbi_open(txn, "garbage", flags, &db->garbage);
	return rc;
}

static int open_second(struct db *db, MDB_txn *txn, unsigned flags)
{
	int rc;

	if ((rc = mdb_dbi_open(txn, "parents", flags, &db->parents)) == 0 &&
	    (rc = mdb_dbi_open(txn, "content", flags, &db->content)) == 0 &&
	    (rc = mdb_dbi_open(txn, "queue", flags, &db->queue)) == 0 &&
	    (rc = mdb_dbi_open(txn, "blobs", flags, &db->blobs)) == 0)
		rc = mdb_dbi_open(txn, "settings", flags, &db->settings);
	return rc;
}

int db_format_new(struct db *db, MDB_txn *txn)
{
	int rc = open_first(db, txn, MDB_CREATE);

	if (rc == 0)
		rc = open_second(db, txn, MDB_CREATE);
	if (rc == 0)
		rc = put_number(txn, db->meta, key_format, DB_FORMAT);
	if (rc == 0)
		rc = put_number(txn, db->meta, key_next, META_DIR_FIRST);
	return rc;
}

/* --- From the first to the second */

/* What is beside the rows, for all that are there.  (Those that lie in the garbage, too;
 * the deleted directory itself has no row any more, so the way up ends there.) */
static int fill(struct db_txn *t)
{
	MDB_cursor *cur;
	MDB_val key, val;
	int rc = mdb_cursor_open(t->txn, t->db->tree, &cur), err = 0;

	if (rc != 0)
		return db_err(rc);
	rc = mdb_cursor_get(cur, &key, &val, MDB_FIRST);
	while (rc == 0 && err == 0) {
		struct meta_row row;

		/* One that cannot be read fails when it is asked for. */
		if (key.mv_size >= 8 && db_row_decode(t, &key, &val, &row) == 0)
			err = db_index(t, &key, NULL, &row);
		if (err == 0)
			rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT);
	}
	mdb_cursor_close(cur);
	return err != 0 || rc == MDB_NOTFOUND ? err : db_err(rc);
}

static int upgrade_rows(struct db *db)
{
	struct errtext rows = { "" };
	struct db_txn t = { .db = db, .et = &rows, .path = "" };
	int err = db_err(mdb_txn_begin(db->env, NULL, 0, &t.txn));

	if (err != 0)
		return err;
	err = db_err(open_first(db, t.txn, 0));
	if (err == 0)
		err = db_err(open_second(db, t.txn, MDB_CREATE));
	if (err == 0)
		err = fill(&t);
	if (err == 0)
		err = db_err(put_number(t.txn, db->meta, key_format, DB_FORMAT));
	if (err == 0 && !epoch_mine(db->epoch))
		err = -ESTALE;
	if (err != 0)
		mdb_txn_abort(t.txn);
	else
		err = db_err(mdb_txn_commit(t.txn));
	return err;
}

static int upgrade_once(struct db *db)
{
	int err;

	db->lost = true; /* unless it comes to its end */
	err = upgrade_rows(db);
	db->lost = false;
	return err;
}

/* Its limit must not stop a store from being opened, so the map grows beyond. */
static int upgrade(struct db *db, const char *path, struct errtext *et)
{
	uint64_t map = db->map;
	int err;

	while ((err = upgrade_once(db)) == -EFBIG) {
		map *= 2;
		err = db_err(mdb_env_set_mapsize(db->env, map));
		if (err != 0)
			break;
	}
	if (map != db->map && err == 0)
		err = db_err(mdb_env_set_mapsize(db->env, db->map));
	if (err != 0)
		return errtext_set(et, err, "metadata store %s: upgrade to format %u: %s", path,
		    DB_FORMAT, strerror(-err));
	log_info("metadata store %s: upgraded to format %u", path, DB_FORMAT);
	return 0;
}

/* --- Opening */

static int damaged(struct errtext *et, const char *path, int rc)
{
	int err = db_err(rc);

	return errtext_set(et, err == -ENOENT ? -EIO : err,
	    "metadata store %s: damaged, or not a metadata store: %s", path, mdb_strerror(rc));
}

static int read_format(struct db *db, uint64_t *format)
{
	MDB_dbi meta;
	int rc = mdb_txn_begin(db->env, NULL, MDB_RDONLY, &db->opening);

	if (rc != 0)
		return rc;
	rc = mdb_dbi_open(db->opening, "meta", 0, &meta);
	if (rc == 0)
		rc = get_number(db->opening, meta, key_format, format);
	mdb_txn_abort(db->opening);
	db->opening = NULL;
	return rc;
}

static int read_all(struct db *db)
{
	MDB_txn *txn;
	MDB_stat st;
	int rc = mdb_txn_begin(db->env, NULL, MDB_RDONLY, &db->opening);

	if (rc != 0)
		return rc;
	txn = db->opening;
	rc = open_first(db, txn, 0);
	if (rc == 0)
		rc = open_second(db, txn, 0);
	if (rc == 0)
		rc = get_number(txn, db->meta, key_next, &db->next_dir);
	if (rc == 0)
		rc = read_tally(db, txn);
	if (rc == 0)
		rc = mdb_stat(txn, db->garbage, &st);
	db->opening = NULL;
	if (rc != 0) {
		mdb_txn_abort(txn);
		return rc;
	}
	db->next_written = db->next_dir;
	db->garbage_left = st.ms_entries > 0;
	/* Keeps the tables' handles. */
	return mdb_txn_commit(txn);
}

int db_format_open(struct db *db, const char *path, struct errtext *et)
{
	uint64_t format = 0;
	MDB_envinfo info;
	int rc = read_format(db, &format), err = 0;

	if (rc != 0)
		return damaged(et, path, rc);
	if (format < FORMAT_FIRST || format > DB_FORMAT)
		return errtext_set(et, -EPROTO,
		    "metadata store %s: is of format %llu, this build knows format %u: use the "
		    "batonfs that wrote it",
		    path, (unsigned long long)format, DB_FORMAT);
	if (format < DB_FORMAT)
		err = upgrade(db, path, et);
	if (err != 0)
		return err;
	rc = read_all(db);
	if (rc != 0)
		return damaged(et, path, rc);
	mdb_env_info(db->env, &info);
	db->map = db->map_opened = info.me_mapsize;
	return 0;
}
