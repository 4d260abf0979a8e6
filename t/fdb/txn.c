/* SPDX-License-Identifier: BSD-2-Clause */
#include "txn.h"

#include <endian.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "wire.h"

static void own_free(FDBTransaction *tr)
{
	for (size_t i = 0; i < tr->n; i++) {
		bytes_free(&tr->own[i].key);
		bytes_free(&tr->own[i].value);
	}
	free(tr->own);
	tr->own = NULL;
	tr->n = tr->cap = tr->own_size = 0;
}

/* Back to how it began, for another try; what was set to stay stays. */
void tr_clear(FDBTransaction *tr)
{
	own_free(tr);
	ranges_free(&tr->reads);
	ranges_free(&tr->writes);
	ranges_free(&tr->known);
	ranges_free(&tr->unreadable);
	tr->failed = tr->deferred = tr->read_error = 0;
	tr->committing = false;
	tr->version_state = VERSION_NONE;
	tr->committed = -1;
	tr->set = (struct settings){
		.snapshot_ryw = tr->db->defaults.snapshot_ryw,
		.size_limit = tr->db->defaults.size_limit,
	};
	tr_deadline(tr);
}

/* All that is under way ends so; nothing of it goes on. */
static void end_all(FDBTransaction *tr, int error)
{
	struct op *op;

	if (tr->failed == 0)
		tr->failed = error; /* no commit is to start from the ends of its reads */
	while ((op = TAILQ_FIRST(&tr->ops)) != NULL)
		op_end(op, error);
}

void tr_fail(FDBTransaction *tr, int error)
{
	if (tr->failed != 0)
		return;
	timer_stop(&tr->deadline);
	end_all(tr, error);
}

void tr_reset(FDBTransaction *tr)
{
	const struct defaults *d = &tr->db->defaults;

	end_all(tr, ERR_TRANSACTION_CANCELLED);
	tr->retries = 0;
	tr->backoff = 0.01;
	tr->created = net_now();
	tr->timeout = d->timeout;
	tr->retry_limit = d->retry_limit;
	tr->max_delay = d->max_delay;
	tr_clear(tr);
}

void tr_free(FDBTransaction *tr)
{
	end_all(tr, ERR_TRANSACTION_CANCELLED);
	timer_stop(&tr->deadline);
	tr_clear(tr);
	timer_stop(&tr->deadline);
	db_drop(tr->db);
	free(tr);
}

static void timed_out(struct timer *t)
{
	FDBTransaction *tr =
	    (FDBTransaction *)(void *)((char *)t - offsetof(struct FDB_transaction, deadline));

	tr_fail(tr, ERR_TIMED_OUT);
}

/* A timeout counts from the transaction's creation, or its reset; not from a retry. */
void tr_deadline(FDBTransaction *tr)
{
	timer_stop(&tr->deadline);
	if (tr->timeout > 0 && tr->failed == 0)
		timer_arm(&tr->deadline, tr->created + tr->timeout, timed_out);
}

/* What is asked for after the commit began fails, and unless that is set the rest too. */
bool tr_used_during_commit(FDBTransaction *tr)
{
	if (tr->committing && !tr->set.unprotected)
		tr_fail(tr, ERR_USED_DURING_COMMIT);
	return tr->committing;
}

struct bytes tr_top(const FDBTransaction *tr, bool write)
{
	bool system = tr->set.write_system || (tr->set.read_system && !write);

	return bytes_text(system ? "\xff\xff" : "\xff");
}

struct op *op_new(FDBTransaction *tr, enum op_kind kind, FDBFuture *f)
{
	struct op *op = mem_get(sizeof(*op));

	op->kind = kind;
	op->tr = tr;
	op->db = tr->db;
	db_hold(op->db);
	op->future = f;
	if (f != NULL)
		f->op = op;
	TAILQ_INSERT_TAIL(&tr->ops, op, link);
	return op;
}

static bool is_read(const struct op *op)
{
	return op->kind == OP_GET || op->kind == OP_KEY || op->kind == OP_RANGE ||
	    (op->kind == OP_WATCH && op->state < OP_WATCHES);
}

void tr_read_over(FDBTransaction *tr, int error)
{
	struct op *op;

	tr->reading--;
	if (error != 0 && tr->read_error == 0)
		tr->read_error = error;
	if (tr->reading > 0 || !tr->committing || tr->failed != 0)
		return;
	TAILQ_FOREACH (op, &tr->ops, link) {
		if (op->kind == OP_COMMIT && op->state == OP_WAITS) {
			commit_go(op);
			return;
		}
	}
}

static void op_free(struct op *op)
{
	FDBDatabase *db = op->db;

	timer_stop(&op->timer);
	if (op->id != 0)
		op_unsend(op);
	if (op->kind == OP_WATCH)
		db->watches--;
	buf_free(&op->message);
	bytes_free(&op->begin.key);
	bytes_free(&op->end.key);
	bytes_free(&op->value);
	bytes_free(&op->changed_value);
	ranges_free(&op->pieces);
	free(op);
	db_drop(db);
}

void op_end(struct op *op, int error)
{
	FDBTransaction *tr = op->tr;
	bool read = tr != NULL && is_read(op);

	if (tr != NULL)
		TAILQ_REMOVE(&tr->ops, op, link);
	future_settle(op->future, error);
	op_free(op);
	if (read)
		tr_read_over(tr, error);
}

/* --- the read version */

static void version_known(FDBTransaction *tr)
{
	struct op_list waiting = TAILQ_HEAD_INITIALIZER(waiting);
	int error = tr->version_state == VERSION_FAILED ? (int)tr->version : 0;
	struct op *op, *next;

	TAILQ_FOREACH_SAFE (op, &tr->ops, link, next) {
		if (op->kind == OP_VERSION) {
			if (op->future != NULL)
				op->future->number = tr->version;
			op_end(op, error);
		}
	}
	/* One after the other: an end may end others. */
	for (;;) {
		TAILQ_FOREACH (op, &tr->ops, link) {
			if (op->state == OP_WAITS && is_read(op))
				break;
		}
		if (op == NULL)
			break;
		if (error != 0)
			op_end(op, error);
		else
			read_go(op);
	}
}

void tr_need_version(FDBTransaction *tr)
{
	struct buf none = { 0 };

	if (tr->version_state != VERSION_NONE)
		return;
	tr->version_state = VERSION_ASKED;
	op_send(op_new(tr, OP_VERSION, NULL), WIRE_GRV, &none);
}

static void version_answered(struct op *op, int error, struct rd *r)
{
	FDBTransaction *tr = op->tr;
	struct op *commit;

	tr->version_state = error == 0 ? VERSION_KNOWN : VERSION_FAILED;
	tr->version = error == 0 ? (int64_t)rd_u64(r) : error;
	version_known(tr); /* ends this one, too */
	if (tr->failed != 0)
		return;
	TAILQ_FOREACH (commit, &tr->ops, link) {
		if (commit->kind == OP_COMMIT && commit->state == OP_WAITS && tr->reading == 0) {
			commit_send(commit);
			return;
		}
	}
}

void op_answered(struct op *op, int error, struct rd *r)
{
	if (op->kind == OP_VERSION)
		version_answered(op, error, r);
	else if (op->kind == OP_COMMIT)
		commit_answered(op, error, r);
	else if (op->kind == OP_WATCH && op->state == OP_LIVES)
		op_end(op, error);
	else
		read_answered(op, error, r);
}

/* The user gave the future up.  A watch ends with it; what else goes on may be needed. */
void op_cancelled(FDBFuture *f)
{
	struct op *op = f->op;

	if (op != NULL && op->kind == OP_WATCH) {
		if (op->state == OP_LIVES)
			op_tell_forget(op);
		op_end(op, ERR_CANCELLED);
		return;
	}
	if (op != NULL)
		op->future = NULL;
	future_settle(f, ERR_CANCELLED);
}

void buf_own(struct buf *to, const FDBTransaction *tr, size_t n, const struct bytes *key)
{
	size_t at = to->len;
	uint32_t count = 0;

	buf_u32(to, 0);
	for (size_t i = 0; i < n; i++) {
		const struct own *m = &tr->own[i];

		if (key != NULL &&
		    (m->kind == MUT_CLEAR_RANGE ?
			    bytes_cmp(*key, m->key) < 0 || bytes_cmp(*key, m->value) >= 0 :
			    !bytes_same(*key, m->key)))
			continue;
		buf_u32(to, m->kind);
		buf_bytes(to, m->key);
		buf_bytes(to, m->value);
		count++;
	}
	count = htole32(count);
	memcpy(to->at + at, &count, sizeof(count));
}
