/* SPDX-License-Identifier: BSD-2-Clause */
/* A store of an older format becomes one of this: all of it, or nothing yet. */
#include <criterion/criterion.h>
#include <errno.h>
#include <lmdb.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "../../lib/nth_fault.h"
#include "base/log.h"
#include "base/obj.h"
#include "disk_log.h"
#include "meta/embedded_priv.h"
#include "meta_check.h"
#include "meta_rig.h"

static struct meta_rig g;

static void init(void)
{
	meta_rig_init_in(&g, "/dev/shm");
}

static void fini(void)
{
	meta_rig_fini(&g);
}

TestSuite(meta_format, .init = init, .fini = fini);

static int one(struct meta_change ch)
{
	return meta_rig_txn(&g, &ch, 1);
}

/* The closed store as format 1 had it: without what came later. */
static void make_old(void)
{
	static const char *const late[] = { "parents", "content", "queue", "blobs", "settings" };
	static const unsigned char first[8] = { 0, 0, 0, 0, 0, 0, 0, 1 };
	MDB_val format = { 6, (void *)(uintptr_t)"format" }, tally = { 5, (void *)(uintptr_t)"tally" };
	MDB_val val = { 8, (void *)(uintptr_t)first };
	char path[128];
	MDB_envinfo info;
	MDB_stat st;
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;

	(void)snprintf(path, sizeof(path), "%s/meta.mdb", g.dir);
	cr_assert_eq(mdb_env_create(&env), 0);
	mdb_env_set_maxdbs(env, 16);
	mdb_env_set_mapsize(env, 256 * MIB);
	cr_assert_eq(mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOLOCK, 0600), 0);
	cr_assert_eq(mdb_txn_begin(env, NULL, 0, &txn), 0);
	for (size_t i = 0; i < ARRAY_LEN(late); i++) {
		if (mdb_dbi_open(txn, late[i], 0, &dbi) == 0)
			cr_assert_eq(mdb_drop(txn, dbi, 1), 0);
	}
	cr_assert_eq(mdb_dbi_open(txn, "meta", 0, &dbi), 0);
	cr_assert_eq(mdb_put(txn, dbi, &format, &val, 0), 0);
	(void)mdb_del(txn, dbi, &tally, NULL);
	cr_assert_eq(mdb_txn_commit(txn), 0);
	mdb_env_info(env, &info);
	mdb_env_stat(env, &st);
	mdb_env_close(env);
	/* Nor had it room behind. */
	cr_assert_eq(truncate(path, (off_t)((info.me_last_pgno + 1) * st.ms_psize)), 0);
}

/* Files in `dirs` directories, each at the end of a way of its own. */
static void fill(unsigned dirs)
{
	for (unsigned i = 0; i < dirs; i += 500) {
		static struct meta_change ch[500];
		static char path[500][32];

		for (unsigned j = 0; j < 500; j++) {
			(void)snprintf(path[j], sizeof(path[j]), "d/%u/x/f", i + j);
			ch[j] = meta_rig_file(path[j], i + j);
		}
		cr_assert_eq(meta_rig_txn(&g, ch, MIN(500, dirs - i)), 0);
	}
}

static void is_filled(struct meta_rig *r, unsigned dirs)
{
	char path[32];

	for (unsigned i = 0; i < dirs; i += 7) {
		(void)snprintf(path, sizeof(path), "d/%u/x/f", i);
		cr_assert_eq(meta_rig_mode(r, path), (int)i);
	}
}

/* Without the loop, which would have it swept. */
static void only_open(void)
{
	struct errtext et = { "" };
	struct db *db;

	cr_assert_eq(db_open(&db, g.dir, 64 * MIB, &g.epoch, NULL, &et), 0, "%s", et.s);
	db_close(&db);
}

Test(meta_format, an_older_store_is_upgraded)
{
	struct meta_change intent = {
		.verb = META_INTENT_PUT, .id = 5, .blob = "note", .blob_len = 4
	};
	struct meta_intents all = { .count = 0 };

	meta_rig_open(&g);
	fill(3000);
	cr_assert_eq(one(meta_rig_dir("", 0711)), 0);
	cr_assert_eq(one(meta_rig_dir("d/5", 0755)), 0);
	cr_assert_eq(one(intent), 0);
	cr_assert_eq(one(meta_rig_move("d/7/x", "moved")), 0);
	cr_assert_eq(one(meta_rig_move("moved", "d/7/x")), 0);
	/* Some of it is in the garbage. */
	cr_assert_eq(one(meta_rig_move("d", "e")), 0);
	fill(1000);
	cr_assert_eq(one(meta_rig_del("e")), 0);
	meta_rig_free(&g);
	make_old();
	only_open();
	cr_assert_gt(meta_check(g.dir).garbage, 0);
	for (int i = 0; i < 2; i++) {
		struct meta_check is;

		meta_rig_open(&g);
		is_filled(&g, 1000);
		cr_assert_eq(meta_rig_mode(&g, ""), 0711);
		cr_assert_eq(meta_rig_intents(&g, &all), 0);
		cr_assert_eq(all.count, 1);
		meta_rig_settle(&g);
		is = meta_check(g.dir);
		cr_assert_eq(is.garbage, 0);
		meta_rig_free(&g);
	}
	/* It does what this one does. */
	meta_rig_open(&g);
	cr_assert_eq(one(meta_rig_content("d/9/x/f", 1, META_STATE_NOT_PERSISTED, 5)), 0);
	cr_assert_eq(one(meta_rig_move("d/9", "d/9999")), 0);
	{
		struct meta_content_get rq = { .id = META_RIG_ID(1) };

		cr_assert_eq(meta_rig_content_get(&g, &rq), 0);
		cr_assert_str_eq(rq.path, "d/9999/x/f");
		meta_content_free(&rq);
	}
	meta_check(g.dir);
	meta_intents_free(&all);
}

static unsigned fill_up(unsigned n)
{
	static struct meta_change ch[40];
	static char path[40][META_NAME_MAX + 32];
	int err;

	do {
		for (unsigned i = 0; i < ARRAY_LEN(ch); i++, n++) {
			(void)snprintf(path[i], sizeof(path[i]), "d/%0200u/x/f", n);
			ch[i] = meta_rig_file(path[i], n);
		}
		err = meta_rig_txn(&g, ch, ARRAY_LEN(ch));
	} while (err == 0);
	cr_assert_eq(err, -ENOSPC);
	return n;
}

/* What comes beside the rows must find room, however full the store is. */
Test(meta_format, an_older_store_that_is_full)
{
	unsigned n;

	meta_rig_set(&g, "meta.size", "16MiB");
	meta_rig_open(&g);
	log_set_level(LOG_LVL_ERROR);
	n = fill_up(0);
	meta_rig_free(&g);
	make_old();
	meta_rig_open(&g);
	cr_assert_lt(fill_up(n), 2 * n, "there is a limit still");
	meta_check(g.dir);
	cr_assert_eq(one(meta_rig_del("d")), 0);
	meta_rig_settle(&g);
	cr_assert_eq(meta_rig_put(&g, "more", 1), 0);
	meta_rig_settle(&g);
	cr_assert_eq(meta_check(g.dir).rows, 1);
}

/* --- Power fails */

#define IMAGES 40

static unsigned nimages;

static void power_fails(void *arg)
{
	char dir[80], path[160];

	(void)arg;
	if (nimages == IMAGES)
		return;
	if ((size_t)snprintf(dir, sizeof(dir), "%.60s/image-%u", g.top, nimages) >= sizeof(dir) ||
	    mkdir(dir, 0700) != 0)
		abort();
	(void)snprintf(path, sizeof(path), "%s/meta.mdb", dir);
	disk_log_image(path, nimages);
	nimages++;
}

Test(meta_format, power_fails_during_the_upgrade)
{
	char path[128];

	meta_rig_open(&g);
	fill(2000);
	meta_rig_free(&g);
	make_old();
	(void)snprintf(path, sizeof(path), "%s/meta.mdb", g.dir);
	disk_log_start(path);
	disk_log_hook(power_fails, NULL);
	meta_rig_open(&g);
	disk_log_hook(NULL, NULL);
	disk_log_stop();
	cr_assert_gt(nimages, 3);
	for (unsigned i = 0; i < nimages; i++) {
		struct meta_rig at;

		meta_rig_init_in(&at, "/dev/shm");
		(void)snprintf(at.dir, sizeof(at.dir), "%.60s/image-%u", g.top, i);
		meta_rig_open(&at);
		is_filled(&at, 2000);
		meta_check(at.dir);
		meta_rig_fini(&at);
	}
}

/* --- No memory, no room */

Test(meta_format, no_memory_for_the_upgrade)
{
	bool fired = true;
	unsigned failed = 0;

	meta_rig_open(&g);
	fill(50);
	meta_rig_free(&g);
	for (unsigned n = 1; fired; n++) {
		struct errtext et = { "" };
		struct db *db;
		int err;

		make_old();
		nth_arm(n);
		err = db_open(&db, g.dir, 64 * MIB, &g.epoch, NULL, &et);
		fired = nth_fired();
		nth_disarm();
		cr_assert(err == 0 || (fired && et.s[0] != '\0'), "%u: %d %s", n, err, et.s);
		failed += err != 0;
		db_close(&db);
	}
	cr_assert_gt(failed, 5);
	meta_rig_open(&g);
	is_filled(&g, 50);
	meta_check(g.dir);
}

/* The pool's threads must see the mount, so it comes before them. */
TestSuite(meta_format_disk);

static void fill_disk(const char *dir, bool full)
{
	static char block[4096];
	char path[128];
	struct statvfs st;
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/filler", dir);
	if (!full) {
		unlink(path);
		return;
	}
	f = fopen(path, "w");
	cr_assert_not_null(f);
	setbuf(f, NULL);
	while (fwrite(block, 1, sizeof(block), f) == sizeof(block))
		;
	(void)fclose(f);
	cr_assert_eq(statvfs(dir, &st), 0);
	cr_assert_eq(st.f_bavail, 0);
}

Test(meta_format_disk, no_room_for_the_upgrade)
{
	char disk[96];

	if (geteuid() != 0)
		cr_skip_test("mounting a tmpfs needs root");
	cr_assert_eq(unshare(CLONE_NEWNS), 0);
	cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	meta_rig_init(&g);
	(void)snprintf(disk, sizeof(disk), "%s/disk", g.top);
	cr_assert_eq(mkdir(disk, 0700), 0);
	cr_assert_eq(mount("disk", disk, "tmpfs", 0, "size=16m,mode=0700"), 0);
	(void)snprintf(g.dir, sizeof(g.dir), "%s/disk/meta", g.top);
	meta_rig_open(&g);
	fill(3000);
	meta_rig_free(&g);
	make_old();
	fill_disk(disk, true);
	meta_rig_new(&g);
	meta_open(g.meta);
	meta_rig_settle(&g);
	cr_assert(!meta_rig_status(&g).open);
	cr_assert_not_null(strstr(meta_rig_status(&g).error, "upgrade to format 2"), "%s",
	    meta_rig_status(&g).error);
	fill_disk(disk, false);
	test_clock_advance(&g.clock, 5 * NS_PER_S);
	meta_rig_settle(&g);
	cr_assert(meta_rig_status(&g).open, "%s", meta_rig_status(&g).error);
	is_filled(&g, 3000);
	meta_check(g.dir);
	meta_rig_free(&g);
	cr_assert_eq(umount2(disk, MNT_DETACH), 0);
	meta_rig_fini(&g);
}
