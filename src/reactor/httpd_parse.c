/* SPDX-License-Identifier: BSD-2-Clause */
/* The head of a request (httpd.h). */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "reactor/httpd.h"

/* RFC 9110's token. */
static bool token_ok(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c <= ' ' || c >= 0x7f || strchr("\"(),/:;<=>?@[\\]{}", c) != NULL)
			return false;
	}
	return n > 0;
}

static bool text_ok(const char *s, size_t n, bool blanks)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];

		if ((c < ' ' && c != '\t') || c == 0x7f || (!blanks && c <= ' '))
			return false;
	}
	return true;
}

/* "METHOD SP target SP HTTP/1.x" */
static int request_line(char *line, size_t n, struct httpd_head *out)
{
	char *sp = memchr(line, ' ', n), *last = memrchr(line, ' ', n);
	size_t left;

	if (sp == NULL || last == sp || !token_ok(line, (size_t)(sp - line)) ||
	    !text_ok(sp + 1, (size_t)(last - sp) - 1, false) || sp[1] != '/')
		return -EBADMSG;
	left = n - (size_t)(last + 1 - line);
	if (left != 8 || memcmp(last + 1, "HTTP/", 5) != 0)
		return -EBADMSG;
	if (memcmp(last + 6, "1.1", 3) != 0 && memcmp(last + 6, "1.0", 3) != 0)
		return -EPROTONOSUPPORT;
	out->keep = last[8] == '1';
	*sp = *last = '\0';
	out->method = line;
	out->target = sp + 1;
	return 0;
}

/* "Name: value" */
static int header_line(char *line, size_t n, struct httpd_head *out)
{
	char *colon = memchr(line, ':', n), *v, *end = line + n;

	if (colon == NULL || !token_ok(line, (size_t)(colon - line)))
		return -EBADMSG;
	for (v = colon + 1; v < end && (*v == ' ' || *v == '\t'); v++)
		;
	while (end > v && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	if (!text_ok(v, (size_t)(end - v), true))
		return -EBADMSG;
	if (out->nheaders == HTTPD_HEADERS_MAX)
		return -E2BIG;
	*colon = *end = '\0';
	out->header[out->nheaders].name = line;
	out->header[out->nheaders].value = v;
	out->nheaders++;
	if (strcasecmp(line, "Transfer-Encoding") == 0 ||
	    (strcasecmp(line, "Content-Length") == 0 && strcmp(v, "0") != 0))
		return -EOPNOTSUPP;
	if (strcasecmp(line, "Connection") == 0 && strcasestr(v, "close") != NULL)
		out->keep = false;
	return 0;
}

ssize_t httpd_parse(char *buf, size_t len, struct httpd_head *out)
{
	char *end = memmem(buf, len, "\r\n\r\n", 4), *line = buf, *next;
	int err = 0;

	memset(out, 0, sizeof(*out));
	if (end == NULL)
		return len >= HTTPD_HEAD_MAX ? -E2BIG : 0;
	if ((size_t)(end - buf) + 4 > HTTPD_HEAD_MAX)
		return -E2BIG;
	/* The last line has its line break, the empty one is left out. */
	for (; err == 0 && line < end + 2; line = next) {
		char *eol = memmem(line, (size_t)(end + 2 - line), "\r\n", 2);

		next = eol + 2;
		err = line == buf ? request_line(line, (size_t)(eol - line), out)
				  : header_line(line, (size_t)(eol - line), out);
	}
	return err != 0 ? err : end + 4 - buf;
}
