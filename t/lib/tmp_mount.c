/* SPDX-License-Identifier: BSD-2-Clause */
#include "tmp_mount.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	abort();
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static void clean(const struct tmp_mount *tm)
{
	while (umount2(tm->mnt, MNT_DETACH) == 0)
		;
	rmdir(tm->mnt);
	nftw(tm->src, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	nftw(tm->state, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

void tmp_mount_new(struct tmp_mount *tm)
{
	int fds[2];
	char c;

	strcpy(tm->mnt, "/tmp/batonfs-test-mnt-XXXXXX");
	strcpy(tm->src, "/tmp/batonfs-test-src-XXXXXX");
	strcpy(tm->state, "/dev/shm/batonfs-test-XXXXXX");
	must(mkdtemp(tm->mnt) != NULL && mkdtemp(tm->src) != NULL && mkdtemp(tm->state) != NULL,
	    "mkdtemp");
	must(pipe(fds) == 0, "pipe");
	tm->guard_pid = fork();
	must(tm->guard_pid >= 0, "fork");
	if (tm->guard_pid == 0) {
		dup2(fds[0], 0);
		close_range(1, ~0U, 0);
		while (read(0, &c, 1) > 0)
			;
		clean(tm);
		_exit(0);
	}
	close(fds[0]);
	tm->guard = fds[1];
}

void tmp_mount_free(struct tmp_mount *tm)
{
	close(tm->guard);
	while (waitpid(tm->guard_pid, NULL, 0) < 0)
		;
}

pid_t tmp_mount_client(
    int (*fn)(const struct tmp_mount *tm, void *arg), const struct tmp_mount *tm, void *arg)
{
	pid_t pid = fork();

	must(pid >= 0, "fork");
	if (pid == 0) {
		close_range(3, ~0U, 0);
		_exit(fn(tm, arg));
	}
	return pid;
}
