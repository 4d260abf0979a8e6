/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mount.batonfs(8), the helper that mount(8) calls: its words are turned into
 * those of batonfsd(8).
 */
#ifndef MOUNT_MOUNT_H
#define MOUNT_MOUNT_H

#include <stdbool.h>

#include "base/errtext.h"

#define MOUNT_OPTIONS_MAX 64

struct mount_args {
	const char *source, *target;
	const char *options[MOUNT_OPTIONS_MAX]; /* what stood behind each -o */
	unsigned noptions;
	bool fake;    /* -f: everything but the mount */
	bool sloppy;  /* -s: unknown options are dropped */
	bool verbose; /* -v */
};

/* The command line of batonfsd, to be given to argv_free(), or NULL with words and
 * *err: -EINVAL (what was asked for makes no sense) or -ENOMEM. */
char **mount_translate(const struct mount_args *ma, const char *batonfsd, int *err,
    struct errtext *et);

#endif
