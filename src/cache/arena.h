/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Data buffers: prefaulted memory (locked where the limits allow it) of a few
 * sizes, under one hard ceiling.  A reply made from it cannot fault.
 *
 * Nobody blocks here: arena_reserve() says whether a set of buffers can be had
 * now, and `freed` is called when one has come back, so that those who wait can
 * try again.  Buffers that nobody needed for a while go back to the system.
 * Loop thread.
 */
#ifndef CACHE_ARENA_H
#define CACHE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/queue.h"

struct arena;
struct loop;

enum arena_kind {
	ARENA_SMALL, /* up to ARENA_SMALL_SIZE of either */
	ARENA_PAGE, /* one cache page */
	ARENA_IO,   /* one read from disk */
	ARENA_KINDS
};

#define ARENA_SMALL_SIZE (64 * 1024)

struct arena_buf {
	SLIST_ENTRY(arena_buf) link;
	unsigned char *mem;
	enum arena_kind kind;
};

/* freed(arg) may be called from any arena_put(); it must only defer. */
int arena_new(struct arena **out, struct loop *lp, uint64_t limit, size_t page_size,
    size_t io_size, void (*freed)(void *arg), void *arg);
/* All buffers must be back. */
void arena_free(struct arena **a);

/* True: the next `need[kind]` calls of arena_get() succeed. */
bool arena_reserve(struct arena *a, const unsigned need[ARENA_KINDS]);
/* NULL: none to be had within the limit. */
struct arena_buf *arena_get(struct arena *a, enum arena_kind kind);
void arena_put(struct arena *a, struct arena_buf **bufp);

/* Bytes given out, and bytes taken from the system. */
uint64_t arena_used(const struct arena *a);
uint64_t arena_resident(const struct arena *a);
uint64_t arena_limit(const struct arena *a);

#endif
