/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An object appears under its key: by PUT, or by the end of a multipart upload.
 *
 * Conditions.  PUT has If-None-Match and If-Match where the storage knows them; one that
 * does not says 501 once, and from then on a look before the PUT stands in.  The end of
 * an upload always looks first, since storage that knows the headers for PUT may ignore
 * them there (radosgw 16).
 *
 * Refused as "not absent" or "not this version", the object may still be ours: the
 * answer to an earlier attempt got lost, maybe within libcurl.  So a conditional PUT
 * carries a mark of its own, and the look after a refusal finds it.  For the end of an
 * upload the expected ETag tells.  Of an earlier request, which has sent something else,
 * half of the mark tells: what that has made is replaced.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/options.h"
#include "ufs/s3_priv.h"

/* The end of an upload that fails is looked into after so many attempts: radosgw
 * answers 500 for an upload that is gone. */
#define END_TRIES 3u

struct make {
	struct ufs_call call;
	struct s3 *s3;
	struct s3_req put;
	struct s3_ask end, parts;
	struct s3_look look;
	struct http_header extra[S3_OBJECT_HEADERS + 3];
	char key[S3_KEY_BUF];
	char match[UFS_VERSION_MAX + 2];
	char mark[S3_MARK_LEN + 1];
	char expected[UFS_VERSION_MAX]; /* of the end of an upload; "" : cannot be told */
	char version[UFS_VERSION_MAX];	/* what the answer says */
	char *query, *body;
	const void *data;
	uint64_t size, until;
	bool absent, dir;
	bool sent_condition;
	bool plain;	   /* the storage does not know conditions here */
	bool quoted;	   /* what If-Match was */
	bool other_form;   /* it has been tried both ways */
	bool maybe_made;   /* an attempt may have worked without our knowing */
	bool parts_asked;  /* whether the upload is still there */
	bool no_key;	   /* the refusal was about the object, not the upload */
	const char *if_version;
	uint64_t file;
	bool again;			/* an earlier request may have been made */
	char earlier[UFS_VERSION_MAX];	/* what it has made */
	char sum[S3_SUM_TEXT]; /* of a PUT; "" : none */
	bool sum_sent, sum_off, sum_wrong;
	const struct ufs_part_id *list;
	unsigned nparts; /* 0: by PUT */
	struct ufs_attr *attr;
	enum { LOOK_BEFORE, LOOK_REFUSED, LOOK_GONE, LOOK_VERSION } why;
	int err;
};

static void make_send(struct make *m);
static char *end_body(const struct ufs_part_id *parts, unsigned n, bool sums);

static void make_release(struct make *m)
{
	free(m->query);
	free(m->body);
}

static void make_abort(struct ufs_call *c)
{
	struct make *m = container_of(c, struct make, call);

	s3_req_abort(&m->put);
	s3_ask_abort(&m->end);
	s3_ask_abort(&m->parts);
	s3_req_abort(&m->look.req);
	make_release(m);
	ufs_call_drop(c);
}

static void make_end(struct make *m, int err)
{
	if (err == 0) {
		m->attr->kind = m->dir ? UFS_DIR : UFS_FILE;
		m->attr->size = m->size;
		if (!m->dir)
			memcpy(m->attr->version, m->version, sizeof(m->version));
	}
	make_release(m);
	ufs_call_end(&m->call, err);
}

/* --- looking */

/* Time for a look, also if the request before took all there was. */
static uint64_t some_time(const struct make *m)
{
	const struct ufs *u = &m->s3->ufs;

	return MAX(m->until, loop_now(u->env.loop) + u->env.cfg->ufs_timeout / 4);
}

static void make_look(struct make *m, int why)
{
	m->why = why;
	m->look.req.until = some_time(m);
	s3_look_start(&m->look, m->key);
}

/* Is what is there what this request makes? */
static bool ours(const struct make *m)
{
	const struct ufs_attr *a = &m->look.attr;
	const char *dash;
	char want[16];

	if (m->nparts == 0)
		return *m->mark != '\0' && strcmp(m->look.mark, m->mark) == 0;
	if (*m->expected != '\0')
		return strcmp(a->version, m->expected) == 0;
	/* Only if it may have been made under way: an older object can be as long. */
	(void)snprintf(want, sizeof(want), "-%u", m->nparts);
	dash = strrchr(a->version, '-');
	return m->maybe_made && a->size == m->size && (dash == NULL || strcmp(dash, want) == 0);
}

/* An earlier request of ours has made what is there: that is what is replaced, then. */
static bool takes_earlier(struct make *m)
{
	if (!m->again || !s3_mark_is_of(m->look.mark, m->s3->ufs.mount_id, m->file))
		return false;
	m->again = m->absent = m->other_form = false;
	memcpy(m->earlier, m->look.attr.version, sizeof(m->earlier));
	m->if_version = m->earlier;
	make_send(m);
	return true;
}

static void take_looked(struct make *m)
{
	memcpy(m->version, m->look.attr.version, sizeof(m->version));
	make_end(m, 0);
}

static void looked_before(struct make *m, int err)
{
	const char *version = m->look.attr.version;

	if (err != 0 && err != -ENOENT)
		make_end(m, err);
	else if (err == 0 && ours(m)) /* the same end, once more */
		make_send(m);
	else if (err == 0 && takes_earlier(m))
		return;
	else if (m->absent && err == 0)
		make_end(m, -EEXIST);
	else if (m->if_version != NULL && (err != 0 || strcmp(version, m->if_version) != 0))
		make_end(m, -ESTALE);
	else
		make_send(m);
}

static void looked_refused(struct make *m, int err)
{
	if (err != 0 && err != -ENOENT) {
		make_end(m, err);
	} else if (err == 0 && ours(m)) {
		take_looked(m);
	} else if (err == 0 && takes_earlier(m)) {
		return;
	} else if (m->absent) {
		make_end(m, -EEXIST);
	} else if (err == 0 && strcmp(m->look.attr.version, m->if_version) == 0 &&
	    !m->other_form) {
		/* It is this version: the storage compares another text (radosgw 16 the
		 * quotes too). */
		m->other_form = true;
		m->s3->quote_match = !m->quoted;
		make_send(m);
	} else {
		make_end(m, -ESTALE);
	}
}

static void looked_gone(struct make *m, int err)
{
	if (err == 0 && ours(m))
		take_looked(m);
	else if (err == -ENOENT && m->no_key && m->if_version != NULL)
		make_end(m, -ESTALE);
	else
		make_end(m, err == 0 ? -ENOENT : err);
}

/* It was made, but the answer does not say as what. */
static void looked_version(struct make *m, int err)
{
	if (err == 0 && m->look.attr.size == m->size) {
		take_looked(m);
	} else if ((err == 0 || err == -ENOENT) && *m->expected != '\0') {
		/* Replaced or deleted since. */
		memcpy(m->version, m->expected, sizeof(m->version));
		make_end(m, 0);
	} else {
		make_end(m, err == 0 || err == -ENOENT ? -EIO : err);
	}
}

static void make_looked(struct s3_look *l, int err)
{
	static void (*const then[])(struct make *m, int err) = {
		[LOOK_BEFORE] = looked_before,
		[LOOK_REFUSED] = looked_refused,
		[LOOK_GONE] = looked_gone,
		[LOOK_VERSION] = looked_version,
	};
	struct make *m = container_of(l, struct make, look);

	then[m->why](m, err);
}

/* --- sending */

static void made(struct make *m)
{
	if (*m->version != '\0' || m->dir)
		make_end(m, 0);
	else
		make_look(m, LOOK_VERSION);
}

static void without_conditions(struct make *m)
{
	struct ufs *u = &m->s3->ufs;

	if (m->nparts > 0) { /* looked before */
		m->plain = true;
		make_send(m);
		return;
	}
	if ((u->can & UFS_CAN_ABSENT) != 0)
		log_warn("%s: the storage does not know conditional writes: two clients may "
			 "both create one file", u->uri);
	u->can &= ~UFS_CAN_ABSENT;
	m->sum_off = false; /* it was not the checksum */
	make_look(m, LOOK_BEFORE);
}

/* The same without a checksum.  False: that is not it. */
static bool without_sum(struct make *m, const struct s3_req *r, int err)
{
	if (!m->sum_sent || m->sum_off || !s3_sum_refused(r, err))
		return false;
	m->sum_off = true;
	make_send(m);
	return true;
}

static int put_complete(struct s3_req *r)
{
	struct make *m = container_of(r, struct make, put);

	if (!s3_etag(http_req_header(&r->hr, "etag"), m->version))
		m->version[0] = '\0';
	m->sum_wrong = m->sum_sent && s3_sum_differs(r, m->sum);
	return 0;
}

static void put_done(struct s3_req *r, int err)
{
	struct make *m = container_of(r, struct make, put);

	if (err != 0 && without_sum(m, r, err))
		return;
	if (err == 0 && m->sum_off)
		s3_sums_end(m->s3);
	if (err == 0 && m->sum_wrong)
		make_end(m, -EBADMSG);
	else if (err == 0)
		made(m);
	else if (err == -EOPNOTSUPP)
		without_conditions(m);
	else if (err == -ESTALE && m->sent_condition)
		make_look(m, LOOK_REFUSED);
	else if (err == -ENOENT && m->sent_condition && m->if_version != NULL)
		make_end(m, -ESTALE);
	else
		make_end(m, err == -ENOENT || err == -ESTALE ? -EIO : err);
}

static void parts_done(struct s3_ask *a, int err)
{
	struct make *m = container_of(a, struct make, parts);

	if (err == -ENOENT)
		make_look(m, LOOK_GONE);
	else if (err != 0 || loop_now(m->s3->ufs.env.loop) >= m->until)
		make_end(m, m->err);
	else
		make_send(m);
}

static void ask_parts(struct make *m)
{
	char *query = NULL;

	m->parts_asked = true;
	m->parts.req.s3 = m->s3;
	m->parts.req.method = "GET";
	m->parts.req.until = some_time(m);
	m->parts.req.missing_is_normal = true;
	m->parts.root = "ListPartsResult";
	m->parts.done = parts_done;
	if (asprintf(&query, "max-parts=1&%s", m->query) < 0)
		query = NULL;
	s3_ask_start(&m->parts, query != NULL ? m->key : NULL, query);
	free(query);
}

/* To a storage that ignored them all along, and does not know them here. */
static bool end_without_sums(struct make *m, const struct s3_ask *a)
{
	char *body;

	if (!m->sum_sent || strcmp(a->req.error.code, "MalformedXML") != 0)
		return false;
	body = end_body(m->list, m->nparts, false);
	if (body == NULL)
		return false;
	free(m->body);
	m->body = body;
	m->sum_sent = false;
	s3_sums_end(m->s3);
	return true;
}

static void end_done(struct s3_ask *a, int err)
{
	struct make *m = container_of(a, struct make, end);

	m->maybe_made |= a->req.attempt > 1 || a->req.passing;
	m->err = err;
	if (err == 0 && m->sum_sent && !s3_sums_agree(m->list, m->nparts, a->res.sum)) {
		log_error("s3: %s: the storage's checksum of the upload is %s: not what was sent",
		    m->key, a->res.sum);
		make_end(m, -EBADMSG);
	} else if (err == 0) {
		memcpy(m->version, a->res.etag, sizeof(m->version));
		made(m);
	} else if (end_without_sums(m, a)) {
		make_send(m);
	} else if (err == -EOPNOTSUPP) {
		without_conditions(m);
	} else if (err == -ESTALE && m->sent_condition) {
		make_look(m, LOOK_REFUSED);
	} else if (err == -ENOENT) {
		m->no_key = strcmp(a->req.error.code, "NoSuchKey") == 0;
		make_look(m, LOOK_GONE);
	} else if (a->req.passing && !m->parts_asked) {
		ask_parts(m);
	} else {
		make_end(m, err == -ESTALE ? -EIO : err);
	}
}

static void add(struct make *m, unsigned *n, const char *name, const char *value)
{
	m->extra[*n].name = name;
	m->extra[*n].value = value;
	++*n;
}

static void make_send(struct make *m)
{
	bool conditional = m->absent || m->if_version != NULL;
	struct s3_req *r = m->nparts > 0 ? &m->end.req : &m->put;
	unsigned n = m->nparts > 0 ? 0 : s3_object_headers(m->s3, m->extra);

	memset(r, 0, sizeof(*r));
	m->sent_condition = conditional && !m->plain &&
	    (m->nparts > 0 || (m->s3->ufs.can & UFS_CAN_ABSENT) != 0);
	if (m->sent_condition && m->absent) {
		add(m, &n, "If-None-Match", "*");
	} else if (m->sent_condition) {
		m->quoted = m->s3->quote_match;
		s3_match_text(m->s3, m->if_version, m->match);
		add(m, &n, "If-Match", m->match);
	}
	if ((m->sent_condition || m->file != 0) && m->nparts == 0 && *m->mark != '\0')
		add(m, &n, S3_MARK, m->mark);
	if (m->nparts == 0) {
		m->sum_sent = *m->sum != '\0' && !m->sum_off && !m->s3->no_sums;
		r->summed = m->sum_sent;
	}
	if (r->summed)
		add(m, &n, S3_SUM_HEADER, m->sum);
	r->s3 = m->s3;
	r->extra = m->extra;
	r->nextra = n;
	r->body = m->data;
	r->body_len = m->nparts > 0 ? strlen(m->body) : m->size;
	r->until = m->until;
	r->optional = m->sent_condition;
	r->missing_is_normal = true;
	if (m->nparts > 0) {
		r->method = "POST";
		r->body = m->body;
		r->tries = m->parts_asked ? 0 : END_TRIES;
		m->end.root = "CompleteMultipartUploadResult";
		m->end.done = end_done;
		s3_ask_start(&m->end, m->key, m->query);
	} else {
		r->method = "PUT";
		r->complete = put_complete;
		r->done = put_done;
		s3_req_start(r, m->key, NULL);
	}
}

/* --- the requests */

static struct make *make_new(
    struct ufs *u, struct ufs_req *rq, const char *path, bool dir, struct ufs_attr *attr)
{
	char key[S3_KEY_BUF];
	struct make *m;

	if (s3_key(S3_OF(u), path, dir, key) != 0) {
		ufs_answer_later(rq, -ENAMETOOLONG);
		return NULL;
	}
	m = ufs_call_new(rq, sizeof(*m), make_abort);
	if (m == NULL)
		return NULL;
	memcpy(m->key, key, sizeof(key));
	m->s3 = S3_OF(u);
	m->dir = dir;
	m->attr = attr;
	m->look.s3 = m->s3;
	m->look.done = make_looked;
	m->until = loop_now(u->env.loop) + u->env.cfg->ufs_timeout;
	return m;
}

void s3_put(struct ufs *u, struct ufs_put *rq)
{
	struct make *m = make_new(u, &rq->req, rq->path, false, &rq->attr);

	if (m == NULL)
		return;
	m->data = rq->body;
	m->size = rq->len;
	m->absent = rq->absent;
	m->if_version = rq->if_version;
	m->file = rq->file;
	m->again = rq->again;
	if (rq->sum.have)
		s3_sum_text(rq->sum.crc32c, m->sum);
	if (m->absent || m->if_version != NULL) {
		s3_mark(u->mount_id, rq->file, m->mark);
		if ((u->can & UFS_CAN_ABSENT) == 0) {
			make_look(m, LOOK_BEFORE);
			return;
		}
	}
	make_send(m);
}

void s3_mkdir(struct ufs *u, struct ufs_mkdir *rq)
{
	struct make *m = make_new(u, &rq->req, rq->path, true, &rq->attr);

	if (m != NULL)
		make_send(m);
}

static bool all_sums(const struct ufs_part_id *parts, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (!parts[i].sum.have)
			return false;
	return true;
}

static char *end_body(const struct ufs_part_id *parts, unsigned n, bool sums)
{
	char sum[S3_SUM_TEXT], *body = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&body, &len);

	if (f == NULL)
		return NULL;
	(void)fputs("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">",
	    f);
	for (unsigned i = 0; i < n; i++) {
		(void)fprintf(f, "<Part><PartNumber>%u</PartNumber><ETag>\"", parts[i].number);
		s3_enc_xml(f, parts[i].etag);
		(void)fputs("\"</ETag>", f);
		if (sums) {
			s3_sum_text(parts[i].sum.crc32c, sum);
			(void)fprintf(f, "<ChecksumCRC32C>%s</ChecksumCRC32C>", sum);
		}
		(void)fputs("</Part>", f);
	}
	(void)fputs("</CompleteMultipartUpload>", f);
	if (s3_stream_close(f, &body))
		return body;
	free(body);
	return NULL;
}

void s3_multi_end(struct ufs *u, struct ufs_multi_end *rq)
{
	struct make *m = make_new(u, &rq->req, rq->path, false, &rq->attr);

	if (m == NULL)
		return;
	m->list = rq->parts;
	m->nparts = rq->nparts;
	m->sum_sent = all_sums(rq->parts, rq->nparts);
	m->absent = rq->absent;
	m->if_version = rq->if_version;
	m->file = rq->file;
	m->again = rq->again;
	for (unsigned i = 0; i < rq->nparts; i++)
		m->size += rq->parts[i].len;
	if (!s3_multi_etag(rq->parts, rq->nparts, m->expected))
		m->expected[0] = '\0';
	m->query = s3_upload_query("", rq->id);
	m->body = end_body(rq->parts, rq->nparts, m->sum_sent);
	if (m->query == NULL || m->body == NULL) {
		make_release(m);
		ufs_call_drop(&m->call);
		ufs_answer_later(&rq->req, -ENOMEM);
	} else if (m->absent || m->if_version != NULL) {
		make_look(m, LOOK_BEFORE);
	} else {
		make_send(m);
	}
}
