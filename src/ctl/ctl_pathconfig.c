/* SPDX-License-Identifier: BSD-2-Clause */
/* The path rules: shown, set, and asked about one path. */
#include <errno.h>
#include <string.h>

#include "base/obj.h"
#include "base/units.h"
#include "ctl/ctl_fs.h"
#include "ctl/ctl_priv.h"
#include "daemon.h"
#include "ops/policy.h"

/* Who waits for rules is answered within meta.timeout, so none of these is cancelled. */
struct pathconfig {
	struct ctl_cmd *cmd;
	struct policy_load load;
	struct policy_set set;
	void (*answer)(struct pathconfig *pc, struct json_out *o);
	char *nspath; /* test: in its plain form */
};

static void pc_free(struct pathconfig *pc)
{
	free(pc->nspath);
	free(pc);
}

static struct pathconfig *pc_new(struct ctl_cmd *cmd)
{
	struct pathconfig *pc = calloc(1, sizeof(*pc));

	if (pc == NULL) {
		ctl_fail(cmd, -ENOMEM, "out of memory");
		return NULL;
	}
	pc->cmd = cmd;
	pc->load.user = pc;
	pc->set.user = pc;
	return pc;
}

static void pc_fail(struct pathconfig *pc, int err, const char *words)
{
	ctl_fail(pc->cmd, err, "%s",
	    err == -ECANCELED ? "this daemon is ending or being replaced: ask again" : words);
	pc_free(pc); /* with it the words */
}

static void pc_answer(struct pathconfig *pc)
{
	struct ctl_cmd *cmd = pc->cmd;
	struct json_out *o = ctl_result_begin(cmd);

	if (o != NULL) {
		json_open_object(o);
		pc->answer(pc, o);
		json_close_object(o);
	}
	pc_free(pc);
	ctl_result_send(cmd, &o);
}

static void pc_loaded(struct policy_load *l, int err)
{
	struct pathconfig *pc = l->user;

	if (err != 0)
		pc_fail(pc, err, l->et.s);
	else
		pc_answer(pc);
}

/* What the metadata store has now is in force, and then it is told. */
static void pc_ask(struct pathconfig *pc, void (*answer)(struct pathconfig *pc, struct json_out *o))
{
	pc->answer = answer;
	policy_load(pc->cmd->d->fs, &pc->load, pc_loaded);
}

static void put_state(struct json_out *o, struct daemon *d)
{
	uint64_t version;

	(void)policy_rules(d->fs, &version);
	json_add_u64(o, "version", version);
	json_add_bool(o, "enabled", d->cfg->write_cache_enabled);
}

/* --- show */

static void put_rules(struct pathconfig *pc, struct json_out *o)
{
	struct daemon *d = pc->cmd->d;
	size_t len;

	put_state(o, d);
	json_add_text(o, "text", rules_text(policy_rules(d->fs, NULL), &len));
}

void ctl_pathconfig_show(struct ctl_cmd *cmd)
{
	struct pathconfig *pc = pc_new(cmd);

	if (pc != NULL)
		pc_ask(pc, put_rules);
}

/* --- test */

static void put_rule(struct pathconfig *pc, struct json_out *o)
{
	struct daemon *d = pc->cmd->d;
	const struct rule *rule = rules_match(policy_rules(d->fs, NULL), pc->nspath + 1);

	json_add_text(o, "alluxioPath", rule->path);
	json_add_text(o, "description", rule->description);
	json_add_text(o, "policyMode", rule_mode_name(rule->mode));
	json_key(o, "properties");
	json_open_object(o);
	json_add_u64(o, "writeReplicas", rule->replicas);
	json_close_object(o);
	put_state(o, d);
}

/* No file has such a path, so no rule decides. */
static bool no_path(const char *nspath)
{
	const char *s = nspath;

	while (*s != '\0') {
		size_t n = strcspn(++s, "/");

		if ((n == 1 && s[0] == '.') || (n == 2 && s[0] == '.' && s[1] == '.'))
			return true;
		s += n;
	}
	return false;
}

void ctl_pathconfig_test(struct ctl_cmd *cmd)
{
	char *nspath = ctl_fs_path(cmd);
	struct pathconfig *pc;

	if (nspath == NULL)
		return;
	if (no_path(nspath)) {
		ctl_fail(cmd, -EINVAL, "%s: a path has no \".\" or \"..\" parts", nspath);
		free(nspath);
		return;
	}
	pc = pc_new(cmd);
	if (pc == NULL) {
		free(nspath);
		return;
	}
	pc->nspath = nspath;
	pc_ask(pc, put_rule);
}

/* --- set */

static void put_warning(void *arg, const char *words)
{
	json_put_text(arg, words);
}

static void put_set(struct pathconfig *pc, struct json_out *o)
{
	const char *storage[FS_ATTACH_MAX + 1];
	struct fs *fs = pc->cmd->d->fs;
	unsigned n = 0;

	while (n < FS_ATTACH_MAX && fs_ufs(fs, n, &storage[n]) != NULL)
		n++;
	storage[n] = NULL;
	put_state(o, pc->cmd->d);
	json_key(o, "warnings");
	json_open_array(o);
	rules_review(policy_rules(fs, NULL), storage, put_warning, o);
	json_close_array(o);
}

static void pc_set(struct policy_set *s, int err)
{
	struct pathconfig *pc = s->user;

	if (err != 0) {
		pc_fail(pc, err, s->et.s);
		return;
	}
	pc->answer = put_set;
	pc_answer(pc);
}

void ctl_pathconfig_set(struct ctl_cmd *cmd)
{
	const struct json *version = json_get(cmd->rq.args, "if_version");
	struct pathconfig *pc = pc_new(cmd);

	if (pc == NULL)
		return;
	/* The command, and what it was read from, stays until its end. */
	pc->set.json = json_get_text(cmd->rq.args, "text", "");
	pc->set.len = strlen(pc->set.json);
	pc->set.if_version = UINT64_MAX;
	if (version != NULL && units_parse_u64(version->text, &pc->set.if_version) != 0) {
		pc_fail(pc, -EINVAL, "pathconfig set: \"if_version\" must be a whole number");
		return;
	}
	policy_set(cmd->d->fs, &pc->set, pc_set);
}
