/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * JSON, through yajl: texts from outside become a small tree, what goes out is
 * written by a writer that cannot make a malformed text.
 *
 * Names of files are bytes, JSON strings are Unicode.  A byte that is not part of
 * valid UTF-8 is written as the lone surrogate \udc80..\udcff and read back as
 * the byte it stands for (what Python calls "surrogateescape"), so that every
 * name makes the round trip and every output is valid JSON.
 *
 * Any thread; no global state.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/errtext.h"

/* --- Reading */

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
	enum json_type type;
	bool truth; /* JSON_BOOL */
	char *key;  /* in its object, else NULL */
	char *text; /* JSON_STRING: the bytes, no NUL inside; JSON_NUMBER: as written */
	struct json *first, *last; /* JSON_ARRAY, JSON_OBJECT: members in order */
	struct json *next;	   /* its sibling */
	size_t count;		   /* members */
	size_t at, key_at;	   /* where it and its key begin in the text */
};

struct json_limits {
	unsigned depth; /* arrays and objects inside one another */
	size_t values;	/* of all kinds together */
};

/* 0; -EINVAL (not JSON, a key twice or not UTF-8, a NUL in a string, over a limit: et
 * has line, column and reason) or -ENOMEM.  One value, white space around it allowed. */
int json_parse(struct json **out, const char *text, size_t len, const struct json_limits *lim,
    struct errtext *et);
void json_free(struct json **v);
/* The line and the column of a place in a text, counted in characters from 1. */
void json_where(const char *text, size_t at, unsigned *line, unsigned *column);

/* NULL if v is no object or has no such member. */
const struct json *json_get(const struct json *v, const char *key);
/* The text of a string, or NULL if v is NULL or something else. */
const char *json_text(const struct json *v);
/* Members by key, `def` where they are absent or of another type. */
const char *json_get_text(const struct json *v, const char *key, const char *def);
bool json_get_bool(const struct json *v, const char *key, bool def);
uint64_t json_get_u64(const struct json *v, const char *key, uint64_t def);
double json_get_double(const struct json *v, const char *key, double def);
/* Is it Unicode as JSON wants it (no overlong forms, no surrogates)? */
bool json_is_utf8(const char *s);
/* "a string", "an object", … for messages. */
const char *json_type_text(enum json_type type);

/* --- Writing.  An error (out of memory, calls that do not nest) sticks until
 * json_out_take(), so callers need not look at every call. */

struct json_out;

struct json_out *json_out_new(void); /* NULL: out of memory */
/* For people: a line each value, four blanks a level. */
struct json_out *json_out_new_pretty(void);
void json_out_free(struct json_out **o);

void json_open_object(struct json_out *o);
void json_close_object(struct json_out *o);
void json_open_array(struct json_out *o);
void json_close_array(struct json_out *o);
void json_key(struct json_out *o, const char *key);
void json_put_text(struct json_out *o, const char *s); /* NULL: null */
void json_put_u64(struct json_out *o, uint64_t v);
void json_put_i64(struct json_out *o, int64_t v);
void json_put_double(struct json_out *o, double v, unsigned decimals);
void json_put_bool(struct json_out *o, bool v);
void json_put_null(struct json_out *o);
/* A value that was parsed, as it was. */
void json_put_value(struct json_out *o, const struct json *v);

/* "key": value, in one call. */
void json_add_text(struct json_out *o, const char *key, const char *s);
void json_add_u64(struct json_out *o, const char *key, uint64_t v);
void json_add_i64(struct json_out *o, const char *key, int64_t v);
void json_add_double(struct json_out *o, const char *key, double v, unsigned decimals);
void json_add_bool(struct json_out *o, const char *key, bool v);
void json_add_null(struct json_out *o, const char *key);

/* The finished text (no newline inside or at its end), valid until the next call;
 * -ENOMEM or -EINVAL if something failed or is still open. */
int json_out_take(struct json_out *o, const char **text, size_t *len);

#endif
