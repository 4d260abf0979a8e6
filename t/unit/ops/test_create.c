/* SPDX-License-Identifier: BSD-2-Clause */
/* create.exclusive=mount: who wins a name, and what it costs. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "ops/session.h"
#include "ops_rig.h"

static struct rig r;

static void begin(const char *opts)
{
	struct errtext et;

	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount_writing(&r, opts);
	cr_assert_eq(config_set(r.cfg, "create.exclusive", "mount", &et), 0);
}

static void finish(void)
{
	rig_free(&r);
}

TestSuite(create, .fini = finish);

static bool kept(struct rig *rig, void *arg)
{
	(void)arg;
	return rig->fs->sessions != NULL && rig->fs->sessions->state == SESSION_FAILED;
}

static int c_excl(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_CREAT | O_EXCL | O_WRONLY, 0644);

	if (fd < 0)
		return errno;
	if (write(fd, "x", 1) != 1)
		return WRONG;
	return close(fd) == 0 ? 0 : WRONG + errno;
}

/* Whatever is asked before is answered. */
static void until_put(void)
{
	for (;;) {
		rig_until_waiting(&r, 1);
		if (fake_waits(&r.ufs, FAKE_PUT))
			return;
		fake_release_one(&r.ufs);
	}
}

Test(create, one_request_a_file)
{
	begin("attr_timeout=60,entry_timeout=0");
	cr_assert_eq(rig_run(&r, c_excl, "one"), 0);
	cr_assert_eq(r.ufs.store.count[FAKE_PUT], 1);
	cr_assert_eq(rig_run(&r, c_excl, "one"), EEXIST);
	cr_assert_eq(r.ufs.store.count[FAKE_PUT], 1);
}

Test(create, the_storage_is_asked_if_nothing_is_known)
{
	begin("attr_timeout=0,entry_timeout=0");
	cr_assert_eq(rig_run(&r, c_excl, "one"), 0);
	cr_assert_eq(r.ufs.store.count[FAKE_PUT], 2);
}

/* Another mount's file comes between. */
Test(create, the_second_close_fails)
{
	pid_t pid;

	begin("attr_timeout=60,entry_timeout=0");
	r.ufs.stall = true;
	pid = rig_start(&r, c_excl, "two");
	until_put();
	fake_add(&r.ufs, "two", UFS_FILE, 3, "t1");
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, pid), WRONG + EEXIST);
	cr_assert_str_eq(fake_find(&r.ufs, "two")->version, "t1");
	rig_until(&r, kept, NULL);
}

/* With the open answered and nothing in the storage. */
Test(create, killed_after_the_open)
{
	pid_t pid;

	begin("attr_timeout=60,entry_timeout=0");
	r.ufs.stall = true;
	pid = rig_start(&r, c_excl, "three");
	until_put();
	r.ufs.late_effects = true;
	rig_crash(&r);
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, pid), 0);
	rig_until(&r, rig_no_session, NULL);
	cr_assert_eq(fake_find(&r.ufs, "three")->size, 1);
}
