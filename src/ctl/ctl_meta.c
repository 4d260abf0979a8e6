/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What `batonfs meta export` and `meta import` ask for: whether the store may be moved, its
 * records a page at a time, and records to be put into it.
 *
 * A store that is being imported bears the setting META_SETTING_IMPORT with the digest of what
 * is imported, which is empty when that is done; so an import that was broken off can go on,
 * and nothing else is taken for the whole.  Each request ends within meta.timeout, so none of
 * these is cancelled.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/obj.h"
#include "base/units.h"
#include "ctl/ctl_meta_json.h"
#include "ctl/ctl_persist.h"
#include "ctl/ctl_priv.h"
#include "daemon.h"

#define SCAN_PAGE 1000u
#define PUT_MOST 100u

struct move {
	struct ctl_cmd *cmd;
	void (*next)(struct move *mv);
	struct meta_scan scan;
	struct meta_intents intents;
	struct meta_setting_get setting;
	struct meta_txn txn;
	struct meta_change changes[PUT_MOST];
	char digest[24];
};

static void move_free(struct move *mv)
{
	meta_scan_free(&mv->scan);
	meta_intents_free(&mv->intents);
	meta_setting_free(&mv->setting);
	free(mv);
}

static struct move *move_new(struct ctl_cmd *cmd)
{
	struct move *mv;

	if (cmd->d->meta == NULL) {
		ctl_fail(cmd, -EROFS, "a read-only mount has no metadata store");
		return NULL;
	}
	mv = calloc(1, sizeof(*mv));
	if (mv == NULL) {
		ctl_fail(cmd, -ENOMEM, "out of memory");
		return NULL;
	}
	mv->cmd = cmd;
	mv->scan.req.user = mv->intents.req.user = mv->setting.req.user = mv->txn.req.user = mv;
	return mv;
}

static void move_failed(struct move *mv, int err)
{
	struct ctl_cmd *cmd = mv->cmd;

	move_free(mv);
	ctl_fail(cmd, err, "the metadata store: %s",
	    err == -ECANCELED ? "this daemon is ending or being replaced: ask again" : strerror(-err));
}

/* --- May the store be moved? */

static uint64_t waiting(const struct meta_tally *ta)
{
	return ta->files[META_STATE_NOT_PERSISTED] + ta->files[META_STATE_FAILED] +
	       ta->files[META_STATE_TRANSIENT];
}

/* Another node that has it open, or has what only it can persist. */
static bool other_nodes(struct ctl_cmd *cmd)
{
	struct meta_node *all = calloc(META_NODES_MAX, sizeof(*all));
	size_t n = all != NULL ? meta_nodes(cmd->d->meta, all, META_NODES_MAX) : 0, i = 0;
	bool waits = false;

	if (all == NULL) {
		ctl_fail(cmd, -ENOMEM, "out of memory");
		return true;
	}
	for (; i < n; i++) {
		waits = waiting(&all[i].tally) > 0;
		if (!all[i].self && (waits || all[i].state == META_NODE_ALIVE ||
					all[i].state == META_NODE_UNKNOWN))
			break;
	}
	if (i < n)
		ctl_fail(cmd, -EBUSY,
		    waits ? "node %s (%016" PRIx64 ") has files that are not in the storage: mount "
			    "it, let it persist them or drop them, and unmount it"
			  : "node %s (%016" PRIx64 ") has the store open, or is not known to have "
			    "died: unmount it; if it has gone for good, wait for meta.node.expiry",
		    all[i].is.name, all[i].is.id);
	free(all);
	return i < n;
}

static bool in_use(struct ctl_cmd *cmd)
{
	struct ctl_unpersisted left;
	struct meta_status st;

	meta_flush(cmd->d->meta);
	ctl_unpersisted(cmd->d, &left);
	meta_status(cmd->d->meta, &st);
	if (left.open > 0 || left.lost > 0) {
		ctl_fail(cmd, -EBUSY, "files are open for writing on this mount: close them first");
		return true;
	}
	if (waiting(&st.tally) > st.tally.files[META_STATE_TRANSIENT]) {
		ctl_fail(cmd, -EBUSY,
		    "%" PRIu64 " files are not in the storage yet, and their bytes do not move with "
		    "the store: `batonfs async-persist drain` waits for them, `async-persist list` "
		    "shows them",
		    waiting(&st.tally) - st.tally.files[META_STATE_TRANSIENT]);
		return true;
	}
	if (waiting(&st.tally) > 0) {
		ctl_fail(cmd, -EBUSY,
		    "%" PRIu64 " files are TRANSIENT, and their bytes do not move with the store: "
		    "copy them to a path with another policy, or delete them",
		    waiting(&st.tally));
		return true;
	}
	return other_nodes(cmd);
}

static void state_answer(struct move *mv)
{
	struct ctl_cmd *cmd = mv->cmd;
	struct meta_status st;
	struct json_out *o;

	if (mv->intents.count > 0) {
		move_free(mv);
		ctl_fail(cmd, -EBUSY, "a rename or an upload is under way: try again when it has "
				      "ended; a new mount ends what an earlier one has left");
		return;
	}
	if (meta_waiting(cmd->d->meta) > 0) {
		move_free(mv);
		ctl_fail(cmd, -EBUSY, "changes are on their way into the store: try again");
		return;
	}
	meta_status(cmd->d->meta, &st);
	o = ctl_result_begin(cmd);
	json_open_object(o);
	json_add_text(o, "backend", cmd->d->fdb != NULL ? "fdb" : "embedded");
	json_add_text(o, "store", st.dir);
	json_add_u64(o, "changes", loop_counters(cmd->ctl->loop)->v[CTR_META_TXNS]);
	json_add_u64(o, "pid", (uint64_t)getpid());
	json_add_bool(o, "importing", mv->setting.len > 0);
	json_close_object(o);
	move_free(mv);
	ctl_result_send(cmd, &o);
}

static void state_setting(struct meta_req *r, int err)
{
	struct move *mv = r->user;

	if (err != 0 && err != -ENOENT)
		move_failed(mv, err);
	else
		state_answer(mv);
}

static void state_intents(struct meta_req *r, int err)
{
	struct move *mv = r->user;

	if (err != 0) {
		move_failed(mv, err);
		return;
	}
	mv->setting.id = META_SETTING_IMPORT;
	meta_setting_get(mv->cmd->d->meta, &mv->setting, state_setting);
}

void ctl_meta_state(struct ctl_cmd *cmd)
{
	struct move *mv = move_new(cmd);

	if (mv == NULL)
		return;
	if (in_use(cmd)) {
		move_free(mv);
		return;
	}
	meta_intents(cmd->d->meta, &mv->intents, state_intents);
}

/* --- Records, a page */

static void scan_answer(struct meta_req *r, int err)
{
	struct move *mv = r->user;
	struct ctl_cmd *cmd = mv->cmd;
	struct json_out *o;

	for (size_t i = 0; err == 0 && i < mv->scan.count; i++) {
		const struct meta_record *rec = &mv->scan.entries[i].rec;

		if ((rec->has & META_HAS_CONTENT) != 0 &&
		    rec->content.state != META_STATE_PERSISTED)
			err = -EBUSY;
	}
	if (err != 0) {
		move_failed(mv, err);
		return;
	}
	o = ctl_result_begin(cmd);
	json_open_object(o);
	json_add_bool(o, "more", mv->scan.more);
	json_key(o, "entries");
	json_open_array(o);
	for (size_t i = 0; i < mv->scan.count; i++) {
		json_open_object(o);
		json_add_text(o, "name", mv->scan.entries[i].name);
		ctl_meta_put(o, &mv->scan.entries[i].rec);
		json_close_object(o);
	}
	json_close_array(o);
	json_close_object(o);
	move_free(mv);
	ctl_result_send(cmd, &o);
}

void ctl_meta_scan(struct ctl_cmd *cmd)
{
	struct move *mv = move_new(cmd);

	if (mv == NULL)
		return;
	/* The command, and what it was read from, stays until its end. */
	mv->scan.path = json_get_text(cmd->rq.args, "path", "");
	mv->scan.after = json_text(json_get(cmd->rq.args, "after"));
	mv->scan.max = SCAN_PAGE;
	mv->scan.pass = true;
	meta_scan(cmd->d->meta, &mv->scan, scan_answer);
}

/* --- Records to be put */

static void put_answer(struct meta_req *r, int err)
{
	struct move *mv = r->user;
	struct ctl_cmd *cmd = mv->cmd;
	struct json_out *o;

	if (err != 0) {
		move_failed(mv, err);
		return;
	}
	o = ctl_result_begin(cmd);
	json_open_object(o);
	json_close_object(o);
	move_free(mv);
	ctl_result_send(cmd, &o);
}

/* Of which import is the store?  Then the next step, or a refusal. */
static void setting_known(struct meta_req *r, int err)
{
	struct move *mv = r->user;
	struct ctl_cmd *cmd = mv->cmd;

	if (err != 0 && err != -ENOENT) {
		move_failed(mv, err);
		return;
	}
	if (mv->setting.len > 0 && strcmp(mv->setting.blob, mv->digest) != 0) {
		move_free(mv);
		ctl_fail(cmd, -EBUSY, "the import of another file into this store was broken off: "
				      "import that one to its end, or begin with an empty store");
		return;
	}
	mv->next(mv);
}

static void ask_setting(struct move *mv, void (*next)(struct move *mv))
{
	(void)snprintf(mv->digest, sizeof(mv->digest), "%s",
	    json_get_text(mv->cmd->rq.args, "digest", ""));
	mv->next = next;
	mv->setting.id = META_SETTING_IMPORT;
	meta_setting_get(mv->cmd->d->meta, &mv->setting, setting_known);
}

static void put_records(struct move *mv)
{
	struct ctl_cmd *cmd = mv->cmd;

	if (mv->setting.len == 0) {
		move_free(mv);
		ctl_fail(cmd, -EINVAL, "no import has begun");
		return;
	}
	mv->txn.changes = mv->changes;
	meta_txn(cmd->d->meta, &mv->txn, put_answer);
}

void ctl_meta_put_records(struct ctl_cmd *cmd)
{
	const struct json *all = json_get(cmd->rq.args, "records");
	struct move *mv = move_new(cmd);
	struct errtext et = {""};

	if (mv == NULL)
		return;
	for (const struct json *v = all->first; v != NULL; v = v->next) {
		struct meta_change *ch = &mv->changes[mv->txn.n];
		int err = mv->txn.n == PUT_MOST
			      ? errtext_set(&et, -EINVAL, "too many records in one request")
			      : ctl_meta_get(v, &ch->rec, &et);

		if (err == 0) {
			ch->verb = META_PUT;
			ch->path = json_get_text(v, "path", "");
			mv->txn.n++;
			continue;
		}
		move_free(mv);
		ctl_fail(cmd, err, "%s: %s", json_get_text(v, "path", "?"), et.s);
		return;
	}
	ask_setting(mv, put_records);
}

/* --- The begin and the end of an import */

static void put_digest(struct move *mv, const char *digest)
{
	struct meta_change *ch = &mv->changes[0];

	*ch = (struct meta_change){.verb = META_SETTING_PUT,
	    .id = META_SETTING_IMPORT,
	    .blob = digest,
	    .blob_len = strlen(digest),
	    .if_version = mv->setting.version};
	mv->txn.changes = ch;
	mv->txn.n = 1;
	meta_txn(mv->cmd->d->meta, &mv->txn, put_answer);
}

static void begin_scanned(struct meta_req *r, int err)
{
	struct move *mv = r->user;
	struct ctl_cmd *cmd = mv->cmd;

	if (err != 0) {
		move_failed(mv, err);
		return;
	}
	if (mv->scan.count > 0) {
		move_free(mv);
		ctl_fail(cmd, -EEXIST, "this store has records already: an import needs an empty one "
				       "(another meta.dir, or meta.fdb.prefix)");
		return;
	}
	put_digest(mv, mv->digest);
}

static void begin_known(struct move *mv)
{
	if (mv->setting.len > 0) { /* it goes on */
		put_answer(&mv->setting.req, 0);
		return;
	}
	mv->scan.path = "";
	mv->scan.max = 1;
	mv->scan.pass = true;
	meta_scan(mv->cmd->d->meta, &mv->scan, begin_scanned);
}

static void end_known(struct move *mv)
{
	if (mv->setting.len == 0)
		put_answer(&mv->setting.req, 0);
	else
		put_digest(mv, "");
}

void ctl_meta_begin(struct ctl_cmd *cmd)
{
	struct move *mv = move_new(cmd);

	if (mv != NULL)
		ask_setting(mv, begin_known);
}

void ctl_meta_end(struct ctl_cmd *cmd)
{
	struct move *mv = move_new(cmd);

	if (mv != NULL)
		ask_setting(mv, end_known);
}
