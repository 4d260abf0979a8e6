/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a handle will read next, told from what it has read: no I/O, no clock, the
 * same answers for the same questions.
 *
 *   pattern_note(offset, length) ... -> pattern_next() -> range, pattern_took(range)
 *
 * A run is a stretch that was read without a gap.  Two things are foretold of it:
 *
 *   in sequence	it goes on, for as long again as it is already.  If the runs
 *			before it ended after so many bytes, it is thought to end there
 *			as well until it goes on beyond.
 *   in steps		another run of the same length follows at the same distance,
 *			forwards or backwards; backwards without a gap is a step, too.
 *			Of these as many are foretold as have come true, and the first
 *			only when four reads lie on a line.
 *
 * So a guess that fails costs no more than twice what the same run had right, and
 * reads that follow nothing cost nothing: they begin a run of their own each, which
 * takes the place of one that was left.
 */
#ifndef CACHE_PATTERN_H
#define CACHE_PATTERN_H

#include <stdbool.h>
#include <stdint.h>

/* Eight at a time, and some for reads that are part of none. */
#define PATTERN_RUNS 12

struct run {
	uint64_t start, next; /* read from here up to there, */
	uint64_t read;	      /* so many bytes of it */
	uint64_t hold;	      /* bytes of the runs before it; 0: nothing is known */
	/* in sequence */
	uint64_t window; /* bytes to have ahead of `next`; 0: not in sequence */
	uint64_t ahead;	 /* taken up to here */
	/* in steps */
	int64_t step;	 /* to the start of the next run; 0: none */
	uint64_t origin; /* the start of the first run, */
	unsigned steps;	 /* so many ago */
	unsigned hits;	 /* runs that came as foretold */
	unsigned taken;	 /* steps from here */
	uint64_t born, turn; /* its first and its last read; 0: unused */
	bool left;	 /* the reader has gone on to the next run */
};

struct pattern {
	struct run run[PATTERN_RUNS];
	uint64_t turn; /* reads so far */
	uint64_t hold; /* bytes that runs have lately */
	unsigned from; /* the run that pattern_next() looks at first */
};

struct pattern_limits {
	uint64_t size;	 /* of the file */
	uint64_t window; /* bytes that a run may have ahead; 0: none at all */
	uint64_t part;	 /* bytes of the largest range, at least a page */
	uint32_t page;	 /* ranges are fetched in whole pages */
};

struct pattern_range {
	struct run *run;
	uint64_t from, to; /* bytes, not aligned; from < to <= size */
	unsigned steps;	   /* taken, when this is; 0: in sequence */
};

/* A read of len > 0 bytes within the file. */
void pattern_note(struct pattern *p, const struct pattern_limits *l, uint64_t off, uint64_t len);
/* Whatever is read: `window` bytes after next, for a reader that says so. */
void pattern_want(struct pattern *p, uint64_t next, uint64_t window);
/* What to fetch now, from the runs in turn.  False: nothing. */
bool pattern_next(struct pattern *p, const struct pattern_limits *l, struct pattern_range *out);
/* It is fetched, up to byte `to` (in sequence), or altogether. */
void pattern_took(const struct pattern_range *r, uint64_t to);

#endif
