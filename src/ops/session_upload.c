/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The upload of a session: a task of its own, for which requests wait.
 *
 *	lock	the path, so that nobody deletes or moves it meanwhile
 *	send	what is dirty is on its way; a write from now on is the next upload's
 *	sent	the node has the new version
 *	verify	a condition failed, but an earlier upload whose outcome nobody knows may
 *		have made what is there: then it has our bytes, or those of before they were
 *		written again: it is sent once more, to replace that alone
 *	record	what the storage cannot keep (times, mode, owner) goes to the metadata store
 *
 * Of a durable file the record says first that an upload begins, and then that the storage
 * has it, or why not (session_record.c).
 */
#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "ops/attr.h"
#include "ops/session_upload_op.h"

/* --- The task */

void session_failed(struct session *s, int err)
{
	char path[UFS_PATH_MAX + 1];

	s->state = SESSION_FAILED;
	if (node_path(s->fs, s->node, path) != 0)
		path[0] = '\0';
	log_error("/%s: what was written (%llu bytes) could not be stored: %s%s; it is kept: "
		  "`batonfs async-persist retry /%s` tries again, `batonfs async-persist drop "
		  "/%s` throws it away",
	    path, (unsigned long long)staged_size(s->sf), strerror(-err),
	    err == -ESTALE || err == -EEXIST ? " (somebody else has changed it there)" : "", path,
	    path);
	s->error = err;
	session_leave(s);
}

enum task_next up_finish(struct op_upload *u, int err)
{
	struct session *s = u->s;
	bool mine = s->state != SESSION_ORPHAN && !s->ended;

	if (up_must_tell(u, err))
		return up_tell(u, err);
	if (u->sending && err != 0) {
		staged_not_uploaded(s->sf);
		s->fresh = s->fresh || mine;
	}
	u->sending = false;
	pathlock_end(&u->lock);
	s->uploading = NULL;
	if (!mine || err == -ECANCELED) {
		err = mine ? err : 0;
	} else if (err == 0) {
		s->error = 0;
		s->error_wall_ns = 0;
		s->tries = 0;
	} else {
		s->error = err;
		s->error_wall_ns = loop_wall(s->fs->env.loop);
		s->tries = up_durable(u) ? s->content.tries : s->tries + 1;
		if (s->state == SESSION_CLOSING && !up_durable(u))
			session_failed(s, err);
	}
	s->through = false;
	if (s->fs->db != NULL)
		(void)session_store(s);
	if (err != -ECANCELED)
		session_wake(s, err);
	session_pump(s);
	return task_end(&u->task);
}

static void up_locked(struct pathlock *l)
{
	struct op_upload *u = container_of(l, struct op_upload, lock);

	task_fail(&u->task, l->err);
	task_resume(&u->task);
}

static void up_leave_lock(struct task *t)
{
	pathlock_end(&up_of(t)->lock);
}

static enum task_next up_lock(struct task *t)
{
	struct op_upload *u = up_of(t);
	struct fs *fs = u->s->fs;
	int err = task_err(t);

	if (err == 0)
		err = node_path(fs, u->s->node, u->path);
	if (err == 0)
		err = pathlock_add(&u->lock, u->path, false);
	if (err != 0)
		return up_finish(u, err);
	if (pathlock_try(&fs->locks, &u->lock, up_locked))
		return task_goto(t, UP_CHECK);
	return task_wait(t, UP_LOCKED, up_leave_lock);
}

/* The wait may have been for a rename of this very file. */
static enum task_next up_was_locked(struct task *t)
{
	struct op_upload *u = up_of(t);
	char path[UFS_PATH_MAX + 1];
	int err = task_err(t);

	if (err == 0)
		err = node_path(u->s->fs, u->s->node, path);
	if (err != 0)
		return up_finish(u, err);
	if (strcmp(path, u->path) == 0)
		return task_goto(t, UP_CHECK);
	pathlock_end(&u->lock);
	memset(&u->lock, 0, sizeof(u->lock));
	return task_goto(t, UP_LOCK);
}

static void up_leave_send(struct task *t)
{
	upload_abort(&up_of(t)->run);
}

static void up_sent_cb(struct upload_run *r, int err)
{
	up_result(r->user, err);
}

/* What the storage is to keep, or a record beside it. */
static void up_attributes(struct op_upload *u)
{
	struct session *s = u->s;

	u->mtime = s->mtime;
	u->was_created = s->created;
	u->set = (struct ufs_set){.what = s->set | UFS_SET_MTIME,
	    .mode = s->mode,
	    .uid = s->uid,
	    .gid = s->gid,
	    .atime = s->atime,
	    .mtime = s->mtime};
}

/* The row says that an upload was begun before any byte of it leaves. */
static int up_begin(struct op_upload *u)
{
	struct session *s = u->s;
	int err;

	s->doubt = true;
	s->fresh = false;
	staged_sending(s->sf);
	u->sending = true;
	err = session_store(s);
	if (err == 0)
		err = statedb_commit(s->fs->db);
	return err == 0 ? FAULT("upload.begun") : err;
}

static enum task_next up_check(struct task *t)
{
	struct op_upload *u = up_of(t);
	struct session *s = u->s;
	struct node n;
	int err = task_err(t);

	if (err == 0)
		err = node_load(s->fs, s->node, &n);
	if (err == 0)
		err = session_rebase(s);
	if (err != 0)
		return up_finish(u, err);
	fs_place(s->fs, u->path, &u->ufs, &u->sub);
	u->doubt = s->doubt;
	memcpy(u->version, up_durable(u) ? s->stored : n.version, sizeof(u->version));
	if (up_durable(u) && !s->content.doubt)
		return up_note_doubt(u);
	return task_goto(t, UP_SEND);
}

static enum task_next up_send(struct task *t)
{
	struct op_upload *u = up_of(t);
	struct session *s = u->s;
	int err = task_err(t);

	if (err == 0 && s->state == SESSION_ORPHAN)
		err = -ECANCELED;
	if (err != 0)
		return up_finish(u, err);
	up_attributes(u);
	err = up_begin(u);
	if (err == 0 && up_durable(u))
		err = FAULT("persist.begun");
	if (err != 0)
		return up_finish(u, err);
	u->run.absent = s->created;
	u->run.if_version = !s->created && u->version[0] != '\0' ? u->version : NULL;
	u->run.again = u->replacing;
	u->run.set = &u->set;
	u->run.done = up_sent_cb;
	u->run.user = u;
	upload_start(s->up, &u->run);
	return task_wait(t, UP_SENT, up_leave_send);
}

/* Can the storage have made the object although this was the answer? */
static bool outcome_open(int err)
{
	return err == -EIO || err == -ETIMEDOUT || err == -ECANCELED || err == -ENOTCONN;
}

enum task_next up_replace(struct op_upload *u)
{
	u->replacing = true;
	staged_not_uploaded(u->s->sf);
	u->sending = false;
	u->s->fresh = true;
	return task_goto(&u->task, UP_SEND);
}

static enum task_next up_was_sent(struct task *t)
{
	struct op_upload *u = up_of(t);
	int err = task_err(t) != 0 ? task_err(t) : u->result;

	if (err == 0) {
		(void)FAULT("upload.sent");
		if (up_durable(u))
			(void)FAULT("persist.stored");
		u->attr = u->run.attr;
		u->size = u->run.size;
		return task_goto(t, UP_MADE);
	}
	if ((err == -ESTALE || err == -EEXIST) && u->doubt && !u->replacing)
		return u->s->fresh && !u->s->base ? up_replace(u) : task_goto(t, UP_ASK);
	u->s->doubt = outcome_open(err) || (u->doubt && err != -ESTALE && err != -EEXIST);
	return up_finish(u, err);
}

/* --- The storage has it */

/* Mode and owner that the storage does not know are what they were, or what was set. */
static void up_own_attr(const struct op_upload *u, const struct node *n, struct ufs_attr *a)
{
	const struct fs *fs = u->s->fs;
	unsigned own = UFS_SET_MODE | UFS_SET_UID | UFS_SET_GID;

	a->mtime = u->mtime;
	if ((n->flags & NODE_HAVE_MODE) == 0 && (u->set.what & own) == 0)
		return;
	a->have_mode = true;
	a->mode = (n->flags & NODE_HAVE_MODE) != 0 ? n->mode : fs->file_mode;
	a->uid = (n->flags & NODE_HAVE_MODE) != 0 ? n->uid : fs->uid;
	a->gid = (n->flags & NODE_HAVE_MODE) != 0 ? n->gid : fs->gid;
	if ((u->set.what & UFS_SET_MODE) != 0)
		a->mode = u->set.mode;
	if ((u->set.what & UFS_SET_UID) != 0)
		a->uid = u->set.uid;
	if ((u->set.what & UFS_SET_GID) != 0)
		a->gid = u->set.gid;
}

/* What was asked for meanwhile is still to be set. */
static void up_forget_set(struct op_upload *u)
{
	struct session *s = u->s;

	if (s->mode == u->set.mode)
		s->set &= ~UFS_SET_MODE;
	if (s->uid == u->set.uid)
		s->set &= ~UFS_SET_UID;
	if (s->gid == u->set.gid)
		s->set &= ~UFS_SET_GID;
	if (memcmp(&s->atime, &u->set.atime, sizeof(s->atime)) == 0)
		s->set &= ~UFS_SET_ATIME;
	if (memcmp(&s->mtime, &u->set.mtime, sizeof(s->mtime)) == 0)
		s->set &= ~UFS_SET_MTIME;
}

/* What lies beneath the staged file from now on. */
static int up_take_base(struct op_upload *u)
{
	struct session *s = u->s;
	struct blob_id bid = {
	    .ufs = u->ufs, .path = u->sub, .version = u->attr.version, .size = u->size};
	struct blob *blob = NULL;
	int err;

	if (up_durable(u)) {
		if (s->clean != NULL)
			cache_blob_put(&s->clean);
		/* Without it the file is deleted, no more. */
		if (s->content.state == META_STATE_PERSISTED)
			s->clean = cache_blob_get(s->fs->env.cache, &bid);
		return staged_uploaded(s->sf, NULL, u->size);
	}
	blob = cache_blob_get(s->fs->env.cache, &bid);
	if (blob == NULL)
		return -ENOMEM;
	err = staged_uploaded(s->sf, blob, u->size);
	cache_blob_put(&blob);
	return err;
}

int up_take(struct op_upload *u, bool native)
{
	struct session *s = u->s;
	struct fs *fs = s->fs;
	struct node n;
	int err;

	u->attr.kind = UFS_FILE;
	u->attr.size = u->size;
	err = node_load(fs, s->node, &n);
	if (err != 0)
		return err;
	if (!native)
		up_own_attr(u, &n, &u->attr);
	/* What was written meanwhile goes on to be the metadata store's. */
	if (up_durable(u) && s->content.state != META_STATE_PERSISTED)
		memcpy(u->attr.version, n.version, sizeof(u->attr.version));
	err = node_set_version(fs, s->node, &u->attr);
	if (err == 0)
		err = up_take_base(u);
	if (err != 0)
		return err;
	u->sending = false;
	s->base = u->size > 0 && !up_durable(u);
	s->created = s->doubt = false;
	/* Parts of the next upload may be copied from this version; it will see to that if
	 * it cannot be noted now. */
	s->seen = fs->rebinds - 1;
	(void)session_rebase(s);
	return session_store(s);
}

static void up_meta_cb(struct meta_req *r, int err)
{
	up_result(r->user, err);
}

static void up_leave_get(struct task *t)
{
	meta_abort(&up_of(t)->get.req);
}

static enum task_next up_made(struct task *t)
{
	struct op_upload *u = up_of(t);
	struct fs *fs = u->s->fs;
	bool native = (ufs_can(u->ufs) & UFS_CAN_SETATTR) != 0;
	int err;

	/* Cancelled or not: it has happened. */
	if (up_durable(u) && u->s->state != SESSION_ORPHAN)
		return up_persist(u);
	err = u->s->state == SESSION_ORPHAN ? 0 : up_take(u, native);
	(void)FAULT("upload.taken");
	if (err != 0 || native || fs->meta == NULL || u->s->state == SESSION_ORPHAN) {
		if (err == 0)
			up_forget_set(u);
		return up_finish(u, err);
	}
	if (task_err(t) != 0)
		return up_finish(u, task_err(t));
	if (u->was_created) { /* what there may be is of something that is gone */
		u->result = -ENOENT;
		return task_goto(t, UP_RECORD);
	}
	u->get.path = u->path;
	u->get.req.user = u;
	meta_get(fs->meta, &u->get, up_meta_cb);
	return task_wait(t, UP_RECORD, up_leave_get);
}

static void up_leave_txn(struct task *t)
{
	meta_abort(&up_of(t)->txn.req);
}

/* The content is stored, its attributes are not: a later upload brings them too. */
static enum task_next up_unrecorded(struct op_upload *u, int err)
{
	u->s->fresh = true;
	u->s->set |= u->set.what & ~UFS_SET_MTIME;
	return up_finish(u, err);
}

static enum task_next up_record(struct task *t)
{
	struct op_upload *u = up_of(t);
	bool had = u->result == 0 && !u->was_created;

	if (task_fail(t, u->result == -ENOENT ? 0 : u->result) != 0)
		return up_unrecorded(u, task_err(t));
	u->change.verb = META_PUT;
	u->change.path = u->path;
	attr_record(&u->change.rec, had ? &u->get.rec : NULL, &u->attr, &u->set);
	u->txn.changes = &u->change;
	u->txn.n = 1;
	u->txn.later = true;
	u->txn.req.user = u;
	meta_txn(u->s->fs->meta, &u->txn, up_meta_cb);
	return task_wait(t, UP_RECORDED, up_leave_txn);
}

static enum task_next up_recorded(struct task *t)
{
	struct op_upload *u = up_of(t);

	if (task_fail(t, u->result) != 0)
		return up_unrecorded(u, task_err(t));
	(void)FAULT("upload.recorded");
	up_forget_set(u);
	return up_finish(u, 0);
}

static void up_fini(struct task *t)
{
	struct op_upload *u = up_of(t);
	struct session *s = u->s;
	struct fs *fs = s->fs;

	pathlock_end(&u->lock);
	free(u->theirs);
	free(u->ours);
	FREE_OBJ(u);
	session_unuse(s);
	fs->nwork--;
	fs_op_ended(fs);
}

static const struct task_step up_steps[] = {
    [UP_LOCK] = {"lock", up_lock, TO(UP_LOCKED) | TO(UP_CHECK) | UP_ENDS},
    [UP_LOCKED] = {"locked", up_was_locked, TO(UP_LOCK) | TO(UP_CHECK) | UP_ENDS},
    [UP_CHECK] = {"check", up_check, TO(UP_DOUBTED) | TO(UP_SEND) | UP_ENDS},
    [UP_DOUBTED] = {"doubted", up_doubted, TO(UP_SEND) | UP_ENDS},
    [UP_SEND] = {"send", up_send, TO(UP_SENT) | UP_ENDS},
    [UP_SENT] = {"sent", up_was_sent, TO(UP_SEND) | TO(UP_ASK) | TO(UP_MADE) | UP_ENDS},
    [UP_ASK] = {"ask", up_ask, TO(UP_ASKED) | UP_ENDS},
    [UP_ASKED] = {"asked", up_was_asked, TO(UP_SEND) | TO(UP_COMPARE) | UP_ENDS},
    [UP_COMPARE] = {"compare", up_compare,
	TO(UP_SEND) | TO(UP_READ) | TO(UP_MADE) | UP_ENDS},
    [UP_READ] = {"read", up_was_read, TO(UP_COMPARED) | UP_ENDS},
    [UP_COMPARED] = {"compared", up_compared, TO(UP_SEND) | TO(UP_COMPARE) | UP_ENDS},
    [UP_MADE] = {"made", up_made, TO(UP_RECORD) | TO(UP_PERSISTED)},
    [UP_RECORD] = {"record", up_record, TO(UP_RECORDED)},
    [UP_RECORDED] = {"recorded", up_recorded, 0},
    [UP_PERSISTED] = {"persisted", up_persisted, UP_ENDS},
    [UP_FAILED] = {"failed", up_failed, 0},
};
static const struct task_kind up_kind = {"upload", up_steps, ARRAY_LEN(up_steps), up_fini};

void session_upload_start(struct session *s)
{
	struct op_upload *u;

	CHECK_OBJ(s, SESSION_MAGIC);
	assert(s->uploading == NULL);
	ALLOC_OBJ(u, UPLOAD_MAGIC);
	if (u == NULL) {
		s->error = -ENOMEM;
		s->error_wall_ns = loop_wall(s->fs->env.loop);
		s->tries++;
		if (s->state == SESSION_CLOSING && s->policy == META_POLICY_NO_CACHE)
			session_failed(s, -ENOMEM);
		(void)session_store(s);
		session_wake(s, -ENOMEM);
		return;
	}
	u->s = s;
	s->uploading = u;
	session_use(s);
	s->fs->nwork++;
	task_start(&u->task, s->fs->env.loop, &up_kind);
}

void session_upload_cancel(struct session *s)
{
	if (s->uploading != NULL)
		task_cancel(&s->uploading->task, -ECANCELED);
}

/* What is on its way to become an object, and what comes after it, is waited for a little
 * by a hand-over, and by who is about to delete it: given up, the object might appear
 * behind his back.  Parts of a larger one go on from the next daemon. */
void session_upload_recall(struct session *s)
{
	struct op_upload *u = s->uploading;

	if (u != NULL && (u->task.step < UP_SENT ||
			     (u->task.step == UP_SENT && !upload_making(s->up))))
		session_upload_cancel(s);
}

bool session_sending(const struct session *s)
{
	return s->uploading != NULL && s->uploading->sending;
}
