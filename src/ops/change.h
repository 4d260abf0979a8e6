/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the changes of names (unlink, rmdir, rename) have in common.  Loop thread; each
 * follows the leaf contract of reactor/task.h.
 */
#ifndef OPS_CHANGE_H
#define OPS_CHANGE_H

#include "ops/attr.h"
#include "ops/below.h"
#include "ops/node.h"

/* --- What is under a name, as this mount sees it: its node, which is bound to it.
 * -ENOENT. */
struct name_look {
	uint64_t parent;
	const char *name; /* in: stay */
	const char *path;
	struct node n; /* out */
	bool local;    /* out: the storage has nothing of it and never had */
	void (*done)(struct name_look *l, int err);
	void *user;
	/* private */
	struct fs *fs;
	struct attr_get get;
	bool asking;
	int err;
	uint64_t when;
	struct deferred run;
};
void name_look(struct fs *fs, struct name_look *l, void (*done)(struct name_look *l, int err));
/* The storage is asked in any case. */
void name_look_again(
    struct fs *fs, struct name_look *l, void (*done)(struct name_look *l, int err));
void name_look_abort(struct name_look *l);

/* --- Is there something in a directory?  0: no, or only what is to be deleted
 * (ops/unlinked.h); -ENOTEMPTY: yes, also if it is a key that no path can name. */
struct dir_empty {
	uint64_t node;	  /* in */
	const char *path; /* in: stays */
	void (*done)(struct dir_empty *e, int err);
	void *user;
	/* private */
	struct fs *fs;
	struct ufs_list list;
	bool listing;
	unsigned tries;
	uint64_t when;
	char after[UFS_NAME_MAX + 1];
	struct below below;
	int err;
	struct deferred run;
};
void dir_empty(struct fs *fs, struct dir_empty *e, void (*done)(struct dir_empty *e, int err));
void dir_empty_abort(struct dir_empty *e);

/* --- Before a name leaves a directory: it stays although it may be empty then, also on
 * storage where only names make directories. */
struct dir_mark {
	const char *child; /* in: path of the name; stays */
	uint64_t node;	   /* in: the directory, or 0: not known */
	void (*done)(struct dir_mark *m, int err);
	void *user;
	/* private */
	struct fs *fs;
	char path[UFS_PATH_MAX + 1];
	struct ufs_mkdir mkdir;
	bool making;
	int err;
	struct deferred run;
};
void dir_mark(struct fs *fs, struct dir_mark *m, void (*done)(struct dir_mark *m, int err));
void dir_mark_abort(struct dir_mark *m);

/* --- Is there a record of a path, or (dir) one below it? */
struct record_look {
	const char *path; /* in: stays */
	bool dir;	  /* in */
	bool found;	  /* out */
	struct meta_record rec; /* out: META_PASS if it has none of its own */
	void (*done)(struct record_look *l, int err);
	void *user;
	/* private */
	struct fs *fs;
	struct meta_get get;
	struct meta_scan scan;
	int err;
	struct deferred run;
};
void record_look(
    struct fs *fs, struct record_look *l, void (*done)(struct record_look *l, int err));
void record_look_abort(struct record_look *l);

/* Nothing of the storage may be moved or removed there: it is the top of a storage, or
 * leads to one. */
bool path_is_mount(const struct fs *fs, const char *path);
/* Is path at `dir` or below it? */
bool path_within(const char *path, const char *dir);

#endif
