/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Is a store whole?  Walks all tables as they lie on the disk (by LMDB alone) or in the
 * cluster, and fails the test if anything beside the records disagrees with them, or leads
 * nowhere.
 */
#ifndef T_UNIT_META_META_CHECK_H
#define T_UNIT_META_META_CHECK_H

#include <stdint.h>

#include "meta/meta.h"
#include "reactor/fdb_api.h"

struct meta_check {
	uint64_t rows, content, queued, blobs, garbage;
	struct meta_tally tally;
};

/* The store in dir; nobody writes to it meanwhile. */
struct meta_check meta_check(const char *dir);
/* One below a prefix of a cluster. */
struct fdb;
struct meta_check meta_check_cluster(struct fdb *fdb, const char *prefix);
/* Waits, outside of any loop, for the future, which goes: 0, or an error after which the
 * transaction may begin anew.  Any other has failed the test. */
fdb_error_t meta_check_ended(const struct fdb_api *api, FDBTransaction *tr, FDBFuture *f);

#endif
