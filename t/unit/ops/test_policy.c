/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "meta_rig.h"
#include "ops/policy.h"

TestSuite(policy);

static struct rig r;

#define V "{\"apiVersion\": \"v1.0\", "
#define BACK V "\"pathRules\": [{\"path\": \"/a/**\", \"policyMode\": \"WRITE_BACK\"}]}"
#define TRANSIENT V "\"defaultRule\": {\"policyMode\": \"TRANSIENT\"}}"

static void fini(void)
{
	rig_free(&r);
}

static void with_rules(bool on)
{
	rig_mount_writing(&r, "");
	r.cfg->write_cache_enabled = on;
}

struct step {
	bool over;
	int err;
};

static void set_done(struct policy_set *s, int err)
{
	struct step *st = s->user;

	cr_assert_not(st->over);
	st->over = true;
	st->err = err;
}

static struct policy_set set;

static int put(const char *json, uint64_t if_version)
{
	struct step st = {0};

	set = (struct policy_set){
	    .json = json, .len = strlen(json), .if_version = if_version, .user = &st};
	policy_set(r.fs, &set, set_done);
	cr_assert_not(st.over, "never inline");
	meta_rig_until(&r, &st.over);
	return st.err;
}

static void load_done(struct policy_load *l, int err)
{
	struct step *st = l->user;

	st->over = true;
	st->err = err;
}

static struct policy_load load;

static int get(void)
{
	struct step st = {0};

	load.user = &st;
	policy_load(r.fs, &load, load_done);
	cr_assert_not(st.over, "never inline");
	meta_rig_until(&r, &st.over);
	return st.err;
}

static uint64_t version(void)
{
	uint64_t v;

	policy_rules(r.fs, &v);
	return v;
}

/* What the metadata store has, as if somebody else had put it there. */
static void txn_done(struct meta_req *rq, int err)
{
	struct step *st = rq->user;

	st->over = true;
	st->err = err;
}

static void put_behind(const char *json, uint64_t if_version)
{
	struct meta_change c = {.verb = META_SETTING_PUT,
	    .id = META_SETTING_RULES,
	    .blob = json,
	    .blob_len = strlen(json),
	    .if_version = if_version};
	struct meta_txn txn = {.changes = &c, .n = 1};
	struct step st = {0};

	txn.req.user = &st;
	meta_txn(r.fs->meta, &txn, txn_done);
	meta_rig_until(&r, &st.over);
	cr_assert_eq(st.err, 0);
}

Test(policy, off, .fini = fini)
{
	with_rules(false);
	cr_assert_eq(put(BACK, UINT64_MAX), 0);
	cr_assert_eq(policy_of(r.fs, "a/x"), META_POLICY_NO_CACHE);
	cr_assert_not(policy_split(r.fs, ""));
	r.cfg->write_cache_enabled = true;
	cr_assert_eq(policy_of(r.fs, "a/x"), META_POLICY_WRITE_BACK);
	cr_assert(policy_split(r.fs, ""));
	cr_assert_not(policy_split(r.fs, "a"));
}

Test(policy, read_only, .fini = fini)
{
	rig_mount(&r, "");
	r.cfg->write_cache_enabled = true;
	cr_assert_eq(policy_of(r.fs, "a"), META_POLICY_NO_CACHE);
	cr_assert_not(policy_split(r.fs, ""));
	cr_assert_eq(get(), -EROFS);
	cr_assert_eq(put(BACK, UINT64_MAX), -EROFS);
	cr_assert_not_null(strstr(set.et.s, "read-only"), "%s", set.et.s);
}

Test(policy, every_mode, .fini = fini)
{
	with_rules(true);
	cr_assert_eq(policy_of(r.fs, "x"), META_POLICY_WRITE_THROUGH);
	cr_assert_eq(put(V "\"defaultRule\": {\"policyMode\": \"NO_CACHE\"}, \"pathRules\": ["
			   "{\"path\": \"/wt\", \"policyMode\": \"WRITE_THROUGH\"},"
			   "{\"path\": \"/wb\", \"policyMode\": \"WRITE_BACK\"},"
			   "{\"path\": \"/t\", \"policyMode\": \"TRANSIENT\"}]}", 0), 0, "%s",
	    set.et.s);
	cr_assert_eq(set.version, 1);
	cr_assert_eq(policy_of(r.fs, "wt"), META_POLICY_WRITE_THROUGH);
	cr_assert_eq(policy_of(r.fs, "wb"), META_POLICY_WRITE_BACK);
	cr_assert_eq(policy_of(r.fs, "t"), META_POLICY_TRANSIENT);
	cr_assert_eq(policy_of(r.fs, "x"), META_POLICY_NO_CACHE);
}

Test(policy, bad_text_changes_nothing, .fini = fini)
{
	with_rules(true);
	cr_assert_eq(put(BACK, 0), 0);
	cr_assert_eq(put("{\"apiVersion\": \"v1.0\",\n \"pathRules\": [7]}", 1), -EINVAL);
	cr_assert_not_null(strstr(set.et.s, "line 2, column 16: "), "%s", set.et.s);
	cr_assert_eq(version(), 1);
	cr_assert_eq(policy_of(r.fs, "a/x"), META_POLICY_WRITE_BACK);
	cr_assert_eq(get(), 0);
	cr_assert_eq(version(), 1);
	cr_assert_eq(put(V "\"defaultRule\": {\"policyMode\": \"NO_CACHE\", \"properties\": "
			   "{\"writeReplicas\": 2}}}", 1), -EINVAL, "one node");
}

Test(policy, versions, .fini = fini)
{
	with_rules(true);
	cr_assert_eq(put(BACK, 0), 0);
	cr_assert_eq(put(TRANSIENT, 0), -EEXIST);
	cr_assert_not_null(strstr(set.et.s, "somebody else"), "%s", set.et.s);
	cr_assert_eq(policy_of(r.fs, "x"), META_POLICY_WRITE_THROUGH);
	cr_assert_eq(put(TRANSIENT, 1), 0);
	cr_assert_eq(set.version, 2);
	cr_assert_eq(policy_of(r.fs, "x"), META_POLICY_TRANSIENT);
	cr_assert_eq(put(BACK, UINT64_MAX), 0);
	cr_assert_eq(version(), 3);
}

/* Somebody else's rules are met: by a guess refused, by "whatever it is" replaced. */
Test(policy, others_change_them, .fini = fini)
{
	with_rules(true);
	put_behind(TRANSIENT, 0);
	cr_assert_eq(policy_of(r.fs, "x"), META_POLICY_WRITE_THROUGH, "not heard of yet");
	cr_assert_eq(put(BACK, 0), -EEXIST);
	cr_assert_eq(policy_of(r.fs, "x"), META_POLICY_TRANSIENT, "and now it is");
	cr_assert_eq(version(), 1);
	put_behind(BACK, 1);
	cr_assert_eq(put(TRANSIENT, UINT64_MAX), 0);
	cr_assert_eq(set.version, 3);
	put_behind(BACK, 3);
	policy_refresh(r.fs);
	while (version() != 4)
		loop_turn(r.loop, true);
	cr_assert_eq(policy_of(r.fs, "a/x"), META_POLICY_WRITE_BACK);
}

Test(policy, the_next_daemon_has_them_at_once, .fini = fini)
{
	with_rules(true);
	cr_assert_eq(put(BACK, 0), 0);
	cr_assert_eq(put(TRANSIENT, 1), 0);
	rig_restart(&r);
	cr_assert_eq(policy_of(r.fs, "x"), META_POLICY_TRANSIENT);
	cr_assert_eq(version(), 2);
	policy_state_close(r.fs);
	cr_assert_eq(policy_state_open(r.fs, NULL), 0);
	cr_assert_eq(version(), 2);
}

/* A turn of the state database is lost: the copy is written again. */
Test(policy, the_copy_again, .fini = fini)
{
	struct statedb_val v;

	with_rules(true);
	cr_assert_eq(put(BACK, 0), 0);
	cr_assert_eq(statedb_del(r.db, STATEDB_META, "rules", 5), 0);
	policy_state_again(r.fs);
	cr_assert_eq(statedb_get(r.db, STATEDB_META, "rules", 5, &v), 0);
	cr_assert_eq(v.len, 8 + strlen(BACK));
}

Test(policy, a_copy_of_another_version, .fini = fini)
{
	struct errtext et = {""};
	char row[64] = {0};

	with_rules(true);
	strcpy(row + 8, "{\"apiVersion\": \"v9.9\"}");
	cr_assert_eq(statedb_put(r.db, STATEDB_META, "rules", 5, row, 8 + strlen(row + 8)), 0);
	policy_state_close(r.fs);
	cr_assert_eq(policy_state_open(r.fs, &et), -EPROTO);
	cr_assert_not_null(strstr(et.s, "newer version"), "%s", et.s);
	cr_assert_not_null(strstr(et.s, "v9.9"), "%s", et.s);
	cr_assert_eq(statedb_put(r.db, STATEDB_META, "rules", 5, row, 3), 0);
	cr_assert_eq(policy_state_open(r.fs, &et), -EPROTO);
	cr_assert_eq(statedb_del(r.db, STATEDB_META, "rules", 5), 0);
	put_behind("{\"apiVersion\": \"v9.9\"}", 0);
	cr_assert_eq(get(), -EPROTO);
	cr_assert_not_null(strstr(load.et.s, "newer version"), "%s", load.et.s);
	cr_assert_eq(policy_of(r.fs, "x"), META_POLICY_WRITE_THROUGH);
	cr_assert_eq(put(BACK, UINT64_MAX), -EPROTO, "nor are they thrown away");
	cr_assert_eq(put(BACK, 1), 0, "unless that is meant");
}

Test(policy, a_megabyte, .fini = fini)
{
	size_t n = META_SETTING_MAX;
	char *text = malloc(n + 2);

	with_rules(true);
	cr_assert_not_null(text);
	memset(text, ' ', n + 1);
	text[n + 1] = '\0';
	memcpy(text, TRANSIENT, strlen(TRANSIENT));
	cr_assert_eq(put(text, UINT64_MAX), -EINVAL);
	cr_assert_not_null(strstr(set.et.s, "1048577 bytes"), "%s", set.et.s);
	text[n] = '\0';
	cr_assert_eq(put(text, UINT64_MAX), 0, "%s", set.et.s);
	rig_restart(&r);
	cr_assert_eq(policy_of(r.fs, "x"), META_POLICY_TRANSIENT);
	free(text);
}

static void never(struct policy_set *s, int err)
{
	(void)s;
	(void)err;
	cr_assert_fail("called after its abort");
}

static void never_load(struct policy_load *l, int err)
{
	(void)l;
	(void)err;
	cr_assert_fail("called after its abort");
}

Test(policy, aborted, .fini = fini)
{
	const uint64_t from[] = {0, UINT64_MAX};

	with_rules(true);
	for (size_t i = 0; i < ARRAY_LEN(from); i++) {
		set = (struct policy_set){
		    .json = TRANSIENT, .len = strlen(TRANSIENT), .if_version = from[i]};
		policy_set(r.fs, &set, never);
		policy_set_abort(&set);
	}
	set = (struct policy_set){.json = "[]", .len = 2};
	policy_set(r.fs, &set, never);
	policy_set_abort(&set);
	load.user = NULL;
	policy_load(r.fs, &load, never_load);
	policy_load_abort(&load);
	cr_assert_eq(get(), 0);
	cr_assert_eq(put(BACK, UINT64_MAX), 0);
	cr_assert_eq(policy_of(r.fs, "a/x"), META_POLICY_WRITE_BACK);
}

static void flag(void *arg)
{
	*(bool *)arg = true;
}

/* The store cannot be opened: words that say where, and a look again later. */
Test(policy, no_metadata_store, .fini = fini)
{
	struct meta_env env;
	struct meta *bad, *was;
	char dir[128];
	bool closed = false;

	with_rules(true);
	env = (struct meta_env){.loop = r.loop, .pool = r.pool, .cfg = r.cfg, .epoch = &r.epoch};
	was = r.fs->meta;
	snprintf(dir, sizeof(dir), "%s/file", r.tm.src);
	fclose(fopen(dir, "w"));
	cr_assert_eq(meta_new(&bad, &env, dir), 0);
	meta_open(bad);
	r.fs->meta = bad;
	cr_assert_eq(get(), -EIO);
	cr_assert_not_null(strstr(load.et.s, dir), "%s", load.et.s);
	cr_assert_eq(put(BACK, UINT64_MAX), -EIO);
	cr_assert_eq(put(BACK, 0), -EIO);
	cr_assert_not_null(strstr(set.et.s, dir), "%s", set.et.s);
	cr_assert_eq(version(), 0);
	policy_refresh(r.fs);
	r.fs->meta = was;
	cr_assert_eq(put(TRANSIENT, 0), 0);
	r.fs->meta = bad;
	meta_close(bad, flag, &closed);
	meta_rig_until(&r, &closed);
	policy_state_close(r.fs);
	meta_free(&bad);
	r.fs->meta = was;
	cr_assert_eq(policy_of(r.fs, "x"), META_POLICY_TRANSIENT);
}
