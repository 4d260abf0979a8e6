/* SPDX-License-Identifier: BSD-2-Clause */
/* The entry points of the families of requests, for the table in fs.c. */
#ifndef OPS_REQUESTS_H
#define OPS_REQUESTS_H

#include "reactor/fuse_chan.h"

struct fs;

/* lookup.c */
void lookup_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void lookup_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n);
void lookup_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void lookup_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void lookup_statfs(fuse_req_t req, fuse_ino_t ino);

/* file.c */
void file_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void file_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void file_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void file_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void file_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
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

/* denied.c: fills in everything that a mount for reading refuses. */
void denied_fill(struct fuse_lowlevel_ops *ops);

#endif
