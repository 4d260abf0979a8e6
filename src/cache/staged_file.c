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

#include "base/checksum.h"
#include "base/fault.h"
#include "base/paths.h"
#include "cache/staged_priv.h"

static char *dir_of(const char *path)
{
	return strndup(path, (size_t)(strrchr(path, '/') - path));
}

int file_open_path(const char *path, bool create)
{
	int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0), err;
	int fd = open(path, flags, 0600);
	char *dir;

	if (fd < 0 && errno == ENOENT && create) {
		dir = dir_of(path);
		err = dir == NULL ? -ENOMEM : paths_make_private(dir);
		free(dir);
		if (err != 0)
			return err;
		fd = open(path, flags, 0600);
	}
	return fd < 0 ? -errno : fd;
}

int staged_file_open(struct staged *sf, bool create)
{
	int fd;

	if (sf->fd >= 0)
		return 0;
	if (sf->durable)
		return sums_open(sf, create);
	create = create && sf->map.n == 0;
	if (create && sf->sweeping)
		sweep_clear(sf->path);
	fd = file_open_path(sf->path, create);
	if (fd < 0)
		return fd == -ENOENT && sf->map.n > 0 ? -EIO : fd;
	sf->fd = fd;
	sf->new_name |= create;
	return 0;
}

int file_write(int fd, const void *data, size_t len, uint64_t off)
{
	const unsigned char *p = data;

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

/* The space is worth having. */
void file_give_back(struct staged *sf, uint64_t off, uint64_t end)
{
	uint64_t from, to;

	for (; off < end; off = to) {
		sf_gap(sf, off, end, &from, &to);
		if (from < to)
			(void)fallocate(sf->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			    (off_t)from, (off_t)(to - from));
	}
}

/* A change of a durable file failed under way. */
static void undo(struct staged *sf, uint64_t off, uint64_t end)
{
	int err;

	file_give_back(sf, off, end);
	err = sums_redo(sf, off, end);
	if (err != 0 && sf->broken == 0)
		sf->broken = err;
}

static int durable_write(struct staged_io *io)
{
	uint64_t end = io->off + io->len;
	struct staged *sf = io->sf;
	int err = sums_begin(sf, io->off, end);

	if (err != 0)
		return err;
	err = sums_data(sf, io->off, io->len, io->data);
	if (err == 0)
		err = FAULT("staged.write.data");
	if (err == 0)
		err = file_write(sf->fd, io->data, io->len, io->off);
	if (err != 0)
		undo(sf, io->off, end);
	return err;
}

static int work_write(struct staged_io *io)
{
	struct staged *sf = io->sf;
	int err = staged_file_open(sf, true);

	if (err != 0)
		return err;
	if (sf->durable)
		return durable_write(io);
	err = file_write(sf->fd, io->data, io->len, io->off);
	if (err != 0)
		file_give_back(sf, io->off, io->off + io->len);
	return err;
}

/* The bytes of a chunk that are not there yet. */
static int work_chunk(struct staged_io *io)
{
	const struct chunk *ch = container_of(io, struct chunk, io);
	struct staged *sf = io->sf;
	uint64_t at = io->off, end = at + io->len, from, to;
	int err = staged_file_open(sf, true);

	for (; err == 0; at = to) {
		uint64_t pos = ch->read.off;

		sf_gap(sf, at, end, &from, &to);
		if (from >= to)
			break;
		for (unsigned i = 0; i < ch->read.niov && err == 0; i++) {
			const struct iovec *v = &ch->read.iov[i];
			uint64_t a = MAX(from, pos), b = MIN(to, pos + v->iov_len);

			if (a < b)
				err = file_write(sf->fd,
				    (const unsigned char *)v->iov_base + (a - pos), b - a, a);
			pos += v->iov_len;
		}
	}
	if (err != 0 && sf->fd >= 0)
		file_give_back(sf, io->off, end);
	return err;
}

/* Zeros are a hole, in a file that reaches so far: a file that is shorter than its map
 * has lost something. */
static int zero(struct staged *sf, uint64_t off, uint64_t end)
{
	struct stat st;

	if (fallocate(sf->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off,
		(off_t)(end - off)) != 0 || fstat(sf->fd, &st) != 0)
		return -errno;
	if ((uint64_t)st.st_size < end && ftruncate(sf->fd, (off_t)end) != 0)
		return -errno;
	return 0;
}

static int work_zero(struct staged_io *io)
{
	uint64_t end = io->off + io->len;
	struct staged *sf = io->sf;
	int err;

	if (io->keep_size)
		end = MIN(end, sf->size);
	err = staged_file_open(sf, true);
	if (err != 0)
		return err;
	if (!sf->durable)
		return zero(sf, io->off, end);
	err = sums_begin(sf, io->off, end);
	if (err != 0)
		return err;
	err = sums_zero(sf, io->off, end);
	if (err == 0)
		err = zero(sf, io->off, end);
	if (err != 0)
		undo(sf, io->off, end);
	return err;
}

static int work_allocate(struct staged_io *io)
{
	struct staged *sf = io->sf;
	int err = staged_file_open(sf, true), rc;

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
	int err = staged_file_open(sf, false);

	if (err != 0)
		return err == -ENOENT ? 0 : err;
	if (fstat(sf->fd, &st) != 0)
		return -errno;
	if ((uint64_t)st.st_size <= io->off)
		return 0;
	if (sf->durable)
		err = sums_cut(sf, io->off);
	if (err == 0 && ftruncate(sf->fd, (off_t)io->off) != 0)
		err = -errno;
	/* What was to be gone may be there again, should the file grow. */
	if (err != 0 && sf->durable && sf->broken == 0)
		sf->broken = err;
	return err;
}

static int sync_one_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;

	if (fd < 0 || fsync(fd) != 0)
		err = -errno;
	if (fd >= 0)
		close(fd);
	return err;
}

int file_sync_dir(struct staged *sf)
{
	char *dir = dir_of(sf->path), *slash;
	int err = dir == NULL ? -ENOMEM : sync_one_dir(dir);

	/* Those above it may be as new; or not ours to open, or of a file system that does
	 * not know how. */
	while (err == 0 && !sf->dirs_safe && (slash = strrchr(dir, '/')) != NULL && dir[1] != '\0') {
		slash[slash == dir] = '\0';
		err = sync_one_dir(dir);
		if (err != -EIO)
			err = 0;
	}
	sf->dirs_safe |= err == 0;
	free(dir);
	return err;
}

static int work_sync(struct staged *sf)
{
	int err;

	if (sf->durable)
		return sums_sync(sf);
	if (sf->fd < 0 && sf->map.n == 0)
		return 0;
	/* By whom it was made, and whether that is safe, is not known after a restart. */
	if (sf->fd < 0)
		sf->new_name = true;
	err = staged_file_open(sf, false);
	if (err == 0 && fdatasync(sf->fd) != 0)
		err = -errno;
	if (err == 0 && sf->new_name)
		err = file_sync_dir(sf);
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

static int read_durable(struct staged_io *io, void *mem)
{
	struct staged *sf = io->sf;
	bool upload = io->kind == IO_PREAD;
	int err = 0;

	/* Nothing was ever written, or it is not even made. */
	if (sf->fd >= 0 && (upload || sf->verify))
		err = sums_check(sf, io->off, io->got, mem);
	if (err == 0 && upload)
		io->crc = checksum_crc32c_more(io->crc, mem, io->got);
	return err;
}

static int read_held(struct staged_io *io, const void *mem)
{
	if (io->kind == IO_PREAD)
		io->crc = checksum_crc32c_more(io->crc, mem, io->got);
	return 0;
}

static int work_read(struct staged_io *io)
{
	struct arena_buf *buf = io->priv;
	struct staged *sf = io->sf;
	void *mem;
	int err = io->got == 0 ? 0 : staged_file_open(sf, false);

	/* Nothing has been written yet: it may not have been made. */
	if (err == -ENOENT && sf->map.n == 0)
		err = 0;
	if (io->got == 0)
		return err;
	mem = io->kind == IO_PREAD ? io->mem : buf->mem;
	/* Where there is no room for files: what is at hand needs none, and once it is in the
	 * storage there is more. */
	if (err != 0)
		return hold_read(sf, io->off, io->got, mem) == 0 ? read_held(io, mem) : err;
	err = staged_file_read(sf, io->off, io->got, mem, 0);
	return err == 0 && sf->durable ? read_durable(io, mem) : err;
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
