/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../lib/nth_fault.h"
#include "base/obj.h"
#include "base/units.h"
#include "http_rig.h"

TestSuite(http, .init = http_rig_up, .fini = http_rig_down);

Test(http, get)
{
	struct http_probe p;
	char buf[64];
	const struct http_header hd = { "X-Asked", "for" };

	http_script_reply(http_rig.hs, "GET /a/../b?x=%2F", 206, "ETag: \"e\"\r\nX-Empty:\r\n", "hello", 5, 1);
	http_probe_init(&p, "/a/../b?x=%2F");
	p.r.headers = &hd;
	p.r.nheaders = 1;
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_OK);
	cr_assert_eq(p.r.status, 206);
	cr_assert_eq(p.r.content_length, 5);
	cr_assert_str_eq(p.body, "hello");
	cr_assert_eq(p.heads, 1);
	cr_assert_eq(p.dones, 1);
	cr_assert_not_null(http_script_header(http_script_get(http_rig.hs, 0), "x-asked", buf, sizeof(buf)));
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
	http_probe_done(r);
}

Test(http, headers_in_done_and_interim_response)
{
	struct http_probe p;
	struct http_script_answer a = {
		.raw = "HTTP/1.1 100 Continue\r\nETag: wrong\r\n\r\n"
		       "HTTP/1.1 200 OK\r\nETag:   \"right\" \r\nX-Empty:\r\nContent-Length: 0\r\n\r\n",
	};

	http_script_add(http_rig.hs, &a);
	http_probe_init(&p, "/");
	p.r.done = keep_headers;
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_OK);
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
		struct http_probe p;

		http_script_reply(http_rig.hs, methods[i], 200, NULL, "12345", 5, 1);
		http_probe_init(&p, "/m");
		p.r.method = methods[i];
		p.r.body = bodies[i];
		p.r.body_len = bodies[i] != NULL ? strlen(bodies[i]) : 0;
		http_probe_go(&p);
		http_probe_expect(&p, HTTP_OK);
		cr_assert_eq(p.r.content_length, 5);
		cr_assert_eq(p.got, i == 0 ? 0 : 5);
		rq = http_script_get(http_rig.hs, i);
		cr_assert_str_eq(rq->method, methods[i]);
		cr_assert_str_eq(rq->body, bodies[i] != NULL ? bodies[i] : "");
		cr_assert_null(http_script_header(rq, "content-type", buf, sizeof(buf)));
		if (strcmp(methods[i], "PUT") == 0)
			cr_assert_not_null(
			    http_script_header(rq, "content-length", buf, sizeof(buf)));
	}
	cr_assert_eq(http_script_conns(http_rig.hs), 1);
}

Test(http, keep_alive_reuses_and_connections_are_limited)
{
	struct http_probe p[8];

	http_rig.cfg->ufs_connections = 2;
	http_rig_again();
	http_script_reply(http_rig.hs, NULL, 200, NULL, "x", 1, 0);
	for (int i = 0; i < 8; i++) {
		http_probe_init(&p[i], "/k");
		http_probe_start(&p[i]);
	}
	for (int i = 0; i < 8; i++) {
		http_probe_run(&p[i], 1);
		http_probe_expect(&p[i], HTTP_OK);
	}
	cr_assert_eq(http_script_count(http_rig.hs), 8);
	cr_assert_leq(http_script_conns(http_rig.hs), 2);
}

Test(http, restart_in_done)
{
	struct http_probe p, q;

	http_script_reply(http_rig.hs, NULL, 200, NULL, "x", 1, 0);
	http_probe_init(&p, "/p");
	http_probe_init(&q, "/q");
	p.again = true;
	p.start_in_done = &q;
	http_probe_start(&p);
	http_probe_run(&p, 2);
	http_probe_run(&q, 1); /* over another connection: it may come later */
	http_probe_expect(&q, HTTP_OK);
	cr_assert_eq(p.got, 2);
}

Test(http, start_in_callback)
{
	struct http_probe p, q;

	http_script_reply(http_rig.hs, NULL, 200, NULL, "x", 1, 0);
	http_probe_init(&p, "/p");
	http_probe_init(&q, "/q");
	p.start_in_head = &q;
	http_probe_start(&p);
	http_probe_run(&p, 1);
	http_probe_run(&q, 1);
	http_probe_expect(&q, HTTP_OK);
}

Test(http, truncated_body)
{
	struct http_script_answer a = {
		.raw = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
		.end = HTTP_SCRIPT_CLOSE,
		.times = 1,
	};
	struct http_probe p;

	http_script_add(http_rig.hs, &a);
	http_probe_init(&p, "/t");
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_RESET);
	cr_assert_str_eq(p.body, "only this");
	http_rig_alive();
}

Test(http, no_answer_and_nonsense)
{
	struct http_script_answer none = { .end = HTTP_SCRIPT_CLOSE, .times = 1 };
	struct http_script_answer junk = { .raw = "220 smtp ready\r\n", .end = HTTP_SCRIPT_CLOSE,
		.times = 1 };
	struct http_probe p;

	http_script_add(http_rig.hs, &none);
	http_probe_init(&p, "/n");
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_RESET);
	http_script_add(http_rig.hs, &junk);
	http_probe_init(&p, "/j");
	http_probe_go(&p);
	cr_assert_neq(p.r.fail, HTTP_OK);
	cr_assert_eq(p.got, 0);
	http_rig_alive();
}

Test(http, reset_in_body)
{
	struct http_script_answer a = {
		.raw = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
		.end = HTTP_SCRIPT_RESET,
		.times = 1,
	};
	struct http_probe p;

	http_script_add(http_rig.hs, &a);
	http_probe_init(&p, "/r");
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_RESET);
	http_rig_alive();
}

Test(http, stall_ends_at_timeout)
{
	struct http_script_answer a = {
		.raw = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
		.end = HTTP_SCRIPT_STALL,
	};
	struct http_probe p;

	http_script_add(http_rig.hs, &a);
	http_probe_init(&p, "/s");
	p.r.timeout_ns = 500 * NS_PER_MS;
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_STALL);
	cr_assert_eq(p.got, 9);
	cr_assert(http_script_wait_open(http_rig.hs, 0, 5000), "the stalled connection was kept");
}

Test(http, silence_ends_at_timeout)
{
	struct http_script_answer a = { .end = HTTP_SCRIPT_STALL };
	struct http_probe p;

	http_script_add(http_rig.hs, &a);
	http_probe_init(&p, "/s");
	p.r.timeout_ns = 100 * NS_PER_MS;
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_STALL);
	cr_assert_eq(p.heads, 0);
}

Test(http, stall_ends_by_low_speed)
{
	struct http_script_answer a = {
		.raw = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
		.end = HTTP_SCRIPT_STALL,
	};
	struct http_probe p;

	http_rig.cfg->ufs_low_speed_time = NS_PER_S;
	http_script_add(http_rig.hs, &a);
	http_probe_init(&p, "/s");
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_STALL);
}

Test(http, slow_bytes_arrive)
{
	struct http_script_answer a = {
		.raw = "HTTP/1.1 200 OK\r\nETag: abc\r\nContent-Length: 4\r\n\r\nslow",
		.slow_bytes = 1,
		.slow_ms = 1,
	};
	struct http_probe p;

	http_script_add(http_rig.hs, &a);
	http_probe_init(&p, "/s");
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_OK);
	cr_assert_str_eq(p.body, "slow");
}

Test(http, too_long_head)
{
	size_t len = 10 * MIB, at;
	char *raw = malloc(len + 64);
	struct http_script_answer a = { .raw = raw, .end = HTTP_SCRIPT_CLOSE, .times = 1 };
	struct http_probe p;

	cr_assert_not_null(raw);
	at = (size_t)sprintf(raw, "HTTP/1.1 200 OK\r\n");
	while (at < len)
		at += (size_t)sprintf(raw + at, "X-Filler: 0123456789abcdef\r\n");
	at += (size_t)sprintf(raw + at, "\r\n");
	a.raw_len = at;
	http_script_add(http_rig.hs, &a);
	free(raw);
	http_probe_init(&p, "/h");
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_SINK);
	cr_assert_not_null(strstr(p.r.errtext, "head longer than"), "%s", p.r.errtext);
	cr_assert_eq(p.heads, 0);
	http_rig_alive();
}

Test(http, sinks_stop)
{
	struct http_probe p;

	http_script_reply(http_rig.hs, "GET /s", 200, NULL, "data", 4, 0);
	http_probe_init(&p, "/s");
	p.fail_head = -1;
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_SINK);
	cr_assert_eq(p.datas, 0);
	http_probe_init(&p, "/s");
	p.fail_data = -1;
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_SINK);
	cr_assert_eq(p.datas, 1);
	http_rig_alive();
}

Test(http, connection_refused)
{
	struct http_probe p;
	char url[64];

	snprintf(url, sizeof(url), "%s/x", http_script_url(http_rig.hs));
	http_script_free(&http_rig.hs);
	http_probe_url(&p, url);
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_CONNECT);
	http_rig.hs = http_script_new();
}

Test(http, name_unknown)
{
	struct http_probe p;

	http_probe_url(&p, "http://no-such-host.invalid/");
	p.r.timeout_ns = 20 * NS_PER_S;
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_RESOLVE);
}

Test(http, bad_requests)
{
	const struct http_header empty = { "X-A", "" }, inject = { "X-A", "b\r\nX-C: d" };
	struct http_probe p;

	http_probe_init(&p, "/");
	p.r.nheaders = 1;
	p.r.headers = &empty;
	cr_assert_eq(http_start(http_rig.h, &p.r), -EINVAL);
	p.r.headers = &inject;
	cr_assert_eq(http_start(http_rig.h, &p.r), -EINVAL);
	p.r.nheaders = 0;
	p.r.method = NULL;
	cr_assert_eq(http_start(http_rig.h, &p.r), -EINVAL);
	http_probe_url(&p, "file:///etc/passwd");
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_OTHER);
	cr_assert_eq(p.got, 0);
	http_rig_alive();
}

Test(http, abort_before_it_runs)
{
	struct http_probe p;

	http_probe_init(&p, "/a");
	http_abort(&p.r);
	http_probe_start(&p);
	http_abort(&p.r);
	http_abort(&p.r);
	http_rig_alive();
	cr_assert_eq(p.dones, 0);
	cr_assert_eq(http_script_count_of(http_rig.hs, "/a "), 0);
}

Test(http, abort_in_own_headers)
{
	struct http_probe p;

	http_script_reply(http_rig.hs, "GET /x", 200, NULL, "data", 4, 0);
	http_probe_init(&p, "/x");
	p.abort_in_head = &p;
	http_probe_start(&p);
	while (p.heads == 0)
		loop_turn(http_rig.lp, true);
	http_rig_alive();
	cr_assert_eq(p.dones + p.datas, 0);
}

Test(http, abort_in_own_data)
{
	struct http_probe p;

	http_script_reply(http_rig.hs, "GET /x", 200, NULL, "data", 4, 0);
	http_probe_init(&p, "/x");
	p.abort_in_data = &p;
	http_probe_start(&p);
	while (p.datas == 0)
		loop_turn(http_rig.lp, true);
	http_rig_alive();
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

	http_script_add(http_rig.hs, &stall);
	http_script_reply(http_rig.hs, "GET /x", 200, NULL, "data", 4, 0);
	for (int where = 0; where < 3; where++) {
		struct http_probe victim, p;

		http_probe_init(&victim, "/victim");
		http_probe_start(&victim);
		while (victim.datas == 0)
			loop_turn(http_rig.lp, true);
		http_probe_init(&p, "/x");
		*(where == 0 ? &p.abort_in_head : where == 1 ? &p.abort_in_data :
							       &p.abort_in_done) = &victim;
		http_probe_go(&p);
		http_probe_expect(&p, HTTP_OK);
		http_rig_alive();
		cr_assert_eq(victim.dones, 0);
		cr_assert(http_script_wait_open(http_rig.hs, 1, 5000), "the victim's connection lives on");
	}
}

Test(http, free_while_running)
{
	struct http_script_answer a = { .end = HTTP_SCRIPT_STALL };
	struct http_probe p[3];

	http_script_add(http_rig.hs, &a);
	for (int i = 0; i < 3; i++) {
		http_probe_init(&p[i], "/f");
		http_probe_start(&p[i]);
	}
	while (http_script_count(http_rig.hs) < 3)
		loop_turn(http_rig.lp, false);
	http_free(&http_rig.h);
	cr_assert(http_script_wait_open(http_rig.hs, 0, 5000));
	for (int i = 0; i < 3; i++)
		cr_assert_eq(p[i].dones, 0);
}

Test(http, bulk)
{
	size_t chunk = MIB, total = 64 * MIB;
	struct http_script_answer a = { .repeat_to = total };
	char *body = calloc(1, chunk), *all, head[64];
	struct http_probe p;
	int n;

	n = snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", total);
	cr_assert_not_null(all = malloc((size_t)n + chunk));
	memcpy(all, head, (size_t)n);
	memcpy(all + n, body, chunk);
	a.raw = all;
	a.raw_len = (size_t)n + chunk;
	a.head_len = (size_t)n;
	http_script_add(http_rig.hs, &a);
	http_probe_init(&p, "/bulk");
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_OK);
	cr_assert_eq(p.got, total);
	free(all);
	free(body);
}

/* Headers go as they are given, none is left on the recycled handle, and no body waits
 * for a "100 Continue". */
Test(http, headers_of_a_body)
{
	const struct http_header hd = { "Authorization", "as  given" };
	struct http_probe p;
	char buf[512];

	http_script_reply(http_rig.hs, NULL, 200, NULL, "x", 1, 0);
	for (int i = 0; i < 2; i++) {
		http_probe_init(&p, "/b/key");
		p.r.method = "PUT";
		p.r.body = "body";
		p.r.body_len = 4;
		p.r.headers = &hd;
		p.r.nheaders = i == 0;
		http_probe_go(&p);
		http_probe_expect(&p, HTTP_OK);
		cr_assert_null(http_script_header(
		    http_script_get(http_rig.hs, (unsigned)i), "expect", buf, sizeof(buf)));
	}
	cr_assert_str_eq(
	    http_script_header(http_script_get(http_rig.hs, 0), "authorization", buf, sizeof(buf)),
	    "as  given");
	cr_assert_null(
	    http_script_header(http_script_get(http_rig.hs, 1), "authorization", buf, sizeof(buf)));
}

Test(http, allocation_failures)
{
	http_rig.cfg->ufs_connect_timeout = 100 * NS_PER_MS;
	http_script_reply(http_rig.hs, NULL, 200, "ETag: x\r\n", "body", 4, 0);
	for (unsigned n = 1;; n++) {
		struct http_probe p;
		struct http *one = NULL;
		bool fired;
		int rc;

		http_probe_init(&p, "/n");
		p.r.timeout_ns = 100 * NS_PER_MS;
		nth_arm(n);
		rc = http_new(&one, http_rig.lp, http_rig.cfg, NULL);
		if (rc == 0) {
			rc = http_start(one, &p.r);
			while (rc == 0 && p.dones == 0)
				loop_turn(http_rig.lp, true);
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
			http_probe_expect(&p, HTTP_OK);
			break;
		}
	}
}
