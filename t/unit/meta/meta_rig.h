/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A metadata store in a directory of its own, on a clock that the test moves.
 *
 * With BATONFS_TEST_FDB_CLUSTER_FILE=FILE, and BATONFS_TEST_FDB_LIBRARY if it is not the
 * system's libfdb_c.so, the store is in that cluster, below a prefix of its own: for the
 * suites that ask for nothing but what meta.h says (t/fdb/meta_suites.sh runs them).  With
 * BATONFS_TEST_FDB_REPEATS a transaction may be done twice there, as after a commit of
 * which nobody knows if it has happened.
 */
#ifndef T_UNIT_META_RIG_H
#define T_UNIT_META_RIG_H

#include "../../lib/test_clock.h"
#include "base/counters.h"
#include "base/options.h"
#include "base/units.h"
#include "meta/meta.h"
#include "meta_check.h"
#include "reactor/pool.h"

struct fdb;
struct meta_rig {
	struct test_clock clock;
	struct loop *loop;
	struct pool *pool;
	struct config *cfg;
	struct epoch epoch;
	struct meta *meta;
	struct meta_identity is; /* zero: the first node */
	char top[64], dir[80]; /* the store is in top/meta */
	struct fdb *fdb;       /* NULL: embedded */
};

void meta_rig_init(struct meta_rig *g);
void meta_rig_init_in(struct meta_rig *g, const char *where);
/* A second one of the same directory. */
void meta_rig_join(struct meta_rig *g, const struct meta_rig *other);
void meta_rig_set(struct meta_rig *g, const char *name, const char *value);
void meta_rig_new(struct meta_rig *g); /* makes the object only */
void meta_rig_open(struct meta_rig *g);	 /* and opens it, which must work */
void meta_rig_close(struct meta_rig *g);
void meta_rig_free(struct meta_rig *g);	 /* closes and frees it; the directory stays */
void meta_rig_fini(struct meta_rig *g);
/* The last that a suite's .fini does, when all rigs are gone: FoundationDB's network starts once
 * in a process, and must have ended when exit(3) begins with what the library has left. */
void meta_rig_last(void);
/* Turns until *flag, or all that can happen has happened. */
void meta_rig_until(struct meta_rig *g, const bool *flag);
void meta_rig_settle(struct meta_rig *g);
uint64_t meta_rig_counter(const struct meta_rig *g, enum counter_id id);
struct meta_status meta_rig_status(const struct meta_rig *g);
#define HAS(text, part) cr_assert_not_null(strstr(text, part), "\"%s\" lacks \"%s\"", text, part)
/* Whatever the back end is. */
struct meta_check meta_rig_check(const struct meta_rig *g);

/* What a request came to: its req.user. */
struct meta_rig_end {
	bool done;
	int err;
};
void meta_rig_done(struct meta_req *r, int err);

/* Done to the end. */
int meta_rig_txn(struct meta_rig *g, const struct meta_change *changes, unsigned n);
int meta_rig_get(struct meta_rig *g, const char *path, struct meta_record *rec);
/* scan is zeroed or has been used. */
int meta_rig_scan(struct meta_rig *g, struct meta_scan *scan);
int meta_rig_intents(struct meta_rig *g, struct meta_intents *all);

/* rq is zeroed or has been used; its inputs are set. */
int meta_rig_queue(struct meta_rig *g, struct meta_queue *rq);
int meta_rig_content_get(struct meta_rig *g, struct meta_content_get *rq);
int meta_rig_setting_get(struct meta_rig *g, struct meta_setting_get *rq);

/* A file with content `no` of that size. */
struct meta_change meta_rig_content(
    const char *path, uint64_t no, enum meta_state state, uint64_t size);
#define META_RIG_ID(no) (META_CONTENT_BIT | (uint64_t)(no))

struct meta_change meta_rig_file(const char *path, uint32_t mode);
struct meta_change meta_rig_dir(const char *path, uint32_t mode);
struct meta_change meta_rig_del(const char *path);
struct meta_change meta_rig_move(const char *path, const char *to);
int meta_rig_put(struct meta_rig *g, const char *path, uint32_t mode); /* a file's record */
/* The mode of the record, or the error. */
int meta_rig_mode(struct meta_rig *g, const char *path);
/* The directory's entries as "name name …" in the order they come; "!ERRNO". */
const char *meta_rig_list(struct meta_rig *g, const char *path);

#endif
