/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Named points for tests: BATONFS_FAULT="takeover.new.ready=kill,ufs.read=errno:5@3"
 * makes the daemon die, stop, wait or see an error when it comes by a point
 * (the third time, with @3).  Actions: kill (SIGKILL to itself), stop (SIGSTOP),
 * exit, errno:N, sleep:DURATION, until:PATH (waits for the file PATH, having made
 * PATH.here).  Without the variable a point costs one load
 * and a branch; the variable is read once, at fault_init().  Daemon and
 * keeper honour it, each for the points that it has.
 */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#include <stdbool.h>

struct errtext;

extern bool fault_armed;

int fault_init(const char *spec, struct errtext *et);
/* 0, or the negative errno that the point shall see. */
int fault_hit(const char *point);

#define FAULT(point) (__builtin_expect(fault_armed, 0) ? fault_hit(point) : 0)

#endif
