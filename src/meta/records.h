/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows of the metadata tree as bytes: the same for every back end.
 *
 * A key is the directory's id, 8 bytes with the highest first, and the entry's name;
 * so the entries of one directory are one range, in the order of their names' bytes.
 * The top's own row has directory 0 and no name.
 *
 * A value begins with its version.  Integers with the highest byte first:
 *
 *	0	version, 1 to 3		12	move: the last move that made the row come
 *	1	kind				here, 0: none
 *	2	has			20	mode, uid, gid
 *	3	length of the version	32	mtime: seconds, nanoseconds (8 + 4 bytes)
 *	4	id as a directory,	44	atime: the same
 *		0: none yet		56	version 1: the version's text
 *
 * Version 2 is a row with META_HAS_CONTENT:
 *
 *	56	policy, state		76	tail_crc, tries
 *	58	1 rewriting, 2 doubt	84	since_ns, next_ns
 *	59	0			100	error
 *	60	id, size		104	the version's text
 *
 * Version 3 is one whose content a node of a cluster has (never with the embedded store):
 *
 *	104	node			112	the version's text
 *
 * What `has` does not name is 0: a row has one encoding only.
 *
 * Beside the tree, and in step with it because one transaction changes both:
 *
 *	parents		id of a directory -> key of the row that has it; none for a
 *			directory that nobody names any more.  With these, a row's path
 *			is found from its key
 *	content		id of content -> key of the row that has it
 *	queue		next_ns (UINT64_MAX: FAILED), id -> nothing: one for each content
 *			that is NOT_PERSISTED or FAILED
 *	blobs		id of content -> version 1 (1 byte), bytes.  A blob is as long as
 *			its content
 *	tally		one row: version 1 (1 byte), files and bytes by state
 *	settings	id -> version 1 (1 byte), the setting's version, its bytes
 *
 * A back end whose values are small (100 kB with FoundationDB) keeps settings in
 * pieces; blobs fit.  One whose transactions conflict adds to the tally's numbers
 * rather than writing them.
 */
#ifndef META_RECORDS_H
#define META_RECORDS_H

#include <stdint.h>

#include "meta/meta.h"

#define META_ROW_VERSION 1
#define META_ROW_VERSION_CONTENT 2
#define META_ROW_VERSION_NODE 3
#define META_ROW_MAX (112 + META_VERSION_MAX)
#define META_KEY_MAX (8 + META_NAME_MAX)

#define META_QUEUE_KEY 16
#define META_TALLY_VERSION 1
#define META_TALLY_SIZE (1 + META_STATES * 16)
#define META_BLOB_VERSION 1
#define META_BLOB_HEAD 1
#define META_SETTING_VERSION 1
#define META_SETTING_HEAD 9

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

/* What the record accounts for: its content, or NULL. */
const struct meta_content *meta_content_of(const struct meta_record *rec);
/* Does it wait in the queue? */
bool meta_content_queued(const struct meta_content *ct);
/* buf: META_QUEUE_KEY bytes. */
void meta_queue_key(unsigned char *buf, const struct meta_content *ct);
/* Has another node its bytes, and nobody else? */
bool meta_row_elsewhere(const struct meta_row *row, uint64_t self);
/* Into the tally, or out of it. */
void meta_tally_add(struct meta_tally *ta, const struct meta_content *ct);
void meta_tally_sub(struct meta_tally *ta, const struct meta_content *ct);
/* buf: META_TALLY_SIZE bytes. */
void meta_tally_encode(const struct meta_tally *ta, unsigned char *buf);
/* 0, -EPROTO, -EIO: as of a row. */
int meta_tally_decode(struct meta_tally *ta, const void *data, size_t len);

bool meta_row_same(const struct meta_row *a, const struct meta_row *b);
/* The condition of a META_PUT or META_DEL; row: what is there, NULL: nothing.  1: go on, 0: it
 * has been done before, -EEXIST. */
int meta_change_guard(const struct meta_change *ch, const struct meta_row *row);
/* What the row that came by this move bears, so that its repetition is known.  Not 0. */
uint64_t meta_move_id(const struct meta_change *ch);

/* *buf, of *size bytes, or NULL, so that `need` bytes fit: 0 or -ENOMEM, and it is as it was. */
int meta_grow(void **buf, size_t *size, size_t need);

void meta_put_be64(unsigned char *to, uint64_t v);
uint64_t meta_get_be64(const unsigned char *from);

#endif
