/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads of durable files whose bytes do not change any more, for other nodes.  They know
 * nothing of what is in memory of the file, and touch no row: the files themselves are all
 * that is needed.  One that is removed meanwhile, or becomes a file of the page store, is
 * read to the end; what is then taken out of it does not agree with the sums.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/paths.h"
#include "cache/staged_priv.h"

/* Up to the end of the file: how much there was. */
static ssize_t read_all(int fd, unsigned char *mem, size_t len, uint64_t off)
{
	size_t got = 0;

	while (got < len) {
		ssize_t n = pread(fd, mem + got, len - got, (off_t)(off + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return (ssize_t)got;
}

static int open_one(const char *dir, uint64_t id, const char *suffix)
{
	char path[PATHS_DATA_MAX + 32];
	int n = snprintf(path, sizeof(path), "%s/%llx%s", dir, (unsigned long long)id, suffix), fd;

	if (n < 0 || (size_t)n >= sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return fd >= 0 ? fd : -errno;
}

int staging_read_closed(const char *dir, uint64_t id, uint64_t size, uint64_t off, size_t len,
    unsigned char *mem, size_t *at)
{
	uint64_t from = off - off % STAGED_BLOCK;
	size_t blocks = (size_t)((off + len - from + STAGED_BLOCK - 1) / STAGED_BLOCK);
	size_t want = (size_t)MIN(size - from, (uint64_t)blocks * STAGED_BLOCK);
	int fd, sum_fd = -1, err = FAULT("staged.closed");
	ssize_t n = 0;

	assert(len > 0 && off < size && len <= size - off);
	if (err != 0)
		return err;
	fd = open_one(dir, id, "");
	if (fd >= 0)
		sum_fd = open_one(dir, id, STAGED_SUMS);
	if (fd < 0 || sum_fd < 0)
		err = fd < 0 ? fd : sum_fd;
	if (err == 0)
		n = read_all(fd, mem, want, from);
	if (err == 0 && n != (ssize_t)want)
		err = n < 0 ? (int)n : -ENODATA;
	if (err == 0) {
		memset(mem + want, 0, blocks * STAGED_BLOCK - want);
		err = sums_agree(sum_fd, from, mem, blocks);
	}
	if (fd >= 0)
		close(fd);
	if (sum_fd >= 0)
		close(sum_fd);
	*at = (size_t)(off - from);
	return err;
}
