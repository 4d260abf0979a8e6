/* SPDX-License-Identifier: BSD-2-Clause */
#include "ops/ledger.h"

#include <endian.h>
#include <errno.h>
#include <linux/fuse.h>
#include <string.h>

#include "ops/op.h"

#define LEDGER_FORMAT 1u
#define UNIQUE_RESENT (UINT64_C(1) << 63)

/* The row, in host order (it never leaves the machine). */
struct ledger_row {
	uint8_t format, stage, pad[6];
	uint64_t node, fh, aux[2];
};
_Static_assert(sizeof(struct ledger_row) == 40, "rows outlive the program that wrote them");

static bool current(const struct fs *fs, struct fuse_in_header *in)
{
	size_t len = 0;
	const void *raw = fs->chan != NULL ? fuse_chan_current(fs->chan, &len) : NULL;

	if (raw == NULL || len < sizeof(*in))
		return false;
	memcpy(in, raw, sizeof(*in));
	return true;
}

uint64_t ledger_unique(const struct fs *fs)
{
	struct fuse_in_header in;

	return current(fs, &in) ? in.unique & ~UNIQUE_RESENT : 0;
}

bool ledger_resent(const struct fs *fs)
{
	struct fuse_in_header in;

	return current(fs, &in) && (in.unique & UNIQUE_RESENT) != 0;
}

/* --- Rows */

static int row_put(
    struct fs *fs, uint64_t unique, enum ledger_stage stage, const struct ledger_result *result)
{
	struct ledger_row r = {.format = LEDGER_FORMAT, .stage = (uint8_t)stage};
	uint64_t be = htobe64(unique);

	if (result != NULL) {
		r.node = result->node;
		r.fh = result->fh;
		r.aux[0] = result->aux[0];
		r.aux[1] = result->aux[1];
	}
	return statedb_put(fs->db, STATEDB_LEDGER, &be, sizeof(be), &r, sizeof(r));
}

static int row_get(struct fs *fs, uint64_t unique, struct ledger_row *r)
{
	uint64_t be = htobe64(unique);
	struct statedb_val v;
	int err = statedb_get(fs->db, STATEDB_LEDGER, &be, sizeof(be), &v);

	if (err != 0)
		return err;
	if (v.len != sizeof(*r))
		return -EPROTO;
	memcpy(r, v.data, sizeof(*r));
	return r->format == LEDGER_FORMAT ? 0 : -EPROTO;
}

enum ledger_stage ledger_seen(struct fs *fs, uint64_t unique, struct ledger_result *result)
{
	struct ledger_row r;

	if (row_get(fs, unique, &r) != 0)
		return LEDGER_NEW;
	if (result != NULL)
		*result = (struct ledger_result){
		    .node = r.node, .fh = r.fh, .aux = {r.aux[0], r.aux[1]}};
	return r.stage == LEDGER_DONE ? LEDGER_DONE : LEDGER_INTENT;
}

int ledger_intent(struct fs *fs, uint64_t unique, const struct ledger_result *note)
{
	return row_put(fs, unique, LEDGER_INTENT, note);
}

/* The row goes at the end of the turn, when the reply has left. */
static void goes_with_reply(struct fs *fs, uint64_t unique)
{
	size_t cap = fs->answered_cap == 0 ? 64 : fs->answered_cap * 2;
	uint64_t *p;

	if (fs->nanswered == fs->answered_cap) {
		p = realloc(fs->answered, cap * sizeof(*p));
		if (p == NULL) {
			fs->ledger_missed = true;
			return;
		}
		fs->answered = p;
		fs->answered_cap = cap;
	}
	fs->answered[fs->nanswered++] = unique;
}

int ledger_done(struct fs *fs, uint64_t unique, const struct ledger_result *result)
{
	int err = row_put(fs, unique, LEDGER_DONE, result);

	goes_with_reply(fs, unique);
	return err;
}

void ledger_drop(struct fs *fs, uint64_t unique)
{
	goes_with_reply(fs, unique);
}

/* --- The end of rows */

static int row_del(struct fs *fs, uint64_t unique)
{
	uint64_t be = htobe64(unique);
	int err = statedb_del(fs->db, STATEDB_LEDGER, &be, sizeof(be));

	/* There is room for deleting once a commit has freed what was deleted. */
	if (err == -ENOSPC && statedb_commit(fs->db) == 0)
		err = statedb_del(fs->db, STATEDB_LEDGER, &be, sizeof(be));
	return err == -ENOENT ? 0 : err;
}

/* Has the kernel refused one since the last time?  After FUSE_NOTIFY_RESEND it has requests
 * in its queue that we were about to answer: they come again. */
static bool some_not_taken(struct fs *fs)
{
	uint64_t now = loop_counters(fs->env.loop)->v[CTR_FUSE_REPLY_ERRORS];
	bool more = now != fs->untaken;

	fs->untaken = now;
	return more;
}

/* Deleted only when the replies have left: a daemon that dies between its commit and
 * its reply leaves the row to the next. */
void ledger_turn_end(struct fs *fs)
{
	size_t i, left = 0;

	if (fs->nanswered == 0 && !fs->ledger_missed)
		return;
	if (fs->chan != NULL)
		fuse_chan_flush(fs->chan);
	else
		(void)statedb_commit(fs->db);
	/* One that there was no memory to note goes as those do that a daemon left, and so do
	 * all of a turn with a reply that was not taken. */
	if (some_not_taken(fs)) {
		fs->ledger_missed = true;
		fs->nanswered = 0;
	}
	if (fs->ledger_missed)
		fs->ledger_old = true;
	fs->ledger_missed = false;
	for (i = 0; i < fs->nanswered; i++)
		/* No memory, or a turn's rows lost: tried again. */
		if (row_del(fs, fs->answered[i]) != 0)
			fs->answered[left++] = fs->answered[i];
	fs->nanswered = left;
}

static bool answered_now(const struct fs *fs, uint64_t unique)
{
	size_t i;

	for (i = 0; i < fs->nanswered; i++)
		if (fs->answered[i] == unique)
			return true;
	return false;
}

/* Rows of nobody: not of a request that runs here, nor of one whose reply leaves in this
 * turn. */
static void sweep(struct fs *fs)
{
	struct statedb_val key, val;
	uint64_t be, unique = 0;

	for (;; unique++) {
		be = htobe64(unique);
		if (statedb_seek(fs->db, STATEDB_LEDGER, &be, sizeof(be), &key, &val) != 0 ||
		    key.len != sizeof(be))
			return;
		memcpy(&be, key.data, sizeof(be));
		unique = be64toh(be);
		if (answered_now(fs, unique) || op_find(fs, unique) != NULL)
			continue;
		/* No memory or room now: with the next request. */
		if (row_del(fs, unique) != 0)
			fs->ledger_old = true;
	}
}

/* The kernel has sent everything again that it sends again before it sends a request
 * that nobody had read; what was handed over has been fed by then.  Only FORGETs and
 * INTERRUPTs overtake. */
void ledger_note_request(struct fs *fs)
{
	struct fuse_in_header in;

	if (!fs->ledger_old || fs->db == NULL || !current(fs, &in))
		return;
	if ((in.unique & UNIQUE_RESENT) != 0 || fuse_chan_feeding(fs->chan))
		return;
	switch (in.opcode) {
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
	case FUSE_NOTIFY_REPLY:
		return;
	default:
		fs->ledger_old = false;
		sweep(fs);
	}
}

void ledger_open(struct fs *fs)
{
	fs->ledger_old = statedb_count(fs->db, STATEDB_LEDGER) > 0;
}

void ledger_detach(struct fs *fs)
{
	free(fs->answered);
	fs->answered = NULL;
	fs->nanswered = fs->answered_cap = 0;
}
