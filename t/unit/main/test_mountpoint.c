/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mountpoint.h"

static char root[PATH_MAX];

static void setup(void)
{
	char made[] = "/tmp/batonfs-mp-XXXXXX";

	cr_assert_not_null(mkdtemp(made));
	cr_assert_not_null(realpath(made, root));
	cr_assert_eq(chdir(root), 0);
}

static void teardown(void)
{
	char cmd[PATH_MAX + 64];

	snprintf(cmd, sizeof(cmd), "rm -rf --one-file-system '%s'", root);
	cr_assert_eq(chdir("/"), 0);
	cr_assert_eq(system(cmd), 0);
}

TestSuite(mountpoint, .init = setup, .fini = teardown);

/* path below the test's directory resolves to want, below it too ("" is itself). */
static void expect(const char *path, const char *want)
{
	struct errtext et = {""};
	char full[2 * PATH_MAX], *got = NULL;
	int rc = mountpoint_resolve(path, &got, &et);

	snprintf(full, sizeof(full), "%s%s%s", root, want[0] != '\0' ? "/" : "", want);
	cr_assert_eq(rc, 0, "%s: %s", path, et.s);
	cr_assert_str_eq(got, full, "%s: %s, not %s", path, got, full);
	free(got);
}

static void expect_error(const char *path, int err)
{
	struct errtext et = {""};
	char *got = NULL;

	cr_assert_eq(mountpoint_resolve(path, &got, &et), err, "%s: %s", path, et.s);
	cr_assert_not_null(strstr(et.s, strerror(-err)), "%s", et.s);
}

Test(mountpoint, spellings)
{
	mkdir("a", 0755);
	mkdir("a/b", 0755);
	expect("a", "a");
	expect("a/", "a");
	expect("a///", "a");
	expect("./a//b/", "a/b");
	expect("a/b/..", "a");
	expect("a/../a/b/.", "a/b");
	expect(".", "");
	cr_assert_eq(chdir("a/b"), 0);
	expect(".", "a/b");
	expect("..", "a");
	expect("../b", "a/b");
	cr_assert_eq(chdir(root), 0);
	mkdir("with space", 0755);
	mkdir("new\nline", 0755);
	mkdir("\xc3\xa4\xe2\x82\xac", 0755);
	mkdir("back\\slash", 0755);
	mkdir("-f", 0755);
	expect("with space/", "with space");
	expect("new\nline", "new\nline");
	expect("\xc3\xa4\xe2\x82\xac", "\xc3\xa4\xe2\x82\xac");
	expect("back\\slash", "back\\slash");
	expect("-f", "-f");
}

Test(mountpoint, root_itself)
{
	struct errtext et;
	char *got;

	cr_assert_eq(mountpoint_resolve("///", &got, &et), 0);
	cr_assert_str_eq(got, "/");
	free(got);
}

Test(mountpoint, links)
{
	mkdir("real", 0755);
	mkdir("real/in", 0755);
	cr_assert_eq(symlink("real", "l1"), 0);
	cr_assert_eq(symlink("l1/in", "l2"), 0);
	cr_assert_eq(symlink("../l2", "real/up"), 0);
	cr_assert_eq(symlink("loop", "loop"), 0);
	cr_assert_eq(symlink("/", "top"), 0);
	expect("l1", "real");
	expect("l1/", "real");
	expect("l2", "real/in");
	expect("l1/up", "real/in");
	expect_error("loop", -ELOOP);
	expect_error("loop/x", -ELOOP);
}

Test(mountpoint, what_is_not_there)
{
	struct errtext et;
	char *got = NULL;

	expect_error("", -ENOENT);
	expect_error("none/x", -ENOENT);
	/* The last component is not asked for: check_free() says that. */
	expect("none", "none");
	cr_assert_eq(mountpoint_resolve("none", &got, &et), 0);
	cr_assert_eq(mountpoint_check_free(got, &et), -ENOENT);
	free(got);
	cr_assert(close(open("file", O_CREAT | O_WRONLY, 0600)) == 0);
	cr_assert_eq(mountpoint_resolve("file", &got, &et), 0);
	cr_assert_eq(mountpoint_check_free(got, &et), -ENOTDIR);
	free(got);
	cr_assert_eq(mountpoint_resolve("file/x", &got, &et), 0);
	cr_assert_eq(mountpoint_check_free(got, &et), -ENOTDIR);
	free(got);
}

Test(mountpoint, a_path_of_4000_bytes)
{
	char part[101], *deep = calloc(1, 5000), *rel = calloc(1, 5000);
	struct errtext et = {""};
	char *got;

	memset(part, 'd', 100);
	part[100] = '\0';
	strcpy(deep, root);
	while (strlen(deep) + 101 < 4000) {
		cr_assert_eq(mkdir(part, 0755), 0);
		cr_assert_eq(chdir(part), 0);
		strcat(deep, "/");
		strcat(deep, part);
	}
	cr_assert_eq(mountpoint_resolve(".", &got, &et), 0, "%s", et.s);
	cr_assert_str_eq(got, deep);
	cr_assert_eq(mountpoint_check_free(got, &et), 0, "%s", et.s);
	free(got);
	memset(rel, 'x', 250);
	cr_assert_eq(mountpoint_resolve(rel, &got, &et), -ENAMETOOLONG, "%s", et.s);
	free(deep);
	free(rel);
}

Test(mountpoint, what_a_mount_would_hide)
{
	mkdir("e", 0755);
	cr_assert(mountpoint_is_empty("e"));
	mkdir("e/.hidden", 0755);
	cr_assert_not(mountpoint_is_empty("e"));
	cr_assert(mountpoint_is_empty("none"));
}

Test(mountpoint, what_is_mounted)
{
	struct errtext et = {""};
	char *at;

	if (geteuid() != 0)
		cr_skip_test("needs root");
	cr_assert_eq(unshare(CLONE_NEWNS), 0);
	cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	mkdir("a b\n\t\\c", 0755);
	mkdir("other", 0755);
	cr_assert_eq(mountpoint_resolve("a b\n\t\\c", &at, &et), 0);
	cr_assert_eq(mountpoint_use(at), MOUNTPOINT_FREE);
	cr_assert_eq(mount("t mp - fs", at, "tmpfs", 0, NULL), 0);
	cr_assert_eq(mountpoint_use(at), MOUNTPOINT_OTHER);
	cr_assert_eq(mountpoint_check_free(at, &et), 0, "covering something else is mount's way");
	cr_assert_eq(umount(at), 0);
	cr_assert_eq(mountpoint_use(at), MOUNTPOINT_FREE);
	free(at);
}

Test(mountpoint, a_mount_of_ours_is_known_and_not_asked)
{
	struct errtext et = {""};
	char *at, opts[128];
	int fd;

	if (geteuid() != 0)
		cr_skip_test("needs root");
	cr_assert_eq(unshare(CLONE_NEWNS), 0);
	cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	mkdir("m", 0755);
	fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	cr_assert(fd >= 0);
	snprintf(opts, sizeof(opts), "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
	cr_assert_eq(mount("s", "m", "fuse.batonfs", 0, opts), 0);
	/* Nobody answers there: whoever asked would hang. */
	alarm(10);
	cr_assert_eq(mountpoint_resolve("m/", &at, &et), 0, "%s", et.s);
	cr_assert_eq(mountpoint_use(at), MOUNTPOINT_BATONFS);
	cr_assert_eq(mountpoint_check_free(at, &et), -EBUSY);
	cr_assert_not_null(strstr(et.s, "umount -l"), "%s", et.s);
	/* Covered by something else, it is that which counts. */
	cr_assert_eq(umount2(at, MNT_DETACH), 0);
	close(fd);
	free(at);
}
