/* SPDX-License-Identifier: BSD-2-Clause */
/* file://: attaching, and the requests that read. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/options.h"
#include "ufs/posix_temp.h"

#define POSIX_OF(u) container_of(u, struct posix, ufs)

/* --- in the pool */

static int stat_work(struct posix_job *pj, int root)
{
	struct stat st;
	int fd = posix_open_at(pj, root, pj->path, O_PATH), err;

	if (fd < 0)
		return fd;
	err = fstat(fd, &st) == 0 ? 0 : -errno;
	if (err == 0 && !posix_attr(&st, &pj->attr))
		err = -ENOENT;
	pj->mine = err == 0 && posix_mark_is(pj, fd, &st);
	(void)close(fd);
	return err;
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
	struct stat st;
	int fd = posix_open_version(pj, root, pj->path, pj->version, &st), err, after;

	if (fd < 0)
		return fd;
	err = pread_all(pj, fd);
	after = posix_version_is(fd, pj->version);
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

static int statfs_work(struct posix_job *pj, int root)
{
	struct statvfs sv;

	if (fstatvfs(root, &sv) != 0)
		return -errno;
	pj->space.total = (uint64_t)sv.f_blocks * sv.f_frsize;
	pj->space.free = (uint64_t)sv.f_bavail * sv.f_frsize;
	return 0;
}

/* --- on the loop */

static void stat_take(struct posix_call *pc, struct posix_job *pj)
{
	struct ufs_stat *rq = container_of(pc->call.rq, struct ufs_stat, req);

	rq->attr = pj->attr;
	rq->mine = pj->mine;
}

static void list_take(struct posix_call *pc, struct posix_job *pj)
{
	struct ufs_list *rq = container_of(pc->call.rq, struct ufs_list, req);

	rq->more = pj->more;
	rq->exists = true;
	/* Each page sees all of them: count them once. */
	if (pj->after == NULL)
		COUNT(rq->req.ufs->env.loop, UFS_HIDDEN, pj->hidden);
	ufs_page_give(&pj->page, rq);
	rq->cursor = pj->cursor;
	pj->cursor = NULL;
}

/* Gives a chunk to the user and asks for the next; the job is used again. */
static void read_deliver(struct posix_call *pc, struct posix_job *pj)
{
	struct ufs_read *rq = container_of(pc->call.rq, struct ufs_read, req);
	size_t n = pj->len;

	pc->got += n;
	pc->in_callback = true;
	rq->on_data(rq, pj->buf, n);
	pc->in_callback = false;
	if (pc->aborted) {
		posix_call_left(pc, pj);
		return;
	}
	if (pc->got == rq->len) {
		posix_delivered(pc, pj);
		return;
	}
	pj->off += n;
	pj->len = MIN(rq->len - pc->got, POSIX_CHUNK);
	posix_submit(pj);
}

static void check_failed(struct posix_call *pc, int err)
{
	struct ufs_check *rq = container_of(pc->call.rq, struct ufs_check, req);

	(void)errtext_set(&rq->et, err, "storage %s: open directory: %s", pc->call.rq->ufs->uri,
	    strerror(-err));
}

static void statfs_take(struct posix_call *pc, struct posix_job *pj)
{
	container_of(pc->call.rq, struct ufs_statfs, req)->space = pj->space;
}

static void posix_stat(struct ufs *u, struct ufs_stat *rq)
{
	static const struct posix_kind kind = { .work = stat_work, .take = stat_take };
	struct posix_job *pj = posix_begin(u, &rq->req, &kind, rq->path);

	rq->mine = false;
	if (pj == NULL)
		return;
	pj->file = rq->file;
	posix_submit(pj);
}

static void posix_list(struct ufs *u, struct ufs_list *rq, const char *after)
{
	static const struct posix_kind kind = { .work = posix_list_work, .take = list_take };
	struct posix_job *pj = posix_begin(u, &rq->req, &kind, rq->path);

	if (pj == NULL)
		return;
	pj->after = after != NULL ? strdup(after) : NULL;
	pj->after_kind = rq->after_kind;
	if (after != NULL && pj->after == NULL) {
		posix_begin_failed(pj, -ENOMEM);
		return;
	}
	posix_list_cursor(pj, rq);
	posix_submit(pj);
}

static void posix_read(struct ufs *u, struct ufs_read *rq)
{
	static const struct posix_kind kind = { .work = read_work, .deliver = read_deliver };
	struct posix_job *pj = posix_begin(u, &rq->req, &kind, rq->path);

	if (pj == NULL)
		return;
	memcpy(pj->version, rq->version, strlen(rq->version) + 1);
	pj->off = rq->off;
	pj->len = MIN(rq->len, POSIX_CHUNK);
	pj->buf = malloc(pj->len);
	if (pj->buf == NULL)
		posix_begin_failed(pj, -ENOMEM);
	else
		posix_submit(pj);
}

static void posix_check(struct ufs *u, struct ufs_check *rq)
{
	static const struct posix_kind kind = {
		.work = check_work, .failed = check_failed, .root_may_miss = true
	};
	struct posix_job *pj = posix_begin(u, &rq->req, &kind, "");

	if (pj != NULL)
		posix_submit(pj);
}

static void posix_statfs(struct ufs *u, struct ufs_statfs *rq)
{
	static const struct posix_kind kind = { .work = statfs_work, .take = statfs_take };
	struct posix_job *pj = posix_begin(u, &rq->req, &kind, "");

	if (pj != NULL)
		posix_submit(pj);
}

/* --- attaching */

static void posix_free(struct ufs *u)
{
	struct posix *px = POSIX_OF(u);

	if (px->lanes != NULL)
		posix_lanes_unref(px->lanes);
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
	.put = posix_put,
	.multi_begin = posix_multi_begin,
	.part = posix_part,
	.multi_end = posix_multi_end,
	.multi_abort = posix_multi_abort,
	.multi_sweep = posix_multi_sweep,
	.copy = posix_copy,
	.del = posix_delete,
	.mkdir = posix_mkdir,
	.rmdir = posix_rmdir,
	.rename = posix_rename,
	.setattr = posix_setattr,
};

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
	px->ufs.can = UFS_CAN_RENAME | UFS_CAN_SETATTR | UFS_CAN_ABSENT;
	px->ufs.env = *env;
	px->root = strndup(rest, n);
	px->lanes = posix_lanes_new(env->cfg->pool_threads);
	if (px->root == NULL || px->lanes == NULL ||
	    asprintf(&px->ufs.uri, "file://%s", px->root) < 0) {
		px->ufs.uri = NULL;
		posix_free(&px->ufs);
		return errtext_set(et, -ENOMEM, "out of memory");
	}
	*out = &px->ufs;
	return 0;
}
