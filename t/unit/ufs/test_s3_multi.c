/* SPDX-License-Identifier: BSD-2-Clause */
/* Uploads in parts to a scripted storage, and those that nobody ended. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"
#include "ufs/s3_priv.h"
#include "s3_rig.h"

TestSuite(s3_multi, .init = s3r_up, .fini = s3r_down);

Test(s3_multi, begin)
{
	struct ufs_multi_begin rq = { .path = "k" };

	s3r_reply("POST /b/p/k?uploads=", 200, NULL, s3r_error_doc("InternalError"), 1);
	s3r_reply("POST /b/p/k?uploads=", 200, NULL, "<InitiateMultipartUploadResult>", 1);
	s3r_reply("POST /b/p/k?uploads=", 200, NULL,
	    "<InitiateMultipartUploadResult xmlns=\"x\">\n <UploadId>a b/&amp;</UploadId>\n"
	    "</InitiateMultipartUploadResult>", 1);
	cr_assert_eq(UFS_FIX_RUN(&s3r.f, multi_begin, &rq), 0);
	cr_assert_str_eq(rq.id, "a b/&");
	cr_assert_eq(http_script_count(s3r.hs), 3);
	s3r_reply("POST ", 200, NULL, "<InitiateMultipartUploadResult/>", 1);
	cr_assert_eq(UFS_FIX_RUN(&s3r.f, multi_begin, &rq), -EIO);
	s3r_reply("POST ", 200, NULL, "<html/>", 1);
	cr_assert_eq(UFS_FIX_RUN(&s3r.f, multi_begin, &rq), -EIO);
	s3r_reply("POST ", 200, NULL, "<!DOCTYPE x><InitiateMultipartUploadResult/>", 1);
	cr_assert_eq(UFS_FIX_RUN(&s3r.f, multi_begin, &rq), -EIO);
	s3r_reply("POST ", 404, NULL, s3r_error_doc("NoSuchBucket"), 1);
	cr_assert_eq(UFS_FIX_RUN(&s3r.f, multi_begin, &rq), -EIO);
}

static int part(const char *src, const char *version)
{
	struct ufs_part rq = { .path = "k", .id = "a b/&", .number = 5, .len = 4,
		.body = src == NULL ? "part" : NULL, .src_path = src, .src_version = version,
		.src_off = 100 };
	int err = UFS_FIX_RUN(&s3r.f, part, &rq);

	cr_assert_eq(err == 0, strcmp(rq.etag, "e5") == 0);
	return err;
}

Test(s3_multi, parts)
{
	s3r_reply("PUT /b/p/k?partNumber=5&uploadId=a%20b%2F%26", 200, "ETag: \"e5\"\r\n", "", 1);
	cr_assert_eq(part(NULL, NULL), 0);
	s3r_reply("PUT ", 200, NULL, "", 1);
	cr_assert_eq(part(NULL, NULL), -EIO);
	s3r_reply("PUT ", 404, NULL, s3r_error_doc("NoSuchUpload"), 1);
	cr_assert_eq(part(NULL, NULL), -ENOENT);
	s3r_reply("PUT ", 404, NULL, s3r_error_doc("NoSuchKey"), 1);
	cr_assert_eq(part(NULL, NULL), -EIO);
	s3r_reply("PUT ", 403, NULL, s3r_error_doc("AccessDenied"), 1);
	cr_assert_eq(part(NULL, NULL), -EACCES);
}

#define PART_COPIED "<CopyPartResult><ETag>&quot;e5&quot;</ETag></CopyPartResult>"

Test(s3_multi, copied_parts)
{
	s3r_reply("PUT ", 200, NULL, s3r_error_doc("InternalError"), 1);
	s3r_reply("PUT ", 200, NULL, PART_COPIED, 1);
	s3r_reply("HEAD /b/p/s%20s", 200, "ETag: \"v1\"\r\n" S3R_DATE, "", 1);
	cr_assert_eq(part("s s", "v1"), 0);
	cr_assert_str_eq(s3r_header(0, "x-amz-copy-source"), "/b/p/s%20s");
	cr_assert_str_eq(s3r_header(0, "x-amz-copy-source-range"), "bytes=100-103");
	cr_assert_str_eq(s3r_header(0, "x-amz-copy-source-if-match"), "v1");
	/* A storage that ignores the condition. */
	s3r_reply("PUT ", 200, NULL, PART_COPIED, 1);
	s3r_reply("HEAD ", 200, "ETag: \"v2\"\r\n" S3R_DATE, "", 1);
	cr_assert_eq(part("s s", "v1"), -ESTALE);
	/* One that does not need looking after. */
	s3r_reply("PUT ", 412, NULL, s3r_error_doc("PreconditionFailed"), 1);
	s3r_reply("HEAD ", 200, "ETag: \"v2\"\r\n" S3R_DATE, "", 1);
	cr_assert_eq(part("s s", "v1"), -ESTALE);
	s3r_reply("PUT ", 200, NULL, PART_COPIED, 1);
	cr_assert_eq(part("s s", "v1"), 0);
	s3r_reply("PUT ", 404, NULL, s3r_error_doc("NoSuchKey"), 1);
	cr_assert_eq(part("s s", "v1"), -ESTALE);
	s3r_reply("PUT ", 404, NULL, s3r_error_doc("NoSuchUpload"), 1);
	cr_assert_eq(part("s s", "v1"), -ENOENT);
	/* A range that is not there (any more). */
	s3r_reply("PUT ", 400, NULL, s3r_error_doc("InvalidRange"), 1);
	s3r_reply("HEAD ", 200, "ETag: \"v2\"\r\n" S3R_DATE, "", 1);
	cr_assert_eq(part("s s", "v1"), -ESTALE);
	s3r_reply("PUT ", 400, NULL, s3r_error_doc("InvalidRequest"), 1);
	s3r_reply("HEAD ", 200, "ETag: \"v1\"\r\n" S3R_DATE, "", 1);
	cr_assert_eq(part("s s", "v1"), -EINVAL);
	s3r_reply("PUT ", 501, NULL, s3r_error_doc("NotImplemented"), 1);
	cr_assert_eq(part("s s", "v1"), -EOPNOTSUPP);
	s3r_reply("PUT ", 200, NULL, "<CopyPartResult/>", 1);
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
	err = UFS_FIX_RUN(&s3r.f, multi_end, &rq);
	end_attr = rq.attr;
	return err;
}

Test(s3_multi, end)
{
	s3r_reply("POST /b/p/k?uploadId=i", 200, NULL, s3r_error_doc("InternalError"), 1);
	s3r_reply("POST /b/p/k?uploadId=i", 200, NULL, "<CompleteMultipartUploadResult><ET", 1);
	s3r_reply("POST /b/p/k?uploadId=i", 200, NULL, ENDED, 1);
	cr_assert_eq(end_with(E1, false, NULL), 0);
	cr_assert_str_eq(end_attr.version, E12);
	cr_assert_eq(end_attr.size, 4);
	cr_assert_not_null(strstr(http_script_get(s3r.hs, 0)->body,
	    "<Part><PartNumber>7</PartNumber><ETag>\"" E1 "\"</ETag></Part>"));
	s3r_reply("POST ", 200, NULL, s3r_error_doc("AccessDenied"), 1);
	cr_assert_eq(end_with(E1, false, NULL), -EACCES);
	/* radosgw's first. */
	s3r_reply("POST ", 200, NULL,
	    "<CompleteMultipartUploadResult><ETag></ETag></CompleteMultipartUploadResult>", 1);
	s3r_reply("HEAD ", 200, "ETag: \"" E12 "\"\r\n" S3R_DATE, "four", 1);
	cr_assert_eq(end_with(E1, false, NULL), 0);
	cr_assert_str_eq(end_attr.version, E12);
	s3r_reply("POST ", 400, NULL, s3r_error_doc("InvalidPart"), 1);
	cr_assert_eq(end_with(E1, false, NULL), -EINVAL);
}

Test(s3_multi, end_of_an_upload_that_is_gone)
{
	/* By our own doing. */
	s3r_reply("POST ", 404, NULL, s3r_error_doc("NoSuchUpload"), 1);
	s3r_reply("HEAD ", 200, "ETag: \"" E12 "\"\r\n" S3R_DATE, "four", 1);
	cr_assert_eq(end_with(E1, false, NULL), 0);
	cr_assert_str_eq(end_attr.version, E12);
	/* Of an older object nothing follows, as long as it may be. */
	s3r_reply("POST ", 404, NULL, s3r_error_doc("NoSuchUpload"), 1);
	s3r_reply("HEAD ", 200, "ETag: \"older-2\"\r\n" S3R_DATE, "four", 1);
	cr_assert_eq(end_with(E1, false, NULL), -ENOENT);
	s3r_reply("POST ", 404, NULL, s3r_error_doc("NoSuchUpload"), 1);
	s3r_reply("HEAD ", 404, NULL, "", 1);
	cr_assert_eq(end_with(E1, false, NULL), -ENOENT);
	s3r_reply("POST ", 404, NULL, s3r_error_doc("NoSuchUpload"), 1);
	s3r_reply("HEAD ", 200, "ETag: \"kms-2\"\r\n" S3R_DATE, "four", 1);
	cr_assert_eq(end_with("no-md5", false, NULL), -ENOENT);
	/* ETags that say nothing, but an attempt that may have worked. */
	s3r_reply("POST ", 500, NULL, "", 1);
	s3r_reply("POST ", 404, NULL, s3r_error_doc("NoSuchUpload"), 1);
	s3r_reply("HEAD ", 200, "ETag: \"kms-2\"\r\n" S3R_DATE, "four", 1);
	cr_assert_eq(end_with("no-md5", false, NULL), 0);
	cr_assert_str_eq(end_attr.version, "kms-2");
	s3r_reply("POST ", 500, NULL, "", 1);
	s3r_reply("POST ", 404, NULL, s3r_error_doc("NoSuchUpload"), 1);
	s3r_reply("HEAD ", 200, "ETag: \"kms-3\"\r\n" S3R_DATE, "four", 1);
	cr_assert_eq(end_with("no-md5", false, NULL), -ENOENT);
}

/* radosgw says 500 of an upload that is not there. */
Test(s3_multi, end_that_never_succeeds)
{
	s3r_reply("POST ", 500, NULL, s3r_error_doc("InternalError"), 0);
	s3r_reply("GET /b/p/k?max-parts=1&uploadId=i", 404, NULL, s3r_error_doc("NoSuchUpload"), 2);
	s3r_reply("HEAD ", 200, "ETag: \"" E12 "\"\r\n" S3R_DATE, "four", 1);
	cr_assert_eq(end_with(E1, false, NULL), 0);
	s3r_reply("HEAD ", 404, NULL, "", 1);
	cr_assert_eq(end_with(E1, false, NULL), -ENOENT);
	/* It is there: go on until ufs.timeout. */
	s3r_reply("GET ", 200, NULL, "<ListPartsResult/>", 0);
	ufs_fix_set(&s3r.f, "ufs.timeout", "300ms");
	cr_assert_eq(end_with(E1, false, NULL), -EIO);
	cr_assert_gt(http_script_count_of(s3r.hs, "POST "), 12);
}

Test(s3_multi, end_with_conditions)
{
	s3r_reply("HEAD ", 404, NULL, "", 1);
	s3r_reply("POST ", 501, NULL, s3r_error_doc("NotImplemented"), 1);
	s3r_reply("POST ", 200, NULL, ENDED, 1);
	cr_assert_eq(end_with(E1, true, NULL), 0);
	cr_assert_str_eq(s3r_header(1, "if-none-match"), "*");
	cr_assert_null(s3r_header(2, "if-none-match"));
	cr_assert_eq(ufs_can(s3r.f.ufs), UFS_CAN_ABSENT, "it is about PUT");
	s3r_reply("HEAD ", 200, "ETag: \"v1\"\r\n" S3R_DATE, "", 1);
	cr_assert_eq(end_with(E1, true, NULL), -EEXIST);
	s3r_reply("HEAD ", 200, "ETag: \"v1\"\r\n" S3R_DATE, "", 1);
	cr_assert_eq(end_with(E1, false, "v2"), -ESTALE);
	/* Somebody is faster. */
	s3r_reply("HEAD ", 404, NULL, "", 1);
	s3r_reply("POST ", 412, NULL, s3r_error_doc("PreconditionFailed"), 1);
	s3r_reply("HEAD ", 200, "ETag: \"v1\"\r\n" S3R_DATE, "", 1);
	cr_assert_eq(end_with(E1, true, NULL), -EEXIST);
	/* We ourselves were. */
	s3r_reply("HEAD ", 404, NULL, "", 1);
	s3r_reply("POST ", 412, NULL, s3r_error_doc("PreconditionFailed"), 1);
	s3r_reply("HEAD ", 200, "ETag: \"" E12 "\"\r\n" S3R_DATE, "four", 1);
	cr_assert_eq(end_with(E1, true, NULL), 0);
}

Test(s3_multi, multi_abort)
{
	struct ufs_multi_abort rq = { .path = "k", .id = "i" };

	s3r_reply("DELETE /b/p/k?uploadId=i", 500, NULL, "", 1);
	s3r_reply("DELETE /b/p/k?uploadId=i", 204, NULL, "", 1);
	cr_assert_eq(UFS_FIX_RUN(&s3r.f, multi_abort, &rq), 0);
	s3r_reply("DELETE ", 404, NULL, s3r_error_doc("NoSuchUpload"), 1);
	cr_assert_eq(UFS_FIX_RUN(&s3r.f, multi_abort, &rq), 0);
	s3r_reply("DELETE ", 403, NULL, s3r_error_doc("AccessDenied"), 1);
	cr_assert_eq(UFS_FIX_RUN(&s3r.f, multi_abort, &rq), -EACCES);
}

/* --- Left by daemons that were killed */

#define LISTED(key, id, when)                                                                      \
	"<Upload><Key>" key "</Key><UploadId>" id "</UploadId><Initiator><ID>me</ID></Initiator>"   \
	"<Initiated>" when "</Initiated></Upload>"
#define LIST(more, ...)                                                                            \
	"<ListMultipartUploadsResult><Bucket>b</Bucket><IsTruncated>" more "</IsTruncated>"        \
	__VA_ARGS__ "</ListMultipartUploadsResult>"

static int sweep(struct ufs_multi_sweep *rq)
{
	static const char *const keep[] = { "known" };
	uint64_t wall = loop_wall(s3r.f.loop);

	memset(rq, 0, sizeof(*rq));
	rq->path = "k&l";
	rq->since_ns = wall;
	rq->keep = keep;
	rq->nkeep = 1;
	return UFS_FIX_RUN(&s3r.f, multi_sweep, rq);
}

Test(s3_multi, sweep)
{
	struct ufs_multi_sweep rq;

	s3r_reply("GET /b?prefix=p%2Fk%26l&uploads=", 500, NULL, s3r_error_doc("InternalError"), 1);
	s3r_reply("GET /b?prefix=p%2Fk%26l&uploads=", 200, NULL,
	    LIST("false", LISTED("p/k&amp;l", "one", "2999-01-01T00:00:00.000Z")), 1);
	s3r_reply("DELETE /b/p/k%26l?uploadId=one", 204, NULL, "", 1);
	cr_assert_eq(sweep(&rq), 0);
	cr_assert_eq(rq.found, 1);
	cr_assert_eq(http_script_count(s3r.hs), 3);
}

Test(s3_multi, sweep_leaves_all_others)
{
	struct ufs_multi_sweep rq;

	s3r_reply("GET ", 200, NULL,
	    LIST("true", LISTED("p/k&amp;l", "known", "2999-01-01T00:00:00Z")
		LISTED("p/k&amp;l", "old", "2001-01-01T00:00:00Z")
		LISTED("p/k&amp;l", "when", "yesterday") LISTED("p/k&amp;l", "", "2999-01-01T00:00:00Z")
		LISTED("p/k&amp;l2", "longer", "2999-01-01T00:00:00Z")
		LISTED("k&amp;l", "elsewhere", "2999-01-01T00:00:00Z")),
	    1);
	cr_assert_eq(sweep(&rq), 0);
	cr_assert_eq(rq.found, 0);
	cr_assert_eq(http_script_count(s3r.hs), 1);
}

/* What was begun before we asked is not of ours, whatever the storage's clock says. */
Test(s3_multi, sweep_knows_the_clock_of_the_storage)
{
	time_t now = (time_t)(loop_wall(s3r.f.loop) / NS_PER_S);
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
	s3r_reply("GET ", 200, date, doc, 1);
	s3r_reply("DELETE /b/p/k%26l?uploadId=late", 404, NULL, s3r_error_doc("NoSuchUpload"), 1);
	cr_assert_eq(sweep(&rq), 0);
	cr_assert_eq(rq.found, 0);
	cr_assert_eq(http_script_count(s3r.hs), 2);
}

Test(s3_multi, sweep_goes_on_while_it_finds_some)
{
	struct ufs_multi_sweep rq;

	for (unsigned i = 0; i < 2; i++) {
		s3r_reply("GET ", 200, NULL,
		    LIST("true", LISTED("p/k&amp;l", "a", "2999-01-01T00:00:00Z")
			LISTED("p/k&amp;l", "b", "2999-01-01T00:00:00Z")),
		    1);
		s3r_reply("DELETE ", 204, NULL, "", 2);
	}
	s3r_reply("GET ", 200, NULL, LIST("false", ""), 1);
	cr_assert_eq(sweep(&rq), 0);
	cr_assert_eq(rq.found, 4);
}

Test(s3_multi, sweep_fails)
{
	struct ufs_multi_sweep rq;

	s3r_reply("GET ", 403, NULL, s3r_error_doc("AccessDenied"), 1);
	cr_assert_eq(sweep(&rq), -EACCES);
	s3r_reply("GET ", 501, NULL, s3r_error_doc("NotImplemented"), 1);
	cr_assert_eq(sweep(&rq), -EOPNOTSUPP);
	s3r_reply("GET ", 405, NULL, "", 1);
	cr_assert_eq(sweep(&rq), -EOPNOTSUPP);
	s3r_reply("GET ", 404, NULL, s3r_error_doc("NoSuchBucket"), 1);
	cr_assert_eq(sweep(&rq), -EIO);
	s3r_reply("GET ", 200, NULL, "<html/>", 1);
	cr_assert_eq(sweep(&rq), -EIO);
	s3r_reply("GET ", 200, NULL,
	    LIST("false", LISTED("p/k&amp;l", "a", "2999-01-01T00:00:00Z")), 1);
	s3r_reply("DELETE ", 403, NULL, s3r_error_doc("AccessDenied"), 1);
	cr_assert_eq(sweep(&rq), -EACCES);
}
