/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Attributes of a path, from all who know some: the storage, and the metadata store,
 * which has later changes of mode, owner and times.  (What a write session says of its
 * file comes before both, and is asked first: ops/session.h.)
 */
#ifndef OPS_ATTR_H
#define OPS_ATTR_H

#include "meta/meta.h"
#include "ops/below.h"
#include "ops/fs_priv.h"

struct node;

/* Is the record all that there is of the file? */
static inline bool attr_unpersisted(const struct meta_record *rec)
{
	return (rec->has & META_HAS_CONTENT) != 0 &&
	       rec->content.state != META_STATE_PERSISTED;
}
/* May there be such records?  Costs no request. */
bool attr_any_unpersisted(const struct fs *fs);
/* The same with those that were persisted since: records of names whose storage keeps
 * attributes itself. */
bool attr_any_content(const struct fs *fs);

/* Leaf contract of reactor/task.h.  Errors: those of ufs_stat(); -EIO if the metadata
 * store does not answer. */
struct attr_get {
	const char *path;     /* in: of the namespace; must stay */
	bool known;	      /* in: attr_stands() will be asked after an error */
	struct ufs_attr attr; /* out */
	bool have_record;     /* out: the metadata store has one: meta.rec */
	void (*done)(struct attr_get *g, int err);
	void *user;
	/* private */
	struct fs *fs;
	struct ufs_stat stat;
	struct meta_get meta;
	unsigned waits;
	int err, meta_err;
	bool first; /* the record is asked for before the storage */
	bool alone; /* the storage has answered, the metadata store not */
	struct below below;
	struct deferred run;
};
void attr_get_start(struct fs *fs, struct attr_get *g, void (*done)(struct attr_get *g, int err));
void attr_get_abort(struct attr_get *g);
/* After -EIO, with `known`: is that only because a store of many nodes does not answer, and
 * has the storage still the very version that the node is of?  Then what is known of the node
 * may be said again, and be read. */
bool attr_stands(const struct attr_get *g, const struct node *n);

/* Puts what a record says over what the storage says: mode and owner always (then
 * have_mode is true, with the mount's defaults for what is missing), times if the
 * record is of this version; all, where the record is all there is. */
void attr_merge(const struct fs *fs, struct ufs_attr *attr, const struct meta_record *rec);
/* A record of what `set` changes in a thing with these attributes, which has the record
 * `old` (or NULL).  What that accounts for it goes on accounting for, unless the storage
 * has other content by now. */
void attr_record(struct meta_record *out, const struct meta_record *old,
    const struct ufs_attr *attr, const struct ufs_set *set);
/* Logs that what was asked for ("cannot be read here") needs bytes that another node has;
 * returns err. */
int attr_elsewhere(const struct fs *fs, const char *path, const struct meta_content *c,
    const char *what, int err);
/* Does the storage keep attributes of this path itself? */
bool attr_native(const struct fs *fs, const char *path);

#endif
