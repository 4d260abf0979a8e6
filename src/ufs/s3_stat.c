/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Attributes of a path: HEAD key and LIST key/ side by side, since either may be
 * what is there.  The directory wins; a HEAD that fails does not matter then.
 */
#include <errno.h>
#include <string.h>

#include "ufs/s3_priv.h"

struct stat_call {
	struct ufs_call call;
	struct s3_req head;
	struct s3_probe probe;
	bool head_ended, probe_ended;
	int head_err;
	struct ufs_attr attr;
	bool mine;
};

static void stat_abort(struct ufs_call *c)
{
	struct stat_call *st = container_of(c, struct stat_call, call);

	s3_req_abort(&st->head);
	s3_probe_abort(&st->probe);
	ufs_call_drop(c);
}

static void stat_end(struct stat_call *st, int err)
{
	struct ufs_stat *rq = container_of(st->call.rq, struct ufs_stat, req);

	s3_req_abort(&st->head);
	s3_probe_abort(&st->probe);
	if (err == 0) {
		rq->attr = st->attr;
		rq->mine = st->mine && st->attr.kind == UFS_FILE;
	}
	ufs_call_end(&st->call, err);
}

/* The probe has said that there is no directory: the HEAD decides. */
static void stat_settle(struct stat_call *st)
{
	if (st->head_ended && st->probe_ended)
		stat_end(st, st->head_err);
}

static void probe_done(struct s3_probe *p, int err)
{
	struct stat_call *st = container_of(p, struct stat_call, probe);

	st->probe_ended = true;
	if (err != 0) {
		stat_end(st, err);
	} else if (p->found) {
		memset(&st->attr, 0, sizeof(st->attr));
		st->attr.kind = UFS_DIR;
		stat_end(st, 0);
	} else {
		stat_settle(st);
	}
}

static int head_complete(struct s3_req *r)
{
	struct stat_call *st = container_of(r, struct stat_call, head);
	const struct ufs_stat *rq = container_of(st->call.rq, struct ufs_stat, req);
	const char *mark = http_req_header(&r->hr, S3_MARK);

	st->mine = mark != NULL && s3_mark_is_of(mark, r->s3->ufs.mount_id, rq->file);
	return s3_head_attr(r, &st->attr);
}

static void head_done(struct s3_req *r, int err)
{
	struct stat_call *st = container_of(r, struct stat_call, head);

	st->head_ended = true;
	st->head_err = err;
	stat_settle(st);
}

void s3_stat(struct ufs *u, struct ufs_stat *rq)
{
	struct s3 *s3 = S3_OF(u);
	char key[S3_KEY_BUF], dir[S3_KEY_BUF];
	struct stat_call *st;

	rq->mine = false;
	if (*rq->path == '\0') {
		rq->attr.kind = UFS_DIR;
		ufs_answer_later(&rq->req, 0);
		return;
	}
	if (s3_key(s3, rq->path, false, key) != 0) {
		ufs_answer_later(&rq->req, -ENAMETOOLONG);
		return;
	}
	st = ufs_call_new(&rq->req, sizeof(*st), stat_abort);
	if (st == NULL)
		return;
	st->head.s3 = s3;
	st->head.method = "HEAD";
	st->head.complete = head_complete;
	st->head.done = head_done;
	st->head.missing_is_normal = true;
	s3_req_start(&st->head, key, NULL);
	st->probe.s3 = s3;
	st->probe.done = probe_done;
	/* A key of the full length has no room for anything below it. */
	if (s3_key(s3, rq->path, true, dir) == 0)
		s3_probe_start(&st->probe, dir);
	else
		st->probe_ended = true;
}
