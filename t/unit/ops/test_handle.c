/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ops/handle.h"
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

TestSuite(handle, .init = setup, .fini = teardown);
TestSuite(dir_cookies, .init = setup, .fini = teardown);

static struct node make(const char *name, enum ufs_kind kind)
{
	struct ufs_attr a = {.kind = kind, .size = 777};
	struct node n;

	if (kind == UFS_FILE)
		strcpy(a.version, "v1");
	cr_assert_eq(node_bind(r.fs, NODE_ROOT, name, name, &a, &n), 0);
	return n;
}

Test(handle, open_get_release)
{
	struct node n = make("f", UFS_FILE), m;
	struct handle *h, *g;
	uint64_t id;

	cr_assert_eq(handle_open(r.fs, &n, "f", &h), 0);
	id = h->id;
	cr_assert_eq(cache_blob_size(h->blob), 777);
	cr_assert_eq(handle_get(r.fs, id, UFS_FILE, &g), 0);
	cr_assert_eq(g, h);
	cr_assert_eq(handle_get(r.fs, id, UFS_DIR, &g), -EBADF);
	cr_assert_eq(handle_get(r.fs, id + 1, UFS_FILE, &g), -EBADF);
	cr_assert_eq(node_load(r.fs, n.id, &m), 0);
	cr_assert_eq(m.opens, 1);
	cr_assert_eq(handle_release(r.fs, id, UFS_DIR), -EBADF);
	cr_assert_eq(handle_release(r.fs, id, UFS_FILE), 0);
	cr_assert_eq(handle_get(r.fs, id, UFS_FILE, &g), -EBADF);
	cr_assert_eq(handle_release(r.fs, id, UFS_FILE), -EBADF);
	cr_assert_eq(statedb_count(r.db, STATEDB_HANDLES), 0);
	cr_assert_eq(node_load(r.fs, n.id, &m), -ENOENT, "nobody holds it any more");
}

/* What a new daemon finds: the version that was opened, though it is gone. */
Test(handle, is_loaded_after_restart)
{
	struct node n = make("dir-file", UFS_FILE);
	struct fs_info info;
	struct handle *h;
	uint64_t file, dir;

	cr_assert_eq(handle_open(r.fs, &n, "dir-file", &h), 0);
	file = h->id;
	n = make("d", UFS_DIR);
	cr_assert_eq(handle_open(r.fs, &n, "", &h), 0);
	dir = h->id;
	rig_restart(&r);
	fs_info(r.fs, &info);
	cr_assert_eq(info.open_files, 1);
	cr_assert_eq(info.open_dirs, 1);
	cr_assert_eq(handle_get(r.fs, file, UFS_FILE, &h), 0);
	cr_assert_eq(cache_blob_size(h->blob), 777);
	cr_assert_eq(handle_get(r.fs, dir, UFS_DIR, &h), 0);
	cr_assert_eq(h->node, n.id);
	/* Released without ever having been in memory again. */
	rig_restart(&r);
	cr_assert_eq(handle_release(r.fs, file, UFS_FILE), 0);
	cr_assert_eq(handle_release(r.fs, dir, UFS_DIR), 0);
	fs_info(r.fs, &info);
	cr_assert_eq(info.open_files, 0);
	cr_assert_eq(info.open_dirs, 0);
	cr_assert_eq(handle_open(r.fs, &n, "", &h), -ENOENT, "its node went with the handle");
}

Test(handle, stays_while_used)
{
	struct node n = make("f", UFS_FILE);
	struct handle *h, *g;

	cr_assert_eq(handle_open(r.fs, &n, "f", &h), 0);
	handle_use(h);
	cr_assert_eq(handle_release(r.fs, h->id, UFS_FILE), 0);
	cr_assert_eq(cache_blob_size(h->blob), 777);
	cr_assert_eq(handle_get(r.fs, h->id, UFS_FILE, &g), -EBADF);
	handle_unuse(r.fs, h);
	cr_assert_null(r.fs->handles);
}

/* --- Cookies */

static void store(uint64_t fh, uint64_t first, unsigned count)
{
	struct cookie_row row = {.first = first};
	char name[32];

	for (unsigned i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "h%u-n%u", (unsigned)fh, (unsigned)first + i);
		cr_assert_eq(
		    cookie_row_add(&row, name, strlen(name), i % 2 ? UFS_DIR : UFS_FILE), 0);
	}
	cr_assert_eq(cookie_row_store(r.fs, fh, &row), 0);
	cookie_row_fini(&row);
}

static void expect(uint64_t fh, uint64_t cookie, const char *name, enum ufs_kind kind)
{
	char got[UFS_NAME_MAX + 1];
	enum ufs_kind k;

	cr_assert_eq(cookie_find(r.fs, fh, cookie, got, &k), 0, "cookie %u", (unsigned)cookie);
	cr_assert_str_eq(got, name);
	cr_assert_eq(k, kind);
}

Test(dir_cookies, every_cookie_has_its_name)
{
	char got[UFS_NAME_MAX + 1];
	enum ufs_kind k;

	store(7, 3, 5);
	store(7, 8, 300);
	store(8, 3, 1);
	expect(7, 3, "h7-n3", UFS_FILE);
	expect(7, 4, "h7-n4", UFS_DIR);
	expect(7, 7, "h7-n7", UFS_FILE);
	expect(7, 8, "h7-n8", UFS_FILE);
	expect(7, 307, "h7-n307", UFS_DIR);
	expect(8, 3, "h8-n3", UFS_FILE);
	cr_assert_eq(cookie_find(r.fs, 7, 308, got, &k), -ENOENT);
	cr_assert_eq(cookie_find(r.fs, 7, 2, got, &k), -ENOENT);
	cr_assert_eq(cookie_find(r.fs, 8, 4, got, &k), -ENOENT);
	cr_assert_eq(
	    cookie_find(r.fs, 9, 3, got, &k), -ENOENT, "another handle's rows do not count");
	cr_assert_eq(cookie_find(r.fs, 6, 3, got, &k), -ENOENT);
}

Test(dir_cookies, drop)
{
	char got[UFS_NAME_MAX + 1];
	enum ufs_kind k;

	store(7, 3, 5);
	store(7, 8, 5);
	store(8, 3, 5);
	cr_assert_eq(cookie_drop(r.fs, 7), 0);
	cr_assert_eq(cookie_find(r.fs, 7, 3, got, &k), -ENOENT);
	cr_assert_eq(cookie_find(r.fs, 7, 9, got, &k), -ENOENT);
	expect(8, 5, "h8-n5", UFS_FILE);
	cr_assert_eq(statedb_count(r.db, STATEDB_COOKIES), 1);
	cr_assert_eq(cookie_drop(r.fs, 7), 0);
}

Test(dir_cookies, next)
{
	uint64_t next;

	cr_assert_eq(cookie_next(r.fs, 7, 3, &next), 0);
	cr_assert_eq(next, 3);
	store(6, 3, 50);
	store(7, 3, 5);
	store(8, 3, 50);
	cr_assert_eq(cookie_next(r.fs, 7, 3, &next), 0);
	cr_assert_eq(next, 8);
	store(7, 100, 7);
	cr_assert_eq(cookie_next(r.fs, 7, 3, &next), 0);
	cr_assert_eq(next, 107);
	cr_assert_eq(cookie_next(r.fs, 9, 3, &next), 0);
	cr_assert_eq(next, 3);
}

Test(dir_cookies, damaged_row_is_an_error)
{
	static const unsigned char bad[][4] = {{9, 0, 1, 'a'}, {1, 0, 9, 'a'}, {1, 0, 2, 'a'}};
	uint64_t key[2] = {__builtin_bswap64(7), __builtin_bswap64(3)};
	char got[UFS_NAME_MAX + 1];
	enum ufs_kind k;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_assert_eq(statedb_put(r.db, STATEDB_COOKIES, key, sizeof(key), bad[i], 4), 0);
		cr_assert_eq(cookie_find(r.fs, 7, 3, got, &k), -EPROTO);
	}
}
