/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What services that hand out credentials say: JSON (container, instance) and the XML of
 * STS.  Bounded, without document types, and taken only if it is complete.
 */
#include <errno.h>
#include <expat.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "ufs/s3_priv.h"

#define STS_DEPTH_MAX 16u
#define STS_TEXT_MAX 16384u /* session tokens are long */

static int set_expiry(struct s3_cred *c, const char *text, struct errtext *et)
{
	if (text == NULL || *text == '\0') /* credentials for ever: some services have them */
		return 0;
	if (!s3_iso_date(text, &c->expires))
		return errtext_set(et, -EBADMSG, "the answer's Expiration is no date");
	return 0;
}

/* The end of both: all there, and fit for headers? */
static int accept(struct s3_cred *c, struct errtext *et)
{
	int err;

	if (c->access == NULL || c->secret == NULL || *c->access == '\0' || *c->secret == '\0')
		err = errtext_set(et, -EBADMSG,
		    "the answer lacks the access key id or the secret key");
	else
		err = s3_cred_check(c, "the answer", et) == 0 ? 0 : -EBADMSG;
	if (err != 0)
		s3_cred_fini(c);
	return err;
}

static char *copy_of(const char *s)
{
	return s != NULL && *s != '\0' ? strdup(s) : NULL;
}

int s3_answer_json(struct s3_cred *c, const char *text, size_t len, struct errtext *et)
{
	static const struct json_limits lim = { .depth = 8, .values = 256 };
	const char *access, *secret, *token, *code;
	struct json *v = NULL;
	int err;

	memset(c, 0, sizeof(*c));
	err = json_parse(&v, text, len, &lim, et);
	if (err != 0)
		return err == -ENOMEM ?
		    err :
		    errtext_set(et, -EBADMSG, "the answer is no JSON object with credentials");
	code = json_text(json_get(v, "Code"));
	access = json_text(json_get(v, "AccessKeyId"));
	secret = json_text(json_get(v, "SecretAccessKey"));
	token = json_text(json_get(v, "Token"));
	if (code != NULL && strcmp(code, "Success") != 0) {
		err = errtext_set(et, -EBADMSG, "the answer says %.80s", code);
	} else {
		c->access = copy_of(access);
		c->secret = copy_of(secret);
		c->token = copy_of(token);
		if ((access != NULL && *access != '\0' && c->access == NULL) ||
		    (secret != NULL && *secret != '\0' && c->secret == NULL) ||
		    (token != NULL && *token != '\0' && c->token == NULL))
			err = errtext_set(et, -ENOMEM, "out of memory");
		else
			err = set_expiry(c, json_text(json_get(v, "Expiration")), et);
	}
	json_free(&v);
	if (err == 0)
		return accept(c, et);
	s3_cred_fini(c);
	return err;
}

/* --- STS */

struct sts {
	XML_Parser xp;
	struct s3_cred *c;
	struct errtext *et;
	int err;
	unsigned depth;
	bool in_credentials, in_error;
	char code[64], message[256];
	size_t len;
	char text[STS_TEXT_MAX + 1];
};

static const char *local_name(const char *name)
{
	const char *colon = strrchr(name, ':');

	return colon != NULL ? colon + 1 : name;
}

static void stop(struct sts *s, int err, const char *why)
{
	if (s->err == 0)
		s->err = errtext_set(s->et, err, "%s", why);
	(void)XML_StopParser(s->xp, XML_FALSE);
}

static void on_start(void *arg, const XML_Char *name, const XML_Char **atts)
{
	struct sts *s = arg;

	(void)atts;
	s->len = 0;
	s->text[0] = '\0';
	if (++s->depth > STS_DEPTH_MAX)
		stop(s, -EBADMSG, "the answer is nested too deeply");
	name = local_name(name);
	if (strcmp(name, "Credentials") == 0)
		s->in_credentials = true;
	else if (strcmp(name, "Error") == 0)
		s->in_error = true;
}

static void on_text(void *arg, const XML_Char *t, int len)
{
	struct sts *s = arg;

	if (s->err != 0)
		return;
	if ((size_t)len > STS_TEXT_MAX - s->len) {
		stop(s, -EBADMSG, "a value of the answer is too long");
		return;
	}
	memcpy(s->text + s->len, t, (size_t)len);
	s->len += (size_t)len;
	s->text[s->len] = '\0';
}

static void take(struct sts *s, char **to)
{
	free(*to);
	*to = strdup(s->text);
	if (*to == NULL)
		stop(s, -ENOMEM, "out of memory");
}

static void words(struct sts *s, char *to, size_t room)
{
	size_t n = MIN(s->len, room - 1);

	for (size_t i = 0; i < n; i++)
		to[i] = (unsigned char)s->text[i] < ' ' || s->text[i] == 0x7f ? ' ' : s->text[i];
	to[n] = '\0';
}

static void on_end(void *arg, const XML_Char *name)
{
	struct sts *s = arg;

	if (s->err != 0)
		return;
	name = local_name(name);
	if (s->in_error && strcmp(name, "Code") == 0) {
		words(s, s->code, sizeof(s->code));
	} else if (s->in_error && strcmp(name, "Message") == 0) {
		words(s, s->message, sizeof(s->message));
	} else if (s->in_credentials && strcmp(name, "AccessKeyId") == 0) {
		take(s, &s->c->access);
	} else if (s->in_credentials && strcmp(name, "SecretAccessKey") == 0) {
		take(s, &s->c->secret);
	} else if (s->in_credentials && strcmp(name, "SessionToken") == 0) {
		take(s, &s->c->token);
	} else if (s->in_credentials && strcmp(name, "Expiration") == 0) {
		if (set_expiry(s->c, s->text, s->et) != 0)
			stop(s, -EBADMSG, "the answer's Expiration is no date");
	} else if (strcmp(name, "Credentials") == 0) {
		s->in_credentials = false;
	} else if (strcmp(name, "Error") == 0) {
		s->in_error = false;
	}
	s->len = 0;
	s->depth--;
}

static void on_doctype(
    void *arg, const XML_Char *name, const XML_Char *sysid, const XML_Char *pubid, int internal)
{
	(void)name;
	(void)sysid;
	(void)pubid;
	(void)internal;
	stop(arg, -EBADMSG, "the answer has a document type");
}

static int parse(struct sts *s, const char *text, size_t len)
{
	s->xp = XML_ParserCreate(NULL);
	if (s->xp == NULL)
		return errtext_set(s->et, -ENOMEM, "out of memory");
	XML_SetUserData(s->xp, s);
	XML_SetElementHandler(s->xp, on_start, on_end);
	XML_SetCharacterDataHandler(s->xp, on_text);
	XML_SetStartDoctypeDeclHandler(s->xp, on_doctype);
	if (XML_Parse(s->xp, text, (int)len, XML_TRUE) != XML_STATUS_OK && s->err == 0)
		s->err = XML_GetErrorCode(s->xp) == XML_ERROR_NO_MEMORY ?
		    errtext_set(s->et, -ENOMEM, "out of memory") :
		    errtext_set(s->et, -EBADMSG, "the answer is no complete XML");
	XML_ParserFree(s->xp);
	return s->err;
}

int s3_answer_sts(struct s3_cred *c, const char *text, size_t len, struct errtext *et)
{
	struct sts *s = calloc(1, sizeof(*s));
	int err;

	memset(c, 0, sizeof(*c));
	if (s == NULL)
		return errtext_set(et, -ENOMEM, "out of memory");
	s->c = c;
	s->et = et;
	err = parse(s, text, len);
	explicit_bzero(s, sizeof(*s));
	free(s);
	if (err == 0)
		return accept(c, et);
	s3_cred_fini(c);
	return err;
}

void s3_answer_sts_error(const char *text, size_t len, char *out, size_t room)
{
	struct sts *s = calloc(1, sizeof(*s));
	struct s3_cred none = { 0 };

	out[0] = '\0';
	if (s == NULL)
		return;
	s->c = &none;
	(void)parse(s, text, len);
	if (s->code[0] != '\0')
		(void)snprintf(out, room, "%s%s%s", s->code, s->message[0] != '\0' ? ": " : "",
		    s->message);
	s3_cred_fini(&none);
	free(s);
}
