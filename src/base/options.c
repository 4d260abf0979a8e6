/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of properties, and setting and getting one. */
#include "base/options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/obj.h"
#include "base/units.h"
#include "base/words.h"

#define CONFIG_MAGIC 0xc0f1600du

/* Names of the reference system are understood with this before them. */
static const char alias_prefix[] = "alluxio.";

const struct option_desc option_table[] = {
#define OPT(id, name_, type_, def_, min_, max_, when_, doc_)                                       \
	{.name = (name_),                                                                          \
	    .type = OPT_##type_,                                                                   \
	    .def = (def_),                                                                         \
	    .min = (min_),                                                                         \
	    .max = (max_),                                                                         \
	    .when = OPT_##when_,                                                                   \
	    .doc = (doc_),                                                                         \
	    .offset = offsetof(struct config, id)},
#include "base/options.def"
#undef OPT
};
const size_t option_count = ARRAY_LEN(option_table);

/* A value that has been read, before it goes into a config. */
union value {
	uint64_t u;
	double d;
	bool b;
	char *s; /* allocated */
};

static bool is_text(const struct option_desc *od)
{
	return od->type == OPT_STRING || od->type == OPT_CHOICE;
}

static void *member(struct config *cfg, const struct option_desc *od)
{
	return (char *)cfg + od->offset;
}

static const void *member_const(const struct config *cfg, const struct option_desc *od)
{
	return (const char *)cfg + od->offset;
}

const struct option_desc *option_find(const char *name)
{
	if (strncmp(name, alias_prefix, strlen(alias_prefix)) == 0)
		name += strlen(alias_prefix);
	for (size_t i = 0; i < option_count; i++) {
		if (strcmp(option_table[i].name, name) == 0)
			return &option_table[i];
	}
	return NULL;
}

/* --- the nearest name ------------------------------------------------------ */

/* A suggestion that differs in more than a third of its letters is none. */
#define NEAR_ENOUGH(len) (MAX((size_t)2, (len) / 3))
/* A shorter part occurs in too many names to tell anything. */
#define NAME_PART_MIN 4

const char *option_nearest(const char *name)
{
	const char *best = NULL;
	unsigned least = UINT32_MAX;
	size_t len;

	if (strncmp(name, alias_prefix, strlen(alias_prefix)) == 0)
		name += strlen(alias_prefix);
	len = strnlen(name, WORDS_MAX);
	for (size_t i = 0; i < option_count; i++) {
		const char *known = option_table[i].name;
		unsigned d = words_distance(name, known);

		/* A name without its first or last words is nearer than its letters say. */
		if (len >= NAME_PART_MIN && strstr(known, name) != NULL)
			d = MIN(d, 1);
		if (d < least) {
			least = d;
			best = known;
		}
	}
	return least <= NEAR_ENOUGH(len) ? best : NULL;
}

/* --- values from text ------------------------------------------------------ */

static int parse_number(const struct option_desc *od, const char *text, union value *v)
{
	int b = 0, err;

	switch (od->type) {
	case OPT_SIZE:
		return units_parse_size(text, &v->u);
	case OPT_DURATION:
		return units_parse_duration(text, &v->u);
	case OPT_U64:
		return units_parse_u64(text, &v->u);
	case OPT_RATIO:
		return units_parse_ratio(text, &v->d);
	case OPT_BOOL:
		err = units_parse_bool(text, &b);
		v->b = b != 0;
		return err;
	case OPT_STRING:
	case OPT_CHOICE:
		break;
	}
	return -EINVAL;
}

/* The word of the row that text stands for, in any case of letters. */
static int parse_choice(const struct option_desc *od, const char *text, char **out)
{
	const char *p = od->max;
	size_t len = strlen(text);

	for (;;) {
		size_t n = strcspn(p, "|");

		if (n == len && strncasecmp(p, text, n) == 0) {
			*out = strndup(p, n);
			return *out != NULL ? 0 : -ENOMEM;
		}
		if (p[n] == '\0')
			return -EINVAL;
		p += n + 1;
	}
}

/* Values are shown on one line and read back from one. */
static int parse_string(const char *text, char **out)
{
	size_t n = 0;

	for (; text[n] != '\0'; n++) {
		if ((unsigned char)text[n] < ' ' || text[n] == '\177')
			return -EINVAL;
	}
	if (n >= OPTION_TEXT_MAX)
		return -ERANGE;
	*out = strdup(text);
	return *out != NULL ? 0 : -ENOMEM;
}

static bool in_range(const struct option_desc *od, const union value *v)
{
	union value lim;

	if (od->type == OPT_BOOL)
		return true;
	if (od->min[0] != '\0' && parse_number(od, od->min, &lim) == 0 &&
	    (od->type == OPT_RATIO ? v->d < lim.d : v->u < lim.u))
		return false;
	if (od->max[0] != '\0' && parse_number(od, od->max, &lim) == 0 &&
	    (od->type == OPT_RATIO ? v->d > lim.d : v->u > lim.u))
		return false;
	return true;
}

static int parse_value(const struct option_desc *od, const char *text, union value *v)
{
	int err;

	if (od->type == OPT_STRING)
		return parse_string(text, &v->s);
	if (od->type == OPT_CHOICE)
		return parse_choice(od, text, &v->s);
	err = parse_number(od, text, v);
	return err == 0 && !in_range(od, v) ? -ERANGE : err;
}

/* Moves the value into its member. */
static void store(struct config *cfg, const struct option_desc *od, const union value *v)
{
	void *m = member(cfg, od);
	char **s = m;

	switch (od->type) {
	case OPT_SIZE:
	case OPT_DURATION:
	case OPT_U64:
		*(uint64_t *)m = v->u;
		break;
	case OPT_RATIO:
		*(double *)m = v->d;
		break;
	case OPT_BOOL:
		*(bool *)m = v->b;
		break;
	case OPT_STRING:
	case OPT_CHOICE:
		free(*s);
		*s = v->s;
		break;
	}
}

/* Blanks around a text, without copying: its start, and its length in *len. */
static const char *trim(const char *s, size_t *len)
{
	static const char blanks[] = " \t\r\n\v\f";
	size_t n;

	s += strspn(s, blanks);
	n = strlen(s);
	while (n > 0 && strchr(blanks, s[n - 1]) != NULL)
		n--;
	*len = n;
	return s;
}

static int set_error(const struct option_desc *od, int err, const char *value, struct errtext *et)
{
	char range[256];

	if (err == -ENOMEM)
		return errtext_set(et, err, "%s: %s", od->name, strerror(ENOMEM));
	if (is_text(od) && err == -ERANGE)
		return errtext_set(et, err, "%s: the value is longer than %d characters", od->name,
		    OPTION_TEXT_MAX - 1);
	if (od->type == OPT_STRING)
		return errtext_set(et, err, "%s: the value has control characters", od->name);
	return errtext_set(et, err, "%s: bad value \"%.200s\": must be a %s", od->name, value,
	    option_range_text(od, range, sizeof(range)));
}

static int set_unknown(const char *name, struct errtext *et)
{
	const char *near = option_nearest(name);

	if (near == NULL)
		return errtext_set(et, -ENOENT,
		    "unknown property \"%.200s\"; `batonfsd --dump-options` lists all", name);
	return errtext_set(et, -ENOENT, "unknown property \"%.200s\"; did you mean \"%s\"?", name,
	    near);
}

int config_set(struct config *cfg, const char *name, const char *value, struct errtext *et)
{
	const struct option_desc *od;
	union value v = {0};
	char *text;
	size_t len;
	int err;

	CHECK_OBJ(cfg, CONFIG_MAGIC);
	od = option_find(name);
	if (od == NULL)
		return set_unknown(name, et);
	value = trim(value, &len);
	text = strndup(value, len);
	if (text == NULL)
		return set_error(od, -ENOMEM, value, et);
	err = parse_value(od, text, &v);
	if (err == 0)
		store(cfg, od, &v);
	else
		set_error(od, err, text, et);
	free(text);
	return err;
}

int config_set_live(struct config *cfg, const char *name, const char *value, struct errtext *et)
{
	const struct option_desc *od = option_find(name);

	if (od != NULL && od->when != OPT_LIVE)
		return errtext_set(et, -EPERM,
		    "%s: is read when the daemon starts and cannot be changed while it runs: set "
		    "it in "
		    "the configuration file, then `batonfs upgrade`",
		    od->name);
	return config_set(cfg, name, value, et);
}

int config_set_pair(struct config *cfg, const char *pair, struct errtext *et)
{
	const char *eq = strchr(pair, '='), *start;
	char *copy;
	size_t len;
	int err;

	start = trim(pair, &len);
	if (eq == NULL || eq == start)
		return errtext_set(et, -EINVAL, "\"%.200s\" is not of the form name=value", pair);
	copy = strndup(start, (size_t)(eq - start));
	if (copy == NULL)
		return errtext_set(et, -ENOMEM, "%s", strerror(ENOMEM));
	trim(copy, &len);
	copy[len] = '\0';
	err = config_set(cfg, copy, eq + 1, et);
	free(copy);
	return err;
}

struct config *config_new(void)
{
	struct config *cfg;

	ALLOC_OBJ(cfg, CONFIG_MAGIC);
	if (cfg == NULL)
		return NULL;
	for (size_t i = 0; i < option_count; i++) {
		if (config_set(cfg, option_table[i].name, option_table[i].def, NULL) != 0) {
			config_free(&cfg);
			return NULL;
		}
	}
	return cfg;
}

void config_free(struct config **pp)
{
	struct config *cfg;

	TAKE_OBJ(cfg, pp, CONFIG_MAGIC);
	for (size_t i = 0; i < option_count; i++) {
		if (is_text(&option_table[i]))
			free(*(char **)member(cfg, &option_table[i]));
	}
	FREE_OBJ(cfg);
}

/* --- values to text -------------------------------------------------------- */

/* The shortest digits that read back as the same number. */
static void format_ratio(double d, char *buf, size_t len)
{
	char one[400];

	for (int digits = 1; digits <= 1100; digits++) {
		double back;

		snprintf(one, sizeof(one), "%.*f", digits, d);
		if (units_parse_ratio(one, &back) == 0 && back == d)
			break;
	}
	snprintf(buf, len, "%s", one);
}

char *config_get(const struct config *cfg, const char *name, char *buf, size_t len)
{
	const struct option_desc *od;
	const void *m;

	CHECK_OBJ(cfg, CONFIG_MAGIC);
	od = option_find(name);
	if (od == NULL)
		return NULL;
	m = member_const(cfg, od);
	switch (od->type) {
	case OPT_SIZE:
		return units_format_size(*(const uint64_t *)m, buf, len);
	case OPT_DURATION:
		return units_format_duration(*(const uint64_t *)m, buf, len);
	case OPT_U64:
		snprintf(buf, len, "%" PRIu64, *(const uint64_t *)m);
		return buf;
	case OPT_RATIO:
		format_ratio(*(const double *)m, buf, len);
		return buf;
	case OPT_BOOL:
		snprintf(buf, len, "%s", *(const bool *)m ? "true" : "false");
		return buf;
	case OPT_STRING:
	case OPT_CHOICE:
		snprintf(buf, len, "%s", *(char *const *)m);
		return buf;
	}
	return NULL;
}

char *option_range_text(const struct option_desc *od, char *buf, size_t len)
{
	static const char *const words[] = {
	    [OPT_SIZE] = "size",
	    [OPT_DURATION] = "duration",
	    [OPT_U64] = "number",
	    [OPT_RATIO] = "ratio",
	    [OPT_BOOL] = "truth value, true or false",
	    [OPT_STRING] = "text",
	    [OPT_CHOICE] = "choice, one of ",
	};
	const char *word = words[od->type];

	if (od->type == OPT_CHOICE)
		snprintf(buf, len, "%s%s", word, od->max);
	else if (od->min[0] != '\0' && od->max[0] != '\0')
		snprintf(buf, len, "%s, %s to %s", word, od->min, od->max);
	else if (od->min[0] != '\0')
		snprintf(buf, len, "%s, at least %s", word, od->min);
	else if (od->max[0] != '\0')
		snprintf(buf, len, "%s, at most %s", word, od->max);
	else
		snprintf(buf, len, "%s", word);
	return buf;
}
