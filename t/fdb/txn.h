/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef T_FDB_TXN_H
#define T_FDB_TXN_H

/*
 * A transaction, on the network thread.  Its mutations are kept here and go with its
 * reads and its commit to the server; so do the ranges that it read and wrote.  What
 * FoundationDB's client forbids is forbidden here, with the same errors: see README.
 */

#include "net.h"

struct own {
	unsigned kind;
	struct bytes key, value; /* own memory; of a range its begin and end */
};

/* What the user set, apart from what an on_error() takes back. */
struct settings {
	bool ryw_off, no_conflict, read_system, write_system, unprotected;
	int64_t snapshot_ryw, size_limit;
};

enum version_state { VERSION_NONE, VERSION_ASKED, VERSION_KNOWN, VERSION_FAILED };

struct FDB_transaction {
	FDBDatabase *db;
	TAILQ_HEAD(op_list, op) ops; /* all that are under way, save watches that live */
	int failed;		     /* what all that goes on fails with, until a reset */
	int deferred;		     /* a mutation's error: the next future's */
	bool committing;	     /* from commit() until a reset */
	struct settings set;
	int64_t timeout, retry_limit, max_delay; /* these stay over an on_error() */
	int64_t created;
	struct timer deadline;
	int64_t retries;
	double backoff; /* seconds */
	enum version_state version_state;
	int64_t version; /* or the error */
	int64_t committed;
	struct own *own;
	size_t n, cap, own_size;
	struct ranges reads, writes;
	struct ranges known;	  /* what reads nothing: the transaction has set it itself */
	struct ranges unreadable; /* what a versionstamp will decide */
	unsigned reading;
	int read_error; /* of a read: the commit's, too */
};

/* txn.c */
void tr_free(FDBTransaction *tr);
void tr_fail(FDBTransaction *tr, int error);
void tr_clear(FDBTransaction *tr);
void tr_reset(FDBTransaction *tr);
void tr_deadline(FDBTransaction *tr);
bool tr_used_during_commit(FDBTransaction *tr);
struct bytes tr_top(const FDBTransaction *tr, bool write);
struct op *op_new(FDBTransaction *tr, enum op_kind kind, FDBFuture *f);
/* Its future has its end, it goes; a commit that waited for it goes on. */
void op_end(struct op *op, int error);
/* A read has ended: a commit that waited for the last one goes on. */
void tr_read_over(FDBTransaction *tr, int error);
void tr_need_version(FDBTransaction *tr);
/* Mutations that a read of [b, e) may see; b NULL: all. */
void buf_own(struct buf *to, const FDBTransaction *tr, size_t n, const struct bytes *key);

/* txn_read.c: what the version is needed for, and the answers */
void read_go(struct op *op);
void read_answered(struct op *op, int error, struct rd *r);
void call_get(struct call *c);
void call_get_key(struct call *c);
void call_get_range(struct call *c);
void call_watch(struct call *c);
void watches_changed(
    FDBTransaction *tr, struct bytes b, struct bytes e, bool known, const struct bytes *value);

/* txn_write.c */
void call_set(struct call *c);
void call_clear_range(struct call *c);
void call_atomic(struct call *c);
void call_conflict_range(struct call *c);
void call_option(struct call *c);
void call_commit(struct call *c);
void commit_go(struct op *op);
void commit_send(struct op *op);
void commit_answered(struct op *op, int error, struct rd *r);
int64_t tr_size(const FDBTransaction *tr);

#endif
