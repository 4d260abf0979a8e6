/* SPDX-License-Identifier: BSD-2-Clause */
/* Writing to a scripted storage: what a real one does not do on demand. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "ufs/s3_priv.h"
#include "s3_rig.h"

TestSuite(s3_write, .init = s3r_up, .fini = s3r_down);

static int put(const char *body, size_t len, struct ufs_attr *a)
{
	struct ufs_put rq = { .path = "k", .body = body, .len = len };
	int err = UFS_FIX_RUN(&s3r.f, put, &rq);

	if (a != NULL)
		*a = rq.attr;
	return err;
}

/* --- put */

Test(s3_write, what_a_put_sends)
{
	struct ufs_mkdir md = { .path = "d" };
	struct ufs_attr a;

	s3r_reply("PUT /b/p/k", 200, "ETag: \"v1\"\r\n", "", 0);
	s3r_reply("PUT /b/p/d/", 200, NULL, "", 0); /* who needs a marker's ETag? */
	cr_assert_eq(put("body", 4, &a), 0);
	cr_assert(a.kind == UFS_FILE && a.size == 4 && strcmp(a.version, "v1") == 0);
	cr_assert_str_eq(http_script_get(s3r.hs, 0)->body, "body");
	cr_assert_str_eq(s3r_header(0, "x-amz-content-sha256"), "UNSIGNED-PAYLOAD");
	cr_assert_not_null(s3r_header(0, "authorization"));
	cr_assert_null(s3r_header(0, "expect"));
	cr_assert_null(s3r_header(0, "if-none-match"));
	cr_assert_null(s3r_header(0, S3_MARK));
	cr_assert_eq(UFS_FIX_RUN(&s3r.f, mkdir, &md), 0);
	cr_assert_eq(md.attr.kind, UFS_DIR);
	cr_assert_eq(http_script_count(s3r.hs), 2);
	cr_assert_null(s3r_header(1, "expect"));
}

Test(s3_write, class_and_encryption)
{
	struct ufs_multi_begin begin = { .path = "k" };
	struct ufs_copy cp = { .src = "s", .dst = "k", .src_version = "v1", .size = 1 };
	struct errtext et = { "" };
	struct ufs *none;

	ufs_fix_set(&s3r.f, "s3.storage.class", "STANDARD_IA");
	ufs_fix_set(&s3r.f, "s3.server.side.encryption", "aws:kms");
	ufs_fix_set(&s3r.f, "s3.sse.kms.key.id", "arn:aws:kms:eu-1:123:key/a-b");
	ufs_free(&s3r.f.ufs);
	ufs_fix_attach(&s3r.f, "s3://b/p");
	s3r_reply("POST ", 500, NULL, "", 0);
	s3r_reply("PUT ", 403, NULL, "", 0);
	ufs_fix_set(&s3r.f, "ufs.timeout", "100ms");
	cr_assert_eq(put("body", 4, NULL), -EACCES);
	cr_assert_eq(UFS_FIX_RUN(&s3r.f, copy, &cp), -EACCES);
	cr_assert_eq(UFS_FIX_RUN(&s3r.f, multi_begin, &begin), -EIO);
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_str_eq(s3r_header(i, "x-amz-storage-class"), "STANDARD_IA");
		cr_assert_str_eq(s3r_header(i, "x-amz-server-side-encryption"), "aws:kms");
		cr_assert_str_eq(s3r_header(i, "x-amz-server-side-encryption-aws-kms-key-id"),
		    "arn:aws:kms:eu-1:123:key/a-b");
	}
	ufs_fix_set(&s3r.f, "s3.server.side.encryption", "AES256");
	cr_assert_eq(ufs_new(&none, &s3r.f.env, "s3://b", &et), -EINVAL);
	ufs_fix_set(&s3r.f, "s3.sse.kms.key.id", "");
	ufs_fix_set(&s3r.f, "s3.storage.class", "A: b");
	cr_assert_eq(ufs_new(&none, &s3r.f.env, "s3://b", &et), -EINVAL);
	cr_assert_not_null(strstr(et.s, "s3.storage.class"), "%s", et.s);
}

Test(s3_write, put_without_etag_looks)
{
	struct ufs_attr a;

	s3r_reply("PUT ", 200, NULL, "", 0);
	s3r_reply("HEAD ", 200, "ETag: \"v1\"\r\n" S3R_DATE, "body", 0);
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
		unsigned before = http_script_count(s3r.hs);
		int err;

		http_script_clear(s3r.hs);
		s3r_reply("PUT ", cases[i].status, NULL, s3r_error_doc(cases[i].code), 3);
		s3r_reply("PUT ", 200, "ETag: \"v1\"\r\n", "", 0);
		err = put("body", 4, NULL);
		cr_assert_eq(err, cases[i].err, "%d %s: %d", cases[i].status, cases[i].code, err);
		cr_assert_eq(http_script_count(s3r.hs) - before, cases[i].repeated ? 4 : 1);
	}
}

Test(s3_write, storm_without_end)
{
	ufs_fix_set(&s3r.f, "ufs.timeout", "300ms");
	s3r_reply(NULL, 503, NULL, s3r_error_doc("SlowDown"), 0);
	cr_assert_eq(put("body", 4, NULL), -EIO);
	cr_assert_gt(http_script_count(s3r.hs), 10);
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
	s3r_reply("PUT ", 200, "ETag: \"v1\"\r\n", "", 0);
	http_script_add_intake(s3r.hs, &once);
	cr_assert_eq(put(body, len, NULL), 0);
	cr_assert_eq(http_script_intake_used(s3r.hs, 0), 2);
	cr_assert_eq(http_script_count(s3r.hs), 1);
	cr_assert(memcmp(http_script_get(s3r.hs, 0)->body, body, len) == 0);
	/* Getting equally far each time is no progress. */
	http_script_add_intake(s3r.hs, &always);
	ufs_fix_set(&s3r.f, "ufs.timeout", "500ms");
	err = put(body, len, NULL);
	free(body);
	cr_assert(err == -EIO || err == -ETIMEDOUT, "%d", err); /* by what the time ends in */
	cr_assert_gt(http_script_intake_used(s3r.hs, 1), 2);
}

Test(s3_write, stall_in_the_body)
{
	struct http_script_intake in = { .stop_at = 70000, .end = HTTP_SCRIPT_STALL };
	size_t len = 32 * MIB;
	char *body = calloc(1, len);

	cr_assert_not_null(body);
	http_script_add_intake(s3r.hs, &in);
	ufs_fix_set(&s3r.f, "ufs.timeout", "500ms");
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
	s3r_reply("PUT ", 200, "ETag: \"v1\"\r\n", "", 0);
	http_script_add_intake(s3r.hs, &in);
	ufs_fix_set(&s3r.f, "ufs.timeout", "1s");
	cr_assert_eq(put(body, len, NULL), 0);
	cr_assert_eq(http_script_intake_used(s3r.hs, 0), 1);
	free(body);
}

Test(s3_write, abort_in_the_body)
{
	struct http_script_intake in = { .stop_at = 70000, .end = HTTP_SCRIPT_STALL };
	size_t len = 4 * MIB;
	char *body = calloc(1, len);
	struct ufs_put rq = { .req.user = &s3r.f, .path = "k", .body = body, .len = len };

	cr_assert_not_null(body);
	http_script_add_intake(s3r.hs, &in);
	ufs_put(s3r.f.ufs, &rq, ufs_fix_done);
	while (http_script_intake_used(s3r.hs, 0) == 0)
		(void)loop_turn(s3r.f.loop, false);
	ufs_abort(&rq.req);
	free(body);
	for (int i = 0; i < 100; i++)
		(void)loop_turn(s3r.f.loop, false);
	cr_assert_not(s3r.f.done);
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
		(void)snprintf(head, sizeof(head), S3R_DATE "ETag: \"%s\"\r\n%s%s%s", k->etag,
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
		const char *doc = s3r_error_doc(status == 404 ? "NoSuchKey" : "Refused");

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
	int err = UFS_FIX_RUN(&s3r.f, put, &rq);

	*a = rq.attr;
	return err;
}

Test(s3_write, created_although_the_answer_was_lost)
{
	struct fake k = { .conditions = true, .unheard = true };
	struct ufs_attr a;

	http_script_set_handler(s3r.hs, one_object, &k);
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
	http_script_set_handler(s3r.hs, NULL, NULL);
}

static int put_file(bool absent, const char *version, uint64_t file, bool again)
{
	struct ufs_put rq = { .path = "k", .body = "four", .len = 4, .absent = absent,
		.if_version = version, .file = file, .again = again };

	return UFS_FIX_RUN(&s3r.f, put, &rq);
}

/* What an earlier put of the same file has made is replaced, if it is asked for. */
Test(s3_write, made_by_an_earlier_put)
{
	for (unsigned how = 0; how < 4; how++) {
		struct fake k = { .conditions = how != 3, .quoted = how == 1 };

		http_script_set_handler(s3r.hs, one_object, &k);
		ufs_set_mount_id(s3r.f.ufs, 0);
		cr_assert_eq(put_file(true, NULL, 7, true), 0);
		cr_assert_eq(put_file(true, NULL, 7, true), -EEXIST, "it has no number");
		k.etag[0] = '\0';
		ufs_set_mount_id(s3r.f.ufs, 5);
		cr_assert_eq(put_file(true, NULL, 7, true), 0);
		cr_assert_eq(put_file(true, NULL, 7, false), -EEXIST);
		cr_assert_eq(put_file(true, NULL, 8, true), -EEXIST);
		cr_assert_eq(put_file(true, NULL, 0, true), -EEXIST);
		k.unheard = how == 2;
		cr_assert_eq(put_file(true, NULL, 7, true), 0);
		cr_assert_eq(put_file(false, "made-1", 7, false), -ESTALE);
		cr_assert_eq(put_file(false, "made-1", 8, true), -ESTALE);
		k.unheard = how == 2;
		cr_assert_eq(put_file(false, "made-1", 7, true), 0);
		/* Gone, or replaced by another. */
		ufs_set_mount_id(s3r.f.ufs, 6);
		cr_assert_eq(put_file(false, "made-1", 7, true), -ESTALE);
		k.etag[0] = '\0';
		cr_assert_eq(put_file(false, "made-1", 7, true), -ESTALE);
	}
	http_script_set_handler(s3r.hs, NULL, NULL);
}

static int end_file(uint64_t file, bool again)
{
	static const struct ufs_part_id id = { .number = 1, .len = 4, .etag = "none" };
	struct ufs_multi_end rq = { .path = "k", .id = "i", .parts = &id, .nparts = 1,
		.absent = true, .file = file, .again = again };

	return UFS_FIX_RUN(&s3r.f, multi_end, &rq);
}

Test(s3_write, ended_over_what_an_earlier_upload_made)
{
	struct ufs_multi_begin b = { .path = "k", .file = 7 };
	char head[256], mark[64];

	s3r_reply("POST ", 200, NULL,
	    "<InitiateMultipartUploadResult><UploadId>i</UploadId></InitiateMultipartUploadResult>",
	    1);
	ufs_set_mount_id(s3r.f.ufs, 5);
	cr_assert_eq(UFS_FIX_RUN(&s3r.f, multi_begin, &b), 0);
	cr_assert_not_null(s3r_header(0, S3_MARK));
	(void)snprintf(mark, sizeof(mark), "%s", s3r_header(0, S3_MARK));
	(void)snprintf(head, sizeof(head), S3R_DATE "ETag: \"e1\"\r\n" S3_MARK ": %s\r\n", mark);
	s3r_reply("HEAD ", 200, head, "four", 3);
	cr_assert_eq(end_file(7, false), -EEXIST);
	cr_assert_eq(end_file(8, true), -EEXIST);
	s3r_reply("POST ", 200, NULL,
	    "<CompleteMultipartUploadResult><ETag>e2</ETag></CompleteMultipartUploadResult>", 1);
	cr_assert_eq(end_file(7, true), 0);
	cr_assert_not_null(strstr(s3r_header(http_script_count(s3r.hs) - 1, "if-match"), "e1"));
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

	http_script_set_handler(s3r.hs, others_first, &k);
	cr_assert_eq(put_if(true, NULL, &a), -EEXIST);
	cr_assert_str_eq(k.etag, "other");
	http_script_set_handler(s3r.hs, NULL, NULL);
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

	http_script_set_handler(s3r.hs, one_object, &k);
	cr_assert_eq(put_if(false, "old", &a), 0);
	cr_assert_eq(k.puts, 2);
	/* It has been learnt. */
	cr_assert_eq(put_if(false, "made-2", &a), 0);
	cr_assert_eq(k.puts, 3);
	cr_assert_eq(put_if(false, "made-2", &a), -ESTALE);
	http_script_set_handler(s3r.hs, NULL, NULL);
}

/* Each of them finds out by itself, and none undoes what another has learnt. */
Test(s3_write, two_learn_of_quotes_at_once)
{
	struct fake k = { .conditions = true, .quoted = true, .etag = "old" };
	struct ufs_put a = { .req.user = &s3r.f, .path = "k", .body = "four", .len = 4,
		.if_version = "old" };
	struct ufs_put b = a;

	b.req.user = &s3r.f;
	http_script_set_handler(s3r.hs, one_object, &k);
	ufs_put(s3r.f.ufs, &a, ufs_fix_done);
	ufs_put(s3r.f.ufs, &b, second_done);
	second_err = 1;
	while (!s3r.f.done || second_err == 1)
		(void)loop_turn(s3r.f.loop, true);
	s3r.f.done = false;
	/* One of them wins; the other's version is gone then. */
	cr_assert((s3r.f.err == 0 && second_err == -ESTALE) || (s3r.f.err == -ESTALE && second_err == 0),
	    "%d %d", s3r.f.err, second_err);
	cr_assert(S3_OF(s3r.f.ufs)->quote_match);
	http_script_set_handler(s3r.hs, NULL, NULL);
}

Test(s3_write, storage_without_conditions)
{
	struct fake k = { .etag = "" };
	struct ufs_attr a;

	http_script_set_handler(s3r.hs, one_object, &k);
	cr_assert_eq(ufs_can(s3r.f.ufs), UFS_CAN_ABSENT);
	cr_assert_eq(put_if(true, NULL, &a), 0);
	cr_assert_eq(k.puts, 2);
	cr_assert_eq(ufs_can(s3r.f.ufs), 0);
	cr_assert_eq(put_if(true, NULL, &a), -EEXIST);
	cr_assert_eq(put_if(false, "none", &a), -ESTALE);
	cr_assert_eq(k.puts, 2);
	cr_assert_eq(put_if(false, "made-2", &a), 0);
	http_script_set_handler(s3r.hs, NULL, NULL);
}

Test(s3_write, conflict_of_conditions_is_repeated)
{
	struct ufs_attr a;

	s3r_reply("PUT ", 409, NULL, s3r_error_doc("ConditionalRequestConflict"), 2);
	s3r_reply("PUT ", 200, "ETag: \"v1\"\r\n", "", 0);
	cr_assert_eq(put_if(true, NULL, &a), 0);
	cr_assert_eq(http_script_count(s3r.hs), 3);
	cr_assert_str_eq(s3r_header(0, "if-none-match"), "*");
}

/* --- deletions */

static int errs[4];

static int delete4(void)
{
	static const char *const paths[] = { "a", "b", "c", "d" };
	struct ufs_delete rq = { .paths = paths, .n = 4, .errs = errs };

	memset(errs, 1, sizeof(errs));
	return UFS_FIX_RUN(&s3r.f, delete, &rq);
}

Test(s3_write, deletions)
{
	s3r_reply("POST /b?delete=", 503, NULL, "", 1);
	s3r_reply("POST /b?delete=", 200, NULL, s3r_error_doc("InternalError"), 1);
	s3r_reply("POST /b?delete=", 200, NULL,
	    "<DeleteResult><Deleted><Key>p/d</Key></Deleted>"
	    "<Error><Key>p/a</Key><Code>AccessDenied</Code></Error>\n"
	    "<Error><Key>p/b</Key><Code>InternalError</Code></Error>"
	    "<Deleted><Key>nobody/asked</Key></Deleted></DeleteResult>", 1);
	/* One of which nothing is said, and one that is to be tried again. */
	s3r_reply("DELETE /b/p/b", 204, NULL, "", 1);
	s3r_reply("DELETE /b/p/c", 403, NULL, s3r_error_doc("AccessDenied"), 1);
	cr_assert_eq(delete4(), 0);
	cr_assert(errs[0] == -EACCES && errs[1] == 0 && errs[2] == -EACCES && errs[3] == 0,
	    "%d %d %d %d", errs[0], errs[1], errs[2], errs[3]);
	cr_assert_not_null(s3r_header(0, "content-md5"));
	cr_assert_not_null(strstr(http_script_get(s3r.hs, 0)->body, "<Object><Key>p/c</Key></Object>"));
	/* A storage that cannot. */
	s3r_reply("POST ", 501, NULL, "", 1);
	s3r_reply("DELETE ", 204, NULL, "", 0);
	cr_assert_eq(delete4(), 0);
	cr_assert_eq(errs[3], 0);
	cr_assert_eq(delete4(), 0);
	cr_assert_eq(http_script_count_of(s3r.hs, "POST "), 4);
	cr_assert_eq(http_script_count_of(s3r.hs, "DELETE "), 10);
}

Test(s3_write, deletions_that_fail)
{
	s3r_reply("POST ", 403, NULL, s3r_error_doc("AccessDenied"), 1);
	cr_assert_eq(delete4(), -EACCES);
	s3r_reply("POST ", 404, NULL, s3r_error_doc("NoSuchBucket"), 1);
	cr_assert_eq(delete4(), -EIO);
	/* It does not like the document. */
	s3r_reply("POST ", 400, NULL, s3r_error_doc("MalformedXML"), 1);
	s3r_reply("DELETE ", 204, NULL, "", 4);
	cr_assert_eq(delete4(), 0);
	cr_assert_eq(errs[0], 0);
	ufs_fix_set(&s3r.f, "ufs.timeout", "200ms");
	s3r_reply("POST ", 400, NULL, s3r_error_doc("MalformedXML"), 1);
	s3r_reply("DELETE ", 503, NULL, "", 0);
	cr_assert_eq(delete4(), -EIO);
	s3r_reply("POST ", 503, NULL, "", 0);
	cr_assert_eq(delete4(), -EIO);
}

Test(s3_write, one_deletion)
{
	const char *const paths[] = { "a" };
	int err = 1;
	struct ufs_delete rq = { .paths = paths, .n = 1, .errs = &err };
	struct ufs_rmdir rd = { .path = "d" };

	s3r_reply("DELETE /b/p/a", 204, NULL, "", 1);
	cr_assert_eq(UFS_FIX_RUN(&s3r.f, delete, &rq), 0);
	cr_assert_eq(err, 0);
	s3r_reply("DELETE /b/p/a", 404, NULL, s3r_error_doc("NoSuchKey"), 1);
	cr_assert_eq(UFS_FIX_RUN(&s3r.f, delete, &rq), 0);
	cr_assert_eq(err, 0);
	s3r_reply("DELETE /b/p/d/", 204, NULL, "", 1);
	cr_assert_eq(UFS_FIX_RUN(&s3r.f, rmdir, &rd), 0);
	cr_assert_eq(http_script_count(s3r.hs), 3);
}

Test(s3_write, not_here)
{
	struct ufs_rename rn = { .src = "a", .dst = "b" };
	struct ufs_setattr sa = { .path = "a" };

	cr_assert_eq(UFS_FIX_RUN(&s3r.f, rename, &rn), -EOPNOTSUPP);
	cr_assert_eq(UFS_FIX_RUN(&s3r.f, setattr, &sa), -EOPNOTSUPP);
	cr_assert_eq(http_script_count(s3r.hs), 0);
}
