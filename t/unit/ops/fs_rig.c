/* SPDX-License-Identifier: BSD-2-Clause */
#include "fs_rig.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

struct rig fsr;

static void begin(void (*mount)(struct rig *r, const char *opts), const char *opts)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	mount(&fsr, opts);
	fake_add(&fsr.ufs, "d", UFS_DIR, 0, "");
	fake_add(&fsr.ufs, "d/small", UFS_FILE, 5, "s1");
	fake_add(&fsr.ufs, "big", UFS_FILE, 5 << 20, "b1");
}

void fsr_begin(const char *opts)
{
	begin(rig_mount, opts);
}

void fsr_begin_still(const char *opts)
{
	begin(rig_mount_still, opts);
}

void fsr_begin_writing_still(const char *opts)
{
	begin(rig_mount_writing_still, opts);
}

void fsr_finish(void)
{
	rig_free(&fsr);
}

int fsr_read_all(int fd, const struct fsr_want *w)
{
	static char buf[300 * 1024];
	size_t total = 0;
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			if (buf[i] != w->fill)
				return WRONG;
		total += (size_t)n;
	}
	return n < 0 ? errno : total == w->size ? 0 : WRONG + 1;
}

int fsr_c_read(const struct tmp_mount *tm, void *arg)
{
	const struct fsr_want *w = arg;
	int fd = open(rig_at(tm, w->name), O_RDONLY);

	return fd < 0 ? errno : fsr_read_all(fd, w);
}

int fsr_c_list(const struct tmp_mount *tm, void *arg)
{
	unsigned n = 0, want = *(unsigned *)arg, no;
	char seen[FAKE_FILES] = {0};
	struct dirent *de;
	DIR *d = opendir(rig_at(tm, "many"));

	if (d == NULL)
		return errno;
	for (errno = 0; (de = readdir(d)) != NULL; errno = 0) {
		if (sscanf(de->d_name, "f%u", &no) != 1)
			continue;
		if (no >= FAKE_FILES || seen[no]++)
			return WRONG;
		n++;
	}
	if (errno != 0)
		return errno;
	closedir(d);
	return n == want ? 0 : WRONG + 1;
}

void fsr_add_many(unsigned n)
{
	char path[32];

	fake_add(&fsr.ufs, "many", UFS_DIR, 0, "");
	for (unsigned i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "many/f%u", i);
		fake_add(&fsr.ufs, path, i % 3 ? UFS_FILE : UFS_DIR, i, "v");
	}
}

int fsr_run_stat(const char *name)
{
	return rig_run(&fsr, rig_stat, (void *)(uintptr_t)name);
}

static int to_child[2], to_parent[2];

void fsr_make_pipes(void)
{
	cr_assert_eq(pipe(to_child), 0);
	cr_assert_eq(pipe(to_parent), 0);
	/* The child closes everything from 3 on, but not these. */
	cr_assert_eq(dup2(to_child[0], 0), 0);
	cr_assert_eq(dup2(to_parent[1], 1), 1);
}

void fsr_child_pause(void)
{
	char c = 'x';

	if (write(1, &c, 1) != 1 || read(0, &c, 1) != 1)
		_exit(WRONG + 50);
}

static void child_here(struct loop_fd *lf, unsigned what)
{
	(void)what;
	loop_fd_want(lf, 0);
	loop_stop(lf->loop, 0);
}

void fsr_await_child(void)
{
	struct loop_fd lf = {0};
	char c;

	cr_assert_eq(loop_fd_init(&lf, fsr.loop, to_parent[0], child_here), 0);
	cr_assert_eq(loop_fd_want(&lf, LOOP_READ), 0);
	loop_run(fsr.loop);
	loop_fd_fini(&lf);
	cr_assert_eq(read(to_parent[0], &c, 1), 1);
}

void fsr_wake_child(void)
{
	cr_assert_eq(write(to_child[1], "x", 1), 1);
}
