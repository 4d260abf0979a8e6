/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The checksum file of a durable staged file, in the pool.
 *
 *	struct sums_head	and in it the range that is being changed, or was changed
 *				last
 *	uint32_t		of each block; the last block counts as filled up with zeros,
 *				so that its sum does not depend on the size
 *
 * A change first says its range, then writes the sums, then the bytes: what may find no
 * room comes before anything is lost.  Who is killed under way leaves sums and bytes that
 * do not agree, within the range alone, and of a change that was not answered: the
 * successor makes its sums anew from the bytes.  After a power loss only what was synced
 * counts, and the range says nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/fault.h"
#include "base/log.h"
#include "cache/staged_priv.h"

#define HEAD_MAGIC 0x6d757342u
#define HEAD_FORMAT 1u
#define AT_ONCE 256u /* blocks */

struct sums_head {
	uint32_t magic, format;
	uint64_t off, end;
	uint8_t pad[40];
};
_Static_assert(sizeof(struct sums_head) == 64, "the file outlives the program that wrote it");

static uint64_t pos_of(uint64_t block)
{
	return sizeof(struct sums_head) + block * sizeof(uint32_t);
}

static uint64_t blocks_of(uint64_t bytes)
{
	return (bytes + STAGED_BLOCK - 1) / STAGED_BLOCK;
}

static bool all_zero(const unsigned char *p, size_t len)
{
	return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

static uint32_t stored(uint32_t crc)
{
	return crc != 0 ? crc : 1;
}

static uint32_t sum_of(const unsigned char *block)
{
	return stored(checksum_crc32c(block, STAGED_BLOCK));
}

static bool agrees(uint32_t sum, const unsigned char *block)
{
	return sum == 0 ? all_zero(block, STAGED_BLOCK) : sum == sum_of(block);
}

/* --- The file of sums */

/* What is beyond the end of the file is 0. */
static int read_from(int fd, uint64_t block, size_t n, uint32_t *sums)
{
	size_t len = n * sizeof(*sums), got = 0;

	while (got < len) {
		ssize_t r = pread(fd, (char *)sums + got, len - got,
		    (off_t)(pos_of(block) + got));

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		got += (size_t)r;
	}
	memset((char *)sums + got, 0, len - got);
	return 0;
}

static int sums_read(const struct staged *sf, uint64_t block, unsigned n, uint32_t *sums)
{
	return read_from(sf->sum_fd, block, n, sums);
}

static int sums_write(const struct staged *sf, uint64_t block, unsigned n, const uint32_t *sums)
{
	int err = FAULT("staged.sums.write");

	return err != 0 ? err : file_write(sf->sum_fd, sums, n * sizeof(*sums), pos_of(block));
}

static int sums_forget(const struct staged *sf, uint64_t block, uint64_t n)
{
	if (n == 0 || fallocate(sf->sum_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  (off_t)pos_of(block), (off_t)(n * sizeof(uint32_t))) == 0)
		return 0;
	return -errno;
}

static int head_write(const struct staged *sf, uint64_t off, uint64_t end)
{
	struct sums_head h = {
	    .magic = HEAD_MAGIC, .format = HEAD_FORMAT, .off = off, .end = end};

	return file_write(sf->sum_fd, &h, sizeof(h), 0);
}

static int head_read(const struct staged *sf, struct sums_head *h)
{
	ssize_t n;

	do
		n = pread(sf->sum_fd, h, sizeof(*h), 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n == sizeof(*h) && h->magic == HEAD_MAGIC && h->format == HEAD_FORMAT ? 0
										     : -EBADMSG;
}

/* --- Comparing */

static int mismatch(struct staged *sf, uint64_t block)
{
	sf->bad_off = block * STAGED_BLOCK;
	return -EBADMSG;
}

/* One block, as the file and its map have it. */
static int block_read(const struct staged *sf, uint64_t block, unsigned char *mem)
{
	return staged_file_read(sf, block * STAGED_BLOCK, STAGED_BLOCK, mem, 0);
}

/* The bytes of a block that power loss left half rewritten are what they are. */
static int block_check(struct staged *sf, uint64_t block, uint32_t sum, const unsigned char *mem)
{
	uint32_t now;

	if (agrees(sum, mem))
		return 0;
	if (!sf->rewriting)
		return mismatch(sf, block);
	now = sum_of(mem);
	return sums_write(sf, block, 1, &now);
}

/* Bytes [off, off+len) of the block, which is not asked for as a whole. */
static int check_part(struct staged *sf, uint64_t off, size_t len, uint32_t sum, void *mem)
{
	unsigned char whole[STAGED_BLOCK];
	uint64_t block = off / STAGED_BLOCK;
	int err = block_read(sf, block, whole);

	if (err == 0)
		err = block_check(sf, block, sum, whole);
	if (err == 0)
		memcpy(mem, whole + off % STAGED_BLOCK, len);
	return err;
}

int sums_check(struct staged *sf, uint64_t off, size_t len, void *mem)
{
	uint64_t end = off + len, block = off / STAGED_BLOCK;
	unsigned char *p = mem;
	uint32_t sums[AT_ONCE] = {0};
	int err = 0;

	while (off < end && err == 0) {
		unsigned n = (unsigned)MIN(blocks_of(end) - block, AT_ONCE);

		err = sums_read(sf, block, n, sums);
		for (unsigned i = 0; i < n && err == 0; i++, block++) {
			uint64_t to = MIN(end, (block + 1) * STAGED_BLOCK);
			size_t part = (size_t)(to - off);

			err = part == STAGED_BLOCK ? block_check(sf, block, sums[i], p)
						   : check_part(sf, off, part, sums[i], p);
			off = to;
			p += part;
		}
	}
	return err;
}

/* --- Changing */

/* The sum of a block of which [off, end) becomes the given bytes, or zeros. */
static int sum_of_part(struct staged *sf, uint64_t block, uint64_t off, uint64_t end,
    const unsigned char *data, uint32_t *sum)
{
	unsigned char mem[STAGED_BLOCK];
	uint64_t start = block * STAGED_BLOCK;
	uint32_t old;
	int err = sums_read(sf, block, 1, &old);

	if (err == 0)
		err = block_read(sf, block, mem);
	if (err == 0)
		err = block_check(sf, block, old, mem);
	if (err != 0)
		return err;
	if (data != NULL)
		memcpy(mem + (off - start), data, (size_t)(end - off));
	else
		memset(mem + (off - start), 0, (size_t)(end - off));
	*sum = sum_of(mem);
	return 0;
}

int sums_begin(struct staged *sf, uint64_t off, uint64_t end)
{
	return head_write(sf, off, end);
}

int sums_data(struct staged *sf, uint64_t off, size_t len, const void *data)
{
	uint64_t end = off + len, block = off / STAGED_BLOCK;
	const unsigned char *p = data;
	uint32_t sums[AT_ONCE];
	int err = 0;

	while (off < end && err == 0) {
		unsigned n = (unsigned)MIN(blocks_of(end) - block, AT_ONCE);

		for (unsigned i = 0; i < n && err == 0; i++) {
			uint64_t to = MIN(end, (block + i + 1) * STAGED_BLOCK);
			size_t part = (size_t)(to - off);

			if (part == STAGED_BLOCK)
				sums[i] = sum_of(p);
			else
				err = sum_of_part(sf, block + i, off, to, p, &sums[i]);
			off = to;
			p += part;
		}
		if (err == 0)
			err = sums_write(sf, block, n, sums);
		block += n;
	}
	return err;
}

int sums_zero(struct staged *sf, uint64_t off, uint64_t end)
{
	uint64_t first = blocks_of(off), last = end / STAGED_BLOCK;
	uint32_t sum;
	int err = 0;

	if (first > last) /* within one block */
		first = last;
	else if (off % STAGED_BLOCK != 0) {
		err = sum_of_part(sf, first - 1, off, first * STAGED_BLOCK, NULL, &sum);
		if (err == 0)
			err = sums_write(sf, first - 1, 1, &sum);
	}
	if (err == 0)
		err = sums_forget(sf, first, last - first);
	off = MAX(off, last * STAGED_BLOCK);
	if (err != 0 || off >= end)
		return err;
	err = sum_of_part(sf, last, off, end, NULL, &sum);
	return err == 0 ? sums_write(sf, last, 1, &sum) : err;
}

/* Those that differ alone: what they need has its place in the file. */
static int sums_replace(struct staged *sf, uint64_t block, unsigned n, const uint32_t *sums)
{
	uint32_t old[AT_ONCE];
	int err = sums_read(sf, block, n, old);

	for (unsigned i = 0; i < n && err == 0; i++)
		if (old[i] != sums[i])
			err = file_write(sf->sum_fd, &sums[i], sizeof(sums[i]), pos_of(block + i));
	return err;
}

int sums_redo(struct staged *sf, uint64_t off, uint64_t end)
{
	uint64_t block = off / STAGED_BLOCK, last = blocks_of(end), from, to;
	unsigned char mem[STAGED_BLOCK];
	uint32_t sums[AT_ONCE];
	unsigned n = 0;
	int err = 0;

	while (block < last && err == 0) {
		uint64_t at = block * STAGED_BLOCK, holes;

		sf_gap(sf, at, last * STAGED_BLOCK, &from, &to);
		holes = from == at ? (to - at) / STAGED_BLOCK : 0;
		if (holes > 0) {
			err = sums_forget(sf, block, holes);
			block += holes;
			continue;
		}
		for (n = 0; n < AT_ONCE && block + n < last && err == 0; n++) {
			err = block_read(sf, block + n, mem);
			sums[n] = all_zero(mem, sizeof(mem)) ? 0 : sum_of(mem);
		}
		if (err == 0)
			err = sums_replace(sf, block, n, sums);
		block += n;
	}
	return err;
}

int sums_cut(struct staged *sf, uint64_t size)
{
	int err = 0;

	if (size % STAGED_BLOCK != 0)
		err = sums_redo(sf, size, size + 1);
	if (err == 0 && ftruncate(sf->sum_fd, (off_t)pos_of(blocks_of(size))) != 0)
		err = -errno;
	return err;
}

/* --- Opening */

static int lost(const char *path, const char *what)
{
	log_error("staged file %s: %s: what was written is lost; the file's record is kept: "
		  "bring the file back from a copy, or delete it in the mount",
	    path, what);
	return -EIO;
}

static int file_size(int fd, uint64_t *size)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return -errno;
	*size = (uint64_t)st.st_size;
	return 0;
}

/* Rows of an earlier daemon are there, which may have died while it changed the file. */
static int recover(struct staged *sf, const struct sums_head *h)
{
	uint64_t is = 0, end = MIN(h->end, sf->size);
	int err = file_size(sf->fd, &is);

	if (err == 0 && h->off < end) {
		file_give_back(sf, h->off, end);
		err = sums_redo(sf, h->off, end);
	}
	/* Sums first: should this be cut short, the length says so again.  They may be those of
	 * bytes behind the end, or in its block, that never came. */
	if (err == 0 && (is > sf->size || h->end > sf->size)) {
		err = sums_cut(sf, sf->size);
		if (err == 0 && is > sf->size && ftruncate(sf->fd, (off_t)sf->size) != 0)
			err = -errno;
	}
	return err;
}

/* The bytes behind the last full block; their sum is in the record. */
static int restore_tail(struct staged *sf)
{
	unsigned char mem[STAGED_BLOCK] = {0};
	uint64_t block = sf->size / STAGED_BLOCK;
	size_t len = sf->size % STAGED_BLOCK;
	uint32_t sum;
	int err;

	if (len == 0)
		return 0;
	err = staged_file_read(sf, block * STAGED_BLOCK, len, mem, 0);
	if (err != 0)
		return err;
	sum = sum_of(mem);
	/* Who reads it shall find that it is wrong. */
	if (stored(checksum_crc32c(mem, len)) != sf->safe.tail_crc && !sf->rewriting)
		sum ^= 0x10000;
	return sums_replace(sf, block, 1, &sum);
}

static int restore_synced(struct staged *sf)
{
	uint64_t is = 0;
	int err = file_size(sf->fd, &is);

	if (err != 0)
		return err;
	/* Being rewritten it may have been cut off. */
	if (is < sf->size && !sf->rewriting)
		return lost(sf->path, "shorter than its record says");
	if (is != sf->size && ftruncate(sf->fd, (off_t)sf->size) != 0)
		return -errno;
	if (ftruncate(sf->sum_fd, (off_t)pos_of(blocks_of(sf->size))) != 0)
		return -errno;
	return restore_tail(sf);
}

/* The bytes themselves are at hand. */
static int restore_inline(struct staged *sf)
{
	size_t len = sf->inl_len, tail = len % STAGED_BLOCK;
	uint32_t sums[STAGED_INLINE_MAX / STAGED_BLOCK];
	unsigned char last[STAGED_BLOCK] = {0};
	unsigned n = (unsigned)(len / STAGED_BLOCK);
	int err;

	if (sf->held && checksum_crc32c(sf->inl, len) != sf->held_crc)
		return mismatch(sf, 0);
	err = head_write(sf, 0, 0);

	checksum_blocks(sf->inl, len - tail, sums);
	for (unsigned i = 0; i < n; i++)
		sums[i] = stored(sums[i]);
	if (tail > 0) {
		memcpy(last, sf->inl + len - tail, tail);
		sums[n++] = sum_of(last);
	}
	if (err == 0 && (ftruncate(sf->fd, (off_t)len) != 0 ||
			    ftruncate(sf->sum_fd, (off_t)pos_of(n)) != 0))
		err = -errno;
	if (err == 0)
		err = sums_write(sf, 0, n, sums);
	return err == 0 ? file_write(sf->fd, sf->inl, len, 0) : err;
}

static int prepare(struct staged *sf, bool make)
{
	struct sums_head h;
	uint64_t is = 0;
	int err;

	if (sf->prep == PREP_RESTORE && sf->inl != NULL)
		return restore_inline(sf);
	err = file_size(sf->sum_fd, &is);
	if (err == 0 && is == 0 && make)
		return head_write(sf, 0, 0);
	if (err == 0)
		err = head_read(sf, &h);
	if (err == -EBADMSG)
		return lost(sf->sum_path, "not a file of checksums");
	if (err != 0 || sf->prep == PREP_NONE)
		return err;
	return sf->prep == PREP_RECOVER ? recover(sf, &h) : restore_synced(sf);
}

void sums_close(struct staged *sf)
{
	if (sf->fd >= 0)
		close(sf->fd);
	if (sf->sum_fd >= 0)
		close(sf->sum_fd);
	sf->fd = sf->sum_fd = -1;
}

int sums_open(struct staged *sf, bool create)
{
	bool make = sf->map.n == 0 ? create : sf->prep == PREP_RESTORE && sf->inl != NULL;
	const char *path = sf->path;
	int err = 0;

	sf->fd = file_open_path(sf->path, make);
	if (sf->fd >= 0) {
		path = sf->sum_path;
		sf->sum_fd = file_open_path(path, make);
	}
	if (sf->fd < 0 || sf->sum_fd < 0)
		err = sf->fd < 0 ? sf->fd : sf->sum_fd;
	if (err == -ENOENT && sf->map.n > 0)
		err = lost(path, "it is not there");
	if (err == 0)
		err = prepare(sf, make);
	if (err != 0) {
		sums_close(sf);
		return err;
	}
	sf->new_name |= make;
	sf->prep = PREP_NONE;
	return 0;
}

/* --- Making it safe */

static int tail_sum(struct staged *sf, uint32_t *crc)
{
	unsigned char mem[STAGED_BLOCK];
	size_t len = sf->size % STAGED_BLOCK;
	int err = 0;

	*crc = 0;
	if (len == 0)
		return 0;
	err = staged_file_read(sf, sf->size - len, len, mem, 0);
	if (err == 0)
		err = sums_check(sf, sf->size - len, len, mem);
	if (err == 0)
		*crc = stored(checksum_crc32c(mem, len));
	return err;
}

static int mend_all(struct staged *sf)
{
	unsigned char mem[STAGED_BLOCK];
	int err = 0;

	for (uint64_t b = 0; b < blocks_of(sf->size) && err == 0 && sf->rewriting; b++) {
		err = block_read(sf, b, mem);
		if (err == 0)
			err = sums_check(sf, b * STAGED_BLOCK, STAGED_BLOCK, mem);
	}
	if (err == 0)
		sf->rewriting = false;
	return err;
}

int sums_sync(struct staged *sf)
{
	uint64_t is = 0;
	int err = sf->broken;

	sf->sync_due = false;
	sf->syncing = (struct staged_durable){.size = sf->size};
	if (err != 0 || sf->size == 0)
		return err;
	err = staged_file_open(sf, true);
	if (err == 0)
		err = mend_all(sf);
	if (err == 0)
		err = file_size(sf->fd, &is);
	if (err == 0 && is < sf->size && ftruncate(sf->fd, (off_t)sf->size) != 0)
		err = -errno;
	if (err == 0)
		err = tail_sum(sf, &sf->syncing.tail_crc);
	if (err != 0)
		return err;
	sf->sync_due = true;
	return 0;
}

static int sync_one(int fd, const char *point)
{
	int err = FAULT(point);

	return err == 0 && fdatasync(fd) != 0 ? -errno : err;
}

int sums_sync_data(struct staged *sf)
{
	return sync_one(sf->fd, "staged.sync.data");
}

/* The rows of all changes before were committed in the turn between this and sums_sync(): a
 * successor need not make sums anew, which would hide a bit that changes from now on. */
int sums_sync_sums(struct staged *sf)
{
	int err = head_write(sf, 0, 0);

	return err == 0 ? sync_one(sf->sum_fd, "staged.sync.sums") : err;
}

int sums_sync_dir(struct staged *sf)
{
	int err = FAULT("staged.sync.dir");

	if (err == 0)
		err = file_sync_dir(sf);
	/* The directory, of which nobody who syncs a file has heard: its disk is gone. */
	return err == -ENOENT ? -EIO : err;
}

int sums_agree(int sum_fd, uint64_t off, const unsigned char *mem, size_t n)
{
	uint32_t sums[AT_ONCE];
	int err = 0;

	for (size_t i = 0; i < n && err == 0; i++) {
		if (i % AT_ONCE == 0)
			err = read_from(
			    sum_fd, off / STAGED_BLOCK + i, MIN(n - i, (size_t)AT_ONCE), sums);
		if (err == 0 && !agrees(sums[i % AT_ONCE], mem + i * STAGED_BLOCK))
			err = -EBADMSG;
	}
	return err;
}

/* --- For the page store, whose sums are those of the bytes themselves */

static int last_block(int fd, uint64_t off, size_t len, uint32_t *sum)
{
	unsigned char mem[STAGED_BLOCK] = {0};
	ssize_t n;

	do
		n = pread(fd, mem, len, (off_t)off);
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)len)
		return n < 0 ? -errno : -EIO;
	if (!agrees(*sum, mem))
		return -EBADMSG;
	*sum = checksum_crc32c(mem, len);
	return 0;
}

int sums_plain(int fd, int sum_fd, uint64_t off, uint64_t len, uint32_t *crc)
{
	static const unsigned char zeros[STAGED_BLOCK];
	uint64_t full = len / STAGED_BLOCK;
	int err = read_from(sum_fd, off / STAGED_BLOCK, blocks_of(len), crc);

	for (uint64_t i = 0; i < full && err == 0; i++) {
		if (crc[i] == 0)
			crc[i] = checksum_crc32c(zeros, sizeof(zeros));
		else if (crc[i] == stored(0)) /* of which of the two is not known */
			err = -EBADMSG;
	}
	if (err != 0 || len % STAGED_BLOCK == 0)
		return err;
	return last_block(fd, off + full * STAGED_BLOCK, len % STAGED_BLOCK, &crc[full]);
}
