/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows of uploads in STATEDB_PARTS, integers big-endian:
 *
 *	key, 0			format, unit, uri, path, id of the multipart upload
 *	key, part number	format, mark of the upload's id, length, etag, and its CRC32C
 *				if the format is that of an upload with sums
 *	key, DROP_FIRST...	format, uri, path, id: to be thrown away by the storage (of
 *				a copy: unless this daemon makes an object of it); or
 *				FORMAT_MARK, token, time (ns), uri, path: a beginning may be
 *				on its way since then.  Older programs leave these alone.
 *
 * Texts end with a NUL.  The row of a part that is written again must go: what cannot be
 * deleted is kept in mind, and no upload begins before it is.  Rows of parts that outlived
 * their upload are known by the mark.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "cache/upload_priv.h"

#define FORMAT 1u
#define FORMAT_SUMS 2u
#define FORMAT_MARK 3u
#define DROP_FIRST 0x80000000u

struct part_key {
	uint64_t key;
	uint32_t number;
} __attribute__((packed));

struct part_row {
	uint8_t format;
	uint32_t mark;
	uint64_t len;
	char etag[UFS_VERSION_MAX + sizeof(uint32_t)];
} __attribute__((packed));

#define ROW_MAX (1 + 8 + 4096)

struct row_buf {
	size_t len;
	char data[ROW_MAX];
};

static struct part_key key_of(uint64_t key, unsigned number)
{
	return (struct part_key){ htobe64(key), htobe32(number) };
}

static int put(struct uploads *us, uint64_t key, unsigned number, const void *row, size_t len)
{
	struct part_key k = key_of(key, number);

	if (us->db == NULL)
		return -ESTALE;
	return statedb_put(us->db, STATEDB_PARTS, &k, sizeof(k), row, len);
}

static int del(struct uploads *us, uint64_t key, unsigned number)
{
	struct part_key k = key_of(key, number);
	int err;

	if (us->db == NULL)
		return -ESTALE;
	err = statedb_del(us->db, STATEDB_PARTS, &k, sizeof(k));
	return err == -ENOENT ? 0 : err;
}

/* The first row at or after the given one. */
static int seek(struct uploads *us, uint64_t key, unsigned number, struct part_key *found,
    struct statedb_val *val)
{
	struct part_key k = key_of(key, number);
	struct statedb_val kv;
	int err;

	if (us->db == NULL)
		return -ESTALE;
	err = statedb_seek(us->db, STATEDB_PARTS, &k, sizeof(k), &kv, val);
	if (err != 0)
		return err;
	if (kv.len != sizeof(*found))
		return -EPROTO;
	memcpy(found, kv.data, sizeof(*found));
	found->key = be64toh(found->key);
	found->number = be32toh(found->number);
	return 0;
}

static uint32_t mark_of(const struct upload *up)
{
	return htobe32((uint32_t)hash64(up->id, strlen(up->id), 0));
}

/* --- texts */

static bool add(struct row_buf *b, const void *data, size_t len)
{
	if (len > sizeof(b->data) - b->len)
		return false;
	memcpy(b->data + b->len, data, len);
	b->len += len;
	return true;
}

static bool add_text(struct row_buf *b, const char *text)
{
	return add(b, text, strlen(text) + 1);
}

static const char *take_text(struct statedb_val *v)
{
	const char *text = v->data;
	const char *end = memchr(text, '\0', v->len);

	if (end == NULL)
		return NULL;
	v->len -= (size_t)(end + 1 - text);
	v->data = end + 1;
	return text;
}

/* --- the multipart upload */

int rows_begin(struct upload *up)
{
	uint8_t format = up->sums ? FORMAT_SUMS : FORMAT;
	uint64_t unit = htobe64(up->unit);
	struct row_buf b = { .len = 0 };
	int err;

	if (!add(&b, &format, 1) || !add(&b, &unit, 8) || !add_text(&b, ufs_uri(up->ufs)) ||
	    !add_text(&b, up->path) || !add_text(&b, up->id))
		return -ENAMETOOLONG;
	err = put(up->us, up->key, 0, b.data, b.len);
	return err == 0 ? statedb_commit(up->us->db) : err;
}

int rows_put_part(struct upload *up, unsigned number)
{
	const struct up_part *p = &up->part[number - 1];
	uint8_t format = up->sums ? FORMAT_SUMS : FORMAT;
	struct part_row row = {
		.format = format, .mark = mark_of(up), .len = htobe64(p->len)
	};
	size_t n = strlen(p->etag) + 1;
	uint32_t crc = htobe32(p->crc);

	memcpy(row.etag, p->etag, n);
	if (up->sums) {
		memcpy(row.etag + n, &crc, sizeof(crc));
		n += sizeof(crc);
	}
	return put(up->us, up->key, number, &row, offsetof(struct part_row, etag) + n);
}

void rows_del_part(struct upload *up, unsigned number)
{
	struct up_part *p = &up->part[number - 1];

	p->row_due = del(up->us, up->key, number) != 0;
	up->rows_due |= p->row_due;
}

int rows_mend(struct upload *up)
{
	int err = 0;

	if (!up->rows_due)
		return 0;
	for (unsigned i = 0; i < up->nparts && err == 0; i++) {
		if (!up->part[i].row_due)
			continue;
		err = del(up->us, up->key, i + 1);
		up->part[i].row_due = err != 0;
	}
	up->rows_due = err != 0;
	return err;
}

void rows_del_all(struct upload *up)
{
	int err = del(up->us, up->key, 0); /* without it the others mean nothing */

	for (unsigned i = 0; i < up->nparts; i++) {
		if (up->part[i].len == 0 && !up->part[i].row_due)
			continue;
		if (err == 0)
			err = del(up->us, up->key, i + 1);
	}
	if (err != 0 && up->us->db != NULL)
		log_warn("upload %llu: rows of the state database stay: %s",
		    (unsigned long long)up->key, strerror(-err));
}

static int load_begin(struct upload *up, struct statedb_val v)
{
	const char *uri, *path, *id;
	uint64_t unit;
	uint8_t format = v.len < 9 ? 0 : *(const uint8_t *)v.data;

	if (format != FORMAT && format != FORMAT_SUMS)
		return -EPROTO;
	up->sums = format == FORMAT_SUMS;
	memcpy(&unit, (const char *)v.data + 1, 8);
	v.data = (const char *)v.data + 9;
	v.len -= 9;
	uri = take_text(&v);
	path = uri != NULL ? take_text(&v) : NULL;
	id = path != NULL ? take_text(&v) : NULL;
	up->unit = be64toh(unit);
	if (id == NULL || v.len != 0 || strlen(id) >= UFS_UPLOAD_MAX || *id == '\0' ||
	    up->unit < up->us->part_min || up->unit > UFS_PART_MAX)
		return -EPROTO;
	up->uri = strdup(uri);
	up->path = strdup(path);
	up->id = strdup(id);
	return up->uri == NULL || up->path == NULL || up->id == NULL ? -ENOMEM : 0;
}

static int load_part(struct upload *up, unsigned number, struct statedb_val v)
{
	size_t sum = up->sums ? sizeof(uint32_t) : 0, head = offsetof(struct part_row, etag);
	struct part_row row = { .format = 0 };
	struct up_part *p;
	uint32_t crc;
	size_t n;
	int err;

	if (number > UFS_PARTS_MAX || v.len < head + 2 + sum ||
	    v.len > head + UFS_VERSION_MAX + sum)
		return -EPROTO;
	memcpy(&row, v.data, v.len);
	n = v.len - head - sum;
	if (row.format != (up->sums ? FORMAT_SUMS : FORMAT) || row.len == 0 ||
	    memchr(row.etag, '\0', n) != row.etag + n - 1)
		return -EPROTO;
	if (row.mark != mark_of(up))
		return 0;
	err = upload_part_room(up, number);
	if (err != 0)
		return err;
	p = &up->part[number - 1];
	p->len = be64toh(row.len);
	memcpy(p->etag, row.etag, n);
	if (up->sums) {
		memcpy(&crc, row.etag + n, sizeof(crc));
		p->crc = be32toh(crc);
	}
	up->sent += p->len;
	return 0;
}

/* 1: no such row any more. */
static int next_row(struct upload *up, unsigned from, struct part_key *k, struct statedb_val *v)
{
	int err = seek(up->us, up->key, from, k, v);

	if (err == -ENOENT)
		return 1;
	return err == 0 && (k->key != up->key || k->number >= DROP_FIRST) ? 1 : err;
}

static int sweep(struct upload *up)
{
	struct statedb_val v;
	struct part_key k;
	int err;

	while ((err = next_row(up, 0, &k, &v)) == 0) {
		err = del(up->us, up->key, k.number);
		if (err != 0)
			return err;
	}
	return err == 1 ? 0 : err;
}

static int load(struct upload *up)
{
	struct statedb_val v;
	struct part_key k;
	int err = next_row(up, 0, &k, &v);

	if (err == 0)
		err = k.number == 0 ? load_begin(up, v) : -EPROTO;
	while (err == 0) {
		err = next_row(up, k.number + 1, &k, &v);
		if (err == 0)
			err = load_part(up, k.number, v);
	}
	return err == 1 ? 0 : err;
}

int rows_load(struct upload *up)
{
	int err = load(up);

	if (err != -EPROTO)
		return err;
	/* The file is what counts, and it is all there: it is uploaded from its start. */
	log_warn("upload %llu: rows of the state database are not understood, and dropped",
	    (unsigned long long)up->key);
	upload_unknown(up);
	return sweep(up);
}

/* --- to be thrown away */

static unsigned drop_number(struct uploads *us, uint64_t key)
{
	struct part_key k = key_of(key, UINT32_MAX), found;
	struct statedb_val kv, v;

	if (us->db == NULL ||
	    statedb_seek_back(us->db, STATEDB_PARTS, &k, sizeof(k), &kv, &v) != 0 ||
	    kv.len != sizeof(found))
		return DROP_FIRST;
	memcpy(&found, kv.data, sizeof(found));
	if (found.key != k.key || be32toh(found.number) < DROP_FIRST)
		return DROP_FIRST;
	return be32toh(found.number) + 1;
}

unsigned rows_drop_put(struct uploads *us, uint64_t key, const char *uri, const char *path,
    const char *id)
{
	unsigned number = drop_number(us, key);
	uint8_t format = FORMAT;
	struct row_buf b = { .len = 0 };

	if (number == 0 || !add(&b, &format, 1) || !add_text(&b, uri) || !add_text(&b, path) ||
	    !add_text(&b, id) || put(us, key, number, b.data, b.len) != 0)
		return 0;
	return number;
}

int rows_mark_put(struct uploads *us, const struct up_mark *mk, unsigned *row)
{
	unsigned number = drop_number(us, mk->key);
	uint64_t nums[2] = { htobe64(mk->token), htobe64(mk->since_ns) };
	uint8_t format = FORMAT_MARK;
	struct row_buf b = { .len = 0 };
	int err;

	if (number == 0 || !add(&b, &format, 1) || !add(&b, nums, sizeof(nums)) ||
	    !add_text(&b, mk->uri) || !add_text(&b, mk->path))
		return -ENAMETOOLONG;
	err = put(us, mk->key, number, b.data, b.len);
	if (err == 0)
		err = statedb_commit(us->db);
	*row = err == 0 ? number : 0;
	return err;
}

void rows_drop_del(struct uploads *us, uint64_t key, unsigned row)
{
	if (row != 0)
		(void)del(us, key, row);
}

/* False: another program's. */
static bool drop_parse(struct up_drop_row *dr, struct statedb_val v)
{
	uint8_t format = v.len < 1 ? 0 : *(const uint8_t *)v.data;
	uint64_t nums[2] = { 0, 0 };
	size_t head = 1 + (format == FORMAT_MARK ? sizeof(nums) : 0);

	if ((format != FORMAT && format != FORMAT_MARK) || v.len < head)
		return false;
	memcpy(nums, (const char *)v.data + 1, head - 1);
	dr->mark.token = be64toh(nums[0]);
	dr->mark.since_ns = be64toh(nums[1]);
	v.data = (const char *)v.data + head;
	v.len -= head;
	dr->mark.uri = take_text(&v);
	dr->mark.path = dr->mark.uri != NULL ? take_text(&v) : NULL;
	dr->id = dr->mark.path != NULL && format == FORMAT ? take_text(&v) : NULL;
	return dr->mark.path != NULL && (dr->id != NULL || format == FORMAT_MARK);
}

bool rows_drop_next(struct uploads *us, struct up_drop_row *dr)
{
	uint64_t key = dr->mark.key;
	unsigned row = dr->row;
	struct statedb_val v;
	struct part_key k;

	for (;;) {
		if (row == UINT32_MAX) {
			if (++key == 0)
				return false;
			row = DROP_FIRST - 1;
		}
		if (seek(us, key, MAX(row + 1, DROP_FIRST), &k, &v) != 0)
			return false;
		key = k.key;
		row = k.number;
		if (row < DROP_FIRST) {
			row = DROP_FIRST - 1;
			continue;
		}
		dr->mark.key = key;
		dr->row = row;
		if (drop_parse(dr, v))
			return true;
	}
}

/* --- what is known */

/* The texts of a row of an upload; false: it is no such row. */
static bool begin_parse(struct statedb_val v, const char **uri, const char **path, const char **id)
{
	uint8_t format = v.len < 9 ? 0 : *(const uint8_t *)v.data;

	if (format != FORMAT && format != FORMAT_SUMS)
		return false;
	v.data = (const char *)v.data + 9;
	v.len -= 9;
	*uri = take_text(&v);
	*path = *uri != NULL ? take_text(&v) : NULL;
	*id = *path != NULL ? take_text(&v) : NULL;
	return *id != NULL;
}

static int known_add(struct up_ids *ids, const char *id)
{
	char **more = reallocarray(ids->id, ids->n + 1, sizeof(*more));

	if (more == NULL)
		return -ENOMEM;
	ids->id = more;
	more[ids->n] = strdup(id);
	if (more[ids->n] == NULL)
		return -ENOMEM;
	ids->n++;
	return 0;
}

/* Copies, and what is being thrown away by its id. */
static int known_drops(struct uploads *us, const char *uri, const char *path, struct up_ids *ids)
{
	struct up_drop_row dr = { .row = 0 };
	int err = 0;

	while (err == 0 && rows_drop_next(us, &dr))
		if (dr.id != NULL && strcmp(dr.mark.uri, uri) == 0 &&
		    strcmp(dr.mark.path, path) == 0 && *dr.id != '\0' &&
		    strlen(dr.id) < UFS_UPLOAD_MAX)
			err = known_add(ids, dr.id);
	return err;
}

int rows_known(struct uploads *us, const char *uri, const char *path, struct up_ids *ids)
{
	const char *its_uri, *its_path, *id;
	uint64_t key = 0;
	struct statedb_val v;
	struct part_key k;
	int err;

	while ((err = seek(us, key, 0, &k, &v)) == 0) {
		key = k.key;
		if (k.number == 0 && begin_parse(v, &its_uri, &its_path, &id) &&
		    strcmp(its_uri, uri) == 0 && strcmp(its_path, path) == 0) {
			err = known_add(ids, id);
			if (err != 0)
				return err;
		}
		if (++key == 0)
			break;
	}
	return err == 0 || err == -ENOENT ? known_drops(us, uri, path, ids) : err;
}
