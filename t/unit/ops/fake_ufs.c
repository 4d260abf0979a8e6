/* SPDX-License-Identifier: BSD-2-Clause */
#include "fake_ufs.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ufs/ufs_page.h"

struct fake_call {
	struct ufs_call call;
	struct fake_ufs *f;
	enum fake_op op;
	void (*fn)(struct fake_call *c);
	struct deferred run;
	bool waiting;
	TAILQ_ENTRY(fake_call) link;
	char after[UFS_NAME_MAX + 1];
	bool has_after;
};

static void plain_fn(struct fake_call *c);

static struct fake_ufs *fake_of(struct ufs *u)
{
	return container_of(u, struct fake_ufs, ufs);
}

static void call_run(struct deferred *d)
{
	struct fake_call *c = container_of(d, struct fake_call, run);

	if (c->f->err != 0)
		ufs_call_end(&c->call, c->f->err);
	else
		c->fn(c);
}

static void call_abort(struct ufs_call *uc)
{
	struct fake_call *c = container_of(uc, struct fake_call, call);

	if (c->waiting)
		TAILQ_REMOVE(&c->f->waiting, c, link);
	else
		loop_undefer(c->f->ufs.env.loop, &c->run);
	c->f->aborted++;
	if (c->f->late_effects && c->fn == plain_fn && c->f->err == 0)
		(void)fake_store_do(&c->f->store, c->op, uc->rq);
	ufs_call_drop(uc);
}

static struct fake_call *call_start(
    struct fake_ufs *f, struct ufs_req *rq, enum fake_op op, void (*fn)(struct fake_call *c))
{
	struct fake_call *c = ufs_call_new(rq, sizeof(*c), call_abort);

	if (c == NULL)
		return NULL; /* answered with -ENOMEM */
	c->f = f;
	c->op = op;
	c->fn = fn;
	c->waiting = f->stall;
	if (f->stall)
		TAILQ_INSERT_TAIL(&f->waiting, c, link);
	else
		loop_defer(f->ufs.env.loop, &c->run, call_run);
	return c;
}

static bool release(struct fake_ufs *f, struct fake_call *c)
{
	if (c == NULL)
		return false;
	TAILQ_REMOVE(&f->waiting, c, link);
	c->waiting = false;
	loop_defer(f->ufs.env.loop, &c->run, call_run);
	return true;
}

bool fake_release_one(struct fake_ufs *f)
{
	return release(f, TAILQ_FIRST(&f->waiting));
}

bool fake_release_op(struct fake_ufs *f, enum fake_op op)
{
	struct fake_call *c = TAILQ_FIRST(&f->waiting);

	while (c != NULL && c->op != op)
		c = TAILQ_NEXT(c, link);
	return release(f, c);
}

void fake_release(struct fake_ufs *f)
{
	f->stall = false;
	while (fake_release_one(f))
		;
}

bool fake_waits(const struct fake_ufs *f, enum fake_op op)
{
	const struct fake_call *c;

	TAILQ_FOREACH(c, &f->waiting, link)
	if (c->op == op)
		return true;
	return false;
}

unsigned fake_waiting(const struct fake_ufs *f)
{
	const struct fake_call *c;
	unsigned n = 0;

	TAILQ_FOREACH(c, &f->waiting, link)
	n++;
	return n;
}

struct fake_file *fake_find(struct fake_ufs *f, const char *path)
{
	return fake_store_find(&f->store, path);
}

struct fake_file *fake_add(
    struct fake_ufs *f, const char *path, enum ufs_kind kind, uint64_t size, const char *version)
{
	return fake_store_add(&f->store, path, kind, size, version, NULL);
}

/* All requests but listings and reads do just what the store says. */
static void plain_fn(struct fake_call *c)
{
	ufs_call_end(&c->call, fake_store_do(&c->f->store, c->op, c->call.rq));
}

static void fake_stat(struct ufs *u, struct ufs_stat *rq)
{
	fake_of(u)->stats++;
	call_start(fake_of(u), &rq->req, FAKE_STAT, plain_fn);
}

/* The name that a path has in directory `dir`, or NULL; *below: it is a directory's,
 * of which the path lies below. */
static const char *child_of(const char *dir, const char *path, size_t *len, bool *below)
{
	size_t n = strlen(dir);

	if (*path == '\0' || (n > 0 && (strncmp(path, dir, n) != 0 || path[n] != '/')))
		return NULL;
	path += n > 0 ? n + 1 : 0;
	*len = strcspn(path, "/");
	*below = path[*len] == '/';
	return path;
}

static int list_page(struct fake_call *c, const struct ufs_list *rq, struct ufs_page *pg)
{
	const struct fake_store *st = &c->f->store;

	for (unsigned i = 0; i < st->nfiles; i++) {
		struct ufs_attr attr = {.kind = UFS_DIR};
		size_t len;
		bool below;
		const char *name = child_of(rq->path, st->file[i].path, &len, &below);

		if (name == NULL)
			continue;
		if (!below)
			fake_store_attr(st, &st->file[i], &attr);
		if (c->has_after && ufs_key_cmp(name, len, attr.kind, c->after, strlen(c->after),
					rq->after_kind) <= 0)
			continue;
		if (ufs_page_add(pg, name, len, &attr) != 0)
			return -ENOMEM;
	}
	ufs_page_sort(pg);
	return 0;
}

static void list_fn(struct fake_call *c)
{
	struct ufs_list *rq = container_of(c->call.rq, struct ufs_list, req);
	struct ufs_page pg = {0};
	int err = fake_store_do(&c->f->store, FAKE_LIST, &rq->req);

	rq->exists = *rq->path == '\0' || fake_find(c->f, rq->path) != NULL ||
		     fake_store_below(&c->f->store, rq->path);
	rq->more = c->f->empty_first;
	if (err == 0 && !c->f->empty_first)
		err = list_page(c, rq, &pg);
	if (err != 0) {
		ufs_page_clear(&pg);
		ufs_call_end(&c->call, err);
		return;
	}
	c->f->empty_first = false;
	while (pg.count > c->f->page) {
		ufs_page_remove(&pg, pg.count - 1);
		rq->more = true;
	}
	ufs_page_give(&pg, rq);
	ufs_call_end(&c->call, 0);
}

static void fake_list(struct ufs *u, struct ufs_list *rq, const char *after)
{
	struct fake_call *c;

	fake_of(u)->lists++;
	c = call_start(fake_of(u), &rq->req, FAKE_LIST, list_fn);
	if (c == NULL)
		return;
	c->has_after = after != NULL;
	if (after != NULL)
		snprintf(c->after, sizeof(c->after), "%s", after);
}

static void read_fn(struct fake_call *c)
{
	struct ufs_read *rq = container_of(c->call.rq, struct ufs_read, req);
	char *buf = malloc(rq->len);
	int err = fake_store_do(&c->f->store, FAKE_READ, &rq->req);

	if (err == 0 && buf == NULL)
		err = -ENOMEM;
	if (err == 0)
		err = fake_store_bytes(
		    &c->f->store, rq->path, rq->version, rq->off, buf, rq->len);
	if (err == 0)
		rq->on_data(rq, buf, rq->len);
	free(buf);
	ufs_call_end(&c->call, err);
}

static void fake_read(struct ufs *u, struct ufs_read *rq)
{
	fake_of(u)->reads++;
	call_start(fake_of(u), &rq->req, FAKE_READ, read_fn);
}

static void statfs_fn(struct fake_call *c)
{
	struct ufs_statfs *rq = container_of(c->call.rq, struct ufs_statfs, req);

	rq->space = (struct ufs_space){.total = 1 << 30, .free = 1 << 29};
	ufs_call_end(&c->call, 0);
}

static void fake_statfs(struct ufs *u, struct ufs_statfs *rq)
{
	call_start(fake_of(u), &rq->req, FAKE_OPS, statfs_fn);
}

#define PLAIN(name, type, kind)                                                                    \
	static void fake_##name(struct ufs *u, struct type *rq)                                    \
	{                                                                                          \
		call_start(fake_of(u), &rq->req, kind, plain_fn);                                  \
	}

PLAIN(put, ufs_put, FAKE_PUT)
PLAIN(multi_begin, ufs_multi_begin, FAKE_MULTI_BEGIN)
PLAIN(part, ufs_part, FAKE_PART)
PLAIN(multi_end, ufs_multi_end, FAKE_MULTI_END)
PLAIN(multi_abort, ufs_multi_abort, FAKE_MULTI_ABORT)
PLAIN(multi_sweep, ufs_multi_sweep, FAKE_MULTI_SWEEP)
PLAIN(copy, ufs_copy, FAKE_COPY)
PLAIN(del, ufs_delete, FAKE_DELETE)
PLAIN(mkdir, ufs_mkdir, FAKE_MKDIR)
PLAIN(rmdir, ufs_rmdir, FAKE_RMDIR)
PLAIN(rename, ufs_rename, FAKE_RENAME)
PLAIN(setattr, ufs_setattr, FAKE_SETATTR)

static const struct ufs_ops fake_ops = {
    .stat = fake_stat,
    .list = fake_list,
    .read = fake_read,
    .statfs = fake_statfs,
    .put = fake_put,
    .multi_begin = fake_multi_begin,
    .part = fake_part,
    .multi_end = fake_multi_end,
    .multi_abort = fake_multi_abort,
    .multi_sweep = fake_multi_sweep,
    .copy = fake_copy,
    .del = fake_del,
    .mkdir = fake_mkdir,
    .rmdir = fake_rmdir,
    .rename = fake_rename,
    .setattr = fake_setattr,
};

void fake_can(struct fake_ufs *f, unsigned can)
{
	f->store.can = can;
	f->ufs.can = can;
}

void fake_init(struct fake_ufs *f, struct loop *lp)
{
	memset(f, 0, sizeof(*f));
	f->ufs.magic = UFS_MAGIC;
	f->ufs.ops = &fake_ops;
	f->ufs.env.loop = lp;
	f->ufs.uri = (char *)"fake://storage";
	f->page = 100;
	fake_store_init(&f->store);
	f->store.strict = true;
	fake_can(f, f->store.can);
	TAILQ_INIT(&f->waiting);
}

void fake_fini(struct fake_ufs *f)
{
	cr_assert_eq(f->ufs.running, 0);
	fake_store_fini(&f->store);
}
