/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Extents in memory: a skip list, sorted by start.  Extents never overlap.
 */
#include <errno.h>
#include <string.h>

#include "cache/staged_priv.h"

void map_init(struct ext_map *m)
{
	memset(m, 0, sizeof(*m));
	m->random = 2463534242u;
}

void map_free(struct ext_map *m)
{
	struct ext *x, *next;

	for (x = m->head[0]; x != NULL; x = next) {
		next = x->next[0];
		free(x);
	}
	free(m->spare[0]);
	free(m->spare[1]);
	map_init(m);
}

/* One in four is taller by one. */
static unsigned random_height(struct ext_map *m)
{
	uint32_t r = m->random;
	unsigned h = 1;

	r ^= r << 13;
	r ^= r >> 17;
	r ^= r << 5;
	m->random = r;
	while (h < EXT_HEIGHT && (r & 3) == 0) {
		r >>= 2;
		h++;
	}
	return h;
}

int map_reserve(struct ext_map *m)
{
	for (unsigned i = 0; i < ARRAY_LEN(m->spare); i++) {
		unsigned h;

		if (m->spare[i] != NULL)
			continue;
		h = random_height(m);
		m->spare[i] = calloc(1, sizeof(struct ext) + h * sizeof(struct ext *));
		if (m->spare[i] == NULL)
			return -ENOMEM;
		m->spare[i]->height = h;
	}
	return 0;
}

/* For each level the last that begins before `start`, NULL: none. */
static void find(const struct ext_map *m, uint64_t start, struct ext *at[EXT_HEIGHT])
{
	struct ext *x = NULL, *next;

	for (unsigned h = EXT_HEIGHT; h-- > 0;) {
		while ((next = x == NULL ? m->head[h] : x->next[h]) != NULL && next->start < start)
			x = next;
		at[h] = x;
	}
}

struct ext *map_before(const struct ext_map *m, uint64_t start)
{
	struct ext *at[EXT_HEIGHT];

	find(m, start, at);
	return at[0];
}

struct ext *map_first(const struct ext_map *m)
{
	return m->head[0];
}

struct ext *map_find(const struct ext_map *m, uint64_t off)
{
	struct ext *x = map_before(m, off);

	if (x != NULL && x->end > off)
		return x;
	return x == NULL ? m->head[0] : x->next[0];
}

static struct ext **slot(struct ext_map *m, struct ext *at[EXT_HEIGHT], unsigned h)
{
	return at[h] == NULL ? &m->head[h] : &at[h]->next[h];
}

void map_insert(struct ext_map *m, uint64_t start, uint64_t end, uint64_t gen)
{
	struct ext *at[EXT_HEIGHT], *x;
	unsigned i = m->spare[0] != NULL ? 0 : 1;

	x = m->spare[i];
	assert(x != NULL);
	m->spare[i] = NULL;
	x->start = start;
	x->end = end;
	x->gen = gen;
	find(m, start, at);
	for (unsigned h = 0; h < x->height; h++) {
		struct ext **p = slot(m, at, h);

		x->next[h] = *p;
		*p = x;
	}
	m->n++;
}

void map_remove(struct ext_map *m, struct ext *x)
{
	struct ext *at[EXT_HEIGHT];

	find(m, x->start, at);
	for (unsigned h = 0; h < x->height; h++)
		*slot(m, at, h) = x->next[h];
	m->n--;
	free(x);
}
