/* SPDX-License-Identifier: BSD-2-Clause */
/* The verbs, and the end of deleted directories. */
#include <errno.h>
#include <string.h>

#include "meta/fdb_priv.h"

/* Rows that one transaction deletes of what nobody names any more: with what lies beside
 * them well within what a transaction may be, in size and time. */
#define SWEEP_ROWS 500

/* Reads that one pass may ask for; what is beyond comes in the next. */
#define ASK_MAX 8192u

/* What hangs on the directory is nobody's from now on. */
static int discard(struct fdb_run *t, uint64_t dir)
{
	struct fkey k;
	int empty;

	if (dir == META_DIR_NONE)
		return 0;
	empty = fkv_dir_empty(t, dir);
	if (empty != 0)
		return empty < 0 ? empty : 0;
	t->garbage = true;
	k = fkey_id('g', dir);
	return fkv_set(t, &k, NULL, 0, NULL, 0);
}

/* Directories above the last step that only led there and lead nowhere now.  Only of
 * those it is asked if they are empty, since that is a conflict. */
static int prune(struct fdb_run *t, const struct fway *way)
{
	for (unsigned i = way->n - 1; i > 0; i--) {
		struct meta_row row;
		int err = frow_get(t, &way->step[i - 1], &row), empty;

		if (err != 0 || row.rec.kind != META_PASS)
			return err;
		empty = fkv_dir_empty(t, way->step[i].dir);
		if (empty <= 0)
			return empty;
		err = frow_del(t, &way->step[i - 1], &row);
		if (err != 0)
			return err;
	}
	return 0;
}

static const struct fstep *target(const struct fway *way)
{
	return &way->step[way->n - 1];
}

/* The row of a path: -ENOENT also if something on the way lacks or is a file. */
static int find(struct fdb_run *t, const char *path, struct fway *way, struct meta_row *row)
{
	int err = frow_walk(t, path, false, way);

	if (err == 0)
		err = frow_get(t, target(way), row);
	return err == -ENOTDIR ? -ENOENT : err;
}

static int put_bytes(struct fdb_run *t, const struct meta_change *ch)
{
	static const unsigned char head[META_BLOB_HEAD] = {META_BLOB_VERSION};
	struct fkey k;

	if (ch->blob == NULL || ch->rec.content.state == META_STATE_PERSISTED)
		return 0;
	k = fkey_id('b', ch->rec.content.id);
	return fkv_set(t, &k, head, sizeof(head), ch->blob, ch->blob_len);
}

static int put(struct fdb_run *t, const struct meta_change *ch)
{
	struct meta_row old, row;
	struct fway way;
	int err = frow_walk(t, ch->path, ch->if_content == 0, &way), go;
	bool had;

	if (err == 0)
		err = frow_get(t, target(&way), &old);
	had = err == 0;
	if (err != 0 && err != -ENOENT)
		return err;
	go = meta_change_guard(ch, had ? &old : NULL);
	if (go <= 0)
		return go;
	if (!had)
		memset(&old, 0, sizeof(old));
	/* Acknowledged there: it does not go for what was made here at the same time. */
	if (had && meta_row_elsewhere(&old, fstore_self(t->st)) &&
	    ch->rec.content.id != old.rec.content.id)
		return -EEXIST;
	row = old;
	row.rec = ch->rec;
	if (ch->rec.kind == META_FILE && old.dir != META_DIR_NONE) {
		int empty = fkv_dir_empty(t, old.dir);

		if (empty <= 0)
			return empty < 0 ? empty : -ENOTEMPTY;
		row.dir = META_DIR_NONE;
	}
	err = 0;
	if (!had || !meta_row_same(&row, &old))
		err = frow_put(t, target(&way), had ? &old : NULL, &row);
	return err != 0 ? err : put_bytes(t, ch);
}

static int drop(struct fdb_run *t, const struct fway *way, const struct meta_row *row)
{
	int err = discard(t, row->dir);

	if (err == 0)
		err = frow_del(t, target(way), row);
	return err != 0 ? err : prune(t, way);
}

static int del(struct fdb_run *t, const struct meta_change *ch)
{
	struct meta_row row;
	struct fway way;
	int err = find(t, ch->path, &way, &row), go;

	if (err != 0)
		return err == -ENOENT ? 0 : err;
	go = meta_change_guard(ch, &row);
	if (go > 0 && meta_row_elsewhere(&row, fstore_self(t->st)))
		return -EBUSY;
	return go > 0 ? drop(t, &way, &row) : go;
}

/* The source has no record, so the target has none either. */
static int move_nothing(struct fdb_run *t, const struct meta_change *ch)
{
	struct meta_row row;
	struct fway way;
	int err = find(t, ch->to, &way, &row);

	if (err != 0)
		return err == -ENOENT ? 0 : err;
	return row.move == meta_move_id(ch) ? 0 : drop(t, &way, &row);
}

static int move(struct fdb_run *t, const struct meta_change *ch)
{
	struct meta_row row, gone;
	struct fway from, to;
	int err;

	if (strcmp(ch->path, ch->to) == 0)
		return 0;
	err = find(t, ch->path, &from, &row);
	if (err == -ENOENT)
		return move_nothing(t, ch);
	if (err == 0)
		err = frow_walk(t, ch->to, true, &to);
	if (err != 0)
		return err;
	err = frow_get(t, target(&to), &gone);
	/* The source is another one by now.  A path cannot tell that. */
	if (err == 0 && ch->id != 0 && gone.move == ch->id)
		return 0;
	if (err == 0)
		err = discard(t, gone.dir);
	if (err == 0)
		err = frow_del(t, target(&to), &gone);
	if (err != 0 && err != -ENOENT)
		return err;
	gone = row;
	row.move = meta_move_id(ch);
	err = frow_move(t, target(&from), target(&to), &gone, &row);
	return err != 0 ? err : prune(t, &from);
}

static struct fkey intent_key(const struct fdb_run *t, uint64_t id)
{
	unsigned char buf[8];

	meta_put_be64(buf, id);
	return fkey_node('i', fstore_self(t->st), buf, sizeof(buf));
}

static int intent_put(struct fdb_run *t, const struct meta_change *ch)
{
	static const unsigned char head[1] = {STORE_INTENT_VERSION};
	const struct fkey k = intent_key(t, ch->id);

	return fkv_set(t, &k, head, sizeof(head), ch->blob, ch->blob_len);
}

static int intent_del(struct fdb_run *t, const struct meta_change *ch)
{
	const struct fkey k = intent_key(t, ch->id);

	return fkv_clear(t, &k);
}

/* --- Settings, in pieces */

unsigned fset_pieces(size_t len)
{
	return (unsigned)((len + STORE_PIECE - 1) / STORE_PIECE);
}

struct fkey fset_piece(uint64_t id, unsigned no)
{
	unsigned char buf[12];

	meta_put_be64(buf, id);
	for (int i = 0; i < 4; i++)
		buf[8 + i] = (unsigned char)(no >> (24 - 8 * i));
	return fkey_of('s', buf, sizeof(buf));
}

static size_t piece_len(size_t len, unsigned no)
{
	return MIN(len - (size_t)no * STORE_PIECE, STORE_PIECE);
}

/* Are the pieces these bytes? */
static int same_setting(struct fdb_run *t, const struct meta_change *ch, size_t len)
{
	int same = ch->blob_len == len;

	for (unsigned i = 0; same > 0 && i < fset_pieces(len); i++) {
		const struct fkey k = fset_piece(ch->id, i);
		struct fval val;
		int err = fkv_get(t, &k, &val);

		if (err != 0)
			return err;
		same = val.len == piece_len(len, i) &&
		       memcmp(val.data, (const char *)ch->blob + (size_t)i * STORE_PIECE, val.len) == 0;
	}
	return same;
}

static int setting_write(
    struct fdb_run *t, const struct meta_change *ch, uint64_t version, size_t old)
{
	unsigned char head[STORE_SETTING_HEAD] = {META_SETTING_VERSION};
	unsigned n = fset_pieces(ch->blob_len);
	struct fkey k = fkey_id('s', ch->id);
	int err;

	meta_put_be64(head + 1, version);
	for (int i = 0; i < 4; i++)
		head[META_SETTING_HEAD + i] = (unsigned char)(ch->blob_len >> (24 - 8 * i));
	err = fkv_set(t, &k, head, sizeof(head), NULL, 0);
	for (unsigned i = 0; err == 0 && i < n; i++) {
		k = fset_piece(ch->id, i);
		err = fkv_set(t, &k, NULL, 0, (const char *)ch->blob + (size_t)i * STORE_PIECE,
		    piece_len(ch->blob_len, i));
	}
	for (unsigned i = n; err == 0 && i < fset_pieces(old); i++) {
		k = fset_piece(ch->id, i);
		err = fkv_clear(t, &k);
	}
	return err;
}

static int setting_put(struct fdb_run *t, const struct meta_change *ch)
{
	const struct fkey k = fkey_id('s', ch->id);
	uint64_t now = 0;
	size_t len = 0;
	struct fval val;
	int err = fkv_get(t, &k, &val), same;

	if (err == 0)
		err = frow_version(t, ch->id, &val, META_SETTING_VERSION, STORE_SETTING_HEAD);
	if (err != 0 && err != -ENOENT)
		return err;
	if (err == 0) {
		now = meta_get_be64(val.data + 1);
		for (int i = 0; i < 4; i++)
			len = len << 8 | val.data[META_SETTING_HEAD + i];
		if (now == ch->if_version + 1) {
			same = same_setting(t, ch, len);
			if (same != 0)
				return same < 0 ? same : 0;
		}
	}
	if (now != ch->if_version)
		return -EEXIST;
	return setting_write(t, ch, now + 1, len);
}

/* Those behind one that has to wait are gone through as well, to learn what they will
 * want to know; what they say counts when nothing lacks. */
int fstore_write(struct fdb_run *t)
{
	static int (*const verbs[])(struct fdb_run *t, const struct meta_change *ch) = {
		[META_PUT] = put,
		[META_DEL] = del,
		[META_MOVE] = move,
		[META_INTENT_PUT] = intent_put,
		[META_INTENT_DEL] = intent_del,
		[META_SETTING_PUT] = setting_put,
	};
	bool waits = false;

	for (unsigned i = 0; i < t->c->n && t->pending < ASK_MAX; i++) {
		int err = verbs[t->c->changes[i].verb](t, &t->c->changes[i]);

		if (err == -ENOMEM || (err != 0 && err != -EAGAIN && !waits))
			return err;
		waits = waits || err == -EAGAIN;
	}
	return waits ? -EAGAIN : 0;
}

/* --- Sweeping */

/* A row of a deleted directory, and what lies beside it.  One that cannot be read cannot
 * say: that stays, unnamed. */
static int sweep_row(struct fdb_run *t, const struct frow *at)
{
	const struct fkey k = fkey_of('t', at->key.data, at->key.len);
	struct meta_row row;
	int err = 0;

	if (frow_decode(t, &at->key, &at->val, &row) == 0) {
		err = discard(t, row.dir);
		if (err == 0)
			err = frow_index(t, &at->key, &row, NULL);
	}
	if (err != 0)
		return err;
	t->delta[COUNT_ROWS]--;
	t->delta[COUNT_SIZE] -= (int64_t)(k.len + at->val.len);
	return fkv_clear(t, &k);
}

static int sweep_dir(struct fdb_run *t, const struct fkey *name)
{
	const uint64_t dir = meta_get_be64(name->b + 1);
	const struct fkey from = fkey_id('t', dir), end = fkey_id('t', dir + 1);
	bool waits = false;
	const struct frange *r;
	struct fval none;
	/* Read and written, so that nobody else sweeps it meanwhile. */
	int err = fkv_get(t, name, &none), rows = fkv_range(t, &from, &end, SWEEP_ROWS, false, &r);

	if (err == 0)
		err = rows;
	for (size_t i = 0; err == 0 && i < r->count && t->pending < ASK_MAX; i++) {
		int one = sweep_row(t, &r->rows[i]);

		if (one == -EAGAIN)
			waits = true;
		else
			err = one;
	}
	if (err != 0 || waits)
		return err != 0 ? err : -EAGAIN;
	return r->more ? fkv_force(t, name, NULL, 0) : fkv_clear(t, name);
}

int fstore_sweep(struct fdb_run *t)
{
	const struct fkey from = fkey_of('g', NULL, 0), end = fkey_of('g' + 1, NULL, 0);
	const struct frange *r;
	struct fkey name;
	int err = fkv_range(t, &from, &end, 1, true, &r);

	if (err != 0)
		return err;
	t->path = "(deleted)";
	if (r->count == 0 || r->rows[0].key.len != 8)
		return 0;
	name = fkey_of('g', r->rows[0].key.data, r->rows[0].key.len);
	err = sweep_dir(t, &name);
	t->garbage = true; /* there may be more */
	return err == -ENOENT ? 0 : err;
}
