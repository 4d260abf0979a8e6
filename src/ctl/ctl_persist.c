/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What was written and is not in the storage yet.  Where no policy governs a path it is
 * known by the file's write session, which is listed by its node; a file that a rename
 * moves meanwhile is listed under the name that it has when its row is made.  Under a
 * policy it is a record of the metadata store.
 */
#include "ctl/ctl_persist.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/obj.h"
#include "base/units.h"
#include "daemon.h"
#include "ops/persist.h"
#include "peer/peer.h"
#include "ops/session.h"

/* --- States */

static bool durable(const struct session *s)
{
	return s->policy != META_POLICY_NO_CACHE && s->recorded;
}

bool ctl_session_unpersisted(const struct session *s)
{
	return !durable(s) && s->state != SESSION_ORPHAN &&
	       (s->state != SESSION_OPEN || s->fresh || s->created || s->uploading != NULL);
}

/* Under a policy it is the local disk or the metadata store that have failed, and they are
 * asked again; but for a name that another node was first to take. */
static bool tried_again(const struct session *s)
{
	return s->state == SESSION_FAILED && s->policy != META_POLICY_NO_CACHE &&
	       !session_refused(s);
}

static const char *session_text(const struct session *s)
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
		return tried_again(s) ? "NOT_PERSISTED" : "FAILED";
	case SESSION_ORPHAN:
		break;
	}
	return "PERSISTED";
}

static const char *content_text(struct daemon *d, const struct meta_content *c,
    const struct session *s)
{
	bool same = s != NULL && s->content.id == c->id;

	if (same && s->uploading != NULL)
		return "PERSISTING";
	if (same && s->writers > 0)
		return "WRITING";
	switch ((enum meta_state)c->state) {
	case META_STATE_NOT_PERSISTED:
		return persist_runs(d->fs, c->id) ? "PERSISTING" : "NOT_PERSISTED";
	case META_STATE_TRANSIENT:
		return "TRANSIENT";
	case META_STATE_FAILED:
		return "FAILED";
	case META_STATE_PERSISTED:
	case META_STATE_NONE:
		break;
	}
	return "PERSISTED";
}

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

struct session *ctl_session_of(struct daemon *d, const char *nspath)
{
	size_t root = strlen(d->fs->root);
	struct node n;

	if (d->fs->sessions == NULL || d->fs->db == NULL)
		return NULL;
	nspath += 1 + root;
	nspath += root > 0 && *nspath == '/';
	return find_node(d->fs, nspath, &n) == 0 ? session_of(d->fs, n.id) : NULL;
}

const char *ctl_persistence(struct daemon *d, const char *nspath, const struct meta_record *rec)
{
	const struct session *s = ctl_session_of(d, nspath);

	if (rec != NULL && (rec->has & META_HAS_CONTENT) != 0)
		return content_text(d, &rec->content, s);
	return s != NULL && ctl_session_unpersisted(s) ? session_text(s) : "PERSISTED";
}

/* --- Rows */

static void put_since(struct json_out *o, struct daemon *d, uint64_t since_ns)
{
	uint64_t wall = loop_wall(d->loop);

	json_add_u64(o, "age_seconds", wall > since_ns ? (wall - since_ns) / NS_PER_S : 0);
}

/* Of the storage, not of one file. */
static bool of_storage(int err)
{
	return err == -EIO || err == -ETIMEDOUT || err == -EACCES || err == -EDQUOT ||
	       err == -ENOSPC || err == -ENOTCONN;
}

/* Of the storage that has the path. */
static void health_of(struct daemon *d, const char *path, struct ufs_health *out)
{
	const char *at;
	size_t n, best = 0;
	struct ufs *u;

	for (unsigned i = 0; (u = fs_ufs(d->fs, i, &at)) != NULL; i++) {
		at += strspn(at, "/");
		n = strlen(at);
		if (n < best || (n > 0 && (strncmp(path, at, n) != 0 ||
					      (path[n] != '/' && path[n] != '\0'))))
			continue;
		best = n;
		ufs_health(u, out);
	}
}

/* As a person is told it: with the storage's own words while it is not well. */
static void put_error(struct json_out *o, struct daemon *d, const char *path, int err)
{
	struct ufs_health health = {.ok = true};
	char text[512];
	bool told;

	if (of_storage(err))
		health_of(d, path, &health);
	told = !health.ok && health.last_error[0] != '\0';
	snprintf(text, sizeof(text), "%s%s%s%s", persist_words(err), told ? " (" : "",
	    told ? health.last_error : "", told ? ")" : "");
	json_add_text(o, "last_error", text);
}

void ctl_put_session(struct json_out *o, struct daemon *d, const struct session *s,
    const char *path)
{
	uint64_t now = loop_now(d->loop);
	char nspath[UFS_PATH_MAX + 2];

	snprintf(nspath, sizeof(nspath), "/%s", path);
	json_open_object(o);
	json_add_text(o, "path", nspath);
	json_add_u64(o, "size", staged_size(s->sf));
	json_add_u64(o, "sent_bytes", upload_sent(s->up));
	json_add_text(o, "state", session_text(s));
	json_add_text(o, "worker", "local");
	put_since(o, d, (uint64_t)s->mtime.tv_sec * NS_PER_S);
	json_add_u64(o, "tries", s->tries + s->unsafe);
	if (!tried_again(s))
		json_add_null(o, "next_try_seconds");
	else
		json_add_u64(o, "next_try_seconds",
		    s->next_try_ns > now ? (s->next_try_ns - now) / NS_PER_S : 0);
	put_error(o, d, path, s->error);
	json_close_object(o);
}

static uint64_t sent_bytes(const struct meta_content *c, const struct session *s)
{
	return s != NULL && s->content.id == c->id && s->up != NULL ? upload_sent(s->up) : 0;
}

void ctl_put_tries(struct json_out *o, struct daemon *d, const char *path,
    const struct meta_content *c)
{
	uint64_t wall = loop_wall(d->loop);

	put_since(o, d, c->since_ns);
	json_add_u64(o, "tries", c->tries);
	if (c->state != META_STATE_NOT_PERSISTED)
		json_add_null(o, "next_try_seconds");
	else
		json_add_u64(o, "next_try_seconds",
		    c->next_ns > wall ? (c->next_ns - wall + NS_PER_S - 1) / NS_PER_S : 0);
	put_error(o, d, path, c->error);
}

const char *ctl_policy_text(const struct meta_content *c)
{
	switch ((enum meta_policy)c->policy) {
	case META_POLICY_WRITE_THROUGH:
		return "WRITE_THROUGH";
	case META_POLICY_WRITE_BACK:
		return "WRITE_BACK";
	case META_POLICY_TRANSIENT:
		return "TRANSIENT";
	case META_POLICY_NO_CACHE:
		break;
	}
	return "NO_CACHE";
}

void ctl_put_worker(struct json_out *o, struct daemon *d, const struct meta_content *c)
{
	struct meta_node n = {.state = META_NODE_UNKNOWN};
	char name[META_NODE_TEXT];
	struct peers_status st;

	if (meta_is_here(d->meta, c)) {
		json_add_text(o, "worker", "local");
		return;
	}
	json_add_text(o, "worker", meta_node_text(d->meta, c->node, name));
	(void)meta_node_of(d->meta, c->node, &n);
	json_add_text(o, "worker_state", meta_node_state_text(n.state));
	if (d->peers == NULL)
		return;
	peers_status(d->peers, &st);
	json_add_bool(o, "readable",
	    st.key && n.is.address[0] != '\0' &&
		(n.state == META_NODE_ALIVE || n.state == META_NODE_UNKNOWN));
}

void ctl_put_content(struct json_out *o, struct daemon *d, const char *path,
    const struct meta_record *rec)
{
	const struct meta_content *c = &rec->content;
	char nspath[META_PATH_MAX + 2];
	const struct session *s;

	snprintf(nspath, sizeof(nspath), "/%s", path);
	s = ctl_session_of(d, nspath);
	json_open_object(o);
	json_add_text(o, "path", nspath);
	json_add_u64(o, "size", c->size);
	json_add_u64(o, "sent_bytes", sent_bytes(c, s));
	json_add_text(o, "state", content_text(d, c, s));
	ctl_put_worker(o, d, c);
	ctl_put_tries(o, d, path, c);
	json_add_text(o, "policy", ctl_policy_text(c));
	json_close_object(o);
}

/* --- How much there is */

struct tally {
	struct fs *fs;
	struct ctl_unpersisted *out;
};

static void tally_one(struct session *s, void *arg)
{
	struct ctl_unpersisted *out = ((struct tally *)arg)->out;
	bool failed = s->state == SESSION_FAILED && !tried_again(s);
	char *to = failed ? out->first_failed : out->first, path[UFS_PATH_MAX + 1];

	out->open += s->state == SESSION_OPEN;
	if (!ctl_session_unpersisted(s))
		return;
	out->files++;
	out->lost++;
	out->failed += failed;
	out->bytes += staged_size(s->sf);
	if (to[0] == '\0' && node_path(((struct tally *)arg)->fs, s->node, path) == 0)
		snprintf(to, sizeof(out->first), "/%s", path);
}

void ctl_unpersisted(struct daemon *d, struct ctl_unpersisted *out)
{
	struct tally t = {.fs = d->fs, .out = out};
	struct persist_info pi;
	struct meta_status ms;

	memset(out, 0, sizeof(*out));
	session_foreach(d->fs, tally_one, &t);
	if (out->first[0] == '\0')
		memcpy(out->first, out->first_failed, sizeof(out->first));
	if (d->meta == NULL)
		return;
	memset(&ms, 0, sizeof(ms));
	meta_status(d->meta, &ms);
	out->files += ms.tally.files[META_STATE_NOT_PERSISTED] + ms.tally.files[META_STATE_FAILED];
	out->bytes += ms.tally.bytes[META_STATE_NOT_PERSISTED] + ms.tally.bytes[META_STATE_FAILED];
	out->failed += ms.tally.files[META_STATE_FAILED];
	/* They are for another mount. */
	persist_info(d->fs, &pi);
	out->outside = MIN(pi.outside, out->files);
	out->files -= out->outside;
	out->bytes -= MIN(pi.outside_bytes, out->bytes);
	out->failed -= MIN(pi.outside_failed, out->failed);
}

/* --- With names */

#define LEFT_PAGE 200u

static void add_name(struct ctl_left *l, const char *slash, const char *path)
{
	size_t used = strlen(l->names);

	snprintf(l->names + used, sizeof(l->names) - used, "%s%s%s", used > 0 ? ", " : "", slash,
	    path);
}

static void left_answer(struct ctl_left *l, int err)
{
	unsigned names = 0;

	l->running = false;
	ctl_unpersisted(l->d, &l->n);
	l->names[0] = '\0';
	if (l->n.first[0] != '\0')
		add_name(l, "", l->n.first);
	for (size_t i = 0; err == 0 && i < l->queue.count && names < CTL_LEFT_NAMES; i++) {
		if (l->n.outside > 0 && !persist_inside(l->d->fs, l->queue.entries[i].name))
			continue;
		add_name(l, "/", l->queue.entries[i].name);
		names++;
	}
	meta_queue_free(&l->queue);
	l->done(l, err);
}

static void left_asked(struct meta_req *r, int err)
{
	left_answer(r->user, err);
}

static void left_alone(struct deferred *d)
{
	left_answer(container_of(d, struct ctl_left, run), 0);
}

void ctl_left_start(struct daemon *d, struct ctl_left *l,
    void (*done)(struct ctl_left *l, int err))
{
	l->d = d;
	l->done = done;
	l->running = true;
	memset(&l->queue, 0, sizeof(l->queue));
	memset(&l->run, 0, sizeof(l->run));
	if (d->meta == NULL) {
		loop_defer(d->loop, &l->run, left_alone);
		return;
	}
	/* Some may be outside. */
	l->queue.max = d->fs->root[0] != '\0' ? LEFT_PAGE : CTL_LEFT_NAMES;
	l->queue.until_ns = UINT64_MAX;
	l->queue.req.user = l;
	meta_queue(d->meta, &l->queue, left_asked);
}

void ctl_left_abort(struct ctl_left *l)
{
	if (!l->running)
		return;
	l->running = false;
	loop_undefer(l->d->loop, &l->run);
	if (l->d->meta != NULL) {
		meta_abort(&l->queue.req);
		meta_queue_free(&l->queue);
	}
}
