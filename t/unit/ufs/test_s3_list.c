/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Listings against a server that follows ListObjectsV2 to the letter, for any set
 * of keys and any page size: nothing twice, nothing lost, in order; with the
 * cursor, and without it (as after a takeover).
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/obj.h"
#include "ufs/s3_priv.h"
#include "ufs/ufs_page.h"
#include "../../lib/http_script.h"
#include "ufs_fix.h"

TestSuite(s3_list, .init = ufs_fix_limit);

/* --- the server */

struct bucket {
	char **keys; /* sorted */
	size_t n;
	unsigned page;
};

static bool query_get(const char *target, const char *name, char *out, size_t room)
{
	const char *p = strchr(target, '?');
	size_t n = strlen(name), len;

	for (; p != NULL; p = strchr(p + 1, '&')) {
		if (strncmp(p + 1, name, n) != 0 || p[1 + n] != '=')
			continue;
		len = strcspn(p + 2 + n, "&");
		cr_assert_lt(len, room);
		memcpy(out, p + 2 + n, len);
		out[s3_dec(out, len)] = '\0';
		return true;
	}
	out[0] = '\0';
	return false;
}

/* As radosgw has it: a prefix and a token are not encoded, and control characters in them
 * become references to characters that XML has not got. */
static void put_text(FILE *f, const char *s)
{
	for (; *s != '\0'; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == 0x7f || (c < ' ' && c != '\t' && c != '\n'))
			fprintf(f, "&#x%02x;", c);
		else if (strchr("<>&\"'", c) != NULL)
			fprintf(f, "&#%d;", c);
		else
			fputc(c, f);
	}
}

static bool serve(void *arg, const struct http_script_req *rq, struct http_script_answer *out)
{
	const struct bucket *b = arg;
	char prefix[2048], after[2048], token[2048], num[16], last[2048] = "";
	char *xml = NULL, *body = NULL;
	size_t xml_len, body_len, plen;
	bool more = false;
	unsigned max, count = 0;
	FILE *f = open_memstream(&xml, &xml_len), *g = open_memstream(&body, &body_len);
	char delim[8];

	if (strstr(rq->target, "list-type=2") == NULL)
		return false;
	(void)query_get(rq->target, "prefix", prefix, sizeof(prefix));
	(void)query_get(rq->target, "start-after", after, sizeof(after));
	(void)query_get(rq->target, "continuation-token", token, sizeof(token));
	(void)query_get(rq->target, "delimiter", delim, sizeof(delim));
	(void)query_get(rq->target, "max-keys", num, sizeof(num));
	max = MIN((unsigned)atoi(num), b->page);
	plen = strlen(prefix);
	for (size_t i = 0; i < b->n && !more; i++) {
		const char *k = b->keys[i], *slash;
		size_t n;

		if (strncmp(k, prefix, plen) != 0)
			continue;
		if (*token != '\0') {
			size_t tl = strlen(token);

			if (strcmp(k, token) <= 0 ||
			    (token[tl - 1] == '/' && tl > plen && strncmp(k, token, tl) == 0))
				continue;
		} else if (strcmp(k, after) <= 0 && *after != '\0') {
			continue;
		}
		slash = *delim != '\0' ? strchr(k + plen, '/') : NULL;
		n = slash != NULL ? (size_t)(slash - k) + 1 : strlen(k);
		if (slash != NULL && strlen(last) == n && strncmp(k, last, n) == 0)
			continue;
		if (count == max) {
			more = true;
			break;
		}
		count++;
		memcpy(last, k, n);
		last[n] = '\0';
		fputs(slash != NULL ? "<CommonPrefixes><Prefix>" : "<Contents><Key>", g);
		s3_enc_path(g, last);
		fputs(slash != NULL ? "</Prefix></CommonPrefixes>" :
				      "</Key><LastModified>2020-01-02T03:04:05.678Z</LastModified>"
				      "<ETag>&quot;e1&quot;</ETag><Size>7</Size></Contents>",
		    g);
	}
	fclose(g);
	fprintf(f, "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult "
		   "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><EncodingType>url"
		   "</EncodingType><IsTruncated>%s</IsTruncated>",
	    more ? "true" : "false");
	fputs("<Prefix>", f);
	put_text(f, prefix);
	fputs("</Prefix>", f);
	if (more) {
		fputs("<NextContinuationToken>", f);
		put_text(f, last);
		fputs("</NextContinuationToken>", f);
	}
	fprintf(f, "%s</ListBucketResult>", body);
	fclose(f);
	out->raw = http_script_format(200, NULL, xml, xml_len, &out->raw_len, &out->head_len);
	free(xml);
	free(body);
	return true;
}

/* --- what must come out */

struct want {
	char name[64];
	enum ufs_kind kind;
};

static int want_cmp(const void *va, const void *vb)
{
	const struct want *a = va, *b = vb;

	return ufs_key_cmp(a->name, strlen(a->name), a->kind, b->name, strlen(b->name), b->kind);
}

static int str_cmp(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static size_t expected(const struct bucket *b, const char *prefix, struct want *w)
{
	size_t n = 0, out = 0, plen = strlen(prefix);

	for (size_t i = 0; i < b->n; i++) {
		const char *rel = b->keys[i] + plen, *slash;
		size_t len;

		if (strncmp(b->keys[i], prefix, plen) != 0 || *rel == '\0')
			continue;
		slash = strchr(rel, '/');
		len = slash != NULL ? (size_t)(slash - rel) : strlen(rel);
		if (!ufs_name_ok(rel, len))
			continue;
		memcpy(w[n].name, rel, len);
		w[n].name[len] = '\0';
		w[n++].kind = slash != NULL ? UFS_DIR : UFS_FILE;
	}
	qsort(w, n, sizeof(*w), want_cmp);
	for (size_t i = 0; i < n; i++) {
		bool shadowed = false;

		if (i > 0 && want_cmp(&w[i], &w[i - 1]) == 0)
			continue;
		for (size_t k = 0; w[i].kind == UFS_FILE && k < n; k++)
			shadowed |= w[k].kind == UFS_DIR && strcmp(w[k].name, w[i].name) == 0;
		if (!shadowed)
			w[out++] = w[i]; /* behind i only duplicates of it are overwritten */
	}
	return out;
}

static void random_bucket(struct bucket *b, unsigned *seed)
{
	/* Few characters around '/' (0x2f), so that names are prefixes of others. */
	static const char *const parts[] = { "a", "b", "-", ".", "/", "0", "aa", "+", "\xc3\xa9",
		"\x01", "\x1f&<", "\x7f\r" };

	b->n = (size_t)(rand_r(seed) % 40);
	b->keys = calloc(b->n + 1, sizeof(char *));
	for (size_t i = 0; i < b->n; i++) {
		char key[64] = "d/";
		int parts_n = rand_r(seed) % 6;

		if (rand_r(seed) % 8 == 0)
			strcpy(key, "c/");
		for (int k = 0; k < parts_n; k++)
			strcat(key, parts[(size_t)rand_r(seed) % ARRAY_LEN(parts)]);
		b->keys[i] = strdup(key);
	}
	qsort(b->keys, b->n, sizeof(char *), str_cmp);
	for (size_t i = 1; i < b->n;) { /* a key is there once */
		if (strcmp(b->keys[i], b->keys[i - 1]) != 0) {
			i++;
			continue;
		}
		free(b->keys[i]);
		memmove(&b->keys[i], &b->keys[i + 1], (b->n - i) * sizeof(char *));
		b->n--;
	}
	b->page = 1 + (unsigned)rand_r(seed) % 6;
}

static void walk(struct ufs_fix *f, const struct bucket *b, bool forget, unsigned seed)
{
	struct want w[64];
	size_t n = expected(b, "d/", w), got = 0;
	struct ufs_list rq = { .path = "d" };
	char after[64];
	unsigned pages = 0;

	for (;;) {
		int err = ufs_fix_list(f, &rq);

		cr_assert_eq(err, 0, "seed %u: %s", seed, strerror(-err));
		cr_assert_lt(++pages, 500u, "seed %u: it never ends", seed);
		for (size_t i = 0; i < rq.count; i++, got++) {
			cr_assert_lt(got, n, "seed %u: %s is too much", seed, rq.entries[i].name);
			cr_assert_str_eq(rq.entries[i].name, w[got].name, "seed %u", seed);
			cr_assert_eq(rq.entries[i].attr.kind, w[got].kind, "seed %u", seed);
		}
		if (!rq.more)
			break;
		if (rq.count > 0) {
			strcpy(after, rq.entries[rq.count - 1].name);
			rq.after_kind = rq.entries[rq.count - 1].attr.kind;
			rq.after = after;
		}
		if (forget && rq.count > 0)
			ufs_list_free(&rq);
	}
	cr_assert_eq(got, n, "seed %u: %zu of %zu came", seed, got, n);
	ufs_list_free(&rq);
}

Test(s3_list, any_keys_any_page_size)
{
	struct http_script *hs = http_script_new();
	struct bucket b = { .page = 1 };
	struct ufs_fix f;

	setenv("AWS_ACCESS_KEY_ID", "k", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "s", 1);
	ufs_fix_init(&f, http_script_url(hs));
	ufs_fix_attach(&f, "s3://bucket");
	for (unsigned round = 1; round <= 300; round++) {
		unsigned seed = round;

		http_script_set_handler(hs, NULL, NULL);
		random_bucket(&b, &seed);
		http_script_set_handler(hs, serve, &b);
		walk(&f, &b, round % 2 == 0, round);
		for (size_t i = 0; i < b.n; i++)
			free(b.keys[i]);
		free(b.keys);
	}
	ufs_fix_fini(&f);
	http_script_free(&hs);
}

/* --- answers that no listing may believe */

#define LIST(body) "<ListBucketResult>" body "</ListBucketResult>"
#define OBJ(key)                                                                                   \
	"<Contents><Key>" key "</Key><LastModified>2020-01-02T03:04:05Z</LastModified>"            \
	"<ETag>\"e\"</ETag><Size>1</Size></Contents>"

static int list_answer(const char *xml, struct ufs_list *rq, struct ufs_fix *f, int status,
    unsigned times)
{
	struct http_script *hs = http_script_new();
	int err;

	setenv("AWS_ACCESS_KEY_ID", "k", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "s", 1);
	http_script_reply(hs, "GET /b?", status, NULL, xml, strlen(xml), times);
	http_script_reply(
	    hs, "GET /b?", 200, NULL, LIST(OBJ("d/late")), strlen(LIST(OBJ("d/late"))), 0);
	ufs_fix_init(f, http_script_url(hs));
	ufs_fix_set(f, "ufs.timeout", "30s");
	ufs_fix_attach(f, "s3://b");
	memset(rq, 0, sizeof(*rq));
	rq->path = "d";
	err = ufs_fix_list(f, rq);
	http_script_free(&hs);
	return err;
}

static void expect_list(const char *xml, int status, unsigned times, int want_err, size_t count)
{
	struct ufs_list rq;
	struct ufs_fix f;
	int err = list_answer(xml, &rq, &f, status, times);

	cr_expect_eq(err, want_err, "%.80s: %d", xml, err);
	cr_expect_eq(rq.count, count, "%.80s: %zu entries", xml, rq.count);
	ufs_list_free(&rq);
	ufs_fix_fini(&f);
}

Test(s3_list, hostile_answers)
{
	expect_list(LIST(OBJ("d/x")), 200, 0, 0, 1);
	expect_list(LIST(OBJ("other/x")), 200, 0, -EIO, 0);
	expect_list(LIST(OBJ("d/x/y")), 200, 0, -EIO, 0);
	expect_list(LIST("<Contents><Key>d/x</Key><Size>1</Size></Contents>"), 200, 0, -EIO, 0);
	expect_list(LIST("<IsTruncated>true</IsTruncated>"), 200, 0, -EIO, 0);
	expect_list("<html><body>hello</body></html>", 200, 0, -EIO, 0);
	expect_list("<!DOCTYPE x [<!ENTITY a \"b\">]>" LIST(OBJ("d/&a;")), 200, 0, -EIO, 0);
	expect_list("not found", 404, 0, -EIO, 0);
	expect_list("<Error><Code>NoSuchBucket</Code></Error>", 404, 0, -EIO, 0);
	expect_list("<Error><Code>AccessDenied</Code></Error>", 403, 0, -EACCES, 0);
	expect_list("<Error><Code>ExpiredToken</Code></Error>", 400, 0, -EACCES, 0);
	/* These get better when asked again. */
	expect_list("<Error><Code>InternalError</Code></Error>", 200, 2, 0, 1);
	expect_list("<Error><Code>SlowDown</Code></Error>", 503, 3, 0, 1);
	expect_list("<ListBucketResult>" OBJ("d/half"), 200, 1, 0, 1);
	expect_list("", 429, 1, 0, 1);
}

/* A key that no XML can have makes no directory unreadable. */
Test(s3_list, control_characters_as_they_are)
{
	struct ufs_list rq;
	struct ufs_fix f;

	cr_assert_eq(list_answer(LIST("<Prefix>d\x02/</Prefix>" OBJ("d/a\x01") OBJ("d/b&#x1f;")),
			 &rq, &f, 200, 0),
	    0);
	cr_assert_eq(rq.count, 2);
	cr_assert_str_eq(rq.entries[0].name, "a\x01");
	cr_assert_str_eq(rq.entries[1].name, "b\x1f");
	ufs_list_free(&rq);
	ufs_fix_fini(&f);
}

Test(s3_list, names_no_path_can_have)
{
	struct ufs_list rq;
	struct ufs_fix f;

	cr_assert_eq(list_answer(LIST("<EncodingType>url</EncodingType>" OBJ("d/.") OBJ("d/..") OBJ(
				     "d/a%00b") OBJ("d/ok+1%2B%20")
				     "<CommonPrefixes><Prefix>d//</Prefix></CommonPrefixes>"),
			 &rq, &f, 200, 0),
	    0);
	cr_assert_eq(rq.count, 1);
	cr_assert_str_eq(rq.entries[0].name, "ok 1+ ");
	cr_assert_eq(ufs_fix_counter(&f, CTR_UFS_HIDDEN), 4);
	cr_assert(rq.exists);
	ufs_list_free(&rq);
	ufs_fix_fini(&f);
}

Test(s3_list, a_token_that_repeats_is_an_error)
{
	struct http_script *hs = http_script_new();
	const char *xml = LIST("<IsTruncated>true</IsTruncated><NextContinuationToken>t"
			       "</NextContinuationToken><CommonPrefixes><Prefix>d/x/</Prefix>"
			       "</CommonPrefixes>");
	struct ufs_list rq = { .path = "d" };
	struct ufs_fix f;

	setenv("AWS_ACCESS_KEY_ID", "k", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "s", 1);
	http_script_reply(hs, "GET /b?", 200, NULL, xml, strlen(xml), 0);
	ufs_fix_init(&f, http_script_url(hs));
	ufs_fix_attach(&f, "s3://b");
	cr_assert_eq(ufs_fix_list(&f, &rq), 0);
	cr_assert(rq.more);
	cr_assert_eq(rq.count, 1);
	rq.after = rq.entries[0].name; /* points into what is freed by the next call */
	rq.after_kind = UFS_DIR;
	cr_assert_eq(ufs_fix_list(&f, &rq), -EIO);
	ufs_list_free(&rq);
	ufs_fix_fini(&f);
	http_script_free(&hs);
}

Test(s3_list, a_server_that_ignores_start_after)
{
	struct http_script *hs = http_script_new();
	const char *xml = LIST(OBJ("d/a") OBJ("d/b-") OBJ("d/c") "<CommonPrefixes><Prefix>d/b/"
								 "</Prefix></CommonPrefixes>");
	struct ufs_list rq = { .path = "d", .after = "b", .after_kind = UFS_DIR };
	struct ufs_fix f;

	setenv("AWS_ACCESS_KEY_ID", "k", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "s", 1);
	http_script_reply(hs, "GET /b?", 200, NULL, xml, strlen(xml), 0);
	ufs_fix_init(&f, http_script_url(hs));
	ufs_fix_attach(&f, "s3://b");
	cr_assert_eq(ufs_fix_list(&f, &rq), 0);
	cr_assert_eq(rq.count, 1);
	cr_assert_str_eq(rq.entries[0].name, "c");
	cr_assert(strstr(http_script_get(hs, 0)->target, "&start-after=d%2Fb%2F%F4%8F%BF%BF"), "%s",
	    http_script_get(hs, 0)->target);
	ufs_list_free(&rq);
	ufs_fix_fini(&f);
	http_script_free(&hs);
}
