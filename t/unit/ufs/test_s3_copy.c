/* SPDX-License-Identifier: BSD-2-Clause */
/* Copies within a scripted storage, whole and in parts. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"
#include "ufs/s3_priv.h"
#include "s3_rig.h"

TestSuite(s3_copy, .init = s3r_up, .fini = s3r_down);

#define E1 "5f363e0e58a95f06cbe9bbc662c5dfb6"

static struct ufs_attr copy_attr;

static int copy(uint64_t size)
{
	struct ufs_copy rq = { .src = "s", .dst = "k", .src_version = "v1", .size = size };
	int err = UFS_FIX_RUN(&s3r.f, copy, &rq);

	copy_attr = rq.attr;
	return err;
}

static unsigned begun_times;
static int begun_err;

static int copy_begun(struct ufs_copy *rq)
{
	cr_assert_str_eq(rq->id, "i");
	begun_times++;
	return begun_err;
}

static int copy_parts(uint64_t size, bool gone)
{
	struct ufs_copy rq = { .src = "s", .dst = "k", .src_version = "v1", .size = size,
		.begun = copy_begun };
	int err = UFS_FIX_RUN(&s3r.f, copy, &rq);

	cr_assert(rq.gone == gone && !rq.repeated);
	copy_attr = rq.attr;
	return err;
}

#define COPIED(etag) "<CopyObjectResult><ETag>\"" etag "\"</ETag></CopyObjectResult>"

Test(s3_copy, copies)
{
	s3r_reply("PUT /b/p/k", 200, NULL, s3r_error_doc("SlowDown"), 1);
	s3r_reply("PUT /b/p/k", 200, NULL, "  \n", 1);
	s3r_reply("PUT /b/p/k", 200, NULL, COPIED("v1"), 1);
	cr_assert_eq(copy(4), 0);
	cr_assert(copy_attr.size == 4 && strcmp(copy_attr.version, "v1") == 0);
	cr_assert_eq(http_script_count(s3r.hs), 3);
	/* As what it was copied says nothing of what it was. */
	s3r_reply("PUT ", 200, NULL, COPIED("new"), 1);
	s3r_reply("HEAD /b/p/s", 200, "ETag: \"v1\"\r\n" S3R_DATE, "", 1);
	cr_assert_eq(copy(4), 0);
	cr_assert_str_eq(copy_attr.version, "new");
	s3r_reply("PUT ", 200, NULL, COPIED("new"), 1);
	s3r_reply("HEAD /b/p/s", 200, "ETag: \"v2\"\r\n" S3R_DATE, "", 1);
	cr_assert_eq(copy(4), -ESTALE);
	s3r_reply("PUT ", 200, NULL, "<CopyObjectResult/>", 1);
	s3r_reply("HEAD /b/p/s", 200, "ETag: \"v1\"\r\n" S3R_DATE, "", 1);
	s3r_reply("HEAD /b/p/k", 200, "ETag: \"new\"\r\n" S3R_DATE, "four", 1);
	cr_assert_eq(copy(4), 0);
	cr_assert_str_eq(copy_attr.version, "new");
	s3r_reply("PUT ", 404, NULL, s3r_error_doc("NoSuchKey"), 1);
	cr_assert_eq(copy(4), -ENOENT);
	s3r_reply("PUT ", 403, NULL, s3r_error_doc("AccessDenied"), 1);
	cr_assert_eq(copy(4), -EACCES);
	s3r_reply("PUT ", 200, NULL, s3r_error_doc("NoSuchKey"), 1);
	cr_assert_eq(copy(4), -ENOENT);
}

static const char src_head[] = "ETag: \"v1\"\r\n" S3R_DATE
	"Content-Type: text/x\r\nX-Amz-Meta-A: one\r\n"
	"x-amz-meta-b: two  three\r\nServer: any\r\n";

/* A storage where copies in parts work, but for what `bad` says. */
struct parts_storage {
	unsigned bad_part;
	const char *bad_code; /* 404; NULL: it is refused */
	const char *end_code; /* of the end */
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
			status = s->bad_code != NULL ? 404 : 403;
			body = s3r_error_doc(s->bad_code != NULL ? s->bad_code : "AccessDenied");
		}
	} else if (s->end_code != NULL) {
		status = 400;
		body = s3r_error_doc(s->end_code);
	} else {
		body = "<CompleteMultipartUploadResult><ETag>x-5</ETag></CompleteMultipartUploadResult>";
	}
	out->raw = http_script_format(status, head, body, strlen(body), &out->raw_len, NULL);
	return true;
}

static void turn_until(const unsigned *value, unsigned n)
{
	while (*(const volatile unsigned *)value < n)
		(void)loop_turn(s3r.f.loop, false);
}

Test(s3_copy, copies_in_parts)
{
	struct parts_storage s = { 0 };
	struct ufs_copy rq = { .req.user = &s3r.f, .src = "s", .dst = "k", .src_version = "v1",
		.size = 20 * MIB + 1, .begun = copy_begun };
	struct s3 *s3 = S3_OF(s3r.f.ufs);

	s3->copy_max = 10 * MIB;
	s3->copy_part = 5 * MIB;
	http_script_set_handler(s3r.hs, parts_storage, &s);
	cr_assert_eq(copy(20 * MIB + 1), -E2BIG);
	cr_assert_eq(http_script_count(s3r.hs), 0);
	cr_assert_eq(copy_parts(20 * MIB + 1, false), 0);
	cr_assert_eq(begun_times, 1);
	cr_assert_str_eq(copy_attr.version, "x-5");
	cr_assert(s.parts == 5 && s.drops == 0);
	cr_assert_str_eq(s3r_header(1, "content-type"), "text/x");
	cr_assert_str_eq(s3r_header(1, "x-amz-meta-a"), "one");
	cr_assert_str_eq(s3r_header(1, "x-amz-meta-b"), "two  three");
	cr_assert_null(s3r_header(1, "etag"));
	cr_assert_eq(copy_parts(20 * MIB + 2, false), -ESTALE); /* another size */
	cr_assert_eq(begun_times, 1);
	/* What takes too long at once is to be done in parts. */
	s3->copy_max = 100 * MIB;
	s.silent = true;
	ufs_fix_set(&s3r.f, "ufs.timeout", "1s");
	cr_assert_eq(copy(20 * MIB + 1), -E2BIG);
	ufs_fix_set(&s3r.f, "ufs.timeout", "30s");
	s3->copy_max = 10 * MIB;
	/* When it fails the upload is the user's. */
	s.parts = 0;
	begun_err = -ENOSPC;
	cr_assert_eq(copy_parts(20 * MIB + 1, false), -ENOSPC);
	cr_assert_eq(s.parts, 0);
	begun_err = 0;
	s.bad_part = 4;
	cr_assert_eq(copy_parts(20 * MIB + 1, false), -EACCES);
	s.bad_code = "NoSuchUpload";
	cr_assert_eq(copy_parts(20 * MIB + 1, true), -EIO);
	s.bad_code = "NoSuchKey";
	cr_assert_eq(copy_parts(20 * MIB + 1, false), -ESTALE);
	s.bad_part = 0;
	s.end_code = "InvalidPart";
	cr_assert_eq(copy_parts(20 * MIB + 1, true), -EIO);
	s.end_code = NULL;
	/* Given up under way, too. */
	s.parts = 0;
	ufs_copy(s3r.f.ufs, &rq, ufs_fix_done);
	turn_until(&s.parts, 1);
	if (!s3r.f.done)
		ufs_abort(&rq.req);
	s3r.f.done = false;
	cr_assert_eq(s.drops, 0);
	http_script_set_handler(s3r.hs, NULL, NULL);
}
