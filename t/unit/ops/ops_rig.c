/* SPDX-License-Identifier: BSD-2-Clause */
#include "ops_rig.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../lib/nth_fault.h"
#include "cache/staged.h"
#include "cache/upload.h"
#include "meta/meta.h"
#include "ops/persist.h"
#include "ops/session.h"

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

static void rig_gone(void *owner, int err)
{
	struct rig *r = owner;

	(void)err;
	r->gone++;
}

static void rig_ready(void *owner)
{
	struct rig *r = owner;

	r->ready = true;
}

static void make_chan(struct rig *r)
{
	struct fuse_chan_env env = {
	    .loop = r->loop,
	    .cfg = r->cfg,
	    .epoch = &r->epoch,
	    .ops = fs_fuse_ops(),
	    .userdata = r->fs,
	    .owner = r,
	    .gone = rig_gone,
	    .ready = rig_ready,
	};
	struct errtext et;

	cr_assert_eq(fuse_chan_new(&r->chan, &env, (const char *const *)r->mo.fuse_opts, &et), 0,
	    "%s", et.s);
	fs_set_chan(r->fs, r->chan);
}

static const char *below_src(struct rig *r, const char *leaf)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", r->tm.src, leaf);
	return path;
}

/* What a daemon makes of its own, beside the cache. */
static void make_writing(struct rig *r)
{
	struct staging_env senv = {.loop = r->loop,
	    .pool = r->pool,
	    .cfg = r->cfg,
	    .cache = r->cache,
	    .epoch = &r->epoch};
	struct uploads_env uenv = {.loop = r->loop, .pool = r->pool, .cfg = r->cfg};

	if (!r->writes)
		return;
	cr_assert_eq(staging_new(&r->staging, &senv, below_src(r, "staged")), 0);
	cr_assert_eq(uploads_new(&r->uploads, &uenv), 0);
}

static void free_writing(struct rig *r)
{
	if (!r->writes)
		return;
	uploads_free(&r->uploads);
	staging_free(&r->staging);
}

static void give_db(struct rig *r)
{
	if (!r->writes)
		return;
	staging_set_db(r->staging, r->db);
	uploads_set_db(r->uploads, r->db);
}

/* The end of this daemon's right to the database. */
static void detach_state(struct rig *r)
{
	fs_state_detach(r->fs);
	if (r->writes) {
		staging_set_db(r->staging, NULL);
		uploads_set_db(r->uploads, NULL);
	}
	statedb_close(&r->db);
}

static void make_fs(struct rig *r)
{
	struct fs_env env = {
	    .loop = r->loop, .pool = r->pool, .cfg = r->cfg, .cache = r->cache, .mo = &r->mo};
	struct errtext et;

	make_writing(r);
	env.staging = r->staging;
	env.uploads = r->uploads;
	env.meta = r->meta;

	cr_assert_eq(fs_new(&r->fs, &env), 0);
	cr_assert_eq(fs_attach(r->fs, "/", &r->ufs.ufs, &et), 0, "%s", et.s);
	cr_assert_eq(fs_set_root(r->fs, "/", &et), 0, "%s", et.s);
}

static void open_state(struct rig *r, bool create)
{
	struct errtext et;

	et.s[0] = '\0';
	cr_assert_eq(statedb_open(&r->db, r->loop, r->tm.state, 32 << 20, create, &r->epoch, &et),
	    0, "%s", et.s);
	give_db(r);
	cr_assert_eq(fs_state_open(r->fs, r->db, r->counts, &et), 0, "%s", et.s);
	if (r->chan != NULL)
		fuse_chan_set_statedb(r->chan, r->db);
}

static void rig_base(struct rig *r, const char *opts, const struct clock *clk)
{
	struct cache_env cenv;
	struct errtext et;

	tmp_mount_new(&r->tm);
	cr_assert_eq(loop_new(&r->loop, clk), 0);
	cr_assert_eq(pool_new(&r->pool, r->loop, 2), 0);
	r->cfg = config_new();
	cr_assert_not_null(r->cfg);
	cr_assert_eq(config_set(r->cfg, "memory.limit", "32MiB", &et), 0, "%s", et.s);
	/* Each deletion waits for the storage, but where a test says otherwise. */
	r->cfg->delete_delay = 0;
	cr_assert_eq(fs_mount_opts_parse(&r->mo, &opts, 1, &et), 0, "%s", et.s);
	cenv =
	    (struct cache_env){.loop = r->loop, .pool = r->pool, .cfg = r->cfg, .epoch = &r->epoch};
	cr_assert_eq(cache_new(&r->cache, &cenv, -1, &et), 0, "%s", et.s);
	cache_index_open(r->cache);
	if (r->writes) {
		struct meta_env menv = {
		    .loop = r->loop, .pool = r->pool, .cfg = r->cfg, .epoch = &r->epoch};

		cr_assert_eq(meta_new(&r->meta, &menv, below_src(r, "meta")), 0);
		meta_open(r->meta);
	}
	cr_assert_eq(counts_create(&r->counts), 0);
	fake_init(&r->ufs, r->loop);
	make_fs(r);
}

void rig_new(struct rig *r)
{
	memset(r, 0, sizeof(*r));
	test_clock_init(&r->clock);
	rig_base(r, "attr_timeout=1", &r->clock.clk);
	open_state(r, true);
}

void rig_new_writing(struct rig *r)
{
	memset(r, 0, sizeof(*r));
	r->writes = true;
	test_clock_init(&r->clock);
	rig_base(r, "attr_timeout=1", &r->clock.clk);
	open_state(r, true);
}

static void mount_it(struct rig *r, const char *opts, const struct clock *clk)
{
	struct errtext et;

	rig_base(r, opts, clk);
	make_chan(r);
	cr_assert_eq(fuse_chan_mount(r->chan, r->tm.mnt, &et), 0, "%s", et.s);
	open_state(r, true);
	fuse_chan_arm(r->chan);
	while (!r->ready)
		loop_turn(r->loop, true);
}

void rig_mount(struct rig *r, const char *opts)
{
	memset(r, 0, sizeof(*r));
	mount_it(r, opts, &clock_system);
}

void rig_mount_still(struct rig *r, const char *opts)
{
	memset(r, 0, sizeof(*r));
	test_clock_init(&r->clock);
	mount_it(r, opts, &r->clock.clk);
}

void rig_mount_writing(struct rig *r, const char *opts)
{
	memset(r, 0, sizeof(*r));
	r->writes = true;
	mount_it(r, opts, &clock_system);
}

void rig_mount_writing_still(struct rig *r, const char *opts)
{
	memset(r, 0, sizeof(*r));
	r->writes = true;
	test_clock_init(&r->clock);
	mount_it(r, opts, &r->clock.clk);
}

/* What the storage was told to do goes nowhere, as when a process dies; what the pool has
 * begun ends. */
static void stop_work(struct rig *r)
{
	if (!r->writes)
		return;
	persist_hold(r->fs);
	session_pause_all(r->fs);
	fs_stop_intents(r->fs); /* a hand-over undone looks for them again */
	while (r->fs->nwork > 0 || session_any_busy(r->fs))
		loop_turn(r->loop, true);
}

bool rig_no_session(struct rig *rig, void *arg)
{
	(void)arg;
	return rig->fs->sessions == NULL && rig->fs->nwork == 0;
}

void rig_check_clean(struct rig *r)
{
	rig_until(r, rig_no_session, NULL);
	cr_assert_eq(statedb_count(r->db, STATEDB_LEDGER), 0);
	cr_assert_eq(statedb_count(r->db, STATEDB_SESSIONS), 0);
	cr_assert_eq(statedb_count(r->db, STATEDB_STAGED), 0);
	cr_assert(TAILQ_EMPTY(&r->fs->locks.list));
}

void rig_restart(struct rig *r)
{
	struct fuse_chan *old = r->chan;
	struct fuse_chan_init rec;
	struct errtext et;

	if (old != NULL) {
		fuse_chan_disarm(old);
	}
	stop_work(r);
	if (old != NULL)
		fuse_chan_set_statedb(old, NULL);
	detach_state(r);
	fs_free(&r->fs);
	free_writing(r);
	make_fs(r);
	if (old != NULL) {
		rec = *fuse_chan_init_record(old);
		make_chan(r);
		cr_assert_eq(
		    fuse_chan_adopt(r->chan, dup(fuse_chan_fd(old)), &rec, &et), 0, "%s", et.s);
		fuse_chan_free(&old);
	}
	open_state(r, false);
	if (r->chan != NULL)
		fuse_chan_arm(r->chan);
}

static void flag_it(void *arg)
{
	*(bool *)arg = true;
}

void rig_crash(struct rig *r)
{
	uint64_t wire = r->cfg->migration_wire_timeout;
	struct held_list held = STAILQ_HEAD_INITIALIZER(held);
	struct held_req *hr;
	bool quiet = false;

	r->cfg->migration_wire_timeout = 0;
	fuse_chan_disarm(r->chan);
	fs_handover_begin(r->fs, flag_it, &quiet);
	fs_handover_end_reads(r->fs, true);
	while (!quiet || fs_running(r->fs) > 0)
		loop_turn(r->loop, true);
	r->cfg->migration_wire_timeout = wire;
	fs_handover_take(r->fs, &held);
	while ((hr = STAILQ_FIRST(&held)) != NULL) {
		STAILQ_REMOVE_HEAD(&held, link);
		free(hr);
	}
	rig_restart(r);
	cr_assert_eq(fuse_chan_resend(r->chan), 0);
}

static void index_closed(void *arg)
{
	*(bool *)arg = true;
}

void rig_free(struct rig *r)
{
	bool closed = false;

	if (r->loop == NULL)
		return;
	if (r->chan != NULL) {
		fuse_chan_disarm(r->chan);
		fuse_chan_unmount(r->tm.mnt, true);
	}
	stop_work(r);
	if (r->chan != NULL)
		fuse_chan_set_statedb(r->chan, NULL);
	detach_state(r);
	fs_free(&r->fs);
	if (r->writes) {
		bool meta_closed = false;

		free_writing(r);
		meta_close(r->meta, index_closed, &meta_closed);
		while (!meta_closed)
			loop_turn(r->loop, true);
		meta_free(&r->meta);
	}
	fuse_chan_free(&r->chan);
	cache_index_close(r->cache, false, index_closed, &closed);
	while (!closed)
		loop_turn(r->loop, true);
	cache_free(&r->cache);
	fake_fini(&r->ufs);
	counts_close(&r->counts);
	while (pool_outstanding(r->pool) > 0)
		loop_turn(r->loop, true);
	pool_free(&r->pool);
	config_free(&r->cfg);
	fs_mount_opts_fini(&r->mo);
	loop_free(&r->loop);
	tmp_mount_free(&r->tm);
}

pid_t rig_start(struct rig *r, rig_client *fn, void *arg)
{
	return tmp_mount_client(fn, &r->tm, arg);
}

static void client_over(struct loop_fd *lf, unsigned what)
{
	(void)what;
	loop_fd_want(lf, 0);
	loop_stop(lf->loop, 0);
}

int rig_wait(struct rig *r, pid_t pid)
{
	return rig_wait_nth(r, pid, 0, NULL);
}

int rig_wait_nth(struct rig *r, pid_t pid, unsigned n, bool *fired)
{
	int status, pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct loop_fd lf = {0};

	cr_assert_geq(pidfd, 0);
	cr_assert_eq(loop_fd_init(&lf, r->loop, pidfd, client_over), 0);
	cr_assert_eq(loop_fd_want(&lf, LOOP_READ), 0);
	if (n > 0)
		nth_arm(n);
	loop_run(r->loop);
	if (n > 0)
		*fired = nth_fired();
	loop_fd_fini(&lf);
	close(pidfd);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	/* What comes next is not to meet a database that has lost a turn. */
	while (n > 0 && statedb_lost(r->db))
		loop_turn(r->loop, true);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void rig_until(struct rig *r, bool (*pred)(struct rig *r, void *arg), void *arg)
{
	while (!pred(r, arg))
		loop_turn(r->loop, true);
}

void rig_until_waiting(struct rig *r, unsigned n)
{
	while (fake_waiting(&r->ufs) < n)
		loop_turn(r->loop, true);
}

const char *rig_at(const struct tmp_mount *tm, const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", tm->mnt, name);
	return path;
}

int rig_stat(const struct tmp_mount *tm, void *arg)
{
	struct stat st;

	return stat(rig_at(tm, arg), &st) == 0 ? 0 : errno;
}

int rig_list(const char *path, unsigned entries)
{
	DIR *d = opendir(path);
	unsigned n = 0;
	int err;

	if (d == NULL)
		return errno;
	for (errno = 0; readdir(d) != NULL; errno = 0)
		n++;
	err = errno;
	closedir(d);
	return err != 0 ? err : n == entries ? 0 : WRONG;
}
