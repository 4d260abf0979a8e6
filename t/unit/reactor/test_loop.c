/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "../../lib/nth_fault.h"
#include "../../lib/test_clock.h"
#include "base/obj.h"
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
	cr_assert_null(lp);
}

TestSuite(loop, .init = setup, .fini = teardown);
/* Units that end in an assertion of the product. */
TestSuite(loop_abort, .init = setup);

/* A deferred call that notes its letter and may defer another. */
struct call {
	struct deferred d;
	char letter;
	struct call *then;
};

static char trace[64];

static void note(char c)
{
	size_t n = strlen(trace);

	cr_assert_lt(n + 1, sizeof(trace));
	trace[n] = c;
}

static void call_fn(struct deferred *d)
{
	struct call *c = container_of(d, struct call, d);

	note(c->letter);
	if (c->then != NULL)
		loop_defer(lp, &c->then->d, call_fn);
}

Test(loop, deferred_calls_run_in_order_and_nested_ones_in_the_same_turn)
{
	struct call c = { .letter = 'c' }, a = { .letter = 'a', .then = &c }, b = { .letter = 'b' };

	loop_defer(lp, &a.d, call_fn);
	loop_defer(lp, &b.d, call_fn);
	loop_defer(lp, &a.d, call_fn); /* keeps its place, runs once */
	cr_assert(loop_turn(lp, true));
	cr_assert_str_eq(trace, "abc");
	cr_assert_not(loop_turn(lp, false));
	cr_assert_str_eq(trace, "abc");
}

Test(loop, undefer_takes_back)
{
	struct call a = { .letter = 'a' }, b = { .letter = 'b' };

	loop_undefer(lp, &a.d);
	loop_defer(lp, &a.d, call_fn);
	loop_defer(lp, &b.d, call_fn);
	loop_undefer(lp, &a.d);
	cr_assert_not(a.d.queued);
	loop_turn(lp, false);
	cr_assert_str_eq(trace, "b");
}

struct hook {
	struct turn_hook h;
	char letter;
	struct call *defers;
	struct hook *removes;
};

static void hook_fn(struct turn_hook *th)
{
	struct hook *h = container_of(th, struct hook, h);
	struct call *c = h->defers;

	note(h->letter);
	h->defers = NULL;
	if (c != NULL)
		loop_defer(lp, &c->d, call_fn);
	if (h->removes != NULL)
		loop_hook_remove(lp, &h->removes->h);
	h->removes = NULL;
}

Test(loop, hooks_run_last_and_what_they_defer_runs_next_turn_at_once)
{
	struct call a = { .letter = 'a' }, b = { .letter = 'b' };
	struct hook x = { .letter = 'x', .defers = &b }, y = { .letter = 'y' };
	int p[2];
	struct loop_fd lf;

	/* A descriptor that never becomes ready: a turn that waits would hang. */
	cr_assert_eq(pipe(p), 0);
	cr_assert_eq(loop_fd_init(&lf, lp, p[0], NULL), 0);
	cr_assert_eq(loop_fd_want(&lf, LOOP_READ), 0);

	loop_hook_add(lp, &x.h, hook_fn);
	loop_hook_add(lp, &y.h, hook_fn);
	loop_defer(lp, &a.d, call_fn);
	loop_turn(lp, true);
	cr_assert_str_eq(trace, "axy");
	loop_turn(lp, true);
	cr_assert_str_eq(trace, "axybxy");

	loop_hook_remove(lp, &x.h);
	loop_hook_remove(lp, &y.h);
	loop_fd_fini(&lf);
	close(p[0]);
	close(p[1]);
}

Test(loop, hooks_may_remove_themselves_and_the_next)
{
	struct hook x = { .letter = 'x' }, y = { .letter = 'y' }, z = { .letter = 'z' };

	x.removes = &y;
	z.removes = &z;
	loop_hook_add(lp, &x.h, hook_fn);
	loop_hook_add(lp, &y.h, hook_fn);
	loop_hook_add(lp, &z.h, hook_fn);
	loop_turn(lp, false);
	loop_turn(lp, false);
	cr_assert_str_eq(trace, "xzx");
	loop_hook_remove(lp, &x.h);
}

/* --- Descriptors. */

struct watch {
	struct loop_fd lf;
	unsigned seen, calls;
	struct watch *fini; /* to be taken down in the call back */
};

static void watch_fn(struct loop_fd *lf, unsigned what)
{
	struct watch *w = container_of(lf, struct watch, lf);

	w->seen |= what;
	w->calls++;
	if (w->fini != NULL)
		loop_fd_fini(&w->fini->lf);
}

Test(loop, descriptors_report_what_is_wanted)
{
	struct watch r = { .calls = 0 }, w = { .calls = 0 };
	char c;
	int p[2];

	cr_assert_eq(pipe2(p, O_NONBLOCK), 0);
	cr_assert_eq(loop_fd_init(&r.lf, lp, p[0], watch_fn), 0);
	cr_assert_eq(loop_fd_init(&w.lf, lp, p[1], watch_fn), 0);

	cr_assert_eq(write(p[1], "x", 1), 1);
	cr_assert_not(loop_turn(lp, false), "watched although nothing is wanted");
	cr_assert_eq(loop_fd_want(&r.lf, LOOP_READ), 0);
	cr_assert(loop_turn(lp, true));
	cr_assert_eq(r.seen, LOOP_READ);
	cr_assert(loop_turn(lp, true), "level triggered");
	cr_assert_eq(r.calls, 2);
	cr_assert_eq(read(p[0], &c, 1), 1);
	cr_assert_not(loop_turn(lp, false));

	cr_assert_eq(loop_fd_want(&w.lf, LOOP_WRITE), 0);
	loop_turn(lp, true);
	cr_assert_eq(w.seen, LOOP_WRITE);
	cr_assert_eq(w.calls, 1);
	cr_assert_eq(loop_fd_want(&w.lf, 0), 0);
	cr_assert_not(loop_turn(lp, false));

	loop_fd_fini(&r.lf);
	loop_fd_fini(&r.lf); /* twice is fine */
	loop_fd_fini(&w.lf);
	close(p[0]);
	close(p[1]);
}

Test(loop, a_watcher_taken_down_by_another_ones_callback_is_not_called)
{
	struct watch a = { .calls = 0 }, b = { .calls = 0 };
	int p[2], q[2];

	cr_assert_eq(pipe(p), 0);
	cr_assert_eq(pipe(q), 0);
	cr_assert_eq(write(p[1], "x", 1), 1);
	cr_assert_eq(write(q[1], "x", 1), 1);
	cr_assert_eq(loop_fd_init(&a.lf, lp, p[0], watch_fn), 0);
	cr_assert_eq(loop_fd_init(&b.lf, lp, q[0], watch_fn), 0);
	cr_assert_eq(loop_fd_want(&a.lf, LOOP_READ), 0);
	cr_assert_eq(loop_fd_want(&b.lf, LOOP_READ), 0);
	a.fini = &b;
	b.fini = &a;
	loop_turn(lp, true);
	cr_assert_eq(a.calls + b.calls, 1);
	loop_fd_fini(&a.lf);
	loop_fd_fini(&b.lf);
	close(p[0]);
	close(p[1]);
	close(q[0]);
	close(q[1]);
}

Test(loop, a_watcher_may_take_itself_down)
{
	struct watch a = { .calls = 0 };
	int p[2];

	cr_assert_eq(pipe(p), 0);
	close(p[1]);
	cr_assert_eq(loop_fd_init(&a.lf, lp, p[0], watch_fn), 0);
	cr_assert_eq(loop_fd_want(&a.lf, LOOP_READ), 0);
	a.fini = &a;
	loop_turn(lp, true);
	loop_turn(lp, false);
	cr_assert_eq(a.calls, 1);
	close(p[0]);
}

Test(loop, a_regular_file_cannot_be_watched)
{
	struct watch a = { .calls = 0 };
	FILE *f = tmpfile();

	cr_assert_not_null(f);
	cr_assert_eq(loop_fd_init(&a.lf, lp, fileno(f), watch_fn), 0);
	cr_assert_eq(loop_fd_want(&a.lf, LOOP_READ), -EPERM);
	cr_assert_eq(loop_fd_want(&a.lf, 0), 0);
	loop_fd_fini(&a.lf);
	fclose(f);
}

/* Defers itself for ever. */
static void again(struct deferred *d)
{
	loop_defer(lp, d, again);
}

Test(loop, endless_deferred_work_does_not_starve_descriptors)
{
	struct deferred d = { .queued = false };
	struct watch r = { .calls = 0 };
	int p[2];

	cr_assert_eq(pipe(p), 0);
	cr_assert_eq(loop_fd_init(&r.lf, lp, p[0], watch_fn), 0);
	cr_assert_eq(loop_fd_want(&r.lf, LOOP_READ), 0);
	loop_defer(lp, &d, again);
	loop_turn(lp, true);
	cr_assert_eq(write(p[1], "x", 1), 1);
	loop_turn(lp, true);
	cr_assert_eq(r.calls, 1);
	loop_undefer(lp, &d);
	loop_fd_fini(&r.lf);
	close(p[0]);
	close(p[1]);
}

/* --- Signals, clock, run and stop. */

static void on_signal(struct loop_signal *ls)
{
	loop_stop(ls->loop, ls->signo);
	loop_stop(ls->loop, -1); /* the first counts */
}

Test(loop, a_signal_arrives_and_run_returns_what_stop_was_given)
{
	struct loop_signal ls;

	cr_assert_eq(loop_signal_init(&ls, lp, SIGUSR1, on_signal), 0);
	raise(SIGUSR1);
	cr_assert_eq(loop_run(lp), SIGUSR1);
	loop_signal_fini(&ls);
	loop_signal_fini(&ls);
	cr_assert_eq(signal(SIGUSR1, SIG_IGN), SIG_DFL, "the handler was put back");
}

Test(loop, impossible_signal)
{
	struct loop_signal ls;

	cr_assert_lt(loop_signal_init(&ls, lp, SIGKILL, on_signal), 0);
	loop_signal_fini(&ls);
}

Test(loop, stop_before_run_counts_once)
{
	struct call a = { .letter = 'a' };

	loop_stop(lp, 7);
	loop_defer(lp, &a.d, call_fn);
	cr_assert_eq(loop_run(lp), 7);
	cr_assert_str_eq(trace, "", "no turn after the stop");
	loop_turn(lp, false);
	cr_assert_str_eq(trace, "a");
}

static uint64_t seen_now[2];

static void move_clock(struct deferred *d)
{
	(void)d;
	seen_now[0] = loop_now(lp);
	test_clock_advance(&tc, 5);
	seen_now[1] = loop_now(lp);
}

Test(loop, now_stands_still_in_a_turn_and_moves_between_turns)
{
	struct deferred d = { .queued = false };
	uint64_t t0 = loop_now(lp);

	test_clock_advance(&tc, 3);
	cr_assert_eq(loop_now(lp), t0 + 3);
	loop_defer(lp, &d, move_clock);
	loop_turn(lp, false);
	cr_assert_eq(seen_now[0], t0 + 3);
	cr_assert_eq(seen_now[1], t0 + 3);
	cr_assert_eq(loop_now(lp), t0 + 8);
	cr_assert_eq(loop_wall(lp), tc.wall_ns);
	cr_assert_eq(loop_clock(lp), &tc.clk);
}

Test(loop, turns_are_counted)
{
	loop_turn(lp, false);
	loop_turn(lp, false);
	cr_assert_eq(loop_counters(lp)->v[CTR_LOOP_TURNS], 2);
}

Test(loop, nothing_to_wait_for_on_a_manual_clock_returns)
{
	cr_assert_not(loop_turn(lp, true));
}

/* --- Failing allocations. */

static int fault_err;
static int fault_pipe[2];

static void fault_run(void)
{
	struct loop *l = NULL;
	struct watch w = { .calls = 0 };
	struct loop_signal ls = { .signo = 0 };

	fault_err = loop_new(&l, &clock_system);
	if (fault_err == 0)
		fault_err = loop_fd_init(&w.lf, l, fault_pipe[0], watch_fn);
	if (fault_err == 0)
		fault_err = loop_fd_want(&w.lf, LOOP_READ);
	if (fault_err == 0)
		fault_err = loop_signal_init(&ls, l, SIGUSR2, on_signal);
	if (fault_err == 0)
		loop_turn(l, false);
	nth_disarm();
	loop_fd_fini(&w.lf);
	loop_signal_fini(&ls);
	if (l != NULL)
		loop_free(&l);
}

Test(loop, each_allocation_may_fail)
{
	unsigned n;

	cr_assert_eq(pipe(fault_pipe), 0);
	for (n = 1; nth_arm(n), fault_run(), nth_fired(); n++)
		cr_assert_leq(fault_err, 0, "allocation %u: %d", n, fault_err);
	cr_assert_eq(fault_err, 0);
	cr_assert_gt(n, 5, "the rig sees libevent's allocations");
	close(fault_pipe[0]);
	close(fault_pipe[1]);
}

/* --- What is left behind is a bug of its owner. */

static void timer_fn(struct timer *t)
{
	(void)t;
}

Test(loop_abort, timer_left, .signal = SIGABRT)
{
	struct timer t;

	timer_init(&t, lp, timer_fn);
	timer_arm(&t, 1);
	loop_free(&lp);
}

Test(loop_abort, deferred_left, .signal = SIGABRT)
{
	struct deferred d = { .queued = false };

	loop_defer(lp, &d, again);
	loop_free(&lp);
}

Test(loop_abort, hook_left, .signal = SIGABRT)
{
	struct hook h = { .letter = 'h' };

	loop_hook_add(lp, &h.h, hook_fn);
	loop_free(&lp);
}

Test(loop_abort, descriptor_left, .signal = SIGABRT)
{
	struct watch w;

	loop_fd_init(&w.lf, lp, 0, watch_fn);
	loop_free(&lp);
}

Test(loop_abort, signal_left, .signal = SIGABRT)
{
	struct loop_signal ls;

	loop_signal_init(&ls, lp, SIGUSR1, on_signal);
	loop_free(&lp);
}

static void nested_turn(struct deferred *d)
{
	(void)d;
	loop_turn(lp, false);
}

Test(loop_abort, turn_within_a_turn, .signal = SIGABRT)
{
	struct deferred d = { .queued = false };

	loop_defer(lp, &d, nested_turn);
	loop_turn(lp, false);
}
