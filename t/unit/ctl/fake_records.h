/* SPDX-License-Identifier: BSD-2-Clause */
/* A metadata store made of nothing: records of files under a policy. */
#ifndef T_UNIT_CTL_FAKE_RECORDS_H
#define T_UNIT_CTL_FAKE_RECORDS_H

#include "fake.h"
#include "meta/meta.h"

#define FAKE_RECORDS 3000

struct fake_record {
	char path[64]; /* "": none */
	struct meta_record rec;
};
/* By path, in the order of its bytes; the queue has them in this order too. */
extern struct fake_record fake_record[FAKE_RECORDS];
extern int fake_queue_err;	 /* what meta_queue() ends with */
extern int fake_act_err;	 /* what persist_act() ends with */
extern unsigned fake_acts, fake_pages; /* calls of it; pages of the queue */
extern char fake_setting[32];		 /* what is being imported */
extern unsigned fake_puts, fake_intents; /* records that were put; intents that there are */

extern struct persist_watch *fake_watch; /* of the list that runs, or NULL */

/* n of them in `dir` ("" or "sub/"), NOT_PERSISTED; the daemon has a metadata store. */
void fake_records(const char *dir, unsigned n);

#endif
