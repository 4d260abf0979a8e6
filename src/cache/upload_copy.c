/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Copies within the storage.  One that has to be made in parts is an upload without a
 * staged file behind it.  It has a mark until the storage has told its id, and then a row
 * that says what the next daemon shall do with it: throw it away, since whoever wanted
 * the copy makes it again from the start.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "cache/upload_priv.h"

#define ANEW_MAX 4u

static void copied(struct ufs_req *r, int err);

static void send(struct upload_copy *c, struct ufs *ufs, int (*begun)(struct ufs_copy *rq))
{
	c->rq.src = c->src;
	c->rq.src_version = c->src_version;
	c->rq.size = c->size;
	c->rq.dst = c->dst;
	c->rq.begun = begun;
	c->rq.req.user = c;
	ufs_copy(ufs, &c->rq, copied);
}

/* The mark goes in the same commit in which the row comes. */
static int begun(struct ufs_copy *rq)
{
	struct upload_copy *c = container_of(rq, struct upload_copy, rq);
	struct up_multi *m = c->multi;
	int err = FAULT("upload.copy.made");
	unsigned row;

	CHECK_OBJ(m, UP_MULTI_MAGIC);
	if (err != 0)
		return err;
	(void)snprintf(m->id, sizeof(m->id), "%s", rq->id);
	row = rows_drop_put(m->us, m->key, ufs_uri(m->ufs), m->path, m->id);
	if (row == 0)
		return -EIO; /* the mark stays, and by that it is looked for */
	m->rq.begin.repeated = rq->repeated;
	sweep_begun(m, 0);
	m->row = row;
	m->state = MULTI_COPY;
	err = statedb_commit(m->us->db);
	return err == 0 ? FAULT("upload.copy.begun") : err;
}

void copy_begin_start(struct up_multi *m)
{
	send(m->copy, m->ufs, begun);
}

/* In parts, once nobody looks for lost beginnings there. */
static int begin(struct upload_copy *c, struct ufs *ufs)
{
	struct up_multi *m = multi_new(c->us, ufs, COPY_KEY, c->dst);
	int err;

	if (m == NULL)
		return -ENOMEM;
	err = multi_mark(m);
	if (err != 0) {
		multi_free(&m);
		return err;
	}
	m->copy = c;
	c->multi = m;
	if (!sweep_holds(m))
		multi_begin_start(m);
	return 0;
}

/* What becomes of the upload. */
static void leave(struct upload_copy *c, int err)
{
	struct up_multi *m = c->multi;

	if (m == NULL)
		return;
	c->multi = NULL;
	m->copy = NULL;
	if (m->state == MULTI_COPY && err != 0) {
		multi_end_start(m);
		return;
	}
	if (m->state == MULTI_BEGIN)
		sweep_begun(m, err);
	else
		rows_drop_del(m->us, m->key, m->row);
	multi_free(&m);
}

static void copied(struct ufs_req *r, int err)
{
	struct upload_copy *c = r->user;
	bool large = err == -E2BIG && c->rq.begun == NULL;
	bool anew = err != 0 && c->rq.gone && c->anew++ < ANEW_MAX;

	leave(c, err);
	if (anew)
		log_info("%s/%s: the copy in parts is begun anew: the storage has lost it",
		    ufs_uri(r->ufs), c->dst);
	if (large || anew) {
		err = c->us != NULL ? begin(c, r->ufs) : -EIO;
		if (err == 0)
			return;
	}
	c->attr = c->rq.attr;
	c->done(c, err);
}

void upload_copy(struct uploads *us, struct ufs *ufs, struct upload_copy *c)
{
	c->us = us;
	c->multi = NULL;
	c->anew = 0;
	send(c, ufs, NULL);
}

void upload_copy_abort(struct upload_copy *c)
{
	ufs_abort(&c->rq.req);
	leave(c, -EIO); /* it may have begun all the same */
}
