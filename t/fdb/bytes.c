/* SPDX-License-Identifier: BSD-2-Clause */
#include "bytes.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

/* Twice: whose tests let one allocation fail (t/lib/nth_fault.h) do not mean those in here. */
void *mem_get(size_t size)
{
	size_t n = size == 0 ? 1 : size;
	void *p = calloc(1, n);

	if (p == NULL)
		p = calloc(1, n);
	if (p == NULL)
		abort();
	return p;
}

void *mem_more(void *at, size_t size)
{
	size_t n = size == 0 ? 1 : size;
	void *p = realloc(at, n);

	if (p == NULL)
		p = realloc(at, n);
	if (p == NULL)
		abort();
	return p;
}

struct bytes bytes_of(const void *at, size_t len)
{
	return (struct bytes){ (uint8_t *)(uintptr_t)at, len };
}

struct bytes bytes_text(const char *text)
{
	return bytes_of(text, strlen(text));
}

static struct bytes copy(struct bytes b, size_t more)
{
	struct bytes n = { mem_get(b.len + more), b.len + more };

	if (b.len > 0)
		memcpy(n.at, b.at, b.len);
	return n;
}

struct bytes bytes_dup(struct bytes b)
{
	return copy(b, 0);
}

struct bytes bytes_after(struct bytes key)
{
	return copy(key, 1);
}

void bytes_free(struct bytes *b)
{
	free(b->at);
	*b = (struct bytes){ 0 };
}

int bytes_cmp(struct bytes a, struct bytes b)
{
	size_t n = a.len < b.len ? a.len : b.len;
	int c = n == 0 ? 0 : memcmp(a.at, b.at, n);

	return c != 0 ? c : (a.len > b.len) - (a.len < b.len);
}

bool bytes_same(struct bytes a, struct bytes b)
{
	return a.len == b.len && bytes_cmp(a, b) == 0;
}

void buf_free(struct buf *b)
{
	free(b->at);
	*b = (struct buf){ 0 };
}

void buf_raw(struct buf *b, const void *at, size_t len)
{
	if (len == 0)
		return;
	if (b->len + len > b->cap) {
		b->cap = (b->len + len) * 2;
		b->at = mem_more(b->at, b->cap);
	}
	memcpy(b->at + b->len, at, len);
	b->len += len;
}

void buf_u32(struct buf *b, uint32_t v)
{
	v = htole32(v);
	buf_raw(b, &v, sizeof(v));
}

void buf_u64(struct buf *b, uint64_t v)
{
	v = htole64(v);
	buf_raw(b, &v, sizeof(v));
}

void buf_bytes(struct buf *b, struct bytes v)
{
	buf_u32(b, (uint32_t)v.len);
	buf_raw(b, v.at, v.len);
}

void buf_cut(struct buf *b, size_t len)
{
	if (len > 0 && len < b->len)
		memmove(b->at, b->at + len, b->len - len);
	b->len -= len;
}

static const void *take(struct rd *r, size_t len)
{
	const uint8_t *at = r->at;

	if (r->bad || r->len < len) {
		r->bad = true;
		return NULL;
	}
	r->at += len;
	r->len -= len;
	return at;
}

uint32_t rd_u32(struct rd *r)
{
	uint32_t v = 0;
	const void *at = take(r, sizeof(v));

	if (at != NULL)
		memcpy(&v, at, sizeof(v));
	return le32toh(v);
}

uint64_t rd_u64(struct rd *r)
{
	uint64_t v = 0;
	const void *at = take(r, sizeof(v));

	if (at != NULL)
		memcpy(&v, at, sizeof(v));
	return le64toh(v);
}

struct bytes rd_bytes(struct rd *r)
{
	size_t len = rd_u32(r);
	const void *at = take(r, len);

	return at == NULL ? (struct bytes){ 0 } : bytes_of(at, len);
}

static void range_free(struct range *r)
{
	bytes_free(&r->b);
	bytes_free(&r->e);
}

void ranges_free(struct ranges *rs)
{
	for (size_t i = 0; i < rs->n; i++)
		range_free(&rs->at[i]);
	free(rs->at);
	*rs = (struct ranges){ 0 };
}

/* The first range that ends at the key or behind it; strict: behind it only. */
static size_t first_ending(const struct ranges *rs, struct bytes key, bool strict)
{
	size_t lo = 0, hi = rs->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		int c = bytes_cmp(rs->at[mid].e, key);

		if (c > 0 || (c == 0 && !strict))
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

/* Puts n ranges (which it takes) in the place of those from i up to j. */
static void splice(struct ranges *rs, size_t i, size_t j, const struct range *put, size_t n)
{
	size_t left = rs->n - j;

	for (size_t k = i; k < j; k++)
		range_free(&rs->at[k]);
	if (i + n + left > rs->cap) {
		rs->cap = (i + n + left) * 2;
		rs->at = mem_more(rs->at, rs->cap * sizeof(*rs->at));
	}
	if (left > 0)
		memmove(rs->at + i + n, rs->at + j, left * sizeof(*rs->at));
	for (size_t k = 0; k < n; k++)
		rs->at[i + k] = put[k];
	rs->n = i + n + left;
}

void ranges_add(struct ranges *rs, struct bytes b, struct bytes e)
{
	size_t i, j;
	struct range all;

	if (bytes_cmp(b, e) >= 0)
		return;
	i = first_ending(rs, b, false);
	for (j = i; j < rs->n && bytes_cmp(rs->at[j].b, e) <= 0; j++)
		;
	if (j > i && bytes_cmp(rs->at[i].b, b) < 0)
		b = rs->at[i].b;
	if (j > i && bytes_cmp(rs->at[j - 1].e, e) > 0)
		e = rs->at[j - 1].e;
	all = (struct range){ bytes_dup(b), bytes_dup(e) };
	splice(rs, i, j, &all, 1);
}

void ranges_add_key(struct ranges *rs, struct bytes key)
{
	struct bytes e = bytes_after(key);

	ranges_add(rs, key, e);
	bytes_free(&e);
}

void ranges_cut(struct ranges *rs, struct bytes b, struct bytes e)
{
	struct range rest[2];
	size_t i = first_ending(rs, b, true), j, n = 0;

	for (j = i; j < rs->n && bytes_cmp(rs->at[j].b, e) < 0; j++)
		;
	if (j == i || bytes_cmp(b, e) >= 0)
		return;
	if (bytes_cmp(rs->at[i].b, b) < 0)
		rest[n++] = (struct range){ bytes_dup(rs->at[i].b), bytes_dup(b) };
	if (bytes_cmp(rs->at[j - 1].e, e) > 0)
		rest[n++] = (struct range){ bytes_dup(e), bytes_dup(rs->at[j - 1].e) };
	splice(rs, i, j, rest, n);
}

void ranges_add_without(
    struct ranges *rs, struct bytes b, struct bytes e, const struct ranges *minus)
{
	size_t i = minus == NULL ? 0 : first_ending(minus, b, true);

	for (; minus != NULL && i < minus->n && bytes_cmp(minus->at[i].b, e) < 0; i++) {
		ranges_add(rs, b, minus->at[i].b);
		if (bytes_cmp(minus->at[i].e, b) > 0)
			b = minus->at[i].e;
	}
	ranges_add(rs, b, e);
}

bool ranges_has(const struct ranges *rs, struct bytes key)
{
	size_t i = first_ending(rs, key, true);

	return i < rs->n && bytes_cmp(rs->at[i].b, key) <= 0;
}

bool ranges_meet(const struct ranges *rs, struct bytes b, struct bytes e)
{
	size_t i = first_ending(rs, b, true);

	return bytes_cmp(b, e) < 0 && i < rs->n && bytes_cmp(rs->at[i].b, e) < 0;
}

bool ranges_hit(const struct ranges *x, const struct ranges *y)
{
	size_t i = 0, j = 0;

	while (i < x->n && j < y->n) {
		if (bytes_cmp(x->at[i].e, y->at[j].b) <= 0)
			i++;
		else if (bytes_cmp(y->at[j].e, x->at[i].b) <= 0)
			j++;
		else
			return true;
	}
	return false;
}

size_t ranges_size(const struct ranges *rs)
{
	size_t sum = 0;

	for (size_t i = 0; i < rs->n; i++)
		sum += rs->at[i].b.len + rs->at[i].e.len + 24;
	return sum;
}

void buf_ranges(struct buf *b, const struct ranges *rs)
{
	buf_u32(b, (uint32_t)rs->n);
	for (size_t i = 0; i < rs->n; i++) {
		buf_bytes(b, rs->at[i].b);
		buf_bytes(b, rs->at[i].e);
	}
}

void rd_ranges(struct rd *r, struct ranges *rs)
{
	uint32_t n = rd_u32(r);

	while (n-- > 0 && !r->bad) {
		struct bytes b = rd_bytes(r), e = rd_bytes(r);

		ranges_add(rs, b, e);
	}
}
