/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What comes from the kernel in the window of a planned hand-over, between READY and
 * COMMIT: it waits in the kernel for a while, then is read and sorted.  New changes and
 * listings fail with EAGAIN, and nothing has come of them; everything else is kept raw,
 * for the successor or, if it fails, for this daemon.
 *
 * Kept is also what changes something but must not fail: what the kernel has sent before
 * (it may have begun), pages of a mapping that it writes back, the closing of files.
 * Without memory, and with very much of it taken, the rest waits in the kernel.
 */
#ifndef TAKEOVER_SIEVE_H
#define TAKEOVER_SIEVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/epoch.h"
#include "ops/fs.h"
#include "reactor/loop.h"
#include "reactor/timer.h"
#include "takeover/forgets_log.h"

struct sieve {
	struct loop *loop; /* NULL: not started */
	const struct epoch *epoch;
	/* A FUSE_INTERRUPT, for whoever may have what it is about running. */
	void (*interrupt)(void *arg, const void *raw, size_t len);
	void *arg;
	int fd; /* a duplicate: the channel has its own watch; -1: reads nothing */
	struct loop_fd lf;
	struct timer timer;
	int state_fd;
	struct forgets_log log; /* what is read comes there */
	struct held_req *spare; /* for the request that memory does not suffice for */
	size_t held_bytes;
	struct held_list held;
	uint64_t refused;
};

/* Would this request fail?  For requests of at least a header's length. */
bool sieve_refuses(const void *raw, size_t len);
/* From hold_ns on it reads fd, which stays the caller's as does state_fd; until then
 * nothing.  What keeps it from reading is logged, and all requests wait.  sv is zeroed. */
void sieve_start(struct sieve *sv, struct loop *lp, int fd, int state_fd,
    const struct epoch *epoch, uint64_t hold_ns,
    void (*interrupt)(void *arg, const void *raw, size_t len), void *arg);
/* Ends it: what it holds goes to the end of the list.  FORGETs are in the file of
 * forgets_log.h, too, until that is dropped.  Returns how many have failed with
 * EAGAIN.  No-op (0) if it was not started. */
uint64_t sieve_stop(struct sieve *sv, struct held_list *to);

#endif
