/* SPDX-License-Identifier: BSD-2-Clause */
#include "meta/records.h"

#include <string.h>

#include "base/units.h"

#define HAS_ALL                                                                                    \
	(META_HAS_MODE | META_HAS_UID | META_HAS_GID | META_HAS_MTIME | META_HAS_ATIME)

enum {
	AT_VERSION = 0,
	AT_KIND = 1,
	AT_HAS = 2,
	AT_TEXT_LEN = 3,
	AT_DIR = 4,
	AT_MOVE = 12,
	AT_MODE = 20,
	AT_UID = 24,
	AT_GID = 28,
	AT_MTIME = 32,
	AT_ATIME = 44,
	AT_TEXT = 56,
};

static void put_be32(unsigned char *to, uint32_t v)
{
	for (int i = 3; i >= 0; i--, v >>= 8)
		to[i] = (unsigned char)v;
}

static uint32_t get_be32(const unsigned char *from)
{
	return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 |
	       from[3];
}

void meta_put_be64(unsigned char *to, uint64_t v)
{
	for (int i = 7; i >= 0; i--, v >>= 8)
		to[i] = (unsigned char)v;
}

uint64_t meta_get_be64(const unsigned char *from)
{
	return (uint64_t)get_be32(from) << 32 | get_be32(from + 4);
}

static void put_time(unsigned char *to, const struct timespec *ts)
{
	meta_put_be64(to, (uint64_t)(int64_t)ts->tv_sec);
	put_be32(to + 8, (uint32_t)ts->tv_nsec);
}

static struct timespec get_time(const unsigned char *from)
{
	struct timespec ts = {
		.tv_sec = (time_t)(int64_t)meta_get_be64(from),
		.tv_nsec = (long)get_be32(from + 8),
	};

	return ts;
}

static bool time_ok(const struct timespec *ts)
{
	return ts->tv_nsec >= 0 && ts->tv_nsec < (long)NS_PER_S;
}

int meta_record_check(const struct meta_record *rec)
{
	size_t len = strnlen(rec->version, sizeof(rec->version));

	if ((rec->kind != META_FILE && rec->kind != META_DIR) || (rec->has & ~HAS_ALL) != 0)
		return -EINVAL;
	if (len == sizeof(rec->version) || (rec->kind == META_DIR && len > 0))
		return -EINVAL;
	if (((rec->has & META_HAS_MTIME) != 0 && !time_ok(&rec->mtime)) ||
	    ((rec->has & META_HAS_ATIME) != 0 && !time_ok(&rec->atime)))
		return -EINVAL;
	return 0;
}

size_t meta_row_encode(const struct meta_row *row, unsigned char *buf)
{
	const struct meta_record *rec = &row->rec;
	size_t len = rec->kind == META_FILE ? strlen(rec->version) : 0;

	memset(buf, 0, AT_TEXT);
	buf[AT_VERSION] = META_ROW_VERSION;
	buf[AT_KIND] = (unsigned char)rec->kind;
	buf[AT_TEXT_LEN] = (unsigned char)len;
	meta_put_be64(buf + AT_DIR, row->dir);
	meta_put_be64(buf + AT_MOVE, row->move);
	if (rec->kind != META_PASS) {
		buf[AT_HAS] = (unsigned char)rec->has;
		if (rec->has & META_HAS_MODE)
			put_be32(buf + AT_MODE, rec->mode);
		if (rec->has & META_HAS_UID)
			put_be32(buf + AT_UID, rec->uid);
		if (rec->has & META_HAS_GID)
			put_be32(buf + AT_GID, rec->gid);
		if (rec->has & META_HAS_MTIME)
			put_time(buf + AT_MTIME, &rec->mtime);
		if (rec->has & META_HAS_ATIME)
			put_time(buf + AT_ATIME, &rec->atime);
	}
	memcpy(buf + AT_TEXT, rec->version, len);
	return AT_TEXT + len;
}

/* What kind the row is decides what else it may say. */
static bool kind_fits(const struct meta_row *row)
{
	const struct meta_record *rec = &row->rec;

	if (row->dir == META_DIR_TOP)
		return false;
	switch (rec->kind) {
	case META_PASS:
		return rec->has == 0 && rec->version[0] == '\0' && row->dir != META_DIR_NONE;
	case META_FILE:
		return row->dir == META_DIR_NONE;
	case META_DIR:
		return true;
	}
	return false;
}

int meta_row_decode(struct meta_row *row, const void *data, size_t len)
{
	const unsigned char *p = data;
	unsigned char again[META_ROW_MAX];
	struct meta_record *rec = &row->rec;

	memset(row, 0, sizeof(*row));
	if (len == 0)
		return -EIO;
	if (p[AT_VERSION] != META_ROW_VERSION)
		return -EPROTO;
	if (len < AT_TEXT || len - AT_TEXT != p[AT_TEXT_LEN] ||
	    p[AT_TEXT_LEN] >= META_VERSION_MAX || p[AT_KIND] > META_DIR)
		return -EIO;
	rec->kind = (enum meta_kind)p[AT_KIND];
	rec->has = p[AT_HAS];
	row->dir = meta_get_be64(p + AT_DIR);
	row->move = meta_get_be64(p + AT_MOVE);
	rec->mode = get_be32(p + AT_MODE);
	rec->uid = get_be32(p + AT_UID);
	rec->gid = get_be32(p + AT_GID);
	rec->mtime = get_time(p + AT_MTIME);
	rec->atime = get_time(p + AT_ATIME);
	memcpy(rec->version, p + AT_TEXT, len - AT_TEXT);
	if (!kind_fits(row) || (rec->kind != META_PASS && meta_record_check(rec) != 0))
		return -EIO;
	/* One encoding only: this finds what is set and must not be. */
	if (meta_row_encode(row, again) != len || memcmp(again, p, len) != 0)
		return -EIO;
	return 0;
}

size_t meta_key_encode(unsigned char *buf, uint64_t dir, const char *name, size_t name_len)
{
	meta_put_be64(buf, dir);
	memcpy(buf + 8, name, name_len);
	return 8 + name_len;
}
