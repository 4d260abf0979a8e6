/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "ops/handle.h"
#include "ops/op.h"
#include "ops/requests.h"

/* --- OPEN */
struct op_open {
	struct op op;
	struct ufs_stat stat;
	int result;
	uint64_t node;
	struct fuse_file_info fi;
	char path[UFS_PATH_MAX + 1];
};

enum { OPN_ASK, OPN_ANSWER };

/* The node id has one content, so the kernel's pages of it stay right; and a
 * handle for reading has nothing to flush. */
static int open_make(
    struct fs *fs, const struct node *n, const char *path, struct fuse_file_info *fi)
{
	struct handle *h;
	int err = handle_open(fs, n, path, &h);

	if (err != 0)
		return err;
	fi->fh = h->id;
	fi->keep_cache = 1;
	fi->noflush = 1;
	return 0;
}

static void opn_done(struct ufs_req *r, int err)
{
	struct op_open *oo = r->user;

	oo->result = err;
	task_resume(&oo->op.task);
}

static void opn_leave(struct task *t)
{
	ufs_abort(&OP_OF(t, op_open)->stat.req);
}

static enum task_next opn_ask(struct task *t)
{
	struct op_open *oo = OP_OF(t, op_open);
	struct fs *fs = oo->op.fs;

	if (task_err(t) != 0)
		return op_fail(&oo->op, task_err(t));
	oo->stat.path = oo->path;
	oo->stat.req.user = oo;
	ufs_stat(fs->ufs, &oo->stat, opn_done);
	return task_wait(t, OPN_ANSWER, opn_leave);
}

static enum task_next opn_answer(struct task *t)
{
	struct op_open *oo = OP_OF(t, op_open);
	struct fs *fs = oo->op.fs;
	struct node n;
	int err = task_err(t);
	bool gone = oo->result == -ENOENT;

	if (err == 0 && !gone)
		err = oo->result;
	if (err == 0) {
		err = node_load(fs, oo->node, &n);
		err = err == -ENOENT ? -ESTALE : err;
	}
	/* ESTALE for another version: the kernel looks the name up again by itself. */
	if (err == 0)
		err = node_refresh(fs, &n, gone ? NULL : &oo->stat.attr);
	if (err == 0)
		err = open_make(fs, &n, oo->path, &oo->fi);
	if (err != 0)
		return op_fail(&oo->op, err);
	fuse_reply_open(op_take(&oo->op), &oo->fi);
	return task_end(t);
}

static void opn_fini(struct task *t)
{
	op_free(&OP_OF(t, op_open)->op);
}

static const struct task_step opn_steps[] = {
    [OPN_ASK] = {"ask", opn_ask, TO(OPN_ANSWER)},
    [OPN_ANSWER] = {"answer", opn_answer, 0},
};
static const struct task_kind opn_kind = {"open", opn_steps, ARRAY_LEN(opn_steps), opn_fini};

static int open_check(struct fs *fs, fuse_ino_t ino, int flags, struct node *n, char *path)
{
	int err;

	if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0)
		return -EROFS;
	err = node_load(fs, ino, n);
	if (err != 0)
		return err == -ENOENT ? -ESTALE : err;
	if (n->kind == UFS_DIR)
		return -EISDIR;
	if ((n->flags & NODE_REPLACED) != 0)
		return -ESTALE;
	return node_path(fs, ino, path);
}

void file_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	char path[UFS_PATH_MAX + 1];
	struct op_open *oo;
	struct node n;
	int err = open_check(fs, ino, fi->flags, &n, path);

	if (err == 0 && node_fresh(fs, &n)) {
		err = open_make(fs, &n, path, fi);
		if (err == 0) {
			fuse_reply_open(req, fi);
			return;
		}
	}
	if (err != 0) {
		fuse_reply_err(req, op_errno(err));
		return;
	}
	oo = op_new(fs, req, sizeof(*oo));
	if (oo == NULL)
		return;
	oo->op.opening = true;
	oo->node = ino;
	oo->fi = *fi;
	memcpy(oo->path, path, strlen(path) + 1);
	op_run(&oo->op, &opn_kind);
}

/* --- READ */
struct op_read {
	struct op op;
	struct cache_read rd;
	struct handle *h; /* used */
	int result;
	bool got; /* rd holds buffers */
};

enum { RD_FETCH, RD_ANSWER };

static void rd_send(struct fs *fs, fuse_req_t req, struct cache_read *rd)
{
	if (fuse_chan_reply_data(fs->chan, req, rd->iov, (int)rd->niov) == 0)
		COUNT(fs->env.loop, FUSE_READ_BYTES, rd->got);
	cache_read_release(rd);
}

static void rd_done(struct cache_read *r, int err)
{
	struct op_read *rd = r->user;

	rd->result = err;
	rd->got = err == 0;
	task_resume(&rd->op.task);
}

static void rd_leave(struct task *t)
{
	struct op_read *rd = OP_OF(t, op_read);

	cache_read_abort(&rd->rd);
}

static enum task_next rd_fetch(struct task *t)
{
	struct op_read *rd = OP_OF(t, op_read);

	if (task_err(t) != 0)
		return op_fail(&rd->op, task_err(t));
	cache_read_start(&rd->rd);
	return task_wait(t, RD_ANSWER, rd_leave);
}

static enum task_next rd_answer(struct task *t)
{
	struct op_read *rd = OP_OF(t, op_read);
	struct fs *fs = rd->op.fs;
	int err = task_err(t);

	if (rd->got) {
		/* Cancelled or not: here are the bytes. */
		rd_send(fs, op_take(&rd->op), &rd->rd);
		return task_end(t);
	}
	if (err == 0)
		err = rd->result;
	if (err == -ECANCELED)
		rd->op.hold = true; /* the cache's disk now belongs to a successor */
	if (err == -ESTALE && fs->db != NULL)
		node_expire(fs, rd->h->node);
	return op_fail(&rd->op, err);
}

static void rd_fini(struct task *t)
{
	struct op_read *rd = OP_OF(t, op_read);

	handle_unuse(rd->op.fs, rd->h);
	op_free(&rd->op);
}

static const struct task_step rd_steps[] = {
    [RD_FETCH] = {"fetch", rd_fetch, TO(RD_ANSWER)},
    [RD_ANSWER] = {"answer", rd_answer, 0},
};
static const struct task_kind rd_kind = {"read", rd_steps, ARRAY_LEN(rd_steps), rd_fini};

void file_spare_free(struct fs *fs)
{
	free(fs->spare_read);
	fs->spare_read = NULL;
}

/* A read that the cache answers at once costs no allocation: the struct that it
 * was tried with is kept for the next one. */
static struct op_read *spare_get(struct fs *fs)
{
	struct op_read *rd = fs->spare_read;

	if (rd == NULL)
		return calloc(1, sizeof(*rd));
	fs->spare_read = NULL;
	memset(rd, 0, sizeof(*rd));
	return rd;
}

static void spare_put(struct fs *fs, struct op_read *rd)
{
	free(fs->spare_read);
	fs->spare_read = rd;
}

void file_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct op_read *rd;
	struct handle *h;
	int err = handle_get(fs, fi->fh, UFS_FILE, &h);

	(void)ino;
	if (err != 0) {
		fuse_reply_err(req, op_errno(err));
		return;
	}
	rd = spare_get(fs);
	if (rd == NULL) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	rd->h = h;
	rd->rd.blob = h->blob;
	rd->rd.stream = &h->stream;
	rd->rd.off = (uint64_t)off;
	rd->rd.len = size;
	rd->rd.done = rd_done;
	rd->rd.user = rd;
	if (cache_read_try(&rd->rd)) {
		rd_send(fs, req, &rd->rd);
		spare_put(fs, rd);
		return;
	}
	if (op_prepare(&rd->op, fs, req) != 0) {
		spare_put(fs, rd);
		return;
	}
	rd->op.is_read = true;
	handle_use(h);
	op_run(&rd->op, &rd_kind);
}

/* --- The rest of a file handle's life */

void file_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, 0);
}

void file_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	fuse_reply_err(req, 0);
}

void file_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	int err = handle_release(fs_of(req), fi->fh, UFS_FILE);

	(void)ino;
	fuse_reply_err(req, op_errno(err));
}

/* Objects have no holes.  Answered here rather than with ENOSYS, which the kernel
 * would remember for as long as the mount lives. */
void file_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct handle *h;
	off_t size;
	int err = handle_get(fs_of(req), fi->fh, UFS_FILE, &h);

	(void)ino;
	if (err != 0) {
		fuse_reply_err(req, op_errno(err));
		return;
	}
	size = (off_t)cache_blob_size(h->blob);
	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		fuse_reply_err(req, EINVAL);
	else if (off < 0 || off >= size)
		fuse_reply_err(req, ENXIO);
	else
		fuse_reply_lseek(req, whence == SEEK_DATA ? off : size);
}
