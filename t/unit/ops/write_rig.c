/* SPDX-License-Identifier: BSD-2-Clause */
#include "write_rig.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct rig wr;

void wr_begin(void)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount_writing(&wr, "attr_timeout=0,entry_timeout=0");
	fake_add(&wr.ufs, "d", UFS_DIR, 0, "");
	fake_add(&wr.ufs, "d/small", UFS_FILE, 5, "s1");
	fake_add(&wr.ufs, "big", UFS_FILE, 5 << 20, "b1");
}

void wr_finish(void)
{
	rig_free(&wr);
}

bool wr_holds(const char *path, const void *data, size_t len)
{
	struct fake_file *ff = fake_find(&wr.ufs, path);
	char *buf = malloc(len + 1);
	bool ok;

	ok = ff != NULL && ff->size == len &&
	     fake_store_bytes(&wr.ufs.store, path, ff->version, 0, buf, len) == 0 &&
	     memcmp(buf, data, len) == 0;
	free(buf);
	return ok;
}

int wr_run(rig_client *fn, const char *arg)
{
	return rig_run(&wr, fn, (void *)(uintptr_t)arg);
}

bool wr_so_long(struct rig *rig, void *arg)
{
	return rig->fs->sessions != NULL && staged_size(rig->fs->sessions->sf) >= *(uint64_t *)arg;
}

int wr_reads(const struct tmp_mount *tm, const char *name, const char *want)
{
	char buf[256];
	int fd = open(rig_at(tm, name), O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return errno;
	n = read(fd, buf, sizeof(buf));
	close(fd);
	return n == (ssize_t)strlen(want) && memcmp(buf, want, (size_t)n) == 0 ? 0 : WRONG + 50;
}

bool wr_failed(struct rig *rig, void *arg)
{
	(void)arg;
	return rig->fs->sessions != NULL && rig->fs->sessions->state == SESSION_FAILED;
}

int wr_c_create(const struct tmp_mount *tm, void *arg)
{
	struct stat before, after;
	int fd = open(rig_at(tm, arg), O_CREAT | O_WRONLY, 0640);

	if (fd < 0)
		return errno;
	if (write(fd, "0123456789", 10) != 10 || fstat(fd, &before) != 0)
		return WRONG;
	if (wr_reads(tm, arg, "0123456789") != 0)
		return WRONG + 1;
	if (close(fd) != 0)
		return errno;
	if (stat(rig_at(tm, arg), &after) != 0)
		return errno;
	if (after.st_size != 10 || (after.st_mode & 0777) != 0640 || after.st_nlink != 1)
		return WRONG + 2;
	if (memcmp(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim)) != 0 ||
	    before.st_ino != after.st_ino)
		return WRONG + 3;
	return wr_reads(tm, arg, "0123456789");
}

int wr_c_touch(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_CREAT | O_WRONLY, 0644);

	if (fd < 0)
		return errno;
	return close(fd) == 0 ? 0 : errno;
}

int wr_c_patch(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_RDWR);

	if (fd < 0)
		return errno;
	if (pwrite(fd, "X", 1, 2) != 1)
		return errno;
	if (wr_reads(tm, arg, "ssXss") != 0)
		return WRONG;
	return close(fd) == 0 ? 0 : errno;
}

int wr_c_append(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_WRONLY | O_APPEND);

	if (fd < 0)
		return errno;
	if (write(fd, "tail", 4) != 4 || write(fd, "!", 1) != 1)
		return WRONG;
	return close(fd) == 0 ? 0 : errno;
}

int wr_c_overwrite(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_WRONLY | O_TRUNC);

	if (fd < 0)
		return errno;
	if (write(fd, "new", 3) != 3)
		return WRONG;
	return close(fd) == 0 ? 0 : errno;
}

int wr_c_steps(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, arg), O_CREAT | O_WRONLY, 0644), i;
	char c;

	if (fd < 0)
		return errno;
	for (i = 0; i < 10; i++) {
		c = (char)('0' + i);
		if (write(fd, &c, 1) != 1)
			return errno;
	}
	return close(fd) == 0 ? 0 : errno;
}
