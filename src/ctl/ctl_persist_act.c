/* SPDX-License-Identifier: BSD-2-Clause */
/* async-persist retry and drop: what a person does about a file that was not stored. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/obj.h"
#include "ctl/ctl_fs.h"
#include "ctl/ctl_persist.h"
#include "ctl/ctl_priv.h"
#include "daemon.h"
#include "ops/persist.h"
#include "ops/session.h"

struct act {
	struct ctl_cmd *cmd;
	struct session_wait wait;
	struct persist_act act;
	struct deferred run; /* the client has gone */
	char *nspath;
	bool drop, session;
};

static void say_path(struct ctl_cmd *cmd, const char *nspath)
{
	struct json_out *o = ctl_result_begin(cmd);

	json_open_object(o);
	json_add_text(o, "path", nspath);
	json_close_object(o);
	ctl_result_send(cmd, &o);
}

/* What to do about it. */
static void say_failure(const struct act *a, int err)
{
	const char *p = a->nspath;

	if (err == -ENOENT)
		ctl_fail(a->cmd, err,
		    "%s: not among the files that are not in the storage yet "
		    "(`batonfs async-persist list` shows them)",
		    p);
	else if (err == -EREMOTE)
		ctl_fail(a->cmd, err, "%s: its bytes are on another node: `batonfs async-persist "
				      "stat --path %s` says which",
		    p, p);
	else if (err == -EINVAL)
		ctl_fail(a->cmd, err, "%s: is TRANSIENT: it is never stored, and goes when it is "
				      "removed",
		    p);
	else if (err == -EBUSY && a->drop && a->session)
		ctl_fail(a->cmd, err, "%s: is %s; only what has FAILED can be dropped", p,
		    ctl_persistence(a->cmd->d, p, NULL));
	else if (err == -EBUSY && a->drop)
		ctl_fail(a->cmd, err, "%s: has not FAILED; only what has can be dropped "
				      "(`rm` removes the file in any state)",
		    p);
	else if (err == -EBUSY)
		ctl_fail(a->cmd, err, "%s: is being written or uploaded just now", p);
	else if (err == -EEXIST || err == -ESTALE)
		ctl_fail(a->cmd, err,
		    "%s: another client has made an object of that name, which is not "
		    "overwritten; both are kept: move or remove that object and retry, or "
		    "`batonfs async-persist drop %s` to keep that one",
		    p, p);
	else
		ctl_fs_fail(a->cmd, err, p);
}

static void act_end(struct act *a, int err)
{
	loop_undefer(a->cmd->ctl->loop, &a->run);
	if (err == 0)
		say_path(a->cmd, a->nspath);
	else
		say_failure(a, err);
	free(a->nspath);
	free(a);
}

static void wait_done(struct session_wait *w, int err)
{
	act_end(container_of(w, struct act, wait), err);
}

static void act_done(struct persist_act *pa, int err)
{
	act_end(container_of(pa, struct act, act), err);
}

static void act_given_up(struct deferred *d)
{
	act_end(container_of(d, struct act, run), -ECANCELED);
}

/* The upload goes on; only the waiting for it ends. */
static void act_cancel(struct ctl_cmd *cmd)
{
	struct act *a = cmd->priv;

	if (a->session)
		session_wait_abort(&a->wait);
	else
		persist_act_abort(&a->act);
	loop_defer(cmd->ctl->loop, &a->run, act_given_up);
}

static int drop_session(struct session *s, const char *nspath)
{
	if (s->state != SESSION_FAILED)
		return -EBUSY;
	log_warn("%s: %llu bytes that could not be uploaded (%s) are dropped on request", nspath,
	    (unsigned long long)staged_size(s->sf), strerror(-s->error));
	return session_drop(s);
}

static void act_start(struct ctl_cmd *cmd, bool drop)
{
	char *nspath = ctl_fs_path(cmd);
	const char *path;
	struct session *s;
	struct ufs *ufs;
	struct act *a;
	int err;

	if (nspath == NULL)
		return;
	/* Out of reach, or no path at all: not to be taken for what persist_act() says. */
	err = fs_resolve(cmd->d->fs, nspath, &ufs, &path);
	if (err != 0) {
		ctl_fs_fail(cmd, err, nspath);
		free(nspath);
		return;
	}
	a = calloc(1, sizeof(*a));
	if (a == NULL) {
		free(nspath);
		ctl_fail(cmd, -ENOMEM, "out of memory");
		return;
	}
	a->cmd = cmd;
	a->nspath = nspath;
	a->drop = drop;
	cmd->priv = a;
	s = ctl_session_of(cmd->d, nspath);
	a->session = s != NULL && ctl_session_unpersisted(s);
	if (a->session && drop) {
		act_end(a, drop_session(s, nspath));
		return;
	}
	cmd->cancel = act_cancel;
	if (a->session) {
		session_upload(s, &a->wait, true, wait_done);
		return;
	}
	err = cmd->d->meta == NULL ? -ENOENT
				   : persist_act(cmd->d->fs, nspath + 1, drop, &a->act, act_done);
	if (err != 0)
		act_end(a, err);
}

void ctl_persist_retry(struct ctl_cmd *cmd)
{
	act_start(cmd, false);
}

void ctl_persist_drop(struct ctl_cmd *cmd)
{
	act_start(cmd, true);
}
