/* SPDX-License-Identifier: BSD-2-Clause */
/* From a text to rules: what it may say is in the tables, and all else is an error. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/obj.h"
#include "base/rules_priv.h"
#include "base/units.h"
#include "base/words.h"

#define API_VERSION "v1.0"
/* As each is looked at for each file that is created. */
#define RULES_MAX 1000u

/* What a rule is made of is six values at most. */
static const struct json_limits limits = {4, 8 * RULES_MAX};

struct parse {
	const char *text;
	unsigned nodes;
	struct errtext *et;
};

struct field {
	const char *name;
	enum json_type type;
	bool required;
};

static const struct field top_fields[] = {
    {"apiVersion", JSON_STRING, true},
    {"defaultRule", JSON_OBJECT, false},
    {"pathRules", JSON_ARRAY, false},
    {0},
};
static const struct field rule_fields[] = {
    {"alluxioPath", JSON_STRING, false},
    {"path", JSON_STRING, false},
    {"policyMode", JSON_STRING, true},
    {"description", JSON_STRING, false},
    {"properties", JSON_OBJECT, false},
    {0},
};
/* The default rule has no path: what is not there is unknown. */
static const struct field *const default_fields = &rule_fields[2];
static const struct field property_fields[] = {{"writeReplicas", JSON_NUMBER, false}, {0}};

static int bad(const struct parse *p, size_t at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static int bad(const struct parse *p, size_t at, const char *fmt, ...)
{
	unsigned line, column;
	char words[768];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(words, sizeof(words), fmt, ap);
	va_end(ap);
	json_where(p->text, at, &line, &column);
	return errtext_set(p->et, -EINVAL, "line %u, column %u: %s", line, column, words);
}

static int nomem(const struct parse *p)
{
	return errtext_set(p->et, -ENOMEM, "path rules: %s", strerror(ENOMEM));
}

/* --- fields */

static const struct field *field_find(const struct field *fields, const char *name)
{
	for (; fields->name != NULL; fields++)
		if (strcmp(fields->name, name) == 0)
			return fields;
	return NULL;
}

static int unknown_field(const struct parse *p, const struct json *v, const struct field *fields,
    const char *what)
{
	const char *names[ARRAY_LEN(rule_fields)], *near;
	size_t n = 0;

	for (; fields->name != NULL; fields++)
		names[n++] = fields->name;
	names[n] = NULL;
	near = words_nearest(v->key, names);
	if (near != NULL)
		return bad(p, v->key_at, "%s: unknown field \"%.80s\"; did you mean \"%s\"?", what,
		    v->key, near);
	if (n == 1)
		return bad(p, v->key_at, "%s: unknown field \"%.80s\"; there is only \"%s\"", what,
		    v->key, names[0]);
	return bad(p, v->key_at, "%s: unknown field \"%.80s\"", what, v->key);
}

/* An object, its fields known and of their types, and those there that must be. */
static int check_fields(const struct parse *p, const struct json *v, const struct field *fields,
    const char *what)
{
	const struct field *f;

	if (v->type != JSON_OBJECT)
		return bad(p, v->at, "%s: must be an object, not %s", what, json_type_text(v->type));
	for (const struct json *m = v->first; m != NULL; m = m->next) {
		f = field_find(fields, m->key);
		if (f == NULL)
			return unknown_field(p, m, fields, what);
		if (f->type != m->type)
			return bad(p, m->at, "%s: \"%s\" must be %s, not %s", what, f->name,
			    json_type_text(f->type), json_type_text(m->type));
	}
	for (f = fields; f->name != NULL; f++)
		if (f->required && json_get(v, f->name) == NULL)
			return bad(p, v->at, "%s: \"%s\" is missing", what, f->name);
	return 0;
}

/* --- a rule */

static int take_mode(const struct parse *p, const struct json *v, enum rule_mode *mode)
{
	const char *names[RULE_TRANSIENT + 2] = {NULL}, *near;

	for (unsigned m = RULE_NO_CACHE; m <= RULE_TRANSIENT; m++) {
		names[m] = rule_mode_name((enum rule_mode)m);
		if (strcmp(v->text, names[m]) == 0) {
			*mode = (enum rule_mode)m;
			return 0;
		}
	}
	near = words_nearest(v->text, names);
	if (near != NULL)
		return bad(p, v->at, "unknown policyMode \"%.80s\"; did you mean \"%s\"?", v->text,
		    near);
	return bad(p, v->at, "unknown policyMode \"%.80s\"; there are %s, %s, %s and %s", v->text,
	    names[RULE_WRITE_THROUGH], names[RULE_WRITE_BACK], names[RULE_TRANSIENT],
	    names[RULE_NO_CACHE]);
}

static int take_replicas(const struct parse *p, const struct json *properties, unsigned *replicas)
{
	const struct json *v;
	uint64_t n = 0;
	int err;

	*replicas = 1;
	if (properties == NULL)
		return 0;
	err = check_fields(p, properties, property_fields, "properties");
	v = json_get(properties, "writeReplicas");
	if (err != 0 || v == NULL)
		return err;
	err = units_parse_u64(v->text, &n);
	if (err == 0 && n > p->nodes && p->nodes == 1)
		return bad(p, v->at, "writeReplicas is %.40s, and there is one node, so that it can "
				     "only be 1", v->text);
	if (err == -ERANGE || (err == 0 && n > p->nodes))
		return bad(p, v->at, "writeReplicas is %.40s, and there are only %u nodes", v->text,
		    p->nodes);
	if (err != 0 || n == 0)
		return bad(p, v->at, "writeReplicas must be a whole number of at least 1, not %.40s",
		    v->text);
	*replicas = (unsigned)n;
	return 0;
}

static int take_text(const struct parse *p, const struct json *v, const char **out)
{
	if (v == NULL)
		return 0;
	*out = strdup(v->text);
	return *out != NULL ? 0 : nomem(p);
}

/* What a path's rule and the default rule have alike. */
static int take_rule(const struct parse *p, const struct json *v, struct rule *rule)
{
	int err = take_mode(p, json_get(v, "policyMode"), &rule->mode);

	if (err == 0)
		err = take_replicas(p, json_get(v, "properties"), &rule->replicas);
	if (err == 0)
		err = take_text(p, json_get(v, "description"), &rule->description);
	return err;
}

static int take_path(const struct parse *p, const struct json *v, struct rules_entry *e)
{
	const struct json *path = json_get(v, "alluxioPath"), *alias = json_get(v, "path");
	const char *why;
	int err;

	if (path != NULL && alias != NULL)
		return bad(p, MAX(path->key_at, alias->key_at),
		    "a rule has one path: \"path\" and \"alluxioPath\" are the same field");
	if (path == NULL)
		path = alias;
	if (path == NULL)
		return bad(p, v->at, "a rule of pathRules: \"alluxioPath\" is missing");
	err = take_text(p, path, &e->rule.path);
	if (err != 0)
		return err;
	err = glob_make(&e->glob, e->rule.path, &why);
	if (err == -EINVAL)
		return bad(p, path->at, "path \"%.256s\" can match nothing: it %s", e->rule.path,
		    why);
	return err == 0 ? 0 : nomem(p);
}

/* --- the whole */

static int take_rules(const struct parse *p, struct rules *r, const struct json *v)
{
	if (v->count == 0)
		return 0;
	if (v->count > RULES_MAX)
		return bad(p, v->at, "pathRules: %zu rules are too many; %u is the most", v->count,
		    RULES_MAX);
	r->entries = calloc(v->count, sizeof(*r->entries));
	if (r->entries == NULL)
		return nomem(p);
	for (const struct json *m = v->first; m != NULL; m = m->next) {
		struct rules_entry *e = &r->entries[r->n++];
		unsigned column;
		int err = check_fields(p, m, rule_fields, "a rule of pathRules");

		json_where(p->text, m->at, &e->line, &column);
		if (err == 0)
			err = take_path(p, m, e);
		if (err == 0)
			err = take_rule(p, m, &e->rule);
		if (err != 0)
			return err;
	}
	return 0;
}

static int take_all(const struct parse *p, struct rules *r, const struct json *v)
{
	const struct json *m;
	int err = check_fields(p, v, top_fields, "path rules");

	if (err != 0)
		return err;
	m = json_get(v, "apiVersion");
	if (strcmp(m->text, API_VERSION) != 0)
		return bad(p, m->at, "unknown apiVersion \"%.80s\"; this one knows \"%s\"", m->text,
		    API_VERSION);
	m = json_get(v, "defaultRule");
	if (m != NULL)
		err = check_fields(p, m, default_fields, "defaultRule");
	if (m != NULL && err == 0)
		err = take_rule(p, m, &r->def);
	m = json_get(v, "pathRules");
	if (m != NULL && err == 0)
		err = take_rules(p, r, m);
	return err;
}

int rules_build(struct rules **out, const char *text, size_t len, const struct json *v,
    unsigned nodes, struct errtext *et)
{
	const struct parse p = {.text = text, .nodes = nodes, .et = et};
	struct rules *r;
	int err;

	*out = NULL;
	ALLOC_OBJ(r, RULES_MAGIC);
	if (r == NULL)
		return nomem(&p);
	r->def.mode = RULE_WRITE_THROUGH;
	r->def.replicas = 1;
	r->text = strndup(text, len);
	r->len = len;
	err = r->text != NULL ? take_all(&p, r, v) : nomem(&p);
	if (err != 0)
		rules_free(&r);
	*out = r;
	return err;
}

int rules_parse(struct rules **out, const char *json, size_t len, unsigned nodes,
    struct errtext *et)
{
	struct json *v = NULL;
	int err;

	*out = NULL;
	err = json_parse(&v, json, len, &limits, et);
	if (err == 0)
		err = rules_build(out, json, len, v, nodes, et);
	json_free(&v);
	return err;
}
