/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The index of what the cache disk holds: an LMDB database beside the blobs.
 *
 *	meta	format; bytes in the store
 *	blob	hash -> {size, bytes present, last use, key text}
 *	page	hash, page number -> one CRC32C a 4 KiB block
 *	lru	reused?, last use, hash -> nothing
 *
 * Eviction goes by the lru table in its order, so what was used once goes before
 * what was reused: a scan of many files flushes the scans before it, not what is
 * read again and again.  What was reused may be most of the store; beyond that its
 * longest unused counts as used once again.
 *
 * Every function runs in the pool, on the index's lane, so one at a time; nothing
 * here knows the loop.  It describes clean pages only: losing it loses nothing.
 *
 * LMDB reads through a map, so an error of the disk may be a SIGBUS.  It breaks the
 * index (base/mapguard.h), no more: all calls fail with -EIO from then on, until it has
 * been closed and opened again.
 */
#ifndef CACHE_INDEX_H
#define CACHE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/epoch.h"
#include "base/errtext.h"
#include "base/queue.h"

#define INDEX_HASH 16

struct index;

/* Names one version of one file: the hash names rows and the file on disk, the
 * text tells apart what hashes alike. */
struct index_key {
	unsigned char hash[INDEX_HASH];
	const void *text;
	uint32_t text_len;
	uint64_t size;
};

/* TOUCH: it was used.  REUSE: what was cached of it was used again, so it is worth
 * more than what was only read once. */
enum index_verb { INDEX_PUT_PAGE, INDEX_DEL_PAGE, INDEX_DEL_BLOB, INDEX_TOUCH, INDEX_REUSE };

struct index_op {
	STAILQ_ENTRY(index_op) link;
	enum index_verb verb;
	struct index_key key; /* DEL_BLOB: only the hash */
	uint64_t page;
	uint64_t when;	/* PUT_PAGE of a new blob, TOUCH, REUSE */
	uint32_t bytes; /* of the page on disk */
	uint32_t ncrc;
	const uint32_t *crc;
	uint64_t freed; /* out, DEL_BLOB: bytes that were present */
	/* the submitter's */
	struct blob *blob;
	struct sums *sums;
};
STAILQ_HEAD(index_ops, index_op);

/* Opens DIR/index.mdb.  One that is damaged, of another format or page size, or
 * that crashed us when it was last opened, is renamed to index.broken and begun
 * afresh; `why` then has words ("" otherwise).  Also takes in what
 * index_leave() left. */
int index_open(struct index **out, const char *dir, int dir_fd, uint64_t capacity,
    uint32_t page_size, const struct epoch *ep, struct errtext *why, struct errtext *et);
void index_close(struct index **ix);
/* Any thread. */
bool index_broken(const struct index *ix);
/* Renames it to index.broken: the next index_open() begins afresh. */
int index_set_aside(int dir_fd);

/* Bytes in the store by the rows. */
uint64_t index_used(const struct index *ix);

/* All in one transaction, durable when it returns 0; -ESTALE: not our epoch. */
int index_apply(struct index *ix, const struct index_ops *ops);
/* Puts ops beside the index without waiting for the disk: the next index_open()
 * applies them.  A machine that stops in between forgets them. */
int index_leave(int dir_fd, const struct index_ops *ops);

/* Sets the bits of the pages present (present: npages bits, zeroed) and the bytes
 * they take.  -ENOENT: no such blob, -EEXIST: another file's, of the same hash. */
int index_load(struct index *ix, const struct index_key *key, uint64_t npages,
    uint64_t *present, uint64_t *bytes);

/* Calls fn for up to `max` rows from page `first` on. */
int index_rows(struct index *ix, const unsigned char *hash, uint64_t first, unsigned max,
    int (*fn)(void *arg, uint64_t page, const uint32_t *crc, uint32_t ncrc), void *arg);

/* The blobs to go first. */
struct index_old {
	unsigned char hash[INDEX_HASH];
	bool reused;
	uint64_t bytes;
};
int index_oldest(struct index *ix, struct index_old *out, unsigned max, unsigned *n);
/* Bytes present of a blob: -ENOENT if it has no row. */
int index_bytes(struct index *ix, const unsigned char *hash, uint64_t *bytes);

#endif
