/* SPDX-License-Identifier: BSD-2-Clause */
/* The channel against the real kernel: needs root (or is skipped). */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/obj.h"
#include "base/options.h"
#include "reactor/fuse_chan.h"
#include "reactor/loop.h"
#include "reactor/statedb.h"
#include "../../lib/tmp_mount.h"

#define CONTENT "the quick brown fox\n"
#define INO_FILE 2

static struct rig {
	struct tmp_mount tm;
	struct loop *loop;
	struct config *cfg;
	struct epoch epoch;
	struct fuse_chan *ch;
	struct statedb *db;
	int ready, gone, gone_err;
	/* what the handlers shall do */
	bool write_row;        /* LOOKUP writes into the state database */
	uint64_t replies_then; /* FUSE_REPLIES right after LOOKUP's reply call */
	bool swallow;          /* the next LOOKUP is not answered */
	unsigned char raw[512];
	size_t raw_len;
} rig;

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct rig *r = fuse_chan_userdata(req);
	struct fuse_entry_param e = {.ino = INO_FILE};

	(void)parent;
	if (r->swallow) {
		const void *raw = fuse_chan_current(r->ch, &r->raw_len);

		r->swallow = false;
		cr_assert_leq(r->raw_len, sizeof(r->raw));
		memcpy(r->raw, raw, r->raw_len);
		fuse_reply_none(req);
		return;
	}
	if (strcmp(name, "file") != 0) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	if (r->write_row)
		cr_assert_eq(statedb_put(r->db, STATEDB_META, "k", 1, "v", 1), 0);
	e.attr.st_ino = INO_FILE;
	e.attr.st_mode = S_IFREG | 0644;
	e.attr.st_nlink = 1;
	e.attr.st_size = strlen(CONTENT);
	fuse_reply_entry(req, &e);
	r->replies_then = loop_counters(r->loop)->v[CTR_FUSE_REPLIES];
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st = {.st_ino = ino, .st_nlink = 1};

	(void)fi;
	st.st_mode = ino == INO_FILE ? S_IFREG | 0644 : S_IFDIR | 0755;
	st.st_size = ino == INO_FILE ? (off_t)strlen(CONTENT) : 0;
	fuse_reply_attr(req, &st, 0);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->direct_io = 1;
	fuse_reply_open(req, fi);
}

static void op_read(
    fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct rig *r = fuse_chan_userdata(req);
	size_t len = strlen(CONTENT), half;
	struct iovec iov[2];

	(void)ino, (void)fi;
	if ((size_t)off >= len) {
		cr_assert_eq(fuse_chan_reply_data(r->ch, req, NULL, 0), 0);
		return;
	}
	len = len - (size_t)off < size ? len - (size_t)off : size;
	half = len / 2;
	iov[0] = (struct iovec){(char *)CONTENT + off, half};
	iov[1] = (struct iovec){(char *)CONTENT + off + half, len - half};
	cr_assert_eq(fuse_chan_reply_data(r->ch, req, iov, 2), 0);
}

static const struct fuse_lowlevel_ops test_ops = {
    .lookup = op_lookup, .getattr = op_getattr, .open = op_open, .read = op_read};

static void on_gone(void *owner, int err)
{
	cr_assert_eq(owner, &rig.ready);
	rig.gone++;
	rig.gone_err = err;
}

static void on_ready(void *owner)
{
	cr_assert_eq(owner, &rig.ready);
	rig.ready++;
}

static struct fuse_chan *new_chan(void)
{
	static const char *const opts[] = {"default_permissions", "fsname=test", NULL};
	struct fuse_chan_env env = {
	    .loop = rig.loop,
	    .cfg = rig.cfg,
	    .epoch = &rig.epoch,
	    .ops = &test_ops,
	    .userdata = &rig,
	    .owner = &rig.ready,
	    .gone = on_gone,
	    .ready = on_ready,
	};
	struct fuse_chan *ch;
	struct errtext et;

	cr_assert_eq(fuse_chan_new(&ch, &env, opts, &et), 0, "%s", et.s);
	return ch;
}

static void setup(void)
{
	struct errtext et;

	memset(&rig, 0, sizeof(rig));
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	tmp_mount_new(&rig.tm);
	cr_assert_eq(loop_new(&rig.loop, &clock_system), 0);
	rig.cfg = config_new();
	cr_assert_not_null(rig.cfg);
	rig.ch = new_chan();
	cr_assert_eq(fuse_chan_mount(rig.ch, rig.tm.mnt, &et), 0, "%s", et.s);
	fuse_chan_arm(rig.ch);
	while (rig.ready == 0)
		loop_turn(rig.loop, true);
}

static void teardown(void)
{
	if (rig.loop == NULL)
		return;
	fuse_chan_unmount(rig.tm.mnt, true);
	fuse_chan_free(&rig.ch);
	if (rig.db != NULL)
		statedb_close(&rig.db);
	config_free(&rig.cfg);
	loop_free(&rig.loop);
	tmp_mount_free(&rig.tm);
}

TestSuite(fuse_chan, .init = setup, .fini = teardown);

/* libfuse keeps the mount point's name and has no call that frees it without
 * unmounting; criterion keeps what it was started with. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_options(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:fuse_session_mount\nleak:libcriterion\n";
}

const char *__lsan_default_options(void)
{
	return "print_suppressions=0";
}

static int client_read(const struct tmp_mount *tm, void *arg)
{
	char path[128], buf[128];
	ssize_t n;
	int fd;

	(void)arg;
	snprintf(path, sizeof(path), "%s/file", tm->mnt);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return errno;
	n = read(fd, buf, sizeof(buf));
	close(fd);
	return n == (ssize_t)strlen(CONTENT) && memcmp(buf, CONTENT, (size_t)n) == 0 ? 0 : 255;
}

static void client_over(struct loop_fd *lf, unsigned what)
{
	(void)what;
	loop_fd_want(lf, 0);
	loop_stop(lf->loop, 0);
}

/* Serves until the child ends; its exit status. */
static int serve_until(pid_t pid)
{
	int status, pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct loop_fd lf = {0};

	cr_assert_geq(pidfd, 0);
	cr_assert_eq(loop_fd_init(&lf, rig.loop, pidfd, client_over), 0);
	cr_assert_eq(loop_fd_want(&lf, LOOP_READ), 0);
	loop_run(rig.loop);
	loop_fd_fini(&lf);
	close(pidfd);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int run_client(void)
{
	return serve_until(tmp_mount_client(client_read, &rig.tm, NULL));
}

static void open_db(void)
{
	struct errtext et;

	cr_assert_eq(statedb_open(&rig.db, rig.loop, rig.tm.state, 16 << 20, true, &rig.epoch, &et),
	    0, "%s", et.s);
	fuse_chan_set_statedb(rig.ch, rig.db);
}

static uint64_t counter(enum counter_id id)
{
	return loop_counters(rig.loop)->v[id];
}

Test(fuse_chan, serves_and_records_init)
{
	const struct fuse_chan_init *rec = fuse_chan_init_record(rig.ch);
	struct fuse_init_out out;

	memcpy(&out, rec->reply + sizeof(struct fuse_out_header), sizeof(out));
	cr_assert_eq(rig.ready, 1);
	cr_assert_eq(run_client(), 0);
	cr_assert_geq(rec->req_len, sizeof(struct fuse_in_header) + 16);
	cr_assert_geq(rec->reply_len, sizeof(struct fuse_out_header) + sizeof(out));
	cr_assert_eq(out.max_write, 1u << 20);
	cr_assert_eq(out.max_pages, (1u << 20) / (unsigned)getpagesize());
	cr_assert(out.flags & FUSE_DO_READDIRPLUS);
	cr_assert_not(out.flags & FUSE_READDIRPLUS_AUTO);
	cr_assert_not(out.flags & FUSE_WRITEBACK_CACHE);
	cr_assert_not(out.flags & FUSE_EXPORT_SUPPORT);
}

Test(fuse_chan, unmount_is_told)
{
	cr_assert_eq(fuse_chan_unmount(rig.tm.mnt, false), 0);
	while (rig.gone == 0)
		loop_turn(rig.loop, true);
	cr_assert_eq(rig.gone, 1);
	cr_assert_eq(rig.gone_err, 0);
	loop_turn(rig.loop, false);
	cr_assert_eq(rig.gone, 1);
	cr_assert_eq(fuse_chan_unmount(rig.tm.mnt, false), -EINVAL);
}

/* What the kernel says of an unmount while requests wait that nobody needs to see answered. */
Test(fuse_chan, unmount_is_told_with_requests_waiting)
{
	struct errtext et;

	cr_assert_eq(fault_init("fuse.read=errno:103", &et), 0, "%s", et.s);
	cr_assert_eq(fuse_chan_unmount(rig.tm.mnt, false), 0);
	while (rig.gone == 0)
		loop_turn(rig.loop, true);
	cr_assert_eq(rig.gone_err, 0);
	cr_assert_eq(fault_init("", &et), 0, "%s", et.s);
}

Test(fuse_chan, second_session_adopts)
{
	struct fuse_chan_init rec;
	struct fuse_chan *second;
	struct errtext et;

	cr_assert_eq(run_client(), 0);
	rec = *fuse_chan_init_record(rig.ch);
	fuse_chan_disarm(rig.ch);
	second = new_chan();
	cr_assert_eq(fuse_chan_adopt(second, dup(fuse_chan_fd(rig.ch)), &rec, &et), 0, "%s", et.s);
	cr_assert_eq(memcmp(&rec, fuse_chan_init_record(second), sizeof(rec)), 0);
	cr_assert_eq(rig.ready, 1, "a replay is not a new mount");
	fuse_chan_free(&rig.ch);
	rig.ch = second;
	fuse_chan_arm(second);
	cr_assert_eq(run_client(), 0);
	cr_assert_eq(rig.gone, 0);
	cr_assert_eq(counter(CTR_FUSE_REPLY_ERRORS), 0);
}

Test(fuse_chan, unknown_feature_is_refused)
{
	struct fuse_chan_init rec = *fuse_chan_init_record(rig.ch);
	struct fuse_init_out out;
	struct fuse_chan *second = new_chan();
	int fd = dup(fuse_chan_fd(rig.ch));
	struct errtext et;

	memcpy(&out, rec.reply + sizeof(struct fuse_out_header), sizeof(out));
	out.flags2 |= 0x20; /* passthrough */
	memcpy(rec.reply + sizeof(struct fuse_out_header), &out, sizeof(out));
	cr_assert_eq(fuse_chan_adopt(second, fd, &rec, &et), -EPROTO);
	cr_assert_not_null(strstr(et.s, "bit 37"), "%s", et.s);
	cr_assert_eq(fcntl(fd, F_GETFD), -1, "the descriptor is closed");
	fuse_chan_free(&second);
	cr_assert_eq(run_client(), 0);
}

Test(fuse_chan, damaged_record_is_refused)
{
	const struct fuse_chan_init good = *fuse_chan_init_record(rig.ch);
	struct fuse_chan_init rec;
	struct errtext et;
	uint32_t cut;

	for (cut = 1; cut < good.req_len; cut += 7) {
		struct fuse_chan *second = new_chan();

		rec = good;
		rec.req_len = cut;
		cr_assert_eq(
		    fuse_chan_adopt(second, dup(fuse_chan_fd(rig.ch)), &rec, &et), -EPROTO);
		fuse_chan_free(&second);
	}
	for (cut = 0; cut < good.reply_len; cut += 7) {
		struct fuse_chan *second = new_chan();

		rec = good;
		rec.reply_len = cut;
		cr_assert_eq(
		    fuse_chan_adopt(second, dup(fuse_chan_fd(rig.ch)), &rec, &et), -EPROTO);
		fuse_chan_free(&second);
	}
}

Test(fuse_chan, reply_waits_for_commit)
{
	uint64_t commits;

	open_db();
	cr_assert_eq(statedb_commit(rig.db), 0);
	commits = counter(CTR_STATEDB_COMMITS);
	rig.write_row = true;
	rig.replies_then = UINT64_MAX;
	cr_assert_eq(run_client(), 0);
	cr_assert_gt(counter(CTR_STATEDB_COMMITS), commits);
	cr_assert_lt(rig.replies_then, counter(CTR_FUSE_REPLIES));
	cr_assert_eq(counter(CTR_FUSE_REPLY_ERRORS), 0);
}

/* The reply is still held when the handler has returned, and leaves with flush. */
Test(fuse_chan, flush_sends_held)
{
	uint64_t replies;
	pid_t pid;

	open_db();
	rig.write_row = true;
	rig.swallow = true;
	pid = tmp_mount_client(client_read, &rig.tm, NULL);
	while (rig.raw_len == 0)
		loop_turn(rig.loop, true);
	replies = counter(CTR_FUSE_REPLIES);
	fuse_chan_feed(rig.ch, rig.raw, rig.raw_len);
	cr_assert(statedb_dirty(rig.db));
	cr_assert_eq(counter(CTR_FUSE_REPLIES), replies);
	fuse_chan_flush(rig.ch);
	cr_assert_eq(counter(CTR_FUSE_REPLIES), replies + 1);
	cr_assert_not(statedb_dirty(rig.db));
	cr_assert_eq(serve_until(pid), 0);
}

Test(fuse_chan, swallowed_request_is_resent)
{
	pid_t pid;
	int err;

	rig.swallow = true;
	pid = tmp_mount_client(client_read, &rig.tm, NULL);
	while (rig.raw_len == 0)
		loop_turn(rig.loop, true);
	err = fuse_chan_resend(rig.ch);
	if (err == -EOPNOTSUPP)
		fuse_chan_feed(rig.ch, rig.raw, rig.raw_len); /* a kernel before 6.9 */
	else
		cr_assert_eq(err, 0);
	cr_assert_eq(serve_until(pid), 0);
	if (err == 0)
		cr_assert_geq(counter(CTR_FUSE_RESENT), 1);
}

Test(fuse_chan, disarmed_reads_nothing)
{
	uint64_t requests;
	pid_t pid;

	fuse_chan_disarm(rig.ch);
	requests = counter(CTR_FUSE_REQUESTS);
	pid = tmp_mount_client(client_read, &rig.tm, NULL);
	while (loop_turn(rig.loop, false))
		;
	cr_assert_eq(counter(CTR_FUSE_REQUESTS), requests);
	fuse_chan_arm(rig.ch);
	cr_assert_eq(serve_until(pid), 0);
}

static int client_missing(const struct tmp_mount *tm, void *arg)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", tm->mnt, (const char *)arg);
	return stat(path, &st) != 0 && errno == ENOENT ? 0 : 255;
}

/* Device number of the mount, without asking the mount. */
static bool mount_dev(unsigned *maj, unsigned *min)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	bool found = false;
	char line[512];

	cr_assert_not_null(f);
	while (!found && fgets(line, sizeof(line), f) != NULL)
		found = strstr(line, rig.tm.mnt) != NULL &&
			sscanf(line, "%*u %*u %u:%u", maj, min) == 2;
	fclose(f);
	return found;
}

/* Requests that the kernel has for us; -1: it does not tell (no fusectl). */
static int waiting(void)
{
	unsigned maj, min;
	char path[128];
	int n = -1;
	FILE *f;

	cr_assert(mount_dev(&maj, &min));
	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/waiting", min);
	f = fopen(path, "re");
	if (f == NULL)
		return -1;
	cr_assert_eq(fscanf(f, "%d", &n), 1);
	fclose(f);
	return n;
}

Test(fuse_chan, a_wake_stays_within_its_budget)
{
	static const char *const names[] = {"a", "b", "c", "d", "e", "f"};
	pid_t pids[ARRAY_LEN(names)];
	uint64_t before;
	unsigned i;

	if (waiting() < 0)
		cr_skip_test("needs fusectl");
	cr_assert_eq(config_set(rig.cfg, "fuse.batch.requests", "2", NULL), 0);
	fuse_chan_disarm(rig.ch);
	for (i = 0; i < ARRAY_LEN(names); i++)
		pids[i] = tmp_mount_client(client_missing, &rig.tm, (void *)(uintptr_t)names[i]);
	while (waiting() < (int)ARRAY_LEN(names))
		sched_yield();
	fuse_chan_arm(rig.ch);
	for (i = 0; i < 2; i++) {
		before = counter(CTR_FUSE_REQUESTS);
		loop_turn(rig.loop, true);
		cr_assert_eq(counter(CTR_FUSE_REQUESTS) - before, 2);
	}
	for (i = 0; i < ARRAY_LEN(names); i++)
		cr_assert_eq(serve_until(pids[i]), 0);
}

/* Another daemon raised the epoch: nothing is read any more. */
Test(fuse_chan, passed_epoch_stops_reading)
{
	struct epoch ours = {0};
	uint64_t requests;
	pid_t pid;

	cr_assert_eq(epoch_create(&rig.epoch), 0);
	cr_assert_eq(epoch_raise(&rig.epoch, 0), 0);
	cr_assert_eq(run_client(), 0);
	ours = rig.epoch;
	cr_assert_eq(epoch_raise(&rig.epoch, 1), 0);
	rig.epoch.mine = ours.mine;
	requests = counter(CTR_FUSE_REQUESTS);
	pid = tmp_mount_client(client_read, &rig.tm, NULL);
	loop_turn(rig.loop, true);
	cr_assert_eq(counter(CTR_FUSE_REQUESTS), requests);
	rig.epoch.mine = epoch_read(&rig.epoch);
	fuse_chan_arm(rig.ch);
	cr_assert_eq(serve_until(pid), 0);
	epoch_close(&rig.epoch);
}

Test(fuse_chan, readahead_is_raised)
{
	char path[512], text[32] = "";
	unsigned maj, min;
	FILE *f;

	cr_assert_eq(fuse_chan_set_readahead_kb(rig.ch, rig.tm.mnt, 4096), 0);
	cr_assert_eq(fuse_chan_set_readahead_kb(rig.ch, rig.tm.src, 4096), -ENOENT);
	cr_assert(mount_dev(&maj, &min));
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", maj, min);
	f = fopen(path, "r");
	cr_assert_not_null(f, "%s", path);
	cr_assert_not_null(fgets(text, sizeof(text), f));
	fclose(f);
	cr_assert_str_eq(text, "4096\n");
}

Test(fuse_chan, unknown_option_has_words)
{
	static const char *const opts[] = {"no_such_option", NULL};
	struct fuse_chan_env env = {
	    .loop = rig.loop, .cfg = rig.cfg, .epoch = &rig.epoch, .ops = &test_ops};
	struct fuse_chan *ch;
	struct errtext et;

	cr_assert_eq(fuse_chan_new(&ch, &env, opts, &et), -EINVAL);
	cr_assert_null(ch);
	cr_assert_not_null(strstr(et.s, "no_such_option"), "%s", et.s);
}
