/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who changes what under which path, so that steps of two changes do not mix: an upload
 * does not bring back what an unlink deletes, and nothing is made below a directory
 * while it is being renamed.
 *
 * A change holds the paths that it changes (a file: that path; a directory being
 * renamed or removed: the path with all below).  Two that touch are done one after the
 * other, in the order in which they asked; one asks for all of its paths at once, so
 * nobody waits for each other.  The kernel serialises most of this by its own locks, so
 * waiting is rare.  Nothing of it outlives the process: a successor does the waiting
 * requests again.  Loop thread; leaf contract of reactor/task.h.
 *
 * Names that nobody holds may be taken all the same (`blocks`): those whose deletion the
 * storage has not been told of yet.
 */
#ifndef OPS_PATHLOCK_H
#define OPS_PATHLOCK_H

#include <stdbool.h>

#include "base/queue.h"
#include "reactor/loop.h"

#define PATHLOCK_PATHS 4

/* Zero it, then pathlock_add() up to PATHLOCK_PATHS paths, then pathlock_try(). */
struct pathlock {
	/* private */
	TAILQ_ENTRY(pathlock) link;
	struct pathlocks *in; /* while it holds or waits */
	bool held, notify;
	bool passes; /* in: whatever `blocks` says */
	int err;     /* out: it will not be had: what blocks it fails.  pathlock_end() it */
	unsigned n;
	struct {
		char *path;
		bool tree;
	} p[PATHLOCK_PATHS];
	void (*done)(struct pathlock *l);
	struct deferred run;
};

struct pathlocks {
	struct loop *loop;
	TAILQ_HEAD(, pathlock) list; /* in the order of asking */
	unsigned waiting;
	/* Is something in the way of path (tree: or of what is below)?  NULL: nothing ever.
	 * Asked again by pathlocks_unblocked(). */
	bool (*blocks)(struct pathlocks *ls, const char *path, bool tree);
};

void pathlocks_init(struct pathlocks *ls, struct loop *lp);
void pathlocks_fini(struct pathlocks *ls); /* none held */
/* A copy is kept.  -ENOMEM. */
int pathlock_add(struct pathlock *l, const char *path, bool tree);
/* True: it is held.  False: done(l) will be called on the loop, never inline, when it
 * is. */
bool pathlock_try(struct pathlocks *ls, struct pathlock *l, void (*done)(struct pathlock *l));
/* `blocks` may have another answer.  err: those for which it has not are answered with
 * it, by done() and l->err. */
void pathlocks_unblocked(struct pathlocks *ls, int err);
/* Gives back, or stops waiting (done is not called); no-op if it does neither.  The
 * paths are freed in any case. */
void pathlock_end(struct pathlock *l);

#endif
