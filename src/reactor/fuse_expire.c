/* SPDX-License-Identifier: BSD-2-Clause */
/* What the kernel is told without having asked. */
#include <errno.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/uio.h>

#include "base/log.h"
#include "base/obj.h"
#include "reactor/fuse_chan.h"

/* Not by the library: what it sends waits for the database, and this does no harm early.
 * A negative offset means the attributes alone, so that no lock of a page is waited for. */
void fuse_chan_expire(struct fuse_chan *ch, uint64_t node)
{
	struct fuse_notify_inval_inode_out out = {.ino = node, .off = -1};
	struct fuse_out_header head = {
	    .len = sizeof(head) + sizeof(out), .error = FUSE_NOTIFY_INVAL_INODE};
	struct iovec iov[] = {{.iov_base = &head, .iov_len = sizeof(head)},
	    {.iov_base = &out, .iov_len = sizeof(out)}};
	int fd = fuse_chan_fd(ch);

	/* Not known to it, or by now another daemon's to talk to. */
	if (fd < 0 || !fuse_chan_mine(ch) || writev(fd, iov, (int)ARRAY_LEN(iov)) >= 0 ||
	    errno == ENOENT || errno == ENODEV)
		return;
	log_warn("FUSE: attributes of node %llu are not taken back: %s", (unsigned long long)node,
	    strerror(errno));
}
