/* SPDX-License-Identifier: BSD-2-Clause */
/* One transfer: the request's options, the response's head, what went wrong. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/options.h"
#include "base/units.h"
#include "reactor/http_priv.h"

/* Receive buffer of a transfer that may be bulk data. */
#define BULK_BUFFER (256L * 1024)

int http_xfer_new(struct http_xfer **out, struct http *h)
{
	struct http_xfer *x;

	ALLOC_OBJ(x, HTTP_XFER_MAGIC);
	*out = x;
	if (x == NULL)
		return -ENOMEM;
	x->http = h;
	x->fd = -1;
	x->easy = curl_easy_init();
	if (x->easy == NULL) {
		http_xfer_free(out);
		return -ENOMEM;
	}
	return 0;
}

void http_xfer_free(struct http_xfer **xp)
{
	struct http_xfer *x;

	TAKE_OBJ(x, xp, HTTP_XFER_MAGIC);
	timer_cancel(&x->pace.timer);
	curl_easy_cleanup(x->easy);
	curl_slist_free_all(x->headers);
	free(x->head);
	FREE_OBJ(x);
}

void http_xfer_reset(struct http_xfer *x)
{
	curl_easy_reset(x->easy);
	curl_slist_free_all(x->headers);
	free(x->head);
	x->headers = NULL;
	x->head = NULL;
	x->head_len = x->head_size = x->head_bytes = 0;
	x->body_sent = 0;
	x->fd = -1;
	x->head_done = x->sunk = x->lost = x->stalled = false;
	x->req = NULL;
	x->errbuf[0] = '\0';
}

/* --- The response's head */

static int head_room(struct http_xfer *x, size_t need)
{
	size_t size = x->head_size != 0 ? x->head_size : 1024;
	char *p;

	while (size < x->head_len + need)
		size *= 2;
	if (size == x->head_size)
		return 0;
	p = realloc(x->head, size);
	if (p == NULL)
		return -ENOMEM;
	x->head = p;
	x->head_size = size;
	return 0;
}

/* "Name: value\r\n" to the list; a line without colon is passed by. */
static int head_add(struct http_xfer *x, const char *line, size_t len)
{
	const char *colon = memchr(line, ':', len), *v;
	size_t nlen, vlen;

	if (colon == NULL)
		return 0;
	nlen = (size_t)(colon - line);
	v = colon + 1;
	vlen = len - nlen - 1;
	while (vlen > 0 && strchr(" \t\r\n", v[vlen - 1]) != NULL)
		vlen--;
	while (vlen > 0 && (*v == ' ' || *v == '\t')) {
		v++;
		vlen--;
	}
	/* A NUL inside would shift every pair behind it. */
	if (memchr(line, '\0', len) != NULL)
		return 0;
	if (head_room(x, nlen + vlen + 2) != 0)
		return -ENOMEM;
	memcpy(x->head + x->head_len, line, nlen);
	x->head[x->head_len + nlen] = '\0';
	memcpy(x->head + x->head_len + nlen + 1, v, vlen);
	x->head[x->head_len + nlen + 1 + vlen] = '\0';
	x->head_len += nlen + vlen + 2;
	return 0;
}

const char *http_xfer_header(const struct http_xfer *x, const char *name)
{
	for (size_t at = 0; at < x->head_len;) {
		const char *n = x->head + at, *v = n + strlen(n) + 1;

		if (strcasecmp(n, name) == 0)
			return v;
		at += (size_t)(v - n) + strlen(v) + 1;
	}
	return NULL;
}

const char *http_xfer_header_at(const struct http_xfer *x, unsigned i, const char **name)
{
	for (size_t at = 0; at < x->head_len; i--) {
		const char *n = x->head + at, *v = n + strlen(n) + 1;

		*name = n;
		if (i == 0)
			return v;
		at += (size_t)(v - n) + strlen(v) + 1;
	}
	return NULL;
}

/* The empty line: tells the user unless it ends an interim response (1xx). */
static int head_end(struct http_xfer *x)
{
	struct http_req *r = x->req;
	curl_off_t length = -1;
	long status = 0;

	curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status < 200)
		return 0;
	x->head_done = true;
	curl_easy_getinfo(x->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
	r->status = status;
	r->content_length = length;
	return r->on_headers != NULL ? r->on_headers(r) : 0;
}

/* Returning another number than was given ends the transfer. */
static size_t header_cb(char *data, size_t size, size_t n, void *arg)
{
	struct http_xfer *x = arg;
	size_t len = size * n;
	int rc = 0;

	if (x->req == NULL)
		return 0;
	x->head_bytes += len;
	if (x->head_bytes > HTTP_HEAD_MAX) {
		x->sunk = true;
		return 0;
	}
	if (x->head_done) /* trailers */
		return len;
	if (len >= 5 && memcmp(data, "HTTP/", 5) == 0)
		x->head_len = 0;
	else if (len > 0 && (data[0] == '\r' || data[0] == '\n'))
		rc = head_end(x);
	else if (head_add(x, data, len) != 0)
		return 0;
	if (rc != 0)
		x->sunk = true;
	/* on_headers may have aborted the request. */
	return rc != 0 || x->req == NULL ? 0 : len;
}

static size_t write_cb(char *data, size_t size, size_t n, void *arg)
{
	struct http_xfer *x = arg;
	struct http_req *r = x->req;
	size_t len = size * n;

	if (r == NULL)
		return 0;
	if (r->on_data == NULL)
		return len;
	if (r->on_data(r, data, len) != 0) {
		x->sunk = true;
		return 0;
	}
	return x->req == NULL ? 0 : len;
}

/* --- The request's body */

static size_t read_cb(char *buf, size_t size, size_t n, void *arg)
{
	struct http_xfer *x = arg;
	size_t len = size * n;

	if (x->req == NULL)
		return CURL_READFUNC_ABORT;
	len = MIN(len, x->req->body_len - x->body_sent);
	if (len != 0)
		memcpy(buf, (const char *)x->req->body + x->body_sent, len);
	x->body_sent += len;
	return len;
}

/* curl rewinds when a kept connection turns out to be dead. */
static int seek_cb(void *arg, curl_off_t off, int origin)
{
	struct http_xfer *x = arg;

	if (x->req == NULL || origin != SEEK_SET || off < 0 || (size_t)off > x->req->body_len)
		return CURL_SEEKFUNC_FAIL;
	x->body_sent = (size_t)off;
	return CURL_SEEKFUNC_OK;
}

/* --- Options */

#define SET(opt, val)                                                                              \
	do {                                                                                       \
		if (rc == CURLE_OK)                                                                \
			rc = curl_easy_setopt(x->easy, opt, val);                                  \
	} while (0)

static long to_ms(uint64_t ns)
{
	uint64_t ms = (ns + NS_PER_MS - 1) / NS_PER_MS;

	return ms > INT32_MAX ? INT32_MAX : (long)ms;
}

static const char *env_value(const char *name)
{
	const char *v = getenv(name);

	return v != NULL && *v != '\0' ? v : NULL;
}

/* What curl(1) and other S3 tools look at; the library itself does not. */
static CURLcode set_authorities(struct http_xfer *x)
{
	static const char *const bundles[] = { "AWS_CA_BUNDLE", "CURL_CA_BUNDLE",
		"SSL_CERT_FILE" };
	const char *ca = x->http->cfg->s3_ca_file, *dir = env_value("SSL_CERT_DIR");
	CURLcode rc = CURLE_OK;

	if (ca[0] != '\0') {
		SET(CURLOPT_CAINFO, ca);
		SET(CURLOPT_CAPATH, NULL);
		return rc;
	}
	ca = NULL;
	for (size_t i = 0; i < ARRAY_LEN(bundles) && ca == NULL; i++)
		ca = env_value(bundles[i]);
	if (ca != NULL)
		SET(CURLOPT_CAINFO, ca);
	if (dir != NULL)
		SET(CURLOPT_CAPATH, dir);
	return rc;
}

static CURLcode set_common(struct http_xfer *x)
{
	const struct config *cfg = x->http->cfg;
	CURLcode rc = CURLE_OK;

	SET(CURLOPT_PRIVATE, x);
	SET(CURLOPT_SHARE, x->http->share);
	SET(CURLOPT_ERRORBUFFER, x->errbuf);
	SET(CURLOPT_HEADERFUNCTION, header_cb);
	SET(CURLOPT_HEADERDATA, x);
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	SET(CURLOPT_WRITEFUNCTION, write_cb);
	SET(CURLOPT_WRITEDATA, x);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_QUICK_EXIT, 1L);
	SET(CURLOPT_PATH_AS_IS, 1L);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_TCP_NODELAY, 1L);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_USERAGENT, "batonfs");
	SET(CURLOPT_CONNECTTIMEOUT_MS, to_ms(cfg->ufs_connect_timeout));
	return rc == CURLE_OK ? set_authorities(x) : rc;
}

static CURLcode set_method(struct http_xfer *x, const struct http_req *r)
{
	bool upload = r->body_len != 0 || strcmp(r->method, "PUT") == 0 ||
		      strcmp(r->method, "POST") == 0;
	CURLcode rc = CURLE_OK;

	if (upload) {
		/* Not POSTFIELDS, also for POST: they bring a Content-Type of
		 * their own that the caller did not sign. */
		SET(CURLOPT_UPLOAD, 1L);
		SET(CURLOPT_INFILESIZE_LARGE, (curl_off_t)r->body_len);
		SET(CURLOPT_READFUNCTION, read_cb);
		SET(CURLOPT_READDATA, x);
		SET(CURLOPT_SEEKFUNCTION, seek_cb);
		SET(CURLOPT_SEEKDATA, x);
		SET(CURLOPT_CUSTOMREQUEST, r->method);
	} else if (strcmp(r->method, "HEAD") == 0) {
		SET(CURLOPT_NOBODY, 1L);
	} else {
		SET(CURLOPT_HTTPGET, 1L);
		if (strcmp(r->method, "GET") != 0)
			SET(CURLOPT_CUSTOMREQUEST, r->method);
		else
			/* Refused where a failed transfer left a buffer behind: then
			 * that one serves. */
			curl_easy_setopt(x->easy, CURLOPT_BUFFERSIZE, BULK_BUFFER);
	}
	return rc;
}

static int add_line(struct http_xfer *x, const char *line)
{
	struct curl_slist *list = curl_slist_append(x->headers, line);

	if (list == NULL)
		return -ENOMEM;
	x->headers = list;
	return 0;
}

static int add_header(struct http_xfer *x, const struct http_header *hd)
{
	char *line;
	int err;

	/* A line break would begin a header of its own. */
	if (hd->value == NULL || hd->value[0] == '\0' || strpbrk(hd->value, "\r\n") != NULL)
		return -EINVAL;
	if (asprintf(&line, "%s: %s", hd->name, hd->value) < 0)
		return -ENOMEM;
	err = add_line(x, line);
	free(line);
	return err;
}

static int curl_errno(CURLcode rc)
{
	if (rc == CURLE_OK)
		return 0;
	return rc == CURLE_OUT_OF_MEMORY ? -ENOMEM : -EINVAL;
}

int http_xfer_prepare(struct http_xfer *x, struct http_req *r)
{
	const struct config *cfg = x->http->cfg;
	CURLcode rc;

	if (r->method == NULL || r->url == NULL || r->done == NULL ||
	    (r->body == NULL && r->body_len != 0))
		return -EINVAL;
	x->req = r;
	for (unsigned i = 0; i < r->nheaders; i++) {
		int err = add_header(x, &r->headers[i]);

		if (err != 0)
			return err;
	}
	/* No "Expect: 100-continue": it costs a round trip, or a second where the server
	 * does not know it. */
	if (r->body_len != 0 && add_line(x, "Expect:") != 0)
		return -ENOMEM;
	rc = set_common(x);
	if (rc == CURLE_OK)
		rc = set_method(x, r);
	SET(CURLOPT_URL, r->url);
	SET(CURLOPT_HTTPHEADER, x->headers);
	if (r->direct)
		SET(CURLOPT_NOPROXY, "*");
	if (r->idle_ns == 0) {
		SET(CURLOPT_LOW_SPEED_LIMIT, (long)cfg->ufs_low_speed_limit);
		SET(CURLOPT_LOW_SPEED_TIME, (to_ms(cfg->ufs_low_speed_time) + 999) / 1000);
		if (r->timeout_ns != 0)
			SET(CURLOPT_TIMEOUT_MS, to_ms(r->timeout_ns));
	}
	return curl_errno(rc);
}

/* --- Results */

/* Which limit was it?  The times are 0 for stages that were not reached. */
static enum http_fail classify_timeout(struct http_xfer *x)
{
	curl_off_t total = 0, resolved = 0, begun = 0;

	curl_easy_getinfo(x->easy, CURLINFO_TOTAL_TIME_T, &total);
	curl_easy_getinfo(x->easy, CURLINFO_NAMELOOKUP_TIME_T, &resolved);
	curl_easy_getinfo(x->easy, CURLINFO_PRETRANSFER_TIME_T, &begun);
	if (x->req->timeout_ns != 0 && (uint64_t)total * NS_PER_US >= x->req->timeout_ns)
		return HTTP_FAIL_STALL;
	if (begun != 0)
		return HTTP_FAIL_STALL;
	return resolved == 0 ? HTTP_FAIL_RESOLVE : HTTP_FAIL_CONNECT;
}

/* CURLE_SSL_CONNECT_ERROR is also a connection that broke during the handshake,
 * and only the words tell: OpenSSL's own complaints name their library. */
static enum http_fail classify_handshake(const struct http_xfer *x)
{
	if (strstr(x->errbuf, "unexpected eof") != NULL || strstr(x->errbuf, "reset") != NULL ||
	    strstr(x->errbuf, "SYSCALL") != NULL)
		return HTTP_FAIL_RESET;
	return HTTP_FAIL_TLS;
}

static enum http_fail classify(struct http_xfer *x, CURLcode rc)
{
	if (rc == CURLE_OK)
		return HTTP_OK;
	if (x->sunk)
		return HTTP_FAIL_SINK;
	switch (rc) {
	case CURLE_COULDNT_CONNECT:
	case CURLE_INTERFACE_FAILED:
	case CURLE_PROXY:
		return HTTP_FAIL_CONNECT;
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return HTTP_FAIL_RESOLVE;
	case CURLE_SSL_CONNECT_ERROR:
		return classify_handshake(x);
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_INVALIDCERTSTATUS:
	case CURLE_SSL_ENGINE_NOTFOUND:
	case CURLE_SSL_ENGINE_SETFAILED:
	case CURLE_SSL_ENGINE_INITFAILED:
		return HTTP_FAIL_TLS;
	case CURLE_PARTIAL_FILE:
	case CURLE_GOT_NOTHING:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
	case CURLE_SEND_FAIL_REWIND:
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_BAD_CONTENT_ENCODING:
		return HTTP_FAIL_RESET;
	case CURLE_OPERATION_TIMEDOUT:
		return classify_timeout(x);
	default:
		return HTTP_FAIL_OTHER;
	}
}

void http_xfer_result(struct http_xfer *x, CURLcode rc)
{
	struct http_req *r = x->req;

	r->fail = classify(x, rc);
	if (x->head_bytes > HTTP_HEAD_MAX)
		snprintf(r->errtext, sizeof(r->errtext), "response head longer than %d bytes",
		    HTTP_HEAD_MAX);
	else if (rc != CURLE_OK)
		snprintf(r->errtext, sizeof(r->errtext), "%s",
		    x->errbuf[0] != '\0' ? x->errbuf : curl_easy_strerror(rc));
}
