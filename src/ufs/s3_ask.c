/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two kinds of requests that writes are made of: one whose answer is a document, and the
 * look at what is under a key.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>

#include "base/hash.h"
#include "ufs/s3_priv.h"

/* --- a document */

static int ask_head(struct s3_req *r)
{
	struct s3_ask *a = container_of(r, struct s3_ask, req);

	s3_doc_free(&a->doc);
	a->doc = s3_doc_new(a->entry, a);
	if (a->doc == NULL)
		return -ENOMEM;
	s3_doc_uploads(a->doc, a->upload);
	return 0;
}

static int unusable(struct s3_req *r)
{
	(void)snprintf(r->words, sizeof(r->words), "the answer is no such document");
	return -EIO;
}

static int ask_data(struct s3_req *r, const void *data, size_t len)
{
	struct s3_ask *a = container_of(r, struct s3_ask, req);
	int err = s3_doc_feed(a->doc, data, len);

	return err == 0 || err == -ENOMEM ? err : unusable(r);
}

static int ask_complete(struct s3_req *r)
{
	struct s3_ask *a = container_of(r, struct s3_ask, req);
	int err = s3_doc_end(a->doc);

	if (err == -EBADMSG) {
		r->error = s3_doc_result(a->doc)->error;
		return err;
	}
	if (err == -EAGAIN)
		(void)snprintf(r->words, sizeof(r->words), "the answer is cut short");
	if (err == -EAGAIN || err == -ENOMEM)
		return err;
	return err == 0 && strcmp(s3_doc_result(a->doc)->root, a->root) == 0 ? 0 : unusable(r);
}

static void ask_done(struct s3_req *r, int err)
{
	struct s3_ask *a = container_of(r, struct s3_ask, req);
	struct s3_doc_result none = { .root = "" };

	a->res = err == 0 ? *s3_doc_result(a->doc) : none;
	s3_doc_free(&a->doc);
	a->done(a, err);
}

void s3_ask_start(struct s3_ask *a, const char *key, const char *query)
{
	a->req.head = ask_head;
	a->req.data = ask_data;
	a->req.complete = ask_complete;
	a->req.done = ask_done;
	s3_req_start(&a->req, key, query);
}

void s3_ask_abort(struct s3_ask *a)
{
	s3_req_abort(&a->req);
	s3_doc_free(&a->doc);
}

/* --- a look */

int s3_head_attr(struct s3_req *r, struct ufs_attr *attr)
{
	time_t t;

	if (r->hr.content_length < 0 ||
	    !s3_etag(http_req_header(&r->hr, "etag"), attr->version) ||
	    !s3_http_date(http_req_header(&r->hr, "last-modified"), &t)) {
		(void)snprintf(r->words, sizeof(r->words),
		    "the answer lacks Content-Length, ETag or Last-Modified");
		return -EIO;
	}
	attr->kind = UFS_FILE;
	attr->size = (uint64_t)r->hr.content_length;
	attr->mtime.tv_sec = t;
	return 0;
}

static void file_text(uint64_t mount, uint64_t file, char text[S3_MARK_FILE + 1])
{
	(void)snprintf(text, S3_MARK_FILE + 1, "%016" PRIx64, hash64(&file, sizeof(file), mount));
}

void s3_mark(uint64_t mount, uint64_t file, char mark[S3_MARK_LEN + 1])
{
	unsigned char raw[S3_MARK_LEN / 2];
	char text[S3_MARK_FILE + 1];

	mark[0] = '\0';
	if (getrandom(raw, sizeof(raw), GRND_NONBLOCK) != (ssize_t)sizeof(raw))
		return; /* just booted: a refusal counts as what it says */
	for (unsigned i = 0; i < sizeof(raw); i++)
		(void)snprintf(mark + (size_t)2 * i, 3, "%02x", raw[i]);
	if (mount == 0 || file == 0)
		return;
	file_text(mount, file, text);
	memcpy(mark, text, S3_MARK_FILE);
}

bool s3_mark_is_of(const char *mark, uint64_t mount, uint64_t file)
{
	char text[S3_MARK_FILE + 1];

	file_text(mount, file, text);
	return mount != 0 && file != 0 && strlen(mark) == S3_MARK_LEN &&
	       memcmp(mark, text, S3_MARK_FILE) == 0;
}

static int look_complete(struct s3_req *r)
{
	struct s3_look *l = container_of(r, struct s3_look, req);
	const char *mark = http_req_header(&r->hr, S3_MARK);

	(void)snprintf(l->mark, sizeof(l->mark), "%s", mark != NULL ? mark : "");
	return s3_head_attr(r, &l->attr);
}

static void look_done(struct s3_req *r, int err)
{
	struct s3_look *l = container_of(r, struct s3_look, req);

	l->done(l, err);
}

void s3_look_start(struct s3_look *l, const char *key)
{
	uint64_t until = l->req.until;

	memset(&l->req, 0, sizeof(l->req));
	memset(&l->attr, 0, sizeof(l->attr));
	l->req.until = until;
	l->req.s3 = l->s3;
	l->req.method = "HEAD";
	l->req.missing_is_normal = true;
	l->req.complete = look_complete;
	l->req.done = look_done;
	s3_req_start(&l->req, key, NULL);
}
