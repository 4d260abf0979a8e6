/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * umount: the mount point is detached in the pool, since umount(2) may ask the file
 * system and so must not run on the loop that answers it.  The daemon ends when the
 * kernel says that the mount is gone.
 */
#include <errno.h>
#include <string.h>

#include "base/obj.h"
#include "ctl/ctl_persist.h"
#include "ctl/ctl_priv.h"
#include "daemon.h"

struct umount {
	struct pool_job job;
	struct ctl_cmd *cmd;
	const char *mountpoint;
};

/* If we end, the connection lasts until then, and until the keeper's end, so that a client
 * can wait for both. */
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
	if (ends && cmd->conn != NULL)
		daemon_keep_waiter(cmd->d, cmd->conn->fd);
	ctl_result_send(cmd, &o);
}

static void umount_work(struct pool_job *job)
{
	struct umount *um = container_of(job, struct umount, job);

	job->result = fuse_chan_unmount(um->mountpoint, false);
}

static void umount_done(struct pool_job *job)
{
	struct umount *um = container_of(job, struct umount, job);

	/* Bind mounts, and copies in other mount namespaces, are still served. */
	if (job->result == 0)
		umount_say(um->cmd, um->mountpoint, daemon_mount_gone(um->cmd->d));
	else if (job->result == -EBUSY)
		ctl_fail(um->cmd, -EBUSY,
		    "%s: in use (`fuser -vm %s` says by whom); --force unmounts it all the same",
		    um->mountpoint, um->mountpoint);
	else
		ctl_fail(um->cmd, job->result, "%s: %s", um->mountpoint, strerror(-job->result));
	free(um);
}

void ctl_umount(struct ctl_cmd *cmd)
{
	struct daemon *d = cmd->d;
	struct ctl_unpersisted left;
	struct umount *um;

	if (json_get_bool(cmd->rq.args, "force", false)) {
		umount_say(cmd, d->args.mountpoint, true);
		daemon_exit(d, true, DAEMON_EXIT_OK);
		return;
	}
	ctl_unpersisted(d, &left);
	if (left.files > 0) {
		ctl_fail(cmd, -EBUSY,
		    "%s: %llu files are not in the storage yet, such as %s: --drain TIME waits "
		    "for them, `batonfs async-persist list` shows them, --force gives them up",
		    d->args.mountpoint, (unsigned long long)left.files, left.first);
		return;
	}
	um = calloc(1, sizeof(*um));
	if (um == NULL) {
		ctl_fail(cmd, -ENOMEM, "out of memory");
		return;
	}
	um->cmd = cmd;
	um->mountpoint = d->args.mountpoint;
	pool_submit(d->pool, NULL, &um->job, umount_work, umount_done);
}
