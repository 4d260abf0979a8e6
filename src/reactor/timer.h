/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Timers on the loop's clock (loop.h: base/clock.h can be a test's).
 * Embedded by their user, no allocation, so arming never fails.  A fired or
 * cancelled timer may be armed again or freed.
 */
#ifndef REACTOR_TIMER_H
#define REACTOR_TIMER_H

#include <stdbool.h>
#include <stdint.h>

struct loop;

struct timer {
	struct loop *loop;
	void (*fn)(struct timer *t);
	uint64_t when; /* monotonic ns */
	uint64_t seq;  /* order of arming: equal deadlines fire in it */
	struct timer *child, *next, *prev; /* pairing heap */
	bool armed;
};

void timer_init(struct timer *t, struct loop *lp, void (*fn)(struct timer *t));
/* Fires once, delay_ns from now; re-arming moves it. */
void timer_arm(struct timer *t, uint64_t delay_ns);
void timer_cancel(struct timer *t); /* no-op if not armed */
static inline bool timer_armed(const struct timer *t)
{
	return t->armed;
}

#endif
