/* SPDX-License-Identifier: BSD-2-Clause */
/* Stores that cannot be opened, and records that this build does not know. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "meta_rig.h"

static struct meta_rig g;

static void init(void)
{
	meta_rig_init(&g);
}

static void fini(void)
{
	meta_rig_fini(&g);
}

TestSuite(meta_unreadable, .init = init, .fini = fini);

/* --- What cannot be opened */

static void refused(const char *words)
{
	struct meta_status st;

	meta_rig_new(&g);
	meta_open(g.meta);
	cr_assert_eq(meta_rig_put(&g, "d/1", 1), -EIO);
	st = meta_rig_status(&g);
	cr_assert(!st.open);
	HAS(st.error, words);
	HAS(st.error, g.dir);
	meta_rig_free(&g);
}

/* Puts one row into a table of a closed store. */
static void put_row(const char *table, const void *key, size_t klen, const void *val, size_t vlen)
{
	MDB_val k = { klen, (void *)(uintptr_t)key }, v = { vlen, (void *)(uintptr_t)val };
	char path[128];
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;

	(void)snprintf(path, sizeof(path), "%s/meta.mdb", g.dir);
	cr_assert_eq(mdb_env_create(&env), 0);
	mdb_env_set_maxdbs(env, 16);
	cr_assert_eq(mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOLOCK, 0600), 0);
	cr_assert_eq(mdb_txn_begin(env, NULL, 0, &txn), 0);
	cr_assert_eq(mdb_dbi_open(txn, table, 0, &dbi), 0);
	cr_assert_eq(mdb_put(txn, dbi, &k, &v, 0), 0);
	cr_assert_eq(mdb_txn_commit(txn), 0);
	mdb_env_close(env);
}

static void overwrite(off_t len, const char *text)
{
	char path[128];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/meta.mdb", g.dir);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	cr_assert_geq(fd, 0);
	cr_assert(len < 0 || ftruncate(fd, len) == 0);
	cr_assert_eq(pwrite(fd, text, strlen(text), 0), (ssize_t)strlen(text));
	close(fd);
}

Test(meta_unreadable, a_newer_format)
{
	static const unsigned char three[8] = { 0, 0, 0, 0, 0, 0, 0, 3 }, none[8];

	meta_rig_open(&g);
	meta_rig_free(&g);
	put_row("meta", "format", 6, three, 8);
	refused("is of format 3, this build knows format 2");
	put_row("meta", "format", 6, none, 8);
	refused("is of format 0");
	put_row("meta", "format", 6, three, 3);
	refused("damaged");
}

Test(meta_unreadable, not_a_store)
{
	meta_rig_open(&g);
	meta_rig_free(&g);
	overwrite(100000, "this is a text and not a database");
	refused("meta.mdb");
	overwrite(0, "");
	refused("meta.mdb");
}

Test(meta_unreadable, a_file_that_ends_too_early)
{
	meta_rig_open(&g);
	for (unsigned i = 0; i < 5; i++)
		cr_assert_eq(meta_rig_put(&g, "a/b/c", i), 0);
	meta_rig_free(&g);
	overwrite(3 * 4096, "");
	refused("ends too early");
}

Test(meta_unreadable, a_directory_that_cannot_be)
{
	char file[128];
	int fd;

	(void)snprintf(file, sizeof(file), "%s/file", g.top);
	fd = open(file, O_WRONLY | O_CREAT, 0600);
	cr_assert_geq(fd, 0);
	close(fd);
	(void)snprintf(g.dir, sizeof(g.dir), "%s/file/meta", g.top);
	refused("create directory");
	(void)snprintf(g.dir, sizeof(g.dir), "%s/open", g.top);
	cr_assert_eq(mkdir(g.dir, 0777), 0);
	cr_assert_eq(chmod(g.dir, 0777), 0);
	refused("writable by nobody else");
}

Test(meta_unreadable, half_a_store_is_begun_afresh)
{
	char path[128];
	int fd;

	cr_assert_eq(mkdir(g.dir, 0700), 0);
	(void)snprintf(path, sizeof(path), "%s/meta.mdb.new", g.dir);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	cr_assert_eq(write(fd, "half", 4), 4);
	close(fd);
	meta_rig_open(&g);
	cr_assert_eq(meta_rig_put(&g, "a", 1), 0);
	cr_assert_neq(access(path, F_OK), 0);
}

Test(meta_unreadable, records_that_this_build_does_not_know)
{
	unsigned char key[16] = { 0, 0, 0, 0, 0, 0, 0, 1, 'x' }, val[80] = { 9 };
	struct meta_scan scan = { .path = "" };
	struct meta_intents all = { .count = 0 };
	struct meta_record rec;

	meta_rig_open(&g);
	cr_assert_eq(meta_rig_put(&g, "a/b", 1), 0);
	cr_assert_eq(meta_rig_put(&g, "z", 1), 0);
	meta_rig_free(&g);
	put_row("tree", key, 9, val, sizeof(val));
	put_row("intents", key, 8, val, 10);
	meta_rig_open(&g);
	log_set_level(LOG_LVL_ERROR);
	cr_assert_eq(meta_rig_get(&g, "x/below", &rec), -EIO);
	HAS(meta_rig_status(&g).error, "record of 'x' (for 'x/below') is of version 9");
	cr_assert_eq(meta_rig_get(&g, "x", &rec), -EIO);
	HAS(meta_rig_status(&g).error, "(for 'x')");
	cr_assert_eq(meta_rig_scan(&g, &scan), -EIO);
	HAS(meta_rig_status(&g).error, "record of 'x' (for '')");
	scan.last = "w";
	cr_assert_eq(meta_rig_scan(&g, &scan), 0, "it is not in this window");
	cr_assert_eq(meta_rig_put(&g, "x", 1), -EIO, "not overwritten either");
	cr_assert_eq(meta_rig_put(&g, "x/y", 1), -EIO);
	cr_assert_eq(meta_rig_intents(&g, &all), -EIO);
	HAS(meta_rig_status(&g).error, "intent 1 is of version 9");
	cr_assert_eq(meta_rig_mode(&g, "a/b"), 1);
	cr_assert(meta_rig_status(&g).open);
	meta_rig_free(&g);
	/* Known version, nonsense inside. */
	val[0] = 1;
	val[1] = 77;
	put_row("tree", key, 9, val, sizeof(val));
	meta_rig_open(&g);
	cr_assert_eq(meta_rig_get(&g, "x", &rec), -EIO);
	HAS(meta_rig_status(&g).error, "is damaged");
	meta_scan_free(&scan);
}

Test(meta_unreadable, what_is_queued_and_cannot_be_read)
{
	unsigned char key[9] = { 0, 0, 0, 0, 0, 0, 0, 1, 'x' }, val[80] = { 9 };
	struct meta_queue q = { .until_ns = UINT64_MAX };
	struct meta_content_get rq = { .id = META_RIG_ID(1) };
	struct meta_change ch[3] = { meta_rig_content("x", 1, META_STATE_NOT_PERSISTED, 1),
		meta_rig_content("y", 2, META_STATE_NOT_PERSISTED, 1),
		meta_rig_content("z", 3, META_STATE_FAILED, 1) };

	meta_rig_open(&g);
	cr_assert_eq(meta_rig_txn(&g, ch, 3), 0);
	meta_rig_free(&g);
	put_row("tree", key, 9, val, sizeof(val));
	meta_rig_open(&g);
	log_set_level(LOG_LVL_ERROR);
	cr_assert_eq(meta_rig_queue(&g, &q), 0);
	cr_assert_eq(q.count, 2, "the others");
	cr_assert_str_eq(q.entries[0].name, "y");
	HAS(meta_rig_status(&g).error, "record of 'x'");
	HAS(meta_rig_status(&g).error, "is of version 9");
	cr_assert_eq(meta_rig_content_get(&g, &rq), -EIO);
	meta_queue_free(&q);
	meta_rig_free(&g);
	/* Another's record in its place. */
	val[0] = 1;
	val[1] = META_FILE;
	put_row("tree", key, 9, val, 56);
	meta_rig_open(&g);
	cr_assert_eq(meta_rig_queue(&g, &q), 0);
	cr_assert_eq(q.count, 2);
	HAS(meta_rig_status(&g).error, "has not content 8000000000000001");
	meta_queue_free(&q);
}
