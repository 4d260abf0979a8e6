/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The rows as bytes, little-endian:
 *	"BFstaged", version, reserved, size, limit, flags, number of extents,
 *	and for each of these start, end, dirty; the CRC32C of all that.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/checksum.h"
#include "cache/staged_priv.h"

#define SAVE_VERSION 1
#define SAVE_CHANGED 1u

struct save_head {
	char magic[8];
	uint32_t version, reserved;
	uint64_t size, limit, flags, n;
};
struct save_ext {
	uint64_t start, end, dirty;
};
_Static_assert(sizeof(struct save_head) == 48 && sizeof(struct save_ext) == 24,
    "read by other builds");

static const char magic[8] = {'B', 'F', 's', 't', 'a', 'g', 'e', 'd'};

int staged_save(const struct staged *sf, void **out, size_t *len)
{
	struct save_head head = {.version = htole32(SAVE_VERSION)};
	unsigned char *buf, *p;
	uint32_t crc;

	CHECK_OBJ(sf, STAGED_MAGIC);
	*out = NULL;
	*len = sizeof(head) + sf->map.n * sizeof(struct save_ext) + sizeof(crc);
	buf = p = malloc(*len);
	if (buf == NULL)
		return -ENOMEM;
	memcpy(head.magic, magic, sizeof(magic));
	head.size = htole64(sf->size);
	head.limit = htole64(sf->limit);
	head.flags = htole64(sf->changed > sf->clean ? SAVE_CHANGED : 0);
	head.n = htole64(sf->map.n);
	memcpy(p, &head, sizeof(head));
	p += sizeof(head);
	for (struct ext *x = map_first(&sf->map); x != NULL; x = map_next(x)) {
		struct save_ext se = {htole64(x->start), htole64(x->end),
		    htole64(ext_kind(sf, x) != STAGED_CLEAN)};

		memcpy(p, &se, sizeof(se));
		p += sizeof(se);
	}
	crc = htole32(checksum_crc32c(buf, (size_t)(p - buf)));
	memcpy(p, &crc, sizeof(crc));
	*out = buf;
	return 0;
}

static int check(const unsigned char *buf, size_t len, struct save_head *head)
{
	uint32_t crc;

	if (len < sizeof(*head) + sizeof(crc))
		return -EPROTO;
	memcpy(head, buf, sizeof(*head));
	memcpy(&crc, buf + len - sizeof(crc), sizeof(crc));
	if (memcmp(head->magic, magic, sizeof(magic)) != 0 ||
	    le32toh(head->version) != SAVE_VERSION ||
	    (len - sizeof(*head) - sizeof(crc)) % sizeof(struct save_ext) != 0 ||
	    le64toh(head->n) != (len - sizeof(*head) - sizeof(crc)) / sizeof(struct save_ext) ||
	    le32toh(crc) != checksum_crc32c(buf, len - sizeof(crc)) ||
	    le64toh(head->size) > INT64_MAX)
		return -EPROTO;
	return 0;
}

static int read_exts(struct staged *sf, const unsigned char *p, uint64_t n)
{
	uint64_t last = 0;

	for (; n > 0; n--, p += sizeof(struct save_ext)) {
		struct save_ext se;
		uint64_t start, end;
		int err = map_reserve(&sf->map);

		if (err != 0)
			return err;
		memcpy(&se, p, sizeof(se));
		start = le64toh(se.start);
		end = le64toh(se.end);
		if (start < last || end <= start || end > sf->size)
			return -EPROTO;
		map_insert(&sf->map, start, end, se.dirty != 0 ? sf->gen : 0);
		ext_account(sf, map_find(&sf->map, start), start, end, true);
		last = end;
	}
	return 0;
}

int staged_restore(struct staging *st, uint64_t id, const void *buf, size_t len,
    struct blob *base, struct staged **out)
{
	struct save_head head;
	struct staged *sf;
	int err;

	CHECK_OBJ(st, STAGING_MAGIC);
	*out = NULL;
	err = check(buf, len, &head);
	if (err != 0)
		return err;
	sf = sf_new(st, id, base);
	if (sf == NULL)
		return -ENOMEM;
	sf->size = le64toh(head.size);
	sf->limit = le64toh(head.limit);
	if (le64toh(head.flags) & SAVE_CHANGED)
		sf->changed = sf->gen;
	err = read_exts(sf, (const unsigned char *)buf + sizeof(head), le64toh(head.n));
	if (err == 0)
		err = staged_rows_write(sf);
	if (err != 0)
		staged_close(&sf);
	*out = sf;
	return err;
}
