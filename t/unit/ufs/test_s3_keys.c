/* SPDX-License-Identifier: BSD-2-Clause */
/* Credentials that services hand out: what is asked, how often, and what goes wrong. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../../lib/http_script.h"
#include "base/log.h"
#include "base/obj.h"
#include "ufs/s3_priv.h"
#include "ufs_fix.h"

static const char *const vars[] = { "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
	"AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN",
	"AWS_ROLE_SESSION_NAME", "AWS_ENDPOINT_URL_STS", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
	"AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN",
	"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_EC2_METADATA_SERVICE_ENDPOINT",
	"AWS_EC2_METADATA_DISABLED" };

static struct http_script *s3, *svc; /* the storage, and who hands out credentials */
static struct ufs_fix f;
static char token_file[] = "/tmp/ufs-token-XXXXXX";

static void up(void)
{
	ufs_fix_limit();
	for (size_t i = 0; i < ARRAY_LEN(vars); i++)
		unsetenv(vars[i]);
	setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/cred", 1);
	setenv("AWS_CONFIG_FILE", "/nonexistent/conf", 1);
	/* Only STS may be asked through a proxy, and that not here. */
	setenv("http_proxy", "http://127.0.0.1:1", 1);
	setenv("no_proxy", "127.0.0.1", 1);
	log_set_level(LOG_LVL_ERROR);
	s3 = http_script_new();
	svc = http_script_new();
	http_script_reply(s3, "GET /b/k", 206, "ETag: \"v1\"\r\nContent-Range: bytes 0-3/4\r\n",
	    "good", 4, 0);
	ufs_fix_init(&f, http_script_url(s3));
}

static void down(void)
{
	ufs_fix_fini(&f);
	http_script_free(&s3);
	http_script_free(&svc);
	unlink(token_file);
}

TestSuite(s3_keys, .init = up, .fini = down);

static void env(const char *name, const char *path)
{
	char url[128];

	(void)snprintf(url, sizeof(url), "%s%s", http_script_url(svc), path);
	setenv(name, url, 1);
}

static void put_token(const char *text)
{
	int fd;

	strcpy(token_file, "/tmp/ufs-token-XXXXXX");
	fd = mkstemp(token_file);
	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static const char *when(int seconds)
{
	static char buf[32];
	time_t t = time(NULL) + seconds;
	struct tm tm;

	gmtime_r(&t, &tm);
	strftime(buf, sizeof(buf), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return buf;
}

/* Credentials called `name` that live so long, as JSON. */
static void json_reply(const char *match, const char *name, int seconds, unsigned times)
{
	char body[512];

	(void)snprintf(body, sizeof(body),
	    "{\"Code\":\"Success\",\"Type\":\"x\",\"AccessKeyId\":\"%s\","
	    "\"SecretAccessKey\":\"topsecret\",\"Token\":\"tok-%s\",\"Expiration\":\"%s\"}",
	    name, name, when(seconds));
	http_script_reply(svc, match, 200, "Content-Type: application/json\r\n", body,
	    strlen(body), times);
}

static void sts_reply(const char *name, int seconds, unsigned times)
{
	char body[1024];

	(void)snprintf(body, sizeof(body),
	    "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">"
	    "<AssumeRoleWithWebIdentityResult><AssumedRoleUser><Arn>a</Arn></AssumedRoleUser>"
	    "<Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>topsecret</SecretAccessKey>"
	    "<SessionToken>tok-%s</SessionToken><Expiration>%s</Expiration></Credentials>"
	    "</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
	    name, name, when(seconds));
	http_script_reply(svc, "POST /", 200, NULL, body, strlen(body), times);
}

static int read_once(void)
{
	return ufs_fix_read(&f, "k", "v1", 0, 4);
}

/* The i-th request to the storage was signed with the credentials of this name. */
static void signed_with(unsigned i, const char *name)
{
	const struct http_script_req *rq = http_script_get(s3, i);
	char buf[512], want[64];

	cr_assert_not_null(rq);
	cr_assert_not_null(http_script_header(rq, "authorization", buf, sizeof(buf)));
	(void)snprintf(want, sizeof(want), "Credential=%s/", name);
	cr_assert_not_null(strstr(buf, want), "%s", buf);
	cr_assert_not_null(http_script_header(rq, "x-amz-security-token", buf, sizeof(buf)));
	(void)snprintf(want, sizeof(want), "tok-%s", name);
	cr_assert_str_eq(buf, want);
	cr_assert_null(strstr(rq->head, "topsecret"));
}

static void web_identity(void)
{
	put_token("ey.J+a/b=.sig\n");
	setenv("AWS_WEB_IDENTITY_TOKEN_FILE", token_file, 1);
	setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/r", 1);
	env("AWS_ENDPOINT_URL_STS", "/");
}

Test(s3_keys, web_identity)
{
	const struct http_script_req *rq;

	web_identity();
	/* The next in the order: must not be asked. */
	env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "/creds");
	sts_reply("A", 3600, 0);
	ufs_fix_attach(&f, "s3://b");
	cr_assert_eq(http_script_count(svc), 0, "asked before anybody needed it");
	cr_assert_eq(read_once(), 0);
	cr_assert_eq(read_once(), 0);
	signed_with(0, "A");
	cr_assert_eq(http_script_count(svc), 1);
	rq = http_script_get(svc, 0);
	cr_assert_str_eq(rq->target, "/");
	cr_assert_str_eq(rq->body,
	    "Action=AssumeRoleWithWebIdentity&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr"
	    "&RoleSessionName=batonfs&Version=2011-06-15&WebIdentityToken=ey.J%2Ba%2Fb%3D.sig");
}

Test(s3_keys, order)
{
	web_identity();
	setenv("AWS_ACCESS_KEY_ID", "E", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "s", 1);
	setenv("AWS_SESSION_TOKEN", "tok-E", 1);
	ufs_fix_attach(&f, "s3://b");
	cr_assert_eq(read_once(), 0);
	signed_with(0, "E");
	cr_assert_eq(http_script_count(svc), 0);
}

Test(s3_keys, container)
{
	char buf[64];

	put_token("Basic abc\n");
	env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "/creds?x=1");
	env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "/");
	setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "not this one", 1);
	setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token_file, 1);
	json_reply("GET /creds?x=1", "C", 3600, 0);
	ufs_fix_attach(&f, "s3://b");
	cr_assert_eq(read_once(), 0);
	signed_with(0, "C");
	cr_assert_eq(http_script_count(svc), 1);
	cr_assert_str_eq(http_script_header(http_script_get(svc, 0), "authorization", buf,
			     sizeof(buf)), "Basic abc");
}

static int attach(char *words, size_t len)
{
	struct errtext et = { "" };
	int err = ufs_new(&f.ufs, &f.env, "s3://b", &et);

	(void)snprintf(words, len, "%s", et.s);
	ufs_free(&f.ufs);
	return err;
}

Test(s3_keys, container_endpoints)
{
	static const struct {
		const char *url;
		bool ok;
	} cases[] = { { "http://127.0.0.1/x", true }, { "http://127.9.8.7:80/x", true },
		{ "http://localhost:1/", true }, { "http://169.254.170.2/v2", true },
		{ "http://169.254.170.23/v1", true }, { "http://[::1]:80/", true },
		{ "http://[fd00:ec2::23]/v1", true }, { "https://any.example/x", true },
		{ "http://any.example/x", false }, { "http://10.0.0.1/x", false },
		{ "http://127.0.0.1.example/x", false }, { "http://localhost@evil.example/", false },
		{ "http://127.0.0.1:80@evil.example/", false }, { "http://169.254.170.22/", false },
		{ "http://[::1].evil/", false }, { "ftp://127.0.0.1/", false },
		{ "http://127.0.0.1/a b", false } };
	char words[1024];

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", cases[i].url, 1);
		cr_expect_eq(attach(words, sizeof(words)), cases[i].ok ? 0 : -EINVAL, "%s: %s",
		    cases[i].url, words);
		if (!cases[i].ok)
			cr_expect_not_null(strstr(words, cases[i].url), "%s", words);
	}
}

Test(s3_keys, instance)
{
	char buf[64];

	env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "/");
	http_script_reply(svc, "PUT /latest/api/token", 200, NULL, "imds+token==", 12, 0);
	json_reply("GET /latest/meta-data/iam/security-credentials/my-role", "I", 3600, 0);
	http_script_reply(svc, "GET /latest/meta-data/iam/security-credentials/", 200, NULL,
	    "my-role", 7, 0);
	ufs_fix_attach(&f, "s3://b");
	cr_assert_eq(read_once(), 0);
	signed_with(0, "I");
	cr_assert_eq(http_script_count(svc), 3);
	cr_assert_not_null(http_script_header(http_script_get(svc, 0),
	    "x-aws-ec2-metadata-token-ttl-seconds", buf, sizeof(buf)));
	for (unsigned i = 1; i < 3; i++)
		cr_assert_str_eq(http_script_header(http_script_get(svc, i),
				     "x-aws-ec2-metadata-token", buf, sizeof(buf)),
		    "imds+token==");
}

Test(s3_keys, instance_without_role)
{
	struct ufs_health h;

	env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "");
	http_script_reply(svc, "PUT", 200, NULL, "t", 1, 0);
	http_script_reply(svc, "GET", 404, NULL, "no", 2, 0);
	ufs_fix_attach(&f, "s3://b");
	cr_assert_eq(read_once(), -EACCES);
	ufs_health(f.ufs, &h);
	cr_assert_not_null(strstr(h.last_error, "no role is attached"), "%s", h.last_error);
	cr_assert_eq(http_script_count(s3), 0, "asked the storage without credentials");
}

/* Nobody named it and it is not there: no credentials, and soon. */
Test(s3_keys, no_instance_service)
{
	char words[1024];

	setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1", 1);
	ufs_fix_attach(&f, "s3://b");
	cr_assert_eq(ufs_fix_check(&f, words, sizeof(words)), -EACCES);
	cr_assert(strstr(words, "no S3 credentials found") && strstr(words, "127.0.0.1:1") &&
		strstr(words, "AWS_ACCESS_KEY_ID"), "%s", words);
}

Test(s3_keys, nothing_configured)
{
	char words[1024];

	setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
	cr_assert_eq(attach(words, sizeof(words)), -EACCES);
	cr_assert(strstr(words, "AWS_WEB_IDENTITY_TOKEN_FILE") && strstr(words, "container") &&
		strstr(words, "/nonexistent/cred") && strstr(words, "AWS_EC2_METADATA_DISABLED"),
	    "%s", words);
	ufs_fix_set(&f, "s3.credentials", "webidentity");
	cr_assert_eq(attach(words, sizeof(words)), -EACCES);
	cr_assert_null(strstr(words, "container"), "%s", words);
}

/* --- one fetch for all who wait */

#define MANY 20

struct many {
	struct ufs_read rq;
	bool ended;
	int err;
};

static void many_data(struct ufs_read *rq, const void *data, size_t len)
{
	(void)rq;
	(void)data;
	(void)len;
}

static void many_done(struct ufs_req *r, int err)
{
	struct many *m = r->user;

	m->ended = true;
	m->err = err;
}

static void many_start(struct many *m)
{
	memset(m, 0, sizeof(*m));
	m->rq.req.user = m;
	m->rq.path = "k";
	m->rq.version = "v1";
	m->rq.len = 4;
	m->rq.on_data = many_data;
	ufs_read(f.ufs, &m->rq, many_done);
}

Test(s3_keys, waiting_requests_share_one_fetch)
{
	struct many m[MANY];

	web_identity();
	sts_reply("A", 3600, 0);
	ufs_fix_attach(&f, "s3://b");
	for (int i = 0; i < MANY; i++)
		many_start(&m[i]);
	ufs_abort(&m[3].rq.req);
	for (int i = 0; i < MANY; i++)
		while (i != 3 && !m[i].ended)
			(void)loop_turn(f.loop, true);
	for (int i = 0; i < MANY; i++)
		cr_assert(i == 3 ? !m[i].ended : m[i].err == 0, "%d", i);
	cr_assert_eq(http_script_count(svc), 1);
	cr_assert_eq(http_script_count(s3), MANY - 1);
}

Test(s3_keys, freed_while_fetching)
{
	struct http_script_answer stall = { .raw = "H", .end = HTTP_SCRIPT_STALL };
	struct many m;

	web_identity();
	http_script_add(svc, &stall);
	ufs_fix_attach(&f, "s3://b");
	many_start(&m);
	ufs_abort(&m.rq.req); /* the token's file is being read */
	ufs_free(&f.ufs);
	ufs_fix_attach(&f, "s3://b");
	many_start(&m);
	while (http_script_count(svc) == 0)
		(void)loop_turn(f.loop, false);
	ufs_abort(&m.rq.req); /* STS is being asked */
	ufs_free(&f.ufs);
	cr_assert(http_script_wait_open(svc, 0, 5000));
	cr_assert(!m.ended);
}

/* --- renewal */

/* Half of a short life has passed: the old ones serve while new ones come. */
Test(s3_keys, renewed_before_they_expire)
{
	uint64_t end = clock_system.monotonic(&clock_system) + UINT64_C(20000000000);
	unsigned n;

	env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "/creds");
	json_reply("GET /creds", "A", 4, 1);
	json_reply("GET /creds", "B", 3600, 0);
	ufs_fix_attach(&f, "s3://b");
	cr_assert_eq(read_once(), 0);
	signed_with(0, "A");
	while (http_script_count(svc) < 2 && clock_system.monotonic(&clock_system) < end)
		cr_assert_eq(read_once(), 0);
	cr_assert_eq(http_script_count(svc), 2, "never renewed");
	/* Whoever asked meanwhile was served with the old ones. */
	n = http_script_count(s3);
	signed_with(n - 1, "A");
	for (int i = 0; i < 100; i++)
		cr_assert_eq(read_once(), 0);
	signed_with(http_script_count(s3) - 1, "B");
	cr_assert_eq(http_script_count(svc), 2);
}

Test(s3_keys, expired_under_way)
{
	static const char expired[] = "<Error><Code>ExpiredToken</Code></Error>";

	env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "/creds");
	json_reply("GET /creds", "A", 3600, 1);
	json_reply("GET /creds", "B", 3600, 0);
	http_script_clear(s3);
	http_script_reply(s3, "GET /b/k", 400, NULL, expired, strlen(expired), 1);
	http_script_reply(s3, "GET /b/k", 206, "ETag: \"v1\"\r\nContent-Range: bytes 0-3/4\r\n",
	    "good", 4, 1);
	http_script_reply(s3, "GET /b/k", 400, NULL, expired, strlen(expired), 0);
	ufs_fix_attach(&f, "s3://b");
	cr_assert_eq(read_once(), 0);
	signed_with(0, "A");
	signed_with(1, "B");
	/* A storage that knows no others either is not asked for ever. */
	cr_assert_eq(read_once(), -EACCES);
	cr_assert_eq(http_script_count(s3), 4);
}

Test(s3_keys, a_service_that_fails_is_asked_again)
{
	struct http_script_answer cut = { .raw = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
		.end = HTTP_SCRIPT_CLOSE, .times = 1 };

	env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "/creds");
	http_script_reply(svc, "GET /creds", 503, NULL, "", 0, 1);
	http_script_add(svc, &cut);
	http_script_reply(svc, "GET /creds", 200, NULL, "not json", 8, 1);
	json_reply("GET /creds", "A", -5, 1); /* expired before it came */
	json_reply("GET /creds", "B", 3600, 0);
	ufs_fix_attach(&f, "s3://b");
	cr_assert_eq(read_once(), 0);
	signed_with(0, "B");
	cr_assert_eq(http_script_count(svc), 5);
}

static void fails(int want, const char *words)
{
	struct ufs_health h;
	int err;

	ufs_fix_attach(&f, "s3://b");
	err = read_once();
	cr_expect_eq(err, want, "%s: %s", words, strerror(-err));
	ufs_health(f.ufs, &h);
	cr_expect_not_null(strstr(h.last_error, words), "%s", h.last_error);
	cr_expect_null(strstr(h.last_error, "topsecret"));
	cr_expect_eq(http_script_count(s3), 0);
	ufs_free(&f.ufs);
	http_script_clear(svc);
}

Test(s3_keys, failures_in_words)
{
	static const char denied[] = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/"
		"2011-06-15/\"><Error><Type>Sender</Type><Code>ExpiredTokenException</Code>"
		"<Message>the web token is old</Message></Error></ErrorResponse>";
	static const char bomb[] = "<!DOCTYPE x [<!ENTITY a \"aaaa\">]><Credentials/>";
	static const char half[] = "<R><Credentials><AccessKeyId>A</AccessKeyId></Credentials></R>";
	static const char evil[] =
	    "{\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"topsecret\\r\\nX: y\"}";
	struct http_script_answer stall = { .raw = "H", .end = HTTP_SCRIPT_STALL };
	static char big[100000];

	ufs_fix_set(&f, "ufs.timeout", "300ms");
	web_identity();
	http_script_reply(svc, NULL, 400, NULL, denied, strlen(denied), 0);
	fails(-EACCES, "ExpiredTokenException: the web token is old");
	http_script_reply(svc, NULL, 200, NULL, bomb, strlen(bomb), 0);
	fails(-EIO, "document type");
	http_script_reply(svc, NULL, 200, NULL, half, strlen(half), 0);
	fails(-EIO, "lacks the access key id or the secret key");
	memset(big, ' ', sizeof(big));
	http_script_reply(svc, NULL, 200, NULL, big, sizeof(big), 0);
	fails(-EIO, "too long");
	http_script_add(svc, &stall);
	fails(-ETIMEDOUT, "");
	setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent/token", 1);
	fails(-EIO, "/nonexistent/token: No such file or directory");
	unsetenv("AWS_WEB_IDENTITY_TOKEN_FILE");
	env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "/creds");
	http_script_reply(svc, NULL, 200, NULL, "{\"Code\":\"Failed\"}", 17, 0);
	fails(-EIO, "says Failed");
	http_script_reply(svc, NULL, 200, NULL, evil, strlen(evil), 0);
	fails(-EIO, "spaces or control characters");
	http_script_reply(svc, NULL, 403, NULL, "", 0, 0);
	fails(-EACCES, "403");
}
