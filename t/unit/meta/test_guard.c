/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages of the map that cannot be read, as after an error of the disk. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "meta_rig.h"

#define FILES 2000

static struct meta_rig g;
static char path[128];
static void *image;
static size_t image_len;

static void init(void)
{
	static struct meta_change ch[FILES + 1];
	static char name[FILES][16];

	meta_rig_init(&g);
	meta_rig_open(&g);
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name[i], sizeof(name[i]), "d/%u", i);
		ch[i] = meta_rig_file(name[i], i);
	}
	ch[FILES] = meta_rig_content("content", 1, META_STATE_NOT_PERSISTED, 3);
	cr_assert_eq(meta_rig_txn(&g, ch, FILES + 1), 0);
	snprintf(path, sizeof(path), "%s/meta.mdb", g.dir);
}

static void fini(void)
{
	free(image);
	meta_rig_fini(&g);
}

TestSuite(meta_guard, .init = init, .fini = fini);

/* From here on only the two pages can be read that LMDB keeps its state in. */
static void fail_disk(void)
{
	struct stat st;
	int fd = open(path, O_RDONLY);

	cr_assert_geq(fd, 0);
	cr_assert_eq(fstat(fd, &st), 0);
	image_len = (size_t)st.st_size;
	free(image);
	image = malloc(image_len);
	cr_assert_eq(read(fd, image, image_len), (ssize_t)image_len);
	close(fd);
	cr_assert_eq(truncate(path, 8192), 0);
}

static void mend_disk(void)
{
	int fd = open(path, O_WRONLY);

	cr_assert_eq(pwrite(fd, image, image_len, 0), (ssize_t)image_len);
	close(fd);
}

static void pass(void)
{
	test_loop_pass(g.loop, &g.clock, 4 * NS_PER_S);
	meta_rig_settle(&g);
}

static void is_lost(void)
{
	struct meta_status st = meta_rig_status(&g);

	cr_assert(!st.open);
	cr_assert_not_null(strstr(st.error, "cannot be read"), "%s", st.error);
	cr_assert_eq(meta_rig_put(&g, "another", 1), -EIO);
	pass();
	cr_assert(!meta_rig_status(&g).open, "the disk is no better");
}

static void is_back(void)
{
	struct meta_status st;

	meta_rig_settle(&g);
	mend_disk();
	pass();
	st = meta_rig_status(&g);
	cr_assert(st.open, "%s", st.error);
	cr_assert_str_empty(st.error);
	for (unsigned i = 0; i < FILES; i += 37) {
		char name[32];

		snprintf(name, sizeof(name), "d/%u", i);
		cr_assert_eq(meta_rig_mode(&g, name), (int)i);
	}
	cr_assert_eq(st.tally.files[META_STATE_NOT_PERSISTED], 1);
	cr_assert_eq(meta_rig_put(&g, "another", 0600), 0);
	cr_assert_eq(meta_rig_mode(&g, "another"), 0600);
}

Test(meta_guard, a_read_ends_with_eio)
{
	for (unsigned i = 0; i < 3; i++) {
		fail_disk();
		cr_assert_eq(meta_rig_mode(&g, "d/77"), -EIO);
		is_lost();
		is_back();
	}
}

Test(meta_guard, a_change_ends_with_eio_and_is_not_made)
{
	for (unsigned i = 0; i < 3; i++) {
		fail_disk();
		cr_assert_eq(meta_rig_put(&g, "d/77", 0123), -EIO);
		is_lost();
		is_back();
		cr_assert_eq(meta_rig_mode(&g, "d/77"), 77);
	}
}

Test(meta_guard, whatever_reads)
{
	struct meta_content_get get = {.id = META_RIG_ID(1)};
	struct meta_queue queue = {.until_ns = UINT64_MAX};
	struct meta_scan scan = {.path = "d"};
	struct meta_intents all = {.count = 0};

	fail_disk();
	cr_assert_eq(meta_rig_scan(&g, &scan), -EIO);
	is_back();
	cr_assert_eq(meta_rig_scan(&g, &scan), 0);
	cr_assert_eq(scan.count, 1000);
	fail_disk();
	cr_assert_eq(meta_rig_queue(&g, &queue), -EIO);
	is_back();
	cr_assert_eq(meta_rig_queue(&g, &queue), 0);
	cr_assert_eq(queue.count, 1);
	fail_disk();
	cr_assert_eq(meta_rig_content_get(&g, &get), -EIO);
	is_back();
	cr_assert_eq(meta_rig_content_get(&g, &get), 0);
	cr_assert_str_eq(get.path, "content");
	cr_assert_eq(meta_rig_intents(&g, &all), 0);
	meta_scan_free(&scan);
	meta_queue_free(&queue);
	meta_content_free(&get);
	meta_intents_free(&all);
}

/* Several at once, and requests that wait for their turn. */
Test(meta_guard, all_that_is_under_way_ends)
{
	struct meta_get get[100];
	struct meta_rig_end end[100];
	char name[100][16];

	fail_disk();
	for (unsigned i = 0; i < 100; i++) {
		memset(&get[i], 0, sizeof(get[i]));
		memset(&end[i], 0, sizeof(end[i]));
		snprintf(name[i], sizeof(name[i]), "d/%u", i * 19);
		get[i].path = name[i];
		get[i].req.user = &end[i];
		meta_get(g.meta, &get[i], meta_rig_done);
	}
	meta_rig_settle(&g);
	for (unsigned i = 0; i < 100; i++)
		cr_assert(end[i].done && end[i].err == -EIO, "%u: %d", i, end[i].err);
	is_back();
}
