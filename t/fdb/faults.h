/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef T_FDB_FAULTS_H
#define T_FDB_FAULTS_H

/*
 * The file "faults" in the server's directory, which says what goes wrong: a line a
 * fault, read again when it has changed (put a new one in its place by rename(2); all
 * counts begin anew).  README describes the lines.  Each fault that is met is noted in
 * the file "fired": its request, what was done, the client's pid.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "wire.h"

struct faults;

enum fault_act {
	FAULT_NONE,
	FAULT_ERROR, /* answer with this error, and do (done) or do not do the work */
	FAULT_HOLD,  /* do not answer while the line stands */
	FAULT_SLOW,  /* do it so many milliseconds later */
	FAULT_DROP,  /* close the connection; done: after the work */
};

struct fault {
	enum fault_act act;
	int error;
	bool done;
	unsigned ms;
};

struct faults *faults_new(int dir);
void faults_free(struct faults **fp);
/* Reads the file if it has changed: true. */
bool faults_changed(struct faults *f);
/* again: a request that was held, and is looked at once more. */
struct fault faults_meet(
    struct faults *f, enum wire_kind kind, pid_t pid, const char *node, bool again);

#endif
