/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One client: lines in, lines out.  Nothing here frees a connection while one of
 * its functions runs: the end is marked and left to the deferred reaper.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/obj.h"
#include "ctl/ctl_priv.h"

#define READ_CHUNK 16384u

static void conn_work(struct deferred *df);

static void conn_kill(struct ctl_conn *conn)
{
	if (conn->dead)
		return;
	conn->dead = true;
	loop_fd_want(&conn->watch, 0);
	loop_defer(conn->ctl->loop, &conn->work, conn_work);
}

static size_t conn_pending(const struct ctl_conn *conn)
{
	return conn->out_len - conn->out_off;
}

/* What to watch follows from the state; a failure to watch ends the connection. */
static void conn_watch(struct ctl_conn *conn)
{
	unsigned want = 0;

	if (conn->dead)
		return;
	if (!conn->eof && !conn->last && conn->in_len < CTL_REQUEST_MAX)
		want |= LOOP_READ;
	if (conn_pending(conn) > 0)
		want |= LOOP_WRITE;
	if (loop_fd_want(&conn->watch, want) != 0)
		conn_kill(conn);
}

static void conn_flush(struct ctl_conn *conn)
{
	while (!conn->dead && conn_pending(conn) > 0) {
		ssize_t n = send(conn->fd, conn->out + conn->out_off, conn_pending(conn),
		    MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			conn_kill(conn);
			return;
		}
		conn->out_off += (size_t)n;
	}
	if (conn->cmd != NULL && conn->cmd->drained != NULL && conn_pending(conn) <= CTL_OUT_LOW)
		conn->cmd->drained(conn->cmd);
	/* Lines may wait that conn_lines() left. */
	if (conn->cmd == NULL && !conn->last && conn->in_len > conn->in_seen &&
	    conn_pending(conn) <= CTL_OUT_LOW)
		loop_defer(conn->ctl->loop, &conn->work, conn_work);
	if (conn_pending(conn) > 0)
		return;
	conn->out_off = conn->out_len = 0;
	if (conn->last && conn->cmd == NULL)
		conn_kill(conn);
}

/* Makes room for `more` bytes at the end of a buffer. */
static int buf_room(char **buf, size_t len, size_t *cap, size_t more)
{
	size_t want = *cap != 0 ? *cap : READ_CHUNK;
	char *p;

	while (want < len + more)
		want *= 2;
	if (want == *cap)
		return 0;
	p = realloc(*buf, want);
	if (p == NULL)
		return -ENOMEM;
	*buf = p;
	*cap = want;
	return 0;
}

static int conn_queue(struct ctl_conn *conn, const char *text, size_t len)
{
	int rc;

	if (conn->out_off > 0) {
		memmove(conn->out, conn->out + conn->out_off, conn_pending(conn));
		conn->out_len -= conn->out_off;
		conn->out_off = 0;
	}
	rc = buf_room(&conn->out, conn->out_len, &conn->out_cap, len + 1);
	if (rc != 0)
		return rc;
	memcpy(conn->out + conn->out_len, text, len);
	conn->out[conn->out_len + len] = '\n';
	conn->out_len += len + 1;
	return 0;
}

/* --- commands */

static struct json_out *frame_begin(const char *what)
{
	struct json_out *o = json_out_new();

	if (o != NULL) {
		json_open_object(o);
		json_key(o, what);
	}
	return o;
}

/* Queues a finished line; a client that cannot be told loses the connection, since
 * silence would make it wait for ever. */
static void conn_send(struct ctl_conn *conn, struct json_out **o)
{
	const char *text;
	size_t len;
	int rc = -ENOMEM;

	if (conn != NULL && !conn->dead) {
		if (*o != NULL) {
			json_close_object(*o);
			rc = json_out_take(*o, &text, &len);
			if (rc == 0)
				rc = conn_queue(conn, text, len);
		}
		if (rc != 0) {
			log_error("control socket: answer: %s", strerror(-rc));
			conn_kill(conn);
		}
	}
	if (*o != NULL)
		json_out_free(o);
}

static void conn_fail(struct ctl_conn *conn, int err, const char *message)
{
	struct json_out *o = frame_begin("error");
	const char *code = strerrorname_np(-err);

	if (o != NULL) {
		json_open_object(o);
		json_add_text(o, "code", code != NULL ? code : "EIO");
		json_add_text(o, "message", message);
		json_close_object(o);
	}
	conn_send(conn, &o);
}

static void cmd_free(struct ctl_cmd **cp)
{
	struct ctl_cmd *cmd;

	TAKE_OBJ(cmd, cp, CTL_CMD_MAGIC);
	TAILQ_REMOVE(&cmd->ctl->cmds, cmd, link);
	json_free(&cmd->rq.tree);
	FREE_OBJ(cmd);
}

/* The answer was queued: sends it as far as it goes, since we may be about to exit,
 * and turns to the next line. */
static void cmd_end(struct ctl_cmd *cmd)
{
	struct ctl_conn *conn = cmd->conn;

	cmd_free(&cmd);
	if (conn == NULL)
		return;
	conn->cmd = NULL;
	if (conn->ctl->paused)
		conn->last = true;
	conn_flush(conn);
	conn_watch(conn);
	loop_defer(conn->ctl->loop, &conn->work, conn_work);
}

struct json_out *ctl_progress_begin(struct ctl_cmd *cmd)
{
	CHECK_OBJ(cmd, CTL_CMD_MAGIC);
	return frame_begin("progress");
}

void ctl_progress_send(struct ctl_cmd *cmd, struct json_out **o)
{
	conn_send(cmd->conn, o);
	if (cmd->conn != NULL)
		conn_watch(cmd->conn);
}

struct json_out *ctl_result_begin(struct ctl_cmd *cmd)
{
	CHECK_OBJ(cmd, CTL_CMD_MAGIC);
	return frame_begin("result");
}

void ctl_result_send(struct ctl_cmd *cmd, struct json_out **o)
{
	conn_send(cmd->conn, o);
	cmd_end(cmd);
}

void ctl_fail(struct ctl_cmd *cmd, int err, const char *fmt, ...)
{
	struct errtext et;
	va_list ap;

	CHECK_OBJ(cmd, CTL_CMD_MAGIC);
	va_start(ap, fmt);
	vsnprintf(et.s, sizeof(et.s), fmt, ap);
	va_end(ap);
	if (cmd->conn != NULL)
		conn_fail(cmd->conn, err, et.s);
	cmd_end(cmd);
}

bool ctl_blocked(const struct ctl_cmd *cmd)
{
	return cmd->conn != NULL && conn_pending(cmd->conn) > CTL_OUT_HIGH;
}

static void conn_run(struct ctl_conn *conn, const char *line, size_t len)
{
	struct ctl_request rq;
	struct ctl_cmd *cmd;
	struct errtext et = {""};
	int rc;

	rc = ctl_request_parse(&rq, conn->ctl->commands, line, len, &et);
	if (rc != 0) {
		conn_fail(conn, rc, et.s);
		return;
	}
	ALLOC_OBJ(cmd, CTL_CMD_MAGIC);
	if (cmd == NULL) {
		json_free(&rq.tree);
		conn_fail(conn, -ENOMEM, "out of memory");
		return;
	}
	cmd->ctl = conn->ctl;
	cmd->d = conn->ctl->d;
	cmd->conn = conn;
	cmd->rq = rq;
	conn->cmd = cmd;
	TAILQ_INSERT_TAIL(&conn->ctl->cmds, cmd, link);
	rq.desc->fn(cmd);
}

/* --- lines in */

static bool is_blank(const char *s, size_t len)
{
	while (len > 0 && (s[len - 1] == ' ' || s[len - 1] == '\t' || s[len - 1] == '\r'))
		len--;
	return len == 0;
}

/* Runs the complete line of the input that begins at *used, and moves *used behind it.
 * False: there is none. */
static bool conn_next(struct ctl_conn *conn, size_t *used)
{
	char *line = conn->in + *used, *nl;
	size_t seen = MAX(conn->in_seen, *used), len;

	if (conn->in_len == seen)
		return false;
	nl = memchr(conn->in + seen, '\n', conn->in_len - seen);
	if (nl == NULL) {
		conn->in_seen = conn->in_len;
		if (conn->in_len - *used >= CTL_REQUEST_MAX) {
			conn_fail(conn, -EMSGSIZE, "the request is longer than 8 MiB");
			conn->last = true;
		}
		return false;
	}
	len = (size_t)(nl - line);
	*used += len + 1;
	if (!is_blank(line, len))
		conn_run(conn, line, len);
	return true;
}

/* Runs what has come, until a command takes its time or the client does not take its
 * answers: they must not pile up.  True: no complete line is left. */
static bool conn_lines(struct ctl_conn *conn)
{
	bool more = true;
	size_t used = 0;

	while (more && !conn->dead && !conn->last && conn->cmd == NULL &&
	       conn_pending(conn) <= CTL_OUT_HIGH)
		more = conn_next(conn, &used);
	if (used > 0) {
		conn->in_len -= used;
		memmove(conn->in, conn->in + used, conn->in_len);
		conn->in_seen = conn->in_seen > used ? conn->in_seen - used : 0;
	}
	return !more;
}

static void conn_work(struct deferred *df)
{
	struct ctl_conn *conn = container_of(df, struct ctl_conn, work);

	if (conn_lines(conn) && conn->eof && conn->cmd == NULL)
		conn->last = true;
	conn_flush(conn);
	conn_watch(conn);
	if (conn->dead)
		ctl_conn_free(&conn);
}

/* The client sends no more: closed, or only its sending half (as `socat` does),
 * and then it still wants its answer. */
static void conn_eof(struct ctl_conn *conn)
{
	struct pollfd pfd = {.fd = conn->fd, .events = POLLOUT};

	conn->eof = true;
	if (poll(&pfd, 1, 0) < 0 || (pfd.revents & (POLLHUP | POLLERR)) != 0)
		conn_kill(conn);
}

static void conn_read(struct ctl_conn *conn)
{
	size_t room = MIN(READ_CHUNK, CTL_REQUEST_MAX - conn->in_len);
	ssize_t n;

	if (buf_room(&conn->in, conn->in_len, &conn->in_cap, room) != 0) {
		conn_kill(conn);
		return;
	}
	n = recv(conn->fd, conn->in + conn->in_len, room, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0)
		conn_kill(conn);
	else if (n == 0)
		conn_eof(conn);
	else
		conn->in_len += (size_t)n;
	if (!conn->dead)
		loop_defer(conn->ctl->loop, &conn->work, conn_work);
}

static void conn_on_event(struct loop_fd *lf, unsigned what)
{
	struct ctl_conn *conn = container_of(lf, struct ctl_conn, watch);

	if ((what & LOOP_WRITE) != 0 && !conn->dead)
		conn_flush(conn);
	if ((what & LOOP_READ) != 0 && !conn->dead && !conn->eof && !conn->last &&
	    conn->in_len < CTL_REQUEST_MAX)
		conn_read(conn);
	conn_watch(conn);
}

int ctl_conn_new(struct ctl *c, int fd)
{
	struct ctl_conn *conn;
	int rc;

	ALLOC_OBJ(conn, CTL_CONN_MAGIC);
	if (conn == NULL) {
		close(fd);
		return -ENOMEM;
	}
	conn->ctl = c;
	conn->fd = fd;
	TAILQ_INSERT_TAIL(&c->conns, conn, link);
	rc = loop_fd_init(&conn->watch, c->loop, fd, conn_on_event);
	if (rc == 0) {
		conn->watched = true;
		rc = loop_fd_want(&conn->watch, LOOP_READ);
	}
	if (rc != 0)
		ctl_conn_free(&conn);
	return rc;
}

void ctl_conn_finish(struct ctl_conn *conn)
{
	conn->last = true;
	if (conn->cmd == NULL)
		conn_flush(conn);
	conn_watch(conn);
}

void ctl_conn_free(struct ctl_conn **cp)
{
	struct ctl_conn *conn;
	struct ctl_cmd *cmd;

	TAKE_OBJ(conn, cp, CTL_CONN_MAGIC);
	TAILQ_REMOVE(&conn->ctl->conns, conn, link);
	loop_undefer(conn->ctl->loop, &conn->work);
	if (conn->watched)
		loop_fd_fini(&conn->watch);
	close(conn->fd);
	cmd = conn->cmd;
	if (cmd != NULL) {
		cmd->conn = NULL;
		if (cmd->cancel != NULL)
			cmd->cancel(cmd);
	}
	free(conn->in);
	free(conn->out);
	FREE_OBJ(conn);
}
