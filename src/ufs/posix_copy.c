/* SPDX-License-Identifier: BSD-2-Clause */
#include "ufs/posix_copy.h"

#include <errno.h>
#include <unistd.h>

#include "ufs/posix_temp.h"

#define STEP ((uint64_t)32 << 20) /* of copy_file_range(), which may copy no bytes at all */

/* For files on two file systems, and file systems that do not have the call. */
static int copy_through(
    struct posix_job *pj, int src, uint64_t src_off, uint64_t off, uint64_t left, uint64_t *did)
{
	ssize_t n;

	if (pj->buf == NULL)
		pj->buf = malloc(POSIX_CHUNK);
	if (pj->buf == NULL)
		return -ENOMEM;
	do
		n = pread(src, pj->buf, MIN(left, POSIX_CHUNK), (off_t)src_off);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n < 0 ? -errno : -ESTALE;
	*did = (uint64_t)n;
	return posix_pwrite_all(pj->fd, pj->buf, (size_t)n, off);
}

/* How much from src_off on is a hole; or, with *left made smaller, is not. */
static uint64_t hole_at(int src, uint64_t src_off, uint64_t *left)
{
	off_t data = lseek(src, (off_t)src_off, SEEK_DATA), hole;

	if (data < 0)
		return errno == ENXIO ? *left : 0;
	if ((uint64_t)data > src_off)
		return MIN((uint64_t)data - src_off, *left);
	hole = lseek(src, data, SEEK_HOLE);
	if (hole > data)
		*left = MIN(*left, (uint64_t)(hole - data));
	return 0;
}

int posix_copy_some(struct posix_job *pj, int src, uint64_t src_off, uint64_t off, uint64_t left,
    bool fresh, uint64_t *did)
{
	off_t from = (off_t)src_off, to = (off_t)off;
	ssize_t n;

	*did = fresh ? hole_at(src, src_off, &left) : 0;
	if (*did > 0)
		return 0;
	while (!pj->no_copy_range) {
		n = copy_file_range(src, &from, pj->fd, &to, MIN(left, STEP), 0);
		if (n > 0) {
			*did = (uint64_t)n;
			return 0;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO || errno == EFBIG))
			return -errno;
		pj->no_copy_range = true; /* whatever is wrong is seen without it too */
	}
	return copy_through(pj, src, src_off, off, left, did);
}
