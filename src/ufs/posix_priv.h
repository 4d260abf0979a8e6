/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * file://: a directory of this machine (or of a network file system mounted on
 * it) as storage.  All system calls are made in the offload pool.
 *
 * Symbolic links inside the tree are neither followed nor shown, so nothing
 * outside it can be reached; neither are devices, pipes and sockets.  They are
 * counted (ufs.hidden).  Mount points below the directory are crossed.
 *
 * A job may hang (a network file system whose server is gone) and cannot be
 * recalled.  The request is answered when ufs.timeout has passed all the same:
 * the job owns all memory it touches, and what it brings later is dropped.  So
 * that hanging jobs do not take all threads, they run in a few lanes only.  What
 * writes to one path has the lane of its path, so that a job that was given up
 * never ends after one that was begun later.
 *
 * Long requests are done in steps, each a job: others get their turn between two,
 * and there they can be given up.  Copies, and the end of an upload, have ufs.timeout
 * for each step.
 *
 * A file is made under no name or a temporary one (posix_temp.c) and appears under its
 * own when it is complete and synced.
 */
#ifndef UFS_POSIX_PRIV_H
#define UFS_POSIX_PRIV_H

#include <stdatomic.h>
#include <sys/stat.h>

#include "reactor/pool.h"
#include "reactor/timer.h"
#include "ufs/ufs_page.h"
#include "ufs/ufs_priv.h"

#define POSIX_CHUNK (1024u * 1024u) /* bytes a read job brings */
#define POSIX_PAGE 4096u	    /* entries a page */

/* What jobs of one storage share, on the loop's side; counted, because a late job
 * may outlive the storage. */
struct posix_lanes {
	unsigned refs, n;
	struct posix_lane {
		struct pool_lane lane;
		unsigned load;
	} lane[];
};

/* The directory that the URI named when it was first reached: another one in its
 * place (the file system was unmounted) is an error, not an empty tree. */
struct posix_root_id {
	bool known;
	dev_t dev;
	ino_t ino;
};

struct posix {
	struct ufs ufs;
	char *root;
	struct posix_lanes *lanes;
	struct posix_root_id id;
	bool no_openat2; /* ENOSYS was seen */
};

struct posix_call;

struct posix_job;

/* What a kind of request does. */
struct posix_kind {
	/* Pool: negative errno, 0 or POSIX_MORE. */
	int (*work)(struct posix_job *pj, int root);
	/* Loop, after POSIX_MORE: prepares the next step; 0 or negative errno.  NULL:
	 * nothing to prepare. */
	int (*step)(struct posix_call *pc, struct posix_job *pj);
	/* Loop: the result of a job that has ended with 0 goes to the request. */
	void (*take)(struct posix_call *pc, struct posix_job *pj);
	/* Loop: `take` of a request that may abort itself and go on; it ends the job. */
	void (*deliver)(struct posix_call *pc, struct posix_job *pj);
	/* Loop, before a request that failed is answered. */
	void (*failed)(struct posix_call *pc, int err);
	bool root_may_miss; /* that is an answer, not a failure of the storage */
	bool long_run; /* ufs.timeout is for each step */
};
#define POSIX_MORE 1

#define POSIX_TMP_MAX 32 /* ".batonfs-", 16 digits, ".tmp" */

/* One job and all that its thread touches. */
struct posix_job {
	struct pool_job job;
	struct pool *pool;
	struct posix_lanes *lanes;
	struct posix_lane *lane;
	struct posix_call *owner; /* loop only; NULL: nobody waits any more */
	_Atomic bool left;	  /* the same for the thread: no effects any more */
	const struct posix_kind *kind;
	char *root, *path;
	struct posix_root_id id;
	bool no_openat2;
	struct ufs_attr attr; /* result */
	/* list */
	char *after;
	enum ufs_kind after_kind;
	struct ufs_page page;
	struct ufs_cursor *cursor;
	bool more;
	uint64_t hidden;
	/* read, put, part: the bytes of a step */
	char version[UFS_VERSION_MAX];
	uint64_t off;
	size_t len;
	char *buf;
	/* statfs */
	struct ufs_space space;
	/* What is being written: the directory it will be in (O_PATH), the file, and the
	 * file's temporary name or "".  All closed and gone when the last step has ended. */
	int dir, fd;
	char tmp[POSIX_TMP_MAX];
	uint64_t mount_id;
	bool absent, if_version; /* conditions; the version is `version` */
	struct ufs_set set;
	uint64_t file; /* as ufs_put */
	bool again, mine;
	uint64_t at, size; /* how far it is, of how much */
	/* part, copy, rename */
	char *path2;
	char src_version[UFS_VERSION_MAX];
	uint64_t src_off;
	bool no_copy_range, noreplace;
	char etag[UFS_VERSION_MAX];
	/* multi */
	uint64_t token;
	struct posix_upload {
		char tmp[POSIX_TMP_MAX];
		uint64_t ino, sec; /* of the file, and when it was made */
		uint32_t nsec;
	} up;
	/* delete */
	const char **names;
	int *errs;
	unsigned n;
};

struct posix_call {
	struct ufs_call call;
	struct posix_job *job;
	struct timer timeout;
	size_t got; /* read, put, part: bytes that have gone through */
	bool in_callback, aborted;
};

/* --- posix_job.c; loop */
struct posix *posix_of(const struct posix_call *pc);
struct posix_lanes *posix_lanes_new(uint64_t threads);
void posix_lanes_unref(struct posix_lanes *ls);
/* A call with its job, not yet submitted; NULL: the request is being answered. */
struct posix_job *posix_begin(
    struct ufs *u, struct ufs_req *r, const struct posix_kind *kind, const char *path);
/* The same for what changes something at `path`. */
struct posix_job *posix_begin_change(
    struct ufs *u, struct ufs_req *r, const struct posix_kind *kind, const char *path);
/* Either may be NULL. */
void posix_conditions(struct posix_job *pj, bool absent, const char *if_version,
    const struct ufs_set *set);
/* For what was begun and the caller could not complete. */
void posix_begin_failed(struct posix_job *pj, int err);
void posix_submit(struct posix_job *pj);
/* For `deliver`: all was given, or the user aborted in its callback. */
void posix_delivered(struct posix_call *pc, struct posix_job *pj);
void posix_call_left(struct posix_call *pc, struct posix_job *pj);

/* --- posix_open.c; any thread */
/* The root, or negative errno. */
int posix_open_root(struct posix_job *pj);
/* A path below it; flags as openat(2), O_NOFOLLOW and O_CLOEXEC are added. */
int posix_open_at(struct posix_job *pj, int root, const char *path, int flags);
/* False: neither a regular file nor a directory. */
bool posix_attr(const struct stat *st, struct ufs_attr *attr);
/* The directory that holds the path's last component (O_PATH), and that name. */
int posix_open_parent(struct posix_job *pj, int root, const char *path, const char **name);

/* A file for reading, if it is this version: else -ESTALE, also if there is none. */
int posix_open_version(struct posix_job *pj, int root, const char *path, const char *version,
    struct stat *st);
/* 0 or -ESTALE. */
int posix_version_is(int fd, const char *version);

/* --- posix_list.c; any thread */
int posix_list_work(struct posix_job *pj, int root);
/* Loop: takes what the page before has left over, if it goes on from there. */
void posix_list_cursor(struct posix_job *pj, struct ufs_list *rq);

/* --- posix_put.c, posix_multi.c, posix_change.c; loop */
void posix_put(struct ufs *u, struct ufs_put *rq);
void posix_copy(struct ufs *u, struct ufs_copy *rq);
void posix_multi_begin(struct ufs *u, struct ufs_multi_begin *rq);
void posix_part(struct ufs *u, struct ufs_part *rq);
void posix_multi_end(struct ufs *u, struct ufs_multi_end *rq);
void posix_multi_abort(struct ufs *u, struct ufs_multi_abort *rq);
void posix_multi_sweep(struct ufs *u, struct ufs_multi_sweep *rq);
void posix_delete(struct ufs *u, struct ufs_delete *rq);
void posix_mkdir(struct ufs *u, struct ufs_mkdir *rq);
void posix_rmdir(struct ufs *u, struct ufs_rmdir *rq);
void posix_rename(struct ufs *u, struct ufs_rename *rq);
void posix_setattr(struct ufs *u, struct ufs_setattr *rq);

#endif
