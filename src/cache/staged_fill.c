/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bytes of the base into the file.  Who needs some waits on the file's list; what he
 * lacks is read from the cache in chunks, each by one of those who want it, and each
 * takes its turn in the queue to be written where nothing is yet.
 */
#include <errno.h>
#include <string.h>

#include "cache/staged_priv.h"

/* Of one file at one time.  Reads come before long fills. */
#define CHUNKS_FILL 4
#define CHUNKS_READ 16

static struct chunk *chunk_of(struct staged_io *io)
{
	return container_of(io, struct chunk, io);
}

static uint64_t stop_of(const struct staged_io *io)
{
	return MIN(io->off + io->len, MIN(io->sf->size, io->sf->limit));
}

/* --- Chunks */

static void chunk_free(struct chunk *ch)
{
	struct staged *sf = ch->io.sf;

	TAILQ_REMOVE(&sf->chunks, ch, link);
	sf->nchunks--;
	if (ch->reading)
		cache_read_abort(&ch->read);
	else
		cache_read_release(&ch->read);
	free(ch);
}

static void fail_waiters(struct staged *sf, const struct chunk *ch, int err)
{
	struct staged_io *io, *next;
	uint64_t end = ch->io.off + ch->io.len;

	TAILQ_FOREACH_SAFE(io, &sf->fills, link, next) {
		if (io->pos >= end || stop_of(io) <= ch->io.off)
			continue;
		if (err == -ESTALE && sf->base_stale && io->kind == IO_READ)
			continue;
		TAILQ_REMOVE(&sf->fills, io, link);
		io_ready(io, err);
	}
}

static void chunk_read_done(struct cache_read *r, int err)
{
	struct chunk *ch = container_of(r, struct chunk, read);
	struct staged *sf = ch->io.sf;

	ch->reading = false;
	if (err == 0 && r->got < ch->io.len)
		err = -ESTALE; /* the base is shorter than it was said to be */
	if (err == 0) {
		io_queue(&ch->io);
		return;
	}
	/* The object is another one already, and the upload that made it will say so. */
	if (err == -ESTALE && sf->sending > sf->clean)
		sf->base_stale = true;
	fail_waiters(sf, ch, err);
	chunk_free(ch);
	fill_kick(sf);
}

static int chunk_start(struct staged *sf, uint64_t from, uint64_t stop)
{
	struct cache *c = sf->st->env.cache;
	uint64_t unit = MIN(c->page_size, READ_MAX), end, gap, to;
	struct chunk *ch, *other;

	end = MIN((stop + unit - 1) / unit * unit, from / READ_MAX * READ_MAX + READ_MAX);
	end = MIN(end, sf->limit);
	TAILQ_FOREACH(other, &sf->chunks, link) {
		if (other->io.off > from)
			end = MIN(end, other->io.off);
	}
	/* Not what is there already at its end. */
	sf_gap(sf, from, end, &gap, &to);
	for (uint64_t at = to; at < end; at = to) {
		sf_gap(sf, at, end, &gap, &to);
		if (gap == to)
			end = MIN(end, at);
	}
	ch = calloc(1, sizeof(*ch));
	if (ch == NULL)
		return -ENOMEM;
	ch->io.sf = sf;
	ch->io.kind = IO_CHUNK;
	ch->io.off = from;
	ch->io.len = end - from;
	ch->io.cache = c;
	ch->read.blob = sf->base;
	ch->read.stream = &sf->stream;
	ch->read.off = from;
	ch->read.len = ch->io.len;
	ch->read.done = chunk_read_done;
	TAILQ_INSERT_TAIL(&sf->chunks, ch, link);
	sf->nchunks++;
	ch->reading = true;
	if (cache_read_try(&ch->read)) {
		ch->reading = false;
		if (ch->read.got < ch->io.len) {
			chunk_free(ch);
			return -ESTALE;
		}
		io_queue(&ch->io);
	} else {
		cache_read_start(&ch->read);
	}
	return 0;
}

/* Its bytes are in the file, or there was nothing to write. */
static int chunk_apply(struct staged *sf, const struct chunk *ch)
{
	uint64_t at = ch->io.off, end = at + ch->io.len, from, to;
	int err = 0;

	while (err == 0) {
		sf_gap(sf, at, end, &from, &to);
		if (from >= to)
			break;
		err = map_reserve(&sf->map);
		if (err == 0)
			err = ext_set(sf, from, to, 0);
		at = to;
	}
	return err;
}

/* The file was closed meanwhile. */
static void last_chunk(struct staged *sf)
{
	/* Should it have been deleted just before, this may have made it. */
	struct gone *g = sf->deleted && sf->map.n == 0 ? gone_new(sf->epoch, sf->path, false)
							 : NULL;

	if (g != NULL)
		gone_submit(sf->pool, g);
	sf_free(sf);
}

void fill_chunk_ended(struct staged_io *io, int err)
{
	struct staged *sf = io->sf;
	struct chunk *ch = chunk_of(io);

	io_unqueue(io);
	if (sf->st == NULL) {
		chunk_free(ch);
		last_chunk(sf);
		return;
	}
	if (err == 0)
		err = chunk_apply(sf, ch);
	if (err != 0)
		fail_waiters(sf, ch, err);
	chunk_free(ch);
	io_kick(sf);
	fill_kick(sf);
}

/* --- Who waits */

/* 0: nothing is missing any more; 1: it waits on. */
static int advance(struct staged_io *io)
{
	struct staged *sf = io->sf;
	uint64_t stop = stop_of(io), at, from, to;
	unsigned most = io->kind == IO_READ ? CHUNKS_READ : CHUNKS_FILL;
	struct chunk *ch;
	int err;

	if (io->pos >= stop)
		return 0;
	sf_gap(sf, io->pos, stop, &from, &to);
	io->pos = from;
	if (from == to)
		return 0;
	if (sf->base == NULL)
		return -ESTALE;
	for (at = from; at < stop;) {
		sf_gap(sf, at, stop, &from, &to);
		if (from == to)
			break;
		at = from;
		TAILQ_FOREACH(ch, &sf->chunks, link) {
			if (ch->io.off <= at && at < ch->io.off + ch->io.len)
				break;
		}
		if (ch != NULL) {
			at = ch->io.off + ch->io.len;
			continue;
		}
		if (sf->nchunks >= most || (sf->base_stale && io->kind == IO_READ))
			break;
		err = chunk_start(sf, at, stop);
		if (err != 0)
			return err;
	}
	return 1;
}

static void step(struct staged_io *io)
{
	struct staged *sf = io->sf;
	int rc = advance(io);

	if (rc == 1)
		return;
	TAILQ_REMOVE(&sf->fills, io, link);
	if (rc != 0 || io->kind == IO_FILL)
		io_ready(io, rc);
	else
		sread_filled(io);
}

void fill_start(struct staged_io *io)
{
	struct staged *sf = io->sf;

	io->state = IO_FILLING;
	io->pos = io->off;
	TAILQ_INSERT_TAIL(&sf->fills, io, link);
	step(io);
}

void fill_kick(struct staged *sf)
{
	struct staged_io *io, *next;

	sf->kick_again = true;
	if (sf->kicking)
		return;
	sf->kicking = true;
	while (sf->kick_again) {
		sf->kick_again = false;
		TAILQ_FOREACH_SAFE(io, &sf->fills, link, next) {
			if (io->kind == IO_READ)
				step(io);
		}
		TAILQ_FOREACH_SAFE(io, &sf->fills, link, next) {
			if (io->kind != IO_READ)
				step(io);
		}
	}
	sf->kicking = false;
}

/* Unless it is being written. */
static void chunk_drop(struct chunk *ch)
{
	struct staged *sf = ch->io.sf;

	if (!ch->reading) {
		if (TAILQ_FIRST(&sf->queue) == &ch->io && sf->running &&
		    !pool_recall(&ch->io.job))
			return;
		io_unqueue(&ch->io);
	}
	chunk_free(ch);
}

static bool wanted(const struct staged *sf, const struct chunk *ch)
{
	const struct staged_io *io;

	TAILQ_FOREACH(io, &sf->fills, link) {
		if (io->pos < ch->io.off + ch->io.len && stop_of(io) > ch->io.off)
			return true;
	}
	return false;
}

void fill_leave(struct staged_io *io)
{
	struct staged *sf = io->sf;
	struct chunk *ch, *next;

	TAILQ_REMOVE(&sf->fills, io, link);
	TAILQ_FOREACH_SAFE(ch, &sf->chunks, link, next) {
		if (!wanted(sf, ch))
			chunk_drop(ch);
	}
	io_kick(sf);
	fill_kick(sf);
}

/* What was cut off does not come back with bytes that are on their way. */
void fill_cut(struct staged *sf, uint64_t size)
{
	struct chunk *ch;

	TAILQ_FOREACH(ch, &sf->chunks, link) {
		if (ch->io.off + ch->io.len > size)
			ch->io.len = ch->io.off >= size ? 0 : size - ch->io.off;
	}
}

void fill_stop_reading(struct staged *sf)
{
	struct chunk *ch, *next;

	TAILQ_FOREACH_SAFE(ch, &sf->chunks, link, next) {
		if (ch->reading)
			chunk_free(ch);
	}
}

void fill_end_all(struct staged *sf)
{
	struct chunk *ch, *next;

	TAILQ_FOREACH_SAFE(ch, &sf->chunks, link, next)
	chunk_drop(ch);
}
