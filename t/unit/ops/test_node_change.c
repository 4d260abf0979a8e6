/* SPDX-License-Identifier: BSD-2-Clause */
/* Nodes whose names and versions are changed by this mount itself. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "../../lib/nth_fault.h"
#include "base/units.h"
#include "ops/node.h"
#include "ops_rig.h"

static struct rig r;

static void setup(void)
{
	rig_new(&r);
}

static void teardown(void)
{
	rig_free(&r);
}

TestSuite(node_change, .init = setup, .fini = teardown);

static struct ufs_attr attr_of(enum ufs_kind kind, const char *version)
{
	struct ufs_attr a = {.kind = kind, .size = 10, .mtime = {5, 6}};

	strcpy(a.version, version);
	return a;
}

static struct node bind(uint64_t parent, const char *name, const char *path, enum ufs_kind kind)
{
	struct ufs_attr a = attr_of(kind, kind == UFS_DIR ? "" : "v1");
	struct node n;

	cr_assert_eq(node_bind(r.fs, parent, name, path, &a, &n), 0);
	return n;
}

/* As the kernel has it after a LOOKUP. */
static struct node known(uint64_t parent, const char *name, const char *path, enum ufs_kind kind)
{
	struct node n = bind(parent, name, path, kind);

	node_count(r.fs, &n);
	return n;
}

static struct node make(uint64_t parent, const char *name, const char *path, enum ufs_kind kind)
{
	struct ufs_attr a = attr_of(kind, "");
	struct node n;

	cr_assert_eq(node_make(r.fs, parent, name, path, &a, true, &n), 0);
	node_count(r.fs, &n);
	return n;
}

static struct node load(uint64_t id)
{
	struct node n;

	cr_assert_eq(node_load(r.fs, id, &n), 0);
	return n;
}

static uint64_t rows(void)
{
	return statedb_count(r.db, STATEDB_INOS);
}

Test(node_change, made_here)
{
	struct node f = make(NODE_ROOT, "f", "f", UFS_FILE), d = make(NODE_ROOT, "d", "d", UFS_DIR);
	struct node m;

	cr_assert_eq(f.flags, NODE_LOCAL);
	cr_assert_eq(d.flags, NODE_MARKED);
	cr_assert_eq(f.st_ino, node_ino(r.fs, "f"));
	cr_assert_eq(node_find(r.fs, NODE_ROOT, "f", &m), 0);
	cr_assert_eq(m.id, f.id);
	rig_restart(&r);
	cr_assert_eq(load(f.id).flags, NODE_LOCAL);
	cr_assert_eq(load(d.id).flags, NODE_MARKED);
}

Test(node_change, marked_stays_when_the_storage_answers)
{
	struct ufs_attr a = attr_of(UFS_DIR, "");
	struct node d = make(NODE_ROOT, "d", "d", UFS_DIR), m;

	cr_assert_eq(node_bind(r.fs, NODE_ROOT, "d", "d", &a, &m), 0);
	cr_assert_eq(m.id, d.id);
	cr_assert(m.flags & NODE_MARKED);
}

Test(node_change, version_keeps_the_id)
{
	struct ufs_attr a = attr_of(UFS_FILE, "v2");
	struct node f = make(NODE_ROOT, "f", "f", UFS_FILE), m;
	uint64_t before = r.fs->rebinds;

	a.size = 77;
	cr_assert_eq(node_set_version(r.fs, f.id, &a), 0);
	m = load(f.id);
	cr_assert_not(m.flags & NODE_LOCAL);
	cr_assert_str_eq(m.version, "v2");
	cr_assert_eq(m.size, 77);
	cr_assert_eq(m.st_ino, f.st_ino);
	cr_assert_gt(r.fs->rebinds, before);
	/* The storage says so too: the same node. */
	cr_assert_eq(node_bind(r.fs, NODE_ROOT, "f", "f", &a, &m), 0);
	cr_assert_eq(m.id, f.id);
	cr_assert_eq(node_set_version(r.fs, 9999, &a), -ENOENT);
}

Test(node_change, version_keeps_what_the_storage_does_not_know)
{
	struct ufs_attr a = attr_of(UFS_FILE, "v1"), b = attr_of(UFS_FILE, "v2");
	struct node n, m;

	a.have_mode = true;
	a.mode = 0640;
	a.uid = 7;
	cr_assert_eq(node_bind(r.fs, NODE_ROOT, "f", "f", &a, &n), 0);
	b.mtime = (struct timespec){0};
	cr_assert_eq(node_set_version(r.fs, n.id, &b), 0);
	m = load(n.id);
	cr_assert((m.flags & NODE_HAVE_MODE) && m.mode == 0640 && m.uid == 7);
	cr_assert_eq(m.mtime.tv_sec, 5);
}

Test(node_change, moved_keeps_id_and_number)
{
	struct node f = known(NODE_ROOT, "f", "f", UFS_FILE), g, m;
	char path[UFS_PATH_MAX + 1];

	cr_assert_eq(node_move(r.fs, f.id, NODE_ROOT, "g"), 0);
	cr_assert_eq(node_find(r.fs, NODE_ROOT, "f", &m), -ENOENT);
	cr_assert_eq(node_find(r.fs, NODE_ROOT, "g", &m), 0);
	cr_assert_eq(m.id, f.id);
	cr_assert_eq(m.st_ino, f.st_ino);
	cr_assert_eq(node_path(r.fs, f.id, path), 0);
	cr_assert_str_eq(path, "g");
	cr_assert_eq(rows(), 1);
	/* The old name is another file's from now on. */
	cr_assert_neq(node_list_ino(r.fs, NODE_ROOT, "f", "f"), f.st_ino);
	g = known(NODE_ROOT, "f", "f", UFS_FILE);
	cr_assert_neq(g.st_ino, f.st_ino);
	cr_assert_eq(node_list_ino(r.fs, NODE_ROOT, "f", "f"), g.st_ino);
	cr_assert_eq(node_list_ino(r.fs, NODE_ROOT, "g", "g"), f.st_ino);
	/* Twice is once. */
	cr_assert_eq(node_move(r.fs, f.id, NODE_ROOT, "g"), 0);
	/* The same after a restart. */
	rig_restart(&r);
	cr_assert_eq(load(f.id).st_ino, f.st_ino);
	cr_assert_eq(known(NODE_ROOT, "f", "f", UFS_FILE).st_ino, g.st_ino);
	/* Forgotten: the number is free, and the row gone. */
	cr_assert_eq(node_forget(r.fs, f.id, 1), 0);
	cr_assert_eq(rows(), 0);
	cr_assert_eq(node_forget(r.fs, g.id, 2), 0);
	cr_assert_eq(bind(NODE_ROOT, "f", "f", UFS_FILE).st_ino, f.st_ino);
}

Test(node_change, moved_back_holds_nothing)
{
	struct node f = known(NODE_ROOT, "f", "f", UFS_FILE);

	cr_assert_eq(node_move(r.fs, f.id, NODE_ROOT, "g"), 0);
	cr_assert_eq(node_move(r.fs, f.id, NODE_ROOT, "h"), 0);
	cr_assert_eq(rows(), 1);
	cr_assert_eq(node_move(r.fs, f.id, NODE_ROOT, "f"), 0);
	cr_assert_eq(rows(), 0);
	cr_assert_eq(load(f.id).flags & NODE_INO, 0);
	cr_assert_eq(load(f.id).st_ino, f.st_ino);
}

Test(node_change, a_chain_of_names_has_no_number_twice)
{
	struct node a = known(NODE_ROOT, "a", "a", UFS_FILE), b, c;

	cr_assert_eq(node_move(r.fs, a.id, NODE_ROOT, "x"), 0);
	b = known(NODE_ROOT, "a", "a", UFS_FILE);
	cr_assert_eq(node_move(r.fs, b.id, NODE_ROOT, "y"), 0);
	c = known(NODE_ROOT, "a", "a", UFS_FILE);
	cr_assert(a.st_ino != b.st_ino && b.st_ino != c.st_ino && a.st_ino != c.st_ino);
	/* What the first one held is free again: what has it by now keeps its own. */
	cr_assert_eq(node_forget(r.fs, a.id, 1), 0);
	cr_assert_eq(load(b.id).st_ino, b.st_ino);
	cr_assert_eq(rows(), 1);
}

Test(node_change, below_a_moved_directory)
{
	struct node d = known(NODE_ROOT, "d", "d", UFS_DIR), f, d2, f2;
	char path[UFS_PATH_MAX + 1];

	f = known(d.id, "f", "d/f", UFS_FILE);
	cr_assert_eq(f.st_ino, node_ino(r.fs, "d/f"));
	cr_assert_eq(node_move(r.fs, d.id, NODE_ROOT, "e"), 0);
	cr_assert_eq(node_path(r.fs, f.id, path), 0);
	cr_assert_str_eq(path, "e/f");
	cr_assert_eq(node_list_ino(r.fs, d.id, "f", "e/f"), f.st_ino);
	/* Another directory under the old name, with a file of the same name. */
	d2 = known(NODE_ROOT, "d", "d", UFS_DIR);
	f2 = known(d2.id, "f", "d/f", UFS_FILE);
	cr_assert_neq(d2.st_ino, d.st_ino);
	cr_assert_neq(f2.st_ino, f.st_ino);
	/* What nobody knows by name keeps its number with its directory. */
	cr_assert_eq(node_list_ino(r.fs, d.id, "g", "e/g"), node_ino(r.fs, "d/g"));
	cr_assert_neq(node_list_ino(r.fs, d2.id, "g", "d/g"), node_ino(r.fs, "d/g"));
}

Test(node_change, onto_another)
{
	struct node a = known(NODE_ROOT, "a", "a", UFS_FILE), b, m;

	b = known(NODE_ROOT, "b", "b", UFS_FILE);
	cr_assert_eq(node_add_open(r.fs, b.id, 1), 0);
	cr_assert_eq(node_move(r.fs, a.id, NODE_ROOT, "b"), 0);
	cr_assert_eq(node_find(r.fs, NODE_ROOT, "b", &m), 0);
	cr_assert_eq(m.id, a.id);
	m = load(b.id);
	cr_assert(m.flags & NODE_REPLACED, "open, so it lives on");
	/* Its number too is its own while it lives. */
	cr_assert_eq(node_move(r.fs, a.id, NODE_ROOT, "c"), 0);
	cr_assert_neq(known(NODE_ROOT, "b", "b", UFS_FILE).st_ino, b.st_ino);
	cr_assert_eq(node_forget(r.fs, b.id, 1), 0);
	cr_assert_eq(node_add_open(r.fs, b.id, -1), 0);
	cr_assert_eq(node_load(r.fs, b.id, &m), -ENOENT);
	cr_assert_eq(rows(), 1, "a's");
}

Test(node_change, of_what_is_not_there)
{
	struct node f = known(NODE_ROOT, "f", "f", UFS_FILE);
	char name[UFS_NAME_MAX + 2];

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	cr_assert_eq(node_move(r.fs, 4711, NODE_ROOT, "g"), -ENOENT);
	cr_assert_eq(node_move(r.fs, NODE_ROOT, NODE_ROOT, "g"), -ESTALE);
	cr_assert_eq(node_move(r.fs, f.id, NODE_ROOT, ""), -EINVAL);
	cr_assert_eq(node_move(r.fs, f.id, NODE_ROOT, name), -ENAMETOOLONG);
	cr_assert_eq(node_drop_name(r.fs, 4711), -ENOENT);
	cr_assert_eq(node_drop_name(r.fs, NODE_ROOT), -EBUSY);
	cr_assert_eq(node_drop_name(r.fs, f.id), 0);
	cr_assert_eq(node_move(r.fs, f.id, NODE_ROOT, "g"), -ESTALE);
}

Test(node_change, dropped_while_open)
{
	struct node f = known(NODE_ROOT, "f", "f", UFS_FILE), g, m;

	cr_assert_eq(node_add_open(r.fs, f.id, 1), 0);
	cr_assert_eq(node_drop_name(r.fs, f.id), 0);
	cr_assert_eq(node_drop_name(r.fs, f.id), 0, "twice is once");
	cr_assert_eq(node_find(r.fs, NODE_ROOT, "f", &m), -ENOENT);
	cr_assert(load(f.id).flags & NODE_REPLACED);
	g = make(NODE_ROOT, "f", "f", UFS_FILE);
	cr_assert_neq(g.st_ino, f.st_ino);
	cr_assert_eq(node_drop_name(r.fs, f.id), 0, "not the new one's name");
	cr_assert_eq(node_find(r.fs, NODE_ROOT, "f", &m), 0);
	cr_assert_eq(node_forget(r.fs, f.id, 1), 0);
	cr_assert_eq(node_add_open(r.fs, f.id, -1), 0);
	cr_assert_eq(node_load(r.fs, f.id, &m), -ENOENT);
	cr_assert_eq(rows(), 0);
}

Test(node_change, dropped_and_known_to_nobody)
{
	struct node f = bind(NODE_ROOT, "f", "f", UFS_FILE), m;

	cr_assert_eq(node_drop_name(r.fs, f.id), 0);
	cr_assert_eq(node_load(r.fs, f.id, &m), -ENOENT);
	cr_assert_eq(statedb_count(r.db, STATEDB_NODES), 1);
	cr_assert_eq(statedb_count(r.db, STATEDB_NAMES), 0);
}

Test(node_change, foreign_version_of_a_moved_file_takes_the_number_over)
{
	struct ufs_attr a = attr_of(UFS_FILE, "v2");
	struct node f = known(NODE_ROOT, "f", "f", UFS_FILE), g, m;

	cr_assert_eq(node_move(r.fs, f.id, NODE_ROOT, "g"), 0);
	cr_assert_eq(node_bind(r.fs, NODE_ROOT, "g", "g", &a, &g), 0);
	node_count(r.fs, &g);
	cr_assert_neq(g.id, f.id);
	cr_assert_eq(g.st_ino, f.st_ino);
	cr_assert_eq(node_forget(r.fs, f.id, 1), 0);
	cr_assert_eq(rows(), 1, "still held, by the new version");
	cr_assert_neq(known(NODE_ROOT, "f", "f", UFS_FILE).st_ino, g.st_ino);
	cr_assert_eq(node_forget(r.fs, g.id, 1), 0);
	cr_assert_eq(node_load(r.fs, g.id, &m), -ENOENT);
	cr_assert_eq(rows(), 0);
}

Test(node_change, touched_names)
{
	struct node f = known(NODE_ROOT, "f", "f", UFS_FILE), d;
	uint64_t t = r.fs->changes;

	cr_assert_not(fs_touched_since(r.fs, NODE_ROOT, "f", t));
	cr_assert_eq(node_move(r.fs, f.id, NODE_ROOT, "g"), 0);
	cr_assert(fs_touched_since(r.fs, NODE_ROOT, "f", t));
	cr_assert(fs_touched_since(r.fs, NODE_ROOT, "g", t));
	cr_assert_not(fs_touched_since(r.fs, NODE_ROOT, "other", t));
	t = r.fs->changes;
	cr_assert_not(fs_touched_since(r.fs, NODE_ROOT, "g", t));
	d = known(NODE_ROOT, "d", "d", UFS_DIR);
	cr_assert_eq(node_move(r.fs, d.id, NODE_ROOT, "e"), 0);
	cr_assert(fs_touched_since(r.fs, d.id, "anything below", t));
}

/* What is in the way is replaced, not damaged, by a move that finds no room. */
Test(node_change, full_database)
{
	struct node f = known(NODE_ROOT, "f", "f", UFS_FILE), m;
	unsigned char big[4000] = {0};
	uint64_t i, be;
	int err;

	for (i = 0; i < 100000; i++) {
		be = __builtin_bswap64(i);
		if (statedb_put(r.db, STATEDB_COOKIES, &be, 8, big, i % 2 ? 40 : sizeof(big)) != 0)
			break;
		if (i % 64 == 0)
			cr_assert_eq(statedb_commit(r.db), 0);
	}
	for (; i < 200000; i++) {
		be = __builtin_bswap64(i);
		if (statedb_put(r.db, STATEDB_COOKIES, &be, 8, big, 8) != 0)
			break;
	}
	err = node_move(r.fs, f.id, NODE_ROOT, "g");
	cr_assert(err == 0 || err == -ENOSPC);
	cr_assert_eq(node_find(r.fs, NODE_ROOT, err == 0 ? "g" : "f", &m), 0);
	cr_assert_eq(node_find(r.fs, NODE_ROOT, err == 0 ? "f" : "g", &m), -ENOENT);
	cr_assert_eq(load(f.id).st_ino, f.st_ino);
	cr_assert_eq(node_drop_name(r.fs, f.id), 0, "deleting always goes");
}
