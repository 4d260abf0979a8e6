/* SPDX-License-Identifier: BSD-2-Clause */
/* A mount whose queue of files for the storage is filled by hand: records with their bytes
 * within, on a clock on which hours pass in no time. */
#ifndef T_OPS_PERSIST_RIG_H
#define T_OPS_PERSIST_RIG_H

#include "cache/staged.h"
#include "meta/meta.h"
#include "ops_rig.h"

extern struct rig pr;
extern unsigned char pr_bytes[STAGED_INLINE_MAX]; /* what is in every file, from its beginning */

void pr_begin(void);
void pr_finish(void); /* the suites' .fini */

/* A turn of the loop.  Time passes while nothing is on its way. */
void pr_serve(void);
struct meta_tally pr_tally(void);

/* The n-th file's id; its record, not yet persisted. */
uint64_t pr_id_of(unsigned n);
struct meta_record pr_record(unsigned n, uint64_t size);
/* Into the metadata store; turn: of the loop, while that is at it. */
void pr_commit_record(const char *path, const struct meta_record *rec, void (*turn)(void));
/* The same, and the queue hears of it. */
void pr_put_record(const char *path, const struct meta_record *rec);
void pr_put(const char *path, unsigned n, uint64_t size);
struct meta_record pr_get(const char *path);

bool pr_quiet(void); /* nothing goes on */
void pr_until_quiet(void);
void pr_until_persisted(uint64_t files); /* so many are, and nothing goes on */
void pr_until_waiting_for_the_clock(void); /* nothing goes on, and when the next try is due is known */

/* Of the storage. */
bool pr_same_bytes(const char *path, uint64_t size);
unsigned pr_puts_done(void);
/* Of no file anything is left here. */
void pr_nothing_left(void);

#endif
