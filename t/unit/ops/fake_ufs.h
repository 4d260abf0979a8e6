/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A storage that does what the test says: what it has is in `store`, where failures
 * are scripted and requests counted; it answers at once, or on demand.
 */
#ifndef T_OPS_FAKE_UFS_H
#define T_OPS_FAKE_UFS_H

#include "../../lib/fake_store.h"
#include "ufs/ufs_priv.h"

struct fake_ufs {
	struct ufs ufs;
	struct fake_store store;
	unsigned page;	/* entries a listing page */
	bool empty_first; /* the next listing begins with an empty page and `more` */
	int err;	/* what requests end with; 0: the truth */
	bool stall;	/* requests wait for fake_release() or fake_release_one() */
	bool late_effects; /* what is aborted takes effect all the same */
	unsigned stats, lists, reads; /* asked for */
	unsigned aborted; /* requests of all kinds */
	TAILQ_HEAD(fake_calls, fake_call) waiting;
};

void fake_init(struct fake_ufs *f, struct loop *lp);
void fake_fini(struct fake_ufs *f);
/* UFS_CAN_*; at first UFS_CAN_ABSENT. */
void fake_can(struct fake_ufs *f, unsigned can);
/* Its content is made up: full of the version's first byte. */
struct fake_file *fake_add(struct fake_ufs *f, const char *path, enum ufs_kind kind, uint64_t size,
    const char *version);
struct fake_file *fake_find(struct fake_ufs *f, const char *path);
unsigned fake_waiting(const struct fake_ufs *f);
/* Is one of this kind among them? */
bool fake_waits(const struct fake_ufs *f, enum fake_op op);
/* Answers what waits, and everything later at once. */
void fake_release(struct fake_ufs *f);
/* Answers the oldest that waits; false: none does.  What comes goes on waiting. */
bool fake_release_one(struct fake_ufs *f);
/* The same for the oldest of a kind. */
bool fake_release_op(struct fake_ufs *f, enum fake_op op);

#endif
