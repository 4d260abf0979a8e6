/* SPDX-License-Identifier: BSD-2-Clause */
/* libcurl's multi interface on the loop. */
#include "reactor/http.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/options.h"
#include "base/units.h"
#include "reactor/http_priv.h"

#define RETRY_NS (20 * NS_PER_MS)

struct http_sock {
	struct loop_fd lf;
	struct http *http;
	LIST_ENTRY(http_sock) link;
};

static void on_kick(struct deferred *d);

void http_end_soon(struct http *h)
{
	loop_defer(h->loop, &h->kick, on_kick);
}

static void recycle(struct http_xfer *x)
{
	struct http *h = x->http;

	http_xfer_reset(x);
	x->state = HTTP_XFER_IDLE;
	if (h->nidle >= h->cfg->ufs_connections) {
		http_xfer_free(&x);
		return;
	}
	TAILQ_INSERT_HEAD(&h->idle, x, link);
	h->nidle++;
}

/* Takes a transfer from whichever list it is on. */
static void detach(struct http_xfer *x)
{
	struct http *h = x->http;

	http_pace_end(x);
	if (x->state == HTTP_XFER_WAITING) {
		TAILQ_REMOVE(&h->waiting, x, link);
	} else {
		assert(x->state == HTTP_XFER_RUNNING && !h->in_curl);
		h->in_curl = true;
		curl_multi_remove_handle(h->multi, x->easy);
		h->in_curl = false;
		TAILQ_REMOVE(&h->running, x, link);
	}
}

static void finish(struct http_xfer *x, CURLcode rc)
{
	struct http *h = x->http;
	struct http_req *r = x->req;

	if (r != NULL)
		http_xfer_result(x, rc);
	detach(x);
	x->state = HTTP_XFER_ENDING;
	if (r != NULL) {
		h->ending = r;
		h->ending_xfer = x;
		r->xfer = NULL;
		r->done(r);
		/* r may be gone or started again. */
		h->ending = NULL;
		h->ending_xfer = NULL;
	}
	recycle(x);
}

/* After any call into libcurl that may have ended transfers. */
static void reap(struct http *h)
{
	CURLMsg *msg;
	int left;

	while ((msg = curl_multi_info_read(h->multi, &left)) != NULL) {
		char *priv = NULL;

		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &priv);
		finish((struct http_xfer *)(void *)priv, msg->data.result);
	}
}

static void action(struct http *h, curl_socket_t s, int what)
{
	CURLMcode rc;
	int running;

	h->in_curl = true;
	rc = curl_multi_socket_action(h->multi, s, what, &running);
	h->in_curl = false;
	/* Out of memory, libcurl leaves without saying when to call again. */
	if (rc != CURLM_OK)
		timer_arm(&h->timer, RETRY_NS);
	reap(h);
}

static void on_sock(struct loop_fd *lf, unsigned what)
{
	struct http_sock *hs = container_of(lf, struct http_sock, lf);
	int mask = 0;

	if ((what & LOOP_READ) != 0)
		mask |= CURL_CSELECT_IN;
	if ((what & LOOP_WRITE) != 0)
		mask |= CURL_CSELECT_OUT;
	action(hs->http, lf->fd, mask);
}

static void on_timer(struct timer *t)
{
	action(container_of(t, struct http, timer), CURL_SOCKET_TIMEOUT, 0);
}

static int timer_cb(CURLM *multi, long ms, void *arg)
{
	struct http *h = arg;

	(void)multi;
	if (ms < 0)
		timer_cancel(&h->timer);
	else
		timer_arm(&h->timer, (uint64_t)ms * NS_PER_MS);
	return 0;
}

static void sock_drop(struct http_sock *hs)
{
	loop_fd_fini(&hs->lf);
	LIST_REMOVE(hs, link);
	free(hs);
}

static struct http_xfer *xfer_of_easy(CURL *easy)
{
	char *priv = NULL;

	if (easy != NULL)
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, &priv);
	return (struct http_xfer *)(void *)priv;
}

/* A socket that cannot be watched fails its transfer.  Told so, libcurl would give
 * the whole multi handle up for good. */
static int sock_lost(struct http *h, CURL *easy)
{
	struct http_xfer *x = xfer_of_easy(easy);

	if (x != NULL) {
		x->lost = true;
		http_end_soon(h);
	}
	return 0;
}

static int socket_cb(CURL *easy, curl_socket_t s, int what, void *arg, void *sockarg)
{
	struct http *h = arg;
	struct http_sock *hs = sockarg;
	struct http_xfer *x = xfer_of_easy(easy);
	unsigned want = 0;

	if (x != NULL)
		x->fd = what != CURL_POLL_REMOVE ? s : -1;
	if (what == CURL_POLL_REMOVE) {
		if (hs != NULL) {
			curl_multi_assign(h->multi, s, NULL);
			sock_drop(hs);
		}
		return 0;
	}
	if (hs == NULL) {
		hs = calloc(1, sizeof(*hs));
		if (hs == NULL || loop_fd_init(&hs->lf, h->loop, s, on_sock) != 0) {
			free(hs);
			return sock_lost(h, easy);
		}
		hs->http = h;
		LIST_INSERT_HEAD(&h->socks, hs, link);
		curl_multi_assign(h->multi, s, hs);
	}
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		want |= LOOP_READ;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		want |= LOOP_WRITE;
	return loop_fd_want(&hs->lf, want) != 0 ? sock_lost(h, easy) : 0;
}

static struct http_xfer *first_to_end(struct http *h)
{
	struct http_xfer *x;

	TAILQ_FOREACH (x, &h->running, link)
		if (x->req == NULL || x->lost || x->stalled)
			break;
	return x;
}

/* Takes aborted transfers off and gives waiting ones to curl: what neither a
 * callback of curl's nor http_start() may do. */
static void on_kick(struct deferred *d)
{
	struct http *h = container_of(d, struct http, kick);
	struct http_xfer *x;

	while ((x = first_to_end(h)) != NULL)
		finish(x, x->stalled ? CURLE_OPERATION_TIMEDOUT : CURLE_OUT_OF_MEMORY);
	while ((x = TAILQ_FIRST(&h->waiting)) != NULL) {
		CURLMcode rc;

		h->in_curl = true;
		rc = curl_multi_add_handle(h->multi, x->easy);
		h->in_curl = false;
		if (rc != CURLM_OK) {
			finish(x, CURLE_OUT_OF_MEMORY);
			continue;
		}
		TAILQ_REMOVE(&h->waiting, x, link);
		TAILQ_INSERT_TAIL(&h->running, x, link);
		x->state = HTTP_XFER_RUNNING;
		http_pace_begin(x);
	}
}

int http_start(struct http *h, struct http_req *r)
{
	struct http_xfer *x;
	int rc;

	CHECK_OBJ(h, HTTP_MAGIC);
	x = TAILQ_FIRST(&h->idle);
	if (x != NULL) {
		TAILQ_REMOVE(&h->idle, x, link);
		h->nidle--;
	} else {
		rc = http_xfer_new(&x, h);
		if (rc != 0)
			return rc;
	}
	rc = http_xfer_prepare(x, r);
	if (rc != 0) {
		recycle(x);
		return rc;
	}
	r->http = h;
	r->xfer = x;
	r->status = 0;
	r->fail = HTTP_OK;
	r->content_length = -1;
	r->sent = r->moved_ns = 0;
	r->errtext[0] = '\0';
	x->state = HTTP_XFER_WAITING;
	TAILQ_INSERT_TAIL(&h->waiting, x, link);
	loop_defer(h->loop, &h->kick, on_kick);
	return 0;
}

void http_abort(struct http_req *r)
{
	struct http_xfer *x = r->xfer;

	if (x == NULL)
		return;
	CHECK_OBJ(x, HTTP_XFER_MAGIC);
	assert(x->req == r);
	x->req = NULL;
	r->xfer = NULL;
	if (x->state == HTTP_XFER_RUNNING && x->http->in_curl) {
		loop_defer(x->http->loop, &x->http->kick, on_kick);
		return;
	}
	detach(x);
	recycle(x);
}

static const struct http_xfer *xfer_of(const struct http_req *r)
{
	if (r->xfer != NULL)
		return r->xfer;
	return r->http != NULL && r->http->ending == r ? r->http->ending_xfer : NULL;
}

const char *http_req_header(const struct http_req *r, const char *name)
{
	const struct http_xfer *x = xfer_of(r);

	return x != NULL ? http_xfer_header(x, name) : NULL;
}

const char *http_req_header_at(const struct http_req *r, unsigned i, const char **name)
{
	const struct http_xfer *x = xfer_of(r);

	return x != NULL ? http_xfer_header_at(x, i, name) : NULL;
}

static int multi_setup(struct http *h)
{
	long conns = (long)h->cfg->ufs_connections;

	h->multi = curl_multi_init();
	h->share = curl_share_init();
	if (h->multi == NULL || h->share == NULL)
		return -ENOMEM;
	if (curl_share_setopt(h->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION) != CURLSHE_OK)
		return -ENOMEM;
	curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, socket_cb);
	curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
	curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, timer_cb);
	curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
	/* Transfers are long: one connection each serves them better than streams
	 * that share one. */
	curl_multi_setopt(h->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
	curl_multi_setopt(h->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, conns);
	curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, conns);
	return 0;
}

int http_new(struct http **out, struct loop *lp, const struct config *cfg, struct errtext *et)
{
	const char *ca = cfg->s3_ca_file;
	struct http *h;

	*out = NULL;
	if (ca[0] != '\0' && access(ca, R_OK) != 0) {
		int err = -errno;

		return errtext_set(et, err, "s3.ca.file %s: %s", ca, strerror(-err));
	}
	ALLOC_OBJ(h, HTTP_MAGIC);
	if (h == NULL)
		return errtext_set(et, -ENOMEM, "http: out of memory");
	h->loop = lp;
	h->cfg = cfg;
	TAILQ_INIT(&h->idle);
	TAILQ_INIT(&h->waiting);
	TAILQ_INIT(&h->running);
	LIST_INIT(&h->socks);
	timer_init(&h->timer, lp, on_timer);
	h->curl_inited = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
	if (!h->curl_inited || multi_setup(h) != 0) {
		http_free(&h);
		return errtext_set(et, -ENOMEM, "http: cannot set up libcurl");
	}
	*out = h;
	return 0;
}

static void free_list(struct http_xfer_list *list)
{
	struct http_xfer *x;

	while ((x = TAILQ_FIRST(list)) != NULL) {
		TAILQ_REMOVE(list, x, link);
		if (x->req != NULL)
			x->req->xfer = NULL;
		http_xfer_free(&x);
	}
}

void http_free(struct http **hp)
{
	struct http *h;
	struct http_sock *s, *next;
	struct http_xfer *x;

	if (*hp == NULL)
		return;
	TAKE_OBJ(h, hp, HTTP_MAGIC);
	assert(!h->in_curl && h->ending == NULL);
	loop_undefer(h->loop, &h->kick);
	TAILQ_FOREACH (x, &h->running, link)
		curl_multi_remove_handle(h->multi, x->easy);
	timer_cancel(&h->timer);
	/* The cleanup closes sockets: what still watches them has to go first, and
	 * nothing new may be watched. */
	if (h->multi != NULL) {
		curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, NULL);
		curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, NULL);
	}
	for (s = LIST_FIRST(&h->socks); s != NULL; s = next) {
		next = LIST_NEXT(s, link);
		sock_drop(s);
	}
	free_list(&h->running);
	free_list(&h->waiting);
	free_list(&h->idle);
	curl_multi_cleanup(h->multi);
	curl_share_cleanup(h->share);
	if (h->curl_inited)
		curl_global_cleanup();
	FREE_OBJ(h);
}
