/* SPDX-License-Identifier: BSD-2-Clause */
/* Hand-over, old side: who may take over, and what it is offered. */
#include "config.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/units.h"
#include "cache/cache.h"
#include "ctl/ctl.h"
#include "daemon.h"
#include "ops/counts.h"
#include "reactor/fuse_chan.h"
#include "takeover/link.h"
#include "takeover/server_priv.h"

/* --- HELLO */

static bool hello_same_cache(struct handoff *s)
{
	struct daemon *d = s->ts->d;
	int fd = s->fds[REC_FD_CACHE_DIR];

	if (d->cfg->page_store_dir[0] == '\0')
		return fd < 0;
	return fd >= 0 && cache_same_dir(d->cache, fd);
}

/* Then the databases could not be closed, with all requests waiting. */
static bool cache_hangs(const struct handoff *s)
{
	struct cache_status st;

	cache_status(s->ts->d->cache, &st);
	return st.health == CACHE_SLOW;
}

/* A mount that is only read can go back to a daemon that knows nothing else. */
static uint64_t offer_needs(const struct daemon *d)
{
	return d->staging != NULL ? REC_CAPS_OURS : REC_CAPS_OF_OLD;
}

bool handoff_hello_ok(struct handoff *s)
{
	struct daemon *d = s->ts->d;
	char keeper[IDENTITY_MAX], theirs[IDENTITY_MAX];
	char dirs[DAEMON_WRITE_DIRS_MAX], their_dirs[DAEMON_WRITE_DIRS_MAX];
	uint64_t caps = 0, needs = 0, flags = 0, digest = 0, required = offer_needs(d);

	rec_get_u64(&s->in, REC_CAPS, &caps);
	rec_get_u64(&s->in, REC_NEEDS, &needs);
	rec_get_u64(&s->in, REC_FLAGS, &flags);
	rec_get_text(&s->in, REC_BUILD, s->build, sizeof(s->build));
	rec_get_text(&s->in, REC_KEEPER, theirs, sizeof(theirs));
	rec_get_text(&s->in, REC_WRITE_DIRS, their_dirs, sizeof(their_dirs));
	daemon_write_dirs(d, dirs, sizeof(dirs));
	identity_keeper(keeper, sizeof(keeper));
	s->check_only = (flags & REC_FLAG_CHECK_ONLY) != 0;
	s->has_keeper = theirs[0] != '\0';
	s->same_keeper = s->has_keeper && strcmp(keeper, theirs) == 0;
	if (server_ending(s->ts))
		handoff_say(s, "this daemon is ending");
	else if ((needs & ~REC_CAPS_OURS) != 0)
		handoff_say(s,
		    "the new daemon (%s) needs what this one (%s) cannot do "
		    "(capabilities %#llx)",
		    s->build, PACKAGE_VERSION, (unsigned long long)(needs & ~REC_CAPS_OURS));
	else if ((required & ~caps) != 0)
		handoff_say(s,
		    "the new daemon (%s) cannot do what this one (%s) needs "
		    "(capabilities %#llx)",
		    s->build, PACKAGE_VERSION, (unsigned long long)(required & ~caps));
	else if (rec_get_u64(&s->in, REC_NAMESPACE, &digest) != 0 ||
		 digest != fs_namespace_digest(d->fs))
		handoff_say(s, "the new daemon was started with other storage (--ufs) than the "
			       "running one: unmount instead");
	else if (!hello_same_cache(s))
		handoff_say(s,
		    "worker.page.store.dir is not the directory of the running daemon "
		    "(%s): unmount instead, or keep it",
		    d->cfg->page_store_dir[0] != '\0' ? d->cfg->page_store_dir : "none");
	else if (cache_hangs(s))
		handoff_say(s,
		    "the disk of the page store (%s) does not answer, so nobody could take it "
		    "over: try again when `batonfs status` shows it as ok",
		    d->cfg->page_store_dir);
	else if (strcmp(dirs, their_dirs) != 0)
		handoff_say(s, "write.staging.dir or meta.dir, or -o ro, are not those of the "
			       "running daemon");
	else if (!s->same_keeper && identity_foreign_to_unit(s->pid))
		handoff_say(s,
		    "the running daemon is a systemd service and pid %d is not part of "
		    "it: use `batonfs upgrade` or `systemctl restart`",
		    (int)s->pid);
	return s->words[0] == '\0';
}

/* --- STATE */

struct fd_list {
	int fd[SOCK_MAX_FDS];
	unsigned char kind[SOCK_MAX_FDS];
	int n;
};

static void fd_list_add(struct fd_list *l, enum rec_fd kind, int fd)
{
	if (fd < 0)
		return;
	l->fd[l->n] = fd;
	l->kind[l->n++] = (unsigned char)kind;
}

static void state_records(struct handoff *s)
{
	struct daemon *d = s->ts->d;
	const struct fuse_chan_init *init = fuse_chan_init_record(d->chan);
	char keeper[IDENTITY_MAX];

	identity_keeper(keeper, sizeof(keeper));
	rec_begin(&s->out, MSG_STATE);
	rec_put_u64(&s->out, REC_CAPS, REC_CAPS_OURS);
	rec_put_u64(&s->out, REC_NEEDS, offer_needs(d));
	rec_put_text(&s->out, REC_BUILD, PACKAGE_VERSION);
	rec_put_u64(&s->out, REC_PID, (uint64_t)getpid());
	rec_put_u64(&s->out, REC_FLAGS, d->kept ? REC_FLAG_KEPT : 0);
	rec_put_text(&s->out, REC_KEEPER, keeper);
	rec_put(&s->out, REC_INIT_REQUEST, init->req, init->req_len);
	rec_put(&s->out, REC_INIT_REPLY, init->reply, init->reply_len);
	rec_put_u64(&s->out, REC_MOUNT_ID, d->mount_id);
	rec_put_u64(&s->out, REC_EPOCH, d->epoch.mine);
	rec_put_u64(&s->out, REC_WINDOW,
	    d->cfg->migration_grace_period + HANDOFF_DONE_LIMIT +
		(d->link != NULL ? link_limit(d->cfg) : 0));
}

int handoff_send_state(struct handoff *s)
{
	struct daemon *d = s->ts->d;
	struct fd_list l = {.n = 0};
	int pidfd, err;

	state_records(s);
	if (s->check_only)
		return handoff_send(s, NULL, 0);
	fd_list_add(&l, REC_FD_FUSE, fuse_chan_fd(d->chan));
	fd_list_add(&l, REC_FD_EPOCH, d->epoch.fd);
	fd_list_add(&l, REC_FD_COUNTS, counts_fd(d->counts));
	fd_list_add(&l, REC_FD_LOCK, cache_lock_fd(d->cache));
	fd_list_add(&l, REC_FD_STATE_DIR, d->state_fd);
	fd_list_add(&l, REC_FD_INIT, d->init_fd);
	fd_list_add(&l, REC_FD_TAKEOVER, s->ts->listen_fd);
	if (d->ctl != NULL)
		fd_list_add(&l, REC_FD_CONTROL, ctl_listen_fd(d->ctl));
	pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	fd_list_add(&l, REC_FD_PROCESS, pidfd);
	rec_put(&s->out, REC_FDS, l.kind, (size_t)l.n);
	err = handoff_send(s, l.fd, l.n);
	if (pidfd >= 0)
		close(pidfd);
	return err;
}
