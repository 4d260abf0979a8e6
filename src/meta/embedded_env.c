/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The files: DIR/lock, a flock(2) held while the store is open, and DIR/meta.mdb.  A
 * new store is made under another name first, so that a machine that stops meanwhile
 * leaves none rather than half a one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/paths.h"
#include "base/units.h"
#include "meta/embedded_priv.h"

#define DB_FILE "meta.mdb"
#define DB_NEW "meta.mdb.new"

/* The map begins with this, and doubles. */
#define MAP_FIRST (64 * MIB)

#define ENV_FLAGS (MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOTLS | MDB_NORDAHEAD)

/* --- Lock */

static int take_lock(struct db *db, struct errtext *et)
{
	char path[4096], pid[16] = "";
	int n;

	if ((size_t)snprintf(path, sizeof(path), "%s/lock", db->dir) >= sizeof(path))
		return errtext_set(et, -ENAMETOOLONG, "metadata store %s: name too long", db->dir);
	db->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (db->lock_fd < 0)
		return errtext_set(et, -errno, "metadata store %s: open lock: %s", db->dir,
		    strerror(errno));
	if (flock(db->lock_fd, LOCK_EX | LOCK_NB) != 0) {
		if (errno != EWOULDBLOCK)
			return errtext_set(et, -errno, "metadata store %s: lock: %s", db->dir,
			    strerror(errno));
		if (pread(db->lock_fd, pid, sizeof(pid) - 1, 0) <= 0)
			pid[0] = '\0';
		pid[strcspn(pid, "\n")] = '\0';
		return errtext_set(et, -EBUSY,
		    "metadata store %s: in use by another daemon (pid %s); "
		    "each mount needs a directory of its own (meta.dir)",
		    db->dir, pid[0] != '\0' ? pid : "unknown");
	}
	n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	/* Only for the message of whoever finds the directory taken. */
	if (ftruncate(db->lock_fd, 0) != 0 || pwrite(db->lock_fd, pid, (size_t)n, 0) != n)
		log_debug("metadata store %s: lock: %s", db->dir, strerror(errno));
	return 0;
}

/* Makes names in a directory outlive power. */
static int sync_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	/* Some file systems have nothing to sync here. */
	if (fsync(fd) != 0 && errno != EINVAL)
		err = -errno;
	close(fd);
	return err;
}

static int sync_parent(const char *dir)
{
	char *copy = strdup(dir), *slash;
	int err;

	if (copy == NULL)
		return -ENOMEM;
	slash = strrchr(copy, '/');
	if (slash == copy)
		slash++;
	if (slash != NULL)
		*slash = '\0';
	err = sync_dir(copy);
	free(copy);
	return err;
}

/* --- Opening */

static int open_env(struct db *db, const char *path)
{
	struct stat st;
	uint64_t map = MAP_FIRST;
	mdb_filehandle_t fd;
	int rc;

	/* Room for what is there, and for as much again. */
	if (stat(path, &st) == 0 && st.st_size > 0)
		map = MAX(map, (uint64_t)st.st_size / MIB * MIB * 2);
	db->map = MIN(map, db->limit);
	rc = mdb_env_create(&db->env);
	if (rc != 0)
		return rc;
	mdb_env_set_maxdbs(db->env, DB_TABLES);
	mdb_env_set_mapsize(db->env, db->map);
	rc = mdb_env_open(db->env, path, ENV_FLAGS, 0600);
	/* LMDB leaves it open for whatever is started later. */
	if (rc == 0 && mdb_env_get_fd(db->env, &fd) == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
		rc = errno;
	return rc;
}

/* Under the other name, with its tables, then under its own. */
static int make(struct db *db, const char *fresh, const char *path)
{
	MDB_txn *txn;
	int rc;

	if (unlink(fresh) != 0 && errno != ENOENT)
		return errno;
	rc = open_env(db, fresh);
	db->lost = true;
	if (rc == 0)
		rc = mdb_txn_begin(db->env, NULL, 0, &txn);
	if (rc == 0) {
		rc = db_format_new(db, txn);
		if (rc == 0)
			rc = mdb_txn_commit(txn);
		else
			mdb_txn_abort(txn);
	}
	db->lost = false;
	db_close_env(db);
	if (rc == 0 && rename(fresh, path) != 0)
		rc = errno;
	if (rc == 0)
		rc = -sync_dir(db->dir);
	if (rc == 0)
		rc = -sync_parent(db->dir);
	if (rc != 0)
		unlink(fresh);
	return rc;
}

/* How many of the pages from `first` on are free. */
static int count_free(struct db *db, size_t first, size_t *count)
{
	MDB_cursor *cur;
	MDB_val key, val;
	int rc = mdb_txn_begin(db->env, NULL, MDB_RDONLY, &db->opening);

	*count = 0;
	if (rc != 0)
		return rc;
	/* LMDB's own table: transaction -> a number of pages, and these. */
	rc = mdb_cursor_open(db->opening, 0, &cur);
	if (rc == 0) {
		while ((rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT)) == 0) {
			const char *ids = val.mv_data;
			size_t n, page;

			if (val.mv_size < sizeof(n))
				continue;
			memcpy(&n, ids, sizeof(n));
			n = MIN(n, val.mv_size / sizeof(page) - 1);
			for (size_t i = 1; i <= n; i++) {
				memcpy(&page, ids + i * sizeof(page), sizeof(page));
				*count += page >= first;
			}
		}
		mdb_cursor_close(cur);
	}
	mdb_txn_abort(db->opening);
	db->opening = NULL;
	return rc == MDB_NOTFOUND ? 0 : rc;
}

/* The map is read through memory: a file shorter than its own meta page says would be
 * a SIGBUS later.  Only pages that a transaction took and freed again were never
 * written: if that is all that lacks, nothing does. */
static int check_length(struct db *db, const char *path, struct errtext *et)
{
	MDB_envinfo info;
	MDB_stat st;
	struct stat file;
	size_t pages, all, count = 0;
	mdb_filehandle_t fd = -1;
	int rc;

	mdb_env_info(db->env, &info);
	mdb_env_stat(db->env, &st);
	db->map = info.me_mapsize;
	if (stat(path, &file) != 0)
		return errtext_set(et, -errno, "metadata store %s: %s", path, strerror(errno));
	pages = (size_t)file.st_size / st.ms_psize;
	all = info.me_last_pgno + 1;
	if (pages >= all)
		return 0;
	/* So that looking is no SIGBUS either. */
	rc = mdb_env_get_fd(db->env, &fd);
	if (rc == 0 && ftruncate(fd, (off_t)(all * st.ms_psize)) != 0)
		rc = errno;
	if (rc == 0)
		rc = count_free(db, pages, &count);
	if (rc == 0 && count == all - pages)
		return 0;
	if (ftruncate(fd, file.st_size) != 0)
		log_debug("metadata store %s: %s", path, strerror(errno));
	return errtext_set(et, -EIO,
	    "metadata store %s: damaged: the file ends too early (%llu bytes)", path,
	    (unsigned long long)file.st_size);
}

/* The store that was open here, or what has come of it. */
static int check_was(struct db *db, const char *path, const struct db_was *was,
    struct errtext *et)
{
	MDB_envinfo info;

	if (was == NULL || !was->known)
		return 0;
	mdb_env_info(db->env, &info);
	/* The last commit may be one that the disk refused. */
	if (info.me_last_txnid + 1 >= was->last)
		return 0;
	return errtext_set(et, -EIO,
	    "metadata store %s: this is an older one than was open: is its disk mounted?", path);
}

static int open_files(struct db *db, const struct db_was *was, struct errtext *et)
{
	char path[4096], fresh[4096];
	int rc, err;

	(void)snprintf(path, sizeof(path), "%s/%s", db->dir, DB_FILE);
	(void)snprintf(fresh, sizeof(fresh), "%s/%s", db->dir, DB_NEW);
	if (access(path, F_OK) != 0) {
		rc = errno == ENOENT ? make(db, fresh, path) : errno;
		if (rc != 0)
			return errtext_set(et, db_err(rc), "metadata store %s: create: %s", path,
			    mdb_strerror(rc));
	}
	rc = open_env(db, path);
	if (rc != 0)
		return errtext_set(et, db_err(rc), "metadata store %s: open: %s", path,
		    mdb_strerror(rc));
	err = check_was(db, path, was, et);
	if (err == 0)
		err = check_length(db, path, et);
	if (err == 0)
		err = db_format_open(db, path, et);
	if (err == 0) {
		err = db_gate_init(db);
		if (err != 0)
			errtext_set(et, err, "metadata store %s: %s", path, strerror(-err));
	}
	return err;
}

struct open_call {
	struct db *db;
	const struct db_was *was;
	struct errtext *et;
};

static int open_guarded(void *arg)
{
	struct open_call *oc = arg;

	return open_files(oc->db, oc->was, oc->et);
}

static int open_safely(struct db *db, const struct db_was *was, struct errtext *et)
{
	struct open_call oc = { db, was, et };
	int err = db_guard(db, DB_READS, open_guarded, &oc);

	return err != MDB_PANIC ? err
				: errtext_set(et, -EIO,
				      "metadata store %s: a page of it cannot be read: its disk "
				      "fails, or the file was cut short",
				      db->dir);
}

/* 0, or -ENOENT with words. */
static int check_there(const char *dir, struct errtext *et)
{
	char path[4096];

	if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, DB_FILE) >= sizeof(path))
		return errtext_set(et, -ENAMETOOLONG, "metadata store %s: name too long", dir);
	if (access(path, F_OK) == 0)
		return 0;
	return errtext_set(et, -errno, "metadata store %s: it was here, and is not any more: %s",
	    path, strerror(errno));
}

bool db_replaced(struct db *db)
{
	char path[4096];
	struct stat open_one, there;
	mdb_filehandle_t fd;

	(void)snprintf(path, sizeof(path), "%s/%s", db->dir, DB_FILE);
	return mdb_env_get_fd(db->env, &fd) == 0 && fstat(fd, &open_one) == 0 &&
	       stat(path, &there) == 0 &&
	       (there.st_dev != open_one.st_dev || there.st_ino != open_one.st_ino);
}

int db_open(struct db **out, const char *dir, uint64_t limit, const struct epoch *epoch,
    const struct db_was *was, struct errtext *et)
{
	struct db *db;
	int err;

	*out = NULL;
	if (!epoch_mine(epoch))
		return errtext_set(et, -ESTALE, "metadata store %s: the mount is another daemon's",
		    dir);
	err = was != NULL && was->known ? check_there(dir, et) : 0;
	if (err != 0)
		return err;
	err = paths_make_dir(dir, 0700);
	if (err != 0)
		return errtext_set(et, err, "metadata store %s: create directory: %s", dir,
		    err == -EPERM ? "it must be its user's or root's and writable by nobody else"
				  : strerror(-err));
	ALLOC_OBJ(db, DB_MAGIC);
	if (db == NULL)
		return errtext_set(et, -ENOMEM, "metadata store %s: out of memory", dir);
	db->lock_fd = -1;
	db->limit = limit / MIB * MIB;
	db->epoch = epoch;
	db->dir = strdup(dir);
	err = db->dir == NULL
		  ? errtext_set(et, -ENOMEM, "metadata store %s: out of memory", dir)
		  : take_lock(db, et);
	if (err == 0)
		err = open_safely(db, was, et);
	if (err != 0) {
		db_close(&db);
		return err;
	}
	*out = db;
	return 0;
}

void db_close(struct db **dbp)
{
	struct db *db;

	if (*dbp == NULL)
		return;
	TAKE_OBJ(db, dbp, DB_MAGIC);
	db_gate_fini(db);
	db_close_env(db);
	if (db->lock_fd >= 0)
		close(db->lock_fd);
	free(db->dir);
	FREE_OBJ(db);
}

/* --- The map */

struct map_call {
	struct db *db;
	uint64_t size;
};

static int map_again(void *arg)
{
	struct map_call *mc = arg;
	MDB_envinfo info;
	int rc = mdb_env_set_mapsize(mc->db->env, mc->size);

	if (rc == 0) {
		mdb_env_info(mc->db->env, &info);
		mc->db->map = info.me_mapsize;
	}
	return rc;
}

static int set_map(struct db *db, uint64_t size)
{
	struct map_call mc = { db, size };
	int rc;

	db_gate_alone(db, true);
	rc = db_guard(db, DB_WRITES, map_again, &mc);
	if (rc != 0) {
		db_gate_break(db); /* it has no map at all now */
	}
	db_gate_alone(db, false);
	return db_err(rc);
}

int db_grow(struct db *db, uint64_t most)
{
	if (db->map >= most)
		return -ENOSPC;
	return set_map(db, MIN(MAX(2 * db->map, MAP_FIRST), most));
}

void db_shrink(struct db *db)
{
	if (db->map > db->limit)
		(void)set_map(db, db->limit);
}

struct usage_call {
	struct db *db;
	MDB_txn *txn;
	uint64_t records, bytes;
};

static int usage(void *arg)
{
	struct usage_call *uc = arg;
	const struct db *db = uc->db;
	const MDB_dbi tables[] = { db->meta, db->tree, db->intents, db->garbage, db->parents,
		db->content, db->queue, db->blobs, db->settings };
	MDB_stat st;

	for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
		if (mdb_stat(uc->txn, tables[i], &st) != 0)
			continue;
		uc->bytes += (st.ms_branch_pages + st.ms_leaf_pages + st.ms_overflow_pages) *
			     st.ms_psize;
		if (tables[i] == db->tree)
			uc->records = st.ms_entries;
	}
	return 0;
}

void db_usage(struct db *db, uint64_t *records, uint64_t *bytes)
{
	struct usage_call uc = { .db = db };
	struct db_seat *seat;

	if (db_gate_enter(db, &seat) != 0)
		return;
	uc.txn = seat->txn;
	if (db_guard(db, DB_READS, usage, &uc) == 0) {
		*records = uc.records;
		*bytes = uc.bytes;
	} else {
		db_gate_break(db);
	}
	db_gate_leave(db, seat);
}
