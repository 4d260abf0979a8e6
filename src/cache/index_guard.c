/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where an error of the disk is a SIGBUS.  What a reader had is ended for him: nothing
 * of it needs the map.  A writer was somewhere in LMDB's trees, with cursors on a stack
 * that is gone, so nothing of its environment is ever touched again: its memory, map and
 * descriptors are lost.  That is not often: the second time in a row (store.c) the index
 * begins afresh.
 */
#include "base/mapguard.h"
#include "cache/index_priv.h"

struct guarded {
	struct index *ix;
	int (*fn)(struct index *ix, void *arg);
	void *arg;
	int err;
};

static void run(void *arg)
{
	struct guarded *g = arg;

	g->err = g->fn(g->ix, g->arg);
}

int index_guard(struct index *ix, int (*fn)(struct index *ix, void *arg), void *arg)
{
	struct guarded g = {.ix = ix, .fn = fn, .arg = arg};

	CHECK_OBJ(ix, INDEX_MAGIC);
	if (ix->broken)
		return -EIO;
	if (mapguard_run(run, &g))
		return g.err;
	ix->broken = true;
	index_read_end(ix);
	return -EIO;
}

void index_close_env(struct index *ix)
{
	if (ix->env != NULL && ix->writing)
		mapguard_lose(ix->env);
	else if (ix->env != NULL)
		mdb_env_close(ix->env);
	ix->env = NULL;
	ix->used = ix->reused = 0;
	ix->broken = ix->writing = false;
}

int index_read_begin(struct index *ix, const MDB_dbi *dbi)
{
	int rc = mdb_txn_begin(ix->env, NULL, MDB_RDONLY, &ix->rtxn);
	MDB_stat st;

	if (rc != 0) {
		ix->rtxn = NULL;
		ix->broken = rc == MDB_PANIC;
		return index_err(rc);
	}
	if (dbi == NULL)
		return 0;
	/* So that the next call finds the table's root: it owns memory when it looks. */
	rc = mdb_stat(ix->rtxn, *dbi, &st);
	if (rc == 0)
		rc = mdb_cursor_open(ix->rtxn, *dbi, &ix->rcur);
	if (rc != 0) {
		ix->rcur = NULL;
		index_read_end(ix);
	}
	return index_err(rc);
}

void index_read_end(struct index *ix)
{
	if (ix->rcur != NULL)
		mdb_cursor_close(ix->rcur);
	ix->rcur = NULL;
	if (ix->rtxn != NULL)
		mdb_txn_abort(ix->rtxn);
	ix->rtxn = NULL;
}
