/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Each allocation fails once: a right answer or a clean error, and nothing is left
 * behind (the loop and the pool assert that they are empty).  For S3 only those of
 * the start of a request and of the parser: libcurl 7.88 itself crashes when the
 * memory of its hash tables or of OpenSSL's SHA256 is refused.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../lib/http_script.h"
#include "../../lib/nth_fault.h"
#include "base/log.h"
#include "ufs/s3_priv.h"
#include "ufs_fix.h"

TestSuite(nomem, .init = ufs_fix_limit);

static void on_data(struct ufs_read *rq, const void *data, size_t len)
{
	struct ufs_fix *f = rq->req.user;

	(void)data;
	f->data_len += len;
}

/* A stat, read or list; only its start sees the fault. */
static int run(struct ufs_fix *f, int what, unsigned n, struct ufs_list *list)
{
	struct ufs_stat st = { .req = { .user = f }, .path = "k" };
	struct ufs_read rd = { .req = { .user = f },
		.path = "k",
		.version = "v1",
		.len = 8,
		.on_data = on_data };

	f->data_len = 0;
	list->req.user = f;
	nth_arm(n);
	if (what == 0)
		ufs_stat(f->ufs, &st, ufs_fix_done);
	else if (what == 1)
		ufs_read(f->ufs, &rd, ufs_fix_done);
	else
		ufs_list(f->ufs, list, ufs_fix_done);
	nth_disarm();
	ufs_fix_wait(f);
	return f->err;
}

static void every(struct ufs_fix *f, int what, const char *path)
{
	unsigned n, right = 0;
	bool fired = true;

	for (n = 1; fired; n++) {
		struct ufs_list rq = { .path = path };
		int err = run(f, what, n, &rq);

		fired = nth_fired();
		/* -EIO: libcurl kept its failure to itself until later. */
		cr_assert(err == 0 || (fired && (err == -ENOMEM || err == -EIO)), "request %d, allocation %u: %s",
		    what, n, strerror(-err));
		if (err == 0) {
			right++;
			cr_assert(what != 1 || f->data_len == 8);
			cr_assert(what != 2 || rq.count == 1, "%zu entries", rq.count);
		}
		ufs_list_free(&rq);
	}
	cr_assert_gt(right, 0);
	cr_assert_gt(n, 2);
}

Test(nomem, s3)
{
	static const char list[] = "<ListBucketResult><Contents><Key>d/x</Key><LastModified>"
				   "2020-01-02T03:04:05Z</LastModified><ETag>\"e\"</ETag><Size>1"
				   "</Size></Contents></ListBucketResult>";
	static const char none[] = "<ListBucketResult></ListBucketResult>";
	struct http_script *hs = http_script_new();
	struct ufs_fix f;

	setenv("AWS_ACCESS_KEY_ID", "key", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
	http_script_reply(hs, "prefix=k%2F", 200, NULL, none, strlen(none), 0);
	http_script_reply(hs, "GET /b?", 200, NULL, list, strlen(list), 0);
	http_script_reply(hs, "HEAD /b/k", 200,
	    "ETag: \"v1\"\r\nLast-Modified: Thu, 02 Jan 2020 03:04:05 GMT\r\n", "12345678", 8, 0);
	http_script_reply(hs, "GET /b/k", 206,
	    "ETag: \"v1\"\r\nContent-Range: bytes 0-7/8\r\n", "12345678", 8, 0);
	log_set_level(LOG_LVL_ERROR);
	ufs_fix_init(&f, http_script_url(hs));
	ufs_fix_set(&f, "ufs.timeout", "5s");
	ufs_fix_attach(&f, "s3://b");
	for (int what = 0; what < 3; what++)
		every(&f, what, "d");
	ufs_fix_fini(&f);
	http_script_free(&hs);
}

enum write { PUT, PUT_ABSENT, BEGIN, PART, PART_COPY, END, ABORT, COPY, DELETE, DELETE_ONE,
	MKDIR, RMDIR, WRITES };

/* One of them; only its start sees the fault. */
static int run_write(struct ufs_fix *f, enum write what, unsigned n)
{
	static const struct ufs_part_id id = { .number = 1, .len = 5,
		.etag = "5f363e0e58a95f06cbe9bbc662c5dfb6" };
	static const char *const paths[] = { "a", "b" };
	int errs[2];
	struct ufs_req req = { .user = f };
	struct ufs_put put = { .req = req, .path = "k", .body = "x", .len = 1,
		.absent = what == PUT_ABSENT };
	struct ufs_multi_begin begin = { .req = req, .path = "k" };
	struct ufs_part part = { .req = req, .path = "k", .id = "i", .number = 1, .len = 1,
		.body = what == PART ? "x" : NULL, .src_path = "s", .src_version = "v1" };
	struct ufs_multi_end end = { .req = req, .path = "k", .id = "i", .parts = &id, .nparts = 1 };
	struct ufs_multi_abort drop = { .req = req, .path = "k", .id = "i" };
	struct ufs_copy copy = { .req = req, .src = "s", .dst = "k", .src_version = "v1" };
	struct ufs_delete del = { .req = req, .paths = paths, .n = what == DELETE ? 2 : 1,
		.errs = errs };
	struct ufs_mkdir mk = { .req = req, .path = "d" };
	struct ufs_rmdir rm = { .req = req, .path = "d" };

	nth_arm(n);
	switch (what) {
	case PUT:
	case PUT_ABSENT:
		ufs_put(f->ufs, &put, ufs_fix_done);
		break;
	case BEGIN:
		ufs_multi_begin(f->ufs, &begin, ufs_fix_done);
		break;
	case PART:
	case PART_COPY:
		ufs_part(f->ufs, &part, ufs_fix_done);
		break;
	case END:
		ufs_multi_end(f->ufs, &end, ufs_fix_done);
		break;
	case ABORT:
		ufs_multi_abort(f->ufs, &drop, ufs_fix_done);
		break;
	case COPY:
		ufs_copy(f->ufs, &copy, ufs_fix_done);
		break;
	case DELETE:
	case DELETE_ONE:
		ufs_delete(f->ufs, &del, ufs_fix_done);
		break;
	case MKDIR:
		ufs_mkdir(f->ufs, &mk, ufs_fix_done);
		break;
	default:
		ufs_rmdir(f->ufs, &rm, ufs_fix_done);
	}
	nth_disarm();
	ufs_fix_wait(f);
	return f->err;
}

/* What any of them takes for a success. */
static bool yes(void *arg, const struct http_script_req *rq, struct http_script_answer *out)
{
	const char *body = "";

	(void)arg;
	if (strstr(rq->target, "uploads=") != NULL)
		body = "<InitiateMultipartUploadResult><UploadId>i</UploadId>"
		       "</InitiateMultipartUploadResult>";
	else if (strstr(rq->target, "delete=") != NULL)
		body = "<DeleteResult><Deleted><Key>a</Key></Deleted><Deleted><Key>b</Key>"
		       "</Deleted></DeleteResult>";
	else if (strcmp(rq->method, "POST") == 0)
		body = "<CompleteMultipartUploadResult><ETag>e</ETag>"
		       "</CompleteMultipartUploadResult>";
	else if (strstr(rq->head, "copy-source") != NULL)
		body = strchr(rq->target, '?') != NULL ?
		    "<CopyPartResult><ETag>v1</ETag></CopyPartResult>" :
		    "<CopyObjectResult><ETag>v1</ETag></CopyObjectResult>";
	out->raw = http_script_format(200,
	    "ETag: \"v1\"\r\nLast-Modified: Thu, 02 Jan 2020 03:04:05 GMT\r\n", body,
	    strlen(body), &out->raw_len, &out->head_len);
	return true;
}

Test(nomem, s3_writes)
{
	struct http_script *hs = http_script_new();
	struct ufs_fix f;

	setenv("AWS_ACCESS_KEY_ID", "key", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
	http_script_set_handler(hs, yes, NULL);
	log_set_level(LOG_LVL_ERROR);
	ufs_fix_init(&f, http_script_url(hs));
	ufs_fix_set(&f, "ufs.timeout", "5s");
	ufs_fix_attach(&f, "s3://b");
	cr_assert_eq(run_write(&f, PUT, 1000000), 0); /* OpenSSL's first use */
	for (int what = 0; what < WRITES; what++) {
		bool fired = true;
		unsigned n;

		for (n = 1; fired; n++) {
			int err = run_write(&f, what, n);

			fired = nth_fired();
			cr_assert(err == 0 || (fired && (err == -ENOMEM || err == -EIO)),
			    "request %d, allocation %u: %s", what, n, strerror(-err));
		}
		cr_assert_gt(n, 2);
	}
	ufs_fix_fini(&f);
	http_script_free(&hs);
}

Test(nomem, posix)
{
	char dir[] = "/tmp/ufs-nomem-XXXXXX", uri[64], cmd[128];
	struct ufs_fix f;

	cr_assert_not_null(mkdtemp(dir));
	(void)snprintf(cmd, sizeof(cmd), "cd %s && mkdir d && touch d/x k", dir);
	cr_assert_eq(system(cmd), 0);
	log_set_level(LOG_LVL_ERROR);
	ufs_fix_init(&f, NULL);
	(void)snprintf(uri, sizeof(uri), "file://%s", dir);
	ufs_fix_attach(&f, uri);
	every(&f, 0, "d");
	every(&f, 2, "d");
	ufs_fix_fini(&f);
	(void)snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	cr_assert_eq(system(cmd), 0);
}

static int count_object(void *arg, const struct s3_xml_object *o)
{
	(void)o;
	++*(unsigned *)arg;
	return 0;
}

Test(nomem, parser_and_attaching)
{
	static const char list[] = "<ListBucketResult><Contents><Key>d/x</Key><LastModified>"
				   "2020-01-02T03:04:05Z</LastModified><ETag>e</ETag><Size>1"
				   "</Size></Contents></ListBucketResult>";
	unsigned count, n;
	struct s3_xml_sink sink = { .arg = &count, .object = count_object };
	bool fired = true;
	struct ufs_fix f;

	for (n = 1; fired; n++) {
		struct s3_xml *x;
		int err = -ENOMEM;

		count = 0;
		nth_arm(n);
		x = s3_xml_new(&sink);
		if (x != NULL)
			err = s3_xml_feed(x, list, strlen(list));
		if (x != NULL && err == 0)
			err = s3_xml_end(x);
		nth_disarm();
		fired = nth_fired();
		s3_xml_free(&x);
		cr_assert(err == 0 ? count == 1 : fired && err == -ENOMEM, "%u: %d", n, err);
	}
	cr_assert_gt(n, 3);
	setenv("AWS_ACCESS_KEY_ID", "key", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
	ufs_fix_init(&f, NULL);
	for (fired = true, n = 1; fired; n++) {
		struct errtext et = { "" };
		int err;

		nth_arm(n);
		err = ufs_new(&f.ufs, &f.env, n % 2 == 0 ? "s3://b/p" : "s3://b", &et);
		nth_disarm();
		fired = nth_fired();
		cr_assert(err == 0 || (fired && err == -ENOMEM && et.s[0] != '\0'), "%u: %d", n, err);
		ufs_free(&f.ufs);
	}
	cr_assert_gt(n, 5);
	ufs_fix_fini(&f);
}

/* STS's answer: the whole, or -ENOMEM and nothing of it.  (Not the JSON of others: yajl
 * 2.1 itself crashes when its memory is refused.) */
Test(nomem, credentials)
{
	static const char answer[] = "<R><Credentials><AccessKeyId>a</AccessKeyId>"
		"<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
		"<Expiration>2020-01-02T03:04:05Z</Expiration></Credentials></R>";
	bool fired = true;
	unsigned n;

	for (n = 1; fired; n++) {
		struct errtext et = { "" };
		struct s3_cred c;
		int err;

		nth_arm(n);
		err = s3_answer_sts(&c, answer, strlen(answer), &et);
		nth_disarm();
		fired = nth_fired();
		if (err == 0)
			cr_assert(strcmp(c.access, "a") == 0 && strcmp(c.secret, "s") == 0 &&
			    c.token != NULL && c.expires == 1577934245, "%u", n);
		else
			cr_assert(fired && err == -ENOMEM && c.access == NULL && c.secret == NULL &&
			    c.token == NULL, "%u: %d %s", n, err, et.s);
		s3_cred_fini(&c);
	}
	cr_assert_gt(n, 3);
}
