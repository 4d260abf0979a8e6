/* SPDX-License-Identifier: BSD-2-Clause */
#include "ops/policy.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/units.h"
#include "ops/fs_priv.h"

/* Of the state database: the version in 8 bytes, and the text. */
static const char row_key[] = "rules";
/* Between two looks for the rules; doubles, up to the second figure. */
#define LOOK_NS NS_PER_S
#define LOOK_MAX_NS (60 * NS_PER_S)
/* Who sets rules whatever they are meets somebody else who does that no more often. */
#define SET_TRIES 5u

struct policy {
	uint32_t magic;
#define POLICY_MAGIC 0xf5b01c01u
	struct fs *fs;
	struct rules *rules;
	uint64_t version;
	uint64_t changes; /* of the two above, by this program */
	struct policy_load look;
	bool looking;
	struct timer again;
	uint64_t pause_ns;
};

/* --- asking */

enum meta_policy policy_of(const struct fs *fs, const char *path)
{
	static const enum meta_policy policies[] = {
	    [RULE_NO_CACHE] = META_POLICY_NO_CACHE,
	    [RULE_WRITE_THROUGH] = META_POLICY_WRITE_THROUGH,
	    [RULE_WRITE_BACK] = META_POLICY_WRITE_BACK,
	    [RULE_TRANSIENT] = META_POLICY_TRANSIENT,
	};

	if (!fs->env.cfg->write_cache_enabled || fs->meta == NULL || fs->policy == NULL)
		return META_POLICY_NO_CACHE;
	return policies[rules_match(fs->policy->rules, path)->mode];
}

bool policy_split(const struct fs *fs, const char *dir)
{
	if (!fs->env.cfg->write_cache_enabled || fs->meta == NULL || fs->policy == NULL)
		return false;
	return rules_split(fs->policy->rules, dir);
}

const struct rules *policy_rules(const struct fs *fs, uint64_t *version)
{
	CHECK_OBJ(fs->policy, POLICY_MAGIC);
	if (version != NULL)
		*version = fs->policy->version;
	return fs->policy->rules;
}

/* The metadata store is this machine's own. */
unsigned policy_nodes(const struct fs *fs)
{
	(void)fs;
	return 1;
}

/* --- in force */

/* So that the next daemon has them before its first request.  If there is no room it is
 * better to have none than those of before: then it asks the metadata store. */
static void keep_row(struct policy *p)
{
	struct statedb *db = p->fs->db;
	size_t klen = sizeof(row_key) - 1, len;
	const char *text = rules_text(p->rules, &len);
	uint64_t be = htobe64(p->version);
	char *row;
	int err = -ENOMEM;

	if (db == NULL)
		return;
	row = malloc(sizeof(be) + len);
	if (row != NULL) {
		memcpy(row, &be, sizeof(be));
		memcpy(row + sizeof(be), text, len);
		err = statedb_put(db, STATEDB_META, row_key, klen, row, sizeof(be) + len);
	}
	free(row);
	if (err == 0)
		return;
	log_error("state database: path rules: %s: the next daemon reads them from the "
		  "metadata store",
	    strerror(-err));
	(void)statedb_del(db, STATEDB_META, row_key, klen);
}

/* Takes the rules over. */
static void put_in_force(struct policy *p, struct rules **rules, uint64_t version)
{
	rules_free(&p->rules);
	p->rules = *rules;
	*rules = NULL;
	p->version = version;
	p->changes++;
}

static int parse(const struct fs *fs, const char *text, size_t len, struct rules **out,
    const char *where, struct errtext *et)
{
	int err = rules_parse(out, text, len, policy_nodes(fs), et);

	if (err != -EINVAL)
		return err;
	return errtext_prefix(et, -EPROTO,
	    "%s: the path rules there are not understood (were they set by a newer version of "
	    "batonfs?)",
	    where);
}

/* --- reading them from the metadata store */

static const char *store_words(const struct fs *fs, int err, struct errtext *et)
{
	struct meta_status st;

	meta_status(fs->meta, &st);
	if (!st.open && st.error[0] != '\0')
		errtext_set(et, err, "path rules: %s", st.error);
	else
		errtext_set(et, err, "path rules: metadata store %s: %s", st.dir, strerror(-err));
	return et->s;
}

static int load_take(struct policy_load *l)
{
	struct policy *p = l->fs->policy;
	struct meta_status st;
	struct rules *rules;
	int err;

	/* What was read may be older than what was set since; and mostly it is the same. */
	if (p->changes != l->changes || (p->version == l->get.version && p->version != 0))
		return 0;
	meta_status(l->fs->meta, &st);
	err = l->get.version == 0
		  ? rules_none(&rules)
		  : parse(l->fs, l->get.blob, l->get.len, &rules, st.dir, &l->et);
	if (err != 0)
		return err;
	put_in_force(p, &rules, l->get.version);
	keep_row(p);
	return 0;
}

static void load_got(struct meta_req *rq, int err)
{
	struct policy_load *l = rq->user;

	if (err == -ENOENT) {
		l->get.version = 0;
		err = 0;
	} else if (err != 0) {
		store_words(l->fs, err, &l->et);
	}
	if (err == 0)
		err = load_take(l);
	if (err == -ENOMEM)
		errtext_set(&l->et, err, "path rules: %s", strerror(ENOMEM));
	meta_setting_free(&l->get);
	l->done(l, err);
}

static void load_without(struct deferred *d)
{
	struct policy_load *l = container_of(d, struct policy_load, fail);

	l->done(l, errtext_set(&l->et, -EROFS,
		       "the mount is read-only: path rules say how files are written"));
}

void policy_load(struct fs *fs, struct policy_load *l,
    void (*done)(struct policy_load *l, int err))
{
	void *user = l->user;

	CHECK_OBJ(fs->policy, POLICY_MAGIC);
	memset(l, 0, sizeof(*l));
	l->user = user;
	l->fs = fs;
	l->done = done;
	l->changes = fs->policy->changes;
	if (fs->meta == NULL) {
		loop_defer(fs->env.loop, &l->fail, load_without);
		return;
	}
	l->get.req.user = l;
	l->get.id = META_SETTING_RULES;
	meta_setting_get(fs->meta, &l->get, load_got);
}

void policy_load_abort(struct policy_load *l)
{
	if (l->fs == NULL)
		return;
	loop_undefer(l->fs->env.loop, &l->fail);
	meta_abort(&l->get.req);
	meta_setting_free(&l->get);
}

/* --- in the background */

static void looked(struct policy_load *l, int err)
{
	struct policy *p = l->user;

	p->looking = false;
	if (err == 0 || err == -EROFS)
		return;
	if (p->pause_ns == LOOK_NS || err == -EPROTO)
		log_error("%s", l->et.s);
	timer_arm(&p->again, p->pause_ns);
	p->pause_ns = MIN(2 * p->pause_ns, LOOK_MAX_NS);
}

static void look(struct policy *p)
{
	if (p->looking)
		policy_load_abort(&p->look);
	timer_cancel(&p->again);
	p->looking = true;
	p->look.user = p;
	policy_load(p->fs, &p->look, looked);
}

static void look_again(struct timer *t)
{
	look(container_of(t, struct policy, again));
}

void policy_refresh(struct fs *fs)
{
	CHECK_OBJ(fs->policy, POLICY_MAGIC);
	fs->policy->pause_ns = LOOK_NS;
	look(fs->policy);
}

/* --- setting them */

static void set_end(struct policy_set *s, int err)
{
	rules_free(&s->rules);
	s->done(s, err);
}

static void set_failed(struct deferred *d)
{
	struct policy_set *s = container_of(d, struct policy_set, fail);

	set_end(s, s->err);
}

static void set_loaded(struct policy_load *l, int err);

static void set_load(struct policy_set *s)
{
	s->load.user = s;
	policy_load(s->fs, &s->load, set_loaded);
}

static void set_put(struct meta_req *rq, int err)
{
	struct policy_set *s = rq->user;
	struct policy *p = s->fs->policy;

	if (err == -EEXIST) {
		set_load(s);
		return;
	}
	if (err == -ETIMEDOUT) {
		store_words(s->fs, err, &s->et);
		errtext_prefix(&s->et, err, "it is not known whether the path rules were changed");
		policy_refresh(s->fs);
	} else if (err != 0) {
		store_words(s->fs, err, &s->et);
	} else {
		s->version = s->change.if_version + 1;
		put_in_force(p, &s->rules, s->version);
		keep_row(p);
		log_info("path rules: version %llu", (unsigned long long)s->version);
	}
	set_end(s, err);
}

static void set_try(struct policy_set *s, uint64_t if_version)
{
	s->tries++;
	s->change = (struct meta_change){.verb = META_SETTING_PUT,
	    .id = META_SETTING_RULES,
	    .blob = s->json,
	    .blob_len = s->len,
	    .if_version = if_version};
	memset(&s->txn, 0, sizeof(s->txn));
	s->txn.req.user = s;
	s->txn.changes = &s->change;
	s->txn.n = 1;
	meta_txn(s->fs->meta, &s->txn, set_put);
}

/* Before the first try if any version will do, and after one that met another. */
static void set_loaded(struct policy_load *l, int err)
{
	struct policy_set *s = l->user;
	uint64_t now = s->fs->policy->version;

	if (err != 0) {
		s->et = l->et;
		set_end(s, err);
	} else if (s->if_version == UINT64_MAX && s->tries < SET_TRIES) {
		set_try(s, now);
	} else {
		set_end(s, errtext_set(&s->et, -EEXIST,
			       "somebody else has changed the path rules meanwhile: they have "
			       "version %llu now, and stay as they are",
			       (unsigned long long)now));
	}
}

static int set_check(struct policy_set *s)
{
	if (s->fs->meta == NULL)
		return errtext_set(&s->et, -EROFS,
		    "the mount is read-only: path rules say how files are written");
	if (s->len > META_SETTING_MAX)
		return errtext_set(&s->et, -EINVAL,
		    "the path rules are %zu bytes long; %u are the most", s->len,
		    META_SETTING_MAX);
	return rules_parse(&s->rules, s->json, s->len, policy_nodes(s->fs), &s->et);
}

void policy_set(struct fs *fs, struct policy_set *s, void (*done)(struct policy_set *s, int err))
{
	CHECK_OBJ(fs->policy, POLICY_MAGIC);
	s->fs = fs;
	s->done = done;
	s->et.s[0] = '\0';
	s->rules = NULL;
	s->tries = 0;
	s->version = 0;
	memset(&s->load, 0, sizeof(s->load));
	memset(&s->txn, 0, sizeof(s->txn));
	memset(&s->fail, 0, sizeof(s->fail));
	s->err = set_check(s);
	if (s->err != 0)
		loop_defer(fs->env.loop, &s->fail, set_failed);
	else if (s->if_version == UINT64_MAX)
		set_load(s);
	else
		set_try(s, s->if_version);
}

/* What the disk has been given is done all the same, so what holds is to be looked up. */
void policy_set_abort(struct policy_set *s)
{
	loop_undefer(s->fs->env.loop, &s->fail);
	policy_load_abort(&s->load);
	meta_abort(&s->txn.req);
	rules_free(&s->rules);
	if (s->tries > 0)
		policy_refresh(s->fs);
}

/* --- life */

static int open_row(struct policy *p, struct errtext *et)
{
	struct statedb_val v;
	struct rules *rules;
	uint64_t be;
	int err = statedb_get(p->fs->db, STATEDB_META, row_key, sizeof(row_key) - 1, &v);

	if (err != 0)
		return err == -ENOENT ? 0 : err;
	if (v.len < sizeof(be))
		return errtext_set(et, -EPROTO, "state database: damaged path rules");
	memcpy(&be, v.data, sizeof(be));
	err = parse(p->fs, (const char *)v.data + sizeof(be), v.len - sizeof(be), &rules,
	    "state database", et);
	if (err == 0)
		put_in_force(p, &rules, be64toh(be));
	return err;
}

int policy_state_open(struct fs *fs, struct errtext *et)
{
	struct policy *p = fs->policy;
	int err;

	if (p == NULL) {
		ALLOC_OBJ(p, POLICY_MAGIC);
		if (p == NULL)
			return -ENOMEM;
		p->fs = fs;
		p->pause_ns = LOOK_NS;
		timer_init(&p->again, fs->env.loop, look_again);
		fs->policy = p;
		err = rules_none(&p->rules);
		if (err != 0) {
			policy_fini(fs);
			return err;
		}
	}
	return open_row(p, et);
}

void policy_state_again(struct fs *fs)
{
	if (fs->policy != NULL && fs->policy->version != 0)
		keep_row(fs->policy);
}

void policy_state_close(struct fs *fs)
{
	struct policy *p = fs->policy;

	if (p == NULL)
		return;
	if (p->looking)
		policy_load_abort(&p->look);
	p->looking = false;
	timer_cancel(&p->again);
}

void policy_fini(struct fs *fs)
{
	struct policy *p = fs->policy;

	if (p == NULL)
		return;
	policy_state_close(fs);
	fs->policy = NULL;
	rules_free(&p->rules);
	FREE_OBJ(p);
}
