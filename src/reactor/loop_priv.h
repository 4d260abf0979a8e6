/* SPDX-License-Identifier: BSD-2-Clause */
/* The loop's inside, for loop.c, timer.c and task.c only. */
#ifndef REACTOR_LOOP_PRIV_H
#define REACTOR_LOOP_PRIV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/obj.h"
#include "reactor/loop.h"
#include "reactor/task.h"
#include "reactor/timer.h"

struct event_base;

TAILQ_HEAD(deferred_list, deferred);
TAILQ_HEAD(hook_list, turn_hook);
TAILQ_HEAD(task_list, task);

struct loop {
	uint32_t magic;
#define LOOP_MAGIC 0x7a5c0002u
	struct event_base *base;
	const struct clock *clk;
	struct counters counters;

	bool in_turn;
	bool now_valid; /* `now` was read in this turn, after the wait */
	uint64_t now;
	uint64_t ran; /* callbacks of any kind since the start */
	bool stop;
	int result;

	struct deferred_list deferred;
	struct hook_list hooks;
	struct turn_hook *hook_next; /* where the walk over the hooks goes on */

	struct task_list tasks;
	unsigned ntasks;

	struct timer *timers; /* root of the pairing heap, the earliest */
	uint64_t timer_seq;
	int wake_fd;	    /* timerfd for the earliest; -1 on a manual clock */
	struct event *wake; /* its watch */
	uint64_t wake_at;   /* what it is set for; UINT64_MAX: not set */

	unsigned nfds, nsignals;
};

/* timer.c: runs the timers that were due at loop_now() when it was called. */
void timer_run_expired(struct loop *lp);

#endif
