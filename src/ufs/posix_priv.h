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
 * that hanging jobs do not take all threads, they run in a few lanes only.
 */
#ifndef UFS_POSIX_PRIV_H
#define UFS_POSIX_PRIV_H

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

enum posix_op { POSIX_STAT, POSIX_LIST, POSIX_READ, POSIX_CHECK, POSIX_STATFS };

struct posix_call;

/* One job and all that its thread touches. */
struct posix_job {
	struct pool_job job;
	struct posix_lanes *lanes;
	struct posix_lane *lane;
	struct posix_call *owner; /* loop only; NULL: nobody waits any more */
	enum posix_op op;
	char *root, *path;
	struct posix_root_id id;
	bool no_openat2;
	/* stat */
	struct ufs_attr attr;
	/* list */
	char *after;
	enum ufs_kind after_kind;
	struct ufs_page page;
	bool more;
	uint64_t hidden;
	/* read */
	char version[UFS_VERSION_MAX];
	uint64_t off;
	size_t len;
	char *buf;
	/* statfs */
	struct ufs_space space;
};

struct posix_call {
	struct ufs_call call;
	struct posix_job *job;
	struct timer timeout;
	size_t got; /* read */
	bool in_callback, aborted;
};

/* --- posix_open.c; any thread */
/* The root, or negative errno. */
int posix_open_root(struct posix_job *pj);
/* A path below it; flags as openat(2), O_NOFOLLOW and O_CLOEXEC are added. */
int posix_open_at(struct posix_job *pj, int root, const char *path, int flags);
/* False: neither a regular file nor a directory. */
bool posix_attr(const struct stat *st, struct ufs_attr *attr);

/* --- posix_list.c; any thread */
int posix_list_work(struct posix_job *pj);

#endif
