/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/clock.h"

#include <assert.h>
#include <time.h>

#include "base/units.h"

static uint64_t read_clock(clockid_t id)
{
	struct timespec ts;
	int r = clock_gettime(id, &ts);

	/* Only an unknown clock makes it fail, and both are required by POSIX. */
	assert(r == 0);
	(void)r;
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint64_t system_monotonic(const struct clock *clk)
{
	(void)clk;
	return read_clock(CLOCK_MONOTONIC);
}

static uint64_t system_wall(const struct clock *clk)
{
	(void)clk;
	return read_clock(CLOCK_REALTIME);
}

const struct clock clock_system = {
    .monotonic = system_monotonic,
    .wall = system_wall,
    .manual = false,
};
