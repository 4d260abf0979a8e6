/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "reactor/notify.h"
#include "reactor/sock.h"

TestSuite(notify);

/* A manager's socket under name ("@..." is abstract); $NOTIFY_SOCKET is set. */
static int manager(const char *name)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	size_t len = offsetof(struct sockaddr_un, sun_path) + strlen(name);

	strcpy(sun.sun_path, name);
	if (name[0] == '@')
		sun.sun_path[0] = '\0';
	else
		len++;
	cr_assert_eq(bind(fd, (struct sockaddr *)&sun, (socklen_t)len), 0);
	setenv("NOTIFY_SOCKET", name, 1);
	return fd;
}

static void check_delivery(int fd)
{
	int p[2], fds[SOCK_MAX_FDS], nfds;
	char buf[64];

	cr_assert_eq(pipe(p), 0);
	cr_assert(notify_available());
	cr_assert_eq(notify_send("READY=1\n", NULL, 0), 0);
	cr_assert_eq(sock_recv(fd, buf, sizeof(buf), fds, &nfds), 8);
	cr_assert_eq(memcmp(buf, "READY=1\n", 8), 0);
	cr_assert_eq(nfds, 0);
	cr_assert_eq(notify_send("FDSTORE=1\nFDNAME=a\n", p, 2), 0);
	cr_assert_eq(sock_recv(fd, buf, sizeof(buf), fds, &nfds), 19);
	cr_assert_eq(nfds, 2);
	cr_assert_eq(write(fds[1], "x", 1), 1);
	cr_assert_eq(read(p[0], buf, 1), 1);
}

Test(notify, path_and_abstract)
{
	char name[64];
	int fd;

	snprintf(name, sizeof(name), "/tmp/batonfs-notify-%d", (int)getpid());
	fd = manager(name);
	check_delivery(fd);
	close(fd);
	cr_assert_eq(notify_send("READY=1\n", NULL, 0), -ECONNREFUSED);
	unlink(name);
	cr_assert_eq(notify_send("READY=1\n", NULL, 0), -ENOENT);
	snprintf(name, sizeof(name), "@batonfs-notify-%d", (int)getpid());
	fd = manager(name);
	check_delivery(fd);
	close(fd);
}

Test(notify, nobody)
{
	char longname[200];

	unsetenv("NOTIFY_SOCKET");
	cr_assert_not(notify_available());
	cr_assert_eq(notify_send("READY=1\n", NULL, 0), -ENOTCONN);
	setenv("NOTIFY_SOCKET", "", 1);
	cr_assert_not(notify_available());
	setenv("NOTIFY_SOCKET", "vsock:1:2", 1);
	cr_assert_eq(notify_send("READY=1\n", NULL, 0), -EAFNOSUPPORT);
	memset(longname, 'x', sizeof(longname));
	longname[0] = '/';
	longname[sizeof(longname) - 1] = '\0';
	setenv("NOTIFY_SOCKET", longname, 1);
	cr_assert_eq(notify_send("READY=1\n", NULL, 0), -ENAMETOOLONG);
}

Test(notify, full_queue_ends)
{
	struct timespec before, after;
	char name[64];
	int fd, rc = 0;

	snprintf(name, sizeof(name), "@batonfs-notify-full-%d", (int)getpid());
	fd = manager(name);
	for (int i = 0; i < 100000 && rc == 0; i++)
		rc = notify_send("WATCHDOG=1\n", NULL, 0);
	cr_assert_eq(rc, -EAGAIN);
	/* Without waiting: a hundred take less than half of what their waits would. */
	clock_gettime(CLOCK_MONOTONIC, &before);
	for (int i = 0; i < 100; i++)
		cr_assert_eq(notify_try("WATCHDOG=1\n"), -EAGAIN);
	clock_gettime(CLOCK_MONOTONIC, &after);
	cr_assert_lt((after.tv_sec - before.tv_sec) * 1000 +
			 (after.tv_nsec - before.tv_nsec) / 1000000,
	    100 * NOTIFY_WAIT_MS / 2);
	close(fd);
}

/* Descriptors from 3 on are the framework's here: a child has them to itself. */
static int in_child(int (*fn)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		for (int fd = 3; fd < 16; fd++)
			close(fd);
		for (int fd = 3; fd < 6; fd++)
			if (dup2(0, fd) != fd)
				_exit(100);
		setenv("LISTEN_FDS", "3", 1);
		setenv("LISTEN_FDNAMES", "fuse:epoch", 1);
		unsetenv("LISTEN_PID");
		_exit(fn());
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int variables_left(void)
{
	return getenv("LISTEN_FDS") != NULL || getenv("LISTEN_PID") != NULL ||
	       getenv("LISTEN_FDNAMES") != NULL;
}

static int child_takes(void)
{
	struct notify_fd f[8];

	if (notify_listen_fds(f, 8) != 3)
		return 1;
	if (f[0].fd != 3 || f[1].fd != 4 || f[2].fd != 5)
		return 2;
	if (strcmp(f[0].name, "fuse") != 0 || strcmp(f[1].name, "epoch") != 0 ||
	    strcmp(f[2].name, "unknown") != 0)
		return 3;
	for (int i = 0; i < 3; i++)
		if ((fcntl(f[i].fd, F_GETFD) & FD_CLOEXEC) == 0)
			return 4;
	if (variables_left())
		return 5;
	return notify_listen_fds(f, 8) != 0 ? 6 : 0;
}

static int child_closes_excess(void)
{
	struct notify_fd f[2];

	if (notify_listen_fds(f, 2) != 2)
		return 1;
	return fcntl(5, F_GETFD) != -1 ? 2 : 0;
}

static int child_pid(void)
{
	struct notify_fd f[8];
	char pid[32];

	setenv("LISTEN_PID", "1", 1);
	if (notify_listen_fds(f, 8) != 0 || variables_left())
		return 1;
	if ((fcntl(3, F_GETFD) & FD_CLOEXEC) != 0)
		return 2;
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "3", 1);
	return notify_listen_fds(f, 8) == 3 ? 0 : 3;
}

static int child_wrong(void)
{
	struct notify_fd f[8];

	setenv("LISTEN_FDS", "9", 1);
	if (notify_listen_fds(f, 8) != -EBADF)
		return 1;
	setenv("LISTEN_FDS", "many", 1);
	if (notify_listen_fds(f, 8) != -EINVAL || variables_left())
		return 2;
	setenv("LISTEN_FDS", "-1", 1);
	return notify_listen_fds(f, 8) == -EINVAL ? 0 : 3;
}

Test(notify, listen_fds)
{
	cr_assert_eq(in_child(child_takes), 0);
	cr_assert_eq(in_child(child_closes_excess), 0);
	cr_assert_eq(in_child(child_pid), 0);
	cr_assert_eq(in_child(child_wrong), 0);
}
