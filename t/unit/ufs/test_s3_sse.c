/* SPDX-License-Identifier: BSD-2-Clause */
/* The customer's key: which requests bring it along, and what is a key. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../lib/http_script.h"
#include "base/log.h"
#include "ufs/s3_priv.h"
#include "ufs_fix.h"

/* The bytes 0 to 31. */
#define KEY "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define KEY_MD5 "tP/LI3N87DFaSk0aoqYgzg=="
#define CUSTOMER "x-amz-server-side-encryption-customer-"
#define SOURCE "x-amz-copy-source-server-side-encryption-customer-"

static struct http_script *hs;
static struct ufs_fix f;
static char path[] = "/tmp/batonfs-test-sse-XXXXXX";

static void write_key(const void *text, size_t len)
{
	FILE *fp = fopen(path, "w");

	cr_assert(fp != NULL && fwrite(text, 1, len, fp) == len && fclose(fp) == 0);
}

static void up(void)
{
	ufs_fix_limit();
	setenv("AWS_ACCESS_KEY_ID", "key", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
	log_set_level(LOG_LVL_ERROR);
	close(mkstemp(path));
	write_key(KEY "\n", strlen(KEY) + 1);
	hs = http_script_new();
	ufs_fix_init(&f, http_script_url(hs));
	ufs_fix_set(&f, "s3.sse.customer.key.file", path);
	ufs_fix_attach(&f, "s3://b/p");
	http_script_reply(hs, NULL, 403, NULL, "", 0, 0);
}

static void down(void)
{
	ufs_fix_fini(&f);
	http_script_free(&hs);
	unlink(path);
}

TestSuite(s3_sse, .init = up, .fini = down);

/* The n-th request: "METHOD ", and whether it has the headers, signed. */
static void sent(unsigned n, const char *method, bool key, bool source)
{
	const struct http_script_req *rq = http_script_get(hs, n);
	char buf[1024];

	cr_assert_not_null(rq, "%u", n);
	cr_assert_str_eq(rq->method, method, "%u: %s", n, rq->target);
	for (int i = 0; i < 2; i++) {
		const char *const names[][3] = {
		    {CUSTOMER "algorithm", CUSTOMER "key", CUSTOMER "key-MD5"},
		    {SOURCE "algorithm", SOURCE "key", SOURCE "key-MD5"},
		};
		static const char *const values[] = {"AES256", KEY, KEY_MD5};
		bool want = i == 0 ? key : source;

		for (int j = 0; j < 3; j++) {
			const char *got = http_script_header(rq, names[i][j], buf, sizeof(buf));

			if (want)
				cr_assert(got != NULL && strcmp(got, values[j]) == 0, "%u: %s: %s", n,
				    names[i][j], got);
			else
				cr_assert_null(got, "%u: %s", n, names[i][j]);
		}
		if (want)
			cr_assert_not_null(strstr(http_script_header(rq, "authorization", buf,
						      sizeof(buf)),
			    i == 0 ? ";" CUSTOMER "key-md5" : ";" SOURCE "key-md5"), "%s", buf);
	}
}

Test(s3_sse, what_has_to_do_with_an_object)
{
	struct ufs_put put = { .path = "k", .body = "body", .len = 4 };
	struct ufs_multi_begin begin = { .path = "k" };
	struct ufs_part part = { .path = "k", .id = "u", .number = 1, .len = 4, .body = "body" };
	struct ufs_part again = { .path = "k", .id = "u", .number = 1, .len = 4,
		.src_path = "s", .src_version = "v1" };
	struct ufs_copy copy = { .src = "s", .dst = "k", .src_version = "v1", .size = 1 };

	(void)UFS_FIX_RUN(&f, put, &put);
	(void)ufs_fix_read(&f, "k", "v1", 0, 4);
	(void)UFS_FIX_RUN(&f, multi_begin, &begin);
	(void)UFS_FIX_RUN(&f, part, &part);
	(void)UFS_FIX_RUN(&f, part, &again);
	(void)UFS_FIX_RUN(&f, copy, &copy);
	sent(0, "PUT", true, false);
	sent(1, "GET", true, false);
	sent(2, "POST", true, false);
	sent(3, "PUT", true, false);
	sent(4, "PUT", true, true);
	sent(5, "PUT", true, true);
}

Test(s3_sse, what_has_to_do_with_names)
{
	struct ufs_rmdir rd = { .path = "d" };
	struct ufs_list list = { .path = "d" };
	struct ufs_attr a;
	unsigned n;

	(void)ufs_fix_stat(&f, "k", &a);
	n = http_script_count(hs);
	for (unsigned i = 0; i < n; i++)
		if (strcmp(http_script_get(hs, i)->method, "HEAD") == 0)
			sent(i, "HEAD", true, false);
		else
			sent(i, "GET", false, false);
	(void)ufs_fix_list(&f, &list);
	ufs_list_free(&list);
	sent(n, "GET", false, false);
	n = http_script_count(hs);
	(void)UFS_FIX_RUN(&f, rmdir, &rd);
	for (unsigned i = n; i < http_script_count(hs); i++)
		if (strcmp(http_script_get(hs, i)->method, "DELETE") == 0)
			sent(i, "DELETE", false, false);
}

static void refused(const char *words)
{
	struct errtext et = { "" };
	struct ufs *none = NULL;

	cr_assert_eq(ufs_new(&none, &f.env, "s3://b", &et), -EINVAL, "%s", words);
	cr_assert_not_null(strstr(et.s, words), "\"%s\" is not in \"%s\"", words, et.s);
}

Test(s3_sse, what_is_a_key)
{
	unsigned char raw[33];

	for (unsigned i = 0; i < sizeof(raw); i++)
		raw[i] = (unsigned char)i;
	ufs_free(&f.ufs);
	write_key(raw, 32);
	ufs_fix_attach(&f, "s3://b/p");
	cr_assert_str_eq(S3_OF(f.ufs)->sse_key, KEY);
	ufs_free(&f.ufs);
	write_key(KEY, strlen(KEY));
	ufs_fix_attach(&f, "s3://b/p");
	cr_assert_str_eq(S3_OF(f.ufs)->sse_key, KEY);
	cr_assert_str_eq(S3_OF(f.ufs)->sse_md5, KEY_MD5);
	write_key(raw, 33);
	refused("32 bytes");
	write_key(raw, 31);
	refused("32 bytes");
	write_key("", 0);
	refused("32 bytes");
	write_key(KEY "\n\nx", strlen(KEY) + 3);
	refused("32 bytes");
	write_key("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh==", 44);
	refused("32 bytes");
	write_key("AAECAwQFBgcICQoLDA0OD*AREhMUFRYXGBkaGxwdHh8=", 44);
	refused("32 bytes");
	ufs_fix_set(&f, "s3.sse.customer.key.file", "relative");
	refused("absolute");
	ufs_fix_set(&f, "s3.sse.customer.key.file", "/nonexistent/key");
	refused("No such file");
	ufs_fix_set(&f, "s3.sse.customer.key.file", "/tmp");
	refused("Is a directory");
	ufs_fix_set(&f, "s3.sse.customer.key.file", path);
	ufs_fix_set(&f, "s3.server.side.encryption", "AES256");
	refused("only one can be");
}
