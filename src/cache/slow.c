/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disks that take long.  Every operation that a read waits for, or that would be one's
 * next, is on a list while it is under way.  When the oldest has been there for
 * worker.page.store.slow.time, everything goes past the disk: what waits for it asks the
 * storage instead, and nothing new is asked of it.  When no operation is overdue any
 * more, the trial of health.c says whether the disk is used again.
 *
 * Time is counted in ticks of the loop: a process that was stopped, or a loop that came
 * late, sees its operations no older than by one tick.
 */
#include <errno.h>

#include "base/fault.h"
#include "cache/cache_priv.h"

/* A tick is an eighth of the time, but no longer than this, so that another time set
 * while an operation hangs takes effect soon. */
#define TICK_MAX NS_PER_S

static uint64_t tick_length(const struct cache *c)
{
	return MIN(MAX(c->env.cfg->page_store_slow_time / 8, NS_PER_MS), TICK_MAX);
}

static void tick_arm(struct cache *c)
{
	timer_arm(&c->ticker, tick_length(c));
}

static bool overdue(const struct cache *c, const struct disk_op *op)
{
	return c->tick - op->since > c->env.cfg->page_store_slow_time / tick_length(c);
}

bool slow_now(const struct cache *c)
{
	return !TAILQ_EMPTY(&c->disk_ops) && overdue(c, TAILQ_FIRST(&c->disk_ops));
}

/* What waits for the disk asks again, and finds that there is none for now. */
static void go_past(struct cache *c)
{
	struct disk_read *dr, *dr_next;
	struct blob *b, *next;

	for (b = c->blobs; b != NULL; b = next) {
		blob_hold(b);
		TAILQ_FOREACH_SAFE(dr, &b->reading, link, dr_next) {
			if (dr->read != NULL)
				read_go_past(dr->read);
		}
		store_resume_loading(b);
		next = b->hh.next;
		blob_unhold(&b);
	}
	loaded_go_past(c);
	load_kick(c);
	read_memory_freed(c);
}

static void slow_enter(struct cache *c)
{
	c->slow = c->failing = true;
	timer_cancel(&c->retry);
	cache_note(c, -ETIMEDOUT, "page store %s: the disk takes too long to answer", c->dir);
	go_past(c);
}

void slow_tick(struct timer *t)
{
	struct cache *c = container_of(t, struct cache, ticker);

	c->tick++;
	if (TAILQ_EMPTY(&c->disk_ops))
		return;
	if (!c->slow && slow_now(c))
		slow_enter(c);
	tick_arm(c);
}

void slow_begin(struct cache *c, struct disk_op *op)
{
	op->since = c->tick;
	TAILQ_INSERT_TAIL(&c->disk_ops, op, link);
	if (!timer_armed(&c->ticker))
		tick_arm(c);
}

bool slow_end(struct cache *c, struct disk_op *op)
{
	bool late = overdue(c, op);

	TAILQ_REMOVE(&c->disk_ops, op, link);
	if (late)
		COUNT(c->env.loop, CACHE_SLOW_OPS, 1);
	if (c->slow && !slow_now(c) && c->state == STORE_OPEN && !c->trying &&
	    !timer_armed(&c->retry))
		cache_retry_later(c);
	return late;
}

int slow_point(void)
{
	return FAULT("cache.disk");
}
