/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The FoundationDB back end between its files.
 *
 *	fdb_store.c	opening, closing, which run goes when, the tally
 *	fdb_node.c	who has the store open: sessions, heartbeats, what is seen of others
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
 *	O	node -> the session	n	content			id, piece -> bytes
 *		that may write		q	node, queue	i	node, intents
 *	N	node -> its row		b	blobs		g	garbage: ids of deleted
 *	c	counters: number ->	t	tree			directories, whose rows
 *		8 bytes, lowest		m	node, number ->		are deleted later
 *		first				a counter
 *
 * Ids of directories are random: a counter would be a conflict for all who make one.  The
 * counters are only ever added to, so nobody conflicts with anybody about them; all else
 * that is written has been read by the same transaction, and that read is what conflicts.
 * Where it is enough to know that a directory is not empty, it is only that row.
 *
 * Nodes.  Many have the store open.  A node is a random number of 64 bits in a file beside
 * its directory of staged files, with a name for people; so it is the same one after a
 * hand-over, a crash or a reboot, and another one if the files are lost.  What only its node
 * can do something with is kept under the node: the queue, the intents, the tally.  All else
 * is everybody's: nothing of the store is kept in memory but the counters, which are read
 * again with each heartbeat, and each change has read what it relies on in its own
 * transaction.  Directories that were deleted are swept by whoever comes first: two who do
 * it conflict, and one does it.
 *
 * The session: whoever opens the store as a node writes a number of its own to the node's
 * key, and each transaction that writes reads that.  So what a dead or replaced daemon of
 * the node had under way cannot come after its successor has opened the store, however long
 * it was on the wire; and of two that claim to be one node the newer fences the older.
 * Other nodes' keys are not read: nodes do not conflict about who they are.
 *
 * The lease: a node writes its row every meta.node.heartbeat, each time with another number
 * (session, beat), in the same transaction in which it reads the rows of all.  Wall clocks
 * are never compared.  Whoever sees a row unchanged adds up, on its own monotonic clock, the
 * time between its looks, but for each look no more than two heartbeats: who did not look
 * has not seen silence.  At meta.node.expiry the node is dead, until its row changes.  A row
 * that was never seen to change is neither.  A node that is unmounted says so in its row.
 * Nothing follows from a node's death as yet: what it has not persisted waits for it.
 *
 *	a node's row: version 1 (1 byte); session, beat (8); 1: left (1); capacity (8);
 *	lengths of name and address (1 each), name, address
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

#define STORE_FORMAT META_FDB_FORMAT
#define STORE_PREFIX_MAX META_FDB_PREFIX_MAX
#define STORE_KEY_MAX (1 + META_KEY_MAX + 1)
#define STORE_PIECE 90000u
#define STORE_SETTING_HEAD (META_SETTING_HEAD + 4)
#define STORE_INTENT_VERSION 1

/* The counters: files, then bytes, by state, which are a node's; rows of the tree, and bytes
 * of them, which are all nodes'. */
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

/* What a pass adds to a counter of another node. */
struct fother {
	uint64_t node;
	unsigned no;
	int64_t by;
};

/* What a call's results are gathered in. */
struct fgather {
	void *items, *arena;
	size_t items_size, arena_size, used, count;
};

/* BEHIND: ready to be committed, but another one that makes the same directory is being: it
 * begins anew when that has ended, for it would only conflict with it. */
enum run_phase {
	RUN_WAITING,
	RUN_READING,
	RUN_BEHIND,
	RUN_COMMITTING,
	RUN_PAUSING,
	RUN_PARKED
};

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
	int64_t delta[COUNTERS]; /* this node's, and all nodes' */
	struct fother *others;
	size_t nothers, others_size;
	unsigned dirs_used;
	struct fkey made; /* the first of them, if there are any */
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
/* Do two that write concern the same names, or one above the other? */
bool frun_overlap(const struct fdb_run *a, const struct fdb_run *b);

/* --- fdb_kv.c: for a pass */
struct fkey fkey_of(char table, const void *data, size_t len);
struct fkey fkey_id(char table, uint64_t id);
struct fkey fkey_node(char table, uint64_t node, const void *data, size_t len);
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
/* Adds to a node's counter. */
int fkv_count(struct fdb_run *t, uint64_t node, unsigned no, int64_t by);
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

/* --- fdb_node.c: struct fdb_nodes is the store's */
struct fdb_nodes;
int fnodes_new(struct fdb_nodes **out, struct fdb_store *st);
void fnodes_free(struct fdb_nodes **n);
void fnodes_identity(struct fdb_nodes *n, const struct meta_identity *id);
size_t fnodes_list(const struct fdb_nodes *n, struct meta_node *out, size_t max);
/* The store is about to be opened; is open; is being closed. */
void fnodes_opening(struct fdb_nodes *n);
void fnodes_opened(struct fdb_nodes *n);
void fnodes_closing(struct fdb_nodes *n);
uint64_t fnode_self(const struct fdb_nodes *n);
/* For a pass: the session is ours from now on (-EBUSY: it is another's); it is not ours any
 * more (-ESTALE); the row says that we have left. */
int fnode_take(struct fdb_run *t);
int fnode_fenced(struct fdb_run *t);
int fnode_leave(struct fdb_run *t);

/* --- fdb_store.c */
struct fdb_nodes *fstore_nodes(const struct fdb_store *st);
/* Those that have begun. */
struct fdb_runs *fstore_active(struct fdb_store *st);
uint64_t fstore_self(const struct fdb_store *st);
bool fstore_is_open(const struct fdb_store *st);
struct meta *fstore_meta(const struct fdb_store *st);
/* One of the store's own; false: there is no memory. */
bool fstore_own(struct fdb_store *st, int (*fn)(struct fdb_run *t),
    void (*done)(struct fdb_run *t, int err));
/* What others have counted is to be read. */
void fstore_count_again(struct fdb_store *st);
int64_t fstore_counter(const struct fval *v);
struct fdb *fstore_fdb(const struct fdb_store *st);
const struct fdb_api *fstore_api(const struct fdb_store *st);
const struct meta_env *fstore_env(const struct fdb_store *st);
const char *fstore_name(const struct fdb_store *st);
void fstore_prefix(const struct fdb_store *st, const unsigned char **p, size_t *len);
void fstore_committed(struct fdb_run *t, int64_t version);
void fstore_ended(struct fdb_run *t, int err);

#endif
