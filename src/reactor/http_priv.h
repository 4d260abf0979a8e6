/* SPDX-License-Identifier: BSD-2-Clause */
/* What http.c (the multi handle on the loop) and http_req.c (one transfer) share. */
#ifndef REACTOR_HTTP_PRIV_H
#define REACTOR_HTTP_PRIV_H

#include <curl/curl.h>

#include "base/obj.h"
#include "base/queue.h"
#include "reactor/http.h"
#include "reactor/loop.h"
#include "reactor/timer.h"

#define HTTP_MAGIC 0x477000c1u
#define HTTP_XFER_MAGIC 0x477000c2u

/* Response headers of one request: more end it with HTTP_FAIL_SINK. */
#define HTTP_HEAD_MAX (256 * 1024)

enum http_xfer_state {
	HTTP_XFER_IDLE,	   /* in the pool */
	HTTP_XFER_WAITING, /* http_start() was called; not yet with curl */
	HTTP_XFER_RUNNING, /* with curl */
	HTTP_XFER_ENDING,  /* its done is being called */
};

struct http_xfer {
	uint32_t magic;
	enum http_xfer_state state;
	TAILQ_ENTRY(http_xfer) link;
	struct http *http;
	struct http_req *req; /* NULL: aborted */
	CURL *easy;
	struct curl_slist *headers; /* of the request */
	size_t body_sent;
	/* Response head: "name\0value\0" pairs. */
	char *head;
	size_t head_len, head_size;
	size_t head_bytes; /* as received, interim responses included */
	bool head_done;
	bool lost; /* its socket cannot be watched */
	bool stalled;
	int fd; /* of its connection, or -1; CURLINFO_ACTIVESOCKET tells after the end only */
	struct {
		struct timer timer;
		uint64_t moved, moved_at; /* bytes both ways, and when that last grew */
		uint64_t up, at;	  /* bytes sent, when it was last looked */
		uint64_t fast_at;	  /* when it was last fast enough */
	} pace;
	bool sunk; /* we ended it: on_headers or on_data said so, or the head is too long */
	char errbuf[CURL_ERROR_SIZE];
};

TAILQ_HEAD(http_xfer_list, http_xfer);
struct http_sock;
LIST_HEAD(http_sock_list, http_sock);

struct http {
	uint32_t magic;
	struct loop *loop;
	const struct config *cfg;
	bool curl_inited;
	CURLM *multi;
	CURLSH *share; /* TLS sessions of all transfers */
	struct timer timer;
	struct deferred kick;
	bool in_curl; /* inside a libcurl call: callbacks may be running */
	struct http_xfer_list idle, waiting, running;
	unsigned nidle;
	struct http_sock_list socks;
	struct http_req *ending; /* whose done is being called ... */
	struct http_xfer *ending_xfer; /* ... and its transfer */
};

/* --- http.c: transfers that are lost or stalled are ended from the loop. */
void http_end_soon(struct http *h);

/* --- http_pace.c */
void http_pace_begin(struct http_xfer *x); /* no-op without idle_ns */
void http_pace_end(struct http_xfer *x);

/* --- http_req.c */
int http_xfer_new(struct http_xfer **out, struct http *h);
void http_xfer_free(struct http_xfer **xp);
/* Sets all of curl's options for the request: 0, -EINVAL or -ENOMEM. */
int http_xfer_prepare(struct http_xfer *x, struct http_req *r);
/* Forgets the request and its response; the connection stays with the multi. */
void http_xfer_reset(struct http_xfer *x);
/* Fills in the results of the request. */
void http_xfer_result(struct http_xfer *x, CURLcode rc);
const char *http_xfer_header(const struct http_xfer *x, const char *name);
const char *http_xfer_header_at(const struct http_xfer *x, unsigned i, const char **name);

#endif
