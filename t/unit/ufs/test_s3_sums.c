/* SPDX-License-Identifier: BSD-2-Clause */
/* Checksums of what is sent, and storages that know them, ignore them or refuse them. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "ufs/s3_priv.h"
#include "s3_rig.h"

TestSuite(s3_sums, .init = s3r_up, .fini = s3r_down);

/* "123456789" has the CRC32C that all descriptions of it give: e3069283. */
#define BODY "123456789"
#define SUM "4waSgw=="
#define OK "ETag: \"v1\"\r\n"
#define OK_SUM OK S3_SUM_HEADER ": " SUM "\r\n"

static int put(bool absent)
{
	struct ufs_put rq = { .path = "k", .body = BODY, .len = 9, .absent = absent,
		.sum = { .have = true, .crc32c = checksum_crc32c(BODY, 9) } };

	return UFS_FIX_RUN(&s3r.f, put, &rq);
}

Test(s3_sums, a_put_is_sent_with_its_sum_and_signed)
{
	s3r_reply("PUT ", 200, OK_SUM, "", 1);
	cr_assert_eq(put(false), 0);
	cr_assert_str_eq(s3r_header(0, S3_SUM_HEADER), SUM);
	cr_assert_not_null(strstr(s3r_header(0, "authorization"), S3_SUM_HEADER));
	s3r_reply("PUT ", 200, OK, "", 1);
	cr_assert_eq(put(false), 0, "a storage that says nothing of it");
	cr_assert_str_eq(s3r_header(1, S3_SUM_HEADER), SUM);
}

Test(s3_sums, an_answer_with_another_sum)
{
	s3r_reply("PUT ", 200, OK S3_SUM_HEADER ": AAAAAA==\r\n", "", 1);
	cr_assert_eq(put(false), -EBADMSG);
	cr_assert_eq(http_script_count(s3r.hs), 1);
}

Test(s3_sums, bytes_that_do_not_arrive_as_they_are)
{
	s3r_reply("PUT ", 400, NULL, s3r_error_doc("BadDigest"), 1);
	s3r_reply("PUT ", 200, OK_SUM, "", 1);
	cr_assert_eq(put(false), 0, "once may be the way");
	s3r_reply("PUT ", 400, NULL, s3r_error_doc("BadDigest"), 0);
	cr_assert_eq(put(false), -EBADMSG);
	cr_assert_eq(http_script_count(s3r.hs), 5);
	cr_assert_not_null(s3r_header(4, S3_SUM_HEADER));
	http_script_clear(s3r.hs);
	s3r_reply("PUT ", 400, NULL, s3r_error_doc("XAmzContentChecksumMismatch"), 0);
	cr_assert_eq(put(true), -EBADMSG);
}

Test(s3_sums, a_storage_that_refuses_is_not_asked_again)
{
	static const struct {
		int status;
		const char *code;
	} ways[] = { { 400, "InvalidArgument" }, { 400, "InvalidRequest" }, { 501, "NotImplemented" },
		{ 400, "" } };

	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		unsigned n = http_script_count(s3r.hs);

		S3_OF(s3r.f.ufs)->no_sums = false;
		s3r_reply("PUT ", ways[i].status, NULL, s3r_error_doc(ways[i].code), 1);
		s3r_reply("PUT ", 200, OK, "", 2);
		cr_assert_eq(put(i % 2 != 0), 0);
		cr_assert_eq(put(false), 0);
		cr_assert_eq(http_script_count(s3r.hs), n + 3);
		cr_assert_not_null(s3r_header(n, S3_SUM_HEADER));
		cr_assert_null(s3r_header(n + 1, S3_SUM_HEADER));
		cr_assert_null(s3r_header(n + 2, S3_SUM_HEADER));
		cr_assert((s3r.f.ufs->can & UFS_CAN_ABSENT) != 0);
	}
}

Test(s3_sums, another_refusal_does_not_count)
{
	s3r_reply("PUT ", 400, NULL, s3r_error_doc("InvalidArgument"), 2);
	cr_assert_eq(put(false), -EIO);
	s3r_reply("PUT ", 403, NULL, s3r_error_doc("AccessDenied"), 1);
	cr_assert_eq(put(false), -EACCES);
	cr_assert_eq(http_script_count(s3r.hs), 3);
	s3r_reply("PUT ", 200, OK, "", 1);
	cr_assert_eq(put(false), 0);
	cr_assert_not_null(s3r_header(3, S3_SUM_HEADER));
}

Test(s3_sums, a_storage_without_conditions_may_have_sums)
{
	s3r_reply("PUT ", 501, NULL, s3r_error_doc("NotImplemented"), 2);
	s3r_reply("HEAD ", 404, NULL, "", 1);
	s3r_reply("PUT ", 200, OK_SUM, "", 1);
	cr_assert_eq(put(true), 0);
	cr_assert_eq(http_script_count(s3r.hs), 4);
	cr_assert_null(s3r_header(1, S3_SUM_HEADER));
	cr_assert_not_null(s3r_header(1, "if-none-match"));
	cr_assert_not_null(s3r_header(3, S3_SUM_HEADER));
	cr_assert_null(s3r_header(3, "if-none-match"));
	cr_assert(!S3_OF(s3r.f.ufs)->no_sums);
}

/* --- in parts */

#define BEGUN "<InitiateMultipartUploadResult><UploadId>i</UploadId></InitiateMultipartUploadResult>"

static int begin(bool *sums)
{
	struct ufs_multi_begin rq = { .path = "k", .sums = *sums };
	int err = UFS_FIX_RUN(&s3r.f, multi_begin, &rq);

	*sums = rq.sums;
	return err;
}

Test(s3_sums, an_upload_says_that_sums_will_come)
{
	bool sums = true;

	s3r_reply("POST ", 200, NULL, BEGUN, 2);
	cr_assert_eq(begin(&sums), 0);
	cr_assert(sums);
	cr_assert_str_eq(s3r_header(0, "x-amz-checksum-algorithm"), "CRC32C");
	sums = false;
	cr_assert_eq(begin(&sums), 0);
	cr_assert(!sums);
	cr_assert_null(s3r_header(1, "x-amz-checksum-algorithm"));
	s3r_reply("POST ", 400, NULL, s3r_error_doc("InvalidArgument"), 1);
	s3r_reply("POST ", 200, NULL, BEGUN, 2);
	sums = true;
	cr_assert_eq(begin(&sums), 0);
	cr_assert(!sums);
	sums = true;
	cr_assert_eq(begin(&sums), 0);
	cr_assert(!sums);
	cr_assert_eq(http_script_count(s3r.hs), 5);
	cr_assert_null(s3r_header(3, "x-amz-checksum-algorithm"));
	cr_assert_null(s3r_header(4, "x-amz-checksum-algorithm"));
}

static int part(void)
{
	struct ufs_part rq = { .path = "k", .id = "i", .number = 1, .len = 9, .body = BODY,
		.sum = { .have = true, .crc32c = checksum_crc32c(BODY, 9) } };

	return UFS_FIX_RUN(&s3r.f, part, &rq);
}

Test(s3_sums, parts_have_sums)
{
	bool sums = true;

	s3r_reply("PUT ", 200, OK_SUM, "", 1);
	cr_assert_eq(part(), 0);
	cr_assert_str_eq(s3r_header(0, S3_SUM_HEADER), SUM);
	s3r_reply("PUT ", 200, OK S3_SUM_HEADER ": AAAAAA==\r\n", "", 1);
	cr_assert_eq(part(), -EBADMSG);
	s3r_reply("PUT ", 400, NULL, s3r_error_doc("BadDigest"), 3);
	cr_assert_eq(part(), -EBADMSG);
	s3r_reply("PUT ", 400, NULL, s3r_error_doc("InvalidRequest"), 1);
	cr_assert_eq(part(), -ENOENT, "another upload is to be begun");
	s3r_reply("POST ", 200, NULL, BEGUN, 1);
	cr_assert_eq(begin(&sums), 0);
	cr_assert(!sums);
}

#define E1 "5f363e0e58a95f06cbe9bbc662c5dfb6"
#define E11 "bb4d4b3a52c5b9b3c15a7e7cbbd6d3f8-2"

static int end(void)
{
	struct ufs_sum sum = { .have = true, .crc32c = checksum_crc32c(BODY, 9) };
	struct ufs_part_id parts[] = { { .number = 1, .len = 9, .etag = E1, .sum = sum },
		{ .number = 2, .len = 9, .etag = E1, .sum = sum } };
	struct ufs_multi_end rq = { .path = "k", .id = "i", .parts = parts, .nparts = 2 };

	return UFS_FIX_RUN(&s3r.f, multi_end, &rq);
}

static const char *ended(const char *sum)
{
	static char doc[256];

	(void)snprintf(doc, sizeof(doc),
	    "<CompleteMultipartUploadResult><ETag>\"" E11 "\"</ETag>"
	    "<ChecksumCRC32C>%s</ChecksumCRC32C></CompleteMultipartUploadResult>", sum);
	return doc;
}

Test(s3_sums, the_end_repeats_them)
{
	/* Of the bytes e3 06 92 83 twice. */
	static const unsigned char both[] = { 0xe3, 6, 0x92, 0x83, 0xe3, 6, 0x92, 0x83 };
	char whole[S3_SUM_TEXT + 2];
	unsigned n = 0;
	const char *p;

	s3_sum_text(checksum_crc32c(both, sizeof(both)), whole);
	strcat(whole, "-2");
	s3r_reply("POST ", 200, NULL, ended(whole), 1);
	cr_assert_eq(end(), 0);
	p = http_script_get(s3r.hs, 0)->body;
	while ((p = strstr(p, "</ETag><ChecksumCRC32C>" SUM "</ChecksumCRC32C></Part>")) != NULL) {
		p++;
		n++;
	}
	cr_assert_eq(n, 2);
	s3r_reply("POST ", 200, NULL, ended("AAAAAA==-2"), 1);
	cr_assert_eq(end(), -EBADMSG);
	s3r_reply("POST ", 200, NULL, ended("AAAAAA=="), 1);
	cr_assert_eq(end(), 0, "a sum of the whole");
	s3r_reply("POST ", 400, NULL, s3r_error_doc("MalformedXML"), 1);
	s3r_reply("POST ", 200, NULL, ended(""), 1);
	cr_assert_eq(end(), 0);
	cr_assert_null(strstr(http_script_get(s3r.hs, 4)->body, "Checksum"));
}
