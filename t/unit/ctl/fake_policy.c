/* SPDX-License-Identifier: BSD-2-Clause */
#include "fake_policy.h"

#include <criterion/criterion.h>

#include "fake.h"

static struct rules *rules;

const struct rules *policy_rules(const struct fs *fs, uint64_t *version)
{
	static const char text[] = "{\"apiVersion\":\"v1.0\",\"pathRules\":[{\"path\":\"/sub/**\","
				   "\"policyMode\":\"WRITE_BACK\"}]}";
	struct errtext et;

	(void)fs;
	if (version != NULL)
		*version = 1;
	if (rules == NULL)
		cr_assert_eq(rules_parse(&rules, text, sizeof(text) - 1, 1, &et), 0, "%s", et.s);
	return rules;
}

void policy_load(struct fs *fs, struct policy_load *l,
    void (*done)(struct policy_load *l, int err))
{
	(void)fs, (void)l, (void)done;
	cr_assert_fail("rules are not loaded here");
}

void policy_load_abort(struct policy_load *l)
{
	(void)l;
}

void policy_set(struct fs *fs, struct policy_set *s, void (*done)(struct policy_set *s, int err))
{
	(void)fs, (void)s, (void)done;
	cr_assert_fail("rules are not set here");
}

void policy_set_abort(struct policy_set *s)
{
	(void)s;
}

void fake_policy_fini(void)
{
	if (rules != NULL)
		rules_free(&rules);
}
