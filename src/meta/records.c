/* SPDX-License-Identifier: BSD-2-Clause */
#include "meta/records.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/obj.h"
#include "base/units.h"

#define HAS_ALL                                                                                    \
	(META_HAS_MODE | META_HAS_UID | META_HAS_GID | META_HAS_MTIME | META_HAS_ATIME |           \
	    META_HAS_CONTENT)

#define FLAG_REWRITING 1
#define FLAG_DOUBT 2

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
	/* with content */
	AT_POLICY = 56,
	AT_STATE = 57,
	AT_FLAGS = 58,
	AT_ID = 60,
	AT_SIZE = 68,
	AT_TAIL = 76,
	AT_TRIES = 80,
	AT_SINCE = 84,
	AT_NEXT = 92,
	AT_ERROR = 100,
	AT_CONTENT_TEXT = 104,
	/* with content of a node */
	AT_NODE = 104,
	AT_NODE_TEXT = 112,
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

static bool content_ok(const struct meta_content *ct)
{
	return ct->policy > META_POLICY_NO_CACHE && ct->policy <= META_POLICY_TRANSIENT &&
	       ct->state > META_STATE_NONE && ct->state < META_STATES &&
	       (ct->id & META_CONTENT_BIT) != 0;
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
	if ((rec->has & META_HAS_CONTENT) != 0 &&
	    (rec->kind != META_FILE || !content_ok(&rec->content)))
		return -EINVAL;
	return 0;
}

static void put_content(unsigned char *buf, const struct meta_content *ct)
{
	buf[AT_POLICY] = ct->policy;
	buf[AT_STATE] = ct->state;
	buf[AT_FLAGS] = (unsigned char)((ct->rewriting ? FLAG_REWRITING : 0) |
					(ct->doubt ? FLAG_DOUBT : 0));
	meta_put_be64(buf + AT_ID, ct->id);
	meta_put_be64(buf + AT_SIZE, ct->size);
	put_be32(buf + AT_TAIL, ct->tail_crc);
	put_be32(buf + AT_TRIES, ct->tries);
	meta_put_be64(buf + AT_SINCE, ct->since_ns);
	meta_put_be64(buf + AT_NEXT, ct->next_ns);
	put_be32(buf + AT_ERROR, (uint32_t)ct->error);
	if (ct->node != 0)
		meta_put_be64(buf + AT_NODE, ct->node);
}

static void get_content(struct meta_content *ct, const unsigned char *p)
{
	ct->policy = p[AT_POLICY];
	ct->state = p[AT_STATE];
	ct->rewriting = (p[AT_FLAGS] & FLAG_REWRITING) != 0;
	ct->doubt = (p[AT_FLAGS] & FLAG_DOUBT) != 0;
	ct->id = meta_get_be64(p + AT_ID);
	ct->size = meta_get_be64(p + AT_SIZE);
	ct->tail_crc = get_be32(p + AT_TAIL);
	ct->tries = get_be32(p + AT_TRIES);
	ct->since_ns = meta_get_be64(p + AT_SINCE);
	ct->next_ns = meta_get_be64(p + AT_NEXT);
	ct->error = (int32_t)get_be32(p + AT_ERROR);
	ct->node = p[AT_VERSION] == META_ROW_VERSION_NODE ? meta_get_be64(p + AT_NODE) : 0;
}

static size_t text_at(unsigned version)
{
	return version == META_ROW_VERSION_NODE	     ? AT_NODE_TEXT
	       : version == META_ROW_VERSION_CONTENT ? AT_CONTENT_TEXT
						     : AT_TEXT;
}

size_t meta_row_encode(const struct meta_row *row, unsigned char *buf)
{
	const struct meta_record *rec = &row->rec;
	const struct meta_content *ct = meta_content_of(rec);
	size_t len = rec->kind == META_FILE ? strlen(rec->version) : 0;
	unsigned version = ct == NULL	   ? META_ROW_VERSION
			   : ct->node == 0 ? META_ROW_VERSION_CONTENT
					   : META_ROW_VERSION_NODE;
	size_t text = text_at(version);

	memset(buf, 0, text);
	buf[AT_VERSION] = (unsigned char)version;
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
	if (ct != NULL)
		put_content(buf, ct);
	memcpy(buf + text, rec->version, len);
	return text + len;
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
	size_t text;

	memset(row, 0, sizeof(*row));
	if (len == 0)
		return -EIO;
	if (p[AT_VERSION] < META_ROW_VERSION || p[AT_VERSION] > META_ROW_VERSION_NODE)
		return -EPROTO;
	text = text_at(p[AT_VERSION]);
	if (len < text || len - text != p[AT_TEXT_LEN] ||
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
	if (text != AT_TEXT)
		get_content(&rec->content, p);
	memcpy(rec->version, p + text, len - text);
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

/* --- What is kept beside the rows */

const struct meta_content *meta_content_of(const struct meta_record *rec)
{
	return rec->kind == META_FILE && (rec->has & META_HAS_CONTENT) != 0 ? &rec->content : NULL;
}

bool meta_content_queued(const struct meta_content *ct)
{
	return ct->state == META_STATE_NOT_PERSISTED || ct->state == META_STATE_FAILED;
}

bool meta_row_elsewhere(const struct meta_row *row, uint64_t self)
{
	const struct meta_content *ct = meta_content_of(&row->rec);

	return ct != NULL && ct->state != META_STATE_PERSISTED && ct->node != self;
}

void meta_queue_key(unsigned char *buf, const struct meta_content *ct)
{
	meta_put_be64(buf, ct->state == META_STATE_FAILED ? UINT64_MAX : ct->next_ns);
	meta_put_be64(buf + 8, ct->id);
}

void meta_tally_add(struct meta_tally *ta, const struct meta_content *ct)
{
	ta->files[ct->state]++;
	ta->bytes[ct->state] += ct->size;
}

void meta_tally_sub(struct meta_tally *ta, const struct meta_content *ct)
{
	/* Of a damaged store: rather too few than all there could be. */
	ta->files[ct->state] -= ta->files[ct->state] > 0;
	ta->bytes[ct->state] -= MIN(ta->bytes[ct->state], ct->size);
}

void meta_tally_encode(const struct meta_tally *ta, unsigned char *buf)
{
	*buf++ = META_TALLY_VERSION;
	for (unsigned i = 0; i < META_STATES; i++, buf += 16) {
		meta_put_be64(buf, ta->files[i]);
		meta_put_be64(buf + 8, ta->bytes[i]);
	}
}

int meta_tally_decode(struct meta_tally *ta, const void *data, size_t len)
{
	const unsigned char *p = data;

	if (len == 0)
		return -EIO;
	if (*p++ != META_TALLY_VERSION)
		return -EPROTO;
	if (len != META_TALLY_SIZE)
		return -EIO;
	for (unsigned i = 0; i < META_STATES; i++, p += 16) {
		ta->files[i] = meta_get_be64(p);
		ta->bytes[i] = meta_get_be64(p + 8);
	}
	return 0;
}

bool meta_row_same(const struct meta_row *a, const struct meta_row *b)
{
	unsigned char abuf[META_ROW_MAX], bbuf[META_ROW_MAX];
	size_t len = meta_row_encode(a, abuf);

	return meta_row_encode(b, bbuf) == len && memcmp(abuf, bbuf, len) == 0;
}

int meta_change_guard(const struct meta_change *ch, const struct meta_row *row)
{
	const struct meta_content *has = row != NULL ? meta_content_of(&row->rec) : NULL;
	const struct meta_content *ct = meta_content_of(&ch->rec);
	struct meta_row done;

	if (ch->if_content == 0 || (has != NULL && has->id == ch->if_content))
		return 1;
	if (ch->verb == META_DEL)
		return row == NULL || row->rec.kind == META_PASS ? 0 : -EEXIST;
	if (row == NULL || row->rec.kind == META_PASS)
		return -EEXIST;
	/* Nobody else ever puts this content. */
	if (ct != NULL)
		return has != NULL && has->id == ct->id ? 0 : -EEXIST;
	done = *row;
	done.rec = ch->rec;
	return meta_row_same(&done, row) ? 0 : -EEXIST;
}

uint64_t meta_move_id(const struct meta_change *ch)
{
	uint64_t id = ch->id != 0 ? ch->id : hash64(ch->path, strlen(ch->path), 0);

	return id != 0 ? id : 1;
}

int meta_grow(void **buf, size_t *size, size_t need)
{
	size_t now = MAX(*size, 4096);
	void *p;

	if (*buf != NULL && need <= *size)
		return 0;
	while (now < need)
		now *= 2;
	p = realloc(*buf, now);
	if (p == NULL)
		return -ENOMEM;
	*buf = p;
	*size = now;
	return 0;
}
