/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * async-persist list: the sessions that alone know of a file, then the queue of the
 * metadata store, a page at a time: as many rows as the client takes, and never more in
 * memory than a page, and what is tried meanwhile: that comes again further behind.
 * async-persist stat: one of them.
 */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/obj.h"
#include "ctl/ctl_fs.h"
#include "ctl/ctl_persist.h"
#include "ctl/ctl_priv.h"
#include "daemon.h"
#include "ops/persist.h"
#include "ops/session.h"

#define LIST_PAGE 500u

/* A file that may be met twice. */
struct twice {
	uint64_t content;
	bool listed;
	UT_hash_handle hh;
};

struct persist_list {
	struct ctl_cmd *cmd;
	struct deferred run;
	bool cancelled;
	int err;
	/* sessions */
	uint64_t *node;
	size_t n, cap, at;
	/* the queue */
	struct meta_queue queue;
	bool asking, page, end;
	size_t row;
	uint64_t rows;
	struct persist_watch watch;
	struct twice *twice;
};

static struct twice *find_twice(struct persist_list *pl, uint64_t content)
{
	struct twice *tw;

	HASH_FIND(hh, pl->twice, &content, sizeof(content), tw);
	return tw;
}

/* Without memory it is listed twice. */
static void add_twice(struct persist_list *pl, uint64_t content, bool listed)
{
	struct twice *tw = find_twice(pl, content) == NULL ? calloc(1, sizeof(*tw)) : NULL;

	if (tw == NULL)
		return;
	tw->content = content;
	tw->listed = listed;
	HASH_ADD(hh, pl->twice, content, sizeof(tw->content), tw);
	if (tw->hh.tbl == NULL)
		free(tw);
}

static void free_twice(struct persist_list *pl)
{
	struct twice *tw = pl->twice, *next;

	HASH_CLEAR(hh, pl->twice);
	for (; tw != NULL; tw = next) {
		next = tw->hh.next;
		free(tw);
	}
}

static void list_moves(struct persist_watch *w, uint64_t content, uint64_t next_ns)
{
	struct persist_list *pl = container_of(w, struct persist_list, watch);
	const struct meta_queue *q = &pl->queue;

	add_twice(pl, content,
	    next_ns < q->after_ns || (next_ns == q->after_ns && content <= q->after_id));
}

static void list_add(struct session *s, void *arg)
{
	struct persist_list *pl = arg;
	size_t cap = pl->cap == 0 ? 64 : pl->cap * 2;
	uint64_t *p;

	if (!ctl_session_unpersisted(s))
		return;
	if (pl->n == pl->cap) {
		p = reallocarray(pl->node, cap, sizeof(*p));
		if (p == NULL) {
			pl->err = -ENOMEM;
			return;
		}
		pl->node = p;
		pl->cap = cap;
	}
	pl->node[pl->n++] = s->node;
}

static void list_free(struct persist_list *pl)
{
	loop_undefer(pl->cmd->ctl->loop, &pl->run);
	if (pl->asking)
		meta_abort(&pl->queue.req);
	meta_queue_free(&pl->queue);
	persist_unwatch(&pl->watch);
	free_twice(pl);
	free(pl->node);
	free(pl);
}

static void list_sessions(struct persist_list *pl)
{
	struct ctl_cmd *cmd = pl->cmd;
	char path[UFS_PATH_MAX + 1];
	struct json_out *o;

	for (; pl->at < pl->n && !ctl_blocked(cmd); pl->at++) {
		struct session *s = session_of(cmd->d->fs, pl->node[pl->at]);

		if (s == NULL || !ctl_session_unpersisted(s) ||
		    node_path(cmd->d->fs, s->node, path) != 0)
			continue;
		o = ctl_progress_begin(cmd);
		ctl_put_session(o, cmd->d, s, path);
		ctl_progress_send(cmd, &o);
		pl->rows++;
		/* It has a record as soon as it is safe. */
		if (s->policy != META_POLICY_NO_CACHE)
			add_twice(pl, s->content.id, true);
	}
}

static void list_page(struct persist_list *pl)
{
	struct ctl_cmd *cmd = pl->cmd;
	struct json_out *o;

	for (; pl->row < pl->queue.count && !ctl_blocked(cmd); pl->row++) {
		const struct meta_entry *e = &pl->queue.entries[pl->row];
		const struct meta_content *c = &e->rec.content;
		struct twice *tw = find_twice(pl, c->id);

		if (tw == NULL || !tw->listed) {
			o = ctl_progress_begin(cmd);
			ctl_put_content(o, cmd->d, e->name, &e->rec);
			ctl_progress_send(cmd, &o);
			pl->rows++;
		}
		if (tw != NULL)
			tw->listed = true;
		pl->queue.after_ns = c->state == META_STATE_FAILED ? UINT64_MAX : c->next_ns;
		pl->queue.after_id = c->id;
	}
	if (pl->row < pl->queue.count)
		return;
	pl->page = false;
	pl->end = !pl->queue.more;
}

static void list_run(struct deferred *d);

static void list_asked(struct meta_req *r, int err)
{
	struct persist_list *pl = r->user;

	pl->asking = false;
	pl->err = err;
	pl->page = err == 0;
	pl->row = 0;
	loop_defer(pl->cmd->ctl->loop, &pl->run, list_run);
}

static void list_ask(struct persist_list *pl)
{
	pl->queue.until_ns = UINT64_MAX;
	pl->queue.max = LIST_PAGE;
	pl->queue.req.user = pl;
	pl->asking = true;
	meta_queue(pl->cmd->d->meta, &pl->queue, list_asked);
}

static void list_result(struct persist_list *pl)
{
	struct ctl_cmd *cmd = pl->cmd;
	struct json_out *o;

	if (pl->err != 0) {
		int err = pl->err;

		list_free(pl);
		ctl_fail(cmd, err, "the metadata store: %s", strerror(-err));
		return;
	}
	o = ctl_result_begin(cmd);
	json_open_object(o);
	json_add_u64(o, "count", pl->rows);
	json_close_object(o);
	list_free(pl);
	ctl_result_send(cmd, &o);
}

static void list_run(struct deferred *d)
{
	struct persist_list *pl = container_of(d, struct persist_list, run);
	struct ctl_cmd *cmd = pl->cmd;

	if (pl->cancelled)
		pl->err = -ECANCELED;
	if (pl->err != 0) {
		list_result(pl);
		return;
	}
	list_sessions(pl);
	if (pl->at < pl->n || pl->asking)
		return;
	if (pl->page)
		list_page(pl);
	if (pl->page || ctl_blocked(cmd))
		return;
	if (pl->end)
		list_result(pl);
	else
		list_ask(pl);
}

static void list_go_on(struct ctl_cmd *cmd)
{
	struct persist_list *pl = cmd->priv;

	loop_defer(cmd->ctl->loop, &pl->run, list_run);
}

static void list_cancel(struct ctl_cmd *cmd)
{
	struct persist_list *pl = cmd->priv;

	pl->cancelled = true;
	loop_defer(cmd->ctl->loop, &pl->run, list_run);
}

/* The node that a person means: an id, or a name that one node has.  0: this one. */
static int find_worker(const struct daemon *d, const char *worker, uint64_t *id)
{
	struct meta_node *all;
	size_t n, found = 0;
	char text[24];

	*id = 0;
	if (strcmp(worker, "local") == 0)
		return 0;
	if (d->fdb == NULL)
		return -ESRCH; /* there are no others, so they have nothing */
	all = calloc(META_NODES_MAX, sizeof(*all));
	if (all == NULL)
		return -ENOMEM;
	n = d->meta != NULL ? meta_nodes(d->meta, all, META_NODES_MAX) : 0;
	for (size_t i = 0; i < n; i++) {
		snprintf(text, sizeof(text), "%016" PRIx64, all[i].is.id);
		if (strcmp(text, worker) != 0 && strcmp(all[i].is.name, worker) != 0)
			continue;
		*id = all[i].self ? 0 : all[i].is.id;
		found++;
	}
	free(all);
	return found == 1 ? 0 : found == 0 ? -ENOENT : -ENOTUNIQ;
}

void ctl_persist_list(struct ctl_cmd *cmd)
{
	const char *worker = json_get_text(cmd->rq.args, "worker", "local");
	uint64_t node;
	int err = find_worker(cmd->d, worker, &node);
	struct persist_list *pl;

	if (err == -ENOENT || err == -ENOTUNIQ) {
		ctl_fail(cmd, err, err == -ENOENT
				       ? "%s: there is no such node (`batonfs status` shows them)"
				       : "%s: several nodes are called so: say the id",
		    worker);
		return;
	}
	pl = err == -ENOMEM ? NULL : calloc(1, sizeof(*pl));
	if (pl == NULL) {
		ctl_fail(cmd, -ENOMEM, "out of memory");
		return;
	}
	pl->cmd = cmd;
	pl->end = cmd->d->meta == NULL || err == -ESRCH;
	pl->queue.node = node;
	if (node == 0 && err == 0)
		session_foreach(cmd->d->fs, list_add, pl);
	pl->watch.moves = list_moves;
	persist_watch(cmd->d->fs, &pl->watch);
	cmd->priv = pl;
	cmd->cancel = list_cancel;
	cmd->drained = list_go_on;
	list_go_on(cmd);
}

/* --- stat */

struct persist_stat {
	struct ctl_cmd *cmd;
	struct meta_get get;
	struct deferred run;
	char *nspath;
};

static void stat_free(struct persist_stat *ps)
{
	free(ps->nspath);
	free(ps);
}

static void stat_none(struct persist_stat *ps, int err)
{
	struct ctl_cmd *cmd = ps->cmd;

	loop_undefer(cmd->ctl->loop, &ps->run);
	if (err != -ENOENT)
		ctl_fs_fail(cmd, err, ps->nspath);
	else
		ctl_fail(cmd, -ENOENT,
		    "%s: not among the files that are not in the storage yet "
		    "(`batonfs async-persist list` shows them)",
		    ps->nspath);
	stat_free(ps);
}

static void stat_got(struct meta_req *r, int err)
{
	struct persist_stat *ps = r->user;
	const struct meta_record *rec = &ps->get.rec;
	struct ctl_cmd *cmd = ps->cmd;
	struct json_out *o;

	if (err == 0 && ((rec->has & META_HAS_CONTENT) == 0 ||
			    rec->content.state == META_STATE_PERSISTED))
		err = -ENOENT;
	if (err != 0) {
		stat_none(ps, err);
		return;
	}
	o = ctl_result_begin(cmd);
	ctl_put_content(o, cmd->d, ps->get.path, rec);
	ctl_result_send(cmd, &o);
	stat_free(ps);
}

static void stat_given_up(struct deferred *d)
{
	stat_none(container_of(d, struct persist_stat, run), -ECANCELED);
}

static void stat_cancel(struct ctl_cmd *cmd)
{
	struct persist_stat *ps = cmd->priv;

	meta_abort(&ps->get.req);
	loop_defer(cmd->ctl->loop, &ps->run, stat_given_up);
}

void ctl_persist_stat(struct ctl_cmd *cmd)
{
	char *nspath = ctl_fs_path(cmd);
	struct persist_stat *ps;
	struct session *s;
	struct json_out *o;

	if (nspath == NULL)
		return;
	s = ctl_session_of(cmd->d, nspath);
	if (s != NULL && ctl_session_unpersisted(s)) {
		o = ctl_result_begin(cmd);
		ctl_put_session(o, cmd->d, s, nspath + 1);
		free(nspath);
		ctl_result_send(cmd, &o);
		return;
	}
	ps = calloc(1, sizeof(*ps));
	if (ps == NULL) {
		free(nspath);
		ctl_fail(cmd, -ENOMEM, "out of memory");
		return;
	}
	ps->cmd = cmd;
	ps->nspath = nspath;
	if (cmd->d->meta == NULL) {
		stat_none(ps, -ENOENT);
		return;
	}
	ps->get.path = nspath + 1;
	ps->get.req.user = ps;
	cmd->priv = ps;
	cmd->cancel = stat_cancel;
	meta_get(cmd->d->meta, &ps->get, stat_got);
}
