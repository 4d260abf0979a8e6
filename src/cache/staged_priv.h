/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of staged files share.
 *
 *	staged.c	life, kinds, status	staged_map.c	extents in memory
 *	staged_rows.c	rows, both together
 *	staged_io.c	requests, one by one	staged_read.c	reads
 *	staged_fill.c	bytes of the base	staged_file.c	what the pool does
 *	staged_dir.c	files that go		staged_durable.c durable files
 *	staged_sums.c	their checksums		staged_scan.c	which there are
 *	staged_hold.c	small ones without a file	staged_keep.c	notes of failed ones
 *	staged_early.c	large ones, on their way to the disk before a sync
 *	staged_closed.c	reads of those that are closed, past all that
 *
 * Requests of one file that touch the local file form a queue; the first is the one
 * that runs.  Only the end of that one changes the list of extents, so what runs in the
 * pool may walk it, and what a request finds in it when its turn comes is true until it
 * ends.  A fill waits for its bytes outside the queue and then takes its turn: what was
 * written before it came is in the map, and what comes later is written after it.
 *
 * An extent has the generation in which it was written last.  Up to staged.clean all is
 * as in the base, up to staged.sending it is being sent, above that it is dirty: so the
 * stages of an upload touch no extent.
 *
 * The map follows the rows.  Where they part (a row that cannot be written, a turn's
 * rows lost), the next change writes all rows anew.
 */
#ifndef CACHE_STAGED_PRIV_H
#define CACHE_STAGED_PRIV_H

#include "cache/cache_priv.h"
#include "cache/staged.h"
#include "reactor/statedb.h"

#define EXT_HEIGHT 12
#define STAGED_SUMS ".sum"

/* One node of a skip list. */
struct ext {
	uint64_t start, end, gen;
	unsigned height;
	struct ext *next[];
};

struct ext_map {
	struct ext *head[EXT_HEIGHT];
	struct ext *spare[2]; /* what one change may need */
	uint64_t n;
	uint32_t random;
};

TAILQ_HEAD(io_list, staged_io);
TAILQ_HEAD(chunk_list, chunk);

enum io_kind {
	IO_WRITE,
	IO_READ,
	IO_PREAD,
	IO_TRUNCATE,
	IO_ZERO,
	IO_ALLOCATE,
	IO_FILL,
	IO_SYNC,
	IO_CHUNK, /* of a fill: our own */
};

enum io_state {
	IO_IDLE,
	IO_FILLING, /* on sf->fills */
	IO_MEMORY,  /* in the line for memory */
	IO_QUEUED,  /* on sf->queue, or the first of it, in the pool */
	IO_READY,   /* its end is due */
};

/* Bytes of the base on their way into the file. */
struct chunk {
	struct staged_io io; /* off, len: less than was read, if the file was cut */
	struct cache_read read;
	bool reading;
	TAILQ_ENTRY(chunk) link;
};

struct staging {
	uint32_t magic;
#define STAGING_MAGIC 0x57a9ed01u
	struct staging_env env;
	struct statedb *db;
	char *dir;
	struct turn_hook hook;
	bool hooked;
	struct deferred committed_run, ready_run;
	TAILQ_HEAD(, staged) commit; /* the first of their queues waits for the turn's end */
	struct io_list ready;
	LIST_HEAD(, staged) files;
	STAILQ_HEAD(, gone) gone; /* to be removed when their rows are */
	uint64_t *prune;	  /* ids whose heads are gone and whose extents are left */
	size_t nprune, prune_cap;
	struct sweep *sweep;	  /* runs */
	bool stopped;		  /* staging_hold() */
	LIST_HEAD(, scan_job) scans;
	struct early *early;	  /* runs */
	TAILQ_HEAD(, staged) early_due;
	unsigned nfiles;
	uint64_t bytes, dirty;
	/* of durable files: not in the storage, about to be written, not in memory */
	uint64_t pinned, reserved, parked;
	uint64_t held; /* bytes in memory instead of in files */
	uint64_t mismatches;
	unsigned aside; /* files of earlier mounts, when this daemon began */
	bool dirs_safe; /* the directory's own name is on the disk */
	char error[256];
};

struct staged {
	uint32_t magic;
#define STAGED_MAGIC 0x57a9ed02u
	struct staging *st; /* NULL: closed, a fill is still in the pool */
	LIST_ENTRY(staged) link;
	uint64_t id;
	char *path;
	const struct epoch *epoch;
	struct loop *loop;
	struct pool *pool;

	/* the row */
	uint64_t size, limit; /* bytes from limit on are not in the base */
	uint64_t clean;	      /* generation */
	uint64_t changed;     /* that in which the size changed without a write */

	struct ext_map map;
	uint64_t gen, sending;
	uint64_t cut; /* least size since staged_sending() */
	uint64_t bytes, dirty_bytes, sending_bytes;
	bool rows_bad;

	struct blob *base;
	struct stream stream;
	struct io_list fills; /* wait for bytes of the base */
	struct chunk_list chunks;
	unsigned nchunks;
	bool kicking, kick_again;
	bool base_stale; /* the base was replaced, the upload that did it has not ended */

	unsigned nio; /* requests that have not ended */
	struct io_list queue;
	bool running; /* the first of the queue is in the pool or waits for the commit */
	TAILQ_ENTRY(staged) commit_link;
	int fd;	      /* the pool's while one runs */
	bool sweeping; /* what has its name may be an earlier mount's */
	bool new_name; /* the directory is to be synced */
	bool dirs_safe;
	bool deleted;

	/* A durable one.  The pool's while a request runs: sum_fd to syncing. */
	bool durable;
	char *sum_path;
	int sum_fd;
	enum { PREP_NONE, PREP_RECOVER, PREP_RESTORE } prep; /* to be done when it is opened */
	unsigned char *inl; /* all of it, for PREP_RESTORE, or NULL */
	size_t inl_len;
	bool may_hold;	  /* it is new: what is written first need not have a file */
	bool held;	  /* what `inl` has is in no file, but in a row */
	uint32_t held_crc; /* of it, from the calls that wrote it */
	bool verify;	  /* reads compare sums */
	bool rewriting;	  /* and mend them */
	int broken;	  /* what can never be made safe any more */
	uint64_t bad_off; /* of the last -EBADMSG */
	struct staged_durable syncing;
	bool sync_due; /* there is something to be synced */
	/* Syncs side by side: of the sums and the directory; of the bytes: the request's job. */
	struct pool_job sync_job[2];
	struct staged_io *sync_io;
	void (*sync_done)(struct pool_job *job);
	unsigned sync_left;
	uint64_t early_from, early_to; /* to be written to the disk early */
	bool early_due;		       /* and in the line for it */
	TAILQ_ENTRY(staged) early_link;
	struct staged_durable safe;
	uint64_t told; /* below it nothing may change unseen */
	bool rewritten;
};

/* --- staged_map.c.  The list alone. */
void map_init(struct ext_map *m);
void map_free(struct ext_map *m);
int map_reserve(struct ext_map *m); /* spare nodes: -ENOMEM */
/* The extent that has `off`, or the first after it. */
struct ext *map_find(const struct ext_map *m, uint64_t off);
/* The last that begins before `start`. */
struct ext *map_before(const struct ext_map *m, uint64_t start);
struct ext *map_first(const struct ext_map *m);
static inline struct ext *map_next(const struct ext *x)
{
	return x->next[0];
}
/* Takes a spare node. */
void map_insert(struct ext_map *m, uint64_t start, uint64_t end, uint64_t gen);
void map_remove(struct ext_map *m, struct ext *x);

/* --- staged_rows.c.  Map and rows together: 0 or the database's error, and then the
 * map is as it was. */
enum staged_kind ext_kind(const struct staged *sf, const struct ext *x);
/* [start, end) has the generation; reserve before. */
int ext_set(struct staged *sf, uint64_t start, uint64_t end, uint64_t gen);
int ext_cut(struct staged *sf, uint64_t size);
void ext_account(struct staged *sf, const struct ext *x, uint64_t start, uint64_t end, bool add);
int staged_rows_head(struct staged *sf);
int staged_rows_load(struct staged *sf);
/* All rows anew, if they may not be what memory says. */
int staged_rows_mend(struct staged *sf);
int staged_rows_write(struct staged *sf);
int staged_rows_delete(struct staged *sf); /* the head; the others: prune */
int staged_rows_prune(struct statedb *db, uint64_t id); /* some; -ENOENT: none left */
int staged_rows_stray(struct statedb *db, uint64_t id, uint64_t *stray);

/* --- staged.c */
void staged_error(struct staging *st, const struct staged *sf, const char *what, int err);
struct staged *sf_new(struct staging *st, uint64_t id, struct blob *base);
void sf_free(struct staged *sf);
int sf_load(struct staged *sf); /* from its rows */
/* Next part of [off, end) that is not in the file: *from == end: none. */
void sf_gap(const struct staged *sf, uint64_t off, uint64_t end, uint64_t *from, uint64_t *to);

/* --- staged_io.c */
int io_begin(struct staged_io *io, enum io_kind kind);
void io_ready(struct staged_io *io, int err);
void io_run_ready(struct deferred *d);
void io_queue(struct staged_io *io);
void io_kick(struct staged *sf); /* the next of the queue, if none runs */
/* It leaves the queue. */
void io_unqueue(struct staged_io *io);
void io_committed(struct staged *sf, int err);

/* --- staged_read.c */
void sread_filled(struct staged_io *io); /* all of the base is there */
bool sread_begin(struct staged_io *io);	 /* its turn; false: something is missing again */
void sread_end(struct staged_io *io, int err);

/* --- staged_fill.c */
void fill_start(struct staged_io *io);
void fill_leave(struct staged_io *io);
void fill_kick(struct staged *sf);
void fill_cut(struct staged *sf, uint64_t size);
void fill_chunk_ended(struct staged_io *io, int err);
void fill_stop_reading(struct staged *sf); /* who waits goes on at the next kick */
void fill_end_all(struct staged *sf);	   /* no request runs any more */

/* --- staged_file.c.  In the pool. */
void staged_file_work(struct pool_job *job);
int file_open_path(const char *path, bool create); /* a descriptor or negative errno */
/* create: where nothing is in it yet. */
int staged_file_open(struct staged *sf, bool create);
int file_write(int fd, const void *data, size_t len, uint64_t off);
/* What a failed write left in [off, end) where nothing is said to be goes. */
void file_give_back(struct staged *sf, uint64_t off, uint64_t end);
int file_sync_dir(struct staged *sf);
/* Bytes of [off, off+len) that are there, zeros elsewhere; flags: RWF_NOWAIT. */
int staged_file_read(const struct staged *sf, uint64_t off, size_t len, void *mem, int flags);

/* --- staged_sums.c.  In the pool; of a durable file that is open, but for the first. */
int sums_open(struct staged *sf, bool create); /* the file, too */
void sums_close(struct staged *sf);
/* [off, off+len) as it was read into `mem`: 0 or -EBADMSG. */
int sums_check(struct staged *sf, uint64_t off, size_t len, void *mem);
/* [off, end) is about to be changed: before any of the next ones. */
int sums_begin(struct staged *sf, uint64_t off, uint64_t end);
int sums_data(struct staged *sf, uint64_t off, size_t len, const void *data);
int sums_zero(struct staged *sf, uint64_t off, uint64_t end);
int sums_cut(struct staged *sf, uint64_t size); /* the map has been cut already */
/* Anew from the bytes, after a change that failed. */
int sums_redo(struct staged *sf, uint64_t off, uint64_t end);
/* Opens it if need be; sets `syncing` and `sync_due`. */
int sums_sync(struct staged *sf);
int sums_sync_data(struct staged *sf);
int sums_sync_sums(struct staged *sf);
int sums_sync_dir(struct staged *sf);
/* Of a file without a struct: the sums of [off, off+len), from a block's start to one's end
 * or the file's, as checksum_blocks() has them.  -EBADMSG: it cannot tell. */
int sums_plain(int fd, int sum_fd, uint64_t off, uint64_t len, uint32_t *crc);
/* The same file: are these `n` blocks from `off` on (a block's start; what is beyond the end
 * of the file is zero) what was written?  0, -EBADMSG. */
int sums_agree(int sum_fd, uint64_t off, const unsigned char *mem, size_t n);

/* --- staged_durable.c */
/* Does the id belong to one? */
static inline bool durable_id(uint64_t id)
{
	return (id & STAGED_DURABLE_BIT) != 0;
}
/* Room for what the request will add: 0 or -ENOSPC; held until durable_ended(). */
int durable_reserve(struct staged_io *io);
/* After a sync's first job: the pool is given the rest, at the end of which `done` is called
 * with the request's job.  False: there is none. */
bool durable_sync_rest(struct staged_io *io, int err, void (*done)(struct pool_job *job));
/* The pool is through with it: the error that it has now. */
int durable_ended(struct staged_io *io, int err);
/* [off, ...) will not be any more what it was. */
void durable_changes(struct staged *sf, uint64_t off);

/* --- staged_early.c.  The file of a durable one was written up to `end`. */
void early_wrote(struct staged *sf, uint64_t end);
void early_cut(struct staged *sf, uint64_t size);
/* It goes; all of them do. */
void early_leave(struct staged *sf);
void early_leave_all(struct staging *st);

/* --- staged_hold.c.  A write that needs no file; false: the pool is to do it. */
bool hold_write(struct staged_io *io);
/* What `inl` has by now needs no file. */
void hold_begin(struct staged *sf);
/* May reads be answered from there?  (Else they make files, so that it ends.) */
bool hold_reads(const struct staged *sf);
/* After a cut: what it has beyond the size goes. */
int hold_cut(struct staged *sf);
/* The pool may have made its files: then they have the bytes from now on. */
int hold_leave(struct staged *sf);
/* The bytes at hand, zeros behind them.  Any thread.  -ENOENT: none are, -EBADMSG. */
int hold_read(const struct staged *sf, uint64_t off, size_t len, void *mem);
/* Rows: what memory says; what they say; they go. */
int hold_row_write(struct staged *sf);
int hold_row_load(struct staged *sf);
int hold_row_delete(struct statedb *db, uint64_t id);

/* --- staged_scan.c */
struct scan_job;
void scan_leave_all(struct staging *st);

/* --- staged_sweep.c */
void sweep_leave(struct staging *st);
void sweep_go_on(struct staging *st); /* after staging_hold() */
/* Is a file that has its name being moved out of the way just now? */
bool sweep_moves(const struct staged *sf);
/* In the pool, while a sweep runs, before the file of that path is made: what an earlier
 * mount has left there goes out of the way. */
void sweep_clear(const char *path);

/* --- staged_keep.c.  In the pool. */
void keep_forget(const char *path); /* the note of that file goes */
/* Is it the name of a note?  Of which file, then. */
bool keep_is_note(const char *name, char *of, size_t len);
/* If there is a note of it the file is set aside with that; false: there is none. */
bool keep_aside(int dir, const char *name);

/* --- staged_dir.c */
/* After this turn's commit: unlinks the file. */
struct gone;
struct gone *gone_new(const struct epoch *epoch, const char *path, bool durable);
/* Instead, if that can be done, it becomes the file of the blob. */
void gone_give(struct gone *g, struct blob *b);
void gone_add(struct staging *st, struct gone *g);
void gone_submit(struct pool *pl, struct gone *g);
void gone_run(struct staging *st, bool lost);
/* Those whose rows go with this turn, one after the other (NULL: the first, none); their
 * files' names. */
const struct gone *gone_next(const struct staging *st, const struct gone *g);
const char *gone_name(const struct gone *g);
/* Extents of the id are to be deleted, a few each turn: -ENOMEM. */
int prune_add(struct staging *st, uint64_t id);
void prune_run(struct staging *st);

#endif
