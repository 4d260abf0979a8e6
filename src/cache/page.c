/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <string.h>

#include "cache/cache_priv.h"

/* With a disk, pages stay in memory only while it fails; so long at most. */
#define AGE_PERIOD (5 * NS_PER_S)

struct cache_page *page_find(const struct blob *b, uint64_t no)
{
	struct cache_page *pg;

	HASH_FIND(hh, b->pages, &no, sizeof(no), pg);
	return pg;
}

struct cache_page *page_new(struct blob *b, uint64_t no)
{
	struct cache_page *pg;

	ALLOC_OBJ(pg, PAGE_MAGIC);
	if (pg == NULL)
		return NULL;
	pg->no = no;
	pg->len = blob_page_len(b, no);
	pg->pins = 1;
	TAILQ_INIT(&pg->waiters);
	pg->buf = arena_get(b->cache->arena, page_kind(b, no));
	if (pg->buf == NULL) {
		FREE_OBJ(pg);
		return NULL;
	}
	HASH_ADD(hh, b->pages, no, sizeof(pg->no), pg);
	if (pg->hh.tbl == NULL) {
		arena_put(b->cache->arena, &pg->buf);
		FREE_OBJ(pg);
		return NULL;
	}
	pg->hashed = true;
	pg->blob = b;
	blob_hold(b);
	return pg;
}

static void unhash(struct cache_page *pg)
{
	if (!pg->hashed)
		return;
	HASH_DEL(pg->blob->pages, pg);
	pg->hashed = false;
}

static void not_ahead(struct cache_page *pg)
{
	struct cache *c = pg->blob->cache;

	pg->ahead = false;
	if (!pg->shares)
		return;
	pg->shares = false;
	LIST_REMOVE(pg, share_link);
	c->nahead--;
	if (!TAILQ_EMPTY(&c->ahead))
		read_memory_freed(c);
}

void page_count_ahead(struct cache_page *pg, struct stream *s)
{
	pg->ahead = true;
	pg->shares = true;
	LIST_INSERT_HEAD(&s->unread, pg, share_link);
	pg->blob->cache->nahead++;
}

void page_forget_ahead(struct cache *c, struct stream *s)
{
	struct cache_page *pg;

	while ((pg = LIST_FIRST(&s->unread)) != NULL) {
		LIST_REMOVE(pg, share_link);
		pg->shares = false;
		c->nahead--;
	}
	if (!TAILQ_EMPTY(&c->ahead))
		read_memory_freed(c);
}

static void unpark(struct cache_page *pg)
{
	if (!pg->parked)
		return;
	TAILQ_REMOVE(&pg->blob->cache->lru, pg, lru);
	pg->parked = false;
}

static void page_free(struct cache_page *pg)
{
	struct blob *b = pg->blob;

	assert(pg->pins == 0 && !pg->writing && pg->fetch == NULL && TAILQ_EMPTY(&pg->waiters));
	not_ahead(pg);
	unpark(pg);
	unhash(pg);
	arena_put(b->cache->arena, &pg->buf);
	FREE_OBJ(pg);
	blob_unhold(&b);
}

void page_pin(struct cache_page *pg)
{
	CHECK_OBJ(pg, PAGE_MAGIC);
	pg->pins++;
	if (pg->ahead)
		COUNT(pg->blob->cache->env.loop, CACHE_AHEAD_USED_BYTES, pg->len);
	not_ahead(pg);
	unpark(pg);
}

void page_unpin(struct cache_page **pgp)
{
	struct cache_page *pg;

	TAKE_OBJ(pg, pgp, PAGE_MAGIC);
	assert(pg->pins > 0);
	pg->pins--;
	page_settle(pg);
}

void page_settle(struct cache_page *pg)
{
	struct cache *c;

	CHECK_OBJ(pg, PAGE_MAGIC);
	c = pg->blob->cache;
	if (pg->pins > 0 || pg->fetch != NULL || pg->writing)
		return;
	if (!pg->hashed || pg->fill < pg->len || blob_on_disk(pg->blob, pg->no)) {
		page_free(pg);
		return;
	}
	if (pg->parked)
		return;
	pg->parked = true;
	pg->aged = false;
	TAILQ_INSERT_TAIL(&c->lru, pg, lru);
	if (c->state != STORE_NONE && !timer_armed(&c->age))
		timer_arm(&c->age, AGE_PERIOD);
	read_memory_freed(c); /* it can be taken */
}

void page_age(struct timer *t)
{
	struct cache *c = container_of(t, struct cache, age);
	struct cache_page *pg, *next;

	TAILQ_FOREACH_SAFE(pg, &c->lru, lru, next) {
		if (pg->aged)
			page_free(pg);
		else
			pg->aged = true;
	}
	if (!TAILQ_EMPTY(&c->lru))
		timer_arm(&c->age, AGE_PERIOD);
}

void page_fail(struct cache_page *pg, int err)
{
	struct cache_read *r;

	unhash(pg);
	pg->err = err;
	pg->fetch = NULL;
	while ((r = TAILQ_FIRST(&pg->waiters)) != NULL) {
		TAILQ_REMOVE(&pg->waiters, r, link);
		pg->pins++; /* the read lets go of its own */
		read_fail(r, err);
		pg->pins--;
	}
	page_settle(pg);
}

void page_wake(struct cache_page *pg)
{
	struct cache_read *r, *next;

	TAILQ_FOREACH_SAFE(r, &pg->waiters, link, next) {
		if (read_need(r, r->wait) > pg->fill)
			continue;
		TAILQ_REMOVE(&pg->waiters, r, link);
		read_filled(r);
	}
}

bool page_reserve(struct cache *c, const unsigned need[ARENA_KINDS])
{
	while (!arena_reserve(c->arena, need)) {
		if (TAILQ_EMPTY(&c->lru))
			return false;
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): it left the list */
		page_free(TAILQ_FIRST(&c->lru));
	}
	return true;
}

void page_drop_blob(struct blob *b)
{
	struct cache_page *pg, *next;

	for (pg = b->pages; pg != NULL; pg = next) {
		next = pg->hh.next;
		if (pg->parked)
			page_free(pg);
	}
}

void page_drop_parked(struct cache *c)
{
	while (!TAILQ_EMPTY(&c->lru))
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): it left the list */
		page_free(TAILQ_FIRST(&c->lru));
}
