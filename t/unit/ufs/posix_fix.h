/* SPDX-License-Identifier: BSD-2-Clause */
/* file:// on a temporary tree, and its writing requests, each waited for. */
#ifndef T_UNIT_UFS_POSIX_FIX_H
#define T_UNIT_UFS_POSIX_FIX_H

#include "ufs_fix.h"

extern struct ufs_fix pw;
extern char pw_root[64];

void pw_sh(const char *fmt, const char *arg);
void pw_up(void);
void pw_down(void);
const char *pw_in_dir(const char *path);
int pw_put_as(const char *path, const void *body, size_t len, bool absent,
    const char *if_version, const struct ufs_set *set, struct ufs_attr *attr);
int pw_put(const char *path, const char *text, struct ufs_attr *attr);
int pw_begin(const char *path, char *id);
int pw_part(const char *path, const char *id, struct ufs_part_id *out, unsigned number,
    uint64_t off, const void *body, size_t len);
int pw_part_of(const char *path, const char *id, struct ufs_part_id *out, unsigned number,
    uint64_t off, size_t len, const char *src, const char *version, uint64_t src_off);
int pw_end(const char *path, const char *id, const struct ufs_part_id *parts, unsigned n,
    bool absent, const char *if_version, struct ufs_attr *attr);
int pw_drop(const char *path, const char *id);
int pw_copy(const char *src, const struct ufs_attr *a, const char *dst, struct ufs_attr *attr);
int pw_mkdir_as(const char *path, const struct ufs_set *set, struct ufs_attr *attr);
int pw_rmdir_of(const char *path);
int pw_rename_to(const char *src, const char *dst, bool noreplace, struct ufs_attr *attr);
int pw_setattr(const char *path, const struct ufs_set *set, struct ufs_attr *attr);
void pw_delete(const char *const *paths, unsigned n, int *errs);
bool pw_same_attr(const struct ufs_attr *a, const struct ufs_attr *b);
void pw_same_as_stat(const char *path, const struct ufs_attr *attr);
void pw_holds(const char *path, const void *body, size_t len);
unsigned pw_temps(const char *path);
size_t pw_listed(const char *path);
char *pw_bytes(size_t len, unsigned seed);

#endif
