/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

TestSuite(json);

static const struct json_limits lim = {8, 100};
static struct errtext et;

static struct json *good(const char *text)
{
	struct json *v = NULL;

	cr_assert_eq(json_parse(&v, text, strlen(text), &lim, &et), 0, "%s: %s", text, et.s);
	return v;
}

static void bad(const char *text, size_t len, const char *words)
{
	struct json *v = (struct json *)&et;

	et.s[0] = '\0';
	cr_assert_eq(json_parse(&v, text, len, &lim, &et), -EINVAL, "%s", text);
	cr_assert_null(v);
	cr_assert_not_null(strstr(et.s, words), "\"%s\" is not in \"%s\"", words, et.s);
}

Test(json, values)
{
	struct json *v = good(" {\"a\": [1, -2.5e3, true, null],"
			      " \"s\": \"x\\u00e9\\n\", \"o\": {}}\n");
	const struct json *a = json_get(v, "a");

	cr_assert_eq(v->type, JSON_OBJECT);
	cr_assert_eq(v->count, 3);
	cr_assert_eq(a->type, JSON_ARRAY);
	cr_assert_eq(a->count, 4);
	cr_assert_str_eq(a->first->text, "1");
	cr_assert_str_eq(a->first->next->text, "-2.5e3");
	cr_assert(a->first->next->next->truth);
	cr_assert_eq(a->last->type, JSON_NULL);
	cr_assert_null(a->last->next);
	cr_assert_str_eq(json_text(json_get(v, "s")), "x\xc3\xa9\n");
	cr_assert_eq(json_get(v, "o")->count, 0);
	cr_assert_null(json_get(v, "missing"));
	cr_assert_null(json_get(a, "a"));
	json_free(&v);
	cr_assert_null(v);
}

Test(json, getters_fall_back)
{
	struct json *v = good("{\"n\": 18446744073709551615, \"d\": 0.25, \"b\": true,"
			      " \"neg\": -1}");

	cr_assert_eq(json_get_u64(v, "n", 1), UINT64_MAX);
	cr_assert_eq(json_get_u64(v, "neg", 7), 7);
	cr_assert_eq(json_get_u64(v, "d", 7), 7);
	cr_assert_eq(json_get_u64(v, "b", 7), 7);
	cr_assert_eq(json_get_double(v, "d", 0), 0.25);
	cr_assert_eq(json_get_bool(v, "b", false), true);
	cr_assert_eq(json_get_bool(v, "n", true), true);
	cr_assert_str_eq(json_get_text(v, "n", "def"), "def");
	cr_assert_eq(json_get_u64(NULL, "n", 3), 3);
	json_free(&v);
}

Test(json, garbage)
{
	bad("", 0, "line 1");
	bad("{", 1, "line 1, column");
	bad("}", 1, "line 1");
	bad("{\"a\": 1} {}", 11, "trailing");
	bad("{\n  \"a\": tru\n}", 14, "line 2");
	bad("[1,]", 4, "column");
	bad("{\"a\": /* no */ 1}", 17, "column");
	bad("\xff\xfe", 2, "line 1");
	bad("\"a\xff\"", 4, "UTF8");
	bad("\"a\0b\"", 5, "line 1");
	bad("\"a\\u0000b\"", 10, "NUL");
	bad("{\"\\u0000\": 1}", 13, "NUL");
	bad("{\"\\udcff\": 1}", 13, "UTF-8");
	bad("{\"\xc0\x80\": 1}", 9, "UTF-8");
	bad("{\"a\": 1, \"b\": 2, \"a\": 3}", 24, "twice");
}

/* Each error names where the token begins that is wrong, or the end if one is missing. */
Test(json, places)
{
	struct json *v;

	bad("{\n \"a\": 1,\n \"b\" 2}", 20, "line 3, column 6: ");
	bad("{\n \"a\": tru}", 13, "line 2, column 7: ");
	bad("[1,]", 4, "line 1, column 4: ");
	bad("{\"a\":1 \"b\"}", 11, "line 1, column 8: ");
	bad("{\n\"a\": \"x", 9, "line 2, column 8: parse error: premature EOF");
	bad("{\"a\":\n1,\n \"a\":2}", 16, "line 3, column 2: a key appears twice");
	bad("{\"\xc3\xa9\": x}", 9, "line 1, column 7: ");
	bad("[\"ab\xff\"]", 7, "line 1, column 6: ");
	bad("\0", 1, "line 1, column 1: ");
	v = good("{ \"a\" : [ 1 ,\n true ] , \"b\\\"\":null}");
	cr_assert_eq(v->at, 0);
	cr_assert_eq(v->first->key_at, 2);
	cr_assert_eq(v->first->at, 8);
	cr_assert_eq(v->first->first->at, 10);
	cr_assert_eq(v->first->last->at, 15);
	cr_assert_eq(v->last->key_at, 24);
	cr_assert_eq(v->last->at, 30);
	json_free(&v);
}

Test(json, depth)
{
	bad("[[[[[[[[[]]]]]]]]]", 18, "deep");
	bad("[[[[[[[[{\"a\":1}]]]]]]]]", 23, "deep");
	struct json *v = good("[[[[[[[[1]]]]]]]]");

	json_free(&v);
	/* Side by side is not inside one another. */
	v = good("[[],[],[],[],[],[],[],[],[],[],[],[]]");
	cr_assert_eq(v->count, 12);
	json_free(&v);
	/* Brackets in strings do not count. */
	v = good("[\"[[[[[[[[[[[[[[[[[\"]");
	json_free(&v);
}

Test(json, a_million_brackets)
{
	size_t n = 1 << 20;
	char *text = malloc(n);

	memset(text, '[', n);
	bad(text, n, "deep");
	free(text);
}

Test(json, too_many_values)
{
	char text[512] = "[1";

	for (int i = 0; i < 98; i++)
		strcat(text, ",1");
	strcat(text, "]");
	struct json *v = good(text); /* 99 and the array */

	json_free(&v);
	text[strlen(text) - 1] = '\0';
	strcat(text, ",1]");
	bad(text, strlen(text), "too many");
}

/* Each prefix of a text is an error and leaks nothing (under the sanitizer). */
Test(json, every_prefix)
{
	const char *text = "{\"a\":[1,{\"b\":[null,\"\\ud83d\\ude00\"]}],\"c\":{\"d\":\"e\"}}";

	for (size_t n = 0; n < strlen(text); n++)
		bad(text, n, "line 1");
	struct json *v = good(text);

	json_free(&v);
}

static char *written(struct json_out *o)
{
	const char *text;
	size_t len;

	cr_assert_eq(json_out_take(o, &text, &len), 0);
	return strndup(text, len);
}

Test(json, writer)
{
	struct json_out *o = json_out_new();
	char *s;

	json_open_object(o);
	json_add_u64(o, "max", UINT64_MAX);
	json_add_i64(o, "min", INT64_MIN);
	json_add_double(o, "pause", 0.29999999999999999, 3);
	json_add_double(o, "nan", NAN, 3);
	json_add_bool(o, "yes", true);
	json_add_null(o, "none");
	json_add_text(o, "text", "a\"\\\n\xc3\xa9");
	json_add_text(o, "missing", NULL);
	json_key(o, "list");
	json_open_array(o);
	json_put_u64(o, 1);
	json_put_text(o, "");
	json_close_array(o);
	json_close_object(o);
	s = written(o);
	cr_assert_str_eq(s, "{\"max\":18446744073709551615,\"min\":-9223372036854775808,"
			    "\"pause\":0.300,\"nan\":null,\"yes\":true,\"none\":null,"
			    "\"text\":\"a\\\"\\\\\\n\xc3\xa9\",\"missing\":null,"
			    "\"list\":[1,\"\"]}");
	free(s);
	json_out_free(&o);
	cr_assert_null(o);
}

Test(json, writer_refuses_what_does_not_nest)
{
	struct json_out *o = json_out_new();
	const char *text;
	size_t len;

	json_open_object(o);
	cr_assert_eq(json_out_take(o, &text, &len), -EINVAL, "still open");
	json_out_free(&o);
	o = json_out_new();
	json_open_object(o);
	json_put_u64(o, 1);
	json_close_object(o);
	cr_assert_eq(json_out_take(o, &text, &len), -EINVAL, "a value without a key");
	json_out_free(&o);
}

/* Any byte string comes back as it was, and what is between is valid JSON. */
static void round_trip(const char *bytes)
{
	struct json_out *o = json_out_new();
	struct json *v;
	char *s;

	json_put_text(o, bytes);
	s = written(o);
	for (const char *p = s; *p != '\0'; p++)
		cr_assert((unsigned char)*p >= 0x20);
	v = good(s);
	cr_assert_str_eq(json_text(v), bytes, "%s", s);
	json_free(&v);
	free(s);
	json_out_free(&o);
}

Test(json, names_that_are_not_utf8)
{
	round_trip("plain");
	round_trip("caf\xc3\xa9 \xf0\x9f\x98\x80");
	round_trip("caf\xe9");
	round_trip("\x80\xff\xc3");
	round_trip("\"quoted\xff\\\n\x7f\x01");
	round_trip("\xc0\x80");		    /* overlong */
	round_trip("\xed\xa0\x80");	    /* a surrogate */
	round_trip("\xed\xb2\x80 \xed\xb3\xbf"); /* the ones that we use */
	round_trip("\xf4\x90\x80\x80");	    /* past the last character */
	round_trip("\xe2\x82");		    /* cut off */
	for (int c = 1; c < 256; c++) {
		char s[3] = {(char)c, 'x', '\0'};

		round_trip(s);
	}
}

Test(json, the_escape_is_pythons)
{
	struct json_out *o = json_out_new();
	char *s;

	json_put_text(o, "a\xff");
	s = written(o);
	cr_assert_str_eq(s, "\"a\\udcff\"");
	free(s);
	json_out_free(&o);
}

Test(json, put_value_copies)
{
	const char *text = "{\"a\":[1,2.50,\"x\",null,true,{}],\"b\":{\"c\":[]}}";
	struct json *v = good(text);
	struct json_out *o = json_out_new();
	char *s;

	json_put_value(o, v);
	s = written(o);
	cr_assert_str_eq(s, text);
	free(s);
	json_out_free(&o);
	json_free(&v);
}
