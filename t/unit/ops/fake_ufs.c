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
	void (*fn)(struct fake_call *c);
	struct deferred run;
	bool waiting;
	TAILQ_ENTRY(fake_call) link;
	char after[UFS_NAME_MAX + 1];
	bool has_after;
};

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
	ufs_call_drop(uc);
}

static struct fake_call *call_start(
    struct fake_ufs *f, struct ufs_req *rq, void (*fn)(struct fake_call *c))
{
	struct fake_call *c = ufs_call_new(rq, sizeof(*c), call_abort);

	if (c == NULL)
		return NULL; /* answered with -ENOMEM */
	c->f = f;
	c->fn = fn;
	c->waiting = f->stall;
	if (f->stall)
		TAILQ_INSERT_TAIL(&f->waiting, c, link);
	else
		loop_defer(f->ufs.env.loop, &c->run, call_run);
	return c;
}

void fake_release(struct fake_ufs *f)
{
	struct fake_call *c;

	f->stall = false;
	while ((c = TAILQ_FIRST(&f->waiting)) != NULL) {
		TAILQ_REMOVE(&f->waiting, c, link);
		c->waiting = false;
		loop_defer(f->ufs.env.loop, &c->run, call_run);
	}
}

unsigned fake_waiting(const struct fake_ufs *f)
{
	const struct fake_call *c;
	unsigned n = 0;

	TAILQ_FOREACH(c, &f->waiting, link)
	n++;
	return n;
}

static void fill_attr(const struct fake_file *ff, struct ufs_attr *a)
{
	memset(a, 0, sizeof(*a));
	a->kind = ff->kind;
	a->size = ff->size;
	a->mtime.tv_sec = 1000;
	if (ff->kind == UFS_FILE)
		snprintf(a->version, sizeof(a->version), "%s", ff->version);
}

struct fake_file *fake_find(struct fake_ufs *f, const char *path)
{
	unsigned i;

	for (i = 0; i < f->nfiles; i++)
		if (strcmp(f->file[i].path, path) == 0)
			return &f->file[i];
	return NULL;
}

struct fake_file *fake_add(
    struct fake_ufs *f, const char *path, enum ufs_kind kind, uint64_t size, const char *version)
{
	struct fake_file *ff = &f->file[f->nfiles++];

	cr_assert_leq(f->nfiles, FAKE_FILES);
	snprintf(ff->path, sizeof(ff->path), "%s", path);
	snprintf(ff->version, sizeof(ff->version), "%s", version);
	ff->kind = kind;
	ff->size = size;
	return ff;
}

static void stat_fn(struct fake_call *c)
{
	struct ufs_stat *rq = container_of(c->call.rq, struct ufs_stat, req);
	struct fake_file root = {.kind = UFS_DIR}, *ff = &root;

	if (*rq->path != '\0')
		ff = fake_find(c->f, rq->path);
	if (ff != NULL)
		fill_attr(ff, &rq->attr);
	ufs_call_end(&c->call, ff != NULL ? 0 : -ENOENT);
}

static void fake_stat(struct ufs *u, struct ufs_stat *rq)
{
	fake_of(u)->stats++;
	call_start(fake_of(u), &rq->req, stat_fn);
}

/* The name in directory `dir`, or NULL. */
static const char *child_of(const char *dir, const char *path)
{
	size_t n = strlen(dir);

	if (*path == '\0' || (n > 0 && (strncmp(path, dir, n) != 0 || path[n] != '/')))
		return NULL;
	path += n > 0 ? n + 1 : 0;
	return strchr(path, '/') == NULL ? path : NULL;
}

static void list_fn(struct fake_call *c)
{
	struct ufs_list *rq = container_of(c->call.rq, struct ufs_list, req);
	struct ufs_page pg = {0};
	struct ufs_attr attr;
	unsigned i;

	rq->exists = *rq->path == '\0' || fake_find(c->f, rq->path) != NULL;
	rq->more = c->f->empty_first;
	for (i = 0; i < c->f->nfiles && !c->f->empty_first; i++) {
		const char *name = child_of(rq->path, c->f->file[i].path);

		if (name == NULL ||
		    (c->has_after && ufs_key_cmp(name, strlen(name), c->f->file[i].kind, c->after,
					 strlen(c->after), rq->after_kind) <= 0))
			continue;
		fill_attr(&c->f->file[i], &attr);
		if (ufs_page_add(&pg, name, strlen(name), &attr) != 0) {
			ufs_page_clear(&pg);
			ufs_call_end(&c->call, -ENOMEM);
			return;
		}
	}
	c->f->empty_first = false;
	ufs_page_sort(&pg);
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
	c = call_start(fake_of(u), &rq->req, list_fn);
	if (c == NULL)
		return;
	c->has_after = after != NULL;
	if (after != NULL)
		snprintf(c->after, sizeof(c->after), "%s", after);
}

static void read_fn(struct fake_call *c)
{
	struct ufs_read *rq = container_of(c->call.rq, struct ufs_read, req);
	struct fake_file *ff = fake_find(c->f, rq->path);
	char *buf;

	if (ff == NULL || strcmp(ff->version, rq->version) != 0) {
		ufs_call_end(&c->call, -ESTALE);
		return;
	}
	cr_assert_leq(rq->off + rq->len, ff->size);
	buf = malloc(rq->len);
	if (buf == NULL) {
		ufs_call_end(&c->call, -ENOMEM);
		return;
	}
	memset(buf, ff->version[0], rq->len);
	rq->on_data(rq, buf, rq->len);
	free(buf);
	ufs_call_end(&c->call, 0);
}

static void fake_read(struct ufs *u, struct ufs_read *rq)
{
	fake_of(u)->reads++;
	call_start(fake_of(u), &rq->req, read_fn);
}

static void statfs_fn(struct fake_call *c)
{
	struct ufs_statfs *rq = container_of(c->call.rq, struct ufs_statfs, req);

	rq->space = (struct ufs_space){.total = 1 << 30, .free = 1 << 29};
	ufs_call_end(&c->call, 0);
}

static void fake_statfs(struct ufs *u, struct ufs_statfs *rq)
{
	call_start(fake_of(u), &rq->req, statfs_fn);
}

static const struct ufs_ops fake_ops = {
    .stat = fake_stat, .list = fake_list, .read = fake_read, .statfs = fake_statfs};

void fake_init(struct fake_ufs *f, struct loop *lp)
{
	memset(f, 0, sizeof(*f));
	f->ufs.magic = UFS_MAGIC;
	f->ufs.ops = &fake_ops;
	f->ufs.env.loop = lp;
	f->ufs.uri = (char *)"fake://storage";
	f->page = 100;
	TAILQ_INIT(&f->waiting);
}

void fake_fini(struct fake_ufs *f)
{
	cr_assert_eq(f->ufs.running, 0);
}
