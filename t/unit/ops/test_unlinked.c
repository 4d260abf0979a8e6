/* SPDX-License-Identifier: BSD-2-Clause */
/* Deletions that are answered before the storage has done them. */
#include "ops/unlinked.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/units.h"
#include "meta_rig.h"
#include "ops_rig.h"

#define OPTS "attr_timeout=0,entry_timeout=0"

static struct rig r;

static void begin(void)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount_writing(&r, OPTS);
	fake_add(&r.ufs, "d", UFS_DIR, 0, "");
	fake_add(&r.ufs, "d/a", UFS_FILE, 5, "a1");
	fake_add(&r.ufs, "d/b", UFS_FILE, 5, "b1");
	fake_add(&r.ufs, "d/c", UFS_FILE, 5, "c1");
	fake_add(&r.ufs, "d/sub", UFS_DIR, 0, "");
	fake_add(&r.ufs, "d/sub/x", UFS_FILE, 5, "x1");
	/* Only what is wanted is sent. */
	r.cfg->delete_delay = NS_PER_S * 3600;
}

static void finish(void)
{
	rig_free(&r);
}

TestSuite(unlinked, .fini = finish);

static int run(rig_client *fn, const char *arg)
{
	return rig_run(&r, fn, (void *)(uintptr_t)arg);
}

static bool there(const char *path)
{
	return fake_find(&r.ufs, path) != NULL;
}

static unsigned did(enum fake_op op)
{
	return r.ufs.store.count[op];
}

static uint64_t rows(void)
{
	return statedb_count(r.db, STATEDB_UNLINKED);
}

static bool none_left(struct rig *rig, void *arg)
{
	(void)arg;
	return unlinked_count(rig->fs) == 0 && rig->fs->nwork == 0;
}

static void flush(void)
{
	unlinked_flush(r.fs);
	rig_until(&r, none_left, NULL);
	cr_assert_eq(rows(), 0);
}

static bool failing(struct rig *rig, void *arg)
{
	(void)arg;
	return rig->fs->unlinked->failures > 0 && rig->fs->nwork == 0;
}

static int c_unlink(const struct tmp_mount *tm, void *arg)
{
	return unlink(rig_at(tm, arg)) == 0 ? 0 : errno;
}

static int c_rmdir(const struct tmp_mount *tm, void *arg)
{
	return rmdir(rig_at(tm, arg)) == 0 ? 0 : errno;
}

static int c_mkdir(const struct tmp_mount *tm, void *arg)
{
	return mkdir(rig_at(tm, arg), 0755) == 0 ? 0 : errno;
}

static int c_excl(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_WRONLY | O_CREAT | O_EXCL, 0644);

	if (fd < 0)
		return errno;
	return write(fd, "new", 3) == 3 && close(fd) == 0 ? 0 : errno;
}

static int c_write(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_WRONLY | O_CREAT, 0644);

	if (fd < 0)
		return errno;
	return write(fd, "new", 3) == 3 && close(fd) == 0 ? 0 : errno;
}

static int c_fsync(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_RDONLY | O_DIRECTORY);

	if (fd < 0)
		return errno;
	return fsync(fd) == 0 ? 0 : errno;
}

/* "d/a d/b": the second becomes the first's name. */
static int c_rename(const struct tmp_mount *tm, void *arg)
{
	char from[64], to[64], path[512];

	sscanf(arg, "%63s %63s", from, to);
	snprintf(path, sizeof(path), "%s", rig_at(tm, from));
	return rename(path, rig_at(tm, to)) == 0 ? 0 : errno;
}

/* How many names a directory has. */
static int c_count(const struct tmp_mount *tm, void *arg)
{
	DIR *d = opendir(rig_at(tm, arg));
	int n = 0;

	if (d == NULL)
		return WRONG;
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n - 2;
}

/* The first in a directory shows that the storage deletes. */
static void prove(void)
{
	begin();
	cr_assert_eq(run(c_unlink, "d/a"), 0);
	cr_assert_eq(did(FAKE_DELETE), 1);
	cr_assert_not(there("d/a"));
	cr_assert_eq(rows(), 0);
}

/* d/b is to be deleted. */
static void pend(void)
{
	prove();
	cr_assert_eq(run(c_unlink, "d/b"), 0);
	cr_assert_eq(did(FAKE_DELETE), 1, "not sent yet");
	cr_assert(there("d/b"));
	cr_assert_eq(rows(), 1);
}

/* --- What is seen */

Test(unlinked, the_name_is_gone_at_once)
{
	pend();
	cr_assert_eq(run(rig_stat, "d/b"), ENOENT);
	cr_assert_eq(run(c_unlink, "d/b"), ENOENT);
	cr_assert_eq(run(c_count, "d"), 2);
	cr_assert_eq(run(c_rmdir, "d"), ENOTEMPTY);
	flush();
	cr_assert_not(there("d/b"));
	cr_assert(there("d/c"));
	cr_assert_eq(did(FAKE_DELETE), 2);
	cr_assert_eq(run(rig_stat, "d/b"), ENOENT);
	cr_assert_eq(run(c_count, "d"), 2);
}

Test(unlinked, it_is_sent_after_the_delay)
{
	prove();
	r.cfg->delete_delay = NS_PER_S / 100;
	cr_assert_eq(run(c_unlink, "d/b"), 0);
	cr_assert_eq(run(c_unlink, "d/c"), 0);
	rig_until(&r, none_left, NULL);
	cr_assert_not(there("d/b"));
	cr_assert_not(there("d/c"));
	cr_assert_eq(rows(), 0);
}

Test(unlinked, many_go_together)
{
	prove();
	cr_assert_eq(run(c_unlink, "d/b"), 0);
	cr_assert_eq(run(c_unlink, "d/c"), 0);
	flush();
	cr_assert_eq(did(FAKE_DELETE), 2);
}

Test(unlinked, without_delay_each_waits)
{
	prove();
	r.cfg->delete_delay = 0;
	cr_assert_eq(run(c_unlink, "d/b"), 0);
	cr_assert_eq(did(FAKE_DELETE), 2);
	cr_assert_eq(rows(), 0);
}

Test(unlinked, the_first_in_another_directory_waits)
{
	pend();
	cr_assert_eq(run(c_unlink, "d/sub/x"), 0);
	cr_assert_eq(did(FAKE_DELETE), 2);
	cr_assert_not(there("d/sub/x"));
	cr_assert_eq(rows(), 1);
}

/* --- What is made there waits for it */

Test(unlinked, create_comes_after_it)
{
	pend();
	cr_assert_eq(run(c_excl, "d/b"), 0);
	cr_assert_eq(did(FAKE_DELETE), 2);
	cr_assert_eq(rows(), 0);
	cr_assert_eq(fake_find(&r.ufs, "d/b")->size, 3);
	flush();
	cr_assert(there("d/b"));
	cr_assert_eq(run(c_unlink, "d/c"), 0);
	cr_assert_eq(run(c_write, "d/c"), 0);
	cr_assert_eq(fake_find(&r.ufs, "d/c")->size, 3);
}

Test(unlinked, mkdir_and_rename_come_after_it)
{
	pend();
	cr_assert_eq(run(c_mkdir, "d/b"), 0);
	cr_assert_eq(did(FAKE_DELETE), 2);
	cr_assert_eq(fake_find(&r.ufs, "d/b")->kind, UFS_DIR);
	cr_assert_eq(run(c_unlink, "d/c"), 0);
	cr_assert_eq(run(c_rename, "d/c d/y"), ENOENT);
	cr_assert_eq(run(c_rename, "d/sub d/c"), 0);
	flush();
	cr_assert(there("d/c/x"));
	cr_assert_not(there("d/sub/x"));
}

Test(unlinked, a_directory_that_moves_leaves_nothing_behind)
{
	pend();
	cr_assert_eq(run(c_rename, "d e"), 0);
	cr_assert_eq(rows(), 0);
	cr_assert_not(there("d/b"));
	cr_assert_not(there("e/b"));
	cr_assert(there("e/c"));
}

Test(unlinked, fsync_of_the_directory_waits)
{
	pend();
	cr_assert_eq(run(c_fsync, "d/sub"), 0);
	cr_assert_eq(rows(), 1, "nothing is waited for there");
	cr_assert_eq(run(c_fsync, "d"), 0);
	cr_assert_eq(rows(), 0);
	cr_assert_not(there("d/b"));
	cr_assert_eq(run(c_fsync, "d"), 0);
}

/* --- Directories */

static void empty_d(void)
{
	pend();
	cr_assert_eq(run(c_unlink, "d/c"), 0);
	cr_assert_eq(run(c_unlink, "d/sub/x"), 0);
	cr_assert_eq(run(c_rmdir, "d/sub"), 0);
	cr_assert_eq(run(c_rmdir, "d"), 0);
	cr_assert_eq(rows(), 4);
	cr_assert_eq(run(rig_stat, "d"), ENOENT);
	cr_assert_eq(run(c_count, ""), 0);
	cr_assert_eq(did(FAKE_RMDIR), 0);
}

Test(unlinked, a_directory_goes_when_all_in_it_has)
{
	empty_d();
	/* The files and the inner directory, then the outer one. */
	flush();
	cr_assert_eq(r.ufs.store.nfiles, 0);
	cr_assert_eq(did(FAKE_DELETE), 4);
	cr_assert_eq(did(FAKE_RMDIR), 0);
}

Test(unlinked, another_of_that_name)
{
	empty_d();
	cr_assert_eq(run(c_mkdir, "d"), 0);
	cr_assert_eq(rows(), 0);
	cr_assert_eq(run(c_excl, "d/b"), 0);
	flush();
	cr_assert(there("d/b"));
	cr_assert_eq(run(c_count, "d"), 1);
}

Test(unlinked, what_another_client_made_keeps_the_directory)
{
	pend();
	cr_assert_eq(run(c_unlink, "d/c"), 0);
	cr_assert_eq(run(c_unlink, "d/sub/x"), 0);
	fake_add(&r.ufs, "d/sub/y", UFS_FILE, 5, "y1");
	cr_assert_eq(run(c_rmdir, "d/sub"), ENOTEMPTY);
}

/* Of the outer one nothing is known: what is in it, though, waits for its turn. */
Test(unlinked, a_directory_in_which_nothing_was_deleted)
{
	begin();
	fake_add(&r.ufs, "o", UFS_DIR, 0, "");
	fake_add(&r.ufs, "o/i", UFS_DIR, 0, "");
	fake_add(&r.ufs, "o/i/x", UFS_FILE, 5, "x1");
	cr_assert_eq(run(c_unlink, "o/i/x"), 0);
	cr_assert_eq(run(c_rmdir, "o/i"), 0);
	cr_assert(there("o/i"));
	cr_assert_eq(run(c_rmdir, "o"), 0);
	cr_assert_eq(run(rig_stat, "o"), ENOENT);
	flush();
	cr_assert_not(there("o"));
	cr_assert_not(there("o/i"));
}

Test(unlinked, a_directory_that_waits_for_the_storage)
{
	prove();
	cr_assert_eq(run(c_unlink, "d/sub/x"), 0);
	cr_assert_eq(run(c_rmdir, "d/sub"), 0);
	cr_assert_eq(run(c_unlink, "d/b"), 0);
	cr_assert_eq(run(c_unlink, "d/c"), 0);
	r.cfg->delete_delay = 0;
	cr_assert_eq(run(c_rmdir, "d"), 0);
	cr_assert_eq(rows(), 0);
	cr_assert_eq(r.ufs.store.nfiles, 0);
	cr_assert_eq(run(rig_stat, "d"), ENOENT);
}

/* --- A daemon that ends, or dies */

Test(unlinked, the_next_daemon_goes_on)
{
	empty_d();
	rig_restart(&r);
	cr_assert_eq(r.fs->unlinked->n, 4);
	cr_assert_eq(run(rig_stat, "d"), ENOENT);
	rig_until(&r, none_left, NULL);
	cr_assert_eq(r.ufs.store.nfiles, 0);
	cr_assert_eq(rows(), 0);
}

Test(unlinked, killed_while_the_storage_works_on_it)
{
	pend();
	r.ufs.stall = true;
	unlinked_flush(r.fs);
	rig_until_waiting(&r, 1);
	cr_assert(fake_waits(&r.ufs, FAKE_DELETE));
	r.ufs.late_effects = true;
	rig_crash(&r);
	cr_assert_not(there("d/b"));
	fake_release(&r.ufs);
	rig_until(&r, none_left, NULL);
	cr_assert_eq(rows(), 0);
	cr_assert_eq(run(c_excl, "d/b"), 0);
	cr_assert(there("d/b"));
}

/* --- Failures */

Test(unlinked, refused_it_is_there_again)
{
	pend();
	fake_store_fail(&r.ufs.store, FAKE_DELETE, 1, 2, -EACCES, false);
	flush();
	cr_assert_eq(run(rig_stat, "d/b"), 0);
	cr_assert_eq(r.fs->unlinked->refused, 1);
	cr_assert_eq(loop_counters(r.loop)->v[CTR_DELETE_FAILED], 1);
	cr_assert_eq(run(c_unlink, "d/c"), EACCES, "the caller waits again");
	cr_assert_eq(run(c_unlink, "d/c"), 0);
	cr_assert_eq(did(FAKE_DELETE), 4);
	cr_assert_eq(run(c_unlink, "d/b"), 0);
	cr_assert_eq(rows(), 1, "and then does not");
}

Test(unlinked, what_comes_back_brings_its_directories)
{
	empty_d();
	fake_store_fail(&r.ufs.store, FAKE_DELETE, 1, 1, -EACCES, false);
	flush();
	cr_assert_eq(run(rig_stat, "d/b"), 0);
	cr_assert_eq(run(rig_stat, "d"), 0);
	cr_assert_eq(r.fs->unlinked->n, 0);
}

Test(unlinked, who_waits_hears_of_it)
{
	pend();
	fake_store_fail(&r.ufs.store, FAKE_DELETE, 1, 1, -EACCES, false);
	cr_assert_eq(run(c_fsync, "d"), EIO);
	cr_assert_eq(rows(), 0);
	cr_assert_eq(run(c_unlink, "d/b"), 0);
	cr_assert_eq(run(c_unlink, "d/c"), 0);
	fake_store_fail(&r.ufs.store, FAKE_DELETE, 1, 1, -EACCES, false);
	cr_assert_eq(run(c_excl, "d/c"), EEXIST, "it is there again");
}

Test(unlinked, storage_down_it_is_tried_again)
{
	pend();
	fake_store_fail(&r.ufs.store, FAKE_DELETE, 1, 3, -ETIMEDOUT, false);
	cr_assert_eq(run(c_excl, "d/b"), EIO);
	rig_until(&r, failing, NULL);
	cr_assert_eq(run(rig_stat, "d/b"), ENOENT);
	cr_assert_eq(rows(), 1);
	cr_assert_eq(run(c_unlink, "d/c"), EIO, "it waits, and is told");
	cr_assert_eq(run(c_fsync, "d"), EIO);
	rig_until(&r, none_left, NULL); /* by itself, a little later */
	cr_assert_not(there("d/b"));
	cr_assert_eq(r.fs->unlinked->failures, 0);
	cr_assert_eq(run(c_excl, "d/b"), 0);
}

/* --- Late */

static void age(void)
{
	struct unlinked *u;

	TAILQ_FOREACH(u, &r.fs->unlinked->list, link)
	u->noted_ns -= NS_PER_S * 3600;
}

Test(unlinked, late_it_takes_what_was_unlinked)
{
	pend();
	age();
	flush();
	cr_assert_not(there("d/b"));
}

Test(unlinked, late_it_leaves_a_newer_object)
{
	pend();
	strcpy(fake_find(&r.ufs, "d/b")->version, "b2");
	age();
	flush();
	cr_assert(there("d/b"));
	cr_assert_eq(did(FAKE_DELETE), 1);
	cr_assert_eq(run(rig_stat, "d/b"), 0);
}

Test(unlinked, late_and_gone_already)
{
	pend();
	fake_store_remove(&r.ufs.store, fake_find(&r.ufs, "d/b"));
	age();
	flush();
	cr_assert_eq(did(FAKE_DELETE), 1);
}

/* --- Records, memory */

Test(unlinked, the_record_goes_with_it)
{
	const struct meta_record rec = {
	    .kind = META_FILE, .has = META_HAS_MODE, .mode = 0600, .version = "b1"};
	struct meta_record got;

	prove();
	meta_rig_put(&r, "d/b", &rec);
	cr_assert_eq(run(c_unlink, "d/b"), 0);
	cr_assert_eq(meta_rig_get(&r, "d/b", &got), 0, "as long as it may come back");
	flush();
	cr_assert_eq(meta_rig_get(&r, "d/b", &got), -ENOENT);
}

Test(unlinked, rows_that_were_lost_are_read_again)
{
	pend();
	unlinked_check(r.fs);
	cr_assert_eq(unlinked_count(r.fs), 1);
	rig_until(&r, none_left, NULL);
	cr_assert_not(there("d/b"));
}

Test(unlinked, out_of_memory)
{
	char name[32];
	bool fired = true;
	int err;

	prove();
	for (unsigned n = 1; fired; n++) {
		snprintf(name, sizeof(name), "d/n%u", n);
		fake_add(&r.ufs, name, UFS_FILE, 5, "n1");
		err = rig_wait_nth(&r, rig_start(&r, c_unlink, name), n, &fired);
		cr_assert(err == 0 || err == ENOMEM || err == EIO, "allocation %u: %d", n, err);
		cr_assert_eq(run(rig_stat, name), err == 0 ? ENOENT : 0, "allocation %u", n);
		rig_until(&r, none_left, (unlinked_flush(r.fs), NULL));
		cr_assert_eq(there(name), err != 0, "allocation %u", n);
		cr_assert_eq(rows(), 0);
		if (err != 0) /* and the storage is trusted again */
			cr_assert_eq(run(c_unlink, name), 0);
	}
}
