/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Durable files that are small and new have no file: a close(2) brings their bytes into the
 * metadata store, and to make two files for each that nobody reads would be the larger part
 * of what writing it costs.
 *
 * The bytes are in memory and, so that a successor has them, in a row of the state
 * database, written with the extents and before the answer.  It is as after a restore from
 * a record (PREP_RESTORE): whatever needs the files makes them from these bytes first, in
 * the pool; once they are there the row goes, in the turn that says what was done in them.
 */
#include <errno.h>
#include <endian.h>
#include <string.h>

#include "base/checksum.h"
#include "base/fault.h"
#include "base/options.h"
#include "base/units.h"
#include "cache/staged_priv.h"

/* Of all files: more have files. */
#define HELD_MAX (4 * MIB)
#define BYTES_FORMAT 1

struct bytes_row {
	uint8_t format, pad[3];
	uint32_t crc;
	unsigned char bytes[];
};
_Static_assert(sizeof(struct bytes_row) == 8, "rows outlive the program that wrote them");

void staged_hold(struct staged *sf)
{
	CHECK_OBJ(sf, STAGED_MAGIC);
	sf->may_hold = sf->durable;
}

/* --- The row */

static int row_put(struct staged *sf, const struct bytes_row *row, size_t len)
{
	uint64_t id = htobe64(sf->id);

	return statedb_put(sf->st->db, STATEDB_BYTES, &id, sizeof(id), row, sizeof(*row) + len);
}

int hold_row_delete(struct statedb *db, uint64_t id)
{
	uint64_t be = htobe64(id);
	int err = statedb_del(db, STATEDB_BYTES, &be, sizeof(be));

	return err == -ENOENT ? 0 : err;
}

static struct bytes_row *row_new(size_t len)
{
	struct bytes_row *row = calloc(1, sizeof(*row) + len);

	if (row != NULL)
		row->format = BYTES_FORMAT;
	return row;
}

void hold_begin(struct staged *sf)
{
	sf->held_crc = checksum_crc32c(sf->inl, sf->inl_len);
	sf->held = true;
	sf->prep = PREP_RESTORE;
	sf->st->held += sf->inl_len;
}

int hold_row_write(struct staged *sf)
{
	struct bytes_row *row;
	int err;

	if (!sf->held)
		return hold_row_delete(sf->st->db, sf->id);
	row = row_new(sf->inl_len);
	if (row == NULL)
		return -ENOMEM;
	row->crc = sf->held_crc;
	memcpy(row->bytes, sf->inl, sf->inl_len);
	err = row_put(sf, row, sf->inl_len);
	free(row);
	return err;
}

static bool intact(const struct staged *sf)
{
	return !sf->held || checksum_crc32c(sf->inl, sf->inl_len) == sf->held_crc;
}

/* Bytes that are not intact do not become so. */
static void shorten(struct staged *sf, size_t len)
{
	bool good = intact(sf);

	if (len >= sf->inl_len)
		return;
	sf->st->held -= sf->inl_len - len;
	sf->inl_len = len;
	sf->held_crc = checksum_crc32c(sf->inl, len) ^ (good ? 0 : 1);
}

int hold_row_load(struct staged *sf)
{
	uint64_t id = htobe64(sf->id), from, to;
	struct bytes_row head;
	struct statedb_val v;
	int err = statedb_get(sf->st->db, STATEDB_BYTES, &id, sizeof(id), &v);

	if (err != 0)
		return err == -ENOENT ? 0 : err;
	if (v.len < sizeof(head) || v.len - sizeof(head) > STAGED_INLINE_MAX)
		return -EPROTO;
	memcpy(&head, v.data, sizeof(head));
	if (head.format != BYTES_FORMAT)
		return -EPROTO;
	sf->inl_len = v.len - sizeof(head);
	sf->inl = malloc(MAX(sf->inl_len, (size_t)1));
	if (sf->inl == NULL) {
		sf->inl_len = 0;
		return -ENOMEM;
	}
	memcpy(sf->inl, (const unsigned char *)v.data + sizeof(head), sf->inl_len);
	hold_begin(sf);
	sf->held_crc = head.crc;
	/* Of a write that failed behind its row, and was not answered. */
	sf_gap(sf, 0, sf->inl_len, &from, &to);
	shorten(sf, (size_t)from);
	return 0;
}

/* --- Reading */

bool hold_reads(const struct staged *sf)
{
	return sf->held && sf->st->held <= HELD_MAX;
}

int hold_read(const struct staged *sf, uint64_t off, size_t len, void *mem)
{
	size_t n = off < sf->inl_len ? MIN(len, sf->inl_len - (size_t)off) : 0;

	if (sf->inl == NULL || sf->prep != PREP_RESTORE)
		return -ENOENT;
	if (!intact(sf))
		return -EBADMSG;
	if (n > 0)
		memcpy(mem, sf->inl + off, n);
	memset((unsigned char *)mem + n, 0, len - n);
	return 0;
}

/* --- Writing */

/* New bytes have no hole before them, so that those in memory are all. */
static bool fits(const struct staged_io *io)
{
	const struct staged *sf = io->sf;
	uint64_t most = MIN(sf->st->env.cfg->write_cache_inline, STAGED_INLINE_MAX);
	uint64_t end = io->off + io->len;
	bool may = sf->held || (sf->may_hold && sf->fd < 0 && sf->prep == PREP_NONE &&
				   sf->map.n == 0 && sf->inl == NULL);

	return may && sf->broken == 0 && io->off <= sf->inl_len && end <= most &&
	       sf->st->held - sf->inl_len + MAX(end, sf->inl_len) <= HELD_MAX;
}

/* The row as the write makes it: NULL: out of memory, or the bytes are not intact. */
static struct bytes_row *row_after(const struct staged_io *io, size_t *len)
{
	const struct staged *sf = io->sf;
	struct bytes_row *row;

	*len = MAX(sf->inl_len, (size_t)(io->off + io->len));
	row = intact(sf) ? row_new(*len) : NULL;
	if (row == NULL)
		return NULL;
	if (sf->inl_len > 0)
		memcpy(row->bytes, sf->inl, sf->inl_len);
	memcpy(row->bytes + io->off, io->data, io->len);
	row->crc = io->off == sf->inl_len
		       ? checksum_crc32c_more(sf->held_crc, io->data, io->len)
		       : checksum_crc32c(row->bytes, *len);
	return row;
}

/* What the row has, into memory. */
static void take(struct staged *sf, unsigned char *bytes, size_t len, uint32_t crc)
{
	free(sf->inl);
	sf->st->held += len - sf->inl_len;
	sf->inl = bytes;
	sf->inl_len = len;
	sf->held_crc = crc;
	sf->held = true;
	sf->prep = PREP_RESTORE;
}

bool hold_write(struct staged_io *io)
{
	struct staged *sf = io->sf;
	struct bytes_row *row;
	unsigned char *bytes;
	size_t len;

	if (!fits(io) || staged_rows_mend(sf) != 0)
		return false;
	row = row_after(io, &len);
	bytes = row == NULL ? NULL : malloc(len);
	/* No room in the database: there is on the disk. */
	if (bytes == NULL || row_put(sf, row, len) != 0) {
		free(bytes);
		free(row);
		return false;
	}
	memcpy(bytes, row->bytes, len);
	io->err = FAULT("staged.write.row");
	if (io->err == 0)
		io->err = ext_set(sf, io->off, io->off + io->len, sf->gen);
	if (io->err == 0) {
		take(sf, bytes, len, row->crc);
	} else {
		sf->rows_bad = true;
		free(bytes);
	}
	free(row);
	io->err = durable_ended(io, io->err);
	return true;
}

int hold_cut(struct staged *sf)
{
	if (!sf->held || sf->inl_len <= sf->size)
		return 0;
	shorten(sf, (size_t)sf->size);
	return hold_row_write(sf);
}

int hold_leave(struct staged *sf)
{
	int err;

	if (!sf->held || sf->fd < 0)
		return 0;
	sf->st->held -= sf->inl_len;
	free(sf->inl);
	sf->inl = NULL;
	sf->inl_len = 0;
	sf->held = sf->may_hold = false;
	err = sf->st->db == NULL ? -ESTALE : hold_row_delete(sf->st->db, sf->id);
	sf->rows_bad |= err != 0;
	return err;
}
