/* SPDX-License-Identifier: BSD-2-Clause */
/* The task that uploads a session (session_upload.c), for the files that its steps lie in. */
#ifndef OPS_SESSION_UPLOAD_OP_H
#define OPS_SESSION_UPLOAD_OP_H

#include "meta/meta.h"
#include "ops/session.h"

struct op_upload {
	struct task task;
	uint32_t magic;
#define UPLOAD_MAGIC 0x5e551002u
	struct session *s; /* used */
	struct pathlock lock;
	char path[UFS_PATH_MAX + 1], version[UFS_VERSION_MAX];
	struct ufs *ufs;
	const char *sub; /* of path */
	bool sending;
	bool doubt;	/* there was an upload before whose outcome is not known */
	bool replacing; /* what that may have made is to be replaced: it has other bytes */
	bool was_created;
	struct timespec mtime;
	struct ufs_set set;
	struct upload_run run;
	struct ufs_attr attr; /* what is there now */
	uint64_t size;
	int result;
	/* verify */
	struct ufs_stat stat;
	struct ufs_read read;
	struct staged_io io;
	unsigned char *theirs, *ours;
	uint64_t at;
	size_t chunk, got;
	/* record */
	uint64_t upto;	   /* of the session's changes: what the record has of them */
	bool told;	   /* the record of a durable file knows of the failure, or cannot */
	int failure;
	struct meta_get get;
	struct meta_txn txn;
	struct meta_change change;
};

enum {
	UP_LOCK,
	UP_LOCKED,
	UP_CHECK,
	UP_DOUBTED,
	UP_SEND,
	UP_SENT,
	UP_ASK,
	UP_ASKED,
	UP_COMPARE,
	UP_READ,
	UP_COMPARED,
	UP_MADE,
	UP_RECORD,
	UP_RECORDED,
	UP_PERSISTED,
	UP_FAILED
};

/* Every step that calls up_finish() may move to this one. */
#define UP_ENDS TO(UP_FAILED)

static inline struct op_upload *up_of(struct task *t)
{
	struct op_upload *u = container_of(t, struct op_upload, task);

	CHECK_OBJ(u, UPLOAD_MAGIC);
	return u;
}

static inline void up_result(struct op_upload *u, int err)
{
	u->result = err;
	task_resume(&u->task);
}

static inline bool up_durable(const struct op_upload *u)
{
	return u->s->policy != META_POLICY_NO_CACHE;
}

/* --- session_upload.c */
enum task_next up_finish(struct op_upload *u, int err);
/* The node and what is beneath are of the version that the storage has now. */
int up_take(struct op_upload *u, bool native);

/* What is there is not what is to be there.  Once more: if an earlier upload of ours has
 * made it, and the storage can tell, it is replaced. */
enum task_next up_replace(struct op_upload *u);

/* --- session_verify.c */
enum task_next up_ask(struct task *t);
enum task_next up_was_asked(struct task *t);
enum task_next up_compare(struct task *t);
enum task_next up_was_read(struct task *t);
enum task_next up_compared(struct task *t);

/* --- session_record.c.  Of a durable file: its record says that an upload begins, that it
 * has been persisted, that it has failed. */
enum task_next up_note_doubt(struct op_upload *u);
enum task_next up_doubted(struct task *t);
enum task_next up_persist(struct op_upload *u);
enum task_next up_persisted(struct task *t);
bool up_must_tell(const struct op_upload *u, int err);
enum task_next up_tell(struct op_upload *u, int err);
enum task_next up_failed(struct task *t);

#endif
