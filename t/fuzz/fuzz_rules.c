/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: path rules.  The bytes are a text of rules and, behind the first NUL, a
 * path.  A text that is right is parsed again from what it says it was, decides the same,
 * and nothing of its rules takes longer than it should (the fuzzer's -timeout).
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rules_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void hear(void *arg, const char *words)
{
	if (words[0] == '\0')
		abort();
	(void)arg;
}

static void ask(const struct rules *r, const char *path)
{
	static const char *const storage[] = {"/s3", "/data/nfs", NULL};
	const struct rule *rule = rules_match(r, path);
	struct rules *again;
	const char *text;
	char below[64];
	size_t len;

	text = rules_text(r, &len);
	if (rules_parse(&again, text, len, 3, NULL) != 0)
		abort();
	if (rules_match(again, path)->mode != rule->mode)
		abort();
	rules_free(&again);
	rules_review(r, storage, hear, NULL);
	/* What no rule splits has one rule, in the one place that is looked at too. */
	if (strlen(path) < sizeof(below) - 8 && !rules_split(r, path)) {
		(void)snprintf(below, sizeof(below), "%s%s", path, path[0] != '\0' ? "/x/y" : "x/y");
		if (rules_match(r, below) != rule)
			abort();
	}
}

/* A path has no empty parts. */
static char *plain_path(const uint8_t *s, size_t len)
{
	char *path = malloc(len + 1);
	size_t n = 0;

	if (path == NULL)
		abort();
	for (size_t i = 0; i < len && s[i] != '\0'; i++)
		if (s[i] != '/' || (n > 0 && path[n - 1] != '/'))
			path[n++] = (char)s[i];
	if (n > 0 && path[n - 1] == '/')
		n--;
	path[n] = '\0';
	return path;
}

/* Any bytes as a glob, that the fuzzer need not find its way through JSON to it. */
static void glob(const uint8_t *data, size_t len, const char *path)
{
	char *text = malloc(len + 1);
	const char *why;
	struct glob g;

	if (text == NULL)
		abort();
	memcpy(text, data, len);
	text[len] = '\0';
	if (glob_make(&g, text, &why) == 0) {
		bool yes = glob_match(&g, path);

		if (!glob_covers(&g, &g) || glob_match(&g, path) != yes)
			abort();
		glob_below(&g, path);
		glob_free(&g);
	} else if (why == NULL) {
		abort();
	}
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *nul = size > 0 ? memchr(data, '\0', size) : NULL;
	size_t len = nul != NULL ? (size_t)(nul - data) : size;
	char *path = nul != NULL ? plain_path(nul + 1, size - len - 1) : plain_path(data, 0);
	struct errtext et = {""};
	struct rules *r;

	if (rules_parse(&r, (const char *)data, len, 3, &et) == 0)
		ask(r, path);
	else if (r != NULL || et.s[0] == '\0')
		abort();
	rules_free(&r);
	glob(data, len, path);
	free(path);
	return 0;
}
