/* SPDX-License-Identifier: BSD-2-Clause */
#include "ops/pathlock.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../../lib/nth_fault.h"
#include "../../lib/test_clock.h"
#include "base/obj.h"

#define LOCKS 6

struct tlock {
	struct pathlock l;
	unsigned called;
};

static struct test_clock clk;
static struct loop *loop;
static struct pathlocks locks;
static struct tlock t[LOCKS];

static void setup(void)
{
	test_clock_init(&clk);
	cr_assert_eq(loop_new(&loop, &clk.clk), 0);
	pathlocks_init(&locks, loop);
	memset(t, 0, sizeof(t));
}

static void teardown(void)
{
	for (unsigned i = 0; i < LOCKS; i++)
		pathlock_end(&t[i].l);
	pathlocks_fini(&locks);
	loop_free(&loop);
}

TestSuite(pathlock, .init = setup, .fini = teardown);

static void got(struct pathlock *l)
{
	container_of(l, struct tlock, l)->called++;
}

/* "a b/": the file a and the tree b. */
static bool ask(struct tlock *tl, const char *paths)
{
	char buf[256], *word, *save = NULL;

	strcpy(buf, paths);
	for (word = strtok_r(buf, " ", &save); word != NULL; word = strtok_r(NULL, " ", &save)) {
		size_t len = strlen(word);
		bool tree = word[len - 1] == '/';

		if (tree)
			word[len - 1] = '\0';
		cr_assert_eq(pathlock_add(&tl->l, word, tree), 0);
	}
	return pathlock_try(&locks, &tl->l, got);
}

static void settle(void)
{
	test_loop_settle(loop);
}

static bool clash(const char *a, const char *b)
{
	bool held;

	cr_assert(ask(&t[0], a));
	held = ask(&t[1], b);
	pathlock_end(&t[1].l);
	pathlock_end(&t[0].l);
	return !held;
}

Test(pathlock, what_touches)
{
	static const struct {
		const char *a, *b;
		bool touch;
	} row[] = {
	    {"a", "a", true},
	    {"a", "b", false},
	    {"a", "ab", false},
	    {"a", "a/b", false},
	    {"a/", "a/b", true},
	    {"a/", "a/b/c", true},
	    {"a/", "a", true},
	    {"a/", "ab", false},
	    {"a/", "ab/", false},
	    {"a/", "a/b/", true},
	    {"a/b/", "a", false},
	    {"a/b/", "a/", true},
	    {"/", "a", true}, /* the root's tree */
	    {"/", "a/b/", true},
	    {"x a", "b a", true},
	    {"x y/", "b y/c", true},
	    {"x y/ z", "b y w", true},
	    {"x w", "b y", false},
	};

	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		cr_expect_eq(clash(row[i].a, row[i].b), row[i].touch, "%s, %s", row[i].a, row[i].b);
		cr_expect_eq(clash(row[i].b, row[i].a), row[i].touch, "%s, %s", row[i].b, row[i].a);
	}
}

Test(pathlock, held_at_once_is_not_called)
{
	cr_assert(ask(&t[0], "a"));
	cr_assert(ask(&t[1], "b"));
	settle();
	cr_assert(t[0].called == 0 && t[1].called == 0);
}

Test(pathlock, one_after_the_other_in_order)
{
	cr_assert(ask(&t[0], "a"));
	cr_assert_not(ask(&t[1], "a"));
	cr_assert_not(ask(&t[2], "a"));
	pathlock_end(&t[0].l);
	cr_assert_eq(t[1].called, 0, "not inline");
	settle();
	cr_assert(t[1].called == 1 && t[2].called == 0);
	pathlock_end(&t[1].l);
	settle();
	cr_assert(t[1].called == 1 && t[2].called == 1);
}

Test(pathlock, who_waits_is_not_passed)
{
	cr_assert(ask(&t[0], "d/a"));
	cr_assert_not(ask(&t[1], "d/"));
	cr_assert_not(ask(&t[2], "d/b"), "the tree was asked for before");
	cr_assert(ask(&t[3], "e"));
	pathlock_end(&t[0].l);
	settle();
	cr_assert(t[1].called == 1 && t[2].called == 0);
	pathlock_end(&t[1].l);
	settle();
	cr_assert_eq(t[2].called, 1);
}

Test(pathlock, several_are_let_go_at_once)
{
	cr_assert(ask(&t[0], "d/"));
	cr_assert_not(ask(&t[1], "d/a"));
	cr_assert_not(ask(&t[2], "d/b"));
	cr_assert_not(ask(&t[3], "d/a"));
	pathlock_end(&t[0].l);
	settle();
	cr_assert(t[1].called == 1 && t[2].called == 1 && t[3].called == 0);
}

Test(pathlock, all_or_nothing)
{
	cr_assert(ask(&t[0], "a"));
	cr_assert(ask(&t[1], "b"));
	cr_assert_not(ask(&t[2], "a b"));
	pathlock_end(&t[0].l);
	settle();
	cr_assert_eq(t[2].called, 0, "b is held");
	pathlock_end(&t[1].l);
	settle();
	cr_assert_eq(t[2].called, 1);
}

Test(pathlock, own_paths_do_not_touch)
{
	cr_assert(ask(&t[0], "a a a/ a/b"));
}

Test(pathlock, who_stops_waiting_lets_others_go)
{
	cr_assert(ask(&t[0], "d/a"));
	cr_assert_not(ask(&t[1], "d/"));
	cr_assert_not(ask(&t[2], "d/b"));
	pathlock_end(&t[1].l);
	settle();
	cr_assert(t[1].called == 0 && t[2].called == 1);
}

Test(pathlock, given_back_before_it_was_told)
{
	cr_assert(ask(&t[0], "a"));
	cr_assert_not(ask(&t[1], "a"));
	cr_assert_not(ask(&t[2], "a"));
	pathlock_end(&t[0].l);
	pathlock_end(&t[1].l);
	settle();
	cr_assert(t[1].called == 0 && t[2].called == 1);
}

Test(pathlock, may_be_used_again)
{
	pathlock_end(&t[0].l);
	for (int i = 0; i < 3; i++) {
		cr_assert(ask(&t[0], "a b"));
		pathlock_end(&t[0].l);
		pathlock_end(&t[0].l);
	}
}

static void again(struct pathlock *l)
{
	got(l);
	pathlock_end(l);
}

Test(pathlock, may_end_in_its_callback)
{
	cr_assert(ask(&t[0], "a"));
	for (unsigned i = 1; i < LOCKS; i++) {
		cr_assert_eq(pathlock_add(&t[i].l, "a", i % 2 == 0), 0);
		cr_assert_not(pathlock_try(&locks, &t[i].l, again));
	}
	pathlock_end(&t[0].l);
	settle();
	for (unsigned i = 1; i < LOCKS; i++)
		cr_assert_eq(t[i].called, 1);
}

Test(pathlock, no_memory)
{
	bool fired;
	int err;

	nth_arm(1);
	err = pathlock_add(&t[0].l, "a", false);
	fired = nth_fired(); /* AddressSanitizer's own strdup() is not counted */
	cr_assert_eq(err, fired ? -ENOMEM : 0);
	cr_assert_eq(t[0].l.n, fired ? 0 : 1);
	cr_assert(ask(&t[0], "b"));
}
