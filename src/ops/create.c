/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * CREATE, and MKNOD of regular files.
 *
 * A file that is created exists here at once, and in the storage with its first upload.
 * O_EXCL, where the storage can tell (and create.exclusive says so), and mknod(2), which
 * has no close(2) behind it, make the empty object before they answer.
 *
 * Under a policy of the write cache the file is this mount's alone until it is persisted:
 * no object is made ahead, and what no close(2) will make safe is so before the answer.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "base/units.h"
#include "meta/meta.h"
#include "ops/attr.h"
#include "ops/handle.h"
#include "ops/ledger.h"
#include "ops/op.h"
#include "ops/policy.h"
#include "ops/requests.h"
#include "ops/session.h"

struct op_create {
	struct op op;
	struct pathlock lock;
	struct ufs_put put;
	struct ufs_stat stat;
	struct ufs_set set;
	struct meta_txn txn;
	struct meta_change change;
	int result;
	bool node_only; /* MKNOD */
	bool exclusive;
	bool again;    /* a daemon before us may have made the object */
	bool reserved; /* the empty object is in the storage, and attr is what it is */
	enum meta_policy policy;
	struct session_wait wait;
	uint64_t node; /* made, and being made safe */
	uint64_t parent;
	uint32_t mode, uid, gid;
	pid_t pid;
	struct ufs_attr attr;
	struct fuse_file_info fi;
	const char *sub; /* of path */
	struct ufs *ufs;
	char path[UFS_PATH_MAX + 1], name[UFS_NAME_MAX + 1];
};

enum { CR_LOCK, CR_LOCKED, CR_CHECK, CR_PUT, CR_LOOK, CR_RECORD, CR_MAKE, CR_SAFE };

static enum task_next cr_fail(struct op_create *oc, int err)
{
	/* Held for a successor, it is done again: the note stays. */
	if (!oc->op.hold)
		ledger_drop(oc->op.fs, oc->op.unique);
	return op_fail(&oc->op, err);
}

static void cr_result(struct op_create *oc, int err)
{
	oc->result = err;
	task_resume(&oc->op.task);
}

/* --- Nobody else changes the name */

static void cr_locked_cb(struct pathlock *l)
{
	struct op_create *oc = container_of(l, struct op_create, lock);

	task_fail(&oc->op.task, l->err);
	task_resume(&oc->op.task);
}

static void cr_leave_lock(struct task *t)
{
	pathlock_end(&OP_OF(t, op_create)->lock);
}

static enum task_next make_safe(struct op_create *oc, struct session *s);

/* Made by a daemon before us, which did not get to the answer. */
static enum task_next go_on(struct op_create *oc)
{
	struct session *s = session_of(oc->op.fs, oc->node);

	if (s != NULL)
		return make_safe(oc, s);
	oc->result = 0; /* its record says all, and it is nobody's concern any more */
	return task_goto(&oc->op.task, CR_SAFE);
}

static enum task_next cr_lock(struct task *t)
{
	struct op_create *oc = OP_OF(t, op_create);
	struct fs *fs = oc->op.fs;
	int err = task_err(t);

	if (err == 0 && oc->node != 0)
		return go_on(oc);
	if (err == 0)
		err = node_child_path(fs, oc->parent, oc->name, oc->path);
	if (err == 0)
		err = pathlock_add(&oc->lock, oc->path, false);
	if (err != 0)
		return cr_fail(oc, err == -ESTALE ? -ENOENT : err);
	if (pathlock_try(&fs->locks, &oc->lock, cr_locked_cb))
		return task_goto(t, CR_CHECK);
	return task_wait(t, CR_LOCKED, cr_leave_lock);
}

/* The directory may have been moved meanwhile. */
static enum task_next cr_was_locked(struct task *t)
{
	struct op_create *oc = OP_OF(t, op_create);
	char path[UFS_PATH_MAX + 1];
	int err = task_err(t);

	if (err == 0)
		err = node_child_path(oc->op.fs, oc->parent, oc->name, path);
	if (err != 0)
		return cr_fail(oc, err == -ESTALE ? -ENOENT : err);
	if (strcmp(path, oc->path) == 0)
		return task_goto(t, CR_CHECK);
	pathlock_end(&oc->lock);
	memset(&oc->lock, 0, sizeof(oc->lock));
	return task_goto(t, CR_LOCK);
}

/* --- May it be made? */

/* What is made in a directory with the set-group-ID bit gets its group. */
static int check_names(struct op_create *oc)
{
	struct fs *fs = oc->op.fs;
	struct node dir, n;
	int err = node_load(fs, oc->parent, &dir);

	if (err != 0)
		return err;
	if (dir.kind != UFS_DIR)
		return -ENOTDIR;
	if ((dir.flags & NODE_REPLACED) != 0)
		return -ENOENT;
	if ((dir.flags & NODE_HAVE_MODE) != 0 && (dir.mode & S_ISGID) != 0)
		oc->gid = dir.gid;
	err = node_find(fs, oc->parent, oc->name, &n);
	if (err == -ENOENT || (err == 0 && (n.flags & NODE_REPLACED) != 0))
		return 0;
	if (err != 0)
		return err;
	/* ESTALE: the kernel looks the name up again, finds it and opens it. */
	return oc->exclusive || oc->node_only ? -EEXIST : -ESTALE;
}

static void cr_ufs_cb(struct ufs_req *r, int err)
{
	cr_result(r->user, err);
}

static void cr_leave_put(struct task *t)
{
	struct op_create *oc = OP_OF(t, op_create);

	oc->op.on_wire = false;
	ufs_abort(&oc->put.req);
}

static enum task_next reserve(struct op_create *oc)
{
	struct fs *fs = oc->op.fs;
	int err = 0;

	oc->again = ledger_seen(fs, oc->op.unique, NULL) == LEDGER_INTENT;
	if (!oc->again)
		err = ledger_intent(fs, oc->op.unique, NULL);
	/* Before any byte of it leaves. */
	if (err == 0)
		err = statedb_commit(fs->db);
	if (err != 0)
		return cr_fail(oc, err);
	oc->put.path = oc->sub;
	oc->put.body = "";
	oc->put.absent = true;
	oc->put.set = &oc->set;
	oc->put.req.user = oc;
	oc->op.on_wire = true;
	ufs_put(oc->ufs, &oc->put, cr_ufs_cb);
	return task_wait(&oc->op.task, CR_PUT, cr_leave_put);
}

/* A storage that keeps attributes gets all; a record says what the defaults do not. */
static void wanted_attr(struct op_create *oc)
{
	struct fs *fs = oc->op.fs;
	uint64_t ns = loop_wall(fs->env.loop);
	struct timespec now = {
	    .tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};

	oc->attr = (struct ufs_attr){.kind = UFS_FILE,
	    .mtime = now,
	    .have_mode = true,
	    .mode = oc->mode,
	    .uid = oc->uid,
	    .gid = oc->gid};
	oc->set = (struct ufs_set){
	    .what = UFS_SET_MODE | UFS_SET_UID | UFS_SET_GID | UFS_SET_MTIME,
	    .mode = oc->mode,
	    .uid = oc->uid,
	    .gid = oc->gid,
	    .mtime = now};
	if (attr_native(fs, oc->path))
		return;
	if (oc->mode == fs->file_mode)
		oc->set.what &= ~UFS_SET_MODE;
	if (oc->uid == fs->uid)
		oc->set.what &= ~UFS_SET_UID;
	if (oc->gid == fs->gid)
		oc->set.what &= ~UFS_SET_GID;
}

/* Is the empty object to be made first?  mknod(2) under WRITE_THROUGH is a close(2) as
 * well. */
static bool wants_object(const struct op_create *oc)
{
	if (oc->node_only)
		return oc->policy == META_POLICY_NO_CACHE ||
		       oc->policy == META_POLICY_WRITE_THROUGH;
	return oc->policy == META_POLICY_NO_CACHE && oc->exclusive &&
	       (ufs_can(oc->ufs) & UFS_CAN_ABSENT) != 0;
}

/* The storage has just said that there is nothing, and that is enough (create.exclusive):
 * if two mounts heard so, the upload of the second fails. */
static bool told_absent(const struct op_create *oc)
{
	struct fs *fs = oc->op.fs;

	return strcmp(fs->env.cfg->create_exclusive, "mount") == 0 &&
	       ledger_seen(fs, oc->op.unique, NULL) == LEDGER_NEW &&
	       fs_absent(fs, oc->parent, oc->name);
}

static enum task_next cr_check(struct task *t)
{
	struct op_create *oc = OP_OF(t, op_create);
	int err = task_err(t);

	if (err == 0)
		err = check_names(oc);
	if (err != 0)
		return cr_fail(oc, err);
	fs_place(oc->op.fs, oc->path, &oc->ufs, &oc->sub);
	/* A directory that only leads to other storage: nothing can be made in it. */
	if (oc->ufs == oc->op.fs->tree)
		return cr_fail(oc, -EROFS);
	oc->exclusive = oc->exclusive && !told_absent(oc);
	wanted_attr(oc);
	oc->policy = policy_of(oc->op.fs, oc->path);
	if (wants_object(oc))
		return reserve(oc);
	return task_goto(t, CR_MAKE);
}

/* --- The empty object */

static void cr_leave_stat(struct task *t)
{
	ufs_abort(&OP_OF(t, op_create)->stat.req);
}

static enum task_next look(struct op_create *oc)
{
	oc->stat.path = oc->sub;
	oc->stat.req.user = oc;
	ufs_stat(oc->ufs, &oc->stat, cr_ufs_cb);
	return task_wait(&oc->op.task, CR_LOOK, cr_leave_stat);
}

static void cr_leave_record(struct task *t)
{
	meta_abort(&OP_OF(t, op_create)->txn.req);
}

static void cr_meta_cb(struct meta_req *r, int err)
{
	cr_result(r->user, err);
}

/* A file that is written has this done by its upload. */
static enum task_next has_object(struct op_create *oc, const struct ufs_attr *attr)
{
	struct fs *fs = oc->op.fs;
	struct ufs_attr a = *attr;

	oc->reserved = true;
	a.kind = UFS_FILE;
	if (!a.have_mode) {
		a.have_mode = true;
		a.mode = oc->mode;
		a.uid = oc->uid;
		a.gid = oc->gid;
		a.mtime = oc->attr.mtime;
	}
	oc->attr = a;
	if (!oc->node_only || fs->meta == NULL || attr_native(fs, oc->path))
		return task_goto(&oc->op.task, CR_MAKE);
	oc->change.verb = META_PUT;
	oc->change.path = oc->path;
	attr_record(&oc->change.rec, NULL, &oc->attr, &oc->set);
	oc->txn.changes = &oc->change;
	oc->txn.n = 1;
	oc->txn.req.user = oc;
	oc->txn.later = true;
	meta_txn(fs->meta, &oc->txn, cr_meta_cb);
	return task_wait(&oc->op.task, CR_RECORD, cr_leave_record);
}

static enum task_next cr_was_put(struct task *t)
{
	struct op_create *oc = OP_OF(t, op_create);

	oc->op.on_wire = false;
	if (task_err(t) != 0)
		return cr_fail(oc, task_err(t));
	if (oc->result == -EEXIST && oc->again)
		return look(oc);
	if (oc->result != 0)
		return cr_fail(oc, oc->result);
	(void)FAULT("create.reserved");
	return has_object(oc, &oc->put.attr);
}

/* Empty, and we had begun: it is ours. */
static enum task_next cr_looked(struct task *t)
{
	struct op_create *oc = OP_OF(t, op_create);
	const struct ufs_attr *a = &oc->stat.attr;
	int err = task_err(t) != 0 ? task_err(t) : oc->result;

	if (err == -ENOENT)
		err = -EIO; /* there a moment ago: tried again by the caller */
	if (err == 0 && (a->kind != UFS_FILE || a->size != 0))
		err = -EEXIST;
	if (err != 0)
		return cr_fail(oc, err);
	return has_object(oc, a);
}

static enum task_next cr_recorded(struct task *t)
{
	struct op_create *oc = OP_OF(t, op_create);
	int err = task_err(t) != 0 ? task_err(t) : oc->result;

	return err != 0 ? cr_fail(oc, err) : task_goto(t, CR_MAKE);
}

/* --- Node, session, handle and answer, in one turn */

static bool oc_writes(const struct op_create *oc)
{
	return (oc->fi.flags & O_ACCMODE) != O_RDONLY;
}

/* Is there a close(2) to come that will do what is to be done? */
static bool will_close(const struct op_create *oc)
{
	return !oc->node_only && oc_writes(oc);
}

static int make_session(struct op_create *oc, const struct node *n, struct session **out)
{
	struct fs *fs = oc->op.fs;
	struct session *s;
	int err = oc->policy == META_POLICY_NO_CACHE
		      ? session_new(fs, n, oc->path, false, oc->pid, &s)
		      : session_new_durable(fs, n, oc->path, oc->policy, oc->pid, &s);

	if (err != 0)
		return err;
	s->created = !oc->reserved;
	s->mtime = s->ctime = s->atime = oc->attr.mtime;
	/* A storage that keeps attributes has those of an object that it has. */
	if (!oc->reserved || !attr_native(fs, oc->path))
		s->set = oc->set.what;
	s->mode = oc->mode;
	s->uid = oc->uid;
	s->gid = oc->gid;
	/* Made by an open for reading it has no writer, and is uploaded as it is. */
	if (will_close(oc))
		err = session_add_writer(s, 1);
	else if (oc->policy == META_POLICY_NO_CACHE)
		session_pump(s);
	else
		err = session_store(s);
	if (err != 0)
		session_end(s);
	else
		*out = s;
	return err;
}

/* The handle, unless it is mknod(2). */
static int make_handle(struct op_create *oc, const struct node *n)
{
	struct handle *h = NULL;
	int err;

	if (oc->node_only)
		return 0;
	err = oc_writes(oc) ? handle_open_writing(oc->op.fs, n, oc->path, &h)
			    : handle_open(oc->op.fs, n, oc->path, &h);
	if (err != 0)
		return err;
	oc->fi.fh = h->id;
	oc->fi.keep_cache = 1;
	oc->fi.noflush = !oc_writes(oc);
	return 0;
}

/* What is still to be made safe is not done yet. */
static int make_note(struct op_create *oc, const struct node *n, bool done)
{
	struct ledger_result res = {.node = n->id, .fh = oc->fi.fh};

	return done ? ledger_done(oc->op.fs, oc->op.unique, &res)
		    : ledger_intent(oc->op.fs, oc->op.unique, &res);
}

static int make_open(struct op_create *oc, struct node *n, struct session **out)
{
	struct fs *fs = oc->op.fs;
	struct session *s;
	int err = make_session(oc, n, &s);

	if (err != 0)
		return err;
	err = make_handle(oc, n);
	if (err == 0)
		err = make_note(oc, n, oc->policy == META_POLICY_NO_CACHE || will_close(oc));
	if (err != 0) {
		if (oc->fi.fh != 0)
			(void)handle_release(fs, oc->fi.fh, UFS_FILE);
		session_end(s);
		return err;
	}
	session_overlay(s, n);
	*out = s;
	return 0;
}

static enum task_next cr_answer(struct op_create *oc, const struct node *n)
{
	struct fuse_entry_param e;

	node_entry(oc->op.fs, n, &e);
	if (oc->node_only)
		fuse_reply_entry(op_take(&oc->op), &e);
	else
		fuse_reply_create(op_take(&oc->op), &e, &oc->fi);
	return task_end(&oc->op.task);
}

static void cr_safe_cb(struct session_wait *w, int err)
{
	cr_result(w->user, err);
}

static void cr_leave_safe(struct task *t)
{
	session_wait_abort(&OP_OF(t, op_create)->wait);
}

/* The name is taken; making it safe locks it for itself. */
static enum task_next make_safe(struct op_create *oc, struct session *s)
{
	pathlock_end(&oc->lock);
	oc->node = s->node;
	oc->wait.user = oc;
	session_secure(s, &oc->wait, cr_safe_cb);
	return task_wait(&oc->op.task, CR_SAFE, cr_leave_safe);
}

static enum task_next cr_make(struct task *t)
{
	struct op_create *oc = OP_OF(t, op_create);
	struct fs *fs = oc->op.fs;
	struct session *s = NULL;
	struct node n;
	int err = task_err(t);

	oc->fi.fh = 0;
	if (err == 0)
		err = node_make(fs, oc->parent, oc->name, oc->path, &oc->attr, !oc->reserved, &n);
	if (err != 0)
		return cr_fail(oc, err);
	err = oc->node_only && oc->reserved ? make_note(oc, &n, true) : make_open(oc, &n, &s);
	if (err != 0) {
		(void)node_drop_name(fs, n.id);
		return cr_fail(oc, err);
	}
	(void)FAULT("create.made");
	node_count(fs, &n);
	if (s != NULL && oc->policy != META_POLICY_NO_CACHE && !will_close(oc))
		return make_safe(oc, s);
	return cr_answer(oc, &n);
}

/* The kernel never hears of it. */
static void unmake(struct op_create *oc)
{
	struct fs *fs = oc->op.fs;
	struct session *s = session_of(fs, oc->node);

	if (oc->fi.fh != 0)
		(void)handle_release(fs, oc->fi.fh, UFS_FILE);
	(void)node_drop_name(fs, oc->node);
	if (s != NULL)
		(void)session_orphan(s);
	(void)node_forget(fs, oc->node, 1);
}

static enum task_next cr_safe(struct task *t)
{
	struct op_create *oc = OP_OF(t, op_create);
	struct fs *fs = oc->op.fs;
	struct session *s;
	struct node n;
	int err = task_err(t) != 0 ? task_err(t) : oc->result;

	if (err == 0)
		err = node_load(fs, oc->node, &n);
	if (err == 0)
		err = make_note(oc, &n, true);
	if (err != 0) {
		if (!oc->op.hold)
			unmake(oc);
		return cr_fail(oc, err);
	}
	s = session_of(fs, n.id);
	if (s != NULL)
		session_overlay(s, &n);
	return cr_answer(oc, &n);
}

static void cr_fini(struct task *t)
{
	struct op_create *oc = OP_OF(t, op_create);

	pathlock_end(&oc->lock);
	op_free(&oc->op);
}

static const struct task_step cr_steps[] = {
    [CR_LOCK] = {"lock", cr_lock, TO(CR_LOCKED) | TO(CR_CHECK) | TO(CR_SAFE)},
    [CR_LOCKED] = {"locked", cr_was_locked, TO(CR_LOCK) | TO(CR_CHECK)},
    [CR_CHECK] = {"check", cr_check, TO(CR_PUT) | TO(CR_MAKE)},
    [CR_PUT] = {"put", cr_was_put, TO(CR_LOOK) | TO(CR_RECORD) | TO(CR_MAKE)},
    [CR_LOOK] = {"look", cr_looked, TO(CR_RECORD) | TO(CR_MAKE)},
    [CR_RECORD] = {"record", cr_recorded, TO(CR_MAKE)},
    [CR_MAKE] = {"make", cr_make, TO(CR_SAFE)},
    [CR_SAFE] = {"safe", cr_safe, 0},
};
static const struct task_kind cr_kind = {"create", cr_steps, ARRAY_LEN(cr_steps), cr_fini};

/* Done by a daemon before us, whose answer the kernel did not take: the reference that it
 * is about has been counted. */
static void answer_again(struct fs *fs, fuse_req_t req, const struct ledger_result *res,
    struct fuse_file_info *fi)
{
	struct fuse_entry_param e;
	struct session *s;
	struct node n;
	int err = node_load(fs, res->node, &n);

	ledger_drop(fs, ledger_unique(fs));
	if (err != 0) {
		fuse_reply_err(req, err == -ENOENT ? ESTALE : op_errno(err));
		return;
	}
	s = session_of(fs, n.id);
	if (s != NULL)
		session_overlay(s, &n);
	node_entry(fs, &n, &e);
	if (fi == NULL) {
		fuse_reply_entry(req, &e);
		return;
	}
	fi->fh = res->fh;
	fi->keep_cache = 1;
	fuse_reply_create(req, &e, fi);
}

/* fi: NULL for MKNOD. */
static void create_begin(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
    struct fuse_file_info *fi)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct fs *fs = fs_of(req);
	struct ledger_result res = {0};
	enum ledger_stage stage;
	struct op_create *oc;

	if (strlen(name) > UFS_NAME_MAX) {
		fuse_reply_err(req, ENAMETOOLONG);
		return;
	}
	if (fs->staging == NULL) {
		fuse_reply_err(req, EROFS);
		return;
	}
	stage = ledger_seen(fs, ledger_unique(fs), &res);
	if (stage == LEDGER_DONE) {
		answer_again(fs, req, &res, fi);
		return;
	}
	oc = op_new(fs, req, sizeof(*oc));
	if (oc == NULL)
		return;
	oc->parent = parent;
	oc->mode = mode & 07777;
	oc->uid = ctx->uid;
	oc->gid = ctx->gid;
	oc->node_only = fi == NULL;
	if (fi != NULL) {
		oc->fi = *fi;
		oc->exclusive = (fi->flags & O_EXCL) != 0;
		oc->pid = session_process(ctx->pid);
	}
	if (stage == LEDGER_INTENT && res.node != 0) {
		oc->node = res.node;
		oc->fi.fh = res.fh;
		oc->fi.keep_cache = 1;
		oc->fi.noflush = 1;
	}
	memcpy(oc->name, name, strlen(name) + 1);
	op_run(&oc->op, &cr_kind);
}

void create_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
    struct fuse_file_info *fi)
{
	create_begin(req, parent, name, mode, fi);
}

void create_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	(void)rdev;
	if (fs_of(req)->staging != NULL && !S_ISREG(mode) && (mode & S_IFMT) != 0) {
		fuse_reply_err(req, EPERM);
		return;
	}
	create_begin(req, parent, name, mode, NULL);
}
