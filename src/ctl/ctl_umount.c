/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * umount: the mount point is detached in the pool, since umount(2) may ask the file
 * system and so must not run on the loop that answers it.  That takes as long as the kernel
 * needs to forget each name that it knows, so the client hears every second that it goes on.
 * The daemon ends when the kernel says that the mount is gone.  It is refused while there
 * are files that are not in the storage.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/obj.h"
#include "base/units.h"
#include "ctl/ctl_persist.h"
#include "ctl/ctl_priv.h"
#include "daemon.h"

#define UMOUNT_TELL_EVERY NS_PER_S

struct umount {
	struct pool_job job;
	struct timer tell;
	struct ctl_left left;
	struct deferred run; /* the client has gone */
	struct ctl_cmd *cmd;
	const char *mountpoint;
};

/* The connection lasts until we end, and until the keeper's end, so that a client can wait
 * for both.  Bind mounts, and copies in other mount namespaces, are served until they are
 * gone, too; a container that is being made has such copies for a moment. */
static void umount_say(struct ctl_cmd *cmd, const char *mountpoint, bool ends)
{
	struct json_out *o = ctl_result_begin(cmd);

	if (o != NULL) {
		json_open_object(o);
		json_add_text(o, "mountpoint", mountpoint);
		if (!ends)
			json_add_bool(o, "mounted_elsewhere", true);
		json_close_object(o);
	}
	if (cmd->conn != NULL)
		daemon_keep_waiter(cmd->d, cmd->conn->fd);
	ctl_result_send(cmd, &o);
}

static void umount_work(struct pool_job *job)
{
	struct umount *um = container_of(job, struct umount, job);

	job->result = fuse_chan_unmount(um->mountpoint, false);
}

static void umount_tell(struct timer *t)
{
	struct umount *um = container_of(t, struct umount, tell);
	struct json_out *o;

	if (!ctl_blocked(um->cmd)) {
		o = ctl_progress_begin(um->cmd);
		if (o != NULL) {
			json_open_object(o);
			json_add_text(o, "message", DAEMON_WAITS_FOR_KERNEL);
			json_close_object(o);
		}
		ctl_progress_send(um->cmd, &o);
	}
	timer_arm(t, UMOUNT_TELL_EVERY);
}

static void umount_done(struct pool_job *job)
{
	struct umount *um = container_of(job, struct umount, job);

	timer_cancel(&um->tell);
	if (job->result == 0)
		umount_say(um->cmd, um->mountpoint, daemon_mount_gone(um->cmd->d));
	else if (job->result == -EBUSY && um->cmd->d->args.fuse_fd >= 0 && geteuid() != 0)
		ctl_fail(um->cmd, -EPERM,
		    "%s: in use, or not this daemon's to unmount: its descriptor was given "
		    "(--fuse-fd), and who mounted it unmounts it",
		    um->mountpoint);
	else if (job->result == -EBUSY)
		ctl_fail(um->cmd, -EBUSY,
		    "%s: in use (`fuser -vm %s` says by whom); --force unmounts it all the same",
		    um->mountpoint, um->mountpoint);
	else
		ctl_fail(um->cmd, job->result, "%s: %s", um->mountpoint, strerror(-job->result));
	free(um);
}

static void umount_refuse(struct umount *um, int err)
{
	const struct ctl_unpersisted *n = &um->left.n;
	const char *mp = um->mountpoint, *dir = um->cmd->d->staging_dir;

	loop_undefer(um->cmd->ctl->loop, &um->run);
	if (err != 0)
		ctl_fail(um->cmd, err,
		    "%s: whether there are files that are not in the storage yet is not known: the "
		    "metadata store: %s; --force unmounts all the same",
		    mp, strerror(-err));
	else
		ctl_fail(um->cmd, -EBUSY,
		    "%s: %llu files are not in the storage yet, such as %s: --drain TIME waits for "
		    "them, `batonfs async-persist list` shows them, --force leaves %s%s%s",
		    mp, (unsigned long long)n->files, um->left.names,
		    n->lost == n->files ? "what was written of them"
		    : n->lost > 0	? "them to the next mount, and of those that no policy "
					  "governs what was written"
					: "them to the next mount",
		    n->lost > 0 ? " in " : "", n->lost > 0 ? dir : "");
	free(um);
}

static void umount_seen(struct ctl_left *left, int err)
{
	struct umount *um = container_of(left, struct umount, left);

	if (err != 0 || left->n.files > 0) {
		umount_refuse(um, err);
		return;
	}
	um->cmd->cancel = NULL;
	timer_arm(&um->tell, UMOUNT_TELL_EVERY);
	pool_submit(um->cmd->d->pool, NULL, &um->job, umount_work, umount_done);
}

static void umount_given_up(struct deferred *d)
{
	umount_refuse(container_of(d, struct umount, run), -ECANCELED);
}

static void umount_cancel(struct ctl_cmd *cmd)
{
	struct umount *um = cmd->priv;

	ctl_left_abort(&um->left);
	loop_defer(cmd->ctl->loop, &um->run, umount_given_up);
}

void ctl_umount(struct ctl_cmd *cmd)
{
	struct daemon *d = cmd->d;
	struct umount *um;

	if (json_get_bool(cmd->rq.args, "force", false)) {
		umount_say(cmd, d->args.mountpoint, true);
		daemon_exit(d, true, DAEMON_EXIT_OK);
		return;
	}
	um = calloc(1, sizeof(*um));
	if (um == NULL) {
		ctl_fail(cmd, -ENOMEM, "out of memory");
		return;
	}
	um->cmd = cmd;
	um->mountpoint = d->args.mountpoint;
	timer_init(&um->tell, d->loop, umount_tell);
	cmd->priv = um;
	cmd->cancel = umount_cancel;
	ctl_left_start(d, &um->left, umount_seen);
}
