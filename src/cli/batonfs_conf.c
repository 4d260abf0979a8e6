/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdio.h>
#include <string.h>

#include "base/obj.h"
#include "cli/cli.h"

enum cli_exit cli_conf_get(struct cli *c)
{
	struct cli_call call;
	struct json *v;
	enum cli_exit ex = cli_call_new(c, &call, "conf get");

	if (ex != CLI_OK)
		return ex;
	call.repeatable = true;
	json_add_text(call.args, "name", c->operands[0]);
	ex = cli_call_run(c, &call, &v);
	if (ex != CLI_OK)
		return ex;
	if (c->json) {
		ex = cli_print_json(c, v);
	} else {
		printf("%s\n", json_get_text(v, "value", ""));
		ex = cli_flush(c);
	}
	json_free(&v);
	return ex;
}

static const char *shown(const char *value)
{
	return value[0] != '\0' ? value : "-";
}

static void print_list(const struct json *rows)
{
	int name = (int)strlen("NAME"), value = (int)strlen("VALUE");
	int def = (int)strlen("DEFAULT");

	for (const struct json *r = rows->first; r != NULL; r = r->next) {
		name = MAX(name, (int)strlen(json_get_text(r, "name", "")));
		value = MAX(value, (int)strlen(json_get_text(r, "value", "")));
		def = MAX(def, (int)strlen(json_get_text(r, "default", "")));
	}
	printf("%-*s  %-*s  %-*s  %s\n", name, "NAME", value, "VALUE", def, "DEFAULT", "CHANGES");
	for (const struct json *r = rows->first; r != NULL; r = r->next)
		printf("%-*s  %-*s  %-*s  %s\n", name, json_get_text(r, "name", ""), value,
		    shown(json_get_text(r, "value", "")), def,
		    shown(json_get_text(r, "default", "")),
		    json_get_bool(r, "live", false) ? "live" : "start");
}

enum cli_exit cli_conf_list(struct cli *c)
{
	const struct json *rows;
	struct json *v;
	enum cli_exit ex = cli_ask(c, "conf list", &v);

	if (ex != CLI_OK)
		return ex;
	rows = json_get(v, "properties");
	if (c->json) {
		ex = cli_print_json(c, v);
	} else if (rows == NULL) {
		ex = cli_error(c, "the daemon's answer has no properties");
	} else {
		print_list(rows);
		ex = cli_flush(c);
	}
	json_free(&v);
	return ex;
}

enum cli_exit cli_conf_set(struct cli *c)
{
	struct cli_call call;
	struct json *v;
	enum cli_exit ex = cli_call_new(c, &call, "conf set");

	if (ex != CLI_OK)
		return ex;
	call.repeatable = true;
	json_add_text(call.args, "name", c->operands[0]);
	json_add_text(call.args, "value", c->operands[1]);
	ex = cli_call_run(c, &call, &v);
	if (ex != CLI_OK)
		return ex;
	if (c->json)
		ex = cli_print_json(c, v);
	else if (!json_get_bool(v, "kept", true))
		fprintf(stderr, "batonfs: conf set: %s is set, but the next daemon of this mount "
				"will not know it (see the daemon's log)\n",
		    json_get_text(v, "name", "?"));
	json_free(&v);
	return ex;
}
