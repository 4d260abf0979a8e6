/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What libfuse has to say goes to our log; or, where a person waits for the reason of a
 * failure (a mount, say), its last line is caught.  Loop thread.
 */
#ifndef REACTOR_FUSE_LOG_H
#define REACTOR_FUSE_LOG_H

#include "base/errtext.h"

void fuse_log_install(void);
/* NULL: to the log again. */
void fuse_log_catch(struct errtext *et);

#endif
