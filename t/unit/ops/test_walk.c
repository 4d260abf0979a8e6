/* SPDX-License-Identifier: BSD-2-Clause */
#include "ops/walk.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../lib/nth_fault.h"
#include "../../lib/test_clock.h"
#include "fake_ufs.h"

static struct test_clock clk;
static struct loop *loop;
static struct fake_ufs ufs;
static struct walk w;
static char seen[16384];
static unsigned visits, pauses;
static int done, result;
static const char *skip;
static int fail_at;
static bool pausing;

static void setup(void)
{
	test_clock_init(&clk);
	cr_assert_eq(loop_new(&loop, &clk.clk), 0);
	fake_init(&ufs, loop);
}

static void teardown(void)
{
	walk_abort(&w);
	fake_fini(&ufs);
	loop_free(&loop);
}

TestSuite(walk, .init = setup, .fini = teardown);

static int visit(struct walk *wk, const struct walk_item *it)
{
	static const char *const word[] = {"", ">", "<"};
	size_t n = strlen(seen);

	cr_assert_eq(wk, &w);
	snprintf(seen + n, sizeof(seen) - n, "%s%s%s%s ", word[it->what],
	    *it->path != '\0' ? it->path : ".", it->other != NULL ? "=" : "",
	    it->what == WALK_FILE && it->attr->size == 0 ? "!" : "");
	cr_assert_str_eq(it->name,
	    strrchr(it->path, '/') != NULL ? strrchr(it->path, '/') + 1 : it->path);
	/* A tag says how deep it is. */
	if (it->what == WALK_ENTER)
		*it->tag = it->up + 1;
	else if (it->what == WALK_LEAVE)
		cr_assert_eq(*it->tag, it->up + 1);
	visits++;
	if (fail_at > 0 && --fail_at == 0)
		return -EDQUOT;
	if (it->what == WALK_ENTER && skip != NULL && strcmp(skip, it->path) == 0)
		return WALK_SKIP;
	return pausing ? WALK_PAUSE : WALK_ON;
}

static void over(struct walk *wk, int err)
{
	cr_assert_eq(wk, &w);
	done++;
	result = err;
}

static void start(const char *top, const char *beside)
{
	seen[0] = '\0';
	done = 0;
	visits = pauses = 0;
	memset(&w, 0, sizeof(w));
	w.ufs = &ufs.ufs;
	w.top = top;
	w.beside = beside;
	w.visit = visit;
	w.done = over;
	walk_start(&w, loop);
	cr_assert_eq(visits, 0, "not inline");
}

static const char *run(const char *top, const char *beside)
{
	start(top, beside);
	for (;;) {
		test_loop_settle(loop);
		if (done > 0 || !pausing)
			break;
		pauses++;
		walk_resume(&w);
	}
	cr_assert_eq(done, 1);
	return seen;
}

static void file(const char *path)
{
	fake_add(&ufs, path, UFS_FILE, 5, "v");
}

static void some_tree(void)
{
	file("d/a");
	file("d/a-b");
	file("d/s/x");
	file("d/s/t/y");
	fake_add(&ufs, "d/e", UFS_DIR, 0, "");
	file("d/z");
	file("other");
}

#define SOME ">. a a-b >e <e >s >s/t s/t/y <s/t s/x <s z <. "

Test(walk, whole_tree_in_key_order)
{
	some_tree();
	cr_assert_str_eq(run("d", NULL), SOME);
	cr_assert_eq(result, 0);
	cr_assert_not(w.hidden);
}

Test(walk, of_the_top)
{
	file("a/b");
	file("c");
	cr_assert_str_eq(run("", NULL), ">. >a a/b <a c <. ");
}

Test(walk, page_by_page)
{
	some_tree();
	for (ufs.page = 1; ufs.page < 6; ufs.page++) {
		cr_assert_str_eq(run("d", NULL), SOME, "%u a page", ufs.page);
		cr_assert_eq(result, 0);
	}
}

Test(walk, an_empty_page_with_more)
{
	some_tree();
	ufs.empty_first = true;
	cr_assert_str_eq(run("d", NULL), SOME);
}

Test(walk, pauses_after_each)
{
	some_tree();
	pausing = true;
	cr_assert_str_eq(run("d", NULL), SOME);
	cr_assert_geq(pauses, visits - 1);
	pausing = false;
}

Test(walk, skips)
{
	some_tree();
	skip = "s";
	cr_assert_str_eq(run("d", NULL), ">. a a-b >e <e >s z <. ");
	skip = NULL;
}

Test(walk, a_directory_that_is_not_there)
{
	cr_assert_str_eq(run("none", NULL), ">. <. ");
	cr_assert_eq(result, 0);
}

Test(walk, deeper_than_pages_are_kept)
{
	char path[FAKE_PATH] = "d", want[4096] = ">. ", up[FAKE_PATH + 8] = "";

	for (int i = 0; i < 20; i++) {
		strcat(path, "/k");
		snprintf(up, sizeof(up), "%s/a", path);
		file(up);
		snprintf(up, sizeof(up), "%s/z", path);
		file(up);
	}
	strcpy(path, "");
	for (int i = 0; i < 20; i++) {
		strcat(path, i == 0 ? "k" : "/k");
		snprintf(want + strlen(want), sizeof(want) - strlen(want), ">%s %s/a ", path, path);
	}
	for (int i = 20; i > 0; i--) {
		path[2 * i - 1] = '\0';
		snprintf(want + strlen(want), sizeof(want) - strlen(want), "%s/z <%s ", path, path);
	}
	strcat(want, "<. ");
	for (ufs.page = 1; ufs.page < 4; ufs.page++)
		cr_assert_str_eq(run("d", NULL), want, "%u a page", ufs.page);
}

Test(walk, beside_another)
{
	some_tree();
	file("b/a");
	file("b/e"); /* a file: of another kind */
	file("b/s/t/y");
	file("b/s/t/only-here");
	file("b/zz");
	for (ufs.page = 1; ufs.page < 8; ufs.page++) {
		cr_assert_str_eq(run("d", "b"),
		    ">.= a= a-b >e <e >s= >s/t= s/t/y= <s/t= s/x <s= z <.= ", "%u", ufs.page);
		cr_assert_eq(result, 0);
	}
}

Test(walk, beside_nothing)
{
	some_tree();
	cr_assert_str_eq(run("d", "none"), ">.= a a-b >e <e >s >s/t s/t/y <s/t s/x <s z <.= ");
}

Test(walk, a_failing_listing_ends_it)
{
	some_tree();
	for (unsigned n = 1; n <= 4; n++) {
		fake_store_fail(&ufs.store, FAKE_LIST, n, 1, -EACCES, false);
		run("d", NULL);
		cr_assert_eq(result, -EACCES, "listing %u", n);
	}
	run("d", NULL);
	cr_assert_eq(result, 0);
}

Test(walk, visit_ends_it)
{
	some_tree();
	for (int n = 1; n <= 12; n++) {
		fail_at = n;
		run("d", NULL);
		cr_assert_eq(result, -EDQUOT);
		cr_assert_eq(visits, (unsigned)n);
	}
	fail_at = 0;
}

Test(walk, aborted_anywhere)
{
	some_tree();
	ufs.page = 2;
	for (unsigned n = 0;; n++) {
		ufs.stall = true;
		start("d", "d");
		test_loop_settle(loop);
		for (unsigned i = 0; i < n; i++) {
			fake_release_one(&ufs);
			test_loop_settle(loop);
		}
		if (done > 0) {
			cr_assert_gt(n, 5);
			break;
		}
		walk_abort(&w);
		walk_abort(&w);
		fake_release(&ufs);
		test_loop_settle(loop);
		cr_assert_eq(done, 0);
	}
	fake_release(&ufs);
}

Test(walk, names_may_vanish_meanwhile)
{
	some_tree();
	ufs.page = 1;
	pausing = true;
	start("d", NULL);
	while (done == 0) {
		test_loop_settle(loop);
		if (strstr(seen, "a-b ") != NULL && fake_find(&ufs, "d/s/x") != NULL)
			fake_store_remove(&ufs.store, fake_find(&ufs, "d/s/x"));
		walk_resume(&w);
	}
	pausing = false;
	cr_assert_str_eq(seen, ">. a a-b >e <e >s >s/t s/t/y <s/t <s z <. ");
}

Test(walk, no_memory)
{
	unsigned n, failed = 0;

	some_tree();
	ufs.page = 2;
	for (n = 1; n < 1000; n++) {
		start("d", "d");
		nth_arm(n);
		test_loop_settle(loop);
		nth_disarm();
		cr_assert_eq(done, 1, "allocation %u", n);
		cr_assert(result == 0 || result == -ENOMEM, "%d", result);
		failed += result != 0;
		if (!nth_fired())
			break;
	}
	cr_assert_eq(result, 0);
	cr_assert_gt(failed, 5);
}
