/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * AWS Signature Version 4.  Not libcurl's: 7.88 sorts "x-amz-copy-source-range" before
 * "x-amz-copy-source" and signs an "Expect:" that only takes the header away, and each
 * version after it has its own idea of what is encoded already.
 */
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>
#include <strings.h>

#include "ufs/s3_priv.h"

#define DAY_LEN 8 /* of "20130524T000000Z" */

static void hex(const unsigned char *in, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[in[i] >> 4];
		out[2 * i + 1] = digits[in[i] & 15];
	}
	out[2 * n] = '\0';
}

static int hmac(const void *key, size_t key_len, const char *text, unsigned char out[32])
{
	unsigned n = 0;

	return HMAC(EVP_sha256(), key, (int)key_len, (const unsigned char *)text, strlen(text),
		   out, &n) != NULL
	    ? 0
	    : -ENOMEM;
}

/* The key of a day: four HMACs, so it is kept. */
static int day_key(struct s3_sign_key *k, const struct s3_sign *s)
{
	char *first;
	int err;

	if (k->generation == s->generation && memcmp(k->day, s->stamp, DAY_LEN) == 0)
		return 0;
	if (asprintf(&first, "AWS4%s", s->secret) < 0)
		return -ENOMEM;
	memcpy(k->day, s->stamp, DAY_LEN);
	k->day[DAY_LEN] = '\0';
	err = hmac(first, strlen(first), k->day, k->key);
	explicit_bzero(first, strlen(first));
	free(first);
	if (err == 0)
		err = hmac(k->key, sizeof(k->key), s->region, k->key);
	if (err == 0)
		err = hmac(k->key, sizeof(k->key), "s3", k->key);
	if (err == 0)
		err = hmac(k->key, sizeof(k->key), "aws4_request", k->key);
	k->generation = s->generation;
	if (err != 0)
		k->day[0] = '\0';
	return err;
}

/* As it goes over the wire: without the scheme's own port. */
static void put_host(FILE *f, const char *url)
{
	bool tls = strncmp(url, "https://", 8) == 0;
	const char *host = strstr(url, "://") + 3, *port;
	size_t n = strcspn(host, "/?");

	port = memrchr(host, ':', n);
	if (port != NULL && memchr(port, ']', n - (size_t)(port - host)) == NULL &&
	    (size_t)(host + n - port) == (tls ? 4 : 3) &&
	    strncmp(port, tls ? ":443" : ":80", tls ? 4 : 3) == 0)
		n = (size_t)(port - host);
	for (size_t i = 0; i < n; i++)
		(void)fputc(host[i] >= 'A' && host[i] <= 'Z' ? host[i] + 32 : host[i], f);
}

static void put_name(FILE *f, const char *name)
{
	for (; *name != '\0'; name++)
		(void)fputc(*name >= 'A' && *name <= 'Z' ? *name + 32 : *name, f);
}

/* Without spaces at the ends, and one for several. */
static void put_value(FILE *f, const char *v)
{
	v += strspn(v, " \t");
	for (; *v != '\0'; v++) {
		size_t n = strspn(v, " \t");

		if (n > 0 && v[n] == '\0')
			break;
		if (n > 0) {
			(void)fputc(' ', f);
			v += n - 1;
		} else {
			(void)fputc(*v, f);
		}
	}
}

struct order {
	const struct http_header *h[S3_HEADERS_MAX + 1]; /* value NULL: the host */
	unsigned n;
};

static void sort(struct order *o, const struct s3_sign *s)
{
	static const struct http_header host = { "host", NULL };

	o->n = 0;
	for (unsigned i = 0; i <= s->nheaders; i++) {
		const struct http_header *h = i < s->nheaders ? &s->headers[i] : &host;
		unsigned at = o->n++;

		while (at > 0 && strcasecmp(o->h[at - 1]->name, h->name) > 0) {
			o->h[at] = o->h[at - 1];
			at--;
		}
		o->h[at] = h;
	}
}

static void put_names(FILE *f, const struct order *o)
{
	for (unsigned i = 0; i < o->n; i++) {
		if (i > 0)
			(void)fputc(';', f);
		put_name(f, o->h[i]->name);
	}
}

static void put_canonical(FILE *f, const struct s3_sign *s, const struct order *o)
{
	const char *path = strchr(strstr(s->url, "://") + 3, '/');
	const char *payload = "UNSIGNED-PAYLOAD";
	size_t n = path != NULL ? strcspn(path, "?") : 0;

	(void)fprintf(f, "%s\n%.*s\n%s\n", s->method, (int)n, path != NULL ? path : "",
	    path != NULL && path[n] == '?' ? path + n + 1 : "");
	for (unsigned i = 0; i < o->n; i++) {
		put_name(f, o->h[i]->name);
		(void)fputc(':', f);
		if (o->h[i]->value == NULL)
			put_host(f, s->url);
		else
			put_value(f, o->h[i]->value);
		(void)fputc('\n', f);
		if (strcasecmp(o->h[i]->name, "x-amz-content-sha256") == 0)
			payload = o->h[i]->value;
	}
	(void)fputc('\n', f);
	put_names(f, o);
	(void)fprintf(f, "\n%s", payload);
}

/* The hash of the canonical request. */
static int request_hash(const struct s3_sign *s, const struct order *o, char out[65])
{
	unsigned char md[EVP_MAX_MD_SIZE];
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int err = -ENOMEM;

	if (f == NULL)
		return err;
	put_canonical(f, s, o);
	if (s3_stream_close(f, &text) && EVP_Digest(text, len, md, NULL, EVP_sha256(), NULL) == 1) {
		hex(md, 32, out);
		err = 0;
	}
	free(text);
	return err;
}

int s3_sign(struct s3_sign_key *k, const struct s3_sign *s, char **authorization)
{
	char hash[65], signature[65], *out = NULL, to_sign[320];
	unsigned char md[32];
	size_t len = 0;
	struct order o;
	FILE *f;
	int err;

	*authorization = NULL;
	assert(s->nheaders <= S3_HEADERS_MAX);
	sort(&o, s);
	err = day_key(k, s);
	if (err == 0)
		err = request_hash(s, &o, hash);
	if (err != 0)
		return err;
	(void)snprintf(to_sign, sizeof(to_sign),
	    "AWS4-HMAC-SHA256\n%s\n%s/%.128s/s3/aws4_request\n%s", s->stamp, k->day, s->region,
	    hash);
	err = hmac(k->key, sizeof(k->key), to_sign, md);
	if (err != 0)
		return err;
	hex(md, sizeof(md), signature);
	f = open_memstream(&out, &len);
	if (f == NULL)
		return -ENOMEM;
	(void)fprintf(f, "AWS4-HMAC-SHA256 Credential=%s/%s/%s/s3/aws4_request, SignedHeaders=",
	    s->access, k->day, s->region);
	put_names(f, &o);
	(void)fprintf(f, ", Signature=%s", signature);
	if (!s3_stream_close(f, &out)) {
		free(out);
		return -ENOMEM;
	}
	*authorization = out;
	return 0;
}

/* --- other sums */

bool s3_md5(const void *data, size_t len, unsigned char out[16])
{
	return EVP_Digest(data, len, out, NULL, EVP_md5(), NULL) == 1;
}

bool s3_md5_base64(const void *data, size_t len, char out[25])
{
	unsigned char md[16];

	return s3_md5(data, len, md) && EVP_EncodeBlock((unsigned char *)out, md, 16) == 24;
}

static int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool unhex(const char *etag, unsigned char out[16])
{
	if (strlen(etag) != 32)
		return false;
	for (unsigned i = 0; i < 16; i++) {
		int hi = nibble(etag[2 * i]), lo = nibble(etag[2 * i + 1]);

		if (hi < 0 || lo < 0)
			return false;
		out[i] = (unsigned char)(hi * 16 + lo);
	}
	return true;
}

bool s3_multi_etag(const struct ufs_part_id *parts, unsigned n, char out[UFS_VERSION_MAX])
{
	unsigned char md[16], *all = malloc((size_t)n * 16);
	bool ok = all != NULL;

	for (unsigned i = 0; ok && i < n; i++)
		ok = unhex(parts[i].etag, all + (size_t)i * 16);
	ok = ok && s3_md5(all, (size_t)n * 16, md);
	free(all);
	if (ok) {
		hex(md, sizeof(md), out);
		(void)snprintf(out + 32, UFS_VERSION_MAX - 32, "-%u", n);
	}
	return ok;
}
