/* SPDX-License-Identifier: BSD-2-Clause */
/* The door of under-storage: dispatch by scheme, checks that hold for all. */
#include "ufs/ufs.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "ufs/ufs_page.h"
#include "ufs/ufs_priv.h"

static void nomem_answer(struct deferred *d);

int ufs_new(struct ufs **out, const struct ufs_env *env, const char *uri, struct errtext *et)
{
	static const struct {
		const char *scheme;
		int (*make)(struct ufs **out, const struct ufs_env *env, const char *rest,
		    struct errtext *et);
	} schemes[] = { { "s3://", s3_new }, { "file://", posix_new } };

	*out = NULL;
	for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
		size_t n = strlen(schemes[i].scheme);

		if (strncmp(uri, schemes[i].scheme, n) != 0)
			continue;
		int err = schemes[i].make(out, env, uri + n, et);

		return err == 0 ? 0 : errtext_prefix(et, err, "storage %s", uri);
	}
	return errtext_set(et, -EINVAL,
	    "storage %s: unknown kind; s3://BUCKET/PREFIX or file:///DIRECTORY are known", uri);
}

void ufs_free(struct ufs **up)
{
	struct ufs *u;

	if (*up == NULL)
		return;
	TAKE_OBJ(u, up, UFS_MAGIC);
	assert(u->running == 0);
	loop_undefer(u->env.loop, &u->nomem_run);
	u->ops->free(u);
}

const char *ufs_uri(const struct ufs *u)
{
	return u->uri;
}

void ufs_set_mount_id(struct ufs *u, uint64_t id)
{
	u->mount_id = id;
}

/* --- health */

void ufs_health(const struct ufs *u, struct ufs_health *out)
{
	*out = u->health;
}

void ufs_health_note(struct ufs *u, int err, const char *fmt, ...)
{
	struct ufs_health *h = &u->health;
	va_list ap;

	if (h->since_ns == 0 || h->ok != (err == 0)) {
		h->ok = err == 0;
		h->since_ns = loop_now(u->env.loop);
	}
	if (err == 0)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(h->last_error, sizeof(h->last_error), fmt, ap);
	va_end(ap);
}

/* --- names */

bool ufs_name_ok(const char *name, size_t len)
{
	if (len == 0 || len > UFS_NAME_MAX || memchr(name, '\0', len) != NULL ||
	    memchr(name, '/', len) != NULL)
		return false;
	return !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

int ufs_path_check(const char *path)
{
	if (*path == '\0')
		return 0;
	if (strlen(path) > UFS_PATH_MAX)
		return -ENAMETOOLONG;
	for (const char *p = path;;) {
		size_t n = strcspn(p, "/");

		if (n > UFS_NAME_MAX)
			return -ENAMETOOLONG;
		if (!ufs_name_ok(p, n))
			return -EINVAL;
		if (p[n] == '\0')
			return 0;
		p += n + 1;
	}
}

/* --- a request's beginning and end */

void ufs_req_begin(struct ufs *u, struct ufs_req *rq, void (*done)(struct ufs_req *r, int err))
{
	CHECK_OBJ(u, UFS_MAGIC);
	rq->magic = UFS_REQ_MAGIC;
	rq->ufs = u;
	rq->done = done;
	rq->priv = NULL;
	u->running++;
}

static void req_answer(struct ufs_req *rq, int err)
{
	rq->magic = UFS_REQ_MAGIC;
	rq->priv = NULL;
	rq->ufs->running--;
	rq->done(rq, err);
}

static void answer_nomem(struct ufs_req *rq)
{
	struct ufs *u = rq->ufs;

	rq->magic = UFS_REQ_NOMEM_MAGIC;
	rq->priv = u->nomem != NULL ? (void *)u->nomem : (void *)u; /* never NULL: it runs */
	u->nomem = rq;
	loop_defer(u->env.loop, &u->nomem_run, nomem_answer);
}

static struct ufs_req *nomem_next(struct ufs_req *rq)
{
	return rq->priv == (void *)rq->ufs ? NULL : rq->priv;
}

/* One a call: the user may start, abort and free in its answer. */
static void nomem_answer(struct deferred *d)
{
	struct ufs *u = container_of(d, struct ufs, nomem_run);
	struct ufs_req *rq = u->nomem;

	if (rq == NULL)
		return;
	u->nomem = nomem_next(rq);
	if (u->nomem != NULL)
		loop_defer(u->env.loop, d, nomem_answer);
	req_answer(rq, -ENOMEM);
}

static void nomem_abort(struct ufs_req *rq)
{
	struct ufs *u = rq->ufs;
	struct ufs_req *next = nomem_next(rq);

	if (u->nomem == rq) {
		u->nomem = next;
	} else {
		struct ufs_req *p = u->nomem;

		while (nomem_next(p) != rq)
			p = nomem_next(p);
		p->priv = next != NULL ? (void *)next : (void *)u;
	}
}

void *ufs_call_new(struct ufs_req *rq, size_t size, void (*abort)(struct ufs_call *c))
{
	struct ufs_call *c = calloc(1, size);

	if (c == NULL) {
		answer_nomem(rq);
		return NULL;
	}
	c->magic = UFS_CALL_MAGIC;
	c->rq = rq;
	c->abort = abort;
	rq->priv = c;
	return c;
}

void ufs_call_end(struct ufs_call *c, int err)
{
	struct ufs_req *rq = c->rq;

	FREE_OBJ(c);
	req_answer(rq, err);
}

void ufs_call_drop(struct ufs_call *c)
{
	FREE_OBJ(c);
}

struct later {
	struct ufs_call call;
	struct deferred run;
	int err;
};

static void later_run(struct deferred *d)
{
	struct later *l = container_of(d, struct later, run);

	ufs_call_end(&l->call, l->err);
}

static void later_abort(struct ufs_call *c)
{
	struct later *l = container_of(c, struct later, call);

	loop_undefer(c->rq->ufs->env.loop, &l->run);
	ufs_call_drop(c);
}

void ufs_answer_later(struct ufs_req *rq, int err)
{
	struct later *l = ufs_call_new(rq, sizeof(*l), later_abort);

	if (l == NULL)
		return;
	l->err = err;
	loop_defer(rq->ufs->env.loop, &l->run, later_run);
}

void ufs_abort(struct ufs_req *rq)
{
	struct ufs_call *c = rq->priv;

	if (c == NULL)
		return;
	rq->ufs->running--;
	if (rq->magic == UFS_REQ_NOMEM_MAGIC) {
		nomem_abort(rq);
		rq->priv = NULL;
		return;
	}
	CHECK_OBJ(c, UFS_CALL_MAGIC);
	c->abort(c);
	rq->priv = NULL;
}

/* --- the requests */

void ufs_stat(struct ufs *u, struct ufs_stat *rq, void (*done)(struct ufs_req *r, int err))
{
	int err;

	ufs_req_begin(u, &rq->req, done);
	memset(&rq->attr, 0, sizeof(rq->attr));
	err = ufs_path_check(rq->path);
	if (err == 0)
		err = FAULT("ufs.stat");
	if (err == 0)
		u->ops->stat(u, rq);
	else
		ufs_answer_later(&rq->req, err);
}

void ufs_list(struct ufs *u, struct ufs_list *rq, void (*done)(struct ufs_req *r, int err))
{
	char after[UFS_NAME_MAX + 1];
	int err;

	ufs_req_begin(u, &rq->req, done);
	err = ufs_path_check(rq->path);
	if (rq->after != NULL) {
		size_t n = strlen(rq->after);

		if (!ufs_name_ok(rq->after, n))
			err = -EINVAL;
		else
			memcpy(after, rq->after, n + 1);
	}
	ufs_page_free(rq);
	rq->hidden = false;
	if (err == 0)
		err = FAULT("ufs.list");
	if (err == 0)
		u->ops->list(u, rq, rq->after != NULL ? after : NULL);
	else
		ufs_answer_later(&rq->req, err);
}

void ufs_list_free(struct ufs_list *rq)
{
	struct ufs_cursor *cur = rq->cursor;

	ufs_page_free(rq);
	rq->cursor = NULL;
	if (cur != NULL)
		cur->free(cur);
}

void ufs_read(struct ufs *u, struct ufs_read *rq, void (*done)(struct ufs_req *r, int err))
{
	int err;

	ufs_req_begin(u, &rq->req, done);
	err = *rq->path == '\0' ? -EINVAL : ufs_path_check(rq->path);
	/* Without a version nothing would tell a mix of two contents. */
	if (err == 0 && (*rq->version == '\0' || strlen(rq->version) >= UFS_VERSION_MAX))
		err = -EINVAL;
	if (err == 0 && (rq->off > INT64_MAX || rq->len > (uint64_t)INT64_MAX - rq->off))
		err = -EINVAL;
	if (err == 0)
		err = FAULT("ufs.read");
	if (err == 0 && rq->len > 0)
		u->ops->read(u, rq);
	else
		ufs_answer_later(&rq->req, err);
}

void ufs_check(struct ufs *u, struct ufs_check *rq, void (*done)(struct ufs_req *r, int err))
{
	ufs_req_begin(u, &rq->req, done);
	memset(&rq->et, 0, sizeof(rq->et));
	u->ops->check(u, rq);
}

void ufs_statfs(struct ufs *u, struct ufs_statfs *rq, void (*done)(struct ufs_req *r, int err))
{
	ufs_req_begin(u, &rq->req, done);
	memset(&rq->space, 0, sizeof(rq->space));
	u->ops->statfs(u, rq);
}
