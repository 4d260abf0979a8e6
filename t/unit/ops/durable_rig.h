/* SPDX-License-Identifier: BSD-2-Clause */
/* Sessions under a policy of the write cache, without a kernel that asks for them: each step
 * to its end, on a mount with the fake storage. */
#ifndef T_OPS_DURABLE_RIG_H
#define T_OPS_DURABLE_RIG_H

#include "meta_rig.h"
#include "ops/session.h"
#include "ops_rig.h"

#define DR_LARGE (100u * 1024 + 17) /* more than a record takes */

extern struct rig dr;
extern unsigned char dr_content[DR_LARGE + 1];

/* Fills dr_content, too.  dr_finish() is the suites' .fini. */
void dr_begin(void);
void dr_finish(void);

/* The user of a struct session_wait that ends in dr_wait_over(). */
struct dr_step {
	bool over;
	int err;
};
void dr_wait_over(struct session_wait *w, int err);

typedef void dr_wait_fn(struct session *s, struct session_wait *w,
    void (*done)(struct session_wait *w, int err));
/* To the end: its error. */
int dr_wait_for(struct session *s, dr_wait_fn *fn);
void dr_upload_forced(struct session *s, struct session_wait *w,
    void (*done)(struct session_wait *w, int err));
int dr_secure(struct session *s);

/* A new file that somebody has open for writing, and that the kernel knows. */
struct session *dr_make(const char *name, enum meta_policy policy);
void dr_put(struct session *s, uint64_t off, const void *data, size_t len);
/* The first bytes of dr_content. */
void dr_fill(struct session *s, size_t len);
/* Safe, closed and out of memory: its record. */
struct meta_record dr_parked(const char *name, enum meta_policy policy, size_t len);
/* The content of a record, until the next call. */
struct meta_content_get *dr_stored(uint64_t id);
/* The session again, from its record. */
struct session *dr_adopt(const char *name);

/* No session, and nothing that works for one. */
void dr_until_gone(void);
unsigned dr_staged_files(void);
void dr_until_no_files(void);
/* The bytes are the first of dr_content: read from the session; in the storage. */
void dr_compare(struct session *s, size_t len);
void dr_check_object(const char *name, size_t len);
/* Another byte, and another length if it is not 0, in the row of a session. */
void dr_damage(uint64_t node, size_t at, unsigned char value, size_t len);

#endif
