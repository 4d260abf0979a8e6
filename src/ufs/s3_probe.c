/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <string.h>

#include "ufs/s3_priv.h"

int s3_xml_data(struct s3_req *r, struct s3_xml *x, const void *data, size_t len)
{
	int err = s3_xml_feed(x, data, len);

	if (err != 0)
		(void)snprintf(r->words, sizeof(r->words), "the listing is not usable: %s",
		    s3_xml_why(x));
	return err == 0 || err == -ENOMEM ? err : -EIO;
}

int s3_xml_complete(struct s3_req *r, struct s3_xml *x)
{
	int err = s3_xml_end(x);

	if (err == 0)
		return 0;
	if (s3_xml_error(x)->code[0] != '\0')
		r->error = *s3_xml_error(x);
	(void)snprintf(r->words, sizeof(r->words), "the listing is not usable: %s",
	    s3_xml_why(x));
	return err == -EAGAIN || err == -ENOMEM ? err : -EIO;
}

static int on_object(void *arg, const struct s3_xml_object *o)
{
	(void)o;
	*(bool *)arg = true;
	return 0;
}

static int on_prefix(void *arg, const char *key, size_t len)
{
	(void)key;
	(void)len;
	*(bool *)arg = true;
	return 0;
}

static int probe_head(struct s3_req *r)
{
	struct s3_probe *p = container_of(r, struct s3_probe, req);
	struct s3_xml_sink sink = { .arg = &p->found, .object = on_object, .prefix = on_prefix };

	s3_xml_free(&p->xml);
	p->found = false;
	p->xml = s3_xml_new(&sink);
	return p->xml != NULL ? 0 : -ENOMEM;
}

static int probe_data(struct s3_req *r, const void *data, size_t len)
{
	return s3_xml_data(r, container_of(r, struct s3_probe, req)->xml, data, len);
}

static int probe_complete(struct s3_req *r)
{
	return s3_xml_complete(r, container_of(r, struct s3_probe, req)->xml);
}

static void probe_done(struct s3_req *r, int err)
{
	struct s3_probe *p = container_of(r, struct s3_probe, req);

	s3_xml_free(&p->xml);
	/* "No such key" cannot be the answer to a listing. */
	p->done(p, err == -ENOENT || err == -ESTALE ? -EIO : err);
}

void s3_probe_start(struct s3_probe *p, const char *prefix)
{
	char *query = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&query, &len);
	bool ok = f != NULL;

	if (ok) {
		(void)fputs("encoding-type=url&list-type=2&max-keys=1&prefix=", f);
		s3_enc_value(f, prefix);
		ok = s3_stream_close(f, &query);
	}
	memset(&p->req, 0, sizeof(p->req));
	p->req.s3 = p->s3;
	p->req.method = "GET";
	p->req.head = probe_head;
	p->req.data = probe_data;
	p->req.complete = probe_complete;
	p->req.done = probe_done;
	s3_req_start(&p->req, ok ? "" : NULL, query);
	free(query);
}

void s3_probe_abort(struct s3_probe *p)
{
	s3_req_abort(&p->req);
	s3_xml_free(&p->xml);
}
