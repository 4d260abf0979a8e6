/* SPDX-License-Identifier: BSD-2-Clause */
/* Each allocation of creating, writing and uploading fails once. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/session.h"
#include "ops_rig.h"
#include "rig_nth.h"

static struct rig r;

static void begin(bool native)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount_writing(&r, "attr_timeout=0,entry_timeout=0");
	if (native)
		fake_can(&r.ufs, UFS_CAN_SETATTR | UFS_CAN_RENAME | UFS_CAN_ABSENT);
	fake_add(&r.ufs, "a", UFS_FILE, 5, "s1");
}

static void finish(void)
{
	if (r.loop != NULL)
		rig_free(&r);
}

TestSuite(nomem_write, .fini = finish);

static int write_all(int fd, const char *text)
{
	ssize_t n = write(fd, text, strlen(text));

	return n < 0 ? errno : (size_t)n == strlen(text) ? 0 : WRONG;
}

/* Each time another name: one that failed may have been made. */
static int c_create(const struct tmp_mount *tm, void *arg)
{
	char name[32], buf[16];
	int fd, err;

	snprintf(name, sizeof(name), "%d", (int)getpid());
	fd = open(rig_at(tm, name), O_CREAT | O_RDWR | *(int *)arg, 0640);
	if (fd < 0)
		return errno == EEXIST ? WRONG : errno;
	err = write_all(fd, "0123456789");
	if (err != 0)
		return err;
	if (pread(fd, buf, sizeof(buf), 0) != 10)
		return errno != 0 ? errno : WRONG + 1;
	if (memcmp(buf, "0123456789", 10) != 0)
		return WRONG + 2;
	return close(fd) == 0 ? 0 : errno;
}

static int c_patch(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_WRONLY), err;

	if (fd < 0)
		return errno;
	if (pwrite(fd, "X", 1, 2) != 1)
		return errno;
	err = fsync(fd) == 0 ? 0 : errno;
	return close(fd) != 0 ? errno : err;
}

static int c_cut(const struct tmp_mount *tm, void *arg)
{
	struct stat st;

	if (stat(rig_at(tm, arg), &st) != 0)
		return errno;
	return truncate(rig_at(tm, arg), st.st_size == 3 ? 4 : 3) == 0 ? 0 : errno;
}

static int c_mknod(const struct tmp_mount *tm, void *arg)
{
	char name[32];

	(void)arg;
	snprintf(name, sizeof(name), "%d", (int)getpid());
	return mknod(rig_at(tm, name), S_IFREG | 0600, 0) == 0 ? 0 : errno == EEXIST ? WRONG : errno;
}

/* What failed is kept as FAILED; everything else has ended, and left nothing. */
static void check_left(void)
{
	struct session *s, *next;
	unsigned n = 0;

	while (fs_running(r.fs) > 0)
		loop_turn(r.loop, true);
	HASH_ITER(hh, r.fs->sessions, s, next)
	{
		cr_assert_eq(s->state, SESSION_FAILED, "state %d", (int)s->state);
		n++;
	}
	cr_assert_eq(statedb_count(r.db, STATEDB_SESSIONS), n);
	cr_assert_eq(statedb_count(r.db, STATEDB_STAGED), n);
	/* A turn that is lost right behind a reply brings its row back; the next request
	 * takes it away. */
	cr_assert_eq(rig_run(&r, rig_stat, (void *)"none"), ENOENT);
	cr_assert_eq(statedb_count(r.db, STATEDB_LEDGER), 0);
	cr_assert_eq(r.fs->nwork, 0);
	cr_assert_eq(r.fs->write_bytes, 0);
}

Test(nomem_write, create_on_objects)
{
	begin(false);
	cr_assert_gt(rig_every(&r, c_create, &(int){0}), 10);
	check_left();
}

Test(nomem_write, create_on_directories)
{
	begin(true);
	cr_assert_gt(rig_every(&r, c_create, &(int){0}), 10);
	check_left();
}

Test(nomem_write, exclusive_create)
{
	begin(false);
	cr_assert_gt(rig_every(&r, c_create, &(int){O_EXCL}), 10);
	check_left();
}

Test(nomem_write, existing_object)
{
	begin(false);
	cr_assert_gt(rig_every(&r, c_patch, (void *)"a"), 10);
	check_left();
}

Test(nomem_write, truncation)
{
	begin(false);
	cr_assert_gt(rig_every(&r, c_cut, (void *)"a"), 10);
	check_left();
}

Test(nomem_write, mknod)
{
	begin(false);
	cr_assert_gt(rig_every(&r, c_mknod, NULL), 4);
	check_left();
}
