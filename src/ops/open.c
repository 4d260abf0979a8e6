/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * OPEN.  For reading: a handle on the version that the storage has, or on what a write
 * session has; of a file that is not persisted the session is made from its record, or, if
 * another node has it, that one is asked whether it is to be had.  For writing: a session,
 * one a file; under a policy of the write cache a file that was closed is not written any
 * more.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/units.h"
#include "ops/attr.h"
#include "ops/handle.h"
#include "ops/ledger.h"
#include "ops/op.h"
#include "ops/policy.h"
#include "ops/requests.h"
#include "ops/session.h"

/* close(2) returns before its RELEASE is sent: an open right behind it waits so long. */
#define RELEASE_WAIT_NS NS_PER_S

struct op_open {
	struct op op;
	struct attr_get get;
	struct meta_content_get content;
	struct ufs_stat peer; /* what another node says of it */
	unsigned adopts;
	uint64_t changes; /* fs->changes when the storage was asked */
	struct session_wait wait;
	struct timer limit;
	struct staged_io cut;
	struct session *s; /* used, while it is cut */
	int result;
	bool writes, asked, expired, truncated;
	uint64_t node;
	pid_t pid;
	struct fuse_file_info fi;
	char path[UFS_PATH_MAX + 1];
	char id[UFS_VERSION_MAX]; /* of the content, for whom it is asked */
};

enum { OPN_CHECK, OPN_ANSWER, OPN_SETTLED, OPN_CUT, OPN_CONTENT, OPN_PEER };

#define ADOPT_TRIES 4

static bool for_writing(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0;
}

/* The node id has one content, or this mount's own changes of it, so the kernel's pages
 * of it stay right; and a handle for reading has nothing to flush. */
static void open_flags(struct fuse_file_info *fi, uint64_t fh, bool writes)
{
	fi->fh = fh;
	fi->keep_cache = 1;
	fi->noflush = !writes;
}

static int open_reading(
    struct fs *fs, const struct node *n, const char *path, struct fuse_file_info *fi)
{
	struct handle *h;
	int err = handle_open(fs, n, path, &h);

	if (err == 0)
		open_flags(fi, h->id, false);
	return err;
}

static int open_load(struct fs *fs, uint64_t ino, struct node *n, char *path)
{
	int err = node_load(fs, ino, n);

	if (err != 0)
		return err == -ENOENT ? -ESTALE : err;
	if (n->kind == UFS_DIR)
		return -EISDIR;
	if ((n->flags & NODE_REPLACED) != 0)
		return -ESTALE;
	return node_path(fs, ino, path);
}

/* --- For writing */

static int begin_session(struct op_open *oo, const struct node *n, struct session **s)
{
	bool trunc = (oo->fi.flags & O_TRUNC) != 0;
	int err = session_new(oo->op.fs, n, oo->path, !trunc, oo->pid, s);

	if (err == 0 && trunc)
		(*s)->fresh = true;
	return err;
}

/* One turn: session, handle and ledger together. */
static int open_make_writing(struct op_open *oo, const struct node *n, struct session *was)
{
	struct fs *fs = oo->op.fs;
	struct ledger_result res = {.node = oo->node};
	struct session *s = was;
	enum session_state state = was != NULL ? was->state : SESSION_OPEN;
	struct handle *h = NULL;
	int err = 0;

	if (s == NULL)
		err = begin_session(oo, n, &s);
	if (err != 0)
		return err;
	s->opener = oo->pid;
	err = session_add_writer(s, 1);
	if (err == 0)
		err = handle_open_writing(fs, n, oo->path, &h);
	if (err == 0) {
		res.fh = h->id;
		err = ledger_done(fs, oo->op.unique, &res);
	}
	if (err == 0) {
		(void)FAULT("open.made");
		open_flags(&oo->fi, h->id, true);
		return 0;
	}
	if (h != NULL)
		(void)handle_release(fs, h->id, UFS_FILE);
	ledger_drop(fs, oo->op.unique);
	if (was == NULL) {
		session_end(s);
		return err;
	}
	s->writers--;
	s->state = state;
	(void)session_store(s);
	return err;
}

static int random_access(const struct op_open *oo, const struct node *n, const struct session *s)
{
	uint64_t size = s != NULL ? staged_size(s->sf) : n->size;

	if (oo->op.fs->env.cfg->random_access || size == 0 || (oo->fi.flags & O_TRUNC) != 0)
		return 0;
	return -EOPNOTSUPP;
}

/* --- Waits */

static void opn_settled_cb(struct session_wait *w, int err)
{
	struct op_open *oo = w->user;

	(void)err;
	timer_cancel(&oo->limit);
	task_resume(&oo->op.task);
}

static void opn_leave_wait(struct task *t)
{
	struct op_open *oo = OP_OF(t, op_open);

	timer_cancel(&oo->limit);
	session_wait_abort(&oo->wait);
}

static void opn_expired(struct timer *t)
{
	struct op_open *oo = container_of(t, struct op_open, limit);
	struct session *s = session_of(oo->op.fs, oo->node);

	if (s != NULL && s->state == SESSION_CLOSING)
		return; /* released by now: its end is waited for */
	oo->expired = true;
	session_wait_abort(&oo->wait);
	task_resume(&oo->op.task);
}

static enum task_next wait_for(struct op_open *oo, struct session *s)
{
	oo->wait.user = oo;
	if (s->state == SESSION_OPEN) {
		session_await(s, &oo->wait, opn_settled_cb);
		if (!timer_armed(&oo->limit))
			timer_arm(&oo->limit, RELEASE_WAIT_NS);
	} else {
		session_settle(s, &oo->wait, opn_settled_cb);
	}
	return task_wait(&oo->op.task, OPN_SETTLED, opn_leave_wait);
}

static void opn_cut_cb(struct staged_io *io, int err)
{
	struct op_open *oo = io->user;

	oo->result = err;
	task_resume(&oo->op.task);
}

static enum task_next cut(struct op_open *oo, struct session *s)
{
	oo->s = s;
	session_use(s);
	oo->cut = (struct staged_io){.sf = s->sf, .done = opn_cut_cb, .user = oo};
	staged_truncate(&oo->cut);
	return task_wait(&oo->op.task, OPN_CUT, NULL);
}

static enum task_next opn_was_cut(struct task *t)
{
	struct op_open *oo = OP_OF(t, op_open);
	int err = oo->result;

	if (err == 0)
		err = session_wrote(oo->s, 0, UINT64_MAX);
	session_unuse(oo->s);
	oo->s = NULL;
	oo->truncated = true;
	if (task_fail(t, err) != 0)
		return op_fail(&oo->op, task_err(t));
	return task_goto(t, OPN_CHECK);
}

static enum task_next opn_settled(struct task *t)
{
	struct op_open *oo = OP_OF(t, op_open);

	if (task_err(t) != 0)
		return op_fail(&oo->op, task_err(t));
	return task_goto(t, OPN_CHECK);
}

/* --- The storage is asked */

static void opn_get_cb(struct attr_get *g, int err)
{
	struct op_open *oo = g->user;

	oo->result = err;
	task_resume(&oo->op.task);
}

static void opn_leave_get(struct task *t)
{
	attr_get_abort(&OP_OF(t, op_open)->get);
}

static enum task_next ask(struct op_open *oo)
{
	oo->changes = oo->op.fs->changes;
	oo->get.path = oo->path;
	oo->get.known = !oo->writes;
	oo->get.user = oo;
	attr_get_start(oo->op.fs, &oo->get, opn_get_cb);
	return task_wait(&oo->op.task, OPN_ANSWER, opn_leave_get);
}

static enum task_next opn_answer(struct task *t)
{
	struct op_open *oo = OP_OF(t, op_open);
	struct fs *fs = oo->op.fs;
	struct node n;
	int err = task_err(t);
	bool gone = oo->result == -ENOENT, stands = false;

	if (err == 0) {
		err = node_load(fs, oo->node, &n);
		err = err == -ENOENT ? -ESTALE : err;
	}
	if (err == 0 && oo->result != 0 && !gone) {
		stands = attr_stands(&oo->get, &n);
		err = stands ? 0 : oo->result;
	}
	if (err != 0)
		return op_fail(&oo->op, err);
	/* Changed here meanwhile, or opened for writing: the answer may be of before that. */
	if (session_of(fs, oo->node) != NULL ||
	    fs_touched_since(fs, n.parent, n.name, oo->changes))
		return task_goto(t, OPN_CHECK);
	/* ESTALE for another version: the kernel looks the name up again by itself. */
	if (!stands)
		err = node_refresh(fs, &n, gone ? NULL : &oo->get.attr);
	if (err != 0)
		return op_fail(&oo->op, err);
	oo->asked = true;
	return task_goto(t, OPN_CHECK);
}

/* --- The end */

static enum task_next answer(struct op_open *oo, int err)
{
	if (err != 0)
		return op_fail(&oo->op, err);
	fuse_reply_open(op_take(&oo->op), &oo->fi);
	return task_end(&oo->op.task);
}

/* --- Not persisted: the session is made from the record */

static void opn_content_cb(struct meta_req *r, int err)
{
	struct op_open *oo = r->user;

	oo->result = err;
	task_resume(&oo->op.task);
}

static void opn_leave_content(struct task *t)
{
	meta_abort(&OP_OF(t, op_open)->content.req);
}

static enum task_next get_content(struct op_open *oo, const struct node *n)
{
	oo->content.id = session_version_content(n->version);
	oo->content.req.user = oo;
	meta_content_get(oo->op.fs->meta, &oo->content, opn_content_cb);
	return task_wait(&oo->op.task, OPN_CONTENT, opn_leave_content);
}

/* The session, and with it open the handle: one turn. */
static int adopt(struct op_open *oo, const struct node *n)
{
	const struct meta_content_get *c = &oo->content;
	struct fs *fs = oo->op.fs;
	struct session *s;
	int err = session_adopt(fs, n, &c->rec, c->blob, c->len, &s);

	if (err != 0)
		return err;
	session_use(s);
	err = open_reading(fs, n, oo->path, &oo->fi);
	session_unuse(s);
	return err;
}

/* Persisted, written on or deleted just now: the node is about to be told, or is stale. */
static enum task_next ask_again(struct op_open *oo)
{
	if (++oo->adopts > ADOPT_TRIES)
		return op_fail(&oo->op, -ESTALE);
	return ask(oo);
}

static void opn_peer_cb(struct ufs_req *rq, int err)
{
	struct op_open *oo = rq->user;

	oo->result = err;
	task_resume(&oo->op.task);
}

static void opn_leave_peer(struct task *t)
{
	ufs_abort(&OP_OF(t, op_open)->peer.req);
}

static enum task_next ask_peer(struct op_open *oo, const struct node *n)
{
	struct fs *fs = oo->op.fs;

	oo->peer.path = oo->id;
	snprintf(oo->id, sizeof(oo->id), "%s", n->version + 1);
	oo->peer.req.user = oo;
	ufs_stat(fs->peers, &oo->peer, opn_peer_cb);
	return task_wait(&oo->op.task, OPN_PEER, opn_leave_peer);
}

/* Closed there: neither bytes nor size will change. */
static enum task_next opn_peer(struct task *t)
{
	struct op_open *oo = OP_OF(t, op_open);
	struct fs *fs = oo->op.fs;
	struct node n;
	int err = task_err(t);

	if (err == 0)
		err = open_load(fs, oo->node, &n, oo->path);
	if (err != 0)
		return op_fail(&oo->op, err);
	if (session_of(fs, oo->node) != NULL ||
	    session_version_content(n.version) != oo->content.id)
		return task_goto(t, OPN_CHECK);
	if (oo->result == -ENOENT || oo->result == -ESTALE ||
	    (oo->result == 0 && oo->peer.attr.size != n.size))
		return ask_again(oo);
	if (oo->result != 0)
		return op_fail(&oo->op,
		    oo->result == -EBUSY || oo->result == -ENOMEM ? oo->result : -EIO);
	/* What the kernel was told of its size may be of before it was closed. */
	node_tell_kernel(fs, n.id);
	return answer(oo, open_reading(fs, &n, oo->path, &oo->fi));
}

static bool is_elsewhere(const struct fs *fs, const struct meta_record *rec)
{
	return fs->peers != NULL && !meta_is_here(fs->meta, &rec->content);
}

static enum task_next opn_content(struct task *t)
{
	struct op_open *oo = OP_OF(t, op_open);
	struct fs *fs = oo->op.fs;
	struct node n;
	int err = task_err(t);

	if (err == 0 && oo->result != 0 && oo->result != -ENOENT)
		err = oo->result == -ENOMEM ? -ENOMEM : -EIO;
	if (err == 0)
		err = open_load(fs, oo->node, &n, oo->path);
	if (err != 0)
		return op_fail(&oo->op, err);
	/* Opened by somebody else meanwhile, or of another version. */
	if (session_of(fs, oo->node) != NULL ||
	    session_version_content(n.version) != oo->content.id)
		return task_goto(t, OPN_CHECK);
	if (oo->result != 0 || !attr_unpersisted(&oo->content.rec) ||
	    strcmp(oo->content.path, oo->path) != 0)
		return ask_again(oo);
	return is_elsewhere(fs, &oo->content.rec) ? ask_peer(oo, &n) : answer(oo, adopt(oo, &n));
}

/* --- The decision */

/* Under a policy what was closed is closed. */
static bool written_once(struct fs *fs, const struct node *n, const char *path,
    const struct session *s)
{
	return (s != NULL && s->policy != META_POLICY_NO_CACHE) ||
	       session_version_content(n->version) != 0 ||
	       policy_of(fs, path) != META_POLICY_NO_CACHE;
}

static enum task_next check_writing(struct op_open *oo, const struct node *n, struct session *s)
{
	struct fs *fs = oo->op.fs;
	bool trunc = (oo->fi.flags & O_TRUNC) != 0;
	int err;

	if (s == NULL && !oo->asked && !node_fresh(fs, n))
		return ask(oo);
	if (s != NULL && s->writers > 0 && (!s->flushed || oo->expired))
		return answer(oo, -EBUSY);
	if (s != NULL && s->writers > 0)
		return wait_for(oo, s);
	if (written_once(fs, n, oo->path, s))
		return answer(oo, -EACCES);
	if (s != NULL && s->state == SESSION_CLOSING)
		return wait_for(oo, s);
	err = random_access(oo, n, s);
	if (err != 0)
		return answer(oo, err);
	/* Left behind by an upload that failed, or by a truncate(2): it goes on. */
	if (s != NULL && trunc && !oo->truncated && staged_size(s->sf) > 0)
		return cut(oo, s);
	return answer(oo, open_make_writing(oo, n, s));
}

static enum task_next opn_check(struct task *t)
{
	struct op_open *oo = OP_OF(t, op_open);
	struct fs *fs = oo->op.fs;
	struct session *s;
	struct node n;
	int err = task_err(t);

	if (err == 0)
		err = open_load(fs, oo->node, &n, oo->path);
	if (err != 0)
		return op_fail(&oo->op, err);
	s = session_of(fs, oo->node);
	if (oo->writes)
		return check_writing(oo, &n, s);
	if (s == NULL && !oo->asked && !node_fresh(fs, &n))
		return ask(oo);
	if (s == NULL && session_version_content(n.version) != 0)
		return get_content(oo, &n);
	return answer(oo, open_reading(fs, &n, oo->path, &oo->fi));
}

static void opn_fini(struct task *t)
{
	struct op_open *oo = OP_OF(t, op_open);

	timer_cancel(&oo->limit);
	meta_content_free(&oo->content);
	op_free(&oo->op);
}

static const struct task_step opn_steps[] = {
    [OPN_CHECK] = {"check", opn_check,
	TO(OPN_ANSWER) | TO(OPN_SETTLED) | TO(OPN_CUT) | TO(OPN_CONTENT)},
    [OPN_ANSWER] = {"answer", opn_answer, TO(OPN_CHECK)},
    [OPN_SETTLED] = {"settled", opn_settled, TO(OPN_CHECK)},
    [OPN_CUT] = {"cut", opn_was_cut, TO(OPN_CHECK)},
    [OPN_CONTENT] = {"content", opn_content, TO(OPN_CHECK) | TO(OPN_ANSWER) | TO(OPN_PEER)},
    [OPN_PEER] = {"peer", opn_peer, TO(OPN_CHECK) | TO(OPN_ANSWER)},
};
static const struct task_kind opn_kind = {"open", opn_steps, ARRAY_LEN(opn_steps), opn_fini};

/* True: it was answered. */
static bool open_at_once(struct fs *fs, fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	char path[UFS_PATH_MAX + 1];
	struct ledger_result res;
	struct node n;
	int err;

	if (for_writing(fi->flags)) {
		if (fs->staging == NULL) {
			fuse_reply_err(req, EROFS);
			return true;
		}
		/* Done, but the answer did not reach the kernel. */
		if (ledger_seen(fs, ledger_unique(fs), &res) != LEDGER_DONE)
			return false;
		open_flags(fi, res.fh, true);
		ledger_drop(fs, ledger_unique(fs));
		fuse_reply_open(req, fi);
		return true;
	}
	err = open_load(fs, ino, &n, path);
	if (err == 0 && session_of(fs, ino) == NULL &&
	    (!node_fresh(fs, &n) || session_version_content(n.version) != 0))
		return false;
	if (err == 0)
		err = open_reading(fs, &n, path, fi);
	if (err == 0)
		fuse_reply_open(req, fi);
	else
		fuse_reply_err(req, op_errno(err));
	return true;
}

void open_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct op_open *oo;

	if (open_at_once(fs, req, ino, fi))
		return;
	oo = op_new(fs, req, sizeof(*oo));
	if (oo == NULL)
		return;
	oo->op.opening = true;
	oo->node = ino;
	oo->fi = *fi;
	oo->writes = for_writing(fi->flags);
	oo->pid = oo->writes ? session_process(fuse_req_ctx(req)->pid) : 0;
	timer_init(&oo->limit, fs->env.loop, opn_expired);
	op_run(&oo->op, &opn_kind);
}
