/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows of the metadata tree as bytes: the same for every back end.
 *
 * A key is the directory's id, 8 bytes with the highest first, and the entry's name;
 * so the entries of one directory are one range, in the order of their names' bytes.
 * The top's own row has directory 0 and no name.
 *
 * A value begins with its version.  Version 1, integers with the highest byte first:
 *
 *	0	version, 1		12	move: the last move that made the row come
 *	1	kind				here, 0: none
 *	2	has			20	mode, uid, gid
 *	3	length of the version	32	mtime: seconds, nanoseconds (8 + 4 bytes)
 *	4	id as a directory,	44	atime: the same
 *		0: none yet		56	the version's text
 *
 * What `has` does not name is 0: a row has one encoding only.
 */
#ifndef META_RECORDS_H
#define META_RECORDS_H

#include <stdint.h>

#include "meta/meta.h"

#define META_ROW_VERSION 1
#define META_ROW_MAX (56 + META_VERSION_MAX)
#define META_KEY_MAX (8 + META_NAME_MAX)

/* Ids of directories; others are given out from META_DIR_FIRST on. */
#define META_DIR_NONE 0u
#define META_DIR_TOP 1u
#define META_DIR_FIRST 2u

struct meta_row {
	struct meta_record rec;
	uint64_t dir;  /* what its entries' keys begin with; META_DIR_NONE: it has none */
	uint64_t move; /* see struct meta_change */
};

/* Can this be written?  0 or -EINVAL. */
int meta_record_check(const struct meta_record *rec);
/* buf: META_ROW_MAX bytes; the row has been checked.  Returns the length. */
size_t meta_row_encode(const struct meta_row *row, unsigned char *buf);
/* 0, -EPROTO (a version that this build does not know), -EIO (damaged). */
int meta_row_decode(struct meta_row *row, const void *data, size_t len);

/* buf: META_KEY_MAX bytes, name_len at most META_NAME_MAX.  Returns the length. */
size_t meta_key_encode(unsigned char *buf, uint64_t dir, const char *name, size_t name_len);

void meta_put_be64(unsigned char *to, uint64_t v);
uint64_t meta_get_be64(const unsigned char *from);

#endif
