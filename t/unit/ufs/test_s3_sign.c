/* SPDX-License-Identifier: BSD-2-Clause */
/* Signatures and sums against values that others have published or computed. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../../lib/nth_fault.h"
#include "ufs/s3_priv.h"
#include "ufs_fix.h"

TestSuite(s3_sign, .init = ufs_fix_limit);

#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static struct s3_sign example(const char *method, const char *url, const struct http_header *h,
    unsigned n)
{
	return (struct s3_sign){
		.method = method,
		.url = url,
		.access = "AKIAIOSFODNN7EXAMPLE",
		.secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
		.region = "us-east-1",
		.stamp = "20130524T000000Z",
		.headers = h,
		.nheaders = n,
	};
}

static void expect(const struct s3_sign *s, const char *names, const char *signature)
{
	struct s3_sign_key key = { 0 };
	char want[512], *got;

	(void)snprintf(want, sizeof(want),
	    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
	    "SignedHeaders=%s, Signature=%s",
	    names, signature);
	for (int i = 0; i < 2; i++) { /* the second with the key of the day kept */
		cr_assert_eq(s3_sign(&key, s, &got), 0);
		cr_assert_str_eq(got, want);
		free(got);
	}
}

/* The examples of the service's own documentation. */
Test(s3_sign, published_examples)
{
	const struct http_header get[] = { { "Range", "bytes=0-9" },
		{ "x-amz-content-sha256", EMPTY_SHA256 }, { "x-amz-date", "20130524T000000Z" } };
	const struct http_header put[] = { { "Date", "Fri, 24 May 2013 00:00:00 GMT" },
		{ "x-amz-date", "20130524T000000Z" },
		{ "x-amz-storage-class", "REDUCED_REDUNDANCY" },
		{ "x-amz-content-sha256",
		    "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072" } };
	struct s3_sign s;

	s = example("GET", "https://examplebucket.s3.amazonaws.com/test.txt", get, 3);
	expect(&s, "host;range;x-amz-content-sha256;x-amz-date",
	    "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
	s = example("PUT", "https://ExampleBucket.s3.amazonaws.com:443/test%24file.text", put, 4);
	expect(&s, "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
	    "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
	s = example("GET", "https://examplebucket.s3.amazonaws.com/?lifecycle=", get + 1, 2);
	expect(&s, "host;x-amz-content-sha256;x-amz-date",
	    "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
	s = example(
	    "GET", "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J", get + 1, 2);
	expect(&s, "host;x-amz-content-sha256;x-amz-date",
	    "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

static char *signed_with(const struct http_header *h, unsigned n, const char *url)
{
	struct s3_sign_key key = { 0 };
	struct s3_sign s = example("PUT", url, h, n);
	char *got;

	cr_assert_eq(s3_sign(&key, &s, &got), 0);
	return got;
}

/* The order is that of the names, whatever stands behind them; spaces count once; a
 * port counts unless it is the scheme's own. */
Test(s3_sign, canonical_form)
{
	const struct http_header a[] = { { "x-amz-copy-source-range", "bytes=0-1" },
		{ "x-amz-copy-source", "/b/k" } };
	const struct http_header b[] = { { "X-Amz-Copy-Source", "  /b/k " },
		{ "x-amz-copy-source-range", "bytes=0-1" } };
	const struct http_header c[] = { { "x-amz-meta-a", "one  two" } };
	const struct http_header d[] = { { "x-amz-meta-a", "one two" } };
	char *x = signed_with(a, 2, "http://h/b/k"), *y = signed_with(b, 2, "http://h:80/b/k");

	cr_assert_str_eq(x, y);
	cr_assert_not_null(strstr(x, "host;x-amz-copy-source;x-amz-copy-source-range,"));
	free(x);
	free(y);
	x = signed_with(c, 1, "http://[::1]:443/b");
	y = signed_with(d, 1, "http://[::1]:443/b");
	cr_assert_str_eq(x, y);
	free(y);
	y = signed_with(d, 1, "http://[::1]/b");
	cr_assert_str_neq(x, y);
	free(x);
	free(y);
}

Test(s3_sign, another_day_and_other_keys)
{
	struct s3_sign s = example("GET", "http://h/", NULL, 0);
	struct s3_sign_key key = { 0 }, fresh = { 0 };
	char *a, *b;

	cr_assert_eq(s3_sign(&key, &s, &a), 0);
	free(a);
	strcpy(s.stamp, "20130525T000000Z");
	cr_assert_eq(s3_sign(&key, &s, &a), 0);
	cr_assert_eq(s3_sign(&fresh, &s, &b), 0);
	cr_assert_str_eq(a, b);
	free(a);
	free(b);
	s.secret = "another";
	s.generation++;
	memset(&fresh, 0, sizeof(fresh));
	cr_assert_eq(s3_sign(&key, &s, &a), 0);
	cr_assert_eq(s3_sign(&fresh, &s, &b), 0);
	cr_assert_str_eq(a, b);
	free(a);
	free(b);
}

Test(s3_sign, out_of_memory)
{
	struct s3_sign s = example("GET", "http://h/", NULL, 0);
	struct s3_sign_key key = { 0 };
	char *right, *got;
	unsigned n = 1;

	cr_assert_eq(s3_sign(&key, &s, &right), 0);
	/* With the key kept: OpenSSL does not survive each failure in its first use. */
	for (bool fired = true; fired; n++) {
		int err;

		nth_arm(n);
		err = s3_sign(&key, &s, &got);
		fired = nth_fired();
		cr_assert(err == 0 || (fired && err == -ENOMEM), "%u: %d", n, err);
		cr_assert(err == 0 ? strcmp(got, right) == 0 : got == NULL, "%u", n);
		free(got);
	}
	cr_assert_gt(n, 3);
	free(right);
}

Test(s3_sign, sums)
{
	struct ufs_part_id parts[] = {
		{ .number = 1, .len = 5242880, .etag = "5f363e0e58a95f06cbe9bbc662c5dfb6" },
		{ .number = 2, .len = 5242880, .etag = "5f363e0e58a95f06cbe9bbc662c5dfb6" } };
	char text[25], etag[UFS_VERSION_MAX];

	cr_assert(s3_md5_base64("abc", 3, text));
	cr_assert_str_eq(text, "kAFQmDzST7DWlj99KOF/cg==");
	cr_assert(s3_multi_etag(parts, 2, etag));
	cr_assert_str_eq(etag, "a7d414b9133d6483d9a1c4e04e856e3b-2");
	strcpy(parts[1].etag, "5f363e0e58a95f06cbe9bbc662c5dfb6-1");
	cr_assert_not(s3_multi_etag(parts, 2, etag));
	strcpy(parts[1].etag, "5g363e0e58a95f06cbe9bbc662c5dfb6");
	cr_assert_not(s3_multi_etag(parts, 2, etag));
}
