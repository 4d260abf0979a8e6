/* SPDX-License-Identifier: BSD-2-Clause */
/* How things look on a terminal. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/obj.h"
#include "cli/cli.h"

char *cli_size(uint64_t bytes, char *buf, size_t len)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double v = (double)bytes;
	size_t u = 0;

	while (v >= 1023.95 && u + 1 < ARRAY_LEN(units)) {
		v /= 1024;
		u++;
	}
	if (u == 0)
		snprintf(buf, len, "%" PRIu64 "B", bytes);
	else
		snprintf(buf, len, "%.1f%s", v, units[u]);
	return buf;
}

char *cli_span(uint64_t s, char *buf, size_t len)
{
	if (s >= 86400)
		snprintf(buf, len, "%" PRIu64 "d %" PRIu64 "h", s / 86400, s % 86400 / 3600);
	else if (s >= 3600)
		snprintf(buf, len, "%" PRIu64 "h %" PRIu64 "min", s / 3600, s % 3600 / 60);
	else if (s >= 60)
		snprintf(buf, len, "%" PRIu64 "min %" PRIu64 "s", s / 60, s % 60);
	else
		snprintf(buf, len, "%" PRIu64 "s", s);
	return buf;
}

char *cli_time(uint64_t seconds, char *buf, size_t len)
{
	time_t t = (time_t)seconds;
	struct tm tm;

	if (localtime_r(&t, &tm) == NULL || strftime(buf, len, "%Y-%m-%d %H:%M:%S", &tm) == 0)
		snprintf(buf, len, "%" PRIu64, seconds);
	return buf;
}

char *cli_printable(const char *s, char *buf, size_t len)
{
	size_t n = 0;

	for (; *s != '\0' && n + 1 < len; s++)
		buf[n++] = (unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s;
	buf[n] = '\0';
	return buf;
}

unsigned cli_distance(const char *a, const char *b)
{
	unsigned row[64];
	size_t nb = strlen(b);

	if (nb + 1 > ARRAY_LEN(row))
		return (unsigned)nb;
	for (size_t j = 0; j <= nb; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; *a != '\0'; a++, i++) {
		unsigned diagonal = row[0];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= nb; j++) {
			unsigned best = diagonal + (*a != b[j - 1]);

			diagonal = row[j];
			best = MIN(best, MIN(row[j], row[j - 1]) + 1);
			row[j] = best;
		}
	}
	return row[nb];
}

enum cli_exit cli_flush(const struct cli *c)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return CLI_OK;
	/* The reader of a pipe has had enough: nothing to tell anybody. */
	return errno == EPIPE ? CLI_FAILURE : cli_error(c, "standard output: %s", strerror(errno));
}

enum cli_exit cli_print_json(const struct cli *c, const struct json *v)
{
	struct json_out *o = json_out_new();
	const char *text;
	size_t len;
	int rc = -ENOMEM;

	if (o != NULL) {
		json_put_value(o, v);
		rc = json_out_take(o, &text, &len);
		if (rc == 0)
			printf("%.*s\n", (int)len, text);
		json_out_free(&o);
	}
	return rc != 0 ? cli_error(c, "%s", strerror(-rc)) : cli_flush(c);
}
