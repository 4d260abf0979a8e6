/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Persisting: what was written under a policy reaches the storage in the background.
 *
 * The queue is the metadata store's (meta_queue); this takes what is due, at most
 * write.cache.persist.parallel files side by side, small ones not behind large ones; makes
 * the file's session from its record (session_adopt) and uploads it (session_upload).  The
 * result is in the record: PERSISTED with the storage's version, or the next try (backoff
 * with jitter up to worker.write.cache.async.persist.retry.max.interval), or FAILED
 * where trying again cannot help (another client has made an object of that name, a
 * checksum does not match).  Nothing is in memory but what runs, and one page of the
 * queue.
 *
 * Every write.cache.async.file.check.period it also looks for what fell out: NOT_PERSISTED
 * records that nobody would wake for, staged files without record or session older than
 * write.cache.async.check.orphan.timeout, and sessions that were never flushed, have no
 * handle and got no data for worker.mark.writing.files.duration.  It never touches what
 * was acknowledged or is open.  Loop thread.
 */
#ifndef OPS_PERSIST_H
#define OPS_PERSIST_H

#include "ops/fs.h"

struct act_task;
struct meta_content;
struct persist;

/* fs->persist; NULL where nothing is persisted (read-only).  Begins with
 * persist_resume(). */
int persist_new(struct persist **out, struct fs *fs);
void persist_free(struct persist **p);
/* A record became NOT_PERSISTED, or its next try is another. */
void persist_kick(struct fs *fs);
/* The same, because somebody has closed it just now: its upload gives way to further
 * writing for a while. */
void persist_written(struct fs *fs);
/* Content was parked, or is the metadata store's no more: what is pinned is counted again. */
void persist_recount(struct fs *fs);
/* A hand-over begins or the end; and it does not, after all. */
void persist_hold(struct fs *fs);
void persist_resume(struct fs *fs);

struct persist_info {
	unsigned running;		 /* files being uploaded */
	uint64_t waiting, waiting_bytes; /* NOT_PERSISTED, with those that run */
	uint64_t failed, transient;	 /* files */
	uint64_t persisted;		 /* since the daemon began */
	uint64_t oldest_ns;		 /* wall clock: 0: none waits, or not known yet */
	uint64_t pinned_bytes, pinned_limit; /* of the disk: not persisted; and at most */
	/* Of `waiting` and `failed`, those that lie outside of the mounted part, for a mount
	 * that has them; 0 until they were counted, soon after the start. */
	uint64_t outside, outside_bytes, outside_failed;
	char error[256];		 /* of the last try that failed, or "" */
};
void persist_info(struct fs *fs, struct persist_info *out);
/* What a failed try says of the storage, for people; of a negative errno, "" for 0. */
const char *persist_words(int err);
/* Does a path (of the namespace, without leading slash) lie below the mounted part? */
bool persist_inside(const struct fs *fs, const char *path);
/* How long after the so many-th failed try the next one is: exponential, with jitter. */
uint64_t persist_backoff(struct fs *fs, unsigned tries);

/* What a person wants of a file that waits or has FAILED (path: of the namespace, without
 * leading slash): a try now, which is waited for, or (drop, only FAILED ones: -EBUSY) that
 * it is thrown away.  -ENOENT: there is no such file; -EREMOTE: another node has its bytes; -EINVAL: it is TRANSIENT; else what
 * the try ended with.  Leaf contract; 0, or negative errno and done() is not called. */
struct persist_act {
	void (*done)(struct persist_act *a, int err);
	void *user;
	struct act_task *task; /* private */
};
int persist_act(struct fs *fs, const char *path, bool drop, struct persist_act *a,
    void (*done)(struct persist_act *a, int err));
/* done() is not called; what was begun may happen all the same. */
void persist_act_abort(struct persist_act *a);

/* Whoever reads the queue a page at a time: before the record of a file gets another place in
 * it (a try that failed, or one that was asked for), moves() is called with the place that
 * it had, which is next_ns as meta_queue() counts it.  Such a file may be met twice. */
struct persist_watch {
	void (*moves)(struct persist_watch *w, uint64_t content, uint64_t next_ns);
	LIST_ENTRY(persist_watch) link; /* private */
	bool on;
};
void persist_watch(struct fs *fs, struct persist_watch *w);
void persist_unwatch(struct persist_watch *w);
/* To be called then; c: as it was. */
void persist_moves(struct fs *fs, const struct meta_content *c);

/* Is the file of this content being uploaded just now? */
bool persist_runs(struct fs *fs, uint64_t content);

#endif
