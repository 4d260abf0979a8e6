/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Eviction: from the high mark down to the low mark.  The pool proposes blobs in
 * the index's order; the loop takes those that were used once and that nobody has
 * open, whole; then, from open blobs, pages that were used once; only then what
 * was reused, in the same way.  So a scan, of many files or of a large one, makes
 * room out of scans.  A page that is being read, or is in memory too, stays.
 */
#include <errno.h>
#include <string.h>

#include "cache/cache_priv.h"

#define OLD_MAX 64
#define PAGES_MAX 256   /* holes a round */
#define SWEEP_MAX 65536 /* pages looked at a round and blob */

struct evict {
	struct pool_job job;
	struct cache *c;
	bool running;
	unsigned left;	/* blobs and holes of this round not done yet */
	uint64_t goal;	/* go on until used is no more than this; 0: at rest */
	unsigned n;
	struct index_old old[OLD_MAX];
};

int evict_new(struct cache *c)
{
	c->evict = calloc(1, sizeof(*c->evict));
	if (c->evict == NULL)
		return -ENOMEM;
	c->evict->c = c;
	return 0;
}

static bool drop_page(struct blob *b, uint64_t no)
{
	if (page_find(b, no) != NULL || disk_being_read(b, no))
		return false;
	if (disk_drop(b, no, true) != 0)
		return false;
	b->cache->evict->left++;
	return true;
}

/* Pages of b without sums in memory. */
static void evict_cold(struct blob *b, uint64_t *need, unsigned *pages)
{
	uint64_t looks = MIN(b->npages, SWEEP_MAX);

	for (; looks > 0 && *need > 0 && *pages > 0 && b->npresent > b->nsums; looks--) {
		uint64_t no = b->hand, space;
		struct sums *s;

		b->hand = (no + 1) % b->npages;
		if (!blob_has(b, no))
			continue;
		s = sums_peek(b, no);
		space = blob_page_space(b, no);
		if (s != NULL || !drop_page(b, no))
			continue;
		*need -= MIN(*need, space);
		(*pages)--;
	}
}

static uint64_t evict_list(struct sums_list *list, uint64_t need, unsigned *pages)
{
	struct sums *s, *next;

	TAILQ_FOREACH_SAFE(s, list, lru, next) {
		uint64_t space = blob_page_space(s->blob, s->no);

		if (need == 0 || *pages == 0)
			break;
		if (!drop_page(s->blob, s->no))
			continue;
		need -= MIN(need, space);
		(*pages)--;
	}
	return need;
}

/* Pages of open blobs that were used once, or lately not at all. */
static uint64_t evict_pages(struct cache *c, uint64_t need, unsigned *pages)
{
	struct blob *b;

	for (b = c->blobs; b != NULL && need > 0 && *pages > 0; b = b->hh.next)
		evict_cold(b, &need, pages);
	return evict_list(&c->sums, need, pages);
}

/* Proposed blobs that nobody has open, whole. */
static uint64_t evict_blobs(struct evict *ev, bool reused, uint64_t need)
{
	struct cache *c = ev->c;
	struct index_op *op;

	for (unsigned i = 0; i < ev->n && need > 0; i++) {
		if (ev->old[i].reused != reused || blob_find_hash(c, ev->old[i].hash) != NULL)
			continue;
		op = store_op_new(NULL, INDEX_DEL_BLOB);
		if (op == NULL)
			break;
		memcpy(op->key.hash, ev->old[i].hash, INDEX_HASH);
		store_op_add(c, op);
		ev->left++;
		need -= MIN(need, ev->old[i].bytes);
	}
	return need;
}

static void propose_work(struct pool_job *job)
{
	struct evict *ev = container_of(job, struct evict, job);

	job->result = index_oldest(ev->c->index, ev->old, OLD_MAX, &ev->n);
}

static void propose_done(struct pool_job *job)
{
	struct evict *ev = container_of(job, struct evict, job);
	struct cache *c = ev->c;
	uint64_t need = c->used > ev->goal ? c->used - ev->goal : 0;
	unsigned pages = PAGES_MAX;
	bool all;

	if (job->result != 0)
		ev->n = 0;
	/* Reused ones are proposed last: these are all that were used once. */
	all = ev->n < OLD_MAX || ev->old[ev->n - 1].reused;
	ev->left = 1; /* this function */
	if (c->state == STORE_OPEN) {
		need = evict_blobs(ev, false, need);
		if (need > 0 && (all || ev->left == 1))
			need = evict_pages(c, need, &pages);
		if (need > 0 && pages > 0)
			need = evict_blobs(ev, true, need);
		if (need > 0 && pages > 0 && (ev->n < OLD_MAX || ev->left == 1))
			(void)evict_list(&c->hot, need, &pages);
	}
	if (ev->left == 1)
		ev->goal = 0; /* nothing to be had now */
	store_flush(c);
	evict_one_done(c);
	cache_job_done(c);
}

static void evict_round(struct cache *c)
{
	struct evict *ev = c->evict;

	ev->running = true;
	cache_job(c, &c->index_lane, &ev->job, propose_work, propose_done);
}

void evict_one_done(struct cache *c)
{
	struct evict *ev = c->evict;

	assert(ev->left > 0);
	if (--ev->left > 0)
		return;
	ev->running = false;
	if (c->state == STORE_OPEN && ev->goal > 0 && c->used > ev->goal)
		evict_round(c);
	else
		ev->goal = 0;
}

void evict_kick(struct cache *c)
{
	uint64_t room = MAX(c->capacity / 20, 4 * (uint64_t)c->page_size);
	struct evict *ev = c->evict;

	if (c->state != STORE_OPEN || ev->running || c->used + room <= c->capacity)
		return;
	ev->goal = MAX(c->capacity - MIN(c->capacity, 2 * room), 1);
	evict_round(c);
}

void evict_full(struct cache *c)
{
	struct evict *ev = c->evict;

	if (c->state != STORE_OPEN || ev->running || c->used == 0)
		return;
	ev->goal = MAX(c->used - MIN(c->used, MAX(c->used / 10, 4 * (uint64_t)c->page_size)), 1);
	evict_round(c);
}
