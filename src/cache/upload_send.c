/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sending one part, or a small file as a whole: bring what lacks of the base, read it
 * into memory, hand it to the storage.  Who may send next is decided here too: uploads
 * take turns, one part a turn, so that a small file does not wait for a large one.
 */
#include <errno.h>
#include <string.h>

#include "cache/upload_priv.h"

#define READ_AT_ONCE (64 * KIB)

/* --- turns */

void uploads_kick(struct uploads *us)
{
	if (!TAILQ_EMPTY(&us->queue))
		loop_defer(us->env.loop, &us->pump, uploads_pump);
}

void upload_kick(struct upload *up)
{
	if (!up->queued) {
		TAILQ_INSERT_TAIL(&up->us->queue, up, link);
		up->queued = true;
	}
	uploads_kick(up->us);
}

void upload_unqueue(struct upload *up)
{
	if (up->queued)
		TAILQ_REMOVE(&up->us->queue, up, link);
	up->queued = false;
}

static void request(struct up_send *s);
static int read_start(struct up_send *s);
static void filled(struct staged_io *io, int err);

static int send_start(struct upload *up, const struct up_pick *pk)
{
	int err = pk->number != 0 ? upload_part_room(up, pk->number) : 0;
	struct up_send *s;

	if (err != 0)
		return err;
	ALLOC_OBJ(s, UP_SEND_MAGIC);
	if (s == NULL)
		return -ENOMEM;
	s->us = up->us;
	s->up = up;
	s->number = pk->number;
	s->off = pk->off;
	s->len = pk->len;
	s->copy = pk->copy;
	TAILQ_INSERT_TAIL(&up->sends, s, link);
	if (s->number != 0) {
		up->part[s->number - 1].send = s;
		up->us->flying++;
	}
	if (s->copy || s->len == 0) {
		request(s);
		return 0;
	}
	body_charge(s);
	if (!pk->fill) {
		err = read_start(s);
		if (err != 0)
			send_abort(s);
		return err;
	}
	s->state = SEND_FILL;
	s->io = (struct staged_io){
		.sf = up->sf, .off = s->off, .len = s->len, .done = filled, .user = s
	};
	staged_fill(&s->io);
	return 0;
}

void uploads_pump(struct deferred *d)
{
	struct uploads *us = container_of(d, struct uploads, pump);
	struct upload *up, *next;
	struct up_pick pk;

	for (up = TAILQ_FIRST(&us->queue); up != NULL; up = next) {
		bool seat = up->state == RUN_PUT || us->flying < us->env.cfg->write_upload_parallel;
		int err;

		next = TAILQ_NEXT(up, link);
		if (!seat && !TAILQ_EMPTY(&up->sends))
			continue;
		if (!plan_next(up, &pk)) {
			upload_unqueue(up);
			if (up->state == RUN_PARTS && up->id != NULL && TAILQ_EMPTY(&up->sends))
				run_end(up);
			continue;
		}
		if (!seat)
			continue;
		/* Who waits for memory has his turn before those behind him. */
		if (!pk.copy && !body_fits(us, pk.len))
			break;
		upload_unqueue(up);
		err = send_start(up, &pk);
		if (err == 0) {
			upload_kick(up);
			if (next == NULL)
				next = up;
		} else if (up->run != NULL) {
			run_fail_later(up, err);
		} else {
			ahead_failed(up);
		}
	}
}

/* --- one */

static void send_free(struct up_send *s)
{
	struct uploads *us = s->us;

	if (us != NULL && s->number != 0)
		us->flying--;
	body_uncharge(s);
	body_put(us, &s->body);
	if (us != NULL)
		uploads_kick(us);
	FREE_OBJ(s);
}

static void leave_upload(struct up_send *s)
{
	TAILQ_REMOVE(&s->up->sends, s, link);
	if (s->number != 0)
		s->up->part[s->number - 1].send = NULL;
	s->up = NULL;
}

static void finish(struct up_send *s, int err)
{
	struct upload *up = s->up;

	if (up == NULL) {
		if (s->us != NULL)
			TAILQ_REMOVE(&s->us->orphans, s, link);
		send_free(s);
		return;
	}
	leave_upload(s);
	/* Memory first: whoever hears of the end may go on at once. */
	body_uncharge(s);
	body_put(s->us, &s->body);
	run_sent(up, s, err);
	send_free(s);
}

void send_abort(struct up_send *s)
{
	s->up->ahead_next = MIN(s->up->ahead_next, s->number);
	leave_upload(s);
	if (s->state == SEND_REQUEST) {
		ufs_abort(s->number != 0 ? &s->rq.part.req : &s->rq.put.req);
	} else if (s->io.done != NULL && !staged_io_abort(&s->io)) {
		TAILQ_INSERT_TAIL(&s->us->orphans, s, link);
		return;
	}
	send_free(s);
}

void sends_abort(struct upload *up)
{
	struct up_send *s;

	while ((s = TAILQ_FIRST(&up->sends)) != NULL)
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): it left the list */
		send_abort(s);
}

static void answered(struct ufs_req *r, int err)
{
	struct up_send *s = r->user;

	CHECK_OBJ(s, UP_SEND_MAGIC);
	finish(s, err);
}

static void request_put(struct up_send *s)
{
	const struct upload_run *r = s->up->run;
	struct ufs_put *rq = &s->rq.put;

	rq->path = s->up->path;
	rq->body = s->body != NULL ? (const void *)s->body->mem : "";
	rq->len = s->len;
	rq->absent = r->absent;
	rq->if_version = r->if_version;
	rq->file = s->up->key;
	rq->again = r->again;
	rq->set = r->set;
	rq->sum = (struct ufs_sum){ .have = upload_durable(s->up), .crc32c = s->crc };
	rq->req.user = s;
	ufs_put(s->up->ufs, rq, answered);
}

static void request(struct up_send *s)
{
	struct upload *up = s->up;
	struct ufs_part *rq = &s->rq.part;

	s->state = SEND_REQUEST;
	if (s->number == 0) {
		request_put(s);
		return;
	}
	rq->path = up->path;
	rq->id = up->id;
	rq->number = s->number;
	rq->off = s->off;
	rq->len = s->len;
	if (s->copy) {
		rq->src_path = up->path;
		rq->src_version = up->base;
		rq->src_off = s->off;
	} else {
		assert(s->body != NULL);
		rq->body = s->body->mem;
		rq->sum = (struct ufs_sum){ .have = up->sums, .crc32c = s->crc };
	}
	rq->req.user = s;
	ufs_part(up->ufs, rq, answered);
}

static void was_read(struct staged_io *io, int err);

static void read_on(struct up_send *s)
{
	s->io = (struct staged_io){ .sf = s->up->sf,
		.off = s->off + s->got,
		.len = MIN(s->len - s->got, s->us->read_most),
		.crc = s->crc,
		.done = was_read,
		.user = s };
	staged_pread(&s->io, s->body->mem + s->got);
}

static void was_read(struct staged_io *io, int err)
{
	struct up_send *s = io->user;

	CHECK_OBJ(s, UP_SEND_MAGIC);
	s->got += io->got;
	s->crc = io->crc;
	if (err == 0 && s->up != NULL && io->got == io->len && s->got < s->len) {
		read_on(s);
		return;
	}
	/* A file that was cut off meanwhile: the whole is what there was at that moment, a
	 * part is another one now. */
	if (err == 0 && s->got < s->len) {
		if (s->number != 0)
			err = -EAGAIN;
		s->len = s->got;
	}
	if (err != 0 || s->up == NULL)
		finish(s, err);
	else
		request(s);
}

/* What was written just now need not go by the pool: of a small file the way there and back
 * is longer than the copy. */
static bool read_at_once(struct up_send *s)
{
	if (s->number != 0 || s->len > READ_AT_ONCE)
		return false;
	s->io = (struct staged_io){ .sf = s->up->sf, .off = s->off, .len = s->len };
	return staged_pread_try(&s->io, s->body->mem);
}

static int read_start(struct up_send *s)
{
	s->state = SEND_READ;
	s->io.done = NULL;
	s->body = body_new(s->us, s->len);
	if (s->body == NULL)
		return -ENOMEM;
	if (read_at_once(s))
		request(s);
	else
		read_on(s);
	return 0;
}

static void filled(struct staged_io *io, int err)
{
	struct up_send *s = io->user;

	CHECK_OBJ(s, UP_SEND_MAGIC);
	if (err == 0 && s->up != NULL)
		err = read_start(s);
	else if (err == 0)
		err = -ECANCELED;
	if (err != 0)
		finish(s, err);
}
