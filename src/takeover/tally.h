/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What all takeovers and recoveries of a mount came to, for `status`: a row of the state
 * database, so that it outlives the daemons.  Without the database, or without room in
 * it, only what this daemon has seen is told.
 */
#ifndef TAKEOVER_TALLY_H
#define TAKEOVER_TALLY_H

#include <stdint.h>

struct statedb;

/* The pauses of planned takeovers: so many were as long as each bound, or shorter, and
 * longer than the one before; the last has none. */
#define TALLY_BOUNDS 14
#define TALLY_BUCKETS (TALLY_BOUNDS + 1)
extern const uint32_t tally_bounds_ms[TALLY_BOUNDS];

/* New members go to the end: a row is as long as the version that wrote it knew. */
struct takeover_tally {
	uint64_t takeovers, recoveries, failed;
	/* requests: handed over before COMMIT and after it, failed with EAGAIN and with EIO,
	 * sent again by the kernel after a death */
	uint64_t held, resumed, refused, aborted, replayed;
	uint64_t pause_total_ns, pause_longest_ns;
	uint64_t pause[TALLY_BUCKETS];
};

void tally_pause(struct takeover_tally *t, uint64_t ns);
/* Adds what the row says to t; db may be NULL. */
void tally_load(struct takeover_tally *t, struct statedb *db);
/* Writes the row, with so many more requests replayed than t has; db may be NULL.
 * Committed with the turn. */
void tally_save(const struct takeover_tally *t, struct statedb *db, uint64_t replayed);

#endif
