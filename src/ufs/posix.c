/* SPDX-License-Identifier: BSD-2-Clause */
/* file://: requests, jobs and their time limit (posix_priv.h says how). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"
#include "base/options.h"
#include "ufs/posix_priv.h"

#define POSIX_OF(u) container_of(u, struct posix, ufs)

/* --- in the pool */

static int stat_work(struct posix_job *pj, int root)
{
	struct stat st;
	int fd = posix_open_at(pj, root, pj->path, O_PATH), err;

	if (fd < 0)
		return fd;
	err = fstat(fd, &st) == 0 ? 0 : -errno;
	(void)close(fd);
	if (err == 0 && !posix_attr(&st, &pj->attr))
		err = -ENOENT;
	return err;
}

static int version_check(const struct posix_job *pj, int fd)
{
	struct ufs_attr attr;
	struct stat st;

	if (fstat(fd, &st) != 0)
		return -errno;
	if (!posix_attr(&st, &attr) || strcmp(attr.version, pj->version) != 0)
		return -ESTALE;
	return 0;
}

static int pread_all(struct posix_job *pj, int fd)
{
	size_t got = 0;

	while (got < pj->len) {
		ssize_t n = pread(fd, pj->buf + got, pj->len - got, (off_t)(pj->off + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0) /* past the end of this version */
			return -EIO;
		got += (size_t)n;
	}
	return 0;
}

static int read_work(struct posix_job *pj, int root)
{
	/* Looked at before it is opened: opening a pipe or device has effects. */
	int fd = posix_open_at(pj, root, pj->path, O_PATH), err, after;

	if (fd >= 0) {
		err = version_check(pj, fd);
		(void)close(fd);
		if (err != 0)
			return err;
		fd = posix_open_at(pj, root, pj->path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	}
	if (fd < 0)
		return fd == -ENOENT || fd == -ENOTDIR ? -ESTALE : fd;
	err = version_check(pj, fd);
	if (err == 0)
		err = pread_all(pj, fd);
	after = err == -ESTALE ? 0 : version_check(pj, fd);
	(void)close(fd);
	return after != 0 ? after : err;
}

static int check_work(struct posix_job *pj, int root)
{
	int fd = posix_open_at(pj, root, "", O_RDONLY | O_DIRECTORY);

	if (fd >= 0)
		(void)close(fd);
	return fd < 0 ? fd : 0;
}

static int statfs_work(struct posix_job *pj)
{
	struct statvfs sv;

	if (statvfs(pj->root, &sv) != 0)
		return -errno;
	pj->space.total = (uint64_t)sv.f_blocks * sv.f_frsize;
	pj->space.free = (uint64_t)sv.f_bavail * sv.f_frsize;
	return 0;
}

static void job_work(struct pool_job *job)
{
	struct posix_job *pj = container_of(job, struct posix_job, job);
	int root;

	if (pj->op == POSIX_LIST) {
		job->result = posix_list_work(pj);
		return;
	}
	root = posix_open_root(pj);
	if (root < 0) {
		job->result = root;
		return;
	}
	switch (pj->op) {
	case POSIX_STAT:
		job->result = stat_work(pj, root);
		break;
	case POSIX_READ:
		job->result = read_work(pj, root);
		break;
	case POSIX_CHECK:
		job->result = check_work(pj, root);
		break;
	default:
		job->result = statfs_work(pj);
		break;
	}
	(void)close(root);
}

/* --- jobs, on the loop */

static void lanes_unref(struct posix_lanes *ls)
{
	if (--ls->refs == 0)
		free(ls);
}

static void job_free(struct posix_job *pj)
{
	pj->lane->load--;
	lanes_unref(pj->lanes);
	ufs_page_clear(&pj->page);
	free(pj->after);
	free(pj->root);
	free(pj->path);
	free(pj->buf);
	free(pj);
}

static struct posix_job *job_new(struct posix *px, struct posix_call *owner, enum posix_op op,
    const char *path)
{
	struct posix_job *pj = calloc(1, sizeof(*pj));
	struct posix_lanes *ls = px->lanes;

	if (pj == NULL)
		return NULL;
	pj->lane = &ls->lane[0];
	for (unsigned i = 1; i < ls->n; i++)
		if (ls->lane[i].load < pj->lane->load)
			pj->lane = &ls->lane[i];
	pj->lane->load++;
	pj->lanes = ls;
	ls->refs++;
	pj->owner = owner;
	pj->op = op;
	pj->id = px->id;
	pj->no_openat2 = px->no_openat2;
	pj->root = strdup(px->root);
	pj->path = strdup(path);
	if (pj->root == NULL || pj->path == NULL) {
		job_free(pj);
		return NULL;
	}
	return pj;
}

static void job_done(struct pool_job *job);

static void job_submit(struct posix *px, struct posix_job *pj)
{
	COUNT(px->ufs.env.loop, UFS_REQUESTS, 1);
	pool_submit(px->ufs.env.pool, &pj->lane->lane, &pj->job, job_work, job_done);
}

/* Nobody waits for it any more: it ends now or when it comes back. */
static void job_leave(struct posix_job *pj)
{
	pj->owner = NULL;
	if (pool_recall(&pj->job))
		job_free(pj);
}

/* --- requests */

static struct posix *posix_of(const struct posix_call *pc)
{
	return POSIX_OF(pc->call.rq->ufs);
}

static void posix_abort(struct ufs_call *c)
{
	struct posix_call *pc = container_of(c, struct posix_call, call);

	timer_cancel(&pc->timeout);
	if (pc->in_callback) {
		pc->aborted = true; /* read_more() still needs both */
		return;
	}
	if (pc->job != NULL)
		job_leave(pc->job);
	ufs_call_drop(c);
}

static void posix_end(struct posix_call *pc, int err)
{
	struct posix *px = posix_of(pc);

	timer_cancel(&pc->timeout);
	if (err == 0 || err == -ENOENT || err == -ESTALE || err == -ENOTDIR) {
		ufs_health_note(&px->ufs, 0, " ");
	} else {
		ufs_health_note(&px->ufs, err, "%s: %s", px->ufs.uri, strerror(-err));
		COUNT(px->ufs.env.loop, UFS_ERRORS, 1);
		log_warn("%s: %s", px->ufs.uri, strerror(-err));
	}
	ufs_call_end(&pc->call, err);
}

static void check_words(struct posix_call *pc, int err)
{
	struct ufs_check *rq = container_of(pc->call.rq, struct ufs_check, req);

	(void)errtext_set(&rq->et, err, "storage %s: open directory: %s", pc->call.rq->ufs->uri,
	    strerror(-err));
}

static void on_timeout(struct timer *t)
{
	struct posix_call *pc = container_of(t, struct posix_call, timeout);

	if (pc->job->op == POSIX_CHECK)
		check_words(pc, -ETIMEDOUT);
	job_leave(pc->job);
	pc->job = NULL;
	posix_end(pc, -ETIMEDOUT);
}

/* Gives a chunk to the user and asks for the next; the job is used again. */
static void read_more(struct posix_call *pc, struct posix_job *pj)
{
	struct ufs_read *rq = container_of(pc->call.rq, struct ufs_read, req);
	struct posix *px = posix_of(pc);
	size_t n = pj->len;

	pc->got += n;
	pc->in_callback = true;
	rq->on_data(rq, pj->buf, n);
	pc->in_callback = false;
	if (pc->aborted) {
		job_free(pj);
		ufs_call_drop(&pc->call);
		return;
	}
	if (pc->got == rq->len) {
		job_free(pj);
		pc->job = NULL;
		posix_end(pc, 0);
		return;
	}
	pj->off += n;
	pj->len = MIN(rq->len - pc->got, POSIX_CHUNK);
	job_submit(px, pj);
}

static void take_result(struct posix_call *pc, struct posix_job *pj)
{
	struct ufs_req *r = pc->call.rq;
	struct ufs_list *list;

	switch (pj->op) {
	case POSIX_STAT:
		container_of(r, struct ufs_stat, req)->attr = pj->attr;
		break;
	case POSIX_LIST:
		list = container_of(r, struct ufs_list, req);
		list->more = pj->more;
		list->exists = true;
		/* Each page sees all of them: count them once. */
		if (pj->after == NULL)
			COUNT(r->ufs->env.loop, UFS_HIDDEN, pj->hidden);
		ufs_page_give(&pj->page, list);
		break;
	case POSIX_STATFS:
		container_of(r, struct ufs_statfs, req)->space = pj->space;
		break;
	default:
		break;
	}
}

static void job_done(struct pool_job *job)
{
	struct posix_job *pj = container_of(job, struct posix_job, job);
	struct posix_call *pc = pj->owner;
	int err = job->result;

	if (pc == NULL) {
		job_free(pj);
		return;
	}
	posix_of(pc)->id = pj->id;
	posix_of(pc)->no_openat2 |= pj->no_openat2;
	if (err == 0 && pj->op == POSIX_READ) {
		read_more(pc, pj);
		return;
	}
	if (err == 0)
		take_result(pc, pj);
	else if (pj->op == POSIX_CHECK)
		check_words(pc, err);
	pc->job = NULL;
	job_free(pj);
	posix_end(pc, err == -EPERM ? -EACCES : err);
}

/* A call with its job, not yet submitted; NULL: the request is being answered. */
static struct posix_job *begin(struct ufs *u, struct ufs_req *r, enum posix_op op, const char *path)
{
	struct posix *px = POSIX_OF(u);
	struct posix_call *pc = ufs_call_new(r, sizeof(*pc), posix_abort);

	if (pc == NULL)
		return NULL;
	pc->job = job_new(px, pc, op, path);
	if (pc->job == NULL) {
		ufs_call_drop(&pc->call);
		ufs_answer_later(r, -ENOMEM);
		return NULL;
	}
	timer_init(&pc->timeout, u->env.loop, on_timeout);
	timer_arm(&pc->timeout, u->env.cfg->ufs_timeout);
	return pc->job;
}

/* For what begin() got and the caller could not complete. */
static void begin_failed(struct posix_job *pj)
{
	struct posix_call *pc = pj->owner;
	struct ufs_req *r = pc->call.rq;

	timer_cancel(&pc->timeout);
	job_free(pj);
	ufs_call_drop(&pc->call);
	ufs_answer_later(r, -ENOMEM);
}

static void posix_stat(struct ufs *u, struct ufs_stat *rq)
{
	struct posix_job *pj = begin(u, &rq->req, POSIX_STAT, rq->path);

	if (pj != NULL)
		job_submit(POSIX_OF(u), pj);
}

static void posix_list(struct ufs *u, struct ufs_list *rq, const char *after)
{
	struct posix_job *pj = begin(u, &rq->req, POSIX_LIST, rq->path);

	if (pj == NULL)
		return;
	pj->after = after != NULL ? strdup(after) : NULL;
	pj->after_kind = rq->after_kind;
	if (after != NULL && pj->after == NULL)
		begin_failed(pj);
	else
		job_submit(POSIX_OF(u), pj);
}

static void posix_read(struct ufs *u, struct ufs_read *rq)
{
	struct posix_job *pj = begin(u, &rq->req, POSIX_READ, rq->path);

	if (pj == NULL)
		return;
	memcpy(pj->version, rq->version, strlen(rq->version) + 1);
	pj->off = rq->off;
	pj->len = MIN(rq->len, POSIX_CHUNK);
	pj->buf = malloc(pj->len);
	if (pj->buf == NULL)
		begin_failed(pj);
	else
		job_submit(POSIX_OF(u), pj);
}

static void posix_check(struct ufs *u, struct ufs_check *rq)
{
	struct posix_job *pj = begin(u, &rq->req, POSIX_CHECK, "");

	if (pj != NULL)
		job_submit(POSIX_OF(u), pj);
}

static void posix_statfs(struct ufs *u, struct ufs_statfs *rq)
{
	struct posix_job *pj = begin(u, &rq->req, POSIX_STATFS, "");

	if (pj != NULL)
		job_submit(POSIX_OF(u), pj);
}

/* --- attaching */

static void posix_free(struct ufs *u)
{
	struct posix *px = POSIX_OF(u);

	if (px->lanes != NULL)
		lanes_unref(px->lanes);
	free(px->root);
	free(u->uri);
	u->magic = 0;
	free(px);
}

static const struct ufs_ops posix_ops = {
	.free = posix_free,
	.stat = posix_stat,
	.list = posix_list,
	.read = posix_read,
	.check = posix_check,
	.statfs = posix_statfs,
};

static struct posix_lanes *lanes_new(uint64_t threads)
{
	unsigned n = threads > 2 ? (unsigned)(threads / 2) : 1;
	struct posix_lanes *ls = calloc(1, sizeof(*ls) + n * sizeof(ls->lane[0]));

	if (ls == NULL)
		return NULL;
	ls->refs = 1;
	ls->n = n;
	for (unsigned i = 0; i < n; i++)
		pool_lane_init(&ls->lane[i].lane);
	return ls;
}

int posix_new(struct ufs **out, const struct ufs_env *env, const char *rest, struct errtext *et)
{
	size_t n = strlen(rest);
	struct posix *px;

	if (rest[0] != '/')
		return errtext_set(et, -EINVAL,
		    "a file:// URI has three slashes and an absolute path: file:///DIRECTORY");
	while (n > 1 && rest[n - 1] == '/')
		n--;
	px = calloc(1, sizeof(*px));
	if (px == NULL)
		return errtext_set(et, -ENOMEM, "out of memory");
	px->ufs.magic = UFS_MAGIC;
	px->ufs.ops = &posix_ops;
	px->ufs.env = *env;
	px->root = strndup(rest, n);
	px->lanes = lanes_new(env->cfg->pool_threads);
	if (px->root == NULL || px->lanes == NULL ||
	    asprintf(&px->ufs.uri, "file://%s", px->root) < 0) {
		px->ufs.uri = NULL;
		posix_free(&px->ufs);
		return errtext_set(et, -ENOMEM, "out of memory");
	}
	*out = &px->ufs;
	return 0;
}
