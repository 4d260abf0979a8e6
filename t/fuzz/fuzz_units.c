/* SPDX-License-Identifier: BSD-2-Clause */
/* The small parsers: no crash, and what is written reads back as the same value. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "base/units.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int holds)
{
	if (!holds)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1); /* exactly as large as needed: one byte more is seen */
	char buf[64];
	uint64_t v, back;
	unsigned n;
	mode_t mode;
	double d;
	int b;

	if (text == NULL)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';

	if (units_parse_duration(text, &v) == 0) {
		units_format_duration(v, buf, sizeof(buf));
		must(units_parse_duration(buf, &back) == 0 && back == v);
	}
	if (units_parse_size(text, &v) == 0) {
		units_format_size(v, buf, sizeof(buf));
		must(units_parse_size(buf, &back) == 0 && back == v);
	}
	if (units_parse_u64(text, &v) == 0)
		must(v == strtoull(text, NULL, 10));
	if (units_parse_ratio(text, &d) == 0)
		must(d >= 0 && d == strtod(text, NULL));
	if (units_parse_bool(text, &b) == 0)
		must(b == 0 || b == 1);
	if (config_parse_restart_limit(text, &n, &v) == 0)
		must(v > 0);
	if (config_parse_mode(text, &mode) == 0)
		must(mode <= 07777 && mode == strtoul(text, NULL, 8));
	free(text);
	return 0;
}
