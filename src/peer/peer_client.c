/* SPDX-License-Identifier: BSD-2-Clause */
/* One request to another node (peer.h): sent, and sent again; its answer compared, in the
 * pool, with what it says of itself. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/checksum.h"
#include "base/fault.h"
#include "peer/peer_priv.h"

#define PAUSE_FIRST (20 * NS_PER_MS)
#define PAUSE_MOST (500 * NS_PER_MS)

/* The pool may have it when its request is left. */
struct peer_job {
	struct pool_job job;
	struct peer_fetch *f; /* NULL: left */
	struct peer_key key;
	char asked[PEER_PROOF], told[PEER_PROOF];
	struct peer_told what;
	bool busy;
	unsigned char mem[];
};

static void send_it(struct peer_fetch *f);

static void job_free(struct peer_job *j)
{
	peer_key_forget(&j->key);
	free(j);
}

/* --- The end */

static void ended(struct peer_fetch *f, int err)
{
	f->running = false;
	if (err != 0)
		COUNT(f->p->env.loop, PEER_ERRORS, 1);
	f->done(f, err);
}

static void fail(struct peer_fetch *f, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void fail(struct peer_fetch *f, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(f->words, sizeof(f->words), fmt, ap);
	va_end(ap);
	ended(f, err);
}

static void again_fired(struct timer *t)
{
	send_it(container_of(t, struct peer_fetch, again));
}

/* It may pass: for as long as there is time. */
static void again(struct peer_fetch *f, const char *words)
{
	uint64_t now = loop_now(f->p->env.loop);

	if (now + f->pause >= f->until) {
		fail(f, -EIO, "%s", words);
		return;
	}
	timer_arm(&f->again, f->pause);
	f->pause = MIN(f->pause * 2, PAUSE_MOST);
}

/* --- The answer */

static void job_work(struct pool_job *job)
{
	struct peer_job *j = container_of(job, struct peer_job, job);
	char proof[PEER_PROOF];

	job->result = peer_told_proof(&j->key, &j->what, proof);
	if (job->result == 0 && !peer_proof_same(proof, j->told))
		job->result = -EACCES;
	if (job->result == 0 && j->what.crc != checksum_crc32c(j->what.body, j->what.len))
		job->result = -EBADMSG;
}

static void job_done(struct pool_job *job)
{
	struct peer_job *j = container_of(job, struct peer_job, job);
	struct peer_fetch *f = j->f;

	j->busy = false;
	if (f == NULL) {
		job_free(j);
		return;
	}
	f->size = j->what.size;
	if (job->result == 0) {
		f->data = j->mem;
		COUNT(f->p->env.loop, PEER_BYTES, f->len);
		ended(f, 0);
	} else if (job->result == -ENOMEM) {
		ended(f, -ENOMEM);
	} else {
		fail(f, -EIO, "its answer is damaged, or not of a node with this key");
	}
}

static int on_data(struct http_req *r, const void *data, size_t len)
{
	struct peer_fetch *f = r->user;

	if (r->status != 206)
		return 0;
	if (len > f->len - f->got)
		return -1;
	memcpy(f->job->mem + f->got, data, len);
	f->got += len;
	return 0;
}

static void compare(struct peer_fetch *f)
{
	const struct http_req *r = &f->http;
	const char *proof = http_req_header(r, "Batonfs-Proof");
	struct peer_job *j = f->job;

	j->what = (struct peer_told){.asked = j->asked,
	    .status = (unsigned)r->status,
	    .body = j->mem,
	    .len = f->got};
	if (proof == NULL || strlen(proof) >= sizeof(j->told) || f->got != f->len ||
	    !peer_u64_parse(http_req_header(r, "Batonfs-Size"), &j->what.size) ||
	    !peer_crc_parse(http_req_header(r, "Batonfs-Crc32c"), &j->what.crc)) {
		fail(f, -EIO, "its answer is none of a batonfs node");
		return;
	}
	memcpy(j->told, proof, strlen(proof) + 1);
	memcpy(j->asked, f->proof, sizeof(j->asked));
	j->key = f->p->key;
	j->busy = true;
	memset(&j->job, 0, sizeof(j->job));
	pool_submit(f->p->env.pool, NULL, &j->job, job_work, job_done);
}

static void answered(struct peer_fetch *f)
{
	switch (f->http.status) {
	case 200:
	case 206:
		if (f->http.status != (f->len > 0 ? 206 : 200))
			break;
		compare(f);
		return;
	case 401:
		fail(f, -EIO, "it refuses the key of this node");
		return;
	case 404:
		fail(f, -ENOENT, "it has not got them");
		return;
	case 409:
		fail(f, -EBUSY, "it is being written there");
		return;
	case 421:
		again(f, "another node answers there");
		return;
	case 500:
		fail(f, -EIO, "it cannot read them: its log says more");
		return;
	case 503:
		again(f, "it has no time");
		return;
	default:
		break;
	}
	fail(f, -EIO, "its answer, status %ld, is none of a batonfs node", f->http.status);
}

static void http_done(struct http_req *r)
{
	struct peer_fetch *f = r->user;

	switch (r->fail) {
	case HTTP_OK:
		answered(f);
		return;
	case HTTP_FAIL_CONNECT:
	case HTTP_FAIL_RESOLVE:
	case HTTP_FAIL_RESET:
	case HTTP_FAIL_STALL:
		again(f, r->errtext);
		return;
	default:
		fail(f, -EIO, "%s",
		    r->fail == HTTP_FAIL_SINK ? "it answers with more than was asked for"
					      : r->errtext);
	}
}

/* --- The request */

static int sign(struct peer_fetch *f)
{
	const struct peer_ask ask = {.method = f->len > 0 ? "GET" : "HEAD",
	    .path = f->path,
	    .range = f->range,
	    .node = f->id,
	    .nonce = f->nonce};
	int err = peer_nonce(f->nonce);

	return err != 0 ? err : peer_ask_proof(&f->p->key, &ask, f->proof);
}

static int start(struct peer_fetch *f, uint64_t left)
{
	const struct http_header headers[] = {{"Batonfs-Node", f->id},
	    {"Batonfs-Nonce", f->nonce}, {"Batonfs-Proof", f->proof}, {"Range", f->range}};

	f->got = 0;
	memset(&f->http, 0, sizeof(f->http));
	f->http = (struct http_req){.method = f->len > 0 ? "GET" : "HEAD",
	    .url = f->url,
	    .headers = headers,
	    .nheaders = f->len > 0 ? 4 : 3,
	    .direct = true,
	    .timeout_ns = left,
	    .on_data = on_data,
	    .done = http_done,
	    .user = f};
	return http_start(f->p->env.http, &f->http);
}

static void send_it(struct peer_fetch *f)
{
	uint64_t now = loop_now(f->p->env.loop);
	int err = f->job != NULL ? 0 : -ENOMEM;

	COUNT(f->p->env.loop, PEER_REQUESTS, 1);
	if (err == 0 && now >= f->until)
		err = -ETIMEDOUT;
	if (err == 0)
		err = FAULT("peer.ask");
	if (err == 0)
		err = sign(f);
	if (err == 0)
		err = start(f, f->until - now);
	if (err != 0)
		fail(f, err == -ENOMEM ? -ENOMEM : -EIO, "cannot ask it: %s", strerror(-err));
}

void peer_fetch_start(struct peer_fetch *f)
{
	struct peers *p = f->p;

	f->magic = PEER_FETCH_MAGIC;
	f->running = true;
	f->job = malloc(sizeof(*f->job) + f->len);
	if (f->job != NULL) {
		memset(f->job, 0, sizeof(*f->job));
		f->job->f = f;
	}
	f->until = loop_now(p->env.loop) + p->env.cfg->node_timeout;
	f->pause = PAUSE_FIRST;
	peer_id_text(f->node, f->id);
	snprintf(f->path, sizeof(f->path), PEER_PATH "%016" PRIx64, f->content);
	snprintf(f->url, sizeof(f->url), "http://%s%s", f->address, f->path);
	if (f->len > 0)
		snprintf(f->range, sizeof(f->range), "bytes=%" PRIu64 "-%" PRIu64, f->off,
		    f->off + f->len - 1);
	timer_init(&f->again, p->env.loop, again_fired);
	/* Never inline. */
	timer_arm(&f->again, 0);
}

void peer_fetch_end(struct peer_fetch *f)
{
	if (f->magic == 0)
		return;
	assert(f->magic == PEER_FETCH_MAGIC);
	timer_cancel(&f->again);
	if (f->running)
		http_abort(&f->http);
	if (f->job != NULL && f->job->busy)
		f->job->f = NULL;
	else if (f->job != NULL)
		job_free(f->job);
	memset(f, 0, sizeof(*f));
}
