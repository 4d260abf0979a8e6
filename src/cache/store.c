/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The loop's side of the index: opening and closing, loading a blob's rows, and
 * the batch of changes that goes to disk every so often.  A blob lives as long as
 * the batch has something of it, so rows and live blobs never disagree.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cache/cache_priv.h"

/* Two breaks of the index that are further apart have nothing to do with each other. */
#define BREAK_APART (600 * NS_PER_S)
/* So many, and it begins afresh. */
#define BREAKS_MAX 2

/* --- Ops */

struct index_op *store_op_new(struct blob *b, enum index_verb verb)
{
	struct index_op *op = calloc(1, sizeof(*op));

	if (op == NULL)
		return NULL;
	op->verb = verb;
	if (b != NULL) {
		op->blob = b;
		op->key = b->key;
		op->when = loop_wall(b->cache->env.loop);
		blob_hold(b);
	}
	return op;
}

void store_op_free(struct index_op **opp)
{
	struct index_op *op = *opp;

	*opp = NULL;
	if (op == NULL)
		return;
	sums_put(&op->sums);
	if (op->blob != NULL)
		blob_unhold(&op->blob);
	free(op);
}

void store_op_add(struct cache *c, struct index_op *op)
{
	STAILQ_INSERT_TAIL(&c->ops, op, link);
	c->nops++;
	if (c->state != STORE_OPEN || c->flushing || c->settling)
		return;
	if (c->nops >= STORE_OPS_MANY)
		store_flush(c);
	else if (!timer_armed(&c->sync))
		timer_arm(&c->sync, c->env.cfg->page_store_sync_period);
}

static void ops_free(struct index_ops *ops)
{
	struct index_op *op;

	while ((op = STAILQ_FIRST(ops)) != NULL) {
		STAILQ_REMOVE_HEAD(ops, link);
		store_op_free(&op);
	}
}

static void flush_work(struct pool_job *job)
{
	struct cache *c = container_of(job, struct cache, flush_job);
	char name[DISK_NAME_MAX];
	struct index_op *op;

	job->result = index_apply(c->index, &c->flush_ops);
	if (job->result != 0)
		return;
	STAILQ_FOREACH(op, &c->flush_ops, link) {
		if (op->verb != INDEX_DEL_BLOB)
			continue;
		disk_name(op->key.hash, name);
		(void)unlinkat(c->dir_fd, name, 0); /* the scrub finds what stays */
	}
}

static void settle_run(struct deferred *d)
{
	struct cache *c = container_of(d, struct cache, settle_run);
	void (*settled)(void *arg) = c->settled;

	c->settled = NULL;
	if (settled != NULL)
		settled(c->settled_arg);
}

/* Opening may have the tail of a hand-over to make durable: a commit too. */
void store_settle_check(struct cache *c)
{
	/* With a disk that does not answer the close would not come to its end. */
	if (c->settled != NULL && !c->flushing && c->state != STORE_OPENING && !c->slow)
		loop_defer(c->env.loop, &c->settle_run, settle_run);
}

static void flush_done(struct pool_job *job)
{
	struct cache *c = container_of(job, struct cache, flush_job);
	unsigned evicted = 0;
	struct index_op *op;

	c->flushing = false;
	store_settle_check(c);
	STAILQ_FOREACH(op, &c->flush_ops, link) {
		if (op->verb != INDEX_DEL_BLOB)
			continue;
		evicted++;
		if (job->result == 0) {
			c->used -= MIN(c->used, op->freed);
			COUNT(c->env.loop, CACHE_EVICTED_BYTES, op->freed);
		}
	}
	if (job->result != 0 && job->result != -ESTALE)
		cache_trouble(c, job->result, "write index");
	ops_free(&c->flush_ops);
	if (c->flush_again || c->nops >= STORE_OPS_MANY)
		store_flush(c);
	else if (!STAILQ_EMPTY(&c->ops) && !timer_armed(&c->sync) && c->state == STORE_OPEN &&
		 !c->settling)
		timer_arm(&c->sync, c->env.cfg->page_store_sync_period);
	while (evicted-- > 0)
		evict_one_done(c);
	cache_job_done(c);
}

void store_flush(struct cache *c)
{
	c->flush_again = c->flushing;
	if (c->flushing || c->settling || STAILQ_EMPTY(&c->ops) || c->state != STORE_OPEN)
		return;
	timer_cancel(&c->sync);
	c->flushing = true;
	STAILQ_CONCAT(&c->flush_ops, &c->ops);
	c->nops = 0;
	cache_job(c, &c->index_lane, &c->flush_job, flush_work, flush_done);
}

void store_sync_timer(struct timer *t)
{
	store_flush(container_of(t, struct cache, sync));
}

/* --- A blob's rows */

struct store_load {
	struct pool_job job;
	struct disk_op op;
	struct blob *blob; /* held */
	uint64_t *present, bytes;
	struct sums_rows *rows;
};

static void load_work(struct pool_job *job)
{
	struct store_load *ld = container_of(job, struct store_load, job);
	struct blob *b = ld->blob;
	struct cache *c = b->cache;

	job->result = slow_point();
	if (job->result == 0)
		job->result = index_load(c->index, &b->key, b->npages, ld->present, &ld->bytes);
	if (job->result == 0)
		job->result = index_rows(c->index, b->key.hash, 0, SUMS_ROWS, sums_rows_add,
		    ld->rows);
}

void store_resume_loading(struct blob *b)
{
	struct read_list list = TAILQ_HEAD_INITIALIZER(list);
	struct cache_read *r;

	TAILQ_CONCAT(&list, &b->loading, link);
	while ((r = TAILQ_FIRST(&list)) != NULL) {
		TAILQ_REMOVE(&list, r, link);
		read_resume(r);
	}
}

static void load_done(struct pool_job *job)
{
	struct store_load *ld = container_of(job, struct store_load, job);
	struct blob *b = ld->blob;
	struct cache *c = b->cache;

	slow_end(c, &ld->op);
	b->load = BLOB_LOADED;
	/* Another file has these rows, or nobody can read them: leave them alone. */
	b->bypass = job->result != 0 && job->result != -ENOENT;
	if (job->result == 0) {
		b->present = ld->present;
		ld->present = NULL;
		for (uint64_t i = 0; i <= b->npages / 64; i++)
			b->npresent += (uint64_t)__builtin_popcountll(b->present[i]);
	}
	sums_rows_take(&ld->rows, b);
	free(ld->present);
	free(ld);
	store_resume_loading(b);
	read_memory_freed(c); /* readahead waits for the load too */
	blob_unhold(&b);
	cache_job_done(c);
}

void store_load(struct blob *b)
{
	struct cache *c = b->cache;
	struct store_load *ld;

	if (b->load != BLOB_UNLOADED || c->state != STORE_OPEN)
		return;
	ld = calloc(1, sizeof(*ld));
	if (ld != NULL) {
		ld->present = calloc(b->npages / 64 + 1, sizeof(*ld->present));
		ld->rows = calloc(1, sizeof(*ld->rows));
	}
	if (ld == NULL || ld->present == NULL || ld->rows == NULL) {
		if (ld != NULL) {
			free(ld->present);
			free(ld->rows);
			free(ld);
		}
		b->load = BLOB_LOADED;
		b->bypass = true;
		store_resume_loading(b);
		return;
	}
	ld->rows->cache = c;
	ld->rows->npages = b->npages;
	ld->blob = b;
	blob_hold(b);
	b->load = BLOB_LOADING;
	slow_begin(c, &ld->op);
	cache_job(c, &c->index_lane, &ld->job, load_work, load_done);
}

/* --- Opening */

static void open_work(struct pool_job *job)
{
	struct cache *c = container_of(job, struct cache, index_job);

	int fd = c->dir_fd;

	(void)slow_point();
	c->index_set.s[0] = '\0';
	c->index_why.s[0] = '\0';
	if (c->gone || dir_is_gone(c)) {
		job->result = dir_again(c, &c->index_et);
		if (job->result != 0)
			return;
		fd = c->new_dir_fd;
	}
	if (c->breaks >= BREAKS_MAX && index_set_aside(fd) == 0)
		errtext_set(&c->index_set, 0, "it broke %u times", c->breaks);
	job->result = index_open(&c->index, c->dir, fd, c->capacity, c->page_size,
	    c->env.epoch, &c->index_why, &c->index_et);
	if (job->result == 0 && fd == c->dir_fd)
		dir_write_pid(c->lock_fd);
}

/* Whatever waits for the index looks again.  Reads may end blobs, so each is held. */
static void resume_all(struct cache *c)
{
	struct blob *b, *next;

	for (b = c->blobs; b != NULL; b = next) {
		blob_hold(b);
		if (c->state == STORE_OPEN && (b->users > 0 || !TAILQ_EMPTY(&b->loading)))
			store_load(b);
		if (!store_wait(c) && b->load != BLOB_LOADING)
			store_resume_loading(b);
		next = b->hh.next;
		blob_unhold(&b);
	}
	read_memory_freed(c);
}

static void open_done(struct pool_job *job)
{
	struct cache *c = container_of(job, struct cache, index_job);
	bool closing = c->state == STORE_CLOSING;

	slow_end(c, &c->open_op);
	c->slow = false;
	dir_swap(c);
	if (c->index_set.s[0] != '\0')
		c->breaks = 0;
	if (c->index_why.s[0] != '\0' || c->index_set.s[0] != '\0')
		log_warn("page store %s: index set aside and begun afresh: %s", c->dir,
		    c->index_why.s[0] != '\0' ? c->index_why.s : c->index_set.s);
	if (job->result == 0)
		c->used = index_used(c->index);
	else
		cache_note(c, job->result, "%s", c->index_et.s[0] != '\0' ? c->index_et.s
							      : strerror(-job->result));
	if (!closing && job->result == 0) {
		c->state = STORE_OPEN;
		cache_well(c);
		scrub_start(c);
	} else if (!closing) {
		c->state = STORE_FAILED;
		cache_retry_later(c);
	}
	resume_all(c);
	evict_kick(c);
	store_settle_check(c);
	cache_job_done(c);
}

static void open_submit(struct cache *c)
{
	slow_begin(c, &c->open_op);
	cache_job(c, &c->index_lane, &c->index_job, open_work, open_done);
}

void cache_index_open(struct cache *c)
{
	struct blob *b;

	CHECK_OBJ(c, CACHE_MAGIC);
	if (c->state != STORE_CLOSED && c->state != STORE_FAILED)
		return;
	timer_cancel(&c->retry);
	c->state = STORE_OPENING;
	c->index_et.s[0] = '\0';
	/* Somebody else may have had the directory meanwhile. */
	for (b = c->blobs; b != NULL; b = b->hh.next)
		blob_forget_disk(b);
	if (c->starting != NULL)
		return; /* store_dir_started() goes on */
	c->failing = c->slow = false;
	open_submit(c);
}

void store_dir_started(struct cache *c, int err, const char *words)
{
	bool opening = c->state == STORE_OPENING;

	if (err != 0) {
		c->gone = true; /* to be opened anew */
		c->slow = false;
		cache_note(c, err, "%s", words);
		if (opening) {
			c->state = STORE_FAILED;
			cache_retry_later(c);
			resume_all(c);
		}
	} else if (opening) {
		open_submit(c);
	}
}

/* --- Closing */

static void close_work(struct pool_job *job)
{
	struct cache *c = container_of(job, struct cache, index_job);

	job->result = 0;
	if (c->index != NULL && !c->gone && epoch_mine(c->env.epoch) && !STAILQ_EMPTY(&c->ops)) {
		job->result = -EAGAIN;
		if (!c->close_sync)
			job->result = index_leave(c->dir_fd, &c->ops);
		if (job->result != 0)
			job->result = index_apply(c->index, &c->ops);
	}
	index_close(&c->index);
}

static void close_done(struct pool_job *job)
{
	struct cache *c = container_of(job, struct cache, index_job);
	struct blob *b, *next;
	unsigned evicted = 0;
	struct index_op *op;
	bool reopen;

	c->jobs--;
	c->flush_again = false;
	/* Their rows are gone, their files are left to the next start's scrub. */
	STAILQ_FOREACH(op, &c->ops, link)
		evicted += op->verb == INDEX_DEL_BLOB;
	while (evicted-- > 0)
		evict_one_done(c);
	if (job->result != 0)
		log_warn("page store %s: last changes of the index are lost: %s", c->dir,
		    strerror(-job->result));
	ops_free(&c->ops);
	c->nops = 0;
	for (b = TAILQ_FIRST(&c->files); b != NULL; b = next) {
		next = TAILQ_NEXT(b, file_link);
		blob_set_fd(b, -1);
	}
	reopen = (c->gone || c->reopen) && c->closed == NULL;
	c->reopen = false;
	if (reopen) {
		c->state = STORE_FAILED;
		c->used = 0;
		for (b = c->blobs; b != NULL; b = b->hh.next)
			blob_forget_disk(b);
		cache_retry_later(c);
		store_settle_check(c);
		return;
	}
	c->state = STORE_CLOSED;
	loop_defer(c->env.loop, &c->close_run, store_run_closed);
}

static void leave(struct cache *c)
{
	assert(c->state == STORE_OPEN);
	c->state = STORE_CLOSING;
	timer_cancel(&c->sync);
	timer_cancel(&c->retry);
	load_kick(c);
	resume_all(c);
	store_check_closed(c); /* also at the end of the last job */
}

void store_gone(struct cache *c)
{
	c->gone = true;
	leave(c);
}

void store_check_broken(struct cache *c)
{
	if (c->state != STORE_OPEN || !index_broken(c->index))
		return;
	/* Trouble that is over for a while is no reason to think badly of the file. */
	if (loop_now(c->env.loop) - c->broke > BREAK_APART)
		c->breaks = 0;
	c->breaks++;
	c->broke = loop_now(c->env.loop);
	c->reopen = true;
	c->failing = true;
	c->close_sync = false;
	cache_note(c, -EIO, "page store %s: the index cannot be read or written", c->dir);
	leave(c);
}

void store_check_closed(struct cache *c)
{
	if (c->state == STORE_CLOSING && c->jobs == 0)
		cache_job(c, &c->index_lane, &c->index_job, close_work, close_done);
}

void store_run_closed(struct deferred *d)
{
	struct cache *c = container_of(d, struct cache, close_run);
	void (*closed)(void *arg) = c->closed;

	c->closed = NULL;
	if (closed != NULL)
		closed(c->closed_arg);
}

void cache_index_close(struct cache *c, bool sync, void (*done)(void *arg), void *arg)
{
	CHECK_OBJ(c, CACHE_MAGIC);
	assert(c->closed == NULL && (c->state != STORE_CLOSING || c->gone || c->reopen));
	c->closed = done;
	c->closed_arg = arg;
	c->close_sync = sync;
	c->settling = false;
	c->settled = NULL;
	loop_undefer(c->env.loop, &c->settle_run);
	timer_cancel(&c->sync);
	timer_cancel(&c->retry);
	load_kick(c);
	if (c->state == STORE_CLOSING)
		return; /* on its way */
	if (c->state == STORE_OPEN || c->state == STORE_OPENING) {
		c->state = STORE_CLOSING;
		resume_all(c);
		store_check_closed(c);
		return;
	}
	if (c->state == STORE_FAILED)
		c->state = STORE_CLOSED;
	loop_defer(c->env.loop, &c->close_run, store_run_closed);
}

void cache_index_unclose(struct cache *c)
{
	CHECK_OBJ(c, CACHE_MAGIC);
	assert(c->closed != NULL);
	c->closed = NULL;
	loop_undefer(c->env.loop, &c->close_run);
	if (c->state == STORE_CLOSED) {
		cache_index_open(c);
		return;
	}
	c->reopen = c->failing = true;
	cache_note(c, -ETIMEDOUT, "page store %s: the disk takes too long to answer", c->dir);
	resume_all(c);
}

void cache_index_settle(struct cache *c, void (*done)(void *arg), void *arg)
{
	CHECK_OBJ(c, CACHE_MAGIC);
	c->settling = true;
	c->settled = done;
	c->settled_arg = arg;
	timer_cancel(&c->sync);
	store_settle_check(c);
}

void cache_index_unsettle(struct cache *c)
{
	CHECK_OBJ(c, CACHE_MAGIC);
	if (!c->settling)
		return;
	c->settling = false;
	c->settled = NULL;
	loop_undefer(c->env.loop, &c->settle_run);
	store_flush(c);
}
