/* SPDX-License-Identifier: BSD-2-Clause */
/* What is not in the storage yet, for the commands that say so. */
#ifndef CTL_CTL_PERSIST_H
#define CTL_CTL_PERSIST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "meta/meta.h"
#include "reactor/loop.h"

struct daemon;
struct session;

/* The persistence state of a file, by its namespace path and what the metadata store has
 * of it (NULL: nothing). */
const char *ctl_persistence(struct daemon *d, const char *nspath, const struct meta_record *rec);
/* Does the session alone know what is not in the storage of its file?  (Files under a
 * policy are in the metadata store as soon as they are safe, and listed from there.) */
bool ctl_session_unpersisted(const struct session *s);
/* A row of it, and of a record with content. */
void ctl_put_session(struct json_out *o, struct daemon *d, const struct session *s,
    const char *path);
void ctl_put_content(struct json_out *o, struct daemon *d, const char *path,
    const struct meta_record *rec);
/* Of that row: age, tries, next try and last error; path: without leading slash. */
void ctl_put_tries(struct json_out *o, struct daemon *d, const char *path,
    const struct meta_content *c);
/* Who has the bytes of what is not persisted, and if that is another node, how it is. */
void ctl_put_worker(struct json_out *o, struct daemon *d, const struct meta_content *c);
const char *ctl_policy_text(const struct meta_content *c);
/* The session of a namespace path, which its node has if the kernel knows it. */
struct session *ctl_session_of(struct daemon *d, const char *nspath);

/* In constant time, but for the files that are open. */
struct ctl_unpersisted {
	uint64_t open;	/* files that are open for writing */
	uint64_t files, failed, bytes; /* not in the storage as they are here; of those, given up */
	uint64_t lost;	/* of those, the ones that only this daemon has */
	/* Not among them: those of the metadata store that lie outside of what is mounted. */
	uint64_t outside;
	/* namespace paths of one that is not in the metadata store, and of one of these that
	 * failed; "" if there is none */
	char first[1040], first_failed[1040];
};
void ctl_unpersisted(struct daemon *d, struct ctl_unpersisted *out);

/* The same when the metadata store has answered, with the names of some.  Leaf contract of
 * reactor/task.h. */
#define CTL_LEFT_NAMES 3
struct ctl_left {
	struct ctl_unpersisted n; /* out */
	char names[CTL_LEFT_NAMES * 1040]; /* out: "/a, /b" */
	void (*done)(struct ctl_left *l, int err);
	void *user;
	/* private */
	struct daemon *d;
	struct meta_queue queue;
	struct deferred run;
	bool running;
};
void ctl_left_start(struct daemon *d, struct ctl_left *l,
    void (*done)(struct ctl_left *l, int err));
void ctl_left_abort(struct ctl_left *l);

#endif
