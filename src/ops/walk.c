/* SPDX-License-Identifier: BSD-2-Clause */
#include "ops/walk.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/obj.h"

/* So many levels keep their page; those above list again when the walk comes back. */
#define WALK_PAGES 8

/* A listing that is read through in order. */
struct walk_list {
	struct ufs_list list;
	bool valid, asking; /* there is a page; one is being asked for */
	size_t at;	    /* the entry that is next */
	bool has_after;
	char after[UFS_NAME_MAX + 1]; /* the last entry that is behind us */
	enum ufs_kind after_kind;
	char path[UFS_PATH_MAX + 1];
};

struct walk_level {
	struct walk_level *up;
	struct walk *walk;
	size_t path_len; /* of this directory, in walk.path */
	uint64_t tag;
	bool other; /* `beside` has it */
	struct walk_list own, beside;
};

static const struct ufs_attr some_dir = {.kind = UFS_DIR, .kind_only = true};

static void walk_run(struct deferred *d);

static const char *last_name(const struct walk *w)
{
	const char *slash = strrchr(w->path, '/');

	return slash != NULL ? slash + 1 : w->path;
}

static int join(char *out, const char *dir, const char *path)
{
	size_t n = strlen(dir), m = strlen(path), slash = n > 0 && m > 0;

	if (n + slash + m > UFS_PATH_MAX)
		return -ENAMETOOLONG;
	(void)snprintf(out, UFS_PATH_MAX + 1, "%s%s%s", dir, slash > 0 ? "/" : "", path);
	return 0;
}

/* --- One listing */

static void list_fini(struct walk_list *l)
{
	if (l->asking)
		ufs_abort(&l->list.req);
	ufs_list_free(&l->list);
	l->asking = l->valid = false;
}

static const struct ufs_entry *list_entry(const struct walk_list *l)
{
	return l->valid && l->at < l->list.count ? &l->list.entries[l->at] : NULL;
}

static bool list_ended(const struct walk_list *l)
{
	return l->valid && l->at == l->list.count && !l->list.more;
}

static void list_pass(struct walk_list *l)
{
	const struct ufs_entry *en = list_entry(l);

	memcpy(l->after, en->name, en->name_len + 1);
	l->after_kind = en->attr.kind;
	l->has_after = true;
	l->at++;
}

/* Its memory is wanted; the listing goes on behind the last entry passed. */
static void list_drop(struct walk_list *l)
{
	bool ended = list_ended(l);

	if (!l->valid || ended)
		return;
	ufs_list_free(&l->list);
	l->valid = false;
}

static void list_done(struct ufs_req *r, int err)
{
	struct walk_level *lv = r->user;
	struct walk *w = lv->walk;
	struct walk_list *l = r == &lv->own.list.req ? &lv->own : &lv->beside;

	l->asking = false;
	if (l == &lv->beside && (err == -ENOENT || err == -ENOTDIR)) {
		l->list.count = 0;
		l->list.more = false;
		err = 0;
	}
	l->valid = err == 0;
	l->at = 0;
	if (err == 0 && l == &lv->own && l->list.hidden)
		w->hidden = true;
	if (err == 0)
		loop_defer(w->loop, &w->run, walk_run);
	else {
		walk_abort(w);
		w->done(w, err);
	}
}

static void list_ask(struct walk_level *lv, struct walk_list *l)
{
	l->valid = false;
	l->asking = true;
	l->list.path = l->path;
	l->list.after = l->has_after ? l->after : NULL;
	l->list.after_kind = l->after_kind;
	l->list.req.user = lv;
	ufs_list(lv->walk->ufs, &l->list, list_done);
}

/* --- Levels */

static void pop(struct walk *w)
{
	struct walk_level *lv = w->level;

	list_fini(&lv->own);
	list_fini(&lv->beside);
	w->level = lv->up;
	w->depth--;
	free(lv);
}

static int push(struct walk *w, uint64_t tag, bool other)
{
	struct walk_level *lv = calloc(1, sizeof(*lv)), *up;
	unsigned i;
	int err;

	if (lv == NULL)
		return -ENOMEM;
	lv->walk = w;
	lv->path_len = strlen(w->path);
	lv->tag = tag;
	lv->other = other;
	err = join(lv->own.path, w->top, w->path);
	if (err == 0 && other && w->beside != NULL)
		err = join(lv->beside.path, w->beside, w->path);
	if (err != 0) {
		free(lv);
		return err;
	}
	lv->up = w->level;
	w->level = lv;
	w->depth++;
	for (up = lv, i = 0; up != NULL && i < WALK_PAGES; i++)
		up = up->up;
	if (up != NULL) {
		list_drop(&up->own);
		list_drop(&up->beside);
	}
	return 0;
}

/* --- Where the walk is */

static int key_cmp(const struct ufs_entry *a, const struct ufs_entry *b)
{
	size_t n = MIN(a->name_len, b->name_len);
	int c = memcmp(a->name, b->name, n), ca, cb;

	if (c != 0)
		return c;
	ca = a->name_len > n ? (unsigned char)a->name[n] : a->attr.kind == UFS_DIR ? '/' : -1;
	cb = b->name_len > n ? (unsigned char)b->name[n] : b->attr.kind == UFS_DIR ? '/' : -1;
	return (ca > cb) - (ca < cb);
}

/* Goes on in `beside` up to the entry.  False: a page has to come first. */
static bool find_other(
    struct walk_level *lv, const struct ufs_entry *en, const struct ufs_attr **other)
{
	struct walk_list *l = &lv->beside;
	const struct ufs_entry *o;
	int c;

	*other = NULL;
	if (lv->walk->beside == NULL || !lv->other)
		return true;
	while (!list_ended(l)) {
		o = list_entry(l);
		if (o == NULL) {
			list_ask(lv, l);
			return false;
		}
		c = key_cmp(o, en);
		if (c == 0)
			*other = &o->attr;
		if (c >= 0)
			return true;
		list_pass(l);
	}
	return true;
}

/* The top, or an entry of the level; the path is set. */
static int enter(struct walk *w, const struct ufs_attr *attr, const struct ufs_attr *other)
{
	uint64_t tag = 0;
	struct walk_item it = {
	    .what = WALK_ENTER,
	    .path = w->path,
	    .name = last_name(w),
	    .attr = attr,
	    .other = other,
	    .up = w->level != NULL ? w->level->tag : 0,
	    .tag = &tag,
	};
	bool has_other = other != NULL;
	int n, err;

	w->begun = true;
	n = w->visit(w, &it);
	if (n < 0 || n == WALK_SKIP)
		return n;
	err = push(w, tag, has_other);
	return err != 0 ? err : n;
}

static int leave(struct walk *w)
{
	struct walk_level *lv = w->level;
	struct walk_item it = {
	    .what = WALK_LEAVE,
	    .path = w->path,
	    .name = last_name(w),
	    .other = lv->other ? &some_dir : NULL,
	    .up = lv->up != NULL ? lv->up->tag : 0,
	    .tag = &lv->tag,
	};
	int n = w->visit(w, &it);

	if (n >= 0)
		pop(w);
	return n;
}

static int visit_entry(
    struct walk *w, const struct ufs_entry *en, const struct ufs_attr *other)
{
	struct walk_level *lv = w->level;
	size_t len = lv->path_len, slash = len > 0;
	struct walk_item it = {
	    .what = WALK_FILE,
	    .path = w->path,
	    .attr = &en->attr,
	    .other = other,
	    .up = lv->tag,
	};
	int n;

	if (len + slash + en->name_len > UFS_PATH_MAX)
		return -ENAMETOOLONG;
	if (slash > 0)
		w->path[len] = '/';
	memcpy(w->path + len + slash, en->name, en->name_len + 1);
	if (en->attr.kind == UFS_DIR) {
		n = enter(w, &en->attr, other);
	} else {
		it.name = last_name(w);
		n = w->visit(w, &it);
	}
	/* A level pushed meanwhile may have dropped this one's page, but not its own. */
	if (n >= 0)
		list_pass(&lv->own);
	return n;
}

/* One thing more: as visit() returns, or -EINPROGRESS: a page has to come first. */
static int step(struct walk *w)
{
	struct walk_level *lv = w->level;
	const struct ufs_attr *other;
	const struct ufs_entry *en;

	w->path[lv->path_len] = '\0';
	if (list_ended(&lv->own))
		return leave(w);
	en = list_entry(&lv->own);
	if (en == NULL) {
		list_ask(lv, &lv->own);
		return -EINPROGRESS;
	}
	if (!find_other(lv, en, &other))
		return -EINPROGRESS;
	return visit_entry(w, en, other);
}

static void walk_run(struct deferred *d)
{
	struct walk *w = container_of(d, struct walk, run);
	int n = WALK_ON;

	if (w->paused)
		return;
	if (!w->begun)
		n = enter(w, NULL, w->beside != NULL ? &some_dir : NULL);
	while (n >= 0 && n != WALK_PAUSE && w->level != NULL)
		n = step(w);
	if (n == -EINPROGRESS)
		return;
	if (n == WALK_PAUSE) {
		w->paused = true;
		return;
	}
	walk_abort(w);
	w->done(w, n < 0 ? n : 0);
}

void walk_start(struct walk *w, struct loop *lp)
{
	assert(!w->running);
	w->loop = lp;
	w->level = NULL;
	w->depth = 0;
	w->path[0] = '\0';
	w->begun = w->paused = w->hidden = false;
	w->running = true;
	loop_defer(lp, &w->run, walk_run);
}

void walk_resume(struct walk *w)
{
	if (!w->running || !w->paused)
		return;
	w->paused = false;
	loop_defer(w->loop, &w->run, walk_run);
}

void walk_abort(struct walk *w)
{
	if (!w->running)
		return;
	w->running = false;
	loop_undefer(w->loop, &w->run);
	while (w->level != NULL)
		pop(w);
}
