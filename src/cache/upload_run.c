/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A run: the object is made of the file.
 *
 *	PUT	everything in one request
 *	PARTS	what the storage has not got yet is sent or copied, by number
 *	END	the storage makes the object
 *	FAILED	the user will be told
 *
 * A multipart upload that the storage does not know any more (it throws old ones away)
 * or whose parts are others than we think (a request that was given up arrived late) is
 * begun anew, a few times a run: another mount that looks for what its daemon left takes
 * an upload of the same path twice at most.
 */
#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "cache/upload_priv.h"

#define ANEW_MAX 4

/* PUT or parts? */
static int choose(struct upload *up)
{
	uint64_t unit = up->unit != 0 ? up->unit : plan_unit(up->us);
	int err = 0;

	up->next = 1;
	if (up->run->size <= unit) {
		sends_abort(up);
		multi_abandon(up);
		up->state = RUN_PUT;
	} else {
		up->state = RUN_PARTS;
		if (plan_part_at(unit, up->run->size - 1) > UFS_PARTS_MAX)
			err = -EFBIG;
		else if (up->id == NULL && up->begin == NULL)
			err = multi_begin(up);
	}
	if (err == 0)
		upload_kick(up);
	return err;
}

void upload_start(struct upload *up, struct upload_run *r)
{
	int err;

	CHECK_OBJ(up, UPLOAD_MAGIC);
	assert(up->run == NULL && up->ufs != NULL);
	up->run = r;
	up->anew = 0;
	r->up = up;
	r->size = staged_size(up->sf);
	memset(&r->attr, 0, sizeof(r->attr));
	err = up->us->db != NULL ? rows_mend(up) : -ESTALE;
	if (err == 0)
		err = choose(up);
	if (err != 0)
		run_fail_later(up, err);
}

static void end_free(struct upload *up)
{
	if (up->end == NULL)
		return;
	ufs_abort(&up->end->req);
	free((void *)up->end->parts);
	free(up->end);
	up->end = NULL;
}

void run_stop(struct upload *up)
{
	sends_abort(up);
	end_free(up);
	for (unsigned i = 0; i < up->nparts; i++) {
		struct up_part *p = &up->part[i];

		if (!p->stale)
			continue;
		up->sent -= p->len;
		p->len = 0;
		p->stale = false;
	}
	loop_undefer(up->us->env.loop, &up->fail);
	upload_unqueue(up);
	up->state = RUN_NONE;
	up->run = NULL;
}

void upload_abort(struct upload_run *r)
{
	CHECK_OBJ(r->up, UPLOAD_MAGIC);
	assert(r->up->run == r);
	run_stop(r->up);
	r->up = NULL;
}

bool upload_running(const struct upload *up)
{
	return up->run != NULL;
}

static void over(struct upload *up, int err)
{
	struct upload_run *r = up->run;

	run_stop(up);
	r->up = NULL;
	if (err == 0)
		ahead_reset(up);
	else
		COUNT(up->us->env.loop, UPLOAD_ERRORS, 1);
	r->done(r, err);
}

void run_fail(struct upload *up, int err)
{
	over(up, err);
}

void run_failed(struct deferred *d)
{
	struct upload *up = container_of(d, struct upload, fail);

	over(up, up->err);
}

void run_fail_later(struct upload *up, int err)
{
	sends_abort(up);
	up->state = RUN_FAILED;
	up->err = err;
	loop_defer(up->us->env.loop, &up->fail, run_failed);
}

static int begin_anew(struct upload *up)
{
	if (up->anew++ == ANEW_MAX)
		return -EIO;
	log_info("%s/%s: the upload %s is begun anew: the storage has lost it, or parts of it",
	    ufs_uri(up->ufs), up->path, up->id);
	sends_abort(up);
	multi_drop(up);
	return choose(up);
}

/* --- what was sent */

static int record(struct upload *up, const struct up_send *s)
{
	struct up_part *p = &up->part[s->number - 1];
	uint64_t off;
	int err = 0;

	up->sent += s->len - p->len;
	p->len = s->len;
	p->stale = s->touched;
	p->crc = s->crc;
	memcpy(p->etag, s->rq.part.etag, sizeof(p->etag));
	COUNT(up->us->env.loop, UPLOAD_PARTS, !s->copy);
	if (s->copy)
		COUNT(up->us->env.loop, UPLOAD_COPIED_BYTES, s->len);
	else
		COUNT(up->us->env.loop, UPLOAD_BYTES, s->len);
	/* Without a row the part is sent again after a crash, no more. */
	if (!p->stale)
		err = rows_put_part(up, s->number);
	if (err != 0)
		rows_del_part(up, s->number);
	if (up->run != NULL && up->next > s->number &&
	    plan_part_len(up->unit, s->number, up->run->size, &off) != p->len)
		up->next = s->number;
	return err == -ESTALE ? err : FAULT("upload.part.sent");
}

static void put_sent(struct upload *up, const struct up_send *s)
{
	up->run->attr = s->rq.put.attr;
	up->run->size = s->len;
	COUNT(up->us->env.loop, UPLOAD_PUTS, 1);
	COUNT(up->us->env.loop, UPLOAD_BYTES, s->len);
	if (up->id != NULL)
		multi_drop(up);
	over(up, 0);
}

/* The file ended earlier. */
static int was_short(struct upload *up, const struct up_send *s)
{
	uint64_t size = staged_size(up->sf);

	if (size >= up->run->size)
		return -EIO;
	run_cut(up, size);
	up->next = MIN(up->next, s->number);
	return 0;
}

static void ahead_sent(struct upload *up, const struct up_send *s, int err)
{
	if (err == 0)
		err = record(up, s);
	else if (err == -ENOENT && s->state == SEND_REQUEST) {
		sends_abort(up);
		multi_drop(up);
	}
	if (err == 0)
		upload_kick(up);
	else
		ahead_failed(up);
}

void run_sent(struct upload *up, const struct up_send *s, int err)
{
	if (up->run == NULL) {
		ahead_sent(up, s, err);
		return;
	}
	if (s->number == 0 && err == 0)
		err = FAULT("upload.made");
	if (s->number == 0 && err == 0) {
		put_sent(up, s);
		return;
	}
	if (err == 0) {
		err = record(up, s);
	} else if (s->number != 0 && err == -EAGAIN) {
		err = was_short(up, s);
	} else if (s->number != 0 && err == -ENOENT && s->state == SEND_REQUEST) {
		err = begin_anew(up);
	} else if (s->copy && (err == -EOPNOTSUPP || err == -EINVAL)) {
		up->no_copy = true;
		up->next = MIN(up->next, s->number);
		err = 0;
	}
	if (err == 0)
		upload_kick(up);
	else
		run_fail(up, err);
}

/* --- the end */

static void ended(struct ufs_req *r, int err)
{
	struct upload *up = r->user;

	CHECK_OBJ(up, UPLOAD_MAGIC);
	if (err == 0)
		err = FAULT("upload.made");
	if (err == 0) {
		up->run->attr = up->end->attr;
		end_free(up);
		upload_forget(up);
		over(up, 0);
		return;
	}
	end_free(up);
	if (err == -ENOENT || err == -EINVAL)
		err = begin_anew(up);
	if (err != 0)
		run_fail(up, err);
}

void run_end(struct upload *up)
{
	struct upload_run *r = up->run;
	unsigned n = plan_part_at(up->unit, r->size - 1);
	struct ufs_part_id *list = calloc(n, sizeof(*list));

	up->end = calloc(1, sizeof(*up->end));
	if (list == NULL || up->end == NULL) {
		free(list);
		free(up->end);
		up->end = NULL;
		run_fail_later(up, -ENOMEM);
		return;
	}
	up->state = RUN_END;
	for (unsigned i = 0; i < n; i++) {
		list[i].number = i + 1;
		list[i].len = up->part[i].len;
		list[i].sum = (struct ufs_sum){ .have = up->sums, .crc32c = up->part[i].crc };
		memcpy(list[i].etag, up->part[i].etag, sizeof(list[i].etag));
	}
	up->end->path = up->path;
	up->end->id = up->id;
	up->end->parts = list;
	up->end->nparts = n;
	up->end->if_version = r->if_version;
	up->end->absent = r->absent;
	up->end->file = up->key;
	up->end->again = r->again;
	up->end->set = r->set;
	up->end->req.user = up;
	ufs_multi_end(up->ufs, up->end, ended);
}

bool upload_making(const struct upload *up)
{
	const struct up_send *s = TAILQ_FIRST(&up->sends);

	return up->state == RUN_END ||
	       (up->state == RUN_PUT && s != NULL && s->state == SEND_REQUEST);
}

void run_cut(struct upload *up, uint64_t size)
{
	struct up_send *s, *next;
	uint64_t off;

	if (size >= up->run->size)
		return;
	if (up->state == RUN_PUT && TAILQ_EMPTY(&up->sends))
		up->run->size = size;
	if (up->state != RUN_PARTS)
		return;
	up->run->size = size;
	TAILQ_FOREACH_SAFE(s, &up->sends, link, next)
		if (plan_part_len(up->unit, s->number, size, &off) != s->len)
			send_abort(s);
	/* Cannot fail: nothing is begun for a file that has become smaller. */
	(void)choose(up);
}
