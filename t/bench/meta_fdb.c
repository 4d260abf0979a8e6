/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a metadata store in FoundationDB costs, without a mount around it:
 *
 *	bench_meta_fdb LIBRARY CLUSTER_FILE PREFIX create N DIRECTORY
 *	bench_meta_fdb LIBRARY CLUSTER_FILE PREFIX fill N DIRECTORY
 *	bench_meta_fdb LIBRARY CLUSTER_FILE PREFIX list DIRECTORY PAGE
 *
 * create: N small files, all asked for in one turn of the loop.  fill: N records, many in one
 * transaction, for others to be measured.  list: all records of a
 * directory, a page at a time, as readdir(3) asks for them.  A line of "name value" pairs:
 * commits are all that were sent, with those that failed; a turn is measured in the loop's
 * own processor time, and late is by how much a timer of 1 ms came late, which is the loop's
 * waiting and the machine's together.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/obj.h"
#include "base/options.h"
#include "base/units.h"
#include "meta/meta.h"
#include "reactor/fdb.h"
#include "reactor/loop.h"
#include "reactor/pool.h"
#include "reactor/timer.h"

#define FILE_BYTES 700
#define TICK_NS NS_PER_MS

static struct loop *lp;
static struct meta *meta;
static uint64_t longest_turn, latest, ticks;
static unsigned long sent;
static FDBFuture *(*commit)(FDBTransaction *tr);

static _Noreturn void die(const char *what, const char *why)
{
	fprintf(stderr, "bench_meta_fdb: %s: %s\n", what, why);
	exit(1);
}

static uint64_t clock_of(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static long rss_kib(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[256];
	long kib = 0;

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		(void)sscanf(line, "RssAnon: %ld", &kib);
	if (f != NULL)
		fclose(f);
	return kib;
}

static FDBFuture *count_commit(FDBTransaction *tr)
{
	sent++;
	return commit(tr);
}

/* --- The loop, looked at */

static struct timer tick;
static uint64_t tick_due;

static void arm_tick(void)
{
	tick_due = clock_of(CLOCK_MONOTONIC) + TICK_NS;
	timer_arm(&tick, TICK_NS);
}

static void ticked(struct timer *t)
{
	uint64_t now = clock_of(CLOCK_MONOTONIC);

	(void)t;
	ticks++;
	if (now > tick_due)
		latest = MAX(latest, now - tick_due);
	arm_tick();
}

static void turn_until(const bool *flag)
{
	while (!*flag) {
		uint64_t cpu = clock_of(CLOCK_THREAD_CPUTIME_ID);

		loop_turn(lp, true);
		cpu = clock_of(CLOCK_THREAD_CPUTIME_ID) - cpu;
		longest_turn = MAX(longest_turn, cpu);
	}
}

static void measure_from_here(void)
{
	longest_turn = latest = ticks = 0;
	sent = 0;
	arm_tick();
}

static double ms(uint64_t ns)
{
	return (double)ns / NS_PER_MS;
}

static void say_loop(void)
{
	printf(" turn_ms %.2f late_ms %.2f", ms(longest_turn), ms(latest));
}

/* --- Creating */

struct create {
	struct meta_txn txn;
	struct meta_change change;
	char path[256];
	uint64_t began;
};
static unsigned left;
static bool all_done;
static uint64_t slowest;

static void created(struct meta_req *r, int err)
{
	struct create *c = r->user;

	if (err != 0)
		die(c->path, strerror(-err));
	slowest = MAX(slowest, clock_of(CLOCK_MONOTONIC) - c->began);
	all_done = --left == 0;
}

static struct meta_record new_file(void)
{
	return (struct meta_record){.kind = META_FILE,
	    .has = META_HAS_MODE | META_HAS_CONTENT,
	    .mode = 0644,
	    .content = {.policy = META_POLICY_TRANSIENT,
		.state = META_STATE_TRANSIENT,
		.id = META_CONTENT_BIT | meta_intent_id(),
		.size = FILE_BYTES}};
}

static void create_all(unsigned n, const char *dir)
{
	static const char bytes[FILE_BYTES];
	struct create *all = calloc(n, sizeof(*all));
	uint64_t began = clock_of(CLOCK_MONOTONIC), cpu;

	if (all == NULL)
		die("create", "out of memory");
	left = n;
	measure_from_here();
	cpu = clock_of(CLOCK_THREAD_CPUTIME_ID);
	for (unsigned i = 0; i < n; i++) {
		struct create *c = &all[i];

		snprintf(c->path, sizeof(c->path), "%s/file%08u", dir, i);
		c->began = clock_of(CLOCK_MONOTONIC);
		c->change = (struct meta_change){.verb = META_PUT,
		    .path = c->path,
		    .blob = bytes,
		    .blob_len = sizeof(bytes),
		    .rec = new_file()};
		c->txn.changes = &c->change;
		c->txn.n = 1;
		c->txn.req.user = c;
		meta_txn(meta, &c->txn, created);
	}
	longest_turn = clock_of(CLOCK_THREAD_CPUTIME_ID) - cpu;
	turn_until(&all_done);
	printf("creates %u commits %lu commits_each %.3f all_ms %.1f slowest_ms %.1f", n, sent,
	    (double)sent / n, ms(clock_of(CLOCK_MONOTONIC) - began), ms(slowest));
	say_loop();
	printf("\n");
	free(all);
}

/* --- Filling */

#define FILL 200u

static bool filled;

static void fill_done(struct meta_req *r, int err)
{
	(void)r;
	if (err != 0)
		die("fill", strerror(-err));
	filled = true;
}

static void fill(unsigned n, const char *dir)
{
	static struct meta_change changes[FILL];
	static char path[FILL][256];
	struct meta_txn txn = {.changes = changes};

	for (unsigned i = 0; i < n; i += txn.n) {
		txn.n = MIN(n - i, FILL);
		for (unsigned k = 0; k < txn.n; k++) {
			snprintf(path[k], sizeof(path[k]), "%s/file%08u", dir, i + k);
			changes[k] = (struct meta_change){.verb = META_PUT,
			    .path = path[k],
			    .rec = new_file()};
		}
		filled = false;
		meta_txn(meta, &txn, fill_done);
		turn_until(&filled);
	}
	printf("filled %u commits %lu\n", n, sent);
}

/* --- Listing */

static bool scanned;

static void scan_done(struct meta_req *r, int err)
{
	(void)r;
	if (err != 0)
		die("list", strerror(-err));
	scanned = true;
}

static void list_all(const char *dir, size_t page)
{
	struct meta_scan scan = {.path = dir, .max = page};
	uint64_t began = clock_of(CLOCK_MONOTONIC), first = 0, count = 0;
	long before = rss_kib(), most = before;
	char after[META_NAME_MAX + 1];

	measure_from_here();
	do {
		scanned = false;
		meta_scan(meta, &scan, scan_done);
		turn_until(&scanned);
		if (first == 0)
			first = clock_of(CLOCK_MONOTONIC) - began;
		count += scan.count;
		most = MAX(most, rss_kib());
		if (scan.count > 0)
			snprintf(after, sizeof(after), "%s", scan.entries[scan.count - 1].name);
		scan.after = after;
	} while (scan.more);
	printf("entries %llu first_ms %.1f all_ms %.1f grown_kib %ld", (unsigned long long)count,
	    ms(first), ms(clock_of(CLOCK_MONOTONIC) - began), most - before);
	say_loop();
	printf("\n");
	meta_scan_free(&scan);
}

/* --- The store */

static void settle(struct timer *t)
{
	(void)t;
}

static void wait_open(void)
{
	struct meta_status st = {.open = false};
	struct timer t;

	timer_init(&t, lp, settle);
	meta_open(meta);
	do {
		timer_arm(&t, 10 * NS_PER_MS);
		loop_turn(lp, true);
		meta_status(meta, &st);
		if (st.error[0] != '\0')
			die("open", st.error);
	} while (!st.open);
	timer_cancel(&t);
}

static void closed(void *arg)
{
	*(bool *)arg = true;
}

static struct fdb *open_cluster(struct config *cfg, char **argv)
{
	struct fdb_api *api;
	struct errtext et;
	struct fdb *fdb;

	if (config_set(cfg, "meta.fdb.prefix", argv[3], &et) != 0 ||
	    config_set(cfg, "meta.timeout", "2min", &et) != 0 ||
	    fdb_new(&fdb, lp, argv[1], argv[2], &et) != 0)
		die("cluster", et.s);
	/* What is sent is counted where it is called. */
	api = (struct fdb_api *)(uintptr_t)fdb_api(fdb);
	commit = api->transaction_commit;
	api->transaction_commit = count_commit;
	return fdb;
}

int main(int argc, char **argv)
{
	struct config *cfg = config_new();
	struct epoch epoch = {0};
	struct meta_env env = {.cfg = cfg, .epoch = &epoch};
	struct pool *pool;
	bool end = false;

	if (argc != 7 || cfg == NULL) {
		fprintf(stderr, "usage: bench_meta_fdb LIBRARY CLUSTER_FILE PREFIX create|fill N "
				"DIRECTORY | list DIRECTORY PAGE\n");
		return 2;
	}
	log_open("bench", LOG_TO_STDERR);
	log_set_level(LOG_LVL_ERROR);
	if (loop_new(&lp, &clock_system) != 0 || pool_new(&pool, lp, 5) != 0)
		die("loop", "out of memory");
	timer_init(&tick, lp, ticked);
	env.loop = lp;
	env.pool = pool;
	env.fdb = open_cluster(cfg, argv);
	if (meta_new(&meta, &env, "/nowhere") != 0)
		die(argv[3], "no such prefix can be");
	wait_open();
	if (strcmp(argv[4], "create") == 0)
		create_all((unsigned)atoi(argv[5]), argv[6]);
	else if (strcmp(argv[4], "fill") == 0)
		fill((unsigned)atoi(argv[5]), argv[6]);
	else
		list_all(argv[5], (size_t)atoi(argv[6]));
	timer_cancel(&tick);
	meta_leave(meta);
	meta_close(meta, closed, &end);
	turn_until(&end);
	meta_free(&meta);
	fdb_free(&env.fdb);
	pool_free(&pool);
	loop_free(&lp);
	config_free(&cfg);
	fdb_end();
	return 0;
}
