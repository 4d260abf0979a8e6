/* SPDX-License-Identifier: BSD-2-Clause */
#include "ops/pathlock.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/obj.h"

void pathlocks_init(struct pathlocks *ls, struct loop *lp)
{
	ls->loop = lp;
	ls->waiting = 0;
	ls->blocks = NULL;
	TAILQ_INIT(&ls->list);
}

void pathlocks_fini(struct pathlocks *ls)
{
	assert(TAILQ_EMPTY(&ls->list));
}

int pathlock_add(struct pathlock *l, const char *path, bool tree)
{
	assert(l->in == NULL && l->n < PATHLOCK_PATHS);
	l->p[l->n].path = strdup(path);
	if (l->p[l->n].path == NULL)
		return -ENOMEM;
	l->p[l->n++].tree = tree;
	return 0;
}

/* Is path at `dir`, or (tree) below it? */
static bool covers(const char *dir, bool tree, const char *path)
{
	size_t n = strlen(dir);

	if (!tree)
		return strcmp(dir, path) == 0;
	return n == 0 || (strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0'));
}

static bool touch(const struct pathlock *a, const struct pathlock *b)
{
	for (unsigned i = 0; i < a->n; i++)
		for (unsigned k = 0; k < b->n; k++)
			if (covers(a->p[i].path, a->p[i].tree, b->p[k].path) ||
			    covers(b->p[k].path, b->p[k].tree, a->p[i].path))
				return true;
	return false;
}

/* Waiting ones count: who asked first is first, so nobody is passed over for ever. */
static bool in_the_way(const struct pathlocks *ls, const struct pathlock *l)
{
	const struct pathlock *o;

	TAILQ_FOREACH(o, &ls->list, link)
	{
		if (o == l)
			return false;
		if (touch(o, l))
			return true;
	}
	return false;
}

static bool blocked(struct pathlocks *ls, const struct pathlock *l)
{
	for (unsigned i = 0; ls->blocks != NULL && !l->passes && i < l->n; i++)
		if (ls->blocks(ls, l->p[i].path, l->p[i].tree))
			return true;
	return false;
}

bool pathlock_try(struct pathlocks *ls, struct pathlock *l, void (*done)(struct pathlock *l))
{
	assert(l->in == NULL);
	l->in = ls;
	l->done = done;
	TAILQ_INSERT_TAIL(&ls->list, l, link);
	l->held = !in_the_way(ls, l) && !blocked(ls, l);
	if (!l->held)
		ls->waiting++;
	return l->held;
}

static void granted(struct deferred *d)
{
	struct pathlock *l = container_of(d, struct pathlock, run);

	l->notify = false;
	l->done(l);
}

static void grant(struct pathlocks *ls)
{
	struct pathlock *l;

	TAILQ_FOREACH(l, &ls->list, link)
	{
		if (ls->waiting == 0)
			return;
		if (l->held || l->err != 0 || in_the_way(ls, l) || blocked(ls, l))
			continue;
		l->held = l->notify = true;
		ls->waiting--;
		loop_defer(ls->loop, &l->run, granted);
	}
}

void pathlocks_unblocked(struct pathlocks *ls, int err)
{
	struct pathlock *l;

	grant(ls);
	if (err == 0)
		return;
	/* It stands in the queue until its user has ended it. */
	TAILQ_FOREACH(l, &ls->list, link)
	{
		if (l->held || l->err != 0 || !blocked(ls, l))
			continue;
		l->err = err;
		l->notify = true;
		loop_defer(ls->loop, &l->run, granted);
	}
}

void pathlock_end(struct pathlock *l)
{
	struct pathlocks *ls = l->in;

	if (ls != NULL) {
		TAILQ_REMOVE(&ls->list, l, link);
		if (!l->held)
			ls->waiting--;
		if (l->notify)
			loop_undefer(ls->loop, &l->run);
		l->in = NULL;
		l->held = l->notify = false;
		l->err = 0;
		grant(ls);
	}
	while (l->n > 0)
		free(l->p[--l->n].path);
}
