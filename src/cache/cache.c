/* SPDX-License-Identifier: BSD-2-Clause */
#include "cache/cache.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cache/cache_priv.h"

/* Checksums of recently used pages get a share of memory.limit. */
#define SUMS_SHARE 16

void cache_job(struct cache *c, struct pool_lane *lane, struct pool_job *job,
    void (*work)(struct pool_job *job), void (*done)(struct pool_job *job))
{
	c->jobs++;
	pool_submit_share(c->env.pool, &c->share, lane, job, work, done);
}

void cache_job_done(struct cache *c)
{
	assert(c->jobs > 0);
	c->jobs--;
	GAUGE_SET(c->env.loop, CACHE_USED_BYTES, c->used);
	store_check_broken(c);
	store_check_closed(c);
}

uint64_t cache_write_memory(const struct config *cfg)
{
	return config_memory_limit(cfg) / 4;
}

/* The longest read, its disk buffer, and one page for others to go on with. */
static int check_memory(const struct cache *c, uint64_t limit, struct errtext *et)
{
	uint64_t least = 3 * (uint64_t)c->page_size + 4 * (uint64_t)IO_SIZE;
	char have[32], need[32];

	least += least / SUMS_SHARE + MIB;
	if (c->env.writes)
		least += least / 3 + 1; /* cache_write_memory() comes on top */
	if (limit >= least)
		return 0;
	return errtext_set(et, -EINVAL,
	    "memory.limit: %s is too little for worker.page.store.page.size; at least %s",
	    units_format_size(limit, have, sizeof(have)),
	    units_format_size((least + MIB - 1) / MIB * MIB, need, sizeof(need)));
}

static unsigned files_limit(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) != 0)
		return 256;
	return (unsigned)MAX(MIN(rl.rlim_cur / 2, 65536), 16);
}

static void cache_init(struct cache *c, const struct cache_env *env)
{
	c->env = *env;
	c->page_size = (uint32_t)env->cfg->page_size;
	c->capacity = env->cfg->page_store_size;
	c->dir_fd = c->lock_fd = c->new_dir_fd = c->new_lock_fd = -1;
	c->files_limit = files_limit();
	TAILQ_INIT(&c->lru);
	TAILQ_INIT(&c->mem_wait);
	TAILQ_INIT(&c->ready);
	TAILQ_INIT(&c->fetches);
	TAILQ_INIT(&c->ahead);
	TAILQ_INIT(&c->sums);
	TAILQ_INIT(&c->hot);
	TAILQ_INIT(&c->loads);
	TAILQ_INIT(&c->files);
	STAILQ_INIT(&c->ops);
	STAILQ_INIT(&c->flush_ops);
	pool_lane_init(&c->index_lane);
	pool_share_init(&c->share, (unsigned)env->cfg->pool_threads);
	TAILQ_INIT(&c->disk_ops);
	TAILQ_INIT(&c->loaded);
	c->health_since = loop_now(env->loop);
	timer_init(&c->age, env->loop, page_age);
	timer_init(&c->sync, env->loop, store_sync_timer);
	timer_init(&c->retry, env->loop, health_retry_timer);
	timer_init(&c->ticker, env->loop, slow_tick);
}

int cache_new(struct cache **out, const struct cache_env *env, int lock_fd, struct errtext *et)
{
	uint64_t limit = config_memory_limit(env->cfg);
	struct cache *c;
	int err;

	ALLOC_OBJ(c, CACHE_MAGIC);
	if (c == NULL) {
		if (lock_fd >= 0)
			close(lock_fd);
		return errtext_set(et, -ENOMEM, "page store: out of memory");
	}
	cache_init(c, env);
	c->lock_fd = lock_fd;
	c->sums_limit = limit / SUMS_SHARE;
	err = check_memory(c, limit, et);
	if (err == 0)
		err = arena_new(&c->arena, env->loop,
		    limit - c->sums_limit - (env->writes ? cache_write_memory(env->cfg) : 0),
		    c->page_size, IO_SIZE, read_memory_freed, c);
	if (err == 0)
		err = evict_new(c);
	if (err == -ENOMEM)
		errtext_set(et, err, "page store: out of memory");
	if (err == 0 && env->cfg->page_store_dir[0] != '\0') {
		err = dir_start(c, env->cfg->page_store_dir, lock_fd, et);
		c->state = STORE_CLOSED;
		c->began = true;
		/* What serves already goes on without it. */
		if (err == -ENODEV) {
			c->gone = true;
			cache_note(c, err, "%s", et->s);
			et->s[0] = '\0';
			err = 0;
		}
	}
	if (err != 0) {
		cache_free(&c);
		return err;
	}
	*out = c;
	return 0;
}

void cache_free(struct cache **cp)
{
	struct cache *c;

	if (*cp == NULL)
		return;
	TAKE_OBJ(c, cp, CACHE_MAGIC);
	assert(c->state == STORE_NONE || c->state == STORE_CLOSED || c->state == STORE_FAILED);
	assert(c->jobs == 0 && TAILQ_EMPTY(&c->disk_ops));
	fetch_abort_all(c);
	page_drop_parked(c);
	assert(c->blobs == NULL && TAILQ_EMPTY(&c->ready) && TAILQ_EMPTY(&c->mem_wait) &&
	       TAILQ_EMPTY(&c->loads));
	timer_cancel(&c->age);
	timer_cancel(&c->sync);
	timer_cancel(&c->retry);
	timer_cancel(&c->ticker);
	loop_undefer(c->env.loop, &c->ready_run);
	loop_undefer(c->env.loop, &c->mem_run);
	loop_undefer(c->env.loop, &c->close_run);
	loop_undefer(c->env.loop, &c->settle_run);
	loop_undefer(c->env.loop, &c->loads_run);
	dir_close(c);
	free(c->evict);
	arena_free(&c->arena);
	FREE_OBJ(c);
}

void cache_status(const struct cache *c, struct cache_status *out)
{
	CHECK_OBJ(c, CACHE_MAGIC);
	memset(out, 0, sizeof(*out));
	snprintf(out->dir, sizeof(out->dir), "%s", c->dir != NULL ? c->dir : "");
	snprintf(out->error, sizeof(out->error), "%s", c->error);
	snprintf(out->last_error, sizeof(out->last_error), "%s", c->last_error);
	out->health = c->health;
	out->since_ns = c->health_since;
	out->index_open = c->state == STORE_OPEN;
	out->capacity = c->state == STORE_NONE ? 0 : c->capacity;
	out->used = c->used;
	out->memory_limit = arena_limit(c->arena) + c->sums_limit;
	out->memory_used = arena_resident(c->arena) + c->sums_bytes;
	out->fetches = c->nfetches;
}
