/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "reactor/loop.h"
#include "reactor/statedb.h"
#include "takeover/tally.h"

Test(tally, a_pause_counts_in_the_first_bucket_that_holds_it)
{
	struct takeover_tally t = {.takeovers = 0};

	tally_pause(&t, 0);
	tally_pause(&t, NS_PER_MS);
	tally_pause(&t, NS_PER_MS + 1);
	tally_pause(&t, 30 * NS_PER_S);
	tally_pause(&t, 30 * NS_PER_S + 1);
	cr_assert_eq(t.pause[0], 2);
	cr_assert_eq(t.pause[1], 1);
	cr_assert_eq(t.pause[TALLY_BUCKETS - 2], 1);
	cr_assert_eq(t.pause[TALLY_BUCKETS - 1], 1);
	cr_assert_eq(t.pause_longest_ns, 30 * NS_PER_S + 1);
	cr_assert_eq(t.pause_total_ns, 60 * NS_PER_S + 2 * NS_PER_MS + 2);
}

Test(tally, bounds_rise)
{
	unsigned i;

	for (i = 1; i < TALLY_BOUNDS; i++)
		cr_assert_gt(tally_bounds_ms[i], tally_bounds_ms[i - 1]);
}

Test(tally, what_is_noted_outlives_the_daemon_and_adds_up)
{
	char dir[] = "/dev/shm/batonfs-test-XXXXXX", cmd[128];
	struct takeover_tally a = {.takeovers = 3, .refused = 7, .replayed = 1}, b, c;
	struct epoch ep = {.word = NULL};
	struct statedb *db;
	struct errtext et;
	struct loop *lp;

	cr_assert_eq(loop_new(&lp, &clock_system), 0);
	cr_assert_not_null(mkdtemp(dir));
	cr_assert_eq(statedb_open(&db, lp, dir, 16 << 20, true, &ep, &et), 0, "%s", et.s);
	memset(&b, 0, sizeof(b));
	tally_load(&b, db);
	cr_assert_eq(b.takeovers, 0, "there is no row yet");
	tally_pause(&a, 3 * NS_PER_MS);
	tally_save(&a, db, 4);
	cr_assert_eq(statedb_commit(db), 0);
	statedb_close(&db);
	cr_assert_eq(statedb_open(&db, lp, dir, 16 << 20, false, &ep, &et), 0, "%s", et.s);
	memset(&c, 0, sizeof(c));
	c.failed = 2;
	tally_load(&c, db);
	cr_assert_eq(c.takeovers, 3);
	cr_assert_eq(c.failed, 2);
	cr_assert_eq(c.refused, 7);
	cr_assert_eq(c.replayed, 5);
	cr_assert_eq(c.pause[2], 1);
	cr_assert_eq(c.pause_longest_ns, 3 * NS_PER_MS);
	/* Of an older version: shorter. */
	cr_assert_eq(statedb_put(db, STATEDB_META, "takeovers", 9, &a, 8), 0);
	memset(&b, 0, sizeof(b));
	tally_load(&b, db);
	cr_assert_eq(b.takeovers, 3);
	cr_assert_eq(b.refused, 0);
	statedb_close(&db);
	loop_free(&lp);
	tally_load(&b, NULL);
	tally_save(&b, NULL, 1);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	cr_assert_eq(system(cmd), 0);
}
