/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A request's life: checked and copied, given to the back end, answered once, or
 * aborted, or given up after meta.timeout.
 */
#include <errno.h>
#include <string.h>

#include "base/options.h"
#include "meta/records.h"
#include "meta/store.h"

#define REQ_MAGIC 0x3e7a7e90u
#define REQ_NOMEM_MAGIC 0x3e7a7ea0u
#define SCAN_MAX 1000

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

static bool below(const char *path, const char *top)
{
	size_t n = strlen(top);

	return strncmp(path, top, n) == 0 && path[n] == '/';
}

static int move_check(const char *path, const char *to)
{
	int err = meta_path_check(path);

	if (err == 0)
		err = meta_path_check(to);
	if (err != 0)
		return err;
	return *path == '\0' || *to == '\0' || below(path, to) || below(to, path) ? -EINVAL : 0;
}

static int change_check(const struct meta_change *ch)
{
	int err;

	switch (ch->verb) {
	case META_PUT:
		err = meta_path_check(ch->path);
		if (err == 0)
			err = meta_record_check(&ch->rec);
		return err != 0 || *ch->path != '\0' || ch->rec.kind == META_DIR ? err : -EINVAL;
	case META_DEL:
		return *ch->path != '\0' ? meta_path_check(ch->path) : -EINVAL;
	case META_MOVE:
		return move_check(ch->path, ch->to);
	case META_INTENT_PUT:
		return ch->id != 0 && ch->blob_len <= META_BLOB_MAX ? 0 : -EINVAL;
	case META_INTENT_DEL:
		return ch->id != 0 ? 0 : -EINVAL;
	case META_SETTING_PUT:
		break;
	}
	return -EINVAL;
}

static int txn_check(const struct meta_change *changes, unsigned n)
{
	int err = 0;

	for (unsigned i = 0; err == 0 && i < n; i++)
		err = change_check(&changes[i]);
	return err;
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
	FREE_OBJ(c);
}

static void answer(struct meta *m, struct meta_req *rq, int err)
{
	rq->magic = REQ_MAGIC;
	rq->priv = NULL;
	m->running--;
	rq->done(rq, err);
}

/* The results become the request's. */
static void hand_out(struct meta_call *c)
{
	struct meta_get *get = container_of(c->rq, struct meta_get, req);
	struct meta_scan *scan = container_of(c->rq, struct meta_scan, req);
	struct meta_intents *all = container_of(c->rq, struct meta_intents, req);

	switch (c->op) {
	case META_OP_GET:
		get->rec = c->rec;
		return;
	case META_OP_SCAN:
		scan->entries = c->entries;
		scan->count = c->count;
		scan->more = c->more;
		scan->arena = c->arena;
		break;
	case META_OP_INTENTS:
		all->intents = c->intents;
		all->count = c->count;
		all->arena = c->arena;
		break;
	case META_OP_TXN:
		return;
	}
	c->entries = NULL;
	c->intents = NULL;
	c->arena = NULL;
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
		hand_out(c);
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

/* With `extra` bytes behind it; NULL: answered already. */
static struct meta_call *call_new(struct meta *m, struct meta_req *rq,
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

/* err: what the checks said. */
static void call_start(struct meta_call *c, int err)
{
	struct meta *m = c->meta;

	if (err == 0 && m->state == STORE_FAILED)
		err = -EIO;
	else if (err == 0 && m->state == STORE_LOST)
		err = -EIO;
	else if (err == 0 && m->state != STORE_OPENING && m->state != STORE_OPEN)
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

/* Appends s with its NUL; NULL stays NULL. */
static const char *copy_text(char **at, const char *s)
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

static size_t text_size(const char *s)
{
	return s == NULL ? 0 : strlen(s) + 1;
}

void meta_get(struct meta *m, struct meta_get *rq, void (*done)(struct meta_req *r, int err))
{
	int err = meta_path_check(rq->path);
	struct meta_call *c =
	    call_new(m, &rq->req, done, META_OP_GET, err == 0 ? text_size(rq->path) : 0);
	int waits = -EAGAIN;
	char *at;

	if (c == NULL)
		return;
	at = (char *)(c + 1);
	if (err == 0) {
		c->path = copy_text(&at, rq->path);
		waits = later_get(m, rq->path, &c->rec);
	}
	if (waits != -EAGAIN)
		meta_call_end(c, waits);
	else
		call_start(c, err);
}

void meta_scan_free(struct meta_scan *rq)
{
	free(rq->entries);
	free(rq->arena);
	rq->entries = NULL;
	rq->arena = NULL;
	rq->count = 0;
	rq->more = false;
}

void meta_scan(struct meta *m, struct meta_scan *rq, void (*done)(struct meta_req *r, int err))
{
	int err = meta_path_check(rq->path);
	struct meta_call *c;
	char *at;

	if (err == 0 && (text_size(rq->after) > META_NAME_MAX + 1 ||
			    text_size(rq->last) > META_NAME_MAX + 1))
		err = -ENAMETOOLONG;
	meta_scan_free(rq);
	c = call_new(m, &rq->req, done, META_OP_SCAN,
	    err == 0 ? text_size(rq->path) + text_size(rq->after) + text_size(rq->last) : 0);
	if (c == NULL)
		return;
	at = (char *)(c + 1);
	if (err == 0) {
		c->path = copy_text(&at, rq->path);
		c->after = copy_text(&at, rq->after);
		c->last = copy_text(&at, rq->last);
		c->max = rq->max != 0 ? rq->max : SCAN_MAX;
		err = later_note(m, c);
	}
	call_start(c, err);
}

void meta_intents_free(struct meta_intents *rq)
{
	free(rq->intents);
	free(rq->arena);
	rq->intents = NULL;
	rq->arena = NULL;
	rq->count = 0;
}

void meta_intents(
    struct meta *m, struct meta_intents *rq, void (*done)(struct meta_req *r, int err))
{
	struct meta_call *c;

	meta_intents_free(rq);
	c = call_new(m, &rq->req, done, META_OP_INTENTS, 0);
	if (c != NULL)
		call_start(c, 0);
}

/* Only what the verb uses counts. */
static bool has_path(const struct meta_change *ch)
{
	return ch->verb == META_PUT || ch->verb == META_DEL || ch->verb == META_MOVE;
}

static size_t change_size(const struct meta_change *ch)
{
	size_t n = sizeof(*ch);

	n += has_path(ch) ? text_size(ch->path) : 0;
	n += ch->verb == META_MOVE ? text_size(ch->to) : 0;
	n += ch->verb == META_INTENT_PUT ? ch->blob_len : 0;
	return n;
}

static void copy_change(struct meta_change *to, const struct meta_change *ch, char **at)
{
	*to = *ch;
	to->path = has_path(ch) ? copy_text(at, ch->path) : NULL;
	to->to = ch->verb == META_MOVE ? copy_text(at, ch->to) : NULL;
	to->blob = NULL;
	if (ch->verb == META_INTENT_PUT) {
		to->blob = *at;
		if (ch->blob_len > 0)
			memcpy(*at, ch->blob, ch->blob_len);
		*at += ch->blob_len;
	}
}

void request_txn(struct meta *m, struct meta_txn *rq, uint64_t mark,
    void (*done)(struct meta_req *r, int err))
{
	int err = txn_check(rq->changes, rq->n);
	unsigned n = err == 0 ? rq->n : 0;
	struct meta_call *c;
	size_t size = 0;
	char *at;

	for (unsigned i = 0; i < n; i++)
		size += change_size(&rq->changes[i]);
	c = call_new(m, &rq->req, done, META_OP_TXN, size);
	if (c == NULL)
		return;
	c->changes = (struct meta_change *)(c + 1);
	c->n = n;
	c->mark = mark;
	at = (char *)(c->changes + n);
	for (unsigned i = 0; i < n; i++)
		copy_change(&c->changes[i], &rq->changes[i], &at);
	call_start(c, err);
}

/* Answered from the next turn's deferred queue, behind the commit that keeps it. */
static void txn_later(struct meta *m, struct meta_txn *rq, void (*done)(struct meta_req *r, int err))
{
	struct meta_call *c = call_new(m, &rq->req, done, META_OP_TXN, 0);

	if (c != NULL)
		meta_call_end(c, later_add(m, rq->changes, rq->n));
}

void meta_txn(struct meta *m, struct meta_txn *rq, void (*done)(struct meta_req *r, int err))
{
	CHECK_OBJ(m, META_MAGIC);
	bool valid = txn_check(rq->changes, rq->n) == 0;

	if (rq->later && valid && later_takes(m, rq->changes, rq->n))
		txn_later(m, rq, done);
	else
		request_txn(m, rq, valid ? later_before(m, rq->changes, rq->n) : 0, done);
}
