/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The store's writes and syncs, seen from below LMDB: this program's pwrite, writev and
 * fdatasync come before the C library's.  What was written and not synced may be lost
 * when power fails, or be there in part: disk_log_image() makes such a file.
 */
#ifndef T_UNIT_META_DISK_LOG_H
#define T_UNIT_META_DISK_LOG_H

#include <stdbool.h>
#include <stdint.h>

/* Follows the file's writes, from its present content on, until disk_log_stop(). */
void disk_log_start(const char *path);
void disk_log_stop(void);
unsigned disk_log_syncs(void);
/* Calls fn in the writing thread, before each write and sync takes place. */
void disk_log_hook(void (*fn)(void *arg), void *arg);
/* From now on syncs wait. */
void disk_log_hold(bool hold);
/* Does one wait? */
bool disk_log_held(void);
/* The next write of the page that names a commit fails with EIO, and so does LMDB's
 * attempt to undo it. */
void disk_log_fail_meta(void);
/* What a machine that loses power now could find; seed decides about what is not
 * synced.  From the hook too. */
void disk_log_image(const char *path, uint64_t seed);

#endif
