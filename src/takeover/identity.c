/* SPDX-License-Identifier: BSD-2-Clause */
#include "takeover/identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void identity_keeper(char *buf, size_t len)
{
	const char *sock = getenv("NOTIFY_SOCKET");
	struct stat st;

	buf[0] = '\0';
	if (sock == NULL || sock[0] == '\0')
		return;
	/* Abstract names belong to a network namespace, paths to an inode. */
	if (sock[0] == '@') {
		if (stat("/proc/self/ns/net", &st) == 0)
			snprintf(buf, len, "%s net:%llu", sock, (unsigned long long)st.st_ino);
	} else if (stat(sock, &st) == 0)
		snprintf(buf, len, "inode %llu:%llu", (unsigned long long)st.st_dev,
		    (unsigned long long)st.st_ino);
}

static bool read_cgroup(const char *path, char *buf, size_t len)
{
	FILE *f = fopen(path, "re");
	size_t n;

	if (f == NULL)
		return false;
	n = fread(buf, 1, len - 1, f);
	buf[n] = '\0';
	fclose(f);
	return n > 0;
}

bool identity_foreign_to_unit(pid_t pid)
{
	static const char tail[] = "/systemd/notify";
	const char *sock = getenv("NOTIFY_SOCKET");
	char path[64], ours[4096], theirs[4096];
	size_t n = sock != NULL ? strlen(sock) : 0;

	if (n < sizeof(tail) || strcmp(sock + n - (sizeof(tail) - 1), tail) != 0)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
	return !read_cgroup("/proc/self/cgroup", ours, sizeof(ours)) ||
	       !read_cgroup(path, theirs, sizeof(theirs)) || strcmp(ours, theirs) != 0;
}
