/* SPDX-License-Identifier: BSD-2-Clause */
/* Bytes from file to file within a file:// storage.  In the pool. */
#ifndef UFS_POSIX_COPY_H
#define UFS_POSIX_COPY_H

#include "ufs/posix_priv.h"

/* Copies a piece of [src_off, src_off+left) to `off` of pj->fd, as large as one step
 * should be; *did says how large.  `fresh`: there is nothing in pj->fd behind `off` yet,
 * so that holes may stay holes (the file's size is the caller's business).  -ESTALE: src
 * ends too early. */
int posix_copy_some(struct posix_job *pj, int src, uint64_t src_off, uint64_t off, uint64_t left,
    bool fresh, uint64_t *did);

#endif
