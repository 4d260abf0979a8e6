/* SPDX-License-Identifier: BSD-2-Clause */
/* A file that is being written meets other calls on it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/session.h"
#include "ops_rig.h"

static struct rig r;

static void begin(unsigned can)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount_writing(&r, "attr_timeout=0,entry_timeout=0");
	fake_can(&r.ufs, can);
	fake_add(&r.ufs, "there", UFS_FILE, 5, "t1");
}

static void finish(void)
{
	if (r.loop != NULL)
		rig_free(&r);
}

TestSuite(write_meets, .fini = finish);

static int run(rig_client *fn, const char *arg)
{
	return rig_run(&r, fn, (void *)(uintptr_t)arg);
}

/* --- An open for reading that makes the file */

static int c_make_reading(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_CREAT | O_RDONLY, 0640);

	if (fd < 0)
		return errno;
	return close(fd) == 0 ? 0 : errno;
}

static int c_reader_and_writer(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_CREAT | O_RDONLY, 0640), wr;
	char buf[4];

	if (fd < 0)
		return errno;
	if (write(fd, "x", 1) >= 0)
		return WRONG;
	wr = open(rig_at(tm, arg), O_WRONLY);
	if (wr < 0)
		return errno;
	if (write(wr, "abc", 3) != 3 || close(wr) != 0)
		return errno;
	if (read(fd, buf, sizeof(buf)) != 3 || memcmp(buf, "abc", 3) != 0)
		return WRONG + 1;
	return close(fd) == 0 ? 0 : errno;
}

Test(write_meets, a_reader_that_makes_it_is_no_writer)
{
	struct fake_file *ff;

	begin(UFS_CAN_ABSENT);
	cr_assert_eq(run(c_reader_and_writer, "new"), 0);
	cr_assert_eq(run(c_make_reading, "empty"), 0);
	rig_until(&r, rig_no_session, NULL);
	ff = fake_find(&r.ufs, "new");
	cr_assert(ff != NULL && ff->size == 3);
	ff = fake_find(&r.ufs, "empty");
	cr_assert(ff != NULL && ff->size == 0);
}

/* --- What is on the wire when it is deleted or replaced */

/* Serves until a request of this kind waits for its answer. */
static void until_waits(enum fake_op op)
{
	r.ufs.stall = true;
	while (!fake_waits(&r.ufs, op)) {
		fake_release_one(&r.ufs);
		(void)loop_turn(r.loop, true);
	}
}

static int c_unlink(const struct tmp_mount *tm, void *arg)
{
	return unlink(rig_at(tm, arg)) == 0 ? 0 : errno;
}

static int c_rename_there(const struct tmp_mount *tm, void *arg)
{
	char from[256];

	(void)snprintf(from, sizeof(from), "%s", rig_at(tm, "there"));
	return rename(from, rig_at(tm, arg)) == 0 ? 0 : errno;
}

/* A PUT that is given up may take effect after the DELETE that follows it. */
static void meets_put(rig_client *fn)
{
	pid_t maker, other;

	r.ufs.stall = true;
	maker = rig_start(&r, c_make_reading, (void *)(uintptr_t) "new");
	until_waits(FAKE_PUT);
	other = rig_start(&r, fn, (void *)(uintptr_t) "new");
	/* It looks the name up, and then waits for the path. */
	while (r.fs->locks.waiting == 0 && r.ufs.aborted == 0) {
		(void)fake_release_op(&r.ufs, FAKE_STAT);
		(void)loop_turn(r.loop, true);
	}
	cr_assert_eq(r.ufs.aborted, 0, "it was given up");
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, maker), 0);
	cr_assert_eq(rig_wait(&r, other), 0);
	rig_until(&r, rig_no_session, NULL);
	cr_assert_eq(r.ufs.aborted, 0);
}

Test(write_meets, unlink)
{
	begin(UFS_CAN_ABSENT);
	meets_put(c_unlink);
	cr_assert_null(fake_find(&r.ufs, "new"));
}

Test(write_meets, rename)
{
	struct fake_file *ff;

	begin(UFS_CAN_ABSENT);
	meets_put(c_rename_there);
	ff = fake_find(&r.ufs, "new");
	cr_assert(ff != NULL && ff->size == 5);
	cr_assert_null(fake_find(&r.ufs, "there"));
}

/* --- Times of a file that is open for writing and not written */

static int c_times(const struct tmp_mount *tm, void *arg)
{
	const struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 12345, .tv_nsec = 678}};
	int fd = open(rig_at(tm, arg), O_WRONLY);
	struct stat st;

	if (fd < 0 || futimens(fd, ts) != 0 || fstat(fd, &st) != 0)
		return errno;
	if (st.st_mtim.tv_sec != 12345 || st.st_mtim.tv_nsec != 678)
		return WRONG;
	return close(fd) == 0 ? 0 : errno;
}

Test(write_meets, times_that_the_storage_keeps)
{
	begin(UFS_CAN_ABSENT | UFS_CAN_SETATTR | UFS_CAN_RENAME);
	cr_assert_eq(run(c_times, "there"), 0);
	rig_until(&r, rig_no_session, NULL);
	cr_assert_eq(fake_find(&r.ufs, "there")->mtime.tv_sec, 12345);
}

Test(write_meets, times_that_a_record_keeps)
{
	begin(UFS_CAN_ABSENT);
	cr_assert_eq(run(c_times, "there"), 0);
}

/* --- The daemon dies with a change of attributes in the storage */

static int c_fchmod(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_RDONLY);
	struct stat st;

	/* With a descriptor: the kernel does not look the name up again at ESTALE. */
	if (fd < 0 || fchmod(fd, 0604) != 0 || fstat(fd, &st) != 0)
		return errno;
	if ((st.st_mode & 07777) != 0604)
		return WRONG;
	return close(fd) == 0 ? 0 : errno;
}

static void killed_in_setattr(bool effect)
{
	pid_t pid;

	r.ufs.stall = true;
	pid = rig_start(&r, c_fchmod, (void *)(uintptr_t) "there");
	until_waits(FAKE_SETATTR);
	r.ufs.late_effects = effect;
	rig_crash(&r);
	r.ufs.late_effects = false;
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, pid), 0);
	cr_assert_eq(fake_find(&r.ufs, "there")->mode, 0604);
	cr_assert_eq(statedb_count(r.db, STATEDB_LEDGER), 0);
}

Test(write_meets, a_crash_that_has_set_the_mode)
{
	begin(UFS_CAN_ABSENT | UFS_CAN_SETATTR | UFS_CAN_RENAME);
	killed_in_setattr(true);
}

Test(write_meets, a_crash_that_has_not_set_the_mode)
{
	begin(UFS_CAN_ABSENT | UFS_CAN_SETATTR | UFS_CAN_RENAME);
	killed_in_setattr(false);
}
