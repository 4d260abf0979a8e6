/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Uploads in parts whose id nobody has: the client that began them died before it could
 * note the answer.  Those of exactly this key, begun since the client sent that, are
 * listed and thrown away, but for the ones that are known.
 *
 * When an upload was begun the storage says by its own clock: its answer's Date tells how
 * far that is from ours.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/queue.h"
#include "base/units.h"
#include "ufs/s3_priv.h"

#define PAGES_MAX 100u
#define ENTRIES_MAX 2000u
/* Of several servers behind one name; and where the answer has no Date: what the storage
 * lets pass in a request. */
#define SKEW_S 60
#define SKEW_UNKNOWN_S (15 * 60)

TAILQ_HEAD(found_list, found);

struct found {
	TAILQ_ENTRY(found) link;
	time_t begun;
	char id[];
};

struct sweep {
	struct ufs_call call;
	struct s3 *s3;
	struct s3_ask list;
	struct s3_req del;
	struct found_list found;
	char key[S3_KEY_BUF];
	unsigned n, pages;
	bool gone; /* something of this page was thrown away */
};

static struct ufs_multi_sweep *sweep_rq(const struct sweep *s)
{
	return container_of(s->call.rq, struct ufs_multi_sweep, req);
}

static void forget(struct sweep *s)
{
	struct found *fd;

	while ((fd = TAILQ_FIRST(&s->found)) != NULL) {
		TAILQ_REMOVE(&s->found, fd, link);
		free(fd);
	}
	s->n = 0;
}

static void sweep_stop(struct sweep *s)
{
	s3_ask_abort(&s->list);
	s3_req_abort(&s->del);
	forget(s);
}

static void sweep_abort(struct ufs_call *c)
{
	struct sweep *s = container_of(c, struct sweep, call);

	sweep_stop(s);
	ufs_call_drop(c);
}

static void sweep_end(struct sweep *s, int err)
{
	sweep_stop(s);
	ufs_call_end(&s->call, err);
}

static void list_start(struct sweep *s);
static void del_next(struct sweep *s);

static void del_done(struct s3_req *r, int err)
{
	struct sweep *s = container_of(r, struct sweep, del);

	if (err != 0 && err != -ENOENT) {
		sweep_end(s, err == -ESTALE ? -EIO : err);
		return;
	}
	sweep_rq(s)->found += err == 0;
	s->gone = true;
	del_next(s);
}

static void del_next(struct sweep *s)
{
	struct found *fd = TAILQ_FIRST(&s->found);
	char *query;

	if (fd == NULL) {
		if (s->gone && s->list.res.truncated && ++s->pages < PAGES_MAX)
			list_start(s);
		else
			sweep_end(s, 0);
		return;
	}
	log_info("%s: the upload %s of %s was begun and never noted: thrown away",
	    s->s3->ufs.uri, fd->id, s->key);
	query = s3_upload_query("", fd->id);
	TAILQ_REMOVE(&s->found, fd, link);
	free(fd);
	memset(&s->del, 0, sizeof(s->del));
	s->del.s3 = s->s3;
	s->del.method = "DELETE";
	s->del.missing_is_normal = true;
	s->del.done = del_done;
	s3_req_start(&s->del, query != NULL ? s->key : NULL, query);
	free(query);
}

/* --- the listing */

static bool is_known(const struct ufs_multi_sweep *rq, const char *id)
{
	for (unsigned i = 0; i < rq->nkeep; i++)
		if (strcmp(rq->keep[i], id) == 0)
			return true;
	return false;
}

/* What is not understood stays. */
static int list_upload(void *ask, const char *key, const char *id, const char *initiated)
{
	struct sweep *s = container_of(ask, struct sweep, list);
	size_t len = strlen(id);
	struct found *fd;
	time_t begun;

	if (strcmp(key, s->key) != 0 || len == 0 || is_known(sweep_rq(s), id) ||
	    !s3_iso_date(initiated, &begun) || s->n == ENTRIES_MAX)
		return 0;
	fd = malloc(sizeof(*fd) + len + 1);
	if (fd == NULL)
		return -ENOMEM;
	fd->begun = begun;
	memcpy(fd->id, id, len + 1);
	TAILQ_INSERT_TAIL(&s->found, fd, link);
	s->n++;
	return 0;
}

/* Before each attempt: the answer begins anew. */
static void list_again(struct s3_req *r)
{
	forget(container_of(r, struct sweep, list.req));
}

/* The earliest time, by the storage's clock. */
static time_t since(const struct sweep *s)
{
	time_t sent = (time_t)(sweep_rq(s)->since_ns / NS_PER_S), theirs;

	if (!s3_http_date(http_req_header(&s->list.req.hr, "date"), &theirs))
		return sent - SKEW_UNKNOWN_S;
	return sent + theirs - (time_t)(loop_wall(s->s3->ufs.env.loop) / NS_PER_S) - SKEW_S;
}

static void list_done(struct s3_ask *a, int err)
{
	struct sweep *s = container_of(a, struct sweep, list);
	struct found *fd, *next;
	time_t from;

	if (err != 0) {
		sweep_end(s, err == -ENOENT || err == -ESTALE ? -EIO : err);
		return;
	}
	from = since(s);
	TAILQ_FOREACH_SAFE(fd, &s->found, link, next) {
		if (fd->begun >= from)
			continue;
		TAILQ_REMOVE(&s->found, fd, link);
		free(fd);
	}
	s->gone = false;
	del_next(s);
}

/* The key comes before longer ones that begin with it, so its uploads are on the first
 * page; and on it again, as long as some were thrown away. */
static void list_start(struct sweep *s)
{
	struct s3_req *r = &s->list.req;
	char *query = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&query, &len);

	if (f != NULL) {
		(void)fputs("prefix=", f);
		s3_enc_value(f, s->key);
		(void)fputs("&uploads=", f);
		if (!s3_stream_close(f, &query)) {
			free(query);
			query = NULL;
		}
	}
	forget(s);
	memset(&s->list, 0, sizeof(s->list));
	r->s3 = s->s3;
	r->method = "GET";
	r->optional = true;
	r->again = list_again;
	s->list.root = "ListMultipartUploadsResult";
	s->list.upload = list_upload;
	s->list.done = list_done;
	s3_ask_start(&s->list, query != NULL ? "" : NULL, query);
	free(query);
}

void s3_multi_sweep(struct ufs *u, struct ufs_multi_sweep *rq)
{
	char key[S3_KEY_BUF];
	struct sweep *s;

	if (s3_key(S3_OF(u), rq->path, false, key) != 0) {
		ufs_answer_later(&rq->req, -ENAMETOOLONG);
		return;
	}
	s = ufs_call_new(&rq->req, sizeof(*s), sweep_abort);
	if (s == NULL)
		return;
	s->s3 = S3_OF(u);
	TAILQ_INIT(&s->found);
	memcpy(s->key, key, sizeof(s->key));
	list_start(s);
}
