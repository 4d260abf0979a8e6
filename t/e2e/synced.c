/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A library to be preloaded into a daemon: keeps, beside a directory, what a machine that
 * loses its power now would still have of it.
 *
 *	SYNCED_FROM	the directory
 *	SYNCED_TO	there: what was synced of each file, as <path with % for />; and
 *			<path of a directory>%.names: the names in it when it was synced
 *
 * A write through a descriptor with O_DSYNC is safe by itself; everything else is what it
 * was at the last fsync() or fdatasync() of the file.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int fsync(int fd);
int fdatasync(int fd);
ssize_t pwrite(int fd, const void *buf, size_t len, off_t off);
ssize_t pwrite64(int fd, const void *buf, size_t len, off_t off);

/* The file's name in SYNCED_TO: 0, or -1 if it is none of the directory's. */
static int shadow_of(int fd, char *to, size_t size)
{
	const char *from = getenv("SYNCED_FROM"), *dir = getenv("SYNCED_TO");
	char link[64], path[512];
	size_t n;
	ssize_t len;

	if (from == NULL || dir == NULL)
		return -1;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof(path) - 1);
	n = strlen(from);
	if (len < 0 || strncmp(path, from, n) != 0)
		return -1;
	path[len] = '\0';
	if ((path[n] != '/' && path[n] != '\0') || strstr(path, " (deleted)") != NULL)
		return -1;
	for (char *p = path + n; *p != '\0'; p++)
		*p = *p == '/' ? '%' : *p;
	return snprintf(to, size, "%s/%s", dir, path + n) < (int)size ? 0 : -1;
}

static void must(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	abort();
}

/* The descriptor may be open for writing alone. */
static int copy_file(int fd, const char *to)
{
	char link[64], part[660];
	static char buf[1 << 16]; /* one at a time */
	ssize_t n;
	int in, out;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	snprintf(part, sizeof(part), "%s.%d.part", to, fd);
	in = open(link, O_RDONLY | O_CLOEXEC);
	out = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	must(in >= 0 && out >= 0, part);
	while ((n = read(in, buf, sizeof(buf))) > 0)
		must(write(out, buf, (size_t)n) == n, part);
	must(n == 0, link);
	close(in);
	close(out);
	return rename(part, to);
}

static void copy_names(int fd, const char *to)
{
	char link[64], names[600], part[660];
	struct dirent *de;
	DIR *d;
	FILE *f;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	snprintf(names, sizeof(names), "%s%%.names", to);
	snprintf(part, sizeof(part), "%s.%d.part", names, fd);
	d = opendir(link);
	f = fopen(part, "we");
	must(d != NULL && f != NULL, part);
	while ((de = readdir(d)) != NULL)
		fprintf(f, "%s\n", de->d_name);
	closedir(d);
	must(fclose(f) == 0 && rename(part, names) == 0, names);
}

/* What was written before the call is safe when it has ended: noted in between, it is
 * neither more nor less than that.  One at a time. */
static int sync_and_note(int fd, int (*real)(int fd))
{
	static volatile int lock;
	char to[560], kept[600];
	struct stat st;
	int rc, err;

	if (shadow_of(fd, to, sizeof(to)) != 0 || fstat(fd, &st) != 0)
		return real(fd);
	while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE) != 0)
		usleep(50);
	snprintf(kept, sizeof(kept), "%s.next", to);
	if (!S_ISDIR(st.st_mode))
		must(copy_file(fd, kept) == 0, kept);
	rc = real(fd);
	err = errno;
	if (rc == 0 && S_ISDIR(st.st_mode))
		copy_names(fd, to);
	else if (rc == 0)
		must(rename(kept, to) == 0, to);
	__atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
	errno = err;
	return rc;
}

int fsync(int fd)
{
	static int (*real)(int fd);

	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "fsync");
	return sync_and_note(fd, real);
}

int fdatasync(int fd)
{
	static int (*real)(int fd);

	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "fdatasync");
	return sync_and_note(fd, real);
}

static ssize_t write_and_note(int fd, const void *buf, size_t len, off_t off)
{
	static ssize_t (*real)(int fd, const void *buf, size_t len, off_t off);
	char to[560];
	int flags = fcntl(fd, F_GETFL), out;
	ssize_t n;

	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "pwrite64");
	n = real(fd, buf, len, off);
	if (n > 0 && flags >= 0 && (flags & O_DSYNC) != 0 && shadow_of(fd, to, sizeof(to)) == 0) {
		out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		must(out >= 0 && real(out, buf, (size_t)n, off) == n, to);
		close(out);
	}
	return n;
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
	return write_and_note(fd, buf, len, off);
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off_t off)
{
	return write_and_note(fd, buf, len, off);
}
