/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Readahead of one handle: the window doubles while reads go forward and halves
 * when they do not; it is kept full by GETs of up to a part each, several at a
 * time.  What was fetched ahead and not read yet takes a share of memory.limit.
 * Reads that go forward at several places have a window each.
 */
#include <errno.h>
#include <stdlib.h>

#include "cache/cache_priv.h"

/* The kernel sends the reads of one reader side by side: so far may they be out
 * of order. */
#define SLACK (2 * MIB)

/* Pages that may be ahead of all readers.  In memory alone they must be read
 * before the LRU comes round to them. */
static uint64_t share(const struct cache *c)
{
	return arena_limit(c->arena) / c->page_size / (c->state == STORE_OPEN ? 2 : 4);
}

static uint64_t window_max(const struct cache *c)
{
	return MIN(c->env.cfg->readahead_max, share(c) * c->page_size);
}

static uint64_t part_pages(const struct cache *c, const struct stream *s)
{
	uint64_t bytes = MIN(c->env.cfg->fetch_part_size, s->window / 4);

	return MAX(bytes / c->page_size, 1);
}

/* First page after what was asked for, and the end of the window. */
static uint64_t ahead_page(const struct cache *c, const struct stream *s)
{
	return MAX(s->ahead, s->next) / c->page_size;
}

static uint64_t target_page(const struct blob *b, const struct stream *s)
{
	uint64_t to = s->next + s->window;

	return MIN((to + b->cache->page_size - 1) / b->cache->page_size, b->npages);
}

/* Worth a GET?  Small steps wait until a part can be asked for. */
static bool wants(const struct blob *b, const struct stream *s)
{
	const struct cache *c = b->cache;
	uint64_t from = ahead_page(c, s), to = target_page(b, s);

	if (s->window == 0 || from >= to)
		return false;
	return to == b->npages || to - from >= part_pages(c, s) ||
	       (from * c->page_size < s->next + s->window / 2);
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

	if (s->blob != NULL || !wants(b, s))
		return;
	s->blob = b;
	blob_hold(b);
	TAILQ_INSERT_TAIL(&c->ahead, s, link);
	read_memory_freed(c);
}

void readahead_want(struct blob *b, struct stream *s, uint64_t next, uint64_t window)
{
	s->next = next;
	s->window = MIN(window, window_max(b->cache));
	if (s->ahead < next)
		s->ahead = next;
	enqueue(b, s);
}

/* Does the read go on where the stream is? */
static bool follows(const struct stream *s, const struct cache_read *r)
{
	if (s->next == 0 && s->window == 0)
		return r->off == 0;
	return r->off <= s->next + SLACK && r->off + SLACK >= s->next;
}

static uint64_t distance(const struct stream *s, const struct cache_read *r)
{
	return r->off > s->next ? r->off - s->next : s->next - r->off;
}

/* A read that follows nothing: all windows shrink, and it takes the place of the
 * stream that was not read for longest. */
static struct stream *stray(struct cache *c, struct stream *head)
{
	struct stream *old = head;

	head->window /= 2;
	for (unsigned i = 0; i < STREAM_MORE; i++) {
		struct stream *s = head->more[i];

		if (s == NULL) {
			s = head->more[i] = calloc(1, sizeof(*s));
			if (s == NULL)
				break;
		}
		s->window /= 2;
		if (s->turn < old->turn)
			old = s;
	}
	dequeue(c, old);
	old->window = 0;
	old->ahead = 0;
	return old;
}

/* The stream that the read belongs to: of several that it follows the nearest. */
static struct stream *stream_of(struct cache *c, struct cache_read *r, bool *on)
{
	struct stream *head = r->stream, *best = NULL;
	uint64_t turn = head->turn;

	for (unsigned i = 0; i <= STREAM_MORE; i++) {
		struct stream *s = i == 0 ? head : head->more[i - 1];

		if (s == NULL)
			continue;
		turn = MAX(turn, s->turn);
		if (follows(s, r) && (best == NULL || distance(s, r) < distance(best, r)))
			best = s;
	}
	*on = best != NULL;
	if (best == NULL)
		best = stray(c, head);
	best->turn = turn + 1;
	return best;
}

void readahead_note(struct cache_read *r)
{
	struct blob *b = r->blob;
	struct cache *c = b->cache;
	uint64_t end = r->off + r->len;
	struct stream *s;
	bool on;

	if (r->len == 0)
		return;
	s = r->stream = stream_of(c, r, &on);
	if (!on) {
		s->next = end;
		return;
	}
	if (s->window == 0)
		s->window = MAX(4 * (uint64_t)r->len, 2 * (uint64_t)c->page_size);
	else if (end > s->next)
		s->window *= 2;
	s->next = MAX(s->next, end);
	s->window = MIN(s->window, window_max(c));
	if (s->window < c->page_size)
		s->window = 0;
	enqueue(b, s);
}

static bool reserve(struct blob *b, uint64_t no, unsigned pages)
{
	unsigned need[ARENA_KINDS] = {0};

	need[page_kind(b, no)] = pages;
	return page_reserve(b->cache, need);
}

/* One GET for the stream.  False: not now. */
static bool ahead_one(struct cache *c, struct stream *s)
{
	struct blob *b = s->blob;
	uint64_t no = ahead_page(c, s), to = target_page(b, s), n = 0, want, busy;
	struct cache_page **pages;

	while (no < to && (blob_has(b, no) || page_find(b, no) != NULL))
		no++;
	s->ahead = no * c->page_size;
	if (!wants(b, s))
		return true;
	want = MIN(part_pages(c, s), to - no);
	/* Pages on their way to disk count: a slow disk slows readahead down. */
	busy = (uint64_t)c->nahead + c->writing / c->page_size;
	if (busy + want > share(c)) {
		if (s->fetches > 0 || busy >= share(c))
			return false;
		want = share(c) - busy;
	}
	if (!reserve(b, no, (unsigned)want)) {
		if (s->fetches > 0)
			return false;
		want = 1;
	}
	pages = calloc(want, sizeof(*pages));
	if (pages == NULL)
		return false;
	while (n < want && no < to && !blob_has(b, no) && page_find(b, no) == NULL &&
	       reserve(b, no, 1) && (pages[n] = page_new(b, no)) != NULL) {
		COUNT(c->env.loop, CACHE_AHEAD_BYTES, pages[n]->len);
		pages[n++]->ahead = true;
		c->nahead++;
		no++;
	}
	if (n > 0)
		fetch_start(b, pages, (unsigned)n, s, true);
	for (uint64_t i = 0; i < n; i++)
		page_unpin(&pages[i]);
	free(pages);
	s->ahead = no * c->page_size;
	return n > 0;
}

void readahead_pump(struct cache *c)
{
	struct stream *s, *next;
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
			if (!wants(s->blob, s))
				dequeue(c, s);
			else if (ahead_one(c, s))
				again = true;
		}
	}
}

static void stream_end(struct cache *c, struct stream *s)
{
	dequeue(c, s);
	fetch_stream_end(c, s);
}

void cache_stream_end(struct cache *c, struct stream *s)
{
	CHECK_OBJ(c, CACHE_MAGIC);
	stream_end(c, s);
	for (unsigned i = 0; i < STREAM_MORE; i++) {
		if (s->more[i] == NULL)
			continue;
		stream_end(c, s->more[i]);
		free(s->more[i]);
		s->more[i] = NULL;
	}
}
