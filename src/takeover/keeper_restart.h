/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * When to start a daemon again, and when to give up: at most `limit` restarts
 * within `window`.  The first is immediate; from the second within a minute on
 * each waits twice as long as the one before.  Pure: the caller has the clock.
 */
#ifndef TAKEOVER_KEEPER_RESTART_H
#define TAKEOVER_KEEPER_RESTART_H

#include <stdint.h>

#define RESTART_LIMIT_MAX 1000u

struct restart {
	unsigned limit;
	uint64_t window_ns;
	unsigned n;                       /* restarts remembered, oldest first */
	uint64_t when[RESTART_LIMIT_MAX]; /* when each was decided */
};

/* "5 in 1min" */
void restart_init(struct restart *r);
/* "N in DURATION": 0 or -EINVAL, then nothing changed.  "0 in 1min": never. */
int restart_set_limit(struct restart *r, const char *text);
/* A daemon has died at `now`: nanoseconds to wait before the next is started, or
 * -1 if the limit is reached. */
int64_t restart_next(struct restart *r, uint64_t now);

#endif
