/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Path rules: which policy of the write cache a path has.  JSON (PATH RULES in
 * batonfs.conf(5)):
 *
 *	{"apiVersion": "v1.0",
 *	 "defaultRule": {"description": "...", "policyMode": "WRITE_THROUGH"},
 *	 "pathRules": [{"alluxioPath": "/s3/checkpoint-*.pt", "description": "...",
 *	                "policyMode": "WRITE_BACK", "properties": {"writeReplicas": 1}}]}
 *
 * `path` may stand for `alluxioPath`.  Paths are of the namespace.  The first rule that
 * matches, in the order of the text, decides; else the default rule; else WRITE_THROUGH.
 * `*` matches within one component, `**` as a component of its own any number of them
 * (also none: behind "/a" it matches what is below a, and a itself).  All other bytes stand
 * for themselves; those that are not UTF-8 are written as base/json.h says.  Unknown
 * fields, wrong types, unknown modes, repeated keys, a writeReplicas below 1 and globs that
 * cannot match anything ("/a//b", a ".." part, relative ones) are errors, told with line
 * and column.
 *
 * A set of rules is constant once parsed.  Any thread.
 */
#ifndef BASE_RULES_H
#define BASE_RULES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/errtext.h"

enum rule_mode { RULE_NO_CACHE, RULE_WRITE_THROUGH, RULE_WRITE_BACK, RULE_TRANSIENT };

struct rule {
	const char *path; /* NULL: the default rule, or none matched and there is none */
	const char *description; /* or NULL */
	enum rule_mode mode;
	unsigned replicas; /* 1 if it says nothing */
};
struct rules;

/* Parses a text.  -EINVAL (et has line, column and what is wrong), -ENOMEM.  nodes: how
 * many writeReplicas there can be at most (1 with the embedded metadata store). */
int rules_parse(struct rules **out, const char *json, size_t len, unsigned nodes,
    struct errtext *et);
/* As if there were no text. */
int rules_none(struct rules **out);
void rules_free(struct rules **r);
/* path: of the namespace, without leading slash.  Never NULL; lives as long as r. */
const struct rule *rules_match(const struct rules *r, const char *path);
/* May another rule than that of `dir` decide for a path below dir? */
bool rules_split(const struct rules *r, const char *dir);
/* Says of each rule what is no error and hardly meant: that an earlier one covers it, so
 * that it never decides, or that it is for storage which is not attached.  storage:
 * namespace paths ("/", "/s3"), NULL at the end. */
void rules_review(const struct rules *r, const char *const *storage,
    void (*say)(void *arg, const char *words), void *arg);
const char *rule_mode_name(enum rule_mode mode); /* "WRITE_BACK" */
/* The text it was parsed from, or a text that says the same as rules_none(). */
const char *rules_text(const struct rules *r, size_t *len);

#endif
