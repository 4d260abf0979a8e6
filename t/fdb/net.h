/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef T_FDB_NET_H
#define T_FDB_NET_H

/*
 * The network thread, that is the one in fdb_run_network(): what the functions of the
 * API ask for is posted to it as calls, in order, and it alone touches databases and
 * transactions.  Below it the connection to the server, which is made anew for as long
 * as it takes; what is under way is sent again, save commits, whose result is unknown.
 */

#include <uthash.h>

#include "future.h"

struct call {
	STAILQ_ENTRY(call) link;
	void (*run)(struct call *c);
	FDBTransaction *tr;
	FDBDatabase *db;
	FDBFuture *future;
	struct bytes a, b; /* own memory */
	int64_t n[8];
};

struct call *call_new(void (*run)(struct call *c), FDBTransaction *tr);
void call_post(struct call *c);

bool net_is_me(void); /* whether this is the network thread */
uint32_t net_random(void);
int64_t net_now(void); /* milliseconds */

struct timer {
	TAILQ_ENTRY(timer) link;
	bool armed;
	int64_t at;
	void (*fire)(struct timer *t);
};

void timer_arm(struct timer *t, int64_t at, void (*fire)(struct timer *t));
void timer_stop(struct timer *t);

/* --- databases */

struct defaults {
	int64_t timeout, retry_limit, max_delay, size_limit, snapshot_ryw;
};

struct FDB_database {
	TAILQ_ENTRY(FDB_database) link;
	unsigned refs;
	int error; /* of its cluster file: that of all that is done with it */
	char *dir;
	int dir_fd, fd; /* -1: none */
	bool greeted;	/* connected, HELLO queued */
	int64_t retry_at;
	struct buf in, out;
	struct op *sent;
	struct defaults defaults;
	int64_t watches, max_watches;
};

FDBDatabase *db_open(const char *cluster_file);
void db_hold(FDBDatabase *db);
void db_drop(FDBDatabase *db);

/* --- what is asked of the server, and other things that futures wait for */

enum op_kind {
	OP_VERSION,
	OP_GET,
	OP_KEY,
	OP_RANGE,
	OP_COMMIT,
	OP_WATCH,
	OP_STAMP,
	OP_RETRY,
};

enum op_state {
	OP_WAITS, /* for the read version; a commit for reads, a stamp for the commit */
	OP_SENT,
	OP_WATCHES, /* a watch: its value is known, it waits for the commit */
	OP_LIVES,   /* a watch: after the commit */
};

struct op_selector {
	struct bytes key; /* own memory */
	bool or_equal;
	int32_t offset;
};

struct op {
	enum op_kind kind;
	enum op_state state;
	TAILQ_ENTRY(op) link; /* in its transaction */
	FDBTransaction *tr;   /* NULL: a watch that lives */
	FDBDatabase *db;      /* counted */
	FDBFuture *future;    /* NULL: nobody wants to know any more */
	UT_hash_handle hh;
	uint64_t id; /* 0: not with the server */
	struct buf message;
	bool on_wire; /* whether any of it may have reached a server */
	struct timer timer;

	/* reads: what is asked for, with the first `own` mutations; where it may conflict */
	bool snapshot, reverse;
	struct op_selector begin, end;
	uint32_t rows, bytes;
	size_t own;
	struct ranges pieces;

	/* watches: begin.key; the value seen; what the transaction made of it since */
	bool present, changed, changed_present;
	struct bytes value, changed_value;
};

/* Sends it, with a new id: answers come to op_answered(), until op_unsend(). */
void op_send(struct op *op, uint32_t kind, const struct buf *body);
void op_unsend(struct op *op);
void op_tell_forget(struct op *op); /* a WATCH: the server may forget it */

/* In txn.c. */
void op_answered(struct op *op, int error, struct rd *r);
void op_cancelled(FDBFuture *f);

extern int api_version; /* 0: not chosen yet */

#define DECLARE(name, result, args) __attribute__((visibility("default"))) result name args;
FDB_API(DECLARE)
#undef DECLARE

#endif
