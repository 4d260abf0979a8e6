/* SPDX-License-Identifier: BSD-2-Clause */
#include "cache/index.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/obj.h"
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

struct index {
	uint32_t magic;
#define INDEX_MAGIC 0xca1de000u
	MDB_env *env;
	MDB_dbi meta, blob, page, lru;
	uint64_t used, reused, capacity;
	const struct epoch *ep;
};

struct meta_row {
	uint32_t format, page_size;
	uint64_t used, reused; /* bytes; of those, in reused blobs */
};

struct blob_row {
	uint8_t version, reused, pad[6];
	uint64_t size, bytes, last_use;
	/* key text follows */
};

struct page_key {
	unsigned char hash[INDEX_HASH];
	unsigned char no[8]; /* big-endian, so that pages sort */
};

struct lru_key {
	unsigned char when[8];
	unsigned char hash[INDEX_HASH];
};

static const char meta_name[] = "state";

static void put_be64(unsigned char *to, uint64_t v)
{
	for (int i = 7; i >= 0; i--, v >>= 8)
		to[i] = (unsigned char)v;
}

static uint64_t get_be64(const unsigned char *from)
{
	uint64_t v = 0;

	for (int i = 0; i < 8; i++)
		v = v << 8 | from[i];
	return v;
}

static int from_mdb(int rc)
{
	int err = -rc;

	if (rc == 0)
		return 0;
	if (err < 0)
		return err;
	switch (rc) {
	case MDB_NOTFOUND:
		return -ENOENT;
	case MDB_MAP_FULL:
		return -ENOSPC;
	default:
		return -EIO;
	}
}

static MDB_val val(const void *data, size_t len)
{
	MDB_val v = {.mv_size = len, .mv_data = (void *)(uintptr_t)data};

	return v;
}

static struct page_key page_key(const unsigned char *hash, uint64_t no)
{
	struct page_key k;

	memcpy(k.hash, hash, INDEX_HASH);
	put_be64(k.no, no);
	return k;
}

static struct lru_key lru_key(const unsigned char *hash, uint64_t when)
{
	struct lru_key k;

	put_be64(k.when, when);
	memcpy(k.hash, hash, INDEX_HASH);
	return k;
}

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
	MDB_val k = val(meta_name, sizeof(meta_name)), v;
	int rc;

	if ((rc = mdb_dbi_open(txn, "meta", flags, &ix->meta)) != 0 ||
	    (rc = mdb_dbi_open(txn, "blob", flags, &ix->blob)) != 0 ||
	    (rc = mdb_dbi_open(txn, "page", flags, &ix->page)) != 0 ||
	    (rc = mdb_dbi_open(txn, "lru", flags, &ix->lru)) != 0)
		return from_mdb(rc);
	rc = mdb_get(txn, ix->meta, &k, &v);
	if (rc == MDB_NOTFOUND) {
		v = val(&row, sizeof(row));
		return from_mdb(mdb_put(txn, ix->meta, &k, &v, 0));
	}
	if (rc != 0)
		return from_mdb(rc);
	if (v.mv_size != sizeof(row))
		return -EPROTO;
	memcpy(&row, v.mv_data, sizeof(row));
	if (row.format != INDEX_FORMAT || row.page_size != page_size)
		return -EPROTO;
	ix->used = row.used;
	ix->reused = row.reused;
	return 0;
}

static int try_open(struct index *ix, const char *path, uint64_t capacity, uint32_t page_size)
{
	/* Sums are a 1024th of the data; the rest is room for rows of small files. */
	uint64_t map = capacity / 16 + GIB;
	MDB_txn *txn = NULL;
	struct stat st;
	bool fresh = stat(path, &st) != 0 || st.st_size == 0;
	int rc, err;

	rc = mdb_env_create(&ix->env);
	if (rc != 0)
		return from_mdb(rc);
	mdb_env_set_maxdbs(ix->env, 4);
	mdb_env_set_mapsize(ix->env, map);
	rc = mdb_env_open(ix->env, path, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOTLS | MDB_NORDAHEAD,
	    0600);
	if (rc != 0)
		return from_mdb(rc);
	err = check_length(ix, path);
	if (err != 0)
		return err;
	/* An existing database is opened without a write, which would be synced. */
	rc = mdb_txn_begin(ix->env, NULL, fresh ? 0 : MDB_RDONLY, &txn);
	if (rc != 0)
		return from_mdb(rc);
	err = open_tables(ix, txn, page_size, fresh ? MDB_CREATE : 0);
	if (err != 0) {
		mdb_txn_abort(txn);
		return err;
	}
	return from_mdb(mdb_txn_commit(txn));
}

static void close_env(struct index *ix)
{
	if (ix->env != NULL)
		mdb_env_close(ix->env);
	ix->env = NULL;
	ix->used = ix->reused = 0;
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
		close_env(ix);
		if (renameat(dir_fd, INDEX_FILE, dir_fd, INDEX_BROKEN) != 0 && errno != ENOENT)
			err = -errno;
		else
			err = try_open(ix, path, capacity, page_size);
	}
	if (err == 0)
		index_tail_take(ix, dir_fd);
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
	close_env(ix);
	FREE_OBJ(ix);
}

uint64_t index_used(const struct index *ix)
{
	return ix->used;
}

/* --- Writing */

struct apply {
	struct index *ix;
	MDB_txn *txn;
	uint64_t used, reused;
};

/* A copy of a blob's row without its text, or a negative errno. */
static int row_get(struct apply *ap, const unsigned char *hash, struct blob_row *row, MDB_val *v)
{
	MDB_val k = val(hash, INDEX_HASH);
	int rc = mdb_get(ap->txn, ap->ix->blob, &k, v);

	if (rc != 0)
		return from_mdb(rc);
	if (v->mv_size < sizeof(*row))
		return -EIO;
	memcpy(row, v->mv_data, sizeof(*row));
	return 0;
}

static bool row_is(const MDB_val *v, const struct index_key *key)
{
	return v->mv_size == sizeof(struct blob_row) + key->text_len &&
	       memcmp((const char *)v->mv_data + sizeof(struct blob_row), key->text,
		   key->text_len) == 0;
}

static int row_put(struct apply *ap, const struct index_key *key, const struct blob_row *row)
{
	MDB_val k = val(key->hash, INDEX_HASH), v = val(NULL, sizeof(*row) + key->text_len);
	int rc = mdb_put(ap->txn, ap->ix->blob, &k, &v, MDB_RESERVE);

	if (rc != 0)
		return from_mdb(rc);
	memcpy(v.mv_data, row, sizeof(*row));
	memcpy((char *)v.mv_data + sizeof(*row), key->text, key->text_len);
	return 0;
}

/* Its place in the lru table. */
static uint64_t row_stamp(const struct blob_row *row)
{
	return row->last_use | (row->reused ? REUSED_BIT : 0);
}

static void row_grow(struct apply *ap, struct blob_row *row, uint32_t bytes)
{
	row->bytes += bytes;
	ap->used += bytes;
	ap->reused += row->reused ? bytes : 0;
}

static void row_shrink(struct apply *ap, struct blob_row *row, uint64_t bytes)
{
	bytes = MIN(row->bytes, bytes);
	row->bytes -= bytes;
	ap->used -= MIN(ap->used, bytes);
	ap->reused -= row->reused ? MIN(ap->reused, bytes) : 0;
}

static int lru_set(struct apply *ap, const unsigned char *hash, uint64_t was, uint64_t now)
{
	struct lru_key lk;
	MDB_val k, v = val("", 0);
	int rc = 0;

	if (was != 0) {
		lk = lru_key(hash, was);
		k = val(&lk, sizeof(lk));
		rc = mdb_del(ap->txn, ap->ix->lru, &k, NULL);
		if (rc != 0 && rc != MDB_NOTFOUND)
			return from_mdb(rc);
	}
	if (now == 0)
		return 0;
	lk = lru_key(hash, now);
	k = val(&lk, sizeof(lk));
	return from_mdb(mdb_put(ap->txn, ap->ix->lru, &k, &v, 0));
}

static int put_page(struct apply *ap, const struct index_op *op)
{
	struct page_key pk = page_key(op->key.hash, op->page);
	MDB_val k = val(&pk, sizeof(pk)), v = val(op->crc, op->ncrc * sizeof(uint32_t)), rv;
	struct blob_row row;
	int err, rc;

	err = row_get(ap, op->key.hash, &row, &rv);
	if (err == -ENOENT) {
		memset(&row, 0, sizeof(row));
		row.version = 1;
		row.size = op->key.size;
		row.last_use = MAX(op->when, 1);
		err = lru_set(ap, op->key.hash, 0, row_stamp(&row));
	} else if (err == 0 && !row_is(&rv, &op->key)) {
		return 0; /* another file of the same hash is there: it stays */
	}
	if (err != 0)
		return err;
	rc = mdb_put(ap->txn, ap->ix->page, &k, &v, MDB_NOOVERWRITE);
	if (rc == MDB_KEYEXIST) {
		v = val(op->crc, op->ncrc * sizeof(uint32_t));
		rc = mdb_put(ap->txn, ap->ix->page, &k, &v, 0);
	} else if (rc == 0) {
		row_grow(ap, &row, op->bytes);
	}
	return rc != 0 ? from_mdb(rc) : row_put(ap, &op->key, &row);
}

static int del_page(struct apply *ap, const struct index_op *op)
{
	struct page_key pk = page_key(op->key.hash, op->page);
	MDB_val k = val(&pk, sizeof(pk)), rv;
	struct blob_row row;
	int err, rc;

	err = row_get(ap, op->key.hash, &row, &rv);
	if (err != 0 || !row_is(&rv, &op->key))
		return err == -ENOENT ? 0 : err;
	rc = mdb_del(ap->txn, ap->ix->page, &k, NULL);
	if (rc != 0)
		return rc == MDB_NOTFOUND ? 0 : from_mdb(rc);
	row_shrink(ap, &row, op->bytes);
	return row_put(ap, &op->key, &row);
}

static int del_pages(struct apply *ap, const unsigned char *hash)
{
	struct page_key pk = page_key(hash, 0);
	MDB_val k = val(&pk, sizeof(pk)), v;
	MDB_cursor *cur;
	int rc;

	rc = mdb_cursor_open(ap->txn, ap->ix->page, &cur);
	if (rc != 0)
		return from_mdb(rc);
	for (rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
	    rc == 0 && k.mv_size == sizeof(pk) && memcmp(k.mv_data, hash, INDEX_HASH) == 0;
	    rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
		rc = mdb_cursor_del(cur, 0);
		if (rc != 0)
			break;
	}
	mdb_cursor_close(cur);
	return rc == MDB_NOTFOUND ? 0 : from_mdb(rc);
}

static int del_blob(struct apply *ap, struct index_op *op)
{
	MDB_val k = val(op->key.hash, INDEX_HASH), rv;
	struct blob_row row;
	int err;

	op->freed = 0;
	err = row_get(ap, op->key.hash, &row, &rv);
	if (err != 0)
		return err == -ENOENT ? 0 : err;
	if ((err = lru_set(ap, op->key.hash, row_stamp(&row), 0)) != 0 ||
	    (err = del_pages(ap, op->key.hash)) != 0)
		return err;
	op->freed = row.bytes;
	row_shrink(ap, &row, row.bytes);
	return from_mdb(mdb_del(ap->txn, ap->ix->blob, &k, NULL));
}

static int touch(struct apply *ap, const struct index_op *op)
{
	struct blob_row row;
	MDB_val rv;
	uint64_t was;
	int err;

	err = row_get(ap, op->key.hash, &row, &rv);
	if (err != 0 || !row_is(&rv, &op->key))
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
static int oldest_reused(struct apply *ap, unsigned char *hash)
{
	struct lru_key lk;
	MDB_val k, v;
	MDB_cursor *cur;
	int rc;

	memset(&lk, 0, sizeof(lk));
	put_be64(lk.when, REUSED_BIT);
	rc = mdb_cursor_open(ap->txn, ap->ix->lru, &cur);
	if (rc != 0)
		return from_mdb(rc);
	k = val(&lk, sizeof(lk));
	rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
	if (rc == 0 && k.mv_size == sizeof(lk))
		memcpy(hash, (const unsigned char *)k.mv_data + sizeof(lk.when), INDEX_HASH);
	else if (rc == 0)
		rc = MDB_CORRUPTED;
	mdb_cursor_close(cur);
	return from_mdb(rc);
}

/* A reused blob counts as used once from now on, and as used now. */
static int demote(struct apply *ap, const unsigned char *hash, uint64_t when)
{
	struct index_key key = {.text = NULL};
	struct blob_row row;
	unsigned char *text;
	MDB_val rv;
	int err;

	err = row_get(ap, hash, &row, &rv);
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
static int demote_many(struct apply *ap, uint64_t when)
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

static int apply_one(struct apply *ap, struct index_op *op)
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

int index_apply(struct index *ix, const struct index_ops *ops)
{
	struct apply ap = {.ix = ix, .used = ix->used, .reused = ix->reused};
	MDB_val k = val(meta_name, sizeof(meta_name)), v;
	struct meta_row row;
	struct index_op *op;
	uint64_t when = 1;
	int rc, err = 0;

	CHECK_OBJ(ix, INDEX_MAGIC);
	rc = mdb_txn_begin(ix->env, NULL, 0, &ap.txn);
	if (rc != 0)
		return from_mdb(rc);
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
		err = rc != 0 ? from_mdb(rc) : -EIO;
	if (err == 0) {
		memcpy(&row, v.mv_data, sizeof(row));
		row.used = ap.used;
		row.reused = ap.reused;
		v = val(&row, sizeof(row));
		err = from_mdb(mdb_put(ap.txn, ix->meta, &k, &v, 0));
	}
	if (err == 0 && !epoch_mine(ix->ep))
		err = -ESTALE;
	if (err != 0) {
		mdb_txn_abort(ap.txn);
		return err;
	}
	rc = mdb_txn_commit(ap.txn);
	if (rc == 0) {
		ix->used = ap.used;
		ix->reused = ap.reused;
	}
	return from_mdb(rc);
}

/* --- Reading */

int index_rows(struct index *ix, const unsigned char *hash, uint64_t first, unsigned max,
    int (*fn)(void *arg, uint64_t page, const uint32_t *crc, uint32_t ncrc), void *arg)
{
	struct page_key pk = page_key(hash, first);
	MDB_val k = val(&pk, sizeof(pk)), v;
	MDB_cursor *cur;
	MDB_txn *txn;
	int rc, err = 0;

	CHECK_OBJ(ix, INDEX_MAGIC);
	rc = mdb_txn_begin(ix->env, NULL, MDB_RDONLY, &txn);
	if (rc != 0)
		return from_mdb(rc);
	rc = mdb_cursor_open(txn, ix->page, &cur);
	if (rc != 0) {
		mdb_txn_abort(txn);
		return from_mdb(rc);
	}
	for (rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
	    rc == 0 && max > 0 && k.mv_size == sizeof(pk) &&
	    memcmp(k.mv_data, hash, INDEX_HASH) == 0;
	    rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT), max--) {
		err = fn(arg, get_be64((const unsigned char *)k.mv_data + INDEX_HASH), v.mv_data,
		    (uint32_t)(v.mv_size / sizeof(uint32_t)));
		if (err != 0)
			break;
	}
	mdb_cursor_close(cur);
	mdb_txn_abort(txn);
	if (err != 0)
		return err;
	return rc == MDB_NOTFOUND ? 0 : from_mdb(rc);
}

struct load {
	uint64_t *present, npages;
};

static int load_page(void *arg, uint64_t page, const uint32_t *crc, uint32_t ncrc)
{
	struct load *ld = arg;

	(void)crc;
	if (page < ld->npages && ncrc > 0)
		ld->present[page / 64] |= UINT64_C(1) << (page % 64);
	return 0;
}

static int read_row(struct index *ix, const unsigned char *hash, struct blob_row *row,
    const struct index_key *key)
{
	struct apply ap = {.ix = ix};
	MDB_val v;
	int rc, err;

	rc = mdb_txn_begin(ix->env, NULL, MDB_RDONLY, &ap.txn);
	if (rc != 0)
		return from_mdb(rc);
	err = row_get(&ap, hash, row, &v);
	if (err == 0 && key != NULL && (!row_is(&v, key) || row->size != key->size))
		err = -EEXIST;
	mdb_txn_abort(ap.txn);
	return err;
}

int index_load(struct index *ix, const struct index_key *key, uint64_t npages,
    uint64_t *present, uint64_t *bytes)
{
	struct load ld = {.present = present, .npages = npages};
	struct blob_row row;
	int err;

	CHECK_OBJ(ix, INDEX_MAGIC);
	assert(key != NULL);
	err = read_row(ix, key->hash, &row, key);
	if (err != 0)
		return err;
	*bytes = row.bytes;
	return index_rows(ix, key->hash, 0, UINT32_MAX, load_page, &ld);
}

int index_bytes(struct index *ix, const unsigned char *hash, uint64_t *bytes)
{
	struct blob_row row;
	int err;

	CHECK_OBJ(ix, INDEX_MAGIC);
	err = read_row(ix, hash, &row, NULL);
	*bytes = err == 0 ? row.bytes : 0;
	return err;
}

int index_oldest(struct index *ix, struct index_old *out, unsigned max, unsigned *n)
{
	struct apply ap = {.ix = ix};
	struct blob_row row;
	MDB_cursor *cur;
	MDB_val k, v, rv;
	int rc;

	CHECK_OBJ(ix, INDEX_MAGIC);
	*n = 0;
	rc = mdb_txn_begin(ix->env, NULL, MDB_RDONLY, &ap.txn);
	if (rc != 0)
		return from_mdb(rc);
	rc = mdb_cursor_open(ap.txn, ix->lru, &cur);
	if (rc != 0) {
		mdb_txn_abort(ap.txn);
		return from_mdb(rc);
	}
	while (*n < max && (rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) == 0) {
		if (k.mv_size != sizeof(struct lru_key))
			continue;
		memcpy(out[*n].hash, (const unsigned char *)k.mv_data + 8, INDEX_HASH);
		if (row_get(&ap, out[*n].hash, &row, &rv) != 0)
			continue;
		out[*n].reused = row.reused != 0;
		out[(*n)++].bytes = row.bytes;
	}
	mdb_cursor_close(cur);
	mdb_txn_abort(ap.txn);
	return rc == MDB_NOTFOUND ? 0 : from_mdb(rc);
}
