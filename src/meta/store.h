/* SPDX-License-Identifier: BSD-2-Clause */
/* What meta.c (the store's life) and request*.c (its requests') share. */
#ifndef META_STORE_H
#define META_STORE_H

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "meta/meta_priv.h"

/* OPENING: for the first time, requests wait.  LOST: being closed after damage.
 * FAILED: tried again now and then, requests fail.  REOPENING: being closed, to be opened
 * again, requests wait. */
enum store_state {
	STORE_CLOSED,
	STORE_OPENING,
	STORE_OPEN,
	STORE_LOST,
	STORE_FAILED,
	STORE_CLOSING,
	STORE_REOPENING
};

/* A change that waits in the state database. */
struct later {
	UT_hash_handle hh;
	TAILQ_ENTRY(later) link; /* by seq */
	uint64_t seq;
	enum meta_verb verb; /* PUT or DEL */
	struct meta_record rec;
	char path[];
};

struct meta {
	uint32_t magic;
#define META_MAGIC 0x3e7a0001u
	struct meta_env env;
	char *dir;
	struct meta_backend *be;
	enum store_state state;
	bool trying; /* FAILED: the back end is opening */
	struct timer retry;
	void (*closed)(void *arg);
	void *closed_arg;
	struct deferred tell;
	struct meta_identity identity;
	void (*rules_changed)(void *arg);
	void *rules_arg;
	char error[256];
	uint64_t told; /* when the log got it; 0: never */

	struct meta_calls calls; /* all, in the order they came */
	unsigned running;	 /* requests without answer */
	struct meta_req *nomem;	 /* those without a call */
	struct deferred nomem_answer;

	/* later.c */
	struct statedb *db;
	struct later *later; /* by path */
	TAILQ_HEAD(later_list, later) laters;
	unsigned nlater;
	/* the next number; the last of the running flush; up to here it is urgent */
	uint64_t later_seq, later_sent, later_until;
	unsigned later_single; /* so many flushes of one change each, to find a bad one */
	bool later_running;
	struct meta_txn later_txn;
	struct meta_change *later_changes;
	struct timer later_timer;
};

/* Of those that wait for the store. */
void request_begin_waiting(struct meta *m);
void request_fail_waiting(struct meta *m, int err);
/* Ends with err what the back end has and has not begun. */
void request_recall(struct meta *m, int err);

/* A call of the request, with `extra` bytes behind it; NULL: there is no memory, and the
 * request will be answered so. */
struct meta_call *request_new(struct meta *m, struct meta_req *rq,
    void (*done)(struct meta_req *r, int err), enum meta_op op, size_t extra);
/* err: what the checks said. */
void request_start(struct meta_call *c, int err);
/* Appends a copy with its NUL; NULL stays NULL, and takes no room. */
const char *request_text(char **at, const char *s);
size_t request_text_size(const char *s);
/* The call's results become the request's. */
void request_hand_out(struct meta_call *c);

/* A transaction that waits for the disk, and before that for what waits up to `mark`. */
void request_txn(struct meta *m, struct meta_txn *rq, uint64_t mark,
    void (*done)(struct meta_req *r, int err));

/* --- later.c */
int later_init(struct meta *m);
void later_fini(struct meta *m);
/* May these wait?  Then later_add() notes them: 0 or the state database's error. */
bool later_takes(struct meta *m, const struct meta_change *changes, unsigned n);
int later_add(struct meta *m, const struct meta_change *changes, unsigned n);
/* What has to be in the store before these: a mark for request_txn(), 0 if nothing. */
uint64_t later_before(struct meta *m, const struct meta_change *changes, unsigned n);
/* The same of all that waits now. */
uint64_t later_all(struct meta *m);
bool later_passed(const struct meta *m, uint64_t mark);
/* What waits of a path: 0 and the record, -ENOENT (it will have none), -EAGAIN (ask the
 * store). */
int later_get(struct meta *m, const char *path, struct meta_record *rec);
/* What waits of a scan's window, as it is when the scan begins, and then put over what
 * the store said. */
int later_note(struct meta *m, struct meta_call *c);
int later_merge(struct meta_call *c);

#endif
