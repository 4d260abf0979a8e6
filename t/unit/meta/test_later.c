/* SPDX-License-Identifier: BSD-2-Clause */
/* Changes that wait in the state database: seen at once, kept by a death, in order. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/obj.h"
#include "meta_check.h"
#include "meta_rig.h"
#include "reactor/statedb.h"

static struct meta_rig g;
static struct statedb *db;
static char state[64];

static void open_db(bool create)
{
	struct errtext et;

	cr_assert_eq(statedb_open(&db, g.loop, state, 16 * MIB, create, &g.epoch, &et), 0, "%s", et.s);
}

static void init(void)
{
	meta_rig_init(&g);
	snprintf(state, sizeof(state), "/dev/shm/batonfs-later-XXXXXX");
	cr_assert_not_null(mkdtemp(state));
	open_db(true);
	meta_rig_new(&g);
	cr_assert_eq(meta_set_db(g.meta, db), 0);
}

static void fini(void)
{
	char path[96];

	if (g.meta != NULL)
		meta_set_db(g.meta, NULL);
	statedb_close(&db);
	meta_rig_fini(&g);
	snprintf(path, sizeof(path), "%s/data.mdb", state);
	unlink(path);
	rmdir(state);
}

TestSuite(meta_later, .init = init, .fini = fini);

static int later(const struct meta_change *changes, unsigned n)
{
	struct meta_rig_end end = {.done = false};
	struct meta_txn rq = {.req.user = &end, .changes = changes, .n = n, .later = true};

	meta_txn(g.meta, &rq, meta_rig_done);
	cr_assert(!end.done, "answered inline");
	while (!end.done)
		loop_turn(g.loop, false);
	return end.err;
}

static int later_put(const char *path, uint32_t mode)
{
	struct meta_change ch = meta_rig_file(path, mode);

	return later(&ch, 1);
}

static int later_del(const char *path)
{
	struct meta_change ch = meta_rig_del(path);

	return later(&ch, 1);
}

/* All that waits goes to the disk. */
static void flushed(void)
{
	meta_flush(g.meta);
	meta_rig_settle(&g);
	cr_assert_eq(meta_waiting(g.meta), 0);
	cr_assert_eq(statedb_count(db, STATEDB_META_LATER), 0);
}

static void die_and_come_back(void)
{
	meta_set_db(g.meta, NULL);
	meta_rig_free(&g);
	statedb_close(&db);
	open_db(false);
	meta_rig_new(&g);
	cr_assert_eq(meta_set_db(g.meta, db), 0);
	meta_open(g.meta);
}

Test(meta_later, answered_before_the_disk_and_seen_at_once)
{
	meta_open(g.meta);
	meta_rig_settle(&g);
	uint64_t commits = meta_rig_counter(&g, CTR_META_COMMITS);

	cr_assert_eq(later_put("d/a", 0600), 0);
	cr_assert_eq(later_put("d/b", 0640), 0);
	cr_assert_eq(meta_rig_counter(&g, CTR_META_COMMITS), commits);
	cr_assert_eq(meta_waiting(g.meta), 2);
	cr_assert_eq(meta_rig_mode(&g, "d/a"), 0600);
	cr_assert_str_eq(meta_rig_list(&g, "d"), "a b");
	flushed();
	cr_assert_eq(meta_rig_counter(&g, CTR_META_COMMITS), commits + 1, "together");
	cr_assert_eq(meta_rig_mode(&g, "d/a"), 0600);
	cr_assert_str_eq(meta_rig_list(&g, "d"), "a b");
}

Test(meta_later, over_what_the_store_has)
{
	meta_open(g.meta);
	cr_assert_eq(meta_rig_put(&g, "d/a", 0600), 0);
	cr_assert_eq(meta_rig_put(&g, "d/c", 0600), 0);
	cr_assert_eq(meta_rig_put(&g, "d/e", 0600), 0);
	cr_assert_eq(later_put("d/a", 0644), 0);
	cr_assert_eq(later_del("d/c"), 0);
	cr_assert_eq(later_put("d/b", 0644), 0);
	cr_assert_eq(later_put("d/z", 0644), 0);
	cr_assert_eq(later_put("below/d", 0644), 0);
	cr_assert_eq(later_put("other/q", 0644), 0);
	cr_assert_eq(meta_rig_mode(&g, "d/a"), 0644);
	cr_assert_eq(meta_rig_mode(&g, "d/c"), -ENOENT);
	cr_assert_str_eq(meta_rig_list(&g, "d"), "a b e z");
	cr_assert_eq(later_del("d/b"), 0, "the newest counts");
	cr_assert_str_eq(meta_rig_list(&g, "d"), "a e z");
	flushed();
	cr_assert_str_eq(meta_rig_list(&g, "d"), "a e z");
	cr_assert_eq(meta_rig_mode(&g, "d/a"), 0644);
}

Test(meta_later, a_scan_in_pieces_has_all_of_it_once)
{
	struct meta_scan scan = {.path = "d", .max = 3};
	char name[8], after[8] = "", all[400] = "";

	meta_open(g.meta);
	for (char c = 'a'; c <= 'z'; c++) {
		snprintf(name, sizeof(name), "d/%c", c);
		cr_assert_eq(c % 3 == 0 ? later_put(name, 0600) : meta_rig_put(&g, name, 0600), 0);
		/* A strict one takes what waits with it: so some more. */
		if (c % 5 == 0)
			cr_assert_eq(later_del(name), 0);
	}
	for (char c = 'a'; c <= 'z'; c += 4) {
		snprintf(name, sizeof(name), "d/%c1", c);
		cr_assert_eq(later_put(name, 0600), 0);
	}
	do {
		scan.after = after[0] != '\0' ? after : NULL;
		cr_assert_eq(meta_rig_scan(&g, &scan), 0);
		for (size_t i = 0; i < scan.count; i++) {
			strcat(all, scan.entries[i].name);
			snprintf(after, sizeof(after), "%s", scan.entries[i].name);
		}
		cr_assert(!scan.more || scan.count > 0);
	} while (scan.more);
	meta_scan_free(&scan);
	cr_assert_str_eq(all, "aa1bcee1fghi1jklmm1opqq1rtuu1vwyy1z");
}

Test(meta_later, kept_by_a_death_before_and_after_the_opening)
{
	cr_assert_eq(later_put("a", 0600), 0, "not open yet");
	meta_open(g.meta);
	cr_assert_eq(later_put("b", 0604), 0);
	cr_assert_eq(later_put("c", 0600), 0);
	cr_assert_eq(later_del("c"), 0);
	die_and_come_back();
	cr_assert_eq(meta_waiting(g.meta), 3);
	cr_assert_eq(meta_rig_mode(&g, "b"), 0604);
	flushed();
	cr_assert_eq(meta_rig_mode(&g, "a"), 0600);
	cr_assert_eq(meta_rig_mode(&g, "c"), -ENOENT);
	die_and_come_back();
	cr_assert_eq(meta_rig_mode(&g, "b"), 0604);
}

Test(meta_later, what_does_not_wait_comes_after_what_does)
{
	struct meta_change move = meta_rig_move("src", "dst");
	char path[32];

	meta_open(g.meta);
	/* More than one flush takes. */
	for (unsigned i = 0; i < 1300; i++) {
		snprintf(path, sizeof(path), "src/%u", i);
		cr_assert_eq(later_put(path, 0600 + i % 8), 0);
	}
	cr_assert_eq(meta_rig_txn(&g, &move, 1), 0);
	cr_assert_eq(meta_rig_mode(&g, "dst/0"), 0600);
	cr_assert_eq(meta_rig_mode(&g, "dst/1299"), 0600 + 1299 % 8);
	cr_assert_eq(meta_rig_mode(&g, "src/1299"), -ENOENT);
	flushed();
	cr_assert_str_eq(meta_rig_list(&g, "src"), "");
}

Test(meta_later, each_waits_for_the_disk_if_so_configured)
{
	meta_rig_set(&g, "meta.sync.period", "0s");
	meta_open(g.meta);
	cr_assert_eq(later_put("a", 0600), 0);
	cr_assert_eq(meta_waiting(g.meta), 0);
}

Test(meta_later, only_puts_and_deletions_wait)
{
	struct meta_change ch[2] = {meta_rig_file("a", 0600), meta_rig_move("x", "y")};

	meta_open(g.meta);
	cr_assert_eq(later(ch, 2), 0);
	cr_assert_eq(meta_waiting(g.meta), 0);
	cr_assert_eq(meta_rig_mode(&g, "a"), 0600);
}

Test(meta_later, one_that_is_refused_does_not_stop_the_others)
{
	char path[16];

	log_set_level(LOG_LVL_ERROR);
	meta_open(g.meta);
	for (unsigned i = 0; i < 20; i++) {
		snprintf(path, sizeof(path), i == 7 ? "f/6/below" : "f/%u", i);
		cr_assert_eq(later_put(path, 0600), 0);
	}
	flushed();
	cr_assert_eq(meta_rig_mode(&g, "f/0"), 0600);
	cr_assert_eq(meta_rig_mode(&g, "f/6"), 0600);
	cr_assert_eq(meta_rig_mode(&g, "f/19"), 0600);
	cr_assert_lt(meta_rig_mode(&g, "f/6/below"), 0);
}

Test(meta_later, goes_by_itself_when_its_time_has_come)
{
	meta_open(g.meta);
	cr_assert_eq(later_put("a", 0600), 0);
	meta_rig_settle(&g);
	for (int i = 0; i < 100 && meta_waiting(g.meta) > 0; i++) {
		test_clock_advance(&g.clock, 10 * NS_PER_MS);
		meta_rig_settle(&g);
	}
	cr_assert_eq(meta_waiting(g.meta), 0);
}

/* --- Content */

static const char *queue(void)
{
	static char text[200];
	struct meta_queue q = {.until_ns = UINT64_MAX};

	cr_assert_eq(meta_rig_queue(&g, &q), 0);
	text[0] = '\0';
	for (size_t i = 0; i < q.count; i++) {
		size_t n = strlen(text);

		snprintf(text + n, sizeof(text) - n, "%s:%o ", q.entries[i].name,
		    q.entries[i].rec.mode);
	}
	meta_queue_free(&q);
	return text;
}

Test(meta_later, content_waits_too)
{
	struct meta_change ch = meta_rig_content("d/f", 1, META_STATE_NOT_PERSISTED, 3);
	struct meta_content_get rq = {.id = META_RIG_ID(1)};
	struct meta_record rec;

	ch.blob = "abc";
	ch.blob_len = 3;
	meta_open(g.meta);
	cr_assert_eq(later(&ch, 1), 0, "with bytes it does not");
	cr_assert_eq(meta_waiting(g.meta), 0);
	/* What chmod(2) does, before the machine or the daemon stops. */
	ch.blob = NULL;
	ch.rec.mode = 0640;
	ch.rec.content.tries = 2;
	cr_assert_eq(later(&ch, 1), 0);
	cr_assert_eq(meta_waiting(g.meta), 1);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(meta_rig_get(&g, "d/f", &rec), 0);
		cr_assert_eq(rec.mode, 0640);
		cr_assert_eq(memcmp(&rec.content, &ch.rec.content, sizeof(rec.content)), 0);
		cr_assert_eq(meta_waiting(g.meta), 1);
		die_and_come_back();
	}
	cr_assert_str_eq(queue(), "d/f:640 ");
	cr_assert_eq(meta_waiting(g.meta), 0, "the queue has seen it");
	cr_assert_eq(later(&ch, 1), 0);
	cr_assert_eq(meta_rig_content_get(&g, &rq), 0);
	cr_assert_eq(meta_waiting(g.meta), 0);
	cr_assert_eq(rq.rec.mode, 0640);
	cr_assert_str_eq(rq.blob, "abc", "kept");
	meta_content_free(&rq);
	/* A guard is the store's business. */
	ch.if_content = META_RIG_ID(2);
	ch.rec.content.id = META_RIG_ID(3);
	cr_assert_eq(later(&ch, 1), -EEXIST);
	cr_assert_eq(meta_rig_status(&g).tally.files[META_STATE_NOT_PERSISTED], 1);
	cr_assert_eq(later_del("d/f"), 0);
	flushed();
	cr_assert_eq(meta_rig_status(&g).tally.files[META_STATE_NOT_PERSISTED], 0);
	cr_assert_str_eq(queue(), "");
	meta_check(g.dir);
}

/* Records change in any order, some later and some not: what is beside them follows. */
Test(meta_later, content_that_changes_often)
{
	char path[16];
	unsigned seed = 1;

	meta_open(g.meta);
	for (unsigned i = 0; i < 600; i++) {
		struct meta_change ch;

		seed = seed * 1103515245 + 12345;
		snprintf(path, sizeof(path), "%u/%u", seed >> 16 & 1, seed >> 18 & 7);
		ch = meta_rig_content(path, 1 + (seed >> 16 & 1) * 8 + (seed >> 18 & 7),
		    META_STATE_NOT_PERSISTED + (seed >> 22) % 4, seed >> 24);
		switch (seed >> 28 & 3) {
		case 0:
			cr_assert_eq(meta_rig_txn(&g, &ch, 1), 0);
			break;
		case 1:
			cr_assert_eq(later_del(path), 0);
			break;
		default:
			cr_assert_eq(later(&ch, 1), 0);
		}
		if (i % 100 == 50)
			die_and_come_back();
	}
	flushed();
	cr_assert_gt(meta_check(g.dir).content, 3);
}

/* The rows that the first daemon to write such left for this one. */
Test(meta_later, rows_of_an_older_daemon)
{
	static const unsigned char put[] = {
		1, 0, 57,					/* format, META_PUT, length */
		1, 1, META_HAS_MODE, 1,				/* version, kind, has, length */
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* directory, move */
		0, 0, 1, 0xa0, 0, 0, 0, 0, 0, 0, 0, 0,		/* mode, uid, gid */
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,		/* mtime */
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'v',	/* atime, version */
		'd', '/', 'f',
	};
	static const unsigned char del[] = {1, 1, 0, 'd', '/', 'x'};
	unsigned char key[2][8] = {{0, 0, 0, 0, 0, 0, 0, 5}, {0, 0, 0, 0, 0, 0, 0, 6}};
	struct meta_record rec;

	meta_open(g.meta);
	cr_assert_eq(meta_rig_put(&g, "d/x", 1), 0);
	cr_assert_eq(statedb_put(db, STATEDB_META_LATER, key[0], 8, put, sizeof(put)), 0);
	cr_assert_eq(statedb_put(db, STATEDB_META_LATER, key[1], 8, del, sizeof(del)), 0);
	die_and_come_back();
	cr_assert_eq(meta_waiting(g.meta), 2);
	cr_assert_eq(meta_rig_get(&g, "d/f", &rec), 0);
	cr_assert_eq(rec.mode, 0640);
	cr_assert_str_eq(rec.version, "v");
	flushed();
	cr_assert_eq(meta_rig_mode(&g, "d/f"), 0640);
	cr_assert_eq(meta_rig_mode(&g, "d/x"), -ENOENT);
}
