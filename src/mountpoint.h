/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looking at a mount point without asking the file system that is mounted there:
 * it may be served by a dead daemon, by one that waits for us, or by ourselves.
 * Only the parent directory is walked; the rest comes from /proc/self/mountinfo.
 */
#ifndef MOUNTPOINT_H
#define MOUNTPOINT_H

#include <stdbool.h>

#include "base/errtext.h"

/* Absolute path without links, "." and "..": malloc'ed to *out.  -ENOENT and the
 * like with words. */
int mountpoint_resolve(const char *path, char **out, struct errtext *et);

enum mountpoint_use {
	MOUNTPOINT_FREE,    /* nothing is mounted exactly there */
	MOUNTPOINT_BATONFS, /* a batonfs mount */
	MOUNTPOINT_OTHER,   /* something else, which we would cover */
};

/* What is mounted there (the topmost), or negative errno. */
int mountpoint_use(const char *mountpoint);

/* Nobody has the mount there, and nobody will: its connection is gone (ENOTCONN).  False
 * also if that cannot be found out within seconds. */
bool mountpoint_is_dead(const char *mountpoint);

/* For a fresh mount: a directory with nothing of ours on it.  0, -ENOTDIR, -ENOENT,
 * -EBUSY, with words. */
int mountpoint_check_free(const char *mountpoint, struct errtext *et);

/* A descriptor that was given (--fuse-fd): 0, -EBADF or -EINVAL with words. */
int mountpoint_check_fuse_fd(int fd, struct errtext *et);

/* False if there is something that a mount would hide; true also if nobody can say.
 * Only where mountpoint_check_free() is content. */
bool mountpoint_is_empty(const char *mountpoint);

#endif
