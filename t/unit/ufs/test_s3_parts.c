/* SPDX-License-Identifier: BSD-2-Clause */
/* Encoding, dates, credentials, URIs and the XML parser by itself. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/options.h"
#include "ufs/s3_priv.h"
#include "ufs_fix.h"

TestSuite(s3_parts, .init = ufs_fix_limit);

static char *encoded(void (*fn)(FILE *f, const char *s), const char *s)
{
	static char out[256];
	FILE *f = fmemopen(out, sizeof(out), "w");

	fn(f, s);
	fclose(f);
	return out;
}

Test(s3_parts, canonical_encoding)
{
	cr_assert_str_eq(encoded(s3_enc_path, "a/b c"), "a/b%20c");
	cr_assert_str_eq(encoded(s3_enc_value, "a/b c"), "a%2Fb%20c");
	cr_assert_str_eq(encoded(s3_enc_path, "AZaz09-_.~"), "AZaz09-_.~");
	cr_assert_str_eq(encoded(s3_enc_path, "%2f+&=?#\\\"'()*!@:,;$[]"),
	    "%252f%2B%26%3D%3F%23%5C%22%27%28%29%2A%21%40%3A%2C%3B%24%5B%5D");
	cr_assert_str_eq(encoded(s3_enc_path, "\xc3\xa9\x7f\x01"), "%C3%A9%7F%01");
}

Test(s3_parts, decoding)
{
	char s[] = "a%2Fb+c%2B%zz%e9%";

	cr_assert_eq(s3_dec(s, strlen(s)), 11);
	cr_assert_str_eq(s, "a/b c+%zz\xe9%");
}

Test(s3_parts, values)
{
	char v[UFS_VERSION_MAX], big[UFS_VERSION_MAX + 3];
	uint64_t n;
	time_t t;

	cr_assert(s3_etag("\"abc-2\"", v) && strcmp(v, "abc-2") == 0);
	cr_assert(s3_etag("abc", v) && strcmp(v, "abc") == 0);
	cr_assert(!s3_etag("", v) && !s3_etag("\"\"", v) && !s3_etag(NULL, v));
	cr_assert(!s3_etag("a\"b", v) && !s3_etag("a\r\nX: y", v));
	memset(big, 'e', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	cr_assert(!s3_etag(big, v));
	cr_assert(s3_iso_date("2020-01-02T03:04:05.678Z", &t) && t == 1577934245);
	cr_assert(s3_iso_date("2020-01-02T03:04:05+00:00", &t) && t == 1577934245);
	cr_assert(!s3_iso_date("2020-13-02T03:04:05Z", &t) && !s3_iso_date("yesterday", &t));
	cr_assert(s3_u64("18446744073709551609", &n) && n == UINT64_C(18446744073709551609));
	cr_assert(!s3_u64("99999999999999999999", &n) && !s3_u64("-1", &n) && !s3_u64("", &n));
}

/* --- credentials */

static char dir[] = "/tmp/ufs-cred-XXXXXX";

static void put(const char *name, const char *text)
{
	char path[128];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	cr_assert_not_null(f);
	fputs(text, f);
	fclose(f);
	setenv(strcmp(name, "config") == 0 ? "AWS_CONFIG_FILE" : "AWS_SHARED_CREDENTIALS_FILE",
	    path, 1);
}

static void cred_env(void)
{
	ufs_fix_limit();
	unsetenv("AWS_ACCESS_KEY_ID");
	unsetenv("AWS_SECRET_ACCESS_KEY");
	unsetenv("AWS_SESSION_TOKEN");
	unsetenv("AWS_PROFILE");
	setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/cred", 1);
	setenv("AWS_CONFIG_FILE", "/nonexistent/conf", 1);
	cr_assert_not_null(mkdtemp(dir));
}

static void cred_clean(void)
{
	char cmd[128];

	(void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
	cr_assert_eq(system(cmd), 0);
}

Test(s3_parts, credentials, .init = cred_env, .fini = cred_clean)
{
	struct config *cfg = config_new();
	struct errtext et = { "" };
	struct s3_cred c;

	cr_assert_eq(s3_cred_load(&c, cfg, &et), -EACCES);
	cr_assert(strstr(et.s, "/nonexistent/cred") && strstr(et.s, "/nonexistent/conf") &&
		strstr(et.s, "AWS_ACCESS_KEY_ID"),
	    "%s", et.s);

	put("credentials", "# x\n[default]\naws_access_key_id = D\naws_secret_access_key=ds \n"
			   "[two]\naws_access_key_id=T\naws_secret_access_key=a/b+c=\n"
			   "aws_session_token = tok\n[half]\naws_access_key_id=H\n");
	cr_assert_eq(s3_cred_load(&c, cfg, &et), 0, "%s", et.s);
	cr_assert(strcmp(c.access, "D") == 0 && strcmp(c.secret, "ds") == 0 && c.token == NULL);
	s3_cred_fini(&c);

	setenv("AWS_PROFILE", "two", 1);
	cr_assert_eq(s3_cred_load(&c, cfg, &et), 0);
	cr_assert(strcmp(c.secret, "a/b+c=") == 0 && strcmp(c.token, "tok") == 0);
	s3_cred_fini(&c);

	put("config", "[default]\nregion=x\n[profile three]\ns3 =\n  aws_access_key_id = no\n"
		      "aws_access_key_id=3\naws_secret_access_key=3s\n");
	cr_assert_eq(config_set(cfg, "s3.profile", "three", &et), 0);
	cr_assert_eq(s3_cred_load(&c, cfg, &et), 0, "%s", et.s);
	cr_assert_str_eq(c.access, "3");
	s3_cred_fini(&c);

	cr_assert_eq(config_set(cfg, "s3.profile", "half", &et), 0);
	cr_assert_eq(s3_cred_load(&c, cfg, &et), -EACCES);

	setenv("AWS_ACCESS_KEY_ID", "E", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "topsecret", 1);
	cr_assert_eq(s3_cred_load(&c, cfg, &et), 0);
	cr_assert_str_eq(c.access, "E");
	s3_cred_fini(&c);
	setenv("AWS_SESSION_TOKEN", "a\r\nX-Evil: 1", 1);
	cr_assert_eq(s3_cred_load(&c, cfg, &et), -EINVAL);
	cr_assert_null(strstr(et.s, "topsecret"));

	cr_assert_eq(config_set(cfg, "s3.credentials", "anonymous", &et), 0);
	cr_assert_eq(s3_cred_load(&c, cfg, &et), 0);
	cr_assert(c.anonymous);
	config_free(&cfg);
}

/* --- URIs */

static void uri(struct ufs_fix *f, const char *text, const char *want)
{
	struct errtext et = { "" };
	int err = ufs_new(&f->ufs, &f->env, text, &et);

	if (want == NULL) {
		cr_expect_eq(err, -EINVAL, "%s: %d", text, err);
		cr_expect_not_null(strstr(et.s, text), "%s", et.s);
		return;
	}
	cr_assert_eq(err, 0, "%s", et.s);
	cr_expect_str_eq(ufs_uri(f->ufs), want);
	ufs_free(&f->ufs);
}

Test(s3_parts, uris)
{
	struct ufs_fix f;

	setenv("AWS_ACCESS_KEY_ID", "k", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "s", 1);
	unsetenv("AWS_SESSION_TOKEN");
	ufs_fix_init(&f, NULL);
	uri(&f, "s3://buck", "s3://buck");
	uri(&f, "s3://buck/", "s3://buck");
	uri(&f, "s3://buck/a/b//", "s3://buck/a/b");
	uri(&f, "s3://", NULL);
	uri(&f, "s3:///x", NULL);
	uri(&f, "s3://bu ck", NULL);
	uri(&f, "s3://buck/a//b", NULL);
	uri(&f, "s3://buck/../b", NULL);
	uri(&f, "file://relative", NULL);
	uri(&f, "ftp://x", NULL);
	uri(&f, "file:///tmp/", "file:///tmp");
	uri(&f, "file:///", "file:///");
	ufs_fix_set(&f, "s3.endpoint", "http://h.example:9/");
	uri(&f, "s3://buck/p", "s3://buck@h.example:9/p");
	ufs_fix_set(&f, "s3.endpoint", "http://u:p@h.example");
	uri(&f, "s3://buck", NULL);
	ufs_fix_set(&f, "s3.endpoint", "h.example");
	uri(&f, "s3://buck", NULL);
	ufs_fix_set(&f, "s3.endpoint", "http://h.example/path");
	uri(&f, "s3://buck", NULL);
	ufs_fix_fini(&f);
}

/* --- XML */

static int nothing_object(void *arg, const struct s3_xml_object *o)
{
	(void)o;
	++*(unsigned *)arg;
	return 0;
}

static int nothing_prefix(void *arg, const char *key, size_t len)
{
	(void)key;
	(void)len;
	++*(unsigned *)arg;
	return 0;
}

static int parse(const char *text, size_t step, unsigned *count)
{
	struct s3_xml_sink sink = {
	    .arg = count, .object = nothing_object, .prefix = nothing_prefix};
	struct s3_xml *x = s3_xml_new(&sink);
	size_t len = strlen(text);
	int err = 0;

	*count = 0;
	for (size_t i = 0; i < len && err == 0; i += step)
		err = s3_xml_feed(x, text + i, MIN(step, len - i));
	if (err == 0)
		err = s3_xml_end(x);
	if (err != 0)
		cr_log_info("%s", s3_xml_why(x));
	s3_xml_free(&x);
	return err;
}

Test(s3_parts, xml_limits)
{
	const char *good =
	    "<?xml version='1.0'?><ListBucketResult><Contents><Key>k</Key><Owner><ID>"
	    "o</ID></Owner><LastModified>2020-01-02T03:04:05Z</LastModified><ETag>e"
	    "</ETag><Size>1</Size></Contents><CommonPrefixes><Prefix>p/</Prefix>"
	    "</CommonPrefixes></ListBucketResult>";
	const char *bomb =
	    "<!DOCTYPE l [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;'>]>"
	    "<ListBucketResult><Contents><Key>&b;</Key></Contents></ListBucketResult>";
	unsigned n;
	char *deep, *longkey;
	size_t len;
	FILE *f;

	for (size_t step = 1; step < 9; step++) {
		cr_assert_eq(parse(good, step, &n), 0);
		cr_assert_eq(n, 2);
	}
	cr_assert_eq(parse(bomb, 4096, &n), -EBADMSG);
	f = open_memstream(&deep, &len);
	for (int i = 0; i < 100; i++)
		fputs("<ListBucketResult>", f);
	fclose(f);
	cr_assert_eq(parse(deep, 4096, &n), -E2BIG);
	free(deep);
	f = open_memstream(&longkey, &len);
	fprintf(f, "<ListBucketResult><CommonPrefixes><Prefix>%010000d", 1);
	fclose(f);
	cr_assert_eq(parse(longkey, 100, &n), -E2BIG);
	free(longkey);
	cr_assert_eq(parse("<ListBucketResult><CommonPrefixes></CommonPrefixes></ListBucketResult>",
			 99, &n),
	    -EBADMSG);
	cr_assert_eq(parse("<ListBucketResult>", 99, &n), -EAGAIN);
	cr_assert_eq(parse("", 99, &n), -EAGAIN);
}
