/* SPDX-License-Identifier: BSD-2-Clause */
#include "rgw_fix.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct rgw_fix rgw_fix;

bool rgw_fix_wanted(void)
{
	return getenv("BATONFS_TEST_S3") != NULL;
}

void rgw_fix_s3put(const char *verb, const char *a, const char *b, const char *c)
{
	const char *top = getenv("srcdir");
	char script[512];
	pid_t pid;
	int st;

	(void)snprintf(script, sizeof(script), "%s/t/lib/s3put.sh", top != NULL ? top : ".");
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		execl(script, script, verb, a, b, c, (char *)NULL);
		_exit(127);
	}
	cr_assert_eq(waitpid(pid, &st, 0), pid);
	cr_assert_eq(st, 0, "%s %s %s", verb, a, b != NULL ? b : "");
}

char *rgw_fix_file(const char *name, const void *data, size_t len)
{
	static char path[512];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", rgw_fix.dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, data, len), (ssize_t)len);
	close(fd);
	return path;
}

void rgw_fix_up(struct ufs_fix *f)
{
	ufs_fix_limit();
	if (!rgw_fix_wanted())
		return;
	setenv("RGW_ENDPOINT", getenv("BATONFS_TEST_S3"), 1);
	strcpy(rgw_fix.dir, "/tmp/ufs-rgw-XXXXXX");
	cr_assert_not_null(mkdtemp(rgw_fix.dir));
	(void)snprintf(rgw_fix.bucket, sizeof(rgw_fix.bucket), "t-%ld-%u", (long)getpid(),
	    (unsigned)time(NULL));
	(void)snprintf(rgw_fix.uri, sizeof(rgw_fix.uri), "s3://%s/top", rgw_fix.bucket);
	rgw_fix_s3put("bucket", rgw_fix.bucket, NULL, NULL);
	ufs_fix_init(f, getenv("BATONFS_TEST_S3"));
	ufs_fix_set(f, "ufs.timeout", "30s");
	ufs_fix_attach(f, rgw_fix.uri);
}

void rgw_fix_down(struct ufs_fix *f)
{
	char cmd[128];

	if (!rgw_fix_wanted())
		return;
	ufs_fix_fini(f);
	(void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", rgw_fix.dir);
	cr_assert_eq(system(cmd), 0);
}
