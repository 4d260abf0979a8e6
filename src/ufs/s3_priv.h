/* SPDX-License-Identifier: BSD-2-Clause */
/* What the S3 files share. */
#ifndef UFS_S3_PRIV_H
#define UFS_S3_PRIV_H

#include <stdio.h>

#include "reactor/http.h"
#include "reactor/pool.h"
#include "reactor/timer.h"
#include "ufs/s3_keys.h"
#include "ufs/ufs_priv.h"

#define S3_KEY_MAX 1024
#define S3_KEY_BUF (S3_KEY_MAX + 16)

/* --- s3_sign.c: AWS Signature Version 4, and sums of libcrypto's */
#define S3_HEADERS_MAX 64u /* of a request */

/* The signing key of one day and one set of credentials.  Zero it. */
struct s3_sign_key {
	unsigned generation; /* of the credentials */
	char day[9];	     /* "" : none */
	unsigned char key[32];
};

struct s3_sign {
	const char *method, *url;
	const char *access, *secret, *region;
	unsigned generation;
	char stamp[17]; /* "20130524T000000Z", also sent as x-amz-date */
	/* All that is sent, but for Host. */
	const struct http_header *headers;
	unsigned nheaders;
};

/* The value of the Authorization header, the caller's to free: 0 or -ENOMEM. */
int s3_sign(struct s3_sign_key *k, const struct s3_sign *s, char **authorization);
/* These are false out of memory, and where MD5 is not allowed. */
bool s3_md5(const void *data, size_t len, unsigned char out[16]);
bool s3_md5_base64(const void *data, size_t len, char out[25]);
/* What storage makes of the ETags of the parts: false also if they are no MD5. */
bool s3_multi_etag(const struct ufs_part_id *parts, unsigned n, char out[UFS_VERSION_MAX]);

/* --- s3.c */
struct s3 {
	struct ufs ufs;
	char *bucket;
	char *prefix;	/* "" or "a/b/" */
	char *base;	/* URL of the bucket, without a final slash */
	struct s3_keys *keys;
	struct s3_sign_key sign_key;
	char sse_key[45], sse_md5[25]; /* the customer's key, in base64; "": none */
	/* Largest CopyObject, and the part of a larger copy: for tests to lower. */
	uint64_t copy_max, copy_part;
	/* What has been learnt of the storage. */
	bool quote_match;   /* conditions of writes compare the ETag with its quotes */
	bool copy_match[2]; /* copies (of objects, of parts) heed their condition */
	bool no_batch;	    /* there is no DeleteObjects */
	bool no_sums;	    /* it refuses requests with checksums */
};

#define S3_OF(u) container_of(u, struct s3, ufs)

/* The key of a path: "prefix/path", with a final slash if dir (not for an empty
 * key).  0 or -ENAMETOOLONG. */
int s3_key(const struct s3 *s3, const char *path, bool dir, char key[S3_KEY_BUF]);
/* The value of If-Match for a version, of a write. */
void s3_match_text(const struct s3 *s3, const char *version, char out[UFS_VERSION_MAX + 2]);
/* The headers of whatever makes an object; how many. */
#define S3_OBJECT_HEADERS 3u
unsigned s3_object_headers(const struct s3 *s3, struct http_header out[S3_OBJECT_HEADERS]);

/* --- s3_sse.c: objects encrypted by the storage with a key that each request brings */
/* From a file; "": none.  -EINVAL with words. */
int s3_sse_load(struct s3 *s3, const char *path, struct errtext *et);
#define S3_SSE_HEADERS 6u
/* The headers of a request for an object, and if it copies, for what it copies; how many. */
unsigned s3_sse_headers(const struct s3 *s3, bool copies, struct http_header out[S3_SSE_HEADERS]);

/* --- s3_enc.c: percent-encoding in the canonical form of SigV4 */
void s3_enc_path(FILE *f, const char *s);  /* keeps "/" */
void s3_enc_value(FILE *f, const char *s); /* encodes "/" too */
void s3_enc_xml(FILE *f, const char *s); /* no control characters */
/* Closes a memory stream over *text: false if any of it was lost for want of memory (a
 * URL cut short would be another object's). */
bool s3_stream_close(FILE *f, char *const *text);
/* Decodes in place what encoding-type=url encodes; returns the new length. */
size_t s3_dec(char *s, size_t len);
/* "\"etag\"" -> "etag" in out; false if it is missing, too long or not clean. */
bool s3_etag(const char *value, char out[UFS_VERSION_MAX]);
/* HTTP or ISO 8601 date; false if it is neither. */
bool s3_http_date(const char *text, time_t *out);
bool s3_iso_date(const char *text, time_t *out);
/* Decimal digits only, the whole text. */
bool s3_u64(const char *text, uint64_t *out);

/* --- s3_error.c: <Error> documents */
struct s3_error {
	char code[64];
	char message[256];
	char request_id[80];
	char region[40];
	char endpoint[128]; /* of a redirection */
};

#define S3_ERROR_BYTES 65536u /* what is longer is no such document */

struct s3_error_parser;
struct s3_error_parser *s3_error_parser_new(struct s3_error *out);
/* Takes any bytes; stops looking at what is no such document. */
void s3_error_feed(struct s3_error_parser *p, const void *data, size_t len);
/* The end of the document: `out` is complete now. */
void s3_error_parser_free(struct s3_error_parser **p);

/* --- s3_req.c: one signed request, repeated until it is answered or ufs.timeout has
 * passed.  GET and HEAD end within that time of their start; for the others it is the
 * time in which nothing moves, and an attempt that moves goes on.  Embedded by its user;
 * leaf contract of task.h. */
struct s3_req {
	uint32_t magic;
	/* set by the user */
	struct s3 *s3;
	const char *method;
	char range[64];			    /* "bytes=0-9" or "" */
	char if_match[UFS_VERSION_MAX + 2]; /* quoted, or "" */
	const struct http_header *extra; /* further headers; must stay */
	unsigned nextra;
	const void *body; /* must stay */
	size_t body_len;
	uint64_t until;	 /* loop time instead of ufs.timeout from now, or 0 */
	unsigned tries;	 /* attempts at most, and no word if it may pass; 0: no limit */
	bool optional;	 /* -EOPNOTSUPP if the storage does not know such a request */
	bool summed;	 /* with a checksum: -EBADMSG if the storage gets another one */
	/* Before each attempt: forget what came, set the range anew.  May be NULL. */
	void (*again)(struct s3_req *r);
	/* The head of a 2xx answer: 0, or a negative errno to end with.  May be NULL. */
	int (*head)(struct s3_req *r);
	/* Its body: 0; a negative errno to end with; -ECANCELED: r has been freed.
	 * May be NULL. */
	int (*data)(struct s3_req *r, const void *data, size_t len);
	/* It is complete: 0, -EAGAIN (broken: repeat), -EBADMSG (it is an error document:
	 * `error` says which) or a negative errno.  May be NULL. */
	int (*complete)(struct s3_req *r);
	/* True: all is there although the attempt failed.  May be NULL. */
	bool (*whole)(struct s3_req *r);
	void (*done)(struct s3_req *r, int err);
	bool missing_is_normal; /* 404 is an answer, not worth a line of log */
	/* results */
	long status;
	struct s3_error error;
	char words[512]; /* the failure for people */
	bool passing;	 /* the failure may pass: it was repeated as long as allowed */
	unsigned attempt; /* how many were made */
	/* private */
	struct http_req hr;
	struct http_header headers[S3_HEADERS_MAX];
	char *authorization;
	struct s3_sign sign;
	struct s3_error_parser *parser;
	char *url;
	struct timer pause;
	uint64_t deadline;
	uint64_t high; /* bytes of the body that have arrived, in the best attempt */
	enum { S3_REQ_REPEAT, S3_REQ_FAIL, S3_REQ_KEYS_FAIL, S3_REQ_KEYS_WAIT } next;
	struct s3_keys_wait keys;
	unsigned generation; /* of the credentials that were sent */
	bool rejected;	     /* they were, once */
	unsigned digests;    /* answers that the checksum is another */
	bool answered;	     /* an attempt has got an answer */
	bool object;	     /* what an object is made of, read from or looked at by */
	int sink_err, start_err;
	size_t error_bytes;
	bool running, body_stop;
};

/* query: canonical (sorted, encoded), or NULL; key NULL: the caller found no memory
 * to say it, and done gets -ENOMEM. */
void s3_req_start(struct s3_req *r, const char *key, const char *query);
void s3_req_abort(struct s3_req *r); /* no-op if not running */

/* --- s3_sums.c: checksums of what is sent */
#define S3_SUM_HEADER "x-amz-checksum-crc32c"
#define S3_SUM_TEXT 9u /* with the final NUL */
void s3_sum_text(uint32_t crc, char out[S3_SUM_TEXT]);
/* Does the answer name another sum?  Says so in the log. */
bool s3_sum_differs(const struct s3_req *r, const char *want);
/* May the failure be about the checksum's header, not the checksum? */
bool s3_sum_refused(const struct s3_req *r, int err);
/* That was it: no further request has one. */
void s3_sums_end(struct s3 *s3);
/* The storage's sum of the whole, of an upload in parts: false if it is another. */
bool s3_sums_agree(const struct ufs_part_id *parts, unsigned n, const char *answer);
/* Is this the storage's word for a body that does not have the sum? */
bool s3_bad_digest(const struct s3_error *e);

/* --- s3_doc.c: documents that answer writes, as they arrive */
struct s3_doc_result {
	char root[40];
	char upload_id[UFS_UPLOAD_MAX];
	char etag[UFS_VERSION_MAX];
	char sum[32];	       /* ChecksumCRC32C */
	bool truncated;	       /* a listing goes on */
	struct s3_error error; /* of an error document */
};

struct s3_doc;
/* entry: each <Deleted> (code "") and <Error> within the root; or NULL. */
struct s3_doc *s3_doc_new(void (*entry)(void *arg, const char *key, const char *code), void *arg);
/* Each <Upload> within the root; negative errno ends the parsing. */
void s3_doc_uploads(struct s3_doc *d,
    int (*upload)(void *arg, const char *key, const char *id, const char *initiated));
/* 0, -ENOMEM, -EPROTO. */
int s3_doc_feed(struct s3_doc *d, const void *data, size_t len);
/* The end of the body: 0, -EAGAIN (cut short), -EBADMSG (an error document), or as
 * above. */
int s3_doc_end(struct s3_doc *d);
const struct s3_doc_result *s3_doc_result(const struct s3_doc *d);
void s3_doc_free(struct s3_doc **d);

/* --- s3_ask.c: a request that a document answers.  Leaf contract of task.h. */
struct s3_ask {
	struct s3_req req; /* set as for s3_req_start(), but for its callbacks */
	const char *root;  /* the document's, if all went well */
	void (*entry)(void *ask, const char *key, const char *code); /* or NULL */
	int (*upload)(void *ask, const char *key, const char *id, const char *initiated); /* or NULL */
	void (*done)(struct s3_ask *a, int err);
	struct s3_doc_result res;
	struct s3_doc *doc; /* private */
};

void s3_ask_start(struct s3_ask *a, const char *key, const char *query);
void s3_ask_abort(struct s3_ask *a);

/* What an object says of who has put it, so that one whose answer was lost is known again. */
#define S3_MARK "x-amz-meta-batonfs-request"
#define S3_MARK_LEN 32
#define S3_MARK_FILE 16 /* its first digits are of what is written, if that has a number */
/* mount 0 or file 0: no number.  "": there is no randomness yet. */
void s3_mark(uint64_t mount, uint64_t file, char mark[S3_MARK_LEN + 1]);
bool s3_mark_is_of(const char *mark, uint64_t mount, uint64_t file);

/* HEAD of one key: -ENOENT if there is nothing. */
struct s3_look {
	struct s3 *s3; /* set by the user, and req.until if need be */
	void (*done)(struct s3_look *l, int err);
	struct ufs_attr attr;	    /* results */
	char mark[S3_MARK_LEN + 1]; /* S3_MARK, "" if none */
	struct s3_req req;	    /* in done: the answer's headers */
};

void s3_look_start(struct s3_look *l, const char *key);
/* The attributes from the head of a HEAD's answer: 0 or -EIO. */
int s3_head_attr(struct s3_req *r, struct ufs_attr *attr);

/* --- s3_xml.c: ListObjectsV2 answers, as they arrive */
struct s3_xml_object {
	char *key;
	size_t key_len;
	uint64_t size;
	time_t mtime;
	char version[UFS_VERSION_MAX];
};

struct s3_xml_sink {
	void *arg;
	/* Non-zero (negative errno) ends the parsing. */
	int (*object)(void *arg, const struct s3_xml_object *o);
	int (*prefix)(void *arg, const char *key, size_t len);
};

struct s3_xml;
struct s3_xml *s3_xml_new(const struct s3_xml_sink *sink);
/* 0, -ENOMEM, -EBADMSG (not such a document), -E2BIG (over the limits), or what
 * the sink returned. */
int s3_xml_feed(struct s3_xml *x, const void *data, size_t len);
/* The end of the body: 0, -EAGAIN (cut short, or an error document: see
 * s3_xml_error), or as above. */
int s3_xml_end(struct s3_xml *x);
bool s3_xml_truncated(const struct s3_xml *x);
const char *s3_xml_token(const struct s3_xml *x); /* "" if none */
const struct s3_error *s3_xml_error(const struct s3_xml *x);
const char *s3_xml_why(const struct s3_xml *x); /* words of a failure */
void s3_xml_free(struct s3_xml **x);

/* --- the operations */
void s3_stat(struct ufs *u, struct ufs_stat *rq);
void s3_list(struct ufs *u, struct ufs_list *rq, const char *after);
void s3_read(struct ufs *u, struct ufs_read *rq);
void s3_check(struct ufs *u, struct ufs_check *rq);
void s3_put(struct ufs *u, struct ufs_put *rq);
void s3_mkdir(struct ufs *u, struct ufs_mkdir *rq);
void s3_multi_begin(struct ufs *u, struct ufs_multi_begin *rq);
void s3_part(struct ufs *u, struct ufs_part *rq);
void s3_multi_end(struct ufs *u, struct ufs_multi_end *rq);
void s3_multi_abort(struct ufs *u, struct ufs_multi_abort *rq);
void s3_multi_sweep(struct ufs *u, struct ufs_multi_sweep *rq);
void s3_copy(struct ufs *u, struct ufs_copy *rq);
void s3_delete(struct ufs *u, struct ufs_delete *rq);
void s3_rmdir(struct ufs *u, struct ufs_rmdir *rq);

/* --- s3_multi.c, for copies in parts too */
/* "FIRST&uploadId=ID", or NULL (out of memory). */
char *s3_upload_query(const char *first, const char *id);
/* The ask's extra headers and done have been set. */
void s3_begin_start(struct s3_ask *a, struct s3 *s3, const char *key);
/* What the end of that means: 0 with the id, or a negative errno. */
int s3_begun(const struct s3_ask *a, int err, char id[UFS_UPLOAD_MAX]);

/* --- s3_piece.c: one copy within the storage.  Leaf contract of task.h. */
struct s3_piece {
	/* set by the user; zero it first */
	struct s3 *s3;
	const char *version; /* of the source; must stay */
	uint64_t off, len;   /* len 0: the whole object */
	/* -ENOENT: no such upload, or (a whole) no source; -ESTALE: another version, or
	 * (a part) no source; -EINVAL, -EOPNOTSUPP: the storage does not copy this. */
	void (*done)(struct s3_piece *p, int err);
	char etag[UFS_VERSION_MAX]; /* result; "" if the storage does not say */
	/* private */
	struct s3_ask ask;
	struct s3_look look;
	struct http_header extra[S3_OBJECT_HEADERS + 3];
	char *key, *query, *source;
	char src_key[S3_KEY_BUF], range[64], match[UFS_VERSION_MAX + 2];
	bool quoted, other_form; /* what If-Match was; has it been tried both ways? */
	int err;
};

/* key NULL: the caller found no memory to say it. */
void s3_piece_start(struct s3_piece *p, const char *key, const char *query, const char *src_key);
void s3_piece_abort(struct s3_piece *p);

/* --- s3_probe.c: is there any key that begins with prefix?  One short listing. */
struct s3_probe {
	/* set by the user */
	struct s3 *s3;
	void (*done)(struct s3_probe *p, int err);
	/* results */
	bool found;
	/* private */
	struct s3_req req;
	struct s3_xml *xml;
};

void s3_probe_start(struct s3_probe *p, const char *prefix);
void s3_probe_abort(struct s3_probe *p);
/* Parts that all listings share: give the body to *x, judge its end. */
int s3_xml_data(struct s3_req *r, struct s3_xml *x, const void *data, size_t len);
int s3_xml_complete(struct s3_req *r, struct s3_xml *x);

#endif
