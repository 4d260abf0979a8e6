/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * MKDIR.  Is something there?  Then LEDGER_INTENT, the directory, its attributes where the
 * storage does not keep them, its node, LEDGER_DONE and the reply.  Done again after
 * LEDGER_INTENT it does not ask what is there: that may be its own.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/units.h"
#include "ops/attr.h"
#include "ops/ledger.h"
#include "ops/node.h"
#include "ops/op.h"
#include "ops/policy.h"
#include "ops/requests.h"
#include "ops/session.h"

struct op_mkdir {
	struct op op;
	uint64_t parent;
	bool again; /* there is an intent: what is there may be ours */
	bool stale; /* the metadata store may have a record of what was there once */
	struct ufs_set set;
	struct pathlock lock;
	struct attr_get get;
	struct ufs_mkdir mkdir;
	struct ufs_setattr setattr;
	struct meta_txn txn;
	struct meta_change change;
	int result;
	char path[UFS_PATH_MAX + 1];
	char now[UFS_PATH_MAX + 1];
	char name[UFS_NAME_MAX + 1];
};

enum { MK_BEGIN, MK_LOCKED, MK_ASKED, MK_MADE, MK_SET, MK_RECORDED };

static enum task_next mk_fail(struct op_mkdir *mk, int err)
{
	pathlock_end(&mk->lock);
	/* Cancelled for a hand-over, it is done again: the row says how far it came. */
	if (!mk->op.hold && mk->op.fs->db != NULL)
		ledger_drop(mk->op.fs, mk->op.unique);
	return op_fail(&mk->op, err);
}

static void mk_reply(struct fs *fs, fuse_req_t req, const struct node *n)
{
	struct fuse_entry_param e;

	node_entry(fs, n, &e);
	if (fuse_reply_entry(req, &e) != 0)
		(void)node_forget(fs, n->id, 1); /* not taken: the caller is gone */
}

/* --- May it be made? */

static void mk_locked_cb(struct pathlock *l)
{
	struct op_mkdir *mk = container_of(l, struct op_mkdir, lock);

	task_fail(&mk->op.task, l->err);
	task_resume(&mk->op.task);
}

static void mk_leave_lock(struct task *t)
{
	pathlock_end(&OP_OF(t, op_mkdir)->lock);
}

static enum task_next mk_begin(struct task *t)
{
	struct op_mkdir *mk = OP_OF(t, op_mkdir);
	struct fs *fs = mk->op.fs;
	int err = task_err(t);

	if (err == 0)
		err = node_child_path(fs, mk->parent, mk->name, mk->path);
	if (err == 0)
		err = pathlock_add(&mk->lock, mk->path, false);
	if (err != 0)
		return mk_fail(mk, err);
	if (pathlock_try(&fs->locks, &mk->lock, mk_locked_cb))
		return task_goto(t, MK_LOCKED);
	return task_wait(t, MK_LOCKED, mk_leave_lock);
}

/* What this mount knows of the name: -EEXIST, 0 (nothing is there), or 1: ask. */
static int known(struct op_mkdir *mk)
{
	struct fs *fs = mk->op.fs;
	struct node n;
	int err = node_find(fs, mk->parent, mk->name, &n);

	if (err == 0 && (n.flags & NODE_REPLACED) == 0 &&
	    (session_of(fs, n.id) != NULL || node_fresh(fs, &n)))
		return -EEXIST;
	if (err != 0 && err != -ENOENT)
		return err;
	return fs_absent(fs, mk->parent, mk->name) ? 0 : 1;
}

static void mk_asked_cb(struct attr_get *g, int err)
{
	struct op_mkdir *mk = g->user;

	mk->result = err;
	task_resume(&mk->op.task);
}

static void mk_leave_ask(struct task *t)
{
	attr_get_abort(&OP_OF(t, op_mkdir)->get);
}

static void mk_made_cb(struct ufs_req *r, int err)
{
	struct op_mkdir *mk = r->user;

	mk->result = err;
	task_resume(&mk->op.task);
}

static void mk_leave_make(struct task *t)
{
	ufs_abort(&OP_OF(t, op_mkdir)->mkdir.req);
}

/* Nothing is in the way: from here on it may have happened. */
static enum task_next mk_make(struct op_mkdir *mk)
{
	struct fs *fs = mk->op.fs;
	struct ufs *ufs;
	int err = mk->again ? 0 : ledger_intent(fs, mk->op.unique, NULL);

	/* In the database before the storage hears of it. */
	if (err == 0 && !mk->again)
		err = statedb_commit(fs->db);
	if (err == 0)
		err = FAULT("mkdir.noted");
	if (err != 0)
		return mk_fail(mk, err);
	fs_place(fs, mk->path, &ufs, &mk->mkdir.path);
	mk->mkdir.set = &mk->set;
	mk->mkdir.req.user = mk;
	mk->op.on_wire = true;
	ufs_mkdir(ufs, &mk->mkdir, mk_made_cb);
	return task_wait(&mk->op.task, MK_MADE, mk_leave_make);
}

static enum task_next mk_locked(struct task *t)
{
	struct op_mkdir *mk = OP_OF(t, op_mkdir);
	struct fs *fs = mk->op.fs;
	int err = task_err(t), what;

	if (err == 0)
		err = node_child_path(fs, mk->parent, mk->name, mk->now);
	if (err != 0)
		return mk_fail(mk, err);
	if (strcmp(mk->now, mk->path) != 0) {
		/* A directory above was renamed while we waited. */
		pathlock_end(&mk->lock);
		return task_goto(t, MK_BEGIN);
	}
	mk->stale = mk->again;
	if (mk->again)
		return mk_make(mk);
	what = known(mk);
	if (what < 0)
		return mk_fail(mk, what);
	if (what == 0)
		return mk_make(mk);
	mk->get.path = mk->path;
	mk->get.user = mk;
	attr_get_start(fs, &mk->get, mk_asked_cb);
	return task_wait(t, MK_ASKED, mk_leave_ask);
}

static enum task_next mk_asked(struct task *t)
{
	struct op_mkdir *mk = OP_OF(t, op_mkdir);
	int err = task_err(t);

	if (err == 0 && mk->result != -ENOENT)
		err = mk->result == 0 ? -EEXIST : mk->result;
	if (err != 0)
		return mk_fail(mk, err);
	mk->stale = mk->get.meta_err != -ENOENT;
	return mk_make(mk);
}

/* --- It is there: its attributes */

static void mk_set_cb(struct ufs_req *r, int err)
{
	struct op_mkdir *mk = r->user;

	mk->result = err;
	task_resume(&mk->op.task);
}

static void mk_leave_set(struct task *t)
{
	ufs_abort(&OP_OF(t, op_mkdir)->setattr.req);
}

static void mk_recorded_cb(struct meta_req *r, int err)
{
	struct op_mkdir *mk = r->user;

	mk->result = err;
	task_resume(&mk->op.task);
}

static void mk_leave_record(struct task *t)
{
	meta_abort(&OP_OF(t, op_mkdir)->txn.req);
}

/* Begun before a crash, it was made and may lack its attributes. */
static enum task_next mk_set_again(struct op_mkdir *mk)
{
	struct ufs *ufs;

	fs_place(mk->op.fs, mk->path, &ufs, &mk->setattr.path);
	mk->setattr.set = &mk->set;
	mk->setattr.req.user = mk;
	ufs_setattr(ufs, &mk->setattr, mk_set_cb);
	return task_wait(&mk->op.task, MK_SET, mk_leave_set);
}

/* A record of what the mount's defaults do not say, or of a directory under a policy; else
 * none: also where the storage keeps attributes, if one of a file that was persisted there
 * may be left. */
static enum task_next mk_record(struct op_mkdir *mk)
{
	struct fs *fs = mk->op.fs;
	bool native = attr_native(fs, mk->path);
	/* Where files are written while the storage is down, their directory is to be known. */
	bool differs = !native && (mk->set.mode != fs->dir_mode || mk->set.uid != fs->uid ||
				      mk->set.gid != fs->gid ||
				      policy_of(fs, mk->path) != META_POLICY_NO_CACHE);

	mk->change = (struct meta_change){.verb = differs ? META_PUT : META_DEL, .path = mk->path};
	attr_record(&mk->change.rec, NULL, &mk->mkdir.attr, &mk->set);
	mk->result = 0;
	if (native)
		mk->stale = attr_any_content(fs);
	if (fs->meta == NULL || (!differs && !mk->stale))
		return task_goto(&mk->op.task, MK_RECORDED);
	mk->txn.changes = &mk->change;
	mk->txn.n = 1;
	mk->txn.req.user = mk;
	mk->txn.later = true;
	meta_txn(fs->meta, &mk->txn, mk_recorded_cb);
	return task_wait(&mk->op.task, MK_RECORDED, mk_leave_record);
}

static enum task_next mk_made(struct task *t)
{
	struct op_mkdir *mk = OP_OF(t, op_mkdir);
	bool native = attr_native(mk->op.fs, mk->path);
	int err = task_err(t);

	(void)FAULT("mkdir.made");
	if (err == 0 && mk->result == -EEXIST && mk->again && native)
		return mk_set_again(mk);
	if (task_fail(t, mk->result) != 0)
		return mk_fail(mk, task_err(t));
	return mk_record(mk);
}

static enum task_next mk_set_done(struct task *t)
{
	struct op_mkdir *mk = OP_OF(t, op_mkdir);

	if (task_fail(t, mk->result) != 0)
		return mk_fail(mk, task_err(t));
	mk->mkdir.attr = mk->setattr.attr;
	if (mk->mkdir.attr.kind != UFS_DIR)
		return mk_fail(mk, -EEXIST);
	return mk_record(mk);
}

/* --- The node and the answer, in one turn */

static struct timespec wall_time(struct fs *fs)
{
	uint64_t ns = loop_wall(fs->env.loop);

	return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

static int mk_node(struct op_mkdir *mk, struct node *n)
{
	struct ufs_attr *attr = &mk->mkdir.attr;
	struct fs *fs = mk->op.fs;
	struct ledger_result res = {0};
	int err;

	attr->kind = UFS_DIR;
	if (attr->mtime.tv_sec == 0 && attr->mtime.tv_nsec == 0)
		attr->mtime = wall_time(fs);
	if (!attr->have_mode && mk->change.verb == META_PUT)
		attr_merge(fs, attr, &mk->change.rec);
	err = node_make(fs, mk->parent, mk->name, mk->path, attr, false, n);
	if (err != 0)
		return err;
	node_count(fs, n);
	fs_dir_is_new(fs, n->id);
	res.node = n->id;
	return ledger_done(fs, mk->op.unique, &res);
}

static enum task_next mk_recorded(struct task *t)
{
	struct op_mkdir *mk = OP_OF(t, op_mkdir);
	struct node n;
	int err = task_fail(t, mk->result);

	mk->op.on_wire = false;
	if (err == 0)
		err = mk_node(mk, &n);
	if (err != 0)
		return mk_fail(mk, err);
	pathlock_end(&mk->lock);
	mk_reply(mk->op.fs, op_take(&mk->op), &n);
	return task_end(t);
}

static void mk_fini(struct task *t)
{
	op_free(&OP_OF(t, op_mkdir)->op);
}

static const struct task_step mk_steps[] = {
    [MK_BEGIN] = {"begin", mk_begin, TO(MK_LOCKED)},
    [MK_LOCKED] = {"locked", mk_locked, TO(MK_BEGIN) | TO(MK_ASKED) | TO(MK_MADE)},
    [MK_ASKED] = {"asked", mk_asked, TO(MK_MADE)},
    [MK_MADE] = {"made", mk_made, TO(MK_SET) | TO(MK_RECORDED)},
    [MK_SET] = {"set", mk_set_done, TO(MK_RECORDED)},
    [MK_RECORDED] = {"recorded", mk_recorded, 0},
};
static const struct task_kind mk_kind = {"mkdir", mk_steps, ARRAY_LEN(mk_steps), mk_fini};

/* --- Entry */

/* Mode and owner as a local file system gives them: of a directory with the setgid bit,
 * its group and that bit. */
static void mk_owner(struct op_mkdir *mk, fuse_req_t req, mode_t mode)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct fs *fs = mk->op.fs;
	struct node dir;

	mk->set.what = UFS_SET_MODE | UFS_SET_UID | UFS_SET_GID;
	mk->set.mode = mode & 0777;
	mk->set.uid = ctx->uid;
	mk->set.gid = ctx->gid;
	if (node_load(fs, mk->parent, &dir) == 0 && (dir.flags & NODE_HAVE_MODE) != 0 &&
	    (dir.mode & S_ISGID) != 0) {
		mk->set.mode |= S_ISGID;
		mk->set.gid = dir.gid;
	}
}

/* Only root gives files away; what a daemon of another user makes is that user's. */
static void mk_native_owner(struct op_mkdir *mk)
{
	if (mk->set.uid == geteuid())
		mk->set.what &= ~UFS_SET_UID;
	if (mk->set.gid == getegid() && (mk->set.mode & S_ISGID) == 0)
		mk->set.what &= ~UFS_SET_GID;
}

/* Done, but the answer did not reach the kernel. */
static void mk_answer_again(struct fs *fs, fuse_req_t req, const struct ledger_result *res)
{
	struct node n;
	int err = node_load(fs, res->node, &n);

	ledger_drop(fs, ledger_unique(fs));
	if (err == 0)
		mk_reply(fs, req, &n);
	else
		fuse_reply_err(req, err == -ENOENT ? ESTALE : op_errno(err));
}

void mkdir_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct fs *fs = fs_of(req);
	enum ledger_stage stage;
	struct ledger_result res;
	struct op_mkdir *mk;
	int err = fs->staging == NULL ? -EROFS : node_name_check(name);

	if (err == 0 && (mode & S_ISVTX) != 0)
		err = -EOPNOTSUPP;
	if (err != 0) {
		fuse_reply_err(req, op_errno(err));
		return;
	}
	stage = ledger_seen(fs, ledger_unique(fs), &res);
	if (stage == LEDGER_DONE) {
		mk_answer_again(fs, req, &res);
		return;
	}
	mk = op_new(fs, req, sizeof(*mk));
	if (mk == NULL)
		return;
	mk->parent = parent;
	mk->again = stage == LEDGER_INTENT;
	memcpy(mk->name, name, strlen(name) + 1);
	mk_owner(mk, req, mode);
	if (node_child_path(fs, parent, name, mk->path) == 0 && attr_native(fs, mk->path))
		mk_native_owner(mk);
	op_run(&mk->op, &mk_kind);
}
