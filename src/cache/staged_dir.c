/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files that go: those of staged files that were deleted, once the rows are, and those
 * that no row speaks of.  Jobs stand for themselves: who began them may be gone.
 */
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cache/staged_priv.h"

/* --- Deleted ones */

struct gone {
	STAILQ_ENTRY(gone) link;
	struct pool_job job;
	struct adopt adopt; /* with a blob: its file */
	struct pool *pool;
	const struct epoch *epoch;
	bool durable;
	int sum_fd; /* the pool's */
	size_t len;
	char path[]; /* and room for the suffix */
};

struct gone *gone_new(const struct epoch *epoch, const char *path, bool durable)
{
	size_t len = strlen(path);
	struct gone *g = calloc(1, sizeof(*g) + len + sizeof(STAGED_SUMS));

	if (g == NULL)
		return NULL;
	g->epoch = epoch;
	g->durable = durable;
	g->len = len;
	g->sum_fd = -1;
	memcpy(g->path, path, len + 1);
	return g;
}

/* Its path becomes that of the file of sums, and back. */
static void of_sums(struct gone *g, bool yes)
{
	if (yes)
		memcpy(g->path + g->len, STAGED_SUMS, sizeof(STAGED_SUMS));
	else
		g->path[g->len] = '\0';
}

/* --- To the page store */

static int give_sums(struct adopt *a, int fd, uint64_t off, uint64_t len, uint32_t *crc)
{
	struct gone *g = container_of(a, struct gone, adopt);

	if (g->sum_fd < 0) {
		of_sums(g, true);
		g->sum_fd = file_open_path(g->path, false);
		of_sums(g, false);
	}
	return g->sum_fd < 0 ? g->sum_fd : sums_plain(fd, g->sum_fd, off, len, crc);
}

static void given(struct adopt *a)
{
	struct gone *g = container_of(a, struct gone, adopt);

	cache_blob_put(&a->blob);
	gone_submit(g->pool, g); /* what is left of it goes */
}

void gone_give(struct gone *g, struct blob *b)
{
	g->adopt.blob = cache_blob_ref(b);
	g->adopt.path = g->path;
	g->adopt.sums = give_sums;
	g->adopt.done = given;
}

/* --- Removing */

void gone_add(struct staging *st, struct gone *g)
{
	STAILQ_INSERT_TAIL(&st->gone, g, link);
}

static void remove_one(const char *path)
{
	if (unlink(path) == 0 || errno == ENOENT)
		return;
	/* A disk that is read-only says so of what is not there, too. */
	if (errno != EROFS || access(path, F_OK) == 0)
		log_warn("staged file %s: remove: %s", path, strerror(errno));
}

static void gone_work(struct pool_job *job)
{
	struct gone *g = container_of(job, struct gone, job);

	if (g->sum_fd >= 0)
		close(g->sum_fd);
	/* A successor may know it still. */
	if (!epoch_mine(g->epoch))
		return;
	remove_one(g->path);
	if (!g->durable) {
		keep_forget(g->path);
		return;
	}
	of_sums(g, true);
	remove_one(g->path);
}

static void gone_done(struct pool_job *job)
{
	free(container_of(job, struct gone, job));
}

void gone_submit(struct pool *pl, struct gone *g)
{
	pool_submit(pl, NULL, &g->job, gone_work, gone_done);
}

/* lost: the rows are back.  Should nobody open them, a sweep removes the file. */
void gone_run(struct staging *st, bool lost)
{
	struct gone *g;

	while ((g = STAILQ_FIRST(&st->gone)) != NULL) {
		STAILQ_REMOVE_HEAD(&st->gone, link);
		g->pool = st->env.pool;
		if (lost && g->adopt.blob != NULL)
			cache_blob_put(&g->adopt.blob);
		if (lost)
			free(g);
		else if (g->adopt.blob != NULL)
			adopt_start(&g->adopt);
		else
			gone_submit(g->pool, g);
	}
}

/* --- Rows of deleted ones */

int prune_add(struct staging *st, uint64_t id)
{
	if (st->nprune == st->prune_cap) {
		size_t cap = st->prune_cap == 0 ? 16 : 2 * st->prune_cap;
		uint64_t *p = realloc(st->prune, cap * sizeof(*p));

		if (p == NULL)
			return -ENOMEM;
		st->prune = p;
		st->prune_cap = cap;
	}
	st->prune[st->nprune++] = id;
	return 0;
}

/* What cannot be deleted now is found by the next daemon. */
void prune_run(struct staging *st)
{
	struct statedb_val v;
	uint64_t id;

	if (st->nprune == 0)
		return;
	id = htobe64(st->prune[st->nprune - 1]);
	/* A turn that was lost brought the head back. */
	if (st->db == NULL ||
	    statedb_get(st->db, STATEDB_STAGED, &id, sizeof(id), &v) != -ENOENT ||
	    staged_rows_prune(st->db, be64toh(id)) != 0)
		st->nprune--;
}

/* --- Sweeping: names are moved out of the way at once, files removed at leisure */

#define SUFFIX ".gone"

struct sweep {
	bool begun;
	struct staging *st; /* NULL: gone */
	struct pool *pool;
	const struct epoch *epoch;
	struct pool_job job;
	char *dir;
	uint64_t *keep;
	size_t n, cap;
	unsigned aside; /* there are so many */
};

static void sweep_free(struct sweep *sw)
{
	free(sw->dir);
	free(sw->keep);
	free(sw);
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int keep_add(struct sweep *sw, uint64_t id)
{
	if (sw->n == sw->cap) {
		size_t cap = sw->cap == 0 ? 64 : 2 * sw->cap;
		uint64_t *p = realloc(sw->keep, cap * sizeof(*p));

		if (p == NULL)
			return -ENOMEM;
		sw->keep = p;
		sw->cap = cap;
	}
	sw->keep[sw->n++] = id;
	return 0;
}

static int keep_rows(struct sweep *sw, struct statedb *db)
{
	struct statedb_val k, v;
	uint64_t at = 0, be;
	int err;

	do {
		be = htobe64(at);
		err = statedb_seek(db, STATEDB_STAGED, &be, sizeof(be), &k, &v);
		if (err != 0)
			break;
		if (k.len != sizeof(be))
			return -EPROTO;
		memcpy(&be, k.data, sizeof(be));
		at = be64toh(be);
		err = keep_add(sw, at);
	} while (err == 0 && at++ < UINT64_MAX);
	return err == -ENOENT ? 0 : err;
}

/* A staged file that nobody keeps: its name is the number in hex.  Durable ones are kept by
 * records that we do not see. */
static bool is_stray(const struct sweep *sw, const char *name)
{
	char again[20], *end;
	uint64_t id;

	errno = 0;
	id = strtoull(name, &end, 16);
	if (errno != 0 || *end != '\0')
		return false;
	snprintf(again, sizeof(again), "%llx", (unsigned long long)id);
	return strcmp(again, name) == 0 && !durable_id(id) &&
	       (sw->n == 0 ||
		   bsearch(&id, sw->keep, sw->n, sizeof(id), by_number) == NULL);
}

static bool is_gone(const char *name)
{
	size_t len = strlen(name), n = strlen(SUFFIX);

	return len > n && strcmp(name + len - n, SUFFIX) == 0;
}

static void each_name(struct sweep *sw, void (*fn)(struct sweep *sw, int dir, const char *name))
{
	DIR *dir = opendir(sw->dir);
	struct dirent *de;

	if (dir == NULL) {
		if (errno != ENOENT)
			log_warn("staged files %s: %s", sw->dir, strerror(errno));
		return;
	}
	while ((de = readdir(dir)) != NULL && epoch_mine(sw->epoch))
		fn(sw, dirfd(dir), de->d_name);
	closedir(dir);
}

static void move_stray(struct sweep *sw, int dir, const char *name)
{
	char to[32];

	/* A note without its file is of one that went when the daemon died. */
	if (keep_is_note(name, to, sizeof(to)) && faccessat(dir, to, F_OK, 0) != 0) {
		(void)unlinkat(dir, name, 0);
		return;
	}
	if (!is_stray(sw, name) || keep_aside(dir, name))
		return;
	snprintf(to, sizeof(to), "%s" SUFFIX, name);
	if (renameat(dir, name, dir, to) != 0)
		log_warn("staged file %s/%s: %s", sw->dir, name, strerror(errno));
}

static void remove_gone(struct sweep *sw, int dir, const char *name)
{
	if (is_gone(name) && unlinkat(dir, name, 0) != 0)
		log_warn("staged file %s/%s: remove: %s", sw->dir, name, strerror(errno));
}

static void move_work(struct pool_job *job)
{
	struct sweep *sw = container_of(job, struct sweep, job);

	each_name(sw, move_stray);
	sw->aside = staging_count_aside(sw->dir);
}

static void remove_work(struct pool_job *job)
{
	each_name(container_of(job, struct sweep, job), remove_gone);
}

static void remove_done(struct pool_job *job)
{
	sweep_free(container_of(job, struct sweep, job));
}

static void move_done(struct pool_job *job)
{
	struct sweep *sw = container_of(job, struct sweep, job);
	struct staged *sf;

	if (sw->st != NULL) {
		sw->st->sweep = NULL;
		sw->st->aside = sw->aside;
		if (sw->aside > 0)
			log_warn("%s/" STAGED_ASIDE ": %u files that an earlier mount could not "
				 "store: `batonfs async-persist list --kept` shows them, `retry "
				 "--kept` and `drop --kept` end that",
			    sw->dir, sw->aside);
		LIST_FOREACH(sf, &sw->st->files, link)
		io_kick(sf);
	}
	pool_submit(sw->pool, NULL, &sw->job, remove_work, remove_done);
}

static void sweep_begin(struct sweep *sw)
{
	sw->begun = true;
	pool_submit(sw->pool, NULL, &sw->job, move_work, move_done);
}

void staging_sweep(struct staging *st, const uint64_t *keep, size_t nkeep)
{
	struct sweep *sw;
	int err;

	CHECK_OBJ(st, STAGING_MAGIC);
	if (st->sweep != NULL || st->db == NULL)
		return;
	sw = calloc(1, sizeof(*sw));
	if (sw == NULL)
		return; /* the next start tries again */
	sw->pool = st->env.pool;
	sw->epoch = st->env.epoch;
	sw->dir = strdup(st->dir);
	err = sw->dir == NULL ? -ENOMEM : keep_rows(sw, st->db);
	for (size_t i = 0; i < nkeep && err == 0; i++)
		err = keep_add(sw, keep[i]);
	if (err != 0) {
		log_warn("staged files %s: not swept: %s", st->dir, strerror(-err));
		sweep_free(sw);
		return;
	}
	if (sw->n > 0)
		qsort(sw->keep, sw->n, sizeof(sw->keep[0]), by_number);
	sw->st = st;
	st->sweep = sw;
	if (!st->stopped)
		sweep_begin(sw);
}

void staging_hold(struct staging *st, bool hold)
{
	struct staged *sf;

	CHECK_OBJ(st, STAGING_MAGIC);
	if (st->stopped == hold)
		return;
	st->stopped = hold;
	if (hold)
		return;
	if (st->sweep != NULL && !st->sweep->begun)
		sweep_begin(st->sweep);
	LIST_FOREACH(sf, &st->files, link)
		io_kick(sf);
}

void sweep_leave(struct staging *st)
{
	if (st->sweep != NULL && !st->sweep->begun)
		sweep_free(st->sweep);
	else if (st->sweep != NULL)
		st->sweep->st = NULL;
	st->sweep = NULL;
}
