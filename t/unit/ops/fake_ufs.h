/* SPDX-License-Identifier: BSD-2-Clause */
/* A storage that does what the test says: a table of files, answers on demand. */
#ifndef T_OPS_FAKE_UFS_H
#define T_OPS_FAKE_UFS_H

#include "ufs/ufs_priv.h"

#define FAKE_FILES 600

struct fake_file {
	char path[80]; /* "" ends the table's use of this row */
	enum ufs_kind kind;
	uint64_t size;
	char version[16]; /* its first byte is what the file is full of */
};

struct fake_ufs {
	struct ufs ufs;
	struct fake_file file[FAKE_FILES];
	unsigned nfiles;
	unsigned page;	/* entries a listing page */
	bool empty_first; /* the next listing begins with an empty page and `more` */
	int err;	/* what requests end with; 0: the truth */
	bool stall;	/* requests wait for fake_release() */
	unsigned stats, lists, reads;
	TAILQ_HEAD(fake_calls, fake_call) waiting;
};

void fake_init(struct fake_ufs *f, struct loop *lp);
void fake_fini(struct fake_ufs *f);
struct fake_file *fake_add(struct fake_ufs *f, const char *path, enum ufs_kind kind, uint64_t size,
    const char *version);
struct fake_file *fake_find(struct fake_ufs *f, const char *path);
unsigned fake_waiting(const struct fake_ufs *f);
/* Answers what waits, and everything later at once. */
void fake_release(struct fake_ufs *f);

#endif
