/* SPDX-License-Identifier: BSD-2-Clause */
/* Files of the queue whose tries fail, and what ends an outage. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"
#include "ops/persist_priv.h"
#include "persist_rig.h"

#define HOUR (3600 * NS_PER_S)
#define SIZE 1000u

TestSuite(persist_again, .init = pr_begin, .fini = pr_finish);

static void outage(unsigned files, unsigned tries)
{
	char path[32];

	fake_store_fail(&pr.ufs.store, FAKE_PUT, 1, 1000000, -EIO, false);
	for (unsigned n = 0; n < files; n++) {
		(void)snprintf(path, sizeof(path), "%u", n);
		pr_put(path, n, SIZE);
	}
	persist_resume(pr.fs);
	for (unsigned i = 0; i < tries; i++) {
		pr_until_waiting_for_the_clock();
		test_clock_advance(&pr.clock, HOUR);
	}
	pr_until_waiting_for_the_clock();
	memset(pr.ufs.store.fault, 0, sizeof(pr.ufs.store.fault));
}

Test(persist_again, what_was_put_off_goes_when_the_storage_is_back)
{
	struct meta_record rec;
	uint64_t began;
	char path[32];

	outage(12, 13);
	rec = pr_get("7");
	cr_assert_gt(rec.content.next_ns, loop_wall(pr.loop) + HOUR / 4);
	began = loop_now(pr.loop);
	pr_put("new", 1000, SIZE);
	while (pr_tally().files[META_STATE_PERSISTED] < 13 &&
	       loop_now(pr.loop) - began < 60 * NS_PER_S)
		pr_serve();
	cr_assert_eq(pr_tally().files[META_STATE_PERSISTED], 13);
	pr_until_quiet();
	for (unsigned n = 0; n < 12; n++) {
		(void)snprintf(path, sizeof(path), "%u", n);
		cr_assert(pr_same_bytes(path, SIZE));
	}
	pr_nothing_left();
	cr_assert(!pr.fs->persist->put_off);
}

Test(persist_again, what_goes_well_once_is_no_end_of_an_outage)
{
	uint64_t began;
	unsigned tries;

	outage(12, 13);
	tries = pr_get("7").content.tries;
	fake_store_fail(&pr.ufs.store, FAKE_PUT, 2, 1000000, -EIO, false);
	began = loop_now(pr.loop);
	pr_put("new", 1000, SIZE);
	pr_until_persisted(1);
	pr_until_waiting_for_the_clock();
	cr_assert_eq(pr_tally().files[META_STATE_PERSISTED], 1);
	cr_assert_leq(pr_get("7").content.tries, tries + 1);
	cr_assert_lt(loop_now(pr.loop) - began, HOUR / 4);
}

/* One alone is no outage, however often others go well. */
Test(persist_again, one_that_always_fails_is_not_tried_with_each_that_goes_well)
{
	struct meta_record rec;
	char path[32];

	fake_add(&pr.ufs, "no-dir", UFS_FILE, 1, "v");
	pr_put("no-dir/file", 1000, SIZE);
	persist_resume(pr.fs);
	pr_until_waiting_for_the_clock();
	for (unsigned n = 0; n < 60; n++) {
		(void)snprintf(path, sizeof(path), "%u", n);
		pr_put(path, n, SIZE);
		pr_until_persisted(n + 1);
		test_clock_advance(&pr.clock, 300 * NS_PER_MS);
	}
	rec = pr_get("no-dir/file");
	cr_assert_eq(rec.content.state, META_STATE_NOT_PERSISTED);
	cr_assert_geq(rec.content.tries, 3);
	cr_assert_leq(rec.content.tries, 20, "%u", rec.content.tries);
}

/* --- Whoever lists the queue */

struct watch {
	struct persist_watch w;
	uint64_t content, next_ns;
	unsigned n;
};

static void moves(struct persist_watch *w, uint64_t content, uint64_t next_ns)
{
	struct watch *x = container_of(w, struct watch, w);

	x->content = content;
	x->next_ns = next_ns;
	x->n++;
}

Test(persist_again, who_watches_is_told_where_a_file_was)
{
	struct watch x = {.w.moves = moves};
	struct meta_record rec;

	fake_store_fail(&pr.ufs.store, FAKE_PUT, 1, 1000000, -EIO, false);
	pr_put("file", 1, SIZE);
	persist_watch(pr.fs, &x.w);
	persist_resume(pr.fs);
	pr_until_waiting_for_the_clock();
	cr_assert_eq(x.n, 1);
	cr_assert_eq(x.content, pr_id_of(1));
	cr_assert_eq(x.next_ns, 0);
	rec = pr_get("file");
	test_clock_advance(&pr.clock, 10 * NS_PER_S);
	pr_until_waiting_for_the_clock();
	cr_assert_geq(x.n, 2);
	cr_assert_geq(x.next_ns, rec.content.next_ns);
	persist_unwatch(&x.w);
	test_clock_advance(&pr.clock, HOUR);
	rec.content.tries = x.n;
	pr_until_waiting_for_the_clock();
	cr_assert_eq(x.n, rec.content.tries);
	cr_assert_gt(pr_get("file").content.tries, rec.content.tries);
}
