/* SPDX-License-Identifier: BSD-2-Clause */
/* Many at once: shared syncs and snapshots, one's failure, room that runs out. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/obj.h"
#include "disk_log.h"
#include "meta_rig.h"

static struct meta_rig g;

static void init(void)
{
	meta_rig_init_in(&g, "/dev/shm"); /* syncs are counted, not timed */
}

static void fini(void)
{
	meta_rig_fini(&g);
}

TestSuite(meta_group, .init = init, .fini = fini);

#define MANY 200

struct one {
	struct meta_txn txn;
	struct meta_get get;
	struct meta_rig_end end;
	struct meta_change ch[3];
	char path[32];
};

static struct one many[MANY];

static void txn_start(struct one *o, unsigned n)
{
	o->txn.req.user = &o->end;
	o->txn.changes = o->ch;
	o->txn.n = n;
	o->end.done = false;
	meta_txn(g.meta, &o->txn, meta_rig_done);
}

static struct one *put_start(unsigned i)
{
	struct one *o = &many[i];

	(void)snprintf(o->path, sizeof(o->path), "d/%u", i);
	o->ch[0] = meta_rig_file(o->path, i);
	txn_start(o, 1);
	return o;
}

static void all_ended(int err)
{
	for (unsigned i = 0; i < MANY; i++)
		cr_assert(many[i].end.done && many[i].end.err == err, "%u: %d", i, many[i].end.err);
}

static void follow(void)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/meta.mdb", g.dir);
	disk_log_start(path);
}

Test(meta_group, those_that_wait_share_one_sync)
{
	meta_rig_open(&g);
	follow();
	for (unsigned i = 0; i < MANY; i++)
		put_start(i);
	meta_rig_settle(&g);
	all_ended(0);
	cr_assert_eq(meta_rig_counter(&g, CTR_META_COMMITS), 1);
	cr_assert_eq(meta_rig_counter(&g, CTR_META_TXNS), MANY);
	cr_assert_eq(disk_log_syncs(), 2, "of the data, and of the page that names it");
	/* What changes nothing needs no sync. */
	for (unsigned i = 0; i < MANY; i++)
		put_start(i);
	meta_rig_settle(&g);
	all_ended(0);
	cr_assert_eq(meta_rig_counter(&g, CTR_META_COMMITS), 1);
	cr_assert_eq(disk_log_syncs(), 2);
	for (unsigned i = 0; i < MANY; i++) {
		struct one *o = &many[i];

		o->get.req.user = &o->end;
		o->get.path = o->path;
		o->end.done = false;
		meta_get(g.meta, &o->get, meta_rig_done);
	}
	meta_rig_settle(&g);
	all_ended(0);
	for (unsigned i = 0; i < MANY; i++)
		cr_assert_eq(many[i].get.rec.mode, i);
	cr_assert_eq(meta_rig_counter(&g, CTR_META_READS), MANY);
	cr_assert_leq(meta_rig_counter(&g, CTR_META_SNAPSHOTS), 4);
	disk_log_stop();
}

Test(meta_group, reads_go_on_while_a_commit_waits_for_the_disk)
{
	struct one *o;

	meta_rig_open(&g);
	cr_assert_eq(meta_rig_put(&g, "d/1", 100), 0);
	follow();
	disk_log_hold(true);
	o = put_start(1);
	while (!disk_log_held()) {
		(void)loop_turn(g.loop, false);
		sched_yield();
	}
	for (int i = 0; i < 20; i++) {
		struct meta_rig_end end = { .done = false };
		struct meta_get get = { .req.user = &end, .path = "d/1" };

		meta_get(g.meta, &get, meta_rig_done);
		while (!end.done)
			(void)loop_turn(g.loop, false);
		cr_assert_eq(end.err, 0);
		cr_assert_eq(get.rec.mode, 100, "not what is not safe yet");
	}
	cr_assert(!o->end.done);
	/* What comes now goes together into the next one. */
	for (unsigned i = 2; i < 50; i++)
		put_start(i);
	cr_assert_eq(meta_rig_counter(&g, CTR_META_COMMITS), 1);
	disk_log_hold(false);
	meta_rig_settle(&g);
	cr_assert_eq(meta_rig_counter(&g, CTR_META_COMMITS), 3);
	cr_assert_eq(meta_rig_mode(&g, "d/1"), 1);
	cr_assert_eq(meta_rig_mode(&g, "d/49"), 49);
	disk_log_stop();
}

Test(meta_group, one_that_fails_does_not_spoil_the_others)
{
	meta_rig_open(&g);
	cr_assert_eq(meta_rig_put(&g, "file", 1), 0);
	for (unsigned i = 0; i < MANY; i++) {
		struct one *o = &many[i];

		if (i % 7 != 3) {
			put_start(i);
			continue;
		}
		(void)snprintf(o->path, sizeof(o->path), "bad/%u", i);
		o->ch[0] = meta_rig_file(o->path, i);
		o->ch[1] = meta_rig_del("file");
		o->ch[2] = meta_rig_file(o->path, i);
		if (i % 2 == 0) { /* fails after it has written */
			o->ch[1] = meta_rig_dir("deep/er/dir", 1);
			o->ch[2] = meta_rig_file("file/x", 1);
		} else { /* before */
			o->ch[0] = meta_rig_file("file/x", 1);
		}
		txn_start(o, 3);
	}
	meta_rig_settle(&g);
	for (unsigned i = 0; i < MANY; i++) {
		bool bad = i % 7 == 3;

		cr_assert(many[i].end.done);
		cr_assert_eq(many[i].end.err, bad ? -ENOTDIR : 0, "%u: %d", i, many[i].end.err);
		cr_assert_eq(meta_rig_mode(&g, many[i].path), bad ? -ENOENT : (int)i);
	}
	cr_assert_eq(meta_rig_mode(&g, "file"), 1);
	cr_assert_eq(meta_rig_mode(&g, "deep/er/dir"), -ENOENT);
	cr_assert_eq(meta_rig_status(&g).records, 2u + MANY - 28 - (MANY % 7 > 3));
	cr_assert_eq(meta_rig_counter(&g, CTR_META_COMMITS), 2);
}

Test(meta_group, an_error_of_the_disk)
{
	struct errtext et;

	meta_rig_open(&g);
	cr_assert_eq(meta_rig_put(&g, "a", 1), 0);
	cr_assert_eq(fault_init("meta.commit=errno:5@1", &et), 0, "%s", et.s);
	cr_assert_eq(meta_rig_put(&g, "a", 2), -EIO);
	cr_assert_not_null(strstr(meta_rig_status(&g).error, "commit: Input/output error"));
	cr_assert_eq(meta_rig_mode(&g, "a"), 1);
	cr_assert_eq(meta_rig_put(&g, "a", 3), 0, "the next one goes");
	cr_assert_eq(meta_rig_mode(&g, "a"), 3);
}

Test(meta_group, a_commit_that_cannot_be_undone)
{
	struct meta_status st;

	meta_rig_open(&g);
	cr_assert_eq(meta_rig_put(&g, "a", 1), 0);
	for (int round = 0; round < 3; round++) {
		int err;

		follow();
		disk_log_fail_meta();
		err = meta_rig_put(&g, "a", 2);
		cr_assert_eq(err, -EIO, "%d", err);
		meta_rig_settle(&g);
		disk_log_stop();
		st = meta_rig_status(&g);
		cr_assert(!st.open, "LMDB does not go on");
		cr_assert_neq(st.error[0], '\0');
		cr_assert_eq(meta_rig_mode(&g, "a"), -EIO);
		if (round == 2)
			break; /* closed in this state */
		test_clock_advance(&g.clock, 4 * NS_PER_S);
		meta_rig_settle(&g);
		cr_assert(meta_rig_status(&g).open, "%s", meta_rig_status(&g).error);
		cr_assert_eq(meta_rig_mode(&g, "a"), 1, "it was not done");
	}
	meta_rig_free(&g);
	meta_rig_open(&g);
	cr_assert_eq(meta_rig_mode(&g, "a"), 1);
	cr_assert_eq(meta_rig_put(&g, "a", 3), 0);
}

/* --- Sweeping */

Test(meta_group, a_large_directory_goes_in_pieces)
{
	static struct meta_change ch[5000];
	static char path[5000][32];
	uint64_t before, rows;
	struct meta_change del = meta_rig_del("big");

	meta_rig_open(&g);
	for (unsigned i = 0; i < ARRAY_LEN(ch); i++) {
		(void)snprintf(path[i], sizeof(path[i]), "big/%u/%u", i % 3, i);
		ch[i] = meta_rig_file(path[i], i);
	}
	cr_assert_eq(meta_rig_txn(&g, ch, ARRAY_LEN(ch)), 0);
	rows = meta_rig_status(&g).records;
	cr_assert_eq(rows, 5004);
	before = meta_rig_counter(&g, CTR_META_COMMITS);
	cr_assert_eq(meta_rig_txn(&g, &del, 1), 0);
	cr_assert_eq(meta_rig_counter(&g, CTR_META_COMMITS), before + 1);
	cr_assert_gt(meta_rig_status(&g).records, 1000, "most of it is still there");
	cr_assert_str_eq(meta_rig_list(&g, "big/1"), "", "under no name");
	/* A daemon that goes away meanwhile leaves the rest to the next. */
	meta_rig_free(&g);
	meta_rig_open(&g);
	meta_rig_settle(&g);
	cr_assert_eq(meta_rig_status(&g).records, 0);
	cr_assert_lt(meta_rig_counter(&g, CTR_META_COMMITS), before + 8, "and then it rests");
}

/* --- Room */

#define BLOB 60000

static int intent(uint64_t id, bool put)
{
	static char blob[BLOB];
	struct meta_change ch = { .verb = put ? META_INTENT_PUT : META_INTENT_DEL,
		.id = id,
		.blob = blob,
		.blob_len = BLOB };

	return meta_rig_txn(&g, &ch, 1);
}

static void check_intents(uint64_t from, uint64_t to)
{
	struct meta_intents all = { .count = 0 };

	cr_assert_eq(meta_rig_intents(&g, &all), 0);
	cr_assert_eq(all.count, to - from, "%zu", all.count);
	for (size_t i = 0; i < all.count; i++) {
		cr_assert_eq(all.intents[i].id, from + i);
		cr_assert_eq(all.intents[i].len, BLOB);
	}
	meta_intents_free(&all);
}

Test(meta_group, the_map_grows)
{
	static char blob[BLOB];
	static struct meta_change ch[100];
	uint64_t id = 1;

	meta_rig_open(&g);
	while (id <= 1500) { /* 90 MB; the map begins with 64 MiB */
		struct meta_rig_end end = { .done = false };
		struct meta_scan scan = { .req.user = &end, .path = "" };

		for (unsigned i = 0; i < ARRAY_LEN(ch); i++, id++)
			ch[i] = (struct meta_change){ .verb = META_INTENT_PUT,
				.id = id,
				.blob = blob,
				.blob_len = BLOB };
		meta_scan(g.meta, &scan, meta_rig_done); /* somebody reads */
		cr_assert_eq(meta_rig_txn(&g, ch, ARRAY_LEN(ch)), 0);
		meta_rig_until(&g, &end.done);
		cr_assert_eq(end.err, 0);
		meta_scan_free(&scan);
	}
	check_intents(1, 1501);
	cr_assert_gt(meta_rig_status(&g).used_bytes, 80 * MIB);
	meta_rig_free(&g);
	meta_rig_open(&g);
	check_intents(1, 1501);
	cr_assert_eq(intent(1501, true), 0);
}

Test(meta_group, the_limit_is_reached)
{
	struct one *large = &many[0], *small = &many[1], *del = &many[2];
	static char blob[META_BLOB_MAX];
	uint64_t id = 1;
	int err;

	meta_rig_set(&g, "meta.size", "16MiB");
	meta_rig_open(&g);
	log_set_level(LOG_LVL_ERROR);
	cr_assert_eq(meta_rig_put(&g, "a", 1), 0);
	while ((err = intent(id, true)) == 0)
		id++;
	cr_assert_eq(err, -ENOSPC);
	cr_assert_gt(id, 200);
	cr_assert_not_null(strstr(meta_rig_status(&g).error, "meta.size"));
	check_intents(1, id);
	cr_assert_eq(meta_rig_mode(&g, "a"), 1);
	/* In one commit: what is too large fails, what is small or deletes does not. */
	large->ch[0] = (struct meta_change){ .verb = META_INTENT_PUT,
		.id = 999999,
		.blob = blob,
		.blob_len = sizeof(blob) };
	small->ch[0] = meta_rig_file("a", 2);
	del->ch[0] = (struct meta_change){ .verb = META_INTENT_DEL, .id = 1 };
	txn_start(large, 1);
	txn_start(del, 1);
	txn_start(small, 1);
	meta_rig_settle(&g);
	cr_assert_eq(large->end.err, -ENOSPC);
	cr_assert_eq(del->end.err, 0);
	cr_assert_eq(small->end.err, 0);
	cr_assert_eq(meta_rig_mode(&g, "a"), 2);
	check_intents(2, id);
	for (uint64_t i = 2; i < id; i++)
		cr_assert_eq(intent(i, false), 0, "deleting goes on");
	/* Large ones need pages in a row, so not quite as much. */
	for (uint64_t i = 1; i < id * 3 / 4; i++)
		cr_assert_eq(intent(i, true), 0, "and makes room: %d", (int)i);
	meta_rig_free(&g);
	meta_rig_open(&g);
	check_intents(1, id * 3 / 4);
}

static void fill(const char *dir, bool full)
{
	static char block[65536];
	char path[128];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/filler", dir);
	if (!full) {
		unlink(path);
		return;
	}
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	cr_assert_geq(fd, 0);
	while (write(fd, block, sizeof(block)) > 0)
		;
	while (write(fd, block, 4096) > 0)
		;
	close(fd);
}

/* The pool's threads must see the mount, so it comes before them. */
TestSuite(meta_disk);

Test(meta_disk, full)
{
	char disk[96];
	uint64_t id = 1;
	int err = 0;

	if (geteuid() != 0)
		cr_skip_test("mounting a tmpfs needs root");
	cr_assert_eq(unshare(CLONE_NEWNS), 0);
	cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	meta_rig_init(&g);
	(void)snprintf(disk, sizeof(disk), "%s/disk", g.top);
	cr_assert_eq(mkdir(disk, 0700), 0);
	cr_assert_eq(mount("disk", disk, "tmpfs", 0, "size=8m,mode=0700"), 0);
	(void)snprintf(g.dir, sizeof(g.dir), "%s/disk/meta", g.top);
	meta_rig_open(&g);
	for (int round = 0; round < 3; round++) {
		cr_assert_eq(intent(id++, true), 0);
		fill(disk, true);
		for (int i = 0; i < 200; i++) {
			err = intent(id, true);
			if (err != 0)
				break;
			id++;
		}
		cr_assert_eq(err, -ENOSPC, "%d in round %d, %d", err, round, (int)id);
		cr_assert_not_null(strstr(meta_rig_status(&g).error, "no space left"));
		check_intents(1, id);
		/* All that come together fail, or do not, each as it is. */
		for (unsigned i = 0; i < MANY; i++)
			put_start(i);
		meta_rig_settle(&g);
		for (unsigned i = 0; i < MANY; i++) {
			struct one *o = &many[i];
			int mode = meta_rig_mode(&g, o->path);

			cr_assert(o->end.done && (o->end.err == 0 || o->end.err == -ENOSPC));
			cr_assert(o->end.err != 0 || mode == (int)i);
		}
		if (round == 1) {
			meta_rig_free(&g);
			meta_rig_open(&g);
		}
		check_intents(1, id);
		fill(disk, false);
	}
	cr_assert_eq(intent(id++, true), 0);
	check_intents(1, id);
	/* No room to begin with. */
	meta_rig_free(&g);
	fill(disk, true);
	(void)snprintf(g.dir, sizeof(g.dir), "%s/disk/meta2", g.top);
	meta_rig_new(&g);
	meta_open(g.meta);
	meta_rig_settle(&g);
	cr_assert(!meta_rig_status(&g).open);
	fill(disk, false);
	test_clock_advance(&g.clock, 5 * NS_PER_S);
	meta_rig_settle(&g);
	cr_assert(meta_rig_status(&g).open, "%s", meta_rig_status(&g).error);
	meta_rig_free(&g);
	cr_assert_eq(umount2(disk, MNT_DETACH), 0);
	meta_rig_fini(&g);
}
