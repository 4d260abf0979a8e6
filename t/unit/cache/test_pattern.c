/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is foretold of many ways to read.  A model of a cache counts pages: which
 * were there when they were read, which were fetched ahead and never read.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "base/obj.h"
#include "base/units.h"
#include "cache/pattern.h"

#define PAGE (64 * KIB)
#define SIZE (4 * GIB)
#define PAGES (SIZE / PAGE)

enum { ABSENT, AHEAD, READ };

struct sim {
	struct pattern p;
	struct pattern_limits l;
	unsigned char page[PAGES];
	uint64_t reads, late; /* pages that a read wanted; of those, not there */
	uint64_t ahead, used; /* pages fetched ahead; of those, read */
	uint64_t ranges;
	unsigned seed;
};

static struct sim *sim_new(void)
{
	struct sim *s = calloc(1, sizeof(*s));

	cr_assert_not_null(s);
	s->l = (struct pattern_limits){
		.size = SIZE, .window = 64 * MIB, .part = 8 * MIB, .page = PAGE};
	s->seed = 11;
	return s;
}

static void sim_fetch(struct sim *s)
{
	struct pattern_range r;

	while (pattern_next(&s->p, &s->l, &r)) {
		cr_assert_lt(r.from, r.to);
		cr_assert_leq(r.to, s->l.size);
		cr_assert_lt(s->ranges++, 10000000, "it has no end");
		for (uint64_t no = r.from / PAGE; no * PAGE < r.to; no++) {
			if (s->page[no] != ABSENT)
				continue;
			s->page[no] = AHEAD;
			s->ahead++;
		}
		pattern_took(&r, r.to);
	}
}

static void sim_read(struct sim *s, uint64_t off, uint64_t len)
{
	cr_assert_lt(off, s->l.size);
	len = MIN(len, s->l.size - off);
	for (uint64_t no = off / PAGE; no * PAGE < off + len; no++) {
		if (s->page[no] == READ)
			continue;
		s->reads++;
		s->late += s->page[no] == ABSENT;
		s->used += s->page[no] == AHEAD;
		s->page[no] = READ;
	}
	pattern_note(&s->p, &s->l, off, len);
	sim_fetch(s);
}

static uint64_t at_random(struct sim *s, uint64_t limit)
{
	uint64_t n = (uint64_t)rand_r(&s->seed) << 31;

	return (n + (uint64_t)rand_r(&s->seed)) % limit;
}

struct way {
	const char *name;
	void (*run)(struct sim *s, const struct way *w);
	unsigned readers;
	uint64_t at;   /* the first begins here */
	int64_t step;  /* bytes from one run to the next */
	uint64_t run_len, read_len;
	unsigned runs; /* a reader */
	unsigned late_percent, waste_percent; /* at most: of pages read; of pages fetched */
};

/* Readers that go in steps, a read each in turn; step == run_len is in sequence. */
static void lines(struct sim *s, const struct way *w)
{
	for (unsigned i = 0; i < w->runs; i++) {
		for (uint64_t in = 0; in < w->run_len; in += w->read_len) {
			for (unsigned k = 0; k < w->readers; k++) {
				/* Neither are their places on a line. */
				int64_t at = (int64_t)(w->at + k * 301 * MIB + k * k * 5 * MIB);

				at += (int64_t)i * w->step;
				sim_read(s, (uint64_t)at + in, w->read_len);
			}
		}
	}
}

/* The same from places at equal distances, as of a file cut in pieces. */
static void pieces(struct sim *s, const struct way *w)
{
	for (uint64_t in = 0; in < w->runs * w->run_len; in += w->read_len) {
		for (unsigned k = 0; k < w->readers; k++)
			sim_read(s, k * (SIZE / w->readers) + in, w->read_len);
	}
}

/* Runs of run_len at random places, each a multiple of step. */
static void randoms(struct sim *s, const struct way *w)
{
	for (unsigned i = 0; i < w->runs; i++) {
		uint64_t at = at_random(s, SIZE / (uint64_t)w->step) * (uint64_t)w->step;

		for (uint64_t in = 0; in < w->run_len && at + in < SIZE; in += w->read_len)
			sim_read(s, at + in, w->read_len);
	}
}

/* Steps beside reads that follow nothing. */
static void with_noise(struct sim *s, const struct way *w)
{
	for (unsigned i = 0; i < w->runs; i++) {
		sim_read(s, (uint64_t)((int64_t)w->at + (int64_t)i * w->step), w->read_len);
		sim_read(s, 3 * GIB + at_random(s, GIB / 4096) * 4096, 4096);
	}
}

static void random_then_sequence(struct sim *s, const struct way *w)
{
	for (unsigned i = 0; i < 300; i++)
		sim_read(s, GIB + at_random(s, 3 * GIB / 4096) * 4096, 4096);
	cr_assert_eq(s->ahead, 0);
	s->reads = s->late = 0;
	lines(s, w);
}

/* Several requests of one reader overtake each other. */
static void shuffled(struct sim *s, const struct way *w)
{
	static const unsigned order[] = {0, 2, 1, 3, 7, 6, 4, 5};

	for (uint64_t i = 0; i < w->runs; i++)
		sim_read(s, w->at + (i / 8 * 8 + order[i % 8]) * w->read_len, w->read_len);
}

/* Steps of bytes that are no multiple of the kernel's pages, which it rounds. */
static void rounded(struct sim *s, const struct way *w)
{
	for (unsigned i = 0; i < w->runs; i++) {
		uint64_t at = (uint64_t)((int64_t)w->at + (int64_t)i * w->step);
		uint64_t from = at / 4096 * 4096, to = (at + w->read_len + 4095) / 4096 * 4096;

		sim_read(s, from, to - from);
	}
}

/* Backwards without a gap, by pieces of any length. */
static void ragged_back(struct sim *s, const struct way *w)
{
	uint64_t at = w->at;

	for (unsigned i = 0; i < w->runs; i++) {
		uint64_t len = (1 + at_random(s, w->read_len / 4096)) * 4096;

		at -= len;
		sim_read(s, at, len);
	}
}

/* Each third step is in the kernel's own cache. */
static void gaps(struct sim *s, const struct way *w)
{
	for (unsigned i = 0; i < w->runs; i++) {
		if (i % 3 != 2)
			sim_read(s, (uint64_t)((int64_t)w->at + (int64_t)i * w->step),
			    w->read_len);
	}
}

#define SEQ(n, len) n, 64 * MIB, 64 * MIB, 64 * MIB, len, 1
#define K KIB
#define M MIB

static const struct way ways[] = {
	{"sequence, 4k", lines, SEQ(1, 4 * K), 1, 67},
	{"sequence, 128k", lines, SEQ(1, 128 * K), 1, 67},
	{"sequence, 1m", lines, SEQ(1, M), 4, 67},
	{"2 in sequence", lines, SEQ(2, 128 * K), 1, 67},
	{"3 in sequence", lines, SEQ(3, 128 * K), 1, 67},
	{"5 in sequence", lines, SEQ(5, 64 * K), 1, 67},
	{"8 in sequence", lines, SEQ(8, 128 * K), 1, 67},
	{"8 in sequence, 1m", lines, SEQ(8, M), 4, 67},
	{"4 pieces", pieces, 4, 0, 0, M, 128 * K, 64, 2, 67},
	{"8 pieces", pieces, 8, 0, 0, M, 128 * K, 64, 5, 67},
	{"steps of 2 pages", lines, 1, 0, 2 * PAGE, 4 * K, 4 * K, 1000, 2, 10},
	{"steps of 3 pages", lines, 1, 7 * M, 3 * PAGE, 64 * K, 64 * K, 1000, 2, 10},
	{"steps of 1m", lines, 1, 0, M, 4 * K, 4 * K, 1000, 1, 10},
	{"steps of 4m, 256k", lines, 1, 0, 4 * M, 256 * K, 256 * K, 500, 2, 10},
	{"steps of 10m, 3m by 128k", lines, 1, 0, 10 * M, 3 * M, 128 * K, 200, 3, 20},
	{"steps below a page", lines, 1, 0, 16 * K, 4 * K, 4 * K, 8000, 2, 50},
	{"3 in steps", lines, 3, 0, M, 64 * K, 64 * K, 200, 3, 20},
	{"4 in steps of 300k", lines, 4, 0, 300 * K, 4 * K, 4 * K, 400, 3, 20},
	{"backwards, 4k", lines, 1, 1000 * M, -4 * (int64_t)K, 4 * K, 4 * K, 8000, 2, 50},
	{"backwards, 64k", lines, 1, 1000 * M, -64 * (int64_t)K, 64 * K, 64 * K, 2000, 1, 50},
	{"backwards, 4m by 1m", lines, 1, 2000 * M, -4 * (int64_t)M, 4 * M, M, 300, 3, 20},
	{"backwards, ragged", ragged_back, 1, 1000 * M, 0, 0, 256 * K, 2000, 3, 50},
	{"2 backwards", lines, 2, 1000 * M, -128 * (int64_t)K, 128 * K, 128 * K, 1000, 1, 50},
	{"backwards in steps", lines, 1, 2000 * M, -(int64_t)M, 4 * K, 4 * K, 1000, 1, 10},
	{"3 backwards in steps", lines, 3, 1000 * M, -3 * (int64_t)M, M, 256 * K, 200, 3, 20},
	{"steps that are rounded", rounded, 1, 12345, 1000003, 1000, 1000, 1000, 2, 20},
	{"and backwards", rounded, 1, 2000 * M + 77, -700001, 1000, 1000, 1000, 2, 20},
	{"steps with gaps", gaps, 1, 0, M, 4 * K, 4 * K, 1000, 3, 40},
	{"steps and noise", with_noise, 1, 0, M, 4 * K, 4 * K, 1000, 52, 10},
	{"random, 4k", randoms, 1, 0, 4 * K, 4 * K, 4 * K, 20000, 100, 10},
	{"random, 64k", randoms, 1, 0, 64 * K, 64 * K, 64 * K, 20000, 100, 10},
	{"random records", randoms, 1, 0, M, 4 * K, 4 * K, 3000, 100, 10},
	{"random, two reads each", randoms, 1, 0, 4 * K, 256 * K, 128 * K, 5000, 100, 10},
	{"faults around which the kernel reads 128k", randoms, 1, 0, 4 * K, 128 * K, 128 * K,
	    5000, 100, 10},
	{"faults around which the kernel reads 4m", randoms, 1, 0, 4 * K, 4 * M, M, 500, 100, 10},
	{"random, then in sequence", random_then_sequence, SEQ(1, 128 * K), 1, 67},
	{"random, then in steps", random_then_sequence, 1, 0, M, 64 * K, 64 * K, 900, 1, 20},
	{"out of order", shuffled, 1, 5 * M, 0, 0, 128 * K, 800, 2, 80},
};

Test(cache_pattern, ways_to_read)
{
	unsigned bad = 0;

	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		const struct way *w = &ways[i];
		struct sim *s = sim_new();
		uint64_t wasted, fetched;

		w->run(s, w);
		wasted = s->ahead - s->used;
		fetched = s->reads - s->used + s->ahead;
		if (getenv("PATTERN_SHOW") != NULL)
			printf("%-44s %6lu pages, %5lu late, %6lu ahead, %5lu wasted, %6lu ranges\n",
			    w->name, s->reads, s->late, s->ahead, wasted, s->ranges);
		if (s->late * 100 > s->reads * w->late_percent ||
		    wasted * 100 > fetched * w->waste_percent) {
			printf("%s: of %lu pages %lu late, of %lu ahead %lu wasted\n", w->name,
			    s->reads, s->late, s->ahead, wasted);
			bad++;
		}
		free(s);
	}
	cr_assert_eq(bad, 0);
}

Test(cache_pattern, nothing_without_a_window)
{
	struct sim *s = sim_new();

	s->l.window = 0;
	lines(s, &ways[0]);
	cr_assert_eq(s->ranges, 0);
	free(s);
}

Test(cache_pattern, a_stray_read_stops_nobody)
{
	struct sim *s = sim_new();
	uint64_t window;

	for (uint64_t off = 0; off < 8 * MIB; off += 128 * KIB)
		sim_read(s, off, 128 * KIB);
	window = s->p.run[0].window;
	cr_assert_geq(window, 8 * MIB);
	for (unsigned i = 0; i < 200; i++)
		sim_read(s, GIB + at_random(s, 3 * GIB / 4096) * 4096, 4096);
	s->late = 0;
	sim_read(s, 8 * MIB, 128 * KIB);
	cr_assert_eq(s->late, 0);
	free(s);
}

/* What is foretold stays in the file, whatever is read. */
Test(cache_pattern, any_reads_of_any_file)
{
	struct sim *s = sim_new();

	for (unsigned file = 0; file < 300; file++) {
		uint64_t base = 0, len = 4096;
		int64_t step = 0;

		memset(&s->p, 0, sizeof(s->p));
		memset(s->page, 0, sizeof(s->page));
		s->l.size = 1 + at_random(s, file % 2 == 0 ? 3 * MIB : SIZE);
		s->l.page = PAGE;
		for (unsigned i = 0; i < 200; i++) {
			if (i % 16 == 0) {
				base = at_random(s, s->l.size);
				step = (int64_t)at_random(s, 4 * MIB) - (int64_t)(2 * MIB);
				len = 1 + at_random(s, MIB);
			}
			sim_read(s, base, len);
			base = (uint64_t)((int64_t)(base + s->l.size) + step) % s->l.size;
		}
	}
	free(s);
}

Test(cache_pattern, a_small_part_of_the_window_waits)
{
	struct sim *s = sim_new();

	for (uint64_t off = 0; off < 64 * MIB; off += 4096)
		sim_read(s, off, 4096);
	cr_assert_leq(s->ranges, 200);
	free(s);
}
