/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "../../lib/nth_fault.h"
#include "../../lib/test_clock.h"
#include "base/obj.h"
#include "reactor/loop.h"
#include "reactor/pool.h"

static struct test_clock tc;
static struct loop *lp;
static pthread_t loop_thread;

static void setup(void)
{
	test_clock_init(&tc);
	loop_thread = pthread_self();
	cr_assert_eq(loop_new(&lp, &tc.clk), 0);
}

static void teardown(void)
{
	loop_free(&lp);
}

TestSuite(pool, .init = setup, .fini = teardown);
TestSuite(pool_abort, .init = setup);

static struct pool *pool_of(unsigned threads)
{
	struct pool *pl;

	cr_assert_eq(pool_new(&pl, lp, threads), 0);
	return pl;
}

static void drain(struct pool *pl)
{
	while (pool_outstanding(pl) > 0)
		loop_turn(lp, true);
}

struct job {
	struct pool_job j;
	sem_t *begun, *may_end; /* NULL: do not stop */
	unsigned done, order;
};

static unsigned done_total;

static void work(struct pool_job *pj)
{
	struct job *jb = container_of(pj, struct job, j);

	pj->result = pthread_equal(pthread_self(), loop_thread) ? -EDEADLK : 42;
	if (jb->begun != NULL) {
		sem_post(jb->begun);
		sem_wait(jb->may_end);
	}
}

static void done(struct pool_job *pj)
{
	struct job *jb = container_of(pj, struct job, j);

	cr_assert(pthread_equal(pthread_self(), loop_thread));
	cr_assert_eq(pj->result, 42);
	jb->done++;
	jb->order = done_total++;
}

Test(pool, works_elsewhere_and_is_done_on_the_loop)
{
	struct pool *pl = pool_of(1);
	struct job jb = { .done = 0 };

	cr_assert_eq(pool_outstanding(pl), 0);
	pool_submit(pl, NULL, &jb.j, work, done);
	cr_assert_eq(pool_outstanding(pl), 1);
	cr_assert_eq(loop_counters(lp)->v[CTR_POOL_QUEUED], 1);
	drain(pl);
	cr_assert_eq(jb.done, 1);
	cr_assert_eq(loop_counters(lp)->v[CTR_POOL_QUEUED], 0);
	pool_submit(pl, NULL, &jb.j, work, done); /* again */
	drain(pl);
	cr_assert_eq(jb.done, 2);
	cr_assert_not(pool_recall(&jb.j));
	pool_free(&pl);
	cr_assert_null(pl);
}

Test(pool, no_threads_is_an_error)
{
	struct pool *pl;

	cr_assert_eq(pool_new(&pl, lp, 0), -EINVAL);
	cr_assert_null(pl);
}

static pthread_barrier_t meet;

static void work_meet(struct pool_job *pj)
{
	pj->result = 42;
	pthread_barrier_wait(&meet);
}

Test(pool, jobs_without_a_lane_run_side_by_side)
{
	struct pool *pl = pool_of(2);
	struct job a = { .done = 0 }, b = { .done = 0 };

	pthread_barrier_init(&meet, NULL, 2);
	pool_submit(pl, NULL, &a.j, work_meet, done);
	pool_submit(pl, NULL, &b.j, work_meet, done);
	drain(pl); /* hangs if one waits for the other */
	cr_assert_eq(a.done + b.done, 2);
	pthread_barrier_destroy(&meet);
	pool_free(&pl);
}

static atomic_int in_lane;
static atomic_uint lane_order;

struct lane_job {
	struct pool_job j;
	unsigned ran_as;
};

static void work_alone(struct pool_job *pj)
{
	struct lane_job *lj = container_of(pj, struct lane_job, j);

	pj->result = 42;
	if (atomic_fetch_add(&in_lane, 1) != 0)
		pj->result = -EBUSY;
	lj->ran_as = atomic_fetch_add(&lane_order, 1);
	atomic_fetch_sub(&in_lane, 1);
}

static void done_alone(struct pool_job *pj)
{
	cr_assert_eq(pj->result, 42, "two jobs of a lane at a time");
}

Test(pool, a_lane_runs_one_at_a_time_in_order)
{
	struct pool *pl = pool_of(4);
	struct pool_lane lane;
	static struct lane_job lj[200];
	unsigned i;

	pool_lane_init(&lane);
	cr_assert(pool_lane_idle(&lane));
	for (i = 0; i < ARRAY_LEN(lj); i++)
		pool_submit(pl, &lane, &lj[i].j, work_alone, done_alone);
	cr_assert_not(pool_lane_idle(&lane));
	drain(pl);
	cr_assert(pool_lane_idle(&lane));
	for (i = 0; i < ARRAY_LEN(lj); i++)
		cr_assert_eq(lj[i].ran_as, i);
	pool_free(&pl);
}

Test(pool, a_waiting_lane_does_not_hold_up_others)
{
	struct pool *pl = pool_of(2);
	struct pool_lane lane;
	struct job a = { .done = 0 }, b = { .done = 0 }, c = { .done = 0 };
	sem_t begun, go;

	sem_init(&begun, 0, 0);
	sem_init(&go, 0, 0);
	a.begun = &begun;
	a.may_end = &go;
	pool_lane_init(&lane);
	pool_submit(pl, &lane, &a.j, work, done);
	pool_submit(pl, &lane, &b.j, work, done);
	pool_submit(pl, NULL, &c.j, work, done);
	while (c.done == 0)
		loop_turn(lp, true);
	cr_assert_eq(a.done, 0);
	cr_assert_eq(b.done, 0);
	sem_post(&go);
	drain(pl);
	cr_assert_lt(a.order, b.order);
	pool_free(&pl);
}

Test(pool, recall_takes_back_what_has_not_begun)
{
	struct pool *pl = pool_of(1);
	struct pool_lane lane;
	struct job busy = { .done = 0 }, plain = { .done = 0 };
	struct job head = { .done = 0 }, mid = { .done = 0 }, tail = { .done = 0 };
	sem_t begun, go;

	sem_init(&begun, 0, 0);
	sem_init(&go, 0, 0);
	busy.begun = &begun;
	busy.may_end = &go;
	cr_assert_not(pool_recall(&plain.j), "never submitted");

	pool_submit(pl, NULL, &busy.j, work, done);
	sem_wait(&begun);
	pool_lane_init(&lane);
	pool_submit(pl, NULL, &plain.j, work, done);
	pool_submit(pl, &lane, &head.j, work, done);
	pool_submit(pl, &lane, &mid.j, work, done);
	pool_submit(pl, &lane, &tail.j, work, done);
	cr_assert_eq(pool_outstanding(pl), 5);

	cr_assert_not(pool_recall(&busy.j), "it runs");
	cr_assert(pool_recall(&plain.j));
	cr_assert_not(pool_recall(&plain.j), "it is out already");
	cr_assert(pool_recall(&mid.j));
	cr_assert(pool_recall(&head.j), "the lane's head, which waits for a thread");
	cr_assert_eq(pool_outstanding(pl), 2);
	cr_assert_not(pool_lane_idle(&lane));

	sem_post(&go);
	drain(pl);
	cr_assert_eq(busy.done, 1);
	cr_assert_eq(tail.done, 1);
	cr_assert_eq(plain.done + head.done + mid.done, 0);
	cr_assert(pool_lane_idle(&lane));

	pool_submit(pl, &lane, &head.j, work, done); /* a recalled job may come again */
	drain(pl);
	cr_assert_eq(head.done, 1);
	pool_free(&pl);
}

Test(pool, a_share_leaves_threads_to_the_rest)
{
	struct pool *pl = pool_of(3);
	struct pool_share share;
	struct pool_lane lane;
	struct job a = { .done = 0 }, b = { .done = 0 }, laned = { .done = 0 };
	struct job c = { .done = 0 }, other = { .done = 0 };
	sem_t begun, go;

	sem_init(&begun, 0, 0);
	sem_init(&go, 0, 0);
	a.begun = b.begun = &begun;
	a.may_end = b.may_end = &go;
	pool_lane_init(&lane);
	pool_share_init(&share, 2);
	pool_submit_share(pl, &share, &lane, &a.j, work, done);
	pool_submit_share(pl, &share, NULL, &b.j, work, done);
	sem_wait(&begun);
	sem_wait(&begun);
	pool_submit_share(pl, &share, NULL, &c.j, work, done);
	pool_submit_share(pl, &share, &lane, &laned.j, work, done);
	pool_submit(pl, NULL, &other.j, work, done);
	while (other.done == 0)
		loop_turn(lp, true);
	cr_assert_eq(a.done + b.done + c.done + laned.done, 0);
	cr_assert_eq(share.taken, 2);

	cr_assert(pool_recall(&c.j), "it waits for its share");
	cr_assert(TAILQ_EMPTY(&share.waiting));
	pool_submit_share(pl, &share, NULL, &c.j, work, done);
	sem_post(&go);
	sem_post(&go);
	drain(pl);
	cr_assert_eq(a.done + b.done + c.done + laned.done, 4);
	cr_assert_eq(share.taken, 0);
	cr_assert(pool_lane_idle(&lane));
	pool_free(&pl);
}

/* What is recalled from the ready queue gives its place to who waits for it. */
Test(pool, a_recalled_job_leaves_its_place_in_the_share)
{
	struct pool *pl = pool_of(1);
	struct pool_share share;
	struct job busy = { .done = 0 }, a = { .done = 0 }, b = { .done = 0 };
	sem_t begun, go;

	sem_init(&begun, 0, 0);
	sem_init(&go, 0, 0);
	busy.begun = &begun;
	busy.may_end = &go;
	pool_share_init(&share, 1);
	pool_submit(pl, NULL, &busy.j, work, done);
	sem_wait(&begun);
	pool_submit_share(pl, &share, NULL, &a.j, work, done);
	pool_submit_share(pl, &share, NULL, &b.j, work, done);
	cr_assert(b.j.held);
	cr_assert(pool_recall(&a.j));
	cr_assert_not(b.j.held);
	cr_assert_eq(share.taken, 1);
	sem_post(&go);
	drain(pl);
	cr_assert_eq(a.done, 0);
	cr_assert_eq(b.done, 1);
	cr_assert_eq(share.taken, 0);
	pool_free(&pl);
}

Test(pool, a_finished_job_whose_done_is_due_cannot_be_recalled)
{
	struct pool *pl = pool_of(1);
	struct job a = { .done = 0 }, b = { .done = 0 };
	sem_t begun, go;

	sem_init(&begun, 0, 0);
	sem_init(&go, 0, 1);
	b.begun = &begun;
	b.may_end = &go;
	pool_submit(pl, NULL, &a.j, work, done);
	pool_submit(pl, NULL, &b.j, work, done);
	sem_wait(&begun); /* the only thread is past a */
	cr_assert_not(pool_recall(&a.j));
	drain(pl);
	cr_assert_eq(done_total, 2);
	pool_free(&pl);
}

static void done_free(struct pool_job *pj)
{
	free(container_of(pj, struct job, j));
	done_total++;
}

Test(pool, a_job_may_be_freed_in_done_with_its_lane_going_on)
{
	struct pool *pl = pool_of(2);
	struct pool_lane lane;
	struct job *jb;
	unsigned i;

	pool_lane_init(&lane);
	for (i = 0; i < 10; i++) {
		jb = calloc(1, sizeof(*jb));
		cr_assert_not_null(jb);
		pool_submit(pl, &lane, &jb->j, work, done_free);
	}
	drain(pl);
	cr_assert_eq(done_total, 10);
	pool_free(&pl);
}

static void work_mask(struct pool_job *pj)
{
	sigset_t set;

	pthread_sigmask(SIG_SETMASK, NULL, &set);
	pj->result = sigismember(&set, SIGTERM) && sigismember(&set, SIGCHLD) &&
				     !sigismember(&set, SIGSEGV) ?
			     42 :
			     -EINVAL;
}

Test(pool, threads_take_no_signals_and_the_loops_mask_is_kept)
{
	struct job jb = { .done = 0 };
	struct pool *pl;
	sigset_t before, after;
	int sig;

	pthread_sigmask(SIG_SETMASK, NULL, &before);
	pl = pool_of(1);
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	for (sig = 1; sig < NSIG; sig++)
		cr_assert_eq(sigismember(&before, sig), sigismember(&after, sig));
	pool_submit(pl, NULL, &jb.j, work_mask, done);
	drain(pl);
	pool_free(&pl);
}

static struct pool *fault_pl;
static int fault_err;

static void fault_run(void)
{
	fault_err = pool_new(&fault_pl, lp, 2);
	nth_disarm();
	if (fault_err == 0)
		pool_free(&fault_pl);
}

Test(pool, each_allocation_may_fail)
{
	unsigned n;

	for (n = 1; nth_arm(n), fault_run(), nth_fired(); n++)
		if (fault_err != 0) {
			cr_assert(fault_err == -ENOMEM || fault_err == -EAGAIN);
			cr_assert_null(fault_pl);
		}
	cr_assert_eq(fault_err, 0);
	cr_assert_gt(n, 2);
}

Test(pool_abort, free_with_a_job_outstanding, .signal = SIGABRT)
{
	struct pool *pl = pool_of(1);
	struct job jb = { .done = 0 };

	pool_submit(pl, NULL, &jb.j, work, done);
	pool_free(&pl);
}

/* --- Everything at once: lanes, loners, resubmissions from done and recalls;
 * written to be run with the thread sanitizer too. */

#define STRESS_JOBS 256
#define STRESS_LANES 8
#define STRESS_ROUNDS 20000

struct stress_lane {
	struct pool_lane lane;
	unsigned long serial; /* no lock: the lane is what orders it */
};

struct stress_job {
	struct pool_job j;
	struct stress_lane *sl;
	unsigned long submitted, worked, finished;
};

static struct stress_lane stress_lanes[STRESS_LANES];
static struct stress_job stress_jobs[STRESS_JOBS];
static struct pool *stress_pool;
static unsigned stress_left, stress_recalled;

static void stress_work(struct pool_job *pj)
{
	struct stress_job *sj = container_of(pj, struct stress_job, j);

	sj->worked++;
	if (sj->sl != NULL)
		sj->sl->serial++;
}

static void stress_submit(struct stress_job *sj);

static void stress_done(struct pool_job *pj)
{
	struct stress_job *sj = container_of(pj, struct stress_job, j), *other;

	sj->finished++;
	cr_assert_eq(sj->finished, sj->worked);
	cr_assert_eq(sj->finished, sj->submitted);
	if (rand() % 8 == 0) {
		other = &stress_jobs[rand() % STRESS_JOBS];
		if (pool_recall(&other->j)) {
			other->submitted--;
			stress_recalled++;
			stress_submit(other);
		}
	}
	stress_submit(sj);
}

static void stress_submit(struct stress_job *sj)
{
	if (stress_left == 0)
		return;
	stress_left--;
	sj->sl = rand() % 2 ? &stress_lanes[rand() % STRESS_LANES] : NULL;
	sj->submitted++;
	pool_submit(stress_pool, sj->sl != NULL ? &sj->sl->lane : NULL, &sj->j, stress_work,
	    stress_done);
}

Test(pool, stress)
{
	unsigned long worked = 0, finished = 0, submitted = 0;
	unsigned i;

	srand(4711);
	stress_pool = pool_of(4);
	stress_left = STRESS_ROUNDS;
	for (i = 0; i < STRESS_LANES; i++)
		pool_lane_init(&stress_lanes[i].lane);
	for (i = 0; i < STRESS_JOBS; i++)
		stress_submit(&stress_jobs[i]);
	drain(stress_pool);
	for (i = 0; i < STRESS_JOBS; i++) {
		worked += stress_jobs[i].worked;
		finished += stress_jobs[i].finished;
		submitted += stress_jobs[i].submitted;
	}
	for (i = 0; i < STRESS_LANES; i++)
		cr_assert(pool_lane_idle(&stress_lanes[i].lane));
	cr_assert_eq(worked, finished);
	cr_assert_eq(worked, submitted);
	cr_assert_eq(worked + stress_recalled, STRESS_ROUNDS);
	cr_assert_gt(stress_recalled, 0);
	pool_free(&stress_pool);
}
