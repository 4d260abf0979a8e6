/* SPDX-License-Identifier: BSD-2-Clause */
#include "ordmap.h"

#include <stdlib.h>

/*
 * For each level the pointer that leads to the first node that is not before the key
 * (after: not before or at it).  Returns the last node before that place.
 */
static struct ordmap_node *seek(struct ordmap *m, struct bytes key, bool after,
    struct ordmap_node **from[static ORDMAP_LEVELS])
{
	struct ordmap_node *at = NULL;

	for (int l = ORDMAP_LEVELS - 1; l >= 0; l--) {
		struct ordmap_node **next = at == NULL ? &m->head[l] : &at->next[l];

		while (*next != NULL && bytes_cmp((*next)->key, key) < (after ? 1 : 0)) {
			at = *next;
			next = &at->next[l];
		}
		from[l] = next;
	}
	return at;
}

static unsigned levels_of(struct ordmap *m)
{
	unsigned n = 1;

	m->random = m->random * 6364136223846793005u + 1442695040888963407u;
	while (n < ORDMAP_LEVELS && (m->random >> (20 + 2 * n) & 3) == 0)
		n++;
	return n;
}

struct ordmap_node *ordmap_from(const struct ordmap *m, struct bytes key, bool after)
{
	struct ordmap_node **from[ORDMAP_LEVELS];

	seek((struct ordmap *)(uintptr_t)m, key, after, from);
	return *from[0];
}

struct ordmap_node *ordmap_before(const struct ordmap *m, struct bytes key, bool with)
{
	struct ordmap_node **from[ORDMAP_LEVELS];

	return seek((struct ordmap *)(uintptr_t)m, key, with, from);
}

struct ordmap_node *ordmap_find(const struct ordmap *m, struct bytes key)
{
	struct ordmap_node *n = ordmap_from(m, key, false);

	return n != NULL && bytes_same(n->key, key) ? n : NULL;
}

struct ordmap_node *ordmap_put(struct ordmap *m, struct bytes key)
{
	struct ordmap_node **from[ORDMAP_LEVELS], *n, *prev;
	unsigned levels;

	prev = seek(m, key, false, from);
	if (*from[0] != NULL && bytes_same((*from[0])->key, key))
		return *from[0];
	levels = levels_of(m);
	n = mem_get(sizeof(*n) + ORDMAP_LEVELS * sizeof(n->next[0]));
	n->key = bytes_dup(key);
	n->prev = prev;
	for (unsigned l = 0; l < levels; l++) {
		n->next[l] = *from[l];
		*from[l] = n;
	}
	if (n->next[0] != NULL)
		n->next[0]->prev = n;
	else
		m->last = n;
	return n;
}

void ordmap_remove(struct ordmap *m, struct bytes key)
{
	struct ordmap_node **from[ORDMAP_LEVELS], *n;

	seek(m, key, false, from);
	n = *from[0];
	if (n == NULL || !bytes_same(n->key, key))
		return;
	for (unsigned l = 0; l < ORDMAP_LEVELS; l++) {
		if (*from[l] == n)
			*from[l] = n->next[l];
	}
	if (n->next[0] != NULL)
		n->next[0]->prev = n->prev;
	else
		m->last = n->prev;
	bytes_free(&n->key);
	free(n);
}

void ordmap_free(struct ordmap *m, void (*data_free)(void *data))
{
	struct ordmap_node *n = m->head[0], *next;

	for (; n != NULL; n = next) {
		next = n->next[0];
		if (data_free != NULL)
			data_free(n->data);
		bytes_free(&n->key);
		free(n);
	}
	*m = (struct ordmap){ 0 };
}
