/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Properties.  A change is made in the running configuration and written into the
 * command line that restarts and upgrades use, so it outlives this process but not
 * the mount: the configuration file is the administrator's.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/options.h"
#include "ctl/ctl_priv.h"
#include "daemon.h"

/* Longest value that can be shown: a path. */
#define VALUE_MAX 8192

/* NULL: the command has been failed and is gone. */
static const struct option_desc *find(struct ctl_cmd *cmd)
{
	const char *name = json_get_text(cmd->rq.args, "name", "");
	const struct option_desc *od = option_find(name);
	const char *near = od == NULL ? option_nearest(name) : NULL;

	if (near != NULL)
		ctl_fail(cmd, -ENOENT, "%s: no such property; the nearest is %s", name, near);
	else if (od == NULL)
		ctl_fail(cmd, -ENOENT, "%s: no such property; `batonfs conf list` shows all", name);
	return od;
}

void ctl_conf_get(struct ctl_cmd *cmd)
{
	const struct option_desc *od = find(cmd);
	char value[VALUE_MAX];
	struct json_out *o;

	if (od == NULL)
		return;
	o = ctl_result_begin(cmd);
	if (o != NULL) {
		json_open_object(o);
		json_add_text(o, "name", od->name);
		json_add_text(o, "value", config_get(cmd->d->cfg, od->name, value, sizeof(value)));
		json_close_object(o);
	}
	ctl_result_send(cmd, &o);
}

static void put_row(struct json_out *o, const struct config *cfg, const struct option_desc *od)
{
	char value[VALUE_MAX], range[256];

	json_open_object(o);
	json_add_text(o, "name", od->name);
	json_add_text(o, "value", config_get(cfg, od->name, value, sizeof(value)));
	json_add_text(o, "default", od->def);
	json_add_text(o, "range", option_range_text(od, range, sizeof(range)));
	json_add_bool(o, "live", od->when == OPT_LIVE);
	json_add_text(o, "help", od->doc);
	json_close_object(o);
}

void ctl_conf_list(struct ctl_cmd *cmd)
{
	struct json_out *o = ctl_result_begin(cmd);

	if (o != NULL) {
		json_open_object(o);
		json_key(o, "properties");
		json_open_array(o);
		for (size_t i = 0; i < option_count; i++)
			put_row(o, cmd->d->cfg, &option_table[i]);
		json_close_array(o);
		json_close_object(o);
	}
	ctl_result_send(cmd, &o);
}

void ctl_conf_set(struct ctl_cmd *cmd)
{
	struct daemon *d = cmd->d;
	const struct option_desc *od = find(cmd);
	char was[VALUE_MAX], now[VALUE_MAX];
	struct errtext et = {""};
	struct json_out *o;
	int rc;

	if (od == NULL)
		return;
	if (config_get(d->cfg, od->name, was, sizeof(was)) == NULL)
		was[0] = '\0';
	rc = config_set_live(d->cfg, od->name, json_get_text(cmd->rq.args, "value", ""), &et);
	if (rc == 0) {
		rc = config_validate(d->cfg, &et);
		if (rc != 0)
			config_set(d->cfg, od->name, was, NULL);
	}
	if (rc != 0) {
		ctl_fail(cmd, rc, "%s", et.s);
		return;
	}
	daemon_apply_log_level(d->cfg);
	if (config_get(d->cfg, od->name, now, sizeof(now)) == NULL)
		now[0] = '\0';
	rc = daemon_keep_setting(d, od->name, now);
	log_info("%s: %s set to %s (was %s)", d->args.mountpoint, od->name, now, was);
	if (rc != 0)
		log_warn("%s: %s is not kept for the next daemon: %s", d->args.mountpoint,
		    od->name, strerror(-rc));
	o = ctl_result_begin(cmd);
	if (o != NULL) {
		json_open_object(o);
		json_add_text(o, "name", od->name);
		json_add_text(o, "value", now);
		json_add_text(o, "previous", was);
		json_add_bool(o, "kept", rc == 0);
		json_close_object(o);
	}
	ctl_result_send(cmd, &o);
}
