/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Names and attributes.  What the state database knows and is young enough is
 * answered at once, without a task, and so is what is being written here; else the
 * storage is asked.  What it says is not believed if the name was changed here
 * meanwhile: then it is looked at again.  A request sent
 * again after a crash counts a lookup twice: the node then stays known for longer
 * than needed, which is harmless.
 */
#include <errno.h>
#include <string.h>

#include "cache/staged.h"
#include "ops/attr.h"
#include "ops/node.h"
#include "ops/op.h"
#include "ops/policy.h"
#include "ops/requests.h"
#include "ops/session.h"

static void lookup_reply(struct fs *fs, fuse_req_t req, const struct node *n)
{
	struct fuse_entry_param e;

	node_count(fs, n);
	node_entry(fs, n, &e);
	if (fuse_reply_entry(req, &e) != 0)
		(void)node_forget(fs, n->id, 1); /* not taken: the caller is gone */
}

static void negative_reply(struct fs *fs, fuse_req_t req)
{
	struct fuse_entry_param e = {.entry_timeout = fs->env.mo->negative_timeout};

	if (e.entry_timeout > 0)
		fuse_reply_entry(req, &e);
	else
		fuse_reply_err(req, ENOENT);
}

static int attr_reply(struct fs *fs, fuse_req_t req, const struct node *n)
{
	struct stat st;

	node_stat(fs, n, &st);
	return fuse_reply_attr(req, &st, node_ttl(fs, n));
}

/* --- LOOKUP and GETATTR: one question to the storage each. */
struct op_stat {
	struct op op;
	struct attr_get get;
	int result;
	uint64_t node;  /* parent, or the node itself */
	bool handle;    /* GETATTR through an open handle */
	uint64_t asked; /* fs->changes when the storage was asked */
	uint64_t parent;
	char path[UFS_PATH_MAX + 1];
	char name[UFS_NAME_MAX + 1];
};

enum { ST_ASK, ST_ANSWER };

static void st_done(struct attr_get *g, int err)
{
	struct op_stat *os = g->user;

	os->result = err;
	task_resume(&os->op.task);
}

static void st_leave(struct task *t)
{
	attr_get_abort(&OP_OF(t, op_stat)->get);
}

static enum task_next st_ask(struct task *t, int err)
{
	struct op_stat *os = OP_OF(t, op_stat);

	if (task_fail(t, err) != 0)
		return op_fail(&os->op, task_err(t));
	os->asked = os->op.fs->changes;
	os->get.path = os->path;
	os->get.known = true;
	os->get.user = os;
	attr_get_start(os->op.fs, &os->get, st_done);
	return task_wait(t, ST_ANSWER, st_leave);
}

static bool st_outdated(struct op_stat *os)
{
	return task_err(&os->op.task) == 0 &&
	       fs_touched_since(os->op.fs, os->parent, os->name, os->asked);
}

static void st_fini(struct task *t)
{
	op_free(&OP_OF(t, op_stat)->op);
}

/* Can the name be answered at once?  1: from n; 0: no; or negative errno. */
static int lookup_known(struct fs *fs, uint64_t parent, const char *name, struct node *n)
{
	struct session *s;
	int err = node_find(fs, parent, name, n);

	if (err != 0)
		return err == -ENOENT ? 0 : err;
	if ((n->flags & NODE_REPLACED) != 0)
		return 0;
	s = session_of(fs, n->id);
	if (s != NULL)
		session_overlay(s, n);
	if (s != NULL)
		return 1;
	if ((n->flags & NODE_LOCAL) != 0)
		return fs->sessions_missing ? -EIO : 0;
	return node_fresh(fs, n);
}

static enum task_next lk_ask(struct task *t)
{
	struct op_stat *os = OP_OF(t, op_stat);
	struct fs *fs = os->op.fs;
	struct node n;
	int known = 0;

	/* Not the first time: a change made here may be what there is to say. */
	if (os->asked != 0 && task_err(t) == 0)
		known = lookup_known(fs, os->node, os->name, &n);
	if (known == 1) {
		lookup_reply(fs, op_take(&os->op), &n);
		return task_end(t);
	}
	if (known < 0)
		return op_fail(&os->op, known);
	return st_ask(t, node_child_path(fs, os->node, os->name, os->path));
}

static enum task_next lk_answer(struct task *t)
{
	struct op_stat *os = OP_OF(t, op_stat);
	struct fs *fs = os->op.fs;
	struct node n;
	int err = task_err(t), known;

	if (st_outdated(os))
		return task_goto(t, ST_ASK);
	if (err == 0) {
		/* Opened for writing meanwhile? */
		known = fs->sessions != NULL ? lookup_known(fs, os->node, os->name, &n) : 0;
		if (known == 1 && session_of(fs, n.id) != NULL) {
			lookup_reply(fs, op_take(&os->op), &n);
			return task_end(t);
		}
	}
	if (err == 0 && os->result != 0 && node_find(fs, os->node, os->name, &n) == 0 &&
	    attr_stands(&os->get, &n)) {
		lookup_reply(fs, op_take(&os->op), &n);
		return task_end(t);
	}
	if (err == 0 && os->result == -ENOENT) {
		err = node_unbind(fs, os->node, os->name);
		if (err == 0) {
			if (os->get.meta_err == -ENOENT)
				fs_absent_note(fs, os->node, os->name, os->asked);
			negative_reply(fs, op_take(&os->op));
			return task_end(t);
		}
	} else if (err == 0) {
		err = os->result;
	}
	if (err == 0)
		err = node_bind(fs, os->node, os->name, os->path, &os->get.attr, &n);
	if (err != 0)
		return op_fail(&os->op, err);
	lookup_reply(fs, op_take(&os->op), &n);
	return task_end(t);
}

static const struct task_step lk_steps[] = {
    [ST_ASK] = {"ask", lk_ask, TO(ST_ANSWER)},
    [ST_ANSWER] = {"answer", lk_answer, TO(ST_ASK)},
};
static const struct task_kind lk_kind = {"lookup", lk_steps, ARRAY_LEN(lk_steps), st_fini};

void lookup_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fs_of(req);
	struct op_stat *os;
	struct node n;
	int known;

	if (strlen(name) > UFS_NAME_MAX) {
		fuse_reply_err(req, ENAMETOOLONG);
		return;
	}
	known = lookup_known(fs, parent, name, &n);
	if (known == 1) {
		lookup_reply(fs, req, &n);
		return;
	}
	if (known < 0) {
		fuse_reply_err(req, op_errno(known));
		return;
	}
	if (fs_dir_new(fs, parent) && node_find(fs, parent, name, &n) == -ENOENT) {
		fs_absent_note(fs, parent, name, fs->changes);
		negative_reply(fs, req);
		return;
	}
	os = op_new(fs, req, sizeof(*os));
	if (os == NULL)
		return;
	os->op.opening = true;
	os->node = os->parent = parent;
	memcpy(os->name, name, strlen(name) + 1);
	op_run(&os->op, &lk_kind);
}

/*
 * Can the node be answered at once?  A file that another version has replaced: who has
 * it open sees what it was (the kernel asks for fstat(2) without naming the handle); who
 * asks by name is told to look the name up again, which the kernel does by itself.
 */
static int getattr_known(struct fs *fs, uint64_t id, bool handle, struct node *n)
{
	bool frozen;
	struct session *s;
	int err = node_load(fs, id, n);

	if (err != 0)
		return err == -ENOENT ? -ESTALE : err;
	s = session_of(fs, id);
	if (s != NULL) {
		session_overlay(s, n);
		return 1;
	}
	frozen = (n->flags & (NODE_REPLACED | NODE_LOCAL)) != 0;
	if (frozen && !handle && n->opens == 0)
		return -ESTALE;
	return frozen || node_fresh(fs, n);
}

static enum task_next ga_ask(struct task *t)
{
	struct op_stat *os = OP_OF(t, op_stat);
	struct fs *fs = os->op.fs;
	struct node n;
	int known = getattr_known(fs, os->node, os->handle, &n);

	if (task_fail(t, known < 0 ? known : 0) != 0)
		return op_fail(&os->op, task_err(t));
	if (known == 1) {
		attr_reply(fs, op_take(&os->op), &n);
		return task_end(t);
	}
	os->parent = n.parent;
	memcpy(os->name, n.name, sizeof(os->name));
	return st_ask(t, node_path(fs, os->node, os->path));
}

static enum task_next ga_answer(struct task *t)
{
	struct op_stat *os = OP_OF(t, op_stat);
	struct fs *fs = os->op.fs;
	bool gone = os->result == -ENOENT && os->node != NODE_ROOT, stands = false;
	struct session *s;
	struct node n;
	int err = task_err(t);

	if (st_outdated(os))
		return task_goto(t, ST_ASK);
	if (err == 0) {
		err = node_load(fs, os->node, &n);
		err = err == -ENOENT ? -ESTALE : err;
	}
	if (err == 0 && os->result != 0 && !gone) {
		stands = attr_stands(&os->get, &n);
		err = stands ? 0 : os->result;
	}
	if (err != 0)
		return op_fail(&os->op, err);
	s = session_of(fs, os->node);
	if (s != NULL)
		session_overlay(s, &n);
	else if (!stands)
		err = node_refresh(fs, &n, gone ? NULL : &os->get.attr);
	if (err != 0 && (err != -ESTALE || (!os->handle && n.opens == 0)))
		return op_fail(&os->op, err);
	attr_reply(fs, op_take(&os->op), &n);
	return task_end(t);
}

static const struct task_step ga_steps[] = {
    [ST_ASK] = {"ask", ga_ask, TO(ST_ANSWER)},
    [ST_ANSWER] = {"answer", ga_answer, TO(ST_ASK)},
};
static const struct task_kind ga_kind = {"getattr", ga_steps, ARRAY_LEN(ga_steps), st_fini};

void lookup_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct op_stat *os;
	struct node n;
	int known = getattr_known(fs, ino, fi != NULL, &n);

	if (known == 1) {
		attr_reply(fs, req, &n);
		return;
	}
	if (known < 0) {
		fuse_reply_err(req, op_errno(known));
		return;
	}
	os = op_new(fs, req, sizeof(*os));
	if (os == NULL)
		return;
	os->op.opening = true;
	os->node = ino;
	os->handle = fi != NULL;
	op_run(&os->op, &ga_kind);
}

/* --- FORGET: the reply is that there is none. */

void lookup_forget_one(struct fs *fs, fuse_ino_t ino, uint64_t n)
{
	int err = node_forget(fs, ino, n);

	if (err != 0 && err != -ENOENT)
		log_warn("state database: forgetting node %llu: %s", (unsigned long long)ino,
		    strerror(-err));
}

void lookup_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	lookup_forget_one(fs_of(req), ino, n);
	fuse_reply_none(req);
}

void lookup_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct fs *fs = fs_of(req);
	size_t i;

	for (i = 0; i < count; i++) {
		lookup_forget_one(fs, forgets[i].ino, forgets[i].nlookup);
		/* One message may name 65,000 nodes: more than a transaction takes.
		 * An error shows at the next access. */
		if (i % FORGETS_A_COMMIT == FORGETS_A_COMMIT - 1)
			(void)statedb_commit(fs->db);
	}
	fuse_reply_none(req);
}

/* --- STATFS */
struct op_statfs {
	struct op op;
	struct ufs_statfs statfs;
	int result;
	uint64_t node;
	char path[UFS_PATH_MAX + 1];
};

enum { SF_ASK, SF_ANSWER };

static void sf_done(struct ufs_req *r, int err)
{
	struct op_statfs *sf = r->user;

	sf->result = err;
	task_resume(&sf->op.task);
}

static void sf_leave(struct task *t)
{
	ufs_abort(&OP_OF(t, op_statfs)->statfs.req);
}

static enum task_next sf_ask(struct task *t)
{
	struct op_statfs *sf = OP_OF(t, op_statfs);
	const char *sub;
	struct ufs *ufs;

	if (task_fail(t, node_path(sf->op.fs, sf->node, sf->path)) != 0)
		return op_fail(&sf->op, task_err(t));
	fs_place(sf->op.fs, sf->path, &ufs, &sub);
	sf->statfs.req.user = sf;
	ufs_statfs(ufs, &sf->statfs, sf_done);
	return task_wait(t, SF_ANSWER, sf_leave);
}

/* What is written under a policy fills the cache until it is persisted. */
static uint64_t room(const struct op_statfs *sf)
{
	const struct fs *fs = sf->op.fs;
	const struct config *cfg = fs->env.cfg;
	uint64_t limit = UINT64_MAX, used;
	struct staging_status st;

	if (policy_of(fs, sf->path) != META_POLICY_NO_CACHE) {
		staging_status(fs->staging, &st);
		used = st.durable + st.parked;
		limit = (uint64_t)(cfg->pinned_ratio * (double)cfg->page_store_size);
		limit = limit > used ? limit - used : 0;
	}
	return MIN(limit, sf->statfs.space.free);
}

static enum task_next sf_answer(struct task *t)
{
	struct op_statfs *sf = OP_OF(t, op_statfs);
	struct statvfs st = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = UFS_NAME_MAX};

	if (task_fail(t, sf->result) != 0)
		return op_fail(&sf->op, task_err(t));
	st.f_blocks = sf->statfs.space.total / st.f_frsize;
	st.f_bfree = sf->statfs.space.free / st.f_frsize;
	st.f_bavail = room(sf) / st.f_frsize;
	fuse_reply_statfs(op_take(&sf->op), &st);
	return task_end(t);
}

static void sf_fini(struct task *t)
{
	op_free(&OP_OF(t, op_statfs)->op);
}

static const struct task_step sf_steps[] = {
    [SF_ASK] = {"ask", sf_ask, TO(SF_ANSWER)},
    [SF_ANSWER] = {"answer", sf_answer, 0},
};
static const struct task_kind sf_kind = {"statfs", sf_steps, ARRAY_LEN(sf_steps), sf_fini};

void lookup_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct op_statfs *sf = op_new(fs_of(req), req, sizeof(*sf));

	if (sf == NULL)
		return;
	sf->node = ino;
	op_run(&sf->op, &sf_kind);
}
