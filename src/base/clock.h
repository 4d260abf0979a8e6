/* SPDX-License-Identifier: BSD-2-Clause */
/* A clock that tests can replace: hours of backoff pass in no time. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

struct clock {
	/* Nanoseconds that never go back (CLOCK_MONOTONIC in the product). */
	uint64_t (*monotonic)(const struct clock *clk);
	/* Nanoseconds since 1970 (CLOCK_REALTIME). */
	uint64_t (*wall)(const struct clock *clk);
	/* True: time moves only when the test moves it, so the loop does not
	 * sleep until a timer but returns to the test. */
	bool manual;
};

extern const struct clock clock_system;

#endif
