/* SPDX-License-Identifier: BSD-2-Clause */
/* Content and room: the map grows, its limit is reached, the disk is full. */
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

#include "base/log.h"
#include "base/obj.h"
#include "base/units.h"
#include "meta_check.h"
#include "meta_rig.h"
#include "reactor/statedb.h"

static struct meta_rig g;
static char bytes[META_BLOB_MAX];

static void init(void)
{
	meta_rig_init_in(&g, "/dev/shm");
}

static void fini(void)
{
	meta_rig_fini(&g);
}

TestSuite(meta_room, .init = init, .fini = fini);

static struct meta_change file(char path[32], unsigned no, enum meta_state state, unsigned size)
{
	struct meta_change ch;

	(void)snprintf(path, 32, "d/%u/%u", no % 7, no);
	ch = meta_rig_content(path, 1 + no, state, size);
	if (state != META_STATE_PERSISTED) {
		ch.blob = bytes;
		ch.blob_len = size;
	}
	return ch;
}

static int put(unsigned no, unsigned size)
{
	char path[32];
	struct meta_change ch = file(path, no, META_STATE_NOT_PERSISTED, size);

	return meta_rig_txn(&g, &ch, 1);
}

/* What is done to persist it: two changes of what is there. */
static int persist(unsigned no, unsigned size)
{
	char path[32];
	struct meta_change ch = file(path, no, META_STATE_NOT_PERSISTED, size);
	int err;

	ch.blob = NULL;
	ch.blob_len = 0;
	ch.if_content = ch.rec.content.id;
	ch.rec.content.doubt = true;
	err = meta_rig_txn(&g, &ch, 1);
	if (err != 0)
		return err;
	ch.rec.content.doubt = false;
	ch.rec.content.state = META_STATE_PERSISTED;
	return meta_rig_txn(&g, &ch, 1);
}

/* As many in one transaction. */
static int put_many(unsigned from, unsigned n, unsigned size)
{
	static struct meta_change ch[50];
	static char path[50][32];

	for (unsigned i = 0; i < n; i++)
		ch[i] = file(path[i], from + i, META_STATE_NOT_PERSISTED, size);
	return meta_rig_txn(&g, ch, n);
}

static int persist_many(unsigned from, unsigned n, unsigned size)
{
	static struct meta_change ch[50];
	static char path[50][32];

	for (unsigned i = 0; i < n; i++) {
		ch[i] = file(path[i], from + i, META_STATE_PERSISTED, size);
		ch[i].if_content = ch[i].rec.content.id;
	}
	return meta_rig_txn(&g, ch, n);
}

Test(meta_room, the_map_grows)
{
	struct meta_check is;

	meta_rig_open(&g);
	for (unsigned no = 0; no < 1500; no += 50) /* 90 MB; it begins with 64 MiB */
		cr_assert_eq(put_many(no, 50, 60000), 0);
	is = meta_check(g.dir);
	cr_assert_eq(is.blobs, 1500);
	cr_assert_eq(is.queued, 1500);
	cr_assert_gt(meta_rig_status(&g).used_bytes, 80 * MIB);
}

Test(meta_room, the_limit_is_reached)
{
	static const unsigned sizes[] = { 60000, 10240, 100 };
	struct meta_change del = meta_rig_del("d");

	meta_rig_set(&g, "meta.size", "16MiB");
	meta_rig_open(&g);
	log_set_level(LOG_LVL_ERROR);
	for (unsigned s = 0; s < ARRAY_LEN(sizes); s++) {
		unsigned n = 0, at = 0;
		int err;

		while ((err = put_many(n, 50, sizes[s])) == 0)
			n += 50;
		cr_assert_eq(err, -ENOSPC);
		while ((err = put(n, sizes[s])) == 0)
			n++;
		cr_assert_eq(err, -ENOSPC);
		cr_assert_gt(n, 200);
		cr_assert_eq(put(0, sizes[s]), 0, "a repetition writes nothing");
		/* What is full empties again. */
		for (; at < 100; at++)
			cr_assert_eq(persist(at, sizes[s]), 0, "%u of %u", at, n);
		for (; at < n; at += 50)
			cr_assert_eq(persist_many(at, MIN(50, n - at), sizes[s]), 0);
		meta_rig_settle(&g);
		cr_assert_eq(meta_check(g.dir).content, n);
		cr_assert_eq(meta_rig_status(&g).tally.files[META_STATE_PERSISTED], n);
		cr_assert_eq(meta_rig_txn(&g, &del, 1), 0);
		meta_rig_settle(&g);
		cr_assert_eq(meta_check(g.dir).rows, 0);
	}
}

static void fill(const char *dir, bool full)
{
	static char block[4096];
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
	close(fd);
}

/* What was answered before it is on the disk finds room there, or was not so answered;
 * nothing waits for it in vain. */
Test(meta_room, the_limit_is_reached_by_what_comes_later)
{
	struct meta_queue q = { .until_ns = UINT64_MAX, .max = 5 };
	char state[] = "/dev/shm/batonfs-room-XXXXXX", path[64];
	unsigned n = 0, taken = 0, refused = 0;
	struct statedb *db;
	struct errtext et;

	meta_rig_set(&g, "meta.size", "16MiB");
	cr_assert_not_null(mkdtemp(state));
	cr_assert_eq(statedb_open(&db, g.loop, state, 32 * MIB, true, &g.epoch, &et), 0, "%s", et.s);
	meta_rig_new(&g);
	cr_assert_eq(meta_set_db(g.meta, db), 0);
	meta_rig_open(&g);
	log_set_level(LOG_LVL_ERROR);
	while (put_many(n, 50, 100) == 0)
		n += 50;
	for (unsigned i = 0; i < 20000 && refused < 50; i++) {
		struct meta_rig_end end = { .done = false };
		struct meta_change ch;
		struct meta_txn rq = { .req.user = &end, .changes = &ch, .n = 1, .later = true };

		(void)snprintf(path, sizeof(path), "later/%u", i);
		ch = meta_rig_file(path, 1);
		meta_txn(g.meta, &rq, meta_rig_done);
		meta_rig_until(&g, &end.done);
		cr_assert(end.err == 0 || end.err == -ENOSPC, "%d", end.err);
		taken += end.err == 0;
		refused += end.err != 0;
	}
	cr_assert_eq(refused, 50, "%u taken", taken);
	meta_flush(g.meta);
	meta_rig_settle(&g);
	cr_assert_eq(meta_waiting(g.meta), 0, "of %u", taken);
	cr_assert_eq(meta_rig_queue(&g, &q), 0);
	cr_assert_eq(q.count, 5);
	meta_queue_free(&q);
	for (unsigned i = 0; i < n; i += 50)
		cr_assert_eq(persist_many(i, 50, 100), 0);
	meta_rig_settle(&g);
	meta_check(g.dir);
	meta_set_db(g.meta, NULL);
	statedb_close(&db);
	(void)snprintf(path, sizeof(path), "%s/data.mdb", state);
	unlink(path);
	rmdir(state);
}

/* The pool's threads must see the mount, so it comes before them. */
TestSuite(meta_room_disk);

/* In top/disk, a small tmpfs. */
static void open_on_disk(char disk[96])
{
	cr_assert_eq(unshare(CLONE_NEWNS), 0);
	cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	meta_rig_init(&g);
	(void)snprintf(disk, 96, "%s/disk", g.top);
	cr_assert_eq(mkdir(disk, 0700), 0);
	cr_assert_eq(mount("disk", disk, "tmpfs", 0, "size=8m,mode=0700"), 0);
	(void)snprintf(g.dir, sizeof(g.dir), "%s/disk/meta", g.top);
	meta_rig_open(&g);
}

static void close_on_disk(const char *disk)
{
	meta_rig_free(&g);
	cr_assert_eq(umount2(disk, MNT_DETACH), 0);
	meta_rig_fini(&g);
}

Test(meta_room_disk, full)
{
	unsigned n = 0, failed = 0, seed = 1;
	char disk[96];

	if (geteuid() != 0)
		cr_skip_test("mounting a tmpfs needs root");
	open_on_disk(disk);
	for (unsigned round = 0; round < 12; round++) {
		fill(disk, round % 2 == 0);
		for (unsigned i = 0; i < 40; i++) {
			uint64_t files = meta_rig_status(&g).tally.files[META_STATE_NOT_PERSISTED];
			int err;

			seed = seed * 1103515245 + 12345;
			if (n > 0 && (seed >> 16) % 3 == 0)
				err = persist((seed >> 18) % n, 5000);
			else
				err = put(n, 5000);
			cr_assert(err == 0 || err == -ENOSPC || err == -EEXIST, "%d", err);
			failed += err == -ENOSPC;
			cr_assert(err == 0 ||
				  meta_rig_status(&g).tally.files[META_STATE_NOT_PERSISTED] == files);
			n += err == 0;
		}
		meta_rig_settle(&g);
		meta_check(g.dir);
		if (round % 4 == 1) {
			meta_rig_free(&g);
			meta_check(g.dir);
			meta_rig_open(&g);
		}
	}
	cr_assert_gt(failed, 5);
	close_on_disk(disk);
}

static uint64_t file_size(void)
{
	char path[128];
	struct stat st;

	(void)snprintf(path, sizeof(path), "%s/meta.mdb", g.dir);
	cr_assert_eq(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

/* Commits overwrite what is there: the file grows seldom, and by more than they need. */
Test(meta_room, is_made_ahead)
{
	uint64_t was, now;
	unsigned grown = 0;

	meta_rig_open(&g);
	was = file_size();
	for (unsigned n = 0; n < 400; n++) {
		cr_assert_eq(put(n, 5000), 0);
		now = file_size();
		grown += now != was;
		cr_assert(now == was || now >= was + 512 * KIB, "%llu after %llu",
		    (unsigned long long)now, (unsigned long long)was);
		was = now;
	}
	cr_assert_geq(grown, 2);
	cr_assert_leq(grown, 20);
	meta_rig_settle(&g);
	meta_check(g.dir);
}

/* What changes records that are there needs no more room than they have. */
Test(meta_room_disk, persisting_goes_on)
{
	unsigned n, failed = 0;
	char disk[96];

	if (geteuid() != 0)
		cr_skip_test("mounting a tmpfs needs root");
	open_on_disk(disk);
	for (n = 0; n < 200; n++)
		cr_assert_eq(put(n, 5000), 0);
	fill(disk, true);
	/* The file has some room of its own. */
	for (unsigned i = 0; i < 2000 && failed <= 50; i++) {
		int err = put(n, i % 2 == 0 ? 10 : 5000);

		cr_assert(err == 0 || err == -ENOSPC);
		failed += err != 0;
		n += err == 0;
	}
	cr_assert_gt(failed, 50);
	for (unsigned i = 0; i < 200; i++)
		cr_assert_eq(persist(i, 5000), 0, "%u", i);
	meta_check(g.dir);
	close_on_disk(disk);
}
