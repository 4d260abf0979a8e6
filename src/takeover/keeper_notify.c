/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/argv.h"
#include "base/errtext.h"
#include "base/log.h"
#include "base/obj.h"
#include "reactor/notify.h"
#include "takeover/keeper_msg.h"
#include "takeover/keeper_priv.h"

#define KEEPER_MSG_FDS 16
#define NOTIFY_NAME "notify"

/* --- what is done about it */

static void hear_fds(struct keeper *k, const struct keeper_msg *m, int *fds, int nfds)
{
	const char *name = m->fdname != NULL ? m->fdname : "stored";
	int i, err;

	for (i = 0; i < nfds; i++) {
		if (m->waiter && k->nwaiters < KEEPER_WAITERS) {
			k->waiters[k->nwaiters++] = fds[i];
			continue;
		}
		if (!m->fdstore) {
			close(fds[i]);
			continue;
		}
		err = store_add(&k->store, name, fds[i]);
		if (err != 0)
			log_error("store descriptor %s: %s", name, strerror(-err));
	}
	if (m->fdremove && m->fdname != NULL)
		store_remove(&k->store, m->fdname);
}

static void hear_argv(struct keeper *k, const char *text)
{
	char **argv = argv_decode(text);

	if (argv == NULL || argv[0] == NULL) {
		log_error("the daemon sent a command line that is damaged; keeping the old one");
		argv_free(&argv);
		return;
	}
	argv_free(&k->argv);
	k->argv = argv;
}

static void hear_mainpid(struct keeper *k, pid_t pid)
{
	int err;

	if (pid == k->pid)
		return;
	log_info("the daemon is now pid %d (was %d)", (int)pid, (int)k->pid);
	timer_cancel(&k->restart_timer);
	k->stopping = false;
	err = keeper_watch(k, pid);
	/* Dead and reaped before we could look: keeper_reap() sees that nobody is watched. */
	if (err != 0)
		log_warn("watch pid %d: %s", (int)pid, strerror(-err));
}

static void hear(struct keeper *k, char *text, pid_t from, int *fds, int nfds)
{
	struct keeper_msg m;

	keeper_msg_parse(&m, text);
	hear_fds(k, &m, fds, nfds);
	if (m.mainpid != 0)
		hear_mainpid(k, m.mainpid);
	if (m.argv != NULL)
		hear_argv(k, m.argv);
	if (m.limit != NULL && restart_set_limit(&k->restart, m.limit) != 0)
		log_error("keeper.restart.limit = %s: must be like \"5 in 1min\", with at most %u",
		    m.limit, RESTART_LIMIT_MAX);
	/* An old daemon that finishes its reads is not the one we watch. */
	if (m.stopping && from == k->pid)
		k->stopping = true;
	if (m.handed_over && from == k->pid)
		k->handed_over = true;
	if ((m.watchdog || m.ready) && from == k->pid && k->watchdog_ns != 0)
		timer_arm(&k->watchdog, k->watchdog_ns);
	if (m.ready && from == k->pid)
		k->up = true;
	if (m.ready && !k->ready) {
		k->ready = true;
		keeper_tell_ready(k, 0);
		notify_send("READY=1", NULL, 0);
	}
	if (m.ready && k->quitting)
		keeper_quit(k);
	if (m.status != NULL)
		log_debug("the daemon: %s", m.status);
}

/* --- the socket */

union hear_control {
	struct cmsghdr align;
	char space[CMSG_SPACE(KEEPER_MSG_FDS * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
};

static int hear_control(struct msghdr *mh, int *fds, struct ucred *who)
{
	struct cmsghdr *c;
	int nfds = 0;

	for (c = CMSG_FIRSTHDR(mh); c != NULL; c = CMSG_NXTHDR(mh, c)) {
		size_t len = c->cmsg_len - CMSG_LEN(0);

		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_RIGHTS && len <= KEEPER_MSG_FDS * sizeof(int)) {
			memcpy(fds, CMSG_DATA(c), len);
			nfds = (int)(len / sizeof(int));
		} else if (c->cmsg_type == SCM_CREDENTIALS && len == sizeof(*who))
			memcpy(who, CMSG_DATA(c), sizeof(*who));
	}
	return nfds;
}

/* One datagram; false if there was none. */
static bool hear_one(struct keeper *k)
{
	struct iovec iov = {.iov_base = k->msg, .iov_len = sizeof(k->msg) - 1};
	struct ucred who = {.pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1};
	union hear_control control;
	struct msghdr mh = {.msg_iov = &iov,
	    .msg_iovlen = 1,
	    .msg_control = &control,
	    .msg_controllen = sizeof(control)};
	int fds[KEEPER_MSG_FDS], nfds;
	ssize_t n = recvmsg(k->sock, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0)
		return errno == EINTR;
	nfds = hear_control(&mh, fds, &who);
	if ((who.uid != 0 && who.uid != geteuid()) ||
	    (mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
		log_warn("ignored a notification of pid %d, user %d: %s", (int)who.pid,
		    (int)who.uid,
		    (mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 ? "too long" : "not ours");
		while (nfds > 0)
			close(fds[--nfds]);
		return true;
	}
	k->msg[n] = '\0';
	hear(k, k->msg, who.pid, fds, nfds);
	return true;
}

void keeper_hear(struct keeper *k)
{
	while (hear_one(k))
		;
}

static void keeper_heard(struct loop_fd *lf, unsigned what)
{
	(void)what;
	keeper_reap(container_of(lf, struct keeper, sock_lf));
}

/* Whoever could rename our directory would be sent the mount's descriptors. */
static bool is_safe(const char *root)
{
	struct stat st;

	return stat(root, &st) == 0 && (st.st_uid == geteuid() || st.st_uid == 0) &&
	       ((st.st_mode & 022) == 0 || (st.st_mode & S_ISVTX) != 0);
}

/* NULL, or why not. */
static const char *make_dir_in(struct keeper *k, const char *root)
{
	int n = snprintf(k->dir, sizeof(k->dir), "%s/batonfs-keeper.XXXXXX", root);
	const char *why = NULL;

	if (n < 0 || (size_t)n + sizeof("/" NOTIFY_NAME) > sizeof(k->path))
		why = strerror(ENAMETOOLONG);
	else if (!is_safe(root))
		why = "not there, or others can write to it";
	else if (mkdtemp(k->dir) == NULL)
		why = strerror(errno);
	if (why != NULL)
		k->dir[0] = '\0';
	return why;
}

/* A directory of mode 0700 of our own: nobody else reaches the socket. */
static int make_dir(struct keeper *k, struct errtext *et)
{
	/* An ordinary user's own, who cannot write to /run, comes before what all share. */
	const char *const roots[] = {"/run", getenv("XDG_RUNTIME_DIR"), "/dev/shm"};
	char all[ARRAY_LEN(roots) * 192] = "";
	const char *why;
	size_t n = 0;
	unsigned i;

	for (i = 0; i < ARRAY_LEN(roots); i++) {
		if (roots[i] == NULL || roots[i][0] != '/')
			continue;
		why = make_dir_in(k, roots[i]);
		if (why == NULL)
			return 0;
		n += (size_t)snprintf(
		    all + n, sizeof(all) - n, "%s%.100s: %.80s", n > 0 ? "; " : "", roots[i], why);
	}
	return errtext_set(et, -EACCES,
	    "no directory for the notification socket (%s): set XDG_RUNTIME_DIR to one on a tmpfs "
	    "that nobody else can write to",
	    all);
}

int keeper_listen(struct keeper *k, struct errtext *et)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int on = 1, err;

	err = make_dir(k, et);
	if (err != 0)
		return err;
	memcpy(k->path, k->dir, strlen(k->dir));
	memcpy(k->path + strlen(k->dir), "/" NOTIFY_NAME, sizeof("/" NOTIFY_NAME));
	memcpy(sun.sun_path, k->path, strlen(k->path));
	k->sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (k->sock < 0 || bind(k->sock, (struct sockaddr *)&sun, sizeof(sun)) != 0 ||
	    setsockopt(k->sock, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) != 0)
		return errtext_set(et, -errno, "%s: %s", k->path, strerror(errno));
	err = loop_fd_init(&k->sock_lf, k->loop, k->sock, keeper_heard);
	if (err == 0)
		err = loop_fd_want(&k->sock_lf, LOOP_READ);
	return err == 0 ? 0 : errtext_set(et, err, "%s: %s", k->path, strerror(-err));
}

void keeper_unlisten(struct keeper *k)
{
	if (k->sock_lf.loop != NULL)
		loop_fd_fini(&k->sock_lf);
	if (k->sock >= 0)
		close(k->sock);
	k->sock = -1;
	if (k->path[0] != '\0')
		unlink(k->path);
	if (k->dir[0] != '\0')
		rmdir(k->dir);
}
