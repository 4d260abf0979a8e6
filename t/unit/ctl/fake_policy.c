/* SPDX-License-Identifier: BSD-2-Clause */
#include "fake_policy.h"

#include <criterion/criterion.h>
#include <errno.h>

#include "base/obj.h"
#include "fake.h"

static struct rules *rules;
static uint64_t version = 1;
int fake_policy_err;

const struct rules *policy_rules(const struct fs *fs, uint64_t *out)
{
	static const char text[] = "{\"apiVersion\":\"v1.0\",\"pathRules\":[{\"path\":\"/sub/**\","
				   "\"policyMode\":\"WRITE_BACK\"}]}";
	struct errtext et;

	(void)fs;
	if (out != NULL)
		*out = version;
	if (rules == NULL)
		cr_assert_eq(rules_parse(&rules, text, sizeof(text) - 1, 1, &et), 0, "%s", et.s);
	return rules;
}

static void loaded(struct deferred *df)
{
	struct policy_load *l = container_of(df, struct policy_load, fail);

	errtext_set(&l->et, 0, "the rules are out of reach");
	l->done(l, fake_policy_err);
}

void policy_load(struct fs *fs, struct policy_load *l,
    void (*done)(struct policy_load *l, int err))
{
	(void)fs;
	l->done = done;
	loop_defer(fake.d.loop, &l->fail, loaded);
}

void policy_load_abort(struct policy_load *l)
{
	loop_undefer(fake.d.loop, &l->fail);
}

static void was_set(struct deferred *df)
{
	struct policy_set *s = container_of(df, struct policy_set, fail);

	if (s->err == 0 && fake_policy_err != 0)
		s->err = errtext_set(&s->et, fake_policy_err, "the rules are out of reach");
	if (s->err == 0 && s->if_version != UINT64_MAX && s->if_version != version)
		s->err = errtext_set(&s->et, -EEXIST, "not version %llu",
		    (unsigned long long)s->if_version);
	if (s->err == 0) {
		rules_free(&rules);
		rules = s->rules;
		s->rules = NULL;
		version++;
	}
	rules_free(&s->rules);
	s->done(s, s->err);
}

void policy_set(struct fs *fs, struct policy_set *s, void (*done)(struct policy_set *s, int err))
{
	(void)fs;
	s->done = done;
	s->err = rules_parse(&s->rules, s->json, s->len, 1, &s->et);
	loop_defer(fake.d.loop, &s->fail, was_set);
}

void policy_set_abort(struct policy_set *s)
{
	loop_undefer(fake.d.loop, &s->fail);
	rules_free(&s->rules);
}

void fake_policy_fini(void)
{
	rules_free(&rules);
}
