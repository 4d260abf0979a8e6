/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hand-over, new side.  A starting daemon has nothing else to do, so everything
 * up to COMMIT is blocking code with time limits, readable from top to bottom;
 * RESULT messages afterwards come through the loop.
 */
#ifndef TAKEOVER_CLIENT_H
#define TAKEOVER_CLIENT_H

#include "base/errtext.h"

struct daemon;

/* After daemon_prepare().  0: this daemon has the right, its channel is armed.
 * -ENOENT: no live daemon for this mount point.  Others: the old daemon goes on
 * serving, et says why (exit code 5).  One that is starting is waited for; so is, with
 * --takeover=auto, the end of one that is ending, else that is -ESHUTDOWN. */
int takeover_begin(struct daemon *d, struct errtext *et);
/* For who will not take over: waits until a daemon of this mount point that is ending
 * has ended.  0: there is none (any more); -EBUSY: there is one that lives. */
int takeover_outwait(struct daemon *d, struct errtext *et);

#endif
