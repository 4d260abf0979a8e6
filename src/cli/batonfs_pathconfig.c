/* SPDX-License-Identifier: BSD-2-Clause */
/* pathconfig: show, edit, set and test. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/obj.h"
#include "cli/cli.h"
#include "cli/edit.h"

static const struct json_limits rules_limits = {64, 1000 * 1000};

/* An answer that says that no rule has an effect. */
static void warn_off(const struct json *v)
{
	if (!json_get_bool(v, "enabled", true))
		fprintf(stderr, "batonfs: warning: write.cache.enabled is false: whatever the rules "
				"say, every path is NO_CACHE\n");
}

/* A value as people read it. */
static enum cli_exit print_pretty(const struct cli *c, FILE *to, const struct json *v)
{
	struct json_out *o = json_out_new_pretty();
	const char *text;
	size_t len;
	int rc = -ENOMEM;

	if (o != NULL) {
		json_put_value(o, v);
		rc = json_out_take(o, &text, &len);
		if (rc == 0 && fwrite(text, 1, len, to) != len)
			rc = -EIO;
		json_out_free(&o);
	}
	return rc != 0 ? cli_error(c, "%s", strerror(-rc)) : CLI_OK;
}

/* The rules in an answer, as a tree. */
static enum cli_exit read_rules(struct cli *c, const struct json *answer, struct json **rules)
{
	const char *text = json_get_text(answer, "text", "");
	struct errtext et = {""};

	if (json_parse(rules, text, strlen(text), &rules_limits, &et) != 0)
		return cli_error(c, "the daemon's rules: %s", et.s);
	return CLI_OK;
}

/* --- show */

static enum cli_exit print_all(const struct cli *c, const struct json *answer,
    const struct json *rules)
{
	struct json_out *o = json_out_new();
	const char *text;
	size_t len;
	int rc = -ENOMEM;

	if (o != NULL) {
		json_open_object(o);
		json_add_u64(o, "version", json_get_u64(answer, "version", 0));
		json_add_bool(o, "enabled", json_get_bool(answer, "enabled", false));
		json_key(o, "rules");
		json_put_value(o, rules);
		json_close_object(o);
		rc = json_out_take(o, &text, &len);
		if (rc == 0 && (fwrite(text, 1, len, stdout) != len || putchar('\n') == EOF))
			rc = -EIO;
		json_out_free(&o);
	}
	return rc != 0 ? cli_error(c, "%s", strerror(-rc)) : cli_flush(c);
}

enum cli_exit cli_pathconfig_show(struct cli *c)
{
	struct json *v = NULL, *rules = NULL;
	enum cli_exit ex = cli_ask(c, "pathconfig show", &v);

	if (ex == CLI_OK)
		ex = read_rules(c, v, &rules);
	if (ex == CLI_OK && c->json)
		ex = print_all(c, v, rules);
	else if (ex == CLI_OK)
		ex = print_pretty(c, stdout, rules);
	if (ex == CLI_OK)
		ex = cli_flush(c);
	if (ex == CLI_OK)
		warn_off(v);
	json_free(&rules);
	json_free(&v);
	return ex;
}

/* --- test */

enum cli_exit cli_pathconfig_test(struct cli *c)
{
	const char *path = c->path_given != NULL ? c->path_given
			   : c->noperands > 0	 ? c->operands[0]
						 : NULL;
	struct cli_call call;
	struct json *v = NULL;
	enum cli_exit ex;

	if (path == NULL) {
		cli_error(c, "which path? --path PATH says it");
		return CLI_USAGE;
	}
	ex = cli_call_new(c, &call, "pathconfig test");
	if (ex != CLI_OK)
		return ex;
	call.repeatable = true;
	json_add_text(call.args, "path", path);
	ex = cli_call_run(c, &call, &v);
	if (ex != CLI_OK)
		return ex;
	ex = c->json ? cli_print_json(c, v) : print_pretty(c, stdout, v);
	if (ex == CLI_OK)
		ex = cli_flush(c);
	if (ex == CLI_OK)
		warn_off(v);
	json_free(&v);
	return ex;
}

/* --- set and edit */

/* if_version: NULL, or what the rules must have been before. */
static enum cli_exit send_rules(struct cli *c, const char *text, const uint64_t *if_version)
{
	const struct json *warnings;
	struct cli_call call;
	struct json *v = NULL;
	enum cli_exit ex = cli_call_new(c, &call, "pathconfig set");

	if (ex != CLI_OK)
		return ex;
	/* The same rules a second time are the same rules. */
	call.repeatable = true;
	json_add_text(call.args, "text", text);
	if (if_version != NULL)
		json_add_u64(call.args, "if_version", *if_version);
	ex = cli_call_run(c, &call, &v);
	if (ex != CLI_OK)
		return ex;
	if (c->json) {
		ex = cli_print_json(c, v);
	} else {
		puts("Update successful!");
		ex = cli_flush(c);
	}
	warnings = json_get(v, "warnings");
	for (const struct json *w = warnings != NULL ? warnings->first : NULL; w != NULL;
	     w = w->next)
		fprintf(stderr, "batonfs: warning: %s\n", w->text != NULL ? w->text : "");
	warn_off(v);
	json_free(&v);
	return ex;
}

enum cli_exit cli_pathconfig_set(struct cli *c)
{
	const char *file = c->operands[0];
	bool from_stdin = strcmp(file, "-") == 0;
	FILE *f = from_stdin ? stdin : fopen(file, "re");
	char *text = NULL;
	enum cli_exit ex;

	if (f == NULL)
		return cli_error(c, "%s: %s", file, strerror(errno));
	ex = edit_read(c, f, from_stdin ? "standard input" : file, &text);
	if (!from_stdin)
		fclose(f);
	if (ex == CLI_OK)
		ex = send_rules(c, text, NULL);
	free(text);
	return ex;
}

/* What was edited is not lost because it was refused. */
static enum cli_exit edit_and_send(struct cli *c, struct edit *e, const uint64_t *version)
{
	char *text = NULL;
	enum cli_exit ex = edit_run(c, e);

	if (ex != CLI_OK)
		return ex;
	e->keep = true;
	ex = edit_read_back(c, e, &text);
	if (ex == CLI_OK)
		ex = send_rules(c, text, version);
	if (ex == CLI_OK)
		e->keep = false;
	else
		cli_error(c, "what was edited is kept in %s", e->file);
	free(text);
	return ex;
}

enum cli_exit cli_pathconfig_edit(struct cli *c)
{
	struct json *v = NULL, *rules = NULL;
	struct edit e = {.out = NULL};
	uint64_t version;
	enum cli_exit ex = cli_ask(c, "pathconfig show", &v);

	if (ex == CLI_OK)
		ex = read_rules(c, v, &rules);
	if (ex == CLI_OK)
		ex = edit_new(c, &e, "batonfs-pathconfig", "rules.json");
	if (ex == CLI_OK)
		ex = print_pretty(c, e.out, rules);
	version = json_get_u64(v, "version", 0);
	json_free(&rules);
	json_free(&v);
	if (ex == CLI_OK)
		ex = edit_and_send(c, &e, &version);
	edit_end(&e);
	return ex;
}
