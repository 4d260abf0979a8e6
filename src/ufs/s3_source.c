/* SPDX-License-Identifier: BSD-2-Clause */
/* Which service hands out credentials: the variables that other S3 tools know too. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/options.h"
#include "ufs/s3_priv.h"

#define CONTAINER_HOST "http://169.254.170.2"
#define INSTANCE_HOST "http://169.254.169.254"

const char *s3_source_name(enum s3_source_kind kind)
{
	switch (kind) {
	case S3_SOURCE_WEB_IDENTITY:
		return "STS (web identity)";
	case S3_SOURCE_CONTAINER:
		return "the container's credential endpoint";
	case S3_SOURCE_INSTANCE:
		return "the instance metadata service";
	default:
		return "nowhere";
	}
}

void s3_source_fini(struct s3_source *s)
{
	if (s->token != NULL)
		explicit_bzero(s->token, strlen(s->token));
	free(s->url);
	free(s->token_file);
	free(s->token);
	free(s->role);
	free(s->session);
	memset(s, 0, sizeof(*s));
}

static int also(struct errtext *et, const char *what)
{
	struct errtext before;

	if (et == NULL)
		return 0;
	before = *et;
	(void)snprintf(et->s, sizeof(et->s), "%.900s%s%s", before.s,
	    before.s[0] != '\0' ? "; " : "", what);
	return 0;
}

static int no_memory(struct errtext *et)
{
	return errtext_set(et, -ENOMEM, "credentials: out of memory");
}

/* No spaces or control characters: it becomes a request line or a header. */
static bool clean(const char *s)
{
	for (; *s != '\0'; s++)
		if ((unsigned char)*s <= ' ' || (unsigned char)*s >= 0x7f)
			return false;
	return true;
}

static bool is_url(const char *s)
{
	return clean(s) &&
	    (strncasecmp(s, "http://", 7) == 0 || strncasecmp(s, "https://", 8) == 0);
}

/* Without final slashes, so that a path can be put behind it. */
static char *base_url(const char *s)
{
	size_t n = strlen(s);

	while (n > 0 && s[n - 1] == '/')
		n--;
	return strndup(s, n);
}

/* --- STS */

static int web_identity(struct s3_source *s, const struct config *cfg, struct errtext *et)
{
	const char *file = s3_env("AWS_WEB_IDENTITY_TOKEN_FILE"), *role = s3_env("AWS_ROLE_ARN");
	const char *session = s3_env("AWS_ROLE_SESSION_NAME");
	const char *url = s3_env("AWS_ENDPOINT_URL_STS");

	if (file == NULL || role == NULL)
		return also(et, file == NULL ? "web identity: AWS_WEB_IDENTITY_TOKEN_FILE not set" :
					       "web identity: AWS_ROLE_ARN not set");
	s->kind = S3_SOURCE_WEB_IDENTITY;
	if (url != NULL && !is_url(url))
		return errtext_set(et, -EINVAL,
		    "credentials: AWS_ENDPOINT_URL_STS \"%.100s\" is no http[s] URL", url);
	if (url != NULL)
		s->url = base_url(url);
	else if (asprintf(&s->url, "https://sts.%s.amazonaws.com%s", cfg->s3_region,
		     strncmp(cfg->s3_region, "cn-", 3) == 0 ? ".cn" : "") < 0)
		s->url = NULL;
	s->token_file = strdup(file);
	s->role = strdup(role);
	s->session = strdup(session != NULL ? session : "batonfs");
	if (s->url == NULL || s->token_file == NULL || s->role == NULL || s->session == NULL)
		return no_memory(et);
	return 1;
}

/* --- Container.  The token must not go over the network in plain text, so plain http is
 * for this machine and the platforms' link-local services only, as in other tools. */

static bool plain_http_allowed(const char *url)
{
	static const char *const hosts[] = { "localhost", "169.254.170.2", "169.254.170.23",
		"[::1]", "[fd00:ec2::23]" };
	const char *host = url + 7;
	size_t n = strcspn(host, host[0] == '[' ? "]/?#" : ":/?#");
	unsigned a, b, c, d;
	char rest;

	n += host[n] == ']';
	if (memchr(host, '@', strcspn(host, "/?#")) != NULL || strchr(":/?#", host[n]) == NULL)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(hosts); i++)
		if (strlen(hosts[i]) == n && strncasecmp(host, hosts[i], n) == 0)
			return true;
	return n <= 15 && sscanf(host, "%3u.%3u.%3u.%3u%c", &a, &b, &c, &d, &rest) >= 4 &&
	    strspn(host, "0123456789.") == n && a == 127 && b < 256 && c < 256 && d < 256;
}

static int container(struct s3_source *s, struct errtext *et)
{
	const char *rel = s3_env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
	const char *full = s3_env("AWS_CONTAINER_CREDENTIALS_FULL_URI");
	const char *token = s3_env("AWS_CONTAINER_AUTHORIZATION_TOKEN");
	const char *file = s3_env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");

	if (rel == NULL && full == NULL)
		return also(et, "container: AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, "
				"AWS_CONTAINER_CREDENTIALS_FULL_URI not set");
	s->kind = S3_SOURCE_CONTAINER;
	if (rel != NULL && (rel[0] != '/' || !clean(rel)))
		return errtext_set(et, -EINVAL,
		    "credentials: AWS_CONTAINER_CREDENTIALS_RELATIVE_URI does not begin with /, "
		    "or has spaces or control characters");
	if (rel == NULL && !is_url(full))
		return errtext_set(et, -EINVAL,
		    "credentials: AWS_CONTAINER_CREDENTIALS_FULL_URI \"%.100s\" is no http[s] URL",
		    full);
	if (rel == NULL && strncasecmp(full, "http://", 7) == 0 && !plain_http_allowed(full))
		return errtext_set(et, -EINVAL,
		    "credentials: AWS_CONTAINER_CREDENTIALS_FULL_URI \"%.100s\": http without TLS "
		    "is for loopback, 169.254.170.2, 169.254.170.23 and [fd00:ec2::23] only; use "
		    "https", full);
	if (token != NULL && file == NULL && !clean(strncmp(token, "Bearer ", 7) == 0 ||
					  strncmp(token, "Basic ", 6) == 0 ? strchr(token, ' ') + 1 : token))
		return errtext_set(et, -EINVAL, "credentials: "
		    "AWS_CONTAINER_AUTHORIZATION_TOKEN has spaces or control characters");
	if (rel != NULL && asprintf(&s->url, "%s%s", CONTAINER_HOST, rel) < 0)
		s->url = NULL;
	else if (rel == NULL)
		s->url = strdup(full);
	s->token_file = file != NULL ? strdup(file) : NULL;
	s->token = file == NULL && token != NULL ? strdup(token) : NULL;
	if (s->url == NULL || (file != NULL && s->token_file == NULL) ||
	    (file == NULL && token != NULL && s->token == NULL))
		return no_memory(et);
	return 1;
}

/* --- Instance */

static int instance(struct s3_source *s, struct errtext *et)
{
	const char *off = s3_env("AWS_EC2_METADATA_DISABLED");
	const char *url = s3_env("AWS_EC2_METADATA_SERVICE_ENDPOINT");

	if (off != NULL && strcasecmp(off, "true") == 0)
		return also(et, "instance metadata: AWS_EC2_METADATA_DISABLED is true");
	s->kind = S3_SOURCE_INSTANCE;
	if (url != NULL && !is_url(url))
		return errtext_set(et, -EINVAL, "credentials: "
		    "AWS_EC2_METADATA_SERVICE_ENDPOINT \"%.100s\" is no http[s] URL", url);
	s->url = base_url(url != NULL ? url : INSTANCE_HOST);
	return s->url != NULL ? 1 : no_memory(et);
}

int s3_source_find(struct s3_source *s, const struct config *cfg, struct errtext *et)
{
	const char *how = cfg->s3_credentials;
	bool all = strcmp(how, "auto") == 0;
	int err = 0;

	memset(s, 0, sizeof(*s));
	if (all || strcmp(how, "webidentity") == 0)
		err = web_identity(s, cfg, et);
	if (err == 0 && (all || strcmp(how, "container") == 0))
		err = container(s, et);
	if (err == 0 && (all || strcmp(how, "instance") == 0))
		err = instance(s, et);
	if (err > 0)
		return 0;
	s3_source_fini(s);
	return err < 0 ? err : -EACCES;
}
