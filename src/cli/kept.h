/* SPDX-License-Identifier: BSD-2-Clause */
/* What earlier mounts could not store: inside of async-persist ... --kept.  Functions that
 * return enum cli_exit have said what went wrong; the others return 0 or a negative errno. */
#ifndef CLI_KEPT_H
#define CLI_KEPT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "cli/cli.h"

struct kept_range {
	uint64_t off, end;
};

/* One file, as the text beside it tells. */
struct kept {
	char *name; /* in the directory */
	char *path; /* of the namespace */
	char *written, *why;
	char *version; /* that the storage had; NULL or "none" */
	uint64_t size;
	struct kept_range *here; /* what of it is in the file; in order */
	size_t n;
	unsigned mode, uid, gid; /* if have_mode */
	bool have_mode, sized;
	bool complete; /* all of it is */
	bool more;     /* the text does not tell all ranges */
};
/* -EINVAL: not a text of ours. */
int kept_load(int dir, const char *name, struct kept *k);
void kept_free(struct kept *k);

struct kept_dir {
	char *dir;
	int fd;      /* -1: there is none, so nothing was kept */
	char **name; /* of the files, oldest first */
	size_t n;
};
enum cli_exit kept_dir_open(struct cli *c, struct kept_dir *kd);
void kept_dir_close(struct kept_dir *kd);

/* --- batonfs_kept_store.c */
/* The storage has it, under its name, when this returns CLI_OK. */
enum cli_exit kept_store(struct cli *c, const struct kept_dir *kd, const struct kept *k);

#endif
