/* SPDX-License-Identifier: BSD-2-Clause */
/* 64-bit hashes that are stable across builds and machines (XXH64 by its
 * published definition): st_ino and cache file names are made from them. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t hash64(const void *data, size_t len, uint64_t seed);

#endif
