/* SPDX-License-Identifier: BSD-2-Clause */
/* Several storages in one namespace, and mounts of a part of it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "../../lib/nth_fault.h"
#include "ops/node.h"
#include "ops_rig.h"

static struct rig r;
static struct fake_ufs top, s3, nfs;
static struct fs *fs;

static void setup(void)
{
	rig_new(&r);
	fake_init(&top, r.loop);
	fake_init(&s3, r.loop);
	fake_init(&nfs, r.loop);
	top.ufs.uri = (char *)"fake://top";
	s3.ufs.uri = (char *)"fake://s3";
	nfs.ufs.uri = (char *)"fake://nfs";
}

static void teardown(void)
{
	if (fs != NULL)
		fs_free(&fs);
	rig_free(&r);
}

TestSuite(namespace, .init = setup, .fini = teardown);

static struct fs *make(void)
{
	struct fs_env env = {
	    .loop = r.loop, .pool = r.pool, .cfg = r.cfg, .cache = r.cache, .mo = &r.mo};
	struct fs *out;

	cr_assert_eq(fs_new(&out, &env), 0);
	return out;
}

static void attach(struct fs *f, const char *nspath, struct fake_ufs *u)
{
	struct errtext et;

	cr_assert_eq(fs_attach(f, nspath, &u->ufs, &et), 0, "%s", et.s);
}

static void root(struct fs *f, const char *subtree)
{
	struct errtext et;

	cr_assert_eq(fs_set_root(f, subtree, &et), 0, "%s", et.s);
}

/* --- Requests to fs->ufs */

struct answer {
	bool ended;
	int err;
};

static void done(struct ufs_req *rq, int err)
{
	struct answer *a = rq->user;

	a->ended = true;
	a->err = err;
}

static int ask_stat(const char *path, struct ufs_attr *attr)
{
	struct answer a = {.ended = false};
	struct ufs_stat st = {.req.user = &a, .path = path};

	ufs_stat(fs->ufs, &st, done);
	while (!a.ended)
		loop_turn(r.loop, true);
	*attr = st.attr;
	return a.err;
}

/* All names of a directory, in order, as "a b/ c ": from page to page. */
static int ask_list(const char *path, bool fresh, char *out, size_t len)
{
	struct ufs_list rq = {.path = path};
	char after[UFS_NAME_MAX + 1];
	size_t n = 0;
	int err;

	out[0] = '\0';
	do {
		struct answer a = {.ended = false};

		rq.req.user = &a;
		ufs_list(fs->ufs, &rq, done);
		while (!a.ended)
			loop_turn(r.loop, true);
		err = a.err;
		if (err != 0)
			break;
		cr_assert(rq.count > 0 || !rq.more, "an empty page has no end");
		for (size_t i = 0; i < rq.count; i++) {
			const struct ufs_entry *en = &rq.entries[i];

			n += (size_t)snprintf(out + n, len - n, "%s%s ", en->name,
			    en->attr.kind == UFS_DIR ? "/" : "");
			strcpy(after, en->name);
			rq.after = after;
			rq.after_kind = en->attr.kind;
		}
		if (fresh && rq.more) { /* as in a new daemon: without the cursor */
			struct ufs_list again = {
			    .path = path, .after = rq.after, .after_kind = rq.after_kind};

			ufs_list_free(&rq);
			rq = again;
			rq.more = true;
		}
	} while (rq.more);
	ufs_list_free(&rq);
	return err;
}

static void expect_list(const char *path, const char *want)
{
	char got[4096];

	for (int fresh = 0; fresh < 2; fresh++) {
		cr_assert_eq(ask_list(path, fresh, got, sizeof(got)), 0, "/%s", path);
		cr_assert_str_eq(got, want, "/%s: %s", path, got);
	}
}

/* --- Attaching */

Test(namespace, refuses_bad_paths)
{
	static const char *const bad[] = {"", "s3", "/..", "/a/../b", "//", "/a//b", "/a/", "/./a"};
	struct errtext et;

	fs = make();
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		cr_assert_eq(fs_attach(fs, bad[i], &s3.ufs, &et), -EINVAL, "%s", bad[i]);
	cr_assert_eq(fs_attach(fs, "/s3", &s3.ufs, &et), 0);
	cr_assert_eq(fs_attach(fs, "/s3", &nfs.ufs, &et), -EEXIST);
	cr_assert_not_null(strstr(et.s, "/s3=fake://nfs"), "%s", et.s);
	cr_assert_eq(fs_set_root(fs, "/elsewhere", &et), -ENOENT);
	cr_assert_not_null(strstr(et.s, "--subtree /elsewhere"), "%s", et.s);
}

static uint64_t digest_of(const char *a, struct fake_ufs *ua, const char *b, struct fake_ufs *ub,
    const char *subtree)
{
	struct fs *f = make();
	uint64_t d;

	attach(f, a, ua);
	attach(f, b, ub);
	root(f, subtree);
	d = fs_namespace_digest(f);
	fs_free(&f);
	return d;
}

Test(namespace, digest)
{
	uint64_t d = digest_of("/s3", &s3, "/nfs", &nfs, "/");

	cr_assert_eq(d, digest_of("/nfs", &nfs, "/s3", &s3, "/"), "order does not count");
	cr_assert_neq(d, digest_of("/nfs", &s3, "/s3", &nfs, "/"), "who is where does");
	cr_assert_neq(d, digest_of("/s3", &s3, "/nfs2", &nfs, "/"));
	cr_assert_neq(d, digest_of("/s3", &s3, "/nfs", &nfs, "/s3"));
	cr_assert_neq(digest_of("/s3", &s3, "/nfs", &nfs, "/s3/a"),
	    digest_of("/s3", &s3, "/nfs", &nfs, "/s3"));
	cr_assert_eq(digest_of("/s3", &s3, "/nfs", &nfs, "/s3/a"),
	    digest_of("/s3", &s3, "/other", &top, "/s3/a"), "what is out of reach does not");
}

Test(namespace, resolves_to_the_deepest)
{
	const char *path, *ns;
	struct ufs *u;

	fs = make();
	attach(fs, "/data/s3/deep", &nfs);
	attach(fs, "/", &top);
	attach(fs, "/data/s3", &s3);
	root(fs, "/");
	cr_assert_eq(fs_resolve(fs, "/data/s3x/a", &u, &path), 0);
	cr_assert(u == &top.ufs && strcmp(path, "data/s3x/a") == 0);
	cr_assert_eq(fs_resolve(fs, "/data/s3/a/b", &u, &path), 0);
	cr_assert(u == &s3.ufs && strcmp(path, "a/b") == 0);
	cr_assert_eq(fs_resolve(fs, "/data/s3/deep", &u, &path), 0);
	cr_assert(u == &nfs.ufs && *path == '\0');
	cr_assert_eq(fs_resolve(fs, "/data/s3/deep/x", &u, &path), 0);
	cr_assert(u == &nfs.ufs && strcmp(path, "x") == 0);
	cr_assert_eq(fs_resolve(fs, "/data/../x", &u, &path), -EINVAL);
	cr_assert_eq(fs_ufs(fs, 0, &ns), &top.ufs);
	cr_assert_eq(fs_ufs(fs, 1, &ns), &s3.ufs);
	cr_assert_str_eq(ns, "/data/s3");
	cr_assert_eq(fs_ufs(fs, 2, &ns), &nfs.ufs);
	cr_assert_null(fs_ufs(fs, 3, &ns));
}

/* The same number whatever is mounted of the namespace, and another for another name. */
Test(namespace, inode_numbers)
{
	uint64_t all, alone;

	fs = make();
	attach(fs, "/s3", &s3);
	attach(fs, "/copy", &s3);
	root(fs, "/");
	all = node_ino(fs, "s3/train/a");
	cr_assert_neq(all, node_ino(fs, "copy/train/a"));
	cr_assert_neq(node_ino(fs, "s3"), node_ino(fs, "copy"));
	fs_free(&fs);
	fs = make();
	attach(fs, "/s3", &s3);
	root(fs, "/s3/train");
	alone = node_ino(fs, "s3/train/a");
	cr_assert_eq(all, alone);
}

/* --- Directories that lead to storage */

Test(namespace, virtual_directories)
{
	struct ufs_attr a;

	fs = make();
	attach(fs, "/data/s3", &s3);
	attach(fs, "/data/nfs", &nfs);
	attach(fs, "/z", &nfs);
	fake_add(&s3, "x", UFS_FILE, 1, "v");
	root(fs, "/");
	expect_list("", "data/ z/ ");
	expect_list("data", "nfs/ s3/ ");
	expect_list("data/s3", "x ");
	expect_list("data/nfs", "");
	cr_assert_eq(ask_stat("", &a), 0);
	cr_assert(a.kind == UFS_DIR && a.have_mode && a.mode == 0555);
	cr_assert_eq(ask_stat("data", &a), 0);
	cr_assert(a.kind == UFS_DIR && a.have_mode && a.mode == 0555);
	cr_assert_eq(ask_stat("data/none", &a), -ENOENT);
	cr_assert_eq(ask_stat("da", &a), -ENOENT);
	cr_assert_eq(ask_stat("data/s3/x", &a), 0);
	cr_assert_eq(a.kind, UFS_FILE);
	cr_assert_eq(s3.stats, 1, "only what is asked for");
	/* Storage that is down stops nobody from looking around. */
	s3.err = nfs.err = -ETIMEDOUT;
	expect_list("", "data/ z/ ");
	expect_list("data", "nfs/ s3/ ");
	cr_assert_eq(ask_stat("data/s3", &a), -ETIMEDOUT);
}

static void add_top(void)
{
	static const char *const names[] = {"a", "b-b", "b.c", "c", "d", "e", "zz"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		fake_add(&top, names[i], UFS_FILE, 1, "v");
	fake_add(&top, "b", UFS_DIR, 0, "");
	fake_add(&top, "b/own", UFS_FILE, 1, "v");
	fake_add(&top, "b/s3", UFS_DIR, 0, "");
	fake_add(&top, "b/s3/hidden", UFS_FILE, 1, "v");
	fake_add(&top, "b/zz", UFS_FILE, 1, "v");
}

/* An attached path takes the place of what its storage has; for every page size. */
Test(namespace, merged_listing)
{
	struct ufs_attr a;

	add_top();
	fake_add(&s3, "mine", UFS_FILE, 1, "v");
	fs = make();
	attach(fs, "/", &top);
	attach(fs, "/b/s3", &s3);
	attach(fs, "/c", &nfs);
	attach(fs, "/d", &nfs);
	attach(fs, "/m", &nfs);
	attach(fs, "/e/deep", &nfs);
	root(fs, "/");
	for (top.page = 1; top.page < 12; top.page++) {
		expect_list("", "a b-b b.c b/ c/ d/ e/ m/ zz ");
		expect_list("b", "own s3/ zz ");
		expect_list("b/s3", "mine ");
		expect_list("e", "deep/ ");
	}
	cr_assert_eq(ask_stat("b/s3/hidden", &a), -ENOENT);
	cr_assert_eq(ask_stat("b", &a), 0);
	cr_assert_not(a.have_mode, "the storage's own attributes");
	cr_assert_eq(ask_stat("e", &a), 0);
	cr_assert(a.kind == UFS_DIR && a.mode == 0555, "its file of that name is hidden");
	cr_assert_eq(ask_stat("c", &a), 0);
	cr_assert_eq(a.kind, UFS_DIR);
	/* An error is an error, not an empty directory. */
	top.err = -EIO;
	cr_assert_eq(ask_stat("b", &a), -EIO);
	cr_assert_eq(ask_list("b", false, (char[64]){0}, 64), -EIO);
	cr_assert_eq(ask_list("", false, (char[64]){0}, 64), -EIO);
}

Test(namespace, gives_up)
{
	struct answer a = {.ended = false};
	struct ufs_list ls = {.req.user = &a, .path = ""};
	struct ufs_stat st = {.req.user = &a, .path = "a"};

	add_top();
	fs = make();
	attach(fs, "/", &top);
	attach(fs, "/m", &nfs);
	root(fs, "/");
	top.stall = true;
	ufs_list(fs->ufs, &ls, done);
	ufs_stat(fs->ufs, &st, done);
	cr_assert_eq(fake_waiting(&top), 2);
	ufs_abort(&ls.req);
	ufs_abort(&st.req);
	cr_assert_eq(fake_waiting(&top), 0);
	cr_assert_not(a.ended);
	ufs_list_free(&ls);
}

Test(namespace, every_allocation_fails_once)
{
	char got[256];
	bool fired = true;
	struct ufs_attr a;
	int err;

	add_top();
	top.page = 3;
	fs = make();
	attach(fs, "/", &top);
	attach(fs, "/m", &nfs);
	root(fs, "/");
	for (unsigned n = 1; fired; n++) {
		nth_arm(n);
		err = ask_list("", false, got, sizeof(got));
		fired = nth_fired();
		cr_assert(err == 0 || (fired && err == -ENOMEM), "%u: %d", n, err);
		cr_assert(err != 0 || strcmp(got, "a b-b b.c b/ c d e m/ zz ") == 0, "%s", got);
	}
	fired = true;
	for (unsigned n = 1; fired; n++) {
		nth_arm(n);
		err = ask_stat("a", &a);
		fired = nth_fired();
		cr_assert(err == 0 || (fired && err == -ENOMEM), "%u: %d", n, err);
	}
}

/* --- A part of the namespace */

Test(namespace, subtree_in_a_storage)
{
	char path[UFS_PATH_MAX + 1];
	const char *sub;
	struct ufs *u;

	fs = make();
	attach(fs, "/", &top);
	attach(fs, "/s3", &s3);
	attach(fs, "/s3/train/extra", &nfs);
	root(fs, "/s3/train");
	cr_assert_eq(fs_resolve(fs, "/s3/train/x", &u, &sub), 0);
	cr_assert(u == &s3.ufs && strcmp(sub, "train/x") == 0);
	cr_assert_eq(fs_resolve(fs, "/s3/train/extra/x", &u, &sub), 0);
	cr_assert(u == &nfs.ufs && strcmp(sub, "x") == 0);
	static const char *const outside[] = {"/", "/s3", "/s3/other", "/s3/training", "/x"};
	for (size_t i = 0; i < ARRAY_LEN(outside); i++)
		cr_assert_eq(fs_resolve(fs, outside[i], &u, &sub), -ENOENT, "%s", outside[i]);
	cr_assert_eq(fs_resolve(fs, "/s3/train/../other", &u, &sub), -EINVAL);
	cr_assert_eq(fs_ufs(fs, 0, &sub), &s3.ufs);
	cr_assert_eq(fs_ufs(fs, 1, &sub), &nfs.ufs);
	cr_assert_null(fs_ufs(fs, 2, &sub), "the top is out of reach");
	fs->db = r.db;
	cr_assert_eq(node_path(fs, NODE_ROOT, path), 0);
	cr_assert_str_eq(path, "s3/train");
	cr_assert_eq(node_child_path(fs, NODE_ROOT, "x", path), 0);
	cr_assert_str_eq(path, "s3/train/x");
	fs->db = NULL;
}

/* A daemon with other storage must not take the open files of this mount for its own. */
Test(namespace, state_of_another_namespace_is_refused)
{
	struct errtext et;

	fs_state_detach(r.fs);
	fs = make();
	attach(fs, "/", &s3);
	root(fs, "/");
	cr_assert_eq(fs_state_open(fs, r.db, r.counts, &et), -EPROTO);
	cr_assert_not_null(strstr(et.s, "--ufs"), "%s", et.s);
	fs_free(&fs);
	cr_assert_eq(fs_state_open(r.fs, r.db, r.counts, &et), 0);
}
