/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "takeover/records.h"

static struct rec_out out;
static struct rec_in in;

static void hello(void)
{
	rec_begin(&out, MSG_HELLO);
	rec_put_u64(&out, REC_CAPS, 7);
	rec_put_text(&out, REC_BUILD, "1.2.3");
	rec_put(&out, REC_INIT_REQUEST, "abcdefghi", 9);
}

Test(records, round_trip)
{
	char text[8], raw[16];
	uint64_t v;
	uint32_t len;

	hello();
	cr_assert_eq(rec_len(&out) % 8, 0);
	cr_assert_eq(rec_parse(&in, out.buf, rec_len(&out)), 0);
	cr_assert_eq(in.type, MSG_HELLO);
	cr_assert_eq(rec_get_u64(&in, REC_CAPS, &v), 0);
	cr_assert_eq(v, 7);
	cr_assert_eq(rec_get_text(&in, REC_BUILD, text, sizeof(text)), 0);
	cr_assert_str_eq(text, "1.2.3");
	cr_assert_eq(rec_get_raw(&in, REC_INIT_REQUEST, raw, sizeof(raw), &len), 0);
	cr_assert_eq(len, 9);
	cr_assert_arr_eq(raw, "abcdefghi", 9);
	cr_assert_eq(rec_get_raw(&in, REC_INIT_REQUEST, raw, 8, &len), -EMSGSIZE);
	cr_assert_eq(rec_get_u64(&in, REC_EPOCH, &v), -ENOENT);
	cr_assert_eq(rec_get_u64(&in, REC_BUILD, &v), -EBADMSG);
}

Test(records, text_is_cut_and_cleaned)
{
	char text[4];

	rec_begin(&out, MSG_REFUSE);
	rec_put_text(&out, REC_WORDS, "a\nbcdef");
	cr_assert_eq(rec_parse(&in, out.buf, rec_len(&out)), 0);
	cr_assert_eq(rec_get_text(&in, REC_WORDS, text, sizeof(text)), 0);
	cr_assert_str_eq(text, "a?b");
	cr_assert_eq(rec_get_text(&in, REC_BUILD, text, sizeof(text)), -ENOENT);
	cr_assert_str_eq(text, "");
}

/* Only what ends exactly where a record ends is a message. */
Test(records, truncated_anywhere)
{
	size_t full, n, good = 0;

	hello();
	full = rec_len(&out);
	for (n = 0; n < full; n++) {
		/* In memory of exactly that size, for the sanitizers. */
		unsigned char *copy = malloc(n > 0 ? n : 1);

		memcpy(copy, out.buf, n);
		if (rec_parse(&in, copy, n) == 0)
			good++;
		free(copy);
	}
	cr_assert_eq(good, 3, "%zu", good); /* head alone, one record, two records */
}

Test(records, oversized)
{
	static unsigned char big[REC_MSG_MAX + 8];
	uint32_t len = UINT32_MAX - 3;

	hello();
	memcpy(big, out.buf, rec_len(&out));
	cr_assert_eq(rec_parse(&in, big, sizeof(big)), -EBADMSG);
	/* A record that says it is longer than what is there. */
	memcpy(out.buf + 8 + 4, &len, sizeof(len));
	cr_assert_eq(rec_parse(&in, out.buf, rec_len(&out)), -EBADMSG);
	rec_begin(&out, MSG_HELLO);
	rec_put(&out, REC_WORDS, big, REC_MSG_MAX - 16);
	cr_assert_neq(rec_len(&out), 0);
	rec_put_u64(&out, REC_CAPS, 1);
	cr_assert_eq(rec_len(&out), 0);
}

Test(records, unknown)
{
	uint64_t v;

	hello();
	rec_put(&out, (enum rec_tag)999, "later", 5);
	rec_put_u64(&out, REC_EPOCH, 3);
	cr_assert_eq(rec_parse(&in, out.buf, rec_len(&out)), 0);
	cr_assert_eq(rec_get_u64(&in, REC_EPOCH, &v), 0);
	cr_assert_eq(v, 3);
	rec_put_critical(&out, 998, "must", 4);
	cr_assert_eq(rec_parse(&in, out.buf, rec_len(&out)), -EPROTO);
	hello();
	out.buf[4]++; /* the version of the framing */
	cr_assert_eq(rec_parse(&in, out.buf, rec_len(&out)), -EPROTO);
	hello();
	out.buf[0]++; /* the magic */
	cr_assert_eq(rec_parse(&in, out.buf, rec_len(&out)), -EBADMSG);
}

Test(records, repeated)
{
	hello();
	rec_put_u64(&out, REC_CAPS, 8);
	cr_assert_eq(rec_parse(&in, out.buf, rec_len(&out)), -EBADMSG);
}

static void open_three(int fds[3])
{
	int i;

	for (i = 0; i < 3; i++)
		cr_assert_geq(fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

Test(records, descriptors_by_kind)
{
	unsigned char kinds[] = {REC_FD_EPOCH, REC_FD_FUSE, 200};
	int fds[3], got[REC_FD_KINDS];

	open_three(fds);
	rec_begin(&out, MSG_STATE);
	rec_put(&out, REC_FDS, kinds, 3);
	cr_assert_eq(rec_parse(&in, out.buf, rec_len(&out)), 0);
	cr_assert_eq(rec_sort_fds(&in, fds, 3, got), 0);
	cr_assert_eq(got[REC_FD_EPOCH], fds[0]);
	cr_assert_eq(got[REC_FD_FUSE], fds[1]);
	cr_assert_eq(got[REC_FD_LOCK], -1);
	cr_assert_not(is_open(fds[2]), "an unknown kind stays open");
	rec_close_fds(got);
	cr_assert_not(is_open(fds[0]));
}

Test(records, descriptors_that_do_not_add_up)
{
	unsigned char kinds[] = {REC_FD_EPOCH, REC_FD_EPOCH, REC_FD_FUSE};
	int fds[3], got[REC_FD_KINDS], i;

	open_three(fds);
	rec_begin(&out, MSG_STATE);
	rec_put(&out, REC_FDS, kinds, 2);
	cr_assert_eq(rec_parse(&in, out.buf, rec_len(&out)), 0);
	cr_assert_eq(rec_sort_fds(&in, fds, 3, got), -EBADMSG);
	for (i = 0; i < 3; i++)
		cr_assert_not(is_open(fds[i]));
	for (i = 0; i < REC_FD_KINDS; i++)
		cr_assert_eq(got[i], -1);

	open_three(fds);
	rec_begin(&out, MSG_STATE);
	rec_put(&out, REC_FDS, kinds, 3);
	cr_assert_eq(rec_parse(&in, out.buf, rec_len(&out)), 0);
	cr_assert_eq(rec_sort_fds(&in, fds, 3, got), 0);
	cr_assert_eq(got[REC_FD_EPOCH], fds[0]);
	cr_assert_not(is_open(fds[1]), "a repeated kind stays open");
	rec_close_fds(got);
}

/* Damage of any byte: a verdict, never a read outside (the sanitizers watch). */
Test(records, any_byte_damaged)
{
	size_t n, i;
	unsigned bit;
	unsigned char *copy;
	char text[32];

	hello();
	n = rec_len(&out);
	copy = malloc(n);
	for (i = 0; i < n; i++)
		for (bit = 0; bit < 8; bit++) {
			memcpy(copy, out.buf, n);
			copy[i] ^= (unsigned char)(1u << bit);
			if (rec_parse(&in, copy, n) == 0)
				rec_get_text(&in, REC_BUILD, text, sizeof(text));
		}
	free(copy);
}
