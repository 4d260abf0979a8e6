/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a mount for reading refuses.  Each has an answer of its own: the kernel
 * takes ENOSYS as "never again on this mount", and a successor may know more.
 */
#include <errno.h>

#include "ops/requests.h"

static void denied_setattr(
    fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	(void)ino, (void)attr, (void)to_set, (void)fi;
	fuse_reply_err(req, EROFS);
}

static void denied_mknod(
    fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	(void)parent, (void)name, (void)mode, (void)rdev;
	fuse_reply_err(req, EROFS);
}

static void denied_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	(void)parent, (void)name, (void)mode;
	fuse_reply_err(req, EROFS);
}

static void denied_remove(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)parent, (void)name;
	fuse_reply_err(req, EROFS);
}

static void denied_symlink(fuse_req_t req, const char *to, fuse_ino_t parent, const char *name)
{
	(void)to, (void)parent, (void)name;
	fuse_reply_err(req, EROFS);
}

static void denied_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
    const char *newname, unsigned flags)
{
	(void)parent, (void)name, (void)newparent, (void)newname, (void)flags;
	fuse_reply_err(req, EROFS);
}

static void denied_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	(void)ino, (void)newparent, (void)newname;
	fuse_reply_err(req, EROFS);
}

static void denied_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
    struct fuse_file_info *fi)
{
	(void)ino, (void)buf, (void)size, (void)off, (void)fi;
	fuse_reply_err(req, EROFS);
}

static void denied_create(
    fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	(void)parent, (void)name, (void)mode, (void)fi;
	fuse_reply_err(req, EROFS);
}

static void denied_fallocate(
    fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	(void)ino, (void)mode, (void)off, (void)len, (void)fi;
	fuse_reply_err(req, EROFS);
}

static void denied_copy(fuse_req_t req, fuse_ino_t in, off_t off_in, struct fuse_file_info *fi_in,
    fuse_ino_t out, off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags)
{
	(void)in, (void)off_in, (void)fi_in, (void)out, (void)off_out, (void)fi_out, (void)len;
	(void)flags;
	fuse_reply_err(req, EROFS);
}

static void denied_setxattr(
    fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	(void)ino, (void)name, (void)value, (void)size, (void)flags;
	fuse_reply_err(req, EROFS);
}

static void denied_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	(void)ino, (void)name;
	fuse_reply_err(req, EROFS);
}

static void denied_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	(void)ino, (void)name, (void)size;
	fuse_reply_err(req, ENOTSUP);
}

static void denied_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	(void)ino, (void)size;
	fuse_reply_err(req, ENOTSUP);
}

static void denied_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg,
    struct fuse_file_info *fi, unsigned flags, const void *in, size_t in_size, size_t out_size)
{
	(void)ino, (void)cmd, (void)arg, (void)fi, (void)flags, (void)in, (void)in_size;
	(void)out_size;
	fuse_reply_err(req, ENOTTY);
}

static void denied_readlink(fuse_req_t req, fuse_ino_t ino)
{
	(void)ino;
	fuse_reply_err(req, EINVAL);
}

void denied_fill(struct fuse_lowlevel_ops *ops)
{
	ops->setattr = denied_setattr;
	ops->mknod = denied_mknod;
	ops->mkdir = denied_mkdir;
	ops->unlink = denied_remove;
	ops->rmdir = denied_remove;
	ops->symlink = denied_symlink;
	ops->rename = denied_rename;
	ops->link = denied_link;
	ops->write = denied_write;
	ops->create = denied_create;
	ops->fallocate = denied_fallocate;
	ops->copy_file_range = denied_copy;
	ops->setxattr = denied_setxattr;
	ops->removexattr = denied_removexattr;
	ops->getxattr = denied_getxattr;
	ops->listxattr = denied_listxattr;
	ops->ioctl = denied_ioctl;
	ops->readlink = denied_readlink;
}
