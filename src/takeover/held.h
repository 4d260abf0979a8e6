/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests handed over raw: a sealed memfd with a header {magic, count} and then,
 * for each request, its length and its bytes as the kernel sent them, in order.
 * Being sealed it cannot change or shrink under its reader.
 */
#ifndef TAKEOVER_HELD_H
#define TAKEOVER_HELD_H

#include <stdint.h>

#include "ops/fs.h"

/* No request is longer than the kernel's largest WRITE with its head. */
#define HELD_REQ_MAX (1024u * 1024u + 65536u)

/* The list stays the caller's.  A descriptor or negative errno. */
int held_encode(const struct held_list *list, uint32_t *count);
/* Appends to the list: 0; -EBADMSG (nothing appended) if it is not such a file, not
 * sealed, or its parts do not add up; -ENOMEM.  fd stays the caller's. */
int held_decode(int fd, struct held_list *list, uint32_t *count);
void held_free(struct held_list *list);

#endif
