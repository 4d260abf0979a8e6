/* SPDX-License-Identifier: BSD-2-Clause */
/* What each call gets on a path with a write policy, through a real mount, at every state
 * of a file's persistence. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "meta_rig.h"
#include "ops/persist.h"
#include "policy_rig.h"

#define LARGE (300u * 1024)

static struct rig r;

static void begin(const char *mode, bool native)
{
	policy_rig_begin(&r, mode, native);
}

static void finish(void)
{
	if (r.loop != NULL)
		rig_free(&r);
}

TestSuite(policy_calls, .fini = finish);

static uint64_t tally(enum meta_state state)
{
	return policy_rig_tally(&r, state);
}

static int run(rig_client *fn, const char *arg)
{
	return rig_run(&r, fn, (void *)(uintptr_t)arg);
}

/* --- Clients */

static int c_make(const struct tmp_mount *tm, void *arg)
{
	return policy_rig_put(rig_at(tm, arg), 26);
}

static int c_make_large(const struct tmp_mount *tm, void *arg)
{
	return policy_rig_put(rig_at(tm, arg), LARGE);
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
	return n >= 26 && memcmp(buf, "abcdefghijklmnopqrstuvwxyz", 26) == 0 ? 0 : WRONG;
}

static int c_unlink(const struct tmp_mount *tm, void *arg)
{
	return unlink(rig_at(tm, arg)) == 0 ? 0 : errno;
}

static int c_rmdir(const struct tmp_mount *tm, void *arg)
{
	return rmdir(rig_at(tm, arg)) == 0 ? 0 : errno;
}

static int c_chmod(const struct tmp_mount *tm, void *arg)
{
	return chmod(rig_at(tm, arg), 0604) == 0 ? 0 : errno;
}

static int open_errno(const char *path, int flags)
{
	int fd = open(path, flags, 0644);

	if (fd >= 0)
		close(fd);
	return fd >= 0 ? 0 : errno;
}

static unsigned times_listed(const char *dir, const char *name)
{
	DIR *d = opendir(dir);
	struct dirent *de;
	unsigned n = 0;

	if (d == NULL)
		return 1000;
	while ((de = readdir(d)) != NULL)
		n += strcmp(de->d_name, name) == 0;
	closedir(d);
	return n;
}

/* Every row of the table for a closed file p/f of 26 bytes. */
static int c_closed_file(const struct tmp_mount *tm, void *arg)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000, .tv_nsec = 5}};
	char path[300], other[300], dir[256];
	struct stat st;

	(void)arg;
	snprintf(dir, sizeof(dir), "%s", rig_at(tm, "p"));
	snprintf(path, sizeof(path), "%s/f", dir);
	snprintf(other, sizeof(other), "%s/g", dir);
	if (stat(path, &st) != 0)
		return errno;
	if (st.st_size != 26 || !S_ISREG(st.st_mode) || (st.st_mode & 07777) != 0640)
		return WRONG + 1;
	if (open_errno(path, O_WRONLY) != EACCES || open_errno(path, O_RDWR) != EACCES ||
	    open_errno(path, O_WRONLY | O_APPEND) != EACCES)
		return WRONG + 2;
	if (open_errno(path, O_WRONLY | O_TRUNC) != EACCES ||
	    open_errno(path, O_WRONLY | O_CREAT) != EACCES)
		return WRONG + 3;
	if (open_errno(path, O_WRONLY | O_CREAT | O_EXCL) != EEXIST)
		return WRONG + 4;
	if (truncate(path, 3) != -1 || errno != EACCES || truncate(path, 26) != -1 ||
	    errno != EACCES)
		return WRONG + 5;
	if (rename(path, other) != -1 || errno != EIO)
		return WRONG + 6;
	if (link(path, other) != -1 || errno != EOPNOTSUPP)
		return WRONG + 7;
	if (chmod(path, 0600) != 0 || chown(path, 7, 8) != 0 ||
	    utimensat(AT_FDCWD, path, times, 0) != 0)
		return WRONG + 8;
	if (stat(path, &st) != 0 || (st.st_mode & 07777) != 0600 || st.st_uid != 7 ||
	    st.st_gid != 8 || st.st_mtim.tv_sec != 1000 || st.st_size != 26)
		return WRONG + 9;
	if (times_listed(dir, "f") != 1 || times_listed(dir, "foreign") != 1 ||
	    times_listed(dir, "g") != 0)
		return WRONG + 10;
	if (rmdir(dir) != -1 || errno != ENOTEMPTY)
		return WRONG + 11;
	if (mkdir(path, 0777) != -1 || errno != EEXIST)
		return WRONG + 12;
	return c_read(tm, (void *)(uintptr_t) "p/f");
}

static void closed_file(const char *mode, bool native)
{
	begin(mode, native);
	cr_assert_eq(run(c_make, "p/f"), 0);
	rig_until(&r, policy_rig_quiet, NULL);
	cr_assert_eq(rig_run(&r, c_closed_file, NULL), 0);
	rig_until(&r, policy_rig_quiet, NULL);
}

#define WAITS(mode, native) \
	do { \
		closed_file(mode, native); \
		cr_assert_null(fake_find(&r.ufs, "p/f"), "persisting is held back"); \
		rig_restart(&r); \
		cr_assert_eq(run(c_read, "p/f"), 0); \
		cr_assert_eq(run(c_unlink, "p/f"), 0); \
		cr_assert_eq(run(rig_stat, "p/f"), ENOENT); \
		cr_assert_eq(tally(META_STATE_NOT_PERSISTED) + tally(META_STATE_TRANSIENT), 0); \
	} while (0)

Test(policy_calls, write_back)
{
	WAITS("WRITE_BACK", false);
}

Test(policy_calls, write_back_native)
{
	WAITS("WRITE_BACK", true);
}

Test(policy_calls, transient)
{
	WAITS("TRANSIENT", false);
}

Test(policy_calls, transient_native)
{
	WAITS("TRANSIENT", true);
}

static void through(bool native)
{
	closed_file("WRITE_THROUGH", native);
	cr_assert_not_null(fake_find(&r.ufs, "p/f"));
	cr_assert_eq(tally(META_STATE_NOT_PERSISTED), 0);
	cr_assert_eq(run(c_unlink, "p/f"), 0);
	cr_assert_eq(run(rig_stat, "p/f"), ENOENT);
}

Test(policy_calls, write_through)
{
	through(false);
}

Test(policy_calls, write_through_native)
{
	through(true);
}

/* The same once it is in the storage. */
static void after_persisting(bool native)
{
	begin("WRITE_BACK", native);
	cr_assert_eq(run(c_make, "p/f"), 0);
	persist_resume(r.fs);
	rig_until(&r, policy_rig_persisted, NULL);
	cr_assert_not_null(fake_find(&r.ufs, "p/f"));
	cr_assert_eq(rig_run(&r, c_closed_file, NULL), 0);
	cr_assert_eq(run(c_unlink, "p/f"), 0);
	cr_assert_eq(run(rig_stat, "p/f"), ENOENT);
}

Test(policy_calls, persisted)
{
	after_persisting(false);
}

Test(policy_calls, persisted_native)
{
	after_persisting(true);
}

/* --- Without the storage */

static void no_storage(bool native)
{
	unsigned asked;

	begin("WRITE_BACK", native);
	cr_assert_eq(run(c_make, "p/f"), 0);
	cr_assert_eq(run(c_make_large, "p/big"), 0);
	rig_until(&r, policy_rig_quiet, NULL);
	/* The directory is known for a moment. */
	r.fs->attr_ttl_ns = UINT64_C(3600000000000);
	cr_assert_eq(run(rig_stat, "p"), 0);
	asked = r.ufs.stats;
	r.ufs.err = -EIO;
	cr_assert_eq(run(rig_stat, "p/f"), 0);
	r.fs->attr_ttl_ns = 0;
	cr_assert_eq(run(c_read, "p/f"), 0, "the directory is known by what lies in it");
	r.fs->attr_ttl_ns = UINT64_C(3600000000000);
	r.ufs.err = 0;
	cr_assert_eq(run(rig_stat, "p"), 0);
	r.ufs.err = -EIO;
	asked = r.ufs.stats;
	cr_assert_eq(run(c_read, "p/f"), 0);
	cr_assert_eq(run(c_read, "p/big"), 0);
	/* A storage that keeps directories is asked for this one's times after a change. */
	if (!native)
		cr_assert_eq(run(c_chmod, "p/big"), 0);
	cr_assert_eq(run(c_unlink, "p/f"), 0);
	cr_assert_eq(r.ufs.stats, asked, "not asked");
	r.ufs.err = 0;
	cr_assert_eq(run(rig_stat, "p/f"), ENOENT);
	cr_assert_eq(run(c_read, "p/big"), 0);
}

Test(policy_calls, the_storage_is_not_asked)
{
	no_storage(false);
}

Test(policy_calls, the_storage_is_not_asked_native)
{
	no_storage(true);
}

/* --- While it is open */

static int c_open_file(const struct tmp_mount *tm, void *arg)
{
	char path[256], hidden[256];
	struct stat st;
	int fd, rd;

	(void)arg;
	snprintf(path, sizeof(path), "%s", rig_at(tm, "p/o"));
	snprintf(hidden, sizeof(hidden), "%s", rig_at(tm, "p/.fuse_hidden01"));
	fd = open(path, O_RDWR | O_CREAT, 0600);
	if (fd < 0)
		return errno;
	if (open_errno(path, O_WRONLY) != EBUSY)
		return WRONG + 1;
	if (write(fd, "0123456789", 10) != 10 || ftruncate(fd, 5) != 0 ||
	    pwrite(fd, "x", 1, 1) != 1 || fsync(fd) != 0)
		return WRONG + 2;
	if (pwrite(fd, "y", 1, 2) != 1 || ftruncate(fd, 4) != 0)
		return WRONG + 3;
	if (open_errno(path, O_RDWR) != EBUSY)
		return WRONG + 4;
	if (rename(path, hidden) != -1 || errno != EIO)
		return WRONG + 5;
	rd = open(path, O_RDONLY);
	if (rd < 0)
		return errno;
	if (fstat(rd, &st) != 0 || st.st_size != 4)
		return WRONG + 6;
	if (unlink(path) != 0)
		return errno;
	if (stat(path, &st) != -1 || errno != ENOENT)
		return WRONG + 7;
	if (pread(rd, hidden, 10, 0) != 4 || memcmp(hidden, "0xy3", 4) != 0)
		return WRONG + 8;
	if (pwrite(fd, "z", 1, 4) != 1 || close(fd) != 0)
		return WRONG + 9;
	if (pread(rd, hidden, 10, 0) != 5 || close(rd) != 0)
		return WRONG + 10;
	return times_listed(rig_at(tm, "p"), "o") == 0 ? 0 : WRONG + 11;
}

static void open_file(const char *mode, bool native)
{
	begin(mode, native);
	cr_assert_eq(rig_run(&r, c_open_file, NULL), 0);
	rig_until(&r, policy_rig_quiet, NULL);
	cr_assert_eq(tally(META_STATE_NOT_PERSISTED) + tally(META_STATE_TRANSIENT) +
			 tally(META_STATE_FAILED),
	    0);
	cr_assert_null(fake_find(&r.ufs, "p/o"));
}

Test(policy_calls, open_write_back)
{
	open_file("WRITE_BACK", false);
}

Test(policy_calls, open_transient_native)
{
	open_file("TRANSIENT", true);
}

Test(policy_calls, open_write_through)
{
	open_file("WRITE_THROUGH", false);
}

/* --- The silly rename */

static int c_silly(const struct tmp_mount *tm, void *arg)
{
	char path[256], hidden[256], buf[64];
	int fd;

	(void)arg;
	snprintf(path, sizeof(path), "%s", rig_at(tm, "p/f"));
	snprintf(hidden, sizeof(hidden), "%s", rig_at(tm, "p/.fuse_hidden0001"));
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return errno;
	if (rename(path, hidden) != 0)
		return errno;
	if (access(path, F_OK) != -1 || errno != ENOENT)
		return WRONG + 1;
	if (pread(fd, buf, sizeof(buf), 0) != 26)
		return WRONG + 2;
	close(fd);
	if (access(hidden, F_OK) != -1 || errno != ENOENT)
		return WRONG + 3;
	/* Directories, and other places, are not meant. */
	if (mkdir(rig_at(tm, "p/d"), 0777) != 0)
		return errno;
	snprintf(path, sizeof(path), "%s", rig_at(tm, "p/d"));
	if (rename(path, hidden) != -1 || errno != EIO)
		return WRONG + 4;
	return times_listed(rig_at(tm, "p"), ".fuse_hidden0001") == 0 ? 0 : WRONG + 5;
}

Test(policy_calls, silly_rename)
{
	begin("WRITE_BACK", false);
	r.cfg->silly_rename = true;
	cr_assert_eq(run(c_make, "p/f"), 0);
	cr_assert_eq(rig_run(&r, c_silly, NULL), 0);
	rig_until(&r, policy_rig_quiet, NULL);
	cr_assert_eq(tally(META_STATE_NOT_PERSISTED), 0);
	/* Persisted, it is the same. */
	cr_assert_eq(run(c_rmdir, "p/d"), 0);
	cr_assert_eq(run(c_make, "p/f"), 0);
	persist_resume(r.fs);
	rig_until(&r, policy_rig_persisted, NULL);
	cr_assert_eq(rig_run(&r, c_silly, NULL), 0);
}

/* --- Renames of what rules touch */

static int c_renames(const struct tmp_mount *tm, void *arg)
{
	const char *const (*pairs)[2] = arg;
	char from[256], to[256];

	for (; (*pairs)[0] != NULL; pairs++) {
		snprintf(from, sizeof(from), "%s", rig_at(tm, (*pairs)[0]));
		snprintf(to, sizeof(to), "%s", rig_at(tm, (*pairs)[1]));
		if (rename(from, to) != -1 || errno != EIO)
			return WRONG;
	}
	return 0;
}

Test(policy_calls, renames)
{
	const char *pairs[][2] = {{"p/foreign", "p/x"}, {"p/foreign", "n/x"}, {"n/f", "p/f"},
	    {"p/d", "p/e"}, {"p/d", "n/e"}, {"n/d", "p/e"}, {"p", "q"}, {NULL, NULL}};
	const char *below[][2] = {{"n/d", "n/e"}, {"n/d/g", "n/g"}, {"n/f", "n/d/g"}, {NULL, NULL}};

	begin("WRITE_BACK", false);
	fake_add(&r.ufs, "n/f", UFS_FILE, 7, "v1");
	fake_add(&r.ufs, "n/d", UFS_DIR, 0, "");
	fake_add(&r.ufs, "p/d", UFS_DIR, 0, "");
	cr_assert_eq(rig_run(&r, c_renames, pairs), 0);
	/* Written under rules of another day. */
	policy_rig_rules(&r,
	    "{\"apiVersion\": \"v1.0\", \"defaultRule\": {\"policyMode\": \"WRITE_BACK\"}}");
	cr_assert_eq(run(c_make, "n/d/g"), 0);
	policy_rig_mode(&r, "WRITE_BACK");
	cr_assert_eq(rig_run(&r, c_renames, below), 0);
	cr_assert_eq(run(c_read, "n/d/g"), 0);
}

/* --- Listings */

/* So many names of a directory, each once and in no order, and what they are. */
struct want {
	const char *dir;
	unsigned files, dirs;
};

static int c_count(const struct tmp_mount *tm, void *arg)
{
	const struct want *w = arg;
	unsigned files = 0, dirs = 0;
	DIR *d = opendir(rig_at(tm, w->dir));
	struct dirent *de;
	char path[600];
	struct stat st;

	if (d == NULL)
		return errno;
	while ((de = readdir(d)) != NULL) {
		if (de->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", rig_at(tm, w->dir), de->d_name);
		if (stat(path, &st) != 0)
			return WRONG + 1;
		if (S_ISDIR(st.st_mode) != (de->d_type == DT_DIR))
			return WRONG + 2;
		if (S_ISDIR(st.st_mode))
			dirs++;
		else
			files++;
	}
	closedir(d);
	return files == w->files && dirs == w->dirs ? 0 : WRONG + 3;
}

static void put_record(const char *path, uint64_t id)
{
	struct meta_record rec = {.kind = META_FILE,
	    .has = META_HAS_CONTENT | META_HAS_MTIME | META_HAS_MODE,
	    .mode = 0600,
	    .mtime = {100, 0},
	    .content = {.policy = META_POLICY_WRITE_BACK, .state = META_STATE_NOT_PERSISTED,
		.id = id | META_CONTENT_BIT, .since_ns = 1}};

	meta_rig_put(&r, path, &rec);
}

static void list_all(unsigned page)
{
	struct want w = {.dir = "l", .files = 2600, .dirs = 62};

	r.ufs.page = page;
	cr_assert_eq(rig_run(&r, c_count, &w), 0, "page %u", page);
}

Test(policy_calls, large_listings)
{
	static const unsigned pages[] = {1, 3, 100, 5000};
	char path[64];
	unsigned i;

	begin("WRITE_BACK", false);
	fake_add(&r.ufs, "l", UFS_DIR, 0, "");
	for (i = 0; i < 2500; i++) {
		snprintf(path, sizeof(path), "l/f-%04u", i * 2);
		put_record(path, i + 1);
	}
	for (i = 0; i < 100; i++) {
		snprintf(path, sizeof(path), "l/f-%04u", i * 41 * 2 + 1);
		fake_add(&r.ufs, path, UFS_FILE, 7, "v1");
	}
	for (i = 0; i < 60; i++) {
		snprintf(path, sizeof(path), "l/f-%04u.d", i * 50);
		fake_add(&r.ufs, path, UFS_DIR, 0, "");
	}
	/* Directories that the storage does not have; "f" comes behind all of "f-...". */
	put_record("l/f/deep/down", 5000);
	put_record("l/f-1000-x/down", 5001);
	for (i = 0; i < ARRAY_LEN(pages); i++)
		list_all(pages[i]);
}

/* --- Directories that only such files make */

static void only_by_records(bool native)
{
	struct want w = {.dir = "p/gone", .files = 1, .dirs = 0};

	begin("WRITE_BACK", native);
	fake_add(&r.ufs, "p/gone", UFS_DIR, 0, "");
	fake_add(&r.ufs, "p/gone/x", UFS_FILE, 7, "v1");
	cr_assert_eq(run(c_make, "p/gone/f"), 0);
	rig_until(&r, policy_rig_quiet, NULL);
	fake_store_remove(&r.ufs.store, fake_find(&r.ufs, "p/gone/x"));
	fake_store_remove(&r.ufs.store, fake_find(&r.ufs, "p/gone"));
	cr_assert_null(fake_find(&r.ufs, "p/gone"));
	cr_assert_eq(rig_run(&r, c_count, &w), 0);
	cr_assert_eq(run(c_read, "p/gone/f"), 0);
	w = (struct want){.dir = "p", .files = 1, .dirs = 1};
	cr_assert_eq(rig_run(&r, c_count, &w), 0);
	cr_assert_eq(run(c_rmdir, "p/gone"), ENOTEMPTY);
	cr_assert_eq(run(c_unlink, "p/gone/f"), 0);
	cr_assert_eq(run(rig_stat, "p/gone/f"), ENOENT);
}

Test(policy_calls, directory_of_records)
{
	only_by_records(false);
}

Test(policy_calls, directory_of_records_native)
{
	only_by_records(true);
}

/* --- mknod, and creating without writing */

static int c_mknod(const struct tmp_mount *tm, void *arg)
{
	struct stat st;
	int fd;

	if (mknod(rig_at(tm, arg), S_IFREG | 0600, 0) != 0)
		return errno;
	if (stat(rig_at(tm, arg), &st) != 0 || st.st_size != 0 || (st.st_mode & 07777) != 0600)
		return WRONG;
	if (mknod(rig_at(tm, "p/fifo"), S_IFIFO | 0600, 0) != -1 || errno != EPERM)
		return WRONG + 1;
	fd = open(rig_at(tm, "p/ro"), O_RDONLY | O_CREAT, 0600);
	if (fd < 0)
		return errno;
	close(fd);
	return open_errno(rig_at(tm, "p/ro"), O_WRONLY) == EACCES ? 0 : WRONG + 2;
}

Test(policy_calls, mknod_write_back)
{
	begin("WRITE_BACK", false);
	cr_assert_eq(run(c_mknod, "p/m"), 0);
	rig_until(&r, policy_rig_quiet, NULL);
	cr_assert_eq(tally(META_STATE_NOT_PERSISTED), 2);
	cr_assert_null(fake_find(&r.ufs, "p/m"));
	persist_resume(r.fs);
	rig_until(&r, policy_rig_persisted, NULL);
	cr_assert_not_null(fake_find(&r.ufs, "p/m"));
	cr_assert_not_null(fake_find(&r.ufs, "p/ro"));
}

Test(policy_calls, mknod_transient)
{
	begin("TRANSIENT", true);
	cr_assert_eq(run(c_mknod, "p/m"), 0);
	rig_until(&r, policy_rig_quiet, NULL);
	cr_assert_eq(tally(META_STATE_TRANSIENT), 2);
	cr_assert_null(fake_find(&r.ufs, "p/m"));
}

Test(policy_calls, mknod_write_through)
{
	begin("WRITE_THROUGH", false);
	cr_assert_eq(run(c_mknod, "p/m"), 0);
	cr_assert_not_null(fake_find(&r.ufs, "p/m"));
}

/* --- Room: what the cache still takes, where that is less than the storage has */

static int c_room(const struct tmp_mount *tm, void *arg)
{
	struct statvfs p, n;

	(void)arg;
	if (statvfs(rig_at(tm, "p"), &p) != 0 || statvfs(rig_at(tm, "n"), &n) != 0)
		return errno;
	if (n.f_bavail != n.f_bfree || n.f_bfree < (16u << 20) / n.f_frsize)
		return WRONG;
	if (p.f_bfree != n.f_bfree)
		return WRONG + 1;
	return p.f_bavail * p.f_frsize <= (8u << 20) - LARGE && p.f_bavail > 0 ? 0 : WRONG + 2;
}

Test(policy_calls, statfs)
{
	begin("WRITE_BACK", false);
	r.cfg->page_store_size = 16 << 20;
	r.cfg->pinned_ratio = 0.5;
	cr_assert_eq(run(c_make_large, "p/f"), 0);
	rig_until(&r, policy_rig_quiet, NULL);
	cr_assert_eq(rig_run(&r, c_room, NULL), 0);
}
