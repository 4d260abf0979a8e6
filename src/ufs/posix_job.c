/* SPDX-License-Identifier: BSD-2-Clause */
/* file://: requests, their jobs and their time limit (posix_priv.h says how). */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/options.h"
#include "ufs/posix_priv.h"
#include "ufs/posix_temp.h"

#define POSIX_OF(u) container_of(u, struct posix, ufs)

static void job_work(struct pool_job *job)
{
	struct posix_job *pj = container_of(job, struct posix_job, job);
	int root = posix_open_root(pj);

	if (root < 0) {
		job->result = root;
		return;
	}
	job->result = pj->kind->work(pj, root);
	(void)close(root);
}

/* --- jobs, on the loop */

struct posix_lanes *posix_lanes_new(uint64_t threads)
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

void posix_lanes_unref(struct posix_lanes *ls)
{
	if (--ls->refs == 0)
		free(ls);
}

static void job_free(struct posix_job *pj)
{
	if (pj->dir >= 0)
		(void)close(pj->dir); /* O_PATH: never blocks */
	pj->lane->load--;
	posix_lanes_unref(pj->lanes);
	ufs_page_clear(&pj->page);
	if (pj->cursor != NULL)
		pj->cursor->free(pj->cursor);
	free(pj->after);
	free(pj->root);
	free(pj->path);
	free(pj->path2);
	free(pj->buf);
	free(pj->names);
	free(pj->errs);
	free(pj);
}

static void clean_work(struct pool_job *job)
{
	posix_temp_drop(container_of(job, struct posix_job, job));
}

static void clean_done(struct pool_job *job)
{
	job_free(container_of(job, struct posix_job, job));
}

/* For a job that is not in the pool: frees it, once nothing half-made is left. */
static void job_end(struct posix_job *pj)
{
	pj->owner = NULL;
	if (pj->fd >= 0 || pj->tmp[0] != '\0')
		pool_submit(pj->pool, &pj->lane->lane, &pj->job, clean_work, clean_done);
	else
		job_free(pj);
}

static struct posix_lane *lane_least(struct posix_lanes *ls)
{
	struct posix_lane *lane = &ls->lane[0];

	for (unsigned i = 1; i < ls->n; i++)
		if (ls->lane[i].load < lane->load)
			lane = &ls->lane[i];
	return lane;
}

static struct posix_job *job_new(struct posix *px, struct posix_call *owner,
    const struct posix_kind *kind, const char *path, struct posix_lane *lane)
{
	struct posix_job *pj = calloc(1, sizeof(*pj));

	if (pj == NULL)
		return NULL;
	pj->pool = px->ufs.env.pool;
	pj->lane = lane;
	pj->lane->load++;
	pj->lanes = px->lanes;
	pj->lanes->refs++;
	pj->owner = owner;
	pj->kind = kind;
	pj->id = px->id;
	pj->no_openat2 = px->no_openat2;
	pj->mount_id = px->ufs.mount_id;
	pj->dir = pj->fd = -1;
	pj->root = strdup(px->root);
	pj->path = strdup(path);
	if (pj->root == NULL || pj->path == NULL) {
		job_free(pj);
		return NULL;
	}
	return pj;
}

static void job_done(struct pool_job *job);

void posix_submit(struct posix_job *pj)
{
	COUNT(pj->owner->call.rq->ufs->env.loop, UFS_REQUESTS, 1);
	pool_submit(pj->pool, &pj->lane->lane, &pj->job, job_work, job_done);
}

/* Nobody waits for it any more: it ends now or when it comes back. */
static void job_leave(struct posix_job *pj)
{
	pj->owner = NULL;
	atomic_store(&pj->left, true);
	if (pool_recall(&pj->job))
		job_end(pj);
}

/* --- requests */

struct posix *posix_of(const struct posix_call *pc)
{
	return POSIX_OF(pc->call.rq->ufs);
}

static void posix_abort(struct ufs_call *c)
{
	struct posix_call *pc = container_of(c, struct posix_call, call);

	timer_cancel(&pc->timeout);
	if (pc->in_callback) {
		pc->aborted = true; /* `deliver` still needs both */
		return;
	}
	if (pc->job != NULL)
		job_leave(pc->job);
	ufs_call_drop(c);
}

/* What a storage in good health answers too. */
static bool is_answer(int err)
{
	static const int answers[] = { 0, -ENOENT, -ESTALE, -ENOTDIR, -EISDIR, -EEXIST, -ENOTEMPTY,
		-EXDEV, -EINVAL, -ENAMETOOLONG };

	for (size_t i = 0; i < ARRAY_LEN(answers); i++)
		if (err == answers[i])
			return true;
	return false;
}

static void call_end(struct posix_call *pc, int err)
{
	struct posix *px = posix_of(pc);

	timer_cancel(&pc->timeout);
	if (is_answer(err)) {
		ufs_health_note(&px->ufs, 0, " ");
	} else {
		ufs_health_note(&px->ufs, err, "%s: %s", px->ufs.uri, strerror(-err));
		COUNT(px->ufs.env.loop, UFS_ERRORS, 1);
		log_warn("%s: %s", px->ufs.uri, strerror(-err));
	}
	ufs_call_end(&pc->call, err);
}

static void on_timeout(struct timer *t)
{
	struct posix_call *pc = container_of(t, struct posix_call, timeout);

	if (pc->job->kind->failed != NULL)
		pc->job->kind->failed(pc, -ETIMEDOUT);
	job_leave(pc->job);
	pc->job = NULL;
	call_end(pc, -ETIMEDOUT);
}

/* True: the next step is on its way. */
static bool go_on(struct posix_call *pc, struct posix_job *pj, int *err)
{
	if (*err == POSIX_MORE)
		*err = pj->kind->step != NULL ? pj->kind->step(pc, pj) : 0;
	if (*err != 0)
		return false;
	if (pj->kind->long_run)
		timer_arm(&pc->timeout, posix_of(pc)->ufs.env.cfg->ufs_timeout);
	posix_submit(pj);
	return true;
}

static void job_done(struct pool_job *job)
{
	struct posix_job *pj = container_of(job, struct posix_job, job);
	struct posix_call *pc = pj->owner;
	int err = job->result;

	if (pc == NULL) {
		job_end(pj);
		return;
	}
	posix_of(pc)->id = pj->id;
	posix_of(pc)->no_openat2 |= pj->no_openat2;
	if (err == POSIX_MORE && go_on(pc, pj, &err))
		return;
	if (err == 0 && pj->kind->deliver != NULL) {
		pj->kind->deliver(pc, pj);
		return;
	}
	if (err == 0 && pj->kind->take != NULL)
		pj->kind->take(pc, pj);
	else if (err != 0 && pj->kind->failed != NULL)
		pj->kind->failed(pc, err);
	pc->job = NULL;
	job_end(pj);
	call_end(pc, err == -EPERM ? -EACCES : err);
}

void posix_call_left(struct posix_call *pc, struct posix_job *pj)
{
	job_end(pj);
	ufs_call_drop(&pc->call);
}

void posix_delivered(struct posix_call *pc, struct posix_job *pj)
{
	pc->job = NULL;
	job_end(pj);
	call_end(pc, 0);
}

static struct posix_job *begin(struct ufs *u, struct ufs_req *r, const struct posix_kind *kind,
    const char *path, struct posix_lane *lane)
{
	struct posix_call *pc = ufs_call_new(r, sizeof(*pc), posix_abort);

	if (pc == NULL)
		return NULL;
	pc->job = job_new(POSIX_OF(u), pc, kind, path, lane);
	if (pc->job == NULL) {
		ufs_call_drop(&pc->call);
		ufs_answer_later(r, -ENOMEM);
		return NULL;
	}
	timer_init(&pc->timeout, u->env.loop, on_timeout);
	timer_arm(&pc->timeout, u->env.cfg->ufs_timeout);
	return pc->job;
}

struct posix_job *posix_begin(
    struct ufs *u, struct ufs_req *r, const struct posix_kind *kind, const char *path)
{
	if (posix_temp_in(path)) {
		ufs_answer_later(r, -ENOENT);
		return NULL;
	}
	return begin(u, r, kind, path, lane_least(POSIX_OF(u)->lanes));
}

struct posix_job *posix_begin_change(
    struct ufs *u, struct ufs_req *r, const struct posix_kind *kind, const char *path)
{
	struct posix_lanes *ls = POSIX_OF(u)->lanes;

	if (posix_temp_in(path)) {
		ufs_answer_later(r, -EINVAL);
		return NULL;
	}
	return begin(u, r, kind, path, &ls->lane[hash64(path, strlen(path), 0) % ls->n]);
}

void posix_conditions(struct posix_job *pj, bool absent, const char *if_version,
    const struct ufs_set *set)
{
	pj->absent = absent;
	pj->if_version = if_version != NULL;
	if (if_version != NULL)
		memcpy(pj->version, if_version, strlen(if_version) + 1);
	if (set != NULL)
		pj->set = *set;
}

void posix_begin_failed(struct posix_job *pj, int err)
{
	struct posix_call *pc = pj->owner;
	struct ufs_req *r = pc->call.rq;

	timer_cancel(&pc->timeout);
	job_end(pj);
	ufs_call_drop(&pc->call);
	ufs_answer_later(r, err);
}
