/* SPDX-License-Identifier: BSD-2-Clause */
/* file://: whole files, from memory or from another file. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "ufs/posix_copy.h"
#include "ufs/posix_temp.h"

#define COPY_BEHIND ((uint64_t)64 << 20)

/* Whatever ended it, nothing half-made stays. */
static int finish(struct posix_job *pj, int err)
{
	if (err != POSIX_MORE)
		posix_temp_drop(pj);
	return err;
}

/* --- put */

static int put_work(struct posix_job *pj, int root)
{
	int err = pj->fd < 0 ? posix_temp_new(pj, root, false) : 0;

	if (err == 0)
		err = posix_pwrite_all(pj->fd, pj->buf, pj->len, pj->at);
	pj->at += pj->len;
	if (err == 0)
		err = pj->at < pj->size ? POSIX_MORE : posix_temp_place(pj, NULL);
	return finish(pj, err);
}

/* The thread has its own copy of what it writes: it may be late. */
static int put_step(struct posix_call *pc, struct posix_job *pj)
{
	const struct ufs_put *rq = container_of(pc->call.rq, struct ufs_put, req);

	pj->len = MIN(rq->len - pj->at, POSIX_CHUNK);
	if (pj->len > 0)
		memcpy(pj->buf, (const char *)rq->body + pj->at, pj->len);
	return 0;
}

static void put_take(struct posix_call *pc, struct posix_job *pj)
{
	container_of(pc->call.rq, struct ufs_put, req)->attr = pj->attr;
}

void posix_put(struct ufs *u, struct ufs_put *rq)
{
	static const struct posix_kind kind = {
		.work = put_work, .step = put_step, .take = put_take
	};
	struct posix_job *pj = posix_begin_change(u, &rq->req, &kind, rq->path);

	if (pj == NULL)
		return;
	posix_conditions(pj, rq->absent, rq->if_version, rq->set);
	pj->file = rq->file;
	pj->again = rq->again;
	pj->size = rq->len;
	pj->buf = malloc(MAX(1, MIN(rq->len, POSIX_CHUNK)));
	if (pj->buf == NULL) {
		posix_begin_failed(pj, -ENOMEM);
		return;
	}
	(void)put_step(pj->owner, pj);
	posix_submit(pj);
}

/* --- copy */

/* What was written before this step is waited for, so that the sync at the end is no
 * longer than a step is. */
static int copy_step(struct posix_job *pj, int src)
{
	uint64_t from = pj->at > COPY_BEHIND ? pj->at - COPY_BEHIND : 0, did = 0;
	int err = 0;

	if (pj->at < pj->size)
		err = posix_copy_some(pj, src, pj->at, pj->at, pj->size - pj->at, true, &did);
	if (err == 0 && from < pj->at)
		err = posix_sync_range(pj->fd, from, pj->at - from);
	pj->at += did;
	return err == 0 && pj->at < pj->size ? POSIX_MORE : err;
}

static int copy_work(struct posix_job *pj, int root)
{
	struct stat st;
	int src = posix_open_version(pj, root, pj->path2, pj->src_version, &st), err = 0;

	if (src < 0)
		return finish(pj, src);
	if ((uint64_t)st.st_size != pj->size)
		err = -ESTALE;
	if (err == 0 && pj->fd < 0) {
		err = posix_temp_new(pj, root, false);
		if (err == 0 && ftruncate(pj->fd, (off_t)pj->size) != 0)
			err = -errno;
	}
	if (err == 0)
		err = copy_step(pj, src);
	/* Is what was read all of one version? */
	if (err == 0)
		err = posix_version_is(src, pj->src_version);
	if (err == 0) {
		pj->set = (struct ufs_set){ .what = UFS_SET_ATIME | UFS_SET_MTIME,
			.atime = st.st_atim,
			.mtime = st.st_mtim };
		err = posix_temp_place(pj, &st);
	}
	(void)close(src);
	return finish(pj, err);
}

static void copy_take(struct posix_call *pc, struct posix_job *pj)
{
	container_of(pc->call.rq, struct ufs_copy, req)->attr = pj->attr;
}

void posix_copy(struct ufs *u, struct ufs_copy *rq)
{
	static const struct posix_kind kind = {
		.work = copy_work, .take = copy_take, .long_run = true
	};
	struct posix_job *pj = posix_begin_change(u, &rq->req, &kind, rq->dst);

	if (pj == NULL)
		return;
	pj->size = rq->size;
	pj->path2 = strdup(rq->src);
	memcpy(pj->src_version, rq->src_version, strlen(rq->src_version) + 1);
	if (pj->path2 == NULL)
		posix_begin_failed(pj, -ENOMEM);
	else if (posix_temp_in(rq->src))
		posix_begin_failed(pj, -ENOENT);
	else
		posix_submit(pj);
}
