/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * New side after DONE: the connection to the old daemon, which finishes or hands
 * over the data reads that were running.  On the loop; ends by itself with END, or
 * with the old daemon's death, after which its requests are sent again.
 */
#ifndef TAKEOVER_LINK_H
#define TAKEOVER_LINK_H

#include <stdint.h>

struct config;
struct daemon;

/* Takes sock over, and process, a pidfd of the old daemon or -1.  There is one link at
 * most: a second takeover of the same daemon cannot begin before it became the old
 * side. */
void link_start(struct daemon *d, int sock, int process);
/* The link ends within so many nanoseconds; an old daemon that hangs is killed. */
uint64_t link_limit(const struct config *cfg);
/* Before the loop is freed; no-op if there is none. */
void link_stop(struct daemon *d);

#endif
