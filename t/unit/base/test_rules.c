/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/obj.h"
#include "base/rules_priv.h"
#include "../../lib/nth_fault.h"

TestSuite(rules);

static struct errtext et;

static struct rules *good(const char *text)
{
	struct rules *r = NULL;

	et.s[0] = '\0';
	cr_assert_eq(rules_parse(&r, text, strlen(text), 1, &et), 0, "%s: %s", text, et.s);
	return r;
}

static void bad(const char *text, const char *words)
{
	struct rules *r = (struct rules *)&et;

	et.s[0] = '\0';
	cr_assert_eq(rules_parse(&r, text, strlen(text), 1, &et), -EINVAL, "%s", text);
	cr_assert_null(r);
	cr_assert_not_null(strstr(et.s, words), "\"%s\" is not in \"%s\"", words, et.s);
}

/* A text with one rule after another, each "PATH=MODE". */
static struct rules *of(const char *def, const char *const *list)
{
	char text[4096];
	size_t n = (size_t)snprintf(text, sizeof(text), "{\"apiVersion\":\"v1.0\",");

	if (def != NULL)
		n += (size_t)snprintf(text + n, sizeof(text) - n,
		    "\"defaultRule\":{\"policyMode\":\"%s\"},", def);
	n += (size_t)snprintf(text + n, sizeof(text) - n, "\"pathRules\":[");
	for (size_t i = 0; list[i] != NULL; i++) {
		const char *eq = strchr(list[i], '=');

		n += (size_t)snprintf(text + n, sizeof(text) - n,
		    "%s\n{\"path\":\"%.*s\",\"policyMode\":\"%s\"}", i > 0 ? "," : "",
		    (int)(eq - list[i]), list[i], eq + 1);
	}
	(void)snprintf(text + n, sizeof(text) - n, "]}");
	return good(text);
}
#define OF(def, ...) of(def, (const char *const[]){__VA_ARGS__, NULL})

static const char *mode(const struct rules *r, const char *path)
{
	return rule_mode_name(rules_match(r, path)->mode);
}

Test(rules, as_the_manual_has_them)
{
	struct rules *r = good("{\n"
			       "  \"apiVersion\": \"v1.0\",\n"
			       "  \"defaultRule\": {\n"
			       "    \"description\": \"Global default\",\n"
			       "    \"policyMode\": \"NO_CACHE\"\n"
			       "  },\n"
			       "  \"pathRules\": [{\n"
			       "    \"alluxioPath\": \"/s3/checkpoints/**\",\n"
			       "    \"description\": \"Low-latency checkpoint writes\",\n"
			       "    \"policyMode\": \"WRITE_BACK\",\n"
			       "    \"properties\": { \"writeReplicas\": 1 }\n"
			       "  }]\n"
			       "}\n");
	const struct rule *rule = rules_match(r, "s3/checkpoints/epoch-1/model.pt");

	cr_assert_str_eq(rule->path, "/s3/checkpoints/**");
	cr_assert_str_eq(rule->description, "Low-latency checkpoint writes");
	cr_assert_eq(rule->mode, RULE_WRITE_BACK);
	cr_assert_eq(rule->replicas, 1);
	rule = rules_match(r, "s3/other");
	cr_assert_null(rule->path);
	cr_assert_str_eq(rule->description, "Global default");
	cr_assert_eq(rule->mode, RULE_NO_CACHE);
	rules_free(&r);
	cr_assert_null(r);
	rules_free(&r);
}

Test(rules, none)
{
	struct rules *r = NULL, *again = NULL;
	const char *text;
	size_t len;

	cr_assert_eq(rules_none(&r), 0);
	cr_assert_str_eq(mode(r, "any/thing"), "WRITE_THROUGH");
	cr_assert_null(rules_match(r, "")->path);
	cr_assert_not(rules_split(r, ""));
	text = rules_text(r, &len);
	cr_assert_eq(strlen(text), len);
	cr_assert_eq(rules_parse(&again, text, len, 1, &et), 0, "%s", et.s);
	cr_assert_str_eq(mode(again, "any/thing"), "WRITE_THROUGH");
	rules_free(&again);
	rules_free(&r);
	r = good("{\"apiVersion\": \"v1.0\"}");
	cr_assert_str_eq(mode(r, "x"), "WRITE_THROUGH");
	text = rules_text(r, &len);
	cr_assert_str_eq(text, "{\"apiVersion\": \"v1.0\"}");
	rules_free(&r);
}

Test(rules, the_first_that_matches)
{
	struct rules *r = OF("TRANSIENT", "/a/keep/**=NO_CACHE", "/a/**=WRITE_BACK",
	    "/a/never/**=TRANSIENT", "/b/*=WRITE_THROUGH");

	cr_assert_str_eq(mode(r, "a/keep"), "NO_CACHE");
	cr_assert_str_eq(mode(r, "a/keep/x/y"), "NO_CACHE");
	cr_assert_str_eq(mode(r, "a/keeper"), "WRITE_BACK");
	cr_assert_str_eq(mode(r, "a"), "WRITE_BACK");
	cr_assert_str_eq(mode(r, "a/never/x"), "WRITE_BACK");
	cr_assert_str_eq(mode(r, "b/x"), "WRITE_THROUGH");
	cr_assert_str_eq(mode(r, "b"), "TRANSIENT");
	cr_assert_str_eq(mode(r, "b/x/y"), "TRANSIENT");
	cr_assert_str_eq(mode(r, "ab"), "TRANSIENT");
	cr_assert_str_eq(mode(r, ""), "TRANSIENT");
	rules_free(&r);
}

static bool matches(const char *glob, const char *path)
{
	const char *why;
	struct glob g;
	bool yes;

	cr_assert_eq(glob_make(&g, glob, &why), 0, "%s: %s", glob, why);
	yes = glob_match(&g, path);
	glob_free(&g);
	return yes;
}

Test(rules, globs)
{
	static const struct {
		const char *glob, *path;
		bool yes;
	} t[] = {
	    {"/a", "a", true}, {"/a", "b", false}, {"/a", "a/b", false}, {"/a", "", false},
	    {"/*", "a", true}, {"/*", "a/b", false}, {"/*", "", false},
	    {"/**", "", true}, {"/**", "a/b/c", true}, {"/**/a", "a", true},
	    {"/**/a", "x/y/a", true}, {"/**/a", "x/ya", false}, {"/**/a", "a/x", false},
	    {"/a/**/b", "a/b", true}, {"/a/**/b", "a/x/y/b", true}, {"/a/**/b", "ab", false},
	    {"/a/**/b", "a/b/c", false}, {"/a/**/b", "a/b/c/b", true},
	    {"/a/**/**/b", "a/b", true}, {"/**/a/**", "x/a", true}, {"/**/a/**", "x", false},
	    {"/a/*/**", "a", false}, {"/a/*/**", "a/b", true}, {"/a/**/*", "a", false},
	    {"/x-*", "x-", true}, {"/x-*", "x", false}, {"/*.pt", "a.pt", true},
	    {"/*.pt", ".pt", true}, {"/*.pt", "a.pt.tmp", false}, {"/a*a", "a", false},
	    {"/a*a", "aa", true}, {"/a*b*c", "abc", true}, {"/a*b*c", "a-b-b-c", true},
	    {"/a*b*c", "acb", false}, {"/*ab*ab", "abab", true}, {"/*ab*ab", "ab", false},
	    {"/*ab*", "xxaby", true}, {"/*ab*", "a/b", false},
	    /* Bytes that mean something elsewhere, and any others. */
	    {"/a?", "ab", false}, {"/a?", "a?", true}, {"/[ab]", "a", false},
	    {"/[ab]", "[ab]", true}, {"/a\\*", "a\\x", true}, {"/a\\*", "a*", false},
	    {"/\xff\xfe*", "\xff\xfe\x01\n", true}, {"/{a,b}", "{a,b}", true},
	    {"/...", "...", true}, {"/.a", ".a", true}, {"/*", "**", true}, {"/a", "**", false},
	};

	for (size_t i = 0; i < ARRAY_LEN(t); i++)
		cr_assert_eq(matches(t[i].glob, t[i].path), t[i].yes, "%s %s", t[i].glob,
		    t[i].path);
}

/* --- the same as a matcher that tries everything */

static bool ref_part(const char *g, size_t gn, const char *s, size_t n)
{
	if (gn == 0)
		return n == 0;
	if (g[0] == '*')
		return ref_part(g + 1, gn - 1, s, n) || (n > 0 && ref_part(g, gn, s + 1, n - 1));
	return n > 0 && g[0] == s[0] && ref_part(g + 1, gn - 1, s + 1, n - 1);
}

static const char *ref_rest(const char *s)
{
	const char *end = strchrnul(s, '/');

	return *end == '/' ? end + 1 : end;
}

/* Both without slash in front; "" has no parts. */
static bool ref_match(const char *g, const char *s)
{
	size_t gn = (size_t)(strchrnul(g, '/') - g), n = (size_t)(strchrnul(s, '/') - s);

	if (gn == 0)
		return n == 0;
	if (gn == 2 && memcmp(g, "**", 2) == 0)
		return ref_match(ref_rest(g), s) || (n > 0 && ref_match(g, ref_rest(s)));
	return n > 0 && ref_part(g, gn, s, n) && ref_match(ref_rest(g), ref_rest(s));
}

/* The nth text made of up to `max` parts of a list; false behind the last. */
static bool nth_path(char *buf, size_t nth, const char *const *parts, size_t nparts, size_t max)
{
	size_t count = 1, len = 0;

	for (size_t depth = 0; depth <= max; depth++, count *= nparts) {
		if (nth >= count) {
			nth -= count;
			continue;
		}
		buf[0] = '\0';
		for (size_t i = 0; i < depth; i++, nth /= nparts)
			len += (size_t)sprintf(buf + len, "%s%s", i > 0 ? "/" : "",
			    parts[nth % nparts]);
		return true;
	}
	return false;
}

static const char *const glob_parts[] = {"a", "b", "*", "**", "a*", "*b", "*a*"};
static const char *const path_parts[] = {"a", "b", "ab", "ba"};

static struct glob glob_of(const char *text)
{
	const char *why;
	struct glob g;

	cr_assert_eq(glob_make(&g, text, &why), 0, "%s", text);
	return g;
}

Test(rules, match_as_the_reference)
{
	char glob[64] = "/", path[64];

	for (size_t i = 1; nth_path(glob + 1, i, glob_parts, ARRAY_LEN(glob_parts), 4); i++) {
		struct glob g = glob_of(glob);

		for (size_t j = 0; nth_path(path, j, path_parts, ARRAY_LEN(path_parts), 4); j++)
			cr_assert_eq(glob_match(&g, path), ref_match(glob + 1, path), "%s %s",
			    glob, path);
		glob_free(&g);
	}
}

Test(rules, random_parts_as_the_reference)
{
	unsigned seed = 7;

	for (int i = 0; i < 200000; i++) {
		char glob[16] = "/", path[16];
		size_t gn = 1 + (size_t)rand_r(&seed) % 9, n = 1 + (size_t)rand_r(&seed) % 12;
		struct glob g;

		for (size_t j = 1; j <= gn; j++)
			glob[j] = "ab*"[rand_r(&seed) % 3];
		glob[gn + 1] = '\0';
		for (size_t j = 0; j < n; j++)
			path[j] = "ab"[rand_r(&seed) % 2];
		path[n] = '\0';
		if (strstr(glob, "**") != NULL)
			continue;
		g = glob_of(glob);
		cr_assert_eq(glob_match(&g, path), ref_match(glob + 1, path), "%s %s", glob, path);
		glob_free(&g);
	}
}

Test(rules, what_is_below_a_directory)
{
	char glob[64] = "/", dir[64], path[128];
	size_t vague = 0;

	for (size_t i = 1; nth_path(glob + 1, i, glob_parts, ARRAY_LEN(glob_parts), 3); i++) {
		struct glob g = glob_of(glob);

		for (size_t j = 0; nth_path(dir, j, path_parts, ARRAY_LEN(path_parts), 3); j++) {
			size_t n = (size_t)sprintf(path, "%s%s", dir, dir[0] != '\0' ? "/" : "");
			bool some = false, all = true;
			enum glob_below want;

			for (size_t k = 1;
			     nth_path(path + n, k, path_parts, ARRAY_LEN(path_parts), 3); k++) {
				bool yes = glob_match(&g, path);

				some = some || yes;
				all = all && yes;
			}
			want = all ? GLOB_BELOW_ALL : some ? GLOB_BELOW_SOME : GLOB_BELOW_NONE;
			/* Without a ** it is not for all that is deeper still. */
			if (want == GLOB_BELOW_ALL && strstr(glob, "**") == NULL)
				want = GLOB_BELOW_SOME;
			/* "Some" says less than "all", and is never wrong. */
			if (want == GLOB_BELOW_ALL && glob_below(&g, dir) == GLOB_BELOW_SOME)
				vague++;
			else
				cr_assert_eq(glob_below(&g, dir), want, "%s %s", glob, dir);
		}
		glob_free(&g);
	}
	cr_assert_lt(vague, 300, "%zu", vague);
}

Test(rules, what_covers_what)
{
	char one[64] = "/", two[64] = "/", path[64];
	size_t found = 0;

	for (size_t i = 1; nth_path(one + 1, i, glob_parts, ARRAY_LEN(glob_parts), 3); i++) {
		struct glob a = glob_of(one);

		for (size_t j = 1; nth_path(two + 1, j, glob_parts, ARRAY_LEN(glob_parts), 3); j++) {
			struct glob b = glob_of(two);

			if (glob_covers(&a, &b)) {
				found++;
				for (size_t k = 0; nth_path(path, k, path_parts,
					 ARRAY_LEN(path_parts), 3); k++)
					cr_assert(!glob_match(&b, path) || glob_match(&a, path),
					    "%s does not cover %s: %s", one, two, path);
			}
			glob_free(&b);
		}
		glob_free(&a);
	}
	cr_assert_gt(found, 1000);
}

/* Where no rule splits a directory, one rule decides for all below it. */
Test(rules, split_is_never_wrong)
{
	unsigned seed = 3;
	size_t whole = 0;

	for (int round = 0; round < 300; round++) {
		char list[3][80], dir[64], path[128], glob[64];
		struct rules *r;

		for (int i = 0; i < 3; i++) {
			do {
				nth_path(glob, 1 + (size_t)rand_r(&seed) % 300, glob_parts,
				    ARRAY_LEN(glob_parts), 3);
			} while (glob[0] == '\0');
			sprintf(list[i], "/%s=WRITE_BACK", glob);
		}
		r = OF("NO_CACHE", list[0], list[1], list[2]);
		for (size_t j = 0; nth_path(dir, j, path_parts, ARRAY_LEN(path_parts), 2); j++) {
			size_t n = (size_t)sprintf(path, "%s%s", dir, dir[0] != '\0' ? "/" : "");
			const struct rule *own = rules_match(r, dir);

			if (rules_split(r, dir))
				continue;
			whole++;
			for (size_t k = 1;
			     nth_path(path + n, k, path_parts, ARRAY_LEN(path_parts), 3); k++)
				cr_assert_eq(rules_match(r, path), own, "%s: %s %s %s", path,
				    list[0], list[1], list[2]);
		}
		rules_free(&r);
	}
	cr_assert_gt(whole, 100);
}

Test(rules, split)
{
	struct rules *r = OF("NO_CACHE", "/a/tmp/**=TRANSIENT", "/a/**=WRITE_BACK",
	    "/b/*=WRITE_BACK", "/c=WRITE_BACK", "/**/deep=TRANSIENT");

	cr_assert(rules_split(r, ""));
	cr_assert(rules_split(r, "a"));
	cr_assert_not(rules_split(r, "a/tmp"));
	cr_assert_not(rules_split(r, "a/x"));
	cr_assert(rules_split(r, "b"));
	cr_assert(rules_split(r, "c"));
	cr_assert(rules_split(r, "d/e"));
	rules_free(&r);
	r = OF("NO_CACHE", "/a/**=WRITE_BACK", "/a/x/**=TRANSIENT");
	cr_assert_not(rules_split(r, "a"), "the second one never decides");
	cr_assert_not(rules_split(r, "b"));
	cr_assert(rules_split(r, ""));
	rules_free(&r);
}

/* --- bad input, with its place */

#define V "{\"apiVersion\": \"v1.0\", "

Test(rules, bad_json)
{
	bad("", "line 1, column 1: ");
	bad("{\n  \"apiVersion\" \"v1.0\"\n}", "line 2, column 16: ");
	bad("{\n  \"apiVersion\": \"v1.0\",\n  \"pathRules\": [\n  }\n}", "line 4, column 3: ");
	bad("{\"apiVersion\": \"v1.0\"} x", "line 1, column 24: ");
	bad("[]", "line 1, column 1: path rules: must be an object, not an array");
	bad(V "\"apiVersion\": \"v1.0\"}", "line 1, column 24: a key appears twice");
	bad("{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":1}}}}}", "nested too deep");
}

Test(rules, unknown_words)
{
	bad(V "\"pathRule\": []}", "line 1, column 24: path rules: unknown field \"pathRule\"; "
				  "did you mean \"pathRules\"?");
	bad(V "\"comment\": 1}", "unknown field \"comment\"");
	bad(V "\n\"pathRules\": [\n {\"path\": \"/a\", \"policymode\": \"NO_CACHE\"}]}",
	    "line 3, column 17: a rule of pathRules: unknown field \"policymode\"; did you mean "
	    "\"policyMode\"?");
	bad(V "\"pathRules\": [{\"path\": \"/a\", \"policyMode\": \"WRITE_BAK\"}]}",
	    "line 1, column 67: unknown policyMode \"WRITE_BAK\"; did you mean \"WRITE_BACK\"?");
	bad(V "\"defaultRule\": {\"policyMode\": \"write_through\"}}",
	    "did you mean \"WRITE_THROUGH\"?");
	bad(V "\"defaultRule\": {\"policyMode\": \"fast\"}}",
	    "unknown policyMode \"fast\"; there are WRITE_THROUGH, WRITE_BACK, TRANSIENT and "
	    "NO_CACHE");
	bad(V "\"defaultRule\": {\"policyMode\": \"NO_CACHE\", \"path\": \"/a\"}}",
	    "line 1, column 66: defaultRule: unknown field \"path\"");
	bad(V "\"defaultRule\": {\"policyMode\": \"NO_CACHE\", \"properties\": "
	      "{\"replicas\": 1}}}",
	    "unknown field \"replicas\"; ");
	bad("{\"apiVersion\": \"v2.0\"}",
	    "line 1, column 16: unknown apiVersion \"v2.0\"; this one knows \"v1.0\"");
}

Test(rules, missing_fields)
{
	bad("{}", "line 1, column 1: path rules: \"apiVersion\" is missing");
	bad(V "\"defaultRule\": {}}", "line 1, column 39: defaultRule: \"policyMode\" is missing");
	bad(V "\"pathRules\": [{\"path\": \"/a\"}]}", "\"policyMode\" is missing");
	bad(V "\"pathRules\": [{\"policyMode\": \"NO_CACHE\"}]}", "\"alluxioPath\" is missing");
	bad(V "\"pathRules\": [{\"path\": \"/a\", \"alluxioPath\": \"/a\", \"policyMode\": "
	      "\"NO_CACHE\"}]}", "line 1, column 53: a rule has one path");
}

Test(rules, wrong_types)
{
	bad("{\"apiVersion\": 1.0}", "line 1, column 16: path rules: \"apiVersion\" must be a "
				    "string, not a number");
	bad(V "\"pathRules\": {}}", "\"pathRules\" must be an array, not an object");
	bad(V "\"pathRules\": [\n 7]}",
	    "line 2, column 2: a rule of pathRules: must be an object, not a number");
	bad(V "\"defaultRule\": null}", "\"defaultRule\" must be an object, not null");
	bad(V "\"defaultRule\": {\"policyMode\": true}}", "must be a string, not true or false");
	bad(V "\"pathRules\": [{\"path\": [], \"policyMode\": \"NO_CACHE\"}]}",
	    "\"path\" must be a string, not an array");
	bad(V "\"defaultRule\": {\"policyMode\": \"NO_CACHE\", \"description\": 1}}",
	    "\"description\" must be a string");
	bad(V "\"defaultRule\": {\"policyMode\": \"NO_CACHE\", \"properties\": []}}",
	    "\"properties\" must be an object");
	bad(V "\"defaultRule\": {\"policyMode\": \"NO_CACHE\", \"properties\": "
	      "{\"writeReplicas\": \"1\"}}}", "\"writeReplicas\" must be a number");
}

static void replicas(const char *number, unsigned nodes, int want, const char *words)
{
	char text[256];
	struct rules *r = NULL;
	int err;

	(void)snprintf(text, sizeof(text), V "\"defaultRule\": {\"policyMode\": \"WRITE_BACK\", "
		      "\"properties\": {\"writeReplicas\": %s}}}", number);
	et.s[0] = '\0';
	err = rules_parse(&r, text, strlen(text), nodes, &et);
	cr_assert_eq(err, want, "%s: %s", number, et.s);
	cr_assert_not_null(strstr(et.s, words), "\"%s\" is not in \"%s\"", words, et.s);
	if (err == 0)
		cr_assert_eq(rules_match(r, "x")->replicas, (unsigned)atoi(number));
	rules_free(&r);
}

Test(rules, write_replicas)
{
	replicas("1", 1, 0, "");
	replicas("3", 3, 0, "");
	replicas("0", 1, -EINVAL, "line 1, column 100: writeReplicas must be a whole number of at "
				  "least 1, not 0");
	replicas("-1", 3, -EINVAL, "at least 1, not -1");
	replicas("1.5", 3, -EINVAL, "whole number");
	replicas("1e0", 3, -EINVAL, "whole number");
	replicas("2", 1, -EINVAL, "there is one node");
	replicas("4", 3, -EINVAL, "only 3 nodes");
	replicas("99999999999999999999999", 3, -EINVAL, "only 3 nodes");
	replicas("99999999999999999999999", 1, -EINVAL, "writeReplicas");
	replicas("4294967297", 3, -EINVAL, "only 3 nodes");
}

static void bad_path(const char *path, const char *words)
{
	char text[8192];

	(void)snprintf(text, sizeof(text), V "\"pathRules\": [\n{\"path\": \"%s\", \"policyMode\": "
					 "\"NO_CACHE\"}]}", path);
	bad(text, words);
	bad(text, "line 2, column 10: path \"");
}

Test(rules, globs_that_match_nothing)
{
	char longer[2100] = "/";

	bad_path("", "does not begin with a slash");
	bad_path("a/b", "does not begin with a slash");
	bad_path("**", "does not begin with a slash");
	bad_path("/", "top of the namespace");
	bad_path("/a//b", "two slashes");
	bad_path("//", "slash");
	bad_path("//a", "two slashes");
	bad_path("/a/", "ends with a slash");
	bad_path("/a/**/", "ends with a slash");
	bad_path("/a/./b", "\".\"");
	bad_path("/a/..", "\"..\"");
	bad_path("/../a", "\"..\"");
	bad_path("/a**", "beside other letters");
	bad_path("/a/**b/c", "beside other letters");
	bad_path("/***", "beside other letters");
	memset(longer + 1, 'x', 255);
	longer[256] = '*';
	longer[257] = '\0';
	cr_assert(matches(longer, longer + 1));
	memset(longer + 1, 'x', 256);
	longer[257] = '*';
	longer[258] = '\0';
	bad_path(longer, "more than 255 bytes");
	for (int i = 0; i < 520; i++)
		memcpy(longer + 2 * i, "/a", 3);
	bad_path(longer, "longer than 1024 bytes");
	for (int i = 0; i < 512; i++)
		memcpy(longer + 2 * i, "/a", 3);
	cr_assert(matches(longer, longer + 1));
}

Test(rules, bytes_of_any_kind)
{
	struct rules *r = OF(NULL, "/\\udcff\\u0001\\n*=TRANSIENT", "/\\u00e9/\\\"=WRITE_BACK");

	cr_assert_str_eq(mode(r, "\xff\x01\nx"), "TRANSIENT");
	cr_assert_str_eq(mode(r, "\xc3\xa9/\""), "WRITE_BACK");
	cr_assert_str_eq(mode(r, "\xe9/\""), "WRITE_THROUGH");
	rules_free(&r);
	bad(V "\"pathRules\": [{\"path\": \"/a\\u0000b\", \"policyMode\": \"NO_CACHE\"}]}", "NUL");
	bad(V "\"pathRules\": [{\"path\": \"/a\xff\", \"policyMode\": \"NO_CACHE\"}]}", "UTF8");
}

Test(rules, columns_are_characters)
{
	bad(V "\"defaultRule\": {\"description\": \"\xc3\xa9\xe2\x82\xac\", \"policyMode\": 1}}",
	    "line 1, column 75: ");
}

static char *many(size_t n, const char *path)
{
	size_t cap = 64 + n * (strlen(path) + 64), len;
	char *text = malloc(cap);

	cr_assert_not_null(text);
	len = (size_t)snprintf(text, cap, V "\"pathRules\": [");
	for (size_t i = 0; i < n; i++)
		len += (size_t)snprintf(text + len, cap - len,
		    "%s{\"path\": \"%s%zu\", \"policyMode\": \"NO_CACHE\"}", i > 0 ? "," : "",
		    path, i);
	(void)snprintf(text + len, cap - len, "]}");
	return text;
}

Test(rules, many)
{
	char *text = many(1000, "/a/x");
	struct rules *r = good(text);

	cr_assert_str_eq(rules_match(r, "a/x999")->path, "/a/x999");
	rules_free(&r);
	free(text);
	text = many(1001, "/a/x");
	bad(text, "line 1, column 37: pathRules: 1001 rules are too many; 1000 is the most");
	free(text);
	text = many(20000, "/a/x");
	bad(text, "too many values");
	free(text);
}

/* What would take for ever if each star were tried with all that follows. */
Test(rules, stars_take_no_time)
{
	char glob[1024] = "/", path[1025];
	struct glob g;

	for (int i = 0; i < 100; i++)
		strcat(glob, "*a");
	strcat(glob, "b");
	memset(path, 'a', 250);
	path[250] = '\0';
	g = glob_of(glob);
	for (int i = 0; i < 1000; i++)
		cr_assert_not(glob_match(&g, path));
	glob_free(&g);
	glob[0] = '\0';
	for (int i = 0; i < 100; i++)
		strcat(glob, "/**/a*/*");
	strcat(glob, "/b");
	for (int i = 0; i < 512; i++)
		memcpy(path + 2 * i, "a/", 2);
	path[1023] = '\0';
	g = glob_of(glob);
	for (int i = 0; i < 1000; i++)
		cr_assert_not(glob_match(&g, path));
	glob_free(&g);
}

/* --- what is no error */

struct said {
	char words[4096];
	int n;
};

static void say(void *arg, const char *words)
{
	struct said *s = arg;

	s->n++;
	strcat(strcat(s->words, words), "\n");
}

static void review(struct rules *r, const char *const *storage, int n, const char *words)
{
	struct said s = {"", 0};

	rules_review(r, storage, say, &s);
	cr_assert_eq(s.n, n, "%d: %s", s.n, s.words);
	cr_assert_not_null(strstr(s.words, words), "\"%s\" is not in \"%s\"", words, s.words);
	rules_free(&r);
}

Test(rules, review)
{
	const char *const top[] = {"/", NULL}, *const two[] = {"/s3", "/data/nfs", NULL};

	review(OF(NULL, "/a/**=WRITE_BACK", "/b=NO_CACHE"), top, 0, "");
	review(OF(NULL, "/a/**=WRITE_BACK", "/a/b/*=NO_CACHE"), top, 1,
	    "line 3: rule 2, /a/b/*, never decides: rule 1, /a/**, comes first and covers it");
	review(OF(NULL, "/a*=WRITE_BACK", "/b=NO_CACHE", "/ab*=NO_CACHE"), top, 1,
	    "rule 3, /ab*, never decides: rule 1");
	review(OF(NULL, "/**=WRITE_BACK", "/**=NO_CACHE", "/x=NO_CACHE"), top, 2, "rule 2, /**");
	review(OF(NULL, "/a/b/*=NO_CACHE", "/a/**=WRITE_BACK"), top, 0, "");
	review(OF(NULL, "/s3/a/**=WRITE_BACK", "/gcs/**=WRITE_BACK", "/data/*=WRITE_BACK",
		   "/data/nfs/x=WRITE_BACK", "/**/y=NO_CACHE", "/*/nfs/*=NO_CACHE"),
	    two, 2, "line 3: rule 2, /gcs/**, is for storage that is not attached here");
	review(OF(NULL, "/s3=WRITE_BACK"), two, 1, "rule 1, /s3, is for storage");
}

/* --- without memory */

Test(rules, out_of_memory)
{
	static const char text[] = V "\"defaultRule\": {\"policyMode\": \"NO_CACHE\"}, \"pathRules\": "
				     "[{\"path\": \"/a/**\", \"description\": \"x\", "
				     "\"policyMode\": \"WRITE_BACK\"}]}";
	static const struct json_limits lim = {8, 100};
	struct rules *r = NULL;
	struct json *v = NULL;
	unsigned n;
	int err;

	cr_assert_eq(json_parse(&v, text, sizeof(text) - 1, &lim, &et), 0);
	for (n = 1;; n++) {
		nth_arm(n);
		err = rules_build(&r, text, sizeof(text) - 1, v, 1, &et);
		nth_disarm();
		if (!nth_fired())
			break;
		cr_assert_eq(err, -ENOMEM, "%u: %d", n, err);
		cr_assert_null(r);
	}
	cr_assert_eq(err, 0);
	cr_assert_geq(n, 4); /* those of libc count as the sanitizer lets them */
	rules_free(&r);
	json_free(&v);
}
