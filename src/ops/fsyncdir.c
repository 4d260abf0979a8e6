/* SPDX-License-Identifier: BSD-2-Clause */
/* FSYNCDIR: what is not in the storage of a directory are deletions in it. */
#include <errno.h>
#include <string.h>

#include "ops/node.h"
#include "ops/op.h"
#include "ops/requests.h"
#include "ops/unlinked.h"

struct op_fsyncdir {
	struct op op;
	struct unlinked_wait wait;
	uint64_t node;
	int result;
};

enum { FD_BEGIN, FD_DONE };

static void fd_cb(struct unlinked_wait *w, int err)
{
	struct op_fsyncdir *fd = w->user;

	fd->result = err;
	task_resume(&fd->op.task);
}

static void fd_leave(struct task *t)
{
	unlinked_wait_abort(&OP_OF(t, op_fsyncdir)->wait);
}

static enum task_next fd_begin(struct task *t)
{
	struct op_fsyncdir *fd = OP_OF(t, op_fsyncdir);
	char path[UFS_PATH_MAX + 1];
	int err = task_err(t);

	if (err == 0)
		err = node_path(fd->op.fs, fd->node, path);
	if (err != 0)
		return op_fail(&fd->op, err);
	fd->wait.user = fd;
	unlinked_wait(fd->op.fs, &fd->wait, path, fd_cb);
	return task_wait(t, FD_DONE, fd_leave);
}

static enum task_next fd_done(struct task *t)
{
	struct op_fsyncdir *fd = OP_OF(t, op_fsyncdir);

	if (task_fail(t, fd->result) != 0)
		return op_fail(&fd->op, task_err(t));
	fuse_reply_err(op_take(&fd->op), 0);
	return task_end(t);
}

static void fd_fini(struct task *t)
{
	op_free(&OP_OF(t, op_fsyncdir)->op);
}

static const struct task_step fd_steps[] = {
    [FD_BEGIN] = {"begin", fd_begin, TO(FD_DONE)},
    [FD_DONE] = {"done", fd_done, 0},
};
static const struct task_kind fd_kind = {"fsyncdir", fd_steps, ARRAY_LEN(fd_steps), fd_fini};

void file_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct op_fsyncdir *fd;

	(void)datasync;
	(void)fi;
	if (unlinked_count(fs) == 0) {
		fuse_reply_err(req, 0);
		return;
	}
	fd = op_new(fs, req, sizeof(*fd));
	if (fd == NULL)
		return;
	fd->node = ino;
	op_run(&fd->op, &fd_kind);
}
