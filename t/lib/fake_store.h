/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a storage has, in memory: objects and uploads, and what each request of
 * ufs/ufs.h does to them.  The fake storages of the units say when a request takes
 * effect and is answered; here is only what it does.
 *
 * Nothing is taken from malloc(), so that tests can fail the allocations of the code
 * under test.  Misuse (a part of the wrong length, a full table) aborts the test.
 */
#ifndef T_LIB_FAKE_STORE_H
#define T_LIB_FAKE_STORE_H

#include "ufs/ufs.h"

#define FAKE_FILES 600
#define FAKE_UPLOADS 64
#define FAKE_PARTS 128 /* of one upload */
#define FAKE_PATH 512

enum fake_op {
	FAKE_STAT,
	FAKE_LIST,
	FAKE_READ,
	FAKE_PUT,
	FAKE_MULTI_BEGIN,
	FAKE_PART,
	FAKE_MULTI_END,
	FAKE_MULTI_ABORT,
	FAKE_MULTI_SWEEP,
	FAKE_COPY,
	FAKE_DELETE,
	FAKE_MKDIR,
	FAKE_RMDIR,
	FAKE_RENAME,
	FAKE_SETATTR,
	FAKE_OPS
};

struct fake_file {
	char path[FAKE_PATH];
	enum ufs_kind kind;
	uint64_t size;
	char version[32];
	/* The content: the bytes, or NULL: made up of `seed`, or of the version if "". */
	unsigned char *data;
	char seed[32];
	uint32_t mode, uid, gid;
	struct timespec mtime;
	uint64_t file; /* of the request that made it */
};

struct fake_part {
	unsigned number; /* 0: none */
	uint64_t off;
	size_t len;
	char etag[32];
	unsigned char *data;
	bool copied; /* within the storage */
	struct ufs_sum sum;
};

struct fake_upload {
	char id[32]; /* "": none */
	char path[FAKE_PATH];
	bool sums;
	uint64_t file;
	struct fake_part part[FAKE_PARTS];
};

/* The nth request of a kind from now on, and the times-1 after it, end with err. */
struct fake_fault {
	enum fake_op op;
	unsigned nth, times; /* times 0: the row is free */
	int err;
	bool effect; /* it takes effect all the same */
};

struct fake_store {
	/* For the test to set. */
	unsigned can;	   /* UFS_CAN_*; like S3 at first: UFS_CAN_ABSENT */
	uint64_t part_min; /* of all parts but the last; UFS_PART_MIN at first */
	bool no_sums;	   /* it does not know checksums */
	bool unmarked;	   /* it does not know which file an object was made for */
	bool strict;	   /* a version that was never there is -ESTALE, not made up */
	uint64_t copy_max; /* what is larger is copied in parts; 0: nothing */
	void (*made_up)(const char *version, uint64_t off, unsigned char *buf, size_t len);
	/* For the test to look at. */
	unsigned count[FAKE_OPS];     /* requests that took effect or failed, aborted ones not */
	uint64_t put_bytes, part_bytes; /* that came from the client */
	uint64_t copied_bytes;	      /* within the storage */
	unsigned sums;		      /* bodies that came with one, and it was right */

	struct fake_file file[FAKE_FILES];
	unsigned nfiles;
	struct fake_upload upload[FAKE_UPLOADS];
	struct fake_fault fault[8];
	unsigned serial; /* of versions, uploads and times */
};

void fake_store_init(struct fake_store *st);
void fake_store_fini(struct fake_store *st);

/* Made-up content, if data is NULL. */
struct fake_file *fake_store_add(struct fake_store *st, const char *path, enum ufs_kind kind,
    uint64_t size, const char *version, const void *data);
/* The row of a path (the directory's, if there are both), or NULL. */
struct fake_file *fake_store_find(struct fake_store *st, const char *path);
void fake_store_remove(struct fake_store *st, struct fake_file *ff);
/* Is there anything below a directory? */
bool fake_store_below(const struct fake_store *st, const char *dir);
void fake_store_attr(const struct fake_store *st, const struct fake_file *ff, struct ufs_attr *a);
/* Bytes of the version at path; -ESTALE. */
int fake_store_bytes(struct fake_store *st, const char *path, const char *version, uint64_t off,
    void *buf, size_t len);
/* Uploads begun and not ended. */
unsigned fake_store_uploads(const struct fake_store *st);

/* Scripts a failure.  Several may be waiting. */
void fake_store_fail(
    struct fake_store *st, enum fake_op op, unsigned nth, unsigned times, int err, bool effect);

/* What a request does, and its end: all but FAKE_LIST and FAKE_READ, which are only
 * counted here and have their scripted failures. */
int fake_store_do(struct fake_store *st, enum fake_op op, struct ufs_req *rq);
#define FAKE_BEGUN 1 /* FAKE_COPY in parts has an upload now: it is done another time */

#endif
