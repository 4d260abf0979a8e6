/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hand-over, old side: listens beside the control socket and serves one successor
 * at a time (takeover/PROTOCOL says the messages).  Until COMMIT is sent every
 * failure ends with the old daemon serving on; after DONE and the last running
 * read it calls daemon_exit() without unmounting.
 */
#ifndef TAKEOVER_SERVER_H
#define TAKEOVER_SERVER_H

#include <stdbool.h>

#include "base/errtext.h"

struct daemon;
struct takeover_server;

int takeover_server_new(struct takeover_server **out, struct daemon *d, struct errtext *et);
/* Takes a listening socket over instead (the descriptor came in STATE). */
int takeover_server_adopt(struct takeover_server **out, struct daemon *d, int listen_fd);
void takeover_server_free(struct takeover_server **ts);
/* INIT has been answered: successors may come. */
void takeover_server_ready(struct takeover_server *ts);
int takeover_server_fd(const struct takeover_server *ts); /* listening */
/* A successor has been offered the mount: this daemon cannot just end now. */
bool takeover_server_busy(const struct takeover_server *ts);
/* Someone waits for the end: a successor that is not READY yet gets little time. */
void takeover_server_hurry(struct takeover_server *ts);
/* Our own predecessor has ended. */
void takeover_server_link_ended(struct takeover_server *ts);

/* Spawns a successor (vfork and exec; never a fork that goes on): the binary
 * (NULL: the one we were started from, as it is on disk now) with our arguments,
 * then `extra` (NULL-terminated or NULL), then --takeover=require.  The successor
 * then says HELLO by itself.  `done` is called once, on the loop: ok, or what
 * failed; after ok this daemon is about to exit.  check_only: only the HELLO and
 * the checks (`upgrade --check`).  Returns its pid, or negative errno. */
int takeover_spawn(struct takeover_server *ts, const char *binary, const char *const *extra,
    bool check_only, void (*done)(void *arg, int err, const char *words), void *arg,
    struct errtext *et);

#endif
