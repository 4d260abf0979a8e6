/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nodes.  An embedded store has one; those of a cluster are two stores with one prefix in this
 * process, each on a loop and a clock of its own, and run with BATONFS_TEST_FDB_CLUSTER_FILE
 * alone.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "meta_rig.h"
#include "reactor/statedb.h"

static struct meta_rig g, h;

static void init(void)
{
	meta_rig_init(&g);
	log_set_level(LOG_LVL_ERROR);
	if (g.fdb == NULL)
		return;
	meta_rig_join(&h, &g);
	g.is = (struct meta_identity){ .id = 0x10, .name = "here", .capacity = 100 };
	h.is = (struct meta_identity){ .id = 0x20, .name = "there", .capacity = 200 };
}

static void fini(void)
{
	if (g.fdb != NULL)
		meta_rig_fini(&h);
	meta_rig_fini(&g);
	meta_rig_last();
}

TestSuite(meta_nodes, .init = init, .fini = fini);

static void open_both(void)
{
	if (g.fdb == NULL)
		cr_skip_test("not with the embedded store");
	meta_rig_open(&g);
	meta_rig_open(&h);
}

/* Its clock goes on, and what is due then happens. */
static void pass_time(struct meta_rig *r, uint64_t ns)
{
	test_clock_advance(&r->clock, ns);
	meta_rig_settle(r);
}

/* What one sees of the other; it looks once more before. */
static struct meta_node seen_by(struct meta_rig *r, uint64_t id)
{
	struct meta_node all[8];
	size_t n = meta_nodes(r->meta, all, 8), i = 0;

	cr_assert(all[0].self);
	while (i < n && all[i].is.id != id)
		i++;
	cr_assert_lt(i, n, "node %llx is not known", (unsigned long long)id);
	return all[i];
}

static int put_in(struct meta_rig *r, const char *path, uint64_t no, enum meta_state state)
{
	struct meta_change ch = meta_rig_content(path, no, state, 100);

	return meta_rig_txn(r, &ch, 1);
}

static size_t queued(struct meta_rig *r, uint64_t node)
{
	struct meta_queue q = { .until_ns = UINT64_MAX, .node = node };
	size_t n;

	cr_assert_eq(meta_rig_queue(r, &q), 0);
	n = q.count;
	meta_queue_free(&q);
	return n;
}

static size_t intents_of(struct meta_rig *r)
{
	struct meta_intents all = { .count = 0 };
	size_t n;

	cr_assert_eq(meta_rig_intents(r, &all), 0);
	n = all.count;
	meta_intents_free(&all);
	return n;
}

Test(meta_nodes, one_is_alone)
{
	char name[META_NODE_TEXT];
	struct meta_node all[2];

	g.is = (struct meta_identity){ .id = 5, .name = "me", .capacity = 7 };
	meta_rig_open(&g);
	cr_assert_eq(meta_nodes(g.meta, all, 2), 1);
	cr_assert(all[0].self && all[0].state == META_NODE_ALIVE && all[0].is.capacity == 7);
	cr_assert_str_eq(all[0].is.name, "me");
	cr_assert_eq(meta_self(g.meta), g.fdb != NULL ? 5 : 0);
	cr_assert_str_eq(meta_node_text(g.meta, 5, name), "me");
	cr_assert_str_eq(meta_node_text(g.meta, 6, name), "0000000000000006");
	cr_assert_eq(put_in(&g, "f", 1, META_STATE_NOT_PERSISTED), 0);
	cr_assert_eq(queued(&g, 0), 1);
}

/* What need not be on the disk before it is answered could not be seen elsewhere until then. */
Test(meta_nodes, what_may_come_later_does_not)
{
	char state[] = "/dev/shm/batonfs-nodes-XXXXXX", file[sizeof(state) + 16];
	struct meta_change ch = meta_rig_file("f", 0600);
	struct meta_rig_end end = { .done = false };
	struct meta_txn rq = { .req.user = &end, .changes = &ch, .n = 1, .later = true };
	struct statedb *db;
	struct errtext et;

	open_both();
	cr_assert_not_null(mkdtemp(state));
	cr_assert_eq(statedb_open(&db, g.loop, state, 16 * MIB, true, &g.epoch, &et), 0);
	cr_assert_eq(meta_set_db(g.meta, db), 0);
	meta_txn(g.meta, &rq, meta_rig_done);
	meta_rig_until(&g, &end.done);
	cr_assert_eq(end.err, 0);
	cr_assert_eq(meta_waiting(g.meta), 0);
	cr_assert_eq(meta_rig_mode(&h, "f"), 0600);
	meta_set_db(g.meta, NULL);
	statedb_close(&db);
	snprintf(file, sizeof(file), "%s/data.mdb", state);
	unlink(file);
	rmdir(state);
}

Test(meta_nodes, each_has_its_own_queue_intents_and_tally)
{
	struct meta_change in = { .verb = META_INTENT_PUT, .id = 1, .blob = "x", .blob_len = 1 };
	struct meta_record rec;

	open_both();
	cr_assert_eq(put_in(&g, "d/f", 1, META_STATE_NOT_PERSISTED), 0);
	cr_assert_eq(put_in(&h, "d/e", 2, META_STATE_FAILED), 0);
	cr_assert_eq(meta_rig_txn(&g, &in, 1), 0);
	/* The records are everybody's. */
	cr_assert_eq(meta_rig_get(&h, "d/f", &rec), 0);
	cr_assert(rec.content.node == 0x10 && !meta_is_here(h.meta, &rec.content));
	cr_assert(meta_is_here(g.meta, &rec.content));
	cr_assert_str_eq(meta_rig_list(&g, "d"), "e f");
	cr_assert(queued(&g, 0) == 1 && queued(&h, 0) == 1 && queued(&h, 0x10) == 1);
	cr_assert(intents_of(&g) == 1 && intents_of(&h) == 0);
	cr_assert_eq(meta_rig_status(&g).tally.files[META_STATE_NOT_PERSISTED], 1);
	cr_assert_eq(meta_rig_status(&g).tally.files[META_STATE_FAILED], 0);
	cr_assert_eq(meta_rig_status(&h).tally.files[META_STATE_FAILED], 1);
	meta_rig_check(&g);
}

Test(meta_nodes, what_waits_elsewhere_is_not_replaced)
{
	struct meta_change del = meta_rig_del("f");
	struct meta_change mode;

	open_both();
	cr_assert_eq(put_in(&g, "f", 1, META_STATE_NOT_PERSISTED), 0);
	cr_assert_eq(put_in(&h, "f", 2, META_STATE_NOT_PERSISTED), -EEXIST);
	cr_assert_eq(meta_rig_put(&h, "f", 0600), -EEXIST);
	cr_assert_eq(meta_rig_txn(&h, &del, 1), -EBUSY);
	/* The same content: it stays with its node. */
	mode = meta_rig_content("f", 1, META_STATE_NOT_PERSISTED, 100);
	mode.rec.mode = 0700;
	mode.rec.content.node = 0x10;
	cr_assert_eq(meta_rig_txn(&h, &mode, 1), 0);
	cr_assert(meta_rig_mode(&g, "f") == 0700 && queued(&g, 0) == 1 && queued(&h, 0) == 0);
	/* In the storage it is anybody's; and the tally is that of its node. */
	cr_assert_eq(put_in(&g, "f", 1, META_STATE_PERSISTED), 0);
	cr_assert_eq(meta_rig_txn(&h, &del, 1), 0);
	cr_assert_eq(meta_rig_mode(&g, "f"), -ENOENT);
	pass_time(&g, 3 * NS_PER_S);
	cr_assert_eq(meta_rig_status(&g).tally.files[META_STATE_PERSISTED], 0);
	meta_rig_check(&g);
}

Test(meta_nodes, a_lease_is_judged_by_the_observers_clock)
{
	meta_rig_set(&g, "meta.node.heartbeat", "1s");
	meta_rig_set(&g, "meta.node.expiry", "5s");
	open_both();
	pass_time(&g, 2 * NS_PER_S);
	cr_assert_eq(seen_by(&g, 0x20).state, META_NODE_UNKNOWN);
	cr_assert_eq(seen_by(&g, 0x20).is.capacity, 200);
	pass_time(&h, 2 * NS_PER_S);
	pass_time(&g, NS_PER_S);
	cr_assert_eq(seen_by(&g, 0x20).state, META_NODE_ALIVE);
	for (int i = 0; i < 4; i++)
		pass_time(&g, NS_PER_S);
	cr_assert_eq(seen_by(&g, 0x20).state, META_NODE_ALIVE);
	cr_assert_eq(seen_by(&g, 0x20).silent_ns, 4 * NS_PER_S);
	pass_time(&g, NS_PER_S);
	cr_assert_eq(seen_by(&g, 0x20).state, META_NODE_DEAD);
	/* Whatever its own clock says. */
	pass_time(&h, 2 * NS_PER_S);
	pass_time(&g, NS_PER_S);
	cr_assert_eq(seen_by(&g, 0x20).state, META_NODE_ALIVE);
}

Test(meta_nodes, who_did_not_look_has_not_seen_silence)
{
	meta_rig_set(&g, "meta.node.heartbeat", "1s");
	meta_rig_set(&g, "meta.node.expiry", "5s");
	open_both();
	pass_time(&g, NS_PER_S);
	pass_time(&h, 2 * NS_PER_S);
	pass_time(&g, NS_PER_S);
	cr_assert_eq(seen_by(&g, 0x20).state, META_NODE_ALIVE);
	pass_time(&g, 100 * NS_PER_S);
	cr_assert_eq(seen_by(&g, 0x20).state, META_NODE_ALIVE);
	cr_assert_eq(seen_by(&g, 0x20).silent_ns, 2 * NS_PER_S);
}

Test(meta_nodes, leaving_is_no_death_and_it_comes_back_as_itself)
{
	open_both();
	meta_leave(h.meta);
	meta_rig_free(&h);
	pass_time(&g, 2 * NS_PER_S);
	cr_assert_eq(seen_by(&g, 0x20).state, META_NODE_LEFT);
	pass_time(&g, 1000 * NS_PER_S);
	cr_assert_eq(seen_by(&g, 0x20).state, META_NODE_LEFT);
	meta_rig_open(&h);
	pass_time(&g, 2 * NS_PER_S);
	cr_assert_eq(seen_by(&g, 0x20).state, META_NODE_ALIVE);
}

Test(meta_nodes, of_two_with_one_id_the_newer_fences_the_older)
{
	if (g.fdb == NULL)
		cr_skip_test("not with the embedded store");
	h.is = g.is;
	meta_rig_open(&g);
	cr_assert_eq(meta_rig_put(&g, "a", 0600), 0);
	meta_rig_open(&h);
	cr_assert_eq(meta_rig_put(&g, "b", 0600), -ESTALE);
	cr_assert_eq(meta_rig_put(&h, "b", 0600), 0);
	cr_assert_str_eq(meta_rig_list(&g, ""), "a b");
	cr_assert(strstr(meta_rig_status(&g).error, "as this node, here") != NULL, "%s",
	    meta_rig_status(&g).error);
}

static void count_call(void *arg)
{
	++*(unsigned *)arg;
}

Test(meta_nodes, rules_that_another_puts_are_told_of)
{
	struct meta_change ch = { .verb = META_SETTING_PUT,
		.id = META_SETTING_RULES,
		.blob = "{}",
		.blob_len = 2 };
	unsigned told = 0, before;

	open_both();
	meta_on_rules(g.meta, count_call, &told);
	pass_time(&g, 3 * NS_PER_S);
	before = told;
	pass_time(&g, 3 * NS_PER_S);
	cr_assert_eq(told, before);
	cr_assert_eq(meta_rig_txn(&h, &ch, 1), 0);
	pass_time(&g, 3 * NS_PER_S);
	cr_assert_eq(told, before + 1);
}
