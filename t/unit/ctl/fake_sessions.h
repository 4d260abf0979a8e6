/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef T_UNIT_CTL_FAKE_SESSIONS_H
#define T_UNIT_CTL_FAKE_SESSIONS_H

#include "fake.h"
#include "ops/session.h"

#define FAKE_SESSIONS 3000

/* The session i is that of the node i + 2 and of the path unsaved/<node>. */
extern struct session fake_session[FAKE_SESSIONS];
extern unsigned fake_nsessions;
extern int fake_upload_err; /* what session_upload() ends with */
extern unsigned fake_aside; /* what staging_status() says; counted: the length of the name */
/* n of them, FAILED; also gives the daemon its fs. */
void fake_sessions(struct loop *lp, unsigned n);

#endif
