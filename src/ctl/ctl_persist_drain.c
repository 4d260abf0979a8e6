/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * async-persist drain: waits until there is nothing left.  Looks again when a moment has
 * passed: what is waited for takes storage requests, and new files may come meanwhile.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/obj.h"
#include "base/units.h"
#include "ctl/ctl_persist.h"
#include "ctl/ctl_priv.h"
#include "daemon.h"

#define DRAIN_LOOK (100 * NS_PER_MS)
#define DRAIN_SAY 10 /* a row of progress every so many looks */

struct drain {
	struct ctl_cmd *cmd;
	struct timer look;
	struct ctl_left left;
	uint64_t until; /* 0: for ever */
	unsigned looks;
	bool given_up;
};

static void drain_free(struct drain *dr)
{
	timer_cancel(&dr->look);
	ctl_left_abort(&dr->left);
	free(dr);
}

static void put_left(struct json_out *o, const struct ctl_unpersisted *left)
{
	json_open_object(o);
	json_add_u64(o, "files", left->files);
	json_add_u64(o, "failed", left->failed);
	json_add_u64(o, "bytes", left->bytes);
	if (left->outside > 0)
		json_add_u64(o, "outside", left->outside);
	json_close_object(o);
}

static void drain_refuse(struct drain *dr, int err)
{
	struct ctl_cmd *cmd = dr->cmd;
	const struct ctl_unpersisted *n = &dr->left.n;

	if (err != 0)
		ctl_fail(cmd, err, "what is not in the storage is not known: the metadata store: %s",
		    strerror(-err));
	else
		ctl_fail(cmd, -EBUSY, "%llu files are not in the storage, such as %s%s",
		    (unsigned long long)n->files, dr->left.names,
		    n->files == n->failed ? "; they have failed: `batonfs async-persist retry` or "
					    "`drop` them"
					  : "");
	drain_free(dr);
}

static void drain_seen(struct ctl_left *left, int err)
{
	struct drain *dr = container_of(left, struct drain, left);
	const struct ctl_unpersisted *n = &left->n;
	struct ctl_cmd *cmd = dr->cmd;
	bool over = dr->given_up || (dr->until != 0 && loop_now(cmd->d->loop) >= dr->until);
	struct json_out *o;

	if (err == 0 && n->files == 0) {
		o = ctl_result_begin(cmd);
		put_left(o, n);
		drain_free(dr);
		ctl_result_send(cmd, &o);
		return;
	}
	if (over || (err == 0 && n->files == n->failed)) {
		drain_refuse(dr, err);
		return;
	}
	if (dr->looks++ % DRAIN_SAY == 0 && !ctl_blocked(cmd)) {
		o = ctl_progress_begin(cmd);
		put_left(o, n);
		ctl_progress_send(cmd, &o);
	}
	timer_arm(&dr->look, DRAIN_LOOK);
}

static void drain_look(struct timer *t)
{
	struct drain *dr = container_of(t, struct drain, look);

	if (dr->given_up)
		drain_refuse(dr, -ECANCELED);
	else
		ctl_left_start(dr->cmd->d, &dr->left, drain_seen);
}

static void drain_cancel(struct ctl_cmd *cmd)
{
	struct drain *dr = cmd->priv;

	dr->given_up = true;
	ctl_left_abort(&dr->left);
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
