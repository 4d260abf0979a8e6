/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which file is persisted next.
 *
 * A pass goes through what is due of the queue, in its order, a page at a time, and keeps
 * a few files of each size in memory until they get a seat.  It goes on when there is room
 * again, so the next pass begins after everybody had his turn.  Large ones that find no
 * room do not keep smaller ones behind them from theirs: the pass goes on without them,
 * and they are fetched from where they were left.  When all has been seen the timer waits
 * for the next one that is due.
 *
 * In an outage of the storage tries become rare.  The first that goes well after it says
 * that it is over: the next pass takes what was put off as well, whenever its turn were.
 * It ends with the first failure, and the next one of that kind is put off itself, twice as
 * long each time until nothing fails: one file that fails for ever brings no others.
 *
 * Uploads and whoever writes small files one after the other want the same processors, disk
 * and loop, and only the writer waits for them: close(2) took twice as long beside uploads.
 * So nothing new begins until the writing has paused, unless the queue has not been empty
 * for write.cache.persist.give.way, or half of what may be pinned is.
 */
#include "ops/persist_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/units.h"
#include "cache/staged.h"
#include "meta/meta.h"

#define PAGE 256u
#define AGAIN_NS NS_PER_S	/* the metadata store did not answer; a file was open */
#define SLEEP_MAX (60 * NS_PER_S) /* the wall clock may be set */
#define PASS_PAUSE_NS (200 * NS_PER_MS)
#define BACKOFF_MIN NS_PER_S
#define WRITE_PAUSE_NS (20 * NS_PER_MS) /* without a file that became safe: a pause */

static void go_fn(struct deferred *d);

void persist_go_on(struct persist *p)
{
	if (!p->held)
		loop_defer(p->fs->env.loop, &p->go, go_fn);
}

static void due_fired(struct timer *t)
{
	struct persist *p = container_of(t, struct persist, due);

	p->again = true;
	p->next_known = false;
	persist_go_on(p);
}

/* At the latest then. */
static void wake_in(struct persist *p, uint64_t ns)
{
	if (!timer_armed(&p->due) || p->due.when > loop_now(p->fs->env.loop) + ns)
		timer_arm(&p->due, ns);
}

/* --- Seats */

static unsigned seats(const struct persist *p)
{
	return (unsigned)p->fs->env.cfg->persist_parallel;
}

/* A quarter is kept for small files, which are many and quick. */
static unsigned seats_of(const struct persist *p, enum persist_size size)
{
	unsigned all = seats(p), kept = all / 4 > 0 ? all / 4 : all > 1;

	return size == PERSIST_LARGE ? all - kept : all;
}

static bool may_start(const struct persist *p, enum persist_size size)
{
	return p->nwaiting[size] > 0 && p->running[size] < seats_of(p, size);
}

static struct persist_file *next_file(struct persist *p)
{
	bool small = may_start(p, PERSIST_SMALL), large = may_start(p, PERSIST_LARGE);
	enum persist_size size = PERSIST_SMALL;
	struct persist_file *f;

	if (p->running[PERSIST_SMALL] + p->running[PERSIST_LARGE] >= seats(p) ||
	    (!small && !large))
		return NULL;
	if (!small || (large && p->running[PERSIST_LARGE] < p->running[PERSIST_SMALL]))
		size = PERSIST_LARGE;
	f = TAILQ_FIRST(&p->waiting[size]);
	TAILQ_REMOVE(&p->waiting[size], f, link);
	p->nwaiting[size]--;
	return f;
}

static void start_files(struct persist *p)
{
	struct persist_file *f;

	while ((f = next_file(p)) != NULL) {
		f->seated = true;
		p->running[f->size]++;
		persist_file_start(f);
	}
}

/* It has FAILED. */
static bool is_final(int err)
{
	return err == -EEXIST || err == -ESTALE || err == -EBADMSG;
}

/* --- After an outage */

static void went_well(struct persist *p)
{
	if (!p->put_off || p->well)
		return;
	p->well = p->again = true;
	p->next_known = false;
}

static void was_put_off(struct persist *p)
{
	p->put_off = true;
	p->well = false;
	p->end |= p->early;
	p->early = false;
	p->again = true;
	p->next_known = false;
}

/* Is the pass that begins for what was put off, too? */
static bool takes_early(struct persist *p)
{
	uint64_t now = loop_now(p->fs->env.loop);

	if (!p->put_off || !p->well || now < p->early_ns)
		return false;
	p->put_off = p->well = false;
	p->early_wait = MIN(MAX(2 * p->early_wait, NS_PER_S), p->fs->env.cfg->persist_retry_max);
	p->early_ns = now + p->early_wait;
	return true;
}

static bool is_due(const struct persist *p, const struct meta_content *c)
{
	return c->next_ns <= loop_wall(p->fs->env.loop) || (p->early && c->tries > 0);
}

/* --- Ends of tries */

void persist_file_failed(struct persist_file *f, int err)
{
	struct persist *p = f->p;

	if (!f->open)
		snprintf(p->error, sizeof(p->error), "/%.180s: %s", f->path, persist_words(err));
}

void persist_file_ended(struct persist_file *f, int err)
{
	struct persist *p = f->p;
	struct persist_wait *w;

	if (f->seated)
		p->running[f->size]--;
	HASH_DEL(p->files, f);
	if (f->open) {
		wake_in(p, AGAIN_NS);
	} else if (err == 0) {
		p->persisted += !f->gone;
		p->error[0] = '\0';
		persist_not_oldest(p, f->content);
		if (!f->gone)
			went_well(p);
	} else if (is_final(err)) {
		persist_not_oldest(p, f->content);
		p->again = true;
		p->next_known = false;
	} else if (err != -ECANCELED) {
		/* Its record says when it is due again. */
		was_put_off(p);
	}
	while ((w = TAILQ_FIRST(&f->waits)) != NULL) {
		TAILQ_REMOVE(&f->waits, w, link);
		w->file = NULL;
		w->done(w, f->open ? -EBUSY : f->gone ? -ENOENT : err);
	}
	persist_file_free(&f);
	persist_go_on(p);
}

/* --- Files in memory */

struct persist_file *persist_find(struct persist *p, uint64_t content)
{
	struct persist_file *f;

	HASH_FIND(hh, p->files, &content, sizeof(content), f);
	return f;
}

static enum persist_size size_of(const struct persist *p, const struct meta_content *c)
{
	return c->size > p->fs->env.cfg->write_part_size ? PERSIST_LARGE : PERSIST_SMALL;
}

static struct persist_file *file_add(struct persist *p, const char *path,
    const struct meta_content *c)
{
	struct persist_file *f = persist_file_new(p, path, c->id);

	if (f == NULL)
		return NULL;
	f->size = size_of(p, c);
	f->since_ns = c->since_ns;
	HASH_ADD(hh, p->files, content, sizeof(f->content), f);
	if (f->hh.tbl == NULL)
		persist_file_free(&f);
	return f;
}

enum added { ADDED, NO_ROOM, NO_MEMORY };

static enum added add(struct persist *p, const char *path, const struct meta_content *c)
{
	enum persist_size size = size_of(p, c);
	struct persist_file *f;

	/* What lies outside of the mounted part has no node here: it is for a mount that has
	 * one. */
	if (!persist_inside(p->fs, path))
		return ADDED;
	persist_note_oldest(p, c->id, c->since_ns);
	if (persist_find(p, c->id) != NULL)
		return ADDED;
	if (p->nwaiting[size] >= PERSIST_WAIT_MAX)
		return NO_ROOM;
	f = file_add(p, path, c);
	if (f == NULL)
		return NO_MEMORY;
	TAILQ_INSERT_TAIL(&p->waiting[size], f, link);
	p->nwaiting[size]++;
	return ADDED;
}

bool persist_add(struct persist *p, const char *path, const struct meta_content *c)
{
	return add(p, path, c) == ADDED;
}

static void drop_waiting(struct persist *p)
{
	struct persist_file *f;

	for (unsigned i = 0; i < PERSIST_SIZES; i++) {
		while ((f = TAILQ_FIRST(&p->waiting[i])) != NULL) {
			TAILQ_REMOVE(&p->waiting[i], f, link);
			if (p->files != NULL)
				HASH_DEL(p->files, f);
			persist_file_free(&f);
		}
		p->nwaiting[i] = 0;
	}
}

int persist_now(struct fs *fs, const char *path, const struct meta_content *c,
    struct persist_wait *w)
{
	struct persist *p = fs->persist;
	struct persist_file *f;

	if (p == NULL || p->held)
		return -ECANCELED;
	if (persist_below_root(fs, path) == NULL)
		return -EXDEV;
	f = persist_find(p, c->id);
	if (f == NULL)
		f = file_add(p, path, c);
	else if (!f->running) {
		TAILQ_REMOVE(&p->waiting[f->size], f, link);
		p->nwaiting[f->size]--;
	}
	if (f == NULL)
		return -ENOMEM;
	w->file = f;
	TAILQ_INSERT_TAIL(&f->waits, w, link);
	if (!f->running)
		persist_file_start(f);
	return 0;
}

bool persist_wait_running(struct fs *fs, uint64_t content, struct persist_wait *w)
{
	struct persist_file *f = fs->persist != NULL ? persist_find(fs->persist, content) : NULL;

	if (f == NULL || !f->running)
		return false;
	w->file = f;
	TAILQ_INSERT_TAIL(&f->waits, w, link);
	return true;
}

void persist_wait_abort(struct persist_wait *w)
{
	if (w->file != NULL)
		TAILQ_REMOVE(&w->file->waits, w, link);
	w->file = NULL;
}

/* --- Bytes that are pinned and not in memory */

static void add_recorded(struct session *s, void *arg)
{
	if (s->policy != META_POLICY_NO_CACHE && s->recorded && s->state != SESSION_ORPHAN &&
	    s->content.state != META_STATE_PERSISTED)
		*(uint64_t *)arg += s->content.size;
}

static void tell_parked(struct persist *p)
{
	uint64_t all, here = 0;
	struct meta_status ms;

	memset(&ms, 0, sizeof(ms));
	meta_status(p->fs->meta, &ms);
	all = ms.tally.bytes[META_STATE_NOT_PERSISTED] + ms.tally.bytes[META_STATE_FAILED] +
	      ms.tally.bytes[META_STATE_TRANSIENT];
	session_foreach(p->fs, add_recorded, &here);
	p->parked = all > here ? all - here : 0;
	staging_parked(p->fs->staging, p->parked);
}

static uint64_t pinned(const struct persist *p)
{
	struct staging_status st;

	memset(&st, 0, sizeof(st));
	staging_status(p->fs->staging, &st);
	return st.durable + p->parked;
}

static uint64_t pinned_limit(const struct persist *p)
{
	const struct config *cfg = p->fs->env.cfg;

	return (uint64_t)(cfg->pinned_ratio * (double)cfg->page_store_size);
}

/* --- Giving way to writers */

void persist_written(struct fs *fs)
{
	struct persist *p = fs->persist;

	if (p == NULL || p->held)
		return;
	p->written_ns = loop_now(fs->env.loop);
	if (!p->behind)
		p->behind_ns = p->written_ns;
	p->behind = true;
	persist_kick(fs);
}

/* For now; it wakes then. */
static bool gives_way(struct persist *p)
{
	uint64_t now = loop_now(p->fs->env.loop), most = p->fs->env.cfg->persist_give_way;

	if (!p->behind || now - p->written_ns >= WRITE_PAUSE_NS || now - p->behind_ns >= most ||
	    pinned(p) > pinned_limit(p) / 2)
		return false;
	wake_in(p, MIN(WRITE_PAUSE_NS - (now - p->written_ns), most - (now - p->behind_ns)));
	return true;
}

/* Has all that is due been stored? */
static bool caught_up(const struct persist *p)
{
	return p->end && p->next_known && !p->again && !p->asking &&
	       p->nwaiting[PERSIST_SMALL] + p->nwaiting[PERSIST_LARGE] == 0 &&
	       p->running[PERSIST_SMALL] + p->running[PERSIST_LARGE] == 0;
}

/* --- The pass */

/* The rows of a page that are due: false if there is no room for the rest of it. */
static bool take_due(struct persist *p)
{
	for (size_t i = 0; i < p->queue.count; i++) {
		const struct meta_entry *e = &p->queue.entries[i];
		const struct meta_content *c = &e->rec.content;
		enum added how = is_due(p, c) ? add(p, e->name, c) : ADDED;

		if (how == NO_MEMORY ||
		    (how == NO_ROOM && size_of(p, c) == PERSIST_SMALL)) {
			if (how == NO_MEMORY)
				wake_in(p, AGAIN_NS);
			return false;
		}
		if (how == NO_ROOM && !p->passed_over) {
			p->passed_over = true;
			p->passed_ns = p->at_ns;
			p->passed_id = p->at_id;
		}
		p->at_ns = c->next_ns;
		p->at_id = c->id;
	}
	return true;
}

static bool before(uint64_t a_ns, uint64_t a_id, uint64_t b_ns, uint64_t b_id)
{
	return a_ns < b_ns || (a_ns == b_ns && a_id <= b_id);
}

/* Those that were passed over, up to where the pass is. */
static void take_large(struct persist *p)
{
	for (size_t i = 0; i < p->queue.count; i++) {
		const struct meta_entry *e = &p->queue.entries[i];
		const struct meta_content *c = &e->rec.content;

		if (!before(c->next_ns, c->id, p->at_ns, p->at_id)) {
			p->passed_over = false;
			return;
		}
		if (size_of(p, c) == PERSIST_LARGE && is_due(p, c) &&
		    add(p, e->name, c) != ADDED)
			return;
		p->passed_ns = c->next_ns;
		p->passed_id = c->id;
	}
	p->passed_over = p->queue.more;
}

static void take_next(struct persist *p)
{
	uint64_t now = loop_wall(p->fs->env.loop), next;

	p->next_known = true;
	if (p->put_off && p->well)
		wake_in(p, p->early_ns - MIN(loop_now(p->fs->env.loop), p->early_ns));
	if (p->queue.count == 0)
		return;
	next = p->queue.entries[0].rec.content.next_ns;
	wake_in(p, next > now ? MIN(next - now, SLEEP_MAX) : 0);
}

static void asked(struct meta_req *r, int err)
{
	struct persist *p = r->user;

	p->asking = false;
	if (err != 0) {
		if (!p->failing)
			log_warn("what is to be stored in the background is not known: %s",
			    strerror(-err));
		p->failing = true;
		meta_queue_free(&p->queue);
		p->end = p->next_known = p->again = true;
		wake_in(p, AGAIN_NS);
		return;
	}
	p->failing = false;
	if (p->ask == ASK_DUE) {
		p->end = take_due(p) && !p->queue.more;
		/* What comes next is known after one of the usual kind. */
		p->again |= p->end && p->early;
	} else if (p->ask == ASK_LARGE)
		take_large(p);
	else
		take_next(p);
	meta_queue_free(&p->queue);
	persist_go_on(p);
}

static void ask(struct persist *p, enum persist_ask what)
{
	p->ask = what;
	p->asking = true;
	if (what == ASK_DUE)
		p->until_ns = p->early ? UINT64_MAX - 1 : loop_wall(p->fs->env.loop);
	memset(&p->queue, 0, sizeof(p->queue));
	p->queue.req.user = p;
	p->queue.max = what == ASK_NEXT ? 1 : PAGE;
	/* UINT64_MAX is that of the failed ones. */
	p->queue.until_ns = what == ASK_NEXT ? UINT64_MAX - 1 : p->until_ns;
	p->queue.after_ns = what == ASK_NEXT	? p->until_ns
			    : what == ASK_LARGE ? p->passed_ns
						: p->at_ns;
	p->queue.after_id = what == ASK_NEXT	? UINT64_MAX
			    : what == ASK_LARGE ? p->passed_id
						: p->at_id;
	meta_queue(p->fs->meta, &p->queue, asked);
}

/* From the first again, with what was passed over.  That may be much: then passes have a
 * pause between them. */
static void begin_pass(struct persist *p)
{
	uint64_t now = loop_now(p->fs->env.loop);

	if (p->passed_over && now - p->began_ns < PASS_PAUSE_NS) {
		wake_in(p, PASS_PAUSE_NS);
		return;
	}
	p->began_ns = now;
	p->again = p->end = p->passed_over = p->next_known = false;
	p->at_ns = p->at_id = 0;
	p->early = takes_early(p);
	timer_cancel(&p->due);
}

static void go_fn(struct deferred *d)
{
	struct persist *p = container_of(d, struct persist, go);

	CHECK_OBJ(p, PERSIST_MAGIC);
	if (p->held || p->fs->db == NULL)
		return;
	tell_parked(p);
	if (caught_up(p)) {
		p->behind = false;
		if (!p->put_off)
			p->early_ns = p->early_wait = 0;
	}
	if (gives_way(p))
		return;
	start_files(p);
	if (p->asking || (p->failing && timer_armed(&p->due)))
		return;
	if (p->passed_over && p->nwaiting[PERSIST_LARGE] == 0) {
		ask(p, ASK_LARGE);
		return;
	}
	if (p->end && p->again)
		begin_pass(p);
	if (!p->end && p->nwaiting[PERSIST_SMALL] <= PERSIST_WAIT_MAX / 2)
		ask(p, ASK_DUE);
	else if (p->end && !p->next_known)
		ask(p, ASK_NEXT);
}

void persist_kick(struct fs *fs)
{
	struct persist *p = fs->persist;

	if (p == NULL || p->held)
		return;
	p->again = true;
	p->next_known = false;
	persist_go_on(p);
}

void persist_recount(struct fs *fs)
{
	if (fs->persist != NULL)
		persist_go_on(fs->persist);
}

/* --- Tries */

uint64_t persist_backoff(struct fs *fs, unsigned tries)
{
	uint64_t max = fs->env.cfg->persist_retry_max, ns = BACKOFF_MIN << MIN(tries, 30u), v;

	ns = MIN(ns, max);
	if (getrandom(&v, sizeof(v), GRND_NONBLOCK) != (ssize_t)sizeof(v))
		v = loop_now(fs->env.loop);
	return ns / 2 + v % (ns / 2 + 1);
}

/* --- Life */

int persist_new(struct persist **out, struct fs *fs)
{
	struct persist *p;

	ALLOC_OBJ(p, PERSIST_MAGIC);
	*out = p;
	if (p == NULL)
		return -ENOMEM;
	p->fs = fs;
	p->held = p->end = true;
	for (unsigned i = 0; i < PERSIST_SIZES; i++)
		TAILQ_INIT(&p->waiting[i]);
	TAILQ_INIT(&p->acts);
	timer_init(&p->due, fs->env.loop, due_fired);
	persist_check_init(p);
	return 0;
}

void persist_free(struct persist **pp)
{
	struct persist *p;

	if (*pp == NULL)
		return;
	TAKE_OBJ(p, pp, PERSIST_MAGIC);
	drop_waiting(p);
	persist_unwatch_all(p);
	assert(p->files == NULL && TAILQ_EMPTY(&p->acts) && !p->asking && p->check == NULL);
	loop_undefer(p->fs->env.loop, &p->go);
	timer_cancel(&p->due);
	timer_cancel(&p->period);
	FREE_OBJ(p);
}

void persist_hold(struct fs *fs)
{
	struct persist *p = fs->persist;
	struct persist_file *f;

	if (p == NULL || p->held)
		return;
	p->held = true;
	if (p->asking) {
		meta_abort(&p->queue.req);
		meta_queue_free(&p->queue);
		p->asking = false;
	}
	loop_undefer(fs->env.loop, &p->go);
	timer_cancel(&p->due);
	persist_check_stop(p);
	persist_act_stop(p);
	drop_waiting(p);
	/* That only marks and defers: the table stays as it is meanwhile. */
	for (f = p->files; f != NULL; f = f->hh.next)
		persist_file_stop(f);
}

void persist_resume(struct fs *fs)
{
	struct persist *p = fs->persist;

	if (p == NULL || !p->held || fs->db == NULL)
		return;
	p->held = false;
	p->end = p->again = true;
	p->next_known = p->passed_over = p->behind = p->early = false;
	persist_check_resume(p);
	persist_go_on(p);
}

/* --- What is told */

void persist_info(struct fs *fs, struct persist_info *out)
{
	struct persist *p = fs->persist;
	struct meta_status ms;

	memset(out, 0, sizeof(*out));
	if (p == NULL)
		return;
	memset(&ms, 0, sizeof(ms));
	meta_status(fs->meta, &ms);
	out->running = p->running[PERSIST_SMALL] + p->running[PERSIST_LARGE];
	out->waiting = ms.tally.files[META_STATE_NOT_PERSISTED];
	out->waiting_bytes = ms.tally.bytes[META_STATE_NOT_PERSISTED];
	out->failed = ms.tally.files[META_STATE_FAILED];
	out->transient = ms.tally.files[META_STATE_TRANSIENT];
	out->persisted = p->persisted;
	out->pinned_bytes = pinned(p);
	out->pinned_limit = pinned_limit(p);
	out->outside = p->outside.files;
	out->outside_bytes = p->outside.bytes;
	out->outside_failed = p->outside.failed;
	if (out->waiting > 0) {
		if (p->oldest_ns == 0 || (!p->outside_known && fs->root[0] != '\0'))
			persist_check_start(p, true);
		out->oldest_ns = p->oldest_ns;
	}
	memcpy(out->error, p->error, sizeof(out->error));
}

bool persist_runs(struct fs *fs, uint64_t content)
{
	struct persist_file *f = fs->persist != NULL ? persist_find(fs->persist, content) : NULL;

	return f != NULL && f->s != NULL;
}
