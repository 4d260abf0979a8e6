/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <yajl/yajl_gen.h>

#include "base/json.h"
#include "base/obj.h"

struct json_out {
	uint32_t magic;
#define JSON_OUT_MAGIC 0x750b0001u
	yajl_gen gen;
	int err;
	unsigned open; /* arrays and objects not closed yet */
};

struct json_out *json_out_new(void)
{
	struct json_out *o;

	ALLOC_OBJ(o, JSON_OUT_MAGIC);
	if (o == NULL)
		return NULL;
	o->gen = yajl_gen_alloc(NULL);
	if (o->gen == NULL)
		json_out_free(&o);
	return o;
}

struct json_out *json_out_new_pretty(void)
{
	struct json_out *o = json_out_new();

	if (o != NULL)
		(void)yajl_gen_config(o->gen, yajl_gen_beautify, 1);
	return o;
}

void json_out_free(struct json_out **op)
{
	struct json_out *o;

	TAKE_OBJ(o, op, JSON_OUT_MAGIC);
	if (o->gen != NULL)
		yajl_gen_free(o->gen);
	FREE_OBJ(o);
}

static void check(struct json_out *o, yajl_gen_status st)
{
	if (st != yajl_gen_status_ok && st != yajl_gen_generation_complete && o->err == 0)
		o->err = -EINVAL;
}

void json_open_object(struct json_out *o)
{
	check(o, yajl_gen_map_open(o->gen));
	o->open++;
}

void json_close_object(struct json_out *o)
{
	check(o, yajl_gen_map_close(o->gen));
	o->open--;
}

void json_open_array(struct json_out *o)
{
	check(o, yajl_gen_array_open(o->gen));
	o->open++;
}

void json_close_array(struct json_out *o)
{
	check(o, yajl_gen_array_close(o->gen));
	o->open--;
}

/* Length of the valid UTF-8 sequence at s, 0 if there is none. */
static size_t utf8_len(const unsigned char *s)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	uint32_t c;
	size_t n;

	if (s[0] < 0x80)
		return 1;
	if ((s[0] & 0xe0) == 0xc0)
		n = 2;
	else if ((s[0] & 0xf0) == 0xe0)
		n = 3;
	else if ((s[0] & 0xf8) == 0xf0)
		n = 4;
	else
		return 0;
	c = s[0] & (0xffu >> (n + 1));
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80) /* also the final NUL */
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	return n;
}

bool json_is_utf8(const char *s)
{
	size_t n;

	for (; *s != '\0'; s += n) {
		n = utf8_len((const unsigned char *)s);
		if (n == 0)
			return false;
	}
	return true;
}

/* yajl would pass bad bytes through: write the string's escaped form ourselves,
 * which it takes as it takes a number's text. */
static void put_bytes(struct json_out *o, const unsigned char *s)
{
	char *buf = malloc(strlen((const char *)s) * 6 + 3), *p = buf;

	if (buf == NULL) {
		o->err = -ENOMEM;
		return;
	}
	*p++ = '"';
	while (*s != '\0') {
		size_t n = utf8_len(s);

		if (n == 0) {
			p += sprintf(p, "\\udc%02x", *s);
			n = 1;
		} else if (*s < 0x20 || *s == 0x7f) {
			p += sprintf(p, "\\u%04x", *s);
		} else {
			if (*s == '"' || *s == '\\')
				*p++ = '\\';
			memcpy(p, s, n);
			p += n;
		}
		s += n;
	}
	*p++ = '"';
	check(o, yajl_gen_number(o->gen, buf, (size_t)(p - buf)));
	free(buf);
}

void json_key(struct json_out *o, const char *key)
{
	check(o, yajl_gen_string(o->gen, (const unsigned char *)key, strlen(key)));
}

void json_put_text(struct json_out *o, const char *s)
{
	if (s == NULL)
		json_put_null(o);
	else if (json_is_utf8(s))
		check(o, yajl_gen_string(o->gen, (const unsigned char *)s, strlen(s)));
	else
		put_bytes(o, (const unsigned char *)s);
}

static void put_number(struct json_out *o, const char *text)
{
	check(o, yajl_gen_number(o->gen, text, strlen(text)));
}

void json_put_u64(struct json_out *o, uint64_t v)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, v);
	put_number(o, text);
}

void json_put_i64(struct json_out *o, int64_t v)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRId64, v);
	put_number(o, text);
}

void json_put_double(struct json_out *o, double v, unsigned decimals)
{
	char text[512]; /* the largest double has 309 digits before the point */

	if (!isfinite(v)) {
		json_put_null(o);
		return;
	}
	snprintf(text, sizeof(text), "%.*f", (int)MIN(decimals, 17u), v);
	put_number(o, text);
}

void json_put_bool(struct json_out *o, bool v)
{
	check(o, yajl_gen_bool(o->gen, v));
}

void json_put_null(struct json_out *o)
{
	check(o, yajl_gen_null(o->gen));
}

void json_put_value(struct json_out *o, const struct json *v)
{
	switch (v->type) {
	case JSON_NULL:
		json_put_null(o);
		break;
	case JSON_BOOL:
		json_put_bool(o, v->truth);
		break;
	case JSON_NUMBER:
		put_number(o, v->text);
		break;
	case JSON_STRING:
		json_put_text(o, v->text);
		break;
	case JSON_ARRAY:
		json_open_array(o);
		for (const struct json *m = v->first; m != NULL; m = m->next)
			json_put_value(o, m);
		json_close_array(o);
		break;
	case JSON_OBJECT:
		json_open_object(o);
		for (const struct json *m = v->first; m != NULL; m = m->next) {
			json_key(o, m->key);
			json_put_value(o, m);
		}
		json_close_object(o);
		break;
	}
}

void json_add_text(struct json_out *o, const char *key, const char *s)
{
	json_key(o, key);
	json_put_text(o, s);
}

void json_add_u64(struct json_out *o, const char *key, uint64_t v)
{
	json_key(o, key);
	json_put_u64(o, v);
}

void json_add_i64(struct json_out *o, const char *key, int64_t v)
{
	json_key(o, key);
	json_put_i64(o, v);
}

void json_add_double(struct json_out *o, const char *key, double v, unsigned decimals)
{
	json_key(o, key);
	json_put_double(o, v, decimals);
}

void json_add_bool(struct json_out *o, const char *key, bool v)
{
	json_key(o, key);
	json_put_bool(o, v);
}

void json_add_null(struct json_out *o, const char *key)
{
	json_key(o, key);
	json_put_null(o);
}

int json_out_take(struct json_out *o, const char **text, size_t *len)
{
	const unsigned char *buf;

	CHECK_OBJ(o, JSON_OUT_MAGIC);
	if (o->err == 0 && o->open != 0)
		o->err = -EINVAL;
	if (o->err != 0)
		return o->err;
	check(o, yajl_gen_get_buf(o->gen, &buf, len));
	*text = (const char *)buf;
	return o->err;
}
