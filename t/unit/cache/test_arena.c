/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>

#include "rig.h"

static struct test_clock clk;
static struct loop *lp;
static struct arena *a;
static unsigned freed;

static void count(void *arg)
{
	(void)arg;
	freed++;
}

static void arena_rig(void)
{
	test_clock_init(&clk);
	freed = 0;
	cr_assert_eq(loop_new(&lp, &clk.clk), 0);
	cr_assert_eq(arena_new(&a, lp, 10 * RIG_PAGE, RIG_PAGE, 3 * RIG_PAGE, count, NULL), 0);
}

static void fini(void)
{
	arena_free(&a);
	loop_free(&lp);
}

TestSuite(cache_arena, .init = arena_rig, .fini = fini);

Test(cache_arena, the_limit_is_hard_and_what_comes_back_is_used_again)
{
	struct arena_buf *buf[11];

	for (unsigned i = 0; i < 10; i++) {
		buf[i] = arena_get(a, ARENA_PAGE);
		cr_assert_not_null(buf[i]);
		buf[i]->mem[0] = buf[i]->mem[RIG_PAGE - 1] = (unsigned char)i;
	}
	cr_assert_null(arena_get(a, ARENA_PAGE));
	cr_assert_eq(arena_used(a), 10 * RIG_PAGE);
	for (unsigned i = 0; i < 10; i++) {
		cr_assert_eq(buf[i]->mem[RIG_PAGE - 1], i);
		arena_put(a, &buf[i]);
		cr_assert_null(buf[i]);
	}
	cr_assert_eq(freed, 10);
	cr_assert_eq(arena_resident(a), 10 * RIG_PAGE);
}

Test(cache_arena, one_kind_gives_way_to_the_other)
{
	struct arena_buf *page[10], *io;

	for (unsigned i = 0; i < 10; i++)
		page[i] = arena_get(a, ARENA_PAGE);
	for (unsigned i = 0; i < 3; i++)
		arena_put(a, &page[i]);
	io = arena_get(a, ARENA_IO);
	cr_assert_not_null(io);
	cr_assert_eq(arena_resident(a), 10 * RIG_PAGE);
	cr_assert_null(arena_get(a, ARENA_PAGE));
	arena_put(a, &io);
	for (unsigned i = 3; i < 10; i++)
		arena_put(a, &page[i]);
}

Test(cache_arena, a_reservation_is_all_or_nothing)
{
	unsigned need[ARENA_KINDS] = {[ARENA_PAGE] = 8, [ARENA_IO] = 1};
	unsigned fits[ARENA_KINDS] = {[ARENA_PAGE] = 7, [ARENA_IO] = 1};
	struct arena_buf *page[7], *io;

	cr_assert(!arena_reserve(a, need));
	cr_assert(arena_reserve(a, fits));
	for (unsigned i = 0; i < 7; i++)
		cr_assert_not_null(page[i] = arena_get(a, ARENA_PAGE));
	cr_assert_not_null(io = arena_get(a, ARENA_IO));
	arena_put(a, &io);
	for (unsigned i = 0; i < 7; i++)
		arena_put(a, &page[i]);
}

Test(cache_arena, what_is_not_needed_goes_back_to_the_system)
{
	struct arena_buf *buf[10];

	for (unsigned i = 0; i < 10; i++)
		buf[i] = arena_get(a, ARENA_PAGE);
	for (unsigned i = 0; i < 10; i++)
		arena_put(a, &buf[i]);
	for (unsigned i = 0; i < 3; i++) {
		/* Two in use all along: they stay warm. */
		buf[0] = arena_get(a, ARENA_PAGE);
		buf[1] = arena_get(a, ARENA_PAGE);
		arena_put(a, &buf[0]);
		arena_put(a, &buf[1]);
		test_loop_pass(lp, &clk, 5 * NS_PER_S);
	}
	cr_assert_eq(arena_resident(a), 2 * RIG_PAGE);
	for (unsigned i = 0; i < 3; i++)
		test_loop_pass(lp, &clk, 5 * NS_PER_S);
	cr_assert_eq(arena_resident(a), 0);
}

Test(cache_arena, warm_memory_stays_over_a_pause_and_no_longer)
{
	struct arena_buf *buf[10];

	for (unsigned i = 0; i < 10; i++)
		buf[i] = arena_get(a, ARENA_PAGE);
	for (unsigned i = 0; i < 10; i++)
		arena_put(a, &buf[i]);
	for (unsigned i = 0; i < 4; i++)
		test_loop_pass(lp, &clk, NS_PER_S);
	cr_assert_eq(arena_resident(a), 10 * RIG_PAGE);
	for (unsigned i = 0; i < 7; i++)
		test_loop_pass(lp, &clk, NS_PER_S);
	cr_assert_eq(arena_resident(a), 0);
}

Test(cache_arena, small_ones_share_the_limit)
{
	struct arena_buf *io[3], *small;

	for (unsigned i = 0; i < 3; i++)
		cr_assert_not_null(io[i] = arena_get(a, ARENA_IO));
	cr_assert_not_null(small = arena_get(a, ARENA_SMALL));
	small->mem[ARENA_SMALL_SIZE - 1] = 1;
	cr_assert_null(arena_get(a, ARENA_SMALL));
	arena_put(a, &io[0]);
	arena_put(a, &small);
	for (unsigned i = 1; i < 3; i++)
		arena_put(a, &io[i]);
}
