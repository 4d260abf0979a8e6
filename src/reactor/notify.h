/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The service manager's side door, as systemd defines it (sd_notify(3),
 * sd_listen_fds(3)): batonfs-keeper speaks the same, so the daemon knows one.
 */
#ifndef REACTOR_NOTIFY_H
#define REACTOR_NOTIFY_H

#include <stdbool.h>

/* How long notify_send() waits for a manager whose queue is full. */
#define NOTIFY_WAIT_MS 100

/* Sends a message of "NAME=value\n" lines to $NOTIFY_SOCKET ("/path" or "@abstract"),
 * with descriptors.  0, -ENOTCONN if nobody listens (the variable is not set), or
 * negative errno; -EAGAIN: the manager's queue stayed full for NOTIFY_WAIT_MS. */
int notify_send(const char *message, const int *fds, int nfds);
/* The same without waiting and without descriptors, for what is said again anyway. */
int notify_try(const char *message);
bool notify_available(void);

struct notify_fd {
	int fd;
	char name[64];
};

/* Takes the descriptors of $LISTEN_FDS (only if $LISTEN_PID is us or unset),
 * makes them close-on-exec, clears the variables.  Returns how many were stored
 * in out (at most max; further ones are closed), or negative errno: -EBADF if one
 * of them is not open, -EINVAL if the variable is no number. */
int notify_listen_fds(struct notify_fd *out, int max);

#endif
