/* SPDX-License-Identifier: BSD-2-Clause */
/* Which durable files lie in the directory; and those that nobody needs. */
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/units.h"
#include "cache/staged_priv.h"

/* As many names as one job reads, so that neither memory nor the loop's work on them grows
 * with the directory. */
#define SCAN_PAGE 1000u

/* Stands for itself: who asked may leave while the pool is at it. */
struct scan_job {
	LIST_ENTRY(scan_job) link;
	struct staging_scan *sc; /* NULL: left */
	struct staging *st;
	const struct epoch *epoch;
	struct pool_job job;
	bool running; /* in the pool; else it is between two pages */
	DIR *at;      /* the pool's while it runs; NULL: at the end */
	uint64_t age_ns, now_ns;
	uint64_t *ids;
	size_t n, cap;
	char dir[];
};

static void scan_free(struct scan_job *sj)
{
	if (sj->at != NULL)
		closedir(sj->at);
	free(sj->ids);
	free(sj);
}

static int ids_add(uint64_t **ids, size_t *n, size_t *cap, uint64_t id)
{
	if (*n == *cap) {
		size_t more = *cap == 0 ? 64 : 2 * *cap;
		uint64_t *p = reallocarray(*ids, more, sizeof(*p));

		if (p == NULL)
			return -ENOMEM;
		*ids = p;
		*cap = more;
	}
	(*ids)[(*n)++] = id;
	return 0;
}

/* The id of a durable file, of its bytes or its sums; 0: the name is another. */
static uint64_t id_of(const char *name)
{
	char again[32], *end;
	uint64_t id;

	errno = 0;
	id = strtoull(name, &end, 16);
	if (errno != 0 || !durable_id(id))
		return 0;
	snprintf(again, sizeof(again), "%llx%s", (unsigned long long)id,
	    *end != '\0' ? STAGED_SUMS : "");
	return strcmp(again, name) == 0 ? id : 0;
}

static bool old(const struct scan_job *sj, int dir, const char *name)
{
	struct stat st;
	uint64_t at;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return false; /* gone */
	at = (uint64_t)st.st_mtim.tv_sec * NS_PER_S + (uint64_t)st.st_mtim.tv_nsec;
	return at <= sj->now_ns && sj->now_ns - at >= sj->age_ns;
}

static void scan_end(struct scan_job *sj)
{
	closedir(sj->at);
	sj->at = NULL;
}

static int scan_begin(struct scan_job *sj)
{
	sj->at = opendir(sj->dir);
	return sj->at != NULL || errno == ENOENT ? 0 : -errno;
}

static void scan_work(struct pool_job *job)
{
	struct scan_job *sj = container_of(job, struct scan_job, job);
	struct dirent *de = NULL;
	unsigned names = 0;
	uint64_t id;

	job->result = sj->at == NULL ? scan_begin(sj) : 0;
	if (sj->at == NULL)
		return;
	for (errno = 0; job->result == 0 && names < SCAN_PAGE && (de = readdir(sj->at)) != NULL;
	     errno = 0, names++) {
		id = id_of(de->d_name);
		if (!epoch_mine(sj->epoch))
			job->result = -ESTALE;
		else if (id != 0 && old(sj, dirfd(sj->at), de->d_name))
			job->result = ids_add(&sj->ids, &sj->n, &sj->cap, id);
	}
	if (job->result == 0 && names < SCAN_PAGE && errno != 0)
		job->result = -errno;
	if (job->result != 0 || names < SCAN_PAGE)
		scan_end(sj);
}

static int by_id(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Each once, and none that is in memory or has rows. */
static int sift(struct scan_job *sj)
{
	uint64_t *mine = NULL, be;
	size_t nmine = 0, cap = 0, n = 0;
	struct statedb_val v;
	struct staged *sf;
	int err = 0;

	LIST_FOREACH(sf, &sj->st->files, link)
		if (err == 0)
			err = ids_add(&mine, &nmine, &cap, sf->id);
	if (err == 0 && sj->n > 0)
		qsort(sj->ids, sj->n, sizeof(*sj->ids), by_id);
	if (err == 0 && nmine > 0)
		qsort(mine, nmine, sizeof(*mine), by_id);
	for (size_t i = 0; i < sj->n && err == 0; i++) {
		uint64_t id = sj->ids[i];

		be = htobe64(id);
		if ((n > 0 && sj->ids[n - 1] == id) ||
		    (nmine > 0 && bsearch(&id, mine, nmine, sizeof(id), by_id) != NULL))
			continue;
		if (sj->st->db == NULL)
			err = -ESTALE;
		else if (statedb_get(sj->st->db, STATEDB_STAGED, &be, sizeof(be), &v) == -ENOENT)
			sj->ids[n++] = id;
	}
	sj->n = n;
	free(mine);
	return err;
}

/* The page is the user's; the job stays if there are more. */
static void give_page(struct scan_job *sj, struct staging_scan *sc)
{
	sc->ids = sj->ids;
	sc->n = sj->n;
	sc->more = sj->at != NULL;
	sj->ids = NULL;
	sj->n = sj->cap = 0;
}

static void scan_done(struct pool_job *job)
{
	struct scan_job *sj = container_of(job, struct scan_job, job);
	struct staging_scan *sc = sj->sc;
	int err = job->result;

	sj->running = false;
	if (sc == NULL) {
		scan_free(sj);
		return;
	}
	if (err == 0)
		err = sift(sj);
	if (err == 0)
		give_page(sj, sc);
	if (!sc->more) {
		LIST_REMOVE(sj, link);
		sc->job = NULL;
		scan_free(sj);
	}
	sc->done(sc, err);
}

static void scan_nothing(struct deferred *d)
{
	struct staging_scan *sc = container_of(d, struct staging_scan, run);

	sc->done(sc, sc->why);
}

static struct scan_job *scan_new(struct staging *st, struct staging_scan *sc)
{
	size_t len = strlen(st->dir) + 1;
	struct scan_job *sj = calloc(1, sizeof(*sj) + len);

	if (sj == NULL)
		return NULL;
	memcpy(sj->dir, st->dir, len);
	sj->sc = sc;
	sj->st = st;
	sj->epoch = st->env.epoch;
	sj->age_ns = sc->age_ns;
	LIST_INSERT_HEAD(&st->scans, sj, link);
	return sj;
}

void staging_scan(struct staging *st, struct staging_scan *sc)
{
	CHECK_OBJ(st, STAGING_MAGIC);
	sc->ids = NULL;
	sc->n = 0;
	sc->more = false;
	sc->loop = st->env.loop;
	memset(&sc->run, 0, sizeof(sc->run));
	sc->why = st->stopped ? -EAGAIN : -ENOMEM;
	if (sc->job == NULL && !st->stopped)
		sc->job = scan_new(st, sc);
	if (sc->job == NULL) {
		loop_defer(sc->loop, &sc->run, scan_nothing);
		return;
	}
	sc->job->now_ns = loop_wall(st->env.loop);
	sc->job->running = true;
	pool_submit(st->env.pool, NULL, &sc->job->job, scan_work, scan_done);
}

static void scan_leave(struct scan_job *sj)
{
	LIST_REMOVE(sj, link);
	sj->sc->job = NULL;
	sj->sc = NULL;
	if (!sj->running || pool_recall(&sj->job))
		scan_free(sj);
}

void staging_scan_abort(struct staging_scan *sc)
{
	if (sc->job != NULL)
		scan_leave(sc->job);
	else if (sc->loop != NULL)
		loop_undefer(sc->loop, &sc->run);
}

void scan_leave_all(struct staging *st)
{
	struct scan_job *sj, *next;

	for (sj = LIST_FIRST(&st->scans); sj != NULL; sj = next) {
		next = LIST_NEXT(sj, link);
		scan_leave(sj);
	}
}

void staging_discard(struct staging *st, uint64_t id)
{
	uint64_t be = htobe64(id);
	struct gone *g = NULL;
	size_t len;
	char *path;

	CHECK_OBJ(st, STAGING_MAGIC);
	assert(durable_id(id));
	len = strlen(st->dir) + 20;
	path = malloc(len);
	if (path != NULL) {
		snprintf(path, len, "%s/%llx", st->dir, (unsigned long long)id);
		g = gone_new(st->env.epoch, path, true);
	}
	free(path);
	/* What stays is found by a scan. */
	if (g == NULL)
		return;
	if (st->db != NULL && statedb_del(st->db, STATEDB_STAGED, &be, sizeof(be)) == 0) {
		(void)hold_row_delete(st->db, id);
		(void)prune_add(st, id);
	}
	gone_submit(st->env.pool, g);
}
