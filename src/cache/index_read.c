/* SPDX-License-Identifier: BSD-2-Clause */
/* The reading side of the index. */
#include "cache/index_priv.h"

struct rows_call {
	const unsigned char *hash;
	uint64_t first;
	unsigned max;
	int (*fn)(void *arg, uint64_t page, const uint32_t *crc, uint32_t ncrc);
	void *arg;
};

/* fn gets a copy: it may own something when the map fails, so it must not touch it. */
static int rows_one(const struct rows_call *rc, const MDB_val *k, const MDB_val *v)
{
	uint64_t page = index_get_be64((const unsigned char *)k->mv_data + INDEX_HASH);
	uint32_t crc[INDEX_SUMS_MAX];

	if (v->mv_size > sizeof(crc))
		return -EIO;
	memcpy(crc, v->mv_data, v->mv_size);
	return rc->fn(rc->arg, page, crc, (uint32_t)(v->mv_size / sizeof(crc[0])));
}

static int rows_guarded(struct index *ix, void *arg)
{
	struct rows_call *call = arg;
	struct page_key pk = index_page_key(call->hash, call->first);
	MDB_val k = index_val(&pk, sizeof(pk)), v;
	unsigned max = call->max;
	int rc, err;

	err = index_read_begin(ix, &ix->page);
	if (err != 0)
		return err;
	for (rc = mdb_cursor_get(ix->rcur, &k, &v, MDB_SET_RANGE);
	    rc == 0 && max > 0 && k.mv_size == sizeof(pk) &&
	    memcmp(k.mv_data, call->hash, INDEX_HASH) == 0;
	    rc = mdb_cursor_get(ix->rcur, &k, &v, MDB_NEXT), max--) {
		err = rows_one(call, &k, &v);
		if (err != 0)
			break;
	}
	index_read_end(ix);
	if (err != 0)
		return err;
	return rc == MDB_NOTFOUND ? 0 : index_err(rc);
}

int index_rows(struct index *ix, const unsigned char *hash, uint64_t first, unsigned max,
    int (*fn)(void *arg, uint64_t page, const uint32_t *crc, uint32_t ncrc), void *arg)
{
	struct rows_call call = {hash, first, max, fn, arg};

	return index_guard(ix, rows_guarded, &call);
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

struct row_call {
	const unsigned char *hash;
	const struct index_key *key; /* NULL: whosever it is */
	struct blob_row row;
};

static int row_guarded(struct index *ix, void *arg)
{
	struct row_call *call = arg;
	struct index_txn ap = {.ix = ix};
	MDB_val v;
	int err;

	err = index_read_begin(ix, NULL);
	if (err != 0)
		return err;
	ap.txn = ix->rtxn;
	err = index_row_get(&ap, call->hash, &call->row, &v);
	if (err == 0 && call->key != NULL &&
	    (!index_row_is(&v, call->key) || call->row.size != call->key->size))
		err = -EEXIST;
	index_read_end(ix);
	return err;
}

int index_load(struct index *ix, const struct index_key *key, uint64_t npages,
    uint64_t *present, uint64_t *bytes)
{
	struct load ld = {.present = present, .npages = npages};
	struct row_call call = {.hash = key->hash, .key = key};
	int err;

	err = index_guard(ix, row_guarded, &call);
	if (err != 0)
		return err;
	*bytes = call.row.bytes;
	return index_rows(ix, key->hash, 0, UINT32_MAX, load_page, &ld);
}

int index_bytes(struct index *ix, const unsigned char *hash, uint64_t *bytes)
{
	struct row_call call = {.hash = hash};
	int err = index_guard(ix, row_guarded, &call);

	*bytes = err == 0 ? call.row.bytes : 0;
	return err;
}

struct oldest_call {
	struct index_old *out;
	unsigned max, *n;
};

static int oldest_guarded(struct index *ix, void *arg)
{
	struct oldest_call *call = arg;
	struct index_txn ap = {.ix = ix};
	struct blob_row row;
	MDB_val k, v, rv;
	int rc = 0, err;

	err = index_read_begin(ix, &ix->lru);
	if (err != 0)
		return err;
	ap.txn = ix->rtxn;
	while (*call->n < call->max &&
	       (rc = mdb_cursor_get(ix->rcur, &k, &v, MDB_NEXT)) == 0) {
		struct index_old *old = &call->out[*call->n];

		if (k.mv_size != sizeof(struct lru_key))
			continue;
		memcpy(old->hash, (const unsigned char *)k.mv_data + 8, INDEX_HASH);
		if (index_row_get(&ap, old->hash, &row, &rv) != 0)
			continue;
		old->reused = row.reused != 0;
		old->bytes = row.bytes;
		(*call->n)++;
	}
	index_read_end(ix);
	return rc == MDB_NOTFOUND ? 0 : index_err(rc);
}

int index_oldest(struct index *ix, struct index_old *out, unsigned max, unsigned *n)
{
	struct oldest_call call = {out, max, n};

	*n = 0;
	return index_guard(ix, oldest_guarded, &call);
}
