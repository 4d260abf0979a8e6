/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where an error of the disk is a SIGBUS.  What a reader had is ended for him: nothing of
 * it needs the map.  A writer was somewhere in LMDB's trees, with cursors on a stack that
 * is gone, so nothing of its environment is ever touched again: its memory, map and
 * descriptors are lost.  Nobody holds the gate's lock while he is in here, but for who
 * takes a snapshot, and that one comes back to where he has it.
 */
#include <stdlib.h>

#include "base/mapguard.h"
#include "meta/embedded_priv.h"

struct guarded {
	int (*fn)(void *arg);
	void *arg;
	int rc;
};

static void run(void *arg)
{
	struct guarded *g = arg;

	g->rc = g->fn(g->arg);
}

int db_guard(struct db *db, enum db_guard_as as, int (*fn)(void *arg), void *arg)
{
	struct guarded g = { .fn = fn, .arg = arg };

	if (mapguard_run(run, &g))
		return g.rc;
	db->faulted = true;
	if (as == DB_WRITES)
		db->lost = true;
	return MDB_PANIC;
}

void db_close_env(struct db *db)
{
	if (db->opening != NULL)
		mdb_txn_abort(db->opening);
	db->opening = NULL;
	if (db->env != NULL && db->lost)
		mapguard_lose(db->env);
	else if (db->env != NULL)
		mdb_env_close(db->env);
	db->env = NULL;
	db->lost = false;
}

void db_txn_drop(struct db_txn *t)
{
	if (t->cur != NULL)
		mdb_cursor_close(t->cur);
	t->cur = NULL;
	free(t->gather.items);
	free(t->gather.arena);
	memset(&t->gather, 0, sizeof(t->gather));
}
