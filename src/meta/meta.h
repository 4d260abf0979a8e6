/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The metadata store: what the storage cannot hold, and what must outlive power.
 *
 * It has a tree of records by namespace path (without leading or trailing slash; "" is
 * the top).  A record says what is known of that name beyond, or instead of, what
 * the storage says; a name without a record is what the storage says it is.  Inside,
 * keys are (directory id, name), so that one directory's records are one range and a
 * directory moves by one record; directories on the way to a record get one too, which
 * says nothing (META_PASS).
 *
 * Records of files that were written under a policy of the write cache also account for
 * their content (struct meta_content): the store keeps a queue of what is to be persisted
 * and a tally in step with the records, and the bytes of small files, so that one
 * transaction makes such a file safe.
 *
 * Beside them stand intents: notes of work that takes more than one step (a rename of
 * a directory, an upload in parts), so that whoever opens the store next finishes or
 * undoes it.
 *
 * Everything is asynchronous and follows the leaf contract of reactor/task.h: never
 * inline; done exactly once on the loop, or never after meta_abort(); the request is
 * the user's and stays until then.  A transaction is all or nothing and has survived
 * power loss when done(0) is called; transactions that wait for the disk at the same
 * time share one sync (group commit), and those that name the same things, or one below
 * the other, take effect in the order in which they came.  Aborting one that has been handed to the disk
 * does not undo it.  Doing a transaction twice has the effect of doing it once, so one
 * whose outcome is not known is repeated.  (Two changes in it that concern one name, or
 * two moves, may undo that; a move comes first, and later changes may concern what it
 * brought, but not the name that it took away.)  Each request ends within meta.timeout.
 *
 * Errors: -ENOENT, -EEXIST (a guard failed, or another node has content there that is not
 * persisted), -EBUSY (the same of a META_DEL), -ENOSPC, -EIO (damage, disk), -ETIMEDOUT,
 * -ENOMEM, -ENAMETOOLONG, -EINVAL, -ENOTEMPTY, -ENOTDIR, -ESTALE (the mount is another
 * daemon's now), -ECANCELED (the store is being closed: nothing was done).
 *
 * Back ends: embedded.c, an LMDB environment in meta.dir, one process at a time;
 * fdb_store.c, keys below meta.fdb.prefix in a FoundationDB cluster, which many nodes have
 * open at one time.
 *
 * A node is who has a directory of staged files: a daemon and those that follow it on the
 * mount.  Content that is not persisted is its node's (struct meta_content), which alone
 * has its bytes and persists it; the queue, the tally and the intents are those of the
 * node that asks.  What is said of one process is true of each node: the last one that
 * opened the store as this node has it.  fdb_priv.h says how nodes know of each other.
 */
#ifndef META_META_H
#define META_META_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/epoch.h"
#include "base/errtext.h"

struct config;
struct fdb;
struct loop;
struct meta;
struct meta_content;
struct pool;

#define META_NAME_MAX 255
#define META_PATH_MAX 1024
#define META_VERSION_MAX 96
#define META_BLOB_MAX 65536u /* of an intent, and of content that lies in the store */
#define META_SETTING_MAX (1u << 20)
#define META_FDB_PREFIX_MAX 128 /* bytes of meta.fdb.prefix; the first is not 0xff */
/* Of what lies below the prefix: a daemon hands it over only to one that knows the same. */
#define META_FDB_FORMAT 2u

struct meta_env {
	struct loop *loop;
	struct pool *pool;
	const struct config *cfg;
	const struct epoch *epoch;
	struct fdb *fdb; /* the cluster that has the store; NULL: it is a directory here */
};

/* Touches no file yet.  dir: absolute; created with mode 0700 when it is opened; not used
 * with a cluster. */
int meta_new(struct meta **out, const struct meta_env *env, const char *dir);
/* Closed, and no request running. */
void meta_free(struct meta **m);

/* Opens the store in the pool; requests that come meanwhile wait for it.  Only while
 * the epoch is ours.  One of an older format is upgraded, and no older build opens it
 * then.  A store that cannot be opened (another process holds it, a newer format, damage,
 * no room) fails every request with -EIO, is tried again every few seconds, and says why
 * in meta_status(). */
void meta_open(struct meta *m);
/* No further request is begun (-ECANCELED); calls done on the loop, never inline, when
 * what ran has ended and the files are closed.  meta_open() may follow. */
void meta_close(struct meta *m, void (*done)(void *arg), void *arg);
/* Instead of done: it is opened as soon as it is closed, and requests wait for that.  A
 * meta_open() meanwhile does nothing. */
void meta_unclose(struct meta *m);
/* The next meta_close() is an unmount, and nobody comes after us: other nodes are to know. */
void meta_leave(struct meta *m);

/* What the store says of content that it accounts for (META_HAS_CONTENT), by
 * enum meta_state; kept with the rows, so it costs nothing to ask.  It has each answered
 * transaction.  What is below a deleted directory counts until it is swept, which is
 * at once for up to some 2,000 rows; in a cluster it is soon after. */
#define META_STATES 5
struct meta_tally {
	uint64_t files[META_STATES], bytes[META_STATES];
};

struct meta_status {
	bool open;
	bool shared; /* other nodes may have put what is not counted here yet */
	bool silent; /* shared, and it has not answered for a while, or cannot be opened */
	char dir[256];
	char error[256]; /* why it is not open, or the last failure; "" if none */
	uint64_t records; /* rows, with those that say nothing, or wait to be written or deleted */
	uint64_t used_bytes;
	struct meta_tally tally; /* of this node's content */
};
void meta_status(const struct meta *m, struct meta_status *out);

/* --- Nodes */
#define META_NODE_NAME_MAX 63
#define META_NODE_ADDRESS_MAX 127
#define META_NODES_MAX 1000

/* Who this process is; said before meta_open(), and once: while it is open or being closed
 * nothing comes of it.  id: neither 0 nor UINT64_MAX, the same one
 * for the same directory of staged files, for ever, and no other node's.  Without it, the
 * node is one that nobody will be again. */
struct meta_identity {
	uint64_t id;
	char name[META_NODE_NAME_MAX + 1]; /* for people */
	char address[META_NODE_ADDRESS_MAX + 1]; /* "": none yet */
	uint64_t capacity; /* of its page store, in bytes */
};
void meta_set_identity(struct meta *m, const struct meta_identity *id);

/* 0: embedded, there are no others. */
uint64_t meta_self(const struct meta *m);
/* Has this node the bytes of content that is not persisted? */
bool meta_is_here(const struct meta *m, const struct meta_content *ct);

/* UNKNOWN: not heard of for long enough to say.  LEFT: it was unmounted, and may come again;
 * what it has not persisted is there still. */
enum meta_node_state { META_NODE_UNKNOWN, META_NODE_ALIVE, META_NODE_DEAD, META_NODE_LEFT };
struct meta_node {
	struct meta_identity is;
	bool self;
	enum meta_node_state state;
	uint64_t silent_ns; /* since it was heard; of LEFT and UNKNOWN: for so long */
	struct meta_tally tally; /* as of the last look */
};
const char *meta_node_state_text(enum meta_node_state state);
/* What this node has seen of the others, which may be a heartbeat old; itself first.  An
 * embedded store has one.  Returns how many, at most META_NODES_MAX. */
size_t meta_nodes(const struct meta *m, struct meta_node *out, size_t max);
/* One of them.  False: it is not known. */
bool meta_node_of(const struct meta *m, uint64_t id, struct meta_node *out);
/* The name of a node; its id in hexadecimal if it is not known. */
#define META_NODE_TEXT (META_NODE_NAME_MAX + 1)
const char *meta_node_text(const struct meta *m, uint64_t id, char buf[META_NODE_TEXT]);

/* Called on the loop when another node has put the setting META_SETTING_RULES. */
void meta_on_rules(struct meta *m, void (*changed)(void *arg), void *arg);

/* --- Records */
enum meta_kind { META_PASS, META_FILE, META_DIR };

#define META_HAS_MODE 1u
#define META_HAS_UID 2u
#define META_HAS_GID 4u
#define META_HAS_MTIME 8u  /* of a file: while its storage version is `version` */
#define META_HAS_ATIME 16u /* the same */
/* A file that was written under a policy of the write cache: the fields of `content`
 * hold.  Until it is PERSISTED the record is all that there is of the file, with size and
 * times, whatever the storage says of the name. */
#define META_HAS_CONTENT 32u

/* How what is written reaches the storage, by path (base/rules.h). */
enum meta_policy {
	META_POLICY_NO_CACHE,	   /* never in a record */
	META_POLICY_WRITE_THROUGH, /* close(2) returns when the storage has it */
	META_POLICY_WRITE_BACK,	   /* ... when it is safe here; uploaded in the background */
	META_POLICY_TRANSIENT	   /* the same, and never uploaded */
};
/* Of content.  (WRITING and PERSISTING are what a daemon does at the moment: no record
 * says so.) */
enum meta_state {
	META_STATE_NONE,
	META_STATE_NOT_PERSISTED, /* waits for its (next) upload, at next_ns */
	META_STATE_PERSISTED,	  /* the storage has it as `version`; nothing is here any more */
	META_STATE_TRANSIENT,	  /* never uploaded */
	META_STATE_FAILED	  /* not tried again until the user says so */
};

struct meta_content {
	uint8_t policy, state; /* enum meta_policy, meta_state */
	uint64_t id;	       /* of the content: random, never used again; top bit set
				* (META_CONTENT_BIT); names the staged file.  Kept when PERSISTED */
	uint64_t size;
	uint32_t tail_crc;   /* of the bytes behind the last full block (cache/staged.h) */
	bool rewriting;	     /* bytes before `size` may have been written again since */
	bool doubt;	     /* an upload was begun whose outcome is not known */
	uint64_t since_ns;   /* wall clock: not persisted since */
	uint64_t next_ns;    /* wall clock: to be tried again then; 0: at once */
	uint32_t tries;	     /* that failed */
	int32_t error;	     /* of the last one: negative errno, 0: none */
	uint64_t node;	     /* who has the bytes; 0: embedded.  0 in a META_PUT: this node */
};
#define META_CONTENT_BIT (UINT64_C(1) << 63)

struct meta_record {
	enum meta_kind kind;
	unsigned has; /* META_HAS_* */
	uint32_t mode, uid, gid;
	struct timespec mtime, atime;
	char version[META_VERSION_MAX]; /* "" for directories, and what the storage has not got */
	struct meta_content content;	/* all zero without META_HAS_CONTENT */
};

struct meta_req {
	uint32_t magic;
	struct meta *meta;
	void (*done)(struct meta_req *r, int err);
	void *user;
	void *priv;
};
void meta_abort(struct meta_req *r); /* no-op if it has ended */

/* One record: -ENOENT if the name has none (or one that says nothing). */
struct meta_get {
	struct meta_req req;
	const char *path;	/* in: must stay */
	struct meta_record rec; /* out */
};
void meta_get(struct meta *m, struct meta_get *rq, void (*done)(struct meta_req *r, int err));

/* Records of a directory's entries, in the order of the names' bytes: those after
 * `after` (NULL: from the first) up to and with `last` (NULL: to the end).  0 with
 * count 0 if there are none.  Zeroed before its first use, ends with
 * meta_scan_free(). */
struct meta_entry {
	const char *name;
	struct meta_record rec;
};
struct meta_scan {
	struct meta_req req;
	const char *path, *after, *last; /* in: must stay */
	size_t max;			 /* in: 0: 1,000 */
	bool pass;			 /* in: also META_PASS, which only lead to records below */
	struct meta_entry *entries;	 /* out, until meta_scan_free() or the next scan */
	size_t count;
	bool more;
	void *arena; /* private */
};
void meta_scan(struct meta *m, struct meta_scan *rq, void (*done)(struct meta_req *r, int err));
void meta_scan_free(struct meta_scan *rq);

/* --- Transactions */
enum meta_verb {
	META_PUT,	  /* path, rec: the record is this from now on.  -ENOTDIR below a
			   * file's record, -ENOTEMPTY for a file where records are below,
			   * -EEXIST if another record has this content */
	META_DEL,	  /* path, not the top: it has none; with all below it.  None:
			   * nothing to do */
	META_MOVE,	  /* path -> to, with all below; what was at `to` goes.  None: what
			   * was at `to` goes all the same, unless the move has been done:
			   * what it moved bears its id, or if that is 0 its path.  Neither
			   * is the top or below the other (-EINVAL) */
	META_INTENT_PUT,  /* id, blob */
	META_INTENT_DEL,  /* id */
	META_SETTING_PUT, /* id (enum meta_setting), blob up to META_SETTING_MAX; its version
			   * becomes if_version + 1.  -EEXIST: it is not if_version now */
};
/* IMPORT: what is being imported; empty when that is complete. */
enum meta_setting { META_SETTING_RULES = 1, META_SETTING_IMPORT = 2 };
struct meta_change {
	enum meta_verb verb;
	const char *path, *to;
	struct meta_record rec;
	uint64_t id; /* of an intent: unique in the store, meta_intent_id(); of a move: 0, or
		      * what tells its repetition from another move of the same names */
	const void *blob;	/* of an intent or a setting; of a META_PUT with content: the
				 * bytes of a small file, all of them (content.size), which the
				 * store keeps until the record is PERSISTED, has another size
				 * or other content, or goes.  NULL: the store has none, or
				 * keeps what it has of this content */
	size_t blob_len;
	uint64_t if_content;	/* META_PUT, META_DEL: 0, or the record must be of this
				 * content, else -EEXIST and nothing is changed.  What has been
				 * done already is 0, and changes nothing: a PUT of content
				 * other than if_content if the record is of that by now,
				 * whatever else it says; of none, if the record is the same;
				 * a DEL if there is no record.  (-EEXIST of a DEL: so it is
				 * gone, and something else is there.) */
	uint64_t if_version;	/* META_SETTING_PUT: 0: it was never put.  If it is
				 * if_version + 1 and these bytes, that has been done: 0 */
};
struct meta_txn {
	struct meta_req req;
	const struct meta_change *changes; /* in: with all they point at, must stay */
	unsigned n;
	/* in: META_PUT and META_DEL may be answered as soon as they outlive this process, if
	 * not yet the machine: they are on the disk meta.sync.period later, and before any
	 * transaction that comes after them.  Whoever reads sees them at once.  (The tally
	 * counts what the store has; a change that it should count at once does not come
	 * later.)  One with a blob or a guard waits for the disk all the same, and so do all
	 * in a store of many nodes. */
	bool later;
};
void meta_txn(struct meta *m, struct meta_txn *rq, void (*done)(struct meta_req *r, int err));

/* Where what is answered before it is on the disk waits; NULL: nowhere (nothing is
 * answered so).  After statedb_open(), and NULL before statedb_close(): what waits is
 * there again for the next one.  Of the loop's thread. */
struct statedb;
int meta_set_db(struct meta *m, struct statedb *db);
/* How many changes wait; to the disk with them now. */
unsigned meta_waiting(const struct meta *m);
void meta_flush(struct meta *m);

/* A random number that is not 0. */
uint64_t meta_intent_id(void);

/* All intents.  Zeroed before its use, ends with meta_intents_free(). */
struct meta_intent {
	uint64_t id;
	const void *blob;
	size_t len;
};
struct meta_intents {
	struct meta_req req;
	struct meta_intent *intents; /* out */
	size_t count;
	void *arena; /* private */
};
void meta_intents(
    struct meta *m, struct meta_intents *rq, void (*done)(struct meta_req *r, int err));
void meta_intents_free(struct meta_intents *rq);

/* --- Content */

/* Whose content has this id, and its bytes, if the store has them.  -ENOENT: nobody's.
 * Zeroed before its use, ends with meta_content_free(). */
struct meta_content_get {
	struct meta_req req;
	uint64_t id;		/* in */
	char *path;		/* out */
	struct meta_record rec; /* out */
	void *blob;		/* out: NULL: none */
	size_t len;
};
void meta_content_get(
    struct meta *m, struct meta_content_get *rq, void (*done)(struct meta_req *r, int err));
void meta_content_free(struct meta_content_get *rq);

/* What is NOT_PERSISTED, by next_ns and then by id, and after them what is FAILED: rows
 * after (next_ns, id), at most `max`.  This is the persist queue: whoever takes from it
 * changes the records.  A page costs the same however long the queue is.  A record that
 * cannot be read is left out, with words in meta_status().  Changes that came `later` go
 * to the disk first; so they do for meta_content_get().  Zeroed before its first use, ends
 * with meta_queue_free(). */
struct meta_queue {
	struct meta_req req;
	uint64_t after_ns, after_id; /* in: 0, 0: from the first; a FAILED one's next_ns counts
				      * as UINT64_MAX */
	uint64_t until_ns;	     /* in: none with a later next_ns; UINT64_MAX: all */
	uint64_t node;		     /* in: whose; 0: this node's */
	size_t max;		     /* in: 0: 1,000 */
	struct meta_entry *entries;  /* out: name is the path; until meta_queue_free() or the
				      * next call */
	size_t count;
	bool more;
	void *arena; /* private */
};
void meta_queue(struct meta *m, struct meta_queue *rq, void (*done)(struct meta_req *r, int err));
void meta_queue_free(struct meta_queue *rq);

/* A setting: -ENOENT if it was never put.  Zeroed before its use, ends with
 * meta_setting_free(). */
struct meta_setting_get {
	struct meta_req req;
	uint64_t id;	  /* in */
	uint64_t version; /* out */
	void *blob;	  /* out: and a 0 byte behind it */
	size_t len;
};
void meta_setting_get(
    struct meta *m, struct meta_setting_get *rq, void (*done)(struct meta_req *r, int err));
void meta_setting_free(struct meta_setting_get *rq);

#endif
