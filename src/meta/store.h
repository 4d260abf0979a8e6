/* SPDX-License-Identifier: BSD-2-Clause */
/* What meta.c (the store's life) and request.c (its requests') share. */
#ifndef META_STORE_H
#define META_STORE_H

#include "meta/meta_priv.h"

/* OPENING: for the first time, requests wait.  LOST: being closed after damage.
 * FAILED: tried again now and then, requests fail. */
enum store_state {
	STORE_CLOSED,
	STORE_OPENING,
	STORE_OPEN,
	STORE_LOST,
	STORE_FAILED,
	STORE_CLOSING
};

struct meta {
	uint32_t magic;
#define META_MAGIC 0x3e7a0001u
	struct meta_env env;
	char *dir;
	struct meta_backend *be;
	enum store_state state;
	bool trying; /* FAILED: the back end is opening */
	struct timer retry;
	void (*closed)(void *arg);
	void *closed_arg;
	struct deferred tell;
	char error[256];
	uint64_t told; /* when the log got it; 0: never */

	struct meta_calls calls; /* all, in the order they came */
	unsigned running;	 /* requests without answer */
	struct meta_req *nomem;	 /* those without a call */
	struct deferred nomem_answer;
};

/* Of those that wait for the store. */
void request_begin_waiting(struct meta *m);
void request_fail_waiting(struct meta *m, int err);
/* Ends with err what the back end has and has not begun. */
void request_recall(struct meta *m, int err);

#endif
