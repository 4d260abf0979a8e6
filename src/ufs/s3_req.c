/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One signed request, repeated until it is answered or ufs.timeout has passed.
 *
 * Repeated: refused, broken, silent and slow connections, 5xx, 429, 408, and error
 * documents that say so.  Never: other 4xx, TLS failures.  Pauses double with full
 * jitter; Retry-After is kept.
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/log.h"
#include "base/options.h"
#include "base/units.h"
#include "ufs/s3_priv.h"

#define S3_REQ_MAGIC 0x53330003u
#define SHA256_OF_NOTHING "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define DIGEST_TRIES 3u
/* Storage refuses signatures that are older or newer than 15 minutes. */
#define SKEW_NS (10 * 60 * NS_PER_S)

static struct ufs *ufs_of(const struct s3_req *r)
{
	return &r->s3->ufs;
}

static void release(struct s3_req *r)
{
	r->running = false;
	s3_keys_leave(r->s3->keys, &r->keys);
	s3_error_parser_free(&r->parser);
	free(r->url);
	r->url = NULL;
	free(r->authorization);
	r->authorization = NULL;
}

/* --- words */

/* The key as it stands in the URL: safe to print whatever it holds. */
static const char *url_path(const struct s3_req *r)
{
	const char *p = strstr(r->url, "://");

	p = p != NULL ? strchr(p + 3, '/') : NULL;
	return p != NULL ? p : "/";
}

static const char *request_id(const struct s3_req *r)
{
	const char *id = http_req_header(&r->hr, "x-amz-request-id");

	if (id != NULL)
		return id;
	return r->error.request_id[0] != '\0' ? r->error.request_id : "none";
}

static const char *fail_word(enum http_fail fail)
{
	switch (fail) {
	case HTTP_FAIL_CONNECT:
		return "cannot connect";
	case HTTP_FAIL_RESOLVE:
		return "cannot resolve the host name";
	case HTTP_FAIL_TLS:
		return "TLS failed";
	case HTTP_FAIL_RESET:
		return "the connection broke";
	case HTTP_FAIL_STALL:
		return "no answer in time";
	default:
		return "the request failed";
	}
}

/* What a person can do about a refusal, or "". */
static void hint(const struct s3_req *r, char *buf, size_t len)
{
	const char *region = http_req_header(&r->hr, "x-amz-bucket-region");
	time_t date;

	buf[0] = '\0';
	if (region == NULL && r->error.region[0] != '\0')
		region = r->error.region;
	if (region != NULL && r->status >= 300 && r->status <= 400) {
		(void)snprintf(buf, len, "; the bucket is in region %.40s: set s3.region", region);
	} else if (r->status / 100 == 3 && r->error.endpoint[0] != '\0') {
		(void)snprintf(
		    buf, len, "; it is at %.60s: set s3.endpoint or s3.region", r->error.endpoint);
	} else if (r->status / 100 == 3) {
		const char *to = http_req_header(&r->hr, "location");

		(void)snprintf(buf, len, "; redirected to %.60s: set s3.endpoint or s3.region",
		    to != NULL ? to : "nowhere");
	} else if (r->status == 403 && s3_http_date(http_req_header(&r->hr, "date"), &date)) {
		int64_t ahead = (int64_t)(loop_wall(ufs_of(r)->env.loop) / NS_PER_S) - date;

		if (strcmp(r->error.code, "RequestTimeTooSkewed") == 0 ||
		    (uint64_t)(ahead < 0 ? -ahead : ahead) * NS_PER_S > SKEW_NS)
			(void)snprintf(buf, len,
			    "; this machine's clock is %lld s %s the storage's: set the clock",
			    (long long)(ahead < 0 ? -ahead : ahead),
			    ahead < 0 ? "behind" : "ahead of");
	} else if (strcmp(r->error.code, "RequestTimeTooSkewed") == 0) {
		(void)snprintf(buf, len,
		    "; this machine's clock differs from the storage's: set the clock");
	}
}

/* Header values go to logs and terminals too. */
static void make_printable(char *s)
{
	for (; *s != '\0'; s++)
		if ((unsigned char)*s < ' ' || *s == 0x7f)
			*s = ' ';
}

static void make_words(struct s3_req *r)
{
	char why[128] = "", tip[128];

	if (r->words[0] != '\0') { /* the user's, about the content */
		char own[128];

		(void)snprintf(own, sizeof(own), "%.120s", r->words);
		(void)snprintf(r->words, sizeof(r->words),
		    "%s %.200s: %ld %.60s: %s (request %.80s)", r->method, url_path(r), r->status,
		    r->error.code, own, request_id(r));
		return;
	}
	if (r->hr.fail != HTTP_OK && (r->hr.fail != HTTP_FAIL_SINK || r->status == 0)) {
		(void)snprintf(r->words, sizeof(r->words), "%s %.200s: %s: %.200s", r->method,
		    r->url, fail_word(r->hr.fail), r->hr.errtext);
		return;
	}
	hint(r, tip, sizeof(tip));
	if (r->error.message[0] != '\0')
		(void)snprintf(why, sizeof(why), ": %.120s", r->error.message);
	(void)snprintf(r->words, sizeof(r->words), "%s %.120s: %ld %s%s%.110s (request %.60s)",
	    r->method, url_path(r), r->status, r->error.code, why, tip, request_id(r));
}

/* --- judging an answer */

static int refused_or_broken(const struct s3_req *r)
{
	static const char *const refusals[] = { "ExpiredToken", "InvalidToken",
		"InvalidAccessKeyId", "SignatureDoesNotMatch", "TokenRefreshRequired",
		"RequestTimeTooSkewed", "AccessDenied" };

	for (size_t i = 0; i < ARRAY_LEN(refusals); i++)
		if (strcmp(r->error.code, refusals[i]) == 0)
			return -EACCES;
	return -EIO;
}

/* What the code alone tells, whatever the status. */
static bool by_code(struct s3_req *r, bool *repeat, int *err)
{
	static const struct {
		const char *code;
		int err;
	} codes[] = {
		{ "NoSuchKey", -ENOENT },
		{ "NoSuchUpload", -ENOENT },
		{ "PreconditionFailed", -ESTALE },
		{ "QuotaExceeded", -EDQUOT },
		{ "EntityTooLarge", -EFBIG },
		{ "KeyTooLongError", -ENAMETOOLONG },
		{ "InvalidPart", -EINVAL },
		{ "InvalidObjectName", -EINVAL },
		{ "InvalidURI", -EINVAL },
		{ "NotImplemented", -EOPNOTSUPP },
		{ "InternalError", -EAGAIN },
		{ "SlowDown", -EAGAIN },
		{ "ServiceUnavailable", -EAGAIN },
		{ "RequestTimeout", -EAGAIN },
		{ "IncompleteBody", -EAGAIN },
		{ "BadDigest", -EAGAIN },
		{ "OperationAborted", -EAGAIN },
		{ "ConditionalRequestConflict", -EAGAIN },
	};

	/* It may have happened on the way; in memory it would happen again. */
	if (r->summed && s3_bad_digest(&r->error)) {
		*repeat = ++r->digests < DIGEST_TRIES;
		*err = -EBADMSG;
		return true;
	}
	for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
		if (strcmp(r->error.code, codes[i].code) != 0)
			continue;
		*repeat = codes[i].err == -EAGAIN;
		*err = *repeat ? -EIO : codes[i].err;
		if (*err == -EOPNOTSUPP && !r->optional)
			*err = -EIO;
		return true;
	}
	return false;
}

static int by_status(struct s3_req *r, bool *repeat)
{
	long st = r->status;
	int err;

	if (st / 100 == 2) {
		err = r->complete != NULL ? r->complete(r) : 0;
		if (err == -EBADMSG)
			return by_code(r, repeat, &err) ? err : refused_or_broken(r);
		*repeat = err == -EAGAIN;
		return err == -EAGAIN ? -EIO : err;
	}
	if (by_code(r, repeat, &err))
		return err;
	if (st == 507)
		return -ENOSPC;
	if ((st / 100 == 5 && st != 501 && st != 505) || st == 429 || st == 408) {
		*repeat = true;
		return -EIO;
	}
	if (st == 401 || st == 403)
		return -EACCES;
	if (st == 412 || st == 416)
		return -ESTALE;
	/* A proxy's or a wrong server's 404 says nothing about the key; only HEAD
	 * has no body to tell by. */
	if (st == 404 && strcmp(r->method, "HEAD") == 0)
		return -ENOENT;
	if ((st == 501 || st == 405) && r->optional)
		return -EOPNOTSUPP;
	return refused_or_broken(r);
}

static int judge(struct s3_req *r, bool *repeat)
{
	*repeat = false;
	switch (r->hr.fail) {
	case HTTP_OK:
		return by_status(r, repeat);
	case HTTP_FAIL_SINK:
		if (r->body_stop)
			return by_status(r, repeat);
		return r->sink_err != 0 ? r->sink_err : -EIO; /* a head without end */
	case HTTP_FAIL_CONNECT:
	case HTTP_FAIL_RESOLVE:
	case HTTP_FAIL_STALL:
		*repeat = true;
		return -ETIMEDOUT;
	case HTTP_FAIL_RESET:
		*repeat = true;
		return -EIO;
	default:
		return -EIO;
	}
}

/* --- repeating */

static uint64_t random_below(uint64_t limit)
{
	uint64_t v;

	if (limit == 0)
		return 0;
	if (getrandom(&v, sizeof(v), GRND_NONBLOCK) != (ssize_t)sizeof(v))
		v = clock_system.monotonic(&clock_system);
	return v % limit;
}

static uint64_t retry_after(const struct s3_req *r)
{
	const char *text;
	uint64_t v, wall = loop_wall(ufs_of(r)->env.loop) / NS_PER_S;
	time_t t;

	if (r->hr.fail != HTTP_OK && r->hr.fail != HTTP_FAIL_SINK)
		return 0;
	text = http_req_header(&r->hr, "retry-after");
	if (text == NULL)
		return 0;
	if (s3_u64(text, &v))
		return MIN(v, UINT64_C(1000000)) * NS_PER_S;
	if (s3_http_date(text, &t) && (uint64_t)t > wall)
		return MIN((uint64_t)t - wall, UINT64_C(1000000)) * NS_PER_S;
	return 0;
}

/* How long to wait before the next attempt; false: there is no time for one. */
static bool next_pause(struct s3_req *r, uint64_t *pause)
{
	const struct config *cfg = ufs_of(r)->env.cfg;
	uint64_t now = loop_now(ufs_of(r)->env.loop);
	uint64_t left = r->deadline > now ? r->deadline - now : 0;
	uint64_t ceil = cfg->ufs_retry_base, asked = retry_after(r), drawn;

	for (unsigned i = 1; i < r->attempt && ceil < cfg->ufs_retry_max; i++)
		ceil *= 2;
	ceil = MIN(ceil, cfg->ufs_retry_max);
	if (left < MIN(cfg->ufs_retry_base, 10 * NS_PER_MS) || asked >= left)
		return false;
	/* An outage that ends shortly before the deadline shall still be noticed. */
	drawn = random_below(ceil + 1);
	*pause = MAX(asked, MIN(drawn, left / 2));
	return true;
}

static void finish(struct s3_req *r, int err)
{
	struct ufs *u = ufs_of(r);
	bool answer = err == 0 || err == -ENOENT || err == -ESTALE || err == -EOPNOTSUPP ||
	    (r->status != 0 && (err == -EINVAL || err == -ENAMETOOLONG));
	bool normal = answer && (err != -ENOENT || r->missing_is_normal);

	if (answer) {
		ufs_health_note(u, 0, " ");
	} else {
		ufs_health_note(u, err, "%s", r->words);
		COUNT(u->env.loop, UFS_ERRORS, 1);
	}
	if (!normal && (r->tries == 0 || !r->passing))
		log_warn("s3: %s: gave up after %u attempts", r->words, r->attempt);
	release(r);
	r->done(r, err);
}

static void again_in(struct s3_req *r, uint64_t pause)
{
	r->next = S3_REQ_REPEAT;
	timer_arm(&r->pause, pause);
}

/* Credentials that expired under way, or were revoked: once more with others. */
static bool rekey(struct s3_req *r)
{
	static const char *const codes[] = { "ExpiredToken", "InvalidToken",
		"InvalidAccessKeyId", "TokenRefreshRequired" };

	for (size_t i = 0; i < ARRAY_LEN(codes) && !r->rejected; i++)
		if (strcmp(r->error.code, codes[i]) == 0)
			return r->rejected = s3_keys_reject(r->s3->keys, r->generation);
	return false;
}

static bool is_write(const struct s3_req *r)
{
	return strcmp(r->method, "GET") != 0 && strcmp(r->method, "HEAD") != 0;
}

/* A body that gets farther than any attempt before has its time from there on; so a
 * connection that always breaks at the same place is not tried for ever. */
static void note_progress(struct s3_req *r)
{
	if (!is_write(r) || r->hr.sent <= r->high)
		return;
	r->high = r->hr.sent;
	r->deadline = MAX(r->deadline, r->hr.moved_ns + ufs_of(r)->env.cfg->ufs_timeout);
}

static void on_done(struct http_req *hr)
{
	struct s3_req *r = container_of(hr, struct s3_req, hr);
	uint64_t pause = 0;
	bool repeat;
	int err;

	CHECK_OBJ(r, S3_REQ_MAGIC);
	s3_error_parser_free(&r->parser);
	note_progress(r);
	err = judge(r, &repeat);
	r->passing = repeat;
	/* It did answer before: our own deadline that cuts the last attempt short is no
	 * silence. */
	if (err == -ETIMEDOUT && r->answered)
		err = -EIO;
	r->answered |= hr->fail == HTTP_OK;
	if (err == 0 || (repeat && r->whole != NULL && r->whole(r))) {
		finish(r, 0);
		return;
	}
	make_words(r);
	make_printable(r->words);
	if (r->status / 100 == 4 && rekey(r)) {
		again_in(r, 0);
		return;
	}
	if (!repeat || (r->tries != 0 && r->attempt >= r->tries) || !next_pause(r, &pause)) {
		finish(r, err);
		return;
	}
	log_debug("s3: %s: attempt %u, the next in %llu ms", r->words, r->attempt,
	    (unsigned long long)(pause / NS_PER_MS));
	again_in(r, pause);
}

/* --- one attempt */

static int on_headers(struct http_req *hr)
{
	struct s3_req *r = container_of(hr, struct s3_req, hr);

	r->status = hr->status;
	if (r->status / 100 == 2) {
		r->sink_err = r->head != NULL ? r->head(r) : 0;
		return r->sink_err;
	}
	r->parser = s3_error_parser_new(&r->error);
	r->sink_err = r->parser == NULL ? -ENOMEM : 0;
	return r->sink_err;
}

static int on_data(struct http_req *hr, const void *data, size_t len)
{
	struct s3_req *r = container_of(hr, struct s3_req, hr);
	int err;

	if (r->status / 100 != 2) {
		if (r->parser == NULL)
			return 0;
		r->error_bytes += len;
		if (r->error_bytes <= S3_ERROR_BYTES) {
			s3_error_feed(r->parser, data, len);
			return 0;
		}
		/* No error is that long: do not wait for its end. */
		r->body_stop = true;
		return -EIO;
	}
	err = r->data != NULL ? r->data(r, data, len) : 0;
	if (err != 0 && err != -ECANCELED)
		r->sink_err = err;
	return err;
}

static void add_header(struct s3_req *r, const char *name, const char *value)
{
	if (value == NULL || *value == '\0')
		return;
	assert(r->hr.nheaders < ARRAY_LEN(r->headers));
	r->headers[r->hr.nheaders].name = name;
	r->headers[r->hr.nheaders].value = value;
	r->hr.nheaders++;
}

static void begin(struct s3_req *r)
{
	memset(&r->hr, 0, sizeof(r->hr));
	memset(&r->error, 0, sizeof(r->error));
	r->words[0] = '\0';
	r->status = 0;
	r->sink_err = 0;
	r->body_stop = false;
	r->error_bytes = 0;
	if (r->attempt++ > 0) {
		COUNT(ufs_of(r)->env.loop, UFS_RETRIES, 1);
		if (r->again != NULL)
			r->again(r);
	}
}

static void add_key(struct s3_req *r)
{
	struct http_header sse[S3_SSE_HEADERS];
	bool copies = false;
	unsigned n;

	for (unsigned i = 0; i < r->nextra; i++)
		copies = copies || strcmp(r->extra[i].name, "x-amz-copy-source") == 0;
	n = r->object ? s3_sse_headers(r->s3, copies, sse) : 0;
	for (unsigned i = 0; i < n; i++)
		add_header(r, sse[i].name, sse[i].value);
}

static int sign(struct s3_req *r)
{
	struct s3 *s3 = r->s3;
	struct s3_sign *s = &r->sign;
	time_t now = (time_t)(loop_wall(s3->ufs.env.loop) / NS_PER_S);
	struct tm tm;
	int err;

	free(r->authorization);
	r->authorization = NULL;
	s->access = s3_keys_access(s3->keys);
	if (s->access == NULL)
		return 0;
	if (gmtime_r(&now, &tm) == NULL ||
	    strftime(s->stamp, sizeof(s->stamp), "%Y%m%dT%H%M%SZ", &tm) != sizeof(s->stamp) - 1)
		return -EINVAL;
	add_header(r, "x-amz-content-sha256",
	    r->body_len > 0 ? "UNSIGNED-PAYLOAD" : SHA256_OF_NOTHING);
	add_header(r, "x-amz-security-token", s3_keys_token(s3->keys));
	add_header(r, "x-amz-date", s->stamp);
	s->method = r->method;
	s->url = r->url;
	s->secret = s3_keys_secret(s3->keys);
	s->region = s3->ufs.env.cfg->s3_region;
	s->generation = r->generation = s3_keys_generation(s3->keys);
	s->headers = r->headers;
	s->nheaders = r->hr.nheaders;
	err = s3_sign(&s3->sign_key, s, &r->authorization);
	if (err == 0)
		add_header(r, "Authorization", r->authorization);
	return err;
}

static void send(struct s3_req *r)
{
	struct ufs *u = ufs_of(r);
	uint64_t now = loop_now(u->env.loop);
	uint64_t left = r->deadline > now ? r->deadline - now : 1;

	COUNT(u->env.loop, UFS_REQUESTS, 1);
	r->hr.method = r->method;
	r->hr.url = r->url;
	r->hr.headers = r->headers;
	r->hr.body = r->body;
	r->hr.body_len = r->body_len;
	if (u->env.cfg->s3_requester_pays)
		add_header(r, "x-amz-request-payer", "requester");
	add_header(r, "Range", r->range);
	add_header(r, "If-Match", r->if_match);
	for (unsigned i = 0; i < r->nextra; i++)
		add_header(r, r->extra[i].name, r->extra[i].value);
	add_key(r);
	if (is_write(r))
		r->hr.idle_ns = left;
	else
		r->hr.timeout_ns = left;
	r->hr.on_headers = on_headers;
	r->hr.on_data = on_data;
	r->hr.done = on_done;
	r->start_err = sign(r);
	if (r->start_err == 0)
		r->start_err = http_start(u->env.http, &r->hr);
	if (r->start_err != 0) {
		r->next = S3_REQ_FAIL;
		timer_arm(&r->pause, 0);
	}
}

/* Nothing is sent without credentials; who waits for them waits no longer than for an
 * answer. */
static void send_with_keys(struct s3_req *r)
{
	uint64_t now = loop_now(ufs_of(r)->env.loop);
	int err = s3_keys_get(r->s3->keys, &r->keys);

	if (err == 0) {
		send(r);
	} else if (err == -EINPROGRESS) {
		r->next = S3_REQ_KEYS_WAIT;
		timer_arm(&r->pause, r->deadline > now ? r->deadline - now : 0);
	} else {
		r->start_err = err;
		r->next = S3_REQ_KEYS_FAIL;
		timer_arm(&r->pause, 0);
	}
}

static void on_keys(struct s3_keys_wait *w)
{
	struct s3_req *r = container_of(w, struct s3_req, keys);

	timer_cancel(&r->pause);
	send_with_keys(r);
}

static void keys_failed(struct s3_req *r)
{
	bool waited = r->next == S3_REQ_KEYS_WAIT;
	int err = waited ? s3_keys_error(r->s3->keys) : r->start_err;
	const char *why = s3_keys_words(r->s3->keys);
	uint64_t pause;

	(void)snprintf(r->words, sizeof(r->words), "credentials: %.480s",
	    waited && *why == '\0' ? "no answer in time" : why);
	if (waited || err == -EACCES || err == -ENOMEM || !next_pause(r, &pause))
		finish(r, err);
	else
		again_in(r, pause);
}

static void on_pause(struct timer *t)
{
	struct s3_req *r = container_of(t, struct s3_req, pause);

	switch (r->next) {
	case S3_REQ_REPEAT:
		begin(r);
		send_with_keys(r);
		break;
	case S3_REQ_FAIL:
		(void)snprintf(r->words, sizeof(r->words), "%s: %s", r->method,
		    strerror(-r->start_err));
		finish(r, r->start_err);
		break;
	default:
		keys_failed(r);
	}
}

static char *make_url(const struct s3_req *r, const char *key, const char *query)
{
	char *url = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&url, &len);

	if (f == NULL)
		return NULL;
	(void)fputs(r->s3->base, f);
	/* The bucket itself is "/bucket", or "/" where it is in the host name. */
	if (*key != '\0' || strchr(strstr(r->s3->base, "://") + 3, '/') == NULL)
		(void)fputc('/', f);
	s3_enc_path(f, key);
	if (query != NULL)
		(void)fprintf(f, "?%s", query);
	if (s3_stream_close(f, &url))
		return url;
	free(url);
	return NULL;
}

void s3_req_start(struct s3_req *r, const char *key, const char *query)
{
	struct ufs *u = ufs_of(r);

	r->magic = S3_REQ_MAGIC;
	timer_init(&r->pause, u->env.loop, on_pause);
	r->deadline = r->until != 0 ? r->until : loop_now(u->env.loop) + u->env.cfg->ufs_timeout;
	r->high = 0;
	r->running = true;
	r->passing = false;
	r->attempt = r->digests = 0;
	r->url = key != NULL ? make_url(r, key, query) : NULL;
	r->keys.ready = on_keys;
	r->rejected = r->answered = false;
	r->object = key != NULL && *key != '\0' && strcmp(r->method, "DELETE") != 0;
	if (r->url != NULL) {
		begin(r);
		send_with_keys(r);
		return;
	}
	r->start_err = -ENOMEM;
	r->next = S3_REQ_FAIL;
	timer_arm(&r->pause, 0);
}

void s3_req_abort(struct s3_req *r)
{
	if (!r->running)
		return;
	assert(r->magic == S3_REQ_MAGIC);
	timer_cancel(&r->pause);
	http_abort(&r->hr);
	release(r);
}
