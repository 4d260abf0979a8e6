/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Staged files: what is being written and is not in the storage yet.
 *
 * A staged file is a sparse local file and a map of what is in it.  Beneath it may lie
 * a base: the blob of the version that the storage has.  A byte of the file is
 *	present		in the local file: dirty (the storage has not got it), sending (an
 *			upload that runs takes it along), or clean (as in the base)
 *	base		not present, below the base's limit: fetched when it is needed
 *	hole		not present, above it: zero
 * Truncating lowers the base's limit for good, so what was cut off never returns.
 *
 * The map, the size and the limit are rows of the state database, written when the
 * bytes have reached the file and before the request is answered: what was answered
 * survives the process.  It does not survive power loss unless staged_sync() was
 * called and the caller keeps the map itself somewhere (staged_save()).
 *
 * Jobs of one file run in the pool, one after the other, in the order of the calls; a
 * write, once begun, ends.  Fills never overwrite what was written.  Leaf contract of
 * reactor/task.h for everything with `done`.  Loop thread.
 *
 * Errors: -ENOSPC, -EDQUOT, -EIO (disk), -EFBIG, -ENOMEM, -ESTALE (the base is no longer
 * there, or the epoch passed), and those of reading the base.
 */
#ifndef CACHE_STAGED_H
#define CACHE_STAGED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/queue.h"
#include "cache/cache.h"
#include "reactor/pool.h"

struct staging;
struct staged;
struct statedb;

struct staging_env {
	struct loop *loop;
	struct pool *pool;
	const struct config *cfg;
	struct cache *cache;
	const struct epoch *epoch;
};

/* dir: absolute path of the directory of staged files, made with mode 0700 (in the pool,
 * with the first file).  Touches nothing yet. */
int staging_new(struct staging **out, const struct staging_env *env, const char *dir);
void staging_free(struct staging **st); /* no staged file may be in memory */
/* NULL: detached; then only staged_close() may be called of what touches rows. */
void staging_set_db(struct staging *st, struct statedb *db);
/* Removes, in the pool, files that have no row (a mount that ended, a crash between
 * the two).  Once, after staging_set_db(); keep[] are numbers that somebody else
 * accounts for. */
void staging_sweep(struct staging *st, const uint64_t *keep, size_t nkeep);

struct staging_status {
	char dir[256];
	char error[256];	 /* the last failure of the disk, or "" */
	unsigned files;
	uint64_t bytes, dirty;	 /* present, and of those not in the storage */
};
void staging_status(const struct staging *st, struct staging_status *out);

/* A new staged file; its rows are written, its file is made with the first write.
 * id: of the state database, never used before (fs_next_id()).  base: NULL, or the
 * blob beneath, counted by the staged file; the size begins as the base's. */
int staged_create(struct staging *st, uint64_t id, struct blob *base, struct staged **out);
/* One that has rows: after a takeover or crash.  -ENOENT, -EPROTO. */
int staged_open(struct staging *st, uint64_t id, struct blob *base, struct staged **out);
/* Out of memory; rows and file stay.  Nothing of it may be running. */
void staged_close(struct staged **sf);
/* For good: rows now, the file in the pool.  Nothing of it may be running. */
int staged_delete(struct staged **sf);
/* Does anything run on it? */
bool staged_busy(const struct staged *sf);

uint64_t staged_id(const struct staged *sf);
uint64_t staged_size(const struct staged *sf);
bool staged_dirty(const struct staged *sf); /* or truncated, since staged_uploaded() */
/* Another blob holds the base's bytes now (the object was moved): or NULL if nothing of
 * it is needed any more. */
void staged_set_base(struct staged *sf, struct blob *base);

/* What lies at `off`, below the size, and up to where (the size at most).  Neighbours of
 * one kind are told as one.  From the size on: a hole without end. */
enum staged_kind { STAGED_CLEAN, STAGED_DIRTY, STAGED_SENDING, STAGED_BASE, STAGED_HOLE };
enum staged_kind staged_map(const struct staged *sf, uint64_t off, uint64_t *end);

/* --- An upload of the whole content: what is dirty becomes `sending`, and a later
 * write makes it dirty again. */
void staged_sending(struct staged *sf);
/* done: the storage has `base` now, and what is still `sending` is clean; size: what
 * was sent.  The blob's bytes are those of the file at all places that are neither
 * present nor dirty. */
int staged_uploaded(struct staged *sf, struct blob *base, uint64_t size);
void staged_not_uploaded(struct staged *sf); /* what is `sending` is dirty again */

/* --- Requests */
#define STAGED_IO_MAX (1024 * 1024)

struct staged_io {
	struct staged *sf;
	uint64_t off;	   /* in */
	uint64_t len;	   /* in */
	const void *data;  /* in, writes: must stay */
	bool keep_size;	   /* in, zero and allocate */
	void (*done)(struct staged_io *io, int err);
	void *user;
	/* out of a read, until staged_read_release(): memory that cannot fault */
	struct iovec iov;
	size_t got; /* less than asked for only at the end of the file */
	/* private: set when it begins */
	struct cache *cache;
	void *priv, *mem; /* a buffer of the arena; the caller's memory */
	uint64_t pos;	  /* nothing of the base is missing before it */
	uint8_t kind, state;
	int err;
	struct mem_seat seat;
	struct pool_job job;
	TAILQ_ENTRY(staged_io) link;
};

/* Grows the file if need be.  done(0): all bytes are there. */
void staged_write(struct staged_io *io);
/* At most STAGED_IO_MAX.  False: not to be had at once, call staged_read(). */
bool staged_read_try(struct staged_io *io);
/* Missing bytes of the base are filled in first. */
void staged_read(struct staged_io *io);
void staged_read_release(struct staged_io *io);
/* The size becomes `off`. */
void staged_truncate(struct staged_io *io);
/* [off, off+len) reads as zero: FALLOC_FL_ZERO_RANGE, or with keep_size PUNCH_HOLE. */
void staged_zero(struct staged_io *io);
/* Disk space for [off, off+len) is reserved; grows the file unless keep_size. */
void staged_allocate(struct staged_io *io);
/* Everything of the base in [off, off+len) is present afterwards.  any length. */
void staged_fill(struct staged_io *io);
/* What was written before is safe on the disk. */
void staged_sync(struct staged_io *io);
/* Gives a read or a fill up: done is not called.  False for the others, and for what
 * runs in the pool: done will come. */
bool staged_io_abort(struct staged_io *io);

/* Reads into the caller's memory in the pool, as staged_read() but any length; the
 * caller makes sure by staged_fill() that nothing of the base is missing. */
void staged_pread(struct staged_io *io, void *mem);

/* The rows as bytes, for a durable record; and rows made from them, for a file that
 * lies in the directory already.  The caller frees *buf. */
int staged_save(const struct staged *sf, void **buf, size_t *len);
int staged_restore(struct staging *st, uint64_t id, const void *buf, size_t len,
    struct blob *base, struct staged **out);

#endif
