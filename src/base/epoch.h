/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The epoch: one word in a shared memfd that says which daemon may write.
 *
 * Each daemon of a mount raises the word once, by compare-and-swap from the
 * value that it was given, and from then on acts only while the word still has
 * its own value.  Before it reads the FUSE descriptor, opens or commits a
 * database, inserts pages or sends a new storage mutation it calls epoch_mine().
 * A daemon whose epoch has passed may only answer the data reads it still runs.
 */
#ifndef BASE_EPOCH_H
#define BASE_EPOCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct epoch {
	_Atomic uint64_t *word; /* shared mapping; NULL: no rival possible (unit tests) */
	uint64_t mine;		/* the value this daemon wrote; 0: none yet */
	int fd;			/* the memfd, passed to keeper and successor */
};

static inline bool epoch_mine(const struct epoch *ep)
{
	return ep->word == NULL ||
	       (ep->mine != 0 && atomic_load_explicit(ep->word, memory_order_acquire) == ep->mine);
}

/* A fresh word of 0 in a new memfd (close-on-exec).  0 or negative errno. */
int epoch_create(struct epoch *ep);
/* Maps a word that came as a descriptor; takes fd over, also on failure.  -EINVAL if
 * it is not what epoch_create() makes: a sealed memfd that nobody can shrink. */
int epoch_adopt(struct epoch *ep, int fd);
/* The present value of the word, whoever's it is. */
uint64_t epoch_read(const struct epoch *ep);
/* Raises the word from `from` to from + 1: 0, or -ESTALE if somebody was first. */
int epoch_raise(struct epoch *ep, uint64_t from);
/* Unmaps and closes; ep->word is NULL afterwards and ep->mine 0. */
void epoch_close(struct epoch *ep);

#endif
