/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control socket: one JSON object a line each way.  Request:
 *	{"command": "status", "args": {...}}
 * Answer: any number of {"progress": {...}} lines, then exactly one of
 *	{"result": {...}}   or   {"error": {"code": "ENOENT", "message": "..."}}
 * Only root and the daemon's user may connect (peer credentials).  ctl_commands.c
 * has the table of commands; each is a function or a task.
 */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include "base/errtext.h"

struct ctl;
struct daemon;

int ctl_new(struct ctl **out, struct daemon *d, struct errtext *et);
/* Takes a listening socket over (a takeover passes it on, so that clients that
 * connect meanwhile wait and are not refused). */
int ctl_adopt(struct ctl **out, struct daemon *d, int listen_fd);
int ctl_listen_fd(const struct ctl *c);
/* Stops accepting (hand-over); connections with a command running stay. */
void ctl_pause(struct ctl *c);
void ctl_resume(struct ctl *c);
void ctl_free(struct ctl **c);

#endif
