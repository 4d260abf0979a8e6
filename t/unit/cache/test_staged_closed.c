/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "base/fault.h"
#include "staged_rig.h"

#define ID (STAGED_DURABLE_BIT | 0x77)
#define SIZE (5 * (size_t)STAGED_BLOCK + 123)

static struct staged_rig s;
static struct staged *sf;
static unsigned char data[SIZE], mem[STAGED_CLOSED_ROOM(SIZE)];

/* Two blocks in the middle are a hole. */
static void setup(void)
{
	srig_init(&s);
	for (size_t i = 0; i < SIZE; i++)
		data[i] = (unsigned char)(1 + i % 251);
	sf = srig_create(&s, ID, NULL);
	memset(data + 2 * STAGED_BLOCK, 0, 2 * STAGED_BLOCK);
	cr_assert_eq(srig_do(&s, sf, staged_write, 0, 2 * STAGED_BLOCK, data), 0);
	cr_assert_eq(srig_do(&s, sf, staged_write, 4 * STAGED_BLOCK, SIZE - 4 * STAGED_BLOCK,
			 data + 4 * STAGED_BLOCK),
	    0);
	cr_assert_eq(srig_do(&s, sf, staged_sync, 0, 0, NULL), 0);
}

static void teardown(void)
{
	cr_assert_eq(fault_init("", &(struct errtext){0}), 0);
	if (sf != NULL)
		staged_close(&sf);
	srig_fini(&s);
}

TestSuite(staged_closed, .init = setup, .fini = teardown);

static int read_closed(uint64_t off, size_t len)
{
	size_t at = 0;
	int err = staging_read_closed(s.dir, ID, SIZE, off, len, mem, &at);

	if (err == 0)
		cr_assert_eq(memcmp(mem + at, data + off, len), 0, "at %llu",
		    (unsigned long long)off);
	return err;
}

/* Open or not, from any place to any other. */
Test(staged_closed, reads_what_was_written)
{
	static const size_t places[] = {0, 1, STAGED_BLOCK - 1, STAGED_BLOCK, STAGED_BLOCK + 1,
	    2 * STAGED_BLOCK + 5, 4 * STAGED_BLOCK, 5 * STAGED_BLOCK, SIZE - 1, SIZE};
	size_t n = sizeof(places) / sizeof(places[0]);

	for (unsigned pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < n; i++) {
			for (size_t j = i + 1; j < n; j++)
				cr_assert_eq(read_closed(places[i], places[j] - places[i]), 0);
		}
		if (sf != NULL)
			cr_assert_eq(staged_park(&sf), 0);
		srig_commit(&s);
	}
}

Test(staged_closed, tells_what_is_not_as_it_was)
{
	char path[128], other[140];
	int fd;

	srig_file_path(&s, ID, path, sizeof(path));
	fd = open(path, O_RDWR);
	cr_assert_geq(fd, 0);
	cr_assert_eq(pwrite(fd, "?", 1, STAGED_BLOCK + 7), 1);
	cr_assert_eq(read_closed(0, SIZE), -EBADMSG);
	cr_assert_eq(read_closed(2 * STAGED_BLOCK - 1, 1), -EBADMSG);
	cr_assert_eq(read_closed(0, STAGED_BLOCK), 0, "the others are right");
	cr_assert_eq(read_closed(2 * STAGED_BLOCK, SIZE - 2 * STAGED_BLOCK), 0);
	/* a hole is zero, and nothing else */
	cr_assert_eq(pwrite(fd, "?", 1, 3 * STAGED_BLOCK), 1);
	cr_assert_eq(read_closed(3 * STAGED_BLOCK, 10), -EBADMSG);
	/* what was punched out is not a hole that was written */
	cr_assert_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, STAGED_BLOCK), 0);
	cr_assert_eq(read_closed(0, 10), -EBADMSG);
	cr_assert_eq(pwrite(fd, "?", 1, SIZE - 1), 1);
	cr_assert_eq(read_closed(SIZE - 1, 1), -EBADMSG);
	cr_assert_eq(ftruncate(fd, (off_t)SIZE - 1), 0);
	cr_assert_eq(read_closed(5 * STAGED_BLOCK, 10), -ENODATA);
	close(fd);
	snprintf(other, sizeof(other), "%s.away", path);
	cr_assert_eq(rename(path, other), 0);
	cr_assert_eq(read_closed(0, 1), -ENOENT);
	cr_assert_eq(rename(other, path), 0);
	srig_sums_path(&s, ID, path, sizeof(path));
	snprintf(other, sizeof(other), "%s.away", path);
	cr_assert_eq(rename(path, other), 0);
	cr_assert_eq(read_closed(4 * STAGED_BLOCK, 1), -ENOENT);
	cr_assert_eq(rename(other, path), 0);
}
