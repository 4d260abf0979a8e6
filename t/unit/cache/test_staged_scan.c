/* SPDX-License-Identifier: BSD-2-Clause */
/* Which durable files lie in the directory that nobody has: a page at a time. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "../../lib/nth_fault.h"
#include "staged_rig.h"

#define ID (STAGED_DURABLE_BIT | 0x1234)
#define LEN 100
#define MANY 2500
#define PAGE 1000 /* of names, of which a file has two */

static struct staged_rig s;
static unsigned char data[LEN];

static void setup(void)
{
	struct timespec now;

	srig_init(&s);
	clock_gettime(CLOCK_REALTIME, &now);
	s.g.clock.wall_ns = ((uint64_t)now.tv_sec + 100) * NS_PER_S;
}

static void teardown(void)
{
	srig_fini(&s);
}

TestSuite(staged_scan, .init = setup, .fini = teardown);

static struct staged *write_one(uint64_t id)
{
	struct staged *sf = srig_create(&s, id, NULL);

	cr_assert_eq(srig_do(&s, sf, staged_write, 0, LEN, data), 0);
	return sf;
}

static bool there(const char *suffix)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%llx%s", s.dir, (unsigned long long)ID, suffix);
	return access(path, F_OK) == 0;
}

struct scan {
	struct staging_scan sc;
	bool done;
	int err;
};

static void scan_done(struct staging_scan *sc, int err)
{
	struct scan *x = container_of(sc, struct scan, sc);

	x->done = true;
	x->err = err;
}

static bool scan_is_done(void *arg)
{
	return ((struct scan *)arg)->done;
}

static void page(struct scan *x)
{
	x->done = false;
	x->sc.done = scan_done;
	staging_scan(s.st, &x->sc);
	cr_assert(!x->done);
	cr_assert(rig_until(&s.g, scan_is_done, x));
	cr_assert_eq(x->err, 0);
}

static size_t scan(uint64_t age, uint64_t *first)
{
	struct scan x = {.sc = {.age_ns = age}};
	size_t n;

	page(&x);
	cr_assert(!x.sc.more);
	n = x.sc.n;
	*first = n > 0 ? x.sc.ids[0] : 0;
	free(x.sc.ids);
	return n;
}

Test(staged_scan, finds_what_nobody_has)
{
	struct staged *plain = srig_create(&s, 7, NULL), *sf;
	uint64_t id;

	cr_assert_eq(scan(0, &id), 0);
	cr_assert_eq(srig_do(&s, plain, staged_write, 0, LEN, data), 0);
	sf = write_one(ID);
	cr_assert_eq(scan(0, &id), 0, "it is in memory");
	staged_close(&sf);
	cr_assert_eq(scan(0, &id), 0, "it has rows");
	sf = srig_open(&s, ID, NULL);
	cr_assert_eq(staged_park(&sf), 0);
	cr_assert_eq(scan(1000 * NS_PER_S, &id), 0, "it is young");
	cr_assert_eq(scan(50 * NS_PER_S, &id), 1);
	cr_assert_eq(id, ID);
	staging_sweep(s.st);
	rig_settle(&s.g);
	cr_assert(there("") && there(STAGED_SUMS), "swept away");
	staging_discard(s.st, ID);
	rig_settle(&s.g);
	cr_assert(!there("") && !there(STAGED_SUMS));
	cr_assert_eq(scan(0, &id), 0);
	staged_close(&plain);
}

Test(staged_scan, may_be_left)
{
	struct scan x = {.sc = {.done = scan_done}};
	struct staged *sf = write_one(ID);

	staging_scan(s.st, &x.sc);
	staging_scan_abort(&x.sc);
	staging_scan(s.st, &x.sc);
	rig_settle(&s.g);
	cr_assert(x.done);
	free(x.sc.ids);
	staging_scan_abort(&x.sc);
	staged_close(&sf);
}

/* --- Many */

static uint64_t id_of(unsigned i)
{
	return STAGED_DURABLE_BIT | (i * UINT64_C(0x9e3779b97f4a7c15) >> 1);
}

static void make(unsigned i, const char *suffix)
{
	char path[160];
	int fd;

	snprintf(path, sizeof(path), "%s/%llx%s", s.dir, (unsigned long long)id_of(i), suffix);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	cr_assert_geq(fd, 0);
	close(fd);
}

static void make_many(void)
{
	struct staged *sf = write_one(ID); /* makes the directory */

	staged_close(&sf);
	for (unsigned i = 1; i <= MANY; i++) {
		make(i, "");
		make(i, STAGED_SUMS);
	}
}

static int by_id(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* What is found may go while the rest is looked for. */
static void all_pages(bool discard)
{
	static uint64_t ids[2 * MANY];
	struct scan x = {.done = false};
	size_t n = 0, distinct = 0;

	do {
		page(&x);
		cr_assert_leq(x.sc.n, PAGE);
		cr_assert_leq(n + x.sc.n, 2 * MANY);
		for (size_t i = 0; i < x.sc.n; i++) {
			ids[n++] = x.sc.ids[i];
			if (discard)
				staging_discard(s.st, x.sc.ids[i]);
		}
		free(x.sc.ids);
	} while (x.sc.more);
	qsort(ids, n, sizeof(ids[0]), by_id);
	for (size_t i = 0; i < n; i++)
		distinct += i == 0 || ids[i] != ids[i - 1];
	cr_assert_eq(distinct, MANY);
}

Test(staged_scan, a_page_at_a_time)
{
	uint64_t id;

	make_many();
	all_pages(false);
	all_pages(true);
	rig_settle(&s.g);
	cr_assert_eq(scan(0, &id), 0);
}

Test(staged_scan, may_be_left_between_two_pages)
{
	struct scan x = {.done = false};

	make_many();
	page(&x);
	cr_assert(x.sc.more);
	free(x.sc.ids);
	staging_scan_abort(&x.sc);
	all_pages(false);
}

Test(staged_scan, every_allocation_may_fail)
{
	struct staged *sf = write_one(ID);
	struct scan x;

	cr_assert_eq(staged_park(&sf), 0);
	srig_commit(&s);
	for (unsigned n = 1;; n++) {
		x = (struct scan){.sc = {.done = scan_done}};
		nth_arm(n);
		staging_scan(s.st, &x.sc);
		cr_assert(rig_until(&s.g, scan_is_done, &x));
		nth_disarm();
		cr_assert(x.err == 0 ? x.sc.n == 1 : x.err == -ENOMEM && x.sc.ids == NULL);
		cr_assert(!x.sc.more);
		free(x.sc.ids);
		if (!nth_fired())
			break;
	}
}
