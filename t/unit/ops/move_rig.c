/* SPDX-License-Identifier: BSD-2-Clause */
#include "move_rig.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct rig mvr;

/* What is below the directory that is renamed. */
static const char *const tree[MVR_TREE] = {"f", "g", "s/h", "s/t/i", "z"};

void mvr_put_tree(const char *dir)
{
	char path[128];

	fake_add(&mvr.ufs, dir, UFS_DIR, 0, "");
	for (size_t i = 0; i < MVR_TREE; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, tree[i]);
		fake_add(&mvr.ufs, path, UFS_FILE, 5 + i, "v1");
	}
	snprintf(path, sizeof(path), "%s/empty", dir);
	fake_add(&mvr.ufs, path, UFS_DIR, 0, "");
}

void mvr_begin(void)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount_writing(&mvr, "attr_timeout=0,entry_timeout=0");
	mvr_put_tree("p/src");
	fake_add(&mvr.ufs, "e", UFS_DIR, 0, "");
	fake_add(&mvr.ufs, "other", UFS_FILE, 5, "o1");
}

void mvr_finish(void)
{
	rig_free(&mvr);
}

int mvr_c_rename(const struct tmp_mount *tm, void *arg)
{
	const struct mvr_names *n = arg;
	int dir = open(tm->mnt, O_RDONLY | O_DIRECTORY);

	if (dir < 0)
		return errno;
	return renameat(dir, n->from, dir, n->to) == 0 ? 0 : errno;
}

int mvr_mv(const char *from, const char *to)
{
	struct mvr_names n = {from, to};

	return rig_run(&mvr, mvr_c_rename, &n);
}

int mvr_run(rig_client *fn, const char *arg)
{
	return rig_run(&mvr, fn, (void *)(uintptr_t)arg);
}

bool mvr_there(const char *path)
{
	return fake_find(&mvr.ufs, path) != NULL;
}

unsigned mvr_did(enum fake_op op)
{
	return mvr.ufs.store.count[op];
}

bool mvr_quiet(struct rig *rig, void *arg)
{
	(void)arg;
	return rig->fs->sessions == NULL && rig->fs->nwork == 0 && rig->fs->recovery == NULL;
}

bool mvr_whole(const char *dir)
{
	char path[128], buf[16];

	for (size_t i = 0; i < MVR_TREE; i++) {
		struct fake_file *ff;

		snprintf(path, sizeof(path), "%s/%s", dir, tree[i]);
		ff = fake_find(&mvr.ufs, path);
		if (ff == NULL || ff->size != 5 + i ||
		    fake_store_bytes(&mvr.ufs.store, path, ff->version, 0, buf, 1) != 0 ||
		    buf[0] != 'v')
			return false;
	}
	snprintf(path, sizeof(path), "%s/empty", dir);
	return mvr_there(path);
}

bool mvr_gone(const char *dir)
{
	return !mvr_there(dir) && !fake_store_below(&mvr.ufs.store, dir);
}

void mvr_intents_done(struct meta_req *rq, int err)
{
	struct mvr_asked *a = rq->user;

	a->done = true;
	a->err = err;
}

size_t mvr_intents(void)
{
	struct mvr_asked a = {.done = false};
	size_t n;

	a.all.req.user = &a;
	meta_intents(mvr.meta, &a.all, mvr_intents_done);
	while (!a.done)
		loop_turn(mvr.loop, true);
	cr_assert_eq(a.err, 0);
	n = a.all.count;
	meta_intents_free(&a.all);
	return n;
}

int mvr_record_of(const char *path, struct meta_record *rec)
{
	struct mvr_asked a = {.get.path = path};

	a.get.req.user = &a;
	meta_get(mvr.meta, &a.get, mvr_intents_done);
	while (!a.done)
		loop_turn(mvr.loop, true);
	*rec = a.get.rec;
	return a.err;
}

static unsigned notes(void)
{
	struct statedb_val k, v;

	if (statedb_seek(mvr.db, STATEDB_META, "moving:", 8, &k, &v) != 0)
		return 0;
	return k.len >= 8 && memcmp(k.data, "moving:", 8) == 0;
}

void mvr_check_clean(void)
{
	rig_until(&mvr, mvr_quiet, NULL);
	cr_assert_eq(statedb_count(mvr.db, STATEDB_LEDGER), 0);
	cr_assert_eq(notes(), 0);
	cr_assert_eq(mvr_intents(), 0);
	cr_assert(TAILQ_EMPTY(&mvr.fs->locks.list));
	cr_assert(TAILQ_EMPTY(&mvr.fs->moves));
}

void mvr_set_parallel(const char *n)
{
	struct errtext et;

	cr_assert_eq(config_set(mvr.cfg, "rename.parallel", n, &et), 0, "%s", et.s);
}
