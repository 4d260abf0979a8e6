/* SPDX-License-Identifier: BSD-2-Clause */
/* Readers beside the writer: see embedded_priv.h. */
#include <errno.h>

#include "meta/embedded_priv.h"

int db_gate_init(struct db *db)
{
	struct db_gate *g = &db->gate;
	int err, rc;

	err = -pthread_mutex_init(&g->lock, NULL);
	if (err != 0)
		return err;
	g->lock_ok = true;
	err = -pthread_cond_init(&g->cond, NULL);
	if (err != 0)
		return err;
	g->cond_ok = true;
	/* Begun once, so that renewing them later needs no memory. */
	for (unsigned i = 0; i < DB_READERS; i++) {
		struct db_seat *s = &g->seats[i];

		rc = mdb_txn_begin(db->env, NULL, MDB_RDONLY, &s->txn);
		if (rc != 0) {
			s->txn = NULL;
			return db_err(rc);
		}
		s->snapshot = mdb_txn_id(s->txn);
		g->last = s->snapshot;
	}
	return 0;
}

void db_gate_fini(struct db *db)
{
	struct db_gate *g = &db->gate;

	for (unsigned i = 0; i < DB_READERS; i++) {
		assert(!g->seats[i].taken);
		if (g->seats[i].txn != NULL)
			mdb_txn_abort(g->seats[i].txn);
		g->seats[i].txn = NULL;
	}
	if (g->cond_ok)
		pthread_cond_destroy(&g->cond);
	if (g->lock_ok)
		pthread_mutex_destroy(&g->lock);
	g->cond_ok = g->lock_ok = false;
}

static int renew_txn(void *arg)
{
	struct db_seat *s = arg;
	int rc;

	mdb_txn_reset(s->txn);
	rc = mdb_txn_renew(s->txn);
	if (rc == 0)
		s->snapshot = mdb_txn_id(s->txn);
	return rc;
}

static int renew(struct db *db, struct db_seat *s)
{
	struct db_gate *g = &db->gate;
	int rc = db_guard(db, DB_READS, renew_txn, s);

	if (rc != 0) {
		g->broken = true; /* it needs nothing that could lack for a while */
		return db_err(rc);
	}
	assert(s->snapshot == g->last);
	return 0;
}

static struct db_seat *free_seat(struct db_gate *g)
{
	for (unsigned i = 0; i < DB_READERS; i++) {
		if (!g->seats[i].taken)
			return &g->seats[i];
	}
	return NULL;
}

int db_gate_enter(struct db *db, struct db_seat **seat)
{
	struct db_gate *g = &db->gate;
	struct db_seat *s = NULL;
	int err = 0;

	pthread_mutex_lock(&g->lock);
	while (g->alone || (!g->broken && (s = free_seat(g)) == NULL))
		pthread_cond_wait(&g->cond, &g->lock);
	if (g->broken)
		err = -EIO;
	else if (!g->committing)
		err = renew(db, s);
	else /* the commit has renewed it, or its last reader had what is the last still */
		assert(s->snapshot == g->last);
	if (err == 0)
		s->taken = true;
	pthread_mutex_unlock(&g->lock);
	*seat = s;
	return err;
}

void db_gate_leave(struct db *db, struct db_seat *seat)
{
	struct db_gate *g = &db->gate;

	pthread_mutex_lock(&g->lock);
	seat->taken = false;
	pthread_cond_broadcast(&g->cond);
	pthread_mutex_unlock(&g->lock);
}

static bool reads(const struct db_gate *g, bool old)
{
	for (unsigned i = 0; i < DB_READERS; i++) {
		if (g->seats[i].taken && (!old || g->seats[i].snapshot != g->last))
			return true;
	}
	return false;
}

struct write_call {
	struct db *db;
	MDB_txn *txn;
	size_t last;
};

static int write_begin(void *arg)
{
	struct write_call *wc = arg;

	return mdb_txn_begin(wc->db->env, NULL, 0, &wc->txn);
}

int db_gate_write(struct db *db, MDB_txn **txn)
{
	struct write_call wc = { .db = db };
	struct db_gate *g = &db->gate;
	int rc;

	pthread_mutex_lock(&g->lock);
	while (reads(g, true))
		pthread_cond_wait(&g->cond, &g->lock);
	rc = db_guard(db, DB_WRITES, write_begin, &wc);
	pthread_mutex_unlock(&g->lock);
	*txn = wc.txn;
	return rc;
}

static int write_commit(void *arg)
{
	struct write_call *wc = arg;
	MDB_envinfo info;
	int rc = mdb_txn_commit(wc->txn);

	/* One that changed nothing leaves the id as it was. */
	mdb_env_info(wc->db->env, &info);
	wc->last = info.me_last_txnid;
	return rc;
}

int db_gate_commit(struct db *db, MDB_txn *txn)
{
	struct write_call wc = { .db = db, .txn = txn };
	struct db_gate *g = &db->gate;
	size_t id = mdb_txn_id(txn);
	int rc = 0;

	pthread_mutex_lock(&g->lock);
	for (unsigned i = 0; i < DB_READERS && rc == 0; i++) {
		if (!g->seats[i].taken && renew(db, &g->seats[i]) != 0)
			rc = MDB_PANIC;
	}
	g->committing = rc == 0;
	pthread_mutex_unlock(&g->lock);
	if (rc != 0) {
		mdb_txn_abort(txn);
		return rc;
	}
	wc.last = g->last; /* this is its only writer */
	rc = db_guard(db, DB_WRITES, write_commit, &wc);
	pthread_mutex_lock(&g->lock);
	g->committing = false;
	assert(wc.last <= id);
	g->last = wc.last;
	pthread_cond_broadcast(&g->cond);
	pthread_mutex_unlock(&g->lock);
	return rc;
}

void db_gate_break(struct db *db)
{
	pthread_mutex_lock(&db->gate.lock);
	db->gate.broken = true;
	pthread_cond_broadcast(&db->gate.cond);
	pthread_mutex_unlock(&db->gate.lock);
}

bool db_gate_broken(struct db *db)
{
	bool broken;

	pthread_mutex_lock(&db->gate.lock);
	broken = db->gate.broken;
	pthread_mutex_unlock(&db->gate.lock);
	return broken;
}

void db_gate_alone(struct db *db, bool alone)
{
	struct db_gate *g = &db->gate;

	pthread_mutex_lock(&g->lock);
	g->alone = alone;
	while (alone && reads(g, false))
		pthread_cond_wait(&g->cond, &g->lock);
	for (unsigned i = 0; i < DB_READERS; i++)
		mdb_txn_reset(g->seats[i].txn);
	pthread_cond_broadcast(&g->cond);
	pthread_mutex_unlock(&g->lock);
}
