/* SPDX-License-Identifier: BSD-2-Clause */
/* Hand-over, old side: the listening socket and the connection of one successor. */
#include "takeover/server.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/obj.h"
#include "daemon.h"
#include "takeover/claim.h"
#include "takeover/link.h"
#include "takeover/server_priv.h"

/* --- the connection */

void handoff_wake(struct handoff *s)
{
	if (s->task.waiting)
		task_resume(&s->task);
}

void handoff_next_msg(struct handoff *s)
{
	rec_close_fds(s->fds);
	s->have_msg = false;
	if (!s->eof && s->io_err == 0)
		loop_fd_want(&s->lf, LOOP_READ);
}

static void handoff_input(struct handoff *s)
{
	int fds[SOCK_MAX_FDS], nfds = 0, err;
	ssize_t n;

	n = sock_recv(s->sock, s->buf, sizeof(s->buf), fds, &nfds);
	/* The peer closed while something of ours was unread: what it said before
	 * that can still be read. */
	if (n == -ECONNRESET)
		n = sock_recv(s->sock, s->buf, sizeof(s->buf), fds, &nfds);
	if (n == -EAGAIN || n == -EINTR)
		return;
	loop_fd_want(&s->lf, 0);
	if (n == 0 || n == -ECONNRESET || n == -EPIPE) {
		s->eof = true;
	} else if (n < 0) {
		s->io_err = (int)n;
	} else {
		err = rec_parse(&s->in, s->buf, (size_t)n);
		if (err == 0) {
			err = rec_sort_fds(&s->in, fds, nfds, s->fds);
		} else
			while (nfds > 0)
				close(fds[--nfds]);
		if (err == 0)
			s->have_msg = true;
		else
			s->io_err = err;
	}
	handoff_wake(s);
}

static void handoff_event(struct loop_fd *lf, unsigned what)
{
	struct handoff *s = container_of(lf, struct handoff, lf);

	if ((what & LOOP_READ) != 0 && !s->have_msg && !s->eof && s->io_err == 0)
		handoff_input(s);
	if ((what & LOOP_WRITE) != 0) {
		loop_fd_want(&s->lf, s->eof ? 0 : LOOP_READ);
		handoff_wake(s);
	}
}

static void handoff_expired(struct timer *t)
{
	struct handoff *s = container_of(t, struct handoff, timer);

	s->expired = true;
	handoff_wake(s);
}

static void handoff_slow(struct timer *t)
{
	struct handoff *s = container_of(t, struct handoff, slow);

	s->slow_due = true;
	handoff_wake(s);
}

int handoff_send(struct handoff *s, const int *fds, int nfds)
{
	struct iovec iov = {.iov_base = s->out.buf, .iov_len = rec_len(&s->out)};
	ssize_t n;

	if (iov.iov_len == 0)
		return -EMSGSIZE;
	n = sock_send(s->sock, &iov, 1, fds, nfds);
	return n < 0 ? (int)n : 0;
}

void handoff_say(struct handoff *s, const char *fmt, ...)
{
	va_list ap;

	if (s->words[0] != '\0')
		return;
	va_start(ap, fmt);
	vsnprintf(s->words, sizeof(s->words), fmt, ap);
	va_end(ap);
}

void handoff_report_failure(struct handoff *s)
{
	struct daemon *d = s->ts->d;

	COUNT(d->loop, TAKEOVER_FAILED, 1);
	d->tally.failed++;
	d->tally.refused += s->refused;
	d->tally.aborted += s->aborted;
	tally_save(&d->tally, d->db, loop_counters(d->loop)->v[CTR_FUSE_RESENT]);
	snprintf(d->report.failure, sizeof(d->report.failure), "%.255s", s->words);
	d->report.failure_wall_ns = loop_wall(d->loop);
	log_warn("%s: takeover by pid %d failed: %s; this daemon goes on serving",
	    d->args.mountpoint, (int)s->pid, s->words);
}

void handoff_free(struct handoff **sp)
{
	struct handoff *s = *sp;

	*sp = NULL;
	timer_cancel(&s->timer);
	timer_cancel(&s->slow);
	loop_fd_fini(&s->lf);
	rec_close_fds(s->fds);
	close(s->sock);
	s->ts->handoff = NULL;
	free(s);
}

static int handoff_new(struct takeover_server *ts, int sock, pid_t pid)
{
	struct handoff *s = calloc(1, sizeof(*s));
	int i, err;

	if (s == NULL)
		return -ENOMEM;
	s->ts = ts;
	s->sock = sock;
	s->pid = pid;
	STAILQ_INIT(&s->held);
	for (i = 0; i < REC_FD_KINDS; i++)
		s->fds[i] = -1;
	timer_init(&s->timer, ts->d->loop, handoff_expired);
	timer_init(&s->slow, ts->d->loop, handoff_slow);
	err = loop_fd_init(&s->lf, ts->d->loop, sock, handoff_event);
	if (err == 0) {
		err = loop_fd_want(&s->lf, LOOP_READ);
		if (err != 0)
			loop_fd_fini(&s->lf);
	}
	if (err != 0) {
		free(s);
		return err;
	}
	ts->handoff = s;
	handoff_start(s);
	return 0;
}

/* --- the listening socket */

void server_refuse(const struct takeover_server *ts, int sock, int err, const char *words)
{
	unsigned char kind = REC_FD_PROCESS;
	struct rec_out out;
	struct iovec iov;
	int pidfd = -1;

	rec_begin(&out, MSG_REFUSE);
	rec_put_u64(&out, REC_ERRNO, (uint64_t)-err);
	rec_put_text(&out, REC_WORDS, words);
	if (err == -ESHUTDOWN) {
		rec_put_u64(&out, REC_WINDOW, daemon_end_limit(ts->d->cfg));
		pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	}
	if (pidfd >= 0)
		rec_put(&out, REC_FDS, &kind, 1);
	iov = (struct iovec){.iov_base = out.buf, .iov_len = rec_len(&out)};
	sock_send(sock, &iov, 1, &pidfd, pidfd >= 0 ? 1 : 0);
	if (pidfd >= 0)
		close(pidfd);
}

bool server_ending(const struct takeover_server *ts)
{
	return !ts->d->serving || ts->d->ending || daemon_mount_gone(ts->d);
}

static void server_accept(struct loop_fd *lf, unsigned what)
{
	struct takeover_server *ts = container_of(lf, struct takeover_server, lf);
	uid_t uid = (uid_t)-1;
	pid_t pid = 0;
	int sock, err;

	(void)what;
	sock = sock_accept(ts->listen_fd);
	if (sock < 0) {
		if (sock != -EAGAIN && sock != -ECONNABORTED)
			log_warn("%s: accept: %s", ts->d->takeover_path, strerror(-sock));
		return;
	}
	if (sock_check_peer(sock, &pid, &uid) != 0) {
		log_warn(
		    "%s: refused a connection of user %u", ts->d->takeover_path, (unsigned)uid);
		close(sock);
		return;
	}
	if (server_ending(ts))
		server_refuse(ts, sock, -ESHUTDOWN, "this daemon is ending");
	else if (ts->handoff != NULL)
		server_refuse(ts, sock, -EBUSY,
		    "another daemon is taking this mount over at the moment; try again");
	if (server_ending(ts) || ts->handoff != NULL) {
		close(sock);
		return;
	}
	err = handoff_new(ts, sock, pid);
	if (err != 0) {
		log_error("%s: %s", ts->d->takeover_path, strerror(-err));
		close(sock);
	}
}

int takeover_server_adopt(struct takeover_server **out, struct daemon *d, int listen_fd)
{
	struct takeover_server *ts;
	int err;

	*out = NULL;
	ALLOC_OBJ(ts, TAKEOVER_SERVER_MAGIC);
	if (ts == NULL) {
		close(listen_fd);
		return -ENOMEM;
	}
	ts->d = d;
	ts->listen_fd = listen_fd;
	ts->spawn.pidfd = ts->spawn.pipe = -1;
	err = claim_take(&d->epoch);
	if (err == 0)
		err = loop_fd_init(&ts->lf, d->loop, listen_fd, server_accept);
	if (err == 0) {
		ts->listening = true;
		/* Who comes before INIT is answered waits for its turn. */
		err = loop_fd_want(&ts->lf, d->ready ? LOOP_READ : 0);
	}
	if (err != 0) {
		takeover_server_free(&ts);
		return err;
	}
	fs_on_idle(d->fs, server_idle, ts);
	*out = ts;
	return 0;
}

int takeover_server_new(struct takeover_server **out, struct daemon *d, struct errtext *et)
{
	int fd, err;

	*out = NULL;
	fd = sock_listen(d->takeover_path, SOCK_SEQPACKET, et);
	if (fd < 0)
		return fd;
	err = takeover_server_adopt(out, d, fd);
	return err == 0 ? 0
			: errtext_set(
			      et, err, "takeover socket %s: %s", d->takeover_path, strerror(-err));
}

void takeover_server_ready(struct takeover_server *ts)
{
	if (ts->handoff == NULL && loop_fd_want(&ts->lf, LOOP_READ) != 0)
		log_error("%s: cannot be watched: no upgrade will work", ts->d->takeover_path);
}

int takeover_server_fd(const struct takeover_server *ts)
{
	return ts->listen_fd;
}

bool takeover_server_busy(const struct takeover_server *ts)
{
	return ts->handoff != NULL && ts->handoff->offered;
}

void takeover_server_hurry(struct takeover_server *ts)
{
	if (!ts->handoff->stopped)
		timer_arm(&ts->handoff->timer, HANDOFF_DONE_LIMIT);
}

void takeover_server_link_ended(struct takeover_server *ts)
{
	if (ts->handoff != NULL)
		handoff_wake(ts->handoff);
}

void takeover_server_free(struct takeover_server **tsp)
{
	struct takeover_server *ts;

	TAKE_OBJ(ts, tsp, TAKEOVER_SERVER_MAGIC);
	spawn_fini(&ts->spawn);
	link_stop(ts->d);
	if (ts->handoff != NULL)
		task_cancel(&ts->handoff->task, -ECANCELED);
	while (ts->handoff != NULL)
		loop_turn(ts->d->loop, true);
	fs_on_idle(ts->d->fs, NULL, NULL);
	if (ts->listening)
		loop_fd_fini(&ts->lf);
	close(ts->listen_fd);
	FREE_OBJ(ts);
}
