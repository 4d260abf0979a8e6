/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files that no row speaks of: those of a mount that ended, or of a daemon that died between
 * the two.  There may be very many, so they are gone through a page at a time: the pool
 * reads names, the loop says which of them nobody knows, the pool moves those out of the
 * way, and only whoever wants to make a file of one of these very names waits for it.
 * Whoever wants one whose turn has not come yet moves what has it himself
 * (sweep_clear()).  What was moved is removed at leisure, at the end.
 */
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cache/staged_priv.h"

#define SUFFIX ".gone"
#define SWEEP_PAGE 1000u /* names: neither memory nor the loop's work grows with the directory */

struct sweep {
	struct staging *st; /* NULL: gone, or all is moved */
	struct pool *pool;
	const struct epoch *epoch;
	struct pool_job job;
	bool running; /* in the pool; else staging_hold() keeps it from going on */
	bool moving;  /* `id` are being moved */
	char *dir;
	DIR *at; /* the pool's while it runs; NULL: not begun, or at the end */
	size_t n;
	unsigned aside; /* there are so many */
	uint64_t id[SWEEP_PAGE];
};

static void sweep_free(struct sweep *sw)
{
	if (sw->at != NULL)
		closedir(sw->at);
	free(sw->dir);
	free(sw);
}

/* The number that is the whole name, in hex, of a file that is not durable; 0: it is none.
 * Durable ones are kept by records that we do not see. */
static uint64_t number_of(const char *name)
{
	char again[20], *end;
	uint64_t id;

	errno = 0;
	id = strtoull(name, &end, 16);
	if (errno != 0 || *end != '\0' || durable_id(id))
		return 0;
	snprintf(again, sizeof(again), "%llx", (unsigned long long)id);
	return strcmp(again, name) == 0 ? id : 0;
}

/* --- Out of the way.  In the pool. */

static void move_away(int dir, const char *name, const char *where)
{
	char to[32];

	if (keep_aside(dir, name))
		return;
	snprintf(to, sizeof(to), "%s" SUFFIX, name);
	if (renameat(dir, name, dir, to) != 0 && errno != ENOENT)
		log_warn("staged file %s/%s: %s", where, name, strerror(errno));
}

/* A note without its file is of one that went when the daemon died. */
static void drop_note(int dir, const char *note, const char *of)
{
	if (faccessat(dir, of, F_OK, 0) != 0)
		(void)unlinkat(dir, note, 0);
}

void sweep_clear(const char *path)
{
	const char *name = strrchr(path, '/') + 1;
	char *where = strndup(path, (size_t)(name - 1 - path));
	int dir = where != NULL ? open(where, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (dir >= 0 && faccessat(dir, name, F_OK, 0) == 0)
		move_away(dir, name, where);
	else if (dir >= 0)
		keep_forget(path);
	if (dir >= 0)
		close(dir);
	free(where);
}

static void move_work(struct pool_job *job)
{
	struct sweep *sw = container_of(job, struct sweep, job);
	char name[20];

	for (size_t i = 0; i < sw->n && epoch_mine(sw->epoch); i++) {
		snprintf(name, sizeof(name), "%llx", (unsigned long long)sw->id[i]);
		move_away(dirfd(sw->at), name, sw->dir);
	}
}

/* --- Names.  In the pool. */

static void read_end(struct sweep *sw, int err)
{
	if (err != 0)
		log_warn("staged files %s: %s", sw->dir, strerror(err));
	else
		sw->aside = staging_count_aside(sw->dir);
	closedir(sw->at);
	sw->at = NULL;
}

static void read_work(struct pool_job *job)
{
	struct sweep *sw = container_of(job, struct sweep, job);
	struct dirent *de = NULL;
	unsigned names = 0;
	char of[32];

	sw->n = 0;
	if (sw->at == NULL)
		sw->at = opendir(sw->dir);
	if (sw->at == NULL) {
		if (errno != ENOENT)
			log_warn("staged files %s: %s", sw->dir, strerror(errno));
		return;
	}
	for (errno = 0; names < SWEEP_PAGE && epoch_mine(sw->epoch) &&
			(de = readdir(sw->at)) != NULL;
	     errno = 0, names++) {
		uint64_t id = number_of(de->d_name);

		if (id != 0)
			sw->id[sw->n++] = id;
		else if (keep_is_note(de->d_name, of, sizeof(of)))
			drop_note(dirfd(sw->at), de->d_name, of);
	}
	/* What the last page has is moved first. */
	if (names < SWEEP_PAGE && sw->n == 0)
		read_end(sw, de == NULL ? errno : 0);
}

static void remove_work(struct pool_job *job)
{
	struct sweep *sw = container_of(job, struct sweep, job);
	size_t n = strlen(SUFFIX), len;
	struct dirent *de;

	sw->at = opendir(sw->dir);
	while (sw->at != NULL && epoch_mine(sw->epoch) && (de = readdir(sw->at)) != NULL) {
		len = strlen(de->d_name);
		if (len > n && strcmp(de->d_name + len - n, SUFFIX) == 0 &&
		    unlinkat(dirfd(sw->at), de->d_name, 0) != 0)
			log_warn("staged file %s/%s: remove: %s", sw->dir, de->d_name,
			    strerror(errno));
	}
}

static void remove_done(struct pool_job *job)
{
	sweep_free(container_of(job, struct sweep, job));
}

/* --- Which of them nobody knows.  The loop. */

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t *find(struct sweep *sw, uint64_t id)
{
	return sw->n > 0 ? bsearch(&id, sw->id, sw->n, sizeof(id), by_number) : NULL;
}

/* Those that have no row: -EPROTO and others: that is not known. */
static int without_row(struct sweep *sw)
{
	struct statedb_val v;
	size_t n = 0;
	int err = 0;

	for (size_t i = 0; i < sw->n && (err == 0 || err == -ENOENT); i++) {
		uint64_t id = sw->id[i], be = htobe64(id);

		err = statedb_get(sw->st->db, STATEDB_STAGED, &be, sizeof(be), &v);
		if (err == -ENOENT)
			sw->id[n++] = id;
	}
	sw->n = n;
	return err == -ENOENT ? 0 : err;
}

/* The rows that a file in memory has, or had until this turn, may be lost or come back with
 * the turn. */
static void not_in_memory(struct sweep *sw)
{
	bool spared[SWEEP_PAGE] = {false};
	struct staged *sf;
	size_t n = 0;

	if (sw->n == 0)
		return;
	qsort(sw->id, sw->n, sizeof(sw->id[0]), by_number);
	LIST_FOREACH(sf, &sw->st->files, link)
	{
		uint64_t *at = find(sw, sf->id);

		if (at != NULL)
			spared[at - sw->id] = true;
	}
	for (const struct gone *g = gone_next(sw->st, NULL); g != NULL; g = gone_next(sw->st, g)) {
		uint64_t *at = find(sw, number_of(gone_name(g)));

		if (at != NULL)
			spared[at - sw->id] = true;
	}
	for (size_t i = 0; i < sw->n; i++)
		if (!spared[i])
			sw->id[n++] = sw->id[i];
	sw->n = n;
}

/* --- The way */

static void sweep_done(struct pool_job *job);

static void submit(struct sweep *sw)
{
	sw->running = true;
	pool_submit(sw->pool, NULL, &sw->job, sw->moving ? move_work : read_work, sweep_done);
}

static void kick_all(struct staging *st)
{
	struct staged *sf;

	LIST_FOREACH(sf, &st->files, link)
	io_kick(sf);
}

static void sweep_over(struct sweep *sw)
{
	struct staging *st = sw->st;

	st->sweep = NULL;
	st->aside = sw->aside;
	if (sw->aside > 0)
		log_warn("%s/" STAGED_ASIDE ": %u files that an earlier mount could not store: "
			 "`batonfs async-persist list --kept` shows them, `retry --kept` and "
			 "`drop --kept` end that",
		    sw->dir, sw->aside);
	sw->st = NULL;
	pool_submit(sw->pool, NULL, &sw->job, remove_work, remove_done);
}

/* From here on whoever makes a file of such a name waits until it is moved. */
static int choose(struct sweep *sw)
{
	int err = without_row(sw);

	if (err != 0) {
		log_warn("staged files %s: not swept: %s", sw->dir, strerror(-err));
		return err;
	}
	not_in_memory(sw);
	sw->moving = sw->n > 0;
	return 0;
}

static void sweep_done(struct pool_job *job)
{
	struct sweep *sw = container_of(job, struct sweep, job);
	bool moved = sw->moving;

	sw->running = false;
	if (sw->st == NULL) {
		sweep_free(sw);
		return;
	}
	sw->moving = false;
	if (moved)
		kick_all(sw->st);
	if (sw->st->db == NULL || (!moved && choose(sw) != 0)) {
		sw->st->sweep = NULL;
		sweep_free(sw);
		return;
	}
	if (!moved && sw->at == NULL) {
		sweep_over(sw);
		return;
	}
	if (!sw->st->stopped)
		submit(sw);
}

bool sweep_moves(const struct staged *sf)
{
	struct sweep *sw = sf->st->sweep;

	return sw != NULL && sw->moving && find(sw, sf->id) != NULL;
}

void staging_sweep(struct staging *st)
{
	struct sweep *sw;

	CHECK_OBJ(st, STAGING_MAGIC);
	if (st->sweep != NULL || st->db == NULL)
		return;
	sw = calloc(1, sizeof(*sw));
	if (sw == NULL)
		return; /* the next start tries again */
	sw->pool = st->env.pool;
	sw->epoch = st->env.epoch;
	sw->dir = strdup(st->dir);
	if (sw->dir == NULL) {
		sweep_free(sw);
		return;
	}
	sw->st = st;
	st->sweep = sw;
	sweep_go_on(st);
}

void sweep_go_on(struct staging *st)
{
	if (st->sweep != NULL && !st->sweep->running && !st->stopped)
		submit(st->sweep);
}

void sweep_leave(struct staging *st)
{
	if (st->sweep != NULL && !st->sweep->running)
		sweep_free(st->sweep);
	else if (st->sweep != NULL)
		st->sweep->st = NULL;
	st->sweep = NULL;
}
