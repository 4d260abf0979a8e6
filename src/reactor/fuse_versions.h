/* SPDX-License-Identifier: BSD-2-Clause */
/* The libraries in use, for --version and `status`. */
#ifndef REACTOR_FUSE_VERSIONS_H
#define REACTOR_FUSE_VERSIONS_H

#include <stddef.h>

/* "libfuse 3.14.0, libevent 2.1.12-stable, …"; returns buf. */
char *fuse_versions_text(char *buf, size_t len);

#endif
