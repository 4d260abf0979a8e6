/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "rig.h"

static struct rig g;
static struct cache_env env;
static struct errtext et;

static void dir_rig(void)
{
	rig_init(&g, true);
	env = (struct cache_env){g.loop, g.pool, g.cfg, &g.epoch, false};
}

static void fini(void)
{
	rig_fini(&g);
}

TestSuite(cache_dir, .init = dir_rig, .fini = fini);

Test(cache_dir, two_daemons_on_one_directory)
{
	struct cache *a = NULL, *b = NULL;
	char pid[16];

	cr_assert_eq(cache_new(&a, &env, -1, &et), 0, "%s", et.s);
	cr_assert_eq(cache_new(&b, &env, -1, &et), -EBUSY);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	cr_assert_not_null(strstr(et.s, pid), "%s", et.s);
	cr_assert_not_null(strstr(et.s, g.dir), "%s", et.s);
	cache_free(&a);
	cr_assert_eq(cache_new(&b, &env, -1, &et), 0);
	cache_free(&b);
}

Test(cache_dir, a_successor_takes_over_with_the_lock)
{
	struct cache *old = NULL, *new = NULL, *third = NULL;
	struct blob_id id = {g.ufs, "f", "v1", MIB};
	struct blob *b;

	rig_start(&g);
	b = rig_blob(&g, "f", "v1", MIB);
	cr_assert_eq(rig_read(&g, b, NULL, 0, MIB), 0);
	rig_settle(&g);
	old = g.cache;
	cr_assert_eq(cache_new(&new, &env, dup(cache_lock_fd(old)), &et), 0, "%s", et.s);
	cr_assert(cache_same_dir(new, old->dir_fd));
	cr_assert(cache_same_dir(new, cache_lock_fd(old)));
	cr_assert(!cache_same_dir(new, STDIN_FILENO));
	rig_close(&g, false);
	cache_blob_put(&b);
	g.cache = new;
	cache_index_open(new);
	cache_free(&old);
	cr_assert_eq(cache_new(&third, &env, -1, &et), -EBUSY, "the lock went with the old one");
	g.ufs->started = 0;
	b = cache_blob_get(new, &id);
	cr_assert_eq(rig_read(&g, b, NULL, 0, MIB), 0);
	cr_assert_eq(g.ufs->started, 0);
	cache_blob_put(&b);
}

Test(cache_dir, a_lock_of_another_directory_is_refused)
{
	char path[160];
	struct cache *c = NULL;
	int fd;

	snprintf(path, sizeof(path), "%s/stray", g.dir);
	fd = open(path, O_CREAT | O_RDWR, 0600);
	cr_assert_eq(cache_new(&c, &env, fd, &et), -EINVAL);
	cr_assert_null(c);
	cr_assert_eq(fcntl(fd, F_GETFD), -1, "owned, also on failure");
}

Test(cache_dir, a_directory_that_is_not_ours_is_refused)
{
	char path[160];
	struct cache *c = NULL;
	int fd;

	snprintf(path, sizeof(path), "%s/holiday.jpg", g.dir);
	close(open(path, O_CREAT | O_RDWR, 0600));
	cr_assert_eq(cache_new(&c, &env, -1, &et), -EINVAL);
	cr_assert_not_null(strstr(et.s, "not empty"), "%s", et.s);
	unlink(path);
	/* These outlive the cache. */
	snprintf(path, sizeof(path), "%s/meta", g.dir);
	cr_assert_eq(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/staged", g.dir);
	cr_assert_eq(mkdir(path, 0700), 0);
	cr_assert_eq(cache_new(&c, &env, -1, &et), 0, "%s", et.s);
	cache_free(&c);
	snprintf(path, sizeof(path), "%s/identity", g.dir);
	fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
	cr_assert_eq(write(fd, "batonfs page store 9\n", 21), 21);
	close(fd);
	cr_assert_eq(cache_new(&c, &env, -1, &et), -EINVAL);
	cr_assert_not_null(strstr(et.s, "format"), "%s", et.s);
}

Test(cache_dir, missing_directories_are_made_private)
{
	char path[160];
	struct stat st;

	snprintf(path, sizeof(path), "%s/a/b", g.dir);
	rig_set(&g, "worker.page.store.dir", path);
	rig_start(&g);
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0700);
}

Test(cache_dir, a_path_through_a_file_is_an_error_with_words)
{
	struct cache *c = NULL;

	rig_set(&g, "worker.page.store.dir", "/dev/null/x");
	cr_assert_eq(cache_new(&c, &env, -1, &et), -ENOTDIR);
	cr_assert_not_null(strstr(et.s, "/dev/null/x"), "%s", et.s);
}

/* --- The index beside it */

static void fill(void)
{
	struct blob *b;

	rig_start(&g);
	b = rig_blob(&g, "f", "v1", 8 * MIB);
	for (uint64_t off = 0; off < 8 * MIB; off += MIB)
		cr_assert_eq(rig_read(&g, b, NULL, off, MIB), 0);
	cache_blob_put(&b);
	rig_stop(&g);
}

static void still_works(void)
{
	struct blob *b;

	rig_start(&g);
	b = rig_blob(&g, "f", "v1", 8 * MIB);
	for (int i = 0; i < 2; i++) {
		for (uint64_t off = 0; off < 8 * MIB; off += MIB)
			cr_assert_eq(rig_read(&g, b, NULL, off, MIB), 0);
		rig_settle(&g);
	}
	cr_assert_eq(g.cache->state, STORE_OPEN);
	cr_assert_eq(cache_blob_cached(b), 8 * MIB);
	cache_blob_put(&b);
}

static void index_path(char *path, size_t len, const char *name)
{
	snprintf(path, len, "%s/%s", g.dir, name);
}

Test(cache_dir, a_truncated_index_is_begun_afresh)
{
	char path[160], broken[160];
	struct stat st;

	fill();
	index_path(path, sizeof(path), "index.mdb");
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(truncate(path, 3 * 4096), 0);
	still_works();
	index_path(broken, sizeof(broken), "index.broken");
	cr_assert_eq(access(broken, F_OK), 0, "set aside");
}

Test(cache_dir, an_index_of_rubbish_is_begun_afresh)
{
	char path[160], data[8192];
	int fd;

	fill();
	index_path(path, sizeof(path), "index.mdb");
	memset(data, 0x5a, sizeof(data));
	fd = open(path, O_WRONLY);
	cr_assert_eq(pwrite(fd, data, sizeof(data), 0), (ssize_t)sizeof(data));
	close(fd);
	still_works();
}

Test(cache_dir, an_index_that_killed_us_is_begun_afresh)
{
	char path[160];

	fill();
	index_path(path, sizeof(path), "index.opening");
	close(open(path, O_CREAT | O_WRONLY, 0600));
	still_works();
	cr_assert_neq(access(path, F_OK), 0);
}

Test(cache_dir, an_empty_index_file_is_no_trouble)
{
	char path[160];

	fill();
	index_path(path, sizeof(path), "index.mdb");
	cr_assert_eq(truncate(path, 0), 0);
	still_works();
}

Test(cache_dir, another_page_size_begins_afresh)
{
	fill();
	rig_set(&g, "worker.page.store.page.size", "128KiB");
	still_works();
}

Test(cache_dir, a_torn_tail_is_ignored)
{
	char path[160];
	int fd;

	fill();
	index_path(path, sizeof(path), "index.tail");
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	cr_assert_eq(write(fd, "1tab rubbish that is no tail", 28), 28);
	close(fd);
	still_works();
	cr_assert_neq(access(path, F_OK), 0);
}
