/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_parse.h>

#include "base/obj.h"
#include "base/units.h"

struct parse {
	struct json *stack; /* innermost open array or object, chained by `next` */
	struct json *root;
	char *key; /* of the member whose value comes next */
	size_t key_at;
	const struct json_limits *lim;
	yajl_handle h;
	const char *text;
	size_t at, end; /* of the last token */
	unsigned depth;
	size_t values;
	int err;
	const char *why;
};

/* The bytes of a string as yajl gives them, lone surrogates U+DC80..U+DCFF turned
 * back into the bytes they stand for.  NULL: out of memory or a NUL inside. */
static char *copy_text(struct parse *p, const unsigned char *s, size_t len)
{
	char *out = malloc(len + 1);
	size_t n = 0;

	if (out == NULL) {
		p->err = -ENOMEM;
		return NULL;
	}
	for (size_t i = 0; i < len; i++) {
		if (s[i] == '\0') {
			p->err = -EINVAL;
			p->why = "a string contains a NUL";
			free(out);
			return NULL;
		}
		if (s[i] == 0xed && len - i >= 3 && (s[i + 1] == 0xb2 || s[i + 1] == 0xb3)) {
			out[n++] = (char)((s[i + 1] & 0x03) << 6 | (s[i + 2] & 0x3f));
			i += 2;
		} else {
			out[n++] = (char)s[i];
		}
	}
	out[n] = '\0';
	return out;
}

static int refuse(struct parse *p, int err, const char *why)
{
	p->err = err;
	p->why = why;
	return 0;
}

static size_t skip_blank(const struct parse *p, size_t at, size_t end)
{
	while (at < end && p->text[at] != '\0' && strchr(" \t\r\n\v\f", p->text[at]) != NULL)
		at++;
	return at;
}

/* yajl tells where a token ends.  It begins behind the one before, and behind what only
 * separates the two. */
static void take_token(struct parse *p, size_t end)
{
	p->at = skip_blank(p, p->end, end);
	if (p->at + 1 < end && (p->text[p->at] == ',' || p->text[p->at] == ':'))
		p->at = skip_blank(p, p->at + 1, end);
	p->end = end;
}

/* A new value in its place: member of the innermost container, or the root. */
static struct json *add_value(struct parse *p, enum json_type type)
{
	struct json *v, *in = p->stack;

	take_token(p, yajl_get_bytes_consumed(p->h));
	if (++p->values > p->lim->values) {
		refuse(p, -EINVAL, "too many values");
		return NULL;
	}
	v = calloc(1, sizeof(*v));
	if (v == NULL) {
		p->err = -ENOMEM;
		return NULL;
	}
	v->type = type;
	v->at = p->at;
	v->key_at = p->key_at;
	v->key = p->key;
	p->key = NULL;
	if (in == NULL) {
		p->root = v;
		return v;
	}
	if (in->last != NULL)
		in->last->next = v;
	else
		in->first = v;
	in->last = v;
	in->count++;
	return v;
}

/*
 * While it is open a container needs a way to the one around it.  Its own `next`
 * is free for that: it gets a sibling only after it was closed.
 */
static int open_container(struct parse *p, enum json_type type)
{
	struct json *v = add_value(p, type);

	if (v == NULL)
		return 0;
	if (++p->depth > p->lim->depth)
		return refuse(p, -EINVAL, "nested too deep");
	v->next = p->stack;
	p->stack = v;
	return 1;
}

static int close_container(struct parse *p)
{
	struct json *v = p->stack;

	p->stack = v->next;
	v->next = NULL;
	p->depth--;
	return 1;
}

static int on_null(void *arg)
{
	return add_value(arg, JSON_NULL) != NULL;
}

static int on_bool(void *arg, int truth)
{
	struct json *v = add_value(arg, JSON_BOOL);

	if (v == NULL)
		return 0;
	v->truth = truth != 0;
	return 1;
}

static int on_number(void *arg, const char *s, size_t len)
{
	struct json *v = add_value(arg, JSON_NUMBER);

	if (v == NULL)
		return 0;
	v->text = copy_text(arg, (const unsigned char *)s, len);
	return v->text != NULL;
}

static int on_string(void *arg, const unsigned char *s, size_t len)
{
	struct json *v = add_value(arg, JSON_STRING);

	if (v == NULL)
		return 0;
	v->text = copy_text(arg, s, len);
	return v->text != NULL;
}

static int on_key(void *arg, const unsigned char *s, size_t len)
{
	struct parse *p = arg;

	take_token(p, yajl_get_bytes_consumed(p->h));
	p->key_at = p->at;
	p->key = copy_text(p, s, len);
	if (p->key == NULL)
		return 0;
	if (!json_is_utf8(p->key))
		return refuse(p, -EINVAL, "a key is not valid UTF-8");
	if (json_get(p->stack, p->key) != NULL)
		return refuse(p, -EINVAL, "a key appears twice in an object");
	return 1;
}

static int on_open_object(void *arg)
{
	return open_container(arg, JSON_OBJECT);
}

static int on_open_array(void *arg)
{
	return open_container(arg, JSON_ARRAY);
}

static int on_close(void *arg)
{
	struct parse *p = arg;

	take_token(p, yajl_get_bytes_consumed(p->h));
	return close_container(p);
}

static const yajl_callbacks callbacks = {
    .yajl_null = on_null,
    .yajl_boolean = on_bool,
    .yajl_number = on_number,
    .yajl_string = on_string,
    .yajl_start_map = on_open_object,
    .yajl_map_key = on_key,
    .yajl_end_map = on_close,
    .yajl_start_array = on_open_array,
    .yajl_end_array = on_close,
};

/* Containers left open still use `next` as the way out: undo that, then free. */
static void drop(struct parse *p)
{
	while (p->stack != NULL)
		close_container(p);
	json_free(&p->root);
	free(p->key);
}

void json_where(const char *text, size_t at, unsigned *line, unsigned *column)
{
	*line = *column = 1;
	for (size_t i = 0; i < at; i++) {
		if (text[i] == '\n') {
			(*line)++;
			*column = 1;
		} else if (((unsigned char)text[i] & 0xc0) != 0x80) {
			(*column)++;
		}
	}
}

/* at: where yajl stopped, which is behind the token that is wrong; ended: there was none. */
static int failed(struct parse *p, yajl_status st, size_t len, size_t at, bool ended,
    struct errtext *et)
{
	unsigned char *words = NULL;
	const char *why = p->why;
	unsigned line, column;

	if (p->err == -ENOMEM)
		return errtext_set(et, -ENOMEM, "out of memory");
	if (st == yajl_status_error) {
		words = yajl_get_error(p->h, 0, (const unsigned char *)p->text, len);
		if (words != NULL) {
			words[strcspn((char *)words, "\n")] = '\0';
			why = (const char *)words;
		}
		if (!ended)
			take_token(p, at);
	}
	/* What is wrong inside a string is where it stopped. */
	if (!ended && (p->at == len || p->text[p->at] != '"' || why == NULL ||
			  strncmp(why, "lexical", strlen("lexical")) != 0))
		at = p->at;
	json_where(p->text, at, &line, &column);
	errtext_set(et, -EINVAL, "line %u, column %u: %s", line, column,
	    why != NULL ? why : "not valid JSON");
	if (words != NULL)
		yajl_free_error(p->h, words);
	return -EINVAL;
}

int json_parse(struct json **out, const char *text, size_t len, const struct json_limits *lim,
    struct errtext *et)
{
	struct parse p = {.lim = lim, .text = text};
	bool ended = false;
	yajl_status st;
	size_t at;
	int rc = 0;

	*out = NULL;
	p.h = yajl_alloc(&callbacks, NULL, &p);
	if (p.h == NULL)
		return errtext_set(et, -ENOMEM, "out of memory");
	st = yajl_parse(p.h, (const unsigned char *)text, len);
	at = MIN(yajl_get_bytes_consumed(p.h), len);
	if (st == yajl_status_ok) {
		st = yajl_complete_parse(p.h);
		ended = true;
		at = len;
	}
	if (st != yajl_status_ok)
		rc = failed(&p, st, len, at, ended, et);
	yajl_free(p.h);
	if (rc != 0)
		drop(&p);
	else
		*out = p.root;
	return rc;
}

/* Recursion is as deep as the parser's limit let the tree become. */
void json_free(struct json **vp)
{
	struct json *v = *vp, *m;

	*vp = NULL;
	if (v == NULL)
		return;
	while ((m = v->first) != NULL) {
		v->first = m->next;
		json_free(&m);
	}
	free(v->key);
	free(v->text);
	free(v);
}

const struct json *json_get(const struct json *v, const char *key)
{
	if (v == NULL || v->type != JSON_OBJECT)
		return NULL;
	for (const struct json *m = v->first; m != NULL; m = m->next)
		if (strcmp(m->key, key) == 0)
			return m;
	return NULL;
}

const char *json_text(const struct json *v)
{
	return v != NULL && v->type == JSON_STRING ? v->text : NULL;
}

const char *json_get_text(const struct json *v, const char *key, const char *def)
{
	const char *s = json_text(json_get(v, key));

	return s != NULL ? s : def;
}

bool json_get_bool(const struct json *v, const char *key, bool def)
{
	const struct json *m = json_get(v, key);

	return m != NULL && m->type == JSON_BOOL ? m->truth : def;
}

uint64_t json_get_u64(const struct json *v, const char *key, uint64_t def)
{
	const struct json *m = json_get(v, key);
	uint64_t n;

	if (m == NULL || m->type != JSON_NUMBER || units_parse_u64(m->text, &n) != 0)
		return def;
	return n;
}

double json_get_double(const struct json *v, const char *key, double def)
{
	const struct json *m = json_get(v, key);

	return m != NULL && m->type == JSON_NUMBER ? strtod(m->text, NULL) : def;
}

const char *json_type_text(enum json_type type)
{
	static const char *const names[] = {
	    [JSON_NULL] = "null",
	    [JSON_BOOL] = "true or false",
	    [JSON_NUMBER] = "a number",
	    [JSON_STRING] = "a string",
	    [JSON_ARRAY] = "an array",
	    [JSON_OBJECT] = "an object",
	};

	return names[type];
}
