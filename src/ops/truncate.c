/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Truncation.  Of a file that somebody writes: its staged file is cut.  Of another one: a
 * session for this change alone, which is uploaded before the answer.  Under a policy of the
 * write cache a file that nobody writes is not changed any more.
 */
#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "ops/attr.h"
#include "ops/op.h"
#include "ops/policy.h"
#include "ops/requests.h"
#include "ops/session.h"

struct op_cut {
	struct op op;
	struct attr_get get;
	struct session_wait wait;
	struct session *s; /* used */
	struct staged_io io;
	int result;
	bool asked;
	bool mine;   /* the session is there for this request only */
	bool rewrites; /* what a record has made safe */
	bool handle; /* ftruncate(2) */
	uint64_t node, changes;
	pid_t pid;
	struct stat attr;
	int to_set;
	char path[UFS_PATH_MAX + 1];
};

enum { CUT_CHECK, CUT_ANSWER, CUT_SETTLED, CUT_NOTED, CUT_DONE, CUT_SENT };

static void cut_resume(struct op_cut *oc, int err)
{
	oc->result = err;
	task_resume(&oc->op.task);
}

static void cut_get_cb(struct attr_get *g, int err)
{
	cut_resume(g->user, err);
}

static void cut_wait_cb(struct session_wait *w, int err)
{
	cut_resume(w->user, err);
}

static void cut_io_cb(struct staged_io *io, int err)
{
	cut_resume(io->user, err);
}

static void cut_leave_get(struct task *t)
{
	attr_get_abort(&OP_OF(t, op_cut)->get);
}

static void cut_leave_wait(struct task *t)
{
	session_wait_abort(&OP_OF(t, op_cut)->wait);
}

static enum task_next cut_reply(struct op_cut *oc)
{
	struct fs *fs = oc->op.fs;
	struct session *s;
	struct stat st;
	struct node n;
	int err = node_load(fs, oc->node, &n);

	if (err != 0)
		return op_fail(&oc->op, err == -ENOENT ? -ESTALE : err);
	s = session_of(fs, oc->node);
	if (s != NULL)
		session_overlay(s, &n);
	node_stat(fs, &n, &st);
	fuse_reply_attr(op_take(&oc->op), &st, node_ttl(fs, &n));
	return task_end(&oc->op.task);
}

static enum task_next cut_start(struct op_cut *oc, struct session *s)
{
	uint64_t size = (uint64_t)oc->attr.st_size, now = staged_size(s->sf);

	if (!oc->op.fs->env.cfg->random_access && size != 0 && size < now)
		return op_fail(&oc->op, -EOPNOTSUPP);
	now = MIN(size, now);
	if (session_must_note(s, now)) {
		oc->wait.user = oc;
		session_note(s, &oc->wait, cut_wait_cb);
		return task_wait(&oc->op.task, CUT_NOTED, cut_leave_wait);
	}
	oc->rewrites = s->policy != META_POLICY_NO_CACHE && now < s->content.size;
	if (oc->rewrites)
		session_rewriter(s, 1);
	oc->s = s;
	session_use(s);
	oc->io = (struct staged_io){.sf = s->sf, .off = size, .done = cut_io_cb, .user = oc};
	staged_truncate(&oc->io);
	return task_wait(&oc->op.task, CUT_DONE, NULL);
}

static enum task_next cut_ask(struct op_cut *oc)
{
	oc->changes = oc->op.fs->changes;
	oc->get.path = oc->path;
	oc->get.user = oc;
	attr_get_start(oc->op.fs, &oc->get, cut_get_cb);
	return task_wait(&oc->op.task, CUT_ANSWER, cut_leave_get);
}

/* Nobody has it open for writing: a session for this one change. */
static enum task_next cut_alone(struct op_cut *oc, const struct node *n)
{
	struct fs *fs = oc->op.fs;
	struct session *s;
	int err;

	if (!oc->asked && !node_fresh(fs, n))
		return cut_ask(oc);
	if (n->size == (uint64_t)oc->attr.st_size)
		return setattr_rest(&oc->op, oc->node, &oc->attr, oc->to_set);
	err = session_new(fs, n, oc->path, true, oc->pid, &s);
	if (err != 0)
		return op_fail(&oc->op, err);
	oc->mine = true;
	return cut_start(oc, s);
}

static bool closed_for_good(const struct session *s)
{
	return s->policy != META_POLICY_NO_CACHE && s->state != SESSION_ORPHAN &&
	       s->writers == 0;
}

static enum task_next cut_check(struct task *t)
{
	struct op_cut *oc = OP_OF(t, op_cut);
	struct fs *fs = oc->op.fs;
	struct session *s;
	struct node n;
	int err = task_err(t);

	if (err == 0)
		err = node_load(fs, oc->node, &n);
	if (err != 0)
		return op_fail(&oc->op, err == -ENOENT ? -ESTALE : err);
	if (n.kind == UFS_DIR)
		return op_fail(&oc->op, -EISDIR);
	s = session_of(fs, oc->node);
	if (s != NULL && closed_for_good(s))
		return op_fail(&oc->op, -EACCES);
	if (s != NULL && s->state == SESSION_CLOSING) {
		oc->wait.user = oc;
		session_settle(s, &oc->wait, cut_wait_cb);
		return task_wait(t, CUT_SETTLED, cut_leave_wait);
	}
	if (s != NULL)
		return cut_start(oc, s);
	if (oc->handle)
		return op_fail(&oc->op, -EIO); /* open for writing, and no session */
	if ((n.flags & (NODE_REPLACED | NODE_LOCAL)) != 0)
		return op_fail(&oc->op, -ESTALE);
	err = node_path(fs, oc->node, oc->path);
	if (err == 0 && (session_version_content(n.version) != 0 ||
			    policy_of(fs, oc->path) != META_POLICY_NO_CACHE))
		err = -EACCES;
	if (err != 0)
		return op_fail(&oc->op, err);
	return cut_alone(oc, &n);
}

static enum task_next cut_settled(struct task *t)
{
	return task_goto(t, CUT_CHECK);
}

static enum task_next cut_noted(struct task *t)
{
	struct op_cut *oc = OP_OF(t, op_cut);

	if (task_fail(t, oc->result) != 0)
		return op_fail(&oc->op, task_err(t));
	return task_goto(t, CUT_CHECK);
}

static enum task_next cut_answer(struct task *t)
{
	struct op_cut *oc = OP_OF(t, op_cut);
	struct fs *fs = oc->op.fs;
	bool gone = oc->result == -ENOENT;
	struct node n;
	int err = task_err(t);

	if (err == 0 && !gone)
		err = oc->result;
	if (err == 0)
		err = node_load(fs, oc->node, &n);
	if (err != 0)
		return op_fail(&oc->op, err == -ENOENT ? -ESTALE : err);
	if (session_of(fs, oc->node) != NULL ||
	    fs_touched_since(fs, n.parent, n.name, oc->changes))
		return task_goto(t, CUT_CHECK);
	err = node_refresh(fs, &n, gone ? NULL : &oc->get.attr);
	if (err != 0)
		return op_fail(&oc->op, err);
	oc->asked = true;
	return task_goto(t, CUT_CHECK);
}

/* What else the kernel sets in the same request. */
static void cut_others(const struct op_cut *oc)
{
	struct session *s = oc->s;

	if ((oc->to_set & FUSE_SET_ATTR_MTIME) != 0) {
		s->mtime = oc->attr.st_mtim;
		s->set |= UFS_SET_MTIME;
	}
	if ((oc->to_set & FUSE_SET_ATTR_MODE) != 0) {
		s->mode = oc->attr.st_mode & 07777;
		s->set |= UFS_SET_MODE;
	}
	if ((oc->to_set & FUSE_SET_ATTR_UID) != 0) {
		s->uid = oc->attr.st_uid;
		s->set |= UFS_SET_UID;
	}
	if ((oc->to_set & FUSE_SET_ATTR_GID) != 0) {
		s->gid = oc->attr.st_gid;
		s->set |= UFS_SET_GID;
	}
}

/* Of a session for this request alone nothing stays: the file is what it was, or what the
 * storage says it is by now. */
static void cut_undo(struct op_cut *oc)
{
	struct session *s = oc->s;

	if (!oc->mine || s->writers > 0 || s->uploading != NULL || s->ended)
		return;
	session_end(s);
	(void)node_expire(oc->op.fs, oc->node);
}

static enum task_next cut_fail(struct op_cut *oc, int err)
{
	if (!oc->op.hold)
		cut_undo(oc);
	return op_fail(&oc->op, err);
}

static enum task_next cut_done(struct task *t)
{
	struct op_cut *oc = OP_OF(t, op_cut);
	struct session *s = oc->s;
	int err = oc->result;

	if (oc->rewrites)
		session_rewriter(s, -1);
	oc->rewrites = false;
	if (err == 0) {
		err = session_wrote(s, (uint64_t)oc->attr.st_size, UINT64_MAX);
		cut_others(oc);
	}
	if (err == 0)
		err = session_store(s);
	if (err == 0)
		err = FAULT("truncate.done");
	if (err != 0)
		return cut_fail(oc, task_err(t) != 0 ? task_err(t) : err);
	/* Closed meanwhile under a policy: the close(2) sees to it. */
	if (s->writers > 0 || s->state == SESSION_ORPHAN || s->policy != META_POLICY_NO_CACHE)
		return cut_reply(oc);
	if (task_err(t) != 0)
		return cut_fail(oc, task_err(t));
	oc->wait.user = oc;
	session_upload(s, &oc->wait, true, cut_wait_cb);
	return task_wait(t, CUT_SENT, cut_leave_wait);
}

static enum task_next cut_sent(struct task *t)
{
	struct op_cut *oc = OP_OF(t, op_cut);

	if (task_fail(t, oc->result) != 0)
		return cut_fail(oc, task_err(t));
	return cut_reply(oc);
}

static void cut_fini(struct task *t)
{
	struct op_cut *oc = OP_OF(t, op_cut);

	if (oc->s != NULL)
		session_unuse(oc->s);
	op_free(&oc->op);
}

static const struct task_step cut_steps[] = {
    [CUT_CHECK] = {"check", cut_check,
	TO(CUT_ANSWER) | TO(CUT_SETTLED) | TO(CUT_NOTED) | TO(CUT_DONE)},
    [CUT_ANSWER] = {"answer", cut_answer, TO(CUT_CHECK)},
    [CUT_SETTLED] = {"settled", cut_settled, TO(CUT_CHECK)},
    [CUT_NOTED] = {"noted", cut_noted, TO(CUT_CHECK)},
    [CUT_DONE] = {"done", cut_done, TO(CUT_SENT)},
    [CUT_SENT] = {"sent", cut_sent, 0},
};
static const struct task_kind cut_kind = {"truncate", cut_steps, ARRAY_LEN(cut_steps), cut_fini};

void write_truncate(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
    struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct session *s;
	struct op_cut *oc;
	int err = 0;

	if (fs->staging == NULL)
		err = -EROFS;
	else if (attr->st_size < 0)
		err = -EINVAL;
	else if (fi != NULL)
		err = session_for_writing(fs, fi->fh, &s);
	if (err != 0) {
		fuse_reply_err(req, op_errno(err));
		return;
	}
	oc = op_new(fs, req, sizeof(*oc));
	if (oc == NULL)
		return;
	oc->node = ino;
	oc->handle = fi != NULL;
	oc->attr = *attr;
	oc->to_set = to_set;
	oc->pid = session_process(fuse_req_ctx(req)->pid);
	op_run(&oc->op, &cut_kind);
}
