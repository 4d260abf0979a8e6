/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * HTTP over curl multi, on the loop's descriptors and timers.
 *
 * A request follows the leaf contract of task.h: `done` is called exactly once
 * from the loop, never from inside http_start(), and not at all after
 * http_abort().  http_abort() may be called from any callback of this module
 * (the easy handle is then taken off later, as libcurl wants it).  Connections
 * are kept and reused.  TLS verifies peer and host.  A resolver that hangs does
 * not stop an abort (CURLOPT_QUICK_EXIT).
 */
#ifndef REACTOR_HTTP_H
#define REACTOR_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/queue.h"
#include "base/errtext.h"

struct loop;
struct http;
struct http_req;
struct config;

int http_new(struct http **out, struct loop *lp, const struct config *cfg, struct errtext *et);
/* Aborts what still runs (their done is not called) and closes connections. */
void http_free(struct http **h);

struct http_header {
	const char *name, *value; /* value never empty */
};

/* What went wrong below HTTP. */
enum http_fail {
	HTTP_OK,	  /* a complete response; look at status */
	HTTP_FAIL_CONNECT, /* refused, unreachable, no route, connect timeout */
	HTTP_FAIL_RESOLVE,
	HTTP_FAIL_TLS,	  /* certificate or handshake: never retried */
	HTTP_FAIL_RESET,  /* broken or short response */
	HTTP_FAIL_STALL,  /* too slow, or no answer within timeout_ns */
	HTTP_FAIL_SINK,	  /* on_headers or on_data said stop */
	HTTP_FAIL_OTHER,
};

/* Zero it before the first use. */
struct http_req {
	/* --- set by the user before http_start(); must stay valid until the end, but
	 * for headers, which are copied */
	const char *method; /* "GET", "HEAD", "PUT", "POST", "DELETE" */
	const char *url;    /* complete and percent-encoded as it shall be signed */
	const struct http_header *headers;
	unsigned nheaders;
	const void *body;    /* request body in memory, or NULL */
	size_t body_len;
	bool direct;	     /* never through a proxy: services of this machine */
	uint64_t timeout_ns; /* for this attempt; 0: none */
	/* Not 0: a transfer that moves may last (timeout_ns is not looked at).  It
	 * stalls if no byte moves for so long, or while the body is sent slower than
	 * ufs.low.speed.limit for ufs.low.speed.time. */
	uint64_t idle_ns;
	/* The response head has come: status, and headers by http_req_header().
	 * Non-zero ends the transfer with HTTP_FAIL_SINK, as does a head of more
	 * than 256 KiB.  May be NULL. */
	int (*on_headers)(struct http_req *r);
	/* Body bytes; only valid in the call.  Non-zero ends the transfer.  NULL:
	 * the body is thrown away. */
	int (*on_data)(struct http_req *r, const void *data, size_t len);
	/* The request may be freed or started again in it. */
	void (*done)(struct http_req *r);
	void *user;

	/* --- results, valid in on_headers (status) and done */
	long status;
	enum http_fail fail;
	int64_t content_length; /* -1: the response does not say */
	char errtext[256];	/* curl's words, for the log */
	/* with idle_ns: bytes of the body that the other side has taken, and when a byte
	 * last moved in either direction */
	uint64_t sent, moved_ns;

	/* --- private */
	struct http *http;
	struct http_xfer *xfer;
};

/* 0, or -ENOMEM / -EINVAL with nothing started. */
int http_start(struct http *h, struct http_req *r);
void http_abort(struct http_req *r); /* no-op if not running */
/* A response header of the running or just ended request, by name, any case; or
 * NULL.  Valid until done returns. */
const char *http_req_header(const struct http_req *r, const char *name);
/* The i-th of them: its value and name; NULL after the last. */
const char *http_req_header_at(const struct http_req *r, unsigned i, const char **name);

#endif
