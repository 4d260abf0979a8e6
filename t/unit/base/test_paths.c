/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/paths.h"

TestSuite(paths);

static void escapes(const char *mountpoint, const char *name)
{
	char buf[PATHS_NAME_MAX + 1];

	cr_assert_eq(paths_escape(mountpoint, buf, sizeof(buf)), 0);
	cr_assert_str_eq(buf, name);
}

/* The right side was printed by systemd-escape --path. */
Test(paths, as_systemd)
{
	escapes("/mnt/data", "mnt-data");
	escapes("/", "-");
	escapes("/a", "a");
	escapes("/mnt/my-data", "mnt-my\\x2ddata");
	escapes("/mnt/a b", "mnt-a\\x20b");
	escapes("/.hidden", "\\x2ehidden");
	escapes("/mnt/.hidden", "mnt-.hidden");
	escapes("/mnt/a:b_c.d", "mnt-a:b_c.d");
	escapes("/mnt/\xc3\xa4", "mnt-\\xc3\\xa4");
	escapes("/a\\b", "a\\x5cb");
}

Test(paths, slashes_do_not_matter)
{
	escapes("//mnt///data//", "mnt-data");
	escapes("///", "-");
}

Test(paths, refused)
{
	char buf[PATHS_NAME_MAX + 1];

	cr_assert_eq(paths_escape("mnt", buf, sizeof(buf)), -EINVAL);
	cr_assert_eq(paths_escape("", buf, sizeof(buf)), -EINVAL);
	cr_assert_eq(paths_escape("/mnt", buf, 3), -ENAMETOOLONG);
	cr_assert_eq(paths_escape("/mnt", buf, 4), 0);
	char *huge = malloc(70000);

	memset(huge, '/', 70000);
	for (int i = 1; i < 69999; i += 2)
		huge[i] = 'a';
	huge[69999] = '\0';
	cr_assert_eq(paths_escape(huge, buf, sizeof(buf)), -ENAMETOOLONG);
	free(huge);
}

Test(paths, data_dir)
{
	char buf[PATHS_DATA_MAX];

	if (geteuid() == 0) {
		cr_assert_eq(paths_data_dir("/mnt/x", buf, sizeof(buf)), 0);
		cr_assert_str_eq(buf, "/var/lib/batonfs/mnt-x");
		cr_assert_eq(paths_data_dir("/mnt/x", buf, 10), -ENAMETOOLONG);
		cr_assert_eq(setresuid(65534, 65534, 65534), 0);
	}
	setenv("HOME", "/u", 1);
	unsetenv("XDG_STATE_HOME");
	cr_assert_eq(paths_data_dir("/mnt/x", buf, sizeof(buf)), 0);
	cr_assert_str_eq(buf, "/u/.local/state/batonfs/mnt-x");
	setenv("XDG_STATE_HOME", "/var/state", 1);
	cr_assert_eq(paths_data_dir("/mnt/x", buf, sizeof(buf)), 0);
	cr_assert_str_eq(buf, "/var/state/batonfs/mnt-x");
	setenv("XDG_STATE_HOME", "not/absolute", 1);
	unsetenv("HOME");
	cr_assert_eq(paths_data_dir("/mnt/x", buf, sizeof(buf)), -ENOENT);
}

Test(paths, the_four)
{
	char buf[PATHS_MAX];

	cr_assert_eq(paths_run_dir("/mnt/x", buf, sizeof(buf)), 0);
	cr_assert_str_eq(buf, "/run/batonfs/mnt-x");
	cr_assert_eq(paths_control_socket("/mnt/x", buf, sizeof(buf)), 0);
	cr_assert_str_eq(buf, "/run/batonfs/mnt-x/control");
	cr_assert_eq(paths_takeover_socket("/mnt/x", buf, sizeof(buf)), 0);
	cr_assert_str_eq(buf, "/run/batonfs/mnt-x/takeover");
	cr_assert_eq(paths_state_dir("/mnt/x", buf, sizeof(buf)), 0);
	cr_assert_str_eq(buf, "/dev/shm/batonfs/mnt-x");
	cr_assert_eq(paths_state_dir("/mnt/x", buf, 10), -ENAMETOOLONG);
}

Test(paths, long_names_are_hashed_and_fit)
{
	char mnt[1200] = "/", a[PATHS_MAX], b[PATHS_MAX];

	for (int i = 0; i < 100; i++)
		strcat(mnt, "component/");
	cr_assert_eq(paths_takeover_socket(mnt, a, sizeof(a)), 0);
	cr_assert_lt(strlen(a), sizeof(((struct sockaddr_un *)0)->sun_path));
	cr_assert_not_null(strchr(a, '~'));
	strcat(mnt, "x");
	cr_assert_eq(paths_takeover_socket(mnt, b, sizeof(b)), 0);
	cr_assert_str_neq(a, b);
	cr_assert_eq(paths_takeover_socket(mnt, a, sizeof(a)), 0);
	cr_assert_str_eq(a, b);
}

/* The longest that is not hashed, and one more. */
Test(paths, at_the_limit)
{
	char mnt[128] = "/", buf[PATHS_MAX];

	memset(mnt + 1, 'a', PATHS_NAME_MAX);
	escapes(mnt, mnt + 1);
	mnt[PATHS_NAME_MAX + 1] = 'a';
	cr_assert_eq(paths_escape(mnt, buf, sizeof(buf)), 0);
	cr_assert_eq(strlen(buf), PATHS_NAME_MAX);
	cr_assert_eq(buf[PATHS_NAME_MAX - 17], '~');
}

Test(paths, back)
{
	const char *const mounts[] = {"/", "/mnt/data", "/mnt/my-data/.x", "/a b/\xc3\xa4\\"};
	char name[PATHS_NAME_MAX + 1], buf[256];

	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		cr_assert_eq(paths_escape(mounts[i], name, sizeof(name)), 0);
		cr_assert_eq(paths_unescape(name, buf, sizeof(buf)), 0);
		cr_assert_str_eq(buf, mounts[i]);
	}
	cr_assert_eq(paths_unescape("", buf, sizeof(buf)), -EINVAL);
	cr_assert_eq(paths_unescape("a~0123456789abcdef", buf, sizeof(buf)), -EINVAL);
	cr_assert_eq(paths_unescape("a\\x0", buf, sizeof(buf)), -EINVAL);
	cr_assert_eq(paths_unescape("a\\", buf, sizeof(buf)), -EINVAL);
	cr_assert_eq(paths_unescape("a\\x00", buf, sizeof(buf)), -EINVAL);
	cr_assert_eq(paths_unescape("abc", buf, 4), -ENAMETOOLONG);
	cr_assert_eq(paths_unescape("abc", buf, 5), 0);
}

Test(paths, make_dir)
{
	char top[] = "/tmp/batonfs-paths.XXXXXX", dir[128], link[128], cmd[160];
	struct stat st;

	cr_assert_not_null(mkdtemp(top));
	umask(077);
	snprintf(dir, sizeof(dir), "%s/a/b", top);
	cr_assert_eq(paths_make_dir(dir, 0700), 0);
	cr_assert_eq(stat(dir, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0700);
	cr_assert_eq(paths_make_dir(dir, 0700), 0, "again");
	snprintf(dir, sizeof(dir), "%s/a", top);
	cr_assert_eq(stat(dir, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0755);

	snprintf(dir, sizeof(dir), "%s/a/b", top);
	cr_assert_eq(chmod(dir, 0777), 0);
	cr_assert_eq(paths_make_dir(dir, 0700), -EPERM, "writable by others");
	snprintf(link, sizeof(link), "%s/link", top);
	cr_assert_eq(symlink(dir, link), 0);
	cr_assert_eq(paths_make_dir(link, 0700), -ENOTDIR);
	cr_assert_eq(paths_make_dir("relative", 0700), -EINVAL);
	snprintf(cmd, sizeof(cmd), "rm -r %s", top);
	cr_assert_eq(system(cmd), 0);
}

Test(paths, make_private)
{
	char top[] = "/tmp/batonfs-paths.XXXXXX", dir[128], cmd[160];
	struct stat st;

	cr_assert_not_null(mkdtemp(top));
	umask(0);
	snprintf(dir, sizeof(dir), "%s/a/b/", top);
	cr_assert_eq(paths_make_private(dir), 0);
	cr_assert_eq(paths_make_private(dir), 0, "again");
	snprintf(dir, sizeof(dir), "%s/a", top);
	cr_assert_eq(stat(dir, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0700);
	snprintf(dir, sizeof(dir), "%s/a/file", top);
	cr_assert_eq(mknod(dir, S_IFREG | 0600, 0), 0);
	snprintf(dir, sizeof(dir), "%s/a/file/c", top);
	cr_assert_eq(paths_make_private(dir), -ENOTDIR);
	snprintf(cmd, sizeof(cmd), "rm -r %s", top);
	cr_assert_eq(system(cmd), 0);
}
