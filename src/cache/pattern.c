/* SPDX-License-Identifier: BSD-2-Clause */
#include <stddef.h>
#include <string.h>

#include "base/obj.h"
#include "base/units.h"
#include "cache/pattern.h"

/* The kernel asks in whole pages of its own: by so much a step may be off. */
#define GRAIN 4096u
/* The kernel sends the reads of one reader side by side: so far ahead may one be, if
 * little was left out before. */
#define SLACK (2 * MIB)
/* Steps that may be skipped, or come late, because the kernel has those bytes. */
#define SKIP 4
/* Steps without a gap between them are few GETs; of others each is one: so many. */
#define STEPS_MAX 32
/* A run that was not read for so many reads is given up for others. */
#define STALE 64

static uint64_t run_len(const struct run *r)
{
	return r->next - r->start;
}

static bool near_by(uint64_t a, uint64_t b)
{
	return (a > b ? a - b : b - a) <= GRAIN;
}

/* --- Which run a read belongs to */

/* It comes late, or once more. */
static bool was_late(const struct run *r, uint64_t off, uint64_t len)
{
	(void)len;
	return off >= r->start && off <= r->next && r->next - off <= SLACK;
}

/* It comes early, or late, in a sequence. */
static bool overtakes(const struct run *r, uint64_t off, uint64_t len)
{
	if (r->window == 0 || r->left)
		return false;
	if (off <= r->next)
		return was_late(r, off, len);
	return off - r->next <= SLACK && (r->read + len) / 3 >= (off + len - r->start) / 4;
}

/* How many steps from the start of the run; 0: not on its line. */
static int steps_to(const struct run *r, uint64_t off)
{
	if (r->step == 0)
		return 0;
	for (int n = 1; n <= SKIP; n++) {
		int64_t at = (int64_t)r->start + n * r->step;

		if (at >= 0 && near_by((uint64_t)at, off))
			return n;
		at = (int64_t)r->start - n * r->step;
		if (at >= 0 && near_by((uint64_t)at, off))
			return -n;
	}
	return 0;
}

/* The run that was read last, of those that `fits` takes. */
static struct run *latest(struct pattern *p, bool (*fits)(const struct run *r, uint64_t off,
    uint64_t len), uint64_t off, uint64_t len)
{
	struct run *best = NULL;

	for (struct run *r = p->run; r < p->run + PATTERN_RUNS; r++) {
		if (r->turn != 0 && (best == NULL || r->turn > best->turn) && fits(r, off, len))
			best = r;
	}
	return best;
}

static bool adjoins(const struct run *r, uint64_t off, uint64_t len)
{
	return off <= r->next && off >= r->start && off + len > r->next;
}

static bool on_line(const struct run *r, uint64_t off, uint64_t len)
{
	(void)len;
	return steps_to(r, off) != 0;
}

static bool is_below(const struct run *r, uint64_t off, uint64_t len)
{
	return off + len == r->start && (r->step <= 0 || r->hits < 2);
}

static bool any(const struct run *r, uint64_t off, uint64_t len)
{
	(void)r, (void)off, (void)len;
	return true;
}

/* --- New runs */

/* What is missed least. */
static unsigned rank(const struct pattern *p, const struct run *r)
{
	if (r->turn == 0)
		return 0;
	if (r->left || p->turn - r->turn > STALE)
		return 1;
	return r->window > 0 || r->hits > 1 ? 3 : 2;
}

static struct run *run_new(struct pattern *p, uint64_t off, uint64_t len)
{
	struct run *r = p->run;

	for (struct run *o = p->run + 1; o < p->run + PATTERN_RUNS; o++) {
		unsigned a = rank(p, o), b = rank(p, r);

		if (a < b || (a == b && o->turn < r->turn))
			r = o;
	}
	memset(r, 0, sizeof(*r));
	r->start = off;
	r->next = off + len;
	r->read = len;
	r->turn = r->born = p->turn;
	return r;
}

/* The run after `last`, n steps on: it takes over what is known of their line. */
static void step_on(struct pattern *p, struct run *last, int n, uint64_t off, uint64_t len)
{
	struct run old = *last, *r;

	last->left = true;
	last->step = 0;
	last->hits = 0;
	r = run_new(p, off, len);
	r->hold = run_len(&old);
	r->origin = old.origin;
	r->steps = old.steps + (unsigned)n;
	r->step = ((int64_t)off - (int64_t)old.origin) / (int64_t)r->steps;
	r->hits = old.hits + 1;
	r->taken = old.taken > (unsigned)n ? old.taken - (unsigned)n : 0;
}

/* Two runs and the read lie on a line. */
static bool third(const struct run *a, const struct run *b, uint64_t off)
{
	int64_t one = (int64_t)(b->start - a->start), two = (int64_t)(off - b->start);

	if (a->turn == 0 || a->turn >= b->turn || b->hits > 1)
		return false;
	if ((one < 0) != (two < 0) || near_by(off, b->start))
		return false;
	return (one > two ? one - two : two - one) <= GRAIN;
}

static bool begins_line(struct pattern *p, uint64_t off, uint64_t len)
{
	struct run *a = NULL, *b = NULL;

	for (struct run *y = p->run; y < p->run + PATTERN_RUNS; y++) {
		for (struct run *x = p->run; x < p->run + PATTERN_RUNS; x++) {
			if (third(x, y, off) && (b == NULL || y->turn > b->turn)) {
				a = x;
				b = y;
			}
		}
	}
	if (b == NULL)
		return false;
	a->left = true;
	b->origin = a->start;
	b->steps = 1;
	b->hits = 0;
	b->taken = 0;
	step_on(p, b, 1, off, len);
	return true;
}

/* Backwards without a gap, by pieces of any length. */
static bool goes_back(struct pattern *p, uint64_t off, uint64_t len)
{
	struct run *r = latest(p, is_below, off, len);

	if (r == NULL)
		return false;
	r->origin = r->start;
	r->steps = 0;
	if (r->step >= 0)
		r->hits = 0;
	r->taken = 0;
	step_on(p, r, 1, off, len);
	return true;
}

/* It follows nothing: what was read last before it has probably ended. */
static void begins(struct pattern *p, uint64_t off, uint64_t len)
{
	const struct run *last = latest(p, any, 0, 0);

	if (last != NULL)
		p->hold = MAX(run_len(last), p->hold - p->hold / 4);
	run_new(p, off, len)->hold = p->hold;
}

/* --- In sequence */

static void set_window(struct run *r, const struct pattern_limits *l)
{
	uint64_t len = run_len(r), most = 2 * (uint64_t)l->page;

	if (len > r->hold)
		most = MAX(2 * (len - r->hold), most);
	else
		most = MIN(2 * len, r->hold - len);
	r->window = MIN(most, l->window);
	if (r->ahead < r->next)
		r->ahead = r->next;
}

/* Reads that overtook the end of the run, and were taken for others. */
static void catch_up(struct pattern *p, struct run *r)
{
	unsigned i = 0;

	while (i < PATTERN_RUNS) {
		struct run *o = &p->run[i++];

		if (o->born <= r->born || o->hits > 1 || run_len(o) > SLACK ||
		    o->start > r->next || o->start < r->start || o->next < r->next)
			continue;
		r->next = o->next;
		r->read += o->read;
		memset(o, 0, sizeof(*o));
		i = 0; /* the end is another one */
	}
}

static void go_on(struct pattern *p, struct run *r, const struct pattern_limits *l, uint64_t off,
    uint64_t len)
{
	r->turn = p->turn;
	r->left = false;
	r->read += len;
	if (off + len <= r->next)
		return;
	r->next = off + len;
	catch_up(p, r);
	set_window(r, l);
}

void pattern_note(struct pattern *p, const struct pattern_limits *l, uint64_t off, uint64_t len)
{
	struct run *r;
	int n;

	p->turn++;
	r = latest(p, adjoins, off, len);
	if (r == NULL)
		r = latest(p, overtakes, off, len);
	if (r == NULL && (r = latest(p, on_line, off, len)) != NULL) {
		n = steps_to(r, off);
		r->turn = p->turn;
		if (n > 0)
			step_on(p, r, n, off, len);
		return;
	}
	if (r == NULL)
		r = latest(p, was_late, off, len);
	if (r != NULL) {
		go_on(p, r, l, off, len);
	} else if (!goes_back(p, off, len) && !begins_line(p, off, len)) {
		begins(p, off, len);
		/* Who begins at the start of the file will most probably go on. */
		if (p->turn == 1 && off == 0)
			set_window(p->run, l);
	}
}

void pattern_want(struct pattern *p, uint64_t next, uint64_t window)
{
	struct run *r = p->run;

	p->turn++;
	r->turn = p->turn;
	r->next = next;
	r->window = window;
	if (r->ahead < next)
		r->ahead = next;
}

/* --- What to fetch */

/* Small pieces wait until a part can be asked for. */
static bool next_in_sequence(struct run *r, const struct pattern_limits *l,
    struct pattern_range *out)
{
	uint64_t window = MIN(r->window, l->window), part = MAX(MIN(l->part, window / 4), l->page);
	uint64_t from = MAX(r->ahead, r->next), to = r->next + window;

	/* Whole pages: a part of one is all of it. */
	from = (from + l->page - 1) / l->page * l->page;
	to = MIN((to + l->page - 1) / l->page * l->page, l->size);
	if (window == 0 || from >= to)
		return false;
	if (to != l->size && to - from < part && from >= r->next + window / 2)
		return false;
	*out = (struct pattern_range){.run = r, .from = from, .to = MIN(to, from + part)};
	return true;
}

/* Are the pages of one run beside those of the next? */
static bool dense(const struct run *r, const struct pattern_limits *l, uint64_t dist)
{
	return dist <= r->hold + l->page;
}

/* Bytes of steps k to n from the run, as the file has them.  False: none. */
static bool cut(const struct run *r, const struct pattern_limits *l, unsigned k, unsigned n,
    struct pattern_range *out)
{
	int64_t a = (int64_t)r->start + k * r->step, b = (int64_t)r->start + n * r->step;
	int64_t from = MIN(a, b), to = MAX(a, b) + (int64_t)r->hold;

	/* Steps of broken pages waver. */
	if (r->step % (int64_t)GRAIN != 0) {
		from -= GRAIN;
		to += GRAIN;
	}
	if (to <= 0 || from >= (int64_t)l->size)
		return false;
	out->from = (uint64_t)MAX(from, 0);
	out->to = MIN((uint64_t)to, l->size);
	return true;
}

static bool next_in_steps(struct run *r, const struct pattern_limits *l,
    struct pattern_range *out)
{
	uint64_t dist = (uint64_t)(r->step < 0 ? -r->step : r->step);
	uint64_t cost = (r->hold + l->page - 1) / l->page * l->page, most;
	unsigned many = 1;

	if (r->step == 0 || r->hits < 2)
		return false;
	if (dense(r, l, dist)) {
		cost = dist;
		many = (unsigned)MIN(MAX(l->part / dist, 1), UINT16_MAX);
	}
	most = MIN(l->window / MAX(cost, 1), r->hits);
	if (many == 1)
		most = MIN(most, STEPS_MAX);
	if (r->taken >= most || (many > 1 && r->taken > most / 2 && r->taken + many > most))
		return false;
	out->run = r;
	out->steps = (unsigned)MIN(many, most - r->taken);
	return cut(r, l, r->taken + 1, r->taken + out->steps, out);
}

bool pattern_next(struct pattern *p, const struct pattern_limits *l, struct pattern_range *out)
{
	for (unsigned i = 0; i < PATTERN_RUNS; i++) {
		struct run *r = &p->run[(p->from + i) % PATTERN_RUNS];

		memset(out, 0, sizeof(*out));
		if (r->turn == 0 || r->left || l->window == 0)
			continue;
		if (!next_in_sequence(r, l, out) && !next_in_steps(r, l, out))
			continue;
		p->from = (unsigned)(r - p->run) + 1;
		return true;
	}
	return false;
}

void pattern_took(const struct pattern_range *r, uint64_t to)
{
	if (r->steps > 0)
		r->run->taken += r->steps;
	else
		r->run->ahead = MAX(r->run->ahead, to);
}
