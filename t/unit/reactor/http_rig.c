/* SPDX-License-Identifier: BSD-2-Clause */
#include "http_rig.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/obj.h"

/* No test may run longer than this. */
#define LIMIT_S 60

struct http_rig http_rig;

void http_rig_up(void)
{
	signal(SIGPIPE, SIG_IGN);
	alarm(LIMIT_S);
	cr_assert_eq(loop_new(&http_rig.lp, &clock_system), 0);
	cr_assert_not_null(http_rig.cfg = config_new());
	http_rig.hs = http_script_new();
	cr_assert_eq(http_new(&http_rig.h, http_rig.lp, http_rig.cfg, NULL), 0);
}

void http_rig_down(void)
{
	http_free(&http_rig.h);
	http_script_free(&http_rig.hs);
	config_free(&http_rig.cfg);
	loop_free(&http_rig.lp);
}

void http_rig_again(void)
{
	http_free(&http_rig.h);
	cr_assert_eq(http_new(&http_rig.h, http_rig.lp, http_rig.cfg, NULL), 0);
}

static int on_headers(struct http_req *r)
{
	struct http_probe *p = container_of(r, struct http_probe, r);

	p->heads++;
	if (p->start_in_head != NULL)
		cr_assert_eq(http_start(http_rig.h, &p->start_in_head->r), 0);
	if (p->abort_in_head != NULL)
		http_abort(&p->abort_in_head->r);
	return p->fail_head;
}

static int on_data(struct http_req *r, const void *data, size_t len)
{
	struct http_probe *p = container_of(r, struct http_probe, r);

	p->datas++;
	if (p->got < sizeof(p->body) - 1)
		memcpy(p->body + p->got, data, MIN(len, sizeof(p->body) - 1 - p->got));
	p->got += len;
	if (p->abort_in_data != NULL)
		http_abort(&p->abort_in_data->r);
	return p->fail_data;
}

void http_probe_done(struct http_req *r)
{
	struct http_probe *p = container_of(r, struct http_probe, r);

	p->dones++;
	if (p->abort_in_done != NULL)
		http_abort(&p->abort_in_done->r);
	if (p->start_in_done != NULL)
		cr_assert_eq(http_start(http_rig.h, &p->start_in_done->r), 0);
	if (p->again) {
		p->again = false;
		cr_assert_eq(http_start(http_rig.h, r), 0);
	}
}

void http_probe_url(struct http_probe *p, const char *url)
{
	memset(p, 0, sizeof(*p));
	snprintf(p->url, sizeof(p->url), "%s", url);
	p->r.method = "GET";
	p->r.url = p->url;
	p->r.on_headers = on_headers;
	p->r.on_data = on_data;
	p->r.done = http_probe_done;
}

void http_probe_init(struct http_probe *p, const char *path)
{
	char url[256];

	snprintf(url, sizeof(url), "%s%s", http_script_url(http_rig.hs), path);
	http_probe_url(p, url);
}

void http_probe_run(struct http_probe *p, unsigned dones)
{
	while (p->dones < dones)
		loop_turn(http_rig.lp, true);
}

void http_probe_start(struct http_probe *p)
{
	cr_assert_eq(http_start(http_rig.h, &p->r), 0);
	cr_assert_eq(p->dones, 0, "done inside http_start");
}

void http_probe_go(struct http_probe *p)
{
	unsigned before = p->dones;
	int rc = http_start(http_rig.h, &p->r);

	cr_assert_eq(rc, 0, "http_start: %d", rc);
	http_probe_run(p, before + 1);
}

void http_probe_expect(const struct http_probe *p, enum http_fail fail)
{
	cr_assert_eq(p->r.fail, fail, "fail %d, expected %d: %s", (int)p->r.fail, (int)fail,
	    p->r.errtext);
	if (fail != HTTP_OK)
		cr_assert_neq(p->r.errtext[0], '\0');
}

void http_rig_alive(void)
{
	struct http_probe p;

	http_script_reply(http_rig.hs, "GET /alive", 200, NULL, "yes", 3, 0);
	http_probe_init(&p, "/alive");
	http_probe_go(&p);
	http_probe_expect(&p, HTTP_OK);
	cr_assert_str_eq(p.body, "yes");
}
