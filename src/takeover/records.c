/* SPDX-License-Identifier: BSD-2-Clause */
#include "takeover/records.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define REC_CRITICAL 1u

struct rec_head {
	uint32_t magic;
	uint16_t version;
	uint16_t type;
};

struct rec_item {
	uint16_t tag;
	uint16_t flags;
	uint32_t len; /* of the data, which is padded to eight bytes */
};

static size_t padded(size_t len)
{
	return (len + 7u) & ~(size_t)7u;
}

void rec_begin(struct rec_out *o, enum rec_msg type)
{
	struct rec_head h = {.magic = REC_MAGIC, .version = REC_VERSION, .type = (uint16_t)type};

	memset(o, 0, sizeof(*o));
	memcpy(o->buf, &h, sizeof(h));
	o->len = sizeof(h);
}

static void rec_append(
    struct rec_out *o, unsigned tag, unsigned flags, const void *data, size_t len)
{
	struct rec_item it = {.tag = (uint16_t)tag, .flags = (uint16_t)flags, .len = (uint32_t)len};

	if (len > REC_MSG_MAX || o->len + sizeof(it) + padded(len) > REC_MSG_MAX) {
		o->overflow = true;
		return;
	}
	memcpy(o->buf + o->len, &it, sizeof(it));
	if (len > 0)
		memcpy(o->buf + o->len + sizeof(it), data, len);
	o->len += sizeof(it) + padded(len);
}

void rec_put(struct rec_out *o, enum rec_tag tag, const void *data, size_t len)
{
	rec_append(o, tag, 0, data, len);
}

void rec_put_critical(struct rec_out *o, unsigned tag, const void *data, size_t len)
{
	rec_append(o, tag, REC_CRITICAL, data, len);
}

void rec_put_u64(struct rec_out *o, enum rec_tag tag, uint64_t v)
{
	rec_append(o, tag, 0, &v, sizeof(v));
}

void rec_put_text(struct rec_out *o, enum rec_tag tag, const char *text)
{
	rec_append(o, tag, 0, text, strlen(text));
}

size_t rec_len(struct rec_out *o)
{
	return o->overflow ? 0 : o->len;
}

static int rec_take(struct rec_in *in, const unsigned char *p, size_t left, size_t *used)
{
	struct rec_item it;

	if (left < sizeof(it))
		return -EBADMSG;
	memcpy(&it, p, sizeof(it));
	if (it.len > left - sizeof(it) || padded(it.len) > left - sizeof(it))
		return -EBADMSG;
	*used = sizeof(it) + padded(it.len);
	if (it.tag == 0 || it.tag >= REC_TAGS)
		return (it.flags & REC_CRITICAL) != 0 ? -EPROTO : 0;
	if (in->rec[it.tag].data != NULL)
		return -EBADMSG;
	in->rec[it.tag].data = p + sizeof(it);
	in->rec[it.tag].len = it.len;
	return 0;
}

int rec_parse(struct rec_in *in, const void *buf, size_t len)
{
	const unsigned char *p = buf;
	struct rec_head h;
	size_t at = sizeof(h), used = 0;
	int err = 0;

	memset(in, 0, sizeof(*in));
	if (len < sizeof(h) || len > REC_MSG_MAX)
		return -EBADMSG;
	memcpy(&h, p, sizeof(h));
	if (h.magic != REC_MAGIC)
		return -EBADMSG;
	/* A new version means a new framing; new contents are new records. */
	if (h.version != REC_VERSION)
		return -EPROTO;
	in->type = (enum rec_msg)h.type;
	for (; err == 0 && at < len; at += used)
		err = rec_take(in, p + at, len - at, &used);
	return err;
}

bool rec_has(const struct rec_in *in, enum rec_tag tag)
{
	return in->rec[tag].data != NULL;
}

int rec_get_u64(const struct rec_in *in, enum rec_tag tag, uint64_t *v)
{
	if (!rec_has(in, tag))
		return -ENOENT;
	if (in->rec[tag].len != sizeof(*v))
		return -EBADMSG;
	memcpy(v, in->rec[tag].data, sizeof(*v));
	return 0;
}

int rec_get_text(const struct rec_in *in, enum rec_tag tag, char *buf, size_t len)
{
	size_t n, i;

	buf[0] = '\0';
	if (!rec_has(in, tag))
		return -ENOENT;
	n = in->rec[tag].len < len ? in->rec[tag].len : len - 1;
	for (i = 0; i < n; i++) {
		unsigned char c = in->rec[tag].data[i];

		buf[i] = c >= ' ' && c != 0x7f ? (char)c : '?';
	}
	buf[n] = '\0';
	return 0;
}

int rec_get_raw(const struct rec_in *in, enum rec_tag tag, void *buf, size_t max, uint32_t *len)
{
	if (!rec_has(in, tag))
		return -ENOENT;
	if (in->rec[tag].len > max)
		return -EMSGSIZE;
	memcpy(buf, in->rec[tag].data, in->rec[tag].len);
	*len = in->rec[tag].len;
	return 0;
}

int rec_sort_fds(const struct rec_in *in, const int *fds, int nfds, int out[REC_FD_KINDS])
{
	const unsigned char *kind = in->rec[REC_FDS].data;
	int i, err = 0;

	for (i = 0; i < REC_FD_KINDS; i++)
		out[i] = -1;
	if ((uint32_t)nfds != in->rec[REC_FDS].len)
		err = -EBADMSG;
	for (i = 0; i < nfds; i++) {
		if (err == 0 && kind[i] > 0 && kind[i] < REC_FD_KINDS && out[kind[i]] < 0)
			out[kind[i]] = fds[i];
		else
			close(fds[i]);
	}
	return err;
}

void rec_close_fds(int fds[REC_FD_KINDS])
{
	int i;

	for (i = 0; i < REC_FD_KINDS; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}
