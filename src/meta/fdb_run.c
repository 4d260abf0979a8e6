/* SPDX-License-Identifier: BSD-2-Clause */
/* A run's life: passes until nothing lacks, the commit, and again. */
#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "meta/fdb_priv.h"

static void pass(struct deferred *d);

struct fdb_run *frun_new(struct fdb_store *st, struct meta_call *c, int (*fn)(struct fdb_run *t),
    void (*done)(struct fdb_run *t, int err))
{
	struct fdb_run *t;

	ALLOC_OBJ(t, FDB_RUN_MAGIC);
	if (t == NULL)
		return NULL;
	t->st = st;
	t->c = c;
	t->fn = fn;
	t->done = done;
	t->writes = fn != fstore_read;
	t->path = "";
	TAILQ_INIT(&t->ranges);
	return t;
}

void frun_free(struct fdb_run **tp)
{
	struct fdb_run *t;

	TAKE_OBJ(t, tp, FDB_RUN_MAGIC);
	loop_undefer(fstore_env(t->st)->loop, &t->go);
	fdb_abort(&t->end);
	fkv_forget(t);
	fstore_unread(t);
	free(t->conflicts);
	free(t->others);
	free(t->dirs);
	if (t->tr != NULL)
		fstore_api(t->st)->transaction_destroy(t->tr);
	FREE_OBJ(t);
}

void frun_go(struct fdb_run *t)
{
	loop_defer(fstore_env(t->st)->loop, &t->go, pass);
}

void frun_begin(struct fdb_run *t)
{
	t->phase = RUN_READING;
	t->tr = fdb_transaction(fstore_fdb(t->st));
	t->nomem = t->tr == NULL;
	frun_go(t);
}

void frun_stop(struct fdb_run *t, bool hard)
{
	t->stop = true;
	if (t->tr != NULL && (t->phase != RUN_COMMITTING || hard))
		fstore_api(t->st)->transaction_cancel(t->tr);
	if (t->phase == RUN_BEHIND)
		frun_go(t);
}

/* --- Do two concern the same names? */

static bool above(const char *a, const char *b)
{
	size_t n = strlen(a);

	return strncmp(a, b, n) == 0 && (b[n] == '\0' || b[n] == '/' || n == 0);
}

static bool related(const char *a, const char *b)
{
	return a != NULL && b != NULL && (above(a, b) || above(b, a));
}

static bool same_content(const struct meta_change *a, const struct meta_change *b)
{
	const struct meta_content *ca = a->verb == META_PUT ? meta_content_of(&a->rec) : NULL;
	const struct meta_content *cb = b->verb == META_PUT ? meta_content_of(&b->rec) : NULL;

	return ca != NULL && cb != NULL && ca->id == cb->id;
}

static bool same_thing(const struct meta_change *a, const struct meta_change *b)
{
	if (same_content(a, b))
		return true;
	if (a->path != NULL || b->path != NULL)
		return related(a->path, b->path) || related(a->path, b->to) ||
		       related(a->to, b->path) || related(a->to, b->to);
	return a->id == b->id &&
	       (a->verb == META_SETTING_PUT) == (b->verb == META_SETTING_PUT);
}

bool frun_overlap(const struct fdb_run *a, const struct fdb_run *b)
{
	if (a->c == NULL || b->c == NULL || !a->writes || !b->writes)
		return false;
	for (unsigned i = 0; i < a->c->n; i++) {
		for (unsigned j = 0; j < b->c->n; j++) {
			if (same_thing(&a->c->changes[i], &b->c->changes[j]))
				return true;
		}
	}
	return false;
}

/* --- Those that make the same directory: when many files are made at the same time in a new
 * one, all but one commit would be in vain. */

static bool makes_same(const struct fdb_run *a, const struct fdb_run *b)
{
	return a->dirs_used > 0 && b->dirs_used > 0 && a->made.len == b->made.len &&
	       memcmp(a->made.b, b->made.b, a->made.len) == 0;
}

static bool goes_behind(const struct fdb_run *t)
{
	const struct fdb_run *u;

	TAILQ_FOREACH (u, fstore_active(t->st), link) {
		if (u != t && u->phase == RUN_COMMITTING && makes_same(u, t))
			return true;
	}
	return false;
}

/* Its commit is over, in whichever way. */
static void let_others_go(const struct fdb_run *t)
{
	struct fdb_run *u;

	if (t->phase != RUN_COMMITTING || t->dirs_used == 0)
		return;
	TAILQ_FOREACH (u, fstore_active(t->st), link) {
		if (u->phase != RUN_BEHIND || !makes_same(u, t))
			continue;
		fkv_forget(u);
		fstore_unread(u);
		fstore_api(u->st)->transaction_reset(u->tr);
		u->phase = RUN_READING;
		frun_go(u);
	}
}

/* --- How it ends */

static void finish(struct fdb_run *t, int err)
{
	let_others_go(t);
	fkv_forget(t);
	fstore_ended(t, err);
}

/* What is left when FoundationDB says that trying again is of no use. */
static int fdb_errno(struct fdb_run *t, fdb_error_t code)
{
	const char *way_out = "";
	int err = -EIO;

	switch (code) {
	case FDB_ERR_TRANSACTION_TOO_LARGE:
	case FDB_ERR_KEY_TOO_LARGE:
	case FDB_ERR_VALUE_TOO_LARGE:
		err = -EINVAL;
		break;
	case FDB_ERR_TIMED_OUT:
	case FDB_ERR_TRANSACTION_TIMED_OUT:
		err = -ETIMEDOUT;
		break;
	case FDB_ERR_TRANSACTION_CANCELLED:
	case FDB_ERR_OPERATION_CANCELLED:
		return t->doubt ? -EIO : -ECANCELED;
	case FDB_ERR_NO_CLUSTER_FILE_FOUND:
	case FDB_ERR_CONNECTION_STRING_INVALID:
		way_out = ": meta.fdb.cluster.file names no cluster";
		break;
	default:
		break;
	}
	return errtext_set(&t->et, err, "metadata store %s: %s (%d)%s", fstore_name(t->st),
	    fdb_words(fstore_fdb(t->st), code), code, way_out);
}

/* Nobody waits for it, so it need not be tried again. */
static bool given_up(const struct fdb_run *t)
{
	return t->stop || (t->c != NULL && t->c->rq == NULL);
}

static void paused(struct fdb_wait *w, FDBFuture *future)
{
	struct fdb_run *t = container_of(w, struct fdb_run, end);
	fdb_error_t code = fstore_api(t->st)->future_get_error(future);

	if (code != 0) {
		finish(t, fdb_errno(t, code));
	} else if (given_up(t)) {
		finish(t, t->doubt ? -EIO : -ECANCELED);
	} else {
		t->phase = RUN_READING;
		frun_go(t);
	}
}

/* After an error: once more, when FoundationDB says so, or not at all. */
static void again(struct fdb_run *t, fdb_error_t code)
{
	let_others_go(t);
	fkv_forget(t);
	fstore_unread(t);
	/* What was done already may be deleted by this one on its way, and is swept then: what
	 * it makes anew must have other ids. */
	if (t->doubt)
		t->ndirs = 0;
	t->last = code;
	t->phase = RUN_PAUSING;
	if (given_up(t))
		finish(t, t->doubt ? -EIO : -ECANCELED);
	else if (fdb_wait(fstore_fdb(t->st), &t->end,
		     fstore_api(t->st)->transaction_on_error(t->tr, code), paused) != 0)
		finish(t, -ENOMEM);
}

static void committed(struct fdb_wait *w, FDBFuture *future)
{
	struct fdb_run *t = container_of(w, struct fdb_run, end);
	const struct fdb_api *api = fstore_api(t->st);
	fdb_error_t code = api->future_get_error(future);
	int64_t version = -1;

	if (code == 0)
		code = api->transaction_get_committed_version(t->tr, &version);
	if (code == 0) {
		fstore_committed(t, version);
		(void)FAULT("meta.committed");
		finish(t, 0);
		return;
	}
	if (code == FDB_ERR_TRANSACTION_CANCELLED || code == FDB_ERR_OPERATION_CANCELLED ||
	    api->error_predicate(FDB_ERROR_PREDICATE_MAYBE_COMMITTED, code) != 0)
		t->doubt = true;
	again(t, code);
}

static void commit(struct fdb_run *t)
{
	bool any;
	int err;

	if (goes_behind(t)) {
		t->phase = RUN_BEHIND;
		return;
	}
	err = fkv_flush(t, &any);
	if (err == 0 && any)
		err = FAULT("meta.commit");
	if (err != 0 || !any) {
		finish(t, err);
		return;
	}
	t->phase = RUN_COMMITTING;
	err = fdb_wait(fstore_fdb(t->st), &t->end, fstore_api(t->st)->transaction_commit(t->tr),
	    committed);
	if (err == 0)
		return;
	t->doubt = true; /* it may have been sent */
	finish(t, err);
}

static void pass(struct deferred *d)
{
	struct fdb_run *t = container_of(d, struct fdb_run, go);
	int err = 0, session;

	CHECK_OBJ(t, FDB_RUN_MAGIC);
	assert(t->pending == 0);
	if (given_up(t)) /* it would come long after whoever wanted it was told of a failure */
		err = t->doubt ? -EIO : -ECANCELED;
	else if (t->nomem)
		err = -ENOMEM;
	else if (!epoch_mine(fstore_env(t->st)->epoch))
		err = -ESTALE;
	if (err != 0) {
		finish(t, err);
		return;
	}
	if (t->code != 0) {
		again(t, t->code);
		return;
	}
	fkv_forget_pass(t);
	session = t->writes ? fnode_fenced(t) : 0;
	err = t->fn(t);
	/* What it said on the way counts when nothing lacks. */
	if (t->pending > 0 && err != -ENOMEM && session != -ENOMEM)
		return;
	assert(t->pending > 0 || (err != -EAGAIN && session != -EAGAIN));
	if (session != 0 && err != -ENOMEM)
		err = session;
	if (err != 0 || !t->writes)
		finish(t, err);
	else
		commit(t);
}
