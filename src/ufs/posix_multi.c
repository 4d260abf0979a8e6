/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * file://: uploads in parts.  The id of an upload is the name of its temporary file,
 * with the file's inode and birth, by which an end that is asked for again knows that
 * it has happened.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ufs/posix_copy.h"
#include "ufs/posix_temp.h"

/* --- ids */

static int birth(int fd, struct posix_upload *up)
{
	struct statx sx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &sx) != 0)
		return -errno;
	up->ino = sx.stx_ino;
	up->sec = up->nsec = 0;
	if (sx.stx_mask & STATX_BTIME) {
		up->sec = (uint64_t)sx.stx_btime.tv_sec;
		up->nsec = sx.stx_btime.tv_nsec;
	}
	return 0;
}

static bool id_parse(const char *id, struct posix_upload *up)
{
	size_t n = strcspn(id, ":");
	int end = 0;

	if (!posix_temp_name(id, n) || id[n] != ':' ||
	    strspn(id + n + 1, "0123456789abcdef-") != strlen(id + n + 1))
		return false;
	memcpy(up->tmp, id, n);
	up->tmp[n] = '\0';
	return sscanf(id + n + 1, "%" SCNx64 "-%" SCNx64 "-%" SCNx32 "%n", &up->ino, &up->sec,
		   &up->nsec, &end) == 3 &&
	       id[n + 1 + (size_t)end] == '\0';
}

/* A job on an upload; NULL: the request is being answered, with `err` if it is not one
 * that this storage has given out. */
static struct posix_job *begin_id(struct ufs *u, struct ufs_req *r, const struct posix_kind *kind,
    const char *path, const char *id, int err)
{
	struct posix_upload up;
	struct posix_job *pj;

	if (!id_parse(id, &up)) {
		ufs_answer_later(r, err);
		return NULL;
	}
	pj = posix_begin_change(u, r, kind, path);
	if (pj != NULL)
		pj->up = up;
	return pj;
}

/* Opens pj->dir, and pj->fd, the upload's file; -ENOENT: it is not there. */
static int upload_open(struct posix_job *pj, int root)
{
	struct posix_upload now = {.ino = 0};
	const char *name;
	int err;

	pj->dir = posix_open_parent(pj, root, pj->path, &name);
	if (pj->dir < 0)
		return pj->dir == -ENOTDIR ? -ENOENT : pj->dir;
	pj->fd = openat(pj->dir, pj->up.tmp, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (pj->fd < 0)
		return errno == ELOOP ? -ENOENT : -errno;
	err = birth(pj->fd, &now);
	if (err == 0 &&
	    (now.ino != pj->up.ino || now.sec != pj->up.sec || now.nsec != pj->up.nsec))
		err = -ENOENT;
	return err;
}

/* Leaves the upload as it is. */
static int upload_close(struct posix_job *pj, int err)
{
	if (pj->fd >= 0)
		(void)close(pj->fd);
	if (pj->dir >= 0)
		(void)close(pj->dir);
	pj->fd = pj->dir = -1;
	return err;
}

/* --- begin */

static int begin_work(struct posix_job *pj, int root)
{
	int err = posix_temp_new(pj, root, true);

	if (err == 0)
		err = birth(pj->fd, &pj->up);
	/* Its name has to be there after a power failure for the id to be of use, but then
	 * nothing more is lost than the parts. */
	if (err != 0) {
		posix_temp_drop(pj);
		return err;
	}
	(void)close(pj->fd);
	pj->fd = -1;
	return 0;
}

static void begin_take(struct posix_call *pc, struct posix_job *pj)
{
	struct ufs_multi_begin *rq = container_of(pc->call.rq, struct ufs_multi_begin, req);

	(void)snprintf(rq->id, sizeof(rq->id), "%s:%" PRIx64 "-%" PRIx64 "-%" PRIx32, pj->tmp,
	    pj->up.ino, pj->up.sec, pj->up.nsec);
	pj->tmp[0] = '\0'; /* it stays */
}

void posix_multi_begin(struct ufs *u, struct ufs_multi_begin *rq)
{
	static const struct posix_kind kind = { .work = begin_work, .take = begin_take };
	struct posix_job *pj = posix_begin_change(u, &rq->req, &kind, rq->path);

	rq->sums = false;
	if (pj == NULL)
		return;
	pj->token = rq->token;
	posix_submit(pj);
}

/* --- parts */

/* The bytes of a part are on the disk when it ends: nobody has the file open from now
 * until the next, and what the kernel fails to write meanwhile might be told to nobody. */
static int part_stepped(struct posix_job *pj, uint64_t did, int err)
{
	pj->at += did;
	if (err == 0 && pj->at < pj->size)
		return upload_close(pj, POSIX_MORE);
	if (err == 0 && pj->size > 0)
		err = posix_sync_range(pj->fd, pj->off, pj->size);
	return upload_close(pj, err);
}

static int body_work(struct posix_job *pj, int root)
{
	int err = upload_open(pj, root);

	if (err == 0)
		err = posix_pwrite_all(pj->fd, pj->buf, pj->len, pj->off + pj->at);
	return part_stepped(pj, pj->len, err);
}

static int body_step(struct posix_call *pc, struct posix_job *pj)
{
	const struct ufs_part *rq = container_of(pc->call.rq, struct ufs_part, req);

	pj->len = MIN(rq->len - pj->at, POSIX_CHUNK);
	if (pj->len > 0)
		memcpy(pj->buf, (const char *)rq->body + pj->at, pj->len);
	return 0;
}

static int copied_work(struct posix_job *pj, int root)
{
	struct stat st;
	uint64_t did = 0;
	int err = upload_open(pj, root), src;

	if (err != 0)
		return upload_close(pj, err);
	src = posix_open_version(pj, root, pj->path2, pj->src_version, &st);
	if (src < 0)
		return upload_close(pj, src);
	err = posix_copy_some(pj, src, pj->src_off + pj->at, pj->off + pj->at,
	    pj->size - pj->at, false, &did);
	if (err == 0)
		err = posix_version_is(src, pj->src_version);
	(void)close(src);
	return part_stepped(pj, did, err);
}

/* The place and length are what tells one part's content from another's here. */
static void part_take(struct posix_call *pc, struct posix_job *pj)
{
	struct ufs_part *rq = container_of(pc->call.rq, struct ufs_part, req);

	(void)snprintf(rq->etag, sizeof(rq->etag), "%" PRIx64 "-%" PRIx64, pj->off, pj->size);
}

void posix_part(struct ufs *u, struct ufs_part *rq)
{
	static const struct posix_kind body = {
		.work = body_work, .step = body_step, .take = part_take
	};
	static const struct posix_kind copied = {
		.work = copied_work, .take = part_take, .long_run = true
	};
	bool copy = rq->body == NULL && rq->len > 0;
	struct posix_job *pj =
	    begin_id(u, &rq->req, copy ? &copied : &body, rq->path, rq->id, -ENOENT);

	if (pj == NULL)
		return;
	pj->off = rq->off;
	pj->size = rq->len;
	if (copy) {
		pj->path2 = strdup(rq->src_path);
		memcpy(pj->src_version, rq->src_version, strlen(rq->src_version) + 1);
		pj->src_off = rq->src_off;
	} else {
		pj->buf = malloc(MAX(1, MIN(rq->len, POSIX_CHUNK)));
		if (pj->buf != NULL)
			(void)body_step(pj->owner, pj);
	}
	if (copy ? pj->path2 == NULL : pj->buf == NULL)
		posix_begin_failed(pj, -ENOMEM);
	else if (copy && posix_temp_in(rq->src_path))
		posix_begin_failed(pj, -ESTALE);
	else
		posix_submit(pj);
}

/* --- end */

/* Is what is at the path what this upload has made? */
static int ended_before(struct posix_job *pj, int root)
{
	struct posix_upload is = {.ino = 0};
	struct stat st;
	int fd = posix_open_at(pj, root, pj->path, O_PATH), err;

	if (fd < 0)
		return -ENOENT;
	err = birth(fd, &is) == 0 && is.ino == pj->up.ino && is.sec == pj->up.sec &&
		      is.nsec == pj->up.nsec && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
		      (uint64_t)st.st_size == pj->size
		  ? 0
		  : -ENOENT;
	(void)close(fd);
	if (err == 0)
		(void)posix_attr(&st, &pj->attr);
	return err;
}

/* Parts that were sent and are not wanted any more lie behind the end. */
static int size_set(struct posix_job *pj)
{
	struct stat st;

	if (fstat(pj->fd, &st) != 0)
		return -errno;
	if ((uint64_t)st.st_size < pj->size)
		return -EINVAL;
	if ((uint64_t)st.st_size > pj->size && ftruncate(pj->fd, (off_t)pj->size) != 0)
		return -errno;
	return 0;
}

static int end_work(struct posix_job *pj, int root)
{
	int err = upload_open(pj, root);

	if (err == -ENOENT) {
		(void)upload_close(pj, 0);
		return ended_before(pj, root);
	}
	if (err == 0)
		err = size_set(pj);
	if (err == 0) {
		memcpy(pj->tmp, pj->up.tmp, sizeof(pj->tmp));
		err = posix_temp_place(pj, NULL);
		pj->tmp[0] = '\0'; /* it stays for another try */
	}
	return upload_close(pj, err);
}

static void end_take(struct posix_call *pc, struct posix_job *pj)
{
	container_of(pc->call.rq, struct ufs_multi_end, req)->attr = pj->attr;
}

void posix_multi_end(struct ufs *u, struct ufs_multi_end *rq)
{
	static const struct posix_kind kind = { .work = end_work, .take = end_take };
	struct posix_job *pj = begin_id(u, &rq->req, &kind, rq->path, rq->id, -ENOENT);

	if (pj == NULL)
		return;
	posix_conditions(pj, rq->absent, rq->if_version, rq->set);
	pj->file = rq->file;
	pj->again = rq->again;
	for (unsigned i = 0; i < rq->nparts; i++)
		pj->size += rq->parts[i].len;
	posix_submit(pj);
}

/* --- abort */

static int abort_work(struct posix_job *pj, int root)
{
	int err = upload_open(pj, root);

	if (err == 0 && unlinkat(pj->dir, pj->up.tmp, 0) != 0 && errno != ENOENT)
		err = -errno;
	return upload_close(pj, err == -ENOENT ? 0 : err);
}

void posix_multi_abort(struct ufs *u, struct ufs_multi_abort *rq)
{
	static const struct posix_kind kind = { .work = abort_work };
	struct posix_job *pj = begin_id(u, &rq->req, &kind, rq->path, rq->id, 0);

	if (pj != NULL)
		posix_submit(pj);
}

/* --- sweep */

static int sweep_work(struct posix_job *pj, int root)
{
	const char *name;
	int err;

	pj->dir = posix_open_parent(pj, root, pj->path, &name);
	if (pj->dir < 0)
		return pj->dir == -ENOENT || pj->dir == -ENOTDIR ? 0 : pj->dir;
	if (unlinkat(pj->dir, pj->up.tmp, 0) == 0) {
		pj->n = 1;
		err = posix_sync_dir(pj->dir);
	} else {
		err = errno == ENOENT ? 0 : -errno;
	}
	return upload_close(pj, err);
}

static void sweep_take(struct posix_call *pc, struct posix_job *pj)
{
	container_of(pc->call.rq, struct ufs_multi_sweep, req)->found = pj->n;
}

void posix_multi_sweep(struct ufs *u, struct ufs_multi_sweep *rq)
{
	static const struct posix_kind kind = { .work = sweep_work, .take = sweep_take };
	char tmp[POSIX_TMP_MAX];
	struct posix_job *pj;
	bool keep = rq->token == 0;

	posix_temp_text(tmp, rq->token);
	for (unsigned i = 0; i < rq->nkeep && !keep; i++)
		keep = strncmp(rq->keep[i], tmp, strlen(tmp)) == 0;
	if (keep) {
		ufs_answer_later(&rq->req, 0);
		return;
	}
	pj = posix_begin_change(u, &rq->req, &kind, rq->path);
	if (pj == NULL)
		return;
	memcpy(pj->up.tmp, tmp, sizeof(tmp));
	posix_submit(pj);
}
