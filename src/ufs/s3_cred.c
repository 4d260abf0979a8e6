/* SPDX-License-Identifier: BSD-2-Clause */
/* Credentials: the environment, then the profile files, as other S3 tools do. */
#include <errno.h>
#include <pwd.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "base/options.h"
#include "ufs/s3_priv.h"

/* Where we looked, for the one who finds nothing. */
struct looked {
	char s[768];
};

static void looked_add(struct looked *lk, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void looked_add(struct looked *lk, const char *fmt, ...)
{
	size_t n = strlen(lk->s);
	va_list ap;

	if (n > 0)
		n += (size_t)snprintf(lk->s + n, sizeof(lk->s) - n, "; ");
	if (n >= sizeof(lk->s))
		return;
	va_start(ap, fmt);
	(void)vsnprintf(lk->s + n, sizeof(lk->s) - n, fmt, ap);
	va_end(ap);
}

void s3_cred_fini(struct s3_cred *c)
{
	if (c->secret != NULL)
		explicit_bzero(c->secret, strlen(c->secret));
	free(c->access);
	free(c->secret);
	free(c->token);
	memset(c, 0, sizeof(*c));
}

/* They become parts of request headers. */
static bool clean(const char *s)
{
	for (; *s != '\0'; s++)
		if ((unsigned char)*s <= ' ' || (unsigned char)*s >= 0x7f)
			return false;
	return true;
}

int s3_cred_check(const struct s3_cred *c, const char *where, struct errtext *et)
{
	if (!clean(c->access) || strchr(c->access, ':') != NULL)
		return errtext_set(et, -EINVAL,
		    "%s: the access key id has characters that no key has", where);
	if (!clean(c->secret) || (c->token != NULL && !clean(c->token)))
		return errtext_set(et, -EINVAL,
		    "%s: the secret key or session token has spaces or control characters",
		    where);
	return 0;
}

const char *s3_env(const char *name)
{
	const char *v = getenv(name);

	return v != NULL && *v != '\0' ? v : NULL;
}

/* 1 found, 0 not there, or negative errno. */
static int from_environment(struct s3_cred *c, struct looked *lk, struct errtext *et)
{
	const char *access = s3_env("AWS_ACCESS_KEY_ID");
	const char *secret = s3_env("AWS_SECRET_ACCESS_KEY");
	const char *token = s3_env("AWS_SESSION_TOKEN");
	int err;

	if (access == NULL || secret == NULL) {
		looked_add(lk, "environment: %s%s%s not set",
		    access == NULL ? "AWS_ACCESS_KEY_ID" : "",
		    access == NULL && secret == NULL ? ", " : "",
		    secret == NULL ? "AWS_SECRET_ACCESS_KEY" : "");
		return 0;
	}
	c->access = strdup(access);
	c->secret = strdup(secret);
	c->token = token != NULL ? strdup(token) : NULL;
	if (c->access == NULL || c->secret == NULL || (token != NULL && c->token == NULL))
		return errtext_set(et, -ENOMEM, "credentials: out of memory");
	err = s3_cred_check(c, "environment", et);
	return err == 0 ? 1 : err;
}

static char *trim(char *s)
{
	size_t n;

	s += strspn(s, " \t\r\n");
	n = strlen(s);
	while (n > 0 && strchr(" \t\r\n", s[n - 1]) != NULL)
		s[--n] = '\0';
	return s;
}

static int set_field(struct s3_cred *c, const char *name, const char *value)
{
	char **to;

	if (strcmp(name, "aws_access_key_id") == 0)
		to = &c->access;
	else if (strcmp(name, "aws_secret_access_key") == 0)
		to = &c->secret;
	else if (strcmp(name, "aws_session_token") == 0)
		to = &c->token;
	else
		return 0;
	if (*value == '\0')
		return 0;
	free(*to);
	*to = strdup(value);
	return *to == NULL ? -ENOMEM : 0;
}

/* "[default]", "[name]"; in the config file also "[profile name]". */
static bool section_is(char *line, const char *profile, bool config_file)
{
	char *end = strchr(line, ']');
	char *name;

	if (end == NULL)
		return false;
	*end = '\0';
	name = trim(line + 1);
	if (config_file && strncmp(name, "profile", 7) == 0 && (name[7] == ' ' || name[7] == '\t'))
		name = trim(name + 7);
	return strcmp(name, profile) == 0;
}

static int read_lines(FILE *f, const char *profile, bool config_file, struct s3_cred *c,
    bool *section_seen)
{
	char *line = NULL;
	size_t room = 0;
	bool in = false;
	int err = 0;

	while (err == 0 && getline(&line, &room, f) >= 0) {
		/* A continuation belongs to a nested setting that is none of ours. */
		bool nested = line[0] == ' ' || line[0] == '\t';
		char *s = trim(line), *eq;

		if (*s == '\0' || *s == '#' || *s == ';')
			continue;
		if (*s == '[') {
			in = section_is(s, profile, config_file);
			*section_seen |= in;
			continue;
		}
		eq = strchr(s, '=');
		if (!in || nested || eq == NULL)
			continue;
		*eq = '\0';
		err = set_field(c, trim(s), trim(eq + 1));
	}
	if (err == 0 && ferror(f))
		err = -EIO;
	if (line != NULL)
		explicit_bzero(line, room);
	free(line);
	return err;
}

static int from_file(struct s3_cred *c, const char *path, const char *profile, bool config_file,
    struct looked *lk, struct errtext *et)
{
	bool section = false;
	FILE *f = fopen(path, "re");
	int err;

	if (f == NULL) {
		looked_add(lk, "%s: %s", path, strerror(errno));
		return 0;
	}
	err = read_lines(f, profile, config_file, c, &section);
	(void)fclose(f);
	if (err != 0)
		return errtext_set(et, err, "credentials: %s: %s", path, strerror(-err));
	if (c->access != NULL && c->secret != NULL) {
		err = s3_cred_check(c, path, et);
		return err == 0 ? 1 : err;
	}
	looked_add(lk, "%s: %s [%s]", path, section ? "no complete key pair in" : "no section",
	    profile);
	s3_cred_fini(c);
	return 0;
}

static const char *home_dir(void)
{
	const char *home = s3_env("HOME");
	struct passwd *pw;

	if (home != NULL)
		return home;
	pw = getpwuid(geteuid());
	return pw != NULL ? pw->pw_dir : "/";
}

static int from_profile(struct s3_cred *c, const struct config *cfg, struct looked *lk,
    struct errtext *et)
{
	static const struct {
		const char *env, *file;
		bool config;
	} files[] = {
		{ "AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials", false },
		{ "AWS_CONFIG_FILE", ".aws/config", true },
	};
	const char *profile = cfg->s3_profile;
	int err = 0;

	if (*profile == '\0')
		profile = s3_env("AWS_PROFILE");
	if (profile == NULL)
		profile = "default";
	for (size_t i = 0; i < ARRAY_LEN(files) && err == 0; i++) {
		const char *named = s3_env(files[i].env);
		char *path = NULL;

		if (named != NULL)
			path = strdup(named);
		else if (asprintf(&path, "%s/%s", home_dir(), files[i].file) < 0)
			path = NULL;
		if (path == NULL)
			return errtext_set(et, -ENOMEM, "credentials: out of memory");
		err = from_file(c, path, profile, files[i].config, lk, et);
		free(path);
	}
	return err;
}

int s3_cred_load(struct s3_cred *c, const struct config *cfg, struct errtext *et)
{
	const char *how = cfg->s3_credentials;
	struct looked lk = { "" };
	int err = 0;

	memset(c, 0, sizeof(*c));
	if (strcmp(how, "anonymous") == 0) {
		c->anonymous = true;
		return 0;
	}
	if (strcmp(how, "auto") == 0 || strcmp(how, "environment") == 0)
		err = from_environment(c, &lk, et);
	if (err == 0 && (strcmp(how, "auto") == 0 || strcmp(how, "profile") == 0))
		err = from_profile(c, cfg, &lk, et);
	if (err > 0)
		return 0;
	s3_cred_fini(c);
	return err < 0 ? err : errtext_set(et, -EACCES, "%s", lk.s);
}
