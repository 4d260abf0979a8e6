/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Deletions.  Several at once by DeleteObjects; keys that XML cannot hold, and those
 * about which the answer says nothing definite, one by one.
 */
#include <errno.h>
#include <string.h>

#include "ufs/s3_priv.h"

#define LANES 8u

/* --- one key */

static void one_start(struct s3_req *r, struct s3 *s3, const char *key,
    void (*done)(struct s3_req *r, int err))
{
	memset(r, 0, sizeof(*r));
	r->s3 = s3;
	r->method = "DELETE";
	r->missing_is_normal = true;
	r->done = done;
	s3_req_start(r, key, NULL);
}

static int one_result(int err)
{
	if (err == -ENOENT || err == -EINVAL) /* no key can have this name: none has */
		return 0;
	return err == -ESTALE ? -EIO : err;
}

struct rmdir {
	struct ufs_call call;
	struct s3_req req;
};

static void rmdir_abort(struct ufs_call *c)
{
	struct rmdir *d = container_of(c, struct rmdir, call);

	s3_req_abort(&d->req);
	ufs_call_drop(c);
}

static void rmdir_done(struct s3_req *r, int err)
{
	ufs_call_end(&container_of(r, struct rmdir, req)->call, one_result(err));
}

void s3_rmdir(struct ufs *u, struct ufs_rmdir *rq)
{
	char key[S3_KEY_BUF];
	struct rmdir *d;

	if (s3_key(S3_OF(u), rq->path, true, key) != 0) {
		ufs_answer_later(&rq->req, -ENAMETOOLONG);
		return;
	}
	d = ufs_call_new(&rq->req, sizeof(*d), rmdir_abort);
	if (d != NULL)
		one_start(&d->req, S3_OF(u), key, rmdir_done);
}

/* --- many */

enum fate { SETTLED, IN_BATCH, ALONE };

struct del_lane {
	struct s3_req req;
	struct del *del;
	unsigned at;
};

struct del {
	struct ufs_call call;
	struct s3 *s3;
	struct s3_ask batch;
	struct http_header md5_header;
	char md5[25];
	char *body;
	unsigned guess; /* which path the next entry of the answer is probably about */
	unsigned next, running;
	unsigned char fate[UFS_DELETE_MAX];
	struct del_lane lanes[LANES];
};

static struct ufs_delete *del_rq(const struct del *d)
{
	return container_of(d->call.rq, struct ufs_delete, req);
}

static void del_stop(struct del *d)
{
	s3_ask_abort(&d->batch);
	for (unsigned i = 0; i < LANES; i++)
		s3_req_abort(&d->lanes[i].req);
	free(d->body);
}

static void del_abort(struct ufs_call *c)
{
	struct del *d = container_of(c, struct del, call);

	del_stop(d);
	ufs_call_drop(c);
}

static void del_end(struct del *d, int err)
{
	del_stop(d);
	ufs_call_end(&d->call, err);
}

static bool is_dir(const struct ufs_delete *rq, unsigned i)
{
	return rq->dirs != NULL && rq->dirs[i];
}

static void lane_done(struct s3_req *r, int err);

static void lane_next(struct del *d, struct del_lane *lane)
{
	struct ufs_delete *rq = del_rq(d);
	char key[S3_KEY_BUF];

	while (d->next < rq->n && d->fate[d->next] != ALONE)
		d->next++;
	if (d->next == rq->n)
		return;
	lane->del = d;
	lane->at = d->next++;
	d->running++;
	(void)s3_key(d->s3, rq->paths[lane->at], is_dir(rq, lane->at), key);
	one_start(&lane->req, d->s3, key, lane_done);
}

static void lane_done(struct s3_req *r, int err)
{
	struct del_lane *lane = container_of(r, struct del_lane, req);
	struct del *d = lane->del;

	d->running--;
	/* What will not pass for the others either ends it all. */
	if (err == -ETIMEDOUT || err == -ENOMEM || (err != 0 && r->passing)) {
		del_end(d, err);
		return;
	}
	del_rq(d)->errs[lane->at] = one_result(err);
	lane_next(d, lane);
	if (d->running == 0)
		del_end(d, 0);
}

/* With at least one ALONE, or all is settled. */
static bool start_lanes(struct del *d)
{
	for (unsigned i = 0; i < LANES; i++)
		lane_next(d, &d->lanes[i]);
	return d->running > 0;
}

/* --- the batch */

static bool is_path(const struct del *d, unsigned i, const char *key)
{
	const struct ufs_delete *rq = container_of(d->call.rq, struct ufs_delete, req);
	size_t n = strlen(d->s3->prefix), len = strlen(rq->paths[i]);

	return d->fate[i] == IN_BATCH && strncmp(key, d->s3->prefix, n) == 0 &&
	    strncmp(key + n, rq->paths[i], len) == 0 &&
	    strcmp(key + n + len, is_dir(rq, i) ? "/" : "") == 0;
}

static void batch_entry(void *ask, const char *key, const char *code)
{
	struct del *d = container_of(ask, struct del, batch);
	struct ufs_delete *rq = del_rq(d);
	unsigned i = d->guess;

	while (i < rq->n && d->fate[i] != IN_BATCH)
		i++;
	if (i == rq->n || !is_path(d, i, key))
		for (i = 0; i < rq->n && !is_path(d, i, key);)
			i++;
	if (i == rq->n)
		return;
	d->guess = i + 1;
	if (strcmp(code, "AccessDenied") == 0)
		rq->errs[i] = -EACCES;
	else if (*code != '\0' && strcmp(code, "NoSuchKey") != 0)
		return; /* asked for alone */
	d->fate[i] = SETTLED;
}

static void batch_done(struct s3_ask *a, int err)
{
	struct del *d = container_of(a, struct del, batch);

	if (err == -EOPNOTSUPP)
		d->s3->no_batch = true;
	else if (err != 0 && (a->req.passing || err != -EIO || a->req.status != 400)) {
		del_end(d, err == -ENOENT || err == -ESTALE ? -EIO : err);
		return;
	}
	for (unsigned i = 0; i < del_rq(d)->n; i++)
		if (d->fate[i] == IN_BATCH)
			d->fate[i] = ALONE;
	if (!start_lanes(d))
		del_end(d, 0);
}

/* Before each attempt: the answer begins anew.  What one that broke off has said of a
 * path holds. */
static void batch_again(struct s3_req *r)
{
	container_of(r, struct del, batch.req)->guess = 0;
}

/* XML 1.0 has no control characters, and no bytes that are not UTF-8. */
static bool fit_for_xml(const char *s)
{
	while (*s != '\0') {
		unsigned char c = (unsigned char)*s++;
		unsigned more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc2 ? 1 : 0;
		uint32_t v = more == 3 ? c & 7u : more == 2 ? c & 15u : c & 31u;

		if (c < ' ' || (c >= 0x80 && c < 0xc2) || c > 0xf4)
			return false;
		for (unsigned i = 0; i < more; i++, s++) {
			if (((unsigned char)*s & 0xc0) != 0x80)
				return false;
			v = v << 6 | ((unsigned char)*s & 0x3f);
		}
		if ((more == 2 && (v < 0x800 || (v >= 0xd800 && v < 0xe000) || v >= 0xfffe)) ||
		    (more == 3 && (v < 0x10000 || v > 0x10ffff)))
			return false;
	}
	return true;
}

static char *batch_body(const struct del *d)
{
	const struct ufs_delete *rq = container_of(d->call.rq, struct ufs_delete, req);
	char *body = NULL, key[S3_KEY_BUF];
	size_t len = 0;
	FILE *f = open_memstream(&body, &len);

	if (f == NULL)
		return NULL;
	(void)fputs("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">", f);
	for (unsigned i = 0; i < rq->n; i++) {
		if (d->fate[i] != IN_BATCH)
			continue;
		(void)s3_key(d->s3, rq->paths[i], is_dir(rq, i), key);
		(void)fputs("<Object><Key>", f);
		s3_enc_xml(f, key);
		(void)fputs("</Key></Object>", f);
	}
	(void)fputs("</Delete>", f);
	if (s3_stream_close(f, &body))
		return body;
	free(body);
	return NULL;
}

/* Sorts the paths; how many are fit for a batch. */
static unsigned sort_out(struct del *d)
{
	struct ufs_delete *rq = del_rq(d);
	char key[S3_KEY_BUF];
	unsigned n = 0;

	for (unsigned i = 0; i < rq->n; i++) {
		if (rq->errs[i] == 0)
			rq->errs[i] = s3_key(d->s3, rq->paths[i], is_dir(rq, i), key);
		if (rq->errs[i] != 0)
			d->fate[i] = SETTLED;
		else if (d->s3->no_batch || !fit_for_xml(key))
			d->fate[i] = ALONE;
		else
			d->fate[i] = IN_BATCH;
		n += d->fate[i] == IN_BATCH;
	}
	return n;
}

static void start_batch(struct del *d)
{
	struct s3_req *r = &d->batch.req;

	d->md5_header.name = "Content-MD5"; /* storage insists on it here */
	d->md5_header.value = d->md5;
	r->s3 = d->s3;
	r->method = "POST";
	r->extra = &d->md5_header;
	r->nextra = 1;
	r->body = d->body;
	r->body_len = strlen(d->body);
	r->optional = true;
	r->again = batch_again;
	d->batch.root = "DeleteResult";
	d->batch.entry = batch_entry;
	d->batch.done = batch_done;
	s3_ask_start(&d->batch, "", "delete=");
}

void s3_delete(struct ufs *u, struct ufs_delete *rq)
{
	struct del *d = ufs_call_new(&rq->req, sizeof(*d), del_abort);

	if (d == NULL)
		return;
	d->s3 = S3_OF(u);
	if (sort_out(d) > 1) {
		d->body = batch_body(d);
		if (d->body != NULL && s3_md5_base64(d->body, strlen(d->body), d->md5)) {
			start_batch(d);
			return;
		}
	}
	for (unsigned i = 0; i < rq->n; i++)
		if (d->fate[i] == IN_BATCH)
			d->fate[i] = ALONE;
	if (!start_lanes(d)) {
		del_stop(d);
		ufs_call_drop(&d->call);
		ufs_answer_later(&rq->req, 0);
	}
}
