/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An operation: a request that cannot be answered at once.  Embedded first in
 * the struct of its kind; holds the request until exactly one of
 *	- a reply: fuse_reply_*(op_take(op), …) or op_fail(op, err);
 *	- the held list: op_fail() when the operation was cancelled for a hand-over.
 */
#ifndef OPS_OP_H
#define OPS_OP_H

#include "ops/fs_priv.h"
#include "reactor/task.h"
#include "reactor/timer.h"

struct op {
	struct task task;
	uint32_t magic;
#define OP_MAGIC 0x09e40001u
	struct fs *fs;
	fuse_req_t req;		/* NULL once answered or held */
	struct held_req *raw;	/* the request as it came, for the held list */
	uint64_t unique;	/* the kernel's number, bit 63 cleared */
	unsigned resends;	/* fuse_chan_resends() when it began */
	bool is_read;		/* a data read: may go on during a hand-over */
	bool on_wire;		/* a change that the storage works on: a hand-over lets it end
				 * for a short time before it is given up */
	bool opening;		/* LOOKUP, GETATTR, OPEN: says ETIMEDOUT */
	bool hold;		/* cancelled for a hand-over: not to be answered */
	struct timer dying;	/* armed while an interrupted caller is watched */
	TAILQ_ENTRY(op) link;
};

#define OP_OF(t, type) ((struct type *)(void *)op_check(t))

static inline void *op_check(struct task *t)
{
	CHECK_OBJ(container_of(t, struct op, task), OP_MAGIC);
	return t;
}

/* A zeroed struct of `size` bytes (struct op first) for the request being
 * dispatched.  NULL: it needs none: out of memory, and the request has been answered so;
 * or the kernel has sent one again that runs here already, which answers it now. */
void *op_new(struct fs *fs, fuse_req_t req, size_t size);
/* The same for a zeroed struct that the caller has: 0, or negative errno (nothing is left
 * to be done). */
int op_prepare(struct op *op, struct fs *fs, fuse_req_t req);
/* The kernel sent the running request again, and takes no answer but to this one. */
void op_replace(struct op *op, fuse_req_t req);
/* The running request of that number, or NULL. */
struct op *op_find(struct fs *fs, uint64_t unique);
void op_run(struct op *op, const struct task_kind *kind);
/* For a kind's fini, last: the request must have been answered or held. */
void op_free(struct op *op);
/* The request, to be answered now. */
fuse_req_t op_take(struct op *op);
/* Answers with an error, or holds the request; ends the task. */
enum task_next op_fail(struct op *op, int err);
/* What an application sees for an internal error.  Storage that is silent for too
 * long is EIO, but ETIMEDOUT for an open, hence for what goes before it: LOOKUP
 * and GETATTR, which do not say what they are for. */
int op_errno(int err);

#endif
