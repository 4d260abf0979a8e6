/* SPDX-License-Identifier: BSD-2-Clause */
#include "reactor/task.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "reactor/loop_priv.h"

/* A task that leaves its table is a bug whose result nobody can foresee: say
 * which, and stop. */
static void check_move(const struct task *t, unsigned step)
{
	const struct task_kind *k = t->kind;
	const char *to = step < k->nsteps ? k->steps[step].name : "(no such step)";

	if (step < k->nsteps && (k->steps[t->step].to & TO(step)) != 0)
		return;
	log_error("task %s: illegal move from step %s to %s", k->name, k->steps[t->step].name, to);
	abort();
}

static void task_finish(struct task *t)
{
	struct loop *lp = t->loop;

	loop_undefer(lp, &t->run);
	TAILQ_REMOVE(&lp->tasks, t, link);
	assert(lp->ntasks > 0);
	lp->ntasks--;
	t->magic = 0;
	t->kind->fini(t);
}

static void task_leave(struct task *t)
{
	void (*leave)(struct task *t) = t->leave;

	t->leave = NULL;
	leave(t);
	task_resume(t);
}

static void task_run(struct deferred *d)
{
	struct task *t = container_of(d, struct task, run);
	enum task_next next;

	CHECK_OBJ(t, TASK_MAGIC);
	assert(!t->waiting && !t->running);
	t->running = true;
	do {
		t->cancelled = false;
		t->next = TASK_NEXT_NONE;
		next = t->kind->steps[t->step].fn(t);
		assert(next != TASK_NEXT_NONE && next == t->next);
	} while (next == TASK_NEXT_GOTO);
	t->running = false;
	if (next == TASK_NEXT_END)
		task_finish(t);
	else if (t->cancelled && t->waiting && t->leave != NULL)
		task_leave(t);
}

void task_start(struct task *t, struct loop *lp, const struct task_kind *kind)
{
	CHECK_OBJ(lp, LOOP_MAGIC);
	assert(kind->nsteps > 0 && kind->nsteps <= 32 && kind->fini != NULL);
	*t = (struct task){
		.magic = TASK_MAGIC, .loop = lp, .kind = kind, .started = loop_now(lp)
	};
	TAILQ_INSERT_TAIL(&lp->tasks, t, link);
	lp->ntasks++;
	loop_defer(lp, &t->run, task_run);
}

enum task_next task_goto(struct task *t, unsigned step)
{
	CHECK_OBJ(t, TASK_MAGIC);
	assert(t->running && t->next == TASK_NEXT_NONE);
	check_move(t, step);
	t->step = step;
	return t->next = TASK_NEXT_GOTO;
}

enum task_next task_wait(struct task *t, unsigned step, void (*leave)(struct task *t))
{
	CHECK_OBJ(t, TASK_MAGIC);
	assert(t->running && t->next == TASK_NEXT_NONE);
	check_move(t, step);
	t->step = step;
	t->waiting = true;
	t->leave = leave;
	return t->next = TASK_NEXT_WAIT;
}

enum task_next task_end(struct task *t)
{
	CHECK_OBJ(t, TASK_MAGIC);
	assert(t->running && t->next == TASK_NEXT_NONE);
	return t->next = TASK_NEXT_END;
}

int task_fail(struct task *t, int err)
{
	CHECK_OBJ(t, TASK_MAGIC);
	assert(err <= 0);
	if (t->err == 0)
		t->err = err;
	return t->err;
}

void task_resume(struct task *t)
{
	CHECK_OBJ(t, TASK_MAGIC);
	assert(t->waiting);
	t->waiting = false;
	t->leave = NULL;
	loop_defer(t->loop, &t->run, task_run);
}

void task_cancel(struct task *t, int err)
{
	CHECK_OBJ(t, TASK_MAGIC);
	assert(err < 0);
	if (t->err != 0)
		return;
	t->err = err;
	if (t->running)
		t->cancelled = true; /* the wait it may be about to begin is given up */
	else if (t->waiting && t->leave != NULL)
		task_leave(t);
}

unsigned task_count(struct loop *lp)
{
	CHECK_OBJ(lp, LOOP_MAGIC);
	return lp->ntasks;
}

void task_foreach(struct loop *lp, void (*fn)(struct task *t, void *arg), void *arg)
{
	struct task *t, *next;

	CHECK_OBJ(lp, LOOP_MAGIC);
	TAILQ_FOREACH_SAFE(t, &lp->tasks, link, next)
		fn(t, arg);
}
