/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One file of the queue is persisted: a task.
 *
 *	walk	the directories on the way get nodes, as a LOOKUP of each would make them
 *	lock	the path, so that nobody removes the file meanwhile
 *	read	the record, as it is now, and the bytes that lie in it
 *	adopt	the session of its node; the lock is given back, the upload takes it again
 *	sent	the session's upload has ended, and has said so in the record
 *	noted	what went wrong before there was an upload is in the record
 *	rest	a moment's pause after what could not be noted, or may not have been
 *
 * The nodes are held while it runs and go afterwards if nobody else knows them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/units.h"
#include "ops/persist_priv.h"

#define REST_NS (250 * NS_PER_MS)

enum {
	PF_WALK,
	PF_ASKED,
	PF_LOCK,
	PF_READ,
	PF_GOT,
	PF_ADOPT,
	PF_SENT,
	PF_NOTE,
	PF_NOTED,
	PF_REST,
	PF_OVER
};

static struct persist_file *file_of(struct task *t)
{
	struct persist_file *f = container_of(t, struct persist_file, task);

	CHECK_OBJ(f, PERSIST_FILE_MAGIC);
	return f;
}

static void result(struct persist_file *f, int err)
{
	f->result = err;
	task_resume(&f->task);
}

static void meta_done(struct meta_req *r, int err)
{
	result(r->user, err);
}

/* --- The end */

/* Is it of no use to the record: a passing state of this process? */
static bool passing(int err)
{
	return err == -ENOMEM || err == -ESTALE || err == -ECANCELED;
}

static enum task_next fail(struct persist_file *f, int err)
{
	task_fail(&f->task, err);
	return task_goto(&f->task, PF_REST);
}

/* Of the file, not of us: it is to be in the record. */
static enum task_next failed(struct persist_file *f, int err)
{
	if (passing(err))
		return fail(f, err);
	f->failure = err;
	return task_goto(&f->task, f->lock.held ? PF_NOTE : PF_LOCK);
}

static void rested(struct timer *t)
{
	task_resume(&container_of(t, struct persist_file, rest)->task);
}

static void yielded(struct deferred *d)
{
	task_resume(&container_of(d, struct persist_file, run)->task);
}

static void leave_rest(struct task *t)
{
	struct persist_file *f = file_of(t);

	timer_cancel(&f->rest);
	loop_undefer(t->loop, &f->run);
}

/* What the session does when its last user has left comes before the end. */
static enum task_next rest(struct task *t)
{
	struct persist_file *f = file_of(t);

	pathlock_end(&f->lock);
	if (f->s != NULL)
		session_unuse(f->s);
	f->s = NULL;
	if (task_err(t) != 0 && task_err(t) != -ECANCELED)
		persist_file_failed(f, task_err(t));
	if (task_err(t) != 0 && task_err(t) != -ECANCELED && !f->p->held)
		timer_arm(&f->rest, REST_NS);
	else
		loop_defer(t->loop, &f->run, yielded);
	return task_wait(t, PF_OVER, leave_rest);
}

static enum task_next over(struct task *t)
{
	return task_end(t);
}

/* --- The way */

static int hold(struct persist_file *f, uint64_t id)
{
	unsigned cap = f->held_cap == 0 ? 8 : f->held_cap * 2;
	uint64_t *p;
	int err;

	if (f->nheld == f->held_cap) {
		p = reallocarray(f->held, cap, sizeof(*p));
		if (p == NULL)
			return -ENOMEM;
		f->held = p;
		f->held_cap = cap;
	}
	err = node_hold(f->p->fs, id);
	if (err == 0)
		f->held[f->nheld++] = id;
	return err;
}

/* The next name of the way; its length, 0 if it is the file's own. */
static size_t next_name(const struct persist_file *f, char name[UFS_NAME_MAX + 1])
{
	size_t len = strcspn(f->rest_path, "/");

	memcpy(name, f->rest_path, MIN(len, (size_t)UFS_NAME_MAX));
	name[MIN(len, (size_t)UFS_NAME_MAX)] = '\0';
	return f->rest_path[len] == '/' ? len : 0;
}

static int enter(struct persist_file *f, const struct node *n, size_t len)
{
	int err = hold(f, n->id);

	if (err != 0)
		return err;
	f->parent = n->id;
	f->rest_path += len + 1;
	return 0;
}

static void asked_cb(struct attr_get *g, int err)
{
	result(g->user, err);
}

static void leave_ask(struct task *t)
{
	attr_get_abort(&file_of(t)->attr);
}

static enum task_next walk(struct task *t)
{
	struct persist_file *f = file_of(t);
	struct fs *fs = f->p->fs;
	char name[UFS_NAME_MAX + 1];
	struct node n;
	size_t len;
	int err = task_err(t);

	while (err == 0 && (len = next_name(f, name)) > 0) {
		err = node_find(fs, f->parent, name, &n);
		if (err == -ENOENT || (err == 0 && ((n.flags & NODE_REPLACED) != 0 ||
						       n.kind != UFS_DIR))) {
			free(f->dir);
			f->dir = strndup(f->path, (size_t)(f->rest_path - f->path) + len);
			if (f->dir == NULL)
				return fail(f, -ENOMEM);
			memset(&f->attr, 0, sizeof(f->attr));
			f->attr.path = f->dir;
			f->attr.user = f;
			attr_get_start(fs, &f->attr, asked_cb);
			return task_wait(t, PF_ASKED, leave_ask);
		}
		if (err == 0)
			err = enter(f, &n, len);
	}
	if (err != 0)
		return fail(f, err);
	return task_goto(t, PF_LOCK);
}

/* A directory that the storage has only for what lies in it is not there before that is. */
static enum task_next was_asked(struct task *t)
{
	struct persist_file *f = file_of(t);
	struct fs *fs = f->p->fs;
	struct ufs_attr attr = {.kind = UFS_DIR};
	char name[UFS_NAME_MAX + 1];
	struct node n;
	size_t len = next_name(f, name);
	int err;

	if (task_err(t) != 0)
		return fail(f, task_err(t));
	if (f->result != 0 && f->result != -ENOENT)
		return failed(f, f->result);
	if (f->result == 0)
		attr = f->attr.attr;
	if (attr.kind != UFS_DIR)
		return failed(f, -ENOTDIR);
	/* Somebody else may have looked it up meanwhile. */
	err = node_find(fs, f->parent, name, &n);
	if (err == -ENOENT ||
	    (err == 0 && ((n.flags & NODE_REPLACED) != 0 || n.kind != UFS_DIR))) {
		err = node_bind(fs, f->parent, name, f->dir, &attr, &n);
		if (err == 0)
			err = node_expire(fs, n.id);
	}
	if (err == 0)
		err = enter(f, &n, len);
	return err != 0 ? fail(f, err) : task_goto(t, PF_WALK);
}

/* --- The record */

static void locked(struct pathlock *l)
{
	struct persist_file *f = container_of(l, struct persist_file, lock);

	task_fail(&f->task, l->err);
	task_resume(&f->task);
}

static void leave_lock(struct task *t)
{
	pathlock_end(&file_of(t)->lock);
}

static enum task_next lock(struct task *t)
{
	struct persist_file *f = file_of(t);
	int err = task_err(t);

	if (err == 0)
		err = pathlock_add(&f->lock, f->path, false);
	if (err != 0)
		return fail(f, err);
	if (pathlock_try(&f->p->fs->locks, &f->lock, locked))
		return task_goto(t, PF_READ);
	return task_wait(t, PF_READ, leave_lock);
}

static void leave_get(struct task *t)
{
	meta_abort(&file_of(t)->get.req);
}

static enum task_next read_record(struct task *t)
{
	struct persist_file *f = file_of(t);

	if (task_err(t) != 0)
		return fail(f, task_err(t));
	f->get.id = f->content;
	f->get.req.user = f;
	meta_content_get(f->p->fs->meta, &f->get, meta_done);
	return task_wait(t, PF_GOT, leave_get);
}

static enum task_next got_record(struct task *t)
{
	struct persist_file *f = file_of(t);
	const struct meta_content *c = &f->get.rec.content;

	if (task_err(t) != 0)
		return fail(f, task_err(t));
	if (f->result != 0 && f->result != -ENOENT)
		return fail(f, f->result);
	/* Persisted or removed meanwhile, or it has failed for good. */
	if (f->result == -ENOENT || strcmp(f->get.path, f->path) != 0 ||
	    c->state != META_STATE_NOT_PERSISTED || !meta_is_here(f->p->fs->meta, c)) {
		f->gone = true;
		return task_goto(t, PF_REST);
	}
	return task_goto(t, f->failure != 0 ? PF_NOTE : PF_ADOPT);
}

/* --- The session */

/* What a LOOKUP would say of it. */
static void attr_of(const struct fs *fs, const struct meta_record *rec, struct ufs_attr *a)
{
	memset(a, 0, sizeof(*a));
	a->kind = UFS_FILE;
	a->size = rec->content.size;
	session_content_version(rec->content.id, a->version);
	attr_merge(fs, a, rec);
	a->mtime = rec->mtime;
}

static bool is_content(struct fs *fs, const struct node *n, uint64_t content)
{
	struct session *s = session_of(fs, n->id);

	if ((n->flags & NODE_REPLACED) != 0)
		return false;
	return session_version_content(n->version) == content ||
	       (s != NULL && s->policy != META_POLICY_NO_CACHE && s->content.id == content);
}

static int find_node(struct persist_file *f, struct node *n)
{
	struct fs *fs = f->p->fs;
	struct ufs_attr attr;
	int err = node_find(fs, f->parent, f->rest_path, n);

	if (err == 0 && is_content(fs, n, f->content))
		return hold(f, n->id);
	if (err != 0 && err != -ENOENT)
		return err;
	attr_of(fs, &f->get.rec, &attr);
	err = node_bind(fs, f->parent, f->rest_path, f->path, &attr, n);
	if (err == 0)
		err = node_expire(fs, n->id);
	return err == 0 ? hold(f, n->id) : err;
}

static void sent(struct session_wait *w, int err)
{
	result(container_of(w, struct persist_file, wait), err);
}

static void leave_sent(struct task *t)
{
	session_wait_abort(&file_of(t)->wait);
}

static enum task_next adopt(struct task *t)
{
	struct persist_file *f = file_of(t);
	struct fs *fs = f->p->fs;
	struct session *s;
	struct node n;
	int err = task_err(t);

	if (err == 0)
		err = find_node(f, &n);
	if (err != 0)
		return fail(f, err);
	s = session_of(fs, n.id);
	if (s != NULL && (s->writers > 0 || s->uploading != NULL || s->securing != NULL)) {
		f->open = true;
		return task_goto(t, PF_REST);
	}
	err = session_adopt(fs, &n, &f->get.rec, f->get.blob, f->get.len, &s);
	meta_content_free(&f->get);
	if (err != 0)
		return failed(f, err);
	f->s = s;
	session_use(s);
	pathlock_end(&f->lock);
	(void)FAULT("persist.adopted");
	session_upload(s, &f->wait, true, sent);
	return task_wait(t, PF_SENT, leave_sent);
}

static enum task_next was_sent(struct task *t)
{
	struct persist_file *f = file_of(t);

	if (task_err(t) != 0)
		return fail(f, task_err(t));
	return f->result != 0 ? fail(f, f->result) : task_goto(t, PF_REST);
}

/* --- What went wrong */

static void leave_txn(struct task *t)
{
	meta_abort(&file_of(t)->txn.req);
}

static enum task_next note(struct task *t)
{
	struct persist_file *f = file_of(t);
	struct fs *fs = f->p->fs;
	struct meta_content *c;

	if (task_err(t) != 0)
		return fail(f, task_err(t));
	f->change.verb = META_PUT;
	f->change.path = f->path;
	f->change.rec = f->get.rec;
	f->change.if_content = f->content;
	c = &f->change.rec.content;
	persist_moves(fs, c);
	c->error = f->failure;
	c->next_ns = loop_wall(fs->env.loop) + persist_backoff(fs, c->tries);
	c->tries++;
	f->txn.changes = &f->change;
	f->txn.n = 1;
	f->txn.req.user = f;
	meta_txn(fs->meta, &f->txn, meta_done);
	return task_wait(t, PF_NOTED, leave_txn);
}

static enum task_next noted(struct task *t)
{
	return fail(file_of(t), file_of(t)->failure);
}

/* --- Life */

static void fini(struct task *t)
{
	struct persist_file *f = file_of(t);
	struct fs *fs = f->p->fs;

	pathlock_end(&f->lock);
	if (f->s != NULL)
		session_unuse(f->s);
	f->s = NULL;
	/* In a hand-over the upload goes on elsewhere, and its path is theirs. */
	while (f->nheld > 0)
		node_unhold(fs, f->held[--f->nheld], f->p->held);
	fs->nwork--;
	persist_file_ended(f, task_err(t));
	fs_op_ended(fs);
}

static const struct task_step steps[] = {
    [PF_WALK] = {"walk", walk, TO(PF_ASKED) | TO(PF_LOCK) | TO(PF_REST)},
    [PF_ASKED] = {"asked", was_asked, TO(PF_WALK) | TO(PF_LOCK) | TO(PF_REST)},
    [PF_LOCK] = {"lock", lock, TO(PF_READ) | TO(PF_REST)},
    [PF_READ] = {"read", read_record, TO(PF_GOT) | TO(PF_REST)},
    [PF_GOT] = {"got", got_record, TO(PF_ADOPT) | TO(PF_NOTE) | TO(PF_REST)},
    [PF_ADOPT] = {"adopt", adopt, TO(PF_SENT) | TO(PF_NOTE) | TO(PF_REST)},
    [PF_SENT] = {"sent", was_sent, TO(PF_REST)},
    [PF_NOTE] = {"note", note, TO(PF_NOTED) | TO(PF_REST)},
    [PF_NOTED] = {"noted", noted, TO(PF_REST)},
    [PF_REST] = {"rest", rest, TO(PF_OVER)},
    [PF_OVER] = {"over", over, 0},
};
static const struct task_kind kind = {"persist", steps, ARRAY_LEN(steps), fini};

struct persist_file *persist_file_new(struct persist *p, const char *path, uint64_t content)
{
	size_t len = strlen(path);
	struct persist_file *f = calloc(1, sizeof(*f) + len + 1);

	if (f == NULL)
		return NULL;
	f->magic = PERSIST_FILE_MAGIC;
	f->p = p;
	f->content = content;
	memcpy(f->path, path, len + 1);
	TAILQ_INIT(&f->waits);
	timer_init(&f->rest, p->fs->env.loop, rested);
	return f;
}

void persist_file_free(struct persist_file **fp)
{
	struct persist_file *f;

	TAKE_OBJ(f, fp, PERSIST_FILE_MAGIC);
	assert(TAILQ_EMPTY(&f->waits) && f->s == NULL && f->nheld == 0);
	meta_content_free(&f->get);
	free(f->held);
	free(f->dir);
	FREE_OBJ(f);
}

const char *persist_below_root(const struct fs *fs, const char *path)
{
	size_t n = strlen(fs->root);

	if (n == 0)
		return path;
	return strncmp(path, fs->root, n) == 0 && path[n] == '/' ? path + n + 1 : NULL;
}

void persist_file_start(struct persist_file *f)
{
	struct fs *fs = f->p->fs;

	f->running = true;
	f->parent = NODE_ROOT;
	f->rest_path = persist_below_root(fs, f->path);
	fs->nwork++;
	task_start(&f->task, fs->env.loop, &kind);
}

void persist_file_stop(struct persist_file *f)
{
	task_cancel(&f->task, -ECANCELED);
	/* What has failed is not cancelled any more. */
	if (timer_armed(&f->rest)) {
		timer_cancel(&f->rest);
		task_resume(&f->task);
	}
}
