/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Filling and dropping on request.  A load goes through its file page by page:
 * what is not on disk is read to its end, with readahead of its own; what the disk
 * did not take at the first go is tried again.  It never gets far ahead of the
 * disk: pages that nobody can store are fetched for nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cache/cache_priv.h"

#define PASSES 3

static void load_end(struct cache_load *l, int err)
{
	struct cache *c = l->blob->cache;

	cache_stream_end(c, &l->stream);
	l->state = LOAD_IDLE;
	l->done(l, err);
}

static void load_read_done(struct cache_read *r, int err)
{
	struct cache_load *l = container_of(r, struct cache_load, read);
	struct cache *c = l->blob->cache;

	if (err == 0)
		cache_read_release(r);
	l->err = err;
	l->state = LOAD_READY;
	TAILQ_INSERT_TAIL(&c->loads, l, link);
	loop_defer(c->env.loop, &c->loads_run, load_run);
}

/* Waits until page `no` is filled. */
static void load_read(struct cache_load *l, uint64_t no)
{
	struct blob *b = l->blob;
	struct cache *c = b->cache;
	uint64_t end = no * c->page_size + blob_page_len(b, no);
	struct cache_read *r = &l->read;

	memset(r, 0, sizeof(*r));
	r->blob = b;
	r->len = MIN(blob_page_len(b, no), BLOCK);
	r->off = end - r->len;
	r->done = load_read_done;
	l->state = LOAD_READING;
	if (cache_read_try(r))
		load_read_done(r, 0);
	else
		cache_read_start(r);
	readahead_want(b, &l->stream, end, 4 * c->env.cfg->fetch_part_size);
}

static void load_wait(struct cache_load *l)
{
	l->state = LOAD_WAITING;
	TAILQ_INSERT_TAIL(&l->blob->cache->loads, l, link);
}

/* On disk, or on its way there. */
static bool stored(struct blob *b, uint64_t no)
{
	struct cache_page *pg = page_find(b, no);

	return blob_has(b, no) || (pg != NULL && pg->writing);
}

/* A page that stayed in memory gets another chance.  False: it is not there. */
static bool store_again(struct blob *b, uint64_t no)
{
	struct cache_page *pg = page_find(b, no);

	if (pg == NULL || pg->fetch != NULL || pg->fill < pg->len)
		return false;
	page_pin(pg);
	disk_write(pg);
	page_unpin(&pg);
	return true;
}

static bool writes_run(const struct blob *b)
{
	const struct cache_page *pg;

	for (pg = b->pages; pg != NULL; pg = pg->hh.next) {
		if (pg->writing)
			return true;
	}
	return false;
}

/* The end of a pass. */
static void load_check(struct cache_load *l)
{
	struct blob *b = l->blob;

	if (writes_run(b)) {
		load_wait(l);
		return;
	}
	if (b->npresent == b->npages) {
		load_end(l, 0);
	} else if (++l->passes == PASSES) {
		load_end(l, -ENOSPC);
	} else {
		l->next = 0;
		load_wait(l);
		loop_defer(b->cache->env.loop, &b->cache->loads_run, load_run);
	}
}

static int load_trouble(const struct cache_load *l)
{
	const struct cache *c = l->blob->cache;

	if (l->err != 0)
		return l->err;
	switch (c->state) {
	case STORE_NONE:
		return -EOPNOTSUPP;
	case STORE_CLOSED:
	case STORE_CLOSING:
		return -ECANCELED;
	case STORE_FAILED:
		return -EIO;
	default:
		break;
	}
	return c->failing || l->blob->bypass ? -ENOSPC : 0;
}

static void load_step(struct cache_load *l)
{
	struct blob *b = l->blob;
	struct cache *c = b->cache;
	int err = load_trouble(l);

	if (err != 0) {
		load_end(l, err);
		return;
	}
	for (; l->next < b->npages; l->next++) {
		if (b->load == BLOB_LOADED && (stored(b, l->next) || store_again(b, l->next)))
			continue;
		if (c->writing > arena_limit(c->arena) / 4)
			load_wait(l);
		else
			load_read(l, l->next);
		return;
	}
	load_check(l);
}

void load_run(struct deferred *d)
{
	struct cache *c = container_of(d, struct cache, loads_run);
	struct cache_load *last = TAILQ_LAST(&c->loads, load_list), *l;

	/* Those that wait again come behind the last of now.  A done may abort others:
	 * never those that are gone from the list. */
	while ((l = TAILQ_FIRST(&c->loads)) != NULL) {
		bool end = l == last;

		TAILQ_REMOVE(&c->loads, l, link);
		load_step(l);
		if (end)
			break;
	}
}

void load_kick(struct cache *c)
{
	if (!TAILQ_EMPTY(&c->loads))
		loop_defer(c->env.loop, &c->loads_run, load_run);
}

void cache_load_start(struct cache_load *l, struct blob *b, void (*done)(struct cache_load *l,
    int err))
{
	memset(l, 0, sizeof(*l));
	l->blob = b;
	l->done = done;
	load_wait(l);
	load_kick(b->cache);
}

void cache_load_abort(struct cache_load *l)
{
	struct cache *c = l->blob->cache;

	if (l->state == LOAD_READING)
		cache_read_abort(&l->read);
	else if (l->state == LOAD_IDLE)
		return;
	else
		TAILQ_REMOVE(&c->loads, l, link);
	cache_stream_end(c, &l->stream);
	l->state = LOAD_IDLE;
}

bool cache_blob_drop(struct blob *b, uint64_t *from, unsigned max)
{
	CHECK_OBJ(b, BLOB_MAGIC);
	page_drop_blob(b);
	for (; *from < b->npages && max > 0 && b->npresent > 0; (*from)++) {
		if (!blob_has(b, *from) || b->cache->gone)
			continue;
		max--;
		/* What is in use now stays. */
		if (page_find(b, *from) == NULL && !disk_being_read(b, *from))
			(void)disk_drop(b, *from, false);
	}
	return *from < b->npages && b->npresent > 0;
}

void cache_blob_where(const struct blob *b, struct cache_where *out)
{
	const struct cache_page *pg;
	char name[DISK_NAME_MAX];
	const struct cache *c;

	CHECK_OBJ(b, BLOB_MAGIC);
	c = b->cache;
	memset(out, 0, sizeof(*out));
	for (pg = b->pages; pg != NULL; pg = pg->hh.next)
		out->memory += pg->fill;
	out->pages = b->npages;
	out->pages_on_disk = b->npresent;
	if (c->dir == NULL || b->npresent == 0)
		return;
	disk_name(b->key.hash, name);
	snprintf(out->file, sizeof(out->file), "%s/%s", c->dir, name);
}
