/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Storage that does what the test says.  Every request waits until fake_step()
 * brings it bytes or its end; content is a function of version and offset, or what
 * was written: what there is lies in `store`, where failures of single requests are
 * scripted and requests counted.
 */
#ifndef T_CACHE_FAKE_UFS_H
#define T_CACHE_FAKE_UFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/queue.h"
#include "../../lib/fake_store.h"
#include "ufs/ufs.h"

struct ufs {
	char uri[64];
	TAILQ_HEAD(, fake_req) running;
	unsigned started;  /* requests ever */
	unsigned aborted;
	unsigned most;	   /* at one time */
	unsigned now;
	uint64_t bytes;	   /* delivered */
	size_t chunk;	   /* bytes a step; 0: everything */
	size_t stop_after; /* requests get no more bytes than this; 0: no limit */
	int fail;	   /* the end of requests of all kinds from now on; 0: all is well */
	unsigned fail_one_in; /* with `fail`: only so many, at random */
	unsigned seed;
	bool late_effects; /* what is aborted takes effect all the same */
	struct fake_store store;
};

struct ufs *fake_new(const char *uri);
void fake_free(struct ufs **u);
/* One chunk, or the end, for each request that runs.  False: none runs. */
bool fake_step(struct ufs *u);
/* The same for the oldest request only, with so many bytes. */
bool fake_step_one(struct ufs *u, size_t bytes);
/* Requests of a kind that run. */
unsigned fake_running(const struct ufs *u, enum fake_op op);
/* The end for the oldest request of a kind; false: none runs. */
bool fake_step_op(struct ufs *u, enum fake_op op);
/* A file with made-up content, for what needs more than its version. */
struct fake_file *fake_add(struct ufs *u, const char *path, uint64_t size, const char *version);
unsigned char fake_byte(const char *version, uint64_t off);
bool fake_check(const char *version, uint64_t off, const void *data, size_t len);

#endif
