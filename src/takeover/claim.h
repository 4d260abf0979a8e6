/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Is the holder of the epoch alive?  The serving daemon has a POSIX record lock
 * on the epoch's memfd: the kernel drops it when the process dies, however it
 * dies, and it is seen across pid namespaces, where a pid says nothing.  A
 * restarted daemon takes the lock before it raises the epoch, so that it never
 * overtakes a daemon that lives (or hangs: its watchdog ends that).
 *
 * Closing any descriptor of that memfd drops the lock: a process keeps one.
 */
#ifndef TAKEOVER_CLAIM_H
#define TAKEOVER_CLAIM_H

#include "base/epoch.h"

/* 0 (also if it is ours already), or -EBUSY. */
int claim_take(const struct epoch *ep);
void claim_drop(const struct epoch *ep);

#endif
