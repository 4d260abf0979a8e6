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

struct persist;
struct session;

/* fs->persist; NULL where nothing is persisted (read-only).  Begins with
 * persist_resume(). */
int persist_new(struct persist **out, struct fs *fs);
void persist_free(struct persist **p);
/* A record became NOT_PERSISTED, or its next try is another. */
void persist_kick(struct fs *fs);
/* A hand-over begins or the end; and it does not, after all. */
void persist_hold(struct fs *fs);
void persist_resume(struct fs *fs);

struct persist_info {
	unsigned running;		 /* files being uploaded */
	uint64_t waiting, waiting_bytes; /* NOT_PERSISTED, with those that run */
	uint64_t failed, transient;	 /* files */
	uint64_t persisted;		 /* since the daemon began */
	uint64_t oldest_ns;		 /* wall clock: 0: none waits */
	char error[256];		 /* of the last try that failed, or "" */
};
void persist_info(struct fs *fs, struct persist_info *out);
/* Is the file of this content being uploaded just now? */
bool persist_runs(struct fs *fs, uint64_t content);

#endif
