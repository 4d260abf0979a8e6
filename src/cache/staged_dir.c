/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files that go: those of staged files that were deleted, once the rows are.  Jobs stand for
 * themselves: who began them may be gone.
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

const struct gone *gone_next(const struct staging *st, const struct gone *g)
{
	return g == NULL ? STAILQ_FIRST(&st->gone) : STAILQ_NEXT(g, link);
}

const char *gone_name(const struct gone *g)
{
	return strrchr(g->path, '/') + 1;
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

void staging_hold(struct staging *st, bool hold)
{
	struct staged *sf;

	CHECK_OBJ(st, STAGING_MAGIC);
	if (st->stopped == hold)
		return;
	st->stopped = hold;
	if (hold)
		return;
	sweep_go_on(st);
	LIST_FOREACH(sf, &st->files, link)
		io_kick(sf);
}
