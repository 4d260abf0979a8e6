/* SPDX-License-Identifier: BSD-2-Clause */
/* RENAME of a directory that has to be copied: waits for the job that does it. */
#include <errno.h>
#include <string.h>

#include "ops/rename_op.h"

static void rn_leave_job(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);

	dirmove_leave(&rn->job, !rn->op.hold);
}

static void rn_job_cb(struct move_wait *w, int err)
{
	rn_resume(w->user, err);
}

static enum task_next rn_wait_job(struct op_rename *rn, struct dirmove *m)
{
	rn->job.user = rn;
	dirmove_wait(m, &rn->job, rn_job_cb);
	return task_wait(&rn->op.task, RN_JOB_ENDED, rn_leave_job);
}

static enum task_next rn_begin_job(struct op_rename *rn)
{
	struct fs *fs = rn->op.fs;
	struct pathlock *lock = &rn->lock->lock;
	struct move_intent *in = calloc(1, sizeof(*in));
	struct dirmove *m;
	int err = -ENOMEM;

	if (in == NULL)
		return rn_fail(rn, err);
	/* The same again, if it was begun before but not as far as the store. */
	in->id = rn->note.aux[0] == STAGE_JOB ? rn->note.aux[1] : meta_intent_id();
	in->phase = MOVE_COPY;
	in->dst_was = rn->replaces;
	memcpy(in->src, rn->src, sizeof(in->src));
	memcpy(in->dst, rn->dst, sizeof(in->dst));
	err = fs->meta != NULL ? move_note_node(fs, in->id, rn->n.id) : -EOPNOTSUPP;
	if (err == 0)
		err = rn_note(rn, STAGE_JOB, in->id);
	if (err == 0)
		err = dirmove_new(fs, in, &lock, &m);
	if (err != 0) {
		(void)move_drop_notes(fs, in->id);
		free(in);
		return rn_fail(rn, err);
	}
	free(in);
	rn->lock = NULL;
	return rn_wait_job(rn, m);
}

static void rn_leave_intents(struct task *t)
{
	meta_abort(&OP_OF(t, op_rename)->intents.req);
}

static void rn_intents_cb(struct meta_req *r, int err)
{
	rn_resume(r->user, err);
}

/* A new one, or the one that was begun before. */
enum task_next rn_job(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);
	struct dirmove *m;

	if (task_err(t) != 0)
		return rn_fail(rn, task_err(t));
	if (!rn->again)
		return rn_begin_job(rn);
	m = dirmove_find(rn->op.fs, rn->note.aux[1]);
	if (m != NULL)
		return rn_wait_job(rn, m);
	rn->intents.req.user = rn;
	meta_intents(rn->op.fs->meta, &rn->intents, rn_intents_cb);
	return task_wait(t, RN_INTENTS, rn_leave_intents);
}

/* Is it where it was to go? */
static bool rn_moved(struct op_rename *rn)
{
	struct node n;

	return node_load(rn->op.fs, rn->note.node, &n) == 0 && n.parent == rn->newparent &&
	       strcmp(n.name, rn->newname) == 0;
}

enum task_next rn_intents(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);
	struct dirmove *m = dirmove_find(rn->op.fs, rn->note.aux[1]);
	struct move_intent *in = calloc(1, sizeof(*in));
	int err = rn_result(rn);
	bool found = false;
	size_t i;

	if (err == 0 && in == NULL)
		err = -ENOMEM;
	for (i = 0; err == 0 && m == NULL && !found && i < rn->intents.count; i++) {
		const struct meta_intent *it = &rn->intents.intents[i];

		found = it->id == rn->note.aux[1];
		if (found)
			err = move_decode(in, it->id, it->blob, it->len);
	}
	if (err == 0 && found)
		err = dirmove_resume(rn->op.fs, in, &m);
	free(in);
	meta_intents_free(&rn->intents);
	if (err != 0)
		return rn_fail(rn, err);
	if (m != NULL)
		return rn_wait_job(rn, m);
	(void)move_drop_notes(rn->op.fs, rn->note.aux[1]);
	if (rn_moved(rn))
		return rn_done(rn);
	/* It had not begun, or was undone: from the start. */
	rn->again = false;
	return task_goto(t, RN_LOCK);
}

enum task_next rn_job_ended(struct task *t)
{
	struct op_rename *rn = OP_OF(t, op_rename);
	struct session *s;

	if (rn_result(rn) != 0)
		return rn_fail(rn, task_err(t));
	s = rn->replaces ? session_of(rn->op.fs, rn->target.id) : NULL;
	if (s != NULL)
		(void)session_orphan(s);
	return rn_done(rn);
}
