/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * XML 1.0 has no control characters but tab and the ends of lines, not even as
 * references; keys may have them.  A server that writes a key, a prefix or a token as it is
 * (or as "&#x1;") sends what no parser takes.  So on its way to the parser such a character
 * becomes MARK and a letter, and is made itself again in the text that comes out; MARK
 * itself becomes MARK and MARK_SELF, so nothing else can be mistaken for it.
 */
#include <string.h>

#include "base/obj.h"
#include "ufs/s3_text.h"

/* U+10FFFD, of the private use area. */
#define MARK "\xf4\x8f\xbf\xbd"
#define MARK_LEN 4u
#define MARK_REF 0x10fffdu
#define MARK_SELF '~'
/* 'A' to '_' stand for 1 to 31. */
#define MARK_BASE '@'

static bool no_xml(uint32_t c)
{
	return c > 0 && c < ' ' && c != '\t' && c != '\n' && c != '\r';
}

enum what { PLAIN, SPECIAL, UNDECIDED };

static int digit(unsigned char c, bool hex)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (hex && (c | 0x20) >= 'a' && (c | 0x20) <= 'f')
		return (c | 0x20) - 'a' + 10;
	return -1;
}

/* A reference to a character: how long it is, and what it stands for. */
static enum what reference(const unsigned char *p, size_t n, size_t *len, uint32_t *value)
{
	bool hex = n > 2 && p[2] == 'x';
	size_t i = hex ? 3 : 2;
	uint32_t v = 0;

	if (n < 2)
		return UNDECIDED;
	if (p[1] != '#')
		return PLAIN;
	for (; i < n && i < S3_TEXT_HELD; i++) {
		int d = digit(p[i], hex);

		if (d < 0) {
			*len = i + 1;
			*value = v;
			return p[i] == ';' ? SPECIAL : PLAIN;
		}
		v = v * (hex ? 16 : 10) + (uint32_t)d;
		if (v > MARK_REF)
			return PLAIN;
	}
	return i < S3_TEXT_HELD ? UNDECIDED : PLAIN;
}

/* What begins at p: PLAIN is one byte that stays; SPECIAL are *len bytes that become a
 * MARK and *letter. */
static enum what look(const unsigned char *p, size_t n, size_t *len, char *letter)
{
	uint32_t value = 0;
	enum what w;

	if (no_xml(*p)) {
		*len = 1;
		*letter = (char)(MARK_BASE + *p);
		return SPECIAL;
	}
	if (*p == '&') {
		w = reference(p, n, len, &value);
		if (w != SPECIAL)
			return w;
		if (!no_xml(value) && value != MARK_REF)
			return PLAIN;
		*letter = (char)(value == MARK_REF ? (uint32_t)MARK_SELF : MARK_BASE + value);
		return SPECIAL;
	}
	if (*p != (unsigned char)MARK[0] || memcmp(p, MARK, MIN(n, MARK_LEN)) != 0)
		return PLAIN;
	*len = MARK_LEN;
	*letter = MARK_SELF;
	return n < MARK_LEN ? UNDECIDED : SPECIAL;
}

static bool parse(XML_Parser xp, const void *data, size_t len)
{
	return len == 0 || XML_Parse(xp, data, (int)len, XML_FALSE) == XML_STATUS_OK;
}

/* Gives p to the parser up to what cannot be decided yet: *used.  False: it failed. */
static bool run(XML_Parser xp, const unsigned char *p, size_t n, size_t *used)
{
	char mark[MARK_LEN + 1] = MARK;
	size_t from = 0, at = 0, len = 0;
	enum what w = PLAIN;

	while (at < n) {
		w = look(p + at, n - at, &len, &mark[MARK_LEN]);
		if (w == UNDECIDED)
			break;
		if (w == PLAIN) {
			at++;
			continue;
		}
		if (!parse(xp, p + from, at - from) || !parse(xp, mark, sizeof(mark)))
			return false;
		from = at += len;
	}
	*used = at;
	return parse(xp, p + from, at - from);
}

static void hold(struct s3_text *t, const unsigned char *p, size_t n)
{
	memcpy(t->held, p, n);
	t->nheld = n;
}

bool s3_text_parse(struct s3_text *t, XML_Parser xp, const void *data, size_t len)
{
	unsigned char both[2 * S3_TEXT_HELD];
	const unsigned char *p = data;
	size_t was = t->nheld, n, used;

	if (was > 0) {
		n = MIN(len, sizeof(both) - was);
		memcpy(both, t->held, was);
		memcpy(both + was, p, n);
		if (!run(xp, both, was + n, &used))
			return false;
		if (used < was) { /* there is nothing behind it yet */
			hold(t, both + used, was + n - used);
			return true;
		}
		t->nheld = 0;
		p += used - was;
		len -= used - was;
	}
	if (!run(xp, p, len, &used))
		return false;
	hold(t, p + used, len - used);
	return true;
}

bool s3_text_end(struct s3_text *t, XML_Parser xp)
{
	size_t n = t->nheld;

	t->nheld = 0;
	return parse(xp, t->held, n) && XML_Parse(xp, "", 0, XML_TRUE) == XML_STATUS_OK;
}

size_t s3_text_plain(char *s, size_t len)
{
	char *end = s + len, *to = memmem(s, len, MARK, MARK_LEN);
	const char *from = to;

	if (to == NULL)
		return len;
	while (from < end) {
		if ((size_t)(end - from) <= MARK_LEN || memcmp(from, MARK, MARK_LEN) != 0) {
			*to++ = *from++;
			continue;
		}
		from += MARK_LEN;
		if (*from == MARK_SELF) {
			memcpy(to, MARK, MARK_LEN);
			to += MARK_LEN;
		} else {
			*to++ = (char)(*from - MARK_BASE);
		}
		from++;
	}
	*to = '\0';
	return (size_t)(to - s);
}
