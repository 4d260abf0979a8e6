/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Unix sockets with descriptors and peer credentials.
 * Everything is non-blocking and close-on-exec.
 */
#ifndef REACTOR_SOCK_H
#define REACTOR_SOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/errtext.h"

#define SOCK_MAX_FDS 16

/* Creates the directory of path (mode 0700, must be ours or root's and not
 * writable by others), removes a stale socket (one nobody answers on), binds
 * with mode 0600 and listens.  type: SOCK_STREAM or SOCK_SEQPACKET.  A path too
 * long for a socket address is reached through its directory's descriptor.
 * Returns the fd or a negative errno; -EADDRINUSE if somebody answers. */
int sock_listen(const char *path, int type, struct errtext *et);
/* Connected fd or negative errno (-ECONNREFUSED, -ENOENT: nobody there). */
int sock_connect(const char *path, int type);
/* accept4; -EAGAIN if none. */
int sock_accept(int fd);
/* 0 if the peer is root or has our effective uid, else -EPERM. */
int sock_check_peer(int fd, pid_t *pid, uid_t *uid);
/* One message with up to SOCK_MAX_FDS descriptors (ours stay open).
 * Length sent, or negative errno. */
ssize_t sock_send(int fd, const struct iovec *iov, int niov, const int *fds, int nfds);
/* One message; received descriptors go to fds (close-on-exec), their number to
 * *nfds.  0: end of file.  -EMSGSIZE: truncated (descriptors closed). */
ssize_t sock_recv(int fd, void *buf, size_t len, int *fds, int *nfds);

#endif
