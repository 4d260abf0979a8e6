/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of a RENAME share: rename.c (all up to where the ways part), rename_file.c
 * (the storage renames, or copies a file), rename_wait.c (a directory's job). */
#ifndef OPS_RENAME_OP_H
#define OPS_RENAME_OP_H

#include "ops/below.h"
#include "ops/ledger.h"
#include "ops/op.h"
#include "ops/rename.h"
#include "ops/session.h"

/* ledger_result.aux[0]; aux[1] is the id of a job's intent. */
enum { STAGE_BEGUN = 0, STAGE_MOVED = 1, STAGE_JOB = 2 };

struct rename_lock {
	struct pathlock lock; /* first: the job frees it */
	struct op_rename *rn;
};

struct op_rename {
	struct op op;
	bool noreplace, again, intent, settled, looked_again;
	bool replaces, dst_dir; /* there is a target; it is a directory */
	struct ledger_result note;
	uint64_t parent, newparent;
	struct node n, target; /* as they were looked at; id 0: not known */
	struct ufs *ufs;
	const char *ssub, *dsub; /* in ufs */
	struct rename_lock *lock;
	int result;
	/* a step's own */
	struct session_wait wait;
	struct name_look look;
	struct below below;
	struct dir_empty empty;
	struct session_keep keep;
	struct record_look record;
	struct dir_mark mark;
	struct ufs_rename native;
	struct upload_copy copy;
	struct ufs_delete del;
	const char *paths[1];
	int errs[1];
	struct meta_change change;
	struct meta_txn txn;
	struct meta_intents intents;
	struct move_wait job;
	struct ufs_attr attr; /* of the thing under its new name */
	char src[UFS_PATH_MAX + 1], dst[UFS_PATH_MAX + 1];
	char name[UFS_NAME_MAX + 1], newname[UFS_NAME_MAX + 1];
};

enum {
	RN_BEGIN,
	RN_SETTLED,
	RN_LOCK,
	RN_LOCKED,
	RN_SRC,
	RN_BELOW,
	RN_DST,
	RN_READY,
	RN_GO,
	RN_NATIVE,
	RN_NATIVE_LOOKED,
	RN_COPY,
	RN_COPIED,
	RN_SRC_AGAIN,
	RN_RECORD,
	RN_RECORDED,
	RN_MOVE,
	RN_MARKED,
	RN_DELETED,
	RN_FORGET,
	RN_FORGOTTEN,
	RN_JOB,
	RN_INTENTS,
	RN_JOB_ENDED,
	RN_END
};

/* What the step's wait ended with. */
static inline void rn_resume(struct op_rename *rn, int err)
{
	rn->result = err;
	task_resume(&rn->op.task);
}

static inline int rn_result(struct op_rename *rn)
{
	return task_fail(&rn->op.task, rn->result);
}

void rn_unlock(struct op_rename *rn);
/* The ends: an errno (or held), and success. */
enum task_next rn_fail(struct op_rename *rn, int err);
enum task_next rn_done(struct op_rename *rn);
/* Looks at one of the names, then goes to a step; ask: in the storage. */
enum task_next rn_look(struct op_rename *rn, bool dst, bool ask, unsigned step);
/* The ledger's intent, in the database before the storage hears of it. */
int rn_note(struct op_rename *rn, uint64_t stage, uint64_t id);

/* Steps, in the order of the enum. */
enum task_next rn_go(struct task *t);
enum task_next rn_native(struct task *t);
enum task_next rn_native_looked(struct task *t);
enum task_next rn_copy(struct task *t);
enum task_next rn_copied(struct task *t);
enum task_next rn_src_again(struct task *t);
enum task_next rn_record(struct task *t);
enum task_next rn_recorded(struct task *t);
enum task_next rn_move(struct task *t);
enum task_next rn_marked(struct task *t);
enum task_next rn_deleted(struct task *t);
enum task_next rn_forget(struct task *t);
enum task_next rn_forgotten(struct task *t);
enum task_next rn_job(struct task *t);
enum task_next rn_intents(struct task *t);
enum task_next rn_job_ended(struct task *t);
enum task_next rn_end(struct task *t);

#endif
