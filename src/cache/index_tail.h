/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The index's last batch, left by a daemon that hands over: a checksummed file
 * that needs no sync, so that the hand-over waits for no disk.
 */
#ifndef CACHE_INDEX_TAIL_H
#define CACHE_INDEX_TAIL_H

struct index;

/* Applies and removes what was left; a torn or unknown file is only removed. */
void index_tail_take(struct index *ix, int dir_fd);

#endif
