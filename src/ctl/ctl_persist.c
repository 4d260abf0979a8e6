/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * async-persist: what was written and is not in the storage yet.  A file is listed
 * while it has a write session, by its node; a file that a rename moves meanwhile is
 * listed under the name that it has when its row is made.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/obj.h"
#include "base/units.h"
#include "ctl/ctl_fs.h"
#include "ctl/ctl_persist.h"
#include "ctl/ctl_priv.h"
#include "daemon.h"
#include "ops/session.h"

static bool unpersisted(const struct session *s)
{
	return s->state != SESSION_ORPHAN &&
	       (s->state != SESSION_OPEN || s->fresh || s->created || s->uploading != NULL);
}

static const char *state_text(const struct session *s)
{
	if (s->uploading != NULL)
		return "PERSISTING";
	switch (s->state) {
	case SESSION_OPEN:
		return "WRITING";
	case SESSION_CLOSING:
	case SESSION_KEPT:
		return "NOT_PERSISTED";
	case SESSION_FAILED:
		return "FAILED";
	case SESSION_ORPHAN:
		break;
	}
	return "PERSISTED";
}

static void put_row(struct json_out *o, struct daemon *d, const struct session *s,
    const char *path)
{
	uint64_t wall = loop_wall(d->loop), now = loop_now(d->loop);
	uint64_t written = (uint64_t)s->mtime.tv_sec;
	char nspath[UFS_PATH_MAX + 2];

	snprintf(nspath, sizeof(nspath), "/%s", path);
	json_open_object(o);
	json_add_text(o, "path", nspath);
	json_add_u64(o, "size", staged_size(s->sf));
	json_add_u64(o, "sent_bytes", upload_sent(s->up));
	json_add_text(o, "state", state_text(s));
	json_add_text(o, "worker", "local");
	json_add_u64(o, "age_seconds", wall / NS_PER_S > written ? wall / NS_PER_S - written : 0);
	json_add_u64(o, "tries", s->tries);
	if (s->next_try_ns == 0)
		json_add_null(o, "next_try_seconds");
	else
		json_add_u64(o, "next_try_seconds",
		    s->next_try_ns > now ? (s->next_try_ns - now) / NS_PER_S : 0);
	json_add_text(o, "last_error", s->error != 0 ? strerror(-s->error) : "");
	json_close_object(o);
}

/* --- What a path is */

/* The node that a path below the mounted part has, if the kernel knows it. */
static int find_node(struct fs *fs, const char *path, struct node *n)
{
	char name[UFS_NAME_MAX + 1];
	uint64_t id = NODE_ROOT;
	size_t len;
	int err;

	while (*path != '\0') {
		len = strcspn(path, "/");
		if (len == 0 || len > UFS_NAME_MAX)
			return -ENOENT;
		memcpy(name, path, len);
		name[len] = '\0';
		err = node_find(fs, id, name, n);
		if (err != 0)
			return err;
		id = n->id;
		path += len + (path[len] == '/');
	}
	return id == NODE_ROOT ? -ENOENT : 0;
}

const char *ctl_persistence(struct daemon *d, const char *nspath)
{
	size_t root = strlen(d->fs->root);
	struct session *s = NULL;
	struct node n;

	if (d->fs->sessions == NULL || d->fs->db == NULL)
		return "PERSISTED";
	nspath += 1 + root;
	nspath += root > 0 && *nspath == '/';
	if (find_node(d->fs, nspath, &n) == 0)
		s = session_of(d->fs, n.id);
	return s != NULL && unpersisted(s) ? state_text(s) : "PERSISTED";
}

/* --- How much there is */

struct tally {
	struct fs *fs;
	struct ctl_unpersisted *out;
};

static void tally_one(struct session *s, void *arg)
{
	struct ctl_unpersisted *out = ((struct tally *)arg)->out;
	bool failed = s->state == SESSION_FAILED;
	char *to = failed ? out->first_failed : out->first, path[UFS_PATH_MAX + 1];

	out->open += s->state == SESSION_OPEN;
	if (!unpersisted(s))
		return;
	out->files++;
	out->failed += failed;
	out->bytes += staged_size(s->sf);
	if (to[0] == '\0' && node_path(((struct tally *)arg)->fs, s->node, path) == 0)
		snprintf(to, sizeof(out->first), "/%s", path);
}

void ctl_unpersisted(struct daemon *d, struct ctl_unpersisted *out)
{
	struct tally t = {.fs = d->fs, .out = out};

	memset(out, 0, sizeof(*out));
	session_foreach(d->fs, tally_one, &t);
	if (out->first[0] == '\0')
		memcpy(out->first, out->first_failed, sizeof(out->first));
}

/* --- list */

struct persist_list {
	struct ctl_cmd *cmd;
	struct deferred run; /* the client has gone */
	uint64_t *node;
	size_t n, cap, at;
	uint64_t rows;
	bool failed;
};

static void list_add(struct session *s, void *arg)
{
	struct persist_list *pl = arg;
	size_t cap = pl->cap == 0 ? 64 : pl->cap * 2;
	uint64_t *p;

	if (!unpersisted(s))
		return;
	if (pl->n == pl->cap) {
		p = reallocarray(pl->node, cap, sizeof(*p));
		if (p == NULL) {
			pl->failed = true;
			return;
		}
		pl->node = p;
		pl->cap = cap;
	}
	pl->node[pl->n++] = s->node;
}

static void list_free(struct persist_list *pl)
{
	free(pl->node);
	free(pl);
}

/* As many rows as the client takes. */
static void list_go_on(struct ctl_cmd *cmd)
{
	struct persist_list *pl = cmd->priv;
	char path[UFS_PATH_MAX + 1];
	struct json_out *o;

	for (; pl->at < pl->n && !ctl_blocked(cmd); pl->at++) {
		struct session *s = session_of(cmd->d->fs, pl->node[pl->at]);

		if (s == NULL || !unpersisted(s) ||
		    node_path(cmd->d->fs, s->node, path) != 0)
			continue;
		o = ctl_progress_begin(cmd);
		put_row(o, cmd->d, s, path);
		ctl_progress_send(cmd, &o);
		pl->rows++;
	}
	if (pl->at < pl->n)
		return;
	o = ctl_result_begin(cmd);
	json_open_object(o);
	json_add_u64(o, "count", pl->rows);
	json_close_object(o);
	loop_undefer(cmd->ctl->loop, &pl->run);
	list_free(pl);
	ctl_result_send(cmd, &o);
}

static void list_end(struct deferred *d)
{
	list_go_on(container_of(d, struct persist_list, run)->cmd);
}

static void list_cancel(struct ctl_cmd *cmd)
{
	struct persist_list *pl = cmd->priv;

	pl->at = pl->n;
	loop_defer(cmd->ctl->loop, &pl->run, list_end);
}

void ctl_persist_list(struct ctl_cmd *cmd)
{
	struct persist_list *pl = calloc(1, sizeof(*pl));

	if (pl != NULL)
		session_foreach(cmd->d->fs, list_add, pl);
	if (pl == NULL || pl->failed) {
		if (pl != NULL)
			list_free(pl);
		ctl_fail(cmd, -ENOMEM, "out of memory");
		return;
	}
	pl->cmd = cmd;
	cmd->priv = pl;
	cmd->cancel = list_cancel;
	cmd->drained = list_go_on;
	list_go_on(cmd);
}

/* --- stat, retry, drop: one file */

struct seek {
	struct fs *fs;
	const char *path; /* without the leading slash */
	struct session *found;
};

static void seek_one(struct session *s, void *arg)
{
	struct seek *sk = arg;
	char path[UFS_PATH_MAX + 1];

	if (unpersisted(s) && node_path(sk->fs, s->node, path) == 0 && strcmp(path, sk->path) == 0)
		sk->found = s;
}

/* The session of the path that the command names; NULL: it was answered. */
static struct session *named_session(struct ctl_cmd *cmd, char **nspath)
{
	struct seek sk = {.fs = cmd->d->fs};

	*nspath = ctl_fs_path(cmd);
	if (*nspath == NULL)
		return NULL;
	sk.path = *nspath + 1;
	session_foreach(cmd->d->fs, seek_one, &sk);
	if (sk.found != NULL)
		return sk.found;
	ctl_fail(cmd, -ENOENT,
	    "%s: not among the files that are not in the storage yet "
	    "(`batonfs async-persist list` shows them)",
	    *nspath);
	free(*nspath);
	*nspath = NULL;
	return NULL;
}

void ctl_persist_stat(struct ctl_cmd *cmd)
{
	struct json_out *o;
	char *nspath;
	struct session *s = named_session(cmd, &nspath);

	if (s == NULL)
		return;
	o = ctl_result_begin(cmd);
	put_row(o, cmd->d, s, nspath + 1);
	free(nspath);
	ctl_result_send(cmd, &o);
}

static void say_path(struct ctl_cmd *cmd, const char *nspath)
{
	struct json_out *o = ctl_result_begin(cmd);

	json_open_object(o);
	json_add_text(o, "path", nspath);
	json_close_object(o);
	ctl_result_send(cmd, &o);
}

struct persist_retry {
	struct ctl_cmd *cmd;
	struct session_wait wait;
	struct deferred run; /* the client has gone */
	char *nspath;
};

static void retry_end(struct persist_retry *pr, int err)
{
	loop_undefer(pr->cmd->ctl->loop, &pr->run);
	if (err == 0)
		say_path(pr->cmd, pr->nspath);
	else
		ctl_fs_fail(pr->cmd, err, pr->nspath);
	free(pr->nspath);
	free(pr);
}

static void retry_done(struct session_wait *w, int err)
{
	retry_end(container_of(w, struct persist_retry, wait), err);
}

static void retry_given_up(struct deferred *d)
{
	retry_end(container_of(d, struct persist_retry, run), -ECANCELED);
}

/* The upload goes on; only the waiting for it ends. */
static void retry_cancel(struct ctl_cmd *cmd)
{
	struct persist_retry *pr = cmd->priv;

	session_wait_abort(&pr->wait);
	loop_defer(cmd->ctl->loop, &pr->run, retry_given_up);
}

void ctl_persist_retry(struct ctl_cmd *cmd)
{
	struct persist_retry *pr;
	char *nspath;
	struct session *s = named_session(cmd, &nspath);

	if (s == NULL)
		return;
	pr = calloc(1, sizeof(*pr));
	if (pr == NULL) {
		free(nspath);
		ctl_fail(cmd, -ENOMEM, "out of memory");
		return;
	}
	pr->cmd = cmd;
	pr->nspath = nspath;
	cmd->priv = pr;
	cmd->cancel = retry_cancel;
	session_upload(s, &pr->wait, true, retry_done);
}

void ctl_persist_drop(struct ctl_cmd *cmd)
{
	char *nspath;
	struct session *s = named_session(cmd, &nspath);
	int err;

	if (s == NULL)
		return;
	if (s->state != SESSION_FAILED) {
		ctl_fail(cmd, -EBUSY, "%s: is %s; only what has FAILED can be dropped", nspath,
		    state_text(s));
		free(nspath);
		return;
	}
	log_warn("%s: %llu bytes that could not be uploaded (%s) are dropped on request", nspath,
	    (unsigned long long)staged_size(s->sf), strerror(-s->error));
	err = session_drop(s);
	if (err == 0)
		say_path(cmd, nspath);
	else
		ctl_fs_fail(cmd, err, nspath);
	free(nspath);
}

/* --- drain: waits until there is nothing left.  Looks again when a moment has passed:
 * what is waited for takes storage requests, and new files may come meanwhile. */

#define DRAIN_LOOK (100 * NS_PER_MS)
#define DRAIN_SAY 10 /* a row of progress every so many looks */

struct drain {
	struct ctl_cmd *cmd;
	struct timer look;
	uint64_t until; /* 0: for ever */
	unsigned looks;
	bool given_up;
};

static void drain_end(struct drain *dr)
{
	timer_cancel(&dr->look);
	free(dr);
}

static void put_left(struct json_out *o, const struct ctl_unpersisted *left)
{
	json_open_object(o);
	json_add_u64(o, "files", left->files);
	json_add_u64(o, "failed", left->failed);
	json_add_u64(o, "bytes", left->bytes);
	json_close_object(o);
}

static void drain_look(struct timer *t)
{
	struct drain *dr = container_of(t, struct drain, look);
	struct ctl_cmd *cmd = dr->cmd;
	struct ctl_unpersisted left;
	struct json_out *o;

	ctl_unpersisted(cmd->d, &left);
	if (left.files == 0) {
		o = ctl_result_begin(cmd);
		put_left(o, &left);
		drain_end(dr);
		ctl_result_send(cmd, &o);
		return;
	}
	if (dr->given_up || left.files == left.failed ||
	    (dr->until != 0 && loop_now(cmd->d->loop) >= dr->until)) {
		const char *why = left.files == left.failed
				      ? "; they have failed: `batonfs async-persist retry` or "
					"`drop` them"
				      : "";

		drain_end(dr);
		ctl_fail(cmd, -EBUSY, "%llu files are not in the storage, such as %s%s",
		    (unsigned long long)left.files, left.first, why);
		return;
	}
	if (dr->looks++ % DRAIN_SAY == 0 && !ctl_blocked(cmd)) {
		o = ctl_progress_begin(cmd);
		put_left(o, &left);
		ctl_progress_send(cmd, &o);
	}
	timer_arm(&dr->look, DRAIN_LOOK);
}

static void drain_cancel(struct ctl_cmd *cmd)
{
	struct drain *dr = cmd->priv;

	dr->given_up = true;
	timer_arm(&dr->look, 0);
}

void ctl_persist_drain(struct ctl_cmd *cmd)
{
	const char *timeout = json_get_text(cmd->rq.args, "timeout", "");
	uint64_t ns = 0;
	struct drain *dr;

	if (timeout[0] != '\0' && units_parse_duration(timeout, &ns) != 0) {
		ctl_fail(cmd, -EINVAL, "timeout %s: not a duration such as 10s or 5min", timeout);
		return;
	}
	dr = calloc(1, sizeof(*dr));
	if (dr == NULL) {
		ctl_fail(cmd, -ENOMEM, "out of memory");
		return;
	}
	dr->cmd = cmd;
	dr->until = timeout[0] != '\0' ? loop_now(cmd->d->loop) + ns : 0;
	cmd->priv = dr;
	cmd->cancel = drain_cancel;
	timer_init(&dr->look, cmd->ctl->loop, drain_look);
	timer_arm(&dr->look, 0);
}
