/* SPDX-License-Identifier: BSD-2-Clause */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "ops/handle.h"

/* A row: format, then a byte of kind, a byte of length and the name, for each. */
#define COOKIE_FORMAT 1u

struct cookie_key {
	uint64_t fh, first; /* big-endian */
};

static struct cookie_key cookie_key(uint64_t fh, uint64_t first)
{
	return (struct cookie_key){.fh = htobe64(fh), .first = htobe64(first)};
}

static int row_reserve(struct cookie_row *row, size_t more)
{
	size_t cap = row->cap == 0 ? 4096 : row->cap;
	unsigned char *p;

	while (cap < row->len + more)
		cap *= 2;
	if (cap == row->cap)
		return 0;
	p = realloc(row->buf, cap);
	if (p == NULL)
		return -ENOMEM;
	row->buf = p;
	row->cap = cap;
	return 0;
}

int cookie_row_add(struct cookie_row *row, const char *name, size_t len, enum ufs_kind kind)
{
	int err;

	if (len == 0 || len > UFS_NAME_MAX)
		return -EINVAL;
	err = row_reserve(row, 3 + len);
	if (err != 0)
		return err;
	if (row->len == 0)
		row->buf[row->len++] = COOKIE_FORMAT;
	row->buf[row->len++] = (unsigned char)kind;
	row->buf[row->len++] = (unsigned char)len;
	memcpy(row->buf + row->len, name, len);
	row->len += len;
	row->count++;
	return 0;
}

int cookie_row_store(struct fs *fs, uint64_t fh, const struct cookie_row *row)
{
	struct cookie_key k = cookie_key(fh, row->first);

	if (row->count == 0)
		return 0;
	return statedb_put(fs->db, STATEDB_COOKIES, &k, sizeof(k), row->buf, row->len);
}

void cookie_row_fini(struct cookie_row *row)
{
	free(row->buf);
	memset(row, 0, sizeof(*row));
}

/* The nth entry (0: the first) to *p, or -ENOENT with the number of entries in
 * *count. */
static int row_nth(
    const struct statedb_val *v, uint64_t nth, const unsigned char **entry, uint64_t *count)
{
	const unsigned char *p = v->data, *end = p + v->len;

	*count = 0;
	if (v->len < 1 || *p++ != COOKIE_FORMAT)
		return -EPROTO;
	for (; end - p >= 2 && end - p >= 2 + p[1]; p += 2 + p[1]) {
		if ((*count)++ < nth)
			continue;
		*entry = p;
		return 0;
	}
	return p == end ? -ENOENT : -EPROTO;
}

/* The handle's last row that begins at or before `cookie`. */
static int row_before(
    struct fs *fs, uint64_t fh, uint64_t cookie, uint64_t *first, struct statedb_val *val)
{
	struct cookie_key k = cookie_key(fh, cookie), found;
	struct statedb_val key;
	int err;

	err = statedb_seek_back(fs->db, STATEDB_COOKIES, &k, sizeof(k), &key, val);
	if (err != 0)
		return err;
	if (key.len != sizeof(found))
		return -EPROTO;
	memcpy(&found, key.data, sizeof(found));
	*first = be64toh(found.first);
	return found.fh == k.fh ? 0 : -ENOENT;
}

int cookie_find(
    struct fs *fs, uint64_t fh, uint64_t cookie, char name[UFS_NAME_MAX + 1], enum ufs_kind *kind)
{
	const unsigned char *p;
	struct statedb_val val;
	uint64_t first, count;
	int err;

	err = row_before(fs, fh, cookie, &first, &val);
	if (err == 0)
		err = row_nth(&val, cookie - first, &p, &count);
	if (err != 0)
		return err;
	*kind = (enum ufs_kind)p[0];
	memcpy(name, p + 2, p[1]);
	name[p[1]] = '\0';
	return 0;
}

int cookie_next(struct fs *fs, uint64_t fh, uint64_t least, uint64_t *next)
{
	const unsigned char *p;
	struct statedb_val val;
	uint64_t first, count;
	int err;

	*next = least;
	err = row_before(fs, fh, UINT64_MAX, &first, &val);
	if (err != 0)
		return err == -ENOENT ? 0 : err;
	err = row_nth(&val, UINT64_MAX, &p, &count);
	if (err != -ENOENT)
		return err;
	*next = MAX(least, first + count);
	return 0;
}

int cookie_drop(struct fs *fs, uint64_t fh)
{
	struct cookie_key k = cookie_key(fh, 0), found;
	struct statedb_val key, val;
	int err;

	for (;;) {
		err = statedb_seek(fs->db, STATEDB_COOKIES, &k, sizeof(k), &key, &val);
		if (err != 0)
			return err == -ENOENT ? 0 : err;
		if (key.len != sizeof(found))
			return -EPROTO;
		memcpy(&found, key.data, sizeof(found));
		if (found.fh != k.fh)
			return 0;
		err = statedb_del(fs->db, STATEDB_COOKIES, &found, sizeof(found));
		/* A long listing in a full database: a commit makes room for more. */
		if (err == -ENOSPC && statedb_commit(fs->db) == 0)
			err = statedb_del(fs->db, STATEDB_COOKIES, &found, sizeof(found));
		if (err != 0)
			return err;
	}
}
