/* SPDX-License-Identifier: BSD-2-Clause */
/* FORGETs that a daemon has read when it dies in the window of a hand-over. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/forgets.h"
#include "takeover/forgets_log.h"
#include "takeover/held.h"

#define EPOCH 5

static struct {
	char path[64];
	int dir;
	struct forgets_log fl;
	struct counts *counts;
} rig;

static void setup(void)
{
	strcpy(rig.path, "/dev/shm/batonfs-test.XXXXXX");
	cr_assert_not_null(mkdtemp(rig.path));
	rig.dir = open(rig.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cr_assert_geq(rig.dir, 0);
	cr_assert_eq(counts_create(&rig.counts), 0);
	cr_assert_eq(forgets_log_begin(&rig.fl, rig.dir, EPOCH), 0);
}

static void teardown(void)
{
	forgets_log_end(&rig.fl);
	forgets_log_drop(rig.dir);
	counts_close(&rig.counts);
	close(rig.dir);
	cr_assert_eq(rmdir(rig.path), 0, "a file was left");
}

TestSuite(forgets_log, .init = setup, .fini = teardown);

/* As the kernel writes it; len: of all. */
static size_t comes(uint32_t opcode, uint64_t node, size_t len)
{
	struct fuse_in_header in = {.len = (uint32_t)len, .opcode = opcode, .nodeid = node};
	unsigned char *at = forgets_log_next(&rig.fl);

	cr_assert_not_null(at);
	memset(at, 0xff, len);
	memcpy(at, &in, sizeof(in));
	return len;
}

static void forget(uint64_t node, size_t len)
{
	forgets_log_keep(&rig.fl, comes(FUSE_FORGET, node, len));
}

/* Who recovers from that epoch finds those of the nodes 1 to n. */
static void finds(uint64_t from, unsigned n, uint64_t counted)
{
	struct held_list got = STAILQ_HEAD_INITIALIZER(got);
	struct fuse_in_header in;
	struct held_req *r;
	uint64_t skip = 77;
	unsigned i = 0;

	forgets_log_take(rig.dir, from, rig.counts, &got, &skip);
	STAILQ_FOREACH(r, &got, link)
	{
		memcpy(&in, r->raw, sizeof(in));
		cr_assert_eq(in.len, r->len);
		cr_assert_eq(in.nodeid, ++i);
	}
	cr_assert_eq(i, n, "%u, not %u", i, n);
	if (n > 0)
		cr_assert_eq(skip, counted);
	held_free(&got);
}

Test(forgets_log, what_was_read_is_found_and_nothing_else)
{
	finds(EPOCH, 0, 0);
	comes(FUSE_LOOKUP, 9, 60);
	forgets_log_pass(&rig.fl);
	finds(EPOCH, 0, 0);
	forget(1, 48);
	comes(FUSE_WRITE, 9, 4096);
	forgets_log_pass(&rig.fl);
	forgets_log_keep(&rig.fl, comes(FUSE_BATCH_FORGET, 2, 1003));
	forget(3, 48);
	finds(EPOCH, 3, 0);
	forgets_log_end(&rig.fl);
	finds(EPOCH, 3, 0);
	forgets_log_drop(rig.dir);
	finds(EPOCH, 0, 0);
}

/* The one that it has just been given, too; other requests come again. */
Test(forgets_log, the_last_that_its_reader_died_with)
{
	forget(1, 48);
	comes(FUSE_FORGET, 2, 48);
	finds(EPOCH, 2, 0);
	comes(FUSE_READ, 2, 80);
	finds(EPOCH, 1, 0);
}

/* What somebody writes cannot be taken for a FORGET. */
Test(forgets_log, what_was_there_before_is_no_request)
{
	struct fuse_in_header forged = {.len = 48, .opcode = FUSE_FORGET, .nodeid = 2};
	unsigned char *at;

	comes(FUSE_WRITE, 9, 400);
	at = forgets_log_next(&rig.fl);
	memcpy(at + 48, &forged, sizeof(forged));
	forgets_log_pass(&rig.fl);
	forget(1, 48);
	finds(EPOCH, 1, 0);
}

Test(forgets_log, is_of_one_epoch)
{
	forget(1, 48);
	forget(2, 48);
	finds(EPOCH - 1, 0, 0);
	finds(EPOCH + 2, 0, 0);
	/* The next one does not say how far it has come, or does. */
	finds(EPOCH + 1, 0, 0);
	forgets_begin(rig.counts, EPOCH + 1);
	finds(EPOCH + 1, 2, 0);
	forgets_begin(rig.counts, EPOCH + 2);
	finds(EPOCH + 1, 0, 0);
}

Test(forgets_log, grows)
{
	unsigned n;

	for (n = 1; n <= 100; n++)
		forget(n, 40000 + n);
	finds(EPOCH, 100, 0);
}

Test(forgets_log, begins_anew)
{
	forget(1, 48);
	forgets_log_end(&rig.fl);
	cr_assert_eq(forgets_log_begin(&rig.fl, rig.dir, EPOCH + 4), 0);
	finds(EPOCH, 0, 0);
	finds(EPOCH + 4, 0, 0);
	forget(1, 48);
	finds(EPOCH + 4, 1, 0);
}

/* Memory alone: as good to read into, and nobody finds anything. */
Test(forgets_log, without_a_place)
{
	unsigned n;

	forgets_log_end(&rig.fl);
	forgets_log_drop(rig.dir);
	cr_assert_eq(forgets_log_begin(&rig.fl, -1, EPOCH), 0);
	for (n = 1; n <= 100; n++)
		forget(n, 40000);
	comes(FUSE_READ, 2, 80);
	forgets_log_pass(&rig.fl);
	finds(EPOCH, 0, 0);
}

Test(forgets_log, cut_off_or_damaged)
{
	struct held_list got;
	uint64_t skip;
	char name[96];
	int fd;

	forget(1, 48);
	forget(2, 48);
	forgets_log_end(&rig.fl);
	snprintf(name, sizeof(name), "%s/window", rig.path);
	for (off_t len = 131; len >= 0; len--) {
		cr_assert_eq(truncate(name, len), 0);
		STAILQ_INIT(&got);
		forgets_log_take(rig.dir, EPOCH, rig.counts, &got, &skip);
		held_free(&got);
	}
	fd = open(name, O_WRONLY | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	cr_assert_eq(pwrite(fd, "no log of ours, but long enough for its head", 44, 0), 44);
	close(fd);
	finds(EPOCH, 0, 0);
}
