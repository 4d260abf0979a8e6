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

struct meta_check {
	uint64_t rows, content, queued, blobs, garbage;
	struct meta_tally tally;
};

/* The store in dir; nobody writes to it meanwhile. */
struct meta_check meta_check(const char *dir);
/* One below a prefix of a cluster. */
struct fdb;
struct meta_check meta_check_cluster(struct fdb *fdb, const char *prefix);

#endif
