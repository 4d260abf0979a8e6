/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Open handles.  The row in the state database says all that a successor needs;
 * the struct in memory is made from it at the first use.  A file handle holds the
 * blob of the version that was opened; a directory handle its place in a listing.
 * A request that the kernel sends again after a crash may open a handle that
 * nobody knows: its row stays until the mount ends, which is harmless.
 */
#ifndef OPS_HANDLE_H
#define OPS_HANDLE_H

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "meta/meta.h"
#include "ops/node.h"

struct op;

struct dir_change;

/* A page of the listing, kept between two READDIRs. */
struct dir_page {
	struct ufs_list list;
	bool valid;	/* list holds what follows the cookie `from` */
	struct op *busy; /* the request that fills it, or NULL */
	uint64_t from;
	uint64_t first; /* cookie of the page's first entry */
	uint64_t next;	/* first cookie not given to an entry yet; 0: not known */
	char after[UFS_NAME_MAX + 1]; /* what the running request continues */
	/* dir_page.c */
	TAILQ_ENTRY(dir_page) link; /* fs->dir_pages */
	bool linked;
	bool again;	      /* what is on its way is of no use: to be asked for again */
	uint64_t node;	      /* the directory */
	uint64_t asked;	      /* fs->changes when the storage was asked */
	bool unpersisted;     /* there may have been files then that were not persisted */
	unsigned char *marks; /* of the entries, if they changed here since; NULL: none did */
	struct dir_change **changed; /* while the page is on its way */
	size_t nchanged, changed_cap;
};

struct handle {
	uint32_t magic;
#define HANDLE_MAGIC 0x4a0d1e01u
	uint64_t id, node;
	enum ufs_kind kind;
	unsigned users; /* running operations */
	bool closed;	/* freed with the last user */
	UT_hash_handle hh;
	/* file */
	bool writes;	   /* open for writing: its node has a session */
	uint64_t seen;	   /* fs->rebinds when `blob` was looked up */
	struct blob *blob; /* NULL while it is not known: a node that a session has */
	struct stream stream;
	struct blob *old; /* which reads that run and the stream still have: then reads of
			   * `blob` have none */
	/* file.c: the last read that failed after a long wait for the storage */
	struct {
		uint64_t from, to; /* bytes */
		uint64_t until;	   /* loop time */
		int err;
	} failed;
	/* directory */
	struct dir_page page;
};

/* A new handle on the node, written to the state database. */
int handle_open(struct fs *fs, const struct node *n, const char *path, struct handle **out);
/* The same for writing. */
int handle_open_writing(
    struct fs *fs, const struct node *n, const char *path, struct handle **out);
/* Before a read that no session serves: h->blob is that of the node's version and path
 * as they are now, which a change made here may have moved.  0 or negative errno. */
int handle_refresh(struct fs *fs, struct handle *h);
/* The handle of that number: 0, -EBADF (none, or of the other kind), -ENOMEM or
 * the database's error. */
int handle_get(struct fs *fs, uint64_t id, enum ufs_kind kind, struct handle **out);
void handle_use(struct handle *h);
void handle_unuse(struct fs *fs, struct handle *h);
/* What the row says, without a struct in memory: 0, -EBADF or the database's error. */
struct handle_info {
	uint64_t node;
	enum ufs_kind kind;
	bool writes;
};
int handle_info(struct fs *fs, uint64_t id, struct handle_info *out);
/* RELEASE, RELEASEDIR: the row goes, the struct with its last user. */
int handle_release(struct fs *fs, uint64_t id, enum ufs_kind kind);
/* Ends those in memory whose rows were lost: nobody was told their numbers. */
int handle_check_all(struct fs *fs);
/* Frees what is in memory; rows stay. */
void handle_forget_all(struct fs *fs);

/* dir_cookies.c: which entry a directory cookie stands for.  One row a reply:
 * the names and kinds it returned, the first of them with the cookie `first`. */
struct cookie_row {
	unsigned char *buf;
	size_t len, cap;
	uint64_t first;
	unsigned count;
};
int cookie_row_add(struct cookie_row *row, const char *name, size_t len, enum ufs_kind kind);
int cookie_row_store(struct fs *fs, uint64_t fh, const struct cookie_row *row);
void cookie_row_fini(struct cookie_row *row);
/* The entry with that cookie; -ENOENT if it was never given out. */
int cookie_find(struct fs *fs, uint64_t fh, uint64_t cookie, char name[UFS_NAME_MAX + 1],
    enum ufs_kind *kind);
/* The number after the last that the handle's rows have, at least `least`. */
int cookie_next(struct fs *fs, uint64_t fh, uint64_t least, uint64_t *next);
/* Deletes the handle's rows. */
int cookie_drop(struct fs *fs, uint64_t fh);

#endif
