/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One copy within the storage: a whole object, or a range as a part of an upload.
 *
 * The source has to be one version.  Storage that ignores the condition says nothing
 * about it, so unless one has refused a copy before, a look at the source afterwards
 * tells: a version does not come back.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "ufs/s3_priv.h"

static void piece_send(struct s3_piece *p);

static void piece_end(struct s3_piece *p, int err)
{
	free(p->key);
	free(p->query);
	free(p->source);
	p->key = p->query = p->source = NULL;
	p->done(p, err);
}

static void piece_looked(struct s3_look *l, int err)
{
	struct s3_piece *p = container_of(l, struct s3_piece, look);

	if (err != 0 && err != -ENOENT) {
		piece_end(p, p->err != 0 ? p->err : err);
	} else if (err != 0 || strcmp(l->attr.version, p->version) != 0) {
		piece_end(p, -ESTALE);
	} else if (p->err == -ESTALE && !p->other_form) {
		/* It is this version: the storage compares another text. */
		p->other_form = true;
		p->s3->quote_match = !p->quoted;
		piece_send(p);
	} else {
		piece_end(p, p->err);
	}
}

static void piece_look(struct s3_piece *p, int err)
{
	p->err = err;
	p->look.s3 = p->s3;
	p->look.done = piece_looked;
	p->look.req.until = 0;
	s3_look_start(&p->look, p->src_key);
}

static void piece_done(struct s3_ask *a, int err)
{
	struct s3_piece *p = container_of(a, struct s3_piece, ask);
	bool *heeds = &p->s3->copy_match[p->len > 0];

	memcpy(p->etag, a->res.etag, sizeof(p->etag));
	if (err == -ESTALE && a->req.status == 412)
		*heeds = true;
	if (err == 0 && (*heeds || (p->len == 0 && strcmp(p->etag, p->version) == 0)))
		piece_end(p, 0);
	else if (err == -ENOENT && strcmp(a->req.error.code, "NoSuchUpload") != 0)
		piece_end(p, p->len > 0 ? -ESTALE : err);
	else if (err == 0 || err == -ESTALE ||
	    (err == -EIO && !a->req.passing && a->req.status == 400))
		piece_look(p, err == -EIO ? -EINVAL : err);
	else
		piece_end(p, err);
}

static void piece_send(struct s3_piece *p)
{
	struct s3_req *r = &p->ask.req;
	unsigned n = 0;

	memset(&p->ask, 0, sizeof(p->ask));
	if (p->len == 0)
		n = s3_object_headers(p->s3, p->extra);
	p->extra[n].name = "x-amz-copy-source";
	p->extra[n++].value = p->source;
	p->quoted = p->s3->quote_match;
	s3_match_text(p->s3, p->version, p->match);
	p->extra[n].name = "x-amz-copy-source-if-match";
	p->extra[n++].value = p->match;
	if (p->len > 0) {
		(void)snprintf(p->range, sizeof(p->range), "bytes=%" PRIu64 "-%" PRIu64, p->off,
		    p->off + p->len - 1);
		p->extra[n].name = "x-amz-copy-source-range";
		p->extra[n++].value = p->range;
	}
	r->s3 = p->s3;
	r->method = "PUT";
	r->extra = p->extra;
	r->nextra = n;
	r->missing_is_normal = true;
	r->optional = true;
	p->ask.root = p->len > 0 ? "CopyPartResult" : "CopyObjectResult";
	p->ask.done = piece_done;
	s3_ask_start(&p->ask, p->source != NULL ? p->key : NULL, p->query);
}

static char *source_text(const struct s3 *s3, const char *key)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	if (f == NULL)
		return NULL;
	(void)fprintf(f, "/%s/", s3->bucket);
	s3_enc_path(f, key);
	if (s3_stream_close(f, &text))
		return text;
	free(text);
	return NULL;
}

void s3_piece_start(struct s3_piece *p, const char *key, const char *query, const char *src_key)
{
	(void)snprintf(p->src_key, sizeof(p->src_key), "%s", src_key);
	p->key = key != NULL ? strdup(key) : NULL;
	p->query = query != NULL ? strdup(query) : NULL;
	p->source = p->key != NULL && (query == NULL || p->query != NULL) ?
	    source_text(p->s3, src_key) :
	    NULL;
	p->err = 0;
	p->other_form = false;
	piece_send(p);
}

void s3_piece_abort(struct s3_piece *p)
{
	s3_ask_abort(&p->ask);
	s3_req_abort(&p->look.req);
	free(p->key);
	free(p->query);
	free(p->source);
	p->key = p->query = p->source = NULL;
}
