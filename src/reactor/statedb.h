/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The state database: what must outlive the process, not the machine.
 *
 * An LMDB environment on a tmpfs, used by the loop only, with one write
 * transaction a turn: reads see the turn's own writes, and the turn-end hook
 * commits.  Replies that tell the kernel something the database must know leave
 * after that commit (fuse_chan holds them).  Allocated ahead by fallocate, so a
 * full tmpfs is an error here and never a SIGBUS.  Opened and committed only
 * while the epoch is ours.
 *
 * Tables are named and fixed; keys are byte strings (integers big-endian, so
 * that ranges sort).  Values returned by statedb_get() and cursors are valid
 * until the next write or the end of the turn.
 */
#ifndef REACTOR_STATEDB_H
#define REACTOR_STATEDB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/epoch.h"
#include "base/errtext.h"

struct loop;
struct statedb;

enum statedb_table {
	STATEDB_META,	/* format, mount id, next ids */
	STATEDB_NODES,	/* node id -> node record */
	STATEDB_NAMES,	/* parent node id, name -> node id */
	STATEDB_HANDLES, /* fh -> handle record */
	STATEDB_COOKIES, /* fh, first cookie -> names of one readdir reply */
	STATEDB_LEDGER, /* unique -> how far a mutation has come */
	STATEDB_INOS,	/* st_ino -> node id, of nodes that were renamed */
	STATEDB_SESSIONS, /* node id -> write session */
	STATEDB_STAGED,	/* staged file id -> its header */
	STATEDB_EXTENTS, /* staged file id, start -> end, kind */
	STATEDB_META_LATER, /* number -> change that the metadata store has not got yet */
	STATEDB_PARTS,	/* staged file id, part number -> part in the storage; 0: the upload */
	STATEDB_UNLINKED, /* number -> name that is gone and not deleted in the storage yet */
	STATEDB_BYTES,	/* staged file id -> all bytes of a small one that has no file yet */
	STATEDB_TABLES
};

struct statedb_val {
	const void *data;
	size_t len;
};

/* dir must exist on a tmpfs (or ramfs), else -EINVAL with words.  size is the
 * map's size (state.size).  create: start afresh, removing an old database. */
int statedb_open(struct statedb **out, struct loop *lp, const char *dir, uint64_t size, bool create,
    const struct epoch *ep, struct errtext *et);
/* Commits (if the epoch is still ours) and closes. */
void statedb_close(struct statedb **db);

/* All: 0, -ENOENT, -ENOSPC (map or tmpfs full, or a turn that writes more than some
 * 460 MiB; nothing was changed), -ESTALE (epoch passed), -ENOMEM (nothing was changed),
 * -EIO (damage, or no memory inside LMDB; what this turn wrote is lost, and until
 * statedb_recover() all say so), -EINVAL (a key of 0 or more than 511 bytes).  The last eighth of
 * the map, and 1 MiB ahead of what is in use, are kept for deleting and for large rows. */
int statedb_get(struct statedb *db, enum statedb_table t, const void *key, size_t klen,
    struct statedb_val *out);
int statedb_put(struct statedb *db, enum statedb_table t, const void *key, size_t klen,
    const void *val, size_t vlen);
int statedb_del(struct statedb *db, enum statedb_table t, const void *key, size_t klen);
/* First row with key >= the given one; klen 0: the first row. */
int statedb_seek(struct statedb *db, enum statedb_table t, const void *key, size_t klen,
    struct statedb_val *fkey, struct statedb_val *fval);
/* Last row with key <= the given one. */
int statedb_seek_back(struct statedb *db, enum statedb_table t, const void *key, size_t klen,
    struct statedb_val *fkey, struct statedb_val *fval);
/* Number of rows. */
uint64_t statedb_count(struct statedb *db, enum statedb_table t);

/* Has this turn written something that is not committed yet? */
bool statedb_dirty(const struct statedb *db);
/* Commits now; also called by the turn-end hook. */
int statedb_commit(struct statedb *db);

/* Has a turn's work been lost (-EIO)?  Then whoever keeps in memory what rows say
 * calls statedb_recover() in a later turn, when every reply that depended on the lost
 * rows has failed, and reads them again, as they were at the last commit. */
bool statedb_lost(const struct statedb *db);
void statedb_recover(struct statedb *db);

#endif
