/* SPDX-License-Identifier: BSD-2-Clause */
/* A scripted server, and the storage s3://b/p in it. */
#ifndef T_UNIT_UFS_S3_RIG_H
#define T_UNIT_UFS_S3_RIG_H

#include "../../lib/http_script.h"
#include "ufs_fix.h"

#define S3R_DATE "Last-Modified: Thu, 02 Jan 2020 03:04:05 GMT\r\n"

extern struct s3_rig {
	struct http_script *hs;
	struct ufs_fix f;
} s3r;

/* Of a suite: .init and .fini. */
void s3r_up(void);
void s3r_down(void);
/* http_script_reply() with a body that is a string. */
void s3r_reply(
    const char *match, int status, const char *headers, const char *body, unsigned times);
/* An error as the storage words it; until the next call. */
const char *s3r_error_doc(const char *code);
/* Of the i-th request; NULL if it has none; until the next call. */
const char *s3r_header(unsigned i, const char *name);

#endif
