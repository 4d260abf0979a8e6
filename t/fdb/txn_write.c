/* SPDX-License-Identifier: BSD-2-Clause */
/* Mutations, options and the commit. */
#include "txn.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "atomic.h"
#include "wire.h"

#define MUTATION_SIZE 28 /* what one weighs besides its key and value */

static void fail(FDBTransaction *tr, int error)
{
	if (tr->deferred == 0)
		tr->deferred = error;
}

/* Whether a mutation may be added: not after an error, nor after the commit. */
static bool may_write(FDBTransaction *tr)
{
	if (tr->deferred != 0)
		return false;
	if (tr_used_during_commit(tr)) {
		fail(tr, ERR_USED_DURING_COMMIT);
		return false;
	}
	return true;
}

/* Takes both. */
static void append(FDBTransaction *tr, unsigned kind, struct bytes key, struct bytes value)
{
	if (tr->n == tr->cap) {
		tr->cap = tr->cap * 2 + 8;
		tr->own = mem_more(tr->own, tr->cap * sizeof(*tr->own));
	}
	tr->own_size += key.len + value.len + MUTATION_SIZE;
	tr->own[tr->n++] = (struct own){ kind, key, value };
}

static bool no_conflict(FDBTransaction *tr)
{
	bool no = tr->set.no_conflict;

	tr->set.no_conflict = false;
	return no;
}

void call_set(struct call *c)
{
	FDBTransaction *tr = c->tr;
	struct bytes after;
	bool quiet = no_conflict(tr);

	if (!may_write(tr))
		return;
	if (bytes_cmp(c->a, tr_top(tr, true)) >= 0) {
		fail(tr, ERR_OUTSIDE);
	} else if (c->a.len > KEY_LIMIT) {
		fail(tr, ERR_KEY_TOO_LARGE);
	} else if (c->b.len > VALUE_LIMIT) {
		fail(tr, ERR_VALUE_TOO_LARGE);
	} else {
		after = bytes_after(c->a);
		append(tr, MUT_SET, bytes_dup(c->a), bytes_dup(c->b));
		ranges_add(&tr->known, c->a, after);
		ranges_cut(&tr->unreadable, c->a, after);
		if (!quiet)
			ranges_add(&tr->writes, c->a, after);
		watches_changed(tr, c->a, after, true, &c->b);
		bytes_free(&after);
	}
}

/* There are no longer keys: a range may as well begin or end where they could. */
static void cut_key(struct bytes *key)
{
	if (key->len > KEY_LIMIT)
		key->len = KEY_LIMIT + 1;
}

void call_clear_range(struct call *c)
{
	FDBTransaction *tr = c->tr;
	struct bytes top = tr_top(tr, true);
	bool quiet, one = c->n[0] != 0; /* one key: [a, its successor) */

	if (tr->deferred != 0)
		return;
	if (!one && bytes_cmp(c->a, c->b) > 0) {
		fail(tr, ERR_INVERTED);
		return;
	}
	quiet = no_conflict(tr);
	if (!may_write(tr))
		return;
	if (one ? bytes_cmp(c->a, top) >= 0 :
		  bytes_cmp(c->a, top) > 0 || bytes_cmp(c->b, top) > 0) {
		fail(tr, ERR_OUTSIDE);
		return;
	}
	if (one && c->a.len > KEY_LIMIT)
		return;
	if (one)
		c->b = bytes_after(c->a);
	cut_key(&c->a);
	cut_key(&c->b);
	if (bytes_cmp(c->a, c->b) >= 0)
		return;
	append(tr, MUT_CLEAR_RANGE, bytes_dup(c->a), bytes_dup(c->b));
	ranges_add(&tr->known, c->a, c->b);
	ranges_cut(&tr->unreadable, c->a, c->b);
	if (!quiet)
		ranges_add(&tr->writes, c->a, c->b);
	watches_changed(tr, c->a, c->b, true, NULL);
}

/* The keys that a stamped key may become are not to be read before the commit. */
static bool stamped_key(FDBTransaction *tr, struct bytes key)
{
	uint8_t low[10] = { 0 }, high[10];
	uint64_t next = htobe64((uint64_t)tr->version + 1);
	struct bytes b, e, end;

	if (tr->version_state == VERSION_KNOWN)
		memcpy(low, &next, sizeof(next));
	memset(high, 0xff, sizeof(high));
	if (!atomic_stamp(key, low, &b))
		return false;
	atomic_stamp(key, high, &e);
	end = bytes_after(e);
	ranges_add(&tr->unreadable, b, end);
	bytes_free(&b);
	bytes_free(&e);
	bytes_free(&end);
	return true;
}

static int check_atomic(const FDBTransaction *tr, const struct call *c, unsigned kind)
{
	if (bytes_cmp(c->a, tr_top(tr, true)) >= 0)
		return ERR_OUTSIDE;
	if (!atomic_known(kind))
		return ERR_MUTATION_KIND;
	if (c->a.len > KEY_LIMIT)
		return ERR_KEY_TOO_LARGE;
	if (c->b.len > VALUE_LIMIT)
		return ERR_VALUE_TOO_LARGE;
	return 0;
}

void call_atomic(struct call *c)
{
	FDBTransaction *tr = c->tr;
	unsigned kind = (unsigned)c->n[0];
	static const uint8_t zero[10];
	struct bytes after, stamped;
	bool quiet = no_conflict(tr);
	int error;

	if (!may_write(tr))
		return;
	error = check_atomic(tr, c, kind);
	if (error == 0 && kind == MUT_STAMPED_KEY && !stamped_key(tr, c->a))
		error = ERR_INVALID_OPERATION;
	if (error == 0 && kind == MUT_STAMPED_VALUE) {
		if (atomic_stamp(c->b, zero, &stamped))
			bytes_free(&stamped);
		else
			error = ERR_INVALID_OPERATION;
	}
	if (error != 0) {
		fail(tr, error);
		return;
	}
	append(tr, kind, bytes_dup(c->a), bytes_dup(c->b));
	if (kind == MUT_STAMPED_KEY)
		return; /* its conflict range is the server's to know */
	after = bytes_after(c->a);
	if (kind == MUT_STAMPED_VALUE)
		ranges_add(&tr->unreadable, c->a, after);
	if (!quiet)
		ranges_add(&tr->writes, c->a, after);
	watches_changed(tr, c->a, after, false, NULL);
	bytes_free(&after);
}

void call_conflict_range(struct call *c)
{
	FDBTransaction *tr = c->tr;
	bool write = c->n[0] == FDB_CONFLICT_WRITE;
	struct bytes top = tr_top(tr, write);

	if (!may_write(tr))
		return;
	if (bytes_cmp(c->a, top) > 0 || bytes_cmp(c->b, top) > 0) {
		fail(tr, ERR_OUTSIDE);
		return;
	}
	cut_key(&c->a);
	cut_key(&c->b);
	if (write)
		ranges_add(&tr->writes, c->a, c->b);
	else
		ranges_add_without(&tr->reads, c->a, c->b, tr->set.ryw_off ? NULL : &tr->known);
}

/* --- options: n[0] which, n[1] the number if a is one */

static int number_option(FDBTransaction *tr, const struct call *c)
{
	int64_t v = c->n[1];
	bool delay = c->n[0] == FDB_TR_TIMEOUT || c->n[0] == FDB_TR_MAX_RETRY_DELAY;

	if (c->a.len != 8)
		return ERR_OPTION_VALUE;
	if (c->n[0] == FDB_TR_SIZE_LIMIT) {
		if (v < 32 || v > SIZE_LIMIT)
			return ERR_OPTION_VALUE;
		tr->set.size_limit = v;
		return 0;
	}
	if (v < (delay ? 0 : -1) || v > INT32_MAX)
		return ERR_OPTION_VALUE;
	if (c->n[0] == FDB_TR_RETRY_LIMIT) {
		tr->retry_limit = v;
	} else if (c->n[0] == FDB_TR_MAX_RETRY_DELAY) {
		tr->max_delay = v;
		if (tr->backoff * 1000 > (double)v)
			tr->backoff = (double)v / 1000;
	} else {
		tr->timeout = v;
		tr_deadline(tr);
	}
	return 0;
}

void call_option(struct call *c)
{
	FDBTransaction *tr = c->tr;
	struct settings *s = &tr->set;
	int error = 0;

	if (tr->deferred != 0)
		return;
	switch (c->n[0]) {
	case FDB_TR_TIMEOUT:
	case FDB_TR_RETRY_LIMIT:
	case FDB_TR_MAX_RETRY_DELAY:
	case FDB_TR_SIZE_LIMIT:
		error = number_option(tr, c);
		break;
	case FDB_TR_NEXT_WRITE_NO_CONFLICT:
		s->no_conflict = true;
		break;
	case FDB_TR_READ_YOUR_WRITES_DISABLE:
		if (tr->n > 0 || tr->reading > 0 || tr->reads.n > 0)
			error = ERR_INVALID_OPERATION;
		s->ryw_off = true;
		break;
	case FDB_TR_ACCESS_SYSTEM_KEYS:
		s->read_system = s->write_system = true;
		break;
	case FDB_TR_READ_SYSTEM_KEYS:
		s->read_system = true;
		break;
	case FDB_TR_SNAPSHOT_RYW_ENABLE:
		s->snapshot_ryw++;
		break;
	case FDB_TR_SNAPSHOT_RYW_DISABLE:
		s->snapshot_ryw--;
		break;
	case FDB_TR_USED_DURING_COMMIT_PROTECTION_DISABLE:
		s->unprotected = true;
		break;
	default: /* of no meaning here */
		break;
	}
	if (error != 0)
		fail(tr, error);
}

/* --- the commit */

int64_t tr_size(const FDBTransaction *tr)
{
	return (int64_t)(tr->own_size + ranges_size(&tr->reads) + ranges_size(&tr->writes));
}

void call_commit(struct call *c)
{
	FDBTransaction *tr = c->tr;
	int error = tr->db->error != 0 ? tr->db->error : tr->deferred;
	struct op *op;

	if (error == 0)
		error = tr_used_during_commit(tr) ? ERR_USED_DURING_COMMIT : tr->failed;
	if (error != 0) {
		future_settle(c->future, error);
		return;
	}
	tr->committing = true;
	op = op_new(tr, OP_COMMIT, c->future);
	if (tr->reading == 0)
		commit_go(op);
}

/* With the commit's end: stamps are known or never will be, watches live or die. */
static void commit_over(struct op *op, int error, int stamp_error)
{
	FDBTransaction *tr = op->tr;
	uint64_t version = htobe64((uint64_t)tr->committed);
	struct op *other, *next;
	struct buf to;

	TAILQ_FOREACH_SAFE (other, &tr->ops, link, next) {
		if (other->kind == OP_STAMP) {
			if (other->future != NULL && stamp_error == 0) {
				other->future->bytes = (struct bytes){ mem_get(10), 10 };
				memcpy(other->future->bytes.at, &version, sizeof(version));
			}
			op_end(other, stamp_error);
		} else if (other->kind == OP_WATCH && error != 0) {
			op_end(other, error);
		} else if (other->kind == OP_WATCH) {
			TAILQ_REMOVE(&tr->ops, other, link);
			other->tr = NULL;
			to = (struct buf){ 0 };
			buf_bytes(&to, other->begin.key);
			buf_u32(&to, other->present);
			buf_bytes(&to, other->value);
			op_send(other, WIRE_WATCH, &to);
			other->state = OP_LIVES;
			buf_free(&to);
		}
	}
	op_end(op, error);
}

/* All reads are through. */
void commit_go(struct op *op)
{
	FDBTransaction *tr = op->tr;

	if (tr->read_error != 0)
		commit_over(op, tr->read_error, ERR_INVALID_VERSION);
	else if (tr->n == 0 && tr->writes.n == 0)
		commit_over(op, 0, ERR_NO_COMMIT_VERSION);
	else if (tr_size(tr) > tr->set.size_limit)
		commit_over(op, ERR_TOO_LARGE, ERR_INVALID_VERSION);
	else if (tr->version_state == VERSION_NONE)
		tr_need_version(tr);
	else if (tr->version_state != VERSION_ASKED)
		commit_send(op);
}

/* The version is there, or its error. */
void commit_send(struct op *op)
{
	FDBTransaction *tr = op->tr;
	struct buf to = { 0 };

	if (tr->version_state == VERSION_FAILED) {
		commit_over(op, (int)tr->version, ERR_INVALID_VERSION);
		return;
	}
	buf_u64(&to, (uint64_t)tr->version);
	buf_ranges(&to, &tr->reads);
	buf_ranges(&to, &tr->writes);
	buf_own(&to, tr, tr->n, NULL);
	op_send(op, WIRE_COMMIT, &to);
	buf_free(&to);
}

void commit_answered(struct op *op, int error, struct rd *r)
{
	if (error == 0)
		op->tr->committed = (int64_t)rd_u64(r);
	commit_over(op, error, error == 0 ? 0 : ERR_INVALID_VERSION);
}
