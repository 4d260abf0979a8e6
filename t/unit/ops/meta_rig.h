/* SPDX-License-Identifier: BSD-2-Clause */
/* Records of the metadata store that a writing rig has. */
#ifndef T_OPS_META_RIG_H
#define T_OPS_META_RIG_H

#include "meta/meta.h"
#include "ops_rig.h"

/* Serves until *flag. */
void meta_rig_until(struct rig *r, const bool *flag);
void meta_rig_put(struct rig *r, const char *path, const struct meta_record *rec);
/* 0 or -ENOENT. */
int meta_rig_get(struct rig *r, const char *path, struct meta_record *rec);

#endif
