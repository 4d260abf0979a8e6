/* SPDX-License-Identifier: BSD-2-Clause */
/* file://: names and attributes. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ufs/posix_temp.h"

#define DELETE_STEP 64u

/* Opens pj->dir for the last component of the job's path. */
static int parent(struct posix_job *pj, int root, const char **name)
{
	pj->dir = posix_open_parent(pj, root, pj->path, name);
	return pj->dir < 0 ? pj->dir : 0;
}

/* A file or directory in a directory; -ENOENT also for what listings leave out. */
static int look(int dir, const char *name, struct ufs_attr *attr)
{
	struct stat st;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return -errno;
	return posix_attr(&st, attr) ? 0 : -ENOENT;
}

/* --- delete */

static int delete_one(struct posix_job *pj, int root, const char *path)
{
	struct ufs_attr attr = {.kind = UFS_FILE};
	const char *name;
	int dir, err;

	if (posix_temp_in(path))
		return 0;
	dir = posix_open_parent(pj, root, path, &name);
	err = dir < 0 ? dir : look(dir, name, &attr);
	if (err == 0 && attr.kind == UFS_DIR)
		err = -EISDIR;
	if (err == 0 && unlinkat(dir, name, 0) != 0)
		err = -errno;
	if (dir >= 0 && (err == 0 || err == -ENOENT))
		posix_temp_forget(pj, dir, name);
	if (dir >= 0)
		(void)close(dir);
	if (err == -ENOENT || err == -ENOTDIR)
		return 0;
	return err == -EPERM ? -EACCES : err;
}

static int delete_work(struct posix_job *pj, int root)
{
	unsigned end = MIN((unsigned)pj->at + DELETE_STEP, pj->n);

	for (unsigned i = (unsigned)pj->at; i < end && !atomic_load(&pj->left); i++)
		if (pj->errs[i] == 0)
			pj->errs[i] = delete_one(pj, root, pj->names[i]);
	pj->at = end;
	return end < pj->n ? POSIX_MORE : 0;
}

static void delete_take(struct posix_call *pc, struct posix_job *pj)
{
	struct ufs_delete *rq = container_of(pc->call.rq, struct ufs_delete, req);

	memcpy(rq->errs, pj->errs, pj->n * sizeof(*pj->errs));
}

/* The thread has its own copy of the paths: it may be late. */
static int names_copy(struct posix_job *pj, const struct ufs_delete *rq)
{
	size_t bytes = rq->n * sizeof(*pj->names);
	char *p;

	for (unsigned i = 0; i < rq->n; i++)
		bytes += strlen(rq->paths[i]) + 1;
	pj->names = malloc(bytes);
	pj->errs = calloc(MAX(rq->n, 1u), sizeof(*pj->errs));
	if (pj->names == NULL || pj->errs == NULL)
		return -ENOMEM;
	p = (char *)&pj->names[rq->n];
	for (unsigned i = 0; i < rq->n; i++) {
		pj->names[i] = p;
		pj->errs[i] = rq->errs[i];
		p = stpcpy(p, rq->paths[i]) + 1;
	}
	pj->n = rq->n;
	return 0;
}

void posix_delete(struct ufs *u, struct ufs_delete *rq)
{
	static const struct posix_kind kind = {
		.work = delete_work, .take = delete_take, .long_run = true
	};
	struct posix_job *pj = posix_begin(u, &rq->req, &kind, "");

	if (pj == NULL)
		return;
	if (names_copy(pj, rq) != 0)
		posix_begin_failed(pj, -ENOMEM);
	else
		posix_submit(pj);
}

/* --- mkdir, rmdir */

static int mkdir_attrs(struct posix_job *pj, const char *name)
{
	struct ufs_set set = pj->set;
	struct stat st;
	int fd = openat(pj->dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	if (!(set.what & UFS_SET_MODE)) {
		set.what |= UFS_SET_MODE;
		set.mode = 0755;
	}
	err = fstat(fd, &st) == 0 ? 0 : -errno;
	set.mode |= st.st_mode & S_ISGID; /* inherited */
	if (err == 0)
		err = posix_set_apply(fd, &st, &set);
	if (err == 0 && fstat(fd, &st) != 0)
		err = -errno;
	(void)close(fd);
	if (err == 0)
		(void)posix_attr(&st, &pj->attr);
	return err;
}

static int mkdir_work(struct posix_job *pj, int root)
{
	const char *name;
	int err = parent(pj, root, &name);

	if (err == 0 && mkdirat(pj->dir, name, 0700) != 0)
		err = -errno;
	else if (err == 0) {
		err = mkdir_attrs(pj, name);
		if (err != 0)
			(void)unlinkat(pj->dir, name, AT_REMOVEDIR);
	}
	return err;
}

static void mkdir_take(struct posix_call *pc, struct posix_job *pj)
{
	container_of(pc->call.rq, struct ufs_mkdir, req)->attr = pj->attr;
}

void posix_mkdir(struct ufs *u, struct ufs_mkdir *rq)
{
	static const struct posix_kind kind = { .work = mkdir_work, .take = mkdir_take };
	struct posix_job *pj = posix_begin_change(u, &rq->req, &kind, rq->path);

	if (pj == NULL)
		return;
	posix_conditions(pj, false, NULL, rq->set);
	posix_submit(pj);
}

static int rmdir_work(struct posix_job *pj, int root)
{
	const char *name;
	int err = parent(pj, root, &name);

	for (int tries = 0; err == 0 && tries < 2; tries++) {
		if (unlinkat(pj->dir, name, AT_REMOVEDIR) == 0)
			return 0;
		if (errno != ENOTEMPTY && errno != EEXIST)
			return -errno;
		/* Left-over uploads, which nobody sees, do not hold a directory. */
		if (tries > 0 || posix_temp_sweep(pj->dir, name) <= 0)
			err = -ENOTEMPTY;
	}
	return err;
}

void posix_rmdir(struct ufs *u, struct ufs_rmdir *rq)
{
	static const struct posix_kind kind = { .work = rmdir_work };
	struct posix_job *pj = posix_begin_change(u, &rq->req, &kind, rq->path);

	if (pj != NULL)
		posix_submit(pj);
}

/* --- rename */

static int rename_once(struct posix_job *pj, const char *name, int to, const char *to_name)
{
	struct stat st;

	if (renameat2(pj->dir, name, to, to_name, pj->noreplace ? RENAME_NOREPLACE : 0) == 0)
		return 0;
	/* EINVAL is "into itself" as well. */
	if (!pj->noreplace || (errno != EINVAL && errno != ENOSYS))
		return errno == EEXIST && !pj->noreplace ? -ENOTEMPTY : -errno;
	if (fstatat(to, to_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return -EEXIST;
	return renameat(pj->dir, name, to, to_name) == 0 ? 0 : -errno;
}

/* What no listing shows is not silently replaced. */
static int rename_check(struct posix_job *pj, const char *name, int to, const char *to_name)
{
	struct ufs_attr attr;
	struct stat st;
	int err = look(pj->dir, name, &attr);

	if (err != 0)
		return err;
	if (fstatat(to, to_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !posix_attr(&st, &attr))
		return -EEXIST;
	return 0;
}

static int rename_work(struct posix_job *pj, int root)
{
	const char *name, *to_name;
	int err = parent(pj, root, &name), to;

	if (err != 0)
		return err;
	to = posix_open_parent(pj, root, pj->path2, &to_name);
	if (to < 0)
		return to;
	err = rename_check(pj, name, to, to_name);
	if (err == 0)
		err = rename_once(pj, name, to, to_name);
	if (err == -ENOTEMPTY && posix_temp_sweep(to, to_name) > 0)
		err = rename_once(pj, name, to, to_name);
	if (err == 0)
		posix_temp_forget(pj, pj->dir, name);
	/* The new name first: after a power failure there are rather two than none. */
	if (err == 0)
		err = posix_sync_dir(to);
	if (err == 0)
		err = posix_sync_dir(pj->dir);
	if (err == 0)
		err = look(to, to_name, &pj->attr);
	(void)close(to);
	return err;
}

static void rename_take(struct posix_call *pc, struct posix_job *pj)
{
	container_of(pc->call.rq, struct ufs_rename, req)->attr = pj->attr;
}

void posix_rename(struct ufs *u, struct ufs_rename *rq)
{
	static const struct posix_kind kind = { .work = rename_work, .take = rename_take };
	struct posix_job *pj;

	if (posix_temp_in(rq->dst)) {
		ufs_answer_later(&rq->req, -EINVAL);
		return;
	}
	pj = posix_begin(u, &rq->req, &kind, rq->src);
	if (pj == NULL)
		return;
	pj->path2 = strdup(rq->dst);
	pj->noreplace = rq->noreplace;
	if (pj->path2 == NULL)
		posix_begin_failed(pj, -ENOMEM);
	else
		posix_submit(pj);
}

/* --- setattr */

static int setattr_work(struct posix_job *pj, int root)
{
	struct stat st;
	int fd = posix_open_at(pj, root, pj->path, O_PATH), err;

	if (fd < 0)
		return fd;
	err = fstat(fd, &st) == 0 ? 0 : -errno;
	if (err == 0 && !posix_attr(&st, &pj->attr))
		err = -ENOENT;
	if (err == 0)
		err = posix_set_apply(fd, &st, &pj->set);
	if (err == 0 && fstat(fd, &st) != 0)
		err = -errno;
	(void)close(fd);
	if (err == 0)
		(void)posix_attr(&st, &pj->attr);
	return err;
}

static void setattr_take(struct posix_call *pc, struct posix_job *pj)
{
	container_of(pc->call.rq, struct ufs_setattr, req)->attr = pj->attr;
}

void posix_setattr(struct ufs *u, struct ufs_setattr *rq)
{
	static const struct posix_kind kind = { .work = setattr_work, .take = setattr_take };
	struct posix_job *pj = posix_begin_change(u, &rq->req, &kind, rq->path);

	if (pj == NULL)
		return;
	posix_conditions(pj, false, NULL, rq->set);
	posix_submit(pj);
}
