/* SPDX-License-Identifier: BSD-2-Clause */
#include "policy_rig.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "meta_rig.h"
#include "ops/policy.h"

struct step {
	bool over;
	int err;
};

static void rules_set(struct policy_set *ps, int err)
{
	struct step *st = ps->user;

	st->over = true;
	st->err = err;
}

void policy_rig_rules(struct rig *r, const char *json)
{
	struct step st = {0};
	struct policy_set ps = {
	    .json = json, .len = strlen(json), .if_version = UINT64_MAX, .user = &st};

	policy_set(r->fs, &ps, rules_set);
	meta_rig_until(r, &st.over);
	cr_assert_eq(st.err, 0, "%s", ps.et.s);
}

void policy_rig_mode(struct rig *r, const char *mode)
{
	char json[400];

	snprintf(json, sizeof(json),
	    "{\"apiVersion\": \"v1.0\", \"defaultRule\": {\"policyMode\": \"NO_CACHE\"},"
	    " \"pathRules\": [{\"path\": \"/p/**\", \"policyMode\": \"%s\"}]}",
	    mode);
	policy_rig_rules(r, json);
}

void policy_rig_begin(struct rig *r, const char *mode, bool native)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount_writing(r, "attr_timeout=0,entry_timeout=0");
	r->cfg->write_cache_enabled = true;
	if (native)
		fake_can(&r->ufs, UFS_CAN_SETATTR | UFS_CAN_RENAME | UFS_CAN_ABSENT);
	fake_add(&r->ufs, "p", UFS_DIR, 0, "");
	fake_add(&r->ufs, "p/foreign", UFS_FILE, 7, "v1");
	fake_add(&r->ufs, "n", UFS_DIR, 0, "");
	policy_rig_mode(r, mode);
}

uint64_t policy_rig_tally(struct rig *r, enum meta_state state)
{
	struct meta_status st;

	meta_status(r->fs->meta, &st);
	return st.tally.files[state];
}

bool policy_rig_quiet(struct rig *r, void *arg)
{
	(void)arg;
	return r->fs->sessions == NULL && r->fs->nwork == 0;
}

bool policy_rig_persisted(struct rig *r, void *arg)
{
	return policy_rig_tally(r, META_STATE_NOT_PERSISTED) == 0 && policy_rig_quiet(r, arg);
}

int policy_rig_put(const char *path, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0640);
	char buf[26 * 200];
	int err = 0;

	if (fd < 0)
		return errno;
	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (char)('a' + i % 26);
	for (size_t at = 0; at < len && err == 0; at += sizeof(buf))
		if (write(fd, buf, MIN(sizeof(buf), len - at)) < 0)
			err = errno;
	if (close(fd) != 0 && err == 0)
		err = errno;
	return err;
}
