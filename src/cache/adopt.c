/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A file beside the page store becomes a blob's file: it is renamed, and its pages get
 * their rows, as if they had been fetched and written.  Nothing is copied; where it cannot
 * be done (another file system, no room, something of the blob is on disk already) it is
 * left undone, and the file to its owner.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/cache_priv.h"

/* More is left to be fetched when it is read. */
#define PAGES_MOST STORE_OPS_MANY
/* The file system's own blocks are counted with the file. */
#define SLACK (64 * KIB)

/* --- In the pool */

static int move(const struct adopt *a)
{
	const struct blob *b = a->blob;
	char name[DISK_NAME_MAX], sub[16];
	int dir = b->cache->dir_fd;

	disk_name(b->key.hash, name);
	if (renameat2(AT_FDCWD, a->path, dir, name, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != ENOENT)
		return -errno;
	snprintf(sub, sizeof(sub), "blobs/%02x", b->key.hash[0]);
	if (mkdirat(dir, sub, 0700) != 0 && errno != EEXIST)
		return -errno;
	return renameat2(AT_FDCWD, a->path, dir, name, RENAME_NOREPLACE) == 0 ? 0 : -errno;
}

static int check_file(int fd, uint64_t size)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != size)
		return -EINVAL;
	/* Space that was reserved behind the end is nobody's any more. */
	if ((uint64_t)st.st_blocks * 512 > size + SLACK && ftruncate(fd, (off_t)size) != 0)
		return -errno;
	return 0;
}

static void adopt_work(struct pool_job *job)
{
	struct adopt *a = container_of(job, struct adopt, job);
	struct blob *b = a->blob;
	struct index_op *op;
	int fd = open(a->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

	job->result = fd < 0 ? -errno : check_file(fd, b->size);
	STAILQ_FOREACH(op, &a->ops, link) {
		if (job->result != 0)
			break;
		job->result = a->sums(a, fd, op->page * b->cache->page_size,
		    blob_page_len(b, op->page), op->sums->crc);
	}
	if (job->result == 0)
		job->result = epoch_mine(b->cache->env.epoch) ? move(a) : -ESTALE;
	if (fd >= 0)
		close(fd);
}

/* --- On the loop */

static void page_adopted(struct blob *b, struct index_op *op)
{
	struct cache *c = b->cache;

	blob_set(b, op->page);
	op->sums->when = MAX(loop_now(c->env.loop), 1);
	sums_insert(b, op->page, op->sums);
	store_op_add(c, op);
}

static void give_up(struct adopt *a, struct index_op *op)
{
	struct cache *c = a->blob->cache;

	c->used -= MIN(c->used, op->bytes);
	store_op_free(&op);
}

static void adopt_done(struct pool_job *job)
{
	struct adopt *a = container_of(job, struct adopt, job);
	struct blob *b = a->blob;
	struct cache *c = b->cache;
	struct index_op *op;

	b->adopting = false;
	if (job->result == 0)
		b->used = true;
	while ((op = STAILQ_FIRST(&a->ops)) != NULL) {
		STAILQ_REMOVE_HEAD(&a->ops, link);
		if (job->result == 0)
			page_adopted(b, op);
		else
			give_up(a, op);
	}
	a->done(a);
	load_kick(c);
	evict_kick(c);
	cache_job_done(c);
}

/* Nothing of it is on disk, or on its way there. */
static bool is_free(const struct blob *b)
{
	if (b->load != BLOB_LOADED || b->bypass || b->adopting || b->npresent > 0 || b->fd >= 0)
		return false;
	for (unsigned i = 0; i < BLOB_LANES; i++)
		if (!TAILQ_EMPTY(&b->lane[i].pages) || !TAILQ_EMPTY(&b->lane[i].gather))
			return false;
	return true;
}

static bool has_room(const struct cache *c, const struct blob *b)
{
	uint64_t space = (b->size + BLOCK - 1) & ~(uint64_t)(BLOCK - 1);

	return b->npages <= PAGES_MOST && c->nops + b->npages <= STORE_OPS_MAX &&
	       space <= c->capacity && c->used <= c->capacity - space;
}

static int add_page(struct adopt *a, uint64_t no)
{
	struct blob *b = a->blob;
	struct cache *c = b->cache;
	struct index_op *op = store_op_new(b, INDEX_PUT_PAGE);

	if (op == NULL)
		return -ENOMEM;
	op->page = no;
	op->bytes = blob_page_space(b, no);
	op->sums = sums_new(c, (blob_page_len(b, no) + BLOCK - 1) / BLOCK);
	if (op->sums == NULL) {
		store_op_free(&op);
		return -ENOMEM;
	}
	op->crc = op->sums->crc;
	op->ncrc = op->sums->n;
	c->used += op->bytes;
	STAILQ_INSERT_TAIL(&a->ops, op, link);
	return 0;
}

/* Everything it needs, so that it cannot fail half-way. */
static int prepare(struct adopt *a)
{
	struct blob *b = a->blob;
	struct index_op *op;
	int err = blob_can_set(b);

	for (uint64_t no = 0; no < b->npages && err == 0; no++)
		err = add_page(a, no);
	while (err != 0 && (op = STAILQ_FIRST(&a->ops)) != NULL) {
		STAILQ_REMOVE_HEAD(&a->ops, link);
		give_up(a, op);
	}
	return err;
}

static void begin(struct adopt *a)
{
	struct blob *b = a->blob;
	struct cache *c = b->cache;

	if (c->state == STORE_OPEN && !c->failing && is_free(b) && has_room(c, b) &&
	    epoch_mine(c->env.epoch) && prepare(a) == 0) {
		b->adopting = true;
		cache_job(c, NULL, &a->job, adopt_work, adopt_done);
		return;
	}
	a->done(a);
	evict_kick(c);
}

static void loaded_work(struct pool_job *job)
{
	job->result = 0;
}

static void loaded_done(struct pool_job *job)
{
	struct adopt *a = container_of(job, struct adopt, job);
	struct cache *c = a->blob->cache;

	begin(a);
	cache_job_done(c);
}

void adopt_start(struct adopt *a)
{
	struct blob *b = a->blob;
	struct cache *c = b->cache;

	STAILQ_INIT(&a->ops);
	if (c->state == STORE_OPEN && b->load == BLOB_UNLOADED)
		store_load(b);
	/* Its rows come by the same lane, before this. */
	if (c->state == STORE_OPEN && b->load == BLOB_LOADING)
		cache_job(c, &c->index_lane, &a->job, loaded_work, loaded_done);
	else
		begin(a);
}
