/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Multipart uploads begin and end here.  What was begun for somebody who has gone is
 * ended again; what is to be ended has a row until the storage has heard of it, so that
 * a successor can tell it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/fault.h"
#include "base/log.h"
#include "cache/upload_priv.h"

struct up_multi *multi_new(struct uploads *us, struct ufs *ufs, uint64_t key, const char *path)
{
	struct up_multi *m;

	ALLOC_OBJ(m, UP_MULTI_MAGIC);
	if (m == NULL)
		return NULL;
	m->us = us;
	m->ufs = ufs;
	m->key = key;
	m->state = MULTI_WAIT;
	timer_init(&m->pause, us->env.loop, sweep_due);
	TAILQ_INSERT_TAIL(&us->multis, m, link);
	m->path = strdup(path);
	if (m->path == NULL)
		multi_free(&m);
	return m;
}

void multi_free(struct up_multi **mp)
{
	struct up_multi *m;

	TAKE_OBJ(m, mp, UP_MULTI_MAGIC);
	if (m->state == MULTI_BEGIN)
		ufs_abort(&m->rq.begin.req);
	else if (m->state == MULTI_END)
		ufs_abort(&m->rq.abort.req);
	else if (m->state == MULTI_SWEEP)
		ufs_abort(&m->rq.sweep.req);
	timer_cancel(&m->pause);
	TAILQ_REMOVE(&m->us->multis, m, link);
	for (unsigned i = 0; i < m->known.n; i++)
		free(m->known.id[i]);
	free(m->known.id);
	free(m->path);
	free(m->moved);
	FREE_OBJ(m);
}

/* --- the end */

bool multi_may_pass(int err)
{
	return err == -EIO || err == -ETIMEDOUT || err == -ENOMEM;
}

static void ended(struct ufs_req *r, int err)
{
	struct up_multi *m = r->user;

	CHECK_OBJ(m, UP_MULTI_MAGIC);
	if (err != 0)
		log_warn("%s/%s: end the unfinished upload %s: %s", ufs_uri(m->ufs), m->path, m->id,
		    strerror(-err));
	/* Else the next daemon tries once more. */
	if (!multi_may_pass(err))
		rows_drop_del(m->us, m->key, m->row);
	multi_free(&m);
}

void multi_end_start(struct up_multi *m)
{
	m->state = MULTI_END;
	memset(&m->rq, 0, sizeof(m->rq));
	m->rq.abort.path = m->path;
	m->rq.abort.id = m->id;
	m->rq.abort.req.user = m;
	ufs_multi_abort(m->ufs, &m->rq.abort, ended);
}

static struct ufs *by_uri(const struct uploads *us, const char *uri)
{
	for (unsigned i = 0; i < us->nufs; i++)
		if (strcmp(ufs_uri(us->ufs[i]), uri) == 0)
			return us->ufs[i];
	return NULL;
}

/* u NULL: its storage is not attached now. */
static void end_at(struct uploads *us, struct ufs *u, uint64_t key, const char *uri,
    const char *path, const char *id)
{
	unsigned row = rows_drop_put(us, key, uri, path, id);
	struct up_multi *m = u != NULL ? multi_new(us, u, key, path) : NULL;

	if (m == NULL) {
		log_warn("%s/%s: the unfinished upload %s is left for later", uri, path, id);
		return;
	}
	m->row = row;
	(void)snprintf(m->id, sizeof(m->id), "%s", id);
	multi_end_start(m);
}

static void drop(struct upload *up, const char *moved)
{
	const char *uri = up->ufs != NULL ? ufs_uri(up->ufs) : up->uri;
	struct ufs *u;

	multi_abandon(up);
	if (up->id != NULL) {
		u = up->ufs != NULL ? up->ufs : by_uri(up->us, uri);
		end_at(up->us, u, up->key, uri, up->path, up->id);
		if (moved != NULL)
			end_at(up->us, u, up->key, uri, moved, up->id);
	}
	upload_forget(up);
}

void multi_drop(struct upload *up)
{
	drop(up, NULL);
}

/* Where the storage moves directories, what is in them moves along. */
void multi_drop_moved(struct upload *up, const char *path)
{
	if ((ufs_can(up->ufs) & UFS_CAN_RENAME) == 0) {
		drop(up, NULL);
		return;
	}
	if (up->begin != NULL && up->begin->moved == NULL)
		up->begin->moved = strdup(path); /* without it a file may stay there */
	drop(up, path);
}

static bool is_known(const struct uploads *us, uint64_t key, unsigned row)
{
	const struct up_multi *m;

	TAILQ_FOREACH(m, &us->multis, link)
		if (m->key == key && m->row == row)
			return true;
	return false;
}

static void resume(struct uploads *us, struct ufs *u, const struct up_drop_row *dr)
{
	struct up_multi *m = multi_new(us, u, dr->mark.key, dr->mark.path);

	if (m == NULL)
		return; /* the next daemon */
	m->row = dr->row;
	if (dr->id != NULL) {
		(void)snprintf(m->id, sizeof(m->id), "%s", dr->id);
		multi_end_start(m);
		return;
	}
	m->token = dr->mark.token;
	m->since_ns = dr->mark.since_ns;
	sweep_resume(m);
}

void uploads_resume(struct uploads *us, struct ufs *const *ufs, unsigned n)
{
	struct up_drop_row dr = { .row = 0 };
	struct ufs **copy = NULL;

	CHECK_OBJ(us, UPLOADS_MAGIC);
	if (n > 0 && (copy = calloc(n, sizeof(*copy))) == NULL)
		return;
	if (n > 0)
		memcpy(copy, ufs, n * sizeof(*copy));
	free(us->ufs);
	us->ufs = copy;
	us->nufs = n;
	while (rows_drop_next(us, &dr)) {
		struct ufs *u = by_uri(us, dr.mark.uri);

		if (u != NULL && (dr.id == NULL || strlen(dr.id) < UFS_UPLOAD_MAX) &&
		    !is_known(us, dr.mark.key, dr.row))
			resume(us, u, &dr);
	}
}

/* --- the beginning */

/* Nobody waits for it any more. */
static void begun_in_vain(struct up_multi *m)
{
	const char *uri = ufs_uri(m->ufs);

	end_at(m->us, m->ufs, m->key, uri, m->path, m->id);
	if (m->moved != NULL)
		end_at(m->us, m->ufs, m->key, uri, m->moved, m->id);
}

static int take_begun(struct upload *up, const struct up_multi *m)
{
	int err;

	up->sums = m->rq.begin.sums;
	up->id = strdup(m->id);
	err = up->id != NULL ? rows_begin(up) : -ENOMEM;
	return err == 0 ? FAULT("upload.multi.begun") : err;
}

static void begun(struct ufs_req *r, int err)
{
	struct up_multi *m = r->user;
	struct upload *up;

	CHECK_OBJ(m, UP_MULTI_MAGIC);
	up = m->up;
	if (err == 0)
		err = FAULT("upload.multi.made");
	if (err == 0)
		(void)snprintf(m->id, sizeof(m->id), "%s", m->rq.begin.id);
	sweep_begun(m, err);
	if (up != NULL)
		up->begin = NULL;
	if (err == 0 && up != NULL) {
		err = take_begun(up, m);
		if (err != 0 && up->id == NULL)
			begun_in_vain(m);
	} else if (err == 0) {
		begun_in_vain(m);
	}
	multi_free(&m);
	if (up == NULL)
		return;
	if (err == 0) {
		upload_kick(up);
		return;
	}
	multi_drop(up);
	if (up->run != NULL)
		run_fail(up, err);
	else
		ahead_failed(up);
}

void multi_begin_start(struct up_multi *m)
{
	m->state = MULTI_BEGIN;
	if (m->copy != NULL) {
		copy_begin_start(m);
		return;
	}
	m->rq.begin.path = m->path;
	m->rq.begin.token = m->token;
	m->rq.begin.file = m->key;
	m->rq.begin.sums = m->sums;
	m->rq.begin.req.user = m;
	ufs_multi_begin(m->ufs, &m->rq.begin, begun);
}

static uint64_t token_new(void)
{
	uint64_t token = 0;

	/* 0 is none: the storage finds a name then. */
	return getrandom(&token, sizeof(token), 0) == (ssize_t)sizeof(token) ? token : 0;
}

/* Of the answer a daemon that dies does not hear. */
int multi_mark(struct up_multi *m)
{
	struct up_mark mark;

	m->token = token_new();
	m->since_ns = loop_wall(m->us->env.loop);
	mark = (struct up_mark){ m->key, m->token, m->since_ns, ufs_uri(m->ufs), m->path };
	return rows_mark_put(m->us, &mark, &m->row);
}

int multi_begin(struct upload *up)
{
	struct up_multi *m = multi_new(up->us, up->ufs, up->key, up->path);
	int err;

	if (m == NULL)
		return -ENOMEM;
	err = multi_mark(m);
	if (err != 0) {
		multi_free(&m);
		return err;
	}
	m->up = up;
	m->sums = upload_durable(up);
	up->begin = m;
	up->unit = plan_unit(up->us);
	if (!sweep_holds(m))
		multi_begin_start(m);
	return 0;
}

void multi_abandon(struct upload *up)
{
	struct up_multi *m = up->begin;

	if (m == NULL)
		return;
	m->up = NULL;
	up->begin = NULL;
	up->unit = 0; /* it was to be that of the beginning */
	if (m->state == MULTI_WAIT) {
		rows_drop_del(m->us, m->key, m->row);
		multi_free(&m);
	}
}
