/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nodes that are worked on although the kernel may not know them.  In memory only: a
 * successor finds the rows, which go when somebody has looked them up and forgotten them,
 * or worked on them again.
 */
#include <errno.h>
#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "ops/node_priv.h"

struct node_held {
	UT_hash_handle hh; /* fs->held_nodes, by id */
	uint64_t id;
	unsigned users;
};

static struct node_held *find(const struct fs *fs, uint64_t id)
{
	struct node_held *h;

	HASH_FIND(hh, fs->held_nodes, &id, sizeof(id), h);
	return h;
}

bool node_held(const struct fs *fs, uint64_t id)
{
	return fs->held_nodes != NULL && find(fs, id) != NULL;
}

int node_hold(struct fs *fs, uint64_t id)
{
	struct node_held *h = find(fs, id);

	if (h == NULL) {
		h = calloc(1, sizeof(*h));
		if (h == NULL)
			return -ENOMEM;
		h->id = id;
		HASH_ADD(hh, fs->held_nodes, id, sizeof(h->id), h);
		if (h->hh.tbl == NULL) {
			free(h);
			return -ENOMEM;
		}
	}
	h->users++;
	return 0;
}

void node_unhold(struct fs *fs, uint64_t id, bool keep)
{
	struct node_held *h = find(fs, id);
	int err;

	if (h == NULL || --h->users > 0)
		return;
	HASH_DEL(fs->held_nodes, h);
	free(h);
	if (keep || fs->db == NULL)
		return;
	err = node_tidy(fs, id);
	if (err != 0 && err != -ENOENT)
		log_warn("state database: node %llu, which nobody needs, stays: %s",
		    (unsigned long long)id, strerror(-err));
}
