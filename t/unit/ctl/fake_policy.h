/* SPDX-License-Identifier: BSD-2-Clause */
/* Path rules: WRITE_BACK for what is below /sub, until others are set.  They are read and
 * set a turn later, or fail with fake_policy_err and words. */
#ifndef T_UNIT_CTL_FAKE_POLICY_H
#define T_UNIT_CTL_FAKE_POLICY_H

#include "ops/policy.h"

extern int fake_policy_err;

void fake_policy_fini(void);

#endif
