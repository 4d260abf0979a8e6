/* SPDX-License-Identifier: BSD-2-Clause */
#include "ops/forgets.h"

#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "ops/fs_priv.h"
#include "ops/requests.h"
#include "reactor/statedb.h"

#define DONE_BITS 40
#define DONE_MASK ((UINT64_C(1) << DONE_BITS) - 1)

struct forgets {
	struct fs *fs;
	struct counts *counts;
	uint64_t epoch, skip, n;
};

static uint64_t note_of(uint64_t epoch, uint64_t n)
{
	return epoch << DONE_BITS | MIN(n, DONE_MASK);
}

void forgets_begin(struct counts *c, uint64_t epoch)
{
	counts_note(c, note_of(epoch, 0));
}

uint64_t forgets_done(const struct counts *c, uint64_t epoch)
{
	uint64_t note = counts_noted(c);

	return (note & ~DONE_MASK) == note_of(epoch, 0) ? note & DONE_MASK : UINT64_MAX;
}

static void forget_one(struct forgets *f, uint64_t node, uint64_t count)
{
	bool done = f->n < f->skip;

	(void)FAULT("forgets.one");
	f->n++;
	/* First the note: if we die between the two a count stays too high, never too low. */
	counts_note(f->counts, note_of(f->epoch, f->n));
	lookup_forget_one(f->fs, node, done ? 0 : count);
	if (f->n % FORGETS_A_COMMIT == 0)
		(void)statedb_commit(f->fs->db);
}

static void forget_batch(struct forgets *f, const unsigned char *body, size_t len)
{
	struct fuse_batch_forget_in in;
	struct fuse_forget_one one;
	uint32_t i;

	if (len < sizeof(in))
		return;
	memcpy(&in, body, sizeof(in));
	for (i = 0; i < in.count && (i + 1) * sizeof(one) <= len - sizeof(in); i++) {
		memcpy(&one, body + sizeof(in) + i * sizeof(one), sizeof(one));
		forget_one(f, one.nodeid, one.nlookup);
	}
}

/* Was it one? */
static bool forget_request(struct forgets *f, const unsigned char *raw, size_t len)
{
	struct fuse_in_header in;
	struct fuse_forget_in one;

	if (len < sizeof(in))
		return false;
	memcpy(&in, raw, sizeof(in));
	if (in.opcode == FUSE_BATCH_FORGET) {
		forget_batch(f, raw + sizeof(in), len - sizeof(in));
		return true;
	}
	if (in.opcode != FUSE_FORGET || len < sizeof(in) + sizeof(one))
		return in.opcode == FUSE_FORGET;
	memcpy(&one, raw + sizeof(in), sizeof(one));
	forget_one(f, in.nodeid, one.nlookup);
	return true;
}

void forgets_apply(
    struct fs *fs, struct counts *c, uint64_t epoch, uint64_t skip, struct held_list *list)
{
	struct forgets f = {.fs = fs, .counts = c, .epoch = epoch, .skip = skip};
	struct held_list rest = STAILQ_HEAD_INITIALIZER(rest);
	struct held_req *r;

	while ((r = STAILQ_FIRST(list)) != NULL) {
		STAILQ_REMOVE_HEAD(list, link);
		if (forget_request(&f, r->raw, r->len))
			free(r);
		else
			STAILQ_INSERT_TAIL(&rest, r, link);
	}
	STAILQ_CONCAT(list, &rest);
	if (f.n > 0)
		(void)statedb_commit(fs->db);
}
