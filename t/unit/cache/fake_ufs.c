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
	enum fake_op op;
	struct ufs_req *rq;
	size_t sent; /* of a read */
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

static void made_up(const char *version, uint64_t off, unsigned char *buf, size_t len)
{
	uint64_t seed = version_seed(version);

	for (size_t i = 0; i < len; i++)
		buf[i] = byte_at(seed, off + i);
}

struct ufs *fake_new(const char *uri)
{
	struct ufs *u = calloc(1, sizeof(*u));

	snprintf(u->uri, sizeof(u->uri), "%s", uri);
	TAILQ_INIT(&u->running);
	u->seed = 1;
	fake_store_init(&u->store);
	u->store.made_up = made_up;
	return u;
}

void fake_free(struct ufs **u)
{
	assert(TAILQ_EMPTY(&(*u)->running));
	fake_store_fini(&(*u)->store);
	free(*u);
	*u = NULL;
}

const char *ufs_uri(const struct ufs *u)
{
	return u->uri;
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

struct fake_file *fake_add(struct ufs *u, const char *path, uint64_t size, const char *version)
{
	return fake_store_add(&u->store, path, UFS_FILE, size, version, NULL);
}

unsigned ufs_can(const struct ufs *u)
{
	return u->store.can;
}

static void begin(struct ufs *u, struct ufs_req *rq, enum fake_op op,
    void (*done)(struct ufs_req *r, int err))
{
	struct fake_req *fr = take();

	rq->ufs = u;
	rq->done = done;
	rq->priv = fr;
	fr->op = op;
	fr->rq = rq;
	if (u->fail != 0 &&
	    (u->fail_one_in == 0 || (unsigned)rand_r(&u->seed) % u->fail_one_in == 0))
		fr->err = u->fail;
	TAILQ_INSERT_TAIL(&u->running, fr, link);
	u->started++;
	if (++u->now > u->most)
		u->most = u->now;
}

#define REQUEST(name, kind)                                                                        \
	void ufs_##name(                                                                           \
	    struct ufs *u, struct ufs_##name *rq, void (*done)(struct ufs_req *r, int err))        \
	{                                                                                          \
		begin(u, &rq->req, kind, done);                                                    \
	}

REQUEST(stat, FAKE_STAT)
REQUEST(read, FAKE_READ)
REQUEST(put, FAKE_PUT)
REQUEST(multi_begin, FAKE_MULTI_BEGIN)
REQUEST(part, FAKE_PART)
REQUEST(multi_end, FAKE_MULTI_END)
REQUEST(multi_abort, FAKE_MULTI_ABORT)
REQUEST(multi_sweep, FAKE_MULTI_SWEEP)
REQUEST(mkdir, FAKE_MKDIR)
REQUEST(rmdir, FAKE_RMDIR)
REQUEST(rename, FAKE_RENAME)
REQUEST(setattr, FAKE_SETATTR)

void ufs_copy(struct ufs *u, struct ufs_copy *rq, void (*done)(struct ufs_req *r, int err))
{
	rq->id[0] = '\0';
	rq->gone = false;
	begin(u, &rq->req, FAKE_COPY, done);
}

void ufs_delete(struct ufs *u, struct ufs_delete *rq, void (*done)(struct ufs_req *r, int err))
{
	for (unsigned i = 0; i < rq->n; i++)
		rq->errs[i] = 0;
	begin(u, &rq->req, FAKE_DELETE, done);
}

static void end(struct ufs *u, struct fake_req *fr)
{
	TAILQ_REMOVE(&u->running, fr, link);
	fr->rq->priv = NULL;
	u->now--;
	fr->used = false;
}

void ufs_abort(struct ufs_req *rq)
{
	struct fake_req *fr = rq->priv;
	struct ufs *u = rq->ufs;

	if (fr == NULL)
		return;
	u->aborted++;
	if (u->late_effects && fr->op != FAKE_READ && fr->err == 0)
		(void)fake_store_do(&u->store, fr->op, rq);
	end(u, fr);
}

/* The end of all but reads. */
static void finish(struct ufs *u, struct fake_req *fr)
{
	struct ufs_req *rq = fr->rq;
	int err = fr->err != 0 ? fr->err : fake_store_do(&u->store, fr->op, rq);
	struct ufs_copy *copy;

	if (fr->op == FAKE_COPY && err == FAKE_BEGUN) {
		copy = container_of(rq, struct ufs_copy, req);
		err = copy->begun(copy);
		if (err == 0)
			return;
	}
	end(u, fr);
	rq->done(rq, err);
}

static void step(struct ufs *u, struct fake_req *fr, size_t bytes)
{
	struct ufs_read *rq = container_of(fr->rq, struct ufs_read, req);
	size_t left, n;

	if (fr->op != FAKE_READ) {
		finish(u, fr);
		return;
	}
	if (fr->sent == 0 && fr->err == 0)
		fr->err = fake_store_do(&u->store, FAKE_READ, fr->rq);
	left = rq->len - fr->sent;
	n = bytes == 0 ? left : MIN(left, bytes);
	if (u->stop_after != 0 && fr->err != 0)
		n = MIN(n, u->stop_after > fr->sent ? u->stop_after - fr->sent : 0);
	else if (fr->err != 0)
		n = 0;
	n = MIN(n, sizeof(body));
	if (n > 0 && fr->err == 0) {
		fr->err = fake_store_bytes(
		    &u->store, rq->path, rq->version, rq->off + fr->sent, body, n);
		if (fr->err != 0)
			n = 0;
	} else if (n > 0) {
		made_up(rq->version, rq->off + fr->sent, body, n);
	}
	if (n == 0) {
		int err = fr->err;

		end(u, fr);
		rq->req.done(&rq->req, err);
		return;
	}
	fr->sent += n;
	u->bytes += n;
	rq->on_data(rq, body, n);
}

unsigned fake_running(const struct ufs *u, enum fake_op op)
{
	const struct fake_req *fr;
	unsigned n = 0;

	TAILQ_FOREACH(fr, &u->running, link)
	n += fr->op == op;
	return n;
}

bool fake_step_op(struct ufs *u, enum fake_op op)
{
	struct fake_req *fr;

	TAILQ_FOREACH(fr, &u->running, link) {
		if (fr->op == op) {
			step(u, fr, 0);
			return true;
		}
	}
	return false;
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
