/* SPDX-License-Identifier: BSD-2-Clause */
/* One request and its answer. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/obj.h"
#include "base/units.h"
#include "cli/cli.h"
#include "reactor/sock.h"

/* A restarted daemon listens again within a second; this is for slow machines. */
#define RECONNECT_NS (5 * NS_PER_S)
#define RECONNECT_STEP_NS (20 * NS_PER_MS)
/* One that its keeper restarts, or that has just got the mount.  A socket that was removed
 * comes again no more, but that its owner is dead may be news to whoever starts the next. */
#define NEXT_NS (30 * NS_PER_S)
/* A socket without a listener: the daemon died and is being restarted, or nobody
 * cleaned up.  One that ended in order has removed its socket. */
#define REFUSED_NS (2 * NS_PER_S)
/* No line of an answer comes near it; what is longer is no daemon of ours. */
#define LINE_MAX_BYTES (64 * MIB)

static const struct json_limits answer_limits = {64, 10 * 1000 * 1000};

struct wire {
	int fd;
	char *buf;
	size_t len, cap, used; /* used: of the line that was given out */
	bool heard;	       /* a complete line has come */
};

enum wire_end { WIRE_LINE, WIRE_CLOSED, WIRE_SILENT, WIRE_ERROR };

static void wire_fini(struct wire *w)
{
	if (w->fd >= 0)
		close(w->fd);
	free(w->buf);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static int until_ms(const struct cli *c, uint64_t since)
{
	uint64_t gone = (now_ns() - since) / NS_PER_MS, all = c->timeout_ns / NS_PER_MS;

	if (c->timeout_ns == 0)
		return -1;
	return gone >= all ? 0 : (int)MIN(all - gone, (uint64_t)INT32_MAX);
}

/* Waits for readiness: 0, -ETIMEDOUT or another negative errno. */
static int wait_for(const struct cli *c, int fd, short events)
{
	uint64_t since = now_ns();

	for (;;) {
		struct pollfd pfd = {.fd = fd, .events = events};
		int n = poll(&pfd, 1, until_ms(c, since));

		if (n > 0)
			return 0;
		if (n == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

/* How long to go on trying after this error. */
static uint64_t patience(int err, uint64_t wait_ns)
{
	switch (err) {
	case -EAGAIN: /* its queue is full: it is busy */
		return RECONNECT_NS;
	case -ECONNREFUSED:
		return MAX(wait_ns, REFUSED_NS);
	case -ENOENT:
		return wait_ns;
	default:
		return 0;
	}
}

/* wait_ns: how long the socket may be missing (the daemon was there just now). */
static int wire_connect(struct wire *w, const char *path, uint64_t wait_ns)
{
	const struct timespec step = {.tv_nsec = RECONNECT_STEP_NS};
	uint64_t since = now_ns();

	for (;;) {
		w->fd = sock_connect(path, SOCK_STREAM);
		if (w->fd >= 0)
			return 0;
		if (now_ns() - since >= patience(w->fd, wait_ns))
			return w->fd;
		nanosleep(&step, NULL);
	}
}

static int wire_send(const struct cli *c, struct wire *w, const char *text, size_t len)
{
	while (len > 0) {
		ssize_t n = send(w->fd, text, len, MSG_NOSIGNAL);

		if (n > 0) {
			text += n;
			len -= (size_t)n;
		} else if (n < 0 && errno == EAGAIN) {
			int rc = wait_for(c, w->fd, POLLOUT);

			if (rc != 0)
				return rc;
		} else if (n < 0 && errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

static enum wire_end wire_more(const struct cli *c, struct wire *w)
{
	ssize_t n;
	int rc;

	if (w->cap - w->len < 65536) {
		size_t cap = w->cap * 2 + 131072;
		char *p = cap <= 2 * LINE_MAX_BYTES ? realloc(w->buf, cap) : NULL;

		if (p == NULL) {
			errno = ENOMEM;
			return WIRE_ERROR;
		}
		w->buf = p;
		w->cap = cap;
	}
	for (;;) {
		n = recv(w->fd, w->buf + w->len, w->cap - w->len, 0);
		if (n > 0) {
			w->len += (size_t)n;
			return WIRE_LINE;
		}
		if (n == 0 || errno == ECONNRESET || errno == EPIPE)
			return WIRE_CLOSED;
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return WIRE_ERROR;
		rc = wait_for(c, w->fd, POLLIN);
		if (rc == -ETIMEDOUT)
			return WIRE_SILENT;
		if (rc != 0)
			return WIRE_ERROR;
	}
}

/* The next line, without its newline, valid until the next call. */
static enum wire_end wire_line(const struct cli *c, struct wire *w, char **line, size_t *len)
{
	size_t seen = 0;

	memmove(w->buf, w->buf + w->used, w->len - w->used);
	w->len -= w->used;
	w->used = 0;
	for (;;) {
		char *nl = w->len > seen ? memchr(w->buf + seen, '\n', w->len - seen) : NULL;
		enum wire_end end;

		if (nl != NULL) {
			*line = w->buf;
			*len = (size_t)(nl - w->buf);
			w->used = *len + 1;
			w->heard = true;
			return WIRE_LINE;
		}
		seen = w->len;
		end = wire_more(c, w);
		if (end != WIRE_LINE)
			return end;
	}
}

static enum cli_exit not_running(struct cli *c, int rc)
{
	if (rc == -ECONNREFUSED || rc == -ENOENT)
		return cli_error(c, "no batonfs daemon answers on %s: is it mounted? "
				    "(batonfsd %s)", c->path,
		    c->mountpoint != NULL ? c->mountpoint : "MOUNTPOINT");
	return cli_error(c, "%s: %s", c->path, strerror(-rc));
}

static enum cli_exit cut_short(struct cli *c)
{
	c->breaks++;
	return CLI_FAILURE;
}

/* Its words; or it says that it ends. */
static enum cli_exit take_error(struct cli *c, const struct cli_call *call, const struct json *m)
{
	if (call->goes_on && strcmp(json_get_text(m, "code", ""), "ECANCELED") == 0)
		return cut_short(c);
	cli_error(c, "%s", json_get_text(m, "message", "failed"));
	return call->refused != CLI_OK ? call->refused : CLI_FAILURE;
}

/* One line of the answer.  True: go on reading; else *ex is the end. */
static bool take_line(struct cli *c, struct cli_call *call, const char *line, size_t len,
    struct json **result, enum cli_exit *ex)
{
	const struct json *m;
	struct errtext et = {""};
	struct json *v;
	int rc;

	rc = json_parse(&v, line, len, &answer_limits, &et);
	if (rc != 0) {
		*ex = cli_error(c, "the daemon's answer: %s", et.s);
		return false;
	}
	*ex = CLI_OK;
	if ((m = json_get(v, "progress")) != NULL) {
		if (call->progress != NULL)
			*ex = (enum cli_exit)call->progress(c, call->arg, m);
		json_free(&v);
		return *ex == CLI_OK;
	}
	if ((m = json_get(v, "error")) != NULL) {
		*ex = take_error(c, call, m);
	} else if (json_get(v, "result") != NULL) {
		*result = v; /* the caller takes the member out */
		return false;
	} else {
		*ex = cli_error(c, "the daemon's answer is neither a result nor an error");
	}
	json_free(&v);
	return false;
}

static void take_out(struct json **v)
{
	struct json *m = (*v)->first;

	/* An answer has one member: the object around it goes. */
	(*v)->first = m->next;
	m->next = NULL;
	json_free(v);
	*v = m;
}

/* What a daemon that ends waits for: said once. */
static void say_waiting(struct cli *c, const char *line, size_t len, char *last, size_t size)
{
	struct errtext et;
	struct json *v;
	const char *what;

	if (json_parse(&v, line, len, &answer_limits, &et) != 0)
		return;
	what = json_get_text(json_get(v, "progress"), "message", "");
	if (what[0] != '\0' && strncmp(what, last, size - 1) != 0) {
		snprintf(last, size, "%s", what);
		cli_error(c, "unmounted; its daemon still waits for %s", what);
	}
	json_free(&v);
}

/* The end of the connection is what we wait for; meanwhile it may say what it waits for. */
static enum cli_exit wait_end(struct cli *c, struct wire *w, const struct json *result)
{
	bool elsewhere = json_get_bool(result, "mounted_elsewhere", false);
	char last[128] = "";
	enum wire_end end;
	size_t len;
	char *line;

	if (elsewhere)
		cli_error(c, "%s: the same file system is mounted elsewhere too, by a bind mount or "
			     "in another mount namespace: waiting for the end of that",
		    json_get_text(result, "mountpoint", ""));
	while ((end = wire_line(c, w, &line, &len)) == WIRE_LINE)
		say_waiting(c, line, len, last, sizeof(last));
	if (end == WIRE_CLOSED)
		return CLI_OK;
	if (end == WIRE_SILENT && elsewhere)
		return cli_error(c, "unmounted here; its daemon goes on for the other places");
	if (end == WIRE_SILENT)
		return cli_error(c, "unmounted, but the daemon has not ended yet: it may still be "
				    "storing what was written, its log says so (--timeout waits "
				    "longer)");
	return cli_error(c, "%s: %s", c->path, strerror(errno));
}

/* One try.  Returns true if the daemon went away without a word that counts. */
static bool call_once(struct cli *c, struct cli_call *call, const char *text, size_t len,
    uint64_t wait_ns, struct json **result, enum cli_exit *ex)
{
	struct wire w = {.fd = -1};
	enum wire_end end = WIRE_LINE;
	bool gone = false;
	char *line;
	int rc;

	rc = wire_connect(&w, c->path, wait_ns);
	if (rc != 0) {
		*ex = not_running(c, rc);
		return false;
	}
	rc = wire_send(c, &w, text, len);
	if (rc == -EPIPE || rc == -ECONNRESET)
		rc = 0; /* it may have said why before it closed */
	if (rc == 0) {
		w.cap = 131072;
		w.buf = malloc(w.cap);
		rc = w.buf == NULL ? -ENOMEM : 0;
	}
	while (rc == 0 && (end = wire_line(c, &w, &line, &len)) == WIRE_LINE)
		if (!take_line(c, call, line, len, result, ex))
			break;
	if (*result != NULL && call->until_end)
		*ex = wait_end(c, &w, json_get(*result, "result"));
	if (rc == -ETIMEDOUT || (rc == 0 && end == WIRE_SILENT))
		*ex = cli_error(c, "%s: the daemon does not answer", c->path);
	else if (rc != 0 || end == WIRE_ERROR)
		*ex = cli_error(c, "%s: %s", c->path, strerror(rc != 0 ? -rc : errno));
	else if (end == WIRE_CLOSED && (!w.heard || call->waits))
		gone = true;
	else if (end == WIRE_CLOSED && call->goes_on)
		*ex = cut_short(c);
	else if (end == WIRE_CLOSED && call->lost != NULL)
		*call->lost = true;
	else if (end == WIRE_CLOSED)
		*ex = cli_error(c, "%s: the daemon went away before it was done", c->path);
	wire_fini(&w);
	return gone;
}

enum cli_exit cli_call_new(struct cli *c, struct cli_call *call, const char *command)
{
	memset(call, 0, sizeof(*call));
	call->command = command;
	call->args = json_out_new();
	if (call->args == NULL)
		return cli_error(c, "%s", strerror(ENOMEM));
	json_open_object(call->args);
	json_add_text(call->args, "command", command);
	json_key(call->args, "args");
	json_open_object(call->args);
	return CLI_OK;
}

/* The request's line: malloc'ed, or NULL. */
static char *request_text(struct cli_call *call, size_t *len)
{
	const char *text;
	char *line = NULL;

	json_close_object(call->args);
	json_close_object(call->args);
	if (json_out_take(call->args, &text, len) == 0)
		line = malloc(*len + 1);
	if (line != NULL) {
		memcpy(line, text, *len);
		line[(*len)++] = '\n';
	}
	json_out_free(&call->args);
	return line;
}

enum cli_exit cli_call_run(struct cli *c, struct cli_call *call, struct json **result)
{
	enum cli_exit ex = CLI_OK;
	bool gone;
	size_t len;
	char *text;

	*result = NULL;
	text = request_text(call, &len);
	if (text == NULL)
		return cli_error(c, "%s", strerror(ENOMEM));
	ex = cli_find(c);
	if (ex != CLI_OK) {
		free(text);
		return ex;
	}
	gone = call_once(c, call, text, len,
	    call->wait_ns != 0 ? call->wait_ns : c->breaks > 0 ? RECONNECT_NS : 0, result, &ex);
	while (gone && call->repeatable) {
		gone = call_once(c, call, text, len, RECONNECT_NS, result, &ex);
		if (!call->waits)
			break;
	}
	if (gone && call->goes_on)
		ex = cut_short(c);
	else if (gone)
		ex = cli_error(c, "%s: the daemon closed the connection without an answer",
		    c->path);
	free(text);
	if (*result != NULL)
		take_out(result);
	return ex;
}

static enum cli_exit ask(struct cli *c, const char *command, uint64_t wait_ns, struct json **result)
{
	struct cli_call call;
	enum cli_exit ex = cli_call_new(c, &call, command);

	if (ex != CLI_OK)
		return ex;
	call.repeatable = true;
	call.wait_ns = wait_ns;
	return cli_call_run(c, &call, result);
}

enum cli_exit cli_ask(struct cli *c, const char *command, struct json **result)
{
	return ask(c, command, 0, result);
}

enum cli_exit cli_ask_next(struct cli *c, const char *command, struct json **result)
{
	return ask(c, command, NEXT_NS, result);
}
