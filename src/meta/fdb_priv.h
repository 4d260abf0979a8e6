/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The FoundationDB back end between its files.
 *
 *	fdb_store.c	opening, closing, which run goes when, the tally
 *	fdb_run.c	a transaction's life: passes, reads, commit, again
 *	fdb_kv.c	what a pass reads and writes
 *	fdb_rows.c	rows, directories, the way to a path, and what is kept beside them
 *	fdb_read.c	get, scan, intents, content, queue, settings
 *	fdb_write.c	the verbs, and the sweep
 *
 * A run is one transaction of FoundationDB.  Its work is a plain function that reads what
 * it needs, in the order that it needs it; but nothing waits.  A pass of it that comes by
 * something that has not been read yet asks for it, and ends with -EAGAIN; when the
 * answers are there the function runs again from its beginning, on what is known by then,
 * and what it wrote before is forgotten.  The pass that misses nothing is the one that
 * counts: what it wrote goes to the transaction, which is committed.  When that fails, and
 * FoundationDB says that it may be tried again, everything is forgotten and begins anew.
 * So a verb is done once or not at all, or twice where the outcome was not known, which
 * meta.h allows for.
 *
 * Keys are the prefix, a 0 byte, a letter for the table, and what records.h says of it:
 *
 *	F	the format		p	parents		s	settings: id -> head;
 *	O	the session that	n	content			id, piece -> bytes
 *		may write		q	queue		i	intents
 *	c	counters: number ->	b	blobs		g	garbage: ids of deleted
 *		8 bytes, lowest	t	tree			directories, whose rows
 *		first						are deleted later
 *
 * Ids of directories are random: a counter would be a conflict for all who make one.  The
 * counters are only ever added to, so nobody conflicts with anybody about them; all else
 * that is written has been read by the same transaction, and that read is what conflicts.
 * Where it is enough to know that a directory is not empty, it is only that row.
 *
 * The session: whoever opens the store writes a number of its own, and each transaction
 * that writes reads it.  So what a dead or replaced daemon had under way cannot come after
 * its successor has opened the store, however long it was on the wire.
 */
/*
 * What fdb_rows.c and fdb_write.c do to rows is what embedded_rows.c, embedded_index.c and
 * embedded_write.c do, step for step, over values that may have to be waited for instead of
 * a cursor: who changes one changes the other.  The suites that both have to pass
 * (t/fdb/meta_suites.sh) hold them together.
 */
#ifndef META_FDB_PRIV_H
#define META_FDB_PRIV_H

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "base/errtext.h"
#include "meta/meta_priv.h"
#include "meta/records.h"
#include "reactor/fdb.h"

#define STORE_FORMAT 1u
#define STORE_PREFIX_MAX META_FDB_PREFIX_MAX
#define STORE_KEY_MAX (1 + META_KEY_MAX + 1)
#define STORE_PIECE 90000u
#define STORE_SETTING_HEAD (META_SETTING_HEAD + 4)
#define STORE_INTENT_VERSION 1

/* The counters: files, then bytes, by state; rows of the tree, and bytes of them. */
enum {
	COUNT_FILES = 0,
	COUNT_BYTES = META_STATES,
	COUNT_ROWS = 2 * META_STATES,
	COUNT_SIZE,
	COUNTERS
};

/* --- Keys and values, without the prefix. */
struct fkey {
	size_t len;
	unsigned char b[STORE_KEY_MAX];
};
struct fval {
	const unsigned char *data;
	size_t len;
};
struct frow {
	struct fval key, val; /* the key without its table's letter */
};
/* What was read of a range, in order. */
struct frange {
	TAILQ_ENTRY(frange) link;
	struct fdb_run *run;
	struct fdb_wait wait;
	bool pending;
	struct fkey begin, end;
	int limit;
	struct frow *rows;
	size_t count;
	bool more;
	unsigned char *bytes;
};

/* One key: read, or written by this pass. */
struct fkv {
	UT_hash_handle hh;
	struct fdb_run *run;
	struct fdb_wait wait;
	bool pending, present, force;
	unsigned char *val;
	size_t len;
	unsigned klen;
	unsigned char key[];
};

struct fconflict {
	struct fkey begin, end;
};

/* What a call's results are gathered in. */
struct fgather {
	void *items, *arena;
	size_t items_size, arena_size, used, count;
};

enum run_phase { RUN_WAITING, RUN_READING, RUN_COMMITTING, RUN_PAUSING, RUN_PARKED };

struct fdb_store;
struct fdb_run {
	uint32_t magic;
#define FDB_RUN_MAGIC 0x3e7afdb1u
	struct fdb_store *st;
	TAILQ_ENTRY(fdb_run) link; /* of all; or of those that wait or are parked */
	struct meta_call *c;	   /* NULL: the store's own */
	int (*fn)(struct fdb_run *t);
	void (*done)(struct fdb_run *t, int err);
	bool writes;
	enum run_phase phase;
	unsigned blockers; /* runs before it that concern the same names */
	bool stop, doubt;
	struct deferred go; /* a pass; or the end */
	FDBTransaction *tr;
	struct fdb_wait end; /* of the commit, or of the pause after an error */

	/* what is known, until it begins anew */
	struct fkv *known;
	TAILQ_HEAD(, frange) ranges;
	unsigned pending;
	int code;   /* of the first read that failed */
	int last;   /* why it had to begin anew, the last time */
	bool nomem; /* a read's result had no room */
	int64_t version; /* read version; 0: not asked for */
	struct fdb_wait version_wait;
	bool version_pending;
	bool started; /* a scan's place */
	struct fkey at;
	struct fgather g;

	/* of this pass */
	struct fkv *over;
	struct fconflict *conflicts;
	size_t nconflicts, conflicts_size;
	int64_t delta[COUNTERS];
	unsigned dirs_used;
	bool garbage; /* a directory was thrown away */
	const char *path; /* for words */
	struct errtext et;

	uint64_t *dirs; /* ids of directories that it made: the same in each pass, until a
			 * commit may have been done */
	unsigned ndirs;
	int err;
};
TAILQ_HEAD(fdb_runs, fdb_run);

/* --- fdb_run.c */
/* Not begun yet.  done: instead of the call's end, for the store's own. */
struct fdb_run *frun_new(struct fdb_store *st, struct meta_call *c, int (*fn)(struct fdb_run *t),
    void (*done)(struct fdb_run *t, int err));
void frun_begin(struct fdb_run *t);
/* What it asked for is there: the next pass, soon. */
void frun_go(struct fdb_run *t);
/* Ends it as soon as may be; what is being committed only if `hard`. */
void frun_stop(struct fdb_run *t, bool hard);
void frun_free(struct fdb_run **t);

/* --- fdb_kv.c: for a pass */
struct fkey fkey_of(char table, const void *data, size_t len);
struct fkey fkey_id(char table, uint64_t id);
struct fkey fkey_row(uint64_t dir, const char *name, size_t len);
/* The first key after it. */
struct fkey fkey_after(const struct fkey *k);
/* -ENOENT, -EAGAIN: asked for; another error. */
int fkv_get(struct fdb_run *t, const struct fkey *k, struct fval *val);
/* Rows of begin <= key < end, at most limit; what this pass wrote is not in it.  All that
 * was read then conflicts, unless `loose`. */
int fkv_range(struct fdb_run *t, const struct fkey *begin, const struct fkey *end, int limit,
    bool loose, const struct frange **out);
/* Those that have been gone through. */
void fkv_drop_ranges(struct fdb_run *t);
int fkv_version(struct fdb_run *t, int64_t *version);
int fkv_set(struct fdb_run *t, const struct fkey *k, const void *head, size_t head_len,
    const void *data, size_t len);
/* Written even if it is the same. */
int fkv_force(struct fdb_run *t, const struct fkey *k, const void *data, size_t len);
int fkv_clear(struct fdb_run *t, const struct fkey *k);
int fkv_conflict(struct fdb_run *t, const struct fkey *begin, const struct fkey *end);
/* Is there a row in the directory, with what this pass wrote?  1: none, 0, or an error. */
int fkv_dir_empty(struct fdb_run *t, uint64_t dir);
/* Into the transaction.  *any: there is something to commit. */
int fkv_flush(struct fdb_run *t, bool *any);
void fkv_forget_pass(struct fdb_run *t);
void fkv_forget(struct fdb_run *t);

/* --- fdb_rows.c: as embedded_priv.h says of db_row_get() and so on. */
struct fstep {
	uint64_t dir;
	const char *name;
	size_t len;
};
struct fway {
	struct fstep step[META_PATH_MAX / 2 + 1];
	unsigned n;
};
int frow_get(struct fdb_run *t, const struct fstep *at, struct meta_row *row);
int frow_put(struct fdb_run *t, const struct fstep *at, const struct meta_row *was,
    const struct meta_row *row);
int frow_del(struct fdb_run *t, const struct fstep *at, const struct meta_row *was);
int frow_move(struct fdb_run *t, const struct fstep *from, const struct fstep *to,
    const struct meta_row *was, const struct meta_row *row);
int frow_decode(struct fdb_run *t, const struct fval *key, const struct fval *val,
    struct meta_row *row);
int frow_walk(struct fdb_run *t, const char *path, bool make, struct fway *way);
#define STORE_PATH_SIZE (4 * META_PATH_MAX)
int frow_path(struct fdb_run *t, const struct fval *key, char buf[STORE_PATH_SIZE],
    const char **path);
int frow_of_content(struct fdb_run *t, uint64_t id, struct fval *key, struct meta_row *row);
/* What lies beside the row of this key, which was `was`, and is to be `row`. */
int frow_index(struct fdb_run *t, const struct fval *key, const struct meta_row *was,
    const struct meta_row *row);
/* -EIO with words, if the value begins with another version or is too short. */
int frow_version(struct fdb_run *t, uint64_t id, const struct fval *val, unsigned version,
    size_t head);

/* --- fdb_read.c, fdb_write.c */
int fstore_read(struct fdb_run *t);
void fstore_unread(struct fdb_run *t); /* drops what was gathered */
int fstore_write(struct fdb_run *t);
int fstore_sweep(struct fdb_run *t);
unsigned fset_pieces(size_t len);
struct fkey fset_piece(uint64_t id, unsigned no);

/* --- fdb_store.c */
struct fdb *fstore_fdb(const struct fdb_store *st);
const struct fdb_api *fstore_api(const struct fdb_store *st);
const struct meta_env *fstore_env(const struct fdb_store *st);
const char *fstore_name(const struct fdb_store *st);
void fstore_prefix(const struct fdb_store *st, const unsigned char **p, size_t *len);
/* The session is another's now. */
int fstore_fenced(struct fdb_run *t);
void fstore_committed(struct fdb_run *t, int64_t version);
void fstore_ended(struct fdb_run *t, int err);

#endif
