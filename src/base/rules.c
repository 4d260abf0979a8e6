/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/rules.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/obj.h"
#include "base/rules_priv.h"

/* What rules_none() says, as a text to begin with. */
static const char none_text[] = "{\n"
				"    \"apiVersion\": \"v1.0\",\n"
				"    \"defaultRule\": {\n"
				"        \"description\": \"Global default\",\n"
				"        \"policyMode\": \"WRITE_THROUGH\"\n"
				"    },\n"
				"    \"pathRules\": [\n"
				"    ]\n"
				"}\n";

static const char *const mode_names[] = {
    [RULE_NO_CACHE] = "NO_CACHE",
    [RULE_WRITE_THROUGH] = "WRITE_THROUGH",
    [RULE_WRITE_BACK] = "WRITE_BACK",
    [RULE_TRANSIENT] = "TRANSIENT",
};

const char *rule_mode_name(enum rule_mode mode)
{
	return mode_names[mode];
}

int rules_none(struct rules **out)
{
	return rules_parse(out, none_text, sizeof(none_text) - 1, 1, NULL);
}

static void rule_fini(struct rule *rule)
{
	free((char *)rule->path);
	free((char *)rule->description);
}

void rules_free(struct rules **rp)
{
	struct rules *r;

	if (*rp == NULL)
		return;
	TAKE_OBJ(r, rp, RULES_MAGIC);
	for (size_t i = 0; i < r->n; i++) {
		glob_free(&r->entries[i].glob);
		rule_fini(&r->entries[i].rule);
	}
	free(r->entries);
	rule_fini(&r->def);
	free(r->text);
	FREE_OBJ(r);
}

/* The place of the rule that decides; r->n: none does. */
static size_t decides(const struct rules *r, const char *path)
{
	size_t i = 0;

	while (i < r->n && !glob_match(&r->entries[i].glob, path))
		i++;
	return i;
}

const struct rule *rules_match(const struct rules *r, const char *path)
{
	size_t i;

	CHECK_OBJ(r, RULES_MAGIC);
	i = decides(r, path);
	return i < r->n ? &r->entries[i].rule : &r->def;
}

bool rules_split(const struct rules *r, const char *dir)
{
	size_t own;

	CHECK_OBJ(r, RULES_MAGIC);
	own = decides(r, dir);
	for (size_t i = 0; i < r->n; i++) {
		enum glob_below below = glob_below(&r->entries[i].glob, dir);

		if (below != GLOB_BELOW_NONE && i != own)
			return true;
		if (below == GLOB_BELOW_ALL)
			return false;
	}
	return own != r->n;
}

/* --- what is right, and hardly meant */

static void review_storage(const struct rules_entry *e, size_t nr, const char *const *storage,
    void (*say)(void *arg, const char *words), void *arg)
{
	struct errtext et;

	for (; *storage != NULL; storage++)
		if (glob_below(&e->glob, *storage + 1) != GLOB_BELOW_NONE)
			return;
	errtext_set(&et, 0,
	    "line %u: rule %zu, %.512s, is for storage that is not attached here", e->line, nr,
	    e->rule.path);
	say(arg, et.s);
}

void rules_review(const struct rules *r, const char *const *storage,
    void (*say)(void *arg, const char *words), void *arg)
{
	struct errtext et;

	CHECK_OBJ(r, RULES_MAGIC);
	for (size_t i = 0; i < r->n; i++) {
		const struct rules_entry *e = &r->entries[i];
		size_t j = 0;

		while (j < i && !glob_covers(&r->entries[j].glob, &e->glob))
			j++;
		if (j < i) {
			errtext_set(&et, 0,
			    "line %u: rule %zu, %.256s, never decides: rule %zu, %.256s, comes "
			    "first and covers it",
			    e->line, i + 1, e->rule.path, j + 1, r->entries[j].rule.path);
			say(arg, et.s);
		}
		review_storage(e, i + 1, storage, say, arg);
	}
}

const char *rules_text(const struct rules *r, size_t *len)
{
	CHECK_OBJ(r, RULES_MAGIC);
	*len = r->len;
	return r->text;
}
