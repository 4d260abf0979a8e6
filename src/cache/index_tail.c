/* SPDX-License-Identifier: BSD-2-Clause */
#include "cache/index_tail.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/obj.h"
#include "base/units.h"
#include "cache/index.h"

#define TAIL_FILE "index.tail"
#define TAIL_MAGIC 0x62617431u
#define TAIL_MAX (256 * MIB)

struct tail_head {
	uint32_t magic, crc; /* of all that follows the head */
	uint64_t len;
};

struct tail_rec {
	uint32_t verb, bytes, ncrc, text_len;
	uint64_t page, when, size;
	unsigned char hash[INDEX_HASH];
	/* sums, then key text padded to 8 bytes */
};

static size_t pad8(size_t n)
{
	return (n + 7) & ~(size_t)7;
}

static size_t rec_len(uint32_t ncrc, uint32_t text_len)
{
	return sizeof(struct tail_rec) + pad8((size_t)ncrc * sizeof(uint32_t)) + pad8(text_len);
}

static unsigned char *rec_write(unsigned char *p, const struct index_op *op)
{
	uint32_t text_len = op->key.text == NULL ? 0 : op->key.text_len;
	struct tail_rec rec = {
		.verb = (uint32_t)op->verb,
		.bytes = op->bytes,
		.ncrc = op->ncrc,
		.text_len = text_len,
		.page = op->page,
		.when = op->when,
		.size = op->key.size,
	};

	memcpy(rec.hash, op->key.hash, INDEX_HASH);
	memcpy(p, &rec, sizeof(rec));
	if (op->ncrc > 0)
		memcpy(p + sizeof(rec), op->crc, op->ncrc * sizeof(uint32_t));
	if (text_len > 0)
		memcpy(p + sizeof(rec) + pad8(op->ncrc * sizeof(uint32_t)), op->key.text,
		    text_len);
	return p + rec_len(op->ncrc, text_len);
}

static int write_all(int fd, const unsigned char *p, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int index_leave(int dir_fd, const struct index_ops *ops)
{
	struct tail_head head = {.magic = TAIL_MAGIC};
	const struct index_op *op;
	unsigned char *buf, *p;
	int fd, err;

	STAILQ_FOREACH(op, ops, link)
		head.len += rec_len(op->ncrc, op->key.text == NULL ? 0 : op->key.text_len);
	if (head.len == 0)
		return 0;
	if (head.len > TAIL_MAX)
		return -EFBIG;
	buf = calloc(1, sizeof(head) + head.len);
	if (buf == NULL)
		return -ENOMEM;
	p = buf + sizeof(head);
	STAILQ_FOREACH(op, ops, link)
		p = rec_write(p, op);
	head.crc = checksum_crc32c(buf + sizeof(head), head.len);
	memcpy(buf, &head, sizeof(head));
	fd = openat(dir_fd, TAIL_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0) {
		err = -errno;
		free(buf);
		return err;
	}
	err = write_all(fd, buf, sizeof(head) + head.len);
	close(fd);
	free(buf);
	if (err != 0)
		unlinkat(dir_fd, TAIL_FILE, 0);
	return err;
}

/* One record to an op whose pointers lead into the buffer; NULL: malformed. */
static struct index_op *rec_read(const unsigned char **p, const unsigned char *end)
{
	struct tail_rec rec;
	struct index_op *op;

	if ((size_t)(end - *p) < sizeof(rec))
		return NULL;
	memcpy(&rec, *p, sizeof(rec));
	if (rec.ncrc > TAIL_MAX || rec.text_len > TAIL_MAX || rec.verb > INDEX_REUSE ||
	    rec_len(rec.ncrc, rec.text_len) > (size_t)(end - *p))
		return NULL;
	op = calloc(1, sizeof(*op));
	if (op == NULL)
		return NULL;
	op->verb = (enum index_verb)rec.verb;
	op->bytes = rec.bytes;
	op->ncrc = rec.ncrc;
	op->page = rec.page;
	op->when = rec.when;
	op->key.size = rec.size;
	op->key.text_len = rec.text_len;
	memcpy(op->key.hash, rec.hash, INDEX_HASH);
	op->crc = (const uint32_t *)(const void *)(*p + sizeof(rec));
	op->key.text = *p + sizeof(rec) + pad8(rec.ncrc * sizeof(uint32_t));
	*p += rec_len(rec.ncrc, rec.text_len);
	return op;
}

static unsigned char *read_file(int dir_fd, size_t *len)
{
	int fd = openat(dir_fd, TAIL_FILE, O_RDONLY | O_CLOEXEC);
	unsigned char *buf = NULL;
	struct stat st;
	size_t got = 0;

	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) == 0 && st.st_size > 0 && (uint64_t)st.st_size <= TAIL_MAX + KIB)
		buf = malloc((size_t)st.st_size);
	while (buf != NULL && got < (size_t)st.st_size) {
		ssize_t n = read(fd, buf + got, (size_t)st.st_size - got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			free(buf);
			buf = NULL;
			break;
		}
		got += (size_t)n;
	}
	close(fd);
	*len = got;
	return buf;
}

void index_tail_take(struct index *ix, int dir_fd)
{
	struct index_ops ops = STAILQ_HEAD_INITIALIZER(ops);
	struct tail_head head;
	struct index_op *op;
	const unsigned char *p, *end;
	unsigned char *buf;
	size_t len = 0;

	buf = read_file(dir_fd, &len);
	if (buf != NULL && len > sizeof(head)) {
		memcpy(&head, buf, sizeof(head));
		p = buf + sizeof(head);
		end = buf + len;
		if (head.magic == TAIL_MAGIC && head.len == (uint64_t)(end - p) &&
		    head.crc == checksum_crc32c(p, head.len)) {
			while (p < end && (op = rec_read(&p, end)) != NULL)
				STAILQ_INSERT_TAIL(&ops, op, link);
			/* Forgotten if it fails: these are clean pages. */
			(void)index_apply(ix, &ops);
		}
	}
	while ((op = STAILQ_FIRST(&ops)) != NULL) {
		STAILQ_REMOVE_HEAD(&ops, link);
		free(op);
	}
	free(buf);
	unlinkat(dir_fd, TAIL_FILE, 0);
}
