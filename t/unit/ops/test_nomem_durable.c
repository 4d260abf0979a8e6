/* SPDX-License-Identifier: BSD-2-Clause */
/* Each allocation of writing under a policy of the write cache fails once. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "meta_rig.h"
#include "ops/session.h"
#include "ops_rig.h"
#include "rig_nth.h"

static struct rig r;
static char content[40000];

static void begin(bool native)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount_writing(&r, "attr_timeout=0,entry_timeout=0");
	r.cfg->write_cache_enabled = true;
	if (native)
		fake_can(&r.ufs, UFS_CAN_SETATTR | UFS_CAN_RENAME | UFS_CAN_ABSENT);
	memset(content, 'c', sizeof(content));
}

static void finish(void)
{
	if (r.loop != NULL)
		rig_free(&r);
}

TestSuite(nomem_durable, .fini = finish);

static int put(int fd, off_t off, size_t len)
{
	ssize_t n = pwrite(fd, content, len, off);

	return n < 0 ? errno : (size_t)n == len ? 0 : WRONG;
}

/* arg: how many bytes.  Each time another name: one that failed may have been made. */
static int c_write(const struct tmp_mount *tm, void *arg)
{
	size_t len = *(const size_t *)arg;
	char name[32], buf[16];
	int fd, err;

	snprintf(name, sizeof(name), "%d", (int)getpid());
	fd = open(rig_at(tm, name), O_CREAT | O_RDWR, 0640);
	if (fd < 0)
		return errno;
	err = put(fd, 0, len);
	if (err == 0 && fsync(fd) != 0)
		err = errno;
	if (err == 0)
		err = put(fd, 0, 1);
	if (err == 0 && pread(fd, buf, sizeof(buf), (off_t)len - 8) != 8)
		err = errno != 0 ? errno : WRONG + 1;
	if (err == 0 && fchmod(fd, 0600) != 0)
		err = errno;
	/* Closed well, or not: what it says is what is. */
	if (close(fd) != 0 && err == 0)
		err = errno;
	return err;
}

static bool all_over(void)
{
	return r.fs->sessions == NULL && r.fs->ended == NULL && fs_running(r.fs) == 0;
}

static void check_left(void)
{
	struct meta_status st;

	while (!all_over())
		loop_turn(r.loop, true);
	cr_assert_eq(statedb_count(r.db, STATEDB_SESSIONS), 0);
	cr_assert_eq(statedb_count(r.db, STATEDB_STAGED), 0);
	cr_assert_eq(r.fs->nwork, 0);
	cr_assert_eq(r.fs->write_bytes, 0);
	/* Each run that was not disturbed has left an object. */
	meta_status(r.fs->meta, &st);
	cr_assert_geq(st.tally.files[META_STATE_PERSISTED], r.ufs.store.count[FAKE_PUT] / 2);
	cr_assert_eq(st.tally.files[META_STATE_FAILED], 0);
}

Test(nomem_durable, small_files)
{
	begin(false);
	cr_assert_gt(rig_every(&r, c_write, &(size_t){5000}), 10);
	check_left();
}

Test(nomem_durable, larger_files)
{
	begin(false);
	cr_assert_gt(rig_every(&r, c_write, &(size_t){sizeof(content)}), 10);
	check_left();
}

Test(nomem_durable, on_directories)
{
	begin(true);
	cr_assert_gt(rig_every(&r, c_write, &(size_t){sizeof(content)}), 10);
	check_left();
}
