/* SPDX-License-Identifier: BSD-2-Clause */
/* The rig with a real metadata store beside it, and all else that writing needs. */
#ifndef T_OPS_META_RIG_H
#define T_OPS_META_RIG_H

#include "meta/meta.h"
#include "ops_rig.h"

struct meta_rig {
	struct meta *meta;
	struct staging *staging;
	struct uploads *uploads;
	char dir[64];
};

void meta_rig_open(struct meta_rig *m, struct rig *r);
void meta_rig_close(struct meta_rig *m, struct rig *r);
/* A new daemon, as rig_restart(): the metadata store stays. */
void meta_rig_restart(struct meta_rig *m, struct rig *r);
/* Serves until *flag. */
void meta_rig_until(struct rig *r, const bool *flag);
void meta_rig_put(struct rig *r, const char *path, const struct meta_record *rec);
/* 0 or -ENOENT. */
int meta_rig_get(struct rig *r, const char *path, struct meta_record *rec);

#endif
