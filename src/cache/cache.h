/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The read cache: blobs (one version of one file each) made of pages, in memory
 * while they are fetched, then on the cache disk.
 *
 *   read -> page in memory?  page on disk?  else fetch (single flight a page)
 *
 * Data buffers come from one arena of prefaulted memory limited by memory.limit;
 * a fetch reserves its buffers before it starts, so pressure makes requests wait,
 * never fail.  Reads are answered as their bytes arrive, before the disk write.
 * Blocks that come from disk are checked (CRC32C a 4 KiB block); a mismatch drops
 * the page and fetches it again.  A failing or full disk is passed by: counted,
 * shown by cache_status(), never an error for the reader.  One that takes longer than
 * worker.page.store.slow.time is passed by in the same way, also by the reads that wait
 * for it already, until it answers again; it has pool.threads threads and a part of the
 * memory at the most, so whoever does not need it does not wait for it.
 *
 * The index (LMDB on the cache disk) is opened only by the daemon whose epoch it
 * is; before cache_index_open() and after cache_index_close() blobs work from
 * memory and storage.  Loop thread only; disk work goes to the pool.
 */
#ifndef CACHE_CACHE_H
#define CACHE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/epoch.h"
#include "base/errtext.h"
#include "base/queue.h"
#include "reactor/pool.h"
#include "ufs/ufs.h"

struct cache;
struct blob;
struct config;
struct loop;
struct pool;

struct cache_env {
	struct loop *loop;
	struct pool *pool;
	const struct config *cfg;
	const struct epoch *epoch;
	bool writes; /* uploads take their share of memory.limit */
};

/* Opens worker.page.store.dir (created if missing, mode 0700) and locks it, or
 * takes over the locked descriptor lock_fd (-1: none) of the same directory
 * (owned from now on, also on failure).
 * -EBUSY with the holder's pid in et if another daemon has it; -EINVAL for a
 * directory that is not ours to use.  Without a directory: memory only.
 * Turns the loop meanwhile, but no longer than worker.page.store.slow.time: a disk that
 * has not answered by then is passed by, as one that hangs later is, and the directory is
 * opened when it answers. */
int cache_new(struct cache **out, const struct cache_env *env, int lock_fd, struct errtext *et);
/* What of memory.limit is for the bodies of uploads. */
uint64_t cache_write_memory(const struct config *cfg);
/* All blobs must be put, the index closed, and nothing of it in the pool. */
void cache_free(struct cache **c);
/* The descriptor that carries the lock, for keeper and successor; -1 if none. */
int cache_lock_fd(const struct cache *c);
/* True if fd is of the same directory as this cache's (device and inode). */
bool cache_same_dir(const struct cache *c, int fd);

/* Opens the index in the pool; reads that come meanwhile wait for it.  An index
 * that cannot be opened or is of another format is set aside and begun afresh
 * (it describes clean pages only), with a warning. */
void cache_index_open(struct cache *c);
/* Stops using the disk: waits for its pool work, makes the index's last batch
 * durable if `sync`, closes it, then calls done on the loop (never inline).
 * Reads that need the disk afterwards end with -ECANCELED. */
void cache_index_close(struct cache *c, bool sync, void (*done)(void *arg), void *arg);
/* Instead of done: when it is closed it is opened again, as after a failure; until then
 * everything goes past the disk. */
void cache_index_unclose(struct cache *c);
/* Before a hand-over, while requests are still served: begins no further batch of
 * index changes and calls done on the loop (never inline) when none is being written,
 * so that the close that follows has no fsync to wait for.  What has gathered goes
 * with that close. */
void cache_index_settle(struct cache *c, void (*done)(void *arg), void *arg);
/* No hand-over after all: batches go on, and done is not called any more. */
void cache_index_unsettle(struct cache *c);

/* --- Blobs */
struct blob_id {
	struct ufs *ufs;
	const char *path;    /* in ufs; copied */
	const char *version; /* copied */
	uint64_t size;
};
/* The blob of that file version, made if need be; counted.  NULL: out of memory. */
struct blob *cache_blob_get(struct cache *c, const struct blob_id *id);
struct blob *cache_blob_ref(struct blob *b);
void cache_blob_put(struct blob **bp);
uint64_t cache_blob_size(const struct blob *b);
/* Bytes of it on disk or in memory (for `fs ls`'s cached %). */
uint64_t cache_blob_cached(const struct blob *b);
/* Of those, on disk. */
uint64_t cache_blob_stored(const struct blob *b);
/* Calls done on the loop, never inline, when cache_blob_cached() is right for all
 * blobs that were got before (their index rows are read in the pool), or the disk takes
 * too long to say.  It cannot be aborted. */
struct cache_loaded {
	struct pool_job job;
	struct cache *cache;
	void (*done)(struct cache_loaded *w);
	bool again; /* the index was being opened: rows are read after that */
	TAILQ_ENTRY(cache_loaded) link;
};
void cache_when_loaded(struct cache *c, struct cache_loaded *w,
    void (*done)(struct cache_loaded *w));

/* --- Readahead state of one file handle; zero it to begin.  Several readers may go
 * through the file side by side on one handle, forwards, backwards and in steps. */
struct stream {
	struct pattern *pattern; /* what was read; NULL: nothing yet */
	struct blob *blob;	 /* set while readahead of it is queued */
	/* private */
	TAILQ_ENTRY(stream) link; /* on the readahead queue */
	unsigned fetches;	  /* GETs in flight for it */
	LIST_HEAD(, cache_page) unread; /* fetched ahead for it */
};
/* The handle goes away: its readahead, queued or in flight, is dropped.  No read
 * with this stream may be running. */
void cache_stream_end(struct cache *c, struct stream *s);

/* --- Reads */
#define CACHE_READ_IOV 18 /* 1 MiB + 1 page, at the smallest page size */

struct cache_page;
struct disk_read;
/* A place in the line for memory. */
struct mem_seat {
	TAILQ_ENTRY(mem_seat) link;
	void (*fn)(struct mem_seat *s); /* goes on, or takes the seat again */
};
struct cache_read {
	/* in */
	struct blob *blob;
	struct stream *stream; /* may be NULL: no readahead */
	uint64_t off;
	size_t len; /* at most 1 MiB; shortened at the end of the file */
	void (*done)(struct cache_read *r, int err);
	void *user;
	/* out, until cache_read_release(): stable, prefaulted memory */
	struct iovec iov[CACHE_READ_IOV];
	unsigned niov;
	size_t got; /* sum of iov; 0 at the end of the file */
	/* private */
	struct cache_page *page[CACHE_READ_IOV]; /* pinned; NULL: comes from disk */
	void *priv;		     /* buffer of what came from disk */
	unsigned state, slots, wait; /* pages touched; the one waited for */
	uint32_t disk;		     /* bit i: slot i comes from disk */
	int err;
	struct disk_read *job;
	struct mem_seat seat;
	TAILQ_ENTRY(cache_read) link;
};
/* True: answered at once from memory or from the kernel's page cache.  False:
 * call cache_read_start().  Not to be called twice for one read. */
bool cache_read_try(struct cache_read *r);
/* Would a read of [off, off+len), which is in the file, have to wait for the storage?  Also
 * false where that is not known yet. */
bool cache_blob_lacks(const struct blob *b, uint64_t off, uint64_t len);
/* After cache_read_try() said false.  Leaf contract: done(0 or -EIO, -ESTALE, -EACCES,
 * -ETIMEDOUT, -ENOMEM, -ECANCELED (index closed for a takeover), …) once, never
 * inline, never after abort.  done(0) must be followed by cache_read_release(). */
void cache_read_start(struct cache_read *r);
void cache_read_abort(struct cache_read *r);
/* After a successful read: gives the buffers back. */
void cache_read_release(struct cache_read *r);

/* --- Filling and dropping on request */
struct cache_load {
	struct blob *blob; /* the user's count */
	void (*done)(struct cache_load *l, int err);
	/* private */
	enum { LOAD_IDLE, LOAD_WAITING, LOAD_READING, LOAD_READY } state;
	struct cache_read read;
	struct stream stream;
	uint64_t next; /* page */
	unsigned passes;
	int err;
	TAILQ_ENTRY(cache_load) link;
};
/* Gets all of the blob onto the disk.  Leaf contract: done once, never inline, never
 * after abort: 0, an error of reading, -ENOSPC (the disk did not take all of it),
 * -EOPNOTSUPP (there is no page store), -ECANCELED (the index was closed). */
void cache_load_start(struct cache_load *l, struct blob *b,
    void (*done)(struct cache_load *l, int err));
void cache_load_abort(struct cache_load *l);
/* Drops what is cached of the blob, but not what is in use at this moment: up to
 * `max` pages from page *from on.  True: there is more, after *from. */
bool cache_blob_drop(struct blob *b, uint64_t *from, unsigned max);

/* --- For people */
struct cache_where {
	uint64_t pages, pages_on_disk;
	uint64_t memory; /* bytes */
	char file[512];	 /* that holds the pages on disk, or "" */
};
void cache_blob_where(const struct blob *b, struct cache_where *out);

enum cache_health {
	CACHE_OK,
	CACHE_FULL,	 /* no room, of blocks, inodes or quota */
	CACHE_READ_ONLY,
	CACHE_SLOW,	 /* it does not answer in time */
	CACHE_FAILED,	 /* any other error; also an index that cannot be opened */
};
const char *cache_health_word(enum cache_health health);

struct cache_status {
	char dir[256];	   /* "" : memory only */
	bool index_open;
	uint64_t capacity, used, pinned; /* bytes on disk */
	uint64_t memory_limit, memory_used;
	unsigned fetches;  /* GETs in flight */
	enum cache_health health;
	uint64_t since_ns; /* of the loop's clock */
	char error[256];   /* why pages bypass the disk at present, or "" */
	char last_error[256]; /* also when the disk is well again */
};
void cache_status(const struct cache *c, struct cache_status *out);

#endif
