/* SPDX-License-Identifier: BSD-2-Clause */
#include "fake_ufs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/obj.h"

/* From a table and not from malloc(), so that tests can fail the cache's own. */
#define FAKE_MOST 4096

struct fake_req {
	bool used;
	TAILQ_ENTRY(fake_req) link;
	struct ufs_read *rq;
	size_t sent;
	int err; /* its end */
};

static struct fake_req table[FAKE_MOST];
static unsigned char body[4 * 1024 * 1024];

static struct fake_req *take(void)
{
	for (unsigned i = 0; i < FAKE_MOST; i++) {
		if (!table[i].used) {
			memset(&table[i], 0, sizeof(table[i]));
			table[i].used = true;
			return &table[i];
		}
	}
	abort();
}

struct ufs *fake_new(const char *uri)
{
	struct ufs *u = calloc(1, sizeof(*u));

	snprintf(u->uri, sizeof(u->uri), "%s", uri);
	TAILQ_INIT(&u->running);
	u->seed = 1;
	return u;
}

void fake_free(struct ufs **u)
{
	assert(TAILQ_EMPTY(&(*u)->running));
	free(*u);
	*u = NULL;
}

const char *ufs_uri(const struct ufs *u)
{
	return u->uri;
}

static uint64_t version_seed(const char *version)
{
	uint64_t h = 1469598103934665603u;

	for (; *version != '\0'; version++)
		h = (h ^ (unsigned char)*version) * 1099511628211u;
	return h;
}

static unsigned char byte_at(uint64_t seed, uint64_t off)
{
	uint64_t x = (off + seed) * UINT64_C(0x9e3779b97f4a7c15);

	return (unsigned char)((x >> 56) | 1); /* never 0: a hole shows */
}

unsigned char fake_byte(const char *version, uint64_t off)
{
	return byte_at(version_seed(version), off);
}

bool fake_check(const char *version, uint64_t off, const void *data, size_t len)
{
	uint64_t seed = version_seed(version);
	const unsigned char *p = data;

	for (size_t i = 0; i < len; i++) {
		if (p[i] != byte_at(seed, off + i))
			return false;
	}
	return true;
}

void ufs_read(struct ufs *u, struct ufs_read *rq, void (*done)(struct ufs_req *r, int err))
{
	struct fake_req *fr = take();

	rq->req.ufs = u;
	rq->req.done = done;
	rq->req.priv = fr;
	fr->rq = rq;
	if (u->fail != 0 &&
	    (u->fail_one_in == 0 || (unsigned)rand_r(&u->seed) % u->fail_one_in == 0))
		fr->err = u->fail;
	TAILQ_INSERT_TAIL(&u->running, fr, link);
	u->started++;
	if (++u->now > u->most)
		u->most = u->now;
}

static void end(struct ufs *u, struct fake_req *fr)
{
	TAILQ_REMOVE(&u->running, fr, link);
	fr->rq->req.priv = NULL;
	u->now--;
	fr->used = false;
}

void ufs_abort(struct ufs_req *rq)
{
	if (rq->priv == NULL)
		return;
	rq->ufs->aborted++;
	end(rq->ufs, rq->priv);
}

static void step(struct ufs *u, struct fake_req *fr, size_t bytes)
{
	struct ufs_read *rq = fr->rq;
	size_t left = rq->len - fr->sent, n = bytes == 0 ? left : MIN(left, bytes);
	uint64_t seed = version_seed(rq->version);
	int err = fr->err;

	if (u->stop_after != 0 && fr->err != 0)
		n = MIN(n, u->stop_after > fr->sent ? u->stop_after - fr->sent : 0);
	else if (fr->err != 0)
		n = 0;
	if (n == 0) {
		end(u, fr);
		rq->req.done(&rq->req, err);
		return;
	}
	n = MIN(n, sizeof(body));
	for (size_t i = 0; i < n; i++)
		body[i] = byte_at(seed, rq->off + fr->sent + i);
	fr->sent += n;
	u->bytes += n;
	rq->on_data(rq, body, n);
}

bool fake_step_one(struct ufs *u, size_t bytes)
{
	if (TAILQ_EMPTY(&u->running))
		return false;
	step(u, TAILQ_FIRST(&u->running), bytes);
	return true;
}

bool fake_step(struct ufs *u)
{
	struct fake_req *fr, *stop, *first = TAILQ_FIRST(&u->running);

	if (first == NULL)
		return false;
	/* A step may start and abort others: those there now get their turn once. */
	for (unsigned n = u->now; n > 0 && (fr = TAILQ_FIRST(&u->running)) != NULL; n--) {
		stop = fr;
		TAILQ_REMOVE(&u->running, stop, link);
		TAILQ_INSERT_TAIL(&u->running, stop, link);
		step(u, stop, u->chunk);
	}
	return true;
}
