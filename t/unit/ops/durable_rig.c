/* SPDX-License-Identifier: BSD-2-Clause */
#include "durable_rig.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <endian.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct rig dr;
unsigned char dr_content[DR_LARGE + 1];

void dr_begin(void)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount_writing(&dr, "attr_timeout=0,entry_timeout=0");
	for (size_t i = 0; i < sizeof(dr_content); i++)
		dr_content[i] = (unsigned char)(i * 7 + i / 4096);
}

void dr_finish(void)
{
	if (dr.loop != NULL)
		rig_free(&dr);
}

static void io_over(struct staged_io *io, int err)
{
	struct dr_step *st = io->user;

	st->over = true;
	st->err = err;
}

void dr_wait_over(struct session_wait *w, int err)
{
	struct dr_step *st = w->user;

	st->over = true;
	st->err = err;
}

static void meta_over(struct meta_req *rq, int err)
{
	struct dr_step *st = rq->user;

	st->over = true;
	st->err = err;
}

struct session *dr_make(const char *name, enum meta_policy policy)
{
	struct ufs_attr attr = {.kind = UFS_FILE};
	struct session *s;
	struct node n;

	cr_assert_eq(node_make(dr.fs, NODE_ROOT, name, name, &attr, true, &n), 0);
	node_count(dr.fs, &n);
	cr_assert_eq(session_new_durable(dr.fs, &n, name, policy, 0, &s), 0);
	cr_assert_eq(session_add_writer(s, 1), 0);
	return s;
}

void dr_put(struct session *s, uint64_t off, const void *data, size_t len)
{
	struct dr_step st = {.over = false};
	struct staged_io io = {.sf = s->sf,
	    .off = off,
	    .len = len,
	    .data = data,
	    .done = io_over,
	    .user = &st};

	cr_assert(!session_must_note(s, off));
	session_use(s);
	session_rewriter(s, 1);
	staged_write(&io);
	meta_rig_until(&dr, &st.over);
	cr_assert_eq(st.err, 0);
	session_rewriter(s, -1);
	cr_assert_eq(session_wrote(s, off, len), 0);
	session_unuse(s);
}

void dr_fill(struct session *s, size_t len)
{
	for (size_t off = 0; off < len; off += STAGED_IO_MAX)
		dr_put(s, off, dr_content + off, MIN(len - off, STAGED_IO_MAX));
}

void dr_upload_forced(struct session *s, struct session_wait *w,
    void (*done)(struct session_wait *w, int err))
{
	session_upload(s, w, true, done);
}

int dr_wait_for(struct session *s, dr_wait_fn *fn)
{
	struct dr_step st = {.over = false};
	struct session_wait w = {.user = &st};

	session_use(s);
	fn(s, &w, dr_wait_over);
	meta_rig_until(&dr, &st.over);
	session_unuse(s);
	return st.err;
}

int dr_secure(struct session *s)
{
	return dr_wait_for(s, session_secure);
}

static bool is_gone(struct rig *rig, void *arg)
{
	(void)arg;
	return rig->fs->sessions == NULL && rig->fs->ended == NULL && rig->fs->nwork == 0;
}

void dr_until_gone(void)
{
	while (!is_gone(&dr, NULL))
		(void)loop_turn(dr.loop, false);
}

struct meta_record dr_parked(const char *name, enum meta_policy policy, size_t len)
{
	struct session *s = dr_make(name, policy);
	struct meta_record rec;

	dr_fill(s, len);
	cr_assert_eq(dr_secure(s), 0);
	cr_assert_eq(session_add_writer(s, -1), 0);
	dr_until_gone();
	cr_assert_eq(statedb_count(dr.db, STATEDB_SESSIONS), 0);
	cr_assert_eq(statedb_count(dr.db, STATEDB_STAGED), 0);
	while (statedb_count(dr.db, STATEDB_EXTENTS) > 0)
		(void)loop_turn(dr.loop, true);
	cr_assert_eq(meta_rig_get(&dr, name, &rec), 0);
	return rec;
}

struct meta_content_get *dr_stored(uint64_t id)
{
	static struct meta_content_get g;
	struct dr_step st = {.over = false};

	meta_content_free(&g);
	memset(&g, 0, sizeof(g));
	g.id = id;
	g.req.user = &st;
	meta_content_get(dr.fs->meta, &g, meta_over);
	meta_rig_until(&dr, &st.over);
	cr_assert_eq(st.err, 0);
	return &g;
}

struct session *dr_adopt(const char *name)
{
	struct meta_record rec;
	struct meta_content_get *g;
	struct session *s;
	struct node n;

	cr_assert_eq(meta_rig_get(&dr, name, &rec), 0);
	g = dr_stored(rec.content.id);
	cr_assert_eq(node_find(dr.fs, NODE_ROOT, name, &n), 0);
	cr_assert_eq(session_version_content(n.version), rec.content.id);
	cr_assert_eq(n.size, rec.content.size);
	cr_assert_eq(n.flags & NODE_LOCAL, 0);
	cr_assert_eq(session_adopt(dr.fs, &n, &g->rec, g->blob, g->len, &s), 0);
	cr_assert_eq(s->state, SESSION_KEPT);
	meta_content_free(g);
	return s;
}

void dr_compare(struct session *s, size_t len)
{
	static unsigned char mem[sizeof(dr_content)];
	struct dr_step st = {.over = false};
	struct staged_io io = {.sf = s->sf, .len = sizeof(mem), .done = io_over, .user = &st};

	session_use(s);
	staged_pread(&io, mem);
	meta_rig_until(&dr, &st.over);
	session_unuse(s);
	cr_assert_eq(st.err, 0, "%s", strerror(-st.err));
	cr_assert_eq(io.got, len);
	cr_assert_eq(memcmp(mem, dr_content, len), 0);
}

unsigned dr_staged_files(void)
{
	char dir[128];
	struct dirent *de;
	unsigned n = 0;
	DIR *d;

	snprintf(dir, sizeof(dir), "%s/staged", dr.tm.src);
	d = opendir(dir);
	while (d != NULL && (de = readdir(d)) != NULL)
		n += de->d_name[0] != '.';
	if (d != NULL)
		closedir(d);
	return n;
}

void dr_until_no_files(void)
{
	while (dr_staged_files() > 0)
		(void)loop_turn(dr.loop, false);
}

void dr_check_object(const char *name, size_t len)
{
	struct fake_file *ff = fake_find(&dr.ufs, name);

	cr_assert_not_null(ff);
	cr_assert_eq(ff->size, len);
	cr_assert_not_null(ff->data);
	cr_assert_eq(memcmp(ff->data, dr_content, len), 0);
}

void dr_damage(uint64_t node, size_t at, unsigned char value, size_t len)
{
	unsigned char row[512];
	struct statedb_val v;
	uint64_t be = htobe64(node);

	cr_assert_eq(statedb_get(dr.db, STATEDB_SESSIONS, &be, sizeof(be), &v), 0);
	cr_assert_leq(v.len, sizeof(row));
	memcpy(row, v.data, v.len);
	row[at] = value;
	cr_assert_eq(
	    statedb_put(dr.db, STATEDB_SESSIONS, &be, sizeof(be), row, len != 0 ? len : v.len), 0);
}
