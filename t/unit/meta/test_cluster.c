/* SPDX-License-Identifier: BSD-2-Clause */
/* The store in FoundationDB when that fails: silent, gone, another's, wrong; and without
 * memory.  On a stand-in of the test's own. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../fdb/standin.h"
#include "../../lib/nth_fault.h"
#include "base/log.h"
#include "base/obj.h"
#include "meta_rig.h"
#include "reactor/fdb.h"

static struct meta_rig g;

static void init(void)
{
	if (standin_real())
		cr_skip_test("a real cluster does not fail on demand");
	setenv("BATONFS_TEST_FDB_LIBRARY", standin_library(), 1);
	standin_start();
	setenv("BATONFS_TEST_FDB_CLUSTER_FILE", standin_cluster_file(), 1);
	meta_rig_init_in(&g, "/dev/shm");
	log_set_level(LOG_LVL_ERROR);
}

static void fini(void)
{
	if (g.loop == NULL) /* skipped */
		return;
	standin_write("faults", "");
	meta_rig_fini(&g);
	standin_stop();
	meta_rig_last();
}

TestSuite(meta_cluster, .init = init, .fini = fini);

#define HAS(text, part) cr_assert_not_null(strstr(text, part), "\"%s\" lacks \"%s\"", text, part)

struct put {
	struct meta_txn rq;
	struct meta_rig_end end;
	struct meta_change ch;
};

static void put_start(struct put *p, const char *path, uint32_t mode)
{
	memset(p, 0, sizeof(*p));
	p->ch = meta_rig_file(path, mode);
	p->rq.req.user = &p->end;
	p->rq.changes = &p->ch;
	p->rq.n = 1;
	meta_txn(g.meta, &p->rq, meta_rig_done);
}

/* While the cluster is silent nothing settles. */
static void pass(uint64_t ns)
{
	test_clock_advance(&g.clock, ns);
	for (int i = 0; i < 20; i++)
		loop_turn(g.loop, false);
}

static void until_met(const char *fault, unsigned n)
{
	while (standin_fired(fault) < n)
		loop_turn(g.loop, false);
}

static void set_true(void *arg)
{
	*(bool *)arg = true;
}

/* --- A cluster that is silent */

Test(meta_cluster, requests_end_in_time_and_it_recovers)
{
	struct meta_rig_end end = {.done = false};
	struct meta_get get = {.req.user = &end, .path = "a"};
	struct put p;

	meta_rig_open(&g);
	cr_assert_eq(meta_rig_put(&g, "a", 1), 0);
	standin_write("faults", "any hold\n");
	put_start(&p, "a", 2);
	meta_get(g.meta, &get, meta_rig_done);
	until_met("any hold", 2);
	pass(g.cfg->meta_timeout - 1);
	cr_assert(!p.end.done && !end.done);
	HAS(meta_rig_status(&g).error, "has not answered for 9 s");
	pass(1);
	cr_assert(p.end.done && p.end.err == -ETIMEDOUT);
	cr_assert(end.done && end.err == -ETIMEDOUT);
	cr_assert(meta_rig_status(&g).open);
	standin_write("faults", "");
	meta_rig_settle(&g);
	cr_assert_str_empty(meta_rig_status(&g).error);
	cr_assert_eq(meta_rig_mode(&g, "a"), 1, "what nobody waits for is not begun any more");
	cr_assert_eq(meta_rig_put(&g, "a", 3), 0);
	cr_assert_eq(meta_rig_mode(&g, "a"), 3);
}

/* What was sent may be done, and who comes later comes later. */
Test(meta_cluster, a_commit_that_is_held_up)
{
	struct put p, q;

	meta_rig_open(&g);
	standin_write("faults", "commit hold\n");
	put_start(&p, "a", 1);
	put_start(&q, "a", 2);
	until_met("commit hold", 1);
	pass(g.cfg->meta_timeout);
	cr_assert(p.end.done && p.end.err == -ETIMEDOUT);
	cr_assert(q.end.done && q.end.err == -ETIMEDOUT);
	standin_write("faults", "");
	meta_rig_settle(&g);
	cr_assert_eq(meta_rig_mode(&g, "a"), 1);
	meta_rig_check(&g);
	cr_assert_eq(meta_rig_status(&g).records, 1);
}

/* All but one would conflict with the one that makes the directory. */
Test(meta_cluster, many_files_made_at_once_in_new_directories)
{
	enum { N = 150 };
	static struct put p[N];
	static char path[N][32];
	unsigned commits;

	meta_rig_open(&g);
	meta_rig_settle(&g);
	standin_write("faults", "commit slow:3\n");
	for (unsigned i = 0; i < N; i++) {
		snprintf(path[i], sizeof(path[i]), "new/%s/%u", i % 2 == 0 ? "even" : "odd", i);
		put_start(&p[i], path[i], i + 1);
	}
	for (unsigned i = 0; i < N; i++)
		meta_rig_until(&g, &p[i].end.done);
	commits = standin_fired("commit slow");
	for (unsigned i = 0; i < N; i++) {
		cr_assert(p[i].end.done && p[i].end.err == 0);
		cr_assert_eq(meta_rig_mode(&g, path[i]), (int)i + 1);
	}
	cr_assert(commits < N * 12 / 10, "%u commits for %d files", commits, N);
	meta_rig_check(&g);
}

/* The one whose commit the others wait for is never heard of again: they end as it does. */
Test(meta_cluster, those_that_make_a_directory_behind_one_that_hangs)
{
	bool closed = false;
	struct put p, q;

	meta_rig_open(&g);
	standin_write("faults", "commit hold\n");
	put_start(&p, "new/a", 1);
	put_start(&q, "new/b", 2);
	until_met("commit hold", 1);
	pass(g.cfg->meta_timeout);
	cr_assert(p.end.done && p.end.err == -ETIMEDOUT);
	cr_assert(q.end.done && q.end.err == -ETIMEDOUT);
	put_start(&p, "new/c", 3);
	pass(0);
	meta_close(g.meta, set_true, &closed);
	while (!p.end.done)
		loop_turn(g.loop, false);
	cr_assert_eq(p.end.err, -ECANCELED);
	test_clock_advance(&g.clock, 2 * NS_PER_S);
	while (!closed)
		loop_turn(g.loop, false);
	standin_write("faults", "");
	meta_rig_open(&g);
	cr_assert_eq(meta_rig_put(&g, "new/d", 4), 0);
	meta_rig_check(&g);
}

/* A move of nothing deletes what is at its target: done a second time that is what the first
 * one made there, which is swept, and not what the second one makes. */
Test(meta_cluster, the_second_time_directories_have_other_ids)
{
	struct meta_change ch[2];

	meta_rig_open(&g);
	cr_assert_eq(meta_rig_put(&g, "b/old", 1), 0);
	standin_write("faults", "commit 1021 done count=1\n");
	ch[0] = meta_rig_move("nothing", "b");
	ch[0].id = meta_intent_id();
	ch[1] = meta_rig_file("b/new", 7);
	cr_assert_eq(meta_rig_txn(&g, ch, 2), 0);
	cr_assert_eq(standin_fired("commit 1021"), 1);
	meta_rig_settle(&g);
	cr_assert_eq(meta_rig_mode(&g, "b/new"), 7);
	cr_assert_eq(meta_rig_check(&g).rows, 2);
	cr_assert_eq(meta_rig_status(&g).records, 2);
}

Test(meta_cluster, closed_while_it_is_silent)
{
	struct meta_rig_end end = {.done = false};
	struct meta_get get = {.req.user = &end, .path = "a"};
	bool closed = false;
	struct put p;

	meta_rig_open(&g);
	standin_write("faults", "commit hold\n");
	put_start(&p, "a", 1);
	until_met("commit hold", 1);
	standin_write("faults", "commit hold\nget hold\n");
	meta_get(g.meta, &get, meta_rig_done);
	until_met("get hold", 1);
	meta_close(g.meta, set_true, &closed);
	while (!end.done)
		loop_turn(g.loop, false);
	cr_assert_eq(end.err, -ECANCELED);
	pass(0);
	cr_assert(!closed && !p.end.done, "a commit may still come to its end");
	test_clock_advance(&g.clock, 2 * NS_PER_S);
	while (!closed)
		loop_turn(g.loop, false);
	cr_assert(p.end.done && p.end.err == -EIO, "%d", p.end.err);
	standin_write("faults", "");
	meta_rig_open(&g);
	cr_assert_eq(meta_rig_put(&g, "a", 2), 0);
	cr_assert_eq(meta_rig_mode(&g, "a"), 2, "what the old session had on the wire is over");
	meta_rig_check(&g);
}

Test(meta_cluster, opened_while_it_is_silent)
{
	struct put p;

	standin_write("faults", "any hold\n");
	meta_rig_new(&g);
	meta_open(g.meta);
	put_start(&p, "a", 1);
	until_met("any hold", 1);
	test_clock_advance(&g.clock, g.cfg->meta_timeout);
	while (meta_rig_status(&g).error[0] == '\0')
		loop_turn(g.loop, false);
	HAS(meta_rig_status(&g).error, "the cluster does not answer (meta.fdb.cluster.file)");
	cr_assert(p.end.done && (p.end.err == -EIO || p.end.err == -ETIMEDOUT));
	put_start(&p, "a", 1);
	pass(0);
	cr_assert(p.end.done && p.end.err == -EIO, "at once, as long as it is not there");
	standin_write("faults", "");
	pass(3 * NS_PER_S);
	meta_rig_settle(&g);
	cr_assert(meta_rig_status(&g).open, "by itself: %s", meta_rig_status(&g).error);
	cr_assert_eq(meta_rig_put(&g, "a", 1), 0);
}

Test(meta_cluster, closed_while_it_is_being_opened)
{
	bool closed = false;

	standin_write("faults", "any hold\n");
	meta_rig_new(&g);
	meta_open(g.meta);
	until_met("any hold", 1);
	meta_close(g.meta, set_true, &closed);
	while (!closed)
		loop_turn(g.loop, false);
	standin_write("faults", "");
	meta_rig_open(&g);
}

Test(meta_cluster, the_server_is_killed_under_changes)
{
	static struct put p[64];
	static char path[64][16];
	unsigned done = 0;

	meta_rig_open(&g);
	for (unsigned i = 0; i < ARRAY_LEN(p); i++) {
		(void)snprintf(path[i], sizeof(path[i]), "d%u/%u", i % 4, i);
		put_start(&p[i], path[i], i + 1);
		for (unsigned j = 0; j < i % 8; j++)
			loop_turn(g.loop, false);
		if (i % 16 == 9) {
			standin_kill();
			standin_serve();
		}
	}
	meta_rig_settle(&g);
	for (unsigned i = 0; i < ARRAY_LEN(p); i++) {
		cr_assert(p[i].end.done && p[i].end.err == 0);
		cr_assert_eq(meta_rig_mode(&g, path[i]), (int)i + 1);
		done++;
	}
	cr_assert_eq(meta_rig_check(&g).rows, done + 4);
	cr_assert_eq(meta_rig_status(&g).records, done + 4);
}

/* --- Somebody else's */

Test(meta_cluster, who_opens_it_last_has_it)
{
	struct meta_rig other;
	struct meta_status st;
	struct put p;

	meta_rig_open(&g);
	cr_assert_eq(meta_rig_put(&g, "a", 1), 0);
	/* It is on the wire while the other one comes. */
	standin_write("faults", "commit hold count=1\n");
	put_start(&p, "a", 2);
	until_met("commit hold", 1);
	meta_rig_join(&other, &g);
	meta_rig_open(&other);
	cr_assert_eq(meta_rig_put(&other, "a", 3), 0);
	standin_write("faults", "");
	meta_rig_settle(&g);
	cr_assert(p.end.done && p.end.err == -ESTALE, "%d", p.end.err);
	st = meta_rig_status(&g);
	HAS(st.error, "another daemon has opened it as this node, one (");
	HAS(st.error, "write.staging.dir");
	put_start(&p, "a", 4);
	meta_rig_settle(&g);
	cr_assert_eq(p.end.err, -ESTALE);
	cr_assert_eq(meta_rig_mode(&other, "a"), 3);
	meta_rig_fini(&other);
}

static void raw_set(const char *key, size_t key_len, const char *val, size_t len)
{
	const struct fdb_api *api = fdb_api(g.fdb);
	FDBTransaction *tr = fdb_transaction(g.fdb);
	uint8_t buf[256];
	int n = snprintf((char *)buf, sizeof(buf), "%s", g.dir + 1) + 1;

	memcpy(buf + n, key, key_len);
	do
		api->transaction_set(tr, buf, n + (int)key_len, (const uint8_t *)val, (int)len);
	while (meta_check_ended(api, tr, api->transaction_commit(tr)) != 0);
	api->transaction_destroy(tr);
}

static void check_refused(const char *words)
{
	meta_rig_new(&g);
	meta_open(g.meta);
	meta_rig_settle(&g);
	cr_assert(!meta_rig_status(&g).open);
	HAS(meta_rig_status(&g).error, words);
	HAS(meta_rig_status(&g).error, "metadata store fdb:");
}

Test(meta_cluster, keys_that_are_not_ours)
{
	raw_set("someone", 7, "else", 4);
	check_refused("not batonfs's: choose another (meta.fdb.prefix)");
}

Test(meta_cluster, a_format_that_is_newer)
{
	raw_set("F", 1, "\0\0\0\0\0\0\0\x63", 8);
	check_refused("is of format 99");
}

Test(meta_cluster, a_format_that_is_older)
{
	raw_set("F", 1, "\0\0\0\0\0\0\0\x01", 8);
	check_refused("is of format 1, which was for one mount only: let the batonfs that wrote it "
		      "persist all, and choose another prefix (meta.fdb.prefix)");
}

Test(meta_cluster, a_cluster_file_of_something_else)
{
	struct errtext et = {""};
	char path[96];

	(void)snprintf(path, sizeof(path), "%s/other.cluster", standin_dir);
	standin_write("other.cluster", "hello\n");
	fdb_free(&g.fdb);
	cr_assert_eq(fdb_new(&g.fdb, g.loop, standin_library(), path, &et), 0);
	check_refused("Connection string invalid (2104): meta.fdb.cluster.file names no cluster");
	meta_rig_free(&g);
	fdb_free(&g.fdb);
	cr_assert_eq(fdb_new(&g.fdb, g.loop, standin_library(), standin_cluster_file(), &et), 0);
}

/* --- Without memory */

static void check_whole(void)
{
	static uint32_t mode;
	struct meta_check sum;
	struct meta_status st;

	/* With this whatever a failure has left is seen to. */
	cr_assert_eq(meta_rig_put(&g, "well", ++mode), 0);
	meta_rig_settle(&g);
	sum = meta_rig_check(&g);
	st = meta_rig_status(&g);
	cr_assert_eq(sum.garbage, 0);
	cr_assert_eq(
	    sum.rows, st.records, "%u rows, not %u", (unsigned)sum.rows, (unsigned)st.records);
	cr_assert_eq(memcmp(&sum.tally, &st.tally, sizeof(sum.tally)), 0, "the tally");
}

Test(meta_cluster, writing_without_memory)
{
	static char blob[META_BLOB_MAX], setting[200000];
	unsigned failed = 0, done = 0;
	bool fired = true;

	meta_rig_open(&g);
	for (unsigned n = 1; fired; n++) {
		struct meta_setting_get had = {.id = 1};
		struct meta_rig_end end[2];
		struct meta_change one[3], two[4];
		struct meta_txn rq[2];
		char path[2][32], other[32];

		memset(end, 0, sizeof(end));
		memset(rq, 0, sizeof(rq));
		for (int i = 0; i < 2; i++)
			(void)snprintf(path[i], sizeof(path[i]), "%d/%u/f", i, n);
		(void)snprintf(other, sizeof(other), "1/%u/x/g", n);
		cr_assert_eq(meta_rig_put(&g, path[0], n), 0);
		(void)meta_rig_setting_get(&g, &had);
		one[0] = meta_rig_move(path[0], "0/moved");
		one[0].id = n;
		one[1] = meta_rig_file("0/x/y", n);
		one[2] = meta_rig_dir("3/z", n);
		two[0] = meta_rig_del("1");
		two[1] = meta_rig_content("2/f", n, META_STATE_NOT_PERSISTED, sizeof(blob));
		two[1].blob = blob;
		two[1].blob_len = sizeof(blob);
		two[2] = meta_rig_content("2/g", 100000 + n, META_STATE_FAILED, 1);
		two[3] = (struct meta_change){.verb = META_SETTING_PUT,
		    .id = 1,
		    .blob = setting,
		    .blob_len = sizeof(setting),
		    .if_version = had.version};
		cr_assert_eq(meta_rig_put(&g, path[1], n), 0);
		cr_assert_eq(meta_rig_put(&g, other, n), 0);
		for (int i = 0; i < 2; i++) {
			rq[i].req.user = &end[i];
			rq[i].changes = i == 0 ? one : two;
			rq[i].n = i == 0 ? ARRAY_LEN(one) : ARRAY_LEN(two);
		}
		nth_arm(n);
		for (int i = 0; i < 2; i++)
			meta_txn(g.meta, &rq[i], meta_rig_done);
		meta_rig_settle(&g);
		fired = nth_fired();
		for (int i = 0; i < 2; i++) {
			cr_assert(
			    end[i].done && (end[i].err == 0 || (fired && end[i].err == -ENOMEM)),
			    "%u, %d: %d", n, i, end[i].err);
			failed += end[i].err != 0;
			done += end[i].err == 0;
		}
		/* Of a commit that it could not wait for it does not know: all, or nothing. */
		cr_assert_eq(
		    meta_rig_mode(&g, "0/x/y") == (int)n, meta_rig_mode(&g, "3/z") == (int)n);
		cr_assert_eq(
		    meta_rig_mode(&g, "0/moved") == (int)n, meta_rig_mode(&g, "3/z") == (int)n);
		cr_assert(end[0].err != 0 || meta_rig_mode(&g, "3/z") == (int)n);
		cr_assert_eq(
		    meta_rig_mode(&g, "1") == -ENOENT && meta_rig_mode(&g, path[1]) == -ENOENT,
		    meta_rig_mode(&g, other) == -ENOENT);
		cr_assert(end[1].err != 0 || meta_rig_mode(&g, other) == -ENOENT);
		check_whole();
		blob[n % sizeof(blob)]++;
		setting[n % sizeof(setting)]++;
		meta_setting_free(&had);
	}
	cr_assert_gt(failed, 20);
	cr_assert_gt(done, 20);
}

Test(meta_cluster, reading_without_memory)
{
	enum { ALL = 60 };
	static char blob[3000], path[ALL][16];
	struct meta_change ch[ALL];
	unsigned failed = 0;
	bool fired = true;

	meta_rig_open(&g);
	for (unsigned i = 0; i < ALL; i++) {
		(void)snprintf(path[i], sizeof(path[i]), "%u", i);
		ch[i] = meta_rig_content(path[i], i, META_STATE_NOT_PERSISTED, sizeof(blob));
		if (i == 49) {
			ch[i].blob = blob;
			ch[i].blob_len = sizeof(blob);
		}
		if (i >= 50)
			ch[i] = (struct meta_change){.verb = META_INTENT_PUT,
			    .id = i,
			    .blob = blob,
			    .blob_len = sizeof(blob)};
	}
	ch[59] = (struct meta_change){
	    .verb = META_SETTING_PUT, .id = 1, .blob = blob, .blob_len = sizeof(blob)};
	cr_assert_eq(meta_rig_txn(&g, ch, ALL), 0);
	for (unsigned n = 1; fired; n++) {
		struct meta_rig_end end[6];
		struct meta_scan scan = {.req.user = &end[0], .path = ""};
		struct meta_intents all = {.req.user = &end[1]};
		struct meta_queue queue = {.req.user = &end[2], .until_ns = UINT64_MAX};
		struct meta_content_get content = {.req.user = &end[3], .id = META_RIG_ID(49)};
		struct meta_setting_get setting = {.req.user = &end[4], .id = 1};
		struct meta_get get = {.req.user = &end[5], .path = "7"};

		memset(end, 0, sizeof(end));
		nth_arm(n);
		meta_scan(g.meta, &scan, meta_rig_done);
		meta_intents(g.meta, &all, meta_rig_done);
		meta_queue(g.meta, &queue, meta_rig_done);
		meta_content_get(g.meta, &content, meta_rig_done);
		meta_setting_get(g.meta, &setting, meta_rig_done);
		meta_get(g.meta, &get, meta_rig_done);
		meta_rig_settle(&g);
		fired = nth_fired();
		for (int i = 0; i < 6; i++) {
			cr_assert(
			    end[i].done && (end[i].err == 0 || (fired && end[i].err == -ENOMEM)));
			failed += end[i].err != 0;
		}
		cr_assert_eq(scan.count, end[0].err == 0 ? 50 : 0);
		cr_assert_eq(all.count, end[1].err == 0 ? 9 : 0);
		cr_assert_eq(queue.count, end[2].err == 0 ? 50 : 0);
		cr_assert_eq(content.blob != NULL && content.len == sizeof(blob), end[3].err == 0);
		cr_assert_eq(setting.blob != NULL && setting.len == sizeof(blob), end[4].err == 0);
		cr_assert(end[5].err != 0 || get.rec.content.id == META_RIG_ID(7));
		meta_scan_free(&scan);
		meta_intents_free(&all);
		meta_queue_free(&queue);
		meta_content_free(&content);
		meta_setting_free(&setting);
	}
	cr_assert_gt(failed, 20);
	check_whole();
}

Test(meta_cluster, opening_without_memory)
{
	unsigned failed = 0;
	bool fired = true;

	meta_rig_new(&g);
	for (unsigned n = 1; fired; n++) {
		struct meta_status st;

		nth_arm(n);
		meta_open(g.meta);
		meta_rig_settle(&g);
		fired = nth_fired();
		st = meta_rig_status(&g);
		cr_assert(st.open || (fired && st.error[0] != '\0'), "%u: %s", n, st.error);
		failed += !st.open;
		if (!st.open) { /* it tries again */
			test_clock_advance(&g.clock, 3 * NS_PER_S);
			meta_rig_settle(&g);
			cr_assert(meta_rig_status(&g).open);
		}
		check_whole();
		meta_rig_close(&g);
	}
	cr_assert_gt(failed, 3);
}

Test(meta_cluster, making_without_memory)
{
	const struct meta_env env = {
	    .loop = g.loop, .pool = g.pool, .cfg = g.cfg, .epoch = &g.epoch, .fdb = g.fdb};
	bool fired = true;

	for (unsigned n = 1; fired; n++) {
		struct meta *m;
		int err;

		nth_arm(n);
		err = meta_new(&m, &env, g.dir);
		fired = nth_fired();
		cr_assert_eq(err, fired ? -ENOMEM : 0);
		meta_free(&m);
	}
}
