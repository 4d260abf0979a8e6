/* SPDX-License-Identifier: BSD-2-Clause */
/* RENAME, once it may begin: the storage renames, or a file is copied and the old one
 * deleted. */
#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "ops/rename_op.h"

/* --- Go: which way? */

static void rn_leave_native(struct task *t)
{
	ufs_abort(&OP_OF(t, op_rename)->native.req);
}

static void rn_ufs_cb(struct ufs_req *r, int err)
{
	rn_resume(r->user, err);
}

enum task_next rn_go(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);
	bool native = (ufs_can(rn->ufs) & UFS_CAN_RENAME) != 0;
	int err = task_err(t);

	if (err == 0 && !native && rn->n.kind == UFS_DIR)
		return task_goto(t, RN_JOB);
	if (err == 0)
		err = rn_note(rn, STAGE_BEGUN, 0);
	if (err != 0)
		return rn_fail(rn, err);
	if (!native)
		return task_goto(t, RN_COPY);
	rn->op.on_wire = true;
	rn->native.src = rn->ssub;
	rn->native.dst = rn->dsub;
	rn->native.noreplace = rn->noreplace;
	rn->native.req.user = rn;
	ufs_rename(rn->ufs, &rn->native, rn_ufs_cb);
	return task_wait(t, RN_NATIVE, rn_leave_native);
}

/* The nodes, once the storage has it under the new name. */
static int rn_move_node(struct op_rename *rn)
{
	struct fs *fs = rn->op.fs;
	struct session *s = rn->replaces ? session_of(fs, rn->target.id) : NULL;
	int err = 0;

	if (rn->n.id == 0) {
		fs_touch(fs, rn->parent, rn->name);
		fs_touch(fs, rn->newparent, rn->newname);
		return 0;
	}
	err = node_move(fs, rn->n.id, rn->newparent, rn->newname);
	if (err == 0)
		err = node_set_version(fs, rn->n.id, &rn->attr);
	if (err == 0 && s != NULL)
		(void)session_orphan(s);
	return err == -ENOENT || err == -ESTALE ? 0 : err;
}

/* --- The storage renames */

enum task_next rn_native(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);

	/* Done before the crash?  Then the new name is there. */
	if (task_err(t) == 0 && rn->again && rn->result == -ENOENT)
		return rn_look(rn, true, true, RN_NATIVE_LOOKED);
	if (rn_result(rn) != 0)
		return rn_fail(rn, task_err(t));
	(void)FAULT("rename.native");
	rn->attr = rn->native.attr;
	return task_goto(t, RN_END);
}

enum task_next rn_native_looked(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);

	if (rn_result(rn) != 0)
		return rn_fail(rn, task_err(t));
	rn->attr = rn->look.get.attr;
	return task_goto(t, RN_END);
}

/* A native rename ends here. */
enum task_next rn_end(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);
	int err = rn_move_node(rn);

	return err != 0 ? rn_fail(rn, err) : rn_done(rn);
}

/* --- A file is copied */

static void rn_leave_copy(struct task *t)
{
	upload_copy_abort(&OP_OF(t, op_rename)->copy);
}

static void rn_copy_cb(struct upload_copy *c, int err)
{
	rn_resume(c->user, err);
}

enum task_next rn_copy(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);

	if (task_err(t) != 0)
		return rn_fail(rn, task_err(t));
	/* Sent again, and the kernel has forgotten it since. */
	if (rn->n.version[0] == '\0')
		return rn_look(rn, false, true, RN_SRC_AGAIN);
	rn->op.on_wire = true;
	rn->copy.src = rn->ssub;
	rn->copy.src_version = rn->n.version;
	rn->copy.size = rn->n.size;
	rn->copy.dst = rn->dsub;
	rn->copy.done = rn_copy_cb;
	rn->copy.user = rn;
	upload_copy(rn->op.fs->uploads, rn->ufs, &rn->copy);
	return task_wait(t, RN_COPIED, rn_leave_copy);
}

enum task_next rn_copied(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);

	if (task_err(t) == 0 && (rn->result == -ESTALE || rn->result == -ENOENT) &&
	    !rn->looked_again)
		return rn_look(rn, false, true, RN_SRC_AGAIN);
	if (rn_result(rn) != 0)
		return rn_fail(rn, task_err(t));
	(void)FAULT("rename.copied");
	rn->attr = rn->copy.attr;
	rn->attr.kind = UFS_FILE;
	rn->attr.mtime = rn->n.mtime;
	return task_goto(t, RN_RECORD);
}

/* Somebody else has changed the source: once more, with what is there now. */
enum task_next rn_src_again(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);
	int err = rn_result(rn);

	if (err == 0 && rn->look.n.kind != UFS_FILE)
		err = -EIO;
	if (err != 0)
		return rn_fail(rn, err);
	rn->looked_again = true;
	rn->n = rn->look.n;
	rn->note.node = rn->n.id;
	return task_goto(t, RN_COPY);
}

static void rn_leave_record(struct task *t)
{
	record_look_abort(&OP_OF(t, op_rename)->record);
}

static void rn_record_cb(struct record_look *l, int err)
{
	rn_resume(l->user, err);
}

static enum task_next rn_look_record(struct op_rename *rn, unsigned step)
{
	rn->record.path = rn->src;
	rn->record.dir = false;
	rn->record.user = rn;
	record_look(rn->op.fs, &rn->record, rn_record_cb);
	return task_wait(&rn->op.task, step, rn_leave_record);
}

enum task_next rn_record(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);

	if (task_err(t) != 0)
		return rn_fail(rn, task_err(t));
	return rn_look_record(rn, RN_RECORDED);
}

static void rn_leave_txn(struct task *t)
{
	meta_abort(&OP_OF(t, op_rename)->txn.req);
}

static void rn_txn_cb(struct meta_req *r, int err)
{
	rn_resume(r->user, err);
}

static enum task_next rn_txn(struct op_rename *rn, unsigned step)
{
	rn->txn.changes = &rn->change;
	rn->txn.n = 1;
	rn->txn.later = true;
	rn->txn.req.user = rn;
	meta_txn(rn->op.fs->meta, &rn->txn, rn_txn_cb);
	return task_wait(&rn->op.task, step, rn_leave_txn);
}

/* The new name's record; the old one's stays until the old name is gone. */
enum task_next rn_recorded(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);
	struct fs *fs = rn->op.fs;
	struct ufs_attr was = {.kind = UFS_FILE, .mtime = rn->n.mtime};

	if (rn_result(rn) != 0)
		return rn_fail(rn, task_err(t));
	if (fs->meta == NULL || attr_native(fs, rn->dst))
		return task_goto(t, RN_MOVE);
	memcpy(was.version, rn->n.version, sizeof(was.version));
	rn->change.verb = META_PUT;
	rn->change.path = rn->dst;
	moved_record(&rn->change.rec, rn->record.found ? &rn->record.rec : NULL, &was,
	    rn->attr.version);
	return rn_txn(rn, RN_MOVE);
}

static void rn_leave_mark(struct task *t)
{
	dir_mark_abort(&OP_OF(t, op_rename)->mark);
}

static void rn_mark_cb(struct dir_mark *m, int err)
{
	rn_resume(m->user, err);
}

/* The old name could not be deleted: both are there now, which is how the storage has
 * it and what the caller is told. */
static enum task_next rn_unmove(struct op_rename *rn, int err)
{
	struct fs *fs = rn->op.fs;
	struct ufs_attr a = {.kind = UFS_FILE, .size = rn->n.size, .mtime = rn->n.mtime};

	if (rn->op.hold || rn->again || rn->n.id == 0)
		return rn_fail(rn, err);
	memcpy(a.version, rn->n.version, sizeof(a.version));
	if (node_move(fs, rn->n.id, rn->parent, rn->name) == 0)
		(void)node_set_version(fs, rn->n.id, &a);
	return rn_fail(rn, err);
}

/* The node moves; with this the rename has happened for whoever asks this mount, and the
 * old object may go once the database says so. */
enum task_next rn_move(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);
	int err;

	if (rn_result(rn) != 0)
		return rn_fail(rn, task_err(t));
	if (rn->note.aux[0] != STAGE_MOVED) {
		err = rn_move_node(rn);
		if (err == 0)
			err = rn_note(rn, STAGE_MOVED, 0);
		if (err != 0)
			return rn_unmove(rn, err);
	}
	rn->op.on_wire = true;
	rn->mark.child = rn->src;
	rn->mark.node = rn->parent;
	rn->mark.user = rn;
	dir_mark(rn->op.fs, &rn->mark, rn_mark_cb);
	return task_wait(t, RN_MARKED, rn_leave_mark);
}

static void rn_leave_delete(struct task *t)
{
	ufs_abort(&OP_OF(t, op_rename)->del.req);
}

static void rn_delete_cb(struct ufs_req *r, int err)
{
	struct op_rename *rn = r->user;

	rn_resume(rn, err == 0 ? rn->errs[0] : err);
}

enum task_next rn_marked(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);

	if (rn_result(rn) != 0)
		return rn_unmove(rn, task_err(t));
	rn->paths[0] = rn->ssub;
	rn->del.paths = rn->paths;
	rn->del.n = 1;
	rn->del.errs = rn->errs;
	rn->del.req.user = rn;
	ufs_delete(rn->ufs, &rn->del, rn_delete_cb);
	return task_wait(t, RN_DELETED, rn_leave_delete);
}

enum task_next rn_deleted(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);

	if (rn_result(rn) != 0)
		return rn_unmove(rn, task_err(t));
	(void)FAULT("rename.deleted");
	if (rn->again)
		return rn_look_record(rn, RN_FORGET);
	rn->result = 0;
	return task_goto(t, RN_FORGET);
}

enum task_next rn_forget(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);

	if (task_err(t) != 0 && rn->op.hold)
		return rn_fail(rn, task_err(t));
	if (!rn->record.found)
		return rn_done(rn);
	rn->change.verb = META_DEL;
	rn->change.path = rn->src;
	return rn_txn(rn, RN_FORGOTTEN);
}

enum task_next rn_forgotten(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);
	int err = task_err(t) != 0 ? task_err(t) : rn->result;

	if (task_err(t) != 0 && rn->op.hold)
		return rn_fail(rn, task_err(t));
	if (err != 0)
		log_warn("/%s: renamed, but the attributes of its old name stay in the metadata "
			 "store: %s",
		    rn->src, strerror(-err));
	return rn_done(rn);
}
