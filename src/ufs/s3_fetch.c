/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Asking a service for credentials: read the file that authorises us (in the pool), one
 * request to STS or to the container's endpoint, three to the instance's.  One attempt;
 * who wants more asks again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/options.h"
#include "base/units.h"
#include "ufs/s3_priv.h"

#define TOKEN_FILE_MAX 65536u
#define ROLE_PATH "/latest/meta-data/iam/security-credentials/"
/* Services on this machine or on the next: silence means that there is none. */
#define NEAR_NS (2 * NS_PER_S)
#define STS_NS (10 * NS_PER_S)

struct s3_fetch_file {
	struct pool_job job;
	struct s3_fetch *fetch; /* NULL: given up */
	char *path, *text;
	size_t len;
};

static void wipe(char **s)
{
	if (*s != NULL)
		explicit_bzero(*s, strlen(*s));
	free(*s);
	*s = NULL;
}

static void release(struct s3_fetch *f)
{
	wipe(&f->body);
	wipe(&f->secret);
	wipe(&f->answer);
	free(f->url);
	f->url = NULL;
	f->answer_len = 0;
}

static void end(struct s3_fetch *f, int err)
{
	release(f);
	f->done(f, err);
}

static void on_fail(struct deferred *d)
{
	struct s3_fetch *f = container_of(d, struct s3_fetch, fail);

	end(f, f->fail_err);
}

static void fail(struct s3_fetch *f, int err, const char *why)
{
	f->fail_err = errtext_set(&f->et, err, "%s: %s", s3_source_name(f->src->kind), why);
	loop_defer(f->env->loop, &f->fail, on_fail);
}

/* --- one request */

static int on_data(struct http_req *hr, const void *data, size_t len)
{
	struct s3_fetch *f = container_of(hr, struct s3_fetch, hr);
	char *p;

	if (len > S3_ANSWER_MAX - f->answer_len)
		return -E2BIG;
	p = realloc(f->answer, f->answer_len + len + 1);
	if (p == NULL)
		return -ENOMEM;
	f->answer = p;
	memcpy(p + f->answer_len, data, len);
	f->answer_len += len;
	p[f->answer_len] = '\0';
	return 0;
}

static int refused(struct s3_fetch *f)
{
	long st = f->hr.status;
	char why[330] = "";
	bool again = st / 100 == 5 || st == 429 || st == 408;

	if (f->src->kind == S3_SOURCE_WEB_IDENTITY && f->answer != NULL)
		s3_answer_sts_error(f->answer, f->answer_len, why, sizeof(why));
	if (f->src->kind == S3_SOURCE_INSTANCE && st == 404)
		(void)snprintf(why, sizeof(why), "no role is attached to this machine");
	return errtext_set(&f->et, again ? -EIO : -EACCES, "%s: %s %.200s: %ld%s%s",
	    s3_source_name(f->src->kind), f->hr.method, f->url, st, why[0] != '\0' ? " " : "",
	    why);
}

static void on_done(struct http_req *hr)
{
	struct s3_fetch *f = container_of(hr, struct s3_fetch, hr);

	if (hr->fail == HTTP_FAIL_SINK) {
		end(f, errtext_set(&f->et, -EIO, "%s: %.200s: the answer is too long",
			   s3_source_name(f->src->kind), f->url));
	} else if (hr->fail != HTTP_OK) {
		end(f, errtext_set(&f->et,
			   hr->fail == HTTP_FAIL_CONNECT || hr->fail == HTTP_FAIL_RESOLVE ||
				   hr->fail == HTTP_FAIL_STALL ?
			       -ETIMEDOUT :
			       -EIO,
			   "%s: %s %.200s: %s", s3_source_name(f->src->kind), hr->method, f->url,
			   hr->errtext));
	} else if (hr->status / 100 != 2) {
		end(f, refused(f));
	} else {
		f->step(f);
	}
}

static void header(struct s3_fetch *f, const char *name, const char *value)
{
	f->headers[f->hr.nheaders].name = name;
	f->headers[f->hr.nheaders].value = value;
	f->hr.nheaders++;
}

static void ask(struct s3_fetch *f, const char *method, void (*step)(struct s3_fetch *f))
{
	uint64_t limit = f->src->kind == S3_SOURCE_WEB_IDENTITY ? STS_NS : NEAR_NS;
	int err;

	wipe(&f->answer);
	f->answer_len = 0;
	f->step = step;
	f->hr.method = method;
	f->hr.url = f->url;
	f->hr.headers = f->headers;
	f->hr.direct = f->src->kind != S3_SOURCE_WEB_IDENTITY;
	f->hr.timeout_ns = MIN(limit, f->env->cfg->ufs_timeout);
	f->hr.on_data = on_data;
	f->hr.done = on_done;
	err = http_start(f->env->http, &f->hr);
	if (err != 0)
		fail(f, err, strerror(-err));
}

static bool set_url(struct s3_fetch *f, const char *path, const char *more)
{
	free(f->url);
	if (asprintf(&f->url, "%s%s%s", f->src->url, path, more) >= 0)
		return true;
	f->url = NULL;
	return false;
}

static void fresh(struct s3_fetch *f)
{
	memset(&f->hr, 0, sizeof(f->hr));
}

static void with_json(struct s3_fetch *f)
{
	struct errtext why;
	int err = s3_answer_json(
	    &f->cred, f->answer != NULL ? f->answer : "", f->answer_len, &why);

	if (err != 0)
		(void)errtext_set(&f->et, err, "%s: %.200s: %.300s",
		    s3_source_name(f->src->kind), f->url, why.s);
	end(f, err == -ENOMEM || err == 0 ? err : -EIO);
}

/* --- STS */

static void with_sts(struct s3_fetch *f)
{
	struct errtext why;
	int err =
	    s3_answer_sts(&f->cred, f->answer != NULL ? f->answer : "", f->answer_len, &why);

	if (err != 0)
		(void)errtext_set(&f->et, err, "%s: %.200s: %.300s",
		    s3_source_name(f->src->kind), f->url, why.s);
	end(f, err == -ENOMEM || err == 0 ? err : -EIO);
}

static char *sts_body(const struct s3_fetch *f)
{
	char *body = NULL;
	size_t len = 0;
	FILE *m = open_memstream(&body, &len);

	if (m == NULL)
		return NULL;
	(void)fputs("Action=AssumeRoleWithWebIdentity&RoleArn=", m);
	s3_enc_value(m, f->src->role);
	(void)fputs("&RoleSessionName=", m);
	s3_enc_value(m, f->src->session);
	(void)fputs("&Version=2011-06-15&WebIdentityToken=", m);
	s3_enc_value(m, f->secret);
	if (s3_stream_close(m, &body))
		return body;
	wipe(&body);
	return NULL;
}

static void ask_sts(struct s3_fetch *f)
{
	fresh(f);
	f->body = sts_body(f);
	if (f->body == NULL || !set_url(f, "/", "")) {
		fail(f, -ENOMEM, "out of memory");
		return;
	}
	header(f, "Content-Type", "application/x-www-form-urlencoded");
	f->hr.body = f->body;
	f->hr.body_len = strlen(f->body);
	ask(f, "POST", with_sts);
}

/* --- Container */

static void ask_container(struct s3_fetch *f)
{
	const char *token = f->secret != NULL ? f->secret : f->src->token;

	fresh(f);
	if (!set_url(f, "", "")) {
		fail(f, -ENOMEM, "out of memory");
		return;
	}
	if (token != NULL)
		header(f, "Authorization", token);
	ask(f, "GET", with_json);
}

/* --- Instance: a session token, the role's name, the role's credentials */

/* One word of visible characters; cuts what follows it. */
static bool one_word(char *s)
{
	size_t n = s != NULL ? strcspn(s, "\r\n") : 0;

	if (n == 0 || n > 4096)
		return false;
	s[n] = '\0';
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] <= ' ' || (unsigned char)s[i] >= 0x7f)
			return false;
	return true;
}

static void with_role(struct s3_fetch *f)
{
	char *role = NULL;
	size_t len = 0;
	FILE *m;
	bool ok;

	if (!one_word(f->answer)) {
		end(f, errtext_set(&f->et, -EIO, "%s: %.200s: the answer is no role's name",
			   s3_source_name(f->src->kind), f->url));
		return;
	}
	m = open_memstream(&role, &len);
	ok = m != NULL;
	if (ok) {
		s3_enc_value(m, f->answer);
		ok = s3_stream_close(m, &role);
	}
	fresh(f);
	if (!ok || !set_url(f, ROLE_PATH, role)) {
		fail(f, -ENOMEM, "out of memory");
	} else {
		header(f, "X-aws-ec2-metadata-token", f->secret);
		ask(f, "GET", with_json);
	}
	free(role);
}

static void with_instance_token(struct s3_fetch *f)
{
	if (!one_word(f->answer)) {
		end(f, errtext_set(&f->et, -EIO, "%s: %.200s: the answer is no session token",
			   s3_source_name(f->src->kind), f->url));
		return;
	}
	f->secret = f->answer;
	f->answer = NULL;
	f->answer_len = 0;
	fresh(f);
	if (!set_url(f, ROLE_PATH, "")) {
		fail(f, -ENOMEM, "out of memory");
		return;
	}
	header(f, "X-aws-ec2-metadata-token", f->secret);
	ask(f, "GET", with_role);
}

static void ask_instance(struct s3_fetch *f)
{
	fresh(f);
	if (!set_url(f, "/latest/api/token", "")) {
		fail(f, -ENOMEM, "out of memory");
		return;
	}
	header(f, "X-aws-ec2-metadata-token-ttl-seconds", "300");
	ask(f, "PUT", with_instance_token);
}

/* --- the file */

static void file_free(struct s3_fetch_file *ff)
{
	wipe(&ff->text);
	free(ff->path);
	free(ff);
}

static int read_all(int fd, char *buf, size_t room, size_t *len)
{
	*len = 0;
	while (*len < room) {
		ssize_t n = read(fd, buf + *len, room - *len);

		if (n == 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			*len += (size_t)n;
	}
	return -EFBIG;
}

static void file_work(struct pool_job *job)
{
	struct s3_fetch_file *ff = container_of(job, struct s3_fetch_file, job);
	int fd = open(ff->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0) {
		job->result = -errno;
		return;
	}
	ff->text = malloc(TOKEN_FILE_MAX + 1);
	job->result = ff->text == NULL ? -ENOMEM : read_all(fd, ff->text, TOKEN_FILE_MAX, &ff->len);
	if (ff->text != NULL)
		ff->text[ff->len] = '\0';
	(void)close(fd);
}

static bool token_ok(char *s)
{
	size_t n = strlen(s);

	while (n > 0 && strchr(" \t\r\n", s[n - 1]) != NULL)
		s[--n] = '\0';
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < ' ' || (unsigned char)s[i] >= 0x7f)
			return false;
	return n > 0;
}

static void file_done(struct pool_job *job)
{
	struct s3_fetch_file *ff = container_of(job, struct s3_fetch_file, job);
	struct s3_fetch *f = ff->fetch;
	int err = job->result;
	char why[600];

	if (f == NULL) {
		file_free(ff);
		return;
	}
	f->file = NULL;
	if (err == 0 && (strlen(ff->text) != ff->len || !token_ok(ff->text)))
		err = -EBADMSG;
	if (err == 0) {
		f->secret = ff->text;
		ff->text = NULL;
	}
	(void)snprintf(why, sizeof(why), "token file %.400s: %s", ff->path,
	    err == -EBADMSG ? "it holds no token" : strerror(-err));
	file_free(ff);
	if (err == 0)
		f->step(f);
	else
		fail(f, err == -ENOMEM ? err : -EIO, why);
}

static void read_file(struct s3_fetch *f, void (*step)(struct s3_fetch *f))
{
	struct s3_fetch_file *ff = calloc(1, sizeof(*ff));

	if (ff != NULL)
		ff->path = strdup(f->src->token_file);
	if (ff == NULL || ff->path == NULL) {
		free(ff);
		fail(f, -ENOMEM, "out of memory");
		return;
	}
	ff->fetch = f;
	f->file = ff;
	f->step = step;
	pool_submit(f->env->pool, NULL, &ff->job, file_work, file_done);
}

void s3_fetch_start(struct s3_fetch *f)
{
	memset(&f->cred, 0, sizeof(f->cred));
	f->et.s[0] = '\0';
	if (f->src->kind == S3_SOURCE_WEB_IDENTITY)
		read_file(f, ask_sts);
	else if (f->src->kind == S3_SOURCE_CONTAINER && f->src->token_file != NULL)
		read_file(f, ask_container);
	else if (f->src->kind == S3_SOURCE_CONTAINER)
		ask_container(f);
	else
		ask_instance(f);
}

void s3_fetch_abort(struct s3_fetch *f)
{
	if (f->file != NULL && pool_recall(&f->file->job))
		file_free(f->file);
	else if (f->file != NULL)
		f->file->fetch = NULL; /* file_done() frees it */
	f->file = NULL;
	loop_undefer(f->env->loop, &f->fail);
	http_abort(&f->hr);
	release(f);
}
