/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a person wants of a file that is not in the storage: another try now, or that it
 * is thrown away.
 *
 *	lock	its path
 *	get	the record
 *	earlier	retry: a try that runs has begun before this was asked for, and may end with
 *		what was wrong then: only if it goes well its end is the answer
 *	put	retry: it is NOT_PERSISTED and due; drop: it goes
 *	over	retry: waits for the end of the try; drop: node, session and staged file go
 */
#include <errno.h>
#include <string.h>

#include "base/units.h"
#include "ops/persist_priv.h"

#define ACT_MAGIC 0x9e551573u

struct act_task {
	struct task task;
	uint32_t magic;
	TAILQ_ENTRY(act_task) link; /* persist.acts */
	struct fs *fs;
	struct persist_act *user; /* NULL: given up */
	bool drop;
	bool looked; /* for an earlier try */
	int result;
	struct pathlock lock;
	struct meta_get get;
	struct meta_change change;
	struct meta_txn txn;
	struct persist_wait wait;
	char path[UFS_PATH_MAX + 1];
};

enum { ACT_LOCK, ACT_GET, ACT_GOT, ACT_EARLIER, ACT_PUT, ACT_DROPPED, ACT_TRY, ACT_TRIED };

static struct act_task *act_of(struct task *t)
{
	struct act_task *a = container_of(t, struct act_task, task);

	CHECK_OBJ(a, ACT_MAGIC);
	return a;
}

static void meta_done(struct meta_req *r, int err)
{
	struct act_task *a = r->user;

	a->result = err;
	task_resume(&a->task);
}

static enum task_next end(struct act_task *a, int err)
{
	task_fail(&a->task, err);
	return task_end(&a->task);
}

static void locked(struct pathlock *l)
{
	struct act_task *a = container_of(l, struct act_task, lock);

	task_fail(&a->task, l->err);
	task_resume(&a->task);
}

static void leave_lock(struct task *t)
{
	pathlock_end(&act_of(t)->lock);
}

static enum task_next act_lock(struct task *t)
{
	struct act_task *a = act_of(t);
	int err = task_err(t);

	if (err == 0)
		err = pathlock_add(&a->lock, a->path, false);
	if (err != 0)
		return end(a, err);
	if (pathlock_try(&a->fs->locks, &a->lock, locked))
		return task_goto(t, ACT_GET);
	return task_wait(t, ACT_GET, leave_lock);
}

static void leave_get(struct task *t)
{
	meta_abort(&act_of(t)->get.req);
}

static enum task_next act_get(struct task *t)
{
	struct act_task *a = act_of(t);

	if (task_err(t) != 0)
		return end(a, task_err(t));
	a->get.path = a->path;
	a->get.req.user = a;
	meta_get(a->fs->meta, &a->get, meta_done);
	return task_wait(t, ACT_GOT, leave_get);
}

static void tried(struct persist_wait *w, int err)
{
	struct act_task *a = container_of(w, struct act_task, wait);

	a->result = err;
	task_resume(&a->task);
}

static void leave_try(struct task *t)
{
	persist_wait_abort(&act_of(t)->wait);
}

static enum task_next act_got(struct task *t)
{
	struct act_task *a = act_of(t);
	const struct meta_record *rec = &a->get.rec;

	if (task_fail(t, a->result) != 0)
		return end(a, task_err(t));
	if ((rec->has & META_HAS_CONTENT) == 0 || rec->content.state == META_STATE_PERSISTED)
		return end(a, -ENOENT);
	if (!meta_is_here(a->fs->meta, &rec->content))
		return end(a, -EREMOTE);
	if (rec->content.state == META_STATE_TRANSIENT)
		return end(a, -EINVAL);
	if (a->drop && rec->content.state != META_STATE_FAILED)
		return end(a, -EBUSY);
	if (a->drop || a->looked)
		return task_goto(t, ACT_PUT);
	/* A try that begins from now on is as good as this one's. */
	a->looked = true;
	a->wait.done = tried;
	if (!persist_wait_running(a->fs, rec->content.id, &a->wait))
		return task_goto(t, ACT_PUT);
	pathlock_end(&a->lock);
	return task_wait(t, ACT_EARLIER, leave_try);
}

static enum task_next act_earlier(struct task *t)
{
	struct act_task *a = act_of(t);

	if (task_err(t) != 0 || a->result == 0)
		return task_end(t);
	return task_goto(t, ACT_LOCK);
}

static void leave_txn(struct task *t)
{
	meta_abort(&act_of(t)->txn.req);
}

static enum task_next act_put(struct task *t)
{
	struct act_task *a = act_of(t);
	struct meta_content *c = &a->change.rec.content;

	a->change.path = a->path;
	a->change.rec = a->get.rec;
	a->change.if_content = c->id;
	a->change.verb = a->drop ? META_DEL : META_PUT;
	persist_moves(a->fs, c);
	c->state = META_STATE_NOT_PERSISTED;
	c->next_ns = loop_wall(a->fs->env.loop);
	a->txn.changes = &a->change;
	a->txn.n = 1;
	a->txn.req.user = a;
	meta_txn(a->fs->meta, &a->txn, meta_done);
	return task_wait(t, a->drop ? ACT_DROPPED : ACT_TRY, leave_txn);
}

/* --- drop */

/* The node that the path has, if there is one. */
static int find_node(struct fs *fs, const char *path, struct node *n)
{
	size_t root = strlen(fs->root), len;
	char name[UFS_NAME_MAX + 1];
	uint64_t id = NODE_ROOT;
	int err = -ENOENT;

	path += root + (root > 0 && path[root] == '/');
	for (; *path != '\0'; path += len + (path[len] == '/')) {
		len = strcspn(path, "/");
		if (len == 0 || len > UFS_NAME_MAX)
			return -ENOENT;
		memcpy(name, path, len);
		name[len] = '\0';
		err = node_find(fs, id, name, n);
		if (err != 0)
			return err;
		id = n->id;
	}
	return err;
}

static enum task_next act_dropped(struct task *t)
{
	struct act_task *a = act_of(t);
	const struct meta_content *c = &a->get.rec.content;
	struct session *s = NULL;
	struct node n;
	bool node;
	int err = 0;

	if (task_fail(t, a->result) != 0)
		return end(a, task_err(t));
	log_warn("/%s: %llu bytes that could not be stored (%s) are dropped on request", a->path,
	    (unsigned long long)c->size, strerror(-c->error));
	persist_recount(a->fs);
	node = find_node(a->fs, a->path, &n) == 0 && (n.flags & NODE_REPLACED) == 0;
	if (node)
		s = session_of(a->fs, n.id);
	if (s != NULL && s->content.id == c->id)
		return end(a, session_drop(s));
	if (node && session_version_content(n.version) == c->id) {
		err = node_drop_name(a->fs, n.id);
		node_tell_kernel(a->fs, n.id);
	}
	staging_discard(a->fs->staging, c->id);
	return end(a, err);
}

/* --- retry */

static enum task_next act_try(struct task *t)
{
	struct act_task *a = act_of(t);

	if (task_fail(t, a->result) != 0)
		return end(a, task_err(t));
	pathlock_end(&a->lock);
	a->wait.done = tried;
	if (task_fail(t, persist_now(a->fs, a->path, &a->change.rec.content, &a->wait)) != 0)
		return end(a, task_err(t));
	return task_wait(t, ACT_TRIED, leave_try);
}

static enum task_next act_tried(struct task *t)
{
	return end(act_of(t), act_of(t)->result);
}

static void fini(struct task *t)
{
	struct act_task *a = act_of(t);
	struct fs *fs = a->fs;

	pathlock_end(&a->lock);
	TAILQ_REMOVE(&fs->persist->acts, a, link);
	if (a->user != NULL) {
		a->user->task = NULL;
		a->user->done(a->user, task_err(t));
	}
	FREE_OBJ(a);
	persist_kick(fs);
	fs->nwork--;
	fs_op_ended(fs);
}

static const struct task_step steps[] = {
    [ACT_LOCK] = {"lock", act_lock, TO(ACT_GET)},
    [ACT_GET] = {"get", act_get, TO(ACT_GOT)},
    [ACT_GOT] = {"got", act_got, TO(ACT_EARLIER) | TO(ACT_PUT)},
    [ACT_EARLIER] = {"earlier", act_earlier, TO(ACT_LOCK)},
    [ACT_PUT] = {"put", act_put, TO(ACT_DROPPED) | TO(ACT_TRY)},
    [ACT_DROPPED] = {"dropped", act_dropped, 0},
    [ACT_TRY] = {"try", act_try, TO(ACT_TRIED)},
    [ACT_TRIED] = {"tried", act_tried, 0},
};
static const struct task_kind kind = {"persist act", steps, ARRAY_LEN(steps), fini};

int persist_act(struct fs *fs, const char *path, bool drop, struct persist_act *user,
    void (*done)(struct persist_act *a, int err))
{
	struct act_task *a;

	if (fs->persist == NULL || fs->persist->held || fs->db == NULL)
		return -ECANCELED;
	if (strlen(path) > UFS_PATH_MAX)
		return -ENAMETOOLONG;
	ALLOC_OBJ(a, ACT_MAGIC);
	if (a == NULL)
		return -ENOMEM;
	a->fs = fs;
	a->drop = drop;
	memcpy(a->path, path, strlen(path) + 1);
	a->user = user;
	user->done = done;
	user->task = a;
	TAILQ_INSERT_TAIL(&fs->persist->acts, a, link);
	fs->nwork++;
	task_start(&a->task, fs->env.loop, &kind);
	return 0;
}

void persist_act_abort(struct persist_act *user)
{
	if (user->task == NULL)
		return;
	user->task->user = NULL;
	task_cancel(&user->task->task, -ECANCELED);
	user->task = NULL;
}

void persist_act_stop(struct persist *p)
{
	struct act_task *a;

	TAILQ_FOREACH(a, &p->acts, link)
	task_cancel(&a->task, -ECANCELED);
}
