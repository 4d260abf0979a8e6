/* SPDX-License-Identifier: BSD-2-Clause */
#include "cache/cache_priv.h"

/* Rows are read by jobs of the index lane, one after the other: behind them all is
 * when they are there. */
static void loaded_work(struct pool_job *job)
{
	(void)job;
}

static void loaded_done(struct pool_job *job);

static void submit(struct cache *c, struct cache_loaded *w)
{
	if (c->slow) {
		c->jobs++;
		pool_submit(c->env.pool, NULL, &w->job, loaded_work, loaded_done);
	} else {
		cache_job(c, &c->index_lane, &w->job, loaded_work, loaded_done);
	}
}

static void loaded_done(struct pool_job *job)
{
	struct cache_loaded *w = container_of(job, struct cache_loaded, job);
	struct cache *c = w->cache;

	if (w->again && !c->slow) {
		w->again = false;
		submit(c, w);
	} else {
		TAILQ_REMOVE(&c->loaded, w, link);
		w->done(w);
	}
	cache_job_done(c);
}

void cache_when_loaded(struct cache *c, struct cache_loaded *w,
    void (*done)(struct cache_loaded *w))
{
	CHECK_OBJ(c, CACHE_MAGIC);
	memset(&w->job, 0, sizeof(w->job));
	w->cache = c;
	w->done = done;
	w->again = c->state == STORE_OPENING;
	TAILQ_INSERT_TAIL(&c->loaded, w, link);
	submit(c, w);
}

void loaded_go_past(struct cache *c)
{
	struct cache_loaded *w, *next;

	TAILQ_FOREACH_SAFE(w, &c->loaded, link, next) {
		if (pool_recall(&w->job)) {
			c->jobs--;
			submit(c, w);
		}
	}
}
