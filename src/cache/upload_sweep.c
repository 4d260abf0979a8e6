/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Beginnings whose answer nobody got: of a daemon that died before it noted the id, or
 * gave up waiting.  Each has a mark, a row that was there before the storage heard of it;
 * by that the storage is asked to throw away what may have come of it.
 *
 * A storage that does not know our tokens is told which uploads of the place are known;
 * so nothing begins there while it looks, and it does not look while something begins.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "cache/upload_priv.h"

#define HELD_BY_A_BEGINNING NS_PER_S
#define DELAY_MAX (600 * NS_PER_S)

static bool same_place(const struct up_multi *a, const struct up_multi *b)
{
	return a->ufs == b->ufs && strcmp(a->path, b->path) == 0;
}

static bool is_there(const struct up_multi *m, int state)
{
	const struct up_multi *o;

	TAILQ_FOREACH(o, &m->us->multis, link)
		if (o != m && (int)o->state == state && same_place(o, m))
			return true;
	return false;
}

bool sweep_holds(const struct up_multi *m)
{
	return is_there(m, MULTI_SWEEP);
}

static void look_later(struct up_multi *m, uint64_t delay);

static void known_free(struct up_multi *m)
{
	for (unsigned i = 0; i < m->known.n; i++)
		free(m->known.id[i]);
	free(m->known.id);
	m->known = (struct up_ids){ .n = 0 };
}

/* Those that waited for this look. */
static void begin_waiting(struct uploads *us)
{
	struct up_multi *m;

	TAILQ_FOREACH(m, &us->multis, link)
		if (m->state == MULTI_WAIT && (m->up != NULL || m->copy != NULL) &&
		    !sweep_holds(m))
			multi_begin_start(m);
}

static void tell_unlisted(struct up_multi *m, int err)
{
	COUNT(m->us->env.loop, UPLOAD_UNLISTED, 1);
	if (m->us->told)
		return;
	m->us->told = true;
	log_warn("%s: the storage does not let us list uploads in parts (%s): what a daemon that "
		 "was killed has just begun stays there; a lifecycle rule for incomplete uploads "
		 "takes it away",
	    ufs_uri(m->ufs), strerror(-err));
}

static void looked(struct ufs_req *r, int err)
{
	struct up_multi *m = r->user;
	struct uploads *us;

	CHECK_OBJ(m, UP_MULTI_MAGIC);
	us = m->us;
	COUNT(us->env.loop, UPLOAD_SWEPT, m->rq.sweep.found);
	m->state = MULTI_PAUSE;
	known_free(m);
	if (multi_may_pass(err)) {
		m->delay = MIN(MAX(2 * m->delay, us->look_again), DELAY_MAX);
		look_later(m, m->delay);
		m = NULL;
	} else if (err == -EACCES || err == -EOPNOTSUPP) {
		tell_unlisted(m, err);
	} else if (err != 0) {
		log_warn("%s/%s: look for an upload that was begun and not noted: %s",
		    ufs_uri(m->ufs), m->path, strerror(-err));
	} else if (--m->looks > 0) {
		look_later(m, us->look_again);
		m = NULL;
	}
	if (m != NULL) {
		rows_drop_del(us, m->key, m->row);
		multi_free(&m);
	}
	begin_waiting(us);
}

static void look(struct up_multi *m)
{
	int err;

	if (is_there(m, MULTI_BEGIN)) {
		look_later(m, HELD_BY_A_BEGINNING);
		return;
	}
	err = rows_known(m->us, ufs_uri(m->ufs), m->path, &m->known);
	if (err != 0) {
		multi_free(&m); /* the next daemon finds the row */
		return;
	}
	m->state = MULTI_SWEEP;
	memset(&m->rq, 0, sizeof(m->rq));
	m->rq.sweep.path = m->path;
	m->rq.sweep.token = m->token;
	m->rq.sweep.since_ns = m->since_ns;
	m->rq.sweep.keep = (const char *const *)m->known.id;
	m->rq.sweep.nkeep = m->known.n;
	m->rq.sweep.req.user = m;
	ufs_multi_sweep(m->ufs, &m->rq.sweep, looked);
}

void sweep_due(struct timer *t)
{
	look(container_of(t, struct up_multi, pause));
}

static void look_later(struct up_multi *m, uint64_t delay)
{
	m->state = MULTI_PAUSE;
	timer_arm(&m->pause, delay);
}

void sweep_resume(struct up_multi *m)
{
	m->looks = m->us->look_again > 0 ? 2 : 1;
	look(m);
}

void sweep_begun(struct up_multi *m, int err)
{
	struct up_multi *s = NULL;

	/* Done with, unless it may have been done more than once or all the same.  Who looks
	 * at this place soon will see it too. */
	if ((err == 0 ? m->rq.begin.repeated : multi_may_pass(err)) && !is_there(m, MULTI_PAUSE)) {
		s = multi_new(m->us, m->ufs, m->key, m->path);
		if (s == NULL)
			return; /* the next daemon finds the row */
		s->row = m->row;
		s->token = m->token;
		s->since_ns = m->since_ns;
		s->looks = 1;
		look_later(s, m->us->look_again);
	} else {
		rows_drop_del(m->us, m->key, m->row);
	}
	m->row = 0;
}
