/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two dangers shape this file.
 *
 * A write into a page of the map that the tmpfs has no memory for is a SIGBUS.
 * So the file is allocated ahead, and every write first proves that the pages it
 * may take are allocated.
 *
 * LMDB spoils the whole transaction when the map is full.  So that is proved too,
 * and a put is refused while there is still room for deleting rows.
 *
 * The proof is an upper bound: each write is charged the most pages it can take
 * (a copy and a split of each page on its path, its overflow pages), on top of the
 * highest page of the last commit.  When the sum gets large it is brought down by
 * what is known for sure: a transaction holds no more single pages than the tables
 * have, and pages that were freed before are taken first.
 */
#include "reactor/statedb.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/log.h"
#include "base/obj.h"
#include "reactor/loop.h"

#define STATEDB_MAGIC 0x57a7ed80u

/* Pages are allocated so many at a time. */
#define STEP_PAGES 256
/* Pages that only deleting may use. */
#define DELETE_PAGES 256
/* LMDB holds at most 131071 dirty pages a transaction. */
#define TURN_PAGES_MAX 120000
/* A named table's record in the main table, and slack for its own pages. */
#define COMMIT_PAGES 32

struct statedb {
	uint32_t magic;
	struct loop *loop;
	struct turn_hook hook;
	bool hooked;
	const struct epoch *epoch;
	MDB_env *env;
	MDB_dbi dbi[STATEDB_TABLES];
	int fd;
	bool unlimited; /* a ramfs has no fallocate and no limit */
	bool lost;	/* a turn's work is gone: -EIO until statedb_recover() */

	MDB_txn *txn; /* begun at the first access of a turn */
	MDB_cursor *cur[STATEDB_TABLES];
	bool dirty;

	/* All in pages. */
	uint64_t page_size;
	uint64_t max;	    /* of the map */
	uint64_t allocated; /* the file's beginning that has memory */
	uint64_t base;	    /* in use at the last commit, free ones included */
	uint64_t single;    /* upper bound of single pages taken since */
	uint64_t runs;	    /* the same of pages that must be contiguous */
	uint64_t shrunk;    /* part of `single` for deletions since `peak` was taken */
	uint64_t peak;	    /* most single pages the tables had in this turn */
	uint64_t nfree;	    /* usable free pages; valid if nfree_known */
	bool nfree_known;
};

static const char *const table_names[STATEDB_TABLES] = {
	[STATEDB_META] = "meta",
	[STATEDB_NODES] = "nodes",
	[STATEDB_NAMES] = "names",
	[STATEDB_HANDLES] = "handles",
	[STATEDB_COOKIES] = "cookies",
	[STATEDB_LEDGER] = "ledger",
	[STATEDB_INOS] = "inos",
	[STATEDB_SESSIONS] = "sessions",
	[STATEDB_STAGED] = "staged",
	[STATEDB_EXTENTS] = "extents",
	[STATEDB_META_LATER] = "meta later",
	[STATEDB_PARTS] = "parts",
	[STATEDB_UNLINKED] = "unlinked",
	[STATEDB_BYTES] = "bytes",
};

/* --- Space */

static int allocate(struct statedb *db, uint64_t upto)
{
	off_t from = (off_t)(db->allocated * db->page_size);
	off_t len = (off_t)((upto - db->allocated) * db->page_size);
	int rc;

	do
		rc = fallocate(db->fd, FALLOC_FL_KEEP_SIZE, from, len);
	while (rc != 0 && errno == EINTR);
	if (rc != 0)
		return -ENOSPC;
	db->allocated = upto;
	return 0;
}

/* Memory for pages below `need`, with a step ahead where there is room. */
static int ensure_allocated(struct statedb *db, uint64_t need)
{
	uint64_t ahead = (need / STEP_PAGES + 1) * STEP_PAGES;

	if (need <= db->allocated)
		return 0;
	if (allocate(db, MIN(ahead, db->max)) == 0)
		return 0;
	return allocate(db, need);
}

/* The free list's rows that this transaction may use: those of the last commit
 * stay untouched until the next one.  Only readers may look at the list; without
 * locks a reader beside our writer costs nothing and keeps nothing. */
static uint64_t count_free(struct statedb *db)
{
	MDB_cursor *cur = NULL;
	MDB_val key, val;
	MDB_txn *txn;
	uint64_t n = 0;

	if (mdb_txn_begin(db->env, NULL, MDB_RDONLY, &txn) != 0)
		return 0;
	if (mdb_cursor_open(txn, 0, &cur) == 0) {
		while (mdb_cursor_get(cur, &key, &val, MDB_NEXT) == 0) {
			size_t id;

			memcpy(&id, key.mv_data, sizeof(id));
			if (id >= mdb_txn_id(txn))
				break;
			n += val.mv_size / sizeof(size_t) - 1;
		}
		mdb_cursor_close(cur);
	}
	mdb_txn_abort(txn);
	return n;
}

/* Brings the bound of single pages down to what the tables can hold. */
static void tighten(struct statedb *db)
{
	uint64_t live = 0;

	for (int t = 0; t < STATEDB_TABLES; t++) {
		MDB_stat st;

		if (mdb_stat(db->txn, db->dbi[t], &st) == 0)
			live += st.ms_branch_pages + st.ms_leaf_pages;
	}
	/* Putting never makes a table smaller, so between two looks it had at most
	 * what it has now and what was deleted. */
	db->peak = MAX(db->peak, live + db->shrunk);
	db->shrunk = 0;
	db->single = MIN(db->single, db->peak);
	if (!db->nfree_known) {
		db->nfree = count_free(db);
		db->nfree_known = true;
	}
}

/* The highest page a commit could come to, if `single` and `runs` more are taken
 * and `keep` are to stay for deleting.  The commit itself writes the table records
 * and the free list, of which what this transaction adds is one run. */
static uint64_t highest(const struct statedb *db, uint64_t single, uint64_t runs, uint64_t keep)
{
	uint64_t s = db->single + single, r = db->runs + runs;
	uint64_t list = (s + r) / 256;

	s += keep + COMMIT_PAGES + db->base / 256;
	s = s > db->nfree ? s - db->nfree : 0;
	return db->base + s + r + list;
}

/* Pages one write to the table can take: path and splits, or path and merges. */
static uint64_t path_cost(struct statedb *db, enum statedb_table t)
{
	MDB_stat st;

	return mdb_stat(db->txn, db->dbi[t], &st) == 0 ? 2 * st.ms_depth + 2 : 32;
}

static uint64_t run_cost(const struct statedb *db, size_t vlen)
{
	/* Values over a quarter of a page may go to overflow pages. */
	return vlen < db->page_size / 4 ? 0 : (vlen + 16 + db->page_size - 1) / db->page_size;
}

/* The quick answer, without a look at the tables; a small turn rather allocates a
 * step more than it needs. */
static bool fits(struct statedb *db, uint64_t single, uint64_t runs, uint64_t cap, uint64_t keep)
{
	uint64_t need = highest(db, single, runs, keep);

	if (need > cap)
		return false;
	if (need <= db->allocated)
		return true;
	return db->single + db->runs <= STEP_PAGES && ensure_allocated(db, need) == 0;
}

static int charge(struct statedb *db, enum statedb_table t, size_t vlen, bool put)
{
	uint64_t single = path_cost(db, t), runs = put ? run_cost(db, vlen) : 0;
	uint64_t keep = put ? DELETE_PAGES : 0;
	/* Rows large enough to need neighbouring pages cannot count on the free list,
	 * so the last eighth is theirs and the deletions'; small rows may always use
	 * free pages (and the run that the free list itself may need). */
	uint64_t small = MAX(db->max - db->max / 8, db->base + (db->single + single) / 256);
	uint64_t cap = put && runs == 0 ? MIN(small, db->max) : db->max;

	if (!fits(db, single, runs, cap, keep)) {
		uint64_t need;

		tighten(db);
		need = highest(db, single, runs, keep);
		if (need > cap || db->single + db->runs + single + runs > TURN_PAGES_MAX ||
		    ensure_allocated(db, need) != 0)
			return -ENOSPC;
	}
	db->single += single;
	if (!put)
		db->shrunk += single;
	db->runs += runs;
	return 0;
}

/* --- Transactions */

static void close_cursors(struct statedb *db)
{
	for (int t = 0; t < STATEDB_TABLES; t++) {
		if (db->cur[t] != NULL)
			mdb_cursor_close(db->cur[t]);
		db->cur[t] = NULL;
	}
}

static void forget_txn(struct statedb *db)
{
	close_cursors(db);
	mdb_txn_abort(db->txn);
	db->txn = NULL;
	db->dirty = false;
}

static int lose(struct statedb *db, const char *what, int rc)
{
	log_error("state database: %s: %s", what, mdb_strerror(rc));
	db->lost = true;
	if (db->txn != NULL)
		forget_txn(db);
	return -EIO;
}

static int begin(struct statedb *db)
{
	MDB_envinfo info;
	int rc;

	if (db->lost)
		return -EIO;
	if (!epoch_mine(db->epoch))
		return -ESTALE;
	if (db->txn != NULL)
		return 0;
	rc = mdb_txn_begin(db->env, NULL, 0, &db->txn);
	if (rc == ENOMEM) {
		db->txn = NULL;
		return -ENOMEM; /* nothing has been written: nothing is lost */
	}
	if (rc == 0)
		rc = mdb_env_info(db->env, &info);
	if (rc != 0)
		return lose(db, "begin", rc);
	db->base = info.me_last_pgno + 1;
	db->single = db->runs = db->shrunk = db->peak = db->nfree = 0;
	db->nfree_known = false;
	return 0;
}

int statedb_commit(struct statedb *db)
{
	MDB_txn *txn;
	int rc;

	CHECK_OBJ(db, STATEDB_MAGIC);
	if (db->lost)
		return -EIO;
	if (!db->dirty)
		return 0;
	if (!epoch_mine(db->epoch)) {
		forget_txn(db);
		return -ESTALE;
	}
	close_cursors(db);
	txn = db->txn;
	db->txn = NULL;
	db->dirty = false;
	rc = mdb_txn_commit(txn);
	if (rc != 0)
		return lose(db, "commit", rc);
	COUNT(db->loop, STATEDB_COMMITS, 1);
	return 0;
}

/* A failure shows at the next access: what was written then is gone, so nothing
 * that depends on it may be said. */
static void on_turn_end(struct turn_hook *h)
{
	struct statedb *db = container_of(h, struct statedb, hook);
	int rc = statedb_commit(db);

	if (rc == -ESTALE)
		log_warn("state database: another daemon has taken over; this turn's changes "
			 "are dropped");
}

bool statedb_dirty(const struct statedb *db)
{
	return db->dirty;
}

bool statedb_lost(const struct statedb *db)
{
	return db->lost;
}

void statedb_recover(struct statedb *db)
{
	CHECK_OBJ(db, STATEDB_MAGIC);
	db->lost = false;
}

/* --- Rows */

static int key_ok(const struct statedb *db, size_t klen)
{
	return klen >= 1 && klen <= (size_t)mdb_env_get_maxkeysize(db->env) ? 0 : -EINVAL;
}

static int done(struct statedb *db, const char *what, int rc)
{
	if (rc == 0)
		return 0;
	if (rc == MDB_NOTFOUND)
		return -ENOENT;
	return lose(db, what, rc);
}

int statedb_get(struct statedb *db, enum statedb_table t, const void *key, size_t klen,
    struct statedb_val *out)
{
	MDB_val k = { .mv_data = (void *)(uintptr_t)key, .mv_size = klen }, v;
	int rc;

	CHECK_OBJ(db, STATEDB_MAGIC);
	rc = begin(db);
	if (rc == 0)
		rc = key_ok(db, klen);
	if (rc != 0)
		return rc;
	rc = mdb_get(db->txn, db->dbi[t], &k, &v);
	if (rc == 0)
		*out = (struct statedb_val){ v.mv_data, v.mv_size };
	return done(db, "get", rc);
}

int statedb_put(struct statedb *db, enum statedb_table t, const void *key, size_t klen,
    const void *val, size_t vlen)
{
	MDB_val k = { .mv_data = (void *)(uintptr_t)key, .mv_size = klen };
	MDB_val v = { .mv_data = (void *)(uintptr_t)val, .mv_size = vlen };
	int rc;

	CHECK_OBJ(db, STATEDB_MAGIC);
	rc = begin(db);
	if (rc == 0)
		rc = key_ok(db, klen);
	if (rc == 0)
		rc = charge(db, t, vlen, true);
	if (rc != 0)
		return rc;
	db->dirty = true;
	return done(db, "put", mdb_put(db->txn, db->dbi[t], &k, &v, 0));
}

int statedb_del(struct statedb *db, enum statedb_table t, const void *key, size_t klen)
{
	MDB_val k = { .mv_data = (void *)(uintptr_t)key, .mv_size = klen };
	int rc;

	CHECK_OBJ(db, STATEDB_MAGIC);
	rc = begin(db);
	if (rc == 0)
		rc = key_ok(db, klen);
	if (rc == 0)
		rc = charge(db, t, 0, false);
	if (rc != 0)
		return rc;
	rc = mdb_del(db->txn, db->dbi[t], &k, NULL);
	if (rc == 0)
		db->dirty = true;
	return done(db, "delete", rc);
}

static int cursor(struct statedb *db, enum statedb_table t, MDB_cursor **cur)
{
	int rc = begin(db);

	if (rc != 0)
		return rc;
	if (db->cur[t] == NULL) {
		rc = mdb_cursor_open(db->txn, db->dbi[t], &db->cur[t]);
		if (rc == ENOMEM) {
			db->cur[t] = NULL;
			return -ENOMEM;
		}
		if (rc != 0)
			return lose(db, "cursor", rc);
	}
	*cur = db->cur[t];
	return 0;
}

static int seek_result(struct statedb *db, int rc, const MDB_val *k, const MDB_val *v,
    struct statedb_val *fkey, struct statedb_val *fval)
{
	if (rc == 0) {
		*fkey = (struct statedb_val){ k->mv_data, k->mv_size };
		*fval = (struct statedb_val){ v->mv_data, v->mv_size };
	}
	return done(db, "seek", rc);
}

int statedb_seek(struct statedb *db, enum statedb_table t, const void *key, size_t klen,
    struct statedb_val *fkey, struct statedb_val *fval)
{
	MDB_val k = { .mv_data = (void *)(uintptr_t)key, .mv_size = klen }, v = { 0 };
	MDB_cursor *cur;
	int rc;

	CHECK_OBJ(db, STATEDB_MAGIC);
	rc = cursor(db, t, &cur);
	if (rc == 0 && klen != 0)
		rc = key_ok(db, klen);
	if (rc != 0)
		return rc;
	rc = mdb_cursor_get(cur, &k, &v, klen == 0 ? MDB_FIRST : MDB_SET_RANGE);
	return seek_result(db, rc, &k, &v, fkey, fval);
}

int statedb_seek_back(struct statedb *db, enum statedb_table t, const void *key, size_t klen,
    struct statedb_val *fkey, struct statedb_val *fval)
{
	MDB_val k = { .mv_data = (void *)(uintptr_t)key, .mv_size = klen }, v = { 0 };
	MDB_cursor *cur;
	int rc;

	CHECK_OBJ(db, STATEDB_MAGIC);
	rc = cursor(db, t, &cur);
	if (rc == 0)
		rc = key_ok(db, klen);
	if (rc != 0)
		return rc;
	rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
	if (rc == MDB_NOTFOUND)
		rc = mdb_cursor_get(cur, &k, &v, MDB_LAST);
	else if (rc == 0 && (k.mv_size != klen || memcmp(k.mv_data, key, klen) != 0))
		rc = mdb_cursor_get(cur, &k, &v, MDB_PREV);
	return seek_result(db, rc, &k, &v, fkey, fval);
}

uint64_t statedb_count(struct statedb *db, enum statedb_table t)
{
	MDB_stat st;

	CHECK_OBJ(db, STATEDB_MAGIC);
	if (begin(db) != 0 || mdb_stat(db->txn, db->dbi[t], &st) != 0)
		return 0;
	return st.ms_entries;
}

/* --- Opening */

static int check_dir(struct statedb *db, const char *dir, struct errtext *et)
{
	struct statfs sfs;

	if (statfs(dir, &sfs) != 0)
		return errtext_set(et, -errno, "state.dir %s: %s", dir, strerror(errno));
	db->unlimited = sfs.f_type == RAMFS_MAGIC;
	if (sfs.f_type != TMPFS_MAGIC && sfs.f_type != RAMFS_MAGIC)
		return errtext_set(et, -EINVAL,
		    "state.dir %s: not on a tmpfs; choose a directory below /dev/shm or another "
		    "tmpfs",
		    dir);
	return 0;
}

/* LMDB writes its first pages before we could allocate them, so the file is made
 * here, empty, with memory behind its end. */
static int prepare_file(struct statedb *db, const char *dir, bool create, struct errtext *et)
{
	char path[PATH_MAX];
	int rc = 0, fd;

	if (snprintf(path, sizeof(path), "%s/data.mdb", dir) >= (int)sizeof(path))
		return errtext_set(et, -ENAMETOOLONG, "state.dir %s: name too long", dir);
	if (!create) {
		if (access(path, F_OK) != 0)
			return errtext_set(et, -errno, "state database %s: %s", path,
			    strerror(errno));
		return 0;
	}
	if (unlink(path) != 0 && errno != ENOENT)
		return errtext_set(et, -errno, "state database %s: remove: %s", path,
		    strerror(errno));
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd == -1)
		return errtext_set(et, -errno, "state database %s: %s", path, strerror(errno));
	if (!db->unlimited && fallocate(fd, FALLOC_FL_KEEP_SIZE, 0,
		(off_t)((COMMIT_PAGES + DELETE_PAGES) * db->page_size)) != 0)
		rc = errtext_set(et, -errno, "state database %s: allocate: %s", path,
		    strerror(errno));
	close(fd);
	return rc;
}

static int open_env(struct statedb *db, const char *dir, uint64_t size)
{
	unsigned flags = MDB_NOLOCK | MDB_WRITEMAP | MDB_NOSYNC;
	int rc;

	rc = mdb_env_create(&db->env);
	if (rc == 0)
		rc = mdb_env_set_mapsize(db->env, size / db->page_size * db->page_size);
	if (rc == 0)
		rc = mdb_env_set_maxdbs(db->env, STATEDB_TABLES);
	if (rc == 0)
		rc = mdb_env_open(db->env, dir, flags, 0600);
	if (rc == 0)
		rc = mdb_env_get_fd(db->env, &db->fd);
	return rc;
}

static int open_tables(struct statedb *db)
{
	/* Making tables writes pages; where there is no memory for them only a
	 * database that has them all can be opened. */
	bool room = db->allocated >= MIN(db->base + COMMIT_PAGES, db->max);
	MDB_txn *txn;
	int rc;

	rc = mdb_txn_begin(db->env, NULL, 0, &txn);
	if (rc != 0)
		return rc;
	for (int t = 0; rc == 0 && t < STATEDB_TABLES; t++)
		rc = mdb_dbi_open(txn, table_names[t], room ? MDB_CREATE : 0, &db->dbi[t]);
	if (rc == 0)
		return mdb_txn_commit(txn);
	mdb_txn_abort(txn);
	return rc;
}

/* What the last owner had in use it had allocated; the rest is ours to do. */
static int measure(struct statedb *db)
{
	MDB_envinfo info;
	int rc = mdb_env_info(db->env, &info);

	if (rc != 0)
		return rc;
	db->max = info.me_mapsize / db->page_size;
	db->base = info.me_last_pgno + 1;
	db->allocated = db->unlimited ? db->max : db->base;
	if (ensure_allocated(db, MIN(db->base + COMMIT_PAGES + DELETE_PAGES, db->max)) != 0)
		log_warn("state database: its tmpfs is full; new files cannot be opened");
	return 0;
}

int statedb_open(struct statedb **out, struct loop *lp, const char *dir, uint64_t size, bool create,
    const struct epoch *ep, struct errtext *et)
{
	struct statedb *db;
	int rc;

	*out = NULL;
	if (!epoch_mine(ep))
		return errtext_set(et, -ESTALE, "state database %s: another daemon has the mount",
		    dir);
	ALLOC_OBJ(db, STATEDB_MAGIC);
	if (db == NULL)
		return errtext_set(et, -ENOMEM, "state database %s: out of memory", dir);
	db->loop = lp;
	db->epoch = ep;
	db->page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	rc = check_dir(db, dir, et);
	if (rc == 0)
		rc = prepare_file(db, dir, create, et);
	if (rc != 0)
		goto fail;
	rc = open_env(db, dir, size);
	if (rc == 0)
		rc = measure(db);
	if (rc == 0)
		rc = open_tables(db);
	if (rc != 0) {
		rc = errtext_set(et, rc > 0 ? -rc : -EIO, "state database in %s: %s", dir,
		    mdb_strerror(rc));
		goto fail;
	}
	loop_hook_add(lp, &db->hook, on_turn_end);
	db->hooked = true;
	*out = db;
	return 0;
fail:
	statedb_close(&db);
	return rc;
}

void statedb_close(struct statedb **dbp)
{
	struct statedb *db;

	if (*dbp == NULL)
		return;
	TAKE_OBJ(db, dbp, STATEDB_MAGIC);
	if (db->dirty)
		statedb_commit(db);
	if (db->txn != NULL)
		forget_txn(db);
	if (db->hooked)
		loop_hook_remove(db->loop, &db->hook);
	if (db->env != NULL)
		mdb_env_close(db->env);
	FREE_OBJ(db);
}
