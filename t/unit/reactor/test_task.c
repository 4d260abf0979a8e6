/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "../../lib/test_clock.h"
#include "base/obj.h"
#include "reactor/task.h"
#include "reactor/timer.h"

static struct test_clock tc;
static struct loop *lp;
static char trace[128];

static void setup(void)
{
	test_clock_init(&tc);
	cr_assert_eq(loop_new(&lp, &tc.clk), 0);
}

static void teardown(void)
{
	cr_assert_eq(task_count(lp), 0);
	loop_free(&lp);
}

TestSuite(task, .init = setup, .fini = teardown);
TestSuite(task_abort, .init = setup);

static void note(const char *s)
{
	cr_assert_lt(strlen(trace) + strlen(s), sizeof(trace));
	strcat(trace, s);
}

/*
 * The operation under test: A may go to B, B waits for C with a timer as its
 * leaf, C may wait again or end.
 */
enum { OP_A, OP_B, OP_C, OP_D };

struct op {
	struct task t;
	struct timer leaf;
	bool no_leave; /* B's wait cannot be recalled */
	bool end_in_a;
	bool cancel_in_b; /* cancels itself before it waits */
	bool illegal;	  /* A makes a move that it may not make */
	bool twice;	  /* C waits once more, cleaning up */
	bool lie;	  /* A says goto and returns wait */
	bool *gone;
};

static void op_fini(struct task *t)
{
	struct op *op = container_of(t, struct op, t);

	note("~");
	cr_assert_eq(t->magic, 0);
	timer_cancel(&op->leaf);
	if (op->gone != NULL)
		*op->gone = true;
	free(op);
}

static void leaf_done(struct timer *tm)
{
	task_resume(&container_of(tm, struct op, leaf)->t);
}

static void op_leave(struct task *t)
{
	note("L");
	timer_cancel(&container_of(t, struct op, t)->leaf);
}

static enum task_next op_a(struct task *t)
{
	struct op *op = container_of(t, struct op, t);

	note("a");
	if (op->end_in_a || task_err(t) != 0)
		return task_end(t);
	if (op->illegal)
		return task_goto(t, OP_C);
	if (op->lie) {
		task_goto(t, OP_B);
		return TASK_NEXT_WAIT;
	}
	return task_goto(t, OP_B);
}

static enum task_next op_b(struct task *t)
{
	struct op *op = container_of(t, struct op, t);

	note("b");
	timer_arm(&op->leaf, 100);
	if (op->cancel_in_b)
		task_cancel(t, -EINTR);
	return task_wait(t, OP_C, op->no_leave ? NULL : op_leave);
}

static int seen_err;

static enum task_next op_c(struct task *t)
{
	struct op *op = container_of(t, struct op, t);

	note("c");
	seen_err = task_err(t);
	if (op->twice) {
		timer_arm(&op->leaf, 100);
		return task_wait(t, OP_D, op_leave);
	}
	return task_end(t);
}

static enum task_next op_d(struct task *t)
{
	note("d");
	return task_end(t);
}

static const struct task_step op_steps[] = {
	[OP_A] = { "a", op_a, TO(OP_B) },
	[OP_B] = { "b", op_b, TO(OP_C) },
	[OP_C] = { "c", op_c, TO(OP_D) },
	[OP_D] = { "d", op_d, 0 },
};

static const struct task_kind op_kind = {
	.name = "op", .steps = op_steps, .nsteps = ARRAY_LEN(op_steps), .fini = op_fini
};

static struct op *op_new(void)
{
	struct op *op = calloc(1, sizeof(*op));

	cr_assert_not_null(op);
	timer_init(&op->leaf, lp, leaf_done);
	return op;
}

Test(task, runs_through_its_steps)
{
	struct op *op = op_new();

	task_start(&op->t, lp, &op_kind);
	cr_assert_str_eq(trace, "", "never inline");
	cr_assert_eq(task_count(lp), 1);
	test_loop_settle(lp);
	cr_assert_str_eq(trace, "ab");
	cr_assert_eq(op->t.started, loop_now(lp));
	test_loop_pass(lp, &tc, 100);
	cr_assert_str_eq(trace, "abc~");
	cr_assert_eq(seen_err, 0);
	cr_assert_eq(task_count(lp), 0);
}

Test(task, may_end_in_any_step)
{
	struct op *op = op_new();

	op->end_in_a = true;
	task_start(&op->t, lp, &op_kind);
	test_loop_settle(lp);
	cr_assert_str_eq(trace, "a~");
}

Test(task, cancel_leaves_the_leaf_and_resumes_with_the_error)
{
	struct op *op = op_new();

	task_start(&op->t, lp, &op_kind);
	test_loop_settle(lp);
	task_cancel(&op->t, -EINTR);
	cr_assert_str_eq(trace, "abL", "the step itself runs later");
	cr_assert_not(timer_armed(&op->leaf));
	task_cancel(&op->t, -EIO); /* the first error wins, and leave is not called again */
	test_loop_settle(lp);
	cr_assert_str_eq(trace, "abLc~");
	cr_assert_eq(seen_err, -EINTR);
}

Test(task, cancel_of_a_wait_that_cannot_be_recalled_only_marks)
{
	struct op *op = op_new();

	op->no_leave = true;
	task_start(&op->t, lp, &op_kind);
	test_loop_settle(lp);
	task_cancel(&op->t, -EINTR);
	test_loop_settle(lp);
	cr_assert_str_eq(trace, "ab");
	cr_assert_eq(task_err(&op->t), -EINTR);
	test_loop_pass(lp, &tc, 100);
	cr_assert_str_eq(trace, "abc~");
	cr_assert_eq(seen_err, -EINTR);
}

Test(task, cancel_before_the_first_step)
{
	struct op *op = op_new();

	task_start(&op->t, lp, &op_kind);
	task_cancel(&op->t, -EINTR);
	test_loop_settle(lp);
	cr_assert_str_eq(trace, "a~");
}

Test(task, cancel_after_the_resume_is_seen_by_the_step)
{
	struct op *op = op_new();

	task_start(&op->t, lp, &op_kind);
	test_loop_settle(lp);
	timer_cancel(&op->leaf);
	task_resume(&op->t);
	task_cancel(&op->t, -EINTR);
	test_loop_settle(lp);
	cr_assert_str_eq(trace, "abc~", "no leave: the leaf has ended");
	cr_assert_eq(seen_err, -EINTR);
}

Test(task, cancel_inside_a_step_gives_up_the_wait_that_it_begins)
{
	struct op *op = op_new();

	op->cancel_in_b = true;
	task_start(&op->t, lp, &op_kind);
	test_loop_settle(lp);
	cr_assert_str_eq(trace, "abLc~");
	cr_assert_eq(seen_err, -EINTR);
}

Test(task, cancel_inside_a_step_leaves_a_wait_that_cannot_be_recalled)
{
	struct op *op = op_new();

	op->cancel_in_b = true;
	op->no_leave = true;
	task_start(&op->t, lp, &op_kind);
	test_loop_settle(lp);
	cr_assert_str_eq(trace, "ab");
	test_loop_pass(lp, &tc, 100);
	cr_assert_str_eq(trace, "abc~");
}

Test(task, a_failed_task_may_wait_while_it_cleans_up)
{
	struct op *op = op_new();

	op->twice = true;
	task_start(&op->t, lp, &op_kind);
	test_loop_settle(lp);
	task_cancel(&op->t, -EINTR);
	test_loop_settle(lp);
	cr_assert_str_eq(trace, "abLc", "its second wait is not given up");
	task_cancel(&op->t, -EIO);
	test_loop_settle(lp);
	cr_assert_str_eq(trace, "abLc");
	test_loop_pass(lp, &tc, 100);
	cr_assert_str_eq(trace, "abLcd~");
}

Test(task, the_first_error_wins)
{
	struct op *op = op_new();

	task_start(&op->t, lp, &op_kind);
	cr_assert_eq(task_fail(&op->t, 0), 0);
	cr_assert_eq(task_fail(&op->t, -ENOENT), -ENOENT);
	cr_assert_eq(task_fail(&op->t, -EIO), -ENOENT);
	cr_assert_eq(task_fail(&op->t, 0), -ENOENT);
	cr_assert_eq(task_err(&op->t), -ENOENT);
	test_loop_settle(lp);
	cr_assert_str_eq(trace, "a~");
}

static void cancel_each(struct task *t, void *arg)
{
	unsigned *n = arg;

	(*n)++;
	task_cancel(t, -ECANCELED);
}

Test(task, foreach_cancels_all_whatever_they_do)
{
	struct op *op[4];
	bool gone[4] = { false };
	unsigned i, n = 0;

	for (i = 0; i < 4; i++) {
		op[i] = op_new();
		op[i]->gone = &gone[i];
		if (i == 3)
			test_loop_settle(lp); /* the others wait, the last has not begun */
		task_start(&op[i]->t, lp, &op_kind);
	}
	op[1]->no_leave = true;
	task_foreach(lp, cancel_each, &n);
	cr_assert_eq(n, 4);
	cr_assert_eq(task_count(lp), 4, "cancelling frees nothing");
	test_loop_settle(lp);
	cr_assert_eq(task_count(lp), 0);
	cr_assert(gone[0] && gone[1] && gone[2] && gone[3]);
}

/* --- Mistakes stop the program. */

Test(task_abort, illegal_move, .signal = SIGABRT)
{
	struct op *op = op_new();

	op->illegal = true;
	task_start(&op->t, lp, &op_kind);
	test_loop_settle(lp);
}

Test(task_abort, a_step_that_returns_other_than_it_said, .signal = SIGABRT)
{
	struct op *op = op_new();

	op->lie = true;
	task_start(&op->t, lp, &op_kind);
	test_loop_settle(lp);
}

Test(task_abort, resume_of_a_task_that_does_not_wait, .signal = SIGABRT)
{
	struct op *op = op_new();

	task_start(&op->t, lp, &op_kind);
	task_resume(&op->t);
}

Test(task_abort, completion_after_leave, .signal = SIGABRT)
{
	struct op *op = op_new();

	task_start(&op->t, lp, &op_kind);
	test_loop_settle(lp);
	task_cancel(&op->t, -EINTR);
	leaf_done(&op->leaf);
}

Test(task_abort, task_left_at_the_loops_end, .signal = SIGABRT)
{
	struct op *op = op_new();

	task_start(&op->t, lp, &op_kind);
	loop_free(&lp);
}
