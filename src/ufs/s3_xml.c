/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ListObjectsV2 answers, parsed while they arrive.  Bounded in bytes, depth, text
 * and entries; a document type ends the parsing, so no entity is ever expanded.
 */
#include <errno.h>
#include <expat.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "ufs/s3_priv.h"
#include "ufs/s3_text.h"

#define XML_BYTES_MAX (16u << 20)
#define XML_DEPTH_MAX 16u
/* A key of 1024 bytes, each percent-encoded, or a token. */
#define XML_TEXT_MAX 8192u
#define XML_ENTRIES_MAX 20000u

enum seen { SEEN_KEY = 1, SEEN_SIZE = 2, SEEN_ETAG = 4, SEEN_MTIME = 8 };

struct s3_xml {
	uint32_t magic;
#define S3_XML_MAGIC 0x53330002u
	XML_Parser xp;
	struct s3_text raw;
	struct s3_xml_sink sink;
	int err;
	const char *why;
	size_t bytes, entries;
	unsigned depth;
	enum { ROOT_NONE, ROOT_LIST, ROOT_ERROR } root;
	enum { IN_TOP, IN_CONTENTS, IN_PREFIXES } in;
	bool stopped, root_closed, url, truncated, collect;
	unsigned seen;
	struct s3_xml_object obj;
	size_t text_len;
	char text[XML_TEXT_MAX + 1];
	char key[XML_TEXT_MAX + 1];
	char token[XML_TEXT_MAX + 1];
	struct s3_error error;
};

static void stop(struct s3_xml *x, int err, const char *why)
{
	if (x->err == 0) {
		x->err = err;
		x->why = why;
	}
	x->stopped = true;
	XML_StopParser(x->xp, XML_FALSE);
}

static const char *local_name(const char *name)
{
	const char *colon = strrchr(name, ':');

	return colon != NULL ? colon + 1 : name;
}

static void on_start(void *arg, const XML_Char *name, const XML_Char **atts)
{
	struct s3_xml *x = arg;

	(void)atts;
	if (x->err != 0)
		return;
	name = local_name(name);
	x->text_len = 0;
	x->text[0] = '\0';
	x->collect = true;
	if (++x->depth > XML_DEPTH_MAX) {
		stop(x, -E2BIG, "nested too deeply");
	} else if (x->depth == 1) {
		if (strcmp(name, "ListBucketResult") == 0)
			x->root = ROOT_LIST;
		else if (strcmp(name, "Error") == 0)
			x->root = ROOT_ERROR;
		else
			stop(x, -EBADMSG, "not a listing");
	} else if (x->depth == 2) {
		x->in = IN_TOP;
		if (x->root == ROOT_LIST && strcmp(name, "Contents") == 0)
			x->in = IN_CONTENTS;
		else if (x->root == ROOT_LIST && strcmp(name, "CommonPrefixes") == 0)
			x->in = IN_PREFIXES;
		x->seen = 0;
		memset(&x->obj, 0, sizeof(x->obj));
	}
}

static void on_text(void *arg, const XML_Char *s, int len)
{
	struct s3_xml *x = arg;

	if (x->err != 0 || !x->collect || x->depth < 2 || x->depth > 3)
		return;
	if ((size_t)len > XML_TEXT_MAX - x->text_len) {
		stop(x, -E2BIG, "a value is too long");
		return;
	}
	memcpy(x->text + x->text_len, s, (size_t)len);
	x->text_len += (size_t)len;
	x->text[x->text_len] = '\0';
}

/* EncodingType may come after the keys that it is about: the request always asks
 * for it, and servers that know it put it before them; what came before counts as
 * plain only if no EncodingType follows. */
static void top_value(struct s3_xml *x, const char *name)
{
	if (strcmp(name, "IsTruncated") == 0) {
		x->truncated = strcmp(x->text, "true") == 0;
	} else if (strcmp(name, "NextContinuationToken") == 0) {
		memcpy(x->token, x->text, x->text_len + 1);
	} else if (strcmp(name, "EncodingType") == 0) {
		if (strcmp(x->text, "url") == 0 && !x->url && x->entries > 0)
			stop(x, -EBADMSG, "EncodingType comes after the keys");
		x->url = strcmp(x->text, "url") == 0;
	}
}

static void copy_text(char *to, size_t room, const struct s3_xml *x)
{
	size_t n = MIN(x->text_len, room - 1);

	for (size_t i = 0; i < n; i++)
		to[i] = (unsigned char)x->text[i] < ' ' ? ' ' : x->text[i];
	to[n] = '\0';
}

static void error_value(struct s3_xml *x, const char *name)
{
	if (strcmp(name, "Code") == 0)
		copy_text(x->error.code, sizeof(x->error.code), x);
	else if (strcmp(name, "Message") == 0)
		copy_text(x->error.message, sizeof(x->error.message), x);
	else if (strcmp(name, "RequestId") == 0)
		copy_text(x->error.request_id, sizeof(x->error.request_id), x);
}

static void take_key(struct s3_xml *x)
{
	memcpy(x->key, x->text, x->text_len + 1);
	x->obj.key = x->key;
	x->obj.key_len = x->url ? s3_dec(x->key, x->text_len) : x->text_len;
	x->seen |= SEEN_KEY;
}

static void contents_value(struct s3_xml *x, const char *name)
{
	if (strcmp(name, "Key") == 0) {
		take_key(x);
	} else if (strcmp(name, "Size") == 0) {
		if (!s3_u64(x->text, &x->obj.size) || x->obj.size > INT64_MAX)
			stop(x, -EBADMSG, "a Size is not a number");
		x->seen |= SEEN_SIZE;
	} else if (strcmp(name, "ETag") == 0) {
		if (!s3_etag(x->text, x->obj.version))
			stop(x, -EBADMSG, "an ETag is not usable");
		x->seen |= SEEN_ETAG;
	} else if (strcmp(name, "LastModified") == 0) {
		if (!s3_iso_date(x->text, &x->obj.mtime))
			stop(x, -EBADMSG, "a LastModified is not a date");
		x->seen |= SEEN_MTIME;
	}
}

static void entry_end(struct s3_xml *x)
{
	int err;

	if (++x->entries > XML_ENTRIES_MAX) {
		stop(x, -E2BIG, "too many entries");
		return;
	}
	if (x->in == IN_CONTENTS &&
	    x->seen != (SEEN_KEY | SEEN_SIZE | SEEN_ETAG | SEEN_MTIME)) {
		stop(x, -EBADMSG, "an entry lacks its Key, Size, ETag or LastModified");
		return;
	}
	if ((x->seen & SEEN_KEY) == 0) {
		stop(x, -EBADMSG, "a CommonPrefixes lacks its Prefix");
		return;
	}
	if (x->in == IN_CONTENTS)
		err = x->sink.object(x->sink.arg, &x->obj);
	else
		err = x->sink.prefix(x->sink.arg, x->obj.key, x->obj.key_len);
	if (err != 0)
		stop(x, err, "keys that were not asked for");
}

static void on_end(void *arg, const XML_Char *name)
{
	struct s3_xml *x = arg;

	if (x->err != 0)
		return;
	name = local_name(name);
	if (x->collect)
		x->text_len = s3_text_plain(x->text, x->text_len);
	if (x->depth == 1) {
		x->root_closed = true;
	} else if (x->depth == 2) {
		if (x->in == IN_CONTENTS || x->in == IN_PREFIXES)
			entry_end(x);
		else if (x->root == ROOT_LIST)
			top_value(x, name);
		else
			error_value(x, name);
		x->in = IN_TOP;
	} else if (x->depth == 3 && x->collect) {
		if (x->in == IN_CONTENTS)
			contents_value(x, name);
		else if (x->in == IN_PREFIXES && strcmp(name, "Prefix") == 0)
			take_key(x);
	}
	/* What follows a child's end is space between elements. */
	x->collect = false;
	x->depth--;
}

static void on_doctype(
    void *arg, const XML_Char *name, const XML_Char *sysid, const XML_Char *pubid, int internal)
{
	(void)name;
	(void)sysid;
	(void)pubid;
	(void)internal;
	stop(arg, -EBADMSG, "it has a document type");
}

struct s3_xml *s3_xml_new(const struct s3_xml_sink *sink)
{
	struct s3_xml *x;

	ALLOC_OBJ(x, S3_XML_MAGIC);
	if (x == NULL)
		return NULL;
	x->sink = *sink;
	x->xp = XML_ParserCreate(NULL);
	if (x->xp == NULL) {
		FREE_OBJ(x);
		return NULL;
	}
	XML_SetUserData(x->xp, x);
	XML_SetElementHandler(x->xp, on_start, on_end);
	XML_SetCharacterDataHandler(x->xp, on_text);
	XML_SetStartDoctypeDeclHandler(x->xp, on_doctype);
	return x;
}

static int parse(struct s3_xml *x, const void *data, size_t len, bool final)
{
	if (x->err != 0)
		return x->err;
	if (len > XML_BYTES_MAX - x->bytes) {
		x->why = "longer than any listing";
		return x->err = -E2BIG;
	}
	x->bytes += len;
	if (final ? s3_text_end(&x->raw, x->xp) : s3_text_parse(&x->raw, x->xp, data, len))
		return 0;
	if (x->err == 0) {
		enum XML_Error xe = XML_GetErrorCode(x->xp);

		x->err = xe == XML_ERROR_NO_MEMORY ? -ENOMEM : -EBADMSG;
		x->why = XML_ErrorString(xe);
	}
	return x->err;
}

int s3_xml_feed(struct s3_xml *x, const void *data, size_t len)
{
	CHECK_OBJ(x, S3_XML_MAGIC);
	return parse(x, data, len, false);
}

int s3_xml_end(struct s3_xml *x)
{
	int err;

	CHECK_OBJ(x, S3_XML_MAGIC);
	if (x->err != 0)
		return x->err;
	/* expat may have kept the last tokens back until now. */
	err = parse(x, "", 0, true);
	if (err == -EBADMSG && !x->stopped && !x->root_closed) {
		x->why = "cut short";
		return -EAGAIN;
	}
	if (err != 0)
		return err;
	if (x->root == ROOT_ERROR) {
		x->why = "an error document";
		return -EAGAIN;
	}
	return 0;
}

bool s3_xml_truncated(const struct s3_xml *x)
{
	return x->truncated;
}

const char *s3_xml_token(const struct s3_xml *x)
{
	return x->token;
}

const struct s3_error *s3_xml_error(const struct s3_xml *x)
{
	return &x->error;
}

const char *s3_xml_why(const struct s3_xml *x)
{
	return x->why != NULL ? x->why : "";
}

void s3_xml_free(struct s3_xml **xp)
{
	struct s3_xml *x;

	if (*xp == NULL)
		return;
	TAKE_OBJ(x, xp, S3_XML_MAGIC);
	XML_ParserFree(x->xp);
	FREE_OBJ(x);
}
