/* SPDX-License-Identifier: BSD-2-Clause */
#include "takeover/held.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HELD_MAGIC 0x68656c64u
#define HELD_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
/* The shortest request is its fuse_in_header. */
#define HELD_REQ_MIN 40u

struct held_head {
	uint32_t magic, count;
};

static int write_all(int fd, const void *data, size_t len)
{
	const char *p = data;

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

int held_encode(const struct held_list *list, uint32_t *count)
{
	struct held_head h = {.magic = HELD_MAGIC, .count = 0};
	const struct held_req *r;
	int fd, err;

	fd = memfd_create("batonfs-held", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	STAILQ_FOREACH(r, list, link)
	h.count++;
	err = write_all(fd, &h, sizeof(h));
	STAILQ_FOREACH(r, list, link)
	{
		if (err == 0)
			err = write_all(fd, &r->len, sizeof(r->len));
		if (err == 0)
			err = write_all(fd, r->raw, r->len);
	}
	if (err == 0 && fcntl(fd, F_ADD_SEALS, HELD_SEALS | F_SEAL_SEAL) < 0)
		err = -errno;
	if (err != 0) {
		close(fd);
		return err;
	}
	*count = h.count;
	return fd;
}

static int read_all(int fd, void *data, size_t len, off_t at)
{
	ssize_t n = pread(fd, data, len, at);

	return n == (ssize_t)len ? 0 : n < 0 ? -errno : -EBADMSG;
}

/* Adds the request at *at; moves *at behind it. */
static int held_take(int fd, off_t size, off_t *at, struct held_list *list)
{
	struct held_req *r;
	uint32_t len;
	int err;

	err = read_all(fd, &len, sizeof(len), *at);
	if (err != 0)
		return err;
	*at += (off_t)sizeof(len);
	if (len < HELD_REQ_MIN || len > HELD_REQ_MAX || (off_t)len > size - *at)
		return -EBADMSG;
	r = calloc(1, sizeof(*r) + len);
	if (r == NULL)
		return -ENOMEM;
	r->len = len;
	err = read_all(fd, r->raw, len, *at);
	if (err != 0) {
		free(r);
		return err;
	}
	*at += (off_t)len;
	STAILQ_INSERT_TAIL(list, r, link);
	return 0;
}

int held_decode(int fd, struct held_list *list, uint32_t *count)
{
	struct held_list got = STAILQ_HEAD_INITIALIZER(got);
	struct held_head h;
	struct stat st;
	off_t at = (off_t)sizeof(h);
	uint32_t i;
	int seals, err;

	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & HELD_SEALS) != HELD_SEALS || fstat(fd, &st) < 0)
		return -EBADMSG;
	err = read_all(fd, &h, sizeof(h), 0);
	if (err == 0 && h.magic != HELD_MAGIC)
		err = -EBADMSG;
	for (i = 0; err == 0 && i < h.count; i++)
		err = held_take(fd, st.st_size, &at, &got);
	if (err == 0 && at != st.st_size)
		err = -EBADMSG;
	if (err != 0) {
		held_free(&got);
		return err;
	}
	STAILQ_CONCAT(list, &got);
	*count = h.count;
	return 0;
}

void held_free(struct held_list *list)
{
	struct held_req *r;

	while ((r = STAILQ_FIRST(list)) != NULL) {
		STAILQ_REMOVE_HEAD(list, link);
		free(r);
	}
}
