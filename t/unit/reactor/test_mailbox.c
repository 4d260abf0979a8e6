/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "../../lib/nth_fault.h"
#include "../../lib/test_clock.h"
#include "base/obj.h"
#include "reactor/loop.h"
#include "reactor/mailbox.h"

static struct test_clock tc;
static struct loop *lp;
static struct mailbox *mb;

static void setup(void)
{
	test_clock_init(&tc);
	cr_assert_eq(loop_new(&lp, &tc.clk), 0);
	cr_assert_eq(mailbox_new(&mb, lp), 0);
}

static void teardown(void)
{
	if (mb != NULL)
		mailbox_free(&mb);
	loop_free(&lp);
}

TestSuite(mailbox, .init = setup, .fini = teardown);

struct letter {
	struct mail m;
	unsigned from, no;
};

static unsigned got;
static unsigned next_no[8];

static void read_letter(struct mail *m)
{
	struct letter *l = container_of(m, struct letter, m);

	cr_assert_eq(l->no, next_no[l->from], "out of order");
	next_no[l->from]++;
	got++;
	free(l);
}

static void send(unsigned from, unsigned no)
{
	struct letter *l = calloc(1, sizeof(*l));

	if (l == NULL)
		abort();
	l->m.fn = read_letter;
	l->from = from;
	l->no = no;
	mailbox_post(mb, &l->m);
}

Test(mailbox, delivers_in_order_and_never_inline)
{
	send(0, 0);
	send(0, 1);
	cr_assert_eq(got, 0);
	cr_assert(loop_turn(lp, true));
	cr_assert_eq(got, 2);
	cr_assert_not(loop_turn(lp, false), "nothing is left to wake for");
	send(0, 2);
	loop_turn(lp, true);
	cr_assert_eq(got, 3);
}

static void answer(struct mail *m)
{
	free(container_of(m, struct letter, m));
	send(0, 0);
}

Test(mailbox, a_letter_may_post_another)
{
	struct letter *l = calloc(1, sizeof(*l));

	cr_assert_not_null(l);
	l->m.fn = answer;
	mailbox_post(mb, &l->m);
	while (got == 0)
		loop_turn(lp, true);
	cr_assert_eq(got, 1);
}

Test(mailbox, free_delivers_what_was_posted)
{
	struct letter *l = calloc(1, sizeof(*l));
	struct mailbox *owner;

	cr_assert_not_null(l);
	l->m.fn = answer;
	mailbox_post(mb, &l->m);
	owner = mb; /* mailbox_free() takes the owner's pointer away first */
	mailbox_free(&owner);
	mb = NULL;
	cr_assert_null(owner);
	cr_assert_eq(got, 1);
}

#define POSTERS 4
#define LETTERS 5000

static void *poster(void *arg)
{
	unsigned from = (unsigned)(uintptr_t)arg, i;

	for (i = 0; i < LETTERS; i++)
		send(from, i);
	return NULL;
}

Test(mailbox, many_threads_post)
{
	pthread_t th[POSTERS];
	uintptr_t i;

	for (i = 0; i < POSTERS; i++)
		cr_assert_eq(pthread_create(&th[i], NULL, poster, (void *)i), 0);
	while (got < POSTERS * LETTERS)
		loop_turn(lp, true);
	for (i = 0; i < POSTERS; i++) {
		pthread_join(th[i], NULL);
		cr_assert_eq(next_no[i], LETTERS);
	}
	cr_assert_not(loop_turn(lp, false));
}

static struct mailbox *fault_mb;
static int fault_err;

static void fault_run(void)
{
	fault_err = mailbox_new(&fault_mb, lp);
	nth_disarm();
	if (fault_err == 0)
		mailbox_free(&fault_mb);
}

Test(mailbox, each_allocation_may_fail)
{
	unsigned n;

	for (n = 1; nth_arm(n), fault_run(), nth_fired(); n++)
		if (fault_err != 0) {
			cr_assert_eq(fault_err, -ENOMEM);
			cr_assert_null(fault_mb);
		}
	cr_assert_eq(fault_err, 0);
	cr_assert_gt(n, 2);
}
