/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads: at once, or when the base's bytes, the memory and its turn have come. */
#include <errno.h>
#include <string.h>

#include "cache/staged_priv.h"

static enum arena_kind kind_of(const struct staged_io *io)
{
	return io->len <= ARENA_SMALL_SIZE ? ARENA_SMALL : ARENA_IO;
}

static uint64_t clip(const struct staged_io *io)
{
	const struct staged *sf = io->sf;

	return io->off >= sf->size ? 0 : MIN(io->len, sf->size - io->off);
}

static bool missing(const struct staged_io *io, uint64_t len)
{
	uint64_t stop = MIN(io->off + len, io->sf->limit), from, to;

	if (io->off >= stop)
		return false;
	sf_gap(io->sf, io->off, stop, &from, &to);
	return from < to;
}

static void set_iov(struct staged_io *io)
{
	struct arena_buf *buf = io->priv;

	io->iov.iov_base = io->kind == IO_PREAD ? io->mem : buf->mem;
	io->iov.iov_len = io->got;
}

void staged_read_release(struct staged_io *io)
{
	struct arena_buf *buf = io->priv;

	io->priv = NULL;
	memset(&io->iov, 0, sizeof(io->iov));
	if (buf != NULL)
		arena_put(io->cache->arena, &buf);
}

bool staged_read_try(struct staged_io *io)
{
	struct staged *sf = io->sf;

	CHECK_OBJ(sf, STAGED_MAGIC);
	(void)io_begin(io, IO_READ);
	sf->nio--;
	io->len = MIN(io->len, STAGED_IO_MAX);
	io->got = clip(io);
	if (io->got == 0)
		return TAILQ_EMPTY(&sf->queue);
	if (!TAILQ_EMPTY(&sf->queue) || (sf->verify && !hold_reads(sf)) || missing(io, io->got) ||
	    !TAILQ_EMPTY(&io->cache->mem_wait))
		goto later;
	io->priv = arena_get(io->cache->arena, kind_of(io));
	if (io->priv == NULL)
		goto later;
	set_iov(io);
	if (hold_reads(sf) ? hold_read(sf, io->off, io->got, io->iov.iov_base) == 0
		     : staged_file_read(sf, io->off, io->got, io->iov.iov_base, RWF_NOWAIT) == 0)
		return true;
	staged_read_release(io);
later:
	io->got = 0;
	return false;
}

bool staged_read_lacks(const struct staged_io *io)
{
	const struct staged *sf = io->sf;
	uint64_t stop = MIN(io->off + clip(io), sf->limit), from, to;

	for (uint64_t at = io->off; sf->base != NULL && at < stop; at = to) {
		sf_gap(sf, at, stop, &from, &to);
		if (from < to && cache_blob_lacks(sf->base, from, to - from))
			return true;
	}
	return false;
}

void staged_read(struct staged_io *io)
{
	(void)io_begin(io, IO_READ);
	io->len = MIN(io->len, STAGED_IO_MAX);
	fill_start(io);
}

void staged_pread(struct staged_io *io, void *mem)
{
	(void)io_begin(io, IO_PREAD);
	io->mem = mem;
	fill_start(io);
}

bool staged_pread_try(struct staged_io *io, void *mem)
{
	struct staged *sf = io->sf;

	CHECK_OBJ(sf, STAGED_MAGIC);
	(void)io_begin(io, IO_PREAD);
	sf->nio--;
	/* Of a durable file the sums are on the disk, too. */
	if (sf->durable || !TAILQ_EMPTY(&sf->queue) || clip(io) < io->len || missing(io, io->len) ||
	    staged_file_read(sf, io->off, io->len, mem, RWF_NOWAIT) != 0)
		return false;
	io->got = io->len;
	return true;
}

/* --- Memory */

static void take_memory(struct staged_io *io, bool again)
{
	struct cache *c = io->cache;
	unsigned need[ARENA_KINDS] = {0};

	need[kind_of(io)] = 1;
	if ((!again && !TAILQ_EMPTY(&c->mem_wait)) || !page_reserve(c, need)) {
		if (arena_used(c->arena) == 0 && (again || TAILQ_EMPTY(&c->mem_wait))) {
			io_ready(io, -ENOMEM); /* nobody will ever give any back */
			return;
		}
		io->state = IO_MEMORY;
		read_memory_wait(c, &io->seat, again);
		return;
	}
	io->priv = arena_get(c->arena, kind_of(io));
	io_queue(io);
}

static void memory_turn(struct mem_seat *s)
{
	take_memory(container_of(s, struct staged_io, seat), true);
}

void sread_filled(struct staged_io *io)
{
	io->seat.fn = memory_turn;
	if (io->kind == IO_PREAD || io->len == 0)
		io_queue(io);
	else
		take_memory(io, false);
}

/* --- Its turn */

bool sread_begin(struct staged_io *io)
{
	io->got = clip(io);
	if (!missing(io, io->got))
		return true;
	/* An upload has ended meanwhile, and the file has a new base.  Nobody may wait
	 * for bytes while he has memory. */
	staged_read_release(io);
	return false;
}

void sread_end(struct staged_io *io, int err)
{
	if (err == 0 && io->got > 0)
		set_iov(io);
	if (err != 0 || io->got == 0)
		staged_read_release(io);
}
