/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ops/counts.h"

TestSuite(counts);

Test(counts, add_and_sub)
{
	struct counts *c;
	uint32_t a, b;

	cr_assert_eq(counts_create(&c), 0);
	cr_assert_eq(counts_alloc(c, &a), 0);
	cr_assert_eq(counts_alloc(c, &b), 0);
	cr_assert_neq(a, b);
	cr_assert_neq(a, 0);
	counts_add(c, a, 3);
	counts_add(c, b, 1);
	cr_assert_eq(counts_get(c, a), 3);
	cr_assert_eq(counts_sub(c, a, 2), 1);
	cr_assert_eq(counts_sub(c, a, 9), 0, "no wrap-around");
	cr_assert_eq(counts_get(c, b), 1);
	counts_close(&c);
	cr_assert_null(c);
}

Test(counts, slots_are_used_again)
{
	struct counts *c;
	uint32_t s[3], t, u;

	cr_assert_eq(counts_create(&c), 0);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(counts_alloc(c, &s[i]), 0);
	counts_add(c, s[1], 7);
	counts_free_slot(c, s[1]);
	cr_assert_eq(counts_get(c, s[1]), 0);
	counts_free_slot(c, s[1]); /* twice does no harm */
	counts_free_slot(c, s[0]);
	cr_assert_eq(counts_alloc(c, &t), 0);
	cr_assert_eq(counts_alloc(c, &u), 0);
	cr_assert(t == s[0] && u == s[1]);
	cr_assert_eq(counts_get(c, u), 0, "a fresh slot counts from 0");
	cr_assert_eq(counts_alloc(c, &t), 0);
	cr_assert(t != s[0] && t != s[1] && t != s[2]);
	counts_close(&c);
}

Test(counts, grows_and_survives_its_process)
{
	enum { N = 100000 };
	struct counts *c, *d;
	uint32_t slot, last = 0;

	cr_assert_eq(counts_create(&c), 0);
	for (int i = 0; i < N; i++) {
		cr_assert_eq(counts_alloc(c, &slot), 0);
		cr_assert_gt(slot, last);
		last = slot;
		counts_add(c, slot, slot);
	}
	counts_free_slot(c, 500);
	cr_assert_eq(counts_adopt(&d, dup(counts_fd(c))), 0);
	counts_close(&c);
	cr_assert_eq(counts_get(d, last), last);
	cr_assert_eq(counts_alloc(d, &slot), 0);
	cr_assert_eq(slot, 500);
	counts_close(&d);
}

/* An older owner of the array sees slots that the newer one added, without a fault. */
Test(counts, unknown_slots_count_nothing)
{
	struct counts *c;

	cr_assert_eq(counts_create(&c), 0);
	cr_assert_eq(counts_get(c, 77), 0);
	counts_add(c, 77, 1);
	cr_assert_eq(counts_get(c, 77), 0);
	cr_assert_eq(counts_sub(c, 4000000000u, 1), 0);
	counts_free_slot(c, 4000000000u);
	counts_free_slot(c, 0);
	counts_close(&c);
}

Test(counts, foreign_descriptors_are_refused)
{
	struct counts *c, *good;
	char junk[4096];
	uint32_t slot;
	int fd, p[2];

	memset(junk, 0x5a, sizeof(junk));
	fd = memfd_create("junk", MFD_CLOEXEC);
	cr_assert_eq(counts_adopt(&c, dup(fd)), -EPROTO, "empty");
	cr_assert_eq(write(fd, junk, sizeof(junk)), (ssize_t)sizeof(junk));
	cr_assert_eq(counts_adopt(&c, dup(fd)), -EPROTO, "no magic");
	cr_assert_null(c);
	/* A good array cut short. */
	cr_assert_eq(counts_create(&good), 0);
	cr_assert_eq(counts_alloc(good, &slot), 0);
	cr_assert_eq(pread(counts_fd(good), junk, sizeof(junk), 0), (ssize_t)sizeof(junk));
	cr_assert_eq(pwrite(fd, junk, sizeof(junk), 0), (ssize_t)sizeof(junk));
	cr_assert_eq(counts_adopt(&c, dup(fd)), -EPROTO, "shorter than it says");
	cr_assert_eq(ftruncate(counts_fd(good), 4096), -1, "nobody can cut the real one");
	cr_assert_eq(pipe(p), 0);
	cr_assert_eq(counts_adopt(&c, p[0]), -EPROTO, "a pipe");
	cr_assert_eq(fcntl(p[0], F_GETFD), -1, "taken over also on failure");
	close(p[1]);
	close(fd);
	counts_close(&good);
}
