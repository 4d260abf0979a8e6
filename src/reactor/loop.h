/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The loop: one thread, one libevent base, everything else hangs on it.
 *
 * A turn is: wait for events and run their callbacks; run the deferred queue
 * until it is empty (or very many ran); run the turn-end hooks in the order they were added (the
 * state database commits, then the replies that depend on it leave).  A hook may
 * defer work: it runs in the next turn, which then does not wait.
 *
 * All functions here are for the loop's thread, except where a header says
 * otherwise (mailbox_post).  Nothing called from the loop may block.
 */
#ifndef REACTOR_LOOP_H
#define REACTOR_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/counters.h"
#include "base/queue.h"

struct loop;
struct event;

int loop_new(struct loop **out, const struct clock *clk);
/* The loop must have no task, timer, fd, signal, deferred call or hook left
 * (asserted). */
void loop_free(struct loop **lp);

/* Turns until loop_stop(); returns what loop_stop() was given. */
int loop_run(struct loop *lp);
/* Ends loop_run() after the present turn; the first call's result counts. */
void loop_stop(struct loop *lp, int result);
/* One turn; waits for an event only if `wait`.  Returns whether anything ran
 * (hooks do not count).  Not from inside a turn.  On a manual clock it never
 * waits while a timer is armed, nor if no descriptor is watched. */
bool loop_turn(struct loop *lp, bool wait);

/* Monotonic nanoseconds, read once a turn, after the wait. */
uint64_t loop_now(struct loop *lp);
uint64_t loop_wall(struct loop *lp);
const struct clock *loop_clock(struct loop *lp);
struct counters *loop_counters(struct loop *lp);

#define COUNT(lp, id, n) (loop_counters(lp)->v[CTR_##id] += (uint64_t)(n))
#define GAUGE_SET(lp, id, n) (loop_counters(lp)->v[CTR_##id] = (uint64_t)(n))

/* --- Deferred calls: run later in this turn, first in first out. */
struct deferred {
	TAILQ_ENTRY(deferred) link;
	void (*fn)(struct deferred *d);
	bool queued;
};

/* d is zeroed before its first use; a queued one keeps its place (fn must be the
 * same); d may be freed in fn. */
void loop_defer(struct loop *lp, struct deferred *d, void (*fn)(struct deferred *d));
void loop_undefer(struct loop *lp, struct deferred *d); /* no-op if not queued */

/* --- Turn-end hooks.  A hook may remove itself and others. */
struct turn_hook {
	TAILQ_ENTRY(turn_hook) link;
	void (*fn)(struct turn_hook *h);
};

void loop_hook_add(struct loop *lp, struct turn_hook *h, void (*fn)(struct turn_hook *h));
void loop_hook_remove(struct loop *lp, struct turn_hook *h);

/* --- Descriptors.  The watcher does not own the fd; call loop_fd_fini() before
 * closing it (an epoll registration outlives close() while another process
 * holds the same open file). */
#define LOOP_READ 1u
#define LOOP_WRITE 2u

struct loop_fd {
	struct loop *loop;
	struct event *ev;
	int fd;
	unsigned want;
	void (*fn)(struct loop_fd *lf, unsigned what);
};

int loop_fd_init(struct loop_fd *lf, struct loop *lp, int fd,
    void (*fn)(struct loop_fd *lf, unsigned what));
/* Which of LOOP_READ|LOOP_WRITE to watch from now on (0: none).  On failure
 * (negative errno, -EPERM for a file that cannot be polled) nothing is watched. */
int loop_fd_want(struct loop_fd *lf, unsigned want);
void loop_fd_fini(struct loop_fd *lf); /* also of a zeroed one; fine in any callback */

/* --- Signals. */
struct loop_signal {
	struct loop *loop;
	struct event *ev;
	int signo;
	void (*fn)(struct loop_signal *ls);
};

int loop_signal_init(struct loop_signal *ls, struct loop *lp, int signo,
    void (*fn)(struct loop_signal *ls));
void loop_signal_fini(struct loop_signal *ls);

#endif
