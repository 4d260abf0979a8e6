/* SPDX-License-Identifier: BSD-2-Clause */
/* Opening below the root without leaving it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ufs/posix_priv.h"

int posix_open_root(struct posix_job *pj)
{
	struct stat st;
	int fd = open(pj->root, O_PATH | O_DIRECTORY | O_CLOEXEC);

	/* Without its root the storage is broken; no path is known to be missing. */
	if (fd < 0 && !pj->kind->root_may_miss && (errno == ENOENT || errno == ENOTDIR))
		return -EIO;
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) != 0) {
		int err = -errno;

		(void)close(fd);
		return err;
	}
	if (pj->id.known && (pj->id.dev != st.st_dev || pj->id.ino != st.st_ino)) {
		(void)close(fd);
		return -EIO;
	}
	pj->id.known = true;
	pj->id.dev = st.st_dev;
	pj->id.ino = st.st_ino;
	return fd;
}

/* Component by component, for kernels and seccomp filters without openat2. */
static int walk(int root, const char *path, int flags)
{
	char name[UFS_NAME_MAX + 1];
	int dir = root;

	for (;;) {
		size_t n = strcspn(path, "/");
		bool last = path[n] == '\0';
		int fd, err;

		if (n > UFS_NAME_MAX)
			fd = -1, errno = ENAMETOOLONG;
		else {
			memcpy(name, path, n);
			name[n] = '\0';
			fd = openat(dir, name,
			    last ? flags : O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		}
		err = errno;
		if (dir != root)
			(void)close(dir);
		if (fd < 0)
			return -err;
		if (last)
			return fd;
		dir = fd;
		path += n + 1;
	}
}

int posix_open_at(struct posix_job *pj, int root, const char *path, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_NOFOLLOW | O_CLOEXEC),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	long fd;

	if (*path == '\0')
		path = ".";
	/* EAGAIN: something was renamed meanwhile and the kernel could not be sure. */
	for (int tries = 0; !pj->no_openat2 && tries < 16; tries++) {
		fd = syscall(SYS_openat2, root, path, &how, sizeof(how));
		if (fd >= 0)
			return (int)fd;
		if (errno == ENOSYS || errno == EPERM)
			pj->no_openat2 = true;
		else if (errno == EXDEV || errno == ELOOP) /* a symbolic link on the way */
			return -ENOENT;
		else if (errno != EAGAIN && errno != EINTR)
			return -errno;
	}
	fd = walk(root, path, flags | O_NOFOLLOW | O_CLOEXEC);
	return fd == -ELOOP ? -ENOENT : (int)fd;
}

int posix_open_parent(struct posix_job *pj, int root, const char *path, const char **name)
{
	const char *slash = strrchr(path, '/');
	char *dir;
	int fd;

	*name = slash != NULL ? slash + 1 : path;
	dir = strndup(path, slash != NULL ? (size_t)(slash - path) : 0);
	if (dir == NULL)
		return -ENOMEM;
	fd = posix_open_at(pj, root, dir, O_PATH | O_DIRECTORY);
	free(dir);
	return fd;
}

bool posix_attr(const struct stat *st, struct ufs_attr *attr)
{
	memset(attr, 0, sizeof(*attr));
	if (!S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode))
		return false;
	attr->kind = S_ISDIR(st->st_mode) ? UFS_DIR : UFS_FILE;
	attr->mtime = st->st_mtim;
	attr->have_mode = true;
	attr->mode = st->st_mode & 07777;
	attr->uid = st->st_uid;
	attr->gid = st->st_gid;
	if (attr->kind == UFS_DIR)
		return true;
	attr->size = (uint64_t)st->st_size;
	/* At most 81 bytes: four numbers of 64 bits in hexadecimal, two of 30. */
	(void)snprintf(attr->version, sizeof(attr->version),
	    "%" PRIx64 "-%" PRIx64 "-%" PRIx64 ".%lx-%" PRIx64 ".%lx", (uint64_t)st->st_ino,
	    (uint64_t)st->st_size, (uint64_t)st->st_mtim.tv_sec,
	    (unsigned long)st->st_mtim.tv_nsec & 0x3fffffff, (uint64_t)st->st_ctim.tv_sec,
	    (unsigned long)st->st_ctim.tv_nsec & 0x3fffffff);
	return true;
}

static int version_is(int fd, const char *version, struct stat *st)
{
	struct ufs_attr attr;

	if (fstat(fd, st) != 0)
		return -errno;
	return posix_attr(st, &attr) && strcmp(attr.version, version) == 0 ? 0 : -ESTALE;
}

int posix_version_is(int fd, const char *version)
{
	struct stat st;

	return version_is(fd, version, &st);
}

int posix_open_version(struct posix_job *pj, int root, const char *path, const char *version,
    struct stat *st)
{
	/* Looked at before it is opened: opening a pipe or device has effects. */
	int fd = posix_open_at(pj, root, path, O_PATH), err;

	if (fd >= 0) {
		err = version_is(fd, version, st);
		(void)close(fd);
		if (err != 0)
			return err;
		fd = posix_open_at(pj, root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	}
	if (fd < 0)
		return fd == -ENOENT || fd == -ENOTDIR ? -ESTALE : fd;
	err = version_is(fd, version, st);
	if (err == 0)
		return fd;
	(void)close(fd);
	return err;
}
