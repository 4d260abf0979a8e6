/* SPDX-License-Identifier: BSD-2-Clause */
/* Each allocation of a change fails once. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/node.h"
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
	fake_add(&r.ufs, "d", UFS_DIR, 0, "");
	fake_add(&r.ufs, "d/a", UFS_FILE, 5, "s1");
	fake_add(&r.ufs, "d/b", UFS_FILE, 5, "s1");
}

static void finish(void)
{
	if (r.loop != NULL)
		rig_free(&r);
}

TestSuite(nomem_change, .fini = finish);

/* Each time another name: one that failed may have been made. */
static int c_mkdir(const struct tmp_mount *tm, void *arg)
{
	char name[32];
	struct stat st;

	(void)arg;
	snprintf(name, sizeof(name), "d/%d", (int)getpid());
	if (mkdir(rig_at(tm, name), 0750) != 0)
		return errno == EEXIST ? WRONG : errno;
	if (stat(rig_at(tm, name), &st) != 0)
		return errno;
	return S_ISDIR(st.st_mode) && (st.st_mode & 0777) == 0750 ? 0 : WRONG + 1;
}

static int c_chmod(const struct tmp_mount *tm, void *arg)
{
	mode_t mode = 0600 | ((mode_t)getpid() & 077);
	struct stat st;

	if (chmod(rig_at(tm, arg), mode) != 0)
		return errno;
	if (stat(rig_at(tm, arg), &st) != 0)
		return errno;
	return (st.st_mode & 0777) == mode ? 0 : WRONG;
}

static int c_list(const struct tmp_mount *tm, void *arg)
{
	return rig_list(rig_at(tm, arg), 5);
}

Test(nomem_change, mkdir_of_objects)
{
	umask(0);
	begin(false);
	cr_assert_gt(rig_every(&r, c_mkdir, NULL), 4);
	cr_assert_eq(statedb_count(r.db, STATEDB_LEDGER), 0);
}

Test(nomem_change, mkdir_of_directories)
{
	umask(0);
	begin(true);
	cr_assert_gt(rig_every(&r, c_mkdir, NULL), 4);
	cr_assert_eq(statedb_count(r.db, STATEDB_LEDGER), 0);
}

Test(nomem_change, chmod_of_objects)
{
	begin(false);
	cr_assert_gt(rig_every(&r, c_chmod, (void *)"d/a"), 4);
}

Test(nomem_change, chmod_of_files)
{
	begin(true);
	cr_assert_gt(rig_every(&r, c_chmod, (void *)"d/a"), 4);
}

static int c_hold(const struct tmp_mount *tm, void *arg)
{
	int *fds = arg, fd = open(rig_at(tm, "d/local"), O_CREAT | O_WRONLY, 0644);
	char c;

	if (fd < 0 || write(fd, "12345", 5) != 5)
		return errno;
	(void)!read(fds[0], &c, 1);
	return 0;
}

static bool one_session(struct rig *rig, void *arg)
{
	(void)arg;
	return rig->fs->sessions != NULL && staged_size(rig->fs->sessions->sf) == 5;
}

Test(nomem_change, listing_with_a_session)
{
	int fds[2];
	pid_t pid;

	begin(false);
	cr_assert_eq(pipe(fds), 0);
	pid = rig_start(&r, c_hold, fds);
	rig_until(&r, one_session, NULL);
	cr_assert_gt(rig_every(&r, c_list, (void *)"d"), 4);
	cr_assert_eq(write(fds[1], "x", 1), 1);
	cr_assert_eq(rig_wait(&r, pid), 0);
}
