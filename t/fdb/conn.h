/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef T_FDB_CONN_H
#define T_FDB_CONN_H

/* The databases' connections, as the loop of the network thread sees them. */

#include <poll.h>

/* Connects what is to be; milliseconds until it should be tried again, -1: no need. */
int64_t conn_connect(void);
/* An array for poll(), the caller's to free; its first entry is left for the caller. */
nfds_t conn_poll(struct pollfd **fds);
void conn_serve(const struct pollfd *fds);

#endif
