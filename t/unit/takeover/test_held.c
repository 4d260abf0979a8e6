/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "takeover/held.h"

static void add(struct held_list *l, uint32_t len, unsigned char fill)
{
	struct held_req *r = calloc(1, sizeof(*r) + len);

	cr_assert_not_null(r);
	r->len = len;
	memset(r->raw, fill, len);
	STAILQ_INSERT_TAIL(l, r, link);
}

static unsigned length(const struct held_list *l)
{
	const struct held_req *r;
	unsigned n = 0;

	STAILQ_FOREACH(r, l, link)
	n++;
	return n;
}

static int sealed(const void *data, size_t len)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	cr_assert_eq(write(fd, data, len), (ssize_t)len);
	cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE), 0);
	return fd;
}

Test(held, round_trip_in_order)
{
	struct held_list a = STAILQ_HEAD_INITIALIZER(a), b = STAILQ_HEAD_INITIALIZER(b);
	struct held_req *r;
	uint32_t wrote = 0, read = 0;
	int fd;

	add(&a, 40, 1);
	add(&a, 1048576, 2);
	add(&a, 57, 3);
	fd = held_encode(&a, &wrote);
	cr_assert_geq(fd, 0);
	cr_assert_eq(wrote, 3);
	cr_assert_eq(length(&a), 3, "the list stays the caller's");
	cr_assert_eq(write(fd, "x", 1), -1, "not sealed");
	cr_assert_eq(held_decode(fd, &b, &read), 0);
	cr_assert_eq(read, 3);
	r = STAILQ_FIRST(&b);
	cr_assert_eq(r->len, 40);
	cr_assert_eq(r->raw[39], 1);
	r = STAILQ_NEXT(r, link);
	cr_assert_eq(r->len, 1048576);
	cr_assert_eq(r->raw[1048575], 2);
	r = STAILQ_NEXT(r, link);
	cr_assert_eq(r->len, 57);
	held_free(&a);
	held_free(&b);
	cr_assert(STAILQ_EMPTY(&a));
	close(fd);
}

Test(held, empty)
{
	struct held_list a = STAILQ_HEAD_INITIALIZER(a);
	uint32_t n = 9;
	int fd = held_encode(&a, &n);

	cr_assert_eq(n, 0);
	cr_assert_eq(held_decode(fd, &a, &n), 0);
	cr_assert(STAILQ_EMPTY(&a));
	close(fd);
}

/* Cut off at each length: refused, and nothing is left in the list. */
Test(held, truncated_anywhere)
{
	struct held_list a = STAILQ_HEAD_INITIALIZER(a), b = STAILQ_HEAD_INITIALIZER(b);
	unsigned char whole[256];
	uint32_t n;
	ssize_t len, i;
	int fd;

	add(&a, 40, 1);
	add(&a, 48, 2);
	fd = held_encode(&a, &n);
	len = pread(fd, whole, sizeof(whole), 0);
	close(fd);
	cr_assert_eq(len, 8 + 4 + 40 + 4 + 48);
	for (i = 0; i < len; i++) {
		fd = sealed(whole, (size_t)i);
		cr_assert_eq(held_decode(fd, &b, &n), -EBADMSG, "at %zd", i);
		cr_assert(STAILQ_EMPTY(&b));
		close(fd);
	}
	whole[len] = 0;
	fd = sealed(whole, (size_t)len + 1);
	cr_assert_eq(held_decode(fd, &b, &n), -EBADMSG, "trailing byte");
	close(fd);
	held_free(&a);
}

Test(held, not_sealed_or_not_a_memfd)
{
	struct held_list a = STAILQ_HEAD_INITIALIZER(a);
	uint32_t n, head[2] = {0x68656c64u, 0};
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	cr_assert_eq(write(fd, head, sizeof(head)), (ssize_t)sizeof(head));
	cr_assert_eq(held_decode(fd, &a, &n), -EBADMSG);
	close(fd);
	fd = open("/dev/null", O_RDONLY);
	cr_assert_eq(held_decode(fd, &a, &n), -EBADMSG);
	close(fd);
}

Test(held, lengths_that_lie)
{
	struct held_list a = STAILQ_HEAD_INITIALIZER(a);
	uint32_t n;
	struct {
		uint32_t magic, count, len;
		unsigned char body[40];
	} f = {.magic = 0x68656c64u, .count = 1, .len = UINT32_MAX};
	uint32_t bad[] = {UINT32_MAX, HELD_REQ_MAX + 1, 41, 39, 0};
	unsigned i;
	int fd;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		f.len = bad[i];
		fd = sealed(&f, sizeof(f));
		cr_assert_eq(held_decode(fd, &a, &n), -EBADMSG, "%u", bad[i]);
		close(fd);
	}
	f.len = 40;
	f.count = UINT32_MAX;
	fd = sealed(&f, sizeof(f));
	cr_assert_eq(held_decode(fd, &a, &n), -EBADMSG);
	close(fd);
}
