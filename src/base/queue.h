/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Intrusive lists: the C library's <sys/queue.h>, plus the one traversal that
 * it lacks and that lets the current element be removed.
 */
#ifndef BASE_QUEUE_H
#define BASE_QUEUE_H

#include <sys/queue.h>

#ifndef TAILQ_FOREACH_SAFE
#define TAILQ_FOREACH_SAFE(var, head, field, next)                                                 \
	for ((var) = TAILQ_FIRST(head); (var) != NULL && ((next) = TAILQ_NEXT(var, field), 1);     \
	     (var) = (next))
#endif

#endif
