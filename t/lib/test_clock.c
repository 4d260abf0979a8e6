/* SPDX-License-Identifier: BSD-2-Clause */
#include "test_clock.h"

#include "base/obj.h"
#include "base/units.h"

static uint64_t monotonic(const struct clock *clk)
{
	return container_of(clk, struct test_clock, clk)->monotonic_ns;
}

static uint64_t wall(const struct clock *clk)
{
	return container_of(clk, struct test_clock, clk)->wall_ns;
}

void test_clock_init(struct test_clock *tc)
{
	tc->clk = (struct clock){ .monotonic = monotonic, .wall = wall, .manual = true };
	tc->monotonic_ns = NS_PER_S;
	tc->wall_ns = UINT64_C(1000000000) * NS_PER_S;
}

void test_clock_advance(struct test_clock *tc, uint64_t ns)
{
	tc->monotonic_ns += ns;
	tc->wall_ns += ns;
}
