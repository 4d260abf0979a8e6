/* SPDX-License-Identifier: BSD-2-Clause */
/* The entry points of the families of requests, for the table in fs.c. */
#ifndef OPS_REQUESTS_H
#define OPS_REQUESTS_H

#include "reactor/fuse_chan.h"
#include "reactor/task.h"

struct fs;
struct op;

/* lookup.c */
void lookup_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
/* FORGETs that one commit of the state database takes. */
#define FORGETS_A_COMMIT 4096
void lookup_forget_one(struct fs *fs, fuse_ino_t ino, uint64_t n);
void lookup_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n);
void lookup_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void lookup_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void lookup_statfs(fuse_req_t req, fuse_ino_t ino);

/* open.c */
void open_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

/* file.c */
void file_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void file_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void file_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
/* What file_read() keeps ready in fs->spare_read. */
void file_spare_free(struct fs *fs);

/* dir.c */
void dir_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void dir_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
    struct fuse_file_info *fi);
void dir_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
    struct fuse_file_info *fi);
void dir_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

/* create.c */
void create_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
    struct fuse_file_info *fi);
void create_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);

/* write.c */
void write_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
    struct fuse_file_info *fi);
void write_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
    struct fuse_file_info *fi);
void write_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void write_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void write_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
/* SETATTR with FUSE_SET_ATTR_SIZE goes there first. */
void write_truncate(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
    struct fuse_file_info *fi);

/* setattr.c */
void setattr_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
    struct fuse_file_info *fi);
/* For write_truncate(), once the size is set: does the rest of what the request asks for
 * (which may be nothing) and answers it; `op` has no request any more, and its task ends. */
enum task_next setattr_rest(struct op *op, uint64_t ino, const struct stat *attr, int to_set);

/* mkdir.c */
void mkdir_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);

/* remove.c */
void remove_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void remove_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);

/* rename.c */
void rename_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
    const char *newname, unsigned flags);

/* denied.c: fills in everything that is refused. */
void denied_fill(struct fuse_lowlevel_ops *ops);

#endif
