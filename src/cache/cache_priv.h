/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of src/cache/ share.  Loop thread, unless a function says pool.
 *
 *	cache.c		construction, status		dir.c	directory, lock
 *	blob.c		live blobs, their pages on disk	page.c	pages in memory
 *	read.c		reads				fetch.c	GETs, single flight
 *	readahead.c	streams				disk.c	page files
 *	store.c		the index's batches and life	evict.c, scrub.c
 *	adopt.c		files that become a blob's
 *	health.c	how the disk is			slow.c	disks that take long
 *
 * A page in memory is one of: being fetched (fetch != NULL, filled from its start
 * on), being written (writing), pinned by reads, or parked on the cache's LRU
 * because the disk does not have it.  page_settle() decides when one of these
 * ends.  A page on disk is a bit in its blob and, when recently used, its sums.
 *
 * Waiting reads hold no memory: what a read needs is reserved in one piece, so
 * reads cannot starve each other.
 */
#ifndef CACHE_CACHE_PRIV_H
#define CACHE_CACHE_PRIV_H

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "base/log.h"
#include "base/obj.h"
#include "base/options.h"
#include "base/units.h"
#include "cache/arena.h"
#include "cache/cache.h"
#include "cache/index.h"
#include "reactor/loop.h"
#include "reactor/pool.h"
#include "reactor/timer.h"

#define READ_MAX (1024 * 1024)
#define BLOCK 4096u /* of a checksum, and of alignment on disk */
#define BLOB_LANES 4 /* writes of one blob side by side */
#define LANE_RUN (4 * MIB) /* neighbours that share a lane */
#define IO_SIZE (READ_MAX + 2 * BLOCK)

TAILQ_HEAD(read_list, cache_read);
TAILQ_HEAD(seat_list, mem_seat);
TAILQ_HEAD(page_list, cache_page);
TAILQ_HEAD(sums_list, sums);
TAILQ_HEAD(fetch_list, fetch);
TAILQ_HEAD(stream_list, stream);
TAILQ_HEAD(file_list, blob);
TAILQ_HEAD(load_list, cache_load);
TAILQ_HEAD(loaded_list, cache_loaded);

/* An operation of the disk while it is under way. */
struct disk_op {
	TAILQ_ENTRY(disk_op) link;
	uint64_t since; /* tick */
};
TAILQ_HEAD(disk_op_list, disk_op);

enum store_state {
	STORE_NONE,    /* no directory */
	STORE_CLOSED,  /* before cache_index_open() or after cache_index_close() */
	STORE_OPENING,
	STORE_OPEN,
	STORE_CLOSING,
	STORE_FAILED,  /* the index cannot be opened; tried again later */
};

struct cache {
	uint32_t magic;
#define CACHE_MAGIC 0xcac4e001u
	struct cache_env env;
	uint32_t page_size;
	struct arena *arena;
	struct blob *blobs;   /* hash by key text */
	struct blob *by_hash; /* the same by key.hash */

	/* directory */
	char *dir;
	int dir_fd, lock_fd;
	bool gone; /* it was removed, or is another one: to be opened anew */
	bool reopen; /* the index is broken: to be opened again */
	unsigned breaks; /* so often lately */
	uint64_t broke;	 /* the last time */
	int new_dir_fd, new_lock_fd; /* by the job that opens the index */
	struct dir_start *starting; /* the directory is being opened */
	bool began; /* who made us goes on, with the directory or without */
	int start_err;

	/* memory */
	struct page_list lru;	   /* least recently used first */
	struct seat_list mem_wait; /* who waits for memory, first come first served */
	struct read_list ready;	   /* reads whose end is due */
	struct deferred ready_run, mem_run;
	struct timer age;	   /* pages that a failing disk left in memory */

	/* storage */
	struct fetch_list fetches;
	unsigned nfetches;
	struct stream_list ahead; /* streams that want readahead */
	unsigned nahead;	  /* pages fetched ahead that nobody has read yet */
	uint64_t writing;	  /* bytes of buffers on their way to disk */

	struct load_list loads; /* that wait for the disk, or whose turn it is */
	struct deferred loads_run;

	/* disk */
	enum store_state state;
	struct index *index; /* touched by jobs of index_lane only */
	struct pool_lane index_lane;
	struct pool_share share; /* of the pool: a disk that hangs has no more of it */
	unsigned jobs; /* in the pool for us */
	uint64_t reading; /* bytes of buffers that jobs read into */
	struct loaded_list loaded; /* cache_when_loaded() */
	struct index_ops ops;
	unsigned nops;
	bool flushing, flush_again;
	bool settling; /* cache_index_settle(): no further flush */
	void (*settled)(void *arg);
	void *settled_arg;
	struct deferred settle_run;
	struct pool_job flush_job;
	struct index_ops flush_ops;
	struct pool_job index_job; /* opens or closes the index */
	struct disk_op open_op;
	struct errtext index_why, index_set, index_et;
	struct timer sync;
	uint64_t used;	    /* bytes on disk, with writes under way */
	uint64_t capacity;
	bool failing;	    /* pages bypass the disk until a trial goes well */
	bool slow;	    /* and so do reads */
	struct disk_op_list disk_ops; /* the oldest first */
	uint64_t tick;
	struct timer ticker; /* while there are any */
	bool trying;	    /* try_job is in the pool */
	bool trying_file;   /* and writes; else it only looks */
	bool try_gone;	    /* what it found */
	enum cache_health health;
	uint64_t health_since, retry_next;
	struct timer retry;
	struct pool_job try_job;
	struct disk_op try_op;
	char error[256], last_error[256];
	/* Least recently used first; `hot` are those that were used again. */
	struct sums_list sums, hot;
	uint64_t sums_bytes, hot_bytes, sums_limit;
	struct file_list files; /* blobs with an open file, least recently used first */
	unsigned nfiles, files_limit;

	struct evict *evict;
	struct scrub *scrub; /* while it runs */

	/* cache_index_close() */
	bool close_sync;
	void (*closed)(void *arg);
	void *closed_arg;
	struct deferred close_run;
};

/* Orders writes and holes of the same page. */
struct blob_lane {
	struct pool_lane lane;
	struct pool_job job;	/* writes `pages` */
	struct disk_op op;
	struct page_list pages, gather; /* being written; for the job after that */
	struct cache_page *written; /* the first of `pages` that is not on disk */
	int fd, fd_opened;
};

enum blob_load { BLOB_UNLOADED, BLOB_LOADING, BLOB_LOADED };

struct blob {
	uint32_t magic;
#define BLOB_MAGIC 0xcac4e002u
	struct cache *cache;
	unsigned users; /* cache_blob_get/ref */
	unsigned holds; /* pages in memory, jobs, ops of the index, fetches */
	UT_hash_handle hh, hh_hash;

	struct ufs *ufs;
	char *path, *version; /* point into text */
	uint64_t size, npages;
	struct index_key key;

	struct cache_page *pages; /* in memory, hash by number */

	/* on disk */
	enum blob_load load;
	bool bypass;		  /* another file of the same hash has the disk */
	bool adopting;		  /* its file is to be one that is there: pages bypass */
	struct read_list loading; /* reads that wait for the load */
	uint64_t *present;	  /* npages bits; NULL: none */
	uint64_t npresent;
	struct sums *sums;	  /* hash by page number */
	unsigned nsums;
	bool used, reused; /* since it was loaded: pages of it on disk */
	uint64_t hand;		  /* eviction of pages without sums looks on from here */
	int fd;			  /* -1: not open */
	TAILQ_ENTRY(blob) file_link;
	unsigned fd_users;	  /* jobs that use fd */
	struct blob_lane lane[BLOB_LANES]; /* see blob_lane() */
	TAILQ_HEAD(, disk_read) reading;
};

struct cache_page {
	uint32_t magic;
#define PAGE_MAGIC 0xcac4e003u
	struct blob *blob;
	uint64_t no;
	UT_hash_handle hh;
	bool hashed; /* in blob->pages: what new reads find */
	struct arena_buf *buf;
	uint32_t len, fill; /* bytes of the file here; of those, read from storage */
	unsigned pins;
	int err; /* why it will not be filled */
	bool writing, parked, ahead, aged;
	struct fetch *fetch;
	struct read_list waiters;
	struct index_op *op; /* while it is written */
	TAILQ_ENTRY(cache_page) lru; /* parked, or on its way to disk */
	bool shares; /* in the share of readahead, until it is read or its stream ends */
	LIST_ENTRY(cache_page) share_link;
};

/* Checksums of one page on disk; counted, because jobs and the index's ops use
 * them when the blob's own count may be gone. */
struct sums {
	unsigned refs;
	struct cache *cache;
	struct blob *blob; /* while in its hash */
	uint64_t no;
	UT_hash_handle hh;
	TAILQ_ENTRY(sums) lru;
	bool hot;
	bool ahead; /* fetched ahead, and not read before it was stored */
	uint64_t when; /* last use; 0: before the blob was loaded */
	uint32_t n;
	uint32_t crc[];
};

struct fetch {
	uint32_t magic;
#define FETCH_MAGIC 0xcac4e004u
	struct cache *cache;
	struct blob *blob; /* held */
	struct ufs_read rq;
	struct stream *stream; /* goes on for it when no read waits */
	bool served;	       /* some read was answered from it */
	bool ahead;
	TAILQ_ENTRY(fetch) link;
	unsigned n, cur; /* pages; the one being filled */
	struct cache_page *page[];
};

/* --- cache.c */
void cache_job(struct cache *c, struct pool_lane *lane, struct pool_job *job,
    void (*work)(struct pool_job *job), void (*done)(struct pool_job *job));
void cache_job_done(struct cache *c); /* last thing in every done */

/* --- health.c */
/* What status shows, and one line of the log if that is another state. */
void cache_note(struct cache *c, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The disk failed with err at `what`: pages bypass it until a trial goes well. */
void cache_trouble(struct cache *c, int err, const char *what);
void cache_well(struct cache *c);
void cache_retry_later(struct cache *c); /* arms `retry`, each time for longer */
void health_retry_timer(struct timer *t);

/* --- slow.c */
void slow_begin(struct cache *c, struct disk_op *op);
bool slow_end(struct cache *c, struct disk_op *op); /* true: it took too long */
bool slow_now(const struct cache *c); /* some operation is overdue */
void slow_tick(struct timer *t);
/* Pool: a fault point that all operations of the disk come by. */
int slow_point(void);

/* --- dir.c */
int dir_open(struct cache *c, const char *path, int lock_fd, struct errtext *et);
/* Opens it in the pool and turns the loop until that has ended: then its result; or until
 * the disk takes too long: 0, and c->starting remains until dir_started() is called. */
int dir_start(struct cache *c, const char *path, int lock_fd, struct errtext *et);
void dir_close(struct cache *c);
/* Pool: whether dir_fd is not what the name leads to, or has been emptied. */
bool dir_is_gone(const struct cache *c);
/* Pool: opens and locks what the name leads to now, into new_dir_fd and new_lock_fd;
 * made anew if it was removed, but not where its file system is missing. */
int dir_again(struct cache *c, struct errtext *et);
void dir_swap(struct cache *c); /* these instead of the old ones */
void dir_write_pid(int lock_fd); /* pool or start-up */

/* --- blob.c */
void blob_hold(struct blob *b);
void blob_unhold(struct blob **bp);
struct blob *blob_find_hash(struct cache *c, const unsigned char *hash);
static inline bool blob_has(const struct blob *b, uint64_t no)
{
	return b->present != NULL && (b->present[no / 64] >> (no % 64) & 1);
}
static inline struct blob_lane *blob_lane(struct blob *b, uint64_t no)
{
	return &b->lane[no * b->cache->page_size / LANE_RUN % BLOB_LANES];
}
/* On disk, and to be read there. */
static inline bool blob_on_disk(const struct blob *b, uint64_t no)
{
	return blob_has(b, no) && !b->cache->gone && !b->cache->reopen && !b->cache->slow;
}
int blob_can_set(struct blob *b); /* -ENOMEM */
void blob_set(struct blob *b, uint64_t no);
void blob_clear(struct blob *b, uint64_t no);
/* The rows may be different when the index is opened next. */
void blob_forget_disk(struct blob *b);
uint32_t blob_page_len(const struct blob *b, uint64_t no);
/* Space of a page on disk. */
static inline uint32_t blob_page_space(const struct blob *b, uint64_t no)
{
	return (blob_page_len(b, no) + BLOCK - 1) & ~(BLOCK - 1);
}
/* Rows of the index, read in the pool. */
#define SUMS_ROWS 64
struct sums_rows {
	struct cache *cache;
	uint64_t npages;
	unsigned n;
	struct sums *row[SUMS_ROWS];
};
int sums_rows_add(void *arg, uint64_t page, const uint32_t *crc, uint32_t ncrc); /* pool */
void sums_rows_take(struct sums_rows **rows, struct blob *b);
struct sums *sums_new(struct cache *c, uint32_t n);
void sums_put(struct sums **sp);
struct sums *sums_peek(struct blob *b, uint64_t no);
struct sums *sums_find(struct blob *b, uint64_t no); /* marks it used */
void sums_insert(struct blob *b, uint64_t no, struct sums *s);
void sums_remove(struct sums *s);
/* Gives blob b an open descriptor (owned), or closes fd if it has one. */
void blob_set_fd(struct blob *b, int fd);
void blob_use_fd(struct blob *b);

/* --- page.c */
/* The buffer that the page takes. */
static inline enum arena_kind page_kind(const struct blob *b, uint64_t no)
{
	return blob_page_len(b, no) <= ARENA_SMALL_SIZE ? ARENA_SMALL : ARENA_PAGE;
}
struct cache_page *page_find(const struct blob *b, uint64_t no);
/* From memory reserved before; pinned once.  NULL: out of memory. */
struct cache_page *page_new(struct blob *b, uint64_t no);
void page_pin(struct cache_page *pg);
void page_unpin(struct cache_page **pgp);
void page_settle(struct cache_page *pg);
/* It will not be filled: its waiters get err; new reads begin anew. */
void page_fail(struct cache_page *pg, int err);
void page_wake(struct cache_page *pg);
/* Reserves buffers, taking parked pages if it must. */
bool page_reserve(struct cache *c, const unsigned need[ARENA_KINDS]);
/* Counts a page as fetched ahead for the stream, until it is read. */
void page_count_ahead(struct cache_page *pg, struct stream *s);
/* The stream ends: what it left unread is not in anybody's way. */
void page_forget_ahead(struct cache *c, struct stream *s);
void page_drop_parked(struct cache *c);
void page_drop_blob(struct blob *b);
void page_age(struct timer *t);

/* --- read.c */
void read_resume(struct cache_read *r);		   /* loaded, or memory was freed */
void read_fail(struct cache_read *r, int err);	   /* not on any list */
void read_filled(struct cache_read *r);		   /* its page has what it needs */
void read_disk_done(struct cache_read *r, int err, uint32_t bad);
void read_go_past(struct cache_read *r); /* it waits for a disk that takes too long */
uint32_t read_need(const struct cache_read *r, unsigned slot);
uint64_t read_io_size(const struct cache_read *r); /* of the buffer for what is on disk */
void read_run_ready(struct deferred *d);
void read_run_memory(struct deferred *d);
void read_memory_freed(void *arg);
/* Takes a seat; again: the first, because it was called from there. */
void read_memory_wait(struct cache *c, struct mem_seat *s, bool again);
void read_memory_leave(struct cache *c, struct mem_seat *s);

/* --- fetch.c */
/* Starts GETs for the pages, all new and in order. */
void fetch_start(struct blob *b, struct cache_page **pages, unsigned n, struct stream *s,
    bool ahead);
void fetch_left(struct fetch *f); /* a read gave up its seat */
void fetch_stream_end(struct cache *c, struct stream *s);
void fetch_abort_all(struct cache *c);

/* --- readahead.c */
void readahead_note(struct cache_read *r); /* every read, at its start */
void readahead_pump(struct cache *c);
/* So much from `next` on, whatever was read before. */
void readahead_want(struct blob *b, struct stream *s, uint64_t next, uint64_t window);

/* --- load.c */
void load_kick(struct cache *c); /* the disk took something, or will take nothing more */
void load_run(struct deferred *d);

/* --- disk.c, disk_write.c */
struct disk_span {
	int fd;
	uint64_t base, end, first; /* bytes, whole blocks; number of the first page */
	uint32_t page_size;
	uint32_t want, bad, hole; /* bit i: page first + i */
	int err; /* the disk's last one, if it had any */
	struct sums *sums[CACHE_READ_IOV];
	unsigned char *mem;
};
/* Any thread.  0, -EAGAIN (RWF_NOWAIT), or 0 with bits in bad. */
int disk_span_read(struct disk_span *sp, int flags);
/* Whether so many bytes more may wait for the disk: one that is slow, or hangs, must not
 * keep all memory from the readers. */
bool disk_may_hold(const struct cache *c, uint64_t bytes);
void disk_write(struct cache_page *pg); /* or bypasses */
/* Submits the read of r->disk; -ENOMEM. */
struct disk_read {
	struct pool_job job;
	struct disk_op op;
	uint64_t bytes; /* of io */
	struct blob *blob;	 /* held */
	struct cache_read *read; /* NULL: it left */
	struct arena_buf *io;
	struct disk_span span;
	int fd_opened;
	struct sums_rows *rows;
	TAILQ_ENTRY(disk_read) link;
};
int disk_read_start(struct cache_read *r);
void disk_read_orphan(struct cache_read *r); /* the read leaves, the job ends alone */
/* The page is not on disk any more: row, sums, space. */
int disk_drop(struct blob *b, uint64_t no, bool evict); /* -ENOMEM: it stays */
bool disk_being_read(const struct blob *b, uint64_t no);
/* Pool: the blob's file; negative errno. */
int disk_open(int dir_fd, const unsigned char *hash, bool create);
/* Pool: "blobs/xx/<hash>" */
#define DISK_NAME_MAX 64
void disk_name(const unsigned char *hash, char name[DISK_NAME_MAX]);

/* --- adopt.c */
/* The file of `path`, which has all bytes of the blob and nobody's else, becomes the
 * blob's on disk, if that can be done by renaming it; else it stays where it is. */
struct adopt {
	struct blob *blob; /* the user's count */
	const char *path;
	/* Pool: checksums of the blocks of [off, off+len), whole pages of the blob; fd: of the
	 * file.  0 or a negative errno: then it is not done. */
	int (*sums)(struct adopt *a, int fd, uint64_t off, uint64_t len, uint32_t *crc);
	/* Once, whatever came of it; perhaps at once. */
	void (*done)(struct adopt *a);
	/* private */
	struct pool_job job;
	struct index_ops ops;
};
void adopt_start(struct adopt *a);

/* --- store.c */
/* The directory that took too long in the beginning is open, or failed with words. */
void store_dir_started(struct cache *c, int err, const char *words);
void store_load(struct blob *b);
void store_resume_loading(struct blob *b); /* its reads look again */
/* Lets go of a directory that is gone; then it is looked for every so often. */
void store_gone(struct cache *c);
/* The end of every job: an index that broke is closed, and opened again later. */
void store_check_broken(struct cache *c);
static inline bool store_wait(const struct cache *c)
{
	return (c->state == STORE_OPEN || c->state == STORE_OPENING) && !c->slow;
}
struct index_op *store_op_new(struct blob *b, enum index_verb verb);
void store_op_free(struct index_op **opp);
void store_op_add(struct cache *c, struct index_op *op);
void store_flush(struct cache *c);
void store_settle_check(struct cache *c);
void store_sync_timer(struct timer *t);
void store_check_closed(struct cache *c);
void store_run_closed(struct deferred *d);
#define STORE_OPS_MAX 16384 /* not yet in the index; more bypass the disk */
#define STORE_OPS_MANY 4096 /* worth a batch before it is due */

/* --- loaded.c */
void loaded_go_past(struct cache *c); /* they wait for a disk that takes too long */

/* --- evict.c, scrub.c */
int evict_new(struct cache *c);
void evict_kick(struct cache *c);
void evict_full(struct cache *c); /* the disk has less room than we thought */
void evict_one_done(struct cache *c); /* a blob or hole that eviction asked for */
void scrub_start(struct cache *c);

#endif
