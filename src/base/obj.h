/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Objects: allocation, magic numbers, taking ownership.
 *
 * Every long-lived struct starts with `uint32_t magic`.  A function that gets
 * one through a void pointer or an embedded member checks it first; a destroyer
 * takes `struct x **` and leaves NULL behind, so that a stale use is a crash at
 * the place of the mistake and not somewhere else later.
 */
#ifndef BASE_OBJ_H
#define BASE_OBJ_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* A zeroed object with its magic set, or NULL (out of memory). */
#define ALLOC_OBJ(to, type_magic)                                                                  \
	do {                                                                                       \
		(to) = calloc(1, sizeof(*(to)));                                                   \
		if ((to) != NULL)                                                                  \
			(to)->magic = (type_magic);                                                \
	} while (0)

/* For objects that their user embeds. */
#define INIT_OBJ(to, type_magic)                                                                   \
	do {                                                                                       \
		memset((to), 0, sizeof(*(to)));                                                    \
		(to)->magic = (type_magic);                                                        \
	} while (0)

#define CHECK_OBJ(ptr, type_magic) assert((ptr) != NULL && (ptr)->magic == (type_magic))

/* Take the object out of *pp: checks it, then leaves NULL in its place. */
#define TAKE_OBJ(to, pp, type_magic)                                                               \
	do {                                                                                       \
		assert((pp) != NULL);                                                              \
		(to) = *(pp);                                                                      \
		*(pp) = NULL;                                                                      \
		CHECK_OBJ((to), (type_magic));                                                     \
	} while (0)

#define FREE_OBJ(ptr)                                                                              \
	do {                                                                                       \
		(ptr)->magic = 0;                                                                  \
		free(ptr);                                                                         \
		(ptr) = NULL;                                                                      \
	} while (0)

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

#endif
