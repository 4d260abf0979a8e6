/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files of a file:// storage before they appear under their name.  A put has a file
 * without any name, where the file system can do that, so that nothing is left of one
 * that a crash ends; elsewhere one under a name that the mount always takes for this
 * target, so that who puts, deletes or renames it next takes what was left away.  An
 * upload outlives processes, and has a name of its own.  Listings and stat leave such
 * names out.  Any thread, unless it is said.
 */
#ifndef UFS_POSIX_TEMP_H
#define UFS_POSIX_TEMP_H

#include "ufs/posix_priv.h"

/* Is this one of our temporary names?  Has a path one in it? */
bool posix_temp_name(const char *name, size_t len);
bool posix_temp_in(const char *path);
void posix_temp_text(char name[POSIX_TMP_MAX], uint64_t token);

/* Opens pj->dir and makes pj->fd for the file that will be pj->path. */
int posix_temp_new(struct posix_job *pj, int root, bool named);
/* Closes pj->fd; removes pj->tmp, if it is not "", from pj->dir. */
void posix_temp_drop(struct posix_job *pj);

/* Makes pj->fd appear as pj->path, under the conditions of the job, with pj->set, and
 * with what it lacks from `like` or else from the file that is replaced.  Synced.
 * pj->attr is of the file. */
int posix_temp_place(struct posix_job *pj, const struct stat *like);

/* --- posix_mark.c.  pj->fd is told to be of this mount's number pj->file, before it has its
 * mode and time. */
void posix_mark(const struct posix_job *pj);
/* Is it of that number, and as it was put?  fd: O_PATH will do; or a name in pj->dir. */
bool posix_mark_is(const struct posix_job *pj, int fd, const struct stat *st);
bool posix_mark_at(const struct posix_job *pj, const char *name);

/* Of a file that is deleted or renamed: the names that one which was to replace it may have
 * been left under. */
void posix_temp_forget(const struct posix_job *pj, int dir, const char *name);

/* Mode, owner and times of an open file or (O_PATH) anything else. */
int posix_set_apply(int fd, const struct stat *now, const struct ufs_set *set);
int posix_pwrite_all(int fd, const char *buf, size_t len, uint64_t off);
/* Waits until the bytes of a range are on the disk. */
int posix_sync_range(int fd, uint64_t off, uint64_t len);
/* Makes the names in a directory durable. */
int posix_sync_dir(int dir);
/* Removes what is temporary in a directory.  Positive: there was something. */
int posix_temp_sweep(int dir, const char *name);

#endif
