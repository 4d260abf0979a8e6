/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs load and fs free: some files of the caller's list at a time.  Each has a row
 * when it has ended; between, rows say how far those are that run, so that a
 * client can tell a slow daemon from a dead one.  Trees are the client's part: it
 * lists them, and what it sent is all that is lost when the daemon changes.
 */
#include <errno.h>
#include <string.h>

#include "base/obj.h"
#include "base/units.h"
#include "cache/cache.h"
#include "ctl/ctl_fs.h"
#include "ctl/ctl_priv.h"
#include "daemon.h"
#include "reactor/task.h"
#include "reactor/timer.h"

#define SIDE_BY_SIDE 8
#define DROP_PAGES 1024 /* in one go on the loop */
#define BEAT (500 * NS_PER_MS)

enum fill_state { FILL_IDLE, FILL_STAT, FILL_LOAD, FILL_DROP };

struct fill_item {
	struct fill *fill;
	enum fill_state state;
	char *nspath;
	struct ufs_stat stat;
	struct blob *blob;
	struct cache_load load;
	struct cache_loaded loaded;
	uint64_t from; /* first page not looked at */
};

struct fill {
	struct task task;
	struct ctl_cmd *cmd;
	bool load; /* or free */
	const struct json *next; /* path */
	struct fill_item item[SIDE_BY_SIDE];
	unsigned running;
	uint64_t done, failed;
	struct timer beat;
};

enum { FILL_RUN, FILL_ANSWER };

static const char *why(int err)
{
	switch (err) {
	case -ENOSPC:
		return "the cache disk did not take all of it; `batonfs status` says why";
	case -EOPNOTSUPP:
		return "there is no page store to fill: worker.page.store.dir is not set";
	case -EBUSY:
		return "a part of it is being read now and stays";
	case -ECANCELED:
		return "the daemon ends or was replaced; ask again";
	default:
		return strerror(-err);
	}
}

static void put_row(struct json_out *o, const struct fill_item *it)
{
	json_add_text(o, "path", it->nspath);
	json_add_u64(o, "size", it->stat.attr.size);
	json_add_u64(o, "cached_bytes", it->blob != NULL ? cache_blob_cached(it->blob) : 0);
}

static void send_row(struct fill_item *it, int err)
{
	struct json_out *o = ctl_progress_begin(it->fill->cmd);

	if (o != NULL) {
		json_open_object(o);
		put_row(o, it);
		json_add_bool(o, "ok", err == 0);
		if (err != 0)
			json_add_text(o, "error", why(err));
		json_close_object(o);
	}
	ctl_progress_send(it->fill->cmd, &o);
}

static void start_next(struct fill *f, struct fill_item *it);

static void item_end(struct fill_item *it, int err)
{
	struct fill *f = it->fill;

	/* Not the file's failure: this daemon does no more. */
	if (err == -ECANCELED)
		task_cancel(&f->task, err);
	if (task_err(&f->task) == 0)
		send_row(it, err);
	f->done += err == 0;
	f->failed += err != 0;
	if (it->blob != NULL)
		cache_blob_put(&it->blob);
	free(it->nspath);
	it->nspath = NULL;
	it->state = FILL_IDLE;
	f->running--;
	if (task_err(&f->task) == 0)
		start_next(f, it);
	if (f->running == 0)
		task_resume(&f->task);
}

static void load_ended(struct cache_load *l, int err)
{
	item_end(container_of(l, struct fill_item, load), err);
}

static void item_drop(struct cache_loaded *w)
{
	struct fill_item *it = container_of(w, struct fill_item, loaded);
	int err = task_err(&it->fill->task);

	if (err == 0 && cache_blob_drop(it->blob, &it->from, DROP_PAGES)) {
		cache_when_loaded(it->fill->cmd->d->cache, w, item_drop);
		return;
	}
	if (err == 0 && cache_blob_cached(it->blob) > 0)
		err = -EBUSY;
	item_end(it, err);
}

static void item_statted(struct ufs_req *r, int err)
{
	struct fill_item *it = container_of(r, struct fill_item, stat.req);
	struct cache *c = it->fill->cmd->d->cache;
	const struct ctl_fs_entry e = {
	    .ufs = r->ufs,
	    .path = it->stat.path,
	    .attr = &it->stat.attr,
	};

	if (err == 0 && it->stat.attr.kind == UFS_DIR)
		err = -EISDIR;
	if (err == 0) {
		it->blob = ctl_fs_blob(it->fill->cmd->d, &e);
		if (it->blob == NULL)
			err = -ENOMEM;
	}
	if (err != 0) {
		item_end(it, err);
	} else if (it->fill->load) {
		it->state = FILL_LOAD;
		cache_load_start(&it->load, it->blob, load_ended);
	} else {
		it->state = FILL_DROP;
		cache_when_loaded(c, &it->loaded, item_drop);
	}
}

/* Begins the next path; those that cannot even begin end at once. */
static void start_next(struct fill *f, struct fill_item *it)
{
	while (f->next != NULL) {
		const char *given = json_text(f->next);
		struct ufs *u;
		int err;

		f->next = f->next->next;
		memset(it, 0, sizeof(*it));
		it->fill = f;
		it->nspath = ctl_fs_plain(given);
		err = it->nspath == NULL ? -ENOMEM : 0;
		if (err == 0)
			err = fs_resolve(f->cmd->d->fs, it->nspath, &u, &it->stat.path);
		if (err == 0) {
			it->state = FILL_STAT;
			f->running++;
			ufs_stat(u, &it->stat, item_statted);
			return;
		}
		send_row(it, err);
		f->failed++;
		free(it->nspath);
		it->nspath = NULL;
	}
}

static void beat(struct timer *t)
{
	struct fill *f = container_of(t, struct fill, beat);

	for (unsigned i = 0; i < SIDE_BY_SIDE; i++) {
		struct json_out *o;

		if (f->item[i].blob == NULL || ctl_blocked(f->cmd))
			continue;
		o = ctl_progress_begin(f->cmd);
		if (o != NULL) {
			json_open_object(o);
			put_row(o, &f->item[i]);
			json_close_object(o);
		}
		ctl_progress_send(f->cmd, &o);
	}
	timer_arm(&f->beat, BEAT);
}

static enum task_next fill_run(struct task *t)
{
	struct fill *f = container_of(t, struct fill, task);

	if (task_err(t) != 0)
		return task_goto(t, FILL_ANSWER);
	for (unsigned i = 0; i < SIDE_BY_SIDE; i++)
		start_next(f, &f->item[i]);
	if (f->running == 0)
		return task_goto(t, FILL_ANSWER);
	timer_arm(&f->beat, BEAT);
	return task_wait(t, FILL_ANSWER, NULL);
}

static enum task_next fill_answer(struct task *t)
{
	struct fill *f = container_of(t, struct fill, task);
	struct json_out *o;

	timer_cancel(&f->beat);
	if (task_err(t) != 0) {
		ctl_fail(f->cmd, task_err(t), "%s", why(task_err(t)));
		return task_end(t);
	}
	o = ctl_result_begin(f->cmd);
	if (o != NULL) {
		json_open_object(o);
		json_add_u64(o, "done", f->done);
		json_add_u64(o, "failed", f->failed);
		json_close_object(o);
	}
	ctl_result_send(f->cmd, &o);
	return task_end(t);
}

static void fill_fini(struct task *t)
{
	free(container_of(t, struct fill, task));
}

static const struct task_step fill_steps[] = {
    [FILL_RUN] = {"run", fill_run, TO(FILL_ANSWER)},
    [FILL_ANSWER] = {"answer", fill_answer, 0},
};
static const struct task_kind fill_kind = {"ctl fs fill", fill_steps, ARRAY_LEN(fill_steps),
    fill_fini};

static void fill_cancel(struct ctl_cmd *cmd)
{
	struct fill *f = cmd->priv;

	task_cancel(&f->task, -ECANCELED);
	timer_cancel(&f->beat);
	for (unsigned i = 0; i < SIDE_BY_SIDE; i++) {
		struct fill_item *it = &f->item[i];

		if (it->state == FILL_STAT)
			ufs_abort(&it->stat.req);
		else if (it->state == FILL_LOAD)
			cache_load_abort(&it->load);
		else
			continue; /* not begun, or it soon ends by itself */
		item_end(it, -ECANCELED);
	}
}

static void fill_start(struct ctl_cmd *cmd, bool load)
{
	const struct json *paths = json_get(cmd->rq.args, "paths");
	struct fill *f;

	for (const struct json *p = paths->first; p != NULL; p = p->next) {
		if (json_text(p) == NULL || json_text(p)[0] != '/') {
			ctl_fail(cmd, -EINVAL, "paths: a namespace path begins with \"/\"");
			return;
		}
	}
	f = calloc(1, sizeof(*f));
	if (f == NULL) {
		ctl_fail(cmd, -ENOMEM, "out of memory");
		return;
	}
	f->cmd = cmd;
	f->load = load;
	f->next = paths->first;
	timer_init(&f->beat, cmd->ctl->loop, beat);
	cmd->priv = f;
	cmd->cancel = fill_cancel;
	task_start(&f->task, cmd->ctl->loop, &fill_kind);
}

void ctl_fs_load(struct ctl_cmd *cmd)
{
	fill_start(cmd, true);
}

void ctl_fs_free(struct ctl_cmd *cmd)
{
	fill_start(cmd, false);
}
