/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files rules*.c share. */
#ifndef BASE_RULES_PRIV_H
#define BASE_RULES_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "base/rules.h"

/* --- rules_glob.c: a path with `*` and `**`, in parts. */

struct glob_part {
	const char *s;
	size_t len;
	bool any; /* "**" */
};
struct glob {
	struct glob_part *parts; /* their bytes are the caller's text */
	size_t n;
};

/* text: "/a/" and the like, "/" in front; must stay.  0, -ENOMEM or -EINVAL, then *why
 * says why no path can match. */
int glob_make(struct glob *g, const char *text, const char **why);
void glob_free(struct glob *g);
/* path: without slash in front. */
bool glob_match(const struct glob *g, const char *path);
/* Does a match everything that b matches?  False if in doubt. */
bool glob_covers(const struct glob *a, const struct glob *b);
/* What of the paths below a directory (not itself) match? */
enum glob_below { GLOB_BELOW_NONE, GLOB_BELOW_SOME, GLOB_BELOW_ALL };
enum glob_below glob_below(const struct glob *g, const char *dir);

/* --- rules_parse.c fills it, rules.c asks it. */

struct rules_entry {
	struct rule rule; /* its texts are owned */
	struct glob glob;
	unsigned line;
};
struct rules {
	uint32_t magic;
#define RULES_MAGIC 0x40135001u
	struct rules_entry *entries;
	size_t n;
	struct rule def; /* its text is owned */
	char *text;
	size_t len;
};
/* rules_parse() behind the reading of the text, which was read as v. */
int rules_build(struct rules **out, const char *text, size_t len, const struct json *v,
    unsigned nodes, struct errtext *et);

#endif
