/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between meta.c, which has the requests, and a back end, which has the store.  All of
 * it is for the loop's thread, except what a back end says of its own jobs.
 */
#ifndef META_META_PRIV_H
#define META_META_PRIV_H

#include "base/obj.h"
#include "base/queue.h"
#include "meta/meta.h"
#include "reactor/loop.h"
#include "reactor/timer.h"

struct later_entry {
	bool gone;
	struct meta_record rec;
	char name[META_NAME_MAX + 1];
};

enum meta_op {
	META_OP_GET,
	META_OP_SCAN,
	META_OP_INTENTS,
	META_OP_CONTENT,
	META_OP_QUEUE,
	META_OP_SETTING,
	META_OP_TXN
};

/* WAITING: the store is being opened.  GIVEN: the back end has it.  ENDED: its answer
 * is on the way. */
enum meta_call_state { META_CALL_WAITING, META_CALL_GIVEN, META_CALL_ENDED };

/*
 * A request as the back end sees it, in memory of its own: the user's may be gone
 * after meta_abort() while the disk still works for it.
 */
struct meta_call {
	uint32_t magic;
#define META_CALL_MAGIC 0x3e7aca11u
	/* meta.c's */
	TAILQ_ENTRY(meta_call) all;
	struct meta *meta;
	struct meta_req *rq; /* NULL: nobody waits any more */
	enum meta_call_state state;
	struct timer timeout;
	struct deferred answer;
	/* the back end's, from begin() until meta_call_end() */
	TAILQ_ENTRY(meta_call) link;
	bool running;
	/* in: valid, and the call's own */
	enum meta_op op;
	const char *path, *after, *last; /* GET, SCAN */
	size_t max;			 /* SCAN, QUEUE */
	bool pass;			 /* SCAN: META_PASS rows too */
	uint64_t id;			 /* CONTENT, SETTING */
	uint64_t after_ns, after_id, until_ns, node; /* QUEUE */
	struct meta_change *changes;	 /* TXN */
	unsigned n;
	bool promised; /* TXN: answered long ago; what is kept for deleting is for it, too */
	uint64_t mark; /* given when what waited up to here is in the store; 0: at once */
	/* out */
	int err;
	struct meta_record rec;	    /* GET, CONTENT */
	struct meta_entry *entries; /* SCAN, QUEUE: malloc'ed, the names in arena */
	struct meta_intent *intents; /* INTENTS: malloc'ed, the blobs in arena */
	char *arena; /* CONTENT: the path */
	size_t count;
	bool more;
	void *blob; /* CONTENT, SETTING: malloc'ed, and a 0 byte behind it; NULL: none */
	size_t blob_len;
	uint64_t version; /* SETTING */
	/* SCAN: what waited when it began */
	struct later_entry *over;
	size_t nover;
};
TAILQ_HEAD(meta_calls, meta_call);

struct meta_backend {
	const struct meta_backend_ops *ops;
	struct meta *meta;
};

struct meta_backend_ops {
	void (*free)(struct meta_backend *be); /* closed */
	/* Ends with meta_opened(), or if close() comes before with meta_closed(). */
	void (*open)(struct meta_backend *be);
	/* Lets what runs end, closes the files, calls meta_closed(). */
	void (*close)(struct meta_backend *be);
	/* Open only.  Ends with meta_call_end(), not inline. */
	void (*begin)(struct meta_backend *be, struct meta_call *c);
	/* True: the call was not begun, and the back end has forgotten it. */
	bool (*recall)(struct meta_backend *be, struct meta_call *c);
	void (*status)(const struct meta_backend *be, struct meta_status *out);
	/* Those of a cluster; NULL: there is one node, which is 0. */
	void (*leave)(struct meta_backend *be);
	void (*identity)(struct meta_backend *be, const struct meta_identity *id);
	uint64_t (*self)(const struct meta_backend *be);
	size_t (*nodes)(const struct meta_backend *be, struct meta_node *out, size_t max);
};

int embedded_new(struct meta_backend **out, struct meta *m, const struct meta_env *env,
    const char *dir);
/* -EINVAL: meta.fdb.prefix is none. */
int fdb_store_new(struct meta_backend **out, struct meta *m, const struct meta_env *env);

/* What a back end calls, never inline in one of its ops. */
void meta_opened(struct meta *m, int err, const char *words);
void meta_closed(struct meta *m);
void meta_call_end(struct meta_call *c, int err);
/* A failure that a person should see; the store goes on. */
void meta_note(struct meta *m, const char *words);
/* The store cannot go on as it is: it is closed and opened again. */
void meta_lost(struct meta *m, const char *words);

/* Another node has put the rules. */
void meta_rules_changed(struct meta *m);

/* 0, -EINVAL or -ENAMETOOLONG.  "" is the top. */
int meta_path_check(const char *path);

#endif
