/* SPDX-License-Identifier: BSD-2-Clause */
#include "reactor/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/paths.h"

#define BACKLOG 128
#define LISTEN_TRIES 8

union fd_control {
	char buf[CMSG_SPACE(SOCK_MAX_FDS * sizeof(int))];
	struct cmsghdr align;
};

/* A path split at its last slash, the directory held open. */
struct place {
	int dirfd;
	const char *name;
	struct sockaddr_un sun;
};

static void place_close(struct place *pl)
{
	if (pl->dirfd >= 0)
		close(pl->dirfd);
	pl->dirfd = -1;
}

static int dir_of(const char *path, char *dir, size_t len)
{
	const char *slash = strrchr(path, '/');
	size_t n;

	if (slash == NULL || path[0] != '/' || slash[1] == '\0')
		return -EINVAL;
	n = slash == path ? 1 : (size_t)(slash - path);
	if (n >= len)
		return -ENAMETOOLONG;
	memcpy(dir, path, n);
	dir[n] = '\0';
	return 0;
}

/* Opens the directory and makes the address.  A path too long for sun_path is
 * named by way of the directory's descriptor. */
static int place_open(struct place *pl, const char *path)
{
	char dir[PATH_MAX];
	int rc, n;

	memset(pl, 0, sizeof(*pl));
	pl->dirfd = -1;
	pl->sun.sun_family = AF_UNIX;
	rc = dir_of(path, dir, sizeof(dir));
	if (rc != 0)
		return rc;
	pl->name = strrchr(path, '/') + 1;
	pl->dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (pl->dirfd == -1)
		return -errno;
	if (strlen(path) < sizeof(pl->sun.sun_path)) {
		memcpy(pl->sun.sun_path, path, strlen(path) + 1);
		return 0;
	}
	n = snprintf(pl->sun.sun_path, sizeof(pl->sun.sun_path), "/proc/self/fd/%d/%s", pl->dirfd,
	    pl->name);
	if (n < 0 || (size_t)n >= sizeof(pl->sun.sun_path)) {
		place_close(pl);
		return -ENAMETOOLONG;
	}
	return 0;
}

static int connect_to(const struct place *pl, int type)
{
	int fd, rc;

	fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&pl->sun, sizeof(pl->sun)) == 0)
		return fd;
	rc = -errno;
	close(fd);
	return rc;
}

/* Makes the name free: 0, -EADDRINUSE (somebody answers), -EEXIST (not a socket). */
static int clear_stale(const struct place *pl, int type)
{
	struct stat st;
	int fd;

	if (fstatat(pl->dirfd, pl->name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = connect_to(pl, type);
	if (fd >= 0) {
		close(fd);
		return -EADDRINUSE;
	}
	/* A full backlog and a wrong type are somebody too. */
	if (fd == -EAGAIN || fd == -EPROTOTYPE)
		return -EADDRINUSE;
	if (fd != -ECONNREFUSED)
		return fd;
	return unlinkat(pl->dirfd, pl->name, 0) != 0 && errno != ENOENT ? -errno : 0;
}

static int bind_listen(const struct place *pl, int type)
{
	int fd, rc;

	fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return -errno;
	/* Linux gives the name in the file system the mode of the unbound socket,
	 * so there is no moment at which others could connect. */
	if (fchmod(fd, 0600) != 0) {
		rc = -errno;
		close(fd);
		return rc;
	}
	if (bind(fd, (const struct sockaddr *)&pl->sun, sizeof(pl->sun)) != 0) {
		rc = -errno;
		close(fd);
		return rc;
	}
	if (listen(fd, BACKLOG) != 0) {
		rc = -errno;
		unlinkat(pl->dirfd, pl->name, 0);
		close(fd);
		return rc;
	}
	return fd;
}

static int listen_words(struct errtext *et, int err, const char *path)
{
	switch (err) {
	case -EADDRINUSE:
		return errtext_set(et, err, "socket %s: another process answers there", path);
	case -EEXIST:
		return errtext_set(et, err, "socket %s: there is a file of another kind; remove it",
		    path);
	case -EPERM:
		return errtext_set(et, err,
		    "socket %s: its directory must belong to root or the daemon's user and be "
		    "writable by nobody else",
		    path);
	default:
		return errtext_set(et, err, "socket %s: %s", path, strerror(-err));
	}
}

static int listen_once(const char *path, int type)
{
	char dir[PATH_MAX];
	struct place pl;
	int fd, rc;

	rc = dir_of(path, dir, sizeof(dir));
	if (rc == 0)
		rc = paths_make_dir(dir, 0700);
	if (rc == 0)
		rc = place_open(&pl, path);
	if (rc != 0)
		return rc;
	/* Without the lock a second starter could take our name, bound but not yet
	 * listening, for a stale one.  Nobody has it for longer than these lines take. */
	while (rc == 0 && flock(pl.dirfd, LOCK_EX) != 0)
		rc = errno == EINTR ? 0 : -errno;
	if (rc == 0)
		rc = clear_stale(&pl, type);
	fd = rc == 0 ? bind_listen(&pl, type) : rc;
	place_close(&pl);
	return fd;
}

int sock_listen(const char *path, int type, struct errtext *et)
{
	int fd = -ENOENT, tries;

	/* Who had the directory before may be removing it just now. */
	for (tries = 0; tries < LISTEN_TRIES && fd == -ENOENT; tries++)
		fd = listen_once(path, type);
	return fd < 0 ? listen_words(et, fd, path) : fd;
}

int sock_connect(const char *path, int type)
{
	struct place pl;
	int fd;

	fd = place_open(&pl, path);
	if (fd != 0)
		return fd;
	fd = connect_to(&pl, type);
	place_close(&pl);
	return fd;
}

int sock_accept(int fd)
{
	for (;;) {
		int c = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (c >= 0)
			return c;
		if (errno != EINTR && errno != ECONNABORTED)
			return -errno;
	}
}

int sock_check_peer(int fd, pid_t *pid, uid_t *uid)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0)
		return -errno;
	if (pid != NULL)
		*pid = cred.pid;
	if (uid != NULL)
		*uid = cred.uid;
	return cred.uid == 0 || cred.uid == geteuid() ? 0 : -EPERM;
}

ssize_t sock_send(int fd, const struct iovec *iov, int niov, const int *fds, int nfds)
{
	struct msghdr mh = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)niov };
	union fd_control ctl;
	ssize_t n;

	if (niov < 0 || nfds < 0 || nfds > SOCK_MAX_FDS)
		return -EINVAL;
	if (nfds > 0) {
		size_t bytes = (size_t)nfds * sizeof(int);
		struct cmsghdr *cm;

		memset(&ctl, 0, sizeof(ctl));
		mh.msg_control = ctl.buf;
		mh.msg_controllen = CMSG_SPACE(bytes);
		cm = CMSG_FIRSTHDR(&mh);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(bytes);
		memcpy(CMSG_DATA(cm), fds, bytes);
	}
	do
		n = sendmsg(fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n == -1 && errno == EINTR);
	return n == -1 ? -errno : n;
}

/* Copies the descriptors of a message to out; returns their number. */
static int take_fds(struct msghdr *mh, int *out)
{
	int have = 0;

	for (struct cmsghdr *cm = CMSG_FIRSTHDR(mh); cm != NULL; cm = CMSG_NXTHDR(mh, cm)) {
		size_t n;

		if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
			continue;
		n = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(out + have, CMSG_DATA(cm), n * sizeof(int));
		have += (int)n;
	}
	return have;
}

ssize_t sock_recv(int fd, void *buf, size_t len, int *fds, int *nfds)
{
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	union fd_control ctl;
	struct msghdr mh = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = ctl.buf,
		.msg_controllen = sizeof(ctl.buf),
	};
	int got[SOCK_MAX_FDS], ngot;
	bool whole;
	ssize_t n;

	if (nfds != NULL)
		*nfds = 0;
	do
		n = recvmsg(fd, &mh, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	while (n == -1 && errno == EINTR);
	if (n == -1)
		return -errno;
	ngot = take_fds(&mh, got);
	whole = (mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
	if (!whole || n == 0 || fds == NULL || nfds == NULL) {
		for (int i = 0; i < ngot; i++)
			close(got[i]);
		return whole ? n : -EMSGSIZE;
	}
	memcpy(fds, got, (size_t)ngot * sizeof(int));
	*nfds = ngot;
	return n;
}
