/* SPDX-License-Identifier: BSD-2-Clause */
/* Characters that XML has no place for, wherever the document is cut. */
#include <criterion/criterion.h>
#include <expat.h>
#include <stdio.h>
#include <string.h>

#include "base/obj.h"
#include "ufs/s3_text.h"

static char text[4096];
static size_t text_len;

static void on_text(void *arg, const XML_Char *s, int len)
{
	(void)arg;
	cr_assert_lt(text_len + (size_t)len, sizeof(text));
	memcpy(text + text_len, s, (size_t)len);
	text_len += (size_t)len;
}

/* The text of <a>inner</a>, given in pieces of `step` bytes; false: it is no XML. */
static bool parse(const char *inner, size_t len, size_t step)
{
	struct s3_text raw = {.nheld = 0};
	XML_Parser xp = XML_ParserCreate(NULL);
	char doc[2048];
	size_t n = (size_t)snprintf(doc, sizeof(doc), "<a>");
	bool ok = true;

	memcpy(doc + n, inner, len);
	n += len;
	memcpy(doc + n, "</a>", 4);
	n += 4;
	text_len = 0;
	XML_SetCharacterDataHandler(xp, on_text);
	for (size_t i = 0; i < n && ok; i += step)
		ok = s3_text_parse(&raw, xp, doc + i, MIN(step, n - i));
	ok = ok && s3_text_end(&raw, xp);
	XML_ParserFree(xp);
	text[text_len] = '\0';
	text_len = s3_text_plain(text, text_len);
	return ok;
}

static void is(const char *inner, const char *plain)
{
	for (size_t step = 1; step < strlen(inner) + 9; step++) {
		cr_assert(parse(inner, strlen(inner), step), "'%s' by %zu", inner, step);
		cr_assert_eq(text_len, strlen(plain), "'%s' by %zu", inner, step);
		cr_assert_eq(memcmp(text, plain, text_len), 0, "'%s' by %zu", inner, step);
	}
}

#define MARK "\xf4\x8f\xbf\xbd"

Test(s3_text, what_xml_takes_stays_as_it_is)
{
	is("", "");
	is("a &amp; b &lt;&gt;&quot;&apos; &#65;&#x42;&#10;\t\n", "a & b <>\"' AB\n\t\n");
	is("\xc3\xa9 \xe6\xbc\xa2 \xf0\x9f\x98\x80 \xf4\x8f\xbf\xbc \x7f", "\xc3\xa9 \xe6\xbc\xa2 \xf0\x9f\x98\x80 \xf4\x8f\xbf\xbc \x7f");
	is("&#x7f;&#13;&#xd;&#9;", "\x7f\r\r\t");
}

Test(s3_text, control_characters_come_through)
{
	char inner[16], plain[2] = "";

	for (int c = 1; c < ' '; c++) {
		if (c == '\t' || c == '\n' || c == '\r')
			continue;
		plain[0] = (char)c;
		is(plain, plain);
		snprintf(inner, sizeof(inner), "&#%d;", c);
		is(inner, plain);
		snprintf(inner, sizeof(inner), "&#x%x;", (unsigned)c);
		is(inner, plain);
		snprintf(inner, sizeof(inner), "&#x%04X;", (unsigned)c);
		is(inner, plain);
	}
	is("a\x01&#x02;b\x1f\x1f&amp;#x3;&#x1f;&#x1;", "a\x01\x02" "b\x1f\x1f&#x3;\x1f\x01");
}

/* What stands for them on the way is a character that may be there by itself. */
Test(s3_text, nothing_is_mistaken)
{
	is(MARK "A", MARK "A");
	is("&#x10FFFD;A", MARK "A");
	is("&#1114109;~", MARK "~");
	is("\x01" MARK MARK "~\x02" MARK, "\x01" MARK MARK "~\x02" MARK);
}

Test(s3_text, what_is_no_xml_is_none)
{
	static const char *const bad[] = {
		"&#0;", "&#x0;", "&#;", "&#x;", "&#x1", "&", "&#", "&#1 ;", "&nbsp;", "<", "\xff",
		"\xf4\x8f\xbf", "&#xD800;", "&#x110000;", "&#x000000000000001;",
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		for (size_t step = 1; step < 20; step++)
			cr_assert_not(parse(bad[i], strlen(bad[i]), step), "%s", bad[i]);
	}
	cr_assert_not(parse("\0", 1, 1));
	cr_assert_not(parse("<\x01/>", 4, 7));
}
