/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef T_FDB_STORE_H
#define T_FDB_STORE_H

/*
 * The data of the stand-in's server: every key with its versions of the last five
 * seconds, and what was written in them, against which a commit's reads are checked.
 * Memory, and a log of what was committed, from which a new server takes it again.
 */

#include <stdint.h>

#include "ordmap.h"

struct store;

struct mutation {
	unsigned kind;
	struct bytes key, value; /* views; of a range its begin and end */
};

struct mutations {
	struct mutation *at;
	size_t n;
};

void rd_mutations(struct rd *r, struct mutations *ms);

struct selector {
	struct bytes key;
	bool or_equal;
	int32_t offset;
};

/*
 * Opens or makes the store whose log lies in the directory.  Versions go on above those
 * of before, so far that no old transaction can commit.  Ends the process if it cannot.
 */
struct store *store_open(int dir);
void store_free(struct store **sp);

/* Versions are microseconds of this clock, which the file "clock" in DIR can move. */
int64_t store_now(struct store *s);

/*
 * What a transaction sees: the store at a version, changed by its own mutations.
 * 0, or ERR_TOO_OLD, ERR_FUTURE_VERSION.  Values and keys it gives are views, valid
 * until the next change of the store or view_end().
 */
struct view {
	struct store *store;
	int64_t version;
	struct bytes top; /* the first key that is out of reach */
	struct ordmap own;
	struct ranges cleared;
};

int view_start(struct view *v, struct store *s, int64_t version, const struct mutations *ms);
void view_end(struct view *v);
bool view_get(const struct view *v, struct bytes key, struct bytes *value);
/* The next key from there on (after: behind it), or the last before it (with: or at it). */
bool view_from(const struct view *v, struct bytes from, bool after, struct bytes *key,
    struct bytes *value);
bool view_before(const struct view *v, struct bytes from, bool with, struct bytes *key,
    struct bytes *value);
/* The key of a selector; at an end of the keys that bit in *ends, and "" or top. */
struct bytes view_select(const struct view *v, const struct selector *sel, uint32_t *ends);

/* 0 and the version, or an error of the API, with nothing changed. */
int store_commit(struct store *s, int64_t read_version, const struct ranges *reads,
    const struct ranges *writes, const struct mutations *ms, int64_t *version);
/* Since the last commit the keys that it touched. */
const struct ranges *store_touched(const struct store *s);
bool store_latest(const struct store *s, struct bytes key, struct bytes *value);

#endif
