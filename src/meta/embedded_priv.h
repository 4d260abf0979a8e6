/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The embedded back end between its files.  embedded.c is the loop's side; the rest
 * runs in pool threads and knows no loop:
 *
 *	embedded_env.c	the files: lock, opening, the map's size
 *	embedded_room.c	the file's end
 *	embedded_format.c the tables, and what older formats lack of them
 *	embedded_gate.c	readers beside the one writer
 *	embedded_guard.c pages of the map that cannot be read
 *	embedded_rows.c	rows, directories, the way to a path
 *	embedded_index.c what is kept beside the rows, and the path of a row
 *	embedded_read.c	get, scan, intents, content, queue, settings
 *	embedded_write.c the verbs
 *	embedded_group.c many transactions in one commit
 *
 * Tables: "meta" (format, next directory id, tally), "tree" (records.h), "intents" (id ->
 * version byte and blob), "garbage" (ids of directories that nobody names any more;
 * what is in them is deleted in pieces by later commits, so that deleting a directory
 * is one row whatever is below it), and since format 2 "parents", "content", "queue",
 * "blobs" and "settings" (records.h).
 *
 * What is beside a row goes with the row, so also that of rows which wait in the
 * garbage.  Who reads the queue or asks for content finds that their way to the top is
 * cut off.
 */
#ifndef META_EMBEDDED_PRIV_H
#define META_EMBEDDED_PRIV_H

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "meta/meta_priv.h"
#include "meta/records.h"

#define DB_READERS 4u
#define DB_FORMAT 2u
#define DB_TABLES 9u
#define DB_INTENT_VERSION 1

/* --- The gate.  LMDB's own table of readers goes by pid and is a shared write map
 * (two containers are both pid 1; a full disk is a SIGBUS), so the environment is
 * opened with MDB_NOLOCK, and this keeps what LMDB then asks for: no reader uses an
 * older snapshot than the last while a transaction writes, and none begins while one
 * is being committed.  So that readers need not wait for a commit's sync, each seat
 * has a snapshot taken just before it. */
struct db_seat {
	MDB_txn *txn;
	size_t snapshot; /* its transaction id */
	bool taken;
};

struct db_gate {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool lock_ok, cond_ok;
	/* under lock */
	struct db_seat seats[DB_READERS];
	size_t last; /* id of the last commit */
	bool committing, alone;
	bool broken; /* LMDB will not go on */
};

struct db {
	uint32_t magic;
#define DB_MAGIC 0x3e7adb00u
	char *dir;
	int lock_fd;
	const struct epoch *epoch;
	MDB_env *env;
	MDB_dbi meta, tree, intents, garbage, parents, content, queue, blobs, settings;
	struct db_gate gate;
	_Atomic bool faulted; /* a page of the map could not be read */
	bool lost;	 /* in the middle of a write: env is not to be touched any more */
	MDB_txn *opening; /* of who opens the store, so that it can be ended for him */
	/* the writer's */
	uint64_t map, limit;   /* bytes: now, at most */
	uint64_t map_opened;   /* in the beginning; more than the limit if the file is */
	uint64_t room;	       /* bytes of the file that there are, or were not to be had */
	uint64_t next_dir;     /* the next id to give out */
	uint64_t next_written; /* what the store says of it */
	struct meta_tally tally; /* what the store says */
	bool garbage_left;
};

/* What was open here before; NULL: nothing. */
struct db_was {
	bool known;
	size_t last; /* id of its last commit */
};

/* Opens, or makes, the store in dir, which limit bytes may fill.  -EBUSY: somebody
 * else holds the lock.  One that was open before is not made anew: where it lacks, or an
 * older one is, its disk does.  et has words for every error. */
int db_open(struct db **out, const char *dir, uint64_t limit, const struct epoch *epoch,
    const struct db_was *was, struct errtext *et);
void db_close(struct db **db);
/* Its name leads to another file than is open: the disk was mounted anew, say. */
bool db_replaced(struct db *db);
/* Makes the map as large as it must be for what did not fit into it, up to `most`:
 * -ENOSPC if it is that large already. */
int db_grow(struct db *db, uint64_t most);
/* Takes it back to the limit, as far as it is not in use. */
void db_shrink(struct db *db);

/* Makes the tables of a new store, in a transaction; LMDB's code. */
int db_format_new(struct db *db, MDB_txn *txn);
/* Opens the tables of the store at `path` and reads what the writer has in memory; one of
 * an older format becomes one of this.  et has words for every error. */
int db_format_open(struct db *db, const char *path, struct errtext *et);
/* Put these into the store; LMDB's code. */
int db_write_next(struct db *db, MDB_txn *txn);
int db_write_tally(struct db *db, MDB_txn *txn, const struct meta_tally *ta);

/* Makes the file longer than it need be, so that the next commits overwrite it. */
void db_room(struct db *db);

/* --- The guard.  All that touches the map does so in here; calls do not nest.  Returns
 * what fn does, a code of LMDB's, or MDB_PANIC: a page could not be read, and the store
 * must be closed.  Then fn has not come to its end: what it owned must be known to others. */
enum db_guard_as { DB_READS, DB_WRITES };
int db_guard(struct db *db, enum db_guard_as as, int (*fn)(void *arg), void *arg);
/* Whatever state it is in. */
void db_close_env(struct db *db);

/* Rows of the tree, and bytes that rows take. */
void db_usage(struct db *db, uint64_t *records, uint64_t *bytes);

int db_gate_init(struct db *db);
void db_gate_fini(struct db *db);
/* A snapshot with everything that was committed before the call. */
int db_gate_enter(struct db *db, struct db_seat **seat);
void db_gate_leave(struct db *db, struct db_seat *seat);
int db_gate_write(struct db *db, MDB_txn **txn);
/* Commits; the transaction is gone whatever it returns (LMDB's code). */
int db_gate_commit(struct db *db, MDB_txn *txn);
/* From now on nothing is read or written any more. */
void db_gate_break(struct db *db);
bool db_gate_broken(struct db *db);
/* Waits until nobody reads, and keeps it so. */
void db_gate_alone(struct db *db, bool alone);

/* --- Rows.  The errno of an LMDB code; a full disk is -ENOSPC.  Two stay inside: a
 * full map, which can grow, is -EFBIG, a full transaction, which can be cut, -E2BIG. */
int db_err(int rc);
static inline MDB_val db_val(const void *data, size_t len)
{
	MDB_val v = { .mv_size = len, .mv_data = (void *)(uintptr_t)data };

	return v;
}

/* A place in the tree. */
struct db_step {
	uint64_t dir;
	const char *name;
	size_t len;
};
/* The way to a path, without the top; the path of the top itself is one step. */
struct db_way {
	struct db_step step[META_PATH_MAX / 2 + 1];
	unsigned n;
};

/* What a call's results are gathered in: fixed parts, and an arena that moves while it
 * grows. */
struct db_gather {
	void *items, *arena;
	size_t items_size, arena_size, used;
	size_t count;
};

/* A transaction on its way through the rows; et gets words for damage. */
struct db_txn {
	struct db *db;
	MDB_txn *txn;
	struct errtext *et;
	const char *path;  /* the one being worked on, for words */
	bool wrote;	   /* since it was last set to false */
	struct meta_tally tally; /* of a writer: with what it has done so far */
	/* of a reader, so that they can be ended for him */
	MDB_cursor *cur;
	struct db_gather gather;
};
/* Ends these two. */
void db_txn_drop(struct db_txn *t);

/* -ENOENT: no row. */
int db_row_get(struct db_txn *t, const struct db_step *at, struct meta_row *row);
/* was: the row that is there now, NULL: none.  -EEXIST: its content is another's. */
int db_row_put(struct db_txn *t, const struct db_step *at, const struct meta_row *was,
    const struct meta_row *row);
int db_row_del(struct db_txn *t, const struct db_step *at, const struct meta_row *was);
/* `row` is at `from`, but for its `move`; nothing is at `to`. */
int db_row_move(struct db_txn *t, const struct db_step *from, const struct db_step *to,
    const struct meta_row *row);
/* Decodes, with words if that fails. */
int db_row_decode(struct db_txn *t, const MDB_val *key, const MDB_val *val, struct meta_row *row);
/* The way to `path`; make: directories that lack are made.  -ENOENT: one lacks,
 * -ENOTDIR: one is a file. */
int db_walk(struct db_txn *t, const char *path, bool make, struct db_way *way);
/* 1 if the directory has no entry, 0 if it has. */
int db_dir_empty(struct db_txn *t, uint64_t dir);

/* --- Beside the rows.  The row of `key` was this and is to be that; NULL: none. */
int db_index(struct db_txn *t, const MDB_val *key, const struct meta_row *was,
    const struct meta_row *row);
/* The row comes under this key. */
int db_index_move(struct db_txn *t, const MDB_val *key, const struct meta_row *row);
/* The key of the directory's row, to buf: its length, -ENOENT, or another error. */
int db_parent(struct db_txn *t, uint64_t dir, unsigned char buf[META_KEY_MAX]);
/* The path of a row, in buf; what a rename of a directory made too long has one, too, but
 * no request can name it.  -ENOENT: there is none, the row is garbage. */
#define DB_PATH_SIZE (4 * META_PATH_MAX)
int db_path_of(struct db_txn *t, const MDB_val *key, char buf[DB_PATH_SIZE], const char **path);
/* Whose content it is: the key (its bytes in buf) and the row.  -ENOENT: nobody's. */
int db_content_find(struct db_txn *t, uint64_t id, unsigned char buf[META_KEY_MAX],
    MDB_val *key, struct meta_row *row);
/* The bytes behind `head` bytes that begin with the version that this build knows.
 * -ENOENT: none. */
int db_blob(struct db_txn *t, MDB_dbi dbi, uint64_t id, unsigned version, size_t head,
    MDB_val *val);

void db_read_call(struct db_txn *t, struct meta_call *c);
/* One transaction's changes: 0 or what is wrong with it. */
int db_apply(struct db_txn *t, const struct meta_call *c);
/* Deletes up to `max` rows of directories that nobody names. */
int db_sweep(struct db_txn *t, unsigned max);

/* --- What jobs do.  Each call gets its err. */
struct db_report {
	struct errtext et; /* the last failure; "" if none */
	unsigned commits;
	uint64_t records, bytes;
	struct meta_tally tally;
	bool garbage_left, broken;
};
void db_read(struct db *db, struct meta_calls *calls, struct db_report *rep);
void db_write(struct db *db, struct meta_calls *calls, struct db_report *rep);

#endif
