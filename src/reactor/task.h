/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tasks: one request, one struct, one function a step, checked moves.
 *
 * A task is embedded first in the struct of its operation.  Its kind is a
 * constant: a name, a table of steps with the moves each may make, and `fini`,
 * which releases everything and frees the struct.  A step does its work and
 * returns
 *	task_goto(t, STEP)		go on at once with STEP
 *	task_wait(t, STEP, leave)	stop until task_resume(), then STEP
 *	task_end(t)			finished: fini runs (in this call)
 * Leaves (timers, pool, http, fetch, …) store their result and call
 * task_resume(), which only queues the task: it goes on from the deferred queue,
 * so no callback recurses and none frees what its caller still uses.
 *
 * A leaf's contract, the same for all: it never completes inline; it calls back
 * exactly once on the loop, or never after its abort; the request struct belongs
 * to its user and must stay until one of the two.
 *
 * Cancelling only marks, leaves and defers: the first error wins; `leave` gives
 * up the seat with the leaf (no call back may come after it); then the task
 * resumes at the step it waited for and finds task_err() != 0.  A wait that
 * cannot be recalled passes leave = NULL: its completion resumes the task.
 */
#ifndef REACTOR_TASK_H
#define REACTOR_TASK_H

#include <stdbool.h>
#include <stdint.h>

#include "reactor/loop.h"

struct task;

enum task_next { TASK_NEXT_NONE, TASK_NEXT_GOTO, TASK_NEXT_WAIT, TASK_NEXT_END };

struct task_step {
	const char *name;
	enum task_next (*fn)(struct task *t);
	uint32_t to; /* steps it may move to: TO(A) | TO(B) */
};

#define TO(step) (UINT32_C(1) << (step))

struct task_kind {
	const char *name;
	const struct task_step *steps;
	unsigned nsteps;
	void (*fini)(struct task *t); /* releases and frees the operation's struct */
};

struct task {
	uint32_t magic;
#define TASK_MAGIC 0x7a5c0001u
	struct loop *loop;
	const struct task_kind *kind;
	unsigned step;
	int err; /* first error (negative errno), 0 if none */
	bool waiting, running;
	bool cancelled; /* while it was running */
	enum task_next next; /* what the running step has said */
	void (*leave)(struct task *t);
	uint64_t started; /* loop_now() at task_start() */
	struct deferred run;
	TAILQ_ENTRY(task) link; /* the loop's list of live tasks */
};

/* Starts in step 0, from the deferred queue.  Sets all of t; the rest of the
 * operation's struct is its maker's. */
void task_start(struct task *t, struct loop *lp, const struct task_kind *kind);

enum task_next task_goto(struct task *t, unsigned step);
enum task_next task_wait(struct task *t, unsigned step, void (*leave)(struct task *t));
enum task_next task_end(struct task *t);

/* Notes the first error; returns t->err.  err = 0 leaves it as it is. */
int task_fail(struct task *t, int err);
static inline int task_err(const struct task *t)
{
	return t->err;
}

/* From a leaf's call back: the wait is over.  The task must be waiting (asserted:
 * a leaf that calls back twice, or after its leave, is found here). */
void task_resume(struct task *t);
/* err < 0.  No-op if the task has an error already (it is on its way out). */
void task_cancel(struct task *t, int err);

/* Live tasks of the loop: "stopped" means there are none. */
unsigned task_count(struct loop *lp);
/* Calls fn for each live task; fn may cancel the task it gets. */
void task_foreach(struct loop *lp, void (*fn)(struct task *t, void *arg), void *arg);

#endif
