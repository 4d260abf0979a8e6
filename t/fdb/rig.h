/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef T_FDB_RIG_H
#define T_FDB_RIG_H

/*
 * What the tests of the stand-in stand on: a client library opened at run time, its
 * network thread, a database (standin.h says which), and a corner of it for each test alone.
 */

#include <stdbool.h>
#include <stddef.h>

#include "abi.h"
#include "standin.h"

#define MEMBER(name, result, args) result(*name) args;
struct fdb {
	FDB_API(MEMBER)
};
#undef MEMBER

extern struct fdb fdb;
extern FDBDatabase *db;

void rig_start(void);  /* both of these, and the corner is empty */
void rig_place(void);  /* a cluster, and the name of the corner; no library yet */
void rig_client(void); /* the library, its network thread, db */
void rig_stop(void);
void rig_open(const char *cluster_file, FDBDatabase **out);
void rig_library(void); /* opens the library alone, without a network */
void rig_network(void);
void rig_network_end(void);

/* A key of this test's: good for the next 64 calls on this thread. */
struct key {
	const uint8_t *at;
	int len;
};
struct key key(const char *name);
#define K(name) key(name).at, key(name).len
#define V(text) (const uint8_t *)(text), (int)(sizeof(text) - 1)

FDBTransaction *begin(void);
void end(FDBTransaction **trp);
int ended(FDBFuture *f); /* waits, gives the error, destroys */
int waited(FDBFuture *f); /* does not destroy */
int commit(FDBTransaction *tr);
int on_error(FDBTransaction *tr, int error);
void option(FDBTransaction *tr, int which, int64_t value);
void put(const char *name, const char *value); /* each in a transaction of its own */
void del(const char *name);
/* "" is absent: NULL.  Good until the thread's next one. */
const char *get(FDBTransaction *tr, const char *name, bool snapshot);
const char *got(FDBFuture *f, int *error); /* of a get: value or NULL; destroys */
const char *now(const char *name);
FDBFuture *ask(FDBTransaction *tr, const char *name, bool snapshot);
void set(FDBTransaction *tr, const char *name, const char *value);
void clear(FDBTransaction *tr, const char *name);
/* Rows of [b, e) as "name=value,...", a "+" behind them for more. */
const char *rows(FDBTransaction *tr, const char *b, const char *e, int limit, bool reverse);
const char *rows_of(FDBFuture *f, int *error);

#endif
