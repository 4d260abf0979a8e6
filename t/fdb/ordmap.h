/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef T_FDB_ORDMAP_H
#define T_FDB_ORDMAP_H

/* An ordered map from byte strings to pointers: a skip list, walked both ways. */

#include "bytes.h"

#define ORDMAP_LEVELS 20

struct ordmap_node {
	struct bytes key;
	void *data;
	struct ordmap_node *prev; /* NULL for the first */
	struct ordmap_node *next[];
};

struct ordmap {
	struct ordmap_node *head[ORDMAP_LEVELS];
	struct ordmap_node *last;
	uint64_t random;
};

/* The first node from the key on; after: behind it.  NULL: none. */
struct ordmap_node *ordmap_from(const struct ordmap *m, struct bytes key, bool after);
/* The last node before the key; with: or the key's own. */
struct ordmap_node *ordmap_before(const struct ordmap *m, struct bytes key, bool with);
struct ordmap_node *ordmap_find(const struct ordmap *m, struct bytes key);
/* The key's node, new with NULL for data if there was none. */
struct ordmap_node *ordmap_put(struct ordmap *m, struct bytes key);
void ordmap_remove(struct ordmap *m, struct bytes key);
void ordmap_free(struct ordmap *m, void (*data_free)(void *data));

#endif
