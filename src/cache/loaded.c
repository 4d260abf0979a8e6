/* SPDX-License-Identifier: BSD-2-Clause */
#include "cache/cache_priv.h"

/* Rows are read by jobs of the index lane, one after the other: behind them all is
 * when they are there. */
static void loaded_work(struct pool_job *job)
{
	(void)job;
}

static void loaded_done(struct pool_job *job)
{
	struct cache_loaded *w = container_of(job, struct cache_loaded, job);
	struct cache *c = w->cache;

	if (w->again) {
		w->again = false;
		cache_job(c, &c->index_lane, &w->job, loaded_work, loaded_done);
	} else {
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
	cache_job(c, &c->index_lane, &w->job, loaded_work, loaded_done);
}
