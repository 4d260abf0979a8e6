/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is refused.  Most have an answer of their own: the kernel takes ENOSYS as "never
 * again on this mount", and a successor may know more.  Reading extended attributes is
 * the exception: the kernel asks for one before each write(2), and ls -l for each file,
 * so the answer that it remembers is worth more.
 */
#include <errno.h>
#include <linux/fs.h>

#include "ops/fs_priv.h"
#include "ops/requests.h"

static int refusal(fuse_req_t req, int err)
{
	return fs_of(req)->staging == NULL ? EROFS : err;
}

static void denied_symlink(fuse_req_t req, const char *to, fuse_ino_t parent, const char *name)
{
	(void)to, (void)parent, (void)name;
	fuse_reply_err(req, refusal(req, EOPNOTSUPP));
}

static void denied_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	(void)ino, (void)newparent, (void)newname;
	fuse_reply_err(req, refusal(req, EOPNOTSUPP));
}

/* The kernel then copies by reading and writing. */
static void denied_copy(fuse_req_t req, fuse_ino_t in, off_t off_in, struct fuse_file_info *fi_in,
    fuse_ino_t out, off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags)
{
	(void)in, (void)off_in, (void)fi_in, (void)out, (void)off_out, (void)fi_out, (void)len;
	(void)flags;
	fuse_reply_err(req, refusal(req, EOPNOTSUPP));
}

static void denied_setxattr(
    fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	(void)ino, (void)name, (void)value, (void)size, (void)flags;
	fuse_reply_err(req, refusal(req, ENOTSUP));
}

static void denied_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	(void)ino, (void)name;
	fuse_reply_err(req, refusal(req, ENOTSUP));
}

static void denied_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	(void)ino, (void)name, (void)size;
	fuse_reply_err(req, ENOSYS);
}

static void denied_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	(void)ino, (void)size;
	fuse_reply_err(req, ENOSYS);
}

/* chattr(1) and lsattr(1) ask a file system that has no such flags; other requests are for
 * devices. */
static void denied_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg,
    struct fuse_file_info *fi, unsigned flags, const void *in, size_t in_size, size_t out_size)
{
	(void)ino, (void)arg, (void)fi, (void)flags, (void)in, (void)in_size, (void)out_size;
	switch (cmd) {
	case FS_IOC_GETFLAGS:
	case FS_IOC_SETFLAGS:
	case FS_IOC_FSGETXATTR:
	case FS_IOC_FSSETXATTR:
		fuse_reply_err(req, EOPNOTSUPP);
		break;
	default:
		fuse_reply_err(req, ENOTTY);
	}
}

static void denied_readlink(fuse_req_t req, fuse_ino_t ino)
{
	(void)ino;
	fuse_reply_err(req, EINVAL);
}

void denied_fill(struct fuse_lowlevel_ops *ops)
{
	ops->symlink = denied_symlink;
	ops->link = denied_link;
	ops->copy_file_range = denied_copy;
	ops->setxattr = denied_setxattr;
	ops->removexattr = denied_removexattr;
	ops->getxattr = denied_getxattr;
	ops->listxattr = denied_listxattr;
	ops->ioctl = denied_ioctl;
	ops->readlink = denied_readlink;
}
