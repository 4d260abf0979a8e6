/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Renames of directories on storage that cannot rename: what rename.c, rename_dir*.c and
 * rename_intent.c share.
 *
 * Such a rename is a job (struct dirmove), a task of its own with an intent in the
 * metadata store.  A RENAME waits for it; one that was left by its request, or found in
 * the store when it is opened, runs without.
 *
 *	COPY	what is below src is copied to dst; if that fails, what was copied is
 *		deleted (UNDO).  src is whole, and what everybody sees
 *	DELETE	dst is whole, and the nodes are moved; what is left of src is deleted.
 *		Never undone: what fails is tried again until it is done
 *	UNDO	what was copied is deleted
 *
 * The phase in the store comes before what it says.  Each can be begun again at any
 * time: COPY leaves alone what is there already, and DELETE and UNDO delete only what the
 * other directory has too.
 */
#ifndef OPS_RENAME_H
#define OPS_RENAME_H

#include "ops/change.h"
#include "ops/walk.h"
#include "reactor/task.h"
#include "reactor/timer.h"

enum move_phase { MOVE_COPY = 1, MOVE_DELETE = 2, MOVE_UNDO = 3 };

/* What the store keeps of it; paths are of the namespace. */
struct move_intent {
	uint64_t id;
	enum move_phase phase;
	bool dst_was; /* there was an empty directory at dst */
	char src[UFS_PATH_MAX + 1], dst[UFS_PATH_MAX + 1];
};

#define INTENT_KIND_RENAME 1u /* the blob's first byte */
#define MOVE_BLOB_MAX (8 + 2 * (UFS_PATH_MAX + 1))
/* -EPROTO: damaged, or of a newer version. */
size_t move_encode(const struct move_intent *in, unsigned char blob[MOVE_BLOB_MAX]);
int move_decode(struct move_intent *in, uint64_t id, const void *blob, size_t len);

struct dirmove;

/* Who waits for one. */
struct move_wait {
	void (*done)(struct move_wait *w, int err);
	void *user;
	/* private */
	struct dirmove *job;
};

struct move_slot;
struct move_batch;

struct dirmove {
	struct task task;
	uint32_t magic;
#define MOVE_MAGIC 0x9e4a3e01u
	struct fs *fs;
	TAILQ_ENTRY(dirmove) link; /* fs->moves */
	struct move_intent in;
	struct ufs *ufs;
	const char *src, *dst; /* in ufs */
	bool resumed;	       /* somebody has begun it before */
	bool stop;	       /* a hand-over, or the end: to be found in the store */
	bool wanted;	       /* nobody gave it up */
	bool locked;
	struct pathlock *lock; /* of both trees */
	struct move_wait *wait;
	int err;    /* why it is undone */
	int result; /* of what a step waited for */
	unsigned tries;
	struct timer again;
	/* a step's own */
	struct meta_change changes[2];
	struct meta_txn txn;
	struct meta_intents intents;
	struct dir_mark mark;
	unsigned char blob[MOVE_BLOB_MAX];
	/* rename_walk.c: what goes through the tree */
	struct walk walk;
	bool walking, visiting;
	int walk_err;
	unsigned busy; /* slots and batches that run */
	TAILQ_HEAD(, move_slot) slots;
	unsigned nslots;
	struct move_batch *filling;
	TAILQ_HEAD(, move_batch) batches;
	void (*walked)(struct dirmove *m, int err);
};

/* Begins one: intent in->id is not in the store yet.  Takes the lock, if it succeeds. */
int dirmove_new(struct fs *fs, const struct move_intent *in, struct pathlock **lock,
    struct dirmove **out);
/* Goes on with one that is in the store; it gets its lock by itself. */
int dirmove_resume(struct fs *fs, const struct move_intent *in, struct dirmove **out);
struct dirmove *dirmove_find(struct fs *fs, uint64_t id);
/* Waits for its end; one at a time.  done(0): src is dst now.  Errors: it is undone. */
void dirmove_wait(struct dirmove *m, struct move_wait *w,
    void (*done)(struct move_wait *w, int err));
/* The request is gone.  give_up: what can be undone shall be. */
void dirmove_leave(struct move_wait *w, bool give_up);
/* No further step is begun; the store says what there is to do. */
void dirmove_stop_all(struct fs *fs);

/* rename_walk.c: goes through the tree as the phase says; m->walked() on the loop. */
void move_walk(struct dirmove *m, void (*walked)(struct dirmove *m, int err));
/* What runs ends, and nothing more is begun. */
void move_walk_give_up(struct dirmove *m, int err);
void move_walk_abort(struct dirmove *m);
/* rename_nodes.c: versions that copying has changed, of nodes below: noted in the state
 * database until the nodes move. */
int move_note_version(struct dirmove *m, uint64_t node, const char *was, const char *now);
/* The node of the directory: only the mount that began it has it.  To be in the database
 * before the intent is in the store. */
int move_note_node(struct fs *fs, uint64_t id, uint64_t node);
int move_drop_notes(struct fs *fs, uint64_t id);
/* dst is where the storage has it now. */
int move_nodes(struct dirmove *m);
/* The node of a path, and that of the directory that it is in: -ENOENT if one on the way
 * is not known. */
int node_by_path(struct fs *fs, const char *path, struct node *n);
int node_parent_by_path(struct fs *fs, const char *path, struct node *n);

/* What record a moved file gets: what the old one said, and its time, which copying
 * would change. */
void moved_record(struct meta_record *out, const struct meta_record *old,
    const struct ufs_attr *was, const char *version);

#endif
