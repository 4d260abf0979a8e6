/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How the cache disk is.  An error makes pages pass it by; after a while, which grows
 * as it goes on, the pool tries the directory, and only what went well there brings the
 * disk back into use.  So a state that stays is one line of the log, whatever the number
 * of requests that meet it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/cache_priv.h"

#define RETRY_MIN (2 * NS_PER_S)
#define RETRY_MAX (60 * NS_PER_S)
/* Between two looks whether the directory is still what its name leads to. */
#define LOOK_PERIOD (10 * NS_PER_S)

#define TRIAL "trial"
/* Room for so many pages makes a full disk one with room. */
#define TRIAL_PAGES 4

const char *cache_health_word(enum cache_health health)
{
	switch (health) {
	case CACHE_OK:
		return "ok";
	case CACHE_FULL:
		return "full";
	case CACHE_READ_ONLY:
		return "read-only";
	case CACHE_SLOW:
		return "slow";
	case CACHE_FAILED:
		break;
	}
	return "failed";
}

static enum cache_health health_of(int err)
{
	if (err == -ENOSPC || err == -EDQUOT)
		return CACHE_FULL;
	return err == -EROFS ? CACHE_READ_ONLY : CACHE_FAILED;
}

static void health_set(struct cache *c, enum cache_health health)
{
	uint64_t now = loop_now(c->env.loop);

	if (health == c->health)
		return;
	/* Trouble that comes back soon is the same trouble. */
	if (c->health == CACHE_OK && now - c->health_since > RETRY_MAX)
		c->retry_next = 0;
	c->health = health;
	c->health_since = now;
	if (health == CACHE_OK)
		log_info("page store %s: in use again", c->dir);
	else
		log_warn("%s; pages bypass the disk for now (%s)", c->error,
		    cache_health_word(health));
}

void cache_note(struct cache *c, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->error, sizeof(c->error), fmt, ap);
	va_end(ap);
	memcpy(c->last_error, c->error, sizeof(c->last_error));
	health_set(c, c->slow ? CACHE_SLOW : health_of(err));
	GAUGE_SET(c->env.loop, CACHE_USED_BYTES, c->used);
}

void cache_well(struct cache *c)
{
	c->failing = c->slow = false;
	c->error[0] = '\0';
	health_set(c, CACHE_OK);
	timer_arm(&c->retry, LOOK_PERIOD);
	store_settle_check(c);
}

void cache_retry_later(struct cache *c)
{
	c->retry_next = MIN(MAX(2 * c->retry_next, RETRY_MIN), RETRY_MAX);
	timer_arm(&c->retry, c->retry_next);
}

void cache_trouble(struct cache *c, int err, const char *what)
{
	bool began = !c->failing;

	/* What was under way when it began says nothing new. */
	if (began)
		cache_note(c, err, "page store %s: %s: %s", c->dir, what, strerror(-err));
	c->failing = true;
	if (c->state == STORE_OPEN && began && !c->trying)
		cache_retry_later(c);
	if (err == -ENOSPC || err == -EDQUOT)
		evict_full(c);
}

/* --- The trial */

static int try_file(int fd, uint64_t room)
{
	char block[512] = "trial";

	if (fallocate(fd, 0, 0, (off_t)room) != 0 && errno != EOPNOTSUPP)
		return -errno;
	if (pwrite(fd, block, sizeof(block), 0) != (ssize_t)sizeof(block))
		return -EIO;
	return fsync(fd) != 0 ? -errno : 0;
}

/* Pool: 0 if a file can be made, filled and made safe in the directory. */
static int try_dir(const struct cache *c)
{
	int fd, err;

	err = slow_point();
	if (err != 0)
		return err;
	fd = openat(c->dir_fd, TRIAL, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	err = try_file(fd, (uint64_t)TRIAL_PAGES * c->page_size);
	close(fd);
	if (unlinkat(c->dir_fd, TRIAL, 0) != 0 && err == 0)
		err = -errno;
	if (err == 0 && faccessat(c->dir_fd, "blobs", F_OK, 0) != 0)
		err = -errno;
	return err;
}

static void try_work(struct pool_job *job)
{
	struct cache *c = container_of(job, struct cache, try_job);

	c->try_gone = dir_is_gone(c);
	job->result = c->try_gone ? -ENOENT : c->trying_file ? try_dir(c) : 0;
}

static void try_done(struct pool_job *job)
{
	struct cache *c = container_of(job, struct cache, try_job);
	bool late;

	c->trying = false;
	late = slow_end(c, &c->try_op);
	if (c->slow && (late || !c->trying_file || slow_now(c))) {
		cache_job_done(c); /* slow_end() brings the next, now or later */
		return;
	}
	c->slow = false;
	if (c->state == STORE_OPEN && job->result == 0) {
		if (!c->failing || c->trying_file)
			cache_well(c);
		else
			cache_retry_later(c); /* trouble came while it only looked */
		load_kick(c);
	} else if (c->state == STORE_OPEN) {
		c->failing = true;
		cache_note(c, job->result, "page store %s: %s: %s", c->dir,
		    c->try_gone ? "the directory is gone" : "try the directory",
		    strerror(-job->result));
		if (c->try_gone && !c->settling)
			store_gone(c);
		else
			cache_retry_later(c);
	}
	cache_job_done(c);
}

void health_retry_timer(struct timer *t)
{
	struct cache *c = container_of(t, struct cache, retry);

	if (c->state == STORE_FAILED) {
		cache_index_open(c);
	} else if (c->state == STORE_OPEN && !c->trying && !(c->slow && slow_now(c))) {
		c->trying = true;
		c->trying_file = c->failing;
		slow_begin(c, &c->try_op);
		cache_job(c, NULL, &c->try_job, try_work, try_done);
	}
}
