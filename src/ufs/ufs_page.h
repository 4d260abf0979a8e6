/* SPDX-License-Identifier: BSD-2-Clause */
/* One page of directory entries while it is built, and the order of keys. */
#ifndef UFS_UFS_PAGE_H
#define UFS_UFS_PAGE_H

#include "ufs/ufs.h"

/* What ufs_list.cursor points to: the implementation's struct begins with it. */
struct ufs_cursor {
	void (*free)(struct ufs_cursor *c);
};

struct ufs_page_block;

/* Zeroed is empty. */
struct ufs_page {
	struct ufs_entry *entries;
	size_t count, room;
	struct ufs_page_block *blocks; /* memory of the names */
};

/* Copies the name; attr may be NULL (zeroes).  0 or -ENOMEM. */
int ufs_page_add(struct ufs_page *pg, const char *name, size_t len, const struct ufs_attr *attr);
/* Key order; equal (name, kind) pairs are left once. */
void ufs_page_sort(struct ufs_page *pg);
void ufs_page_remove(struct ufs_page *pg, size_t i);
/* The entry of a sorted page, or NULL. */
const struct ufs_entry *ufs_page_find(const struct ufs_page *pg, const char *name, size_t len,
    enum ufs_kind kind);
void ufs_page_clear(struct ufs_page *pg);

/* Moves the page into the request / frees what a request holds. */
void ufs_page_give(struct ufs_page *pg, struct ufs_list *rq);
void ufs_page_free(struct ufs_list *rq);

/* Order of the keys: bytes, with a directory `a` as "a/". */
int ufs_key_cmp(const char *a, size_t alen, enum ufs_kind akind, const char *b, size_t blen,
    enum ufs_kind bkind);

#endif
