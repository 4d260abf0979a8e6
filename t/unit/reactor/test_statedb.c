/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../lib/nth_fault.h"
#include "../../lib/test_clock.h"
#include "base/obj.h"
#include "base/units.h"
#include "reactor/loop.h"
#include "reactor/statedb.h"

#define SIZE (16 * MIB)

static struct test_clock tc;
static struct loop *lp;
static struct statedb *db;
static struct epoch ep; /* no word: nobody else */
static char dir[64];
static bool mounted;

static void setup(void)
{
	test_clock_init(&tc);
	cr_assert_eq(loop_new(&lp, &tc.clk), 0);
	strcpy(dir, "/dev/shm/batonfs-test-XXXXXX");
	cr_assert_not_null(mkdtemp(dir));
}

static void teardown(void)
{
	char cmd[128];

	statedb_close(&db);
	loop_free(&lp);
	if (mounted)
		umount2(dir, MNT_DETACH);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	cr_assert_eq(system(cmd), 0);
}

TestSuite(statedb, .init = setup, .fini = teardown);

static void open_db(bool create)
{
	struct errtext et = { "" };
	int rc = statedb_open(&db, lp, dir, SIZE, create, &ep, &et);

	cr_assert_eq(rc, 0, "%d: %s", rc, et.s);
}

/* A small tmpfs of the test's own, in a mount namespace of its own. */
static void small_tmpfs(const char *options)
{
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("none", dir, "tmpfs", 0, options) != 0)
		cr_skip_test("needs root and a mount namespace of its own");
	mounted = true;
}

static int put(enum statedb_table t, uint32_t n, const void *val, size_t len)
{
	unsigned char k[4] = { n >> 24 & 255, n >> 16 & 255, n >> 8 & 255, n & 255 };

	return statedb_put(db, t, k, 4, val, len);
}

static int del(enum statedb_table t, uint32_t n)
{
	unsigned char k[4] = { n >> 24 & 255, n >> 16 & 255, n >> 8 & 255, n & 255 };

	return statedb_del(db, t, k, 4);
}

static int get(enum statedb_table t, uint32_t n, struct statedb_val *v)
{
	unsigned char k[4] = { n >> 24 & 255, n >> 16 & 255, n >> 8 & 255, n & 255 };

	return statedb_get(db, t, k, 4, v);
}

Test(statedb, rows)
{
	struct statedb_val v;

	open_db(true);
	cr_assert_eq(statedb_get(db, STATEDB_NODES, "a", 1, &v), -ENOENT);
	cr_assert_not(statedb_dirty(db));
	cr_assert_eq(statedb_del(db, STATEDB_NODES, "a", 1), -ENOENT);
	cr_assert_not(statedb_dirty(db));
	cr_assert_eq(statedb_put(db, STATEDB_NODES, "a", 1, "one", 3), 0);
	cr_assert(statedb_dirty(db));
	cr_assert_eq(statedb_get(db, STATEDB_NODES, "a", 1, &v), 0);
	cr_assert_eq(v.len, 3);
	cr_assert_eq(memcmp(v.data, "one", 3), 0);
	cr_assert_eq(statedb_get(db, STATEDB_NAMES, "a", 1, &v), -ENOENT);
	cr_assert_eq(statedb_put(db, STATEDB_NODES, "a", 1, "", 0), 0);
	cr_assert_eq(statedb_get(db, STATEDB_NODES, "a", 1, &v), 0);
	cr_assert_eq(v.len, 0);
	cr_assert_eq(statedb_count(db, STATEDB_NODES), 1);
	cr_assert_eq(statedb_count(db, STATEDB_HANDLES), 0);
	cr_assert_eq(statedb_del(db, STATEDB_NODES, "a", 1), 0);
	cr_assert_eq(statedb_count(db, STATEDB_NODES), 0);
}

Test(statedb, seek)
{
	static const char *const keys[] = { "b", "ba", "d" };
	static const struct {
		const char *key, *fwd, *back;
	} c[] = {
		{ "a", "b", NULL }, { "b", "b", "b" }, { "bb", "d", "ba" }, { "d", "d", "d" },
		{ "e", NULL, "d" },
	};
	struct statedb_val k, v;

	open_db(true);
	cr_assert_eq(statedb_seek(db, STATEDB_NAMES, "", 0, &k, &v), -ENOENT);
	cr_assert_eq(statedb_seek_back(db, STATEDB_NAMES, "x", 1, &k, &v), -ENOENT);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		cr_assert_eq(
		    statedb_put(db, STATEDB_NAMES, keys[i], strlen(keys[i]), keys[i], 1), 0);
	for (size_t i = 0; i < ARRAY_LEN(c); i++) {
		int rc = statedb_seek(db, STATEDB_NAMES, c[i].key, strlen(c[i].key), &k, &v);

		cr_assert_eq(rc, c[i].fwd != NULL ? 0 : -ENOENT);
		if (rc == 0)
			cr_assert(k.len == strlen(c[i].fwd) && !memcmp(k.data, c[i].fwd, k.len));
		rc = statedb_seek_back(db, STATEDB_NAMES, c[i].key, strlen(c[i].key), &k, &v);
		cr_assert_eq(rc, c[i].back != NULL ? 0 : -ENOENT);
		if (rc == 0)
			cr_assert(k.len == strlen(c[i].back) && !memcmp(k.data, c[i].back, k.len));
	}
	cr_assert_eq(statedb_seek(db, STATEDB_NAMES, NULL, 0, &k, &v), 0);
	cr_assert_eq(memcmp(k.data, "b", 1), 0);
}

Test(statedb, key_sizes)
{
	struct statedb_val v;
	char key[512];

	open_db(true);
	memset(key, 'k', sizeof(key));
	cr_assert_eq(statedb_put(db, STATEDB_NODES, key, 0, "", 0), -EINVAL);
	cr_assert_eq(statedb_put(db, STATEDB_NODES, key, 512, "", 0), -EINVAL);
	cr_assert_eq(statedb_get(db, STATEDB_NODES, key, 512, &v), -EINVAL);
	cr_assert_eq(statedb_put(db, STATEDB_NODES, key, 511, "", 0), 0);
	cr_assert_eq(statedb_get(db, STATEDB_NODES, key, 511, &v), 0);
}

Test(statedb, committed_at_turn_end_and_survives)
{
	struct statedb_val v;

	open_db(true);
	cr_assert_eq(put(STATEDB_HANDLES, 7, "seven", 5), 0);
	test_loop_settle(lp);
	loop_turn(lp, false);
	cr_assert_not(statedb_dirty(db));
	cr_assert_eq(loop_counters(lp)->v[CTR_STATEDB_COMMITS], 1);
	loop_turn(lp, false);
	cr_assert_eq(loop_counters(lp)->v[CTR_STATEDB_COMMITS], 1);
	statedb_close(&db);
	open_db(false);
	cr_assert_eq(get(STATEDB_HANDLES, 7, &v), 0);
	cr_assert_eq(v.len, 5);
	cr_assert_eq(put(STATEDB_HANDLES, 8, "eight", 5), 0);
	statedb_close(&db); /* commits */
	open_db(false);
	cr_assert_eq(statedb_count(db, STATEDB_HANDLES), 2);
	statedb_close(&db);
	open_db(true);
	cr_assert_eq(statedb_count(db, STATEDB_HANDLES), 0);
}

/* Killed at any moment: what was committed is there, the open turn is not. */
Test(statedb, survives_kill)
{
	for (int round = 0; round < 5; round++) {
		struct statedb_val v;
		uint32_t n, seen = 0;
		int status, p[2];
		pid_t pid;

		cr_assert_eq(pipe(p), 0);
		pid = fork();
		if (pid == 0) {
			open_db(true);
			for (n = 1;; n++) {
				if (put(STATEDB_NODES, n, &n, sizeof(n)) != 0 ||
				    put(STATEDB_NAMES, n, &n, sizeof(n)) != 0 ||
				    statedb_commit(db) != 0 ||
				    write(p[1], &n, sizeof(n)) != sizeof(n))
					_exit(1);
			}
		}
		close(p[1]);
		while (seen < 500u * ((unsigned)round + 1))
			cr_assert_eq(read(p[0], &seen, sizeof(seen)), (ssize_t)sizeof(seen));
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		while (read(p[0], &n, sizeof(n)) == (ssize_t)sizeof(n))
			seen = n;
		close(p[0]);
		open_db(false);
		cr_assert_eq(get(STATEDB_NODES, seen, &v), 0);
		cr_assert_eq(memcmp(v.data, &seen, sizeof(seen)), 0);
		cr_assert_eq(statedb_count(db, STATEDB_NODES), statedb_count(db, STATEDB_NAMES));
		statedb_close(&db);
	}
}

Test(statedb, epoch_passed)
{
	_Atomic uint64_t word = 3;
	struct statedb_val v;
	struct errtext et;

	ep.word = &word;
	ep.mine = 3;
	open_db(true);
	cr_assert_eq(put(STATEDB_META, 1, "a", 1), 0);
	cr_assert_eq(statedb_commit(db), 0);
	cr_assert_eq(put(STATEDB_META, 2, "b", 1), 0);
	atomic_store(&word, 4);
	cr_assert_eq(statedb_commit(db), -ESTALE);
	cr_assert_not(statedb_dirty(db));
	cr_assert_eq(get(STATEDB_META, 1, &v), -ESTALE);
	cr_assert_eq(put(STATEDB_META, 3, "c", 1), -ESTALE);
	statedb_close(&db);
	cr_assert_eq(statedb_open(&db, lp, dir, SIZE, false, &ep, &et), -ESTALE);
	ep.mine = 4;
	open_db(false);
	cr_assert_eq(get(STATEDB_META, 1, &v), 0);
	cr_assert_eq(get(STATEDB_META, 2, &v), -ENOENT);
	statedb_close(&db);
	memset(&ep, 0, sizeof(ep));
}

Test(statedb, open_errors)
{
	struct errtext et;

	cr_assert_eq(statedb_open(&db, lp, dir, SIZE, false, &ep, &et), -ENOENT);
	cr_assert_eq(statedb_open(&db, lp, "/proc", SIZE, true, &ep, &et), -EINVAL);
	cr_assert_not_null(strstr(et.s, "tmpfs"));
	cr_assert_eq(statedb_open(&db, lp, "/nonexistent", SIZE, true, &ep, &et), -ENOENT);
	cr_assert_null(db);
}

Test(statedb, damaged_file_is_refused)
{
	char path[96], junk[8192];
	struct errtext et;
	int fd;

	memset(junk, 'j', sizeof(junk));
	snprintf(path, sizeof(path), "%s/data.mdb", dir);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	cr_assert_eq(write(fd, junk, sizeof(junk)), (ssize_t)sizeof(junk));
	close(fd);
	cr_assert_neq(statedb_open(&db, lp, dir, SIZE, false, &ep, &et), 0);
	cr_assert_neq(et.s[0], '\0');
	open_db(true);
}

/* Fills until it is full, in turns of `turn` rows, then deletes everything and
 * fills again.  A page without memory would be a SIGBUS. */
static void fill_and_drain(size_t vlen, uint32_t turn)
{
	char *val = calloc(1, vlen);
	uint32_t filled[3];

	cr_assert_not_null(val);
	for (int round = 0; round < 3; round++) {
		uint32_t n = 0;
		int rc = 0;

		while (rc == 0) {
			rc = put(STATEDB_NODES, n, val, vlen);
			if (rc == 0)
				n++;
			if (n % turn == 0 || rc != 0)
				cr_assert_eq(statedb_commit(db), 0);
		}
		cr_assert_eq(rc, -ENOSPC);
		filled[round] = n;
		cr_assert_eq(statedb_count(db, STATEDB_NODES), n);
		while (n > 0) {
			rc = del(STATEDB_NODES, n - 1);
			if (rc == 0)
				n--;
			else
				cr_assert_eq(rc, -ENOSPC);
			if (n % 16 == 0 || rc != 0)
				cr_assert_eq(statedb_commit(db), 0);
		}
		cr_assert_eq(statedb_count(db, STATEDB_NODES), 0);
		cr_assert_eq(statedb_commit(db), 0);
		cr_assert_eq(statedb_commit(db), 0);
	}
	cr_log_info("%zu bytes, %u a turn: %u %u %u rows", vlen, turn, filled[0], filled[1],
	    filled[2]);
	cr_assert_gt((size_t)filled[0] * vlen, 256 * KIB);
	cr_assert_geq(filled[1], filled[0] / 2);
	cr_assert_geq(filled[2], filled[0] / 2);
	free(val);
}

Test(statedb, full_tmpfs)
{
	static const size_t sizes[] = { 200, 900 };

	small_tmpfs("size=4m");
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		for (uint32_t turn = 1; turn <= 10000; turn *= 100) {
			open_db(true);
			fill_and_drain(sizes[i], turn);
			statedb_close(&db);
		}
	}
}

Test(statedb, full_tmpfs_large_rows)
{
	small_tmpfs("size=8m");
	open_db(true);
	fill_and_drain(5000, 1);
}

Test(statedb, full_map)
{
	static const uint32_t turns[] = { 1, 64, 1000000 };

	for (size_t i = 0; i < ARRAY_LEN(turns); i++) {
		open_db(true);
		fill_and_drain(200, turns[i]);
		statedb_close(&db);
	}
}

/* Somebody else fills the tmpfs: what is known stays readable, nothing crashes. */
Test(statedb, tmpfs_filled_by_others)
{
	char path[96], block[4096] = { 0 };
	struct statedb_val v;
	uint32_t n = 0;
	int fd, rc = 0;

	small_tmpfs("size=4m");
	open_db(true);
	for (; n < 100; n++)
		cr_assert_eq(put(STATEDB_NODES, n, block, 200), 0);
	cr_assert_eq(statedb_commit(db), 0);
	snprintf(path, sizeof(path), "%s/other", dir);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	while (write(fd, block, sizeof(block)) > 0)
		;
	close(fd);
	while (rc == 0) {
		rc = put(STATEDB_NODES, n++, block, 200);
		cr_assert_eq(statedb_commit(db), 0);
	}
	cr_assert_eq(rc, -ENOSPC);
	statedb_close(&db);
	open_db(false);
	cr_assert_eq(get(STATEDB_NODES, 99, &v), 0);
	rc = del(STATEDB_NODES, 98);
	cr_assert(rc == 0 || rc == -ENOSPC);
	unlink(path);
	cr_assert_eq(del(STATEDB_NODES, 99), 0);
	rc = put(STATEDB_NODES, n, block, 200);
	cr_assert_eq(rc, 0, "%d", rc);
	cr_assert_eq(statedb_commit(db), 0);
}

Test(statedb, no_room_to_create)
{
	struct errtext et;

	small_tmpfs("size=64k");
	cr_assert_eq(statedb_open(&db, lp, dir, SIZE, true, &ep, &et), -ENOSPC);
	cr_assert_null(db);
}

Test(statedb, ramfs_has_no_limit)
{
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("none", dir, "ramfs", 0, "mode=700") != 0)
		cr_skip_test("needs root and a mount namespace of its own");
	mounted = true;
	open_db(true);
	fill_and_drain(900, 100);
}

Test(statedb, allocation_failures)
{
	for (unsigned n = 1;; n++) {
		struct statedb_val k, v;
		int rc, crc = 0;
		bool fired;

		nth_arm(n);
		rc = statedb_open(&db, lp, dir, SIZE, true, &ep, NULL);
		if (rc == 0)
			rc = statedb_put(db, STATEDB_NODES, "a", 1, "one", 3);
		if (rc == 0)
			rc = statedb_seek(db, STATEDB_NODES, "a", 1, &k, &v);
		if (rc == 0)
			crc = statedb_commit(db);
		nth_disarm();
		fired = nth_fired();
		cr_assert(rc == 0 || rc == -ENOMEM || rc == -EIO, "%d at %u", rc, n);
		if (rc == 0 && crc == 0)
			cr_assert_eq(statedb_get(db, STATEDB_NODES, "a", 1, &v), 0);
		else if (db != NULL && (crc != 0 || rc == -EIO))
			cr_assert_eq(statedb_get(db, STATEDB_NODES, "a", 1, &v), -EIO);
		statedb_close(&db);
		if (!fired) {
			cr_assert(rc == 0 && crc == 0);
			break;
		}
	}
}
