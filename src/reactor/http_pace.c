/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Does a transfer still move?  For requests without a limit in time (idle_ns), in
 * place of libcurl's low speed limit, which holds for the wait for an answer too and
 * counts what the kernel has taken as sent.
 */
#include <sys/ioctl.h>

#include <linux/sockios.h>

#include "base/options.h"
#include "base/units.h"
#include "reactor/http_priv.h"

/* Bytes given to the kernel that the other side has not acknowledged. */
static uint64_t unsent(struct http_xfer *x)
{
	int n = 0;

	return x->fd != -1 && ioctl(x->fd, SIOCOUTQ, &n) == 0 && n > 0 ? (uint64_t)n : 0;
}

/* Of the body; with TLS a little less. */
static uint64_t sent(struct http_xfer *x)
{
	curl_off_t up = 0;
	uint64_t left = unsent(x);

	curl_easy_getinfo(x->easy, CURLINFO_SIZE_UPLOAD_T, &up);
	return (uint64_t)up > left ? (uint64_t)up - left : 0;
}

static void look(struct http_xfer *x)
{
	uint64_t now = loop_now(x->http->loop);
	curl_off_t down = 0, begun = 0;
	uint64_t up = sent(x), all;

	curl_easy_getinfo(x->easy, CURLINFO_SIZE_DOWNLOAD_T, &down);
	curl_easy_getinfo(x->easy, CURLINFO_PRETRANSFER_TIME_T, &begun);
	all = up + (uint64_t)down + x->head_bytes;
	if (all != x->pace.moved) {
		x->pace.moved = all;
		x->pace.moved_at = now;
	}
	x->req->sent = MAX(x->req->sent, up);
	x->req->moved_ns = x->pace.moved_at;
	/* Slow?  Not while there is no connection, or nothing left to send. */
	if (begun == 0 || up >= x->req->body_len ||
	    up - MIN(up, x->pace.up) >=
		(now - x->pace.at) / NS_PER_MS * x->http->cfg->ufs_low_speed_limit / 1000)
		x->pace.fast_at = now;
	x->pace.up = up;
	x->pace.at = now;
}

static uint64_t step(const struct http_xfer *x)
{
	uint64_t ns = MIN(x->req->idle_ns, x->http->cfg->ufs_low_speed_time) / 8;

	return MIN(MAX(ns, 5 * NS_PER_MS), NS_PER_S);
}

static void on_tick(struct timer *t)
{
	struct http_xfer *x = container_of(t, struct http_xfer, pace.timer);
	uint64_t now = loop_now(x->http->loop);

	if (x->req == NULL)
		return;
	look(x);
	if (now - x->pace.moved_at >= x->req->idle_ns ||
	    now - x->pace.fast_at >= x->http->cfg->ufs_low_speed_time) {
		x->stalled = true;
		http_end_soon(x->http);
		return;
	}
	timer_arm(t, step(x));
}

void http_pace_begin(struct http_xfer *x)
{
	if (x->req == NULL || x->req->idle_ns == 0)
		return;
	timer_init(&x->pace.timer, x->http->loop, on_tick);
	x->pace.moved = x->pace.up = 0;
	x->pace.at = x->pace.moved_at = x->pace.fast_at = loop_now(x->http->loop);
	timer_arm(&x->pace.timer, step(x));
}

void http_pace_end(struct http_xfer *x)
{
	if (x->req != NULL && x->req->idle_ns != 0 && x->state == HTTP_XFER_RUNNING)
		look(x);
	timer_cancel(&x->pace.timer);
}
