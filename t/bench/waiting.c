/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A metadata store with many files that wait to be stored, as a mount would have left them,
 * made in a fraction of the time:
 *
 *	bench_waiting META_DIR FILES DIRECTORIES BYTES
 *
 * makes d0/0, d1/1, ... of BYTES each, which lie in their records.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/checksum.h"
#include "base/log.h"
#include "base/obj.h"
#include "base/options.h"
#include "base/units.h"
#include "meta/meta.h"
#include "reactor/loop.h"
#include "reactor/pool.h"

#define BATCH 2000u
#define BLOCK 4096u /* what the tail's checksum is of (cache/staged.h) */

struct waiting {
	struct loop *loop;
	struct meta *meta;
	unsigned dirs, bytes;
	unsigned char data[META_BLOB_MAX];
	struct meta_change changes[BATCH];
	char path[BATCH][40];
	bool over;
	int err;
};

static struct waiting w;

static void die(const char *what, int err)
{
	(void)fprintf(stderr, "bench_waiting: %s: %s\n", what, strerror(-err));
	exit(1);
}

static uint64_t random_number(void)
{
	uint64_t v;

	if (getrandom(&v, sizeof(v), 0) != (ssize_t)sizeof(v))
		die("getrandom", -1);
	return v;
}

static void file(unsigned i, struct meta_change *ch, char *path, size_t len)
{
	unsigned tail = w.bytes % BLOCK;

	(void)snprintf(path, len, "d%u/%u", i % w.dirs, i);
	*ch = (struct meta_change){.verb = META_PUT,
	    .path = path,
	    .blob = w.bytes > 0 ? w.data : NULL,
	    .blob_len = w.bytes};
	ch->rec = (struct meta_record){.kind = META_FILE,
	    .has = META_HAS_CONTENT | META_HAS_MODE | META_HAS_MTIME,
	    .mode = 0644,
	    .mtime.tv_sec = time(NULL)};
	ch->rec.content = (struct meta_content){.policy = META_POLICY_WRITE_BACK,
	    .state = META_STATE_NOT_PERSISTED,
	    .id = META_CONTENT_BIT | random_number(),
	    .size = w.bytes,
	    .tail_crc = tail > 0 ? checksum_crc32c(w.data + w.bytes - tail, tail) : 0,
	    .since_ns = (uint64_t)time(NULL) * NS_PER_S};
}

static void over(struct meta_req *r, int err)
{
	(void)r;
	w.err = err;
	w.over = true;
}

static void put(unsigned n)
{
	struct meta_txn txn = {.changes = w.changes, .n = n};

	w.over = false;
	meta_txn(w.meta, &txn, over);
	while (!w.over)
		loop_turn(w.loop, true);
	if (w.err != 0)
		die("a transaction", w.err);
}

static void closed(void *arg)
{
	(void)arg;
	w.over = true;
}

int main(int argc, char **argv)
{
	static struct epoch epoch;
	struct config *cfg = config_new();
	struct meta_env env = {.cfg = cfg, .epoch = &epoch};
	unsigned files, n = 0;
	int err;

	if (argc != 5 || cfg == NULL) {
		(void)fputs("usage: bench_waiting META_DIR FILES DIRECTORIES BYTES\n", stderr);
		return 2;
	}
	files = (unsigned)strtoul(argv[2], NULL, 10);
	w.dirs = MAX((unsigned)strtoul(argv[3], NULL, 10), 1u);
	w.bytes = MIN((unsigned)strtoul(argv[4], NULL, 10), META_BLOB_MAX);
	log_open("bench_waiting", LOG_TO_STDERR);
	err = loop_new(&w.loop, &clock_system);
	if (err == 0)
		err = pool_new(&env.pool, w.loop, 5);
	env.loop = w.loop;
	if (err == 0)
		err = meta_new(&w.meta, &env, argv[1]);
	if (err != 0)
		die("begin", err);
	meta_open(w.meta);
	for (unsigned i = 0; i < files; i++) {
		file(i, &w.changes[n], w.path[n], sizeof(w.path[n]));
		if (++n == BATCH || i + 1 == files) {
			put(n);
			n = 0;
		}
	}
	w.over = false;
	meta_close(w.meta, closed, NULL);
	while (!w.over)
		loop_turn(w.loop, true);
	meta_free(&w.meta);
	pool_free(&env.pool);
	loop_free(&w.loop);
	config_free(&cfg);
	return 0;
}
