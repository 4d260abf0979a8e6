/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../lib/nth_fault.h"
#include "meta_rig.h"
#include "ops/node.h"
#include "ops/session.h"

static struct rig r;

#define NATIVE (UFS_CAN_SETATTR | UFS_CAN_RENAME | UFS_CAN_ABSENT)

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

TestSuite(setattr, .fini = finish);

#define EACH_TIME "attr_timeout=0,entry_timeout=0"

struct call {
	const char *name;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	time_t mtime;
};

static int c_chmod(const struct tmp_mount *tm, void *arg)
{
	const struct call *c = arg;

	return chmod(rig_at(tm, c->name), c->mode) == 0 ? 0 : errno;
}

static int c_chown(const struct tmp_mount *tm, void *arg)
{
	const struct call *c = arg;

	return chown(rig_at(tm, c->name), c->uid, c->gid) == 0 ? 0 : errno;
}

static int c_utime(const struct tmp_mount *tm, void *arg)
{
	const struct call *c = arg;
	struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = c->mtime, .tv_nsec = 7}};

	return utimensat(AT_FDCWD, rig_at(tm, c->name), ts, 0) == 0 ? 0 : errno;
}

static int c_touch(const struct tmp_mount *tm, void *arg)
{
	const struct call *c = arg;
	struct stat st;

	if (utimensat(AT_FDCWD, rig_at(tm, c->name), NULL, 0) != 0)
		return errno;
	if (stat(rig_at(tm, c->name), &st) != 0)
		return errno;
	return st.st_mtime >= time(NULL) - 5 && st.st_mtime <= time(NULL) + 5 ? 0 : WRONG;
}

static int c_is(const struct tmp_mount *tm, void *arg)
{
	const struct call *c = arg;
	struct stat st;

	if (stat(rig_at(tm, c->name), &st) != 0)
		return errno;
	if ((st.st_mode & 07777) != c->mode)
		return WRONG;
	if (st.st_uid != c->uid || st.st_gid != c->gid)
		return WRONG + 1;
	return c->mtime != 0 && st.st_mtime != c->mtime ? WRONG + 2 : 0;
}

static void all_three(const char *name)
{
	struct call c = {.name = name, .mode = 0640, .uid = 12, .gid = 34, .mtime = 77777};

	cr_assert_eq(rig_run(&r, c_chmod, &c), 0);
	cr_assert_eq(rig_run(&r, c_chown, &c), 0);
	cr_assert_eq(rig_run(&r, c_utime, &c), 0);
	cr_assert_eq(rig_run(&r, c_is, &c), 0);
	rig_restart(&r);
	cr_assert_eq(rig_run(&r, c_is, &c), 0);
}

Test(setattr, of_objects_in_the_metadata_store)
{
	struct meta_record rec;

	begin(EACH_TIME, false);
	all_three("f");
	all_three("d");
	cr_assert_eq(meta_rig_get(&r, "f", &rec), 0);
	cr_assert_eq(rec.kind, META_FILE);
	cr_assert(rec.mode == 0640 && rec.uid == 12 && rec.gid == 34 && rec.mtime.tv_nsec == 7);
	cr_assert_eq(meta_rig_get(&r, "d", &rec), 0);
	cr_assert_eq(rec.kind, META_DIR);
	cr_assert_eq(r.ufs.store.count[FAKE_SETATTR], 0);
}

Test(setattr, of_files_in_the_storage)
{
	struct meta_record rec;
	struct node before, after;

	begin(EACH_TIME, true);
	cr_assert_eq(rig_run(&r, rig_stat, (void *)"f"), 0);
	cr_assert_eq(node_find(r.fs, NODE_ROOT, "f", &before), 0);
	all_three("f");
	cr_assert_eq(node_find(r.fs, NODE_ROOT, "f", &after), 0);
	cr_assert_str_neq(before.version, after.version);
	cr_assert_eq(before.id, after.id, "another version by this, but the same content");
	all_three("d");
	cr_assert_eq(meta_rig_get(&r, "f", &rec), -ENOENT);
}

Test(setattr, root_of_the_mount)
{
	struct call c = {.name = "", .mode = 0711, .uid = 12, .gid = 34};

	begin(EACH_TIME, false);
	cr_assert_eq(rig_run(&r, c_chmod, &c), 0);
	cr_assert_eq(rig_run(&r, c_chown, &c), 0);
	cr_assert_eq(rig_run(&r, c_is, &c), 0);
}

Test(setattr, special_bits)
{
	struct call c = {.name = "f", .mode = 01644}, suid = {.name = "f", .mode = 06755};
	struct call dir = {.name = "d", .mode = 01777};

	begin(EACH_TIME, false);
	cr_assert_eq(rig_run(&r, c_chmod, &c), EOPNOTSUPP);
	cr_assert_eq(rig_run(&r, c_chmod, &dir), EOPNOTSUPP);
	cr_assert_eq(rig_run(&r, c_chmod, &suid), 0);
	cr_assert_eq(rig_run(&r, c_is, &suid), 0);
}

Test(setattr, now)
{
	struct call c = {.name = "f"};

	begin(EACH_TIME, false);
	cr_assert_eq(rig_run(&r, c_touch, &c), 0);
}

Test(setattr, what_is_there_already_costs_nothing)
{
	struct call c = {.name = "f", .mode = 0640};
	struct meta_status st, again;

	begin(EACH_TIME, false);
	cr_assert_eq(rig_run(&r, c_chmod, &c), 0);
	meta_status(r.fs->meta, &st);
	cr_assert_eq(rig_run(&r, c_chmod, &c), 0);
	meta_status(r.fs->meta, &again);
	cr_assert_eq(st.records, again.records);
}

/* The storage has another version by now: that one gets the mode. */
Test(setattr, of_a_file_that_was_replaced)
{
	struct call c = {.name = "f", .mode = 0600};
	struct meta_record rec;

	begin("attr_timeout=60,entry_timeout=60", false);
	cr_assert_eq(rig_run(&r, rig_stat, (void *)"f"), 0);
	fake_store_remove(&r.ufs.store, fake_find(&r.ufs, "f"));
	fake_add(&r.ufs, "f", UFS_FILE, 9, "v2");
	cr_assert_eq(rig_run(&r, c_chmod, &c), 0);
	cr_assert_eq(meta_rig_get(&r, "f", &rec), 0);
	cr_assert_str_eq(rec.version, "v2");
}

Test(setattr, of_a_file_that_is_gone)
{
	struct call c = {.name = "f", .mode = 0600};
	struct meta_record rec;

	begin("attr_timeout=60,entry_timeout=60", false);
	cr_assert_eq(rig_run(&r, rig_stat, (void *)"f"), 0);
	fake_store_remove(&r.ufs.store, fake_find(&r.ufs, "f"));
	cr_assert_eq(rig_run(&r, c_chmod, &c), ENOENT);
	cr_assert_eq(meta_rig_get(&r, "f", &rec), -ENOENT);
}

Test(setattr, storage_fails)
{
	struct call c = {.name = "f", .mode = 0600};

	begin(EACH_TIME, true);
	fake_store_fail(&r.ufs.store, FAKE_SETATTR, 1, 1, -EACCES, false);
	cr_assert_eq(rig_run(&r, c_chmod, &c), EACCES);
	cr_assert_eq(rig_run(&r, c_chmod, &c), 0);
}

Test(setattr, read_only)
{
	struct call c = {.name = "f", .mode = 0600};

	begin(EACH_TIME, false);
	fs_set_writing(r.fs, NULL, NULL, NULL);
	cr_assert_eq(rig_run(&r, c_chmod, &c), EROFS);
	fs_set_writing(r.fs, r.meta, r.staging, r.uploads);
}

/* Of a file that is being written: seen at once, sent with the content. */
static int c_write_with(const struct tmp_mount *tm, void *arg)
{
	const struct call *c = arg;
	struct timespec ts[2] = {{.tv_sec = 1}, {.tv_sec = c->mtime}};
	int fd = open(rig_at(tm, c->name), O_CREAT | O_WRONLY, 0644);
	struct stat st;

	if (fd < 0 || write(fd, "abc", 3) != 3)
		return errno;
	if (fchmod(fd, c->mode) != 0 || fchown(fd, c->uid, c->gid) != 0 || futimens(fd, ts) != 0)
		return errno;
	if (fstat(fd, &st) != 0 || (st.st_mode & 07777) != c->mode || st.st_uid != c->uid ||
	    st.st_mtime != c->mtime || st.st_size != 3)
		return WRONG;
	return close(fd) == 0 ? 0 : errno;
}

static void written(bool native)
{
	struct call c = {.name = "new", .mode = 0604, .uid = 12, .gid = 34, .mtime = 88888};
	struct call old = {.name = "f", .mode = 0604, .uid = 12, .gid = 34, .mtime = 88888};

	begin(EACH_TIME, native);
	cr_assert_eq(rig_run(&r, c_write_with, &c), 0);
	rig_until(&r, rig_no_session, NULL);
	cr_assert_eq(rig_run(&r, c_is, &c), 0);
	/* One that is there, and so is its content beyond what is written. */
	(void)old;
	rig_restart(&r);
	cr_assert_eq(rig_run(&r, c_is, &c), 0);
}

Test(setattr, goes_with_a_session_to_objects)
{
	written(false);
}

Test(setattr, goes_with_a_session_to_files)
{
	written(true);
}

/* Opened for writing and not written: nothing would carry it. */
static int c_chmod_open(const struct tmp_mount *tm, void *arg)
{
	const struct call *c = arg;
	int fd = open(rig_at(tm, c->name), O_WRONLY);

	if (fd < 0 || fchmod(fd, c->mode) != 0)
		return errno;
	return close(fd) == 0 ? 0 : errno;
}

Test(setattr, of_an_open_file_that_is_not_written)
{
	struct call c = {.name = "f", .mode = 0604};

	begin(EACH_TIME, false);
	c.uid = r.fs->uid;
	c.gid = r.fs->gid;
	cr_assert_eq(rig_run(&r, c_chmod_open, &c), 0);
	rig_until(&r, rig_no_session, NULL);
	cr_assert_eq(rig_run(&r, c_is, &c), 0);
}

/* The daemon dies with each of its requests to the storage on the wire, and before the
 * answer is there. */
static void crashes(bool native, bool late)
{
	struct call c = {.name = "f", .mode = 0604};
	unsigned n;
	pid_t pid;

	begin(EACH_TIME, native);
	c.uid = r.fs->uid;
	c.gid = r.fs->gid;
	r.ufs.late_effects = late;
	for (n = 0; n < 3; n++) {
		unsigned i;

		c.mode = 0600 + n;
		r.ufs.stall = true;
		pid = rig_start(&r, c_chmod, &c);
		for (i = 0; i < n; i++) {
			rig_until_waiting(&r, 1);
			fake_release_one(&r.ufs);
		}
		rig_until_waiting(&r, 1);
		rig_crash(&r);
		fake_release(&r.ufs);
		cr_assert_eq(rig_wait(&r, pid), 0, "at request %u", n);
		if (native)
			c.uid = fake_find(&r.ufs, "f")->uid, c.gid = fake_find(&r.ufs, "f")->gid;
		cr_assert_eq(rig_run(&r, c_is, &c), 0, "at request %u", n);
		if (!native && n == 1)
			break; /* LOOKUP and SETATTR ask once each */
	}
}

Test(setattr, crash_with_objects)
{
	crashes(false, false);
}

Test(setattr, crash_with_files)
{
	crashes(true, false);
}

Test(setattr, crash_with_files_late)
{
	crashes(true, true);
}
