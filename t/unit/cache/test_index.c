/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "rig.h"

static struct rig g; /* only for its directory */
static struct index *ix;
static struct index_ops ops;
static struct errtext why, et;
static int dir_fd;

static const uint32_t crc[16] = {1, 2, 3, 4};

static void reopen(void)
{
	index_close(&ix);
	cr_assert_eq(index_open(&ix, g.dir, dir_fd, GIB, RIG_PAGE, &g.epoch, &why, &et), 0, "%s",
	    et.s);
	cr_assert_str_empty(why.s);
}

static void index_rig(void)
{
	rig_init(&g, true);
	STAILQ_INIT(&ops);
	dir_fd = open(g.dir, O_RDONLY | O_DIRECTORY);
	reopen();
}

static void fini(void)
{
	index_close(&ix);
	close(dir_fd);
	rig_fini(&g);
}

TestSuite(cache_index, .init = index_rig, .fini = fini);

static struct index_key key(unsigned char n, const char *text)
{
	struct index_key k = {.text = text, .text_len = (uint32_t)strlen(text), .size = 10 * MIB};

	k.hash[0] = n;
	return k;
}

static void add(enum index_verb verb, struct index_key k, uint64_t page, uint64_t when)
{
	struct index_op *op = calloc(1, sizeof(*op));

	op->verb = verb;
	op->key = k;
	op->page = page;
	op->when = when;
	if (verb == INDEX_PUT_PAGE || verb == INDEX_DEL_PAGE)
		op->bytes = RIG_PAGE;
	if (verb == INDEX_PUT_PAGE) {
		op->crc = crc;
		op->ncrc = 16;
	}
	STAILQ_INSERT_TAIL(&ops, op, link);
}

static void drop_ops(void)
{
	struct index_op *op;

	while ((op = STAILQ_FIRST(&ops)) != NULL) {
		STAILQ_REMOVE_HEAD(&ops, link);
		free(op);
	}
}

static int apply(void)
{
	int err = index_apply(ix, &ops);

	drop_ops();
	return err;
}

Test(cache_index, pages_come_back)
{
	uint64_t present[4] = {0}, bytes = 0;
	struct index_key k = key(1, "a");

	add(INDEX_PUT_PAGE, k, 3, 100);
	add(INDEX_PUT_PAGE, k, 70, 100);
	add(INDEX_PUT_PAGE, k, 70, 100); /* again: counted once */
	cr_assert_eq(apply(), 0);
	reopen();
	cr_assert_eq(index_load(ix, &k, 160, present, &bytes), 0);
	cr_assert_eq(present[0], 1 << 3);
	cr_assert_eq(present[1], 1 << 6);
	cr_assert_eq(bytes, 2 * RIG_PAGE);
	cr_assert_eq(index_used(ix), 2 * RIG_PAGE);
	add(INDEX_DEL_PAGE, k, 3, 0);
	add(INDEX_DEL_PAGE, k, 4, 0); /* not there */
	cr_assert_eq(apply(), 0);
	cr_assert_eq(index_used(ix), RIG_PAGE);
}

Test(cache_index, same_hash_another_file)
{
	uint64_t present[4] = {0}, bytes;
	struct index_key a = key(1, "a"), b = key(1, "b");

	add(INDEX_PUT_PAGE, a, 0, 100);
	add(INDEX_PUT_PAGE, b, 1, 100);
	add(INDEX_DEL_PAGE, b, 0, 100);
	cr_assert_eq(apply(), 0);
	cr_assert_eq(index_load(ix, &b, 160, present, &bytes), -EEXIST);
	cr_assert_eq(index_load(ix, &a, 160, present, &bytes), 0);
	cr_assert_eq(present[0], 1, "the other file's page did not come in, nor take ours out");
}

Test(cache_index, oldest_first_and_touch)
{
	struct index_old old[8];
	unsigned n;

	add(INDEX_PUT_PAGE, key(1, "a"), 0, 100);
	add(INDEX_PUT_PAGE, key(2, "b"), 0, 200);
	add(INDEX_PUT_PAGE, key(3, "c"), 0, 300);
	add(INDEX_TOUCH, key(1, "a"), 0, 400);
	add(INDEX_TOUCH, key(9, "none"), 0, 50);
	cr_assert_eq(apply(), 0);
	cr_assert_eq(index_oldest(ix, old, 8, &n), 0);
	cr_assert_eq(n, 3);
	cr_assert_eq(old[0].hash[0], 2);
	cr_assert_eq(old[1].hash[0], 3);
	cr_assert_eq(old[2].hash[0], 1);
	cr_assert_eq(index_oldest(ix, old, 2, &n), 0);
	cr_assert_eq(n, 2);
}

Test(cache_index, a_deleted_blob_leaves_nothing)
{
	uint64_t present[4] = {0}, bytes;
	struct index_key k = key(2, "b");
	struct index_old old[8];
	struct index_op *op;
	unsigned n;

	add(INDEX_PUT_PAGE, key(1, "a"), 0, 100);
	for (unsigned i = 0; i < 100; i++)
		add(INDEX_PUT_PAGE, k, i, 200);
	add(INDEX_PUT_PAGE, key(3, "c"), 0, 300);
	cr_assert_eq(apply(), 0);
	add(INDEX_DEL_BLOB, k, 0, 0);
	op = STAILQ_FIRST(&ops);
	cr_assert_eq(index_apply(ix, &ops), 0);
	cr_assert_eq(op->freed, 100 * RIG_PAGE);
	drop_ops();
	cr_assert_eq(index_load(ix, &k, 160, present, &bytes), -ENOENT);
	cr_assert_eq(index_used(ix), 2 * RIG_PAGE);
	cr_assert_eq(index_oldest(ix, old, 8, &n), 0);
	cr_assert_eq(n, 2);
	cr_assert_eq(index_bytes(ix, key(1, "a").hash, &bytes), 0);
	cr_assert_eq(bytes, RIG_PAGE, "neighbours stay");
}

Test(cache_index, a_passed_epoch_changes_nothing)
{
	_Atomic uint64_t word = 7;
	uint64_t bytes;

	add(INDEX_PUT_PAGE, key(1, "a"), 0, 100);
	g.epoch.word = &word;
	g.epoch.mine = 6;
	cr_assert_eq(apply(), -ESTALE);
	cr_assert_eq(index_bytes(ix, key(1, "a").hash, &bytes), -ENOENT);
	index_close(&ix);
	cr_assert_eq(index_open(&ix, g.dir, dir_fd, GIB, RIG_PAGE, &g.epoch, &why, &et), -ESTALE);
	g.epoch.word = NULL;
}

Test(cache_index, what_was_left_is_taken_in_once)
{
	uint64_t present[4] = {0}, bytes;
	struct index_key k = key(1, "some/path");

	add(INDEX_PUT_PAGE, k, 5, 100);
	add(INDEX_TOUCH, k, 0, 500);
	cr_assert_eq(index_leave(dir_fd, &ops), 0);
	drop_ops();
	reopen();
	cr_assert_eq(faccessat(dir_fd, "index.tail", F_OK, 0), -1);
	cr_assert_eq(index_load(ix, &k, 160, present, &bytes), 0);
	cr_assert_eq(present[0], 1 << 5);
}

Test(cache_index, a_left_batch_of_which_any_byte_is_wrong_is_ignored)
{
	uint64_t bytes;
	unsigned char x;
	int fd;

	for (off_t off = 0; off < 100; off += 7) {
		add(INDEX_PUT_PAGE, key(1, "a"), 5, 100);
		cr_assert_eq(index_leave(dir_fd, &ops), 0);
		drop_ops();
		fd = openat(dir_fd, "index.tail", O_RDWR);
		cr_assert_eq(pread(fd, &x, 1, off), 1);
		x ^= 0x10;
		cr_assert_eq(pwrite(fd, &x, 1, off), 1);
		close(fd);
		reopen();
		cr_assert_eq(index_bytes(ix, key(1, "a").hash, &bytes), -ENOENT);
	}
}

Test(cache_index, reused_blobs_come_last_and_survive_a_restart)
{
	struct index_old old[8];
	unsigned n;

	for (unsigned char i = 1; i <= 4; i++)
		add(INDEX_PUT_PAGE, key(i, "x"), 0, i * 100);
	add(INDEX_REUSE, key(1, "x"), 0, 410);
	add(INDEX_REUSE, key(2, "x"), 0, 420);
	add(INDEX_REUSE, key(1, "x"), 0, 430);
	add(INDEX_TOUCH, key(3, "x"), 0, 440);
	cr_assert_eq(apply(), 0);
	reopen();
	cr_assert_eq(index_oldest(ix, old, 8, &n), 0);
	cr_assert_eq(n, 4);
	cr_assert_eq(old[0].hash[0], 4);
	cr_assert_eq(old[1].hash[0], 3);
	cr_assert_eq(old[2].hash[0], 2);
	cr_assert_eq(old[3].hash[0], 1);
	cr_assert(!old[1].reused && old[2].reused && old[3].reused);
	add(INDEX_TOUCH, key(2, "x"), 0, 450);
	cr_assert_eq(apply(), 0);
	cr_assert_eq(index_oldest(ix, old, 8, &n), 0);
	cr_assert_eq(old[2].hash[0], 1);
	cr_assert(old[3].reused, "one more use takes nothing away");
}

/* GIB of capacity: 8 blobs of 100 MiB reused are more than 6/8 of it. */
Test(cache_index, what_was_reused_long_ago_gives_way)
{
	struct index_old old[10];
	struct index_op *op;
	unsigned n, reused = 0;

	for (unsigned char i = 1; i <= 9; i++) {
		add(INDEX_PUT_PAGE, key(i, "x"), 0, i);
		if (i < 9)
			add(INDEX_REUSE, key(i, "x"), 0, 100 + i);
	}
	STAILQ_FOREACH(op, &ops, link) {
		if (op->verb == INDEX_PUT_PAGE)
			op->bytes = 100 * MIB;
	}
	cr_assert_eq(apply(), 0);
	cr_assert_eq(index_oldest(ix, old, 10, &n), 0);
	cr_assert_eq(n, 9);
	cr_assert_eq(old[0].hash[0], 9, "used once, and before");
	cr_assert_eq(old[1].hash[0], 1, "the longest unused of the reused");
	for (unsigned i = 0; i < n; i++)
		reused += old[i].reused;
	cr_assert_eq(reused, 7);
	for (unsigned char i = 1; i <= 9; i++)
		add(INDEX_DEL_BLOB, key(i, "x"), 0, 0);
	cr_assert_eq(apply(), 0);
	cr_assert_eq(index_used(ix), 0);
	cr_assert_eq(index_oldest(ix, old, 10, &n), 0);
	cr_assert_eq(n, 0);
}

/* Pages of the map that cannot be read, as after an error of the disk. */
static void fail_pages(void)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/index.mdb", g.dir);
	cr_assert_eq(truncate(path, 8192), 0);
}

static void fill_many(void)
{
	for (unsigned char n = 0; n < 200; n++) {
		for (uint64_t page = 0; page < 20; page++)
			add(INDEX_PUT_PAGE, key(n, "key"), page, 1);
	}
	cr_assert_eq(index_apply(ix, &ops), 0);
	drop_ops();
}

static void begins_afresh(void)
{
	uint64_t bytes;

	cr_assert(index_broken(ix));
	cr_assert_eq(index_bytes(ix, key(3, "key").hash, &bytes), -EIO);
	index_close(&ix);
	cr_assert_eq(index_open(&ix, g.dir, dir_fd, GIB, RIG_PAGE, &g.epoch, &why, &et), 0, "%s",
	    et.s);
	cr_assert_not(index_broken(ix));
	cr_assert_eq(index_bytes(ix, key(3, "key").hash, &bytes), -ENOENT);
}

Test(cache_index, a_page_that_cannot_be_read_breaks_the_index_only)
{
	uint64_t present[8] = {0}, bytes;
	struct index_key k = key(3, "key");
	struct index_old old[8];
	unsigned n;

	fill_many();
	cr_assert_eq(index_load(ix, &k, 160, present, &bytes), 0);
	fail_pages();
	cr_assert_eq(index_load(ix, &k, 160, present, &bytes), -EIO);
	cr_assert_eq(index_oldest(ix, old, 8, &n), -EIO);
	begins_afresh();
}

Test(cache_index, a_cursor_that_meets_such_a_page_is_ended)
{
	struct index_old old[8];
	unsigned n;

	fill_many();
	fail_pages();
	cr_assert_eq(index_oldest(ix, old, 8, &n), -EIO);
	begins_afresh();
}

Test(cache_index, a_write_that_meets_such_a_page_breaks_the_index_only)
{
	fill_many();
	fail_pages();
	add(INDEX_PUT_PAGE, key(3, "key"), 77, 2);
	cr_assert_eq(index_apply(ix, &ops), -EIO);
	cr_assert_eq(index_apply(ix, &ops), -EIO);
	drop_ops();
	begins_afresh();
}
