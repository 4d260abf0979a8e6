/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What this mount knows better than the page of a listing that the storage sent: names
 * changed here since it was asked, and files that only a write session has.  (What the
 * metadata store knows is put in before: ops/dir_records.h.)
 *
 * A name that was changed after the page was asked for is marked: it went, or it is
 * there, and then its node says what it is.  One that was there throughout is in each
 * answer, be it the storage's or ours, and so told once.
 */
#include <errno.h>
#include <string.h>

#include "ops/attr.h"
#include "ops/dir_page.h"
#include "ops/session.h"
#include "ops/unlinked.h"
#include "ufs/ufs_page.h"

/* --- Names that change */

struct dir_change {
	bool there; /* else it went */
	uint8_t kind;
	char name[];
};

static void changes_clear(struct dir_page *pg)
{
	while (pg->nchanged > 0)
		free(pg->changed[--pg->nchanged]);
	free(pg->changed);
	pg->changed = NULL;
	pg->changed_cap = 0;
}

void dir_page_asked(struct fs *fs, struct dir_page *pg, uint64_t node)
{
	if (!pg->linked)
		TAILQ_INSERT_TAIL(&fs->dir_pages, pg, link);
	pg->linked = true;
	pg->node = node;
	pg->valid = pg->again = false;
	pg->asked = fs->changes;
	pg->unpersisted = attr_any_unpersisted(fs);
	free(pg->marks);
	pg->marks = NULL;
	changes_clear(pg);
}

void dir_page_free(struct fs *fs, struct dir_page *pg)
{
	if (pg->linked)
		TAILQ_REMOVE(&fs->dir_pages, pg, link);
	pg->linked = false;
	changes_clear(pg);
	free(pg->marks);
	pg->marks = NULL;
	ufs_list_free(&pg->list);
}

/* For the time that a page is on its way.  Out of memory: it is asked for again. */
static void note_change(struct dir_page *pg, const char *name, bool there, uint8_t kind)
{
	size_t cap = pg->changed_cap == 0 ? 16 : pg->changed_cap * 2, len = strlen(name) + 1;
	struct dir_change **p, *c;

	if (pg->nchanged == pg->changed_cap) {
		p = realloc(pg->changed, cap * sizeof(*p));
		if (p == NULL) {
			pg->again = true;
			return;
		}
		pg->changed = p;
		pg->changed_cap = cap;
	}
	c = malloc(sizeof(*c) + len);
	if (c == NULL) {
		pg->again = true;
		return;
	}
	c->there = there;
	c->kind = kind;
	memcpy(c->name, name, len);
	pg->changed[pg->nchanged++] = c;
}

const struct ufs_entry *dir_page_find(
    const struct dir_page *pg, const char *name, enum ufs_kind kind)
{
	const struct ufs_page all = {.entries = pg->list.entries, .count = pg->list.count};

	return ufs_page_find(&all, name, strlen(name), kind);
}

static int mark(struct dir_page *pg, const char *name, enum ufs_kind kind, enum dir_mark_as as)
{
	const struct ufs_entry *en = dir_page_find(pg, name, kind);

	if (en == NULL)
		return 0;
	if (pg->marks == NULL)
		pg->marks = calloc(pg->list.count, 1);
	if (pg->marks == NULL)
		return -ENOMEM;
	pg->marks[en - pg->list.entries] = (unsigned char)as;
	return 0;
}

/* Under one name there is one thing at most. */
static int mark_change(struct dir_page *pg, const char *name, bool there, uint8_t kind)
{
	int err = mark(pg, name, UFS_FILE, there && kind == UFS_FILE ? DIR_MARK_THERE : DIR_MARK_GONE);

	if (err == 0)
		err = mark(
		    pg, name, UFS_DIR, there && kind == UFS_DIR ? DIR_MARK_THERE : DIR_MARK_GONE);
	return err;
}

void dir_pages_touch(struct fs *fs, uint64_t parent, const char *name)
{
	struct dir_page *pg;
	struct node n;
	int there = -1;

	TAILQ_FOREACH(pg, &fs->dir_pages, link)
	{
		if (pg->node != parent || (pg->busy == NULL && !pg->valid))
			continue;
		/* Now: later the kernel may have forgotten the node. */
		if (there < 0)
			there = node_find(fs, parent, name, &n) == 0 &&
				(n.flags & NODE_GONE) == 0;
		if (pg->busy != NULL)
			note_change(pg, name, there != 0, n.kind);
		else if (mark_change(pg, name, there != 0, n.kind) != 0)
			pg->valid = false;
	}
}

/* --- What is told of an entry */

enum dir_told dir_page_told(struct fs *fs, const struct dir_page *pg, size_t i, struct node *n)
{
	const struct ufs_entry *en = &pg->list.entries[i];

	switch (pg->marks != NULL ? pg->marks[i] : DIR_MARK_NONE) {
	case DIR_MARK_GONE:
		return DIR_TOLD_NOT;
	case DIR_MARK_THERE:
		break;
	default:
		return DIR_TOLD_LISTED;
	}
	/* Forgotten by the kernel, or another version by now: it is there. */
	if (node_find(fs, pg->node, en->name, n) != 0 || (n->flags & NODE_REPLACED) != 0 ||
	    n->kind != (uint8_t)en->attr.kind)
		return DIR_TOLD_NAME;
	if ((n->flags & NODE_LOCAL) != 0 && session_of(fs, n->id) == NULL)
		return fs->sessions_missing ? DIR_TOLD_NAME : DIR_TOLD_NOT;
	return DIR_TOLD_NODE;
}

bool dir_page_all_gone(struct fs *fs, const struct dir_page *pg, size_t i)
{
	struct node n;

	for (; i < pg->list.count; i++)
		if (dir_page_told(fs, pg, i, &n) != DIR_TOLD_NOT)
			return false;
	return true;
}

/* --- Names that the storage did not send */

struct extras {
	struct fs *fs;
	struct dir_page *pg;
	struct ufs_page add;
	int err;
};

bool dir_page_window(
    const struct dir_page *pg, const char *name, size_t len, enum ufs_kind kind)
{
	const struct ufs_list *l = &pg->list;
	const struct ufs_entry *last = l->count > 0 ? &l->entries[l->count - 1] : NULL;

	if (l->after != NULL &&
	    ufs_key_cmp(name, len, kind, l->after, strlen(l->after), l->after_kind) <= 0)
		return false;
	return !l->more || (last != NULL && ufs_key_cmp(name, len, kind, last->name, last->name_len,
						last->attr.kind) < 0);
}

static void add_extra(struct extras *x, const char *name, uint8_t kind)
{
	struct ufs_attr attr = {.kind = (enum ufs_kind)kind, .kind_only = true};
	size_t len = strlen(name);

	if (x->err == 0 && dir_page_find(x->pg, name, attr.kind) == NULL &&
	    dir_page_window(x->pg, name, len, attr.kind))
		x->err = ufs_page_add(&x->add, name, len, &attr);
}

static bool local_in(struct fs *fs, const struct session *s, uint64_t dir, struct node *n)
{
	return node_load(fs, s->node, n) == 0 && n->parent == dir &&
	       (n->flags & NODE_LOCAL) != 0 && (n->flags & NODE_REPLACED) == 0;
}

static void add_local(struct session *s, void *arg)
{
	struct extras *x = arg;
	struct node n;

	if (local_in(x->fs, s, x->pg->node, &n))
		add_extra(x, n.name, n.kind);
}

static void mark_local(struct session *s, void *arg)
{
	struct extras *x = arg;
	struct node n;

	if (x->err == 0 && local_in(x->fs, s, x->pg->node, &n))
		x->err = mark_change(x->pg, n.name, true, n.kind);
}

static int put_together(struct extras *x)
{
	struct ufs_list *l = &x->pg->list;
	bool more = l->more, exists = l->exists;
	size_t i;
	int err = 0;

	if (x->add.count == 0)
		return 0;
	for (i = 0; i < l->count && err == 0; i++)
		err = ufs_page_add(
		    &x->add, l->entries[i].name, l->entries[i].name_len, &l->entries[i].attr);
	if (err != 0)
		return err;
	ufs_page_sort(&x->add);
	ufs_page_free(l);
	ufs_page_give(&x->add, l);
	l->more = more;
	l->exists = exists;
	return 0;
}

/* What was taken away here, and the storage has still. */
static int mark_unlinked(struct fs *fs, struct dir_page *pg)
{
	char path[UFS_PATH_MAX + UFS_NAME_MAX + 2];
	const struct ufs_entry *en;
	size_t i, len;
	int err = 0;

	if (unlinked_count(fs) == 0 || node_path(fs, pg->node, path) != 0)
		return 0;
	len = strlen(path);
	if (len > 0)
		path[len++] = '/';
	for (i = 0; i < pg->list.count && err == 0; i++) {
		en = &pg->list.entries[i];
		memcpy(path + len, en->name, en->name_len + 1);
		if (unlinked_hides(fs, path))
			err = mark(pg, en->name, en->attr.kind, DIR_MARK_GONE);
	}
	return err;
}

int dir_page_settle(struct fs *fs, struct dir_page *pg)
{
	struct extras x = {.fs = fs, .pg = pg};
	const struct dir_change *c;
	size_t i;

	for (i = 0; i < pg->nchanged; i++)
		if (pg->changed[i]->there)
			add_extra(&x, pg->changed[i]->name, pg->changed[i]->kind);
	session_foreach(fs, add_local, &x);
	if (x.err == 0)
		x.err = put_together(&x);
	ufs_page_clear(&x.add);
	if (x.err == 0)
		x.err = mark_unlinked(fs, pg);
	/* In the order in which they came: the last word counts. */
	for (i = 0; i < pg->nchanged && x.err == 0; i++) {
		c = pg->changed[i];
		x.err = mark_change(pg, c->name, c->there, c->kind);
	}
	session_foreach(fs, mark_local, &x);
	changes_clear(pg);
	return x.err;
}
