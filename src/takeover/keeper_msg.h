/* SPDX-License-Identifier: BSD-2-Clause */
/* One notification, as sd_notify(3) defines it and with our X_BATONFS_ fields. */
#ifndef TAKEOVER_KEEPER_MSG_H
#define TAKEOVER_KEEPER_MSG_H

#include <stdbool.h>
#include <sys/types.h>

struct keeper_msg {
	bool ready, stopping, watchdog, fdstore, fdremove, waiter, handed_over;
	pid_t mainpid;                              /* 0: not in it */
	const char *fdname, *status, *argv, *limit; /* into the text; NULL: not in it */
};

/* Splits text (changed).  Unknown fields are passed over; of a field that comes
 * twice the last counts. */
void keeper_msg_parse(struct keeper_msg *m, char *text);

#endif
