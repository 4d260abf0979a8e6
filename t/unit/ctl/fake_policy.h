/* SPDX-License-Identifier: BSD-2-Clause */
/* Path rules: WRITE_BACK for what is below /sub. */
#ifndef T_UNIT_CTL_FAKE_POLICY_H
#define T_UNIT_CTL_FAKE_POLICY_H

#include "ops/policy.h"

void fake_policy_fini(void);

#endif
