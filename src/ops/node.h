/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nodes: what the kernel knows by number.  A node id stands for one content
 * version of one name; its row in the state database is also the attribute cache.
 * When another version appears under the name, the name is bound to a new id; the
 * old row stays, marked NODE_REPLACED with its attributes frozen, until the kernel
 * has forgotten it and no handle is open on it.
 */
#ifndef OPS_NODE_H
#define OPS_NODE_H

#include <sys/stat.h>

#include "ops/fs_priv.h"

#define NODE_ROOT UINT64_C(1)

#define NODE_REPLACED 1u  /* the storage has another version, or none, by now */
#define NODE_HAVE_MODE 2u /* mode, uid and gid are the storage's own */
#define NODE_LOCAL 4u	  /* made here, and the storage has not got it yet: its session
			   * says all that there is; version is "" */
#define NODE_MARKED 8u	  /* a directory that has its own object, or is kept by the storage:
			   * it stays when it is empty */
#define NODE_GONE 32u	  /* the name was taken from it here: it has no link any more */
#define NODE_INO 16u	  /* its st_ino is not to be another's while it lives */

struct node {
	uint64_t id, parent, st_ino;
	uint32_t slot;	/* of counts; 0 for the root */
	uint32_t opens; /* open handles; over-counted at worst */
	uint64_t size, fetched_ns;
	struct timespec mtime;
	uint32_t mode, uid, gid;
	uint8_t kind, flags; /* enum ufs_kind, NODE_* */
	uint8_t name_len;
	char version[UFS_VERSION_MAX];
	char name[UFS_NAME_MAX + 1];
};

/* All: 0, -ENOENT (no such row), -EPROTO (row damaged) or the database's error. */
int node_load(struct fs *fs, uint64_t id, struct node *n);
int node_store(struct fs *fs, const struct node *n);
/* The node that a name is bound to. */
int node_find(struct fs *fs, uint64_t parent, const char *name, struct node *n);
/* Storage says that the name has these attributes: the node of that version, a
 * new one if need be.  path: of the name, in the namespace. */
int node_bind(struct fs *fs, uint64_t parent, const char *name, const char *path,
    const struct ufs_attr *attr, struct node *n);
/* Storage says that there is no such name. */
int node_unbind(struct fs *fs, uint64_t parent, const char *name);
/* Storage answered for this node: takes the attributes over if it is still the
 * same version, else (or attr == NULL: gone) marks it NODE_REPLACED: -ESTALE. */
int node_refresh(struct fs *fs, struct node *n, const struct ufs_attr *attr);
/* The next look at it asks the storage. */
int node_expire(struct fs *fs, uint64_t id);
int node_add_open(struct fs *fs, uint64_t id, int by);
void node_count(struct fs *fs, const struct node *n);
/* The kernel gives `n` references back. */
int node_forget(struct fs *fs, uint64_t id, uint64_t n);
/* A node that is worked on stays, also if neither the kernel nor a handle knows it.
 * Counted; in memory only.  keep: its row stays in any case. */
int node_hold(struct fs *fs, uint64_t id);
void node_unhold(struct fs *fs, uint64_t id, bool keep);
int node_make_root(struct fs *fs);

/* --- Changes made here.  They bump fs->rebinds where handles must look again. */

/* A name that this mount makes (create, mkdir): a new node, NODE_LOCAL for files,
 * which the name is bound to; what was bound to it is replaced. */
int node_make(struct fs *fs, uint64_t parent, const char *name, const char *path,
    const struct ufs_attr *attr, bool local, struct node *n);
/* The content is now this version of the storage (an upload, a copy, setattr): the id,
 * st_ino and the kernel's pages stay. */
int node_set_version(struct fs *fs, uint64_t id, const struct ufs_attr *attr);
/* The name moves, the id and st_ino stay; what was bound to the new name is replaced.
 * st_ino of what comes under the old name later is another one. */
int node_move(struct fs *fs, uint64_t id, uint64_t parent, const char *name);
/* The name is gone by a change made here; the node lives on as NODE_REPLACED while the
 * kernel knows it or a handle is open. */
int node_drop_name(struct fs *fs, uint64_t id);
/* What a name's st_ino is in a listing: its node's, if it has one. */
uint64_t node_list_ino(struct fs *fs, uint64_t parent, const char *name, const char *path);

/* May it be answered from the row? */
bool node_fresh(const struct fs *fs, const struct node *n);
/* The kernel believes its attributes no longer, and asks: for a change that it has not asked
 * for itself. */
void node_tell_kernel(struct fs *fs, uint64_t id);
/* How long the kernel may keep the row's attributes: seconds. */
double node_ttl(const struct fs *fs, const struct node *n);
void node_stat(const struct fs *fs, const struct node *n, struct stat *st);
void node_entry(const struct fs *fs, const struct node *n, struct fuse_entry_param *e);
uint64_t node_ino(const struct fs *fs, const char *path);

/* May something of that name be made here?  -ENAMETOOLONG, or -EINVAL for names that the
 * storage uses for itself while it writes. */
int node_name_check(const char *name);
/* Namespace path without the leading slash: 0, -ENAMETOOLONG, or -ESTALE (a parent is not
 * known any more). */
int node_path(struct fs *fs, uint64_t id, char path[UFS_PATH_MAX + 1]);
int node_child_path(struct fs *fs, uint64_t parent, const char *name,
    char path[UFS_PATH_MAX + 1]);

#endif
