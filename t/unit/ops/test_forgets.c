/* SPDX-License-Identifier: BSD-2-Clause */
/* FORGETs that a hand-over held back: each is counted once, however far a successor that
 * died had come. */
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/forgets.h"
#include "ops/node.h"
#include "ops_rig.h"

#define NODES 6
#define LOOKUPS 3

static struct rig r;
static uint64_t nodes[NODES];

static void setup(void)
{
	struct ufs_attr at = {.kind = UFS_FILE, .size = 10, .version = "v"};
	char name[16];
	struct node n;
	unsigned i, k;

	rig_new(&r);
	for (i = 0; i < NODES; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		cr_assert_eq(node_bind(r.fs, NODE_ROOT, name, name, &at, &n), 0);
		nodes[i] = n.id;
		for (k = 0; k < LOOKUPS; k++)
			node_count(r.fs, &n);
	}
}

static void teardown(void)
{
	rig_free(&r);
}

TestSuite(forgets, .init = setup, .fini = teardown);

static void put(
    struct held_list *list, uint32_t opcode, uint64_t node, const void *body, size_t len)
{
	struct fuse_in_header in = {
	    .len = (uint32_t)(sizeof(in) + len), .opcode = opcode, .unique = 2, .nodeid = node};
	struct held_req *hr = calloc(1, sizeof(*hr) + in.len);

	cr_assert_not_null(hr);
	hr->len = in.len;
	memcpy(hr->raw, &in, sizeof(in));
	if (len > 0)
		memcpy(hr->raw + sizeof(in), body, len);
	STAILQ_INSERT_TAIL(list, hr, link);
}

/* The first `n` nodes are forgotten so many times: one by itself, then a batch, among other
 * requests. */
static void fill(struct held_list *list, unsigned n, uint64_t times)
{
	struct fuse_forget_in one = {.nlookup = times};
	struct {
		struct fuse_batch_forget_in in;
		struct fuse_forget_one one[NODES];
	} batch = {.in = {.count = n > 0 ? n - 1 : 0}};
	unsigned i;

	STAILQ_INIT(list);
	put(list, FUSE_GETATTR, NODE_ROOT, NULL, 0);
	if (n > 0)
		put(list, FUSE_FORGET, nodes[0], &one, sizeof(one));
	put(list, FUSE_STATFS, NODE_ROOT, NULL, 0);
	for (i = 1; i < n; i++)
		batch.one[i - 1] = (struct fuse_forget_one){.nodeid = nodes[i], .nlookup = times};
	put(list, FUSE_BATCH_FORGET, 0, &batch,
	    sizeof(batch.in) + batch.in.count * sizeof(batch.one[0]));
}

static void drain(struct held_list *list)
{
	struct held_req *hr;

	while ((hr = STAILQ_FIRST(list)) != NULL) {
		STAILQ_REMOVE_HEAD(list, link);
		free(hr);
	}
}

static uint64_t count_of(unsigned i)
{
	struct node n;

	return node_load(r.fs, nodes[i], &n) == 0 ? counts_get(r.counts, n.slot) : 0;
}

Test(forgets, are_taken_out_of_the_list_and_counted)
{
	struct held_list list;
	struct fuse_in_header in;
	struct held_req *hr;
	struct node n;
	unsigned i;

	fill(&list, NODES, LOOKUPS);
	forgets_begin(r.counts, 7);
	cr_assert_eq(forgets_done(r.counts, 7), 0);
	forgets_apply(r.fs, r.counts, 7, 0, &list);
	cr_assert_eq(forgets_done(r.counts, 7), NODES);
	for (i = 0; i < NODES; i++)
		cr_assert_eq(node_load(r.fs, nodes[i], &n), -ENOENT, "nothing is left of %u", i);
	hr = STAILQ_FIRST(&list);
	memcpy(&in, hr->raw, sizeof(in));
	cr_assert_eq(in.opcode, FUSE_GETATTR);
	hr = STAILQ_NEXT(hr, link);
	memcpy(&in, hr->raw, sizeof(in));
	cr_assert_eq(in.opcode, FUSE_STATFS);
	cr_assert_null(STAILQ_NEXT(hr, link));
	drain(&list);
}

/* A successor died after the n-th, for every n. */
Test(forgets, are_counted_once)
{
	struct held_list list;
	unsigned n, i;

	for (n = 0; n <= NODES; n++) {
		teardown();
		setup();
		forgets_begin(r.counts, 8);
		fill(&list, n, 1);
		forgets_apply(r.fs, r.counts, 8, 0, &list);
		drain(&list);
		cr_assert_eq(forgets_done(r.counts, 8), n);
		rig_restart(&r);
		fill(&list, NODES, 1);
		forgets_apply(r.fs, r.counts, 9, forgets_done(r.counts, 8), &list);
		drain(&list);
		for (i = 0; i < NODES; i++)
			cr_assert_eq(count_of(i), LOOKUPS - 1, "%u of %u", i, n);
	}
}

/* It had counted a node's last one, but the removal of the node was lost with it. */
Test(forgets, finish_what_was_begun)
{
	struct held_list list;
	struct node n;

	cr_assert_eq(node_load(r.fs, nodes[0], &n), 0);
	counts_sub(r.counts, n.slot, LOOKUPS);
	fill(&list, 1, LOOKUPS);
	forgets_apply(r.fs, r.counts, 9, 1, &list);
	drain(&list);
	cr_assert_eq(node_load(r.fs, nodes[0], &n), -ENOENT);
}

/* Nobody knows how far a daemon came that does not say so. */
Test(forgets, of_a_silent_successor_are_not_counted)
{
	struct held_list list;
	unsigned i;

	forgets_begin(r.counts, 8);
	cr_assert_eq(forgets_done(r.counts, 9), UINT64_MAX);
	fill(&list, NODES, LOOKUPS);
	forgets_apply(r.fs, r.counts, 10, forgets_done(r.counts, 9), &list);
	drain(&list);
	for (i = 0; i < NODES; i++)
		cr_assert_eq(count_of(i), LOOKUPS);
}

Test(forgets, that_are_cut_short_do_no_harm)
{
	struct fuse_batch_forget_in in = {.count = 1000000};
	struct held_list list = STAILQ_HEAD_INITIALIZER(list);
	unsigned i;

	put(&list, FUSE_FORGET, nodes[0], NULL, 0);
	put(&list, FUSE_BATCH_FORGET, 0, &in, 4);
	put(&list, FUSE_BATCH_FORGET, 0, &in, sizeof(in));
	forgets_apply(r.fs, r.counts, 9, 0, &list);
	cr_assert(STAILQ_EMPTY(&list));
	for (i = 0; i < NODES; i++)
		cr_assert_eq(count_of(i), LOOKUPS);
}
