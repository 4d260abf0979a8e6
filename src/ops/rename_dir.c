/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The job that renames a directory by copying and deleting; rename.h tells of its
 * phases.  A failure that leaves no way on but to try again answers who waits, and goes
 * on alone: with the trees still locked, so that nothing is made that it would delete.
 */
#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "base/units.h"
#include "ops/rename.h"

#define AGAIN_MIN_NS (100 * NS_PER_MS)
#define AGAIN_MAX_NS (60 * NS_PER_S)

enum {
	MV_LOCK,
	MV_LOCKED,
	MV_NOTE,
	MV_NOTED,
	MV_COPY,
	MV_COPIED,
	MV_SWITCHED,
	MV_DOUBT,
	MV_DOUBTED,
	MV_MOVE,
	MV_MARKED,
	MV_DELETE,
	MV_DELETED,
	MV_UNDO,
	MV_UNDO_NOTED,
	MV_UNDOING,
	MV_UNDONE,
	MV_CLOSE,
	MV_CLOSED
};

static struct dirmove *move_of(struct task *t)
{
	struct dirmove *m = container_of(t, struct dirmove, task);

	CHECK_OBJ(m, MOVE_MAGIC);
	return m;
}

static void move_resume(struct dirmove *m, int err)
{
	m->result = err;
	task_resume(&m->task);
}

/* Answers who waits; the job may go on without. */
static void move_answer(struct dirmove *m, int err)
{
	struct move_wait *w = m->wait;

	if (w == NULL)
		return;
	m->wait = NULL;
	w->job = NULL;
	w->done(w, err);
}

/* --- Try again */

static void again_fired(struct timer *tm)
{
	move_resume(container_of(tm, struct dirmove, again), 0);
}

static void leave_again(struct task *t)
{
	timer_cancel(&move_of(t)->again);
}

/* err: what failed; answer: what the request is told of it all. */
static enum task_next move_again(struct dirmove *m, unsigned step, int err, int answer)
{
	uint64_t pause = AGAIN_MIN_NS << MIN(m->tries, 10u);

	if (m->tries++ == 0)
		log_warn("rename of /%s to /%s: %s: %s; it is tried again until it is done",
		    m->in.src, m->in.dst,
		    m->in.phase == MOVE_DELETE ? "the old name cannot be deleted" :
						 "what was copied cannot be deleted",
		    strerror(-err));
	move_answer(m, answer);
	timer_arm(&m->again, MIN(pause, AGAIN_MAX_NS));
	return task_wait(&m->task, step, leave_again);
}

/* --- Lock */

static void leave_lock(struct task *t)
{
	pathlock_end(move_of(t)->lock);
}

struct job_lock {
	struct pathlock lock;
	struct dirmove *m;
};

static void locked_cb(struct pathlock *l)
{
	task_resume(&container_of(l, struct job_lock, lock)->m->task);
}

static int lock_new(struct dirmove *m)
{
	struct job_lock *jl = calloc(1, sizeof(*jl));
	int err;

	if (jl == NULL)
		return -ENOMEM;
	jl->m = m;
	m->lock = &jl->lock;
	/* What was to be deleted there was so before the rename began. */
	m->lock->passes = true;
	err = pathlock_add(m->lock, m->in.src, true);
	return err == 0 ? pathlock_add(m->lock, m->in.dst, true) : err;
}

static enum task_next mv_lock(struct task *t)
{
	struct dirmove *m = move_of(t);

	if (m->locked)
		return task_goto(t, MV_LOCKED);
	return task_wait(t, MV_LOCKED, leave_lock);
}

static enum task_next mv_locked(struct task *t)
{
	struct dirmove *m = move_of(t);

	m->locked = true;
	if (task_err(t) != 0)
		return task_end(t);
	if (!m->resumed)
		return task_goto(t, MV_NOTE);
	log_info("rename of /%s to /%s: going on", m->in.src, m->in.dst);
	switch (m->in.phase) {
	case MOVE_COPY:
		return task_goto(t, MV_COPY);
	case MOVE_DELETE:
		return task_goto(t, MV_MOVE);
	case MOVE_UNDO:
		break;
	}
	m->err = -EIO;
	return task_goto(t, MV_UNDOING);
}

/* --- The store */

static void txn_cb(struct meta_req *r, int err)
{
	move_resume(r->user, err);
}

static void leave_txn(struct task *t)
{
	meta_abort(&move_of(t)->txn.req);
}

static enum task_next move_txn(struct dirmove *m, unsigned n, unsigned step)
{
	m->txn.changes = m->changes;
	m->txn.n = n;
	m->txn.req.user = m;
	meta_txn(m->fs->meta, &m->txn, txn_cb);
	return task_wait(&m->task, step, leave_txn);
}

static void put_intent(struct dirmove *m, struct meta_change *ch, enum move_phase phase)
{
	struct move_intent in = m->in;

	in.phase = phase;
	memset(ch, 0, sizeof(*ch));
	ch->verb = META_INTENT_PUT;
	ch->id = in.id;
	ch->blob = m->blob;
	ch->blob_len = move_encode(&in, m->blob);
}

static enum task_next mv_note(struct task *t)
{
	struct dirmove *m = move_of(t);

	if (task_err(t) != 0)
		return task_end(t);
	put_intent(m, &m->changes[0], MOVE_COPY);
	return move_txn(m, 1, MV_NOTED);
}

/* Nothing has been copied; but is the note in the store? */
static enum task_next mv_noted(struct task *t)
{
	struct dirmove *m = move_of(t);

	if (task_err(t) != 0)
		return task_end(t);
	(void)FAULT("rename.dir.noted");
	if (m->result == 0 && m->wanted)
		return task_goto(t, MV_COPY);
	m->err = m->result != 0 ? m->result : -EINTR;
	return task_goto(t, MV_CLOSE);
}

/* --- Copy */

static void walked_cb(struct dirmove *m, int err)
{
	move_resume(m, err);
}

static void leave_walk(struct task *t)
{
	move_walk_abort(move_of(t));
}

static enum task_next mv_copy(struct task *t)
{
	struct dirmove *m = move_of(t);

	if (task_err(t) != 0)
		return task_end(t);
	move_walk(m, walked_cb);
	return task_wait(t, MV_COPIED, leave_walk);
}

static enum task_next mv_copied(struct task *t)
{
	struct dirmove *m = move_of(t);

	if (task_err(t) != 0)
		return task_end(t);
	if (m->result != 0 || !m->wanted) {
		m->err = m->result != 0 ? m->result : -EINTR;
		return task_goto(t, MV_UNDO);
	}
	(void)FAULT("rename.dir.copied");
	memset(&m->changes[0], 0, sizeof(m->changes[0]));
	m->changes[0].verb = META_MOVE;
	m->changes[0].path = m->in.src;
	m->changes[0].to = m->in.dst;
	put_intent(m, &m->changes[1], MOVE_DELETE);
	return move_txn(m, 2, MV_SWITCHED);
}

static enum task_next mv_switched(struct task *t)
{
	struct dirmove *m = move_of(t);

	if (task_err(t) != 0)
		return task_end(t);
	if (m->result != 0) {
		m->err = m->result;
		return task_goto(t, MV_DOUBT);
	}
	(void)FAULT("rename.dir.switched");
	m->in.phase = MOVE_DELETE;
	return task_goto(t, MV_MOVE);
}

/* The store did not say whether it has the new phase.  What is undone in one phase must
 * not be found in the other. */
static void intents_cb(struct meta_req *r, int err)
{
	move_resume(r->user, err);
}

static void leave_intents(struct task *t)
{
	struct dirmove *m = move_of(t);

	meta_abort(&m->intents.req);
	meta_intents_free(&m->intents);
}

static enum task_next mv_doubt(struct task *t)
{
	struct dirmove *m = move_of(t);

	if (task_err(t) != 0)
		return task_end(t);
	memset(&m->intents, 0, sizeof(m->intents));
	m->intents.req.user = m;
	meta_intents(m->fs->meta, &m->intents, intents_cb);
	return task_wait(t, MV_DOUBTED, leave_intents);
}

static enum task_next mv_doubted(struct task *t)
{
	struct dirmove *m = move_of(t);
	struct move_intent in = {.phase = MOVE_COPY};
	size_t i;

	if (task_err(t) != 0)
		return task_end(t);
	if (m->result != 0)
		return move_again(m, MV_DOUBT, m->result, m->err);
	for (i = 0; i < m->intents.count; i++)
		if (m->intents.intents[i].id == m->in.id)
			(void)move_decode(&in, m->in.id, m->intents.intents[i].blob,
			    m->intents.intents[i].len);
	meta_intents_free(&m->intents);
	if (in.phase != MOVE_DELETE)
		return task_goto(t, MV_UNDO);
	m->err = 0;
	m->in.phase = MOVE_DELETE;
	return task_goto(t, MV_MOVE);
}

/* --- The nodes, and the directory that loses one */

static void mark_cb(struct dir_mark *dm, int err)
{
	move_resume(dm->user, err);
}

static void leave_mark(struct task *t)
{
	dir_mark_abort(&move_of(t)->mark);
}

static enum task_next mv_move(struct task *t)
{
	struct dirmove *m = move_of(t);
	struct node up;
	int err = task_err(t) != 0 ? 0 : move_nodes(m);

	if (task_err(t) != 0)
		return task_end(t);
	/* Before the first deletion: who resumes must not find nodes under a name that
	 * is half gone. */
	if (err == 0)
		err = statedb_commit(m->fs->db);
	if (err != 0) {
		log_error("rename of /%s to /%s: state database: %s", m->in.src, m->in.dst,
		    strerror(-err));
		return move_again(m, MV_MOVE, err, err);
	}
	memset(&m->mark, 0, sizeof(m->mark));
	m->mark.child = m->in.src;
	m->mark.node = node_parent_by_path(m->fs, m->in.src, &up) == 0 ? up.id : 0;
	m->mark.user = m;
	dir_mark(m->fs, &m->mark, mark_cb);
	return task_wait(t, MV_MARKED, leave_mark);
}

static enum task_next mv_marked(struct task *t)
{
	struct dirmove *m = move_of(t);

	if (task_err(t) != 0)
		return task_end(t);
	if (m->result != 0)
		return move_again(m, MV_MOVE, m->result, 0);
	return task_goto(t, MV_DELETE);
}

/* --- Delete */

static enum task_next mv_delete(struct task *t)
{
	struct dirmove *m = move_of(t);

	if (task_err(t) != 0)
		return task_end(t);
	(void)FAULT("rename.dir.moved");
	move_walk(m, walked_cb);
	return task_wait(t, MV_DELETED, leave_walk);
}

static enum task_next mv_deleted(struct task *t)
{
	struct dirmove *m = move_of(t);

	if (task_err(t) != 0)
		return task_end(t);
	if (m->result != 0)
		return move_again(m, MV_DELETE, m->result, 0);
	(void)FAULT("rename.dir.deleted");
	return task_goto(t, MV_CLOSE);
}

/* --- Undo */

static enum task_next mv_undo(struct task *t)
{
	struct dirmove *m = move_of(t);

	if (task_err(t) != 0)
		return task_end(t);
	put_intent(m, &m->changes[0], MOVE_UNDO);
	return move_txn(m, 1, MV_UNDO_NOTED);
}

static enum task_next mv_undo_noted(struct task *t)
{
	struct dirmove *m = move_of(t);

	if (task_err(t) != 0)
		return task_end(t);
	if (m->result != 0)
		return move_again(m, MV_UNDO, m->result, m->err);
	m->in.phase = MOVE_UNDO;
	return task_goto(t, MV_UNDOING);
}

static enum task_next mv_undoing(struct task *t)
{
	struct dirmove *m = move_of(t);

	if (task_err(t) != 0)
		return task_end(t);
	move_walk(m, walked_cb);
	return task_wait(t, MV_UNDONE, leave_walk);
}

static enum task_next mv_undone(struct task *t)
{
	struct dirmove *m = move_of(t);

	if (task_err(t) != 0)
		return task_end(t);
	if (m->result != 0)
		return move_again(m, MV_UNDOING, m->result, m->err);
	return task_goto(t, MV_CLOSE);
}

/* --- The end */

static enum task_next mv_close(struct task *t)
{
	struct dirmove *m = move_of(t);

	if (task_err(t) != 0)
		return task_end(t);
	memset(&m->changes[0], 0, sizeof(m->changes[0]));
	m->changes[0].verb = META_INTENT_DEL;
	m->changes[0].id = m->in.id;
	return move_txn(m, 1, MV_CLOSED);
}

static enum task_next mv_closed(struct task *t)
{
	struct dirmove *m = move_of(t);

	if (task_err(t) != 0)
		return task_end(t);
	if (m->result != 0)
		return move_again(m, MV_CLOSE, m->result, m->err);
	(void)move_drop_notes(m->fs, m->in.id);
	if (m->tries > 0 || m->resumed)
		log_info("rename of /%s to /%s: %s", m->in.src, m->in.dst,
		    m->err == 0 ? "done" : "undone");
	move_answer(m, m->err);
	return task_end(t);
}

static void mv_fini(struct task *t)
{
	struct dirmove *m = move_of(t);
	struct fs *fs = m->fs;

	TAILQ_REMOVE(&fs->moves, m, link);
	/* Stopped: it goes on from the store. */
	move_answer(m, -ECANCELED);
	move_walk_abort(m);
	timer_cancel(&m->again);
	if (m->lock != NULL)
		pathlock_end(m->lock);
	free(m->lock);
	FREE_OBJ(m);
	fs->nwork--;
	fs_op_ended(fs);
}

static const struct task_step mv_steps[] = {
    [MV_LOCK] = {"lock", mv_lock, TO(MV_LOCKED)},
    [MV_LOCKED] = {"locked", mv_locked,
	TO(MV_NOTE) | TO(MV_COPY) | TO(MV_MOVE) | TO(MV_UNDOING)},
    [MV_NOTE] = {"note", mv_note, TO(MV_NOTED)},
    [MV_NOTED] = {"noted", mv_noted, TO(MV_COPY) | TO(MV_CLOSE)},
    [MV_COPY] = {"copy", mv_copy, TO(MV_COPIED)},
    [MV_COPIED] = {"copied", mv_copied, TO(MV_SWITCHED) | TO(MV_UNDO)},
    [MV_SWITCHED] = {"switched", mv_switched, TO(MV_MOVE) | TO(MV_DOUBT)},
    [MV_DOUBT] = {"doubt", mv_doubt, TO(MV_DOUBTED)},
    [MV_DOUBTED] = {"doubted", mv_doubted, TO(MV_DOUBT) | TO(MV_MOVE) | TO(MV_UNDO)},
    [MV_MOVE] = {"move", mv_move, TO(MV_MOVE) | TO(MV_MARKED)},
    [MV_MARKED] = {"marked", mv_marked, TO(MV_MOVE) | TO(MV_DELETE)},
    [MV_DELETE] = {"delete", mv_delete, TO(MV_DELETED)},
    [MV_DELETED] = {"deleted", mv_deleted, TO(MV_DELETE) | TO(MV_CLOSE)},
    [MV_UNDO] = {"undo", mv_undo, TO(MV_UNDO_NOTED)},
    [MV_UNDO_NOTED] = {"undo noted", mv_undo_noted, TO(MV_UNDO) | TO(MV_UNDOING)},
    [MV_UNDOING] = {"undoing", mv_undoing, TO(MV_UNDONE)},
    [MV_UNDONE] = {"undone", mv_undone, TO(MV_UNDOING) | TO(MV_CLOSE)},
    [MV_CLOSE] = {"close", mv_close, TO(MV_CLOSED)},
    [MV_CLOSED] = {"closed", mv_closed, TO(MV_CLOSE)},
};
static const struct task_kind mv_kind = {
    "rename directory", mv_steps, ARRAY_LEN(mv_steps), mv_fini};

/* --- Beginning */

static int move_alloc(struct fs *fs, const struct move_intent *in, struct dirmove **out)
{
	struct dirmove *m;
	struct ufs *other;

	*out = NULL;
	ALLOC_OBJ(m, MOVE_MAGIC);
	if (m == NULL)
		return -ENOMEM;
	m->fs = fs;
	m->in = *in;
	m->wanted = true;
	TAILQ_INIT(&m->slots);
	TAILQ_INIT(&m->batches);
	timer_init(&m->again, fs->env.loop, again_fired);
	fs_place(fs, m->in.src, &m->ufs, &m->src);
	fs_place(fs, m->in.dst, &other, &m->dst);
	if (m->ufs != other || *m->src == '\0' || *m->dst == '\0') {
		FREE_OBJ(m);
		return -EXDEV;
	}
	*out = m;
	return 0;
}

static void move_run(struct dirmove *m)
{
	TAILQ_INSERT_TAIL(&m->fs->moves, m, link);
	m->fs->nwork++;
	task_start(&m->task, m->fs->env.loop, &mv_kind);
}

int dirmove_new(struct fs *fs, const struct move_intent *in, struct pathlock **lock,
    struct dirmove **out)
{
	int err = move_alloc(fs, in, out);

	if (err != 0)
		return err;
	(*out)->lock = *lock;
	(*out)->locked = true;
	*lock = NULL;
	move_run(*out);
	return 0;
}

int dirmove_resume(struct fs *fs, const struct move_intent *in, struct dirmove **out)
{
	int err = move_alloc(fs, in, out);
	struct dirmove *m = *out;

	if (err != 0)
		return err;
	m->resumed = true;
	err = lock_new(m);
	if (err != 0) {
		if (m->lock != NULL)
			pathlock_end(m->lock);
		free(m->lock);
		FREE_OBJ(m);
		*out = NULL;
		return err;
	}
	m->locked = pathlock_try(&fs->locks, m->lock, locked_cb);
	move_run(m);
	return 0;
}

struct dirmove *dirmove_find(struct fs *fs, uint64_t id)
{
	struct dirmove *m;

	TAILQ_FOREACH(m, &fs->moves, link)
	if (m->in.id == id && !m->stop)
		return m;
	return NULL;
}

void dirmove_wait(
    struct dirmove *m, struct move_wait *w, void (*done)(struct move_wait *w, int err))
{
	CHECK_OBJ(m, MOVE_MAGIC);
	assert(m->wait == NULL);
	w->done = done;
	w->job = m;
	m->wait = w;
}

void dirmove_leave(struct move_wait *w, bool give_up)
{
	struct dirmove *m = w->job;

	if (m == NULL)
		return;
	CHECK_OBJ(m, MOVE_MAGIC);
	w->job = NULL;
	m->wait = NULL;
	if (!give_up)
		return;
	m->wanted = false;
	if (m->in.phase == MOVE_COPY)
		move_walk_give_up(m, -EINTR);
}

void dirmove_stop_all(struct fs *fs)
{
	struct dirmove *m;

	/* Cancelling only marks and defers. */
	TAILQ_FOREACH(m, &fs->moves, link)
	{
		m->stop = true;
		task_cancel(&m->task, -ECANCELED);
	}
}
