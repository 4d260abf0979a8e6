/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/obj.h"

struct unit {
	const char *name;
	uint64_t factor;
};

/* Largest first; of two with one factor the first is the one that is written. */
static const struct unit duration_units[] = {
    {"d", 86400 * NS_PER_S},
    {"h", 3600 * NS_PER_S},
    {"min", 60 * NS_PER_S},
    {"m", 60 * NS_PER_S},
    {"s", NS_PER_S},
    {"ms", NS_PER_MS},
    {"us", NS_PER_US},
    {"ns", 1},
};

static const struct unit size_units[] = {
    {"TiB", 1024 * GIB},
    {"T", 1024 * GIB},
    {"GiB", GIB},
    {"G", GIB},
    {"MiB", MIB},
    {"M", MIB},
    {"KiB", KIB},
    {"K", KIB},
    {"", 1},
};

/* The digits at the start of text; *end is what follows them. */
static int parse_digits(const char *text, uint64_t *out, const char **end)
{
	const char *p = text;
	uint64_t v = 0;
	bool over = false;

	for (; *p >= '0' && *p <= '9'; p++) {
		over |= __builtin_mul_overflow(v, 10, &v);
		over |= __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v);
	}
	*end = p;
	if (p == text)
		return -EINVAL;
	*out = v;
	return over ? -ERANGE : 0;
}

static int parse_with_units(
    const char *text, const struct unit *units, size_t n, bool any_case, uint64_t *out)
{
	const char *suffix;
	uint64_t v = 0;
	int err = parse_digits(text, &v, &suffix);

	if (err == -EINVAL)
		return err;
	for (size_t i = 0; i < n; i++) {
		const char *name = units[i].name;

		if ((any_case ? strcasecmp(suffix, name) : strcmp(suffix, name)) != 0)
			continue;
		if (err != 0 || __builtin_mul_overflow(v, units[i].factor, &v))
			return -ERANGE;
		*out = v;
		return 0;
	}
	return -EINVAL;
}

int units_parse_duration(const char *text, uint64_t *ns)
{
	if (strcmp(text, "0") == 0) {
		*ns = 0;
		return 0;
	}
	return parse_with_units(text, duration_units, ARRAY_LEN(duration_units), false, ns);
}

int units_parse_size(const char *text, uint64_t *bytes)
{
	return parse_with_units(text, size_units, ARRAY_LEN(size_units), true, bytes);
}

int units_parse_u64(const char *text, uint64_t *out)
{
	const char *end;
	uint64_t v = 0;
	int err = parse_digits(text, &v, &end);

	if (*end != '\0')
		return -EINVAL;
	if (err == 0)
		*out = v;
	return err;
}

int units_parse_ratio(const char *text, double *out)
{
	size_t whole = strspn(text, "0123456789");
	size_t part = text[whole] == '.' ? strspn(text + whole + 1, "0123456789") : 0;
	size_t used = whole + (text[whole] == '.' ? 1 + part : 0);
	char *end;
	double v;

	/* strtod alone would take signs, blanks, hex, exponents, "inf" and "nan". */
	if (whole == 0 || text[used] != '\0' || text[used - 1] == '.')
		return -EINVAL;
	v = strtod(text, &end);
	if (*end != '\0')
		return -EINVAL;
	if (!isfinite(v))
		return -ERANGE;
	*out = v;
	return 0;
}

int units_parse_bool(const char *text, int *out)
{
	static const char *const words[][2] = {
	    {"false", "true"}, {"no", "yes"}, {"off", "on"}, {"0", "1"}};

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		for (int v = 0; v < 2; v++) {
			if (strcasecmp(text, words[i][v]) == 0) {
				*out = v;
				return 0;
			}
		}
	}
	return -EINVAL;
}

static char *format_with_units(
    uint64_t v, const struct unit *units, size_t n, const char *zero, char *buf, size_t len)
{
	if (v == 0) {
		snprintf(buf, len, "%s", zero);
		return buf;
	}
	for (size_t i = 0; i < n; i++) {
		if (v % units[i].factor == 0) {
			snprintf(buf, len, "%" PRIu64 "%s", v / units[i].factor, units[i].name);
			break;
		}
	}
	return buf;
}

char *units_format_duration(uint64_t ns, char *buf, size_t len)
{
	return format_with_units(ns, duration_units, ARRAY_LEN(duration_units), "0s", buf, len);
}

char *units_format_size(uint64_t bytes, char *buf, size_t len)
{
	return format_with_units(bytes, size_units, ARRAY_LEN(size_units), "0", buf, len);
}
