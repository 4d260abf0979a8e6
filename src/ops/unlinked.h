/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Names that were taken away here, and answered, before the storage has deleted what it
 * has under them (delete.delay).
 *
 * unlink(2) of an object, and rmdir(2) of a directory in which nothing is left but such
 * names, write a row of the state database, in the turn in which the name goes and the
 * reply leaves.  So the deletion outlives the process; whoever has the rows sends them,
 * gathered (DeleteObjects), and drops a row when the storage has done it.  A power loss
 * forgets what was not sent, as a local file system forgets an unlink that was not synced;
 * fsync(2) of a directory waits.
 *
 * While a row is there the name is absent for this mount, whatever the storage says
 * (unlinked_hides()), and it is locked for everything that would make something there
 * (pathlocks.blocks), which makes the deletion be sent at once.  So no deletion meets a
 * newer object of this mount.  One that is sent late (after failures, by a daemon that
 * was down) first looks whether the storage still has the version that was unlinked.
 *
 * With other nodes over the same storage nothing is deleted later: what one of them makes
 * there meanwhile is not locked here, and would be deleted.
 *
 * Only where the storage was seen to delete in that directory a moment ago is a deletion
 * answered early (unlinked_may()); after any failure the callers wait again, and see the
 * error.  A deletion that the storage refuses brings its name back, with words in the log;
 * one that fails otherwise (storage down) is tried again for as long as the mount lives.
 *
 * A directory's own object goes when all that was below it has gone; if one of those comes
 * back, so does the directory.
 *
 * A file whose upload was begun and has an unknown outcome can be unlinked too while the
 * storage is down: an intent of the metadata store, made in the transaction that deletes
 * its record, outlives power, and a row is made of it.  Its version is a text of its own
 * (unlinked_doubt_text()): an object is deleted if it has the file's size.  Loop thread.
 */
#ifndef OPS_UNLINKED_H
#define OPS_UNLINKED_H

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "ops/fs_priv.h"

int unlinked_init(struct fs *fs); /* -ENOMEM */
void unlinked_fini(struct fs *fs);

/* May the deletion of path be answered early? */
bool unlinked_may(struct fs *fs, const char *path, bool dir);
/* Is there something to be deleted below a directory?  Then that goes first. */
bool unlinked_below(const struct fs *fs, const char *path);
/* The storage has deleted, or would not delete, something in the directory of path. */
void unlinked_proved(struct fs *fs, const char *path, bool deletes);
/* From now on it is to be deleted: a row, to be committed with the turn.  version: what
 * the storage has there.  0, -ENOSPC, -ENOMEM, … : nothing was changed. */
int unlinked_add(struct fs *fs, const char *path, bool dir, const char *version);
/* Not after all, in the same turn. */
void unlinked_undo(struct fs *fs, const char *path);
bool unlinked_hides(const struct fs *fs, const char *path);
/* May there be one more? */
bool unlinked_room(const struct fs *fs);
/* Unless there is one: 0. */
int unlinked_add_doubt(struct fs *fs, const char *path, uint64_t size, uint64_t intent);
unsigned unlinked_count(const struct fs *fs);
/* Those that the end of the mount would forget, and one of them (or NULL). */
unsigned unlinked_unsafe(const struct fs *fs, const char **path);
/* All that there are, at once. */
void unlinked_flush(struct fs *fs);

/* Waits for those at or below a path that are there now (leaf contract): 0, or what the
 * storage says. */
struct unlinked_wait {
	void (*done)(struct unlinked_wait *w, int err);
	void *user;
	/* private */
	TAILQ_ENTRY(unlinked_wait) link;
	struct fs *fs;
	char *path;
	uint64_t upto;
	int err;
	bool queued;
	struct deferred run;
};
void unlinked_wait(struct fs *fs, struct unlinked_wait *w, const char *path,
    void (*done)(struct unlinked_wait *w, int err));
void unlinked_wait_abort(struct unlinked_wait *w);

/* --- Over the life of a daemon.  The rows are read, and what they say goes on. */
int unlinked_open(struct fs *fs);
/* A turn's rows were lost: what is in memory is what the rows say. */
int unlinked_check(struct fs *fs);
/* Out of memory, nothing is running; rows stay. */
void unlinked_close(struct fs *fs);
/* A hand-over, or the end: nothing more is sent; what is on the wire ends, */
void unlinked_hold(struct fs *fs);
/* or is given up. */
void unlinked_pause(struct fs *fs);
void unlinked_resume(struct fs *fs);

/* --- Between the files */
struct unlinked {
	UT_hash_handle hh;	    /* by path */
	TAILQ_ENTRY(unlinked) link; /* by seq */
	uint64_t seq;		    /* the row's key */
	uint64_t noted_ns;	    /* loop_wall() */
	unsigned below;		    /* of a directory: names right below that go first */
	bool dir, sending;
	int err; /* while sending: what the storage said */
	char version[UFS_VERSION_MAX];
	char path[];
};

#define UNLINKED_PROVED 64

struct unlinkeds {
	struct fs *fs;
	struct unlinked *by_path;
	TAILQ_HEAD(unlinked_list, unlinked) list;
	unsigned n;
	uint64_t next_seq;
	struct {
		uint64_t dir, when_ns;
	} proved[UNLINKED_PROVED];
	TAILQ_HEAD(, unlinked_wait) waits;
	struct unlinked_batch *batch; /* the one that is sent, or NULL */
	struct timer timer;
	bool held, wanted; /* wanted: not after the delay, now */
	bool all;	   /* until there are none left */
	unsigned failures; /* batches in a row */
	uint64_t refused;  /* names that came back */
	int error;	   /* the last failure, 0 after a success */
};

/* --- unlinked_doubt.c */
#define INTENT_KIND_UNLINK 2u /* the blob's first byte; that of renames: ops/rename.h */
#define UNLINKED_BLOB_MAX (10u + UFS_PATH_MAX)
size_t unlinked_doubt_encode(
    const char *path, uint64_t size, unsigned char blob[UNLINKED_BLOB_MAX]);
/* Of an intent of that kind: the row.  -EPROTO */
int unlinked_doubt_take(struct fs *fs, uint64_t id, const void *blob, size_t len);
void unlinked_doubt_text(uint64_t size, uint64_t intent, char version[UFS_VERSION_MAX]);
/* Is it one of these, and if so, what? */
bool unlinked_doubt(const struct unlinked *u, uint64_t *size, uint64_t *intent);

/* Sends what is due, or sees to it that it will be. */
void unlinked_pump(struct unlinkeds *ul);
/* It has been deleted, or (err) is there again; the row is gone. */
void unlinked_end(struct unlinkeds *ul, struct unlinked *u, int err);
/* Answers waits: those with nothing left, or (err) all. */
void unlinked_wake(struct unlinkeds *ul, int err);

#endif
