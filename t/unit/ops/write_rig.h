/* SPDX-License-Identifier: BSD-2-Clause */
/* A mount for writing over a scripted storage, which has the files d/small (5 bytes, "sssss")
 * and big; and clients that write. */
#ifndef T_OPS_WRITE_RIG_H
#define T_OPS_WRITE_RIG_H

#include "ops/session.h"
#include "ops_rig.h"

extern struct rig wr;

void wr_begin(void);
void wr_finish(void); /* the suites' .fini */

/* For rig_until(): an upload has failed, and its session stays; the staged file has
 * *(uint64_t *)arg bytes or more. */
bool wr_failed(struct rig *rig, void *arg);
bool wr_so_long(struct rig *rig, void *arg);

/* The object is these bytes. */
bool wr_holds(const char *path, const void *data, size_t len);
int wr_run(rig_client *fn, const char *arg);

/* In a client: 0 if a file of the mount holds this, an errno, or more than WRONG. */
int wr_reads(const struct tmp_mount *tm, const char *name, const char *want);
/* Clients, arg is a name: make it with "0123456789" in one piece, or a byte at a time; make
 * it empty; of "sssss" make "ssXss"; append "tail!"; replace what it holds by "new". */
int wr_c_create(const struct tmp_mount *tm, void *arg);
int wr_c_steps(const struct tmp_mount *tm, void *arg);
int wr_c_touch(const struct tmp_mount *tm, void *arg);
int wr_c_patch(const struct tmp_mount *tm, void *arg);
int wr_c_append(const struct tmp_mount *tm, void *arg);
int wr_c_overwrite(const struct tmp_mount *tm, void *arg);

#endif
