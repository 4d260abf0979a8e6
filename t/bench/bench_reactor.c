/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the loop's parts cost, in nanoseconds an operation, beside few and beside
 * many idle timers, tasks and descriptors: nothing may grow with their number.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/obj.h"
#include "base/units.h"
#include "reactor/loop.h"
#include "reactor/pool.h"
#include "reactor/task.h"
#include "reactor/timer.h"

#define FEW 1u
#define MANY 100000u
#define ROUNDS 300000u
#define BATCH 64u

static struct loop *lp;

static uint64_t now(void)
{
	return clock_system.monotonic(&clock_system);
}

static void die(const char *what)
{
	fprintf(stderr, "bench_reactor: %s failed\n", what);
	exit(1);
}

/* --- The things measured; each returns nanoseconds an operation. */

static void deferred_fn(struct deferred *d)
{
	(void)d;
}

static double bench_deferred(void)
{
	static struct deferred d[BATCH];
	uint64_t t0 = now();
	unsigned i, k;

	for (i = 0; i < ROUNDS / BATCH; i++) {
		for (k = 0; k < BATCH; k++)
			loop_defer(lp, &d[k], deferred_fn);
		loop_turn(lp, false);
	}
	return (double)(now() - t0) / (double)(i * BATCH);
}

static double bench_turn(void)
{
	uint64_t t0 = now();
	unsigned i;

	for (i = 0; i < ROUNDS; i++)
		loop_turn(lp, false);
	return (double)(now() - t0) / ROUNDS;
}

static enum task_next step_go(struct task *t)
{
	return task_goto(t, 1);
}

static enum task_next step_wait(struct task *t)
{
	return task_wait(t, 2, NULL);
}

static enum task_next step_end(struct task *t)
{
	return task_end(t);
}

static void task_fini(struct task *t)
{
	(void)t;
}

static const struct task_step steps[] = {
	{ "go", step_go, TO(1) },
	{ "wait", step_wait, TO(2) },
	{ "end", step_end, 0 },
};
static const struct task_kind kind = { "bench", steps, ARRAY_LEN(steps), task_fini };

/* Start, three steps, one wait. */
static double bench_task(void)
{
	static struct task t[BATCH];
	uint64_t t0 = now();
	unsigned i, k;

	for (i = 0; i < ROUNDS / BATCH; i++) {
		for (k = 0; k < BATCH; k++)
			task_start(&t[k], lp, &kind);
		loop_turn(lp, false);
		for (k = 0; k < BATCH; k++)
			task_resume(&t[k]);
		loop_turn(lp, false);
	}
	return (double)(now() - t0) / (double)(i * BATCH);
}

static void timer_fn(struct timer *t)
{
	(void)t;
}

static double bench_timer(void)
{
	static struct timer t[BATCH];
	uint64_t t0;
	unsigned i, k;

	for (k = 0; k < BATCH; k++)
		timer_init(&t[k], lp, timer_fn);
	t0 = now();
	for (i = 0; i < ROUNDS / BATCH; i++) {
		for (k = 0; k < BATCH; k++)
			timer_arm(&t[k], (uint64_t)(rand() % 1000 + 1) * NS_PER_S);
		for (k = 0; k < BATCH; k++)
			timer_cancel(&t[k]);
		loop_turn(lp, false);
	}
	return (double)(now() - t0) / (double)(i * BATCH);
}

static void work(struct pool_job *j)
{
	(void)j;
}

static double pool_rounds(unsigned width, struct pool_lane *lane)
{
	static struct pool_job j[BATCH];
	struct pool *pl;
	uint64_t t0, t1;
	unsigned i, k;

	if (pool_new(&pl, lp, 2) < 0)
		die("pool_new");
	t0 = now();
	for (i = 0; i < ROUNDS / 10 / width; i++) {
		for (k = 0; k < width; k++)
			pool_submit(pl, lane, &j[k], work, work);
		while (pool_outstanding(pl) > 0)
			loop_turn(lp, true);
	}
	t1 = now();
	pool_free(&pl);
	return (double)(t1 - t0) / (double)(i * width);
}

static double bench_pool_one(void)
{
	return pool_rounds(1, NULL);
}

static double bench_pool_many(void)
{
	return pool_rounds(BATCH, NULL);
}

static double bench_pool_lane(void)
{
	struct pool_lane lane;

	pool_lane_init(&lane);
	return pool_rounds(BATCH, &lane);
}

static const struct {
	const char *what;
	double (*fn)(void);
} benches[] = {
	{ "turn with nothing to do", bench_turn },
	{ "deferred call", bench_deferred },
	{ "task: start, 3 steps, 1 wait, end", bench_task },
	{ "timer: arm and cancel", bench_timer },
	{ "pool round trip, one job", bench_pool_one },
	{ "pool job, 64 at a time", bench_pool_many },
	{ "pool job, 64 in one lane", bench_pool_lane },
};

/* --- Idle company. */

static struct timer idle_timers[MANY];
static struct task idle_tasks[MANY];
static struct loop_fd idle_fds[MANY];
static unsigned idle_nfds;

static void fd_fn(struct loop_fd *lf, unsigned what)
{
	(void)lf;
	(void)what;
}

static void idle_fds_start(unsigned n)
{
	struct rlimit rl;
	int fd;

	if (getrlimit(RLIMIT_NOFILE, &rl) == 0)
		n = MIN(n, (unsigned)MIN(rl.rlim_cur, MANY) - 100);
	for (idle_nfds = 0; idle_nfds < n; idle_nfds++) {
		fd = eventfd(0, EFD_CLOEXEC);
		if (fd < 0)
			die("eventfd");
		if (loop_fd_init(&idle_fds[idle_nfds], lp, fd, fd_fn) < 0 ||
		    loop_fd_want(&idle_fds[idle_nfds], LOOP_READ) < 0)
			die("loop_fd_want");
	}
}

static void idle_start(unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		timer_init(&idle_timers[i], lp, timer_fn);
		timer_arm(&idle_timers[i], (uint64_t)(rand() % 1000 + 1000) * NS_PER_S);
		task_start(&idle_tasks[i], lp, &kind);
	}
	idle_fds_start(n);
	while (loop_turn(lp, false))
		;
}

static void idle_stop(unsigned n)
{
	unsigned i;
	int fd;

	for (i = 0; i < n; i++) {
		timer_cancel(&idle_timers[i]);
		task_resume(&idle_tasks[i]);
	}
	for (i = 0; i < idle_nfds; i++) {
		fd = idle_fds[i].fd;
		loop_fd_fini(&idle_fds[i]);
		close(fd);
	}
	while (loop_turn(lp, false))
		;
}

int main(void)
{
	double few[ARRAY_LEN(benches)], many[ARRAY_LEN(benches)];
	unsigned i, fds;

	if (loop_new(&lp, &clock_system) < 0)
		die("loop_new");
	idle_start(FEW);
	for (i = 0; i < ARRAY_LEN(benches); i++)
		few[i] = benches[i].fn();
	idle_stop(FEW);
	idle_start(MANY);
	fds = idle_nfds;
	for (i = 0; i < ARRAY_LEN(benches); i++)
		many[i] = benches[i].fn();
	idle_stop(MANY);
	loop_free(&lp);

	printf("few: %u, many: %u idle timers and tasks, %u descriptors\n", FEW, MANY, fds);
	printf("%-36s %9s %9s\n", "ns", "few", "many");
	for (i = 0; i < ARRAY_LEN(benches); i++)
		printf("%-36s %9.0f %9.0f\n", benches[i].what, few[i], many[i]);
	return 0;
}
