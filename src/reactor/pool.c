/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lanes belong to the loop: a lane's next job enters the ready queue when the
 * completion of the one before arrives.  So do shares: a job that finds its share
 * taken enters when another of the share has completed.  Shared with the threads, under
 * the lock, are the ready queue, the state of jobs in it, and `stopping`.
 */
#include "reactor/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "base/obj.h"
#include "reactor/loop.h"

TAILQ_HEAD(job_list, pool_job);

struct pool {
	uint32_t magic;
#define POOL_MAGIC 0x7a5c0004u
	struct loop *loop;
	struct mailbox *box;
	unsigned outstanding;
	unsigned nthreads; /* started */
	bool lock_ok, cond_ok;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct job_list ready; /* under lock */
	bool stopping;	       /* under lock */
	pthread_t threads[];
};

static void *worker(void *arg)
{
	struct pool *pl = arg;
	struct pool_job *job;

	pthread_mutex_lock(&pl->lock);
	for (;;) {
		while ((job = TAILQ_FIRST(&pl->ready)) == NULL && !pl->stopping)
			pthread_cond_wait(&pl->cond, &pl->lock);
		if (job == NULL)
			break;
		TAILQ_REMOVE(&pl->ready, job, link);
		job->state = POOL_JOB_TAKEN;
		pthread_mutex_unlock(&pl->lock);
		job->work(job);
		mailbox_post(pl->box, &job->mail);
		pthread_mutex_lock(&pl->lock);
	}
	pthread_mutex_unlock(&pl->lock);
	return NULL;
}

/* The threads inherit the mask: signals are the loop's, except those that a
 * thread brings on itself. */
static int start_threads(struct pool *pl, unsigned threads)
{
	sigset_t block, old;
	int err = 0;

	sigfillset(&block);
	sigdelset(&block, SIGSEGV);
	sigdelset(&block, SIGBUS);
	sigdelset(&block, SIGFPE);
	sigdelset(&block, SIGILL);
	sigdelset(&block, SIGABRT);
	pthread_sigmask(SIG_SETMASK, &block, &old);
	while (pl->nthreads < threads && err == 0) {
		err = pthread_create(&pl->threads[pl->nthreads], NULL, worker, pl);
		if (err == 0)
			pthread_setname_np(pl->threads[pl->nthreads++], "batonfs-pool");
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -err;
}

int pool_new(struct pool **out, struct loop *lp, unsigned threads)
{
	struct pool *pl;
	int err;

	*out = NULL;
	if (threads == 0)
		return -EINVAL;
	pl = calloc(1, sizeof(*pl) + threads * sizeof(pl->threads[0]));
	if (pl == NULL)
		return -ENOMEM;
	pl->magic = POOL_MAGIC;
	pl->loop = lp;
	TAILQ_INIT(&pl->ready);
	err = -pthread_mutex_init(&pl->lock, NULL);
	if (err < 0)
		goto fail;
	pl->lock_ok = true;
	err = -pthread_cond_init(&pl->cond, NULL);
	if (err < 0)
		goto fail;
	pl->cond_ok = true;
	err = mailbox_new(&pl->box, lp);
	if (err < 0)
		goto fail;
	err = start_threads(pl, threads);
	if (err < 0)
		goto fail;
	*out = pl;
	return 0;
fail:
	pool_free(&pl);
	return err;
}

void pool_free(struct pool **plp)
{
	struct pool *pl;

	TAKE_OBJ(pl, plp, POOL_MAGIC);
	assert(pl->outstanding == 0);
	if (pl->nthreads > 0) {
		pthread_mutex_lock(&pl->lock);
		pl->stopping = true;
		pthread_cond_broadcast(&pl->cond);
		pthread_mutex_unlock(&pl->lock);
	}
	while (pl->nthreads > 0)
		pthread_join(pl->threads[--pl->nthreads], NULL);
	if (pl->box != NULL)
		mailbox_free(&pl->box);
	if (pl->cond_ok)
		pthread_cond_destroy(&pl->cond);
	if (pl->lock_ok)
		pthread_mutex_destroy(&pl->lock);
	FREE_OBJ(pl);
}

void pool_lane_init(struct pool_lane *lane)
{
	TAILQ_INIT(&lane->waiting);
	lane->running = NULL;
}

bool pool_lane_idle(const struct pool_lane *lane)
{
	return lane->running == NULL && TAILQ_EMPTY(&lane->waiting);
}

void pool_share_init(struct pool_share *share, unsigned most)
{
	TAILQ_INIT(&share->waiting);
	share->most = most;
	share->taken = 0;
}

static void make_ready(struct pool *pl, struct pool_job *job)
{
	struct pool_share *share = job->share;

	job->held = share != NULL && share->taken >= share->most;
	if (job->held) {
		TAILQ_INSERT_TAIL(&share->waiting, job, link);
		return;
	}
	job->in_share = share != NULL;
	if (share != NULL)
		share->taken++;
	pthread_mutex_lock(&pl->lock);
	TAILQ_INSERT_TAIL(&pl->ready, job, link);
	pthread_mutex_unlock(&pl->lock);
	/* Behind the lock, which who wakes would wait for. */
	pthread_cond_signal(&pl->cond);
}

static void lane_advance(struct pool *pl, struct pool_lane *lane)
{
	struct pool_job *job = TAILQ_FIRST(&lane->waiting);

	lane->running = job;
	if (job == NULL)
		return;
	TAILQ_REMOVE(&lane->waiting, job, link);
	make_ready(pl, job);
}

static void share_advance(struct pool *pl, struct pool_share *share)
{
	struct pool_job *job = TAILQ_FIRST(&share->waiting);

	assert(share->taken > 0);
	share->taken--;
	if (job == NULL)
		return;
	TAILQ_REMOVE(&share->waiting, job, link);
	make_ready(pl, job);
}

/* The job leaves the pool; its share and its lane go on. */
static void job_out(struct pool_job *job)
{
	struct pool *pl = job->pool;
	struct pool_lane *lane = job->lane;
	bool in_share = job->in_share;

	assert(pl->outstanding > 0);
	pl->outstanding--;
	loop_counters(pl->loop)->v[CTR_POOL_QUEUED]--;
	job->state = POOL_JOB_IDLE;
	job->pool = NULL;
	job->lane = NULL;
	job->in_share = job->held = false;
	if (in_share)
		share_advance(pl, job->share); /* who waits for it came first */
	if (lane == NULL)
		return;
	if (lane->running == job)
		lane_advance(pl, lane);
	else
		TAILQ_REMOVE(&lane->waiting, job, link);
}

static void job_done(struct mail *m)
{
	struct pool_job *job = container_of(m, struct pool_job, mail);

	CHECK_OBJ(job->pool, POOL_MAGIC);
	assert(job->state == POOL_JOB_TAKEN);
	job_out(job);
	job->done(job);
}

void pool_submit(struct pool *pl, struct pool_lane *lane, struct pool_job *job,
    void (*work)(struct pool_job *job), void (*done)(struct pool_job *job))
{
	pool_submit_share(pl, NULL, lane, job, work, done);
}

void pool_submit_share(struct pool *pl, struct pool_share *share, struct pool_lane *lane,
    struct pool_job *job, void (*work)(struct pool_job *job),
    void (*done)(struct pool_job *job))
{
	CHECK_OBJ(pl, POOL_MAGIC);
	assert(job->state == POOL_JOB_IDLE && work != NULL && done != NULL);
	job->mail.fn = job_done;
	job->pool = pl;
	job->lane = lane;
	job->share = share;
	job->in_share = job->held = false;
	job->work = work;
	job->done = done;
	job->result = 0;
	job->state = POOL_JOB_QUEUED;
	pl->outstanding++;
	loop_counters(pl->loop)->v[CTR_POOL_QUEUED]++;
	if (lane == NULL) {
		make_ready(pl, job);
	} else {
		TAILQ_INSERT_TAIL(&lane->waiting, job, link);
		if (lane->running == NULL)
			lane_advance(pl, lane);
	}
}

bool pool_recall(struct pool_job *job)
{
	struct pool *pl = job->pool;
	bool queued;

	if (pl == NULL)
		return false;
	CHECK_OBJ(pl, POOL_MAGIC);
	pthread_mutex_lock(&pl->lock);
	queued = job->state == POOL_JOB_QUEUED;
	if (queued && !job->held && (job->lane == NULL || job->lane->running == job))
		TAILQ_REMOVE(&pl->ready, job, link);
	pthread_mutex_unlock(&pl->lock);
	if (queued && job->held)
		TAILQ_REMOVE(&job->share->waiting, job, link);
	if (queued)
		job_out(job);
	return queued;
}

unsigned pool_outstanding(const struct pool *pl)
{
	CHECK_OBJ(pl, POOL_MAGIC);
	return pl->outstanding;
}
