/* SPDX-License-Identifier: BSD-2-Clause */
/* async-persist kept: where the files are that earlier mounts could not store, counted anew.
 * The client does the rest, through the mount point. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/obj.h"
#include "cache/staged.h"
#include "ctl/ctl_priv.h"
#include "daemon.h"

struct kept_count {
	struct ctl_cmd *cmd; /* NULL: the client has gone */
	struct pool_job job;
	struct deferred run;
	unsigned n;
	char dir[];
};

static void count_work(struct pool_job *job)
{
	struct kept_count *kc = container_of(job, struct kept_count, job);

	kc->n = staging_count_aside(kc->dir);
}

static void count_done(struct pool_job *job)
{
	struct kept_count *kc = container_of(job, struct kept_count, job);
	struct ctl_cmd *cmd = kc->cmd;
	struct json_out *o;
	char *dir;

	if (cmd == NULL) {
		free(kc);
		return;
	}
	loop_undefer(cmd->ctl->loop, &kc->run);
	staging_set_aside(cmd->d->staging, kc->n);
	if (asprintf(&dir, "%s/" STAGED_ASIDE, kc->dir) < 0) {
		free(kc);
		ctl_fail(cmd, -ENOMEM, "out of memory");
		return;
	}
	o = ctl_result_begin(cmd);
	json_open_object(o);
	json_add_text(o, "dir", dir);
	json_add_u64(o, "count", kc->n);
	json_close_object(o);
	free(dir);
	free(kc);
	ctl_result_send(cmd, &o);
}

/* A disk that hangs is not waited for: the pool has the job until it ends. */
static void count_given_up(struct deferred *d)
{
	struct kept_count *kc = container_of(d, struct kept_count, run);
	struct ctl_cmd *cmd = kc->cmd;

	kc->cmd = NULL;
	if (pool_recall(&kc->job))
		free(kc);
	ctl_fail(cmd, -ECANCELED, "given up");
}

static void count_cancel(struct ctl_cmd *cmd)
{
	struct kept_count *kc = cmd->priv;

	loop_defer(cmd->ctl->loop, &kc->run, count_given_up);
}

void ctl_persist_kept(struct ctl_cmd *cmd)
{
	const char *dir = cmd->d->staging_dir;
	struct kept_count *kc;
	size_t len;

	if (cmd->d->staging == NULL || dir == NULL) {
		ctl_fail(cmd, -EROFS, "the mount is read-only: it has no files of its own");
		return;
	}
	len = strlen(dir) + 1;
	kc = calloc(1, sizeof(*kc) + len);
	if (kc == NULL) {
		ctl_fail(cmd, -ENOMEM, "out of memory");
		return;
	}
	memcpy(kc->dir, dir, len);
	kc->cmd = cmd;
	cmd->priv = kc;
	cmd->cancel = count_cancel;
	pool_submit(cmd->d->pool, NULL, &kc->job, count_work, count_done);
}
