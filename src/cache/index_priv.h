/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The index between its own files: index.c opens and writes, index_read.c reads, and
 * all that touches the map does so through index_guard.c.
 * Pool threads, one at a time (index.h).
 */
#ifndef CACHE_INDEX_PRIV_H
#define CACHE_INDEX_PRIV_H

#include <errno.h>
#include <lmdb.h>
#include <string.h>

#include "base/obj.h"
#include "base/units.h"
#include "cache/index.h"

/* Of a page, the largest with the smallest blocks. */
#define INDEX_SUMS_MAX (8 * MIB / 4096)

struct index {
	uint32_t magic;
#define INDEX_MAGIC 0xca1de000u
	MDB_env *env;
	MDB_dbi meta, blob, page, lru;
	uint64_t used, reused, capacity;
	const struct epoch *ep;
	_Atomic bool broken; /* nothing can be done with env any more */
	bool writing;	     /* a transaction writes */
	/* of who reads, so that they can be ended for him */
	MDB_txn *rtxn;
	MDB_cursor *rcur;
};

/* Runs fn, which returns 0 or a negative errno.  -EIO: the index is broken. */
int index_guard(struct index *ix, int (*fn)(struct index *ix, void *arg), void *arg);
/* Whatever state it is in. */
void index_close_env(struct index *ix);

/* The reader's transaction, and a cursor if dbi is not NULL. */
int index_read_begin(struct index *ix, const MDB_dbi *dbi);
void index_read_end(struct index *ix);

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

struct index_txn {
	struct index *ix;
	MDB_txn *txn;
	uint64_t used, reused;
};

static inline void index_put_be64(unsigned char *to, uint64_t v)
{
	for (int i = 7; i >= 0; i--, v >>= 8)
		to[i] = (unsigned char)v;
}

static inline uint64_t index_get_be64(const unsigned char *from)
{
	uint64_t v = 0;

	for (int i = 0; i < 8; i++)
		v = v << 8 | from[i];
	return v;
}

static inline int index_err(int rc)
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

static inline MDB_val index_val(const void *data, size_t len)
{
	MDB_val v = {.mv_size = len, .mv_data = (void *)(uintptr_t)data};

	return v;
}

static inline struct page_key index_page_key(const unsigned char *hash, uint64_t no)
{
	struct page_key k;

	memcpy(k.hash, hash, INDEX_HASH);
	index_put_be64(k.no, no);
	return k;
}

static inline struct lru_key index_lru_key(const unsigned char *hash, uint64_t when)
{
	struct lru_key k;

	index_put_be64(k.when, when);
	memcpy(k.hash, hash, INDEX_HASH);
	return k;
}

/* A copy of a blob's row without its text, or a negative errno. */
static inline int index_row_get(struct index_txn *ap, const unsigned char *hash, struct blob_row *row, MDB_val *v)
{
	MDB_val k = index_val(hash, INDEX_HASH);
	int rc = mdb_get(ap->txn, ap->ix->blob, &k, v);

	if (rc != 0)
		return index_err(rc);
	if (v->mv_size < sizeof(*row))
		return -EIO;
	memcpy(row, v->mv_data, sizeof(*row));
	return 0;
}

static inline bool index_row_is(const MDB_val *v, const struct index_key *key)
{
	return v->mv_size == sizeof(struct blob_row) + key->text_len &&
	       memcmp((const char *)v->mv_data + sizeof(struct blob_row), key->text,
		   key->text_len) == 0;
}

#endif
