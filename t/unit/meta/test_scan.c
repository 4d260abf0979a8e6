/* SPDX-License-Identifier: BSD-2-Clause */
/* Windows over a directory, with every byte that a name can have. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/obj.h"
#include "meta_rig.h"

static struct meta_rig g;

static void init(void)
{
	meta_rig_init(&g);
	meta_rig_open(&g);
}

static void fini(void)
{
	meta_rig_fini(&g);
	meta_rig_last();
}

TestSuite(meta_scan, .init = init, .fini = fini);

#define NAMES 1000
static char names[NAMES][8];
static unsigned count;

static int by_bytes(const void *a, const void *b)
{
	return strcmp(a, b); /* compares as unsigned char */
}

/* One byte of each value, and pairs around the ends of the alphabet. */
static void make_names(void)
{
	static const unsigned char ends[] = { 0x01, 0x02, 0x2e, 0x30, 0x7f, 0x80, 0xfe, 0xff };
	struct meta_change ch[NAMES];
	char paths[NAMES][16];

	count = 0;
	for (unsigned c = 1; c <= 0xff; c++) {
		if (c != '/' && c != '.')
			snprintf(names[count++], sizeof(names[0]), "%c", (int)c);
	}
	for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
		for (size_t j = 0; j < ARRAY_LEN(ends); j++) {
			if (ends[i] != '.' || ends[j] != '.')
				snprintf(names[count++], sizeof(names[0]), "%c%c", ends[i], ends[j]);
		}
	}
	for (unsigned i = 0; i < count; i++) {
		snprintf(paths[i], sizeof(paths[i]), "dir/%s", names[i]);
		ch[i] = meta_rig_file(paths[i], i);
	}
	cr_assert_eq(meta_rig_txn(&g, ch, count), 0);
	/* Neighbours of the range. */
	cr_assert_eq(meta_rig_put(&g, "dir0/x", 1), 0);
	cr_assert_eq(meta_rig_put(&g, "\xff/x", 1), 0);
	qsort(names, count, sizeof(names[0]), by_bytes);
}

Test(meta_scan, every_window)
{
	make_names();
	for (unsigned from = 0; from <= count; from += 7) {
		for (unsigned to = from; to <= count; to += 41) {
			struct meta_scan scan = { .path = "dir",
				.after = from > 0 ? names[from - 1] : NULL,
				.last = to < count ? names[to] : NULL };
			unsigned want = (to < count ? to + 1 : count) - from;

			cr_assert_eq(meta_rig_scan(&g, &scan), 0);
			cr_assert_eq(scan.count, want, "%u..%u: %zu", from, to, scan.count);
			cr_assert(!scan.more);
			for (unsigned i = 0; i < want; i++)
				cr_assert_str_eq(scan.entries[i].name, names[from + i]);
			meta_scan_free(&scan);
		}
	}
}

Test(meta_scan, in_pages)
{
	struct meta_scan scan = { .path = "dir", .max = 10 };
	char after[8] = "";
	unsigned n = 0;

	make_names();
	do {
		scan.after = n > 0 ? after : NULL;
		cr_assert_eq(meta_rig_scan(&g, &scan), 0);
		cr_assert_eq(scan.count, count - n < 10 ? count - n : 10);
		cr_assert_eq(scan.more, n + scan.count < count);
		for (size_t i = 0; i < scan.count; i++)
			cr_assert_str_eq(scan.entries[i].name, names[n++]);
		strcpy(after, names[n - 1]);
	} while (scan.more);
	cr_assert_eq(n, count);
	meta_scan_free(&scan);
	meta_scan_free(&scan);
	cr_assert_eq(scan.count, 0);
}

Test(meta_scan, bounds_that_are_not_there)
{
	struct meta_scan scan = { .path = "d" };
	char name[META_NAME_MAX + 2];

	cr_assert_eq(meta_rig_put(&g, "d/b", 1), 0);
	cr_assert_eq(meta_rig_put(&g, "d/bb", 2), 0);
	cr_assert_eq(meta_rig_put(&g, "d/d/sub", 3), 0);
	cr_assert_eq(meta_rig_put(&g, "d/e", 4), 0);
	scan.after = "a";
	scan.last = "c";
	cr_assert_eq(meta_rig_scan(&g, &scan), 0);
	cr_assert_eq(scan.count, 2);
	scan.after = "ba";
	scan.last = "d";
	cr_assert_eq(meta_rig_scan(&g, &scan), 0);
	cr_assert_eq(scan.count, 1, "bb; d says nothing");
	cr_assert_eq(scan.entries[0].rec.mode, 2);
	scan.last = "b";
	cr_assert_eq(meta_rig_scan(&g, &scan), 0);
	cr_assert_eq(scan.count, 0, "an empty window");
	scan.after = "e";
	scan.last = NULL;
	cr_assert_eq(meta_rig_scan(&g, &scan), 0);
	cr_assert_eq(scan.count, 0);
	scan.after = "";
	scan.max = 1;
	cr_assert_eq(meta_rig_scan(&g, &scan), 0);
	cr_assert_eq(scan.count, 1);
	cr_assert(scan.more);
	scan.after = "bb";
	scan.max = 1;
	cr_assert_eq(meta_rig_scan(&g, &scan), 0);
	cr_assert_str_eq(scan.entries[0].name, "e");
	cr_assert(!scan.more, "what says nothing is no more");
	memset(name, 'e', sizeof(name));
	name[META_NAME_MAX + 1] = '\0';
	scan.after = name;
	cr_assert_eq(meta_rig_scan(&g, &scan), -ENAMETOOLONG);
	cr_assert_eq(scan.count, 0);
	name[META_NAME_MAX] = '\0';
	cr_assert_eq(meta_rig_scan(&g, &scan), 0);
	scan.after = NULL;
	scan.path = "none/at/all";
	cr_assert_eq(meta_rig_scan(&g, &scan), 0);
	cr_assert_eq(scan.count, 0);
	meta_scan_free(&scan);
}
