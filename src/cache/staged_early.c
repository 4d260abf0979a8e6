/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Early writing: what is written to a large durable file begins its way to the disk while
 * the application writes on, so that the sync at the end finds little that is left; the
 * kernel itself begins only after seconds, or when a tenth of the memory is dirty.
 *
 * It is a hint: nothing is promised by it, nobody waits for it, and an error shows at the
 * sync.  So that whoever writes the same place over and over does not wear the disk out,
 * each byte has its turn once: below `early_from` nothing is looked at any more.  One file
 * at a time, in the order in which they had enough: a disk that does not keep up holds one
 * thread of the pool, and what has come meanwhile goes in one piece.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/units.h"
#include "cache/staged_priv.h"

/* Less is soon synced, and may be gone or in the storage before. */
#define EARLY_BYTES (8 * MIB)

/* It stands for itself: the file, or all of them, may be gone at its end. */
struct early {
	struct pool_job job;
	struct staging *st; /* NULL: gone */
	struct loop *loop;
	uint64_t off, len;
	int fd;
};

static void early_next(struct staging *st);

static void early_work(struct pool_job *job)
{
	struct early *e = container_of(job, struct early, job);

	job->result = FAULT("staged.early");
	if (job->result == 0 &&
	    sync_file_range(e->fd, (off_t)e->off, (off_t)e->len, SYNC_FILE_RANGE_WRITE) != 0)
		job->result = -errno;
	close(e->fd);
}

static void early_done(struct pool_job *job)
{
	struct early *e = container_of(job, struct early, job);
	struct staging *st = e->st;

	if (job->result == 0)
		COUNT(e->loop, STAGED_EARLY_BYTES, e->len);
	free(e);
	if (st == NULL)
		return;
	st->early = NULL;
	early_next(st);
}

/* Where there is no memory or descriptor for it, it is left to the sync. */
static void early_start(struct staged *sf)
{
	struct early *e = calloc(1, sizeof(*e));

	if (e == NULL)
		return;
	e->fd = fcntl(sf->fd, F_DUPFD_CLOEXEC, 0);
	if (e->fd < 0) {
		free(e);
		return;
	}
	e->st = sf->st;
	e->loop = sf->loop;
	e->off = sf->early_from;
	e->len = sf->early_to - sf->early_from;
	sf->early_from = sf->early_to;
	sf->st->early = e;
	pool_submit(sf->pool, NULL, &e->job, early_work, early_done);
}

static void early_next(struct staging *st)
{
	struct staged *sf;

	while (st->early == NULL && (sf = TAILQ_FIRST(&st->early_due)) != NULL) {
		early_leave(sf);
		if (sf->early_to > sf->early_from)
			early_start(sf);
	}
}

void early_wrote(struct staged *sf, uint64_t end)
{
	sf->early_to = MAX(sf->early_to, end);
	if (sf->fd < 0 || sf->early_due || sf->early_to - sf->early_from < EARLY_BYTES)
		return;
	sf->early_due = true;
	TAILQ_INSERT_TAIL(&sf->st->early_due, sf, early_link);
	early_next(sf->st);
}

void early_cut(struct staged *sf, uint64_t size)
{
	sf->early_to = MIN(sf->early_to, size);
	sf->early_from = MIN(sf->early_from, size);
}

void early_leave(struct staged *sf)
{
	if (sf->early_due)
		TAILQ_REMOVE(&sf->st->early_due, sf, early_link);
	sf->early_due = false;
}

void early_leave_all(struct staging *st)
{
	if (st->early != NULL)
		st->early->st = NULL;
	st->early = NULL;
}
