/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The local file, in the pool.  The list of extents does not change while a request
 * runs (staged_priv.h), so it is read here.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/staged_priv.h"

int file_make_dirs(const char *dir)
{
	char *copy = strdup(dir), *p;
	int err = 0;

	if (copy == NULL)
		return -ENOMEM;
	for (p = copy + 1; err == 0; p++) {
		bool end = *p == '\0';

		if (!end && *p != '/')
			continue;
		*p = '\0';
		if (mkdir(copy, 0700) != 0 && errno != EEXIST)
			err = -errno;
		if (end)
			break;
		*p = '/';
	}
	free(copy);
	return err;
}

static char *dir_of(const struct staged *sf)
{
	return strndup(sf->path, (size_t)(strrchr(sf->path, '/') - sf->path));
}

/* create: where nothing is in it yet. */
static int file_open(struct staged *sf, bool create)
{
	int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW, err;
	char *dir;

	if (sf->fd >= 0)
		return 0;
	create = create && sf->map.n == 0;
	sf->fd = open(sf->path, flags | (create ? O_CREAT : 0), 0600);
	if (sf->fd < 0 && errno == ENOENT && create) {
		dir = dir_of(sf);
		err = dir == NULL ? -ENOMEM : file_make_dirs(dir);
		free(dir);
		if (err != 0)
			return err;
		sf->fd = open(sf->path, flags | O_CREAT, 0600);
	}
	if (sf->fd < 0)
		return errno == ENOENT && sf->map.n > 0 ? -EIO : -errno;
	sf->new_name |= create;
	return 0;
}

static int write_all(int fd, const unsigned char *p, size_t len, uint64_t off)
{
	while (len > 0) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* What a failed write left where nothing is said to be: the space is worth having. */
static void give_back(struct staged *sf, uint64_t off, uint64_t end)
{
	uint64_t from, to;

	for (; off < end; off = to) {
		sf_gap(sf, off, end, &from, &to);
		if (from < to)
			(void)fallocate(sf->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			    (off_t)from, (off_t)(to - from));
	}
}

static int work_write(struct staged_io *io)
{
	struct staged *sf = io->sf;
	int err = file_open(sf, true);

	if (err != 0)
		return err;
	err = write_all(sf->fd, io->data, io->len, io->off);
	if (err != 0)
		give_back(sf, io->off, io->off + io->len);
	return err;
}

/* The bytes of a chunk that are not there yet. */
static int work_chunk(struct staged_io *io)
{
	const struct chunk *ch = container_of(io, struct chunk, io);
	struct staged *sf = io->sf;
	uint64_t at = io->off, end = at + io->len, from, to;
	int err = file_open(sf, true);

	for (; err == 0; at = to) {
		uint64_t pos = ch->read.off;

		sf_gap(sf, at, end, &from, &to);
		if (from >= to)
			break;
		for (unsigned i = 0; i < ch->read.niov && err == 0; i++) {
			const struct iovec *v = &ch->read.iov[i];
			uint64_t a = MAX(from, pos), b = MIN(to, pos + v->iov_len);

			if (a < b)
				err = write_all(sf->fd,
				    (const unsigned char *)v->iov_base + (a - pos), b - a, a);
			pos += v->iov_len;
		}
	}
	if (err != 0 && sf->fd >= 0)
		give_back(sf, io->off, end);
	return err;
}

/* Zeros are a hole, in a file that reaches so far: a file that is shorter than its map
 * has lost something. */
static int work_zero(struct staged_io *io)
{
	uint64_t end = io->off + io->len;
	struct staged *sf = io->sf;
	struct stat st;
	int err;

	if (io->keep_size)
		end = MIN(end, sf->size);
	err = file_open(sf, true);
	if (err != 0)
		return err;
	if (fallocate(sf->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)io->off,
		(off_t)(end - io->off)) != 0 || fstat(sf->fd, &st) != 0)
		return -errno;
	if ((uint64_t)st.st_size < end && ftruncate(sf->fd, (off_t)end) != 0)
		return -errno;
	return 0;
}

static int work_allocate(struct staged_io *io)
{
	struct staged *sf = io->sf;
	int err = file_open(sf, true), rc;

	if (err != 0)
		return err;
	do
		rc = fallocate(sf->fd, FALLOC_FL_KEEP_SIZE, (off_t)io->off, (off_t)io->len);
	while (rc != 0 && errno == EINTR);
	return rc != 0 ? -errno : 0;
}

static int work_truncate(struct staged_io *io)
{
	struct staged *sf = io->sf;
	struct stat st;
	int err = file_open(sf, false);

	if (err != 0)
		return err == -ENOENT ? 0 : err;
	if (fstat(sf->fd, &st) != 0)
		return -errno;
	if ((uint64_t)st.st_size > io->off && ftruncate(sf->fd, (off_t)io->off) != 0)
		return -errno;
	return 0;
}

static int sync_dir(struct staged *sf)
{
	char *dir = dir_of(sf);
	int fd, err = 0;

	if (dir == NULL)
		return -ENOMEM;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) != 0)
		err = -errno;
	if (fd >= 0)
		close(fd);
	free(dir);
	return err;
}

static int work_sync(struct staged *sf)
{
	int err;

	if (sf->fd < 0 && sf->map.n == 0)
		return 0;
	/* By whom it was made, and whether that is safe, is not known after a restart. */
	if (sf->fd < 0)
		sf->new_name = true;
	err = file_open(sf, false);
	if (err == 0 && fdatasync(sf->fd) != 0)
		err = -errno;
	if (err == 0 && sf->new_name)
		err = sync_dir(sf);
	if (err == 0)
		sf->new_name = false;
	return err;
}

/* --- Reading */

static int read_all(int fd, unsigned char *p, size_t len, uint64_t off, int flags)
{
	while (len > 0) {
		struct iovec iov = {p, len};
		ssize_t n = preadv2(fd, &iov, 1, (off_t)off, flags);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0 || ((size_t)n < len && (flags & RWF_NOWAIT)))
			return (flags & RWF_NOWAIT) ? -EAGAIN : -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

#define PIECES_AT_ONCE 16

int staged_file_read(const struct staged *sf, uint64_t off, size_t len, void *mem, int flags)
{
	uint64_t end = off + len, at, from, to;
	unsigned char *p = mem;
	int err = 0, pieces = 0;

	for (at = off; at < end && err == 0; at = to) {
		sf_gap(sf, at, end, &from, &to);
		if ((flags & RWF_NOWAIT) &&
		    (++pieces > PIECES_AT_ONCE || (at < from && sf->fd < 0)))
			return -EAGAIN;
		if (at < from)
			err = read_all(sf->fd, p + (at - off), from - at, at, flags);
		memset(p + (from - off), 0, to - from);
	}
	return err;
}

static int work_read(struct staged_io *io)
{
	struct arena_buf *buf = io->priv;
	struct staged *sf = io->sf;
	int err = io->got == 0 ? 0 : file_open(sf, false);

	/* Nothing has been written yet: it may not have been made. */
	if (err == -ENOENT && sf->map.n == 0)
		err = 0;
	if (err != 0 || io->got == 0)
		return err;
	return staged_file_read(sf, io->off, io->got, io->kind == IO_PREAD ? io->mem : buf->mem, 0);
}

void staged_file_work(struct pool_job *job)
{
	struct staged_io *io = container_of(job, struct staged_io, job);
	bool reads = io->kind == IO_READ || io->kind == IO_PREAD;

	if (!reads && !epoch_mine(io->sf->epoch)) {
		job->result = -ESTALE;
		return;
	}
	switch (io->kind) {
	case IO_WRITE:
		job->result = work_write(io);
		break;
	case IO_CHUNK:
		job->result = work_chunk(io);
		break;
	case IO_ZERO:
		job->result = work_zero(io);
		break;
	case IO_ALLOCATE:
		job->result = work_allocate(io);
		break;
	case IO_TRUNCATE:
		job->result = work_truncate(io);
		break;
	case IO_SYNC:
		job->result = work_sync(io->sf);
		break;
	default:
		job->result = work_read(io);
		break;
	}
}
