/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A pairing heap through the timers themselves: `child` is the first of a node's
 * children, `next` the following sibling, `prev` the sibling before or, for the
 * first, the parent.  Arming is O(1), the rest O(log n) amortized.
 */
#include "reactor/timer.h"

#include "reactor/loop_priv.h"

static bool before(const struct timer *a, const struct timer *b)
{
	if (a->when != b->when)
		return a->when < b->when;
	return a->seq < b->seq;
}

/* Melds two roots (without siblings); either may be NULL. */
static struct timer *meld(struct timer *a, struct timer *b)
{
	struct timer *top, *sub;

	if (a == NULL)
		return b;
	if (b == NULL)
		return a;
	top = before(a, b) ? a : b;
	sub = top == a ? b : a;
	sub->prev = top;
	sub->next = top->child;
	if (sub->next != NULL)
		sub->next->prev = sub;
	top->child = sub;
	top->prev = NULL;
	top->next = NULL;
	return top;
}

/* Makes one heap of a list of siblings: pairs from left to right, then all pairs
 * from right to left.  The pairs are stacked through `next`. */
static struct timer *meld_siblings(struct timer *first)
{
	struct timer *a, *b, *rest, *stack = NULL, *root = NULL;

	for (a = first; a != NULL; a = rest) {
		b = a->next;
		rest = b != NULL ? b->next : NULL;
		a->next = NULL;
		a->prev = NULL;
		if (b != NULL) {
			b->next = NULL;
			b->prev = NULL;
		}
		a = meld(a, b);
		a->next = stack;
		stack = a;
	}
	for (a = stack; a != NULL; a = rest) {
		rest = a->next;
		a->next = NULL;
		root = meld(root, a);
	}
	return root;
}

static void heap_remove(struct loop *lp, struct timer *t)
{
	struct timer *sub;

	sub = meld_siblings(t->child);
	if (lp->timers == t) {
		lp->timers = sub;
	} else {
		if (t->prev->child == t)
			t->prev->child = t->next;
		else
			t->prev->next = t->next;
		if (t->next != NULL)
			t->next->prev = t->prev;
		lp->timers = meld(lp->timers, sub);
	}
	t->child = NULL;
	t->next = NULL;
	t->prev = NULL;
}

void timer_init(struct timer *t, struct loop *lp, void (*fn)(struct timer *t))
{
	CHECK_OBJ(lp, LOOP_MAGIC);
	assert(fn != NULL);
	*t = (struct timer){ .loop = lp, .fn = fn };
}

void timer_arm(struct timer *t, uint64_t delay_ns)
{
	struct loop *lp = t->loop;
	uint64_t now;

	now = loop_now(lp);
	timer_cancel(t);
	t->when = delay_ns < UINT64_MAX - now ? now + delay_ns : UINT64_MAX;
	t->seq = lp->timer_seq++;
	t->armed = true;
	lp->timers = meld(lp->timers, t);
}

void timer_cancel(struct timer *t)
{
	if (!t->armed)
		return;
	CHECK_OBJ(t->loop, LOOP_MAGIC);
	t->armed = false;
	heap_remove(t->loop, t);
}

void timer_run_expired(struct loop *lp)
{
	struct timer *t;
	uint64_t now, limit;

	if (lp->timers == NULL)
		return;
	now = loop_now(lp);
	/* What a callback arms for "now" waits for the next turn; it sorts behind
	 * all that was due already. */
	limit = lp->timer_seq;
	while ((t = lp->timers) != NULL && t->when <= now && t->seq < limit) {
		t->armed = false;
		heap_remove(lp, t);
		lp->ran++;
		t->fn(t);
	}
}
