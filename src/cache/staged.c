/* SPDX-License-Identifier: BSD-2-Clause */
/* Staged files: their life, what lies where, and the stages of an upload. */
#include "cache/staged.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cache/staged_priv.h"

/* --- All of them */

static void run_committed(struct deferred *d)
{
	struct staging *st = container_of(d, struct staging, committed_run);
	bool lost = st->db != NULL && statedb_lost(st->db);
	struct staged *sf;

	gone_run(st, lost);
	prune_run(st);
	while ((sf = TAILQ_FIRST(&st->commit)) != NULL) {
		TAILQ_REMOVE(&st->commit, sf, commit_link);
		io_committed(sf, st->db == NULL ? -ESTALE : lost ? -EIO : 0);
	}
}

/* After the state database's own hook: what it lost shows here, and what waits for the
 * commit goes on in the next turn. */
static void turn_end(struct turn_hook *h)
{
	struct staging *st = container_of(h, struct staging, hook);
	struct staged *sf;

	if (st->db != NULL && statedb_lost(st->db)) {
		LIST_FOREACH(sf, &st->files, link)
		sf->rows_bad = true;
	}
	if (!TAILQ_EMPTY(&st->commit) || !STAILQ_EMPTY(&st->gone) || st->nprune > 0)
		loop_defer(st->env.loop, &st->committed_run, run_committed);
	GAUGE_SET(st->env.loop, CACHE_PINNED_BYTES, st->dirty);
}

int staging_new(struct staging **out, const struct staging_env *env, const char *dir)
{
	struct staging *st;

	*out = NULL;
	if (dir[0] != '/')
		return -EINVAL;
	ALLOC_OBJ(st, STAGING_MAGIC);
	if (st == NULL)
		return -ENOMEM;
	st->env = *env;
	TAILQ_INIT(&st->commit);
	TAILQ_INIT(&st->ready);
	LIST_INIT(&st->files);
	STAILQ_INIT(&st->gone);
	LIST_INIT(&st->scans);
	TAILQ_INIT(&st->early_due);
	st->dir = strdup(dir);
	if (st->dir == NULL) {
		staging_free(&st);
		return -ENOMEM;
	}
	*out = st;
	return 0;
}

void staging_free(struct staging **stp)
{
	struct staging *st;

	if (*stp == NULL)
		return;
	TAKE_OBJ(st, stp, STAGING_MAGIC);
	assert(LIST_EMPTY(&st->files) && TAILQ_EMPTY(&st->ready) && TAILQ_EMPTY(&st->commit));
	staging_set_db(st, NULL);
	sweep_leave(st);
	scan_leave_all(st);
	early_leave_all(st);
	gone_run(st, false);
	loop_undefer(st->env.loop, &st->committed_run);
	loop_undefer(st->env.loop, &st->ready_run);
	free(st->prune);
	free(st->dir);
	FREE_OBJ(st);
}

/* Extents that a daemon had no time to delete. */
static void find_strays(struct staging *st)
{
	uint64_t id = 0;

	while (staged_rows_stray(st->db, id, &id) == 0 && prune_add(st, id) == 0 &&
	       id < UINT64_MAX)
		id++;
}

void staging_set_db(struct staging *st, struct statedb *db)
{
	CHECK_OBJ(st, STAGING_MAGIC);
	if (st->hooked)
		loop_hook_remove(st->env.loop, &st->hook);
	st->hooked = db != NULL;
	st->db = db;
	st->nprune = 0;
	if (st->hooked) {
		loop_hook_add(st->env.loop, &st->hook, turn_end);
		find_strays(st);
		return;
	}
	/* Nobody will commit for those that wait. */
	if (!TAILQ_EMPTY(&st->commit) || !STAILQ_EMPTY(&st->gone))
		loop_defer(st->env.loop, &st->committed_run, run_committed);
}

void staging_status(const struct staging *st, struct staging_status *out)
{
	CHECK_OBJ(st, STAGING_MAGIC);
	memset(out, 0, sizeof(*out));
	snprintf(out->dir, sizeof(out->dir), "%s", st->dir);
	snprintf(out->error, sizeof(out->error), "%s", st->error);
	out->files = st->nfiles;
	out->bytes = st->bytes;
	out->dirty = st->dirty;
	out->durable = st->pinned;
	out->parked = st->parked;
	out->mismatches = st->mismatches;
	out->aside = st->aside;
}

void staged_error(struct staging *st, const struct staged *sf, const char *what, int err)
{
	if (err == -ESTALE)
		return;
	if (st->error[0] == '\0')
		log_warn("staged file %s: %s: %s", sf->path, what, strerror(-err));
	snprintf(st->error, sizeof(st->error), "staged file %s: %s: %s", sf->path, what,
	    strerror(-err));
}

/* --- One */

struct staged *sf_new(struct staging *st, uint64_t id, struct blob *base)
{
	size_t len = strlen(st->dir) + 20;
	struct staged *sf;

	ALLOC_OBJ(sf, STAGED_MAGIC);
	if (sf == NULL)
		return NULL;
	sf->id = id;
	sf->epoch = st->env.epoch;
	sf->loop = st->env.loop;
	sf->pool = st->env.pool;
	sf->fd = sf->sum_fd = -1;
	sf->durable = durable_id(id);
	sf->dirs_safe = st->dirs_safe;
	sf->gen = 1;
	sf->cut = UINT64_MAX;
	map_init(&sf->map);
	TAILQ_INIT(&sf->fills);
	TAILQ_INIT(&sf->chunks);
	TAILQ_INIT(&sf->queue);
	sf->st = st;
	LIST_INSERT_HEAD(&st->files, sf, link);
	st->nfiles++;
	if (base != NULL && !sf->durable) {
		sf->base = cache_blob_ref(base);
		sf->size = sf->limit = cache_blob_size(base);
	}
	sf->path = malloc(len);
	if (sf->path == NULL) {
		staged_close(&sf);
		return NULL;
	}
	snprintf(sf->path, len, "%s/%llx", st->dir, (unsigned long long)id);
	if (sf->durable && asprintf(&sf->sum_path, "%s" STAGED_SUMS, sf->path) < 0) {
		sf->sum_path = NULL;
		staged_close(&sf);
	}
	return sf;
}

void sf_free(struct staged *sf)
{
	sums_close(sf);
	map_free(&sf->map);
	free(sf->inl);
	free(sf->sum_path);
	free(sf->path);
	FREE_OBJ(sf);
}

int staged_create(struct staging *st, uint64_t id, struct blob *base, struct staged **out)
{
	struct staged *sf;
	int err;

	CHECK_OBJ(st, STAGING_MAGIC);
	*out = NULL;
	sf = sf_new(st, id, base);
	if (sf == NULL)
		return -ENOMEM;
	err = st->db == NULL ? -ESTALE : staged_rows_head(sf);
	if (err != 0)
		staged_close(&sf);
	*out = sf;
	return err;
}

int sf_load(struct staged *sf)
{
	int err = staged_rows_load(sf);

	sf->told = sf->early_from = sf->early_to = sf->size;
	/* By whom its files were made, and whether their names are safe, is not known. */
	sf->new_name = sf->durable;
	sf->prep = sf->durable ? PREP_RECOVER : PREP_NONE;
	if (err == 0 && sf->durable)
		err = hold_row_load(sf);
	return err;
}

int staged_open(struct staging *st, uint64_t id, struct blob *base, struct staged **out)
{
	struct staged *sf;
	int err;

	CHECK_OBJ(st, STAGING_MAGIC);
	*out = NULL;
	sf = sf_new(st, id, base);
	if (sf == NULL)
		return -ENOMEM;
	err = sf_load(sf);
	if (err != 0)
		staged_close(&sf);
	*out = sf;
	return err;
}

static void put_base(struct staged *sf)
{
	if (sf->base == NULL)
		return;
	cache_stream_end(sf->st->env.cache, &sf->stream);
	cache_blob_put(&sf->base);
}

void staged_close(struct staged **sfp)
{
	struct staged *sf;

	TAKE_OBJ(sf, sfp, STAGED_MAGIC);
	assert(sf->nio == 0);
	fill_end_all(sf);
	put_base(sf);
	early_leave(sf);
	LIST_REMOVE(sf, link);
	sf->st->nfiles--;
	sf->st->bytes -= sf->bytes;
	sf->st->dirty -= sf->dirty_bytes + sf->sending_bytes;
	if (sf->durable)
		sf->st->pinned -= sf->dirty_bytes + sf->sending_bytes;
	if (sf->held)
		sf->st->held -= sf->inl_len;
	sf->st = NULL;
	if (!sf->running)
		sf_free(sf); /* else at the end of what is in the pool */
}

/* Are all bytes and all sums on the disk those of the blob? */
static bool is_blob(const struct staged *sf, const struct blob *b)
{
	return sf->durable && sf->prep == PREP_NONE && sf->sum_fd >= 0 && !sf->running &&
	       !sf->rewriting && sf->broken == 0 && !staged_dirty(sf) && sf->size > 0 &&
	       sf->size == cache_blob_size(b);
}

int staged_give(struct staged **sfp, struct blob *b)
{
	struct staged *sf = *sfp;
	struct gone *g;
	int err;

	CHECK_OBJ(sf, STAGED_MAGIC);
	assert(sf->nio == 0);
	g = gone_new(sf->epoch, sf->path, sf->durable);
	err = g == NULL ? -ENOMEM : prune_add(sf->st, sf->id);
	if (err == 0)
		err = staged_rows_delete(sf);
	if (err != 0) {
		free(g);
		return err;
	}
	if (b != NULL && is_blob(sf, b))
		gone_give(g, b);
	gone_add(sf->st, g);
	sf->deleted = true;
	staged_close(sfp);
	return 0;
}

int staged_delete(struct staged **sfp)
{
	return staged_give(sfp, NULL);
}

bool staged_busy(const struct staged *sf)
{
	CHECK_OBJ(sf, STAGED_MAGIC);
	return sf->nio > 0 || sf->running;
}

uint64_t staged_id(const struct staged *sf)
{
	CHECK_OBJ(sf, STAGED_MAGIC);
	return sf->id;
}

uint64_t staged_size(const struct staged *sf)
{
	CHECK_OBJ(sf, STAGED_MAGIC);
	return sf->size;
}

bool staged_dirty(const struct staged *sf)
{
	CHECK_OBJ(sf, STAGED_MAGIC);
	return sf->dirty_bytes + sf->sending_bytes > 0 || sf->changed > sf->clean;
}

void staged_set_base(struct staged *sf, struct blob *base)
{
	CHECK_OBJ(sf, STAGED_MAGIC);
	if (sf->durable) /* it is complete */
		base = NULL;
	if (base != NULL)
		cache_blob_ref(base);
	fill_stop_reading(sf);
	put_base(sf);
	sf->base = base;
	sf->base_stale = false;
	fill_kick(sf);
}

/* --- What lies where */

void sf_gap(const struct staged *sf, uint64_t off, uint64_t end, uint64_t *from, uint64_t *to)
{
	struct ext *x = map_find(&sf->map, off);

	while (x != NULL && x->start <= off && off < end) {
		off = x->end;
		x = map_next(x);
	}
	*from = MIN(off, end);
	*to = x == NULL || off >= end ? end : MIN(x->start, end);
}

enum staged_kind staged_map(const struct staged *sf, uint64_t off, uint64_t *end)
{
	struct ext *x;
	enum staged_kind kind;

	CHECK_OBJ(sf, STAGED_MAGIC);
	if (off >= sf->size) {
		*end = UINT64_MAX;
		return STAGED_HOLE;
	}
	x = map_find(&sf->map, off);
	if (x == NULL || x->start > off) {
		*end = x == NULL ? sf->size : MIN(x->start, sf->size);
		if (off >= sf->limit)
			return STAGED_HOLE;
		*end = MIN(*end, sf->limit);
		return STAGED_BASE;
	}
	kind = ext_kind(sf, x);
	do {
		*end = x->end;
		x = map_next(x);
	} while (x != NULL && x->start == *end && ext_kind(sf, x) == kind);
	return kind;
}

/* --- Uploads */

void staged_sending(struct staged *sf)
{
	CHECK_OBJ(sf, STAGED_MAGIC);
	sf->sending_bytes += sf->dirty_bytes;
	sf->dirty_bytes = 0;
	sf->sending = sf->gen++;
	sf->cut = UINT64_MAX;
}

int staged_uploaded(struct staged *sf, struct blob *base, uint64_t size)
{
	uint64_t limit = sf->limit, clean = sf->clean;
	int err;

	/* What was cut off meanwhile is in the base and must not return. */
	sf->limit = sf->durable ? 0 : MIN(size, sf->cut);
	sf->clean = sf->sending;
	err = staged_rows_head(sf);
	if (err != 0) {
		sf->limit = limit;
		sf->clean = clean;
		return err;
	}
	sf->st->dirty -= sf->sending_bytes;
	if (sf->durable)
		sf->st->pinned -= sf->sending_bytes;
	sf->sending_bytes = 0;
	staged_set_base(sf, base);
	return 0;
}

void staged_not_uploaded(struct staged *sf)
{
	CHECK_OBJ(sf, STAGED_MAGIC);
	sf->sending = sf->clean;
	sf->dirty_bytes += sf->sending_bytes;
	sf->sending_bytes = 0;
	sf->base_stale = false;
	fill_kick(sf);
}
