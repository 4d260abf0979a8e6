/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "reactor/sock.h"

static char top[64], path[256];

static void setup(void)
{
	strcpy(top, "/tmp/batonfs-sock-XXXXXX");
	cr_assert_not_null(mkdtemp(top));
	snprintf(path, sizeof(path), "%s/run/control", top);
}

static void teardown(void)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", top);
	cr_assert_eq(system(cmd), 0);
}

TestSuite(sock, .init = setup, .fini = teardown);

static int count_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) != -1;
	return n;
}

static int listen_ok(int type)
{
	struct errtext et = { "" };
	int fd = sock_listen(path, type, &et);

	cr_assert_geq(fd, 0, "%s", et.s);
	return fd;
}

static void expect_flags(int fd)
{
	cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	cr_assert(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

Test(sock, listen_connect_accept)
{
	int types[] = { SOCK_STREAM, SOCK_SEQPACKET };

	for (int i = 0; i < 2; i++) {
		int l = listen_ok(types[i]), c, a;
		struct stat st;
		pid_t pid;
		uid_t uid;

		cr_assert_eq(lstat(path, &st), 0);
		cr_assert_eq(st.st_mode, S_IFSOCK | 0600);
		cr_assert_eq(sock_accept(l), -EAGAIN);
		c = sock_connect(path, types[i]);
		cr_assert_geq(c, 0);
		a = sock_accept(l);
		cr_assert_geq(a, 0);
		expect_flags(l);
		expect_flags(c);
		expect_flags(a);
		cr_assert_eq(sock_check_peer(a, &pid, &uid), 0);
		cr_assert_eq(pid, getpid());
		cr_assert_eq(uid, geteuid());
		cr_assert_eq(sock_check_peer(a, NULL, NULL), 0);
		close(a);
		close(c);
		close(l);
	}
}

Test(sock, directory_is_made_and_checked)
{
	char dir[256];
	struct errtext et;
	struct stat st;

	close(listen_ok(SOCK_STREAM));
	snprintf(dir, sizeof(dir), "%s/run", top);
	cr_assert_eq(stat(dir, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0700);
	cr_assert_eq(chmod(dir, 0777), 0);
	cr_assert_eq(sock_listen(path, SOCK_STREAM, &et), -EPERM);
	cr_assert_not_null(strstr(et.s, path));
	cr_assert_eq(sock_listen("relative", SOCK_STREAM, &et), -EINVAL);
}

Test(sock, stale_is_replaced_live_is_not)
{
	int l = listen_ok(SOCK_SEQPACKET), before = count_fds();
	struct errtext et;

	cr_assert_eq(sock_listen(path, SOCK_SEQPACKET, &et), -EADDRINUSE);
	cr_assert_eq(sock_listen(path, SOCK_STREAM, &et), -EADDRINUSE);
	cr_assert_eq(count_fds(), before);
	close(l);
	cr_assert_eq(sock_connect(path, SOCK_SEQPACKET), -ECONNREFUSED);
	close(listen_ok(SOCK_STREAM));
}

Test(sock, full_backlog_is_not_stale)
{
	int l = listen_ok(SOCK_STREAM), c = 0, n = 0;
	struct errtext et;

	while (n < 1000 && (c = sock_connect(path, SOCK_STREAM)) >= 0)
		n++;
	cr_assert_eq(c, -EAGAIN);
	cr_assert_eq(sock_listen(path, SOCK_STREAM, &et), -EADDRINUSE);
	close(l);
}

Test(sock, other_files_are_not_removed)
{
	struct errtext et;
	int fd;

	close(listen_ok(SOCK_STREAM));
	unlink(path);
	cr_assert_eq(sock_connect(path, SOCK_STREAM), -ENOENT);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	cr_assert_eq(sock_listen(path, SOCK_STREAM, &et), -EEXIST);
	cr_assert_eq(access(path, F_OK), 0);
	cr_assert_eq(sock_connect("/nonexistent/x", SOCK_STREAM), -ENOENT);
}

Test(sock, long_path)
{
	char dir[180];
	int l, c, a;

	memset(dir, 'd', sizeof(dir) - 1);
	dir[sizeof(dir) - 1] = '\0';
	snprintf(path, sizeof(path), "%s/%s/control", top, dir);
	l = listen_ok(SOCK_SEQPACKET);
	c = sock_connect(path, SOCK_SEQPACKET);
	cr_assert_geq(c, 0);
	a = sock_accept(l);
	cr_assert_geq(a, 0);
	cr_assert_eq(access(path, F_OK), 0);
	close(l);
	close(c);
	close(a);
	close(listen_ok(SOCK_SEQPACKET));
}

static void pair(int type, int sv[2])
{
	cr_assert_eq(socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sv), 0);
}

Test(sock, descriptors)
{
	struct iovec iov[2] = { { (char *)(uintptr_t)"ab", 2 }, { (char *)(uintptr_t)"cd", 2 } };
	int sv[2], p[2], fds[SOCK_MAX_FDS], nfds = -1, many[SOCK_MAX_FDS + 1];
	char buf[16];

	pair(SOCK_SEQPACKET, sv);
	cr_assert_eq(pipe(p), 0);
	for (int i = 0; i <= SOCK_MAX_FDS; i++)
		many[i] = p[i % 2];
	cr_assert_eq(sock_recv(sv[1], buf, sizeof(buf), fds, &nfds), -EAGAIN);
	cr_assert_eq(sock_send(sv[0], iov, 2, many, SOCK_MAX_FDS + 1), -EINVAL);
	cr_assert_eq(sock_send(sv[0], iov, 2, many, SOCK_MAX_FDS), 4);
	cr_assert_eq(sock_recv(sv[1], buf, sizeof(buf), fds, &nfds), 4);
	cr_assert_eq(memcmp(buf, "abcd", 4), 0);
	cr_assert_eq(nfds, SOCK_MAX_FDS);
	for (int i = 0; i < nfds; i++)
		cr_assert(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
	cr_assert_eq(write(fds[1], "x", 1), 1);
	cr_assert_eq(read(p[0], buf, 1), 1);
	for (int i = 0; i < nfds; i++)
		close(fds[i]);
	cr_assert_eq(sock_send(sv[0], iov, 1, NULL, 0), 2);
	cr_assert_eq(sock_recv(sv[1], buf, sizeof(buf), fds, &nfds), 2);
	cr_assert_eq(nfds, 0);
	close(sv[0]);
	cr_assert_eq(sock_recv(sv[1], buf, sizeof(buf), fds, &nfds), 0);
	cr_assert_eq(sock_send(sv[1], iov, 1, NULL, 0), -EPIPE);
}

/* However a message is refused, its descriptors must not stay open here. */
Test(sock, refused_descriptors_are_closed)
{
	struct iovec iov = { (char *)(uintptr_t)"abcdef", 6 };
	int sv[2], p[2], fds[SOCK_MAX_FDS], nfds, before;
	union {
		char buf[CMSG_SPACE(sizeof(int) * (SOCK_MAX_FDS + 4))];
		struct cmsghdr align;
	} ctl;
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl.buf,
		.msg_controllen = sizeof(ctl.buf) };
	struct cmsghdr *cm;
	char buf[16];

	pair(SOCK_SEQPACKET, sv);
	cr_assert_eq(pipe(p), 0);
	before = count_fds();
	/* Longer than the buffer. */
	cr_assert_eq(sock_send(sv[0], &iov, 1, p, 2), 6);
	cr_assert_eq(sock_recv(sv[1], buf, 3, fds, &nfds), -EMSGSIZE);
	cr_assert_eq(nfds, 0);
	cr_assert_eq(count_fds(), before);
	/* A receiver that wants none. */
	cr_assert_eq(sock_send(sv[0], &iov, 1, p, 2), 6);
	cr_assert_eq(sock_recv(sv[1], buf, sizeof(buf), NULL, NULL), 6);
	cr_assert_eq(count_fds(), before);
	/* More than anybody may send. */
	memset(&ctl, 0, sizeof(ctl));
	cm = CMSG_FIRSTHDR(&mh);
	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(sizeof(int) * (SOCK_MAX_FDS + 4));
	for (int i = 0; i < SOCK_MAX_FDS + 4; i++)
		memcpy(CMSG_DATA(cm) + (size_t)i * sizeof(int), &p[0], sizeof(int));
	cr_assert_eq(sendmsg(sv[0], &mh, 0), 6);
	cr_assert_eq(sock_recv(sv[1], buf, sizeof(buf), fds, &nfds), -EMSGSIZE);
	cr_assert_eq(nfds, 0);
	cr_assert_eq(count_fds(), before);
}

Test(sock, full_queue_does_not_block)
{
	struct iovec iov = { (char *)(uintptr_t)"abcdef", 6 };
	ssize_t n = 0;
	int sv[2];

	pair(SOCK_SEQPACKET, sv);
	for (int i = 0; i < 100000 && n >= 0; i++)
		n = sock_send(sv[0], &iov, 1, NULL, 0);
	cr_assert_eq(n, -EAGAIN);
}

/* A peer that is neither root nor we. */
Test(sock, stranger_is_refused)
{
	int l, a, status;
	pid_t pid, child;
	uid_t uid;

	if (geteuid() != 0)
		cr_skip_test("needs root");
	l = listen_ok(SOCK_STREAM);
	cr_assert_eq(chmod(top, 0755), 0);
	cr_assert_eq(chmod(path, 0666), 0);
	*strrchr(path, '/') = '\0';
	cr_assert_eq(chmod(path, 0755), 0);
	path[strlen(path)] = '/';
	child = fork();
	if (child == 0) {
		int c;

		if (setuid(12345) != 0)
			_exit(1);
		c = sock_connect(path, SOCK_STREAM);
		/* From below, root is no stranger. */
		_exit(c >= 0 && sock_check_peer(c, NULL, NULL) == 0 ? 0 : 2);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert_eq(status, 0);
	a = sock_accept(l);
	cr_assert_geq(a, 0);
	cr_assert_eq(sock_check_peer(a, &pid, &uid), -EPERM);
	cr_assert_eq(uid, 12345);
	close(a);
	close(l);
}
