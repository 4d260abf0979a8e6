/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A read, from the question to the answer:
 *
 *	loading	the blob's rows are being read from the index
 *	memory	no buffers now; holds none meanwhile
 *	disk	the pool reads what is on disk (fetches run side by side)
 *	fill	sits on the first page that lacks bytes
 *	ready	the end is due, from the deferred queue
 *	done	answered; its pages are pinned until cache_read_release()
 */
#include <errno.h>
#include <string.h>

#include "cache/cache_priv.h"

enum { READ_IDLE, READ_LOADING, READ_MEMORY, READ_DISK, READ_FILL, READ_READY, READ_DONE };

static struct cache *cache_of(const struct cache_read *r)
{
	return r->blob->cache;
}

static uint64_t first_page(const struct cache_read *r)
{
	return r->off / cache_of(r)->page_size;
}

/* Where slot i begins and ends in the file, within the read. */
static uint64_t slot_start(const struct cache_read *r, unsigned slot)
{
	return MAX(r->off, (first_page(r) + slot) * cache_of(r)->page_size);
}

static uint64_t slot_end(const struct cache_read *r, unsigned slot)
{
	return MIN(r->off + r->len, (first_page(r) + slot + 1) * cache_of(r)->page_size);
}

uint32_t read_need(const struct cache_read *r, unsigned slot)
{
	return (uint32_t)(slot_end(r, slot) - (first_page(r) + slot) * cache_of(r)->page_size);
}

static void read_setup(struct cache_read *r)
{
	struct blob *b = r->blob;

	CHECK_OBJ(b, BLOB_MAGIC);
	r->len = MIN(r->len, READ_MAX);
	if (r->off >= b->size)
		r->len = 0;
	else
		r->len = (size_t)MIN(r->len, b->size - r->off);
	r->niov = 0;
	r->got = 0;
	r->priv = NULL;
	r->job = NULL;
	r->state = READ_IDLE;
	r->wait = 0;
	r->disk = 0;
	r->err = 0;
	r->slots = 0;
	if (r->len > 0)
		r->slots = (unsigned)((r->off + r->len - 1) / b->cache->page_size - first_page(r)) +
			   1;
	memset(r->page, 0, r->slots * sizeof(r->page[0]));
}

/* The buffer that its blocks take, should they come from disk. */
static enum arena_kind io_kind(const struct cache_read *r)
{
	uint64_t base = r->off & ~(uint64_t)(BLOCK - 1);

	return r->off + r->len - base <= ARENA_SMALL_SIZE ? ARENA_SMALL : ARENA_IO;
}

uint64_t read_io_size(const struct cache_read *r)
{
	return io_kind(r) == ARENA_SMALL ? ARENA_SMALL_SIZE : IO_SIZE;
}

static void put_io(struct cache_read *r)
{
	struct arena_buf *io = r->priv;

	r->priv = NULL;
	if (io != NULL)
		arena_put(cache_of(r)->arena, &io);
}

/* Lets go of pages and buffer.  leave: for good, so a fetch that only this read
 * wanted may end. */
static void read_unwind(struct cache_read *r, bool leave)
{
	for (unsigned i = 0; i < r->slots; i++) {
		struct fetch *f;

		if (r->page[i] == NULL)
			continue;
		f = r->page[i]->fetch;
		page_unpin(&r->page[i]);
		if (leave && f != NULL)
			fetch_left(f);
	}
	r->disk = 0;
	r->wait = 0;
	put_io(r);
}

/* The blob stays until the read is released, whatever its user does. */
static void read_end_hold(struct cache_read *r)
{
	struct blob *b = r->blob;

	blob_unhold(&b);
}

static void fill_iov(struct cache_read *r)
{
	struct arena_buf *io = r->priv;
	uint64_t base = r->off & ~(uint64_t)(BLOCK - 1);

	r->niov = 0;
	r->got = 0;
	for (unsigned i = 0; i < r->slots; i++) {
		uint64_t start = slot_start(r, i), end = slot_end(r, i);
		unsigned char *from;

		if (r->page[i] != NULL) {
			from = r->page[i]->buf->mem + start % cache_of(r)->page_size;
			if (r->page[i]->fetch != NULL)
				r->page[i]->fetch->served = true;
		} else {
			from = io->mem + (start - base);
		}
		if (r->niov > 0 && (unsigned char *)r->iov[r->niov - 1].iov_base +
		    r->iov[r->niov - 1].iov_len == from) {
			r->iov[r->niov - 1].iov_len += end - start;
		} else {
			r->iov[r->niov].iov_base = from;
			r->iov[r->niov++].iov_len = end - start;
		}
		r->got += end - start;
	}
}

/* --- At once */

static bool try_disk(struct cache_read *r, struct disk_span *sp)
{
	struct blob *b = r->blob;
	struct arena_buf *io;

	io = arena_get(b->cache->arena, io_kind(r));
	if (io == NULL)
		return false;
	sp->fd = b->fd;
	sp->base = r->off & ~(uint64_t)(BLOCK - 1);
	sp->end = MIN((r->off + r->len + BLOCK - 1) & ~(uint64_t)(BLOCK - 1), b->size);
	sp->first = first_page(r);
	sp->page_size = b->cache->page_size;
	sp->bad = sp->hole = 0;
	sp->mem = io->mem;
	if (disk_span_read(sp, RWF_NOWAIT) != 0 || sp->bad != 0) {
		arena_put(b->cache->arena, &io);
		return false; /* the pool looks again, and knows what to do */
	}
	blob_use_fd(b);
	r->priv = io;
	return true;
}

bool cache_read_try(struct cache_read *r)
{
	struct blob *b = r->blob;
	struct disk_span sp;

	read_setup(r);
	if (r->stream != NULL)
		readahead_note(r);
	sp.want = 0;
	for (unsigned i = 0; i < r->slots; i++) {
		uint64_t no = first_page(r) + i;
		struct cache_page *pg = page_find(b, no);

		if (pg != NULL) {
			if (pg->fill < read_need(r, i))
				goto miss;
			r->page[i] = pg;
			continue;
		}
		if (!blob_on_disk(b, no) || b->fd < 0 || b->cache->state != STORE_OPEN ||
		    b->load != BLOB_LOADED || (sp.sums[i] = sums_find(b, no)) == NULL)
			goto miss;
		sp.want |= UINT32_C(1) << i;
	}
	if (sp.want != 0 && !try_disk(r, &sp))
		goto miss;
	for (unsigned i = 0; i < r->slots; i++) {
		if (r->page[i] != NULL)
			page_pin(r->page[i]);
	}
	blob_hold(b);
	fill_iov(r);
	COUNT(b->cache->env.loop, CACHE_HIT_BYTES, r->got);
	r->state = READ_DONE;
	return true;
miss:
	memset(r->page, 0, r->slots * sizeof(r->page[0]));
	return false;
}

bool cache_blob_lacks(const struct blob *b, uint64_t off, uint64_t len)
{
	uint64_t unit, end = off + len;

	CHECK_OBJ(b, BLOB_MAGIC);
	unit = b->cache->page_size;
	if (b->load != BLOB_LOADED && store_wait(b->cache))
		return false;
	for (uint64_t no = off / unit; no * unit < end; no++) {
		const struct cache_page *pg = page_find(b, no);

		if (pg != NULL ? pg->fill < MIN(end - no * unit, unit) : !blob_on_disk(b, no))
			return true;
	}
	return false;
}

/* --- Later */

static void read_ready(struct cache_read *r, int err)
{
	struct cache *c = cache_of(r);

	r->err = err;
	r->state = READ_READY;
	TAILQ_INSERT_TAIL(&c->ready, r, link);
	loop_defer(c->env.loop, &c->ready_run, read_run_ready);
}

void read_fail(struct cache_read *r, int err)
{
	read_unwind(r, false);
	read_ready(r, err);
}

void read_run_ready(struct deferred *d)
{
	struct cache *c = container_of(d, struct cache, ready_run);
	struct cache_read *r;

	while ((r = TAILQ_FIRST(&c->ready)) != NULL) {
		TAILQ_REMOVE(&c->ready, r, link);
		if (r->err != 0) {
			r->state = READ_IDLE;
			read_end_hold(r);
		} else {
			fill_iov(r);
			r->state = READ_DONE;
		}
		r->done(r, r->err);
	}
}

/* Waits for the next page that lacks bytes, or is ready. */
static void read_next(struct cache_read *r)
{
	for (; r->wait < r->slots; r->wait++) {
		struct cache_page *pg = r->page[r->wait];

		if (pg == NULL || pg->fill >= read_need(r, r->wait))
			continue;
		if (pg->err != 0) {
			read_fail(r, pg->err);
			return;
		}
		r->state = READ_FILL;
		TAILQ_INSERT_TAIL(&pg->waiters, r, link);
		return;
	}
	read_ready(r, 0);
}

void read_filled(struct cache_read *r)
{
	r->wait++;
	read_next(r);
}

/* Makes the pages that nobody has and starts their fetch. */
static int read_fetch(struct cache_read *r)
{
	struct cache_page *fresh[CACHE_READ_IOV];
	unsigned n = 0;
	uint64_t bytes = 0;

	for (unsigned i = 0; i < r->slots; i++) {
		if (r->page[i] == NULL && !(r->disk >> i & 1)) {
			r->page[i] = page_new(r->blob, first_page(r) + i);
			if (r->page[i] == NULL)
				return -ENOMEM;
			fresh[n++] = r->page[i];
		}
		if (r->page[i] != NULL && r->page[i]->fill < read_need(r, i))
			bytes += slot_end(r, i) - slot_start(r, i);
	}
	COUNT(cache_of(r)->env.loop, CACHE_MISS_BYTES, bytes);
	COUNT(cache_of(r)->env.loop, CACHE_HIT_BYTES, r->len - bytes);
	if (n > 0)
		fetch_start(r->blob, fresh, n, r->stream, false);
	return 0;
}

/* Pins what is in memory; need: the buffers for the rest.  False: none. */
static bool read_look(struct cache_read *r, unsigned need[ARENA_KINDS])
{
	bool any = false;

	memset(need, 0, ARENA_KINDS * sizeof(*need));
	r->disk = 0;
	r->wait = 0;
	for (unsigned i = 0; i < r->slots; i++) {
		uint64_t no = first_page(r) + i;

		r->page[i] = page_find(r->blob, no);
		if (r->page[i] != NULL)
			page_pin(r->page[i]);
		else if (blob_on_disk(r->blob, no))
			r->disk |= UINT32_C(1) << i;
		else
			need[page_kind(r->blob, no)]++;
		any |= r->page[i] == NULL;
	}
	if (r->disk != 0)
		need[io_kind(r)]++;
	return any;
}

static void read_plan(struct cache_read *r, bool again);

static void memory_turn(struct mem_seat *s)
{
	read_plan(container_of(s, struct cache_read, seat), true);
}

static void wait_for_memory(struct cache_read *r, bool again)
{
	r->state = READ_MEMORY;
	r->seat.fn = memory_turn;
	read_memory_wait(cache_of(r), &r->seat, again);
}

/* again: it is the first of those who wait for memory. */
static void read_plan(struct cache_read *r, bool again)
{
	struct blob *b = r->blob;
	struct cache *c = b->cache;
	unsigned need[ARENA_KINDS];
	bool any;
	int err;

	if (b->load != BLOB_LOADED && store_wait(c)) {
		r->state = READ_LOADING;
		TAILQ_INSERT_TAIL(&b->loading, r, link);
		store_load(b);
		return;
	}
	any = read_look(r, need);
	if (r->disk != 0 && c->state != STORE_OPEN) {
		read_fail(r, -ECANCELED);
		return;
	}
	if (any && ((!again && !TAILQ_EMPTY(&c->mem_wait)) ||
		       (r->disk != 0 && !disk_may_hold(c, read_io_size(r))) ||
		       !page_reserve(c, need))) {
		read_unwind(r, false);
		if (arena_used(c->arena) == 0 && (again || TAILQ_EMPTY(&c->mem_wait)))
			read_ready(r, -ENOMEM); /* nobody will ever give any back */
		else
			wait_for_memory(r, again);
		return;
	}
	if (r->disk != 0)
		r->priv = arena_get(c->arena, io_kind(r));
	err = read_fetch(r);
	if (err == 0 && r->disk != 0) {
		r->state = READ_DISK;
		err = disk_read_start(r);
		if (err == 0)
			return;
	}
	if (err != 0)
		read_fail(r, err);
	else
		read_next(r);
}

void cache_read_start(struct cache_read *r)
{
	CHECK_OBJ(r->blob, BLOB_MAGIC);
	blob_hold(r->blob);
	if (r->slots == 0)
		read_ready(r, 0);
	else
		read_plan(r, false);
}

void read_resume(struct cache_read *r)
{
	read_plan(r, false);
}

void read_disk_done(struct cache_read *r, int err, uint32_t bad)
{
	const struct cache *c = cache_of(r);

	r->job = NULL;
	/* The index is being closed, but for nobody else to take over. */
	if (err == -ECANCELED && (c->gone || c->reopen) && c->closed == NULL) {
		read_unwind(r, false);
		read_plan(r, false);
	} else if (err != 0) {
		read_fail(r, err);
	} else if (bad != 0) {
		read_unwind(r, false);
		read_plan(r, false);
	} else {
		read_next(r);
	}
}

void read_go_past(struct cache_read *r)
{
	disk_read_orphan(r);
	read_unwind(r, false);
	read_plan(r, false);
}

void cache_read_abort(struct cache_read *r)
{
	struct cache *c = cache_of(r);

	switch (r->state) {
	case READ_LOADING:
		TAILQ_REMOVE(&r->blob->loading, r, link);
		break;
	case READ_MEMORY:
		read_memory_leave(c, &r->seat);
		break;
	case READ_DISK:
		disk_read_orphan(r);
		break;
	case READ_FILL:
		TAILQ_REMOVE(&r->page[r->wait]->waiters, r, link);
		break;
	case READ_READY:
		TAILQ_REMOVE(&c->ready, r, link);
		break;
	default:
		return;
	}
	r->state = READ_IDLE;
	read_unwind(r, true);
	read_end_hold(r);
}

void cache_read_release(struct cache_read *r)
{
	if (r->state != READ_DONE)
		return;
	r->state = READ_IDLE;
	read_unwind(r, false);
	r->niov = 0;
	read_end_hold(r);
}

/* --- Memory came back: reads first, then readahead */

void read_memory_wait(struct cache *c, struct mem_seat *s, bool again)
{
	if (again) {
		TAILQ_INSERT_HEAD(&c->mem_wait, s, link);
	} else {
		TAILQ_INSERT_TAIL(&c->mem_wait, s, link);
		COUNT(c->env.loop, MEMORY_WAITS, 1);
	}
}

void read_memory_leave(struct cache *c, struct mem_seat *s)
{
	TAILQ_REMOVE(&c->mem_wait, s, link);
	if (!TAILQ_EMPTY(&c->mem_wait))
		read_memory_freed(c);
}

void read_memory_freed(void *arg)
{
	struct cache *c = arg;

	if (!TAILQ_EMPTY(&c->mem_wait) || !TAILQ_EMPTY(&c->ahead))
		loop_defer(c->env.loop, &c->mem_run, read_run_memory);
}

void read_run_memory(struct deferred *d)
{
	struct cache *c = container_of(d, struct cache, mem_run);
	struct mem_seat *s;

	while ((s = TAILQ_FIRST(&c->mem_wait)) != NULL) {
		TAILQ_REMOVE(&c->mem_wait, s, link);
		s->fn(s);
		if (TAILQ_FIRST(&c->mem_wait) == s)
			return;
	}
	readahead_pump(c);
}
