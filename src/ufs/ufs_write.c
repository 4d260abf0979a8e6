/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The writing half of the door: checks that hold for every storage.  One that has no
 * function for a request is not written to.
 */
#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "ufs/ufs_priv.h"

unsigned ufs_can(const struct ufs *u)
{
	return u->can;
}

/* Of a thing that is made, changed or removed: never the root. */
static int path_check(const char *path)
{
	return *path == '\0' ? -EINVAL : ufs_path_check(path);
}

static int version_check(const char *version)
{
	return *version == '\0' || strlen(version) >= UFS_VERSION_MAX ? -EINVAL : 0;
}

/* Nothing can be absent and be this version. */
static int condition_check(bool absent, const char *if_version)
{
	if (if_version == NULL)
		return 0;
	return absent ? -EINVAL : version_check(if_version);
}

static int id_check(const char *id)
{
	return *id == '\0' || strlen(id) >= UFS_UPLOAD_MAX ? -EINVAL : 0;
}

static int extent_check(uint64_t off, uint64_t len)
{
	return off > INT64_MAX || len > (uint64_t)INT64_MAX - off ? -EINVAL : 0;
}

void ufs_put(struct ufs *u, struct ufs_put *rq, void (*done)(struct ufs_req *r, int err))
{
	int err;

	ufs_req_begin(u, &rq->req, done);
	memset(&rq->attr, 0, sizeof(rq->attr));
	err = path_check(rq->path);
	if (err == 0)
		err = condition_check(rq->absent, rq->if_version);
	if (err == 0 && rq->len > UFS_PART_MAX)
		err = -EINVAL;
	if (err == 0)
		err = u->ops->put != NULL ? FAULT("ufs.put") : -EROFS;
	if (err == 0)
		u->ops->put(u, rq);
	else
		ufs_answer_later(&rq->req, err);
}

void ufs_multi_begin(
    struct ufs *u, struct ufs_multi_begin *rq, void (*done)(struct ufs_req *r, int err))
{
	int err;

	ufs_req_begin(u, &rq->req, done);
	rq->id[0] = '\0';
	rq->repeated = false;
	err = path_check(rq->path);
	if (err == 0)
		err = u->ops->multi_begin != NULL ? FAULT("ufs.multi.begin") : -EROFS;
	if (err == 0)
		u->ops->multi_begin(u, rq);
	else
		ufs_answer_later(&rq->req, err);
}

static int part_check(const struct ufs_part *rq)
{
	int err;

	if (rq->number < 1 || rq->number > UFS_PARTS_MAX || rq->len > UFS_PART_MAX)
		return -EINVAL;
	err = extent_check(rq->off, rq->len);
	if (err != 0 || rq->body != NULL)
		return err;
	if (rq->src_path == NULL) /* no bytes are a body too */
		return rq->len == 0 ? 0 : -EINVAL;
	if (rq->len == 0)
		return -EINVAL;
	err = path_check(rq->src_path);
	if (err == 0)
		err = rq->src_version != NULL ? version_check(rq->src_version) : -EINVAL;
	return err == 0 ? extent_check(rq->src_off, rq->len) : err;
}

void ufs_part(struct ufs *u, struct ufs_part *rq, void (*done)(struct ufs_req *r, int err))
{
	int err;

	ufs_req_begin(u, &rq->req, done);
	rq->etag[0] = '\0';
	err = path_check(rq->path);
	if (err == 0)
		err = id_check(rq->id);
	if (err == 0)
		err = part_check(rq);
	if (err == 0)
		err = u->ops->part != NULL ? FAULT("ufs.part") : -EROFS;
	if (err == 0)
		u->ops->part(u, rq);
	else
		ufs_answer_later(&rq->req, err);
}

static int parts_check(const struct ufs_part_id *parts, unsigned n)
{
	unsigned last = 0;
	uint64_t size = 0;

	if (n == 0 || n > UFS_PARTS_MAX)
		return -EINVAL;
	for (unsigned i = 0; i < n; i++) {
		const struct ufs_part_id *p = &parts[i];

		if (p->number <= last || p->number > UFS_PARTS_MAX ||
		    version_check(p->etag) != 0 || extent_check(size, p->len) != 0)
			return -EINVAL;
		last = p->number;
		size += p->len;
	}
	return 0;
}

void ufs_multi_end(
    struct ufs *u, struct ufs_multi_end *rq, void (*done)(struct ufs_req *r, int err))
{
	int err;

	ufs_req_begin(u, &rq->req, done);
	memset(&rq->attr, 0, sizeof(rq->attr));
	err = path_check(rq->path);
	if (err == 0)
		err = id_check(rq->id);
	if (err == 0)
		err = condition_check(rq->absent, rq->if_version);
	if (err == 0)
		err = parts_check(rq->parts, rq->nparts);
	if (err == 0)
		err = u->ops->multi_end != NULL ? FAULT("ufs.multi.end") : -EROFS;
	if (err == 0)
		u->ops->multi_end(u, rq);
	else
		ufs_answer_later(&rq->req, err);
}

void ufs_multi_abort(
    struct ufs *u, struct ufs_multi_abort *rq, void (*done)(struct ufs_req *r, int err))
{
	int err;

	ufs_req_begin(u, &rq->req, done);
	err = path_check(rq->path);
	if (err == 0)
		err = id_check(rq->id);
	if (err == 0)
		err = u->ops->multi_abort != NULL ? FAULT("ufs.multi.abort") : -EROFS;
	if (err == 0)
		u->ops->multi_abort(u, rq);
	else
		ufs_answer_later(&rq->req, err);
}

void ufs_multi_sweep(
    struct ufs *u, struct ufs_multi_sweep *rq, void (*done)(struct ufs_req *r, int err))
{
	int err;

	ufs_req_begin(u, &rq->req, done);
	rq->found = 0;
	err = path_check(rq->path);
	for (unsigned i = 0; err == 0 && i < rq->nkeep; i++)
		err = id_check(rq->keep[i]);
	if (err == 0)
		err = u->ops->multi_sweep != NULL ? FAULT("ufs.multi.sweep") : -EROFS;
	if (err == 0)
		u->ops->multi_sweep(u, rq);
	else
		ufs_answer_later(&rq->req, err);
}

void ufs_copy(struct ufs *u, struct ufs_copy *rq, void (*done)(struct ufs_req *r, int err))
{
	int err;

	ufs_req_begin(u, &rq->req, done);
	memset(&rq->attr, 0, sizeof(rq->attr));
	rq->id[0] = '\0';
	rq->repeated = rq->gone = false;
	err = path_check(rq->src);
	if (err == 0)
		err = path_check(rq->dst);
	/* Onto itself it would be no copy, and storage refuses it. */
	if (err == 0 && strcmp(rq->src, rq->dst) == 0)
		err = -EINVAL;
	if (err == 0)
		err = rq->src_version != NULL ? version_check(rq->src_version) : -EINVAL;
	if (err == 0)
		err = extent_check(0, rq->size);
	if (err == 0)
		err = u->ops->copy != NULL ? FAULT("ufs.copy") : -EROFS;
	if (err == 0)
		u->ops->copy(u, rq);
	else
		ufs_answer_later(&rq->req, err);
}

void ufs_delete(struct ufs *u, struct ufs_delete *rq, void (*done)(struct ufs_req *r, int err))
{
	unsigned good = 0;
	int err;

	ufs_req_begin(u, &rq->req, done);
	err = rq->n > UFS_DELETE_MAX ? -EINVAL : 0;
	for (unsigned i = 0; err == 0 && i < rq->n; i++) {
		rq->errs[i] = path_check(rq->paths[i]);
		good += rq->errs[i] == 0;
	}
	if (err == 0)
		err = u->ops->del != NULL ? FAULT("ufs.delete") : -EROFS;
	if (err == 0 && good > 0)
		u->ops->del(u, rq);
	else
		ufs_answer_later(&rq->req, err);
}

void ufs_mkdir(struct ufs *u, struct ufs_mkdir *rq, void (*done)(struct ufs_req *r, int err))
{
	int err;

	ufs_req_begin(u, &rq->req, done);
	memset(&rq->attr, 0, sizeof(rq->attr));
	err = path_check(rq->path);
	if (err == 0)
		err = u->ops->mkdir != NULL ? FAULT("ufs.mkdir") : -EROFS;
	if (err == 0)
		u->ops->mkdir(u, rq);
	else
		ufs_answer_later(&rq->req, err);
}

void ufs_rmdir(struct ufs *u, struct ufs_rmdir *rq, void (*done)(struct ufs_req *r, int err))
{
	int err;

	ufs_req_begin(u, &rq->req, done);
	err = path_check(rq->path);
	if (err == 0)
		err = u->ops->rmdir != NULL ? FAULT("ufs.rmdir") : -EROFS;
	if (err == 0)
		u->ops->rmdir(u, rq);
	else
		ufs_answer_later(&rq->req, err);
}

/* What a storage that is written to cannot do by itself. */
static int unable(const struct ufs *u)
{
	return u->ops->put != NULL ? -EOPNOTSUPP : -EROFS;
}

void ufs_rename(struct ufs *u, struct ufs_rename *rq, void (*done)(struct ufs_req *r, int err))
{
	int err;

	ufs_req_begin(u, &rq->req, done);
	memset(&rq->attr, 0, sizeof(rq->attr));
	err = path_check(rq->src);
	if (err == 0)
		err = path_check(rq->dst);
	if (err == 0)
		err = u->ops->rename != NULL ? FAULT("ufs.rename") : unable(u);
	if (err == 0)
		u->ops->rename(u, rq);
	else
		ufs_answer_later(&rq->req, err);
}

void ufs_setattr(struct ufs *u, struct ufs_setattr *rq, void (*done)(struct ufs_req *r, int err))
{
	int err;

	ufs_req_begin(u, &rq->req, done);
	memset(&rq->attr, 0, sizeof(rq->attr));
	err = ufs_path_check(rq->path); /* the root has attributes too */
	if (err == 0)
		err = u->ops->setattr != NULL ? FAULT("ufs.setattr") : unable(u);
	if (err == 0)
		u->ops->setattr(u, rq);
	else
		ufs_answer_later(&rq->req, err);
}
