/* SPDX-License-Identifier: BSD-2-Clause */
/* Who keeps us, and where we run: what a hand-over between two containers, or
 * out of a service's control group, must know. */
#ifndef TAKEOVER_IDENTITY_H
#define TAKEOVER_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define IDENTITY_MAX 256

/* Text that is equal for two processes exactly if $NOTIFY_SOCKET reaches the same
 * socket for both, whatever its path in either's mount namespace; "" without. */
void identity_keeper(char *buf, size_t len);
/* We are a systemd service and pid runs in another control group: systemd would
 * not take it for our main process. */
bool identity_foreign_to_unit(pid_t pid);

#endif
