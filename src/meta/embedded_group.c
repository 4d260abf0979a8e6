/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Group commit: all transactions that wait go into one of LMDB's, with one sync.
 *
 * Each of them is all or nothing on its own.  One that fails before it has written
 * leaves the others alone; one that fails later spoils LMDB's transaction, which is
 * then begun again without it.  When the commit itself finds no room, each gets one of
 * its own, so that one that is too large does not take the small ones with it.
 */
#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/fault.h"
#include "base/units.h"
#include "meta/embedded_priv.h"

/* No result yet. */
#define PENDING 1

/* Rows of deleted directories that each commit deletes on the way; fewer when that finds
 * no room, since a commit has the room that those before it made. */
#define SWEEP_ROWS 2000
#define SWEEP_LESS 8

/* A full map still lets go on what makes room, or was promised: into a 16th more. */
static uint64_t reserve(const struct db *db)
{
	uint64_t full = MAX(db->limit, db->map_opened);

	return full + MAX(full / 16, 4 * MIB);
}

struct group {
	struct db *db;
	struct meta_calls *calls;
	struct meta_call *only; /* NULL: all */
	unsigned sweep; /* rows */
	struct db_report *rep;
};

static bool takes_part(const struct group *gr, const struct meta_call *c)
{
	return c->err == PENDING && (gr->only == NULL || gr->only == c);
}

static void settle(const struct group *gr, int err)
{
	struct meta_call *c;

	TAILQ_FOREACH (c, gr->calls, link) {
		if (takes_part(gr, c))
			c->err = err;
	}
}

/* Of a record that is there already, which does not become more: without this nothing
 * could be persisted any more, which is what makes room. */
static bool only_changes(const struct meta_change *ch)
{
	return ch->verb == META_PUT && ch->blob == NULL && ch->if_content != 0 &&
	       (ch->rec.has & META_HAS_CONTENT) != 0 && ch->rec.content.id == ch->if_content;
}

/* May it take what is kept in reserve? */
static bool goes_on(const struct meta_call *c)
{
	if (c->promised)
		return true;
	for (unsigned i = 0; i < c->n; i++) {
		const struct meta_change *ch = &c->changes[i];

		if (ch->verb != META_DEL && ch->verb != META_INTENT_DEL && !only_changes(ch))
			return false;
	}
	return true;
}

/* The map was full in this one: 0 if it is larger now, else what its transaction
 * gets. */
static int grow_for(const struct group *gr, const struct meta_call *c)
{
	uint64_t most = c == NULL || goes_on(c) ? reserve(gr->db) : gr->db->limit;
	int err = db_grow(gr->db, gr->db->map < gr->db->limit ? gr->db->limit : most);

	if (err == -ENOSPC)
		errtext_set(&gr->rep->et, err,
		    "metadata store %s: full: its limit is %llu bytes (meta.size)", gr->db->dir,
		    (unsigned long long)gr->db->limit);
	else if (err != 0)
		errtext_set(&gr->rep->et, err, "metadata store %s: map %llu bytes: %s",
		    gr->db->dir, (unsigned long long)gr->db->map, strerror(-err));
	return err;
}

/* LMDB calls it EIO when a full disk took a part of what it wrote. */
static int disk_err(const struct group *gr, int err)
{
	struct statvfs st;

	if (err == -EIO && statvfs(gr->db->dir, &st) == 0 &&
	    (uint64_t)st.f_bavail * st.f_frsize < MIB)
		return -ENOSPC;
	return err;
}

static int words(const struct group *gr, const char *what, int err)
{
	if (err == -ENOSPC)
		return errtext_set(&gr->rep->et, err,
		    "metadata store %s: %s: no space left on its disk", gr->db->dir, what);
	return errtext_set(&gr->rep->et, err, "metadata store %s: %s: %s", gr->db->dir, what,
	    strerror(-err));
}

enum outcome { OUT_DONE, OUT_AGAIN, OUT_ALONE };

/* What the changes of one transaction came to when they did not go in. */
static enum outcome one_failed(const struct group *gr, struct meta_call *c, int err)
{
	if (err == -EFBIG) {
		err = grow_for(gr, c);
		if (err == 0)
			return OUT_AGAIN;
	} else if (err == -E2BIG) {
		if (gr->only == NULL)
			return OUT_ALONE;
		err = errtext_set(&gr->rep->et, -EINVAL,
		    "metadata store %s: a transaction of %u changes is too large", gr->db->dir,
		    c->n);
	}
	c->err = err;
	return OUT_AGAIN;
}

/* What the store says of itself. */
static int write_own(void *arg)
{
	struct db_txn *t = arg;
	struct db *db = t->db;
	int rc = 0;

	if (db->next_dir != db->next_written)
		rc = db_write_next(db, t->txn);
	if (rc == 0 && memcmp(&t->tally, &db->tally, sizeof(t->tally)) != 0)
		rc = db_write_tally(db, t->txn, &t->tally);
	return rc;
}

static enum outcome commit(const struct group *gr, struct db_txn *t)
{
	struct db *db = gr->db;
	uint64_t next = db->next_dir;
	int err = FAULT("meta.commit");

	if (err == 0 && !epoch_mine(db->epoch))
		err = -ESTALE;
	if (err == 0)
		err = db_err(db_guard(db, DB_WRITES, write_own, t));
	if (db->lost) {
		db_gate_break(db);
		settle(gr, -EIO);
		return OUT_DONE;
	}
	if (err != 0) {
		mdb_txn_abort(t->txn);
	} else {
		size_t before = db->gate.last;
		int rc = db_gate_commit(db, t->txn);

		err = db_err(rc);
		gr->rep->commits += db->gate.last != before;
		if (rc == MDB_PANIC)
			db_gate_break(db);
	}
	if (err == 0) {
		db->next_written = next;
		db->tally = t->tally;
		(void)FAULT("meta.committed");
		settle(gr, 0);
		return OUT_DONE;
	}
	db->garbage_left = true; /* perhaps */
	if (err == -E2BIG && gr->only == NULL)
		return OUT_ALONE;
	if (err == -EFBIG) {
		if (gr->only == NULL && db->map >= db->limit)
			return OUT_ALONE;
		err = grow_for(gr, gr->only);
		if (err == 0)
			return OUT_AGAIN;
	} else if (err != -ESTALE) {
		err = words(gr, "commit", disk_err(gr, err));
		if (err == -ENOSPC && gr->only == NULL)
			return OUT_ALONE;
	}
	settle(gr, err);
	return OUT_DONE;
}

struct apply_call {
	struct db_txn *t;
	const struct meta_call *c; /* NULL: sweep */
	struct meta_call *rc; /* of a reader */
	unsigned sweep;
	int err;
};

static int apply(void *arg)
{
	struct apply_call *ac = arg;

	ac->err = ac->c != NULL ? db_apply(ac->t, ac->c) : db_sweep(ac->t, ac->sweep);
	return 0;
}

/* Its error; all is over if db->lost. */
static int apply_safely(struct apply_call ac)
{
	return db_guard(ac.t->db, DB_WRITES, apply, &ac) == 0 ? ac.err : -EIO;
}

/* All that take part, in one LMDB transaction. */
static enum outcome attempt(struct group *gr)
{
	struct db_txn t = { .db = gr->db, .et = &gr->rep->et, .tally = gr->db->tally };
	struct meta_call *c;
	int rc, err;

	rc = db_gate_broken(gr->db) ? MDB_PANIC : db_gate_write(gr->db, &t.txn);
	if (rc != 0) {
		if (rc == MDB_PANIC)
			db_gate_break(gr->db);
		/* What broke it has been said already. */
		err = db_err(rc);
		settle(gr, gr->rep->et.s[0] != '\0' ? err : words(gr, "begin", err));
		return OUT_DONE;
	}
	TAILQ_FOREACH (c, gr->calls, link) {
		if (!takes_part(gr, c))
			continue;
		t.wrote = false;
		err = apply_safely((struct apply_call){.t = &t, .c = c});
		if (gr->db->lost)
			break;
		if (err == 0)
			continue;
		if (t.wrote || (err != -ENOTDIR && err != -ENOTEMPTY && err != -EEXIST)) {
			mdb_txn_abort(t.txn);
			return one_failed(gr, c, err);
		}
		c->err = err;
	}
	/* If that fails it is not the transactions' fault. */
	err = 0;
	if (gr->sweep > 0 && !gr->db->lost)
		err = apply_safely((struct apply_call){.t = &t, .sweep = gr->sweep});
	if (gr->db->lost) {
		db_gate_break(gr->db);
		settle(gr, -EIO);
		return OUT_DONE;
	}
	if (err == 0)
		return commit(gr, &t);
	mdb_txn_abort(t.txn);
	if (err != -EFBIG || db_grow(gr->db, reserve(gr->db)) != 0)
		gr->sweep /= SWEEP_LESS;
	return OUT_AGAIN;
}

static void tell_broken(struct db *db, struct db_report *rep)
{
	rep->broken = db_gate_broken(db);
	if (db->faulted)
		errtext_set(&rep->et, -EIO,
		    "metadata store %s: a page of it cannot be read: its disk fails, or the file "
		    "was cut short",
		    db->dir);
	else if (rep->broken && rep->et.s[0] == '\0')
		errtext_set(&rep->et, -EIO, "metadata store %s: failed, and is opened again",
		    db->dir);
}

void db_write(struct db *db, struct meta_calls *calls, struct db_report *rep)
{
	struct group gr = { .db = db, .calls = calls, .sweep = SWEEP_ROWS, .rep = rep };
	uint64_t map = db->map;
	struct meta_call *c;
	enum outcome out;

	TAILQ_FOREACH (c, calls, link)
		c->err = PENDING;
	if (!db_gate_broken(db))
		db_room(db);
	do
		out = attempt(&gr);
	while (out == OUT_AGAIN);
	if (out == OUT_ALONE) {
		TAILQ_FOREACH (c, calls, link) {
			gr.only = c;
			while (c->err == PENDING)
				(void)attempt(&gr);
		}
	}
	/* After an error of a disk that has been mounted again: what is open is the old one. */
	if (rep->et.s[0] != '\0' && db_replaced(db))
		db_gate_break(db);
	if (!db_gate_broken(db)) {
		if (db->map > map)
			db_shrink(db);
		db_usage(db, &rep->records, &rep->bytes);
		rep->tally = db->tally;
	}
	/* What could not be swept is tried again with the next transaction. */
	rep->garbage_left = db->garbage_left && rep->commits > 0;
	tell_broken(db, rep);
}

static int read_one(void *arg)
{
	struct apply_call *ac = arg;

	db_read_call(ac->t, ac->rc);
	return 0;
}

void db_read(struct db *db, struct meta_calls *calls, struct db_report *rep)
{
	struct db_txn t = { .db = db, .et = &rep->et };
	struct apply_call ac = { .t = &t };
	struct db_seat *seat = NULL;
	int err = FAULT("meta.read");
	struct meta_call *c;
	bool entered;

	if (err == 0 && !epoch_mine(db->epoch))
		err = -ESTALE;
	if (err == 0)
		err = db_gate_enter(db, &seat);
	entered = err == 0 && seat != NULL;
	TAILQ_FOREACH (c, calls, link) {
		c->err = err;
		if (!entered || err != 0)
			continue;
		t.txn = seat->txn;
		ac.rc = c;
		if (db_guard(db, DB_READS, read_one, &ac) == 0)
			continue;
		db_txn_drop(&t);
		db_gate_break(db);
		c->err = err = -EIO;
	}
	if (entered)
		db_gate_leave(db, seat);
	tell_broken(db, rep);
}
