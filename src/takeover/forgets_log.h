/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * FORGETs that the old daemon reads in the window of a hand-over, which nobody answers
 * and no resend brings back.  It reads the FUSE descriptor straight into a file of
 * state.dir, where they stay: if it dies before COMMIT, who recovers the mount works
 * them off (ops/forgets.h).  What else it reads is passed over again.
 *
 * The file counts for one epoch, its writer's.  COMMIT hands the same FORGETs over, so
 * that the successor, by raising the epoch, says that they are its business now.
 */
#ifndef TAKEOVER_FORGETS_LOG_H
#define TAKEOVER_FORGETS_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ops/counts.h"
#include "ops/fs.h"

struct forgets_log {
	unsigned char *map; /* NULL: not begun */
	size_t len;
	int fd; /* -1: there is no room for a file, this is memory only */
};

/* 0, or -ENOMEM without memory either.  dir_fd: of state.dir, stays the caller's; -1:
 * memory only. */
int forgets_log_begin(struct forgets_log *fl, int dir_fd, uint64_t epoch);
/* Where the next request is to be read: HELD_REQ_MAX bytes of it, in memory already.
 * NULL: no room. */
void *forgets_log_next(struct forgets_log *fl);
/* What was read there is a FORGET, or something else. */
void forgets_log_keep(struct forgets_log *fl, size_t len);
void forgets_log_pass(struct forgets_log *fl);
/* The file stays. */
void forgets_log_end(struct forgets_log *fl);

/* With the claim, before the right is taken: the FORGETs to work off for who raises the
 * epoch `from`, at the end of list, and how many of them are counted already.  Nothing
 * if there are none. */
void forgets_log_take(
    int dir_fd, uint64_t from, const struct counts *c, struct held_list *list, uint64_t *skip);
/* The same, for who will say then how far it is (ops/forgets.h).  Not died: COMMIT
 * has them. */
void forgets_log_claim(
    int dir_fd, uint64_t from, struct counts *c, bool died, struct held_list *list, uint64_t *skip);
/* Works them off, and drops the file. */
void forgets_log_apply(struct fs *fs, int dir_fd, struct counts *c, uint64_t epoch, uint64_t skip,
    struct held_list *list);
/* They are worked off, or are about to be. */
void forgets_log_drop(int dir_fd);

#endif
