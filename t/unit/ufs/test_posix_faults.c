/* SPDX-License-Identifier: BSD-2-Clause */
/* file://: writing when something goes wrong. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../lib/nth_fault.h"
#include "base/fault.h"
#include "base/hash.h"
#include "posix_fix.h"
#include "ufs/posix_temp.h"

TestSuite(posix_faults, .init = pw_up, .fini = pw_down);

/* --- given up, and out of memory */

Test(posix_faults, aborted_writes_leave_nothing)
{
	size_t len = 8 * POSIX_CHUNK;
	char *body = pw_bytes(len, 1);
	struct ufs_attr a;

	cr_assert_eq(pw_put_as("src", body, len, false, NULL, NULL, &a), 0);
	for (unsigned turns = 0; turns < 12; turns++) {
		struct ufs_put p = { .path = "f", .body = body, .len = len, .req = { .user = &pw } };
		struct ufs_copy c = { .src = "src",
			.src_version = a.version,
			.size = len,
			.dst = "g",
			.req = { .user = &pw } };
		struct ufs_multi_begin b = { .path = "h", .req = { .user = &pw } };

		pw.done = false;
		ufs_put(pw.ufs, &p, ufs_fix_done);
		for (unsigned i = 0; i < turns && !pw.done; i++)
			(void)loop_turn(pw.loop, true);
		ufs_abort(&p.req);
		memset(body + len - 1, (int)turns, 1); /* ours again */
		pw.done = false;
		ufs_copy(pw.ufs, &c, ufs_fix_done);
		for (unsigned i = 0; i < turns % 3 && !pw.done; i++)
			(void)loop_turn(pw.loop, true);
		ufs_abort(&c.req);
		pw.done = false;
		ufs_multi_begin(pw.ufs, &b, ufs_fix_done);
		ufs_abort(&b.req);
	}
	while (pool_outstanding(pw.pool) > 0)
		(void)loop_turn(pw.loop, true);
	pw.done = false;
	cr_assert_eq(pw_temps(""), 0);
	free(body);
}

static int nomem_round(void)
{
	static const char *const paths[] = { "x", "y" };
	struct ufs_part_id pi;
	char id[UFS_UPLOAD_MAX];
	struct ufs_attr a;
	int errs[2], err, e;

	err = pw_put("a", "abc", &a);
	if ((e = pw_begin("b", id)) == 0) {
		e = pw_part("b", id, &pi, 1, 0, "abc", 3);
		if (e == 0)
			e = pw_part_of("b", id, &pi, 1, 0, 3, "a", a.version, 0);
		if (e == 0)
			e = pw_end("b", id, &pi, 1, false, NULL, &a);
		if (e != 0)
			while (pw_drop("b", id) != 0)
				;
	}
	err = err != 0 ? err : e;
	e = err == 0 ? pw_copy("b", &a, "c", &a) : err;
	err = err != 0 ? err : e;
	{
		struct ufs_delete rq = {
			.req = { .user = &pw }, .paths = paths, .n = 2, .errs = errs
		};

		ufs_delete(pw.ufs, &rq, ufs_fix_done);
		ufs_fix_wait(&pw);
		err = err != 0 ? err : pw.err;
	}
	e = pw_rename_to("a", "d", false, &a);
	return err != 0 ? err : e;
}

/* Allocations of the loop's thread; those of the pool's are few, and the same. */
Test(posix_faults, out_of_memory)
{
	unsigned n;
	int err;

	for (n = 1;; n++) {
		nth_arm(n);
		err = nomem_round();
		if (!nth_fired())
			break;
		cr_assert(err == 0 || err == -ENOMEM || err == -ENOENT, "%u: %d", n, err);
		cr_assert_eq(pw_temps(""), 0, "%u", n);
	}
	cr_assert_eq(err, 0);
	cr_assert_gt(n, 10);
}

/* --- no files without a name */

static void leave(uint64_t mount_id, const char *name)
{
	char tmp[POSIX_TMP_MAX];

	posix_temp_text(tmp, hash64(name, strlen(name), mount_id));
	pw_sh("echo half >", tmp);
}

Test(posix_faults, without_nameless_files)
{
	static const char *const gone[] = { "a", "b", "never" };
	char big[3 * POSIX_CHUNK];
	int errs[3];
	struct errtext et;
	struct ufs_attr a;

	cr_assert_eq(fault_init("posix.nameless=errno:95", &et), 0);
	memset(big, 'x', sizeof(big));
	for (uint64_t id = 0; id < 2; id++) {
		ufs_set_mount_id(pw.ufs, id);
		cr_assert_eq(pw_put("f", "one", &a), 0);
		cr_assert_eq(pw_put("f", "two", &a), 0);
		cr_assert_eq(pw_put_as("f", big, sizeof(big), false, NULL, NULL, &a), 0);
		cr_assert_eq(pw_put_as("f", "x", 1, true, NULL, NULL, &a), -EEXIST);
		cr_assert_eq(pw_put("f", "three", &a), 0);
		cr_assert_eq(a.size, 5);
		cr_assert_eq(pw_temps(""), 0);
	}
	/* What a killed daemon of this mount has left: who does it again takes it away. */
	leave(1, "f");
	cr_assert_eq(pw_put("f", "four", &a), 0);
	cr_assert_eq(pw_temps(""), 0);
	leave(1, "new");
	cr_assert_eq(pw_put("new", "five", &a), 0);
	cr_assert_eq(pw_temps(""), 0);
	/* So does who deletes or renames it, whether it ever came to be or not. */
	cr_assert_eq(pw_put("a", "a", &a), 0);
	cr_assert_eq(pw_put("b", "b", &a), 0);
	leave(1, "a");
	leave(1, "never");
	pw_delete(gone, 3, errs);
	cr_assert(errs[0] == 0 && errs[2] == 0);
	cr_assert_eq(pw_temps(""), 0);
	leave(1, "f");
	cr_assert_eq(pw_rename_to("f", "g", false, &a), 0);
	cr_assert_eq(pw_temps(""), 0);
	/* Another mount's is let be. */
	leave(2, "g");
	cr_assert_eq(pw_put("g", "six", &a), 0);
	cr_assert_eq(pw_temps(""), 1);
	cr_assert_eq(fault_init("", &et), 0);
}

/* A put that is given up is cleaned away after another of the same file has begun. */
Test(posix_faults, puts_given_up_without_nameless_files)
{
	size_t len = 4 * POSIX_CHUNK;
	char *body = pw_bytes(len, 1);
	struct errtext et;
	struct ufs_attr a;

	cr_assert_eq(fault_init("posix.nameless=errno:95", &et), 0);
	ufs_set_mount_id(pw.ufs, 1);
	for (unsigned turns = 0; turns < 12; turns++) {
		struct ufs_put p = { .path = "f", .body = body, .len = len, .req = { .user = &pw } };

		pw.done = false;
		ufs_put(pw.ufs, &p, ufs_fix_done);
		for (unsigned i = 0; i < turns && !pw.done; i++)
			(void)loop_turn(pw.loop, true);
		ufs_abort(&p.req);
		pw.done = false;
		cr_assert_eq(pw_put_as("f", body, len, false, NULL, NULL, &a), 0, "%u", turns);
		cr_assert_eq(a.size, len);
	}
	while (pool_outstanding(pw.pool) > 0)
		(void)loop_turn(pw.loop, true);
	cr_assert_eq(pw_temps(""), 0);
	free(body);
	cr_assert_eq(fault_init("", &et), 0);
}

/* --- other file systems, in a mount namespace of the test's own */

static bool mounts;

static void up_mounts(void)
{
	mounts = unshare(CLONE_NEWNS) == 0 &&
		 mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
	pw_up();
}

static void mount_at(const char *path, unsigned long flags, const char *options)
{
	cr_assert(mkdir(pw_in_dir(path), 0755) == 0 || errno == EEXIST);
	cr_assert_eq(mount("none", pw_in_dir(path), "tmpfs", flags, options), 0);
}

static void down_mounts(void)
{
	if (mounts) {
		(void)umount2(pw_in_dir("m"), MNT_DETACH);
		(void)umount2(pw_in_dir("n"), MNT_DETACH);
	}
	pw_down();
}

TestSuite(posix_faults_fs, .init = up_mounts, .fini = down_mounts);

Test(posix_faults_fs, no_space)
{
	size_t len = 2 * POSIX_CHUNK;
	char *body = pw_bytes(len, 1);
	struct ufs_part_id pi;
	char id[UFS_UPLOAD_MAX];
	struct ufs_attr a;

	if (!mounts)
		cr_skip_test("mounting is not allowed here");
	mount_at("m", 0, "size=3m");
	cr_assert_eq(pw_put_as("m/f", body, len, false, NULL, NULL, &a), 0);
	cr_assert_eq(pw_put_as("m/f", body, len, false, NULL, NULL, NULL), -ENOSPC);
	pw_same_as_stat("m/f", &a);
	pw_holds("m/f", body, len);
	cr_assert_eq(pw_copy("m/f", &a, "m/g", NULL), -ENOSPC);
	cr_assert_eq(pw_temps("m"), 0);
	cr_assert_eq(pw_begin("m/f", id), 0);
	cr_assert_eq(pw_part("m/f", id, &pi, 1, 0, body, len), -ENOSPC);
	cr_assert_eq(pw_drop("m/f", id), 0);
	cr_assert_eq(pw_temps("m"), 0);
	/* Nothing of what failed is left to take the room. */
	cr_assert_eq(pw_put_as("m/g", body, POSIX_CHUNK / 2, false, NULL, NULL, NULL), 0);
	free(body);
}

Test(posix_faults_fs, read_only)
{
	static const char *const paths[] = { "m/f" };
	struct ufs_set set = { .what = UFS_SET_MODE, .mode = 0700 };
	char id[UFS_UPLOAD_MAX];
	struct ufs_attr a;
	int errs[1];

	if (!mounts)
		cr_skip_test("mounting is not allowed here");
	mount_at("m", 0, "");
	cr_assert_eq(pw_put("m/f", "x", NULL), 0);
	cr_assert_eq(mount(NULL, pw_in_dir("m"), NULL, MS_REMOUNT | MS_RDONLY | MS_BIND, NULL), 0);
	cr_assert_eq(pw_put("m/f", "y", NULL), -EROFS);
	cr_assert_eq(pw_begin("m/f", id), -EROFS);
	cr_assert_eq(pw_mkdir_as("m/d", NULL, &a), -EROFS);
	cr_assert_eq(pw_rename_to("m/f", "m/g", false, &a), -EROFS);
	cr_assert_eq(pw_setattr("m/f", &set, &a), -EROFS);
	pw_delete(paths, 1, errs);
	cr_assert_eq(errs[0], -EROFS);
	pw_holds("m/f", "x", 1);
}

Test(posix_faults_fs, across_file_systems)
{
	size_t len = 2 * POSIX_CHUNK + 3;
	char *body = pw_bytes(len, 1);
	struct ufs_attr a, b;

	if (!mounts)
		cr_skip_test("mounting is not allowed here");
	mount_at("m", 0, "");
	mount_at("n", 0, "");
	cr_assert_eq(pw_put_as("m/f", body, len, false, NULL, NULL, &a), 0);
	cr_assert_eq(pw_copy("m/f", &a, "n/f", &b), 0);
	pw_holds("n/f", body, len);
	cr_assert_eq(pw_copy("m/f", &a, "f", &b), 0);
	pw_holds("f", body, len);
	cr_assert_eq(pw_rename_to("m/f", "n/g", false, &b), -EXDEV);
	cr_assert_eq(pw_rmdir_of("m"), -EBUSY);
	free(body);
}

/* --- things that change below us */

Test(posix_faults, directory_goes_while_written)
{
	size_t len = 4 * POSIX_CHUNK;
	char *body = pw_bytes(len, 1);
	struct ufs_put p = { .path = "d/f", .body = body, .len = len, .req = { .user = &pw } };
	struct ufs_part_id pi;
	char id[UFS_UPLOAD_MAX];

	pw_sh("mkdir d", "");
	ufs_put(pw.ufs, &p, ufs_fix_done);
	(void)loop_turn(pw.loop, true);
	cr_assert(!pw.done);
	pw_sh("rm -rf d", "");
	ufs_fix_wait(&pw);
	cr_assert_eq(pw.err, -ENOENT);
	pw_sh("mkdir d", "");
	cr_assert_eq(pw_begin("d/f", id), 0);
	pw_sh("rm -rf d", "");
	cr_assert_eq(pw_part("d/f", id, &pi, 1, 0, "abc", 3), -ENOENT);
	strcpy(pi.etag, "x");
	cr_assert_eq(pw_end("d/f", id, &pi, 1, false, NULL, NULL), -ENOENT);
	cr_assert_eq(pw_drop("d/f", id), 0);
	free(body);
}

Test(posix_faults, link_swapped_in)
{
	size_t len = 4 * POSIX_CHUNK;
	char *body = pw_bytes(len, 1);
	struct ufs_put p = { .path = "d/f", .body = body, .len = len, .req = { .user = &pw } };
	struct ufs_part_id pi;
	char id[UFS_UPLOAD_MAX];
	struct ufs_attr a;

	pw_sh("mkdir d outside", "");
	cr_assert_eq(pw_begin("d/g", id), 0);
	ufs_put(pw.ufs, &p, ufs_fix_done);
	(void)loop_turn(pw.loop, true);
	cr_assert(!pw.done);
	/* It goes on in the directory that it began in. */
	pw_sh("mv d e && ln -s outside d", "");
	ufs_fix_wait(&pw);
	cr_assert_eq(pw.err, 0);
	pw_holds("e/f", body, len);
	cr_assert(pw_part("d/g", id, &pi, 1, 0, "abc", 3) == -ENOENT);
	cr_assert(pw_put("d/h", "x", NULL) == -ENOENT || pw.err == -ENOTDIR);
	cr_assert(pw_mkdir_as("d/h", NULL, &a) == -ENOENT || pw.err == -ENOTDIR);
	cr_assert(pw_rename_to("e/f", "d/h", false, &a) == -ENOENT || pw.err == -ENOTDIR);
	pw_sh("test -z \"$(ls -A outside)\"", "");
	free(body);
}

/* A put that hangs and was given up does not come back over a later one. */
static void hang(struct pool_job *job)
{
	int *pipe_fd = (int *)(void *)(job + 1);
	char c;

	job->result = (int)read(pipe_fd[0], &c, 1);
}

static void hang_done(struct pool_job *job)
{
	free(job);
}

Test(posix_faults, late_writes_have_no_effect)
{
	struct posix *px = container_of(pw.ufs, struct posix, ufs);
	int fds[2];

	cr_assert_eq(pw_put("x", "before", NULL), 0);
	ufs_fix_set(&pw, "ufs.timeout", "100ms");
	cr_assert_eq(pipe(fds), 0);
	for (unsigned i = 0; i < px->lanes->n; i++) {
		struct pool_job *job = calloc(1, sizeof(*job) + 2 * sizeof(int));

		memcpy(job + 1, fds, sizeof(fds));
		pool_submit(pw.pool, &px->lanes->lane[i].lane, job, hang, hang_done);
	}
	cr_assert_eq(pw_put("x", "late", NULL), -ETIMEDOUT);
	for (unsigned i = 0; i < px->lanes->n; i++)
		cr_assert_eq(write(fds[1], "x", 1), 1);
	while (pool_outstanding(pw.pool) > 0)
		(void)loop_turn(pw.loop, true);
	pw_holds("x", "before", 6);
	ufs_fix_set(&pw, "ufs.timeout", "1min");
	cr_assert_eq(pw_put("x", "after", NULL), 0);
	pw_holds("x", "after", 5);
	close(fds[0]);
	close(fds[1]);
}

/* The same without openat2(), component by component. */
Test(posix_faults, without_openat2)
{
	struct posix *px = container_of(pw.ufs, struct posix, ufs);
	struct ufs_attr a;

	px->no_openat2 = true;
	pw_sh("mkdir d && ln -s d l", "");
	cr_assert_eq(pw_put("d/f", "x", &a), 0);
	pw_same_as_stat("d/f", &a);
	cr_assert_eq(pw_put("l/f", "x", NULL), -ENOTDIR);
	cr_assert_eq(pw_mkdir_as("d/e", NULL, &a), 0);
	cr_assert_eq(pw_rename_to("d/f", "d/e/f", true, &a), 0);
	pw_holds("d/e/f", "x", 1);
}
