/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Credentials: where they come from, and that they are fresh.
 *
 * s3_cred.c	what is at hand: environment, profile files
 * s3_source.c	which service the environment names: STS, container, instance
 * s3_fetch.c	asking that service; s3_answer.c reads what it says
 * s3_keys.c	the credentials of one storage: fetched once for all who wait,
 *		renewed before they expire
 */
#ifndef UFS_S3_KEYS_H
#define UFS_S3_KEYS_H

#include "reactor/http.h"
#include "reactor/loop.h"
#include "ufs/ufs.h"

struct config;

struct s3_cred {
	char *access, *secret;
	char *token; /* NULL: none */
	bool anonymous;
	time_t expires; /* 0: never */
};

void s3_cred_fini(struct s3_cred *c); /* wipes it; zeroed is fine */
/* Are these texts fit for request headers?  0, or -EINVAL with `where` in et. */
int s3_cred_check(const struct s3_cred *c, const char *where, struct errtext *et);
/* 0, -EACCES (nothing there: et says where it looked), -EINVAL, -ENOMEM, -EIO. */
int s3_cred_load(struct s3_cred *c, const struct config *cfg, struct errtext *et);
/* A variable's value, NULL if it is unset or empty. */
const char *s3_env(const char *name);

/* --- s3_source.c */
enum s3_source_kind {
	S3_SOURCE_NONE,
	S3_SOURCE_WEB_IDENTITY, /* STS AssumeRoleWithWebIdentity */
	S3_SOURCE_CONTAINER,
	S3_SOURCE_INSTANCE, /* IMDSv2 */
};

struct s3_source {
	enum s3_source_kind kind;
	char *url; /* of the service; of the instance's without its path */
	char *token_file, *token; /* what authorises the question; NULL: nothing */
	char *role, *session;
};

/* What the environment and s3.credentials lead to.  0, -EACCES (nothing: et says where it
 * looked, behind what it had), -EINVAL (cannot be used: et), -ENOMEM. */
int s3_source_find(struct s3_source *s, const struct config *cfg, struct errtext *et);
void s3_source_fini(struct s3_source *s);
const char *s3_source_name(enum s3_source_kind kind);

/* --- s3_answer.c: 0; -EBADMSG (et says why); -ENOMEM.  Nothing of a secret is ever in et. */
int s3_answer_json(struct s3_cred *c, const char *text, size_t len, struct errtext *et);
int s3_answer_sts(struct s3_cred *c, const char *text, size_t len, struct errtext *et);
/* "Code: message" of a refusal by STS, or "". */
void s3_answer_sts_error(const char *text, size_t len, char *out, size_t room);

/* --- s3_fetch.c: leaf contract of task.h */
#define S3_ANSWER_MAX 65536u

struct s3_fetch_file;

struct s3_fetch {
	/* set by the user */
	const struct ufs_env *env;
	const struct s3_source *src;
	void (*done)(struct s3_fetch *f, int err);
	/* results: cred is the user's to take.  err: -EACCES (refused), -ETIMEDOUT (not
	 * reached), -EIO, -ENOMEM, with words in et. */
	struct s3_cred cred;
	struct errtext et;
	/* private */
	struct http_req hr;
	struct http_header headers[3];
	void (*step)(struct s3_fetch *f);
	struct s3_fetch_file *file;
	struct deferred fail;
	int fail_err;
	char *url, *body, *secret, *answer;
	size_t answer_len;
};

void s3_fetch_start(struct s3_fetch *f);
void s3_fetch_abort(struct s3_fetch *f); /* no-op if not running; releases all */

/* --- s3_keys.c */
struct s3_keys;

struct s3_keys_wait {
	TAILQ_ENTRY(s3_keys_wait) link;
	void (*ready)(struct s3_keys_wait *w); /* ask again */
	bool queued;
};

/* 0, -EACCES (et says where it looked), -EINVAL, -ENOMEM.  Sends nothing. */
int s3_keys_new(struct s3_keys **out, const struct ufs_env *env, struct errtext *et);
void s3_keys_free(struct s3_keys **k);
/* 0: there are credentials.  -EINPROGRESS: w is queued, and ready will be called from the
 * loop.  Else they cannot be had now: s3_keys_words() says why; only -EACCES and -ENOMEM
 * are not worth another try. */
int s3_keys_get(struct s3_keys *k, struct s3_keys_wait *w);
void s3_keys_leave(struct s3_keys *k, struct s3_keys_wait *w); /* no-op if not queued */
const char *s3_keys_words(const struct s3_keys *k);
int s3_keys_error(const struct s3_keys *k); /* for one who has waited in vain */
/* NULL: requests are not signed. */
const char *s3_keys_access(const struct s3_keys *k);
const char *s3_keys_secret(const struct s3_keys *k);
const char *s3_keys_token(const struct s3_keys *k); /* NULL: none */
/* Which credentials these are; changes when others come. */
unsigned s3_keys_generation(const struct s3_keys *k);
/* Storage says that these have expired or are not known.  True if others can be
 * fetched. */
bool s3_keys_reject(struct s3_keys *k, unsigned generation);

#endif
