/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a line of the control socket.  The same bytes go through the request
 * parser and, with wide limits, through the reader; what was read is written and
 * read again and must come out the same.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void nothing(struct ctl_cmd *cmd)
{
	(void)cmd;
}

static const struct ctl_arg args[] = {
    {"path", JSON_STRING, true},
    {"recursive", JSON_BOOL, false},
    {"flags", JSON_ARRAY, false},
    {0},
};
static const struct ctl_command table[] = {{"fs ls", nothing, args, "for the fuzzer"}, {0}};

/* The text of a value: malloc'ed. */
static char *written(const struct json *v, size_t *len)
{
	struct json_out *o = json_out_new();
	const char *text;
	char *copy;

	if (o == NULL)
		abort();
	json_put_value(o, v);
	if (json_out_take(o, &text, len) != 0)
		abort();
	copy = malloc(*len + 1);
	if (copy == NULL)
		abort();
	memcpy(copy, text, *len);
	copy[*len] = '\0';
	json_out_free(&o);
	return copy;
}

static void round_trip(const struct json *v, const struct json_limits *lim)
{
	size_t len, len2;
	char *text = written(v, &len), *text2;
	struct json *again;

	if (json_parse(&again, text, len, lim, NULL) != 0)
		abort();
	text2 = written(again, &len2);
	if (len != len2 || memcmp(text, text2, len) != 0)
		abort();
	json_free(&again);
	free(text);
	free(text2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct json_limits wide = {64, 100000};
	struct ctl_request rq;
	struct errtext et = {""};
	struct json *v;

	if (ctl_request_parse(&rq, table, (const char *)data, size, &et) == 0)
		json_free(&rq.tree);
	if (json_parse(&v, (const char *)data, size, &wide, &et) != 0)
		return 0;
	round_trip(v, &wide);
	json_free(&v);
	return 0;
}
