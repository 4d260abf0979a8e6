/* SPDX-License-Identifier: BSD-2-Clause */
/* The table: what the control socket understands. */
#include "ctl/ctl_priv.h"

static void ctl_help(struct ctl_cmd *cmd)
{
	struct json_out *o = ctl_result_begin(cmd);

	if (o != NULL) {
		json_open_object(o);
		json_key(o, "commands");
		json_open_array(o);
		for (const struct ctl_command *c = cmd->ctl->commands; c->name != NULL; c++) {
			json_open_object(o);
			json_add_text(o, "name", c->name);
			json_add_text(o, "help", c->help);
			json_close_object(o);
		}
		json_close_array(o);
		json_close_object(o);
	}
	ctl_result_send(cmd, &o);
}

static const struct ctl_arg no_args[] = {{0}};
static const struct ctl_arg name_args[] = {{"name", JSON_STRING, true}, {0}};
static const struct ctl_arg set_args[] = {
    {"name", JSON_STRING, true},
    {"value", JSON_STRING, true},
    {0},
};
static const struct ctl_arg ls_args[] = {
    {"path", JSON_STRING, true},
    {"recursive", JSON_BOOL, false},
    {0},
};
static const struct ctl_arg path_args[] = {{"path", JSON_STRING, true}, {0}};
static const struct ctl_arg paths_args[] = {{"paths", JSON_ARRAY, true}, {0}};
static const struct ctl_arg upgrade_args[] = {
    {"binary", JSON_STRING, false},
    {"flags", JSON_ARRAY, false},
    {"check", JSON_BOOL, false},
    {0},
};
static const struct ctl_arg umount_args[] = {{"force", JSON_BOOL, false}, {0}};
static const struct ctl_arg list_args[] = {{"worker", JSON_STRING, false}, {0}};
static const struct ctl_arg rules_args[] = {
    {"text", JSON_STRING, true},
    {"if_version", JSON_NUMBER, false},
    {0},
};
static const struct ctl_arg scan_args[] = {
    {"path", JSON_STRING, true},
    {"after", JSON_STRING, false},
    {0},
};
static const struct ctl_arg digest_args[] = {{"digest", JSON_STRING, true}, {0}};
static const struct ctl_arg records_args[] = {
    {"digest", JSON_STRING, true},
    {"records", JSON_ARRAY, true},
    {0},
};
static const struct ctl_arg drain_args[] = {{"timeout", JSON_STRING, false}, {0}};

const struct ctl_command ctl_commands[] = {
    {"status", ctl_status, no_args, "what the daemon is, has and does"},
    {"conf get", ctl_conf_get, name_args, "the value of one property"},
    {"conf list", ctl_conf_list, no_args, "all properties with their values and ranges"},
    {"conf set", ctl_conf_set, set_args, "change a live property, also for successors"},
    {"fs ls", ctl_fs_ls, ls_args, "list a path of the namespace, as rows of progress"},
    {"fs stat", ctl_fs_stat, path_args, "one path of the namespace in full"},
    {"fs explain", ctl_fs_explain, path_args, "where a file is, and what decides about it"},
    {"fs load", ctl_fs_load, paths_args, "fill the cache with files, a row of progress each"},
    {"fs free", ctl_fs_free, paths_args, "drop files from the cache, a row of progress each"},
    {"pathconfig show", ctl_pathconfig_show, no_args, "the path rules, and their version"},
    {"pathconfig set", ctl_pathconfig_set, rules_args,
	"other path rules, if they have that version now"},
    {"pathconfig test", ctl_pathconfig_test, path_args, "the rule that decides about a path"},
    {"async-persist list", ctl_persist_list, list_args,
	"files that are not in the storage yet, as rows of progress"},
    {"async-persist stat", ctl_persist_stat, path_args, "one of them"},
    {"async-persist retry", ctl_persist_retry, path_args, "upload one of them now"},
    {"async-persist drop", ctl_persist_drop, path_args, "throw away one that has failed"},
    {"async-persist drain", ctl_persist_drain, drain_args, "wait until there are none"},
    {"async-persist kept", ctl_persist_kept, no_args,
	"where what earlier mounts could not store was set aside, and how many files"},
    {"meta state", ctl_meta_state, no_args, "whether the metadata store can be moved"},
    {"meta scan", ctl_meta_scan, scan_args, "records of a directory, a page"},
    {"meta begin", ctl_meta_begin, digest_args, "an import into an empty store begins, or goes on"},
    {"meta put", ctl_meta_put_records, records_args, "records of an import"},
    {"meta end", ctl_meta_end, digest_args, "an import is complete"},
    {"upgrade", ctl_upgrade, upgrade_args, "start a new daemon and let it take over"},
    {"umount", ctl_umount, umount_args, "unmount and end the daemon"},
    {"help", ctl_help, no_args, "this table"},
    {0},
};
