/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/obj.h"
#include "meta/records.h"

TestSuite(meta_records);

static const struct meta_row rows[] = {
	{ .rec = { .kind = META_PASS }, .dir = 2, .move = 5 },
	{ .rec = { .kind = META_FILE }, .move = UINT64_MAX },
	{ .rec = { .kind = META_DIR,
	      .has = META_HAS_MODE | META_HAS_MTIME,
	      .mode = 0755,
	      .mtime = { .tv_sec = -1, .tv_nsec = 999999999 } },
	    .dir = UINT64_MAX },
	{ .rec = { .kind = META_FILE,
	      .has = META_HAS_UID | META_HAS_GID | META_HAS_ATIME,
	      .uid = UINT32_MAX,
	      .gid = 1,
	      .atime = { .tv_sec = INT64_MIN, .tv_nsec = 0 },
	      .version = "0123456789abcdef-\xff" } },
	{ .rec = { .kind = META_FILE,
	      .has = META_HAS_MODE | META_HAS_CONTENT,
	      .mode = 0600,
	      .version = "v",
	      .content = { .policy = META_POLICY_TRANSIENT,
		  .state = META_STATE_FAILED,
		  .id = UINT64_MAX,
		  .size = UINT64_C(1) << 50,
		  .tail_crc = 0x89abcdef,
		  .rewriting = true,
		  .doubt = true,
		  .since_ns = UINT64_C(0x1122334455667788),
		  .next_ns = UINT64_MAX - 1,
		  .tries = UINT32_MAX,
		  .error = -28 } } },
	{ .rec = { .kind = META_FILE,
	      .has = META_HAS_CONTENT,
	      .content = { .policy = META_POLICY_WRITE_BACK,
		  .state = META_STATE_NOT_PERSISTED,
		  .id = META_CONTENT_BIT } } },
	{ .rec = { .kind = META_FILE,
	      .has = META_HAS_CONTENT,
	      .version = "of a node",
	      .content = { .policy = META_POLICY_WRITE_BACK,
		  .state = META_STATE_PERSISTED,
		  .id = META_CONTENT_BIT | 7,
		  .node = UINT64_C(0x8899aabbccddeeff) } } },
};

static void same_content(const struct meta_content *a, const struct meta_content *b)
{
	cr_assert_eq(a->policy, b->policy);
	cr_assert_eq(a->state, b->state);
	cr_assert_eq(a->id, b->id);
	cr_assert_eq(a->size, b->size);
	cr_assert_eq(a->tail_crc, b->tail_crc);
	cr_assert_eq(a->rewriting, b->rewriting);
	cr_assert_eq(a->doubt, b->doubt);
	cr_assert_eq(a->since_ns, b->since_ns);
	cr_assert_eq(a->next_ns, b->next_ns);
	cr_assert_eq(a->tries, b->tries);
	cr_assert_eq(a->error, b->error);
	cr_assert_eq(a->node, b->node);
}

Test(meta_records, come_back)
{
	unsigned char buf[META_ROW_MAX];

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		size_t len = meta_row_encode(&rows[i], buf);
		struct meta_row row;

		cr_assert_leq(len, sizeof(buf));
		cr_assert_eq(meta_row_decode(&row, buf, len), 0);
		cr_assert_eq(row.rec.kind, rows[i].rec.kind);
		cr_assert_eq(row.rec.has, rows[i].rec.has);
		cr_assert_eq(row.dir, rows[i].dir);
		cr_assert_eq(row.move, rows[i].move);
		cr_assert_eq(row.rec.uid, rows[i].rec.uid);
		cr_assert_eq(row.rec.mtime.tv_sec, rows[i].rec.mtime.tv_sec);
		cr_assert_eq(row.rec.mtime.tv_nsec, rows[i].rec.mtime.tv_nsec);
		cr_assert_eq(row.rec.atime.tv_sec, rows[i].rec.atime.tv_sec);
		cr_assert_str_eq(row.rec.version, rows[i].rec.version);
		same_content(&row.rec.content, &rows[i].rec.content);
	}
}

/* The layout is on disks: it must not change under its version. */
Test(meta_records, bytes)
{
	static const unsigned char want[58] = {
		1, 1, META_HAS_MODE | META_HAS_MTIME, 2,	/* version, kind, has, length */
		0, 0, 0, 0, 0, 0, 0, 0,				/* directory */
		1, 2, 3, 4, 5, 6, 7, 8,				/* move */
		0, 0, 1, 0xa4, 0, 0, 0, 0, 0, 0, 0, 0,		/* mode, uid, gid */
		0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 7,		/* mtime */
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'v', '1',	/* atime, version */
	};
	static const unsigned char key[11] = { 0, 0, 0, 0, 0, 0, 1, 2, 'a', 0xff, 'b' };
	struct meta_row row = { .rec = { .kind = META_FILE,
				    .has = META_HAS_MODE | META_HAS_MTIME,
				    .mode = 0644,
				    .uid = 77, /* not said, so not written */
				    .mtime = { .tv_sec = 256, .tv_nsec = 7 },
				    .version = "v1" },
		.move = UINT64_C(0x0102030405060708) };
	unsigned char buf[META_ROW_MAX], kbuf[META_KEY_MAX];

	cr_assert_eq(meta_row_encode(&row, buf), sizeof(want));
	cr_assert_arr_eq(buf, want, sizeof(want));
	cr_assert_eq(meta_key_encode(kbuf, 0x102, "a\xff" "b", 3), sizeof(key));
	cr_assert_arr_eq(kbuf, key, sizeof(key));
}

Test(meta_records, what_is_not_a_row)
{
	unsigned char good[META_ROW_MAX], buf[META_ROW_MAX + 1];
	struct meta_row row;
	unsigned taken = 0;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		size_t len = meta_row_encode(&rows[i], good);

		for (size_t cut = 0; cut < len; cut++)
			cr_assert_neq(meta_row_decode(&row, good, cut), 0);
		memcpy(buf, good, len);
		buf[len] = 0;
		cr_assert_neq(meta_row_decode(&row, buf, len + 1), 0);
		buf[0] = 4;
		cr_assert_eq(meta_row_decode(&row, buf, len), -EPROTO);
		cr_assert_eq(meta_row_decode(&row, buf, 1), -EPROTO);
		/* Each byte, each value: refused, or it is what would be written. */
		for (size_t at = 1; at < len; at++) {
			for (unsigned v = 0; v < 256; v++) {
				unsigned char again[META_ROW_MAX];

				memcpy(buf, good, len);
				buf[at] = (unsigned char)v;
				if (meta_row_decode(&row, buf, len) != 0)
					continue;
				taken++;
				cr_assert_eq(meta_row_encode(&row, again), len);
				cr_assert_arr_eq(again, buf, len);
			}
		}
	}
	cr_assert_gt(taken, 1000);
	cr_assert_neq(meta_row_decode(&row, good, 0), 0);
}
