/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Storage that does what the test says.  Every request waits until fake_step()
 * brings it bytes or its end; content is a function of version and offset.
 */
#ifndef T_CACHE_FAKE_UFS_H
#define T_CACHE_FAKE_UFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/queue.h"
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
	int fail;	   /* the end of requests from now on; 0: all is well */
	unsigned fail_one_in; /* with `fail`: only so many, at random */
	unsigned seed;
};

struct ufs *fake_new(const char *uri);
void fake_free(struct ufs **u);
/* One chunk, or the end, for each request that runs.  False: none runs. */
bool fake_step(struct ufs *u);
/* The same for the oldest request only, with so many bytes. */
bool fake_step_one(struct ufs *u, size_t bytes);
unsigned char fake_byte(const char *version, uint64_t off);
bool fake_check(const char *version, uint64_t off, const void *data, size_t len);

#endif
