/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ledger: how far a mutation has come, by the kernel's number of the request.
 *
 * A daemon that dies, or hands over, leaves requests unanswered; they come again, with
 * bit 63 of the number set (FUSE_NOTIFY_RESEND) or as they were (hand-over).  Doing
 * them from the start would answer a mkdir(2) that was done with EEXIST.  So a
 * mutation whose second run could tell that there was a first one
 *	- writes LEDGER_INTENT before it sends anything to the storage, having made sure
 *	  that it may (nothing in the way, the thing exists);
 *	- writes LEDGER_DONE with its result in the same turn as it answers.
 * When it begins it asks ledger_seen().  LEDGER_NEW: as always.  LEDGER_INTENT: the
 * questions have been answered, the storage may or may not have done it: it does it
 * without asking, and takes "it is done already" for success.  LEDGER_DONE: it answers
 * from the result.
 *
 * A row goes when its reply is known to be taken.  Rows of requests that were answered
 * just before the daemon died, or when the kernel had just been asked to send all again,
 * go when the first new request shows that none comes again.  CREATE and OPEN, which are
 * done in one turn, need LEDGER_DONE only.  SETATTR needs LEDGER_INTENT only, where it
 * makes another version of a file.  WRITE, FALLOCATE, FSYNC, FLUSH and RELEASE have the
 * same effect twice: no row.
 */
#ifndef OPS_LEDGER_H
#define OPS_LEDGER_H

#include "ops/fs_priv.h"

enum ledger_stage { LEDGER_NEW, LEDGER_INTENT, LEDGER_DONE };

/* What an answer needs; unused members 0. */
struct ledger_result {
	uint64_t node, fh;
	uint64_t aux[2]; /* the operation's own */
};

/* The number of the request being dispatched. */
uint64_t ledger_unique(const struct fs *fs);
/* Has the kernel sent it before? */
bool ledger_resent(const struct fs *fs);
/* result: filled in for INTENT (what was noted with it) and DONE; may be NULL. */
enum ledger_stage ledger_seen(struct fs *fs, uint64_t unique, struct ledger_result *result);
/* 0 or the database's error: then the mutation must not begin.  The caller commits the
 * database before the storage hears of it: the pool may be quicker than the turn's end. */
int ledger_intent(struct fs *fs, uint64_t unique, const struct ledger_result *note);
/* Call before the reply is sent, in the same turn: the row goes when the reply has left.
 * Also after a failure of a mutation that had an intent (it is answered with an errno:
 * ledger_drop()). */
int ledger_done(struct fs *fs, uint64_t unique, const struct ledger_result *result);
/* The request is answered with an error, or needs no row: it goes with the reply. */
void ledger_drop(struct fs *fs, uint64_t unique);
/* For fs.c: every request that is dispatched; the database was opened, is detached. */
void ledger_note_request(struct fs *fs);
void ledger_turn_end(struct fs *fs);
void ledger_open(struct fs *fs);
void ledger_detach(struct fs *fs);

#endif
