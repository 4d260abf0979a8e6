/* SPDX-License-Identifier: BSD-2-Clause */
#include "meta_rig.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>

#include "ops/fs_priv.h"

static void serve(struct rig *r)
{
	if (!loop_turn(r->loop, false))
		sched_yield();
}

void meta_rig_until(struct rig *r, const bool *flag)
{
	while (!*flag)
		serve(r);
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
