/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the metadata store adds to a page of a listing: attributes that it keeps for the
 * storage; files that are not persisted, which are entries whatever the storage says; and
 * directories that only those make.
 *
 * It is asked after the storage, so a file that was persisted between the two, here or by
 * another node, is in neither answer.  Where a record says that the storage has what it did
 * not list, the storage is asked once more: the record came after the object, so what is
 * not there now has gone.  (One that was deleted behind our back costs that too.)
 *
 * A page grows by so many such files at most: it then ends with the last of them, and what
 * the storage has behind it is left for the next page.  Loop thread; leaf contract of
 * reactor/task.h.
 */
#ifndef OPS_DIR_RECORDS_H
#define OPS_DIR_RECORDS_H

#include "meta/meta.h"
#include "ops/below.h"
#include "ops/handle.h"
#include "ufs/ufs_page.h"

#define DIR_RECORDS_MAX 1000

struct dir_records {
	/* Errors: -ENOMEM, -EIO (the store does not answer, and there may be such files), those
	 * of ufs_list(). */
	void (*done)(struct dir_records *rc, int err);
	void *user;
	/* private */
	struct fs *fs;
	struct dir_page *pg;
	const char *path;
	bool all;    /* there may be files that are not persisted */
	bool native; /* the storage keeps attributes */
	struct meta_scan scan;
	size_t prefix; /* of the name that the page comes after: so much of it is looked for */
	char first[UFS_NAME_MAX + 1], last[UFS_NAME_MAX + 1];
	struct ufs_page found; /* what the storage did not send */
	struct ufs_page dirs;  /* the same: directories, if there is something below */
	size_t next_dir;
	struct below below;
	char below_path[UFS_PATH_MAX + 1];
	struct ufs_page doubted; /* said to be in the storage, which did not list them */
	struct ufs_list again;
	char again_after[UFS_NAME_MAX + 1];
	bool cut; /* the page ends with this name */
	char cut_name[UFS_NAME_MAX + 1];
};
/* pg, path: stay.  False: there is nothing to ask for. */
bool dir_records_start(struct fs *fs, struct dir_records *rc, struct dir_page *pg,
    const char *path, void (*done)(struct dir_records *rc, int err));
/* Also of one that was never started, and is zeroed; frees what it holds. */
void dir_records_abort(struct dir_records *rc);

#endif
