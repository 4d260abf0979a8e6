/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An S3 server for tests that misbehaves on demand:
 *
 *	hostile_s3 DIR MODE PORT
 *
 * serves the regular files of DIR as the objects of bucket "b", without asking for
 * signatures, on 127.0.0.1; once it listens its port is in the file PORT.  What is put
 * and deleted is written there; a "/" of a key is a ":" of the file's name.  The file
 * MODE says how to behave, and is read at each request: a word, of which the part
 * before the first "-" says at what: "get", "head", "list", "put", "delete", "all";
 * anything else is an honest answer.  It runs until it is killed.
 */
#include <dirent.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../lib/http_script.h"

#define BIG_HEAD (10u << 20)
#define NAMES_MAX 1024u
#define SLOW_MS 700u
/* After so much of a body the connection breaks. */
#define CUT_BYTES 100000u
#define ERROR_XML                                                                                  \
	"<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>try again"               \
	"</Message><RequestId>R1</RequestId></Error>"

static const char *objects, *mode_file;
static unsigned page; /* counts listings: tokens that are never the same */

static void *must(void *p)
{
	if (p == NULL)
		abort();
	return p;
}

static char *format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static char *format(const char *fmt, ...)
{
	va_list ap;
	char *s;

	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		abort();
	va_end(ap);
	return s;
}

/* The whole file and its length, or NULL. */
static char *slurp(const char *path, size_t *len)
{
	FILE *f = fopen(path, "re");
	struct stat st;
	char *s;

	if (f == NULL || fstat(fileno(f), &st) != 0 || !S_ISREG(st.st_mode)) {
		if (f != NULL)
			(void)fclose(f);
		return NULL;
	}
	s = must(malloc((size_t)st.st_size + 1));
	*len = fread(s, 1, (size_t)st.st_size, f);
	s[*len] = '\0';
	(void)fclose(f);
	return s;
}

static void get_mode(char mode[64])
{
	size_t len = 0;
	char *s = slurp(mode_file, &len);

	(void)snprintf(mode, 64, "%.*s", s != NULL ? (int)strcspn(s, " \n") : 0,
	    s != NULL ? s : "");
	free(s);
}

static uint64_t hash(const char *s, size_t len)
{
	uint64_t h = UINT64_C(14695981039346656037);

	while (len-- > 0)
		h = (h ^ (unsigned char)*s++) * UINT64_C(1099511628211);
	return h;
}

static void reply(struct http_script_answer *out, int status, const char *headers,
    const void *body, size_t len)
{
	out->raw = http_script_format(status, headers, body, len, &out->raw_len, &out->head_len);
}

static void reply_text(struct http_script_answer *out, int status, const char *headers,
    const char *body)
{
	reply(out, status, headers, body, strlen(body));
}

/* Head lines without end, and then the answer that was there. */
static void fill_head(struct http_script_answer *out)
{
	char *all = must(malloc(BIG_HEAD + 128)), *old = (char *)(uintptr_t)out->raw;
	size_t at = (size_t)sprintf(all, "HTTP/1.1 200 OK\r\n");

	while (at < BIG_HEAD)
		at += (size_t)sprintf(all + at, "X-Filler: 0123456789abcdef0123456789abcdef\r\n");
	at += (size_t)sprintf(all + at, "Content-Length: 0\r\n\r\n");
	free(old);
	out->raw = all;
	out->raw_len = at;
	out->head_len = 0;
	out->end = HTTP_SCRIPT_CLOSE;
}

/* What any kind of request can meet with.  False: no such word. */
static bool refuse(const char *how, const char *host, struct http_script_answer *out)
{
	char *text;

	if (strcmp(how, "error") == 0) {
		reply_text(out, 200, NULL, ERROR_XML);
	} else if (strcmp(how, "403") == 0) {
		reply_text(out, 403, NULL, "<Error><Code>AccessDenied</Code></Error>");
	} else if (strcmp(how, "bucket") == 0) {
		reply_text(out, 404, NULL, "<Error><Code>NoSuchBucket</Code></Error>");
	} else if (strcmp(how, "full") == 0) {
		reply_text(out, 507, NULL, "<Error><Code>XMinioStorageFull</Code></Error>");
	} else if (strcmp(how, "quota") == 0) {
		reply_text(out, 403, NULL, "<Error><Code>QuotaExceeded</Code></Error>");
	} else if (strcmp(how, "503") == 0) {
		reply_text(out, 503, NULL, "<Error><Code>SlowDown</Code></Error>");
	} else if (strcmp(how, "html") == 0) {
		reply_text(out, 200, "Content-Type: text/html\r\n", "<html><p>Please log in");
	} else if (strcmp(how, "301") == 0) {
		reply_text(out, 301, "x-amz-bucket-region: eu-moon-1\r\n",
		    "<Error><Code>PermanentRedirect</Code><Endpoint>b.s3.moon.example</Endpoint>"
		    "</Error>");
	} else if (strcmp(how, "307") == 0) {
		text = format("Location: http://%s/elsewhere\r\n", host);
		reply_text(out, 307, text,
		    "<Error><Code>TemporaryRedirect</Code><Endpoint>b.s3.moon.example</Endpoint>"
		    "</Error>");
		free(text);
	} else if (strcmp(how, "skew") == 0) {
		reply_text(out, 403, "Date: Thu, 02 Jan 2020 03:04:05 GMT\r\n",
		    "<Error><Code>RequestTimeTooSkewed</Code></Error>");
	} else if (strcmp(how, "headers") == 0) {
		fill_head(out);
	} else if (strcmp(how, "silent") == 0) {
		out->end = HTTP_SCRIPT_STALL;
	} else if (strcmp(how, "close") == 0) {
		out->end = HTTP_SCRIPT_CLOSE;
	} else if (strcmp(how, "junk") == 0) {
		out->raw = format("\x16\x03\x01 220 smtp ready\r\n\r\n");
		out->end = HTTP_SCRIPT_CLOSE;
	} else {
		return false;
	}
	return true;
}

/* --- listings */

static int entry_cmp(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Keys and files' names. */
static char *swapped(const char *s, char from, char to)
{
	char *out = must(strdup(s));

	for (char *p = out; *p != '\0'; p++)
		if (*p == from)
			*p = to;
	return out;
}

static char *file_of(const char *key)
{
	char *name = swapped(key, '/', ':'), *path = format("%s/%s", objects, name);

	free(name);
	return path;
}

static void put_entry(FILE *f, const char *name)
{
	char *path = file_of(name), *data;
	size_t len;

	data = slurp(path, &len);
	if (data != NULL)
		(void)fprintf(f,
		    "<Contents><Key>%s</Key><LastModified>2024-01-02T03:04:05.000Z</LastModified>"
		    "<ETag>&quot;%016" PRIx64 "&quot;</ETag><Size>%zu</Size></Contents>",
		    name, hash(data, len), len);
	free(data);
	free(path);
}

/* What is right below the prefix, in one page. */
static void put_all(FILE *f, const char *prefix)
{
	DIR *d = opendir(objects);
	size_t n = 0, len = strlen(prefix), below;
	char *names[NAMES_MAX], last[1024] = "";
	struct dirent *de;

	while (d != NULL && (de = readdir(d)) != NULL && n < NAMES_MAX)
		if (de->d_name[0] != '.')
			names[n++] = swapped(de->d_name, ':', '/');
	if (d != NULL)
		(void)closedir(d);
	qsort(names, n, sizeof(names[0]), entry_cmp);
	for (size_t i = 0; i < n; i++) {
		below = strncmp(names[i], prefix, len) == 0 ? strcspn(names[i] + len, "/") : 0;
		if (strncmp(names[i], prefix, len) != 0) {
			free(names[i]);
			continue;
		}
		if (names[i][len + below] == '\0') {
			put_entry(f, names[i]);
		} else if (strncmp(last, names[i], len + below + 1) != 0 ||
			   last[len + below + 1] != '\0') {
			(void)snprintf(
			    last, sizeof(last), "%.*s", (int)(len + below + 1), names[i]);
			(void)fprintf(
			    f, "<CommonPrefixes><Prefix>%s</Prefix></CommonPrefixes>", last);
		}
		free(names[i]);
	}
}

static void put_made_up(FILE *f, const char *prefix, unsigned number, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		(void)fprintf(f,
		    "<Contents><Key>%s%010u-%04u</Key><LastModified>2024-01-02T03:04:05.000Z"
		    "</LastModified><ETag>e</ETag><Size>1</Size></Contents>",
		    prefix, number, i);
}

static void put_more(FILE *f, const char *token)
{
	(void)fprintf(f, "<IsTruncated>true</IsTruncated><NextContinuationToken>%s"
			 "</NextContinuationToken>", token);
}

static void bomb(FILE *f)
{
	(void)fputs("<?xml version=\"1.0\"?><!DOCTYPE r [<!ENTITY a \"aaaaaaaaaaaaaaaa\">", f);
	for (int c = 'b'; c < 'n'; c++) {
		(void)fprintf(f, "<!ENTITY %c \"", c);
		for (int i = 0; i < 16; i++)
			(void)fprintf(f, "&%c;", c - 1);
		(void)fputs("\">", f);
	}
	(void)fputs("]><ListBucketResult><Prefix>&m;</Prefix></ListBucketResult>", f);
}

static char *listing(const char *how, const char *prefix, size_t *len)
{
	char *text = NULL, token[32];
	FILE *f = must(open_memstream(&text, len));

	page++;
	(void)snprintf(token, sizeof(token), "t%u", page);
	if (strcmp(how, "bomb") == 0) {
		bomb(f);
		(void)fclose(f);
		return text;
	}
	(void)fputs("<?xml version=\"1.0\"?><ListBucketResult><EncodingType>url</EncodingType>", f);
	if (strcmp(how, "deep") == 0)
		for (int i = 0; i < 100000; i++)
			(void)fputs("<a>", f);
	else if (strcmp(how, "value") == 0)
		(void)fprintf(f, "<Contents><Key>%01000000d</Key></Contents>", 1);
	else if (strcmp(how, "token") == 0)
		put_more(f, "same");
	else if (strcmp(how, "empty") == 0)
		put_more(f, token);
	else if (strcmp(how, "backward") == 0)
		put_made_up(f, "a", UINT32_MAX - page, 1), put_more(f, token);
	else if (strcmp(how, "foreign") == 0)
		put_made_up(f, "../../etc/", page, 3);
	else if (strcmp(how, "many") == 0)
		put_made_up(f, "x", page, 30000);
	else if (strcmp(how, "forever") == 0)
		put_made_up(f, "y", page, 500), put_more(f, token);
	else if (strcmp(how, "notoken") == 0)
		(void)fputs("<IsTruncated>true</IsTruncated>", f);
	else
		put_all(f, prefix);
	(void)fputs("</ListBucketResult>", f);
	(void)fclose(f);
	return text;
}

/* The value of "prefix" in the query, of which only slashes are encoded. */
static void get_prefix(const char *target, char out[1024])
{
	const char *p = strstr(target, "prefix=");
	size_t n = 0;

	for (p = p != NULL ? p + 7 : ""; *p != '\0' && *p != '&' && n < 1023; p++) {
		if (strncmp(p, "%2F", 3) == 0) {
			out[n++] = '/';
			p += 2;
		} else {
			out[n++] = *p;
		}
	}
	out[n] = '\0';
}

static void list(const struct http_script_req *rq, const char *how, const char *host,
    struct http_script_answer *out)
{
	const char *prefix = strstr(rq->target, "prefix=");
	char below[1024];
	/* Only the top is listed in bad faith: the question whether a name is a
	 * directory gets an honest no, so that the names can be used. */
	bool root = prefix == NULL || prefix[7] == '\0' || prefix[7] == '&';
	size_t len = 0;
	char *xml;

	if (root && refuse(how, host, out))
		return;
	get_prefix(rq->target, below);
	xml = listing(root ? how : "", below, &len);
	reply(out, 200, "Content-Type: application/xml\r\n", xml, len);
	free(xml);
	if (!root)
		return;
	if (strcmp(how, "short") == 0) {
		out->raw_len -= 40;
		out->end = HTTP_SCRIPT_CLOSE;
	} else if (strcmp(how, "stall") == 0) {
		out->raw_len -= 40;
		out->end = HTTP_SCRIPT_STALL;
	} else if (strcmp(how, "slow") == 0) {
		out->slow_bytes = 1;
		out->slow_ms = 100;
	}
}

/* --- objects */

struct range {
	size_t first, len;
	bool given;
};

static struct range get_range(const struct http_script_req *rq, size_t size)
{
	struct range r = { 0, size, false };
	size_t last;
	char buf[96];

	if (http_script_header(rq, "range", buf, sizeof(buf)) == NULL ||
	    sscanf(buf, "bytes=%zu-%zu", &r.first, &last) != 2)
		return r;
	r.given = true;
	if (r.first >= size)
		r.first = size;
	r.len = (last < size ? last + 1 : size) - r.first;
	return r;
}

/* Lies about what is sent; `data` are the object's bytes. */
static void get(const struct http_script_req *rq, const char *how, const char *data, size_t size,
    struct http_script_answer *out)
{
	struct range r = get_range(rq, size);
	size_t said = r.first, len = r.len;
	uint64_t etag = hash(data, size);
	char *headers, *body = must(malloc(len + 64)), *want;
	char match[96] = "";

	want = format("\"%016" PRIx64 "\"", etag);
	if (http_script_header(rq, "if-match", match, sizeof(match)) != NULL &&
	    strcmp(match, want) != 0 && strcmp(how, "ignore") != 0) {
		free(want);
		free(body);
		reply_text(out, 412, NULL, "<Error><Code>PreconditionFailed</Code></Error>");
		return;
	}
	free(want);
	memcpy(body, data + r.first, len);
	if (strcmp(how, "etag") == 0)
		etag++;
	if (strcmp(how, "range") == 0)
		said++;
	if (strcmp(how, "longer") == 0)
		memset(body + len, 'X', 64), len += 64;
	if (strcmp(how, "shorter") == 0)
		len -= len > 1;
	headers = format("ETag: \"%016" PRIx64 "\"\r\nContent-Range: bytes %zu-%zu/%zu\r\n"
			 "Last-Modified: Tue, 02 Jan 2024 03:04:05 GMT\r\n",
	    etag, said, said + r.len - 1, size);
	reply(out, r.given && strcmp(how, "200") != 0 ? 206 : 200, headers, body, len);
	free(headers);
	free(body);
	if (len > CUT_BYTES &&
	    (strcmp(how, "cut") == 0 || strcmp(how, "reset") == 0 || strcmp(how, "stall") == 0)) {
		out->raw_len -= len - CUT_BYTES;
		out->end = strcmp(how, "cut") == 0 ? HTTP_SCRIPT_CLOSE :
		    strcmp(how, "reset") == 0 ? HTTP_SCRIPT_RESET : HTTP_SCRIPT_STALL;
	} else if (strcmp(how, "slow") == 0) {
		out->slow_bytes = 64;
		out->slow_ms = 200;
	}
}

/* What tells a client its own object, beside the object. */
#define MARK "x-amz-meta-batonfs-request"

static char *mark_of(const char *key)
{
	char *path = file_of(key), *mark = format("%s/.mark.%s", objects, strrchr(path, '/') + 1);

	free(path);
	return mark;
}

static void put_mark(const struct http_script_req *rq)
{
	char *path = mark_of(rq->target + 3), text[128];
	FILE *f;

	(void)unlink(path);
	if (http_script_header(rq, MARK, text, sizeof(text)) != NULL) {
		f = must(fopen(path, "we"));
		if (fputs(text, f) < 0 || fclose(f) != 0)
			abort();
	}
	free(path);
}

static void head(const char *key, const char *how, const char *data, size_t size,
    struct http_script_answer *out)
{
	char *headers, *path = mark_of(key), *mark;
	uint64_t etag = hash(data, size);
	size_t len;

	mark = slurp(path, &len);
	if (strcmp(how, "old") == 0) /* the object changes between HEAD and GET */
		etag++;
	headers = format("%s%s%s%s%016" PRIx64 "\"\r\nLast-Modified: %s\r\n",
	    mark != NULL ? MARK ": " : "", mark != NULL ? mark : "", mark != NULL ? "\r\n" : "",
	    strcmp(how, "noetag") == 0 ? "X-No-Tag: \"" : "ETag: \"", etag,
	    strcmp(how, "nodate") == 0 ? "long ago" : "Tue, 02 Jan 2024 03:04:05 GMT");
	reply(out, 200, headers, data, size);
	free(headers);
	free(mark);
	free(path);
}

/* All at once, so that another client sees the object or not. */
static void put(const struct http_script_req *rq, const char *how, struct http_script_answer *out)
{
	char *path = file_of(rq->target + 3), *tmp = format("%s/.new", objects), *headers;
	char none[8];
	FILE *f;

	if (http_script_header(rq, "if-none-match", none, sizeof(none)) != NULL &&
	    access(path, F_OK) == 0) {
		reply_text(out, 412, NULL, "<Error><Code>PreconditionFailed</Code></Error>");
	} else {
		put_mark(rq);
		f = must(fopen(tmp, "we"));
		if (fwrite(rq->body, 1, rq->body_len, f) != rq->body_len || fclose(f) != 0 ||
		    rename(tmp, path) != 0)
			abort();
		headers = format("ETag: \"%016" PRIx64 "\"\r\n", hash(rq->body, rq->body_len));
		reply_text(out, 200, headers, "");
		free(headers);
	}
	if (strcmp(how, "lost") == 0) { /* done, and nobody hears of it */
		free((char *)(uintptr_t)out->raw);
		memset(out, 0, sizeof(*out));
		out->end = HTTP_SCRIPT_CLOSE;
	} else if (strcmp(how, "slow") == 0) {
		out->delay_ms = SLOW_MS;
	}
	free(path);
	free(tmp);
}

static void delete_key(const char *key)
{
	char *path = file_of(key);

	(void)unlink(path);
	free(path);
}

static void delete_many(const struct http_script_req *rq, struct http_script_answer *out)
{
	const char *p = rq->body;
	char *key;
	size_t n;

	while ((p = strstr(p, "<Key>")) != NULL) {
		p += 5;
		n = strcspn(p, "<");
		key = must(strndup(p, n));
		delete_key(key);
		free(key);
	}
	reply_text(out, 200, "Content-Type: application/xml\r\n",
	    "<?xml version=\"1.0\"?><DeleteResult></DeleteResult>");
}

static const char *kind_of(const struct http_script_req *rq)
{
	if (strcmp(rq->method, "PUT") == 0)
		return "put-";
	if (strcmp(rq->method, "DELETE") == 0 || strcmp(rq->method, "POST") == 0)
		return "delete-";
	if (strncmp(rq->target, "/b?", 3) == 0)
		return "list-";
	return strcmp(rq->method, "HEAD") == 0 ? "head-" : "get-";
}

/* False: it is a question. */
static bool change(const struct http_script_req *rq, const char *how, const char *host,
    struct http_script_answer *out)
{
	bool is_put = strcmp(rq->method, "PUT") == 0, one = strcmp(rq->method, "DELETE") == 0;
	bool many = strcmp(rq->method, "POST") == 0 && strncmp(rq->target, "/b?delete", 9) == 0;

	if (!is_put && !one && !many)
		return false;
	if (refuse(how, host, out))
		return true;
	if (is_put)
		put(rq, how, out);
	else if (many)
		delete_many(rq, out);
	else {
		delete_key(rq->target + 3);
		reply_text(out, 204, NULL, "");
	}
	return true;
}

static bool answer(void *arg, const struct http_script_req *rq, struct http_script_answer *out)
{
	char mode[64], host[128] = "", *data, *path;
	bool is_head = strcmp(rq->method, "HEAD") == 0;
	const char *how, *kind = kind_of(rq);
	size_t size;

	(void)arg;
	memset(out, 0, sizeof(*out));
	get_mode(mode);
	(void)http_script_header(rq, "host", host, sizeof(host));
	how = strncmp(mode, kind, strlen(kind)) == 0 ? mode + strlen(kind) : "";
	if (strncmp(mode, "all-", 4) == 0) {
		how = mode + 4;
		if (refuse(how, host, out))
			return true;
	}
	if (change(rq, how, host, out))
		return true;
	if (strncmp(rq->target, "/b?", 3) == 0) {
		list(rq, how, host, out);
		return true;
	}
	if (strncmp(rq->target, "/b/", 3) != 0) {
		reply_text(out, 404, NULL, "<Error><Code>NoSuchKey</Code></Error>");
		return true;
	}
	if (refuse(how, host, out))
		return true;
	path = file_of(rq->target + 3);
	data = slurp(path, &size);
	free(path);
	if (data == NULL)
		reply_text(out, 404, NULL, "<Error><Code>NoSuchKey</Code></Error>");
	else if (is_head)
		head(rq->target + 3, how, data, size, out);
	else
		get(rq, how, data, size, out);
	free(data);
	return true;
}

int main(int argc, char **argv)
{
	struct http_script *hs;
	FILE *f;

	if (argc != 4) {
		(void)fprintf(stderr, "usage: hostile_s3 DIR MODE-FILE PORT-FILE\n");
		return 2;
	}
	objects = argv[1];
	mode_file = argv[2];
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
