/* SPDX-License-Identifier: BSD-2-Clause */
/* Rows and the way to them, and what is kept beside them (records.h). */
#include <errno.h>
#include <string.h>

#include "meta/fdb_priv.h"

int frow_decode(struct fdb_run *t, const struct fval *key, const struct fval *val,
    struct meta_row *row)
{
	int err = key->len < 8 ? -EIO : meta_row_decode(row, val->data, val->len);
	int len = key->len < 8 ? 0 : (int)key->len - 8;
	const char *name = (const char *)key->data + 8;

	if (err == 0)
		return 0;
	if (err == -EPROTO)
		errtext_set(&t->et, err,
		    "metadata store %s: record of '%.*s' (for '%s') is of version %u, which this "
		    "build does not know: use the batonfs that wrote it",
		    fstore_name(t->st), len, name, t->path, val->data[0]);
	else
		errtext_set(&t->et, err, "metadata store %s: record of '%.*s' (for '%s') is damaged",
		    fstore_name(t->st), len, name, t->path);
	return -EIO;
}

static struct fkey key_at(const struct fstep *at)
{
	return fkey_row(at->dir, at->name, at->len);
}

static struct fval bare(const struct fkey *k)
{
	return (struct fval){.data = k->b + 1, .len = k->len - 1};
}

int frow_get(struct fdb_run *t, const struct fstep *at, struct meta_row *row)
{
	const struct fkey k = key_at(at);
	const struct fval key = bare(&k);
	struct fval val;
	int err = fkv_get(t, &k, &val);

	return err != 0 ? err : frow_decode(t, &key, &val, row);
}

static int tree_put(struct fdb_run *t, const struct fkey *k, const struct meta_row *row)
{
	unsigned char buf[META_ROW_MAX];
	size_t len = meta_row_encode(row, buf);

	t->delta[COUNT_ROWS]++;
	t->delta[COUNT_SIZE] += (int64_t)(k->len + len);
	return fkv_set(t, k, NULL, 0, buf, len);
}

static void uncount(struct fdb_run *t, const struct fkey *k, const struct meta_row *was)
{
	unsigned char buf[META_ROW_MAX];

	t->delta[COUNT_ROWS]--;
	t->delta[COUNT_SIZE] -= (int64_t)(k->len + meta_row_encode(was, buf));
}

int frow_put(struct fdb_run *t, const struct fstep *at, const struct meta_row *was,
    const struct meta_row *row)
{
	const struct fkey k = key_at(at);
	const struct fval key = bare(&k);
	int err = frow_index(t, &key, was, row);

	if (was != NULL)
		uncount(t, &k, was);
	return err != 0 ? err : tree_put(t, &k, row);
}

int frow_del(struct fdb_run *t, const struct fstep *at, const struct meta_row *was)
{
	const struct fkey k = key_at(at);
	const struct fval key = bare(&k);
	int err = frow_index(t, &key, was, NULL);

	uncount(t, &k, was);
	return err != 0 ? err : fkv_clear(t, &k);
}

static int put_key(struct fdb_run *t, char table, uint64_t id, const struct fval *key)
{
	const struct fkey k = fkey_id(table, id);

	return fkv_set(t, &k, NULL, 0, key->data, key->len);
}

static int del_id(struct fdb_run *t, char table, uint64_t id)
{
	const struct fkey k = fkey_id(table, id);

	return fkv_clear(t, &k);
}

int frow_move(struct fdb_run *t, const struct fstep *from, const struct fstep *to,
    const struct meta_row *was, const struct meta_row *row)
{
	const struct fkey old = key_at(from), k = key_at(to);
	const struct fval key = bare(&k);
	const struct meta_content *ct = meta_content_of(&row->rec);
	int err = 0;

	if (row->dir != META_DIR_NONE)
		err = put_key(t, 'p', row->dir, &key);
	if (err == 0 && ct != NULL)
		err = put_key(t, 'n', ct->id, &key);
	if (err == 0)
		err = tree_put(t, &k, row);
	uncount(t, &old, was);
	return err != 0 ? err : fkv_clear(t, &old);
}

/* --- The way */

/* A new directory's id: the same one in each pass. */
static int new_dir(struct fdb_run *t, uint64_t *dir)
{
	if (t->dirs_used == t->ndirs) {
		uint64_t *p = realloc(t->dirs, (t->ndirs + 1) * sizeof(*p));

		if (p == NULL)
			return -ENOMEM;
		t->dirs = p;
		do
			p[t->ndirs] = meta_intent_id();
		while (p[t->ndirs] < META_DIR_FIRST || p[t->ndirs] == UINT64_MAX);
		t->ndirs++;
	}
	*dir = t->dirs[t->dirs_used++];
	return 0;
}

/* The id of the directory that a step of the way leads into. */
static int enter(struct fdb_run *t, const struct fstep *at, bool make, uint64_t *dir)
{
	struct meta_row was, row = {.rec.kind = META_PASS};
	int err = frow_get(t, at, &was);
	bool had = err == 0;

	if (err == -ENOENT && make)
		err = 0;
	if (err != 0)
		return err;
	if (had)
		row = was;
	if (row.rec.kind == META_FILE)
		return -ENOTDIR;
	if (row.dir == META_DIR_NONE) {
		if (!make)
			return -ENOENT;
		if (t->dirs_used == 0)
			t->made = key_at(at);
		err = new_dir(t, &row.dir);
		if (err == 0)
			err = frow_put(t, at, had ? &was : NULL, &row);
	}
	*dir = row.dir;
	return err;
}

int frow_walk(struct fdb_run *t, const char *path, bool make, struct fway *way)
{
	struct fstep *at = &way->step[0];
	int err;

	t->path = path;
	*at = (struct fstep){.dir = META_DIR_NONE, .name = path, .len = 0};
	way->n = 1;
	if (*path == '\0')
		return 0;
	at->dir = META_DIR_TOP;
	for (;;) {
		uint64_t dir;

		at->name = path;
		at->len = strcspn(path, "/");
		if (path[at->len] == '\0')
			return 0;
		err = enter(t, at, make, &dir);
		if (err != 0)
			return err;
		path += at->len + 1;
		at = &way->step[way->n++];
		at->dir = dir;
	}
}

/* --- Beside the rows */

/* The key of a row that an id stands for. */
static int key_of_id(struct fdb_run *t, char table, uint64_t id, struct fval *key)
{
	const struct fkey k = fkey_id(table, id);
	int err = fkv_get(t, &k, key);

	if (err == 0 && (key->len < 8 || key->len > META_KEY_MAX))
		return errtext_set(&t->et, -EIO, "metadata store %s: damaged: %c %016llx",
		    fstore_name(t->st), table, (unsigned long long)id);
	return err;
}

int frow_path(struct fdb_run *t, const struct fval *key, char buf[STORE_PATH_SIZE],
    const char **path)
{
	struct fval at = *key;
	size_t room = STORE_PATH_SIZE - 1;

	buf[room] = '\0';
	for (;;) {
		uint64_t dir = meta_get_be64(at.data);
		int err;

		/* So long that it goes in circles, or might as well. */
		if (room < at.len - 8 + 1)
			return errtext_set(&t->et, -EIO,
			    "metadata store %s: damaged: the way from '%.100s' up does not end",
			    fstore_name(t->st), buf + room);
		room -= at.len - 8;
		memcpy(buf + room, at.data + 8, at.len - 8);
		if (dir == META_DIR_TOP)
			break;
		buf[--room] = '/';
		err = key_of_id(t, 'p', dir, &at);
		if (err != 0)
			return err;
	}
	*path = buf + room;
	return 0;
}

int frow_of_content(struct fdb_run *t, uint64_t id, struct fval *key, struct meta_row *row)
{
	int err = key_of_id(t, 'n', id, key);
	const struct meta_content *ct;
	struct fval val;
	struct fkey k;

	if (err != 0)
		return err;
	k = fkey_of('t', key->data, key->len);
	err = fkv_get(t, &k, &val);
	if (err == 0) {
		err = frow_decode(t, key, &val, row);
		if (err != 0)
			return err;
		ct = meta_content_of(&row->rec);
		if (ct != NULL && ct->id == id)
			return 0;
	} else if (err != -ENOENT) {
		return err;
	}
	return errtext_set(&t->et, -EIO,
	    "metadata store %s: damaged: the record of '%.*s' has not content %016llx",
	    fstore_name(t->st), (int)key->len - 8, (const char *)key->data + 8,
	    (unsigned long long)id);
}

int frow_version(struct fdb_run *t, uint64_t id, const struct fval *val, unsigned version,
    size_t head)
{
	if (val->len > 0 && val->data[0] != version)
		return errtext_set(&t->et, -EIO,
		    "metadata store %s: %016llx is of version %u, which this build does not know: "
		    "use the batonfs that wrote it",
		    fstore_name(t->st), (unsigned long long)id, val->data[0]);
	if (val->len < head)
		return errtext_set(&t->et, -EIO, "metadata store %s: %016llx is damaged",
		    fstore_name(t->st), (unsigned long long)id);
	return 0;
}

/* Another row may have had the content when its directory was deleted, and wait in the
 * garbage: it waits no longer. */
static int take_content(struct fdb_run *t, const struct fval *key, uint64_t id)
{
	char buf[STORE_PATH_SIZE];
	struct meta_row other;
	struct fval holder;
	struct fkey copy;
	const char *path;
	struct fstep at;
	int err = frow_of_content(t, id, &holder, &other);

	if (err != 0)
		return err == -ENOENT ? 0 : err;
	if (holder.len == key->len && memcmp(holder.data, key->data, key->len) == 0)
		return 0;
	err = frow_path(t, &holder, buf, &path);
	if (err != -ENOENT)
		return err != 0 ? err : -EEXIST;
	copy = fkey_of('t', holder.data, holder.len); /* it goes with what it is found by */
	at = (struct fstep){.dir = meta_get_be64(copy.b + 1),
	    .name = (const char *)copy.b + 9,
	    .len = copy.len - 9};
	return frow_del(t, &at, &other);
}

static int index_queue(
    struct fdb_run *t, const struct meta_content *was, const struct meta_content *ct)
{
	unsigned char old[META_QUEUE_KEY], new[META_QUEUE_KEY];
	uint64_t from = was != NULL ? was->node : 0, to = ct != NULL ? ct->node : 0;
	bool in = was != NULL && meta_content_queued(was);
	bool wants = ct != NULL && meta_content_queued(ct);
	struct fkey k;
	int err = 0;

	if (in)
		meta_queue_key(old, was);
	if (wants)
		meta_queue_key(new, ct);
	if (in && wants && from == to && memcmp(old, new, sizeof(old)) == 0)
		return 0;
	if (in) {
		k = fkey_node('q', from, old, sizeof(old));
		err = fkv_clear(t, &k);
	}
	if (err == 0 && wants) {
		k = fkey_node('q', to, new, sizeof(new));
		err = fkv_set(t, &k, NULL, 0, NULL, 0);
	}
	return err;
}

static int count(struct fdb_run *t, const struct meta_content *ct, int64_t sign)
{
	const int64_t bytes = (int64_t)ct->size;
	int err = fkv_count(t, ct->node, COUNT_FILES + ct->state, sign);

	if (err == 0)
		err = fkv_count(
		    t, ct->node, COUNT_BYTES + ct->state, sign < 0 ? -bytes : bytes);
	return err;
}

static int index_content(struct fdb_run *t, const struct fval *key,
    const struct meta_content *was, const struct meta_content *ct)
{
	bool same = was != NULL && ct != NULL && was->id == ct->id;
	int err = 0;

	if (ct != NULL && !same)
		err = take_content(t, key, ct->id);
	if (err == 0 && was != NULL && !same)
		err = del_id(t, 'n', was->id);
	if (err == 0 && ct != NULL && !same)
		err = put_key(t, 'n', ct->id, key);
	if (err == 0)
		err = index_queue(t, was, ct);
	if (err == 0 && was != NULL &&
	    (!same || ct->state == META_STATE_PERSISTED || ct->size != was->size))
		err = del_id(t, 'b', was->id);
	if (err == 0 && was != NULL)
		err = count(t, was, -1);
	if (err == 0 && ct != NULL)
		err = count(t, ct, 1);
	return err;
}

int frow_index(struct fdb_run *t, const struct fval *key, const struct meta_row *was,
    const struct meta_row *row)
{
	const struct meta_content *old = was != NULL ? meta_content_of(&was->rec) : NULL;
	const struct meta_content *ct = row != NULL ? meta_content_of(&row->rec) : NULL;
	uint64_t from = was != NULL ? was->dir : META_DIR_NONE;
	uint64_t to = row != NULL ? row->dir : META_DIR_NONE;
	int err = 0;

	if (from != to && from != META_DIR_NONE)
		err = del_id(t, 'p', from);
	if (err == 0 && from != to && to != META_DIR_NONE)
		err = put_key(t, 'p', to, key);
	if (err != 0 || (old == NULL && ct == NULL))
		return err;
	return index_content(t, key, old, ct);
}
