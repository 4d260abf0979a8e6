/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef T_FDB_FUTURE_H
#define T_FDB_FUTURE_H

#include <pthread.h>
#include <stdbool.h>

#include "abi.h"
#include "base/queue.h"
#include "bytes.h"

/*
 * A future has two owners: the user, until fdb_future_destroy(), and the library, until
 * it is ready.  future_settle() decides how it ends and queues it; the network thread
 * makes all that were settled in a turn ready at the turn's end, in any order, and runs
 * their callbacks there.  As with the real library, a callback runs even if its future
 * was destroyed before: with operation_cancelled, the future alive for that long.
 */

struct callback {
	FDBCallback fn;
	void *arg;
	struct callback *next;
};

struct op;

struct FDB_future {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned refs;	       /* atomic */
	bool ready;	       /* the rest of this block under the lock */
	int error;
	struct callback *callbacks;
	int gets, released;
	bool settled;	       /* network thread: that it has an end, and which */
	int settled_error;
	struct op *op;	       /* network thread: what works on it, or NULL */
	STAILQ_ENTRY(FDB_future) link;
	int64_t number;	       /* results, from here on */
	bool present;
	struct bytes bytes;
	struct buf memory; /* what the rows point into */
	FDBKeyValue *rows;
	int count;
	bool more;
	const char **strings;
};

FDBFuture *future_new(void);
void future_drop(FDBFuture *f);
/* Network thread: once, and the library's reference goes with it; later calls: nothing. */
void future_settle(FDBFuture *f, int error);
/* Network thread: at the end of a turn.  True: something was there. */
bool future_deliver(void);
/* Any thread: a future that has failed already, for arguments that are wrong. */
FDBFuture *future_failed(int error);

#endif
