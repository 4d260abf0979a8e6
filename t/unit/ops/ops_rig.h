/* SPDX-License-Identifier: BSD-2-Clause */
/* The file system over a scripted storage, with a real state database, a cache in
 * memory and, where the test wants it, a real mount. */
#ifndef T_OPS_RIG_H
#define T_OPS_RIG_H

#include "../../lib/test_clock.h"
#include "../../lib/tmp_mount.h"
#include "fake_ufs.h"
#include "ops/fs_priv.h"
#include "reactor/pool.h"

struct rig {
	struct tmp_mount tm;
	struct test_clock clock;
	struct loop *loop;
	struct pool *pool;
	struct config *cfg;
	struct fs_mount_opts mo;
	struct epoch epoch;
	struct cache *cache;
	/* Where it writes: staged files and metadata lie in tm.src. */
	bool writes;
	struct staging *staging;
	struct uploads *uploads;
	struct meta *meta;
	struct counts *counts;
	struct statedb *db;
	struct fake_ufs ufs;
	struct fs *fs;
	struct fuse_chan *chan;
	bool ready;
	int gone;
};

/* Without a mount, on a clock that the test moves. */
void rig_new(struct rig *r);
/* The same, for writing. */
void rig_new_writing(struct rig *r);
/* With a mount, on the real clock; opts as -o has them. */
void rig_mount(struct rig *r, const char *opts);
/* The same, on a clock that the test moves. */
void rig_mount_still(struct rig *r, const char *opts);
/* As rig_mount(), and as rig_mount_still(), for writing. */
void rig_mount_writing(struct rig *r, const char *opts);
void rig_mount_writing_still(struct rig *r, const char *opts);
void rig_free(struct rig *r);
/* Turns until pred(arg). */
void rig_until(struct rig *r, bool (*pred)(struct rig *r, void *arg), void *arg);
/* For rig_until(): no file is being written. */
bool rig_no_session(struct rig *rig, void *arg);
/* Serves until then; nothing is left of any request. */
void rig_check_clean(struct rig *r);
/* Closes the state database and opens it again in a new struct fs: a new daemon. */
void rig_restart(struct rig *r);
/* The same with requests running, which the kernel then sends again: a daemon that was
 * killed and the next one. */
void rig_crash(struct rig *r);

/* What runs in a child, over the mount: 0, an errno, or WRONG and more for an answer
 * that is no error and not right. */
typedef int rig_client(const struct tmp_mount *tm, void *arg);
#define WRONG 200
/* The path of a name on the mount; one at a time. */
const char *rig_at(const struct tmp_mount *tm, const char *name);
/* arg: the name; what stat(2) says. */
int rig_stat(const struct tmp_mount *tm, void *arg);
/* 0 if a directory has so many entries, with "." and "..", else an errno or WRONG. */
int rig_list(const char *path, unsigned entries);
pid_t rig_start(struct rig *r, rig_client *fn, void *arg);
/* Serves until the client ends; its exit status. */
int rig_wait(struct rig *r, pid_t pid);
/* The same with the n-th allocation on this side failing; fired: there were so many. */
int rig_wait_nth(struct rig *r, pid_t pid, unsigned n, bool *fired);
static inline int rig_run(struct rig *r, rig_client *fn, void *arg)
{
	return rig_wait(r, rig_start(r, fn, arg));
}
/* Serves until so many storage requests wait. */
void rig_until_waiting(struct rig *r, unsigned n);

#endif
