/* SPDX-License-Identifier: BSD-2-Clause */
/* Multipart uploads: the beginning, parts from memory, the end without an object. */
#include <errno.h>
#include <string.h>

#include "ufs/s3_priv.h"

char *s3_upload_query(const char *first, const char *id)
{
	char *query = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&query, &len);

	if (f == NULL)
		return NULL;
	(void)fprintf(f, "%s%suploadId=", first, *first != '\0' ? "&" : "");
	s3_enc_value(f, id);
	if (s3_stream_close(f, &query))
		return query;
	free(query);
	return NULL;
}

/* --- begin */

struct begin {
	struct ufs_call call;
	struct s3_ask ask;
	struct http_header extra[S3_OBJECT_HEADERS + 2];
	char key[S3_KEY_BUF], mark[S3_MARK_LEN + 1];
	bool sums, off;
};

static void begin_abort(struct ufs_call *c)
{
	struct begin *b = container_of(c, struct begin, call);

	s3_ask_abort(&b->ask);
	ufs_call_drop(c);
}

int s3_begun(const struct s3_ask *a, int err, char id[UFS_UPLOAD_MAX])
{
	if (err == 0 && *a->res.upload_id == '\0')
		err = -EIO;
	if (err == 0)
		memcpy(id, a->res.upload_id, UFS_UPLOAD_MAX);
	/* There is nothing yet that could be missing or another. */
	return err == -ENOENT || err == -ESTALE ? -EIO : err;
}

static void begin_send(struct begin *b);

static void begin_done(struct s3_ask *a, int err)
{
	struct begin *b = container_of(a, struct begin, ask);
	struct ufs_multi_begin *rq = container_of(b->call.rq, struct ufs_multi_begin, req);

	if (err != 0 && b->sums && s3_sum_refused(&a->req, err)) {
		b->off = true;
		begin_send(b);
		return;
	}
	if (err == 0 && b->off)
		s3_sums_end(a->req.s3);
	rq->sums = b->sums;
	rq->repeated = b->off || a->req.attempt > 1;
	ufs_call_end(&b->call, s3_begun(a, err, rq->id));
}

void s3_begin_start(struct s3_ask *a, struct s3 *s3, const char *key)
{
	a->req.s3 = s3;
	a->req.method = "POST";
	a->root = "InitiateMultipartUploadResult";
	s3_ask_start(a, key, "uploads=");
}

static void begin_send(struct begin *b)
{
	struct ufs_multi_begin *rq = container_of(b->call.rq, struct ufs_multi_begin, req);
	struct s3 *s3 = S3_OF(rq->req.ufs);
	unsigned n = s3_object_headers(s3, b->extra);

	b->sums = rq->sums && !b->off && !s3->no_sums;
	if (b->sums)
		b->extra[n++] = (struct http_header){ "x-amz-checksum-algorithm", "CRC32C" };
	if (*b->mark != '\0')
		b->extra[n++] = (struct http_header){ S3_MARK, b->mark };
	memset(&b->ask, 0, sizeof(b->ask));
	b->ask.req.extra = b->extra;
	b->ask.req.nextra = n;
	b->ask.done = begin_done;
	s3_begin_start(&b->ask, s3, b->key);
}

void s3_multi_begin(struct ufs *u, struct ufs_multi_begin *rq)
{
	char key[S3_KEY_BUF];
	struct begin *b;

	if (s3_key(S3_OF(u), rq->path, false, key) != 0) {
		ufs_answer_later(&rq->req, -ENAMETOOLONG);
		return;
	}
	b = ufs_call_new(&rq->req, sizeof(*b), begin_abort);
	if (b == NULL)
		return;
	memcpy(b->key, key, sizeof(b->key));
	if (rq->file != 0)
		s3_mark(u->mount_id, rq->file, b->mark);
	begin_send(b);
}

/* --- a part */

struct part {
	struct ufs_call call;
	struct s3_req req;
	struct s3_piece piece;
	struct http_header extra[1];
	char etag[UFS_VERSION_MAX], sum[S3_SUM_TEXT];
	bool wrong;
};

static void part_abort(struct ufs_call *c)
{
	struct part *p = container_of(c, struct part, call);

	s3_req_abort(&p->req);
	s3_piece_abort(&p->piece);
	ufs_call_drop(c);
}

static void part_end(struct part *p, int err, const char *etag)
{
	struct ufs_part *rq = container_of(p->call.rq, struct ufs_part, req);

	if (err == 0)
		memcpy(rq->etag, etag, UFS_VERSION_MAX);
	ufs_call_end(&p->call, err);
}

static int part_complete(struct s3_req *r)
{
	struct part *p = container_of(r, struct part, req);

	p->wrong = r->summed && s3_sum_differs(r, p->sum);
	if (s3_etag(http_req_header(&r->hr, "etag"), p->etag))
		return 0;
	(void)snprintf(r->words, sizeof(r->words), "the answer has no usable ETag");
	return -EIO;
}

static void part_done(struct s3_req *r, int err)
{
	struct part *p = container_of(r, struct part, req);

	if (err == 0 && p->wrong)
		err = -EBADMSG;
	if (err != 0 && r->summed && s3_sum_refused(r, err)) {
		/* An upload with sums needs them: another one is begun. */
		s3_sums_end(r->s3);
		part_end(p, -ENOENT, p->etag);
		return;
	}
	if (err == -ESTALE || (err == -ENOENT && strcmp(r->error.code, "NoSuchUpload") != 0))
		err = -EIO;
	part_end(p, err, p->etag);
}

static void piece_done(struct s3_piece *pc, int err)
{
	struct part *p = container_of(pc, struct part, piece);

	part_end(p, err == 0 && *pc->etag == '\0' ? -EIO : err, pc->etag);
}

void s3_part(struct ufs *u, struct ufs_part *rq)
{
	char key[S3_KEY_BUF], src[S3_KEY_BUF], first[32], *query;
	struct s3 *s3 = S3_OF(u);
	bool copy = rq->body == NULL && rq->len > 0;
	struct part *p;

	if (s3_key(s3, rq->path, false, key) != 0 ||
	    (copy && s3_key(s3, rq->src_path, false, src) != 0)) {
		ufs_answer_later(&rq->req, -ENAMETOOLONG);
		return;
	}
	p = ufs_call_new(&rq->req, sizeof(*p), part_abort);
	if (p == NULL)
		return;
	(void)snprintf(first, sizeof(first), "partNumber=%u", rq->number);
	query = s3_upload_query(first, rq->id);
	if (copy) {
		p->piece.s3 = s3;
		p->piece.version = rq->src_version;
		p->piece.off = rq->src_off;
		p->piece.len = rq->len;
		p->piece.done = piece_done;
		s3_piece_start(&p->piece, query != NULL ? key : NULL, query, src);
	} else {
		p->req.s3 = s3;
		p->req.method = "PUT";
		p->req.body = rq->body;
		p->req.body_len = rq->len;
		if (rq->sum.have) {
			s3_sum_text(rq->sum.crc32c, p->sum);
			p->extra[0] = (struct http_header){ S3_SUM_HEADER, p->sum };
			p->req.extra = p->extra;
			p->req.nextra = 1;
			p->req.summed = true;
		}
		p->req.missing_is_normal = true;
		p->req.complete = part_complete;
		p->req.done = part_done;
		s3_req_start(&p->req, query != NULL ? key : NULL, query);
	}
	free(query);
}

/* --- abort */

struct drop {
	struct ufs_call call;
	struct s3_req req;
};

static void drop_abort(struct ufs_call *c)
{
	struct drop *d = container_of(c, struct drop, call);

	s3_req_abort(&d->req);
	ufs_call_drop(c);
}

static void drop_done(struct s3_req *r, int err)
{
	struct drop *d = container_of(r, struct drop, req);

	if (err == -ENOENT)
		err = 0;
	ufs_call_end(&d->call, err == -ESTALE ? -EIO : err);
}

void s3_multi_abort(struct ufs *u, struct ufs_multi_abort *rq)
{
	char key[S3_KEY_BUF], *query;
	struct drop *d;

	if (s3_key(S3_OF(u), rq->path, false, key) != 0) {
		ufs_answer_later(&rq->req, -ENAMETOOLONG);
		return;
	}
	d = ufs_call_new(&rq->req, sizeof(*d), drop_abort);
	if (d == NULL)
		return;
	query = s3_upload_query("", rq->id);
	d->req.s3 = S3_OF(u);
	d->req.method = "DELETE";
	d->req.missing_is_normal = true;
	d->req.done = drop_done;
	s3_req_start(&d->req, query != NULL ? key : NULL, query);
	free(query);
}
