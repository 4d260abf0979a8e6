/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A request's life: given to the back end, answered once, or aborted, or given up after
 * meta.timeout.  What each is, request_read.c and request_txn.c know.
 */
#include <errno.h>
#include <string.h>

#include "base/options.h"
#include "meta/store.h"

#define REQ_MAGIC 0x3e7a7e90u
#define REQ_NOMEM_MAGIC 0x3e7a7ea0u

/* --- Checks */

static int name_check(const char *name, size_t len)
{
	if (len > META_NAME_MAX)
		return -ENAMETOOLONG;
	if (len == 0 || (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'))))
		return -EINVAL;
	return 0;
}

int meta_path_check(const char *path)
{
	if (*path == '\0')
		return 0;
	if (strlen(path) > META_PATH_MAX)
		return -ENAMETOOLONG;
	for (const char *p = path;;) {
		size_t n = strcspn(p, "/");
		int err = name_check(p, n);

		if (err != 0 || p[n] == '\0')
			return err;
		p += n + 1;
	}
}

/* --- The end */

static void answer_nomem(struct deferred *d);

static void call_free(struct meta_call *c)
{
	TAILQ_REMOVE(&c->meta->calls, c, all);
	free(c->entries);
	free(c->intents);
	free(c->arena);
	free(c->over);
	free(c->blob);
	FREE_OBJ(c);
}

static void answer(struct meta *m, struct meta_req *rq, int err)
{
	rq->magic = REQ_MAGIC;
	rq->priv = NULL;
	m->running--;
	rq->done(rq, err);
}

static void answer_call(struct deferred *d)
{
	struct meta_call *c = container_of(d, struct meta_call, answer);
	struct meta_req *rq;
	struct meta *m;
	int err;

	CHECK_OBJ(c, META_CALL_MAGIC);
	m = c->meta;
	rq = c->rq;
	err = c->err;
	if (err == 0 && c->op == META_OP_SCAN)
		err = later_merge(c);
	if (err == 0)
		request_hand_out(c);
	call_free(c);
	answer(m, rq, err);
}

void meta_call_end(struct meta_call *c, int err)
{
	CHECK_OBJ(c, META_CALL_MAGIC);
	assert(c->state != META_CALL_ENDED);
	if (c->rq == NULL) {
		call_free(c);
		return;
	}
	timer_cancel(&c->timeout);
	c->state = META_CALL_ENDED;
	c->err = err;
	loop_defer(c->meta->env.loop, &c->answer, answer_call);
}

/* Nobody waits for the call any more. */
static void call_leave(struct meta_call *c)
{
	struct meta_backend *be = c->meta->be;

	timer_cancel(&c->timeout);
	if (c->state == META_CALL_ENDED)
		loop_undefer(c->meta->env.loop, &c->answer);
	else if (c->state == META_CALL_GIVEN && !be->ops->recall(be, c)) {
		c->rq = NULL; /* freed when the back end is done with it */
		return;
	}
	call_free(c);
}

static void timeout_fired(struct timer *t)
{
	struct meta_call *c = container_of(t, struct meta_call, timeout);
	struct meta_req *rq;
	struct meta *m;

	CHECK_OBJ(c, META_CALL_MAGIC);
	m = c->meta;
	rq = c->rq;
	call_leave(c);
	answer(m, rq, -ETIMEDOUT);
}

/* Requests that there was no memory for are chained through their priv; the last one
 * points at the store, since NULL means that a request does not run. */
static struct meta_req *nomem_next(const struct meta_req *rq)
{
	return rq->priv == (void *)rq->meta ? NULL : rq->priv;
}

static void fail_nomem(struct meta *m, struct meta_req *rq)
{
	rq->magic = REQ_NOMEM_MAGIC;
	rq->priv = m->nomem != NULL ? (void *)m->nomem : (void *)m;
	m->nomem = rq;
	loop_defer(m->env.loop, &m->nomem_answer, answer_nomem);
}

/* One a call: its user may start, abort and free others. */
static void answer_nomem(struct deferred *d)
{
	struct meta *m = container_of(d, struct meta, nomem_answer);
	struct meta_req *rq = m->nomem;

	if (rq == NULL)
		return;
	m->nomem = nomem_next(rq);
	if (m->nomem != NULL)
		loop_defer(m->env.loop, d, answer_nomem);
	answer(m, rq, -ENOMEM);
}

static void abort_nomem(struct meta_req *rq)
{
	struct meta *m = rq->meta;
	struct meta_req *p = m->nomem, *next = nomem_next(rq);

	if (p == rq) {
		m->nomem = next;
		return;
	}
	while (nomem_next(p) != rq)
		p = nomem_next(p);
	p->priv = next != NULL ? (void *)next : (void *)m;
}

void meta_abort(struct meta_req *rq)
{
	if (rq->priv == NULL)
		return;
	rq->meta->running--;
	if (rq->magic == REQ_NOMEM_MAGIC) {
		abort_nomem(rq);
	} else {
		assert(rq->magic == REQ_MAGIC);
		call_leave(rq->priv);
	}
	rq->magic = REQ_MAGIC;
	rq->priv = NULL;
}

/* --- The beginning */

static void give(struct meta_call *c)
{
	c->state = META_CALL_GIVEN;
	c->meta->be->ops->begin(c->meta->be, c);
}

struct meta_call *request_new(struct meta *m, struct meta_req *rq,
    void (*done)(struct meta_req *r, int err), enum meta_op op, size_t extra)
{
	struct meta_call *c;

	CHECK_OBJ(m, META_MAGIC);
	rq->magic = REQ_MAGIC;
	rq->meta = m;
	rq->done = done;
	m->running++;
	c = calloc(1, sizeof(*c) + extra);
	if (c == NULL) {
		fail_nomem(m, rq);
		return NULL;
	}
	c->magic = META_CALL_MAGIC;
	c->meta = m;
	c->rq = rq;
	c->op = op;
	rq->priv = c;
	timer_init(&c->timeout, m->env.loop, timeout_fired);
	TAILQ_INSERT_TAIL(&m->calls, c, all);
	return c;
}

void request_start(struct meta_call *c, int err)
{
	struct meta *m = c->meta;

	if (err == 0 && m->state == STORE_FAILED)
		err = -EIO;
	else if (err == 0 && m->state == STORE_LOST)
		err = -EIO;
	else if (err == 0 && m->state != STORE_OPENING && m->state != STORE_OPEN &&
		 m->state != STORE_REOPENING)
		err = -ECANCELED;
	if (err != 0) {
		meta_call_end(c, err);
		return;
	}
	timer_arm(&c->timeout, m->env.cfg->meta_timeout);
	if (m->state == STORE_OPEN && later_passed(m, c->mark))
		give(c);
}

void request_begin_waiting(struct meta *m)
{
	struct meta_call *c;

	TAILQ_FOREACH (c, &m->calls, all) {
		if (c->state == META_CALL_WAITING && later_passed(m, c->mark))
			give(c);
	}
}

void request_fail_waiting(struct meta *m, int err)
{
	struct meta_call *c;

	TAILQ_FOREACH (c, &m->calls, all) {
		if (c->state == META_CALL_WAITING)
			meta_call_end(c, err);
	}
}

void request_recall(struct meta *m, int err)
{
	struct meta_call *c;

	TAILQ_FOREACH (c, &m->calls, all) {
		if (c->state == META_CALL_GIVEN && m->be->ops->recall(m->be, c))
			meta_call_end(c, err);
	}
}

/* --- Copies */

const char *request_text(char **at, const char *s)
{
	char *to = *at;
	size_t n;

	if (s == NULL)
		return NULL;
	n = strlen(s) + 1;
	memcpy(to, s, n);
	*at += n;
	return to;
}

size_t request_text_size(const char *s)
{
	return s == NULL ? 0 : strlen(s) + 1;
}
