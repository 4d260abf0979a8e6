/* SPDX-License-Identifier: BSD-2-Clause */
/* Each verb, and reading what they did. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/obj.h"
#include "meta_rig.h"

static struct meta_rig g;

static void init(void)
{
	meta_rig_init(&g);
	meta_rig_open(&g);
}

static void fini(void)
{
	meta_rig_fini(&g);
	meta_rig_last();
}

TestSuite(meta, .init = init, .fini = fini);

static int one(struct meta_change ch)
{
	return meta_rig_txn(&g, &ch, 1);
}

/* The store's rows: what a deletion leaves of a directory goes a little later. */
static uint64_t rows(void)
{
	meta_rig_settle(&g);
	return meta_rig_status(&g).records;
}

Test(meta, a_record_comes_back_as_it_was)
{
	struct meta_change ch = { .verb = META_PUT,
		.path = "a/b/file",
		.rec = { .kind = META_FILE,
		    .has = META_HAS_MODE | META_HAS_UID | META_HAS_GID | META_HAS_MTIME |
			   META_HAS_ATIME,
		    .mode = 0640,
		    .uid = 1000,
		    .gid = UINT32_MAX,
		    .mtime = { .tv_sec = -5, .tv_nsec = 999999999 },
		    .atime = { .tv_sec = INT64_C(1) << 40, .tv_nsec = 1 },
		    .version = "d41d8cd98f00b204e9800998ecf8427e-12" } };
	struct meta_record rec;

	cr_assert_eq(one(ch), 0);
	cr_assert_eq(meta_rig_get(&g, "a/b/file", &rec), 0);
	cr_assert_eq(rec.kind, META_FILE);
	cr_assert_eq(rec.has, ch.rec.has);
	cr_assert_eq(rec.mode, 0640);
	cr_assert_eq(rec.uid, 1000);
	cr_assert_eq(rec.gid, UINT32_MAX);
	cr_assert_eq(rec.mtime.tv_sec, -5);
	cr_assert_eq(rec.mtime.tv_nsec, 999999999);
	cr_assert_eq(rec.atime.tv_sec, INT64_C(1) << 40);
	cr_assert_eq(rec.atime.tv_nsec, 1);
	cr_assert_str_eq(rec.version, ch.rec.version);
	/* What has does not name is not kept. */
	ch.rec.has = META_HAS_UID;
	cr_assert_eq(one(ch), 0);
	cr_assert_eq(meta_rig_get(&g, "a/b/file", &rec), 0);
	cr_assert_eq(rec.mode, 0);
	cr_assert_eq(rec.uid, 1000);
}

Test(meta, directories_on_the_way_say_nothing)
{
	cr_assert_eq(meta_rig_put(&g, "a/b/c/d", 0600), 0);
	cr_assert_eq(meta_rig_mode(&g, "a"), -ENOENT);
	cr_assert_eq(meta_rig_mode(&g, "a/b/c"), -ENOENT);
	cr_assert_eq(meta_rig_mode(&g, "a/b/c/d"), 0600);
	cr_assert_eq(meta_rig_mode(&g, "a/b/c/d/e"), -ENOENT);
	cr_assert_eq(meta_rig_mode(&g, "x/y"), -ENOENT);
	cr_assert_str_eq(meta_rig_list(&g, ""), "");
	cr_assert_str_eq(meta_rig_list(&g, "a/b/c"), "d");
	cr_assert_eq(rows(), 4);
	/* One of them gets a record, which stays when the way ends. */
	cr_assert_eq(one(meta_rig_dir("a/b", 0700)), 0);
	cr_assert_eq(meta_rig_mode(&g, "a/b"), 0700);
	cr_assert_eq(meta_rig_mode(&g, "a/b/c/d"), 0600);
	cr_assert_eq(one(meta_rig_del("a/b/c/d")), 0);
	cr_assert_eq(meta_rig_mode(&g, "a/b"), 0700);
	cr_assert_eq(rows(), 2, "c went, a and a/b are there");
	cr_assert_eq(one(meta_rig_del("a/b")), 0);
	cr_assert_eq(rows(), 0);
}

Test(meta, the_top_has_a_record)
{
	cr_assert_eq(meta_rig_mode(&g, ""), -ENOENT);
	cr_assert_eq(one(meta_rig_dir("", 0711)), 0);
	cr_assert_eq(meta_rig_mode(&g, ""), 0711);
	cr_assert_eq(meta_rig_put(&g, "a", 1), 0);
	cr_assert_str_eq(meta_rig_list(&g, ""), "a");
	cr_assert_eq(meta_rig_put(&g, "", 1), -EINVAL, "it is no file");
	cr_assert_eq(one(meta_rig_del("")), -EINVAL);
	cr_assert_eq(one(meta_rig_move("", "b")), -EINVAL);
	cr_assert_eq(one(meta_rig_move("a", "")), -EINVAL);
}

Test(meta, files_and_directories_in_each_others_place)
{
	cr_assert_eq(meta_rig_put(&g, "f", 1), 0);
	cr_assert_eq(meta_rig_put(&g, "f/x", 1), -ENOTDIR);
	cr_assert_eq(meta_rig_put(&g, "f/x/y", 1), -ENOTDIR);
	cr_assert_eq(one(meta_rig_move("f", "g")), 0);
	cr_assert_eq(meta_rig_put(&g, "f", 1), 0);
	cr_assert_eq(meta_rig_put(&g, "d/x", 1), 0);
	cr_assert_eq(one(meta_rig_move("d/x", "f/x")), -ENOTDIR);
	cr_assert_eq(meta_rig_mode(&g, "d/x"), 1, "and nothing has happened");
	cr_assert_eq(meta_rig_put(&g, "d", 1), -ENOTEMPTY);
	cr_assert_eq(one(meta_rig_dir("d", 2)), 0);
	cr_assert_eq(meta_rig_put(&g, "d", 1), -ENOTEMPTY);
	cr_assert_eq(one(meta_rig_del("d/x")), 0);
	cr_assert_eq(meta_rig_put(&g, "d", 1), 0, "empty: a file may take its place");
	cr_assert_eq(meta_rig_put(&g, "d/x", 1), -ENOTDIR);
	cr_assert_eq(one(meta_rig_dir("d", 2)), 0, "and a directory a file's");
	cr_assert_eq(meta_rig_put(&g, "d/x", 1), 0);
	cr_assert_str_eq(meta_rig_list(&g, "d"), "x");
	cr_assert_str_eq(meta_rig_list(&g, "f"), "", "a file has no entries");
	/* Below a file there is nothing to delete or to move. */
	cr_assert_eq(one(meta_rig_del("f/x")), 0);
	cr_assert_eq(one(meta_rig_move("f/x", "h")), 0);
}

Test(meta, deleting_takes_all_below)
{
	char path[64];

	for (int i = 0; i < 300; i++) {
		snprintf(path, sizeof(path), "d/%d/%d/f", i % 7, i);
		cr_assert_eq(meta_rig_put(&g, path, 1), 0);
	}
	cr_assert_eq(meta_rig_put(&g, "d2", 1), 0);
	cr_assert_eq(one(meta_rig_del("d")), 0);
	cr_assert_str_eq(meta_rig_list(&g, "d"), "");
	cr_assert_eq(meta_rig_mode(&g, "d/3/3/f"), -ENOENT);
	cr_assert_eq(rows(), 1, "only d2 is left");
	cr_assert_eq(one(meta_rig_del("d")), 0, "nothing to do");
	cr_assert_eq(meta_rig_put(&g, "d/3/3/f", 2), 0, "the name is free again");
	cr_assert_str_eq(meta_rig_list(&g, "d/3"), "", "3/3 says nothing, and no old one is there");
	cr_assert_eq(rows(), 5);
}

Test(meta, moving_takes_all_below)
{
	cr_assert_eq(one(meta_rig_dir("a", 1)), 0);
	cr_assert_eq(meta_rig_put(&g, "a/x", 2), 0);
	cr_assert_eq(meta_rig_put(&g, "a/d/y", 3), 0);
	cr_assert_eq(meta_rig_put(&g, "b/old", 4), 0);
	cr_assert_eq(one(meta_rig_move("a", "b")), 0);
	cr_assert_eq(meta_rig_mode(&g, "a"), -ENOENT);
	cr_assert_eq(meta_rig_mode(&g, "a/x"), -ENOENT);
	cr_assert_eq(meta_rig_mode(&g, "b"), 1);
	cr_assert_eq(meta_rig_mode(&g, "b/x"), 2);
	cr_assert_eq(meta_rig_mode(&g, "b/d/y"), 3);
	cr_assert_eq(meta_rig_mode(&g, "b/old"), -ENOENT, "what was there went");
	cr_assert_eq(rows(), 4);
	/* Of a directory without a record; deeper, and back up. */
	cr_assert_eq(one(meta_rig_move("b/d", "p/q/r")), 0);
	cr_assert_eq(meta_rig_mode(&g, "p/q/r/y"), 3);
	cr_assert_eq(one(meta_rig_move("p/q/r", "z")), 0);
	cr_assert_eq(meta_rig_mode(&g, "z/y"), 3);
	cr_assert_eq(rows(), 4, "p and q went: b, b/x, z, z/y");
	cr_assert_eq(one(meta_rig_move("z/y", "z/y2")), 0);
	cr_assert_str_eq(meta_rig_list(&g, "z"), "y2");
	cr_assert_eq(one(meta_rig_move("z/y2", "z/y2")), 0, "onto itself");
	cr_assert_eq(meta_rig_mode(&g, "z/y2"), 3);
	cr_assert_eq(one(meta_rig_move("b", "b/x/y")), -EINVAL);
	cr_assert_eq(one(meta_rig_move("b/x", "b")), -EINVAL);
	cr_assert_eq(one(meta_rig_move("b", "bb")), 0, "bb is not below b");
}

Test(meta, a_move_of_nothing_empties_the_target)
{
	cr_assert_eq(meta_rig_put(&g, "t/x", 1), 0);
	cr_assert_eq(one(meta_rig_move("none", "t/x")), 0);
	cr_assert_eq(meta_rig_mode(&g, "t/x"), -ENOENT);
	cr_assert_eq(rows(), 0);
	cr_assert_eq(one(meta_rig_move("none", "t/x")), 0);
	cr_assert_eq(one(meta_rig_move("no/ne", "none")), 0);
}

Test(meta, a_transaction_done_twice_is_done_once)
{
	struct meta_change moves[] = { meta_rig_move("a", "b"), meta_rig_put(&g, "x", 0) == 0
			? meta_rig_file("b/new", 7)
			: meta_rig_del("x"),
		meta_rig_del("x"), meta_rig_move("c", "d") };

	cr_assert_eq(meta_rig_put(&g, "a/1", 1), 0);
	cr_assert_eq(meta_rig_put(&g, "b/2", 2), 0);
	cr_assert_eq(meta_rig_put(&g, "c", 3), 0);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(meta_rig_txn(&g, moves, ARRAY_LEN(moves)), 0);
		cr_assert_str_eq(meta_rig_list(&g, ""), "d");
		cr_assert_str_eq(meta_rig_list(&g, "b"), "1 new");
		cr_assert_eq(meta_rig_mode(&g, "d"), 3);
		cr_assert_eq(rows(), 4);
	}
	/* A change of the moved record does not make the move a new one. */
	cr_assert_eq(meta_rig_put(&g, "d", 4), 0);
	cr_assert_eq(one(meta_rig_move("c", "d")), 0);
	cr_assert_eq(meta_rig_mode(&g, "d"), 4);
	/* Another move onto it is. */
	cr_assert_eq(one(meta_rig_move("e", "d")), 0);
	cr_assert_eq(meta_rig_mode(&g, "d"), -ENOENT);
}

Test(meta, an_id_tells_two_moves_of_one_name_apart)
{
	struct meta_change first = meta_rig_move("a", "b"), second = first;

	first.id = 11;
	second.id = 12;
	cr_assert_eq(meta_rig_put(&g, "a", 1), 0);
	cr_assert_eq(one(first), 0);
	cr_assert_eq(one(first), 0);
	cr_assert_eq(meta_rig_mode(&g, "b"), 1);
	/* Another `a` that has no record: what is at b is the first one's. */
	cr_assert_eq(one(second), 0);
	cr_assert_eq(meta_rig_mode(&g, "b"), -ENOENT);
}

Test(meta, all_or_nothing)
{
	struct meta_change bad[] = { meta_rig_file("new", 1), meta_rig_del("keep"),
		meta_rig_move("dir", "dir2"), meta_rig_file("file/below", 1) };

	cr_assert_eq(meta_rig_put(&g, "file", 1), 0);
	cr_assert_eq(meta_rig_put(&g, "keep", 2), 0);
	cr_assert_eq(meta_rig_put(&g, "dir/x", 3), 0);
	cr_assert_eq(meta_rig_txn(&g, bad, ARRAY_LEN(bad)), -ENOTDIR);
	cr_assert_eq(meta_rig_mode(&g, "new"), -ENOENT);
	cr_assert_eq(meta_rig_mode(&g, "keep"), 2);
	cr_assert_eq(meta_rig_mode(&g, "dir/x"), 3);
	cr_assert_str_eq(meta_rig_list(&g, "dir2"), "");
	bad[3] = meta_rig_file("bad//path", 1);
	cr_assert_eq(meta_rig_txn(&g, bad, ARRAY_LEN(bad)), -EINVAL);
	cr_assert_eq(meta_rig_mode(&g, "new"), -ENOENT);
	cr_assert_eq(meta_rig_txn(&g, NULL, 0), 0, "no change at all");
}

Test(meta, bad_paths_and_records)
{
	static const char *const paths[] = { "/", "a/", "/a", "a//b", ".", "a/..", "./a", "a/./b" };
	char name[META_NAME_MAX + 2], path[META_PATH_MAX + 2];
	struct meta_record rec;
	struct meta_change ch = meta_rig_file("a", 1);

	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		cr_assert_eq(meta_rig_put(&g, paths[i], 1), -EINVAL, "%s", paths[i]);
		cr_assert_eq(meta_rig_get(&g, paths[i], &rec), -EINVAL, "%s", paths[i]);
		cr_assert_eq(one(meta_rig_move("a", paths[i])), -EINVAL, "%s", paths[i]);
	}
	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	cr_assert_eq(meta_rig_put(&g, name, 1), -ENAMETOOLONG);
	name[META_NAME_MAX] = '\0';
	cr_assert_eq(meta_rig_put(&g, name, 5), 0);
	cr_assert_eq(meta_rig_mode(&g, name), 5);
	for (size_t i = 0; i < sizeof(path); i++)
		path[i] = i % 2 == 0 ? 'p' : '/';
	path[META_PATH_MAX + 1] = '\0';
	cr_assert_eq(meta_rig_put(&g, path, 1), -ENAMETOOLONG);
	path[META_PATH_MAX - 1] = '\0';
	cr_assert_eq(meta_rig_put(&g, path, 6), 0, "512 directories deep");
	cr_assert_eq(meta_rig_mode(&g, path), 6);
	cr_assert_eq(rows(), 1 + META_PATH_MAX / 2);
	cr_assert_eq(one(meta_rig_del(path)), 0);
	cr_assert_eq(rows(), 1);
	ch.rec.kind = META_PASS;
	cr_assert_eq(one(ch), -EINVAL);
	ch.rec.kind = META_FILE;
	ch.rec.has = 32;
	cr_assert_eq(one(ch), -EINVAL);
	ch.rec.has = META_HAS_MTIME;
	ch.rec.mtime.tv_nsec = 1000000000;
	cr_assert_eq(one(ch), -EINVAL);
	ch.rec.has = 0;
	memset(ch.rec.version, 'v', sizeof(ch.rec.version));
	cr_assert_eq(one(ch), -EINVAL);
	ch.rec.version[META_VERSION_MAX - 1] = '\0';
	cr_assert_eq(one(ch), 0);
	ch.rec.kind = META_DIR;
	cr_assert_eq(one(ch), -EINVAL, "a directory has no version");
	ch.verb = (enum meta_verb)77;
	cr_assert_eq(one(ch), -EINVAL);
}

Test(meta, intents)
{
	static const char blob[META_BLOB_MAX + 1] = "\0intent";
	struct meta_change ch = { .verb = META_INTENT_PUT, .id = 7, .blob = blob, .blob_len = 8 };
	struct meta_intents all = { .count = 0 };

	cr_assert_eq(meta_rig_intents(&g, &all), 0);
	cr_assert_eq(all.count, 0);
	cr_assert_eq(one(ch), 0);
	ch.id = UINT64_MAX;
	ch.blob_len = META_BLOB_MAX;
	cr_assert_eq(one(ch), 0);
	ch.id = 3;
	ch.blob = NULL;
	ch.blob_len = 0;
	cr_assert_eq(one(ch), 0);
	cr_assert_eq(meta_rig_intents(&g, &all), 0);
	cr_assert_eq(all.count, 3);
	cr_assert_eq(all.intents[0].id, 3);
	cr_assert_eq(all.intents[0].len, 0);
	cr_assert_eq(all.intents[1].id, 7);
	cr_assert_eq(all.intents[1].len, 8);
	cr_assert_arr_eq(all.intents[1].blob, blob, 8);
	cr_assert_eq(all.intents[2].id, UINT64_MAX);
	cr_assert_eq(all.intents[2].len, META_BLOB_MAX);
	cr_assert_arr_eq(all.intents[2].blob, blob, META_BLOB_MAX);
	ch.id = 7;
	ch.blob = "other";
	ch.blob_len = 5;
	cr_assert_eq(one(ch), 0, "the later one counts");
	ch.verb = META_INTENT_DEL;
	ch.id = 3;
	cr_assert_eq(one(ch), 0);
	cr_assert_eq(one(ch), 0, "nothing to do");
	cr_assert_eq(meta_rig_intents(&g, &all), 0);
	cr_assert_eq(all.count, 2);
	cr_assert_arr_eq(all.intents[0].blob, "other", 5);
	ch.verb = META_INTENT_PUT;
	ch.id = 0;
	cr_assert_eq(one(ch), -EINVAL);
	ch.id = 1;
	ch.blob = blob;
	ch.blob_len = META_BLOB_MAX + 1;
	cr_assert_eq(one(ch), -EINVAL);
	meta_intents_free(&all);
	meta_intents_free(&all);
	cr_assert_neq(meta_intent_id(), meta_intent_id());
}

Test(meta, it_is_all_there_after_a_restart)
{
	struct meta_change ch = { .verb = META_INTENT_PUT, .id = 9, .blob = "b", .blob_len = 1 };
	struct meta_intents all = { .count = 0 };
	char path[64];

	for (int i = 0; i < 100; i++) {
		snprintf(path, sizeof(path), "d/%d/f", i);
		cr_assert_eq(meta_rig_put(&g, path, (uint32_t)i), 0);
	}
	cr_assert_eq(one(ch), 0);
	for (int round = 0; round < 3; round++) {
		meta_rig_free(&g);
		meta_rig_open(&g);
		cr_assert_eq(meta_rig_status(&g).records, 201u + (unsigned)round);
		cr_assert_gt(meta_rig_status(&g).used_bytes, 4096);
		for (int i = 0; i < 100; i++) {
			snprintf(path, sizeof(path), "d/%d/f", i);
			cr_assert_eq(meta_rig_mode(&g, path), i);
		}
		cr_assert_eq(meta_rig_intents(&g, &all), 0);
		cr_assert_eq(all.count, 1);
		meta_intents_free(&all);
		/* Directory ids go on where they were. */
		snprintf(path, sizeof(path), "d/%d/g", round);
		cr_assert_eq(meta_rig_put(&g, path, 1), 0);
	}
	cr_assert_str_eq(meta_rig_list(&g, "d/0"), "f g");
	cr_assert_str_eq(meta_rig_list(&g, "d/3"), "f");
}
