/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The offload pool: threads for work that may block (disk, LMDB with fsync,
 * getaddrinfo-like calls).  `work` runs in a pool thread and touches only its
 * job; `done` runs on the loop, once.  Jobs of one lane run one at a time in the
 * order they were submitted (the lane of a file orders its writes); jobs without
 * a lane run side by side.  Submitting never blocks and never fails: jobs are
 * embedded by their user, so the queue is bounded by what its users bound
 * (memory.limit for pages, requests the kernel has outstanding for the rest).
 *
 * Work of one sort may be given a share: no more than so many threads at one time.
 * So what waits for a disk that does not answer leaves the other threads to the rest.
 */
#ifndef REACTOR_POOL_H
#define REACTOR_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/queue.h"
#include "reactor/mailbox.h"

struct loop;
struct pool;
struct pool_job;

struct pool_lane {
	TAILQ_HEAD(, pool_job) waiting;
	struct pool_job *running;
};

void pool_lane_init(struct pool_lane *lane);
bool pool_lane_idle(const struct pool_lane *lane);

struct pool_share {
	unsigned most, taken; /* threads */
	TAILQ_HEAD(, pool_job) waiting;
};

void pool_share_init(struct pool_share *share, unsigned most);

enum pool_job_state { POOL_JOB_IDLE, POOL_JOB_QUEUED, POOL_JOB_TAKEN };

struct pool_job {
	struct mail mail;
	TAILQ_ENTRY(pool_job) link;
	struct pool *pool;
	struct pool_lane *lane;
	struct pool_share *share;
	bool in_share, held; /* has taken its place in the share; waits for one */
	void (*work)(struct pool_job *job); /* pool thread */
	void (*done)(struct pool_job *job); /* loop */
	int result;			    /* for work to set and done to read */
	enum pool_job_state state;
};

int pool_new(struct pool **out, struct loop *lp, unsigned threads);
/* Waits for the threads.  No job may be outstanding (asserted). */
void pool_free(struct pool **pl);

/* job must be zeroed, finished or recalled before; lane may be NULL.  In done the
 * job has left the pool: it may be freed or submitted again. */
void pool_submit(struct pool *pl, struct pool_lane *lane, struct pool_job *job,
    void (*work)(struct pool_job *job), void (*done)(struct pool_job *job));
/* The same within a share. */
void pool_submit_share(struct pool *pl, struct pool_share *share, struct pool_lane *lane,
    struct pool_job *job, void (*work)(struct pool_job *job),
    void (*done)(struct pool_job *job));
/* True if the job was taken back before it began: done will not be called.  False
 * also for a job that is not in a pool. */
bool pool_recall(struct pool_job *job);
/* Jobs queued or running whose done has not been called. */
unsigned pool_outstanding(const struct pool *pl);

#endif
