/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Puts a server far away: what either side of a connection sends arrives so many
 * microseconds later, in order, as many bytes under way as there may be.  (The connection
 * itself is made at once.)
 *
 *	bench_far PORT SERVER_PORT MICROSECONDS	(on 127.0.0.1; until killed)
 */
#include <arpa/inet.h>
#include <err.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <time.h>

struct piece {
	STAILQ_ENTRY(piece) link;
	uint64_t due;
	struct evbuffer *bytes; /* NULL: the end */
};

struct line;
struct way {
	struct line *line;
	struct bufferevent *from, *to;
	STAILQ_HEAD(, piece) pieces;
	struct event *timer;
	bool ended; /* nothing more is taken */
};

struct line {
	struct bufferevent *side[2];
	struct way way[2];
};

static struct event_base *base;
static struct sockaddr_in server;
static uint64_t delay_us;

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void *need(void *p)
{
	if (p == NULL)
		errx(1, "out of memory");
	return p;
}

static void line_free(struct line *l)
{
	struct piece *p;

	for (unsigned i = 0; i < 2; i++) {
		while ((p = STAILQ_FIRST(&l->way[i].pieces)) != NULL) {
			STAILQ_REMOVE_HEAD(&l->way[i].pieces, link);
			if (p->bytes != NULL)
				evbuffer_free(p->bytes);
			free(p);
		}
		event_free(l->way[i].timer);
		bufferevent_free(l->side[i]);
	}
	free(l);
}

static void way_arm(struct way *w)
{
	const struct piece *p = STAILQ_FIRST(&w->pieces);
	uint64_t now = now_us(), left;
	struct timeval tv;

	if (p == NULL)
		return;
	left = p->due > now ? p->due - now : 0;
	tv = (struct timeval){.tv_sec = (time_t)(left / 1000000), .tv_usec = (long)(left % 1000000)};
	event_add(w->timer, &tv);
}

static void way_take(struct way *w, struct evbuffer *bytes)
{
	struct piece *p = need(calloc(1, sizeof(*p)));

	p->due = now_us() + delay_us;
	p->bytes = bytes;
	STAILQ_INSERT_TAIL(&w->pieces, p, link);
	if (STAILQ_FIRST(&w->pieces) == p)
		way_arm(w);
}

static void side_read(struct bufferevent *from, void *arg)
{
	struct evbuffer *bytes = need(evbuffer_new());

	evbuffer_add_buffer(bytes, bufferevent_get_input(from));
	way_take(arg, bytes);
}

static void side_event(struct bufferevent *from, short what, void *arg)
{
	struct way *w = arg;

	(void)from;
	if ((what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) == 0 || w->ended)
		return;
	w->ended = true;
	way_take(w, NULL);
}

static void side_drained(struct bufferevent *to, void *arg)
{
	(void)to;
	line_free(((struct way *)arg)->line);
}

static void way_deliver(evutil_socket_t fd, short what, void *arg)
{
	struct way *w = arg;
	struct piece *p;

	(void)fd;
	(void)what;
	while ((p = STAILQ_FIRST(&w->pieces)) != NULL && p->due <= now_us()) {
		STAILQ_REMOVE_HEAD(&w->pieces, link);
		if (p->bytes == NULL) {
			free(p);
			if (evbuffer_get_length(bufferevent_get_output(w->to)) == 0)
				line_free(w->line);
			else
				bufferevent_setcb(w->to, NULL, side_drained, side_event, w);
			return;
		}
		bufferevent_write_buffer(w->to, p->bytes);
		evbuffer_free(p->bytes);
		free(p);
	}
	way_arm(w);
}

static struct bufferevent *side_new(evutil_socket_t fd)
{
	return need(bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS));
}

static void no_delay(evutil_socket_t fd)
{
	int one = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static void connected(struct evconnlistener *lev, evutil_socket_t fd, struct sockaddr *sa, int len,
    void *arg)
{
	struct line *l = need(calloc(1, sizeof(*l)));

	(void)lev;
	(void)sa;
	(void)len;
	(void)arg;
	l->side[0] = side_new(fd);
	l->side[1] = side_new(-1);
	for (unsigned i = 0; i < 2; i++) {
		struct way *w = &l->way[i];

		w->line = l;
		w->from = l->side[i];
		w->to = l->side[1 - i];
		STAILQ_INIT(&w->pieces);
		w->timer = need(event_new(base, -1, 0, way_deliver, w));
		bufferevent_setcb(w->from, side_read, NULL, side_event, w);
	}
	if (bufferevent_socket_connect(l->side[1], (void *)&server, sizeof(server)) != 0) {
		line_free(l);
		return;
	}
	no_delay(fd);
	no_delay(bufferevent_getfd(l->side[1]));
	bufferevent_enable(l->side[0], EV_READ | EV_WRITE);
	bufferevent_enable(l->side[1], EV_READ | EV_WRITE);
}

static struct sockaddr_in local(const char *port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
	    .sin_port = htons((uint16_t)atoi(port)),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

int main(int argc, char **argv)
{
	struct event_config *cfg = need(event_config_new());
	struct sockaddr_in at;

	if (argc != 4)
		errx(2, "usage: bench_far PORT SERVER_PORT MICROSECONDS");
	at = local(argv[1]);
	server = local(argv[2]);
	delay_us = strtoull(argv[3], NULL, 10);
	signal(SIGPIPE, SIG_IGN);
	/* Without it a timer counts in milliseconds. */
	event_config_set_flag(cfg, EVENT_BASE_FLAG_PRECISE_TIMER);
	base = need(event_base_new_with_config(cfg));
	event_config_free(cfg);
	if (evconnlistener_new_bind(base, connected, NULL,
		LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, -1, (void *)&at, sizeof(at)) == NULL)
		err(1, "port %s", argv[1]);
	return event_base_dispatch(base) == 0 ? 0 : 1;
}
