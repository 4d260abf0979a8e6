/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Multipart uploads begin and end here.  What was begun for somebody who has gone is
 * ended again; what is to be ended has a row until the storage has heard of it, so that
 * a successor can tell it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "cache/upload_priv.h"

static struct up_multi *multi_new(struct uploads *us, struct ufs *ufs, uint64_t key,
    const char *path)
{
	struct up_multi *m;

	ALLOC_OBJ(m, UP_MULTI_MAGIC);
	if (m == NULL)
		return NULL;
	m->us = us;
	m->ufs = ufs;
	m->key = key;
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
	ufs_abort(m->ending ? &m->rq.abort.req : &m->rq.begin.req);
	TAILQ_REMOVE(&m->us->multis, m, link);
	free(m->path);
	FREE_OBJ(m);
}

/* --- the end */

static bool may_pass(int err)
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
	if (!may_pass(err))
		rows_drop_del(m->us, m->key, m->row);
	multi_free(&m);
}

static void end_start(struct up_multi *m)
{
	m->ending = true;
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

void multi_drop(struct upload *up)
{
	const char *uri = up->ufs != NULL ? ufs_uri(up->ufs) : up->uri;
	unsigned row;
	struct up_multi *m;
	struct ufs *u;

	multi_abandon(up);
	if (up->id == NULL) {
		upload_forget(up);
		return;
	}
	row = rows_drop_put(up->us, up->key, uri, up->path, up->id);
	u = up->ufs != NULL ? up->ufs : by_uri(up->us, uri);
	m = u != NULL ? multi_new(up->us, u, up->key, up->path) : NULL;
	if (m != NULL) {
		m->row = row;
		(void)snprintf(m->id, sizeof(m->id), "%s", up->id);
		end_start(m);
	} else {
		log_warn("%s/%s: the unfinished upload %s is left for later", uri, up->path,
		    up->id);
	}
	upload_forget(up);
}

static bool is_ending(const struct uploads *us, uint64_t key, unsigned row)
{
	const struct up_multi *m;

	TAILQ_FOREACH(m, &us->multis, link)
		if (m->ending && m->key == key && m->row == row)
			return true;
	return false;
}

void uploads_resume(struct uploads *us, struct ufs *const *ufs, unsigned n)
{
	struct up_drop_row dr = { .key = 0 };
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
		struct ufs *u = by_uri(us, dr.uri);
		struct up_multi *m;

		if (u == NULL || strlen(dr.id) >= sizeof(m->id) || is_ending(us, dr.key, dr.row))
			continue;
		m = multi_new(us, u, dr.key, dr.path);
		if (m == NULL)
			return;
		m->row = dr.row;
		(void)snprintf(m->id, sizeof(m->id), "%s", dr.id);
		end_start(m);
	}
}

/* --- the beginning */

static void begun(struct ufs_req *r, int err)
{
	struct up_multi *m = r->user;
	struct upload *up = m->up;

	if (err == 0)
		(void)snprintf(m->id, sizeof(m->id), "%s", m->rq.begin.id);
	if (up == NULL && err == 0) {
		m->row = rows_drop_put(m->us, m->key, ufs_uri(m->ufs), m->path, m->id);
		end_start(m);
		return;
	}
	if (up != NULL) {
		up->begin = NULL;
		if (err == 0) {
			up->sums = m->rq.begin.sums;
			up->id = strdup(m->id);
			err = up->id != NULL ? rows_begin(up) : -ENOMEM;
			if (err == 0)
				err = FAULT("upload.multi.begun");
		}
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

int multi_begin(struct upload *up)
{
	struct up_multi *m = multi_new(up->us, up->ufs, up->key, up->path);

	if (m == NULL)
		return -ENOMEM;
	m->up = up;
	up->begin = m;
	up->unit = plan_unit(up->us);
	m->rq.begin.path = m->path;
	m->rq.begin.sums = upload_durable(up);
	m->rq.begin.req.user = m;
	ufs_multi_begin(m->ufs, &m->rq.begin, begun);
	return 0;
}

void multi_abandon(struct upload *up)
{
	if (up->begin == NULL)
		return;
	up->begin->up = NULL;
	up->begin = NULL;
	up->unit = 0; /* it was to be that of the beginning */
}
