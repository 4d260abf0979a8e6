/* SPDX-License-Identifier: BSD-2-Clause */
/* Files of the queue wait while others are written. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <unistd.h>

#include "base/units.h"
#include "ops/persist_priv.h"
#include "persist_rig.h"

#define SIZE 1000u

TestSuite(persist_pause, .init = pr_begin, .fini = pr_finish);

/* No time passes. */
static void turn(void)
{
	if (!loop_turn(pr.loop, false))
		usleep(50);
}

static void resume(void)
{
	persist_resume(pr.fs);
	while (!pr.fs->persist->next_known)
		turn();
}

static void written(const char *path, unsigned n)
{
	struct meta_record rec = pr_record(n, SIZE);

	pr_commit_record(path, &rec, turn);
	persist_written(pr.fs);
}

/* Whether anything is, by this time. */
static bool begun(void)
{
	test_loop_settle(pr.loop);
	return pr.fs->persist->asking || pr.fs->persist->running[PERSIST_SMALL] > 0 ||
	       pr_tally().files[META_STATE_PERSISTED] > 0;
}

Test(persist_pause, waits_for_a_pause_of_the_writing)
{
	char path[32];

	resume();
	for (unsigned n = 0; n < 50; n++) {
		(void)snprintf(path, sizeof(path), "%u", n);
		written(path, n);
		test_clock_advance(&pr.clock, 10 * NS_PER_MS);
		cr_assert(!begun(), "after %u", n);
	}
	test_clock_advance(&pr.clock, 10 * NS_PER_MS);
	cr_assert(begun());
	pr_until_persisted(50);
}

Test(persist_pause, does_not_wait_for_a_pause_for_ever)
{
	char path[32];
	unsigned n;

	pr.cfg->persist_give_way = 300 * NS_PER_MS;
	resume();
	for (n = 0; n < 30; n++) {
		cr_assert(!begun(), "after %u", n);
		(void)snprintf(path, sizeof(path), "%u", n);
		written(path, n);
		test_clock_advance(&pr.clock, 10 * NS_PER_MS);
	}
	cr_assert(begun());
	pr_until_persisted(n);
	/* Nothing waits any more: from here on it does again. */
	written("again", n);
	test_loop_settle(pr.loop);
	cr_assert(!pr.fs->persist->asking && pr.fs->persist->running[PERSIST_SMALL] == 0);
	pr_until_persisted(n + 1);
}

Test(persist_pause, does_not_wait_when_room_is_short)
{
	char path[32];

	pr.cfg->page_store_size = 100 * SIZE;
	pr.cfg->pinned_ratio = 0.1;
	resume();
	for (unsigned n = 0; n < 6; n++) {
		cr_assert(!begun(), "after %u", n);
		(void)snprintf(path, sizeof(path), "%u", n);
		written(path, n);
	}
	cr_assert(begun());
	pr_until_persisted(6);
}
