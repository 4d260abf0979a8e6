/* SPDX-License-Identifier: BSD-2-Clause */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "base/mapguard.h"

static volatile char *map;
static char seen;

static void look(void *arg)
{
	seen = map[*(size_t *)arg];
}

/* A page beyond the end of the file is one that cannot be read. */
static void make_map(void)
{
	char path[] = "/tmp/batonfs-mapguard-XXXXXX";
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	cr_assert_eq(unlink(path), 0);
	cr_assert_eq(write(fd, "x", 1), 1);
	map = mmap(NULL, 1 << 20, PROT_READ, MAP_SHARED, fd, 0);
	cr_assert_neq((void *)(uintptr_t)map, MAP_FAILED);
	close(fd);
}

Test(mapguard, a_page_that_cannot_be_read_ends_the_function_only)
{
	size_t good = 0, bad = 1 << 19;

	make_map();
	for (int i = 0; i < 3; i++) {
		cr_assert(mapguard_run(look, &good));
		cr_assert_eq(seen, 'x');
		cr_assert_not(mapguard_run(look, &bad));
	}
}

Test(mapguard, others_end_the_process_as_before, .signal = SIGBUS)
{
	size_t good = 0;

	make_map();
	cr_assert(mapguard_run(look, &good));
	seen = map[1 << 19];
}

static void send_one(void *arg)
{
	(void)arg;
	(void)raise(SIGBUS);
}

Test(mapguard, one_that_somebody_sends_is_no_map, .signal = SIGBUS)
{
	(void)mapguard_run(send_one, NULL);
}
