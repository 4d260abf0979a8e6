/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Page files: DIR/blobs/xx/<hash>, sparse, each page at its own place.
 * Descriptors: a job gets the blob's or opens one, which its blob then keeps.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checksum.h"
#include "cache/cache_priv.h"

void disk_name(const unsigned char *hash, char name[DISK_NAME_MAX])
{
	int n = snprintf(name, DISK_NAME_MAX, "blobs/%02x/", hash[0]);

	for (int i = 0; i < INDEX_HASH; i++)
		n += snprintf(name + n, (size_t)(DISK_NAME_MAX - n), "%02x", hash[i]);
}

int disk_open(int dir_fd, const unsigned char *hash, bool create)
{
	char name[DISK_NAME_MAX], sub[16];
	int flags = O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0);
	int fd;

	disk_name(hash, name);
	fd = openat(dir_fd, name, flags, 0600);
	if (fd < 0 && errno == ENOENT && create) {
		snprintf(sub, sizeof(sub), "blobs/%02x", hash[0]);
		if (mkdirat(dir_fd, sub, 0700) != 0 && errno != EEXIST)
			return -errno;
		fd = openat(dir_fd, name, flags, 0600);
	}
	return fd < 0 ? -errno : fd;
}

/* --- A span, read and checked */

static uint64_t page_start(const struct disk_span *sp, unsigned i)
{
	return MAX(sp->base, (sp->first + i) * sp->page_size);
}

static uint64_t page_end(const struct disk_span *sp, unsigned i)
{
	return MIN(sp->end, (sp->first + i + 1) * sp->page_size);
}

static bool all_zero(const unsigned char *p, size_t len)
{
	return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

static void verify_page(struct disk_span *sp, unsigned i)
{
	uint64_t start = page_start(sp, i), len = page_end(sp, i) - start;
	uint64_t block = (start - (sp->first + i) * sp->page_size) / BLOCK;
	const struct sums *s = sp->sums[i];
	const unsigned char *p = sp->mem + (start - sp->base);

	if (s != NULL && block + (len + BLOCK - 1) / BLOCK <= s->n &&
	    checksum_verify(p, len, s->crc + block) < 0)
		return;
	sp->bad |= UINT32_C(1) << i;
	if (all_zero(p, len))
		sp->hole |= UINT32_C(1) << i;
}

/* Bytes read from `start` on, fewer at the end of the file; negative errno. */
static ssize_t pread_full(int fd, unsigned char *mem, uint64_t start, size_t len, int flags)
{
	size_t got = 0;

	while (got < len) {
		struct iovec iov = {mem + got, len - got};
		ssize_t n = preadv2(fd, &iov, 1, (off_t)(start + got), flags);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0 || (flags & RWF_NOWAIT))
			return (ssize_t)got + n;
		got += (size_t)n;
	}
	return (ssize_t)got;
}

int disk_span_read(struct disk_span *sp, int flags)
{
	for (unsigned i = 0, j; i < 32 && sp->want >> i != 0; i = j) {
		uint64_t start, len;
		ssize_t n;

		j = i + 1;
		if (!(sp->want >> i & 1))
			continue;
		while (j < 32 && (sp->want >> j & 1))
			j++;
		start = page_start(sp, i);
		len = page_end(sp, j - 1) - start;
		n = pread_full(sp->fd, sp->mem + (start - sp->base), start, len, flags);
		if (n != (ssize_t)len && (flags & RWF_NOWAIT))
			return -EAGAIN;
		if (n < 0)
			sp->err = (int)n;
		/* What the file lacks is not there; zeros never pass the check. */
		if (n < (ssize_t)len)
			memset(sp->mem + (start - sp->base) + MAX(n, 0), 0,
			    len - (size_t)MAX(n, 0));
		for (unsigned k = i; k < j; k++)
			verify_page(sp, k);
	}
	return 0;
}

/* --- Reading in the pool */

static void rows_work(struct pool_job *job)
{
	struct disk_read *dr = container_of(job, struct disk_read, job);
	struct blob *b = dr->blob;

	job->result = slow_point();
	if (job->result == 0)
		job->result = index_rows(b->cache->index, b->key.hash, dr->span.first, SUMS_ROWS,
		    sums_rows_add, dr->rows);
}

static void read_work(struct pool_job *job)
{
	struct disk_read *dr = container_of(job, struct disk_read, job);
	struct blob *b = dr->blob;
	int err = slow_point();

	if (err != 0) {
		dr->span.bad = dr->span.hole = dr->span.want;
		dr->span.err = err;
		return;
	}
	if (dr->span.fd < 0) {
		dr->fd_opened = disk_open(b->cache->dir_fd, b->key.hash, false);
		dr->span.fd = dr->fd_opened;
	}
	if (dr->span.fd < 0) {
		dr->span.bad = dr->span.hole = dr->span.want;
		/* A file that is gone takes its pages with it, no more. */
		dr->span.err = dr->span.fd != -ENOENT ? dr->span.fd : 0;
	} else {
		disk_span_read(&dr->span, 0);
	}
}

static void read_free(struct disk_read *dr)
{
	struct blob *b = dr->blob;
	struct cache *c = b->cache;

	for (unsigned i = 0; i < CACHE_READ_IOV; i++)
		sums_put(&dr->span.sums[i]);
	slow_end(c, &dr->op);
	c->reading -= dr->bytes;
	read_memory_freed(c);
	TAILQ_REMOVE(&b->reading, dr, link);
	free(dr->rows);
	if (dr->read == NULL)
		arena_put(c->arena, &dr->io);
	free(dr);
	blob_unhold(&b);
}

static void read_finish(struct disk_read *dr, int err)
{
	struct cache_read *r = dr->read;
	struct cache *c = dr->blob->cache;
	struct blob *b = dr->blob;
	uint32_t bad = dr->span.bad, hole = dr->span.hole;
	uint64_t first = dr->span.first;

	blob_hold(b);
	read_free(dr);
	for (unsigned i = 0; i < CACHE_READ_IOV; i++) {
		if (!(bad >> i & 1) || !blob_has(b, first + i))
			continue;
		if (!(hole >> i & 1)) {
			COUNT(c->env.loop, CACHE_CHECKSUM_ERRORS, 1);
			log_warn("page store %s: page %llu of %s is damaged, fetching it again",
			    c->dir, (unsigned long long)(first + i), b->path);
		}
		/* Should memory lack, it stays and is found bad again. */
		(void)disk_drop(b, first + i, false);
	}
	if (r != NULL)
		read_disk_done(r, err, bad);
	blob_unhold(&b);
	cache_job_done(c);
}

static void read_done(struct pool_job *job)
{
	struct disk_read *dr = container_of(job, struct disk_read, job);
	struct blob *b = dr->blob;

	b->fd_users--;
	if (dr->fd_opened >= 0)
		blob_set_fd(b, dr->fd_opened);
	blob_use_fd(b);
	if (dr->span.err != 0) {
		COUNT(b->cache->env.loop, CACHE_READ_ERRORS, 1);
		cache_trouble(b->cache, dr->span.err, "read page");
	}
	read_finish(dr, 0);
}

/* False: a page has no row. */
static bool find_sums(struct disk_read *dr)
{
	bool all = true;

	for (unsigned i = 0; i < CACHE_READ_IOV; i++) {
		struct sums *s;

		if (!(dr->span.want >> i & 1))
			continue;
		s = sums_find(dr->blob, dr->span.first + i);
		if (dr->span.sums[i] != NULL)
			continue;
		if (s != NULL)
			s->refs++;
		else
			all = false;
		dr->span.sums[i] = s;
	}
	return all;
}

static void read_submit(struct disk_read *dr)
{
	struct blob *b = dr->blob;

	dr->fd_opened = -1;
	dr->span.fd = b->fd;
	b->fd_users++;
	cache_job(b->cache, NULL, &dr->job, read_work, read_done);
}

static void rows_done(struct pool_job *job)
{
	struct disk_read *dr = container_of(job, struct disk_read, job);
	struct cache *c = dr->blob->cache;

	/* Straight from the rows: the cache of sums may be too small for them all. */
	for (unsigned i = 0; i < dr->rows->n; i++) {
		struct sums *s = dr->rows->row[i];
		uint64_t slot = s->no - dr->span.first;

		if (slot < CACHE_READ_IOV && (dr->span.want >> slot & 1) &&
		    dr->span.sums[slot] == NULL) {
			s->refs++;
			dr->span.sums[slot] = s;
		}
	}
	sums_rows_take(&dr->rows, dr->blob);
	if (dr->read == NULL || c->state != STORE_OPEN) {
		read_finish(dr, -ECANCELED);
		return;
	}
	if (!find_sums(dr)) {
		/* Without a row the page counts as lost. */
		for (unsigned i = 0; i < CACHE_READ_IOV; i++) {
			if ((dr->span.want >> i & 1) && dr->span.sums[i] == NULL)
				dr->span.bad |= UINT32_C(1) << i;
		}
		dr->span.hole = dr->span.bad;
		read_finish(dr, 0);
		return;
	}
	read_submit(dr);
	cache_job_done(c);
}

int disk_read_start(struct cache_read *r)
{
	struct blob *b = r->blob;
	struct arena_buf *io = r->priv;
	struct disk_read *dr = calloc(1, sizeof(*dr));

	if (dr == NULL)
		return -ENOMEM;
	dr->span.base = r->off & ~(uint64_t)(BLOCK - 1);
	dr->span.end = MIN((r->off + r->len + BLOCK - 1) & ~(uint64_t)(BLOCK - 1), b->size);
	dr->span.first = r->off / b->cache->page_size;
	dr->span.page_size = b->cache->page_size;
	dr->span.want = r->disk;
	dr->span.mem = io->mem;
	dr->blob = b;
	if (!find_sums(dr)) {
		dr->rows = calloc(1, sizeof(*dr->rows));
		if (dr->rows == NULL) {
			for (unsigned i = 0; i < CACHE_READ_IOV; i++)
				sums_put(&dr->span.sums[i]);
			free(dr);
			return -ENOMEM;
		}
		dr->rows->cache = b->cache;
		dr->rows->npages = b->npages;
	}
	blob_hold(b);
	TAILQ_INSERT_TAIL(&b->reading, dr, link);
	dr->read = r;
	dr->io = io;
	dr->bytes = read_io_size(r);
	b->cache->reading += dr->bytes;
	slow_begin(b->cache, &dr->op);
	r->job = dr;
	if (dr->rows != NULL)
		cache_job(b->cache, &b->cache->index_lane, &dr->job, rows_work, rows_done);
	else
		read_submit(dr);
	return 0;
}

void disk_read_orphan(struct cache_read *r)
{
	/* The pool writes into the buffer: it stays with the job. */
	r->job->read = NULL;
	r->job = NULL;
	r->priv = NULL;
}

bool disk_being_read(const struct blob *b, uint64_t no)
{
	const struct disk_read *dr;

	TAILQ_FOREACH(dr, &b->reading, link) {
		if (no >= dr->span.first && no < dr->span.first + CACHE_READ_IOV &&
		    (dr->span.want >> (no - dr->span.first) & 1))
			return true;
	}
	return false;
}
