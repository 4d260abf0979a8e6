/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fail the n-th allocation, for every n:
 *
 *	for (n = 1; nth_arm(n), run(), nth_fired(); n++)
 *		;
 *
 * run() does the work under test and must either succeed or fail cleanly; the
 * loop ends with the first run that needs fewer than n allocations.  Counted are
 * malloc, calloc, realloc, posix_memalign and aligned_alloc of the arming thread,
 * in libraries too.  Check results after nth_disarm(): a failing test framework
 * proves nothing.  Works in sanitizer builds, whose own checks stay on.
 */
#ifndef T_LIB_NTH_FAULT_H
#define T_LIB_NTH_FAULT_H

#include <stdbool.h>

/* From now on this thread's n-th allocation (n >= 1) fails, once. */
void nth_arm(unsigned n);
/* No allocation fails any more; what happened is remembered. */
void nth_disarm(void);
/* Disarms.  Has the fault happened since nth_arm()? */
bool nth_fired(void);

#endif
