/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small HTTP/1.1 server on the loop, for requests without a body.
 *
 * Not libevent's own: that of 2.1 can neither limit its connections nor the time that a head
 * may take, and here whoever reaches the port may connect.  What it can be made to hold is
 * bounded: so many connections, of each a head of HTTPD_HEAD_MAX bytes and one answer.  A
 * head that is not complete HTTPD_HEAD_TIME after it began, and an answer that is not taken
 * within HTTPD_SEND_TIME, end their connection; one that is kept without a request goes after
 * HTTPD_IDLE_TIME, or when another one has no room.  What is no request is answered (400,
 * 431, 505) and ends its connection.
 *
 * A request belongs to its user until he answers it, which he must, once; also if its
 * connection is lost or closed meanwhile, when the answer goes nowhere.  Loop thread.
 */
#ifndef REACTOR_HTTPD_H
#define REACTOR_HTTPD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/errtext.h"
#include "base/units.h"

struct loop;
struct httpd;
struct httpd_req;

#define HTTPD_HEAD_MAX 4096u
#define HTTPD_HEADERS_MAX 32u
#define HTTPD_HEAD_TIME (10 * NS_PER_S)
#define HTTPD_SEND_TIME (30 * NS_PER_S)
#define HTTPD_IDLE_TIME (60 * NS_PER_S)

struct httpd_env {
	struct loop *loop;
	unsigned conns_max;
	/* A request has come; it may be answered at once. */
	void (*request)(struct httpd_req *rq, void *user);
	void *user;
};

int httpd_new(struct httpd **out, const struct httpd_env *env);
/* Closed, and no request unanswered. */
void httpd_free(struct httpd **h);
/* "ADDRESS:PORT", the address in digits, of IPv6 in brackets.  -EINVAL: it is none;
 * -EADDRINUSE, -EADDRNOTAVAIL, -EACCES, ... with words. */
int httpd_listen(struct httpd *h, const char *address, struct errtext *et);
/* Nobody is listened to any more, and all connections end.  No-op if it does not listen. */
void httpd_close(struct httpd *h);
bool httpd_listens(const struct httpd *h);
unsigned httpd_conns(const struct httpd *h);

const char *httpd_method(const struct httpd_req *rq);
const char *httpd_target(const struct httpd_req *rq);
/* A header by name, any case; NULL: there is none. */
const char *httpd_header(const struct httpd_req *rq, const char *name);
/* Whose it is: "ADDRESS:PORT", for people. */
const char *httpd_peer(const struct httpd_req *rq);

struct httpd_answer {
	unsigned status;
	const char *headers; /* "Name: value\r\n", any number of them, copied; or NULL */
	const void *body;    /* stays until release(); not sent if the request was a HEAD */
	size_t len;
	void (*release)(void *arg); /* or NULL; once, also if nothing was sent */
	void *arg;
	bool close;	 /* and the connection ends */
};
#define HTTPD_ANSWER_HEADERS_MAX 512u
void httpd_reply(struct httpd_req *rq, const struct httpd_answer *a);

/* --- The head of a request */
struct httpd_head {
	const char *method, *target;
	struct {
		const char *name, *value;
	} header[HTTPD_HEADERS_MAX];
	unsigned nheaders;
	bool keep; /* the connection, after the answer */
};
/* buf: what has come, changed in place once the head is complete, and then pointed into.
 * The head's length; 0: it is not complete; -E2BIG: too long, or too many headers;
 * -EPROTONOSUPPORT: not HTTP/1.0 or 1.1; -EOPNOTSUPP: it has a body; -EBADMSG: no request. */
ssize_t httpd_parse(char *buf, size_t len, struct httpd_head *out);

#endif
