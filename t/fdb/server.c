/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * standin_server DIR [--with-parent]: keeps the data of one stand-in "cluster" and serves
 * it on DIR/sock, to any number of processes; DIR/fdb.cluster is its cluster file.  Ends
 * on SIGTERM; killed and started again it has what it had.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/queue.h"
#include "faults.h"
#include "store.h"
#include "wire.h"

#define LOOK_AGAIN_MS 10 /* at the faults, while a request is held */

/* A request that waits: for its time, or for the faults to change (due 0). */
struct held {
	TAILQ_ENTRY(held) link;
	int64_t due;
	struct buf message;
};

struct watch {
	TAILQ_ENTRY(watch) link;
	uint64_t id;
	struct bytes key, value;
	bool present;
};

struct client {
	TAILQ_ENTRY(client) link;
	int fd;
	pid_t pid;
	char node[64];
	bool gone;
	struct buf in, out;
	TAILQ_HEAD(held_list, held) held;
	TAILQ_HEAD(, watch) watches;
};

static struct {
	int dir, fd;
	struct store *store;
	struct faults *faults;
	TAILQ_HEAD(, client) clients;
	unsigned n;
} sv = { .clients = TAILQ_HEAD_INITIALIZER(sv.clients) };

static volatile sig_atomic_t ended;

static void on_term(int sig)
{
	(void)sig;
	ended = 1;
}

static int64_t now_ms(void)
{
	struct timespec ts = { 0 };

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void answer(struct client *c, uint64_t id, int error, const struct buf *body)
{
	size_t len = error == 0 && body != NULL ? body->len : 0;

	buf_u32(&c->out, (uint32_t)(12 + len));
	buf_u64(&c->out, id);
	buf_u32(&c->out, (uint32_t)error);
	if (len > 0)
		buf_raw(&c->out, body->at, len);
}

static void watch_free(struct client *c, struct watch *w)
{
	TAILQ_REMOVE(&c->watches, w, link);
	bytes_free(&w->key);
	bytes_free(&w->value);
	free(w);
}

static void client_free(struct client *c)
{
	struct watch *w;
	struct held *h;

	while ((w = TAILQ_FIRST(&c->watches)) != NULL)
		watch_free(c, w);
	while ((h = TAILQ_FIRST(&c->held)) != NULL) {
		TAILQ_REMOVE(&c->held, h, link);
		buf_free(&h->message);
		free(h);
	}
	TAILQ_REMOVE(&sv.clients, c, link);
	sv.n--;
	close(c->fd);
	buf_free(&c->in);
	buf_free(&c->out);
	free(c);
}

/* --- requests: 0 and a body, or an error */

static int start_view(struct view *v, struct rd *r)
{
	int64_t version = (int64_t)rd_u64(r);
	struct mutations ms;
	int error;

	rd_mutations(r, &ms);
	error = view_start(v, sv.store, version, &ms);
	free(ms.at);
	return error;
}

static void rd_selector(struct rd *r, struct selector *sel)
{
	sel->key = rd_bytes(r);
	sel->or_equal = rd_u32(r) != 0;
	sel->offset = (int32_t)rd_u32(r);
}

static int do_get(struct rd *r, struct buf *to)
{
	struct view v;
	int error = start_view(&v, r);
	struct bytes value = { 0 };

	if (error == 0) {
		buf_u32(to, view_get(&v, rd_bytes(r), &value));
		buf_bytes(to, value);
	}
	view_end(&v);
	return error;
}

static int do_key(struct rd *r, struct buf *to)
{
	struct view v;
	struct selector sel;
	struct bytes key;
	uint32_t ends;
	int error = start_view(&v, r);

	if (error == 0) {
		v.top = rd_bytes(r);
		rd_selector(r, &sel);
		key = view_select(&v, &sel, &ends);
		buf_u32(to, ends);
		buf_bytes(to, key);
	}
	view_end(&v);
	return error;
}

/* Rows of [b, e) up to the limits, of which 0 is none. */
static void put_rows(const struct view *v, struct bytes b, struct bytes e, uint32_t rows,
    uint32_t bytes, bool reverse, struct buf *to)
{
	struct buf kvs = { 0 };
	struct bytes key, value, from = reverse ? e : b;
	uint32_t n = 0, more = 0;
	size_t size = 0;
	bool first = true;

	for (;; first = false) {
		bool found = reverse ? view_before(v, from, false, &key, &value) :
				       view_from(v, from, !first, &key, &value);

		if (!found || (reverse ? bytes_cmp(key, b) < 0 : bytes_cmp(key, e) >= 0))
			break;
		buf_bytes(&kvs, key);
		buf_bytes(&kvs, value);
		n++;
		size += key.len + value.len + 8;
		from = key;
		/* A limit that is just met says "more", as FoundationDB does. */
		if ((rows > 0 && n >= rows) || (bytes > 0 && size >= bytes)) {
			more = 1;
			break;
		}
	}
	buf_u32(to, more);
	buf_u32(to, n);
	buf_raw(to, kvs.at, kvs.len);
	buf_free(&kvs);
}

static int do_range(struct rd *r, struct buf *to)
{
	struct view v;
	struct selector from, till;
	uint32_t rows, bytes, ends_b, ends_e;
	struct bytes b, e;
	int error = start_view(&v, r);

	if (error == 0) {
		v.top = rd_bytes(r);
		rd_selector(r, &from);
		rd_selector(r, &till);
		rows = rd_u32(r);
		bytes = rd_u32(r);
		b = view_select(&v, &from, &ends_b);
		e = view_select(&v, &till, &ends_e);
		buf_u32(to, (ends_b & END_BEGIN) | (ends_e & END_END));
		put_rows(&v, b, e, rows, bytes, rd_u32(r) != 0, to);
	}
	view_end(&v);
	return error;
}

/* Tells those whose key has another value now. */
static void tell_watches(void)
{
	struct client *c;
	struct watch *w, *next;
	struct bytes value;

	TAILQ_FOREACH (c, &sv.clients, link) {
		TAILQ_FOREACH_SAFE (w, &c->watches, link, next) {
			bool has;

			if (!ranges_has(store_touched(sv.store), w->key))
				continue;
			has = store_latest(sv.store, w->key, &value);
			if (has != w->present || (has && !bytes_same(value, w->value))) {
				answer(c, w->id, 0, NULL);
				watch_free(c, w);
			}
		}
	}
}

static int do_commit(struct rd *r, struct buf *to)
{
	int64_t read_version = (int64_t)rd_u64(r), version = 0;
	struct ranges reads = { 0 }, writes = { 0 };
	struct mutations ms;
	int error;

	rd_ranges(r, &reads);
	rd_ranges(r, &writes);
	rd_mutations(r, &ms);
	error = r->bad ? ERR_INVALID_OPERATION :
			 store_commit(sv.store, read_version, &reads, &writes, &ms, &version);
	if (error == 0) {
		buf_u64(to, (uint64_t)version);
		tell_watches();
	}
	free(ms.at);
	ranges_free(&reads);
	ranges_free(&writes);
	return error;
}

static void do_watch(struct client *c, uint64_t id, struct rd *r)
{
	struct watch *w = mem_get(sizeof(*w));
	struct bytes value;
	bool has;

	w->id = id;
	w->key = bytes_dup(rd_bytes(r));
	w->present = rd_u32(r) != 0;
	w->value = bytes_dup(rd_bytes(r));
	TAILQ_INSERT_TAIL(&c->watches, w, link);
	has = store_latest(sv.store, w->key, &value);
	if (has != w->present || (has && !bytes_same(value, w->value))) {
		answer(c, id, 0, NULL);
		watch_free(c, w);
	}
}

static void forget(struct client *c, uint64_t id)
{
	struct watch *w, *next;
	struct held *h, *hnext;

	TAILQ_FOREACH_SAFE (w, &c->watches, link, next) {
		if (w->id == id)
			watch_free(c, w);
	}
	TAILQ_FOREACH_SAFE (h, &c->held, link, hnext) {
		struct rd r = { h->message.at, h->message.len, false };

		rd_u32(&r);
		if (rd_u64(&r) != id)
			continue;
		TAILQ_REMOVE(&c->held, h, link);
		buf_free(&h->message);
		free(h);
	}
}

/* A request that answers for itself has no error here: -1. */
static int work(struct client *c, uint32_t kind, uint64_t id, struct rd *r, struct buf *to)
{
	struct bytes node;

	switch (kind) {
	case WIRE_HELLO:
		node = rd_bytes(r);
		snprintf(c->node, sizeof(c->node), "%.*s", (int)node.len, (char *)node.at);
		return -1;
	case WIRE_GRV:
		buf_u64(to, (uint64_t)store_now(sv.store));
		return 0;
	case WIRE_GET:
		return do_get(r, to);
	case WIRE_KEY:
		return do_key(r, to);
	case WIRE_RANGE:
		return do_range(r, to);
	case WIRE_COMMIT:
		return do_commit(r, to);
	case WIRE_WATCH:
		do_watch(c, id, r);
		return -1;
	case WIRE_FORGET:
		forget(c, rd_u64(r));
		return -1;
	default:
		r->bad = true;
		return ERR_INVALID_OPERATION;
	}
}

static void hold(struct client *c, struct bytes message, int64_t due)
{
	struct held *h = mem_get(sizeof(*h));

	h->due = due;
	buf_raw(&h->message, message.at, message.len);
	TAILQ_INSERT_TAIL(&c->held, h, link);
}

static void serve(struct client *c, struct bytes message, bool again)
{
	struct rd r = { message.at, message.len, false };
	uint32_t kind = rd_u32(&r);
	uint64_t id = rd_u64(&r);
	struct fault f = faults_meet(sv.faults, kind < WIRE_KINDS ? kind : 0, c->pid, c->node, again);
	struct buf to = { 0 };
	int error = f.error;

	if (f.act == FAULT_HOLD || f.act == FAULT_SLOW) {
		hold(c, message, f.act == FAULT_HOLD ? 0 : now_ms() + f.ms);
		return;
	}
	if (f.act == FAULT_NONE)
		error = work(c, kind, id, &r, &to);
	else if (f.done && kind == WIRE_COMMIT && (error = work(c, kind, id, &r, &to)) == 0)
		error = f.error;
	if (f.act == FAULT_DROP || r.bad)
		c->gone = true;
	else if (error >= 0)
		answer(c, id, error, &to);
	buf_free(&to);
}

/* Serves what is held and due; changed: and what was held by a fault. */
static void serve_held(struct client *c, bool changed)
{
	struct held_list all = TAILQ_HEAD_INITIALIZER(all);
	struct held *h;
	int64_t now = now_ms();

	TAILQ_CONCAT(&all, &c->held, link);
	while ((h = TAILQ_FIRST(&all)) != NULL) {
		TAILQ_REMOVE(&all, h, link);
		if (h->due == 0 ? !changed : h->due > now) {
			TAILQ_INSERT_TAIL(&c->held, h, link);
			continue;
		}
		if (!c->gone)
			serve(c, bytes_of(h->message.at, h->message.len), true);
		buf_free(&h->message);
		free(h);
	}
}

static void serve_input(struct client *c)
{
	size_t done = 0;

	while (!c->gone && c->in.len - done >= 4) {
		struct rd r = { c->in.at + done, c->in.len - done, false };
		uint32_t len = rd_u32(&r);

		if (len > MESSAGE_LIMIT)
			c->gone = true;
		if (c->gone || r.len < len)
			break;
		serve(c, bytes_of(r.at, len), false);
		done += 4 + len;
	}
	buf_cut(&c->in, done);
}

static void receive(struct client *c)
{
	static uint8_t part[1 << 16];
	ssize_t n;

	while ((n = recv(c->fd, part, sizeof(part), 0)) > 0)
		buf_raw(&c->in, part, (size_t)n);
	if (n == 0 || (errno != EAGAIN && errno != EINTR))
		c->gone = true;
	serve_input(c);
}

static void transmit(struct client *c)
{
	ssize_t n;

	while (c->out.len > 0 &&
	    (n = send(c->fd, c->out.at, c->out.len, MSG_NOSIGNAL)) > 0)
		buf_cut(&c->out, (size_t)n);
	if (c->out.len > 0 && errno != EAGAIN && errno != EINTR)
		c->gone = true;
}

static void greet(void)
{
	struct ucred cred = { 0 };
	socklen_t len = sizeof(cred);
	struct client *c;
	int fd = accept4(sv.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
		return;
	c = mem_get(sizeof(*c));
	c->fd = fd;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0)
		c->pid = cred.pid;
	TAILQ_INIT(&c->held);
	TAILQ_INIT(&c->watches);
	TAILQ_INSERT_TAIL(&sv.clients, c, link);
	sv.n++;
}

/* Waits for something to do; the clients' entries follow the listening socket's. */
static void wait_poll(struct pollfd *fds, bool held, const sigset_t *open)
{
	struct timespec soon = { 0, LOOK_AGAIN_MS * 1000000 };
	struct client *c;
	nfds_t n = 1;

	fds[0] = (struct pollfd){ .fd = sv.fd, .events = POLLIN };
	TAILQ_FOREACH (c, &sv.clients, link) {
		fds[n].fd = c->fd;
		fds[n++].events = (short)(POLLIN | (c->out.len > 0 ? POLLOUT : 0));
	}
	if (ppoll(fds, n, held ? &soon : NULL, open) < 0 && errno != EINTR)
		err(1, "standin_server: ppoll");
}

static void turn(const sigset_t *open)
{
	struct pollfd *fds = mem_get((sv.n + 1) * sizeof(*fds));
	struct client *c, *next;
	bool held = false, changed;
	nfds_t i = 1;

	TAILQ_FOREACH (c, &sv.clients, link)
		held = held || !TAILQ_EMPTY(&c->held);
	wait_poll(fds, held, open);
	changed = faults_changed(sv.faults);
	TAILQ_FOREACH (c, &sv.clients, link) {
		serve_held(c, changed);
		if ((fds[i++].revents & (POLLIN | POLLHUP | POLLERR)) != 0)
			receive(c);
	}
	TAILQ_FOREACH_SAFE (c, &sv.clients, link, next) {
		if (!c->gone)
			transmit(c);
		if (c->gone)
			client_free(c);
	}
	if ((fds[0].revents & POLLIN) != 0)
		greet();
	free(fds);
}

/* By way of its descriptor: the path of a directory may be longer than an address. */
static void address_of(int dir, struct sockaddr_un *to)
{
	*to = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(to->sun_path, sizeof(to->sun_path), "/proc/self/fd/%d/sock", dir);
}

static void listen_in(const char *path)
{
	struct sockaddr_un address;
	char *real = realpath(path, NULL);
	int fd;

	sv.dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (sv.dir < 0 || real == NULL)
		err(1, "standin_server: %s", path);
	fd = openat(sv.dir, "fdb.cluster.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0 || dprintf(fd, "standin:%s\n", real) < 0 ||
	    renameat(sv.dir, "fdb.cluster.new", sv.dir, "fdb.cluster") != 0)
		err(1, "standin_server: %s/fdb.cluster", path);
	close(fd);
	free(real);
	sv.store = store_open(sv.dir);
	sv.faults = faults_new(sv.dir);
	faults_changed(sv.faults);
	unlinkat(sv.dir, "sock", 0);
	address_of(sv.dir, &address);
	sv.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (sv.fd < 0 || bind(sv.fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
	    listen(sv.fd, 512) != 0)
		err(1, "standin_server: %s/sock", path);
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_term };
	sigset_t term, open;

	if (argc < 2 || argc > 3 || (argc == 3 && strcmp(argv[2], "--with-parent") != 0)) {
		fprintf(stderr, "usage: standin_server DIR [--with-parent]\n");
		return 2;
	}
	if (argc == 3)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, &open);
	sigdelset(&open, SIGTERM);
	sigaction(SIGTERM, &sa, NULL);
	listen_in(argv[1]);
	while (!ended)
		turn(&open);
	unlinkat(sv.dir, "sock", 0);
	while (!TAILQ_EMPTY(&sv.clients))
		client_free(TAILQ_FIRST(&sv.clients));
	faults_free(&sv.faults);
	store_free(&sv.store);
	close(sv.fd);
	close(sv.dir);
	return 0;
}
