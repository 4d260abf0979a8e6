/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The end of this daemon's service: requests that run are cancelled and go, as
 * they came, to the held list, from which a successor (or, if it fails, this
 * daemon) does them again.  Data reads may go on; they need no database.  Changes that
 * the storage is working on get a short time to end, so that they are not done twice;
 * what the pool has begun ends.
 */
#include <errno.h>
#include <string.h>

#include "base/units.h"
#include "ops/op.h"
#include "ops/persist.h"
#include "ops/session.h"
#include "ops/unlinked.h"

#define BUSY_LOOK_NS (2 * NS_PER_MS)

static bool only_reads_run(const struct fs *fs)
{
	return fs->nops == fs->nreads && fs->nwork == 0;
}

static void done_fn(struct deferred *d)
{
	struct fs *fs = container_of(d, struct fs, handover_defer);
	void (*done)(void *arg) = fs->handover_done;

	/* Requests are over; the pool may still read what was given up. */
	if (done != NULL && session_any_busy(fs)) {
		timer_arm(&fs->busy, BUSY_LOOK_NS);
		return;
	}
	fs->handover_done = NULL;
	timer_cancel(&fs->wire);
	if (done != NULL)
		done(fs->handover_arg);
}

static void busy_look(struct timer *t)
{
	struct fs *fs = container_of(t, struct fs, busy);

	if (fs->handover_done != NULL && only_reads_run(fs))
		loop_defer(fs->env.loop, &fs->handover_defer, done_fn);
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
	if (fs->idle != NULL && ((fs->nops == 0 && fs->nwork == 0) || fs_holds(fs)))
		loop_defer(fs->env.loop, &fs->idle_defer, idle_fn);
}

static void hold_op(struct op *op)
{
	op->hold = true;
	task_cancel(&op->task, -ECANCELED);
}

/* all: also what the storage is working on. */
static void hold_ops(struct fs *fs, bool all)
{
	struct op *op;

	/* Cancelling only marks and defers: the list stays as it is meanwhile. */
	TAILQ_FOREACH(op, &fs->ops, link)
	if (!op->is_read && (all || !op->on_wire))
		hold_op(op);
}

static void wire_over(struct timer *t)
{
	struct fs *fs = container_of(t, struct fs, wire);

	hold_ops(fs, true);
	session_pause_all(fs);
	unlinked_pause(fs);
}

void fs_handover_init(struct fs *fs)
{
	STAILQ_INIT(&fs->held);
	timer_init(&fs->wire, fs->env.loop, wire_over);
	timer_init(&fs->busy, fs->env.loop, busy_look);
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
	timer_cancel(&fs->wire);
	timer_cancel(&fs->busy);
}

void fs_handover_begin(struct fs *fs, void (*done)(void *arg), void *arg)
{
	const struct config *cfg = fs->env.cfg;
	uint64_t limit = MIN(cfg->migration_wire_timeout, cfg->migration_grace_period);

	assert(fs->handover_done == NULL);
	fs->handover_done = done;
	fs->handover_arg = arg;
	persist_hold(fs);
	session_hold_all(fs);
	unlinked_hold(fs);
	fs_stop_intents(fs);
	hold_ops(fs, limit == 0);
	if (limit == 0) {
		session_pause_all(fs);
		unlinked_pause(fs);
	} else {
		timer_arm(&fs->wire, limit);
	}
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
	timer_cancel(&fs->wire);
	timer_cancel(&fs->busy);
	session_resume_all(fs);
	unlinked_resume(fs);
	fs_recover_intents(fs);
	persist_resume(fs);
	STAILQ_CONCAT(&list, &fs->held);
	while ((hr = STAILQ_FIRST(&list)) != NULL) {
		STAILQ_REMOVE_HEAD(&list, link);
		fuse_chan_feed(fs->chan, hr->raw, hr->len);
		free(hr);
	}
}

bool fs_holds(const struct fs *fs)
{
	return !STAILQ_EMPTY(&fs->held);
}

void fs_handover_take(struct fs *fs, struct held_list *to)
{
	STAILQ_CONCAT(to, &fs->held);
}

unsigned fs_handover_end_reads(struct fs *fs, bool resume)
{
	struct op *op;
	unsigned n = 0;

	TAILQ_FOREACH(op, &fs->ops, link)
	{
		if (!op->is_read)
			continue;
		n++;
		if (resume)
			hold_op(op);
		else
			task_cancel(&op->task, -EIO);
	}
	return n;
}

unsigned fs_running(const struct fs *fs)
{
	return fs->nops + fs->nwork + session_closing(fs);
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
	persist_hold(fs);
	session_release_all(fs);
	unlinked_pause(fs);
	fs_stop_intents(fs);
}
