/* SPDX-License-Identifier: BSD-2-Clause */
/* What the kernel lets this process's cgroup use.  Reads /proc and /sys: start-up. */
#ifndef BASE_CGROUP_H
#define BASE_CGROUP_H

#include <stdint.h>

#define CGROUP_UNLIMITED UINT64_MAX

/*
 * The smallest memory limit of this process's cgroup and of the cgroups above it,
 * in bytes, of version 2 and of version 1 of the interface (a hybrid host has both).
 * CGROUP_UNLIMITED if there is none or none can be read.  root is put before
 * /proc and /sys: "" for this machine, a directory in tests.
 */
uint64_t cgroup_memory_limit(const char *root);

#endif
