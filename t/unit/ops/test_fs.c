/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests through a real mount: needs root (or is skipped). */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <unistd.h>

#include "ops_rig.h"

#define NO_CACHE_OPTS "attr_timeout=0,entry_timeout=0"
#define LONG_OPTS "attr_timeout=600,entry_timeout=0,negative_timeout=600"

static struct rig r;

static void begin(const char *opts)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount(&r, opts);
	fake_add(&r.ufs, "d", UFS_DIR, 0, "");
	fake_add(&r.ufs, "d/small", UFS_FILE, 5, "s1");
	fake_add(&r.ufs, "big", UFS_FILE, 5 << 20, "b1");
}

static void finish(void)
{
	rig_free(&r);
}

TestSuite(fs, .fini = finish);

/* --- Clients: run in a child; 0 or what went wrong. */

static int c_open(const struct tmp_mount *tm, void *arg)
{
	return open(rig_at(tm, arg), O_RDONLY) >= 0 ? 0 : errno;
}

struct want {
	const char *name;
	size_t size;
	char fill;
};

static int read_all(int fd, const struct want *w)
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

static int c_read(const struct tmp_mount *tm, void *arg)
{
	const struct want *w = arg;
	int fd = open(rig_at(tm, w->name), O_RDONLY);

	return fd < 0 ? errno : read_all(fd, w);
}

/* arg: how many entries "many" must have; each name once, in any order. */
static int c_list(const struct tmp_mount *tm, void *arg)
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

static void add_many(unsigned n)
{
	char path[32];

	fake_add(&r.ufs, "many", UFS_DIR, 0, "");
	for (unsigned i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "many/f%u", i);
		fake_add(&r.ufs, path, i % 3 ? UFS_FILE : UFS_DIR, i, "v");
	}
}

static int run_stat(const char *name)
{
	return rig_run(&r, rig_stat, (void *)(uintptr_t)name);
}

/* --- Names and attributes */

static int c_attrs(const struct tmp_mount *tm, void *arg)
{
	struct statvfs sv;
	struct stat st, dot;

	(void)arg;
	if (stat(rig_at(tm, "d/small"), &st) != 0)
		return errno;
	if (!S_ISREG(st.st_mode) || (st.st_mode & 0777) != 0644 || st.st_size != 5 ||
	    st.st_nlink != 1 || st.st_mtime != 1000 || st.st_uid != geteuid() || st.st_ino <= 1)
		return WRONG;
	if (stat(rig_at(tm, "d"), &st) != 0 || !S_ISDIR(st.st_mode) || (st.st_mode & 0777) != 0755)
		return WRONG + 1;
	if (stat(rig_at(tm, ""), &dot) != 0 || dot.st_ino != 1 || !S_ISDIR(dot.st_mode))
		return WRONG + 2;
	if (stat(rig_at(tm, "d/."), &dot) != 0 || dot.st_ino != st.st_ino)
		return WRONG + 3;
	if (statvfs(tm->mnt, &sv) != 0 || sv.f_blocks * sv.f_frsize != 1 << 30)
		return WRONG + 4;
	return 0;
}

Test(fs, attributes)
{
	begin(NO_CACHE_OPTS);
	cr_assert_eq(rig_run(&r, c_attrs, NULL), 0);
}

Test(fs, fresh_rows_do_not_ask_storage)
{
	unsigned stats;

	begin(LONG_OPTS);
	cr_assert_eq(run_stat("d/small"), 0);
	stats = r.ufs.stats;
	cr_assert_eq(run_stat("d/small"), 0);
	cr_assert_eq(r.ufs.stats, stats);
	/* Nor after a restart: the row is the cache. */
	rig_restart(&r);
	cr_assert_eq(run_stat("d/small"), 0);
	cr_assert_eq(r.ufs.stats, stats);
	/* Nor does what the listing brought. */
	add_many(10);
	cr_assert_eq(rig_run(&r, c_list, &(unsigned){10}), 0);
	stats = r.ufs.stats;
	cr_assert_eq(run_stat("many/f7"), 0);
	cr_assert_eq(r.ufs.stats, stats);
	cr_assert_eq(run_stat("nothing"), ENOENT);
	stats = r.ufs.stats;
	cr_assert_eq(run_stat("nothing"), ENOENT);
	cr_assert_eq(r.ufs.stats, stats, "negative_timeout");
}

Test(fs, storage_errors_are_never_enoent)
{
	begin(NO_CACHE_OPTS);
	cr_assert_eq(run_stat("big"), 0);
	r.ufs.err = -EIO;
	cr_assert_eq(run_stat("big"), EIO);
	cr_assert_eq(run_stat("nothing"), EIO);
	r.ufs.err = -EACCES;
	cr_assert_eq(run_stat("big"), EACCES);
	r.ufs.err = 0;
	cr_assert_eq(run_stat("big"), 0);
	cr_assert_eq(run_stat("nothing"), ENOENT);
}

/* open(2) is LOOKUP or GETATTR, then OPEN. */
Test(fs, open_says_that_storage_is_silent)
{
	begin("attr_timeout=0,entry_timeout=600");
	cr_assert_eq(run_stat("big"), 0);
	r.ufs.err = -ETIMEDOUT;
	cr_assert_eq(rig_run(&r, c_open, (void *)"big"), ETIMEDOUT);
	cr_assert_eq(rig_run(&r, c_open, (void *)"d/small"), ETIMEDOUT);
	r.ufs.err = 0;
	cr_assert_eq(rig_run(&r, c_open, (void *)"d/small"), 0);
}

/* --- Reading */

Test(fs, reads_whole_files)
{
	struct want big = {"big", 5 << 20, 'b'}, small = {"d/small", 5, 's'};

	begin(NO_CACHE_OPTS);
	cr_assert_eq(rig_run(&r, c_read, &big), 0);
	cr_assert_eq(rig_run(&r, c_read, &small), 0);
	cr_assert_eq(loop_counters(r.loop)->v[CTR_FUSE_REPLY_ERRORS], 0);
}

static int c_denied(const struct tmp_mount *tm, void *arg)
{
	(void)arg;
	if (open(rig_at(tm, "big"), O_WRONLY) >= 0 || errno != EROFS)
		return WRONG;
	if (open(rig_at(tm, "big"), O_RDONLY | O_TRUNC) >= 0 || errno != EROFS)
		return WRONG + 1;
	if (open(rig_at(tm, "new"), O_RDWR | O_CREAT, 0600) >= 0 || errno != EROFS)
		return WRONG + 2;
	if (mkdir(rig_at(tm, "new"), 0700) == 0 || errno != EROFS)
		return WRONG + 3;
	if (unlink(rig_at(tm, "big")) == 0 || errno != EROFS)
		return WRONG + 4;
	if (rmdir(rig_at(tm, "d")) == 0 || errno != EROFS)
		return WRONG + 5;
	if (chmod(rig_at(tm, "big"), 0) == 0 || errno != EROFS)
		return WRONG + 6;
	if (truncate(rig_at(tm, "big"), 0) == 0 || errno != EROFS)
		return WRONG + 7;
	if (symlink("x", rig_at(tm, "new")) == 0 || errno != EROFS)
		return WRONG + 8;
	return 0;
}

Test(fs, changes_are_refused)
{
	begin(NO_CACHE_OPTS);
	cr_assert_eq(rig_run(&r, c_denied, NULL), 0);
}

/* --- Another version in storage */

/* Two pipes: the child says where it is, and waits to be told to go on. */
static int to_child[2], to_parent[2];

static void make_pipes(void)
{
	cr_assert_eq(pipe(to_child), 0);
	cr_assert_eq(pipe(to_parent), 0);
	/* The child closes everything from 3 on, but not these. */
	cr_assert_eq(dup2(to_child[0], 0), 0);
	cr_assert_eq(dup2(to_parent[1], 1), 1);
}

static void child_pause(void)
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

static void await_child(void)
{
	struct loop_fd lf = {0};
	char c;

	cr_assert_eq(loop_fd_init(&lf, r.loop, to_parent[0], child_here), 0);
	cr_assert_eq(loop_fd_want(&lf, LOOP_READ), 0);
	loop_run(r.loop);
	loop_fd_fini(&lf);
	cr_assert_eq(read(to_parent[0], &c, 1), 1);
}

static void wake_child(void)
{
	cr_assert_eq(write(to_child[1], "x", 1), 1);
}

static int c_replaced(const struct tmp_mount *tm, void *arg)
{
	struct want w = {"big", 6 << 20, 'n'};
	struct stat before, after, old;
	char first[8];
	int fd = open(rig_at(tm, "big"), O_RDONLY), err;

	(void)arg;
	if (fd < 0 || fstat(fd, &before) != 0 || pread(fd, first, 8, 0) != 8 || first[0] != 'b')
		return WRONG;
	child_pause();
	err = c_read(tm, &w);
	if (err != 0)
		return err;
	if (stat(rig_at(tm, "big"), &after) != 0)
		return errno;
	if (after.st_size != 6 << 20 || after.st_ino != before.st_ino)
		return WRONG + 1;
	/* The old handle: its own attributes, its own bytes or ESTALE. */
	if (fstat(fd, &old) != 0 || old.st_size != 5 << 20 || old.st_ino != before.st_ino)
		return WRONG + 2;
	if (pread(fd, first, 8, 0) != 8 || first[0] != 'b')
		return WRONG + 3;
	if (pread(fd, first, 8, (5 << 20) - 8) == 8)
		return first[0] == 'b' ? 0 : WRONG + 4;
	return errno == ESTALE ? 0 : WRONG + 5;
}

static void replace_under_handle(const char *opts, bool restart)
{
	struct fake_file *ff;
	pid_t pid;

	begin(opts);
	make_pipes();
	pid = rig_start(&r, c_replaced, NULL);
	await_child();
	ff = fake_find(&r.ufs, "big");
	ff->size = 6 << 20;
	strcpy(ff->version, "new");
	if (restart)
		rig_restart(&r);
	wake_child();
	cr_assert_eq(rig_wait(&r, pid), 0);
}

Test(fs, replaced_file)
{
	replace_under_handle(NO_CACHE_OPTS, false);
}

Test(fs, replaced_file_and_restart)
{
	replace_under_handle(NO_CACHE_OPTS, true);
}

/* The name is still valid in the kernel: OPEN meets the new version. */
Test(fs, replaced_file_with_a_long_entry_timeout)
{
	replace_under_handle("attr_timeout=0,entry_timeout=600", false);
}

static int c_vanished(const struct tmp_mount *tm, void *arg)
{
	int fd = open(rig_at(tm, "d/small"), O_RDONLY);
	struct stat st;

	(void)arg;
	if (fd < 0)
		return errno;
	child_pause();
	if (open(rig_at(tm, "d/small"), O_RDONLY) >= 0 || errno != ENOENT)
		return WRONG;
	if (stat(rig_at(tm, "d/small"), &st) == 0 || errno != ENOENT)
		return WRONG + 1;
	return fstat(fd, &st) == 0 && st.st_size == 5 ? 0 : WRONG + 2;
}

static void vanish(const char *opts)
{
	pid_t pid;

	begin(opts);
	make_pipes();
	pid = rig_start(&r, c_vanished, NULL);
	await_child();
	strcpy(fake_find(&r.ufs, "d/small")->path, "elsewhere");
	wake_child();
	cr_assert_eq(rig_wait(&r, pid), 0);
}

Test(fs, vanished_file)
{
	vanish(NO_CACHE_OPTS);
}

Test(fs, vanished_file_with_a_long_entry_timeout)
{
	vanish("attr_timeout=0,entry_timeout=600");
}

/* --- Directories */

Test(fs, lists_many_pages)
{
	begin(NO_CACHE_OPTS);
	add_many(500);
	r.ufs.page = 33;
	cr_assert_eq(rig_run(&r, c_list, &(unsigned){500}), 0);
	r.ufs.empty_first = true;
	cr_assert_eq(rig_run(&r, c_list, &(unsigned){500}), 0);
	r.ufs.err = -EIO;
	cr_assert_eq(rig_run(&r, c_list, &(unsigned){500}), EIO);
}

static int c_seek(const struct tmp_mount *tm, void *arg)
{
	static char name[600][32];
	static long pos[600];
	struct dirent *de;
	unsigned n = 0, i;
	DIR *d = opendir(rig_at(tm, "many"));

	(void)arg;
	if (d == NULL)
		return errno;
	for (;;) {
		pos[n] = telldir(d);
		de = readdir(d);
		if (de == NULL)
			break;
		strcpy(name[n++], de->d_name);
	}
	if (n != 402)
		return WRONG;
	child_pause();
	for (i = 7; i != 0; i = (i + 89) % n) {
		seekdir(d, pos[i]);
		de = readdir(d);
		if (de == NULL || strcmp(de->d_name, name[i]) != 0)
			return WRONG + 1;
	}
	rewinddir(d);
	for (i = 0; readdir(d) != NULL; i++)
		;
	closedir(d);
	return i == n ? 0 : WRONG + 2;
}

static void seek_test(bool restart)
{
	pid_t pid;

	begin(NO_CACHE_OPTS);
	add_many(400);
	make_pipes();
	pid = rig_start(&r, c_seek, NULL);
	await_child();
	if (restart)
		rig_restart(&r);
	wake_child();
	cr_assert_eq(rig_wait(&r, pid), 0);
	/* RELEASEDIR follows the last close by itself. */
	while (statedb_count(r.db, STATEDB_HANDLES) > 0)
		loop_turn(r.loop, true);
	cr_assert_eq(statedb_count(r.db, STATEDB_COOKIES), 0, "rows go with the handle");
}

Test(fs, seekdir)
{
	seek_test(false);
}

Test(fs, seekdir_after_restart)
{
	seek_test(true);
}

/* --- Hand-over */

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

/* Everything held is fed to a new daemon, whose storage goes on as it was or answers. */
static void hand_over_to(bool reads, bool release)
{
	struct held_list held = STAILQ_HEAD_INITIALIZER(held);
	struct held_req *hr;
	bool done = false;

	fuse_chan_disarm(r.chan);
	fs_handover_begin(r.fs, set_flag, &done);
	cr_assert_not(done, "never inline");
	while (!done)
		loop_turn(r.loop, true);
	if (reads)
		fs_handover_end_reads(r.fs, true);
	while (fs_running(r.fs) > 0)
		loop_turn(r.loop, true);
	fs_handover_take(r.fs, &held);
	cr_assert(!STAILQ_EMPTY(&held));
	rig_restart(&r);
	if (release)
		fake_release(&r.ufs);
	while ((hr = STAILQ_FIRST(&held)) != NULL) {
		STAILQ_REMOVE_HEAD(&held, link);
		fuse_chan_feed(r.chan, hr->raw, hr->len);
		free(hr);
	}
}

static void hand_over(bool reads)
{
	hand_over_to(reads, true);
}

Test(fs, running_lookup_is_handed_over)
{
	pid_t pid;

	begin(NO_CACHE_OPTS);
	r.ufs.stall = true;
	pid = rig_start(&r, rig_stat, (void *)"big");
	rig_until_waiting(&r, 1);
	hand_over(false);
	cr_assert_eq(rig_wait(&r, pid), 0);
}

Test(fs, running_read_is_handed_over)
{
	struct want big = {"big", 5 << 20, 'b'};
	pid_t pid;

	begin(LONG_OPTS);
	cr_assert_eq(run_stat("big"), 0);
	r.ufs.stall = true;
	pid = rig_start(&r, c_read, &big);
	rig_until_waiting(&r, 1);
	hand_over(true);
	cr_assert_eq(rig_wait(&r, pid), 0);
}

Test(fs, running_listing_is_handed_over)
{
	pid_t pid;

	begin(LONG_OPTS);
	add_many(300);
	cr_assert_eq(run_stat("many"), 0);
	r.ufs.page = 50;
	r.ufs.stall = true;
	pid = rig_start(&r, c_list, &(unsigned){300});
	rig_until_waiting(&r, 1);
	hand_over(false);
	cr_assert_eq(rig_wait(&r, pid), 0);
}

/* After the end of an old daemon the kernel sends again what runs here, too, and takes
 * no answer but to what it sent last. */
Test(fs, running_listing_is_sent_again)
{
	uint64_t resent;
	pid_t pid;

	begin(LONG_OPTS);
	add_many(300);
	cr_assert_eq(run_stat("many"), 0);
	r.ufs.page = 50;
	r.ufs.stall = true;
	pid = rig_start(&r, c_list, &(unsigned){300});
	rig_until_waiting(&r, 1);
	if (fuse_chan_resend(r.chan) == 0) {
		resent = loop_counters(r.loop)->v[CTR_FUSE_RESENT];
		while (loop_counters(r.loop)->v[CTR_FUSE_RESENT] == resent)
			loop_turn(r.loop, true);
	}
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, pid), 0);
}

/* The successor failed: what was held is done here. */
Test(fs, handover_is_undone)
{
	bool done = false;
	pid_t pid;

	begin(NO_CACHE_OPTS);
	r.ufs.stall = true;
	pid = rig_start(&r, rig_stat, (void *)"big");
	rig_until_waiting(&r, 1);
	fuse_chan_disarm(r.chan);
	fs_handover_begin(r.fs, set_flag, &done);
	while (!done)
		loop_turn(r.loop, true);
	cr_assert_eq(fake_waiting(&r.ufs), 0, "given up in storage too");
	fake_release(&r.ufs);
	fs_handover_undo(r.fs);
	fuse_chan_arm(r.chan);
	cr_assert_eq(rig_wait(&r, pid), 0);
}

static void hold_no_more(void *arg)
{
	if (!fs_holds(r.fs))
		return;
	fs_handover_undo(r.fs);
	*(bool *)arg = true;
}

/* What was given up, but ends only after the hand-over has failed, is done again although
 * another request runs on all the time. */
Test(fs, handover_is_undone_before_all_is_held)
{
	struct want big = {"big", 5 << 20, 'b'};
	bool done = false, again = false;
	pid_t reader, pid;

	begin(LONG_OPTS);
	add_many(3);
	cr_assert_eq(run_stat("big"), 0);
	r.ufs.stall = true;
	reader = rig_start(&r, c_read, &big);
	while (fs_running(r.fs) < 1)
		loop_turn(r.loop, true);
	pid = rig_start(&r, rig_stat, (void *)"many");
	while (fs_running(r.fs) < 2)
		loop_turn(r.loop, true);
	fs_on_idle(r.fs, hold_no_more, &again);
	fs_handover_begin(r.fs, set_flag, &done);
	fs_handover_undo(r.fs);
	while (!again)
		loop_turn(r.loop, true);
	cr_assert_gt(fs_running(r.fs), 0);
	fs_on_idle(r.fs, NULL, NULL);
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, pid), 0);
	cr_assert_eq(rig_wait(&r, reader), 0);
}

/* Data reads may run on, and are aborted with EIO if so configured. */
Test(fs, running_read_is_aborted)
{
	struct want big = {"big", 5 << 20, 'b'};
	bool done = false;
	pid_t pid;

	begin(LONG_OPTS);
	cr_assert_eq(run_stat("big"), 0);
	r.ufs.stall = true;
	pid = rig_start(&r, c_read, &big);
	rig_until_waiting(&r, 1);
	fuse_chan_disarm(r.chan);
	fs_handover_begin(r.fs, set_flag, &done);
	while (!done)
		loop_turn(r.loop, true);
	cr_assert_gt(fs_running(r.fs), 0);
	fs_handover_end_reads(r.fs, false);
	while (fs_running(r.fs) > 0)
		loop_turn(r.loop, true);
	fake_release(&r.ufs);
	r.ufs.err = -EIO;
	fuse_chan_arm(r.chan);
	cr_assert_eq(rig_wait(&r, pid), EIO);
}

/* --- Signals */

Test(fs, killed_caller_is_let_go)
{
	pid_t pid;

	begin(NO_CACHE_OPTS);
	r.ufs.stall = true;
	pid = rig_start(&r, rig_stat, (void *)"big");
	rig_until_waiting(&r, 1);
	kill(pid, SIGKILL);
	cr_assert_eq(rig_wait(&r, pid), -1);
	while (fs_running(r.fs) > 0)
		loop_turn(r.loop, true);
	cr_assert_eq(fake_waiting(&r.ufs), 0);
	fake_release(&r.ufs);
}

static void on_signal(int signo)
{
	(void)signo;
}

static int c_signalled(const struct tmp_mount *tm, void *arg)
{
	struct sigaction sa = {.sa_handler = on_signal};

	sigaction(SIGUSR1, &sa, NULL);
	child_pause();
	return rig_stat(tm, arg);
}

/* A handled signal must not show as EINTR, though the kernel sends INTERRUPT. */
Test(fs, signalled_caller_sees_no_eintr)
{
	uint64_t requests;
	pid_t pid;

	begin(NO_CACHE_OPTS);
	make_pipes();
	pid = rig_start(&r, c_signalled, (void *)"big");
	await_child();
	r.ufs.stall = true;
	wake_child();
	rig_until_waiting(&r, 1);
	requests = loop_counters(r.loop)->v[CTR_FUSE_REQUESTS];
	kill(pid, SIGUSR1);
	while (loop_counters(r.loop)->v[CTR_FUSE_REQUESTS] == requests)
		loop_turn(r.loop, true);
	cr_assert_eq(fake_waiting(&r.ufs), 1);
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, pid), 0);
}

/* The kernel tells of a signal once: the daemon before was told. */
Test(fs, killed_caller_is_let_go_after_a_hand_over)
{
	uint64_t requests;
	pid_t pid;

	begin(NO_CACHE_OPTS);
	make_pipes();
	pid = rig_start(&r, c_signalled, (void *)"big");
	await_child();
	r.ufs.stall = true;
	wake_child();
	rig_until_waiting(&r, 1);
	requests = loop_counters(r.loop)->v[CTR_FUSE_REQUESTS];
	kill(pid, SIGUSR1);
	while (loop_counters(r.loop)->v[CTR_FUSE_REQUESTS] == requests)
		loop_turn(r.loop, true);
	hand_over_to(false, false);
	rig_until_waiting(&r, 1);
	kill(pid, SIGKILL);
	cr_assert_eq(rig_wait(&r, pid), -1);
	while (fs_running(r.fs) > 0)
		loop_turn(r.loop, true);
	cr_assert_eq(fake_waiting(&r.ufs), 0);
	fake_release(&r.ufs);
}

Test(fs, cancel_all_ends_requests)
{
	pid_t pid;

	begin(NO_CACHE_OPTS);
	r.ufs.stall = true;
	pid = rig_start(&r, rig_stat, (void *)"big");
	rig_until_waiting(&r, 1);
	fs_cancel_all(r.fs, -ENOTCONN);
	cr_assert_eq(rig_wait(&r, pid), ENOTCONN);
	cr_assert_eq(fs_running(r.fs), 0);
	fake_release(&r.ufs);
}
