/* SPDX-License-Identifier: BSD-2-Clause */
/* A bucket of its own in a real S3 server, for tests that run only if there is one. */
#ifndef T_UNIT_UFS_RGW_FIX_H
#define T_UNIT_UFS_RGW_FIX_H

#include "ufs_fix.h"

extern struct rgw_fix {
	char bucket[64], uri[96]; /* "s3://BUCKET/top" */
	char dir[64];		  /* a directory for files */
} rgw_fix;

/* Is BATONFS_TEST_S3 set?  Not cr_skip_test(): criterion 2.4 leaks there, and leaks fail
 * sanitizer builds. */
bool rgw_fix_wanted(void);
/* Both do nothing if not. */
void rgw_fix_up(struct ufs_fix *f);
void rgw_fix_down(struct ufs_fix *f);
/* t/lib/s3put.sh VERB A B C; the first NULL ends it. */
void rgw_fix_s3put(const char *verb, const char *a, const char *b, const char *c);
/* A file in the directory; its path until the next call. */
char *rgw_fix_file(const char *name, const void *data, size_t len);

#endif
