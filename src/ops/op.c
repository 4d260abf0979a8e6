/* SPDX-License-Identifier: BSD-2-Clause */
#include "ops/op.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"
#include "ops/ledger.h"

#define DYING_PERIOD_NS (200 * NS_PER_MS)
#define SIGKILL_BIT (UINT64_C(1) << 8)

struct op *op_find(struct fs *fs, uint64_t unique)
{
	struct op *op;

	TAILQ_FOREACH(op, &fs->ops, link)
	if (op->unique == unique && op->req != NULL)
		return op;
	return NULL;
}

static int op_keep_raw(struct op *op, struct fs *fs, fuse_req_t req)
{
	const void *raw;
	size_t len;

	raw = fuse_chan_current(fs->chan, &len);
	op->raw = malloc(sizeof(*op->raw) + len);
	if (op->raw == NULL) {
		fuse_reply_err(req, ENOMEM);
		return -ENOMEM;
	}
	op->req = req;
	op->raw->len = (uint32_t)len;
	memcpy(op->raw->raw, raw, len);
	return 0;
}

/* Sent again while it runs here: after another daemon's death, say, for whose requests
 * the kernel was asked to send all again. */
static bool runs_already(struct fs *fs, fuse_req_t req, uint64_t unique)
{
	struct op *op;

	if (!ledger_resent(fs))
		return false;
	/* After a crash thousands come at once: only what began before they were asked for
	 * can be one of them. */
	TAILQ_FOREACH(op, &fs->ops, link)
	{
		if (op->resends == fuse_chan_resends(fs->chan))
			return false;
		if (op->unique == unique && op->req != NULL) {
			op_replace(op, req);
			return true;
		}
	}
	return false;
}

int op_prepare(struct op *op, struct fs *fs, fuse_req_t req)
{
	uint64_t unique = ledger_unique(fs);

	if (runs_already(fs, req, unique))
		return -EALREADY;
	if (op_keep_raw(op, fs, req) != 0)
		return -ENOMEM;
	op->magic = OP_MAGIC;
	op->fs = fs;
	op->unique = unique;
	op->resends = fuse_chan_resends(fs->chan);
	return 0;
}

void *op_new(struct fs *fs, fuse_req_t req, size_t size)
{
	struct op *op = calloc(1, size);

	if (op == NULL) {
		fuse_reply_err(req, ENOMEM);
		return NULL;
	}
	if (op_prepare(op, fs, req) != 0) {
		free(op);
		return NULL;
	}
	return op;
}

/*
 * A thread that is being killed has SIGKILL pending, whatever signal killed it, and
 * waits for our answer without being wakeable.  One that we cannot see counts as
 * living: the number is that of the pid namespace in which the mount was made, so
 * here it may be nobody's, or that of a process that does not wait.
 */
static bool caller_dying(pid_t pid)
{
	bool killed = false, waits = false;
	unsigned long long pending;
	char path[40], line[128];
	FILE *f;

	if (pid <= 0)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	if (f == NULL)
		return false;
	while (fgets(line, sizeof(line), f) != NULL)
		if (strncmp(line, "State:\tD", 8) == 0)
			waits = true;
		else if (sscanf(line, "SigPnd: %llx", &pending) == 1)
			killed = (pending & SIGKILL_BIT) != 0;
	fclose(f);
	return killed && waits;
}

static void watch_caller(struct op *op)
{
	if (op->req == NULL)
		return;
	if (caller_dying(fuse_req_ctx(op->req)->pid))
		task_cancel(&op->task, -EINTR);
	else
		timer_arm(&op->dying, DYING_PERIOD_NS);
}

static void dying_fired(struct timer *t)
{
	watch_caller(container_of(t, struct op, dying));
}

/*
 * FUSE_INTERRUPT comes once, for any signal that the caller has pending, also for
 * one with a handler and SA_RESTART (or a runtime's preemption signal): EINTR
 * would be an error for an application that did nothing.  So only a caller that
 * is being killed is let go, also if that happens later.
 */
static void op_interrupted(fuse_req_t req, void *data)
{
	struct op *op = data;

	CHECK_OBJ(op, OP_MAGIC);
	if (op->req == req && !timer_armed(&op->dying))
		watch_caller(op);
}

void op_replace(struct op *op, fuse_req_t req)
{
	struct held_req *was_raw;
	fuse_req_t was;

	CHECK_OBJ(op, OP_MAGIC);
	was_raw = op->raw;
	was = op->req;
	/* Answered or held this very moment: nobody is left to answer req. */
	if (was == NULL) {
		fuse_reply_err(req, EBUSY);
		return;
	}
	if (op_keep_raw(op, op->fs, req) != 0) {
		op->raw = was_raw;
		return;
	}
	/* The same but for the header; and the pool may be reading what we have. */
	if (was_raw->len == op->raw->len) {
		memcpy(was_raw->raw, op->raw->raw, MIN(was_raw->len, sizeof(struct fuse_in_header)));
		free(op->raw);
		op->raw = was_raw;
	} else {
		free(was_raw);
	}
	fuse_reply_none(was);
	fuse_req_interrupt_func(req, op_interrupted, op);
}

void op_run(struct op *op, const struct task_kind *kind)
{
	struct fs *fs = op->fs;

	TAILQ_INSERT_TAIL(&fs->ops, op, link);
	fs->nops++;
	if (op->is_read)
		fs->nreads++;
	GAUGE_SET(fs->env.loop, FUSE_RUNNING, fs->nops);
	timer_init(&op->dying, fs->env.loop, dying_fired);
	task_start(&op->task, fs->env.loop, kind);
	fuse_req_interrupt_func(op->req, op_interrupted, op);
	/* Whoever read it first may have been told of a signal, which the kernel does
	 * not say twice. */
	if (op->req != NULL && fuse_chan_feeding(fs->chan))
		timer_arm(&op->dying, DYING_PERIOD_NS);
}

void op_free(struct op *op)
{
	struct fs *fs;

	CHECK_OBJ(op, OP_MAGIC);
	fs = op->fs;
	assert(op->req == NULL);
	timer_cancel(&op->dying);
	TAILQ_REMOVE(&fs->ops, op, link);
	fs->nops--;
	if (op->is_read)
		fs->nreads--;
	GAUGE_SET(fs->env.loop, FUSE_RUNNING, fs->nops);
	free(op->raw);
	FREE_OBJ(op);
	fs_op_ended(fs);
}

fuse_req_t op_take(struct op *op)
{
	fuse_req_t req = op->req;

	assert(req != NULL);
	op->req = NULL;
	timer_cancel(&op->dying);
	fuse_req_interrupt_func(req, NULL, NULL);
	return req;
}

int op_errno(int err)
{
	switch (err) {
	case -ETIMEDOUT:
	case -ECANCELED:
	case -EBADMSG: /* bytes that are not those that were written */
		return EIO;
	default:
		return -err;
	}
}

enum task_next op_fail(struct op *op, int err)
{
	fuse_req_t req = op_take(op);

	assert(err < 0);
	if (op->hold) {
		STAILQ_INSERT_TAIL(&op->fs->held, op->raw, link);
		op->raw = NULL;
		fuse_reply_none(req);
	} else {
		fuse_reply_err(req, op->opening && err == -ETIMEDOUT ? ETIMEDOUT : op_errno(err));
	}
	return task_end(&op->task);
}
