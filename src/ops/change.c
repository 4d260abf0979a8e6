/* SPDX-License-Identifier: BSD-2-Clause */
#include "ops/change.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ops/session.h"
#include "ops/unlinked.h"

#define EMPTY_TRIES 8

bool path_is_mount(const struct fs *fs, const char *path)
{
	const char *sub;
	struct ufs *ufs;

	fs_place(fs, path, &ufs, &sub);
	return *sub == '\0' || (fs->tree != NULL && ufs_tree_leads_on(fs->tree, path));
}

bool path_within(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return n == 0 || (strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0'));
}

/* --- name_look */

static void look_answer(struct deferred *d)
{
	struct name_look *l = container_of(d, struct name_look, run);

	l->done(l, l->err);
}

static void look_end(struct name_look *l, int err)
{
	l->err = err;
	loop_defer(l->fs->env.loop, &l->run, look_answer);
}

static void look_ask(struct name_look *l);

/* What the storage said before a change made here is not to be believed. */
static int look_take(struct name_look *l, int err)
{
	struct fs *fs = l->fs;

	if (err == -ENOENT) {
		err = node_unbind(fs, l->parent, l->name);
		return err != 0 ? err : -ENOENT;
	}
	if (err != 0)
		return err;
	return node_bind(fs, l->parent, l->name, l->path, &l->get.attr, &l->n);
}

static void look_asked(struct attr_get *g, int err)
{
	struct name_look *l = g->user;

	l->asking = false;
	if ((err == 0 || err == -ENOENT) &&
	    fs_touched_since(l->fs, l->parent, l->name, l->when))
		look_ask(l);
	else
		l->done(l, look_take(l, err));
}

static void look_ask(struct name_look *l)
{
	l->when = l->fs->changes;
	l->asking = true;
	l->get.path = l->path;
	l->get.user = l;
	attr_get_start(l->fs, &l->get, look_asked);
}

void name_look_again(
    struct fs *fs, struct name_look *l, void (*done)(struct name_look *l, int err))
{
	l->fs = fs;
	l->done = done;
	l->local = false;
	memset(&l->run, 0, sizeof(l->run));
	look_ask(l);
}

void name_look(struct fs *fs, struct name_look *l, void (*done)(struct name_look *l, int err))
{
	const struct session *s;
	int err = node_find(fs, l->parent, l->name, &l->n);

	if (err == -ENOENT || (err == 0 && (l->n.flags & NODE_REPLACED) != 0)) {
		name_look_again(fs, l, done);
		return;
	}
	s = err == 0 ? session_of(fs, l->n.id) : NULL;
	if (s != NULL && s->state == SESSION_ORPHAN)
		s = NULL;
	if (err == 0 && s == NULL && !node_fresh(fs, &l->n)) {
		name_look_again(fs, l, done);
		return;
	}
	l->fs = fs;
	l->done = done;
	l->local = s != NULL && s->created && !s->doubt && s->uploading == NULL;
	memset(&l->run, 0, sizeof(l->run));
	look_end(l, err);
}

void name_look_abort(struct name_look *l)
{
	if (l->fs == NULL)
		return;
	if (l->asking)
		attr_get_abort(&l->get);
	l->asking = false;
	loop_undefer(l->fs->env.loop, &l->run);
}

/* --- dir_empty */

struct written {
	uint64_t dir;
	bool found;
};

static void see_session(struct session *s, void *arg)
{
	struct written *b = arg;
	struct node n;

	if (s->state != SESSION_ORPHAN && node_load(s->fs, s->node, &n) == 0 &&
	    n.parent == b->dir && (n.flags & NODE_REPLACED) == 0)
		b->found = true;
}

static void empty_answer(struct deferred *d)
{
	struct dir_empty *e = container_of(d, struct dir_empty, run);

	e->done(e, e->err);
}

static void empty_listed(struct ufs_req *r, int err);

static void empty_list(struct dir_empty *e, struct ufs *ufs)
{
	e->list.req.user = e;
	e->listing = true;
	ufs_list(ufs, &e->list, empty_listed);
}

/* What is listed is there, -ENOTEMPTY, or gone here; -EAGAIN: it may have been deleted
 * since. */
static int empty_entry(const struct dir_empty *e, const struct ufs_entry *en)
{
	char path[UFS_PATH_MAX + UFS_NAME_MAX + 2];

	snprintf(path, sizeof(path), "%s%s%s", e->path, *e->path != '\0' ? "/" : "", en->name);
	if (unlinked_hides(e->fs, path))
		return 0;
	return fs_touched_since(e->fs, e->node, en->name, e->when) && e->tries < EMPTY_TRIES
		   ? -EAGAIN
		   : -ENOTEMPTY;
}

static int empty_page(const struct dir_empty *e)
{
	int err = e->list.hidden ? -ENOTEMPTY : 0;

	for (size_t i = 0; i < e->list.count && err == 0; i++)
		err = empty_entry(e, &e->list.entries[i]);
	return err;
}

static void empty_listed(struct ufs_req *r, int err)
{
	struct dir_empty *e = r->user;
	const char *path = e->list.path;
	struct ufs *ufs = r->ufs;

	e->listing = false;
	if (err == 0)
		err = empty_page(e);
	if (err == 0 && e->list.more) {
		if (e->list.count > 0) {
			const struct ufs_entry *last = &e->list.entries[e->list.count - 1];

			memcpy(e->after, last->name, last->name_len + 1);
			e->list.after = e->after;
			e->list.after_kind = last->attr.kind;
		}
		empty_list(e, ufs);
		return;
	}
	ufs_list_free(&e->list);
	if (err == -EAGAIN) {
		memset(&e->list, 0, sizeof(e->list));
		e->list.path = path;
		e->tries++;
		e->when = e->fs->changes;
		empty_list(e, ufs);
		return;
	}
	e->done(e, err);
}

static void empty_end(struct dir_empty *e, int err)
{
	e->err = err;
	loop_defer(e->fs->env.loop, &e->run, empty_answer);
}

static void empty_storage(struct dir_empty *e)
{
	struct fs *fs = e->fs;
	struct ufs *ufs;
	const char *sub;

	fs_place(fs, e->path, &ufs, &sub);
	/* A storage that has directories says so itself when one is removed. */
	if ((ufs_can(ufs) & UFS_CAN_RENAME) != 0) {
		empty_end(e, 0);
		return;
	}
	e->list.path = sub;
	e->tries = 0;
	e->when = fs->changes;
	empty_list(e, ufs);
}

static void empty_below(struct below *b, int err)
{
	struct dir_empty *e = b->user;

	if (err == 0 && b->found)
		err = -ENOTEMPTY;
	if (err != 0)
		empty_end(e, err);
	else
		empty_storage(e);
}

void dir_empty(struct fs *fs, struct dir_empty *e, void (*done)(struct dir_empty *e, int err))
{
	struct written w = {.dir = e->node};

	e->fs = fs;
	e->done = done;
	memset(&e->run, 0, sizeof(e->run));
	memset(&e->list, 0, sizeof(e->list));
	session_foreach(fs, see_session, &w);
	if (w.found) {
		empty_end(e, -ENOTEMPTY);
	} else if (attr_any_unpersisted(fs)) {
		e->below.path = e->path;
		e->below.user = e;
		below_start(fs, &e->below, empty_below);
	} else {
		empty_storage(e);
	}
}

void dir_empty_abort(struct dir_empty *e)
{
	if (e->fs == NULL)
		return;
	if (e->listing)
		ufs_abort(&e->list.req);
	e->listing = false;
	ufs_list_free(&e->list);
	below_abort(&e->below);
	loop_undefer(e->fs->env.loop, &e->run);
}

/* --- dir_mark */

static void mark_answer(struct deferred *d)
{
	struct dir_mark *m = container_of(d, struct dir_mark, run);

	m->done(m, m->err);
}

static void mark_made(struct ufs_req *r, int err)
{
	struct dir_mark *m = r->user;
	struct node n;

	m->making = false;
	/* If it cannot be noted, the next change makes it once more. */
	if (err == 0 && m->node != 0 && node_load(m->fs, m->node, &n) == 0) {
		n.flags |= NODE_MARKED;
		(void)node_store(m->fs, &n);
	}
	m->done(m, err);
}

void dir_mark(struct fs *fs, struct dir_mark *m, void (*done)(struct dir_mark *m, int err))
{
	const char *slash = strrchr(m->child, '/');
	size_t len = slash != NULL ? (size_t)(slash - m->child) : 0;
	const char *sub;
	struct ufs *ufs;
	struct node n;

	m->fs = fs;
	m->done = done;
	memset(&m->run, 0, sizeof(m->run));
	memcpy(m->path, m->child, len);
	m->path[len] = '\0';
	fs_place(fs, m->path, &ufs, &sub);
	/* The top of a storage is there without. */
	if (*sub == '\0' || (ufs_can(ufs) & UFS_CAN_RENAME) != 0 ||
	    (m->node != 0 && node_load(fs, m->node, &n) == 0 && (n.flags & NODE_MARKED) != 0)) {
		m->err = 0;
		loop_defer(fs->env.loop, &m->run, mark_answer);
		return;
	}
	m->making = true;
	m->mkdir.path = sub;
	m->mkdir.req.user = m;
	ufs_mkdir(ufs, &m->mkdir, mark_made);
}

void dir_mark_abort(struct dir_mark *m)
{
	if (m->fs == NULL)
		return;
	if (m->making)
		ufs_abort(&m->mkdir.req);
	m->making = false;
	loop_undefer(m->fs->env.loop, &m->run);
}

/* --- record_look */

static void record_answer(struct deferred *d)
{
	struct record_look *l = container_of(d, struct record_look, run);

	l->done(l, l->err);
}

static void record_scanned(struct meta_req *r, int err)
{
	struct record_look *l = r->user;

	l->found = err == 0 && l->scan.count > 0;
	meta_scan_free(&l->scan);
	l->done(l, err == -ENOENT ? 0 : err);
}

static void record_got(struct meta_req *r, int err)
{
	struct record_look *l = r->user;

	l->found = err == 0;
	if (err == 0)
		l->rec = l->get.rec;
	if (err == -ENOENT && l->dir) {
		l->scan.path = l->path;
		l->scan.max = 1;
		l->scan.req.user = l;
		meta_scan(l->fs->meta, &l->scan, record_scanned);
		return;
	}
	l->done(l, err == -ENOENT ? 0 : err);
}

void record_look(
    struct fs *fs, struct record_look *l, void (*done)(struct record_look *l, int err))
{
	l->fs = fs;
	l->done = done;
	l->found = false;
	l->err = 0;
	memset(&l->rec, 0, sizeof(l->rec));
	memset(&l->run, 0, sizeof(l->run));
	memset(&l->scan, 0, sizeof(l->scan));
	if (fs->meta == NULL || (attr_native(fs, l->path) && !attr_any_content(fs))) {
		loop_defer(fs->env.loop, &l->run, record_answer);
		return;
	}
	l->get.path = l->path;
	l->get.req.user = l;
	meta_get(fs->meta, &l->get, record_got);
}

void record_look_abort(struct record_look *l)
{
	if (l->fs == NULL)
		return;
	loop_undefer(l->fs->env.loop, &l->run);
	meta_abort(&l->get.req);
	meta_abort(&l->scan.req);
	meta_scan_free(&l->scan);
}
