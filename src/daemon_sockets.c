/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The sockets in the run directory, which say that a mount point has a daemon: the
 * first thing that a fresh mount makes and the last that an ended one removes.  Who
 * starts in between finds the daemon that begins or ends, and waits for it.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/obj.h"
#include "base/units.h"
#include "ctl/ctl.h"
#include "daemon.h"
#include "reactor/notify.h"
#include "reactor/sock.h"
#include "takeover/server.h"

/* What the end may take beyond the limits of its parts. */
#define END_MARGIN (15 * NS_PER_S)

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* --- the beginning */

int daemon_bind_takeover(struct daemon *d, struct errtext *et)
{
	int fd;

	if (!d->cfg->migration_enabled)
		return 0;
	fd = sock_listen(d->takeover_path, SOCK_SEQPACKET, et);
	if (fd < 0)
		return fd;
	d->adopt_takeover_fd = fd;
	d->bound_takeover = true;
	return 0;
}

int daemon_bind_control(struct daemon *d, struct errtext *et)
{
	int fd = sock_listen(d->control_path, SOCK_STREAM, et);

	if (fd < 0)
		return errtext_prefix(et, fd, "control socket");
	d->adopt_ctl_fd = fd;
	d->bound_control = true;
	return 0;
}

void daemon_unbind(struct daemon *d)
{
	if (!d->bound_control && !d->bound_takeover)
		return;
	if (d->bound_control)
		unlink(d->control_path);
	/* The last: as long as it is there, nobody mounts anew. */
	if (d->bound_takeover)
		unlink(d->takeover_path);
	d->bound_control = d->bound_takeover = false;
	rmdir(d->run_dir);
}

/* Nobody may take over, and nobody is to go on after us: what came from a daemon that
 * allowed it is given up. */
static void refuse_migration(struct daemon *d)
{
	if (d->adopt_takeover_fd >= 0) {
		close_fd(&d->adopt_takeover_fd);
		unlink(d->takeover_path);
	}
	if (d->kept)
		daemon_unstore_fds();
	d->kept = false;
}

static int serve_takeover(struct daemon *d, struct errtext *et)
{
	int fd = d->adopt_takeover_fd, err;

	if (fd < 0)
		return takeover_server_new(&d->takeover, d, et);
	d->adopt_takeover_fd = -1;
	err = takeover_server_adopt(&d->takeover, d, fd);
	return err == 0 ? 0
			: errtext_set(et, err, "adopt the takeover socket: %s", strerror(-err));
}

int daemon_serve_sockets(struct daemon *d, struct errtext *et)
{
	int fd = d->adopt_ctl_fd, err;

	/* From here on it depends on how we end. */
	d->bound_control = d->bound_takeover = false;
	d->adopt_ctl_fd = -1;
	if (fd >= 0) {
		err = ctl_adopt(&d->ctl, d, fd);
		if (err != 0)
			errtext_set(et, err, "adopt the control socket: %s", strerror(-err));
	} else
		err = ctl_new(&d->ctl, d, et);
	if (!d->cfg->migration_enabled)
		refuse_migration(d);
	else if (err == 0)
		err = serve_takeover(d, et);
	return err;
}

/* --- the end */

uint64_t daemon_end_limit(const struct config *cfg)
{
	return cfg->write_drain_timeout + cfg->meta_timeout + cfg->migration_grace_period +
	       END_MARGIN;
}

bool daemon_mount_gone(const struct daemon *d)
{
	return d->chan != NULL && fuse_chan_fd_gone(fuse_chan_fd(d->chan));
}

void daemon_keep_waiter(struct daemon *d, int fd)
{
	int copy = -1;

	if (d->nwaiters < DAEMON_MAX_WAITERS)
		copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (copy < 0)
		return;
	d->waiters[d->nwaiters++] = copy;
	/* systemd has no use for it and lets it go. */
	notify_send("X_BATONFS_WAITER=1\n", &copy, 1);
}

void daemon_tell_waiters(struct daemon *d, const char *what)
{
	char line[256];
	int len = snprintf(line, sizeof(line), "{\"progress\":{\"message\":\"%s\"}}\n", what);

	/* Who does not read it does not hold us up. */
	for (unsigned i = 0; i < d->nwaiters; i++)
		(void)!send(d->waiters[i], line, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void daemon_keep_gate(struct daemon *d)
{
	int fd = d->takeover != NULL ? takeover_server_fd(d->takeover)
		 : d->ctl != NULL   ? ctl_listen_fd(d->ctl)
				    : -1;

	if (fd >= 0)
		d->gate_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	d->bound_control = d->bound_takeover = true;
}

void daemon_close_sockets(struct daemon *d)
{
	close_fd(&d->adopt_ctl_fd);
	close_fd(&d->adopt_takeover_fd);
	daemon_unbind(d);
}
