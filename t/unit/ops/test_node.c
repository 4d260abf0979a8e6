/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

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

TestSuite(node, .init = setup, .fini = teardown);

static struct ufs_attr attr_of(enum ufs_kind kind, uint64_t size, const char *version)
{
	struct ufs_attr a = {.kind = kind, .size = size, .mtime = {5, 6}};

	strcpy(a.version, version);
	return a;
}

static struct node bind(
    uint64_t parent, const char *name, const char *path, enum ufs_kind kind, const char *version)
{
	struct ufs_attr a = attr_of(kind, 10, version);
	struct node n;

	cr_assert_eq(node_bind(r.fs, parent, name, path, &a, &n), 0);
	return n;
}

static void settle(void)
{
	test_loop_settle(r.loop);
}

Test(node, row_keeps_everything)
{
	char name[UFS_NAME_MAX + 1], version[UFS_VERSION_MAX];
	struct ufs_attr a;
	struct node n, m;

	memset(name, 'n', UFS_NAME_MAX);
	name[UFS_NAME_MAX] = '\0';
	memset(version, 'v', UFS_VERSION_MAX - 1);
	version[UFS_VERSION_MAX - 1] = '\0';
	a = attr_of(UFS_FILE, UINT64_C(1) << 50, version);
	a.have_mode = true;
	a.mode = 0641;
	a.uid = 12;
	a.gid = 34;
	cr_assert_eq(node_bind(r.fs, NODE_ROOT, name, name, &a, &n), 0);
	settle();
	cr_assert_eq(node_load(r.fs, n.id, &m), 0);
	cr_assert_eq(m.parent, NODE_ROOT);
	cr_assert_eq(m.size, a.size);
	cr_assert_eq(m.mtime.tv_sec, 5);
	cr_assert_eq(m.mtime.tv_nsec, 6);
	cr_assert(m.mode == 0641 && m.uid == 12 && m.gid == 34 && (m.flags & NODE_HAVE_MODE));
	cr_assert_str_eq(m.version, version);
	cr_assert_str_eq(m.name, name);
	cr_assert_eq(m.st_ino, n.st_ino);
	cr_assert_neq(m.slot, 0);
}

Test(node, same_version_same_id)
{
	struct node a = bind(NODE_ROOT, "f", "f", UFS_FILE, "v1");
	struct node b = bind(NODE_ROOT, "f", "f", UFS_FILE, "v1");

	cr_assert_eq(a.id, b.id);
	cr_assert_eq(statedb_count(r.db, STATEDB_NODES), 2);
}

Test(node, new_version_new_id_same_ino)
{
	struct node a = bind(NODE_ROOT, "f", "f", UFS_FILE, "v1"), b, old, now;

	node_count(r.fs, &a);
	b = bind(NODE_ROOT, "f", "f", UFS_FILE, "v2");
	cr_assert_neq(a.id, b.id);
	cr_assert_eq(a.st_ino, b.st_ino);
	cr_assert_neq(a.slot, b.slot);
	cr_assert_eq(node_load(r.fs, a.id, &old), 0, "the kernel still knows it");
	cr_assert(old.flags & NODE_REPLACED);
	cr_assert_eq(node_find(r.fs, NODE_ROOT, "f", &now), 0);
	cr_assert_eq(now.id, b.id);
	/* FORGET of the old one must not unbind the new one. */
	cr_assert_eq(node_forget(r.fs, a.id, 1), 0);
	cr_assert_eq(node_load(r.fs, a.id, &old), -ENOENT);
	cr_assert_eq(node_find(r.fs, NODE_ROOT, "f", &now), 0);
	cr_assert_eq(now.id, b.id);
}

Test(node, unknown_old_version_leaves_nothing)
{
	struct node a = bind(NODE_ROOT, "f", "f", UFS_FILE, "v1"), old;

	bind(NODE_ROOT, "f", "f", UFS_FILE, "v2");
	cr_assert_eq(node_load(r.fs, a.id, &old), -ENOENT, "nobody counted it");
}

Test(node, kind_change_is_a_new_id)
{
	struct node a = bind(NODE_ROOT, "x", "x", UFS_FILE, "v1");
	struct node b = bind(NODE_ROOT, "x", "x", UFS_DIR, "");

	cr_assert_neq(a.id, b.id);
}

Test(node, forget_counts)
{
	struct node n = bind(NODE_ROOT, "f", "f", UFS_FILE, "v1"), m;
	uint32_t slot = n.slot;

	node_count(r.fs, &n);
	node_count(r.fs, &n);
	node_count(r.fs, &n);
	cr_assert_eq(node_forget(r.fs, n.id, 2), 0);
	cr_assert_eq(node_load(r.fs, n.id, &m), 0);
	cr_assert_eq(node_forget(r.fs, n.id, 1), 0);
	cr_assert_eq(node_load(r.fs, n.id, &m), -ENOENT);
	cr_assert_eq(node_find(r.fs, NODE_ROOT, "f", &m), -ENOENT);
	/* The slot comes back only after the commit. */
	n = bind(NODE_ROOT, "g", "g", UFS_FILE, "v1");
	cr_assert_neq(n.slot, slot);
	settle();
	loop_turn(r.loop, false);
	n = bind(NODE_ROOT, "h", "h", UFS_FILE, "v1");
	cr_assert_eq(n.slot, slot);
	cr_assert_neq(n.id, m.id);
}

Test(node, forget_waits_for_handles)
{
	struct node n = bind(NODE_ROOT, "f", "f", UFS_FILE, "v1"), m;

	node_count(r.fs, &n);
	cr_assert_eq(node_add_open(r.fs, n.id, 1), 0);
	cr_assert_eq(node_forget(r.fs, n.id, 1), 0);
	cr_assert_eq(node_load(r.fs, n.id, &m), 0);
	cr_assert_eq(node_add_open(r.fs, n.id, -1), 0);
	cr_assert_eq(node_load(r.fs, n.id, &m), -ENOENT);
}

Test(node, root_is_never_forgotten)
{
	struct node n;

	cr_assert_eq(node_forget(r.fs, NODE_ROOT, 1000), 0);
	cr_assert_eq(node_load(r.fs, NODE_ROOT, &n), 0);
	cr_assert_eq(n.st_ino, 1);
}

Test(node, unbind_keeps_what_the_kernel_knows)
{
	struct node n = bind(NODE_ROOT, "f", "f", UFS_FILE, "v1"), m;

	node_count(r.fs, &n);
	cr_assert_eq(node_unbind(r.fs, NODE_ROOT, "f"), 0);
	cr_assert_eq(node_find(r.fs, NODE_ROOT, "f", &m), -ENOENT);
	cr_assert_eq(node_load(r.fs, n.id, &m), 0);
	cr_assert(m.flags & NODE_REPLACED);
	cr_assert_eq(node_unbind(r.fs, NODE_ROOT, "f"), 0);
	cr_assert_eq(node_forget(r.fs, n.id, 1), 0);
	cr_assert_eq(node_load(r.fs, n.id, &m), -ENOENT);
}

Test(node, freshness)
{
	struct node n;

	test_clock_advance(&r.clock, NS_PER_S);
	settle();
	n = bind(NODE_ROOT, "f", "f", UFS_FILE, "v1");
	cr_assert(node_fresh(r.fs, &n));
	cr_assert_float_eq(node_ttl(r.fs, &n), 1.0, 1e-6);
	test_loop_pass(r.loop, &r.clock, 400 * NS_PER_MS);
	cr_assert(node_fresh(r.fs, &n));
	cr_assert_float_eq(node_ttl(r.fs, &n), 0.6, 1e-6);
	test_loop_pass(r.loop, &r.clock, 600 * NS_PER_MS);
	cr_assert_not(node_fresh(r.fs, &n));
	cr_assert_eq(node_ttl(r.fs, &n), 0.0);
	n.fetched_ns = loop_now(r.loop) + NS_PER_S; /* another clock wrote it */
	cr_assert_not(node_fresh(r.fs, &n));
}

Test(node, refresh)
{
	struct node n = bind(NODE_ROOT, "f", "f", UFS_FILE, "v1"), m;
	struct ufs_attr same = attr_of(UFS_FILE, 10, "v1"), other = attr_of(UFS_FILE, 99, "v2");

	node_count(r.fs, &n);
	same.mtime.tv_sec = 77;
	cr_assert_eq(node_refresh(r.fs, &n, &same), 0);
	cr_assert_eq(node_load(r.fs, n.id, &m), 0);
	cr_assert_eq(m.mtime.tv_sec, 77);
	cr_assert_eq(node_refresh(r.fs, &n, &other), -ESTALE);
	cr_assert_eq(node_load(r.fs, n.id, &m), 0);
	cr_assert(m.flags & NODE_REPLACED);
	cr_assert_eq(m.size, 10, "frozen");
}

Test(node, paths)
{
	struct node a = bind(NODE_ROOT, "a", "a", UFS_DIR, "");
	struct node b = bind(a.id, "b", "a/b", UFS_DIR, "");
	struct node c = bind(b.id, "c", "a/b/c", UFS_FILE, "v");
	char path[UFS_PATH_MAX + 1], name[UFS_NAME_MAX + 1];
	int i, err = 0;

	cr_assert_eq(node_path(r.fs, NODE_ROOT, path), 0);
	cr_assert_str_eq(path, "");
	cr_assert_eq(node_path(r.fs, c.id, path), 0);
	cr_assert_str_eq(path, "a/b/c");
	cr_assert_eq(node_child_path(r.fs, NODE_ROOT, "x", path), 0);
	cr_assert_str_eq(path, "x");
	cr_assert_eq(node_child_path(r.fs, b.id, "x", path), 0);
	cr_assert_str_eq(path, "a/b/x");
	cr_assert_eq(node_path(r.fs, 12345, path), -ESTALE);
	memset(name, 'y', UFS_NAME_MAX);
	name[UFS_NAME_MAX] = '\0';
	for (i = 0; i < 5; i++) {
		err = node_child_path(r.fs, b.id, name, path);
		if (err != 0)
			break;
		b = bind(b.id, name, path, UFS_DIR, "");
	}
	cr_assert_eq(err, -ENAMETOOLONG);
	cr_assert_eq(i, 3, "3 + 3 * 256 = 771 fits, 1027 does not");
}

Test(node, ino_is_stable_and_never_reserved)
{
	struct node a = bind(NODE_ROOT, "f", "f", UFS_FILE, "v1");

	rig_restart(&r);
	cr_assert_eq(node_ino(r.fs, "f"), a.st_ino);
	cr_assert_neq(node_ino(r.fs, "f"), node_ino(r.fs, "g"));
	cr_assert_gt(a.st_ino, 1);
}

Test(node, ids_are_never_given_out_twice)
{
	struct node a = bind(NODE_ROOT, "f", "f", UFS_FILE, "v1"), b, m;
	struct fs_info before, after;

	fs_info(r.fs, &before);
	rig_restart(&r);
	fs_info(r.fs, &after);
	cr_assert_eq(before.mount_id, after.mount_id);
	cr_assert_neq(after.mount_id, 0);
	cr_assert_eq(node_load(r.fs, a.id, &m), 0);
	b = bind(NODE_ROOT, "g", "g", UFS_FILE, "v1");
	cr_assert_gt(b.id, a.id);
}

Test(node, damaged_row_is_an_error)
{
	struct node n = bind(NODE_ROOT, "f", "f", UFS_FILE, "v1"), m;
	uint64_t be = __builtin_bswap64(n.id);
	struct statedb_val v;
	unsigned char copy[512];
	size_t len;

	cr_assert_eq(statedb_get(r.db, STATEDB_NODES, &be, 8, &v), 0);
	memcpy(copy, v.data, len = v.len);
	cr_assert_eq(statedb_put(r.db, STATEDB_NODES, &be, 8, copy, len - 1), 0);
	cr_assert_eq(node_load(r.fs, n.id, &m), -EPROTO);
	copy[0]++;
	cr_assert_eq(statedb_put(r.db, STATEDB_NODES, &be, 8, copy, len), 0);
	cr_assert_eq(node_load(r.fs, n.id, &m), -EPROTO);
	cr_assert_eq(statedb_put(r.db, STATEDB_NODES, &be, 8, copy, 3), 0);
	cr_assert_eq(node_load(r.fs, n.id, &m), -EPROTO);
}
