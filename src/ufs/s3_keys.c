/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The credentials of one storage.  Fixed ones are there from the start.  Those that a
 * service hands out are fetched when the first request needs them, once for all who
 * wait, and again in the background while the old ones are still good.
 */
#include "ufs/s3_keys.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/options.h"
#include "base/units.h"
#include "ufs/s3_priv.h"

#define KEYS_MAGIC 0x53330004u
/* Renewed this long before they expire, or at half of a short life. */
#define AHEAD_NS (300 * NS_PER_S)
/* Not used for a request that might arrive after their end. */
#define MARGIN_NS (10 * NS_PER_S)
#define PAUSE_NS (100 * NS_PER_MS)
#define PAUSE_MAX_NS (5 * NS_PER_S)
/* A metadata service that nobody named and that cannot be reached is not there. */
#define INSTANCE_TRIES 3u

struct s3_keys {
	uint32_t magic;
	struct ufs_env env;
	struct s3_source src;
	struct s3_cred cred;
	unsigned generation;
	bool have;
	/* Monotonic; 0: never. */
	uint64_t renew_at, stale_at;
	/* Fetching. */
	struct s3_fetch fetch;
	bool fetching;
	uint64_t not_before; /* no new attempt until then */
	unsigned failures;   /* in a row */
	int err;
	struct errtext words;
	struct errtext looked; /* where else credentials could have been */
	TAILQ_HEAD(, s3_keys_wait) waiting;
	struct deferred wake;
};

const char *s3_keys_words(const struct s3_keys *k)
{
	return k->words.s;
}

int s3_keys_error(const struct s3_keys *k)
{
	return k->failures > 0 ? k->err : -ETIMEDOUT;
}

const char *s3_keys_access(const struct s3_keys *k)
{
	return k->cred.anonymous ? NULL : k->cred.access;
}

const char *s3_keys_secret(const struct s3_keys *k)
{
	return k->cred.secret;
}

const char *s3_keys_token(const struct s3_keys *k)
{
	return k->cred.token;
}

unsigned s3_keys_generation(const struct s3_keys *k)
{
	return k->generation;
}

static void adopt(struct s3_keys *k, struct s3_cred *c)
{
	s3_cred_fini(&k->cred);
	k->cred = *c;
	memset(c, 0, sizeof(*c));
	k->have = true;
	k->generation++;
}

/* --- fetching */

/* One a call: who is called may free everything. */
static void on_wake(struct deferred *d)
{
	struct s3_keys *k = container_of(d, struct s3_keys, wake);
	struct s3_keys_wait *w = TAILQ_FIRST(&k->waiting);

	/* Asked again already: the others wait for that answer. */
	if (w == NULL || k->fetching)
		return;
	TAILQ_REMOVE(&k->waiting, w, link);
	w->queued = false;
	if (!TAILQ_EMPTY(&k->waiting))
		loop_defer(k->env.loop, d, on_wake);
	w->ready(w);
}

/* Fresh ones: how long they live decides when they are renewed. */
static int take(struct s3_keys *k, struct s3_cred *c)
{
	uint64_t now = loop_now(k->env.loop), life;
	int64_t wall = (int64_t)(loop_wall(k->env.loop) / NS_PER_S);
	time_t expires = c->expires;

	if (expires != 0 && expires <= wall) {
		s3_cred_fini(c);
		return errtext_set(&k->words, -EIO,
		    "%s: the credentials have expired %lld s ago; is this machine's clock right?",
		    s3_source_name(k->src.kind), (long long)(wall - expires));
	}
	adopt(k, c);
	k->renew_at = k->stale_at = 0;
	if (expires != 0) {
		/* A date far away must not overflow. */
		life = (uint64_t)MIN(expires - wall, INT64_C(1000000000)) * NS_PER_S;
		k->stale_at = now + life - MIN(MARGIN_NS, life / 8);
		k->renew_at = now + life - MIN(AHEAD_NS, life / 2);
	}
	log_info("s3: credentials from %s, good for %lld s", s3_source_name(k->src.kind),
	    expires != 0 ? (long long)(expires - wall) : -1LL);
	return 0;
}

static void on_fetched(struct s3_fetch *f, int err)
{
	struct s3_keys *k = container_of(f, struct s3_keys, fetch);
	uint64_t pause = PAUSE_NS;

	k->fetching = false;
	if (err != 0)
		(void)errtext_set(&k->words, err, "%s", f->et.s);
	else
		err = take(k, &f->cred);
	k->err = err;
	if (err == 0) {
		k->failures = 0;
		k->not_before = 0;
	} else {
		for (unsigned i = 0; i < k->failures && pause < PAUSE_MAX_NS; i++)
			pause *= 2;
		k->not_before = loop_now(k->env.loop) + MIN(pause, PAUSE_MAX_NS);
		k->failures++;
		log_warn("s3: credentials: %s%s", k->words.s,
		    k->have ? "; the old ones are still in use" : "");
		if (err == -ETIMEDOUT && k->src.kind == S3_SOURCE_INSTANCE &&
		    k->looked.s[0] != '\0' && k->generation == 0 &&
		    k->failures >= INSTANCE_TRIES)
			k->err = errtext_set(&k->words, -EACCES,
			    "no S3 credentials found. Looked at %.600s; %.300s", k->looked.s,
			    f->et.s);
	}
	loop_defer(k->env.loop, &k->wake, on_wake);
}

static void fetch(struct s3_keys *k)
{
	if (k->fetching)
		return;
	k->fetching = true;
	k->fetch.env = &k->env;
	k->fetch.src = &k->src;
	k->fetch.done = on_fetched;
	s3_fetch_start(&k->fetch);
}

/* --- what requests ask */

int s3_keys_get(struct s3_keys *k, struct s3_keys_wait *w)
{
	uint64_t now;

	CHECK_OBJ(k, KEYS_MAGIC);
	assert(!w->queued);
	now = loop_now(k->env.loop);
	if (k->have && k->stale_at != 0 && now >= k->stale_at)
		k->have = false;
	if (k->have) {
		if (k->renew_at != 0 && now >= k->renew_at && now >= k->not_before)
			fetch(k);
		return 0;
	}
	if (!k->fetching && now < k->not_before)
		return k->err;
	fetch(k);
	w->queued = true;
	TAILQ_INSERT_TAIL(&k->waiting, w, link);
	return -EINPROGRESS;
}

void s3_keys_leave(struct s3_keys *k, struct s3_keys_wait *w)
{
	if (!w->queued)
		return;
	TAILQ_REMOVE(&k->waiting, w, link);
	w->queued = false;
}

bool s3_keys_reject(struct s3_keys *k, unsigned generation)
{
	if (k->src.kind == S3_SOURCE_NONE)
		return false;
	if (generation == k->generation)
		k->have = false;
	return true;
}

/* --- the whole */

int s3_keys_new(struct s3_keys **out, const struct ufs_env *env, struct errtext *et)
{
	struct s3_cred cred;
	struct errtext looked = { "" };
	struct s3_keys *k;
	int err;

	*out = NULL;
	ALLOC_OBJ(k, KEYS_MAGIC);
	if (k == NULL)
		return errtext_set(et, -ENOMEM, "credentials: out of memory");
	k->env = *env;
	TAILQ_INIT(&k->waiting);
	err = s3_cred_load(&cred, env->cfg, &looked);
	if (err == 0)
		adopt(k, &cred);
	else if (err == -EACCES)
		err = s3_source_find(&k->src, env->cfg, &looked);
	k->looked = looked;
	if (err != 0)
		s3_keys_free(&k);
	*out = k;
	if (err == -EACCES)
		return errtext_set(et, err,
		    "no S3 credentials found. Looked at %.780s. Set AWS_ACCESS_KEY_ID and "
		    "AWS_SECRET_ACCESS_KEY, name a profile (s3.profile), or say "
		    "s3.credentials=anonymous", looked.s);
	if (err == -ENOMEM)
		return errtext_set(et, err, "credentials: out of memory");
	return err != 0 ? errtext_set(et, err, "%s", looked.s) : 0;
}

void s3_keys_free(struct s3_keys **kp)
{
	struct s3_keys *k;

	if (*kp == NULL)
		return;
	TAKE_OBJ(k, kp, KEYS_MAGIC);
	assert(TAILQ_EMPTY(&k->waiting));
	if (k->fetching)
		s3_fetch_abort(&k->fetch);
	s3_cred_fini(&k->fetch.cred);
	loop_undefer(k->env.loop, &k->wake);
	s3_cred_fini(&k->cred);
	s3_source_fini(&k->src);
	FREE_OBJ(k);
}
