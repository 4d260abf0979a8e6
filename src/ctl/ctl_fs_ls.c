/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs ls [-R]: rows go out as progress while the storage is listed, so a tree of any
 * size needs the memory of one listing page a level.  A level is a frame on a stack;
 * with -R a directory is entered as soon as its row went out, which gives the order
 * of the keys.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/obj.h"
#include "cache/cache.h"
#include "ctl/ctl_fs.h"
#include "ctl/ctl_priv.h"
#include "daemon.h"
#include "reactor/task.h"

struct ls_frame {
	struct ls_frame *up;
	char *nspath;
	struct ufs *ufs;
	struct ufs_list list;
	size_t pos;	    /* next entry of the page */
	struct blob **blob; /* of each entry of the page, or NULL */
	char after[UFS_NAME_MAX + 1];
};

struct fs_ls {
	struct task task;
	struct ctl_cmd *cmd;
	char *nspath;
	bool recursive;
	struct ufs_stat stat;
	struct ctl_fs_entry only; /* if the path is a file */
	struct blob *only_blob;
	struct cache_loaded loaded;
	struct ufs_req *running; /* what a cancel has to abort */
	int err;		 /* of the request that ended */
	struct ls_frame *frame;	 /* innermost */
	bool stopped;		 /* waits until the client has taken what there is */
	uint64_t rows;
};

enum { LS_STAT, LS_STATTED, LS_FILE, LS_LIST, LS_LISTED, LS_ROWS, LS_ANSWER };

static struct fs_ls *ls_of(struct task *t)
{
	return container_of(t, struct fs_ls, task);
}

static void ls_leave(struct task *t)
{
	struct fs_ls *ls = ls_of(t);

	if (ls->running != NULL)
		ufs_abort(ls->running);
	ls->running = NULL;
	ls->stopped = false;
}

static void ls_done(struct ufs_req *r, int err)
{
	struct fs_ls *ls = r->user;

	ls->running = NULL;
	ls->err = err;
	task_resume(&ls->task);
}

static void ls_loaded(struct cache_loaded *w)
{
	task_resume(&container_of(w, struct fs_ls, loaded)->task);
}

/* Goes on when the cache knows how much it has of the blobs that were got. */
static enum task_next ls_load(struct fs_ls *ls, unsigned step)
{
	cache_when_loaded(ls->cmd->d->cache, &ls->loaded, ls_loaded);
	return task_wait(&ls->task, step, NULL);
}

static enum task_next ls_fail(struct fs_ls *ls, int err)
{
	task_fail(&ls->task, err);
	return task_goto(&ls->task, LS_ANSWER);
}

static void ls_row(struct fs_ls *ls, const struct ctl_fs_entry *e)
{
	struct json_out *o = ctl_progress_begin(ls->cmd);

	if (o != NULL) {
		json_open_object(o);
		ctl_fs_put_entry(o, ls->cmd->d, e);
		json_close_object(o);
	}
	ctl_progress_send(ls->cmd, &o);
	ls->rows++;
}

static enum task_next ls_stat(struct task *t)
{
	struct fs_ls *ls = ls_of(t);
	struct ufs *u;
	int rc = task_err(t);

	if (rc == 0)
		rc = fs_resolve(ls->cmd->d->fs, ls->nspath, &u, &ls->stat.path);
	if (rc == 0 && fs_deleted(ls->cmd->d->fs, ls->nspath))
		rc = -ENOENT;
	if (rc != 0)
		return ls_fail(ls, rc);
	ls->stat.req.user = ls;
	ls->running = &ls->stat.req;
	ufs_stat(u, &ls->stat, ls_done);
	return task_wait(t, LS_STATTED, ls_leave);
}

/* A new innermost level for a directory; takes nspath over. */
static int ls_push(struct fs_ls *ls, char *nspath)
{
	struct ls_frame *fr = calloc(1, sizeof(*fr));
	int rc;

	if (fr == NULL || nspath == NULL) {
		free(nspath);
		free(fr);
		return -ENOMEM;
	}
	fr->nspath = nspath;
	fr->up = ls->frame;
	ls->frame = fr;
	rc = fs_resolve(ls->cmd->d->fs, nspath, &fr->ufs, &fr->list.path);
	fr->list.req.user = ls;
	return rc;
}

static void ls_put_blobs(struct ls_frame *fr)
{
	for (size_t i = 0; fr->blob != NULL && i < fr->list.count; i++)
		if (fr->blob[i] != NULL)
			cache_blob_put(&fr->blob[i]);
	free(fr->blob);
	fr->blob = NULL;
}

static void ls_pop(struct fs_ls *ls)
{
	struct ls_frame *fr = ls->frame;

	ls->frame = fr->up;
	ls_put_blobs(fr);
	ufs_list_free(&fr->list);
	free(fr->nspath);
	free(fr);
}

static enum task_next ls_statted(struct task *t)
{
	struct fs_ls *ls = ls_of(t);
	int rc = task_fail(t, ls->err);

	if (rc != 0)
		return ls_fail(ls, rc);
	if (ls->stat.attr.kind == UFS_FILE) {
		ls->only = (struct ctl_fs_entry){
		    .nspath = ls->nspath,
		    .ufs = ls->stat.req.ufs,
		    .path = ls->stat.path,
		    .attr = &ls->stat.attr,
		};
		ls->only_blob = ctl_fs_blob(ls->cmd->d, &ls->only);
		ls->only.blob = ls->only_blob;
		return ls_load(ls, LS_FILE);
	}
	rc = ls_push(ls, strdup(ls->nspath));
	return rc != 0 ? ls_fail(ls, rc) : task_goto(t, LS_LIST);
}

static enum task_next ls_file(struct task *t)
{
	struct fs_ls *ls = ls_of(t);

	if (task_err(t) == 0)
		ls_row(ls, &ls->only);
	return task_goto(t, LS_ANSWER);
}

static enum task_next ls_list(struct task *t)
{
	struct fs_ls *ls = ls_of(t);
	struct ls_frame *fr = ls->frame;

	if (task_err(t) != 0)
		return task_goto(t, LS_ANSWER);
	ls->running = &fr->list.req;
	ufs_list(fr->ufs, &fr->list, ls_done);
	return task_wait(t, LS_LISTED, ls_leave);
}

static char *ls_join(const struct ls_frame *fr, const struct ufs_entry *en)
{
	const char *dir = strcmp(fr->nspath, "/") == 0 ? "" : fr->nspath;
	char *s;

	return asprintf(&s, "%s/%s", dir, en->name) < 0 ? NULL : s;
}

/* An entry of the innermost level with its namespace path, to be freed. */
static int ls_resolve(struct fs_ls *ls, size_t i, struct ctl_fs_entry *e, char **nspath)
{
	const struct ufs_entry *en = &ls->frame->list.entries[i];
	int rc;

	*nspath = ls_join(ls->frame, en);
	if (*nspath == NULL)
		return -ENOMEM;
	e->nspath = *nspath;
	e->attr = &en->attr;
	e->blob = ls->frame->blob[i];
	rc = fs_resolve(ls->cmd->d->fs, *nspath, &e->ufs, &e->path);
	if (rc != 0) {
		free(*nspath);
		*nspath = NULL;
	}
	return rc;
}

static int ls_get_blobs(struct fs_ls *ls)
{
	struct ls_frame *fr = ls->frame;

	fr->blob = calloc(fr->list.count + 1, sizeof(*fr->blob));
	if (fr->blob == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < fr->list.count; i++) {
		struct ctl_fs_entry e;
		char *nspath;
		int rc = ls_resolve(ls, i, &e, &nspath);

		if (rc != 0)
			return rc;
		fr->blob[i] = ctl_fs_blob(ls->cmd->d, &e);
		free(nspath);
	}
	return 0;
}

static enum task_next ls_listed(struct task *t)
{
	struct fs_ls *ls = ls_of(t);
	int rc;

	/* A directory below that went away since its row was read is no error. */
	if (task_err(t) == 0 && ls->err == -ENOENT && ls->frame->up != NULL) {
		ls_pop(ls);
		return task_goto(t, LS_ROWS);
	}
	if (task_fail(t, ls->err) != 0)
		return task_goto(t, LS_ANSWER);
	ls->frame->pos = 0;
	rc = ls_get_blobs(ls);
	return rc != 0 ? ls_fail(ls, rc) : ls_load(ls, LS_ROWS);
}

/* The level's page is used up: its next page, or back to the level above. */
static enum task_next ls_page_end(struct fs_ls *ls)
{
	struct ls_frame *fr = ls->frame;

	ls_put_blobs(fr);
	if (fr->list.more) {
		if (fr->list.count > 0) {
			const struct ufs_entry *last = &fr->list.entries[fr->list.count - 1];

			memcpy(fr->after, last->name, last->name_len + 1);
			fr->list.after = fr->after;
			fr->list.after_kind = last->attr.kind;
		}
		return task_goto(&ls->task, LS_LIST);
	}
	ls_pop(ls);
	return task_goto(&ls->task, ls->frame != NULL ? LS_ROWS : LS_ANSWER);
}

/* The row of an entry; with -R a directory becomes the new innermost level. */
static int ls_entry(struct fs_ls *ls, size_t i)
{
	struct ctl_fs_entry e;
	char *nspath;
	int rc = ls_resolve(ls, i, &e, &nspath);

	if (rc != 0)
		return rc;
	if (fs_deleted(ls->cmd->d->fs, nspath)) {
		free(nspath);
		return 0;
	}
	ls_row(ls, &e);
	if (ls->recursive && e.attr->kind == UFS_DIR)
		return ls_push(ls, nspath);
	free(nspath);
	return 0;
}

static enum task_next ls_rows(struct task *t)
{
	struct fs_ls *ls = ls_of(t);
	struct ls_frame *fr = ls->frame;
	int rc;

	if (task_err(t) != 0)
		return task_goto(t, LS_ANSWER);
	while (fr->pos < fr->list.count) {
		if (ctl_blocked(ls->cmd)) {
			ls->stopped = true;
			return task_wait(t, LS_ROWS, ls_leave);
		}
		rc = ls_entry(ls, fr->pos++);
		if (rc != 0)
			return ls_fail(ls, rc);
		if (ls->frame != fr)
			return task_goto(t, LS_LIST);
	}
	return ls_page_end(ls);
}

static enum task_next ls_answer(struct task *t)
{
	struct fs_ls *ls = ls_of(t);
	struct json_out *o;

	if (task_err(t) != 0) {
		ctl_fs_fail(ls->cmd, task_err(t),
		    ls->frame != NULL ? ls->frame->nspath : ls->nspath);
		return task_end(t);
	}
	o = ctl_result_begin(ls->cmd);
	if (o != NULL) {
		json_open_object(o);
		json_add_u64(o, "count", ls->rows);
		json_close_object(o);
	}
	ctl_result_send(ls->cmd, &o);
	return task_end(t);
}

static void ls_fini(struct task *t)
{
	struct fs_ls *ls = ls_of(t);

	while (ls->frame != NULL)
		ls_pop(ls);
	if (ls->only_blob != NULL)
		cache_blob_put(&ls->only_blob);
	free(ls->nspath);
	free(ls);
}

static const struct task_step ls_steps[] = {
    [LS_STAT] = {"stat", ls_stat, TO(LS_STATTED) | TO(LS_ANSWER)},
    [LS_STATTED] = {"statted", ls_statted, TO(LS_FILE) | TO(LS_LIST) | TO(LS_ANSWER)},
    [LS_FILE] = {"file", ls_file, TO(LS_ANSWER)},
    [LS_LIST] = {"list", ls_list, TO(LS_LISTED) | TO(LS_ANSWER)},
    [LS_LISTED] = {"listed", ls_listed, TO(LS_ROWS) | TO(LS_ANSWER)},
    [LS_ROWS] = {"rows", ls_rows, TO(LS_ROWS) | TO(LS_LIST) | TO(LS_ANSWER)},
    [LS_ANSWER] = {"answer", ls_answer, 0},
};
static const struct task_kind ls_kind = {"ctl fs ls", ls_steps, ARRAY_LEN(ls_steps), ls_fini};

static void ls_cancel(struct ctl_cmd *cmd)
{
	struct fs_ls *ls = cmd->priv;

	task_cancel(&ls->task, -ECANCELED);
}

static void ls_drained(struct ctl_cmd *cmd)
{
	struct fs_ls *ls = cmd->priv;

	if (!ls->stopped)
		return;
	ls->stopped = false;
	task_resume(&ls->task);
}

void ctl_fs_ls(struct ctl_cmd *cmd)
{
	struct fs_ls *ls;
	char *nspath = ctl_fs_path(cmd);

	if (nspath == NULL)
		return;
	ls = calloc(1, sizeof(*ls));
	if (ls == NULL) {
		free(nspath);
		ctl_fail(cmd, -ENOMEM, "out of memory");
		return;
	}
	ls->cmd = cmd;
	ls->nspath = nspath;
	ls->recursive = json_get_bool(cmd->rq.args, "recursive", false);
	cmd->priv = ls;
	cmd->cancel = ls_cancel;
	cmd->drained = ls_drained;
	task_start(&ls->task, cmd->ctl->loop, &ls_kind);
}
