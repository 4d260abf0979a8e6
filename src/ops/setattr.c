/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * SETATTR of mode, owner and times.  The storage keeps them if it can; else the metadata
 * store does; and of a file that is being written the session does, until its upload
 * brings them along.  Of one that is not persisted its record has them.  Doing it twice is
 * doing it once.
 */
#include <errno.h>
#include <string.h>

#include "base/units.h"
#include "ops/attr.h"
#include "ops/ledger.h"
#include "ops/node.h"
#include "ops/op.h"
#include "ops/requests.h"
#include "ops/session.h"

struct op_setattr {
	struct op op;
	uint64_t node;
	struct ufs_set set;
	struct pathlock lock;
	struct session_wait wait;
	struct attr_get get;
	struct ufs_setattr native;
	struct meta_txn txn;
	struct meta_change change;
	int result;
	bool again;  /* a daemon before us may have done it in the storage */
	bool intent; /* it is in the ledger */
	char path[UFS_PATH_MAX + 1];
	char now[UFS_PATH_MAX + 1];
};

enum { SA_BEGIN, SA_SETTLED, SA_SAFE, SA_LOCKED, SA_ASKED, SA_NATIVE, SA_RECORDED };

/* --- What is asked for */

static struct timespec wall_time(struct fs *fs)
{
	uint64_t ns = loop_wall(fs->env.loop);

	return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

static void set_times(struct fs *fs, struct ufs_set *set, const struct stat *attr, int to_set)
{
	if ((to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW)) != 0) {
		set->what |= UFS_SET_ATIME;
		set->atime = (to_set & FUSE_SET_ATTR_ATIME_NOW) != 0 ? wall_time(fs) : attr->st_atim;
	}
	if ((to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)) != 0) {
		set->what |= UFS_SET_MTIME;
		set->mtime = (to_set & FUSE_SET_ATTR_MTIME_NOW) != 0 ? wall_time(fs) : attr->st_mtim;
	}
}

static void set_from(struct fs *fs, struct ufs_set *set, const struct stat *attr, int to_set)
{
	memset(set, 0, sizeof(*set));
	if ((to_set & FUSE_SET_ATTR_MODE) != 0) {
		set->what |= UFS_SET_MODE;
		set->mode = attr->st_mode & 07777;
	}
	if ((to_set & FUSE_SET_ATTR_UID) != 0) {
		set->what |= UFS_SET_UID;
		set->uid = attr->st_uid;
	}
	if ((to_set & FUSE_SET_ATTR_GID) != 0) {
		set->what |= UFS_SET_GID;
		set->gid = attr->st_gid;
	}
	set_times(fs, set, attr, to_set);
}

/* The sticky bit is not given to anything; one that a file:// directory has stays. */
static int check_mode(const struct ufs_set *set, const struct node *n)
{
	bool had = (n->flags & NODE_HAVE_MODE) != 0 && (n->mode & S_ISVTX) != 0;

	if ((set->what & UFS_SET_MODE) != 0 && (set->mode & S_ISVTX) != 0 && !had)
		return -EOPNOTSUPP;
	return 0;
}

/* --- Into a session */

/* Its record is brought up to date by the session, and by nobody else. */
static bool is_durable(const struct session *s)
{
	return s->policy != META_POLICY_NO_CACHE && s->state != SESSION_ORPHAN;
}

/* Does its upload, or its record, bring attributes along, or does nobody need them in the
 * storage? */
static bool session_carries(const struct session *s)
{
	if (is_durable(s))
		return s->content.state != META_STATE_PERSISTED;
	return session_unsaved(s) || s->state == SESSION_ORPHAN;
}

/* --- The steps */

static enum task_next sa_fail(struct op_setattr *sa, int err)
{
	/* What is held comes again, and the row says how far it was. */
	if (sa->intent && !sa->op.hold)
		ledger_drop(sa->op.fs, sa->op.unique);
	pathlock_end(&sa->lock);
	return op_fail(&sa->op, err);
}

static enum task_next sa_reply(struct op_setattr *sa)
{
	struct fs *fs = sa->op.fs;
	struct session *s;
	struct stat st;
	struct node n;
	int err = node_load(fs, sa->node, &n);

	if (err != 0)
		return sa_fail(sa, err == -ENOENT ? -ESTALE : err);
	pathlock_end(&sa->lock);
	s = session_of(fs, sa->node);
	if (s != NULL)
		session_overlay(s, &n);
	node_stat(fs, &n, &st);
	if (sa->intent)
		ledger_drop(fs, sa->op.unique);
	fuse_reply_attr(op_take(&sa->op), &st, node_ttl(fs, &n));
	return task_end(&sa->op.task);
}

static void sa_locked_cb(struct pathlock *l)
{
	struct op_setattr *sa = container_of(l, struct op_setattr, lock);

	task_fail(&sa->op.task, l->err);
	task_resume(&sa->op.task);
}

static void sa_leave_lock(struct task *t)
{
	pathlock_end(&OP_OF(t, op_setattr)->lock);
}

static void sa_settled_cb(struct session_wait *w, int err)
{
	struct op_setattr *sa = w->user;

	(void)err; /* its own: what is to be done now is looked at again */
	task_resume(&sa->op.task);
}

static void sa_leave_wait(struct task *t)
{
	session_wait_abort(&OP_OF(t, op_setattr)->wait);
}

/* What an upload that runs ends with brings a record along, with all that is known then. */
static bool recorded_later(const struct op_setattr *sa, const struct session *s)
{
	char path[UFS_PATH_MAX + 1];

	return is_durable(s) && session_carries(s) &&
	       node_path(sa->op.fs, sa->node, path) == 0 && !attr_native(sa->op.fs, path);
}

static void sa_safe_cb(struct session_wait *w, int err)
{
	struct op_setattr *sa = w->user;

	sa->result = err;
	task_resume(&sa->op.task);
}

/* While somebody writes it the next close(2) or fsync(2) makes it safe. */
static enum task_next sa_session(struct op_setattr *sa, struct session *s)
{
	int err = session_set_attr(s, &sa->set);

	if (err != 0)
		return sa_fail(sa, err);
	if (!is_durable(s) || s->writers > 0 || s->uploading != NULL)
		return sa_reply(sa);
	sa->wait.user = sa;
	session_secure(s, &sa->wait, sa_safe_cb);
	return task_wait(&sa->op.task, SA_SAFE, sa_leave_wait);
}

static enum task_next sa_safe(struct task *t)
{
	struct op_setattr *sa = OP_OF(t, op_setattr);

	if (task_fail(t, sa->result) != 0)
		return sa_fail(sa, task_err(t));
	return sa_reply(sa);
}

static enum task_next sa_begin(struct task *t)
{
	struct op_setattr *sa = OP_OF(t, op_setattr);
	struct fs *fs = sa->op.fs;
	struct session *s;
	struct node n;
	int err = task_err(t);

	if (err == 0 && !sa->intent)
		sa->again = sa->intent = ledger_seen(fs, sa->op.unique, NULL) == LEDGER_INTENT;
	if (err == 0)
		err = node_load(fs, sa->node, &n);
	if (err == 0)
		err = check_mode(&sa->set, &n);
	if (err != 0)
		return sa_fail(sa, err == -ENOENT ? -ESTALE : err);
	s = session_of(fs, sa->node);
	if (s != NULL && s->uploading != NULL && s->state != SESSION_ORPHAN &&
	    !recorded_later(sa, s)) {
		/* What it sends is what was: wait, rather than send it all again. */
		sa->wait.user = sa;
		session_settle(s, &sa->wait, sa_settled_cb);
		return task_wait(t, SA_SETTLED, sa_leave_wait);
	}
	if (s != NULL && session_carries(s))
		return sa_session(sa, s);
	if ((n.flags & (NODE_REPLACED | NODE_LOCAL)) != 0)
		return sa_fail(sa, -ESTALE);
	if (sa->set.what == 0)
		return sa_reply(sa);
	err = node_path(fs, sa->node, sa->path);
	if (err == 0)
		err = pathlock_add(&sa->lock, sa->path, false);
	if (err != 0)
		return sa_fail(sa, err);
	if (pathlock_try(&fs->locks, &sa->lock, sa_locked_cb))
		return task_goto(t, SA_LOCKED);
	return task_wait(t, SA_LOCKED, sa_leave_lock);
}

static enum task_next sa_settled(struct task *t)
{
	return task_goto(t, SA_BEGIN);
}

static void sa_asked_cb(struct attr_get *g, int err)
{
	struct op_setattr *sa = g->user;

	sa->result = err;
	task_resume(&sa->op.task);
}

static void sa_leave_ask(struct task *t)
{
	struct op_setattr *sa = OP_OF(t, op_setattr);

	attr_get_abort(&sa->get);
}

static enum task_next sa_locked(struct task *t)
{
	struct op_setattr *sa = OP_OF(t, op_setattr);
	struct fs *fs = sa->op.fs;
	int err = task_err(t);

	if (err == 0)
		err = node_path(fs, sa->node, sa->now);
	if (err != 0)
		return sa_fail(sa, err);
	/* Renamed, or opened for writing, while we waited? */
	if (strcmp(sa->now, sa->path) != 0 || session_of(fs, sa->node) != NULL) {
		struct session *s = session_of(fs, sa->node);

		if (strcmp(sa->now, sa->path) != 0 || s->uploading != NULL || session_carries(s)) {
			pathlock_end(&sa->lock);
			return task_goto(t, SA_BEGIN);
		}
	}
	sa->get.path = sa->path;
	sa->get.user = sa;
	attr_get_start(fs, &sa->get, sa_asked_cb);
	return task_wait(t, SA_ASKED, sa_leave_ask);
}

static void sa_native_cb(struct ufs_req *r, int err)
{
	struct op_setattr *sa = r->user;

	sa->result = err;
	task_resume(&sa->op.task);
}

static void sa_leave_native(struct task *t)
{
	ufs_abort(&OP_OF(t, op_setattr)->native.req);
}

static void sa_recorded_cb(struct meta_req *r, int err)
{
	struct op_setattr *sa = r->user;

	sa->result = err;
	task_resume(&sa->op.task);
}

static void sa_leave_record(struct task *t)
{
	meta_abort(&OP_OF(t, op_setattr)->txn.req);
}

/* In the storage it makes another version of the file, which a successor must know for
 * ours: the database has it before the storage hears of it. */
static int note_intent(struct op_setattr *sa)
{
	int err;

	if (sa->intent)
		return 0;
	err = ledger_intent(sa->op.fs, sa->op.unique, NULL);
	sa->intent = err == 0;
	return err == 0 ? statedb_commit(sa->op.fs->db) : err;
}

static enum task_next set_native(struct op_setattr *sa)
{
	struct ufs *ufs;
	int err;

	fs_place(sa->op.fs, sa->path, &ufs, &sa->native.path);
	if (*sa->native.path == '\0')
		return sa_fail(sa, -EPERM); /* the attached directory itself is not ours */
	err = note_intent(sa);
	if (err != 0)
		return sa_fail(sa, err);
	sa->native.set = &sa->set;
	sa->native.req.user = sa;
	sa->op.on_wire = true;
	ufs_setattr(ufs, &sa->native, sa_native_cb);
	return task_wait(&sa->op.task, SA_NATIVE, sa_leave_native);
}

/* Says the record so already?  A program that copies a tree sets what is there. */
static bool recorded(const struct meta_record *a, const struct meta_record *b)
{
	return a->kind == b->kind && a->has == b->has && strcmp(a->version, b->version) == 0 &&
	       ((a->has & META_HAS_MODE) == 0 || a->mode == b->mode) &&
	       ((a->has & META_HAS_UID) == 0 || a->uid == b->uid) &&
	       ((a->has & META_HAS_GID) == 0 || a->gid == b->gid) &&
	       ((a->has & META_HAS_MTIME) == 0 ||
		   memcmp(&a->mtime, &b->mtime, sizeof(a->mtime)) == 0) &&
	       ((a->has & META_HAS_ATIME) == 0 ||
		   memcmp(&a->atime, &b->atime, sizeof(a->atime)) == 0);
}

static enum task_next set_record(struct op_setattr *sa)
{
	const struct meta_record *old = sa->get.have_record ? &sa->get.meta.rec : NULL;
	bool local = old != NULL && attr_unpersisted(old);

	sa->change = (struct meta_change){.verb = META_PUT, .path = sa->path};
	/* Another node may have put another file there since it was read. */
	if (local || (old != NULL && (old->has & META_HAS_CONTENT) != 0 &&
			 meta_self(sa->op.fs->meta) != 0))
		sa->change.if_content = old->content.id;
	attr_record(&sa->change.rec, old, &sa->get.stat.attr, &sa->set);
	sa->result = 0;
	if (old != NULL && recorded(old, &sa->change.rec))
		return task_goto(&sa->op.task, SA_RECORDED);
	sa->txn.changes = &sa->change;
	sa->txn.n = 1;
	sa->txn.req.user = sa;
	sa->op.on_wire = true;
	sa->txn.later = !local;
	meta_txn(sa->op.fs->meta, &sa->txn, sa_recorded_cb);
	return task_wait(&sa->op.task, SA_RECORDED, sa_leave_record);
}

/* Of a file that is not persisted.  An upload elsewhere would not know of it. */
static enum task_next set_local(struct op_setattr *sa)
{
	const struct meta_content *c = &sa->get.meta.rec.content;

	if (meta_is_here(sa->op.fs->meta, c))
		return set_record(sa);
	return sa_fail(sa,
	    attr_elsewhere(sa->op.fs, sa->path, c, "its attributes cannot be set here", -EBUSY));
}

/* Is what is there the file of the node, with attributes that we had begun to set? */
static bool is_ours(const struct op_setattr *sa, const struct node *n)
{
	const struct ufs_attr *a = &sa->get.attr;
	const struct timespec *set = &sa->set.mtime;

	return sa->again && a->kind == UFS_FILE && n->kind == UFS_FILE && a->size == n->size &&
	       ((a->mtime.tv_sec == n->mtime.tv_sec && a->mtime.tv_nsec == n->mtime.tv_nsec) ||
		   ((sa->set.what & UFS_SET_MTIME) != 0 && a->mtime.tv_sec == set->tv_sec &&
		       a->mtime.tv_nsec == set->tv_nsec));
}

static enum task_next sa_asked(struct task *t)
{
	struct op_setattr *sa = OP_OF(t, op_setattr);
	struct fs *fs = sa->op.fs;
	bool gone = sa->result == -ENOENT && sa->node != NODE_ROOT;
	struct node n;
	int err = task_err(t);

	if (err == 0 && !gone)
		err = sa->result;
	if (err == 0) {
		err = node_load(fs, sa->node, &n);
		err = err == -ENOENT ? -ESTALE : err;
	}
	/* Another version is there: the kernel looks the name up again, and asks for that. */
	if (err == 0 && !gone && is_ours(sa, &n))
		err = node_set_version(fs, sa->node, &sa->get.attr);
	else if (err == 0)
		err = node_refresh(fs, &n, gone ? NULL : &sa->get.attr);
	if (err != 0)
		return sa_fail(sa, err);
	if (attr_unpersisted(&sa->get.meta.rec) && sa->get.have_record)
		return set_local(sa);
	return attr_native(fs, sa->path) ? set_native(sa) : set_record(sa);
}

/* Open for writing, and nothing written: it shows its own time. */
static void session_told(struct op_setattr *sa)
{
	struct session *s = session_of(sa->op.fs, sa->node);

	/* Made from the record as it was before? */
	if (s != NULL && is_durable(s)) {
		(void)session_set_attr(s, &sa->set);
	} else if (s != NULL && (sa->set.what & UFS_SET_MTIME) != 0) {
		s->mtime = sa->set.mtime;
		(void)session_store(s); /* else a successor has the time that it was opened with */
	}
}

static enum task_next sa_native(struct task *t)
{
	struct op_setattr *sa = OP_OF(t, op_setattr);
	int err = task_fail(t, sa->result);

	sa->op.on_wire = false;
	/* Its version is another one by this, its content is not. */
	if (err == 0)
		err = node_set_version(sa->op.fs, sa->node, &sa->native.attr);
	if (err != 0)
		return sa_fail(sa, err == -ENOENT ? -ESTALE : err);
	session_told(sa);
	return sa_reply(sa);
}

static enum task_next sa_recorded(struct task *t)
{
	struct op_setattr *sa = OP_OF(t, op_setattr);
	struct ufs_attr attr = sa->get.stat.attr;
	int err = task_fail(t, sa->result);

	sa->op.on_wire = false;
	if (err == -EEXIST)
		err = -ESTALE; /* of other content by now */
	attr_merge(sa->op.fs, &attr, &sa->change.rec);
	if (err == 0)
		err = node_set_version(sa->op.fs, sa->node, &attr);
	if (err != 0)
		return sa_fail(sa, err == -ENOENT ? -ESTALE : err);
	session_told(sa);
	return sa_reply(sa);
}

static void sa_fini(struct task *t)
{
	op_free(&OP_OF(t, op_setattr)->op);
}

static const struct task_step sa_steps[] = {
    [SA_BEGIN] = {"begin", sa_begin, TO(SA_SETTLED) | TO(SA_SAFE) | TO(SA_LOCKED)},
    [SA_SETTLED] = {"settled", sa_settled, TO(SA_BEGIN)},
    [SA_SAFE] = {"safe", sa_safe, 0},
    [SA_LOCKED] = {"locked", sa_locked, TO(SA_BEGIN) | TO(SA_ASKED)},
    [SA_ASKED] = {"asked", sa_asked, TO(SA_NATIVE) | TO(SA_RECORDED)},
    [SA_NATIVE] = {"native", sa_native, 0},
    [SA_RECORDED] = {"recorded", sa_recorded, 0},
};
static const struct task_kind sa_kind = {"setattr", sa_steps, ARRAY_LEN(sa_steps), sa_fini};

/* --- Entry */

void setattr_setattr(
    fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct op_setattr *sa;

	if (fs->staging == NULL) {
		fuse_reply_err(req, EROFS);
		return;
	}
	if ((to_set & FUSE_SET_ATTR_SIZE) != 0) {
		write_truncate(req, ino, attr, to_set, fi);
		return;
	}
	sa = op_new(fs, req, sizeof(*sa));
	if (sa == NULL)
		return;
	sa->node = ino;
	set_from(fs, &sa->set, attr, to_set);
	op_run(&sa->op, &sa_kind);
}

enum task_next setattr_rest(struct op *op, uint64_t ino, const struct stat *attr, int to_set)
{
	struct op_setattr *sa = calloc(1, sizeof(*sa));

	if (sa == NULL)
		return op_fail(op, -ENOMEM);
	sa->op.magic = OP_MAGIC;
	sa->op.fs = op->fs;
	sa->op.unique = op->unique;
	sa->op.resends = op->resends;
	sa->op.hold = op->hold;
	sa->op.raw = op->raw;
	op->raw = NULL;
	sa->op.req = op_take(op);
	sa->node = ino;
	set_from(op->fs, &sa->set, attr, to_set & ~FUSE_SET_ATTR_SIZE);
	op_run(&sa->op, &sa_kind);
	return task_end(&op->task);
}
