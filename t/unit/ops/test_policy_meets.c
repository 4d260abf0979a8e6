/* SPDX-License-Identifier: BSD-2-Clause */
/* Calls on paths with a write policy that meet something: an upload, a daemon that dies,
 * an object of somebody else, memory that is short. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "meta_rig.h"
#include "ops/persist.h"
#include "policy_rig.h"
#include "rig_nth.h"

static struct rig r;

static void finish(void)
{
	if (r.loop != NULL)
		rig_free(&r);
}

TestSuite(policy_meets, .fini = finish);

static int run(rig_client *fn, const char *arg)
{
	return rig_run(&r, fn, (void *)(uintptr_t)arg);
}

static int c_make(const struct tmp_mount *tm, void *arg)
{
	return policy_rig_put(rig_at(tm, arg), 26);
}

static int c_make_other(const struct tmp_mount *tm, void *arg)
{
	return policy_rig_put(rig_at(tm, arg), 52);
}

static int c_unlink(const struct tmp_mount *tm, void *arg)
{
	return unlink(rig_at(tm, arg)) == 0 ? 0 : errno;
}

static int c_chmod(const struct tmp_mount *tm, void *arg)
{
	struct stat st;

	if (chmod(rig_at(tm, arg), 0604) != 0 || stat(rig_at(tm, arg), &st) != 0)
		return errno;
	return (st.st_mode & 07777) == 0604 && st.st_size == 26 ? 0 : WRONG;
}

static int c_mknod(const struct tmp_mount *tm, void *arg)
{
	return mknod(rig_at(tm, arg), S_IFREG | 0600, 0) == 0 ? 0 : errno;
}

/* Created by an open for reading. */
static int c_touch(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_RDONLY | O_CREAT | O_EXCL, 0600);

	if (fd < 0)
		return errno;
	return close(fd) == 0 ? 0 : errno;
}

static int c_read(const struct tmp_mount *tm, void *arg)
{
	char buf[64];
	int fd = open(rig_at(tm, arg), O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return errno;
	n = read(fd, buf, sizeof(buf));
	close(fd);
	if (n < 0)
		return errno;
	return n == 26 && memcmp(buf, "abcdefghijklmnopqrstuvwxyz", 26) == 0 ? 0 : WRONG;
}

static uint64_t unpersisted(void)
{
	return policy_rig_tally(&r, META_STATE_NOT_PERSISTED) +
	       policy_rig_tally(&r, META_STATE_TRANSIENT) +
	       policy_rig_tally(&r, META_STATE_FAILED);
}

/* --- Uploads */

static bool putting(struct rig *rig, void *arg)
{
	(void)arg;
	return fake_waits(&rig->ufs, FAKE_PUT);
}

/* What is on its way to become an object is waited for, and deleted then. */
Test(policy_meets, unlink_during_the_upload)
{
	pid_t pid;

	policy_rig_begin(&r, "WRITE_BACK", false);
	cr_assert_eq(run(c_make, "p/f"), 0);
	rig_until(&r, policy_rig_quiet, NULL);
	r.ufs.stall = true;
	persist_resume(r.fs);
	while (!putting(&r, NULL)) {
		while (!putting(&r, NULL) && fake_release_one(&r.ufs))
			;
		loop_turn(r.loop, false);
	}
	pid = rig_start(&r, c_unlink, (void *)(uintptr_t) "p/f");
	for (unsigned i = 0; i < 200; i++)
		loop_turn(r.loop, false);
	fake_release(&r.ufs);
	r.ufs.stall = false;
	cr_assert_eq(rig_wait(&r, pid), 0);
	cr_assert_null(fake_find(&r.ufs, "p/f"));
	cr_assert_eq(unpersisted(), 0);
	/* The next of that name is another file. */
	cr_assert_eq(run(c_make_other, "p/f"), 0);
	rig_until(&r, policy_rig_persisted, NULL);
	cr_assert_eq(fake_find(&r.ufs, "p/f")->size, 52);
}

/* The upload's outcome was never known: the object that it made goes as well. */
Test(policy_meets, unlink_in_doubt)
{
	policy_rig_begin(&r, "WRITE_BACK", false);
	cr_assert_eq(run(c_make, "p/f"), 0);
	rig_until(&r, policy_rig_quiet, NULL);
	r.ufs.stall = r.ufs.late_effects = true;
	persist_resume(r.fs);
	while (!putting(&r, NULL)) {
		while (!putting(&r, NULL) && fake_release_one(&r.ufs))
			;
		loop_turn(r.loop, false);
	}
	rig_restart(&r);
	fake_release(&r.ufs);
	r.ufs.stall = r.ufs.late_effects = false;
	cr_assert_not_null(fake_find(&r.ufs, "p/f"));
	cr_assert_eq(run(c_unlink, "p/f"), 0);
	cr_assert_null(fake_find(&r.ufs, "p/f"));
	cr_assert_eq(unpersisted(), 0);
}

/* Both versions are kept; the name is ours until ours is deleted. */
Test(policy_meets, an_object_of_somebody_else)
{
	policy_rig_begin(&r, "WRITE_BACK", false);
	cr_assert_eq(run(c_make, "p/f"), 0);
	rig_until(&r, policy_rig_quiet, NULL);
	fake_add(&r.ufs, "p/f", UFS_FILE, 9, "theirs");
	persist_resume(r.fs);
	while (policy_rig_tally(&r, META_STATE_FAILED) == 0)
		loop_turn(r.loop, true);
	rig_until(&r, policy_rig_quiet, NULL);
	cr_assert_eq(run(c_read, "p/f"), 0);
	cr_assert_eq(run(c_unlink, "p/f"), 0);
	cr_assert_eq(unpersisted(), 0);
	cr_assert_not_null(fake_find(&r.ufs, "p/f"));
	cr_assert_str_eq(fake_find(&r.ufs, "p/f")->version, "theirs");
	cr_assert_eq(run(rig_stat, "p/f"), 0);
}

/* A directory of somebody else under the name of a file that is not persisted. */
static int c_one_of_a_name(const struct tmp_mount *tm, void *arg)
{
	DIR *d = opendir(rig_at(tm, "p"));
	struct dirent *de;
	unsigned n = 0;

	if (d == NULL)
		return errno;
	while ((de = readdir(d)) != NULL)
		if (strcmp(de->d_name, arg) == 0)
			n += de->d_type == DT_REG ? 1 : 100;
	closedir(d);
	return n == 1 ? 0 : WRONG;
}

Test(policy_meets, a_directory_of_somebody_else)
{
	policy_rig_begin(&r, "WRITE_BACK", false);
	cr_assert_eq(run(c_make, "p/f"), 0);
	rig_until(&r, policy_rig_quiet, NULL);
	fake_add(&r.ufs, "p/f", UFS_DIR, 0, "");
	fake_add(&r.ufs, "p/f/x", UFS_FILE, 9, "theirs");
	cr_assert_eq(run(c_read, "p/f"), 0);
	cr_assert_eq(run(c_one_of_a_name, "f"), 0);
	cr_assert_eq(run(c_unlink, "p/f"), 0);
	cr_assert_eq(run(rig_stat, "p/f/x"), 0);
}

/* The record of a file that is no more does not keep anything from being made below. */
static int c_mkdir(const struct tmp_mount *tm, void *arg)
{
	return mkdir(rig_at(tm, arg), 0700) == 0 ? 0 : errno;
}

static void a_directory_instead(bool native)
{
	policy_rig_begin(&r, "WRITE_BACK", native);
	cr_assert_eq(run(c_make, "p/f"), 0);
	persist_resume(r.fs);
	rig_until(&r, policy_rig_persisted, NULL);
	fake_store_remove(&r.ufs.store, fake_find(&r.ufs, "p/f"));
	cr_assert_eq(run(c_mkdir, "p/f"), 0);
	cr_assert_eq(run(c_make, "p/f/g"), 0);
	rig_until(&r, policy_rig_persisted, NULL);
	cr_assert_eq(run(c_read, "p/f/g"), 0);
}

Test(policy_meets, a_directory_instead)
{
	a_directory_instead(false);
}

Test(policy_meets, a_directory_instead_native)
{
	a_directory_instead(true);
}

/* --- Daemons that die */

#define IDLE_MAX 20000 /* then the client has its answer, or never asks */

/* The client's call is begun, so many turns are done, the daemon dies: the call has the
 * right answer all the same. */
static void dies(rig_client *fn, const char *name, unsigned turns)
{
	pid_t pid = rig_start(&r, fn, (void *)(uintptr_t)name);
	unsigned idle = 0;

	while (turns > 0 && idle < IDLE_MAX) {
		if (loop_turn(r.loop, false)) {
			turns--;
		} else {
			idle++;
			sched_yield();
		}
	}
	rig_crash(&r);
	cr_assert_eq(rig_wait(&r, pid), 0, "%u turns", turns);
}

static void dies_everywhere(const char *mode, bool native)
{
	policy_rig_begin(&r, mode, native);
	for (unsigned turns = 1; turns < 16; turns++) {
		dies(c_mknod, "p/m", turns);
		cr_assert_eq(run(rig_stat, "p/m"), 0);
		dies(c_unlink, "p/m", turns);
		cr_assert_eq(run(rig_stat, "p/m"), ENOENT);
		dies(c_touch, "p/t", turns);
		dies(c_unlink, "p/t", turns);
		cr_assert_eq(run(c_make, "p/f"), 0);
		dies(c_chmod, "p/f", turns);
		dies(c_read, "p/f", turns);
		dies(c_unlink, "p/f", turns);
		cr_assert_eq(unpersisted(), 0, "%u turns", turns);
		cr_assert_eq(statedb_count(r.db, STATEDB_LEDGER), 0);
	}
}

Test(policy_meets, daemons_that_die)
{
	dies_everywhere("WRITE_BACK", false);
}

Test(policy_meets, daemons_that_die_native)
{
	dies_everywhere("TRANSIENT", true);
}

/* --- Memory */

/* Each time another name: one that failed may have been made. */
static int c_cycle(const struct tmp_mount *tm, void *arg)
{
	char name[32], path[300];
	struct stat st;
	int fd, err;

	(void)arg;
	snprintf(name, sizeof(name), "p/%d", (int)getpid());
	snprintf(path, sizeof(path), "%s", rig_at(tm, name));
	fd = open(path, O_RDWR | O_CREAT, 0600);
	if (fd < 0)
		return errno;
	err = write(fd, "abc", 3) == 3 ? 0 : errno;
	if (close(fd) != 0 && err == 0)
		err = errno;
	if (err != 0)
		return err;
	if (stat(path, &st) != 0)
		return errno;
	if (st.st_size != 3)
		return WRONG;
	if (unlink(path) != 0)
		return errno;
	return access(path, F_OK) == -1 && errno == ENOENT ? 0 : errno;
}

static int c_list(const struct tmp_mount *tm, void *arg)
{
	return rig_list(rig_at(tm, arg), 6);
}

static int c_rmdir_full(const struct tmp_mount *tm, void *arg)
{
	if (rmdir(rig_at(tm, arg)) == 0)
		return WRONG;
	return errno == ENOTEMPTY ? 0 : errno;
}

static int c_rename_eio(const struct tmp_mount *tm, void *arg)
{
	char to[300];

	snprintf(to, sizeof(to), "%s", rig_at(tm, "n/q"));
	if (rename(rig_at(tm, arg), to) == 0)
		return WRONG;
	return errno == EIO ? 0 : errno;
}

Test(policy_meets, a_file_s_life_out_of_memory)
{
	policy_rig_begin(&r, "WRITE_BACK", false);
	cr_assert_gt(rig_every(&r, c_cycle, NULL), 10);
}

static void no_memory(bool native)
{
	policy_rig_begin(&r, "WRITE_BACK", native);
	policy_rig_rules(&r,
	    "{\"apiVersion\": \"v1.0\", \"defaultRule\": {\"policyMode\": \"WRITE_BACK\"}}");
	fake_add(&r.ufs, "n/d", UFS_DIR, 0, "");
	cr_assert_eq(run(c_make, "n/f"), 0);
	cr_assert_eq(run(c_make, "n/g"), 0);
	cr_assert_eq(run(c_make, "n/d/h"), 0);
	rig_until(&r, policy_rig_quiet, NULL);
	fake_add(&r.ufs, "n/o", UFS_FILE, 3, "v1");
	policy_rig_mode(&r, "WRITE_BACK");
	cr_assert_gt(rig_every(&r, c_read, (void *)(uintptr_t) "n/f"), 4);
	cr_assert_gt(rig_every(&r, c_list, (void *)(uintptr_t) "n"), 4);
	cr_assert_gt(rig_every(&r, c_chmod, (void *)(uintptr_t) "n/g"), 4);
	cr_assert_gt(rig_every(&r, c_rmdir_full, (void *)(uintptr_t) "n/d"), 4);
	cr_assert_gt(rig_every(&r, c_rename_eio, (void *)(uintptr_t) "n/d"), 4);
	cr_assert_eq(run(c_read, "n/g"), 0);
}

Test(policy_meets, out_of_memory)
{
	no_memory(false);
}

Test(policy_meets, out_of_memory_native)
{
	no_memory(true);
}
