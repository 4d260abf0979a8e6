/* SPDX-License-Identifier: BSD-2-Clause */
#include "meta_rig.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/staged.h"
#include "cache/upload.h"

void meta_rig_until(struct rig *r, const bool *flag)
{
	while (!*flag)
		if (!loop_turn(r->loop, false))
			sched_yield();
}

void meta_rig_open(struct meta_rig *m, struct rig *r)
{
	struct meta_env env = {
	    .loop = r->loop, .pool = r->pool, .cfg = r->cfg, .epoch = &r->epoch};
	struct staging_env senv = {.loop = r->loop, .pool = r->pool, .cfg = r->cfg,
	    .cache = r->cache, .epoch = &r->epoch};
	struct uploads_env uenv = {.loop = r->loop, .pool = r->pool, .cfg = r->cfg};
	char sub[80];

	memset(m, 0, sizeof(*m));
	snprintf(m->dir, sizeof(m->dir), "/tmp/batonfs-ops-XXXXXX");
	cr_assert_not_null(mkdtemp(m->dir));
	snprintf(sub, sizeof(sub), "%s/meta", m->dir);
	cr_assert_eq(meta_new(&m->meta, &env, sub), 0);
	meta_open(m->meta);
	snprintf(sub, sizeof(sub), "%s/staged", m->dir);
	cr_assert_eq(staging_new(&m->staging, &senv, sub), 0);
	staging_set_db(m->staging, r->db);
	cr_assert_eq(uploads_new(&m->uploads, &uenv), 0);
	uploads_set_db(m->uploads, r->db);
	fs_set_writing(r->fs, m->meta, m->staging, m->uploads);
}

void meta_rig_restart(struct meta_rig *m, struct rig *r)
{
	staging_set_db(m->staging, NULL);
	uploads_set_db(m->uploads, NULL);
	rig_restart(r);
	staging_set_db(m->staging, r->db);
	uploads_set_db(m->uploads, r->db);
	fs_set_writing(r->fs, m->meta, m->staging, m->uploads);
}

static void closed(void *arg)
{
	*(bool *)arg = true;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	(void)st, (void)flag, (void)f;
	return remove(path);
}

void meta_rig_close(struct meta_rig *m, struct rig *r)
{
	bool over = false;

	if (m->meta == NULL)
		return;
	fs_set_writing(r->fs, NULL, NULL, NULL);
	staging_set_db(m->staging, NULL);
	uploads_set_db(m->uploads, NULL);
	uploads_free(&m->uploads);
	staging_free(&m->staging);
	meta_close(m->meta, closed, &over);
	meta_rig_until(r, &over);
	meta_free(&m->meta);
	nftw(m->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

struct step {
	bool over;
	int err;
};

static void step_done(struct meta_req *rq, int err)
{
	struct step *s = rq->user;

	s->over = true;
	s->err = err;
}

void meta_rig_put(struct rig *r, const char *path, const struct meta_record *rec)
{
	struct meta_change c = {.verb = META_PUT, .path = path, .rec = *rec};
	struct meta_txn txn = {.changes = &c, .n = 1};
	struct step s = {0};

	txn.req.user = &s;
	meta_txn(r->fs->meta, &txn, step_done);
	meta_rig_until(r, &s.over);
	cr_assert_eq(s.err, 0);
}

int meta_rig_get(struct rig *r, const char *path, struct meta_record *rec)
{
	struct meta_get g = {.path = path};
	struct step s = {0};

	g.req.user = &s;
	meta_get(r->fs->meta, &g, step_done);
	meta_rig_until(r, &s.over);
	*rec = g.rec;
	return s.err;
}
