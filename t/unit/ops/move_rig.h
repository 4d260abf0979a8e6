/* SPDX-License-Identifier: BSD-2-Clause */
/* A mount with a tree p/src that is renamed, an empty directory e and a file other. */
#ifndef T_OPS_MOVE_RIG_H
#define T_OPS_MOVE_RIG_H

#include "meta/meta.h"
#include "ops/rename.h"
#include "ops_rig.h"

#define MVR_TREE 5 /* files of a tree, at several depths; an empty directory is there, too */

extern struct rig mvr;

void mvr_begin(void);
void mvr_finish(void); /* the suites' .fini */
void mvr_put_tree(const char *dir);
void mvr_set_parallel(const char *n);

struct mvr_names {
	const char *from, *to;
};
/* A client: arg is a struct mvr_names. */
int mvr_c_rename(const struct tmp_mount *tm, void *arg);
int mvr_mv(const char *from, const char *to);
int mvr_run(rig_client *fn, const char *arg);

/* In the storage: a name; a whole tree; nothing of it; how often it was asked. */
bool mvr_there(const char *path);
bool mvr_whole(const char *dir);
bool mvr_gone(const char *dir);
unsigned mvr_did(enum fake_op op);

/* A question to the metadata store, which mvr_intents_done() ends. */
struct mvr_asked {
	struct meta_intents all;
	struct meta_get get;
	bool done;
	int err;
};
void mvr_intents_done(struct meta_req *rq, int err);
size_t mvr_intents(void); /* how many it has */
int mvr_record_of(const char *path, struct meta_record *rec);

/* For rig_until(): nothing goes on. */
bool mvr_quiet(struct rig *rig, void *arg);
/* Nothing is left of any request. */
void mvr_check_clean(void);

#endif
