/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bytes of one version: a ranged GET with If-Match.  A body counts only if
 * status, range, length and ETag all say that it is what was asked for.  After a
 * break the next attempt asks from the first byte that is missing.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "ufs/s3_priv.h"

struct read_call {
	struct ufs_call call;
	struct s3_req req;
	size_t got;
	bool in_callback, aborted;
};

static struct ufs_read *read_rq(const struct read_call *rc)
{
	return container_of(rc->call.rq, struct ufs_read, req);
}

static void read_abort(struct ufs_call *c)
{
	struct read_call *rc = container_of(c, struct read_call, call);

	s3_req_abort(&rc->req);
	if (rc->in_callback)
		rc->aborted = true; /* read_data() still needs the struct */
	else
		ufs_call_drop(c);
}

static void set_range(struct s3_req *r)
{
	struct read_call *rc = container_of(r, struct read_call, req);
	const struct ufs_read *rq = read_rq(rc);

	(void)snprintf(r->range, sizeof(r->range), "bytes=%" PRIu64 "-%" PRIu64,
	    rq->off + rc->got, rq->off + rq->len - 1);
}

static int bad(struct s3_req *r, int err, const char *why)
{
	(void)snprintf(r->words, sizeof(r->words), "%s", why);
	return err;
}

/* "bytes FIRST-LAST/TOTAL" (or "/" "*") of exactly what is missing. */
static bool range_agrees(const char *cr, uint64_t first, uint64_t last)
{
	char want[64];
	size_t n;

	n = (size_t)snprintf(want, sizeof(want), "bytes %" PRIu64 "-%" PRIu64 "/", first, last);
	return cr != NULL && strncmp(cr, want, n) == 0 && cr[n] != '\0';
}

static int read_head(struct s3_req *r)
{
	struct read_call *rc = container_of(r, struct read_call, req);
	const struct ufs_read *rq = read_rq(rc);
	uint64_t missing = rq->len - rc->got;
	char version[UFS_VERSION_MAX];

	if (!s3_etag(http_req_header(&r->hr, "etag"), version))
		return bad(r, -EIO, "the answer has no usable ETag");
	if (strcmp(version, rq->version) != 0)
		return bad(r, -ESTALE, "the answer is another version");
	if (r->hr.content_length >= 0 && (uint64_t)r->hr.content_length != missing)
		return bad(r, -EIO, "the answer has another length than asked for");
	if (r->status == 206)
		return range_agrees(http_req_header(&r->hr, "content-range"), rq->off + rc->got,
			   rq->off + rq->len - 1)
		    ? 0
		    : bad(r, -EIO, "the answer has another range than asked for");
	if (r->status == 200 && rq->off + rc->got == 0 && r->hr.content_length >= 0)
		return 0;
	return bad(r, -EIO, "the answer is no partial content");
}

static int read_data(struct s3_req *r, const void *data, size_t len)
{
	struct read_call *rc = container_of(r, struct read_call, req);
	struct ufs_read *rq = read_rq(rc);

	if (len > rq->len - rc->got)
		return bad(r, -EIO, "the answer is longer than asked for");
	rc->got += len;
	rc->in_callback = true;
	rq->on_data(rq, data, len);
	rc->in_callback = false;
	if (rc->aborted) {
		ufs_call_drop(&rc->call);
		return -ECANCELED;
	}
	return 0;
}

static int read_complete(struct s3_req *r)
{
	struct read_call *rc = container_of(r, struct read_call, req);

	return rc->got == read_rq(rc)->len ? 0 : bad(r, -EAGAIN, "the answer is cut short");
}

static void read_done(struct s3_req *r, int err)
{
	struct read_call *rc = container_of(r, struct read_call, req);

	ufs_call_end(&rc->call, err == -ENOENT ? -ESTALE : err);
}

/* Nothing is missing although the last attempt broke: it must not ask again. */
static bool whole(struct s3_req *r)
{
	struct read_call *rc = container_of(r, struct read_call, req);

	return rc->got == read_rq(rc)->len;
}

void s3_read(struct ufs *u, struct ufs_read *rq)
{
	struct s3 *s3 = S3_OF(u);
	char key[S3_KEY_BUF];
	struct read_call *rc;

	if (s3_key(s3, rq->path, false, key) != 0) {
		ufs_answer_later(&rq->req, -ENAMETOOLONG);
		return;
	}
	rc = ufs_call_new(&rq->req, sizeof(*rc), read_abort);
	if (rc == NULL)
		return;
	rc->req.s3 = s3;
	rc->req.method = "GET";
	rc->req.again = set_range;
	rc->req.whole = whole;
	rc->req.head = read_head;
	rc->req.data = read_data;
	rc->req.complete = read_complete;
	rc->req.done = read_done;
	rc->req.missing_is_normal = true;
	(void)snprintf(rc->req.if_match, sizeof(rc->req.if_match), "\"%s\"", rq->version);
	set_range(&rc->req);
	s3_req_start(&rc->req, key, NULL);
}
