/* SPDX-License-Identifier: BSD-2-Clause */
/* The reading side of the index. */
#include "cache/index_priv.h"

int index_rows(struct index *ix, const unsigned char *hash, uint64_t first, unsigned max,
    int (*fn)(void *arg, uint64_t page, const uint32_t *crc, uint32_t ncrc), void *arg)
{
	struct page_key pk = index_page_key(hash, first);
	MDB_val k = index_val(&pk, sizeof(pk)), v;
	MDB_cursor *cur;
	MDB_txn *txn;
	int rc, err = 0;

	CHECK_OBJ(ix, INDEX_MAGIC);
	rc = mdb_txn_begin(ix->env, NULL, MDB_RDONLY, &txn);
	if (rc != 0)
		return index_err(rc);
	rc = mdb_cursor_open(txn, ix->page, &cur);
	if (rc != 0) {
		mdb_txn_abort(txn);
		return index_err(rc);
	}
	for (rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
	    rc == 0 && max > 0 && k.mv_size == sizeof(pk) &&
	    memcmp(k.mv_data, hash, INDEX_HASH) == 0;
	    rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT), max--) {
		err = fn(arg, index_get_be64((const unsigned char *)k.mv_data + INDEX_HASH), v.mv_data,
		    (uint32_t)(v.mv_size / sizeof(uint32_t)));
		if (err != 0)
			break;
	}
	mdb_cursor_close(cur);
	mdb_txn_abort(txn);
	if (err != 0)
		return err;
	return rc == MDB_NOTFOUND ? 0 : index_err(rc);
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
	struct index_txn ap = {.ix = ix};
	MDB_val v;
	int rc, err;

	rc = mdb_txn_begin(ix->env, NULL, MDB_RDONLY, &ap.txn);
	if (rc != 0)
		return index_err(rc);
	err = index_row_get(&ap, hash, row, &v);
	if (err == 0 && key != NULL && (!index_row_is(&v, key) || row->size != key->size))
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
	struct index_txn ap = {.ix = ix};
	struct blob_row row;
	MDB_cursor *cur;
	MDB_val k, v, rv;
	int rc;

	CHECK_OBJ(ix, INDEX_MAGIC);
	*n = 0;
	rc = mdb_txn_begin(ix->env, NULL, MDB_RDONLY, &ap.txn);
	if (rc != 0)
		return index_err(rc);
	rc = mdb_cursor_open(ap.txn, ix->lru, &cur);
	if (rc != 0) {
		mdb_txn_abort(ap.txn);
		return index_err(rc);
	}
	while (*n < max && (rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) == 0) {
		if (k.mv_size != sizeof(struct lru_key))
			continue;
		memcpy(out[*n].hash, (const unsigned char *)k.mv_data + 8, INDEX_HASH);
		if (index_row_get(&ap, out[*n].hash, &row, &rv) != 0)
			continue;
		out[*n].reused = row.reused != 0;
		out[(*n)++].bytes = row.bytes;
	}
	mdb_cursor_close(cur);
	mdb_txn_abort(ap.txn);
	return rc == MDB_NOTFOUND ? 0 : index_err(rc);
}
