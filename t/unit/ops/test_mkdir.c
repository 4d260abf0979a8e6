/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "meta_rig.h"
#include "ops/node.h"

static struct rig r;

#define NATIVE (UFS_CAN_SETATTR | UFS_CAN_RENAME | UFS_CAN_ABSENT)
#define EACH_TIME "attr_timeout=0,entry_timeout=0"

static void begin(const char *opts, bool native)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount_writing(&r, opts);
	if (native)
		fake_can(&r.ufs, NATIVE);
	fake_add(&r.ufs, "f", UFS_FILE, 5, "v1");
	fake_add(&r.ufs, "d", UFS_DIR, 0, "");
}

static void finish(void)
{
	if (r.loop != NULL)
		rig_free(&r);
}

TestSuite(mkdir, .fini = finish);

struct call {
	const char *name;
	mode_t mode;
	uid_t uid;
};

static int c_mkdir(const struct tmp_mount *tm, void *arg)
{
	const struct call *c = arg;
	struct stat st;

	umask(0);
	if (c->uid != 0 && setuid(c->uid) != 0)
		return WRONG + 9;
	if (mkdir(rig_at(tm, c->name), c->mode) != 0)
		return errno;
	if (stat(rig_at(tm, c->name), &st) != 0)
		return errno;
	if (!S_ISDIR(st.st_mode) || (st.st_mode & 07777) != c->mode || st.st_uid != c->uid)
		return WRONG;
	return st.st_nlink == 2 && st.st_mtime > 0 ? 0 : WRONG + 1;
}

static int c_is(const struct tmp_mount *tm, void *arg)
{
	const struct call *c = arg;
	struct stat st;

	if (stat(rig_at(tm, c->name), &st) != 0)
		return errno;
	return S_ISDIR(st.st_mode) && (st.st_mode & 07777) == c->mode ? 0 : WRONG;
}

static int c_long(const struct tmp_mount *tm, void *arg)
{
	if (chdir(tm->mnt) != 0)
		return WRONG;
	return mkdir(arg, 0755) == 0 ? 0 : errno;
}

Test(mkdir, of_objects)
{
	struct call plain = {.name = "new", .mode = 0755}, own = {.name = "d/own", .mode = 0700};
	struct meta_record rec;
	struct node n;

	begin(EACH_TIME, false);
	plain.mode = r.fs->dir_mode;
	cr_assert_eq(rig_run(&r, c_mkdir, &plain), 0);
	cr_assert_not_null(fake_find(&r.ufs, "new"));
	cr_assert_eq(meta_rig_get(&r, "new", &rec), -ENOENT, "the defaults say it all");
	cr_assert_eq(node_find(r.fs, NODE_ROOT, "new", &n), 0);
	cr_assert(n.flags & NODE_MARKED);
	cr_assert_eq(rig_run(&r, c_mkdir, &own), 0);
	cr_assert_eq(meta_rig_get(&r, "d/own", &rec), 0);
	cr_assert(rec.kind == META_DIR && rec.mode == 0700);
	rig_restart(&r);
	cr_assert_eq(rig_run(&r, c_is, &plain), 0);
	cr_assert_eq(rig_run(&r, c_is, &own), 0);
	cr_assert_eq(statedb_count(r.db, STATEDB_LEDGER), 0);
}

Test(mkdir, of_directories)
{
	struct call c = {.name = "d/own", .mode = 0700};
	struct meta_record rec;

	begin(EACH_TIME, true);
	cr_assert_eq(rig_run(&r, c_mkdir, &c), 0);
	cr_assert_eq(fake_find(&r.ufs, "d/own")->mode, 0700);
	cr_assert_eq(meta_rig_get(&r, "d/own", &rec), -ENOENT);
}

Test(mkdir, what_is_in_the_way)
{
	struct call f = {.name = "f", .mode = 0755}, d = {.name = "d", .mode = 0755};
	struct call below = {.name = "none/x", .mode = 0755}, tmp = {.mode = 0755};
	struct call sticky = {.name = "new", .mode = 01755};
	char name[300];

	begin(EACH_TIME, false);
	cr_assert_eq(rig_run(&r, c_mkdir, &f), EEXIST);
	cr_assert_eq(rig_run(&r, c_mkdir, &d), EEXIST);
	cr_assert_eq(rig_run(&r, c_mkdir, &below), ENOENT);
	cr_assert_eq(rig_run(&r, c_mkdir, &sticky), EOPNOTSUPP);
	tmp.name = ".batonfs-0123456789abcdef.tmp";
	cr_assert_eq(rig_run(&r, c_mkdir, &tmp), EINVAL);
	memset(name, 'x', 256);
	name[256] = '\0';
	cr_assert_eq(rig_run(&r, c_long, name), ENAMETOOLONG);
	cr_assert_eq(r.ufs.store.count[FAKE_MKDIR], 0);
}

/* A stale record says what was there once. */
Test(mkdir, over_an_old_record)
{
	struct meta_record rec = {.kind = META_DIR, .has = META_HAS_MODE, .mode = 0700};
	struct call c = {.name = "new"};

	begin(EACH_TIME, false);
	c.mode = r.fs->dir_mode;
	meta_rig_put(&r, "new", &rec);
	cr_assert_eq(rig_run(&r, c_mkdir, &c), 0);
	cr_assert_eq(meta_rig_get(&r, "new", &rec), -ENOENT);
}

/* The LOOKUP before has said that nothing is there. */
Test(mkdir, does_not_ask_twice)
{
	struct call c = {.name = "new"};
	unsigned stats;

	begin("attr_timeout=5,entry_timeout=5", false);
	c.mode = r.fs->dir_mode;
	cr_assert_eq(rig_run(&r, rig_stat, (void *)""), 0);
	stats = r.ufs.stats;
	cr_assert_eq(rig_run(&r, c_mkdir, &c), 0);
	cr_assert_eq(r.ufs.stats, stats + 1, "%u", r.ufs.stats - stats);
}

Test(mkdir, group_of_a_setgid_directory)
{
	struct meta_record rec = {
	    .kind = META_DIR, .has = META_HAS_MODE | META_HAS_GID, .mode = 02777, .gid = 4321};
	struct call c = {.name = "d/sub", .mode = 0755}, is = {.name = "d/sub", .mode = 02755};

	begin(EACH_TIME, false);
	meta_rig_put(&r, "d", &rec);
	cr_assert_eq(rig_run(&r, c_mkdir, &c), WRONG, "the mode has the bit");
	cr_assert_eq(rig_run(&r, c_is, &is), 0);
	cr_assert_eq(meta_rig_get(&r, "d/sub", &rec), 0);
	cr_assert_eq(rec.gid, 4321);
}

static int c_plain(const struct tmp_mount *tm, void *arg)
{
	return mkdir(rig_at(tm, arg), 0700) == 0 ? 0 : errno;
}

Test(mkdir, storage_fails)
{
	begin(EACH_TIME, false);
	fake_store_fail(&r.ufs.store, FAKE_MKDIR, 1, 1, -EACCES, false);
	cr_assert_eq(rig_run(&r, c_plain, (void *)"x"), EACCES);
	cr_assert_eq(statedb_count(r.db, STATEDB_LEDGER), 0);
	cr_assert_eq(rig_run(&r, rig_stat, (void *)"x"), ENOENT);
	fake_store_fail(&r.ufs.store, FAKE_MKDIR, 1, 1, -ETIMEDOUT, false);
	cr_assert_eq(rig_run(&r, c_plain, (void *)"x"), EIO);
	cr_assert_eq(rig_run(&r, c_plain, (void *)"x"), 0);
	cr_assert_eq(rig_run(&r, c_plain, (void *)"x"), EEXIST);
}

/* Dies at each of its requests, which take effect or not: made once, and no EEXIST. */
static void crashes(bool native, bool late)
{
	static const char *const names[] = {"n0", "n1", "n2"};
	struct call is = {.mode = 0700};
	unsigned n, i;
	pid_t pid;

	begin(EACH_TIME, native);
	r.ufs.late_effects = late;
	for (n = 0; n < 3; n++) {
		r.ufs.stall = true;
		pid = rig_start(&r, c_plain, (void *)(uintptr_t)names[n]);
		for (i = 0; i < n; i++) {
			rig_until_waiting(&r, 1);
			fake_release_one(&r.ufs);
		}
		rig_until_waiting(&r, 1);
		rig_crash(&r);
		fake_release(&r.ufs);
		cr_assert_eq(rig_wait(&r, pid), 0, "at request %u", n);
		is.name = names[n];
		cr_assert_eq(rig_run(&r, c_is, &is), 0, "at request %u", n);
		cr_assert_eq(rig_run(&r, c_plain, (void *)(uintptr_t)names[n]), EEXIST);
	}
	cr_assert_eq(statedb_count(r.db, STATEDB_LEDGER), 0);
}

Test(mkdir, crash_with_objects)
{
	crashes(false, false);
}

Test(mkdir, crash_with_objects_late)
{
	crashes(false, true);
}

Test(mkdir, crash_with_directories)
{
	crashes(true, false);
}

Test(mkdir, crash_with_directories_late)
{
	crashes(true, true);
}
