/* SPDX-License-Identifier: BSD-2-Clause */
/* Files that get another place in the queue while somebody reads it. */
#include "ops/persist_priv.h"

void persist_watch(struct fs *fs, struct persist_watch *w)
{
	w->on = fs->persist != NULL;
	if (w->on)
		LIST_INSERT_HEAD(&fs->persist->watches, w, link);
}

void persist_unwatch(struct persist_watch *w)
{
	if (w->on)
		LIST_REMOVE(w, link);
	w->on = false;
}

void persist_unwatch_all(struct persist *p)
{
	while (!LIST_EMPTY(&p->watches))
		persist_unwatch(LIST_FIRST(&p->watches));
}

void persist_moves(struct fs *fs, const struct meta_content *c)
{
	uint64_t place = c->state == META_STATE_FAILED ? UINT64_MAX : c->next_ns;
	struct persist_watch *w;

	if (fs->persist == NULL)
		return;
	LIST_FOREACH(w, &fs->persist->watches, link)
	w->moves(w, c->id, place);
}
