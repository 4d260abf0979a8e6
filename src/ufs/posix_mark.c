/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * By whom a file was put, so that one whose answer was lost is known again: an extended
 * attribute, made of the mount, the number that it has for what it writes there, and the
 * size and time that the file was given.  So one that somebody has written to since, in
 * place, is not taken for ours, and neither is any where the file system has no such
 * attributes.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/hash.h"
#include "ufs/posix_temp.h"

#define MARK "user.batonfs.request"
#define MARK_LEN 32
#define MARK_SEED UINT64_C(0x6d61726b)

static void mark_text(const struct posix_job *pj, uint64_t size, const struct timespec *mtime,
    char text[MARK_LEN + 1])
{
	const uint64_t of[] = {
	    pj->mount_id, pj->file, size, (uint64_t)mtime->tv_sec, (uint64_t)mtime->tv_nsec};

	(void)snprintf(text, MARK_LEN + 1, "%016" PRIx64 "%016" PRIx64, hash64(of, sizeof(of), 0),
	    hash64(of, sizeof(of), MARK_SEED));
}

void posix_mark(const struct posix_job *pj)
{
	char text[MARK_LEN + 1];

	if (pj->mount_id == 0 || pj->file == 0 || (pj->set.what & UFS_SET_MTIME) == 0)
		return;
	mark_text(pj, pj->size, &pj->set.mtime, text);
	/* Without it a lost answer is an upload that failed, and what was written is kept. */
	(void)fsetxattr(pj->fd, MARK, text, MARK_LEN, 0);
}

bool posix_mark_is(const struct posix_job *pj, int fd, const struct stat *st)
{
	char path[64], want[MARK_LEN + 1], is[MARK_LEN];

	if (pj->mount_id == 0 || pj->file == 0 || !S_ISREG(st->st_mode))
		return false;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	mark_text(pj, (uint64_t)st->st_size, &st->st_mtim, want);
	return getxattr(path, MARK, is, sizeof(is)) == MARK_LEN && memcmp(is, want, MARK_LEN) == 0;
}

bool posix_mark_at(const struct posix_job *pj, const char *name)
{
	int fd = openat(pj->dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	bool is;

	if (fd < 0)
		return false;
	is = fstat(fd, &st) == 0 && posix_mark_is(pj, fd, &st);
	(void)close(fd);
	return is;
}
