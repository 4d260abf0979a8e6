/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What ends: each allocation of a request fails once, and the state database has
 * no room.  The application gets the right answer or a clean error, afterwards
 * everything works, and nothing is left behind.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "ops/handle.h"
#include "ops_rig.h"
#include "rig_nth.h"

static struct rig r;

static void finish(void)
{
	rig_free(&r);
}

TestSuite(ops_nomem, .fini = finish);
TestSuite(ops_full, .fini = finish);

static void begin(void)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount(&r, "attr_timeout=0,entry_timeout=0");
	fake_add(&r.ufs, "d", UFS_DIR, 0, "");
	fake_add(&r.ufs, "d/a", UFS_FILE, 5, "s1");
	fake_add(&r.ufs, "d/b", UFS_FILE, 5, "s1");
	fake_add(&r.ufs, "big", UFS_FILE, 300000, "b1");
}

/* --- Clients: 0, an errno or WRONG */

static int c_list(const struct tmp_mount *tm, void *arg)
{
	return rig_list(rig_at(tm, arg), 4);
}

static int c_read(const struct tmp_mount *tm, void *arg)
{
	static char buf[300001];
	int fd = open(rig_at(tm, arg), O_RDONLY);
	ssize_t n, got = 0;

	if (fd < 0)
		return errno;
	while ((n = read(fd, buf + got, sizeof(buf) - (size_t)got)) > 0)
		got += n;
	if (n < 0)
		return errno;
	for (n = 0; n < got; n++)
		if (buf[n] != 'b')
			return WRONG + 1;
	return got == 300000 ? 0 : WRONG;
}

static int c_statfs(const struct tmp_mount *tm, void *arg)
{
	struct statvfs sv;

	return statvfs(rig_at(tm, arg), &sv) == 0 ? 0 : errno;
}

static void every(rig_client *fn, const char *name)
{
	unsigned n = rig_every(&r, fn, (void *)(uintptr_t)name);

	cr_assert_gt(n, 2);
	/* RELEASE is sent once: one that failed leaves its row until the mount ends. */
	while (statedb_count(r.db, STATEDB_HANDLES) > n / 2)
		loop_turn(r.loop, true);
}

Test(ops_nomem, lookup)
{
	begin();
	every(rig_stat, "d/a");
}

Test(ops_nomem, listing)
{
	begin();
	every(c_list, "d");
}

Test(ops_nomem, reading)
{
	begin();
	every(c_read, "big");
}

Test(ops_nomem, statfs)
{
	begin();
	every(c_statfs, "");
}

/* --- No room */

/* Fills the database until it takes no node's row; the rows' keys count from 1. */
static uint64_t fill_state(void)
{
	char val[300] = {0};
	uint64_t key = 0, failed_at = 0;

	/* Full is what takes no row in a turn that has written nothing else. */
	for (;;) {
		key++;
		if (statedb_put(r.db, STATEDB_LEDGER, &key, sizeof(key), val, sizeof(val)) == 0)
			continue;
		if (key == failed_at)
			break;
		cr_assert_eq(statedb_commit(r.db), 0);
		failed_at = key--;
	}
	return key;
}

static void empty_state(uint64_t n)
{
	for (uint64_t key = 1; key < n; key++) {
		cr_assert_eq(statedb_del(r.db, STATEDB_LEDGER, &key, sizeof(key)), 0);
		if (key % 16 == 0)
			cr_assert_eq(statedb_commit(r.db), 0);
	}
	cr_assert_eq(statedb_commit(r.db), 0);
}

Test(ops_full, errors_then_all_is_well)
{
	uint64_t nodes, n;
	char path[32];
	int err = 0;

	begin();
	for (unsigned i = 0; i < 500; i++) {
		snprintf(path, sizeof(path), "f%u", i);
		fake_add(&r.ufs, path, UFS_FILE, 1, "v");
	}
	nodes = statedb_count(r.db, STATEDB_NODES);
	n = fill_state();
	/* Rows go into what is left of half-full pages, until none is. */
	for (unsigned i = 0; err == 0 && i < 500; i++) {
		snprintf(path, sizeof(path), "f%u", i);
		err = rig_run(&r, rig_stat, path);
	}
	cr_assert_eq(err, ENOSPC);
	cr_assert_eq(r.gone, 0);
	empty_state(n);
	cr_assert_eq(rig_run(&r, rig_stat, (void *)"f499"), 0);
	cr_assert_eq(rig_run(&r, c_read, (void *)"big"), 0);
	cr_assert_geq(statedb_count(r.db, STATEDB_NODES), nodes);
}

/* A failed OPEN leaves no row, count or struct behind. */
Test(ops_full, failed_open_leaves_nothing)
{
	struct ufs_attr a = {.kind = UFS_DIR};
	struct handle *h = NULL;
	struct fs_info info;
	uint64_t fill, n = 0;
	struct node d;
	int err;

	rig_new(&r);
	cr_assert_eq(node_bind(r.fs, NODE_ROOT, "d", "d", &a, &d), 0);
	fill = fill_state();
	while ((err = handle_open(r.fs, &d, "", &h)) == 0 && n < 100000)
		if (++n % 64 == 0)
			cr_assert_eq(statedb_commit(r.db), 0);
	cr_assert_eq(err, -ENOSPC);
	fs_info(r.fs, &info);
	cr_assert_eq(info.open_dirs, n);
	cr_assert_eq(info.open_files, 0);
	cr_assert_eq(statedb_count(r.db, STATEDB_HANDLES), n);
	cr_assert_eq(HASH_COUNT(r.fs->handles), n);
	cr_assert_eq(node_load(r.fs, d.id, &d), 0);
	cr_assert_eq(d.opens, n);
	empty_state(fill);
}

/* FORGETs of a whole tree in one turn make room, to the last. */
Test(ops_full, everything_can_be_forgotten)
{
	struct ufs_attr a = {.kind = UFS_FILE, .version = "v"};
	char name[32];
	struct node f;
	unsigned i, n = 20000;

	rig_new(&r);
	for (i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%08x", i * 2654435761u);
		cr_assert_eq(node_bind(r.fs, NODE_ROOT, name, name, &a, &f), 0);
		node_count(r.fs, &f);
		if (i % 64 == 63)
			cr_assert_eq(statedb_commit(r.db), 0);
	}
	fill_state();
	for (i = 0; i < n; i++)
		cr_assert_eq(node_forget(r.fs, NODE_ROOT + 1 + i, 1), 0, "%u", i);
	cr_assert_eq(node_forget(r.fs, NODE_ROOT + 1, 1), -ENOENT, "unknown is no harm");
	cr_assert_eq(statedb_count(r.db, STATEDB_NODES), 1);
	cr_assert_eq(statedb_count(r.db, STATEDB_NAMES), 0);
}

/* A node whose name cannot be bound leaves no row and no slot. */
Test(ops_full, failed_bind_leaves_nothing)
{
	struct ufs_attr a = {.kind = UFS_FILE, .version = "v"};
	char name[UFS_NAME_MAX + 1];
	uint64_t fill, n = 0;
	struct node f;
	int err = 0;

	rig_new(&r);
	fill = fill_state();
	memset(name, 'x', sizeof(name));
	for (; err == 0 && n < 100000; n++) {
		snprintf(name, sizeof(name), "%0*u", (int)(n % 2 ? 200 : 8), (unsigned)n);
		err = node_bind(r.fs, NODE_ROOT, name, name, &a, &f);
		if (n % 64 == 63)
			cr_assert_eq(statedb_commit(r.db), 0);
	}
	cr_assert_eq(err, -ENOSPC);
	cr_assert_eq(statedb_count(r.db, STATEDB_NODES), n, "root, and one less bound than tried");
	cr_assert_eq(statedb_count(r.db, STATEDB_NAMES), n - 1);
	empty_state(fill);
}
