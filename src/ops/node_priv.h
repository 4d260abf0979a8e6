/* SPDX-License-Identifier: BSD-2-Clause */
/* What node.c, node_ino.c and node_change.c share. */
#ifndef OPS_NODE_PRIV_H
#define OPS_NODE_PRIV_H

#include "ops/node.h"

/* A name's key in STATEDB_NAMES. */
struct node_key {
	unsigned char b[8 + UFS_NAME_MAX];
	size_t len;
};
/* -EINVAL (empty), -ENAMETOOLONG. */
int node_key(struct node_key *k, uint64_t parent, const char *name, size_t len);
/* The id that a name is bound to. */
int node_bound_id(struct fs *fs, const struct node_key *k, uint64_t *id);
int node_bind_key(struct fs *fs, const struct node_key *k, uint64_t id);

/* A node with a slot and n's kind, attributes and so on that are set already: stored and
 * bound to the name. */
int node_create(struct fs *fs, const struct node_key *k, uint64_t parent, struct node *n);
/* What the storage says of it, from now on. */
void node_take_attr(struct fs *fs, struct node *n, const struct ufs_attr *attr);
/* The row has no right to its name any more: marked, or deleted if nobody knows it. */
int node_replace(struct fs *fs, struct node *n);
/* The row goes if nobody knows it. */
int node_tidy(struct fs *fs, uint64_t id);
/* node_hold.c */
bool node_held(const struct fs *fs, uint64_t id);

/* node_ino.c.  The number of what comes under a name of `parent`: no node's whose name
 * it was before. */
uint64_t node_ino_pick(struct fs *fs, uint64_t parent, const char *path);
/* While the node lives its number is nobody else's.  Sets NODE_INO, does not store the
 * node. */
int node_ino_hold(struct fs *fs, struct node *n);
/* The number is the other's from now on, who lives under the same name. */
int node_ino_pass(struct fs *fs, const struct node *from, struct node *to);
/* Deletes the row, if it is this node's. */
int node_ino_release(struct fs *fs, const struct node *n);

#endif
