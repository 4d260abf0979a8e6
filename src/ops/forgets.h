/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * FORGETs that were held back in a hand-over.  Nobody answers them, so the kernel never
 * sends them again: who dies with them in its hand takes them along.  Therefore a
 * successor works them off first, and says beside the counts how far it is.  Who takes
 * the mount back from it does the rest: each is counted once.
 */
#ifndef OPS_FORGETS_H
#define OPS_FORGETS_H

#include <stdint.h>

#include "ops/counts.h"
#include "ops/fs.h"

/* Before the right is taken: the daemon of that epoch will say how far it is. */
void forgets_begin(struct counts *c, uint64_t epoch);
/* How many of its FORGETs the daemon of that epoch has worked off.  All (UINT64_MAX) if it
 * did not say: it is of a version that does not, and one too few is better than one too
 * many. */
uint64_t forgets_done(const struct counts *c, uint64_t epoch);
/* With the right of that epoch and the state database open: works off the FORGETs of the
 * list and takes them out of it.  The first `skip` are counted already, and only what may
 * have been left of their nodes is removed. */
void forgets_apply(
    struct fs *fs, struct counts *c, uint64_t epoch, uint64_t skip, struct held_list *list);

#endif
