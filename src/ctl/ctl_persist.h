/* SPDX-License-Identifier: BSD-2-Clause */
/* What is not in the storage yet, for other commands. */
#ifndef CTL_CTL_PERSIST_H
#define CTL_CTL_PERSIST_H

#include <stdint.h>

struct daemon;

struct ctl_unpersisted {
	uint64_t open;		    /* files that are open for writing */
	uint64_t files, failed, bytes; /* not in the storage as they are here; of those, given up */
	/* namespace paths of one of them, and of one that failed; "" if there is none */
	char first[1040], first_failed[1040];
};
/* The persistence state of a file, by its namespace path. */
const char *ctl_persistence(struct daemon *d, const char *nspath);
void ctl_unpersisted(struct daemon *d, struct ctl_unpersisted *out);

#endif
