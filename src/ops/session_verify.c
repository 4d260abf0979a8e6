/* SPDX-License-Identifier: BSD-2-Clause */
/* Is what the storage has under the name what an earlier upload has sent? */
#include <errno.h>
#include <string.h>

#include "ops/session_upload_op.h"

#define VERIFY_CHUNK ((size_t)1 << 20)

static void up_ufs_cb(struct ufs_req *r, int err)
{
	up_result(r->user, err);
}

static void up_leave_stat(struct task *t)
{
	ufs_abort(&up_of(t)->stat.req);
}

enum task_next up_ask(struct task *t)
{
	struct op_upload *u = up_of(t);

	u->run.size = staged_size(u->s->sf);
	u->theirs = malloc(VERIFY_CHUNK);
	u->ours = malloc(VERIFY_CHUNK);
	if (u->theirs == NULL || u->ours == NULL)
		return up_finish(u, -ENOMEM);
	u->stat.path = u->sub;
	u->stat.file = staged_id(u->s->sf);
	u->stat.req.user = u;
	ufs_stat(u->ufs, &u->stat, up_ufs_cb);
	return task_wait(t, UP_ASKED, up_leave_stat);
}

/* What an earlier upload of ours has made took the place of what lies beneath, and has the
 * same bytes wherever there are none here: it is what lies beneath from now on. */
static int take_earlier(struct op_upload *u)
{
	const struct ufs_attr *is = &u->stat.attr;
	struct session *s = u->s;
	int err;

	if (u->result != 0 || !u->stat.mine || !s->base || strcmp(u->version, is->version) == 0)
		return 0;
	err = node_set_version(s->fs, s->node, is);
	if (err == 0)
		err = session_rebase(s);
	if (err == 0)
		memcpy(u->version, is->version, sizeof(u->version));
	return err;
}

enum task_next up_was_asked(struct task *t)
{
	struct op_upload *u = up_of(t);

	if (task_fail(t, u->result == -ENOENT ? 0 : u->result) != 0 ||
	    task_fail(t, take_earlier(u)) != 0)
		return up_finish(u, task_err(t));
	if (u->s->fresh || u->result == -ENOENT || u->stat.attr.kind != UFS_FILE ||
	    u->stat.attr.size != u->run.size)
		return up_replace(u);
	return task_goto(t, UP_COMPARE);
}

static void up_leave_read(struct task *t)
{
	ufs_abort(&up_of(t)->read.req);
}

static void up_data(struct ufs_read *rq, const void *data, size_t len)
{
	struct op_upload *u = rq->req.user;

	memcpy(u->theirs + u->got, data, len);
	u->got += len;
}

enum task_next up_compare(struct task *t)
{
	struct op_upload *u = up_of(t);
	struct session *s = u->s;
	uint64_t end;

	if (s->fresh)
		return up_replace(u); /* written meanwhile: nothing to compare with */
	/* What was never fetched from the base was not changed either. */
	while (u->at < u->run.size && staged_map(s->sf, u->at, &end) == STAGED_BASE)
		u->at = end;
	if (u->at >= u->run.size) {
		u->attr = u->stat.attr;
		u->size = u->run.size;
		return task_goto(t, UP_MADE);
	}
	(void)staged_map(s->sf, u->at, &end);
	u->chunk = (size_t)MIN(MIN(end, u->run.size) - u->at, (uint64_t)VERIFY_CHUNK);
	u->got = 0;
	u->read.path = u->sub;
	u->read.version = u->stat.attr.version;
	u->read.off = u->at;
	u->read.len = u->chunk;
	u->read.on_data = up_data;
	u->read.req.user = u;
	ufs_read(u->ufs, &u->read, up_ufs_cb);
	return task_wait(t, UP_READ, up_leave_read);
}

static void up_pread_cb(struct staged_io *io, int err)
{
	up_result(io->user, err);
}

enum task_next up_was_read(struct task *t)
{
	struct op_upload *u = up_of(t);

	if (task_fail(t, u->result) != 0)
		return up_finish(u, task_err(t));
	u->io = (struct staged_io){
	    .sf = u->s->sf, .off = u->at, .len = u->chunk, .done = up_pread_cb, .user = u};
	staged_pread(&u->io, u->ours);
	return task_wait(t, UP_COMPARED, NULL);
}

enum task_next up_compared(struct task *t)
{
	struct op_upload *u = up_of(t);

	if (task_fail(t, u->result) != 0)
		return up_finish(u, task_err(t));
	if (memcmp(u->ours, u->theirs, u->chunk) != 0)
		return up_replace(u);
	u->at += u->chunk;
	return task_goto(t, UP_COMPARE);
}
