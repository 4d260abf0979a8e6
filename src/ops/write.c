/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * WRITE, FALLOCATE and truncation: a change of the staged file, then of the session, then
 * the answer.  What the pool has begun ends, and is answered, also in a hand-over; doing
 * it again has the same effect.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>

#include "base/fault.h"
#include "ops/attr.h"
#include "ops/handle.h"
#include "ops/ledger.h"
#include "ops/op.h"
#include "ops/requests.h"
#include "ops/session.h"

/* --- How much is on its way */

static void write_begun(struct fs *fs, size_t size)
{
	fs->write_bytes += size;
	if (fs->write_bytes <= fs->write_limit || fs->write_hold)
		return;
	fs->write_hold = true;
	fuse_chan_hold(fs->chan);
}

static void write_ended(struct fs *fs, size_t size)
{
	assert(fs->write_bytes >= size);
	fs->write_bytes -= size;
	if (!fs->write_hold || fs->write_bytes > fs->write_limit / 2)
		return;
	fs->write_hold = false;
	fuse_chan_unhold(fs->chan);
}

/* --- WRITE and FALLOCATE */

struct op_write {
	struct op op;
	struct session *s; /* used */
	struct staged_io io;
	void (*start)(struct staged_io *io);
	int result;
	size_t bytes; /* of data: WRITE */
};

enum { WR_START, WR_ANSWER };

static void wr_done(struct staged_io *io, int err)
{
	struct op_write *wr = io->user;

	wr->result = err;
	task_resume(&wr->op.task);
}

static enum task_next wr_start(struct task *t)
{
	struct op_write *wr = OP_OF(t, op_write);

	if (task_err(t) != 0)
		return op_fail(&wr->op, task_err(t));
	wr->start(&wr->io);
	return task_wait(t, WR_ANSWER, NULL);
}

static enum task_next wr_answer(struct task *t)
{
	struct op_write *wr = OP_OF(t, op_write);
	int err = wr->result;

	if (err == 0)
		err = FAULT("write.done");
	if (err == 0)
		err = session_wrote(wr->s, wr->io.off, wr->io.len);
	if (err != 0)
		return op_fail(&wr->op, task_err(t) != 0 ? task_err(t) : err);
	if (wr->bytes > 0)
		fuse_reply_write(op_take(&wr->op), wr->bytes);
	else
		fuse_reply_err(op_take(&wr->op), 0);
	return task_end(t);
}

static void wr_fini(struct task *t)
{
	struct op_write *wr = OP_OF(t, op_write);

	write_ended(wr->op.fs, wr->bytes);
	session_unuse(wr->s);
	op_free(&wr->op);
}

static const struct task_step wr_steps[] = {
    [WR_START] = {"start", wr_start, TO(WR_ANSWER)},
    [WR_ANSWER] = {"answer", wr_answer, 0},
};
static const struct task_kind wr_kind = {"write", wr_steps, ARRAY_LEN(wr_steps), wr_fini};

/* The session that a handle writes to. */
static int writing_session(struct fs *fs, uint64_t fh, struct session **s)
{
	struct handle *h;
	int err = handle_get(fs, fh, UFS_FILE, &h);

	if (err != 0)
		return err;
	if (!h->writes)
		return -EBADF;
	*s = session_of(fs, h->node);
	return *s != NULL ? 0 : -EIO;
}

static struct op_write *wr_new(struct fs *fs, fuse_req_t req, struct session *s,
    void (*start)(struct staged_io *io))
{
	struct op_write *wr = op_new(fs, req, sizeof(*wr));

	if (wr == NULL)
		return NULL;
	wr->s = s;
	session_use(s);
	wr->start = start;
	wr->io.sf = s->sf;
	wr->io.done = wr_done;
	wr->io.user = wr;
	return wr;
}

/* A request that comes again may have been done, and then is no longer at the end. */
static bool out_of_order(struct fs *fs, const struct session *s, off_t off)
{
	return !fs->env.cfg->random_access && (uint64_t)off != staged_size(s->sf) &&
	       !ledger_resent(fs) && !fuse_chan_feeding(fs->chan);
}

void write_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
    struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct op_write *wr;
	struct session *s;
	int err = writing_session(fs, fi->fh, &s);

	(void)ino, (void)buf;
	if (err == 0 && out_of_order(fs, s, off))
		err = -EOPNOTSUPP;
	if (err != 0) {
		fuse_reply_err(req, op_errno(err));
		return;
	}
	if (size == 0) {
		fuse_reply_write(req, 0);
		return;
	}
	wr = wr_new(fs, req, s, staged_write);
	if (wr == NULL)
		return;
	/* The data is the end of the request, of which there is a copy. */
	wr->io.off = (uint64_t)off;
	wr->io.len = size;
	wr->io.data = wr->op.raw->raw + wr->op.raw->len - size;
	wr->bytes = size;
	write_begun(fs, size);
	op_run(&wr->op, &wr_kind);
}

void write_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
    struct fuse_file_info *fi)
{
	bool keep = (mode & FALLOC_FL_KEEP_SIZE) != 0;
	int what = mode & ~FALLOC_FL_KEEP_SIZE;
	struct fs *fs = fs_of(req);
	struct op_write *wr;
	struct session *s;
	int err = writing_session(fs, fi->fh, &s);

	(void)ino;
	if (err == 0 && what != 0 && what != FALLOC_FL_ZERO_RANGE &&
	    !(what == FALLOC_FL_PUNCH_HOLE && keep))
		err = -EOPNOTSUPP;
	if (err == 0 && what != 0 && !fs->env.cfg->random_access)
		err = -EOPNOTSUPP;
	if (err != 0) {
		fuse_reply_err(req, op_errno(err));
		return;
	}
	wr = wr_new(fs, req, s, what == 0 ? staged_allocate : staged_zero);
	if (wr == NULL)
		return;
	wr->io.off = (uint64_t)off;
	wr->io.len = (uint64_t)len;
	wr->io.keep_size = keep;
	op_run(&wr->op, &wr_kind);
}

/* --- Truncation */

struct op_cut {
	struct op op;
	struct attr_get get;
	struct session_wait wait;
	struct session *s; /* used */
	struct staged_io io;
	int result;
	bool asked;
	bool mine;   /* the session is there for this request only */
	bool handle; /* ftruncate(2) */
	uint64_t node, changes;
	pid_t pid;
	struct stat attr;
	int to_set;
	char path[UFS_PATH_MAX + 1];
};

enum { CUT_CHECK, CUT_ANSWER, CUT_SETTLED, CUT_DONE, CUT_SENT };

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
	if (err != 0)
		return op_fail(&oc->op, err);
	return cut_alone(oc, &n);
}

static enum task_next cut_settled(struct task *t)
{
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

/* Of a session for this request alone nothing stays: the file is what it was. */
static void cut_undo(struct op_cut *oc)
{
	struct session *s = oc->s;

	if (!oc->mine || s->writers > 0 || s->ended)
		return;
	session_orphan(s);
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
	if (s->writers > 0 || s->state == SESSION_ORPHAN)
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
    [CUT_CHECK] = {"check", cut_check, TO(CUT_ANSWER) | TO(CUT_SETTLED) | TO(CUT_DONE)},
    [CUT_ANSWER] = {"answer", cut_answer, TO(CUT_CHECK)},
    [CUT_SETTLED] = {"settled", cut_settled, TO(CUT_CHECK)},
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
		err = writing_session(fs, fi->fh, &s);
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

/* --- FLUSH, FSYNC and RELEASE: a wait for an upload */

struct op_sync {
	struct op op;
	struct session_wait wait;
	struct session *s; /* used; NULL: the session may end before the wait does */
	int result;
};

enum { SY_WAIT, SY_ANSWER };

static void sy_cb(struct session_wait *w, int err)
{
	struct op_sync *sy = w->user;

	sy->result = err;
	task_resume(&sy->op.task);
}

static void sy_leave(struct task *t)
{
	session_wait_abort(&OP_OF(t, op_sync)->wait);
}

static enum task_next sy_wait(struct task *t)
{
	struct op_sync *sy = OP_OF(t, op_sync);

	if (task_err(t) != 0) {
		session_wait_abort(&sy->wait);
		return op_fail(&sy->op, task_err(t));
	}
	return task_wait(t, SY_ANSWER, sy_leave);
}

static enum task_next sy_answer(struct task *t)
{
	struct op_sync *sy = OP_OF(t, op_sync);

	if (task_fail(t, sy->result) != 0)
		return op_fail(&sy->op, task_err(t));
	fuse_reply_err(op_take(&sy->op), 0);
	return task_end(t);
}

static void sy_fini(struct task *t)
{
	struct op_sync *sy = OP_OF(t, op_sync);

	if (sy->s != NULL)
		session_unuse(sy->s);
	op_free(&sy->op);
}

static const struct task_step sy_steps[] = {
    [SY_WAIT] = {"wait", sy_wait, TO(SY_ANSWER)},
    [SY_ANSWER] = {"answer", sy_answer, 0},
};
static const struct task_kind sy_kind = {"sync", sy_steps, ARRAY_LEN(sy_steps), sy_fini};

static void sync_session(struct fs *fs, fuse_req_t req, struct session *s, bool force)
{
	struct op_sync *sy = op_new(fs, req, sizeof(*sy));

	if (sy == NULL)
		return;
	sy->s = s;
	session_use(s);
	sy->wait.user = sy;
	op_run(&sy->op, &sy_kind);
	session_upload(s, &sy->wait, force, sy_cb);
}

void write_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct session *s = NULL;
	struct handle *h;
	int err = handle_get(fs, fi->fh, UFS_FILE, &h);

	(void)ino;
	if (err == 0 && h->writes)
		s = session_of(fs, h->node);
	if (s != NULL && s->state == SESSION_OPEN && session_same_process(s, fuse_req_ctx(req)->pid)) {
		s->flushed = true;
		sync_session(fs, req, s, false);
		return;
	}
	fuse_reply_err(req, op_errno(err));
}

void write_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct session *s = NULL;
	struct handle *h;
	int err = handle_get(fs, fi->fh, UFS_FILE, &h);

	(void)ino;
	(void)datasync;
	if (err == 0)
		s = session_of(fs, h->node);
	if (s != NULL && s->state != SESSION_ORPHAN)
		sync_session(fs, req, s, true);
	else
		fuse_reply_err(req, op_errno(err));
}

/* The handle goes at once; the answer comes when the session has ended, so that an
 * unmount finds everything in the storage. */
static void release_writer(struct fs *fs, fuse_req_t req, struct session *s)
{
	struct op_sync *sy;

	(void)session_add_writer(s, -1);
	(void)FAULT("release");
	sy = op_new(fs, req, sizeof(*sy));
	if (sy == NULL)
		return;
	sy->wait.user = sy;
	op_run(&sy->op, &sy_kind);
	session_settle(s, &sy->wait, sy_cb);
}

void write_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct session *s = NULL;
	struct handle_info info;
	int err = handle_info(fs, fi->fh, &info);

	(void)ino;
	if (err == 0)
		err = handle_release(fs, fi->fh, UFS_FILE);
	if (err == 0) {
		s = session_of(fs, info.node);
		session_handle_gone(fs, info.node);
	}
	if (s != NULL && info.writes) {
		release_writer(fs, req, s);
		return;
	}
	/* Done by a daemon before us. */
	fuse_reply_err(req, err == -EBADF ? 0 : op_errno(err));
}
