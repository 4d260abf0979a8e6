/* SPDX-License-Identifier: BSD-2-Clause */
/* The file system's own state, shared by the files of ops/ and nobody else. */
#ifndef OPS_FS_PRIV_H
#define OPS_FS_PRIV_H

#include <sys/types.h>

#include "base/log.h"
#include "base/obj.h"
#include "base/options.h"
#include "cache/cache.h"
#include "ops/counts.h"
#include "ops/fs.h"
#include "ops/pathlock.h"
#include "reactor/fuse_chan.h"
#include "reactor/loop.h"
#include "reactor/statedb.h"
#include "reactor/timer.h"

#define FS_MAGIC 0xf5000001u

struct dirmove;
struct dir_page;
struct handle;
struct meta;
struct node_held;
struct op;
struct persist;
struct policy;
struct recovery;
struct session;
struct staging;
struct unlinkeds;
struct uploads;

struct fs {
	uint32_t magic;
	struct fs_env env;
	struct fuse_chan *chan;
	struct statedb *db; /* NULL before fs_state_open() and once detached */
	struct counts *counts;
	struct turn_hook hook;
	bool hooked;

	struct {
		char *nspath;
		struct ufs *ufs;
	} attached[FS_ATTACH_MAX]; /* sorted by nspath */
	unsigned nattached;
	char *root;	  /* the mounted part: "" or "data/s3" */
	struct ufs *ufs;  /* of all paths; NULL before fs_set_root() */
	struct ufs *tree; /* is that if it is ours, else NULL */

	uint64_t attr_ttl_ns;
	uint32_t dir_mode, file_mode, uid, gid; /* where storage knows none */

	/* The state database's counters: ids below `*_limit` are reserved there. */
	uint64_t mount_id;
	uint64_t next_id, id_limit; /* of nodes and handles alike */
	uint64_t open_dirs;
	struct timer recover; /* armed when a turn's rows were lost */
	bool recover_failed;
	bool changed;	 /* nodes or handles came or went in this turn */
	uint32_t *slots; /* to be given back once the deletion of their rows is committed */
	size_t nslots, slots_cap;

	struct handle *handles; /* hash by id: those in memory */

	/* Writing.  All NULL where the mount is read-only. */
	struct meta *meta;
	struct staging *staging;
	struct uploads *uploads;
	struct ufs *peers;     /* what only other nodes have (fs_set_peers()), or NULL */
	struct policy *policy; /* ops/policy.h */
	struct persist *persist;
	struct node_held *held_nodes; /* hash by id: node_hold.c */
	struct session *sessions; /* hash by node id */
	struct session *ended;	  /* list: they go with their last users */
	bool sessions_missing;	  /* there may be rows that could not be read into memory */
	bool held_up;		  /* no upload begins: a hand-over, or the end */
	unsigned nwork;		  /* uploads and leftover I/O of sessions that run */
	uint64_t write_bytes;	  /* of WRITE requests that run */
	uint64_t write_limit;	  /* of them: a share of memory.limit */
	bool write_hold;	  /* no further requests are read until there are fewer */
	struct timer wire;	  /* ends the wait for changes on the wire */
	struct timer busy;	  /* looks whether the pool has done with staged files */
	struct pathlocks locks;
	struct unlinkeds *unlinked; /* names whose deletion was answered early */
	TAILQ_HEAD(, dirmove) moves; /* renames of directories that run */
	struct recovery *recovery;   /* looks for those that were begun before, or NULL */
	/* Grows when a node gets another version or path by a change made here: handles
	 * that have seen less look at the node's row again. */
	uint64_t rebinds;
#define FS_TOUCHED 1024
	uint64_t changes, all_touched, touched[FS_TOUCHED]; /* touched.c */
	TAILQ_HEAD(, dir_page) dir_pages; /* of open directories, in memory or on the way */
#define FS_ABSENT 64
	struct {
		uint64_t name, when_ns, changes;
	} absent[FS_ABSENT];
#define FS_NEW_DIRS 64
	struct {
		uint64_t dir, when_ns;
	} new_dirs[FS_NEW_DIRS];
	uint64_t *answered; /* ledger rows whose replies leave with this turn */
	size_t nanswered, answered_cap;
	bool ledger_old; /* there may be rows of before a crash or takeover */
	bool ledger_missed; /* an answered row is not among those */
	uint64_t untaken;   /* CTR_FUSE_REPLY_ERRORS at the last turn that answered */

	TAILQ_HEAD(op_list, op) ops;
	unsigned nops, nreads;
	struct op_read *spare_read;

	struct held_list held;
	bool detached;
	void (*handover_done)(void *arg);
	void *handover_arg;
	struct deferred handover_defer;
	void (*idle)(void *arg);
	void *idle_arg;
	struct deferred idle_defer;
};

void ledger_note_request(struct fs *fs); /* ledger.h */

/* Whose request it is, as it arrives. */
static inline struct fs *fs_of(fuse_req_t req)
{
	struct fs *fs = fuse_chan_userdata(req);

	CHECK_OBJ(fs, FS_MAGIC);
	if (fs->ledger_old)
		ledger_note_request(fs);
	return fs;
}

/* namespace.c.  The storage that has a namespace path ("data/s3/a"), and the path in
 * it; the tree for directories that no storage has. */
void fs_place(const struct fs *fs, const char *path, struct ufs **ufs, const char **sub);
/* st_ino of a path: the same whatever part of the namespace is mounted.  It is made from
 * that of its directory, step by step: fs_ino_child() is the last step. */
uint64_t fs_ino(const struct fs *fs, const char *path);
uint64_t fs_ino_child(const struct fs *fs, uint64_t parent, const char *path);
/* 0 is nobody's number and 1 the root's. */
uint64_t fs_ino_valid(uint64_t hash);
void fs_namespace_fini(struct fs *fs);

/* touched.c.  A name was made, was taken away, or has another version, by a change made
 * here; and: names below a directory are others now. */
void fs_touch(struct fs *fs, uint64_t parent, const char *name);
void fs_touch_all(struct fs *fs);
/* Since fs->changes was `when`; now and then also of a name that was not. */
bool fs_touched_since(struct fs *fs, uint64_t parent, const char *name, uint64_t when);
/* The storage has just said that there is nothing of that name, and the metadata store
 * that it has no record of it.  asked: fs->changes when they were asked. */
void fs_absent_note(struct fs *fs, uint64_t parent, const char *name, uint64_t asked);
/* Has it said so within the time that attributes are believed, and nothing been made here
 * since?  So that a LOOKUP need not be repeated by what follows it. */
bool fs_absent(struct fs *fs, uint64_t parent, const char *name);
/* A directory was made here just now: for as long as attributes are believed nothing is in
 * it but what has a node. */
void fs_dir_is_new(struct fs *fs, uint64_t dir);
bool fs_dir_new(const struct fs *fs, uint64_t dir);
/* A name in it has lost its node, and may be there all the same. */
void fs_dir_forget(struct fs *fs, uint64_t dir);

/* A number never given out before in this mount: 0 or negative errno. */
int fs_next_id(struct fs *fs, uint64_t *id);
/* The number of handles has changed; dir: it was a directory's. */
int fs_handle_opened(struct fs *fs, bool dir);
int fs_handle_closed(struct fs *fs, bool dir);
/* The slot is free once what this turn wrote is committed. */
void fs_free_slot_later(struct fs *fs, uint32_t slot);
/* An operation ended or a request was put on the held list. */
void fs_op_ended(struct fs *fs);
/* rename_intent.c: the contrary of fs_recover_intents(). */
void fs_stop_intents(struct fs *fs);
void fs_handover_init(struct fs *fs);
void fs_handover_fini(struct fs *fs);

#endif
