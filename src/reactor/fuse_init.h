/* SPDX-License-Identifier: BSD-2-Clause */
/* What the INIT exchange may agree on.  Private to reactor/fuse*. */
#ifndef REACTOR_FUSE_INIT_H
#define REACTOR_FUSE_INIT_H

#include "base/errtext.h"
#include "reactor/fuse_chan.h"

#define FUSE_INIT_IO_MAX (1u << 20) /* largest read and write: 1 MiB */

/* The proposal for a fresh mount. */
void fuse_init_propose(struct fuse_conn_info *conn);
/* What a recorded reply agreed on, for the session that replays it. */
void fuse_init_restore(struct fuse_conn_info *conn, const struct fuse_chan_init *rec);
/* 0, or -EPROTO with words: the record is damaged, or agrees on something that
 * this build cannot honour. */
int fuse_init_check(const struct fuse_chan_init *rec, struct errtext *et);

/* Bytes of a message. */
static inline ssize_t fuse_iov_len(const struct iovec *iov, int count)
{
	size_t sum = 0;

	for (int i = 0; i < count; i++)
		sum += iov[i].iov_len;
	return (ssize_t)sum;
}

#endif
