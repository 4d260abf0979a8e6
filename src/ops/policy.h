/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which policy a path has, and the rules that say so (base/rules.h).
 *
 * The rules are a setting of the metadata store, with a version.  A copy lies in the
 * state database, so that a successor knows them before its first request; a fresh mount
 * reads them before it serves.  Loop thread.
 */
#ifndef OPS_POLICY_H
#define OPS_POLICY_H

#include "base/rules.h"
#include "meta/meta.h"
#include "ops/fs.h"
#include "reactor/loop.h"

/* META_POLICY_NO_CACHE where write.cache.enabled is false, and where nothing can be
 * written. */
enum meta_policy policy_of(const struct fs *fs, const char *path);
/* May paths below this directory have other policies than what governs it? */
bool policy_split(const struct fs *fs, const char *dir);
/* Those in force, with their version; 0: none were ever set. */
const struct rules *policy_rules(const struct fs *fs, uint64_t *version);
/* How many nodes can have a copy of what is written. */
unsigned policy_nodes(const struct fs *fs);

/* Reads them from the metadata store (a fresh mount: before it serves; a successor takes
 * what the state database has, and looks later whether they are the last).  Leaf
 * contract; et has words.  -EROFS: the mount has no metadata store; -EPROTO: the rules are
 * not of this version of batonfs. */
struct policy_load {
	void (*done)(struct policy_load *l, int err);
	void *user;
	struct errtext et;
	/* private */
	struct fs *fs;
	struct meta_setting_get get;
	struct deferred fail;
	uint64_t changes;
};
void policy_load(struct fs *fs, struct policy_load *l,
    void (*done)(struct policy_load *l, int err));
void policy_load_abort(struct policy_load *l);
/* The same in the background, until it has worked.  After meta_open(), until
 * fs_state_detach(). */
void policy_refresh(struct fs *fs);

/* Other rules from now on, for files created from now on: -EINVAL (et: line and column;
 * nothing was changed), -EEXIST (they have another version than if_version by now, which
 * policy_rules() has), -EROFS. */
struct policy_set {
	const char *json; /* in: must stay */
	size_t len;
	uint64_t if_version; /* in: UINT64_MAX: whatever it is */
	uint64_t version;    /* out: of the rules that were set */
	void (*done)(struct policy_set *s, int err);
	void *user;
	struct errtext et;
	/* private */
	struct fs *fs;
	struct rules *rules;
	struct meta_txn txn;
	struct meta_change change;
	struct policy_load load;
	struct deferred fail;
	int err;
	unsigned tries;
};
void policy_set(struct fs *fs, struct policy_set *s, void (*done)(struct policy_set *s, int err));
void policy_set_abort(struct policy_set *s);

/* --- Of the fs's life; called by fs.c. */
/* From the state database's copy, if there is one: -EPROTO with words if it is not of this
 * version, -ENOMEM. */
int policy_state_open(struct fs *fs, struct errtext *et);
/* The state database lost what was written to it last. */
void policy_state_again(struct fs *fs);
void policy_state_close(struct fs *fs);
void policy_fini(struct fs *fs);

#endif
