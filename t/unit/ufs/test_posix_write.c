/* SPDX-License-Identifier: BSD-2-Clause */
/* file://: files made, uploaded and copied. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "posix_fix.h"
#include "ufs/posix_temp.h"

TestSuite(posix_write, .init = pw_up, .fini = pw_down);

/* --- put */

Test(posix_write, put_makes_and_replaces)
{
	struct ufs_attr a, b;
	struct stat st;

	(void)umask(077); /* of the daemon: of no importance */
	cr_assert_eq(pw_put("a", "one", &a), 0);
	pw_holds("a", "one", 3);
	pw_same_as_stat("a", &a);
	cr_assert_eq(a.mode, 0644);
	cr_assert_eq(chmod(pw_in_dir("a"), 04751), 0);
	if (geteuid() == 0)
		cr_assert_eq(chown(pw_in_dir("a"), 7, 8), 0);
	cr_assert_eq(chmod(pw_in_dir("a"), 04751), 0);
	cr_assert_eq(pw_put("a", "three", &b), 0);
	pw_holds("a", "three", 5);
	pw_same_as_stat("a", &b);
	cr_assert_str_neq(a.version, b.version);
	cr_assert_eq(stat(pw_in_dir("a"), &st), 0);
	cr_assert_eq(st.st_mode & 07777, 04751, "%o", st.st_mode);
	if (geteuid() == 0)
		cr_assert(st.st_uid == 7 && st.st_gid == 8);
	cr_assert_eq(pw_put("a", "", &b), 0);
	pw_holds("a", "", 0);
	cr_assert_eq(pw_put("none/a", "x", NULL), -ENOENT);
	cr_assert_eq(pw_put("a/b", "x", NULL), -ENOTDIR);
	pw_sh("mkdir d && ln -s /etc out && ln -s a in && mkfifo p", "");
	cr_assert_eq(pw_put("d", "x", NULL), -EISDIR);
	/* Hidden things are neither followed nor replaced. */
	cr_assert(pw_put("out/x", "x", NULL) == -ENOENT || pw.err == -ENOTDIR);
	cr_assert_eq(pw_put("in", "x", NULL), -EEXIST);
	cr_assert_eq(pw_put("p", "x", NULL), -EEXIST);
	pw_sh("test -L in && test -p p && test ! -s a", "");
	cr_assert_eq(pw_temps(""), 0);
}

Test(posix_write, put_of_many_steps)
{
	size_t len = 3 * POSIX_CHUNK + 17;
	char *body = pw_bytes(len, 1);
	struct ufs_attr a;

	cr_assert_eq(pw_put_as("big", body, len, false, NULL, NULL, &a), 0);
	pw_holds("big", body, len);
	pw_same_as_stat("big", &a);
	free(body);
}

Test(posix_write, put_sets_attributes)
{
	struct ufs_set set = { .what = UFS_SET_MODE | UFS_SET_MTIME | UFS_SET_ATIME,
		.mode = 0604,
		.atime = { 1000000, 7 },
		.mtime = { 2000000, 8 } };
	struct ufs_attr a;
	struct stat st;

	if (geteuid() == 0) {
		set.what |= UFS_SET_UID | UFS_SET_GID;
		set.uid = 11;
		set.gid = 12;
	}
	for (unsigned i = 0; i < 2; i++) { /* new, and replaced */
		cr_assert_eq(pw_put_as("a", "abc", 3, false, NULL, &set, &a), 0);
		pw_same_as_stat("a", &a);
		cr_assert_eq(stat(pw_in_dir("a"), &st), 0);
		cr_assert_eq(st.st_mode & 07777, 0604);
		cr_assert(st.st_mtim.tv_sec == 2000000 && st.st_mtim.tv_nsec == 8);
		cr_assert(st.st_atim.tv_sec == 1000000 && st.st_atim.tv_nsec == 7);
		if (geteuid() == 0)
			cr_assert(st.st_uid == 11 && st.st_gid == 12);
	}
}

/* As chown(2): who becomes the owner does not get set-id bits that were another's. */
Test(posix_write, set_id_bits_stay_with_their_owner)
{
	struct ufs_set set = { .what = UFS_SET_UID, .uid = 11 };
	struct ufs_attr a;

	if (geteuid() != 0)
		cr_skip_test("only root gives files away");
	pw_sh("printf 1 > a && chmod 6755 a", "");
	cr_assert_eq(pw_put_as("a", "abc", 3, false, NULL, &set, &a), 0);
	cr_assert(a.uid == 11 && a.mode == 0755, "%o", a.mode);
	pw_same_as_stat("a", &a);
}

Test(posix_write, put_on_conditions)
{
	struct ufs_attr a, b;

	cr_assert_eq(ufs_can(pw.ufs), UFS_CAN_RENAME | UFS_CAN_SETATTR | UFS_CAN_ABSENT);
	cr_assert_eq(pw_put_as("a", "1", 1, true, NULL, NULL, &a), 0);
	cr_assert_eq(pw_put_as("a", "2", 1, true, NULL, NULL, NULL), -EEXIST);
	pw_holds("a", "1", 1);
	cr_assert_eq(pw_put_as("a", "3", 1, false, a.version, NULL, &b), 0);
	pw_holds("a", "3", 1);
	cr_assert_eq(pw_put_as("a", "4", 1, false, a.version, NULL, NULL), -ESTALE);
	cr_assert_eq(pw_put_as("b", "4", 1, false, a.version, NULL, NULL), -ESTALE);
	pw_holds("a", "3", 1);
	pw_sh("test ! -e b && mkdir d", "");
	cr_assert_eq(pw_put_as("d", "4", 1, true, NULL, NULL, NULL), -EEXIST);
	cr_assert_eq(pw_temps(""), 0);
}

static int put_file(const char *body, bool absent, const char *version, uint64_t file, bool again)
{
	const struct ufs_set set = { .what = UFS_SET_MTIME, .mtime = { .tv_sec = 1000000 } };
	struct ufs_put rq = { .req = { .user = &pw },
		.path = "k",
		.body = body,
		.len = strlen(body),
		.absent = absent,
		.if_version = version,
		.file = file,
		.again = again,
		.set = &set };

	ufs_put(pw.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&pw);
	return pw.err;
}

static bool is_mine(uint64_t file)
{
	struct ufs_stat rq = { .req = { .user = &pw }, .path = "k", .file = file };

	ufs_stat(pw.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&pw);
	cr_assert_eq(pw.err, 0);
	return rq.mine;
}

/* What an earlier put of the same file has made is replaced, if it is asked for. */
Test(posix_write, made_by_an_earlier_put)
{
	ufs_set_mount_id(pw.ufs, 0);
	cr_assert_eq(put_file("one", true, NULL, 7, true), 0);
	cr_assert_eq(put_file("two", true, NULL, 7, true), -EEXIST, "it has no number");
	pw_sh("rm k", "");
	ufs_set_mount_id(pw.ufs, 5);
	cr_assert_eq(put_file("one", true, NULL, 7, false), 0);
	cr_assert(is_mine(7) && !is_mine(8) && !is_mine(0));
	cr_assert_eq(put_file("two", true, NULL, 7, false), -EEXIST);
	cr_assert_eq(put_file("two", true, NULL, 8, true), -EEXIST);
	cr_assert_eq(put_file("two", true, NULL, 0, true), -EEXIST);
	cr_assert_eq(put_file("three", true, NULL, 7, true), 0);
	pw_holds("k", "three", 5);
	cr_assert_eq(put_file("four", false, "1-2-3.4-5.6", 7, false), -ESTALE);
	cr_assert_eq(put_file("four", false, "1-2-3.4-5.6", 8, true), -ESTALE);
	cr_assert_eq(put_file("four", false, "1-2-3.4-5.6", 7, true), 0);
	pw_holds("k", "four", 4);
	/* Written to by somebody else, in place: it is his. */
	pw_sh("printf x >>k", "");
	cr_assert(!is_mine(7));
	cr_assert_eq(put_file("five", true, NULL, 7, true), -EEXIST);
	pw_holds("k", "fourx", 5);
	ufs_set_mount_id(pw.ufs, 6);
	pw_sh("rm k", "");
	cr_assert_eq(put_file("six", false, "1-2-3.4-5.6", 7, true), -ESTALE);
	cr_assert_eq(pw_temps(""), 0);
}

/* Only one of many makers of a name wins, also among processes. */
Test(posix_write, absent_holds_between_clients)
{
	struct ufs_put rq[8] = { 0 };
	unsigned won = 0;

	for (unsigned i = 0; i < 8; i++) {
		rq[i] = (struct ufs_put){ .path = i < 4 ? "race" : "race2",
			.req = { .user = &pw },
			.body = "x",
			.len = 1,
			.absent = true };
	}
	for (unsigned i = 0; i < 8; i++)
		ufs_put(pw.ufs, &rq[i], ufs_fix_done);
	for (unsigned i = 0; i < 8; i++) {
		ufs_fix_wait(&pw);
		cr_assert(pw.err == 0 || pw.err == -EEXIST);
		won += pw.err == 0;
	}
	cr_assert_eq(won, 2);
}

Test(posix_write, temporary_names_do_not_exist)
{
	const char *name = ".batonfs-0123456789abcdef.tmp";
	struct ufs_attr a;
	char id[UFS_UPLOAD_MAX];
	int errs[1] = { 5 };

	cr_assert_eq(pw_begin("f", id), 0);
	pw_sh("touch .batonfs-0123456789abcdef.tmp .batonfs-x.tmp .batonfs-0123456789abcdeF.tmp", "");
	cr_assert_eq(pw_listed(""), 2, "others may have names that are nearly so");
	cr_assert_eq(ufs_fix_counter(&pw, CTR_UFS_HIDDEN), 2);
	cr_assert_eq(ufs_fix_stat(&pw, name, &a), -ENOENT);
	cr_assert_eq(ufs_fix_stat(&pw, ".batonfs-x.tmp", &a), 0);
	cr_assert_eq(pw_put(name, "x", &a), -EINVAL);
	cr_assert_eq(pw_mkdir_as(name, NULL, &a), -EINVAL);
	cr_assert_eq(pw_rename_to(".batonfs-x.tmp", name, false, &a), -EINVAL);
	cr_assert_eq(pw_rename_to(name, "y", false, &a), -ENOENT);
	pw_delete(&name, 1, errs);
	cr_assert_eq(errs[0], 0);
	pw_sh("test -e .batonfs-0123456789abcdef.tmp", "");
}

/* --- uploads */

Test(posix_write, upload_in_any_order)
{
	size_t unit = 2 * POSIX_CHUNK + 5;
	char *one = pw_bytes(unit, 1), *two = pw_bytes(unit, 2), *tail = pw_bytes(100, 3);
	char *all = malloc(2 * unit + 100);
	struct ufs_part_id ids[3], late;
	char id[UFS_UPLOAD_MAX];
	struct ufs_attr a, b;

	pw_sh("mkdir d && printf old > d/f && chmod 600 d/f", "");
	cr_assert_eq(pw_begin("d/f", id), 0);
	cr_assert_eq(pw_part("d/f", id, &ids[2], 3, 2 * unit, tail, 100), 0);
	cr_assert_eq(pw_part("d/f", id, &ids[1], 2, unit, one, unit), 0);
	cr_assert_eq(pw_part("d/f", id, &ids[0], 1, 0, one, unit), 0);
	cr_assert_eq(pw_part("d/f", id, &ids[1], 2, unit, two, unit), 0, "sent again");
	cr_assert_neq(ids[1].etag[0], '\0');
	pw_holds("d/f", "old", 3);
	cr_assert_eq(pw_listed("d"), 1);
	cr_assert_eq(pw_end("d/f", id, ids, 3, false, NULL, &a), 0);
	memcpy(all, one, unit);
	memcpy(all + unit, two, unit);
	memcpy(all + 2 * unit, tail, 100);
	pw_holds("d/f", all, 2 * unit + 100);
	pw_same_as_stat("d/f", &a);
	cr_assert_eq(a.mode, 0600);
	/* Asked for again, as after a crash: it has happened. */
	cr_assert_eq(pw_end("d/f", id, ids, 3, false, NULL, &b), 0);
	cr_assert(pw_same_attr(&a, &b));
	cr_assert_eq(pw_part("d/f", id, &late, 1, 0, one, unit), -ENOENT);
	cr_assert_eq(pw_drop("d/f", id), 0);
	pw_holds("d/f", all, 2 * unit + 100);
	pw_sh("rm d/f && printf other > d/f", "");
	cr_assert_eq(pw_end("d/f", id, ids, 3, false, NULL, &b), -ENOENT);
	cr_assert_eq(pw_temps("d"), 0);
	free(one);
	free(two);
	free(tail);
	free(all);
}

Test(posix_write, upload_ends_only_whole)
{
	struct ufs_part_id ids[2];
	char id[UFS_UPLOAD_MAX];
	struct ufs_attr a;

	cr_assert_eq(pw_begin("f", id), 0);
	cr_assert_eq(pw_part("f", id, &ids[0], 1, 0, "abc", 3), 0);
	ids[1] = ids[0];
	ids[1].number = 2;
	cr_assert_eq(pw_end("f", id, ids, 2, false, NULL, NULL), -EINVAL);
	cr_assert_eq(ufs_fix_stat(&pw, "f", &a), -ENOENT);
	/* A part that is not wanted any more is left out. */
	cr_assert_eq(pw_part("f", id, &ids[1], 2, 3, "def", 3), 0);
	cr_assert_eq(pw_end("f", id, ids, 1, false, NULL, &a), 0);
	pw_holds("f", "abc", 3);
	cr_assert_eq(pw_begin("f", id), 0);
	cr_assert_eq(pw_part("f", id, &ids[0], 1, 0, "xyz", 3), 0);
	cr_assert_eq(pw_end("f", id, ids, 1, true, NULL, NULL), -EEXIST);
	cr_assert_eq(pw_end("f", id, ids, 1, false, "another", NULL), -ESTALE);
	pw_holds("f", "abc", 3);
	cr_assert_eq(pw_temps(""), 1, "it can be ended otherwise");
	cr_assert_eq(pw_end("f", id, ids, 1, false, a.version, NULL), 0);
	pw_holds("f", "xyz", 3);
	cr_assert_eq(pw_begin("f", id), 0);
	cr_assert_eq(pw_part("f", id, &ids[0], 1, 0, NULL, 0), 0);
	cr_assert_eq(pw_end("f", id, ids, 1, false, NULL, NULL), 0);
	pw_holds("f", "", 0);
	cr_assert_eq(pw_begin("f", id), 0);
	cr_assert_eq(pw_drop("f", id), 0);
	cr_assert_eq(pw_drop("f", id), 0);
	cr_assert_eq(pw_temps(""), 0);
}

/* A daemon was killed between the link and the rename; then the file went, or moved. */
Test(posix_write, what_a_put_left_goes_with_its_target)
{
	static const char *const paths[] = { "f" };
	struct ufs_attr a;
	char tmp[POSIX_TMP_MAX];
	int errs[1];

	posix_temp_text(tmp, hash64("f", 1, 0));
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(pw_put("f", "one", &a), 0);
		pw_sh("ln f ", tmp);
		cr_assert_eq(pw_temps(""), 1);
		if (i == 0)
			pw_delete(paths, 1, errs);
		else if (i == 1)
			cr_assert_eq(pw_rename_to("f", "g", false, &a), 0);
		else
			cr_assert_eq(pw_put("f", "two", &a), 0);
		cr_assert_eq(pw_temps(""), 0, "%u", i);
	}
}

/* A beginning that is done again, or looked for, by its token. */
Test(posix_write, beginnings_are_found_by_their_token)
{
	struct ufs_multi_begin rq = { .path = "d/f", .token = 0x1234 }, other = { .path = "d/f" };
	struct ufs_multi_sweep sw = { .path = "d/f", .token = 0x1234 };
	const char *keep[1];

	cr_assert_eq(pw_mkdir_as("d", NULL, &(struct ufs_attr){ .size = 0 }), 0);
	cr_assert_eq(UFS_FIX_RUN(&pw, multi_begin, &other), 0);
	cr_assert_eq(UFS_FIX_RUN(&pw, multi_begin, &rq), 0);
	cr_assert_eq(strncmp(rq.id, ".batonfs-0000000000001234.tmp:", 30), 0, "%s", rq.id);
	cr_assert_eq(UFS_FIX_RUN(&pw, multi_begin, &rq), 0);
	cr_assert_eq(pw_temps("d"), 2);
	keep[0] = rq.id;
	sw.keep = keep;
	sw.nkeep = 1;
	cr_assert_eq(UFS_FIX_RUN(&pw, multi_sweep, &sw), 0);
	cr_assert_eq(sw.found, 0);
	cr_assert_eq(pw_temps("d"), 2);
	keep[0] = other.id;
	cr_assert_eq(UFS_FIX_RUN(&pw, multi_sweep, &sw), 0);
	cr_assert_eq(sw.found, 1);
	cr_assert_eq(pw_temps("d"), 1);
	for (unsigned i = 0; i < 3; i++) {
		sw.path = i == 0 ? "d/f" : i == 1 ? "none/f" : "d/f/g";
		cr_assert_eq(UFS_FIX_RUN(&pw, multi_sweep, &sw), 0);
		cr_assert_eq(sw.found, 0);
	}
	sw = (struct ufs_multi_sweep){ .path = "d/f" };
	cr_assert_eq(UFS_FIX_RUN(&pw, multi_sweep, &sw), 0);
	cr_assert_eq(pw_drop("d/f", other.id), 0);
	cr_assert_eq(pw_temps("d"), 0);
}

Test(posix_write, ids_of_others)
{
	static const char *const bad[] = { "x", "../f", ".batonfs-0123456789abcdef.tmp",
		".batonfs-0123456789abcdef.tmp:", ".batonfs-0123456789abcdef.tmp:1-2",
		".batonfs-0123456789abcdef.tmp:1-2-3x", "d/.batonfs-0123456789abcdef.tmp:1-2-3",
		".batonfs-../../../../../t.tmp:1-2-3", ".batonfs-0123456789abcdef.tmp:1-2-3-4",
		".batonfs-0123456789abcdef.tmp:1-2-3" };
	struct ufs_part_id pi = { .number = 1, .len = 3, .etag = "x" };
	char id[UFS_UPLOAD_MAX];

	pw_sh("touch .batonfs-0123456789abcdef.tmp && mkdir d && ln -s ../f d/l && printf 123 > f", "");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_assert_eq(pw_part("f", bad[i], &pi, 1, 0, "abc", 3), -ENOENT, "%s", bad[i]);
		strcpy(pi.etag, "x");
		cr_assert_eq(pw_end("f", bad[i], &pi, 1, false, NULL, NULL), -ENOENT, "%s", bad[i]);
		cr_assert_eq(pw_drop("f", bad[i]), 0, "%s", bad[i]);
	}
	/* A link in the place of the file is not followed. */
	cr_assert_eq(pw_begin("f", id), 0);
	pw_sh("rm .batonfs-0123456789abcdef.tmp; t=$(ls -A | grep batonfs); rm $t; ln -s f $t", "");
	cr_assert_eq(pw_part("f", id, &pi, 1, 0, "abc", 3), -ENOENT);
	pw_holds("f", "123", 3);
}

Test(posix_write, parts_copied_in_storage)
{
	size_t unit = 3 * POSIX_CHUNK + 7;
	char *one = pw_bytes(2 * unit, 1);
	struct ufs_part_id ids[2];
	char id[UFS_UPLOAD_MAX];
	struct ufs_attr a, b;

	cr_assert_eq(pw_put_as("f", one, 2 * unit, false, NULL, NULL, &a), 0);
	cr_assert_eq(pw_begin("f", id), 0);
	cr_assert_eq(pw_part_of("f", id, &ids[0], 1, 0, unit, "f", a.version, unit), 0);
	cr_assert_eq(pw_part_of("f", id, &ids[1], 2, unit, unit, "f", "other", 0), -ESTALE);
	cr_assert_eq(pw_part_of("f", id, &ids[1], 2, unit, unit, "none", a.version, 0), -ESTALE);
	cr_assert_eq(pw_part_of("f", id, &ids[1], 2, unit, unit, "f", a.version, 2 * unit - 1), -ESTALE);
	cr_assert_eq(pw_part_of("f", id, &ids[1], 2, unit, unit, "f", a.version, 0), 0);
	cr_assert_eq(pw_end("f", id, ids, 2, false, a.version, &b), 0);
	cr_assert_eq(b.size, 2 * unit);
	cr_assert_eq(ufs_fix_read(&pw, "f", b.version, 0, 2 * unit), 0);
	cr_assert_eq(memcmp(pw.data, one + unit, unit), 0);
	cr_assert_eq(memcmp(pw.data + unit, one, unit), 0);
	free(one);
}

/* --- copy */

Test(posix_write, copy_keeps_attributes)
{
	size_t len = 2 * POSIX_CHUNK + 9;
	char *body = pw_bytes(len, 1);
	struct ufs_attr a, b, c;

	cr_assert_eq(pw_put_as("a", body, len, false, NULL, NULL, &a), 0);
	pw_sh("chmod 751 a && touch -d @12345 a && mkdir d && echo x > d/b", "");
	cr_assert_eq(pw_copy("a", &a, "d/b", NULL), -ESTALE);
	cr_assert_eq(ufs_fix_stat(&pw, "a", &a), 0);
	cr_assert_eq(pw_copy("a", &a, "d/b", &b), 0);
	pw_holds("d/b", body, len);
	pw_same_as_stat("d/b", &b);
	cr_assert(b.mode == 0751 && b.mtime.tv_sec == 12345);
	cr_assert_eq(pw_copy("none", &a, "d/b", NULL), -ESTALE);
	cr_assert_eq(pw_copy("a", &a, "none/b", NULL), -ENOENT);
	cr_assert_eq(pw_put("e", "", &c), 0);
	cr_assert_eq(pw_copy("e", &c, "d/b", &b), 0);
	pw_holds("d/b", "", 0);
	cr_assert_eq(pw_temps("d"), 0);
	free(body);
}

Test(posix_write, copy_leaves_holes)
{
	struct ufs_attr a, b;
	struct stat st;

	pw_sh("truncate -s 1G a && printf end >> a && printf mid | dd of=a bs=1 seek=500000000 "
	   "conv=notrunc status=none && truncate -s 1200000000 a",
	    "");
	cr_assert_eq(ufs_fix_stat(&pw, "a", &a), 0);
	cr_assert_eq(pw_copy("a", &a, "b", &b), 0);
	cr_assert_eq(b.size, 1200000000);
	pw_sh("cmp a b", "");
	cr_assert_eq(stat(pw_in_dir("b"), &st), 0);
	cr_assert_lt(st.st_blocks, 20000);
}
