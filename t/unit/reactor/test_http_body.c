/* SPDX-License-Identifier: BSD-2-Clause */
/* Bodies that are sent, and transfers that may last as long as they move. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "http_rig.h"

TestSuite(http_body, .init = http_rig_up, .fini = http_rig_down);

static void put_init(struct http_probe *p, const char *path, const void *body, size_t len)
{
	http_probe_init(p, path);
	p->r.method = "PUT";
	p->r.body = body;
	p->r.body_len = len;
	p->r.idle_ns = 300 * NS_PER_MS;
}

static char *bytes(size_t len)
{
	char *p = malloc(len);

	cr_assert_not_null(p);
	for (size_t i = 0; i < len; i++)
		p[i] = (char)(i * 2654435761u >> 11);
	return p;
}

Test(http_body, large_body_arrives)
{
	size_t len = 20 * MIB;
	char *body = bytes(len);
	struct http_probe p;

	http_script_reply(http_rig.hs, NULL, 200, NULL, "", 0, 0);
	put_init(&p, "/b", body, len);
	p.r.idle_ns = 60 * NS_PER_S;
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_OK);
	cr_assert_eq(http_script_get(http_rig.hs, 0)->body_len, len);
	cr_assert(memcmp(http_script_get(http_rig.hs, 0)->body, body, len) == 0);
	cr_assert_eq(p.r.sent, len);
	free(body);
}

/* Longer under way than the time in which nothing may move. */
Test(http_body, slow_body_is_not_given_up)
{
	struct http_script_intake in = { .slow_bytes = 65536, .slow_ms = 40 };
	size_t len = MIB;
	char *body = bytes(len);
	struct http_probe p;

	http_script_add_intake(http_rig.hs, &in);
	http_script_reply(http_rig.hs, NULL, 200, NULL, "", 0, 0);
	put_init(&p, "/b", body, len);
	p.r.idle_ns = 800 * NS_PER_MS;
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_OK);
	cr_assert_eq(http_script_count(http_rig.hs), 1);
	free(body);
}

Test(http_body, stalled_body_is_given_up)
{
	struct http_script_intake in = { .stop_at = 100000, .end = HTTP_SCRIPT_STALL };
	size_t len = 64 * MIB; /* more than the sockets hold */
	char *body = bytes(len);
	struct http_probe p;

	http_script_add_intake(http_rig.hs, &in);
	put_init(&p, "/b", body, len);
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_STALL);
	cr_assert(p.r.sent > 0 && p.r.sent < len, "%llu", (unsigned long long)p.r.sent);
	cr_assert_gt(p.r.moved_ns, 0);
	free(body);
}

Test(http_body, low_speed_holds_for_the_body_only)
{
	struct http_script_intake in = { .match = "/slow", .slow_bytes = 1024, .slow_ms = 30 };
	struct http_script_answer late = { .match = "/late", .delay_ms = 1500,
		.raw = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" };
	size_t len = 16 * MIB;
	char *body = bytes(len);
	struct http_probe p;

	http_rig.cfg->ufs_low_speed_limit = MIB;
	http_rig.cfg->ufs_low_speed_time = NS_PER_S;
	http_script_add_intake(http_rig.hs, &in);
	http_script_add(http_rig.hs, &late);
	put_init(&p, "/slow", body, len);
	p.r.idle_ns = 60 * NS_PER_S;
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_STALL);
	/* The answer may be slower than that. */
	put_init(&p, "/late", body, 100);
	p.r.idle_ns = 60 * NS_PER_S;
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_OK);
	free(body);
}

/* Storage that works on a copy sends a space now and then. */
Test(http_body, answer_that_trickles_is_waited_for)
{
	struct http_script_answer a = {
		.raw = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n                   x",
		.slow_bytes = 1,
		.slow_ms = 25,
	};
	struct http_probe p;

	http_script_add(http_rig.hs, &a);
	put_init(&p, "/b", "x", 1);
	p.r.idle_ns = NS_PER_S;
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_OK);
	cr_assert_eq(p.got, 20);
}

Test(http_body, no_answer)
{
	struct http_script_answer a = { .end = HTTP_SCRIPT_STALL };
	struct http_probe p;

	http_script_add(http_rig.hs, &a);
	put_init(&p, "/b", "x", 1);
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_STALL);
	cr_assert_eq(p.r.sent, 1);
}

Test(http_body, reset_in_the_body)
{
	struct http_script_intake in = { .times = 1, .stop_at = 100000, .end = HTTP_SCRIPT_RESET };
	size_t len = 8 * MIB;
	char *body = bytes(len);
	struct http_probe p;

	http_script_add_intake(http_rig.hs, &in);
	http_script_reply(http_rig.hs, "/b", 200, NULL, "x", 1, 0);
	put_init(&p, "/b", body, len);
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_FAIL_RESET);
	http_rig_alive();
	free(body);
}

/* The body is the user's: nothing may look at it after the abort. */
Test(http_body, abort_in_the_body)
{
	struct http_script_intake in = { .times = 1, .stop_at = 100000, .end = HTTP_SCRIPT_STALL };
	size_t len = 8 * MIB;
	char *body = bytes(len);
	struct http_probe p;

	http_script_add_intake(http_rig.hs, &in);
	http_script_reply(http_rig.hs, "/b", 200, NULL, "x", 1, 0);
	put_init(&p, "/b", body, len);
	http_probe_start(&p);
	while (http_script_intake_used(http_rig.hs, 0) == 0)
		(void)loop_turn(http_rig.lp, false);
	http_abort(&p.r);
	free(body);
	memset(&p.r, 0xa5, sizeof(p.r));
	cr_assert_eq(p.dones, 0);
	http_rig_alive();
	cr_assert_eq(p.dones, 0);
}
