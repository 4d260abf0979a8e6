/* SPDX-License-Identifier: BSD-2-Clause */
/* Durable staged files: what of them is safe, their room, and how they come and go. */
#include <errno.h>
#include <endian.h>
#include <string.h>

#include "base/log.h"
#include "base/options.h"
#include "cache/staged_priv.h"

void staged_durable(const struct staged *sf, struct staged_durable *out)
{
	CHECK_OBJ(sf, STAGED_MAGIC);
	*out = sf->safe;
}

bool staged_rewritten(const struct staged *sf)
{
	CHECK_OBJ(sf, STAGED_MAGIC);
	return sf->rewritten;
}

bool staged_rewrites(const struct staged *sf, uint64_t off)
{
	CHECK_OBJ(sf, STAGED_MAGIC);
	return sf->durable && !sf->rewritten && off < sf->told;
}

void durable_changes(struct staged *sf, uint64_t off)
{
	sf->rewritten |= sf->durable && off < sf->told;
}

/* --- Room */

/* Bytes of [off, end) that are not pinned yet. */
static uint64_t fresh(const struct staged *sf, uint64_t off, uint64_t end)
{
	struct ext *x = map_find(&sf->map, off);
	uint64_t n = end - off;

	for (; x != NULL && x->start < end; x = map_next(x))
		if (ext_kind(sf, x) != STAGED_CLEAN)
			n -= MIN(x->end, end) - MAX(x->start, off);
	return n;
}

int durable_reserve(struct staged_io *io)
{
	const struct config *cfg = io->sf->st->env.cfg;
	uint64_t limit = (uint64_t)(cfg->pinned_ratio * (double)cfg->page_store_size);
	struct staging *st = io->sf->st;
	uint64_t used = st->pinned + st->reserved + st->parked, n;

	if (io->kind != IO_ALLOCATE)
		durable_changes(io->sf, io->off);
	if (io->kind == IO_ZERO)
		return 0;
	n = fresh(io->sf, io->off, io->off + io->len);
	if (n > 0 && (used > limit || n > limit - used))
		return -ENOSPC;
	if (io->kind == IO_WRITE) {
		io->pos = n;
		st->reserved += n;
	}
	return 0;
}

void staging_parked(struct staging *st, uint64_t bytes)
{
	CHECK_OBJ(st, STAGING_MAGIC);
	st->parked = bytes;
}

/* --- What the pool has done */

static void data_work(struct pool_job *job)
{
	job->result = sums_sync_data(container_of(job, struct staged_io, job)->sf);
}

static void sums_work(struct pool_job *job)
{
	job->result = sums_sync_sums(container_of(job, struct staged, sync_job[0]));
}

static void dir_work(struct pool_job *job)
{
	job->result = sums_sync_dir(container_of(job, struct staged, sync_job[1]));
}

/* What was said to have failed once is gone, whatever a later sync says. */
static void one_synced(struct staged *sf, int err)
{
	struct staged_io *io = sf->sync_io;

	if (err != 0 && sf->broken == 0)
		sf->broken = err;
	if (--sf->sync_left > 0)
		return;
	sf->new_name &= sf->broken != 0;
	sf->sync_io = NULL;
	io->job.result = sf->broken;
	sf->sync_done(&io->job);
}

static void data_done(struct pool_job *job)
{
	one_synced(container_of(job, struct staged_io, job)->sf, job->result);
}

static void sums_done(struct pool_job *job)
{
	one_synced(container_of(job, struct staged, sync_job[0]), job->result);
}

static void dir_done(struct pool_job *job)
{
	one_synced(container_of(job, struct staged, sync_job[1]), job->result);
}

bool durable_sync_rest(struct staged_io *io, int err, void (*done)(struct pool_job *job))
{
	struct staged *sf = io->sf;

	if (!sf->durable || err != 0 || !sf->sync_due)
		return false;
	sf->sync_due = false;
	sf->sync_io = io;
	sf->sync_done = done;
	sf->sync_left = sf->new_name ? 3 : 2;
	pool_submit(sf->pool, NULL, &io->job, data_work, data_done);
	pool_submit(sf->pool, NULL, &sf->sync_job[0], sums_work, sums_done);
	if (sf->new_name)
		pool_submit(sf->pool, NULL, &sf->sync_job[1], dir_work, dir_done);
	return true;
}

static int synced(struct staged *sf, int err)
{
	struct staged_durable safe = sf->safe;
	int rc;

	if (err == 0) {
		sf->safe = sf->syncing;
		sf->st->dirs_safe |= sf->dirs_safe;
	}
	rc = staged_rows_head(sf);
	if (err == 0 && rc != 0) {
		sf->safe = safe;
		err = rc;
	}
	if (err == 0) {
		sf->told = sf->safe.size;
		sf->rewritten = false;
	}
	return err;
}

int durable_ended(struct staged_io *io, int err)
{
	struct staged *sf = io->sf;
	struct staging *st = sf->st;

	if (io->kind == IO_WRITE)
		st->reserved -= io->pos;
	if (err == -EBADMSG) {
		st->mismatches++;
		COUNT(st->env.loop, STAGED_CHECKSUM_ERRORS, 1);
		log_error("staged file %s: the %u bytes at %llu are not those that were written: "
			  "their checksum does not match",
		    sf->path, STAGED_BLOCK, (unsigned long long)sf->bad_off);
	}
	return io->kind == IO_SYNC ? synced(sf, err) : err;
}

/* --- Coming and going */

static int from_record(struct staged *sf, const struct staged_durable *dur, const void *inl,
    size_t inl_len, bool rewriting)
{
	int err = map_reserve(&sf->map);

	if (err != 0)
		return err;
	if (dur->size > INT64_MAX || (inl != NULL && inl_len != dur->size) ||
	    (inl != NULL && inl_len > STAGED_INLINE_MAX))
		return -EPROTO;
	if (inl != NULL && inl_len > 0) {
		sf->inl = malloc(inl_len);
		if (sf->inl == NULL)
			return -ENOMEM;
		memcpy(sf->inl, inl, inl_len);
		sf->inl_len = inl_len;
		/* There may be no files; and a successor does not look at the record. */
		hold_begin(sf);
	}
	sf->size = sf->told = sf->early_from = sf->early_to = dur->size;
	sf->safe = *dur;
	sf->changed = 1;
	sf->gen = 2;
	sf->verify = true;
	sf->rewriting = rewriting;
	sf->prep = PREP_RESTORE;
	if (sf->size > 0) {
		map_insert(&sf->map, 0, sf->size, 1);
		ext_account(sf, map_first(&sf->map), 0, sf->size, true);
	}
	/* Rows of extents that it had before it was parked may not be gone yet. */
	return staged_rows_write(sf);
}

int staged_restore(struct staging *st, uint64_t id, const struct staged_durable *dur,
    const void *inl, size_t inl_len, bool rewriting, struct staged **out)
{
	struct staged *sf;
	int err;

	CHECK_OBJ(st, STAGING_MAGIC);
	*out = NULL;
	if (!durable_id(id))
		return -EINVAL;
	sf = sf_new(st, id, NULL);
	if (sf == NULL)
		return -ENOMEM;
	err = sf_load(sf);
	if (err == -ENOENT)
		err = from_record(sf, dur, inl, inl_len, rewriting);
	if (err != 0) {
		staged_close(&sf);
		return err;
	}
	st->parked -= MIN(st->parked, sf->dirty_bytes + sf->sending_bytes);
	*out = sf;
	return 0;
}

int staged_park(struct staged **sfp)
{
	struct staged *sf = *sfp;
	int err;

	CHECK_OBJ(sf, STAGED_MAGIC);
	assert(sf->nio == 0 && sf->durable);
	err = prune_add(sf->st, sf->id);
	if (err == 0)
		err = staged_rows_delete(sf);
	if (err != 0)
		return err;
	sf->st->parked += sf->dirty_bytes + sf->sending_bytes;
	staged_close(sfp);
	return 0;
}
