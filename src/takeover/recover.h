/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A crash is a takeover without the goodbye: a restarted daemon gets the mount's
 * descriptors from its keeper or systemd (notify_listen_fds), replays INIT,
 * raises the epoch, opens the databases, asks the kernel to send unanswered
 * requests again (FUSE_NOTIFY_RESEND) and reads on.
 */
#ifndef TAKEOVER_RECOVER_H
#define TAKEOVER_RECOVER_H

#include "base/errtext.h"

struct daemon;

/* After daemon_prepare().  0: serving.  -ENOENT: no descriptors were passed.
 * -ENOTCONN: they belong to a mount that is gone (they are removed from the
 * store).  -EOPNOTSUPP: the kernel cannot resend; the connection was aborted so
 * that callers get errors instead of waiting for ever. */
int recover_begin(struct daemon *d, struct errtext *et);

#endif
