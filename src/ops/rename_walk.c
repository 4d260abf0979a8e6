/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the rename of a directory does to each file: several at a time, in slots; what is
 * deleted goes in batches.  An error lets what runs end and begins nothing more: a
 * request that is given up may take effect later, when nobody looks.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/options.h"
#include "cache/upload.h"
#include "ops/rename.h"

#define BATCHES_MAX 2u

struct move_slot {
	TAILQ_ENTRY(move_slot) link;
	struct dirmove *m;
	bool busy, delete; /* delete: the old one, when all is done */
	bool stated;	   /* it was looked at once more */
	uint64_t node;	   /* of the file, or 0 */
	struct ufs_attr was;
	char now[UFS_VERSION_MAX]; /* the version of the copy */
	char src[UFS_PATH_MAX + 1], dst[UFS_PATH_MAX + 1];
	char record[UFS_PATH_MAX + 1]; /* of the namespace */
	struct upload_copy copy;
	struct ufs_stat stat;
	struct ufs_mkdir mkdir;
	struct ufs_rmdir rmdir;
	struct meta_get get;
	struct meta_txn txn;
	struct meta_change change;
};

struct move_batch {
	TAILQ_ENTRY(move_batch) link;
	struct dirmove *m;
	struct ufs_delete del;
	unsigned n;
	char *paths[UFS_DELETE_MAX];
	int errs[UFS_DELETE_MAX];
};

/* --- The end of the walk */

static void batch_send(struct dirmove *m);

static void walk_check(struct dirmove *m)
{
	if (m->walking || m->busy > 0)
		return;
	if (m->filling != NULL && m->walk_err == 0) {
		batch_send(m);
		return;
	}
	m->walked(m, m->walk_err);
}

static void one_ended(struct dirmove *m, int err)
{
	m->busy--;
	if (err != 0 && m->walk_err == 0)
		m->walk_err = err;
	if (m->visiting)
		return; /* visit() sees the error, and the walk its end */
	if (m->walk_err != 0 && m->walking) {
		walk_abort(&m->walk);
		m->walking = false;
	}
	if (m->walking)
		walk_resume(&m->walk);
	walk_check(m);
}

void move_walk_give_up(struct dirmove *m, int err)
{
	if (!m->walking && m->busy == 0)
		return;
	m->busy++;
	one_ended(m, err);
}

/* --- Batches */

static void batch_free(struct move_batch *b)
{
	while (b->n > 0)
		free(b->paths[--b->n]);
	free(b);
}

static void batch_done(struct ufs_req *r, int err)
{
	struct move_batch *b = r->user;
	struct dirmove *m = b->m;

	for (unsigned i = 0; err == 0 && i < b->n; i++)
		err = b->errs[i];
	TAILQ_REMOVE(&m->batches, b, link);
	batch_free(b);
	one_ended(m, err);
}

static void batch_send(struct dirmove *m)
{
	struct move_batch *b = m->filling;

	m->filling = NULL;
	TAILQ_INSERT_TAIL(&m->batches, b, link);
	m->busy++;
	b->del.paths = (const char *const *)b->paths;
	b->del.n = b->n;
	b->del.errs = b->errs;
	b->del.req.user = b;
	ufs_delete(m->ufs, &b->del, batch_done);
}

static int batch_add(struct dirmove *m, const char *path)
{
	struct move_batch *b = m->filling;

	if (b == NULL) {
		b = calloc(1, sizeof(*b));
		if (b == NULL)
			return -ENOMEM;
		b->m = m;
		m->filling = b;
	}
	b->paths[b->n] = strdup(path);
	if (b->paths[b->n] == NULL)
		return -ENOMEM;
	if (++b->n == UFS_DELETE_MAX)
		batch_send(m);
	return 0;
}

/* --- Slots */

static struct move_slot *slot_get(struct dirmove *m)
{
	struct move_slot *s;

	TAILQ_FOREACH(s, &m->slots, link)
	if (!s->busy)
		break;
	if (s == NULL) {
		s = malloc(sizeof(*s));
		if (s == NULL)
			return NULL;
		TAILQ_INSERT_TAIL(&m->slots, s, link);
		m->nslots++;
	} else {
		TAILQ_REMOVE(&m->slots, s, link);
		TAILQ_INSERT_TAIL(&m->slots, s, link);
	}
	memset((char *)s + offsetof(struct move_slot, m), 0,
	    sizeof(*s) - offsetof(struct move_slot, m));
	s->m = m;
	s->busy = true;
	m->busy++;
	return s;
}

static void slot_end(struct move_slot *s, int err)
{
	/* The free ones are in front. */
	s->busy = false;
	TAILQ_REMOVE(&s->m->slots, s, link);
	TAILQ_INSERT_HEAD(&s->m->slots, s, link);
	one_ended(s->m, err);
}

static int join(char *out, const char *dir, const char *path)
{
	int n = snprintf(out, UFS_PATH_MAX + 1, "%s%s%s", dir, *path != '\0' ? "/" : "", path);

	return n > UFS_PATH_MAX ? -ENAMETOOLONG : 0;
}

static int slot_paths(struct move_slot *s, const char *path)
{
	int err = join(s->src, s->m->src, path);

	if (err == 0)
		err = join(s->dst, s->m->dst, path);
	return err == 0 ? join(s->record, s->m->in.dst, path) : err;
}

/* --- A file: its record, then the deletion of the old one */

void moved_record(struct meta_record *out, const struct meta_record *old,
    const struct ufs_attr *was, const char *version)
{
	bool timed = old != NULL && (old->has & META_HAS_MTIME) != 0 &&
		     strcmp(old->version, was->version) == 0;
	struct ufs_set set = {.what = timed ? 0 : UFS_SET_MTIME, .mtime = was->mtime};

	attr_record(out, old, was, &set);
	/* What it accounted for is the old name's; persisted, as all that may be moved. */
	out->has &= ~META_HAS_CONTENT;
	memset(&out->content, 0, sizeof(out->content));
	memset(out->version, 0, sizeof(out->version));
	memcpy(out->version, version, strnlen(version, sizeof(out->version) - 1));
}

static void slot_delete(struct move_slot *s)
{
	slot_end(s, batch_add(s->m, s->src));
}

static void record_put(struct meta_req *r, int err)
{
	struct move_slot *s = r->user;

	if (err != 0)
		slot_end(s, err);
	else
		slot_delete(s);
}

static void record_got(struct meta_req *r, int err)
{
	struct move_slot *s = r->user;
	const struct meta_record *old = &s->get.rec;

	if (err != 0 && err != -ENOENT) {
		slot_end(s, err);
		return;
	}
	if (err == 0 && (old->has & META_HAS_MTIME) != 0 && strcmp(old->version, s->now) == 0) {
		slot_delete(s);
		return;
	}
	s->change.verb = META_PUT;
	s->change.path = s->record;
	moved_record(&s->change.rec, err == 0 ? old : NULL, &s->was, s->now);
	s->txn.changes = &s->change;
	s->txn.n = 1;
	s->txn.req.user = s;
	meta_txn(s->m->fs->meta, &s->txn, record_put);
}

static void slot_record(struct move_slot *s)
{
	if (s->m->fs->meta == NULL || attr_native(s->m->fs, s->record)) {
		slot_delete(s);
		return;
	}
	s->get.path = s->record;
	s->get.req.user = s;
	meta_get(s->m->fs->meta, &s->get, record_got);
}

/* --- A file: the copy */

static void slot_copy(struct move_slot *s);

static void file_stated(struct ufs_req *r, int err)
{
	struct move_slot *s = r->user;

	s->stated = true;
	if (err == -ENOENT || (err == 0 && s->stat.attr.kind != UFS_FILE)) {
		slot_end(s, 0); /* somebody else has deleted it */
		return;
	}
	if (err != 0) {
		slot_end(s, err);
		return;
	}
	s->was = s->stat.attr;
	slot_copy(s);
}

static void file_copied(struct upload_copy *c, int err)
{
	struct move_slot *s = c->user;

	if ((err == -ENOENT || err == -ESTALE) && !s->stated) {
		s->stat.path = s->src;
		s->stat.req.user = s;
		ufs_stat(s->m->ufs, &s->stat, file_stated);
		return;
	}
	if (err == 0)
		memcpy(s->now, s->copy.attr.version, sizeof(s->now));
	if (err == 0 && s->node != 0 && s->m->in.phase == MOVE_COPY &&
	    strcmp(s->was.version, s->now) != 0)
		err = move_note_version(s->m, s->node, s->was.version, s->now);
	if (err == 0 && s->delete)
		slot_record(s);
	else
		slot_end(s, err);
}

static void slot_copy(struct move_slot *s)
{
	s->copy.src = s->src;
	s->copy.src_version = s->was.version;
	s->copy.size = s->was.size;
	s->copy.dst = s->dst;
	s->copy.done = file_copied;
	s->copy.user = s;
	upload_copy(s->m->fs->uploads, s->m->ufs, &s->copy);
}

static bool same_content(const struct ufs_attr *a, const struct ufs_attr *b)
{
	return a->size == b->size && strcmp(a->version, b->version) == 0;
}

static bool later(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

/* DELETE: is the copy what is to stay?  Not if it is not there, or if somebody else has
 * written the old one since. */
static bool copy_stands(const struct walk_item *it)
{
	return it->other != NULL && (same_content(it->attr, it->other) ||
					!later(&it->attr->mtime, &it->other->mtime));
}

static int begin_file(struct dirmove *m, const struct walk_item *it)
{
	struct move_slot *s;
	struct node n;
	int err;

	/* Copied by whoever began it. */
	if (m->in.phase == MOVE_COPY && it->other != NULL && same_content(it->attr, it->other))
		return 0;
	s = slot_get(m);
	if (s == NULL)
		return -ENOMEM;
	s->was = *it->attr;
	s->delete = m->in.phase == MOVE_DELETE;
	if (it->up != 0 && node_find(m->fs, it->up, it->name, &n) == 0 &&
	    (n.flags & NODE_REPLACED) == 0)
		s->node = n.id;
	err = slot_paths(s, it->path);
	if (err != 0) {
		s->busy = false;
		m->busy--;
		return err;
	}
	if (s->delete && copy_stands(it)) {
		memcpy(s->now, it->other->version, sizeof(s->now));
		slot_record(s);
	} else {
		slot_copy(s);
	}
	return 0;
}

/* --- A directory */

static void dir_done(struct ufs_req *r, int err)
{
	slot_end(r->user, err == -ENOENT ? 0 : err);
}

static int begin_dir(struct dirmove *m, const char *path, bool make, bool below_dst)
{
	struct move_slot *s = slot_get(m);
	int err;

	if (s == NULL)
		return -ENOMEM;
	err = slot_paths(s, path);
	if (err != 0) {
		s->busy = false;
		m->busy--;
		return err;
	}
	if (make) {
		s->mkdir.path = s->dst;
		s->mkdir.req.user = s;
		ufs_mkdir(m->ufs, &s->mkdir, dir_done);
	} else {
		s->rmdir.path = below_dst ? s->dst : s->src;
		s->rmdir.req.user = s;
		ufs_rmdir(m->ufs, &s->rmdir, dir_done);
	}
	return 0;
}

/* The node of a directory, for those of the files in it. */
static uint64_t dir_node(struct dirmove *m, const struct walk_item *it)
{
	struct node n;
	int err;

	if (*it->path == '\0')
		err = node_by_path(m->fs, m->in.src, &n);
	else
		err = it->up != 0 ? node_find(m->fs, it->up, it->name, &n) : -ENOENT;
	return err == 0 ? n.id : 0;
}

/* --- The three ways through a tree */

static int visit_copy(struct dirmove *m, const struct walk_item *it)
{
	/* It cannot be named, so it would stay behind. */
	if (m->walk.hidden)
		return -EINVAL;
	switch (it->what) {
	case WALK_FILE:
		return begin_file(m, it);
	case WALK_ENTER:
		*it->tag = dir_node(m, it);
		return begin_dir(m, it->path, true, true);
	case WALK_LEAVE:
		break;
	}
	return 0;
}

static int visit_delete(struct dirmove *m, const struct walk_item *it)
{
	switch (it->what) {
	case WALK_FILE:
		return begin_file(m, it);
	case WALK_ENTER:
		return it->other != NULL ? 0 : begin_dir(m, it->path, true, true);
	case WALK_LEAVE:
		return begin_dir(m, it->path, false, false);
	}
	return 0;
}

static int visit_undo(struct dirmove *m, const struct walk_item *it)
{
	char path[UFS_PATH_MAX + 1];
	int err;

	switch (it->what) {
	case WALK_FILE:
		err = it->other != NULL ? join(path, m->dst, it->path) : 0;
		return err == 0 && it->other != NULL ? batch_add(m, path) : err;
	case WALK_ENTER:
		return it->other != NULL ? 0 : WALK_SKIP;
	case WALK_LEAVE:
		return *it->path == '\0' && m->in.dst_was ? 0 : begin_dir(m, it->path, false, true);
	}
	return 0;
}

static unsigned running_batches(const struct dirmove *m)
{
	const struct move_batch *b;
	unsigned n = 0;

	TAILQ_FOREACH(b, &m->batches, link)
	n++;
	return n;
}

static int visit(struct walk *w, const struct walk_item *it)
{
	struct dirmove *m = w->user;
	int n;

	m->visiting = true;
	if (m->in.phase == MOVE_COPY)
		n = visit_copy(m, it);
	else if (m->in.phase == MOVE_DELETE)
		n = visit_delete(m, it);
	else
		n = visit_undo(m, it);
	m->visiting = false;
	if (m->walk_err != 0)
		return m->walk_err;
	if (n == 0 && (m->busy >= m->fs->env.cfg->rename_parallel ||
			  running_batches(m) >= BATCHES_MAX))
		n = WALK_PAUSE;
	return n;
}

static void walk_over(struct walk *w, int err)
{
	struct dirmove *m = w->user;

	m->walking = false;
	if (err == 0 && m->in.phase == MOVE_COPY && w->hidden)
		err = -EINVAL;
	if (err != 0 && m->walk_err == 0)
		m->walk_err = err;
	walk_check(m);
}

void move_walk(struct dirmove *m, void (*walked)(struct dirmove *m, int err))
{
	bool undo = m->in.phase == MOVE_UNDO;

	m->walked = walked;
	m->walk_err = 0;
	m->walking = true;
	memset(&m->walk, 0, sizeof(m->walk));
	m->walk.ufs = m->ufs;
	m->walk.top = undo ? m->dst : m->src;
	m->walk.beside = undo ? m->src : m->dst;
	/* Nothing is there yet. */
	if (m->in.phase == MOVE_COPY && !m->resumed)
		m->walk.beside = NULL;
	m->walk.visit = visit;
	m->walk.done = walk_over;
	m->walk.user = m;
	walk_start(&m->walk, m->fs->env.loop);
}

static void slot_abort(struct move_slot *s)
{
	upload_copy_abort(&s->copy);
	ufs_abort(&s->stat.req);
	ufs_abort(&s->mkdir.req);
	ufs_abort(&s->rmdir.req);
	meta_abort(&s->get.req);
	meta_abort(&s->txn.req);
}

void move_walk_abort(struct dirmove *m)
{
	struct move_batch *b;
	struct move_slot *s;

	walk_abort(&m->walk);
	m->walking = false;
	while ((s = TAILQ_FIRST(&m->slots)) != NULL) {
		TAILQ_REMOVE(&m->slots, s, link);
		if (s->busy)
			slot_abort(s);
		free(s);
	}
	m->nslots = 0;
	while ((b = TAILQ_FIRST(&m->batches)) != NULL) {
		TAILQ_REMOVE(&m->batches, b, link);
		ufs_abort(&b->del.req);
		batch_free(b);
	}
	if (m->filling != NULL)
		batch_free(m->filling);
	m->filling = NULL;
	m->busy = 0;
}
