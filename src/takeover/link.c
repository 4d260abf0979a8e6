/* SPDX-License-Identifier: BSD-2-Clause */
#include "takeover/link.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/obj.h"
#include "base/units.h"
#include "daemon.h"
#include "reactor/fuse_chan.h"
#include "reactor/sock.h"
#include "takeover/held.h"
#include "takeover/records.h"
#include "takeover/server.h"

/* What an old daemon gets beyond its own time limits. */
#define LINK_MARGIN (5 * NS_PER_S)

struct takeover_link {
	struct daemon *d;
	int sock, process;
	struct loop_fd lf;
	struct timer limit;
	struct rec_in in;
	unsigned char buf[REC_MSG_MAX];
};

uint64_t link_limit(const struct config *cfg)
{
	return cfg->migration_slow_read_timeout + cfg->migration_grace_period + LINK_MARGIN;
}

static void link_close(struct takeover_link *l)
{
	struct daemon *d = l->d;

	tally_save(&d->tally, d->db, loop_counters(d->loop)->v[CTR_FUSE_RESENT]);
	d->link = NULL;
	timer_cancel(&l->limit);
	if (l->lf.loop != NULL)
		loop_fd_fini(&l->lf);
	close(l->sock);
	if (l->process >= 0)
		close(l->process);
	free(l);
	if (d->takeover != NULL)
		takeover_server_link_ended(d->takeover);
}

/* Whatever the old daemon had not answered is unanswered for ever, unless the kernel
 * sends it again; that it sends our own requests again too does no harm. */
static void link_broken(struct takeover_link *l, const char *why)
{
	struct daemon *d = l->d;
	int err = fuse_chan_resend(d->chan);

	if (err == 0)
		log_warn("%s: the old daemon %s: its running reads are repeated here",
		    d->args.mountpoint, why);
	else
		daemon_warn(d,
		    "the old daemon %s and its running reads cannot be repeated (%s): "
		    "their callers wait until this mount ends",
		    why, strerror(-err));
	link_close(l);
}

static int link_result(struct takeover_link *l, int fd)
{
	struct held_list list = STAILQ_HEAD_INITIALIZER(list);
	struct held_req *r;
	uint32_t count;
	int err;

	if (fd < 0)
		return -EBADMSG;
	err = held_decode(fd, &list, &count);
	if (err != 0)
		return err;
	l->d->report.resumed += count;
	l->d->tally.resumed += count;
	while ((r = STAILQ_FIRST(&list)) != NULL) {
		STAILQ_REMOVE_HEAD(&list, link);
		fuse_chan_feed(l->d->chan, r->raw, r->len);
		free(r);
	}
	return 0;
}

static void link_message(struct takeover_link *l, size_t len, const int *fds, int nfds)
{
	int sorted[REC_FD_KINDS], err;

	err = rec_parse(&l->in, l->buf, len);
	if (err != 0) {
		while (nfds > 0)
			close(fds[--nfds]);
		link_broken(l, "sent a message that is damaged");
		return;
	}
	err = rec_sort_fds(&l->in, fds, nfds, sorted);
	if (err == 0 && l->in.type == MSG_RESULT)
		err = link_result(l, sorted[REC_FD_HELD]);
	rec_close_fds(sorted);
	if (err != 0)
		link_broken(l, "sent a result that is damaged");
	else if (l->in.type == MSG_END) {
		rec_get_u64(&l->in, REC_ABORTED, &l->d->report.aborted);
		l->d->tally.aborted += l->d->report.aborted;
		log_info("%s: the old daemon has ended; %u running reads were passed on",
		    l->d->args.mountpoint, l->d->report.resumed);
		link_close(l);
	}
}

static void link_event(struct loop_fd *lf, unsigned what)
{
	struct takeover_link *l = container_of(lf, struct takeover_link, lf);
	int fds[SOCK_MAX_FDS], nfds = 0;
	ssize_t n;

	(void)what;
	n = sock_recv(l->sock, l->buf, sizeof(l->buf), fds, &nfds);
	if (n == -ECONNRESET)
		n = sock_recv(l->sock, l->buf, sizeof(l->buf), fds, &nfds);
	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0)
		link_broken(l, "ended early");
	else
		link_message(l, (size_t)n, fds, nfds);
}

static int link_kill(const struct takeover_link *l)
{
	int err = FAULT("takeover.link.kill");

	if (err != 0 || l->process < 0)
		return err != 0 ? err : -ESRCH;
	return syscall(SYS_pidfd_send_signal, l->process, SIGKILL, NULL, 0) == 0 ? 0 : -errno;
}

/* Frozen, it would keep its reads, whose callers wait, and what it holds of the mount: the
 * lock of the page store, and the descriptor whose last copy must go for callers to get an
 * error when all daemons are dead.  Nobody else would end it: the keeper looks after us now.
 * One that cannot be killed from here (in another pid namespace) finds its reads taken when
 * it goes on: the kernel takes no second answer. */
static void link_expired(struct timer *t)
{
	struct takeover_link *l = container_of(t, struct takeover_link, limit);

	link_broken(l, link_kill(l) == 0 ? "hangs and was killed"
					 : "hangs and cannot be killed from here (end it by hand)");
}

void link_start(struct daemon *d, int sock, int process)
{
	struct takeover_link *l = calloc(1, sizeof(*l));

	assert(d->link == NULL);
	if (l == NULL) {
		close(sock);
		if (process >= 0)
			close(process);
		log_error("%s: watch the old daemon: %s", d->args.mountpoint, strerror(ENOMEM));
		fuse_chan_resend(d->chan);
		return;
	}
	l->d = d;
	l->sock = sock;
	l->process = process;
	d->link = l;
	timer_init(&l->limit, d->loop, link_expired);
	if (loop_fd_init(&l->lf, d->loop, sock, link_event) != 0) {
		l->lf.loop = NULL;
		link_broken(l, "cannot be watched");
	} else if (loop_fd_want(&l->lf, LOOP_READ) != 0)
		link_broken(l, "cannot be watched");
	else
		timer_arm(&l->limit, link_limit(d->cfg));
}

void link_stop(struct daemon *d)
{
	if (d->link != NULL)
		link_close(d->link);
}
