/* SPDX-License-Identifier: BSD-2-Clause */
#include "net.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "conn.h"
#include "wire.h"

struct hook {
	void (*fn)(void *arg);
	void *arg;
	struct hook *next;
};

static struct {
	pthread_mutex_t lock;
	STAILQ_HEAD(, call) calls;
	int wake; /* eventfd */
	bool setup, ran, stopped;
	struct hook *hooks;
	uint64_t random;
	TAILQ_HEAD(, timer) timers; /* network thread */
} net = { .lock = PTHREAD_MUTEX_INITIALIZER,
	.calls = STAILQ_HEAD_INITIALIZER(net.calls),
	.wake = -1,
	.timers = TAILQ_HEAD_INITIALIZER(net.timers) };

static __thread bool is_me;

bool net_is_me(void)
{
	return is_me;
}

uint32_t net_random(void)
{
	net.random = net.random * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(net.random >> 33);
}

int64_t net_now(void)
{
	struct timespec ts = { 0 };

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void timer_arm(struct timer *t, int64_t at, void (*fire)(struct timer *t))
{
	timer_stop(t);
	t->armed = true;
	t->at = at;
	t->fire = fire;
	TAILQ_INSERT_TAIL(&net.timers, t, link);
}

void timer_stop(struct timer *t)
{
	if (t->armed)
		TAILQ_REMOVE(&net.timers, t, link);
	t->armed = false;
}

struct call *call_new(void (*run)(struct call *c), FDBTransaction *tr)
{
	struct call *c = mem_get(sizeof(*c));

	c->run = run;
	c->tr = tr;
	return c;
}

static void wake(void)
{
	uint64_t one = 1;

	while (write(net.wake, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

void call_post(struct call *c)
{
	bool first;

	pthread_mutex_lock(&net.lock);
	first = STAILQ_EMPTY(&net.calls);
	STAILQ_INSERT_TAIL(&net.calls, c, link);
	pthread_mutex_unlock(&net.lock);
	if (first)
		wake();
}

static struct call *take_call(void)
{
	struct call *c;

	pthread_mutex_lock(&net.lock);
	c = STAILQ_FIRST(&net.calls);
	if (c != NULL)
		STAILQ_REMOVE_HEAD(&net.calls, link);
	pthread_mutex_unlock(&net.lock);
	return c;
}

static bool run_calls(void)
{
	struct call *c;
	bool any = false;

	/* Not without end: who posts from a callback must not starve the connection. */
	for (int i = 0; i < 1000 && (c = take_call()) != NULL; i++) {
		c->run(c);
		bytes_free(&c->a);
		bytes_free(&c->b);
		free(c);
		any = true;
	}
	return any;
}

/* Fires what is due; gives the milliseconds to the next one, -1: none. */
static int64_t run_timers(void)
{
	int64_t now = net_now(), next = -1;
	struct timer *t;

	for (;;) {
		TAILQ_FOREACH (t, &net.timers, link) {
			if (t->at <= now)
				break;
		}
		if (t == NULL)
			break;
		timer_stop(t);
		t->fire(t);
	}
	TAILQ_FOREACH (t, &net.timers, link) {
		if (next < 0 || t->at - now < next)
			next = t->at - now;
	}
	return next;
}

static bool is_stopped(void)
{
	bool stopped;

	pthread_mutex_lock(&net.lock);
	stopped = net.stopped;
	pthread_mutex_unlock(&net.lock);
	return stopped;
}

static void loop(void)
{
	struct pollfd *fds;
	uint64_t count;

	while (!is_stopped()) {
		int64_t timeout, retry;
		bool busy = run_calls();
		nfds_t n;

		timeout = run_timers();
		busy = future_deliver() || busy;
		retry = conn_connect();
		if (timeout < 0 || (retry >= 0 && retry < timeout))
			timeout = retry;
		n = conn_poll(&fds);
		fds[0] = (struct pollfd){ .fd = net.wake, .events = POLLIN };
		if (poll(fds, n, busy ? 0 : (int)timeout) > 0) {
			if ((fds[0].revents & POLLIN) != 0 &&
			    read(net.wake, &count, sizeof(count)) < 0 && errno != EAGAIN)
				perror("libfdb_c stand-in: eventfd");
			conn_serve(fds);
		}
		free(fds);
	}
}

fdb_error_t fdb_network_set_option(int option, const uint8_t *value, int length)
{
	(void)value;
	(void)length;
	if (api_version == 0)
		return ERR_API_UNSET;
	return option >= 10 && option < 2000 ? 0 : ERR_OPTION;
}

fdb_error_t fdb_setup_network(void)
{
	const char *seed = getenv("BATONFS_FDB_STANDIN_SEED");

	if (api_version == 0)
		return ERR_API_UNSET;
	if (net.setup)
		return ERR_ALREADY_SETUP;
	net.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (net.wake < 0)
		return 1500; /* platform_error */
	net.random = seed != NULL ? strtoull(seed, NULL, 10) : (uint64_t)getpid();
	net.setup = true;
	return 0;
}

fdb_error_t fdb_add_network_thread_completion_hook(void (*fn)(void *), void *arg)
{
	struct hook *h;

	if (!net.setup)
		return ERR_NOT_SETUP;
	h = mem_get(sizeof(*h));
	h->fn = fn;
	h->arg = arg;
	pthread_mutex_lock(&net.lock);
	h->next = net.hooks;
	net.hooks = h;
	pthread_mutex_unlock(&net.lock);
	return 0;
}

static struct hook *take_hook(void)
{
	struct hook *h;

	pthread_mutex_lock(&net.lock);
	h = net.hooks;
	if (h != NULL)
		net.hooks = h->next;
	pthread_mutex_unlock(&net.lock);
	return h;
}

fdb_error_t fdb_run_network(void)
{
	struct hook *h;
	bool ran;

	if (!net.setup)
		return ERR_NOT_SETUP;
	pthread_mutex_lock(&net.lock);
	ran = net.ran;
	net.ran = true;
	pthread_mutex_unlock(&net.lock);
	if (ran)
		return ERR_NO_RESTART;
	is_me = true;
	loop();
	is_me = false;
	while ((h = take_hook()) != NULL) {
		h->fn(h->arg);
		free(h);
	}
	return 0;
}

fdb_error_t fdb_stop_network(void)
{
	if (!net.setup)
		return ERR_NOT_SETUP;
	pthread_mutex_lock(&net.lock);
	net.stopped = true;
	pthread_mutex_unlock(&net.lock);
	wake();
	return 0;
}
