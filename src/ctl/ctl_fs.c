/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl/ctl_fs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/obj.h"
#include "cache/cache.h"
#include "ctl/ctl_persist.h"
#include "ctl/ctl_priv.h"
#include "daemon.h"
#include "ops/fs_priv.h"
#include "ops/policy.h"
#include "reactor/task.h"

void ctl_fs_fail(struct ctl_cmd *cmd, int err, const char *nspath)
{
	/* Only our own end cancels a command that still has somebody to hear it. */
	ctl_fail(cmd, err, "%s: %s", nspath,
	    err == -ECANCELED ? "the daemon ends or was replaced; ask again" : strerror(-err));
}

char *ctl_fs_plain(const char *given)
{
	char *out = malloc(strlen(given) + 1);
	size_t n = 0;

	if (out == NULL)
		return NULL;
	for (const char *p = given; *p != '\0'; p++)
		if (*p != '/' || n == 0 || out[n - 1] != '/')
			out[n++] = *p;
	if (n > 1 && out[n - 1] == '/')
		n--;
	out[n] = '\0';
	return out;
}

char *ctl_fs_path(struct ctl_cmd *cmd)
{
	const char *given = json_get_text(cmd->rq.args, "path", "");
	char *out;

	if (given[0] != '/') {
		ctl_fail(cmd, -EINVAL, "%s: a namespace path begins with \"/\"", given);
		return NULL;
	}
	out = ctl_fs_plain(given);
	if (out == NULL)
		ctl_fail(cmd, -ENOMEM, "out of memory");
	return out;
}

struct blob *ctl_fs_blob(struct daemon *d, const struct ctl_fs_entry *e)
{
	struct blob_id id = {
	    .ufs = e->ufs,
	    .path = e->path,
	    .version = e->attr->version,
	    .size = e->attr->size,
	};

	return e->attr->kind == UFS_DIR ? NULL : cache_blob_get(d->cache, &id);
}

void ctl_fs_put_entry(struct json_out *o, struct daemon *d, const struct ctl_fs_entry *e)
{
	const struct ufs_attr *at = e->attr;
	uint64_t cached;

	json_add_text(o, "path", e->nspath);
	json_add_text(o, "kind", at->kind == UFS_DIR ? "directory" : "file");
	json_add_u64(o, "size", at->size);
	json_add_i64(o, "mtime", at->mtime.tv_sec);
	json_add_text(o, "persistence",
	    at->kind == UFS_DIR ? "PERSISTED" : ctl_persistence(d, e->nspath, e->rec));
	if (at->kind == UFS_DIR) {
		json_add_null(o, "cached_bytes");
		json_add_null(o, "cached_percent");
		json_add_null(o, "stored_bytes");
		return;
	}
	/* What is not in the storage is all here, or not at all. */
	if (e->rec != NULL && ctl_fs_unpersisted(e->rec)) {
		bool here = meta_is_here(d->meta, &e->rec->content);

		json_add_u64(o, "cached_bytes", here ? at->size : 0);
		json_add_u64(o, "cached_percent", here ? 100 : 0);
		json_add_u64(o, "stored_bytes", here ? at->size : 0);
		return;
	}
	cached = e->blob != NULL ? cache_blob_cached(e->blob) : 0;
	json_add_u64(o, "cached_bytes", cached);
	json_add_u64(o, "cached_percent", at->size == 0 ? 100 : cached * 100 / at->size);
	json_add_u64(o, "stored_bytes", e->blob != NULL ? cache_blob_stored(e->blob) : 0);
}

bool ctl_fs_unpersisted(const struct meta_record *rec)
{
	return (rec->has & META_HAS_CONTENT) != 0 && rec->content.state != META_STATE_PERSISTED;
}

void ctl_fs_record_attr(const struct daemon *d, const struct meta_record *rec,
    struct ufs_attr *attr)
{
	memset(attr, 0, sizeof(*attr));
	attr->kind = UFS_FILE;
	attr->size = rec->content.size;
	attr->mtime = rec->mtime;
	attr->have_mode = (rec->has & (META_HAS_MODE | META_HAS_UID | META_HAS_GID)) != 0;
	attr->mode = (rec->has & META_HAS_MODE) != 0 ? rec->mode : d->fs->file_mode;
	attr->uid = (rec->has & META_HAS_UID) != 0 ? rec->uid : d->fs->uid;
	attr->gid = (rec->has & META_HAS_GID) != 0 ? rec->gid : d->fs->gid;
}

/* --- fs stat, fs explain */

struct fs_stat {
	struct task task;
	struct ctl_cmd *cmd;
	char *nspath;
	struct meta_get get;
	bool record; /* get.rec: there is one */
	struct ufs_stat rq;
	struct ctl_fs_entry entry;
	struct blob *blob;
	struct cache_loaded loaded;
	bool explain;
};

enum { ST_RECORD, ST_ASK, ST_LOAD, ST_ANSWER };

static void st_leave_record(struct task *t)
{
	meta_abort(&container_of(t, struct fs_stat, task)->get.req);
}

static void st_recorded(struct meta_req *r, int err)
{
	struct fs_stat *st = container_of(r, struct fs_stat, get.req);

	st->record = err == 0;
	task_resume(&st->task);
}

static enum task_next st_record(struct task *t)
{
	struct fs_stat *st = container_of(t, struct fs_stat, task);

	if (st->cmd->d->meta == NULL)
		return task_goto(t, ST_ASK);
	st->get.path = st->nspath + 1;
	meta_get(st->cmd->d->meta, &st->get, st_recorded);
	return task_wait(t, ST_ASK, st_leave_record);
}

static void st_leave(struct task *t)
{
	ufs_abort(&container_of(t, struct fs_stat, task)->rq.req);
}

static void st_done(struct ufs_req *r, int err)
{
	struct fs_stat *st = container_of(r, struct fs_stat, rq.req);

	task_fail(&st->task, err);
	task_resume(&st->task);
}

static enum task_next st_ask(struct task *t)
{
	struct fs_stat *st = container_of(t, struct fs_stat, task);
	struct ufs *u;
	int rc = task_err(t);

	if (rc == 0)
		rc = fs_resolve(st->cmd->d->fs, st->nspath, &u, &st->rq.path);
	if (rc == 0 && fs_deleted(st->cmd->d->fs, st->nspath))
		rc = -ENOENT;
	if (rc != 0) {
		task_fail(t, rc);
		return task_goto(t, ST_ANSWER);
	}
	st->entry.nspath = st->nspath;
	st->entry.ufs = u;
	st->entry.path = st->rq.path;
	st->entry.attr = &st->rq.attr;
	st->entry.rec = st->record ? &st->get.rec : NULL;
	if (st->record && ctl_fs_unpersisted(&st->get.rec)) {
		ctl_fs_record_attr(st->cmd->d, &st->get.rec, &st->rq.attr);
		return task_goto(t, ST_ANSWER);
	}
	ufs_stat(u, &st->rq, st_done);
	return task_wait(t, ST_LOAD, st_leave);
}

static void st_loaded(struct cache_loaded *w)
{
	task_resume(&container_of(w, struct fs_stat, loaded)->task);
}

static enum task_next st_load(struct task *t)
{
	struct fs_stat *st = container_of(t, struct fs_stat, task);

	if (task_err(t) != 0)
		return task_goto(t, ST_ANSWER);
	st->blob = ctl_fs_blob(st->cmd->d, &st->entry);
	st->entry.blob = st->blob;
	cache_when_loaded(st->cmd->d->cache, &st->loaded, st_loaded);
	return task_wait(t, ST_ANSWER, NULL);
}

/* Which rule decides for what is created there now, and what became of the file. */
static void ex_put_policy(struct json_out *o, struct fs_stat *st)
{
	struct daemon *d = st->cmd->d;
	const struct meta_content *c = &st->get.rec.content;
	bool content = st->record && (st->get.rec.has & META_HAS_CONTENT) != 0;
	const struct rules *rules = NULL;
	const struct rule *rule = NULL;
	uint64_t version;
	char id[24];

	if (d->cfg->write_cache_enabled && d->staging != NULL)
		rules = policy_rules(d->fs, &version);
	if (rules != NULL)
		rule = rules_match(rules, st->nspath + 1);
	json_add_bool(o, "write_cache", rule != NULL);
	json_add_text(o, "rule", rule != NULL ? rule->path : NULL);
	json_add_text(o, "rule_policy", rule != NULL ? rule_mode_name(rule->mode) : "NO_CACHE");
	json_add_text(o, "policy",
	    content	   ? ctl_policy_text(c)
	    : rule != NULL ? rule_mode_name(rule->mode)
			   : "NO_CACHE");
	json_add_u64(o, "retries", content ? c->tries : 0);
	if (!content || c->state == META_STATE_PERSISTED)
		return;
	ctl_put_worker(o, d, c);
	ctl_put_tries(o, d, st->nspath + 1, c);
	json_add_bool(o, "outcome_unknown", c->doubt);
	snprintf(id, sizeof(id), "%016" PRIx64, c->id);
	json_add_text(o, "content", id);
}

static void ex_put(struct json_out *o, struct fs_stat *st)
{
	struct ufs_health health;
	struct cache_status cs;
	struct cache_where at;

	ex_put_policy(o, st);
	ufs_health(st->entry.ufs, &health);
	json_add_bool(o, "storage_ok", health.ok || health.since_ns == 0);
	json_add_text(o, "last_storage_error", health.last_error);
	cache_status(st->cmd->d->cache, &cs);
	json_add_text(o, "cache_dir", cs.dir);
	json_add_text(o, "cache_error", cs.error);
	memset(&at, 0, sizeof(at));
	if (st->blob != NULL)
		cache_blob_where(st->blob, &at);
	json_add_u64(o, "pages", at.pages);
	json_add_u64(o, "pages_on_disk", at.pages_on_disk);
	json_add_u64(o, "memory_bytes", at.memory);
	json_add_text(o, "cache_file", at.file);
}

static void st_put(struct json_out *o, struct fs_stat *st)
{
	const struct ufs_attr *at = &st->rq.attr;

	json_open_object(o);
	ctl_fs_put_entry(o, st->cmd->d, &st->entry);
	json_add_i64(o, "mtime_nsec", at->mtime.tv_nsec);
	json_add_text(o, "version", at->version);
	json_add_text(o, "storage", ufs_uri(st->entry.ufs));
	json_add_text(o, "storage_path", st->entry.path);
	if (at->have_mode) {
		json_add_u64(o, "mode", at->mode & 07777);
		json_add_u64(o, "uid", at->uid);
		json_add_u64(o, "gid", at->gid);
	}
	if (st->explain)
		ex_put(o, st);
	json_close_object(o);
}

static enum task_next st_answer(struct task *t)
{
	struct fs_stat *st = container_of(t, struct fs_stat, task);
	struct json_out *o;

	if (task_err(t) != 0) {
		ctl_fs_fail(st->cmd, task_err(t), st->nspath);
		return task_end(t);
	}
	o = ctl_result_begin(st->cmd);
	if (o != NULL)
		st_put(o, st);
	ctl_result_send(st->cmd, &o);
	return task_end(t);
}

static void st_fini(struct task *t)
{
	struct fs_stat *st = container_of(t, struct fs_stat, task);

	if (st->blob != NULL)
		cache_blob_put(&st->blob);
	free(st->nspath);
	free(st);
}

static const struct task_step st_steps[] = {
    [ST_RECORD] = {"record", st_record, TO(ST_ASK)},
    [ST_ASK] = {"ask", st_ask, TO(ST_LOAD) | TO(ST_ANSWER)},
    [ST_LOAD] = {"load", st_load, TO(ST_ANSWER)},
    [ST_ANSWER] = {"answer", st_answer, 0},
};
static const struct task_kind st_kind = {"ctl fs stat", st_steps, ARRAY_LEN(st_steps), st_fini};

static void st_cancel(struct ctl_cmd *cmd)
{
	struct fs_stat *st = cmd->priv;

	task_cancel(&st->task, -ECANCELED);
}

static void st_start(struct ctl_cmd *cmd, bool explain)
{
	struct fs_stat *st;
	char *nspath = ctl_fs_path(cmd);

	if (nspath == NULL)
		return;
	st = calloc(1, sizeof(*st));
	if (st == NULL) {
		free(nspath);
		ctl_fail(cmd, -ENOMEM, "out of memory");
		return;
	}
	st->cmd = cmd;
	st->nspath = nspath;
	st->explain = explain;
	cmd->priv = st;
	cmd->cancel = st_cancel;
	task_start(&st->task, cmd->ctl->loop, &st_kind);
}

void ctl_fs_stat(struct ctl_cmd *cmd)
{
	st_start(cmd, false);
}

void ctl_fs_explain(struct ctl_cmd *cmd)
{
	st_start(cmd, true);
}
