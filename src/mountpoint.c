/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "mountpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* /dev/fuse, by Linux's list of devices. */
#define FUSE_DEV_MAJOR 10
#define FUSE_DEV_MINOR 229
/* A dead mount answers at once. */
#define PROBE_LIMIT_MS 2000

/* dir + "/" + base, malloc'ed */
static char *mountpoint_join(const char *dir, const char *base)
{
	char *out;

	return asprintf(&out, "%s/%s", strcmp(dir, "/") == 0 ? "" : dir, base) < 0 ? NULL : out;
}

static int mountpoint_fail(const char *path, int err, struct errtext *et)
{
	return errtext_set(et, err, "mount point %s: %s", path, strerror(-err));
}

/* One path without links in its last component. */
static int mountpoint_resolve_plain(const char *path, char **out)
{
	char *copy = strdup(path), *slash, *dir, *base;
	size_t len;
	int err;

	*out = NULL;
	if (copy == NULL)
		return -ENOMEM;
	len = strlen(copy);
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = '\0';
	slash = strrchr(copy, '/');
	base = slash != NULL ? slash + 1 : copy;
	if (base[0] == '\0' || strcmp(base, ".") == 0 || strcmp(base, "..") == 0) {
		/* No parent to stop at: "/" and the like cannot be our own mount. */
		*out = realpath(copy, NULL);
		err = *out != NULL ? 0 : errtext_errno();
		free(copy);
		return err;
	}
	if (slash == NULL)
		dir = realpath(".", NULL);
	else {
		*slash = '\0';
		dir = realpath(slash == copy ? "/" : copy, NULL);
	}
	if (dir == NULL) {
		err = errtext_errno();
		free(copy);
		return err;
	}
	*out = mountpoint_join(dir, base);
	free(dir);
	free(copy);
	return *out != NULL ? 0 : -ENOMEM;
}

int mountpoint_resolve(const char *path, char **out, struct errtext *et)
{
	char *at, *next, *slash;
	char link[PATH_MAX];
	int hops, err;
	ssize_t n;

	if (path[0] == '\0')
		return mountpoint_fail("\"\"", -ENOENT, et);
	err = mountpoint_resolve_plain(path, &at);
	for (hops = 0; err == 0; hops++) {
		/* readlink(2) asks nothing of a file system mounted there. */
		n = readlink(at, link, sizeof(link) - 1);
		if (n < 0) {
			if (strlen(at) >= PATH_MAX) {
				free(at);
				err = -ENAMETOOLONG;
				break;
			}
			*out = at;
			return 0;
		}
		link[n] = '\0';
		if (hops == 40) {
			free(at);
			err = -ELOOP;
			break;
		}
		slash = strrchr(at, '/');
		if (link[0] == '/')
			next = strdup(link);
		else {
			*slash = '\0';
			next = mountpoint_join(at[0] == '\0' ? "/" : at, link);
		}
		free(at);
		if (next == NULL)
			return mountpoint_fail(path, -ENOMEM, et);
		err = mountpoint_resolve_plain(next, &at);
		free(next);
	}
	return mountpoint_fail(path, err, et);
}

/* mountinfo writes space, tab, newline and backslash as \ooo. */
static void mountpoint_unescape(char *s)
{
	char *o = s;

	for (; *s != '\0'; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
		    s[3] >= '0' && s[3] <= '7') {
			*o++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else
			*o++ = *s;
	}
	*o = '\0';
}

int mountpoint_use(const char *mountpoint)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	enum mountpoint_use use = MOUNTPOINT_FREE;
	char *line = NULL, *where, *type;
	size_t cap = 0;

	if (f == NULL)
		return -errno;
	while (getline(&line, &cap, f) >= 0) {
		char *save = NULL;
		int i;

		type = strstr(line, " - ");
		where = strtok_r(line, " ", &save);
		for (i = 0; i < 4 && where != NULL; i++)
			where = strtok_r(NULL, " ", &save);
		if (where == NULL || type == NULL)
			continue;
		mountpoint_unescape(where);
		if (strcmp(where, mountpoint) != 0)
			continue;
		/* A later line lies on top of an earlier one. */
		use = strncmp(type + 3, "fuse.batonfs ", 13) == 0 ? MOUNTPOINT_BATONFS
								  : MOUNTPOINT_OTHER;
	}
	free(line);
	fclose(f);
	return use;
}

/* A request to a mount that nobody serves can last for ever: it is made by a thread of
 * its own, which is left behind then. */
struct probe {
	int fd; /* of a pipe; the thread writes what statx(2) said */
	char path[];
};

static void *probe_run(void *arg)
{
	struct probe *p = arg;
	struct statx stx;
	int err;

	err = statx(AT_FDCWD, p->path, AT_STATX_FORCE_SYNC | AT_SYMLINK_NOFOLLOW, STATX_MODE, &stx);
	err = err == 0 ? 0 : errno;
	if (write(p->fd, &err, sizeof(err)) < 0)
		err = errno; /* nobody waits any more */
	close(p->fd);
	free(p);
	return NULL;
}

bool mountpoint_is_dead(const char *mountpoint)
{
	struct probe *p = malloc(sizeof(*p) + strlen(mountpoint) + 1);
	struct pollfd pfd = {.events = POLLIN};
	int fds[2], err = -1;
	pthread_t thread;

	if (p == NULL || pipe2(fds, O_CLOEXEC) != 0) {
		free(p);
		return false;
	}
	p->fd = fds[1];
	memcpy(p->path, mountpoint, strlen(mountpoint) + 1);
	if (pthread_create(&thread, NULL, probe_run, p) != 0) {
		close(fds[1]);
		free(p);
	} else {
		pthread_detach(thread);
		pfd.fd = fds[0];
		if (poll(&pfd, 1, PROBE_LIMIT_MS) != 1 ||
		    read(fds[0], &err, sizeof(err)) != (ssize_t)sizeof(err))
			err = -1;
	}
	close(fds[0]);
	return err == ENOTCONN;
}

int mountpoint_check_fuse_fd(int fd, struct errtext *et)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return errtext_set(et, -EBADF, "--fuse-fd %d: is not open", fd);
	if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(FUSE_DEV_MAJOR, FUSE_DEV_MINOR))
		return errtext_set(et, -EINVAL, "--fuse-fd %d: is not /dev/fuse", fd);
	return 0;
}

bool mountpoint_is_empty(const char *mountpoint)
{
	DIR *dir = opendir(mountpoint);
	struct dirent *de;
	bool empty = true;

	if (dir == NULL)
		return true;
	while (empty && (de = readdir(dir)) != NULL)
		empty = strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0;
	closedir(dir);
	return empty;
}

int mountpoint_check_free(const char *mountpoint, struct errtext *et)
{
	struct statx stx;
	int use = mountpoint_use(mountpoint);

	if (use < 0)
		return errtext_set(et, use, "/proc/self/mountinfo: %s", strerror(-use));
	if (use == MOUNTPOINT_BATONFS)
		return errtext_set(et, -EBUSY,
		    "mount point %s: busy: batonfs is mounted there and no daemon answers on its "
		    "socket. If nothing serves it any more: umount -l %s",
		    mountpoint, mountpoint);
	if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC | AT_SYMLINK_NOFOLLOW, STATX_TYPE,
		&stx) != 0)
		return mountpoint_fail(mountpoint, -errno, et);
	if (!S_ISDIR(stx.stx_mode))
		return mountpoint_fail(mountpoint, -ENOTDIR, et);
	return 0;
}
