/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Several storages as one tree (ufs.h).  A path belongs to the storage attached
 * deepest above it.  A path that leads to an attached one is "on the way": it is a
 * directory in any case, with the attributes and entries that its storage has for it,
 * if it has any, and always the next step of the way.
 *
 * What a step of the way is like only its own storage knows.  A listing does not ask
 * for it: one storage that is down must not stop the listing of the directory that it
 * is attached in.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/options.h"
#include "ufs/ufs_page.h"
#include "ufs/ufs_priv.h"

struct tree_mount {
	char *path;
	size_t len;
	struct ufs *ufs;
};

struct tree {
	struct ufs ufs;
	struct tree_mount *mount;
	unsigned n;
	uid_t uid; /* of directories that no storage has */
	gid_t gid;
};

static const struct ufs_ops tree_ops;

static struct tree *tree_of(struct ufs *u)
{
	assert(u->ops == &tree_ops);
	return container_of(u, struct tree, ufs);
}

/* Is path at or below the directory dir? */
static bool within(const char *path, const char *dir, size_t len)
{
	return len == 0 || (strncmp(path, dir, len) == 0 && (path[len] == '/' || path[len] == '\0'));
}

/* The storage of a path, and the path in it; NULL: no storage has it. */
static const struct tree_mount *owner_of(const struct tree *t, const char *path, const char **sub)
{
	const struct tree_mount *best = NULL;

	for (unsigned i = 0; i < t->n; i++)
		if (within(path, t->mount[i].path, t->mount[i].len) &&
		    (best == NULL || t->mount[i].len > best->len))
			best = &t->mount[i];
	if (best != NULL) {
		*sub = path + best->len;
		if (**sub == '/')
			++*sub;
	}
	return best;
}

/* What an attached path has below the directory `path`: its next step, or NULL. */
static const char *step_below(const struct tree_mount *m, const char *path, size_t plen, size_t *len)
{
	const char *name;

	if (m->len <= plen || !within(m->path, path, plen))
		return NULL;
	name = m->path + plen + (plen > 0);
	*len = strcspn(name, "/");
	return name;
}

static bool on_the_way(const struct tree *t, const char *path)
{
	size_t plen = strlen(path), len;

	for (unsigned i = 0; i < t->n; i++)
		if (step_below(&t->mount[i], path, plen, &len) != NULL)
			return true;
	return false;
}

static void way_attr(const struct tree *t, struct ufs_attr *a)
{
	memset(a, 0, sizeof(*a));
	a->kind = UFS_DIR;
	a->have_mode = true;
	a->mode = 0555;
	a->uid = t->uid;
	a->gid = t->gid;
}

/* Did the storage say that it has no such directory? */
static bool has_none(int err)
{
	return err == -ENOENT || err == -ENOTDIR;
}

/* --- stat */

struct tree_stat {
	struct ufs_call call;
	struct ufs_stat inner;
};

static void stat_done(struct ufs_req *r, int err)
{
	struct tree_stat *ts = r->user;
	struct ufs_stat *rq = container_of(ts->call.rq, struct ufs_stat, req);
	const struct tree *t = tree_of(rq->req.ufs);

	rq->attr = ts->inner.attr;
	/* The storage's own root is not replaced by anything. */
	if (*ts->inner.path != '\0' && on_the_way(t, rq->path) &&
	    (has_none(err) || (err == 0 && rq->attr.kind != UFS_DIR))) {
		way_attr(t, &rq->attr);
		err = 0;
	}
	ufs_call_end(&ts->call, err);
}

static void stat_abort(struct ufs_call *c)
{
	ufs_abort(&container_of(c, struct tree_stat, call)->inner.req);
	ufs_call_drop(c);
}

static void tree_stat(struct ufs *u, struct ufs_stat *rq)
{
	const struct tree *t = tree_of(u);
	const struct tree_mount *m;
	struct tree_stat *ts;
	const char *sub;

	m = owner_of(t, rq->path, &sub);
	if (m == NULL) {
		way_attr(t, &rq->attr);
		ufs_answer_later(&rq->req, on_the_way(t, rq->path) ? 0 : -ENOENT);
		return;
	}
	ts = ufs_call_new(&rq->req, sizeof(*ts), stat_abort);
	if (ts == NULL)
		return;
	ts->inner.path = sub;
	ts->inner.req.user = ts;
	ufs_stat(m->ufs, &ts->inner, stat_done);
}

/* --- list */

struct tree_list {
	struct ufs_call call;
	struct ufs_list inner;
	bool way;    /* it has steps here */
	bool filter; /* the storage's page is not the answer as it is */
	bool has_after;
	char after[UFS_NAME_MAX + 1];	    /* as the caller has it */
	enum ufs_kind after_kind;
	char inner_after[UFS_NAME_MAX + 1]; /* where the storage's listing goes on */
};

static void list_done(struct ufs_req *r, int err);

static bool is_step(const struct tree *t, const char *path, const char *name, size_t nlen)
{
	size_t plen = strlen(path), len;
	const char *s;

	for (unsigned i = 0; i < t->n; i++) {
		s = step_below(&t->mount[i], path, plen, &len);
		if (s != NULL && len == nlen && memcmp(s, name, len) == 0)
			return true;
	}
	return false;
}

/* The steps behind the caller's place, up to the last entry of the storage's page if
 * more of it is to come. */
static int add_steps(const struct tree_list *tl, const struct tree *t, const char *path,
    const struct ufs_entry *last, struct ufs_page *pg)
{
	static const struct ufs_attr attr = {.kind = UFS_DIR, .kind_only = true};
	size_t plen = strlen(path), len;
	int err = 0;

	for (unsigned i = 0; err == 0 && i < t->n; i++) {
		const char *s = step_below(&t->mount[i], path, plen, &len);

		if (s == NULL ||
		    (tl->has_after && ufs_key_cmp(s, len, UFS_DIR, tl->after, strlen(tl->after),
					  tl->after_kind) <= 0) ||
		    (last != NULL && ufs_key_cmp(s, len, UFS_DIR, last->name, last->name_len,
					 last->attr.kind) > 0))
			continue;
		err = ufs_page_add(pg, s, len, &attr);
	}
	return err;
}

/* The storage's page with the steps instead of the entries of their names, and without
 * entries that have no path: a storage's longest ones are too long below where it is
 * attached. */
static int merge(const struct tree_list *tl, struct ufs_list *rq)
{
	const struct tree *t = tree_of(rq->req.ufs);
	const struct ufs_list *in = &tl->inner;
	size_t plen = strlen(rq->path);
	struct ufs_page pg = {0};
	int err;

	err = add_steps(tl, t, rq->path,
	    in->more && in->count > 0 ? &in->entries[in->count - 1] : NULL, &pg);
	for (size_t i = 0; err == 0 && i < in->count; i++) {
		const struct ufs_entry *en = &in->entries[i];

		if (plen + (plen > 0) + en->name_len > UFS_PATH_MAX)
			COUNT(rq->req.ufs->env.loop, UFS_HIDDEN, 1);
		else if (!is_step(t, rq->path, en->name, en->name_len))
			err = ufs_page_add(&pg, en->name, en->name_len, &en->attr);
	}
	if (err != 0) {
		ufs_page_clear(&pg);
		return err;
	}
	ufs_page_sort(&pg);
	ufs_page_give(&pg, rq);
	rq->more = in->more;
	rq->exists = in->exists || tl->way;
	return 0;
}

/* Ends the call; the storage's cursor stays with the request. */
static void list_end(struct tree_list *tl, int err)
{
	struct ufs_list *rq = container_of(tl->call.rq, struct ufs_list, req);

	rq->cursor = tl->inner.cursor;
	tl->inner.cursor = NULL;
	ufs_list_free(&tl->inner);
	ufs_call_end(&tl->call, err);
}

static void pass_on(struct tree_list *tl, struct ufs_list *rq)
{
	rq->entries = tl->inner.entries;
	rq->count = tl->inner.count;
	rq->arena = tl->inner.arena;
	rq->more = tl->inner.more;
	rq->exists = tl->inner.exists;
	tl->inner.entries = NULL;
	tl->inner.arena = NULL;
	tl->inner.count = 0;
}

/* Nothing of the page is left, but more is to come: it goes on behind what was
 * hidden, which is no place that the caller could name. */
static void list_on(struct tree_list *tl)
{
	struct ufs_list *in = &tl->inner;
	const struct ufs_entry *last;

	if (in->count > 0) {
		last = &in->entries[in->count - 1];
		memcpy(tl->inner_after, last->name, last->name_len + 1);
		in->after = tl->inner_after;
		in->after_kind = last->attr.kind;
	}
	ufs_list(in->req.ufs, in, list_done);
}

static void list_done(struct ufs_req *r, int err)
{
	struct tree_list *tl = r->user;
	struct ufs_list *rq = container_of(tl->call.rq, struct ufs_list, req);

	if (!tl->filter) {
		if (err == 0)
			pass_on(tl, rq);
		list_end(tl, err);
		return;
	}
	if (has_none(err) && tl->way && *tl->inner.path != '\0')
		err = 0; /* ufs_list() left an empty page */
	if (err == 0)
		err = merge(tl, rq);
	if (err == 0 && rq->count == 0 && rq->more) {
		ufs_page_free(rq);
		list_on(tl);
		return;
	}
	list_end(tl, err);
}

static void list_abort(struct ufs_call *c)
{
	struct tree_list *tl = container_of(c, struct tree_list, call);

	ufs_abort(&tl->inner.req);
	ufs_list_free(&tl->inner);
	ufs_call_drop(c);
}

static void tree_list(struct ufs *u, struct ufs_list *rq, const char *after)
{
	const struct tree *t = tree_of(u);
	const struct tree_mount *m;
	struct tree_list *tl;
	const char *sub = "";

	m = owner_of(t, rq->path, &sub);
	tl = ufs_call_new(&rq->req, sizeof(*tl), list_abort);
	if (tl == NULL)
		return;
	tl->way = on_the_way(t, rq->path);
	tl->filter = tl->way || strlen(rq->path) + 1 + UFS_NAME_MAX > UFS_PATH_MAX;
	tl->has_after = after != NULL;
	tl->after_kind = rq->after_kind;
	if (after != NULL)
		memcpy(tl->after, after, strlen(after) + 1);
	if (m == NULL) {
		int err = tl->way ? merge(tl, rq) : -ENOENT;

		ufs_call_drop(&tl->call);
		ufs_answer_later(&rq->req, err);
		return;
	}
	tl->inner.path = sub;
	tl->inner.req.user = tl;
	tl->inner.after = after != NULL ? tl->after : NULL;
	tl->inner.after_kind = rq->after_kind;
	tl->inner.cursor = rq->cursor;
	rq->cursor = NULL;
	ufs_list(m->ufs, &tl->inner, list_done);
}

/* --- the rest */

/* Contents are read from the storage that ufs_tree_find() names. */
static void tree_read(struct ufs *u, struct ufs_read *rq)
{
	(void)u;
	ufs_answer_later(&rq->req, -EINVAL);
}

static void tree_check(struct ufs *u, struct ufs_check *rq)
{
	(void)u;
	ufs_answer_later(&rq->req, 0);
}

/* A directory that no storage has holds nothing. */
static void tree_statfs(struct ufs *u, struct ufs_statfs *rq)
{
	(void)u;
	ufs_answer_later(&rq->req, 0);
}

static void tree_free(struct ufs *u)
{
	struct tree *t = tree_of(u);

	for (unsigned i = 0; i < t->n; i++)
		free(t->mount[i].path);
	free(t->mount);
	free(t->ufs.uri);
	t->ufs.magic = 0;
	free(t);
}

static const struct ufs_ops tree_ops = {
	.free = tree_free,
	.stat = tree_stat,
	.list = tree_list,
	.read = tree_read,
	.check = tree_check,
	.statfs = tree_statfs,
};

int ufs_tree_new(struct ufs **out, const struct ufs_env *env, const struct ufs_mount *mounts,
    unsigned n)
{
	struct tree *t = calloc(1, sizeof(*t));
	int err = -ENOMEM;

	*out = NULL;
	if (t == NULL)
		return -ENOMEM;
	t->ufs.magic = UFS_MAGIC;
	t->ufs.ops = &tree_ops;
	t->ufs.env = *env;
	t->ufs.uri = strdup("namespace:");
	t->mount = calloc(n > 0 ? n : 1, sizeof(*t->mount));
	if (t->ufs.uri == NULL || t->mount == NULL)
		goto fail;
	for (; t->n < n; t->n++) {
		struct tree_mount *m = &t->mount[t->n];

		m->path = strdup(mounts[t->n].path);
		if (m->path == NULL)
			goto fail;
		m->len = strlen(m->path);
		m->ufs = mounts[t->n].ufs;
	}
	err = config_parse_uid(env->cfg->default_uid, &t->uid);
	if (err == 0)
		err = config_parse_gid(env->cfg->default_gid, &t->gid);
	if (err != 0)
		goto fail;
	*out = &t->ufs;
	return 0;
fail:
	tree_free(&t->ufs);
	return err;
}

void ufs_tree_find(struct ufs *tree, const char *path, struct ufs **u, const char **sub)
{
	const struct tree_mount *m = owner_of(tree_of(tree), path, sub);

	*u = m != NULL ? m->ufs : tree;
	if (m == NULL)
		*sub = path;
}

bool ufs_tree_leads_on(struct ufs *tree, const char *path)
{
	return on_the_way(tree_of(tree), path);
}
