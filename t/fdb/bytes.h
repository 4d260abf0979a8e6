/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef T_FDB_BYTES_H
#define T_FDB_BYTES_H

/*
 * Byte strings, growing buffers, messages and sets of key ranges, for both halves of the
 * stand-in.  No memory is the end of the process: this is a tool of tests.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes {
	uint8_t *at;
	size_t len;
};

void *mem_get(size_t size);	       /* zeroed */
void *mem_more(void *at, size_t size); /* realloc() */

struct bytes bytes_of(const void *at, size_t len); /* a view, no copy */
struct bytes bytes_text(const char *text);	   /* likewise, without its NUL */
struct bytes bytes_dup(struct bytes b);
struct bytes bytes_after(struct bytes key); /* the first key behind it: own memory */
void bytes_free(struct bytes *b);
int bytes_cmp(struct bytes a, struct bytes b);
bool bytes_same(struct bytes a, struct bytes b);

/* A buffer that grows at its end. */
struct buf {
	uint8_t *at;
	size_t len, cap;
};

void buf_free(struct buf *b);
void buf_raw(struct buf *b, const void *at, size_t len);
void buf_u32(struct buf *b, uint32_t v);
void buf_u64(struct buf *b, uint64_t v);
void buf_bytes(struct buf *b, struct bytes v); /* length, bytes */
void buf_cut(struct buf *b, size_t len);       /* takes them off the front */

/* Reads a message; what is short or wrong sets bad and gives zeroes from there on. */
struct rd {
	const uint8_t *at;
	size_t len;
	bool bad;
};

uint32_t rd_u32(struct rd *r);
uint64_t rd_u64(struct rd *r);
struct bytes rd_bytes(struct rd *r); /* a view */

/* A set of keys as ranges [b, e): sorted, apart from each other, own memory. */
struct range {
	struct bytes b, e;
};

struct ranges {
	struct range *at;
	size_t n, cap;
};

void ranges_free(struct ranges *rs);
void ranges_add(struct ranges *rs, struct bytes b, struct bytes e);
void ranges_add_key(struct ranges *rs, struct bytes key);
void ranges_cut(struct ranges *rs, struct bytes b, struct bytes e);
/* Adds to rs what of [b, e) is not in minus (NULL: nothing). */
void ranges_add_without(
    struct ranges *rs, struct bytes b, struct bytes e, const struct ranges *minus);
bool ranges_has(const struct ranges *rs, struct bytes key);
bool ranges_meet(const struct ranges *rs, struct bytes b, struct bytes e);
bool ranges_hit(const struct ranges *x, const struct ranges *y);
size_t ranges_size(const struct ranges *rs); /* as the limit of a transaction counts it */
void buf_ranges(struct buf *b, const struct ranges *rs);
void rd_ranges(struct rd *r, struct ranges *rs);

#endif
