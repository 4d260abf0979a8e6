/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "../../lib/test_clock.h"
#include "base/obj.h"
#include "base/units.h"
#include "reactor/loop.h"
#include "reactor/timer.h"

static struct test_clock tc;
static struct loop *lp;

static void setup(void)
{
	test_clock_init(&tc);
	cr_assert_eq(loop_new(&lp, &tc.clk), 0);
}

static void teardown(void)
{
	loop_free(&lp);
}

TestSuite(timer, .init = setup, .fini = teardown);

struct tick {
	struct timer t;
	unsigned fired, order;
	uint64_t at;
	uint64_t rearm;	      /* 0: no */
	struct tick *cancels; /* another one */
};

static unsigned fired_total;

static void tick_fn(struct timer *t)
{
	struct tick *k = container_of(t, struct tick, t);

	cr_assert_not(timer_armed(t));
	k->fired++;
	k->order = fired_total++;
	k->at = loop_now(t->loop);
	if (k->rearm != 0)
		timer_arm(t, k->rearm);
	if (k->cancels != NULL)
		timer_cancel(&k->cancels->t);
}

Test(timer, fires_once_when_due)
{
	struct tick k = { .fired = 0 };

	timer_init(&k.t, lp, tick_fn);
	timer_arm(&k.t, 100);
	cr_assert(timer_armed(&k.t));
	test_loop_pass(lp, &tc, 99);
	cr_assert_eq(k.fired, 0);
	test_loop_pass(lp, &tc, 1);
	cr_assert_eq(k.fired, 1);
	test_loop_pass(lp, &tc, 1000);
	cr_assert_eq(k.fired, 1);
}

Test(timer, cancel_and_rearm)
{
	struct tick k = { .fired = 0 };

	timer_init(&k.t, lp, tick_fn);
	timer_cancel(&k.t);
	timer_arm(&k.t, 100);
	timer_cancel(&k.t);
	timer_cancel(&k.t);
	test_loop_pass(lp, &tc, 200);
	cr_assert_eq(k.fired, 0);
	timer_arm(&k.t, 100);
	timer_arm(&k.t, 300); /* moves it */
	test_loop_pass(lp, &tc, 299);
	cr_assert_eq(k.fired, 0);
	test_loop_pass(lp, &tc, 1);
	cr_assert_eq(k.fired, 1);
}

Test(timer, equal_deadlines_fire_in_the_order_of_arming)
{
	struct tick k[20] = { { .fired = 0 } };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(k); i++) {
		timer_init(&k[i].t, lp, tick_fn);
		timer_arm(&k[i].t, 50);
	}
	timer_arm(&k[3].t, 50); /* now the last */
	test_loop_pass(lp, &tc, 50);
	cr_assert_eq(k[0].order, 0);
	cr_assert_eq(k[2].order, 2);
	cr_assert_eq(k[4].order, 3);
	cr_assert_eq(k[19].order, 18);
	cr_assert_eq(k[3].order, 19);
}

static void rearm_now(struct timer *t)
{
	container_of(t, struct tick, t)->fired++;
	timer_arm(t, 0);
}

Test(timer, no_delay_means_the_next_turn)
{
	struct tick k = { .fired = 0 };

	timer_init(&k.t, lp, rearm_now);
	timer_arm(&k.t, 0);
	loop_turn(lp, true);
	cr_assert_eq(k.fired, 1);
	loop_turn(lp, true);
	cr_assert_eq(k.fired, 2);
	timer_cancel(&k.t);
}

Test(timer, a_callback_may_rearm_and_cancel_others_that_are_due)
{
	struct tick a = { .rearm = 10 }, b = { .fired = 0 };

	a.cancels = &b;
	timer_init(&a.t, lp, tick_fn);
	timer_init(&b.t, lp, tick_fn);
	timer_arm(&a.t, 5);
	timer_arm(&b.t, 6);
	test_loop_pass(lp, &tc, 7);
	cr_assert_eq(a.fired, 1);
	cr_assert_eq(b.fired, 0);
	test_loop_pass(lp, &tc, 10);
	cr_assert_eq(a.fired, 2);
	timer_cancel(&a.t);
}

static void free_self(struct timer *t)
{
	free(container_of(t, struct tick, t));
	fired_total++;
}

Test(timer, may_be_freed_in_its_callback)
{
	struct tick *k = calloc(1, sizeof(*k));

	cr_assert_not_null(k);
	timer_init(&k->t, lp, free_self);
	timer_arm(&k->t, 1);
	test_loop_pass(lp, &tc, 1);
	cr_assert_eq(fired_total, 1);
}

Test(timer, the_longest_delay_does_not_wrap_around)
{
	struct tick k = { .fired = 0 };

	timer_init(&k.t, lp, tick_fn);
	timer_arm(&k.t, UINT64_MAX);
	test_loop_pass(lp, &tc, 1000 * NS_PER_S);
	cr_assert_eq(k.fired, 0);
	timer_cancel(&k.t);
}

Test(timer, a_manual_clock_never_sleeps)
{
	struct tick k = { .fired = 0 };

	timer_init(&k.t, lp, tick_fn);
	timer_arm(&k.t, 1000 * NS_PER_S);
	cr_assert_not(loop_turn(lp, true));
	timer_cancel(&k.t);
}

/* Many timers, armed, moved and cancelled at random, against a plain array. */
#define MANY 500

static struct tick many[MANY];
static uint64_t due[MANY]; /* 0: not armed */

static void check_many(uint64_t now)
{
	unsigned i;

	for (i = 0; i < MANY; i++) {
		if (due[i] != 0 && due[i] <= now) {
			cr_assert_eq(many[i].fired, 1, "timer %u did not fire", i);
			many[i].fired = 0;
			due[i] = 0;
		}
		cr_assert_eq(many[i].fired, 0, "timer %u fired early", i);
		cr_assert_eq(timer_armed(&many[i].t), due[i] != 0);
	}
}

static uint64_t last_when;

static void in_order(struct timer *t)
{
	cr_assert_leq(last_when, t->when);
	last_when = t->when;
	tick_fn(t);
}

Test(timer, random_against_a_model)
{
	unsigned i, round, step;
	uint64_t delay;

	srand(4711);
	for (i = 0; i < MANY; i++)
		timer_init(&many[i].t, lp, in_order);
	for (round = 0; round < 400; round++) {
		for (step = 0; step < 100; step++) {
			i = (unsigned)rand() % MANY;
			if (rand() % 3 == 0) {
				timer_cancel(&many[i].t);
				due[i] = 0;
			} else {
				delay = 1 + (uint64_t)rand() % 1000;
				timer_arm(&many[i].t, delay);
				due[i] = loop_now(lp) + delay;
			}
		}
		test_loop_pass(lp, &tc, (uint64_t)rand() % 200);
		check_many(loop_now(lp));
	}
	for (i = 0; i < MANY; i++)
		timer_cancel(&many[i].t);
}

/* --- The real clock. */

TestSuite(timer_system);

Test(timer_system, wakes_a_sleeping_loop_in_time_and_never_early)
{
	struct tick k = { .fired = 0 }, earlier = { .fired = 0 }, later = { .fired = 0 };
	struct loop *sys;
	uint64_t t0;

	cr_assert_eq(loop_new(&sys, &clock_system), 0);
	timer_init(&k.t, sys, tick_fn);
	timer_init(&earlier.t, sys, tick_fn);
	timer_init(&later.t, sys, tick_fn);

	t0 = clock_system.monotonic(&clock_system);
	timer_arm(&later.t, 3600 * NS_PER_S);
	loop_turn(sys, false); /* the wake-up is set for `later` … */
	timer_arm(&earlier.t, NS_PER_MS);
	timer_arm(&k.t, 3 * NS_PER_MS);
	loop_turn(sys, false); /* … then for `earlier` … */
	timer_cancel(&earlier.t); /* … which goes away */
	while (k.fired == 0)
		loop_turn(sys, true);
	cr_assert_geq(k.at, t0 + 3 * NS_PER_MS);
	cr_assert_lt(k.at, t0 + 1800 * NS_PER_S);
	cr_assert_eq(earlier.fired, 0);
	cr_assert_lt(loop_counters(sys)->v[CTR_LOOP_TURNS], 12, "it does not spin");
	timer_cancel(&later.t);
	loop_free(&sys);
}

static void stop_loop(struct timer *t)
{
	loop_stop(t->loop, 5);
}

Test(timer_system, a_timer_can_stop_the_loop)
{
	struct loop *sys;
	struct timer t;

	cr_assert_eq(loop_new(&sys, &clock_system), 0);
	timer_init(&t, sys, stop_loop);
	timer_arm(&t, NS_PER_MS);
	cr_assert_eq(loop_run(sys), 5);
	loop_free(&sys);
}
