/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages to disk, and holes.  A blob's pages go through a few lanes by their place
 * in the file.  While a lane writes, what comes for it gathers; then all of that
 * is one job.  So a fast storage meets the disk's speed and not that of the way
 * through the pool.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
#include "cache/cache_priv.h"

/* All that a job may take. */
#define JOB_BYTES (8 * MIB)
/* One write: long enough that the call costs nothing, and short of where the file
 * system begins to allocate huge folios.  Those are memory that nobody has touched for
 * long, if ever: in a virtual machine the copy into them takes ten times as long. */
#define WRITE_BYTES (512 * KIB)

/* --- In the pool */

/* 0 or a negative errno. */
static int write_all(int fd, const unsigned char *p, size_t len, uint64_t off)
{
	while (len > 0) {
		ssize_t done = pwrite(fd, p, MIN(len, (size_t)WRITE_BYTES), (off_t)off);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? -errno : -EIO;
		p += done;
		len -= (size_t)done;
		off += (uint64_t)done;
	}
	return 0;
}

static int write_page(int fd, struct cache_page *pg)
{
	uint64_t off = pg->no * pg->blob->cache->page_size;
	int err;

	checksum_blocks(pg->buf->mem, pg->len, pg->op->sums->crc);
	err = write_all(fd, pg->buf->mem, pg->len, off);
	if (err != 0) {
		/* What was written has no row: give the space back. */
		(void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off,
		    pg->len);
	}
	return err;
}

static int write_pages(struct blob_lane *bl)
{
	struct cache_page *pg = TAILQ_FIRST(&bl->pages);
	struct cache *c = pg->blob->cache;
	int err = 0;

	if (!epoch_mine(c->env.epoch))
		return -ESTALE;
	err = slow_point();
	if (err != 0)
		return err;
	if (bl->fd < 0)
		bl->fd = bl->fd_opened = disk_open(c->dir_fd, pg->blob->key.hash, true);
	if (bl->fd < 0)
		return bl->fd;
	for (; pg != NULL && err == 0; pg = TAILQ_NEXT(pg, lru)) {
		err = epoch_mine(c->env.epoch) ? write_page(bl->fd, pg) : -ESTALE;
		if (err == 0)
			bl->written = TAILQ_NEXT(pg, lru);
	}
	return err;
}

static void write_work(struct pool_job *job)
{
	struct blob_lane *bl = container_of(job, struct blob_lane, job);

	/* Pages before `written` are on disk. */
	bl->written = TAILQ_FIRST(&bl->pages);
	job->result = write_pages(bl);
}

/* --- On the loop */

/* What its buffer takes. */
static uint64_t page_room(const struct cache_page *pg)
{
	return pg->buf->kind == ARENA_SMALL ? ARENA_SMALL_SIZE : pg->blob->cache->page_size;
}

/* The page is not being written any more; err: it did not get to the disk. */
static void page_end(struct cache_page *pg, int err)
{
	struct blob *b = pg->blob;
	struct cache *c = b->cache;

	pg->writing = false;
	c->writing -= page_room(pg);
	if (err == 0) {
		blob_set(b, pg->no);
		pg->op->sums->when = MAX(loop_now(c->env.loop), 1);
		pg->op->sums->ahead = pg->ahead;
		sums_insert(b, pg->no, pg->op->sums);
		b->used = true;
		store_op_add(c, pg->op);
		pg->op = NULL;
	} else {
		c->used -= MIN(c->used, pg->op->bytes);
		store_op_free(&pg->op);
		COUNT(c->env.loop, CACHE_BYPASS, 1);
	}
	page_settle(pg);
	load_kick(c);
}

static void lane_write(struct blob *b, struct blob_lane *bl);

static void write_done(struct pool_job *job)
{
	struct blob_lane *bl = container_of(job, struct blob_lane, job);
	struct cache_page *pg = TAILQ_FIRST(&bl->pages), *written = bl->written;
	struct blob *b = pg->blob;
	struct cache *c = b->cache;
	int err = job->result, done = 0;

	blob_hold(b);
	slow_end(c, &bl->op);
	b->fd_users--;
	if (bl->fd_opened >= 0)
		blob_set_fd(b, bl->fd_opened);
	if (err != 0 && err != -ESTALE) {
		COUNT(c->env.loop, CACHE_WRITE_ERRORS, 1);
		cache_trouble(c, err, "write page");
	}
	while ((pg = TAILQ_FIRST(&bl->pages)) != NULL) {
		if (pg == written)
			done = err;
		TAILQ_REMOVE(&bl->pages, pg, lru);
		page_end(pg, done);
	}
	lane_write(b, bl);
	blob_unhold(&b);
	evict_kick(c);
	cache_job_done(c);
}

/* The next job of the lane, of what has gathered. */
static void lane_write(struct blob *b, struct blob_lane *bl)
{
	struct cache *c = b->cache;
	struct cache_page *pg;
	uint64_t bytes = 0;

	while ((pg = TAILQ_FIRST(&bl->gather)) != NULL && bytes < JOB_BYTES) {
		TAILQ_REMOVE(&bl->gather, pg, lru);
		if (c->state != STORE_OPEN || c->failing) {
			page_end(pg, -ESTALE);
			continue;
		}
		TAILQ_INSERT_TAIL(&bl->pages, pg, lru);
		bytes += pg->len;
	}
	if (TAILQ_EMPTY(&bl->pages))
		return;
	bl->fd = b->fd;
	bl->fd_opened = -1;
	b->fd_users++;
	slow_begin(c, &bl->op);
	cache_job(c, &bl->lane, &bl->job, write_work, write_done);
}

bool disk_may_hold(const struct cache *c, uint64_t bytes)
{
	uint64_t limit = arena_limit(c->arena), rest = READ_MAX + 2 * (uint64_t)c->page_size;

	/* What is left is enough for any read that goes to the storage. */
	return c->writing + c->reading + bytes <= MIN(limit / 4 * 3, limit - MIN(limit, rest));
}

/* Everything a write needs, so that it cannot fail half-way; NULL: bypass. */
static struct index_op *write_prepare(struct cache_page *pg)
{
	struct blob *b = pg->blob;
	struct cache *c = b->cache;
	uint32_t space = blob_page_space(b, pg->no);
	struct index_op *op;

	if (c->state != STORE_OPEN || c->failing || b->load != BLOB_LOADED || b->bypass ||
	    b->adopting ||
	    c->nops >= STORE_OPS_MAX || c->used + space > c->capacity ||
	    !disk_may_hold(c, page_room(pg)) || !epoch_mine(c->env.epoch) || blob_can_set(b) != 0)
		return NULL;
	op = store_op_new(b, INDEX_PUT_PAGE);
	if (op == NULL)
		return NULL;
	op->page = pg->no;
	op->bytes = space;
	op->sums = sums_new(c, (pg->len + BLOCK - 1) / BLOCK);
	if (op->sums == NULL) {
		store_op_free(&op);
		return NULL;
	}
	op->crc = op->sums->crc;
	op->ncrc = op->sums->n;
	return op;
}

void disk_write(struct cache_page *pg)
{
	struct blob *b = pg->blob;
	struct blob_lane *bl = blob_lane(b, pg->no);
	struct cache *c = b->cache;

	if (c->state == STORE_NONE || !pg->hashed || blob_has(b, pg->no))
		return;
	pg->op = write_prepare(pg);
	if (pg->op == NULL) {
		COUNT(c->env.loop, CACHE_BYPASS, 1);
		if (c->slow || !disk_may_hold(c, page_room(pg)))
			COUNT(c->env.loop, CACHE_BEHIND, 1);
		evict_kick(c);
		return;
	}
	c->used += pg->op->bytes;
	c->writing += page_room(pg);
	pg->writing = true;
	TAILQ_INSERT_TAIL(&bl->gather, pg, lru);
	if (TAILQ_EMPTY(&bl->pages))
		lane_write(b, bl);
}

/* --- Holes */

struct disk_hole {
	struct pool_job job;
	struct disk_op op;
	struct blob *blob; /* held */
	uint64_t off;
	uint32_t len;
	int fd, fd_opened;
	bool evict;
};

static void hole_work(struct pool_job *job)
{
	struct disk_hole *dh = container_of(job, struct disk_hole, job);

	job->result = slow_point();
	if (job->result != 0)
		return;
	if (dh->fd < 0)
		dh->fd = dh->fd_opened = disk_open(dh->blob->cache->dir_fd,
		    dh->blob->key.hash, false);
	if (dh->fd < 0)
		job->result = dh->fd;
	else if (fallocate(dh->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)dh->off,
		     dh->len) != 0)
		job->result = -errno;
	else
		job->result = 0;
}

static void hole_done(struct pool_job *job)
{
	struct disk_hole *dh = container_of(job, struct disk_hole, job);
	struct blob *b = dh->blob;
	struct cache *c = b->cache;
	bool evict = dh->evict;

	slow_end(c, &dh->op);
	b->fd_users--;
	if (dh->fd_opened >= 0)
		blob_set_fd(b, dh->fd_opened);
	if (job->result != 0 && job->result != -ENOENT)
		cache_trouble(c, job->result, "punch hole");
	c->used -= MIN(c->used, dh->len);
	if (evict)
		COUNT(c->env.loop, CACHE_EVICTED_BYTES, dh->len);
	free(dh);
	blob_unhold(&b);
	if (evict)
		evict_one_done(c);
	cache_job_done(c);
}

int disk_drop(struct blob *b, uint64_t no, bool evict)
{
	struct cache *c = b->cache;
	struct disk_hole *dh = calloc(1, sizeof(*dh));
	struct index_op *op = store_op_new(b, INDEX_DEL_PAGE);
	struct sums *s = sums_peek(b, no);

	if (dh == NULL || op == NULL) {
		free(dh);
		store_op_free(&op);
		return -ENOMEM;
	}
	blob_clear(b, no);
	if (s != NULL)
		sums_remove(s);
	op->page = no;
	op->bytes = blob_page_space(b, no);
	dh->blob = b;
	dh->off = no * c->page_size;
	dh->len = op->bytes;
	dh->fd = b->fd;
	dh->fd_opened = -1;
	dh->evict = evict;
	store_op_add(c, op);
	b->fd_users++;
	blob_hold(b);
	slow_begin(c, &dh->op);
	cache_job(c, &blob_lane(b, no)->lane, &dh->job, hole_work, hole_done);
	return 0;
}
