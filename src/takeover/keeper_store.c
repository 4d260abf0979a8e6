/* SPDX-License-Identifier: BSD-2-Clause */
#include "takeover/keeper_store.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* As sd_notify(3) has it: no colon, no control character, not empty. */
static bool store_name_ok(const char *name)
{
	const char *p;

	for (p = name; *p != '\0'; p++)
		if (*p == ':' || (unsigned char)*p < ' ' || (unsigned char)*p >= 0x7f)
			return false;
	return p != name && p - name < STORE_NAME_MAX;
}

static bool store_same_file(int a, int b)
{
	return syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, a, b) == 0;
}

int store_add(struct store *st, const char *name, int fd)
{
	unsigned i;
	int high, err = 0;

	if (!store_name_ok(name))
		err = -EINVAL;
	else if (st->n == STORE_MAX)
		err = -ENOSPC;
	for (i = 0; err == 0 && i < st->n; i++)
		if (strcmp(st->item[i].name, name) == 0 && store_same_file(st->item[i].fd, fd)) {
			close(fd);
			return 0;
		}
	high = err == 0 ? fcntl(fd, F_DUPFD_CLOEXEC, STORE_FD_FLOOR) : -1;
	if (err == 0 && high < 0)
		err = -errno;
	close(fd);
	if (err != 0)
		return err;
	st->item[st->n].fd = high;
	snprintf(st->item[st->n].name, sizeof(st->item[st->n].name), "%s", name);
	st->n++;
	return 0;
}

unsigned store_remove(struct store *st, const char *name)
{
	unsigned i, n = 0;

	for (i = 0; i < st->n; i++) {
		if (strcmp(st->item[i].name, name) == 0)
			close(st->item[i].fd);
		else
			st->item[n++] = st->item[i];
	}
	i = st->n - n;
	st->n = n;
	return i;
}

void store_close(struct store *st)
{
	while (st->n > 0)
		close(st->item[--st->n].fd);
}

char *store_names(const struct store *st, char *buf, size_t len)
{
	size_t used = 0;
	unsigned i;

	buf[0] = '\0';
	for (i = 0; i < st->n && used < len; i++)
		used += (size_t)snprintf(
		    buf + used, len - used, "%s%s", i > 0 ? ":" : "", st->item[i].name);
	return buf;
}
