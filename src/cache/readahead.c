/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Readahead of one handle: what pattern.c foretells is fetched by GETs of up to a
 * part each, several at a time.  What was fetched ahead and not read yet takes a
 * share of memory.limit; handles, and the readers of each, take turns.
 */
#include <stdlib.h>

#include "cache/cache_priv.h"
#include "cache/pattern.h"

/* Pages that may be ahead of all readers.  In memory alone they must be read
 * before the LRU comes round to them. */
static uint64_t share(const struct cache *c)
{
	return arena_limit(c->arena) / c->page_size / (c->state == STORE_OPEN ? 2 : 4);
}

static struct pattern_limits limits(const struct blob *b)
{
	const struct cache *c = b->cache;

	return (struct pattern_limits){
		.size = b->size,
		.window = MIN(c->env.cfg->readahead_max, share(c) * c->page_size),
		.part = MAX(c->env.cfg->fetch_part_size / c->page_size, 1) * c->page_size,
		.page = c->page_size,
	};
}

static bool wants(const struct blob *b, const struct stream *s, struct pattern_range *r)
{
	struct pattern_limits l = limits(b);

	return pattern_next(s->pattern, &l, r);
}

static void dequeue(struct cache *c, struct stream *s)
{
	if (s->blob == NULL)
		return;
	TAILQ_REMOVE(&c->ahead, s, link);
	blob_unhold(&s->blob);
}

static void enqueue(struct blob *b, struct stream *s)
{
	struct cache *c = b->cache;
	struct pattern_range r;

	if (s->blob != NULL || !wants(b, s, &r))
		return;
	s->blob = b;
	blob_hold(b);
	TAILQ_INSERT_TAIL(&c->ahead, s, link);
	read_memory_freed(c);
}

/* Without memory for it nothing is read ahead. */
static bool has_pattern(struct stream *s)
{
	if (s->pattern == NULL)
		s->pattern = calloc(1, sizeof(*s->pattern));
	return s->pattern != NULL;
}

void readahead_want(struct blob *b, struct stream *s, uint64_t next, uint64_t window)
{
	if (!has_pattern(s))
		return;
	pattern_want(s->pattern, next, window);
	enqueue(b, s);
}

void readahead_note(struct cache_read *r)
{
	struct pattern_limits l = limits(r->blob);

	if (r->len == 0 || !has_pattern(r->stream))
		return;
	pattern_note(r->stream->pattern, &l, r->off, r->len);
	enqueue(r->blob, r->stream);
}

static bool reserve(struct blob *b, uint64_t no, unsigned pages)
{
	unsigned need[ARENA_KINDS] = {0};

	need[page_kind(b, no)] = pages;
	return page_reserve(b->cache, need);
}

static bool have(struct blob *b, uint64_t no)
{
	return blob_on_disk(b, no) || page_find(b, no) != NULL;
}

/* How many of `want` pages from `no` on there is room for now. */
static uint64_t room(const struct stream *s, uint64_t no, uint64_t want)
{
	struct cache *c = s->blob->cache;
	/* Pages on their way to disk count: a slow disk slows readahead down. */
	uint64_t busy = (uint64_t)c->nahead + c->writing / c->page_size;

	if (busy + want > share(c)) {
		if (s->fetches > 0 || busy >= share(c))
			return 0;
		want = share(c) - busy;
	}
	if (reserve(s->blob, no, (unsigned)want))
		return want;
	return s->fetches > 0 ? 0 : 1;
}

/* Makes pages of [*no, to) and fetches them, until `want` are made. */
static uint64_t fetch_pages(struct stream *s, uint64_t *no, uint64_t to, uint64_t want)
{
	struct blob *b = s->blob;
	struct cache *c = b->cache;
	struct cache_page **pages = calloc(want, sizeof(*pages));
	uint64_t n = 0;

	if (pages == NULL)
		return 0;
	for (; *no < to && n < want; ++*no) {
		if (have(b, *no))
			continue;
		if (!reserve(b, *no, 1) || (pages[n] = page_new(b, *no)) == NULL)
			break;
		COUNT(c->env.loop, CACHE_AHEAD_BYTES, pages[n]->len);
		page_count_ahead(pages[n++], s);
	}
	if (n > 0)
		fetch_start(b, pages, (unsigned)n, s, true);
	for (uint64_t i = 0; i < n; i++)
		page_unpin(&pages[i]);
	free(pages);
	return n;
}

/* One range for the stream.  False: not now. */
static bool ahead_one(struct stream *s, const struct pattern_range *r)
{
	struct blob *b = s->blob;
	uint32_t size = b->cache->page_size;
	uint64_t no = r->from / size, to = (r->to + size - 1) / size, want;

	while (no < to && have(b, no))
		no++;
	if (no < to) {
		want = room(s, no, to - no);
		if (want == 0 || fetch_pages(s, &no, to, want) == 0)
			return false;
		while (no < to && have(b, no))
			no++;
	}
	if (r->steps == 0 || no == to)
		pattern_took(r, no * size);
	return true;
}

void readahead_pump(struct cache *c)
{
	struct stream *s, *next;
	struct pattern_range r;
	bool again = true;

	if (c->state == STORE_CLOSED || c->state == STORE_CLOSING || c->state == STORE_OPENING)
		return;
	/* A part each in turn, so that one reader does not take it all. */
	while (again) {
		again = false;
		TAILQ_FOREACH_SAFE(s, &c->ahead, link, next) {
			if (s->blob->load != BLOB_LOADED && store_wait(c)) {
				store_load(s->blob);
				continue;
			}
			if (!wants(s->blob, s, &r))
				dequeue(c, s);
			else if (ahead_one(s, &r))
				again = true;
		}
	}
}

void cache_stream_end(struct cache *c, struct stream *s)
{
	CHECK_OBJ(c, CACHE_MAGIC);
	dequeue(c, s);
	fetch_stream_end(c, s);
	page_forget_ahead(c, s);
	free(s->pattern);
	s->pattern = NULL;
}
