/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading, at one version of the store.  Long ones keep their place between passes:
 * t->at is where the next piece begins, t->g what has been gathered so far.
 */
#include <errno.h>
#include <string.h>

#include "meta/fdb_priv.h"

/* Rows that are read at one time: the smallest and the largest piece of a scan; of the
 * queue, whose rows ask for others; of the intents, which are long. */
#define SCAN_LEAST 100
#define SCAN_MOST 4000
#define QUEUE_ROWS 200
#define INTENT_ROWS 100

#define BLOB_ALIGN 16u

void fstore_unread(struct fdb_run *t)
{
	free(t->g.items);
	free(t->g.arena);
	memset(&t->g, 0, sizeof(t->g));
	t->started = false;
	if (t->c == NULL)
		return;
	free(t->c->arena);
	free(t->c->blob);
	t->c->arena = NULL;
	t->c->blob = NULL;
}

static int gather(struct fgather *g, size_t item, size_t bytes)
{
	int err = meta_grow(&g->items, &g->items_size, (g->count + 1) * item);

	return err != 0 ? err : meta_grow(&g->arena, &g->arena_size, g->used + bytes);
}

static int gather_entry(struct fgather *g, const void *name, size_t len,
    const struct meta_record *rec)
{
	struct meta_entry *e;
	int err = gather(g, sizeof(*e), len + 1);

	if (err != 0)
		return err;
	e = (struct meta_entry *)g->items + g->count++;
	e->rec = *rec;
	memcpy((char *)g->arena + g->used, name, len);
	((char *)g->arena)[g->used + len] = '\0';
	g->used += len + 1;
	return 0;
}

/* The call gets what was gathered. */
static void take_entries(struct fdb_run *t, bool more)
{
	struct meta_call *c = t->c;
	const char *name = t->g.arena;

	c->entries = t->g.items;
	c->arena = t->g.arena;
	c->count = t->g.count;
	c->more = more;
	memset(&t->g, 0, sizeof(t->g));
	for (size_t i = 0; i < c->count; i++) {
		c->entries[i].name = name;
		name += strlen(name) + 1;
	}
}

static int find_row(struct fdb_run *t, const char *path, struct meta_row *row)
{
	struct fway way;
	int err = frow_walk(t, path, false, &way);

	if (err == 0)
		err = frow_get(t, &way.step[way.n - 1], row);
	return err == -ENOTDIR ? -ENOENT : err;
}

static int get(struct fdb_run *t)
{
	struct meta_row row;
	int err = find_row(t, t->c->path, &row);

	if (err == 0 && row.rec.kind == META_PASS)
		err = -ENOENT;
	if (err == 0)
		t->c->rec = row.rec;
	return err;
}

/* --- Scan */

static int scan_start(struct fdb_run *t)
{
	const struct meta_call *c = t->c;
	const char *after = c->after != NULL ? c->after : "";
	struct meta_row row = {.dir = META_DIR_TOP};
	int err = *c->path != '\0' ? find_row(t, c->path, &row) : 0;

	if (err == 0 && row.dir == META_DIR_NONE)
		err = -ENOENT;
	if (err != 0)
		return err;
	t->at = fkey_row(row.dir, after, strlen(after));
	if (c->after != NULL)
		t->at = fkey_after(&t->at);
	t->started = true;
	return 0;
}

static struct fkey scan_end(const struct fdb_run *t)
{
	uint64_t dir = meta_get_be64(t->at.b + 1);
	struct fkey end;

	if (t->c->last == NULL)
		return fkey_id('t', dir + 1);
	end = fkey_row(dir, t->c->last, strlen(t->c->last));
	return fkey_after(&end);
}

static bool key_less(const struct fkey *a, const struct fkey *b)
{
	int cmp = memcmp(a->b, b->b, MIN(a->len, b->len));

	return cmp != 0 ? cmp < 0 : a->len < b->len;
}

/* One piece; *more: there is another entry than those that it had room for. */
static int scan_rows(struct fdb_run *t, const struct frange *r, bool *more)
{
	int err = 0;

	for (size_t i = 0; err == 0 && i < r->count; i++) {
		const struct frow *at = &r->rows[i];
		struct meta_row row;

		err = frow_decode(t, &at->key, &at->val, &row);
		if (err != 0 || (row.rec.kind == META_PASS && !t->c->pass))
			continue;
		*more = t->g.count == t->c->max;
		if (*more)
			return 0;
		err = gather_entry(&t->g, at->key.data + 8, at->key.len - 8, &row.rec);
	}
	return err;
}

static int scan(struct fdb_run *t)
{
	bool more = false;
	int err = 0;

	t->path = t->c->path;
	if (!t->started)
		err = scan_start(t);
	if (err != 0)
		return err == -ENOENT ? 0 : err;
	for (;;) {
		const struct fkey end = scan_end(t);
		size_t wants = MAX(t->c->max - t->g.count + 1, SCAN_LEAST);
		const struct frange *r;

		if (!key_less(&t->at, &end))
			break;
		err = fkv_range(t, &t->at, &end, (int)MIN(wants, SCAN_MOST), true, &r);
		if (err == 0)
			err = scan_rows(t, r, &more);
		if (err != 0)
			return err;
		if (more || !r->more || r->count == 0)
			break;
		t->at = fkey_of('t', r->rows[r->count - 1].key.data, r->rows[r->count - 1].key.len);
		t->at = fkey_after(&t->at);
		fkv_drop_ranges(t);
	}
	take_entries(t, more);
	return 0;
}

/* --- Intents */

static int intent_add(struct fdb_run *t, const struct frow *at)
{
	struct fgather *g = &t->g;
	struct meta_intent *in;
	size_t len;
	int err;

	if (at->key.len != 16 || at->val.len == 0)
		return errtext_set(
		    &t->et, -EIO, "metadata store %s: an intent is damaged", fstore_name(t->st));
	err = frow_version(
	    t, meta_get_be64(at->key.data + 8), &at->val, STORE_INTENT_VERSION, 1);
	if (err != 0)
		return err;
	len = at->val.len - 1;
	err = gather(g, sizeof(*in), len + BLOB_ALIGN);
	if (err != 0)
		return err;
	in = (struct meta_intent *)g->items + g->count++;
	in->id = meta_get_be64(at->key.data + 8);
	in->len = len;
	memcpy((char *)g->arena + g->used, at->val.data + 1, len);
	g->used += (len + BLOB_ALIGN - 1) / BLOB_ALIGN * BLOB_ALIGN;
	return 0;
}

static void take_intents(struct fdb_run *t)
{
	struct meta_call *c = t->c;
	char *blob = t->g.arena;

	c->intents = t->g.items;
	c->arena = t->g.arena;
	c->count = t->g.count;
	memset(&t->g, 0, sizeof(t->g));
	for (size_t i = 0; i < c->count; i++) {
		c->intents[i].blob = blob;
		blob += (c->intents[i].len + BLOB_ALIGN - 1) / BLOB_ALIGN * BLOB_ALIGN;
	}
}

static int intents(struct fdb_run *t)
{
	const struct fkey end = fkey_id('i', fstore_self(t->st) + 1);

	if (!t->started)
		t->at = fkey_id('i', fstore_self(t->st));
	t->started = true;
	for (;;) {
		const struct frange *r;
		int err = fkv_range(t, &t->at, &end, INTENT_ROWS, true, &r);

		for (size_t i = 0; err == 0 && i < r->count; i++)
			err = intent_add(t, &r->rows[i]);
		if (err != 0)
			return err;
		if (!r->more || r->count == 0)
			break;
		t->at = fkey_of('i', r->rows[r->count - 1].key.data, r->rows[r->count - 1].key.len);
		t->at = fkey_after(&t->at);
		fkv_drop_ranges(t);
	}
	take_intents(t);
	return 0;
}

/* --- Content */

/* A copy of the bytes and a 0 byte behind it. */
static int copy_blob(struct meta_call *c, const struct fval *val, size_t head)
{
	free(c->blob);
	c->blob_len = val->len - head;
	c->blob = malloc(c->blob_len + 1);
	if (c->blob == NULL)
		return -ENOMEM;
	memcpy(c->blob, val->data + head, c->blob_len);
	((char *)c->blob)[c->blob_len] = '\0';
	return 0;
}

static int content(struct fdb_run *t)
{
	const struct fkey k = fkey_id('b', t->c->id);
	struct fval key, val = {.len = 0};
	char buf[STORE_PATH_SIZE];
	struct meta_row row;
	const char *path;
	int bytes = fkv_get(t, &k, &val), err = frow_of_content(t, t->c->id, &key, &row);

	if (err == 0)
		err = frow_path(t, &key, buf, &path);
	if (err == 0 && bytes != -ENOENT)
		err = bytes;
	if (err == 0 && bytes == 0)
		err = frow_version(t, t->c->id, &val, META_BLOB_VERSION, META_BLOB_HEAD);
	if (err != 0)
		return err;
	t->c->rec = row.rec;
	free(t->c->arena);
	t->c->arena = strdup(path);
	if (t->c->arena == NULL)
		return -ENOMEM;
	return bytes == 0 ? copy_blob(t->c, &val, META_BLOB_HEAD) : 0;
}

/* Its pieces, one behind the other. */
static int setting_bytes(struct fdb_run *t, size_t len)
{
	struct meta_call *c = t->c;
	bool waits = false;

	for (unsigned i = 0; i < fset_pieces(len); i++) {
		const struct fkey k = fset_piece(c->id, i);
		size_t at = (size_t)i * STORE_PIECE;
		struct fval val;
		int err = fkv_get(t, &k, &val);

		if (err == -EAGAIN) {
			waits = true;
			continue;
		}
		if (err == -ENOENT || (err == 0 && val.len != MIN(len - at, STORE_PIECE)))
			return errtext_set(&t->et, -EIO, "metadata store %s: setting %llu is damaged",
			    fstore_name(t->st), (unsigned long long)c->id);
		if (err != 0)
			return err;
		if (c->blob != NULL)
			memcpy((char *)c->blob + at, val.data, val.len);
	}
	return waits ? -EAGAIN : 0;
}

static int setting(struct fdb_run *t)
{
	const struct fkey k = fkey_id('s', t->c->id);
	struct meta_call *c = t->c;
	struct fval val;
	size_t len = 0;
	int err = fkv_get(t, &k, &val);

	if (err == 0)
		err = frow_version(t, c->id, &val, META_SETTING_VERSION, STORE_SETTING_HEAD);
	if (err != 0)
		return err;
	for (int i = 0; i < 4; i++)
		len = len << 8 | val.data[META_SETTING_HEAD + i];
	if (len > META_SETTING_MAX)
		return errtext_set(&t->et, -EIO, "metadata store %s: setting %llu is damaged",
		    fstore_name(t->st), (unsigned long long)c->id);
	c->version = meta_get_be64(val.data + 1);
	if (c->blob == NULL)
		c->blob = calloc(1, len + 1);
	c->blob_len = len;
	return c->blob == NULL ? -ENOMEM : setting_bytes(t, len);
}

/* --- The queue */

static int queue_add(struct fdb_run *t, uint64_t id, bool *more)
{
	char buf[STORE_PATH_SIZE];
	struct meta_row row;
	const char *path;
	struct fval key;
	int err = frow_of_content(t, id, &key, &row);

	if (err == 0)
		err = frow_path(t, &key, buf, &path);
	/* Garbage; or damage, of which there are words, and which must not stop the others. */
	if (err == -ENOENT || err == -EIO)
		return 0;
	if (err != 0)
		return err;
	*more = t->g.count == t->c->max;
	return *more ? 0 : gather_entry(&t->g, path, strlen(path), &row.rec);
}

/* One piece; rows that wait for others are asked for side by side. */
static int queue_rows(struct fdb_run *t, const struct frange *r, bool *more)
{
	size_t count = t->g.count, used = t->g.used;
	bool waits = false;

	for (size_t i = 0; i < r->count && !*more; i++) {
		int err;

		if (r->rows[i].key.len != 8 + META_QUEUE_KEY)
			return errtext_set(&t->et, -EIO, "metadata store %s: its queue is damaged",
			    fstore_name(t->st));
		err = queue_add(t, meta_get_be64(r->rows[i].key.data + 16), more);
		if (err != 0 && err != -EAGAIN)
			return err;
		waits = waits || err == -EAGAIN;
	}
	if (!waits)
		return 0;
	t->g.count = count;
	t->g.used = used;
	*more = false;
	return -EAGAIN;
}

static struct fkey queue_end(uint64_t node, uint64_t until)
{
	unsigned char buf[8];

	if (until == UINT64_MAX)
		return fkey_id('q', node + 1);
	meta_put_be64(buf, until + 1);
	return fkey_node('q', node, buf, sizeof(buf));
}

static int queue(struct fdb_run *t)
{
	const struct fkey end = queue_end(t->c->node, t->c->until_ns);
	unsigned char after[META_QUEUE_KEY];
	bool more = false;

	if (!t->started) {
		meta_put_be64(after, t->c->after_ns);
		meta_put_be64(after + 8, t->c->after_id);
		t->at = fkey_node('q', t->c->node, after, sizeof(after));
		t->at = fkey_after(&t->at);
		t->started = true;
	}
	while (key_less(&t->at, &end)) {
		const struct frange *r;
		int err = fkv_range(t, &t->at, &end,
		    (int)MIN(t->c->max - t->g.count + 1, QUEUE_ROWS), true, &r);

		if (err == 0)
			err = queue_rows(t, r, &more);
		if (err != 0)
			return err;
		if (more || !r->more || r->count == 0)
			break;
		t->at = fkey_of('q', r->rows[r->count - 1].key.data, r->rows[r->count - 1].key.len);
		t->at = fkey_after(&t->at);
		fkv_drop_ranges(t);
	}
	take_entries(t, more);
	return 0;
}

int fstore_read(struct fdb_run *t)
{
	switch (t->c->op) {
	case META_OP_GET:
		return get(t);
	case META_OP_SCAN:
		return scan(t);
	case META_OP_INTENTS:
		return intents(t);
	case META_OP_CONTENT:
		return content(t);
	case META_OP_QUEUE:
		return queue(t);
	case META_OP_SETTING:
		return setting(t);
	case META_OP_TXN:
		break;
	}
	return -EINVAL;
}
