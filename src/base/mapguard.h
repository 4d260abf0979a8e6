/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mapped files whose disk fails.
 *
 * A page of a map that cannot be read is a SIGBUS for whoever touches it, which would
 * be the end of the process.  mapguard_run() ends only the function that touched it: its
 * frames are left by a long jump, so it must hold no lock and own nothing that nobody
 * else knows.  Any other SIGBUS ends the process as before.
 *
 * The alternative, files that are read by pread, is not to be had with LMDB: it reads
 * through its map always.  And a map of zeros put under its feet would have it follow
 * what is not a tree.
 *
 * Any thread that does not block SIGBUS; mapguard_lose() any thread.
 */
#ifndef BASE_MAPGUARD_H
#define BASE_MAPGUARD_H

#include <stdbool.h>

/* False: a page of a map could not be read, and fn has not come to its end.  Calls do
 * not nest. */
bool mapguard_run(void (*fn)(void *arg), void *arg);

/* What cannot be freed because fn was in the middle of changing it: it stays as it is
 * until the process ends, where those who look for leaks find it. */
void mapguard_lose(void *what);

#endif
