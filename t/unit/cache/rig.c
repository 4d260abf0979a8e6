/* SPDX-License-Identifier: BSD-2-Clause */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

void rig_set(struct rig *g, const char *name, const char *value)
{
	struct errtext et;

	cr_assert_eq(config_set(g->cfg, name, value, &et), 0, "%s", et.s);
}

void rig_init(struct rig *g, bool disk)
{
	memset(g, 0, sizeof(*g));
	log_set_level(LOG_LVL_ERROR);
	test_clock_init(&g->clock);
	g->cfg = config_new();
	cr_assert_eq(loop_new(&g->loop, &g->clock.clk), 0);
	cr_assert_eq(pool_new(&g->pool, g->loop, 3), 0);
	g->ufs = fake_new("s3://bucket");
	rig_set(g, "worker.page.store.page.size", "64KiB");
	rig_set(g, "memory.limit", "16MiB");
	rig_set(g, "fetch.part.size", "256KiB");
	if (disk) {
		snprintf(g->dir, sizeof(g->dir), "/tmp/batonfs-cache-XXXXXX");
		cr_assert_not_null(mkdtemp(g->dir));
		rig_set(g, "worker.page.store.dir", g->dir);
	}
}

void rig_make(struct rig *g)
{
	struct cache_env env = {g->loop, g->pool, g->cfg, &g->epoch, false};
	struct errtext et;

	cr_assert_eq(cache_new(&g->cache, &env, -1, &et), 0, "%s", et.s);
}

void rig_start(struct rig *g)
{
	rig_make(g);
	cache_index_open(g->cache);
}

bool rig_until(struct rig *g, bool (*what)(void *arg), void *arg)
{
	while (!what(arg)) {
		bool ran = !g->hold && fake_step(g->ufs);

		ran |= loop_turn(g->loop, !ran && pool_outstanding(g->pool) > 0);
		if (!ran && pool_outstanding(g->pool) == 0 && !what(arg) &&
		    !loop_turn(g->loop, false))
			return what(arg);
	}
	return true;
}

static bool never(void *arg)
{
	(void)arg;
	return false;
}

void rig_settle(struct rig *g)
{
	rig_until(g, never, NULL);
}

static void set_true(void *arg)
{
	*(bool *)arg = true;
}

static bool is_true(void *arg)
{
	return *(bool *)arg;
}

void rig_close(struct rig *g, bool sync)
{
	bool closed = false;

	cache_index_close(g->cache, sync, set_true, &closed);
	cr_assert(!closed, "done came inline");
	cr_assert(rig_until(g, is_true, &closed), "index never closed");
}

void rig_stop(struct rig *g)
{
	if (g->cache == NULL)
		return;
	rig_settle(g);
	rig_close(g, true);
	rig_settle(g);
	cache_free(&g->cache);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void rig_fini(struct rig *g)
{
	rig_stop(g);
	fake_free(&g->ufs);
	pool_free(&g->pool);
	loop_free(&g->loop);
	config_free(&g->cfg);
	if (g->dir[0] != '\0')
		nftw(g->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

struct blob *rig_blob(struct rig *g, const char *name, const char *version, uint64_t size)
{
	struct blob_id id = {g->ufs, name, version, size};
	struct blob *b = cache_blob_get(g->cache, &id);

	cr_assert_not_null(b);
	return b;
}

static void read_done(struct cache_read *r, int err)
{
	struct rig_read *rr = container_of(r, struct rig_read, r);

	cr_assert(!rr->done, "done twice");
	rr->done = true;
	rr->err = err;
}

void rig_read_start(struct rig_read *rr, struct blob *b, struct stream *s, uint64_t off,
    size_t len)
{
	memset(rr, 0, sizeof(*rr));
	rr->r.blob = b;
	rr->r.stream = s;
	rr->r.off = off;
	rr->r.len = len;
	rr->r.done = read_done;
	rr->at_once = cache_read_try(&rr->r);
	if (rr->at_once) {
		rr->done = true;
		return;
	}
	cache_read_start(&rr->r);
	cr_assert(!rr->done, "a leaf completed inline");
}

bool rig_read_right(const struct rig_read *rr)
{
	uint64_t off = rr->r.off;

	for (unsigned i = 0; i < rr->r.niov; i++) {
		if (!fake_check(rr->r.blob->version, off, rr->r.iov[i].iov_base,
			rr->r.iov[i].iov_len))
			return false;
		off += rr->r.iov[i].iov_len;
	}
	return off == rr->r.off + rr->r.got && rr->r.got == rr->r.len;
}

void rig_read_end(struct rig_read *rr)
{
	if (rr->done && rr->err == 0)
		cache_read_release(&rr->r);
	else
		cache_read_abort(&rr->r);
}

bool rig_read_done(void *rr)
{
	return ((struct rig_read *)rr)->done;
}

int rig_read(struct rig *g, struct blob *b, struct stream *s, uint64_t off, size_t len)
{
	struct rig_read rr;
	int err;

	rig_read_start(&rr, b, s, off, len);
	cr_assert(rig_until(g, rig_read_done, &rr), "the read never ended");
	err = rr.err;
	if (err == 0 && !rig_read_right(&rr))
		err = -EBADMSG;
	rig_read_end(&rr);
	return err;
}

static uint64_t walk_bytes;
static char walk_path[256];

static int walk(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)ftw;
	if (type == FTW_F) {
		walk_bytes += (uint64_t)st->st_blocks * 512;
		snprintf(walk_path, sizeof(walk_path), "%s", path);
	}
	return 0;
}

uint64_t rig_disk_bytes(const struct rig *g)
{
	char path[128];

	walk_bytes = 0;
	walk_path[0] = '\0';
	snprintf(path, sizeof(path), "%s/blobs", g->dir);
	nftw(path, walk, 16, FTW_PHYS);
	return walk_bytes;
}

bool rig_find_file(const struct rig *g, char *path, size_t len)
{
	rig_disk_bytes(g);
	snprintf(path, len, "%s", walk_path);
	return walk_path[0] != '\0';
}

void rig_forget_sums(struct rig *g)
{
	while (!TAILQ_EMPTY(&g->cache->sums))
		sums_remove(TAILQ_FIRST(&g->cache->sums));
	while (!TAILQ_EMPTY(&g->cache->hot))
		sums_remove(TAILQ_FIRST(&g->cache->hot));
}

uint64_t rig_counter(const struct rig *g, enum counter_id id)
{
	return loop_counters(g->loop)->v[id];
}

void rig_flip(const char *path, off_t at)
{
	unsigned char c;
	int fd = open(path, O_RDWR | O_CLOEXEC);

	cr_assert_geq(fd, 0);
	cr_assert_eq(pread(fd, &c, 1, at), 1);
	c ^= 0x20;
	cr_assert_eq(pwrite(fd, &c, 1, at), 1);
	close(fd);
}
