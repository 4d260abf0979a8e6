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

TestSuite(meta_later, .init = init, .fini = fini, .timeout = 60);

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
