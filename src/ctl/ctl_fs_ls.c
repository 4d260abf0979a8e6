/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs ls [-R]: rows go out as progress while the storage is listed, so a tree of any
 * size needs the memory of one listing page a level.  A level is a frame on a stack;
 * with -R a directory is entered as soon as its row went out, which gives the order
 * of the keys.  Files that are not in the storage yet come from the metadata store, whose
 * pages are merged in; of a name that both have, what the metadata store says counts.
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
#include "ufs/ufs_page.h"

struct ls_frame {
	struct ls_frame *up;
	char *nspath;
	struct ufs *ufs;
	struct ufs_list list;
	size_t pos;	    /* next entry of the page */
	struct blob **blob; /* of each entry of the page, or NULL */
	char after[UFS_NAME_MAX + 1];
	bool listed; /* there is a page, or was the last */
	/* The same of the metadata store. */
	struct meta_scan scan;
	size_t rpos;
	char rafter[META_NAME_MAX + 1];
	bool scanned;
};

struct fs_ls {
	struct task task;
	struct ctl_cmd *cmd;
	char *nspath;
	bool recursive;
	struct meta_get get;
	struct ufs_stat stat;
	struct ctl_fs_entry only; /* if the path is a file */
	struct blob *only_blob;
	struct cache_loaded loaded;
	struct ufs_req *running; /* what a cancel has to abort */
	struct meta_req *reading;
	int err;		 /* of the request that ended */
	struct ls_frame *frame;	 /* innermost */
	bool stopped;		 /* waits until the client has taken what there is */
	uint64_t rows;
};

enum {
	LS_RECORD,
	LS_GOT,
	LS_STAT,
	LS_STATTED,
	LS_FILE,
	LS_LIST,
	LS_LISTED,
	LS_SCAN,
	LS_SCANNED,
	LS_ROWS,
	LS_ANSWER
};

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
	if (ls->reading != NULL)
		meta_abort(ls->reading);
	ls->reading = NULL;
	ls->stopped = false;
}

static void ls_done(struct ufs_req *r, int err)
{
	struct fs_ls *ls = r->user;

	ls->running = NULL;
	ls->err = err;
	task_resume(&ls->task);
}

static void ls_read(struct meta_req *r, int err)
{
	struct fs_ls *ls = r->user;

	ls->reading = NULL;
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

static enum task_next ls_record(struct task *t)
{
	struct fs_ls *ls = ls_of(t);

	if (ls->cmd->d->meta == NULL || task_err(t) != 0)
		return task_goto(t, LS_STAT);
	ls->get.path = ls->nspath + 1;
	ls->get.req.user = ls;
	ls->reading = &ls->get.req;
	meta_get(ls->cmd->d->meta, &ls->get, ls_read);
	return task_wait(t, LS_GOT, ls_leave);
}

/* A file that is not in the storage needs none of it. */
static enum task_next ls_got(struct task *t)
{
	struct fs_ls *ls = ls_of(t);

	if (task_err(t) != 0 || ls->err != 0 || !ctl_fs_unpersisted(&ls->get.rec))
		return task_goto(t, LS_STAT);
	ctl_fs_record_attr(ls->cmd->d, &ls->get.rec, &ls->stat.attr);
	ls->only = (struct ctl_fs_entry){
	    .nspath = ls->nspath, .attr = &ls->stat.attr, .rec = &ls->get.rec};
	return task_goto(t, LS_FILE);
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
	fr->scan.path = fr->nspath + 1;
	fr->scan.req.user = ls;
	fr->scanned = ls->cmd->d->meta == NULL;
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
	meta_scan_free(&fr->scan);
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
		struct ctl_fs_entry e = {.rec = NULL};
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
	ls->frame->listed = true;
	rc = ls_get_blobs(ls);
	return rc != 0 ? ls_fail(ls, rc) : ls_load(ls, LS_ROWS);
}

/* The level's page is used up: its next page. */
static enum task_next ls_page_end(struct fs_ls *ls)
{
	struct ls_frame *fr = ls->frame;

	ls_put_blobs(fr);
	if (fr->list.count > 0) {
		const struct ufs_entry *last = &fr->list.entries[fr->list.count - 1];

		memcpy(fr->after, last->name, last->name_len + 1);
		fr->list.after = fr->after;
		fr->list.after_kind = last->attr.kind;
	}
	return task_goto(&ls->task, LS_LIST);
}

/* --- Files that the storage has not got */

static enum task_next ls_scan(struct task *t)
{
	struct fs_ls *ls = ls_of(t);
	struct ls_frame *fr = ls->frame;

	if (task_err(t) != 0)
		return task_goto(t, LS_ANSWER);
	if (fr->scan.count > 0) {
		snprintf(fr->rafter, sizeof(fr->rafter), "%s",
		    fr->scan.entries[fr->scan.count - 1].name);
		fr->scan.after = fr->rafter;
	}
	ls->reading = &fr->scan.req;
	meta_scan(ls->cmd->d->meta, &fr->scan, ls_read);
	return task_wait(t, LS_SCANNED, ls_leave);
}

static enum task_next ls_scanned(struct task *t)
{
	struct fs_ls *ls = ls_of(t);

	if (task_fail(t, ls->err) != 0)
		return task_goto(t, LS_ANSWER);
	ls->frame->rpos = 0;
	ls->frame->scanned = true;
	return task_goto(t, LS_ROWS);
}

/* The next of them; NULL: none in this page. */
static const struct meta_entry *ls_unpersisted(struct ls_frame *fr)
{
	for (; fr->rpos < fr->scan.count; fr->rpos++)
		if (ctl_fs_unpersisted(&fr->scan.entries[fr->rpos].rec))
			return &fr->scan.entries[fr->rpos];
	return NULL;
}

static int ls_put_record(struct fs_ls *ls, const struct meta_entry *me)
{
	const struct ufs_entry en = {.name = me->name};
	char *nspath = ls_join(ls->frame, &en);
	struct ctl_fs_entry e = {.nspath = nspath, .rec = &me->rec};
	struct ufs_attr attr;

	if (nspath == NULL)
		return -ENOMEM;
	ctl_fs_record_attr(ls->cmd->d, &me->rec, &attr);
	e.attr = &attr;
	ls_row(ls, &e);
	free(nspath);
	return 0;
}

/* The row of an entry; with -R a directory becomes the new innermost level. */
static int ls_entry(struct fs_ls *ls, size_t i)
{
	struct ctl_fs_entry e = {.rec = NULL};
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

/* The first of the two lists. */
static int ls_next(struct fs_ls *ls, const struct meta_entry *me)
{
	struct ls_frame *fr = ls->frame;
	const struct ufs_entry *en;
	int cmp = 1;

	if (fr->pos < fr->list.count) {
		en = &fr->list.entries[fr->pos];
		cmp = me == NULL ? -1
				 : ufs_key_cmp(en->name, en->name_len, en->attr.kind, me->name,
				       strlen(me->name), UFS_FILE);
	}
	if (cmp < 0)
		return ls_entry(ls, fr->pos++);
	if (cmp == 0)
		fr->pos++;
	fr->rpos++;
	return ls_put_record(ls, me);
}

static enum task_next ls_rows(struct task *t)
{
	struct fs_ls *ls = ls_of(t);
	struct ls_frame *fr = ls->frame;
	const struct meta_entry *me;
	int rc;

	if (task_err(t) != 0)
		return task_goto(t, LS_ANSWER);
	for (;;) {
		if (fr->pos >= fr->list.count && (!fr->listed || fr->list.more))
			return ls_page_end(ls);
		me = ls_unpersisted(fr);
		if (me == NULL && (!fr->scanned || fr->scan.more))
			return task_goto(t, LS_SCAN);
		if (me == NULL && fr->pos >= fr->list.count)
			break;
		if (ctl_blocked(ls->cmd)) {
			ls->stopped = true;
			return task_wait(t, LS_ROWS, ls_leave);
		}
		rc = ls_next(ls, me);
		if (rc != 0)
			return ls_fail(ls, rc);
		if (ls->frame != fr)
			return task_goto(t, LS_LIST);
	}
	ls_pop(ls);
	return task_goto(t, ls->frame != NULL ? LS_ROWS : LS_ANSWER);
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
    [LS_RECORD] = {"record", ls_record, TO(LS_GOT) | TO(LS_STAT)},
    [LS_GOT] = {"got", ls_got, TO(LS_STAT) | TO(LS_FILE)},
    [LS_STAT] = {"stat", ls_stat, TO(LS_STATTED) | TO(LS_ANSWER)},
    [LS_STATTED] = {"statted", ls_statted, TO(LS_FILE) | TO(LS_LIST) | TO(LS_ANSWER)},
    [LS_FILE] = {"file", ls_file, TO(LS_ANSWER)},
    [LS_LIST] = {"list", ls_list, TO(LS_LISTED) | TO(LS_ANSWER)},
    [LS_LISTED] = {"listed", ls_listed, TO(LS_ROWS) | TO(LS_ANSWER)},
    [LS_SCAN] = {"scan", ls_scan, TO(LS_SCANNED) | TO(LS_ANSWER)},
    [LS_SCANNED] = {"scanned", ls_scanned, TO(LS_ROWS) | TO(LS_ANSWER)},
    [LS_ROWS] = {"rows", ls_rows, TO(LS_ROWS) | TO(LS_LIST) | TO(LS_SCAN) | TO(LS_ANSWER)},
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
