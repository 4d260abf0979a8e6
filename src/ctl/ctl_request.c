/* SPDX-License-Identifier: BSD-2-Clause */
/* From a line of text to a command with arguments that fit its row. */
#include <errno.h>
#include <string.h>

#include "ctl/ctl_priv.h"

const struct ctl_command *ctl_command_find(const struct ctl_command *table, const char *name)
{
	for (; table->name != NULL; table++)
		if (strcmp(table->name, name) == 0)
			return table;
	return NULL;
}

static const struct ctl_arg *arg_find(const struct ctl_command *desc, const char *name)
{
	for (const struct ctl_arg *a = desc->args; a->name != NULL; a++)
		if (strcmp(a->name, name) == 0)
			return a;
	return NULL;
}

int ctl_command_check(const struct ctl_command *desc, const struct json *args, struct errtext *et)
{
	if (args != NULL && args->type != JSON_OBJECT)
		return errtext_set(et, -EINVAL, "%s: \"args\" must be an object", desc->name);
	for (const struct json *m = args != NULL ? args->first : NULL; m != NULL; m = m->next) {
		const struct ctl_arg *a = arg_find(desc, m->key);

		if (a == NULL)
			return errtext_set(et, -EINVAL, "%s: unknown argument \"%s\"", desc->name,
			    m->key);
		if (a->type != m->type)
			return errtext_set(et, -EINVAL, "%s: argument \"%s\" must be %s",
			    desc->name, m->key, json_type_text(a->type));
	}
	for (const struct ctl_arg *a = desc->args; a->name != NULL; a++)
		if (a->required && json_get(args, a->name) == NULL)
			return errtext_set(et, -EINVAL, "%s: argument \"%s\" is missing",
			    desc->name, a->name);
	return 0;
}

static int request_check(struct ctl_request *rq, const struct ctl_command *table,
    struct errtext *et)
{
	const char *name = json_text(json_get(rq->tree, "command"));

	if (name == NULL)
		return errtext_set(et, -EINVAL,
		    "request: must be an object with a \"command\", which is a string");
	for (const struct json *m = rq->tree->first; m != NULL; m = m->next)
		if (strcmp(m->key, "command") != 0 && strcmp(m->key, "args") != 0)
			return errtext_set(et, -EINVAL, "request: unknown member \"%s\"", m->key);
	rq->desc = ctl_command_find(table, name);
	if (rq->desc == NULL)
		return errtext_set(et, -ENOSYS, "%s: this daemon has no such command", name);
	rq->args = json_get(rq->tree, "args");
	return ctl_command_check(rq->desc, rq->args, et);
}

int ctl_request_parse(struct ctl_request *rq, const struct ctl_command *table, const char *line,
    size_t len, struct errtext *et)
{
	static const struct json_limits limits = {CTL_JSON_DEPTH, CTL_JSON_VALUES};
	int rc;

	memset(rq, 0, sizeof(*rq));
	rc = json_parse(&rq->tree, line, len, &limits, et);
	if (rc != 0)
		return errtext_prefix(et, rc, "request");
	rc = request_check(rq, table, et);
	if (rc != 0)
		json_free(&rq->tree);
	return rc;
}
