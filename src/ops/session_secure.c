/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Making a durable file safe: a task of its own, for which requests wait.
 *
 *	begin	the bytes of a small file are read, a larger one is synced
 *	lock	the path, so that an unlink does not meet a record that comes behind it
 *	record	one transaction says what is safe by now; it brings the bytes of a small
 *		file along, which so need no sync of their own
 *
 * A note is the last part alone: that bytes which the record has are going to be changed.
 * A record may say `rewriting` too often, never too rarely: what was begun before it was
 * put together counts, and what begins later waits for a note.
 */
#include <errno.h>
#include <string.h>

#include "base/checksum.h"
#include "base/fault.h"
#include "ops/session.h"

struct op_secure {
	struct task task;
	uint32_t magic;
#define SECURE_MAGIC 0x5e551003u
	struct session *s; /* used */
	bool note;	   /* nothing but that */
	bool inlined;	   /* bytes hold all of it */
	uint64_t upto;	   /* of the session's changes */
	struct staged_io io;
	unsigned char *bytes;
	struct staged_durable dur;
	struct pathlock lock;
	char path[UFS_PATH_MAX + 1];
	struct meta_txn txn;
	struct meta_change change;
	bool content_too; /* the record says something new of it */
	int result;
};

enum { SC_BEGIN, SC_READ, SC_SYNCED, SC_LOCK, SC_LOCKED, SC_RECORD, SC_RECORDED };

static struct op_secure *sc_of(struct task *t)
{
	struct op_secure *sc = container_of(t, struct op_secure, task);

	CHECK_OBJ(sc, SECURE_MAGIC);
	return sc;
}

/* --- Its waits */

static void waits_begin(struct session *s, struct session_wait *w, bool note,
    void (*done)(struct session_wait *w, int err))
{
	session_wait_add(s, w, done);
	w->secure = true;
	w->note = note;
	w->upto = s->changes;
}

void session_secure(struct session *s, struct session_wait *w,
    void (*done)(struct session_wait *w, int err))
{
	waits_begin(s, w, false, done);
	if (s->ended || s->state == SESSION_ORPHAN || s->policy == META_POLICY_NO_CACHE ||
	    session_is_safe(s))
		session_wait_end(s, w, 0);
	else
		session_pump(s);
}

bool session_must_note(const struct session *s, uint64_t off)
{
	CHECK_OBJ(s, SESSION_MAGIC);
	return s->policy != META_POLICY_NO_CACHE && s->state != SESSION_ORPHAN && !s->noted &&
	       (s->content.state == META_STATE_NOT_PERSISTED ||
		   s->content.state == META_STATE_TRANSIENT) &&
	       off < s->content.size && !(s->inlined && s->content.size <= STAGED_INLINE_MAX);
}

void session_note(struct session *s, struct session_wait *w,
    void (*done)(struct session_wait *w, int err))
{
	waits_begin(s, w, true, done);
	if (s->ended || !session_must_note(s, 0))
		session_wait_end(s, w, 0);
	else
		session_pump(s);
}

void session_rewriter(struct session *s, int by)
{
	CHECK_OBJ(s, SESSION_MAGIC);
	assert(by > 0 || s->rewriters > 0);
	s->rewriters += (unsigned)by;
}

void session_wake_secure(struct session *s, bool note, uint64_t upto, int err)
{
	struct session_wait *w, *next;

	TAILQ_FOREACH_SAFE(w, &s->waits, link, next)
	{
		if (!w->secure)
			continue;
		if (w->note ? (err == 0 ? !session_must_note(s, 0) : note || s->unsure)
			    : (!note && w->upto <= upto))
			session_wait_end(s, w, err);
	}
}

/* --- The task */

static enum task_next sc_finish(struct op_secure *sc, int err)
{
	struct session *s = sc->s;
	bool mine = s->state != SESSION_ORPHAN && !s->ended;

	pathlock_end(&sc->lock);
	s->securing = NULL;
	if (!mine && err != -ECANCELED)
		err = 0;
	if (err == 0 && mine && !sc->note) {
		s->safe = sc->upto;
		s->error = s->content.error;
		s->unsafe = 0;
	} else if (err != 0 && mine && !sc->note) {
		session_unsafe(s, err);
	}
	if (s->fs->db != NULL)
		(void)session_store(s);
	if (err != -ECANCELED)
		session_wake_secure(s, sc->note, sc->upto, err);
	/* Nor can it be uploaded. */
	if (err != 0 && err != -ECANCELED && (s->unsure || !s->recorded))
		session_wake(s, err);
	session_pump(s);
	return task_end(&sc->task);
}

static void sc_io_cb(struct staged_io *io, int err)
{
	struct op_secure *sc = io->user;

	sc->result = err;
	task_resume(&sc->task);
}

/* Once its bytes were in the store they stay there while they are few, so that there never
 * are old ones. */
static bool goes_inline(const struct session *s)
{
	uint64_t size = staged_size(s->sf);

	return size <= STAGED_INLINE_MAX &&
	       (s->inlined || size <= s->fs->env.cfg->write_cache_inline);
}

static bool content_is_safe(const struct session *s)
{
	return s->recorded && (s->state == SESSION_KEPT || !(s->fresh || s->created));
}

static enum task_next sc_begin(struct task *t)
{
	struct op_secure *sc = sc_of(t);
	struct session *s = sc->s;

	if (task_err(t) != 0)
		return sc_finish(sc, task_err(t));
	sc->upto = s->changes;
	if (sc->note || content_is_safe(s))
		return task_goto(t, SC_LOCK);
	sc->io = (struct staged_io){.sf = s->sf, .done = sc_io_cb, .user = sc};
	sc->inlined = goes_inline(s);
	if (!sc->inlined) {
		staged_sync(&sc->io);
		return task_wait(t, SC_SYNCED, NULL);
	}
	sc->io.len = staged_size(s->sf);
	if (sc->io.len == 0)
		return task_goto(t, SC_READ);
	sc->bytes = malloc(sc->io.len);
	if (sc->bytes == NULL)
		return sc_finish(sc, -ENOMEM);
	if (staged_read_try(&sc->io)) {
		memcpy(sc->bytes, sc->io.iov.iov_base, sc->io.got);
		staged_read_release(&sc->io);
		return task_goto(t, SC_READ);
	}
	staged_pread(&sc->io, sc->bytes);
	return task_wait(t, SC_READ, NULL);
}

static enum task_next sc_read(struct task *t)
{
	struct op_secure *sc = sc_of(t);
	size_t tail = sc->io.got % STAGED_BLOCK;

	if (task_fail(t, sc->result) != 0)
		return sc_finish(sc, task_err(t));
	sc->dur = (struct staged_durable){.size = sc->io.got};
	if (tail > 0)
		sc->dur.tail_crc = checksum_crc32c(sc->bytes + sc->io.got - tail, tail);
	/* As of other sums: 0 says that there is none. */
	if (tail > 0 && sc->dur.tail_crc == 0)
		sc->dur.tail_crc = 1;
	return task_goto(t, SC_LOCK);
}

static enum task_next sc_synced(struct task *t)
{
	struct op_secure *sc = sc_of(t);
	int err = sc->result != 0 ? sc->result : FAULT("secure.synced");

	if (task_fail(t, err) != 0)
		return sc_finish(sc, task_err(t));
	staged_durable(sc->s->sf, &sc->dur);
	return task_goto(t, SC_LOCK);
}

/* --- The record */

static void sc_locked_cb(struct pathlock *l)
{
	struct op_secure *sc = container_of(l, struct op_secure, lock);

	task_fail(&sc->task, l->err);
	task_resume(&sc->task);
}

static void sc_leave_lock(struct task *t)
{
	pathlock_end(&sc_of(t)->lock);
}

static enum task_next sc_lock(struct task *t)
{
	struct op_secure *sc = sc_of(t);
	struct fs *fs = sc->s->fs;
	int err = task_err(t);

	if (err == 0)
		err = node_path(fs, sc->s->node, sc->path);
	if (err == 0)
		err = pathlock_add(&sc->lock, sc->path, false);
	if (err != 0)
		return sc_finish(sc, err);
	if (pathlock_try(&fs->locks, &sc->lock, sc_locked_cb))
		return task_goto(t, SC_RECORD);
	return task_wait(t, SC_LOCKED, sc_leave_lock);
}

/* The wait may have been for a rename of the directory. */
static enum task_next sc_locked(struct task *t)
{
	struct op_secure *sc = sc_of(t);
	char path[UFS_PATH_MAX + 1];
	int err = task_err(t);

	if (err == 0)
		err = node_path(sc->s->fs, sc->s->node, path);
	if (err != 0)
		return sc_finish(sc, err);
	if (strcmp(path, sc->path) == 0)
		return task_goto(t, SC_RECORD);
	pathlock_end(&sc->lock);
	memset(&sc->lock, 0, sizeof(sc->lock));
	return task_goto(t, SC_LOCK);
}

/* What the record is going to say of the content. */
static void sc_content(struct op_secure *sc)
{
	struct session *s = sc->s;
	struct meta_content *c = &s->content;
	bool waited = c->state == META_STATE_NOT_PERSISTED || c->state == META_STATE_FAILED;

	if (sc->note) {
		c->rewriting = true;
		return;
	}
	if (content_is_safe(s))
		return;
	sc->content_too = true;
	s->inlined = sc->inlined;
	c->size = sc->dur.size;
	c->tail_crc = sc->dur.tail_crc;
	c->rewriting = !sc->inlined && (s->rewriters > 0 || staged_rewritten(s->sf));
	s->noted = s->noted && c->rewriting;
	c->next_ns = 0;
	c->tries = 0;
	c->error = 0;
	if (s->policy == META_POLICY_TRANSIENT) {
		c->state = META_STATE_TRANSIENT;
		return;
	}
	c->state = META_STATE_NOT_PERSISTED;
	s->doubt = c->doubt = c->doubt || s->through;
	if (!waited)
		c->since_ns = loop_wall(s->fs->env.loop);
}

static void sc_meta_cb(struct meta_req *r, int err)
{
	struct op_secure *sc = r->user;

	sc->result = err;
	task_resume(&sc->task);
}

static void sc_leave_txn(struct task *t)
{
	meta_abort(&sc_of(t)->txn.req);
}

static enum task_next sc_record(struct task *t)
{
	struct op_secure *sc = sc_of(t);
	struct session *s = sc->s;

	if (task_err(t) != 0 || s->state == SESSION_ORPHAN || s->ended)
		return sc_finish(sc, task_err(t));
	/* Seen to by a record that came before. */
	if (sc->note && !session_must_note(s, 0))
		return sc_finish(sc, 0);
	sc_content(sc);
	sc->change = (struct meta_change){.verb = META_PUT, .path = sc->path};
	session_record(s, &sc->change.rec);
	sc->change.if_content = s->recorded ? s->content.id : 0;
	if (sc->bytes != NULL) {
		sc->change.blob = sc->bytes;
		sc->change.blob_len = (size_t)sc->dur.size;
	}
	sc->txn.changes = &sc->change;
	sc->txn.n = 1;
	sc->txn.req.user = sc;
	meta_txn(s->fs->meta, &sc->txn, sc_meta_cb);
	return task_wait(t, SC_RECORDED, sc_leave_txn);
}

static enum task_next sc_recorded(struct task *t)
{
	struct op_secure *sc = sc_of(t);
	struct session *s = sc->s;
	int err;

	if (task_fail(t, sc->result) != 0) {
		/* What the record says now is not known. */
		s->noted = false;
		s->unsure = s->unsure || sc->content_too;
		return sc_finish(sc, task_err(t));
	}
	(void)FAULT("secure.recorded");
	s->recorded = true;
	s->unsure = s->unsure && sc->note;
	s->noted = sc->change.rec.content.rewriting;
	err = sc->note ? 0 : session_tell_node(s);
	return sc_finish(sc, err);
}

static void sc_fini(struct task *t)
{
	struct op_secure *sc = sc_of(t);
	struct session *s = sc->s;
	struct fs *fs = s->fs;

	pathlock_end(&sc->lock);
	free(sc->bytes);
	FREE_OBJ(sc);
	session_unuse(s);
	fs->nwork--;
	fs_op_ended(fs);
}

static const struct task_step sc_steps[] = {
    [SC_BEGIN] = {"begin", sc_begin, TO(SC_READ) | TO(SC_SYNCED) | TO(SC_LOCK)},
    [SC_READ] = {"read", sc_read, TO(SC_LOCK)},
    [SC_SYNCED] = {"synced", sc_synced, TO(SC_LOCK)},
    [SC_LOCK] = {"lock", sc_lock, TO(SC_LOCKED) | TO(SC_RECORD)},
    [SC_LOCKED] = {"locked", sc_locked, TO(SC_LOCK) | TO(SC_RECORD)},
    [SC_RECORD] = {"record", sc_record, TO(SC_RECORDED)},
    [SC_RECORDED] = {"recorded", sc_recorded, 0},
};
static const struct task_kind sc_kind = {"secure", sc_steps, ARRAY_LEN(sc_steps), sc_fini};

void session_secure_start(struct session *s, bool note)
{
	struct op_secure *sc;

	CHECK_OBJ(s, SESSION_MAGIC);
	assert(s->securing == NULL && s->policy != META_POLICY_NO_CACHE);
	ALLOC_OBJ(sc, SECURE_MAGIC);
	if (sc == NULL) {
		if (!note)
			session_unsafe(s, -ENOMEM);
		session_wake_secure(s, note, s->changes, -ENOMEM);
		return;
	}
	sc->s = s;
	sc->note = note;
	s->securing = sc;
	session_use(s);
	s->fs->nwork++;
	task_start(&sc->task, s->fs->env.loop, &sc_kind);
}

void session_secure_cancel(struct session *s)
{
	if (s->securing != NULL)
		task_cancel(&s->securing->task, -ECANCELED);
}
