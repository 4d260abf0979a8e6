/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of persist*.c share. */
#ifndef OPS_PERSIST_PRIV_H
#define OPS_PERSIST_PRIV_H

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "ops/attr.h"
#include "ops/persist.h"
#include "ops/session.h"

/* Files up to write.part.size, and larger ones: each kind has seats that the other
 * cannot take. */
enum persist_size { PERSIST_SMALL, PERSIST_LARGE, PERSIST_SIZES };
#define PERSIST_WAIT_MAX 64u /* of each, in memory, for a seat */

struct act_task;
struct persist_check;
struct persist_file;

/* Waits for the end of a try. */
struct persist_wait {
	void (*done)(struct persist_wait *w, int err);
	TAILQ_ENTRY(persist_wait) link;
	struct persist_file *file; /* NULL: it does not wait */
};
/* A try now, whatever its turn.  0: w->done will be called, unless it is aborted before. */
int persist_now(struct fs *fs, const char *path, const struct meta_content *c,
    struct persist_wait *w);
/* The end of a try that runs: false if none does, and w->done will not be called. */
bool persist_wait_running(struct fs *fs, uint64_t content, struct persist_wait *w);
void persist_wait_abort(struct persist_wait *w);

/* A file of the queue: it waits for a seat, or is a task that has one. */
struct persist_file {
	struct task task;
	uint32_t magic;
#define PERSIST_FILE_MAGIC 0x9e551571u
	struct persist *p;
	UT_hash_handle hh; /* p->files, by content */
	TAILQ_ENTRY(persist_file) link; /* p->waiting */
	TAILQ_HEAD(, persist_wait) waits;
	uint64_t content, since_ns;
	enum persist_size size;
	bool running, seated;
	bool open; /* somebody writes to it, or uploads it already */
	bool gone; /* it is not to be persisted any more */
	/* --- of the task */
	int result;  /* of what it waited for */
	int failure; /* to be noted in the record */
	uint64_t *held; /* nodes on the way */
	unsigned nheld, held_cap;
	uint64_t parent;   /* the last of them */
	const char *rest_path;	/* of path: what is below it */
	struct attr_get attr;
	char *dir;	/* path of the directory that is asked for */
	struct pathlock lock;
	struct meta_content_get get;
	struct meta_change change;
	struct meta_txn txn;
	struct session *s; /* used */
	struct session_wait wait;
	struct timer rest;
	struct deferred run;
	char path[]; /* of the namespace */
};

enum persist_ask { ASK_DUE, ASK_LARGE, ASK_NEXT };

struct persist {
	uint32_t magic;
#define PERSIST_MAGIC 0x9e551570u
	struct fs *fs;
	bool held; /* nothing begins */
	struct deferred go;
	struct timer due;
	struct persist_file *files; /* hash: those that wait for a seat or have one */
	TAILQ_HEAD(, persist_file) waiting[PERSIST_SIZES];
	unsigned nwaiting[PERSIST_SIZES], running[PERSIST_SIZES];
	/* The pass through the queue. */
	struct meta_queue queue;
	bool asking, failing;
	enum persist_ask ask;
	uint64_t at_ns, at_id; /* seen up to here */
	uint64_t began_ns;     /* monotonic */
	uint64_t until_ns;     /* what is due later is not of this pass */
	bool end;	       /* it has seen all */
	bool again;	       /* there is something new: another one */
	bool next_known;       /* `due` is armed for what comes next */
	bool passed_over;      /* large ones behind this place had no room: */
	uint64_t passed_ns, passed_id;
	/* Tries that failed were put off, and one has gone well since: then the pass is for
	 * these, too, until one fails again. */
	bool put_off, well, early;
	uint64_t early_ns, early_wait; /* monotonic: the next such pass not before; and after it */
	bool behind; /* files were written since nothing waited: */
	uint64_t behind_ns, written_ns; /* monotonic: the first of them, the last */
	/* --- persist_check.c */
	struct timer period;
	uint64_t checked_ns; /* monotonic: the last check's time */
	struct persist_check *check;
	uint64_t oldest_ns, oldest_id; /* of those that were seen and wait; 0: none */
	uint64_t surveyed_ns, survey_took_ns; /* monotonic: the last search for the oldest */
	bool outside_known;
	struct persist_outside {
		uint64_t files, bytes, failed; /* failed: of the files */
	} outside; /* what this mount has no path to; nobody else changes it meanwhile */
	TAILQ_HEAD(, act_task) acts; /* that run */
	LIST_HEAD(, persist_watch) watches;
	/* --- for people */
	uint64_t persisted, parked;
	char error[256];
};

/* Of a row of the queue.  False: there is no room for one more. */
bool persist_add(struct persist *p, const char *path, const struct meta_content *c);
struct persist_file *persist_find(struct persist *p, uint64_t content);
/* Something may be done now. */
void persist_go_on(struct persist *p);

/* --- persist_file.c */
/* The path below the mounted part, or NULL. */
const char *persist_below_root(const struct fs *fs, const char *path);
struct persist_file *persist_file_new(struct persist *p, const char *path, uint64_t content);
void persist_file_free(struct persist_file **f); /* it has no task */
/* Its task; persist_file_ended() when it is over. */
void persist_file_start(struct persist_file *f);
/* Gives it up; it ends in one of the loop's next turns, also if it was resting. */
void persist_file_stop(struct persist_file *f);
/* It is said of the last try, as soon as it is known. */
void persist_file_failed(struct persist_file *f, int err);
void persist_file_ended(struct persist_file *f, int err);

/* --- persist_watch.c */
void persist_unwatch_all(struct persist *p);

/* --- persist_act.c */
void persist_act_stop(struct persist *p);

/* --- persist_check.c */
void persist_check_init(struct persist *p);
void persist_check_resume(struct persist *p);
void persist_check_start(struct persist *p, bool oldest_only);
void persist_check_stop(struct persist *p);
void persist_note_oldest(struct persist *p, uint64_t content, uint64_t since_ns);
void persist_not_oldest(struct persist *p, uint64_t content);

#endif
