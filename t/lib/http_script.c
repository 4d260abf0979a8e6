/* SPDX-License-Identifier: BSD-2-Clause */
#include "http_script.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD_MAX (1024 * 1024)

#define MUST(cond)                                                                                 \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "http_script: %s:%d: %s: %s\n", __FILE__, __LINE__, #cond, \
			    strerror(errno));                                                      \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

struct answer {
	STAILQ_ENTRY(answer) link;
	struct http_script_answer a; /* raw and match are owned */
	unsigned used;
};

struct intake {
	struct http_script_intake in;
	char match[128];
	unsigned used;
};

struct conn {
	SLIST_ENTRY(conn) link;
	struct http_script *hs;
	pthread_t thread;
	int fd;
	unsigned number;
	char *buf; /* bytes read and not yet used */
	size_t have, size;
};

struct http_script {
	int listen_fd, stop_fd;
	unsigned port;
	char url[64];
	pthread_t acceptor;
	pthread_mutex_t lock;
	pthread_mutex_t handler_lock;
	pthread_cond_t changed;
	STAILQ_HEAD(, answer) answers;
	SLIST_HEAD(, conn) conns;
	unsigned nconns, open;
	struct http_script_req **reqs;
	unsigned nreqs;
	struct intake intakes[8];
	unsigned nintakes;
	http_script_handler *handler;
	void *handler_arg;
};

static void *must_memdup(const void *p, size_t len)
{
	char *n = malloc(len + 1);

	MUST(n != NULL);
	if (len != 0)
		memcpy(n, p, len);
	n[len] = '\0';
	return n;
}

/* True if the server is being stopped; else returns after ms (-1: no limit) or
 * when fd (if not -1) has one of `events`. */
static bool pause_or_stop(struct http_script *hs, int fd, short events, int ms)
{
	struct pollfd p[2] = {
		{ .fd = hs->stop_fd, .events = POLLIN },
		{ .fd = fd, .events = events },
	};

	while (poll(p, 2, ms) == -1)
		MUST(errno == EINTR);
	return p[0].revents != 0;
}

/* False: the peer has gone or the server stops. */
static bool send_bytes(struct conn *c, const char *p, size_t len)
{
	while (len > 0) {
		ssize_t n = send(c->fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n >= 0) {
			p += n;
			len -= (size_t)n;
		} else if (errno == EAGAIN) {
			if (pause_or_stop(c->hs, c->fd, POLLOUT, -1))
				return false;
		} else if (errno != EINTR) {
			return false;
		}
	}
	return true;
}

static bool send_paced(
    struct conn *c, const struct http_script_answer *a, const char *p, size_t len)
{
	size_t step = a->slow_bytes != 0 ? a->slow_bytes : len;
	bool first = true;

	while (len > 0) {
		size_t n = step < len ? step : len;

		if (!first && pause_or_stop(c->hs, -1, 0, (int)a->slow_ms))
			return false;
		first = false;
		if (!send_bytes(c, p, n))
			return false;
		p += n;
		len -= n;
	}
	return true;
}

/* One more read into the connection's buffer, of so many bytes at most (0: any); false
 * at the end. */
static bool fill(struct conn *c, size_t most)
{
	ssize_t n;

	if (c->size - c->have < 65536) {
		c->size = c->size * 2 + 65536;
		c->buf = realloc(c->buf, c->size + 1);
		MUST(c->buf != NULL);
	}
	if (pause_or_stop(c->hs, c->fd, POLLIN, -1))
		return false;
	if (most == 0 || most > c->size - c->have)
		most = c->size - c->have;
	n = recv(c->fd, c->buf + c->have, most, 0);
	if (n <= 0)
		return false;
	c->have += (size_t)n;
	c->buf[c->have] = '\0';
	return true;
}

char *http_script_header(const struct http_script_req *rq, const char *name, char *buf, size_t len)
{
	size_t nlen = strlen(name);
	const char *line = strstr(rq->head, "\r\n");

	while (line != NULL && line[2] != '\r' && line[2] != '\0') {
		line += 2;
		if (strncasecmp(line, name, nlen) == 0 && line[nlen] == ':') {
			const char *v = line + nlen + 1, *end = strstr(v, "\r\n");
			size_t n;

			v += strspn(v, " \t");
			n = end != NULL && end > v ? (size_t)(end - v) : 0;
			snprintf(buf, len, "%.*s", (int)n, v);
			return buf;
		}
		line = strstr(line, "\r\n");
	}
	return NULL;
}

static void free_req(struct http_script_req *rq)
{
	free(rq->target);
	free(rq->head);
	free(rq->body);
	free(rq);
}

static bool matches(const struct http_script_req *rq, const char *match)
{
	char *line;
	bool yes;

	if (match == NULL)
		return true;
	MUST(asprintf(&line, "%s %s", rq->method, rq->target) >= 0);
	yes = strstr(line, match) != NULL;
	free(line);
	return yes;
}

static struct http_script_intake choose_intake(struct conn *c, const struct http_script_req *rq)
{
	struct http_script_intake in = { 0 };

	pthread_mutex_lock(&c->hs->lock);
	for (unsigned i = 0; i < c->hs->nintakes; i++) {
		struct intake *it = &c->hs->intakes[i];

		if ((it->in.times != 0 && it->used >= it->in.times) || !matches(rq, it->match))
			continue;
		it->used++;
		in = it->in;
		break;
	}
	pthread_mutex_unlock(&c->hs->lock);
	return in;
}

/* The body, as it is to be taken; false: the connection is to end. */
static bool read_body(struct conn *c, const struct http_script_req *rq, size_t head_len)
{
	struct http_script_intake in = choose_intake(c, rq);
	struct linger rst = { .l_onoff = 1, .l_linger = 0 };
	int small = 16384;

	if (in.slow_bytes != 0)
		setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	while (c->have < head_len + rq->body_len) {
		if (in.end != HTTP_SCRIPT_KEEP && c->have >= head_len + in.stop_at) {
			if (in.end == HTTP_SCRIPT_RESET)
				setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &rst, sizeof(rst));
			if (in.end == HTTP_SCRIPT_STALL)
				pause_or_stop(c->hs, c->fd, POLLRDHUP, -1);
			return false;
		}
		if (in.slow_bytes != 0 && pause_or_stop(c->hs, -1, 0, (int)in.slow_ms))
			return false;
		if (!fill(c, in.slow_bytes))
			return false;
	}
	return true;
}

static struct http_script_req *read_req(struct conn *c)
{
	struct http_script_req *rq;
	char *end = NULL, *sp, num[32];
	size_t head_len;

	while (c->have == 0 || (end = strstr(c->buf, "\r\n\r\n")) == NULL)
		if (c->have > HEAD_MAX || !fill(c, 0))
			return NULL;
	rq = calloc(1, sizeof(*rq));
	MUST(rq != NULL);
	rq->conn = c->number;
	head_len = (size_t)(end + 4 - c->buf);
	rq->head = must_memdup(c->buf, head_len);
	sp = strchr(rq->head, ' ');
	if (sp == NULL || (size_t)(sp - rq->head) >= sizeof(rq->method)) {
		rq->target = must_memdup("", 0);
	} else {
		memcpy(rq->method, rq->head, (size_t)(sp - rq->head));
		rq->target = must_memdup(sp + 1, strcspn(sp + 1, " \r\n"));
	}
	if (http_script_header(rq, "content-length", num, sizeof(num)) != NULL)
		rq->body_len = strtoull(num, NULL, 10);
	if (http_script_header(rq, "expect", num, sizeof(num)) != NULL)
		send_bytes(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
	if (!read_body(c, rq, head_len)) {
		free_req(rq);
		return NULL;
	}
	rq->body = must_memdup(c->buf + head_len, rq->body_len);
	c->have -= head_len + rq->body_len;
	memmove(c->buf, c->buf + head_len + rq->body_len, c->have + 1);
	return rq;
}

/* Fills *out with an answer whose raw is the caller's to free. */
static void choose(struct http_script *hs, struct http_script_req *rq,
    struct http_script_answer *out)
{
	struct answer *an;
	http_script_handler *fn;
	bool have = false;
	void *arg;

	memset(out, 0, sizeof(*out));
	pthread_mutex_lock(&hs->lock);
	hs->reqs = realloc(hs->reqs, (hs->nreqs + 1) * sizeof(*hs->reqs));
	MUST(hs->reqs != NULL);
	hs->reqs[hs->nreqs++] = rq;
	pthread_cond_broadcast(&hs->changed);
	STAILQ_FOREACH (an, &hs->answers, link) {
		if ((an->a.times != 0 && an->used >= an->a.times) || !matches(rq, an->a.match))
			continue;
		an->used++;
		*out = an->a;
		out->raw = must_memdup(an->a.raw, an->a.raw_len);
		have = true;
		break;
	}
	fn = hs->handler;
	arg = hs->handler_arg;
	pthread_mutex_unlock(&hs->lock);

	if (!have && fn != NULL) {
		pthread_mutex_lock(&hs->handler_lock);
		have = fn(arg, rq, out);
		pthread_mutex_unlock(&hs->handler_lock);
		if (have && out->raw != NULL && out->raw_len == 0)
			out->raw_len = strlen(out->raw);
	}
	if (!have) {
		memset(out, 0, sizeof(*out));
		out->raw = http_script_format(
		    501, NULL, "not in the script", 17, &out->raw_len, &out->head_len);
	}
}

static bool send_answer(struct conn *c, const struct http_script_req *rq,
    const struct http_script_answer *a)
{
	size_t len = a->raw_len, sent;
	const char *raw = a->raw;

	if (a->delay_ms != 0 && pause_or_stop(c->hs, -1, 0, (int)a->delay_ms))
		return false;
	if (a->head_len != 0 && strcmp(rq->method, "HEAD") == 0)
		return send_paced(c, a, raw, a->head_len);
	if (len != 0 && !send_paced(c, a, raw, len))
		return false;
	sent = len - a->head_len;
	while (sent < a->repeat_to) {
		size_t n = len - a->head_len;

		if (n > a->repeat_to - sent)
			n = a->repeat_to - sent;
		if (n == 0 || !send_paced(c, a, raw + a->head_len, n))
			return false;
		sent += n;
	}
	return true;
}

static void serve(struct conn *c)
{
	struct http_script_answer a;
	struct http_script_req *rq;
	struct linger rst = { .l_onoff = 1, .l_linger = 0 };
	bool go = true;

	while (go && (rq = read_req(c)) != NULL) {
		choose(c->hs, rq, &a);
		go = send_answer(c, rq, &a) && a.end == HTTP_SCRIPT_KEEP;
		free((void *)(uintptr_t)a.raw);
		if (a.end == HTTP_SCRIPT_RESET)
			setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &rst, sizeof(rst));
		if (a.end == HTTP_SCRIPT_STALL)
			pause_or_stop(c->hs, c->fd, POLLRDHUP, -1);
	}
}

static void *conn_main(void *arg)
{
	struct conn *c = arg;

	serve(c);
	close(c->fd);
	free(c->buf);
	c->buf = NULL;
	pthread_mutex_lock(&c->hs->lock);
	c->hs->open--;
	pthread_cond_broadcast(&c->hs->changed);
	pthread_mutex_unlock(&c->hs->lock);
	return NULL;
}

static void *accept_main(void *arg)
{
	struct http_script *hs = arg;
	int one = 1;

	while (!pause_or_stop(hs, hs->listen_fd, POLLIN, -1)) {
		int fd = accept4(hs->listen_fd, NULL, NULL, SOCK_CLOEXEC);
		struct conn *c;

		if (fd == -1)
			continue;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		c = calloc(1, sizeof(*c));
		MUST(c != NULL);
		c->hs = hs;
		c->fd = fd;
		pthread_mutex_lock(&hs->lock);
		c->number = hs->nconns++;
		hs->open++;
		SLIST_INSERT_HEAD(&hs->conns, c, link);
		pthread_cond_broadcast(&hs->changed);
		pthread_mutex_unlock(&hs->lock);
		MUST((errno = pthread_create(&c->thread, NULL, conn_main, c)) == 0);
	}
	return NULL;
}

struct http_script *http_script_new(void)
{
	struct http_script *hs = calloc(1, sizeof(*hs));
	struct sockaddr_in sin = { .sin_family = AF_INET };
	socklen_t len = sizeof(sin);
	pthread_condattr_t attr;

	MUST(hs != NULL);
	STAILQ_INIT(&hs->answers);
	SLIST_INIT(&hs->conns);
	pthread_mutex_init(&hs->lock, NULL);
	pthread_mutex_init(&hs->handler_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&hs->changed, &attr);
	pthread_condattr_destroy(&attr);
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	MUST((hs->stop_fd = eventfd(0, EFD_CLOEXEC)) != -1);
	hs->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	MUST(hs->listen_fd != -1);
	MUST(bind(hs->listen_fd, (struct sockaddr *)&sin, sizeof(sin)) == 0);
	MUST(listen(hs->listen_fd, 128) == 0);
	MUST(getsockname(hs->listen_fd, (struct sockaddr *)&sin, &len) == 0);
	hs->port = ntohs(sin.sin_port);
	snprintf(hs->url, sizeof(hs->url), "http://127.0.0.1:%u", hs->port);
	MUST((errno = pthread_create(&hs->acceptor, NULL, accept_main, hs)) == 0);
	return hs;
}

void http_script_free(struct http_script **hsp)
{
	struct http_script *hs = *hsp;
	uint64_t one = 1;
	struct conn *c;

	*hsp = NULL;
	if (hs == NULL)
		return;
	MUST(write(hs->stop_fd, &one, sizeof(one)) == sizeof(one));
	pthread_join(hs->acceptor, NULL);
	while ((c = SLIST_FIRST(&hs->conns)) != NULL) {
		SLIST_REMOVE_HEAD(&hs->conns, link);
		pthread_join(c->thread, NULL);
		free(c);
	}
	http_script_clear(hs);
	for (unsigned i = 0; i < hs->nreqs; i++)
		free_req(hs->reqs[i]);
	free(hs->reqs);
	close(hs->listen_fd);
	close(hs->stop_fd);
	pthread_cond_destroy(&hs->changed);
	pthread_mutex_destroy(&hs->handler_lock);
	pthread_mutex_destroy(&hs->lock);
	free(hs);
}

const char *http_script_url(const struct http_script *hs)
{
	return hs->url;
}

unsigned http_script_port(const struct http_script *hs)
{
	return hs->port;
}

void http_script_add(struct http_script *hs, const struct http_script_answer *a)
{
	struct answer *an = calloc(1, sizeof(*an));

	MUST(an != NULL);
	an->a = *a;
	if (a->raw != NULL && a->raw_len == 0)
		an->a.raw_len = strlen(a->raw);
	an->a.raw = must_memdup(a->raw, an->a.raw_len);
	if (a->match != NULL)
		an->a.match = must_memdup(a->match, strlen(a->match));
	pthread_mutex_lock(&hs->lock);
	STAILQ_INSERT_TAIL(&hs->answers, an, link);
	pthread_mutex_unlock(&hs->lock);
}

void http_script_clear(struct http_script *hs)
{
	struct answer *an;

	pthread_mutex_lock(&hs->lock);
	while ((an = STAILQ_FIRST(&hs->answers)) != NULL) {
		STAILQ_REMOVE_HEAD(&hs->answers, link);
		free((void *)(uintptr_t)an->a.raw);
		free((void *)(uintptr_t)an->a.match);
		free(an);
	}
	pthread_mutex_unlock(&hs->lock);
}

char *http_script_format(int status, const char *headers, const void *body, size_t body_len,
    size_t *len, size_t *head_len)
{
	char *head, *all;
	int n = asprintf(&head, "HTTP/1.1 %d Scripted\r\nContent-Length: %zu\r\n%s\r\n", status,
	    body_len, headers != NULL ? headers : "");

	MUST(n > 0);
	all = realloc(head, (size_t)n + body_len + 1);
	MUST(all != NULL);
	if (body_len != 0)
		memcpy(all + n, body, body_len);
	all[(size_t)n + body_len] = '\0';
	if (len != NULL)
		*len = (size_t)n + body_len;
	if (head_len != NULL)
		*head_len = (size_t)n;
	return all;
}

void http_script_reply(struct http_script *hs, const char *match, int status, const char *headers,
    const void *body, size_t len, unsigned times)
{
	struct http_script_answer a = { .match = match, .times = times };
	char *raw = http_script_format(status, headers, body, len, &a.raw_len, &a.head_len);

	a.raw = raw;
	http_script_add(hs, &a);
	free(raw);
}

void http_script_set_handler(struct http_script *hs, http_script_handler *fn, void *arg)
{
	pthread_mutex_lock(&hs->lock);
	hs->handler = fn;
	hs->handler_arg = arg;
	pthread_mutex_unlock(&hs->lock);
}

void http_script_add_intake(struct http_script *hs, const struct http_script_intake *in)
{
	struct intake *it;

	pthread_mutex_lock(&hs->lock);
	MUST(hs->nintakes < sizeof(hs->intakes) / sizeof(hs->intakes[0]));
	it = &hs->intakes[hs->nintakes++];
	it->in = *in;
	snprintf(it->match, sizeof(it->match), "%s", in->match != NULL ? in->match : "");
	pthread_mutex_unlock(&hs->lock);
}

static unsigned read_locked(struct http_script *hs, const unsigned *value)
{
	unsigned n;

	pthread_mutex_lock(&hs->lock);
	n = *value;
	pthread_mutex_unlock(&hs->lock);
	return n;
}

unsigned http_script_count(struct http_script *hs)
{
	return read_locked(hs, &hs->nreqs);
}

unsigned http_script_conns(struct http_script *hs)
{
	return read_locked(hs, &hs->nconns);
}

unsigned http_script_conns_open(struct http_script *hs)
{
	return read_locked(hs, &hs->open);
}

const struct http_script_req *http_script_get(struct http_script *hs, unsigned i)
{
	const struct http_script_req *rq;

	pthread_mutex_lock(&hs->lock);
	rq = i < hs->nreqs ? hs->reqs[i] : NULL;
	pthread_mutex_unlock(&hs->lock);
	return rq;
}

unsigned http_script_count_of(struct http_script *hs, const char *match)
{
	unsigned n = 0;

	pthread_mutex_lock(&hs->lock);
	for (unsigned i = 0; i < hs->nreqs; i++)
		n += matches(hs->reqs[i], match);
	pthread_mutex_unlock(&hs->lock);
	return n;
}

static bool wait_for(struct http_script *hs, const unsigned *value, unsigned n, bool at_least,
    unsigned timeout_ms)
{
	struct timespec end;
	bool ok;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += timeout_ms / 1000;
	end.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (end.tv_nsec >= 1000000000) {
		end.tv_sec++;
		end.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&hs->lock);
	while (!(at_least ? *value >= n : *value <= n))
		if (pthread_cond_timedwait(&hs->changed, &hs->lock, &end) != 0)
			break;
	ok = at_least ? *value >= n : *value <= n;
	pthread_mutex_unlock(&hs->lock);
	return ok;
}

unsigned http_script_intake_used(struct http_script *hs, unsigned i)
{
	return read_locked(hs, &hs->intakes[i].used);
}

bool http_script_wait(struct http_script *hs, unsigned n, unsigned timeout_ms)
{
	return wait_for(hs, &hs->nreqs, n, true, timeout_ms);
}

bool http_script_wait_open(struct http_script *hs, unsigned n, unsigned timeout_ms)
{
	return wait_for(hs, &hs->open, n, false, timeout_ms);
}
