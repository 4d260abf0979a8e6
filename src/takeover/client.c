/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "takeover/client.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "args.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/obj.h"
#include "base/units.h"
#include "daemon.h"
#include "ops/counts.h"
#include "reactor/fuse_chan.h"
#include "reactor/notify.h"
#include "reactor/sock.h"
#include "reactor/statedb.h"
#include "takeover/claim.h"
#include "takeover/forgets_log.h"
#include "takeover/held.h"
#include "takeover/identity.h"
#include "takeover/link.h"
#include "takeover/records.h"

/* Answers that need no work on the old side. */
#define ANSWER_LIMIT (15 * NS_PER_S)
/* If the old daemon does not say how long its window is. */
#define WINDOW_DEFAULT (15 * NS_PER_S)
/* Who answers by closing the connection has ended just then; not again and again. */
#define RETRY_LIMIT (30 * NS_PER_S)
#define RETRY_PAUSE (5 * NS_PER_MS)

struct offer {
	struct daemon *d;
	int sock;
	struct rec_in in;
	struct rec_out out;
	unsigned char buf[REC_MSG_MAX];
	int fds[REC_FD_KINDS];
	/* from STATE */
	char build[32], keeper[IDENTITY_MAX];
	uint64_t pid, mount_id, epoch, window, flags;
	int process; /* pidfd of the old daemon, -1 from one that does not pass it */
	struct fuse_chan_init init;
	/* from COMMIT */
	uint64_t stopped_at;
	struct held_list held;
	uint64_t gone; /* so many FORGETs of those in held are counted already */
	bool dead; /* the old daemon died before it could say COMMIT */
	bool ask;  /* whether it is there, and would hand over; nothing is taken */
	bool answered; /* by STATE */
};

static uint64_t monotonic_now(void)
{
	return clock_system.monotonic(&clock_system);
}

/* --- one message each way, with a time limit */

static int offer_send(struct offer *o, const int *fds, int nfds)
{
	struct iovec iov = {.iov_base = o->out.buf, .iov_len = rec_len(&o->out)};
	ssize_t n;

	if (iov.iov_len == 0)
		return -EMSGSIZE;
	n = sock_send(o->sock, &iov, 1, fds, nfds);
	return n < 0 ? (int)n : 0;
}

/* -EPIPE: the other end is gone. */
static ssize_t offer_wait(struct offer *o, uint64_t limit_ns, int *fds, int *nfds)
{
	uint64_t end = monotonic_now() + limit_ns, now;
	struct pollfd p = {.fd = o->sock, .events = POLLIN};
	ssize_t n;
	int r;

	for (;;) {
		n = sock_recv(o->sock, o->buf, sizeof(o->buf), fds, nfds);
		/* It closed with something of ours unread; its last words may follow. */
		if (n == -ECONNRESET)
			n = sock_recv(o->sock, o->buf, sizeof(o->buf), fds, nfds);
		if (n == 0 || n == -ECONNRESET)
			return -EPIPE;
		if (n != -EAGAIN && n != -EINTR)
			return n;
		now = monotonic_now();
		if (now >= end)
			return -ETIMEDOUT;
		r = poll(&p, 1, (int)((end - now) / NS_PER_MS) + 1);
		if (r < 0 && errno != EINTR)
			return -errno;
	}
}

static int offer_refused(struct offer *o, struct errtext *et)
{
	uint64_t code = 0;
	char words[600];

	rec_get_text(&o->in, REC_WORDS, words, sizeof(words));
	rec_get_u64(&o->in, REC_ERRNO, &code);
	rec_get_u64(&o->in, REC_WINDOW, &o->window);
	if (code == ESHUTDOWN)
		return errtext_set(et, -ESHUTDOWN, "%s: its daemon is ending: nothing is left to "
						   "take over",
		    o->d->args.mountpoint);
	return errtext_set(et, -ECONNREFUSED, "%s: the running daemon refused the takeover: %s",
	    o->d->args.mountpoint, words);
}

static int offer_expect(
    struct offer *o, enum rec_msg type, const char *name, uint64_t limit_ns, struct errtext *et)
{
	const char *mp = o->d->args.mountpoint;
	int fds[SOCK_MAX_FDS], nfds = 0, err;
	ssize_t n;

	rec_close_fds(o->fds);
	n = offer_wait(o, limit_ns, fds, &nfds);
	if (n == -EPIPE)
		return errtext_set(et, -EPIPE, "%s: the running daemon ended before %s", mp, name);
	if (n == -ETIMEDOUT)
		return errtext_set(et, -ETIMEDOUT,
		    "%s: the running daemon did not send %s within %llu s: it hangs or is "
		    "overloaded; its keeper's watchdog replaces a daemon that hangs",
		    mp, name, (unsigned long long)(limit_ns / NS_PER_S));
	if (n < 0)
		return errtext_set(
		    et, (int)n, "%s: read the takeover socket: %s", mp, strerror((int)-n));
	err = rec_parse(&o->in, o->buf, (size_t)n);
	if (err == 0)
		err = rec_sort_fds(&o->in, fds, nfds, o->fds);
	else
		while (nfds > 0)
			close(fds[--nfds]);
	if (err != 0)
		return errtext_set(et, err, "%s: the running daemon's %s is %s", mp, name,
		    err == -EPROTO ? "of a version that this one does not know" : "damaged");
	if (o->in.type == MSG_REFUSE)
		return offer_refused(o, et);
	if (o->in.type != type)
		return errtext_set(et, -EPROTO, "%s: the running daemon sent message %d, not %s",
		    mp, (int)o->in.type, name);
	return 0;
}

/* Tells the old daemon why, so that it can say so too; returns err. */
static int offer_give_up(struct offer *o, int err, const char *words)
{
	rec_begin(&o->out, MSG_REFUSE);
	rec_put_u64(&o->out, REC_ERRNO, (uint64_t)-err);
	rec_put_text(&o->out, REC_WORDS, words);
	offer_send(o, NULL, 0);
	return err;
}

/* --- HELLO and STATE */

static int offer_hello(struct offer *o, struct errtext *et)
{
	struct daemon *d = o->d;
	unsigned char kind = REC_FD_CACHE_DIR;
	char keeper[IDENTITY_MAX], dirs[DAEMON_WRITE_DIRS_MAX];
	int dir = -1, err;

	identity_keeper(keeper, sizeof(keeper));
	rec_begin(&o->out, MSG_HELLO);
	rec_put_u64(&o->out, REC_CAPS, REC_CAPS_OURS);
	rec_put_u64(&o->out, REC_NEEDS, REC_CAPS_OF_OLD);
	rec_put_text(&o->out, REC_BUILD, PACKAGE_VERSION);
	rec_put_u64(&o->out, REC_PID, (uint64_t)getpid());
	rec_put_u64(&o->out, REC_FLAGS, o->ask ? REC_FLAG_CHECK_ONLY : 0);
	rec_put_u64(&o->out, REC_NAMESPACE, fs_namespace_digest(d->fs));
	rec_put_text(&o->out, REC_KEEPER, keeper);
	daemon_write_dirs(d, dirs, sizeof(dirs));
	rec_put_text(&o->out, REC_WRITE_DIRS, dirs);
	/* As a descriptor: in another mount namespace its path means nothing. */
	if (d->cfg->page_store_dir[0] != '\0') {
		dir = open(d->cfg->page_store_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0)
			return errtext_set(et, -errno, "page store %s: %s", d->cfg->page_store_dir,
			    strerror(errno));
		rec_put(&o->out, REC_FDS, &kind, 1);
	}
	err = offer_send(o, &dir, dir >= 0 ? 1 : 0);
	if (dir >= 0)
		close(dir);
	/* -EPIPE or -ECONNRESET: it closed at once; what it said first is still to be read. */
	if (err != 0 && err != -EPIPE && err != -ECONNRESET)
		return errtext_set(et, err, "%s: send HELLO: %s", d->takeover_path, strerror(-err));
	return 0;
}

static int offer_state(struct offer *o, struct errtext *et)
{
	uint64_t needs = 0;
	int err;

	rec_get_u64(&o->in, REC_NEEDS, &needs);
	rec_get_text(&o->in, REC_BUILD, o->build, sizeof(o->build));
	if ((needs & ~REC_CAPS_OURS) != 0)
		return errtext_set(et, -EPROTO,
		    "%s: the running daemon (%s) needs what this one (%s) cannot do "
		    "(capabilities %#llx)",
		    o->d->args.mountpoint, o->build, PACKAGE_VERSION,
		    (unsigned long long)(needs & ~REC_CAPS_OURS));
	rec_get_text(&o->in, REC_KEEPER, o->keeper, sizeof(o->keeper));
	rec_get_u64(&o->in, REC_PID, &o->pid);
	rec_get_u64(&o->in, REC_FLAGS, &o->flags);
	o->window = WINDOW_DEFAULT;
	rec_get_u64(&o->in, REC_WINDOW, &o->window);
	err = rec_get_u64(&o->in, REC_MOUNT_ID, &o->mount_id);
	if (err == 0)
		err = rec_get_u64(&o->in, REC_EPOCH, &o->epoch);
	if (err == 0)
		err = rec_get_raw(
		    &o->in, REC_INIT_REQUEST, o->init.req, sizeof(o->init.req), &o->init.req_len);
	if (err == 0)
		err = rec_get_raw(&o->in, REC_INIT_REPLY, o->init.reply, sizeof(o->init.reply),
		    &o->init.reply_len);
	if (err == 0 && (o->init.req_len == 0 || o->init.reply_len == 0))
		err = -EBADMSG;
	if (err == 0 && !o->ask &&
	    (o->fds[REC_FD_FUSE] < 0 || o->fds[REC_FD_EPOCH] < 0 || o->fds[REC_FD_COUNTS] < 0 ||
		o->fds[REC_FD_STATE_DIR] < 0))
		err = -EBADMSG;
	return err == 0 ? 0
			: errtext_set(et, -EPROTO, "%s: the running daemon's STATE lacks a part",
			      o->d->args.mountpoint);
}

static int take_fd(struct offer *o, enum rec_fd kind)
{
	int fd = o->fds[kind];

	o->fds[kind] = -1;
	return fd;
}

/* `upgrade --check`: can we honour what the mount's INIT has agreed?  The replay
 * needs some descriptor to read from later; it never will. */
static int offer_try_init(struct offer *o, struct errtext *et)
{
	int sv[2], err;

	err = daemon_new_chan(o->d, et);
	if (err != 0)
		return err;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv) != 0)
		return errtext_set(et, -errno, "socketpair: %s", strerror(errno));
	err = fuse_chan_adopt(o->d->chan, sv[0], &o->init, et);
	close(sv[1]);
	return err;
}

static int offer_adopt(struct offer *o, struct errtext *et)
{
	struct daemon *d = o->d;
	int err;

	err = epoch_adopt(&d->epoch, take_fd(o, REC_FD_EPOCH));
	if (err == 0)
		err = counts_adopt(&d->counts, take_fd(o, REC_FD_COUNTS));
	if (err != 0)
		return errtext_set(et, err, "adopt the mount's shared memory: %s", strerror(-err));
	d->mount_id = o->mount_id;
	d->init_fd = take_fd(o, REC_FD_INIT);
	err = daemon_adopt_state_dir(d, take_fd(o, REC_FD_STATE_DIR), et);
	if (err != 0)
		return err;
	if (daemon_open_cache(d, take_fd(o, REC_FD_LOCK), et) != DAEMON_EXIT_OK)
		return -EIO;
	err = daemon_new_chan(d, et);
	if (err == 0)
		err = fuse_chan_adopt(d->chan, take_fd(o, REC_FD_FUSE), &o->init, et);
	d->adopt_ctl_fd = take_fd(o, REC_FD_CONTROL);
	d->adopt_takeover_fd = take_fd(o, REC_FD_TAKEOVER);
	o->process = take_fd(o, REC_FD_PROCESS);
	return err;
}

/* --- READY, COMMIT, DONE */

static int offer_ready(struct offer *o, struct errtext *et)
{
	int err = FAULT("takeover.new.ready");

	if (err == 0) {
		rec_begin(&o->out, MSG_READY);
		err = offer_send(o, NULL, 0);
	}
	if (err != 0 && err != -EPIPE)
		return errtext_set(
		    et, err, "%s: send READY: %s", o->d->takeover_path, strerror(-err));
	err = offer_expect(o, MSG_COMMIT, "COMMIT", o->window, et);
	/* It would have said why, had it given up: this is its death, and after
	 * READY it may have requests that only a resend brings back. */
	if (err == -EPIPE) {
		o->dead = true;
		return 0;
	}
	return err;
}

/* From here on failure is told to the old daemon, which takes the mount back. */
static int offer_commit(struct offer *o, struct errtext *et)
{
	uint32_t count = 0;
	int err = FAULT("takeover.new.commit");

	if (err != 0)
		return errtext_set(et, err, "fault point takeover.new.commit: %s", strerror(-err));
	if (o->dead)
		return 0;
	rec_get_u64(&o->in, REC_STOPPED_AT, &o->stopped_at);
	rec_get_u64(&o->in, REC_REFUSED, &o->d->report.refused);
	if (o->fds[REC_FD_HELD] < 0)
		return 0;
	err = held_decode(o->fds[REC_FD_HELD], &o->held, &count);
	o->d->report.held = count;
	return err == 0 ? 0 : errtext_set(et, err, "the requests held back: %s", strerror(-err));
}

static int offer_claim(struct offer *o, struct errtext *et)
{
	struct daemon *d = o->d;
	int err = claim_take(&d->epoch);

	if (err != 0)
		return errtext_set(
		    et, err, "%s: another daemon serves the mount already", d->args.mountpoint);
	forgets_log_claim(d->state_fd, o->epoch, d->counts, o->dead, &o->held, &o->gone);
	err = daemon_take_right(d, o->epoch, false, et);
	if (err != 0) {
		if (d->db != NULL)
			daemon_detach_state(d);
		d->serving = false;
		claim_drop(&d->epoch);
	}
	return err;
}

static void offer_report(struct offer *o)
{
	struct daemon *d = o->d;
	struct takeover_report *r = &d->report;
	struct fs_info info;
	uint64_t now = monotonic_now();

	fs_info(d->fs, &info);
	r->kind = o->dead ? REPORT_RECOVERY : REPORT_TAKEOVER;
	r->wall_ns = d->loop != NULL ? clock_system.wall(&clock_system) : 0;
	r->pause_ns = o->stopped_at != 0 && now > o->stopped_at ? now - o->stopped_at : 0;
	r->from_pid = (int)o->pid;
	snprintf(r->from_version, sizeof(r->from_version), "%s", o->build);
	r->handles = (uint32_t)(info.open_files + info.open_dirs);
	COUNT(d->loop, TAKEOVERS, 1);
	if (o->dead) {
		d->tally.recoveries++;
	} else {
		d->tally.takeovers++;
		tally_pause(&d->tally, r->pause_ns);
	}
	d->tally.held += r->held;
	d->tally.refused += r->refused;
	tally_save(&d->tally, d->db, 0);
}

static void offer_feed(struct offer *o)
{
	struct held_req *r;

	while ((r = STAILQ_FIRST(&o->held)) != NULL) {
		STAILQ_REMOVE_HEAD(&o->held, link);
		fuse_chan_feed(o->d->chan, r->raw, r->len);
		free(r);
	}
}

/* With one keeper for both the store stays as it is and only the main process
 * changes; that must be known before the old daemon ends. */
static void offer_tell_keeper(struct offer *o)
{
	struct daemon *d = o->d;
	char keeper[IDENTITY_MAX], msg[64];
	bool same;
	int err;

	if (!notify_available())
		return;
	identity_keeper(keeper, sizeof(keeper));
	same = keeper[0] != '\0' && strcmp(keeper, o->keeper) == 0;
	snprintf(msg, sizeof(msg), "MAINPID=%d", (int)getpid());
	err = same ? notify_send(msg, NULL, 0) : 0;
	if (err == 0 && !(same && (o->flags & REC_FLAG_KEPT) != 0))
		err = daemon_store_fds(d);
	d->kept = err == 0;
	if (err != 0)
		daemon_warn(d,
		    "no keeper has the mount's descriptors (%s): the mount will not survive a "
		    "crash of this daemon",
		    strerror(-err));
}

static void offer_serve(struct offer *o)
{
	struct daemon *d = o->d;
	int err;

	/* If we die before this is done, the old daemon does the rest: until the keeper knows
	 * us, nobody else is started. */
	forgets_log_apply(d->fs, d->state_fd, d->counts, d->epoch.mine, o->gone, &o->held);
	offer_tell_keeper(o);
	d->ready = true;
	fuse_chan_arm(d->chan);
	offer_report(o);
	offer_feed(o);
	if (o->dead) {
		err = fuse_chan_resend(d->chan);
		if (err != 0)
			daemon_warn(d,
			    "requests that the old daemon had read when it died are "
			    "lost (%s): their callers wait until this mount ends",
			    strerror(-err));
		return;
	}
	err = FAULT("takeover.new.done");
	if (err == 0) {
		rec_begin(&o->out, MSG_DONE);
		err = offer_send(o, NULL, 0);
	}
	/* Dead now, it can take nothing back; alive, it finds that we hold the claim.
	 * Either way we serve, and what it had running must come again. */
	if (err != 0) {
		log_warn("%s: send DONE: %s", d->takeover_path, strerror(-err));
		fuse_chan_resend(d->chan);
		o->dead = true;
	}
}

static void offer_log(const struct offer *o)
{
	const struct daemon *d = o->d;
	const struct takeover_report *r = &d->report;

	if (r->kind == REPORT_RECOVERY) {
		log_warn("%s: recovered: pid %d (%s) died while it handed over", d->args.mountpoint,
		    r->from_pid, r->from_version);
		return;
	}
	log_info("%s: took over from pid %d (%s): requests stood still for %llu.%03llu ms, "
		 "%u held back",
	    d->args.mountpoint, r->from_pid, r->from_version,
	    (unsigned long long)(r->pause_ns / NS_PER_MS),
	    (unsigned long long)(r->pause_ns % NS_PER_MS / NS_PER_US), r->held);
}

/* --- our own surroundings */

/* Started by the old daemon we spoke into its pipe; now we have a life of our own. */
static void restore_stdio(void)
{
	const char *text = getenv("BATONFS_STDERR_FD");
	uint64_t fd;

	if (text != NULL && units_parse_u64(text, &fd) == 0 && fd > STDERR_FILENO && fd < 1024 &&
	    fcntl((int)fd, F_GETFD) >= 0) {
		dup2((int)fd, STDOUT_FILENO);
		dup2((int)fd, STDERR_FILENO);
		close((int)fd);
	}
	unsetenv("BATONFS_STDERR_FD");
}

static int offer_connect(struct offer *o, struct errtext *et)
{
	struct daemon *d = o->d;
	int err;

	o->sock = sock_connect(d->takeover_path, SOCK_SEQPACKET);
	/* No failure for who would also mount afresh: without words. */
	if (o->sock == -ENOENT || o->sock == -ECONNREFUSED)
		return -ENOENT;
	if (o->sock < 0)
		return errtext_set(
		    et, o->sock, "connect to %s: %s", d->takeover_path, strerror(-o->sock));
	err = sock_check_peer(o->sock, NULL, NULL);
	if (err != 0)
		return errtext_set(
		    et, err, "%s: belongs to neither root nor this user", d->takeover_path);
	return 0;
}

/* A daemon that is only starting answers when it serves, but it may have to wait for its
 * storage first.  Ours started us: it is there, or hangs. */
static uint64_t state_limit(const struct daemon *d)
{
	uint64_t storage = d->cfg->ufs_timeout * MAX(d->nufs, 1u);

	return getenv("BATONFS_STDERR_FD") != NULL ? ANSWER_LIMIT : 2 * ANSWER_LIMIT + storage;
}

static int offer_agree(struct offer *o, struct errtext *et)
{
	int err = FAULT("takeover.new.hello");

	if (err != 0)
		return errtext_set(et, err, "fault point takeover.new.hello: %s", strerror(-err));
	err = offer_hello(o, et);
	if (err == 0)
		err = offer_expect(o, MSG_STATE, "STATE", state_limit(o->d), et);
	if (err != 0)
		return err;
	o->answered = true;
	err = FAULT("takeover.new.state");
	if (err != 0)
		errtext_set(et, err, "fault point takeover.new.state: %s", strerror(-err));
	else
		err = offer_state(o, et);
	if (err == 0 && !o->ask)
		err = offer_adopt(o, et);
	else if (err == 0 && o->d->args.takeover == TAKEOVER_CHECK)
		err = offer_try_init(o, et);
	return err == 0 ? 0 : offer_give_up(o, err, et->s);
}

/* The daemon that said that it is ending: 0 when it has ended. */
static int offer_outwait(struct offer *o, struct errtext *et)
{
	struct pollfd p = {.fd = o->fds[REC_FD_PROCESS], .events = POLLIN};
	uint64_t end = monotonic_now() + o->window, now;
	int n = 0;

	/* Older daemons do not pass it. */
	if (p.fd < 0)
		return errtext_set(et, -EBUSY, "%s: the daemon before is ending; try again",
		    o->d->args.mountpoint);
	log_info("%s: the daemon before is ending: waiting for it", o->d->args.mountpoint);
	while (n == 0 && (now = monotonic_now()) < end) {
		n = poll(&p, 1, (int)MIN((end - now) / NS_PER_MS + 1, (uint64_t)INT_MAX));
		if (n < 0 && errno == EINTR)
			n = 0;
	}
	if (n > 0)
		return 0;
	return errtext_set(et, n < 0 ? -errno : -ETIMEDOUT,
	    "%s: the daemon before did not end within %llu s: it stores what was written, or "
	    "waits for a disk that does not answer (its log says which)",
	    o->d->args.mountpoint, (unsigned long long)(o->window / NS_PER_S));
}

/* Up to STATE.  -EAGAIN: who was asked has ended since, after we waited for it (then
 * *outwaited); look again. */
static int offer_ask(struct offer *o, bool patient, bool *outwaited, struct errtext *et)
{
	int err = offer_connect(o, et);

	*outwaited = false;
	if (err == 0)
		err = offer_agree(o, et);
	if (o->answered || !patient)
		return err == -EPIPE ? -ECONNREFUSED : err;
	if (err != -ESHUTDOWN)
		return err == -EPIPE ? -EAGAIN : err;
	err = offer_outwait(o, et);
	*outwaited = err == 0;
	return err == 0 ? -EAGAIN : err;
}

static int offer_take(struct offer *o, struct errtext *et)
{
	struct daemon *d = o->d;
	int err;

	err = offer_ready(o, et);
	if (err != 0)
		return offer_give_up(o, err, et->s);
	err = offer_commit(o, et);
	if (err == 0)
		err = offer_claim(o, et);
	if (err != 0)
		return offer_give_up(o, err, et->s);
	offer_serve(o);
	restore_stdio();
	offer_log(o);
	args_forget_takeover(&d->args);
	if (!o->dead) {
		link_start(d, o->sock, o->process);
		o->sock = o->process = -1;
	}
	return 0;
}

static void offer_init(struct offer *o, struct daemon *d, bool ask)
{
	int i;

	memset(o, 0, sizeof(*o));
	o->d = d;
	o->ask = ask;
	o->sock = o->process = -1;
	STAILQ_INIT(&o->held);
	for (i = 0; i < REC_FD_KINDS; i++)
		o->fds[i] = -1;
}

static void offer_fini(struct offer *o)
{
	held_free(&o->held);
	rec_close_fds(o->fds);
	if (o->process >= 0)
		close(o->process);
	if (o->sock >= 0)
		close(o->sock);
}

/* Asks until somebody answers who lives, or nobody is there (-ENOENT). */
static int offer_find(struct offer *o, bool ask, bool patient, struct errtext *et)
{
	const struct timespec pause = {.tv_nsec = RETRY_PAUSE};
	uint64_t end = monotonic_now() + RETRY_LIMIT;
	struct daemon *d = o->d;
	bool outwaited;
	int err;

	for (;;) {
		err = offer_ask(o, patient, &outwaited, et);
		if (outwaited)
			end = monotonic_now() + RETRY_LIMIT;
		if (err != -EAGAIN || o->answered || monotonic_now() >= end)
			return err == -EAGAIN ? -ECONNREFUSED : err;
		/* What takes connections only to drop them shall not keep us busy. */
		if (!outwaited)
			nanosleep(&pause, NULL);
		offer_fini(o);
		offer_init(o, d, ask);
	}
}

int takeover_begin(struct daemon *d, struct errtext *et)
{
	struct offer *o = malloc(sizeof(*o));
	int err;

	CHECK_OBJ(d, DAEMON_MAGIC);
	if (o == NULL)
		return errtext_set(et, -ENOMEM, "take over: %s", strerror(ENOMEM));
	offer_init(o, d, d->args.takeover == TAKEOVER_CHECK);
	err = offer_find(o, o->ask, d->args.takeover == TAKEOVER_AUTO, et);
	if (err == 0 && !o->ask)
		err = offer_take(o, et);
	offer_fini(o);
	free(o);
	return err;
}

int takeover_outwait(struct daemon *d, struct errtext *et)
{
	struct offer *o = malloc(sizeof(*o));
	int err;

	CHECK_OBJ(d, DAEMON_MAGIC);
	if (o == NULL)
		return errtext_set(et, -ENOMEM, "look for another daemon: %s", strerror(ENOMEM));
	offer_init(o, d, true);
	err = offer_find(o, true, true, et);
	if (err == 0 || err == -ECONNREFUSED)
		err = errtext_set(
		    et, -EBUSY, "%s: busy: another daemon serves it", d->args.mountpoint);
	offer_fini(o);
	free(o);
	return err == -ENOENT ? 0 : err;
}
