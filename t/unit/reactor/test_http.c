/* SPDX-License-Identifier: BSD-2-Clause */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../lib/http_script.h"
#include "../../lib/nth_fault.h"
#include "base/obj.h"
#include "base/options.h"
#include "base/units.h"
#include "reactor/http.h"
#include "reactor/loop.h"
#include "reactor/timer.h"

/* No test may run longer than this. */
#define LIMIT_S 60

static struct loop *lp;
static struct config *cfg;
static struct http *h;
static struct http_script *hs;

static void setup(void)
{
	signal(SIGPIPE, SIG_IGN);
	alarm(LIMIT_S);
	cr_assert_eq(loop_new(&lp, &clock_system), 0);
	cr_assert_not_null(cfg = config_new());
	hs = http_script_new();
	cr_assert_eq(http_new(&h, lp, cfg, NULL), 0);
}

static void teardown(void)
{
	http_free(&h);
	http_script_free(&hs);
	config_free(&cfg);
	loop_free(&lp);
}

TestSuite(http, .init = setup, .fini = teardown);

/* A request and what came of it. */
struct probe {
	struct http_req r;
	char url[256];
	unsigned heads, datas, dones;
	size_t got;
	char body[64]; /* its beginning */
	int fail_head, fail_data;
	struct probe *abort_in_head, *abort_in_data, *abort_in_done;
	struct probe *start_in_head, *start_in_done;
	bool again;
};

static int on_headers(struct http_req *r)
{
	struct probe *p = container_of(r, struct probe, r);

	p->heads++;
	if (p->start_in_head != NULL)
		cr_assert_eq(http_start(h, &p->start_in_head->r), 0);
	if (p->abort_in_head != NULL)
		http_abort(&p->abort_in_head->r);
	return p->fail_head;
}

static int on_data(struct http_req *r, const void *data, size_t len)
{
	struct probe *p = container_of(r, struct probe, r);

	p->datas++;
	if (p->got < sizeof(p->body) - 1)
		memcpy(p->body + p->got, data, MIN(len, sizeof(p->body) - 1 - p->got));
	p->got += len;
	if (p->abort_in_data != NULL)
		http_abort(&p->abort_in_data->r);
	return p->fail_data;
}

static void on_done(struct http_req *r)
{
	struct probe *p = container_of(r, struct probe, r);

	p->dones++;
	if (p->abort_in_done != NULL)
		http_abort(&p->abort_in_done->r);
	if (p->start_in_done != NULL)
		cr_assert_eq(http_start(h, &p->start_in_done->r), 0);
	if (p->again) {
		p->again = false;
		cr_assert_eq(http_start(h, r), 0);
	}
}

static void probe_url(struct probe *p, const char *url)
{
	memset(p, 0, sizeof(*p));
	snprintf(p->url, sizeof(p->url), "%s", url);
	p->r.method = "GET";
	p->r.url = p->url;
	p->r.on_headers = on_headers;
	p->r.on_data = on_data;
	p->r.done = on_done;
}

static void probe_init(struct probe *p, const char *path)
{
	char url[256];

	snprintf(url, sizeof(url), "%s%s", http_script_url(hs), path);
	probe_url(p, url);
}

static void run_until(struct probe *p, unsigned dones)
{
	while (p->dones < dones)
		loop_turn(lp, true);
}

static void start(struct probe *p)
{
	cr_assert_eq(http_start(h, &p->r), 0);
	cr_assert_eq(p->dones, 0, "done inside http_start");
}

static void go(struct probe *p)
{
	unsigned before = p->dones;
	int rc = http_start(h, &p->r);

	cr_assert_eq(rc, 0, "http_start: %d", rc);
	run_until(p, before + 1);
}

static void expect(const struct probe *p, enum http_fail fail)
{
	cr_assert_eq(p->r.fail, fail, "fail %d, expected %d: %s", (int)p->r.fail, (int)fail,
	    p->r.errtext);
	if (fail != HTTP_OK)
		cr_assert_neq(p->r.errtext[0], '\0');
}

/* The connection must be of use after whatever happened before. */
static void still_works(void)
{
	struct probe p;

	http_script_reply(hs, "GET /alive", 200, NULL, "yes", 3, 0);
	probe_init(&p, "/alive");
	go(&p);
	expect(&p, HTTP_OK);
	cr_assert_str_eq(p.body, "yes");
}

Test(http, get)
{
	struct probe p;
	char buf[64];
	const struct http_header hd = { "X-Asked", "for" };

	http_script_reply(hs, "GET /a/../b?x=%2F", 206, "ETag: \"e\"\r\nX-Empty:\r\n", "hello", 5, 1);
	probe_init(&p, "/a/../b?x=%2F");
	p.r.headers = &hd;
	p.r.nheaders = 1;
	go(&p);
	expect(&p, HTTP_OK);
	cr_assert_eq(p.r.status, 206);
	cr_assert_eq(p.r.content_length, 5);
	cr_assert_str_eq(p.body, "hello");
	cr_assert_eq(p.heads, 1);
	cr_assert_eq(p.dones, 1);
	cr_assert_not_null(http_script_header(http_script_get(hs, 0), "x-asked", buf, sizeof(buf)));
	cr_assert_str_eq(buf, "for");
	cr_assert_null(http_req_header(&p.r, "etag"), "headers outlive done");
}

static char seen_etag[32], seen_empty[32];

static void keep_headers(struct http_req *r)
{
	const char *e = http_req_header(r, "etag"), *m = http_req_header(r, "X-EMPTY");

	snprintf(seen_etag, sizeof(seen_etag), "%s", e != NULL ? e : "(none)");
	snprintf(seen_empty, sizeof(seen_empty), "%s", m != NULL ? m : "(none)");
	cr_assert_null(http_req_header(r, "eta"));
	on_done(r);
}

Test(http, headers_in_done_and_interim_response)
{
	struct probe p;
	struct http_script_answer a = {
		.raw = "HTTP/1.1 100 Continue\r\nETag: wrong\r\n\r\n"
		       "HTTP/1.1 200 OK\r\nETag:   \"right\" \r\nX-Empty:\r\nContent-Length: 0\r\n\r\n",
	};

	http_script_add(hs, &a);
	probe_init(&p, "/");
	p.r.done = keep_headers;
	go(&p);
	expect(&p, HTTP_OK);
	cr_assert_str_eq(seen_etag, "\"right\"");
	cr_assert_str_eq(seen_empty, "");
	cr_assert_eq(p.heads, 1);
}

Test(http, methods_and_bodies)
{
	static const char *const methods[] = { "HEAD", "PUT", "POST", "DELETE", "PUT" };
	static const char *const bodies[] = { NULL, "put body", "post body", NULL, NULL };
	char buf[64];

	for (unsigned i = 0; i < ARRAY_LEN(methods); i++) {
		const struct http_script_req *rq;
		struct probe p;

		http_script_reply(hs, methods[i], 200, NULL, "12345", 5, 1);
		probe_init(&p, "/m");
		p.r.method = methods[i];
		p.r.body = bodies[i];
		p.r.body_len = bodies[i] != NULL ? strlen(bodies[i]) : 0;
		go(&p);
		expect(&p, HTTP_OK);
		cr_assert_eq(p.r.content_length, 5);
		cr_assert_eq(p.got, i == 0 ? 0 : 5);
		rq = http_script_get(hs, i);
		cr_assert_str_eq(rq->method, methods[i]);
		cr_assert_str_eq(rq->body, bodies[i] != NULL ? bodies[i] : "");
		cr_assert_null(http_script_header(rq, "content-type", buf, sizeof(buf)));
		if (strcmp(methods[i], "PUT") == 0)
			cr_assert_not_null(
			    http_script_header(rq, "content-length", buf, sizeof(buf)));
	}
	cr_assert_eq(http_script_conns(hs), 1);
}

Test(http, keep_alive_reuses_and_connections_are_limited)
{
	struct probe p[8];

	cfg->ufs_connections = 2;
	http_free(&h);
	cr_assert_eq(http_new(&h, lp, cfg, NULL), 0);
	http_script_reply(hs, NULL, 200, NULL, "x", 1, 0);
	for (int i = 0; i < 8; i++) {
		probe_init(&p[i], "/k");
		start(&p[i]);
	}
	for (int i = 0; i < 8; i++) {
		run_until(&p[i], 1);
		expect(&p[i], HTTP_OK);
	}
	cr_assert_eq(http_script_count(hs), 8);
	cr_assert_leq(http_script_conns(hs), 2);
}

Test(http, restart_in_done)
{
	struct probe p, q;

	http_script_reply(hs, NULL, 200, NULL, "x", 1, 0);
	probe_init(&p, "/p");
	probe_init(&q, "/q");
	p.again = true;
	p.start_in_done = &q;
	start(&p);
	run_until(&p, 2);
	cr_assert_geq(q.dones, 1);
	expect(&q, HTTP_OK);
	cr_assert_eq(p.got, 2);
}

Test(http, start_in_callback)
{
	struct probe p, q;

	http_script_reply(hs, NULL, 200, NULL, "x", 1, 0);
	probe_init(&p, "/p");
	probe_init(&q, "/q");
	p.start_in_head = &q;
	start(&p);
	run_until(&p, 1);
	run_until(&q, 1);
	expect(&q, HTTP_OK);
}

Test(http, truncated_body)
{
	struct http_script_answer a = {
		.raw = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
		.end = HTTP_SCRIPT_CLOSE,
		.times = 1,
	};
	struct probe p;

	http_script_add(hs, &a);
	probe_init(&p, "/t");
	go(&p);
	expect(&p, HTTP_FAIL_RESET);
	cr_assert_str_eq(p.body, "only this");
	still_works();
}

Test(http, no_answer_and_nonsense)
{
	struct http_script_answer none = { .end = HTTP_SCRIPT_CLOSE, .times = 1 };
	struct http_script_answer junk = { .raw = "220 smtp ready\r\n", .end = HTTP_SCRIPT_CLOSE,
		.times = 1 };
	struct probe p;

	http_script_add(hs, &none);
	probe_init(&p, "/n");
	go(&p);
	expect(&p, HTTP_FAIL_RESET);
	http_script_add(hs, &junk);
	probe_init(&p, "/j");
	go(&p);
	cr_assert_neq(p.r.fail, HTTP_OK);
	cr_assert_eq(p.got, 0);
	still_works();
}

Test(http, reset_in_body)
{
	struct http_script_answer a = {
		.raw = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
		.end = HTTP_SCRIPT_RESET,
		.times = 1,
	};
	struct probe p;

	http_script_add(hs, &a);
	probe_init(&p, "/r");
	go(&p);
	expect(&p, HTTP_FAIL_RESET);
	still_works();
}

Test(http, stall_ends_at_timeout)
{
	struct http_script_answer a = {
		.raw = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
		.end = HTTP_SCRIPT_STALL,
	};
	struct probe p;

	http_script_add(hs, &a);
	probe_init(&p, "/s");
	p.r.timeout_ns = 500 * NS_PER_MS;
	go(&p);
	expect(&p, HTTP_FAIL_STALL);
	cr_assert_eq(p.got, 9);
	cr_assert(http_script_wait_open(hs, 0, 5000), "the stalled connection was kept");
}

Test(http, silence_ends_at_timeout)
{
	struct http_script_answer a = { .end = HTTP_SCRIPT_STALL };
	struct probe p;

	http_script_add(hs, &a);
	probe_init(&p, "/s");
	p.r.timeout_ns = 100 * NS_PER_MS;
	go(&p);
	expect(&p, HTTP_FAIL_STALL);
	cr_assert_eq(p.heads, 0);
}

Test(http, stall_ends_by_low_speed)
{
	struct http_script_answer a = {
		.raw = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
		.end = HTTP_SCRIPT_STALL,
	};
	struct probe p;

	cfg->ufs_low_speed_time = NS_PER_S;
	http_script_add(hs, &a);
	probe_init(&p, "/s");
	go(&p);
	expect(&p, HTTP_FAIL_STALL);
}

Test(http, slow_bytes_arrive)
{
	struct http_script_answer a = {
		.raw = "HTTP/1.1 200 OK\r\nETag: abc\r\nContent-Length: 4\r\n\r\nslow",
		.slow_bytes = 1,
		.slow_ms = 1,
	};
	struct probe p;

	http_script_add(hs, &a);
	probe_init(&p, "/s");
	go(&p);
	expect(&p, HTTP_OK);
	cr_assert_str_eq(p.body, "slow");
}

Test(http, too_long_head)
{
	size_t len = 10 * MIB, at;
	char *raw = malloc(len + 64);
	struct http_script_answer a = { .raw = raw, .end = HTTP_SCRIPT_CLOSE, .times = 1 };
	struct probe p;

	cr_assert_not_null(raw);
	at = (size_t)sprintf(raw, "HTTP/1.1 200 OK\r\n");
	while (at < len)
		at += (size_t)sprintf(raw + at, "X-Filler: 0123456789abcdef\r\n");
	at += (size_t)sprintf(raw + at, "\r\n");
	a.raw_len = at;
	http_script_add(hs, &a);
	free(raw);
	probe_init(&p, "/h");
	go(&p);
	expect(&p, HTTP_FAIL_SINK);
	cr_assert_eq(p.heads, 0);
	still_works();
}

Test(http, sinks_stop)
{
	struct probe p;

	http_script_reply(hs, "GET /s", 200, NULL, "data", 4, 0);
	probe_init(&p, "/s");
	p.fail_head = -1;
	go(&p);
	expect(&p, HTTP_FAIL_SINK);
	cr_assert_eq(p.datas, 0);
	probe_init(&p, "/s");
	p.fail_data = -1;
	go(&p);
	expect(&p, HTTP_FAIL_SINK);
	cr_assert_eq(p.datas, 1);
	still_works();
}

Test(http, connection_refused)
{
	struct probe p;
	char url[64];

	snprintf(url, sizeof(url), "%s/x", http_script_url(hs));
	http_script_free(&hs);
	probe_url(&p, url);
	go(&p);
	expect(&p, HTTP_FAIL_CONNECT);
	hs = http_script_new();
}

Test(http, name_unknown)
{
	struct probe p;

	probe_url(&p, "http://no-such-host.invalid/");
	p.r.timeout_ns = 20 * NS_PER_S;
	go(&p);
	expect(&p, HTTP_FAIL_RESOLVE);
}

Test(http, bad_requests)
{
	const struct http_header empty = { "X-A", "" }, inject = { "X-A", "b\r\nX-C: d" };
	struct probe p;

	probe_init(&p, "/");
	p.r.nheaders = 1;
	p.r.headers = &empty;
	cr_assert_eq(http_start(h, &p.r), -EINVAL);
	p.r.headers = &inject;
	cr_assert_eq(http_start(h, &p.r), -EINVAL);
	p.r.nheaders = 0;
	p.r.method = NULL;
	cr_assert_eq(http_start(h, &p.r), -EINVAL);
	probe_url(&p, "file:///etc/passwd");
	go(&p);
	expect(&p, HTTP_FAIL_OTHER);
	cr_assert_eq(p.got, 0);
	still_works();
}

Test(http, abort_before_it_runs)
{
	struct probe p;

	probe_init(&p, "/a");
	http_abort(&p.r);
	start(&p);
	http_abort(&p.r);
	http_abort(&p.r);
	still_works();
	cr_assert_eq(p.dones, 0);
	cr_assert_eq(http_script_count_of(hs, "/a "), 0);
}

Test(http, abort_in_own_headers)
{
	struct probe p;

	http_script_reply(hs, "GET /x", 200, NULL, "data", 4, 0);
	probe_init(&p, "/x");
	p.abort_in_head = &p;
	start(&p);
	while (p.heads == 0)
		loop_turn(lp, true);
	still_works();
	cr_assert_eq(p.dones + p.datas, 0);
}

Test(http, abort_in_own_data)
{
	struct probe p;

	http_script_reply(hs, "GET /x", 200, NULL, "data", 4, 0);
	probe_init(&p, "/x");
	p.abort_in_data = &p;
	start(&p);
	while (p.datas == 0)
		loop_turn(lp, true);
	still_works();
	cr_assert_eq(p.dones, 0);
	cr_assert_eq(p.datas, 1);
}

/* From a callback of one request, give up another that is in mid-body. */
Test(http, abort_of_another)
{
	struct http_script_answer stall = {
		.match = "GET /victim",
		.raw = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
		.end = HTTP_SCRIPT_STALL,
	};

	http_script_add(hs, &stall);
	http_script_reply(hs, "GET /x", 200, NULL, "data", 4, 0);
	for (int where = 0; where < 3; where++) {
		struct probe victim, p;

		probe_init(&victim, "/victim");
		start(&victim);
		while (victim.datas == 0)
			loop_turn(lp, true);
		probe_init(&p, "/x");
		*(where == 0 ? &p.abort_in_head : where == 1 ? &p.abort_in_data :
							       &p.abort_in_done) = &victim;
		go(&p);
		expect(&p, HTTP_OK);
		still_works();
		cr_assert_eq(victim.dones, 0);
		cr_assert(http_script_wait_open(hs, 1, 5000), "the victim's connection lives on");
	}
}

Test(http, free_while_running)
{
	struct http_script_answer a = { .end = HTTP_SCRIPT_STALL };
	struct probe p[3];

	http_script_add(hs, &a);
	for (int i = 0; i < 3; i++) {
		probe_init(&p[i], "/f");
		start(&p[i]);
	}
	while (http_script_count(hs) < 3)
		loop_turn(lp, false);
	http_free(&h);
	cr_assert(http_script_wait_open(hs, 0, 5000));
	for (int i = 0; i < 3; i++)
		cr_assert_eq(p[i].dones, 0);
}

Test(http, bulk)
{
	size_t chunk = MIB, total = 64 * MIB;
	struct http_script_answer a = { .repeat_to = total };
	char *body = calloc(1, chunk), *all, head[64];
	struct probe p;
	int n;

	n = snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", total);
	cr_assert_not_null(all = malloc((size_t)n + chunk));
	memcpy(all, head, (size_t)n);
	memcpy(all + n, body, chunk);
	a.raw = all;
	a.raw_len = (size_t)n + chunk;
	a.head_len = (size_t)n;
	http_script_add(hs, &a);
	probe_init(&p, "/bulk");
	go(&p);
	expect(&p, HTTP_OK);
	cr_assert_eq(p.got, total);
	free(all);
	free(body);
}

Test(http, signs)
{
	const struct http_header hd = { "x-amz-content-sha256", "UNSIGNED-PAYLOAD" };
	struct probe p;
	char buf[512];

	http_script_reply(hs, NULL, 200, NULL, "x", 1, 0);
	for (int i = 0; i < 2; i++) {
		probe_init(&p, "/b/key?list-type=2&prefix=");
		if (i == 0) {
			p.r.sigv4 = "aws:amz:eu-test-1:s3";
			p.r.userpwd = "AKIDEXAMPLE:SE:CRET";
		}
		p.r.headers = &hd;
		p.r.nheaders = 1;
		go(&p);
		expect(&p, HTTP_OK);
	}
	cr_assert_not_null(
	    http_script_header(http_script_get(hs, 0), "authorization", buf, sizeof(buf)));
	cr_assert_not_null(strstr(buf, "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"));
	cr_assert_not_null(strstr(buf, "/eu-test-1/s3/aws4_request"));
	cr_assert_not_null(strstr(buf, "x-amz-content-sha256"));
	/* Nothing of it may stay on the recycled handle. */
	cr_assert_null(
	    http_script_header(http_script_get(hs, 1), "authorization", buf, sizeof(buf)));
}

Test(http, allocation_failures)
{
	cfg->ufs_connect_timeout = 100 * NS_PER_MS;
	http_script_reply(hs, NULL, 200, "ETag: x\r\n", "body", 4, 0);
	for (unsigned n = 1;; n++) {
		struct probe p;
		struct http *one = NULL;
		bool fired;
		int rc;

		probe_init(&p, "/n");
		p.r.timeout_ns = 100 * NS_PER_MS;
		nth_arm(n);
		rc = http_new(&one, lp, cfg, NULL);
		if (rc == 0) {
			rc = http_start(one, &p.r);
			while (rc == 0 && p.dones == 0)
				loop_turn(lp, true);
			nth_disarm();
			http_free(&one);
		}
		fired = nth_fired();
		cr_assert(rc == 0 || rc == -ENOMEM, "%d at %u", rc, n);
		if (rc == 0) {
			cr_assert_eq(p.dones, 1);
			cr_assert(p.r.fail != HTTP_OK || p.got == 4, "short body at %u", n);
		}
		if (!fired) {
			cr_assert_eq(rc, 0);
			expect(&p, HTTP_OK);
			break;
		}
	}
}

/* --- TLS, against openssl's test server */

struct tls {
	char dir[64], key[96], cert[96];
	pid_t pid;
	unsigned port;
};

static unsigned free_port(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	cr_assert_eq(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	getsockname(fd, (struct sockaddr *)&sin, &len);
	close(fd);
	return ntohs(sin.sin_port);
}

static void tls_start(struct tls *t)
{
	char port[64];
	int out[2];
	char c[256], cmd[512];

	strcpy(t->dir, "/tmp/batonfs-http-XXXXXX");
	cr_assert_not_null(mkdtemp(t->dir));
	snprintf(t->key, sizeof(t->key), "%s/key", t->dir);
	snprintf(t->cert, sizeof(t->cert), "%s/cert", t->dir);
	snprintf(cmd, sizeof(cmd),
	    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
	    "-keyout %s -out %s -days 2 -subj /CN=localhost "
	    "-addext subjectAltName=IP:127.0.0.1 2>/dev/null",
	    t->key, t->cert);
	cr_assert_eq(system(cmd), 0);
	t->port = free_port();
	snprintf(port, sizeof(port), "127.0.0.1:%u", t->port);
	cr_assert_eq(pipe(out), 0);
	t->pid = fork();
	if (t->pid == 0) {
		dup2(out[1], 1);
		execlp("openssl", "openssl", "s_server", "-accept", port, "-key", t->key, "-cert",
		    t->cert, "-www", NULL);
		_exit(127);
	}
	close(out[1]);
	/* It says ACCEPT once it listens. */
	for (size_t n = 0; n < sizeof(c) - 1;) {
		ssize_t k = read(out[0], c + n, sizeof(c) - 1 - n);

		cr_assert_gt(k, 0);
		n += (size_t)k;
		c[n] = '\0';
		if (strstr(c, "ACCEPT") != NULL)
			break;
	}
	close(out[0]);
}

static void tls_stop(struct tls *t)
{
	kill(t->pid, SIGKILL);
	waitpid(t->pid, NULL, 0);
	unlink(t->key);
	unlink(t->cert);
	rmdir(t->dir);
}

Test(http, tls)
{
	struct tls t;
	struct probe p;
	char url[64];

	tls_start(&t);
	snprintf(url, sizeof(url), "https://127.0.0.1:%u/", t.port);
	probe_url(&p, url);
	go(&p);
	expect(&p, HTTP_FAIL_TLS);
	cr_assert_eq(p.heads, 0);

	http_free(&h);
	free(cfg->s3_ca_file);
	cfg->s3_ca_file = strdup(t.cert);
	cr_assert_eq(http_new(&h, lp, cfg, NULL), 0);
	probe_url(&p, url);
	go(&p);
	expect(&p, HTTP_OK);
	cr_assert_eq(p.r.status, 200);

	/* The right authority for another name. */
	snprintf(url, sizeof(url), "https://127.0.0.2:%u/", t.port);
	cr_assert_eq(http_start(h, (probe_url(&p, url), &p.r)), 0);
	run_until(&p, 1);
	cr_assert(p.r.fail == HTTP_FAIL_TLS || p.r.fail == HTTP_FAIL_CONNECT);
	tls_stop(&t);

	/* Plain text where TLS should be. */
	http_script_reply(hs, NULL, 200, NULL, "x", 1, 0);
	snprintf(url, sizeof(url), "https://127.0.0.1:%u/", http_script_port(hs));
	probe_url(&p, url);
	p.r.timeout_ns = NS_PER_S;
	go(&p);
	cr_assert_neq(p.r.fail, HTTP_OK);
}

Test(http, ca_file_missing)
{
	struct http *other = NULL;
	struct errtext et;

	free(cfg->s3_ca_file);
	cfg->s3_ca_file = strdup("/nonexistent/ca.pem");
	cr_assert_eq(http_new(&other, lp, cfg, &et), -ENOENT);
	cr_assert_null(other);
	cr_assert_not_null(strstr(et.s, "/nonexistent/ca.pem"));
}

/* --- A resolver that never answers: a name server that is a silent socket */

static int black_hole(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(53) };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char path[] = "/tmp/batonfs-resolv-XXXXXX";
	int conf, rc;

	inet_pton(AF_INET, "127.77.0.1", &sin.sin_addr);
	if (bind(fd, (struct sockaddr *)&sin, sizeof(sin)) != 0 || unshare(CLONE_NEWNS) != 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
		close(fd);
		return -1;
	}
	conf = mkstemp(path);
	dprintf(conf, "nameserver 127.77.0.1\noptions timeout:30 attempts:1\n");
	close(conf);
	chmod(path, 0644);
	rc = mount(path, "/etc/resolv.conf", NULL, MS_BIND, NULL);
	unlink(path);
	if (rc != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

Test(http, hung_resolver)
{
	struct pollfd pfd = { .events = POLLIN };
	struct probe p, q;
	double t0;

	pfd.fd = black_hole();
	if (pfd.fd < 0)
		cr_skip_test("needs root and a mount namespace of its own");
	probe_url(&p, "http://hangs.batonfs.test/");
	probe_url(&q, "http://hangs-too.batonfs.test/");
	start(&p);
	start(&q);
	while (poll(&pfd, 1, 0) == 0)
		loop_turn(lp, false);
	t0 = now_s();
	http_abort(&p.r);
	cr_assert_lt(now_s() - t0, 2.0, "the abort waited for the resolver");

	cfg->ufs_connect_timeout = 100 * NS_PER_MS;
	probe_url(&p, "http://hangs-as-well.batonfs.test/");
	go(&p);
	expect(&p, HTTP_FAIL_RESOLVE);
	http_free(&h);
	cr_assert_lt(now_s() - t0, 4.0, "freeing waited for the resolver");
	cr_assert_eq(q.dones, 0);
	close(pfd.fd);
}
