/* SPDX-License-Identifier: BSD-2-Clause */
#include "s3_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

struct s3_rig s3r;

void s3r_up(void)
{
	ufs_fix_limit();
	setenv("AWS_ACCESS_KEY_ID", "key", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
	log_set_level(LOG_LVL_ERROR);
	s3r.hs = http_script_new();
	ufs_fix_init(&s3r.f, http_script_url(s3r.hs));
	ufs_fix_attach(&s3r.f, "s3://b/p");
}

void s3r_down(void)
{
	ufs_fix_fini(&s3r.f);
	http_script_free(&s3r.hs);
}

void s3r_reply(
    const char *match, int status, const char *headers, const char *body, unsigned times)
{
	http_script_reply(s3r.hs, match, status, headers, body, strlen(body), times);
}

const char *s3r_error_doc(const char *code)
{
	static char doc[128];

	(void)snprintf(doc, sizeof(doc), "<?xml version=\"1.0\"?><Error><Code>%s</Code></Error>", code);
	return doc;
}

const char *s3r_header(unsigned i, const char *name)
{
	static char buf[1024];
	const struct http_script_req *rq = http_script_get(s3r.hs, i);

	return rq != NULL ? http_script_header(rq, name, buf, sizeof(buf)) : NULL;
}
