/* SPDX-License-Identifier: BSD-2-Clause */
/* A clock that moves only when the test says so. */
#ifndef T_LIB_TEST_CLOCK_H
#define T_LIB_TEST_CLOCK_H

#include <stdint.h>

#include "base/clock.h"
#include "reactor/loop.h"

struct test_clock {
	struct clock clk; /* for loop_new() */
	uint64_t monotonic_ns, wall_ns;
};

/* Starts at one second, and at a day in 2001. */
void test_clock_init(struct test_clock *tc);
void test_clock_advance(struct test_clock *tc, uint64_t ns);

/* Turns until nothing runs any more, without waiting for events.  It does not
 * wait for pool threads or sockets: for these turn until what you expect is so. */
static inline void test_loop_settle(struct loop *lp)
{
	while (loop_turn(lp, false))
		;
}

/* Moves the clock and settles. */
static inline void test_loop_pass(struct loop *lp, struct test_clock *tc, uint64_t ns)
{
	test_clock_advance(tc, ns);
	test_loop_settle(lp);
}

#endif
