/* SPDX-License-Identifier: BSD-2-Clause */
/* The mount point, as opposed to the session: its device, its end. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "reactor/fuse_chan.h"

extern char **environ;

/* Turns the octal escapes of mountinfo (\040 and such) back, in place. */
static void unescape(char *s)
{
	char *to = s;

	while (*s != '\0') {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
		    s[3] >= '0' && s[3] <= '7') {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

/* The device of the topmost mount there. */
static int find_device(const char *mountpoint, unsigned *major, unsigned *minor)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *where;
	size_t cap = 0;
	unsigned maj, min;
	int begin, end, err = -ENOENT;

	if (f == NULL)
		return -errno;
	while (getline(&line, &cap, f) > 0) {
		begin = end = 0;
		if (sscanf(line, "%*u %*u %u:%u %*s %n%*s%n", &maj, &min, &begin, &end) != 2 ||
		    end == 0)
			continue;
		where = line + begin;
		line[end] = '\0';
		unescape(where);
		if (strcmp(where, mountpoint) == 0) {
			*major = maj;
			*minor = min;
			err = 0;
		}
	}
	free(line);
	fclose(f);
	return err;
}

int fuse_chan_set_readahead_kb(struct fuse_chan *ch, const char *mountpoint, unsigned kb)
{
	char path[80], text[16];
	unsigned major = 0, minor = 0;
	int fd, len, err;

	(void)ch;
	err = find_device(mountpoint, &major, &minor);
	if (err != 0)
		return err;
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major, minor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	len = snprintf(text, sizeof(text), "%u\n", kb);
	err = write(fd, text, (size_t)len) == len ? 0 : -errno;
	close(fd);
	return err;
}

static int run_fusermount(const char *mountpoint, bool lazy)
{
	char *argv[6];
	int n = 0, status;
	pid_t pid;

	argv[n++] = (char *)"fusermount3";
	argv[n++] = (char *)"-u";
	if (lazy)
		argv[n++] = (char *)"-z";
	argv[n++] = (char *)"--";
	argv[n++] = (char *)mountpoint;
	argv[n] = NULL;
	status = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
	if (status != 0)
		return -status;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

bool fuse_chan_fd_gone(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLERR | POLLNVAL)) != 0;
}

int fuse_chan_unmount(const char *mountpoint, bool lazy)
{
	if (umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return 0;
	if (errno != EPERM)
		return -errno;
	return run_fusermount(mountpoint, lazy);
}
