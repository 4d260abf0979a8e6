/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The end of this daemon's service: requests that run are cancelled and go, as
 * they came, to the held list, from which a successor (or, if it fails, this
 * daemon) does them again.  Data reads may go on; they need no database.
 */
#include <errno.h>
#include <string.h>

#include "ops/op.h"

static bool only_reads_run(const struct fs *fs)
{
	return fs->nops == fs->nreads;
}

static void done_fn(struct deferred *d)
{
	struct fs *fs = container_of(d, struct fs, handover_defer);
	void (*done)(void *arg) = fs->handover_done;

	fs->handover_done = NULL;
	if (done != NULL)
		done(fs->handover_arg);
}

static void idle_fn(struct deferred *d)
{
	struct fs *fs = container_of(d, struct fs, idle_defer);

	if (fs->idle != NULL)
		fs->idle(fs->idle_arg);
}

void fs_op_ended(struct fs *fs)
{
	if (fs->handover_done != NULL && only_reads_run(fs))
		loop_defer(fs->env.loop, &fs->handover_defer, done_fn);
	if (fs->idle != NULL && (fs->nops == 0 || (fs->detached && !STAILQ_EMPTY(&fs->held))))
		loop_defer(fs->env.loop, &fs->idle_defer, idle_fn);
}

void fs_handover_init(struct fs *fs)
{
	STAILQ_INIT(&fs->held);
}

void fs_handover_fini(struct fs *fs)
{
	struct held_req *hr;

	while ((hr = STAILQ_FIRST(&fs->held)) != NULL) {
		STAILQ_REMOVE_HEAD(&fs->held, link);
		free(hr);
	}
	loop_undefer(fs->env.loop, &fs->handover_defer);
	loop_undefer(fs->env.loop, &fs->idle_defer);
}

static void hold_op(struct op *op)
{
	op->hold = true;
	task_cancel(&op->task, -ECANCELED);
}

void fs_handover_begin(struct fs *fs, void (*done)(void *arg), void *arg)
{
	struct op *op;

	assert(fs->handover_done == NULL);
	fs->handover_done = done;
	fs->handover_arg = arg;
	/* Cancelling only marks and defers: the list stays as it is meanwhile. */
	TAILQ_FOREACH(op, &fs->ops, link)
	if (!op->is_read)
		hold_op(op);
	if (only_reads_run(fs))
		loop_defer(fs->env.loop, &fs->handover_defer, done_fn);
}

void fs_handover_undo(struct fs *fs)
{
	struct held_list list = STAILQ_HEAD_INITIALIZER(list);
	struct held_req *hr;

	assert(!fs->detached);
	fs->handover_done = NULL;
	loop_undefer(fs->env.loop, &fs->handover_defer);
	STAILQ_CONCAT(&list, &fs->held);
	while ((hr = STAILQ_FIRST(&list)) != NULL) {
		STAILQ_REMOVE_HEAD(&list, link);
		fuse_chan_feed(fs->chan, hr->raw, hr->len);
		free(hr);
	}
}

void fs_handover_take(struct fs *fs, struct held_list *to)
{
	STAILQ_CONCAT(to, &fs->held);
}

void fs_handover_end_reads(struct fs *fs, bool resume)
{
	struct op *op;

	TAILQ_FOREACH(op, &fs->ops, link)
	{
		if (!op->is_read)
			continue;
		if (resume)
			hold_op(op);
		else
			task_cancel(&op->task, -EIO);
	}
}

unsigned fs_running(const struct fs *fs)
{
	return fs->nops;
}

void fs_on_idle(struct fs *fs, void (*fn)(void *arg), void *arg)
{
	fs->idle = fn;
	fs->idle_arg = arg;
}

void fs_cancel_all(struct fs *fs, int err)
{
	struct op *op;

	TAILQ_FOREACH(op, &fs->ops, link)
	task_cancel(&op->task, err);
}
