/* SPDX-License-Identifier: BSD-2-Clause */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/obj.h"
#include "http_rig.h"
#include "reactor/httpd.h"

#define CONNS 4u

static struct httpd *d;
static unsigned port;
static unsigned requests, releases;
static struct httpd_req *kept[8];
static unsigned nkept;
static bool keep;
static char big[3 * 1024 * 1024];
static size_t body_len;

static void released(void *arg)
{
	cr_assert_eq(arg, &releases);
	releases++;
}

static void answer(struct httpd_req *rq)
{
	const struct httpd_answer a = {.status = 206,
	    .headers = "X-Told: yes\r\n",
	    .body = big,
	    .len = body_len,
	    .release = released,
	    .arg = &releases};

	httpd_reply(rq, &a);
}

static void on_request(struct httpd_req *rq, void *user)
{
	cr_assert_eq(user, &requests);
	cr_assert_not_null(strstr(httpd_peer(rq), "127.0.0.1:"));
	requests++;
	if (keep)
		kept[nkept++] = rq;
	else
		answer(rq);
}

/* A free port: the system's choice. */
static int listen_somewhere(void)
{
	char address[32];

	for (unsigned i = 0; i < 50; i++) {
		port = 20000 + (unsigned)(getpid() * 7 + (int)i * 131) % 12000;
		snprintf(address, sizeof(address), "127.0.0.1:%u", port);
		if (httpd_listen(d, address, NULL) == 0)
			return 0;
	}
	return -1;
}

static void up(void)
{
	struct httpd_env env;

	http_rig_up();
	env = (struct httpd_env){.loop = http_rig.lp,
	    .conns_max = CONNS,
	    .request = on_request,
	    .user = &requests};
	cr_assert_eq(httpd_new(&d, &env), 0);
	cr_assert_not(httpd_listens(d));
	cr_assert_eq(listen_somewhere(), 0);
	requests = releases = nkept = 0;
	keep = false;
	body_len = 5;
	memset(big, 'x', sizeof(big));
	for (unsigned i = 0; i < 5; i++)
		big[i] = "hello"[i];
}

static void down(void)
{
	httpd_close(d);
	for (unsigned i = 0; i < nkept; i++)
		answer(kept[i]);
	httpd_free(&d);
	cr_assert_eq(requests, releases, "of %u answers %u were released", requests, releases);
	http_rig_down();
}

TestSuite(httpd, .init = up, .fini = down);

static void init(struct http_probe *p, const char *path)
{
	char url[128];

	snprintf(url, sizeof(url), "http://127.0.0.1:%u%s", port, path);
	http_probe_url(p, url);
}

Test(httpd, answers)
{
	struct http_probe p;

	init(&p, "/some/thing?x=1");
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_OK);
	cr_assert_eq(p.r.status, 206);
	cr_assert_eq(p.r.content_length, 5);
	cr_assert_str_eq(p.body, "hello");
	cr_assert_eq(httpd_conns(d), 1);
	/* on the same connection */
	init(&p, "/");
	http_probe_go(&p);
	cr_assert_str_eq(p.body, "hello");
	cr_assert_eq(httpd_conns(d), 1);
	init(&p, "/");
	p.r.method = "HEAD";
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_OK);
	cr_assert_eq(p.got, 0);
	cr_assert_eq(requests, 3);
}

Test(httpd, a_large_answer)
{
	struct http_probe p;

	body_len = sizeof(big);
	init(&p, "/");
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_OK);
	cr_assert_eq(p.got, sizeof(big));
}

Test(httpd, a_body_is_refused)
{
	struct http_probe p;

	init(&p, "/");
	p.r.method = "PUT";
	p.r.body = "data";
	p.r.body_len = 4;
	http_probe_go(&p);
	cr_assert(p.r.status == 413 || p.r.fail == HTTP_FAIL_RESET, "%ld", p.r.status);
	cr_assert_eq(requests, 0);
}

/* --- A client of our own */

static int dial(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
	    .sin_port = htons((uint16_t)port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	cr_assert_geq(fd, 0);
	cr_assert_eq(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

static void say(int fd, const char *text)
{
	cr_assert_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static void turn_until(const unsigned *what, unsigned n)
{
	while (*what < n)
		loop_turn(http_rig.lp, true);
}

/* What has come, so far as this text: or the end. */
static void hear(int fd, const char *until, char *buf, size_t size)
{
	size_t n = 0;
	ssize_t got;

	buf[0] = '\0';
	while (strstr(buf, until) == NULL) {
		got = recv(fd, buf + n, size - 1 - n, MSG_DONTWAIT);
		if (got < 0 && errno == EAGAIN) {
			loop_turn(http_rig.lp, false);
			continue;
		}
		if (got <= 0)
			return;
		n += (size_t)got;
		buf[n] = '\0';
	}
}

Test(httpd, several_at_once_are_answered_in_turn)
{
	char buf[4096];
	int fd = dial();

	say(fd, "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.0\r\n\r\nGET");
	turn_until(&requests, 3);
	hear(fd, "Connection: close\r\n\r\nhello", buf, sizeof(buf));
	cr_assert_not_null(strstr(buf, "Connection: close\r\n\r\nhello"));
	cr_assert_eq(requests, 3);
	close(fd);
}

Test(httpd, a_head_in_pieces)
{
	char buf[4096];
	const char *text = "GET /1 HTTP/1.1\r\nA: b\r\n\r\n";
	int fd = dial();

	for (size_t i = 0; text[i] != '\0'; i++) {
		cr_assert_eq(requests, 0);
		cr_assert_eq(send(fd, text + i, 1, MSG_NOSIGNAL), 1);
		loop_turn(http_rig.lp, false);
	}
	turn_until(&requests, 1);
	hear(fd, "hello", buf, sizeof(buf));
	cr_assert_eq(strncmp(buf, "HTTP/1.1 206 Partial Content\r\nX-Told: yes\r\n", 43), 0);
	close(fd);
}

Test(httpd, noise_ends_the_connection)
{
	static const struct {
		const char *text;
		const char *told;
	} all[] = {{"\r\n\r\n", " 400 "}, {"GET / HTTP/2.0\r\n\r\n", " 505 "},
	    {"GET / HTTP/1.1\r\nContent-Length: 7\r\n\r\n", " 413 "}};
	char buf[4096];

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		int fd = dial();

		say(fd, all[i].text);
		hear(fd, "never", buf, sizeof(buf));
		cr_assert_not_null(strstr(buf, all[i].told), "%zu: %s", i, buf);
		close(fd);
	}
	cr_assert_eq(requests, 0);
}

Test(httpd, whoever_has_room_is_heard)
{
	struct http_probe p;
	char buf[4096];
	int fd[CONNS + 1];

	/* Idle ones that have been served make room. */
	for (unsigned i = 0; i < CONNS; i++) {
		fd[i] = dial();
		say(fd[i], "GET / HTTP/1.1\r\n\r\n");
		hear(fd[i], "hello", buf, sizeof(buf));
	}
	cr_assert_eq(httpd_conns(d), CONNS);
	fd[CONNS] = dial();
	say(fd[CONNS], "GET / HTTP/1.1\r\n\r\n");
	hear(fd[CONNS], "hello", buf, sizeof(buf));
	cr_assert_eq(httpd_conns(d), CONNS);
	cr_assert_eq(recv(fd[0], buf, 1, 0), 0, "the longest idle one is closed");
	/* Those that are being served do not: others wait. */
	keep = true;
	for (unsigned i = 1; i <= CONNS; i++)
		say(fd[i], "GET / HTTP/1.1\r\n\r\n");
	turn_until(&nkept, CONNS);
	init(&p, "/");
	http_probe_start(&p);
	for (unsigned i = 0; i < 20; i++)
		loop_turn(http_rig.lp, false);
	cr_assert_eq(nkept, CONNS);
	keep = false;
	for (unsigned i = 0; i < CONNS; i++)
		answer(kept[i]);
	nkept = 0;
	http_probe_run(&p, 1);
	http_probe_expect(&p, HTTP_OK);
	for (unsigned i = 0; i <= CONNS; i++)
		close(fd[i]);
}

Test(httpd, who_is_gone_is_answered_all_the_same)
{
	int fd = dial();

	keep = true;
	body_len = sizeof(big);
	say(fd, "GET / HTTP/1.1\r\n\r\n");
	turn_until(&nkept, 1);
	close(fd);
	answer(kept[0]);
	nkept = 0;
	turn_until(&releases, 1);
	cr_assert_eq(httpd_conns(d), 0);
}

Test(httpd, closing_waits_for_nobody)
{
	char buf[64];
	int fd = dial();

	keep = true;
	say(fd, "GET / HTTP/1.1\r\n\r\n");
	turn_until(&nkept, 1);
	httpd_close(d);
	cr_assert_eq(recv(fd, buf, sizeof(buf), 0), 0);
	close(fd);
	cr_assert_eq(httpd_conns(d), 1, "its user still has it");
	answer(kept[0]);
	nkept = 0;
	cr_assert_eq(releases, 1);
	cr_assert_eq(httpd_conns(d), 0);
}

Test(httpd, addresses)
{
	static const char *const bad[] = {"", "x", "127.0.0.1", "127.0.0.1:", "localhost:80", ":80",
	    "::1:80", "[::1]", "[::1]:x", "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:0"};
	struct httpd_env env = {.loop = http_rig.lp, .conns_max = 1, .request = on_request};
	struct errtext et;
	struct httpd *other;
	char address[32];

	cr_assert_eq(httpd_new(&other, &env), 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		cr_assert_eq(httpd_listen(other, bad[i], &et), -EINVAL, "%s", bad[i]);
	snprintf(address, sizeof(address), "127.0.0.1:%u", port);
	cr_assert_eq(httpd_listen(other, address, &et), -EADDRINUSE);
	cr_assert_not_null(strstr(et.s, "in use"));
	httpd_close(d);
	cr_assert_eq(httpd_listen(other, address, &et), 0, "at once");
	httpd_free(&other);
}

/* --- Heads */

static ssize_t parse(const char *text, struct httpd_head *h)
{
	static char buf[HTTPD_HEAD_MAX + 64];
	size_t n = strlen(text);

	cr_assert_lt(n, sizeof(buf));
	memcpy(buf, text, n + 1);
	return httpd_parse(buf, n, h);
}

Test(httpd_head, parse)
{
	struct httpd_head h;

	cr_assert_eq(parse("GET /a%20b HTTP/1.1\r\nHost: x\r\nRange:  bytes=1-2 \t\r\nE:\r\n\r\nrest",
			 &h),
	    57);
	cr_assert_str_eq(h.method, "GET");
	cr_assert_str_eq(h.target, "/a%20b");
	cr_assert_eq(h.nheaders, 3);
	cr_assert_str_eq(h.header[1].name, "Range");
	cr_assert_str_eq(h.header[1].value, "bytes=1-2");
	cr_assert_str_eq(h.header[2].value, "");
	cr_assert(h.keep);
	cr_assert_gt(parse("GET / HTTP/1.0\r\n\r\n", &h), 0);
	cr_assert_not(h.keep);
	cr_assert_gt(parse("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", &h), 0);
	cr_assert_not(h.keep);
	cr_assert_gt(parse("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", &h), 0);
	cr_assert_eq(parse("", &h), 0);
	cr_assert_eq(parse("GET / HTTP/1.1\r\nHost: x\r\n", &h), 0);
}

Test(httpd_head, what_is_none)
{
	static const char *const bad[] = {"\r\n\r\n", "GET\r\n\r\n", "GET /\r\n\r\n",
	    "GET  HTTP/1.1\r\n\r\n", "GET / HTTP/1.1 \r\n\r\n", "GET x HTTP/1.1\r\n\r\n",
	    "G@T / HTTP/1.1\r\n\r\n", "GET / a HTTP/1.1\r\n\r\n", "GET / http/1.1\r\n\r\n",
	    "GET / HTTP/1.1\r\nnone\r\n\r\n", "GET / HTTP/1.1\r\n: x\r\n\r\n",
	    "GET / HTTP/1.1\r\na : x\r\n\r\n", "GET / HTTP/1.1\r\na: b\r\n c\r\n\r\n",
	    "GET / HTTP/1.1\r\na: b\nc\r\n\r\n", "GET /\x01 HTTP/1.1\r\n\r\n"};
	char text[HTTPD_HEAD_MAX + 32];
	struct httpd_head h;
	size_t n;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		cr_assert_eq(parse(bad[i], &h), -EBADMSG, "%zu", i);
	cr_assert_eq(parse("GET / HTTP/2.0\r\n\r\n", &h), -EPROTONOSUPPORT);
	cr_assert_eq(parse("GET / HTTP/1.1\r\ntransfer-encoding: x\r\n\r\n", &h), -EOPNOTSUPP);
	n = (size_t)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\n");
	for (unsigned i = 0; i <= HTTPD_HEADERS_MAX; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "a: b\r\n");
	snprintf(text + n, sizeof(text) - n, "\r\n");
	cr_assert_eq(parse(text, &h), -E2BIG);
	memset(text, 'a', HTTPD_HEAD_MAX);
	text[HTTPD_HEAD_MAX] = '\0';
	cr_assert_eq(parse(text, &h), -E2BIG);
}
