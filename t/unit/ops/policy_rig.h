/* SPDX-License-Identifier: BSD-2-Clause */
/* A mount with the write cache on, where nothing is persisted before persist_resume(). */
#ifndef T_OPS_POLICY_RIG_H
#define T_OPS_POLICY_RIG_H

#include "meta/meta.h"
#include "ops_rig.h"

/* Directories p, with p/foreign in it, and n.  All of /p has the policy, the rest is not
 * cached.  native: the storage keeps attributes and renames. */
void policy_rig_begin(struct rig *r, const char *mode, bool native);
void policy_rig_mode(struct rig *r, const char *mode);
void policy_rig_rules(struct rig *r, const char *json);
/* Files of that state. */
uint64_t policy_rig_tally(struct rig *r, enum meta_state state);
/* For rig_until(): no session is left; and nothing waits to be persisted. */
bool policy_rig_quiet(struct rig *r, void *arg);
bool policy_rig_persisted(struct rig *r, void *arg);
/* Makes a file of so many bytes, "abc...z" again and again. */
int policy_rig_put(const char *path, size_t len);

#endif
