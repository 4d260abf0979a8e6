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
 * called and the file is a durable one.
 *
 * A durable file (its id has STAGED_DURABLE_BIT) has no base, and a checksum file beside
 * it (<name>.sum): CRC32C of each STAGED_BLOCK bytes as they came from the write call, in
 * host order, 0 for a block that was never written (and reads as zero; a sum of 0 is
 * stored as 1).  After staged_sync() the two files hold, through power loss, what
 * struct staged_durable says: it goes into a record, and staged_restore() makes the file
 * from it again.  The last bytes, which do not fill a block, have their sum in there, so
 * that appending does not touch what was made safe before.  Blocks are compared with
 * their sums when they come from a restored file, and always before an upload:
 * -EBADMSG, with words in staging_status() and the log, and counted.
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
#include "reactor/loop.h"
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
/* hold: the directory is not ours yet, so nothing is begun there, and whoever wants
 * something of a file waits.  (It may be another mount's.) */
void staging_hold(struct staging *st, bool hold);
/* Removes, in the pool, files that have no row (a mount that ended, a crash between
 * the two); durable ones never, and those of staged_keep() are set aside.  Once, after
 * staging_set_db().  However many there are, nobody waits for all of it. */
void staging_sweep(struct staging *st);

struct staging_status {
	char dir[256];
	char error[256];	 /* the last failure of the disk, or "" */
	unsigned files;
	uint64_t bytes, dirty;	 /* present, and of those not in the storage */
	uint64_t durable;	 /* bytes of durable files that are in memory (open, being
				  * persisted): what a write adds is here at once */
	uint64_t parked;	 /* and of those that are not */
	uint64_t mismatches;	 /* checksums that did not match */
	unsigned aside;		 /* files of earlier mounts that were set aside, when they
				  * were last counted */
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
/* The same, and if it is a durable one that has just what the storage has, which is that
 * blob, and lies on the page store's file system, its file becomes the blob's: what was
 * written can be read without the storage, and evicted.  (Of others nobody has the sums of
 * what was written, and of small parts of a file there is no use.)  b: may be NULL. */
int staged_give(struct staged **sf, struct blob *b);
/* The storage did not take it, and it is kept until somebody says what becomes of it.  Once
 * its rows are gone, with the mount or by power loss, it lies for him in STAGED_ASIDE below
 * the directory, beside a text that begins with `head` and tells what is in it.  Not of a
 * durable one, which has its record.  In the pool; what fails is logged. */
#define STAGED_ASIDE "kept"
void staged_keep(struct staged *sf, const char *head);
/* How many such files lie below that directory now (in the pool), and that staging_status()
 * shall say so: who retries and drops them is another process. */
unsigned staging_count_aside(const char *dir);
void staging_set_aside(struct staging *st, unsigned n);
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
	uint32_t crc; /* staged_pread() of a durable file, in: CRC32C of the bytes before
		       * these, out: with these */
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
/* After that: would it have to wait for the storage?  Also false where that is not known. */
bool staged_read_lacks(const struct staged_io *io);
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
/* The same at once, if all of it is in the page cache.  False: call staged_pread(). */
bool staged_pread_try(struct staged_io *io, void *mem);

/* --- Durable files */
#define STAGED_DURABLE_BIT (UINT64_C(1) << 63)
#define STAGED_BLOCK 4096u
#define STAGED_INLINE_MAX 65536u

/* Of one that is new: while its bytes are few (write.cache.inline.size at most), written in
 * order or over each other, they are kept in memory and in a row instead of in files, which
 * are made when more is wanted of it. */
void staged_hold(struct staged *sf);

struct staged_durable {
	uint64_t size;
	uint32_t tail_crc; /* of the bytes behind the last full block; 0: there are none */
};
/* As it is when the last staged_sync() of what was written before ended (call it in that
 * callback: later writes may have come since, and are not counted). */
void staged_durable(const struct staged *sf, struct staged_durable *out);
/* Was anything below the size that staged_durable() told last written again, zeroed or
 * cut off since?  (Or about to be: it says so from the moment that the request's turn has
 * come.  After staged_open() all that is there counts as told.) */
bool staged_rewritten(const struct staged *sf);
/* Would a write, zero or truncate at `off` be the first of that kind?  Its bytes may reach
 * the disk before it is answered: a record that must know is written before it begins. */
bool staged_rewrites(const struct staged *sf, uint64_t off);
/* The file of a record, which lies in the directory (its rows, if there are any of an
 * earlier daemon, are as good).  inl: the bytes of a small one as the record keeps them,
 * or NULL; copied; the file is made from them if it is not there or shorter, as after a
 * power loss.  rewriting: sums that do not match are those of a rewriting that the power
 * loss cut short: they are made new.  Touches no disk yet: a file that is not there is
 * -EIO of the first request. */
int staged_restore(struct staging *st, uint64_t id, const struct staged_durable *dur,
    const void *inl, size_t inl_len, bool rewriting, struct staged **out);
/* Out of memory, rows too: the files stay, the record describes them.  Nothing of it may
 * be running. */
int staged_park(struct staged **sf);
/* In the pool, whoever has it in memory: bytes [off, off+len) of a durable file that is closed,
 * safe, and has `size` bytes, compared with their sums.  They begin at *at in `mem`, which has
 * room for STAGED_CLOSED_ROOM(len) bytes.  dir: that of staged files.  -ENOENT: it is not
 * there (any more), -ENODATA: shorter than that, -EBADMSG, -EIO. */
#define STAGED_CLOSED_ROOM(len) ((len) + 2 * (size_t)STAGED_BLOCK)
int staging_read_closed(const char *dir, uint64_t id, uint64_t size, uint64_t off, size_t len,
    unsigned char *mem, size_t *at);
/* Deletes, in the pool, the files of a durable id that is not in memory. */
void staging_discard(struct staging *st, uint64_t id);
/* Ids of durable files in the directory that nobody has in memory and that are older than
 * `age_ns`; found in the pool, leaf contract.  ids: malloc'ed, the caller frees it.  A page
 * at a time, which may be empty: with `more` the next call goes on behind it, and what is
 * wanted no longer is aborted.  (An id may be in two pages.) */
struct staging_scan {
	uint64_t age_ns; /* in */
	void (*done)(struct staging_scan *sc, int err);
	void *user;
	uint64_t *ids; /* out */
	size_t n;
	bool more;
	/* private: zeroed before its first use */
	struct scan_job *job;
	struct loop *loop;
	struct deferred run;
	int why;
};
void staging_scan(struct staging *st, struct staging_scan *sc);
/* Its done is not called, or between two pages: no other will come.  No-op if it has ended. */
void staging_scan_abort(struct staging_scan *sc);
/* Bytes of unpersisted content that is not in memory: with those in memory they may take
 * up to worker.page.store.pinned.file.capacity.limit.ratio of worker.page.store.size; a
 * write to a durable file that would go past it is -ENOSPC.  (Parking and restoring move
 * a file's bytes from one to the other until this is called again.) */
void staging_parked(struct staging *st, uint64_t bytes);

#endif
