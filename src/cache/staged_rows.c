/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The map and its rows.  A change is planned first, then written, and only then done in
 * memory.
 *
 *	STATEDB_STAGED	id -> struct head_row
 *	STATEDB_EXTENTS	id, start -> struct ext_row
 *
 * The size is that of the head or the end of the last extent, whichever is more: so a
 * write at the end of the file is one row.  Reading takes overlapping extents, as a
 * change that failed half-way leaves them: the later generation counts.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "cache/staged_priv.h"

#define ROW_FORMAT 1

struct head_row {
	uint8_t format, pad[7];
	uint64_t size, limit, clean, changed;
};
/* Of a durable file. */
struct durable_row {
	struct head_row head;
	uint64_t safe_size;
	uint32_t safe_tail;
	uint8_t flags, pad[3];
};
#define ROW_VERIFY 1u
#define ROW_REWRITING 2u
#define ROW_BROKEN 4u
struct ext_row {
	uint8_t format, pad[7];
	uint64_t end, gen;
};
struct ext_key {
	uint64_t id, start; /* big-endian */
};
_Static_assert(sizeof(struct head_row) == 40 && sizeof(struct durable_row) == 56 &&
	       sizeof(struct ext_row) == 24 &&
	       sizeof(struct ext_key) == 16, "rows outlive the program that wrote them");

static struct ext_key key_of(const struct staged *sf, uint64_t start)
{
	return (struct ext_key){htobe64(sf->id), htobe64(start)};
}

/* --- Rows */

static int row_put(struct staged *sf, uint64_t start, uint64_t end, uint64_t gen)
{
	struct ext_key key = key_of(sf, start);
	struct ext_row row = {.format = ROW_FORMAT, .end = end, .gen = gen};

	return statedb_put(sf->st->db, STATEDB_EXTENTS, &key, sizeof(key), &row, sizeof(row));
}

static int row_del(struct staged *sf, uint64_t start)
{
	struct ext_key key = key_of(sf, start);
	int err = statedb_del(sf->st->db, STATEDB_EXTENTS, &key, sizeof(key));

	return err == -ENOENT ? 0 : err;
}

static int head_put(struct staged *sf)
{
	uint64_t id = htobe64(sf->id);
	struct durable_row row = {.head = {.format = ROW_FORMAT,
				      .size = sf->size,
				      .limit = sf->limit,
				      .clean = sf->clean,
				      .changed = sf->changed},
	    .safe_size = sf->safe.size,
	    .safe_tail = sf->safe.tail_crc};

	row.flags = (uint8_t)((sf->verify ? ROW_VERIFY : 0) |
			      (sf->rewriting ? ROW_REWRITING : 0) |
			      (sf->broken != 0 ? ROW_BROKEN : 0));
	return statedb_put(sf->st->db, STATEDB_STAGED, &id, sizeof(id), &row,
	    sf->durable ? sizeof(row) : sizeof(row.head));
}

/* The first extent's row at or after `start`: -ENOENT. */
static int row_seek(struct staged *sf, uint64_t start, uint64_t *found, struct ext_row *row)
{
	struct ext_key key = key_of(sf, start), fkey;
	struct statedb_val k, v;
	int err;

	err = statedb_seek(sf->st->db, STATEDB_EXTENTS, &key, sizeof(key), &k, &v);
	if (err != 0)
		return err;
	if (k.len != sizeof(fkey))
		return -EPROTO;
	memcpy(&fkey, k.data, sizeof(fkey));
	if (fkey.id != key.id)
		return -ENOENT;
	if (v.len != sizeof(*row))
		return -EPROTO;
	memcpy(row, v.data, sizeof(*row));
	*found = be64toh(fkey.start);
	if (row->format != ROW_FORMAT || row->end <= *found || row->end > INT64_MAX)
		return -EPROTO;
	return 0;
}

/* The rows that memory has and those that are there may differ in any way.  First what
 * is missing, then what is too much: should it fail half-way nothing is lost. */
static int put_missing(struct staged *sf)
{
	struct statedb_val v;
	int err = 0;

	for (struct ext *x = map_first(&sf->map); x != NULL && err == 0; x = map_next(x)) {
		struct ext_row row = {.format = ROW_FORMAT, .end = x->end, .gen = x->gen};
		struct ext_key key = key_of(sf, x->start);

		err = statedb_get(sf->st->db, STATEDB_EXTENTS, &key, sizeof(key), &v);
		if (err == 0 && v.len == sizeof(row) && memcmp(v.data, &row, sizeof(row)) == 0)
			continue;
		if (err == 0 || err == -ENOENT)
			err = row_put(sf, x->start, x->end, x->gen);
	}
	return err;
}

static int del_surplus(struct staged *sf)
{
	uint64_t at = 0, start;
	struct ext_row row;
	int err;

	while ((err = row_seek(sf, at, &start, &row)) == 0) {
		struct ext *x = map_find(&sf->map, start);

		if (x == NULL || x->start != start)
			err = row_del(sf, start);
		if (err != 0)
			return err;
		at = start + 1;
	}
	return err == -ENOENT ? 0 : err;
}

int staged_rows_write(struct staged *sf)
{
	int err = sf->st->db == NULL ? -ESTALE : put_missing(sf);

	if (err == 0)
		err = del_surplus(sf);
	if (err == 0)
		err = head_put(sf);
	if (err == 0 && sf->durable)
		err = hold_row_write(sf);
	sf->rows_bad = err != 0;
	return err;
}

int staged_rows_mend(struct staged *sf)
{
	if (sf->st->db == NULL)
		return -ESTALE;
	return sf->rows_bad ? staged_rows_write(sf) : 0;
}

int staged_rows_head(struct staged *sf)
{
	int err = staged_rows_mend(sf);

	return err == 0 ? head_put(sf) : err;
}

/* The rows of a file may be many: so many in one turn, the rest of them, which nobody
 * looks at any more, in the next ones. */
#define DELETE_ROWS 1000

int staged_rows_prune(struct statedb *db, uint64_t id)
{
	struct ext_key key = {htobe64(id), 0}, found;
	struct statedb_val k, v;
	int err = 0;

	for (unsigned n = 0; n < DELETE_ROWS; n++) {
		err = statedb_seek(db, STATEDB_EXTENTS, &key, sizeof(key), &k, &v);
		if (err == 0 && k.len != sizeof(found))
			err = -EPROTO;
		if (err != 0)
			break;
		memcpy(&found, k.data, sizeof(found));
		if (found.id != key.id)
			return -ENOENT;
		err = statedb_del(db, STATEDB_EXTENTS, &found, sizeof(found));
		if (err == -ENOSPC && n > 0)
			return 0; /* for this turn */
		if (err != 0)
			break;
	}
	return err;
}

int staged_rows_delete(struct staged *sf)
{
	uint64_t id = htobe64(sf->id);
	int err;

	if (sf->st->db == NULL)
		return -ESTALE;
	err = statedb_del(sf->st->db, STATEDB_STAGED, &id, sizeof(id));
	if (err == 0 || err == -ENOENT)
		err = sf->held || sf->rows_bad ? hold_row_delete(sf->st->db, sf->id) : 0;
	return err;
}

/* The next id at or after `id` that has extents but no head: -ENOENT. */
int staged_rows_stray(struct statedb *db, uint64_t id, uint64_t *stray)
{
	struct ext_key key = {htobe64(id), 0}, found;
	struct statedb_val k, v;
	int err;

	while ((err = statedb_seek(db, STATEDB_EXTENTS, &key, sizeof(key), &k, &v)) == 0) {
		if (k.len != sizeof(found))
			return -EPROTO;
		memcpy(&found, k.data, sizeof(found));
		*stray = be64toh(found.id);
		err = statedb_get(db, STATEDB_STAGED, &found.id, sizeof(found.id), &v);
		if (err != 0)
			return err == -ENOENT ? 0 : err;
		if (*stray == UINT64_MAX)
			return -ENOENT;
		key.id = htobe64(*stray + 1);
	}
	return err;
}

/* --- Loading */

static int load_one(struct staged *sf, uint64_t start, uint64_t end, uint64_t gen)
{
	/* Sorted by start: only what was loaded before can reach into it. */
	struct ext *last = map_before(&sf->map, UINT64_MAX);
	uint64_t last_end, last_gen;
	int err = map_reserve(&sf->map);

	if (err != 0)
		return err;
	if (last == NULL || last->end <= start) {
		map_insert(&sf->map, start, end, gen);
		return 0;
	}
	last_end = last->end;
	if (gen <= last->gen) { /* the rest of it */
		if (end > last_end)
			map_insert(&sf->map, last_end, end, gen);
		return 0;
	}
	last_gen = last->gen;
	if (last->start == start)
		map_remove(&sf->map, last);
	else
		last->end = start;
	map_insert(&sf->map, start, end, gen);
	if (last_end > end)
		map_insert(&sf->map, end, last_end, last_gen);
	return 0;
}

static int load_head(struct staged *sf)
{
	uint64_t id = htobe64(sf->id);
	struct durable_row row = {.flags = 0};
	const struct head_row *head = &row.head;
	struct statedb_val v;
	int err = statedb_get(sf->st->db, STATEDB_STAGED, &id, sizeof(id), &v);

	if (err != 0)
		return err;
	if (v.len != (sf->durable ? sizeof(row) : sizeof(*head)))
		return -EPROTO;
	memcpy(&row, v.data, v.len);
	if (head->format != ROW_FORMAT || head->size > INT64_MAX)
		return -EPROTO;
	sf->size = head->size;
	sf->limit = head->limit;
	sf->clean = sf->sending = head->clean;
	sf->changed = head->changed;
	sf->gen = MAX(head->clean, head->changed);
	sf->safe = (struct staged_durable){.size = row.safe_size, .tail_crc = row.safe_tail};
	sf->verify = (row.flags & ROW_VERIFY) != 0;
	sf->rewriting = (row.flags & ROW_REWRITING) != 0;
	sf->broken = (row.flags & ROW_BROKEN) != 0 ? -EIO : 0;
	return 0;
}

int staged_rows_load(struct staged *sf)
{
	uint64_t at = 0, start;
	struct ext_row row;
	int err;

	if (sf->st->db == NULL)
		return -ESTALE;
	err = load_head(sf);
	if (err != 0)
		return err;
	while ((err = row_seek(sf, at, &start, &row)) == 0) {
		err = load_one(sf, start, row.end, row.gen);
		if (err != 0)
			return err;
		sf->gen = MAX(sf->gen, row.gen);
		sf->size = MAX(sf->size, row.end);
		at = start + 1;
	}
	sf->gen++;
	for (struct ext *x = map_first(&sf->map); x != NULL; x = map_next(x))
		ext_account(sf, x, x->start, x->end, true);
	return err == -ENOENT ? 0 : err;
}

/* --- Changes */

static enum staged_kind gen_kind(const struct staged *sf, uint64_t gen)
{
	if (gen <= sf->clean)
		return STAGED_CLEAN;
	return gen <= sf->sending ? STAGED_SENDING : STAGED_DIRTY;
}

enum staged_kind ext_kind(const struct staged *sf, const struct ext *x)
{
	return gen_kind(sf, x->gen);
}

void ext_account(struct staged *sf, const struct ext *x, uint64_t start, uint64_t end, bool add)
{
	uint64_t n = add ? end - start : start - end; /* wraps, and back */
	enum staged_kind kind = ext_kind(sf, x);

	sf->bytes += n;
	sf->st->bytes += n;
	if (kind == STAGED_CLEAN)
		return;
	sf->st->dirty += n;
	if (sf->durable)
		sf->st->pinned += n;
	if (kind == STAGED_DIRTY)
		sf->dirty_bytes += n;
	else
		sf->sending_bytes += n;
}

struct plan {
	uint64_t start, end, gen;    /* what becomes one extent */
	uint64_t from, to;	     /* what was asked for */
	struct ext *left;	     /* reaches into it, or up to it, from before */
	bool grow;		     /* left becomes the extent */
	bool split;		     /* left goes on behind it */
	struct ext *first;	     /* those that go are the first n from here on */
	unsigned n;
	struct ext *right;	     /* after these, and begins within it */
};

/* False: nothing changes. */
static bool plan_set(const struct staged *sf, struct plan *p)
{
	enum staged_kind kind = gen_kind(sf, p->gen);
	struct ext *x = map_before(&sf->map, p->from);

	p->start = p->from;
	p->end = p->to;
	p->first = x == NULL ? map_first(&sf->map) : map_next(x);
	if (x != NULL && x->end >= p->from) {
		p->left = x;
		p->grow = ext_kind(sf, x) == kind;
		if (p->grow && x->end >= p->to)
			return false;
		if (p->grow) {
			p->start = x->start;
			p->gen = MAX(p->gen, x->gen);
			p->end = MAX(p->end, x->end);
		} else {
			p->split = x->end > p->to;
			if (x->end == p->from)
				p->left = NULL; /* a neighbour, nothing to it */
		}
	}
	for (x = p->first; x != NULL && x->start <= p->end; x = map_next(x)) {
		bool same = ext_kind(sf, x) == kind;

		if (same && x->start == p->from && x->end >= p->to && !p->grow)
			return false;
		if (!same && x->start >= p->to)
			break;
		if (!same && x->end > p->to) {
			p->right = x;
			break;
		}
		if (same) {
			p->gen = MAX(p->gen, x->gen);
			p->end = MAX(p->end, x->end);
		}
		p->n++;
	}
	return true;
}

/* The new ones first: should a deletion fail, two rows overlap. */
static int plan_rows(struct staged *sf, const struct plan *p)
{
	struct ext *x = p->first;
	int err;

	err = row_put(sf, p->start, p->end, p->gen);
	if (err != 0)
		return err;
	sf->rows_bad = true; /* until all are there */
	if (err == 0 && p->left != NULL && p->split)
		err = row_put(sf, p->to, p->left->end, p->left->gen);
	if (err == 0 && p->left != NULL && !p->grow)
		err = row_put(sf, p->left->start, p->from, p->left->gen);
	if (err == 0 && p->right != NULL)
		err = row_put(sf, p->to, p->right->end, p->right->gen);
	for (unsigned i = 0; i < p->n && err == 0; i++, x = map_next(x)) {
		if (x->start != p->start)
			err = row_del(sf, x->start);
	}
	if (err == 0 && p->right != NULL && p->right->start != p->start)
		err = row_del(sf, p->right->start);
	sf->rows_bad = err != 0;
	return err;
}

static void plan_memory(struct staged *sf, const struct plan *p)
{
	struct ext *x = p->first, *next, new = {.gen = p->gen};

	for (unsigned i = 0; i < p->n; i++, x = next) {
		next = map_next(x);
		ext_account(sf, x, x->start, x->end, false);
		map_remove(&sf->map, x);
	}
	if (p->right != NULL) {
		ext_account(sf, p->right, p->right->start, p->to, false);
		p->right->start = p->to;
	}
	if (p->left != NULL && !p->grow) {
		ext_account(sf, p->left, p->from, MIN(p->left->end, p->to), false);
		if (p->split)
			map_insert(&sf->map, p->to, p->left->end, p->left->gen);
		p->left->end = p->from;
	}
	if (p->left != NULL && p->grow) {
		ext_account(sf, p->left, p->left->start, p->left->end, false);
		p->left->end = p->end;
		p->left->gen = p->gen;
	} else {
		map_insert(&sf->map, p->start, p->end, p->gen);
	}
	ext_account(sf, &new, p->start, p->end, true);
	sf->size = MAX(sf->size, p->end);
}

int ext_set(struct staged *sf, uint64_t start, uint64_t end, uint64_t gen)
{
	struct plan p = {.from = start, .to = end, .gen = gen};
	int err = staged_rows_mend(sf);

	assert(start < end);
	if (err != 0 || !plan_set(sf, &p))
		return err;
	err = plan_rows(sf, &p);
	if (err == 0)
		plan_memory(sf, &p);
	return err;
}

int ext_cut(struct staged *sf, uint64_t size)
{
	struct ext *x = map_before(&sf->map, size), *first, *next;
	int err = staged_rows_mend(sf);

	first = x == NULL ? map_first(&sf->map) : map_next(x);
	if (x != NULL && x->end > size && err == 0)
		err = row_put(sf, x->start, size, x->gen);
	for (next = first; next != NULL && err == 0; next = map_next(next))
		err = row_del(sf, next->start);
	if (err != 0) {
		sf->rows_bad = true;
		return err;
	}
	if (x != NULL && x->end > size) {
		ext_account(sf, x, size, x->end, false);
		x->end = size;
	}
	for (x = first; x != NULL; x = next) {
		next = map_next(x);
		ext_account(sf, x, x->start, x->end, false);
		map_remove(&sf->map, x);
	}
	return 0;
}
