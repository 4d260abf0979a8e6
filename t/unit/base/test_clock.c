/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/clock.h"

#include <time.h>

#include <criterion/criterion.h>

#include "base/units.h"

TestSuite(clock);

Test(clock, monotonic_never_goes_back)
{
	uint64_t last = clock_system.monotonic(&clock_system), first = last;

	for (int i = 0; i < 100000; i++) {
		uint64_t now = clock_system.monotonic(&clock_system);

		cr_assert_geq(now, last);
		last = now;
	}
	cr_assert_gt(last, first);
	cr_assert_lt(last - first, 20 * NS_PER_S);
	cr_assert_not(clock_system.manual);
}

Test(clock, wall_is_the_time_since_1970)
{
	struct timespec before, after;
	uint64_t ns;

	clock_gettime(CLOCK_REALTIME, &before);
	ns = clock_system.wall(&clock_system);
	clock_gettime(CLOCK_REALTIME, &after);
	cr_assert_geq(ns, (uint64_t)before.tv_sec * NS_PER_S + (uint64_t)before.tv_nsec);
	cr_assert_leq(ns, (uint64_t)after.tv_sec * NS_PER_S + (uint64_t)after.tv_nsec);
}
