/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * UNLINK and RMDIR.
 *
 *	lock	the path (a directory: all below), so that no upload brings it back
 *	look	is it there, and of the right kind?
 *	ready	a directory is empty; of a file that is open the content is brought here
 *	record	is there something in the metadata store to be deleted later?
 *		--- from here on the ledger has an intent ---
 *	mark	the directory stays although this may be its last entry
 *	delete	the object
 *	forget	the record, the session, the name
 *
 * Sent again after a crash: with an intent all has been asked, so it goes on at "record";
 * what is gone already counts as deleted here.
 *
 * Where deletions are answered early there is no intent: after "mark" a row says that it
 * is to be deleted, the name goes and the reply leaves, all in one turn.
 *
 * A write session ends only when the object is gone: if that fails, nothing is lost.
 *
 * Of a file that is not persisted the record goes, by a transaction that outlives power
 * before the answer; its object only if there may be one (an upload was begun).  If the
 * storage is down then, that transaction notes that it is to be deleted (ops/unlinked.h).
 */
#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "ops/attr.h"
#include "ops/change.h"
#include "ops/ledger.h"
#include "ops/op.h"
#include "ops/persist.h"
#include "ops/requests.h"
#include "ops/session.h"
#include "ops/unlinked.h"

#define NOTE_LOCAL 1u /* in the ledger: the storage has nothing of it */

struct op_remove {
	struct op op;
	bool dir, again; /* again: the ledger had an intent */
	bool intent;
	bool early; /* answered before the storage has done it (ops/unlinked.h) */
	bool refused; /* no row for that */
	uint64_t doubt;	  /* intent: the object, if there is one, goes later */
	uint64_t content; /* the record accounts for this content: it is not persisted */
	uint64_t parent, node; /* node 0: none is bound to the name */
	bool local;
	struct pathlock lock;
	int result;
	struct name_look look;
	struct dir_empty empty;
	struct session_keep keep;
	struct unlinked_wait wait;
	struct record_look record;
	struct dir_mark mark;
	struct ufs_delete del;
	struct ufs_rmdir rmdir;
	const char *paths[1];
	int errs[1];
	struct meta_change change[2];
	struct meta_txn txn;
	char path[UFS_PATH_MAX + 1];
	char name[UFS_NAME_MAX + 1];
	unsigned char blob[UNLINKED_BLOB_MAX];
};

enum {
	RM_BEGIN,
	RM_LOCK,
	RM_LOCKED,
	RM_LOOKED,
	RM_READY,
	RM_BELOW,
	RM_RECORD,
	RM_RECORDED,
	RM_MARKED,
	RM_DELETED,
	RM_DOUBT,
	RM_FORGOTTEN,
	RM_END
};

static enum task_next rm_fail(struct op_remove *rm, int err)
{
	/* What is held comes again, and the row says how far it was. */
	if (rm->intent && !rm->op.hold) {
		ledger_drop(rm->op.fs, rm->op.unique);
		/* It may have been done all the same: the next look asks. */
		if (rm->node != 0)
			(void)node_expire(rm->op.fs, rm->node);
	}
	return op_fail(&rm->op, err);
}

static void rm_resume(struct op_remove *rm, int err)
{
	rm->result = err;
	task_resume(&rm->op.task);
}

/* What the step waited for ended with. */
static int rm_result(struct op_remove *rm)
{
	return task_fail(&rm->op.task, rm->result);
}

/* --- Lock */

static enum task_next rm_begin(struct task *t)
{
	struct op_remove *rm = OP_OF(t, op_remove);
	struct ledger_result note = {0};
	struct fs *fs = rm->op.fs;

	if (task_err(t) != 0)
		return rm_fail(rm, task_err(t));
	switch (ledger_seen(fs, rm->op.unique, &note)) {
	case LEDGER_DONE:
		ledger_drop(fs, rm->op.unique);
		fuse_reply_err(op_take(&rm->op), 0);
		return task_end(t);
	case LEDGER_INTENT:
		rm->again = rm->intent = true;
		rm->local = note.aux[0] == NOTE_LOCAL;
		break;
	case LEDGER_NEW:
		break;
	}
	return task_goto(t, RM_LOCK);
}

static void rm_locked_cb(struct pathlock *l)
{
	task_resume(&container_of(l, struct op_remove, lock)->op.task);
}

static void rm_leave_lock(struct task *t)
{
	pathlock_end(&OP_OF(t, op_remove)->lock);
}

/* An upload of what is going to be deleted need not end first, unless the object may
 * appear all the same. */
static void give_up_upload(struct op_remove *rm)
{
	struct session *s;
	struct node n;

	if (node_find(rm->op.fs, rm->parent, rm->name, &n) != 0)
		return;
	s = session_of(rm->op.fs, n.id);
	if (s != NULL)
		session_upload_recall(s);
}

static enum task_next rm_lock(struct task *t)
{
	struct op_remove *rm = OP_OF(t, op_remove);
	int err = task_err(t);

	if (err == 0)
		err = node_child_path(rm->op.fs, rm->parent, rm->name, rm->path);
	/* What is to be deleted already is not in the way. */
	rm->lock.passes = true;
	if (err == 0)
		err = pathlock_add(&rm->lock, rm->path, rm->dir);
	if (err != 0)
		return rm_fail(rm, err);
	if (pathlock_try(&rm->op.fs->locks, &rm->lock, rm_locked_cb))
		return task_goto(t, RM_LOCKED);
	give_up_upload(rm);
	return task_wait(t, RM_LOCKED, rm_leave_lock);
}

static void rm_leave_look(struct task *t)
{
	name_look_abort(&OP_OF(t, op_remove)->look);
}

static void rm_looked_cb(struct name_look *l, int err)
{
	rm_resume(l->user, err);
}

/* Not persisted, by what its node says. */
static uint64_t node_content(const struct op_remove *rm, const struct node *n)
{
	const struct session *s = session_of(rm->op.fs, n->id);

	if (s != NULL && s->policy != META_POLICY_NO_CACHE)
		return s->content.id;
	return session_version_content(n->version);
}

static enum task_next rm_locked(struct task *t)
{
	struct op_remove *rm = OP_OF(t, op_remove);
	struct fs *fs = rm->op.fs;
	char path[UFS_PATH_MAX + 1];
	struct node n;
	int err = task_err(t);

	if (err == 0)
		err = node_child_path(fs, rm->parent, rm->name, path);
	if (err != 0)
		return rm_fail(rm, err);
	if (strcmp(path, rm->path) != 0) { /* moved while this waited */
		pathlock_end(&rm->lock);
		return task_goto(t, RM_LOCK);
	}
	if (rm->again && !rm->dir && unlinked_hides(fs, rm->path)) {
		if (node_find(fs, rm->parent, rm->name, &n) == 0)
			rm->node = n.id;
		return task_goto(t, RM_END);
	}
	if (rm->again) {
		if (node_find(fs, rm->parent, rm->name, &n) == 0) {
			rm->node = n.id;
			rm->content = rm->dir ? 0 : node_content(rm, &n);
		}
		return task_goto(t, RM_RECORD);
	}
	if (path_is_mount(fs, rm->path))
		return rm_fail(rm, -EBUSY);
	rm->look.parent = rm->parent;
	rm->look.name = rm->name;
	rm->look.path = rm->path;
	rm->look.user = rm;
	name_look(fs, &rm->look, rm_looked_cb);
	return task_wait(t, RM_LOOKED, rm_leave_look);
}

/* --- Look, ready */

static void rm_leave_empty(struct task *t)
{
	dir_empty_abort(&OP_OF(t, op_remove)->empty);
}

static void rm_empty_cb(struct dir_empty *e, int err)
{
	rm_resume(e->user, err);
}

static void rm_leave_keep(struct task *t)
{
	session_keep_abort(&OP_OF(t, op_remove)->keep);
}

static void rm_kept_cb(struct session_keep *k, int err)
{
	rm_resume(k->user, err);
}

static enum task_next rm_looked(struct task *t)
{
	struct op_remove *rm = OP_OF(t, op_remove);
	int err = rm_result(rm);

	if (err == 0 && rm->dir != (rm->look.n.kind == UFS_DIR))
		err = rm->dir ? -ENOTDIR : -EISDIR;
	if (err != 0)
		return rm_fail(rm, err);
	rm->node = rm->look.n.id;
	rm->local = rm->look.local;
	if (rm->dir) {
		rm->empty.node = rm->node;
		rm->empty.path = rm->path;
		rm->empty.user = rm;
		dir_empty(rm->op.fs, &rm->empty, rm_empty_cb);
		return task_wait(t, RM_READY, rm_leave_empty);
	}
	if (rm->local)
		return task_goto(t, RM_RECORD);
	rm->keep.user = rm;
	session_keep(rm->op.fs, rm->node, &rm->keep, rm_kept_cb);
	return task_wait(t, RM_READY, rm_leave_keep);
}

static enum task_next rm_ready(struct task *t)
{
	struct op_remove *rm = OP_OF(t, op_remove);

	if (rm_result(rm) != 0)
		return rm_fail(rm, task_err(t));
	return task_goto(t, RM_RECORD);
}

/* --- Record, mark, delete */

/* Has the storage nothing of it, and never will? */
static bool content_local(const struct op_remove *rm)
{
	const struct session *s = rm->node != 0 ? session_of(rm->op.fs, rm->node) : NULL;
	const struct meta_record *rec = &rm->record.rec;

	return rec->version[0] == '\0' && !rec->content.doubt && (s == NULL || !s->doubt);
}

/* In the database before anybody else hears of it. */
static int rm_note(struct op_remove *rm)
{
	struct ledger_result note = {.aux = {rm->local ? NOTE_LOCAL : 0}};
	int err = ledger_intent(rm->op.fs, rm->op.unique, &note);

	if (err == 0)
		err = statedb_commit(rm->op.fs->db);
	if (err == 0)
		err = FAULT("remove.begun");
	rm->intent = rm->intent || err == 0;
	return err;
}

static void rm_leave_record(struct task *t)
{
	record_look_abort(&OP_OF(t, op_remove)->record);
}

static void rm_record_cb(struct record_look *l, int err)
{
	rm_resume(l->user, err);
}

static void rm_leave_below(struct task *t)
{
	unlinked_wait_abort(&OP_OF(t, op_remove)->wait);
}

static void rm_below_cb(struct unlinked_wait *w, int err)
{
	rm_resume(w->user, err);
}

static enum task_next rm_below(struct task *t)
{
	struct op_remove *rm = OP_OF(t, op_remove);

	if (rm_result(rm) != 0)
		return rm_fail(rm, task_err(t));
	return task_goto(t, RM_RECORD);
}

static enum task_next rm_record(struct task *t)
{
	struct op_remove *rm = OP_OF(t, op_remove);

	if (task_err(t) != 0)
		return rm_fail(rm, task_err(t));
	if (!rm->again && !rm->dir)
		rm->content = node_content(rm, &rm->look.n);
	rm->early = !rm->again && !rm->intent && !rm->local && !rm->refused &&
		    rm->content == 0 && unlinked_may(rm->op.fs, rm->path, rm->dir);
	if (rm->early) {
		rm->result = 0;
		return task_goto(t, RM_RECORDED);
	}
	/* The directory would be there again by what is below it. */
	if (rm->dir && unlinked_below(rm->op.fs, rm->path)) {
		rm->wait.user = rm;
		unlinked_wait(rm->op.fs, &rm->wait, rm->path, rm_below_cb);
		return task_wait(t, RM_BELOW, rm_leave_below);
	}
	rm->record.path = rm->path;
	rm->record.dir = rm->dir;
	rm->record.user = rm;
	record_look(rm->op.fs, &rm->record, rm_record_cb);
	return task_wait(t, RM_RECORDED, rm_leave_record);
}

static void rm_leave_mark(struct task *t)
{
	dir_mark_abort(&OP_OF(t, op_remove)->mark);
}

static void rm_mark_cb(struct dir_mark *m, int err)
{
	rm_resume(m->user, err);
}

static bool unpersisted(const struct op_remove *rm)
{
	return rm->record.found && attr_unpersisted(&rm->record.rec);
}

/* Can the deletion of its object wait, if there is one? */
static bool may_doubt(const struct op_remove *rm)
{
	return !rm->dir && unpersisted(rm) && unlinked_room(rm->op.fs);
}

static bool storage_well(const struct op_remove *rm)
{
	struct ufs_health h;
	const char *sub;
	struct ufs *ufs;

	fs_place(rm->op.fs, rm->path, &ufs, &sub);
	ufs_health(ufs, &h);
	return h.ok || h.since_ns == 0;
}

static bool storage_down(int err)
{
	return err == -EIO || err == -ETIMEDOUT || err == -ENOTCONN;
}

static enum task_next rm_recorded(struct task *t)
{
	struct op_remove *rm = OP_OF(t, op_remove);
	int err = rm_result(rm);

	/* Its node may be storing it just now. */
	if (err == 0 && unpersisted(rm) && !rm->dir &&
	    !meta_is_here(rm->op.fs->meta, &rm->record.rec.content))
		err = attr_elsewhere(rm->op.fs, rm->path, &rm->record.rec.content,
		    "cannot be removed here", -EBUSY);
	if (err != 0)
		return rm_fail(rm, err);
	if (rm->record.found && !rm->dir && attr_unpersisted(&rm->record.rec)) {
		rm->content = rm->record.rec.content.id;
		rm->local = content_local(rm);
	}
	if (!rm->intent && !rm->early && (!rm->local || rm->record.found))
		err = rm_note(rm);
	if (err != 0)
		return rm_fail(rm, err);
	if (rm->local) {
		rm->result = 0;
		return task_goto(t, RM_DELETED);
	}
	if (may_doubt(rm) && !storage_well(rm))
		return task_goto(t, RM_DOUBT);
	rm->op.on_wire = true;
	rm->mark.child = rm->path;
	rm->mark.node = rm->parent;
	rm->mark.user = rm;
	dir_mark(rm->op.fs, &rm->mark, rm_mark_cb);
	return task_wait(t, RM_MARKED, rm_leave_mark);
}

static void rm_leave_delete(struct task *t)
{
	struct op_remove *rm = OP_OF(t, op_remove);

	ufs_abort(rm->dir ? &rm->rmdir.req : &rm->del.req);
}

static void rm_deleted_cb(struct ufs_req *r, int err)
{
	struct op_remove *rm = r->user;

	rm_resume(rm, err == 0 && !rm->dir ? rm->errs[0] : err);
}

/* All in this turn; without room for the rows it is done at once. */
static enum task_next rm_later(struct op_remove *rm)
{
	const char *version = rm->dir ? "" : rm->look.n.version;
	/* Says enough if there is no room for what comes in its place. */
	int err = ledger_intent(rm->op.fs, rm->op.unique, NULL);

	if (err == 0)
		err = unlinked_add(rm->op.fs, rm->path, rm->dir, version);
	if (err == 0) {
		rm->intent = true;
		return task_goto(&rm->op.task, RM_END);
	}
	rm->refused = true;
	return task_goto(&rm->op.task, RM_RECORD);
}

static enum task_next rm_marked(struct task *t)
{
	struct op_remove *rm = OP_OF(t, op_remove);
	const char *sub;
	struct ufs *ufs;

	if (task_err(t) == 0 && storage_down(rm->result) && may_doubt(rm))
		return task_goto(t, RM_DOUBT);
	if (rm_result(rm) != 0)
		return rm_fail(rm, task_err(t));
	if (rm->early)
		return rm_later(rm);
	fs_place(rm->op.fs, rm->path, &ufs, &sub);
	if (rm->dir) {
		rm->rmdir.path = sub;
		rm->rmdir.req.user = rm;
		ufs_rmdir(ufs, &rm->rmdir, rm_deleted_cb);
	} else {
		rm->paths[0] = sub;
		rm->del.paths = rm->paths;
		rm->del.n = 1;
		rm->del.errs = rm->errs;
		rm->del.req.user = rm;
		ufs_delete(ufs, &rm->del, rm_deleted_cb);
	}
	return task_wait(t, RM_DELETED, rm_leave_delete);
}

static void rm_leave_txn(struct task *t)
{
	meta_abort(&OP_OF(t, op_remove)->txn.req);
}

static void rm_txn_cb(struct meta_req *r, int err)
{
	rm_resume(r->user, err);
}

/* The record goes, and the object later: in one transaction. */
static enum task_next rm_doubt(struct task *t)
{
	struct op_remove *rm = OP_OF(t, op_remove);
	uint64_t size = rm->record.rec.content.size;

	if (task_err(t) != 0)
		return rm_fail(rm, task_err(t));
	rm->doubt = meta_intent_id();
	rm->change[0] = (struct meta_change){
	    .verb = META_DEL, .path = rm->path, .if_content = rm->content};
	rm->change[1] = (struct meta_change){.verb = META_INTENT_PUT,
	    .id = rm->doubt,
	    .blob = rm->blob,
	    .blob_len = unlinked_doubt_encode(rm->path, size, rm->blob)};
	rm->txn.changes = rm->change;
	rm->txn.n = 2;
	rm->txn.req.user = rm;
	meta_txn(rm->op.fs->meta, &rm->txn, rm_txn_cb);
	/* Whether the intent is there must be known. */
	return task_wait(t, RM_FORGOTTEN, NULL);
}

/* Without room for the row the intent stays for the next daemon. */
static void note_doubt(struct op_remove *rm)
{
	int err = unlinked_add_doubt(
	    rm->op.fs, rm->path, rm->record.rec.content.size, rm->doubt);

	if (err != 0)
		log_warn("/%s: was deleted; what the storage may have of it is deleted by the next "
			 "daemon: %s",
		    rm->path, strerror(-err));
}

/* Another node may have made a file of the name since the object went. */
static bool guarded(const struct op_remove *rm)
{
	return unpersisted(rm) || ((rm->record.rec.has & META_HAS_CONTENT) != 0 &&
				      meta_self(rm->op.fs->meta) != 0);
}

static enum task_next rm_deleted(struct task *t)
{
	struct op_remove *rm = OP_OF(t, op_remove);
	bool gone = rm->result == -ENOENT && rm->again;

	(void)FAULT("remove.deleted");
	if (!rm->local && rm->result != -ENOMEM)
		unlinked_proved(rm->op.fs, rm->path, gone || rm->result == 0);
	if (!gone && task_err(t) == 0 && storage_down(rm->result) && may_doubt(rm))
		return task_goto(t, RM_DOUBT);
	if (task_fail(t, gone ? 0 : rm->result) != 0)
		return rm_fail(rm, task_err(t));
	if (!rm->record.found)
		return task_goto(t, RM_END);
	rm->change[0].verb = META_DEL;
	rm->change[0].path = rm->path;
	rm->txn.changes = rm->change;
	rm->txn.n = 1;
	rm->txn.req.user = rm;
	rm->txn.later = !unpersisted(rm);
	if (guarded(rm))
		rm->change[0].if_content = rm->record.rec.content.id;
	meta_txn(rm->op.fs->meta, &rm->txn, rm_txn_cb);
	return task_wait(t, RM_FORGOTTEN, rm_leave_txn);
}

/* --- The end */

static enum task_next rm_forgotten(struct task *t)
{
	struct op_remove *rm = OP_OF(t, op_remove);

	if (rm->doubt != 0 && rm->result == 0) {
		(void)FAULT("remove.doubt");
		note_doubt(rm);
		return rm->op.hold ? rm_fail(rm, -ECANCELED) : task_goto(t, RM_END);
	}
	/* What is there is another file, which another node has made since. */
	if (rm->result == -EEXIST && rm->change[0].if_content != 0)
		rm->result = 0;
	/* Held: it comes again and does this again.  Else the thing is gone, whatever is
	 * left of it in the store. */
	if (task_err(t) != 0 && rm->op.hold)
		return rm_fail(rm, task_err(t));
	/* But for content: while there is a record of it the file is there. */
	if (unpersisted(rm) && rm_result(rm) != 0) {
		int err = task_err(t);

		return rm_fail(rm, err == -ENOMEM || err == -EINTR ? err : -EIO);
	}
	if (task_err(t) != 0 || rm->result != 0)
		log_warn("/%s: deleted, but its attributes stay in the metadata store: %s",
		    rm->path, strerror(task_err(t) != 0 ? -task_err(t) : -rm->result));
	return task_goto(t, RM_END);
}

static enum task_next rm_end(struct task *t)
{
	struct op_remove *rm = OP_OF(t, op_remove);
	struct fs *fs = rm->op.fs;
	struct session *s = rm->node != 0 ? session_of(fs, rm->node) : NULL;
	int err = 0;

	if (rm->node != 0)
		err = node_drop_name(fs, rm->node);
	else
		fs_touch(fs, rm->parent, rm->name);
	if (err == 0 && s != NULL)
		(void)session_orphan(s);
	else if (err == 0 && rm->content != 0)
		staging_discard(fs->staging, rm->content);
	if (rm->content != 0)
		persist_recount(fs);
	if (err != 0 && err != -ENOENT) {
		if (rm->early)
			unlinked_undo(fs, rm->path);
		return rm_fail(rm, err);
	}
	/* Without room for the row the intent stays, and says enough. */
	(void)ledger_done(fs, rm->op.unique, NULL);
	(void)FAULT("remove.done");
	fuse_reply_err(op_take(&rm->op), 0);
	return task_end(t);
}

static void rm_fini(struct task *t)
{
	struct op_remove *rm = OP_OF(t, op_remove);

	pathlock_end(&rm->lock);
	op_free(&rm->op);
}

static const struct task_step rm_steps[] = {
    [RM_BEGIN] = {"begin", rm_begin, TO(RM_LOCK)},
    [RM_LOCK] = {"lock", rm_lock, TO(RM_LOCKED)},
    [RM_LOCKED] = {"locked", rm_locked,
	TO(RM_LOCK) | TO(RM_LOOKED) | TO(RM_RECORD) | TO(RM_END)},
    [RM_LOOKED] = {"looked", rm_looked, TO(RM_READY) | TO(RM_RECORD)},
    [RM_READY] = {"ready", rm_ready, TO(RM_RECORD)},
    [RM_BELOW] = {"below", rm_below, TO(RM_RECORD)},
    [RM_RECORD] = {"record", rm_record, TO(RM_BELOW) | TO(RM_RECORDED)},
    [RM_RECORDED] = {"recorded", rm_recorded, TO(RM_MARKED) | TO(RM_DOUBT) | TO(RM_DELETED)},
    [RM_MARKED] = {"marked", rm_marked,
	TO(RM_DOUBT) | TO(RM_DELETED) | TO(RM_RECORD) | TO(RM_END)},
    [RM_DOUBT] = {"doubt", rm_doubt, TO(RM_FORGOTTEN)},
    [RM_DELETED] = {"deleted", rm_deleted, TO(RM_DOUBT) | TO(RM_FORGOTTEN) | TO(RM_END)},
    [RM_FORGOTTEN] = {"forgotten", rm_forgotten, TO(RM_END)},
    [RM_END] = {"end", rm_end, 0},
};
static const struct task_kind rm_kind = {"remove", rm_steps, ARRAY_LEN(rm_steps), rm_fini};

static void remove_common(fuse_req_t req, fuse_ino_t parent, const char *name, bool dir)
{
	struct fs *fs = fs_of(req);
	struct op_remove *rm;

	if (fs->staging == NULL || strlen(name) > UFS_NAME_MAX) {
		fuse_reply_err(req, fs->staging == NULL ? EROFS : ENAMETOOLONG);
		return;
	}
	rm = op_new(fs, req, sizeof(*rm));
	if (rm == NULL)
		return;
	rm->dir = dir;
	rm->parent = parent;
	memcpy(rm->name, name, strlen(name) + 1);
	op_run(&rm->op, &rm_kind);
}

void remove_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_common(req, parent, name, false);
}

void remove_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_common(req, parent, name, true);
}
