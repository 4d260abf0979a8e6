/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The small XML documents that answer writes.  A 200 may hold an <Error>: storage sends
 * the head before it knows.  Bounded; a document type ends the parsing.
 */
#include <errno.h>
#include <expat.h>
#include <string.h>

#include "ufs/s3_priv.h"
#include "ufs/s3_text.h"

/* The answer to a batch of deletions with the longest keys, each byte escaped. */
#define DOC_BYTES_MAX (16u << 20)
#define DOC_DEPTH_MAX 16u
#define DOC_TEXT_MAX 8192u

struct s3_doc {
	uint32_t magic;
#define S3_DOC_MAGIC 0x53330005u
	XML_Parser xp;
	struct s3_text raw;
	struct s3_doc_result res;
	void (*entry)(void *arg, const char *key, const char *code);
	int (*upload)(void *arg, const char *key, const char *id, const char *initiated);
	void *arg;
	int err;
	size_t bytes;
	unsigned depth;
	bool root_closed, collect;
	enum { IN_TOP, IN_DELETED, IN_FAILED, IN_UPLOAD } in;
	char code[64], initiated[64], id[UFS_UPLOAD_MAX];
	size_t text_len;
	char text[DOC_TEXT_MAX + 1], key[DOC_TEXT_MAX + 1];
};

static void stop(struct s3_doc *d, int err)
{
	if (d->err == 0)
		d->err = err;
	(void)XML_StopParser(d->xp, XML_FALSE);
}

static const char *local_name(const char *name)
{
	const char *colon = strrchr(name, ':');

	return colon != NULL ? colon + 1 : name;
}

static void on_start(void *arg, const XML_Char *name, const XML_Char **atts)
{
	struct s3_doc *d = arg;

	(void)atts;
	name = local_name(name);
	d->text_len = 0;
	d->text[0] = '\0';
	d->collect = true;
	if (++d->depth > DOC_DEPTH_MAX) {
		stop(d, -EPROTO);
	} else if (d->depth == 1) {
		(void)snprintf(d->res.root, sizeof(d->res.root), "%s", name);
	} else if (d->depth == 2) {
		d->in = IN_TOP;
		if (d->entry != NULL && strcmp(name, "Deleted") == 0)
			d->in = IN_DELETED;
		else if (d->entry != NULL && strcmp(name, "Error") == 0)
			d->in = IN_FAILED;
		else if (d->upload != NULL && strcmp(name, "Upload") == 0)
			d->in = IN_UPLOAD;
		d->key[0] = d->code[0] = d->initiated[0] = d->id[0] = '\0';
	}
}

static void on_text(void *arg, const XML_Char *s, int len)
{
	struct s3_doc *d = arg;

	if (d->err != 0 || !d->collect || d->depth < 2 || d->depth > 3)
		return;
	if ((size_t)len > DOC_TEXT_MAX - d->text_len) {
		stop(d, -EPROTO);
		return;
	}
	memcpy(d->text + d->text_len, s, (size_t)len);
	d->text_len += (size_t)len;
	d->text[d->text_len] = '\0';
}

/* These words go to logs and terminals. */
static void words(const struct s3_doc *d, char *to, size_t room)
{
	size_t n = MIN(d->text_len, room - 1);

	for (size_t i = 0; i < n; i++)
		to[i] = (unsigned char)d->text[i] < ' ' || d->text[i] == 0x7f ? ' ' : d->text[i];
	to[n] = '\0';
}

static void top_value(struct s3_doc *d, const char *name)
{
	if (strcmp(d->res.root, "Error") == 0) {
		if (strcmp(name, "Code") == 0)
			words(d, d->res.error.code, sizeof(d->res.error.code));
		else if (strcmp(name, "Message") == 0)
			words(d, d->res.error.message, sizeof(d->res.error.message));
		else if (strcmp(name, "RequestId") == 0)
			words(d, d->res.error.request_id, sizeof(d->res.error.request_id));
	} else if (strcmp(name, "UploadId") == 0) {
		if (d->text_len >= sizeof(d->res.upload_id))
			stop(d, -EPROTO);
		else
			memcpy(d->res.upload_id, d->text, d->text_len + 1);
	} else if (strcmp(name, "IsTruncated") == 0) {
		d->res.truncated = strcmp(d->text, "true") == 0;
	} else if (strcmp(name, "ChecksumCRC32C") == 0) {
		words(d, d->res.sum, sizeof(d->res.sum));
	} else if (strcmp(name, "ETag") == 0 && d->text_len > 0 &&
	    !s3_etag(d->text, d->res.etag)) {
		stop(d, -EPROTO);
	}
}

/* What a listed thing says of itself. */
static void inner_value(struct s3_doc *d, const char *name)
{
	if (strcmp(name, "Key") == 0)
		memcpy(d->key, d->text, d->text_len + 1);
	else if (strcmp(name, "Code") == 0)
		words(d, d->code, sizeof(d->code));
	else if (strcmp(name, "Initiated") == 0)
		words(d, d->initiated, sizeof(d->initiated));
	else if (strcmp(name, "UploadId") == 0 && d->text_len < sizeof(d->id))
		memcpy(d->id, d->text, d->text_len + 1);
}

static void thing_end(struct s3_doc *d)
{
	int err = 0;

	if (d->in == IN_UPLOAD)
		err = d->upload(d->arg, d->key, d->id, d->initiated);
	else
		d->entry(d->arg, d->key,
		    d->in == IN_DELETED ? "" : *d->code != '\0' ? d->code : "none");
	if (err != 0)
		stop(d, err);
}

static void on_end(void *arg, const XML_Char *name)
{
	struct s3_doc *d = arg;

	if (d->err != 0)
		return;
	name = local_name(name);
	if (d->collect)
		d->text_len = s3_text_plain(d->text, d->text_len);
	if (d->depth == 1) {
		d->root_closed = true;
	} else if (d->depth == 2) {
		if (d->in == IN_TOP)
			top_value(d, name);
		else
			thing_end(d);
		d->in = IN_TOP;
	} else if (d->depth == 3 && d->in != IN_TOP && d->collect) {
		inner_value(d, name);
	}
	/* What follows a child's end is space between elements. */
	d->collect = false;
	d->depth--;
}

static void on_doctype(
    void *arg, const XML_Char *name, const XML_Char *sysid, const XML_Char *pubid, int internal)
{
	(void)name;
	(void)sysid;
	(void)pubid;
	(void)internal;
	stop(arg, -EPROTO);
}

struct s3_doc *s3_doc_new(void (*entry)(void *arg, const char *key, const char *code), void *arg)
{
	struct s3_doc *d;

	ALLOC_OBJ(d, S3_DOC_MAGIC);
	if (d == NULL)
		return NULL;
	d->entry = entry;
	d->arg = arg;
	d->xp = XML_ParserCreate(NULL);
	if (d->xp == NULL) {
		FREE_OBJ(d);
		return NULL;
	}
	XML_SetUserData(d->xp, d);
	XML_SetElementHandler(d->xp, on_start, on_end);
	XML_SetCharacterDataHandler(d->xp, on_text);
	XML_SetStartDoctypeDeclHandler(d->xp, on_doctype);
	return d;
}

void s3_doc_uploads(struct s3_doc *d,
    int (*upload)(void *arg, const char *key, const char *id, const char *initiated))
{
	d->upload = upload;
}

static int parse(struct s3_doc *d, const void *data, size_t len, bool final)
{
	if (d->err == 0 && len > DOC_BYTES_MAX - d->bytes)
		d->err = -EPROTO;
	if (d->err != 0)
		return d->err;
	d->bytes += len;
	if (!(final ? s3_text_end(&d->raw, d->xp) : s3_text_parse(&d->raw, d->xp, data, len)) &&
	    d->err == 0)
		d->err = XML_GetErrorCode(d->xp) == XML_ERROR_NO_MEMORY ? -ENOMEM
		    : final && !d->root_closed				? -EAGAIN
									: -EPROTO;
	return d->err;
}

int s3_doc_feed(struct s3_doc *d, const void *data, size_t len)
{
	CHECK_OBJ(d, S3_DOC_MAGIC);
	return parse(d, data, len, false);
}

int s3_doc_end(struct s3_doc *d)
{
	int err;

	CHECK_OBJ(d, S3_DOC_MAGIC);
	err = parse(d, "", 0, true);
	if (err == 0 && strcmp(d->res.root, "Error") == 0)
		return -EBADMSG;
	return err;
}

const struct s3_doc_result *s3_doc_result(const struct s3_doc *d)
{
	return &d->res;
}

void s3_doc_free(struct s3_doc **dp)
{
	struct s3_doc *d;

	if (*dp == NULL)
		return;
	TAKE_OBJ(d, dp, S3_DOC_MAGIC);
	XML_ParserFree(d->xp);
	FREE_OBJ(d);
}
