/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the implementations (s3*.c, posix*.c) share with the dispatcher.
 *
 * An implementation allocates one struct a running request, which begins with
 * struct ufs_call, and ends it either with ufs_call_end() (after releasing its
 * own members) or from its abort function, which must leave nothing behind that
 * could still call the user.
 */
#ifndef UFS_UFS_PRIV_H
#define UFS_UFS_PRIV_H

#include "base/obj.h"
#include "reactor/loop.h"
#include "ufs/ufs.h"

struct ufs_ops {
	void (*free)(struct ufs *u); /* releases the members and the struct */
	void (*stat)(struct ufs *u, struct ufs_stat *rq);
	/* `after` is a copy that stays during the call only (rq->after may have
	 * pointed into the page that was freed). */
	void (*list)(struct ufs *u, struct ufs_list *rq, const char *after);
	void (*read)(struct ufs *u, struct ufs_read *rq);
	void (*check)(struct ufs *u, struct ufs_check *rq);
	void (*statfs)(struct ufs *u, struct ufs_statfs *rq);
	/* Writing: NULL answers -EROFS, and rename and setattr -EOPNOTSUPP where there is
	 * a put.  Paths, versions, ids, numbers and lengths have been checked, and `attr`
	 * is zeroed. */
	void (*put)(struct ufs *u, struct ufs_put *rq);
	void (*multi_begin)(struct ufs *u, struct ufs_multi_begin *rq);
	void (*part)(struct ufs *u, struct ufs_part *rq);
	void (*multi_end)(struct ufs *u, struct ufs_multi_end *rq);
	void (*multi_abort)(struct ufs *u, struct ufs_multi_abort *rq);
	void (*multi_sweep)(struct ufs *u, struct ufs_multi_sweep *rq);
	void (*copy)(struct ufs *u, struct ufs_copy *rq);
	/* errs[i] is 0, or what is wrong with that path: leave those alone.  At least
	 * one is 0. */
	void (*del)(struct ufs *u, struct ufs_delete *rq);
	void (*mkdir)(struct ufs *u, struct ufs_mkdir *rq);
	void (*rmdir)(struct ufs *u, struct ufs_rmdir *rq);
	void (*rename)(struct ufs *u, struct ufs_rename *rq);
	void (*setattr)(struct ufs *u, struct ufs_setattr *rq);
};

struct ufs {
	uint32_t magic;
#define UFS_MAGIC 0x0f50001u
	const struct ufs_ops *ops;
	struct ufs_env env;
	char *uri;
	unsigned can; /* UFS_CAN_*: set by the implementation's _new */
	uint64_t mount_id; /* or 0 */
	struct ufs_health health;
	unsigned running;
	/* Requests that found no memory: linked through their priv, so that even
	 * they are answered from the loop. */
	struct ufs_req *nomem;
	struct deferred nomem_run;
};

#define UFS_REQ_MAGIC 0x0f50002u
#define UFS_REQ_NOMEM_MAGIC 0x0f50003u

struct ufs_call {
	uint32_t magic;
#define UFS_CALL_MAGIC 0x0f50004u
	struct ufs_req *rq;
	void (*abort)(struct ufs_call *c);
};

/* What every ufs_*() request begins with. */
void ufs_req_begin(struct ufs *u, struct ufs_req *rq, void (*done)(struct ufs_req *r, int err));
/* A zeroed call of `size` bytes attached to rq, or NULL: then rq will be answered
 * with -ENOMEM, and the caller just returns. */
void *ufs_call_new(struct ufs_req *rq, size_t size, void (*abort)(struct ufs_call *c));
/* Frees the call and answers its request; the last thing a callback does. */
void ufs_call_end(struct ufs_call *c, int err);
/* Frees the call without an answer: for abort functions. */
void ufs_call_drop(struct ufs_call *c);
/* Answers rq with err from the loop. */
void ufs_answer_later(struct ufs_req *rq, int err);

/* A request was answered (err == 0), or failed for the reason in words. */
void ufs_health_note(struct ufs *u, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* 0, -EINVAL or -ENAMETOOLONG. */
int ufs_path_check(const char *path);
/* Whether a directory entry can have this name. */
bool ufs_name_ok(const char *name, size_t len);

int s3_new(struct ufs **out, const struct ufs_env *env, const char *rest, struct errtext *et);
int posix_new(struct ufs **out, const struct ufs_env *env, const char *rest, struct errtext *et);

#endif
