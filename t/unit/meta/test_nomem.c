/* SPDX-License-Identifier: BSD-2-Clause */
/* Each allocation fails once, on the loop's side and in what the jobs do: a right
 * answer or a clean error, all or nothing, and nothing is left behind. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../lib/nth_fault.h"
#include "base/log.h"
#include "base/obj.h"
#include "meta/embedded_priv.h"
#include "meta_check.h"
#include "meta_rig.h"

static struct meta_rig g;

static void init(void)
{
	meta_rig_init_in(&g, "/dev/shm");
}

static void fini(void)
{
	meta_rig_fini(&g);
}

TestSuite(meta_nomem, .init = init, .fini = fini);

Test(meta_nomem, requests)
{
	bool fired = true;

	struct meta_change first[2] = { meta_rig_content("c", 1, META_STATE_NOT_PERSISTED, 4),
		{ .verb = META_SETTING_PUT, .id = 1, .blob = "text", .blob_len = 4 } };

	first[0].blob = "text";
	first[0].blob_len = 4;
	meta_rig_open(&g);
	cr_assert_eq(meta_rig_put(&g, "a", 1), 0);
	cr_assert_eq(meta_rig_txn(&g, first, 2), 0);
	for (unsigned n = 1; fired; n++) {
		struct meta_rig_end end[8];
		struct meta_change ch = meta_rig_file("a", n);
		struct meta_get get = { .req.user = &end[0], .path = "a" };
		struct meta_scan scan = { .req.user = &end[1], .path = "" };
		struct meta_intents all = { .req.user = &end[2] };
		struct meta_txn txn = { .req.user = &end[3], .changes = &ch, .n = 1 };
		struct meta_queue queue = { .req.user = &end[4], .until_ns = UINT64_MAX };
		struct meta_content_get content = { .req.user = &end[5], .id = META_RIG_ID(1) };
		struct meta_setting_get setting = { .req.user = &end[6], .id = 1 };
		struct meta_get gone = { .req.user = &end[7], .path = "a" };
		unsigned nomem = 0;

		memset(end, 0, sizeof(end));
		nth_arm(n);
		meta_get(g.meta, &get, meta_rig_done);
		meta_scan(g.meta, &scan, meta_rig_done);
		meta_get(g.meta, &gone, meta_rig_done);
		meta_intents(g.meta, &all, meta_rig_done);
		meta_txn(g.meta, &txn, meta_rig_done);
		meta_queue(g.meta, &queue, meta_rig_done);
		meta_content_get(g.meta, &content, meta_rig_done);
		meta_setting_get(g.meta, &setting, meta_rig_done);
		nth_disarm();
		meta_abort(&gone.req);
		for (int i = 0; i < 7; i++)
			cr_assert(!end[i].done);
		meta_rig_settle(&g);
		fired = nth_fired();
		for (int i = 0; i < 7; i++) {
			cr_assert(end[i].done && (end[i].err == 0 || end[i].err == -ENOMEM));
			nomem += end[i].err != 0;
		}
		cr_assert(!end[7].done);
		cr_assert_eq(queue.count, end[4].err == 0);
		cr_assert_eq(content.path != NULL && content.blob != NULL, end[5].err == 0);
		cr_assert_eq(setting.blob != NULL, end[6].err == 0);
		cr_assert(nomem <= 1 && (nomem == 1 || n == 3 || !fired), "%u: %u", n, nomem);
		meta_scan_free(&scan);
		meta_intents_free(&all);
		meta_queue_free(&queue);
		meta_content_free(&content);
		meta_setting_free(&setting);
	}
}

Test(meta_nomem, several_without_memory)
{
	struct meta_rig_end end[4];
	struct meta_get get[4];

	memset(end, 0, sizeof(end));
	memset(get, 0, sizeof(get));
	meta_rig_open(&g);
	for (int i = 0; i < 4; i++) {
		get[i].req.user = &end[i];
		get[i].path = "a";
		nth_arm(1);
		meta_get(g.meta, &get[i], meta_rig_done);
		cr_assert(nth_fired());
	}
	meta_abort(&get[1].req);
	meta_abort(&get[3].req);
	meta_rig_settle(&g);
	for (int i = 0; i < 4; i++) {
		cr_assert_eq(end[i].done, i % 2 == 0);
		cr_assert(i % 2 != 0 || end[i].err == -ENOMEM);
	}
}

Test(meta_nomem, making)
{
	struct meta_env env = {.loop = g.loop, .pool = g.pool, .cfg = g.cfg, .epoch = &g.epoch};
	bool fired = true;

	for (unsigned n = 1; fired; n++) {
		struct meta *m;
		int err;

		nth_arm(n);
		err = meta_new(&m, &env, g.dir);
		fired = nth_fired();
		cr_assert_eq(err, fired ? -ENOMEM : 0);
		cr_assert_eq(m == NULL, fired);
		meta_free(&m);
	}
}

/* --- What jobs do, in this thread */

static struct db *open_db(void)
{
	struct errtext et = { "" };
	struct db *db;

	cr_assert_eq(db_open(&db, g.dir, 64 * MIB, &g.epoch, NULL, &et), 0, "%s", et.s);
	return db;
}

Test(meta_nomem, opening)
{
	bool fired = true;
	unsigned failed = 0;

	for (unsigned n = 1; fired; n++) {
		struct errtext et = { "" };
		struct db *db;
		int err;

		nth_arm(n);
		err = db_open(&db, g.dir, 64 * MIB, &g.epoch, NULL, &et);
		fired = nth_fired();
		cr_assert(err == 0 || fired, "%u: %d %s", n, err, et.s);
		cr_assert(err == 0 || et.s[0] != '\0');
		failed += err != 0;
		db_close(&db);
	}
	cr_assert_gt(failed, 3);
	meta_rig_open(&g);
}

static void call_init(struct meta_call *c, struct meta_calls *calls, enum meta_op op,
    struct meta_change *ch, unsigned n)
{
	memset(c, 0, sizeof(*c));
	c->op = op;
	c->path = "";
	c->max = 100;
	c->changes = ch;
	c->n = n;
	TAILQ_INSERT_TAIL(calls, c, link);
}

static int mode_of(struct db *db, const char *path)
{
	struct meta_calls calls = TAILQ_HEAD_INITIALIZER(calls);
	struct db_report rep = { .commits = 0 };
	struct meta_call c;

	call_init(&c, &calls, META_OP_GET, NULL, 0);
	c.path = path;
	db_read(db, &calls, &rep);
	return c.err != 0 ? c.err : (int)c.rec.mode;
}

Test(meta_nomem, writing)
{
	static char blob[20000];
	struct db *db = open_db();
	uint64_t version = 0;
	bool fired = true;
	unsigned failed = 0;

	for (unsigned n = 1; fired; n++) {
		struct meta_calls calls = TAILQ_HEAD_INITIALIZER(calls);
		struct db_report rep = { .commits = 0 };
		char path[2][32], other[32];
		struct meta_change one[3], two[4];
		struct meta_call c[2];

		for (int i = 0; i < 2; i++)
			(void)snprintf(path[i], sizeof(path[i]), "%d/%u/f", i, n);
		one[0] = meta_rig_file(path[0], n);
		one[1] = meta_rig_file("0/x/y", n);
		one[2] = meta_rig_move(path[0], "0/moved");
		two[0] = meta_rig_del("1");
		two[1] = meta_rig_content(path[1], n, META_STATE_NOT_PERSISTED, 5000);
		two[1].rec.mode = n;
		two[1].blob = blob;
		two[1].blob_len = 5000;
		(void)snprintf(other, sizeof(other), "1/%u/x/g", n);
		two[2] = meta_rig_content(other, 1000 + n, META_STATE_FAILED, 1);
		two[3] = (struct meta_change){ .verb = META_SETTING_PUT,
			.id = 1,
			.blob = blob,
			.blob_len = sizeof(blob),
			.if_version = version };
		call_init(&c[0], &calls, META_OP_TXN, one, 3);
		call_init(&c[1], &calls, META_OP_TXN, two, 4);
		nth_arm(n);
		db_write(db, &calls, &rep);
		fired = nth_fired();
		for (int i = 0; i < 2; i++) {
			cr_assert(c[i].err == 0 || (fired && c[i].err == -ENOMEM),
			    "allocation %u, call %d: %d %s", n, i, c[i].err, rep.et.s);
			failed += c[i].err != 0;
		}
		cr_assert(!rep.broken);
		cr_assert_eq(mode_of(db, "0/moved") == (int)n, c[0].err == 0);
		cr_assert_eq(mode_of(db, "0/x/y") == (int)n, c[0].err == 0);
		cr_assert_eq(mode_of(db, path[1]), c[1].err == 0 ? (int)n : -ENOENT);
		version += c[1].err == 0;
		blob[n]++;
		meta_check(g.dir);
		TAILQ_INIT(&calls);
		db_write(db, &calls, &rep); /* sweeps what the failure has left */
		cr_assert_eq(meta_check(g.dir).content, version > 0 ? 2 : 0);
	}
	cr_assert_gt(failed, 3);
	db_close(&db);
}

Test(meta_nomem, reading)
{
	struct meta_change ch[60];
	char path[60][16], blob[3000] = "";
	bool fired = true;
	unsigned failed = 0;
	struct db *db;

	meta_rig_open(&g);
	for (unsigned i = 0; i < ARRAY_LEN(ch); i++) {
		(void)snprintf(path[i], sizeof(path[i]), "%u", i);
		ch[i] = meta_rig_file(path[i], i);
		if (i >= 30)
			ch[i] = meta_rig_content(path[i], i, META_STATE_NOT_PERSISTED, sizeof(blob));
		if (i == 49) {
			ch[i].blob = blob;
			ch[i].blob_len = sizeof(blob);
		}
		if (i >= 50)
			ch[i] = (struct meta_change){ .verb = META_INTENT_PUT,
				.id = i,
				.blob = blob,
				.blob_len = sizeof(blob) };
	}
	cr_assert_eq(meta_rig_txn(&g, ch, ARRAY_LEN(ch)), 0);
	meta_rig_free(&g);
	db = open_db();
	for (unsigned n = 1; fired; n++) {
		struct meta_calls calls = TAILQ_HEAD_INITIALIZER(calls);
		struct db_report rep = { .commits = 0 };
		static const size_t want[] = { 50, 10, 20, 0 };
		struct meta_call c[4];

		call_init(&c[0], &calls, META_OP_SCAN, NULL, 0);
		call_init(&c[1], &calls, META_OP_INTENTS, NULL, 0);
		call_init(&c[2], &calls, META_OP_QUEUE, NULL, 0);
		c[2].until_ns = UINT64_MAX;
		call_init(&c[3], &calls, META_OP_CONTENT, NULL, 0);
		c[3].id = META_RIG_ID(49);
		nth_arm(n);
		db_read(db, &calls, &rep);
		fired = nth_fired();
		for (int i = 0; i < 4; i++) {
			cr_assert(c[i].err == 0 || (fired && c[i].err == -ENOMEM));
			cr_assert_eq(c[i].count, c[i].err != 0 ? 0 : want[i]);
			cr_assert(i < 3 || c[i].err != 0 || c[i].blob != NULL);
			failed += c[i].err != 0;
			free(c[i].blob);
			free(c[i].entries);
			free(c[i].intents);
			free(c[i].arena);
		}
	}
	cr_assert_gt(failed, 5);
	db_close(&db);
}
