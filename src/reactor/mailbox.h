/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The one door between threads: pool threads and FoundationDB's network thread
 * post, the loop takes.  A locked list and an eventfd.
 */
#ifndef REACTOR_MAILBOX_H
#define REACTOR_MAILBOX_H

#include "base/queue.h"

struct loop;
struct mailbox;

struct mail {
	STAILQ_ENTRY(mail) link;
	void (*fn)(struct mail *m); /* runs on the loop; m may be freed in it */
};

int mailbox_new(struct mailbox **out, struct loop *lp);
/* No poster may be left; what was posted is delivered first.  Not from a mail. */
void mailbox_free(struct mailbox **mb);
/* Any thread.  m belongs to the mailbox until its fn runs. */
void mailbox_post(struct mailbox *mb, struct mail *m);

#endif
