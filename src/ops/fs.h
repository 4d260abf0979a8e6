/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The file system: FUSE requests over the namespace.  What others (main,
 * takeover, ctl) may know of ops/.
 */
#ifndef OPS_FS_H
#define OPS_FS_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/errtext.h"
#include "base/queue.h"
#include "ufs/ufs.h"

struct fs;
struct cache;
struct config;
struct counts;
struct fuse_chan;
struct fuse_lowlevel_ops;
struct loop;
struct pool;
struct statedb;

/* Mount options that concern us rather than libfuse (fs_mount_opts_parse). */
struct fs_mount_opts {
	bool ro;
	bool kernel_cache, auto_cache;
	double attr_timeout, entry_timeout, negative_timeout; /* seconds */
	unsigned max_background;
	/* What goes on to libfuse: NULL-terminated words; owned. */
	char **fuse_opts;
};
/* Takes "a,b=c" texts as -o has them, in order.  -EINVAL names the word. */
int fs_mount_opts_parse(struct fs_mount_opts *mo, const char *const *texts, unsigned ntexts,
    struct errtext *et);
void fs_mount_opts_fini(struct fs_mount_opts *mo);

struct fs_env {
	struct loop *loop;
	struct pool *pool;
	const struct config *cfg;
	struct cache *cache; /* may be NULL: fs_set_cache() before the first request */
	const struct fs_mount_opts *mo;
	/* What writing needs; NULL where the mount is read-only.  Not owned. */
	struct meta *meta;
	struct staging *staging;
	struct uploads *uploads;
};

int fs_new(struct fs **out, const struct fs_env *env);
/* In a takeover the cache's lock comes after the fs was made. */
void fs_set_cache(struct fs *fs, struct cache *cache);
/* The same for what writing needs; before the first request. */
void fs_set_writing(struct fs *fs, struct meta *meta, struct staging *staging,
    struct uploads *uploads);
/* In a cluster: what has the content of other nodes that is not persisted yet.  A ufs of
 * files alone: their paths are contents' ids in 16 hexadecimal digits, and their versions "~"
 * and the same.  Its ufs_stat() says -EBUSY of one that is still being written.  Not owned. */
void fs_set_peers(struct fs *fs, struct ufs *peers);
/* No request may be running.  Does not close the state database. */
void fs_free(struct fs **fs);

/* Attaches storage at a namespace path ("/", "/data/s3"): before fs_set_root().  The fs
 * does not own the ufs, which must live longer.  -EINVAL, -EEXIST, -E2BIG, -ENOMEM. */
#define FS_ATTACH_MAX 16u
int fs_attach(struct fs *fs, const char *nspath, struct ufs *ufs, struct errtext *et);
/* After the last fs_attach(), once: the part of the namespace that is mounted ("/":
 * all).  -EINVAL, -ENOENT (nothing is attached there), -ENOMEM. */
int fs_set_root(struct fs *fs, const char *subtree, struct errtext *et);
/* The digest of everything a successor must agree on: the storage that the mount can
 * reach, where it is attached, and the part mounted. */
uint64_t fs_namespace_digest(const struct fs *fs);

const struct fuse_lowlevel_ops *fs_fuse_ops(void);
void fs_set_chan(struct fs *fs, struct fuse_chan *ch);

/* Gives the fs its databases: an empty state database gets root and a random mount
 * id (fs_info tells it); one
 * with content is checked (format, -EPROTO if from a newer version) and used as it
 * is: nodes and handles load lazily. */
int fs_state_open(struct fs *fs, struct statedb *db, struct counts *counts, struct errtext *et);

/* Goes on with what a mount before this one left unfinished, in the background: after
 * fs_state_open() and meta_open(). */
void fs_recover_intents(struct fs *fs);

/* --- Hand-over, old side (takeover.md is the protocol, beside takeover/).
 *
 * fs_handover_begin: no request is read any more.  Cancels every running request
 * but data reads; each cancelled request goes, raw, to the held list.  Calls
 * `done` on the loop when only data reads run (never inline).  Then the caller
 * takes the held list, calls fs_state_detach() and closes the databases. */
struct held_req {
	STAILQ_ENTRY(held_req) link;
	uint32_t len;
	unsigned char raw[];
};
STAILQ_HEAD(held_list, held_req);

void fs_handover_begin(struct fs *fs, void (*done)(void *arg), void *arg);
/* The successor failed before COMMIT: feed the held requests again and go on.
 * After fs_state_detach() only once fs_state_open() has been called again.  The
 * caller re-arms the channel. */
void fs_handover_undo(struct fs *fs);
/* Is there one on the held list? */
bool fs_holds(const struct fs *fs);
/* Moves the held requests to `to`. */
void fs_handover_take(struct fs *fs, struct held_list *to);
/* From here on no operation touches the state database; reads end from memory or
 * storage, and what cannot goes to the held list. */
void fs_state_detach(struct fs *fs);
/* Ends the reads that still run: resume true: cancelled, raw to the held list;
 * false: EIO.  fs_handover_take() again when fs_running() is 0.  Returns how many. */
unsigned fs_handover_end_reads(struct fs *fs, bool resume);
/* Requests being worked on. */
unsigned fs_running(const struct fs *fs);
/* Called (on the loop, from the deferred queue) whenever fs_running() falls to 0
 * or an operation ends while the held list has a request. */
void fs_on_idle(struct fs *fs, void (*fn)(void *arg), void *arg);

/* The mount is gone: files that are open for writing count as closed, and are uploaded
 * in the background; deletions are sent.  fs_unsent(): so many still are.  fs_report_lost(): names in the log
 * what will not be. */
void fs_close_writers(struct fs *fs);
unsigned fs_unsent(struct fs *fs);
void fs_report_lost(struct fs *fs);
/* Shut-down without successor: everything that runs ends with err (-ENOTCONN). */
void fs_cancel_all(struct fs *fs, int err);

/* --- For the control socket. */

/* Names that were deleted, and answered, before the storage has done it. */
struct fs_deletions {
	unsigned pending;
	uint64_t refused; /* names that are there again, since this daemon began */
	int error;	  /* why it does not get on; 0: it does */
};
void fs_deletions(const struct fs *fs, struct fs_deletions *out);
/* Is the name (as fs_resolve() takes it) one of them? */
bool fs_deleted(const struct fs *fs, const char *nspath);

struct fs_info {
	uint64_t nodes, open_files, open_dirs;
	unsigned running;
	uint64_t mount_id;
};
void fs_info(struct fs *fs, struct fs_info *out);

/* Storage and path below it for a namespace path ("/a/b"): borrowed ufs, path
 * pointing into nspath.  Of a directory that leads to attached storage: the tree of all
 * storage and the path in it, which has its true listing.  -ENOENT outside of the
 * mounted part, -EINVAL for "..", -ENAMETOOLONG. */
int fs_resolve(const struct fs *fs, const char *nspath, struct ufs **ufs, const char **path);
/* The storage that the mount can reach, in the order of its paths; NULL at the end. */
struct ufs *fs_ufs(const struct fs *fs, unsigned i, const char **nspath);

#endif
