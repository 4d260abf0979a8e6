/* SPDX-License-Identifier: BSD-2-Clause */
/* What `fs ls` and `fs stat` share: paths, and one entry as JSON. */
#ifndef CTL_CTL_FS_H
#define CTL_CTL_FS_H

#include "base/json.h"
#include "meta/meta.h"
#include "ufs/ufs.h"

struct blob;
struct ctl_cmd;
struct daemon;

/* The namespace path of the command in its plain form: one slash between names,
 * none at the end but for "/".  NULL: the command was failed. */
char *ctl_fs_path(struct ctl_cmd *cmd);

/* The same of any text that begins with a slash; NULL: out of memory. */
char *ctl_fs_plain(const char *given);

struct ctl_fs_entry {
	const char *nspath;	/* namespace path, for people */
	struct ufs *ufs;
	const char *path;	/* in ufs */
	const struct ufs_attr *attr;
	const struct blob *blob; /* NULL: a directory, or not known */
	const struct meta_record *rec; /* what the metadata store has of it, or NULL */
};

/* Is the record all there is of the file?  Then its attributes are these. */
bool ctl_fs_unpersisted(const struct meta_record *rec);
void ctl_fs_record_attr(const struct daemon *d, const struct meta_record *rec,
    struct ufs_attr *attr);

/* The blob of a file, to be put by the caller; NULL for a directory, or without
 * memory.  cache_when_loaded() says when its figure is right. */
struct blob *ctl_fs_blob(struct daemon *d, const struct ctl_fs_entry *e);

/* The members of a row into the open object. */
void ctl_fs_put_entry(struct json_out *o, struct daemon *d, const struct ctl_fs_entry *e);
/* Ends the command: "/nope: No such file or directory". */
void ctl_fs_fail(struct ctl_cmd *cmd, int err, const char *nspath);

#endif
