/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * WRITE and FALLOCATE: a change of the staged file, then of the session, then the
 * answer.  What the pool has begun ends, and is answered, also in a hand-over; doing
 * it again has the same effect.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>

#include "base/fault.h"
#include "base/units.h"
#include "ops/handle.h"
#include "ops/ledger.h"
#include "ops/op.h"
#include "ops/requests.h"
#include "ops/session.h"

#define LATE_PERIOD_NS (50 * NS_PER_MS)

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
	struct session_wait wait;
	bool begun;
	struct staged_io io;
	void (*start)(struct staged_io *io);
	int result;
	size_t bytes; /* of data: WRITE */
};

enum { WR_START, WR_NOTED, WR_ANSWER };

static void wr_done(struct staged_io *io, int err)
{
	struct op_write *wr = io->user;

	wr->result = err;
	task_resume(&wr->op.task);
}

static void wr_noted_cb(struct session_wait *w, int err)
{
	struct op_write *wr = w->user;

	wr->result = err;
	task_resume(&wr->op.task);
}

static void wr_leave_note(struct task *t)
{
	session_wait_abort(&OP_OF(t, op_write)->wait);
}

static enum task_next wr_start(struct task *t)
{
	struct op_write *wr = OP_OF(t, op_write);

	if (task_err(t) != 0)
		return op_fail(&wr->op, task_err(t));
	if (session_must_note(wr->s, wr->io.off)) {
		wr->wait.user = wr;
		session_note(wr->s, &wr->wait, wr_noted_cb);
		return task_wait(t, WR_NOTED, wr_leave_note);
	}
	wr->begun = true;
	session_rewriter(wr->s, 1);
	wr->start(&wr->io);
	return task_wait(t, WR_ANSWER, NULL);
}

/* By a note that has been taken back meanwhile, perhaps. */
static enum task_next wr_noted(struct task *t)
{
	struct op_write *wr = OP_OF(t, op_write);

	if (task_fail(t, wr->result) != 0)
		return op_fail(&wr->op, task_err(t));
	return task_goto(t, WR_START);
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
	if (wr->begun)
		session_rewriter(wr->s, -1);
	session_unuse(wr->s);
	op_free(&wr->op);
}

static const struct task_step wr_steps[] = {
    [WR_START] = {"start", wr_start, TO(WR_NOTED) | TO(WR_ANSWER)},
    [WR_NOTED] = {"noted", wr_noted, TO(WR_START)},
    [WR_ANSWER] = {"answer", wr_answer, 0},
};
static const struct task_kind wr_kind = {"write", wr_steps, ARRAY_LEN(wr_steps), wr_fini};

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
	int err = session_for_writing(fs, fi->fh, &s);

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
	int err = session_for_writing(fs, fi->fh, &s);

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

/* --- FLUSH, FSYNC and RELEASE: a wait for an upload, or until what was written is safe */

struct op_sync {
	struct op op;
	struct session_wait wait;
	struct session *s; /* used; NULL: the session may end before the wait does */
	bool through;	   /* once it is safe it is to be uploaded, too */
	bool uploads;	   /* which is being done */
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

	/* It is kept, and tried again: whatever the storage said, close(2) says that it is not
	 * there. */
	if (sy->uploads && sy->result != 0)
		sy->result = -EIO;
	if (task_fail(t, sy->result) != 0)
		return op_fail(&sy->op, task_err(t));
	if (sy->through) {
		sy->through = false;
		sy->uploads = true;
		session_upload(sy->s, &sy->wait, true, sy_cb);
		return task_wait(t, SY_ANSWER, sy_leave);
	}
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
    [SY_ANSWER] = {"answer", sy_answer, TO(SY_ANSWER)},
};
static const struct task_kind sy_kind = {"sync", sy_steps, ARRAY_LEN(sy_steps), sy_fini};

/* FLUSH: close(2) of the process that opened it. */
static void sync_session(struct fs *fs, fuse_req_t req, struct session *s, bool flush)
{
	struct op_sync *sy = op_new(fs, req, sizeof(*sy));

	if (sy == NULL)
		return;
	sy->s = s;
	session_use(s);
	sy->wait.user = sy;
	op_run(&sy->op, &sy_kind);
	if (s->policy == META_POLICY_NO_CACHE) {
		session_upload(s, &sy->wait, !flush, sy_cb);
		return;
	}
	sy->through = flush && s->policy == META_POLICY_WRITE_THROUGH;
	s->through = s->through || sy->through;
	session_secure(s, &sy->wait, sy_cb);
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
	if (s != NULL && s->state == SESSION_OPEN &&
	    session_same_process(s, fuse_req_ctx(req)->pid)) {
		s->flushed = true;
		sync_session(fs, req, s, true);
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
		sync_session(fs, req, s, false);
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

/* The row goes.  *s: the session that has lost its writer, or NULL. */
static int release_handle(struct fs *fs, uint64_t fh, struct session **s)
{
	struct handle_info info;
	int err = handle_info(fs, fh, &info);

	*s = NULL;
	if (err == 0)
		err = handle_release(fs, fh, UFS_FILE);
	if (err == 0) {
		session_handle_gone(fs, info.node);
		*s = info.writes ? session_of(fs, info.node) : NULL;
	}
	return err == -EBADF ? 0 : err; /* done by a daemon before us */
}

/* RELEASE comes once: a file that nobody has open any more must not count as open for
 * writing because the database failed at this moment. */
struct op_late {
	struct op op;
	struct timer again;
	uint64_t fh;
};

enum { LATE_WAIT, LATE_TRY };

static void late_fired(struct timer *t)
{
	task_resume(&container_of(t, struct op_late, again)->op.task);
}

static void late_leave(struct task *t)
{
	timer_cancel(&OP_OF(t, op_late)->again);
}

static enum task_next late_wait(struct task *t)
{
	struct op_late *la = OP_OF(t, op_late);

	if (task_err(t) != 0)
		return op_fail(&la->op, task_err(t));
	timer_arm(&la->again, LATE_PERIOD_NS);
	return task_wait(t, LATE_TRY, late_leave);
}

static enum task_next late_try(struct task *t)
{
	struct op_late *la = OP_OF(t, op_late);
	struct session *s;
	int err = task_err(t);

	if (err != 0)
		return op_fail(&la->op, err);
	if (release_handle(la->op.fs, la->fh, &s) != 0)
		return task_goto(t, LATE_WAIT);
	if (s != NULL)
		(void)session_add_writer(s, -1);
	fuse_reply_err(op_take(&la->op), 0);
	return task_end(t);
}

static void late_fini(struct task *t)
{
	struct op_late *la = OP_OF(t, op_late);

	timer_cancel(&la->again);
	op_free(&la->op);
}

static const struct task_step late_steps[] = {
    [LATE_WAIT] = {"wait", late_wait, TO(LATE_TRY)},
    [LATE_TRY] = {"try", late_try, TO(LATE_WAIT)},
};
static const struct task_kind late_kind = {
    "release", late_steps, ARRAY_LEN(late_steps), late_fini};

static void release_later(struct fs *fs, fuse_req_t req, uint64_t fh)
{
	struct op_late *la = op_new(fs, req, sizeof(*la));

	if (la == NULL)
		return;
	la->fh = fh;
	timer_init(&la->again, fs->env.loop, late_fired);
	op_run(&la->op, &late_kind);
}

void write_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct session *s;

	(void)ino;
	if (release_handle(fs, fi->fh, &s) != 0)
		release_later(fs, req, fi->fh);
	else if (s != NULL)
		release_writer(fs, req, s);
	else
		fuse_reply_err(req, 0);
}
