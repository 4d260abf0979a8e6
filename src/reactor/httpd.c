/* SPDX-License-Identifier: BSD-2-Clause */
/* The server: connections and answers. */
#include "reactor/httpd.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "base/obj.h"
#include "base/queue.h"
#include "reactor/loop.h"
#include "reactor/timer.h"

#define HTTPD_MAGIC 0x477000d1u
#define HTTPD_REQ_MAGIC 0x477000d2u
#define BACKLOG 128
#define ACCEPT_AGAIN (100 * NS_PER_MS)

enum conn_state {
	CONN_READING, /* a head, or nothing yet */
	CONN_SERVING, /* the user has the request */
	CONN_SENDING,
};

/* A connection, and the request that it brings at the moment. */
struct httpd_req {
	uint32_t magic;
	struct httpd *h;
	TAILQ_ENTRY(httpd_req) link; /* the longest idle one comes first */
	enum conn_state state;
	struct loop_fd lf;
	int fd; /* -1: lost */
	struct timer timer;
	struct deferred more;
	char peer[64];
	char in[HTTPD_HEAD_MAX];
	size_t got, used; /* bytes in `in`; of them the head of the request */
	struct httpd_head head;
	unsigned served;
	struct httpd_answer ans;
	char out[HTTPD_ANSWER_HEADERS_MAX + 256];
	size_t out_len, sent, body_len;
};

struct httpd {
	uint32_t magic;
	struct httpd_env env;
	int fd;
	struct loop_fd lf;
	struct timer again;
	TAILQ_HEAD(, httpd_req) conns;
	unsigned nconns;
};

static void conn_event(struct loop_fd *lf, unsigned what);

/* --- The end of a connection */

static void listen_again(struct httpd *h)
{
	if (h->fd >= 0 && loop_fd_want(&h->lf, LOOP_READ) != 0)
		timer_arm(&h->again, ACCEPT_AGAIN);
}

static void release(struct httpd_req *c)
{
	void (*fn)(void *arg) = c->ans.release;

	c->ans.release = NULL;
	if (fn != NULL)
		fn(c->ans.arg);
}

static void conn_close(struct httpd_req *c)
{
	struct httpd *h = c->h;

	timer_cancel(&c->timer);
	loop_undefer(h->env.loop, &c->more);
	if (c->fd >= 0) {
		loop_fd_fini(&c->lf);
		close(c->fd);
		c->fd = -1;
	}
	/* Its user answers it all the same. */
	if (c->state == CONN_SERVING)
		return;
	release(c);
	TAILQ_REMOVE(&h->conns, c, link);
	h->nconns--;
	FREE_OBJ(c);
	listen_again(h);
}

static void conn_timeout(struct timer *t)
{
	conn_close(container_of(t, struct httpd_req, timer));
}

/* --- Reading */

static void refuse(struct httpd_req *c, ssize_t err)
{
	struct httpd_answer a = {.status = 400, .close = true};

	if (err == -E2BIG)
		a.status = 431;
	else if (err == -EPROTONOSUPPORT)
		a.status = 505;
	else if (err == -EOPNOTSUPP)
		a.status = 413;
	c->head = (struct httpd_head){.method = "GET"};
	c->used = c->got;
	c->state = CONN_SERVING;
	httpd_reply(c, &a);
}

/* False: the connection is gone, or busy. */
static void parse(struct httpd_req *c)
{
	ssize_t n = httpd_parse(c->in, c->got, &c->head);

	if (n == 0)
		return;
	timer_cancel(&c->timer);
	if (loop_fd_want(&c->lf, 0) != 0) {
		conn_close(c);
		return;
	}
	if (n < 0) {
		refuse(c, n);
		return;
	}
	c->used = (size_t)n;
	c->served++;
	c->state = CONN_SERVING;
	c->h->env.request(c, c->h->env.user);
}

static void conn_read(struct httpd_req *c)
{
	ssize_t n = recv(c->fd, c->in + c->got, sizeof(c->in) - c->got, 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		conn_close(c);
		return;
	}
	if (c->got == 0)
		timer_arm(&c->timer, HTTPD_HEAD_TIME);
	c->got += (size_t)n;
	parse(c);
}

/* What has come behind the request before. */
static void parse_more(struct deferred *d)
{
	parse(container_of(d, struct httpd_req, more));
}

static void next_request(struct httpd_req *c)
{
	struct httpd *h = c->h;

	release(c);
	c->got -= c->used;
	memmove(c->in, c->in + c->used, c->got);
	c->used = 0;
	c->state = CONN_READING;
	if (loop_fd_want(&c->lf, LOOP_READ) != 0) {
		conn_close(c);
		return;
	}
	TAILQ_REMOVE(&h->conns, c, link);
	TAILQ_INSERT_TAIL(&h->conns, c, link);
	timer_arm(&c->timer, c->got > 0 ? HTTPD_HEAD_TIME : HTTPD_IDLE_TIME);
	if (c->got > 0)
		loop_defer(h->env.loop, &c->more, parse_more);
	listen_again(h);
}

/* --- Sending */

static size_t unsent(const struct httpd_req *c, struct iovec iov[2], int *n)
{
	size_t head = MIN(c->sent, c->out_len), body = c->sent - head;

	*n = 0;
	if (head < c->out_len)
		iov[(*n)++] = (struct iovec){(char *)(uintptr_t)c->out + head, c->out_len - head};
	if (body < c->body_len)
		iov[(*n)++] = (struct iovec){
		    (char *)(uintptr_t)c->ans.body + body, c->body_len - body};
	return c->out_len + c->body_len - c->sent;
}

static void conn_send(struct httpd_req *c)
{
	struct msghdr mh = {.msg_iovlen = 0};
	struct iovec iov[2];
	ssize_t sent;
	int n;

	while (unsent(c, iov, &n) > 0) {
		mh.msg_iov = iov;
		mh.msg_iovlen = (size_t)n;
		sent = sendmsg(c->fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN && loop_fd_want(&c->lf, LOOP_WRITE) == 0)
			return;
		if (sent <= 0) {
			conn_close(c);
			return;
		}
		c->sent += (size_t)sent;
	}
	timer_cancel(&c->timer);
	if (c->ans.close || !c->head.keep)
		conn_close(c);
	else
		next_request(c);
}

static void conn_event(struct loop_fd *lf, unsigned what)
{
	struct httpd_req *c = container_of(lf, struct httpd_req, lf);

	(void)what;
	CHECK_OBJ(c, HTTPD_REQ_MAGIC);
	if (c->state == CONN_READING)
		conn_read(c);
	else if (c->state == CONN_SENDING)
		conn_send(c);
}

static const char *reason(unsigned status)
{
	static const struct {
		unsigned status;
		const char *text;
	} known[] = {{200, "OK"}, {206, "Partial Content"}, {400, "Bad Request"},
	    {401, "Unauthorized"}, {404, "Not Found"}, {405, "Method Not Allowed"},
	    {409, "Conflict"}, {413, "Content Too Large"}, {416, "Range Not Satisfiable"},
	    {421, "Misdirected Request"}, {431, "Request Header Fields Too Large"},
	    {500, "Internal Server Error"}, {503, "Service Unavailable"},
	    {505, "HTTP Version Not Supported"}};

	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		if (known[i].status == status)
			return known[i].text;
	}
	return "Other";
}

void httpd_reply(struct httpd_req *c, const struct httpd_answer *a)
{
	const char *headers = a->headers != NULL ? a->headers : "";
	int n;

	CHECK_OBJ(c, HTTPD_REQ_MAGIC);
	assert(c->state == CONN_SERVING && strlen(headers) <= HTTPD_ANSWER_HEADERS_MAX);
	c->ans = *a;
	c->state = CONN_SENDING;
	if (c->fd < 0) {
		conn_close(c);
		return;
	}
	n = snprintf(c->out, sizeof(c->out),
	    "HTTP/1.1 %u %s\r\n%sContent-Length: %zu\r\n%s\r\n", a->status, reason(a->status),
	    headers, a->len, a->close || !c->head.keep ? "Connection: close\r\n" : "");
	assert(n > 0 && (size_t)n < sizeof(c->out));
	c->out_len = (size_t)n;
	c->body_len = strcmp(c->head.method, "HEAD") == 0 ? 0 : a->len;
	c->sent = 0;
	timer_arm(&c->timer, HTTPD_SEND_TIME);
	conn_send(c);
}

/* --- Accepting */

static void peer_name(struct httpd_req *c, const struct sockaddr *sa, socklen_t len)
{
	char host[48], port[8];

	if (getnameinfo(sa, len, host, sizeof(host), port, sizeof(port),
		NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		snprintf(c->peer, sizeof(c->peer), "?");
	else
		snprintf(c->peer, sizeof(c->peer), "%s:%s", host, port);
}

static int conn_new(struct httpd *h, int fd, const struct sockaddr *sa, socklen_t len)
{
	struct httpd_req *c;
	int err, on = 1;

	ALLOC_OBJ(c, HTTPD_REQ_MAGIC);
	if (c == NULL)
		return -ENOMEM;
	c->h = h;
	c->fd = fd;
	peer_name(c, sa, len);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	timer_init(&c->timer, h->env.loop, conn_timeout);
	err = loop_fd_init(&c->lf, h->env.loop, fd, conn_event);
	if (err == 0)
		err = loop_fd_want(&c->lf, LOOP_READ);
	if (err != 0) {
		loop_fd_fini(&c->lf);
		FREE_OBJ(c);
		return err;
	}
	TAILQ_INSERT_TAIL(&h->conns, c, link);
	h->nconns++;
	timer_arm(&c->timer, HTTPD_HEAD_TIME);
	return 0;
}

/* Room for another one: that which has waited longest for its next request goes. */
static bool make_room(struct httpd *h)
{
	struct httpd_req *c;

	if (h->nconns < h->env.conns_max)
		return true;
	TAILQ_FOREACH(c, &h->conns, link) {
		if (c->state == CONN_READING && c->got == 0 && c->served > 0) {
			conn_close(c);
			return true;
		}
	}
	return false;
}

static void accept_ready(struct loop_fd *lf, unsigned what)
{
	struct httpd *h = container_of(lf, struct httpd, lf);
	struct sockaddr_storage sa;
	socklen_t len;
	int fd;

	(void)what;
	/* There is one for sure, and room is made for no more: what else waits is told again. */
	for (unsigned i = 0; i == 0 || (i < BACKLOG && h->nconns < h->env.conns_max); i++) {
		/* Those who wait do so until one of them ends. */
		if (!make_room(h)) {
			(void)loop_fd_want(&h->lf, 0);
			return;
		}
		len = sizeof(sa);
		fd = accept4(h->fd, (struct sockaddr *)&sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (fd < 0 && errno == EAGAIN)
			return;
		if (fd < 0 || conn_new(h, fd, (struct sockaddr *)&sa, len) != 0) {
			if (fd >= 0)
				close(fd);
			/* No descriptors, no memory: a little later. */
			(void)loop_fd_want(&h->lf, 0);
			timer_arm(&h->again, ACCEPT_AGAIN);
			return;
		}
	}
}

static void accept_again(struct timer *t)
{
	listen_again(container_of(t, struct httpd, again));
}

/* --- Life */

static int resolve(const char *address, struct addrinfo **out, struct errtext *et)
{
	const struct addrinfo hints = {
	    .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE, .ai_socktype = SOCK_STREAM};
	const char *colon = strrchr(address, ':');
	size_t n = colon != NULL ? (size_t)(colon - address) : 0;
	uint64_t port = 0;
	char host[64];

	if (n >= 2 && address[0] == '[' && address[n - 1] == ']') {
		address++;
		n -= 2;
	} else if (memchr(address, ':', n) != NULL) {
		n = 0; /* of IPv6, and where the port begins cannot be told */
	}
	if (n == 0 || n >= sizeof(host) || units_parse_u64(colon + 1, &port) != 0 || port == 0 ||
	    port > UINT16_MAX)
		return errtext_set(et, -EINVAL,
		    "must be ADDRESS:PORT with an address in digits, such as 10.0.0.5:7373 or "
		    "[::]:7373");
	memcpy(host, address, n);
	host[n] = '\0';
	if (getaddrinfo(host, colon + 1, &hints, out) != 0)
		return errtext_set(et, -EINVAL, "'%s' is no address in digits", host);
	return 0;
}

static int listen_on(struct httpd *h, const struct addrinfo *ai)
{
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1, err;

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	err = bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0 ? -errno : 0;
	if (err == 0)
		err = loop_fd_init(&h->lf, h->env.loop, fd, accept_ready);
	if (err == 0)
		err = loop_fd_want(&h->lf, LOOP_READ);
	if (err != 0) {
		loop_fd_fini(&h->lf);
		close(fd);
		return err;
	}
	h->fd = fd;
	return 0;
}

int httpd_listen(struct httpd *h, const char *address, struct errtext *et)
{
	struct addrinfo *ai = NULL;
	int err;

	CHECK_OBJ(h, HTTPD_MAGIC);
	assert(h->fd < 0);
	err = resolve(address, &ai, et);
	if (err != 0)
		return err;
	assert(ai != NULL);
	err = listen_on(h, ai);
	freeaddrinfo(ai);
	return err == 0 ? 0 : errtext_set(et, err, "%s", strerror(-err));
}

void httpd_close(struct httpd *h)
{
	struct httpd_req *c, *next;

	CHECK_OBJ(h, HTTPD_MAGIC);
	if (h->fd < 0)
		return;
	timer_cancel(&h->again);
	loop_fd_fini(&h->lf);
	close(h->fd);
	h->fd = -1;
	TAILQ_FOREACH_SAFE(c, &h->conns, link, next)
	conn_close(c);
}

bool httpd_listens(const struct httpd *h)
{
	return h->fd >= 0;
}

unsigned httpd_conns(const struct httpd *h)
{
	return h->nconns;
}

int httpd_new(struct httpd **out, const struct httpd_env *env)
{
	struct httpd *h;

	ALLOC_OBJ(h, HTTPD_MAGIC);
	*out = h;
	if (h == NULL)
		return -ENOMEM;
	h->env = *env;
	h->fd = -1;
	TAILQ_INIT(&h->conns);
	timer_init(&h->again, env->loop, accept_again);
	return 0;
}

void httpd_free(struct httpd **hp)
{
	struct httpd *h;

	if (*hp == NULL)
		return;
	TAKE_OBJ(h, hp, HTTPD_MAGIC);
	httpd_close(h);
	assert(h->nconns == 0);
	FREE_OBJ(h);
}

/* --- A request */

const char *httpd_method(const struct httpd_req *rq)
{
	return rq->head.method;
}

const char *httpd_target(const struct httpd_req *rq)
{
	return rq->head.target;
}

const char *httpd_peer(const struct httpd_req *rq)
{
	return rq->peer;
}

const char *httpd_header(const struct httpd_req *rq, const char *name)
{
	for (unsigned i = 0; i < rq->head.nheaders; i++) {
		if (strcasecmp(rq->head.header[i].name, name) == 0)
			return rq->head.header[i].value;
	}
	return NULL;
}
