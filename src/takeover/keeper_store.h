/* SPDX-License-Identifier: BSD-2-Clause */
/* The descriptors that a keeper holds, by name, in the order they came. */
#ifndef TAKEOVER_KEEPER_STORE_H
#define TAKEOVER_KEEPER_STORE_H

#include <stdbool.h>
#include <stddef.h>

#define STORE_MAX 64
#define STORE_NAME_MAX 64
/* Where they lie, so that the first numbers are free for a child's. */
#define STORE_FD_FLOOR 100

struct store {
	unsigned n;
	struct {
		int fd;
		char name[STORE_NAME_MAX];
	} item[STORE_MAX];
};

/* Takes fd over, also on failure.  The same open file under the same name is not
 * kept twice.  0, -EINVAL (the name), -ENOSPC, or another negative errno. */
int store_add(struct store *st, const char *name, int fd);
/* Closes all of that name; returns how many. */
unsigned store_remove(struct store *st, const char *name);
void store_close(struct store *st);
/* "name:name:…" for $LISTEN_FDNAMES; returns buf. */
char *store_names(const struct store *st, char *buf, size_t len);

#endif
