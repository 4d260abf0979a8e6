/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/caps.h"
#include "base/obj.h"
#include "base/units.h"
#include "cache/cache.h"
#include "cache/staged.h"
#include "ctl/ctl_persist.h"
#include "ctl/ctl_priv.h"
#include "daemon.h"
#include "meta/meta.h"
#include "ops/persist.h"
#include "peer/peer.h"
#include "ufs/ufs.h"

static void put_storage(struct json_out *o, const struct daemon *d)
{
	const char *nspath;
	struct ufs *u;

	json_key(o, "storage");
	json_open_array(o);
	for (unsigned i = 0; (u = fs_ufs(d->fs, i, &nspath)) != NULL; i++) {
		struct ufs_health h;

		memset(&h, 0, sizeof(h));
		ufs_health(u, &h);
		json_open_object(o);
		json_add_text(o, "path", nspath);
		json_add_text(o, "uri", ufs_uri(u));
		json_add_text(o, "health", h.since_ns == 0 ? "unknown" : h.ok ? "ok" : "failing");
		if (h.since_ns == 0)
			json_add_null(o, "since_seconds");
		else
			json_add_u64(o, "since_seconds",
			    (loop_now(d->loop) - h.since_ns) / NS_PER_S);
		json_add_text(o, "last_error", h.last_error);
		json_close_object(o);
	}
	json_close_array(o);
}

static void put_cache(struct json_out *o, const struct daemon *d)
{
	struct cache_status cs;

	memset(&cs, 0, sizeof(cs));
	cache_status(d->cache, &cs);
	json_key(o, "cache");
	json_open_object(o);
	json_add_text(o, "dir", cs.dir);
	json_add_bool(o, "index_open", cs.index_open);
	json_add_u64(o, "capacity_bytes", cs.capacity);
	json_add_u64(o, "used_bytes", cs.used);
	json_add_u64(o, "pinned_bytes", cs.pinned);
	json_add_u64(o, "memory_limit_bytes", cs.memory_limit);
	json_add_u64(o, "memory_used_bytes", cs.memory_used);
	json_add_u64(o, "fetches_running", cs.fetches);
	json_add_text(o, "state", cache_health_word(cs.health));
	json_add_u64(o, "since_seconds", (loop_now(d->loop) - cs.since_ns) / NS_PER_S);
	json_add_text(o, "error", cs.error);
	json_add_text(o, "last_error", cs.last_error);
	json_close_object(o);
}

static void put_metadata(struct json_out *o, const struct daemon *d)
{
	struct meta_status ms;

	json_key(o, "metadata");
	json_open_object(o);
	json_add_text(o, "backend", d->meta != NULL ? d->cfg->meta_backend : "none");
	if (d->meta != NULL) {
		memset(&ms, 0, sizeof(ms));
		meta_status(d->meta, &ms);
		json_add_text(o, "dir", ms.dir);
		json_add_text(o, "health", ms.open ? "ok" : "failing");
		json_add_text(o, "error", ms.error);
		json_add_u64(o, "records", ms.records);
		json_add_u64(o, "used_bytes", ms.used_bytes);
	}
	json_close_object(o);
}

static void put_node(struct json_out *o, const struct meta_node *n)
{
	char id[24];

	snprintf(id, sizeof(id), "%016" PRIx64, n->is.id);
	json_open_object(o);
	json_add_text(o, "id", id);
	json_add_text(o, "name", n->is.name);
	json_add_bool(o, "self", n->self);
	json_add_text(o, "state", meta_node_state_text(n->state));
	json_add_u64(o, "silent_seconds", n->silent_ns / NS_PER_S);
	json_add_text(o, "address", n->is.address);
	json_add_u64(o, "capacity_bytes", n->is.capacity);
	json_add_u64(o, "waiting", n->tally.files[META_STATE_NOT_PERSISTED]);
	json_add_u64(o, "waiting_bytes", n->tally.bytes[META_STATE_NOT_PERSISTED]);
	json_add_u64(o, "failed", n->tally.files[META_STATE_FAILED]);
	json_add_u64(o, "transient", n->tally.files[META_STATE_TRANSIENT]);
	json_close_object(o);
}

/* Those that share the metadata store, this one first; nobody shares an embedded one, and
 * who has it has no number. */
static void put_cluster(struct json_out *o, const struct daemon *d)
{
	struct meta_node *all = calloc(META_NODES_MAX, sizeof(*all));
	size_t n = all != NULL && d->meta != NULL ? meta_nodes(d->meta, all, META_NODES_MAX) : 0;

	json_key(o, "cluster");
	json_open_array(o);
	for (size_t i = 0; i < n; i++)
		if (all[i].is.id != 0)
			put_node(o, &all[i]);
	json_close_array(o);
	free(all);
}

/* What is between them. */
static void put_peers(struct json_out *o, const struct daemon *d)
{
	struct peers_status st;

	if (d->peers == NULL)
		return;
	peers_status(d->peers, &st);
	json_key(o, "peers");
	json_open_object(o);
	json_add_bool(o, "key", st.key);
	json_add_bool(o, "listening", st.listening);
	json_add_u64(o, "connections", st.conns);
	json_add_text(o, "error", st.error);
	json_close_object(o);
}

static void put_deletions(struct json_out *o, const struct daemon *d)
{
	struct fs_deletions del;

	fs_deletions(d->fs, &del);
	json_add_u64(o, "deletions_pending", del.pending);
	json_add_u64(o, "deletions_refused", del.refused);
	json_add_text(o, "deletions_error", del.error != 0 ? strerror(-del.error) : "");
}

static void put_writing(struct json_out *o, struct daemon *d)
{
	struct ctl_unpersisted left;
	struct staging_status st;

	json_add_bool(o, "read_only", d->staging == NULL);
	if (d->staging == NULL) {
		json_add_u64(o, "persist_queue", 0);
		return;
	}
	ctl_unpersisted(d, &left);
	memset(&st, 0, sizeof(st));
	staging_status(d->staging, &st);
	json_add_u64(o, "persist_queue", left.files);
	json_key(o, "writing");
	json_open_object(o);
	json_add_text(o, "dir", st.dir);
	json_add_u64(o, "files_open", left.open);
	json_add_u64(o, "files_failed", left.failed);
	json_add_u64(o, "staged_files", st.files);
	json_add_u64(o, "staged_bytes", st.bytes);
	json_add_u64(o, "dirty_bytes", st.dirty);
	json_add_text(o, "failed_example", left.failed > 0 ? left.first_failed : "");
	json_add_text(o, "error", st.error);
	put_deletions(o, d);
	json_add_u64(o, "set_aside", st.aside);
	json_close_object(o);
}

/* What waits in the background, all of it kept as it changes: nothing is counted here. */
static void put_persist(struct json_out *o, struct daemon *d)
{
	uint64_t wall = loop_wall(d->loop);
	struct persist_info pi;

	if (d->staging == NULL)
		return;
	persist_info(d->fs, &pi);
	json_key(o, "persist");
	json_open_object(o);
	json_add_u64(o, "waiting", pi.waiting);
	json_add_u64(o, "waiting_bytes", pi.waiting_bytes);
	json_add_u64(o, "running", pi.running);
	json_add_u64(o, "failed", pi.failed);
	json_add_u64(o, "transient", pi.transient);
	json_add_u64(o, "persisted", pi.persisted);
	if (pi.oldest_ns == 0)
		json_add_null(o, "oldest_seconds");
	else
		json_add_u64(o, "oldest_seconds",
		    wall > pi.oldest_ns ? (wall - pi.oldest_ns) / NS_PER_S : 0);
	json_add_u64(o, "outside", pi.outside);
	json_add_u64(o, "pinned_bytes", pi.pinned_bytes);
	json_add_u64(o, "pinned_limit_bytes", pi.pinned_limit);
	json_add_text(o, "last_error", pi.error);
	json_close_object(o);
}

static const char *report_kind(const struct takeover_report *r)
{
	switch (r->kind) {
	case REPORT_NONE:
		break;
	case REPORT_TAKEOVER:
		return "takeover";
	case REPORT_RECOVERY:
		return "recovery";
	}
	return "none";
}

static void put_time(struct json_out *o, const char *key, uint64_t wall_ns)
{
	if (wall_ns == 0)
		json_add_null(o, key);
	else
		json_add_u64(o, key, wall_ns / NS_PER_S);
}

static void put_pauses(struct json_out *o, const struct takeover_tally *t)
{
	json_key(o, "pause");
	json_open_object(o);
	json_add_double(o, "total_ms", (double)t->pause_total_ns / (double)NS_PER_MS, 3);
	json_add_double(o, "longest_ms", (double)t->pause_longest_ns / (double)NS_PER_MS, 3);
	json_key(o, "histogram");
	json_open_array(o);
	for (unsigned i = 0; i < TALLY_BUCKETS; i++) {
		json_open_object(o);
		if (i < TALLY_BOUNDS)
			json_add_u64(o, "up_to_ms", tally_bounds_ms[i]);
		else
			json_add_null(o, "up_to_ms");
		json_add_u64(o, "count", t->pause[i]);
		json_close_object(o);
	}
	json_close_array(o);
	json_close_object(o);
}

/* Of this mount, whatever daemons it has had. */
static void put_takeovers(struct json_out *o, const struct takeover_tally *t, uint64_t replayed)
{
	json_key(o, "takeovers");
	json_open_object(o);
	json_add_u64(o, "takeovers", t->takeovers);
	json_add_u64(o, "recoveries", t->recoveries);
	json_add_u64(o, "failed", t->failed);
	json_add_u64(o, "requests_held", t->held);
	json_add_u64(o, "requests_resumed", t->resumed);
	json_add_u64(o, "requests_refused", t->refused);
	json_add_u64(o, "requests_aborted", t->aborted);
	json_add_u64(o, "requests_replayed", t->replayed + replayed);
	put_pauses(o, t);
	json_close_object(o);
}

static void put_takeover(struct json_out *o, const struct takeover_report *r, uint64_t replayed)
{
	json_key(o, "last_takeover");
	json_open_object(o);
	json_add_text(o, "kind", report_kind(r));
	put_time(o, "time", r->wall_ns);
	json_add_double(o, "pause_ms", (double)r->pause_ns / (double)NS_PER_MS, 3);
	json_add_i64(o, "from_pid", r->from_pid);
	json_add_text(o, "from_version", r->from_version);
	json_key(o, "moved");
	json_open_object(o);
	json_add_u64(o, "handles", r->handles);
	json_add_u64(o, "requests_held", r->held);
	json_add_u64(o, "requests_resumed", r->resumed);
	json_close_object(o);
	json_add_u64(o, "requests_refused", r->refused);
	json_add_u64(o, "requests_aborted", r->aborted);
	json_add_u64(o, "requests_replayed", replayed);
	json_add_text(o, "failure", r->failure);
	put_time(o, "failure_time", r->failure_wall_ns);
	json_close_object(o);
}

static void put_warnings(struct json_out *o, const char *lines)
{
	char line[sizeof(((struct daemon *)0)->warnings)];

	json_key(o, "warnings");
	json_open_array(o);
	while (*lines != '\0') {
		size_t n = strcspn(lines, "\n");

		snprintf(line, sizeof(line), "%.*s", (int)n, lines);
		json_put_text(o, line);
		lines += n + (lines[n] == '\n');
	}
	json_close_array(o);
}

static void put_capabilities(struct json_out *o)
{
	uint64_t set = caps_effective();
	const char *name;
	char buf[40];

	json_key(o, "capabilities");
	json_open_array(o);
	while ((name = caps_next(&set, buf, sizeof(buf))) != NULL)
		json_put_text(o, name);
	json_close_array(o);
}

static void put_counters(struct json_out *o, struct loop *lp)
{
	json_key(o, "counters");
	json_open_object(o);
	for (unsigned i = 0; i < CTR_MAX; i++)
		json_add_u64(o, counter_table[i].name, loop_counters(lp)->v[i]);
	json_close_object(o);
}

static void put_status(struct json_out *o, struct daemon *d)
{
	char id[24];
	struct fs_info info;
	uint64_t now = loop_wall(d->loop);

	memset(&info, 0, sizeof(info));
	fs_info(d->fs, &info);
	snprintf(id, sizeof(id), "%016" PRIx64, d->mount_id);
	json_open_object(o);
	json_add_text(o, "version", PACKAGE_VERSION);
	json_add_i64(o, "pid", getpid());
	json_add_u64(o, "uptime_seconds",
	    now > d->started_wall_ns ? (now - d->started_wall_ns) / NS_PER_S : 0);
	json_add_text(o, "mountpoint", d->args.mountpoint);
	json_add_text(o, "subtree", d->args.subtree != NULL ? d->args.subtree : "/");
	json_add_text(o, "mount_id", id);
	json_add_bool(o, "keeper", d->kept);
	put_capabilities(o);
	put_storage(o, d);
	put_metadata(o, d);
	put_cluster(o, d);
	put_peers(o, d);
	put_cache(o, d);
	put_writing(o, d);
	put_persist(o, d);
	json_add_u64(o, "files_open", info.open_files);
	json_add_u64(o, "directories_open", info.open_dirs);
	json_add_u64(o, "nodes", info.nodes);
	json_add_u64(o, "requests_running", info.running);
	put_takeover(o, &d->report, loop_counters(d->loop)->v[CTR_FUSE_RESENT]);
	put_takeovers(o, &d->tally, loop_counters(d->loop)->v[CTR_FUSE_RESENT]);
	put_warnings(o, d->warnings);
	put_counters(o, d->loop);
	json_close_object(o);
}

void ctl_status(struct ctl_cmd *cmd)
{
	struct json_out *o = ctl_result_begin(cmd);

	if (o != NULL)
		put_status(o, cmd->d);
	ctl_result_send(cmd, &o);
}
