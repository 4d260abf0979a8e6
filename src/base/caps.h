/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Capabilities of the calling thread (capabilities(7)), as bits 1 << CAP_*.  Threads
 * made later have those of their maker, so a process gives up what it does not need
 * before it starts any.  A program that is started afterwards has again what its user
 * and the bounding set allow.
 */
#ifndef BASE_CAPS_H
#define BASE_CAPS_H

#include <stddef.h>
#include <stdint.h>

/* The effective ones; 0 also if that cannot be known. */
uint64_t caps_effective(void);
/* Gives up all others, effective and permitted: 0 or negative errno. */
int caps_keep(uint64_t keep);
/* The name of the lowest capability in *set ("CAP_SYS_ADMIN"; "CAP_63" if it is not known
 * here), which is taken out of it; NULL: it is empty. */
const char *caps_next(uint64_t *set, char *buf, size_t len);

#endif
