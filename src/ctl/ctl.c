/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl/ctl.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/obj.h"
#include "base/units.h"
#include "ctl/ctl_priv.h"
#include "daemon.h"
#include "reactor/sock.h"

/* Connections taken in one wake, so that other work gets its turn. */
#define ACCEPT_BATCH 16
#define ACCEPT_RETRY_NS NS_PER_S

static void ctl_take(struct ctl *c, int fd)
{
	pid_t pid;
	uid_t uid;
	int rc;

	rc = sock_check_peer(fd, &pid, &uid);
	if (rc != 0) {
		log_warn("control socket: refused process %d of user %u", (int)pid, (unsigned)uid);
		close(fd);
		return;
	}
	rc = ctl_conn_new(c, fd);
	if (rc != 0)
		log_warn("control socket: connection: %s", strerror(-rc));
}

static void ctl_on_accept(struct loop_fd *lf, unsigned what)
{
	struct ctl *c = container_of(lf, struct ctl, watch);

	(void)what;
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		int fd = sock_accept(c->listen_fd);

		if (fd >= 0) {
			ctl_take(c, fd);
			continue;
		}
		if (fd == -EAGAIN || fd == -ECONNABORTED || fd == -EINTR)
			return;
		/* Out of descriptors or memory: the socket stays readable, so
		 * look away for a while instead of turning in circles. */
		log_warn("control socket: accept: %s", strerror(-fd));
		loop_fd_want(&c->watch, 0);
		timer_arm(&c->retry, ACCEPT_RETRY_NS);
		return;
	}
}

static void ctl_on_retry(struct timer *t)
{
	struct ctl *c = container_of(t, struct ctl, retry);
	int rc;

	if (c->paused)
		return;
	rc = loop_fd_want(&c->watch, LOOP_READ);
	if (rc != 0)
		timer_arm(&c->retry, ACCEPT_RETRY_NS);
}

int ctl_adopt(struct ctl **out, struct daemon *d, int listen_fd)
{
	struct ctl *c;
	int rc;

	*out = NULL;
	ALLOC_OBJ(c, CTL_MAGIC);
	if (c == NULL) {
		close(listen_fd);
		return -ENOMEM;
	}
	c->d = d;
	c->loop = d->loop;
	c->commands = ctl_commands;
	c->listen_fd = listen_fd;
	TAILQ_INIT(&c->conns);
	TAILQ_INIT(&c->cmds);
	timer_init(&c->retry, c->loop, ctl_on_retry);
	rc = loop_fd_init(&c->watch, c->loop, listen_fd, ctl_on_accept);
	if (rc == 0) {
		c->watched = true;
		rc = loop_fd_want(&c->watch, LOOP_READ);
	}
	if (rc != 0)
		ctl_free(&c);
	else
		*out = c;
	return rc;
}

int ctl_new(struct ctl **out, struct daemon *d, struct errtext *et)
{
	int fd, rc;

	*out = NULL;
	fd = sock_listen(d->control_path, SOCK_STREAM, et);
	if (fd < 0)
		return errtext_prefix(et, fd, "control socket");
	rc = ctl_adopt(out, d, fd);
	if (rc != 0)
		errtext_set(et, rc, "control socket %s: %s", d->control_path, strerror(-rc));
	return rc;
}

int ctl_listen_fd(const struct ctl *c)
{
	return c->listen_fd;
}

void ctl_pause(struct ctl *c)
{
	struct ctl_conn *conn, *next;

	CHECK_OBJ(c, CTL_MAGIC);
	c->paused = true;
	timer_cancel(&c->retry);
	loop_fd_want(&c->watch, 0);
	/* Who waits for nothing now shall ask the successor. */
	TAILQ_FOREACH_SAFE(conn, &c->conns, link, next)
		ctl_conn_finish(conn);
}

void ctl_resume(struct ctl *c)
{
	CHECK_OBJ(c, CTL_MAGIC);
	c->paused = false;
	if (loop_fd_want(&c->watch, LOOP_READ) != 0)
		timer_arm(&c->retry, ACCEPT_RETRY_NS);
}

/* Commands that can be given up end soon, the others (an unmount) are waited for
 * and still get their answer out. */
static void ctl_end_commands(struct ctl *c)
{
	struct ctl_cmd *cmd, *next;

	if (c->upgrade != NULL)
		ctl_upgrade_forget(c);
	TAILQ_FOREACH_SAFE(cmd, &c->cmds, link, next)
		if (cmd->cancel != NULL)
			cmd->cancel(cmd);
	while (!TAILQ_EMPTY(&c->cmds))
		loop_turn(c->loop, true);
}

void ctl_free(struct ctl **cp)
{
	struct ctl *c;
	struct ctl_conn *conn;

	TAKE_OBJ(c, cp, CTL_MAGIC);
	c->paused = true;
	timer_cancel(&c->retry);
	if (c->watched)
		loop_fd_fini(&c->watch);
	close(c->listen_fd);
	ctl_end_commands(c);
	while ((conn = TAILQ_FIRST(&c->conns)) != NULL)
		ctl_conn_free(&conn);
	FREE_OBJ(c);
}
