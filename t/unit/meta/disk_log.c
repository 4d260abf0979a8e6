/* SPDX-License-Identifier: BSD-2-Clause */
#include "disk_log.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/obj.h"
#include "base/queue.h"

#define SECTOR 512
#define META_PAGES 8192

struct written {
	STAILQ_ENTRY(written) link;
	off_t at;
	size_t len;
	unsigned char data[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static bool on, hold, held;
static unsigned fail_meta;
static dev_t dev;
static ino_t ino;
static unsigned char *safe; /* what is synced */
static size_t safe_len;
static STAILQ_HEAD(, written) pending = STAILQ_HEAD_INITIALIZER(pending);
static unsigned syncs;
static void (*hook)(void *arg);
static void *hook_arg;

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void *next(const char *name)
{
	void *sym = dlsym(RTLD_NEXT, name);

	must(sym != NULL);
	return sym;
}

static bool followed(int fd)
{
	struct stat st;

	return __atomic_load_n(&on, __ATOMIC_ACQUIRE) && fstat(fd, &st) == 0 && st.st_dev == dev &&
	       st.st_ino == ino;
}

static void put(unsigned char **to, size_t *size, off_t at, const void *data, size_t len)
{
	size_t end = (size_t)at + len;

	if (end > *size) {
		*to = realloc(*to, end);
		must(*to != NULL);
		memset(*to + *size, 0, end - *size);
		*size = end;
	}
	memcpy(*to + at, data, len);
}

static void note(int fd, const void *data, size_t len, off_t at)
{
	struct written *w;

	pthread_mutex_lock(&lock);
	if ((fcntl(fd, F_GETFL) & O_DSYNC) != 0) {
		put(&safe, &safe_len, at, data, len);
		syncs++;
	} else {
		w = malloc(sizeof(*w) + len);
		must(w != NULL);
		w->at = at;
		w->len = len;
		memcpy(w->data, data, len);
		STAILQ_INSERT_TAIL(&pending, w, link);
	}
	pthread_mutex_unlock(&lock);
}

/* By the name that LMDB calls; with large offsets the C library's header makes
 * "pwrite" another one. */
static_assert(sizeof(off_t) == 8, "LMDB's pwrite() takes 64-bit offsets");
ssize_t disk_log_pwrite(int fd, const void *buf, size_t len, off_t at) __asm__("pwrite");
ssize_t disk_log_pwrite(int fd, const void *buf, size_t len, off_t at)
{
	ssize_t (*real)(int, const void *, size_t, off_t) = next("pwrite");
	bool ours = followed(fd);
	ssize_t n;

	if (ours && hook != NULL)
		hook(hook_arg);
	if (ours && fail_meta > 0 && at < META_PAGES) {
		fail_meta--;
		errno = EIO;
		return -1;
	}
	n = real(fd, buf, len, at);
	if (ours && n > 0)
		note(fd, buf, (size_t)n, at);
	return n;
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
	ssize_t (*real)(int, const struct iovec *, int) = next("writev");
	bool ours = followed(fd);
	off_t at = ours ? lseek(fd, 0, SEEK_CUR) : 0;
	ssize_t n, left;

	if (ours && hook != NULL)
		hook(hook_arg);
	n = real(fd, iov, count);
	for (left = n; ours && left > 0; iov++) {
		size_t len = MIN(iov->iov_len, (size_t)left);

		note(fd, iov->iov_base, len, at);
		at += (off_t)len;
		left -= (ssize_t)len;
	}
	return n;
}

int fdatasync(int fd)
{
	int (*real)(int) = next("fdatasync");
	struct written *w;
	int rc;

	if (!followed(fd))
		return real(fd);
	if (hook != NULL)
		hook(hook_arg);
	pthread_mutex_lock(&lock);
	while (hold) {
		held = true;
		pthread_cond_wait(&cond, &lock);
	}
	held = false;
	pthread_mutex_unlock(&lock);
	rc = real(fd);
	pthread_mutex_lock(&lock);
	syncs++;
	while ((w = STAILQ_FIRST(&pending)) != NULL) {
		STAILQ_REMOVE_HEAD(&pending, link);
		put(&safe, &safe_len, w->at, w->data, w->len);
		free(w);
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

void disk_log_start(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	must(fd >= 0 && fstat(fd, &st) == 0);
	safe_len = (size_t)st.st_size;
	safe = malloc(safe_len);
	must(safe != NULL && pread(fd, safe, safe_len, 0) == (ssize_t)safe_len);
	close(fd);
	dev = st.st_dev;
	ino = st.st_ino;
	syncs = 0;
	__atomic_store_n(&on, true, __ATOMIC_RELEASE);
}

void disk_log_stop(void)
{
	struct written *w;

	__atomic_store_n(&on, false, __ATOMIC_RELEASE);
	hook = NULL;
	while ((w = STAILQ_FIRST(&pending)) != NULL) {
		STAILQ_REMOVE_HEAD(&pending, link);
		free(w);
	}
	free(safe);
	safe = NULL;
}

unsigned disk_log_syncs(void)
{
	unsigned n;

	pthread_mutex_lock(&lock);
	n = syncs;
	pthread_mutex_unlock(&lock);
	return n;
}

void disk_log_hook(void (*fn)(void *arg), void *arg)
{
	hook_arg = arg;
	hook = fn;
}

void disk_log_fail_meta(void)
{
	fail_meta = 2;
}

void disk_log_hold(bool on_hold)
{
	pthread_mutex_lock(&lock);
	hold = on_hold;
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&lock);
}

bool disk_log_held(void)
{
	bool is;

	pthread_mutex_lock(&lock);
	is = held;
	pthread_mutex_unlock(&lock);
	return is;
}

static uint64_t roll(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

void disk_log_image(const char *path, uint64_t seed)
{
	unsigned char *image;
	size_t len;
	struct written *w;
	int fd;

	seed = seed * 2654435761u + 88172645463325252u;
	pthread_mutex_lock(&lock);
	len = safe_len;
	image = malloc(len);
	must(image != NULL);
	memcpy(image, safe, len);
	STAILQ_FOREACH (w, &pending, link) {
		/* It is there, or not, or some of its sectors are. */
		unsigned fate = (unsigned)(roll(&seed) % 3);

		for (size_t at = 0; at < w->len; at += SECTOR) {
			if (fate == 0 || (fate == 1 && roll(&seed) % 2 == 0))
				put(&image, &len, w->at + (off_t)at, w->data + at,
				    MIN(SECTOR, w->len - at));
		}
	}
	pthread_mutex_unlock(&lock);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	must(fd >= 0 && write(fd, image, len) == (ssize_t)len);
	close(fd);
	free(image);
}
