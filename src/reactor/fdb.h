/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * FoundationDB's client: its library, its network thread, its futures in the loop.
 *
 * The library is opened at run time and its network runs in a thread of its own.  There
 * is one of both in a process, from the first fdb_new() to fdb_end(): the network cannot
 * be started again, nor does it outlive a fork (so there is none without an exec).  What
 * runs on that thread posts to the loop's mailbox and touches nothing else.
 *
 * A future is a leaf (reactor/task.h).  fdb_wait() takes one; done comes once on the loop,
 * never inline, and may read the future's result, which is gone when it returns; or it
 * never comes after fdb_abort().
 */
#ifndef REACTOR_FDB_H
#define REACTOR_FDB_H

#include <stdbool.h>

#include "base/errtext.h"
#include "reactor/fdb_api.h"

struct fdb;
struct fdb_seat;
struct loop;

/* A cluster as one loop sees it.  library: a path, or a name that dlopen(3) finds;
 * cluster_file: "": the library's default.  Says nothing yet of whether the cluster can be
 * reached.  et has words for every error: the library lacks, or is none (-ENOENT,
 * -ELIBBAD), is too old (-EPROTONOSUPPORT), the cluster file is none (-EINVAL or its
 * errno). */
int fdb_new(struct fdb **out, struct loop *lp, const char *library, const char *cluster_file,
    struct errtext *et);
/* What still waits is given up.  Waits for the network's thread to let go of it. */
void fdb_free(struct fdb **f);
/* Stops the network and waits for its thread; there is no other one after this.  No-op if
 * there is none, or if one of fdb_new() has not been freed. */
void fdb_end(void);

const struct fdb_api *fdb_api(const struct fdb *f);
/* What was chosen, and what the library calls itself. */
int fdb_version(const struct fdb *f);
/* NULL if there is no memory. */
FDBTransaction *fdb_transaction(struct fdb *f);

/* Zeroed before its first use. */
struct fdb_wait {
	struct fdb_seat *seat; /* private */
	void (*done)(struct fdb_wait *w, FDBFuture *future);
};
/* The future is taken whatever comes of it, NULL for one that could not be made.
 * -ENOMEM: done will not come. */
int fdb_wait(struct fdb *f, struct fdb_wait *w, FDBFuture *future,
    void (*done)(struct fdb_wait *w, FDBFuture *future));
void fdb_abort(struct fdb_wait *w); /* no-op if it does not wait */
/* Futures whose call back has not come yet, given up or not. */
unsigned fdb_outstanding(const struct fdb *f);

/* The words of an error code; good for ever. */
const char *fdb_words(const struct fdb *f, fdb_error_t code);

#endif
