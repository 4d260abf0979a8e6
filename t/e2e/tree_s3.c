/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An S3 server with a bucket "b" that nobody had to fill:
 *
 *	tree_s3 DIRS FILES PORT
 *
 * has objects d0000/f000000 ... in DIRS directories of FILES objects each, made up as
 * they are asked for.  The content of an object is its key and a newline.  Nothing can
 * be changed, signatures are not asked for.  It listens on 127.0.0.1; once it does, its
 * port is in the file PORT.  It runs until it is killed.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../lib/http_script.h"

#define KEY_MAX_LEN 1024
#define PAGE_KEYS 1000ul
#define DIR_NAME_LEN 6u /* "d0000/" */
#define DATE_HEADER "Last-Modified: Tue, 02 Jan 2024 03:04:05 GMT\r\n"

static unsigned long dirs, files;

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Takes the escapes out of `from`, up to `end`. */
static void decode(char *out, size_t size, const char *from, const char *end)
{
	size_t n = 0;

	while (from < end && n + 1 < size) {
		if (*from == '%' && end - from > 2 && hex(from[1]) >= 0 && hex(from[2]) >= 0) {
			out[n++] = (char)(hex(from[1]) * 16 + hex(from[2]));
			from += 3;
		} else {
			out[n++] = *from++;
		}
	}
	out[n] = '\0';
}

/* The value of a query's parameter; empty if it is not there. */
static void param(const char *target, const char *name, char *out, size_t size)
{
	const char *p = strchr(target, '?');
	size_t len = strlen(name);

	out[0] = '\0';
	while (p != NULL) {
		p++;
		if (strncmp(p, name, len) == 0 && p[len] == '=') {
			decode(out, size, p + len + 1, p + len + 1 + strcspn(p + len + 1, "&"));
			return;
		}
		p = strchr(p, '&');
	}
}

static void key_of(char *key, size_t size, unsigned long dir, unsigned long file)
{
	(void)snprintf(key, size, "d%04lu/f%06lu", dir, file);
}

/* "d0012/" -> 12, if there is such a directory. */
static bool dir_of(const char *prefix, unsigned long *dir)
{
	char name[32];

	if (sscanf(prefix, "d%4lu/", dir) != 1 || *dir >= dirs)
		return false;
	(void)snprintf(name, sizeof(name), "d%04lu/", *dir);
	return strncmp(prefix, name, DIR_NAME_LEN) == 0;
}

static bool have_object(const char *key)
{
	unsigned long dir, file;
	char name[64];

	if (!dir_of(key, &dir) || sscanf(key + DIR_NAME_LEN, "f%6lu", &file) != 1 || file >= files)
		return false;
	key_of(name, sizeof(name), dir, file);
	return strcmp(name, key) == 0;
}

static void put_entry(FILE *f, bool root, unsigned long dir, unsigned long i)
{
	char key[64];

	if (root) {
		(void)fprintf(f, "<CommonPrefixes><Prefix>d%04lu/</Prefix></CommonPrefixes>", i);
		return;
	}
	key_of(key, sizeof(key), dir, i);
	(void)fprintf(f,
	    "<Contents><Key>%s</Key><LastModified>2024-01-02T03:04:05.000Z</LastModified>"
	    "<ETag>&quot;%s&quot;</ETag><Size>%zu</Size></Contents>",
	    key, key, strlen(key) + 1);
}

/* Where a listing begins: behind what the token or start-after says. */
static unsigned long first_of(const char *target, bool root)
{
	char text[KEY_MAX_LEN];
	unsigned long i;

	param(target, "continuation-token", text, sizeof(text));
	if (sscanf(text, "from-%lu", &i) == 1)
		return i;
	param(target, "start-after", text, sizeof(text));
	if (root ? sscanf(text, "d%4lu", &i) == 1
		 : strlen(text) > DIR_NAME_LEN && sscanf(text + DIR_NAME_LEN, "f%6lu", &i) == 1)
		return i + 1;
	return 0;
}

static char *listing(const char *target, size_t *len)
{
	char prefix[KEY_MAX_LEN] = "", text[KEY_MAX_LEN], *xml = NULL;
	unsigned long dir = 0, i, end, n, most;
	FILE *f = open_memstream(&xml, len);
	bool root;

	if (f == NULL)
		abort();
	param(target, "prefix", prefix, sizeof(prefix));
	param(target, "max-keys", text, sizeof(text));
	most = strtoul(text, NULL, 10);
	if (most == 0 || most > PAGE_KEYS)
		most = PAGE_KEYS;
	root = prefix[0] == '\0';
	n = root ? dirs : dir_of(prefix, &dir) && prefix[DIR_NAME_LEN] == '\0' ? files : 0;
	i = first_of(target, root);
	end = i + most < n ? i + most : n;
	(void)fputs("<?xml version=\"1.0\"?><ListBucketResult><EncodingType>url</EncodingType>", f);
	(void)fprintf(f, "<IsTruncated>%s</IsTruncated>", end < n ? "true" : "false");
	if (end < n)
		(void)fprintf(f, "<NextContinuationToken>from-%lu</NextContinuationToken>", end);
	for (; i < end; i++)
		put_entry(f, root, dir, i);
	(void)fputs("</ListBucketResult>", f);
	(void)fclose(f);
	return xml;
}

static void reply(
    struct http_script_answer *out, int status, const char *headers, const void *body, size_t len)
{
	out->raw = http_script_format(status, headers, body, len, &out->raw_len, &out->head_len);
}

static void object(
    const struct http_script_req *rq, const char *key, struct http_script_answer *out)
{
	char body[KEY_MAX_LEN + 1], headers[KEY_MAX_LEN + 256], range[96];
	size_t len = (size_t)snprintf(body, sizeof(body), "%s\n", key), first = 0, last = len - 1;
	bool part = http_script_header(rq, "range", range, sizeof(range)) != NULL &&
		    sscanf(range, "bytes=%zu-%zu", &first, &last) == 2 && first < len &&
		    first <= last;

	if (!part)
		first = 0;
	if (!part || last >= len)
		last = len - 1;
	(void)snprintf(headers, sizeof(headers),
	    "ETag: \"%s\"\r\nContent-Range: bytes %zu-%zu/%zu\r\n" DATE_HEADER, key, first, last,
	    len);
	reply(out, part ? 206 : 200, headers, body + first, last + 1 - first);
}

static bool answer(void *arg, const struct http_script_req *rq, struct http_script_answer *out)
{
	char key[KEY_MAX_LEN], *xml;
	size_t len = 0;

	(void)arg;
	memset(out, 0, sizeof(*out));
	if (strcmp(rq->method, "GET") != 0 && strcmp(rq->method, "HEAD") != 0) {
		reply(out, 405, NULL, "", 0);
		return true;
	}
	if (strncmp(rq->target, "/b?", 3) == 0) {
		xml = listing(rq->target, &len);
		reply(out, 200, "Content-Type: application/xml\r\n", xml, len);
		free(xml);
		return true;
	}
	key[0] = '\0';
	if (strncmp(rq->target, "/b/", 3) == 0)
		decode(key, sizeof(key), rq->target + 3, strchr(rq->target, '\0'));
	if (have_object(key))
		object(rq, key, out);
	else
		reply(out, 404, NULL, "<Error><Code>NoSuchKey</Code></Error>", 37);
	return true;
}

int main(int argc, char **argv)
{
	struct http_script *hs;
	FILE *f;

	if (argc != 4) {
		(void)fprintf(stderr, "usage: tree_s3 DIRS FILES PORT-FILE\n");
		return 2;
	}
	dirs = strtoul(argv[1], NULL, 10);
	files = strtoul(argv[2], NULL, 10);
	if (dirs == 0 || dirs > 10000 || files == 0 || files > 1000000) {
		(void)fprintf(stderr, "tree_s3: at most 10000 directories of 1000000 files\n");
		return 2;
	}
	hs = http_script_new();
	http_script_set_handler(hs, answer, NULL);
	f = fopen(argv[3], "we");
	if (f == NULL || fprintf(f, "%u\n", http_script_port(hs)) < 0 || fclose(f) != 0) {
		perror(argv[3]);
		return 1;
	}
	for (;;)
		(void)pause();
}
