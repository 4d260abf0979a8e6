/* SPDX-License-Identifier: BSD-2-Clause */
/* batonfsd(8): the daemon's main. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "args.h"
#include "background.h"
#include "base/argv.h"
#include "base/caps.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/obj.h"
#include "base/units.h"
#include "daemon.h"
#include "mountpoint.h"
#include "reactor/loop.h"
#include "reactor/notify.h"
#include "reactor/sock.h"
#include "takeover/client.h"
#include "takeover/recover.h"
#include "ufs/ufs.h"

/* Whoever is faster than us each time is served in the end. */
#define BEGIN_TRIES 10

/* Why we end: to the terminal we were started from, and to the log if that is
 * elsewhere. */
static int fail(const struct args *a, enum daemon_exit code, const struct errtext *et)
{
	fprintf(stderr, "batonfsd: %s\n", et->s);
	if (a->log != LOG_TO_STDERR)
		log_error("%s", et->s);
	return (int)code;
}

/* --- Is the storage there?  Before a fresh mount and for --check; a takeover does
 * not ask, for it must work while the storage is down. */

struct check_wait {
	struct ufs_check rq;
	bool ended;
	int err;
};

static void check_done(struct ufs_req *r, int err)
{
	struct check_wait *cw = r->user;

	cw->ended = true;
	cw->err = err;
}

struct stat_wait {
	struct ufs_stat rq;
	bool ended;
	int err;
};

static void stat_done(struct ufs_req *r, int err)
{
	struct stat_wait *sw = r->user;

	sw->ended = true;
	sw->err = err;
}

static enum daemon_exit check_subtree(struct daemon *d, struct errtext *et)
{
	const char *subtree = d->args.subtree;
	struct stat_wait sw = {.ended = false};
	struct ufs *ufs;

	sw.rq.req.user = &sw;
	sw.err = fs_resolve(d->fs, subtree, &ufs, &sw.rq.path);
	if (sw.err == 0) {
		ufs_stat(ufs, &sw.rq, stat_done);
		while (!sw.ended)
			loop_turn(d->loop, true);
	}
	if (sw.err == 0 && sw.rq.attr.kind != UFS_DIR)
		sw.err = -ENOTDIR;
	if (sw.err == 0)
		return DAEMON_EXIT_OK;
	errtext_set(et, sw.err, "--subtree %s: %s", subtree, strerror(-sw.err));
	return DAEMON_EXIT_STORAGE;
}

static enum daemon_exit check_storage(struct daemon *d, struct errtext *et)
{
	const char *nspath;
	struct ufs *ufs;
	unsigned i;

	for (i = 0; (ufs = fs_ufs(d->fs, i, &nspath)) != NULL; i++) {
		struct check_wait cw = {.ended = false};

		cw.rq.req.user = &cw;
		ufs_check(ufs, &cw.rq, check_done);
		while (!cw.ended)
			loop_turn(d->loop, true);
		if (cw.err == 0)
			continue;
		errtext_set(et, cw.err, "%s", cw.rq.et.s);
		return DAEMON_EXIT_STORAGE;
	}
	return d->args.subtree != NULL ? check_subtree(d, et) : DAEMON_EXIT_OK;
}

/* --- The three ways to begin */

/* Whether this start takes over from a live daemon.  A descriptor that was given is for
 * the first daemon of a mount; a successor has it among its flags and not open. */
static bool takes_over(const struct daemon *d)
{
	if (d->args.fuse_fd < 0)
		return d->args.takeover != TAKEOVER_NEVER;
	return d->args.takeover == TAKEOVER_REQUIRE || d->args.takeover == TAKEOVER_CHECK;
}

/* Until the other end of fd is closed, the mount point is mounted, or it is too late. */
static enum daemon_exit outwait_control(
    struct daemon *d, int fd, int mountinfo, uint64_t end, struct errtext *et)
{
	struct pollfd p[2] = {{.fd = fd, .events = POLLRDHUP}, {.fd = mountinfo, .events = POLLPRI}};
	const struct clock *clk = loop_clock(d->loop);
	uint64_t now;

	while ((p[0].revents & (POLLRDHUP | POLLHUP | POLLERR)) == 0) {
		if (mountpoint_use(d->args.mountpoint) == MOUNTPOINT_BATONFS)
			return errtext_set(et, DAEMON_EXIT_TAKEOVER,
			    "mount point %s: busy: its daemon does not let itself be taken over "
			    "(fuse.non.disruptive.migration.enabled = false): unmount first",
			    d->args.mountpoint);
		now = clk->monotonic(clk);
		if (now >= end)
			return errtext_set(et, DAEMON_EXIT_FAILURE,
			    "mount point %s: the daemon before has not ended within %llu s",
			    d->args.mountpoint,
			    (unsigned long long)(daemon_end_limit(d->cfg) / NS_PER_S));
		poll(p, 2, (int)MIN((end - now) / NS_PER_MS + 1, (uint64_t)INT_MAX));
	}
	return DAEMON_EXIT_OK;
}

/* A daemon with a control socket alone cannot be taken over.  If it serves the mount
 * point, that is that; if it does not (any more, or yet), we wait for its end, which is
 * when its socket is gone.  *again: it can be taken over, after all. */
static enum daemon_exit outwait_untakeable(struct daemon *d, bool *again, struct errtext *et)
{
	const struct clock *clk = loop_clock(d->loop);
	uint64_t end = clk->monotonic(clk) + daemon_end_limit(d->cfg);
	enum daemon_exit ex = DAEMON_EXIT_OK;
	int fd, mountinfo;

	/* Says when something was mounted. */
	mountinfo = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	while (ex == DAEMON_EXIT_OK && (fd = sock_connect(d->control_path, SOCK_STREAM)) >= 0) {
		ex = outwait_control(d, fd, mountinfo, end, et);
		close(fd);
	}
	if (mountinfo >= 0)
		close(mountinfo);
	*again = ex == DAEMON_EXIT_TAKEOVER && !d->bound_takeover &&
		 access(d->takeover_path, F_OK) == 0;
	return ex;
}

/* What a daemon and a keeper that died together have left is of use to nobody. */
static void clear_dead(const struct daemon *d)
{
	const char *mp = d->args.mountpoint;
	int err;

	if (mountpoint_use(mp) != MOUNTPOINT_BATONFS || !mountpoint_is_dead(mp))
		return;
	err = fuse_chan_unmount(mp, true);
	if (err == 0)
		log_warn("%s: the mount there was dead (its daemon and its keeper had died): "
			 "unmounted",
		    mp);
}

/* *again: somebody else began to serve the mount point meanwhile. */
static enum daemon_exit begin_fresh(struct daemon *d, bool *again, struct errtext *et)
{
	bool given = d->args.fuse_fd >= 0;
	enum daemon_exit ex;
	int err;

	if (given && mountpoint_check_fuse_fd(d->args.fuse_fd, et) != 0)
		return DAEMON_EXIT_USAGE;
	if (!given && !takes_over(d) && mountpoint_check_free(d->args.mountpoint, et) != 0)
		return DAEMON_EXIT_FAILURE;
	err = daemon_bind_takeover(d, et);
	*again = err == -EADDRINUSE;
	if (err != 0)
		return DAEMON_EXIT_FAILURE;
	ex = takes_over(d) ? outwait_untakeable(d, again, et) : DAEMON_EXIT_OK;
	if (ex != DAEMON_EXIT_OK)
		return ex;
	/* With the socket bound nobody else mounts here meanwhile. */
	if (!given && d->bound_takeover)
		clear_dead(d);
	if (!given && mountpoint_check_free(d->args.mountpoint, et) != 0)
		return DAEMON_EXIT_FAILURE;
	if (daemon_bind_control(d, et) != 0)
		return DAEMON_EXIT_FAILURE;
	err = FAULT("daemon.begin");
	if (err != 0)
		return errtext_set(et, DAEMON_EXIT_FAILURE, "fault point daemon.begin: %s",
		    strerror(-err));
	ex = check_storage(d, et);
	if (ex != DAEMON_EXIT_OK)
		return ex;
	if (!given && !mountpoint_is_empty(d->args.mountpoint))
		daemon_warn(d, "%s is not empty: what lies there is hidden as long as this mount is",
		    d->args.mountpoint);
	return daemon_begin_fresh(d, et);
}

static enum daemon_exit begin_takeover(struct daemon *d, bool *none, struct errtext *et)
{
	int err = takeover_begin(d, et);

	*none = err == -ENOENT && d->args.takeover == TAKEOVER_AUTO;
	if (err == 0 || *none)
		return DAEMON_EXIT_OK;
	if (err == -ENOENT)
		errtext_set(et, err, "%s: no daemon serves it that could be taken over",
		    d->args.mountpoint);
	return DAEMON_EXIT_TAKEOVER;
}

static enum daemon_exit begin(struct daemon *d, struct errtext *et)
{
	enum daemon_exit ex = DAEMON_EXIT_FAILURE;
	bool again = true, none = true;
	int err = recover_begin(d, et), tries;

	if (err != -ENOENT)
		return err == 0 ? DAEMON_EXIT_OK : DAEMON_EXIT_FAILURE;
	for (tries = 0; again && tries < BEGIN_TRIES; tries++) {
		again = false;
		if (takes_over(d))
			ex = begin_takeover(d, &none, et);
		/* What is mounted there has its own words. */
		else if (d->args.fuse_fd < 0 &&
			 mountpoint_use(d->args.mountpoint) == MOUNTPOINT_BATONFS)
			ex = DAEMON_EXIT_OK;
		else
			ex = takeover_outwait(d, et) == 0 ? DAEMON_EXIT_OK : DAEMON_EXIT_FAILURE;
		if (ex == DAEMON_EXIT_OK && none)
			ex = begin_fresh(d, &again, et);
	}
	return ex;
}

/* --- main */

static enum daemon_exit run(struct daemon *d, struct errtext *et)
{
	enum daemon_exit ex = daemon_prepare(d, et);

	if (ex != DAEMON_EXIT_OK)
		return ex;
	if (d->args.check) {
		ex = check_storage(d, et);
		if (ex == DAEMON_EXIT_OK)
			printf("batonfsd: configuration %s well\n",
			    d->nufs > 0 ? "and storage are" : "(no storage was named) is");
		return ex;
	}
	ex = begin(d, et);
	if (ex != DAEMON_EXIT_OK || d->args.takeover == TAKEOVER_CHECK) {
		if (d->mounted)
			fuse_chan_unmount(d->args.mountpoint, true);
		return ex;
	}
	return daemon_serve(d, et);
}

/* What is not needed is given up, before there are threads.  S3 and the mount: umount(2),
 * and directories that need not be root's.  file:// besides: to give files their owners
 * and modes. */
static void limit_capabilities(const struct daemon *d)
{
	uint64_t keep = 1ULL << CAP_SYS_ADMIN | 1ULL << CAP_DAC_OVERRIDE |
			1ULL << CAP_DAC_READ_SEARCH | 1ULL << CAP_IPC_LOCK;
	unsigned i;
	int err;

	for (i = 0; i < d->args.nufs; i++)
		if (strstr(d->args.ufs_specs[i], "=file://") != NULL)
			keep |= 1ULL << CAP_CHOWN | 1ULL << CAP_FOWNER | 1ULL << CAP_FSETID;
	err = caps_keep(keep);
	if (err != 0)
		log_warn("give up capabilities: %s", strerror(-err));
}

static int load(struct args *a, struct daemon *d, struct errtext *et)
{
	char *given = a->d.argc > 0 ? a->d.argv[a->d.argc - 1] : NULL;
	int err;

	d->cfg = args_load_config(a, et);
	if (d->cfg == NULL)
		return -EINVAL;
	err = fs_mount_opts_parse(&d->mo, a->mount_opts, a->nmount_opts, et);
	if (err != 0 || given == NULL)
		return err;
	err = mountpoint_resolve(given, &a->d.mountpoint, et);
	if (err != 0)
		return err;
	/* A restart may begin in another directory. */
	a->d.argv[a->d.argc - 1] = strdup(a->d.mountpoint);
	free(given);
	return a->d.argv[a->d.argc - 1] != NULL ? 0
						: errtext_set(et, -ENOMEM, "%s", strerror(ENOMEM));
}

int main(int argc, char **argv)
{
	struct errtext et = {.s = ""};
	struct daemon *d;
	struct args a;
	int ex, err;

	ex = args_parse(&a, argc, argv);
	if (ex >= 0)
		return ex;
	log_open("batonfsd", a.log);
	ALLOC_OBJ(d, DAEMON_MAGIC);
	if (d == NULL)
		return DAEMON_EXIT_FAILURE;
	d->init_fd = d->state_fd = d->epoch.fd = -1;
	d->adopt_ctl_fd = d->adopt_takeover_fd = d->staging_fd = d->gate_fd = -1;
	err = load(&a, d, &et);
	d->args = a.d;
	if (err == 0 && getenv("BATONFS_FAULT") != NULL)
		err = fault_init(getenv("BATONFS_FAULT"), &et);
	if (err != 0)
		ex = fail(&a, err == -EINVAL || err == -ERANGE ? DAEMON_EXIT_USAGE : DAEMON_EXIT_FAILURE, &et);
	else if (!a.d.foreground && !a.d.check && !notify_available())
		ex = background_start(d->args.argv);
	else {
		daemon_apply_log_level(d->cfg);
		d->args.detach = a.log == LOG_TO_SYSLOG;
		limit_capabilities(d);
		ex = run(d, &et);
		if (et.s[0] != '\0' && ex != DAEMON_EXIT_OK)
			fail(&a, (enum daemon_exit)ex, &et);
	}
	/* A thread that waits for a disk cannot be joined. */
	if (!daemon_rest(d))
		_exit(ex);
	daemon_fini(d);
	fs_mount_opts_fini(&d->mo);
	if (d->cfg != NULL)
		config_free(&d->cfg);
	free(d->args.mountpoint);
	argv_free(&d->args.argv);
	FREE_OBJ(d);
	return ex;
}
