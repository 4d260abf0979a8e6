/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * upgrade: a successor is spawned and takes over.  One at a time.  It goes on if
 * the client leaves: half an upgrade is no better for that.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"
#include "ctl/ctl_priv.h"
#include "daemon.h"
#include "takeover/server.h"

/* The words of the command line that takeover_spawn() was given. */
static const char **flag_list(const struct json *flags)
{
	size_t n = 0;
	const char **list;

	list = calloc((flags != NULL ? flags->count : 0) + 1, sizeof(*list));
	if (list == NULL || flags == NULL)
		return list;
	for (const struct json *m = flags->first; m != NULL; m = m->next)
		list[n++] = m->text;
	return list;
}

static bool all_text(const struct json *flags)
{
	for (const struct json *m = flags != NULL ? flags->first : NULL; m != NULL; m = m->next)
		if (m->type != JSON_STRING)
			return false;
	return true;
}

/* Also when the new daemon never came to ask for the mount: whoever looks later shall
 * find why it is the old one that serves. */
static void note_failure(struct daemon *d, const char *words)
{
	snprintf(d->report.failure, sizeof(d->report.failure), "%.255s", words);
	d->report.failure_wall_ns = loop_wall(d->loop);
}

/* Called by takeover/: arg is the daemon, since the command may have been given up
 * together with the whole control socket. */
static void upgrade_done(void *arg, int err, const char *words)
{
	struct daemon *d = arg;
	struct ctl_cmd *cmd = d->ctl != NULL ? d->ctl->upgrade : NULL;
	struct json_out *o;
	bool check;

	if (cmd == NULL)
		return;
	check = json_get_bool(cmd->rq.args, "check", false);
	d->ctl->upgrade = NULL;
	free(cmd->priv);
	cmd->priv = NULL;
	if (err != 0) {
		if (words == NULL || words[0] == '\0')
			words = strerror(-err);
		if (!check)
			note_failure(d, words);
		ctl_fail(cmd, err, "%s", words);
		return;
	}
	o = ctl_result_begin(cmd);
	if (o != NULL) {
		json_open_object(o);
		json_add_bool(o, "check", check);
		json_add_text(o, "message", words != NULL ? words : "");
		json_close_object(o);
	}
	ctl_result_send(cmd, &o);
}

/* With its pid: if we die before we can say how it ended, that tells who serves then. */
static void upgrade_say(struct ctl_cmd *cmd, const char *binary, bool check, int pid)
{
	struct json_out *o = ctl_progress_begin(cmd);

	if (o != NULL) {
		json_open_object(o);
		json_add_text(o, "message",
		    check ? "asking a new daemon" : "starting a new daemon");
		json_add_text(o, "binary", binary);
		json_add_i64(o, "pid", pid);
		json_close_object(o);
	}
	ctl_progress_send(cmd, &o);
}

void ctl_upgrade(struct ctl_cmd *cmd)
{
	const struct json *flags = json_get(cmd->rq.args, "flags");
	const char *binary = json_get_text(cmd->rq.args, "binary", NULL);
	bool check = json_get_bool(cmd->rq.args, "check", false);
	struct daemon *d = cmd->d;
	struct errtext et = {""};
	int rc;

	if (d->takeover == NULL) {
		ctl_fail(cmd, -EOPNOTSUPP,
		    "takeover is switched off (fuse.non.disruptive.migration.enabled = false)");
		return;
	}
	if (cmd->ctl->upgrade != NULL) {
		ctl_fail(cmd, -EBUSY, "another upgrade of this mount is running");
		return;
	}
	if (!all_text(flags)) {
		ctl_fail(cmd, -EINVAL, "\"flags\" must be an array of strings");
		return;
	}
	cmd->priv = flag_list(flags);
	if (cmd->priv == NULL) {
		ctl_fail(cmd, -ENOMEM, "out of memory");
		return;
	}
	cmd->ctl->upgrade = cmd;
	rc = takeover_spawn(d->takeover, binary, cmd->priv, check, upgrade_done, d, &et);
	if (rc < 0)
		upgrade_done(d, rc, et.s);
	else
		upgrade_say(cmd, binary, check, rc);
}

void ctl_upgrade_forget(struct ctl *c)
{
	struct ctl_cmd *cmd = c->upgrade;

	c->upgrade = NULL;
	free(cmd->priv);
	cmd->priv = NULL;
	ctl_fail(cmd, -ESHUTDOWN, "the daemon ends before the upgrade was done");
}
