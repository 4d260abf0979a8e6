/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What fell out of the queue, and what nobody needs: looked for now and then.
 *
 *	sweep	the whole queue: who has waited longest, who would wait for ever since the
 *		wall clock was set back, and what lies outside of the mounted part
 *	scan	staged files that are old and that nobody has in memory, a page at a time:
 *		those without a record that needs them go
 *	mark	write sessions that were never made safe, that nobody has open and that got
 *		no data for long go too
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/units.h"
#include "ops/persist_priv.h"

#define SWEEP_PAGE 1000u
/* The search for the oldest alone: not more often, and a tenth of the time at most. */
#define SURVEY_NS (10 * NS_PER_S)
#define SURVEY_REST 10u
/* The period may be set to less while it runs. */
#define PERIOD_LOOK (10 * NS_PER_S)

struct persist_check {
	struct task task;
	uint32_t magic;
#define PERSIST_CHECK_MAGIC 0x9e551572u
	struct persist *p;
	bool survey; /* only what is counted in the queue is wanted */
	int result;
	struct meta_queue queue;
	uint64_t after_ns, after_id, began_ns;
	struct persist_outside outside;
	struct staging_scan scan;
	size_t at;
	struct meta_content_get get;
	unsigned removed;
};

enum { CK_SWEEP, CK_SWEPT, CK_SCAN, CK_SCANNED, CK_LOOK, CK_LOOKED, CK_MARK };

static struct persist_check *check_of(struct task *t)
{
	struct persist_check *ck = container_of(t, struct persist_check, task);

	CHECK_OBJ(ck, PERSIST_CHECK_MAGIC);
	return ck;
}

static void meta_done(struct meta_req *r, int err)
{
	struct persist_check *ck = r->user;

	ck->result = err;
	task_resume(&ck->task);
}

/* --- Who has waited longest */

void persist_note_oldest(struct persist *p, uint64_t content, uint64_t since_ns)
{
	if (p->oldest_ns != 0 && p->oldest_ns <= since_ns)
		return;
	p->oldest_ns = since_ns;
	p->oldest_id = content;
}

void persist_not_oldest(struct persist *p, uint64_t content)
{
	if (p->oldest_id == content)
		p->oldest_ns = p->oldest_id = 0;
}

/* --- Sweep */

static void leave_sweep(struct task *t)
{
	meta_abort(&check_of(t)->queue.req);
}

static enum task_next sweep(struct task *t)
{
	struct persist_check *ck = check_of(t);

	if (task_err(t) != 0)
		return task_end(t);
	ck->queue.after_ns = ck->after_ns;
	ck->queue.after_id = ck->after_id;
	/* Those that have FAILED, which come last, are only counted. */
	ck->queue.until_ns = ck->p->fs->root[0] != '\0' ? UINT64_MAX : UINT64_MAX - 1;
	ck->queue.max = SWEEP_PAGE;
	ck->queue.req.user = ck;
	meta_queue(ck->p->fs->meta, &ck->queue, meta_done);
	return task_wait(t, CK_SWEPT, leave_sweep);
}

/* Further away than any try is put off: the clock was ahead when it was written. */
static bool lost_in_time(const struct persist *p, const struct meta_content *c)
{
	struct fs *fs = p->fs;

	return c->next_ns > loop_wall(fs->env.loop) + 2 * fs->env.cfg->persist_retry_max;
}

static void sweep_row(struct persist_check *ck, const struct meta_entry *e)
{
	const struct meta_content *c = &e->rec.content;
	bool failed = c->state == META_STATE_FAILED;
	struct persist *p = ck->p;

	ck->after_ns = failed ? UINT64_MAX : c->next_ns;
	ck->after_id = c->id;
	if (!persist_inside(p->fs, e->name)) {
		ck->outside.files++;
		ck->outside.bytes += c->size;
		ck->outside.failed += failed;
		return;
	}
	if (failed)
		return;
	persist_note_oldest(p, c->id, c->since_ns);
	if (!ck->survey && lost_in_time(p, c) && persist_add(p, e->name, c))
		persist_go_on(p);
}

static enum task_next swept(struct task *t)
{
	struct persist_check *ck = check_of(t);
	struct persist *p = ck->p;

	if (task_err(t) != 0 || ck->result != 0)
		return task_end(t);
	for (size_t i = 0; i < ck->queue.count; i++)
		sweep_row(ck, &ck->queue.entries[i]);
	if (ck->queue.more)
		return task_goto(t, CK_SWEEP);
	meta_queue_free(&ck->queue);
	if (ck->outside.files > 0 && !p->outside_known)
		log_warn("%llu files that are not in the storage lie outside of what is mounted "
			 "(/%s): they wait for a mount that has them",
		    (unsigned long long)ck->outside.files, p->fs->root);
	p->outside = ck->outside;
	p->outside_known = true;
	p->survey_took_ns = loop_now(p->fs->env.loop) - ck->began_ns;
	return ck->survey ? task_end(t) : task_goto(t, CK_SCAN);
}

/* --- Scan */

static void scanned_cb(struct staging_scan *sc, int err)
{
	struct persist_check *ck = sc->user;

	ck->result = err;
	task_resume(&ck->task);
}

static void leave_scan(struct task *t)
{
	staging_scan_abort(&check_of(t)->scan);
}

static enum task_next scan(struct task *t)
{
	struct persist_check *ck = check_of(t);
	struct fs *fs = ck->p->fs;

	/* A session that could not be read may have any of them. */
	if (fs->sessions_missing)
		return task_goto(t, CK_MARK);
	ck->scan.age_ns = fs->env.cfg->persist_orphan_timeout;
	ck->scan.done = scanned_cb;
	ck->scan.user = ck;
	ck->at = 0;
	staging_scan(fs->staging, &ck->scan);
	return task_wait(t, CK_SCANNED, leave_scan);
}

static enum task_next scanned(struct task *t)
{
	struct persist_check *ck = check_of(t);

	if (task_err(t) != 0)
		return task_end(t);
	if (ck->result != 0) {
		log_warn("looking for staged files that nobody needs: %s", strerror(-ck->result));
		return task_goto(t, CK_MARK);
	}
	return task_goto(t, CK_LOOK);
}

static void leave_look(struct task *t)
{
	meta_abort(&check_of(t)->get.req);
}

static enum task_next look(struct task *t)
{
	struct persist_check *ck = check_of(t);

	if (task_err(t) != 0)
		return task_end(t);
	if (ck->at == ck->scan.n) {
		free(ck->scan.ids);
		ck->scan.ids = NULL;
		return task_goto(t, ck->scan.more ? CK_SCAN : CK_MARK);
	}
	ck->get.id = ck->scan.ids[ck->at];
	ck->get.req.user = ck;
	meta_content_get(ck->p->fs->meta, &ck->get, meta_done);
	return task_wait(t, CK_LOOKED, leave_look);
}

struct seek {
	uint64_t staged;
	bool found;
};

static void seek_one(struct session *s, void *arg)
{
	struct seek *sk = arg;

	if (s->staged == sk->staged)
		sk->found = true;
}

/* Made since the directory was read? */
static bool in_memory(struct fs *fs, uint64_t id)
{
	struct seek sk = {.staged = id};

	session_foreach(fs, seek_one, &sk);
	for (struct session *s = fs->ended; s != NULL; s = s->next_ended)
		seek_one(s, &sk);
	return sk.found;
}

static enum task_next looked(struct task *t)
{
	struct persist_check *ck = check_of(t);
	struct fs *fs = ck->p->fs;
	uint64_t id = ck->scan.ids[ck->at++];
	/* Anything else than a clear answer keeps it. */
	bool unneeded = ck->result == -ENOENT ||
			(ck->result == 0 && ck->get.rec.content.id == id &&
			    ck->get.rec.content.state == META_STATE_PERSISTED);

	meta_content_free(&ck->get);
	if (task_err(t) != 0)
		return task_end(t);
	if (unneeded && !fs->sessions_missing && !in_memory(fs, id)) {
		staging_discard(fs->staging, id);
		ck->removed++;
	}
	return task_goto(t, CK_LOOK);
}

/* --- Mark */

static uint64_t wall_of(const struct timespec *ts)
{
	return (uint64_t)ts->tv_sec * NS_PER_S + (uint64_t)ts->tv_nsec;
}

static void mark_one(struct session *s, void *arg)
{
	struct persist_check *ck = arg;
	struct fs *fs = s->fs;
	uint64_t now = loop_wall(fs->env.loop), last = wall_of(&s->ctime);
	char path[UFS_PATH_MAX + 1];

	if (s->policy == META_POLICY_NO_CACHE || s->recorded || s->writers > 0 || s->users > 0 ||
	    s->uploading != NULL || s->securing != NULL || s->state == SESSION_ORPHAN ||
	    session_handles(s) > 0 || last > now ||
	    now - last < fs->env.cfg->mark_writing_duration)
		return;
	if (node_path(fs, s->node, path) != 0)
		path[0] = '\0';
	log_warn("/%s: %llu bytes were written to it and never made safe, and nobody has it open: "
		 "removed",
	    path, (unsigned long long)staged_size(s->sf));
	if (session_drop(s) == 0)
		ck->removed++;
}

static enum task_next mark(struct task *t)
{
	struct persist_check *ck = check_of(t);

	if (task_err(t) == 0)
		session_foreach(ck->p->fs, mark_one, ck);
	if (ck->removed > 0)
		log_info("write cache: %u files that nobody needs were removed", ck->removed);
	return task_end(t);
}

/* --- Life */

static void fini(struct task *t)
{
	struct persist_check *ck = check_of(t);
	struct persist *p = ck->p;
	struct fs *fs = p->fs;

	meta_queue_free(&ck->queue);
	meta_content_free(&ck->get);
	staging_scan_abort(&ck->scan);
	free(ck->scan.ids);
	p->check = NULL;
	FREE_OBJ(ck);
	fs->nwork--;
	fs_op_ended(fs);
}

static const struct task_step steps[] = {
    [CK_SWEEP] = {"sweep", sweep, TO(CK_SWEPT)},
    [CK_SWEPT] = {"swept", swept, TO(CK_SWEEP) | TO(CK_SCAN)},
    [CK_SCAN] = {"scan", scan, TO(CK_SCANNED) | TO(CK_MARK)},
    [CK_SCANNED] = {"scanned", scanned, TO(CK_LOOK) | TO(CK_MARK)},
    [CK_LOOK] = {"look", look, TO(CK_LOOKED) | TO(CK_SCAN) | TO(CK_MARK)},
    [CK_LOOKED] = {"looked", looked, TO(CK_LOOK)},
    [CK_MARK] = {"mark", mark, 0},
};
static const struct task_kind kind = {"persist check", steps, ARRAY_LEN(steps), fini};

void persist_check_start(struct persist *p, bool survey)
{
	uint64_t now = loop_now(p->fs->env.loop);
	struct persist_check *ck;

	if (p->held || p->check != NULL || p->fs->db == NULL ||
	    (survey && p->surveyed_ns != 0 &&
		now - p->surveyed_ns < MAX(SURVEY_NS, SURVEY_REST * p->survey_took_ns)))
		return;
	ALLOC_OBJ(ck, PERSIST_CHECK_MAGIC);
	if (ck == NULL)
		return;
	ck->p = p;
	ck->survey = survey;
	p->check = ck;
	p->surveyed_ns = ck->began_ns = now;
	p->fs->nwork++;
	task_start(&ck->task, p->fs->env.loop, &kind);
}

static void period_arm(struct persist *p)
{
	uint64_t period = p->fs->env.cfg->persist_check_period,
		 gone = loop_now(p->fs->env.loop) - p->checked_ns;

	timer_arm(&p->period, MIN(period - MIN(period, gone), PERIOD_LOOK));
}

static void period_fired(struct timer *t)
{
	struct persist *p = container_of(t, struct persist, period);
	uint64_t now = loop_now(p->fs->env.loop);

	if (now - p->checked_ns >= p->fs->env.cfg->persist_check_period) {
		p->checked_ns = now;
		persist_check_start(p, false);
		persist_kick(p->fs);
	}
	period_arm(p);
}

void persist_check_init(struct persist *p)
{
	timer_init(&p->period, p->fs->env.loop, period_fired);
}

void persist_check_resume(struct persist *p)
{
	p->checked_ns = loop_now(p->fs->env.loop);
	period_arm(p);
	/* Where there is an outside. */
	if (p->fs->root[0] != '\0')
		persist_check_start(p, true);
}

void persist_check_stop(struct persist *p)
{
	timer_cancel(&p->period);
	if (p->check != NULL)
		task_cancel(&p->check->task, -ECANCELED);
}
