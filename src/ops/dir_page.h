/* SPDX-License-Identifier: BSD-2-Clause */
/* A directory handle's page, between the storage and the reply. */
#ifndef OPS_DIR_PAGE_H
#define OPS_DIR_PAGE_H

#include "ops/handle.h"

enum dir_mark_as { DIR_MARK_NONE, DIR_MARK_THERE, DIR_MARK_GONE };

/* The storage is asked for the page now: changes of names of `node` are noted. */
void dir_page_asked(struct fs *fs, struct dir_page *pg, uint64_t node);
/* For handle.c. */
void dir_page_free(struct fs *fs, struct dir_page *pg);
/* A name of a directory was changed here (fs_touch). */
void dir_pages_touch(struct fs *fs, uint64_t parent, const char *name);

/* The page has come: puts in what the storage did not send, and marks what was changed.
 * 0 or -ENOMEM. */
int dir_page_settle(struct fs *fs, struct dir_page *pg);
/* What is told of an entry. */
enum dir_told {
	DIR_TOLD_LISTED, /* what the page says */
	DIR_TOLD_NODE,	 /* what its node says, which is n then */
	DIR_TOLD_NAME,	 /* that it is there, no more */
	DIR_TOLD_NOT,	 /* nothing: it went */
};
enum dir_told dir_page_told(
    struct fs *fs, const struct dir_page *pg, size_t i, struct node *n);
/* Is nothing told of all from there to the end? */
bool dir_page_all_gone(struct fs *fs, const struct dir_page *pg, size_t i);

/* The entry of that name and kind, or NULL. */
const struct ufs_entry *dir_page_find(
    const struct dir_page *pg, const char *name, enum ufs_kind kind);
/* Is the place of that name in the page? */
bool dir_page_window(
    const struct dir_page *pg, const char *name, size_t len, enum ufs_kind kind);

#endif
