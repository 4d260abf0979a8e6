/* SPDX-License-Identifier: BSD-2-Clause */
/* A staged file, its upload, a state database, and what the content should be. */
#ifndef T_CACHE_UPLOAD_RIG_H
#define T_CACHE_UPLOAD_RIG_H

#include "cache/upload_priv.h"
#include "reactor/statedb.h"
#include "rig.h"

#define UP_UNIT (64 * 1024)
#define UP_MIN (16 * 1024)
#define UP_ROOM (8u << 20)

struct up_file {
	struct up_rig *t;
	char path[32];
	uint64_t id;
	struct staged *sf;
	struct upload *up;
	unsigned char *want; /* UP_ROOM bytes, zero beyond the size */
	uint64_t size;
	char version[UFS_VERSION_MAX]; /* that was uploaded last, or "" */
	uint64_t version_size;
	/* of the last run */
	struct upload_run run;
	bool done;
	int err;
};

struct up_rig {
	struct rig g;
	char state[64];
	struct statedb *db;
	struct staging *st;
	struct uploads *us;
	uint64_t next_id;
};

/* Parts of UP_UNIT, the smallest UP_MIN. */
void up_rig_init(struct up_rig *t);
void up_rig_fini(struct up_rig *t);
/* Another `uploads` over the same rows: as after a crash, or a hand-over. */
void up_rig_again(struct up_rig *t);

/* base: bytes of the version that the storage has of it; 0: there is none. */
void up_open(struct up_file *f, struct up_rig *t, const char *path, uint64_t base);
void up_close(struct up_file *f);
/* The upload is made anew, from rows. */
void up_again(struct up_file *f);
/* The staged file too; there must be no upload in memory. */
void up_reopen(struct up_file *f);
/* Random bytes; waits until they are there. */
void up_write(struct up_file *f, uint64_t off, size_t len, bool ahead);
void up_truncate(struct up_file *f, uint64_t size);
void up_start(struct up_file *f);
/* The end of what up_start() began; 0 or its error. */
int up_wait(struct up_file *f);
int up_run(struct up_file *f);
void up_abort(struct up_file *f);
/* The object at the file's path is what it should be. */
bool up_right(struct up_file *f);
/* Until nothing happens. */
void up_settle(struct up_rig *t);

#endif
