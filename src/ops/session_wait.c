/* SPDX-License-Identifier: BSD-2-Clause */
/* Waits for an upload, and for the end of a session. */
#include <errno.h>
#include <string.h>

#include "ops/session.h"

static void wait_answer(struct deferred *d)
{
	struct session_wait *w = container_of(d, struct session_wait, run);

	w->done(w, w->err);
}

void session_wait_end(struct session *s, struct session_wait *w, int err)
{
	if (w->queued)
		TAILQ_REMOVE(&s->waits, w, link);
	w->queued = false;
	w->err = err;
	loop_defer(s->fs->env.loop, &w->run, wait_answer);
}

void session_wait_add(struct session *s, struct session_wait *w,
    void (*done)(struct session_wait *w, int err))
{
	CHECK_OBJ(s, SESSION_MAGIC);
	w->s = s;
	w->loop = s->fs->env.loop;
	w->done = done;
	w->err = 0;
	w->pass = 0;
	w->ended_only = w->secure = w->note = false;
	w->queued = true;
	memset(&w->run, 0, sizeof(w->run));
	TAILQ_INSERT_TAIL(&s->waits, w, link);
}

void session_wait_abort(struct session_wait *w)
{
	if (w->queued)
		TAILQ_REMOVE(&w->s->waits, w, link);
	w->queued = false;
	loop_undefer(w->loop, &w->run);
}

/* An upload ended with err, or there will be none. */
void session_wake(struct session *s, int err)
{
	bool over = s->ended || s->state == SESSION_ORPHAN || err == -ECANCELED;
	struct session_wait *w, *next;

	TAILQ_FOREACH_SAFE(w, &s->waits, link, next)
	{
		if (w->secure) {
			if (over)
				session_wait_end(s, w, err);
		} else if (w->ended_only) {
			if (over || (s->uploading == NULL && s->state != SESSION_CLOSING))
				session_wait_end(s, w, err);
		} else if (over || w->pass <= 1) {
			session_wait_end(s, w, err);
		} else {
			w->pass--;
		}
	}
}

void session_upload(struct session *s, struct session_wait *w, bool force,
    void (*done)(struct session_wait *w, int err))
{
	bool runs = session_sending(s);
	/* The attributes of a durable file are its record's. */
	bool unsaved = s->policy == META_POLICY_NO_CACHE ? session_unsaved(s) : s->created;
	bool need = s->fresh || (force && unsaved && !runs);

	session_wait_add(s, w, done);
	if (s->ended || s->state == SESSION_ORPHAN || s->policy == META_POLICY_TRANSIENT ||
	    (!need && !runs)) {
		session_wait_end(s, w, 0);
		return;
	}
	w->pass = need && runs ? 2 : 1;
	if (s->state == SESSION_FAILED && s->policy == META_POLICY_NO_CACHE) {
		s->state = SESSION_CLOSING;
		(void)session_store(s);
	}
	session_pump(s);
}

void session_settle(struct session *s, struct session_wait *w,
    void (*done)(struct session_wait *w, int err))
{
	session_wait_add(s, w, done);
	w->ended_only = true;
	if (s->ended || (s->uploading == NULL && s->state != SESSION_CLOSING))
		session_wait_end(s, w, 0);
	else
		session_pump(s);
}

void session_await(struct session *s, struct session_wait *w,
    void (*done)(struct session_wait *w, int err))
{
	session_wait_add(s, w, done);
	w->ended_only = true;
	if (s->ended)
		session_wait_end(s, w, 0);
}
