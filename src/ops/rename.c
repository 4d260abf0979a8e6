/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * RENAME.
 *
 *	settle	a file that the storage has never had is uploaded first
 *	lock	both paths with all below
 *	look	at both names; what the call cannot do is refused, and so is what a policy
 *		of the write cache governs, or may govern below a directory
 *	ready	an existing target: a directory is empty; of a file that is open the
 *		content is brought here
 *		--- from here on the ledger has an intent ---
 *	then one of
 *	native	the storage renames
 *	file	copy; record; the node moves (committed: MOVED in the ledger); the directory
 *		is marked; the old one is deleted
 *	job	a directory, by rename_dir.c
 *
 * Sent again after a crash: before MOVED the copy is made again, which does no harm; from
 * there on only the rest is done.  A job is found by the id that the ledger has.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "ops/policy.h"
#include "ops/rename_op.h"
#include "ops/requests.h"

void rn_unlock(struct op_rename *rn)
{
	if (rn->lock == NULL)
		return;
	pathlock_end(&rn->lock->lock);
	free(rn->lock);
	rn->lock = NULL;
}

enum task_next rn_fail(struct op_rename *rn, int err)
{
	struct fs *fs = rn->op.fs;

	/* What is held comes again, and the row says how far it was. */
	if (rn->intent && !rn->op.hold) {
		ledger_drop(fs, rn->op.unique);
		/* It may have been done all the same: the next look asks. */
		if (rn->n.id != 0)
			(void)node_expire(fs, rn->n.id);
		if (rn->replaces)
			(void)node_expire(fs, rn->target.id);
	}
	return op_fail(&rn->op, err);
}

enum task_next rn_done(struct op_rename *rn)
{
	/* Without room for the row the intent stays, and says enough. */
	(void)ledger_done(rn->op.fs, rn->op.unique, NULL);
	(void)FAULT("rename.done");
	fuse_reply_err(op_take(&rn->op), 0);
	return task_end(&rn->op.task);
}

/* --- Settle */

static void rn_leave_wait(struct task *t)
{
	session_wait_abort(&OP_OF(t, op_rename)->wait);
}

static void rn_wait_cb(struct session_wait *w, int err)
{
	rn_resume(w->user, err);
}

/* The source's session, if it has something that the storage should have. */
static struct session *unsent(struct op_rename *rn)
{
	struct session *s;
	struct node n;

	if (node_find(rn->op.fs, rn->parent, rn->name, &n) != 0)
		return NULL;
	s = session_of(rn->op.fs, n.id);
	return s != NULL && s->state != SESSION_ORPHAN && s->policy == META_POLICY_NO_CACHE &&
		       (s->fresh || s->created)
		   ? s
		   : NULL;
}

static enum task_next rn_settle(struct op_rename *rn, struct session *s)
{
	rn->settled = true;
	rn->wait.user = rn;
	session_upload(s, &rn->wait, true, rn_wait_cb);
	return task_wait(&rn->op.task, RN_SETTLED, rn_leave_wait);
}

static enum task_next rn_begin(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);
	struct fs *fs = rn->op.fs;
	struct session *s;

	if (task_err(t) != 0)
		return rn_fail(rn, task_err(t));
	switch (ledger_seen(fs, rn->op.unique, &rn->note)) {
	case LEDGER_DONE:
		return rn_done(rn);
	case LEDGER_INTENT:
		rn->again = rn->intent = true;
		return task_goto(t, rn->note.aux[0] == STAGE_JOB ? RN_JOB : RN_LOCK);
	case LEDGER_NEW:
		break;
	}
	s = unsent(rn);
	return s != NULL ? rn_settle(rn, s) : task_goto(t, RN_LOCK);
}

static enum task_next rn_settled(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);

	if (rn_result(rn) != 0)
		return rn_fail(rn, task_err(t));
	return task_goto(t, RN_LOCK);
}

/* --- Lock */

static void rn_locked_cb(struct pathlock *l)
{
	struct op_rename *rn = container_of(l, struct rename_lock, lock)->rn;

	task_fail(&rn->op.task, l->err);
	task_resume(&rn->op.task);
}

static void rn_leave_lock(struct task *t)
{
	rn_unlock(OP_OF(t, op_rename));
}

static int rn_paths(struct op_rename *rn, char *src, char *dst)
{
	int err = node_child_path(rn->op.fs, rn->parent, rn->name, src);

	return err == 0 ? node_child_path(rn->op.fs, rn->newparent, rn->newname, dst) : err;
}

static int rn_ask_lock(struct op_rename *rn)
{
	int err;

	rn->lock = calloc(1, sizeof(*rn->lock));
	if (rn->lock == NULL)
		return -ENOMEM;
	rn->lock->rn = rn;
	err = pathlock_add(&rn->lock->lock, rn->src, true);
	return err == 0 ? pathlock_add(&rn->lock->lock, rn->dst, true) : err;
}

/* An upload of what is going to be replaced need not end first, unless the object may
 * appear all the same. */
static void rn_give_up_upload(struct op_rename *rn)
{
	struct session *s;
	struct node n;

	if (node_find(rn->op.fs, rn->newparent, rn->newname, &n) != 0)
		return;
	s = session_of(rn->op.fs, n.id);
	if (s != NULL)
		session_upload_recall(s);
}

static enum task_next rn_lock(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);
	int err = task_err(t);

	if (err == 0)
		err = rn_paths(rn, rn->src, rn->dst);
	if (err == 0)
		err = rn_ask_lock(rn);
	if (err != 0)
		return rn_fail(rn, err);
	if (pathlock_try(&rn->op.fs->locks, &rn->lock->lock, rn_locked_cb))
		return task_goto(t, RN_LOCKED);
	rn_give_up_upload(rn);
	return task_wait(t, RN_LOCKED, rn_leave_lock);
}

/* --- Look */

static void rn_leave_look(struct task *t)
{
	name_look_abort(&OP_OF(t, op_rename)->look);
}

static void rn_look_cb(struct name_look *l, int err)
{
	rn_resume(l->user, err);
}

enum task_next rn_look(struct op_rename *rn, bool dst, bool ask, unsigned step)
{
	struct name_look *l = &rn->look;

	memset(l, 0, sizeof(*l));
	l->parent = dst ? rn->newparent : rn->parent;
	l->name = dst ? rn->newname : rn->name;
	l->path = dst ? rn->dst : rn->src;
	l->user = rn;
	if (ask)
		name_look_again(rn->op.fs, l, rn_look_cb);
	else
		name_look(rn->op.fs, l, rn_look_cb);
	return task_wait(&rn->op.task, step, rn_leave_look);
}

/* What no storage can do. */
static int rn_places(struct op_rename *rn)
{
	struct fs *fs = rn->op.fs;
	struct ufs *other;

	fs_place(fs, rn->src, &rn->ufs, &rn->ssub);
	fs_place(fs, rn->dst, &other, &rn->dsub);
	if (path_is_mount(fs, rn->src))
		return -EBUSY;
	if (rn->ufs != other)
		return -EXDEV;
	if (path_is_mount(fs, rn->dst))
		return -EBUSY;
	if (strcmp(rn->src, rn->dst) == 0)
		return 0;
	if (path_within(rn->dst, rn->src))
		return -EINVAL;
	return path_within(rn->src, rn->dst) ? -ENOTEMPTY : 0;
}

/* How far it was: the ledger has been asked before. */
static enum task_next rn_go_on(struct op_rename *rn)
{
	struct fs *fs = rn->op.fs;
	struct node n;

	if (rn->note.node != 0 && node_load(fs, rn->note.node, &n) == 0)
		rn->n = n;
	if (rn->note.aux[0] == STAGE_MOVED) {
		rn->result = 0;
		return task_goto(&rn->op.task, RN_MOVE);
	}
	if (node_find(fs, rn->newparent, rn->newname, &n) == 0 && n.id != rn->n.id) {
		rn->target = n;
		rn->replaces = true;
	}
	return task_goto(&rn->op.task, RN_GO);
}

static enum task_next rn_locked(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);
	char src[UFS_PATH_MAX + 1], dst[UFS_PATH_MAX + 1];
	int err = task_err(t);

	if (err == 0)
		err = rn_paths(rn, src, dst);
	if (err != 0)
		return rn_fail(rn, err);
	if (strcmp(src, rn->src) != 0 || strcmp(dst, rn->dst) != 0) {
		rn_unlock(rn); /* moved while this waited */
		return task_goto(t, RN_LOCK);
	}
	err = rn_places(rn);
	if (err != 0)
		return rn_fail(rn, err);
	if (rn->again)
		return rn_go_on(rn);
	return rn_look(rn, false, false, RN_SRC);
}

/* Is it a file of the write cache, or one that only that has? */
static bool rn_cached(const struct op_rename *rn, const struct node *n)
{
	const struct session *s = n->kind == UFS_FILE ? session_of(rn->op.fs, n->id) : NULL;

	return session_version_content(n->version) != 0 ||
	       (s != NULL && s->policy != META_POLICY_NO_CACHE && s->state != SESSION_ORPHAN);
}

struct rn_tree {
	const char *dir;
	bool found;
};

static void see_cached(struct session *s, void *arg)
{
	char path[UFS_PATH_MAX + 1];
	struct rn_tree *tree = arg;

	if (s->policy != META_POLICY_NO_CACHE && s->state != SESSION_ORPHAN &&
	    node_path(s->fs, s->node, path) == 0 && path_within(path, tree->dir))
		tree->found = true;
}

/* Nothing that a policy governs can be renamed. */
static int rn_policy(const struct op_rename *rn)
{
	struct rn_tree tree = {.dir = rn->src};
	struct fs *fs = rn->op.fs;

	if (policy_of(fs, rn->src) != META_POLICY_NO_CACHE ||
	    policy_of(fs, rn->dst) != META_POLICY_NO_CACHE || rn_cached(rn, &rn->n))
		return -EIO;
	if (rn->n.kind != UFS_DIR)
		return 0;
	session_foreach(fs, see_cached, &tree);
	return tree.found || policy_split(fs, rn->src) || policy_split(fs, rn->dst) ? -EIO : 0;
}

static void rn_leave_below(struct task *t)
{
	below_abort(&OP_OF(t, op_rename)->below);
}

static void rn_below_cb(struct below *b, int err)
{
	rn_resume(b->user, err);
}

static enum task_next rn_look_below(struct op_rename *rn)
{
	rn->below.path = rn->src;
	rn->below.user = rn;
	below_start(rn->op.fs, &rn->below, rn_below_cb);
	return task_wait(&rn->op.task, RN_BELOW, rn_leave_below);
}

static enum task_next rn_below(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);

	if (task_fail(t, rn->result != 0 ? rn->result : rn->below.found ? -EIO : 0) != 0)
		return rn_fail(rn, task_err(t));
	return rn_look(rn, true, false, RN_DST);
}

static enum task_next rn_src(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);
	struct session *s;
	int err;

	if (rn_result(rn) != 0)
		return rn_fail(rn, task_err(t));
	rn->n = rn->look.n;
	if (strcmp(rn->src, rn->dst) == 0) {
		if (rn->noreplace)
			return rn_fail(rn, -EEXIST);
		return rn_done(rn);
	}
	err = rn_policy(rn);
	if (err != 0)
		return rn_fail(rn, err);
	s = rn->n.kind == UFS_FILE ? session_of(rn->op.fs, rn->n.id) : NULL;
	if (s != NULL && s->created) { /* made while this waited for its lock */
		rn_unlock(rn);
		return rn_settle(rn, s);
	}
	if (rn->n.kind == UFS_DIR && attr_any_unpersisted(rn->op.fs))
		return rn_look_below(rn);
	return rn_look(rn, true, false, RN_DST);
}

static int rn_kinds(const struct op_rename *rn)
{
	bool dir = rn->n.kind == UFS_DIR;

	if (rn->noreplace)
		return -EEXIST;
	if (dir != rn->dst_dir)
		return dir ? -ENOTDIR : -EISDIR;
	return 0;
}

static void rn_leave_empty(struct task *t)
{
	dir_empty_abort(&OP_OF(t, op_rename)->empty);
}

static void rn_empty_cb(struct dir_empty *e, int err)
{
	rn_resume(e->user, err);
}

static void rn_leave_keep(struct task *t)
{
	session_keep_abort(&OP_OF(t, op_rename)->keep);
}

static void rn_keep_cb(struct session_keep *k, int err)
{
	rn_resume(k->user, err);
}

static enum task_next rn_dst(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);
	int err;

	if (task_fail(t, rn->result == -ENOENT ? 0 : rn->result) != 0)
		return rn_fail(rn, task_err(t));
	if (rn->result == -ENOENT)
		return task_goto(t, RN_GO);
	rn->target = rn->look.n;
	rn->dst_dir = rn->target.kind == UFS_DIR;
	err = rn_kinds(rn);
	if (err == 0 && rn_cached(rn, &rn->target))
		err = -EIO;
	if (err != 0)
		return rn_fail(rn, err);
	rn->replaces = true;
	if (rn->dst_dir) {
		rn->empty.node = rn->target.id;
		rn->empty.path = rn->dst;
		rn->empty.user = rn;
		dir_empty(rn->op.fs, &rn->empty, rn_empty_cb);
		return task_wait(t, RN_READY, rn_leave_empty);
	}
	if (rn->look.local)
		return task_goto(t, RN_GO);
	rn->keep.user = rn;
	session_keep(rn->op.fs, rn->target.id, &rn->keep, rn_keep_cb);
	return task_wait(t, RN_READY, rn_leave_keep);
}

static enum task_next rn_ready(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);

	if (rn_result(rn) != 0)
		return rn_fail(rn, task_err(t));
	return task_goto(t, RN_GO);
}

/* --- The ledger */

int rn_note(struct op_rename *rn, uint64_t stage, uint64_t id)
{
	struct fs *fs = rn->op.fs;
	int err;

	rn->note = (struct ledger_result){.node = rn->n.id, .aux = {stage, id}};
	err = ledger_intent(fs, rn->op.unique, &rn->note);
	if (err == 0)
		err = statedb_commit(fs->db);
	rn->intent = rn->intent || err == 0;
	return err == 0 ? FAULT("rename.noted") : err;
}

/* --- The task */

static void rn_fini(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);

	rn_unlock(rn);
	op_free(&rn->op);
}

static const struct task_step rn_steps[] = {
    [RN_BEGIN] = {"begin", rn_begin, TO(RN_SETTLED) | TO(RN_LOCK) | TO(RN_JOB)},
    [RN_SETTLED] = {"settled", rn_settled, TO(RN_LOCK)},
    [RN_LOCK] = {"lock", rn_lock, TO(RN_LOCKED)},
    [RN_LOCKED] = {"locked", rn_locked,
	TO(RN_LOCK) | TO(RN_SRC) | TO(RN_MOVE) | TO(RN_GO)},
    [RN_SRC] = {"source", rn_src, TO(RN_SETTLED) | TO(RN_BELOW) | TO(RN_DST)},
    [RN_BELOW] = {"below", rn_below, TO(RN_DST)},
    [RN_DST] = {"target", rn_dst, TO(RN_READY) | TO(RN_GO)},
    [RN_READY] = {"ready", rn_ready, TO(RN_GO)},
    [RN_GO] = {"go", rn_go, TO(RN_NATIVE) | TO(RN_COPY) | TO(RN_JOB)},
    [RN_NATIVE] = {"native", rn_native, TO(RN_NATIVE_LOOKED) | TO(RN_END)},
    [RN_NATIVE_LOOKED] = {"native looked", rn_native_looked, TO(RN_END)},
    [RN_COPY] = {"copy", rn_copy, TO(RN_COPIED) | TO(RN_SRC_AGAIN)},
    [RN_COPIED] = {"copied", rn_copied, TO(RN_SRC_AGAIN) | TO(RN_RECORD)},
    [RN_SRC_AGAIN] = {"source again", rn_src_again, TO(RN_COPY)},
    [RN_RECORD] = {"record", rn_record, TO(RN_RECORDED)},
    [RN_RECORDED] = {"recorded", rn_recorded, TO(RN_MOVE)},
    [RN_MOVE] = {"move", rn_move, TO(RN_MARKED)},
    [RN_MARKED] = {"marked", rn_marked, TO(RN_DELETED)},
    [RN_DELETED] = {"deleted", rn_deleted, TO(RN_FORGET)},
    [RN_FORGET] = {"forget", rn_forget, TO(RN_FORGOTTEN)},
    [RN_FORGOTTEN] = {"forgotten", rn_forgotten, 0},
    [RN_JOB] = {"job", rn_job, TO(RN_INTENTS) | TO(RN_JOB_ENDED)},
    [RN_INTENTS] = {"intents", rn_intents, TO(RN_JOB_ENDED) | TO(RN_LOCK)},
    [RN_JOB_ENDED] = {"job ended", rn_job_ended, 0},
    [RN_END] = {"end", rn_end, 0},
};
static const struct task_kind rn_kind = {"rename", rn_steps, ARRAY_LEN(rn_steps), rn_fini};

/* A file under a policy is to get a name that says that it has been deleted (a FUSE library
 * does so to what is open, and deletes that name later): it is deleted, and whoever has it
 * open keeps it. */
static bool rn_silly(struct fs *fs, uint64_t parent, const char *name, uint64_t newparent,
    const char *newname)
{
	static const char head[] = ".fuse_hidden";
	char path[UFS_PATH_MAX + 1];
	struct node n;

	if (!fs->env.cfg->silly_rename || parent != newparent ||
	    strncmp(newname, head, sizeof(head) - 1) != 0 ||
	    node_child_path(fs, parent, name, path) != 0 ||
	    policy_of(fs, path) == META_POLICY_NO_CACHE)
		return false;
	/* Sent again: nothing else is begun by a rename there. */
	return ledger_seen(fs, ledger_unique(fs), NULL) != LEDGER_NEW ||
	       (node_find(fs, parent, name, &n) == 0 && n.kind == UFS_FILE);
}

void rename_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
    const char *newname, unsigned flags)
{
	struct fs *fs = fs_of(req);
	struct op_rename *rn;
	int err = fs->staging == NULL ? -EROFS : node_name_check(newname);

	if (err == 0 && (flags & ~(unsigned)RENAME_NOREPLACE) != 0)
		err = -EINVAL;
	if (err == 0 && strlen(name) > UFS_NAME_MAX)
		err = -ENAMETOOLONG;
	if (err != 0) {
		fuse_reply_err(req, op_errno(err));
		return;
	}
	if (rn_silly(fs, parent, name, newparent, newname)) {
		remove_unlink(req, parent, name);
		return;
	}
	rn = op_new(fs, req, sizeof(*rn));
	if (rn == NULL)
		return;
	rn->noreplace = (flags & RENAME_NOREPLACE) != 0;
	rn->parent = parent;
	rn->newparent = newparent;
	memcpy(rn->name, name, strlen(name) + 1);
	memcpy(rn->newname, newname, strlen(newname) + 1);
	op_run(&rn->op, &rn_kind);
}
