/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Deletions that were answered, on their way to the storage: a task of its own, one at a
 * time.
 *
 *	pick	up to UFS_DELETE_MAX that are of one storage; a directory's only when
 *		nothing below it is left
 *	look	those that are late: does the storage still have what was unlinked?
 *	send	all in one request
 *	forget	their records in the metadata store
 *	end	the rows go, for good; then the names are free
 *
 * Whoever dies on the way leaves the rows; doing it again has the effect of doing it once,
 * as the names are locked until the rows are gone.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/units.h"
#include "meta/meta.h"
#include "ops/attr.h"
#include "ops/unlinked.h"
#include "reactor/task.h"

#define LATE_NS (10 * NS_PER_S) /* so old, the storage is asked first */
#define RETRY_MIN_NS NS_PER_S
#define RETRY_MAX_NS (60 * NS_PER_S)
#define AGAIN 1 /* of unlinked.err: not known, it is tried again */

struct unlinked_batch {
	struct task task;
	uint32_t magic;
#define BATCH_MAGIC 0x5e551003u
	struct unlinkeds *ul;
	struct ufs *ufs;
	unsigned n, at, sent;
	int result;
	struct ufs_stat stat;
	struct ufs_delete del;
	struct meta_txn txn;
	struct unlinked *of[UFS_DELETE_MAX];
	/* Of those that are sent. */
	struct unlinked *who[UFS_DELETE_MAX];
	const char *paths[UFS_DELETE_MAX];
	bool dirs[UFS_DELETE_MAX];
	int errs[UFS_DELETE_MAX];
	unsigned intents;
	struct meta_change changes[2 * UFS_DELETE_MAX];
};

enum { UB_PICK, UB_LOOK, UB_LOOKED, UB_SEND, UB_SENT, UB_FORGET, UB_END };

static struct unlinked_batch *batch_of(struct task *t)
{
	struct unlinked_batch *b = container_of(t, struct unlinked_batch, task);

	CHECK_OBJ(b, BATCH_MAGIC);
	return b;
}

static void resume(struct unlinked_batch *b, int err)
{
	b->result = err;
	task_resume(&b->task);
}

/* May it work the next time? */
static bool passing(int err)
{
	return err == -EIO || err == -ETIMEDOUT || err == -ENOMEM || err == -ECANCELED ||
	       err == -ENOSPC;
}

static const char *place(struct unlinked_batch *b, const struct unlinked *u, struct ufs **ufs)
{
	const char *sub;

	fs_place(b->ul->fs, u->path, ufs, &sub);
	return sub;
}

static enum task_next ub_pick(struct task *t)
{
	struct unlinked_batch *b = batch_of(t);
	struct unlinked *u;
	struct ufs *ufs;

	/* The storage hears of nothing that a successor would not know. */
	if (task_fail(t, task_err(t) != 0 ? 0 : statedb_commit(b->ul->fs->db)) != 0)
		return task_goto(t, UB_END);
	TAILQ_FOREACH(u, &b->ul->list, link)
	{
		if (b->n == UFS_DELETE_MAX)
			break;
		(void)place(b, u, &ufs);
		if (b->ufs == NULL)
			b->ufs = ufs;
		if (u->below > 0 || ufs != b->ufs)
			continue;
		u->sending = true;
		u->err = AGAIN;
		b->of[b->n++] = u;
	}
	return task_goto(t, b->n > 0 ? UB_LOOK : UB_END);
}

/* --- Those that are late */

static bool late(const struct unlinked_batch *b, const struct unlinked *u)
{
	uint64_t now = loop_wall(b->ul->fs->env.loop), size, intent;

	if (unlinked_doubt(u, &size, &intent))
		return true;
	return !u->dir && (now < u->noted_ns || now - u->noted_ns > LATE_NS);
}

static bool is_ours(const struct unlinked *u, const struct ufs_attr *a)
{
	uint64_t size, intent;

	if (a->kind != UFS_FILE)
		return false;
	return unlinked_doubt(u, &size, &intent) ? a->size == size
						 : strcmp(a->version, u->version) == 0;
}

static void stat_cb(struct ufs_req *r, int err)
{
	resume(r->user, err);
}

static void leave_stat(struct task *t)
{
	ufs_abort(&batch_of(t)->stat.req);
}

static enum task_next ub_look(struct task *t)
{
	struct unlinked_batch *b = batch_of(t);
	struct ufs *ufs;

	if (task_err(t) != 0)
		return task_goto(t, UB_END);
	while (b->at < b->n && !late(b, b->of[b->at]))
		b->at++;
	if (b->at == b->n)
		return task_goto(t, UB_SEND);
	b->stat.path = place(b, b->of[b->at], &ufs);
	b->stat.req.user = b;
	ufs_stat(ufs, &b->stat, stat_cb);
	return task_wait(t, UB_LOOKED, leave_stat);
}

static enum task_next ub_looked(struct task *t)
{
	struct unlinked_batch *b = batch_of(t);
	struct unlinked *u = b->of[b->at++];
	const struct ufs_attr *a = &b->stat.attr;

	if (task_fail(t, b->result == -ENOENT ? 0 : b->result) != 0)
		return task_goto(t, UB_END);
	if (b->result == -ENOENT) {
		u->err = 0;
	} else if (!is_ours(u, a)) {
		log_warn("/%s: was deleted here, but is another file in the storage by now: that "
			 "one stays",
		    u->path);
		u->err = 0;
	}
	return task_goto(t, UB_LOOK);
}

/* --- Send */

static void del_cb(struct ufs_req *r, int err)
{
	resume(r->user, err);
}

static void leave_delete(struct task *t)
{
	ufs_abort(&batch_of(t)->del.req);
}

static enum task_next ub_send(struct task *t)
{
	struct unlinked_batch *b = batch_of(t);
	struct unlinked *u;
	struct ufs *ufs;

	for (unsigned i = 0; i < b->n; i++) {
		u = b->of[i];
		if (u->err != AGAIN)
			continue;
		b->who[b->sent] = u;
		b->dirs[b->sent] = u->dir;
		b->paths[b->sent++] = place(b, u, &ufs);
	}
	if (task_err(t) != 0 || b->sent == 0 || task_fail(t, FAULT("unlinked.send")) != 0)
		return task_goto(t, UB_SENT);
	b->del.paths = b->paths;
	b->del.dirs = b->dirs;
	b->del.errs = b->errs;
	b->del.n = b->sent;
	b->del.req.user = b;
	COUNT(b->ul->fs->env.loop, DELETE_BATCHES, 1);
	ufs_delete(b->ufs, &b->del, del_cb);
	return task_wait(t, UB_SENT, leave_delete);
}

static void meta_cb(struct meta_req *r, int err)
{
	resume(r->user, err);
}

static void leave_forget(struct task *t)
{
	meta_abort(&batch_of(t)->txn.req);
}

static bool any_records(const struct fs *fs)
{
	struct meta_status st;

	if (fs->meta == NULL)
		return false;
	meta_status(fs->meta, &st);
	return !st.open || st.shared || st.records > 0;
}

static enum task_next ub_sent(struct task *t)
{
	struct unlinked_batch *b = batch_of(t);
	struct fs *fs = b->ul->fs;
	uint64_t size, intent;
	unsigned n = 0;
	int err;

	(void)FAULT("unlinked.sent");
	if (task_err(t) != 0 || (b->sent > 0 && passing(b->result))) {
		task_fail(t, b->result);
		return task_goto(t, UB_END);
	}
	for (unsigned i = 0; i < b->sent; i++) {
		err = b->result != 0 ? b->result : b->errs[i];
		b->who[i]->err = passing(err) ? AGAIN : err;
		if (passing(err))
			b->ul->error = err;
	}
	b->result = 0;
	for (unsigned i = 0; i < b->n && any_records(fs); i++)
		if (b->of[i]->err == 0 && !attr_native(fs, b->of[i]->path))
			b->changes[n++] =
			    (struct meta_change){.verb = META_DEL, .path = b->of[i]->path};
	for (unsigned i = 0; i < b->n && fs->meta != NULL; i++)
		if (b->of[i]->err != AGAIN && unlinked_doubt(b->of[i], &size, &intent)) {
			b->changes[n++] =
			    (struct meta_change){.verb = META_INTENT_DEL, .id = intent};
			b->intents++;
		}
	if (n == 0)
		return task_goto(t, UB_FORGET);
	b->txn.changes = b->changes;
	b->txn.n = n;
	b->txn.later = b->intents == 0;
	b->txn.req.user = b;
	meta_txn(fs->meta, &b->txn, meta_cb);
	return task_wait(t, UB_FORGET, leave_forget);
}

/* --- The end */

static void keep_doubtful(struct unlinked_batch *b)
{
	uint64_t size, intent;

	for (unsigned i = 0; i < b->n; i++)
		if (unlinked_doubt(b->of[i], &size, &intent))
			b->of[i]->err = AGAIN;
}

static enum task_next ub_forget(struct task *t)
{
	struct unlinked_batch *b = batch_of(t);

	(void)FAULT("unlinked.recorded");
	/* With an intent it would be deleted once more, and maybe what is there by then. */
	if (b->intents > 0 && (task_err(t) != 0 || b->result != 0))
		keep_doubtful(b);
	/* They have gone, whatever is left of them in the store. */
	if (task_err(t) == 0 && b->result != 0)
		log_warn("%u deleted names, such as /%s: their attributes stay in the metadata "
			 "store: %s",
		    b->n, b->of[0]->path, strerror(-b->result));
	return task_goto(t, UB_END);
}

/* Committed: what is made there now is not deleted by a successor.  False: all stays. */
static bool rows_go(struct unlinked_batch *b)
{
	struct statedb *db = b->ul->fs->db;
	uint64_t be;
	int err = 0;

	for (unsigned i = 0; i < b->n && err == 0; i++) {
		if (b->of[i]->err == AGAIN)
			continue;
		be = htobe64(b->of[i]->seq);
		err = statedb_del(db, STATEDB_UNLINKED, &be, sizeof(be));
		err = err == -ENOENT ? 0 : err;
	}
	if (err == 0)
		err = statedb_commit(db);
	if (err != 0)
		log_error("state database: deleted names: %s", strerror(-err));
	return err == 0;
}

static void failed(struct unlinkeds *ul, int err)
{
	if (err == -ECANCELED)
		return;
	if (ul->failures == 0)
		log_error("%u names that were deleted here could not be deleted in the storage "
			  "yet: %s; it is tried again",
		    ul->n, strerror(-err));
	ul->error = err;
	ul->failures++;
	memset(ul->proved, 0, sizeof(ul->proved));
}

static enum task_next ub_end(struct task *t)
{
	struct unlinked_batch *b = batch_of(t);
	struct unlinkeds *ul = b->ul;
	bool again = false, gone = b->n > 0 && rows_go(b);
	unsigned ended = 0;
	int err = task_err(t);

	/* Cancelled or not: what has happened has. */
	for (unsigned i = 0; i < b->n; i++)
		b->of[i]->sending = false;
	for (unsigned i = 0; i < b->n; i++) {
		struct unlinked *u = b->of[i];

		if (u->err == AGAIN || !gone) {
			again = true;
			continue;
		}
		ended += u->err == 0;
		unlinked_end(ul, u, u->err);
	}
	(void)FAULT("unlinked.gone");
	if (err == 0 && again)
		err = gone && ul->error != 0 ? ul->error : -EIO;
	if (err != 0)
		failed(ul, err);
	else if (ended > 0)
		ul->failures = 0;
	if (err == 0 && ul->failures == 0)
		ul->error = 0;
	if (err == -ECANCELED)
		err = 0;
	ul->wanted = false;
	ul->all = ul->all && ul->n > 0;
	/* Some of these may want the rest at once. */
	pathlocks_unblocked(&ul->fs->locks, err != 0 ? -EIO : 0);
	unlinked_wake(ul, err != 0 ? -EIO : 0);
	if (err != 0)
		ul->wanted = false;
	return task_end(t);
}

static void ub_fini(struct task *t)
{
	struct unlinked_batch *b = batch_of(t);
	struct unlinkeds *ul = b->ul;
	struct fs *fs = ul->fs;

	ul->batch = NULL;
	FREE_OBJ(b);
	fs->nwork--;
	unlinked_pump(ul);
	fs_op_ended(fs);
}

static const struct task_step ub_steps[] = {
    [UB_PICK] = {"pick", ub_pick, TO(UB_LOOK) | TO(UB_END)},
    [UB_LOOK] = {"look", ub_look, TO(UB_LOOKED) | TO(UB_SEND) | TO(UB_END)},
    [UB_LOOKED] = {"looked", ub_looked, TO(UB_LOOK) | TO(UB_END)},
    [UB_SEND] = {"send", ub_send, TO(UB_SENT)},
    [UB_SENT] = {"sent", ub_sent, TO(UB_FORGET) | TO(UB_END)},
    [UB_FORGET] = {"forget", ub_forget, TO(UB_END)},
    [UB_END] = {"end", ub_end, 0},
};
static const struct task_kind ub_kind = {"delete", ub_steps, ARRAY_LEN(ub_steps), ub_fini};

/* --- When */

static uint64_t pause_ns(const struct unlinkeds *ul)
{
	uint64_t delay = ul->fs->env.cfg->delete_delay;
	uint64_t now = loop_wall(ul->fs->env.loop), since = TAILQ_FIRST(&ul->list)->noted_ns;

	if (ul->failures > 0)
		return MIN(RETRY_MIN_NS << MIN(ul->failures - 1, 10u), RETRY_MAX_NS);
	return now < since ? delay : now - since < delay ? delay - (now - since) : 0;
}

void unlinked_pump(struct unlinkeds *ul)
{
	struct unlinked_batch *b;

	if (ul->held || ul->batch != NULL || ul->n == 0 || ul->fs->db == NULL)
		return;
	if (!ul->wanted && ((ul->n < UFS_DELETE_MAX && !ul->all) || ul->failures > 0)) {
		if (!timer_armed(&ul->timer))
			timer_arm(&ul->timer, pause_ns(ul));
		return;
	}
	timer_cancel(&ul->timer);
	ALLOC_OBJ(b, BATCH_MAGIC);
	if (b == NULL) {
		failed(ul, -ENOMEM);
		ul->wanted = false;
		timer_arm(&ul->timer, pause_ns(ul));
		return;
	}
	b->ul = ul;
	ul->batch = b;
	ul->fs->nwork++;
	task_start(&b->task, ul->fs->env.loop, &ub_kind);
}

void unlinked_hold(struct fs *fs)
{
	fs->unlinked->held = true;
	timer_cancel(&fs->unlinked->timer);
}

void unlinked_pause(struct fs *fs)
{
	unlinked_hold(fs);
	if (fs->unlinked->batch != NULL)
		task_cancel(&fs->unlinked->batch->task, -ECANCELED);
}

void unlinked_resume(struct fs *fs)
{
	fs->unlinked->held = false;
	unlinked_flush(fs);
}
