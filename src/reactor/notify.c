/* SPDX-License-Identifier: BSD-2-Clause */
#include "reactor/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/units.h"
#include "reactor/sock.h"

/* The first descriptor passed, by the protocol's definition. */
#define FIRST_FD 3

static const char *socket_name(void)
{
	const char *s = getenv("NOTIFY_SOCKET");

	return s != NULL && s[0] != '\0' ? s : NULL;
}

bool notify_available(void)
{
	return socket_name() != NULL;
}

static int connect_manager(const char *name)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	size_t n = strlen(name);
	int fd, rc;

	if (name[0] != '/' && name[0] != '@')
		return -EAFNOSUPPORT;
	if (n >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	memcpy(sun.sun_path, name, n);
	if (name[0] == '@')
		sun.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd == -1)
		return -errno;
	/* An abstract name's length is the address's, without a final NUL. */
	if (connect(fd, (struct sockaddr *)&sun,
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (name[0] == '/'))) != 0) {
		rc = -errno;
		close(fd);
		return rc;
	}
	return fd;
}

static int notify_within(const char *message, const int *fds, int nfds, int wait_ms)
{
	struct iovec iov = { .iov_base = (char *)(uintptr_t)message, .iov_len = strlen(message) };
	const char *name = socket_name();
	struct pollfd p = { .events = POLLOUT };
	ssize_t n;

	if (name == NULL)
		return -ENOTCONN;
	p.fd = connect_manager(name);
	if (p.fd < 0)
		return p.fd;
	n = sock_send(p.fd, &iov, 1, fds, nfds);
	if (n == -EAGAIN && wait_ms > 0 && poll(&p, 1, wait_ms) == 1)
		n = sock_send(p.fd, &iov, 1, fds, nfds);
	close(p.fd);
	return n < 0 ? (int)n : 0;
}

int notify_send(const char *message, const int *fds, int nfds)
{
	return notify_within(message, fds, nfds, NOTIFY_WAIT_MS);
}

int notify_try(const char *message)
{
	return notify_within(message, NULL, 0, 0);
}

static bool env_number(const char *name, long *out)
{
	const char *s = getenv(name);
	uint64_t n;

	if (s == NULL || units_parse_u64(s, &n) != 0 || n > INT_MAX)
		return false;
	*out = (long)n;
	return true;
}

/* The next of the colon-separated names, or "unknown" as sd_listen_fds has it. */
static void next_name(const char **names, char *out, size_t len)
{
	size_t n;

	if (*names == NULL) {
		snprintf(out, len, "unknown");
		return;
	}
	n = strcspn(*names, ":");
	snprintf(out, len, "%.*s", (int)n, *names);
	*names = (*names)[n] == ':' ? *names + n + 1 : NULL;
}

static int take_fds(long count, struct notify_fd *out, int max)
{
	const char *names = getenv("LISTEN_FDNAMES");
	int stored = 0;

	for (int fd = FIRST_FD; fd < FIRST_FD + count; fd++) {
		int flags = fcntl(fd, F_GETFD);

		if (flags == -1 || fcntl(fd, F_SETFD, flags | FD_CLOEXEC) == -1)
			return -errno;
	}
	for (int fd = FIRST_FD; fd < FIRST_FD + count; fd++) {
		if (stored == max) {
			close(fd);
			continue;
		}
		out[stored].fd = fd;
		next_name(&names, out[stored].name, sizeof(out[stored].name));
		stored++;
	}
	return stored;
}

int notify_listen_fds(struct notify_fd *out, int max)
{
	bool ours = true;
	long pid, count;
	int rc = 0;

	if (getenv("LISTEN_PID") != NULL)
		ours = env_number("LISTEN_PID", &pid) && pid == (long)getpid();
	if (ours && getenv("LISTEN_FDS") != NULL) {
		if (env_number("LISTEN_FDS", &count) && count <= INT_MAX - FIRST_FD)
			rc = take_fds(count, out, max);
		else
			rc = -EINVAL;
	}
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	return rc;
}
