/* SPDX-License-Identifier: BSD-2-Clause */
/* Writing to a scripted storage: what a real one does not do on demand. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../lib/http_script.h"
#include "base/log.h"
#include "base/units.h"
#include "ufs/s3_priv.h"
#include "ufs_fix.h"

static struct http_script *hs;
static struct ufs_fix f;

static void up(void)
{
	ufs_fix_limit();
	setenv("AWS_ACCESS_KEY_ID", "key", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
	log_set_level(LOG_LVL_ERROR);
	hs = http_script_new();
	ufs_fix_init(&f, http_script_url(hs));
	ufs_fix_attach(&f, "s3://b/p");
}

static void down(void)
{
	ufs_fix_fini(&f);
	http_script_free(&hs);
}

TestSuite(s3_write, .init = up, .fini = down);

static void reply(const char *match, int status, const char *headers, const char *body,
    unsigned times)
{
	http_script_reply(hs, match, status, headers, body, strlen(body), times);
}

static const char *error_doc(const char *code)
{
	static char doc[128];

	(void)snprintf(doc, sizeof(doc), "<?xml version=\"1.0\"?><Error><Code>%s</Code></Error>", code);
	return doc;
}

#define DATE "Last-Modified: Thu, 02 Jan 2020 03:04:05 GMT\r\n"

static int put(const char *body, size_t len, struct ufs_attr *a)
{
	struct ufs_put rq = { .path = "k", .body = body, .len = len };
	int err = UFS_FIX_RUN(&f, put, &rq);

	if (a != NULL)
		*a = rq.attr;
	return err;
}

static const char *header(unsigned i, const char *name)
{
	static char buf[512];
	const struct http_script_req *rq = http_script_get(hs, i);

	return rq != NULL ? http_script_header(rq, name, buf, sizeof(buf)) : NULL;
}

/* --- put */

Test(s3_write, what_a_put_sends)
{
	struct ufs_mkdir md = { .path = "d" };
	struct ufs_attr a;

	reply("PUT /b/p/k", 200, "ETag: \"v1\"\r\n", "", 0);
	reply("PUT /b/p/d/", 200, NULL, "", 0); /* who needs a marker's ETag? */
	cr_assert_eq(put("body", 4, &a), 0);
	cr_assert(a.kind == UFS_FILE && a.size == 4 && strcmp(a.version, "v1") == 0);
	cr_assert_str_eq(http_script_get(hs, 0)->body, "body");
	cr_assert_str_eq(header(0, "x-amz-content-sha256"), "UNSIGNED-PAYLOAD");
	cr_assert_not_null(header(0, "authorization"));
	cr_assert_null(header(0, "expect"));
	cr_assert_null(header(0, "if-none-match"));
	cr_assert_null(header(0, S3_MARK));
	cr_assert_eq(UFS_FIX_RUN(&f, mkdir, &md), 0);
	cr_assert_eq(md.attr.kind, UFS_DIR);
	cr_assert_eq(http_script_count(hs), 2);
	cr_assert_null(header(1, "expect"));
}

Test(s3_write, class_and_encryption)
{
	struct ufs_multi_begin begin = { .path = "k" };
	struct ufs_copy cp = { .src = "s", .dst = "k", .src_version = "v1", .size = 1 };
	struct errtext et = { "" };
	struct ufs *none;

	ufs_fix_set(&f, "s3.storage.class", "STANDARD_IA");
	ufs_fix_set(&f, "s3.server.side.encryption", "aws:kms");
	ufs_fix_set(&f, "s3.sse.kms.key.id", "arn:aws:kms:eu-1:123:key/a-b");
	ufs_free(&f.ufs);
	ufs_fix_attach(&f, "s3://b/p");
	reply("POST ", 500, NULL, "", 0);
	reply("PUT ", 403, NULL, "", 0);
	ufs_fix_set(&f, "ufs.timeout", "100ms");
	cr_assert_eq(put("body", 4, NULL), -EACCES);
	cr_assert_eq(UFS_FIX_RUN(&f, copy, &cp), -EACCES);
	cr_assert_eq(UFS_FIX_RUN(&f, multi_begin, &begin), -EIO);
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_str_eq(header(i, "x-amz-storage-class"), "STANDARD_IA");
		cr_assert_str_eq(header(i, "x-amz-server-side-encryption"), "aws:kms");
		cr_assert_str_eq(header(i, "x-amz-server-side-encryption-aws-kms-key-id"),
		    "arn:aws:kms:eu-1:123:key/a-b");
	}
	ufs_fix_set(&f, "s3.server.side.encryption", "AES256");
	cr_assert_eq(ufs_new(&none, &f.env, "s3://b", &et), -EINVAL);
	ufs_fix_set(&f, "s3.sse.kms.key.id", "");
	ufs_fix_set(&f, "s3.storage.class", "A: b");
	cr_assert_eq(ufs_new(&none, &f.env, "s3://b", &et), -EINVAL);
	cr_assert_not_null(strstr(et.s, "s3.storage.class"), "%s", et.s);
}

Test(s3_write, put_without_etag_looks)
{
	struct ufs_attr a;

	reply("PUT ", 200, NULL, "", 0);
	reply("HEAD ", 200, "ETag: \"v1\"\r\n" DATE, "body", 0);
	cr_assert_eq(put("body", 4, &a), 0);
	cr_assert_str_eq(a.version, "v1");
	/* Somebody else's by then. */
	cr_assert_eq(put("longer", 6, &a), -EIO);
}

Test(s3_write, failures_of_a_put)
{
	static const struct {
		int status;
		const char *code;
		int err;
		bool repeated;
	} cases[] = {
		{ 403, "AccessDenied", -EACCES, false },
		{ 403, "QuotaExceeded", -EDQUOT, false },
		{ 401, "", -EACCES, false },
		{ 404, "NoSuchBucket", -EIO, false },
		{ 404, "", -EIO, false },
		{ 400, "EntityTooLarge", -EFBIG, false },
		{ 400, "InvalidObjectName", -EINVAL, false },
		{ 400, "KeyTooLongError", -ENAMETOOLONG, false },
		{ 400, "InvalidArgument", -EIO, false },
		{ 412, "PreconditionFailed", -EIO, false }, /* nothing was asked */
		{ 501, "NotImplemented", -EIO, false },
		{ 507, "", -ENOSPC, false },
		{ 500, "InternalError", 0, true },
		{ 503, "SlowDown", 0, true },
		{ 400, "RequestTimeout", 0, true },
		{ 400, "IncompleteBody", 0, true },
		{ 409, "OperationAborted", 0, true },
		{ 429, "", 0, true },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		unsigned before = http_script_count(hs);
		int err;

		http_script_clear(hs);
		reply("PUT ", cases[i].status, NULL, error_doc(cases[i].code), 3);
		reply("PUT ", 200, "ETag: \"v1\"\r\n", "", 0);
		err = put("body", 4, NULL);
		cr_assert_eq(err, cases[i].err, "%d %s: %d", cases[i].status, cases[i].code, err);
		cr_assert_eq(http_script_count(hs) - before, cases[i].repeated ? 4 : 1);
	}
}

Test(s3_write, storm_without_end)
{
	ufs_fix_set(&f, "ufs.timeout", "300ms");
	reply(NULL, 503, NULL, error_doc("SlowDown"), 0);
	cr_assert_eq(put("body", 4, NULL), -EIO);
	cr_assert_gt(http_script_count(hs), 10);
}

Test(s3_write, reset_in_the_body)
{
	struct http_script_intake once = { .times = 2, .stop_at = 70000, .end = HTTP_SCRIPT_RESET };
	struct http_script_intake always = { .stop_at = 70000, .end = HTTP_SCRIPT_RESET };
	size_t len = 4 * MIB;
	char *body = malloc(len);
	int err;

	cr_assert_not_null(body);
	for (size_t i = 0; i < len; i++)
		body[i] = (char)(i >> 9);
	reply("PUT ", 200, "ETag: \"v1\"\r\n", "", 0);
	http_script_add_intake(hs, &once);
	cr_assert_eq(put(body, len, NULL), 0);
	cr_assert_eq(http_script_intake_used(hs, 0), 2);
	cr_assert_eq(http_script_count(hs), 1);
	cr_assert(memcmp(http_script_get(hs, 0)->body, body, len) == 0);
	/* Getting equally far each time is no progress. */
	http_script_add_intake(hs, &always);
	ufs_fix_set(&f, "ufs.timeout", "500ms");
	err = put(body, len, NULL);
	free(body);
	cr_assert(err == -EIO || err == -ETIMEDOUT, "%d", err); /* by what the time ends in */
	cr_assert_gt(http_script_intake_used(hs, 1), 2);
}

Test(s3_write, stall_in_the_body)
{
	struct http_script_intake in = { .stop_at = 70000, .end = HTTP_SCRIPT_STALL };
	size_t len = 32 * MIB;
	char *body = calloc(1, len);

	cr_assert_not_null(body);
	http_script_add_intake(hs, &in);
	ufs_fix_set(&f, "ufs.timeout", "500ms");
	cr_assert_eq(put(body, len, NULL), -ETIMEDOUT);
	free(body);
}

/* Longer than ufs.timeout, but it moves. */
Test(s3_write, slow_body)
{
	struct http_script_intake in = { .slow_bytes = 65536, .slow_ms = 40 };
	size_t len = MIB;
	char *body = calloc(1, len);

	cr_assert_not_null(body);
	reply("PUT ", 200, "ETag: \"v1\"\r\n", "", 0);
	http_script_add_intake(hs, &in);
	ufs_fix_set(&f, "ufs.timeout", "1s");
	cr_assert_eq(put(body, len, NULL), 0);
	cr_assert_eq(http_script_intake_used(hs, 0), 1);
	free(body);
}

Test(s3_write, abort_in_the_body)
{
	struct http_script_intake in = { .stop_at = 70000, .end = HTTP_SCRIPT_STALL };
	size_t len = 4 * MIB;
	char *body = calloc(1, len);
	struct ufs_put rq = { .req.user = &f, .path = "k", .body = body, .len = len };

	cr_assert_not_null(body);
	http_script_add_intake(hs, &in);
	ufs_put(f.ufs, &rq, ufs_fix_done);
	while (http_script_intake_used(hs, 0) == 0)
		(void)loop_turn(f.loop, false);
	ufs_abort(&rq.req);
	free(body);
	for (int i = 0; i < 100; i++)
		(void)loop_turn(f.loop, false);
	cr_assert_not(f.done);
}

/* --- conditions */

struct fake {
	char mark[64];	 /* of the object, "" : none */
	char etag[64];	 /* "" : no object */
	bool quoted;	 /* compares with the quotes */
	bool unheard;	 /* makes the object and breaks the connection, once */
	bool conditions; /* knows them */
	unsigned puts;
};

/* One object, made and replaced under conditions. */
static bool one_object(void *arg, const struct http_script_req *rq, struct http_script_answer *out)
{
	struct fake *k = arg;
	char buf[128], head[256], want[80];
	int status = 200;

	if (strcmp(rq->method, "HEAD") == 0) {
		(void)snprintf(head, sizeof(head), DATE "ETag: \"%s\"\r\n%s%s%s", k->etag,
		    *k->mark != '\0' ? S3_MARK ": " : "", k->mark, *k->mark != '\0' ? "\r\n" : "");
		out->raw = http_script_format(
		    *k->etag != '\0' ? 200 : 404, head, "four", 4, &out->raw_len, &out->head_len);
		return true;
	}
	if (strcmp(rq->method, "PUT") != 0)
		return false;
	k->puts++;
	if (http_script_header(rq, "if-none-match", buf, sizeof(buf)) != NULL)
		status = !k->conditions ? 501 : *k->etag != '\0' ? 412 : 200;
	(void)snprintf(want, sizeof(want), k->quoted ? "\"%s\"" : "%s", k->etag);
	if (http_script_header(rq, "if-match", buf, sizeof(buf)) != NULL)
		status = !k->conditions		 ? 501
		    : *k->etag == '\0'		 ? 404
		    : strcmp(buf, want) == 0	 ? 200
						 : 412;
	if (status != 200) {
		const char *doc = error_doc(status == 404 ? "NoSuchKey" : "Refused");

		out->raw = http_script_format(status, NULL, doc, strlen(doc), &out->raw_len, NULL);
		return true;
	}
	(void)snprintf(k->etag, sizeof(k->etag), "made-%u", k->puts);
	if (http_script_header(rq, S3_MARK, k->mark, sizeof(k->mark)) == NULL)
		k->mark[0] = '\0';
	if (k->unheard) {
		k->unheard = false;
		out->end = HTTP_SCRIPT_RESET;
		return true;
	}
	(void)snprintf(head, sizeof(head), "ETag: \"%s\"\r\n", k->etag);
	out->raw = http_script_format(200, head, "", 0, &out->raw_len, NULL);
	return true;
}

static int put_if(bool absent, const char *version, struct ufs_attr *a)
{
	struct ufs_put rq = {
		.path = "k", .body = "four", .len = 4, .absent = absent, .if_version = version
	};
	int err = UFS_FIX_RUN(&f, put, &rq);

	*a = rq.attr;
	return err;
}

Test(s3_write, created_although_the_answer_was_lost)
{
	struct fake k = { .conditions = true, .unheard = true };
	struct ufs_attr a;

	http_script_set_handler(hs, one_object, &k);
	cr_assert_eq(put_if(true, NULL, &a), 0);
	cr_assert(strcmp(a.version, "made-1") == 0 && k.puts == 2, "%s", a.version);
	/* Another's is another's, whatever is in it. */
	cr_assert_eq(put_if(true, NULL, &a), -EEXIST);
	k.unheard = true;
	cr_assert_eq(put_if(false, "made-1", &a), 0);
	cr_assert_str_eq(a.version, k.etag);
	cr_assert_eq(put_if(false, "made-1", &a), -ESTALE);
	k.etag[0] = '\0';
	cr_assert_eq(put_if(false, "made-1", &a), -ESTALE);
	http_script_set_handler(hs, NULL, NULL);
}

/* Somebody creates it between two attempts of ours. */
static bool others_first(void *arg, const struct http_script_req *rq, struct http_script_answer *out)
{
	struct fake *k = arg;

	if (strcmp(rq->method, "PUT") == 0 && k->puts == 0) {
		k->puts++;
		strcpy(k->etag, "other");
		strcpy(k->mark, "00000000000000000000000000000000");
		out->end = HTTP_SCRIPT_RESET;
		return true;
	}
	return one_object(arg, rq, out);
}

Test(s3_write, created_by_another_in_between)
{
	struct fake k = { .conditions = true };
	struct ufs_attr a;

	http_script_set_handler(hs, others_first, &k);
	cr_assert_eq(put_if(true, NULL, &a), -EEXIST);
	cr_assert_str_eq(k.etag, "other");
	http_script_set_handler(hs, NULL, NULL);
}

static int second_err;

static void second_done(struct ufs_req *r, int err)
{
	(void)r;
	second_err = err;
}

Test(s3_write, storage_that_compares_quotes)
{
	struct fake k = { .conditions = true, .quoted = true, .etag = "old" };
	struct ufs_attr a;

	http_script_set_handler(hs, one_object, &k);
	cr_assert_eq(put_if(false, "old", &a), 0);
	cr_assert_eq(k.puts, 2);
	/* It has been learnt. */
	cr_assert_eq(put_if(false, "made-2", &a), 0);
	cr_assert_eq(k.puts, 3);
	cr_assert_eq(put_if(false, "made-2", &a), -ESTALE);
	http_script_set_handler(hs, NULL, NULL);
}

/* Each of them finds out by itself, and none undoes what another has learnt. */
Test(s3_write, two_learn_of_quotes_at_once)
{
	struct fake k = { .conditions = true, .quoted = true, .etag = "old" };
	struct ufs_put a = { .req.user = &f, .path = "k", .body = "four", .len = 4,
		.if_version = "old" };
	struct ufs_put b = a;

	b.req.user = &f;
	http_script_set_handler(hs, one_object, &k);
	ufs_put(f.ufs, &a, ufs_fix_done);
	ufs_put(f.ufs, &b, second_done);
	second_err = 1;
	while (!f.done || second_err == 1)
		(void)loop_turn(f.loop, true);
	f.done = false;
	/* One of them wins; the other's version is gone then. */
	cr_assert((f.err == 0 && second_err == -ESTALE) || (f.err == -ESTALE && second_err == 0),
	    "%d %d", f.err, second_err);
	cr_assert(S3_OF(f.ufs)->quote_match);
	http_script_set_handler(hs, NULL, NULL);
}

Test(s3_write, storage_without_conditions)
{
	struct fake k = { .etag = "" };
	struct ufs_attr a;

	http_script_set_handler(hs, one_object, &k);
	cr_assert_eq(ufs_can(f.ufs), UFS_CAN_ABSENT);
	cr_assert_eq(put_if(true, NULL, &a), 0);
	cr_assert_eq(k.puts, 2);
	cr_assert_eq(ufs_can(f.ufs), 0);
	cr_assert_eq(put_if(true, NULL, &a), -EEXIST);
	cr_assert_eq(put_if(false, "none", &a), -ESTALE);
	cr_assert_eq(k.puts, 2);
	cr_assert_eq(put_if(false, "made-2", &a), 0);
	http_script_set_handler(hs, NULL, NULL);
}

Test(s3_write, conflict_of_conditions_is_repeated)
{
	struct ufs_attr a;

	reply("PUT ", 409, NULL, error_doc("ConditionalRequestConflict"), 2);
	reply("PUT ", 200, "ETag: \"v1\"\r\n", "", 0);
	cr_assert_eq(put_if(true, NULL, &a), 0);
	cr_assert_eq(http_script_count(hs), 3);
	cr_assert_str_eq(header(0, "if-none-match"), "*");
}

/* --- multipart */

Test(s3_write, begin)
{
	struct ufs_multi_begin rq = { .path = "k" };

	reply("POST /b/p/k?uploads=", 200, NULL, error_doc("InternalError"), 1);
	reply("POST /b/p/k?uploads=", 200, NULL, "<InitiateMultipartUploadResult>", 1);
	reply("POST /b/p/k?uploads=", 200, NULL,
	    "<InitiateMultipartUploadResult xmlns=\"x\">\n <UploadId>a b/&amp;</UploadId>\n"
	    "</InitiateMultipartUploadResult>", 1);
	cr_assert_eq(UFS_FIX_RUN(&f, multi_begin, &rq), 0);
	cr_assert_str_eq(rq.id, "a b/&");
	cr_assert_eq(http_script_count(hs), 3);
	reply("POST ", 200, NULL, "<InitiateMultipartUploadResult/>", 1);
	cr_assert_eq(UFS_FIX_RUN(&f, multi_begin, &rq), -EIO);
	reply("POST ", 200, NULL, "<html/>", 1);
	cr_assert_eq(UFS_FIX_RUN(&f, multi_begin, &rq), -EIO);
	reply("POST ", 200, NULL, "<!DOCTYPE x><InitiateMultipartUploadResult/>", 1);
	cr_assert_eq(UFS_FIX_RUN(&f, multi_begin, &rq), -EIO);
	reply("POST ", 404, NULL, error_doc("NoSuchBucket"), 1);
	cr_assert_eq(UFS_FIX_RUN(&f, multi_begin, &rq), -EIO);
}

static int part(const char *src, const char *version)
{
	struct ufs_part rq = { .path = "k", .id = "a b/&", .number = 5, .len = 4,
		.body = src == NULL ? "part" : NULL, .src_path = src, .src_version = version,
		.src_off = 100 };
	int err = UFS_FIX_RUN(&f, part, &rq);

	cr_assert_eq(err == 0, strcmp(rq.etag, "e5") == 0);
	return err;
}

Test(s3_write, parts)
{
	reply("PUT /b/p/k?partNumber=5&uploadId=a%20b%2F%26", 200, "ETag: \"e5\"\r\n", "", 1);
	cr_assert_eq(part(NULL, NULL), 0);
	reply("PUT ", 200, NULL, "", 1);
	cr_assert_eq(part(NULL, NULL), -EIO);
	reply("PUT ", 404, NULL, error_doc("NoSuchUpload"), 1);
	cr_assert_eq(part(NULL, NULL), -ENOENT);
	reply("PUT ", 404, NULL, error_doc("NoSuchKey"), 1);
	cr_assert_eq(part(NULL, NULL), -EIO);
	reply("PUT ", 403, NULL, error_doc("AccessDenied"), 1);
	cr_assert_eq(part(NULL, NULL), -EACCES);
}

#define PART_COPIED "<CopyPartResult><ETag>&quot;e5&quot;</ETag></CopyPartResult>"

Test(s3_write, copied_parts)
{
	reply("PUT ", 200, NULL, error_doc("InternalError"), 1);
	reply("PUT ", 200, NULL, PART_COPIED, 1);
	reply("HEAD /b/p/s%20s", 200, "ETag: \"v1\"\r\n" DATE, "", 1);
	cr_assert_eq(part("s s", "v1"), 0);
	cr_assert_str_eq(header(0, "x-amz-copy-source"), "/b/p/s%20s");
	cr_assert_str_eq(header(0, "x-amz-copy-source-range"), "bytes=100-103");
	cr_assert_str_eq(header(0, "x-amz-copy-source-if-match"), "v1");
	/* A storage that ignores the condition. */
	reply("PUT ", 200, NULL, PART_COPIED, 1);
	reply("HEAD ", 200, "ETag: \"v2\"\r\n" DATE, "", 1);
	cr_assert_eq(part("s s", "v1"), -ESTALE);
	/* One that does not need looking after. */
	reply("PUT ", 412, NULL, error_doc("PreconditionFailed"), 1);
	reply("HEAD ", 200, "ETag: \"v2\"\r\n" DATE, "", 1);
	cr_assert_eq(part("s s", "v1"), -ESTALE);
	reply("PUT ", 200, NULL, PART_COPIED, 1);
	cr_assert_eq(part("s s", "v1"), 0);
	reply("PUT ", 404, NULL, error_doc("NoSuchKey"), 1);
	cr_assert_eq(part("s s", "v1"), -ESTALE);
	reply("PUT ", 404, NULL, error_doc("NoSuchUpload"), 1);
	cr_assert_eq(part("s s", "v1"), -ENOENT);
	/* A range that is not there (any more). */
	reply("PUT ", 400, NULL, error_doc("InvalidRange"), 1);
	reply("HEAD ", 200, "ETag: \"v2\"\r\n" DATE, "", 1);
	cr_assert_eq(part("s s", "v1"), -ESTALE);
	reply("PUT ", 400, NULL, error_doc("InvalidRequest"), 1);
	reply("HEAD ", 200, "ETag: \"v1\"\r\n" DATE, "", 1);
	cr_assert_eq(part("s s", "v1"), -EINVAL);
	reply("PUT ", 501, NULL, error_doc("NotImplemented"), 1);
	cr_assert_eq(part("s s", "v1"), -EOPNOTSUPP);
	reply("PUT ", 200, NULL, "<CopyPartResult/>", 1);
	cr_assert_eq(part("s s", "v1"), -EIO);
}

#define E1 "5f363e0e58a95f06cbe9bbc662c5dfb6"
#define E12 "a7d414b9133d6483d9a1c4e04e856e3b-2"
#define ENDED "<CompleteMultipartUploadResult><ETag>\"" E12 "\"</ETag></CompleteMultipartUploadResult>"

static struct ufs_attr end_attr;

static int end_with(const char *e1, bool absent, const char *version)
{
	struct ufs_part_id parts[] = { { .number = 1, .len = 2 },
		{ .number = 7, .len = 2, .etag = E1 } };
	struct ufs_multi_end rq = { .path = "k", .id = "i", .parts = parts, .nparts = 2,
		.absent = absent, .if_version = version };
	int err;

	strcpy(parts[0].etag, e1);
	err = UFS_FIX_RUN(&f, multi_end, &rq);
	end_attr = rq.attr;
	return err;
}

Test(s3_write, end)
{
	reply("POST /b/p/k?uploadId=i", 200, NULL, error_doc("InternalError"), 1);
	reply("POST /b/p/k?uploadId=i", 200, NULL, "<CompleteMultipartUploadResult><ET", 1);
	reply("POST /b/p/k?uploadId=i", 200, NULL, ENDED, 1);
	cr_assert_eq(end_with(E1, false, NULL), 0);
	cr_assert_str_eq(end_attr.version, E12);
	cr_assert_eq(end_attr.size, 4);
	cr_assert_not_null(strstr(http_script_get(hs, 0)->body,
	    "<Part><PartNumber>7</PartNumber><ETag>\"" E1 "\"</ETag></Part>"));
	reply("POST ", 200, NULL, error_doc("AccessDenied"), 1);
	cr_assert_eq(end_with(E1, false, NULL), -EACCES);
	/* radosgw's first. */
	reply("POST ", 200, NULL,
	    "<CompleteMultipartUploadResult><ETag></ETag></CompleteMultipartUploadResult>", 1);
	reply("HEAD ", 200, "ETag: \"" E12 "\"\r\n" DATE, "four", 1);
	cr_assert_eq(end_with(E1, false, NULL), 0);
	cr_assert_str_eq(end_attr.version, E12);
	reply("POST ", 400, NULL, error_doc("InvalidPart"), 1);
	cr_assert_eq(end_with(E1, false, NULL), -EINVAL);
}

Test(s3_write, end_of_an_upload_that_is_gone)
{
	/* By our own doing. */
	reply("POST ", 404, NULL, error_doc("NoSuchUpload"), 1);
	reply("HEAD ", 200, "ETag: \"" E12 "\"\r\n" DATE, "four", 1);
	cr_assert_eq(end_with(E1, false, NULL), 0);
	cr_assert_str_eq(end_attr.version, E12);
	/* Of an older object nothing follows, as long as it may be. */
	reply("POST ", 404, NULL, error_doc("NoSuchUpload"), 1);
	reply("HEAD ", 200, "ETag: \"older-2\"\r\n" DATE, "four", 1);
	cr_assert_eq(end_with(E1, false, NULL), -ENOENT);
	reply("POST ", 404, NULL, error_doc("NoSuchUpload"), 1);
	reply("HEAD ", 404, NULL, "", 1);
	cr_assert_eq(end_with(E1, false, NULL), -ENOENT);
	reply("POST ", 404, NULL, error_doc("NoSuchUpload"), 1);
	reply("HEAD ", 200, "ETag: \"kms-2\"\r\n" DATE, "four", 1);
	cr_assert_eq(end_with("no-md5", false, NULL), -ENOENT);
	/* ETags that say nothing, but an attempt that may have worked. */
	reply("POST ", 500, NULL, "", 1);
	reply("POST ", 404, NULL, error_doc("NoSuchUpload"), 1);
	reply("HEAD ", 200, "ETag: \"kms-2\"\r\n" DATE, "four", 1);
	cr_assert_eq(end_with("no-md5", false, NULL), 0);
	cr_assert_str_eq(end_attr.version, "kms-2");
	reply("POST ", 500, NULL, "", 1);
	reply("POST ", 404, NULL, error_doc("NoSuchUpload"), 1);
	reply("HEAD ", 200, "ETag: \"kms-3\"\r\n" DATE, "four", 1);
	cr_assert_eq(end_with("no-md5", false, NULL), -ENOENT);
}

/* radosgw says 500 of an upload that is not there. */
Test(s3_write, end_that_never_succeeds)
{
	reply("POST ", 500, NULL, error_doc("InternalError"), 0);
	reply("GET /b/p/k?max-parts=1&uploadId=i", 404, NULL, error_doc("NoSuchUpload"), 2);
	reply("HEAD ", 200, "ETag: \"" E12 "\"\r\n" DATE, "four", 1);
	cr_assert_eq(end_with(E1, false, NULL), 0);
	reply("HEAD ", 404, NULL, "", 1);
	cr_assert_eq(end_with(E1, false, NULL), -ENOENT);
	/* It is there: go on until ufs.timeout. */
	reply("GET ", 200, NULL, "<ListPartsResult/>", 0);
	ufs_fix_set(&f, "ufs.timeout", "300ms");
	cr_assert_eq(end_with(E1, false, NULL), -EIO);
	cr_assert_gt(http_script_count_of(hs, "POST "), 12);
}

Test(s3_write, end_with_conditions)
{
	reply("HEAD ", 404, NULL, "", 1);
	reply("POST ", 501, NULL, error_doc("NotImplemented"), 1);
	reply("POST ", 200, NULL, ENDED, 1);
	cr_assert_eq(end_with(E1, true, NULL), 0);
	cr_assert_str_eq(header(1, "if-none-match"), "*");
	cr_assert_null(header(2, "if-none-match"));
	cr_assert_eq(ufs_can(f.ufs), UFS_CAN_ABSENT, "it is about PUT");
	reply("HEAD ", 200, "ETag: \"v1\"\r\n" DATE, "", 1);
	cr_assert_eq(end_with(E1, true, NULL), -EEXIST);
	reply("HEAD ", 200, "ETag: \"v1\"\r\n" DATE, "", 1);
	cr_assert_eq(end_with(E1, false, "v2"), -ESTALE);
	/* Somebody is faster. */
	reply("HEAD ", 404, NULL, "", 1);
	reply("POST ", 412, NULL, error_doc("PreconditionFailed"), 1);
	reply("HEAD ", 200, "ETag: \"v1\"\r\n" DATE, "", 1);
	cr_assert_eq(end_with(E1, true, NULL), -EEXIST);
	/* We ourselves were. */
	reply("HEAD ", 404, NULL, "", 1);
	reply("POST ", 412, NULL, error_doc("PreconditionFailed"), 1);
	reply("HEAD ", 200, "ETag: \"" E12 "\"\r\n" DATE, "four", 1);
	cr_assert_eq(end_with(E1, true, NULL), 0);
}

Test(s3_write, multi_abort)
{
	struct ufs_multi_abort rq = { .path = "k", .id = "i" };

	reply("DELETE /b/p/k?uploadId=i", 500, NULL, "", 1);
	reply("DELETE /b/p/k?uploadId=i", 204, NULL, "", 1);
	cr_assert_eq(UFS_FIX_RUN(&f, multi_abort, &rq), 0);
	reply("DELETE ", 404, NULL, error_doc("NoSuchUpload"), 1);
	cr_assert_eq(UFS_FIX_RUN(&f, multi_abort, &rq), 0);
	reply("DELETE ", 403, NULL, error_doc("AccessDenied"), 1);
	cr_assert_eq(UFS_FIX_RUN(&f, multi_abort, &rq), -EACCES);
}

#define LISTED(key, id, when)                                                                      \
	"<Upload><Key>" key "</Key><UploadId>" id "</UploadId><Initiator><ID>me</ID></Initiator>"   \
	"<Initiated>" when "</Initiated></Upload>"
#define LIST(more, ...)                                                                            \
	"<ListMultipartUploadsResult><Bucket>b</Bucket><IsTruncated>" more "</IsTruncated>"        \
	__VA_ARGS__ "</ListMultipartUploadsResult>"

static int sweep(struct ufs_multi_sweep *rq)
{
	static const char *const keep[] = { "known" };
	uint64_t wall = loop_wall(f.loop);

	memset(rq, 0, sizeof(*rq));
	rq->path = "k&l";
	rq->since_ns = wall;
	rq->keep = keep;
	rq->nkeep = 1;
	return UFS_FIX_RUN(&f, multi_sweep, rq);
}

Test(s3_write, sweep)
{
	struct ufs_multi_sweep rq;

	reply("GET /b?prefix=p%2Fk%26l&uploads=", 500, NULL, error_doc("InternalError"), 1);
	reply("GET /b?prefix=p%2Fk%26l&uploads=", 200, NULL,
	    LIST("false", LISTED("p/k&amp;l", "one", "2999-01-01T00:00:00.000Z")), 1);
	reply("DELETE /b/p/k%26l?uploadId=one", 204, NULL, "", 1);
	cr_assert_eq(sweep(&rq), 0);
	cr_assert_eq(rq.found, 1);
	cr_assert_eq(http_script_count(hs), 3);
}

Test(s3_write, sweep_leaves_all_others)
{
	struct ufs_multi_sweep rq;

	reply("GET ", 200, NULL,
	    LIST("true", LISTED("p/k&amp;l", "known", "2999-01-01T00:00:00Z")
		LISTED("p/k&amp;l", "old", "2001-01-01T00:00:00Z")
		LISTED("p/k&amp;l", "when", "yesterday") LISTED("p/k&amp;l", "", "2999-01-01T00:00:00Z")
		LISTED("p/k&amp;l2", "longer", "2999-01-01T00:00:00Z")
		LISTED("k&amp;l", "elsewhere", "2999-01-01T00:00:00Z")),
	    1);
	cr_assert_eq(sweep(&rq), 0);
	cr_assert_eq(rq.found, 0);
	cr_assert_eq(http_script_count(hs), 1);
}

/* What was begun before we asked is not of ours, whatever the storage's clock says. */
Test(s3_write, sweep_knows_the_clock_of_the_storage)
{
	time_t now = (time_t)(loop_wall(f.loop) / NS_PER_S);
	char date[80], early[32], late[32], doc[1024];
	struct ufs_multi_sweep rq;
	time_t theirs = now + 3600, t;
	struct tm tm;

	(void)strftime(date, sizeof(date), "Date: %a, %d %b %Y %T GMT\r\n", gmtime_r(&theirs, &tm));
	t = theirs - 300;
	(void)strftime(early, sizeof(early), "%FT%TZ", gmtime_r(&t, &tm));
	t = theirs - 10;
	(void)strftime(late, sizeof(late), "%FT%TZ", gmtime_r(&t, &tm));
	(void)snprintf(doc, sizeof(doc),
	    LIST("false", LISTED("p/k&amp;l", "early", "%s") LISTED("p/k&amp;l", "late", "%s")), early,
	    late);
	reply("GET ", 200, date, doc, 1);
	reply("DELETE /b/p/k%26l?uploadId=late", 404, NULL, error_doc("NoSuchUpload"), 1);
	cr_assert_eq(sweep(&rq), 0);
	cr_assert_eq(rq.found, 0);
	cr_assert_eq(http_script_count(hs), 2);
}

Test(s3_write, sweep_goes_on_while_it_finds_some)
{
	struct ufs_multi_sweep rq;

	for (unsigned i = 0; i < 2; i++) {
		reply("GET ", 200, NULL,
		    LIST("true", LISTED("p/k&amp;l", "a", "2999-01-01T00:00:00Z")
			LISTED("p/k&amp;l", "b", "2999-01-01T00:00:00Z")),
		    1);
		reply("DELETE ", 204, NULL, "", 2);
	}
	reply("GET ", 200, NULL, LIST("false", ""), 1);
	cr_assert_eq(sweep(&rq), 0);
	cr_assert_eq(rq.found, 4);
}

Test(s3_write, sweep_fails)
{
	struct ufs_multi_sweep rq;

	reply("GET ", 403, NULL, error_doc("AccessDenied"), 1);
	cr_assert_eq(sweep(&rq), -EACCES);
	reply("GET ", 501, NULL, error_doc("NotImplemented"), 1);
	cr_assert_eq(sweep(&rq), -EOPNOTSUPP);
	reply("GET ", 405, NULL, "", 1);
	cr_assert_eq(sweep(&rq), -EOPNOTSUPP);
	reply("GET ", 404, NULL, error_doc("NoSuchBucket"), 1);
	cr_assert_eq(sweep(&rq), -EIO);
	reply("GET ", 200, NULL, "<html/>", 1);
	cr_assert_eq(sweep(&rq), -EIO);
	reply("GET ", 200, NULL,
	    LIST("false", LISTED("p/k&amp;l", "a", "2999-01-01T00:00:00Z")), 1);
	reply("DELETE ", 403, NULL, error_doc("AccessDenied"), 1);
	cr_assert_eq(sweep(&rq), -EACCES);
}

/* --- copies */

static struct ufs_attr copy_attr;

static int copy(uint64_t size)
{
	struct ufs_copy rq = { .src = "s", .dst = "k", .src_version = "v1", .size = size };
	int err = UFS_FIX_RUN(&f, copy, &rq);

	copy_attr = rq.attr;
	return err;
}

#define COPIED(etag) "<CopyObjectResult><ETag>\"" etag "\"</ETag></CopyObjectResult>"

Test(s3_write, copies)
{
	reply("PUT /b/p/k", 200, NULL, error_doc("SlowDown"), 1);
	reply("PUT /b/p/k", 200, NULL, "  \n", 1);
	reply("PUT /b/p/k", 200, NULL, COPIED("v1"), 1);
	cr_assert_eq(copy(4), 0);
	cr_assert(copy_attr.size == 4 && strcmp(copy_attr.version, "v1") == 0);
	cr_assert_eq(http_script_count(hs), 3);
	/* As what it was copied says nothing of what it was. */
	reply("PUT ", 200, NULL, COPIED("new"), 1);
	reply("HEAD /b/p/s", 200, "ETag: \"v1\"\r\n" DATE, "", 1);
	cr_assert_eq(copy(4), 0);
	cr_assert_str_eq(copy_attr.version, "new");
	reply("PUT ", 200, NULL, COPIED("new"), 1);
	reply("HEAD /b/p/s", 200, "ETag: \"v2\"\r\n" DATE, "", 1);
	cr_assert_eq(copy(4), -ESTALE);
	reply("PUT ", 200, NULL, "<CopyObjectResult/>", 1);
	reply("HEAD /b/p/s", 200, "ETag: \"v1\"\r\n" DATE, "", 1);
	reply("HEAD /b/p/k", 200, "ETag: \"new\"\r\n" DATE, "four", 1);
	cr_assert_eq(copy(4), 0);
	cr_assert_str_eq(copy_attr.version, "new");
	reply("PUT ", 404, NULL, error_doc("NoSuchKey"), 1);
	cr_assert_eq(copy(4), -ENOENT);
	reply("PUT ", 403, NULL, error_doc("AccessDenied"), 1);
	cr_assert_eq(copy(4), -EACCES);
	reply("PUT ", 200, NULL, error_doc("NoSuchKey"), 1);
	cr_assert_eq(copy(4), -ENOENT);
}

static const char src_head[] = "ETag: \"v1\"\r\n" DATE "Content-Type: text/x\r\nX-Amz-Meta-A: one\r\n"
			       "x-amz-meta-b: two  three\r\nServer: any\r\n";

/* A storage where copies in parts work, but for what `bad` says. */
struct parts_storage {
	unsigned bad_part;
	unsigned parts, drops;
	bool silent; /* about whole copies */
};

static bool parts_storage(void *arg, const struct http_script_req *rq, struct http_script_answer *out)
{
	struct parts_storage *s = arg;
	const char *body = "", *head = NULL;
	char text[128];
	int status = 200;

	if (strcmp(rq->method, "HEAD") == 0) {
		(void)snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Length: %llu\r\n",
		    (unsigned long long)(20 * MIB + 1));
		out->raw_len = strlen(text) + sizeof(src_head) - 1 + 2;
		out->raw = malloc(out->raw_len + 1);
		cr_assert_not_null(out->raw);
		(void)sprintf((char *)(uintptr_t)out->raw, "%s%s\r\n", text, src_head);
		return true;
	}
	if (strstr(rq->target, "uploads=") != NULL) {
		body = "<InitiateMultipartUploadResult><UploadId>i</UploadId></InitiateMultipartUploadResult>";
	} else if (strcmp(rq->method, "DELETE") == 0) {
		s->drops++;
		status = 204;
	} else if (s->silent && strchr(rq->target, '?') == NULL) {
		out->end = HTTP_SCRIPT_STALL;
		return true;
	} else if (strcmp(rq->method, "PUT") == 0) {
		s->parts++;
		body = "<CopyPartResult><ETag>" E1 "</ETag></CopyPartResult>";
		(void)snprintf(text, sizeof(text), "partNumber=%u&", s->bad_part);
		if (s->bad_part != 0 && strstr(rq->target, text) != NULL) {
			status = 403;
			body = error_doc("AccessDenied");
		}
	} else {
		body = "<CompleteMultipartUploadResult><ETag>x-5</ETag></CompleteMultipartUploadResult>";
	}
	out->raw = http_script_format(status, head, body, strlen(body), &out->raw_len, NULL);
	return true;
}

static void turn_until(const unsigned *value, unsigned n)
{
	while (*(const volatile unsigned *)value < n)
		(void)loop_turn(f.loop, false);
}

Test(s3_write, copies_in_parts)
{
	struct parts_storage s = { 0 };
	struct ufs_copy rq = { .req.user = &f, .src = "s", .dst = "k", .src_version = "v1",
		.size = 20 * MIB + 1 };
	struct s3 *s3 = S3_OF(f.ufs);

	s3->copy_max = 10 * MIB;
	s3->copy_part = 5 * MIB;
	http_script_set_handler(hs, parts_storage, &s);
	cr_assert_eq(copy(20 * MIB + 1), 0);
	cr_assert_str_eq(copy_attr.version, "x-5");
	cr_assert(s.parts == 5 && s.drops == 0);
	cr_assert_str_eq(header(1, "content-type"), "text/x");
	cr_assert_str_eq(header(1, "x-amz-meta-a"), "one");
	cr_assert_str_eq(header(1, "x-amz-meta-b"), "two  three");
	cr_assert_null(header(1, "etag"));
	cr_assert_eq(copy(20 * MIB + 2), -ESTALE); /* another size */
	/* What takes too long at once is done in parts. */
	s3->copy_max = 100 * MIB;
	s.silent = true;
	ufs_fix_set(&f, "ufs.timeout", "1s");
	cr_assert_eq(copy(20 * MIB + 1), 0);
	cr_assert_str_eq(copy_attr.version, "x-5");
	ufs_fix_set(&f, "ufs.timeout", "30s");
	s3->copy_max = 10 * MIB;
	/* What fails leaves nothing. */
	s.bad_part = 4;
	cr_assert_eq(copy(20 * MIB + 1), -EACCES);
	turn_until(&s.drops, 1);
	/* Given up under way, too. */
	s.bad_part = s.parts = 0;
	ufs_copy(f.ufs, &rq, ufs_fix_done);
	turn_until(&s.parts, 1);
	if (!f.done)
		ufs_abort(&rq.req);
	turn_until(&s.drops, 2);
	f.done = false;
	http_script_set_handler(hs, NULL, NULL);
}

/* --- deletions */

static int errs[4];

static int delete4(void)
{
	static const char *const paths[] = { "a", "b", "c", "d" };
	struct ufs_delete rq = { .paths = paths, .n = 4, .errs = errs };

	memset(errs, 1, sizeof(errs));
	return UFS_FIX_RUN(&f, delete, &rq);
}

Test(s3_write, deletions)
{
	reply("POST /b?delete=", 503, NULL, "", 1);
	reply("POST /b?delete=", 200, NULL, error_doc("InternalError"), 1);
	reply("POST /b?delete=", 200, NULL,
	    "<DeleteResult><Deleted><Key>p/d</Key></Deleted>"
	    "<Error><Key>p/a</Key><Code>AccessDenied</Code></Error>\n"
	    "<Error><Key>p/b</Key><Code>InternalError</Code></Error>"
	    "<Deleted><Key>nobody/asked</Key></Deleted></DeleteResult>", 1);
	/* One of which nothing is said, and one that is to be tried again. */
	reply("DELETE /b/p/b", 204, NULL, "", 1);
	reply("DELETE /b/p/c", 403, NULL, error_doc("AccessDenied"), 1);
	cr_assert_eq(delete4(), 0);
	cr_assert(errs[0] == -EACCES && errs[1] == 0 && errs[2] == -EACCES && errs[3] == 0,
	    "%d %d %d %d", errs[0], errs[1], errs[2], errs[3]);
	cr_assert_not_null(header(0, "content-md5"));
	cr_assert_not_null(strstr(http_script_get(hs, 0)->body, "<Object><Key>p/c</Key></Object>"));
	/* A storage that cannot. */
	reply("POST ", 501, NULL, "", 1);
	reply("DELETE ", 204, NULL, "", 0);
	cr_assert_eq(delete4(), 0);
	cr_assert_eq(errs[3], 0);
	cr_assert_eq(delete4(), 0);
	cr_assert_eq(http_script_count_of(hs, "POST "), 4);
	cr_assert_eq(http_script_count_of(hs, "DELETE "), 10);
}

Test(s3_write, deletions_that_fail)
{
	reply("POST ", 403, NULL, error_doc("AccessDenied"), 1);
	cr_assert_eq(delete4(), -EACCES);
	reply("POST ", 404, NULL, error_doc("NoSuchBucket"), 1);
	cr_assert_eq(delete4(), -EIO);
	/* It does not like the document. */
	reply("POST ", 400, NULL, error_doc("MalformedXML"), 1);
	reply("DELETE ", 204, NULL, "", 4);
	cr_assert_eq(delete4(), 0);
	cr_assert_eq(errs[0], 0);
	ufs_fix_set(&f, "ufs.timeout", "200ms");
	reply("POST ", 400, NULL, error_doc("MalformedXML"), 1);
	reply("DELETE ", 503, NULL, "", 0);
	cr_assert_eq(delete4(), -EIO);
	reply("POST ", 503, NULL, "", 0);
	cr_assert_eq(delete4(), -EIO);
}

Test(s3_write, one_deletion)
{
	const char *const paths[] = { "a" };
	int err = 1;
	struct ufs_delete rq = { .paths = paths, .n = 1, .errs = &err };
	struct ufs_rmdir rd = { .path = "d" };

	reply("DELETE /b/p/a", 204, NULL, "", 1);
	cr_assert_eq(UFS_FIX_RUN(&f, delete, &rq), 0);
	cr_assert_eq(err, 0);
	reply("DELETE /b/p/a", 404, NULL, error_doc("NoSuchKey"), 1);
	cr_assert_eq(UFS_FIX_RUN(&f, delete, &rq), 0);
	cr_assert_eq(err, 0);
	reply("DELETE /b/p/d/", 204, NULL, "", 1);
	cr_assert_eq(UFS_FIX_RUN(&f, rmdir, &rd), 0);
	cr_assert_eq(http_script_count(hs), 3);
}

Test(s3_write, not_here)
{
	struct ufs_rename rn = { .src = "a", .dst = "b" };
	struct ufs_setattr sa = { .path = "a" };

	cr_assert_eq(UFS_FIX_RUN(&f, rename, &rn), -EOPNOTSUPP);
	cr_assert_eq(UFS_FIX_RUN(&f, setattr, &sa), -EOPNOTSUPP);
	cr_assert_eq(http_script_count(hs), 0);
}
