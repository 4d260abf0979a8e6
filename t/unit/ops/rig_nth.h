/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef T_OPS_RIG_NTH_H
#define T_OPS_RIG_NTH_H

#include "ops_rig.h"

/* Runs the client with the first allocation of the daemon's side failing, then with the
 * second, until none is left to fail: each time it gets the right answer, ENOMEM or EIO,
 * and the right answer when it is run again.  How many times. */
unsigned rig_every(struct rig *r, rig_client *fn, void *arg);

#endif
