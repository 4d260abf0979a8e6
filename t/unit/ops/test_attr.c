/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "../../lib/nth_fault.h"
#include "meta_rig.h"
#include "ops/attr.h"
#include "ops/node.h"

static struct rig r;
static struct meta *store;

static void setup(void)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount_writing(&r, "attr_timeout=1");
	store = r.fs->meta;
}

static void teardown(void)
{
	rig_free(&r);
}

TestSuite(attr, .init = setup, .fini = teardown);

static bool over;
static int result;

static void get_done(struct attr_get *g, int err)
{
	(void)g;
	over = true;
	result = err;
}

static int get(struct attr_get *g, const char *path)
{
	memset(g, 0, sizeof(*g));
	g->path = path;
	over = false;
	attr_get_start(r.fs, g, get_done);
	cr_assert_not(over, "never inline");
	meta_rig_until(&r, &over);
	return result;
}

Test(attr, storage_alone)
{
	struct attr_get g;

	fake_add(&r.ufs, "f", UFS_FILE, 5, "v1");
	cr_assert_eq(get(&g, "f"), 0);
	cr_assert_eq(g.attr.size, 5);
	cr_assert_not(g.attr.have_mode);
	cr_assert_not(g.have_record);
	cr_assert_eq(get(&g, "none"), -ENOENT);
	r.fs->meta = NULL;
	cr_assert_eq(get(&g, "f"), 0);
	r.fs->meta = store;
}

Test(attr, record_over_storage)
{
	struct meta_record rec = {.kind = META_FILE, .has = META_HAS_MODE | META_HAS_MTIME,
	    .mode = 0600, .mtime = {7, 8}, .version = "v1"};
	struct attr_get g;

	fake_add(&r.ufs, "f", UFS_FILE, 5, "v1");
	meta_rig_put(&r, "f", &rec);
	cr_assert_eq(get(&g, "f"), 0);
	cr_assert(g.have_record && g.attr.have_mode);
	cr_assert_eq(g.attr.mode, 0600);
	cr_assert_eq(g.attr.uid, r.fs->uid, "the mount's default for what nobody said");
	cr_assert_eq(g.attr.mtime.tv_sec, 7);
	/* Another version: its time is its own. */
	fake_add(&r.ufs, "g", UFS_FILE, 5, "v2");
	meta_rig_put(&r, "g", &rec);
	cr_assert_eq(get(&g, "g"), 0);
	cr_assert_eq(g.attr.mode, 0600);
	cr_assert_neq(g.attr.mtime.tv_sec, 7);
	/* A record alone makes no file. */
	meta_rig_put(&r, "h", &rec);
	cr_assert_eq(get(&g, "h"), -ENOENT);
}

Test(attr, record_of_another_kind_says_nothing)
{
	struct meta_record rec = {.kind = META_DIR, .has = META_HAS_MODE, .mode = 0700};
	struct attr_get g;

	fake_add(&r.ufs, "f", UFS_FILE, 5, "v1");
	meta_rig_put(&r, "f", &rec);
	cr_assert_eq(get(&g, "f"), 0);
	cr_assert_not(g.attr.have_mode);
}

Test(attr, storage_that_keeps_them_is_asked_alone)
{
	struct meta_record rec = {.kind = META_FILE, .has = META_HAS_MODE, .mode = 0600};
	struct attr_get g;

	fake_add(&r.ufs, "f", UFS_FILE, 5, "v1");
	meta_rig_put(&r, "f", &rec);
	fake_can(&r.ufs, UFS_CAN_SETATTR | UFS_CAN_RENAME | UFS_CAN_ABSENT);
	cr_assert(attr_native(r.fs, "f"));
	cr_assert_eq(get(&g, "f"), 0);
	cr_assert_not(g.have_record);
}

Test(attr, given_up)
{
	struct attr_get g;
	unsigned i;

	fake_add(&r.ufs, "f", UFS_FILE, 5, "v1");
	memset(&g, 0, sizeof(g));
	g.path = "f";
	over = false;
	attr_get_start(r.fs, &g, get_done);
	attr_get_abort(&g);
	for (i = 0; i < 100; i++)
		loop_turn(r.loop, false);
	cr_assert_not(over);
}

Test(attr, storage_fails)
{
	struct attr_get g;

	r.ufs.err = -ETIMEDOUT;
	cr_assert_eq(get(&g, "f"), -ETIMEDOUT);
}

Test(attr, no_memory)
{
	struct meta_record rec = {.kind = META_FILE, .has = META_HAS_MODE, .mode = 0600};
	struct attr_get g;
	unsigned n;
	int err;

	fake_add(&r.ufs, "f", UFS_FILE, 5, "v1");
	meta_rig_put(&r, "f", &rec);
	for (n = 1;; n++) {
		nth_arm(n);
		memset(&g, 0, sizeof(g));
		g.path = "f";
		over = false;
		attr_get_start(r.fs, &g, get_done);
		nth_disarm();
		meta_rig_until(&r, &over);
		err = result;
		if (!nth_fired())
			break;
		cr_assert(err == -ENOMEM || err == 0, "%d", err);
	}
	cr_assert_eq(err, 0);
	cr_assert_gt(n, 2);
}

Test(attr, records)
{
	struct ufs_attr attr = {.kind = UFS_FILE, .version = "v2"};
	struct ufs_set set = {.what = UFS_SET_UID, .uid = 3};
	struct meta_record old = {.kind = META_FILE, .has = META_HAS_MODE | META_HAS_MTIME,
	    .mode = 0640, .version = "v1", .mtime = {1, 0}};
	struct meta_record rec;

	attr_record(&rec, &old, &attr, &set);
	cr_assert_eq(rec.has, META_HAS_MODE | META_HAS_UID, "the time was of other content");
	cr_assert(rec.mode == 0640 && rec.uid == 3);
	cr_assert_str_eq(rec.version, "v2");
	strcpy(old.version, "v2");
	attr_record(&rec, &old, &attr, &set);
	cr_assert_eq(rec.has, META_HAS_MODE | META_HAS_UID | META_HAS_MTIME);
	old.kind = META_PASS;
	set = (struct ufs_set){.what = UFS_SET_MODE | UFS_SET_GID | UFS_SET_ATIME | UFS_SET_MTIME,
	    .mode = 04755, .gid = 9, .atime = {5, 5}, .mtime = {6, 6}};
	attr_record(&rec, &old, &attr, &set);
	cr_assert_eq(rec.kind, META_FILE);
	cr_assert_eq(rec.has, META_HAS_MODE | META_HAS_GID | META_HAS_ATIME | META_HAS_MTIME);
	cr_assert(rec.mode == 04755 && rec.gid == 9 && rec.atime.tv_sec == 5 &&
		  rec.mtime.tv_sec == 6);
	attr.kind = UFS_DIR;
	attr.version[0] = '\0';
	attr_record(&rec, NULL, &attr, &set);
	cr_assert_eq(rec.kind, META_DIR);
}

Test(attr, what_stands_without_a_record)
{
	const struct node known = {.kind = UFS_FILE, .size = 5, .version = "v1"};
	const struct attr_get said = {.alone = true,
	    .stat.attr = {.kind = UFS_FILE, .size = 5, .version = "v1"}};
	struct attr_get g = said;
	struct node n = known;

	cr_assert(attr_stands(&g, &n));
	g.alone = false;
	cr_assert_not(attr_stands(&g, &n), "the storage has not answered, or both have");
	g = said;
	strcpy(g.stat.attr.version, "v2");
	cr_assert_not(attr_stands(&g, &n));
	g = said;
	g.stat.attr.size = 6;
	cr_assert_not(attr_stands(&g, &n));
	g = said;
	g.stat.attr.kind = UFS_DIR;
	cr_assert_not(attr_stands(&g, &n));
	n.kind = UFS_DIR;
	cr_assert(attr_stands(&g, &n));
	g = said;
	n = known;
	n.flags = NODE_REPLACED;
	cr_assert_not(attr_stands(&g, &n));
	n.flags = NODE_LOCAL;
	cr_assert_not(attr_stands(&g, &n));
	/* A storage without versions says nothing of the content. */
	n = known;
	n.version[0] = g.stat.attr.version[0] = '\0';
	cr_assert_not(attr_stands(&g, &n));
}
