/* SPDX-License-Identifier: BSD-2-Clause */
/* Writing to a real S3 server: see test_rgw.c. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "rgw_fix.h"
#include "ufs/s3_priv.h"

#define MIB_ (UINT64_C(1) << 20)

static struct ufs_fix f;

static void up(void)
{
	rgw_fix_up(&f);
}

static void down(void)
{
	rgw_fix_down(&f);
}

TestSuite(rgw_write, .init = up, .fini = down);

/* Bytes that differ from place to place. */
static char *pattern(size_t len, unsigned seed)
{
	char *p = malloc(len + 1);

	cr_assert_not_null(p);
	for (size_t i = 0; i < len; i++)
		p[i] = (char)((i * 2654435761u + seed * 40503u) >> 13);
	return p;
}

static int put(const char *path, const void *body, size_t len, struct ufs_attr *attr)
{
	struct ufs_put rq = { .path = path, .body = body, .len = len };
	int err = UFS_FIX_RUN(&f, put, &rq);

	*attr = rq.attr;
	return err;
}

static void must_hold(const char *path, const void *body, size_t len, const char *version)
{
	struct ufs_attr a;

	cr_assert_eq(ufs_fix_stat(&f, path, &a), 0, "%s", path);
	cr_assert(a.kind == UFS_FILE && a.size == len, "%s: %zu", path, (size_t)a.size);
	cr_assert_str_eq(a.version, version);
	cr_assert_eq(ufs_fix_read(&f, path, version, 0, len), 0);
	cr_assert(f.data_len == len && memcmp(f.data, body, len) == 0, "%s", path);
}

Test(rgw_write, put_and_overwrite)
{
	static const char *const names[] = { " ", "a b", "a%20b", "a+b", "a&b=c", "<a>\"'", "a\nb",
		"~[a]*", "\xc3\xa9", "\xf0\x9f\x90\xa7", "\x7f" };
	struct ufs_attr a;
	char *big;

	if (!rgw_fix_wanted())
		return;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		cr_assert_eq(put(names[i], names[i], strlen(names[i]), &a), 0);
		cr_assert(a.kind == UFS_FILE && a.size == strlen(names[i]) && !a.have_mode);
		must_hold(names[i], names[i], strlen(names[i]), a.version);
	}
	cr_assert_eq(put("d/e/f", NULL, 0, &a), 0);
	must_hold("d/e/f", "", 0, a.version);
	big = pattern(20 * MIB_, 1);
	cr_assert_eq(put("d/e/f", big, 20 * MIB_, &a), 0);
	must_hold("d/e/f", big, 20 * MIB_, a.version);
	free(big);
}

Test(rgw_write, conditions)
{
	struct ufs_put rq = { .path = "k", .body = "one", .len = 3, .absent = true };
	char v1[UFS_VERSION_MAX];
	struct ufs_attr a;

	if (!rgw_fix_wanted())
		return;
	cr_assert_eq(ufs_can(f.ufs), UFS_CAN_ABSENT);
	cr_assert_eq(UFS_FIX_RUN(&f, put, &rq), 0);
	strcpy(v1, rq.attr.version);
	must_hold("k", "one", 3, v1);
	cr_assert_eq(UFS_FIX_RUN(&f, put, &rq), -EEXIST);
	rq = (struct ufs_put){ .path = "k", .body = "two", .len = 3, .if_version = v1 };
	cr_assert_eq(UFS_FIX_RUN(&f, put, &rq), 0);
	must_hold("k", "two", 3, rq.attr.version);
	a = rq.attr;
	rq.body = "thr";
	cr_assert_eq(UFS_FIX_RUN(&f, put, &rq), -ESTALE);
	must_hold("k", "two", 3, a.version);
	rq.path = "nothing";
	cr_assert_eq(UFS_FIX_RUN(&f, put, &rq), -ESTALE);
	cr_assert_eq(ufs_fix_stat(&f, "nothing", &a), -ENOENT);
	cr_assert_eq(ufs_can(f.ufs), UFS_CAN_ABSENT);
}

struct racer {
	struct ufs_put rq;
	int err;
	bool done;
};

static void raced(struct ufs_req *r, int err)
{
	struct racer *x = r->user;

	x->err = err;
	x->done = true;
}

Test(rgw_write, one_of_many_creates)
{
	struct racer x[8];
	unsigned won = 0, left = 8;
	char path[32];

	if (!rgw_fix_wanted())
		return;
	for (unsigned round = 0; round < 10; round++) {
		memset(x, 0, sizeof(x));
		won = 0;
		left = 8;
		(void)snprintf(path, sizeof(path), "r%u", round);
		for (unsigned i = 0; i < 8; i++) {
			x[i].rq = (struct ufs_put){ .req.user = &x[i], .path = path, .absent = true };
			ufs_put(f.ufs, &x[i].rq, raced);
		}
		while (left > 0) {
			(void)loop_turn(f.loop, true);
			left = 0;
			for (unsigned i = 0; i < 8; i++)
				left += !x[i].done;
		}
		for (unsigned i = 0; i < 8; i++) {
			cr_assert(x[i].err == 0 || x[i].err == -EEXIST, "%d", x[i].err);
			won += x[i].err == 0;
		}
		cr_assert_eq(won, 1, "%u", won);
	}
}

static int end(const char *path, const char *id, struct ufs_part_id *parts, unsigned n,
    struct ufs_attr *a)
{
	struct ufs_multi_end rq = { .path = path, .id = id, .parts = parts, .nparts = n };
	int err = UFS_FIX_RUN(&f, multi_end, &rq);

	*a = rq.attr;
	return err;
}

static void send_part(const char *path, const char *id, struct ufs_part_id *to, unsigned number,
    const void *body, size_t len)
{
	struct ufs_part rq = { .path = path, .id = id, .number = number, .body = body, .len = len };

	cr_assert_eq(UFS_FIX_RUN(&f, part, &rq), 0);
	to->number = number;
	to->len = len;
	strcpy(to->etag, rq.etag);
}

Test(rgw_write, multipart)
{
	size_t unit = 5 * MIB_;
	struct ufs_multi_begin begin = { .path = "m/big" };
	struct ufs_multi_abort drop = { .path = "m/big" };
	struct ufs_part_id parts[4];
	struct ufs_part rq;
	struct ufs_attr a, b, old;
	char *body;

	if (!rgw_fix_wanted())
		return;
	body = pattern(4 * unit, 2);
	cr_assert_eq(put("m/big", body, 3 * unit, &old), 0);
	cr_assert_eq(UFS_FIX_RUN(&f, multi_begin, &begin), 0);
	send_part("m/big", begin.id, &parts[1], 2, body, unit);
	send_part("m/big", begin.id, &parts[0], 1, body, unit);
	send_part("m/big", begin.id, &parts[1], 2, body + unit, unit); /* again */
	send_part("m/big", begin.id, &parts[3], 7, body + 3 * unit, 100);
	/* One part of what is there now. */
	rq = (struct ufs_part){ .path = "m/big", .id = begin.id, .number = 3, .len = unit,
		.src_path = "m/big", .src_version = old.version, .src_off = 2 * unit };
	cr_assert_eq(UFS_FIX_RUN(&f, part, &rq), 0);
	parts[2].number = 3;
	parts[2].len = unit;
	strcpy(parts[2].etag, rq.etag);
	/* Nothing of it is there yet. */
	must_hold("m/big", body, 3 * unit, old.version);
	cr_assert_eq(end("m/big", begin.id, parts, 4, &a), 0);
	must_hold("m/big", body, 3 * unit + 100, a.version);
	/* Once more, as by one who did not hear the answer. */
	cr_assert_eq(end("m/big", begin.id, parts, 4, &b), 0);
	cr_assert_str_eq(a.version, b.version);
	/* Then it is gone. */
	cr_assert_eq(put("m/big", "x", 1, &b), 0);
	cr_assert_eq(end("m/big", begin.id, parts, 4, &a), -ENOENT);
	must_hold("m/big", "x", 1, b.version);
	drop.id = begin.id;
	cr_assert_eq(UFS_FIX_RUN(&f, multi_abort, &drop), 0);
	free(body);
}

/* A storage that knows no sums may ignore them; one that does must find them right. */
Test(rgw_write, sums)
{
	size_t unit = 5 * MIB_;
	char *body;
	struct ufs_put rq = { .path = "sum/small", .len = 1000, .absent = true };
	struct ufs_multi_begin begin = { .path = "sum/big", .sums = true };
	struct ufs_part_id parts[2] = { { .number = 1 }, { .number = 2 } };
	struct ufs_attr a;

	if (!rgw_fix_wanted())
		return;
	body = pattern(2 * unit, 3);
	rq.body = body;
	rq.sum = (struct ufs_sum){ true, checksum_crc32c(body, 1000) };
	cr_assert_eq(UFS_FIX_RUN(&f, put, &rq), 0);
	must_hold("sum/small", body, 1000, rq.attr.version);
	cr_assert_eq(UFS_FIX_RUN(&f, multi_begin, &begin), 0);
	for (unsigned i = 0; i < 2; i++) {
		struct ufs_part p = { .path = "sum/big", .id = begin.id, .number = i + 1,
			.len = unit - i, .body = body + i * unit };

		p.sum = (struct ufs_sum){ begin.sums, checksum_crc32c(p.body, p.len) };
		cr_assert_eq(UFS_FIX_RUN(&f, part, &p), 0);
		parts[i].len = p.len;
		parts[i].sum = p.sum;
		strcpy(parts[i].etag, p.etag);
	}
	cr_assert_eq(end("sum/big", begin.id, parts, 2, &a), 0);
	must_hold("sum/big", body, 2 * unit - 1, a.version);
	free(body);
}

Test(rgw_write, parts_of_what_has_changed)
{
	struct ufs_multi_begin begin = { .path = "p" };
	struct ufs_multi_abort drop = { .path = "p" };
	struct ufs_part_id part;
	struct ufs_part rq;
	struct ufs_attr old, now;
	char *body;

	if (!rgw_fix_wanted())
		return;
	body = pattern(6 * MIB_, 3);
	cr_assert_eq(put("src", body, 6 * MIB_, &old), 0);
	cr_assert_eq(UFS_FIX_RUN(&f, multi_begin, &begin), 0);
	rq = (struct ufs_part){ .path = "p", .id = begin.id, .number = 1, .len = 5 * MIB_,
		.src_path = "src", .src_version = old.version };
	body[0]++;
	cr_assert_eq(put("src", body, 6 * MIB_, &now), 0);
	cr_assert_eq(UFS_FIX_RUN(&f, part, &rq), -ESTALE);
	rq.src_path = "none";
	cr_assert_eq(UFS_FIX_RUN(&f, part, &rq), -ESTALE);
	rq.src_path = "src";
	rq.src_version = now.version;
	rq.src_off = 2 * MIB_; /* beyond its end */
	cr_assert_neq(UFS_FIX_RUN(&f, part, &rq), 0);
	rq.src_off = 0;
	cr_assert_eq(UFS_FIX_RUN(&f, part, &rq), 0);
	drop.id = begin.id;
	cr_assert_eq(UFS_FIX_RUN(&f, multi_abort, &drop), 0);
	cr_assert_eq(UFS_FIX_RUN(&f, multi_abort, &drop), 0);
	cr_assert_eq(UFS_FIX_RUN(&f, part, &rq), -ENOENT);
	rq.src_path = NULL;
	rq.body = body;
	cr_assert_eq(UFS_FIX_RUN(&f, part, &rq), -ENOENT);
	part = (struct ufs_part_id){ .number = 1, .len = 5 * MIB_ };
	strcpy(part.etag, "5f363e0e58a95f06cbe9bbc662c5dfb6");
	cr_assert_eq(end("p", begin.id, &part, 1, &old), -ENOENT);
	cr_assert_eq(ufs_fix_stat(&f, "p", &old), -ENOENT);
	free(body);
}

Test(rgw_write, end_with_conditions)
{
	struct ufs_multi_begin begin = { .path = "c" };
	struct ufs_multi_end rq;
	struct ufs_part_id part;
	struct ufs_attr a;

	if (!rgw_fix_wanted())
		return;
	cr_assert_eq(UFS_FIX_RUN(&f, multi_begin, &begin), 0);
	send_part("c", begin.id, &part, 1, "abc", 3);
	rq = (struct ufs_multi_end){ .path = "c", .id = begin.id, .parts = &part, .nparts = 1 };
	rq.if_version = "none";
	cr_assert_eq(UFS_FIX_RUN(&f, multi_end, &rq), -ESTALE);
	cr_assert_eq(put("c", "old", 3, &a), 0);
	rq.if_version = NULL;
	rq.absent = true;
	cr_assert_eq(UFS_FIX_RUN(&f, multi_end, &rq), -EEXIST);
	must_hold("c", "old", 3, a.version);
	rq.absent = false;
	rq.if_version = a.version;
	cr_assert_eq(UFS_FIX_RUN(&f, multi_end, &rq), 0);
	must_hold("c", "abc", 3, rq.attr.version);
	/* The same end once more, although that version is gone by now. */
	cr_assert_eq(UFS_FIX_RUN(&f, multi_end, &rq), 0);
	rq.if_version = NULL;
	rq.absent = true;
	cr_assert_eq(UFS_FIX_RUN(&f, multi_end, &rq), 0);
}

Test(rgw_write, copy)
{
	struct ufs_copy rq = { .src = "from", .dst = "to", .size = 3 };
	struct ufs_attr a;

	if (!rgw_fix_wanted())
		return;
	rq.src_version = "none";
	cr_assert_eq(UFS_FIX_RUN(&f, copy, &rq), -ENOENT);
	cr_assert_eq(put("from", "abc", 3, &a), 0);
	rq.src_version = a.version;
	cr_assert_eq(UFS_FIX_RUN(&f, copy, &rq), 0);
	must_hold("to", "abc", 3, rq.attr.version);
	cr_assert_eq(put("from", "xyz", 3, &a), 0);
	cr_assert_eq(UFS_FIX_RUN(&f, copy, &rq), 0);
	must_hold("to", "xyz", 3, rq.attr.version);
	cr_assert_eq(put("from", "123", 3, &a), 0);
	strcpy(a.version, "5f363e0e58a95f06cbe9bbc662c5dfb6");
	cr_assert_eq(UFS_FIX_RUN(&f, copy, &rq), -ESTALE);
}

static int copy_begun(struct ufs_copy *rq)
{
	cr_assert_neq(*rq->id, '\0');
	return 0;
}

Test(rgw_write, copy_in_parts)
{
	struct ufs_copy rq = { .src = "from \xc3\xa9", .dst = "to", .size = 48 * MIB_ + 5,
		.begun = copy_begun };
	struct s3 *s3;
	struct ufs_attr a;
	char *body;

	if (!rgw_fix_wanted())
		return;
	s3 = S3_OF(f.ufs);
	body = pattern(rq.size, 4);
	cr_assert_eq(put(rq.src, body, rq.size, &a), 0);
	rq.src_version = a.version;
	s3->copy_max = 10 * MIB_;
	s3->copy_part = 5 * MIB_;
	cr_assert_eq(UFS_FIX_RUN(&f, copy, &rq), 0);
	must_hold("to", body, rq.size, rq.attr.version);
	rq.src_version = "none";
	cr_assert_eq(UFS_FIX_RUN(&f, copy, &rq), -ESTALE);
	/* Given up under way. */
	rq.src_version = a.version;
	rq.dst = "other";
	rq.req.user = &f;
	ufs_copy(f.ufs, &rq, ufs_fix_done);
	(void)loop_turn(f.loop, true);
	(void)loop_turn(f.loop, true);
	cr_assert_not(f.done);
	ufs_abort(&rq.req);
	cr_assert_eq(ufs_fix_stat(&f, "other", &a), -ENOENT);
	free(body);
}

Test(rgw_write, thousand_deletions)
{
	static const char *const odd[] = { " ", " a", "a ", "a\nb", "a\rb", "\x01", "a\x1f", "<a>",
		"a&amp;b", "a]]>b", "\"'", "\x7f", "\xc3\xa9", "\xef\xbf\xbe", "\xff\xfe", "\xc3",
		"%41", "a+b" };
	size_t nodd = sizeof(odd) / sizeof(odd[0]);
	static char names[UFS_DELETE_MAX][32];
	const char *paths[UFS_DELETE_MAX];
	int errs[UFS_DELETE_MAX];
	struct ufs_delete rq = { .paths = paths, .n = UFS_DELETE_MAX, .errs = errs };
	struct ufs_list list = { .path = "" };
	struct ufs_attr a;
	char cmd[512];

	if (!rgw_fix_wanted())
		return;
	(void)snprintf(cmd, sizeof(cmd),
	    "cd %s && mkdir -p up/top && cd up/top && seq -f 'f-%%.0f' 1 900 | xargs touch",
	    rgw_fix.dir);
	cr_assert_eq(system(cmd), 0);
	(void)snprintf(cmd, sizeof(cmd), "%s/up", rgw_fix.dir);
	rgw_fix_s3put("many", rgw_fix.bucket, cmd, NULL);
	for (size_t i = 0; i < UFS_DELETE_MAX; i++) {
		paths[i] = i < nodd ? odd[i] : names[i];
		(void)snprintf(names[i], sizeof(names[i]), "f-%zu", i - nodd + 1);
	}
	for (size_t i = 0; i < nodd; i++) {
		int err = put(odd[i], "x", 1, &a);

		/* Not every key can be made everywhere; all can be deleted. */
		cr_assert(err == 0 || err == -EINVAL, "%zu: %d", i, err);
	}
	cr_assert_eq(put("f-1000", "x", 1, &a), 0); /* not among them */
	cr_assert_eq(UFS_FIX_RUN(&f, delete, &rq), 0);
	for (size_t i = 0; i < UFS_DELETE_MAX; i++)
		cr_assert(errs[i] == 0, "%s: %d", paths[i], errs[i]);
	cr_assert_eq(ufs_fix_list(&f, &list), 0);
	cr_assert(list.count == 1 && !list.more && strcmp(list.entries[0].name, "f-1000") == 0,
	    "%zu", list.count);
	ufs_list_free(&list);
}

Test(rgw_write, markers)
{
	struct ufs_mkdir md = { .path = "d/e" };
	struct ufs_rmdir rd = { .path = "d/e" };
	struct ufs_attr a;

	if (!rgw_fix_wanted())
		return;
	cr_assert_eq(UFS_FIX_RUN(&f, mkdir, &md), 0);
	cr_assert(md.attr.kind == UFS_DIR && *md.attr.version == '\0');
	cr_assert_eq(UFS_FIX_RUN(&f, mkdir, &md), 0);
	cr_assert_eq(ufs_fix_stat(&f, "d/e", &a), 0);
	cr_assert_eq(a.kind, UFS_DIR);
	cr_assert_eq(UFS_FIX_RUN(&f, rmdir, &rd), 0);
	cr_assert_eq(UFS_FIX_RUN(&f, rmdir, &rd), 0);
	cr_assert_eq(ufs_fix_stat(&f, "d/e", &a), -ENOENT);
	cr_assert_eq(ufs_fix_stat(&f, "d", &a), -ENOENT);
}

Test(rgw_write, refusals)
{
	struct ufs_multi_begin begin = { .path = "x" };
	const char *const paths[] = { "a", "b" };
	int errs[2];
	struct ufs_delete del = { .paths = paths, .n = 2, .errs = errs };
	struct ufs_attr a;

	if (!rgw_fix_wanted())
		return;
	ufs_free(&f.ufs);
	ufs_fix_attach(&f, "s3://no-such-bucket-here");
	cr_assert_eq(put("x", "x", 1, &a), -EIO);
	cr_assert_eq(UFS_FIX_RUN(&f, multi_begin, &begin), -EIO);
	cr_assert_eq(UFS_FIX_RUN(&f, delete, &del), -EIO);
	ufs_free(&f.ufs);
	setenv("AWS_SECRET_ACCESS_KEY", "wrong", 1);
	ufs_fix_attach(&f, rgw_fix.uri);
	cr_assert_eq(put("x", "x", 1, &a), -EACCES);
	cr_assert_eq(UFS_FIX_RUN(&f, multi_begin, &begin), -EACCES);
	cr_assert_eq(UFS_FIX_RUN(&f, delete, &del), -EACCES);
}
