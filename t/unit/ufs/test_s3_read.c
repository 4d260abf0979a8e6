/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads and attributes against a server that says what it should not. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../lib/http_script.h"
#include "ufs/ufs.h"
#include "ufs_fix.h"

#define V "ETag: \"v1\"\r\n"

TestSuite(s3_read, .init = ufs_fix_limit);

static struct http_script *hs;
static struct ufs_fix f;

static void up(void)
{
	setenv("AWS_ACCESS_KEY_ID", "key", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
	unsetenv("AWS_SESSION_TOKEN");
	hs = http_script_new();
	ufs_fix_init(&f, http_script_url(hs));
	ufs_fix_set(&f, "ufs.timeout", "400ms");
	ufs_fix_attach(&f, "s3://b");
}

static void down(void)
{
	ufs_fix_fini(&f);
	http_script_free(&hs);
}

/* What the C library has, but where a test says which numbers are drawn: 0 and `draws`, in
 * turn.  Whatever thread asks. */
static _Atomic uint64_t draws;
static _Atomic unsigned drawn;

ssize_t getrandom(void *buf, size_t len, unsigned flags)
{
	uint64_t v = draws;

	if (v == 0 || len != sizeof(v))
		return syscall(SYS_getrandom, buf, len, flags);
	if (drawn++ % 2 == 0)
		v = 0;
	memcpy(buf, &v, sizeof(v));
	return sizeof(v);
}

/* One answer to a read of bytes 0..7 of version v1; `times` 0: again and again. */
static void expect(int status, const char *headers, const char *body, unsigned times, int want)
{
	int err;

	up();
	http_script_reply(hs, "GET /b/k", status, headers, body, strlen(body), times);
	http_script_reply(
	    hs, "GET /b/k", 206, V "Content-Range: bytes 0-7/8\r\n", "goodgood", 8, 0);
	err = ufs_fix_read(&f, "k", "v1", 0, 8);
	cr_expect_eq(err, want, "%d %s %s: %s", status, headers, body, strerror(-err));
	if (err != 0)
		cr_expect_eq(f.data_len, 0, "%d %s: bytes of a bad answer came", status, headers);
	else
		cr_expect(f.data_len == 8 && memcmp(f.data, "goodgood", 8) == 0);
	down();
}

Test(s3_read, hostile_answers)
{
	expect(206, V "Content-Range: bytes 0-7/100\r\n", "goodgood", 1, 0);
	expect(206, V "Content-Range: bytes 0-7/*\r\n", "goodgood", 1, 0);
	expect(200, V, "goodgood", 1, 0); /* no ranges there, but it is the whole */
	expect(200, V, "<Error/>x", 0, -EIO);
	expect(200, "", "<Error/>", 0, -EIO); /* the right length, but no ETag */
	expect(206, "ETag: \"v2\"\r\nContent-Range: bytes 0-7/8\r\n", "badbadba", 0, -ESTALE);
	expect(206, V "Content-Range: bytes 1-8/9\r\n", "badbadba", 0, -EIO);
	expect(206, V "Content-Range: bytes 0-6/9\r\n", "badbadb", 0, -EIO);
	expect(206, V, "badbadba", 0, -EIO);
	expect(204, V, "", 0, -EIO);
	expect(301, "x-amz-bucket-region: eu-west-1\r\n", "", 0, -EIO);
	expect(304, V, "", 0, -EIO);
	expect(412, "", "<Error><Code>PreconditionFailed</Code></Error>", 0, -ESTALE);
	expect(404, "", "<Error><Code>NoSuchKey</Code></Error>", 0, -ESTALE);
	expect(404, "", "<html>no such page", 0, -EIO);
	expect(404, "", "<Error><Code>NoSuchBucket</Code></Error>", 0, -EIO);
	expect(416, "", "<Error><Code>InvalidRange</Code></Error>", 0, -ESTALE);
	expect(400, "", "<Error><Code>InvalidArgument</Code></Error>", 0, -EIO);
	expect(403, "", "<Error><Code>AccessDenied</Code></Error>", 0, -EACCES);
	expect(503, "", "<Error><Code>SlowDown</Code></Error>", 2, 0);
	expect(500, "", "", 1, 0);
	expect(408, "", "", 1, 0);
	expect(503, "", "", 0, -EIO);
	/* More time than we have: given up at once. */
	expect(503, "Retry-After: 3600\r\n", "", 1, -EIO);
}

Test(s3_read, refusals_are_not_repeated)
{
	up();
	http_script_reply(hs, NULL, 403, NULL, "", 0, 0);
	cr_assert_eq(ufs_fix_read(&f, "k", "v1", 0, 8), -EACCES);
	cr_assert_eq(http_script_count(hs), 1);
	down();
}

Test(s3_read, retry_after_is_kept)
{
	uint64_t before;

	up();
	ufs_fix_set(&f, "ufs.timeout", "10s");
	http_script_reply(hs, NULL, 503, "Retry-After: 1\r\n", "", 0, 1);
	http_script_reply(hs, NULL, 206, V "Content-Range: bytes 0-7/8\r\n", "goodgood", 8, 0);
	before = clock_system.monotonic(&clock_system);
	cr_assert_eq(ufs_fix_read(&f, "k", "v1", 0, 8), 0);
	cr_assert_geq(clock_system.monotonic(&clock_system) - before, UINT64_C(990000000));
	down();
}

/* A pause is drawn once: one that is chosen for being short is not drawn again. */
Test(s3_read, no_pause_beyond_the_deadline)
{
	uint64_t before;

	up();
	ufs_fix_set(&f, "ufs.timeout", "10s");
	ufs_fix_set(&f, "ufs.retry.max.interval", "20s");
	ufs_fix_set(&f, "ufs.retry.base.interval", "20s");
	http_script_reply(hs, NULL, 503, NULL, "", 0, 1);
	http_script_reply(hs, NULL, 206, V "Content-Range: bytes 0-7/8\r\n", "goodgood", 8, 0);
	drawn = 0;
	draws = UINT64_C(15000000000);
	before = clock_system.monotonic(&clock_system);
	cr_assert_eq(ufs_fix_read(&f, "k", "v1", 0, 8), 0);
	cr_assert_lt(clock_system.monotonic(&clock_system) - before, UINT64_C(10000000000));
	draws = 0;
	down();
}

static void cut_at(size_t bytes, enum http_script_end end)
{
	struct http_script_answer a = { .match = "GET /b/k", .times = 1, .end = end };
	size_t len, head;
	char buf[128];
	char *raw = http_script_format(
	    206, V "Content-Range: bytes 4-11/20\r\n", "abcdefgh", 8, &len, &head);

	up();
	ufs_fix_set(&f, "ufs.timeout", "20s");
	ufs_fix_set(&f, "ufs.low.speed.time", "1s");
	a.raw = raw;
	a.raw_len = head + bytes;
	http_script_add(hs, &a);
	http_script_reply(hs, "GET /b/k", 206, V "Content-Range: bytes 7-11/20\r\n", "defgh", 5, 0);
	cr_assert_eq(ufs_fix_read(&f, "k", "v1", 4, 8), 0);
	cr_assert(f.data_len == 8 && memcmp(f.data, "abcdefgh", 8) == 0);
	cr_assert_str_eq(http_script_header(http_script_get(hs, 0), "range", buf, sizeof(buf)),
	    "bytes=4-11");
	cr_assert_str_eq(http_script_header(http_script_get(hs, 1), "range", buf, sizeof(buf)),
	    "bytes=7-11");
	cr_assert_str_eq(http_script_header(http_script_get(hs, 1), "if-match", buf, sizeof(buf)),
	    "\"v1\"");
	cr_assert_eq(ufs_fix_counter(&f, CTR_UFS_RETRIES), 1);
	free(raw);
	down();
}

Test(s3_read, goes_on_behind_the_last_byte)
{
	cut_at(3, HTTP_SCRIPT_CLOSE);
	cut_at(3, HTTP_SCRIPT_STALL);
}

Test(s3_read, unreachable)
{
	ufs_fix_init(&f, "http://127.0.0.1:1");
	setenv("AWS_ACCESS_KEY_ID", "key", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
	ufs_fix_set(&f, "ufs.timeout", "200ms");
	ufs_fix_attach(&f, "s3://b");
	cr_assert_eq(ufs_fix_read(&f, "k", "v1", 0, 8), -ETIMEDOUT);
	cr_assert_gt(ufs_fix_counter(&f, CTR_UFS_RETRIES), 1);
	struct ufs_health h;
	ufs_health(f.ufs, &h);
	cr_assert(!h.ok && strstr(h.last_error, "cannot connect") != NULL, "%s", h.last_error);
	ufs_fix_fini(&f);
}

Test(s3_read, silent_server_within_the_limit)
{
	struct http_script_answer a = { .raw = "", .raw_len = 0, .end = HTTP_SCRIPT_STALL };

	up();
	a.raw = "H";
	a.raw_len = 1;
	http_script_add(hs, &a);
	cr_assert_eq(ufs_fix_read(&f, "k", "v1", 0, 8), -ETIMEDOUT);
	down();
}

Test(s3_read, abort_in_callback_and_before)
{
	struct ufs_read rq = { .path = "k", .version = "v1", .len = 8, .req = { .user = &f } };
	static char big[1 << 20];

	up();
	http_script_reply(hs, NULL, 206, V "Content-Range: bytes 0-1048575/1048576\r\n", big,
	    sizeof(big), 0);
	f.abort_at = 1;
	cr_assert_eq(ufs_fix_read(&f, "k", "v1", 0, sizeof(big)), -ECANCELED);
	ufs_read(f.ufs, &rq, ufs_fix_done);
	ufs_abort(&rq.req);
	ufs_abort(&rq.req); /* of what has ended: nothing */
	for (int i = 0; i < 10; i++)
		(void)loop_turn(f.loop, false);
	cr_assert(!f.done);
	down();
}

Test(s3_read, bad_arguments)
{
	char longname[300];

	up();
	memset(longname, 'x', sizeof(longname) - 1);
	longname[sizeof(longname) - 1] = '\0';
	cr_assert_eq(ufs_fix_read(&f, "a//b", "v1", 0, 8), -EINVAL);
	cr_assert_eq(ufs_fix_read(&f, "../b", "v1", 0, 8), -EINVAL);
	cr_assert_eq(ufs_fix_read(&f, "b/", "v1", 0, 8), -EINVAL);
	cr_assert_eq(ufs_fix_read(&f, "k", "", 0, 8), -EINVAL);
	cr_assert_eq(ufs_fix_read(&f, "k", "v1", UINT64_MAX, 8), -EINVAL);
	cr_assert_eq(ufs_fix_read(&f, longname, "v1", 0, 8), -ENAMETOOLONG);
	cr_assert_eq(ufs_fix_read(&f, "k", "v1", 0, 0), 0);
	cr_assert_eq(http_script_count(hs), 0);
	down();
}

/* --- attributes */

#define EMPTY "<ListBucketResult></ListBucketResult>"
#define FULL                                                                                       \
	"<ListBucketResult><Contents><Key>k/x</Key><LastModified>2020-01-02T03:04:05Z"             \
	"</LastModified><ETag>\"e\"</ETag><Size>1</Size></Contents></ListBucketResult>"
#define META V "Last-Modified: Thu, 02 Jan 2020 03:04:05 GMT\r\n"

static int stat_of(int head, const char *headers, int list, const char *xml, struct ufs_attr *attr)
{
	int err;

	up();
	http_script_reply(hs, "HEAD /b/k", head, headers, "12345", 5, 0);
	http_script_reply(hs, "GET /b?", list, NULL, xml, strlen(xml), 0);
	err = ufs_fix_stat(&f, "k", attr);
	down();
	return err;
}

Test(s3_read, stat)
{
	struct ufs_attr a;

	cr_assert_eq(stat_of(200, META, 200, EMPTY, &a), 0);
	cr_assert(a.kind == UFS_FILE && a.size == 5 && a.mtime.tv_sec == 1577934245);
	cr_assert_str_eq(a.version, "v1");
	cr_assert_eq(stat_of(200, META, 200, FULL, &a), 0);
	cr_assert_eq(a.kind, UFS_DIR);
	cr_assert_eq(stat_of(404, NULL, 200, FULL, &a), 0);
	cr_assert_eq(a.kind, UFS_DIR);
	cr_assert_eq(stat_of(404, NULL, 200, EMPTY, &a), -ENOENT);
	/* Nothing but a clear "no" from both is a "no". */
	cr_assert_eq(stat_of(404, NULL, 404, "<html>", &a), -EIO);
	cr_assert_eq(stat_of(404, NULL, 404, "<Error><Code>NoSuchBucket</Code></Error>", &a), -EIO);
	cr_assert_eq(stat_of(404, NULL, 200, "<html></html>", &a), -EIO);
	cr_assert_eq(stat_of(404, NULL, 503, "", &a), -EIO);
	cr_assert_eq(stat_of(503, NULL, 200, EMPTY, &a), -EIO);
	cr_assert_eq(stat_of(403, NULL, 200, EMPTY, &a), -EACCES);
	cr_assert_eq(stat_of(200, V, 200, EMPTY, &a), -EIO);
}

Test(s3_read, requester_pays)
{
	char buf[64];

	up();
	http_script_reply(hs, NULL, 206, V "Content-Range: bytes 0-7/8\r\n", "goodgood", 8, 0);
	cr_assert_eq(ufs_fix_read(&f, "k", "v1", 0, 8), 0);
	cr_assert_null(http_script_header(
	    http_script_get(hs, 0), "x-amz-request-payer", buf, sizeof(buf)));
	ufs_fix_set(&f, "s3.requester.pays", "true");
	cr_assert_eq(ufs_fix_read(&f, "k", "v1", 0, 8), 0);
	cr_assert_str_eq(http_script_header(http_script_get(hs, 1), "x-amz-request-payer", buf,
			     sizeof(buf)), "requester");
	down();
}

Test(s3_read, check_words)
{
	const char *xml = "<Error><Code>NoSuchBucket</Code><Message>gone</Message></Error>";
	const char *moved = "<Error><Code>TemporaryRedirect</Code>"
			    "<Endpoint>b.s3.moon.example</Endpoint></Error>";
	char words[1024];

	up();
	http_script_reply(hs, "GET /b?", 404, "x-amz-request-id: R7\r\n", xml, strlen(xml), 1);
	http_script_reply(hs, "GET /b?", 403, "Date: Thu, 02 Jan 2020 03:04:05 GMT\r\n",
	    "<Error><Code>RequestTimeTooSkewed</Code></Error>", 48, 1);
	http_script_reply(hs, "GET /b?", 200, NULL, "<html></html>", 13, 1);
	http_script_reply(hs, "GET /b?", 307, NULL, moved, strlen(moved), 1);
	http_script_reply(
	    hs, "GET /b?", 302, "Location: http://else\033[31mwhere\r\n", "", 0, 1);
	http_script_reply(hs, "GET /b?", 200, NULL, EMPTY, strlen(EMPTY), 0);
	cr_assert_eq(ufs_fix_check(&f, words, sizeof(words)), -ENOENT);
	cr_assert(strstr(words, "NoSuchBucket") && strstr(words, "gone") && strstr(words, "R7"),
	    "%s", words);
	cr_assert_eq(ufs_fix_check(&f, words, sizeof(words)), -EACCES);
	cr_assert_not_null(strstr(words, "clock"), "%s", words);
	cr_assert_eq(ufs_fix_check(&f, words, sizeof(words)), -EIO, "a web page is no bucket");
	cr_assert_eq(ufs_fix_check(&f, words, sizeof(words)), -EIO);
	cr_assert_not_null(strstr(words, "b.s3.moon.example: set s3.endpoint"), "%s", words);
	cr_assert_eq(ufs_fix_check(&f, words, sizeof(words)), -EIO);
	cr_assert_not_null(strstr(words, "http://else [31mwhere: set s3.endpoint"), "%s", words);
	cr_assert_eq(ufs_fix_check(&f, words, sizeof(words)), 0);
	down();
}
