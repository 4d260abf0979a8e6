/* SPDX-License-Identifier: BSD-2-Clause */
/* Sessions by themselves: what their other users in ops/ ask of them. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/session.h"
#include "ops_rig.h"

static struct rig r;

static void begin(void)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount_writing(&r, "attr_timeout=0,entry_timeout=0");
	fake_add(&r.ufs, "small", UFS_FILE, 5, "s1");
	fake_add(&r.ufs, "big", UFS_FILE, 3 << 20, "b1");
}

static void finish(void)
{
	rig_free(&r);
}

TestSuite(session, .fini = finish);

static void wait_signal(void)
{
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigwait(&set, &sig);
}

static void block_signal(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

/* Opens, waits to be told, reads all. */
static int c_read_late(const struct tmp_mount *tm, void *arg)
{
	static char buf[1 << 16];
	size_t total = 0;
	struct stat st;
	ssize_t n;
	int fd;

	block_signal();
	fd = open(rig_at(tm, arg), O_RDONLY);
	if (fd < 0)
		return errno;
	wait_signal();
	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			if (buf[i] != 'b')
				return WRONG;
		total += (size_t)n;
	}
	if (n < 0)
		return errno;
	if (fstat(fd, &st) != 0 || (size_t)st.st_size != total)
		return WRONG + 1;
	return total == 3 << 20 ? 0 : WRONG + 2;
}

static bool is_open(struct rig *rig, void *arg)
{
	(void)arg;
	return statedb_count(rig->db, STATEDB_HANDLES) > 0;
}

struct kept {
	struct session_keep k;
	bool done;
	int err;
};

static void kept_cb(struct session_keep *k, int err)
{
	struct kept *t = container_of(k, struct kept, k);

	t->done = true;
	t->err = err;
}

static bool kept(struct rig *rig, void *arg)
{
	(void)rig;
	return ((struct kept *)arg)->done;
}

static uint64_t node_of(const char *name)
{
	struct node n;

	cr_assert_eq(node_find(r.fs, NODE_ROOT, name, &n), 0);
	return n.id;
}

static void remove_it(uint64_t node, const char *path)
{
	fake_store_remove(&r.ufs.store, fake_find(&r.ufs, path));
	cr_assert_eq(node_drop_name(r.fs, node), 0);
	if (session_of(r.fs, node) != NULL)
		cr_assert_eq(session_orphan(session_of(r.fs, node)), 0);
}

/* Who has a file open for reading goes on to read it when its object is deleted. */
Test(session, keeps_what_is_open)
{
	struct kept t = {.done = false};
	uint64_t node;
	pid_t pid;

	begin();
	pid = rig_start(&r, c_read_late, (void *)"big");
	rig_until(&r, is_open, NULL);
	node = node_of("big");
	session_keep(r.fs, node, &t.k, kept_cb);
	rig_until(&r, kept, &t);
	cr_assert_eq(t.err, 0);
	remove_it(node, "big");
	rig_crash(&r);
	kill(pid, SIGUSR1);
	cr_assert_eq(rig_wait(&r, pid), 0);
	rig_until(&r, rig_no_session, NULL);
	cr_assert_eq(statedb_count(r.db, STATEDB_SESSIONS), 0);
	cr_assert_eq(statedb_count(r.db, STATEDB_STAGED), 0);
	cr_assert_eq(r.ufs.store.count[FAKE_PUT], 0);
}

Test(session, keeps_nothing_for_nobody)
{
	struct kept t = {.done = false};

	begin();
	cr_assert_eq(rig_run(&r, rig_stat, (void *)"big"), 0);
	session_keep(r.fs, node_of("big"), &t.k, kept_cb);
	cr_assert(!t.done, "never inline");
	rig_until(&r, kept, &t);
	cr_assert_eq(t.err, 0);
	cr_assert_null(r.fs->sessions);
}

Test(session, keeping_can_be_given_up)
{
	struct kept t = {.done = false};
	pid_t pid;

	begin();
	pid = rig_start(&r, c_read_late, (void *)"big");
	rig_until(&r, is_open, NULL);
	r.ufs.stall = true;
	session_keep(r.fs, node_of("big"), &t.k, kept_cb);
	rig_until_waiting(&r, 1);
	session_keep_abort(&t.k);
	fake_release(&r.ufs);
	kill(pid, SIGUSR1);
	cr_assert_eq(rig_wait(&r, pid), 0);
	cr_assert(!t.done);
	rig_until(&r, rig_no_session, NULL);
	cr_assert_not_null(fake_find(&r.ufs, "big"));
}

/* Writes, waits to be told, writes on, looks. */
static int c_write_late(const struct tmp_mount *tm, void *arg)
{
	char buf[8];
	int fd;

	block_signal();
	fd = open(rig_at(tm, arg), O_RDWR);
	if (fd < 0)
		return errno;
	if (write(fd, "ab", 2) != 2)
		return errno;
	wait_signal();
	if (write(fd, "c", 1) != 1 || fsync(fd) != 0)
		return errno;
	if (pread(fd, buf, sizeof(buf), 0) != 5 || memcmp(buf, "abcss", 5) != 0)
		return WRONG;
	return close(fd) == 0 ? 0 : errno;
}

static bool is_written(struct rig *rig, void *arg)
{
	(void)arg;
	return rig->fs->sessions != NULL && rig->fs->sessions->fresh;
}

Test(session, a_removed_file_is_written_on)
{
	struct kept t = {.done = false};
	uint64_t node;
	pid_t pid;

	begin();
	pid = rig_start(&r, c_write_late, (void *)"small");
	rig_until(&r, is_written, NULL);
	node = node_of("small");
	session_keep(r.fs, node, &t.k, kept_cb);
	rig_until(&r, kept, &t);
	cr_assert_eq(t.err, 0);
	remove_it(node, "small");
	kill(pid, SIGUSR1);
	cr_assert_eq(rig_wait(&r, pid), 0);
	rig_until(&r, rig_no_session, NULL);
	cr_assert_null(fake_find(&r.ufs, "small"), "it does not come back");
	cr_assert_eq(r.ufs.store.count[FAKE_PUT], 0);
}

/* Moved while it is open: uploaded to where it is then. */
Test(session, follows_its_name)
{
	uint64_t node;
	pid_t pid;

	begin();
	pid = rig_start(&r, c_write_late, (void *)"small");
	rig_until(&r, is_written, NULL);
	node = node_of("small");
	fake_store_remove(&r.ufs.store, fake_find(&r.ufs, "small"));
	fake_add(&r.ufs, "moved", UFS_FILE, 5, "s1");
	cr_assert_eq(node_move(r.fs, node, NODE_ROOT, "moved"), 0);
	kill(pid, SIGUSR1);
	cr_assert_eq(rig_wait(&r, pid), 0);
	rig_until(&r, rig_no_session, NULL);
	cr_assert_null(fake_find(&r.ufs, "small"));
	cr_assert_eq(fake_find(&r.ufs, "moved")->size, 5);
	cr_assert_str_neq(fake_find(&r.ufs, "moved")->version, "s1");
}

static bool swept(struct rig *rig, void *arg)
{
	(void)rig;
	return access(arg, F_OK) != 0;
}

/* A file without a row: a daemon died between the two. */
Test(session, strays_are_removed)
{
	char dir[128], path[160];
	int fd;

	begin();
	snprintf(dir, sizeof(dir), "%s/staged", r.tm.src);
	snprintf(path, sizeof(path), "%s/fff1", dir);
	mkdir(dir, 0700);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	cr_assert_geq(fd, 0);
	close(fd);
	rig_restart(&r);
	rig_until(&r, swept, path);
}

Test(session, processes)
{
	struct session s = {.opener = getpid()};

	cr_assert_eq(session_process(getpid()), getpid());
	cr_assert_eq(session_process(0), 0);
	cr_assert(session_same_process(&s, gettid()));
	cr_assert(session_same_process(&s, 0), "not known");
	cr_assert(!session_same_process(&s, getppid()));
	s.opener = 0;
	cr_assert(session_same_process(&s, getppid()));
	begin();
}
