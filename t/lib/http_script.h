/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A scripted HTTP/1.1 server for tests: does what real servers do not do on
 * demand (truncated bodies, stalls in mid-body, resets, slow bytes, wrong
 * headers) and keeps what it received.
 *
 * It listens on 127.0.0.1, on a port of its own, in threads of its own (one a
 * connection), so the code under test may sit in one thread with its loop.
 * Every function may be called at any time from the test's thread.  Failures of
 * the server itself (no memory, no socket) abort the test program.
 *
 *	struct http_script *hs = http_script_new();
 *
 *	http_script_reply(hs, "GET /b/key", 503, NULL, "busy", 4, 2);
 *	http_script_reply(hs, "GET /b/key", 200, "ETag: \"x\"\r\n", "data", 4, 0);
 *	... let the client ask http_script_url(hs) + "/b/key" ...
 *	cr_assert_eq(http_script_count(hs), 3);
 *	cr_assert_not_null(http_script_header(http_script_get(hs, 0), "authorization", buf, len));
 *	http_script_free(&hs);
 *
 * Answers are tried in the order in which they were added: a request gets the
 * first whose `match` occurs in "METHOD TARGET" and which has uses left.  If none
 * fits, the handler is asked; without one the answer is 501 "not in the script".
 */
#ifndef T_LIB_HTTP_SCRIPT_H
#define T_LIB_HTTP_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>

struct http_script;

/* What happens to the connection after the answer's bytes were sent. */
enum http_script_end {
	HTTP_SCRIPT_KEEP,  /* wait for the next request (keep-alive) */
	HTTP_SCRIPT_CLOSE, /* orderly end (FIN) */
	HTTP_SCRIPT_RESET, /* RST */
	HTTP_SCRIPT_STALL, /* send nothing more; hold until the client goes away */
};

struct http_script_answer {
	const char *match; /* part of "METHOD TARGET", or NULL: any request */
	unsigned times;	   /* how many requests it serves; 0: any number */
	const void *raw;   /* exact bytes to send, head included; NULL: none */
	size_t raw_len;	   /* 0 with raw set: strlen(raw) */
	enum http_script_end end;
	unsigned slow_bytes;  /* send so many bytes at a time ... */
	unsigned slow_ms;     /* ... with this pause before each but the first */
	unsigned delay_ms;    /* pause before the first byte */
	size_t head_len;      /* if not 0: a HEAD request gets only so many bytes of raw */
	/* Send raw (from head_len on) over and over until this many bytes of body
	 * have gone out: large bodies without large buffers.  0: once. */
	size_t repeat_to;
};

/* One request as it came in.  Valid until http_script_free(). */
struct http_script_req {
	char method[16];
	char *target;	/* as on the request line, undecoded */
	char *head;	/* request line and headers, raw, NUL-terminated */
	char *body;	/* NUL-terminated for convenience */
	size_t body_len;
	unsigned conn;	/* number of the connection it came over, from 0 */
};

struct http_script *http_script_new(void);
/* Closes all connections, joins the threads. */
void http_script_free(struct http_script **hs);

/* "http://127.0.0.1:PORT", without a final slash; valid until free. */
const char *http_script_url(const struct http_script *hs);
unsigned http_script_port(const struct http_script *hs);

/* Adds an answer (everything is copied). */
void http_script_add(struct http_script *hs, const struct http_script_answer *a);
/* How the bodies of requests are taken; without one, at once. */
struct http_script_intake {
	const char *match;   /* as of answers */
	unsigned times;	     /* as of answers */
	size_t slow_bytes;   /* read so many bytes at a time ... */
	unsigned slow_ms;    /* ... with this pause before each */
	size_t stop_at;	     /* after so many bytes of the body, at least 1, ... */
	enum http_script_end end; /* ... this; KEEP: read on */
};
/* A request whose body was not taken to its end is not recorded. */
void http_script_add_intake(struct http_script *hs, const struct http_script_intake *in);
/* How often the i-th of them was used. */
unsigned http_script_intake_used(struct http_script *hs, unsigned i);

/* Adds a well-formed answer: status, Content-Length and the header lines given
 * ("A: b\r\nC: d\r\n" or NULL), the body (not sent to HEAD), keep-alive. */
void http_script_reply(struct http_script *hs, const char *match, int status, const char *headers,
    const void *body, size_t len, unsigned times);
/* The bytes of such an answer, malloced, for tests that want to change them or
 * cut them short; its length goes to *len, the length of its head to *head_len
 * (both may be NULL). */
char *http_script_format(int status, const char *headers, const void *body, size_t body_len,
    size_t *len, size_t *head_len);
/* Drops all answers (not the requests recorded). */
void http_script_clear(struct http_script *hs);

/* For requests that no answer fits: fills *out (raw must be malloced, it is freed
 * after sending; match and times are not looked at) and returns true, or returns
 * false.  Called in a connection's thread, one call at a time. */
typedef bool http_script_handler(
    void *arg, const struct http_script_req *rq, struct http_script_answer *out);
void http_script_set_handler(struct http_script *hs, http_script_handler *fn, void *arg);

/* Requests completely received, connections accepted, connections now open. */
unsigned http_script_count(struct http_script *hs);
unsigned http_script_conns(struct http_script *hs);
unsigned http_script_conns_open(struct http_script *hs);
/* The i-th request received, or NULL. */
const struct http_script_req *http_script_get(struct http_script *hs, unsigned i);
/* How many of the requests have `match` in "METHOD TARGET". */
unsigned http_script_count_of(struct http_script *hs, const char *match);
/* A header's value copied to buf, name in any case; NULL if it is not there. */
char *http_script_header(const struct http_script_req *rq, const char *name, char *buf, size_t len);
/* Wait (blocking this thread) until at least n requests have come / at most n
 * connections are open: false after timeout_ms. */
bool http_script_wait(struct http_script *hs, unsigned n, unsigned timeout_ms);
bool http_script_wait_open(struct http_script *hs, unsigned n, unsigned timeout_ms);

#endif
