/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A walk through a tree of one storage, page by page: it holds the names of a few
 * pages, however large the tree is.  It visits what the storage lists; what only this
 * mount knows of (files that were never uploaded) it does not.
 *
 * Loop thread; leaf contract of reactor/task.h for done().
 */
#ifndef OPS_WALK_H
#define OPS_WALK_H

#include "reactor/loop.h"
#include "ufs/ufs.h"

enum walk_what {
	WALK_FILE,
	WALK_ENTER, /* a directory, before what is in it */
	WALK_LEAVE, /* and after */
};

struct walk_item {
	enum walk_what what;
	const char *path;	    /* below the top; "" is the top itself */
	const char *name;
	const struct ufs_attr *attr; /* NULL for the top and in WALK_LEAVE */
	/* What `beside` has under the same path, if it is of the same kind; of a
	 * directory not more than that it is there.  Else NULL. */
	const struct ufs_attr *other;
	uint64_t up;   /* the tag of the directory that it is in */
	uint64_t *tag; /* a directory's own, for the user to set in WALK_ENTER */
};

/* visit() may also return a negative errno, which ends the walk. */
#define WALK_ON 0
#define WALK_PAUSE 1 /* it has been seen; nothing more until walk_resume() */
#define WALK_SKIP 2  /* WALK_ENTER: not into this one; WALK_LEAVE does not come */

struct walk_level;

/* Zeroed before its use. */
struct walk {
	/* in: must stay */
	struct ufs *ufs;
	const char *top;
	const char *beside; /* another directory of the storage, or NULL */
	int (*visit)(struct walk *w, const struct walk_item *it);
	void (*done)(struct walk *w, int err);
	void *user;
	/* out */
	bool hidden; /* there were keys that no path can name */
	/* private */
	struct loop *loop;
	struct walk_level *level; /* where it is; linked upwards */
	unsigned depth;
	bool begun, paused, running;
	struct deferred run;
	char path[UFS_PATH_MAX + 1];
};

void walk_start(struct walk *w, struct loop *lp);
void walk_resume(struct walk *w);
/* done() is not called any more; no-op if it has ended.  Not from visit(). */
void walk_abort(struct walk *w);

#endif
