/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Copies.  Up to 5 GiB it is one CopyObject; what is larger becomes a multipart upload
 * whose parts are copied side by side, with the source's headers and metadata, which
 * CopyObject takes along by itself.
 */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/units.h"
#include "ufs/s3_priv.h"

#define LANES 8u

struct copy {
	struct ufs_call call;
	struct s3 *s3;
	struct s3_look look;
	struct s3_piece piece;
	/* In parts. */
	struct s3_ask begin;
	struct http_header extra[S3_HEADERS_MAX - 8];
	unsigned nextra, own; /* the first `own` are the storage's, the rest the source's */
	struct ufs_part_id *parts;
	unsigned nparts, next, running;
	uint64_t unit;
	struct ufs_part lanes[LANES];
	struct ufs_multi_end end;
};

static struct ufs_copy *copy_rq(const struct copy *c)
{
	return container_of(c->call.rq, struct ufs_copy, req);
}

static struct ufs *ufs_of(const struct copy *c)
{
	return &c->s3->ufs;
}

/* --- the end */

static void copy_stop(struct copy *c)
{
	s3_req_abort(&c->look.req);
	s3_piece_abort(&c->piece);
	s3_ask_abort(&c->begin);
	for (unsigned i = 0; i < LANES; i++)
		ufs_abort(&c->lanes[i].req);
	ufs_abort(&c->end.req);
	for (unsigned i = c->own; i < c->nextra; i++) {
		free((char *)(uintptr_t)c->extra[i].name);
		free((char *)(uintptr_t)c->extra[i].value);
	}
	free(c->parts);
}

static void copy_abort(struct ufs_call *call)
{
	struct copy *c = container_of(call, struct copy, call);

	copy_stop(c);
	ufs_call_drop(call);
}

static void copy_end(struct copy *c, int err)
{
	copy_stop(c);
	ufs_call_end(&c->call, err);
}

static void copied_as(struct copy *c, const char *version)
{
	struct ufs_copy *rq = copy_rq(c);

	rq->attr.kind = UFS_FILE;
	rq->attr.size = rq->size;
	memcpy(rq->attr.version, version, UFS_VERSION_MAX);
	copy_end(c, 0);
}

/* --- at once */

static void dst_looked(struct s3_look *l, int err)
{
	struct copy *c = container_of(l, struct copy, look);

	if (err == 0 && l->attr.size == copy_rq(c)->size)
		copied_as(c, l->attr.version);
	else
		copy_end(c, err == 0 || err == -ENOENT ? -EIO : err);
}

static void piece_done(struct s3_piece *p, int err)
{
	struct copy *c = container_of(p, struct copy, piece);
	char key[S3_KEY_BUF];

	/* So large that it takes too long at once? */
	if (err == -ETIMEDOUT && copy_rq(c)->size > c->s3->copy_part) {
		copy_end(c, -E2BIG);
	} else if (err != 0) {
		copy_end(c, err == -EINVAL ? -EIO : err);
	} else if (*p->etag != '\0') {
		copied_as(c, p->etag);
	} else {
		c->look.done = dst_looked;
		c->look.req.until = 0;
		(void)s3_key(c->s3, copy_rq(c)->dst, false, key);
		s3_look_start(&c->look, key);
	}
}

/* --- in parts */

/* An upload that vanished under us says nothing about the source. */
static void upload_gone(struct copy *c)
{
	copy_rq(c)->gone = true;
	copy_end(c, -EIO);
}

static void end_done(struct ufs_req *r, int err)
{
	struct copy *c = r->user;

	if (err == 0)
		copied_as(c, c->end.attr.version);
	else if (err == -ENOENT || err == -EINVAL)
		upload_gone(c);
	else
		copy_end(c, err == -ESTALE ? -EIO : err);
}

static void part_done(struct ufs_req *r, int err);

static void lane_next(struct copy *c, struct ufs_part *lane)
{
	const struct ufs_copy *rq = copy_rq(c);
	struct ufs_part_id *id = &c->parts[c->next];

	memset(lane, 0, sizeof(*lane));
	lane->req.user = c;
	lane->path = rq->dst;
	lane->id = rq->id;
	lane->number = c->next + 1;
	lane->off = lane->src_off = c->next * c->unit;
	lane->len = (size_t)MIN(c->unit, rq->size - lane->off);
	lane->src_path = rq->src;
	lane->src_version = rq->src_version;
	id->number = lane->number;
	id->len = lane->len;
	c->next++;
	c->running++;
	ufs_part(ufs_of(c), lane, part_done);
}

static void part_done(struct ufs_req *r, int err)
{
	struct ufs_part *lane = container_of(r, struct ufs_part, req);
	struct copy *c = r->user;

	c->running--;
	if (err == -ENOENT) {
		upload_gone(c);
		return;
	}
	if (err != 0) {
		copy_end(c, err == -EINVAL ? -EIO : err);
		return;
	}
	memcpy(c->parts[lane->number - 1].etag, lane->etag, sizeof(lane->etag));
	if (c->next < c->nparts) {
		lane_next(c, lane);
	} else if (c->running == 0) {
		c->end.req.user = c;
		c->end.path = copy_rq(c)->dst;
		c->end.id = copy_rq(c)->id;
		c->end.parts = c->parts;
		c->end.nparts = c->nparts;
		ufs_multi_end(ufs_of(c), &c->end, end_done);
	}
}

static void begin_done(struct s3_ask *a, int err)
{
	struct copy *c = container_of(a, struct copy, begin);
	struct ufs_copy *rq = copy_rq(c);

	err = s3_begun(a, err, rq->id);
	rq->repeated = a->req.attempt > 1;
	if (err == 0)
		err = rq->begun(rq);
	if (err != 0) {
		copy_end(c, err);
		return;
	}
	for (unsigned i = 0; i < LANES && c->next < c->nparts; i++)
		lane_next(c, &c->lanes[i]);
}

static bool goes_along(const char *name)
{
	static const char *const names[] = { "content-type", "cache-control",
		"content-disposition", "content-encoding", "content-language", "expires",
		"x-amz-website-redirect-location" };

	if (strncasecmp(name, "x-amz-meta-", 11) == 0)
		return true;
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcasecmp(name, names[i]) == 0)
			return true;
	return false;
}

static int take_headers(struct copy *c, const struct http_req *hr)
{
	const char *name, *value;

	c->own = c->nextra = s3_object_headers(c->s3, c->extra);
	for (unsigned i = 0; (value = http_req_header_at(hr, i, &name)) != NULL; i++) {
		struct http_header *h = &c->extra[c->nextra];

		if (!goes_along(name) || *value == '\0')
			continue;
		if (c->nextra == ARRAY_LEN(c->extra)) {
			log_warn("%s: %s has more metadata than a copy in parts takes along",
			    c->s3->ufs.uri, copy_rq(c)->src);
			return -EIO;
		}
		h->name = strdup(name);
		h->value = strdup(value);
		c->nextra++; /* a half of it is freed too */
		if (h->name == NULL || h->value == NULL)
			return -ENOMEM;
	}
	return 0;
}

static void src_looked(struct s3_look *l, int err)
{
	struct copy *c = container_of(l, struct copy, look);
	const struct ufs_copy *rq = copy_rq(c);
	char key[S3_KEY_BUF];

	if (err == 0 &&
	    (strcmp(l->attr.version, rq->src_version) != 0 || l->attr.size != rq->size))
		err = -ESTALE;
	if (err == 0)
		err = take_headers(c, &l->req.hr);
	if (err == 0) {
		c->parts = calloc(c->nparts, sizeof(*c->parts));
		err = c->parts == NULL ? -ENOMEM : 0;
	}
	if (err != 0) {
		copy_end(c, err);
		return;
	}
	c->begin.req.extra = c->extra;
	c->begin.req.nextra = c->nextra;
	c->begin.done = begin_done;
	(void)s3_key(c->s3, rq->dst, false, key);
	s3_begin_start(&c->begin, c->s3, key);
}

static void start_parts(struct copy *c)
{
	uint64_t size = copy_rq(c)->size;
	char key[S3_KEY_BUF];

	c->unit = MAX(c->s3->copy_part, (size / UFS_PARTS_MAX / MIB + 1) * MIB);
	c->nparts = (unsigned)((size + c->unit - 1) / c->unit);
	c->look.done = src_looked;
	c->look.req.until = 0;
	(void)s3_key(c->s3, copy_rq(c)->src, false, key);
	s3_look_start(&c->look, key);
}

void s3_copy(struct ufs *u, struct ufs_copy *rq)
{
	struct s3 *s3 = S3_OF(u);
	char src[S3_KEY_BUF], dst[S3_KEY_BUF];
	struct copy *c;

	if (s3_key(s3, rq->src, false, src) != 0 || s3_key(s3, rq->dst, false, dst) != 0) {
		ufs_answer_later(&rq->req, -ENAMETOOLONG);
		return;
	}
	if (rq->begun == NULL && rq->size > s3->copy_max) {
		ufs_answer_later(&rq->req, -E2BIG);
		return;
	}
	c = ufs_call_new(&rq->req, sizeof(*c), copy_abort);
	if (c == NULL)
		return;
	c->s3 = c->look.s3 = c->piece.s3 = s3;
	if (rq->begun == NULL) {
		c->piece.version = rq->src_version;
		c->piece.done = piece_done;
		s3_piece_start(&c->piece, dst, NULL, src);
	} else {
		start_parts(c);
	}
}
