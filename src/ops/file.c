/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/units.h"
#include "ops/handle.h"
#include "ops/op.h"
#include "ops/requests.h"
#include "ops/session.h"

/* --- READ */

/* What the kernel asks for. */
struct wanted {
	struct handle *h; /* used, while it is waited for */
	uint64_t off, len;
	uint64_t begun; /* loop time */
	bool direct; /* O_DIRECT */
};

/*
 * What the kernel reads into its page cache, and could not, it asks for a second time, a
 * page for each caller, before it tells them.  After an error for which they have waited
 * long they get it then, rather than wait once more.
 */
#define FAILED_FOR (100 * NS_PER_MS)

static void failed_note(struct fs *fs, const struct wanted *w, int err)
{
	uint64_t now = loop_now(fs->env.loop), from = w->off, to = from + w->len;
	struct handle *h = w->h;

	if (err == -ESTALE || err == -ECANCELED || w->direct ||
	    now - w->begun < fs->env.cfg->ufs_timeout / 4)
		return;
	/* One read(2) can be several requests. */
	if (now < h->failed.until && from <= h->failed.to && to >= h->failed.from) {
		from = MIN(from, h->failed.from);
		to = MAX(to, h->failed.to);
	}
	h->failed.from = from;
	h->failed.to = to;
	h->failed.until = now + FAILED_FOR;
	h->failed.err = err;
}

static bool failed_just_now(struct fs *fs, const struct wanted *w)
{
	const struct handle *h = w->h;

	return !w->direct && w->off >= h->failed.from && w->off < h->failed.to &&
	       loop_now(fs->env.loop) < h->failed.until;
}

/* It is waited for from now on: *to is the operation's. */
static void wanted_begin(struct fs *fs, struct wanted *to, const struct wanted *w)
{
	*to = *w;
	to->begun = loop_now(fs->env.loop);
	handle_use(to->h);
}

/* --- READ of what the storage has */

struct op_read {
	struct op op;
	struct cache_read rd;
	struct wanted w;
	struct blob *blob; /* counted: the handle may get another */
	int result;
	bool got; /* rd holds buffers */
	struct held_req *again; /* to be read from elsewhere */
};

enum { RD_FETCH, RD_ANSWER };

static void rd_send(struct fs *fs, fuse_req_t req, struct cache_read *rd)
{
	if (fuse_chan_reply_data(fs->chan, req, rd->iov, (int)rd->niov) == 0)
		COUNT(fs->env.loop, FUSE_READ_BYTES, rd->got);
	cache_read_release(rd);
}

static void rd_done(struct cache_read *r, int err)
{
	struct op_read *rd = r->user;

	rd->result = err;
	rd->got = err == 0;
	task_resume(&rd->op.task);
}

static void rd_leave(struct task *t)
{
	struct op_read *rd = OP_OF(t, op_read);

	cache_read_abort(&rd->rd);
}

static enum task_next rd_fetch(struct task *t)
{
	struct op_read *rd = OP_OF(t, op_read);

	if (task_err(t) != 0)
		return op_fail(&rd->op, task_err(t));
	cache_read_start(&rd->rd);
	return task_wait(t, RD_ANSWER, rd_leave);
}

/* Has a change made here, a rename or an unlink, taken the object away meanwhile?  Then
 * the bytes are elsewhere now. */
static bool rd_moved(const struct op_read *rd)
{
	struct fs *fs = rd->op.fs;

	if (fs->db == NULL || rd->w.h->closed)
		return false;
	return session_of(fs, rd->w.h->node) != NULL ||
	       (handle_refresh(fs, rd->w.h) == 0 && rd->w.h->blob != rd->blob);
}

static enum task_next rd_answer(struct task *t)
{
	struct op_read *rd = OP_OF(t, op_read);
	struct fs *fs = rd->op.fs;
	int err = task_err(t);

	if (rd->got) {
		/* Cancelled or not: here are the bytes. */
		rd_send(fs, op_take(&rd->op), &rd->rd);
		return task_end(t);
	}
	if (err == 0)
		err = rd->result;
	if (err == -ECANCELED)
		rd->op.hold = true; /* the cache's disk now belongs to a successor */
	if (err == -ESTALE && task_err(t) == 0 && rd_moved(rd)) {
		rd->again = rd->op.raw;
		rd->op.raw = NULL;
		fuse_reply_none(op_take(&rd->op));
		return task_end(t);
	}
	if (err == -ESTALE && fs->db != NULL)
		node_expire(fs, rd->w.h->node);
	if (task_err(t) == 0)
		failed_note(fs, &rd->w, err);
	return op_fail(&rd->op, err);
}

static void rd_fini(struct task *t)
{
	struct op_read *rd = OP_OF(t, op_read);
	struct held_req *again = rd->again;
	struct fs *fs = rd->op.fs;

	cache_blob_put(&rd->blob);
	handle_unuse(fs, rd->w.h);
	op_free(&rd->op);
	if (again != NULL)
		fuse_chan_feed(fs->chan, again->raw, again->len);
	free(again);
}

static const struct task_step rd_steps[] = {
    [RD_FETCH] = {"fetch", rd_fetch, TO(RD_ANSWER)},
    [RD_ANSWER] = {"answer", rd_answer, 0},
};
static const struct task_kind rd_kind = {"read", rd_steps, ARRAY_LEN(rd_steps), rd_fini};

void file_spare_free(struct fs *fs)
{
	free(fs->spare_read);
	fs->spare_read = NULL;
}

/* A read that the cache answers at once costs no allocation: the struct that it
 * was tried with is kept for the next one. */
static struct op_read *spare_get(struct fs *fs)
{
	struct op_read *rd = fs->spare_read;

	if (rd == NULL)
		return calloc(1, sizeof(*rd));
	fs->spare_read = NULL;
	memset(rd, 0, sizeof(*rd));
	return rd;
}

static void spare_put(struct fs *fs, struct op_read *rd)
{
	free(fs->spare_read);
	fs->spare_read = rd;
}

static void read_blob(struct fs *fs, fuse_req_t req, const struct wanted *w)
{
	struct op_read *rd = spare_get(fs);
	struct handle *h = w->h;

	if (rd == NULL) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	rd->rd.blob = h->blob;
	rd->rd.stream = h->old == NULL ? &h->stream : NULL;
	rd->rd.off = w->off;
	rd->rd.len = w->len;
	rd->rd.done = rd_done;
	rd->rd.user = rd;
	if (cache_read_try(&rd->rd)) {
		rd_send(fs, req, &rd->rd);
		spare_put(fs, rd);
		return;
	}
	if (failed_just_now(fs, w) && cache_blob_lacks(h->blob, rd->rd.off, rd->rd.len)) {
		fuse_reply_err(req, op_errno(h->failed.err));
		spare_put(fs, rd);
		return;
	}
	if (op_prepare(&rd->op, fs, req) != 0) {
		spare_put(fs, rd);
		return;
	}
	rd->op.is_read = true;
	wanted_begin(fs, &rd->w, w);
	rd->blob = cache_blob_ref(h->blob);
	op_run(&rd->op, &rd_kind);
}

/* --- READ of what is being written */

struct op_sread {
	struct op op;
	struct session_io *io;
	struct wanted w;
	int result;
	bool again; /* a second time */
};

enum { SR_READ, SR_ANSWER };

static void sr_send(struct fs *fs, fuse_req_t req, struct session_io *io)
{
	if (fuse_chan_reply_data(fs->chan, req, &io->io.iov, io->io.got > 0 ? 1 : 0) == 0)
		COUNT(fs->env.loop, FUSE_READ_BYTES, io->io.got);
}

static void sr_done(struct session_io *io, int err)
{
	struct op_sread *sr = io->user;

	sr->result = err;
	task_resume(&sr->op.task);
}

static void sr_leave(struct task *t)
{
	session_io_end(&OP_OF(t, op_sread)->io);
}

static enum task_next sr_read(struct task *t)
{
	struct op_sread *sr = OP_OF(t, op_sread);

	if (task_err(t) != 0)
		return op_fail(&sr->op, task_err(t));
	session_io_start(sr->io, sr_done);
	return task_wait(t, SR_ANSWER, sr_leave);
}

static bool sr_again(struct op_sread *sr)
{
	struct session *s = sr->io->s;
	struct session_io *io;

	if (sr->op.fs->db == NULL || s->ended || session_rebase(s) != 0)
		return false;
	io = session_io_new(s, sr->io->io.off, sr->io->io.len);
	if (io == NULL)
		return false;
	session_io_end(&sr->io);
	io->user = sr;
	sr->io = io;
	sr->again = true;
	return true;
}

static enum task_next sr_answer(struct task *t)
{
	struct op_sread *sr = OP_OF(t, op_sread);

	/* A rename has moved what lies beneath. */
	if (task_err(t) == 0 && sr->result == -ESTALE && !sr->again && sr_again(sr))
		return task_goto(t, SR_READ);
	if (task_err(t) == 0 && sr->result != 0)
		failed_note(sr->op.fs, &sr->w, sr->result);
	if (task_fail(t, sr->result) != 0)
		return op_fail(&sr->op, task_err(t));
	sr_send(sr->op.fs, op_take(&sr->op), sr->io);
	return task_end(t);
}

static void sr_fini(struct task *t)
{
	struct op_sread *sr = OP_OF(t, op_sread);

	session_io_end(&sr->io);
	handle_unuse(sr->op.fs, sr->w.h);
	op_free(&sr->op);
}

static const struct task_step sr_steps[] = {
    [SR_READ] = {"read", sr_read, TO(SR_ANSWER)},
    [SR_ANSWER] = {"answer", sr_answer, TO(SR_READ)},
};
static const struct task_kind sr_kind = {"read", sr_steps, ARRAY_LEN(sr_steps), sr_fini};

static void read_staged(struct fs *fs, fuse_req_t req, struct session *s, const struct wanted *w)
{
	struct session_io *io = session_io_new(s, w->off, MIN(w->len, STAGED_IO_MAX));
	struct op_sread *sr;

	if (io == NULL) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	if (session_io_try(io)) {
		sr_send(fs, req, io);
		session_io_end(&io);
		return;
	}
	if (failed_just_now(fs, w) && staged_read_lacks(&io->io)) {
		fuse_reply_err(req, op_errno(w->h->failed.err));
		session_io_end(&io);
		return;
	}
	/* Not a data read as others are: what it fetches goes into the state database, so it
	 * does not go on in a hand-over. */
	sr = op_new(fs, req, sizeof(*sr));
	if (sr == NULL) {
		session_io_end(&io);
		return;
	}
	sr->io = io;
	io->user = sr;
	wanted_begin(fs, &sr->w, w);
	op_run(&sr->op, &sr_kind);
}

/* --- READ of either kind */

void file_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct wanted w = {
	    .off = (uint64_t)off,
	    .len = size,
	    .direct = (fi->flags & O_DIRECT) != 0,
	};
	struct fs *fs = fs_of(req);
	struct session *s = NULL;
	int err = handle_get(fs, fi->fh, UFS_FILE, &w.h);

	(void)ino;
	if (err == 0)
		s = session_of(fs, w.h->node);
	if (err == 0 && s == NULL)
		err = handle_refresh(fs, w.h);
	if (err != 0)
		fuse_reply_err(req, op_errno(err));
	else if (s != NULL)
		read_staged(fs, req, s, &w);
	else
		read_blob(fs, req, &w);
}

/* --- The rest */

/* The next data, or hole, at or after off; the end of the file counts as a hole. */
static uint64_t staged_seek(const struct staged *sf, uint64_t off, bool hole)
{
	uint64_t size = staged_size(sf), end;

	while (off < size) {
		if ((staged_map(sf, off, &end) == STAGED_HOLE) == hole)
			return off;
		off = end;
	}
	return size;
}

/* Objects have no holes; what is being written may have.  Answered here rather than with
 * ENOSYS, which the kernel would remember for as long as the mount lives. */
void file_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct session *s = NULL;
	struct handle *h;
	off_t size, to;
	int err = handle_get(fs, fi->fh, UFS_FILE, &h);

	(void)ino;
	if (err == 0)
		s = session_of(fs, h->node);
	if (err == 0 && s == NULL)
		err = handle_refresh(fs, h);
	if (err != 0) {
		fuse_reply_err(req, op_errno(err));
		return;
	}
	size = (off_t)(s != NULL ? staged_size(s->sf) : cache_blob_size(h->blob));
	if (whence != SEEK_DATA && whence != SEEK_HOLE) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	to = whence == SEEK_DATA ? off : size;
	if (s != NULL && off >= 0 && off < size)
		to = (off_t)staged_seek(s->sf, (uint64_t)off, whence == SEEK_HOLE);
	if (off < 0 || off >= size || (whence == SEEK_DATA && to >= size))
		fuse_reply_err(req, ENXIO);
	else
		fuse_reply_lseek(req, to);
}
