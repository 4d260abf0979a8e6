/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Is there a file below a directory that is not persisted?  Such a one keeps the directory
 * there, whatever the storage says.  Looks through the records below, directory by
 * directory, up to the first; asks nothing where there can be none.  Loop thread; leaf
 * contract of reactor/task.h.
 */
#ifndef OPS_BELOW_H
#define OPS_BELOW_H

#include "meta/meta.h"
#include "ops/fs_priv.h"

struct below {
	const char *path; /* in: of the namespace; must stay */
	bool found;	  /* out */
	void (*done)(struct below *b, int err);
	void *user;
	/* private */
	struct fs *fs;
	struct meta_scan scan;
	struct deferred run;
	size_t top; /* length of path */
	char at[UFS_PATH_MAX + 1], after[UFS_NAME_MAX + 1];
};
void below_start(struct fs *fs, struct below *b, void (*done)(struct below *b, int err));
/* Also of one that was never started, and is zeroed. */
void below_abort(struct below *b);

#endif
