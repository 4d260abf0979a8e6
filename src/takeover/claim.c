/* SPDX-License-Identifier: BSD-2-Clause */
#include "takeover/claim.h"

#include <errno.h>
#include <fcntl.h>

static int claim_set(const struct epoch *ep, short type)
{
	struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};

	if (fcntl(ep->fd, F_SETLK, &fl) == 0)
		return 0;
	return errno == EACCES || errno == EAGAIN ? -EBUSY : -errno;
}

int claim_take(const struct epoch *ep)
{
	return claim_set(ep, F_WRLCK);
}

void claim_drop(const struct epoch *ep)
{
	claim_set(ep, F_UNLCK);
}
