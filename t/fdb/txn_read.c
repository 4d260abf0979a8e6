/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads and watches: what they ask for, what they may conflict with, their answers. */
#include "txn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire.h"

/* Why the transaction can do nothing now, or 0. */
static int refused(FDBTransaction *tr)
{
	if (tr->db->error != 0)
		return tr->db->error;
	if (tr->deferred != 0)
		return tr->deferred;
	if (tr_used_during_commit(tr))
		return ERR_USED_DURING_COMMIT;
	return tr->failed;
}

static void buf_selector(struct buf *to, const struct op_selector *sel)
{
	buf_bytes(to, sel->key);
	buf_u32(to, sel->or_equal);
	buf_u32(to, (uint32_t)sel->offset);
}

/* Sends it; the version is known. */
void read_go(struct op *op)
{
	FDBTransaction *tr = op->tr;
	bool one = op->kind == OP_GET || op->kind == OP_WATCH;
	struct buf to = { 0 };

	buf_u64(&to, (uint64_t)tr->version);
	buf_own(&to, tr, op->own, one ? &op->begin.key : NULL);
	if (one) {
		buf_bytes(&to, op->begin.key);
	} else {
		buf_bytes(&to, tr_top(tr, false));
		buf_selector(&to, &op->begin);
	}
	if (op->kind == OP_RANGE) {
		buf_selector(&to, &op->end);
		buf_u32(&to, op->rows);
		buf_u32(&to, op->bytes);
		buf_u32(&to, op->reverse);
	}
	op_send(op, one ? WIRE_GET : op->kind == OP_KEY ? WIRE_KEY : WIRE_RANGE, &to);
	buf_free(&to);
}

/*
 * Begins a read.  Of what it might touch, [b, e), pieces becomes what the transaction has
 * not set itself, as of now: later mutations are not seen by it, nor counted here.
 */
static void read_start(struct op *op, bool snapshot, struct bytes b, struct bytes e)
{
	FDBTransaction *tr = op->tr;
	bool own = !tr->set.ryw_off && (!snapshot || tr->set.snapshot_ryw > 0);

	op->snapshot = snapshot;
	op->own = own ? tr->n : 0;
	ranges_add_without(&op->pieces, b, e, tr->set.ryw_off ? NULL : &tr->known);
	tr->reading++;
	if (tr->version_state == VERSION_KNOWN)
		read_go(op);
	else if (tr->version_state == VERSION_FAILED)
		op_end(op, (int)tr->version);
	else
		tr_need_version(tr);
}

/* What [b, e) of the answer shows depends on others' writes there. */
static void conflict(struct op *op, struct bytes b, struct bytes e)
{
	for (size_t i = 0; !op->snapshot && i < op->pieces.n; i++) {
		const struct range *p = &op->pieces.at[i];

		ranges_add(&op->tr->reads, bytes_cmp(b, p->b) > 0 ? b : p->b,
		    bytes_cmp(e, p->e) < 0 ? e : p->e);
	}
}

/* Whether what was read is up to a versionstamp of the transaction's own. */
static bool unreadable(const struct op *op, struct bytes b, struct bytes e)
{
	return op->own > 0 && ranges_meet(&op->tr->unreadable, b, e);
}

/* The watch has its value: it goes on to wait for the commit, unless that is old. */
static void watch_answered(struct op *op, bool present, struct bytes value)
{
	if (op->changed &&
	    (op->changed_present != present ||
		(present && !bytes_same(op->changed_value, value)))) {
		op_end(op, 0);
		return;
	}
	op->present = present;
	op->value = bytes_dup(value);
	op->state = OP_WATCHES;
	tr_read_over(op->tr, 0);
}

static void get_answered(struct op *op, struct rd *r)
{
	bool present = rd_u32(r) != 0;
	struct bytes value = rd_bytes(r), after = bytes_after(op->begin.key);
	int error = unreadable(op, op->begin.key, after) ? ERR_UNREADABLE : 0;

	if (error == 0)
		conflict(op, op->begin.key, after);
	bytes_free(&after);
	if (op->kind == OP_WATCH && error == 0) {
		watch_answered(op, present, value);
		return;
	}
	if (op->future != NULL && error == 0) {
		op->future->present = present;
		op->future->bytes = bytes_dup(value);
	}
	op_end(op, error);
}

static void key_answered(struct op *op, struct rd *r)
{
	struct bytes key, after, from;
	int error;

	rd_u32(r);
	key = rd_bytes(r);
	after = bytes_after(key);
	from = op->begin.or_equal ? bytes_after(op->begin.key) : bytes_dup(op->begin.key);
	if (op->begin.offset <= 0) {
		error = unreadable(op, key, from) ? ERR_UNREADABLE : 0;
		conflict(op, key, from);
	} else {
		error = unreadable(op, from, after) ? ERR_UNREADABLE : 0;
		conflict(op, from, after);
	}
	if (op->future != NULL)
		op->future->bytes = bytes_dup(key);
	bytes_free(&after);
	bytes_free(&from);
	op_end(op, error);
}

/* Rows into the future; views of the first and the last key in the answer. */
static void take_rows(struct op *op, struct rd *r, struct bytes *first, struct bytes *last)
{
	FDBFuture *f = op->future;
	uint32_t more = rd_u32(r), n = rd_u32(r);
	struct rd again = *r;
	struct rd copy;

	for (uint32_t i = 0; i < n; i++) {
		*last = rd_bytes(r);
		rd_bytes(r);
		if (i == 0)
			*first = *last;
	}
	if (f == NULL)
		return;
	f->more = more != 0;
	f->count = (int)n;
	f->rows = mem_get(n * sizeof(*f->rows));
	buf_raw(&f->memory, again.at, again.len);
	copy = (struct rd){ f->memory.at, f->memory.len, false };
	for (uint32_t i = 0; i < n; i++) {
		struct bytes key = rd_bytes(&copy), value = rd_bytes(&copy);

		f->rows[i] = (FDBKeyValue){ key.at, (int)key.len, value.at, (int)value.len };
	}
}

/*
 * The keys on which the rows depend.  With more to come they reach to the last row only,
 * if nothing behind it could have moved it.
 */
static void range_answered(struct op *op, struct rd *r)
{
	uint32_t ends = rd_u32(r);
	struct rd peek = *r;
	bool more = rd_u32(&peek) != 0, none = rd_u32(&peek) == 0;
	int32_t from = op->begin.offset, till = op->end.offset;
	struct bytes b = op->begin.key, e = op->end.key, first = { 0 }, last = { 0 };
	struct bytes after, top = tr_top(op->tr, false);
	int error;

	take_rows(op, r, &first, &last);
	if (bytes_cmp(b, e) >= 0) {
		b = op->end.key;
		e = op->begin.key;
	} else if (more && !none && !op->reverse && till > 0) {
		e = b;
	} else if (more && !none && op->reverse && from <= 1) {
		b = e;
	}
	if ((ends & END_BEGIN) != 0 && from <= 0)
		b = bytes_text("");
	if ((ends & END_END) != 0 && till > 1)
		e = top;
	after = none ? (struct bytes){ 0 } : bytes_after(op->reverse ? first : last);
	if (!none && (op->reverse || from <= 0) && bytes_cmp(op->reverse ? last : first, b) < 0)
		b = op->reverse ? last : first;
	if (!none && (!op->reverse || till > 0) && bytes_cmp(after, e) > 0)
		e = after;
	error = unreadable(op, b, e) ? ERR_UNREADABLE : 0;
	conflict(op, b, e);
	bytes_free(&after);
	op_end(op, error);
}

void read_answered(struct op *op, int error, struct rd *r)
{
	if (error != 0)
		op_end(op, error);
	else if (op->kind == OP_KEY)
		key_answered(op, r);
	else if (op->kind == OP_RANGE)
		range_answered(op, r);
	else
		get_answered(op, r);
}

/* --- calls: a and b are the keys; n: see api.c */

/* A few of the special keys, which no server is asked for. */
static bool special(struct call *c)
{
	static const char status[] = "{\"client\":{\"database_status\":"
				     "{\"available\":true,\"healthy\":true}}}";
	char text[4200];

	if (c->a.len < 2 || memcmp(c->a.at, "\xff\xff", 2) != 0)
		return false;
	if (bytes_same(c->a, bytes_text("\xff\xff/status/json"))) {
		c->future->present = true;
		c->future->bytes = bytes_dup(bytes_text(status));
	} else if (bytes_same(c->a, bytes_text("\xff\xff/connection_string")) &&
	    c->tr->db->dir != NULL) {
		snprintf(text, sizeof(text), "standin:%s", c->tr->db->dir);
		c->future->present = true;
		c->future->bytes = bytes_dup(bytes_text(text));
	}
	future_settle(c->future, c->tr->failed);
	return true;
}

void call_get(struct call *c)
{
	FDBTransaction *tr = c->tr;
	struct bytes after;
	struct op *op;
	int error;

	if (tr->db->error == 0 && tr->deferred == 0 && special(c))
		return;
	error = refused(tr);
	if (error == 0 && bytes_cmp(c->a, tr_top(tr, false)) >= 0)
		error = ERR_OUTSIDE;
	/* No key is that long. */
	if (error != 0 || c->a.len > KEY_LIMIT) {
		future_settle(c->future, error);
		return;
	}
	op = op_new(tr, OP_GET, c->future);
	op->begin.key = bytes_dup(c->a);
	after = bytes_after(c->a);
	read_start(op, c->n[0] != 0, c->a, after);
	bytes_free(&after);
}

void call_get_key(struct call *c)
{
	FDBTransaction *tr = c->tr;
	struct op *op;
	int error = refused(tr);

	if (error == 0 && bytes_cmp(c->a, tr_top(tr, false)) > 0)
		error = ERR_OUTSIDE;
	if (error != 0) {
		future_settle(c->future, error);
		return;
	}
	op = op_new(tr, OP_KEY, c->future);
	op->begin = (struct op_selector){ bytes_dup(c->a), c->n[0] != 0, (int32_t)c->n[1] };
	read_start(op, c->n[2] != 0, bytes_text(""), tr_top(tr, false));
}

/* "The first key greater than k" is "the first one from k's successor on". */
static void no_or_equal(struct bytes *key, int64_t *or_equal)
{
	struct bytes after;

	if (*or_equal == 0)
		return;
	after = bytes_after(*key);
	bytes_free(key);
	*key = after;
	*or_equal = 0;
}

void call_get_range(struct call *c)
{
	FDBTransaction *tr = c->tr;
	struct bytes top = tr_top(tr, false);
	int32_t from = (int32_t)c->n[1], till = (int32_t)c->n[3];
	struct op *op;
	int error = refused(tr);

	if (error == 0 && (bytes_cmp(c->a, top) > 0 || bytes_cmp(c->b, top) > 0))
		error = ERR_OUTSIDE;
	if (error == 0 && (c->n[4] < 0 || c->n[5] < 0))
		error = ERR_RANGE_LIMITS;
	no_or_equal(&c->a, &c->n[0]);
	no_or_equal(&c->b, &c->n[2]);
	if (error != 0 || (from >= till && bytes_cmp(c->a, c->b) >= 0)) {
		future_settle(c->future, error);
		return;
	}
	op = op_new(tr, OP_RANGE, c->future);
	op->begin = (struct op_selector){ bytes_dup(c->a), false, from };
	op->end = (struct op_selector){ bytes_dup(c->b), false, till };
	op->rows = (uint32_t)c->n[4];
	op->bytes = (uint32_t)c->n[5];
	op->reverse = c->n[7] != 0;
	if (from == 1 && till == 1)
		read_start(op, c->n[6] != 0, c->a, c->b);
	else
		read_start(op, c->n[6] != 0, bytes_text(""), top);
}

void call_watch(struct call *c)
{
	FDBTransaction *tr = c->tr;
	struct bytes after;
	struct op *op;
	int error = refused(tr);

	if (error == 0 && tr->set.ryw_off)
		error = ERR_WATCHES_DISABLED;
	if (error == 0 && bytes_cmp(c->a, tr_top(tr, false)) >= 0)
		error = ERR_OUTSIDE;
	if (error == 0 && c->a.len > KEY_LIMIT)
		error = ERR_KEY_TOO_LARGE;
	if (error == 0 && tr->db->watches >= tr->db->max_watches)
		error = ERR_TOO_MANY_WATCHES;
	if (error != 0) {
		future_settle(c->future, error);
		return;
	}
	op = op_new(tr, OP_WATCH, c->future);
	op->begin.key = bytes_dup(c->a);
	tr->db->watches++;
	after = bytes_after(c->a);
	read_start(op, false, c->a, after);
	bytes_free(&after);
}

/* Whether a watch that knows its value sees it changed by this. */
static bool sees(const struct op *op, bool known, const struct bytes *value)
{
	bool present = value != NULL;

	return !known || op->present != present || (present && !bytes_same(op->value, *value));
}

/*
 * The transaction itself has changed the keys of [b, e): to *value, NULL: cleared; known
 * false: to who knows what.  Its watches report that at once.
 */
void watches_changed(
    FDBTransaction *tr, struct bytes b, struct bytes e, bool known, const struct bytes *value)
{
	struct op *op, *next;

	if (tr->db->watches == 0)
		return;
	TAILQ_FOREACH_SAFE (op, &tr->ops, link, next) {
		if (op->kind != OP_WATCH || bytes_cmp(op->begin.key, b) < 0 ||
		    bytes_cmp(op->begin.key, e) >= 0)
			continue;
		if (op->state == OP_WATCHES ? sees(op, known, value) : !known) {
			op_end(op, 0);
		} else if (op->state != OP_WATCHES) {
			op->changed = true;
			op->changed_present = value != NULL;
			bytes_free(&op->changed_value);
			if (value != NULL)
				op->changed_value = bytes_dup(*value);
		}
	}
}
