/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lookup counts: how many references the kernel holds on each node id.
 *
 * An array in a shared memfd that keeper and successor get as a descriptor, so a
 * count changes without a database write and outlives the process; over-counted
 * at worst.  A node's row in the state database names its slot.  Free slots are
 * chained inside the array itself.
 */
#ifndef OPS_COUNTS_H
#define OPS_COUNTS_H

#include <stdint.h>

struct counts;

int counts_create(struct counts **out);
/* Takes fd over, also on failure.  -EPROTO if it is not such an array. */
int counts_adopt(struct counts **out, int fd);
void counts_close(struct counts **c); /* unmaps and closes; the array lives on elsewhere */
int counts_fd(const struct counts *c);

/* A new slot with count 0 to *slot; -ENOSPC or -ENOMEM if it cannot grow. */
int counts_alloc(struct counts *c, uint32_t *slot);
void counts_free_slot(struct counts *c, uint32_t slot);
uint64_t counts_get(const struct counts *c, uint32_t slot);
void counts_add(struct counts *c, uint32_t slot, uint64_t n);
/* Subtracts at most what is there; returns what is left. */
uint64_t counts_sub(struct counts *c, uint32_t slot, uint64_t n);
/* A word beside the counts, 0 at first, that lives as long as they do (ops/forgets.h). */
void counts_note(struct counts *c, uint64_t word);
uint64_t counts_noted(const struct counts *c);

#endif
