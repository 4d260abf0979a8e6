/* SPDX-License-Identifier: BSD-2-Clause */
/* What the record of a durable file says. */
#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "ops/attr.h"
#include "ops/persist.h"
#include "ops/session_upload_op.h"

void session_record(const struct session *s, struct meta_record *rec)
{
	CHECK_OBJ(s, SESSION_MAGIC);
	*rec = (struct meta_record){.kind = META_FILE,
	    .has = META_HAS_CONTENT | META_HAS_MTIME,
	    .mtime = s->mtime,
	    .content = s->content};
	memcpy(rec->version, s->stored, sizeof(rec->version));
	if ((s->set & UFS_SET_MODE) != 0) {
		rec->has |= META_HAS_MODE;
		rec->mode = s->mode;
	}
	if ((s->set & UFS_SET_UID) != 0) {
		rec->has |= META_HAS_UID;
		rec->uid = s->uid;
	}
	if ((s->set & UFS_SET_GID) != 0) {
		rec->has |= META_HAS_GID;
		rec->gid = s->gid;
	}
	if ((s->set & UFS_SET_ATIME) != 0) {
		rec->has |= META_HAS_ATIME;
		rec->atime = s->atime;
	}
}

/* Somebody else's object of that name, or bytes that are not what was written: trying
 * again would not help. */
static bool is_final(int err)
{
	return err == -EEXIST || err == -ESTALE || err == -EBADMSG;
}

void session_note_failure(struct session *s, int err)
{
	struct meta_content *c = &s->content;

	persist_moves(s->fs, c);
	c->error = err;
	c->doubt = s->doubt;
	c->state = is_final(err) ? META_STATE_FAILED : META_STATE_NOT_PERSISTED;
	c->next_ns = is_final(err) ? 0 : loop_wall(s->fs->env.loop) +
					     persist_backoff(s->fs, c->tries);
	c->tries++;
}

/* --- Of an upload; the path is locked */

static void up_txn_cb(struct meta_req *r, int err)
{
	up_result(r->user, err);
}

static void up_leave_txn(struct task *t)
{
	meta_abort(&up_of(t)->txn.req);
}

static enum task_next put_record(struct op_upload *u, unsigned step)
{
	struct session *s = u->s;

	u->change = (struct meta_change){
	    .verb = META_PUT, .path = u->path, .if_content = s->content.id};
	session_record(s, &u->change.rec);
	/* What the storage keeps itself is not to be said twice, and not the same later. */
	if (s->content.state == META_STATE_PERSISTED && attr_native(s->fs, u->path))
		u->change.rec.has &= META_HAS_CONTENT;
	memset(&u->txn, 0, sizeof(u->txn));
	u->txn.changes = &u->change;
	u->txn.n = 1;
	u->txn.req.user = u;
	u->result = -ECANCELED; /* given up, the step does not see what went before */
	meta_txn(s->fs->meta, &u->txn, up_txn_cb);
	return task_wait(&u->task, step, up_leave_txn);
}

/* The record has gone, or is of another content: there is nothing to be told. */
static int put_result(struct op_upload *u)
{
	if (u->result != -EEXIST)
		return u->result;
	u->told = true;
	return -ENOENT;
}

/* Also for whoever opens the metadata store after a power loss: an object that is met
 * under the name may be ours. */
enum task_next up_note_doubt(struct op_upload *u)
{
	u->s->content.doubt = true;
	return put_record(u, UP_DOUBTED);
}

enum task_next up_doubted(struct task *t)
{
	struct op_upload *u = up_of(t);
	int err = task_err(t) != 0 ? task_err(t) : put_result(u);

	return err != 0 ? up_finish(u, err) : task_goto(t, UP_SEND);
}

enum task_next up_persist(struct op_upload *u)
{
	struct session *s = u->s;
	struct meta_content *c = &s->content;

	memcpy(s->stored, u->attr.version, sizeof(s->stored));
	u->upto = s->changes;
	c->doubt = false;
	c->next_ns = 0;
	c->tries = 0;
	c->error = 0;
	/* Written meanwhile: what the storage has is of an earlier time. */
	c->state = s->fresh ? META_STATE_NOT_PERSISTED : META_STATE_PERSISTED;
	if (!s->fresh) {
		c->size = u->size;
		c->rewriting = s->noted = s->inlined = false;
	}
	return put_record(u, UP_PERSISTED);
}

/* What the storage keeps itself it has now. */
static void forget_set(struct op_upload *u)
{
	struct session *s = u->s;

	if (attr_native(s->fs, u->path) && u->upto == s->changes)
		s->set = 0;
}

enum task_next up_persisted(struct task *t)
{
	struct op_upload *u = up_of(t);
	struct session *s = u->s;
	int err = put_result(u);

	/* It is found to be there when this is tried again. */
	if (err != 0) {
		s->content.state = META_STATE_NOT_PERSISTED;
		s->content.doubt = s->doubt;
		memcpy(s->stored, u->version, sizeof(s->stored));
		return up_finish(u, err);
	}
	(void)FAULT("persist.recorded");
	u->told = true;
	if (s->state == SESSION_ORPHAN)
		return up_finish(u, 0);
	if (s->content.state == META_STATE_PERSISTED)
		s->safe = u->upto;
	err = up_take(u, attr_native(s->fs, u->path));
	forget_set(u);
	return up_finish(u, err);
}

bool up_must_tell(const struct op_upload *u, int err)
{
	const struct session *s = u->s;

	return up_durable(u) && err != 0 && err != -ECANCELED && !u->told && u->lock.held &&
	       s->recorded && s->state != SESSION_ORPHAN && !s->ended && s->fs->db != NULL;
}

enum task_next up_tell(struct op_upload *u, int err)
{
	u->told = true;
	u->failure = err;
	session_note_failure(u->s, err);
	return put_record(u, UP_FAILED);
}

/* Should the record not know of it: it says that it waits, and so it does. */
enum task_next up_failed(struct task *t)
{
	struct op_upload *u = up_of(t);
	struct session *s = u->s;
	const struct meta_content *c = &s->content;

	if (c->state == META_STATE_FAILED)
		log_error("/%s: what was written (%llu bytes) could not be stored: %s%s; it is "
			  "kept: `batonfs async-persist retry /%s` tries again",
		    u->path, (unsigned long long)c->size, strerror(-u->failure),
		    u->failure != -EBADMSG ? " (somebody else has changed it there)" : "", u->path);
	persist_kick(s->fs);
	return up_finish(u, task_err(t) != 0 ? task_err(t) : u->failure);
}
