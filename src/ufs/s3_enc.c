/* SPDX-License-Identifier: BSD-2-Clause */
/* Text forms of S3: percent-encoding, dates, numbers, ETags. */
#include <curl/curl.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "ufs/s3_priv.h"

static bool unreserved(unsigned char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
	    c == '-' || c == '_' || c == '.' || c == '~';
}

static void enc(FILE *f, const char *s, bool slash)
{
	for (; *s != '\0'; s++) {
		unsigned char c = (unsigned char)*s;

		if (unreserved(c) || (c == '/' && !slash))
			(void)fputc(c, f);
		else
			(void)fprintf(f, "%%%02X", c);
	}
}

void s3_enc_path(FILE *f, const char *s)
{
	enc(f, s, false);
}

void s3_enc_value(FILE *f, const char *s)
{
	enc(f, s, true);
}

void s3_enc_xml(FILE *f, const char *s)
{
	for (; *s != '\0'; s++) {
		if (strchr("&<>\"'", *s) != NULL)
			(void)fprintf(f, "&#%d;", *s);
		else
			(void)fputc(*s, f);
	}
}

bool s3_stream_close(FILE *f, char *const *text)
{
	bool ok = fflush(f) == 0 && !ferror(f);

	/* glibc shrinks the text at the end, and loses it all if it cannot. */
	return fclose(f) == 0 && ok && *text != NULL;
}

static int hexval(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Some servers write a space as "+", and all of them a plus as "%2B". */
size_t s3_dec(char *s, size_t len)
{
	size_t out = 0;

	for (size_t i = 0; i < len; i++) {
		if (s[i] == '%' && len - i > 2 && hexval(s[i + 1]) >= 0 && hexval(s[i + 2]) >= 0) {
			s[out++] = (char)(hexval(s[i + 1]) * 16 + hexval(s[i + 2]));
			i += 2;
		} else {
			s[out++] = s[i] == '+' ? ' ' : s[i];
		}
	}
	s[out] = '\0';
	return out;
}

bool s3_etag(const char *value, char out[UFS_VERSION_MAX])
{
	size_t n;

	if (value == NULL)
		return false;
	n = strlen(value);
	if (n >= 2 && value[0] == '"' && value[n - 1] == '"') {
		value++;
		n -= 2;
	}
	if (n == 0 || n >= UFS_VERSION_MAX)
		return false;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)value[i] <= ' ' || (unsigned char)value[i] >= 0x7f ||
		    value[i] == '"')
			return false;
	memcpy(out, value, n);
	out[n] = '\0';
	return true;
}

bool s3_http_date(const char *text, time_t *out)
{
	time_t t = text != NULL ? curl_getdate(text, NULL) : -1;

	if (t == -1)
		return false;
	*out = t;
	return true;
}

/* Fractions are dropped: HEAD knows whole seconds only, and the same file must
 * not have two times. */
bool s3_iso_date(const char *text, time_t *out)
{
	struct tm tm = { 0 };
	char zone = '\0';
	int end = 0;

	if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
		&tm.tm_hour, &tm.tm_min, &tm.tm_sec, &end) != 6)
		return false;
	text += end;
	if (*text == '.')
		text += 1 + strspn(text + 1, "0123456789");
	zone = *text;
	if ((zone != 'Z' || text[1] != '\0') && strcmp(text, "+00:00") != 0)
		return false;
	if (tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 ||
	    tm.tm_hour > 23 || tm.tm_hour < 0 || tm.tm_min > 59 || tm.tm_min < 0 ||
	    tm.tm_sec > 60 || tm.tm_sec < 0)
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	*out = timegm(&tm);
	return true;
}

bool s3_u64(const char *text, uint64_t *out)
{
	uint64_t v = 0;

	if (*text == '\0')
		return false;
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9' || v > (UINT64_MAX - 9) / 10)
			return false;
		v = v * 10 + (uint64_t)(*text - '0');
	}
	*out = v;
	return true;
}
