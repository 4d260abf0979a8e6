/* SPDX-License-Identifier: BSD-2-Clause */
/* The daemon's life once it serves: signals, readiness, watchdog, the end. */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "args.h"
#include "base/argv.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/obj.h"
#include "base/units.h"
#include "cache/cache.h"
#include "ctl/ctl.h"
#include "daemon.h"
#include "meta/meta.h"
#include "ops/persist.h"
#include "ops/policy.h"
#include "reactor/notify.h"
#include "reactor/statedb.h"
#include "takeover/forgets_log.h"
#include "takeover/server.h"

/* How long the end waits for disk work that cannot be recalled. */
#define DAEMON_END_WAIT (10 * NS_PER_S)
#define DAEMON_TELL_EVERY NS_PER_S
/* Largest readahead window of the kernel; behind it the handle's own window works
 * on, so more would only delay the answer to a changed mind. */
#define DAEMON_KERNEL_READAHEAD (4 * MIB)

/* --- signals */

/* How a message to the keeper went: nobody at its socket, nobody has the mount. */
static void daemon_told_keeper(struct daemon *d, int err)
{
	if (!d->kept || (err != -ECONNREFUSED && err != -ENOENT))
		return;
	d->kept = false;
	daemon_warn(d, "%s: its keeper has ended: the mount will not survive a crash of this "
		       "daemon until `batonfs-keeper -- batonfsd ...` is started for it, "
		       "which takes it over",
	    d->args.mountpoint);
}

void daemon_end_if_asked(struct daemon *d)
{
	if (!d->end_asked)
		return;
	d->end_asked = false;
	daemon_exit(d, d->end_unmount || !d->kept, DAEMON_EXIT_OK);
}

/* Told to end, while a successor may be taking over: then it gets the mount, and if it
 * fails we end as we would have. */
static void daemon_told_to_end(struct daemon *d, const char *signal_name, bool unmount)
{
	if (d->kept)
		daemon_told_keeper(d, notify_send("STATUS=told to end", NULL, 0));
	if (d->takeover != NULL && takeover_server_busy(d->takeover)) {
		log_info("%s: %s: ending after the takeover that is under way", d->args.mountpoint,
		    signal_name);
		d->end_unmount = d->end_unmount || unmount;
		d->end_asked = true;
		takeover_server_hurry(d->takeover);
		return;
	}
	log_info("%s: %s: %s", d->args.mountpoint, signal_name,
	    unmount || !d->kept ? "unmounting" : "leaving; the mount stays with its keeper");
	daemon_exit(d, unmount || !d->kept, DAEMON_EXIT_OK);
}

static void daemon_sig_term(struct loop_signal *ls)
{
	daemon_told_to_end(container_of(ls, struct daemon, sig_term), "SIGTERM", false);
}

static void daemon_sig_int(struct loop_signal *ls)
{
	daemon_told_to_end(container_of(ls, struct daemon, sig_int), "SIGINT", true);
}

void daemon_apply_log_level(const struct config *cfg)
{
	static const char *const words[] = {
	    [LOG_LVL_ERROR] = "error",
	    [LOG_LVL_WARN] = "warn",
	    [LOG_LVL_INFO] = "info",
	    [LOG_LVL_DEBUG] = "debug",
	};
	unsigned i;

	for (i = 0; i < ARRAY_LEN(words); i++)
		if (strcmp(cfg->log_level, words[i]) == 0)
			log_set_level((enum log_level)i);
}

static void daemon_apply_live(struct daemon *d, const struct config *fresh)
{
	char was[4096], now[4096];
	struct errtext et;
	size_t i;

	for (i = 0; i < option_count; i++) {
		const struct option_desc *od = &option_table[i];

		if (config_get(d->cfg, od->name, was, sizeof(was)) == NULL ||
		    config_get(fresh, od->name, now, sizeof(now)) == NULL ||
		    strcmp(was, now) == 0)
			continue;
		if (od->when != OPT_LIVE)
			log_warn("%s: changed to %s: takes effect with `batonfs upgrade`", od->name,
			    now);
		else if (config_set(d->cfg, od->name, now, &et) != 0)
			log_error("%s", et.s);
		else
			log_info("%s: %s is now %s", d->args.mountpoint, od->name, now);
	}
	daemon_apply_log_level(d->cfg);
}

static void daemon_sig_hup(struct loop_signal *ls)
{
	struct daemon *d = container_of(ls, struct daemon, sig_hup);
	struct config *fresh;
	struct errtext et;
	struct args a;
	char **argv = argv_copy(d->args.argv);

	/* The command line as it is now: `conf set` writes itself into it. */
	optind = 0;
	if (argv == NULL || args_parse(&a, d->args.argc, argv) >= 0) {
		log_error("%s: SIGHUP: out of memory", d->args.mountpoint);
		argv_free(&argv);
		return;
	}
	fresh = args_load_config(&a, &et);
	if (fresh == NULL)
		log_error("%s: SIGHUP: configuration not changed: %s", d->args.mountpoint, et.s);
	else {
		daemon_apply_live(d, fresh);
		config_free(&fresh);
	}
	if (d->db != NULL && d->cfg->write_cache_enabled)
		policy_refresh(d->fs);
	argv_free(&a.d.argv);
	argv_free(&argv);
}

static int daemon_signals(struct daemon *d, struct errtext *et)
{
	int err;

	signal(SIGPIPE, SIG_IGN);
	err = loop_signal_init(&d->sig_term, d->loop, SIGTERM, daemon_sig_term);
	if (err == 0)
		err = loop_signal_init(&d->sig_int, d->loop, SIGINT, daemon_sig_int);
	if (err == 0)
		err = loop_signal_init(&d->sig_hup, d->loop, SIGHUP, daemon_sig_hup);
	return err == 0 ? 0 : errtext_set(et, err, "install signal handlers: %s", strerror(-err));
}

/* --- watchdog and readiness */

static void daemon_watchdog(struct timer *t)
{
	struct daemon *d = container_of(t, struct daemon, watchdog);

	/* There are three of them in the time that it allows: none is waited for. */
	daemon_told_keeper(d, notify_try("WATCHDOG=1"));
	timer_arm(t, d->watchdog_ns);
}

static void daemon_start_watchdog(struct daemon *d)
{
	const char *text = getenv("WATCHDOG_USEC");
	uint64_t usec;

	timer_init(&d->watchdog, d->loop, daemon_watchdog);
	if (text == NULL || units_parse_u64(text, &usec) != 0 || usec == 0)
		return;
	d->watchdog_ns = usec * NS_PER_US / 3;
	timer_arm(&d->watchdog, d->watchdog_ns);
}

static void daemon_raise_readahead(struct daemon *d)
{
	uint64_t window = MIN(d->cfg->readahead_max, DAEMON_KERNEL_READAHEAD);
	int err = fuse_chan_set_readahead_kb(d->chan, d->args.mountpoint, (unsigned)(window / KIB));

	if (err != 0)
		daemon_warn(d, "the kernel's readahead window could not be set: %s: "
			       "sequential reads will be slower",
		    strerror(-err));
}

/* FUSE_NOTIFY_RESEND came with Linux 6.9.  Without it the requests that a dead
 * daemon had read are lost; an administrator should know before that happens. */
static void daemon_check_kernel(struct daemon *d)
{
	unsigned major = 0, minor = 0;
	struct utsname un;

	if (!d->kept || uname(&un) != 0 || sscanf(un.release, "%u.%u", &major, &minor) != 2)
		return;
	if (major < 6 || (major == 6 && minor < 9) || FAULT("daemon.kernel.old") != 0)
		daemon_warn(d, "Linux %u.%u cannot send requests again, 6.9 can: upgrades work, but "
			       "a crash of the daemon ends the mount",
		    major, minor);
}

void daemon_announce(struct daemon *d)
{
	char msg[256];

	daemon_raise_readahead(d);
	daemon_check_kernel(d);
	/* By itself, since it may be long: systemd, which has no use for it, drops what
	 * has more than 4096 bytes. */
	if (daemon_tell_argv(d) != 0)
		log_warn("%s: the keeper was not told the command line: after a crash it starts "
			 "the one that it knows",
		    d->args.mountpoint);
	snprintf(msg, sizeof(msg), "READY=1\nMAINPID=%d\nX_BATONFS_RESTART_LIMIT=%.64s\n",
	    (int)getpid(), d->cfg->keeper_restart_limit);
	notify_send(msg, NULL, 0);
	log_info("%s: serving (batonfsd %s, pid %d)", d->args.mountpoint, PACKAGE_VERSION,
	    (int)getpid());
	if (d->args.detach)
		daemon_detach_stdio();
}

/* --- the end */

static void daemon_unmount_work(struct pool_job *job)
{
	struct daemon *d = container_of(job, struct daemon, unmount_job);

	job->result = fuse_chan_unmount(d->args.mountpoint, false);
	if (job->result == -EBUSY) {
		log_warn("%s: busy: detached now, gone when the last user leaves",
		    d->args.mountpoint);
		job->result = fuse_chan_unmount(d->args.mountpoint, true);
	}
}

static void daemon_unmount_tell(struct timer *t)
{
	struct daemon *d = container_of(t, struct daemon, unmount_tell);

	daemon_tell_waiters(d, DAEMON_WAITS_FOR_KERNEL);
	timer_arm(t, DAEMON_TELL_EVERY);
}

static void daemon_unmount_done(struct pool_job *job)
{
	struct daemon *d = container_of(job, struct daemon, unmount_job);

	timer_cancel(&d->unmount_tell);
	if (job->result != 0 && job->result != -EINVAL && job->result != -ENOENT)
		log_error("umount %s: %s", d->args.mountpoint, strerror(-job->result));
	loop_stop(d->loop, d->exit_code);
}

void daemon_exit(struct daemon *d, bool unmount, int code)
{
	if (d->ending)
		return;
	if (d->handed_over)
		unmount = false; /* it is our successor's mount */
	d->ending = true;
	d->exit_code = code;
	d->leaves_mount = !unmount && (d->handed_over || (d->kept && d->serving));
	/* Until it is unmounted the mount is served: umount(2) may need us. */
	if (!unmount) {
		loop_stop(d->loop, code);
		return;
	}
	timer_init(&d->unmount_tell, d->loop, daemon_unmount_tell);
	timer_arm(&d->unmount_tell, DAEMON_TELL_EVERY);
	pool_submit(d->pool, NULL, &d->unmount_job, daemon_unmount_work, daemon_unmount_done);
}

static void daemon_wake(struct timer *t)
{
	(void)t;
}

/* Turns the loop until done() or the time is up; returns whether it was done.  Who waits
 * for our end hears every second what we wait for. */
static bool daemon_wait(struct daemon *d, uint64_t limit_ns, bool (*done)(struct daemon *d),
    const char *what)
{
	uint64_t now = loop_now(d->loop), end = now + limit_ns, tell = now + DAEMON_TELL_EVERY;
	struct timer tick;
	bool said = false;

	timer_init(&tick, d->loop, daemon_wake);
	while (!done(d) && (now = loop_now(d->loop)) < end) {
		if (now >= tell) {
			if (!said)
				log_info("%s: ending: waiting for %s", d->args.mountpoint, what);
			said = true;
			daemon_tell_waiters(d, what);
			tell = now + DAEMON_TELL_EVERY;
		}
		timer_arm(&tick, MIN(end, tell) - now);
		loop_turn(d->loop, true);
	}
	timer_cancel(&tick);
	return done(d);
}

static bool daemon_idle(struct daemon *d)
{
	return fs_running(d->fs) == 0;
}

static bool daemon_written(struct daemon *d)
{
	return fs_unsent(d->fs) == 0;
}

static bool daemon_noted(struct daemon *d)
{
	return meta_waiting(d->meta) == 0;
}

static bool daemon_closed(struct daemon *d)
{
	return daemon_stores_closed(d) && pool_outstanding(d->pool) == 0;
}

static bool daemon_resting(struct daemon *d)
{
	return pool_outstanding(d->pool) == 0;
}

bool daemon_rest(struct daemon *d)
{
	return d->pool == NULL || daemon_wait(d, DAEMON_END_WAIT, daemon_resting, "the disk");
}

/* Leaves nothing running: true if everything can be freed. */
static bool daemon_drain(struct daemon *d)
{
	bool idle;

	fuse_chan_disarm(d->chan);
	persist_hold(d->fs);
	if (!d->leaves_mount) {
		fs_close_writers(d->fs);
		daemon_wait(d, d->cfg->write_drain_timeout, daemon_written,
		    "the storage to take what was written");
		fs_report_lost(d->fs);
		if (d->meta != NULL) {
			meta_flush(d->meta);
			if (!daemon_wait(d, d->cfg->meta_timeout, daemon_noted,
				"the metadata store"))
				log_error("%s: %u changes of attributes are lost: the metadata "
					  "store does not take them",
				    d->args.mountpoint, meta_waiting(d->meta));
		}
		fs_cancel_all(d->fs, -ENOTCONN);
	}
	/* What is not answered in time the kernel sends again to our successor. */
	idle = daemon_wait(d, d->cfg->migration_grace_period, daemon_idle, "requests");
	if (d->db != NULL) {
		statedb_commit(d->db);
		fuse_chan_flush(d->chan);
	}
	/* What we handed over is closed already. */
	if (!d->handed_over) {
		if (!d->leaves_mount && d->meta != NULL)
			meta_leave(d->meta);
		daemon_close_stores(d, true, NULL, NULL);
	}
	return daemon_wait(d, DAEMON_END_WAIT, daemon_closed, "the disk") && idle;
}

/* The mount is gone: nothing of it shall stay behind. */
static void daemon_clean(struct daemon *d)
{
	char path[4200];

	(void)FAULT("daemon.end.clean");
	daemon_unstore_fds();
	notify_send("STOPPING=1", NULL, 0);
	snprintf(path, sizeof(path), "%s/data.mdb", d->state_dir);
	unlink(path);
	if (d->state_fd >= 0)
		forgets_log_drop(d->state_fd);
	rmdir(d->state_dir);
}

void daemon_abandon(struct daemon *d, int code)
{
	bool ended;

	if (d->mounted)
		fuse_chan_unmount(d->args.mountpoint, true);
	d->mounted = d->serving = false;
	ended = daemon_drain(d);
	daemon_clean(d);
	if (!ended)
		_exit(code);
}

enum daemon_exit daemon_serve(struct daemon *d, struct errtext *et)
{
	int code = DAEMON_EXIT_FAILURE, err;

	d->started_wall_ns = loop_wall(d->loop);
	err = daemon_serve_sockets(d, et);
	if (err != 0 && d->serving && !d->mounted) {
		/* Others' mount, in use: without its sockets it is worth more than gone. */
		daemon_warn(d, "%s: this daemon cannot be asked or replaced by `batonfs`, "
			       "only restarted by its keeper",
		    et->s);
		err = 0;
	}
	if (err == 0 && d->kept && daemon_store_sockets(d) != 0)
		log_warn("%s: the keeper does not have the sockets", d->args.mountpoint);
	if (err == 0)
		err = daemon_signals(d, et);
	if (err == 0) {
		daemon_start_watchdog(d);
		if (d->ready)
			daemon_announce(d);
		code = loop_run(d->loop);
	} else if (d->mounted)
		fuse_chan_unmount(d->args.mountpoint, true);
	(void)FAULT("daemon.end.drain");
	if (!daemon_drain(d)) {
		/* A pool thread hangs in the kernel (a dead NFS server, say): the
		 * process can end, its memory cannot be given back in order. */
		log_warn("%s: ending with disk work still running", d->args.mountpoint);
		if (!d->leaves_mount) {
			daemon_clean(d);
			daemon_keep_gate(d);
			daemon_unbind(d);
		}
		_exit(code);
	}
	timer_cancel(&d->watchdog);
	loop_signal_fini(&d->sig_term);
	loop_signal_fini(&d->sig_int);
	loop_signal_fini(&d->sig_hup);
	if (!d->leaves_mount) {
		daemon_clean(d);
		daemon_keep_gate(d);
	}
	return (enum daemon_exit)code;
}
