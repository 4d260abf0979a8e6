/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * <Error> documents.  They come from strangers at the worst moments, so: no
 * document type (no entities), bounded, and what cannot be read is left out.
 */
#include <expat.h>
#include <stdlib.h>
#include <string.h>

#include "ufs/s3_priv.h"

#define ERROR_DEPTH_MAX 16u

struct s3_error_parser {
	uint32_t magic;
#define S3_ERROR_PARSER_MAGIC 0x53330001u
	XML_Parser xp;
	struct s3_error *out;
	char *field; /* being filled, or NULL */
	size_t used, room;
	size_t bytes;
	unsigned depth;
	bool ours, stopped;
};

static void want(struct s3_error_parser *p, char *field, size_t room)
{
	p->field = field;
	p->room = room;
	p->used = 0;
	field[0] = '\0';
}

static const char *local_name(const char *name)
{
	const char *colon = strrchr(name, ':');

	return colon != NULL ? colon + 1 : name;
}

static void on_start(void *arg, const XML_Char *name, const XML_Char **atts)
{
	struct s3_error_parser *p = arg;

	(void)atts;
	name = local_name(name);
	p->field = NULL;
	p->depth++;
	if (p->depth > ERROR_DEPTH_MAX)
		XML_StopParser(p->xp, XML_FALSE);
	else if (p->depth == 1)
		p->ours = strcmp(name, "Error") == 0;
	else if (p->depth == 2 && p->ours && strcmp(name, "Code") == 0)
		want(p, p->out->code, sizeof(p->out->code));
	else if (p->depth == 2 && p->ours && strcmp(name, "Message") == 0)
		want(p, p->out->message, sizeof(p->out->message));
	else if (p->depth == 2 && p->ours && strcmp(name, "RequestId") == 0)
		want(p, p->out->request_id, sizeof(p->out->request_id));
	else if (p->depth == 2 && p->ours && strcmp(name, "Region") == 0)
		want(p, p->out->region, sizeof(p->out->region));
	else if (p->depth == 2 && p->ours && strcmp(name, "Endpoint") == 0)
		want(p, p->out->endpoint, sizeof(p->out->endpoint));
}

static void on_end(void *arg, const XML_Char *name)
{
	struct s3_error_parser *p = arg;

	(void)name;
	p->field = NULL;
	p->depth--;
}

static void on_text(void *arg, const XML_Char *s, int len)
{
	struct s3_error_parser *p = arg;

	for (int i = 0; p->field != NULL && i < len && p->used + 1 < p->room; i++) {
		/* These words go to logs and terminals. */
		unsigned char c = (unsigned char)s[i];

		p->field[p->used++] = c < ' ' || c == 0x7f ? ' ' : (char)c;
		p->field[p->used] = '\0';
	}
}

static void on_doctype(
    void *arg, const XML_Char *name, const XML_Char *sysid, const XML_Char *pubid, int internal)
{
	struct s3_error_parser *p = arg;

	(void)name;
	(void)sysid;
	(void)pubid;
	(void)internal;
	XML_StopParser(p->xp, XML_FALSE);
}

struct s3_error_parser *s3_error_parser_new(struct s3_error *out)
{
	struct s3_error_parser *p;

	ALLOC_OBJ(p, S3_ERROR_PARSER_MAGIC);
	if (p == NULL)
		return NULL;
	p->out = out;
	p->xp = XML_ParserCreate(NULL);
	if (p->xp == NULL) {
		FREE_OBJ(p);
		return NULL;
	}
	XML_SetUserData(p->xp, p);
	XML_SetElementHandler(p->xp, on_start, on_end);
	XML_SetCharacterDataHandler(p->xp, on_text);
	XML_SetStartDoctypeDeclHandler(p->xp, on_doctype);
	return p;
}

void s3_error_feed(struct s3_error_parser *p, const void *data, size_t len)
{
	CHECK_OBJ(p, S3_ERROR_PARSER_MAGIC);
	if (p->stopped || len > S3_ERROR_BYTES - p->bytes) {
		p->stopped = true;
		return;
	}
	p->bytes += len;
	if (XML_Parse(p->xp, data, (int)len, XML_FALSE) != XML_STATUS_OK)
		p->stopped = true;
}

void s3_error_parser_free(struct s3_error_parser **pp)
{
	struct s3_error_parser *p;

	if (*pp == NULL)
		return;
	TAKE_OBJ(p, pp, S3_ERROR_PARSER_MAGIC);
	/* expat may have kept the last tokens back until now. */
	if (!p->stopped)
		(void)XML_Parse(p->xp, "", 0, XML_TRUE);
	XML_ParserFree(p->xp);
	FREE_OBJ(p);
}
