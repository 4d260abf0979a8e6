/* SPDX-License-Identifier: BSD-2-Clause */
#include "cache/index_priv.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/units.h"
#include "cache/index_tail.h"

#define INDEX_FILE "index.mdb"
#define INDEX_BROKEN "index.broken"
/* Exists while an index is being opened: found at start, the index killed us. */
#define INDEX_OPENING "index.opening"

#define INDEX_FORMAT 2u

/* Of the store, in 8ths, that reused blobs may be. */
#define REUSED_SHARE 6
/* In a key of the lru table: behind all that were used once. */
#define REUSED_BIT (UINT64_C(1) << 63)

static const char meta_name[] = "state";

/* --- Opening */

/* The map is read through memory: a file shorter than its own meta page says
 * would be a SIGBUS later. */
static int check_length(struct index *ix, const char *path)
{
	MDB_envinfo info;
	MDB_stat st;
	struct stat file;

	mdb_env_info(ix->env, &info);
	mdb_env_stat(ix->env, &st);
	if (stat(path, &file) != 0)
		return -errno;
	if (info.me_last_txnid > 0 &&
	    (uint64_t)file.st_size < (info.me_last_pgno + 1) * (uint64_t)st.ms_psize)
		return -EIO;
	return 0;
}

static int open_tables(struct index *ix, MDB_txn *txn, uint32_t page_size, unsigned flags)
{
	struct meta_row row = {.format = INDEX_FORMAT, .page_size = page_size};
	MDB_val k = index_val(meta_name, sizeof(meta_name)), v;
	int rc;

	if ((rc = mdb_dbi_open(txn, "meta", flags, &ix->meta)) != 0 ||
	    (rc = mdb_dbi_open(txn, "blob", flags, &ix->blob)) != 0 ||
	    (rc = mdb_dbi_open(txn, "page", flags, &ix->page)) != 0 ||
	    (rc = mdb_dbi_open(txn, "lru", flags, &ix->lru)) != 0)
		return index_err(rc);
	rc = mdb_get(txn, ix->meta, &k, &v);
	if (rc == MDB_NOTFOUND) {
		v = index_val(&row, sizeof(row));
		return index_err(mdb_put(txn, ix->meta, &k, &v, 0));
	}
	if (rc != 0)
		return index_err(rc);
	if (v.mv_size != sizeof(row))
		return -EPROTO;
	memcpy(&row, v.mv_data, sizeof(row));
	if (row.format != INDEX_FORMAT || row.page_size != page_size)
		return -EPROTO;
	ix->used = row.used;
	ix->reused = row.reused;
	return 0;
}

struct open_call {
	const char *path;
	uint64_t capacity;
	uint32_t page_size;
};

static int open_guarded(struct index *ix, void *arg)
{
	const struct open_call *oc = arg;
	const char *path = oc->path;
	uint64_t capacity = oc->capacity;
	uint32_t page_size = oc->page_size;
	/* Sums are a 1024th of the data; the rest is room for rows of small files. */
	uint64_t map = capacity / 16 + GIB;
	MDB_txn *txn = NULL;
	struct stat st;
	bool fresh = stat(path, &st) != 0 || st.st_size == 0;
	int rc, err;

	rc = mdb_env_create(&ix->env);
	if (rc != 0)
		return index_err(rc);
	mdb_env_set_maxdbs(ix->env, 4);
	mdb_env_set_mapsize(ix->env, map);
	rc = mdb_env_open(ix->env, path, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOTLS | MDB_NORDAHEAD,
	    0600);
	if (rc != 0)
		return index_err(rc);
	err = check_length(ix, path);
	if (err != 0)
		return err;
	/* An existing database is opened without a write, which would be synced. */
	ix->writing = true;
	rc = mdb_txn_begin(ix->env, NULL, fresh ? 0 : MDB_RDONLY, &txn);
	if (rc != 0)
		return index_err(rc);
	err = open_tables(ix, txn, page_size, fresh ? MDB_CREATE : 0);
	if (err != 0)
		mdb_txn_abort(txn);
	else
		err = index_err(mdb_txn_commit(txn));
	ix->writing = false;
	return err;
}

static int try_open(struct index *ix, const char *path, uint64_t capacity, uint32_t page_size)
{
	struct open_call oc = {path, capacity, page_size};

	return index_guard(ix, open_guarded, &oc);
}

/* Errors that tell of the disk and not of the database. */
static bool disk_trouble(int err)
{
	return err == -ENOSPC || err == -EROFS || err == -EACCES || err == -ENOMEM ||
	       err == -EDQUOT || err == -EMFILE || err == -ENFILE;
}

static int mark_opening(int dir_fd)
{
	int fd = openat(dir_fd, INDEX_OPENING, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

int index_open(struct index **out, const char *dir, int dir_fd, uint64_t capacity,
    uint32_t page_size, const struct epoch *ep, struct errtext *why, struct errtext *et)
{
	struct index *ix;
	char path[4096];
	int err;

	why->s[0] = '\0';
	if (!epoch_mine(ep))
		return -ESTALE;
	if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, INDEX_FILE) >= sizeof(path))
		return errtext_set(et, -ENAMETOOLONG, "page store %s: name too long", dir);
	ALLOC_OBJ(ix, INDEX_MAGIC);
	if (ix == NULL)
		return -ENOMEM;
	ix->ep = ep;
	ix->capacity = capacity;
	err = mark_opening(dir_fd);
	if (err == -EEXIST) {
		errtext_set(why, 0, "a daemon died while it opened %s", path);
	} else if (err == 0) {
		err = try_open(ix, path, capacity, page_size);
		if (err != 0 && !disk_trouble(err))
			errtext_set(why, 0, "%s: %s", path,
			    err == -EPROTO ? "another format or page size" : strerror(-err));
	}
	if (why->s[0] != '\0') {
		index_close_env(ix);
		if (renameat(dir_fd, INDEX_FILE, dir_fd, INDEX_BROKEN) != 0 && errno != ENOENT)
			err = -errno;
		else
			err = try_open(ix, path, capacity, page_size);
	}
	if (err == 0)
		index_tail_take(ix, dir_fd);
	if (err == 0 && ix->broken)
		err = -EIO;
	unlinkat(dir_fd, INDEX_OPENING, 0);
	if (err != 0) {
		errtext_set(et, err, "page store %s: open index: %s", dir, strerror(-err));
		index_close(&ix);
		return err;
	}
	*out = ix;
	return 0;
}

void index_close(struct index **ixp)
{
	struct index *ix;

	if (*ixp == NULL)
		return;
	TAKE_OBJ(ix, ixp, INDEX_MAGIC);
	index_close_env(ix);
	FREE_OBJ(ix);
}

bool index_broken(const struct index *ix)
{
	return ix->broken;
}

int index_set_aside(int dir_fd)
{
	return renameat(dir_fd, INDEX_FILE, dir_fd, INDEX_BROKEN) != 0 ? -errno : 0;
}

uint64_t index_used(const struct index *ix)
{
	return ix->used;
}

/* --- Writing */

static int row_put(struct index_txn *ap, const struct index_key *key, const struct blob_row *row)
{
	MDB_val k = index_val(key->hash, INDEX_HASH), v = index_val(NULL, sizeof(*row) + key->text_len);
	int rc = mdb_put(ap->txn, ap->ix->blob, &k, &v, MDB_RESERVE);

	if (rc != 0)
		return index_err(rc);
	memcpy(v.mv_data, row, sizeof(*row));
	memcpy((char *)v.mv_data + sizeof(*row), key->text, key->text_len);
	return 0;
}

/* Its place in the lru table. */
static uint64_t row_stamp(const struct blob_row *row)
{
	return row->last_use | (row->reused ? REUSED_BIT : 0);
}

static void row_grow(struct index_txn *ap, struct blob_row *row, uint32_t bytes)
{
	row->bytes += bytes;
	ap->used += bytes;
	ap->reused += row->reused ? bytes : 0;
}

static void row_shrink(struct index_txn *ap, struct blob_row *row, uint64_t bytes)
{
	bytes = MIN(row->bytes, bytes);
	row->bytes -= bytes;
	ap->used -= MIN(ap->used, bytes);
	ap->reused -= row->reused ? MIN(ap->reused, bytes) : 0;
}

static int lru_set(struct index_txn *ap, const unsigned char *hash, uint64_t was, uint64_t now)
{
	struct lru_key lk;
	MDB_val k, v = index_val("", 0);
	int rc = 0;

	if (was != 0) {
		lk = index_lru_key(hash, was);
		k = index_val(&lk, sizeof(lk));
		rc = mdb_del(ap->txn, ap->ix->lru, &k, NULL);
		if (rc != 0 && rc != MDB_NOTFOUND)
			return index_err(rc);
	}
	if (now == 0)
		return 0;
	lk = index_lru_key(hash, now);
	k = index_val(&lk, sizeof(lk));
	return index_err(mdb_put(ap->txn, ap->ix->lru, &k, &v, 0));
}

static int put_page(struct index_txn *ap, const struct index_op *op)
{
	struct page_key pk = index_page_key(op->key.hash, op->page);
	MDB_val k = index_val(&pk, sizeof(pk)), v = index_val(op->crc, op->ncrc * sizeof(uint32_t)), rv;
	struct blob_row row;
	int err, rc;

	err = index_row_get(ap, op->key.hash, &row, &rv);
	if (err == -ENOENT) {
		memset(&row, 0, sizeof(row));
		row.version = 1;
		row.size = op->key.size;
		row.last_use = MAX(op->when, 1);
		err = lru_set(ap, op->key.hash, 0, row_stamp(&row));
	} else if (err == 0 && !index_row_is(&rv, &op->key)) {
		return 0; /* another file of the same hash is there: it stays */
	}
	if (err != 0)
		return err;
	rc = mdb_put(ap->txn, ap->ix->page, &k, &v, MDB_NOOVERWRITE);
	if (rc == MDB_KEYEXIST) {
		v = index_val(op->crc, op->ncrc * sizeof(uint32_t));
		rc = mdb_put(ap->txn, ap->ix->page, &k, &v, 0);
	} else if (rc == 0) {
		row_grow(ap, &row, op->bytes);
	}
	return rc != 0 ? index_err(rc) : row_put(ap, &op->key, &row);
}

static int del_page(struct index_txn *ap, const struct index_op *op)
{
	struct page_key pk = index_page_key(op->key.hash, op->page);
	MDB_val k = index_val(&pk, sizeof(pk)), rv;
	struct blob_row row;
	int err, rc;

	err = index_row_get(ap, op->key.hash, &row, &rv);
	if (err != 0 || !index_row_is(&rv, &op->key))
		return err == -ENOENT ? 0 : err;
	rc = mdb_del(ap->txn, ap->ix->page, &k, NULL);
	if (rc != 0)
		return rc == MDB_NOTFOUND ? 0 : index_err(rc);
	row_shrink(ap, &row, op->bytes);
	return row_put(ap, &op->key, &row);
}

static int del_pages(struct index_txn *ap, const unsigned char *hash)
{
	struct page_key pk = index_page_key(hash, 0);
	MDB_val k = index_val(&pk, sizeof(pk)), v;
	MDB_cursor *cur;
	int rc;

	rc = mdb_cursor_open(ap->txn, ap->ix->page, &cur);
	if (rc != 0)
		return index_err(rc);
	for (rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
	    rc == 0 && k.mv_size == sizeof(pk) && memcmp(k.mv_data, hash, INDEX_HASH) == 0;
	    rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
		rc = mdb_cursor_del(cur, 0);
		if (rc != 0)
			break;
	}
	mdb_cursor_close(cur);
	return rc == MDB_NOTFOUND ? 0 : index_err(rc);
}

static int del_blob(struct index_txn *ap, struct index_op *op)
{
	MDB_val k = index_val(op->key.hash, INDEX_HASH), rv;
	struct blob_row row;
	int err;

	op->freed = 0;
	err = index_row_get(ap, op->key.hash, &row, &rv);
	if (err != 0)
		return err == -ENOENT ? 0 : err;
	if ((err = lru_set(ap, op->key.hash, row_stamp(&row), 0)) != 0 ||
	    (err = del_pages(ap, op->key.hash)) != 0)
		return err;
	op->freed = row.bytes;
	row_shrink(ap, &row, row.bytes);
	return index_err(mdb_del(ap->txn, ap->ix->blob, &k, NULL));
}

static int touch(struct index_txn *ap, const struct index_op *op)
{
	struct blob_row row;
	MDB_val rv;
	uint64_t was;
	int err;

	err = index_row_get(ap, op->key.hash, &row, &rv);
	if (err != 0 || !index_row_is(&rv, &op->key))
		return err == -ENOENT ? 0 : err;
	was = row_stamp(&row);
	row.last_use = MAX(op->when & ~REUSED_BIT, 1);
	if (op->verb == INDEX_REUSE && !row.reused) {
		row.reused = 1;
		ap->reused += row.bytes;
	}
	err = lru_set(ap, op->key.hash, was, row_stamp(&row));
	return err != 0 ? err : row_put(ap, &op->key, &row);
}

/* The longest unused of the reused blobs; -ENOENT: there is none. */
static int oldest_reused(struct index_txn *ap, unsigned char *hash)
{
	struct lru_key lk;
	MDB_val k, v;
	MDB_cursor *cur;
	int rc;

	memset(&lk, 0, sizeof(lk));
	index_put_be64(lk.when, REUSED_BIT);
	rc = mdb_cursor_open(ap->txn, ap->ix->lru, &cur);
	if (rc != 0)
		return index_err(rc);
	k = index_val(&lk, sizeof(lk));
	rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
	if (rc == 0 && k.mv_size == sizeof(lk))
		memcpy(hash, (const unsigned char *)k.mv_data + sizeof(lk.when), INDEX_HASH);
	else if (rc == 0)
		rc = MDB_CORRUPTED;
	mdb_cursor_close(cur);
	return index_err(rc);
}

/* A reused blob counts as used once from now on, and as used now. */
static int demote(struct index_txn *ap, const unsigned char *hash, uint64_t when)
{
	struct index_key key = {.text = NULL};
	struct blob_row row;
	unsigned char *text;
	MDB_val rv;
	int err;

	err = index_row_get(ap, hash, &row, &rv);
	if (err != 0)
		return err;
	key.text_len = (uint32_t)(rv.mv_size - sizeof(row));
	text = malloc(key.text_len + 1);
	if (text == NULL)
		return -ENOMEM;
	memcpy(text, (const unsigned char *)rv.mv_data + sizeof(row), key.text_len);
	memcpy(key.hash, hash, INDEX_HASH);
	key.text = text;
	err = lru_set(ap, hash, row_stamp(&row), 0);
	ap->reused -= MIN(ap->reused, row.bytes);
	row.reused = 0;
	row.last_use = MAX(row.last_use, when);
	if (err == 0)
		err = lru_set(ap, hash, 0, row_stamp(&row));
	if (err == 0)
		err = row_put(ap, &key, &row);
	free(text);
	return err;
}

/* What was reused long ago must not fill the store for ever. */
static int demote_many(struct index_txn *ap, uint64_t when)
{
	unsigned char hash[INDEX_HASH];
	int err = 0;

	while (err == 0 && ap->reused > ap->ix->capacity / 8 * REUSED_SHARE) {
		err = oldest_reused(ap, hash);
		if (err == 0)
			err = demote(ap, hash, when & ~REUSED_BIT);
	}
	if (err == -ENOENT) {
		ap->reused = 0;
		err = 0;
	}
	return err;
}

static int apply_one(struct index_txn *ap, struct index_op *op)
{
	switch (op->verb) {
	case INDEX_PUT_PAGE:
		return put_page(ap, op);
	case INDEX_DEL_PAGE:
		return del_page(ap, op);
	case INDEX_DEL_BLOB:
		return del_blob(ap, op);
	case INDEX_TOUCH:
	case INDEX_REUSE:
		return touch(ap, op);
	}
	return -EINVAL;
}

static int apply_guarded(struct index *ix, void *arg)
{
	const struct index_ops *ops = arg;
	struct index_txn ap = {.ix = ix, .used = ix->used, .reused = ix->reused};
	MDB_val k = index_val(meta_name, sizeof(meta_name)), v;
	struct meta_row row;
	struct index_op *op;
	uint64_t when = 1;
	int rc, err = 0;

	ix->writing = true;
	rc = mdb_txn_begin(ix->env, NULL, 0, &ap.txn);
	if (rc != 0) {
		/* After an error of the disk it says so to everybody. */
		ix->broken = rc == MDB_PANIC;
		ix->writing = false;
		return index_err(rc);
	}
	STAILQ_FOREACH(op, ops, link) {
		err = apply_one(&ap, op);
		if (err != 0)
			break;
		when = MAX(when, op->when);
	}
	if (err == 0)
		err = demote_many(&ap, when);
	rc = err != 0 ? 0 : mdb_get(ap.txn, ix->meta, &k, &v);
	if (err == 0 && (rc != 0 || v.mv_size != sizeof(row)))
		err = rc != 0 ? index_err(rc) : -EIO;
	if (err == 0) {
		memcpy(&row, v.mv_data, sizeof(row));
		row.used = ap.used;
		row.reused = ap.reused;
		v = index_val(&row, sizeof(row));
		err = index_err(mdb_put(ap.txn, ix->meta, &k, &v, 0));
	}
	if (err == 0 && !epoch_mine(ix->ep))
		err = -ESTALE;
	if (err != 0) {
		mdb_txn_abort(ap.txn);
		ix->writing = false;
		return err;
	}
	rc = mdb_txn_commit(ap.txn);
	if (rc == 0) {
		ix->used = ap.used;
		ix->reused = ap.reused;
	}
	ix->writing = false;
	return index_err(rc);
}

int index_apply(struct index *ix, const struct index_ops *ops)
{
	return index_guard(ix, apply_guarded, (void *)(uintptr_t)ops);
}
